"""Figures, one function each. All read clips, predictions or histories; none trains or predicts.

Colours are Okabe and Ito's, safe for colour-blind readers; arms keep theirs throughout.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from viptt_core import metrics
from viptt_core.clips import ClipSet
from viptt_core.figures.picture import (
    SMALL,
    Photograph,
    Picture,
    chart_width,
    is_wide,
    styled,
)
from viptt_core.results import class_names_of, predicted_classes
from viptt_core.shown import arm_label, with_ends, with_interval

ARM_COLOURS = {"random": "#999999", "image": "#E69F00", "video": "#0072B2"}
MARKS = {"random": "D", "image": "s", "video": "o"}  # beside the colours of the starts
OTHER_COLOUR = "#009E73"
FINDING_COLOUR = "#56B4E9"
LINE, LINE_HEIGHT = 58, 0.165  # characters in a line of a chart, its height in inches
NAME = 42  # characters in a line of a name beside its row
ON_WHITE = {"fc": "white", "ec": "none", "pad": 0.5}  # behind words that a line may cross


# --- What several figures are made of -----------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A value and its interval, a row of a chart.

    Attributes:
        name: Of the row.
        value: The estimate itself.
        low: Lower end of its interval; nan where there is none.
        high: Upper end of its interval; nan where there is none.
        colour: Of its dot, in matplotlib's words.
        mark: Of its dot, in matplotlib's words.
        chance: Where a tick is drawn; nan for none.
        signed: A difference: with its sign, and hollow where the interval includes 0.
    """

    name: str
    value: float
    low: float
    high: float
    colour: str = OTHER_COLOUR
    mark: str = "o"
    chance: float = np.nan
    signed: bool = False

    @property
    def numbers(self) -> str:
        """Value, interval and chance in words."""
        chance = "" if np.isnan(self.chance) else f", chance {self.chance:.2f}"
        return with_interval(self.value, self.low, self.high, signed=self.signed) + chance

    def __str__(self) -> str:
        return f"{self.name}: {self.numbers}".rstrip(": ")


def estimate(row: Mapping, column: str, colour: str, mark: str, **settings) -> Estimate:
    """A score of an arm, a row of a table, with its interval, see `shown.with_ends`."""
    return Estimate(arm_label(row["arm"]), *with_ends(row, column), colour, mark, **settings)


def new_axes(rows: int, columns: int, *, size: Sequence[float], **settings):
    """A figure outside pyplot (nothing is shown twice, nothing stays in memory) and its axes [rows, columns]."""
    figure = Figure(figsize=tuple(size))
    return figure, figure.subplots(rows, columns, squeeze=False, **settings)


def draw_estimates(panels: Mapping[str, Sequence[Estimate]], xlabel: str):
    """A panel a title: in it a row an estimate with its dot and interval, its name and numbers.

    The words stand above the dot; where the chart is wide, names stand on the left and numbers on the right.

    Returns:
        The figure, its axes [panels], and all rows in words.
    """
    write, line, room = (_write_beside, NAME, 1.6) if is_wide() else (_write_above, LINE, 2.4)
    words = [
        [textwrap.fill(row.name if is_wide() else str(row), line, break_on_hyphens=False) for row in rows]
        for rows in panels.values()
    ]
    lines = [np.array([text.count("\n") + room for text in texts]) for texts in words]
    heights, titles = [each.sum() for each in lines], sum(title.count("\n") + 2 for title in panels if title)
    size = (chart_width(), LINE_HEIGHT * (sum(heights) + titles + len(panels)) + 0.5)
    figure, axes = new_axes(len(panels), 1, size=size, sharex=True, height_ratios=heights)
    for axis, (title, rows), texts, height in zip(axes[:, 0], panels.items(), words, lines, strict=True):
        bottom = np.cumsum(height)
        axis.set(yticks=[], ylim=(bottom[-1], 0))
        axis.set_title(title, fontsize=10)
        axis.spines["left"].set_visible(False)
        for text, row, top, end in zip(texts, rows, bottom - height, bottom, strict=True):
            _draw_estimate(axis, write(axis, text, row, top, end), row)
        if any(row.signed for row in rows):
            axis.axvline(0, color="black", lw=0.8, ls=":", zorder=0)
    axis.locator_params(axis="x", nbins=6)
    axis.set_xlabel(xlabel)
    figure.tight_layout()
    told = ((f"{title}: " if title else "") + "; ".join(map(str, rows)) for title, rows in panels.items())
    return figure, axes[:, 0], ". ".join(told).replace("\n", ", ")


def _write_beside(axis, text: str, row: Estimate, top: float, end: float) -> float:
    """The name on the left, the numbers on the right; returns the height of the dot, between them."""
    middle, style = (top + end) / 2, {"va": "center", "fontsize": SMALL + 0.5}
    axis.text(-0.01, middle, text, ha="right", transform=axis.get_yaxis_transform(), **style)
    axis.text(1.02, middle, row.numbers, transform=axis.get_yaxis_transform(), **style)
    axis.axhline(middle, color="#E4E4E4", lw=0.6, zorder=0)
    return middle


def _write_above(axis, text: str, row: Estimate, top: float, end: float) -> float:
    """Name and numbers over the width of the chart; returns the height of the dot, below them."""
    axis.text(0, top, text, va="top", fontsize=SMALL, bbox=ON_WHITE, transform=axis.get_yaxis_transform())
    return end - 0.7


def _draw_estimate(axis, place: float, row: Estimate) -> None:
    reach = np.nan_to_num([[max(row.value - row.low, 0)], [max(row.high - row.value, 0)]])
    hollow = "white" if row.signed and row.low <= 0 <= row.high else row.colour
    axis.errorbar(row.value, place, xerr=reach, fmt=row.mark, ms=6, color=row.colour, mfc=hollow, elinewidth=2)
    axis.plot(row.chance, place, "|", color="black", ms=13, mew=2)


def draw_matrices(counts: Mapping[str, np.ndarray], names: Sequence[str], written: str):
    """Confusion matrices [K,K], a panel a title: colour is the share of the true class, a row.

    Args:
        counts: By title; rows are true, columns predicted.
        names: Of the K classes.
        written: What stands in a cell: "counts" or "shares".

    Returns:
        The figure, and of each matrix the shares of the true classes that are predicted rightly, in words.
    """
    import seaborn

    columns = min(len(counts), 3) if is_wide() else 1
    rows = -(-len(counts) // columns)
    size = (chart_width(), rows * (0.36 * len(names) + 0.5) + 0.9)
    figure, axes = new_axes(rows, columns, size=size, sharex=True, sharey=True)
    told = []
    for axis in axes.flat[len(counts) :]:
        axis.set_axis_off()
    for axis, (title, table) in zip(axes.flat, counts.items(), strict=False):
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        cells = {"annot": table, "fmt": "d"} if written == "counts" else {"annot": share, "fmt": ".0%"}
        # The lighter half of the colours, on which black words can be read.
        words = {"fontsize": SMALL, "color": "black"}
        colours = {"cmap": "Blues", "vmin": 0, "vmax": 2, "cbar": False, "annot_kws": words}
        seaborn.heatmap(share, xticklabels=names, yticklabels=names, ax=axis, **cells, **colours)
        axis.set_title(title, fontsize=10)
        axis.set_ylabel("true" if axis in axes[:, 0] else "", fontsize=SMALL)
        axis.tick_params(axis="y", rotation=0, labelsize=SMALL, length=0)
        axis.tick_params(axis="x", rotation=90, labelsize=SMALL, length=0)
        right = ", ".join(f"{name} {right:.0%}" for name, right in zip(names, share.diagonal(), strict=True))
        told.append(f"{title}: {right}")
        axis.set_xlabel("predicted" if axis in axes[-1] else "", fontsize=SMALL)
    figure.tight_layout()
    return figure, "; ".join(told)


def draw_slice(axis, pixels: np.ndarray, finding: np.ndarray | None = None, *, aspect: float = 1, sides: bool = False):
    """A picture, uint8 [h,w], the outline of a finding, bool on a grid of its own, and the patient's sides.

    Args:
        axis: To draw on.
        pixels: The picture.
        finding: What is marked on it, over the same field of view.
        aspect: Height of a pixel over its width.
        sides: The patient's right is on the left of the picture: say so.
    """
    height, width = pixels.shape
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), aspect=aspect)
    if finding is not None and finding.any():
        box = {"extent": (0, width, 0, height), "origin": "lower"}
        axis.contour(finding, levels=[0.5], colors=FINDING_COLOUR, linewidths=1, **box)
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()
    for x, letter in ((0.03, "R"), (0.97, "L")) if sides else ():
        axis.text(x, 0.5, letter, transform=axis.transAxes, color="white", fontsize=8, ha="center", va="center")


def legend_below(figure: Figure, axis) -> None:
    """Below everything, on the left: the right is for the mark of synthetic data."""
    once = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(once.values(), once, loc="upper left", bbox_to_anchor=(0, 0.01), fontsize=SMALL)


def first_of_each_class(clips: ClipSet, count: int) -> list[int]:
    """Indices of the first `count` clips of each class, class by class."""
    return [i for k in range(len(clips.class_names)) for i in np.flatnonzero(clips.labels == k)[:count]]


# --- Of one run ---------------------------------------------------------------------------------------------


@styled
def show_clips(clips: ClipSet) -> Picture:
    """Filmstrips: a clip of each class a row, eight of its frames or slices from first to last."""
    rows, length = first_of_each_class(clips, 1), clips.clips.shape[1]
    steps = np.linspace(0, length - 1, min(8, length)).round().astype(int)
    figure, axes = new_axes(len(rows), len(steps), size=(len(steps), len(rows)))  # inches: one a picture
    for row, i in zip(axes, rows, strict=True):
        for axis, step in zip(row, steps, strict=True):
            axis.imshow(clips.clips[i, step], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(clips.class_names[clips.labels[i]], rotation=0, ha="right", va="center", fontsize=9)
    for axis, step in zip(axes[0], steps, strict=True):
        axis.set_title(f"{step + 1}", fontsize=8, fontweight="normal", loc="center", pad=3)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0.03, hspace=0.03)
    alt = f"{len(rows)} rows of {len(steps)} frames or slices each, numbered along the top, one row for each of "
    return Photograph(figure, f"{alt}{', '.join(clips.class_names)}.", synthetic=clips.synthetic)


@styled
def class_balance(clips: ClipSet) -> Picture:
    """Number of clips of each class, as labelled bars."""
    counts = pd.DataFrame(clips.counts().items(), columns=["class", "clips"])
    figure, axes = new_axes(1, 1, size=(chart_width(), 0.34 * len(counts) + 0.8))
    axis = axes[0, 0]
    axis.bar_label(axis.barh(counts["class"], counts["clips"], color=OTHER_COLOUR), padding=3)
    axis.invert_yaxis()
    axis.set(xlabel="clips", title="Class balance")
    axis.margins(x=0.1)
    alt = f"Bars of the number of clips of each class: {', '.join(f'{name} {n}' for name, n in counts.to_numpy())}."
    return Picture(figure, alt, synthetic=clips.synthetic, table=counts)


@styled
def training_curves(history: pd.DataFrame, *, synthetic: bool = False) -> Picture:
    """Loss and validation kappa over epochs; a dot marks the epoch whose weights were kept.

    Args:
        history: See `train.History`; a column `arm` is optional.
        synthetic: Mark the figure.
    """
    history = history if "arm" in history else history.assign(arm="video")
    figure, axes = new_axes(*((1, 2) if is_wide() else (2, 1)), size=(chart_width(), 3.2 if is_wide() else 5.6))
    losses, kappas = axes.flat
    kept = []
    for arm, rows in history.groupby("arm", sort=False):
        colour, best = ARM_COLOURS.get(arm, OTHER_COLOUR), rows.loc[rows["val_loss"].idxmin()]
        name = arm_label(arm)
        losses.plot(rows["epoch"], rows["loss"], color=colour, ls=":", lw=1.3)
        for axis, column in ((losses, "val_loss"), (kappas, "val_kappa")):
            axis.plot(rows["epoch"], rows[column], color=colour, label=name)
            axis.plot(best["epoch"], best[column], "o", color=colour)
        kept.append(f"{name}: epoch {best['epoch']:.0f} of {len(rows)} kept, validation kappa {best['val_kappa']:.2f}")
    losses.set(xlabel="epoch", ylabel="cross-entropy", title="Loss: training dotted, validation solid")
    kappas.set(xlabel="epoch", ylabel="kappa", title="Validation kappa")
    figure.tight_layout()
    if history["arm"].nunique() > 1:
        legend_below(figure, kappas)
    alt = f"Loss and validation kappa over the epochs. {'; '.join(kept)}."
    return Picture(figure, alt, synthetic=synthetic, table=history)


@styled
def confusion(predictions: pd.DataFrame, *, synthetic: bool = False) -> Picture:
    """Confusion matrix of each arm on the test set: counts written, colour the share of the true class."""
    names = class_names_of(predictions)
    counts = {
        arm_label(arm): metrics.confusion_matrix(rows["label"].to_numpy(), predicted_classes(rows), len(names))
        for arm, rows in predictions[predictions["part"] == "test"].groupby("arm", sort=False)
    }
    figure, told = draw_matrices(counts, names, "counts")
    tables = [pd.DataFrame(table, columns=names).assign(arm=arm, true=names) for arm, table in counts.items()]
    alt = f"Confusion matrices of the test set. Recall by class, {told}."
    return Picture(figure, alt, synthetic=synthetic, table=pd.concat(tables)[["arm", "true", *names]])


@styled
def kappa_by_arm(table: pd.DataFrame, *, on: str = "test set", synthetic: bool = False) -> Picture:
    """Kappa of each arm as a dot with its interval; `table` is that of a `results.Summary`, `on` names the scans."""
    table = table.dropna(subset=["kappa"])
    rows = [
        estimate(row, "kappa", ARM_COLOURS.get(row["arm"], OTHER_COLOUR), MARKS.get(row["arm"], "o"))
        for row in table.to_dict("records")
    ]
    figure, (axis,), told = draw_estimates({"": rows}, f"kappa, {on}")
    axis.axvline(0, color="black", lw=0.8, zorder=0)
    return Picture(figure, f"Kappa of each arm with its interval: {told}.", synthetic=synthetic, table=table)
