"""Facts of files -> what is wrong with them: each file by itself, each beside the rest, each beside its mask.

`orientation` is a preset's: with "file" the affine is ignored as by the authors, with "canonical" it is followed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from viptt_core.check.inspection import MaskFacts, ScanFacts, VideoFacts
from viptt_core.ct import CANONICAL_AXES
from viptt_core.datasets.listing import Fault
from viptt_core.nifti import HIGHEST_MINIMUM
from viptt_core.video import HEADER_SLACK

LEAST_SLICES = 10  # a chest of 30 cm in slices of 10 mm has 30; fewer than 10 are a scout view or a part
MOST_OBLIQUE = 2.0  # degrees: a patient never lies straighter
SPACING_MM = (0.05, 50.0)  # outside, millimetres were mistaken for something else
MOST_HU = 2**15  # what 16 bits hold; scanners give no more
SQUARE = 0.01  # relative difference of width and height that nobody sees
COMMON = 0.8  # share of a set from which the others are exceptions
_CONVERT = "Convert the scan again, for example with dcm2niix."
_COPY = "Copy or download the file again"
_AXES = "".join(CANONICAL_AXES)


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


def axes_faults(scans: Mapping[str, ScanFacts], orientation: str) -> Iterator[Fault]:
    """Scans stored in another orientation than most, and a set that is turned where the affine is ignored."""
    common = Counter(facts.axes for facts in scans.values() if facts.axes).most_common(1)
    if not common:
        return
    usual = common[0][0]
    if usual != _AXES and orientation != "canonical":
        yield Fault(
            "axes not canonical",
            ".",
            f"most scans run {usual}, not {_AXES}: as the affine is ignored, they "
            "come out turned or mirrored, all alike.",
            "Use a preset that follows the affine, such as 'corrected', to see them upright, or beside another set.",
            level="note",
        )
    for where, facts in scans.items():
        if not facts.axes or facts.axes == usual:
            continue
        what = f"its axes run {facts.axes}, those of most scans {usual}; "
        if orientation == "canonical":
            yield Fault("other axes", where, f"{what}it is turned like the rest by its affine.", level="note")
        else:
            yield Fault(
                "other axes",
                where,
                f"{what}as the affine is ignored, it comes out turned or mirrored.",
                "Use a preset that follows the affine, such as 'corrected'.",
                level="file",
            )


def mask_faults(where: str, facts: MaskFacts, scan: ScanFacts | None, *, needed: bool) -> Iterator[Fault]:
    """What is wrong with a mask; `scan` is the one it belongs to, `needed` where it is to crop."""
    level = "file" if needed else "note"
    if not facts.n_marked:
        yield Fault("empty mask", where, "every voxel is 0.", "Take the other mask set, or no crop.", level=level)
    elif facts.values is None:
        yield Fault(
            "values of a mask",
            where,
            "holds values that are no whole numbers from 0 to 255.",
            "Is it a mask?",
            level="note",
        )
    if scan is None:
        return
    if facts.shape != scan.shape:
        yield Fault(
            "mask on another grid",
            where,
            f"has {list(facts.shape)} voxels, its scan {list(scan.shape)}.",
            "Give the mask made from this scan.",
            level=level,
        )
    elif _apart_mm(facts, scan) > max(scan.spacing):
        yield Fault(
            "mask on another grid",
            where,
            f"its affine puts it {_apart_mm(facts, scan):.0f} mm away from its scan; voxels are taken by their index.",
            level="note",
        )


def video_faults(where: str, facts: VideoFacts, needed: int) -> Iterator[Fault]:
    """What is wrong with a video by itself; `needed` frames are taken from it."""
    enough = facts.frames >= needed
    found = f"{facts.frames} frames can be decoded" + ("" if enough else f", {needed} are needed")
    if facts.promised > facts.frames + HEADER_SLACK:
        yield Fault(
            "truncated file",
            where,
            f"{found}; its header promises {facts.promised}.",
            f"{_COPY}." if enough else f"{_COPY}, or leave the clip out.",
            level="note" if enough else "file",
        )
    elif not enough:
        yield Fault("too few frames", where, f"{found}.", "Ask for fewer frames to keep it.", level="left out")
    if facts.lowest == facts.highest:
        yield Fault("one grey level", where, "every pixel of every frame is the same.", "Leave it out.", level="file")


def frame_size_faults(videos: Mapping[str, VideoFacts]) -> Iterator[Fault]:
    """Videos with another frame size than the rest, or a set without a common one."""
    sizes = Counter((facts.width, facts.height) for facts in videos.values())
    if len(sizes) < 2:
        return
    (width, height), count = sizes.most_common(1)[0]
    if count < COMMON * len(videos):
        yield Fault(
            "other frame size",
            ".",
            f"the videos have {len(sizes)} frame sizes; none is common.",
            "fit='crop' keeps the shape of things.",
            level="note",
        )
        return
    for where, facts in videos.items():
        if (facts.width, facts.height) != (width, height):
            yield Fault(
                "other frame size",
                where,
                f"its frames are {facts.width} by {facts.height} pixels, those of most videos {width} by {height}.",
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


def _apart_mm(mask: MaskFacts, scan: ScanFacts) -> float:
    """How far the affines of mask and scan put the same corner from each other, at most."""
    difference = np.reshape(mask.affine, (3, 4)) - np.reshape(scan.affine, (3, 4))
    corners = np.array([[0, 0, 0, 1], [*scan.shape, 1]]).T
    return float(np.linalg.norm(difference @ corners, axis=0).max())


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{mm:.4g}" for mm in spacing) + " mm"
