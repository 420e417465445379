"""ImageCLEF 2021's TB-type task: several models' answers combined, and the file to hand in, written and checked.

The file is text without a header, one line `TST_0001.nii.gz,2` a scan, classes numbered from 1. [B]
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from viptt_core import files
from viptt_core.constants import TB_CLASSES
from viptt_core.errors import LISTED, DataError, Fault, SettingError, check_choice, raise_faults

TEST_SCANS = 421  # in the hidden test set [B]
SCAN_NAME = re.compile(r"[^/\\,\"\s]+\.nii\.gz")  # a name that does not break the lines of the file
NUMBERS = {str(number): name for number, name in enumerate(TB_CLASSES, 1)}  # as they are written
ENSEMBLES = ("mean", "vote", "authors")
AUTHORS_WEIGHTS = (0.6, 0.2, 0.2)  # of their three runs, in the order of the runs [C]
_SHOWN = 60  # characters of a line that a message repeats


def expected_names(n: int = TEST_SCANS) -> list[str]:
    """File names of the test scans, TST_0001.nii.gz and so on.

    That they are numbered without a gap is assumed; where the scans are at hand, take the names of the files.

    Raises:
        SettingError: n is less than 1.
    """
    if n < 1:
        raise SettingError(f"{n} scans are expected.", remedy=f"Give at least 1; the test set has {TEST_SCANS}.")
    return [f"TST_{number:04d}.nii.gz" for number in range(1, n + 1)]


def write_submission(path: str | PathLike, names: Sequence[str], classes) -> Path:
    """Write a submission file, in the order given, after checking it as `check_submission` does.

    Args:
        path: Of the file; its folder is made, and an older file stays until the new one is complete.
        names: File names of the scans, [N], each once, without a folder and ending in .nii.gz.
        classes: int [N], 1..5.

    Returns:
        The path.

    Raises:
        SettingError: not as many classes as names, or a name that is no bare file name; nothing is written then.
        DataError: names or classes that make no sound file; nothing is written then.
        StorageError: it cannot be written.
    """
    path, names, classes = Path(path), list(map(str, names)), list(classes)
    if len(names) != len(classes):
        raise SettingError(f"{len(names)} names, {len(classes)} classes.", path=path, remedy="Give one class a scan.")
    if bad := [name for name in names if not SCAN_NAME.fullmatch(name)]:
        raise SettingError(
            f"{_shown(bad[0])} is not the bare name of a .nii.gz file.",
            path=path,
            remedy="Give names such as TST_0001.nii.gz, without a folder.",
        )
    text = "".join(f"{name},{number}\n" for name, number in zip(names, classes, strict=True))
    raise_faults(_faults(text, names, path), remedy="Nothing was written.")
    files.write_file(path, text)
    return path


def check_submission(path: str | PathLike, expected: Sequence[str]) -> list[Fault]:
    """Everything that is wrong with a submission file, line by line as FILE:LINE; empty if it is sound.

    Judged as by a strict evaluator: CRLF line ends, a byte-order mark and "2.0" are faults too, because some
    programs accept them and others do not. Only a missing last newline is of no account.

    Args:
        path: Of the file.
        expected: File names that must be there, each once.

    Raises:
        DataError: it is missing or cannot be read.
        SettingError: `expected` is empty or names a scan twice.
    """
    path = Path(path)
    if len(set(expected)) != max(len(expected), 1):
        raise SettingError("no scan is expected, or one of them twice.", remedy="Give their file names, each once.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror or error}).",
            path=path,
            kind="missing file",
            remedy="Name the submission file, one that you may read.",
        ) from error
    try:
        return _faults(content.decode(), expected, path)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        remedy = "Save it as plain text in UTF-8, not as a spreadsheet or an archive."
        return [Fault("not text", f"{path}:{line}", "is not UTF-8 text from here on.", remedy)]


def validate_submission(path: str | PathLike, expected: Sequence[str]) -> np.ndarray:
    """Check a submission file, see `check_submission`.

    Returns:
        How many scans have class 1, 2, ... 5: int64 [5].

    Raises:
        DataError: it is not sound (the first LISTED faults are named), missing, or cannot be read.
        SettingError: `expected` is empty or names a scan twice.
    """
    raise_faults(check_submission(path, expected), remedy="Mend it, or write it anew with `viptt submit`.")
    rows = Path(path).read_text(encoding="utf-8").splitlines()
    return counts_of([int(row.rpartition(",")[2]) for row in rows])


def counts_of(classes) -> np.ndarray:
    """How many of the scans have class 1, 2, ... 5; those with 0 are not counted: int64 [5]."""
    return np.bincount(classes, minlength=len(TB_CLASSES) + 1)[1:]


def counts_text(counts) -> str:
    """Counts of the five classes in words: "Infiltrative 3, Focal 1, ..."."""
    return ", ".join(f"{name} {count}" for name, count in zip(TB_CLASSES, counts, strict=True))


def _faults(text: str, expected: Sequence[str], path: Path) -> list[Fault]:
    faults: list[Fault] = []

    def note(line: int | None, kind: str, message: str, remedy: str) -> None:
        faults.append(Fault(kind, str(path) if line is None else f"{path}:{line}", message, remedy))

    if text.startswith("\ufeff"):
        note(1, "byte-order mark", "begins with a byte-order mark.", "Save it as 'UTF-8', not 'UTF-8 with BOM'.")
    if "\r" in text:
        line = text.count("\n", 0, text.index("\r")) + 1
        note(line, "line ends", "ends in a carriage return.", r"Use Unix line ends, as by `sed -i 's/\r$//' FILE`.")
    rows = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    if not any(map(str.strip, rows)):
        note(None, "empty file", "holds no line.", "Write one a scan, such as TST_0001.nii.gz,2")
        return faults
    known = frozenset(expected)
    # Which scan a line is about, in whatever way it is written.
    about = [next((part for part in re.split(r"[,;\s]", row) if part in known), None) for row in rows]
    present = frozenset(about)
    missing = [name for name in expected if name not in present]
    first: dict[str, int] = {}
    for line, (row, scan) in enumerate(zip(rows, about, strict=True), 1):
        fields = row.split(",")
        if not row.strip():
            note(line, "blank line", "is blank.", "Delete it.")
        elif line == 1 and len(fields) == 2 and not re.search(r"\d", row):
            note(line, "header", f"is a header, {_shown(row)}.", "Delete it: the file begins with the first scan.")
        elif len(fields) != 2 or re.search(r"\s", row):
            remedy = f"Write the name, a comma and the class, without spaces: {scan or expected[0]},2"
            note(line, "malformed line", f"is {_shown(row)}.", remedy)
        else:
            if fields[0] not in known:
                # Looking for near names takes time, and after some lines says nothing new.
                near = difflib.get_close_matches(fields[0], missing, n=1) if len(faults) < LISTED else []
                remedy = f"Did you mean {near[0]}?" if near else f"Expected: {expected[0]} to {expected[-1]}."
                note(line, "unknown name", f"names {_shown(fields[0])}, which is not expected.", remedy)
            if fields[1] not in NUMBERS:
                remedy = f"Write {', '.join(f'{number} for {name}' for number, name in NUMBERS.items())}."
                note(line, "no such class", f"has the class {_shown(fields[1])}.", remedy)
        if scan and first.setdefault(scan, line) != line:
            note(line, "double", f"{scan} is there again, first in line {first[scan]}.", "Keep one of the lines.")
    if missing:
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        message = f"has no line for {len(missing)} of {len(expected)} scans: {', '.join(missing[:LISTED])}{more}."
        note(None, "missing", message, "Add a line for each.")
    return faults


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


# --- Several models' probabilities -> one class a scan ---


def check_ensemble(method: str, n_models: int) -> None:
    """Raise a SettingError unless the method exists and takes so many models."""
    check_choice("ensemble", method, ENSEMBLES)
    if method == "authors" and n_models != len(AUTHORS_WEIGHTS):
        message = f"the ensemble 'authors' is of three runs, and {n_models} were given."
        raise SettingError(message, remedy="Give three, in the order of their weights, or take 'mean' or 'vote'.")


def combine(probabilities, method: str) -> np.ndarray:
    """One class a scan out of the probabilities of several models.

    "mean" takes the class of the largest mean probability, the lower one on a tie. "vote" takes the class that
    most models find most probable; on a tie, of the tied classes the one with the larger mean probability.

    "authors" is round(0.6 a + 0.2 b + 0.2 c) over the class NUMBERS of three runs, as the authors handed in. It is
    wrong for classes without an order: where one run says Infiltrative (1) and two say Tuberculoma (3), 1.8 becomes
    2, Focal, which no run said and which is no finding between the two. It stands here only to repeat the authors.

    Args:
        probabilities: float [M, N, K] of M models, 0..1; N and M at least 1, K at least 2.
        method: One of ENSEMBLES.

    Returns:
        int64 [N], class numbers 1..K.

    Raises:
        SettingError: another shape or method, no probabilities (of a failed scan), or not three models for "authors".
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 3 or 0 in values.shape[:2] or values.shape[2] < 2:
        remedy = "Give [models, scans, classes], at least one model, one scan and two classes."
        raise SettingError(f"probabilities have shape {values.shape}.", remedy=remedy)
    failed = ~np.isfinite(values).all(axis=(0, 2))
    if failed.any():
        message = (
            f"{failed.sum()} of {len(failed)} scans have no probabilities; scan {failed.argmax() + 1} is the first."
        )
        raise SettingError(message, remedy="Leave failed scans out before models are combined.")
    if values.min() < 0 or np.abs(values.sum(axis=2) - 1).max() > 1e-3:
        message = "values are no probabilities: a scan's classes do not add up to 1."
        raise SettingError(message, remedy="Give what softmax returns, not logits.")
    check_ensemble(method, len(values))
    said = values.argmax(axis=2).astype(np.int64) + 1
    if method == "authors":
        # Ten times the sum is even, so it never lies half way between two classes, and rounding needs no rule.
        return np.rint(np.tensordot(AUTHORS_WEIGHTS, said, axes=1)).astype(np.int64)
    mean = np.sort(values, axis=0).mean(axis=0)  # sorted, so that the order of the models decides no tie by rounding
    if method == "vote":
        votes = (said[..., None] == np.arange(1, values.shape[2] + 1)).sum(axis=0)
        mean = np.where(votes == votes.max(axis=1, keepdims=True), mean, -1.0)
    return mean.argmax(axis=1).astype(np.int64) + 1
