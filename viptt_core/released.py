"""Weights that go from hand to hand: the authors' Keras files, got and converted; ours, put together for a release."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from viptt_core import files
from viptt_core.card import Card, Preprocessing
from viptt_core.constants import HU_WINDOW, TB_CLASSES, UCF_CLASSES
from viptt_core.errors import DataError, SettingError, check_choice
from viptt_core.files import provenance
from viptt_core.keras_weights import load_keras_weights, read_keras_architecture
from viptt_core.model import ViPTTNet
from viptt_core.presets import load_preset
from viptt_core.results import runs_root
from viptt_core.weights import WEIGHTS, Weights, open_weights, read_card, save_weights, weights_root

CHECKSUMS = "SHA256SUMS"  # beside exported weights, as sha256sum reads and writes it


@dataclass(frozen=True)
class Released:
    """Weights that the authors released. No checksum is published: the first download's is kept.

    Attributes:
        title: What they are.
        url: Of the Keras file.
        classes: Its classes, in order.
        stage: "pretrain" (videos) or "finetune" (scans): how the paper preset prepares their input.
        data: What they were trained on, a name of the data registry.
    """

    title: str
    url: str
    classes: tuple[str, ...]
    stage: str
    data: str


_RELEASES = "https://github.com/hasibzunair/ViPTT-Net/releases/latest/download/"
LICENCE = "MIT, as the authors' repository; the data they were trained on have terms of their own."
RELEASED = {
    "authors-ucf50": Released(
        "The authors' network after videos (ten classes of UCF50)",
        f"{_RELEASES}ViPTT-Net-UCF50.h5",
        UCF_CLASSES,
        "pretrain",
        "ucf50",
    ),
    "authors-tbt": Released(
        "The authors' network after scans (ImageCLEF 2021, five types of tuberculosis)",
        f"{_RELEASES}ViPTT-Net-CLEF-TBT.h5",
        TB_CLASSES,
        "finetune",
        "imageclef",
    ),
}


def get_released(name: str, *, progress: bool = True) -> Weights:
    """Download weights that the authors released, convert them, and open them; what is there is used again.

    Args:
        name: A key of RELEASED.
        progress: Show a progress bar.

    Raises:
        SettingError: nothing of this name was released.
        DataError: the file cannot be had, or is not what it should be.
        StorageError: it cannot be written.
    """
    from viptt_core.sources.download import download

    check_choice("released weights", name, tuple(RELEASED))
    target = weights_root() / f"{name}.safetensors"
    if not target.is_file():
        url = RELEASED[name].url
        import_keras(download(url, weights_root() / url.rsplit("/", 1)[1], progress=progress), target)
    return open_weights(target)


def import_keras(path: Path, target: Path, *, classes: Sequence[str] = ()) -> Weights:
    """Convert a Keras file of the authors' network.

    Args:
        path: The .h5 file, see `keras_weights.load_keras_weights`.
        target: Ends in .safetensors; the card is written beside it.
        classes: In the order of the outputs; empty takes the paper's ten activities or five types by their number.

    Raises:
        DataError: the file is damaged, or of another network.
        SettingError: the classes are not as many as the outputs, or `target` has another ending.
    """
    if target.suffix != ".safetensors":
        raise SettingError(f"{target} does not end in .safetensors.", remedy="Name it so.")
    architecture = read_keras_architecture(path)
    n = architecture["num_classes"]
    known = {len(released.classes): released for released in RELEASED.values()}.get(n)
    names = tuple(classes) or (known.classes if known else ())
    if len(names) != n:
        raise SettingError(
            f"{path} has {n} outputs, {len(names)} classes are named.",
            remedy="Name them in their order: --classes A,B,C",
        )
    known = known if known and names == known.classes else None
    model = load_keras_weights(ViPTTNet(**architecture), path)
    save_weights(target, model, _keras_card(path, names, known))
    return open_weights(target)


def export_weights(reference: str | Path, folder: Path, checksum: str = "") -> Path:
    """Copy weights under a name that says what they are, their card beside them and their checksum in SHA256SUMS.

    Args:
        reference, checksum: See `weights.open_weights`.
        folder: Made if it is not there.

    Returns:
        The copy.

    Raises:
        DataError: the weights cannot be used, see there.
        StorageError: a file cannot be written.
    """
    weights = open_weights(reference, checksum)
    card = weights.card
    parts = [
        card.data.get("set"),
        card.training.get("stage"),
        card.training.get("start"),
        (card.training.get("preset") or {}).get("name"),
        weights.sha256[:8],
    ]
    target = folder / f"viptt-{'-'.join(str(part) for part in parts if part)}.safetensors"
    with files.storing(target):
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.part")
        shutil.copyfile(weights.path, unfinished)
        unfinished.replace(target)
        beside = {**weights.to_dict(), "file": target.name}
        files.replace(target.with_suffix(".json"), json.dumps(beside, indent=1) + "\n")
        sums = folder / CHECKSUMS
        lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
        lines = [line for line in lines if not line.endswith(f"  {target.name}")]
        files.replace(sums, "\n".join([*lines, f"{weights.sha256}  {target.name}", ""]))
    return target


def weights_here() -> dict[str, Card]:
    """Cards of the weights on this machine, by the name `open_weights` takes: got or converted ones, and runs'."""
    files = {path.stem: path for path in sorted(weights_root().glob("*.safetensors"))}
    files |= {path.parent.name: path for path in sorted(runs_root().glob(f"*/{WEIGHTS}"))}
    cards = {}
    for name, path in files.items():
        with contextlib.suppress(DataError):  # damaged or of an older version; to open it would say so
            cards[name] = read_card(path)
    there = {name: card for name, card in cards.items() if card is not None}
    return dict(sorted(there.items(), key=lambda entry: entry[1].preprocessing.kind != "scan"))  # those to predict with


def _keras_card(path: Path, classes: tuple[str, ...], known: Released | None) -> Card:
    preset = load_preset("paper")
    stage = known.stage if known else "finetune"
    scale = getattr(preset, stage).pixel_range
    if stage == "pretrain":
        grid = Preprocessing("video", preset.frames, preset.size, scale, fit=preset.fit, stride=preset.stride)
    else:
        grid = Preprocessing("scan", preset.frames, preset.size, scale, HU_WINDOW, preset.orientation)
    made = {key: value for key, value in provenance().items() if key in ("commit", "date", "packages")}
    return Card(
        about=f"{known.title if known else 'A Keras network in the layout of the authors'}, converted from {path.name}",
        classes=classes,
        preprocessing=grid,
        data={"set": known.data, "synthetic": False} if known else {},
        training={"stage": stage, "preset": preset.to_dict()} if known else {},
        metrics=(),
        made=made | {"converted_from": path.name, "sha256_of_it": files.file_digest(path, "sha256")},
        licence=LICENCE if known else "that of the Keras file",
    )
