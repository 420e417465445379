"""The reader's own data: videos or scans in one folder a class, or scans with a label CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from viptt_core.clips import ClipSet
from viptt_core.constants import HU_WINDOW, PAPER_FRAMES, PAPER_SIZE
from viptt_core.datasets.labels import Columns, find_table
from viptt_core.datasets.listing import SCAN_ENDINGS, VIDEO_ENDINGS, Listing, class_folders, existing_folder
from viptt_core.datasets.scans import EACH_FILE_ITS_OWN, decode_scans, list_scan_folders, list_table
from viptt_core.datasets.videos import decode_videos, list_video_folders
from viptt_core.errors import DataError, SettingError


def folder(
    root: str | Path,
    *,
    frames: int = PAPER_FRAMES,
    size: int = PAPER_SIZE,
    stride: int = 1,
    fit: str = "stretch",
    hu_window: tuple[float, float] = HU_WINDOW,
    orientation: str = "file",
    labels: str | Path | None = None,
    file_column: str = "FileName",
    label_column: str = "Label",
    patient_column: str = "",
    classes: str | Sequence[str] | None = None,
    group_pattern: str = EACH_FILE_ITS_OWN,
    dtype: str = "uint8",
    on_error: str = "raise",
    n_jobs: int | None = None,
    progress: bool = True,
) -> ClipSet:
    """Videos in one folder a class, scans in one folder a class, or scans with a label CSV.

    Args:
        root: The folder. A CSV in it with the columns named here makes it scans with labels; else the kind of
            files in its folders decides.
        frames, size: The grid.
        stride, fit: Of videos, see `video.load_clip`.
        hu_window, orientation, dtype: Of scans, see `imageclef`.
        labels: The CSV; None looks for it in `root`. Its rows name files by path below `root`, name, or stem.
        file_column, label_column: Its columns. Labels may be numbers or words; each that occurs is a class.
        patient_column: Scans of one patient never fall into two parts of a split; "": each scan its own.
        classes, group_pattern: For one folder a class, as for `ucf50`; by default each file is its own group.
        on_error, n_jobs, progress: See `store.build_clip_set`.

    Raises:
        DataError: as `ucf50` and `imageclef`.
        SettingError: settings of a CSV for a folder that has none.
    """
    listing = list_folder(
        root,
        labels=labels,
        file_column=file_column,
        label_column=label_column,
        patient_column=patient_column,
        classes=classes,
        group_pattern=group_pattern,
    )
    shared = {"frames": frames, "size": size, "on_error": on_error, "n_jobs": n_jobs, "progress": progress}
    if listing.medium == "video":
        return decode_videos(listing, stride=stride, fit=fit, **shared)
    return decode_scans(listing, hu_window=hu_window, orientation=orientation, dtype=dtype, **shared)


def list_folder(
    root: str | Path,
    *,
    labels: str | Path | None = None,
    file_column: str = "FileName",
    label_column: str = "Label",
    patient_column: str = "",
    classes: str | Sequence[str] | None = None,
    group_pattern: str = EACH_FILE_ITS_OWN,
) -> Listing:
    """See `folder`."""
    root = existing_folder(root, "videos or scans")
    columns = Columns(file_column, label_column, patient_column)
    of_class = class_folders(root, (*VIDEO_ENDINGS, *SCAN_ENDINGS))
    if labels is None:
        try:
            labels = find_table(root, columns)
        except DataError:
            if not of_class or list(root.glob("*.csv")):
                raise
            if patient_column:
                what = f"patient_column is '{patient_column}', and there is no CSV in {root}."
                raise SettingError(what, remedy="Give labels, the CSV; or group_pattern for names of files.") from None
    if labels is not None:
        return list_table("folder", root, columns, labels=labels, known=None)
    videos = class_folders(root, VIDEO_ENDINGS)
    scans = class_folders(root, SCAN_ENDINGS)
    if videos and scans:
        raise DataError(
            f"holds videos ({', '.join(videos)}) and scans ({', '.join(scans)}).",
            path=root,
            remedy="Keep them in two folders: a data set is of one kind.",
        )
    if videos:
        return list_video_folders("folder", root, classes=classes, group_pattern=group_pattern)
    return list_scan_folders("folder", root, classes=classes, group_pattern=group_pattern)
