"""ClipSet: decoded clips or volumes with labels and groups, kept on disk as a memory-mapped array.

A set is decoded once into a folder of its own, under a name that is a hash of its settings and of where the
files are. Later only what has changed is decoded again. How the folder is written: `viptt_core.rows`; how files
get there: `viptt_core.decoding`.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from viptt_core.decoding import decode_missing
from viptt_core.env import available_cores, cache_root
from viptt_core.errors import DataError, DataWarning, SettingError
from viptt_core.rows import RowFile, open_rows

CLIP_DTYPES = ("uint8", "float16")
LISTED = 20  # bad files an error message names before it only counts


@dataclass(frozen=True)
class Item:
    """One file (or synthetic scene) to decode.

    Attributes:
        name: Unique within the set; what predictions are joined on.
        label: Index into the class names.
        group: What must not straddle a split: a patient, the source video of several clips.
        source: Argument for the decoder: a path, a tuple with paths, or the parameters of a synthetic scene.
        part: "train", "validation" or "test" where the set was published with such parts, else "".
        covariates: What is known about it besides the picture, such as {"diameter_mm": 12.5}; the same
            names for each item of a set.
    """

    name: str
    label: int
    group: str
    source: object
    part: str = ""
    covariates: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ClipSet:
    """Clips of videos or slices of scans: after loading they are the same type.

    Attributes:
        clips: uint8 or float16 [N, T, H, W], grey levels 0..255 (float16: with fractions); read-only,
            memory-mapped when it comes from disk.
        labels: int64 [N], index into `class_names`.
        groups: str [N].
        names: str [N].
        class_names: K names.
        source: Settings and file fingerprints the set was made from; not where the files were.
        synthetic: Whether the clips were simulated; figures then say so.
        excluded: (name, reason) of everything that was found but left out.
        notes: What was unusual in the input and how it was handled.
        parts: str [N], "train", "validation" or "test" as the set was published; None where it was not split.
        covariates: float64 [N] each: what is known besides the pictures, by name.
    """

    clips: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    names: np.ndarray
    class_names: tuple[str, ...]
    source: dict
    synthetic: bool = False
    excluded: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    parts: np.ndarray | None = None
    covariates: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.clips)
        if self.clips.ndim != 4 or self.clips.dtype not in CLIP_DTYPES:
            raise DataError(
                f"clips are {self.clips.dtype} of shape {self.clips.shape}.",
                remedy="uint8 or float16 [N,T,H,W] is needed.",
            )
        columns = {name: getattr(self, name) for name in ("labels", "groups", "names", "parts")} | self.covariates
        for name, column in columns.items():
            if column is not None and len(column) != n:
                raise DataError(f"{n} clips but {len(column)} {name}.", remedy="One each is needed.")
        if n and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise DataError("a label lies outside the class names.", remedy=f"Use 0..{len(self.class_names) - 1}.")

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def key(self) -> str:
        """Hash that changes with the source files and settings."""
        return digest(self.source)

    def counts(self) -> dict[str, int]:
        """Number of clips of each class, in class order."""
        tally = np.bincount(self.labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, tally.tolist(), strict=True))

    def report(self) -> str:
        """A few lines for a reader: what is there, what was left out and why, what was unusual."""
        _, frames, height, width = self.clips.shape
        lines = [
            f"{len(self)} clips of {frames} x {height} x {width}, {len(set(self.groups.tolist()))} groups, "
            f"{self.clips.nbytes / 1e6:.0f} MB" + (", synthetic" if self.synthetic else ""),
            *textwrap.wrap("; ".join(f"{name}\N{NO-BREAK SPACE}{count}" for name, count in self.counts().items()), 88),
        ]
        if self.excluded:
            lines.append(f"Left out: {len(self.excluded)}")
            lines += [f"  {name}: {reason}" for name, reason in self.excluded]
        lines += [f"Note: {note}" for note in self.notes]
        return "\n".join(lines)


def digest(value: object) -> str:
    """Short stable hash of a JSON-ready value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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


def build_clip_set(
    items: Sequence[Item],
    decode: Callable[[object], np.ndarray],
    *,
    settings: dict,
    class_names: Sequence[str],
    place: Sequence = (),
    dtype: str = "uint8",
    synthetic: bool = False,
    excluded: Sequence[tuple[str, str]] = (),
    on_error: str = "raise",
    n_jobs: int | None = None,
    progress: bool = True,
) -> ClipSet:
    """Decode every item once, or open the set if it was decoded before.

    What an earlier call decoded from the same files and settings is used again, whether it finished, was
    killed or failed. Processes that ask for the same set at once wait for each other.

    Args:
        items: What to decode, in the order of the set; no two of the same name and source.
        decode: Maps an item's source to `dtype` [T, H, W]; a module-level function or `partial` of one.
        settings: JSON-ready, part of `ClipSet.source`; "set" is the name of the data set. Must hold all
            that decides what `decode` gives for a source.
        class_names: Names of the classes.
        place: JSON-ready: where the files are and which of them were asked for. It names the folder,
            together with the settings, but is no part of `ClipSet.source`.
        dtype: Of the clips, "uint8" or "float16".
        synthetic: Recorded with the set.
        excluded: (name, reason) of what the caller left out already.
        on_error: "raise": one error that lists every unreadable file; "skip": leave them out and list
            them. Videos that are only too short are always left out and listed, as the authors did.
        n_jobs: Worker processes; None takes the available cores. Each holds one clip at a time.
        progress: Show a progress bar.

    Returns:
        The set, its clips memory-mapped read-only and each checked against its checksum.

    Raises:
        DataError: files cannot be read (with `on_error="raise"`), or nothing is left.
        SettingError: `on_error` or `dtype` is unknown.
        StorageError: the set cannot be written, for example because the disk is full.

    Warns:
        DataWarning: files changed since the set was decoded, the set on disk is damaged, or the notes of
            a set decoded now.
    """
    if on_error not in ("raise", "skip"):
        raise SettingError(f"on_error is '{on_error}'.", remedy="Give 'raise' or 'skip'.")
    if dtype not in CLIP_DTYPES:
        raise SettingError(f"dtype is '{dtype}'.", remedy="Give 'uint8' or 'float16'.")
    if not items:
        raise DataError("no clip to decode.", remedy="Check the folder and the classes asked for.")
    settings = settings | {"dtype": dtype}
    prints = [fingerprint(item.source) for item in items]
    keys = [digest([item.name, made_from]) for item, made_from in zip(items, prints, strict=True)]
    source = settings
    if any(_has_path(item.source) for item in items):
        listed = [[i.name, i.label, i.group, i.part, made_from] for i, made_from in zip(items, prints, strict=True)]
        source = settings | {"on_error": on_error, "excluded": list(excluded), "items": listed}
    described = {
        "class_names": list(class_names),
        "source": source,
        "synthetic": synthetic,
        "listed": digest(
            [[keys, on_error, list(excluded)], [[i.name, i.label, i.group, i.part, i.covariates] for i in items]]
        ),
    }
    folder = cache_root() / f"clips-{settings['set']}-{digest([settings, place])}"
    damage = None
    if _is_described(folder, described):
        try:
            return open_clip_set(folder, progress=progress)
        except DataError as error:
            damage = error
    rows = RowFile(
        folder,
        keys,
        dtype=dtype,
        waiting=lambda: print(f"{folder.name}: another process decodes this set, waiting for it.", flush=True),
        retry=lambda note: bool(note.get("broken")) and on_error == "raise",
    )
    with rows:
        if damage is not None or not rows.finished:
            _warn_of_changes(rows, items, keys, damage)
        broken = decode_missing(
            rows,
            [item.source for item in items],
            decode,
            on_error=on_error,
            n_jobs=available_cores() if n_jobs is None else n_jobs,
            progress=progress,
        )
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
        clip_set = open_clip_set(folder, progress=progress)
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
