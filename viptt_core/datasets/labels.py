"""Tables with one row a file: read, checked, and joined to the files on their names."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from viptt_core.datasets.listing import SCAN_ENDINGS, VIDEO_ENDINGS, Folder, Listing, nothing_to_read
from viptt_core.errors import DataError, Fault, SettingError, listed, raise_faults

# How pandas, R, spreadsheets and databases write a cell without a value, in lower case.
MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "<na>", "#n/a", "#na", "-nan", "nat", "-", "."})
FILE_ENDINGS = (*SCAN_ENDINGS, *VIDEO_ENDINGS)
COLUMN_SETTINGS = ("file_column", "label_column", "patient_column")
HEADER_BYTES = 1 << 16  # of a table that are read to learn its columns
END_ROW = "end of the table"
LINE_END = re.compile(r"[\r\n]")


class Columns(NamedTuple):
    """Names of the columns of a table, "" for one that it has not; and what a group is, in words."""

    file: str = "FileName"
    label: str = "Label"
    group: str = ""
    group_noun: str = "patient"

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns without which the table is of no use."""
        return tuple(name for name in self[:3] if name)


class TableRow(NamedTuple):
    """A row as written, and the line it begins in; a cell is "" without that column."""

    line: int
    file: str
    label: str
    group: str


@dataclass(frozen=True)
class Table:
    """A table with one row a file.

    Attributes:
        path: The CSV.
        columns: Those that were read.
        rows: In the table's order.
        faults: What is wrong with it.
        long_cells: Line and text of each cell of several lines, which may have swallowed rows.
    """

    path: Path
    columns: Columns
    rows: tuple[TableRow, ...] = ()
    faults: tuple[Fault, ...] = ()
    long_cells: tuple[tuple[int, str], ...] = ()


# --- Finding and reading ---


def csv_headers(folder: Folder) -> dict[Path, tuple[list[str], str]]:
    """Names of the columns, and the encoding, of each CSV directly in a folder."""
    return {path: _header(path) for path in folder.with_ending((".csv",)) if path.parent == folder.root}


def named_table(folder: Folder, given: str | Path) -> Path:
    """The table that a setting names, by its path from here or from the folder."""
    path = Path(given).expanduser()
    below = folder.root / path
    return below if os.path.exists(below) and not os.path.exists(path) else path


def label_table(folder: Folder, given: str | Path | None, columns: Columns) -> Table:
    """The table that is named, else the one CSV directly in a folder that has the columns.

    Raises:
        DataError: none has the columns, or more than one has; the file is not there or cannot be read.
    """
    if given:
        return read_table(named_table(folder, given), columns)
    headers = csv_headers(folder)
    tables = [path for path, (names, _) in headers.items() if set(columns.needed) <= set(names)]
    if len(tables) == 1:
        return read_table(tables[0], columns)
    if not headers and not folder.with_ending(FILE_ENDINGS):
        raise_faults([nothing_to_read(folder, ("scan",))], folder.root)
    found = ", ".join(path.name for path in tables) or "none"
    what = f"one CSV with the columns {', '.join(columns.needed)} is needed, found: {found}."
    remedy = "Put the label file there, or name it with the setting labels=PATH."
    if headers and not tables:
        what += "".join(f" {path.name} ({code}) has: {', '.join(names)}." for path, (names, code) in headers.items())
        remedy = f"Name its columns with {', '.join(COLUMN_SETTINGS)}, or another table with labels=PATH."
    raise DataError(what, path=folder.root, remedy=remedy, kind="no label table")


def read_table(path: Path, columns: Columns) -> Table:
    """Read a table separated by commas, semicolons or tabs, UTF-8 with or without a byte-order mark.

    Raises:
        DataError: the file is not there or cannot be read.
    """
    try:
        text, encoding = _decoded(path.read_bytes())
    except OSError as error:
        what = f"cannot be read ({error.strerror})." if os.path.exists(path) else "no such file."
        raise DataError(what, path=path, remedy="Give the label CSV.", kind="missing file") from error
    rows, unclosed = _split_rows(text)
    header = rows[0][1] if rows else []
    lacking = [name for name in columns.needed if name not in header]
    double = [name for name in columns.needed if header.count(name) > 1]
    fault = None
    if encoding != "UTF-8":
        fault = "not UTF-8", f"is not UTF-8 text, but {encoding}.", "Save it as 'CSV UTF-8'."
    elif unclosed:
        fault = "unclosed quote", *_unclosed(unclosed)
    elif lacking:
        there = (
            f"It has: {', '.join(header) or 'none'}. Name the columns ({', '.join(COLUMN_SETTINGS)}), or mend line 1."
        )
        fault = "missing column", f"lacks the columns {', '.join(lacking)}.", there
    elif double:
        what = f"has {header.count(double[0])} columns '{double[0]}' in line 1."
        fault = "columns of one name", what, "Rename or delete all but one."
    if fault:
        kind, what, remedy = fault
        return Table(path, columns, faults=(Fault(kind, path.name, what, remedy),))
    return _checked(Table(path, columns), rows)


def _checked(table: Table, rows: Sequence[tuple[int, list[str]]]) -> Table:
    """The table with its rows, and the faults that show without the files."""
    columns, where, header = table.columns, table.path.name, rows[0][1]
    places = [header.index(name) if name else -1 for name in columns[:3]]
    kept, faults, ragged, long_cells = [], [], [], []
    for line, cells in rows[1:]:
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if not any(cells):
            continue
        if len(cells) != len(header):
            ragged.append(str(line))
            continue
        row = TableRow(line, *("" if place < 0 else cells[place] for place in places))
        if any(LINE_END.search(cell) or cell.count('"') % 2 for cell in row[1:]):
            faults.append(Fault("unclosed quote", where, *_unclosed(line)))
        elif not row.file:
            faults.append(Fault("row without a file", where, f"line {line} names no file.", "Fill in the name."))
        elif columns.group and row.group.lower() in MISSING:
            what = f"'{row.file}' has no {columns.group_noun} (line {line}: '{row.group}')."
            faults.append(Fault(f"no {columns.group_noun}", where, what, f"Fill in {columns.group}, or leave it out."))
        else:
            kept.append(row)
            long_cells += [(line, cell) for cell in cells if LINE_END.search(cell)]
    if ragged:
        what = f"has {len(header)} columns, and more or fewer cells in line {listed(ragged)}."
        remedy = 'Put text that holds the separator into "quotes"; leave nothing between two for an empty cell.'
        faults.append(Fault("ragged row", where, what, remedy))
    if not (kept or faults):
        remedy = f"Add one row a file: {','.join(columns.needed)}."
        faults.append(Fault("empty table", where, "holds no label.", remedy))
    spelling, notes = one_spelling((row.group for row in kept), (), where, columns.group_noun)
    kept = [row._replace(group=spelling[row.group]) for row in kept]
    return replace(table, rows=tuple(kept), faults=(*faults, *notes), long_cells=tuple(long_cells))


def _header(path: Path) -> tuple[list[str], str]:
    """Names of the columns by the first line, and the encoding; no names where the file cannot be read."""
    try:
        with open(path, "rb") as file:
            text, encoding = _decoded(file.readline(HEADER_BYTES))
    except OSError as error:
        return [], f"cannot be read: {error.strerror}"
    rows, _ = _split_rows(LINE_END.split(text, maxsplit=1)[0])
    return rows[0][1] if rows else [], encoding


def _decoded(content: bytes) -> tuple[str, str]:
    """Text of composed characters, and the encoding in words: a guess, unless it is UTF-8."""
    if b"\0" in content:
        return content.decode("utf-16", errors="ignore"), "UTF-16"
    try:
        return normalize("NFC", content.decode("utf-8-sig")), "UTF-8"
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), "Windows-1252 or the like"


def _split_rows(text: str) -> tuple[list[tuple[int, list[str]]], int]:
    """Cells of each row with the line it begins in, and the line of a quote that is not closed, else 0."""
    separator = max(",;\t", key=LINE_END.split(text, maxsplit=1)[0].count)
    # csv does not say that a quote is still open at the end. A row of our own shows it: the quote swallows it.
    reader = csv.reader(io.StringIO(f"{text}\n{END_ROW}", newline=""), delimiter=separator, skipinitialspace=True)
    rows, line = [], 1
    try:
        for cells in reader:
            rows.append((line, [cell.strip() for cell in cells]))
            line = reader.line_num + 1
    except csv.Error:  # a cell of more than 131,072 characters
        return rows, line
    line, cells = rows.pop()
    return rows, 0 if cells == [END_ROW] else line


def _unclosed(line: int) -> tuple[str, str]:
    return f"unclosed quote from line {line}: what follows is read as one cell.", "Close it, or delete it."


# --- What labels mean ---


def one_spelling(
    values: Iterable[str], known: Collection[str], where: str, noun: str
) -> tuple[dict[str, str], list[Fault]]:
    """One spelling for "focal" and "Focal", "1" and "1.0": the known one, else the most frequent one.

    Args:
        values: As written.
        known: Stay as they are.
        where, noun: For the notes: the table, and what the values are.

    Returns:
        Spelling by value, and a note for each value that is not as it was written.
    """
    counts = Counter(values)
    alike = defaultdict(list)
    for value in sorted({*counts, *known}, key=lambda value: (value not in known, -counts[value], value)):
        alike[_form(value)].append(value)
    spelling, notes = {}, []
    for first, *others in alike.values():
        spelling[first] = first
        for value in others:
            spelling[value] = value if value in known else first
            if value not in known:
                what = f"the {noun} '{value}' ({counts[value]} of the rows) is taken as '{first}'."
                notes.append(Fault("near-equal values", where, what, "Write them alike.", level="note"))
    return spelling, notes


def classes_of_labels(
    table: Table, known: Mapping[str, str] | None = None, asked: Sequence[str] = ()
) -> tuple[dict[str, str], tuple[str, ...], list[Fault]]:
    """Which class each label of a table means.

    Args:
        table: See `read_table`.
        known: Class by label as written; any other label is a fault. None: each label that occurs is a class.
        asked: The classes to take, in label order, "A+B" for two labels; rows of others are left out.

    Returns:
        Class by label as written; the class names, numbers before words unless they were asked for; and the faults:
        labels that are unknown or missing, classes of which there is no row.

    Raises:
        SettingError: a label is asked for twice.
    """
    where, written = table.path.name, {row.label for row in table.rows}
    if asked:
        parts = [(part, name) for name in asked for part in ([name] if name in written else name.split("+"))]
        known = dict(parts)
        if len(known) < len(parts):
            raise SettingError(f"classes '{', '.join(asked)}' name a label twice.", remedy="Name each once.")
    there = [row.label for row in table.rows if row.label.lower() not in MISSING or row.label in (known or ())]
    spelling, faults = one_spelling(there, known or (), where, "label")
    used = sorted({spelling[label] for label in there}, key=_numbers_first)
    known = dict(zip(used, used, strict=True)) if known is None else known
    for row in table.rows:
        if row.label.lower() in MISSING and row.label not in known:
            what = f"'{row.file}' has no label (line {row.line}: '{row.label}')."
            meant = f"; if '{row.label}' is a class, name all of them with the setting classes" if row.label else ""
            faults.append(Fault("missing label", where, what, f"Fill it in, or leave the row out{meant}."))
        elif spelling[row.label] not in known and not asked:
            names = ", ".join(list(known)[:12]) + " ..." * (len(known) > 12)
            what = f"'{row.file}' has the unknown label '{row.label}'."
            faults.append(Fault("unknown label", where, what, f"Known: {names}."))
    faults += [
        Fault("class without files", where, f"has no label '{part}'.", f"Its labels: {listed(used)}.")
        for part in (known if asked else ())
        if part not in used
    ]
    classes = {label: known[spelling[label]] for label in there if spelling[label] in known}
    return classes, tuple(dict.fromkeys(known.values())), faults


def _form(value: str) -> str:
    """What near-equal values share: "1" and "1.0", "focal" and "Focal"."""
    return re.sub(r"^(-?\d+)\.0*$", r"\1", " ".join(value.casefold().split()))


def _numbers_first(label: str) -> tuple:
    """Sorts "2" before "10", and numbers before words."""
    try:
        number = float(label)
    except ValueError:
        number = math.inf
    return (0, number, label) if math.isfinite(number) else (1, 0.0, label)


# --- Which file a row means ---


def join(
    table: Table, files: Sequence[Path], root: Path, noun: str = "scan"
) -> tuple[dict[Path, TableRow], list[Fault]]:
    r"""Join rows to files, never on their order: a row names the end of a file's path, with or without the ending.

    "/" or "\", the case of the ending and the form of Unicode do not matter. A path with ".." begins at the table.

    Args:
        table: The rows.
        files: Each once.
        root: Of two files that a path could mean, it means the one that it leads to from here.
        noun: What the files are, in words.

    Returns:
        Row by file, and the faults: rows without a file, several of one file, files of one name, swallowed rows.
    """
    where, faults = table.path.name, []
    start = os.path.abspath(root)
    below = {path: path.relative_to(root).as_posix() for path in files}
    ends, near = defaultdict(list), defaultdict(list)  # files by the last parts of their paths, and by letters
    for path, name in below.items():
        parts, ending = _path_parts(f"{start}/{name}")
        near[_letters(parts[-1])].append(name)
        for n in range(1, min(len(parts), 3) + 1):
            ends[parts[-n:]].append((path, parts, ending))
    joined, rows_of = {}, defaultdict(list)
    for row in table.rows:
        parts, ending = _path_parts(row.file, table.path.parent)
        alike = ends.get(parts[-3:], ())
        found = [path for path, there, other in alike if there[-len(parts) :] == parts and ending in ("", other)]
        if len(found) > 1 and len(parts) > 1:
            found = [path for path in found if _path_parts(below[path])[0] == parts] or found
        joined |= dict.fromkeys(found, row)
        rows_of[found[0] if len(found) == 1 else (parts, ending)].append(row)
        if not found:
            what = f"{where} names it, but there is no such {noun}"
            nearest = near.get(_letters(parts[-1]))
            what += f"; near it comes {listed(nearest)}." if nearest else "."
            faults.append(Fault("missing file", row.file, what, f"Add the {noun}.", level="file"))
        elif len(found) > 1:
            what = f"{len(found)} {noun}s are named so: {listed([below[path] for path in found])}."
            remedy = "Keep one of them, or write the folder into the table."
            faults.append(Fault("two files of one name", row.file, what, remedy))
    for first, *others in rows_of.values():
        if others:
            times = "twice" if len(others) == 1 else f"{len(others) + 1} times"
            rows = ", ".join(f"'{row.file}' in line {row.line}" for row in (first, *others))
            faults.append(
                Fault("duplicate row", where, f"'{first.file}' is there {times}: {rows}.", f"Keep one row a {noun}.")
            )
    unlisted = {_path_parts(path.name)[0] for path in files if path not in joined}
    for line, cell in table.long_cells:
        pieces = [piece.strip(' "') for piece in re.split(r"[,;\t\r\n]", cell)]
        if any(_path_parts(piece)[0][-1:] in unlisted for piece in pieces):
            faults.append(Fault("unclosed quote", where, *_unclosed(line)))
    return joined, faults


def _path_parts(text: str, start: str | Path = "") -> tuple[tuple[str, ...], str]:
    """Folders and name without its ending, and the ending in lower case; "a/.." is resolved from the folder `start`."""
    text = normalize("NFC", text).replace("\\", "/")
    if ".." in text.split("/"):
        text = os.path.abspath(os.path.join(start, text))
    parts = [part for part in text.split("/") if part not in ("", ".")] or [""]
    ending = next((ending for ending in FILE_ENDINGS if parts[-1].lower().endswith(ending)), "")
    return (*parts[:-1], parts[-1][: len(parts[-1]) - len(ending)]), ending


def _letters(stem: str) -> str:
    """What near misses share: letters and digits, in lower case."""
    return re.sub(r"[\W_]+", "", stem.casefold())


def with_groups(listing: Listing, folder: Folder, groups: str | Path) -> Listing:
    """A listing of files in class folders, their groups taken from a table: file, perhaps class, group.

    Args:
        listing: Its own groups are not used.
        folder: Its files.
        groups: The CSV. Its last column names the group; one between, the class, must agree with the file's folder.

    Raises:
        DataError: the file is not there or cannot be read.
    """
    path = named_table(folder, groups)
    header, _ = _header(path)
    first, *between, last = header if len(header) > 1 else ("file", "group")
    if len(between) > 1 or "" in (first, *between, last):  # a column without a name would be taken for none
        what = f"has the columns {listed([column or '(without a name)' for column in header])}."
        fault = Fault("missing column", path.name, what, "Give it two (file, group) or three (file, class, group).")
        return replace(listing, items=(), faults=(*listing.faults, fault))
    table = read_table(path, Columns(first, *(between or [""]), last, "group"))
    files = {path: name for name, paths in folder.class_folders(FILE_ENDINGS).items() for path in paths}
    rows, faults = join(table, list(files), folder.root, "file")
    for file, row in rows.items():
        if row.label and _form(row.label) != _form(files[file]):
            what = f"line {row.line} says '{row.label}' of '{row.file}', which lies in {files[file]}/."
            faults.append(Fault("another class", path.name, what, "Move the file, or mend the row."))
    faults += [
        Fault("no group", item.name, f"no group in {path.name}.", "Add a row for it.", level="file")
        for item in listing.items
        if rows and item.source not in rows
    ]
    items = tuple(replace(item, group=rows[item.source].group) for item in listing.items if item.source in rows)
    return replace(listing, items=items, faults=(*listing.faults, *table.faults, *faults))
