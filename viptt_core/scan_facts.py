"""What a NIfTI file says of itself, and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import obliquity, voxel_sizes
from nibabel.imageglobals import logger

from viptt_core.errors import Fault
from viptt_core.nifti import HIGHEST_MINIMUM, Scan, Seen


@dataclass(frozen=True)
class ScanFacts:
    """A scan as it is stored.

    Attributes:
        shape: Voxels along the file's axes X, Y, Z.
        spacing: mm along them, by the affine.
        pixdim: mm along them, as the header states beside the affine; nibabel makes 1 of 0.
        affine: Its first three rows, index to mm, flat.
        axes: Direction in which each axis runs, such as "LAS"; "" where the affine gives none.
        oblique: Degrees between the axis that lies most askew and the body's nearest axis.
        two_orientations: "" where sform and qform agree or only one is given; "turned" where their axes run in
            other directions, "differ" where only lengths or angles do.
        n_voxels, n_not_finite: Voxels, and those that are NaN or infinite.
        lowest, highest: HU, of the finite voxels.
        air: Share of voxels below LUNG_OR_AIR.
        content: Hash of shape and HU rounded to whole numbers: the same for the same voxels under another name,
            compression, data type or header.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    pixdim: tuple[float, ...]
    affine: tuple[float, ...]
    axes: str
    oblique: float
    two_orientations: str
    n_voxels: int
    n_not_finite: int
    lowest: float
    highest: float
    air: float
    content: str


def scan_facts(seen: Seen, *, air: float = float("nan"), content: str = "") -> ScanFacts:
    """The facts of a scan that was read to its end, its range noted."""
    scan = seen.scan
    lengths, codes = voxel_sizes(scan.affine), ""
    with np.errstate(invalid="ignore", divide="ignore"):  # an axis without length is told by its spacing
        angle = np.degrees(obliquity(scan.affine)).max()
    turned = _two_orientations(scan)
    if not np.isnan(nib.io_orientation(scan.affine)).any():
        codes = "".join(nib.aff2axcodes(scan.affine))
    return ScanFacts(
        scan.shape,
        _floats(lengths),
        _floats(scan.header["pixdim"][1:4]),
        _floats(scan.affine[:3].ravel()),
        codes,
        0.0 if np.isnan(angle) else float(angle),
        turned,
        seen.n_voxels,
        int(seen.n_holes),
        float(seen.lowest),
        float(seen.highest),
        air,
        content,
    )


@contextmanager
def quiet_nibabel() -> Iterator[None]:
    """Its remarks on headers would land in the middle of the progress bar; what matters becomes a fault."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _two_orientations(scan: Scan) -> str:
    """Whether the header's two transforms contradict each other; see ScanFacts."""
    try:
        (sform, s_code), (qform, q_code) = scan.header.get_sform(coded=True), scan.header.get_qform(coded=True)
    except ValueError:  # a quaternion that is none; the affine came from the sform
        return "differ"
    if not s_code or not q_code:
        return ""
    ours, theirs = sform[:3, :3], qform[:3, :3]
    if not np.array_equal(nib.io_orientation(sform), nib.io_orientation(qform), equal_nan=True):
        return "turned"
    # Where the far corner comes to lie; origins may differ, nothing here depends on them.
    apart = np.linalg.norm((ours - theirs) @ np.array(scan.shape))
    return "differ" if apart > voxel_sizes(sform).max() else ""


def _floats(values: Iterable) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


LEAST_SLICES = 10  # a chest of 30 cm in slices of 10 mm has 30; fewer than 10 are a scout view or a part


MOST_OBLIQUE = 2.0  # degrees: a patient never lies straighter


SPACING_MM = (0.05, 50.0)  # outside, millimetres were mistaken for something else


MOST_HU = 2**15  # what 16 bits hold; scanners give no more


SQUARE = 0.01  # relative difference of width and height that nobody sees


_CONVERT = "Convert the scan again, for example with dcm2niix."


def scan_faults(where: str, facts: ScanFacts, orientation: str) -> Iterator[Fault]:
    """What is wrong with a scan by itself."""
    canonical = orientation == "canonical"
    if facts.n_not_finite:
        yield Fault(
            "voxels not finite",
            where,
            f"{facts.n_not_finite} of {facts.n_voxels} voxels are NaN or infinite; they are read as air.",
            level="note",
        )
    values = f"values {facts.lowest:g} to {facts.highest:g}"
    if facts.lowest == facts.highest:
        yield Fault("one grey level", where, f"every voxel is {facts.lowest:g}.", "Leave it out.", level="file")
    elif facts.lowest > HIGHEST_MINIMUM or facts.lowest < -MOST_HU or facts.highest > MOST_HU:
        # It can be decoded, but the window would make it almost one grey level, which nobody would notice.
        yield Fault(
            "not in HU",
            where,
            f"does not look like Hounsfield units ({values}).",
            "Rescale it so that air is -1000 and water 0, or leave it out.",
            level="file",
        )
    if not facts.axes or min(facts.spacing) <= 0:
        yield Fault(
            "bad spacing",
            where,
            f"its affine gives an axis no length or direction ({_mm(facts.spacing)}).",
            _CONVERT,
            level="file" if canonical else "note",
        )
    elif not all(SPACING_MM[0] <= mm <= SPACING_MM[1] for mm in (*facts.spacing, *facts.pixdim)):
        beside = "" if np.allclose(facts.spacing, facts.pixdim) else f", {_mm(facts.pixdim)} beside the affine"
        yield Fault(
            "bad spacing",
            where,
            f"its header states a spacing of {_mm(facts.spacing)}{beside}.",
            f"{_CONVERT} Only the margin around a mask depends on it.",
            level="note",
        )
    if facts.oblique > MOST_OBLIQUE:
        turned = "turned to the nearest axes only" if canonical else "taken as it is stored"
        yield Fault("oblique", where, f"lies {facts.oblique:.0f} degrees askew; it is {turned}.", level="note")
    if not facts.axes:
        pass  # said already
    elif facts.two_orientations == "turned":
        yield Fault(
            "two orientations",
            where,
            "its sform and qform turn it in different ways; the sform is followed."
            if canonical
            else "its sform and qform turn it in different ways.",
            f"Find out which one is right. {_CONVERT}",
            level="file" if canonical else "note",
        )
    elif facts.two_orientations:
        yield Fault("two orientations", where, "its sform and qform differ in lengths or angles.", level="note")
    if (n := facts.shape[slice_axis(facts)]) < LEAST_SLICES:
        yield Fault("few slices", where, f"has {n} slices.", "Is it a scout view?", level="note")
    (width, height), (x, y) = _in_plane(facts)
    if abs(width * x - height * y) > SQUARE * max(width * x, height * y):
        yield Fault(
            "not square",
            where,
            f"its slices measure {width * x:.0f} by {height * y:.0f} mm ({width} by "
            f"{height} voxels); resizing stretches them to a square.",
            level="note",
        )


def slice_axis(facts: ScanFacts) -> int:
    """The file's axis along the body; the third where the affine does not say."""
    return next((k for k, code in enumerate(facts.axes) if code in "SI"), 2)


def _in_plane(facts: ScanFacts) -> tuple[tuple[int, int], tuple[float, float]]:
    """Voxels and mm along the two axes of a slice; 1 mm where the header has no length."""
    axes = [k for k in range(3) if k != slice_axis(facts)]
    x, y = (facts.spacing[k] for k in axes)
    return (facts.shape[axes[0]], facts.shape[axes[1]]), (x, y) if min(x, y) > 0 else (1.0, 1.0)


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{mm:.4g}" for mm in spacing) + " mm"
