"""What a study will take, before it is started: runs, steps, hours, disk, memory.

The sets are listed and checked, and a few training steps are taken at their real shapes, on random pixels and from
random weights. No set is decoded, nothing is downloaded, nothing is kept.
"""

from __future__ import annotations

import inspect
import json
import math
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from viptt_core.clips import ClipSet
from viptt_core.datasets import LISTERS, SYNTHETIC, list_dataset
from viptt_core.experiment import single_frames
from viptt_core.files import artifact_root
from viptt_core.presets import Preset, Stage
from viptt_core.splits import Split, make_split
from viptt_core.study.plan import Arm, Study
from viptt_core.study.step_cost import Cost, measure, pixelless
from viptt_core.study.variants import draw_scans, fold_scans
from viptt_core.training.device import Engine, pick_device

GB, HOUR = 1e9, 3600


@dataclass
class Work:
    """Runs that cost the same a step."""

    preset: Preset
    stage: Stage
    kind: str  # "pretrain" or "finetune"
    stills: bool  # trains on single frames
    classes: int
    runs: int = 0
    steps_a_run: int = 0  # at most
    steps: int = 0  # of all runs
    predicted: int = 0  # clips, in validation and test
    clips: int = 0  # whose features are computed

    @property
    def label(self) -> str:
        """For the table."""
        name = {"pretrain": "pretraining", "finetune": "fine-tuning"}[self.kind] + (", stills" if self.stills else "")
        how = "frozen" if self.stage.freeze_backbone else "trained"
        return f"{name}, {self.preset.name}: {self.preset.backbone} {how}, {self.preset.temporal}" + (
            ", rotated" if self.stage.rotate else ""
        )

    def add(self, runs: int, split: Split, epochs: int) -> None:
        """Count runs on a split."""
        steps = epochs * math.ceil(len(split.train) / self.stage.batch_size)
        held_out = len(split.validation) * (epochs + 1) + len(split.test)
        self.runs, self.steps_a_run = self.runs + runs, max(self.steps_a_run, steps)
        self.steps, self.predicted = self.steps + runs * steps, self.predicted + runs * held_out
        self.clips += runs * (len(split.train) + len(split.validation) + len(split.test))

    def seconds(self, cost: Cost) -> float:
        """Of all runs, one after another."""
        return self.steps * cost.step + self.predicted * cost.predict + self.clips * cost.features

    def disk(self, cost: Cost) -> float:
        """Bytes that all runs leave behind."""
        # ImageNet's frozen backbone is the same in all runs, and so are its features.
        runs = 1 if self.preset.backbone_weights and self.stage.freeze_stem else self.runs
        return self.runs * cost.weight_bytes + self.clips / self.runs * runs * cost.feature_bytes


@dataclass(frozen=True)
class Estimate:
    """What a study takes; `str` of it is for the reader.

    Attributes:
        study: Its name.
        device: Where it was measured.
        table: A row a stage: stage, runs, steps a run, seconds a step, hours, disk GB, memory GB.
        clips_gb: Decoded sets.
        notes: What to know beside it.
    """

    study: str
    device: str
    table: pd.DataFrame
    clips_gb: float
    notes: tuple[str, ...]

    @property
    def hours(self) -> float:
        """All runs one after another, each to its last epoch."""
        return float(self.table["hours"].sum())

    @property
    def disk_gb(self) -> float:
        """Decoded sets, weights and cached features."""
        return float(self.table["disk GB"].sum()) + self.clips_gb

    def __str__(self) -> str:
        rounded = self.table.assign(**{"seconds a step": self.table["seconds a step"].map("{:.3g}".format)})
        lines = [
            f"Study '{self.study}' on {self.device}: nothing was started.",
            "",
            rounded.to_string(index=False, float_format=lambda value: f"{value:.2f}"),
            "",
            f"{self.table['runs'].sum()} runs, at most {self.hours:.1f} hours one after another (each to its last "
            "epoch; most stop before).",
            f"{self.disk_gb:.1f} GB of disk, {self.clips_gb:.1f} of it decoded clips.",
            *self.notes,
        ]
        return "\n".join(lines)


def estimate(study: Study, engine: Engine | None = None) -> Estimate:
    """Check the sets of a study, measure steps on this machine, and add up.

    Args:
        study: The plan, folders of real sets in it.
        engine: How it would run; None takes what the study and the machine ask for.

    Raises:
        SettingError: a folder is not named, or a setting is unknown.
        DataError: a set cannot be used as it is.
    """
    engine = engine or Engine(precision=study.precision)
    sets = _Sets(study)
    works = _count(study, sets)
    rows, scaled = [], False
    for work in tqdm(works, desc="measuring", unit="stage", disable=None):
        cost = measure(work.preset, work.stage, classes=work.classes, stills=work.stills, engine=engine)
        scaled |= cost.scaled
        rows.append(
            {
                "stage": work.label,
                "runs": work.runs,
                "steps a run": work.steps_a_run,
                "seconds a step": cost.step,
                "hours": work.seconds(cost) / HOUR,
                "disk GB": work.disk(cost) / GB,
                "memory GB": cost.memory_mb / 1000,
            }
        )
    device = pick_device(engine.device)
    notes = [*sets.notes]
    if scaled:
        notes.append("Where a step takes long, a few frames were measured for a batch, which needs more memory.")
    for name, backbone in sorted({(work.preset.backbone_weights, work.preset.backbone) for work in works}):
        if name and not _weights_are_here(name, backbone):
            notes.append(
                f"The ImageNet weights of {backbone} ({name}) are not here: measured with random ones, which "
                "take as long. They are downloaded at the first run."
            )
    if study.primary.width:
        notes.append(f"Seeds may be added to the two arms of the primary contrast, up to {study.primary.most} each.")
    notes.append(f"{shutil.disk_usage(_existing(artifact_root())).free / GB:.0f} GB are free here.")
    plain = f"{device}, threads: {torch.get_num_threads()}"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else plain
    return Estimate(study.name, where, pd.DataFrame(rows), sets.bytes / GB, tuple(notes))


# --- What there is to train ------------------------------------------------------------------------------------------


@dataclass
class _Sets:
    """The sets of a study without their pixels, and what was found when they were listed."""

    study: Study
    notes: list[str] = field(default_factory=list)
    bytes: int = 0
    _known: dict = field(default_factory=dict)

    def scans(self, arm: Arm, seed: int, fold: int) -> ClipSet:
        """As `arms.Runner` gives them to a run."""
        study, settings = self.study, dict(self.study.scans)
        if arm.scans == "no finding" and study.n_no_finding:
            settings["n"] = study.n_pool + study.n_no_finding
        scans = self._of("scans", study.preset_of(arm), settings, finding=arm.scans != "no finding")
        if study.folds:
            return fold_scans(scans, fold, study.folds)
        if not study.n_pool:
            return scans
        return draw_scans(scans, n_pool=study.n_pool, n_train=arm.n_train or study.n_train or study.n_pool, seed=seed)

    def videos(self, arm: Arm) -> ClipSet:
        return self._of("videos", self.study.preset_of(arm), dict(self.study.videos))

    def _of(self, kind: str, preset: Preset, settings: dict, *, finding: bool = True) -> ClipSet:
        place = json.dumps([kind, settings, finding], sort_keys=True, default=str)
        grid = (preset.frames, preset.size, preset.stride, preset.fit, preset.hu_window, preset.orientation)
        if (place, grid) not in self._known:
            listed = self._known.get(place) or self._list(kind, preset, settings)
            shape = (len(listed), preset.frames, 1, 1)
            self._known[place] = listed
            self._known[place, grid] = replace(listed, clips=np.broadcast_to(np.uint8(0), shape))
            self.bytes += len(listed) * preset.frames * preset.size**2
        return self._known[place, grid]

    def _list(self, kind: str, preset: Preset, settings: dict) -> ClipSet:
        name = settings["dataset"]
        if name not in SYNTHETIC:
            taken = inspect.signature(LISTERS[name]).parameters
            chosen = {key: value for key, value in settings.items() if key in taken and key != "root"}
            listing = list_dataset(name, settings.get("root", ""), **chosen)
            left_out = listing.left_out(settings.get("on_error", "raise"))
            self.notes.append(
                f"{name}: {len(listing.items)} {kind}, {len(listing.class_names)} classes, "
                f"{len({item.group for item in listing.items})} groups, {len(left_out)} files left out; "
                "not read yet: `viptt data check` does."
            )
            labels = [item.label for item in listing.items]
            groups = [item.group for item in listing.items]
            parts = [item.part for item in listing.items]
            return pixelless(labels, groups, listing.class_names, parts if any(parts) else None)
        if kind == "scans":
            from viptt_core.constants import TB_CLASSES as classes
            from viptt_core.synthetic.phantom import cohort_labels

            labels = cohort_labels(settings.get("n", preset.n_scans), settings.get("seed", 0))
            groups = range(len(labels))
        else:
            from viptt_core.constants import UCF_CLASSES as classes

            labels = np.arange(settings.get("n", preset.n_videos)) % len(classes)
            groups = np.arange(len(labels)) % (25 * len(classes))
        self.notes.append(f"{name}: {len(labels)} {kind}, made when they are needed.")
        return pixelless(labels, groups, classes)


def _count(study: Study, sets: _Sets) -> list[Work]:
    """All runs of a study, pilots included, by what a step of them costs."""
    works: dict[tuple, Work] = {}

    def work(kind: str, preset: Preset, stage: Stage, classes: int, stills: bool = False) -> Work:
        key = (
            kind,
            stills,
            preset.name,
            preset.backbone,
            preset.temporal,
            preset.frames,
            preset.size,
            classes,
            stage.freeze_backbone,
            stage.freeze_stem,
            stage.rotate,
            stage.batch_size,
            stage.optimiser,
        )
        return works.setdefault(key, Work(preset, stage, kind, stills, classes))

    pretrainings: dict[tuple, tuple[Arm, int]] = {}
    for arm in study.arms:
        preset = study.preset_of(arm)
        pilot = bool(study.learning_rates) and not (arm.rate_of or arm.preset)
        if arm.pretrains and not (arm.start == "image" and preset.backbone_weights):
            key = (arm.pretrains, arm.videos, preset.name, preset.backbone, preset.temporal)
            runs = max(study.seeds_of(arm) + pilot, pretrainings.get(key, (arm, 0))[1])
            pretrainings[key] = arm, runs
        stage = preset.stage(arm.start)
        epochs, folds = stage.epochs, max(1, study.folds)
        for fold in range(folds):
            scans = sets.scans(arm, 0, fold)
            split = make_split(preset.splits, scans, stage="finetune", seed=0)
            if arm.extra_steps:
                videos = make_split(preset.splits, sets.videos(arm), stage="pretrain", seed=0)
                extra = preset.pretrain.epochs * math.ceil(len(videos.train) / preset.pretrain.batch_size)
                epochs = stage.epochs + math.ceil(extra / math.ceil(len(split.train) / stage.batch_size))
            runs = study.seeds_of(arm) + (len(study.learning_rates) if pilot and fold == 0 else 0)
            work("finetune", preset, stage, len(scans.class_names)).add(runs, split, epochs)
    for arm, runs in pretrainings.values():
        preset, videos = study.preset_of(arm), sets.videos(arm)
        stage, stills = preset.pretrain, arm.pretrains == "image"
        if stills:
            stage, videos = replace(stage, batch_size=stage.batch_size * preset.frames), single_frames(videos)
        split = make_split(preset.splits, videos, stage="pretrain", seed=0)
        work("pretrain", preset, stage, len(videos.class_names), stills).add(runs, split, stage.epochs)
    return sorted(works.values(), key=lambda each: each.kind, reverse=True)


def _weights_are_here(name: str, backbone: str) -> bool:
    from torchvision.models import get_model_weights

    file = get_model_weights(backbone)[name].url.rsplit("/", 1)[1]
    return (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file()


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_dir())
