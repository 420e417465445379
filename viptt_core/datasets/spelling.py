"""When two cells of a table say the same, and when one says nothing."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from fractions import Fraction
from unicodedata import category, normalize

from viptt_core.errors import Fault

# How pandas, R, spreadsheets and databases write a cell without a value, as `form` gives it.
MISSING = {"", "na", "n/a", "nan", "none", "null", "<na>", "nat", "-", "--", "---", ".", "?", "n.a.", "n.a", "n / a"}
MISSING |= {"-nan", "(null)", "(blank)", "na character_", "na integer_", "na real_", "#n/a", "#na", "#nv", "#ref!"}
MISSING |= {"#value!", "#div/0!", "#name?", "#num!", "#null!", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}
NO_GROUP = MISSING | {"unknown"}
NUMBER = re.compile(r"[+-]?\d{1,99}([.,]\d{0,99})?(e[+-]?\d{1,2})?")
QUOTES = "\"'`\u00b4\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u2039\u203a"


def is_missing(value: str, words: Collection[str] = MISSING) -> bool:
    """Whether a cell stands for no value."""
    return form(value) in words


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
