"""Label tables: a CSV with one row a file, read, checked, and joined to the files on their names."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from viptt_core.datasets.listing import SCAN_ENDINGS
from viptt_core.errors import DataError, Fault


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a label table; `patient` is "" where there is none."""

    file: str
    label: str
    patient: str = ""

    @property
    def needed(self) -> tuple[str, ...]:
        return tuple(name for name in (self.file, self.label, self.patient) if name)


@dataclass(frozen=True)
class Table:
    """A label table.

    Attributes:
        path: The file.
        rows: (file name, label, patient) as written, in the table's order; patient is "" without that column.
        faults: What is wrong with it.
    """

    path: Path
    rows: tuple[tuple[str, str, str], ...]
    faults: tuple[Fault, ...]


def find_table(root: Path, columns: Columns) -> Path:
    """The one CSV in `root` whose header names the columns.

    Raises:
        DataError: there is none, or more than one.
    """
    tables = [path for path in sorted(root.glob("*.csv")) if set(columns.needed) <= set(_header(path)[0])]
    if len(tables) == 1:
        return tables[0]
    found = ", ".join(path.name for path in tables) or "none"
    raise DataError(
        f"one CSV with the columns {', '.join(columns.needed)} is needed, found: {found}.",
        path=root,
        remedy="Put the label file there, or name it with the setting labels=PATH.",
        kind="no label table",
    )


def read_table(path: Path, columns: Columns) -> Table:
    """Read a label table separated by commas, semicolons or tabs, UTF-8 with or without a byte-order mark.

    Raises:
        DataError: there is no such file.
    """
    if not path.is_file():
        raise DataError("no such file.", path=path, remedy="Give the label CSV.", kind="missing file")
    header, separator = _header(path)
    lacking = [name for name in columns.needed if name not in header]
    if lacking:
        what = f"lacks the columns {', '.join(lacking)}."
        there = f"It has: {', '.join(header) or 'none'}. Name the columns, or mend its first line."
        return Table(path, (), (Fault("missing column", path.name, what, there),))
    rows, faults = [], []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file, header, delimiter=separator, skipinitialspace=True):
                cells = [str(row[name] or "").strip() for name in columns.needed]
                if any(cells):
                    rows.append((cells[0].replace("\\", "/"), cells[1], cells[2] if columns.patient else ""))
    except UnicodeDecodeError:
        fault = Fault("not UTF-8", path.name, "is not UTF-8 text.", "Save it as 'CSV UTF-8'.")
        return Table(path, (), (fault,))
    rows = rows[1:]  # the header
    for name, count in Counter(name for name, *_ in rows).items():
        if not name:
            faults.append(Fault("row without a file", path.name, f"{count} rows name no file.", "Fill in the names."))
        elif count > 1:
            what = f"'{name}' is there {_times(count)}."
            faults.append(Fault("duplicate row", path.name, what, "Keep one row a scan."))
    if not rows:
        faults.append(
            Fault("empty table", path.name, "holds no label.", f"Add one row a scan: {','.join(columns.needed)}.")
        )
    if columns.patient:
        faults += [
            Fault("no patient", path.name, f"'{name}' has no patient.", f"Fill in {columns.patient}, or leave it out.")
            for name, _, patient in rows
            if not patient
        ]
    return Table(path, tuple(rows), tuple(faults))


def join(
    table: Table, files: Sequence[Path], root: Path, known: dict[str, int]
) -> tuple[list[tuple[Path, int, str]], list[Fault]]:
    """Join rows to files, never on their order: a row names a file's path below `root` or its name.

    Either may go without the ending.

    Args:
        table: The rows.
        files: Scans.
        root: What paths in the table are relative to.
        known: Label as written -> index of the class.

    Returns:
        (file, label, patient), in the order of `files`, and the faults: unknown labels, rows without a
        file, files without a row, two files of one name.
    """
    named: dict[str, list[Path]] = {}
    for path in files:
        below = path.relative_to(root).as_posix()
        for name in {below, path.name, _stem(below), _stem(path.name)}:
            named.setdefault(name, []).append(path)
    faults = []
    found: dict[Path, tuple[int, str]] = {}
    for name, label, patient in {row[0]: row for row in table.rows}.values():
        if label not in known:
            listed = ", ".join(known) if len(known) <= 12 else f"{', '.join(list(known)[:12])} ..."
            faults.append(
                Fault(
                    "unknown label", table.path.name, f"'{name}' has the unknown label '{label}'.", f"Known: {listed}."
                )
            )
        elif not name:
            continue
        elif name not in named:
            faults.append(
                Fault(
                    "missing file",
                    name,
                    f"{table.path.name} names it, but there is no such scan.",
                    "Add the scan.",
                    level="file",
                )
            )
        elif len(named[name]) > 1:
            listed = ", ".join(path.relative_to(root).as_posix() for path in named[name])
            faults.append(
                Fault(
                    "two files of one name",
                    name,
                    f"{len(named[name])} scans are named so: {listed}.",
                    "Keep one of them, or write the folder into the table.",
                )
            )
        else:
            found |= dict.fromkeys(named[name], (known[label], patient))
    # A row whose label is unknown is a fault already.
    tabled = {path for name, *_ in table.rows for path in named.get(name, ())}
    faults += [
        Fault(
            "no label",
            path.relative_to(root).as_posix(),
            f"no label in {table.path.name}.",
            "Add a row for it.",
            level="left out",
        )
        for path in files
        if path not in tabled
    ]
    return [(path, *found[path]) for path in files if path in found], faults


def _header(path: Path) -> tuple[list[str], str]:
    """Column names and the separator, by the first line."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    separator = max(",;\t", key=first.count)
    return [column.strip() for column in next(csv.reader([first], delimiter=separator), [])], separator


def _stem(name: str) -> str:
    lowered = name.lower()
    ending = next((ending for ending in SCAN_ENDINGS if lowered.endswith(ending)), "")
    return name[: len(name) - len(ending)]


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"
