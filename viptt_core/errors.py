"""The errors a user can mend: each names the file (or setting) and the remedy."""

from __future__ import annotations

import difflib
import numbers
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod
from os import PathLike
from pathlib import Path

MOST_PIXELS = 2**29  # of a clip; 2 GB as float32
LISTED = 20  # files an error message names before it only counts
COPY_AGAIN = "Copy or download the file again."
CONVERT_AGAIN = "Convert the scan again, for example with dcm2niix, to one 3-D .nii.gz file."


class ViPTTError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: What is wrong, in one sentence without the path.
        path: The file or folder in question, if there is one.
        remedy: What the reader can do about it.
        kind: Short name of the fault, the same for all faults of a kind, such as "truncated file".
    """

    def __init__(self, what: str, *, path: str | PathLike | None = None, remedy: str = "", kind: str = "") -> None:
        self.what, self.path, self.remedy, self.kind = what, path, remedy, kind
        message = f"{path}: {what}" if path is not None else what
        super().__init__(f"{message} {remedy}".strip())


class DataError(ViPTTError, ValueError):
    """A file, label or data set that cannot be used as it is."""


class ClipTooShortError(DataError):
    """A readable video with fewer frames than were asked for."""


class SettingError(ViPTTError, ValueError):
    """A parameter, preset field or argument that does not exist or makes no sense."""


class StorageError(ViPTTError, OSError):
    """Files that cannot be written."""


class TrainingError(ViPTTError, RuntimeError):
    """Training that cannot go on."""


class DataWarning(UserWarning):
    """Something unusual in the input that was handled, and how."""


def require(good, what: str, remedy: str) -> None:
    """Raise a SettingError unless `good`."""
    if not good:
        raise SettingError(what, remedy=remedy)


def check_choice(what: str, value: str, known) -> None:
    """Raise a SettingError that lists `known` and the near match unless `value` is one of them."""
    if value in known:
        return
    near = difflib.get_close_matches(str(value), [str(k) for k in known], n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise SettingError(f"{what} '{value}' does not exist.", remedy=f"{hint}Known: {', '.join(map(str, known))}.")


def check_counts(*, least: int = 1, most: int | None = None, **numbers_by_name: int) -> None:
    """Raise a SettingError unless each of the numbers is a whole one from `least` to `most`."""
    for name, value in numbers_by_name.items():
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole or value < least or (most is not None and value > most):
            allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise SettingError(f"{name} is {value!r}.", remedy=f"Give a whole number {allowed}.")


def check_grid(size: int, **frames: int) -> None:
    """Raise a SettingError unless the numbers are whole ones of at least 1, and make a clip of MOST_PIXELS at most."""
    check_counts(size=size, **frames)
    if size * size * prod(frames.values()) > MOST_PIXELS:
        sides = " x ".join(map(str, (*frames.values(), size, size)))
        raise SettingError(f"a clip of {sides} is too large for the memory.", remedy="Give a smaller size, or fewer.")


def parse_hu_window(value: str | Sequence[float]) -> tuple[float, float]:
    """Lower and upper bound in HU out of two numbers, or of text such as "-1000,400".

    Raises:
        SettingError: it is anything else, or the lower bound is not below the upper one.
    """
    try:
        low, high = (float(part) for part in (value.split(",") if isinstance(value, str) else value))
    except (TypeError, ValueError):
        low, high = inf, -inf
    if not -inf < low < high < inf:
        raise SettingError(f"hu_window is {value!r}.", remedy="Give a lower and an upper bound in HU: -1000,400.")
    return tuple(int(bound) if bound.is_integer() else bound for bound in (low, high))


def listed(names: Sequence[str], *, most: int = LISTED) -> str:
    """Names in words: so many of them at most, then how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(n: int, noun: str) -> str:
    """Such as "1 file", "2 classes"."""
    return f"{n} {noun}{'' if n == 1 else 'es' if noun.endswith('s') else 's'}"


# set: nothing can be loaded until it is mended. file: this file cannot be used; it stops a run, or is left out
# with on_error="skip". left out: found, and not used in any case. note: handled, or good to know.
LEVELS = ("set", "file", "left out", "note")


@dataclass(frozen=True)
class Fault:
    """Something about the files of a set that a reader should know."""

    kind: str  #: short name, the same for all faults of a kind, such as "missing file"
    where: str  #: file, relative to the root of the set, or the name by which a table calls it
    what: str  #: one sentence
    remedy: str = ""  #: what the reader can do about it
    level: str = "set"  #: one of LEVELS

    @classmethod
    def of(cls, error: ViPTTError, where: str, level: str = "set") -> Fault:
        """What an error says, as a fault."""
        return cls(error.kind or "unreadable file", where, error.what, error.remedy, level)

    @property
    def spoils(self) -> bool:
        """Whether it would stop a run."""
        return self.level in ("set", "file")

    def __str__(self) -> str:
        where = "" if self.where in ("", ".") else f"{self.where}: "
        return f"{where}{self.what} {self.remedy}".strip()


def warn_of(fault: Fault) -> None:
    """Warn of what was handled, in the name of the caller's caller; `warning.args[0]` is the fault again."""
    warnings.warn(DataWarning(fault), stacklevel=3)


def raise_faults(faults: Sequence[Fault], root: str | PathLike | None = None, *, remedy: str = "") -> None:
    """Raise one DataError that lists the faults, each with its file and its remedy; do nothing if there is none.

    Args:
        faults: What was found.
        root: The folder or file that `Fault.where` is relative to, if there is one.
        remedy: What helps against all of them.
    """
    faults = list(dict.fromkeys(faults))
    if not faults:
        return
    if len(faults) == 1:
        (fault,) = faults
        what, path = fault.what, fault.where if root is None else root
        if root is not None and os.path.isabs(fault.where):  # a table's word for a file, which may lie nowhere
            what = f"{fault.where}: {what}"
        elif root is not None and fault.where not in ("", "."):
            path = Path(root) / fault.where
        raise DataError(what, path=path, remedy=f"{fault.remedy} {remedy}".strip(), kind=fault.kind)
    lines = [f"  {fault}" for fault in faults[:LISTED]]
    if len(faults) > LISTED:
        lines.append(f"  ... and {len(faults) - LISTED} more")
    raise DataError("\n".join([f"{len(faults)} faults:", *lines, ""]), path=root, remedy=remedy)
