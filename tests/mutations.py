"""Damage to bytes and tables, drawn from a generator: the same in every run."""

import struct

import numpy as np

NUMBERS = [
    struct.pack(code, value)
    for code, values in {
        "<i": (0, 1, -1, 2**31 - 1, -(2**31), 30000, 65536),
        ">i": (1, 2**31 - 1, 30000),
        "<f": (np.nan, np.inf, -np.inf, 1e38, 1e-38, -1.0, 1000.0),
    }.items()
    for value in values
]


def mutated(content: bytes, rng: np.random.Generator, header: int) -> bytes:
    """Bytes flipped, cut, blanked, repeated, or made extreme, in the header (its length in bytes) or anywhere."""
    changed = bytearray(content)
    end = header if rng.random() < 0.6 else len(content)
    at, n = int(rng.integers(end)), int(rng.integers(1, 65))
    kind = rng.choice(["flip", "cut", "blank", "repeat", "number", "swap"], p=[0.3, 0.15, 0.1, 0.1, 0.25, 0.1])
    if kind == "flip":
        for place in rng.integers(end, size=rng.integers(1, 9)):
            changed[place] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del changed[int(rng.integers(len(content))) :]
    elif kind == "blank":
        changed[at : at + n] = bytes([int(rng.choice([0, 255]))]) * min(n, len(changed) - at)
    elif kind == "repeat":
        changed[at:at] = changed[at : at + n]
    elif kind == "number":
        at -= at % 4
        changed[at : at + 4] = rng.choice(NUMBERS)
    else:
        changed[at : at + n] = changed[at : at + n][::-1]
    return bytes(changed)


# --- Tables ---------------------------------------------------------------------------------------------

CELLS = ["", " ", "nan", "NA", "None", "-1", "0", "1.0", "1e309", "inf", "0x10", "1_0", "٣", "é", "e\u0301", "\u200b"]
CELLS += ['"', '""', "'", '"a\nb"', '"a,b"', "a,b", ";", "\t", "\r", "\n", "\x1a", "=1+1", "#", "\\", "%s", "{}"]
CELLS += [
    "..",
    "/",
    "/a",
    "../../a",
    "a/../b",
    "C:\\a",
    "~",
    "//",
    "*",
    "a" * 200_000,
    "../" * 5000,
    "[" * 5000,
    "9" * 5000,
]


def mutated_table(table: str, rng: np.random.Generator) -> bytes:
    """A cell, row or column replaced, swapped, doubled or gone; other separators and encodings; or any bytes."""
    rows = [line.split(",") for line in table.splitlines()]
    first, second = (int(k) for k in rng.integers(len(rows), size=2))
    column, other = (int(k) for k in rng.integers(len(rows[0]), size=2))
    row, separator, encoding, end = rows[first], ",", "utf-8", "\n"
    kind = int(rng.integers(12))
    if kind <= 2:
        row[column] = str(rng.choice(CELLS))
    elif kind == 3:
        row[column], rows[second][other] = rows[second][other], row[column]
    elif kind == 4:
        rows[first], rows[second] = rows[second], rows[first]
    elif kind == 5:
        rows[second:second] = [list(row)] * int(rng.choice([1, 2, 5000]))
    elif kind == 6:
        del rows[first]
    elif kind == 7:
        del row[column]
    elif kind == 8:
        row.insert(column, str(rng.choice(CELLS)))
    elif kind == 9:
        for each in rows:
            each[column], each[other] = each[other], each[column]
    elif kind == 10:
        separator = str(rng.choice([";", "\t", ", ", " ", "|"]))
        encoding = str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]))
        end = str(rng.choice(["\n", "\r\n", "\r", "\n\n", "\x0b"]))
    content = end.join([*(separator.join(row) for row in rows), ""]).encode(encoding)
    return mutated(content, rng, len(content)) if kind == 11 else content
