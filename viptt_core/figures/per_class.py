"""Figures of single classes: confusion, scores, curves, calibration; and which slices the networks rest on."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd

from viptt_core.clips import Grid
from viptt_core.constants import TB_CLASSES
from viptt_core.datasets.simulated import simulate_scan
from viptt_core.figures import (
    FINDING_COLOUR,
    SMALL,
    Estimate,
    Picture,
    chart_width,
    draw_estimates,
    draw_matrices,
    estimate,
    is_wide,
    legend_below,
    new_axes,
)
from viptt_core.figures.study import chart, look, picture_of
from viptt_core.figures.viewer import FINDING, PHANTOM_LOOK, Shown, Viewer
from viptt_core.shown import ResultTable, arm_label
from viptt_core.study import sentences
from viptt_core.study.evidence import FILE as EVIDENCE
from viptt_core.study.evidence import Evidence, finding_on_grid
from viptt_core.study.report import AbsentError, StudyResults

LINES = ("-", "--", ":", "-.")  # of arms, in turn: two may have the same start
CURVES = {"roc": ("false positives", "true positives"), "pr": ("recall", "precision")}
PER_CLASS = {"precision": "precision", "recall": "recall", "F1": "f1"}
MEASURES = {"share": "share of the importance on the finding", "top": "most important slice on the finding"}


@chart
def confusion_chart(results: StudyResults) -> Picture | ResultTable:
    """Confusion matrix of each arm, summed over seeds: share of the true class in per cent."""
    tables = _of_arms(results, "Confusion matrices", "confusion")
    names = list(dict.fromkeys(next(iter(tables.values()))["true"]))
    counts = {arm_label(arm): rows["count"].to_numpy().reshape(len(names), -1) for arm, rows in tables.items()}
    figure, told = draw_matrices(counts, names, "shares")
    alt = f"Confusion matrices, mean over seeds. Rightly predicted of each true class, {told}."
    arm = results.plan.primary[0]
    title = sentences.confusion_title(results, arm if arm in tables else next(iter(tables)))
    return picture_of(results, figure, alt, "confusion.csv", title=title)


@chart
def class_chart(results: StudyResults) -> Picture | ResultTable:
    """Precision, recall and F1 with intervals as dots, arms grouped by class."""
    tables = _of_arms(results, "Scores by class", "per_class")
    names, step = list(dict.fromkeys(next(iter(tables.values()))["class"])), 1 / (len(tables) + 1)
    height = len(names) * (0.19 * len(tables) + 0.3) + 0.8
    figure, axes = new_axes(1, len(PER_CLASS), size=(chart_width(), height), sharey=True)
    told = []
    for number, (arm, rows) in enumerate(tables.items()):
        rows, (colour, marker) = rows.set_index("class").loc[names], look(results, arm)
        y = np.arange(len(names)) + step * (number - (len(tables) - 1) / 2)
        for axis, (title, column) in zip(axes[0], PER_CLASS.items(), strict=True):
            axis.hlines(y, rows[f"{column}_low"], rows[f"{column}_high"], color=colour, lw=2)
            axis.plot(rows[column], y, marker, color=colour, ms=5, label=arm_label(arm), clip_on=False)
            axis.set(xlim=(0, 1), xlabel=title)
            axis.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
        recalls = ", ".join(f"{name} {recall:.2f}" for name, recall in rows["recall"].items())
        told.append(f"{arm_label(arm)}: {recalls}")
    axis.set_yticks(range(len(names)), names, fontsize=SMALL)
    axis.set_ylim(len(names) - 0.5, -0.5)
    for axis in axes[0]:
        axis.hlines(np.arange(1, len(names)) - 0.5, 0, 1, color="#CCCCCC", lw=0.6)
        axis.tick_params(axis="y", length=0, labelsize=SMALL)
    figure.tight_layout()
    legend_below(figure, axis)
    alt = f"Precision, recall and F1 of each class and arm with intervals. Recall, {'; '.join(told)}."
    return picture_of(results, figure, alt, "per_class.csv", title=sentences.classes_title(results, "recall", "recall"))


@chart
def auc_chart(results: StudyResults) -> Picture | ResultTable:
    """AUC of each class against all others, a panel a class, a row an arm; tick: chance."""
    tables = _of_arms(results, "AUC of each class", "per_class")
    panels = {}
    for arm, rows in tables.items():
        by_seed = results.areas(arm)
        for row in rows.to_dict("records"):
            ends = by_seed.get(row["class"], pd.Series(np.nan)).agg(["min", "max"])
            one = Estimate(arm_label(arm), row["auc"], *ends, *look(results, arm), chance=0.5)
            panels.setdefault(f"{row['class']}, {row['support']} cases", []).append(one)
    figure, _, told = draw_estimates(panels, "AUC; bar: lowest to highest seed; tick: chance")
    alt = f"AUC of each class against all others, mean over seeds, from the lowest to the highest seed. {told}."
    title = sentences.classes_title(results, "auc", "AUC")
    return picture_of(results, figure, alt, "per_class.csv", f"{results.plan.main}.npz", title=title)


@chart
def curves_chart(results: StudyResults) -> Picture | ResultTable:
    """ROC and precision-recall curves, each class against the rest, mean over seeds."""
    tables = _of_arms(results, "Curves", "curves")
    names = list(dict.fromkeys(next(iter(tables.values()))["class"]))
    if is_wide():
        figure, axes = new_axes(2, len(names), size=(chart_width(), 4.2))
        axes = axes.T
    else:
        figure, axes = new_axes(len(names), 2, size=(chart_width(), 1.75 * len(names) + 0.3))
    told = []
    for (arm, table), line in zip(tables.items(), LINES * len(tables), strict=False):
        for (name, curve), rows in table.groupby(["class", "curve"], sort=False):
            axis, (along, up) = axes[names.index(name), list(CURVES).index(curve)], CURVES[curve]
            axis.plot(rows["x"], rows["y"], line, color=look(results, arm)[0], lw=1.6, label=arm_label(arm))
            axis.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
            axis.set_xlabel(along, fontsize=SMALL, labelpad=1)
            axis.set_ylabel(up, fontsize=SMALL)
            told.append(f"{name}, {curve.upper()}, {arm_label(arm)} {rows['area'].iloc[0]:.2f}")
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.plot([0, 1], [0, 1], color="#AAAAAA", lw=0.8, zorder=0)
        axis.set_title(name, fontsize=10)
    figure.tight_layout(h_pad=0.6)
    legend_below(figure, axes[0, 0])
    alt = f"ROC and precision-recall curves, each class against the rest. Areas under them: {'; '.join(told)}."
    return picture_of(results, figure, alt, "curves.csv", title=sentences.curves_title(results))


@chart
def calibration_chart(results: StudyResults) -> Picture | ResultTable:
    """Reliability diagram: accuracy over confidence, larger marks for bins with more cases, ECE in the legend."""
    tables = _of_arms(results, "Calibration", "calibration")
    columns = len(tables) if is_wide() else 1  # an arm a panel where there is room
    figure, axes = new_axes(1, columns, size=(chart_width(), max(2.4, 7 / columns) if is_wide() else 3.6), sharey=True)
    ece, told = results.rows("arms").set_index("arm")["ece"], []
    for number, (arm, rows) in enumerate(tables.items()):
        axis, line = axes[0, number % columns], LINES[number % len(LINES)]
        if number < columns:
            axis.plot([0, 1], [0, 1], color="#AAAAAA", lw=0.8, label="as confident as right")
            axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", aspect="equal")
        rows, (colour, marker) = rows[rows["n"] > 0], look(results, arm)
        sizes, label = 10 + 120 * rows["n"] / rows["n"].sum(), f"{arm_label(arm)}: ECE {ece[arm]:.2f}"
        axis.plot(rows["confidence"], rows["accuracy"], line, color=colour, lw=1.6)
        axis.scatter(rows["confidence"], rows["accuracy"], sizes, color=colour, marker=marker, label=label)
        if is_wide():
            axis.set_title(textwrap.fill(label, 64 // columns), fontsize=9.5)
        bins = ", ".join(f"{row.confidence:.2f} right {row.accuracy:.2f}" for row in rows.itertuples())
        told.append(f"{label}; at confidence {bins}")
    axes[0, 0].set_ylabel("accuracy")
    figure.tight_layout()
    if not is_wide():
        legend_below(figure, axis)
    alt = f"Accuracy over confidence. {'. '.join(told)}."
    return picture_of(results, figure, alt, "calibration.csv", title=sentences.calibration_title(results))


# --- What the networks rest on ---------------------------------------------------------------------------------
@chart
def importance_chart(results: StudyResults) -> Picture | ResultTable:
    """Importance of each slice of some phantoms to the arm of the primary contrast, slices with the finding in blue."""
    evidence, a, chosen = _examples(results, "What the networks rest on")
    told = []
    figure, axes = new_axes(len(chosen), 1, size=(chart_width(), 1.15 * len(chosen) + 0.3), sharex=True)
    slices = np.arange(evidence.findings.shape[1]) + 1
    for axis, i in zip(axes[:, 0], chosen, strict=True):
        importance, on = evidence.importance[a, i].astype(float), evidence.findings[i]
        axis.bar(slices, importance, color=np.where(on, FINDING_COLOUR, "#999999"), width=0.8)
        axis.axhline(0, color="black", lw=0.6)
        words = f"{TB_CLASSES[evidence.labels[i]]}, predicted {TB_CLASSES[evidence.predicted[a, i]]}"
        axis.set_title(words, fontsize=9.5)
        axis.set(xlim=(0.3, len(slices) + 0.7), yticks=[])
        inside = ", ".join(map(str, slices[on]))
        told.append(f"{words}: finding in slices {inside}, most important slice {importance.argmax() + 1}")
    axis.set_xlabel("slice; bar: importance", fontsize=SMALL)
    figure.tight_layout()
    alt = (
        f"{len(chosen)} phantoms as the arm {arm_label(evidence.arms[a])} sees them: a bar a slice for its importance, "
        f"blue where the finding is. {'; '.join(told)}."
    )
    met = sum(bool(evidence.findings[i, evidence.importance[a, i].argmax()]) for i in chosen)
    title = f"In {met} of these {len(chosen)} phantoms the most important slice shows the finding (blue)"
    return picture_of(results, figure, alt, EVIDENCE, title=title)


@chart
def evidence_chart(results: StudyResults) -> Picture | ResultTable:
    """How much of the importance falls on slices with the finding, with interval, and chance as a tick."""
    panels = {}
    for row in results.needed("Importance on slices with the finding", "evidence").to_dict("records"):
        one = estimate(row, "observed", *look(results, row["arm"]), chance=row["chance"])
        panels.setdefault(MEASURES[row["measure"]], []).append(one)
    figure, _, told = draw_estimates(panels, "tick: chance")
    alt = f"Importance on the true finding, against chance. {told}."
    return picture_of(results, figure, alt, "evidence.csv", title=sentences.evidence_title(results))


@chart
def browse_examples(results: StudyResults) -> Viewer | ResultTable:
    """Page through phantoms of the evidence, simulated again, the finding outlined; of each type an error first."""
    evidence, _, chosen = _examples(results, "Examples to browse")
    preset = results.plan.preset_of(results.plan.arm(results.plan.primary[0]))
    grid, seed, clips = Grid(preset.frames, preset.size), results.plan.scans["seed"], []
    for i in chosen:
        name, label = str(evidence.names[i]), int(evidence.labels[i])
        index = int(name.rpartition("_")[2]) - 1
        said = zip(evidence.arms, evidence.predicted[:, i], strict=True)
        note = "; ".join(f"{arm_label(arm)} predicts {TB_CLASSES[predicted]}" for arm, predicted in said)
        frames, finding = simulate_scan((seed, index, label, True), grid), finding_on_grid(seed, index, label, grid)
        clips.append(Shown(frames, name, TB_CLASSES[label], note, {FINDING: finding}, synthetic=True))
    return Viewer(clips, PHANTOM_LOOK, data=results.data(EVIDENCE))


def _of_arms(results: StudyResults, what: str, table: str) -> dict[str, pd.DataFrame]:
    """The rows of a table by arm, for the arms to show that it has."""
    return dict(list(results.needed(what, table, arm=results.arms).groupby("arm", sort=False)))


def _examples(results: StudyResults, what: str) -> tuple[Evidence, int, list[int]]:
    """The evidence; the place of the primary arm in it, of the last where it is not in it; and phantoms to show.

    Of each type the first phantom that this arm got wrong, else the first; those with a finding on a slice.
    """
    evidence, arm = results.evidence, results.plan.primary[0]
    if evidence is None:
        raise AbsentError(what)
    a = evidence.arms.index(arm) if arm in evidence.arms else -1
    wrong, met = evidence.predicted[a] != evidence.labels, evidence.findings.any(axis=1)
    order = np.lexsort((~wrong, evidence.labels))
    order = order[met[order]]
    return evidence, a, order[np.unique(evidence.labels[order], return_index=True)[1]].tolist()
