"""Drawings of the pages on the background: Hounsfield units, parts by patient, and how far few scans reach."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from viptt_core.constants import CT_WINDOWS, HU_AIR, PAPER_KAPPA_PRETRAINED, TB_TRAIN_COUNTS
from viptt_core.figures import ARM_COLOURS, Picture, styled
from viptt_core.figures.data import LUNG_HU, PART_COLOURS, WINDOW_COLOURS
from viptt_core.figures.study import WIDTH
from viptt_core.shown import interval
from viptt_core.splits import PARTS
from viptt_core.statistics import PAPER_TEST_SCANS, PAPER_VALIDATION_COUNTS, kappa_interval_by_simulation

# About what tissues measure in HU, without contrast medium: textbook values, rounded. Air and water by definition.
TISSUES = {
    "air": (HU_AIR, HU_AIR),
    "aerated lung": LUNG_HU,
    "fat": (-120, -70),
    "water": (0, 0),
    "soft tissue, blood": (20, 80),
    "bone": (200, 1100),
}
# Made up: scans of each patient; the part of each patient, and of each scan where scans are drawn one by one.
SCANS = (2, 1, 3, 1, 2, 3, 1, 2, 1, 2)
BY_PATIENT = (0, 0, 0, 1, 0, 0, 2, 1, 0, 2)
BY_SCAN = (0, 2, 0, 0, 1, 0, 1, 0, 0, 0, 2, 0, 0, 1, 0, 2, 0, 0)
SIZES = (50, 100, sum(PAPER_VALIDATION_COUNTS), PAPER_TEST_SCANS, 1000, 2000)  # scans in a test


@styled
def hu_scale() -> Picture:
    """What tissues measure on the Hounsfield scale, and what windows show of it."""
    figure = Figure(figsize=(WIDTH, 3.9))
    axis, told = figure.subplots(), []
    for y, (name, (low, high)) in enumerate(TISSUES.items()):
        axis.plot([low, high], [y, y], color="#555555", lw=7, solid_capstyle="butt")
        if low == high:
            axis.plot(low, y, "D", color="#555555", ms=7)
        values = f"{low}" if low == high else f"{low} to {high}"
        axis.text(0, y - 0.2, f"{name}: {values}", va="bottom", fontsize=9.8, transform=axis.get_yaxis_transform())
        told.append(f"{name} {values}")
    bottom = len(TISSUES) + 0.5
    for y, ((name, (low, high)), colour) in enumerate(zip(CT_WINDOWS.items(), WINDOW_COLOURS, strict=True)):
        axis.plot([low, high], [bottom + y] * 2, color=colour, lw=4, solid_capstyle="butt")
        axis.text(
            0,
            bottom + y - 0.2,
            f"window, {name}: {low} to {high}",
            va="bottom",
            fontsize=9.8,
            transform=axis.get_yaxis_transform(),
        )
        told.append(f"window, {name}: {low} to {high}")
    axis.set(
        yticks=[], ylim=(bottom + len(CT_WINDOWS) - 0.6, -0.85), xlim=(-1450, 1150), xlabel="Hounsfield units (HU)"
    )
    axis.spines["left"].set_visible(False)
    figure.tight_layout()
    return Picture(figure, f"Bars on the Hounsfield scale, from -1450 to 1150. {'; '.join(told)}.")


@styled
def parts_drawing() -> Picture:
    """Scans of ten patients that do not exist, split scan by scan and patient by patient."""
    figure, told = Figure(figsize=(WIDTH, 3.7)), []
    panels = figure.subplots(2, 1, sharex=True)
    by_patient = [part for part, scans in zip(BY_PATIENT, SCANS, strict=True) for _ in range(scans)]
    patients = np.repeat(np.arange(len(SCANS)), SCANS)
    for axis, title, parts in zip(panels, ("scan by scan", "patient by patient"), (BY_SCAN, by_patient), strict=True):
        astride = [patient for patient in range(len(SCANS)) if len(set(np.asarray(parts)[patients == patient])) > 1]
        height = dict.fromkeys(range(len(SCANS)), 0)
        for patient, part in zip(patients, parts, strict=True):
            axis.add_patch(
                Rectangle(
                    (patient - 0.36, height[patient]), 0.72, 0.82, fc=PART_COLOURS[PARTS[part]], ec="#333333", lw=0.8
                )
            )
            axis.text(
                patient,
                height[patient] + 0.4,
                PARTS[part][0].upper() if part < 2 else "X",
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if part == 2 else "black",
            )
            height[patient] += 1
        for patient in astride:
            axis.text(
                patient,
                height[patient] + 0.05,
                "!",
                ha="center",
                va="bottom",
                fontsize=12,
                fontweight="bold",
                color="#D55E00",
            )
        said = f"{title}: {len(astride) or 'no'} patients straddle" if len(astride) != 1 else f"{title}: 1 straddles"
        axis.set(
            xlim=(-0.7, len(SCANS) - 0.3),
            ylim=(0, 4.3),
            yticks=[],
            xticks=range(len(SCANS)),
            xticklabels=[f"{i + 1}" for i in range(len(SCANS))],
        )
        axis.set_title(said, fontsize=10)
        axis.spines["left"].set_visible(False)
        axis.tick_params(length=0, labelbottom=True)
        told.append(said)
    panels[1].set_xlabel("patient; a box is a scan: T trains, V validates, X tests")
    figure.tight_layout()
    return Picture(
        figure,
        f"Drawing: {len(patients)} scans of {len(SCANS)} patients in two rows, each scan in the colour of its part. "
        f"{told[0].capitalize()}, marked by an exclamation mark. {told[1].capitalize()}.",
    )


@styled
def interval_chart() -> Picture:
    """How far kappa scatters from one test set to the next, by the number of its scans."""
    kappa, told = PAPER_KAPPA_PRETRAINED, []
    figure = Figure(figsize=(WIDTH, 0.42 * len(SIZES) + 0.9))
    axis = figure.subplots()
    for y, n in enumerate(SIZES):
        # The paper's validation scans are counted by class; other sizes take the shares of the training scans.
        counts = PAPER_VALIDATION_COUNTS if n == sum(PAPER_VALIDATION_COUNTS) else TB_TRAIN_COUNTS
        low, high = kappa_interval_by_simulation(counts, kappa, n=n)
        axis.plot([low, high], [y, y], color=ARM_COLOURS["video"], lw=3, solid_capstyle="round")
        axis.plot(kappa, y, "o", color=ARM_COLOURS["video"], ms=7)
        shown = f"{n} scans: {interval(low, high)}"
        axis.text(0, y - 0.2, shown, va="bottom", fontsize=9.8, transform=axis.get_yaxis_transform())
        told.append(shown)
    axis.set(
        yticks=[],
        ylim=(len(SIZES) - 0.5, -0.85),
        xlim=(-0.02, 0.6),
        xlabel=f"kappa of 95 in 100 tests, true kappa {kappa:g}",
    )
    axis.spines["left"].set_visible(False)
    figure.tight_layout()
    return Picture(
        figure,
        f"Between what bounds kappa falls in 95 of 100 tests if the true one is {kappa:g}, by the "
        f"number of scans: {'; '.join(told)}. Simulated.",
    )
