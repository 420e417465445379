"""Presets: every setting of an experiment as frozen dataclasses that reject unknown fields.

The values stand in `presets.toml` beside this file; a preset may build on another one.
"""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from viptt_core.errors import SettingError, check_choice

FILE = "presets.toml"
STARTS = ("random", "image", "video")


@dataclass(frozen=True)
class Stage:
    """How one stage (pretraining or fine-tuning) is trained."""

    epochs: int  # at most; early stopping may end sooner
    batch_size: int
    optimiser: str  # "sgd" (no momentum, as the authors) or "adamw"
    learning_rate: float
    freeze_backbone: bool
    freeze_stem: bool  # with a frozen backbone too, features are computed once and kept
    class_weights: bool  # n / (classes * n_c), on the training part
    rotate: bool  # the authors' axial rotation augmentation
    pixel_range: str  # "0..1" or "0..255": the scale in which pixels enter the stem
    shuffle: str  # "samples": new batches each epoch; "batches": fixed batches in a new order
    stop_patience: int  # Keras EarlyStopping on the validation loss
    plateau_patience: int  # Keras ReduceLROnPlateau on the validation loss
    plateau_factor: float


@dataclass(frozen=True)
class Preset:
    """Every setting of an experiment: input grid, model, splits, both stages."""

    name: str
    about: str
    frames: int  # T: frames of a clip, slices of a volume
    size: int  # H = W, pixels
    stride: int  # every stride-th frame of a video, from the first
    fit: str  # "stretch" a frame to a square as the authors, or "crop" its centre
    orientation: str  # of scans: "file", as stored, as the authors; "canonical": turned by the affine, see ct.py
    backbone: str  # a name of backbones.py: "vgg16", "efficientnet_b3", "r3d_18" or "small"
    backbone_weights: str  # torchvision's name of the pretrained weights, "" for none
    stem: str  # start of the 1x1x1 stem: "glorot" as Keras, or "imagenet" (see model.py)
    temporal: str  # how frames become one summary: "lstm", "gru", "bilstm", "attention" or "mean", see temporal.py
    hidden_size: int  # of that summary
    feature_size: int  # of the dense layer before the logits
    splits: str  # "authors": by clip, test = validation for scans; or another kind of splits.py
    starts: tuple[str, ...]  # the arms 02_finetune compares by default
    n_videos: int  # size of the synthetic video set
    n_scans: int  # size of the synthetic CT set
    pretrain: Stage
    finetune: Stage
    scratch: dict[str, Any]  # fields of `finetune` that differ for arms that are not video-pretrained

    def stage(self, start: str) -> Stage:
        """Fine-tuning stage of the arm with this start.

        A frozen backbone never starts from random weights: that would only measure noise.

        Raises:
            SettingError: `start` is none of "random", "image", "video".
        """
        check_choice("start", start, STARTS)
        stage = self.finetune if start == "video" else replace(self.finetune, **self.scratch)
        random = start == "random" and stage.freeze_backbone
        return replace(stage, freeze_backbone=False, freeze_stem=False) if random else stage

    def with_epochs(self, *, epochs: int | None = None, pretrain_epochs: int | None = None) -> Preset:
        """Copy of the preset with other epoch limits; None keeps the preset's own.

        Raises:
            SettingError: a limit is below 1.
        """
        changed = self
        for name, value, stage_name in (
            ("epochs", epochs, "finetune"),
            ("pretrain_epochs", pretrain_epochs, "pretrain"),
        ):
            if value is None:
                continue
            if value < 1:
                raise SettingError(f"{name} is {value}.", remedy="Give a whole number of at least 1.")
            stage = replace(getattr(changed, stage_name), epochs=value)
            changed = replace(changed, **{stage_name: stage})
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, for JSON."""
        return asdict(self)


def preset_names() -> tuple[str, ...]:
    """Names of the presets, in the file's order."""
    return tuple(_read_file())


def load_preset(name: str) -> Preset:
    """Read a preset by name.

    Raises:
        SettingError: no preset has this name, or the file holds an unknown or mistyped field.
    """
    known = _read_file()
    check_choice("preset", name, tuple(known))
    return parse_preset(name, known)


def parse_preset(name: str, known: dict[str, dict]) -> Preset:
    """Build one preset out of the parsed TOML tables `known`."""
    table = _resolve(name, known)
    stages = {stage: build(Stage, table.pop(stage), f"{name}.{stage}", FILE) for stage in ("pretrain", "finetune")}
    for field in table["scratch"]:
        check_choice(f"field of [{name}.scratch]", field, [f.name for f in fields(Stage)])
    for start in table["starts"]:
        check_choice(f"start in [{name}]", start, STARTS)
    return build(Preset, table | stages | {"name": name}, name, FILE)


def _read_file() -> dict[str, dict]:
    text = resources.files("viptt_core").joinpath(FILE).read_text(encoding="utf-8")
    return tomllib.loads(text)


def _resolve(name: str, known: dict[str, dict]) -> dict[str, Any]:
    """Merge a table over the one it is based on, the stages field by field; `scratch` stands for itself."""
    table = dict(known[name])
    if "based_on" not in table:
        return table
    merged = _resolve(table.pop("based_on"), known)
    for key, value in table.items():
        merged[key] = merged[key] | value if key in ("pretrain", "finetune") and key in merged else value
    return merged


# --- TOML tables as frozen dataclasses: an unknown, missing or mistyped field is refused by name ---


def build(kind: type, values: dict[str, Any], where: str, file: str):
    """Make the dataclass `kind` out of the values of a table.

    Args:
        kind: A dataclass; fields without a default must be there.
        values: As parsed. Lists become tuples; values that are dataclasses already stay.
        where: Name of the table, for messages.
        file: Name of the file, for messages.

    Raises:
        SettingError: a field is unknown, missing or of another type.
    """
    types = get_type_hints(kind)
    for name in values:
        check_choice(f"field of [{where}]", name, tuple(types))
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in values]:
        raise SettingError(f"[{where}] lacks {', '.join(missing)}.", remedy=f"Add it to {file}.")
    made = {name: _plain(value) for name, value in values.items()}
    for name, value in made.items():
        if not _fits(value, types[name]):
            raise SettingError(
                f"{name} of [{where}] is {values[name]!r}.", remedy=f"Write a value of type {_named(types[name])}."
            )
    return kind(**made)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a file.

    Raises:
        SettingError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"{path} cannot be read as TOML ({error})."
        raise SettingError(what, remedy="Correct the path or the file.") from error


def _plain(value):
    """Lists as tuples, and text without the line ends that a multi-line string of TOML brings along."""
    return tuple(value) if isinstance(value, list) else value.strip("\n") if isinstance(value, str) else value


def _fits(value, wanted) -> bool:
    kinds = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    # bool is an int to Python, not to a reader; 1 where 1.0 is meant is a slip that stays without harm.
    return any(
        kind is Any
        or type(value) is (get_origin(kind) or kind)
        or (kind is float and type(value) is int)
        or (kind not in (int, float) and isinstance(value, get_origin(kind) or kind))
        for kind in kinds
    )


def _named(kind) -> str:
    return getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind)
