"""Decode once: what comes of a source is kept in one .npy file, and found again by what it was made from.

The name of the file is the hash of the source's contents and of all that decides the pixels, and a file has its name
only when it is whole. So what was decoded is used again, whether a build was killed, files were added, changed or
moved, or another set has the same ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from math import prod
from pathlib import Path

import numpy as np
from isal import isal_zlib
from xxhash import xxh3_128

from viptt_core import files
from viptt_core.clips import ClipSet, Item, digest
from viptt_core.errors import (
    ClipTooShortError,
    DataError,
    DataWarning,
    Fault,
    StorageError,
    check_choice,
    check_counts,
    raise_faults,
    warn_of,
)

HASH_LENGTH = 32  # hexadecimal digits
HEADER = 128  # bytes before the array in an .npy file of up to four axes
RESIDUE = 0x2144DF1C  # CRC-32 of any bytes that are followed by their own CRC-32
ELSEWHERE = "VIPTT_CACHE names another folder"
SETTLED = 2 * 10**9  # ns after a change; until then another change may leave a file the same times


@dataclass(frozen=True)
class Recipe:
    """What a set is made of."""

    items: Sequence[Item]  #: what to decode, in the order of the set
    #: Maps an item's source to uint8 [T, H, W]; a module-level function or `partial` of one. A source is a Path,
    #: JSON-ready parameters, or a tuple of such.
    decode: Callable[[object], np.ndarray]
    pixels: dict  #: JSON-ready; all that decides what `decode` gives for a source, the version of its code included
    settings: dict  #: JSON-ready, part of `ClipSet.source` as `pixels` is; "set" is the name of the data set
    class_names: Sequence[str]  #: names of the classes


@dataclass(frozen=True)
class Decoding:
    """How a set is decoded; nothing here changes a pixel."""

    #: "raise" for one error that lists every unreadable file, "skip" to leave them out and list them. Videos
    #: that are only too short are always left out and listed, as the authors did.
    on_error: str = "raise"
    n_jobs: int | None = None  #: Worker processes; None takes the available cores. Each holds one clip at a time.
    progress: bool = True  #: show a progress bar

    def __post_init__(self) -> None:
        check_choice("on_error", self.on_error, ("raise", "skip"))
        check_counts(n_jobs=1 if self.n_jobs is None else self.n_jobs)


def build_clip_set(recipe: Recipe, decoding: Decoding) -> ClipSet:
    """Decode what was not decoded before, and open the set: its clips are a FileArray, each checked by its checksum.

    Raises:
        DataError: files cannot be read (with `on_error="raise"`), or nothing is left.
        StorageError: a clip cannot be written, for example because the disk is full.

    Warns:
        DataWarning: what is unusual about a file read now; a kept clip is damaged.
    """
    from tqdm import tqdm

    items, shown = recipe.items, {"unit": "clip", "disable": not decoding.progress}
    if not items:
        raise DataError("no clip to decode.", remedy="Check the folder and the classes asked for.")
    retry, folder = decoding.on_error == "raise", files.cache_root() / "clips"
    decoder = _Decoder(recipe.decode, digest(recipe.pixels), folder, retry)
    outcomes = [decoder.find(item.source) for item in tqdm(items, "checking", delay=2, **shown)]
    todo = [(i, items[i].source) for i, outcome in enumerate(outcomes) if outcome is None]
    if todo:
        place = folder / digest([decoder.pixels, [str(item.source) for item in items]])
        waiting = f"{recipe.settings['set']}: another process decodes this set, waiting for it."
        turn = files.one_at_a_time(place, waiting, hint=ELSEWHERE)
        bar = tqdm(total=len(items), initial=len(items) - len(todo), desc="decoding", mininterval=1, **shown)
        with turn, bar:
            for i, outcome in files.in_workers(decoder.decode_once, todo, decoding.n_jobs):
                outcomes[i] = outcome
                bar.update()
    outcomes = [outcome.at(item) for item, outcome in zip(items, outcomes, strict=True)]
    for fault in (fault for i, _ in todo for fault in outcomes[i].faults if fault.level == "note"):
        warn_of(fault)
    return _clip_set(recipe, outcomes, skipping=not retry)


def _clip_set(recipe: Recipe, outcomes: Sequence[_Outcome], *, skipping: bool) -> ClipSet:
    """The set of what was decoded, or an error about what was refused."""
    pairs = list(zip(recipe.items, outcomes, strict=True))
    used = [(item, outcome) for item, outcome in pairs if not outcome.refusal]
    refused = {item.name: outcome.refusal for item, outcome in pairs if outcome.refusal}
    shape = used[0][1].shape if used else ()
    stopping = [fault for fault in refused.values() if fault.level == "file" and not skipping]
    stopping += [
        Fault("other shape", item.name, f"is {outcome.shape} when decoded, the others are {shape}.", level="file")
        for item, outcome in used
        if outcome.shape != shape
    ]
    others = f" The {len(used)} others are kept and not decoded again." if used else ""
    remedy = f"Mend it, or leave such files out with on_error='skip' (they are then listed).{others}"
    raise_faults(stopping, remedy=remedy)
    if not used:
        raise_faults(list(refused.values()), remedy=f"None of {len(refused)} files is left.")
    items, source = [item for item, _ in used], recipe.settings | recipe.pixels
    if any(item.file for item in items):
        rows = [[item.name, item.label, item.group, item.part, outcome.contents] for item, outcome in used]
        source = source | {"class_names": list(recipe.class_names), "items": rows}
    parts, covariates = [item.part for item in items], items[0].covariates
    left_out = [replace(fault, where=name) for name, fault in refused.items()]
    notes = [fault for outcome in outcomes for fault in outcome.faults if fault is not outcome.refusal]
    return ClipSet(
        clips=FileArray([outcome.path for _, outcome in used], (len(used), *shape)),
        labels=np.array([item.label for item in items], np.int64),
        groups=np.array([item.group for item in items]),
        names=np.array([item.name for item in items]),
        class_names=tuple(recipe.class_names),
        source=source,
        faults=(*left_out, *notes),
        parts=np.array(parts) if any(parts) else None,
        covariates={name: np.array([item.covariates[name] for item in items], np.float64) for name in covariates},
    )


# --- One source, one file ---


@dataclass(frozen=True)
class _Outcome:
    """What came of a source: the file of its clip, and what was unusual; last, why there is no clip."""

    contents: object = None
    path: str = ""
    shape: tuple[int, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def refusal(self) -> Fault | None:
        return next((fault for fault in self.faults if fault.level != "note"), None)

    def at(self, item: Item) -> _Outcome:
        """The same, each fault with its file, or else with the name of the item."""
        where = str(item.file or item.name)
        return replace(self, faults=tuple(replace(fault, where=fault.where or where) for fault in self.faults))


@dataclass(frozen=True)
class _Decoder:
    """Decodes sources into files; goes to worker processes, so that no clip travels between them."""

    decode: Callable[[object], np.ndarray]
    pixels: str
    folder: Path
    retry: bool  # what the decoder refused, it is given again

    def find(self, source: object) -> _Outcome | None:
        """What came of a source before; None if it is to be decoded, or only reading it would tell."""
        try:
            return self._kept(self._contents(source, hashing=False))
        except (OSError, LookupError):
            return None

    def decode_once(self, index: int, source: object) -> tuple[int, _Outcome]:
        """What comes of a source, now or before; an OSError is a fault of the source, as a DataError is."""
        try:
            contents = self._contents(source)
            return index, self._kept(contents) or self._decoded(source, contents)
        except StorageError:
            raise
        except OSError as error:
            what, where = f"cannot be read ({error.strerror or error}).", str(error.filename or "")
            fault = Fault("unreadable file", where, what, "See that you may read it.", "file")
            return index, _Outcome(faults=(fault,))

    def _kept(self, contents: object) -> _Outcome | None:
        path = self._path(contents)
        if (said := read_kept(path)) is None:
            return None
        outcome = _Outcome(contents, path, tuple(said["shape"]), tuple(Fault(**each) for each in said["faults"]))
        again = self.retry and outcome.refusal and outcome.refusal.level == "file"
        return None if again else outcome

    def _decoded(self, source: object, contents: object) -> _Outcome:
        refusals = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DataWarning)
            try:
                clip = self.decode(source)
                if clip.dtype != np.uint8 or clip.ndim != 3:
                    raise DataError(f"is {clip.dtype} {clip.shape} when decoded, not uint8 [T,H,W].")
            except DataError as error:
                level = "left out" if isinstance(error, ClipTooShortError) else "file"
                clip, refusals = np.empty((0, 0, 0), np.uint8), [Fault.of(error, str(error.path or ""), level)]
        faults = [each.message.args[0] for each in caught if issubclass(each.category, DataWarning)] + refusals
        if self._contents(source) != contents:
            what, remedy = "changed while it was read.", "Start again once it is complete."
            return _Outcome(faults=(Fault("changing file", "", what, remedy, "file"),))
        path = self._path(contents)
        said = [asdict(replace(fault, where="")) for fault in faults]  # other files may have these contents
        keep(path, clip, {"faults": said})
        return _Outcome(contents, path, clip.shape, tuple(faults))

    def _path(self, contents: object) -> str:
        return f"{self.folder}/{_hash_of(contents, self.pixels)}.npy"

    def _contents(self, source: object, *, hashing: bool = True) -> object:
        """What a source holds: of a file the hash of its bytes, else the source itself.

        The hash is remembered in a file of its own, named after the file's place and times.

        Raises:
            OSError: a file cannot be read.
            LookupError: a hash is not remembered, and is not to be computed.
        """
        if isinstance(source, tuple):
            return [self._contents(part, hashing=hashing) for part in source]
        if not isinstance(source, Path):
            return source
        status = source.stat()  # the inode and both times change with the contents
        state = status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
        remembered = self.folder / _hash_of(os.path.abspath(source), *state)
        with suppress(OSError, UnicodeDecodeError):
            if len(contents := remembered.read_text(encoding="ascii")) == HASH_LENGTH:
                return contents
        if not hashing:
            raise LookupError(source)
        with open(source, "rb") as file:
            contents = hashlib.file_digest(file, xxh3_128).hexdigest()
        if time.time_ns() - state[-1] > SETTLED:
            with suppress(OSError):  # of a cache that may only be read: it is hashed each time
                self.folder.mkdir(parents=True, exist_ok=True)
                remembered.write_text(contents, encoding="ascii")  # half a hash is too short to be one
        return contents


def _hash_of(*parts: object) -> str:
    return xxh3_128(ascii(parts).encode()).hexdigest()


# --- Arrays in files ---


@dataclass(frozen=True, eq=False)
class FileArray:
    """Files of `keep` as one array of uint8; none is in memory, or open between two calls.

    What is indexed is copied from its files; all else that an ndarray has takes the whole into memory.
    """

    paths: Sequence[str]  #: a file of uint8 for each row
    shape: tuple[int, ...]  #: [N, ...] of all together

    dtype = np.dtype(np.uint8)
    ndim = property(lambda self: len(self.shape))
    size = nbytes = property(lambda self: prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, index) -> np.ndarray:
        """As of an ndarray, but always a copy; only the rows asked for are read, and of each only what is asked for."""
        first, *others = index if isinstance(index, tuple) else (index,)
        if first is None or first is Ellipsis or any(isinstance(other, list | np.ndarray) for other in others):
            return np.asarray(self)[index]
        rows, others = np.arange(len(self))[first], tuple(others)
        shape = np.broadcast_to(np.uint8(0), self.shape[1:])[others].shape
        found = np.empty((rows.size, *shape), self.dtype)
        for n, row in enumerate(rows.ravel().tolist()):
            found[n] = self._row(row)[others]
        return found.reshape(rows.shape + shape)

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def _row(self, row: int) -> np.ndarray:
        try:
            return np.memmap(self.paths[row], self.dtype, "r", HEADER, self.shape[1:])
        except (OSError, ValueError) as error:
            what = f"is gone or cut off ({error})."
            raise DataError(what, path=self.paths[row], remedy="Start again: it is made anew.") from error


def keep(path: str, array: np.ndarray, said: dict | None = None) -> None:
    """Write an .npy file; behind its array what is said of it: JSON, the length of that, and the CRC-32 of all.

    Its name is seen once it is whole. It is not forced to the disk: what a power cut spoils, the CRC tells.
    """
    array = np.ascontiguousarray(array)
    text = json.dumps({"shape": array.shape} | (said or {})).encode()
    header, data = BytesIO(), array.reshape(-1).view(np.uint8)
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    parts, crc = [header.getvalue(), data, text, len(text).to_bytes(4, "little")], 0
    for part in parts:
        crc = isal_zlib.crc32(part, crc)
    with files.storing(Path(path), hint=f"what was made so far is kept, and {ELSEWHERE}"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        files.put_in_place(Path(path), [*parts, crc.to_bytes(4, "little")])


def read_kept(path: str) -> dict | None:
    """What is said of an array of `keep`, its "shape" among it; None if it is not there or, with a warning, damaged."""
    try:
        whole = memoryview(np.memmap(path, np.uint8, "r"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):  # the latter of an empty file
        whole = b""
    if isal_zlib.crc32(whole) != RESIDUE:
        warn_of(Fault("damaged file", path, "is damaged or cannot be read; it is made anew.", level="note"))
        return None
    return json.loads(bytes(whole[-8 - int.from_bytes(whole[-8:-4], "little") : -8]))
