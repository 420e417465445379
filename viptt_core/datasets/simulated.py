"""The built-in synthetic sets: phantoms for scans, actions for videos; the generators are slow to import."""

from __future__ import annotations

import numpy as np

from viptt_core import ct, video
from viptt_core.clips import Grid, Item
from viptt_core.constants import TB_CLASSES, UCF_CLASSES
from viptt_core.datasets.folders import to_grey_levels
from viptt_core.datasets.listing import Listing
from viptt_core.errors import SettingError

# Synthetic scans are simulated on a grid this much finer than asked for, then prepared as real ones.
PHANTOM_OVERSAMPLING = 2


def list_phantoms(root: None = None, *, n: int = 300, seed: int = 0, finding: bool = True) -> Listing:
    """Synthetic chest CT with the five TB types, in ImageCLEF's class frequencies; each goes the way of a real scan.

    Each of the `n` is a patient (group) of its own. Without `finding` the disease is left out of the same patients (a
    control: nothing to learn).
    """
    from viptt_core.synthetic import phantom as generator

    labels = generator.cohort_labels(n, seed).tolist()
    names = [f"PHA_{i + 1:04d}" for i in range(n)]
    items = tuple(Item(names[i], label, names[i], (seed, i, label, finding)) for i, label in enumerate(labels))
    settings = {"version": generator.VERSION, "n": n, "seed": seed, "finding": finding}
    settings["oversampling"] = PHANTOM_OVERSAMPLING
    return Listing("phantom", None, "phantom", items, TB_CLASSES, settings=settings)


def list_actions(root: None = None, *, n: int = 500, seed: int = 0) -> Listing:
    """Synthetic videos of ten human activities, `n` clips spread evenly over classes, then over 25 groups each."""
    from viptt_core.synthetic import actions as generator

    if n < len(UCF_CLASSES):
        raise SettingError(f"n is {n}.", remedy=f"Give at least one clip for each of {len(UCF_CLASSES)} classes.")
    items = []
    for i in range(n):
        rest, label = divmod(i, len(UCF_CLASSES))
        clip, group = divmod(rest, generator.UCF_GROUPS)
        scene = (label, group + 1, clip + 1)
        name = generator.clip_name(*scene)
        items.append(Item(name, label, name.rsplit("_", 1)[0], (seed, scene)))
    items.sort(key=lambda item: item.source)
    settings = {"version": generator.VERSION, "n": n, "seed": seed}
    return Listing("actions", None, "action", tuple(items), UCF_CLASSES, settings=settings)


def simulate_scan(source: tuple[int, int, int, bool], grid: Grid) -> np.ndarray:
    """The phantom of (seed, index, label, finding) on the grid, uint8 [T,H,W]."""
    from viptt_core.synthetic.phantom import make_phantom

    seed, index, label, finding = source
    size = PHANTOM_OVERSAMPLING * grid.size
    scan = make_phantom((seed, index), label, size=size, finding=finding, depth=grid.frames)
    volume = ct.prepare_volume(scan.hu, depth=grid.frames, size=grid.size, hu_window=grid.hu_window)
    return to_grey_levels(volume)


def simulate_clip(source: tuple[int, tuple[int, int, int]], grid: Grid) -> np.ndarray:
    """The clip of (seed, (label, group, number)) on the grid, uint8 [T,H,W]."""
    from viptt_core.synthetic.actions import make_clip

    seed, scene = source
    rgb = make_clip(*scene, seed=seed, frames=grid.frames, stride=grid.stride)
    return video.fit_frames(rgb, size=grid.size, fit=grid.fit)
