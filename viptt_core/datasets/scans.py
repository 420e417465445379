"""CT scans (NIfTI): ImageCLEF's folder with its label CSV and lung masks, MosMedData's folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from viptt_core import ct
from viptt_core.clips import Grid, Item
from viptt_core.constants import TB_CLASSES
from viptt_core.datasets.labels import Columns, find_table, join, read_table
from viptt_core.datasets.listing import (
    SCAN_ENDINGS,
    Listing,
    class_choice,
    existing_folder,
    list_classes,
    scans_and_masks,
    walk_folder,
)
from viptt_core.errors import Fault, check_choice
from viptt_core.scan_facts import ScanFacts

IMAGECLEF_COLUMNS = Columns("FileName", "TypeOfTB")
IMAGECLEF_TEST = "TST_"  # names of the hidden test part begin so
MOSMED_CLASSES = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")
CROPS = ("lungs",)


def list_imageclef(
    root: str | Path, *, labels: str | Path | None = None, crop: str | None = None, masks: str = "masks1"
) -> Listing:
    """CT scans (NIfTI) and a label CSV, as ImageCLEF 2021 Tuberculosis comes.

    Labels are joined to scans on the file name, never on their order. Each scan is its own group.

    Args:
        root: Folder with the scans, in it or below it (mask folders are passed over).
        labels: The CSV with columns FileName, TypeOfTB (1..5); None looks for it in `root`.
        crop: None as the authors, or "lungs": the box around the lung mask.
        masks: Which mask set crops, the name of its folder: "masks1" or "masks2".

    Raises:
        DataError: no such folder, or no label table.
        SettingError: an unknown crop.
    """
    root = existing_folder(root, "scans (.nii.gz) and the label CSV")
    known = {str(k + 1): k for k in range(len(TB_CLASSES))}
    listing = list_table("imageclef", root, IMAGECLEF_COLUMNS, labels=labels, known=known, class_names=TB_CLASSES)
    hidden = [
        fault
        for fault in listing.faults
        if fault.kind == "no label" and fault.where.rsplit("/", 1)[-1].startswith(IMAGECLEF_TEST)
    ]
    unlabelled = tuple(root / fault.where for fault in hidden)
    listing = replace(listing, faults=tuple(f for f in listing.faults if f not in hidden), unlabelled=unlabelled)
    return listing if crop is None else _with_crop(listing, crop, masks)


def list_mosmed(root: str | Path, *, classes: str | Sequence[str] | None = None) -> Listing:
    """MosMedData COVID19_1110: NIfTI scans in the folders CT-0 to CT-4, by the share of the lung that is ill.

    Each scan is a patient of its own.

    Args:
        root: Folder with those folders, or the one above it with `studies/`.
        classes: Names of the folders, in label order; "CT-0, CT-1, CT-2, CT-3+CT-4" joins the last two (CT-4 is
            too rare to be split). None takes all that are there.

    Raises:
        DataError: no such folder.
    """
    root = existing_folder(root, "studies/CT-0 to studies/CT-4")
    root = root / "studies" if (root / "studies").is_dir() else root
    there = tuple(name for name in MOSMED_CLASSES if (root / name).is_dir())
    return list_classes("mosmed", walk_folder(root), "scan", classes=class_choice(classes) or there)


def list_table(
    name: str,
    root: Path,
    columns: Columns,
    *,
    labels: str | Path | None,
    known: dict[str, int] | None,
    class_names: Sequence[str] = (),
) -> Listing:
    """Scans anywhere below a folder, with a label table.

    Args:
        name, root: Of the set.
        columns: Of the table.
        labels: The table; None looks for the one in `root` that has these columns.
        known: Label as written -> index of the class; None numbers the labels that are there, sorted.
        class_names: In label order; not used where `known` is None.
    """
    path = Path(labels).expanduser() if labels else find_table(root, columns)
    table = read_table(path, columns)
    if known is None:
        class_names = sorted({label for _, label, _ in table.rows if label}, key=_as_number)
        known = {label: k for k, label in enumerate(class_names)}
    folder = walk_folder(root)
    scans, masks, unpaired = scans_and_masks(folder, has_masks=name == "imageclef")
    joined, faults = join(table, scans, root, known)
    names = [scan.name for scan in scans]
    unique = len(set(names)) == len(names)
    items = []
    for scan, label, patient in joined:
        scan_name = scan.name if unique else scan.relative_to(root).as_posix()
        items.append(Item(scan_name, label, patient or scan_name, scan))
    if not scans:
        what = f"holds no scan ({', '.join(SCAN_ENDINGS)})."
        faults.insert(0, Fault("no scans", ".", what, "Give the folder of scans."))
    return Listing(
        name,
        root,
        "scan",
        tuple(items),
        tuple(class_names),
        faults=(*table.faults, *folder.faults, *unpaired, *faults),
        place=(None if labels is None else str(path.resolve()), list(columns.needed)),
        masks=masks,
    )


def decode_scan(source: Path | tuple[Path, Path], grid: Grid) -> np.ndarray:
    """A scan on the grid, uint8 [T,H,W]; the source is its file, or the file and the mask to crop it by."""
    levels, facts = read_scan(source, grid)
    ct.warn_of(facts, source[0] if isinstance(source, tuple) else source)
    return levels


def read_scan(source: Path | tuple[Path, Path], grid) -> tuple[np.ndarray, ScanFacts]:
    """As `decode_scan`, with the facts of the file and without warnings; `grid` is a Grid, or has those fields."""
    path, mask = source if isinstance(source, tuple) else (source, None)
    volume, facts = ct.read_volume(
        path,
        depth=grid.frames,
        size=grid.size,
        hu_window=grid.hu_window,
        orientation=grid.orientation,
        mask=mask,
    )
    return to_grey_levels(volume), facts


def to_grey_levels(volume: np.ndarray) -> np.ndarray:
    """Volume in [0,1] of any shape -> whole grey levels 0..255, uint8."""
    return np.rint(volume * 255).astype(np.uint8)


def _with_crop(listing: Listing, crop: str, masks: str) -> Listing:
    """The listing with a mask beside each scan."""
    check_choice("crop", crop, CROPS)
    of_scan = listing.masks.get(masks, {})
    items = tuple(
        replace(item, source=(item.source, of_scan[item.source.name]))
        for item in listing.items
        if item.source.name in of_scan
    )
    faults = [
        Fault("missing mask", item.name, f"has no mask in {masks}/.", "Add it, or do not crop.", level="file")
        for item in listing.items
        if item.source.name not in of_scan
    ]
    place, settings = (*listing.place, crop, masks), listing.settings | {"crop": crop}
    return replace(listing, items=items, faults=(*listing.faults, *faults), place=place, settings=settings)


def _as_number(label: str) -> tuple:
    """Sorts "2" before "10", and numbers before words."""
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)
