"""The built-in synthetic sets: phantoms for scans, actions for videos. Nothing is read.

The generators are imported where they are used: they are slow to import, and worker processes that read files
do without.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from viptt_core import ct, video
from viptt_core.clips import ClipSet, Item
from viptt_core.constants import HU_WINDOW, PAPER_FRAMES, PAPER_SIZE, TB_CLASSES, UCF_CLASSES
from viptt_core.datasets.scans import to_grey_levels
from viptt_core.errors import SettingError
from viptt_core.files import code_version
from viptt_core.store import build_clip_set

# Synthetic scans are simulated on a grid this much finer than asked for, then prepared as real ones.
PHANTOM_OVERSAMPLING = 2
# Modules that decide pixels, labels and groups, see `scans.DECODER`.
PHANTOM_CODE = ("ct", "nifti", "datasets.simulated", "synthetic.phantom", "synthetic.patient", "synthetic.render")
ACTIONS_CODE = ("video", "datasets.simulated", "synthetic.actions", "synthetic.choreography")


def phantom(
    root: None = None,
    *,
    frames: int = PAPER_FRAMES,
    size: int = PAPER_SIZE,
    hu_window: tuple[float, float] = HU_WINDOW,
    n: int = 300,
    seed: int = 0,
    finding: bool = True,
    dtype: str = "uint8",
    n_jobs: int | None = None,
    progress: bool = True,
) -> ClipSet:
    """Synthetic chest CT with the five TB types, in ImageCLEF's class frequencies.

    Args:
        root: Must be empty: nothing is read.
        frames, size, hu_window: As for `imageclef`; each phantom goes the way of a real scan.
        n: Number of phantoms, each a patient (group) of its own.
        seed: Of the whole cohort.
        finding: False leaves the disease out of the same patients (a control: nothing to learn).
        dtype: As for `imageclef`.
        n_jobs, progress: See `store.build_clip_set`.
    """
    from viptt_core.synthetic import phantom as generator

    _no_root("phantom", root)
    labels = generator.cohort_labels(n, seed)
    names = [f"PHA_{i + 1:04d}" for i in range(n)]
    items = [Item(name, int(labels[i]), name, (i, int(labels[i]))) for i, name in enumerate(names)]
    return build_clip_set(
        items,
        partial(
            _simulate_scan,
            seed=seed,
            frames=frames,
            size=size,
            hu_window=tuple(hu_window),
            finding=finding,
            dtype=dtype,
        ),
        settings={
            "set": "phantom",
            "code": code_version(PHANTOM_CODE),
            "version": generator.VERSION,
            "n": n,
            "seed": seed,
            "finding": finding,
            "frames": frames,
            "size": size,
            "hu_window": list(hu_window),
            "oversampling": PHANTOM_OVERSAMPLING,
        },
        class_names=TB_CLASSES,
        dtype=dtype,
        synthetic=True,
        n_jobs=n_jobs,
        progress=progress,
    )


def actions(
    root: None = None,
    *,
    frames: int = PAPER_FRAMES,
    size: int = PAPER_SIZE,
    stride: int = 1,
    fit: str = "stretch",
    n: int = 500,
    seed: int = 0,
    n_jobs: int | None = None,
    progress: bool = True,
) -> ClipSet:
    """Synthetic videos of ten human activities, in 25 groups a class, as UCF50 has them.

    Args:
        root: Must be empty: nothing is read.
        frames, size, stride, fit: As for `ucf50`.
        n: Number of clips, spread evenly over classes and groups.
        seed: Of the whole set.
        n_jobs, progress: See `store.build_clip_set`.
    """
    from viptt_core.synthetic import actions as generator

    _no_root("actions", root)
    if n < len(UCF_CLASSES):
        raise SettingError(f"n is {n}.", remedy=f"Give at least one clip for each of {len(UCF_CLASSES)} classes.")
    items = []
    for scene in sorted(_scene(i, generator.UCF_GROUPS) for i in range(n)):
        name = generator.clip_name(*scene)
        items.append(Item(name, scene[0], name.rsplit("_", 1)[0], scene))
    return build_clip_set(
        items,
        partial(_simulate_clip, seed=seed, frames=frames, size=size, stride=stride, fit=fit),
        settings={
            "set": "actions",
            "code": code_version(ACTIONS_CODE),
            "version": generator.VERSION,
            "n": n,
            "seed": seed,
            "frames": frames,
            "size": size,
            "stride": stride,
            "fit": fit,
        },
        class_names=UCF_CLASSES,
        synthetic=True,
        n_jobs=n_jobs,
        progress=progress,
    )


def _simulate_scan(
    source: tuple[int, int], *, seed: int, frames: int, size: int, hu_window, finding: bool, dtype: str
) -> np.ndarray:
    from viptt_core.synthetic.phantom import make_phantom

    index, label = source
    scan = make_phantom((seed, index), label, size=round(PHANTOM_OVERSAMPLING * size), finding=finding)
    return to_grey_levels(ct.prepare_volume(scan.hu, depth=frames, size=size, hu_window=hu_window), dtype)


def _simulate_clip(scene: tuple[int, int, int], *, seed: int, frames: int, size: int, stride: int, fit: str):
    from viptt_core.synthetic.actions import make_clip

    rgb = make_clip(*scene, seed=seed, frames=frames, stride=stride)
    return video.fit_frames(video.grey_frames(rgb), size=size, fit=fit)


def _scene(i: int, groups: int) -> tuple[int, int, int]:
    """Label, group and clip number of the i-th synthetic video: classes first, then groups, then clips."""
    rest, label = divmod(i, len(UCF_CLASSES))
    clip, group = divmod(rest, groups)
    return label, group + 1, clip + 1


def _no_root(name: str, root) -> None:
    if root:
        raise SettingError(
            f"'{name}' is simulated and reads no folder.",
            remedy="Leave data_root empty, or name another data set for files on disk.",
        )
