"""Presets: every setting of an experiment as frozen dataclasses that reject unknown fields.

The values stand in `presets.toml` beside this file, or in a file of the reader's; a preset may build on another one.
"""

from __future__ import annotations

import numbers
import os
import tomllib
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from viptt_core.errors import SettingError, check_choice, check_counts, parse_hu_window

FILE = Path(__file__).with_name("presets.toml")
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
    class_weights: bool  # n / (classes * n_c), on the training set
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
    hu_window: tuple[float, ...]  # of scans, HU: what lies below the first is black, what lies above the second white
    orientation: str  # of scans: "file", as stored, as the authors; "canonical": turned by the affine, see ct.py
    backbone: str  # a name of `backbones`, such as "vgg16", or "timm:NAME"
    backbone_weights: str  # name of the pretrained weights, "" for none: torchvision's, or "pretrained" for timm's
    stem: str  # start of the 1x1x1 stem: "glorot" as Keras, or "imagenet" (see model.py)
    temporal: str  # how frames become one summary: a name of `model.TEMPORALS`
    hidden_size: int  # of that summary
    feature_size: int  # of the dense layer before the logits
    splits: str  # "authors": by clip, test = validation for scans; or another kind of splits.py
    starts: tuple[str, ...]  # the arms 02_finetune compares by default
    n_videos: int  # size of the synthetic video set
    n_scans: int  # size of the synthetic CT set
    pretrain: Stage
    finetune: Stage
    scratch: dict[str, Any]  # fields of `finetune` that differ for arms that are not video-pretrained

    def __post_init__(self) -> None:
        object.__setattr__(self, "hu_window", parse_hu_window(self.hu_window))

    def stage(self, start: str) -> Stage:
        """Fine-tuning stage of the arm with this start, one of STARTS; else a SettingError.

        A frozen backbone never starts from random weights: that would only measure noise.
        """
        check_choice("start", start, STARTS)
        stage = self.finetune if start == "video" else replace(self.finetune, **self.scratch)
        random = start == "random" and stage.freeze_backbone
        return replace(stage, freeze_backbone=False, freeze_stem=False) if random else stage

    def with_epochs(self, *, epochs: int = 0, pretrain_epochs: int = 0) -> Preset:
        """Copy of the preset with other epoch limits; 0 keeps the preset's own, a SettingError below."""
        check_counts(least=0, epochs=epochs, pretrain_epochs=pretrain_epochs)
        finetune = replace(self.finetune, epochs=epochs or self.finetune.epochs)
        pretrain = replace(self.pretrain, epochs=pretrain_epochs or self.pretrain.epochs)
        return replace(self, finetune=finetune, pretrain=pretrain)


def preset_names() -> tuple[str, ...]:
    """Names of the presets of this package, in the file's order."""
    return tuple(read_toml(FILE))


def load_preset(name: str | PathLike) -> Preset:
    """Read a preset.

    Args:
        name: Of a preset of this package; or the path of a TOML file, ending in ".toml", with a table for a preset of
            the reader's own, which `based_on` bases on another one. Of several tables FILE.toml:NAME names one.

    Raises:
        SettingError: there is no such preset or file, or it holds an unknown, missing or mistyped field.
    """
    file, ending, table = os.fspath(name).rpartition(".toml")
    built_in = read_toml(FILE)
    if not ending or table[:1] not in ("", ":"):
        return parse_preset(str(name), built_in)
    path = Path(f"{file}{ending}").expanduser()
    own = read_toml(path)
    wanted = table[1:] or (next(iter(own)) if len(own) == 1 else "")
    try:
        check_choice("preset", wanted, tuple(own))
        for double in own.keys() & built_in.keys():
            raise SettingError(f"the package has a preset '{double}', too.", remedy="Choose another name.")
        return parse_preset(wanted, built_in | own)
    except SettingError as error:
        raise SettingError(error.what, path=path, remedy=error.remedy) from error


def parse_preset(name: str, known: dict[str, dict]) -> Preset:
    """Build one preset out of the parsed TOML tables `known`."""
    preset = build(Preset, _resolve(name, known) | {"name": name}, name)
    build(Stage, asdict(preset.finetune) | preset.scratch, f"{name}.scratch")
    for start in preset.starts:
        check_choice(f"start in [{name}]", start, STARTS)
    return preset


def _resolve(name: str, known: dict[str, dict], above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Merge a table over the one it is based on, the stages field by field; `scratch` stands for itself."""
    check_choice("preset", name, tuple(known))
    if name in above:
        raise SettingError(f"[{name}] is based on itself.", remedy="Base it on a preset of the package.")
    if not isinstance(known[name], dict):
        raise SettingError(f"{name} stands in no table.", remedy="Begin the file with the name of the preset: [mine].")
    table = dict(known[name])
    if "based_on" not in table:
        return table
    merged = _resolve(table.pop("based_on"), known, (*above, name))
    for key, value in table.items():
        is_part = key in ("pretrain", "finetune") and isinstance(value, dict)
        merged[key] = merged.get(key, {}) | value if is_part else value
    return merged


# --- TOML tables as frozen dataclasses: an unknown, missing or mistyped field is refused by name ---


def build(kind: type, values: dict[str, Any], where: str, file: str = "the table"):
    """Make the dataclass `kind` out of the values of a table; messages name the table (where) and the file.

    Lists become tuples, and tables the dataclasses that are wanted; text loses the line ends that a multi-line string
    of TOML brings along. A SettingError if a field is unknown, of another type, or missing and without a default.
    """
    if not isinstance(values, dict):
        raise SettingError(f"{where} is {values!r}.", remedy=f"Make it a table: [{where}].")
    types = get_type_hints(kind)
    for name in values:
        check_choice(f"field of [{where}]", name, tuple(types))
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    if missing := [name for name in required if name not in values]:
        raise SettingError(f"[{where}] lacks {', '.join(missing)}.", remedy=f"Add it to {file}.")
    made = {}
    for name, value in values.items():
        if is_dataclass(types[name]) and not isinstance(value, types[name]):
            value = build(types[name], value, f"{where}.{name}", file)
        value = tuple(value) if isinstance(value, list) else value.strip("\n") if isinstance(value, str) else value
        if not fits(value, types[name]):
            wanted = getattr(types[name], "__name__", types[name])
            raise SettingError(f"{name} of [{where}] is {value!r}.", remedy=f"Write a value of type {wanted}.")
        made[name] = value
    return kind(**made)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a file; a SettingError if it cannot be read, or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"cannot be read as TOML ({error})."
        raise SettingError(what, path=path, remedy="Correct the path or the file.") from error


def fits(value, wanted) -> bool:
    """Whether a value is of the type that an annotation names; how lists and tuples are filled is not looked at."""
    kinds = get_args(wanted) if isinstance(wanted, UnionType) else (wanted,)
    allowed = {get_origin(kind) or kind for kind in kinds}
    if Any in allowed or type(value) is bool:  # which is an int to Python, not to a reader
        return not allowed.isdisjoint({Any, bool})
    is_number = isinstance(value, numbers.Integral) and not allowed.isdisjoint({int, float})
    return is_number or isinstance(value, tuple(allowed))
