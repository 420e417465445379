"""Facts of files -> what is wrong: with each file, with each beside the rest, with the set as a whole."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from viptt_core.check.inspect import Reading
from viptt_core.clips import Item
from viptt_core.ct import CANONICAL_AXES
from viptt_core.datasets.listing import Listing
from viptt_core.errors import COPY_AGAIN, LEVELS, Fault
from viptt_core.presets import Preset
from viptt_core.scan_facts import scan_faults
from viptt_core.splits import split_faults


@dataclass(frozen=True)
class Checked:
    """A listing, what was read of its files, and for what they are judged."""

    listing: Listing
    readings: list[Reading]  # those with labels first
    preset: Preset  # whose frames and orientation count

    @cached_property
    def items(self) -> dict[Path, Item]:
        """Item by the scan or video it is made of."""
        return {item.file: item for item in self.listing.items}

    @property
    def classes(self) -> dict[str, dict[str, int]]:
        """Class -> {"files", "groups"}, in label order."""
        counts = {}
        for label, name in enumerate(self.listing.class_names):
            groups = [item.group for item in self.listing.items if item.label == label]
            counts[name] = {"files": len(groups), "groups": len(set(groups))}
        return counts

    @property
    def needed(self) -> int:
        """Frames that a video must have."""
        return (self.preset.frames - 1) * self.preset.stride + 1

    def readable(self, role: str) -> list[Reading]:
        """Files of a role that could be read."""
        return [reading for reading in self.readings if reading.role == role and reading.facts]

    def where(self, path: Path) -> str:
        """How the report calls a file."""
        name = Path(os.path.relpath(path, self.listing.root)).as_posix()
        return path.as_posix() if name.startswith("../") else name


def judge(checked: Checked) -> tuple[Fault, ...]:
    """All that is wrong with a set, the worst first."""
    listing, orientation = checked.listing, checked.preset.orientation
    unreadable = [reading for reading in checked.readings if reading.fault]
    faults = [*listing.faults, *(replace(each.fault, where=checked.where(each.path)) for each in unreadable)]
    for scan in checked.readable("scan"):
        faults += scan_faults(checked.where(scan.path), scan.facts, orientation)
    for judge_set in (_axes, _videos, _classes, _copies, _shortcuts):
        faults += judge_set(checked)
    unique = {(fault.kind, fault.where, fault.what): fault for fault in faults}  # a missing file is told twice
    return tuple(sorted(unique.values(), key=lambda fault: LEVELS.index(fault.level)))


def _axes(checked: Checked) -> Iterator[Fault]:
    """Scans stored in another orientation than most, and a set that is turned where the affine is ignored."""
    axes = {checked.where(scan.path): scan.facts.axes for scan in checked.readable("scan") if scan.facts.axes}
    usual = Counter(axes.values()).most_common(1)[0][0] if axes else CANONICAL_AXES
    level, remedy = "file", "Use a preset that follows the affine: 'corrected'."
    outcome = "the affine is ignored, so it comes out turned or mirrored"
    if checked.preset.orientation == "canonical":
        level, remedy, outcome = "note", "", "it is turned like the rest by its affine"
    elif usual != CANONICAL_AXES:
        what = f"most scans run {usual}, not {CANONICAL_AXES}: the affine is ignored, so all are turned or mirrored."
        yield Fault("axes not canonical", ".", what, remedy, level="note")
    for where, own in axes.items():
        if own != usual:
            what = f"its axes run {own}, those of most scans {usual}; {outcome}."
            yield Fault("other axes", where, what, remedy, level)


def _videos(checked: Checked) -> Iterator[Fault]:
    """Videos that end early, are too short or show nothing."""
    for video in checked.readable("video"):
        where, facts = checked.where(video.path), video.facts
        enough = facts.frames >= checked.needed
        what = f"{facts.frames} frames can be decoded{'' if enough else f', {checked.needed} are needed'}"
        if facts.ends_early:
            promised = f"; its header promises {facts.promised}" if facts.promised else ""
            what = f"{what}{promised}: it is cut off or damaged."
            yield Fault("truncated file", where, what, COPY_AGAIN, level="note" if enough else "file")
        elif not enough:
            yield Fault("too few frames", where, f"{what}.", "Ask for fewer frames to keep it.", level="left out")
        elif facts.damaged:
            what = f"{facts.damaged} of {facts.frames} frames are damaged; what the decoder made of them is taken."
            yield Fault("damaged frames", where, what, COPY_AGAIN, level="note")
        if facts.lowest == facts.highest:
            what = "every pixel of every frame is the same."
            yield Fault("one grey level", where, what, "Leave it out.", level="file")


# --- The set as a whole: content there twice, classes that the headers tell ---


def _copies(checked: Checked) -> Iterator[Fault]:
    """One fault for each file or volume whose content an earlier one has already; one grey level is no content."""
    names, first = checked.listing.class_names, {}
    noun = "frames" if checked.listing.medium == "video" else "voxels"
    for where, content, item in _contents(checked):
        if not content:
            yield Fault("one grey level", where, "every voxel is the same.", "Leave it out.", level="file")
            continue
        twin, other = first.setdefault(content, (where, item))
        if twin == where:
            continue
        beside, remedy, level = "", "Keep one of them.", "set"
        if not item or not other:
            beside = ", and only one of them has a label: the answer to a test file is known" if item or other else ""
            level = "set" if beside else "note"
        elif item.label != other.label:
            beside = f", under another label ({names[item.label]} here, {names[other.label]} there)"
            remedy = "Find out which label is right, and keep one file."
        elif item.part != other.part:
            beside = f", in two published parts ({item.part}, {other.part}): scores on them are too good"
        elif item.group != other.group and not item.part:
            beside = ", in another group: a split would have it on both sides"
        else:
            level = "note"
        yield Fault("duplicate content", where, f"holds the same {noun} as {twin}{beside}.", remedy, level=level)


def _contents(checked: Checked) -> Iterator[tuple[str, str, Item | None]]:
    """Name, hash and item of files and volumes; the hash is "" for a volume of one grey level."""
    for reading in (*checked.readable("scan"), *checked.readable("video")):
        if reading.facts.lowest < reading.facts.highest:  # else that is told already
            yield checked.where(reading.path), reading.facts.content, checked.items.get(reading.path)
    arrays = {reading.path: reading.facts.content for reading in checked.readable("array")}
    for item in checked.listing.items if arrays else ():
        path, array, index, *_ = item.source
        yield item.name, arrays[path][array][index], item


def _classes(checked: Checked) -> Iterator[Fault]:
    """Classes that cannot be split."""
    listing, classes = checked.listing, checked.classes
    told = any(fault.kind == "class without files" for fault in listing.faults)
    short = {video.path for video in checked.readable("video") if video.facts.frames < checked.needed}
    left = [item for item in listing.items if item.file not in short]
    if listing.items and not left:
        what = f"no video has the {checked.needed} frames that are needed."
        yield Fault("too few frames", ".", what, "Ask for fewer frames, or a smaller stride.")
    for fault in split_faults("own", left or listing.items, listing.class_names):
        if not told or fault.where not in classes or classes[fault.where]["files"]:
            yield fault


def _shortcuts(checked: Checked) -> Iterator[Fault]:
    """What headers and file sizes alone tell of the classes."""
    read = [r for r in (*checked.readable("scan"), *checked.readable("video")) if r.path in checked.items]
    if not read:
        return
    import pandas as pd

    from viptt_core.probes import header_faults, header_of  # slow to import

    items = [checked.items[reading.path] for reading in read]
    headers = pd.DataFrame([header_of(reading.facts) | {"bytes": reading.n_bytes} for reading in read])
    yield from header_faults(headers, [item.label for item in items], [item.group for item in items])
