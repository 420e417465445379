"""NIfTI file -> volume: chest CT on the paper's grid, float32 [T,H,W] in [0,1].

The authors' steps: clip to an HU window, scale to [0,1], turn by 90 degrees in the axial plane, resample linearly to
224 x 224 x 70, slices first. Here one pass over the slices gives the same from the voxels that enter the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike

import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from viptt_core.constants import HU_AIR, HU_WINDOW, PAPER_FRAMES, PAPER_SIZE
from viptt_core.errors import CONVERT_AGAIN, DataError, Fault, check_choice, check_grid, parse_hu_window, warn_of
from viptt_core.nifti import open_scan
from viptt_core.scan_facts import ScanFacts, scan_facts, scan_faults

ORIENTATIONS = ("file", "canonical")
# Stored this way, a scan comes out of the authors' steps as a radiologist sees it: from the feet upwards, the
# front of the body on top, the patient's left on the right.
CANONICAL_AXES = "LAS"
# Faults that change what the voxels mean.
WARNED_OF = ("voxels not finite", "one grey level", "not in HU", "filled or cut off", "no lung")


def load_volume(
    path: str | PathLike,
    *,
    depth: int = PAPER_FRAMES,
    size: int = PAPER_SIZE,
    hu_window=HU_WINDOW,
    orientation: str = "file",
) -> np.ndarray:
    """Read a chest CT and bring it to the paper's grid.

    Args:
        path: NIfTI file (.nii.gz or .nii) in Hounsfield units.
        depth: Number T of slices in the result.
        size: Height and width of the result, pixels.
        hu_window: Lower and upper bound in HU, mapped to 0 and 1.
        orientation: "file" takes the axes as they are stored, as the authors: the same patient stored in another way
            comes out turned or mirrored. "canonical" turns every scan, by its affine, to CANONICAL_AXES.

    Returns:
        float32 [depth,size,size] in [0,1]: with "file", the file's third axis, its second reversed, its first.

    Raises:
        SettingError: `depth` or `size` below 1 or too large, no window, an unknown orientation.
        DataError: the file cannot be used, see `nifti.read_nifti`; with "canonical", it does not say how it lies, or
            its affine is degenerate.

    Warns:
        DataWarning: see WARNED_OF.
    """
    volume, facts = read_volume(path, depth=depth, size=size, hu_window=hu_window, orientation=orientation)
    for fault in scan_faults(str(path), facts, "file"):
        if fault.kind in WARNED_OF:
            warn_of(replace(fault, level="note"))
    return volume


def read_volume(
    path: str | PathLike, *, depth: int, size: int, hu_window, orientation: str
) -> tuple[np.ndarray, ScanFacts]:
    """As `load_volume`, with the facts of the file for a caller who judges it himself, and without warnings."""
    check_grid(size, depth=depth)
    hu_window = parse_hu_window(hu_window)
    check_choice("orientation", orientation, ORIENTATIONS)
    with open_scan(path) as scan:
        turn = _AS_STORED
        if orientation == "canonical":
            if not (scan.header["sform_code"] or scan.header["qform_code"]):
                what = "does not say how it lies: the codes of its sform and its qform are 0."
                remedy = f"{CONVERT_AGAIN} Or take orientation 'file', if all scans are stored alike."
                raise DataError(what, path=path, remedy=remedy, kind="no orientation")
            canonical, step = axis_directions(scan.affine, path).astype(int).T  # then as the authors
            turn = np.stack([2 - canonical, (step < 0) ^ (canonical == 1)], axis=1).tolist()
        with np.errstate(over="ignore"):  # what float32 cannot hold, the window cuts off
            volume = _resample(scan.planes(), scan.shape, turn, (depth, size, size), hu_window)
    return volume, scan_facts(scan)


def prepare_volume(
    hu: np.ndarray, *, depth: int = PAPER_FRAMES, size: int = PAPER_SIZE, hu_window=HU_WINDOW
) -> np.ndarray:
    """As `load_volume`, of HU in memory: [X,Y,Z], any real dtype. NaN and infinities count as air, with a warning.

    Raises:
        SettingError: `depth` or `size` below 1 or too large, or no window.
        DataError: not three axes, an axis of length 0, or no finite voxel.
    """
    hu_window = parse_hu_window(hu_window)
    if hu.dtype.kind == "f" and not (finite := np.isfinite(hu)).all():
        if not finite.any():
            raise DataError("the volume holds no finite voxel.", remedy="Give HU.", kind="no finite voxel")
        what = f"{np.count_nonzero(~finite)} voxels are NaN or infinite; read as air."
        warn_of(Fault("voxels not finite", "", what, level="note"))
        hu = np.where(finite, hu, HU_AIR)
    return resample_volume(hu, depth=depth, size=size, hu_window=hu_window)


def window_hu(volume: np.ndarray, hu_window: tuple[float, float] = HU_WINDOW) -> np.ndarray:
    """Clip HU values of any shape to the window and scale it to [0,1], as float32. NaN stays NaN."""
    low, high = parse_hu_window(hu_window)
    scaled = np.clip(volume, low, high, dtype=np.float32)
    scaled -= low
    scaled *= 1 / (high - low)
    return scaled


def resample_volume(volume: np.ndarray, *, depth: int, size: int, hu_window=None) -> np.ndarray:
    """Turn by 90 degrees in the axial plane and resample linearly; the corners stay where they are.

    Equals scipy's rotate and zoom (order 1) to 2e-7 on a scan in [0,1], except that zoom leaves the last row and column
    0 where rounding takes it over the edge. A volume not square in-plane keeps all its voxels and is stretched.

    Args:
        volume: [X,Y,Z], any real dtype.
        depth: See `load_volume`, also for `size`.
        hu_window: Clip to it before, and scale it to [0,1] after; None does neither.

    Returns:
        float32 [depth,size,size], without a window in the units of `volume`.
    """
    check_grid(size, depth=depth)
    if volume.ndim != 3 or not volume.size:
        raise DataError(f"the volume has shape {list(volume.shape)}.", remedy="Give [X,Y,Z], none of them 0.")
    return _resample(volume.T, volume.shape, _AS_STORED, (depth, size, size), hu_window)


def slices_between(n: int, depth: int) -> list[int]:
    """Those of n slices that enter a resampling to `depth`, in ascending order."""
    low, high, _ = _linear_steps(n, depth)
    return sorted({*low.tolist(), *high.tolist()})


def axis_directions(affine: np.ndarray, path: str | PathLike | None = None) -> np.ndarray:
    """For each axis of a file with this affine [4,4] the nearest one in CANONICAL_AXES (0, 1, 2), then 1 or -1: [3,2].

    Raises:
        DataError: the affine is degenerate: two axes point the same way, or one has no length.
    """
    nearest = io_orientation(affine)
    if np.isnan(nearest).any():
        what = "has an affine in which an axis has no direction."
        raise DataError(what, path=path, remedy=CONVERT_AGAIN, kind="bad header")
    return ornt_transform(nearest, axcodes2ornt(CANONICAL_AXES))


# Where a file's axes X, Y, Z go: the axis of the result (0 slices, 1 rows, 2 columns), and whether backwards.
_AS_STORED = [(2, False), (1, True), (0, False)]  # the authors' turn: rows run from the last Y to the first


def _resample(planes: Iterable[np.ndarray], shape, turn, result_shape, window) -> np.ndarray:
    """Turn and interpolate slices [Y,X] as they come; with an HU window, clip before and scale after."""
    axes, backwards = zip(*turn, strict=True)
    n_columns, n_rows, n_slices = (result_shape[axis] for axis in axes)
    x_low, x_high, x_weight = _linear_steps(shape[0], n_columns, backwards[0])
    y_low, y_high, y_weight = _linear_steps(shape[1], n_rows, backwards[1])
    z_low, z_high, z_weight = _linear_steps(shape[2], n_slices)
    y_both = np.concatenate([y_low, y_high])
    x_weight = np.tile(x_weight, (n_rows, 1))  # in full: faster than the same row for every row
    rows = np.empty((2 * n_rows, shape[0]), np.float32)  # used again for each slice: they stay in the cache
    left, right = np.empty((2, n_rows, n_columns), np.float32)
    result = np.empty((n_slices, n_rows, n_columns), np.float32)
    ordered = result[::-1] if backwards[2] else result

    def shrink(plane: np.ndarray) -> np.ndarray:
        rows[...] = plane[y_both]
        if window is not None:
            np.clip(rows, *window, out=rows)
        between = _between(rows[:n_rows], rows[n_rows:], y_weight[:, None], out=rows[n_rows:])
        # The indices are in range; "clip" lets numpy write into `out` without a copy.
        np.take(between, x_low, axis=1, out=left, mode="clip")
        np.take(between, x_high, axis=1, out=right, mode="clip")
        small = _between(left, right, x_weight, out=np.empty_like(left))
        if window is not None:
            small -= window[0]
            small *= 1 / (window[1] - window[0])
        return small

    needed = set(slices_between(shape[2], n_slices))
    latest, t = None, 0
    for z, plane in enumerate(planes):
        if z not in needed:
            continue
        previous, latest = latest, shrink(plane)
        while t < n_slices and z_high[t] == z:  # `previous` is then slice z_low[t], if there are two at all
            _between(latest if z_low[t] == z else previous, latest, z_weight[t], out=ordered[t])
            if window is not None:
                np.clip(ordered[t], 0, 1, out=ordered[t])  # rounding can lead just outside
            t += 1
    return np.ascontiguousarray(result.transpose(np.argsort(axes[::-1])))


def _linear_steps(n_in: int, n_out: int, backwards: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper neighbour and the weight of the upper one; first on first, last on last, or the reverse."""
    position = np.linspace(0, n_in - 1, n_out)
    low = np.minimum(position.astype(np.intp), max(n_in - 2, 0))
    high, weight = np.minimum(low + 1, n_in - 1), (position - low).astype(np.float32)
    return (n_in - 1 - low, n_in - 1 - high, weight) if backwards else (low, high, weight)


def _between(low: np.ndarray, high: np.ndarray, weight, out: np.ndarray) -> np.ndarray:
    np.subtract(high, low, out=out)
    out *= weight
    out += low
    return out
