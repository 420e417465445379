"""Every file of a data set read once, and the set judged: what would spoil a run, what is left out, what to know."""

from __future__ import annotations

import os
import time
from pathlib import Path

from viptt_core.check.inspect import read_files
from viptt_core.check.judge import Checked, judge, source_of
from viptt_core.check.report import CheckReport
from viptt_core.datasets import list_dataset
from viptt_core.datasets.listing import VIDEO_ENDINGS, Listing, has_ending, printable
from viptt_core.errors import DataError, Fault
from viptt_core.presets import load_preset


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
        n_jobs: See `cache.Decoding`.
        progress: See `cache.Decoding`.
        settings: Those of the lister. Those that are None or "" are dropped.

    Raises:
        SettingError: unknown name, preset or setting.
        DataError: there is no such folder or file.
    """
    start, wanted = time.perf_counter(), load_preset(preset)
    settings = {key: value for key, value in settings.items() if value not in (None, "")}
    listing = _list(name, root, settings)
    readings = read_files(_jobs(listing), n_jobs=n_jobs, progress=progress)
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


def _jobs(listing: Listing) -> list[tuple[str, Path]]:
    """What each file of a set is read as, those with labels first; none is read of a set without any."""
    if not listing.items:
        return []
    unlabelled = [("video" if has_ending(path, VIDEO_ENDINGS) else "scan", path) for path in listing.unlabelled]
    return [*((listing.medium, source_of(item)) for item in listing.items), *unlabelled]
