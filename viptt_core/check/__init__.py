"""Every file of a data set read once, and the set judged: what would spoil a run, what is left out, what to know.

`viptt data check` prints the report. Reading is kept apart from judging, so that a second look, also for another
preset, takes a moment.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from viptt_core.check.faults import (
    Copy,
    axes_faults,
    class_counts,
    duplicate_faults,
    empty_folder_faults,
    expected_faults,
    frame_size_faults,
    group_counts,
    group_faults,
    mask_faults,
    video_faults,
)
from viptt_core.check.inspection import ArrayFacts, Facts, Job, MaskFacts, VideoFacts, facts_of, read_files
from viptt_core.check.report import CheckReport
from viptt_core.clips import digest
from viptt_core.datasets import list_dataset
from viptt_core.datasets.listing import SCAN_ENDINGS, VIDEO_ENDINGS, Listing, has_ending, mask_folder, walk_folder
from viptt_core.errors import LEVELS, DataError, Fault
from viptt_core.files import available_cores, cache_root
from viptt_core.presets import Preset, load_preset
from viptt_core.scan_facts import ScanFacts, scan_faults, slice_axis

LUNG_MASKS = "masks"  # mask sets named so outline lungs, which every scan has; others, such as findings, may be empty


def check_dataset(
    name: str,
    root: str | Path,
    *,
    preset: str = "corrected",
    n_jobs: int | None = None,
    progress: bool = True,
    reread: bool = False,
    **settings,
) -> CheckReport:
    """Read every file of a data set once and judge the set.

    What a check has read is kept in the cache, file by file: after Ctrl-C or a crash the next call goes on, and files
    that did not change are not read again.

    Args:
        name: One of `datasets.LISTERS`.
        root: Its folder (or file).
        preset: Whose number of frames, stride and orientation count.
        n_jobs: Worker processes; None takes the available cores.
        progress: Show a progress bar.
        reread: Read also what an earlier check has read.
        settings: Those of the lister of that name. Those that are None or
            "" are dropped.

    Raises:
        SettingError: unknown name, preset or setting.
        DataError: there is no such folder or file.
        StorageError: the cache cannot be written.
    """
    start = time.perf_counter()
    wanted = load_preset(preset)
    settings = {key: value for key, value in settings.items() if value not in (None, "")}
    listing = _list(name, root, settings)
    found = _Files(listing, _without_a_table(listing))
    place = cache_root() / "checks" / f"{name}-{digest(os.path.abspath(Path(root).expanduser()))}.jsonl"
    readings = read_files(
        found.jobs(), place, n_jobs=available_cores() if n_jobs is None else n_jobs, progress=progress, reread=reread
    )
    facts, faults = {}, [*listing.faults, *empty_folder_faults(listing), *group_faults(listing)]
    cropping = settings.get("masks", "masks1") if settings.get("crop") else None
    for job, outcome in readings.outcomes.items():
        if "facts" in outcome:
            facts[job] = facts_of(job.role, outcome["facts"])
        else:
            optional = job.role == "mask" and cropping not in job.path.relative_to(listing.root).parts
            faults.append(Fault(where=found.where(job.path), level="note" if optional else "file", **outcome["fault"]))
    faults += _judge(found, facts, wanted, cropping)
    unique = {(fault.kind, fault.where, fault.what): fault for fault in faults}  # a missing file is told twice
    return CheckReport(
        name=name,
        root=listing.root,
        preset=preset,
        counts={
            "listed": len(listing.items),
            "unlabelled": len(found.unlabelled),
            "masks": sum(map(len, listing.masks.values())),
            "groups": len({i.group for i in listing.items}),
        },
        classes=_classes(listing),
        facts=_overview(found, facts, wanted),
        faults=tuple(sorted(unique.values(), key=lambda fault: LEVELS.index(fault.level))),
        files={
            found.where(job.path): outcome.get("facts") or {"fault": outcome["fault"]["kind"]}
            for job, outcome in readings.outcomes.items()
        },
        n_read=readings.n_read,
        n_reused=len(readings.outcomes) - readings.n_read,
        bytes_read=readings.bytes_read,
        seconds=round(time.perf_counter() - start, 3),
    )


class _Files:
    """The files of a listing: what each is read as, and how the report calls it."""

    def __init__(self, listing: Listing, others: Sequence[Path]) -> None:
        self.listing = listing
        self.labelled = [self.source(item) for item in listing.items]
        self.unlabelled = [*listing.unlabelled, *others]

    @staticmethod
    def source(item) -> Path:
        return Path(item.source[0] if isinstance(item.source, tuple) else item.source)

    def where(self, path: Path) -> str:
        name = Path(os.path.relpath(path, self.listing.root)).as_posix()
        return path.as_posix() if name.startswith("../") else name

    def jobs(self) -> list[Job]:
        role = self.listing.medium
        masks = [path for of_scan in self.listing.masks.values() for path in of_scan.values()]
        unlabelled = [Job("video" if has_ending(path, VIDEO_ENDINGS) else "scan", path) for path in self.unlabelled]
        return [*(Job(role, path) for path in self.labelled), *unlabelled, *(Job("mask", path) for path in masks)]


def _list(name: str, root: str | Path, settings: dict) -> Listing:
    """The listing; one with a single fault where none can be made of a folder that is there."""
    try:
        return list_dataset(name, root, **settings)
    except DataError as error:
        folder = Path(root).expanduser()
        if name == "medmnist3d" or not folder.is_dir():
            raise
        where = "." if error.path is None or Path(error.path) == folder else os.path.relpath(error.path, folder)
        fault = Fault(error.kind or "bad folder", where, error.what, error.remedy)
        return Listing(name, folder, "scan", (), (), (fault,))


def _without_a_table(listing: Listing) -> list[Path]:
    """All files where none is listed, as the table cannot be used: they at least are read."""
    if listing.items or listing.unlabelled or not listing.root.is_dir():
        return []
    files = walk_folder(listing.root).with_ending((*SCAN_ENDINGS, *VIDEO_ENDINGS))
    return [path for path in files if mask_folder(path, listing.root) is None]


def _judge(found: _Files, facts: dict[Job, Facts], preset: Preset, cropping: str | None) -> Iterator[Fault]:
    """Faults of files by their facts, and of all of them together."""
    listing = found.listing
    scans = {job.path: known for job, known in facts.items() if isinstance(known, ScanFacts)}
    videos = {job.path: known for job, known in facts.items() if isinstance(known, VideoFacts)}
    needed = (preset.frames - 1) * preset.stride + 1
    for path, known in scans.items():
        yield from scan_faults(found.where(path), known, preset.orientation)
    yield from axes_faults({found.where(path): known for path, known in scans.items()}, preset.orientation)
    for path, known in videos.items():
        yield from video_faults(found.where(path), known, needed)
    yield from frame_size_faults({found.where(path): known for path, known in videos.items()})
    yield from _mask_set_faults(found, facts, scans, cropping)
    yield from _array_faults(found, facts)
    noun = {"video": "frames", "scan": "voxels", "array": "voxels"}[listing.medium]
    yield from duplicate_faults(list(_copies(found, facts)), listing.class_names, noun)
    yield from _format_faults(found, scans, videos)
    enough = [item for item in listing.items if (known := videos.get(found.source(item))) and known.frames >= needed]
    long_clips = dict(Counter(listing.class_names[item.label] for item in enough)) if needed == 70 else None
    yield from expected_faults(listing, long_clips if videos else None)


def _mask_set_faults(
    found: _Files, facts: dict[Job, Facts], scans: dict[Path, ScanFacts], cropping: str | None
) -> Iterator[Fault]:
    listing = found.listing
    if not listing.masks:
        return
    of_name = {path.name: known for path, known in scans.items()}
    listed = {path.name for path in (*found.labelled, *found.unlabelled)}
    there = {path.name for path in walk_folder(listing.root).files if mask_folder(path, listing.root) is None}
    already = {fault.where for fault in listing.faults if fault.kind == "missing mask"}
    for mask_set, masks in listing.masks.items():
        for name, path in masks.items():
            if name not in there:
                yield Fault(
                    "mask without a scan",
                    found.where(path),
                    "there is no scan of this name.",
                    "Is the scan missing?",
                    level="note",
                )
            known = facts.get(Job("mask", path))
            if isinstance(known, MaskFacts) and mask_set.startswith(LUNG_MASKS):
                yield from mask_faults(found.where(path), known, of_name.get(name), needed=mask_set == cropping)
        if mask_set.startswith(LUNG_MASKS) and mask_set != cropping:
            for name in sorted(listed - set(masks) - already):
                yield Fault("missing mask", name, f"has no mask in {mask_set}/.", "Only a crop needs it.", level="note")


def _array_faults(found: _Files, facts: dict[Job, Facts]) -> Iterator[Fault]:
    for item in found.listing.items if found.listing.medium == "array" else ():
        known = facts.get(Job("array", item.source.path))
        if known is not None and item.source.index in known.constant[item.source.part]:
            yield Fault("one grey level", item.name, "every voxel is the same.", "Leave it out.", level="note")


def _copies(found: _Files, facts: dict[Job, Facts]) -> Iterator[Copy]:
    """Content of everything that is not of one grey level."""
    listing = found.listing
    for item in listing.items:
        known = facts.get(Job(listing.medium, found.source(item)))
        if known is None:
            continue
        if listing.medium == "array":
            part, index = item.source.part, item.source.index
            if index not in known.constant[part]:
                yield Copy(item.name, known.content[part][index], item.label, item.group, item.part)
        elif known.lowest < known.highest:
            yield Copy(found.where(found.source(item)), known.content, item.label, item.group, item.part)
    unlabelled = set(found.unlabelled)
    for job, known in facts.items():
        if job.path in unlabelled and job.role != "mask" and known.lowest < known.highest:
            yield Copy(found.where(job.path), known.content, None, found.where(job.path), "")


def _format_faults(found: _Files, scans: dict[Path, ScanFacts], videos: dict[Path, VideoFacts]) -> Iterator[Fault]:
    from viptt_core.probes import header_faults, read_headers  # slow to import

    items = [item for item in found.listing.items if found.source(item) in scans or found.source(item) in videos]
    if items:
        headers = read_headers([found.source(item) for item in items])
        yield from header_faults(headers, [item.label for item in items], [item.group for item in items])


def _classes(listing: Listing) -> dict[str, dict[str, int]]:
    files, groups = class_counts(listing), group_counts(listing)
    return {name: {"files": files[name], "groups": groups[name]} for name in listing.class_names}


def _overview(found: _Files, facts: dict[Job, Facts], preset: Preset) -> dict:
    """Ranges and tallies over the files, see `CheckReport.facts`."""
    known = list(facts.values())
    if scans := [f for f in known if isinstance(f, ScanFacts)]:
        axes = [[k for k in range(3) if k != slice_axis(f)] for f in scans]
        return {
            "slices": _range(f.shape[slice_axis(f)] for f in scans),
            "voxels of a slice": _tally(f"{f.shape[i]} x {f.shape[j]}" for f, (i, j) in zip(scans, axes, strict=True)),
            "mm between slices": _range(f.spacing[slice_axis(f)] for f in scans),
            "mm in a slice": _range(f.spacing[i] for f, (i, _) in zip(scans, axes, strict=True)),
            "lowest HU": _range(f.lowest for f in scans),
            "highest HU": _range(f.highest for f in scans),
            "lung or air, %": _range(100 * f.air for f in scans),
            "orientation": _tally(f.axes or "none" for f in scans),
        }
    if videos := [f for f in known if isinstance(f, VideoFacts)]:
        needed = (preset.frames - 1) * preset.stride + 1
        return {
            "frames": _range(f.frames for f in videos),
            f"with {needed} frames or more": sum(f.frames >= needed for f in videos),
            "frame size": _tally(f"{f.width} x {f.height}" for f in videos),
            "frames a second": _range(f.rate for f in videos),
        }
    arrays = [f for f in known if isinstance(f, ArrayFacts)]
    if not arrays:
        return {}
    parts = Counter(item.part for item in found.listing.items if item.part)
    shapes = (" x ".join(map(str, shape[1:])) for f in arrays for shape in f.shapes.values() for _ in range(shape[0]))
    return {"voxels": _tally(shapes), "parts": dict(parts)}


def _range(values: Iterable[float]) -> list[float]:
    values = np.array(list(values), float)
    return [float(values.min()), float(np.median(values)), float(values.max())]


def _tally(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
