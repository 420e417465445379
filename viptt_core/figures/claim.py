"""The claim in one picture, and how far kappa of few scans scatters: from the committed tables."""

from __future__ import annotations

from pathlib import Path

from viptt_core.constants import PAPER_KAPPA_PRETRAINED, PAPER_KAPPA_SCRATCH, TB_TRAIN_COUNTS
from viptt_core.figures import ARM_COLOURS, MARKS, Estimate, Picture, draw_estimates, estimate, styled
from viptt_core.shown import with_interval
from viptt_core.statistics import PAPER_TEST_SCANS, PAPER_VALIDATION_COUNTS, kappa_interval_by_simulation
from viptt_core.study.ledger import PLACES, headline
from viptt_core.study.report import NO_VERDICT, open_results
from viptt_core.study.verdict import PAPER_GAIN, read_verdicts

PAPER_SCANS = sum(PAPER_VALIDATION_COUNTS)
SIZES = (50, 100, PAPER_SCANS, PAPER_TEST_SCANS, 1000, 2000)  # scans in a test


@styled
def claim_chart(root: Path) -> Picture:
    """The two published kappas above what an equal comparison gives, on simulated and on real scans.

    Intervals of the published values are ours, since the abstract gives none: between what bounds kappa on so many
    scans falls if the published value is the true one. A study that is not run yet has no part in it; `root` holds
    `results/`.
    """
    published = []
    for name, kappa, start in (
        ("from scratch", PAPER_KAPPA_SCRATCH, "image"),
        ("pretrained on videos", PAPER_KAPPA_PRETRAINED, "video"),
    ):
        ends = kappa_interval_by_simulation(PAPER_VALIDATION_COUNTS, kappa)
        published.append(Estimate(name, kappa, *ends, ARM_COLOURS[start], MARKS[start]))
    title = f"As published, validation scans\ngain {PAPER_GAIN:+.2f}; intervals: ours, for n = {PAPER_SCANS}"
    panels = {title: published}
    files, records = [], [one for one in read_verdicts(root) if one["primary"] and one["study"] in PLACES]
    for record in records:
        results, (place, _) = open_results(record["study"], folder=root), PLACES[record["study"]]
        arms = results.rows("arms").set_index("arm", drop=False).loc[[record["baseline"], record["arm"]]]
        difference = with_interval(record["difference"], record["low"], record["high"], signed=True)
        on = f"{place} (synthetic data)" if results.synthetic else place
        panels[f"All else equal, {on}\n{difference}: {record['verdict'] or NO_VERDICT}"] = [
            estimate(each, "kappa", ARM_COLOURS[each["start"]], MARKS[each["start"]])
            for each in arms.to_dict("records")
        ]
        files += results.data("arms.csv", "contrasts.csv")
    figure, axes, told = draw_estimates(panels, "kappa with 95 % interval; shaded: the difference")
    for axis, (below, above) in zip(axes, panels.values(), strict=True):
        axis.axvspan(below.value, above.value, color=ARM_COLOURS["video"], alpha=0.22, lw=0, zorder=0)
    alt = f"Kappa with 95 % intervals, in {len(panels)} panel{'s' * (len(panels) > 1)}. {told}."
    return Picture(figure, alt, title=f"{headline(records)}.", data=files)


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
    words = f"Between what bounds kappa falls in 95 of 100 tests if the true one is {kappa:g}, by the number of scans"
    return Picture(figure, f"{words}: {told}. Simulated.")
