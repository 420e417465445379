"""Weights and training states on disk: safetensors and JSON, complete or absent, checked before use.

Nothing is pickled. A checkpoint is a folder `checkpoint-<step>`, written under a hidden name and renamed;
the one before it is removed only after that. Every file's SHA-256 stands in `state.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from viptt_core import disk
from viptt_core.errors import DataError, StorageError

STATE = "state.json"
FORMAT = 1  # of a checkpoint; a new number makes older ones be refused
_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A training state read from disk: JSON-ready values, and tensors by file and name."""

    folder: Path
    state: dict
    tensors: dict[str, dict[str, Tensor]]


def plain_module(model: nn.Module) -> nn.Module:
    """The module itself, out of the wrappers of several processes and of torch.compile."""
    while (inner := getattr(model, "_orig_mod", None) or _distributed_inner(model)) is not None:
        model = inner
    return model


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a model's weights, with its architecture in the file's header.

    Raises:
        StorageError: the file cannot be written; an older one of this name is still whole.
    """
    model = plain_module(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with _storing(path, temporary):
        _write_tensors(temporary, model.state_dict(), {"architecture": json.dumps(model.architecture)})
        os.replace(temporary, path)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Weights by name, and the architecture they belong to.

    Raises:
        DataError: missing, truncated or damaged.
    """
    tensors, metadata = _read_tensors(path)
    return tensors, json.loads(metadata.get("architecture", "{}"))


def load_weights(model: nn.Module, path: Path) -> None:
    """Give a model the weights of a file.

    Raises:
        DataError: the file is damaged, or of another architecture or number of classes.
    """
    tensors, architecture = read_weights(path)
    model = plain_module(model)
    check_architecture(architecture, model.architecture, path)
    model.load_state_dict(tensors)


def check_architecture(found: dict, wanted: dict, path: Path) -> None:
    """Raise a DataError that names each difference between two architectures."""
    differing = [f"{name} {found.get(name, 'unknown')} instead of {value}" for name, value in wanted.items()
                 if found.get(name) != value]  # fmt: skip
    if differing:
        raise DataError(f"is of another model: {', '.join(differing)}.", path=path,
                        remedy="Build the model with these settings, or name other weights.")  # fmt: skip


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
    with _storing(run, part):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        sums = {}
        for name, named in tensors.items():
            path = part / f"{name}.safetensors"
            _write_tensors(path, named)
            sums[path.name] = disk.file_digest(path, "sha256")
        text = json.dumps({"format": FORMAT, "step": step, "sha256": sums, "state": state})
        # The state vouches for the other files; its own hash is the first line of the file.
        _write_synced(part / STATE, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
        if folder.exists():
            shutil.rmtree(folder)  # of the same step, so of the same content
        os.rename(part, folder)
        disk.sync(run)
    for older in _checkpoints(run):
        if older != folder:
            shutil.rmtree(older, ignore_errors=True)
    return folder


def read_checkpoint(run: Path) -> Checkpoint | None:
    """Read the newest training state of a run; None when there is none.

    Raises:
        DataError: a file is missing, truncated or changed, or was written by another version.
    """
    found = _checkpoints(run)
    if not found:
        return None
    folder = found[-1]
    remedy = "Delete this folder: training then starts from the checkpoint before it, or anew."
    try:
        digest, _, text = (folder / STATE).read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"is no whole checkpoint ({error}).", path=folder, remedy=remedy) from error
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise DataError("was truncated or changed after it was written.", path=folder / STATE, remedy=remedy)
    record = json.loads(text)
    if record["format"] != FORMAT:
        raise DataError(f"is of format {record['format']}, not {FORMAT}.", path=folder, remedy=remedy)
    tensors = {}
    for name, digest in record["sha256"].items():
        if not (folder / name).is_file():
            raise DataError("is missing.", path=folder / name, remedy=remedy)
        if disk.file_digest(folder / name, "sha256") != digest:
            raise DataError("was truncated or changed after it was written.", path=folder / name, remedy=remedy)
        tensors[Path(name).stem] = _read_tensors(folder / name)[0]
    return Checkpoint(folder, record["state"], tensors)


def remove_checkpoints(run: Path) -> None:
    """Remove the training states of a run, half-written ones included; its results stay."""
    for folder in [*_checkpoints(run), *run.glob(".checkpoint-*.part")]:
        shutil.rmtree(folder, ignore_errors=True)


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


def _distributed_inner(model: nn.Module) -> nn.Module | None:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else None


def _checkpoints(run: Path) -> list[Path]:
    return sorted(path for path in run.glob("checkpoint-*") if _NAME.fullmatch(path.name))


def _write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    # A copy of its own for each: safetensors refuses tensors that share memory.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(plain, path, metadata=metadata)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"is no whole file of weights ({error}).", path=path,
                        remedy="Copy it again, or train again.") from error  # fmt: skip


def _write_synced(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _storing(target: Path, temporary: Path):
    """Turn what the system says when it cannot write into a StorageError, and leave nothing half-written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"cannot be written ({'the disk is full' if disk.is_full(error) else error}).", path=target,
            remedy="Free some space and start again: training goes on from the last checkpoint.",
        ) from error  # fmt: skip
