"""The card of a model: what its weights are, and what a file must become before they can be used on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from viptt_core.clips import ClipSet
from viptt_core.ct import ORIENTATIONS
from viptt_core.errors import SettingError, check_choice, check_counts, parse_hu_window
from viptt_core.results import scores_of
from viptt_core.sources.registry import load_registry
from viptt_core.splits import Split
from viptt_core.training.device import PIXEL_SCALES

FORMAT = 1  # of a card; a new number makes older programs refuse it
LEFT_OUT = ("weights", "sha256")  # what is said of a backbone that a file leaves out
LARGEST_GRID = 4096  # frames, or pixels along a side; a card that states more is damaged
RESEARCH_ONLY = "Research use only: not a medical device, not for diagnosis or any decision about a patient."


@dataclass(frozen=True)
class Preprocessing:
    """How a file becomes what the weights were trained on; a SettingError where a value lies outside its range."""

    kind: str  #: "scan" (CT, NIfTI), "video", or "volume" (arrays such as MedMNIST's)
    frames: int  #: number T of slices or frames, 1..LARGEST_GRID
    size: int  #: height and width in pixels, 1..LARGEST_GRID
    pixel_range: str  #: scale in which pixels enter the model, "0..1" or "0..255"
    hu_window: tuple = ()  #: of scans, lower and upper bound in HU
    orientation: str = ""  #: of scans, "file" or "canonical", see `ct.load_volume`
    fit: str = ""  #: of videos, see `video.load_clip`
    stride: int = 1  #: of videos, see `video.load_clip`

    def __post_init__(self) -> None:
        check_choice("kind of input", self.kind, ("scan", "video", "volume"))
        check_choice("pixel_range", self.pixel_range, tuple(PIXEL_SCALES))
        check_counts(most=LARGEST_GRID, frames=self.frames, size=self.size, stride=self.stride)
        if self.kind == "scan":
            check_choice("orientation", self.orientation, ORIENTATIONS)
            object.__setattr__(self, "hu_window", parse_hu_window(self.hu_window))


@dataclass(frozen=True)
class Card:
    """What weights are.

    A SettingError where fewer than two classes are named, or one twice, or grey levels are no interval, or a backbone
    is left out and not named.
    """

    about: str  #: one line
    classes: tuple  #: names of the K classes, in the order of the logits
    preprocessing: Preprocessing  #: what their input is
    data: dict  #: of the set they were trained on, name, whether synthetic, clips of each part, licence
    training: dict  #: stage, initialisation, seed, the preset's values, epoch kept, grey levels of the training set
    #: Scores of each part, a dictionary of part, n, auc; kappa, accuracy and their 95 % intervals, such as kappa_low
    #: and kappa_high. None where a score is undefined.
    metrics: tuple
    made: dict  #: commit, date, versions, machine; of imported weights the file they came from
    licence: str  #: of the weights
    #: Pretrained weights of the backbone that the file leaves out, "weights" (their name) and "sha256" (of their file);
    #: empty where it holds all.
    backbone: dict = field(default_factory=dict)
    use: str = RESEARCH_ONLY  #: what they are for
    format: int = FORMAT

    def __post_init__(self) -> None:
        named = [name for name in self.classes if isinstance(name, str) and name]
        if len(set(named)) != max(len(self.classes), 2):
            raise SettingError(f"classes are {self.classes}.", remedy="At least two different names are needed.")
        levels = self.training.get("grey_levels") or [0.0, 1.0]
        if not (isinstance(levels, list) and [*map(type, levels)] == [float, float] and levels[0] <= levels[1]):
            raise SettingError(f"grey_levels are {levels}.", remedy="They are the lowest and the highest mean.")
        if {name: type(value) for name, value in self.backbone.items()} not in ({}, dict.fromkeys(LEFT_OUT, str)):
            raise SettingError(f"backbone is {self.backbone}.", remedy=f"It says {' and '.join(LEFT_OUT)}.")


def run_card(config: dict, clips: ClipSet, split: Split, predictions: pd.DataFrame, record: dict) -> Card:
    """The card of a training run: its configuration, set, split, predictions and provenance, see `results.Run`."""
    stage, preset, name = config["stage"], config["preset"], clips.source.get("set", "clips in memory")
    registered = load_registry().get(name)
    licence = registered.licence if registered else "that of the data"
    grid = _preprocessing_of(clips, preset["orientation"], preset[stage]["pixel_range"])
    sizes = {part: len(getattr(split, part)) for part in ("train", "validation", "test")}
    # One clip after the other: together those of a real set would fill the memory.
    means = [float(clips.clips[n].mean(dtype=np.float64)) / 255 for n in split.train]
    metrics = []
    for part, rows in predictions.groupby("part", sort=False):
        scores = scores_of(rows, intervals=("kappa", "accuracy"))  # JSON has no nan
        rounded = {score: None if np.isnan(value) else round(float(value), 4) for score, value in scores.items()}
        metrics.append({"part": part} | rounded | {"n": len(rows)})
    verb = "Pretrained on" if stage == "pretrain" else f"Start '{config['start']}', fine-tuned on"
    return Card(
        about=f"{verb} {registered.title if registered else name} ({sizes['train']} {grid.kind}s), preset "
        f"'{preset['name']}', seed {config['seed']}."
        f"{' Synthetic data: it knows nothing about patients.' if clips.synthetic else ''}",
        classes=clips.class_names,
        preprocessing=grid,
        data={"set": name, "synthetic": clips.synthetic, "clips": sizes, "key": clips.key, "licence": licence},
        training={key: config[key] for key in ("stage", "start", "seed", "pretrained", "best_epoch")}
        | {
            "grey_levels": [round(min(means), 4), round(max(means), 4)] if means else [],
            "selection_biased": config["selection_biased"],
            "preset": preset,
        },
        metrics=tuple(metrics),
        made={key: record.get(key) for key in ("commit", "date", "python", "packages", "device", "precision")},
        licence="MIT" if clips.synthetic else f"The terms of the training data hold for the weights: {licence}.",
    )


def _preprocessing_of(clips: ClipSet, orientation: str, pixel_range: str) -> Preprocessing:
    source, (_, frames, size, _) = clips.source, clips.clips.shape
    if "hu_window" in source:
        window, orientation = tuple(source["hu_window"]), source.get("orientation", orientation)
        return Preprocessing("scan", frames, size, pixel_range, window, orientation)
    if "stride" in source:
        return Preprocessing("video", frames, size, pixel_range, fit=source["fit"], stride=source["stride"])
    return Preprocessing("volume", frames, size, pixel_range)
