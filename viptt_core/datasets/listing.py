"""What the folder of a data set holds, found out before any of its videos or scans is read.

The adapters decode what is listed; `viptt data check` reads and judges it. Both get the same faults.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from viptt_core.clips import Item
from viptt_core.errors import DataError, Fault, SettingError, raise_faults

VIDEO_ENDINGS = (".avi", ".mp4", ".mkv", ".webm")
SCAN_ENDINGS = (".nii.gz", ".nii")
# What `viptt phantom` and `viptt actions` leave beside the files they write.
SYNTHETIC_RECORDS = ("phantom.json", "example.json", "actions.json")


@dataclass(frozen=True)
class Listing:
    """Files, labels and groups of a set.

    Attributes:
        name: Of the data set.
        root: Its folder (or file); None for a synthetic set.
        medium: What its items are, a key of `datasets.MEDIA`: "video", "scan", "array" (several volumes in one
            file), or the synthetic "phantom" and "action".
        items: What can be decoded, labels and groups known.
        class_names: In label order.
        faults: What is wrong with the folder as such.
        place: JSON-ready; which part of the folder this is: with the root it names the set on disk.
        unlabelled: Files that belong to the set and have no label, such as a hidden test part.
        masks: Name of a mask set -> name of a scan -> its mask.
        settings: JSON-ready; what else decides the pixels or names the set, recorded in `ClipSet.source`.
    """

    name: str
    root: Path | None
    medium: str
    items: tuple[Item, ...]
    class_names: tuple[str, ...]
    faults: tuple[Fault, ...] = ()
    place: tuple = ()
    unlabelled: tuple[Path, ...] = ()
    masks: dict[str, dict[str, Path]] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)

    @property
    def crop(self) -> str:
        """ "lungs" where an item's source is a scan and the mask to crop it by, else empty."""
        return self.settings.get("crop", "")

    @property
    def synthetic(self) -> bool:
        """Whether this package's generators made the items, or wrote their files."""
        return self.root is None or is_synthetic(self.root)

    def left_out(self, on_error: str) -> list[tuple[str, str]]:
        """Name and reason of what is found but not used.

        Args:
            on_error: "raise" or "skip", see `cache.Decoding`.

        Raises:
            DataError: faults that keep the set, or with "raise" some of its files, from being used.
        """
        stopping = [f for f in self.faults if f.level == "set" or (f.level == "file" and on_error != "skip")]
        skip = "Mend it, or leave such files out with on_error='skip' (they are then listed)."
        raise_faults(stopping, self.root, remedy=skip if all(fault.level == "file" for fault in stopping) else "")
        return [(fault.where, fault.what) for fault in self.faults if fault.level in ("file", "left out")]


def existing_folder(root: str | Path | None, content: str) -> Path:
    """The folder, if there is one.

    Raises:
        SettingError: none was named.
        DataError: there is no such folder.
    """
    if not root:
        raise SettingError("this data set needs a folder.", remedy=f"Give data_root, the folder with {content}.")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError("no such folder.", path=root, remedy=f"Give the folder with {content}.")
    return root


def is_synthetic(folder: Path) -> bool:
    """Whether `viptt phantom` or `viptt actions` wrote a folder."""
    return any((folder / record).is_file() for record in SYNTHETIC_RECORDS)


def has_ending(path: Path, endings: Sequence[str]) -> bool:
    """Whether a file is of a kind, by its name; hidden files and copies' shadows (._name) are of none."""
    return path.name.lower().endswith(tuple(endings)) and not path.name.startswith(".")


def class_choice(classes: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of classes out of "A, B+C" or a sequence; "+" joins folders into one class."""
    listed = classes.split(",") if isinstance(classes, str) else classes or ()
    return tuple(part.strip() for part in listed if part.strip())


def class_folders(root: Path, endings: Sequence[str]) -> dict[str, list[Path]]:
    """Files with these endings in each folder directly in `root`, both sorted; folders without are left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.glob("*/*")):
        if has_ending(path, endings) and not path.parent.name.startswith("."):
            found.setdefault(path.parent.name, []).append(path)
    return found


def chosen_classes(
    root: Path, found: dict[str, list[Path]], classes: Sequence[str], what: str
) -> tuple[dict[str, list[Path]], list[Fault]]:
    """The files of the classes asked for, in that order; no choice takes all folders.

    Returns:
        class name -> files, and the faults: a class without files, fewer than two classes.
    """
    there = ", ".join(found) or "none"
    chosen: dict[str, list[Path]] = {}
    faults = []
    for name in classes or tuple(found):
        chosen[name] = [path for folder in name.split("+") for path in found.get(folder, ())]
        faults += [
            Fault("class without files", ".", f"has no {what} of class '{folder}'.", f"Folders with {what}: {there}.")
            for folder in name.split("+")
            if folder not in found
        ]
    if len(chosen) < 2 and not faults:
        remedy = f"Give the folder that holds one folder a class. Folders with {what}: {there}."
        faults.append(Fault("fewer than two classes", ".", f"fewer than two classes of {what}.", remedy))
    return chosen, faults


def stray_files(root: Path, folders: Iterable[Path], endings: Sequence[str]) -> list[Fault]:
    """Files among the videos or scans that are neither: half downloads, archives, notes."""
    return [
        Fault(
            "stray file",
            path.relative_to(root).as_posix(),
            f"is no file that is read here ({', '.join(endings)}).",
            "Move it elsewhere, or mend its name.",
            level="left out",
        )
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and not has_ending(path, endings)
    ]


def misplaced_files(root: Path, endings: Sequence[str], passed_over: Sequence[str] = ()) -> list[Fault]:
    """Videos or scans that lie beside the class folders or in folders within them, where nobody looks for them.

    Args:
        root: The folder of class folders.
        endings: Of the files.
        passed_over: Folders that hold something else, such as masks.
    """
    return [
        Fault(
            "not in a class folder",
            path.relative_to(root).as_posix(),
            "lies in no class folder.",
            "Move it directly into the folder of its class. For scans with a label table: name the table.",
            level="left out",
        )
        for path in sorted(root.rglob("*"))
        if has_ending(path, endings)
        and len(parts := path.relative_to(root).parts) != 2
        and not any(part.startswith(".") or part in passed_over for part in parts)
        and path.is_file()
    ]


def compile_group_pattern(text: str) -> re.Pattern:
    """A regular expression with a capture group.

    Raises:
        SettingError: it is none.
    """
    remedy = r"Give a regular expression with one capture group, such as '(seq\d+)'."
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise SettingError(f"group_pattern '{text}' is no regular expression ({error}).", remedy=remedy) from error
    if pattern.groups < 1:
        raise SettingError(f"group_pattern '{text}' has no capture group.", remedy=remedy)
    return pattern


def items_of_classes(root: Path, chosen: dict[str, list[Path]], pattern: re.Pattern) -> tuple[list[Item], list[Fault]]:
    """One item a file, its group by the pattern, searched in the file's stem."""
    items, faults = [], []
    for label, files in enumerate(chosen.values()):
        for path in files:
            name = path.relative_to(root).as_posix()
            stem = re.sub(r"(\.nii)?\.[^.]+$", "", path.name)
            match = pattern.search(stem)
            if match is None or match[1] is None:
                faults.append(
                    Fault(
                        "no group",
                        name,
                        f"the group pattern '{pattern.pattern}' does not match its name.",
                        r"Give group_pattern: a regular expression whose first group names what must stay "
                        r"together, such as '(seq\d+)'; '(.*)' makes each file its own group.",
                    )
                )
            else:
                items.append(Item(name, label, match[1], path))
    return items, faults
