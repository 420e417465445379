"""An array on disk that is filled row by row and survives being killed at any moment.

It grows in a hidden folder `.NAME.part`: `rows.bin` (raw, C order) and a journal with one line for each
finished row. A later build of the same name takes those rows up again. When all are there the folder is
renamed to `NAME`, with `rows.json` in place of the journal: what is visible is complete. Each row has a key,
which says what it was made from, and a CRC: a row is used again only if both are right.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from isal import isal_zlib

from viptt_core import files
from viptt_core.errors import DataError, SettingError, StorageError
from viptt_core.files import write_row

__all__ = ["Row", "RowFile", "open_rows", "write_row"]


class RowFile:
    """An array on disk to be filled, for use in a `with` block, within which no other process can fill it.

    Leaving the block without `finish` (an error, Ctrl-C) keeps the hidden folder if there is a new row in it.

    Args:
        folder: The finished folder; the hidden ones lie beside it.
        keys: What each row is made from; no two alike.
        dtype: Of the array.
        waiting: Called once if another process fills the same array and this one has to wait.
        retry: Tells from the note of a left-out row that it is to be tried again.

    Attributes:
        done: index -> finished row, those of an earlier build included; each was read and its CRC checked.
        left: index -> note of a row left out, with its "reason".
        finished: All rows are in the visible folder already; `finish` then only writes another record.
        older: Record of the visible folder found at the start, whatever its keys; None if there is none.
        damaged: Rows found with the right key whose bytes are not what was written.
        shape: Of a row; None until known.
        array: The file that `write_row` takes.

    Raises:
        SettingError: two keys are alike.
        StorageError: by every method that writes; the message names the file and says what is kept.
    """

    def __init__(
        self,
        folder: Path,
        keys: Sequence[str],
        *,
        dtype,
        waiting: Callable[[], None] | None = None,
        retry: Callable[[dict], bool] = lambda note: False,
    ) -> None:
        if len(set(keys)) < len(keys):
            raise SettingError(f"two rows of '{folder.name}' have the same key.", remedy="Give each its own.")
        self.folder, self.dtype = folder, np.dtype(dtype)
        self._part, self._aside = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))
        self.array = self._part / ARRAY
        self._keys, self._waiting, self._retry = list(keys), waiting, retry
        self.done: dict[int, Row] = {}
        self.left: dict[int, dict] = {}
        self.finished, self.older, self.damaged = False, None, 0
        self.shape: tuple[int, ...] | None = None
        self._visible: dict[int, int] = {}  # rows still in the visible folder only: index -> position there
        self._journal: int | None = None

    def __enter__(self) -> RowFile:
        with self._storing(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            # The system drops this lock with the process, however it ends. The empty file stays.
            self._lock = FileLock(self.folder.with_name(f".{self.folder.name}.lock"))
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                if self._waiting is not None:
                    self._waiting()
                self._lock.acquire(poll_interval=0.1)
        try:
            with self._storing(self._part):
                self._take_up()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._leave()
        if isinstance(error, OSError) and error.filename == str(self.array):  # `write_row` in a worker process
            raise self._storage_error(error, self.array) from error

    def allocate(self, shape: tuple[int, ...]) -> None:
        """Say the shape of a row and reserve the space of all rows, so that a full disk is known before the work.

        Raises:
            DataError: the rows that are there have another shape.
        """
        if self.shape not in (None, tuple(shape)):
            raise DataError(
                f"holds rows of shape {self.shape}, not {tuple(shape)}.", path=self._part, remedy="Delete this folder."
            )
        self.shape = tuple(shape)
        if self.finished:
            return
        with self._storing(self.array):
            files.reserve(self.array, len(self._keys) * self._row_bytes)
            self._log({"shape": self.shape})

    def write(self, index: int, array: np.ndarray, note: dict | None = None) -> None:
        """Write row `index`, an array of the allocated shape and dtype, and note it as finished."""
        if array.shape != self.shape or array.dtype != self.dtype:
            raise DataError(
                f"row {index} is {array.dtype} {array.shape}, not {self.dtype} {self.shape}.", path=self.array
            )
        with self._storing(self.array):
            crc = write_row(self.array, index, array)
        self.record(index, crc, note)

    def record(self, index: int, crc: int, note: dict | None = None) -> None:
        """Note row `index` as finished; `write_row` has written it, perhaps in another process."""
        # The journal line comes after the data: a kill between the two costs this one row.
        self._log_row(index, index, Row(self._keys[index], crc, note or {}))

    def leave_out(self, index: int, reason: str, note: dict | None = None) -> None:
        """Note that row `index` is not wanted in the finished array; a resumed build does not try it again."""
        note = {**(note or {}), "reason": reason}
        self._log({"left": index, "note": note})
        self.left[index] = note

    def finish(self, meta: dict) -> None:
        """Close the gaps of left-out rows and make the folder visible, in place of an older one of its name.

        Args:
            meta: JSON-ready; comes back as `record["meta"]` from `open_rows`.

        Raises:
            DataError: a row is neither written nor left out, or all are left out.
        """
        missing = len(self._keys) - len(self.done.keys() | self.left.keys())
        if missing or not self.done:
            raise DataError(
                f"{missing} of {len(self._keys)} rows are missing, {len(self.done)} are there.", path=self.folder
            )
        kept = sorted(self.done)
        record = {
            "format": FORMAT,
            "shape": [len(kept), *self.shape],
            "dtype": self.dtype.str,
            "keys": self._keys,
            "rows": [[index, self.done[index].crc, self.done[index].note] for index in kept],
            "left": [[index, self.left[index]] for index in sorted(self.left)],
            "meta": meta,
        }
        with self._storing(self.folder):
            if self.finished:
                files.replace(self.folder / RECORD, json.dumps(record))
                return
            self._fetch_visible()
            for position, index in enumerate(kept):
                if position != index:
                    # Never onto a row whose move is not journalled yet, so a kill here loses nothing.
                    write_row(self.array, position, files.read_row(self.array, index, self._row_bytes))
                    self._log_row(position, index, self.done[index])
            os.truncate(self.array, len(kept) * self._row_bytes)
            files.sync(self.array)
            files.replace(self._part / RECORD, json.dumps(record))
            self._close_journal()
            os.unlink(self._part / JOURNAL)
            files.sync(self._part)
            if self.folder.exists():
                shutil.rmtree(self._aside, ignore_errors=True)
                os.rename(self.folder, self._aside)
            os.rename(self._part, self.folder)
            files.sync(self.folder.parent)
            shutil.rmtree(self._aside, ignore_errors=True)
        self.finished = True

    # --- Taking up what is there -------------------------------------------------------------------

    def _take_up(self) -> None:
        visible, part, aside = (self._read(folder) for folder in (self.folder, self._part, self._aside))
        self.older = visible.record if visible else None
        in_visible = self._sound(visible)
        if visible and visible.keys == self._keys and len(in_visible) + len(self.left) == len(self._keys):
            self.done = {i: row for i, (_, row) in in_visible.items()}
            self.shape, self.finished = visible.shape, True
            shutil.rmtree(self._part, ignore_errors=True)
            shutil.rmtree(self._aside, ignore_errors=True)
            return
        if part and any(position != i for i, (position, _) in self._wanted(part)):
            # Rows are in other places than where they belong (the list of sources has changed, or a
            # kill came while gaps were closed): they are copied from a folder put aside.
            shutil.rmtree(self._aside, ignore_errors=True)
            os.rename(self._part, self._aside)
            part, aside = None, self._read(self._aside)
        if part is None:
            shutil.rmtree(self._part, ignore_errors=True)
        self._part.mkdir(exist_ok=True)
        found = [(stored, self._sound(stored)) for stored in (part, aside)] + [(visible, in_visible)]
        shapes = [stored.shape for stored, rows in found if rows]
        self.shape = shapes[0] if shapes else None
        in_place = {i: row for i, (_, row) in found[0][1].items()}
        self._start_journal([self._row_line(i, i, row) for i, row in in_place.items()])
        self.done = in_place
        for stored, rows in found[1:]:
            for i, (position, row) in rows.items():
                if i in self.done or stored.shape != self.shape:
                    continue
                if stored is visible:  # it stays where it is, so its rows need no copy before the end
                    self._visible[i], self.done[i] = position, row
                else:
                    write_row(self.array, i, files.read_row(stored.array, position, self._row_bytes))
                    self._log_row(i, i, row)
        self.left = {i: note for i, note in self.left.items() if i not in self.done}
        shutil.rmtree(self._aside, ignore_errors=True)

    def _read(self, folder: Path) -> Stored | None:
        stored = read_stored(folder)
        return stored if stored and stored.dtype == self.dtype else None

    def _wanted(self, stored: Stored) -> list[tuple[int, tuple[int, Row]]]:
        return [(i, stored.rows[key]) for i, key in enumerate(self._keys) if key in stored.rows]

    def _sound(self, stored: Stored | None) -> dict[int, tuple[int, Row]]:
        """Rows of a folder that are asked for and are as they were written; those left out are noted."""
        sound = {}
        if stored is None:
            return sound
        for i, key in enumerate(self._keys):
            if key in stored.left and not self._retry(stored.left[key]):
                self.left[i] = stored.left[key]
        for i, (position, row) in self._wanted(stored):
            # A short read, where the file was cut off, fails the check as well.
            data = files.read_row(stored.array, position, prod(stored.shape) * self.dtype.itemsize)
            if isal_zlib.crc32(data) == row.crc:
                sound[i] = position, row
            else:
                self.damaged += 1
        return sound

    def _fetch_visible(self) -> None:
        files.reserve(self.array, len(self._keys) * self._row_bytes)
        for i, position in list(self._visible.items()):
            write_row(self.array, i, files.read_row(self.folder / ARRAY, position, self._row_bytes))
            self._log_row(i, i, self.done[i])

    # --- Journal, errors -----------------------------------------------------------------------------

    @property
    def _row_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def _row_line(self, position: int, index: int, row: Row) -> dict:
        return {"row": index, "position": position, "crc": row.crc, "note": row.note}

    def _log_row(self, position: int, index: int, row: Row) -> None:
        self._log(self._row_line(position, index, row))
        self.done[index] = row
        self.left.pop(index, None)
        self._visible.pop(index, None)

    def _log(self, line: dict) -> None:
        with self._storing(self._part / JOURNAL):
            files.write_all(self._journal, (json.dumps(line) + "\n").encode())

    def _start_journal(self, lines: list[dict]) -> None:
        """Begin the journal anew with what is known to be sound, so that no torn line stays in it."""
        head = {"format": FORMAT, "dtype": self.dtype.str, "keys": self._keys}
        lines = [head, {"shape": self.shape}, *lines, *({"left": i, "note": note} for i, note in self.left.items())]
        files.replace(self._part / JOURNAL, "".join(json.dumps(line) + "\n" for line in lines))
        (self._part / RECORD).unlink(missing_ok=True)  # of a build killed after it wrote the record
        self._journal = os.open(self._part / JOURNAL, os.O_WRONLY | os.O_APPEND)

    def _close_journal(self) -> None:
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def _leave(self) -> None:
        self._close_journal()
        if not self.finished and not self.done.keys() - self._visible.keys():
            shutil.rmtree(self._part, ignore_errors=True)
        self._lock.release()

    @contextmanager
    def _storing(self, path: Path) -> Iterator[None]:
        """Turn what the system says about a file that cannot be written into an error a reader can mend."""
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            raise self._storage_error(error, path) from error

    def _storage_error(self, error: OSError, path: Path) -> StorageError:
        kept = len(self.done.keys() - self._visible.keys())
        what = f"cannot be written ({os.strerror(error.errno) if error.errno else error}). " + (
            f"{kept} of {len(self._keys)} rows are kept and will be taken up again." if kept else "No row is kept."
        )
        other = "name another folder with VIPTT_CACHE"
        if not files.is_full(error):
            return StorageError(what, path=path, remedy=f"Mend this, or {other}.")
        lacking = len(self._keys) * self._row_bytes if self.shape else 0
        if self.array.exists():  # its space is ours, or comes back if it is removed
            lacking -= self.array.stat().st_blocks * 512
        if error.errno == errno.ENOSPC:  # a quota has its own count
            lacking -= shutil.disk_usage(self.folder.parent).free
        room = f"{max(ceil(lacking / 1e8), 1) / 10:g} GB"
        return StorageError(what, path=path, remedy=f"Free {room} or {other}.")


# --- What a folder of rows says it holds, by its record or its journal, and how a finished one is opened ---


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
