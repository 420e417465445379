"""The data sets: where each comes from, under which licence, what must be in it, and how it is fetched.

The entries stand in `registry.toml` beside this file. The files of MedMNIST come from the `medmnist` package.
"""

from __future__ import annotations

import functools
import re
import shutil
import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from filelock import FileLock

from viptt_core.env import artifact_root
from viptt_core.errors import DataError, SettingError, StorageError
from viptt_core.presets import check_choice

# How a reader gets a set, as the table says it.
ACCESS = {
    "download": "`viptt data get`", "registration": "registration", "request": "by hand, on its page",
    "yours": "you have it", "built in": "built in",
}  # fmt: skip
MEDMNIST_DEFAULT = "nodulemnist3d"
CHECKSUM_PATTERN = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")
# Room for what an archive unpacks to: clips and scans are compressed already.
UNPACKED_RATIO = 1.1


@dataclass(frozen=True)
class RemoteFile:
    """One file to download."""

    url: str
    unpack: bool = False
    folder: str = ""  # name of the folder an archive becomes; "" takes the archive's own name
    size: int | None = None  # bytes, exact; None where nobody states it
    checksum: str = ""  # "md5:..." or "sha256:..."; "" is recorded at the first download, compared afterwards

    @property
    def name(self) -> str:
        return Path(urlsplit(self.url).path).name

    @property
    def result(self) -> str:
        """What is there in the end: the file, or the folder it was unpacked to."""
        return (self.folder or Path(self.name).stem) if self.unpack else self.name


@dataclass(frozen=True)
class Expected:
    """What a complete copy holds. A field without a known value is None or empty."""

    classes: int | None = None
    files: int | None = None  # labelled clips or scans
    class_counts: dict[str, int] = field(default_factory=dict)  # of them, by class
    test_files: int | None = None  # scans without public labels
    groups_per_class: int | None = None
    frame_size: tuple[int, ...] = ()  # of a video: width, height in pixels
    slice_size: tuple[int, ...] = ()  # of a scan: width, height in voxels
    masks: tuple[str, ...] = ()  # mask folders, whose files are named as the scans
    folds: dict[str, list[int]] = field(default_factory=dict)  # fold -> [train, test] files
    long_clips: dict[str, int] = field(default_factory=dict)  # clips of 70 frames or more, the paper's classes
    short_clips: int | None = None  # clips of these classes with fewer


@dataclass(frozen=True)
class DataSource:
    """One data set: everything a reader must know before and after getting it."""

    name: str
    title: str
    about: str
    kind: str  # "video", "scan", "volume", "any" or "example"
    role: str  # "pretraining", "fine-tuning", "pretraining or fine-tuning" or "example"
    licence: str
    access: str  # a key of ACCESS
    steps: tuple[str, ...]
    layout: str  # the folder, as a tree
    citation: str = ""
    bibtex: tuple[str, ...] = ()  # keys in book/references.bib
    page: str = ""
    licence_url: str = ""
    size: int | None = None  # bytes to download, about
    use: tuple[str, ...] = ()  # command lines; {root} stands for the folder
    notes: tuple[str, ...] = ()
    files: tuple[RemoteFile, ...] = ()
    expected: Expected = Expected()

    @property
    def default_root(self) -> Path:
        return artifact_root() / "data" / self.name

    @property
    def default_data_root(self) -> Path:
        """What to give as data_root after `viptt data get NAME`."""
        if self.name == "medmnist3d":
            return self.default_root / f"{MEDMNIST_DEFAULT}.npz"
        return self.default_root / self.files[0].result if len(self.files) == 1 else self.default_root

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, for JSON."""
        return asdict(self)

    def numbered_steps(self) -> str:
        return "\n".join(f"  {number}. {step}" for number, step in enumerate(self.steps, 1))


@functools.cache
def load_registry() -> dict[str, DataSource]:
    """All data sets by name, in the file's order.

    Raises:
        SettingError: the file holds an unknown, missing or mistyped field.
    """
    text = resources.files("viptt_core").joinpath("registry.toml").read_text(encoding="utf-8")
    return {name: parse_source(name, table) for name, table in tomllib.loads(text).items()}


def data_source(name: str) -> DataSource:
    """One data set.

    Raises:
        SettingError: no set has this name; it lists the near match.
    """
    known = load_registry()
    check_choice("data set", name, tuple(known))
    return known[name]


def parse_source(name: str, table: dict[str, Any]) -> DataSource:
    """Build one entry out of its parsed TOML table."""
    values = dict(table)
    values["files"] = [_build(RemoteFile, file, f"{name}.files") for file in values.get("files", [])]
    values["expected"] = _build(Expected, values.get("expected", {}), f"{name}.expected")
    source = _build(DataSource, {"name": name} | values, name)
    check_choice(f"access of [{name}]", source.access, tuple(ACCESS))
    return source


def remote_files(name: str, *, subset: str = "", pixels: int = 28) -> tuple[RemoteFile, ...]:
    """The files to download for a data set.

    Args:
        name: The data set.
        subset: Of medmnist3d only: which of its sets, "" for NoduleMNIST3D.
        pixels: Of medmnist3d only: voxels a side, 28 or 64.

    Raises:
        SettingError: unknown name, subset or size.
    """
    return _files_of(data_source(name), subset, pixels)


def medmnist_sets() -> dict[str, dict[str, Any]]:
    """Entries of the 3D sets in the medmnist package: url, MD5, license, n_samples, label and more."""
    from medmnist import INFO  # imports torch: only where it is needed

    return {flag: entry for flag, entry in INFO.items() if flag.endswith("mnist3d")}


def fetch(source: str | DataSource, root: str | Path | None = None, *, subset: str = "", pixels: int = 28,
          progress: bool = True) -> Path:  # fmt: skip
    """Download and unpack a data set; what is there already is not fetched again.

    Archives are kept beside what they were unpacked to; they can be deleted afterwards.

    Args:
        source: Name of the set, or an entry of one's own.
        root: Folder to put it into; None takes `data/NAME`.
        subset, pixels: See `remote_files`.
        progress: Show progress bars.

    Returns:
        The file or folder to give as data_root.

    Raises:
        DataError: this set cannot be downloaded (the message tells how to get it), or a download failed.
        StorageError: the disk is too full.
    """
    source = data_source(source) if isinstance(source, str) else source
    if source.access != "download":
        raise DataError(f"{source.title} cannot be fetched by a command.",
                        remedy=f"This is how you get it:\n{source.numbered_steps()}")  # fmt: skip
    files = _files_of(source, subset, pixels)
    root = source.default_root if root is None else Path(root).expanduser()
    check_space(root, _bytes_needed(source, files, root))
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".get.lock"):  # a second call waits, and finds everything there; the empty file stays
        for file in files:
            _fetch_file(file, root, progress)
    return root / files[0].result if len(files) == 1 else root


def check_space(root: Path, needed: int) -> None:
    """Raise a StorageError unless the disk of `root` has `needed` bytes free."""
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StorageError(
            f"needs {format_size(needed)}, free are {format_size(free)}.", path=root,
            remedy="Free some space, or give another folder with --root.",
        )  # fmt: skip


def format_size(size: int | None) -> str:
    """Bytes as a reader says them: "3.2 GB"; "" for None."""
    if size is None:
        return ""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"


def registry_table() -> str:
    """The sets as a markdown table, for `data/README.md` and the book."""
    rows = ["| name | what | files | size | licence | access | used for |", "|---|---|---|---|---|---|---|"]
    for source in load_registry().values():
        title = f"[{source.title}]({source.page})" if source.page else source.title
        licence = f"[{source.licence}]({source.licence_url})" if source.licence_url else source.licence
        count = f"{source.expected.files:,}" if source.expected.files else ""
        cells = (f"`{source.name}`", f"{title}: {source.about}", count, format_size(source.size), licence,
                 ACCESS[source.access], source.role)  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _files_of(source: DataSource, subset: str, pixels: int) -> tuple[RemoteFile, ...]:
    if source.name != "medmnist3d":
        if subset:
            raise SettingError(f"'{source.name}' has no subsets.", remedy="Leave subset empty.")
        return source.files
    sets = medmnist_sets()
    check_choice("subset of medmnist3d", subset or MEDMNIST_DEFAULT, tuple(sets))
    check_choice("pixels", str(pixels), ("28", "64"))
    entry, suffix = sets[subset or MEDMNIST_DEFAULT], "" if int(pixels) == 28 else f"_{pixels}"
    return (RemoteFile(entry[f"url{suffix}"], checksum=f"md5:{entry[f'MD5{suffix}']}"),)


def _bytes_needed(source: DataSource, files: tuple[RemoteFile, ...], root: Path) -> int:
    """About what is still to be written, where the size is known."""
    missing = [file for file in files if not (root / file.result).exists()]
    if not missing:
        return 0
    to_unpack = any(file.unpack for file in missing)
    size = source.size if source.size is not None else sum(file.size or 0 for file in missing)
    come = [root / name for file in missing for name in (file.name, f".{file.name}.part")]
    there = sum(path.stat().st_size for path in come if path.is_file())
    return int(max(size - there, 0) + to_unpack * UNPACKED_RATIO * size)


def _fetch_file(file: RemoteFile, root: Path, progress: bool) -> None:
    from viptt_core.archive import unpack
    from viptt_core.download import download

    result = root / file.result
    if file.unpack and result.is_dir():  # it got this name only when it was complete
        return
    archive = root / file.name
    download(file.url, archive, size=file.size, checksum=file.checksum, progress=progress)
    if not file.unpack:
        return
    unpacked = root / f".{file.result}.unpacked"
    if not unpacked.is_dir():
        unpack(archive, unpacked, progress=progress)
    inner = list(unpacked.iterdir())
    # Most archives hold one folder with everything in it; a folder in a folder would only confuse.
    if len(inner) == 1 and inner[0].is_dir():
        inner[0].rename(result)
        unpacked.rmdir()
    else:
        unpacked.rename(result)


def _build(kind: type, values: dict[str, Any], where: str):
    """Make the dataclass `kind` out of TOML values, refusing unknown, missing and mistyped fields."""
    types = get_type_hints(kind)
    for name in values:
        check_choice(f"field of [{where}]", name, tuple(types))
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise SettingError(f"[{where}] lacks {', '.join(missing)}.", remedy="Add it to registry.toml.")
    made = {}
    for name, value in values.items():
        wanted = str(types[name])
        if wanted.startswith("tuple") and isinstance(value, list):
            value = tuple(value)
        base = tuple if wanted.startswith("tuple") else dict if wanted.startswith("dict") else types[name]
        if not isinstance(value, base) or (isinstance(value, bool) and base is not bool):
            raise SettingError(f"{name} of [{where}] is {value!r}.", remedy=f"Write a value of type {wanted}.")
        made[name] = value.strip("\n") if isinstance(value, str) else value
    if made.get("checksum") and not CHECKSUM_PATTERN.fullmatch(made["checksum"]):
        raise SettingError(f"checksum of [{where}] is '{made['checksum']}'.", remedy="Write md5:... or sha256:...")
    return kind(**made)
