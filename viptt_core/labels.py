"""The label CSV of an ImageCLEF folder: found, checked, read."""

from __future__ import annotations

import csv
from pathlib import Path

from viptt_core.constants import TB_CLASSES
from viptt_core.errors import DataError

LABEL_COLUMNS = ("FileName", "TypeOfTB")


def find_labels(root: Path) -> Path:
    """The one CSV in `root` whose header names the label columns.

    Raises:
        DataError: there is none, or more than one.
    """
    tables = [path for path in sorted(root.glob("*.csv")) if set(LABEL_COLUMNS) <= set(_header(path))]
    if len(tables) == 1:
        return tables[0]
    found = ", ".join(path.name for path in tables) or "none"
    raise DataError(
        f"one CSV with the columns {', '.join(LABEL_COLUMNS)} is needed, found: {found}.", path=root,
        remedy="Put the label file there, or name it with the setting labels=PATH.",
    )  # fmt: skip


def _header(path: Path) -> list[str]:
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        return [column.strip() for column in next(csv.reader(file), [])]


def read_labels(path: Path) -> dict[str, int]:
    """Label index 0..4 of each file name in the CSV.

    Raises:
        DataError: no such file, wrong columns, an unknown label, a name that is there twice, no rows.
    """
    if not path.is_file():
        raise DataError("no such file.", path=path, remedy="Give the label CSV.")
    if not set(LABEL_COLUMNS) <= set(_header(path)):
        raise DataError(f"lacks the columns {', '.join(LABEL_COLUMNS)}.", path=path,
                        remedy=f"Its first line must be '{','.join(LABEL_COLUMNS)}'.")  # fmt: skip
    labels: dict[str, int] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file, skipinitialspace=True):
            row = {(key or "").strip(): (value or "").strip() for key, value in row.items() if isinstance(value, str)}
            name, number = row.get("FileName", ""), row.get("TypeOfTB", "")
            if number not in {str(k + 1) for k in range(len(TB_CLASSES))}:
                raise DataError(f"'{name}' has the unknown label '{number}'.", path=path,
                                remedy=f"TypeOfTB is a number from 1 to {len(TB_CLASSES)}.")  # fmt: skip
            if name in labels:
                raise DataError(f"'{name}' is there twice.", path=path, remedy="Keep one row a scan.")
            labels[name] = int(number) - 1
    if not labels:
        raise DataError("holds no label.", path=path, remedy="Add one row a scan: FileName,TypeOfTB.")
    return labels
