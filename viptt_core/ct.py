"""NIfTI file -> volume: chest CT on the paper's grid, float32 [T,H,W] in [0,1].

The authors' steps (their TB notebook): clip to an HU window, scale to [0,1], turn by 90 degrees in the
axial plane (scipy.ndimage.rotate), resample linearly to 224 x 224 x 70 (scipy.ndimage.zoom), slices first.
Here one pass gives the same: the slices are read one by one into the same memory, and only voxels that enter the
result are converted. A scan costs little more than its decompression, in memory that its length does not change.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.spatialimages import HeaderDataError

from viptt_core.constants import HU_AIR, HU_WINDOW, PAPER_FRAMES, PAPER_SIZE
from viptt_core.errors import DataError, DataWarning, SettingError

_GZIP_MOST = 1032  # deflate never packs more bytes than this into one
_HIGHEST_MINIMUM = -100  # HU, fat: every chest scan also holds lung and air, far below
_COPY_AGAIN = "Copy or download the file again."
_CONVERT_AGAIN = "Convert the scan again, for example with dcm2niix, to one 3-D .nii.gz file."


def load_volume(path: str | PathLike, *, depth: int = PAPER_FRAMES, size: int = PAPER_SIZE,
                hu_window=HU_WINDOW) -> np.ndarray:  # fmt: skip
    """Read a chest CT and bring it to the paper's grid.

    Args:
        path: NIfTI file (.nii.gz or .nii) in Hounsfield units.
        depth: Number T of slices in the result.
        size: Height and width of the result, pixels.
        hu_window: Lower and upper bound in HU, mapped to 0 and 1.

    Returns:
        float32 [depth,size,size] in [0,1]: the file's third axis, its second reversed, its first. The
        affine is not used, as in the authors' code.

    Raises:
        SettingError: `depth` or `size` below 1, or a reversed window.
        DataError: the file cannot be used, see `read_nifti`.

    Warns:
        DataWarning: voxels that are not finite (read as air), or values that do not look like HU.
    """
    _check_settings(hu_window, depth=depth, size=size)
    seen = _Seen(path)
    with _open_scan(path) as scan:
        planes = map(seen.note_range, map(seen.fill_with_air, scan.planes()))
        volume = _resample(planes, scan.shape, depth, size, hu_window)
    seen.report()
    return volume


def prepare_volume(hu: np.ndarray, *, depth: int = PAPER_FRAMES, size: int = PAPER_SIZE,
                   hu_window=HU_WINDOW) -> np.ndarray:  # fmt: skip
    """The paper's preprocessing of an array in memory: window, turn, resample.

    Args:
        hu: [X,Y,Z] in HU, any real dtype; not changed. NaN and infinities count as air, with a warning.
        depth, size, hu_window: See `load_volume`.

    Returns:
        float32 [depth,size,size] in [0,1].

    Raises:
        SettingError: `depth` or `size` below 1, or a reversed window.
        DataError: not three axes, an axis of length 0, or no finite voxel.
    """
    _check_settings(hu_window, depth=depth, size=size)
    _check_volume(hu)
    seen = _Seen()
    volume = _resample(map(seen.fill_with_air, hu.T), hu.shape, depth, size, hu_window)
    seen.report()
    return volume


def window_hu(volume: np.ndarray, hu_window: tuple[float, float] = HU_WINDOW) -> np.ndarray:
    """Clip HU values of any shape to the window and scale it to [0,1], as float32. NaN stays NaN.

    Raises:
        SettingError: a reversed window.
    """
    _check_settings(hu_window)
    low, high = hu_window
    scaled = np.clip(volume, low, high, dtype=np.float32)
    scaled -= low
    scaled *= 1 / (high - low)
    return scaled


def resample_volume(volume: np.ndarray, *, depth: int, size: int) -> np.ndarray:
    """Turn by 90 degrees in the axial plane and resample linearly; the corners stay where they are.

    Equals `scipy.ndimage.rotate(volume, 90, axes=(1, 0))`, then `scipy.ndimage.zoom(..., order=1)`: to 2e-7 on a
    scan in [0,1], except that zoom leaves the last row and column 0 where rounding takes it over the edge (as from
    512 to 224 pixels; up to 0.82 there). A volume not square in-plane keeps all its voxels and is stretched.

    Args:
        volume: [X,Y,Z], any real dtype; masks come out as fractions.
        depth, size: See `load_volume`.

    Returns:
        float32 [depth,size,size], in the units of `volume`.

    Raises:
        SettingError, DataError: as `prepare_volume`.
    """
    _check_settings(depth=depth, size=size)
    _check_volume(volume)
    return _resample(volume.T, volume.shape, depth, size)


def read_nifti(path: str | PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI-1 or NIfTI-2 scan, checking the header before any voxel is read.

    Returns:
        Voxels [X,Y,Z] in the file's own dtype (float32 where the header asks for scaling), in HU for
        CT; NaN and infinities are read as air, with a DataWarning. Affine float64 [4,4], index to mm.

    Raises:
        DataError: missing, empty, truncated or damaged; not NIfTI; not one grey value on three axes;
            a header that contradicts itself; no finite voxel.
    """
    seen = _Seen(path)
    with _open_scan(path) as scan:
        voxels = np.empty(scan.shape, scan.dtype, order="F")
        for target, plane in zip(voxels.T, map(seen.fill_with_air, scan.planes()), strict=True):
            target[...] = plane
    seen.report()
    return voxels, scan.affine


@dataclass(frozen=True)
class _Scan:
    """An open NIfTI file whose header is sound; the stream stands at the first voxel."""

    stream: BinaryIO
    shape: tuple[int, int, int]  # X, Y, Z
    stored: np.dtype
    dtype: np.dtype  # of the planes: native byte order, float32 where they are scaled
    scaling: tuple[float, float] | None  # slope and intercept, where there is something to do
    affine: np.ndarray

    def planes(self) -> Iterator[np.ndarray]:
        """Read the slices [Y,X] in order, each valid until the next, then the file to its end."""
        plane = np.empty((self.shape[1], self.shape[0]), self.stored)
        raw = plane.view(np.uint8).reshape(-1)
        for _ in range(self.shape[2]):
            if self.stream.readinto(raw) < raw.size:
                raise EOFError
            values = plane.astype(self.dtype, copy=False)
            if self.scaling is not None:  # in place: what is stored is read anew each time
                values *= self.scaling[0]
                values += self.scaling[1]
            yield values
        while self.stream.readinto(raw):  # only at the end is the checksum compared
            pass


class _Seen:
    """What is noticed in the voxels while they pass, to be reported once at the end."""

    def __init__(self, path=None) -> None:
        self.path, self.n_voxels, self.n_holes = path, 0, 0
        self.lowest, self.highest = np.inf, -np.inf

    def fill_with_air(self, plane: np.ndarray) -> np.ndarray:
        """Replace NaN and infinities by air in a copy; the plane itself where there are none."""
        self.n_voxels += plane.size
        if plane.dtype.kind != "f" or (finite := np.isfinite(plane)).all():
            return plane
        self.n_holes += plane.size - np.count_nonzero(finite)
        return np.where(finite, plane, plane.dtype.type(HU_AIR))

    def note_range(self, plane: np.ndarray) -> np.ndarray:
        self.lowest = min(self.lowest, plane.min())
        if self.lowest > _HIGHEST_MINIMUM:  # else nothing will be reported
            self.highest = max(self.highest, plane.max())
        return plane

    def report(self) -> None:
        if self.n_holes == self.n_voxels:
            raise DataError("holds no finite voxel.", path=self.path, remedy=_CONVERT_AGAIN)
        if self.n_holes:
            what = f"{self.n_holes} voxels are NaN or infinite; read as air."
            warnings.warn(what if self.path is None else f"{self.path}: {what}", DataWarning, stacklevel=3)
        if _HIGHEST_MINIMUM < self.lowest < np.inf:  # infinite: nobody noted the range
            what = f"{self.path}: does not look like Hounsfield units (values {self.lowest:g} to {self.highest:g})."
            remedy = "Rescale it so that air is -1000 and water 0, or check that it is a CT."
            warnings.warn(f"{what} {remedy}", DataWarning, stacklevel=3)


@contextmanager
def _open_scan(path: str | PathLike) -> Iterator[_Scan]:
    """Open a scan and check its header; whatever is wrong with the file becomes a DataError."""
    file = Path(path)
    if not file.is_file():
        raise DataError("is not a file.", path=path, remedy="Check the path.")
    if not (n_bytes := file.stat().st_size):
        raise DataError("is empty (0 bytes).", path=path, remedy=_COPY_AGAIN)
    with file.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
    if file.suffix == ".gz" and not zipped:
        raise DataError("is not gzip data although its name ends in .gz.", path=path,
                        remedy=f"{_COPY_AGAIN} If it is an uncompressed scan, name it .nii.")  # fmt: skip
    try:
        with igzip.open(file, "rb") if zipped else file.open("rb") as stream:
            header = _read_header(stream, path)
            shape, stored = _read_layout(header, n_bytes * (_GZIP_MOST if zipped else 1), path)
            slope, intercept = header.get_slope_inter()  # None: the header asks for no scaling
            scaling = None if slope is None or (slope, intercept) == (1, 0) else (slope, intercept)
            dtype = stored.newbyteorder("=") if scaling is None else np.dtype(np.float32)
            yield _Scan(stream, shape, stored, dtype, scaling, _read_affine(header, path))
    except EOFError as error:
        raise DataError("is truncated: its data ends early.", path=path, remedy=_COPY_AGAIN) from error
    except (igzip.BadGzipFile, isal_zlib.error) as error:
        raise DataError(f"holds damaged gzip data ({error}).", path=path, remedy=_COPY_AGAIN) from error
    except HeaderDataError as error:
        raise DataError(f"has a bad NIfTI header ({error}).", path=path, remedy=_CONVERT_AGAIN) from error


def _read_header(stream: BinaryIO, path) -> nib.Nifti1Header:
    """Parse and check the header, leaving the stream at the first voxel."""
    block = stream.read(nib.Nifti2Header.sizeof_hdr)  # the longer one, with its magic in front
    kind = nib.Nifti2Header if block[4:8] == b"n+2\0" else nib.Nifti1Header
    if kind is nib.Nifti1Header and block[344:348] != b"n+1\0":
        raise DataError("is not a NIfTI file (header and voxels in one file).", path=path, remedy=_CONVERT_AGAIN)
    if len(block) < kind.sizeof_hdr:
        raise DataError("is truncated: its header ends early.", path=path, remedy=_COPY_AGAIN)
    header = kind(block[: kind.sizeof_hdr])  # raises HeaderDataError on contradictions
    offset = float(header["vox_offset"]) or kind.single_vox_offset
    if not kind.sizeof_hdr <= offset < 1 << 30:
        raise HeaderDataError(f"voxels start at byte {offset:g}")
    stream.seek(int(offset))
    return header


def _read_affine(header: nib.Nifti1Header, path) -> np.ndarray:
    try:
        affine = header.get_best_affine()
    except ValueError as error:
        raise HeaderDataError(f"orientation: {error}") from error
    if np.isinf(header["scl_slope"]) or not np.isfinite(affine).all():  # nibabel: an infinite slope is none
        raise DataError("has a slope or affine that is not finite.", path=path, remedy=_CONVERT_AGAIN)
    return affine


def _read_layout(header: nib.Nifti1Header, most_bytes: int, path) -> tuple[tuple[int, int, int], np.dtype]:
    """Shape X, Y, Z and stored dtype of the voxels, which must fit into `most_bytes`."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    what = None
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        what = f"has {len(shape)} axes {list(shape)}; a scan has three."
    elif min(shape) < 1:
        what = f"has an axis of length 0: {list(shape)}."
    elif dtype.kind not in "iuf":
        what = "holds colour or complex values, not HU."
    if what:
        raise DataError(what, path=path, remedy=_CONVERT_AGAIN)
    if (n_bytes := dtype.itemsize * prod(shape)) > most_bytes:  # the header lies: do not even ask for the memory
        what = f"is truncated: its header promises {n_bytes} bytes of voxels, it holds fewer."
        raise DataError(what, path=path, remedy=_COPY_AGAIN)
    return shape[:3], dtype


def _resample(planes: Iterable[np.ndarray], shape, depth: int, size: int, window=None) -> np.ndarray:
    """Turn and interpolate slices [Y,X] as they come; with an HU window, clip before and scale after."""
    n_x, n_y, n_z = shape
    x_low, x_high, x_weight = _linear_steps(n_x, size)
    y_low, y_high, y_weight = _linear_steps(n_y, size)
    z_low, z_high, z_weight = _linear_steps(n_z, depth)
    y_both = n_y - 1 - np.concatenate([y_low, y_high])  # counted from the end: the turn
    x_weight = np.tile(x_weight, (size, 1))  # in full: faster than the same row for every row
    rows = np.empty((2 * size, n_x), np.float32)  # used again for each slice: they stay in the cache
    left, right = np.empty((2, size, size), np.float32)
    result = np.empty((depth, size, size), np.float32)

    def shrink(plane: np.ndarray) -> np.ndarray:
        rows[...] = plane[y_both]
        if window is not None:
            np.clip(rows, *window, out=rows)
        between = _between(rows[:size], rows[size:], y_weight[:, None], out=rows[size:])
        # The indices are in range; "clip" lets numpy write into `out` without a copy.
        np.take(between, x_low, axis=1, out=left, mode="clip")
        np.take(between, x_high, axis=1, out=right, mode="clip")
        small = _between(left, right, x_weight, out=np.empty_like(left))
        if window is not None:
            small -= window[0]
            small *= 1 / (window[1] - window[0])
        return small

    needed = {*z_low.tolist(), *z_high.tolist()}
    latest, t = None, 0
    for z, plane in enumerate(planes):
        if z not in needed:
            continue
        previous, latest = latest, shrink(plane)
        while t < depth and z_high[t] == z:  # `previous` is then slice z_low[t], if there are two at all
            _between(latest if z_low[t] == z else previous, latest, z_weight[t], out=result[t])
            if window is not None:
                np.clip(result[t], 0, 1, out=result[t])  # rounding can lead just outside
            t += 1
    return result


def _linear_steps(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper neighbour and the weight of the upper one; first on first, last on last."""
    position = np.linspace(0, n_in - 1, n_out)
    low = np.minimum(position.astype(np.intp), max(n_in - 2, 0))
    return low, np.minimum(low + 1, n_in - 1), (position - low).astype(np.float32)


def _between(low: np.ndarray, high: np.ndarray, weight, out: np.ndarray) -> np.ndarray:
    np.subtract(high, low, out=out)
    out *= weight
    out += low
    return out


def _check_settings(hu_window: tuple[float, float] = HU_WINDOW, **counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise SettingError(f"{name} is {value!r}.", remedy="Give a whole number of at least 1.")
    if len(hu_window) != 2 or not np.isfinite(hu_window).all() or hu_window[0] >= hu_window[1]:
        raise SettingError(f"hu_window is {hu_window}.", remedy="Give (lower, upper) in HU, as (-1000, 400).")


def _check_volume(volume: np.ndarray) -> None:
    if volume.ndim != 3 or not volume.size:
        raise DataError(f"the volume has shape {list(volume.shape)}.", remedy="Give [X,Y,Z], none of them 0.")
