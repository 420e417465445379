"""Arrays and a few plain values in one compressed file: written whole, checked when read, never unpickled."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

from viptt_core import files
from viptt_core.errors import DataError

FORMAT = 1


def write_packed(path: Path, meta: dict, **arrays: np.ndarray) -> None:
    """Write a file, the same bytes for the same content; an older one stays until the new one is complete.

    Args:
        path: Of the file; its folder is made.
        meta: JSON-ready.
        arrays: By name, without objects.

    Raises:
        StorageError: it cannot be written.
    """
    packed = io.BytesIO()
    np.savez_compressed(packed, meta=np.array(json.dumps({"format": FORMAT} | meta)), **arrays)
    files.write_file(path, packed.getvalue())


def read_packed(path: Path, build, *, what: str, remedy: str):
    """Read a file of `write_packed`.

    Args:
        path: Of the file.
        build: (meta, file) -> what is returned; a name it does not find, or a value that does not fit, is damage.
        what: What the file should hold, for the message.
        remedy: For the message.

    Raises:
        DataError: it is missing, damaged or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']}")
            return build(meta, file)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"holds no {what} of a study ({error}).", path=path, remedy=remedy) from error
