"""Facts of files -> what is wrong with them: each file by itself, each beside the rest, each beside its mask.

`orientation` is a preset's: with "file" the affine is ignored as by the authors, with "canonical" it is followed.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from viptt_core.check.inspection import MaskFacts, VideoFacts
from viptt_core.constants import UCF_CLASSES
from viptt_core.ct import CANONICAL_AXES
from viptt_core.datasets.listing import Listing
from viptt_core.errors import Fault
from viptt_core.scan_facts import ScanFacts

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
    if facts.ends_early:
        promised = f"; its header promises {facts.promised}" if facts.promised else "; it ends there"
        yield Fault(
            "truncated file",
            where,
            f"{found}{promised}.",
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


# --- What is wrong with a set as a whole: content there twice, classes too small to split, files that are missing ---


FEWEST_GROUPS = 5  # of a class, for five folds by group
LEAK_FILES = 60  # fewer tell nothing about a leak
LEAK_NEIGHBOURS = 5
LEAK_MARGIN = 0.1  # accuracy above chance that is worth a note


@dataclass(frozen=True)
class Copy:
    """A piece of content and where it is: `label` is None and `part` "" where there is none."""

    where: str
    content: str
    label: int | None
    group: str
    part: str


def duplicate_faults(copies: Sequence[Copy], class_names: Sequence[str], noun: str) -> Iterator[Fault]:
    """One fault for each file whose content an earlier one has already.

    Args:
        copies: All of the set.
        class_names: In label order.
        noun: What is the same, such as "voxels".
    """
    first: dict[str, Copy] = {}
    for copy in copies:
        other = first.setdefault(copy.content, copy)
        if other is copy:
            continue
        what = f"holds the same {noun} as {other.where}"
        if None not in (copy.label, other.label) and copy.label != other.label:
            labels = f"{class_names[copy.label]} here, {class_names[other.label]} there"
            yield Fault(
                "duplicate content",
                copy.where,
                f"{what}, under another label ({labels}).",
                "Find out which label is right, and keep one file.",
            )
        elif copy.part != other.part:
            yield Fault(
                "duplicate content",
                copy.where,
                f"{what}, and they are in two published parts ({copy.part}, {other.part}).",
                "Scores on these parts are too good. Keep one.",
            )
        elif (copy.label is None) != (other.label is None):
            yield Fault(
                "duplicate content",
                copy.where,
                f"{what}, and only one of them has a label: the answer to a test file is known.",
                "Leave out the labelled one.",
            )
        elif copy.group != other.group and not copy.part and copy.label is not None:
            yield Fault(
                "duplicate content",
                copy.where,
                f"{what}, in another group: a split would have it on both sides.",
                "Keep one of them, or put both into one group.",
            )
        else:
            yield Fault("duplicate content", copy.where, f"{what}.", "Keep one of them.", level="note")


def group_faults(listing: Listing) -> Iterator[Fault]:
    """Classes that cannot be split into five parts by group. Published parts need no split."""
    if not listing.items or all(item.part for item in listing.items):
        return
    empty = any(fault.kind == "class without files" for fault in listing.faults)
    for name, n in group_counts(listing).items():
        if n >= FEWEST_GROUPS or (n == 0 and empty):
            continue
        yield Fault(
            "too few groups",
            name,
            f"this class has {n} group{'' if n == 1 else 's'}; {FEWEST_GROUPS} are "
            "needed for every part of a split to show it.",
            "Add files, or join the class with another one.",
        )


def empty_folder_faults(listing: Listing) -> Iterator[Fault]:
    """Folders beside the class folders that hold nothing: a class may have got lost."""
    known = {part for name in listing.class_names for part in name.split("+")}
    if not listing.root.is_dir() or not any((listing.root / name).is_dir() for name in known):
        return
    for folder in sorted(listing.root.iterdir()):
        hidden = folder.name.startswith(".")
        if folder.is_dir() and not hidden and not any(not p.name.startswith(".") for p in folder.iterdir()):
            yield Fault("empty folder", folder.name, "holds no file.", "Is a class missing?", level="note")


def leak_faults(formats: np.ndarray, labels: Sequence[int], groups: Sequence[str], what: str) -> Iterator[Fault]:
    """Whether the format of a file gives its class away, by 5 nearest neighbours across groups.

    Args:
        formats: float [N,F], such as width, height and number of frames.
        labels, groups: [N].
        what: The columns in words.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels) if len(labels) else np.zeros(1, int)
    enough = len(labels) >= LEAK_FILES and len(set(groups)) >= FEWEST_GROUPS
    if not enough or np.count_nonzero(counts) < 2 or (formats == formats[0]).all():
        return
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), KNeighborsClassifier(LEAK_NEIGHBOURS))
    # Stratified: else a class may be a fold, and none of it is among the neighbours.
    folds = StratifiedGroupKFold(FEWEST_GROUPS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with few groups, which are a fault already
        told = cross_val_predict(model, formats, labels, groups=np.asarray(groups), cv=folds)
    accuracy, chance = float(np.mean(told == labels)), float(counts.max() / len(labels))
    noise = 4 * np.sqrt(chance * (1 - chance) / len(labels))
    if accuracy > chance + max(LEAK_MARGIN, noise):
        yield Fault(
            "format tells the class",
            ".",
            f"{what} alone tell the class of {accuracy:.0%} of the files (the largest class: {chance:.0%}).",
            "A network may learn that: crop or letterbox, take a fixed "
            "number of frames or slices, and report this number beside the model's.",
            level="note",
        )


def expected_faults(listing: Listing, long_clips: Mapping[str, int] | None) -> Iterator[Fault]:
    """What a complete copy of a published set has and this one has not.

    Args:
        listing: Of the set.
        long_clips: Clips of at least 70 frames by class, where videos were judged by that.
    """
    from viptt_core.sources.registry import load_registry

    source = load_registry().get(listing.name)
    if source is None:
        return
    expected, here = source.expected, class_counts(listing)
    whole = expected.classes in (None, len(listing.class_names))

    def fault(what: str) -> Fault:
        return Fault("incomplete set", ".", what, f"See: viptt data info {listing.name}", level="note")

    if expected.files and whole and len(listing.items) != expected.files:
        parts = [
            f"{name} {here.get(name, 0)} of {n}" for name, n in expected.class_counts.items() if here.get(name, 0) != n
        ]
        detail = f" ({', '.join(parts)})" if parts else ""
        yield fault(f"{expected.files} labelled files are expected, {len(listing.items)} are here{detail}.")
    elif whole and (other := [c for c, n in expected.class_counts.items() if here.get(c, 0) != n]):
        named = ", ".join(f"{c} {here.get(c, 0)}, not {expected.class_counts[c]}" for c in other)
        yield fault(f"the classes have other sizes than published: {named}.")
    if expected.test_files and len(listing.unlabelled) != expected.test_files:
        yield fault(
            f"{expected.test_files} test files without labels are expected, {len(listing.unlabelled)} are "
            "here; only a submission needs them."
        )
    if lacking := [masks for masks in expected.masks if masks not in listing.masks]:
        yield fault(f"mask sets that are not here: {', '.join(lacking)}; only a crop needs them.")
    if expected.groups_per_class and listing.items:
        few = {name: n for name, n in group_counts(listing).items() if n != expected.groups_per_class}
        if few:
            named = ", ".join(f"{name} {n}" for name, n in few.items())
            yield fault(f"{expected.groups_per_class} groups a class are expected, other numbers are here: {named}.")
    if expected.long_clips and long_clips is not None and tuple(listing.class_names) == UCF_CLASSES:
        other = {name: n for name, n in expected.long_clips.items() if long_clips.get(name, 0) != n}
        if other:
            named = ", ".join(f"{name} {long_clips.get(name, 0)}, not {n}" for name, n in other.items())
            yield fault(f"the authors used other numbers of clips with enough frames: {named}.")


def class_counts(listing: Listing) -> dict[str, int]:
    """Files a class, in label order."""
    counts = dict.fromkeys(listing.class_names, 0)
    for item in listing.items:
        counts[listing.class_names[item.label]] += 1
    return counts


def group_counts(listing: Listing) -> dict[str, int]:
    """Groups a class, in label order."""
    groups: dict[str, set[str]] = {name: set() for name in listing.class_names}
    for item in listing.items:
        groups[listing.class_names[item.label]].add(item.group)
    return {name: len(found) for name, found in groups.items()}
