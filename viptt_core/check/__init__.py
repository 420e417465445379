"""Every file of a data set read once, and the set judged: what would spoil a run, what is left out, what to know.

`viptt data check` prints the report. Reading is kept apart from judging, so that a second look, also for another
preset, takes a moment.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from viptt_core.check.inspect import read_files
from viptt_core.check.judge import Checked, judge, source_of
from viptt_core.check.report import CheckReport
from viptt_core.datasets import list_dataset
from viptt_core.datasets.listing import VIDEO_ENDINGS, Listing, has_ending, printable, scans_and_masks, walk_folder
from viptt_core.datasets.scans import MASKS
from viptt_core.errors import DataError, Fault
from viptt_core.presets import load_preset


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

    What is read of a file is kept in the cache: after Ctrl-C or a crash the next call goes on, and files that did
    not change are not read again.

    Args:
        name: One of `datasets.LISTERS`.
        root: Its folder (or file).
        preset: Whose number of frames, stride and orientation count.
        n_jobs: Worker processes; None takes the available cores.
        progress: Show a progress bar.
        reread: Read also what an earlier check has read.
        settings: Those of the lister of that name. Those that are None or "" are dropped.

    Raises:
        SettingError: unknown name, preset or setting.
        DataError: there is no such folder or file.
        StorageError: the cache cannot be written.
    """
    start, wanted = time.perf_counter(), load_preset(preset)
    settings = {key: value for key, value in settings.items() if value not in (None, "")}
    listing = _list(name, root, settings)
    readings = read_files(_jobs(listing), n_jobs=n_jobs, progress=progress, reread=reread)
    crop = settings.get("masks", MASKS) if settings.get("crop") else ""
    checked = Checked(listing, readings, wanted, crop)
    faults = judge(checked)
    return CheckReport(checked, faults, round(time.perf_counter() - start, 3))


def _list(name: str, root: str | Path, settings: dict) -> Listing:
    """The listing; where none can be made of a folder that is there, one with a fault and all files unlabelled."""
    folder = Path(root).expanduser()
    try:
        listing = list_dataset(name, root, **settings)
    except DataError as error:
        if not folder.is_dir():
            raise
        where = "." if error.path is None else os.path.relpath(error.path, folder)
        fault = Fault(error.kind or "bad folder", printable(where), error.what, error.remedy)
        listing = Listing(name, folder, "scan", (), (), (fault,))
    if listing.items or listing.unlabelled or not listing.root.is_dir():
        return listing
    there = walk_folder(listing.root)
    files = (*scans_and_masks(there, has_masks=True)[0], *there.with_ending(VIDEO_ENDINGS))
    return replace(listing, unlabelled=files, faults=tuple(dict.fromkeys((*listing.faults, *there.faults))))


def _jobs(listing: Listing) -> list[tuple[str, Path]]:
    """What each file of a set is read as, those with labels first."""
    unlabelled = [("video" if has_ending(path, VIDEO_ENDINGS) else "scan", path) for path in listing.unlabelled]
    masks = [("mask", path) for of_scan in listing.masks.values() for path in of_scan.values()]
    return [*((listing.medium, source_of(item)) for item in listing.items), *unlabelled, *masks]
