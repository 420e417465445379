"""Volumes in one .npz file: MedMNIST's 3-D sets as they were published.

`PART_images` uint8 [N,A,B,C] and `PART_labels` [N,1] of the parts train, val and test. The file does not say which of
A, B and C runs from slice to slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from viptt_core import ct, files
from viptt_core.clips import Grid, Item
from viptt_core.datasets.folders import to_grey_levels
from viptt_core.datasets.listing import Listing
from viptt_core.errors import DataError, Fault, SettingError, warn_of
from viptt_core.sources.registry import medmnist_sets

PARTS = {"train": "train", "val": "validation", "test": "test"}  # MedMNIST's names and ours
SAMPLED = 200  # volumes that are looked at to find the slices
LEAST_PADDING = 0.05  # mean share of the planes along an axis that must be empty
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


def list_medmnist3d(root: str | Path) -> Listing:
    """Volumes of a MedMNIST 3-D set, each a group of its own, in the published parts (`ClipSet.parts`).

    Slices run along the axis whose ends are padded with empty planes, see `find_padding`: these are left out, since
    their number tells of size. Where there is none, slices run along the first axis.

    Args:
        root: The .npz file under its published name, or the folder in which it is the only one.

    Raises:
        DataError: no such file, or not as MedMNIST published it.
    """
    path = find_file(root)
    flag, _, pixels = path.stem.partition("_")
    info, digest = medmnist_sets().get(flag, {}), files.file_digest(path, "md5")
    if digest != (published := info.get("MD5_64" if pixels == "64" else "MD5", "none: no set has this name")):
        what = f"is not as MedMNIST published it: its MD5 is {digest}, published is {published}."
        raise DataError(what, path=path, remedy=_AGAIN, kind="checksum differs")
    names = tuple(info["label"][str(k)] for k in range(len(info["label"])))
    with opened(path) as arrays:
        labels = {part: arrays[f"{part}_labels"].reshape(-1).tolist() for part in PARTS}
        padding = find_padding(arrays["train_images"][:SAMPLED])
    axis, items, faults = padding or 0, [], ()
    for part, of_part in labels.items():
        for i, label in enumerate(of_part):
            source = Volume(path, f"{part}_images", i, digest, axis, padding is not None)
            items.append(Item(f"{part}_{i:04d}", label, f"{part}_{i:04d}", source, PARTS[part]))
    if padding is not None:
        what = f"the ends of axis {axis} are padded with empty planes; these are left out: their number tells of size."
        faults = (Fault("padding", ".", what, level="note"),)
    settings = {"file": digest, "slice_axis": axis, "padding": "kept" if padding is None else "left out"}
    return Listing("medmnist3d", path, "array", tuple(items), names, faults, settings=settings)


def find_padding(volumes: np.ndarray) -> int | None:
    """The axis of uint8 [N,A,B,C] that alone has empty planes at its ends; None where none has, or all is one grey."""
    volumes = volumes[volumes.any(axis=(1, 2, 3))]
    if not ((volumes > 0) & (volumes < volumes.max(initial=0))).any():
        return None
    filled = [volumes.any(axis=tuple({1, 2, 3} - {axis})) for axis in (1, 2, 3)]  # bool [N, planes] each
    empty = [np.mean([1 - planes[_inner(planes)].size / planes.size for planes in of_axis]) for of_axis in filled]
    second, most = sorted(empty)[1:]
    return None if most < LEAST_PADDING or second > most / 4 else empty.index(most)


def _inner(filled: np.ndarray) -> slice:
    """From the first to the last plane that is not empty, of which there is one; bool [P]."""
    there = np.flatnonzero(filled)
    return slice(there[0], there[-1] + 1)


def decode_volume(source: Volume, grid: Grid) -> np.ndarray:
    """A volume on the grid, resampled linearly: uint8 [T,H,W]."""
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


@lru_cache(maxsize=len(PARTS))
def read_images(path: Path, array: str, digest: str) -> np.ndarray:
    """All volumes of an array of the file with this MD5, uint8 [N,A,B,C]; kept for the next call.

    Raises:
        DataError: the file is damaged.
    """
    with opened(path) as arrays:
        return arrays[array]


@contextmanager
def opened(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of a file, each read when it is asked for; whatever goes wrong is raised as a DataError."""
    with files.reading(path):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                yield arrays
        except (DataError, OSError, MemoryError):
            raise
        except Exception as error:  # zipfile, zlib and NumPy raise a dozen types where bytes are damaged
            what = f"cannot be read as an .npz file ({error})."
            raise DataError(what, path=path, remedy=_AGAIN, kind="damaged file") from error


def find_file(root: str | Path) -> Path:
    """The file, or the only one of a folder; a SettingError where none was named, a DataError where it is not there."""
    if not root:
        raise SettingError("this data set needs a file.", remedy="Give data_root, the .npz file or its folder.")
    root = Path(root).expanduser()
    found = [root] if root.is_file() else sorted(root.glob("*.npz"))
    if len(found) != 1:
        what = f"holds {len(found)} .npz files." if root.is_dir() else "no such file or folder."
        raise DataError(what, path=root, remedy=f"Give the file itself. {_AGAIN}", kind="missing file")
    return found[0]
