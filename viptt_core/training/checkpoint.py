"""Training states on disk: safetensors and JSON, complete or absent, checked before use.

Nothing is pickled. A checkpoint is a folder `checkpoint-<step>`, written under a hidden name and renamed;
the one before it is removed only after that. Every file's SHA-256 stands in `state.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from viptt_core import files
from viptt_core.errors import DataError
from viptt_core.model import plain_module

STATE = "state.json"
FORMAT = 2  # of a checkpoint; a new number makes older ones be refused
_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A training state read from disk: JSON-ready values, and tensors by file and name."""

    folder: Path
    state: dict
    tensors: dict[str, dict[str, Tensor]]

    @property
    def step(self) -> int:
        """Steps taken when it was written."""
        return int(_NAME.fullmatch(self.folder.name)[1])


def save_checkpoint(run: Path, step: int, state: dict, tensors: dict[str, dict[str, Tensor]]) -> Path:
    """Write a training state into a run's folder and remove the one before it.

    Args:
        run: Folder of the run.
        step: Steps taken so far; names the folder.
        state: JSON-ready values.
        tensors: Tensors by file ("model", "optimiser", ...) and name.

    Returns:
        The checkpoint's folder.

    Raises:
        StorageError: it cannot be written; the one before it is still there.
    """
    folder, part = run / f"checkpoint-{step:09d}", run / f".checkpoint-{step:09d}.part"
    with files.storing(run, hint="training goes on from the last checkpoint" if has_checkpoint(run) else ""):
        try:
            part.mkdir(parents=True, exist_ok=True)
            names = {f"{name}.safetensors": named for name, named in tensors.items()}
            sums = {name: write_tensors(part / name, named) for name, named in names.items()}
            text = json.dumps({"format": FORMAT, "sha256": sums, "state": state})
            # The state vouches for the other files; its own hash is the first line of the file.
            files.replace(part / STATE, f"{_sha256(text)}\n{text}")
            if folder.exists():
                shutil.rmtree(folder)  # of the same step, so of the same content
            os.rename(part, folder)
            files.sync(run)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    for older in _checkpoints(run):
        if older != folder:
            shutil.rmtree(older, ignore_errors=True)
    return folder


def read_checkpoint(run: Path) -> Checkpoint | None:
    """Read the newest training state of a run; None when there is none.

    Raises:
        DataError: a file is missing, truncated or changed, or was written by another version.
    """
    if not has_checkpoint(run):
        return None
    folder, tensors = _checkpoints(run)[-1], {}
    with refusing(folder):
        digest, _, text = (folder / STATE).read_text(encoding="utf-8").partition("\n")
        _compare(STATE, _sha256(text), digest)
        record = json.loads(text)
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}, not {FORMAT}")
        for name, digest in record["sha256"].items():
            _compare(name, files.file_digest(folder / name, "sha256"), digest)
            tensors[Path(name).stem] = read_tensors(folder / name)[0]
        return Checkpoint(folder, record["state"], tensors)


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """Turn what fails where a state is read or taken over into a DataError that names its folder and the remedy."""
    try:
        yield
    except DataError:  # says by itself what is wrong
        raise
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(
            f"is no training state to go on from ({type(error).__name__}: {error}).",
            path=folder,
            remedy="Delete this folder: training then starts from the checkpoint before it, or anew.",
        ) from error


def has_checkpoint(run: Path | None) -> bool:
    """Whether there is a training state to go on from; never without a folder."""
    return run is not None and bool(_checkpoints(run))


def remove_checkpoints(run: Path) -> None:
    """Remove the training states of a run, half-written ones included; its results stay."""
    for folder in [*_checkpoints(run), *run.glob(".checkpoint-*.part")]:
        shutil.rmtree(folder, ignore_errors=True)


def kinds_in(value: object) -> object:
    """JSON with the type of each value in its place: what two states must have in common."""
    if isinstance(value, dict):
        return {name: kinds_in(entry) for name, entry in value.items()}
    return [kinds_in(entry) for entry in value] if isinstance(value, list) else type(value)


def optimiser_tensors(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """What an optimiser remembers, as `<weight>/<quantity>`: position in a list would not survive a reordering."""
    return {
        f"{name}/{quantity}": value
        for name, weight in plain_module(model).named_parameters()
        for quantity, value in optimiser.state.get(weight, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser back what `optimiser_tensors` took out of it."""
    weights = dict(plain_module(model).named_parameters())
    for key, value in tensors.items():
        name, _, quantity = key.rpartition("/")
        weight = weights[name]
        value = value.to(weight.device)
        # Fused optimisers walk through memory, so what belongs to a channels-last weight must lie as it does.
        optimiser.state[weight][quantity] = (
            torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value
        )


def _checkpoints(run: Path) -> list[Path]:
    return sorted(path for path in run.glob("checkpoint-*") if _NAME.fullmatch(path.name))


def _compare(name: str, found: str, written: str) -> None:
    if found != written:
        raise ValueError(f"{name} was truncated or changed after it was written")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- Tensors in a safetensors file: written whole or not at all, read without running anything that is in it ---


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Write tensors by name, and text beside them in the file's header; return the SHA-256 of the file.

    Raises:
        OSError: it cannot be written; an older file of this name stays whole.
    """
    # A copy of its own for each: safetensors refuses tensors that share memory.
    content = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, metadata)
    files.replace(path, content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, *, header_only: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name (none of them with `header_only`), and the text of the header.

    Raises:
        DataError: missing, truncated, damaged, or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = () if header_only else file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        if kind := files.kind_of(path):
            remedy = "Ask for safetensors. Keras's HDF5 is converted by: viptt weights get FILE.h5 OUT.safetensors"
            raise DataError(f"is {kind}; it is not read.", path=path, remedy=remedy) from error
        what = f"is no whole file of weights ({error})."
        raise DataError(what, path=path, remedy="Copy it again, or train again.") from error
