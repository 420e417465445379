"""Damage to bytes, tables and JSON, drawn from a generator: the same in every run."""

import copy
import json
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


# --- JSON -----------------------------------------------------------------------------------------------

VALUES = [None, True, False, 0, 1, -1, 0.5, 10**9, 2**63, 2**64, 10**400, 1e308, float("nan"), float("inf"), "", "6"]
VALUES += ["\x00", "\ud800", "a" * 100_000, [], [[]], [None, None], {}, {"": None}]
DEEP = (20, 400, 900, 100_000)


def mutated_json(content: dict, rng: np.random.Generator) -> str:
    """A value replaced, gone, doubled, swapped with another or nested deeply; or characters of the text changed."""
    tree = copy.deepcopy(content)
    places = list(_places(tree))
    (holder, key), (other, other_key) = (places[k] for k in rng.integers(len(places), size=2))
    kind = int(rng.integers(10))
    if kind <= 2:
        holder[key] = VALUES[rng.integers(len(VALUES))]
    elif kind == 3:
        del holder[key]
    elif kind == 4:
        holder[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(holder[key])
    elif kind == 5 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif kind == 5:
        holder[f"{key}{key}"] = holder[key]
    elif kind == 6:
        numbers = [(held, k) for held, k in places if type(held[k]) in (int, float)]
        holder, key = numbers[rng.integers(len(numbers))]
        holder[key] = [holder[key] + 1, -holder[key], holder[key] * 2, 0, 2**40, 0.5][rng.integers(6)]
    elif kind in (7, 8):
        nested = [(held, k) for held, k in places if isinstance(held[k], dict | list)]
        holder, key = nested[rng.integers(len(nested))]
        opened, closed = ('{"a":', "}") if isinstance(holder[key], dict) else ("[", "]")
        holder[key] = "DEEP"
    text = json.dumps(tree)
    if kind in (7, 8):
        depth = int(rng.choice(DEEP))
        text = text.replace('"DEEP"', opened * depth + "1" + closed * depth)
    elif kind == 9:
        text = mutated(text.encode(), rng, len(text)).decode("utf-8", "replace")
    return text


def _places(tree):
    """Each container in parsed JSON with each of its keys or indices."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])
