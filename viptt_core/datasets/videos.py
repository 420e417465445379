"""Videos, one folder a class, as UCF50 has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from viptt_core import video
from viptt_core.clips import Grid
from viptt_core.constants import UCF_CLASSES, UCF_GROUP_PATTERN
from viptt_core.datasets.labels import with_groups
from viptt_core.datasets.listing import (
    EACH_FILE_ITS_OWN,
    VIDEO_ENDINGS,
    Listing,
    existing_folder,
    list_classes,
    walk_folder,
)
from viptt_core.errors import SettingError


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
