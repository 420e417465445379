"""Every file of a data set read once, and the set judged: what would spoil a run, what is left out, what to know."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from viptt_core.check.inspect import read_files
from viptt_core.check.judge import Checked, judge
from viptt_core.datasets import list_dataset
from viptt_core.datasets.arrays import PARTS
from viptt_core.datasets.listing import VIDEO_ENDINGS, Listing, has_ending, printable
from viptt_core.errors import LISTED, DataError, Fault, counted, listed
from viptt_core.presets import load_preset
from viptt_core.scan_facts import slice_axis

_HEADINGS = {
    "set": "Stops a run, or spoils its splits",
    "file": "Files that stop or spoil a run",
    "left out": "Left out of every run",
    "note": "Good to know",
}


def check_dataset(
    name: str,
    root: str | Path,
    *,
    preset: str = "corrected",
    n_jobs: int | None = None,
    progress: bool = True,
    **settings,
) -> CheckReport:
    """Read every file of a data set once and judge the set.

    Where no item can be listed, because of the label table for example, nothing is read.

    Args:
        name: Of `datasets.LISTERS`.
        root: Its folder or file.
        preset: Whose number of frames, stride and orientation count.
        n_jobs: See `cache.Decoding`, also for `progress`.
        settings: Those of the lister. Those that are None or "" are dropped.

    Raises:
        SettingError: unknown name, preset or setting.
        DataError: there is no such folder or file.
    """
    start, wanted = time.perf_counter(), load_preset(preset)
    settings = {key: value for key, value in settings.items() if value not in (None, "")}
    listing = _list(name, root, settings)
    jobs = [(listing.medium, item.file) for item in listing.items]  # those with labels first
    jobs += [("video" if has_ending(path, VIDEO_ENDINGS) else "scan", path) for path in listing.unlabelled if jobs]
    readings = read_files(jobs, n_jobs=n_jobs, progress=progress)
    checked = Checked(listing, readings, wanted)
    return CheckReport(checked, judge(checked), round(time.perf_counter() - start, 3))


def _list(name: str, root: str | Path, settings: dict) -> Listing:
    """The listing; where none can be made of a folder that is there, an empty one with the fault."""
    folder = Path(root).expanduser()
    try:
        return list_dataset(name, root, **settings)
    except DataError as error:
        if not folder.is_dir():
            raise
        where = "." if error.path is None else os.path.relpath(error.path, folder)
        where = str(error.path) if where.startswith("..") else where
        return Listing(name, folder, "scan", (), (), (Fault.of(error, printable(where)),))


# --- What was found, as a table ---


@dataclass(frozen=True)
class CheckReport:
    """What a check found."""

    checked: Checked
    faults: tuple[Fault, ...]  # the worst first
    seconds: float

    @property
    def spoils(self) -> bool:
        """Whether something would stop a run or spoil its result."""
        return any(fault.spoils for fault in self.faults)

    @property
    def counts(self) -> dict[str, int]:
        """Files listed, and without label; groups."""
        listing = self.checked.listing
        groups = {item.group for item in listing.items}
        return {"listed": len(listing.items), "unlabelled": len(listing.unlabelled), "groups": len(groups)}

    @property
    def facts(self) -> dict[str, list[float] | dict[str, int]]:
        """[lowest, median, highest] or a count of each value, by name, in the words of the table."""
        rows = list(_rows(self.checked))
        return {name: _summary([row[name] for row in rows if name in row]) for name in (rows[0] if rows else ())}

    def __str__(self) -> str:
        readings = self.checked.readings
        n_bytes = sum(reading.n_bytes for reading in readings)
        read = f"Read {counted(len(readings), 'file')} ({n_bytes / 1e6:.1f} MB) in {self.seconds:.1f} s."
        return printable("\n".join([self._verdict(), "", *self._overview(), *self._listed_faults(), "", read]))

    def _verdict(self) -> str:
        levels = Counter(fault.level for fault in self.faults)
        beside = f"{counted(levels['left out'], 'file')} left out, {counted(levels['note'], 'note')}"
        if not self.spoils:
            return f"SOUND: nothing was found that would spoil a run ({beside})."
        return f"NOT SOUND: {counted(levels['set'] + levels['file'], 'fault')} would stop or spoil a run ({beside})."

    def _overview(self) -> Iterator[str]:
        listing, counts, facts, classes = self.checked.listing, self.counts, self.facts, self.checked.classes
        unlabelled = f", {counts['unlabelled']} without label" if counts["unlabelled"] else ""
        files = f"{counts['listed']} labelled{unlabelled}"
        yield f"{listing.name} in {listing.root}, judged for the preset '{self.checked.preset.name}'"
        yield f"  {files}; {counted(len(classes), 'class')}, {counted(counts['groups'], 'group')}"
        if classes:
            width = max(len("class"), *map(len, classes))
            yield f"\n  {'class'.ljust(width)}   files  groups   share"
            for name, n in classes.items():
                share = n["files"] / max(counts["listed"], 1)
                yield f"  {name.ljust(width)}  {n['files']:6}  {n['groups']:6}  {share:6.1%}"
        if facts:
            yield ""
            width = max(map(len, facts))
            yield from (f"  {name.ljust(width)}  {_shown(value)}" for name, value in facts.items())

    def _listed_faults(self) -> Iterator[str]:
        for level, of_level in groupby(self.faults, key=lambda fault: fault.level):
            yield f"\n{_HEADINGS[level]}"
            faults = sorted(of_level, key=lambda fault: fault.kind)  # stable: files keep their order
            for kind, group in groupby(faults, key=lambda fault: fault.kind):
                alike = list(group)
                remedies = {fault.remedy for fault in alike}
                yield f"  {kind} ({len(alike)})"
                for fault in alike[:LISTED]:
                    name = "the set" if fault.where == "." else fault.where
                    own = f" {fault.remedy}" if len(remedies) > 1 and fault.remedy else ""
                    yield f"    {name}: {fault.what}{own}"
                if len(alike) > LISTED:
                    yield f"    ... and {len(alike) - LISTED} more"
                if len(remedies) == 1 and alike[0].remedy:
                    yield f"    -> {alike[0].remedy}"


def _rows(checked: Checked) -> Iterator[dict[str, float | str]]:
    """What the table says of each file, or of each volume of an array file."""
    for facts in (scan.facts for scan in checked.readable("scan")):
        axis = slice_axis(facts)
        i, j = (k for k in range(3) if k != axis)
        yield {
            "slices": facts.shape[axis],
            "voxels of a slice": f"{facts.shape[i]} x {facts.shape[j]}",
            "mm between slices": facts.spacing[axis],
            "mm in a slice": facts.spacing[i],
            "lowest HU": facts.lowest,
            "highest HU": facts.highest,
            "lung or air, %": 100 * facts.air,
            "orientation": facts.axes or "none",
        }
    for facts in (video.facts for video in checked.readable("video")):
        size = f"{facts.width} x {facts.height}"
        yield {"frames": facts.frames, "frame size": size, "frames a second": facts.rate, "codec": facts.codec}
    for shapes in (array.facts.shapes for array in checked.readable("array")):
        for array, (n, *sides) in shapes.items():
            part = PARTS.get(array.removesuffix("_images"), "none")
            yield from [{"voxels": " x ".join(map(str, sides)), "parts": part}] * n


def _summary(values: list[float] | list[str]) -> list[float] | dict[str, int]:
    if isinstance(values[0], str):
        return dict(Counter(values).most_common())
    return np.quantile(values, (0, 0.5, 1)).tolist()


def _shown(value: list[float] | dict[str, int]) -> str:
    if isinstance(value, dict):
        return listed([f"{name} ({n})" for name, n in value.items()], most=5)
    low, middle, high = (f"{number:.4g}" for number in value)
    return low if low == high else f"{low} to {high} (median {middle})"
