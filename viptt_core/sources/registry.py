"""The data sets of `registry.toml`: where each comes from, under which licence, and what must be in it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from viptt_core.errors import SettingError, check_choice
from viptt_core.files import artifact_root
from viptt_core.presets import build, read_toml

FILE = "registry.toml"
MEDMNIST_DEFAULT = "nodulemnist3d"


@dataclass(frozen=True)
class RemoteFile:
    """One file to download."""

    url: str
    unpack: bool = False
    checksum: str = ""  # "md5:HEX" or "sha256:HEX"; "" is recorded at the first download, compared afterwards

    @property
    def name(self) -> str:
        return Path(urlsplit(self.url).path).name

    @property
    def result(self) -> str:
        """What is there in the end, the file or the folder it was unpacked to, of the name of its archive."""
        return Path(self.name).stem if self.unpack else self.name


@dataclass(frozen=True)
class DataSource:
    """One data set: everything a reader must know before and after getting it."""

    name: str
    title: str
    about: str
    kind: str  # "video", "scan", "volume", "any" or "example"
    role: str  # "pretraining", "fine-tuning", "pretraining or fine-tuning" or "example"
    licence: str
    access: str  # "download", "registration", "request", "yours" or "built in"
    steps: tuple[str, ...]
    layout: str  # the folder, as a tree
    citation: str = ""
    page: str = ""
    licence_url: str = ""
    size: int | None = None  # bytes to download, about
    use: tuple[str, ...] = ()  # command lines; {root} stands for the folder
    notes: tuple[str, ...] = ()
    files: tuple[RemoteFile, ...] = ()
    n_files: int | None = None  # labelled clips or scans of a complete copy

    @property
    def default_root(self) -> Path:
        return artifact_root() / "data" / self.name

    @property
    def default_data_root(self) -> Path:
        """What to give as data_root after `viptt data get NAME`."""
        if self.name == "medmnist3d":
            return self.default_root / f"{MEDMNIST_DEFAULT}.npz"
        return self.default_root / self.files[0].result if len(self.files) == 1 else self.default_root


@functools.cache
def load_registry() -> dict[str, DataSource]:
    """All data sets by name, in the file's order; raises a SettingError for an unknown, missing or mistyped field."""
    return {name: parse_source(name, table) for name, table in read_toml(Path(__file__).with_name(FILE)).items()}


def parse_source(name: str, table: dict[str, Any]) -> DataSource:
    """Build one entry out of its parsed TOML table."""
    files = tuple(build(RemoteFile, file, f"{name}.files", FILE) for file in table.get("files", ()))
    return build(DataSource, table | {"name": name, "files": files}, name, FILE)


def data_source(name: str) -> DataSource:
    """One data set; raises a SettingError with the near match if no set has this name."""
    check_choice("data set", name, tuple(load_registry()))
    return load_registry()[name]


def remote_files(source: DataSource, *, subset: str = "", pixels: int = 28) -> tuple[RemoteFile, ...]:
    """The files of a data set; of medmnist3d those of a `subset` ("": NoduleMNIST3D) of 28 or 64 `pixels` a side.

    Raises:
        SettingError: unknown subset or size.
    """
    if source.name != "medmnist3d":
        if subset:
            raise SettingError(f"'{source.name}' has no subsets.", remedy="Leave subset empty.")
        return source.files
    sets = medmnist_sets()
    check_choice("subset of medmnist3d", subset or MEDMNIST_DEFAULT, tuple(sets))
    check_choice("pixels", str(pixels), ("28", "64"))
    entry, suffix = sets[subset or MEDMNIST_DEFAULT], "" if int(pixels) == 28 else f"_{pixels}"
    return (RemoteFile(entry[f"url{suffix}"], checksum=f"md5:{entry[f'MD5{suffix}']}"),)


def medmnist_sets() -> dict[str, dict[str, Any]]:
    """Entries of the 3D sets in the medmnist package: url, MD5, license, n_samples, label and more."""
    from medmnist import INFO  # imports torch: only where it is needed

    return {flag: entry for flag, entry in INFO.items() if flag.endswith("mnist3d")}
