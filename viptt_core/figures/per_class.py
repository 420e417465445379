"""Figures of single classes: confusion, scores, curves, calibration; and what the networks looked at."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from viptt_core.constants import HU_WINDOW
from viptt_core.figures import Photograph, Picture, styled
from viptt_core.figures.pictures import Overlay, Shown
from viptt_core.figures.study import SMALL, WIDTH, legend_below, look
from viptt_core.figures.viewer import Viewer
from viptt_core.shown import ResultTable, named, with_interval
from viptt_core.study.pointing import Evidence
from viptt_core.study.report import EVIDENCE_MEASURES, PER_CLASS, StudyResults

LINES = ("-", "--", ":", "-.")  # of arms, in turn: two may have the same start
CURVES = {"roc": ("false positives", "true positives"), "pr": ("recall", "precision")}
STRIP = 6  # slices of an example that are shown
EXAMPLES = 3
FINDING_COLOUR = "#56B4E9"


@styled
def confusion_chart(results: StudyResults) -> Picture | ResultTable:
    """Confusion matrix of each arm, summed over seeds: share of the true class in per cent."""
    tables = _of_arms(results, "confusion")
    if not tables:
        return results.absent("Confusion matrices")
    names = list(dict.fromkeys(next(iter(tables.values()))["true"]))
    side = 0.36 * len(names)
    figure = Figure(figsize=(WIDTH, len(tables) * (side + 0.45) + 1.0))
    axes, told = figure.subplots(len(tables), 1, squeeze=False, sharex=True)[:, 0], []
    for axis, (arm, rows) in zip(axes, tables.items(), strict=True):
        counts = rows.pivot_table(index="true", columns="predicted", values="count", aggfunc="sum", fill_value=0)
        counts = counts.reindex(index=names, columns=names, fill_value=0).to_numpy()
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(share):
            axis.text(
                column,
                row,
                f"{value:.0%}",
                ha="center",
                va="center",
                fontsize=SMALL,
                color="white" if value > 0.5 else "black",
            )
        axis.set_title(arm, fontsize=10)
        axis.set_yticks(range(len(names)), names, fontsize=SMALL)
        axis.set_xticks(range(len(names)), names, fontsize=SMALL, rotation=40, ha="right")
        axis.tick_params(length=0)
        axis.set_ylabel("true", fontsize=SMALL)
        told.append(f"{arm}: " + ", ".join(f"{name} {share[k, k]:.0%}" for k, name in enumerate(names)))
    axes[-1].set_xlabel("predicted", fontsize=SMALL)
    figure.tight_layout()
    return Picture(
        figure,
        f"Confusion matrices, mean over seeds. Rightly predicted of each true class, {'; '.join(told)}.",
        **results.marks,
        data=results.data("confusion.csv"),
    )


@styled
def class_chart(results: StudyResults) -> Picture | ResultTable:
    """Precision, recall and F1 with intervals as dots, arms grouped by class."""
    tables = _of_arms(results, "per_class")
    if not tables:
        return results.absent("Scores by class")
    names, step = list(dict.fromkeys(next(iter(tables.values()))["class"])), 1 / (len(tables) + 1)
    figure = Figure(figsize=(WIDTH, len(names) * (0.19 * len(tables) + 0.3) + 0.8))
    axes, told = figure.subplots(1, len(PER_CLASS), sharey=True), []
    for number, (arm, rows) in enumerate(tables.items()):
        rows, (colour, marker) = rows.set_index("class").loc[names], look(results, arm)
        y = np.arange(len(names)) + step * (number - (len(tables) - 1) / 2)
        for axis, (title, column) in zip(axes, PER_CLASS.items(), strict=True):
            ends = rows[[f"{column}_low", f"{column}_high"]].to_numpy().T
            axis.hlines(y, *ends, color=colour, lw=2)
            axis.plot(rows[column], y, marker, color=colour, ms=5, label=arm, clip_on=False)
            axis.set(xlim=(0, 1), xlabel=title)
            axis.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
        told.append(
            f"{arm}: "
            + ", ".join(f"{name} {row.recall:.2f}" for name, row in zip(names, rows.itertuples(), strict=True))
        )
    axes[0].set_yticks(range(len(names)), names, fontsize=SMALL)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    for axis in axes:
        axis.hlines(np.arange(1, len(names)) - 0.5, 0, 1, color="#CCCCCC", lw=0.6)
        axis.tick_params(axis="y", length=0)
    figure.tight_layout()
    legend_below(figure, axes[0])
    return Picture(
        figure,
        f"Precision, recall and F1 of each class and arm with intervals. Recall, {'; '.join(told)}.",
        **results.marks,
        data=results.data("per_class.csv"),
    )


@styled
def curves_chart(results: StudyResults) -> Picture | ResultTable:
    """ROC and precision-recall curves, each class against the rest, mean over seeds."""
    tables = _of_arms(results, "curves")
    if not tables:
        return results.absent("Curves")
    names = list(dict.fromkeys(next(iter(tables.values()))["class"]))
    figure, told = Figure(figsize=(WIDTH, 1.75 * len(names) + 0.3)), []
    axes = figure.subplots(len(names), 2, squeeze=False)
    for number, (arm, table) in enumerate(tables.items()):
        for (name, curve), rows in table.groupby(["class", "curve"], sort=False):
            axis, (along, up) = axes[names.index(name), list(CURVES).index(curve)], CURVES[curve]
            axis.plot(rows["x"], rows["y"], LINES[number % len(LINES)], color=look(results, arm)[0], lw=1.6, label=arm)
            axis.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
            axis.set_xlabel(along, fontsize=SMALL, labelpad=1)
            axis.set_ylabel(up, fontsize=SMALL)
            told.append(f"{name}, {curve.upper()}, {arm} {rows['area'].iloc[0]:.2f}")
    for row, name in zip(axes, names, strict=True):
        row[0].plot([0, 1], [0, 1], color="#AAAAAA", lw=0.8, zorder=0)
        row[0].set_title(name, fontsize=10)
    figure.tight_layout(h_pad=0.6)
    legend_below(figure, axes[0, 0])
    return Picture(
        figure,
        f"ROC and precision-recall curves, each class against the rest. Areas under them: {'; '.join(told)}.",
        **results.marks,
        data=results.data("curves.csv"),
    )


@styled
def calibration_chart(results: StudyResults) -> Picture | ResultTable:
    """Reliability diagram: accuracy over confidence, larger marks for bins with more cases, ECE in the legend."""
    tables, arms = _of_arms(results, "calibration"), results.rows("arms")
    if not tables:
        return results.absent("Calibration")
    figure, told = Figure(figsize=(WIDTH, 3.6)), []
    axis, ece = figure.subplots(), arms.set_index("arm")["ece"]
    axis.plot([0, 1], [0, 1], color="#AAAAAA", lw=0.8, label="as confident as right")
    for number, (arm, rows) in enumerate(tables.items()):
        rows, (colour, marker) = rows[rows["n"] > 0], look(results, arm)
        axis.plot(rows["confidence"], rows["accuracy"], LINES[number % len(LINES)], color=colour, lw=1.6)
        axis.scatter(
            rows["confidence"],
            rows["accuracy"],
            10 + 120 * rows["n"] / rows["n"].sum(),
            color=colour,
            marker=marker,
            label=f"{arm}: ECE {ece[arm]:.2f}",
        )
        bins = ", ".join(f"{row.confidence:.2f} right {row.accuracy:.2f}" for row in rows.itertuples())
        told.append(f"{arm}: ECE {ece[arm]:.2f}; at confidence {bins}")
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
    figure.tight_layout()
    legend_below(figure, axis)
    return Picture(
        figure, f"Accuracy over confidence. {'. '.join(told)}.", **results.marks, data=results.data("calibration.csv")
    )


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
    figure = Figure(figsize=(WIDTH, 2.35 * len(chosen)))
    told = []
    for block, m in zip(np.atleast_1d(figure.subfigures(len(chosen), 1)), chosen, strict=True):
        i, clip = evidence.shown[m], evidence.clips[m]
        finding, heat, importance = evidence.findings[i], evidence.grad_cam[arm][i], evidence.slice_importance[arm][i]
        steps = _around(finding)
        grid = block.add_gridspec(
            3,
            len(steps),
            height_ratios=(1, 1, 0.9),
            wspace=0.04,
            hspace=0.06,
            left=0.09,
            right=0.99,
            top=0.87,
            bottom=0.17,
        )
        for column, t in enumerate(steps):
            for row in range(2):
                axis = block.add_subplot(grid[row, column])
                _draw_slice(axis, clip[t], finding[t], heat[t] if row else None)
                if not row:
                    axis.set_title(f"{t + 1}", fontsize=SMALL, fontweight="normal", loc="center", pad=2)
        axis = block.add_subplot(grid[2, :])
        slices = np.arange(len(clip)) + 1
        on = finding.any(axis=(1, 2))
        axis.bar(slices, importance, color=np.where(on, FINDING_COLOUR, "#999999"), width=0.8)
        axis.axhline(0, color="black", lw=0.6)
        axis.set_xlim(0.3, len(clip) + 0.7)
        axis.set_yticks([])
        axis.tick_params(axis="x", labelsize=SMALL)
        axis.set_xlabel("slice; bar: importance", fontsize=SMALL, labelpad=1)
        words = f"{evidence.class_names[evidence.labels[i]]}, predicted {_named(evidence, arm, i)}"
        block.suptitle(words, fontsize=9.5, x=0.09, ha="left", fontweight="bold", y=0.99)
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
    panels = list(rows.groupby("measure", sort=False))
    figure = Figure(figsize=(WIDTH, sum(0.4 * len(group) + 0.75 for _, group in panels)))
    axes, told = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[len(g) + 1.3 for _, g in panels]), []
    for axis, (measure, group) in zip(axes[:, 0], panels, strict=True):
        for y, row in enumerate(group.itertuples()):
            colour, marker = look(results, row.arm)
            axis.hlines(y, row.observed_low, row.observed_high, color=colour, lw=2)
            axis.plot(row.observed, y, marker, color=colour, ms=6)
            axis.plot(row.chance, y, "|", color="black", ms=13, mew=2)
            axis.text(
                0, y - 0.25, f"{row.map}, {row.arm}", va="bottom", fontsize=SMALL, transform=axis.get_yaxis_transform()
            )
            told.append(
                f"{row.map}, {row.arm}, {EVIDENCE_MEASURES[measure]} "
                f"{with_interval(row.observed, row.observed_low, row.observed_high)}, chance "
                f"{row.chance:.2f}"
            )
        axis.set(yticks=[], ylim=(len(group) - 0.6, -0.85), xlim=(0, None))
        axis.set_xlabel(f"{EVIDENCE_MEASURES[measure]}; tick: chance", fontsize=SMALL)
        axis.spines["left"].set_visible(False)
    figure.tight_layout()
    return Picture(
        figure,
        f"Evidence on the true finding against chance: {'; '.join(told)}.",
        **results.marks,
        data=results.data("evidence.csv"),
    )


@named
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
        true, name = evidence.class_names[evidence.labels[i]], str(evidence.names[i])
        told = "; ".join(f"{one} predicts {_named(evidence, one, i)}" for one in evidence.arms)
        clips.append(
            Shown(
                evidence.clips[m],
                f"{name}, {true}; {told}{', synthetic' * evidence.synthetic}",
                name,
                f"{true} taken for {_named(evidence, arm, i)}" if wrong[m] else f"{true}, right",
                (
                    Overlay(f"Grad-CAM of {arm}", evidence.grad_cam[arm][i]),
                    Overlay("finding, outlined", evidence.findings[i]),
                ),
                synthetic=evidence.synthetic,
            )
        )
    # Phantoms: the only scans whose finding is known lie as canonical ones, and are read through the paper's window.
    return Viewer(clips, hu_window=HU_WINDOW, sides=True, data=results.data("evidence.npz"))


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


def _draw_slice(axis, pixels: np.ndarray, finding: np.ndarray, heat: np.ndarray | None) -> None:
    box = (0, 1, 1, 0)  # maps may be coarser than pixels
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=box)
    if heat is not None:
        axis.imshow(heat, cmap="inferno", vmin=0, vmax=255, alpha=0.5, extent=box, interpolation="bilinear")
    if finding.any():
        axis.contour(finding, levels=[0.5], colors=FINDING_COLOUR, linewidths=1, extent=(0, 1, 0, 1), origin="lower")
    axis.set(xlim=(0, 1), ylim=(1, 0))
    axis.set_axis_off()


def _named(evidence: Evidence, arm: str, i: int) -> str:
    return evidence.class_names[evidence.predicted[arm][i]]
