"""Weights and the card that goes with them, in one safetensors file; from a path, a run or a name.

The card says what the weights are and what a file must become before they can be used on it. It stands in the file's
header, so that it cannot be lost, and again beside it as JSON with the file's SHA-256, which is compared at every use.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from viptt_core import files
from viptt_core.backbones import imagenet_features
from viptt_core.constants import HU_WINDOW, TB_CLASSES, UCF_CLASSES
from viptt_core.errors import DataError, SettingError, check_choice
from viptt_core.files import artifact_root, provenance
from viptt_core.model import ViPTTNet
from viptt_core.prediction.card import FORMAT, Card, Preprocessing
from viptt_core.presets import build, load_preset
from viptt_core.results import runs_root
from viptt_core.training.checkpoint import read_tensors, write_tensors

REMEDY = "Take the file that a run of this package wrote, or that `viptt weights get` made."
HEADER = "viptt"  # key of the safetensors header
DEEPEST = 32  # lists and tables within each other in a card; one that has more is damaged
WEIGHTS = "weights.safetensors"  # name of the file in a run's folder
BACKBONE = "backbone."  # how the names of its tensors begin
DEMO = Path(__file__).parent / "demo"  # what the arms of the preset `demo` learned, part of the package
_RELEASES = "https://github.com/hasibzunair/ViPTT-Net/releases/latest/download"
# What the authors released, after videos and after scans. No checksum is published: the first download's is kept.
RELEASED = {
    "authors-ucf50": f"{_RELEASES}/ViPTT-Net-UCF50.h5",
    "authors-tbt": f"{_RELEASES}/ViPTT-Net-CLEF-TBT.h5",
}


@dataclass(frozen=True)
class Weights:
    """Weights read from a file, checked."""

    path: Path  #: the file
    sha256: str  #: of the file
    architecture: dict  #: see `ViPTTNet.architecture`
    card: Card  #: what they are
    tensors: dict[str, Tensor] = field(repr=False)  #: by name

    @property
    def name(self) -> str:
        """What a reader calls them, the run or the file without its ending."""
        return self.path.parent.name if self.path.name == WEIGHTS else self.path.stem

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.card.classes

    @property
    def synthetic(self) -> bool:
        """Whether they were trained on synthetic data."""
        return bool(self.card.data.get("synthetic"))

    def model(self) -> ViPTTNet:
        """The network with these weights, on the CPU, ready to predict; a DataError where they do not fit it."""
        try:
            # Before anything is built: a header may ask for more memory than there is, tensors are there in full.
            for name, sizes in (
                ("feature.weight", ("feature_size", "hidden_size")),
                ("classifier.weight", ("num_classes", "feature_size")),
            ):
                shape, stated = list(self.tensors[name].shape), [self.architecture[size] for size in sizes]
                if shape != stated:
                    raise SettingError(f"{name} is {shape}, not {stated}")
            model = ViPTTNet(**self.architecture)
            model.load_state_dict(self.tensors)
        except (SettingError, RuntimeError, TypeError, KeyError) as error:
            message = f"holds weights that do not fit its architecture ({str(error).strip().splitlines()[-1].strip()})."
            raise DataError(message, path=self.path, remedy=REMEDY) from error
        return model.eval()

    def to_dict(self) -> dict[str, Any]:
        """Card, architecture and checksum as one plain dictionary, for JSON."""
        stated = {"file": self.path.name, "sha256": self.sha256, "architecture": self.architecture}
        return stated | asdict(self.card)


def save_weights(path: Path, model: nn.Module, card: Card) -> None:
    """Write a model's weights, with its architecture and card in the file's header, and the card as JSON beside it.

    A backbone that the card says is left out is not written.

    Raises:
        StorageError: the file cannot be written; an older one of this name is still whole, and its JSON.
    """
    content = {"architecture": model.architecture, "card": asdict(card)}
    left_out = BACKBONE if card.backbone else ()
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(left_out)}
    with files.storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        # One key: safetensors writes several in any order, and the same weights should be the same file.
        digest = write_tensors(new, state, {HEADER: json.dumps(content)})
        path.with_suffix(".json").unlink(missing_ok=True)  # it describes the older file
        os.replace(new, path)
    beside = Weights(path, digest, model.architecture, card, tensors={}).to_dict()
    files.write_file(path.with_suffix(".json"), json.dumps(beside, indent=1) + "\n")


def open_weights(reference: str | Path) -> Weights:
    """Read weights and their card.

    Args:
        reference: A file; a run's folder, or its name below `runs/`; or a name in `weights_root()` or `DEMO`, such as
            "authors-tbt" or "demo-synthetic".

    Raises:
        DataError: there is no such file, or it is damaged, is not the one that the JSON beside it describes, has no
            card, or holds values that are not finite; or the backbone that it leaves out cannot be had.
    """
    path = _path_of(reference)
    tensors, header = read_tensors(path)
    digest, beside = files.file_digest(path, "sha256"), path.with_suffix(".json")
    if beside.is_file() and digest not in beside.read_text("utf-8", "replace"):
        what = f"was changed after it was written: {beside.name} beside it does not state its SHA-256, {digest}."
        raise DataError(what, path=path, remedy="Copy both files again, or train again.")
    architecture, card = _stated(header, path)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise DataError(f"holds values that are not finite, first in '{name}'.", path=path, remedy="Train again.")
    if card.backbone:
        tensors |= _left_out(architecture.get("backbone"), card, path)
    return Weights(path, digest, architecture, card, tensors)


def _left_out(backbone: str, card: Card, path: Path) -> dict[str, Tensor]:
    """The backbone's tensors, which the file at `path` leaves out."""
    wanted = card.backbone["weights"]
    try:
        found, digest = imagenet_features(wanted, backbone)
    except SettingError as error:
        what = f"leaves out its backbone, and its weights '{wanted}' cannot be had: {error.what}"
        raise DataError(what, path=path, remedy=error.remedy) from error
    if digest != card.backbone["sha256"]:
        what = f"was trained on other weights '{wanted}' of {backbone}: the SHA-256 of those here is {digest}."
        raise DataError(what, path=path, remedy="Take the package of the version that wrote it.")
    return {f"{BACKBONE}{name}": tensor for name, tensor in found.items()}


def pack_weights(reference: str | Path, target: Path) -> Weights:
    """Write weights (see `open_weights`) without their backbone, which is filled in again when they are opened.

    Raises:
        SettingError: the backbone is not as its pretrained weights are, or `target` has another ending.
    """
    _check_ending(target)
    weights = open_weights(reference)
    name, backbone = weights.card.training.get("preset", {}).get("backbone_weights"), weights.architecture["backbone"]
    own = {key.removeprefix(BACKBONE): value for key, value in weights.tensors.items() if key.startswith(BACKBONE)}
    theirs, digest = imagenet_features(name, backbone) if name else ({}, "")
    if own.keys() != theirs.keys() or not all(torch.equal(own[key], theirs[key]) for key in own):
        what = f"the backbone of {weights.name} is not the pretrained one: it cannot be left out."
        raise SettingError(what, remedy="Copy the file as it is.")
    left_out = {"weights": name, "sha256": digest}
    save_weights(target, weights.model(), replace(weights.card, backbone=left_out))
    return open_weights(target)


def _check_ending(target: Path) -> None:
    if target.suffix != ".safetensors":
        raise SettingError(f"{target} does not end in .safetensors.", remedy="Name it so.")


def weights_root() -> Path:
    """Folder of weights that were downloaded or converted."""
    return artifact_root() / "data" / "weights"


def weights_here() -> dict[str, Card]:
    """Cards of the weights on this machine, by the name `open_weights` takes; those for scans come first."""
    paths = {path.stem: path for folder in (DEMO, weights_root()) for path in sorted(folder.glob("*.safetensors"))}
    paths |= {path.parent.name: path for path in sorted(runs_root().glob(f"*/{WEIGHTS}"))}
    cards = {}
    for name, path in paths.items():
        with contextlib.suppress(DataError):  # damaged or of an older version; to open it would say so
            cards[name] = _stated(read_tensors(path, header_only=True)[1], path)[1]
    return dict(sorted(cards.items(), key=lambda entry: entry[1].preprocessing.kind != "scan"))


def _path_of(reference: str | Path) -> Path:
    path, text = Path(reference).expanduser(), str(reference)
    kept = [folder / f"{text}.safetensors" for folder in (weights_root(), DEMO)]
    for file in (path, path / WEIGHTS, runs_root() / text / WEIGHTS, *kept):
        if file.is_file():
            return file
    if path.is_dir():
        raise DataError(f"holds no {WEIGHTS}.", path=path, remedy="Give the folder of a finished run, or the file.")
    if text in RELEASED:
        raise DataError("these weights are not here yet.", path=text, remedy=f"Run `viptt weights get {text}` first.")
    remedy = "`viptt weights list` shows those that are here, and which can be got."
    raise DataError("no such weights.", path=text, remedy=remedy)


def _stated(header: dict[str, str], path: Path) -> tuple[dict, Card]:
    """The architecture and the card that the header of a file states."""
    try:
        content = json.loads(header.get(HEADER, "{}"))
        if _depth(content) > DEEPEST:  # to copy or print it would exceed Python's depth of calls
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        architecture, table = (content.get(part) for part in ("architecture", "card"))
        if not (isinstance(architecture, dict) and isinstance(table, dict)):
            raise ValueError("there is none, or no architecture: nothing says how scans are prepared for it")
        if table.get("format") != FORMAT:
            raise ValueError(f"format {table.get('format')}, not {FORMAT}: another version of this package wrote it")
        table.get("preprocessing", {}).pop("crop", None)  # of older cards, always empty
        card = build(Card, table, "card", path.name)
        if len(card.classes) != architecture.get("num_classes"):
            raise ValueError(f"it names {len(card.classes)} classes for {architecture.get('num_classes')} logits")
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"has a card that cannot be used: {error}.", path=path, remedy=REMEDY) from error
    return architecture, card


def _depth(value) -> int:
    """Lists and tables within each other; a RecursionError where they are too many to count."""
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max(map(_depth, entries), default=0) + isinstance(value, dict | list)


# --- The authors' Keras files ---


def get_released(name: str, *, progress: bool = True) -> Weights:
    """Download weights that the authors released, convert them, and open them; what is there is used again."""
    from viptt_core.sources.fetch import download
    from viptt_core.sources.registry import RemoteFile

    check_choice("released weights", name, tuple(RELEASED))
    target = weights_root() / f"{name}.safetensors"
    if not target.is_file():
        import_keras(download(RemoteFile(RELEASED[name]), weights_root(), progress=progress), target)
    return open_weights(target)


def import_keras(path: Path, target: Path) -> Weights:
    """Convert a Keras file (.h5) of the authors' network: of ten outputs one for videos, of five one for scans.

    Raises:
        DataError: the file is damaged, or of another network.
        SettingError: `target` has another ending.
    """
    from viptt_core.keras_weights import load_keras_weights, read_keras_architecture  # h5py: 11 MB for this alone

    _check_ending(target)
    architecture = read_keras_architecture(path)
    names = {len(known): known for known in (UCF_CLASSES, TB_CLASSES)}.get(n := architecture["num_classes"])
    if names is None:
        remedy = "The paper's networks tell ten activities or five types."
        raise DataError(f"has {n} outputs.", path=path, remedy=remedy)
    preset, stage = load_preset("paper"), "pretrain" if names == UCF_CLASSES else "finetune"
    shape = (preset.frames, preset.size, getattr(preset, stage).pixel_range)
    if stage == "pretrain":
        grid = Preprocessing("video", *shape, fit=preset.fit, stride=preset.stride)
    else:
        grid = Preprocessing("scan", *shape, HU_WINDOW, preset.orientation)
    made = {key: value for key, value in provenance().items() if key in ("commit", "date", "packages")}
    card = Card(
        about=f"A Keras network for {grid.kind}s in the layout of the authors, converted from {path.name}",
        classes=names,
        preprocessing=grid,
        data={},
        training={"stage": stage, "preset": asdict(preset)},
        metrics=(),
        made=made | {"converted_from": path.name, "sha256_of_it": files.file_digest(path, "sha256")},
        licence="That of the Keras file, MIT for the authors'; the data behind it have terms of their own.",
    )
    save_weights(target, load_keras_weights(ViPTTNet(**architecture), path), card)
    return open_weights(target)
