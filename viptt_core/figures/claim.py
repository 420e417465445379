"""The claim in one picture, and how far kappa of few scans scatters: from the committed tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core.constants import PAPER_KAPPA_PRETRAINED, PAPER_KAPPA_SCRATCH, TB_TRAIN_COUNTS
from viptt_core.errors import DataError
from viptt_core.figures import ARM_COLOURS, MARKS, Estimate, Picture, draw_estimates, styled
from viptt_core.files import artifact_root
from viptt_core.shown import with_interval
from viptt_core.statistics import PAPER_TEST_SCANS, PAPER_VALIDATION_COUNTS, kappa_interval_by_simulation
from viptt_core.study.outcomes import Committed, read_committed

POWER_QUESTION = "95 % interval of kappa"  # row of the table "power"
PAPER_SCANS = sum(PAPER_VALIDATION_COUNTS)
SIZES = (50, 100, PAPER_SCANS, PAPER_TEST_SCANS, 1000, 2000)  # scans in a test


@styled
def claim_chart(root: Path | None = None) -> Picture:
    """The two published kappas above what an equal comparison gives, on simulated and on real scans.

    A study that is withdrawn has no part in it.

    Intervals of the published values are ours, since the abstract gives none: those of the table "power", between what
    bounds kappa on so many scans falls if the published value is the true one.

    Args:
        root: Holds `results/`; None takes the repository.

    Raises:
        DataError: a table of the studies is missing.
    """
    root = root or artifact_root()
    synthetic, lidc = (read_committed(name, root) for name in ("synthetic", "lidc"))
    primary = synthetic.study.primary
    gain, files = (
        PAPER_KAPPA_PRETRAINED - PAPER_KAPPA_SCRATCH,
        ["synthetic/power", "synthetic/arms", "synthetic/contrasts"],
    )
    panels = {
        f"As published, validation scans\ngap {gain:+.2f}; intervals: ours, for n = {PAPER_SCANS}": _published(
            synthetic
        ),
        f"Equal arms, simulated scans\n{_gain(synthetic, primary.arm, primary.baseline)}; synthetic data": _arms(
            synthetic, ("random", primary.baseline, primary.arm)
        ),
    }
    if not lidc.withdrawn:
        title = f"Equal arms, real CT: lung nodules\n{_gain(lidc, 'video', 'image')}"
        panels[title] = _arms(lidc, ("random", "image", "video"))
        files += ["lidc/arms", "lidc/contrasts"]
    figure, axes, told = draw_estimates(panels, "kappa with 95 % interval; shaded: image to video")
    for axis, (*_, image, video) in zip(axes, panels.values(), strict=True):
        axis.axvspan(image.value, video.value, color=ARM_COLOURS["video"], alpha=0.22, lw=0, zorder=0)
    return Picture(
        figure,
        f"Kappa by start with 95 % intervals, in {len(panels)} panels. {told}.",
        data=[f"results/{file}.csv" for file in files],
    )


@styled
def interval_chart() -> Picture:
    """How far kappa scatters from one test set to the next, by the number of its scans."""
    kappa, rows = PAPER_KAPPA_PRETRAINED, []
    for n in SIZES:
        # The paper's validation scans are counted by class; other sizes take the shares of the training scans.
        counts = PAPER_VALIDATION_COUNTS if n == PAPER_SCANS else TB_TRAIN_COUNTS
        ends = kappa_interval_by_simulation(counts, kappa, n=n)
        rows.append(Estimate(f"{n} scans", kappa, *ends, ARM_COLOURS["video"]))
    figure, _, told = draw_estimates({"": rows}, f"kappa of 95 in 100 tests, true kappa {kappa:g}")
    return Picture(
        figure,
        f"Between what bounds kappa falls in 95 of 100 tests if the true one is {kappa:g}, by the number of scans: "
        f"{told}. Simulated.",
    )


def _published(results: Committed) -> list[Estimate]:
    power, rows = _table(results, "power"), []
    for start, name, kappa in (
        ("image", "from scratch", PAPER_KAPPA_SCRATCH),
        ("video", "pretrained on videos", PAPER_KAPPA_PRETRAINED),
    ):
        asked = (power["question"] == POWER_QUESTION) & (power["n"] == PAPER_SCANS) & np.isclose(power["kappa"], kappa)
        row = power[asked].iloc[0]
        rows.append(Estimate(name, kappa, row["low"], row["high"], ARM_COLOURS[start], MARKS[start]))
    return rows


def _arms(results: Committed, names: tuple[str, ...]) -> list[Estimate]:
    """Rows of a panel; an arm is called by its start, in which alone those of a panel differ."""
    rows = _table(results, "arms").set_index("arm").loc[list(names)]
    return [
        Estimate(row.start, row.kappa, row.kappa_low, row.kappa_high, ARM_COLOURS[row.start], MARKS[row.start])
        for row in rows.itertuples()
    ]


def _gain(results: Committed, arm: str, baseline: str) -> str:
    rows = _table(results, "contrasts")
    row = rows[(rows["arm"] == arm) & (rows["baseline"] == baseline) & (rows["measure"] == "kappa")].iloc[0]
    return f"gap {with_interval(row['difference'], row['low'], row['high'], signed=True)}"


def _table(results: Committed, name: str) -> pd.DataFrame:
    rows = results.table(name)
    if rows is None:
        raise DataError("is missing.", path=results.folder / f"{name}.csv", remedy="Take it from the repository again.")
    return rows
