"""Figures of a study: its primary contrast, attribution, differences, leakage, labels needed, replication.

All read `report.StudyResults`; what a study lacks is a sentence in place of the picture.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from viptt_core.figures import (
    ARM_COLOURS,
    MARKS,
    OTHER_COLOUR,
    SMALL,
    WIDTH,
    Estimate,
    Picture,
    draw_estimates,
    legend_below,
    new_axes,
    styled,
)
from viptt_core.shown import ResultTable, with_interval
from viptt_core.study.report import StudyResults, contrast_name, primary_row

NONE_ON = "none of the changes"  # cell of the factorial


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
    height = 0.42 * len(scores) + 0.4
    figure, axes = new_axes(2, 1, size=(WIDTH, height + 2.1), height_ratios=(height, 0.8))
    (upper, lower), told = axes[:, 0], []
    for y, (name, values) in enumerate(scores.items()):
        colour, marker = look(results, name)
        words = f"{name}: mean {values.mean():.2f}"
        upper.plot(values, np.full(len(values), y), marker, color=colour, ms=4.5, alpha=0.7)
        upper.plot([values.mean()] * 2, [y - 0.22, y + 0.22], color="black", lw=2)
        upper.text(0, y - 0.27, words, va="bottom", fontsize=SMALL, transform=upper.get_yaxis_transform())
        told.append(f"{name} {values.min():.2f} to {values.max():.2f}, mean {values.mean():.2f}, {len(values)} seeds")
    pairs = pd.concat([scores[rule.baseline], scores[rule.arm]], axis=1, join="inner").to_numpy()
    upper.plot(pairs.T, [[len(scores) - 2], [len(scores) - 1]] * np.ones(len(pairs)), color="#888888", lw=0.6, zorder=0)
    upper.set(yticks=[], ylim=(len(scores) - 0.6, -0.85), xlabel=f"{rule.measure} on test cases, a dot a seed")
    lower.plot(np.diff(pairs, axis=1), np.zeros(len(pairs)), "o", color=look(results, rule.arm)[0], ms=4.5, alpha=0.7)
    lower.hlines(0.5, row["low"], row["high"], color="black", lw=2)
    lower.plot(row["difference"], 0.5, "D", color="black", ms=6)
    lower.axvline(0, color="black", lw=0.8, ls=":")
    signed = with_interval(row["difference"], row["low"], row["high"], signed=True)
    lower.set(yticks=[], ylim=(1.1, -0.5), xlabel=f"difference: {signed}")
    for axis in (upper, lower):
        axis.spines["left"].set_visible(False)
        axis.locator_params(axis="x", nbins=6)
    figure.tight_layout()
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
    panels = {}
    for family, group in rows.groupby("family", sort=False):
        panels[f"{family} ({group['measure'].iloc[0]})"] = [
            Estimate(contrast_name(row), row.difference, row.low, row.high, *look(results, row.arm), signed=True)
            for row in group.itertuples()
        ]
    figure, _, told = draw_estimates(panels, "difference; hollow: the interval includes 0")
    return picture_of(results, figure, f"Differences with 95 % intervals. {told}.", "contrasts.csv")


@styled
def attribution_chart(results: StudyResults) -> Picture | ResultTable:
    """The gap between the paper's two arms and what each factor contributes to it, with intervals."""
    rows = results.rows("attribution")
    if rows.empty:
        return results.absent("Attribution")
    marks = {rows["factor"].iloc[0]: ("#444444", "D"), "start": (ARM_COLOURS["video"], "o")}
    parts = [
        Estimate(row.factor, row.points, row.low, row.high, *marks.get(row.factor, (OTHER_COLOUR, "o")), signed=True)
        for row in rows.itertuples()
    ]
    figure, _, told = draw_estimates({"": parts}, "kappa; hollow: the interval includes 0")
    return picture_of(results, figure, f"The gap, then each factor's part of it, in kappa. {told}.", "attribution.csv")


@styled
def factorial_chart(results: StudyResults) -> Picture | ResultTable:
    """Kappa of every arm of the factorial: a panel for what is on, a row for each of the two starts."""
    names = results.plan.factorial_arms
    arms = results.rows("arms")
    arms = {row.arm: row for row in arms.itertuples() if row.arm in names}
    if not arms:
        return results.absent("The factorial")
    panels = {}
    for name in [name for name in names if name in arms]:
        row, (start, _, on) = arms[name], name.partition("-")
        panels.setdefault(on.replace("-", " + ") or NONE_ON, []).append(
            Estimate(f"start: {start}", row.kappa, row.kappa_low, row.kappa_high, *look(results, name))
        )
    figure, _, told = draw_estimates(panels, "kappa")
    return picture_of(results, figure, f"Kappa of the {len(arms)} arms of the factorial. {told}.", "arms.csv")


@styled
def pretraining_chart(results: StudyResults) -> Picture | ResultTable:
    """Accuracy of the pretraining on test videos, a row a variant of the videos, chance as a tick."""
    rows = results.rows("pretraining")
    if rows.empty:
        return results.absent("Pretraining")
    variants = [
        Estimate(
            f"start {row.start}, videos {row.videos}",
            row.accuracy,
            row.low,
            row.high,
            ARM_COLOURS[row.start],
            MARKS[row.start],
            chance=1 / row.classes,
        )
        for row in rows.itertuples()
    ]
    figure, _, told = draw_estimates({"": variants}, "accuracy on test videos; tick: chance")
    return picture_of(results, figure, f"Accuracy of pretraining on test videos. {told}.", "pretraining.csv")


@styled
def efficiency_chart(results: StudyResults) -> Picture | ResultTable:
    """Kappa over the number of labelled scans, a line a start."""
    rows = results.rows("efficiency")
    if rows.empty:
        return results.absent("Label efficiency")
    figure, axes = new_axes(1, 1, size=(WIDTH, 3.2))
    axis, told = axes[0, 0], []
    for number, (start, group) in enumerate(rows.groupby("start", sort=False)):
        group = group.sort_values("n_train")
        sizes = group["n_train"] * 1.03 ** (number - 0.5)  # so that intervals do not hide each other
        axis.plot(sizes, group["kappa"], f"{MARKS[start]}-", ms=6, color=ARM_COLOURS[start], label=f"start: {start}")
        axis.vlines(sizes, group["low"], group["high"], color=ARM_COLOURS[start], lw=1.6)
        points = [f"{row.n_train} scans {with_interval(row.kappa, row.low, row.high)}" for row in group.itertuples()]
        told.append(f"start {start}: {', '.join(points)}")
    sizes = sorted(rows["n_train"].unique())
    axis.set(xscale="log", xlabel="labelled scans, log axis", ylabel="kappa")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    figure.tight_layout()
    legend_below(figure, axis)
    alt = f"Kappa over the number of labelled scans. {'; '.join(told)}."
    return picture_of(results, figure, alt, "efficiency.csv")


@styled
def replication_chart(results: StudyResults) -> Picture | ResultTable:
    """Arms beside baselines without a network, by kappa and by AUC."""
    arms, baselines = results.rows("arms"), results.rows("baselines")
    if arms.empty:
        return results.absent("Replication")
    panels = {}
    for title, score in (("kappa", "kappa"), ("AUC", "auc")):
        panels[title] = [
            Estimate(
                row["arm"],
                row[score],
                row.get(f"{score}_low", np.nan),
                row.get(f"{score}_high", np.nan),
                *look(results, row["arm"]),
            )
            for _, row in pd.concat([arms, baselines]).iterrows()
        ]
    figure, _, told = draw_estimates(panels, "kappa, AUC")
    alt = f"Kappa and AUC of arms and baselines. {told}."
    return picture_of(results, figure, alt, "arms.csv", "baselines.csv")


def look(results: StudyResults, arm: str) -> tuple[str, str]:
    """Colour and mark of an arm, by its start; those of a baseline for what is no arm."""
    start = next((one.start for one in results.plan.arms if one.name == arm), arm)
    return ARM_COLOURS.get(start, OTHER_COLOUR), MARKS.get(start, "^")


def picture_of(results: StudyResults, figure, alt: str, *files: str) -> Picture:
    """A picture that is marked as the study is, and names the files of its results that it is drawn from."""
    return Picture(figure, alt, **results.marks, data=results.data(*files))
