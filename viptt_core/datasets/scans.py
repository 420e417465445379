"""CT scans (NIfTI): with a label table, as ImageCLEF's, or in one folder a class, as MosMedData's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from viptt_core import ct
from viptt_core.clips import Grid, Item
from viptt_core.constants import TB_CLASSES
from viptt_core.datasets.labels import Columns, Table, classes_of_labels, join, label_table
from viptt_core.datasets.listing import (
    EACH_FILE_ITS_OWN,
    SCAN_ENDINGS,
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
from viptt_core.errors import Fault
from viptt_core.scan_facts import ScanFacts

IMAGECLEF_COLUMNS = Columns("FileName", "TypeOfTB", remedy="Call its columns FileName and TypeOfTB")
IMAGECLEF_TEST = "TST_"  # names of the hidden test set begin so
MOSMED_CLASSES = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")


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
        table: Its labels, and its patients where it has that column.
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
    what, lacking = f"no label in {table.path.name}.", [folder.name(scan) for scan in scans if scan not in rows]
    if table.complete:
        faults += [Fault("no label", name, what, "Add a row for it.", "left out") for name in lacking]
    faults = (*table.faults, *faults, *unjoined, *folder.faults)
    return Listing(name, folder.root, "scan", items, class_names, faults)


def decode_scan(path: Path, grid: Grid) -> np.ndarray:
    """A scan on the grid, uint8 [T,H,W]."""
    levels, facts = read_scan(path, grid)
    ct.warn_of_scan(facts, path)
    return levels


def read_scan(path: Path, grid) -> tuple[np.ndarray, ScanFacts]:
    """As `decode_scan`, with the facts of the file and without warnings; `grid` is a Grid, or has those fields."""
    settings = {name: getattr(grid, name) for name in ("size", "hu_window", "orientation")}
    volume, facts = ct.read_volume(path, depth=grid.frames, **settings)
    return to_grey_levels(volume), facts


def to_grey_levels(volume: np.ndarray) -> np.ndarray:
    """Volume in [0,1] of any shape -> whole grey levels 0..255, uint8."""
    return np.rint(volume * 255).astype(np.uint8)
