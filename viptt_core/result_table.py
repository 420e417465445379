"""A table as notebooks and the book show it: with a caption, sentences below, and notes that unfold."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

import pandas as pd

LONG = 60  # characters of a cell that may be broken into lines


@dataclass(frozen=True)
class ResultTable:
    """A table with sentences below it; or the sentences alone.

    Attributes:
        text: Sentences; lines are kept.
        table: Scrolls by itself on a narrow screen.
        caption: Above the table.
        notes: Unfold below.
    """

    text: str = ""
    table: pd.DataFrame | None = None
    caption: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        table = "" if self.table is None else self.table.to_string(index=False)
        return "\n".join(filter(None, (self.caption, table, self.text, *self.notes)))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        page = "" if self.table is None else table_html(self.table, self.caption)
        page += f"<p>{_escaped(self.text)}</p>" if self.text else ""
        notes = "".join(f"<li>{_escaped(note)}</li>" for note in self.notes)
        page += f"<details><summary>Notes on the rows</summary><ul>{notes}</ul></details>" if notes else ""
        return {"text/plain": str(self), "text/html": page}


def table_html(table: pd.DataFrame, caption: str = "") -> str:
    """A table that scrolls by itself where it is wider than the page, text in its cells escaped."""
    page = table.to_html(index=False, border=0, classes="table", na_rep="")
    if caption:
        caption = f'<caption style="caption-side:top;text-align:left">{_escaped(caption)}</caption>'
        page = page.replace("<thead>", f"{caption}<thead>", 1)
    page = re.sub("<td>([^<]*)</td>", _unbroken, page)
    return f'<div class="viptt-table" style="overflow-x:auto">{page}</div>'


def _unbroken(cell: re.Match) -> str:
    """A cell that a narrow screen does not break into a word a line: the table scrolls instead."""
    style = "min-width:24em" if len(cell[1]) > LONG else "white-space:nowrap"
    return f'<td style="{style}">{cell[1]}</td>'


def _escaped(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
