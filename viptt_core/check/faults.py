"""Facts of files -> what is wrong with them: each file by itself, each beside the rest, each beside its mask.

`orientation` is a preset's: with "file" the affine is ignored as by the authors, with "canonical" it is followed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from viptt_core.check.inspection import MaskFacts, VideoFacts
from viptt_core.ct import CANONICAL_AXES
from viptt_core.errors import Fault
from viptt_core.scan_facts import ScanFacts
from viptt_core.video import HEADER_SLACK

COMMON = 0.8  # share of a set from which the others are exceptions
_COPY = "Copy or download the file again"
_AXES = "".join(CANONICAL_AXES)


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


def _apart_mm(mask: MaskFacts, scan: ScanFacts) -> float:
    """How far the affines of mask and scan put the same corner from each other, at most."""
    difference = np.reshape(mask.affine, (3, 4)) - np.reshape(scan.affine, (3, 4))
    corners = np.array([[0, 0, 0, 1], [*scan.shape, 1]]).T
    return float(np.linalg.norm(difference @ corners, axis=0).max())
