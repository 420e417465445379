"""Data sets by name, each returned as one ClipSet.

A set is a *lister*, which finds files, labels and groups, and a *medium*, which brings one of them to the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from viptt_core.cache import Decoding, Recipe, build_clip_set
from viptt_core.clips import ClipSet, Grid
from viptt_core.datasets.arrays import decode_volume, list_medmnist3d
from viptt_core.datasets.folders import (
    decode_scan,
    decode_video,
    list_folder,
    list_imageclef,
    list_mosmed,
    list_ucf50,
)
from viptt_core.datasets.labels import one_spelling
from viptt_core.datasets.lidc import list_lidc
from viptt_core.datasets.listing import Listing
from viptt_core.datasets.simulated import list_actions, list_phantoms, simulate_clip, simulate_scan
from viptt_core.errors import Fault, SettingError, check_choice, raise_faults
from viptt_core.files import code_version
from viptt_core.presets import Preset, fits
from viptt_core.splits import split_faults

LISTERS: dict[str, Callable[..., Listing]] = {
    "ucf50": list_ucf50,
    "imageclef": list_imageclef,
    "medmnist3d": list_medmnist3d,
    "lidc": list_lidc,
    "mosmed": list_mosmed,
    "folder": list_folder,
    "phantom": list_phantoms,
    "actions": list_actions,
}
SYNTHETIC = ("phantom", "actions")
# Parameters of the notebooks that are settings of scans, and of videos.
OF_SCANS = ("labels", "file_column", "label_column", "patient_column", "classes", "on_error")
OF_VIDEOS = ("group_pattern", "groups", "on_error")
# What a decoder may import without its pixels depending on it: how files are found, named and kept.
NO_PIXELS = ("cache", "clips", "datasets.labels", "datasets.listing", "errors", "files", "sources")
_VIDEO_FIELDS = ("frames", "size", "stride", "fit")


@dataclass(frozen=True)
class Medium:
    """How items of one kind become clips."""

    decode: Callable[[object, Grid], np.ndarray]  #: (source of an item, grid) -> uint8 [T,H,W]
    fields: tuple[str, ...]  #: of the grid, those that decide the pixels; the others are refused

    @property
    def code(self) -> str:
        """Version of all code that decides the pixels; when it changes, the set is decoded again."""
        return code_version(self.decode.__module__.removeprefix("viptt_core."), apart_from=NO_PIXELS)


MEDIA = {
    "video": Medium(decode_video, _VIDEO_FIELDS),
    "scan": Medium(decode_scan, ("frames", "size", "hu_window", "orientation")),
    "array": Medium(decode_volume, ("frames", "size")),
    "phantom": Medium(simulate_scan, ("frames", "size", "hu_window")),
    "action": Medium(simulate_clip, _VIDEO_FIELDS),
}


def load_dataset(name: str, root: str | Path | None = None, **settings) -> ClipSet:
    """Decode a data set, or open it if it was decoded before with the same files and settings.

    Args:
        name: One of LISTERS; `viptt data list` says what each is.
        root: Folder (or file) of a real set; None or "" for a synthetic one.
        settings: Keyword arguments of the lister of that name; fields of `clips.Grid`, as far as they apply to
            its files; fields of `cache.Decoding`.

    Raises:
        SettingError: unknown name or setting, or a root missing or not wanted.
        DataError: the files cannot be used, see `Listing.check_usable` and `cache.build_clip_set`.
    """
    return _load(name, root, settings, Grid())


def load_for(preset: Preset, name: str, root: str | Path | None = None, **settings) -> ClipSet:
    """As `load_dataset`, on the grid of a preset, which also gives n of a synthetic set.

    Settings win over the preset's; those that are None or "" are dropped.
    """
    given = {setting: value for setting, value in settings.items() if value not in (None, "")}
    if name in SYNTHETIC:
        given = {"n": preset.n_scans if name == "phantom" else preset.n_videos} | given
    return _load(name, root, given, preset)


def load_scans(preset: Preset, given: Mapping[str, Any]) -> ClipSet:
    """Load the scans that the parameters of a notebook name, see `load_for`."""
    settings = {name: given[name] for name in OF_SCANS} | {"n": given["n_scans"] or None}
    return load_for(preset, given["dataset"], given["data_root"], **settings)


def load_videos(preset: Preset, given: Mapping[str, Any]) -> ClipSet:
    """Load the videos that the parameters of a notebook name; where it has scans, too, their names say so."""
    both = "pretrain_dataset" in given
    names = ("pretrain_dataset", "pretrain_root", "pretrain_classes") if both else ("dataset", "data_root", "classes")
    name, root, classes = (given[name] for name in names)
    settings = {name: given[name] for name in OF_VIDEOS} | {"n": given["n_videos"] or None}
    return load_for(preset, name, root, classes=classes, **settings)


def list_dataset(name: str, root: str | Path | None = None, **settings) -> Listing:
    """Find the files, labels and groups of a data set, and what is wrong with them; settings are its lister's.

    Raises:
        SettingError: unknown name or setting.
        DataError: there is no such folder, or no label table.
    """
    check_choice("dataset", name, LISTERS)
    for setting in settings:
        check_choice(f"setting of the files of '{name}'", setting, _lister_settings(name))
    if root and name in SYNTHETIC:
        remedy = "Leave data_root empty, or name another data set for files on disk."
        raise SettingError(f"'{name}' is simulated and reads no folder.", remedy=remedy)
    for setting, value in ({"root": root or None} | settings).items():
        wanted = get_type_hints(LISTERS[name])[setting]
        if not (fits(value, wanted) or value is None):
            remedy = f"Give a value of type {getattr(wanted, '__name__', wanted)}."
            raise SettingError(f"{setting} is {value!r}.", remedy=remedy)
    listing = LISTERS[name](root or None, **settings)
    faults = [*listing.faults, *_same_names(() if settings.get("classes") else listing.class_names)]
    if not listing.items and not any(fault.spoils for fault in faults):
        faults.append(Fault("no file left", ".", "no file of it can be used.", "See what was left out, and why."))
    return replace(listing, faults=tuple(faults))


def _same_names(class_names: Sequence[str]) -> Iterator[Fault]:
    """Classes that nobody asked for, and whose names differ in spelling alone."""
    for name, other in one_spelling(class_names, (), ".", "class")[0].items():
        if name != other:
            remedy = f"Join the folders, or join them with classes: '{other}+{name}'."
            yield Fault("near-equal values", name, f"is a class beside {other!r}.", remedy, level="note")


def split_settings(name: str, settings: dict) -> tuple[dict, dict, dict]:
    """Settings of the grid, of decoding, and of the lister of a name; a SettingError for all others."""
    check_choice("dataset", name, LISTERS)
    lister = _lister_settings(name)
    grid, decoding = ([field.name for field in fields(kind)] for kind in (Grid, Decoding))
    for setting in settings:
        check_choice(f"setting of '{name}'", setting, [*grid, *decoding, *lister])
    return tuple({key: settings[key] for key in settings if key in names} for names in (grid, decoding, lister))


def _lister_settings(name: str) -> list[str]:
    return [parameter for parameter in get_type_hints(LISTERS[name]) if parameter not in ("root", "return")]


def _load(name: str, root: str | Path | None, settings: dict, usual: Grid | Preset) -> ClipSet:
    """The set on a grid, which is as usual but for the settings; a preset must be able to split it."""
    given, decoding, own = split_settings(name, settings)
    listing, decoding = list_dataset(name, root, **own), Decoding(**decoding)
    if isinstance(usual, Preset):
        unsplit = split_faults(usual.splits, listing.items, listing.class_names)
        listing = replace(listing, faults=(*listing.faults, *unsplit))
    medium = MEDIA[listing.medium]
    if other := [setting for setting in given if setting not in medium.fields]:
        what = f"{other[0]} is no setting of a set of the kind '{listing.medium}'."
        raise SettingError(what, remedy=f"Those are: {', '.join(medium.fields)}.")
    grid = Grid(**{setting: getattr(usual, setting) for setting in medium.fields} | given)
    recipe = Recipe(
        listing.items,
        partial(medium.decode, grid=grid),
        {"medium": listing.medium, "code": medium.code} | grid.settings(medium.fields),
        {"set": listing.name} | listing.settings,
        listing.class_names,
    )
    listing.check_usable(decoding.on_error)
    clips = build_clip_set(recipe, decoding)
    if isinstance(usual, Preset) and len(clips) < len(listing.items):
        decoded = set(clips.names.tolist())
        left = [item for item in listing.items if item.name in decoded]
        remedy = f"{len(listing.items) - len(left)} clips are too short or cannot be read and were left out."
        raise_faults(split_faults(usual.splits, left, listing.class_names), listing.root, remedy=remedy)
    files = {item.name: item.file for item in listing.items if item.source == item.file}
    return replace(clips, synthetic=listing.synthetic, faults=(*listing.faults, *clips.faults), files=files)
