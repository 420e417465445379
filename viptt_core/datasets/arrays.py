"""Volumes in one .npz file, in the layout of MedMNIST's 3-D sets: images and labels of three published parts.

Beside `PART_images` uint8 [N,D,H,W] and `PART_labels` [N,1], with PART train, val and test, a file may have
`PART_patient` and `PART_name` (text [N]) and further columns of numbers, such as `PART_diameter_mm`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from viptt_core import ct, files
from viptt_core.clips import Grid, Item
from viptt_core.datasets.listing import Listing, class_choice
from viptt_core.datasets.scans import to_grey_levels
from viptt_core.errors import DataError, Fault, SettingError
from viptt_core.sources.registry import medmnist_sets

PARTS = {"train": "train", "val": "validation", "test": "test"}  # MedMNIST's names and ours
_TEXT_COLUMNS = ("patient", "name")
_AGAIN = "Get the file again, for example with: viptt data get medmnist3d."


def list_medmnist3d(
    root: str | Path, *, subset: str = "", pixels: int = 28, classes: str | Sequence[str] | None = None
) -> Listing:
    """Volumes of a MedMNIST 3-D set, or of any file in its layout, to be resampled linearly to the grid.

    The labels and columns are read, the volumes only looked at. The published parts come along
    (`ClipSet.parts`), and columns of numbers as covariates. The group is the patient where the file names them,
    else each volume its own: then only the published parts keep the volumes of a patient together.

    Args:
        root: The .npz file, or the folder it lies in.
        subset: Which file of the folder, such as "nodulemnist3d"; "" takes the only one.
        pixels: Edge length of the published volumes in a folder, 28 or 64.
        classes: Names in label order; None takes MedMNIST's for its own files, else "class 0", "class 1", ...

    Raises:
        DataError: no such file.
    """
    path = _find_file(root, subset, pixels)
    columns, faults = _read_columns(path)
    if faults:
        return Listing("medmnist3d", path, "array", (), (), tuple(faults))
    published = _published(path)
    digest = files.file_digest(path, "md5")
    if published and published["md5"] != digest:
        faults.append(
            Fault(
                "checksum differs",
                ".",
                f"has the MD5 {digest}, published is {published['md5']}.",
                f"{_AGAIN} If it is a file of your own, give it another name.",
            )
        )
    labels = {part: columns[f"{part}_labels"].reshape(-1) for part in PARTS}
    n_classes = max((int(values.max()) for values in labels.values() if values.size), default=0) + 1
    names = class_choice(classes) or (published["classes"] if published else ())
    names = names or tuple(f"class {k}" for k in range(n_classes))
    numbers = [name for name in columns if name.startswith("train_") and columns[name].dtype.kind in "iuf"]
    numbers = [name.removeprefix("train_") for name in numbers if name != "train_labels"]
    numbers = [name for name in numbers if all(f"{part}_{name}" in columns for part in PARTS)]
    items = []
    for part, ours in PARTS.items():
        for i, label in enumerate(labels[part].tolist()):
            name = str(columns[f"{part}_name"][i]) if f"{part}_name" in columns else f"{part}_{i:04d}"
            if not 0 <= label < len(names):
                faults.append(
                    Fault(
                        "unknown label",
                        name,
                        f"has the label {label}.",
                        f"Known: 0 to {len(names) - 1} ({', '.join(names)}).",
                    )
                )
                continue
            group = str(columns[f"{part}_patient"][i]) if f"{part}_patient" in columns else name
            known = {number: float(columns[f"{part}_{number}"].reshape(-1)[i]) for number in numbers}
            items.append(Item(name, label, group, (path, part, i, digest), ours, known))
    settings = {"file": digest, "classes": list(names)}
    return Listing("medmnist3d", path, "array", tuple(items), names, tuple(faults), settings=settings)


@lru_cache(maxsize=len(PARTS))
def read_images(path: Path, part: str, digest: str) -> np.ndarray:
    """All volumes of a part, uint8 [N,D,H,W]; kept in memory for the next call.

    Args:
        path: The .npz file.
        part: "train", "val" or "test".
        digest: MD5 of the file, so that a changed file is read anew.
    """
    with np.load(path, allow_pickle=False) as file:
        return file[f"{part}_images"]


def decode_volume(source: tuple[Path, str, int, str], grid: Grid) -> np.ndarray:
    """A volume on the grid, uint8 [T,H,W]: its first axis becomes the slices."""
    path, part, index, digest = source
    volume = read_images(path, part, digest)[index]
    # The resampling of scans also turns them; here slices, rows and columns stay what they are.
    turned_back = volume.transpose(2, 1, 0)[:, ::-1]
    return to_grey_levels(ct.resample_volume(turned_back, depth=grid.frames, size=grid.size) / 255)


def _find_file(root: str | Path, subset: str, pixels: int) -> Path:
    if not root:
        raise SettingError("this data set needs a file.", remedy="Give data_root, the .npz file or its folder.")
    root = Path(root).expanduser()
    if root.is_file():
        return root
    if not root.is_dir():
        raise DataError("no such file or folder.", path=root, remedy=_AGAIN, kind="missing file")
    if pixels not in (28, 64):
        raise SettingError(f"pixels is {pixels}.", remedy="MedMNIST's 3-D sets come with 28 and with 64.")
    found = {path.stem: path for path in sorted(root.glob("*.npz"))}
    wanted = f"{subset}{'' if pixels == 28 else f'_{pixels}'}" if subset else ""
    if wanted in found:
        return found[wanted]
    if not wanted and len(found) == 1:
        return next(iter(found.values()))
    raise DataError(
        f"has no file {wanted}.npz." if wanted else f"has {len(found) or 'no'} .npz files.",
        path=root,
        remedy=f"There are: {', '.join(found) or 'none'}. Name one with subset, or give the file itself.",
        kind="missing file",
    )


def _read_columns(path: Path) -> tuple[dict[str, np.ndarray], list[Fault]]:
    """All but the images, and what is wrong with the layout; the images' headers are looked at."""
    columns: dict[str, np.ndarray] = {}
    shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as file:
            for name in file.files:
                if name.endswith("_images"):
                    with archive.open(f"{name}.npy") as member:
                        version = np.lib.format.read_magic(member)
                        reader = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")
                        shape, _, dtype = reader(member)
                        shapes[name] = (shape, dtype)
                else:
                    columns[name] = file[name]
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, AttributeError) as error:
        kind = "empty file" if not path.stat().st_size else "damaged file"
        return {}, [Fault(kind, ".", f"cannot be read as an .npz file ({error}).", _AGAIN)]
    missing = [
        f"{part}_{what}"
        for part in PARTS
        for what in ("images", "labels")
        if f"{part}_{what}" not in (shapes if what == "images" else columns)
    ]
    if missing:
        return {}, [Fault("missing column", ".", f"lacks {', '.join(missing)}.", "It must have MedMNIST's layout.")]
    faults = []
    for part in PARTS:
        shape, dtype = shapes[f"{part}_images"]
        if dtype != np.uint8 or len(shape) != 4 or 0 in shape[1:]:
            faults.append(
                Fault(
                    "not grey volumes",
                    ".",
                    f"{part}_images are {dtype} {list(shape)}.",
                    "uint8 [N,D,H,W] is needed: a set of the 3-D kind.",
                )
            )
        labels = columns[f"{part}_labels"]
        if labels.dtype.kind not in "iu" or labels.size != len(labels):
            faults.append(
                Fault(
                    "not one label each",
                    ".",
                    f"{part}_labels are {labels.dtype} {list(labels.shape)}.",
                    "Whole numbers [N,1] are needed.",
                )
            )
        for name, column in columns.items():
            if name.startswith(f"{part}_") and len(column) != shape[0]:
                faults.append(Fault("lengths differ", ".", f"{shape[0]} {part}_images but {len(column)} {name}."))
    return columns, faults


def _published(path: Path) -> dict | None:
    """Checksum and class names of a file that MedMNIST publishes under this name."""
    flag, _, pixels = path.stem.partition("_")
    if not flag.endswith("mnist3d") or pixels not in ("", "28", "64"):
        return None
    info = medmnist_sets().get(flag)
    if info is None:
        return None
    names = tuple(info["label"][str(k)] for k in range(len(info["label"])))
    return {"md5": info["MD5_64" if pixels == "64" else "MD5"], "classes": names}
