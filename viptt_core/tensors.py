"""Tensors in a safetensors file: written whole or not at all, read without running anything that is in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from viptt_core import files
from viptt_core.errors import DataError, StorageError

_NO_PICKLE = "Ask for safetensors: reading a pickle can run whatever its maker put in."
# How files begin that people take for weights, and what to do with them.
_OTHER_KINDS = {
    b"PK\x03\x04": ("is a zip file, as PyTorch's .pt and .pth are", _NO_PICKLE),
    b"\x80": ("is a pickle, as older .pt and .pth files are", _NO_PICKLE),
    b"\x89HDF": ("is an HDF5 file, as Keras writes", "Convert it: viptt weights import FILE.h5 OUT.safetensors"),
    b"<": ("is a web page", "Download the file itself."),
}


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors by name, and text beside them in the file's header; then wait until they are on the disk."""
    # A copy of its own for each: safetensors refuses tensors that share memory.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(plain, path, metadata=metadata)
    files.sync(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the text of the header.

    Raises:
        DataError: missing, truncated, damaged, or of another kind.
    """
    with _reading(path), safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_header(path: Path) -> dict[str, str]:
    """The text of the header alone; raises as `read_tensors` does."""
    with _reading(path), safe_open(path, framework="pt") as file:
        return file.metadata() or {}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        for beginning, (what, remedy) in _OTHER_KINDS.items():
            if _beginning(path).startswith(beginning):
                raise DataError(f"{what}; it is not read.", path=path, remedy=remedy) from error
        raise DataError(
            f"is no whole file of weights ({error}).", path=path, remedy="Copy it again, or train again."
        ) from error


@contextmanager
def storing_tensors(target: Path, temporary: Path) -> Iterator[None]:
    """Turn what the system says when it cannot write into a StorageError, and leave nothing half-written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"cannot be written ({'the disk is full' if files.is_full(error) else error}).",
            path=target,
            remedy="Free some space and start again: training goes on from the last checkpoint.",
        ) from error


def _beginning(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(8)
    except OSError:
        return b""
