"""Weights and the card that goes with them, in one safetensors file; from a path, a run, a name or a URL.

The card says what the weights are and what a file must become before they can be used on it. It stands in the file's
header, so that it cannot be lost, and again beside it as JSON, for readers without this package.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urlsplit

from torch import Tensor, nn

from viptt_core import files
from viptt_core.card import REMEDY, Card
from viptt_core.errors import DataError, SettingError
from viptt_core.files import artifact_root
from viptt_core.model import ViPTTNet, check_architecture, plain_module
from viptt_core.results import runs_root
from viptt_core.training.checkpoint import read_header, read_tensors, storing_tensors, write_tensors

HEADER = "viptt"  # key of the safetensors header
WEIGHTS = "weights.safetensors"  # name of the file in a run's folder


@dataclass(frozen=True)
class Weights:
    """Weights read from a file, checked.

    Attributes:
        path: The file.
        sha256: Of the file.
        architecture: See `ViPTTNet.architecture`.
        card: What they are.
        tensors: By name.
    """

    path: Path
    sha256: str
    architecture: dict
    card: Card
    tensors: dict[str, Tensor] = field(repr=False)

    @property
    def name(self) -> str:
        """What a reader calls them: the run, or the file without its ending."""
        return weights_name(self.path)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.card.classes

    def model(self) -> ViPTTNet:
        """The network with these weights, on the CPU, ready to predict.

        Raises:
            DataError: they do not fit the architecture that the file states.
        """
        try:
            # Before anything is built: a header may ask for more memory than there is, tensors are there in full.
            for name, sizes in (
                ("feature.weight", ("feature_size", "hidden_size")),
                ("classifier.weight", ("num_classes", "feature_size")),
            ):
                found, stated = list(self.tensors[name].shape), [self.architecture[size] for size in sizes]
                if found != stated:
                    raise SettingError(f"{name} is {found}, not {stated}")
            model = ViPTTNet(**self.architecture)
            model.load_state_dict(self.tensors)
        except (SettingError, RuntimeError, TypeError, KeyError) as error:
            what = str(error).strip().splitlines()[-1].strip()
            raise DataError(
                f"holds weights that do not fit its architecture ({what}).", path=self.path, remedy=REMEDY
            ) from error
        return model.eval()

    def to_dict(self) -> dict[str, Any]:
        """Card, architecture and checksum as one plain dictionary, for JSON."""
        return _described(self.path, self.sha256, self.architecture, self.card)


def save_weights(path: Path, model: nn.Module, card: Card | None = None) -> None:
    """Write a model's weights, with its architecture and card in the file's header, and the card as JSON beside it.

    Args:
        path: A name that ends in .safetensors; the JSON has the same name otherwise.
        model: Wrapped or not.
        card: None writes weights that only code with the same settings can use (`load_weights`).

    Raises:
        StorageError: the file cannot be written; an older one of this name is still whole.
    """
    model = plain_module(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"architecture": model.architecture, "card": None if card is None else card.to_dict()}
    temporary = path.with_name(f".{path.name}.part")
    with storing_tensors(path, temporary):
        # One key: safetensors writes several in any order, and the same weights should be the same file.
        write_tensors(temporary, model.state_dict(), {HEADER: json.dumps(content)})
        digest = files.file_digest(temporary, "sha256")
        os.replace(temporary, path)
    if card is not None:
        beside = _described(path, digest, model.architecture, card)
        files.write_file(path.with_suffix(".json"), json.dumps(beside, indent=1) + "\n")


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Weights by name, and the architecture they belong to.

    Raises:
        DataError: missing, truncated or damaged.
    """
    tensors, header = read_tensors(path)
    return tensors, _content(header, path)["architecture"]


def load_weights(model: nn.Module, path: Path) -> None:
    """Give a model the weights of a file.

    Raises:
        DataError: the file is damaged, or of another architecture or number of classes.
    """
    tensors, architecture = read_weights(path)
    model = plain_module(model)
    check_architecture(architecture, model.architecture, path)
    model.load_state_dict(tensors)


def open_weights(reference: str | Path, checksum: str = "") -> Weights:
    """Read weights and their card.

    Args:
        reference: A file; a run's folder, or its name below `runs/`; a name in `weights_root()`, such as
            "authors-tbt"; or a URL, which is downloaded once.
        checksum: SHA-256 of the file, 64 digits, "sha256:" before it or not. A URL needs it, here or at its
            end as #sha256=..., because what comes from elsewhere must be what its maker wrote.

    Raises:
        DataError: there is no such file, or it is damaged, has no card, holds values that are not finite, or its
            checksum is another one.
        SettingError: a URL without checksum, or a malformed checksum.
    """
    path, digits = weights_path(reference, checksum)
    found = files.file_digest(path, "sha256")
    if digits and found != digits:
        raise DataError(
            f"has another checksum (sha256 is {found}, not {digits}).",
            path=path,
            remedy="Get the file again, or correct the checksum.",
        )
    tensors, header = read_tensors(path)
    content = _content(header, path)
    if content.get("card") is None:
        raise DataError(
            "has no card: nothing says what its classes are or how scans are prepared for it.", path=path, remedy=REMEDY
        )
    card, architecture = Card.from_dict(content["card"], path), content["architecture"]
    if len(card.classes) != architecture.get("num_classes"):
        what = f"names {len(card.classes)} classes for {architecture.get('num_classes')} logits."
        raise DataError(what, path=path, remedy=REMEDY)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise DataError(f"holds values that are not finite, first in '{name}'.", path=path, remedy="Train again.")
    return Weights(path, found, architecture, card, tensors)


def read_card(path: Path) -> Card | None:
    """The card alone, None where there is none; the tensors are not read.

    Raises:
        DataError: the file is no whole file of weights, or the card cannot be read.
    """
    card = _content(read_header(path), path).get("card")
    return Card.from_dict(card, path) if card is not None else None


def weights_name(path: Path) -> str:
    """What a reader calls a file of weights, see `Weights.name`."""
    return path.parent.name if path.name == WEIGHTS else path.stem


def _described(path: Path, sha256: str, architecture: dict, card: Card) -> dict[str, Any]:
    return {"file": path.name, "sha256": sha256, "architecture": architecture, **card.to_dict()}


def _content(header: dict[str, str], path: Path) -> dict:
    """What the header says: the architecture, and the card or None."""
    try:
        content = json.loads(header.get(HEADER, '{"architecture": {}}'))
        return content | {"architecture": dict(content["architecture"])}
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"has a header that cannot be read ({error}).", path=path, remedy=REMEDY) from error


def weights_root() -> Path:
    """Folder of weights that were downloaded or converted."""
    return artifact_root() / "data" / "weights"


def weights_path(reference: str | Path, checksum: str = "") -> tuple[Path, str]:
    """The file that a reference means, downloaded if it is a URL, and the digits of its checksum ("" for none)."""
    text = str(reference)
    if "://" in text:
        text, fragment = urldefrag(text)
        digits = _digits(checksum or fragment.replace("=", ":"), text)
        return _downloaded(text, digits), digits
    path = Path(text).expanduser()
    candidates = [path, path / WEIGHTS, runs_root() / text / WEIGHTS, weights_root() / f"{text}.safetensors"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate, _digits(checksum, text) if checksum else ""
    if path.is_dir():
        raise DataError(f"holds no {WEIGHTS}.", path=path, remedy="Give the folder of a finished run, or the file.")
    raise DataError(
        "no such weights.", path=text, remedy="`viptt weights list` shows those that are here, and which can be got."
    )


def _digits(checksum: str, what: str) -> str:
    digits = checksum.lower().removeprefix("sha256:")
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise SettingError(
            f"{what}: {f'{checksum!r} is no SHA-256.' if checksum else 'weights from a URL need their checksum.'}",
            remedy="Give all 64 digits: --sha256 HEX, or #sha256=HEX at the end of the URL.",
        )
    return digits


def _downloaded(url: str, digits: str) -> Path:
    from viptt_core.sources.download import download

    name = Path(urlsplit(url).path).name or "weights"
    return download(url, weights_root() / f"{digits[:12]}-{name}", checksum=f"sha256:{digits}")
