"""Figures of an entry: what models and ensembles answer, where averaged class numbers go wrong, and the scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from viptt_core.constants import TB_CLASSES
from viptt_core.ensembles import AUTHORS_WEIGHTS, combine
from viptt_core.entry import Entry
from viptt_core.entry_tables import counts_table, told
from viptt_core.figures import ARM_COLOURS, OTHER_COLOUR, WIDTH, Picture, kappa_by_arm, new_axes, styled
from viptt_core.results import Summary
from viptt_core.shown import ResultTable

# Predicted classes of the 421 hidden test scans, in the authors' notebooks; of the third run they are not known. [C]
PUBLISHED_COUNTS = {
    "run with class weights": (208, 78, 47, 64, 24),
    "run with augmentation": (205, 90, 39, 48, 39),
    "the ensemble handed in": (181, 117, 45, 53, 25),
}
COLOURS = {"mean": OTHER_COLOUR, "vote": "#56B4E9", "authors": "#D55E00", "true": "black"}
SMALL = 8
WRONG = "#D55E00"


@styled
def counts_chart(entry: Entry) -> Picture:
    """Number of scans in each class: models as dots, ensembles as bars, the truth as a line where it is known."""
    rows = counts_table(entry)
    bars, dots = rows[rows["kind"] == "ensemble"], rows[rows["kind"] == "model"]
    figure, axes = new_axes(1, 1, size=(WIDTH, 4.4))
    axis, x = axes[0, 0], np.arange(len(TB_CLASSES))
    width = 0.8 / len(bars)
    for number, (_, row) in enumerate(bars.iterrows()):
        spots = x - 0.4 + width * (number + 0.5)
        axis.bar(
            spots,
            row[list(TB_CLASSES)].astype(int),
            width * 0.92,
            color=COLOURS[row["who"]],
            label=f"ensemble: {row['who']}",
        )
    for number, (_, row) in enumerate(dots.iterrows()):
        spots = x + 0.5 * ((number + 0.5) / len(dots) - 0.5)
        axis.plot(
            spots,
            row[list(TB_CLASSES)].astype(int),
            "osD^v"[number % 5],
            ls="",
            ms=5,
            mec="black",
            mfc=ARM_COLOURS.get(row["who"], "white"),
            label=f"model: {row['who']}",
            clip_on=False,
        )
    for _, row in rows[rows["kind"] == "true"].iterrows():
        axis.hlines(row[list(TB_CLASSES)].astype(int), x - 0.45, x + 0.45, color=COLOURS["true"], lw=1.4, label="true")
    axis.set_xticks(x, _numbered(), fontsize=SMALL + 1)
    axis.set(ylabel="scans", title="How many scans in each class")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=SMALL)
    figure.tight_layout()
    return Picture(
        figure,
        f"Number of scans in each class, by model and by ensemble. {told(rows)}.",
        synthetic=entry.synthetic,
        table=rows,
    )


@styled
def published_chart() -> Picture:
    """The same counts as the authors published them: two of their three runs, and what they handed in."""
    figure, axes = new_axes(1, 1, size=(WIDTH, 3.2))
    axis, x = axes[0, 0], np.arange(len(TB_CLASSES))
    colours = ("#BBBBBB", "#888888", COLOURS["authors"])
    for number, ((who, counts), colour) in enumerate(zip(PUBLISHED_COUNTS.items(), colours, strict=True)):
        bars = axis.bar(x + 0.27 * (number - 1), counts, 0.25, color=colour, label=who)
        axis.bar_label(bars, fontsize=SMALL - 1)
    axis.set_xticks(x, _numbered(), fontsize=SMALL + 1)
    axis.set(ylabel="scans", title="The authors' answers, 421 test scans")
    axis.margins(y=0.12)  # room for the numbers
    axis.legend(fontsize=SMALL)
    figure.tight_layout()
    rows = pd.DataFrame(
        [{"who": who} | dict(zip(TB_CLASSES, counts, strict=True)) for who, counts in PUBLISHED_COUNTS.items()]
    )
    words = "Predicted classes of the 421 hidden test scans, as the authors published them."
    return Picture(figure, f"{words} {told(rows)}.", table=rows)


@styled
def rule_chart() -> Picture:
    """What round(0.6 a + 0.2 b + 0.2 c) answers where the second and the third run agree; no data is in it."""
    k = len(TB_CLASSES)
    first, others = np.indices((k, k))  # of the first run; of the two others
    certain = np.eye(k)
    answers = combine(np.stack([certain[first.ravel()], certain[others.ravel()], certain[others.ravel()]]), "authors")
    answers = answers.reshape(k, k)
    said_by_none = (answers != first + 1) & (answers != others + 1)
    followed = (answers == others + 1) & (first != others)
    figure, axes = new_axes(1, 1, size=(WIDTH, 4.3))
    axis = axes[0, 0]
    axis.imshow(np.zeros((k, k)), cmap="gray_r", vmin=0, vmax=1)
    for row, column in np.ndindex(k, k):
        wrong = said_by_none[row, column]
        if wrong:
            axis.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#FBE3D5", edgecolor=WRONG, lw=1.5, clip_on=False)
            )
        axis.text(
            column,
            row,
            answers[row, column],
            ha="center",
            va="center",
            fontsize=12,
            fontweight="bold" if wrong else "normal",
            color=WRONG if wrong else "black",
        )
    axis.set_xticks(range(k), _numbered())
    axis.set_yticks(range(k), [f"{number} {name}" for number, name in enumerate(TB_CLASSES, 1)])
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


def _numbered() -> list[str]:
    return [f"{number}\n{name}" for number, name in enumerate(TB_CLASSES, 1)]
