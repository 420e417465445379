"""ClipSet: decoded clips or volumes with labels and groups, kept on disk as a memory-mapped array.

A set is decoded once into a folder of its own, `clips.u8` (raw uint8, C order) beside `clipset.json`,
under a name that is a hash of its source files and settings. The folder is written under a temporary
name and renamed, so that what is visible is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from viptt_core.env import available_cores, cache_root
from viptt_core.errors import ClipTooShortError, DataError, DataWarning, SettingError

FORMAT = 1  # of the folder; a new number makes older folders be built again
LISTED = 20  # bad files an error message names before it only counts


@dataclass(frozen=True)
class Item:
    """One file (or synthetic scene) to decode.

    Attributes:
        name: Unique within the set; what predictions are joined on.
        label: Index into the class names.
        group: What must not straddle a split: a patient, the source video of several clips.
        source: Argument for the decoder: a path, or the parameters of a synthetic scene.
    """

    name: str
    label: int
    group: str
    source: object


@dataclass(frozen=True)
class ClipSet:
    """Clips of videos or slices of scans: after loading they are the same type.

    Attributes:
        clips: uint8 [N, T, H, W], grey levels 0..255; read-only, memory-mapped when it comes from disk.
        labels: int64 [N], index into `class_names`.
        groups: str [N].
        names: str [N].
        class_names: K names.
        source: Settings and file fingerprints the set was made from.
        synthetic: Whether the clips were simulated; figures then say so.
        excluded: (name, reason) of everything that was found but left out.
        notes: What was unusual in the input and how it was handled.
    """

    clips: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    names: np.ndarray
    class_names: tuple[str, ...]
    source: dict
    synthetic: bool = False
    excluded: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        n = len(self.clips)
        if self.clips.ndim != 4 or self.clips.dtype != np.uint8:
            raise DataError(
                f"clips are {self.clips.dtype} of shape {self.clips.shape}.", remedy="uint8 [N,T,H,W] is needed."
            )
        for part in ("labels", "groups", "names"):
            if len(getattr(self, part)) != n:
                raise DataError(f"{n} clips but {len(getattr(self, part))} {part}.", remedy="One each is needed.")
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


def fingerprint(path: Path) -> list:
    """Size in bytes and modification time in ns: what makes a cached set of this file stale."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def build_clip_set(
    items: Sequence[Item],
    decode: Callable[[object], np.ndarray],
    *,
    class_names: Sequence[str],
    source: dict,
    synthetic: bool = False,
    excluded: Sequence[tuple[str, str]] = (),
    on_error: str = "raise",
    n_jobs: int | None = None,
    progress: bool = True,
) -> ClipSet:
    """Decode every item once, or open the set if it was decoded before.

    Args:
        items: What to decode, in the order of the set.
        decode: Maps an item's source to uint8 [T, H, W]; a module-level function or `partial` of one.
        class_names: Names of the classes.
        source: JSON-ready settings and file fingerprints; their hash names the folder.
        synthetic: Recorded with the set.
        excluded: (name, reason) of what the caller left out already.
        on_error: "raise": one error that lists every unreadable file; "skip": leave them out and list
            them. Videos that are only too short are always left out and listed, as the authors did.
        n_jobs: Worker processes; None takes the available cores.
        progress: Show a progress bar.

    Returns:
        The set, its clips memory-mapped read-only.

    Raises:
        DataError: files cannot be read (with `on_error="raise"`), or nothing is left.
    """
    folder = cache_root() / f"clips-{digest(source)}"
    if (folder / "clipset.json").is_file():
        return open_clip_set(folder)
    if on_error not in ("raise", "skip"):
        raise SettingError(f"on_error is '{on_error}'.", remedy="Give 'raise' or 'skip'.")
    if not items:
        raise DataError("no clip to decode.", remedy="Check the folder and the classes asked for.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _decode_into(unfinished, items, decode, class_names, source, synthetic, list(excluded), on_error,
                     available_cores() if n_jobs is None else n_jobs, progress)  # fmt: skip
        try:
            os.rename(unfinished, folder)
        except OSError:
            # Another process finished the same set first: its copy is as good as ours.
            if not (folder / "clipset.json").is_file():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    clip_set = open_clip_set(folder)
    for note in clip_set.notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    return clip_set


def open_clip_set(folder: Path) -> ClipSet:
    """Open a decoded set.

    Raises:
        DataError: the folder is incomplete or of another format.
    """
    remedy = "Delete this folder: it is built again when needed."
    try:
        meta = json.loads((folder / "clipset.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"not a clip set ({error}).", path=folder, remedy=remedy) from error
    if meta.get("format") != FORMAT:
        raise DataError(f"is of format {meta.get('format')}, not {FORMAT}.", path=folder, remedy=remedy)
    shape, array = tuple(meta["shape"]), folder / "clips.u8"
    size = array.stat().st_size if array.is_file() else 0
    if size != np.prod(shape):
        raise DataError(f"holds {size} bytes, {np.prod(shape)} expected.", path=array, remedy=remedy)
    return ClipSet(
        clips=np.memmap(array, dtype=np.uint8, mode="r", shape=shape),
        labels=np.array(meta["labels"], dtype=np.int64),
        groups=np.array(meta["groups"]),
        names=np.array(meta["names"]),
        class_names=tuple(meta["class_names"]),
        source=meta["source"],
        synthetic=meta["synthetic"],
        excluded=tuple((name, reason) for name, reason in meta["excluded"]),
        notes=tuple(meta["notes"]),
    )


def _decode_into(folder, items, decode, class_names, source, synthetic, excluded, on_error, n_jobs, progress):
    """Decode all items into `folder`, in order, one at a time in memory."""
    kept: list[Item] = []
    broken: list[tuple[Item, DataError]] = []
    notes: list[str] = []
    shape: tuple[int, ...] = ()
    with open(folder / "clips.u8", "wb") as file:
        for item, (clip, error, item_notes) in zip(
            items, _decode_all(items, decode, n_jobs, progress), strict=True
        ):
            notes += item_notes
            if error is None:
                file.write(np.ascontiguousarray(clip, dtype=np.uint8).data)
                shape = clip.shape
                kept.append(item)
            elif isinstance(error, ClipTooShortError) or on_error == "skip":
                excluded.append((item.name, error.what))
            else:
                broken.append((item, error))
    if broken:
        raise DataError(
            f"{len(broken)} of {len(items)} files cannot be used:\n"
            + "\n".join(f"  {error}" for _, error in broken[:LISTED])
            + (f"\n  ... and {len(broken) - LISTED} more" if len(broken) > LISTED else "")
            + "\n",
            remedy="Mend them, or leave them out with on_error='skip' (they are then listed).",
        )
    if not kept:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in excluded[:LISTED])
        raise DataError(f"none of the {len(items)} files is left:\n{reasons}\n", remedy="Ask for fewer frames.")
    meta = {
        "format": FORMAT, "shape": [len(kept), *shape], "labels": [int(item.label) for item in kept],
        "groups": [item.group for item in kept], "names": [item.name for item in kept],
        "class_names": list(class_names), "source": source, "synthetic": synthetic,
        "excluded": excluded, "notes": notes,
    }  # fmt: skip
    (folder / "clipset.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _decode_all(items, decode, n_jobs, progress):
    """Yield (clip, error, notes) for each item, in order, decoded by worker processes."""
    from tqdm import tqdm

    n_jobs = min(n_jobs, len(items))
    if n_jobs == 1:
        results = (_decode_one(decode, item.source) for item in items)
    else:
        from joblib import Parallel, delayed

        results = Parallel(n_jobs=n_jobs, return_as="generator", pre_dispatch="3*n_jobs")(
            delayed(_decode_one)(decode, item.source) for item in items
        )
    yield from tqdm(results, total=len(items), desc="decoding", unit="clip", disable=not progress, mininterval=1)
    if n_jobs > 1:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown()  # idle workers would keep their memory during training


def _decode_one(decode, source) -> tuple[np.ndarray | None, DataError | None, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        try:
            clip, error = decode(source), None
        except DataError as broken:
            clip, error = None, broken
    return clip, error, [str(w.message) for w in caught if issubclass(w.category, DataWarning)]
