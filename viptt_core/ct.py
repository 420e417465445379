"""NIfTI file -> volume: chest CT on the paper's grid, float32 [T,H,W] in [0,1].

The authors' steps (their TB notebook): clip to an HU window, scale to [0,1], turn by 90 degrees in the
axial plane (scipy.ndimage.rotate), resample linearly to 224 x 224 x 70 (scipy.ndimage.zoom), slices first.
Here the same comes slice by slice from only the voxels that enter the result: a scan costs little more
than its decompression and never exists as a floating-point copy.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from os import PathLike
from pathlib import Path

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


def load_volume(
    path: str | PathLike, *, depth: int = PAPER_FRAMES, size: int = PAPER_SIZE, hu_window=HU_WINDOW
) -> np.ndarray:
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
    hu, _ = read_nifti(path)
    if (lowest := hu.min()) > _HIGHEST_MINIMUM:
        what = f"{path}: does not look like Hounsfield units (values {lowest:g} to {hu.max():g})."
        remedy = "Rescale it so that air is -1000 and water 0, or check that it is a CT."
        warnings.warn(f"{what} {remedy}", DataWarning, stacklevel=2)
    return prepare_volume(hu, depth=depth, size=size, hu_window=hu_window)


def prepare_volume(
    hu: np.ndarray, *, depth: int = PAPER_FRAMES, size: int = PAPER_SIZE, hu_window=HU_WINDOW
) -> np.ndarray:
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
    volume = _resample(_fill_with_air(hu), depth, size, lambda rows: window_hu(rows, hu_window))
    return np.clip(volume, 0, 1, out=volume)


def window_hu(volume: np.ndarray, hu_window: tuple[float, float] = HU_WINDOW) -> np.ndarray:
    """Clip HU values of any shape to the window and scale it to [0,1], as float32. NaN stays NaN.

    Raises:
        SettingError: a reversed window.
    """
    _check_settings(hu_window)
    low, high = hu_window
    scaled = volume.astype(np.float32)
    np.clip(scaled, low, high, out=scaled)
    scaled -= low
    scaled *= 1 / (high - low)
    return scaled


def resample_volume(volume: np.ndarray, *, depth: int, size: int) -> np.ndarray:
    """Turn by 90 degrees in the axial plane and resample linearly; the corners stay where they are.

    Equals `scipy.ndimage.rotate(volume, 90, axes=(1, 0))`, then `scipy.ndimage.zoom(..., order=1)`. A
    volume that is not square in-plane keeps all its voxels and is stretched.

    Args:
        volume: [X,Y,Z], any real dtype; masks come out as fractions.
        depth, size: See `load_volume`.

    Returns:
        float32 [depth,size,size], in the units of `volume`.

    Raises:
        SettingError: `depth` or `size` below 1.
        DataError: not three axes, or an axis of length 0.
    """
    _check_settings(depth=depth, size=size)
    _check_volume(volume)
    return _resample(volume, depth, size, lambda rows: rows.astype(np.float32))


def read_nifti(path: str | PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI-1 or NIfTI-2 scan, checking the header before any voxel is read.

    Returns:
        Voxels [X,Y,Z] in the file's own dtype (float32 where the header asks for scaling), in HU for
        CT; NaN and infinities are read as air, with a DataWarning. Affine float64 [4,4], index to mm.

    Raises:
        DataError: missing, empty, truncated or damaged; not NIfTI; not one grey value on three axes;
            a header that contradicts itself; no finite voxel.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError("is not a file.", path=path, remedy="Check the path.")
    if not (n_bytes := file.stat().st_size):
        raise DataError("is empty (0 bytes).", path=path, remedy=_COPY_AGAIN)
    with file.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
    if file.suffix == ".gz" and not zipped:
        what = "is not gzip data although its name ends in .gz."
        raise DataError(what, path=path, remedy=f"{_COPY_AGAIN} If it is an uncompressed scan, name it .nii.")
    try:
        with igzip.open(file, "rb") if zipped else file.open("rb") as stream:
            header = _read_header(stream, path)
            voxels = _read_voxels(stream, header, n_bytes * (_GZIP_MOST if zipped else 1), path)
            while stream.read(1 << 20):  # to the end: only there the checksum is compared
                pass
        slope, intercept = header.get_slope_inter()
    except EOFError as error:
        raise DataError("is truncated: its gzip data ends early.", path=path, remedy=_COPY_AGAIN) from error
    except (igzip.BadGzipFile, isal_zlib.error) as error:
        raise DataError(f"holds damaged gzip data ({error}).", path=path, remedy=_COPY_AGAIN) from error
    except HeaderDataError as error:
        raise DataError(f"has a bad NIfTI header ({error}).", path=path, remedy=_CONVERT_AGAIN) from error
    affine = _read_affine(header, path)
    if slope is not None and (slope, intercept) != (1, 0):  # None: the header asks for no scaling
        voxels = voxels.astype(np.float32)
        voxels *= slope
        voxels += intercept
    return _fill_with_air(voxels, path), affine


def _read_header(stream, path) -> nib.Nifti1Header:
    """Parse and check the header, leaving the stream at the first voxel."""
    kind, block = nib.Nifti1Header, stream.read(348)
    if block[4:8] == b"n+2\0":  # NIfTI-2 has its magic in front and is longer
        kind, block = nib.Nifti2Header, block + stream.read(540 - 348)
    elif block[344:348] != b"n+1\0":
        what = "is not a NIfTI file (header and voxels in one file)."
        raise DataError(what, path=path, remedy=_CONVERT_AGAIN)
    if len(block) < kind.sizeof_hdr:
        raise DataError("is truncated: its header ends early.", path=path, remedy=_COPY_AGAIN)
    header = kind(block)  # raises HeaderDataError on contradictions
    offset = float(header["vox_offset"]) or kind.single_vox_offset
    if not kind.sizeof_hdr <= offset < 1 << 30:
        raise HeaderDataError(f"voxels start at byte {offset:g}")
    stream.read(int(offset) - len(block))
    return header


def _read_affine(header: nib.Nifti1Header, path) -> np.ndarray:
    try:
        affine = header.get_best_affine()
    except ValueError as error:
        what = f"has a bad NIfTI header (orientation: {error})."
        raise DataError(what, path=path, remedy=_CONVERT_AGAIN) from error
    # nibabel takes an infinite slope for "no scaling".
    if np.isinf(header["scl_slope"]) or not np.isfinite(affine).all():
        raise DataError("has a slope or affine that is not finite.", path=path, remedy=_CONVERT_AGAIN)
    return affine


def _read_voxels(stream, header: nib.Nifti1Header, most_bytes: int, path) -> np.ndarray:
    """Read the voxels [X,Y,Z], native byte order, into memory of their own."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        what = f"has {len(shape)} axes {list(shape)}; a scan has three."
        raise DataError(what, path=path, remedy=_CONVERT_AGAIN)
    if min(shape) < 1:
        raise DataError(f"has an axis of length 0: {list(shape)}.", path=path, remedy=_CONVERT_AGAIN)
    if dtype.kind not in "iuf":
        raise DataError("holds colour or complex values, not HU.", path=path, remedy=_CONVERT_AGAIN)
    n_bytes, found = dtype.itemsize * int(np.prod(shape, dtype=object)), 0
    if n_bytes <= most_bytes:  # else the header lies: do not even ask for the memory
        raw = np.empty(n_bytes, np.uint8)
        while got := stream.readinto(raw[found:]):
            found += got
    if found < n_bytes:
        what = f"is truncated: its header promises {n_bytes} bytes of voxels, it holds fewer."
        raise DataError(what, path=path, remedy=_COPY_AGAIN)
    return raw.view(dtype).reshape(shape[:3], order="F").astype(dtype.newbyteorder("="), copy=False)


def _fill_with_air(volume: np.ndarray, path=None) -> np.ndarray:
    """Replace NaN and infinities by air in a copy; the volume itself where there are none."""
    if volume.dtype.kind != "f" or (finite := np.isfinite(volume)).all():
        return volume
    if not finite.any():
        raise DataError("holds no finite voxel.", path=path, remedy=_CONVERT_AGAIN)
    what = f"{volume.size - np.count_nonzero(finite)} voxels are NaN or infinite; read as air."
    warnings.warn(what if path is None else f"{path}: {what}", DataWarning, stacklevel=3)
    return np.where(finite, volume, volume.dtype.type(HU_AIR))


def _resample(volume: np.ndarray, depth: int, size: int, convert: Callable[[np.ndarray], np.ndarray]):
    """Turn and interpolate [X,Y,Z] one axis after the other; `convert` makes rows float32."""
    planes = volume.T[:, ::-1]  # view [Z,Y,X]: slices first, turned by 90 degrees
    z_low, z_high, z_weight = _linear_steps(planes.shape[0], depth)
    y_low, y_high, y_weight = _linear_steps(planes.shape[1], size)
    x_low, x_high, x_weight = _linear_steps(planes.shape[2], size)
    y_both = np.concatenate([y_low, y_high])

    def shrink(z: int) -> np.ndarray:
        rows = convert(planes[z][y_both])  # [2*size,X]
        rows = _between(rows[:size], rows[size:], y_weight[:, None])  # [size,X]
        return _between(rows[:, x_low], rows[:, x_high], x_weight)  # [size,size]

    result = np.empty((depth, size, size), np.float32)
    recent: dict[int, np.ndarray] = {}  # neighbouring slices of the result share slices of the scan
    for t, (low, high) in enumerate(zip(z_low.tolist(), z_high.tolist(), strict=True)):
        recent = {z: recent[z] if z in recent else shrink(z) for z in (low, high)}
        result[t] = _between(recent[low], recent[high], z_weight[t])
    return result


def _linear_steps(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper neighbour and the weight of the upper one; first on first, last on last."""
    position = np.linspace(0, n_in - 1, n_out)
    low = np.minimum(position.astype(np.intp), max(n_in - 2, 0))
    return low, np.minimum(low + 1, n_in - 1), (position - low).astype(np.float32)


def _between(low: np.ndarray, high: np.ndarray, weight) -> np.ndarray:
    step = high - low
    step *= weight
    step += low
    return step


def _check_settings(hu_window: tuple[float, float] = HU_WINDOW, **counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise SettingError(f"{name} is {value!r}.", remedy="Give a whole number of at least 1.")
    if len(hu_window) != 2 or not np.isfinite(hu_window).all() or hu_window[0] >= hu_window[1]:
        raise SettingError(f"hu_window is {hu_window}.", remedy="Give (lower, upper) in HU, as (-1000, 400).")


def _check_volume(volume: np.ndarray) -> None:
    if volume.ndim != 3 or not volume.size:
        raise DataError(f"the volume has shape {list(volume.shape)}.", remedy="Give [X,Y,Z], none of them 0.")
