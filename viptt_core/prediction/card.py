"""The card of a model: what its weights are, and what a file must become before they can be used on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from viptt_core.clips import ClipSet
from viptt_core.errors import DataError, SettingError
from viptt_core.metrics import accuracy, bootstrap_ci, cohen_kappa, per_class, roc_auc
from viptt_core.presets import build
from viptt_core.results import class_names_of, predicted_classes, probabilities_of
from viptt_core.sources.registry import DataSource, load_registry
from viptt_core.splits import Split

FORMAT = 1  # of a card; a new number makes older programs refuse it
REMEDY = "Take the file that a run of this package wrote, or that `viptt weights import` made."
RESEARCH_ONLY = "Research use only: not a medical device, not for diagnosis or any decision about a patient."


@dataclass(frozen=True)
class Preprocessing:
    """How a file becomes what the weights were trained on.

    Attributes:
        kind: "scan" (CT, NIfTI), "video", or "volume" (arrays such as MedMNIST's).
        frames, size: T, and H = W in pixels.
        pixel_range: Scale in which pixels enter the model, "0..1" or "0..255".
        hu_window: Of scans: lower and upper bound in HU.
        orientation: Of scans: "file" or "canonical", see `ct.load_volume`.
        crop: Of scans: "lungs" for the box around the lung mask, "" for the whole.
        fit, stride: Of videos, see `video.load_clip`.
    """

    kind: str
    frames: int
    size: int
    pixel_range: str
    hu_window: tuple = ()
    orientation: str = ""
    crop: str = ""
    fit: str = ""
    stride: int = 1


@dataclass(frozen=True)
class Card:
    """What weights are.

    Attributes:
        about: One line.
        classes: Names of the K classes, in the order of the logits.
        preprocessing: What their input is.
        data: The set they were trained on: name, whether synthetic, clips of each part, licence.
        training: Stage, start, seed, the preset's values, epoch kept, grey levels of the training part.
        metrics: One row a part: n, kappa and accuracy with 95 % intervals, AUC; recall and n of each class.
        made: Commit, date, versions, machine; of imported weights the file they came from.
        licence: Of the weights.
        use: What they are for.
        format: FORMAT.
    """

    about: str
    classes: tuple
    preprocessing: Preprocessing
    data: dict
    training: dict
    metrics: tuple
    made: dict
    licence: str
    use: str = RESEARCH_ONLY
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: dict[str, Any], path: Path) -> Card:
        """The card out of parsed JSON; `path` is named in the error.

        Raises:
            DataError: a field is missing, unknown or of another type, or the format is another one.
        """
        try:
            if table["format"] != FORMAT:
                raise DataError(
                    f"has a card of format {table['format']}, not {FORMAT}.",
                    path=path,
                    remedy="Use the version of this package that wrote it.",
                )
            grid = build(Preprocessing, table["preprocessing"], "preprocessing", path.name)
            return build(cls, table | {"preprocessing": grid}, "card", path.name)
        except (SettingError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"has a card that cannot be read ({error}).", path=path, remedy=REMEDY) from error


def run_card(config: dict, clips: ClipSet, split: Split, predictions: pd.DataFrame, record: dict) -> Card:
    """The card of a training run.

    Args:
        config: See `results.Run.config`.
        clips: What it was trained on.
        split: The parts.
        predictions: See `results.Run.predictions`.
        record: See `results.Run.provenance`.
    """
    source, stage = clips.source, config["stage"]
    preset = config["preset"]
    name = source.get("set", "clips in memory")
    known = load_registry().get(name)
    licence = known.licence if known else "that of the data"
    _, frames, size, _ = clips.clips.shape
    kind = "scan" if "hu_window" in source else "video" if "stride" in source else "volume"
    details: dict[str, Any] = {}
    if kind == "scan":
        details = {
            "hu_window": tuple(source["hu_window"]),
            "crop": source.get("crop", ""),
            "orientation": source.get("orientation", preset["orientation"]),
        }
    elif kind == "video":
        details = {"fit": source["fit"], "stride": source["stride"]}
    sizes = {part: len(getattr(split, part)) for part in ("train", "validation", "test")}
    verb = "Pretrained on" if stage == "pretrain" else f"Start '{config['start']}', fine-tuned on"
    return Card(
        about=f"{verb} {known.title if known else name} ({sizes['train']} {kind}s), preset '{preset['name']}', "
        f"seed {config['seed']}.{' Synthetic data: it knows nothing about patients.' if clips.synthetic else ''}",
        classes=clips.class_names,
        preprocessing=Preprocessing(kind, frames, size, preset[stage]["pixel_range"], **details),
        data={"set": name, "synthetic": clips.synthetic, "clips": sizes, "key": clips.key, "licence": licence},
        training={
            "stage": stage,
            "start": config["start"],
            "seed": config["seed"],
            "pretrained": config["pretrained"],
            "best_epoch": config["best_epoch"],
            "grey_levels": grey_levels(clips.clips, split.train),
            "selection_biased": config["selection_biased"],
            "preset": preset,
        },
        metrics=tuple(_scores(rows, part) for part, rows in predictions.groupby("part", sort=False)),
        made={key: record.get(key) for key in ("commit", "date", "python", "packages", "device", "precision")},
        licence=_licence(known, licence, synthetic=clips.synthetic),
    )


def _licence(known: DataSource | None, of_data: str, *, synthetic: bool) -> str:
    if synthetic:
        return "MIT"
    if known is not None and known.access == "yours":
        return "The terms of the data they were trained on, which their owner knows."
    return f"Trained on data under: {of_data}. Its terms hold for the weights, too."


def grey_levels(clips: np.ndarray, indices: np.ndarray) -> list[float]:
    """Lowest and highest mean grey level, 0..1, of the clips at `indices` in [N,T,H,W] with levels 0..255.

    One clip after the other: together those of a real set would fill the memory.
    """
    means = [float(clips[n].mean(dtype=np.float64)) / 255 for n in indices]
    return [round(min(means), 4), round(max(means), 4)] if means else []


def _scores(rows: pd.DataFrame, part: str) -> dict:
    """One row of `Card.metrics`."""
    y_true, y_pred, names = rows["label"].to_numpy(), predicted_classes(rows), class_names_of(rows)
    scores: dict[str, Any] = {"part": part, "n": len(rows)}
    for name, statistic in (("kappa", cohen_kappa), ("accuracy", accuracy)):
        low, high = bootstrap_ci(statistic, y_true, y_pred, groups=rows["group"].to_numpy())
        scores |= {name: _number(statistic(y_true, y_pred)), f"{name}_low": _number(low), f"{name}_high": _number(high)}
    scores["auc"] = _number(roc_auc(y_true, probabilities_of(rows)))
    found = per_class(y_true, y_pred, len(names))
    scores["classes"] = {
        name: {"n": int(n), "recall": _number(recall)}
        for name, n, recall in zip(names, found["support"], found["recall"], strict=True)
    }
    return scores


def _number(value: float) -> float | None:
    """Rounded; None where it is undefined: JSON has no nan."""
    return None if np.isnan(value) else round(float(value), 4)
