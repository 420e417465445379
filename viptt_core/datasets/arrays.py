"""Volumes in one .npz file, most of them in the layout of MedMNIST's 3-D sets: images and labels of three parts.

PART is train, val or test: `PART_images` uint8 [N,A,B,C], `PART_labels` [N,1], perhaps `PART_patient`, `PART_name`
(text or whole numbers [N]) and further numbers. No such file says which of A, B and C runs from slice to slice.
"""

from __future__ import annotations

import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from viptt_core import ct, files
from viptt_core.clips import Grid, Item
from viptt_core.datasets.listing import Listing, class_choice
from viptt_core.datasets.scans import to_grey_levels
from viptt_core.datasets.spelling import NO_GROUP, is_missing, one_spelling
from viptt_core.errors import DataError, Fault, SettingError, check_choice, listed, warn_of
from viptt_core.sources.registry import medmnist_sets

PARTS = {"train": "train", "val": "validation", "test": "test"}  # MedMNIST's names and ours
MOST_BYTES = {"images": 2**31, "values": 2**26}  # that an array of one part may unpack to
SAMPLED = 200  # volumes that are looked at to find the slices
LEAST_PADDING = 0.05  # mean share of the planes along an axis that must be empty
_TEXT = ("patient", "name")
_AS_TEXT = "Save text as text: column.astype(str)."
_AGAIN = "Get the file again; how: viptt data list."


class Volume(NamedTuple):
    """Volume `index` of an array of a file with this MD5; empty planes at the ends of its slices go if `padded`."""

    path: Path
    array: str
    index: int
    digest: str
    slice_axis: int
    padded: bool
    centre: int = 0  #: pixels a side of the middle of each slice that are kept; 0 keeps all


def list_medmnist3d(
    root: str | Path,
    *,
    subset: str = "",
    pixels: int | None = None,
    classes: str | Sequence[str] | None = None,
    slice_axis: int | str | None = None,
) -> Listing:
    """Volumes of a MedMNIST 3-D set, or of any file in its layout, to be resampled linearly to the grid.

    Parts (`ClipSet.parts`) are the published ones, columns of numbers covariates. The group is the patient where the
    file names them, else each volume its own.

    Args:
        root: The .npz file, or the folder it lies in.
        subset: Which file of the folder, such as "nodulemnist3d"; "" takes the only one.
        pixels: Edge length of the published volumes in a folder, 28 (also where None is given) or 64.
        classes: Names in label order; None takes MedMNIST's for its own files, else "class 0", "class 1", ...
        slice_axis: Which axis of a volume runs from slice to slice: 0, 1 or 2. None finds out, see `find_slice_axis`;
            where that is not clear, it is the first of files that MedMNIST published, and others are refused.

    Raises:
        DataError: no such file.
        SettingError: no such axis; a file, and which of a folder.
    """
    if slice_axis is not None:
        check_choice("slice_axis", str(slice_axis), ("0", "1", "2"))
        slice_axis = int(slice_axis)
    path = find_file(root, subset, pixels)
    try:
        columns, volumes, faults = _read_columns(path)
    except DataError as error:
        columns, volumes, faults = {}, None, [Fault.of(error, ".")]
    if volumes is None:
        return Listing("medmnist3d", path, "array", (), (), tuple(faults))
    published, digest = _published(path), files.file_digest(path, "md5")
    if published and published["md5"] != digest:
        what, remedy = f"has the MD5 {digest}, published is {published['md5']}.", "give it another name."
        faults.append(Fault("checksum differs", ".", what, f"{_AGAIN} If it is a file of your own, {remedy}"))
    found, padded = find_slice_axis(volumes)
    axis = next((choice for choice in (slice_axis, found, 0 if published else None) if choice is not None), None)
    if axis is not None and found not in (None, axis):
        what = f"slice_axis is {axis}, and by its volumes axis {found} runs from slice to slice."
        faults.append(Fault("another slice axis", ".", what, "Leave slice_axis out, unless you know better.", "note"))
    if axis is None:
        what = f"does not show which axis of its volumes {list(volumes.shape[1:])} runs from slice to slice."
        faults.append(Fault("slice axis unknown", ".", what, "Say it: slice_axis=0 (the first), 1 or 2 (the last)."))
    if padded := padded and axis == found:
        what = f"the ends of axis {axis} are padded with empty planes; these are left out: their number tells of size."
        faults.append(Fault("padding", ".", what, level="note"))
    spelling, notes = one_spelling(columns.get("patient", ()), (), ".", "patient")
    numbers = [name for name in columns if name not in ("images", "labels", *_TEXT)]
    names = class_choice(classes) or (published["classes"] if published else ())
    names = names or tuple(f"class {k}" for k in range(len(set(columns["labels"]))))
    items = []
    for n, (part, i) in enumerate(columns["images"]):
        name = columns["name"][n] if "name" in columns else f"{part}_{i:04d}"
        group = spelling[columns["patient"][n]] if "patient" in columns else name
        source = Volume(path, f"{part}_images", i, digest, axis or 0, padded)
        covariates = {name: float(columns[name][n]) for name in numbers}
        items.append(Item(name, columns["labels"][n], group, source, PARTS[part], covariates))
    faults += [*notes, *item_faults(items, names)]
    items = [item for item in items if 0 <= item.label < len(names)]
    settings = {"file": digest, "classes": list(names), "slice_axis": axis, "padding": "left out" if padded else "kept"}
    return Listing("medmnist3d", path, "array", tuple(items), names, tuple(faults), settings=settings)


def item_faults(items: Sequence[Item], names: Sequence[str]) -> Iterator[Fault]:
    """Labels without a class, classes without a label, names that are blank or occur twice, blank patients."""
    first = {item.label: item.name for item in reversed(items)}
    for label in sorted(first.keys() - {*range(len(names))}):
        known = f"Known: 0 to {len(names) - 1} ({listed(names)})."
        yield Fault("unknown label", first[label], f"has the label {label}.", known)
    for label in sorted({*range(len(names))} - first.keys()):
        what = f"no volume has the label {label} ({names[label]})."
        remedy = "Number the classes from 0 without a gap, and name no others."
        yield Fault("class without volumes", ".", what, remedy)
    for name, count in Counter(item.name for item in items).items():
        if count > 1:
            yield Fault("two volumes of one name", name, f"is the name of {count} volumes.", "Give each its own.")
    if blank := [item.name for item in items if is_missing(item.group, NO_GROUP)]:
        what = f"{len(blank)} volumes have no patient or name."
        yield Fault("no patient", blank[0] or ".", what, "Fill them in, or leave the column out.")


def find_slice_axis(volumes: np.ndarray) -> tuple[int | None, bool]:
    """Which axis of uint8 [N,A,B,C] runs from slice to slice, and whether its ends are padded; None if not clear.

    It is clear where one axis has empty planes at its ends and the others next to none (in shapes of one grey level
    nothing is padding), and where slices are square and of another number. The two must not contradict each other.
    """
    lengths = volumes.shape[1:]
    single = [axis for axis in range(3) if lengths.count(lengths[axis]) == 1]
    by_length = single[0] if len(single) == 1 else None
    volumes = volumes[volumes.any(axis=(1, 2, 3))]
    if not ((volumes > 0) & (volumes < volumes.max(initial=0))).any():
        return by_length, False
    filled = [volumes.any(axis=tuple({1, 2, 3} - {axis})) for axis in (1, 2, 3)]  # bool [N, planes] each
    empty = [np.mean([1 - planes[_inner(planes)].size / planes.size for planes in of_axis]) for of_axis in filled]
    second, most = sorted(empty)[1:]
    if most < LEAST_PADDING or second > most / 4:
        return by_length, False
    padded = empty.index(most)
    return (padded, True) if by_length in (None, padded) else (None, False)


def _inner(filled: np.ndarray) -> slice:
    """From the first to the last plane that is not empty, of which there is one; bool [P]."""
    there = np.flatnonzero(filled)
    return slice(there[0], there[-1] + 1)


def decode_volume(source: Volume, grid: Grid) -> np.ndarray:
    """A volume on the grid, uint8 [T,H,W]."""
    volume = np.moveaxis(read_images(source.path, source.array, source.digest)[source.index], source.slice_axis, 0)
    if volume.min() == volume.max():
        what = f"{source.array} {source.index}: every voxel is the same."
        warn_of(Fault("one grey level", str(source.path), what, level="note"))
    if source.padded and volume.any():
        volume = volume[_inner(volume.any(axis=(1, 2)))]
    if source.centre:
        top, left = ((side - source.centre) // 2 for side in volume.shape[1:])
        volume = volume[:, top : top + source.centre, left : left + source.centre]
    # The resampling of scans also turns them; here slices, rows and columns stay what they are.
    turned_back = volume.transpose(2, 1, 0)[:, ::-1]
    return to_grey_levels(ct.resample_volume(turned_back, depth=grid.frames, size=grid.size) / 255)


def image_arrays(path: Path) -> tuple[str, ...]:
    """Names of a file's arrays of volumes: "volumes", or one for each of MedMNIST's parts."""
    with opened(path) as archive:
        return ("volumes",) if "volumes.npy" in archive.namelist() else tuple(f"{part}_images" for part in PARTS)


def read_images(path: Path, array: str, digest: str) -> np.ndarray:
    """All volumes of one of the `image_arrays` of the file with this MD5, uint8 [N,A,B,C].

    Raises:
        DataError: the file is damaged, or claims a size that is not there.
    """
    images = _images(path, array, digest)
    if isinstance(images, DataError):
        raise images
    return images


@lru_cache(maxsize=len(PARTS))
def _images(path: Path, array: str, digest: str) -> np.ndarray | DataError:
    """The volumes, or why there are none, kept in memory for the next call."""
    try:
        with opened(path) as archive:
            array_head(archive, array)
            return read_array(archive, array)
    except DataError as error:
        return error


# --- The file: every array is measured before memory is taken for it ---


class _Head(NamedTuple):
    """What an array says of itself."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype

    @property
    def one_each(self) -> bool:
        """Whether it is [N] or [N,1]."""
        return len(self.shape) > 0 and self.shape[1:] in ((), (1,))


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever goes wrong with it is raised as a DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen types where bytes are damaged
        kind, what, remedy = "damaged file", f"cannot be read as an .npz file ({error}).", _AGAIN
        if isinstance(error, OSError) and error.strerror:
            kind, what, remedy = "unreadable file", f"cannot be read ({error.strerror}).", "See that you may read it."
        elif not path.stat().st_size:
            kind = "empty file"
        raise DataError(what, path=path, remedy=remedy, kind=kind) from error


def array_head(archive: zipfile.ZipFile, name: str) -> _Head:
    """What an array says of itself; refused if it claims bytes that are not there, or too many."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        major, minor = np.lib.format.read_magic(member)
        head = _Head(*getattr(np.lib.format, f"read_array_header_{major}_{minor}")(member))
        there = info.file_size - member.tell()
    claimed = prod(head.shape) * head.dtype.itemsize
    kind = "images" if name.endswith(("_images", "volumes")) else "values" if head.one_each else "not read"
    if head.dtype.hasobject:
        what = f"{name} is a pickle, which may hold a program."
        raise DataError(what, path=archive.filename, remedy=_AS_TEXT, kind="column of objects")
    if claimed != there:
        what = f"{name} claims {claimed} bytes, and holds {there}."
        raise DataError(what, path=archive.filename, remedy=_AGAIN, kind="damaged file")
    if claimed > (most := MOST_BYTES.get(kind, claimed)):
        what, remedy = f"{name} would take {claimed} bytes; {most} are the most.", "Write its volumes as NIfTI files."
        raise DataError(what, path=archive.filename, remedy=remedy, kind="too large")
    return head


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _read_columns(path: Path) -> tuple[dict[str, list], np.ndarray | None, list[Fault]]:
    """Part and index of each volume ("images"), its label, text and finite numbers; some volumes; faults."""
    with opened(path) as archive:
        stored = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        heads = {
            name: array_head(archive, name) for name in stored if name.startswith(tuple(f"{part}_" for part in PARTS))
        }
        if faults := list(_layout_faults(heads)):
            return {}, None, faults
        columns = {"images": [(part, i) for part in PARTS for i in range(heads[f"{part}_images"].shape[0])]}
        unread = []
        for column in dict.fromkeys(name.partition("_")[2] for name in heads):
            names = [f"{part}_{column}" for part in PARTS]
            if all(name in heads and heads[name].one_each for name in names):
                values = [read_array(archive, name).reshape(-1) for name in names]
                if column in _TEXT:
                    columns[column] = [text for part in values for text in _text(part).tolist()]
                elif all(part.dtype.kind in "iuf" and np.isfinite(part).all() for part in values):
                    columns[column] = [value for part in values for value in part.tolist()]
            if column not in columns:
                unread.append(column)
        if unread:
            what = f"{listed(unread)}: not read, since not one finite number a volume in every part."
            faults.append(Fault("columns not read", ".", what, level="note"))
        images = read_array(archive, max((f"{part}_images" for part in PARTS), key=lambda name: heads[name].shape[0]))
        return columns, images[: min(SAMPLED, 1 + MOST_BYTES["values"] // prod(images.shape[1:]))], faults


def _text(values: np.ndarray) -> np.ndarray:
    """Text [N] of text or numbers; NumPy also takes numbers that are no characters, and fails later."""
    try:
        text = values.astype(str)
    except UnicodeDecodeError as error:
        raise DataError(f"holds bytes that are not ASCII ({error}).", remedy=_AS_TEXT, kind="not text") from error
    codes = text.view(np.uint32)
    if ((codes > sys.maxunicode) | ((codes >= 0xD800) & (codes < 0xE000))).any():  # the latter: halves of characters
        raise ValueError("holds text that is none")
    return text


def _layout_faults(heads: dict[str, _Head]) -> Iterator[Fault]:
    text = [column for column in _TEXT if any(f"{part}_{column}" in heads for part in PARTS)]
    names = [f"{part}_{column}" for part in PARTS for column in ("images", "labels", *text)]
    if lacking := [name for name in names if name not in heads]:
        yield Fault("missing column", ".", f"lacks {', '.join(lacking)}.", "It must have MedMNIST's layout.")
        return
    for name, head in heads.items():
        part, _, column = name.partition("_")
        n, what = heads[f"{part}_images"].shape[:1], f"{name} are {head.dtype} {list(head.shape)}."
        if column == "images" and (head.dtype != np.uint8 or len(head.shape) != 4 or 0 in head.shape[1:]):
            yield Fault("not grey volumes", ".", what, "uint8 [N,A,B,C] is needed: a set of the 3-D kind.")
        if column == "labels" and not (head.one_each and head.dtype.kind in "iu"):
            yield Fault("not one label each", ".", what, "Whole numbers [N,1] are needed.")
        if not head.shape or (column in _TEXT and not (head.one_each and head.dtype.kind in "iuUS")):
            yield Fault("not one value each", ".", what, "Give text or numbers [N], whole for patients and names.")
        if n and head.one_each and head.shape[:1] != n:
            yield Fault("lengths differ", ".", f"{n[0]} {part}_images but {head.shape[0]} {name}.", "Give one each.")
    shapes = {part: list(heads[f"{part}_images"].shape) for part in PARTS}
    if len({tuple(shape[1:]) for shape in shapes.values() if len(shape) == 4 and shape[0]}) > 1:
        what = f"its parts hold volumes of different shapes: {', '.join(f'{part} {shapes[part]}' for part in PARTS)}."
        yield Fault("parts unlike", ".", what, "Store the volumes of all parts alike, their axes in one order.")
    for column in text:
        if len({heads[f"{part}_{column}"].dtype.kind in "US" for part in PARTS}) > 1:
            what = f"{column} is text in one part and a number in another."
            yield Fault("text and numbers", ".", what, "Write all of them in one way: else 7 and 07 are two.")


def find_file(root: str | Path, subset: str, pixels: int | None) -> Path:
    if not root:
        raise SettingError("this data set needs a file.", remedy="Give data_root, the .npz file or its folder.")
    root = Path(root).expanduser()
    if root.is_file() and (subset or pixels):
        raise SettingError("subset and pixels choose a file of a folder.", remedy="Give the folder, or leave them out.")
    if root.is_file():
        return root
    if not root.is_dir():
        raise DataError("no such file or folder.", path=root, remedy=_AGAIN, kind="missing file")
    check_choice("pixels", pixels, (None, 28, 64))
    found = {path.stem: path for path in sorted(root.glob("*.npz"))}
    wanted = f"{subset}_{pixels or 28}".removesuffix("_28") if subset else next(iter(found)) if len(found) == 1 else ""
    if wanted in found:
        return found[wanted]
    what = f"has no file {wanted}.npz." if wanted else f"has {len(found) or 'no'} .npz files."
    remedy = f"There are: {listed(list(found)) or 'none'}. Name one with subset, or give the file itself."
    raise DataError(what, path=root, remedy=remedy, kind="missing file")


def _published(path: Path) -> dict | None:
    """Checksum and class names of a file that MedMNIST publishes under this name."""
    flag, _, pixels = path.stem.partition("_")
    if not flag.endswith("mnist3d") or pixels not in ("", "28", "64") or flag not in (sets := medmnist_sets()):
        return None
    info = sets[flag]
    names = tuple(info["label"][str(k)] for k in range(len(info["label"])))
    return {"md5": info["MD5_64" if pixels == "64" else "MD5"], "classes": names}
