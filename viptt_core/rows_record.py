"""What a folder of rows says it holds, by its record or its journal, and how a finished one is opened.

`rows.bin` holds the rows one after another (raw, C order). A finished folder has a record, `rows.json`; one
being filled has a journal instead, with one line for each finished row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from isal import isal_zlib

from viptt_core.errors import DataError

ARRAY, RECORD, JOURNAL = "rows.bin", "rows.json", "journal.jsonl"
FORMAT = 1  # of record and journal; a new number makes older folders be built again
_SHOW_ABOVE = 1e9  # bytes; checking less is over before a progress bar can be read


@dataclass(frozen=True)
class Row:
    """One finished row: what it was made from (`key`), its checksum, and JSON-ready extras."""

    key: str
    crc: int
    note: dict


@dataclass
class Stored:
    """What a folder, finished or not, says it holds; rows: key -> (position in the array file, row)."""

    array: Path
    keys: list[str]
    dtype: np.dtype
    shape: tuple[int, ...] | None
    rows: dict[str, tuple[int, Row]]
    left: dict[str, dict]
    record: dict | None


def open_rows(folder: Path, *, verify: bool = True, progress: bool = False) -> tuple[np.memmap, dict]:
    """Open a finished array.

    Args:
        folder: As given to `RowFile`.
        verify: Read all of it and compare each row with its CRC.
        progress: Show a progress bar where that takes a while.

    Returns:
        The array [N, ...], memory-mapped read-only, and its record: "shape", "dtype", "keys" of all
        sources, "rows": [index of the source, crc, note] each, "left": [index, note] each, and "meta".

    Raises:
        DataError: the folder is incomplete, of another format, or damaged.
    """
    remedy = "Delete this folder: it is built again when needed."
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise DataError(f"is of format {record['format']}, not {FORMAT}.", path=folder, remedy=remedy)
        shape, dtype, rows = tuple(record["shape"]), np.dtype(record["dtype"]), record["rows"]
        size = (folder / ARRAY).stat().st_size
        expected = prod(shape) * dtype.itemsize
        if size != expected or len(rows) != shape[0]:
            raise DataError(f"holds {size} bytes, {expected} expected.", path=folder, remedy=remedy)
        array = np.memmap(folder / ARRAY, dtype=dtype, mode="r", shape=shape)
        crcs = [crc for _, crc, _ in rows]
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"is incomplete or damaged ({error}).", path=folder, remedy=remedy) from error
    if verify:
        from tqdm import tqdm

        shown = tqdm(crcs, desc="checking", unit="row", disable=not (progress and size > _SHOW_ABOVE))
        bad = sum(isal_zlib.crc32(array[i]) != crc for i, crc in enumerate(shown))
        if bad:
            raise DataError(
                f"{bad} of {len(crcs)} rows are damaged: their checksums differ.", path=folder, remedy=remedy
            )
    return array, record


def read_stored(folder: Path) -> Stored | None:
    """What a folder holds by its record or else its journal; None if neither can be read."""
    try:
        if (folder / RECORD).is_file():
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            head, shape = record, tuple(record["shape"][1:])
            rows = [(i, position, crc, note) for position, (i, crc, note) in enumerate(record["rows"])]
            left = record["left"]
        else:
            record, (head, shape, rows, left) = None, _read_journal(folder / JOURNAL)
        if head["format"] != FORMAT:
            return None
        keys = head["keys"]
        return Stored(
            folder / ARRAY,
            keys,
            np.dtype(head["dtype"]),
            shape,
            {keys[i]: (position, Row(keys[i], crc, note)) for i, position, crc, note in rows},
            {keys[i]: note for i, note in left},
            record,
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None  # it is of no use then, and everything is made again


def _read_journal(path: Path) -> tuple[dict, tuple[int, ...] | None, list[tuple], list[tuple]]:
    """Head, shape of a row, (index, position, crc, note) of the finished rows, (index, note) of those left out."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break  # the line that was being written when the process was killed
    head, *lines = lines
    shape = [line["shape"] for line in lines if line.get("shape")]
    rows = [(line["row"], line["position"], line["crc"], line["note"]) for line in lines if "row" in line]
    left = [(line["left"], line["note"]) for line in lines if "left" in line]
    return head, tuple(shape[-1]) if shape else None, rows if shape else [], left
