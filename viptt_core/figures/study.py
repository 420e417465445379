"""Figures of a study: its primary contrast, attribution, differences, leakage, labels needed, replication.

All read `report.StudyResults`; what a study lacks is a sentence in place of the picture.
"""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from viptt_core.figures import ARM_COLOURS, OTHER_COLOUR, Picture, styled
from viptt_core.shown import ResultTable, side, with_interval
from viptt_core.study.report import StudyResults, contrast_name, primary_row

WIDTH, SMALL = 4.2, 8.5  # inches and points: readable on a telephone
MARKS = {"random": "D", "image": "s", "video": "o"}  # beside the colours of the starts
LINE, LINE_HEIGHT = 46, 0.165  # characters in a line of text, its height in inches
NONE_ON = "none of the changes"  # cell of the factorial
ON_WHITE = {"fc": "white", "ec": "none", "pad": 0.5}  # behind words that a line may cross
NAMES = {"kappa": "kappa", "auc": "AUC"}


@styled
def seed_chart(results: StudyResults) -> Picture | ResultTable:
    """The primary experiment, a dot a seed, lines join the same seed; below, the differences and their interval."""
    rule, row = results.plan.primary, primary_row(results)
    if row.empty:
        return results.absent("The primary contrast")
    row = row.iloc[0]
    together = results.plan.experiments()[results.plan.arm(rule.arm).experiment]
    names = [arm.name for arm in together if arm.name not in (rule.arm, rule.baseline)] + [rule.baseline, rule.arm]
    scores = {name: results.scores(name, rule.measure) for name in names}
    scores = {name: values for name, values in scores.items() if len(values)}
    figure = Figure(figsize=(WIDTH, 0.42 * len(scores) + 2.5))
    upper, lower = figure.subplots(2, 1, height_ratios=(0.42 * len(scores) + 0.4, 0.8))
    told = []
    for y, (name, values) in enumerate(scores.items()):
        colour, marker = look(results, name)
        upper.plot(values, np.full(len(values), y), marker, color=colour, ms=4.5, alpha=0.7)
        upper.plot([values.mean()] * 2, [y - 0.22, y + 0.22], color="black", lw=2)
        upper.text(
            0,
            y - 0.27,
            f"{name}: mean {values.mean():.2f}",
            va="bottom",
            fontsize=SMALL,
            transform=upper.get_yaxis_transform(),
        )
        told.append(f"{name} {values.min():.2f} to {values.max():.2f}, mean {values.mean():.2f}, {len(values)} seeds")
    pairs = pd.concat([scores[rule.baseline], scores[rule.arm]], axis=1, join="inner").to_numpy()
    upper.plot(pairs.T, [[len(scores) - 2], [len(scores) - 1]] * np.ones(len(pairs)), color="#888888", lw=0.6, zorder=0)
    upper.set(yticks=[], ylim=(len(scores) - 0.6, -0.85), xlabel=f"{rule.measure} on test cases, a dot a seed")
    colour, _ = look(results, rule.arm)
    lower.plot(np.diff(pairs, axis=1)[:, 0], np.full(len(pairs), 0.0), "o", color=colour, ms=4.5, alpha=0.7)
    lower.errorbar(
        row["difference"],
        0.5,
        xerr=_reach(row["difference"], row["low"], row["high"]),
        fmt="D",
        ms=6,
        color="black",
        elinewidth=2,
    )
    lower.axvline(0, color="black", lw=0.8, ls=":")
    signed = with_interval(row["difference"], row["low"], row["high"], signed=True)
    lower.set(yticks=[], ylim=(1.1, -0.5), xlabel=f"difference: {signed}")
    _bare(figure, upper)
    _bare(figure, lower)
    return Picture(
        figure,
        f"{rule.measure.capitalize()} by seed: {'; '.join(told)}. Mean difference, {contrast_name(row)}: {signed}, "
        f"from {row['seeds']} seeds.",
        **results.marks,
        data=results.data(f"{results.plan.arm(rule.arm).experiment}.npz"),
    )


@styled
def forest_chart(results: StudyResults, *families: str, measure: str = "") -> Picture | ResultTable:
    """Differences with their intervals, below the question they answer; hollow where the interval includes 0."""
    rows = results.contrasts(*families, measure=measure)
    if rows.empty:
        return results.absent(" and ".join(families).capitalize() or "Contrasts")
    spots, y = [], 0.0  # (words, row or None for a heading, where), in lines of text
    for family, group in rows.groupby("family", sort=False):
        spots.append((f"{family} ({group['measure'].iloc[0]})", None, y))
        y += 1.4
        for row in group.itertuples():
            words = textwrap.fill(contrast_name(row), LINE, break_on_hyphens=False)
            spots.append((words, row, y))
            y += words.count("\n") + 2.6
    figure = Figure(figsize=(WIDTH, LINE_HEIGHT * y + 0.6))
    axis, told = figure.subplots(), []
    for words, row, top in spots:
        weight = {"fontweight": "bold"} if row is None else {"fontsize": SMALL}
        axis.text(0, top, words, va="top", transform=axis.get_yaxis_transform(), bbox=ON_WHITE, **weight)
        if row is None:
            continue
        centre, (colour, marker) = top + words.count("\n") + 1.6, look(results, row.arm)
        hollow = "white" if side(row.low, row.high) == 0 else colour
        axis.errorbar(
            row.difference,
            centre,
            xerr=_reach(row.difference, row.low, row.high),
            fmt=marker,
            ms=6,
            color=colour,
            mfc=hollow,
            elinewidth=2,
        )
        axis.text(
            1,
            top,
            f"{row.difference:+.2f}",
            va="top",
            ha="right",
            transform=axis.get_yaxis_transform(),
            fontsize=SMALL,
            fontweight="bold",
        )
        told.append(f"{contrast_name(row)} {with_interval(row.difference, row.low, row.high, signed=True)}")
    axis.axvline(0, color="black", lw=0.8, ls=":", zorder=0)
    axis.set(yticks=[], ylim=(y, -0.3), xlabel="difference; hollow: the interval includes 0")
    _bare(figure, axis)
    return Picture(
        figure,
        f"Differences with 95 % intervals: {'; '.join(told)}.",
        **results.marks,
        data=results.data("contrasts.csv"),
    )


@styled
def attribution_chart(results: StudyResults) -> Picture | ResultTable:
    """The gap between the paper's two arms and what each factor contributes to it, as bars with intervals."""
    rows = results.rows("attribution")
    if rows.empty:
        return results.absent("Attribution")
    figure = Figure(figsize=(WIDTH, 0.5 * len(rows) + 0.7))
    axis, told = figure.subplots(), []
    for y, row in enumerate(rows.itertuples()):
        colour = "#444444" if y == 0 else ARM_COLOURS["video"] if row.factor == "start" else OTHER_COLOUR
        shown = with_interval(row.points, row.low, row.high, signed=True)
        axis.barh(
            y,
            row.points,
            0.4,
            color=colour,
            alpha=0.75,
            xerr=_reach(row.points, row.low, row.high),
            error_kw={"lw": 1.6},
        )
        axis.text(
            0,
            y - 0.27,
            f"{row.factor}: {shown}",
            va="bottom",
            fontsize=SMALL,
            transform=axis.get_yaxis_transform(),
            bbox=ON_WHITE,
        )
        told.append(f"{row.factor} {shown}")
    axis.axvline(0, color="black", lw=0.8, zorder=0)
    axis.set(yticks=[], ylim=(len(rows) - 0.6, -0.85), xlabel="kappa")
    _bare(figure, axis)
    return Picture(
        figure,
        f"Bars of the gap, then of each factor's part of it, in kappa: {'; '.join(told)}.",
        **results.marks,
        data=results.data("attribution.csv"),
    )


@styled
def factorial_chart(results: StudyResults) -> Picture | ResultTable:
    """Kappa of every arm of the factorial: a row for what is on, a mark for each of the two starts."""
    arms, names = results.rows("arms"), results.plan.factorial_arms
    arms = arms[arms["arm"].isin(names)].set_index("arm") if len(arms) else arms
    if arms.empty:
        return results.absent("The factorial")
    cells = list(dict.fromkeys(name.partition("-")[2] for name in names))
    figure = Figure(figsize=(WIDTH, 0.42 * len(cells) + 1.0))
    axis, told = figure.subplots(), []
    for y, on in enumerate(cells):
        axis.text(
            0,
            y - 0.22,
            on.replace("-", " + ") or NONE_ON,
            va="bottom",
            fontsize=SMALL,
            transform=axis.get_yaxis_transform(),
        )
        for lift, start in ((0.08, "image"), (-0.08, "video")):
            name = "-".join(filter(None, (start, on)))
            if name in arms.index:
                row, (colour, marker) = arms.loc[name], look(results, name)
                axis.errorbar(
                    row["kappa"],
                    y - lift,
                    xerr=_reach(row["kappa"], row["kappa_low"], row["kappa_high"]),
                    fmt=marker,
                    color=colour,
                    ms=5.5,
                    elinewidth=1.6,
                    label=f"start: {start}",
                )
                told.append(f"{name} {row['kappa']:.2f}")
    axis.set(yticks=[], ylim=(len(cells) - 0.6, -0.85), xlabel="kappa")
    _bare(figure, axis)
    legend_below(figure, axis)
    return Picture(
        figure,
        f"Kappa of the {len(told)} arms of the factorial: {', '.join(told)}.",
        **results.marks,
        data=results.data("arms.csv"),
    )


@styled
def pretraining_chart(results: StudyResults) -> Picture | ResultTable:
    """Accuracy of the pretraining on test videos, a row a variant of the videos, chance as a tick."""
    rows = results.rows("pretraining")
    if rows.empty:
        return results.absent("Pretraining")
    figure = Figure(figsize=(WIDTH, 0.45 * len(rows) + 0.7))
    axis, told = figure.subplots(), []
    for y, row in enumerate(rows.itertuples()):
        axis.errorbar(
            row.accuracy,
            y,
            xerr=_reach(row.accuracy, row.low, row.high),
            fmt=MARKS[row.start],
            ms=6,
            color=ARM_COLOURS[row.start],
            elinewidth=2,
        )
        axis.plot(1 / row.classes, y, "|", color="black", ms=13, mew=2)
        shown = f"start {row.start}, videos {row.videos}: {with_interval(row.accuracy, row.low, row.high)}"
        axis.text(0, y - 0.25, shown, va="bottom", fontsize=SMALL, transform=axis.get_yaxis_transform())
        told.append(f"{shown}, chance {1 / row.classes:.2f}")
    axis.set(yticks=[], ylim=(len(rows) - 0.6, -0.85), xlim=(0, 1.02), xlabel="accuracy on test videos; tick: chance")
    _bare(figure, axis)
    return Picture(
        figure,
        f"Accuracy of pretraining on test videos. {'; '.join(told)}.",
        **results.marks,
        data=results.data("pretraining.csv"),
    )


@styled
def efficiency_chart(results: StudyResults) -> Picture | ResultTable:
    """Kappa over the number of labelled scans, a line a start."""
    rows = results.rows("efficiency")
    if rows.empty:
        return results.absent("Label efficiency")
    figure, told = Figure(figsize=(WIDTH, 3.2)), []
    axis = figure.subplots()
    for number, (start, group) in enumerate(rows.groupby("start", sort=False)):
        group = group.sort_values("n_train")
        shift = 1.03 ** (number - 0.5)  # so that intervals do not hide each other
        reach = np.hstack([_reach(*values) for values in zip(group["kappa"], group["low"], group["high"], strict=True)])
        axis.errorbar(
            group["n_train"] * shift,
            group["kappa"],
            yerr=reach,
            fmt=f"{MARKS[start]}-",
            ms=6,
            color=ARM_COLOURS[start],
            label=f"start: {start}",
            elinewidth=1.6,
        )
        points = [f"{row.n_train} scans {with_interval(row.kappa, row.low, row.high)}" for row in group.itertuples()]
        told.append(f"start {start}: {', '.join(points)}")
    sizes = sorted(rows["n_train"].unique())
    axis.set(xscale="log", xlabel="labelled scans, log axis", ylabel="kappa")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    figure.tight_layout()
    legend_below(figure, axis)
    return Picture(
        figure,
        f"Kappa over the number of labelled scans. {'; '.join(told)}.",
        **results.marks,
        data=results.data("efficiency.csv"),
    )


@styled
def replication_chart(results: StudyResults) -> Picture | ResultTable:
    """Arms beside baselines without a network, by kappa and by AUC."""
    arms, baselines = results.rows("arms"), results.rows("baselines")
    if arms.empty:
        return results.absent("Replication")
    rows = pd.concat([arms, baselines]) if len(baselines) else arms
    names = list(rows["arm"])
    figure, told = Figure(figsize=(WIDTH, 0.42 * len(names) + 0.8)), []
    panels = figure.subplots(1, 2, sharey=True)
    for axis, score in zip(panels, ("kappa", "auc"), strict=True):
        for y, (_, row) in enumerate(rows.iterrows()):
            colour, marker = look(results, row["arm"])
            ends = row.get(f"{score}_low", np.nan), row.get(f"{score}_high", np.nan)
            axis.errorbar(row[score], y, xerr=_reach(row[score], *ends), fmt=marker, ms=6, color=colour, elinewidth=2)
            told.append(f"{row['arm']} {NAMES[score]} {with_interval(row[score], *ends)}")
        axis.set(yticks=[], ylim=(len(names) - 0.6, -0.85), xlabel=NAMES[score])
    for y, name in enumerate(names):
        panels[0].text(0, y - 0.22, name, va="bottom", fontsize=SMALL, transform=panels[0].get_yaxis_transform())
    _bare(figure, *panels)
    return Picture(
        figure,
        f"Kappa and AUC of arms and baselines: {'; '.join(told)}.",
        **results.marks,
        data=results.data("arms.csv", "baselines.csv"),
    )


def look(results: StudyResults, arm: str) -> tuple[str, str]:
    """Colour and mark of an arm, by its start; those of a baseline for what is no arm."""
    start = next((one.start for one in results.plan.arms if one.name == arm), arm)
    return ARM_COLOURS.get(start, OTHER_COLOUR), MARKS.get(start, "^")


def _reach(value: float, low: float, high: float) -> np.ndarray:
    """How far an interval reaches to both sides, [2, 1]; nothing where there is none."""
    return np.nan_to_num([[max(value - low, 0)], [max(high - value, 0)]])


def _bare(figure: Figure, *panels) -> None:
    """No left spine, where rows are named above their marks; few numbers below."""
    for axis in panels:
        axis.spines["left"].set_visible(False)
        axis.locator_params(axis="x", nbins=6 if len(panels) < 2 else 4)
    figure.tight_layout()


def legend_below(figure: Figure, axis) -> None:
    """Below everything, on the left: the right is for the mark of synthetic data."""
    once = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(once.values(), once, loc="upper left", bbox_to_anchor=(0, 0.01), fontsize=SMALL)
