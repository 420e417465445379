"""Tables with one row a file: read, checked, and joined to the files on their names."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple
from unicodedata import category, normalize

from viptt_core.datasets.listing import (
    FILE_ENDINGS,
    Folder,
    Listing,
    class_by_part,
    nothing_to_read,
    parts_without_files,
)
from viptt_core.errors import DataError, Fault, listed, raise_faults

COLUMN_SETTINGS = ("file_column", "label_column", "patient_column")
OTHER_TABLES = (".tsv", ".txt", ".xls", ".xlsx", ".ods")
HEADER_BYTES = 1 << 16  # of a table that are read to learn its columns
LONGEST = 1000  # characters of a name, a label or a group
END_ROW = "end-of-the-table"
# How pandas, R, spreadsheets and databases write a cell without a value, as `form` gives it.
MISSING = {"", "na", "n/a", "nan", "none", "null", "<na>", "nat", "-", "--", "---", ".", "?", "n.a.", "n.a", "n / a"}
MISSING |= {"-nan", "(null)", "(blank)", "na character_", "na integer_", "na real_", "#n/a", "#na", "#nv", "#ref!"}
MISSING |= {"#value!", "#div/0!", "#name?", "#num!", "#null!", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}
NO_GROUP = MISSING | {"unknown"}
NUMBER = re.compile(r"[+-]?\d{1,99}([.,]\d{0,99})?(e[+-]?\d{1,2})?")
QUOTES = "\"'`\u00b4\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a"
csv.field_size_limit(2**31 - 1)  # an open quote makes one cell of the rest, and notes may be long


class Columns(NamedTuple):
    """Names of the columns of a table, "" for one that it has not; and what a group is, in words."""

    file: str = "FileName"
    label: str = "Label"
    group: str = ""
    group_noun: str = "patient"
    remedy: str = f"Name its columns with {', '.join(COLUMN_SETTINGS)}"  #: where there are others

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
    """A table with one row a file."""

    path: Path  #: the CSV
    where: str  #: how faults call it, by its path below the set's folder, or in full
    columns: Columns  #: those that were read
    rows: tuple[TableRow, ...] = ()  #: in the table's order
    faults: tuple[Fault, ...] = ()  #: what is wrong with it

    def lacking(self, noun: str, names: Iterable[str], level: str) -> list[Fault]:
        """A fault for each of these files without a row; none where rows could not be read, which may be theirs."""
        names = () if any(fault.spoils for fault in self.faults) else names
        what = f"no {noun} in {self.path.name}."
        return [Fault(f"no {noun}", name, what, "Add a row for it.", level) for name in names]

    def fault(self, kind: str, what: str, remedy: str) -> Fault:
        """Something that is wrong with the table."""
        return Fault(kind, self.where, what, remedy)

    def unclosed(self, line: int) -> Fault:
        """A quote that is left open."""
        what = f"unclosed quote from line {line}: what follows is read as one cell."
        return self.fault("unclosed quote", what, "Close it, or delete it.")


# --- Finding and reading ---


def csv_files(folder: Folder) -> list[Path]:
    """Each CSV directly in a folder."""
    return [path for path in folder.with_ending((".csv",)) if path.parent == folder.root]


def _named_table(folder: Folder, given: str | Path) -> Path:
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
        return read_table(_named_table(folder, given), columns, folder.root)
    firsts = {path: _first_rows(path, columns.needed) for path in csv_files(folder)}
    tables = [path for path, (rows, _) in firsts.items() if set(columns.needed) <= set(rows[0])]
    if len(tables) == 1:
        return read_table(tables[0], columns, folder.root)
    if not firsts and not folder.with_ending(FILE_ENDINGS):
        raise_faults([nothing_to_read(folder, ("scan",))], folder.root)
    wanted = f"the columns {', '.join(columns.needed)}"
    what, remedy = f"holds no CSV with {wanted}.", "Put the label file there, or name it with the setting labels=PATH."
    if tables:
        what = f"holds {len(tables)} CSV files with {wanted}: {listed([path.name for path in tables])}."
        remedy = "Name one of them with the setting labels=PATH."
    elif firsts:
        what += "".join(f" {path.name} ({code}) has: {', '.join(rows[0])}." for path, (rows, code) in firsts.items())
        remedy = f"{columns.remedy}, or name another table with labels=PATH."
    what += "".join(f" {fault.where} {fault.what}" for fault in folder.faults if fault.where.lower().endswith(".csv"))
    if others := [path.name for path in folder.with_ending(OTHER_TABLES) if path.parent == folder.root]:
        what += f" There are also: {listed(others)}."
        remedy += " Save a table of another kind as 'CSV UTF-8'."
    raise DataError(what, path=folder.root, remedy=remedy, kind="no label table")


def read_table(path: Path, columns: Columns, root: Path | None = None) -> Table:
    """Read a table separated by commas, semicolons or tabs, in UTF-8; faults call it by its path below `root`.

    Raises:
        DataError: the file is not there or cannot be read.
    """
    try:
        text, encoding = _decoded(path.read_bytes())
    except OSError as error:
        what = f"cannot be read ({error.strerror})." if os.path.exists(path) else "no such file."
        remedy = f"Give the CSV with the columns {', '.join(columns.needed)}."
        raise DataError(what, path=path, remedy=remedy, kind="missing file") from error
    place, root = Path(os.path.abspath(path)), os.path.abspath(root or path.parent)
    where = place.relative_to(root) if place.is_relative_to(root) else place
    table, (rows, unclosed) = Table(path, where.as_posix(), columns), _split_rows(text, columns.needed)
    line, header = rows[0] if rows else (1, [])
    lacking = [name for name in columns.needed if name not in header]
    double = [name for name in columns.needed if header.count(name) > 1]
    if encoding != "UTF-8":
        fault = table.fault("not UTF-8", f"is not UTF-8 text, but {encoding}.", "Save it as 'CSV UTF-8'.")
    elif "\0" in text:
        line = text.partition("\0")[0].count("\n") + 1
        fault = table.fault("damaged file", f"holds a NUL byte in line {line}.", "Export or copy it again.")
    elif unclosed:
        fault = table.unclosed(unclosed)
    elif lacking:
        what = f"lacks the columns {', '.join(lacking)}; line {line} has: {', '.join(header) or 'none'}."
        fault = table.fault("missing column", what, f"{columns.remedy}, or mend the line.")
    elif double:
        what = f"has {header.count(double[0])} columns '{double[0]}' in line {line}."
        fault = table.fault("columns of one name", what, "Rename or delete all but one.")
    else:
        return _checked(table, rows)
    return replace(table, faults=(fault,))


def _checked(table: Table, rows: Sequence[tuple[int, list[str]]]) -> Table:
    """The table with its rows, and the faults that show without the files."""
    columns, header = table.columns, rows[0][1]
    places = [header.index(name) if name else -1 for name in columns[:3]]
    kept, faults, ragged = [], [], []
    for line, cells in rows[1:]:
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if len(cells) != len(header):
            ragged.append(str(line))
            continue
        row = TableRow(line, *("" if place < 0 else cells[place] for place in places))
        if fault := _row_fault(table, row):
            faults.append(fault)
        else:
            kept.append(row)
    if ragged:
        what = f"has {len(header)} columns, and more or fewer cells in line {listed(ragged)}."
        remedy = 'Put text that holds the separator into "quotes"; leave nothing between two for an empty cell.'
        faults.append(table.fault("ragged row", what, remedy))
    if not (kept or faults):
        remedy = f"Add one row a file: {','.join(columns.needed)}."
        faults.append(table.fault("empty table", "holds no row below its header.", remedy))
    spelling, notes = one_spelling((row.group for row in kept), (), table.where, columns.group_noun)
    kept = [row._replace(group=spelling[row.group]) for row in kept]
    return replace(table, rows=tuple(kept), faults=(*faults, *notes))


def _row_fault(table: Table, row: TableRow) -> Fault | None:
    group, noun = table.columns.group, table.columns.group_noun
    if any("\n" in cell for cell in row[1:]):
        return table.unclosed(row.line)
    if (length := max(map(len, row[1:]))) > LONGEST:
        what = f"line {row.line} has a cell of {length} characters."
        return table.fault("long cell", what, f"Write a name, label or {noun} of at most {LONGEST}.")
    if not row.file:
        return table.fault("row without a file", f"line {row.line} names no file.", "Fill in the name.")
    if group and form(row.group) in NO_GROUP:
        what = f"'{row.file}' has no {noun} (line {row.line}: '{row.group}')."
        return table.fault(f"no {noun}", what, f"Fill in {group}, or leave it out.")
    return None


def _first_rows(path: Path, needed: Collection[str] = ()) -> tuple[list[list[str]], str]:
    """Cells of the first rows, one at least, and the encoding or why there are none; `needed`: see `_split_rows`."""
    try:
        with open(path, "rb") as file:
            text, encoding = _decoded(b"".join(file.readlines(HEADER_BYTES)))
    except OSError as error:
        return [[]], f"cannot be read: {error.strerror}"
    return [cells for _, cells in _split_rows(text, needed)[0]] or [[]], encoding


def names_a_file(path: Path, files: Iterable[Path]) -> bool:
    """Whether a cell in the first rows of a table names one of the files."""
    stems = {_path_parts(file.name)[0][-1] for file in files}
    cells = (cell for row in _first_rows(path)[0] for text in row for cell in re.split("[,;\t]", text) if cell)
    return any(_path_parts(cell)[0][-1] in stems for cell in cells)


def _decoded(content: bytes) -> tuple[str, str]:
    """Text of composed characters and one kind of line end, and the encoding in words: a guess, unless it is UTF-8."""
    encoding, name = json.detect_encoding(content), "UTF-8"
    try:
        text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError:
        name, text = "Windows-1252 or the like", content.decode("cp1252", errors="replace")
    if "16" in encoding or "32" in encoding:
        name, text = encoding.upper(), content.decode(encoding, errors="ignore")
    return re.sub(r"\r\n?", "\n", normalize("NFC", text)), name


def _split_rows(text: str, needed: Collection[str] = ()) -> tuple[list[tuple[int, list[str]]], int]:
    """Cells of each row that has any, with the line it begins in; and the line of an open quote, else 0.

    What parts the cells is stated, or else gives the needed columns, or else gives most of them.
    """
    first = text.lstrip("\n\t ,;").partition("\n")[0]
    stated = re.match(r'"?sep=([^\w"])', first, re.IGNORECASE)  # for Excel

    def columns(separator: str) -> tuple[bool, int]:
        names = [cell.strip() for cell in next(csv.reader([first], delimiter=separator, skipinitialspace=True), ())]
        return set(needed) <= set(names), len(names)

    separator = stated[1] if stated else max(",;\t", key=columns)
    # csv does not say that a quote is still open at the end. A row of our own shows it: the quote swallows it.
    reader = csv.reader(io.StringIO(f"{text}\n{END_ROW}", newline=""), delimiter=separator, skipinitialspace=True)
    rows, line = [], 1
    for cells in reader:
        rows.append((line, [cell.strip() for cell in cells]))
        line = reader.line_num + 1
    line, _ = rows.pop()
    return [row for row in rows if "".join(row[1]).strip(",;")][bool(stated) :], 0 if line == reader.line_num else line


# --- What labels mean ---


def classes_of_labels(
    table: Table, known: Mapping[str, str] | None = None, asked: Sequence[str] = ()
) -> tuple[dict[str, str], tuple[str, ...], list[Fault]]:
    """Which class each label of a table means.

    Args:
        table: See `read_table`.
        known: Class by label as written; any other label is a fault. None: each label that occurs is a class.
        asked: The classes to take, in label order, "A+B" for two labels; rows of others are left out.

    Returns:
        Class by label as written; the class names, numbers before words unless they were asked for; the faults.

    Raises:
        SettingError: a label is asked for twice.
    """
    if asked:
        known = class_by_part(asked, {row.label for row in table.rows}, "label")
    there = [row.label for row in table.rows if row.label in (known or ()) or form(row.label) not in MISSING]
    spelling, faults = one_spelling(there, known or (), table.where, "label")
    used = sorted({spelling[label] for label in there})
    used.sort(key=lambda label: float("inf") if number(label) is None else number(label))  # 2, 10, then words
    known = dict(zip(used, used, strict=True)) if known is None else known
    for row in table.rows:
        if row.label not in spelling:
            what = f"'{row.file}' has no label (line {row.line}: '{row.label}')."
            how = f"write '{row.label}' just so" if asked else "name all of them"
            meant = f"; if '{row.label}' is a class, {how} in the setting classes" if row.label else ""
            faults.append(table.fault("missing label", what, f"Fill it in, or leave the row out{meant}."))
        elif spelling[row.label] not in known and not asked:
            what = f"'{row.file}' has the unknown label '{row.label}' (line {row.line})."
            faults.append(table.fault("unknown label", what, f"Known: {listed(list(known))}."))
    if asked:
        faults += parts_without_files(known, used, table.where, "label")
    classes = {label: known[spelling[label]] for label in there if spelling[label] in known}
    return classes, tuple(dict.fromkeys(known.values())), faults


# --- Which file a row means ---


def join(table: Table, files: Sequence[Path], root: Path) -> tuple[dict[Path, TableRow], list[Fault]]:
    r"""Join rows to files, never on their order: a row names the end of a file's path, with or without the ending.

    "/" or "\", the case of the ending and the form of Unicode do not matter. A path with ".." begins at the table; of
    two files that a path could mean, it means the one that it leads to from `root`.

    Returns:
        Row by file, and the faults: rows without a file, several of one file, files of one name.
    """
    start = os.path.abspath(root)
    below = {path: path.relative_to(root).as_posix() for path in files}
    ends = defaultdict(list)  # files by the last parts of their paths
    for path, name in below.items():
        parts, ending = _path_parts(f"{start}/{name}")
        for n in range(1, min(len(parts), 3) + 1):
            ends[parts[-n:]].append((path, parts, ending))
    joined, faults, rows_of = {}, [], defaultdict(list)
    for row in table.rows:
        parts, ending = _path_parts(row.file, table.path.parent)
        alike = ends.get(parts[-3:], ())
        found = [path for path, there, other in alike if there[-len(parts) :] == parts and ending in ("", other)]
        if len(found) > 1 and len(parts) > 1:
            found = [path for path in found if _path_parts(below[path])[0] == parts] or found
        joined |= dict.fromkeys(found, row)
        rows_of[found[0] if len(found) == 1 else (parts, ending)].append(row)
        if not found:
            what = f"line {row.line} of {table.path.name} names it, but there is no such file."
            remedy = "Mend the name, add the file, or delete the row."
            faults.append(Fault("missing file", row.file, what, remedy, level="file"))
        elif len(found) > 1:
            what = f"{len(found)} files are named so: {listed([below[path] for path in found])}."
            remedy = "Keep one of them, or write the folder into the table."
            faults.append(Fault("two files of one name", row.file, what, remedy))
    for first, *others in rows_of.values():
        if others:
            times = "twice" if len(others) == 1 else f"{len(others) + 1} times"
            rows = ", ".join(f"'{row.file}' in line {row.line}" for row in (first, *others))
            what = f"'{first.file}' is there {times}: {rows}."
            faults.append(table.fault("duplicate row", what, "Keep one row a file."))
    return joined, faults


def _path_parts(text: str, start: str | Path = "") -> tuple[tuple[str, ...], str]:
    """Folders and name without its ending, and the ending in lower case; "a/.." is resolved from the folder `start`."""
    text = normalize("NFC", text).replace("\\", "/")
    if ".." in text.split("/"):
        text = os.path.abspath(os.path.join(start, text))
    parts = [part for part in text.split("/") if part not in ("", ".")] or [""]
    ending = next((ending for ending in FILE_ENDINGS if parts[-1].lower().endswith(ending)), "")
    return (*parts[:-1], parts[-1][: len(parts[-1]) - len(ending)]), ending


def with_groups(listing: Listing, folder: Folder, groups: str | Path) -> Listing:
    """A listing of files in class folders, their groups taken from a table: file, perhaps class, group."""
    path = _named_table(folder, groups)
    header = _first_rows(path)[0][0] or ["file", "group"]
    if not 2 <= len(header) <= 3:
        what = f"has the columns {listed(header)}."
        fault = Fault("missing column", path.name, what, "Give it two (file, group) or three (file, class, group).")
        return replace(listing, items=(), faults=(*listing.faults, fault))
    table = read_table(path, Columns(header[0], "", header[-1], "group"), folder.root)
    files = [path for paths in folder.class_folders(FILE_ENDINGS).values() for path in paths]
    rows, faults = join(table, files, folder.root)
    faults += table.lacking("group", (item.name for item in listing.items if item.source not in rows), "file")
    items = tuple(replace(item, group=rows[item.source].group) for item in listing.items if item.source in rows)
    return replace(listing, items=items, faults=(*listing.faults, *table.faults, *faults))


# --- When two cells of a table say the same, and when one says nothing ---


def one_spelling(
    values: Iterable[str], known: Collection[str], where: str, noun: str
) -> tuple[dict[str, str], list[Fault]]:
    """One spelling for "focal" and "Focal", "1", "01" and "1.0": the known one, else the most frequent one.

    Returns:
        Spelling by value, and a note, of that noun in that table, for each value that is not as it was written.
    """
    counts = Counter(values)
    alike = defaultdict(list)
    for value in sorted({*counts, *known}, key=lambda value: (value not in known, -counts[value], value)):
        alike[form(value)].append(value)
    spelling, notes = {}, []
    for first, *others in alike.values():
        spelling[first] = first
        for value in others:
            spelling[value] = value if value in known else first
            if value not in known:
                what = f"the {noun} {value!r} ({counts[value]} of the rows) is taken as {first!r}."
                notes.append(Fault("near-equal values", where, what, "Write them alike.", level="note"))
    return spelling, notes


def form(value: str) -> str:
    """What near-equal values share, whatever their case, quotes, blanks, dashes, and however a number is written."""
    seen = (char for char in normalize("NFKC", value) if category(char) != "Cf")  # without those of no width
    text = "".join("-" if category(char) == "Pd" or char == "\N{MINUS SIGN}" else char for char in seen)
    text = " ".join(text.casefold().strip(f"{QUOTES} ").split())
    value = number(text)
    return re.sub(r"(?<=\w)[-_ ]+(?=\w)", " ", text) if value is None else str(value)


def number(text: str) -> Fraction | None:
    """The number that a text writes, None if it writes none."""
    return Fraction(text.replace(",", ".")) if NUMBER.fullmatch(text) else None
