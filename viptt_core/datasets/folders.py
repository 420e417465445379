"""Videos and scans (NIfTI) in folders: UCF50, ImageCLEF, MosMedData, and the reader's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from viptt_core import ct, video
from viptt_core.clips import Grid, Item
from viptt_core.constants import TB_CLASSES, UCF_CLASSES, UCF_GROUP_PATTERN
from viptt_core.datasets.labels import (
    COLUMN_SETTINGS,
    Columns,
    Table,
    classes_of_labels,
    csv_files,
    join,
    label_table,
    names_a_file,
    with_groups,
)
from viptt_core.datasets.listing import (
    EACH_FILE_ITS_OWN,
    ENDINGS,
    FILE_ENDINGS,
    SCAN_ENDINGS,
    VIDEO_ENDINGS,
    Folder,
    Listing,
    class_choice,
    existing_folder,
    files_besides,
    group_items,
    list_classes,
    nothing_to_read,
    walk_folder,
)
from viptt_core.errors import DataError, Fault, SettingError
from viptt_core.scan_facts import ScanFacts

IMAGECLEF_COLUMNS = Columns("FileName", "TypeOfTB", remedy="Call its columns FileName and TypeOfTB")
IMAGECLEF_TEST = "TST_"  # names of the hidden test set begin so
MOSMED_CLASSES = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")


def list_ucf50(
    root: str | Path,
    *,
    classes: str | Sequence[str] | None = None,
    group_pattern: str = UCF_GROUP_PATTERN,
    groups: str | Path | None = None,
) -> Listing:
    """Videos in one folder a class, as UCF50 comes: `root/Class/*.avi`, or another of VIDEO_ENDINGS.

    Args:
        root: The folder of class folders, or the one above it, named as the archive unpacks.
        classes: See `listing.list_classes`; None takes the paper's ten when all of them are there, else every folder.
        group_pattern: See `listing.group_items`.
        groups: A CSV that names the group of each video instead, see `labels.with_groups`.
    """
    if groups and group_pattern != UCF_GROUP_PATTERN:
        raise SettingError("groups and group_pattern both say what belongs together.", remedy="Give one of them.")
    root = existing_folder(root, "videos, one folder a class")
    folder = walk_folder(root)
    if (root / "UCF50").is_dir() and not folder.class_folders(VIDEO_ENDINGS):
        folder = walk_folder(root / "UCF50")
    papers = UCF_CLASSES if set(UCF_CLASSES) <= set(folder.class_folders(VIDEO_ENDINGS)) else None
    pattern = EACH_FILE_ITS_OWN if groups else group_pattern
    listing = list_classes("ucf50", folder, "video", classes=classes or papers, group_pattern=pattern)
    return with_groups(listing, folder, groups) if groups else listing


def list_imageclef(root: str | Path, *, labels: str | Path | None = None) -> Listing:
    """CT scans (NIfTI) and a label CSV, as ImageCLEF 2021 Tuberculosis comes; each scan is its own group.

    Args:
        root: Folder with the scans, in it or below it (mask folders are passed over).
        labels: The CSV with columns FileName, TypeOfTB (1..5); None looks for it in `root`.
    """
    folder = walk_folder(existing_folder(root, "scans (.nii.gz) and the label CSV"))
    known = {str(k): name for k, name in enumerate(TB_CLASSES, 1)}
    listing = list_table("imageclef", folder, label_table(folder, labels, IMAGECLEF_COLUMNS), known=known)
    without = [fault for fault in listing.faults if fault.kind == "no label"]
    hidden = [fault for fault in without if Path(fault.where).name.startswith(IMAGECLEF_TEST)]
    faults = tuple(fault for fault in listing.faults if fault not in hidden)
    return replace(listing, faults=faults, unlabelled=tuple(folder.root / fault.where for fault in hidden))


def list_mosmed(root: str | Path, *, classes: str | Sequence[str] | None = None) -> Listing:
    """MosMedData COVID19_1110: a patient a scan, in the folders CT-0 to CT-4 by the share of the lung that is ill.

    Args:
        root: Folder with those folders, or the one above it with `studies/`.
        classes: Names of the folders, in label order; "CT-0, CT-1, CT-2, CT-3+CT-4" joins the last two (CT-4 is
            too rare to be split). None takes all five.
    """
    root = existing_folder(root, "studies/CT-0 to studies/CT-4")
    root = root / "studies" if (root / "studies").is_dir() else root
    return list_classes("mosmed", walk_folder(root), "scan", classes=classes or MOSMED_CLASSES)


def list_table(
    name: str,
    folder: Folder,
    table: Table,
    *,
    known: Mapping[str, str] | None = None,
    classes: str | Sequence[str] | None = None,
    group_pattern: str = EACH_FILE_ITS_OWN,
) -> Listing:
    """Scans anywhere below a folder, with a label table.

    Args:
        name: Of the set.
        folder: Its files.
        table: Their labels, and their patients where it has that column.
        known: Class by label, for a published set; None: each label is a class.
        classes: Labels to take, see `labels.classes_of_labels`; None or "all" takes every label.
        group_pattern: For a table without patients: see `listing.group_items`.
    """
    class_of, class_names, faults = classes_of_labels(table, known, class_choice(classes))
    scans = folder.scans(has_masks=known is not None)
    rows, unjoined = join(table, scans, folder.root)
    unique = len({scan.name for scan in scans}) == len(scans)
    items = []
    for scan, row in ((scan, rows[scan]) for scan in scans if scan in rows):
        scan_name = scan.name if unique else folder.name(scan)
        if row.label in class_of:
            group = row.group or scan_name * (group_pattern == EACH_FILE_ITS_OWN)
            items.append(Item(scan_name, class_names.index(class_of[row.label]), group, scan))
    items, ungrouped = group_items(items, group_pattern)
    faults += ungrouped
    faults += [nothing_to_read(folder, ("scan",))] if not scans else []
    faults += files_besides(folder, set(folder.with_ending(SCAN_ENDINGS)))
    faults += table.lacking("label", (folder.name(scan) for scan in scans if scan not in rows), "left out")
    faults = (*table.faults, *faults, *unjoined, *folder.faults)
    return Listing(name, folder.root, "scan", items, class_names, faults)


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


# --- Files to clips ---


def decode_video(source: Path, grid: Grid) -> np.ndarray:
    """A video on the grid, uint8 [T,H,W]."""
    return video.load_clip(source, frames=grid.frames, size=grid.size, stride=grid.stride, fit=grid.fit)


def decode_scan(path: Path, grid: Grid) -> np.ndarray:
    """A scan on the grid, uint8 [T,H,W]."""
    return to_grey_levels(ct.load_volume(path, **_volume_settings(grid)))


def read_scan(path: Path, grid) -> tuple[np.ndarray, ScanFacts]:
    """As `decode_scan`, with the facts of the file and without warnings; `grid` is a Grid, or has those fields."""
    volume, facts = ct.read_volume(path, **_volume_settings(grid))
    return to_grey_levels(volume), facts


def _volume_settings(grid) -> dict:
    return {"depth": grid.frames} | {name: getattr(grid, name) for name in ("size", "hu_window", "orientation")}


def to_grey_levels(volume: np.ndarray) -> np.ndarray:
    """Volume in [0,1] of any shape -> whole grey levels 0..255, uint8."""
    return np.rint(volume * 255).astype(np.uint8)
