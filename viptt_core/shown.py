"""How results are shown: estimates with their intervals as text, and tables."""

from __future__ import annotations

import html
import inspect
import re
import textwrap
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources

import numpy as np
import pandas as pd

# How pages name what plans and tables name: parts of arms, then baselines ("arms"); measures, sources of videos and
# factors ("labels"); fields of an arm ("fields"). What is not there, such as of a reader's plan, stays as it is.
WORDS = tomllib.loads((resources.files("viptt_core") / "study" / "words.toml").read_text(encoding="utf-8"))
ARM_WORDS = WORDS["arms"]


def arm_label(name: str) -> str:
    """The name of an arm or baseline on pages: "video-weights" of a plan is "ImageNet + videos, class weights"."""
    start, *rest = name.split(", ")
    first, *factors = start.split("-")  # a factorial's arm: "video-weights-rotation"
    parts = (first, *factors, *rest) if first in ARM_WORDS else (start, *rest)
    return ", ".join(ARM_WORDS.get(part, part) for part in parts)


def label(name: str) -> str:
    """A measure, a set of videos or a factor as pages name it."""
    return WORDS["labels"].get(name, name)


def with_ends(row: Mapping, column: str) -> tuple[float, float, float]:
    """A number of a row and the ends of its interval: COLUMN_low and COLUMN_high, or low and high; nan where none."""
    prefix = f"{column}_" if f"{column}_low" in row else ""
    return row[column], row.get(f"{prefix}low", np.nan), row.get(f"{prefix}high", np.nan)


def with_interval(value: float, low: float, high: float, *, digits: int = 2, signed: bool = False) -> str:
    """Such as "0.35 (0.30 to 0.41)"; "" for nan, no brackets without an interval.

    A difference is signed and has a digit more, so that one sees on which side of 0 its interval ends.
    """
    if np.isnan(value):
        return ""
    shown = _number(value, digits, signed)
    return shown if np.isnan(low) else f"{shown} ({interval(low, high, digits=digits, signed=signed)})"


def interval(low: float, high: float, *, digits: int = 2, signed: bool = False) -> str:
    """Such as "0.30 to 0.41", see `with_interval`."""
    return f"{_number(low, digits, signed)} to {_number(high, digits, signed)}"


def _number(value: float, digits: int, signed: bool) -> str:
    digits += signed
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"  # + 0.0: no -0.000


@dataclass(frozen=True)
class ResultTable:
    """A table with sentences below it; or the sentences alone."""

    text: str = ""  #: sentences; lines are kept
    table: pd.DataFrame | None = None  #: on a page without the columns that hold one value in every row
    caption: str = ""  #: above the table
    page: str = ""  #: HTML in place of the sentences

    def __str__(self) -> str:
        table = "" if self.table is None else self.table.to_string(index=False)
        return "\n".join(filter(None, (self.caption, table, self.text)))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        page, text = "", self.text
        if self.table is not None:
            table, same = without_constants(self.table)
            page, text = _table_html(table, self.caption), "\n".join(filter(None, (same, text)))
        page += self.page or (f"<p>{_escaped(text)}</p>" if text else "")
        return {"text/plain": str(self), "text/html": page}


class ShownAsTable:
    """Something that is printed and shown as the ResultTable that its `_shown` gives."""

    def __str__(self) -> str:
        return str(self._shown())

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return self._shown()._repr_mimebundle_()


def without_constants(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """A table without the columns, but the first, that hold one value in all of three rows or more; and a sentence
    that says what they hold.
    """
    same = [name for name in table.columns[1:] if len(table) > 2 and table[name].nunique(dropna=False) == 1]
    held = [(name, table[name].iloc[0]) for name in same]
    told = "; ".join(f"{name} {value}" for name, value in held if str(value) not in ("", "nan"))
    return table.drop(columns=same), f"In every row: {told}." if told else ""


def _table_html(table: pd.DataFrame, caption: str) -> str:
    """A table whose cells break between words, not within an interval; a viewer without our style lets it scroll."""
    page = table.to_html(index=False, border=0, classes="table", na_rep="")
    page = re.sub(r"\([^()<>]{,24}\)", lambda found: found[0].replace(" ", "\xa0"), page)
    if caption:
        caption = f'<caption style="caption-side:top;text-align:left">{_escaped(caption)}</caption>'
        page = page.replace("<thead>", f"{caption}<thead>", 1)
    return f'<div class="viptt-table" style="overflow-x:auto">{page}</div>'


def _escaped(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def show_code(function: Callable):
    """The source of a function, as a notebook shows it."""
    from IPython.display import Markdown

    return Markdown(f"```python\n{textwrap.dedent(inspect.getsource(function))}```")
