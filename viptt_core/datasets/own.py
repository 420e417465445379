"""The reader's own data: videos or scans in one folder a class, or scans with a label CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from viptt_core.datasets.labels import Columns, find_table
from viptt_core.datasets.listing import (
    EACH_FILE_ITS_OWN,
    SCAN_ENDINGS,
    VIDEO_ENDINGS,
    Listing,
    existing_folder,
    list_classes,
    nothing_to_read,
    walk_folder,
)
from viptt_core.datasets.scans import list_table
from viptt_core.errors import DataError, SettingError


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
    """Videos in one folder a class, scans in one folder a class, or scans with a label CSV.

    Args:
        root: The folder. A CSV in it with the columns named here makes it scans with labels; else the kind of
            files in its folders decides.
        labels: The CSV; None looks for it in `root`. Its rows name files by path below `root`, name, or stem.
        file_column, label_column: Its columns. Labels may be numbers or words; each that occurs is a class.
        patient_column: Scans of one patient never fall into two parts of a split; "": each scan its own.
        classes, group_pattern: For one folder a class, as for `list_ucf50`; by default each file is its own group.

    Raises:
        DataError: no such folder, or both videos and scans in it.
        SettingError: settings of a CSV for a folder that has none.
    """
    root = existing_folder(root, "videos or scans")
    columns = Columns(file_column, label_column, patient_column)
    folder = walk_folder(root)
    videos, scans = folder.class_folders(VIDEO_ENDINGS), folder.class_folders(SCAN_ENDINGS)
    if labels is None and not folder.with_ending((*VIDEO_ENDINGS, *SCAN_ENDINGS)):
        return Listing("folder", root, "scan", (), (), (*folder.faults, nothing_to_read(folder)))
    if labels is None:
        try:
            labels = find_table(root, columns)
        except DataError:
            if not (videos or scans) or list(root.glob("*.csv")):
                raise
            if patient_column:
                what = f"patient_column is '{patient_column}', and there is no CSV in {root}."
                raise SettingError(what, remedy="Give labels, the CSV; or group_pattern for names of files.") from None
    if labels is not None:
        return list_table("folder", root, columns, labels=labels, known=None)
    if videos and scans:
        raise DataError(
            f"holds videos ({', '.join(videos)}) and scans ({', '.join(scans)}).",
            path=root,
            remedy="Keep them in two folders: a data set is of one kind.",
        )
    medium = "video" if videos else "scan"
    return list_classes("folder", folder, medium, classes=classes, group_pattern=group_pattern)
