"""Videos, one folder a class: UCF50, and UCF101 with its published parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from viptt_core import video
from viptt_core.clips import Grid
from viptt_core.constants import UCF_CLASSES, UCF_GROUP_PATTERN
from viptt_core.datasets.labels import with_groups
from viptt_core.datasets.listing import (
    EACH_FILE_ITS_OWN,
    VIDEO_ENDINGS,
    Folder,
    Listing,
    existing_folder,
    list_classes,
    walk_folder,
)
from viptt_core.errors import Fault, SettingError, check_choice

UCF101_LISTS = "ucfTrainTestlist"  # folder of the published lists, as their archive unpacks


def decode_video(source: Path, grid: Grid) -> np.ndarray:
    """A video on the grid, uint8 [T,H,W]."""
    return video.load_clip(source, frames=grid.frames, size=grid.size, stride=grid.stride, fit=grid.fit)


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
    folder = _unpacked(existing_folder(root, "videos, one folder a class"), "UCF50")
    if not groups:
        return _list_ucf("ucf50", folder, classes, group_pattern)
    if group_pattern != UCF_GROUP_PATTERN:
        raise SettingError("groups and group_pattern both say what belongs together.", remedy="Give one of them.")
    return with_groups(_list_ucf("ucf50", folder, classes, EACH_FILE_ITS_OWN), folder, groups)


def list_ucf101(root: str | Path, *, classes: str | Sequence[str] | None = None, fold: int = 1) -> Listing:
    """UCF101 with the training and test part of one of its three published splits, which keep groups together.

    Args:
        root: Folder with `UCF-101/Class/*.avi` and `ucfTrainTestlist/`, as its archives unpack.
        classes: As for `list_ucf50`.
        fold: Which published split: 1, 2 or 3.
    """
    check_choice("fold", fold, (1, 2, 3))
    top = existing_folder(root, f"UCF-101/ and {UCF101_LISTS}/")
    listing = _list_ucf("ucf101", _unpacked(top, "UCF-101"), classes, UCF_GROUP_PATTERN)
    part_of, faults = _published_parts(top, fold)
    if not part_of:
        return replace(listing, faults=(*listing.faults, *faults))
    names = {item.name for item in listing.items}
    used = {name.split("/")[0] for name in names}
    what = f"{UCF101_LISTS} names it, but there is no such video."
    faults += [
        Fault("missing file", name, what, "Unpack the archive again.", level="file")
        for name in part_of
        if name.split("/")[0] in used and name not in names
    ]
    faults += [
        Fault("not in the split lists", item.name, f"is in no list of split {fold}.", level="left out")
        for item in listing.items
        if item.name not in part_of
    ]
    items = tuple(replace(item, part=part_of[item.name]) for item in listing.items if item.name in part_of)
    return replace(listing, items=items, faults=(*listing.faults, *faults))


def _published_parts(top: Path, fold: int) -> tuple[dict[str, str], list[Fault]]:
    """Name of a video -> its part, by the lists in the folder of the videos or beside it."""
    lists = next((place for place in (top, top.parent) if (place / UCF101_LISTS).is_dir()), top) / UCF101_LISTS
    part_of, faults = {}, []
    for part in ("train", "test"):
        table = lists / f"{part}list{fold:02d}.txt"
        if table.is_file():
            lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
            part_of |= {name: part for line in lines if (name := line.split(" ")[0].strip())}
        else:
            what, remedy = "no such file; it holds the published splits.", "Get it with: viptt data get ucf101."
            faults.append(Fault("missing split lists", f"{UCF101_LISTS}/{table.name}", what, remedy))
    return part_of, faults


def _list_ucf(name: str, folder: Folder, classes: str | Sequence[str] | None, group_pattern: str) -> Listing:
    papers = UCF_CLASSES if set(UCF_CLASSES) <= set(folder.class_folders(VIDEO_ENDINGS)) else None
    return list_classes(name, folder, "video", classes=classes or papers, group_pattern=group_pattern)


def _unpacked(root: Path, name: str) -> Folder:
    """The folder that an archive unpacks to, if the one given is that above it."""
    folder = walk_folder(root)
    inside = (root / name).is_dir() and not folder.class_folders(VIDEO_ENDINGS)
    return walk_folder(root / name) if inside else folder
