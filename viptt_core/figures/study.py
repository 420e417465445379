"""Figures of a study: its primary contrast, differences, attribution, sources, numbers of scans and videos, baselines.

All read `report.StudyResults`; the title of each is what it shows, see `sentences`. What a study lacks is a sentence in
place of the picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from viptt_core.figures import (
    ARM_COLOURS,
    MARKS,
    OTHER_COLOUR,
    SMALL,
    Estimate,
    Picture,
    chart_width,
    draw_estimates,
    estimate,
    is_wide,
    legend_below,
    new_axes,
    styled,
)
from viptt_core.shown import ResultTable, arm_label, label, with_ends, with_interval
from viptt_core.study import sentences
from viptt_core.study.report import StudyResults, interval_cells, or_absent
from viptt_core.study.sentences import ALONG
from viptt_core.study.tables import START
from viptt_core.study.verdict import contrast_name

ALWAYS_ZERO = "most frequent class"  # a baseline whose kappa is 0 by construction


def chart(draw: Callable) -> Callable:
    """Draw in the house style, or say why there is nothing to draw."""
    return styled(or_absent(draw))


@chart
def seed_chart(results: StudyResults) -> Picture | ResultTable:
    """The primary experiment, a dot a seed, lines join the same seed; below, the differences and their interval.

    Where there are baselines, they stand above the arms with their intervals.
    """
    (arm, baseline), family = results.plan.primary, results.plan.families[0]
    row, measure = results.needed("The primary contrast", "contrasts", family=family.name).iloc[0], family.measure
    together = [one.name for one in results.plan.experiments()[results.plan.main] if one.name not in (arm, baseline)]
    scores = {name: results.scores(name, measure) for name in (*together, baseline, arm)}
    scores = {name: values for name, values in scores.items() if len(values)}
    others = results.rows("baselines") if measure == "kappa" else pd.DataFrame()
    others = [one for one in others.itertuples() if one.arm != ALWAYS_ZERO]
    height = 0.42 * (len(scores) + len(others)) + 0.5
    figure, axes = new_axes(2, 1, size=(chart_width(), height + 1.6), height_ratios=(height, 0.8))
    (upper, lower), told, names = axes[:, 0], [], []
    for one in others:
        y = len(names)
        names.append(f"{arm_label(one.arm)}: {one.kappa:.2f}")
        upper.hlines(y, one.kappa_low, one.kappa_high, color=OTHER_COLOUR, lw=2)
        upper.plot(one.kappa, y, "^", color=OTHER_COLOUR, ms=6)
        told.append(f"{arm_label(one.arm)} {with_interval(one.kappa, one.kappa_low, one.kappa_high)}")
    for name, values in scores.items():
        y, (colour, marker), words = len(names), look(results, name), arm_label(name)
        names.append(f"{words}: mean {values.mean():.2f}")
        upper.plot(values, np.full(len(values), y), marker, color=colour, ms=4.5, alpha=0.7)
        upper.plot([values.mean()] * 2, [y - 0.22, y + 0.22], color="black", lw=2)
        told.append(f"{words} {values.min():.2f} to {values.max():.2f}, mean {values.mean():.2f}, {len(values)} seeds")
    pairs, last = pd.concat([scores[baseline], scores[arm]], axis=1, join="inner").to_numpy(), len(names) - 1
    upper.plot(pairs.T, [[last - 1], [last]] * np.ones(len(pairs)), color="#888888", lw=0.6, zorder=0)
    upper.set(yticks=[], ylim=(last + 0.75, -0.85), xlabel=f"{label(measure)} on test cases, one dot per seed")
    if is_wide():
        upper.set_ylim(last + 0.5, -0.5)
        upper.set_yticks(range(len(names)), names, fontsize=SMALL + 0.5)
        upper.tick_params(axis="y", length=0)
    for y, words in enumerate(() if is_wide() else names):  # none lies between the last two, where the lines are
        place = {"y": y + 0.27, "va": "top"} if y == last else {"y": y - 0.27, "va": "bottom"}
        upper.text(0, s=words, fontsize=SMALL, transform=upper.get_yaxis_transform(), **place)
    lower.plot(np.diff(pairs, axis=1), np.zeros(len(pairs)), "o", color=look(results, arm)[0], ms=4.5, alpha=0.7)
    lower.hlines(0.5, row["low"], row["high"], color="black", lw=2)
    lower.plot(row["difference"], 0.5, "D", color="black", ms=6)
    lower.axvline(0, color="black", lw=0.8, ls=":")
    difference = with_interval(row["difference"], row["low"], row["high"], signed=True)
    lower.set(yticks=[], ylim=(1.1, -0.5), xlabel=f"difference {difference}")
    for axis in (upper, lower):
        axis.spines["left"].set_visible(False)
        axis.locator_params(axis="x", nbins=6)
    figure.tight_layout()
    alt = f"{measure.capitalize()} by seed: {'; '.join(told)}. Mean difference, {contrast_name(row)}: {difference}."
    files = [f"{results.plan.main}.npz", "contrasts.csv"] + ["baselines.csv"] * bool(others)
    return picture_of(results, figure, alt, *files, title=sentences.contrast_title(row))


@chart
def forest_chart(results: StudyResults, *families: str, measure: str = "") -> Picture | ResultTable:
    """Differences with their intervals at the level of their family, a panel a family; hollow: includes 0."""
    wanted = ({"family": families} if families else {}) | ({"measure": measure} if measure else {})
    rows = results.needed(" and ".join(families).capitalize() or "Contrasts", "contrasts", **wanted)
    panels = {}
    for family, group in rows.groupby("family", sort=False):
        panels[f"{family} ({label(group['measure'].iloc[0])})\n{_at(group)} intervals"] = [
            Estimate(contrast_name(row), *with_ends(row, "difference"), *look(results, row["arm"]), signed=True)
            for row in group.to_dict("records")
        ]
    figure, _, told = draw_estimates(panels, "difference; hollow: the interval includes 0")
    alt = f"Differences with their intervals. {told}."
    return picture_of(results, figure, alt, "contrasts.csv", title=sentences.contrasts_title(rows))


@chart
def attribution_chart(results: StudyResults) -> Picture | ResultTable:
    """What each change adds within the frozen network, and the gap that they add up to; it is not the paper's gap."""
    rows = results.rows("attribution")
    if rows.empty:
        return sentences.attribution_answer(results)
    marks = {rows["factor"].iloc[0]: ("#444444", "D"), START: (ARM_COLOURS["video"], "o")}
    parts = [
        Estimate(label(name), *values, *marks.get(name, (OTHER_COLOUR, "o")), signed=True)
        for name, *values in rows[["factor", "points", "low", "high"]].itertuples(index=False)
    ]
    panels = {f"Within the frozen network\n{_at(rows)} intervals": parts}
    figure, _, told = draw_estimates(panels, "kappa; hollow: the interval includes 0")
    alt = f"All changes together, then the part of each, in kappa. {told}."
    return picture_of(results, figure, alt, "attribution.csv", title=sentences.attribution_title(results))


@chart
def sources_chart(results: StudyResults) -> Picture | ResultTable:
    """Accuracy on held-out videos, a panel a source, a row a pretraining; tick: the better of what needs no video."""
    panels = {}
    for row in results.needed("What was learned from the videos", "sources").to_dict("records"):
        chance = np.nanmax([row["chance"], row["size_accuracy"]])
        one = estimate(row, "accuracy", *look(results, row["arm"]), chance=chance)
        panels.setdefault(f"{label(row['source'])}, {row['classes']} classes", []).append(one)
    figure, _, told = draw_estimates(panels, "accuracy on held-out videos; tick: without seeing them")
    alt = f"Accuracy of pretraining on held-out videos. {told}."
    return picture_of(results, figure, alt, "sources.csv", title=sentences.sources_title(results))


@chart
def trend_chart(results: StudyResults, along: str = "n_train") -> Picture | ResultTable:
    """Kappa over one of `sentences.ALONG`, a line a start; a sentence where only one number was run."""
    rows = sentences.trend_rows(results, along)
    if missing := sentences.trend_missing(rows, along):
        return ResultTable(missing)
    figure, axes = new_axes(1, 1, size=(chart_width(), 3.2))
    axis, told = axes[0, 0], []
    for number, (start, group) in enumerate(rows.groupby("start", sort=False)):
        group = group.sort_values(along)
        sizes = group[along] * 1.03 ** (number - 0.5)  # so that intervals do not hide each other
        axis.plot(sizes, group["kappa"], f"{MARKS[start]}-", ms=6, color=ARM_COLOURS[start], label=arm_label(start))
        axis.vlines(sizes, group["low"], group["high"], color=ARM_COLOURS[start], lw=1.6)
        cells = zip(group[along], interval_cells(group, "kappa"), strict=True)
        told.append(f"{arm_label(start)}: {', '.join(f'{size} {ALONG[along]} {cell}' for size, cell in cells)}")
    sizes = sorted(rows[along].unique())
    # Where none is a number, too, the axis is linear up to the first other one.
    axis.set_xscale("symlog", linthresh=min(size for size in sizes if size) / 2)
    axis.set(xlabel=f"{ALONG[along]}, log axis", ylabel="kappa")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    figure.tight_layout()
    legend_below(figure, axis)
    alt = f"Kappa with 95 % intervals over the number of {ALONG[along]}. {'; '.join(told)}."
    return picture_of(results, figure, alt, "trend.csv", title=sentences.trend_title(results, along))


def look(results: StudyResults, arm: str) -> tuple[str, str]:
    """Colour and mark of an arm, by its start; those of a baseline for what is no arm."""
    start = next((one.start for one in results.plan.arms if one.name == arm), arm)
    return ARM_COLOURS.get(start, OTHER_COLOUR), MARKS.get(start, "^")


def picture_of(results: StudyResults, figure, alt: str, *files: str, title: str) -> Picture:
    """A picture that is marked where the study is synthetic, and names the files that it is drawn from."""
    return Picture(figure, alt, title=title, synthetic=results.synthetic, data=results.data(*files))


def _at(rows: pd.DataFrame) -> str:
    """The level of intervals, such as "98.3 %"."""
    return f"{100 * rows['level'].iloc[0]:.3g} %"
