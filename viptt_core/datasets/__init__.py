"""Data sets by name, each returned as one ClipSet: videos, CT scans, arrays of volumes, synthetic twins."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

from viptt_core.clips import ClipSet
from viptt_core.datasets.arrays import list_medmnist3d, medmnist3d
from viptt_core.datasets.listing import Listing
from viptt_core.datasets.own import folder, list_folder
from viptt_core.datasets.scans import imageclef, list_imageclef, list_mosmed, mosmed
from viptt_core.datasets.simulated import actions, phantom
from viptt_core.datasets.videos import list_ucf50, list_ucf101, ucf50, ucf101
from viptt_core.presets import Preset, check_choice

ADAPTERS: dict[str, Callable[..., ClipSet]] = {
    "ucf50": ucf50,
    "ucf101": ucf101,
    "imageclef": imageclef,
    "medmnist3d": medmnist3d,
    "mosmed": mosmed,
    "folder": folder,
    "phantom": phantom,
    "actions": actions,
}
LISTERS: dict[str, Callable[..., Listing]] = {
    "ucf50": list_ucf50,
    "ucf101": list_ucf101,
    "imageclef": list_imageclef,
    "medmnist3d": list_medmnist3d,
    "mosmed": list_mosmed,
    "folder": list_folder,
}


def load_dataset(name: str, root: str | Path | None = None, **settings) -> ClipSet:
    """Decode a data set, or open it if it was decoded before with the same files and settings.

    Args:
        name: One of ADAPTERS; `viptt data list` says what each is.
        root: Folder (or file) of a real set; None or "" for a synthetic one.
        settings: Keyword arguments of the adapter of that name.

    Returns:
        The set; `report()` says what is in it and what was left out.

    Raises:
        SettingError: unknown name or setting, or a root missing or not wanted.
        DataError: the files cannot be used, see the adapters.
    """
    return _call(ADAPTERS, name, root or None, settings)


def list_dataset(name: str, root: str | Path, **settings) -> Listing:
    """Find the files, labels and groups of a data set on disk, and what is wrong with them; none is decoded.

    Args:
        name: One of LISTERS.
        root: Its folder (or file).
        settings: Those of the adapter that decide which files, labels and groups there are.

    Raises:
        SettingError: unknown name or setting.
        DataError: there is no such folder, or no label table.
    """
    return _call(LISTERS, name, root, settings)


def load_for(preset: Preset, name: str, root: str | Path | None = None, **settings) -> ClipSet:
    """Load a data set on the grid a preset asks for.

    Args:
        preset: Gives frames and size, stride and fit of videos, orientation of scans, n of a synthetic set.
        name, root: See `load_dataset`.
        settings: Further settings, which win over the preset's. Those that are None or "" are dropped.
    """
    check_choice("dataset", name, tuple(ADAPTERS))
    grid = {
        "frames": preset.frames,
        "size": preset.size,
        "stride": preset.stride,
        "fit": preset.fit,
        "orientation": preset.orientation,
        "n": preset.n_scans if name == "phantom" else preset.n_videos,
    }
    known = inspect.signature(ADAPTERS[name]).parameters
    grid = {setting: value for setting, value in grid.items() if setting in known}
    given = {setting: value for setting, value in settings.items() if value not in (None, "")}
    return load_dataset(name, root, **(grid | given))


def _call(functions: dict[str, Callable], name: str, root, settings: dict):
    check_choice("dataset", name, tuple(functions))
    known = [parameter for parameter in inspect.signature(functions[name]).parameters if parameter != "root"]
    for setting in settings:
        check_choice(f"setting of '{name}'", setting, known)
    return functions[name](root, **settings)
