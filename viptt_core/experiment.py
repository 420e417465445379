"""The paper's experiment: pretrain on videos, fine-tune on scans from each start, compare on the test part."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from viptt_core.env import peak_memory_mb, pick_device, provenance, seed_everything
from viptt_core.errors import SettingError
from viptt_core.model import ViPTTNet
from viptt_core.presets import STARTS, Preset, Stage, check_choice, load_preset
from viptt_core.results import Run, code_version, predictions_table, read_run, runs_root, write_run
from viptt_core.splits import Split, make_split
from viptt_core.store import ClipSet, digest
from viptt_core.train import fit, predict_logits

# A checkpoint is only reused when none of these changed in meaning.
TRAINING_CODE = ("augment", "ct", "datasets", "experiment", "model", "presets", "splits", "store",
                 "synthetic.actions", "synthetic.choreography", "synthetic.patient", "synthetic.phantom",
                 "synthetic.render", "train", "video")  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What to run and where, checked before any work starts.

    Attributes:
        preset: Settings, epoch limits already put in.
        starts: Arms of the comparison, in order.
        seed: Of split, start weights, batches and augmentation.
        device: Where to train.
    """

    preset: Preset
    starts: tuple[str, ...]
    seed: int
    device: torch.device


def plan_experiment(preset: str = "demo", *, starts: str = "", epochs: int = 0, pretrain_epochs: int = 0,
                    seed: int = 0, device: str = "auto") -> Plan:  # fmt: skip
    """Check the settings of an experiment, and fetch ImageNet weights if it needs them.

    Args:
        preset: "paper", "corrected", "demo" or "study".
        starts: Comma-separated list of "random", "image", "video"; empty takes the preset's.
        epochs: Limit of fine-tuning; 0 takes the preset's.
        pretrain_epochs: Limit of pretraining; 0 takes the preset's.
        seed: At least 0.
        device: See `env.pick_device`.

    Raises:
        SettingError: a setting does not exist or makes no sense.
        DataError: ImageNet weights are needed and can be neither found nor downloaded.
    """
    settings = load_preset(preset).with_epochs(epochs=epochs or None, pretrain_epochs=pretrain_epochs or None)
    arms = tuple(part.strip() for part in starts.split(",") if part.strip()) or settings.starts
    for start in arms:
        check_choice("start", start, STARTS)
    if len(set(arms)) < len(arms):
        raise SettingError(f"starts '{starts}' names an arm twice.", remedy="Name each once.")
    if seed < 0:
        raise SettingError(f"seed is {seed}.", remedy="Give a whole number of at least 0.")
    plan = Plan(settings, arms, seed, pick_device(device))
    if settings.backbone_weights and set(arms) - {"random"}:
        build_model(settings, 2, seed=seed)  # downloads the weights, or says now that it cannot
    return plan


def build_model(preset: Preset, num_classes: int, *, seed: int, imagenet: bool = True) -> ViPTTNet:
    """A model as the preset asks for, its random parts drawn from `seed`."""
    return ViPTTNet(
        num_classes,
        backbone=preset.backbone,
        backbone_weights=preset.backbone_weights if imagenet else None,
        hidden_size=preset.hidden_size,
        feature_size=preset.feature_size,
        stem=preset.stem,
        generator=torch.Generator().manual_seed(seed),
    )


def pretrain(plan: Plan, videos: ClipSet, *, start: str = "video", progress: bool = True) -> Run:
    """Pretrain on videos ("video") or on their single frames ("image"), or find the finished run.

    A finished run is reused only when data, settings, seed and the code's meaning are the same: all
    of them are in the hash that names its folder.
    """
    check_choice("start", start, ("image", "video"))
    preset, stage = plan.preset, plan.preset.pretrain
    if start == "image":
        stage = replace(stage, batch_size=stage.batch_size * videos.clips.shape[1])
        videos = single_frames(videos)
    config = {
        "stage": "pretrain", "start": start, "seed": plan.seed, "data": videos.source,
        "code": code_version(TRAINING_CODE), "preset": _shared_fields(preset) | {"pretrain": stage.__dict__},
    }  # fmt: skip
    folder = runs_root() / f"pretrain-{start}-{digest(config)}"
    if (folder / "provenance.json").is_file():
        return read_run(folder)
    model = build_model(preset, len(videos.class_names), seed=plan.seed)
    split = make_split(preset.splits, videos, stage="pretrain", seed=plan.seed)
    return _train(folder, config, model, videos, split, stage, plan, progress)


def finetune(plan: Plan, scans: ClipSet, start: str, *, pretrained: Run | None = None, progress: bool = True) -> Run:
    """Fine-tune on scans from one start and predict the validation and test parts.

    Args:
        plan: The experiment.
        scans: The set.
        start: "random", "image" or "video".
        pretrained: The pretraining run whose weights to take over; None for ImageNet or random weights.
        progress: Show a progress bar.
    """
    preset, stage = plan.preset, plan.preset.stage(start)
    model = build_model(preset, len(scans.class_names), seed=plan.seed, imagenet=start != "random")
    if pretrained is not None:
        model.load_pretrained(_read_weights(pretrained))
    config = {
        "stage": "finetune", "start": start, "seed": plan.seed, "data": scans.source,
        "pretrained": pretrained.folder.name if pretrained else None,
        "code": code_version(TRAINING_CODE), "preset": _shared_fields(preset) | {"finetune": stage.__dict__},
    }  # fmt: skip
    folder = runs_root() / f"finetune-{start}-{digest(config)}"
    split = make_split(preset.splits, scans, stage="finetune", seed=plan.seed)
    return _train(folder, config, model, scans, split, stage, plan, progress)


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
            return "Selection-biased: the test part is the one that picked the checkpoints."
        return ""

    def report(self) -> str:
        """Each arm in two lines, see `Run.report`."""
        return "\n".join(f"{arm}: {run.report()}" for arm, run in self.runs.items())


def compare_starts(plan: Plan, scans: ClipSet, videos: ClipSet, *, progress: bool = True) -> Comparison:
    """Fine-tune from every start of the plan, pretraining first where no finished run fits."""
    runs = {}
    for start in plan.starts:
        # The paper's "from scratch" is ImageNet weights; where the backbone has none, its stand-in
        # is the same pretraining on still frames of the same videos.
        needs_run = start == "video" or (start == "image" and not plan.preset.backbone_weights)
        pretrained = pretrain(plan, videos, start=start, progress=progress) if needs_run else None
        runs[start] = finetune(plan, scans, start, pretrained=pretrained, progress=progress)
    return Comparison(runs)


def single_frames(videos: ClipSet) -> ClipSet:
    """Every frame as a clip of length one, with the label and group of its video."""
    n, frames, height, width = videos.clips.shape
    return replace(
        videos,
        clips=videos.clips.reshape(n * frames, 1, height, width),
        labels=np.repeat(videos.labels, frames),
        groups=np.repeat(videos.groups, frames),
        names=np.array([f"{name}#{t}" for name in videos.names for t in range(frames)]),
        source=videos.source | {"single_frames": True},
    )


def _train(folder, config, model, clips, split: Split, stage: Stage, plan: Plan, progress: bool) -> Run:
    """Fit, predict the validation and test parts, write the run."""
    seed_everything(plan.seed)
    began = time.perf_counter()
    title = f"{config['stage']} ({config['start']})" if progress else None
    history = fit(model, clips, split, stage, seed=plan.seed, device=plan.device, progress=title)
    parts = []
    for part in ("validation", "test"):
        indices = getattr(split, part)
        logits = predict_logits(model, clips.clips, indices, batch_size=stage.batch_size,
                                pixel_range=stage.pixel_range)  # fmt: skip
        parts.append(
            predictions_table(
                arm=config["start"], part=part, names=clips.names[indices], groups=clips.groups[indices],
                labels=clips.labels[indices], class_names=clips.class_names,
                probabilities=torch.from_numpy(logits).double().softmax(dim=1).numpy(),
            )
        )  # fmt: skip
    config = config | {
        "split": split.sizes(), "selection_biased": split.selection_biased, "synthetic": clips.synthetic,
        "best_epoch": history.best_epoch, "stopped_early": history.stopped_early,
    }  # fmt: skip
    record = provenance() | {
        "seconds": round(time.perf_counter() - began, 1), "peak_memory_mb": round(peak_memory_mb()),
        "device": str(plan.device),
    }  # fmt: skip
    return write_run(folder, config=config, history=history.epochs, state=model.state_dict(),
                     predictions=pd.concat(parts, ignore_index=True), provenance=record)  # fmt: skip


def _shared_fields(preset: Preset) -> dict:
    """The preset without its stages: what both have in common."""
    return {key: value for key, value in preset.to_dict().items() if key not in ("pretrain", "finetune", "scratch")}


def _read_weights(run: Run) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(run.folder / "weights.safetensors")
