"""Figures of an entry: what models and ensembles answer, where averaged class numbers go wrong, and the scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn
from matplotlib.colors import ListedColormap

from viptt_core.constants import TB_CLASSES
from viptt_core.figures import (
    ARM_COLOURS,
    OTHER_COLOUR,
    SMALL,
    Picture,
    chart_width,
    kappa_by_arm,
    legend_below,
    new_axes,
    styled,
)
from viptt_core.figures.picture import WIDTH
from viptt_core.results import Summary
from viptt_core.shown import ResultTable, arm_label
from viptt_core.submission import AUTHORS_WEIGHTS, combine, counts_text
from viptt_core.submission.entry import ENSEMBLE, Entry, count_answers

# Predicted classes of the 421 hidden test scans, in the authors' notebooks; of the third run they are not known. [C]
PUBLISHED_COUNTS = {
    "run with class weights": (208, 78, 47, 64, 24),
    "run with augmentation": (205, 90, 39, 48, 39),
    "the ensemble handed in": (181, 117, 45, 53, 25),
}
WRONG = "#D55E00"
GREYS = ("#BBBBBB", "#8A8A8A", "#555555")  # of models that are no arms, in turn
COLOURS = {f"{ENSEMBLE}mean": OTHER_COLOUR, f"{ENSEMBLE}vote": "#56B4E9", f"{ENSEMBLE}authors": WRONG, "true": "black"}
MARKS = ListedColormap(["white", "#FBE3D5"])  # of answers that a run gave, and of those that none gave


@styled
def counts_chart(entry: Entry) -> Picture:
    """Number of scans in each class, a bar a model and an ensemble, and the truth where it is known."""
    rows = count_answers(entry)
    colours = dict(zip(rows["who"], GREYS * len(rows), strict=False)) | ARM_COLOURS | COLOURS
    named = rows.assign(who=rows["who"].map(arm_label))
    figure = _bars(named, [colours[name] for name in rows["who"]], "How many scans in each class")
    alt = f"Number of scans in each class, by model and by ensemble. {_told(named)}."
    return Picture(figure, alt, synthetic=entry.synthetic, table=named)


@styled
def published_chart() -> Picture:
    """The same counts as the authors published them: two of their three runs, and what they handed in."""
    rows = pd.DataFrame.from_dict(PUBLISHED_COUNTS, orient="index", columns=TB_CLASSES).reset_index(names="who")
    figure = _bars(rows, [*GREYS[:2], WRONG], "The authors' answers, 421 test scans")
    words = "Predicted classes of the 421 hidden test scans, as the authors published them."
    return Picture(figure, f"{words} {_told(rows)}.", table=rows)


@styled
def rule_chart() -> Picture:
    """What round(0.6 a + 0.2 b + 0.2 c) answers where the second and the third run agree; no data is in it."""
    k = len(TB_CLASSES)
    first, others = np.indices((k, k))  # of the first run; of the two others
    certain = np.eye(k)
    answers = combine(certain[[first.ravel(), others.ravel(), others.ravel()]], "authors").reshape(k, k)
    said_by_none = (answers != first + 1) & (answers != others + 1)
    followed = (answers == others + 1) & (first != others)
    figure, axes = new_axes(1, 1, size=(WIDTH, 3.7))
    look = {"cmap": MARKS, "vmin": 0, "vmax": 1, "cbar": False, "linewidths": 1, "ax": axes[0, 0]}
    labels = [f"{number} {name}" for number, name in enumerate(TB_CLASSES, 1)]
    axis = seaborn.heatmap(said_by_none, annot=answers, fmt="d", xticklabels=labels, yticklabels=labels, **look)
    for text, wrong in zip(axis.texts, said_by_none.ravel(), strict=True):
        text.set(color=WRONG if wrong else "black", fontweight="bold" if wrong else "normal")
    axis.tick_params(length=0, labelsize=SMALL)
    weights = " + ".join(f"{weight:g} {run}" for weight, run in zip(AUTHORS_WEIGHTS, "abc", strict=True))
    axis.set(xlabel="second and third run say", ylabel="first run says", title=f"round({weights})")
    figure.tight_layout()
    cases = "; ".join(
        f"{TB_CLASSES[row]} and twice {TB_CLASSES[column]} give {TB_CLASSES[answers[row, column] - 1]}"
        for row, column in zip(*np.nonzero(said_by_none), strict=True)
    )
    return Picture(
        figure,
        "The class that averaged class numbers give, by what the first run says and what the two "
        f"others say. Of {k * k - k} cases in which they differ, in {followed.sum()} it is what the two "
        f"others say. In {said_by_none.sum()}, marked in orange, no run said it: {cases}.",
    )


def scores_chart(summary: Summary | ResultTable, entry: Entry) -> Picture | ResultTable:
    """Kappa of each model and ensemble with its interval, see `figures.kappa_by_arm`; a sentence without labels."""
    if not isinstance(summary, Summary):
        return summary
    return kappa_by_arm(summary.table, on="these scans", synthetic=entry.synthetic)


def _bars(rows: pd.DataFrame, colours: list[str], title: str):
    """A group of bars a class: one for each row, labelled by its "who"."""
    height = 0.16 * len(rows) * len(TB_CLASSES) + 1.2
    figure, axes = new_axes(1, 1, size=(chart_width(), height))
    counts = rows.set_index("who")[list(TB_CLASSES)].T
    axis = counts.plot.barh(ax=axes[0, 0], color=colours, width=0.86, edgecolor="white", legend=False)
    for bars in axis.containers:
        axis.bar_label(bars, fontsize=SMALL, padding=2)
    axis.invert_yaxis()
    names = [f"{k}\n{name}" for k, name in enumerate(TB_CLASSES, 1)]
    axis.set(xlabel="scans", ylabel="", title=title, yticklabels=names)
    axis.tick_params(axis="y", labelsize=SMALL)
    axis.margins(x=0.1)  # room for the numbers
    figure.tight_layout()
    legend_below(figure, axis)
    return figure


def _told(rows: pd.DataFrame) -> str:
    """A table of counts in words, for those who do not see its picture."""
    return "; ".join(f"{row['who']}: {counts_text(row[list(TB_CLASSES)])}" for _, row in rows.iterrows())
