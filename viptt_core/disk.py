"""How bytes reach the disk, whole or not at all. Nothing here knows what they mean."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from isal import isal_zlib

from viptt_core.errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: Exception) -> bool:
    """Whether a write failed for lack of space, or of the reader's share of it."""
    # safetensors passes the system's words on, and not its number.
    return getattr(error, "errno", None) in _FULL or "space left" in str(error)


@contextmanager
def storing(path: Path, *, hint: str = "") -> Iterator[None]:
    """Turn what the system says about a file that cannot be written into a `StorageError`.

    Args:
        path: Named in the error.
        hint: Goes on the remedy, such as "what has come is kept".
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        what = f"cannot be written ({os.strerror(error.errno) if error.errno else error})."
        remedy = "Free some space and start again" if is_full(error) else "See that you may write there"
        raise StorageError(what, path=path, remedy=f"{remedy}{f'; {hint}' if hint else ''}.") from error


def write_row(path: Path, index: int, array: np.ndarray | bytes) -> int:
    """Write a row of an array file to its place, from any process.

    Args:
        path: `RowFile.array`, allocated.
        index: Of the row.
        array: The row, of the shape and dtype of the file.

    Returns:
        CRC-32 of its bytes.

    Raises:
        OSError: with `path` as its `filename`; `RowFile` makes a `StorageError` of it on leaving the block.
    """
    data = array if isinstance(array, bytes) else np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            write_all(descriptor, data, index * len(data))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return isal_zlib.crc32(data)


def read_row(path: Path, position: int, size: int) -> bytes:
    """A row's bytes; fewer where the file ends before."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(position * size)
            parts = []
            while size and (part := file.read(size)):
                parts.append(part)
                size -= len(part)
            return b"".join(parts)
    except FileNotFoundError:
        return b""


def write_all(descriptor: int, data, offset: int | None = None) -> None:
    """Write all bytes, at an offset or (None) where the file stands; one call may take only a part of them."""
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view) if offset is None else os.pwrite(descriptor, view, offset)
        view, offset = view[written:], None if offset is None else offset + written


def reserve(path: Path, size: int) -> None:
    """Make a file this long with its space on the disk its own, what is in it kept; on failure as before."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        before = os.fstat(descriptor).st_size
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except AttributeError:  # macOS
            pass
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # the file system cannot reserve
                os.ftruncate(descriptor, before)
                raise
        # The next best: the space is there now, though not our own.
        if shutil.disk_usage(path).free < size - os.fstat(descriptor).st_blocks * 512:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(descriptor, max(size, before))
    finally:
        os.close(descriptor)


def replace(path: Path, content: str | bytes) -> None:
    """Write a file under another name, force it to the disk and rename it; a failed one leaves nothing."""
    unfinished = path.with_name(path.name + ".tmp")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        try:
            write_all(descriptor, content.encode() if isinstance(content, str) else content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_file(path: Path, content: str | bytes) -> None:
    """`replace`, in a folder that is made if it is not there.

    Raises:
        StorageError: it cannot be written; an older file of this name stays whole.
    """
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, content)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk and not only in the system's memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path, algorithm: str) -> str:
    """Digest of a file's bytes in hexadecimal; algorithm is a name that hashlib knows, such as "sha256"."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def remove(folder: Path) -> None:
    """Delete a folder; what cannot be deleted, or is not there, is of no harm."""
    shutil.rmtree(folder, ignore_errors=True)
