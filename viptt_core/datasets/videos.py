"""Videos, one folder a class: UCF50, UCF101 with its published parts, and any folder like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from viptt_core import video
from viptt_core.clips import Grid
from viptt_core.constants import UCF_CLASSES, UCF_GROUP_PATTERN
from viptt_core.datasets.listing import (
    VIDEO_ENDINGS,
    Listing,
    chosen_classes,
    class_choice,
    class_folders,
    compile_group_pattern,
    existing_folder,
    items_of_classes,
    misplaced_files,
    stray_files,
)
from viptt_core.errors import Fault, SettingError

UCF101_LISTS = "ucfTrainTestlist"  # folder of the published lists, as their archive unpacks


def decode_video(source: Path, grid: Grid) -> np.ndarray:
    """A video on the grid, uint8 [T,H,W]."""
    return video.load_clip(source, frames=grid.frames, size=grid.size, stride=grid.stride, fit=grid.fit)


def list_ucf50(
    root: str | Path, *, classes: str | Sequence[str] | None = None, group_pattern: str = UCF_GROUP_PATTERN
) -> Listing:
    """Videos in one folder a class, as UCF50 comes: `root/Class/*.avi` (or .mp4, .mkv, .webm).

    Args:
        root: The folder of class folders, or the one above it, named as the archive unpacks.
        classes: Names of the class folders, in label order, as a sequence or "A, B"; "A+B" is one class of two
            folders. None takes the paper's ten when all of them are there, else every folder; "all" every folder.
        group_pattern: Regular expression searched in the file's stem; its first capture group names
            the group. The default is UCF's `v_Class_gNN`.

    Raises:
        DataError: no such folder.
        SettingError: the group pattern is no regular expression with a capture group.
    """
    root = _unpacked(existing_folder(root, "videos, one folder a class"), "UCF50")
    return list_video_folders("ucf50", root, classes=classes, group_pattern=group_pattern)


def list_video_folders(name: str, root: Path, *, classes: str | Sequence[str] | None, group_pattern: str) -> Listing:
    """Videos in one folder a class; see `list_ucf50` for which classes are taken."""
    pattern = compile_group_pattern(group_pattern)
    found = class_folders(root, VIDEO_ENDINGS)
    wanted = class_choice(classes)
    if not wanted and set(UCF_CLASSES) <= set(found):
        wanted = UCF_CLASSES
    chosen, faults = chosen_classes(root, found, () if wanted == ("all",) else wanted, "videos")
    items, no_group = items_of_classes(root, chosen, pattern)
    folders = [root / folder for label in chosen for folder in label.split("+") if folder in found]
    return Listing(
        name,
        root,
        "video",
        tuple(items),
        tuple(chosen),
        faults=(*faults, *no_group, *stray_files(root, folders, VIDEO_ENDINGS), *misplaced_files(root, VIDEO_ENDINGS)),
        place=(list(class_choice(classes)) or None,),
    )


def list_ucf101(root: str | Path, *, classes: str | Sequence[str] | None = None, fold: int = 1) -> Listing:
    """UCF101 with the training and test part of one of its three published splits, which keep groups together.

    Args:
        root: Folder with `UCF-101/Class/*.avi` and `ucfTrainTestlist/`, as its archives unpack.
        classes: None takes the paper's ten, "all" every class, or names as for `list_ucf50`.
        fold: Which published split: 1, 2 or 3.

    Raises:
        DataError: no such folder.
        SettingError: no such fold.
    """
    if fold not in (1, 2, 3):
        raise SettingError(f"fold is {fold}.", remedy="UCF101 has the splits 1, 2 and 3.")
    top = existing_folder(root, f"UCF-101/ and {UCF101_LISTS}/")
    root = _unpacked(top, "UCF-101")
    listing = list_video_folders("ucf101", root, classes=classes, group_pattern=UCF_GROUP_PATTERN)
    lists = next((folder for folder in (top / UCF101_LISTS, top.parent / UCF101_LISTS) if folder.is_dir()), None)
    if lists is None:
        what = f"the folder {UCF101_LISTS} with the published splits is not beside the videos."
        missing = Fault("missing split lists", ".", what, "Get it with: viptt data get ucf101.")
        return replace(listing, faults=(*listing.faults, missing))
    part_of: dict[str, str] = {}
    faults = []
    for part in ("train", "test"):
        table = lists / f"{part}list{fold:02d}.txt"
        if not table.is_file():
            faults.append(
                Fault(
                    "missing split lists",
                    f"{lists.name}/{table.name}",
                    "no such file.",
                    "Get it again with: viptt data get ucf101.",
                )
            )
            continue
        for line in table.read_text(encoding="utf-8").splitlines():
            if name := line.split(" ")[0].strip():
                part_of[name] = part
    folders = {item.name.split("/")[0] for item in listing.items}
    there = {item.name for item in listing.items}
    faults += [
        Fault(
            "missing file",
            name,
            f"{lists.name} names it, but there is no such video.",
            "Unpack the archive again.",
            level="file",
        )
        for name in part_of
        if name.split("/")[0] in folders and name not in there
    ]
    faults += [
        Fault("not in the split lists", item.name, f"is in no list of split {fold}.", level="left out")
        for item in listing.items
        if part_of and item.name not in part_of
    ]
    items = tuple(replace(item, part=part_of[item.name]) for item in listing.items if item.name in part_of)
    return replace(listing, items=items, faults=(*listing.faults, *faults), place=(*listing.place, fold))


def _unpacked(root: Path, name: str) -> Path:
    """The folder that an archive unpacks to, if the one given is that above it."""
    return root / name if (root / name).is_dir() and not class_folders(root, VIDEO_ENDINGS) else root
