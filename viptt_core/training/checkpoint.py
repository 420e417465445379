"""Training states on disk: one safetensors file each, complete or absent, checked before use.

Nothing is pickled. The name is `checkpoint-<step>-<begin of its SHA-256>.safetensors`; a file has it once it is whole,
and the one before it is removed only after that.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
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

STATE = "state"  # key of the file's header


@dataclass(frozen=True)
class Checkpoint:
    """A training state read from disk: JSON-ready values, and tensors by part ("model", "optimiser", ...) and name."""

    path: Path
    state: dict
    tensors: dict[str, dict[str, Tensor]]


def save_checkpoint(run: Path, step: int, state: dict, tensors: dict[str, dict[str, Tensor]]) -> Path:
    """Write a training state, see `Checkpoint`, into a run's folder; only then is the one before it removed."""
    named = {f"{part}/{name}": tensor for part, of_part in tensors.items() for name, tensor in of_part.items()}
    content = _in_bytes(named, {STATE: json.dumps(state)})
    path = run / f"checkpoint-{step:09d}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    with files.storing(run, hint="training goes on from the last checkpoint" if checkpoints(run) else ""):
        run.mkdir(parents=True, exist_ok=True)
        files.put_in_place(path, [content], durable=True)
    remove_checkpoints(run, but=path)
    return path


def read_checkpoint(run: Path | None) -> Checkpoint | None:
    """Read the newest training state of a run; None when there is none, a DataError when it is truncated or changed."""
    if not (there := checkpoints(run)):
        return None
    path, parts = there[-1], defaultdict(dict)
    with refusing(path):
        if not path.stem.endswith(files.file_digest(path, "sha256")[:16]):
            raise ValueError("it was truncated or changed after it was written")
        tensors, header = read_tensors(path)
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
        return Checkpoint(path, json.loads(header[STATE]), parts)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn what fails where a state is read or taken over into a DataError that names the file and the remedy."""
    try:
        yield
    except DataError:  # says by itself what is wrong
        raise
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        what = f"is no training state to go on from ({type(error).__name__}: {error})."
        remedy = "Delete this file: training then starts from the checkpoint before it, or anew."
        raise DataError(what, path=path, remedy=remedy) from error


def checkpoints(run: Path | None) -> list[Path]:
    """Training states of a run, the newest last; none without a folder."""
    return [] if run is None else sorted(run.glob("*checkpoint-*.safetensors"))


def remove_checkpoints(run: Path, *, but: Path | None = None) -> None:
    """Remove the training states of a run but one, half-written ones included; its results stay."""
    for path in run.glob("*checkpoint-*.safetensors*"):
        if path != but:
            path.unlink(missing_ok=True)


def optimiser_tensors(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """What an optimiser remembers, as `<weight>/<quantity>`: position in a list would not survive a reordering."""
    return {
        f"{name}/{quantity}": value
        for name, weight in model.named_parameters()
        for quantity, value in optimiser.state.get(weight, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser back what `optimiser_tensors` took out of it."""
    weights = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, quantity = key.rpartition("/")
        weight = weights[name]
        # Fused optimisers walk through memory, so what belongs to a channels-last weight must lie as it does.
        same = value.shape == weight.shape
        optimiser.state[weight][quantity] = torch.empty_like(weight).copy_(value) if same else value.to(weight.device)


# --- Tensors in a safetensors file: written whole or not at all, read without running anything that is in it ---


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Write tensors by name, and text beside them in the file's header; return the SHA-256 of the file."""
    content = _in_bytes(tensors, metadata)
    files.put_in_place(path, [content], durable=True)
    return hashlib.sha256(content).hexdigest()


def _in_bytes(tensors: dict[str, Tensor], metadata: dict[str, str] | None) -> bytes:
    # A copy of its own for each: safetensors refuses tensors that share memory.
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, metadata)


def read_tensors(path: Path, *, header_only: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name (none with `header_only`), and the header's text; a DataError: no whole file of this kind."""
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
