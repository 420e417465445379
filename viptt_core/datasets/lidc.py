"""Lung nodules of LIDC-IDRI as cubes in one .npz file: five types, or malignancy, by the radiologists' mean ratings.

The arrays, of N nodules: `volumes` uint8 [N,X,Y,Z] (HU clipped to [-1000, 400], 1 mm, slices last, padded with empty
planes), `names`, `patient` (text), `malignancy_label` (0, 1, else not clear), `diameter_mm`, `attr_mean` [N,R] and
`attr_names` [R]. Source: Armato et al. (2011), Medical Physics 38.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from viptt_core import files
from viptt_core.clips import Item
from viptt_core.datasets.arrays import Volume, find_file, opened
from viptt_core.datasets.labels import NO_GROUP, form
from viptt_core.datasets.listing import Listing
from viptt_core.errors import DataError, Fault, SettingError, check_choice, check_counts

TASKS = {
    "types": ("ground-glass", "part-solid", "calcified", "solid irregular", "solid"),
    "malignancy": ("benign", "malignant"),
}
RATINGS = ("Texture_value", "Calcification_value", "Spiculation_value", "Lobulation_value")
_ARRAYS = ("volumes", "names", "patient", "malignancy_label", "diameter_mm", "attr_mean", "attr_names")


def list_lidc(root: str | Path, *, task: str = "types", centre: int = 24) -> Listing:
    """Nodules of LIDC-IDRI, to be resampled linearly to the grid; empty planes are left out before; group: patient.

    Args:
        root: The .npz file, or the folder in which it is the only one.
        task: "types", see `nodule_types`; or "malignancy", benign or malignant without those that are not clear.
        centre: Pixels (mm) a side of the middle of each slice that are kept.

    Raises:
        DataError: no such file, or not in this layout.
        SettingError: no such task, or a centre larger than the slices.
    """
    check_choice("task", task, tuple(TASKS))
    check_counts(centre=centre)
    columns = _read_columns(path := find_file(root))
    if centre > (side := min(columns["volumes"].shape[1:3])):
        raise SettingError(f"centre is {centre}.", remedy=f"The slices have {side} pixels a side: give no more.")
    labels = columns["malignancy_label"].astype(np.int64)
    if task == "types":
        ratings = dict(zip(columns["attr_names"].tolist(), columns["attr_mean"].T, strict=True))
        labels = nodule_types(*(ratings[name] for name in RATINGS))
    digest, items = files.file_digest(path, "md5"), []
    for n in np.flatnonzero(np.isin(labels, range(len(TASKS[task])))).tolist():
        source = Volume(path, "volumes", n, digest, slice_axis=2, padded=True, centre=centre)
        name, patient, diameter = (columns[column][n].item() for column in ("names", "patient", "diameter_mm"))
        items.append(Item(str(name), int(labels[n]), str(patient), source, covariates={"diameter_mm": diameter}))
    settings, faults = {"file": digest, "task": task, "centre": centre}, tuple(_faults(items, TASKS[task]))
    return Listing("lidc", path, "array", tuple(items), TASKS[task], faults, settings=settings)


def _faults(items: Sequence[Item], names: Sequence[str]) -> Iterator[Fault]:
    """Classes without a nodule, names that occur twice, nodules of no patient."""
    for label in sorted({*range(len(names))} - {item.label for item in items}):
        yield Fault("class without volumes", ".", f"no volume is of the class {names[label]}.", "Take the other task.")
    for name, count in Counter(item.name for item in items).items():
        if count > 1:
            yield Fault("two volumes of one name", name, f"is the name of {count} volumes.", "Give each its own.")
    if blank := [item.name for item in items if form(item.group) in NO_GROUP]:
        yield Fault("no patient", blank[0], f"{len(blank)} volumes have no patient.", "Fill them in.")


def nodule_types(
    texture: np.ndarray, calcification: np.ndarray, spiculation: np.ndarray, lobulation: np.ndarray
) -> np.ndarray:
    """Index into the five types, int64 [N], of mean ratings [N]: the first rule that fits decides, "solid" is the rest.

    Texture runs from 1 (ground-glass) to 5 (solid), calcification from 1 (popcorn) to 6 (none), the others from 1
    (none) to 5 (marked).
    """
    irregular = np.maximum(spiculation, lobulation) >= 2.5
    return np.select([texture <= 2, texture < 4, calcification < 5.5, irregular], [0, 1, 2, 3], 4)


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    """All arrays by name."""
    with opened(path) as arrays:
        columns = {name: np.asarray(arrays[name]) for name in _ARRAYS if name in arrays}
    wrong = [f"it lacks {name}" for name in _ARRAYS if name not in columns]
    if not wrong:
        n, volumes = columns["names"].shape, columns["volumes"]
        wrong = [f"{name} {column.dtype} {list(column.shape)}" for name, column in columns.items()]
        fits = all(columns[name].shape == n for name in ("patient", "malignancy_label", "diameter_mm"))
        fits &= len(n) == 1 and columns["attr_mean"].shape == n + columns["attr_names"].shape
        fits &= all(columns[name].dtype.kind in "iuf" for name in ("malignancy_label", "diameter_mm", "attr_mean"))
        fits &= volumes.shape[:1] == n and volumes.ndim == 4 and volumes.size > 0 and volumes.dtype == np.uint8
        if fits and all(np.isfinite(columns[name]).all() for name in ("diameter_mm", "attr_mean")):
            wrong = [f"no rating {name}" for name in RATINGS if name not in columns["attr_names"]]
    if wrong:
        what = f"is not in the layout of these nodules: {', '.join(wrong)}."
        raise DataError(what, path=path, remedy="See: viptt data list lidc", kind="another layout")
    return columns
