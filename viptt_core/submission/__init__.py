"""ImageCLEF 2021's TB-type task: several models' answers combined, and the file to hand in, written and checked.

The file is text without a header, one line `TST_0001.nii.gz,2` a scan, classes numbered from 1. [B]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from viptt_core import files
from viptt_core.constants import TB_CLASSES
from viptt_core.errors import DataError, Fault, SettingError, check_choice, listed, raise_faults

TEST_SCANS = 421  # in the hidden test set [B]
SCAN_NAME = re.compile(r"[^/\\,\"\s]+\.nii\.gz")  # a name that does not break the lines of the file
NUMBERS = {str(number): name for number, name in enumerate(TB_CLASSES, 1)}  # as they are written
ENSEMBLES = ("mean", "vote", "authors")
AUTHORS_WEIGHTS = (0.6, 0.2, 0.2)  # of their three runs, in the order of the runs [C]
_SHOWN = 60  # characters of a line that a message repeats


def expected_names(n: int = TEST_SCANS) -> list[str]:
    """File names of the test scans, TST_0001.nii.gz and so on, assumed to be numbered without a gap."""
    return [f"TST_{number:04d}.nii.gz" for number in range(1, n + 1)]


def check_names(names: Sequence[str], expected: Sequence[str] = ()) -> None:
    """Raise a DataError unless each file name is there once, can stand in a submission and is expected (empty: any)."""
    wanted = set(expected or names)
    for wrong, what in (
        ([name for name, count in Counter(names).items() if count > 1], "more than one scan is named so"),
        ([name for name in names if not SCAN_NAME.fullmatch(name)], "is not the bare name of a .nii.gz file"),
        (sorted(wanted - set(names)), "missing"),
        (sorted(set(names) - wanted), "not expected"),
    ):
        if wrong:
            remedy = "A submission knows each scan by its file name, such as TST_0001.nii.gz: name one folder of scans."
            raise DataError(f"{listed([repr(name) for name in wrong])}: {what}.", remedy=remedy)


def write_submission(path: str | PathLike, names: Sequence[str], classes) -> Path:
    """Write the classes, int [N] of 1..5, of scans by their file names, in the order given; returns the path.

    Raises:
        DataError: the names make no sound file, see `check_names`; nothing is written then.
        StorageError: it cannot be written; an older file of this name stays whole.
    """
    check_names(names)
    path = Path(path)
    files.write_file(path, "".join(f"{name},{number}\n" for name, number in zip(names, classes, strict=True)))
    return path


def validate_submission(path: str | PathLike, expected: Sequence[str]) -> dict[str, int]:
    """Check a submission file, in which each expected name must be there once; returns how many scans a class has.

    Raises:
        DataError: it is not sound (its first faults are named), missing, or cannot be read; or what is
            expected makes no sense.
    """
    check_names(expected)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        what, remedy = f"cannot be read ({error.strerror or error}).", "Name the submission file."
        raise DataError(what, path=path, kind="missing file", remedy=remedy) from error
    raise_faults(find_faults(content, expected, path), remedy="Mend it, or write it anew with `viptt submit`.")
    return count_classes(int(row.rpartition(",")[2]) for row in content.decode().splitlines())


def count_classes(numbers: Iterable[int]) -> dict[str, int]:
    """How many of the class numbers 1..5 mean each class, by its name; 0, of scans without a class, is not counted."""
    counts = Counter(numbers)
    return {name: counts[number] for number, name in enumerate(TB_CLASSES, 1)}


def counts_text(counts: Mapping[str, int]) -> str:
    """Counts of the classes in words: "Infiltrative 3, Focal 1, ..."."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def find_faults(content: bytes, expected: Sequence[str], path: str | PathLike) -> list[Fault]:
    """Everything that is wrong with the content of a submission file, line by line as FILE:LINE; empty if it is sound.

    Judged as by a strict evaluator: CRLF line ends, a byte-order mark and "2.0" are faults too, because some
    programs accept them and others do not. Only a missing last newline is of no account.
    """
    faults: list[Fault] = []

    def note(line: int, kind: str, message: str, remedy: str) -> None:
        faults.append(Fault(kind, f"{path}:{line}", message, remedy))

    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        note(line, "not text", "is not UTF-8 text from here on.", "Save it as plain text in UTF-8, no spreadsheet.")
        return faults
    if text.startswith("\ufeff"):
        note(1, "byte-order mark", "begins with a byte-order mark.", "Save it as 'UTF-8', not 'UTF-8 with BOM'.")
    if "\r" in text:
        line = text.count("\n", 0, text.index("\r")) + 1
        note(line, "line ends", "ends in a carriage return.", r"Use Unix line ends, as by `sed -i 's/\r$//' FILE`.")
    known = frozenset(expected)
    first: dict[str, int] = {}  # line in which a scan is named, in whatever way it is written
    for line, row in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        scan = next((part for part in re.split(r"[,;\s]", row) if part in known), None)
        fields = row.split(",")
        if len(fields) != 2 or re.search(r"\s", row):
            remedy = f"Write one name, a comma and the class, without spaces: {scan or 'TST_0001.nii.gz'},2"
            note(line, "malformed line", f"is {row[:_SHOWN]!r}.", remedy)
        elif fields[1] not in NUMBERS:
            remedy = f"Write {', '.join(f'{number} for {name}' for number, name in NUMBERS.items())}."
            note(line, "no such class", f"has the class {fields[1][:_SHOWN]!r}.", remedy)
        elif fields[0] not in known:
            remedy = f"Expected: {expected[0]} to {expected[-1]}."
            note(line, "unknown name", f"names {fields[0][:_SHOWN]!r}, which is not expected.", remedy)
        if scan and first.setdefault(scan, line) != line:
            note(line, "double", f"{scan} is there again, first in line {first[scan]}.", "Keep one of the lines.")
    if missing := [name for name in expected if name not in first]:
        message = f"has no line for {len(missing)} of {len(expected)} scans: {listed(missing)}."
        faults.append(Fault("missing", str(path), message, "Add a line for each."))
    return faults


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
        probabilities: float [M, N, K] of M models, 0..1, without failed scans; N and M at least 1, K at least 2.
        method: One of ENSEMBLES.

    Returns:
        int64 [N], class numbers 1..K.

    Raises:
        SettingError: another method, no probabilities, or not three models for "authors".
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if not (np.abs(values.sum(axis=2) - 1) <= 1e-3).all():  # of a failed scan they are nan
        message = "values are no probabilities: a scan's classes do not add up to 1."
        raise SettingError(message, remedy="Leave failed scans out; give what softmax returns, not logits.")
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
