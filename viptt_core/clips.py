"""Clips with labels and groups, whatever they were made of: what datasets give and training takes."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from viptt_core.constants import HU_WINDOW, PAPER_FRAMES, PAPER_SIZE
from viptt_core.errors import DataError, Fault, check_counts, check_grid, parse_hu_window


@dataclass(frozen=True)
class Grid:
    """What every clip of a set is brought to; a medium uses the fields that apply to it.

    Raises:
        SettingError: a number below 1 or too large, or no window.
    """

    frames: int = PAPER_FRAMES  #: T, frames of a clip or slices of a volume
    size: int = PAPER_SIZE  #: H = W, pixels
    stride: int = 1  #: of videos, every stride-th frame, from the first
    fit: str = "stretch"  #: "stretch" a frame of a video to a square as the authors, or "crop" its centre
    hu_window: tuple[float, float] = HU_WINDOW  #: of scans, the bounds in HU that become 0 and 1
    orientation: str = "file"  #: of scans, "file" or "canonical", see `ct.load_volume`

    def __post_init__(self) -> None:
        check_counts(stride=self.stride)
        check_grid(self.size, frames=self.frames)
        object.__setattr__(self, "hu_window", parse_hu_window(self.hu_window))

    def settings(self, fields: Sequence[str]) -> dict:
        """JSON-ready values of some of the fields, as they are recorded in `ClipSet.source`."""
        values = {name: getattr(self, name) for name in fields}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True)
class Item:
    """One file (or synthetic scene) to decode."""

    name: str  #: unique within the set; what predictions are joined on
    label: int  #: index into the class names
    group: str  #: what must not straddle a split, such as a patient, or the source video of several clips
    source: object  #: argument for the decoder; a path, a tuple with paths, or the parameters of a synthetic scene
    part: str = ""  #: "train", "validation" or "test" where the set was published with such parts, else ""
    #: What is known about it besides the picture, such as a diameter in mm; the same names for each item.
    covariates: dict[str, float] = field(default_factory=dict)

    @property
    def file(self) -> Path | None:
        """The file it is made of, the first of several; None for a synthetic scene."""
        first = self.source[0] if isinstance(self.source, tuple) else self.source
        return first if isinstance(first, Path) else None


@dataclass(frozen=True)
class ClipSet:
    """Clips of videos or slices of scans: after loading they are the same type."""

    clips: np.ndarray  #: uint8 [N, T, H, W], grey levels 0..255; a `cache.FileArray` where they were decoded from files
    labels: np.ndarray  #: int64 [N], index into `class_names`
    groups: np.ndarray  #: str [N]
    names: np.ndarray  #: str [N]
    class_names: tuple[str, ...]  #: K names
    source: dict  #: settings and file fingerprints the set was made from; not where the files were
    synthetic: bool = False  #: whether the clips were simulated; figures then say so
    faults: tuple[Fault, ...] = ()  #: what was found but left out; notes of what was unusual and how it was handled
    #: Str [N], "train", "validation" or "test" as the set was published; None where it was not split.
    parts: np.ndarray | None = None
    #: float64 [N] each, what is known besides the pictures, by name.
    covariates: dict[str, np.ndarray] = field(default_factory=dict)
    #: Video or scan by name of the clip; none for other sets.
    files: dict[str, Path] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        n = len(self.clips)
        if self.clips.ndim != 4 or self.clips.dtype != np.uint8:
            what = f"clips are {self.clips.dtype} of shape {self.clips.shape}."
            raise DataError(what, remedy="uint8 [N,T,H,W] is needed.")
        columns = {name: getattr(self, name) for name in ("labels", "groups", "names", "parts")} | self.covariates
        for name, column in columns.items():
            if column is not None and len(column) != n:
                raise DataError(f"{n} clips but {len(column)} {name}.", remedy="One each is needed.")
        if n and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise DataError("a label lies outside the class names.", remedy=f"Use 0..{len(self.class_names) - 1}.")

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def key(self) -> str:
        """Hash that changes with the source files and settings."""
        return digest(self.source)

    def counts(self) -> dict[str, int]:
        """Number of clips of each class, in class order."""
        tally = np.bincount(self.labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, tally.tolist(), strict=True))

    def report(self) -> str:
        """A few lines for a reader: what is there, what was left out and why, what was unusual."""
        _, frames, height, width = self.clips.shape
        lines = [
            f"{len(self)} clips of {frames} x {height} x {width}, {len(set(self.groups.tolist()))} groups, "
            f"{self.clips.nbytes / 1e6:.0f} MB" + (", synthetic" if self.synthetic else ""),
            *textwrap.wrap("; ".join(f"{name}\N{NO-BREAK SPACE}{count}" for name, count in self.counts().items()), 88),
        ]
        if left_out := [f"  {fault.where}: {fault.what}" for fault in self.faults if fault.level != "note"]:
            lines += [f"Left out: {len(left_out)}", *left_out]
        lines += [f"Note: {fault}" for fault in self.faults if fault.level == "note"]
        return "\n".join(lines)


def digest(value: object) -> str:
    """Short stable hash of a JSON-ready value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
