"""What the folder of a data set holds, found in one pass before any of its videos or scans is read."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from viptt_core.clips import Item
from viptt_core.errors import DataError, Fault, SettingError, counted, listed, raise_faults

# What FFmpeg reads and cameras, phones and video sites write.
VIDEO_ENDINGS = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m2v", ".wmv", ".asf", ".divx")
VIDEO_ENDINGS += (".flv", ".3gp", ".3g2", ".ts", ".mts", ".m2ts", ".vob", ".ogv")
SCAN_ENDINGS = (".nii.gz", ".nii")
FILE_ENDINGS = (*SCAN_ENDINGS, *VIDEO_ENDINGS)
ENDINGS = {"video": VIDEO_ENDINGS, "scan": SCAN_ENDINGS}
MASK_FOLDERS = ("masks", "masks1", "masks2", "findings", "seg")  # hold files named as the scans, but no scans
EACH_FILE_ITS_OWN = "(.*)"  # group pattern
# What `viptt phantom` and `viptt actions` leave beside the files they write.
SYNTHETIC_RECORDS = ("phantom.json", "example.json", "actions.json")
DICOM = "Convert DICOM first: dcm2niix -z y -b n -f %f -o OUT FOLDER"
# Beside a set, these say something about it or were made from it, and are no part of it.
DOCUMENTS = (".txt", ".md", ".rst", ".html", ".pdf", ".doc", ".docx", ".csv", ".tsv", ".xls", ".xlsx", ".ods")
DOCUMENTS += (".json", ".xml", ".yaml", ".yml", ".toml", ".log", ".py", ".ipynb", ".sh", ".r", ".m")
DOCUMENTS += (".npy", ".npz", ".pt", ".pth", ".safetensors", ".h5")

_RIGHTS = "See that you may read it."
_NO_DATA = ("lost+found", "System Volume Information", "$RECYCLE.BIN", "__MACOSX")  # folders a system keeps for itself
_FRAMES = "Make a video of each folder: ffmpeg -framerate 25 -pattern_type glob -i 'CLIP/*{0}' -q:v 2 CLIP.avi"
_REMEDIES = {
    (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"): _FRAMES,
    (".dcm", ".dicom", ".ima"): DICOM,
    (".zip", ".rar", ".7z", ".tar", ".tgz"): "Unpack the archive.",
}


@dataclass(frozen=True)
class Listing:
    """Files, labels and groups of a set."""

    name: str  #: of the data set
    root: Path | None  #: its folder (or file); None for a synthetic set
    medium: str  #: what its items are, a key of `datasets.MEDIA`
    items: tuple[Item, ...]  #: what can be decoded, labels and groups known
    class_names: tuple[str, ...]  #: in label order
    faults: tuple[Fault, ...] = ()  #: what is wrong with the folder as such
    unlabelled: tuple[Path, ...] = ()  #: files that belong to the set and have no label, such as a hidden test set
    #: JSON-ready; what else decides the pixels or names the set, recorded in `ClipSet.source`.
    settings: dict = field(default_factory=dict)

    @property
    def synthetic(self) -> bool:
        """Whether this package's generators made the items, or wrote their files."""
        return self.root is None or is_synthetic(self.root)

    def check_usable(self, on_error: str) -> None:
        """Raise a DataError of the faults that keep the set, or with `on_error="raise"` some files, from being used."""
        stopping = [f for f in self.faults if f.level == "set" or (f.level == "file" and on_error != "skip")]
        skip = "Mend it, or leave such files out with on_error='skip' (they are then listed)."
        raise_faults(stopping, self.root, remedy=skip if all(fault.level == "file" for fault in stopping) else "")


@dataclass(frozen=True)
class Folder:
    """All visible files below a folder, sorted, and what could not be reached."""

    root: Path
    files: tuple[Path, ...]
    faults: tuple[Fault, ...]

    def name(self, path: Path) -> str:
        """Path below the folder, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def with_ending(self, endings: Sequence[str]) -> list[Path]:
        """Files of a kind, by their names."""
        return [path for path in self.files if has_ending(path, endings)]

    def scans(self, *, has_masks: bool = False) -> list[Path]:
        """Scans without what lies in a folder of masks: all of it with `has_masks`, else what is named as a scan is."""
        paths = self.with_ending(SCAN_ENDINGS)
        beside = {path for path in paths if not {*MASK_FOLDERS}.intersection(path.relative_to(self.root).parts[:-1])}
        named = {_stem(path) for path in beside}
        return [path for path in paths if path in beside or not (has_masks or _stem(path) in named)]

    def class_folders(self, endings: Sequence[str]) -> dict[str, list[Path]]:
        """Files of a kind that lie directly in a folder of `root`, by the name of that folder."""
        paths = [path for path in self.with_ending(endings) if path.parent.parent == self.root]
        return {name: list(group) for name, group in groupby(paths, lambda path: path.parent.name)}


def walk_folder(root: Path) -> Folder:
    """Find all files below a folder; hidden ones (.name) are passed over, links followed, each folder entered once.

    What cannot be reached becomes a fault, of level "file" where it may belong to a set.

    Raises:
        DataError: the folder itself cannot be read.
    """
    files, faults, entered = [], [], set()
    folders, links = [root], []

    def fault(path: Path, kind: str, what: str, remedy: str, level: str = "") -> None:
        level = level or ("file" if has_ending(path, FILE_ENDINGS) or not path.suffix else "left out")
        faults.append(Fault(kind, printable(path.relative_to(root).as_posix()), what, remedy, level))

    while folders or links:
        folder = (folders or links).pop()  # links last: a folder counts where it really lies
        try:
            status = folder.stat()
            paths = [path for path in folder.iterdir() if path.name[0] != "." and path.name not in _NO_DATA]
        except OSError as error:
            what = f"cannot be read ({error.strerror})."
            if folder == root:
                raise DataError(what, path=root, remedy=_RIGHTS, kind="unreadable folder") from error
            fault(folder, "unreadable folder", what, _RIGHTS, "file")
            continue
        if (status.st_dev, status.st_ino) in entered:
            fault(folder, "folder linked twice", "links to a folder that is read already.", "", "left out")
            continue
        entered.add((status.st_dev, status.st_ino))
        if not paths and folder.parent == root:
            fault(folder, "empty folder", "holds no file.", "Is a class missing?", "note")
        for path in paths:
            if printable(path.name) != path.name:
                fault(path, "name not UTF-8", "has a name that is not UTF-8.", "Rename it, for example with convmv.")
                continue
            try:
                mode = path.stat().st_mode
            except OSError as error:
                link = f"links to {printable(os.readlink(path))}, which " if path.is_symlink() else ""
                fault(path, "unreadable file", f"{link}cannot be read ({error.strerror}).", "Mend it, or remove it.")
                continue
            if stat.S_ISDIR(mode):
                (links if path.is_symlink() else folders).append(path)
            elif not stat.S_ISREG(mode):
                fault(path, "unreadable file", "is neither a file nor a folder.", "Remove it.", "left out")
            elif os.access(path, os.R_OK):
                files.append(path)
            else:
                fault(path, "unreadable file", "cannot be read (Permission denied).", _RIGHTS)
    return Folder(root, tuple(sorted(files)), tuple(sorted(faults, key=lambda found: found.where)))


def existing_folder(root: str | Path | None, content: str) -> Path:
    """The folder; a SettingError where none was named, a DataError where it is not there."""
    if not root:
        raise SettingError("this data set needs a folder.", remedy=f"Give data_root, the folder with {content}.")
    root = Path(root).expanduser()
    if not os.path.isdir(root):
        raise DataError("no such folder.", path=printable(str(root)), remedy=f"Give the folder with {content}.")
    return root


def is_synthetic(folder: Path) -> bool:
    """Whether `viptt phantom` or `viptt actions` wrote a folder."""
    return any(os.path.isfile(folder / record) for record in SYNTHETIC_RECORDS)


def printable(name: str) -> str:
    """A file name as it can be printed and written: bytes that are not UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def has_ending(path: Path, endings: Sequence[str]) -> bool:
    """Whether a file is of a kind, by its name; hidden files and copies' shadows (._name) are of none."""
    return path.name.lower().endswith(tuple(endings)) and not path.name.startswith(".")


def class_choice(classes: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of classes out of "A, B+C" or a sequence; none for "all"."""
    named = classes.split(",") if isinstance(classes, str) else classes or ()
    chosen = tuple(part.strip() for part in named if part.strip())
    if broken := [printable(name) for name in chosen if printable(name) != name]:
        raise SettingError(f"classes name {listed(broken)}, which is not UTF-8.", remedy="Rename the folder.")
    return () if chosen == ("all",) else chosen


def class_by_part(asked: Sequence[str], there: Collection[str], noun: str) -> dict[str, str]:
    """Class by folder or label, in label order; "A+B" joins two unless it is itself there; none is named twice."""
    parts = [(part, name) for name in asked for part in ([name] if name in there else name.split("+"))]
    if len(dict(parts)) < len(parts):
        raise SettingError(f"classes '{', '.join(asked)}' name a {noun} twice.", remedy="Name each once.")
    return dict(parts)


def parts_without_files(asked: Mapping[str, str], there: Collection[str], where: str, noun: str) -> list[Fault]:
    """A fault for each folder or label asked for that is not there."""
    remedy = f"There are: {listed(list(there))}."
    return [
        Fault("class without files", where, f"has no {noun} '{part}'.", remedy) for part in asked if part not in there
    ]


def group_items(items: Sequence[Item], group_pattern: str) -> tuple[tuple[Item, ...], list[Fault]]:
    """Give each item that has no group what a pattern's first capture group finds in its file's stem.

    Returns:
        The items with a group, and a fault for each without.
    """
    remedy = r"Give as group_pattern a regular expression whose first group names what belongs together: '(seq\d+)'"
    try:
        pattern = re.compile(group_pattern)
    except re.error as error:
        what = f"group_pattern '{group_pattern}' is no regular expression ({error})."
        raise SettingError(what, remedy=f"{remedy}.") from error
    if not pattern.groups:
        raise SettingError(f"group_pattern '{group_pattern}' has no capture group.", remedy=f"{remedy}.")
    found = [item.group or ((match := pattern.search(_stem(item.source))) and match[1]) or "" for item in items]
    remedy += "; '(.*)' for each its own."
    what = f"the group pattern '{group_pattern}' does not match its name."
    grouped = [replace(item, group=group) for item, group in zip(items, found, strict=True)]
    faults = [Fault("no group", item.name, what, remedy) for item in grouped if not item.group]
    return tuple(item for item in grouped if item.group), faults


def list_classes(
    name: str,
    folder: Folder,
    medium: str,
    *,
    classes: str | Sequence[str] | None = None,
    group_pattern: str = EACH_FILE_ITS_OWN,
) -> Listing:
    """Videos or scans in one folder a class.

    Args:
        name: See `Listing`, also for `medium`.
        folder: Its files.
        classes: Names of the class folders, in label order, as a sequence or "A, B"; "A+B" is one class of two
            folders. None or "all" takes every folder.
        group_pattern: See `group_items`.

    Raises:
        SettingError: the group pattern is none, or a folder is named twice.
    """
    asked, there = class_choice(classes), folder.class_folders(ENDINGS[medium])
    class_of = class_by_part(asked, there, "folder") if asked else {name: name for name in there}
    class_names = tuple(dict.fromkeys(class_of.values()))
    sources = {path: label for part, label in class_of.items() for path in there.get(part, ())}
    items = [Item(folder.name(path), class_names.index(label), "", path) for path, label in sources.items()]
    items, faults = group_items(items, group_pattern)
    faults += [f for f in folder.faults if (top := f.where.split("/")[0]) in class_of or top not in there]
    if not there:
        return Listing(name, folder.root, medium, (), class_names, (*faults, _no_classes(folder, medium)))
    faults += parts_without_files(class_of, there, ".", f"folder of {medium}s")
    if len(class_names) < 2:
        remedy = f"Give the folder that holds one folder a class. There are: {listed(list(there))}."
        faults.append(Fault("fewer than two classes", ".", f"fewer than two classes of {medium}s.", remedy))
    others = ", ".join(name for name in there if name not in MASK_FOLDERS)
    for part in () if asked else (name for name in there if name in MASK_FOLDERS):  # by nobody's choice
        remedy = f"If it holds masks, name the classes: classes='{others}'."
        faults.append(Fault("class of masks", part, "is taken for a class.", remedy, "note"))
    for fault in files_besides(folder, sources, ENDINGS[medium]):
        top, _, below = fault.where.partition("/")
        if fault.kind == "folder not read" and not below:  # a class may have got lost
            remedy = f"{fault.remedy} If it is no class, name the classes: classes='{', '.join(there)}'."
            fault = replace(fault, level="file", remedy=remedy.strip())
        if top in class_of or not asked:
            faults.append(fault)
    return Listing(name, folder.root, medium, items, class_names, tuple(faults))


def _no_classes(folder: Folder, medium: str) -> Fault:
    """What to say of a folder without a class folder."""
    if not (paths := folder.with_ending(ENDINGS[medium])):
        return nothing_to_read(folder, (medium,))
    what = f"holds {counted(len(paths), medium)}, none of them in a folder of its class: {folder.name(paths[0])}."
    remedy = "Lay them out as CLASS/FILE, and give the folder that holds the class folders."
    return Fault("no class folders", ".", what, remedy)


def files_besides(folder: Folder, used: Collection[Path], endings: Sequence[str] = ()) -> Iterator[Fault]:
    """The uppermost of the folders that hold files, documents apart, and none that is used.

    With `endings`, those of a set of class folders, also single files in them (half downloads, archives, notes), and
    files of the set that lie above them.
    """
    read, unread = {above for path in used for above in path.parents}, defaultdict(list)
    for path in folder.files:
        if path.parent not in read and path.parent != folder.root:
            above = [place for place in path.parents if folder.root in place.parents and place not in read]
            unread[above[-1]] += [] if has_ending(path, DOCUMENTS) else [path]
        elif endings and path not in used and path.parent.parent == folder.root:
            what, remedy = "is no file that is read here.", "Move it elsewhere, or mend its name."
            yield Fault("stray file", folder.name(path), what, remedy, "left out")
        elif path not in used and has_ending(path, endings):
            what, remedy = "lies in no class folder.", "Move it into the folder of its class, or name a label table."
            yield Fault("not in a class folder", folder.name(path), what, remedy, "left out")
    for place, paths in unread.items():
        held, remedy = _held(paths)
        if any(has_ending(path, FILE_ENDINGS) for path in paths):
            remedy = "Lay files out as CLASS/FILE, in one folder a class."
        if paths:
            yield Fault("folder not read", folder.name(place), f"is not read; it holds {held}.", remedy, "left out")


def nothing_to_read(folder: Folder, media: Sequence[str] = tuple(ENDINGS)) -> Fault:
    """What to say of a folder without a file that is read: what it holds instead, and what to do with that."""
    kinds = " or ".join(f"{medium}s" for medium in media)
    read = ", ".join(ending for medium in media for ending in ENDINGS[medium])
    held, remedy = _held(folder.files)
    what = f"holds no {kinds} ({read}); found: {held or 'nothing'}."
    return Fault(f"no {media[0]}s", ".", what, remedy or f"Give the folder of {kinds}.")


def _held(paths: Sequence[Path]) -> tuple[str, str]:
    """How many files of which endings there are, and what makes scans or videos of them, "" if that is not known."""
    endings = Counter(".nii.gz" if has_ending(path, (".nii.gz",)) else path.suffix for path in paths).most_common()
    held = ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in endings[:5])
    remedies = [text.format(ending) for ending, _ in endings for of, text in _REMEDIES.items() if ending.lower() in of]
    dicom = any(map(_is_dicom, {path.suffix: path for path in paths}.values()))
    return held, DICOM if dicom else next(iter(remedies), "")


def _is_dicom(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _stem(path: Path) -> str:
    return re.sub(r"(\.nii)?\.[^.]+$", "", path.name)
