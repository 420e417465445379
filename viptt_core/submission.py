"""The file that ImageCLEF 2021's TB-type task takes: written only when sound, and checked line by line.

It is text without a header, one line `TST_0001.nii.gz,2` a scan, classes numbered from 1. [B]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from viptt_core import files
from viptt_core.constants import TB_CLASSES
from viptt_core.errors import DataError, SettingError

TEST_SCANS = 421  # in the hidden test set [B]
SCAN_NAME = re.compile(r"[^/\\,\"\s]+\.nii\.gz")  # a name that does not break the lines of the file
LISTED = 20  # problems, or missing scans, that a message names before it only counts
_NUMBERS = ", ".join(f"{number} {name}" for number, name in enumerate(TB_CLASSES, 1))
_SEPARATORS = {";": "a semicolon", "\t": "a tab", " ": "a space"}
_SHOWN = 60  # characters of a field that a message repeats


@dataclass(frozen=True)
class Problem:
    """Something that a strict evaluator may refuse: a line of the file, from 1, or None for more than a line."""

    file: str
    line: int | None
    kind: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f':{self.line}'}: {self.what} {self.remedy}"


@dataclass(frozen=True)
class Summary:
    """A sound submission: how many scans, and how many of each class in the order of TB_CLASSES."""

    scans: int
    counts: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.scans} scans, classes 1..{len(self.counts)}: {'/'.join(map(str, self.counts))}"


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
        SettingError: names or classes that make no sound file; nothing is written then.
        StorageError: it cannot be written.
    """
    path, names, classes = Path(path), list(map(str, names)), list(classes)
    if len(names) != len(classes):
        raise SettingError(f"{len(names)} names, {len(classes)} classes.", path=path, remedy="Give one class a scan.")
    text = "".join(f"{name},{number}\n" for name, number in zip(names, classes, strict=True))
    problems = [
        Problem(
            str(path),
            line,
            "bad name",
            f"{_shown(name)} is not the bare name of a .nii.gz file.",
            "Give names such as TST_0001.nii.gz, without a folder.",
        )
        for line, name in enumerate(names, 1)
        if not SCAN_NAME.fullmatch(name)
    ]
    # A name that breaks the lines would make every later number of a line wrong: it is told of alone.
    if problems := problems or _check_text(text, names, str(path))[1]:
        raise SettingError(
            f"would not be a sound submission, and was not written. {_told(problems)}",
            path=path,
            remedy="Mend these and write it again.",
        )
    files.write_file(path, text)
    return path


def check_submission(path: str | PathLike, expected: Sequence[str]) -> list[Problem]:
    """Everything that is wrong with a submission file, line by line; empty if it is sound.

    Judged as by a strict evaluator: CRLF line ends, a byte-order mark and "2.0" are problems too, because some
    programs accept them and others do not. Only a missing last newline is of no account.

    Args:
        path: Of the file.
        expected: File names that must be there, each once.

    Raises:
        DataError: it is missing or cannot be read.
        SettingError: `expected` is empty or names a scan twice.
    """
    return _check(Path(path), expected)[1]


def validate_submission(path: str | PathLike, expected: Sequence[str]) -> Summary:
    """Check a submission file, see `check_submission`.

    Raises:
        DataError: it is not sound (the first LISTED problems are named), missing, or cannot be read.
        SettingError: `expected` is empty or names a scan twice.
    """
    answers, problems = _check(Path(path), expected)
    if problems:
        raise DataError(
            f"is not a sound submission. {_told(problems)}",
            path=path,
            kind=problems[0].kind,
            remedy="Mend these, or write the file anew with `viptt submit`.",
        )
    counts = np.bincount(list(answers.values()), minlength=len(TB_CLASSES) + 1)[1:]
    return Summary(len(answers), tuple(counts.tolist()))


def _check(path: Path, expected: Sequence[str]) -> tuple[dict[str, int], list[Problem]]:
    if len(set(expected)) != max(len(expected), 1):
        raise SettingError("no scan is expected, or one of them twice.", remedy="Give their file names, each once.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror or error}).",
            path=path,
            kind="missing file",
            remedy="Name the submission file, one that you may read.",
        ) from error
    try:
        text = data.decode()
        where = data.find(b"\0")
    except UnicodeDecodeError as error:
        where = error.start
    if where >= 0:
        return {}, [
            Problem(
                str(path),
                data.count(b"\n", 0, where) + 1,
                "not text",
                "is not UTF-8 text from here on.",
                "Save it as plain text in UTF-8, not as a spreadsheet or an archive.",
            )
        ]
    return _check_text(text, expected, str(path))


def _check_text(text: str, expected: Sequence[str], file: str) -> tuple[dict[str, int], list[Problem]]:
    """Class by name, and the problems."""
    problems = []

    def note(*problem) -> None:
        problems.append(Problem(file, *problem))

    if text.startswith("\ufeff"):
        text = text[1:]
        note(
            1,
            "byte-order mark",
            "begins with a byte-order mark, which becomes a part of the first name.",
            "Save it as 'UTF-8', not 'UTF-8 with BOM'.",
        )
    if "\r" in text:
        line, ends = text[: text.index("\r")].count("\n") + 1, text.count("\r")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        note(
            line,
            "line ends",
            f"is the first line that ends in a carriage return ({ends} do).",
            r"Save the file with Unix line ends (LF), for example with `sed -i 's/\r$//' FILE`.",
        )
    if not text.strip():
        note(None, "empty file", "holds no line.", "Write one a scan, such as TST_0001.nii.gz,2")
        return {}, problems
    known, near = frozenset(expected), _near(expected)
    answers: dict[str, int] = {}
    first: dict[str, int] = {}  # line by name
    for line, row in enumerate(text.removesuffix("\n").split("\n"), 1):
        separator = "," if "," in row else next((s for s in _SEPARATORS if s in row.strip()), ",")
        fields = row.split(",") if separator == "," else row.strip().split(separator, 1)
        here = next((field.strip() for field in fields if field.strip() in known), "")
        wanted = f"{here or expected[0]},CLASS"
        if not row.strip():
            note(line, "blank line", "is blank.", "Delete it.")
            continue
        if line == 1 and not here and len(fields) > 1 and not re.search(r"\d", row):
            note(line, "header", f"is a header, {_shown(row)}.", "Delete it: the file begins with the first scan.")
            continue
        if len(fields) != 2:
            what = "has no comma." if len(fields) == 1 else f"has {len(fields)} fields."
            note(line, "wrong number of fields", what, f"Write the name and the class alone: {wanted}")
        else:
            if separator != ",":
                note(line, "wrong separator", f"has {_SEPARATORS[separator]} for a comma.", f"Put a comma: {wanted}")
            elif any(field != field.strip() for field in fields):
                note(line, "space", "has spaces around the name or the class.", f"Delete them: {wanted}")
            here, number = fields[0].strip(), _class_number(fields[1].strip())
            if here not in known:
                note(line, "unknown name", *_explained(here, near, expected))
            if isinstance(number, tuple):
                note(line, *number)
            elif here in known:
                answers.setdefault(here, number)
        if here in known and first.setdefault(here, line) != line:
            note(line, "double", f"{here} is there again, first in line {first[here]}.", "Keep one of the lines.")
    if missing := [name for name in expected if name not in first]:
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        note(
            None,
            "missing",
            f"has no line for {len(missing)} of {len(expected)} scans: {', '.join(missing[:LISTED])}{more}.",
            "Add a line for each.",
        )
    return answers, problems


def _class_number(text: str) -> int | tuple[str, str, str]:
    """1..5, or the kind, sentence and remedy of a problem."""
    numbers, known = range(1, len(TB_CLASSES) + 1), f"Known: {_NUMBERS}."
    if text in map(str, numbers):
        return int(text)
    kind = "not a whole number"
    if not text:
        return kind, "has no class.", known
    meant = {_key(name): number for number, name in enumerate(TB_CLASSES, 1)}.get(_key(text))
    value = float(text.strip("\"'")) if re.fullmatch(r"[\"']?[+-]?\d+(\.\d*)?[\"']?", text) else float("nan")
    if value in numbers:
        meant = int(value)
    elif value.is_integer():
        from_zero = "They are counted from 1. " if value == 0 else ""
        return "no such class", f"has the class {_shown(text)}, which does not exist.", from_zero + known
    return kind, f"has the class {_shown(text)}, no plain whole number.", f"Write {meant}." if meant else known


def _explained(name: str, near: dict[str, str], expected: Sequence[str]) -> tuple[str, str]:
    """Sentence and remedy for a name that is not expected."""
    there = f"Expected: {expected[0]}{f' to {expected[-1]}' if len(expected) > 1 else ''}."
    if not name:
        return "has no name.", there
    meant, why = near.get(_key(name)) or near.get(_number(name), ""), ""
    if _key(name).startswith("trn") and not _key(expected[0]).startswith("trn"):
        why, meant = ": TRN_ is for the training scans", ""
    elif re.search(r"[/\\]", name):
        why = ": it has a folder before it"
    elif name[0] in "\"'":
        why = ": it is in quotes"
    elif meant.lower() == name.lower():
        why = ": capitals and small letters differ"
    elif meant.startswith(name):
        why = f": it lacks the ending {meant.removeprefix(name)}"
    return f"{_shown(name)} is not expected{why}.", f"Did you mean {meant}?" if meant else there


def _near(expected: Sequence[str]) -> dict[str, str]:
    """Expected name by what is left of it however it is written, and by its number; only where that is one name."""
    found: dict[str, set[str]] = {}
    for name in expected:
        for key in (_key(name), _number(name)):
            found.setdefault(key, set()).add(name)
    return {key: names.pop() for key, names in found.items() if key and len(names) == 1}


def _key(name: str) -> str:
    """Name without what people write in different ways: folder, ending, case, punctuation, leading zeros."""
    stem = re.sub(r"(\.(nii|gz))+$", "", re.split(r"[/\\]", name.lower().strip("\"' "))[-1])
    return re.sub(r"0*(\d+)", r"\1", re.sub(r"[\W_]+", "", stem))


def _number(name: str) -> str:
    """The last number in a name, marked so that no `_key` equals it."""
    found = re.findall(r"\d+", _key(name))
    return f"#{found[-1]}" if found else ""


def _told(problems: Sequence[Problem]) -> str:
    listed = "\n".join(f"  {problem}" for problem in problems[:LISTED])
    more = f"\n  ... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return f"{len(problems)} problem{'s' * (len(problems) > 1)}:\n{listed}{more}\n"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
