"""The reader's own data: videos or scans in one folder a class, or scans with a label CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from viptt_core.datasets.labels import COLUMN_SETTINGS, Columns, csv_files, label_table, names_a_file, with_groups
from viptt_core.datasets.listing import (
    EACH_FILE_ITS_OWN,
    ENDINGS,
    FILE_ENDINGS,
    SCAN_ENDINGS,
    Folder,
    Listing,
    existing_folder,
    list_classes,
    nothing_to_read,
    walk_folder,
)
from viptt_core.datasets.scans import list_table
from viptt_core.errors import DataError, Fault, SettingError


def list_folder(
    root: str | Path,
    *,
    labels: str | Path | None = None,
    file_column: str = "FileName",
    label_column: str = "Label",
    patient_column: str = "",
    classes: str | Sequence[str] | None = None,
    group_pattern: str = EACH_FILE_ITS_OWN,
    groups: str | Path | None = None,
) -> Listing:
    """Videos in one folder a class, scans in one folder a class, or scans with a label CSV.

    Args:
        root: The folder. A CSV in it with the columns named here makes it scans with labels.
        labels: The CSV; None looks for it in `root`. Its rows name files by path, name, or stem.
        file_column: Its column of file names.
        label_column: Its column of labels, numbers or words; each label that occurs is a class.
        patient_column: Scans of one patient never fall into two parts of a split; "": each scan its own.
        classes: Folders or labels to take, in label order, as for `listing.list_classes`.
        group_pattern: Which part of a file's name is its group, see `listing.group_items`; "(.*)": each its own.
        groups: For one folder a class: a CSV of file, perhaps class, and group.

    Raises:
        DataError: no such folder, both videos and scans in it, or no table with the columns.
        SettingError: settings of a CSV for a folder that has none, or two that say what belongs together.
    """
    folder = walk_folder(existing_folder(root, "videos or scans"))
    given = {"patient_column": patient_column, "groups": groups, "group_pattern": group_pattern}
    grouping = [setting for setting, value in given.items() if value and value != EACH_FILE_ITS_OWN]
    if len(grouping) > 1:
        raise SettingError(f"{' and '.join(grouping)} both say what belongs together.", remedy="Give one of them.")
    if not labels and not folder.with_ending(FILE_ENDINGS):
        return Listing("folder", folder.root, "scan", (), (), (*folder.faults, nothing_to_read(folder)))
    columns = Columns(file_column, label_column, patient_column)
    asked = zip(("labels", *COLUMN_SETTINGS), (labels or None, *columns[:3]), (None, *Columns()[:3]), strict=True)
    named = [f"{setting} is '{value}'" for setting, value, usual in asked if value != usual]
    beside = [path for path in csv_files(folder) if not groups or path.name != Path(groups).name]
    if not folder.with_ending(SCAN_ENDINGS):
        medium = "video"
        if named:
            remedy = "Put each video into the folder of its class; groups can name what belongs together."
            raise SettingError(f"{named[0]}, and videos take no label table.", remedy=remedy)
    else:
        try:
            table = label_table(folder, labels, columns)
        except DataError as error:
            medium = "" if labels else _kind_of_class_folders(folder, named, beside)
            if not medium:
                remedy = "" if labels else " Or give a folder that holds one folder a class, the files directly in it."
                raise DataError(error.what, path=error.path, remedy=error.remedy + remedy, kind=error.kind) from error
        else:
            if groups:
                raise SettingError("groups is for one folder a class.", remedy="Name the column with patient_column.")
            return list_table("folder", folder, table, classes=classes, group_pattern=group_pattern)
    listing = list_classes("folder", folder, medium, classes=classes, group_pattern=group_pattern)
    remedy = "If it says what belongs together, name it with the setting groups."
    unread = [Fault("table not read", path.name, "is not read.", remedy, level="note") for path in beside]
    listing = replace(listing, faults=(*listing.faults, *unread))
    return with_groups(listing, folder, groups) if groups else listing


def _kind_of_class_folders(folder: Folder, named: Sequence[str], beside: Sequence[Path]) -> str:
    """What lies in one folder a class; "" where that is nothing, or one of the CSV files beside may hold the labels."""
    media = {medium: there for medium in ENDINGS if (there := folder.class_folders(ENDINGS[medium]))}
    scans = folder.with_ending(SCAN_ENDINGS)
    if not media or (beside and (named or any(names_a_file(path, scans) for path in beside))):
        return ""
    if named:
        remedy = "Give labels, the CSV; or group_pattern for names of files."
        raise SettingError(f"{named[0]}, and there is no CSV in {folder.root}.", remedy=remedy)
    if len(media) > 1:
        kinds = " and ".join(f"{medium}s ({', '.join(there)})" for medium, there in media.items())
        remedy = "Keep them in two folders: a data set is of one kind."
        raise DataError(f"holds {kinds}.", path=folder.root, remedy=remedy, kind="two kinds of files")
    return next(iter(media))
