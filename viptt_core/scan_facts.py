"""What a NIfTI file says of itself, and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import obliquity, voxel_sizes
from nibabel.spatialimages import HeaderDataError

from viptt_core.errors import Fault
from viptt_core.nifti import Scan

LEAST_SLICES = 10  # a chest of 30 cm in slices of 10 mm has 30; fewer than 10 are a scout view or a part
MOST_OBLIQUE = 2.0  # degrees: a patient never lies straighter
SPACING_MM = (0.05, 50.0)  # outside, millimetres were mistaken for something else
SQUARE = 0.01  # relative difference of width and height that nobody sees

# How HU are spread in a chest CT, whatever lies around the body. In real scans 56 to 70 % of the voxels are near air,
# 26 to 39 % near water and at most 1 % above 400 HU; the limits leave room for parts, other fields of view and metal.
NEAR_AIR = (-1100, -500)  # HU: air, lung
NEAR_WATER = (-200, 200)  # HU: soft tissue, fat
BRIGHT = 400  # HU: bone, metal
MOST_OF_A_MASK = 16  # a mask numbers its regions from 0 on
LEAST_NEAR, MOST_BRIGHT, MOST_BELOW_AIR = 0.03, 0.25, 0.5  # shares of the voxels
PADDING_GAP, PADDING_SHARE = 100, 0.05  # padding: the lowest value, this far (HU) below the next, of so many voxels
# What makes HU of values that are none: factor, summand, what was done to them.
CONVERSIONS = (
    (1, -1024, "its intercept of -1024 was lost"),
    (1, 1024, "its intercept of -1024 was applied twice"),
    (1, -32768, "an offset of 32768 was added"),
    (1000, 0, "it was divided by 1000"),
    (1400, -1000, "a window of -1000 to 400 HU was scaled to 0..1"),
    (1000, -1000, "it was divided by the attenuation of water"),
    (1400 / 255, -1000, "a window of -1000 to 400 HU was scaled to 0..255"),
)
_CONVERT = "Convert the scan again, for example with dcm2niix."


@dataclass(frozen=True)
class ScanFacts:
    """A scan as it is stored.

    Attributes:
        shape: Voxels along the file's axes X, Y, Z.
        spacing: mm along them, by the affine.
        pixdim: mm along them, as the header states beside the affine; nibabel makes 1 of 0.
        affine: Its first three rows, index to mm, flat.
        axes: Direction in which each axis runs, such as "LAS"; "" where the file does not tell.
        oblique: Degrees between the axis that lies most askew and the body's nearest axis.
        transforms: "" where sform and qform agree or only one is given; "none" where neither is; "turned" where
            their axes run in other directions, "differ" where only lengths or angles do.
        n_voxels, n_not_finite: Voxels, and those that are NaN or infinite.
        lowest, highest: HU, of the finite voxels.
        percentiles: HU below which 0.5, 1.5, ... 99.5 % of the voxels of a sub-grid lie, padding and voxels that
            are not finite left aside.
        stored, written_by: Data type of the voxels in the file, and what its header says of the program.
        content: Hash of shape and HU rounded to whole numbers: the same for the same voxels under another name,
            compression, data type or header; "" where nobody asked for it.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    pixdim: tuple[float, ...]
    affine: tuple[float, ...]
    axes: str
    oblique: float
    transforms: str
    n_voxels: int
    n_not_finite: int
    lowest: float
    highest: float
    percentiles: tuple[float, ...]
    stored: str
    written_by: str
    content: str = ""

    @property
    def air(self) -> float:
        """Share of lung and air, padding left aside; nan where nothing is known."""
        return float(np.mean(np.array(self.percentiles) < NEAR_AIR[1])) if self.percentiles else float("nan")


def scan_facts(scan: Scan, content: str = "") -> ScanFacts:
    """The facts of a scan whose planes were all read."""
    with np.errstate(all="ignore"):  # an axis without length is told by its spacing, a bad quaternion by "differ"
        angle = np.degrees(obliquity(scan.affine)).max()
        transforms, codes = _compare_transforms(scan), nib.aff2axcodes(scan.affine)
    return ScanFacts(
        shape=scan.shape,
        spacing=_floats(voxel_sizes(scan.affine)),
        pixdim=_floats(scan.header["pixdim"][1:4]),
        affine=_floats(scan.affine[:3].ravel()),
        axes="" if transforms == "none" or None in codes else "".join(codes),
        oblique=0.0 if np.isnan(angle) else float(angle),
        transforms=transforms,
        n_voxels=int(np.prod(scan.shape)),
        n_not_finite=scan.n_holes,
        lowest=scan.lowest,
        highest=scan.highest,
        percentiles=_percentiles(np.concatenate(scan.sampled, axis=None)),
        stored=scan.stored.str,
        written_by=scan.header["descrip"].item().decode(errors="replace"),
        content=content,
    )


def _compare_transforms(scan: Scan) -> str:
    """Whether the header's two transforms contradict each other, see ScanFacts."""
    if not scan.header["sform_code"] and not scan.header["qform_code"]:
        return "none"
    try:
        (sform, s_code), (qform, q_code) = scan.header.get_sform(coded=True), scan.header.get_qform(coded=True)
        if not s_code or not q_code:
            return ""
        # Where the far corner comes to lie; origins may differ, nothing here depends on them.
        apart = np.linalg.norm((sform[:3, :3] - qform[:3, :3]) @ np.array(scan.shape))
        if apart <= voxel_sizes(sform).max():
            return ""
        turned = not np.array_equal(nib.io_orientation(sform), nib.io_orientation(qform), equal_nan=True)
        return "turned" if turned else "differ"
    except (ValueError, HeaderDataError):  # a quaternion that is none; the affine came from the sform
        return "differ"


def _percentiles(hu: np.ndarray) -> tuple[float, ...]:
    hu = np.sort(hu[np.isfinite(hu)], kind="stable")  # which is ten times as fast for numbers of 16 bits
    padded = True
    while padded and hu.size and hu[0] < hu[-1]:
        inside = hu[np.searchsorted(hu, hu[0], side="right") :]
        padded = inside.size <= (1 - PADDING_SHARE) * hu.size and float(inside[0]) - float(hu[0]) > PADDING_GAP
        hu = inside if padded else hu
    return _floats(hu[((np.arange(100) + 0.5) / 100 * hu.size).astype(int)]) if hu.size else ()


def _floats(values: Iterable) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def scan_faults(where: str, facts: ScanFacts, orientation: str) -> Iterator[Fault]:
    """What is wrong with a scan by itself."""
    canonical = orientation == "canonical"
    matters = "file" if canonical else "note"  # what only an orientation can spoil
    if facts.n_not_finite:
        what = f"{facts.n_not_finite} of {facts.n_voxels} voxels are NaN or infinite; they are read as air."
        yield Fault("voxels not finite", where, what, level="note")
    if facts.lowest == facts.highest:
        yield Fault("one grey level", where, f"every voxel is {facts.lowest:g}.", "Leave it out.", level="file")
    else:
        yield from _unit_faults(where, facts)
    if facts.transforms == "none":
        what = "does not say how it lies: the codes of its sform and its qform are 0."
        remedy = f"{_CONVERT} Only orientation='canonical' needs to know."
        yield Fault("no orientation", where, what, remedy, level=matters)
    if min(facts.spacing) <= 0 or not (facts.axes or facts.transforms == "none"):
        what = f"its affine gives an axis no length or direction ({_mm(facts.spacing)})."
        yield Fault("bad spacing", where, what, _CONVERT, level=matters)
    elif not all(SPACING_MM[0] <= mm <= SPACING_MM[1] for mm in (*facts.spacing, *facts.pixdim)):
        beside = "" if np.allclose(facts.spacing, facts.pixdim) else f", {_mm(facts.pixdim)} beside the affine"
        what = f"its header states a spacing of {_mm(facts.spacing)}{beside}."
        yield Fault("bad spacing", where, what, f"{_CONVERT} Only the margin around a mask depends on it.", "note")
    if facts.oblique > MOST_OBLIQUE:
        turned = "turned to the nearest axes only" if canonical else "taken as it is stored"
        yield Fault("oblique", where, f"lies {facts.oblique:.0f} degrees askew; it is {turned}.", level="note")
    if facts.axes and facts.transforms == "turned":
        followed = "; the sform is followed" if canonical else ""
        what = f"its sform and qform turn it in different ways{followed}."
        yield Fault("two orientations", where, what, f"Find out which one is right. {_CONVERT}", level=matters)
    elif facts.axes and facts.transforms:
        yield Fault("two orientations", where, "its sform and qform differ in lengths or angles.", level="note")
    if (n := facts.shape[slice_axis(facts)]) < LEAST_SLICES:
        yield Fault("few slices", where, f"has {n} slices.", "Is it a scout view?", level="note")
    (width, height), (x, y) = _in_plane(facts)
    if abs(width * x - height * y) > SQUARE * max(width * x, height * y):
        size = f"{width * x:.0f} by {height * y:.0f} mm ({width} by {height} voxels)"
        what = f"its slices measure {size}; resizing stretches them to a square."
        yield Fault("not square", where, what, level="note")


def _unit_faults(where: str, facts: ScanFacts) -> Iterator[Fault]:
    """A scan in other units can be decoded, but nearly all of it falls on one side of the window, unnoticed."""
    hu = np.array(facts.percentiles)
    if not hu.size or _are_hu(hu):
        return
    air, water, bright = (f"{share:.0%}" for share in _shares(hu)[:3])
    what = (
        f"does not look like Hounsfield units (values {facts.lowest:g} to {facts.highest:g}; padding aside, {air} of "
        f"the voxels are near air, {water} near water, {bright} above {BRIGHT})."
    )
    remedy = "Rescale it so that air is -1000 and water 0, or leave it out."
    fitting = [conversion for conversion in CONVERSIONS if _are_hu(hu * conversion[0] + conversion[1])]
    if np.dtype(facts.stored).kind in "iu" and facts.lowest >= 0 and facts.highest <= MOST_OF_A_MASK:
        remedy = "It looks like a mask: give the scan that it was made from."
    elif fitting:
        factor, summand, cause = max(fitting, key=lambda fit: sum(_shares(hu * fit[0] + fit[1])[:2]))
        times = "" if factor == 1 else f" x {factor:.4g}"
        value = f"value{times} {'+-'[summand < 0]} {abs(summand)}"
        remedy = f"{value} would look like HU: perhaps {cause}. Make sure of it. {_CONVERT}"
    elif hu[0] > NEAR_AIR[1] and np.mean(hu == hu[0]) >= PADDING_SHARE:
        remedy = f"All below {hu[0]:g} was cut off, and lung with it: take the scan that this was made from."
    yield Fault("not in HU", where, what, remedy, level="file")


def _are_hu(hu: np.ndarray) -> bool:
    air, water, bright, below_air = _shares(hu)
    return min(air, water) >= LEAST_NEAR and bright <= MOST_BRIGHT and below_air <= MOST_BELOW_AIR


def _shares(hu: np.ndarray) -> tuple[float, ...]:
    """Of all values those near air, near water, above BRIGHT, and below all that HU can be."""
    near = [(low <= hu) & (hu <= high) for low, high in (NEAR_AIR, NEAR_WATER)]
    return tuple(float(np.mean(which)) for which in (*near, hu > BRIGHT, hu < NEAR_AIR[0]))


def slice_axis(facts: ScanFacts) -> int:
    """The file's axis along the body; the third where the file does not say."""
    return next((k for k, code in enumerate(facts.axes) if code in "SI"), 2)


def _in_plane(facts: ScanFacts) -> tuple[tuple[int, int], tuple[float, float]]:
    """Voxels and mm along the two axes of a slice; 1 mm where the header has no length."""
    axes = [k for k in range(3) if k != slice_axis(facts)]
    x, y = (facts.spacing[k] for k in axes)
    return (facts.shape[axes[0]], facts.shape[axes[1]]), (x, y) if min(x, y) > 0 else (1.0, 1.0)


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{mm:.4g}" for mm in spacing) + " mm"
