"""ClipSet: decoded clips or volumes with labels and groups, kept on disk as a memory-mapped array.

A set is decoded once into a folder of its own, under a name that is a hash of its settings and of where the
files are. Later only what has changed is decoded again. How the folder is written: `viptt_core.rows`; how files
get there: `viptt_core.store`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from viptt_core.clips import ClipSet, Item, digest
from viptt_core.errors import LISTED, ClipTooShortError, DataError, DataWarning, check_choice
from viptt_core.files import available_cores, cache_root
from viptt_core.rows import RowFile, open_rows, write_row

ON_ERROR = ("raise", "skip")


@dataclass(frozen=True)
class Recipe:
    """What a set is made of.

    Attributes:
        items: What to decode, in the order of the set; no two of the same name and source.
        decode: Maps an item's source to uint8 [T, H, W]; a module-level function or `partial` of one.
        settings: JSON-ready, part of `ClipSet.source`; "set" is the name of the data set. Must hold all
            that decides what `decode` gives for a source.
        class_names: Names of the classes.
        place: JSON-ready: where the files are and which of them were asked for. It names the folder,
            together with the settings, but is no part of `ClipSet.source`.
        synthetic: Recorded with the set.
        excluded: (name, reason) of what the caller left out already.
    """

    items: Sequence[Item]
    decode: Callable[[object], np.ndarray]
    settings: dict
    class_names: Sequence[str]
    place: Sequence = ()
    synthetic: bool = False
    excluded: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Decoding:
    """How a set is decoded; nothing here changes a pixel.

    Attributes:
        on_error: "raise": one error that lists every unreadable file; "skip": leave them out and list
            them. Videos that are only too short are always left out and listed, as the authors did.
        n_jobs: Worker processes; None takes the available cores. Each holds one clip at a time.
        progress: Show a progress bar.

    Raises:
        SettingError: `on_error` is unknown.
    """

    on_error: str = "raise"
    n_jobs: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        check_choice("on_error", self.on_error, ON_ERROR)


def fingerprint(source: object) -> object:
    """What makes a decoded clip stale: of files their size in bytes and modification time in ns, else the source."""
    if isinstance(source, Path):
        status = source.stat()
        return [status.st_size, status.st_mtime_ns]
    if isinstance(source, tuple):
        return [fingerprint(part) for part in source]
    return source


def _has_path(source: object) -> bool:
    return isinstance(source, Path) or (isinstance(source, tuple) and any(map(_has_path, source)))


def build_clip_set(recipe: Recipe, decoding: Decoding) -> ClipSet:
    """Decode every item once, or open the set if it was decoded before.

    What an earlier call decoded from the same files and settings is used again, whether it finished, was
    killed or failed. Processes that ask for the same set at once wait for each other.

    Returns:
        The set, its clips memory-mapped read-only and each checked against its checksum.

    Raises:
        DataError: files cannot be read (with `on_error="raise"`), or nothing is left.
        StorageError: the set cannot be written, for example because the disk is full.

    Warns:
        DataWarning: files changed since the set was decoded, the set on disk is damaged, or the notes of
            a set decoded now.
    """
    items, excluded, settings = recipe.items, recipe.excluded, recipe.settings
    if not items:
        raise DataError("no clip to decode.", remedy="Check the folder and the classes asked for.")
    prints = [fingerprint(item.source) for item in items]
    keys = [digest([item.name, made_from]) for item, made_from in zip(items, prints, strict=True)]
    source = settings
    if any(_has_path(item.source) for item in items):
        listed = [[i.name, i.label, i.group, i.part, made_from] for i, made_from in zip(items, prints, strict=True)]
        source = settings | {"on_error": decoding.on_error, "excluded": list(excluded), "items": listed}
    described = {
        "class_names": list(recipe.class_names),
        "source": source,
        "synthetic": recipe.synthetic,
        "listed": digest(
            [
                [keys, decoding.on_error, list(excluded)],
                [[i.name, i.label, i.group, i.part, i.covariates] for i in items],
            ]
        ),
    }
    folder = cache_root() / f"clips-{settings['set']}-{digest([settings, recipe.place])}"
    damage = None
    if _is_described(folder, described):
        try:
            return open_clip_set(folder, progress=decoding.progress)
        except DataError as error:
            damage = error
    rows = RowFile(
        folder,
        keys,
        dtype=np.uint8,
        waiting=lambda: print(f"{folder.name}: another process decodes this set, waiting for it.", flush=True),
        retry=lambda note: bool(note.get("broken")) and decoding.on_error == "raise",
    )
    with rows:
        if damage is not None or not rows.finished:
            _warn_of_changes(rows, items, keys, damage)
        broken = decode_missing(rows, recipe, decoding)
        if broken:
            raise _broken_files([broken[i] for i in sorted(broken)], n_items=len(items), n_kept=len(rows.done))
        left = [(items[i].name, rows.left[i]["reason"]) for i in sorted(rows.left)]
        if not rows.done:
            reasons = "\n".join(f"  {name}: {reason}" for name, reason in left[:LISTED])
            raise DataError(f"none of the {len(items)} files is left:\n{reasons}\n", remedy="Ask for fewer frames.")
        kept = [items[i] for i in sorted(rows.done)]
        notes = {i: row.note for i, row in rows.done.items()} | rows.left
        if not (rows.finished and damage is None and _is_described(folder, described)):
            rows.finish(
                described
                | {
                    "labels": [int(item.label) for item in kept],
                    "groups": [item.group for item in kept],
                    "names": [item.name for item in kept],
                    "items": [item.name for item in items],
                    "parts": [item.part for item in kept] if any(item.part for item in kept) else None,
                    "covariates": {name: [item.covariates[name] for item in kept] for name in kept[0].covariates},
                    "excluded": [*excluded, *left],
                    "notes": [note for i in sorted(notes) for note in notes[i]["notes"]],
                }
            )
        # Before another process may change it. The check also finds a row that a worker of a killed
        # process wrote after it.
        clip_set = open_clip_set(folder, progress=decoding.progress)
    for note in clip_set.notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    return clip_set


def open_clip_set(folder: Path, *, progress: bool = False) -> ClipSet:
    """Open a decoded set and check it.

    Args:
        folder: The folder of the set.
        progress: Show a progress bar if the set is large.

    Raises:
        DataError: the folder is incomplete, damaged or of another format.
    """
    clips, record = open_rows(folder, progress=progress)
    try:
        meta = record["meta"]
        return ClipSet(
            clips=clips,
            labels=np.array(meta["labels"], dtype=np.int64),
            groups=np.array(meta["groups"]),
            names=np.array(meta["names"]),
            class_names=tuple(meta["class_names"]),
            source=meta["source"],
            synthetic=meta["synthetic"],
            excluded=tuple((name, reason) for name, reason in meta["excluded"]),
            notes=tuple(meta["notes"]),
            parts=None if meta["parts"] is None else np.array(meta["parts"]),
            covariates={name: np.array(column, dtype=np.float64) for name, column in meta["covariates"].items()},
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"not a clip set ({error!r}).", path=folder, remedy="Delete this folder: it is built again when needed."
        ) from error


def _is_described(folder: Path, described: dict) -> bool:
    """Whether the visible set was made from exactly this (or cannot tell because it is damaged)."""
    if not folder.exists():
        return False
    try:
        meta = open_rows(folder, verify=False)[1]["meta"]
        return digest({key: meta[key] for key in described}) == digest(described)
    except (DataError, KeyError, TypeError):
        return True


def _warn_of_changes(rows: RowFile, items: Sequence[Item], keys: Sequence[str], damage: DataError | None) -> None:
    """Say why a set that was there is not simply opened."""
    again = len(items) - len(rows.done) - len(rows.left)
    if damage is not None or rows.damaged:
        what = damage.what if damage is not None else f"{rows.damaged} rows are damaged: their checksums differ."
        warnings.warn(f"{rows.folder}: {what} Decoded again: {again} of {len(items)} files.", DataWarning, stacklevel=3)
    if rows.older is None or "items" not in rows.older.get("meta", {}):
        return
    before = dict(zip(rows.older["meta"]["items"], rows.older["keys"], strict=True))
    now = dict(zip((item.name for item in items), keys, strict=True))
    changed = sum(before.get(name, key) != key for name, key in now.items())
    new, gone = len(now.keys() - before.keys()), len(before.keys() - now.keys())
    if changed or new or gone:
        warnings.warn(
            f"{rows.folder.name}: {changed} of {len(items)} files changed, {new} new, {gone} gone since the set was "
            f"decoded. Decoded again: {again}.",
            DataWarning,
            stacklevel=3,
        )


def _broken_files(broken: list[DataError], *, n_items: int, n_kept: int) -> DataError:
    return DataError(
        f"{len(broken)} of {n_items} files cannot be used:\n"
        + "\n".join(f"  {error}" for error in broken[:LISTED])
        + (f"\n  ... and {len(broken) - LISTED} more" if len(broken) > LISTED else "")
        + "\n",
        remedy="Mend them, or leave them out with on_error='skip' (they are then listed)."
        + (f" The {n_kept} others are kept and not decoded again." if n_kept else ""),
    )


# --- Sources decoded into the rows of an array file, by worker processes, with what went wrong with each ---


def decode_missing(rows: RowFile, recipe: Recipe, decoding: Decoding) -> dict[int, DataError]:
    """Decode what has no row yet, by worker processes.

    A row gets the note "notes": the DataWarnings of its decoder. A row left out because its file is broken
    has "broken" in its note too.

    Args:
        rows: To be filled, open.
        recipe: Its items are decoded, one a row.
        decoding: How.

    Returns:
        index -> error of what cannot be used and was not left out.
    """
    from tqdm import tqdm

    sources = [item.source for item in recipe.items]
    todo = [i for i in range(len(sources)) if i not in rows.done and i not in rows.left]
    if not todo:
        return {}
    n_jobs = available_cores() if decoding.n_jobs is None else decoding.n_jobs
    decoder = _Decoder(recipe.decode, rows.array)
    broken: dict[int, DataError] = {}
    with tqdm(
        total=len(sources),
        initial=len(sources) - len(todo),
        desc="decoding",
        unit="clip",
        disable=not decoding.progress,
        mininterval=1,
    ) as bar:
        for outcome in _outcomes(rows, decoder, [(i, sources[i]) for i in todo], n_jobs):
            index, error, notes = outcome.index, outcome.error, {"notes": outcome.notes}
            if error is None:
                rows.record(index, outcome.crc, notes)
            elif isinstance(error, ClipTooShortError):
                rows.leave_out(index, error.what, notes)
            elif decoding.on_error == "skip":
                rows.leave_out(index, error.what, notes | {"broken": True})
            else:
                broken[index] = error
            bar.update()
    return broken


@dataclass(frozen=True)
class _Decoder:
    """What a worker process needs beside the item: how to decode, and where the clip goes."""

    decode: Callable[[object], np.ndarray]
    array: Path

    def row(self, index: int, source: object, shape: tuple[int, ...]) -> _Outcome:
        """Decode a clip and write it to its place, so that no clip travels between processes."""
        clip, error, notes = self.clip(source, shape)
        return _Outcome(index, None if clip is None else write_row(self.array, index, clip), error, notes)

    def clip(self, source: object, shape: tuple[int, ...] | None):
        """Decode a clip; returns it (or None), the error (or None), and the warnings about it."""
        clip, error = None, None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DataWarning)
            try:
                clip = self.decode(source)
                if clip.dtype != np.uint8 or shape not in (None, clip.shape):
                    what = f"is {clip.dtype} {clip.shape} when decoded, not uint8 {shape or ''}".strip()
                    raise DataError(
                        f"{what}.",
                        path=source if isinstance(source, Path) else None,
                        remedy="All clips of a set are alike.",
                    )
            except DataError as broken:
                clip, error = None, broken
        return clip, error, [str(w.message) for w in caught if issubclass(w.category, DataWarning)]


@dataclass(frozen=True)
class _Outcome:
    """What came of an item: the CRC of the row that is now written, or an error; and notes."""

    index: int
    crc: int | None
    error: DataError | None
    notes: list[str]


def _outcomes(rows: RowFile, decoder: _Decoder, todo: list[tuple[int, object]], n_jobs: int) -> Iterator[_Outcome]:
    """Decode and write, by worker processes; outcomes come as they are ready."""
    todo = list(todo)
    if rows.shape is not None:
        rows.allocate(rows.shape)
    while rows.shape is None and todo:  # the first clip tells the shape
        index, source = todo.pop(0)
        clip, error, notes = decoder.clip(source, None)
        if clip is not None:
            rows.allocate(clip.shape)
        yield _Outcome(index, None if clip is None else write_row(rows.array, index, clip), error, notes)
    clip = None  # its memory is wanted
    if min(n_jobs, len(todo)) <= 1:
        yield from (decoder.row(index, source, rows.shape) for index, source in todo)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    try:
        yield from Parallel(n_jobs=min(n_jobs, len(todo)), return_as="generator_unordered", pre_dispatch="3*n_jobs")(
            delayed(decoder.row)(index, source, rows.shape) for index, source in todo
        )
    except BaseException:
        # None may write any more once this process gives the lock back.
        get_reusable_executor(kill_workers=True).shutdown()
        raise
    get_reusable_executor().shutdown()  # idle workers would keep their memory during training
