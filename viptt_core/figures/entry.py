"""Figures of an entry: what models and ensembles answer, where averaged class numbers go wrong, and the scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn
from matplotlib.colors import ListedColormap

from viptt_core.constants import TB_CLASSES
from viptt_core.figures import ARM_COLOURS, OTHER_COLOUR, WIDTH, Picture, kappa_by_arm, new_axes, styled
from viptt_core.results import Summary
from viptt_core.shown import ResultTable
from viptt_core.submission import AUTHORS_WEIGHTS, combine, counts_text
from viptt_core.submission.entry import Entry, counts_table, ensemble_name

# Predicted classes of the 421 hidden test scans, in the authors' notebooks; of the third run they are not known. [C]
PUBLISHED_COUNTS = {
    "run with class weights": (208, 78, 47, 64, 24),
    "run with augmentation": (205, 90, 39, 48, 39),
    "the ensemble handed in": (181, 117, 45, 53, 25),
}
WRONG = "#D55E00"
COLOURS = {"mean": OTHER_COLOUR, "vote": "#56B4E9", "authors": WRONG}
MARKS = ListedColormap(["white", "#FBE3D5"])  # of answers that a run gave, and of those that none gave
SMALL = 8


@styled
def counts_chart(entry: Entry) -> Picture:
    """Number of scans in each class: models as dots, ensembles as bars, the truth as a line where it is known."""
    rows = counts_table(entry)
    counts_of_kind = {kind: of_kind.set_index("who")[list(TB_CLASSES)] for kind, of_kind in rows.groupby("kind")}
    figure, axes = new_axes(1, 1, size=(WIDTH, 4.4))
    axis, x = axes[0, 0], np.arange(len(TB_CLASSES))
    bars, dots = counts_of_kind["ensemble"], counts_of_kind["model"]
    width = 0.8 / len(bars)
    for number, (who, counts) in enumerate(bars.iterrows()):
        spots = x - 0.4 + width * (number + 0.5)
        axis.bar(spots, counts, width * 0.92, color=COLOURS[who], label=ensemble_name(who))
    for number, (who, counts) in enumerate(dots.iterrows()):
        spots = x + 0.5 * ((number + 0.5) / len(dots) - 0.5)
        style = {"marker": "osD^v"[number % 5], "mec": "black", "mfc": ARM_COLOURS.get(who, "white"), "ms": 5}
        axis.plot(spots, counts, ls="", label=f"model: {who}", clip_on=False, **style)
    if "true" in counts_of_kind:
        axis.hlines(counts_of_kind["true"].loc["true"], x - 0.45, x + 0.45, color="black", lw=1.4, label="true")
    axis.set_xticks(x, _numbered(), fontsize=SMALL + 1)
    axis.set(ylabel="scans", title="How many scans in each class")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=SMALL)
    figure.tight_layout()
    alt = f"Number of scans in each class, by model and by ensemble. {_told(rows)}."
    return Picture(figure, alt, synthetic=entry.synthetic, table=rows)


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
    return Picture(figure, f"{words} {_told(rows)}.", table=rows)


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
    labels = {"xticklabels": _numbered(), "yticklabels": [name.replace("\n", " ") for name in _numbered()]}
    axis = seaborn.heatmap(
        said_by_none, annot=answers, fmt="d", cmap=MARKS, vmin=0, vmax=1, cbar=False, linewidths=1, ax=axis, **labels
    )
    for text, wrong in zip(axis.texts, said_by_none.ravel(), strict=True):
        text.set(color=WRONG if wrong else "black", fontweight="bold" if wrong else "normal", fontsize=12)
    axis.tick_params(length=0, labelsize=SMALL, rotation=0)
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


def _told(rows: pd.DataFrame) -> str:
    """A table of counts in words, for those who do not see its picture."""
    return "; ".join(f"{row['who']}: {counts_text(row[list(TB_CLASSES)])}" for _, row in rows.iterrows())
