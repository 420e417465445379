"""NIfTI file -> volume: chest CT on the paper's grid, float32 [T,H,W] in [0,1].

The authors' steps (their TB notebook): clip to an HU window, scale to [0,1], turn by 90 degrees in the
axial plane (scipy.ndimage.rotate), resample linearly to 224 x 224 x 70 (scipy.ndimage.zoom), slices first.
Here one pass gives the same: the slices are read one by one into the same memory, and only voxels that enter the
result are converted. A scan costs little more than its decompression, in memory that its length does not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike

import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from viptt_core.constants import HU_WINDOW, PAPER_FRAMES, PAPER_SIZE
from viptt_core.errors import DataError, SettingError, check_choice
from viptt_core.nifti import Scan, Seen, open_scan

ORIENTATIONS = ("file", "canonical")
# Stored this way, a scan comes out of the authors' steps as a radiologist sees it: from the feet upwards, the
# front of the body on top, the patient's left on the right.
CANONICAL_AXES = ("L", "A", "S")
CROP_MARGIN_MM = 5.0  # around a mask: half a voxel of a mask at 10 mm, and the pleura


def load_volume(
    path: str | PathLike,
    *,
    depth: int = PAPER_FRAMES,
    size: int = PAPER_SIZE,
    hu_window=HU_WINDOW,
    orientation: str = "file",
    mask: str | PathLike | None = None,
    seen: Seen | None = None,
) -> np.ndarray:
    """Read a chest CT and bring it to the paper's grid.

    Args:
        path: NIfTI file (.nii.gz or .nii) in Hounsfield units.
        depth: Number T of slices in the result.
        size: Height and width of the result, pixels.
        hu_window: Lower and upper bound in HU, mapped to 0 and 1.
        orientation: "file" takes the axes as they are stored, as in the authors' code: the same patient
            stored in another way comes out turned or mirrored. "canonical" turns every scan, by its affine,
            to the nearest axes of the same frame, see CANONICAL_AXES.
        mask: NIfTI file on the same grid; only the box around its voxels that are not 0, and
            CROP_MARGIN_MM around it, is kept. None keeps all.
        seen: Takes what is noticed in the file, for a caller who judges it himself; None warns of it.

    Returns:
        float32 [depth,size,size] in [0,1]: with "file", the file's third axis, its second reversed, its first.

    Raises:
        SettingError: `depth` or `size` below 1, a reversed window, an unknown orientation.
        DataError: a file cannot be used, see `nifti.read_nifti`; the mask is empty or on another grid; the
            affine is degenerate.

    Warns:
        DataWarning: voxels that are not finite (read as air), or values that do not look like HU.
    """
    _check_settings(hu_window, depth=depth, size=size)
    check_choice("orientation", orientation, ORIENTATIONS)
    box = None if mask is None else _read_box(mask)
    judged, seen = seen is not None, Seen(path) if seen is None else seen
    with open_scan(path) as scan:
        seen.scan = scan
        turn = _Turn.of(scan, path) if orientation == "canonical" else _Turn()
        planes = map(seen.fill_with_air, map(seen.note_range, scan.planes()))
        shape = scan.shape
        if box is not None:
            if box.grid != shape:
                raise DataError(
                    f"has {list(box.grid)} voxels, its scan {list(shape)}.",
                    path=mask,
                    remedy=f"Give the mask made from {path}.",
                    kind="mask on another grid",
                )
            planes, shape = box.cut(planes), box.shape
        if turn.slices_first:
            volume = _resample(map(turn.plane, planes), turn.shape(shape), depth, size, hu_window)
            volume = volume[::-1].copy() if turn.upside_down else volume
        else:  # stored as sagittal or coronal slices
            whole = np.stack([plane.copy() for plane in planes]).T
            volume = _resample(turn.volume(whole).T, turn.shape(shape), depth, size, hu_window)
    seen.check() if judged else seen.report()
    return volume


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
    seen = Seen()
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


def axis_directions(affine: np.ndarray, path: str | PathLike | None = None) -> np.ndarray:
    """Which canonical axis each axis of a file is nearest to, and whether it runs backwards.

    Args:
        affine: float64 [4,4], voxel index to mm.
        path: Named in the error.

    Returns:
        float64 [3,2]: for each axis of the file the axis in CANONICAL_AXES (0, 1, 2), then 1 or -1.

    Raises:
        DataError: the affine is degenerate: two axes point the same way, or one has no length.
    """
    found = io_orientation(affine)
    if np.isnan(found).any():
        raise DataError(
            "has an affine in which an axis has no direction.",
            path=path,
            kind="bad header",
            remedy="Convert the scan again, for example with dcm2niix.",
        )
    return ornt_transform(found, axcodes2ornt(CANONICAL_AXES))


@dataclass(frozen=True)
class _Turn:
    """How a file's axes become the canonical ones: each goes to an axis, forwards (1) or backwards (-1)."""

    axes: tuple[int, int, int] = (0, 1, 2)
    steps: tuple[int, int, int] = (1, 1, 1)

    @classmethod
    def of(cls, scan: Scan, path) -> _Turn:
        directions = axis_directions(scan.affine, path).astype(int)
        return cls(tuple(directions[:, 0].tolist()), tuple(directions[:, 1].tolist()))

    @property
    def slices_first(self) -> bool:
        """Whether the file's slices are axial, so that they can be turned as they come."""
        return self.axes[2] == 2

    @property
    def upside_down(self) -> bool:
        return self.steps[2] < 0

    def plane(self, plane: np.ndarray) -> np.ndarray:
        """An axial slice [Y,X], turned; a view."""
        plane = plane[:: self.steps[1], :: self.steps[0]]
        return plane.T if self.axes[0] == 1 else plane

    def volume(self, voxels: np.ndarray) -> np.ndarray:
        """Voxels [X,Y,Z], turned; a view."""
        turned = voxels[:: self.steps[0], :: self.steps[1], :: self.steps[2]]
        return turned.transpose(np.argsort(self.axes))

    def shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        return tuple(shape[axis] for axis in np.argsort(self.axes))


@dataclass(frozen=True)
class _Box:
    """Part of a grid of voxels, from `low` up to and without `high`, along X, Y, Z."""

    grid: tuple[int, int, int]
    low: tuple[int, int, int]
    high: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(high - low for low, high in zip(self.low, self.high, strict=True))

    def cut(self, planes: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Slices [Y,X] within the box; reads on to the last, where the file's checksum is."""
        for z, plane in enumerate(planes):
            if self.low[2] <= z < self.high[2]:
                yield plane[self.low[1] : self.high[1], self.low[0] : self.high[0]]


def _read_box(path: str | PathLike) -> _Box:
    """The box around a mask, with its margin."""
    with open_scan(path) as mask:
        used = [np.zeros(n, bool) for n in mask.shape]
        for z, plane in enumerate(mask.planes()):
            inside = plane > 0
            used[0] |= inside.any(axis=0)
            used[1] |= inside.any(axis=1)
            used[2][z] = inside.any()
        spacing = np.linalg.norm(mask.affine[:3, :3], axis=0)
    if not used[2].any():
        raise DataError(
            "is an empty mask: every voxel is 0.",
            path=path,
            kind="empty mask",
            remedy="Take the other mask set, or no crop.",
        )
    low, high = [], []
    for n, line, mm in zip(mask.shape, used, spacing, strict=True):
        margin = round(CROP_MARGIN_MM / mm) if mm > 0 else 0
        inside = np.flatnonzero(line)
        low.append(max(int(inside[0]) - margin, 0))
        high.append(min(int(inside[-1]) + 1 + margin, n))
    return _Box(mask.shape, tuple(low), tuple(high))


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
