"""Figures of single classes: confusion, scores, curves, calibration; and what the networks looked at."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from viptt_core.figures import (
    FINDING_COLOUR,
    SMALL,
    WIDTH,
    Estimate,
    Photograph,
    Picture,
    draw_estimates,
    draw_matrices,
    draw_slice,
    legend_below,
    new_axes,
    styled,
)
from viptt_core.figures.study import look, picture_of
from viptt_core.figures.viewer import FINDING, PHANTOM_LOOK, Shown, Viewer
from viptt_core.shown import ResultTable
from viptt_core.study.pointing import Evidence
from viptt_core.study.report import EVIDENCE_MEASURES, PER_CLASS, StudyResults

LINES = ("-", "--", ":", "-.")  # of arms, in turn: two may have the same start
CURVES = {"roc": ("false positives", "true positives"), "pr": ("recall", "precision")}
STRIP = 6  # slices of an example that are shown
EXAMPLES = 3


@styled
def confusion_chart(results: StudyResults) -> Picture | ResultTable:
    """Confusion matrix of each arm, summed over seeds: share of the true class in per cent."""
    tables = _of_arms(results, "confusion")
    if not tables:
        return results.absent("Confusion matrices")
    names = list(dict.fromkeys(next(iter(tables.values()))["true"]))
    counts = {
        arm: rows.pivot_table(index="true", columns="predicted", values="count", aggfunc="sum", fill_value=0)
        .reindex(index=names, columns=names, fill_value=0)
        .to_numpy()
        for arm, rows in tables.items()
    }
    figure, told = draw_matrices(counts, names, "shares")
    alt = f"Confusion matrices, mean over seeds. Rightly predicted of each true class, {told}."
    return picture_of(results, figure, alt, "confusion.csv")


@styled
def class_chart(results: StudyResults) -> Picture | ResultTable:
    """Precision, recall and F1 with intervals as dots, arms grouped by class."""
    tables = _of_arms(results, "per_class")
    if not tables:
        return results.absent("Scores by class")
    names, step = list(dict.fromkeys(next(iter(tables.values()))["class"])), 1 / (len(tables) + 1)
    height = len(names) * (0.19 * len(tables) + 0.3) + 0.8
    figure, axes = new_axes(1, len(PER_CLASS), size=(WIDTH, height), sharey=True)
    told = []
    for number, (arm, rows) in enumerate(tables.items()):
        rows, (colour, marker) = rows.set_index("class").loc[names], look(results, arm)
        y = np.arange(len(names)) + step * (number - (len(tables) - 1) / 2)
        for axis, (title, column) in zip(axes[0], PER_CLASS.items(), strict=True):
            axis.hlines(y, rows[f"{column}_low"], rows[f"{column}_high"], color=colour, lw=2)
            axis.plot(rows[column], y, marker, color=colour, ms=5, label=arm, clip_on=False)
            axis.set(xlim=(0, 1), xlabel=title)
            axis.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
        recalls = ", ".join(f"{name} {recall:.2f}" for name, recall in rows["recall"].items())
        told.append(f"{arm}: {recalls}")
    axis.set_yticks(range(len(names)), names, fontsize=SMALL)
    axis.set_ylim(len(names) - 0.5, -0.5)
    for axis in axes[0]:
        axis.hlines(np.arange(1, len(names)) - 0.5, 0, 1, color="#CCCCCC", lw=0.6)
        axis.tick_params(axis="y", length=0, labelsize=SMALL)
    figure.tight_layout()
    legend_below(figure, axis)
    alt = f"Precision, recall and F1 of each class and arm with intervals. Recall, {'; '.join(told)}."
    return picture_of(results, figure, alt, "per_class.csv")


@styled
def curves_chart(results: StudyResults) -> Picture | ResultTable:
    """ROC and precision-recall curves, each class against the rest, mean over seeds."""
    tables = _of_arms(results, "curves")
    if not tables:
        return results.absent("Curves")
    names = list(dict.fromkeys(next(iter(tables.values()))["class"]))
    figure, axes = new_axes(len(names), 2, size=(WIDTH, 1.75 * len(names) + 0.3))
    told = []
    for (arm, table), line in zip(tables.items(), LINES * len(tables), strict=False):
        for (name, curve), rows in table.groupby(["class", "curve"], sort=False):
            axis, (along, up) = axes[names.index(name), list(CURVES).index(curve)], CURVES[curve]
            axis.plot(rows["x"], rows["y"], line, color=look(results, arm)[0], lw=1.6, label=arm)
            axis.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
            axis.set_xlabel(along, fontsize=SMALL, labelpad=1)
            axis.set_ylabel(up, fontsize=SMALL)
            told.append(f"{name}, {curve.upper()}, {arm} {rows['area'].iloc[0]:.2f}")
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.plot([0, 1], [0, 1], color="#AAAAAA", lw=0.8, zorder=0)
        axis.set_title(name, fontsize=10)
    figure.tight_layout(h_pad=0.6)
    legend_below(figure, axes[0, 0])
    alt = f"ROC and precision-recall curves, each class against the rest. Areas under them: {'; '.join(told)}."
    return picture_of(results, figure, alt, "curves.csv")


@styled
def calibration_chart(results: StudyResults) -> Picture | ResultTable:
    """Reliability diagram: accuracy over confidence, larger marks for bins with more cases, ECE in the legend."""
    tables = _of_arms(results, "calibration")
    if not tables:
        return results.absent("Calibration")
    figure, axes = new_axes(1, 1, size=(WIDTH, 3.6))
    axis, ece, told = axes[0, 0], results.rows("arms").set_index("arm")["ece"], []
    axis.plot([0, 1], [0, 1], color="#AAAAAA", lw=0.8, label="as confident as right")
    for (arm, rows), line in zip(tables.items(), LINES * len(tables), strict=False):
        rows, (colour, marker) = rows[rows["n"] > 0], look(results, arm)
        sizes, label = 10 + 120 * rows["n"] / rows["n"].sum(), f"{arm}: ECE {ece[arm]:.2f}"
        axis.plot(rows["confidence"], rows["accuracy"], line, color=colour, lw=1.6)
        axis.scatter(rows["confidence"], rows["accuracy"], sizes, color=colour, marker=marker, label=label)
        bins = ", ".join(f"{row.confidence:.2f} right {row.accuracy:.2f}" for row in rows.itertuples())
        told.append(f"{label}; at confidence {bins}")
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
    figure.tight_layout()
    legend_below(figure, axis)
    alt = f"Accuracy over confidence. {'. '.join(told)}."
    return picture_of(results, figure, alt, "calibration.csv")


# --- What the networks looked at ------------------------------------------------------------------------------
@styled
def evidence_strip(results: StudyResults, *, arm: str = "") -> Picture | ResultTable:
    """Examples: slices around the finding with its outline, Grad-CAM over them, importance of all slices below.

    Args:
        results: Of the study.
        arm: Of the evidence; empty: the last of the file.
    """
    evidence = results.evidence
    if evidence is None:
        return results.absent("What the networks looked at")
    arm = arm or evidence.arms[-1]
    chosen = _examples(evidence)
    figure, told = Figure(figsize=(WIDTH, 2.35 * len(chosen)), layout="constrained"), []
    for block, m in zip(np.atleast_1d(figure.subfigures(len(chosen), 1)), chosen, strict=True):
        i, clip = evidence.shown[m], evidence.clips[m]
        finding, heat, importance = evidence.findings[i], evidence.grad_cam[arm][i], evidence.slice_importance[arm][i]
        words = f"{evidence.class_names[evidence.labels[i]]}, predicted {_named(evidence, arm, i)}"
        block.suptitle(words, fontsize=9.5, fontweight="bold", x=0.02, ha="left")
        above, below = block.subfigures(2, 1, height_ratios=(2, 1))
        steps = _around(finding)
        for (plain, marked), t in zip(above.subplots(2, len(steps)).T, steps, strict=True):
            plain.set_title(f"{t + 1}", fontsize=SMALL, fontweight="normal", loc="center", pad=2)
            draw_slice(plain, clip[t], finding[t])
            draw_slice(marked, clip[t], finding[t])
            box = marked.images[0].get_extent()  # a map may be coarser than pixels
            marked.imshow(heat[t], "inferno", vmin=0, vmax=255, alpha=0.5, extent=box, interpolation="bilinear")
        slices, on = np.arange(len(clip)) + 1, finding.any(axis=(1, 2))
        axis = below.subplots()
        axis.bar(slices, importance, color=np.where(on, FINDING_COLOUR, "#999999"), width=0.8)
        axis.axhline(0, color="black", lw=0.6)
        axis.set(xlim=(0.3, len(clip) + 0.7), yticks=[])
        axis.tick_params(axis="x", labelsize=SMALL)
        axis.set_xlabel("slice; bar: importance", fontsize=SMALL, labelpad=1)
        top, inside = int(importance.argmax()) + 1, ", ".join(map(str, slices[on]))
        told.append(f"{words}: finding in slices {inside or 'none'}, most important slice {top}")
    return Photograph(
        figure,
        f"{len(chosen)} scans as the arm {arm} sees them: slices with the outline of the true finding, Grad-CAM over "
        f"them, and a bar a slice for its importance, blue where the finding is. {'; '.join(told)}.",
        synthetic=evidence.synthetic,
        data=results.data("evidence.npz"),
    )


@styled
def pointing_chart(results: StudyResults) -> Picture | ResultTable:
    """How much of the evidence falls on the finding, with interval, and chance as a tick; a panel a measure."""
    rows = results.rows("evidence")
    if rows.empty:
        return results.absent("Evidence on the finding")
    panels = {}
    for row in rows.itertuples():
        ends, colour_and_mark = (row.observed_low, row.observed_high), look(results, row.arm)
        estimate = Estimate(f"{row.map}, {row.arm}", row.observed, *ends, *colour_and_mark, chance=row.chance)
        panels.setdefault(EVIDENCE_MEASURES[row.measure], []).append(estimate)
    figure, _, told = draw_estimates(panels, "tick: chance")
    alt = f"Evidence on the true finding against chance. {told}."
    return picture_of(results, figure, alt, "evidence.csv")


@styled
def browse_examples(results: StudyResults, *, arm: str = "") -> Viewer | ResultTable:
    """Page through the stored examples, those that an arm got wrong first, with finding and Grad-CAM to lay over them.

    Args:
        results: Of the study.
        arm: Of the evidence; empty: the last of the file.
    """
    evidence = results.evidence
    if evidence is None:
        return results.absent("Examples to browse")
    arm = arm or evidence.arms[-1]
    wrong = evidence.predicted[arm][evidence.shown] != evidence.labels[evidence.shown]
    clips = []
    for m in np.argsort(~wrong, kind="stable"):
        i = evidence.shown[m]
        true = evidence.class_names[evidence.labels[i]]
        clips.append(
            Shown(
                evidence.clips[m],
                name=str(evidence.names[i]),
                heading=f"{true} taken for {_named(evidence, arm, i)}" if wrong[m] else f"{true}, right",
                note="; ".join(f"{one} predicts {_named(evidence, one, i)}" for one in evidence.arms),
                overlays={f"Grad-CAM of {arm}": evidence.grad_cam[arm][i], FINDING: evidence.findings[i]},
                synthetic=evidence.synthetic,
            )
        )
    # Phantoms are the only scans whose finding is known.
    return Viewer(clips, PHANTOM_LOOK, data=results.data("evidence.npz"))


def _of_arms(results: StudyResults, table: str) -> dict:
    """The rows of a table by arm, for the arms to show that it has."""
    rows = results.rows(table)
    return {arm: rows[rows["arm"] == arm] for arm in results.arms if len(rows) and (rows["arm"] == arm).any()}


def _examples(evidence: Evidence) -> list[int]:
    """Positions among the stored ones: of each class the first whose finding is on the grid, EXAMPLES classes."""
    on_grid = [m for m, i in enumerate(evidence.shown) if evidence.findings[i].any()]
    first = {int(evidence.labels[evidence.shown[m]]): m for m in reversed(on_grid)}
    return [first[label] for label in sorted(first)][:EXAMPLES]


def _around(finding: np.ndarray) -> np.ndarray:
    """STRIP slices in a row, the one with most of the finding in the middle of them."""
    count, middle = min(STRIP, len(finding)), int(finding.sum(axis=(1, 2)).argmax())
    first = np.clip(middle - count // 2, 0, len(finding) - count)
    return np.arange(first, first + count)


def _named(evidence: Evidence, arm: str, i: int) -> str:
    return evidence.class_names[evidence.predicted[arm][i]]
