"""The paper's experiment: pretrain on videos, fine-tune on scans from each start, compare on the test set."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from viptt_core.backbones import find_backbone
from viptt_core.clips import ClipSet, digest
from viptt_core.errors import SettingError, check_choice, check_counts
from viptt_core.files import code_version, one_at_a_time, peak_memory_mb, provenance
from viptt_core.model import ViPTTNet, imagenet_features
from viptt_core.prediction.card import run_card
from viptt_core.prediction.weights import WEIGHTS, open_weights, save_weights
from viptt_core.presets import STARTS, Preset, Stage, load_preset
from viptt_core.results import Run, is_finished, predictions_table, read_run, runs_root, write_run
from viptt_core.splits import make_split
from viptt_core.training import Task, Trainer
from viptt_core.training.checkpoint import remove_checkpoints
from viptt_core.training.device import Engine, pick_device

# A run is only used again when no module that this one reaches has changed in meaning, but for these: a preset's values
# are part of the configuration, weights and their cards are how a run is kept, and the rest is how it is shown.
APART = ("presets", "prediction", "shown")


@dataclass(frozen=True)
class Plan:
    """What to run and where, checked before any work starts."""

    preset: Preset  #: settings, epoch limits already put in
    starts: tuple[str, ...]  #: arms of the comparison, in order
    seed: int  #: of split, start weights, batches and augmentation
    engine: Engine  #: how to run it


def plan_experiment(
    preset: str = "demo",
    *,
    starts: str = "",
    epochs: int = 0,
    pretrain_epochs: int = 0,
    hu_window: str | Sequence[float] = "",
    seed: int = 0,
    **engine,
) -> Plan:
    """Check the settings of an experiment, and fetch ImageNet weights if it needs them.

    Args:
        preset: Its name, of those that `viptt presets` lists, or a TOML file of one's own, see `presets.load_preset`.
        starts: Comma-separated list of "random", "image", "video"; empty takes the preset's.
        epochs: Limit of fine-tuning; 0 takes the preset's.
        pretrain_epochs: Limit of pretraining; 0 takes the preset's.
        hu_window: Of scans, two numbers in HU or "-1000,400"; empty takes the preset's.
        seed: At least 0.
        engine: Fields of `training.device.Engine`: device, precision, frames_per_chunk and so on.

    Raises:
        SettingError: a setting does not exist or makes no sense.
        DataError: ImageNet weights are needed and can be neither found nor downloaded.
    """
    settings = load_preset(preset).with_epochs(epochs=epochs, pretrain_epochs=pretrain_epochs)
    if len(hu_window):
        settings = replace(settings, hu_window=hu_window)
    find_backbone(settings.backbone)
    arms = tuple(part.strip() for part in starts.split(",") if part.strip()) or settings.starts
    for start in arms:
        check_choice("start", start, STARTS)
    if "image" in arms and not settings.backbone_weights:
        what = f"the backbone of preset '{settings.name}' has no ImageNet weights to start from."
        raise SettingError(what, remedy="Take the starts random and video, or another preset.")
    if len(set(arms)) < len(arms):
        raise SettingError(f"starts '{starts}' names an arm twice.", remedy="Name each once.")
    check_counts(least=0, seed=seed)
    for name in engine:
        check_choice("engine setting", name, [field.name for field in fields(Engine)])
    plan = Plan(settings, arms, seed, Engine(**engine))
    pick_device(plan.engine.device)
    if settings.backbone_weights and set(arms) - {"random"}:
        imagenet_features(settings.backbone_weights, settings.backbone)  # downloads them, or says now that it cannot
    return plan


def plan_from(given: Mapping[str, Any], **others) -> Plan:
    """Plan the experiment that the parameters of a notebook ask for, see `plan_experiment`; `others` are put in."""
    names = (*inspect.signature(plan_experiment).parameters, *(field.name for field in fields(Engine)))
    return plan_experiment(**{name: given[name] for name in names if name in given} | others)


def build_model(preset: Preset, num_classes: int, *, seed: int, imagenet: bool = True) -> ViPTTNet:
    """A model as the preset asks for, its random parts drawn from `seed`."""
    return ViPTTNet(
        num_classes,
        backbone=preset.backbone,
        backbone_weights=preset.backbone_weights if imagenet else None,
        temporal=preset.temporal,
        hidden_size=preset.hidden_size,
        feature_size=preset.feature_size,
        stem=preset.stem,
        generator=torch.Generator().manual_seed(seed),
    )


def pretrain(plan: Plan, videos: ClipSet, *, progress: bool = True) -> Run:
    """Pretrain on videos, or find the finished run of the same data, settings, seed and meaning of the code."""
    return _finished_run(_Job(plan, videos, "pretrain", "video", plan.preset.pretrain, progress=progress))


def finetune(plan: Plan, scans: ClipSet, start: str, *, pretrained: Run | None = None, progress: bool = True) -> Run:
    """Fine-tune on scans from one start and predict the validation and test sets, or find the finished run.

    `pretrained` is the pretraining run whose weights to take over; None for ImageNet or random weights.
    """
    return _finished_run(_Job(plan, scans, "finetune", start, plan.preset.stage(start), pretrained, progress))


@dataclass(frozen=True)
class Comparison:
    """Fine-tuning runs of several starts on the same scans, split and seed."""

    runs: dict[str, Run]

    @property
    def predictions(self) -> pd.DataFrame:
        """Predictions of all arms, see `results.Run`."""
        return pd.concat([run.predictions for run in self.runs.values()], ignore_index=True)

    @property
    def history(self) -> pd.DataFrame:
        """Epochs of all arms, with a column `arm`."""
        return pd.concat([run.history.assign(arm=arm) for arm, run in self.runs.items()], ignore_index=True)

    @property
    def caveat(self) -> str:
        """What a reader must know beside the scores; empty when there is nothing."""
        if next(iter(self.runs.values())).config["selection_biased"]:
            return "Selection-biased: the test set is the one that picked the checkpoints."
        return ""

    def report(self) -> str:
        """Each arm in two lines, see `Run.report`."""
        return "\n".join(f"{arm}: {run.report()}" for arm, run in self.runs.items())


def compare_starts(plan: Plan, scans: ClipSet, videos: ClipSet, *, progress: bool = True) -> Comparison:
    """Fine-tune from every start of the plan, pretraining first where no finished run fits."""
    runs = {}
    for start in plan.starts:
        pretrained = pretrain(plan, videos, progress=progress) if start == "video" else None
        runs[start] = finetune(plan, scans, start, pretrained=pretrained, progress=progress)
    return Comparison(runs)


@dataclass(frozen=True)
class _Job:
    """One training of an experiment."""

    plan: Plan
    clips: ClipSet
    kind: str  # "pretrain" or "finetune"
    start: str
    stage: Stage
    pretrained: Run | None = None
    progress: bool = True


def _finished_run(job: _Job) -> Run:
    """Find the run, or train it; everything that decides the outcome is in the hash that names its folder."""
    preset = asdict(job.plan.preset)
    shared = {name: value for name, value in preset.items() if name not in ("pretrain", "finetune", "scratch")}
    config = {
        "stage": job.kind,
        "start": job.start,
        "seed": job.plan.seed,
        "data": job.clips.source,
        "pretrained": job.pretrained.folder.name if job.pretrained else None,
        "precision": job.plan.engine.precision,
        "code": code_version("experiment", apart_from=APART),
        "preset": shared | {job.kind: asdict(job.stage)},
    }
    folder = runs_root() / f"{job.kind}-{job.start}-{digest(config)}"
    if not is_finished(folder):
        with one_at_a_time(folder, f"Another program trains {folder.name}; waiting for it."):
            if not is_finished(folder):  # by now
                _train(job, folder, config)
    return read_run(folder)


def _train(job: _Job, folder: Path, config: dict) -> None:
    """Fit, predict the validation and test sets, write the run."""
    plan, clips = job.plan, job.clips
    torch.manual_seed(plan.seed)  # our own code draws from generators passed in; this is for libraries that do not
    began = time.perf_counter()
    imagenet = job.kind == "pretrain" or job.start != "random"
    model = build_model(plan.preset, len(clips.class_names), seed=plan.seed, imagenet=imagenet)
    if job.pretrained is not None:
        model.load_pretrained(open_weights(job.pretrained.folder).tensors)
    split = make_split(plan.preset.splits, clips, stage=job.kind, seed=plan.seed)
    trainer = Trainer(model, Task(clips, split, job.stage, plan.seed), engine=plan.engine, folder=folder)
    history, tables = trainer.run(f"{job.kind} ({job.start})" if job.progress else None), []
    for part in ("validation", "test"):
        indices = getattr(split, part)
        probabilities = torch.from_numpy(trainer.predict(indices)).double().softmax(dim=1).numpy()
        tables.append(predictions_table(clips, indices, probabilities, arm=job.start, part=part))
    predictions = pd.concat(tables, ignore_index=True)
    config |= {
        "split": split.sizes(),
        "selection_biased": split.selection_biased,
        "synthetic": clips.synthetic,
        "best_epoch": history.best_epoch,
        "stopped_early": history.stopped_early,
    }
    trained = sum(epoch["seconds"] for epoch in history.epochs)  # those before an interruption included
    record = {
        **provenance(),
        **history.engine,
        "seconds": round(max(time.perf_counter() - began, trained), 1),
        "peak_memory_mb": round(peak_memory_mb()),
        "data_key": clips.key,
        "seed": plan.seed,
    }
    save_weights(folder / WEIGHTS, model, run_card(config, clips, split, predictions, record))
    write_run(Run(folder, config, pd.DataFrame(history.epochs), predictions, record))
    remove_checkpoints(folder)
