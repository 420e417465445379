"""Data sets by name, each returned as one ClipSet: video folders, CT folders, synthetic twins of both.

The generators are imported where they are used: they are slow to import, and worker processes that read files
do without.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from viptt_core import ct, video
from viptt_core.constants import HU_WINDOW, PAPER_FRAMES, PAPER_SIZE, TB_CLASSES, UCF_CLASSES, UCF_GROUP_PATTERN
from viptt_core.env import code_version
from viptt_core.errors import DataError, SettingError
from viptt_core.labels import find_labels, read_labels
from viptt_core.presets import Preset, check_choice
from viptt_core.store import ClipSet, Item, build_clip_set

VIDEO_ENDINGS = (".avi", ".mp4", ".mkv", ".webm")
SCAN_ENDINGS = (".nii.gz", ".nii")
MASK_FOLDERS = ("masks1", "masks2", "findings")  # same file names as the scans, but no scans
# Synthetic scans are simulated on a grid this much finer than asked for, then prepared as real ones.
PHANTOM_OVERSAMPLING = 2
# What decides the pixels of each set, apart from its settings: a change makes it be decoded again.
DECODERS = {
    "ucf50": ("video",),
    "imageclef": ("ct", "nifti"),
    "phantom": ("ct", "nifti", "synthetic.phantom", "synthetic.patient", "synthetic.render"),
    "actions": ("video", "synthetic.actions", "synthetic.choreography"),
}


def ucf50(root: str | Path, *, frames: int = PAPER_FRAMES, size: int = PAPER_SIZE, stride: int = 1,
          fit: str = "stretch", classes: Sequence[str] | None = None, group_pattern: str = UCF_GROUP_PATTERN,
          on_error: str = "raise", n_jobs: int | None = None, progress: bool = True) -> ClipSet:  # fmt: skip
    """Videos in one folder a class, as UCF50 comes: `root/Class/*.avi` (or .mp4, .mkv, .webm).

    Args:
        root: The folder of class folders.
        frames, size, stride, fit: The grid of a clip, see `video.load_clip`. Videos with fewer
            frames are left out and listed.
        classes: Names of the class folders, in label order; None takes the paper's ten when all of
            them are there, else every folder with videos, sorted.
        group_pattern: Regular expression searched in the file's stem; its first capture group names
            the group. The default is UCF's `v_Class_gNN`.
        on_error, n_jobs, progress: See `store.build_clip_set`.

    Raises:
        DataError: no such folder, no videos, a class without a folder, a name the group pattern does
            not match, or unreadable videos.
        SettingError: the group pattern is no regular expression with a capture group.
    """
    root = _existing_folder(root, "videos, one folder a class")
    place = [str(root.resolve()), classes and list(classes)]
    pattern = _compile_group_pattern(group_pattern)
    by_class: dict[str, list[Path]] = {}
    for path in sorted(root.glob("*/*")):
        if path.suffix.lower() in VIDEO_ENDINGS and not path.name.startswith("."):
            by_class.setdefault(path.parent.name, []).append(path)
    if classes is None:
        classes = UCF_CLASSES if set(UCF_CLASSES) <= set(by_class) else tuple(by_class)
    for name in classes:
        if name not in by_class:
            raise DataError(
                f"has no videos of class '{name}'.", path=root,
                remedy=f"Folders with videos: {', '.join(by_class) or 'none'} (endings {', '.join(VIDEO_ENDINGS)}).",
            )  # fmt: skip
    if len(classes) < 2:
        raise DataError("fewer than two classes of videos.", path=root,
                        remedy="Give the folder that holds one folder a class.")  # fmt: skip
    items = [
        Item(f"{name}/{path.name}", label, _group_of(path, pattern), path)
        for label, name in enumerate(classes)
        for path in by_class[name]
    ]
    return build_clip_set(
        items,
        partial(video.load_clip, frames=frames, size=size, stride=stride, fit=fit),
        settings=_settings("ucf50", frames=frames, size=size, stride=stride, fit=fit),
        class_names=tuple(classes), place=place, on_error=on_error, n_jobs=n_jobs, progress=progress,
    )  # fmt: skip


def imageclef(root: str | Path, *, frames: int = PAPER_FRAMES, size: int = PAPER_SIZE,
              hu_window: tuple[float, float] = HU_WINDOW, labels: str | Path | None = None, dtype: str = "uint8",
              on_error: str = "raise", n_jobs: int | None = None, progress: bool = True) -> ClipSet:  # fmt: skip
    """CT scans (NIfTI) and a label CSV, as ImageCLEF 2021 Tuberculosis comes.

    Labels are joined to scans on the file name, never on their order. Each scan is its own group.

    Args:
        root: Folder with the scans, in it or below it (mask folders are passed over).
        frames, size, hu_window: The grid and HU window of a volume, see `ct.load_volume`.
        labels: The CSV with columns FileName, TypeOfTB (1..5); None looks for it in `root`.
        dtype: "uint8", or "float16" for grey levels with fractions at twice the space.
        on_error, n_jobs, progress: See `store.build_clip_set`.

    Raises:
        DataError: folder, CSV or scans are missing, a label is unknown, a row is there twice, two
            scans share a name, or scans are unreadable.
    """
    root = _existing_folder(root, "scans (.nii.gz) and the label CSV")
    table = find_labels(root) if labels is None else Path(labels)
    place = [str(root.resolve()), None if labels is None else str(table.resolve())]
    label_of = read_labels(table)
    paths = [
        path
        for path in sorted(root.rglob("*.nii*"))
        if path.name.endswith(SCAN_ENDINGS)
        and not path.name.startswith(".")
        and not set(MASK_FOLDERS) & set(path.relative_to(root).parts[:-1])
    ]
    twice = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
    if twice:
        raise DataError(f"two scans are named {twice[0]}.", path=root, remedy="Keep one of them.")
    missing = sorted(set(label_of) - {path.name for path in paths})
    if missing and on_error == "raise":
        raise DataError(
            f"names {len(missing)} scans that are not below {root}: {', '.join(missing[:10])}"
            + (" ..." if len(missing) > 10 else "") + ".", path=table,
            remedy="Add the scans, or leave them out with on_error='skip' (they are then listed).",
        )  # fmt: skip
    excluded = [(name, "the label CSV names it, but there is no such scan") for name in missing]
    excluded += [(path.name, f"no label in {table.name}") for path in paths if path.name not in label_of]
    items = [Item(path.name, label_of[path.name], path.name, path) for path in paths if path.name in label_of]
    return build_clip_set(
        items,
        partial(_decode_scan, frames=frames, size=size, hu_window=tuple(hu_window), dtype=dtype),
        settings=_settings("imageclef", frames=frames, size=size, hu_window=list(hu_window)),
        class_names=TB_CLASSES, place=place, dtype=dtype, excluded=excluded,
        on_error=on_error, n_jobs=n_jobs, progress=progress,
    )  # fmt: skip


def phantom(root: None = None, *, frames: int = PAPER_FRAMES, size: int = PAPER_SIZE,
            hu_window: tuple[float, float] = HU_WINDOW, n: int = 300, seed: int = 0, finding: bool = True,
            dtype: str = "uint8", n_jobs: int | None = None, progress: bool = True) -> ClipSet:  # fmt: skip
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
        partial(_simulate_scan, seed=seed, frames=frames, size=size, hu_window=tuple(hu_window), finding=finding,
                dtype=dtype),
        settings=_settings("phantom", version=generator.VERSION, n=n, seed=seed, finding=finding,
                           frames=frames, size=size, hu_window=list(hu_window), oversampling=PHANTOM_OVERSAMPLING),
        class_names=TB_CLASSES, dtype=dtype, synthetic=True, n_jobs=n_jobs, progress=progress,
    )  # fmt: skip


def actions(root: None = None, *, frames: int = PAPER_FRAMES, size: int = PAPER_SIZE, stride: int = 1,
            fit: str = "stretch", n: int = 500, seed: int = 0, n_jobs: int | None = None,
            progress: bool = True) -> ClipSet:  # fmt: skip
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
        settings=_settings("actions", version=generator.VERSION, n=n, seed=seed,
                           frames=frames, size=size, stride=stride, fit=fit),
        class_names=UCF_CLASSES, synthetic=True, n_jobs=n_jobs, progress=progress,
    )  # fmt: skip


ADAPTERS: dict[str, Callable[..., ClipSet]] = {
    "ucf50": ucf50, "imageclef": imageclef, "phantom": phantom, "actions": actions,
}  # fmt: skip
VIDEO_SETS = ("ucf50", "actions")
SYNTHETIC_SETS = ("phantom", "actions")


def load_dataset(name: str, root: str | Path | None = None, **settings) -> ClipSet:
    """Decode a data set, or open it if it was decoded before with the same files and settings.

    Args:
        name: "ucf50", "imageclef", "phantom" or "actions".
        root: Folder of a real set; None or "" for a synthetic one.
        settings: Keyword arguments of the adapter of that name.

    Returns:
        The set; `report()` says what is in it and what was left out.

    Raises:
        SettingError: unknown name or setting, or a root missing or not wanted.
        DataError: the files cannot be used, see the adapters.
    """
    check_choice("dataset", name, tuple(ADAPTERS))
    adapter = ADAPTERS[name]
    known = [p for p in inspect.signature(adapter).parameters if p != "root"]
    for setting in settings:
        check_choice(f"setting of '{name}'", setting, known)
    return adapter(root or None, **settings)


def load_for(preset: Preset, name: str, root: str | Path | None = None, **settings) -> ClipSet:
    """Load a data set on the grid a preset asks for.

    Args:
        preset: Gives frames, size, and for videos stride and fit; the size n of a synthetic set.
        name, root: See `load_dataset`.
        settings: Further settings, which win over the preset's. Those that are None or "" are dropped.
    """
    check_choice("dataset", name, tuple(ADAPTERS))
    grid = {"frames": preset.frames, "size": preset.size}
    if name in VIDEO_SETS:
        grid |= {"stride": preset.stride, "fit": preset.fit}
    if name in SYNTHETIC_SETS:
        grid["n"] = preset.n_videos if name in VIDEO_SETS else preset.n_scans
    given = {setting: value for setting, value in settings.items() if value not in (None, "")}
    return load_dataset(name, root, **(grid | given))


def _settings(name: str, **settings) -> dict:
    return {"set": name, "code": code_version(DECODERS[name]), **settings}


def _decode_scan(path: Path, *, frames: int, size: int, hu_window, dtype: str) -> np.ndarray:
    return _to_grey_levels(ct.load_volume(path, depth=frames, size=size, hu_window=hu_window), dtype)


def _simulate_scan(source: tuple[int, int], *, seed: int, frames: int, size: int, hu_window, finding: bool,
                   dtype: str) -> np.ndarray:  # fmt: skip
    from viptt_core.synthetic.phantom import make_phantom

    index, label = source
    scan = make_phantom((seed, index), label, size=round(PHANTOM_OVERSAMPLING * size), finding=finding)
    return _to_grey_levels(ct.prepare_volume(scan.hu, depth=frames, size=size, hu_window=hu_window), dtype)


def _simulate_clip(scene: tuple[int, int, int], *, seed: int, frames: int, size: int, stride: int, fit: str):
    from viptt_core.synthetic.actions import make_clip

    rgb = make_clip(*scene, seed=seed, frames=frames, stride=stride)
    return video.fit_frames(video.grey_frames(rgb), size=size, fit=fit)


def _scene(i: int, groups: int) -> tuple[int, int, int]:
    """Label, group and clip number of the i-th synthetic video: classes first, then groups, then clips."""
    rest, label = divmod(i, len(UCF_CLASSES))
    clip, group = divmod(rest, groups)
    return label, group + 1, clip + 1


def _to_grey_levels(volume: np.ndarray, dtype: str) -> np.ndarray:
    """Volume in [0,1] -> grey levels 0..255: whole ones (uint8), or to within 0.0625 (float16)."""
    levels = volume * 255
    return np.rint(levels).astype(np.uint8) if dtype == "uint8" else levels.astype(np.float16)


def _existing_folder(root: str | Path | None, content: str) -> Path:
    if not root:
        raise SettingError("this data set needs a folder.", remedy=f"Give data_root, the folder with {content}.")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError("no such folder.", path=root, remedy=f"Give the folder with {content}.")
    return root


def _no_root(name: str, root) -> None:
    if root:
        raise SettingError(f"'{name}' is simulated and reads no folder.", remedy="Leave data_root empty, or give "
                           "dataset 'imageclef' or 'ucf50' for files on disk.")  # fmt: skip


def _compile_group_pattern(text: str) -> re.Pattern:
    remedy = r"Give a regular expression with one capture group, such as '(seq\d+)'."
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise SettingError(f"group_pattern '{text}' is no regular expression ({error}).", remedy=remedy) from error
    if pattern.groups < 1:
        raise SettingError(f"group_pattern '{text}' has no capture group.", remedy=remedy)
    return pattern


def _group_of(path: Path, pattern: re.Pattern) -> str:
    match = pattern.search(path.stem)
    if match is None:
        raise DataError(
            f"the group pattern '{pattern.pattern}' does not match its name.", path=path,
            remedy=r"Give group_pattern: a regular expression whose first group names what must stay "
            r"together, such as '(seq\d+)'; '(.*)' makes each file its own group.",
        )  # fmt: skip
    return match[1]
