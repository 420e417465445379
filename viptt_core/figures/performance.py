"""The pictures of the page Performance, drawn from what `performance.load_results` read."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from viptt_core.figures import Picture, styled
from viptt_core.performance import PROFILE_FILE, Results, aim_text, amount, value_text
from viptt_core.shown import ResultTable

MARKS = {
    True: ("o", "#0072B2", "target met"),
    False: ("D", "#D55E00", "target missed"),
    None: ("s", "#666666", "no target"),
}
WIDTH, SMALL = 4.2, 8.5  # inches and points: readable on a telephone
LINES = {
    "clips": ("more clips", "o", "#0072B2"),
    "frames": ("more frames", "s", "#E69F00"),
    "size": ("larger frames", "^", "#009E73"),
}
PARTS = {  # colour and hatch
    "convolution forward": ("#56B4E9", ""),
    "convolution backward": ("#0072B2", ""),
    "ReLU": ("#F0E442", ""),
    "pooling": ("#009E73", ""),
    "LSTM": ("#CC79A7", ""),
    "stem and dense layers": ("#D55E00", ""),
    "optimiser": ("#E69F00", ""),
    "data movement": ("#999999", ""),
    "decompression": ("#444444", ""),
    "in-plane resampling": ("#DDDDDD", "\\\\\\"),
    "other": ("#FFFFFF", "..."),
}
LEAST_NUMBERED, LEAST_TOLD = 0.08, 0.005  # shares: with room for a number in the bar, and in the alternative


@styled
def ratio_chart(results: Results) -> Picture | ResultTable:
    """Ratios with their range on log axes, and the targets; one panel a direction of the target."""
    rows = [row for row in results.main["rows"] if row["reference_values"] and row["target"]["unit"] == "x"]
    faster, slower = ([r for r in rows if (r["target"]["kind"] == "at most") is most] for most in (False, True))
    panels = [("Times faster than the reference", faster, "right"), ("Times the reference's time", slower, "left")]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return ResultTable("Ratios: not measured.")
    heights = [len(panel[1]) + 1.6 for panel in panels]
    figure, seen = Figure(figsize=(WIDTH, 0.44 * sum(heights) + 0.3)), {}
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, shown, better) in zip(axes, panels, strict=True):
        words = {
            "transform": axis.get_yaxis_transform(),
            "va": "bottom",
            "fontsize": SMALL,
            "bbox": {"fc": "white", "ec": "none", "pad": 0.5},
        }
        for y, row in enumerate(shown):
            marker, colour, meaning = MARKS[row["met"]]
            axis.plot([row["low"], row["high"]], [y, y], color=colour, lw=2.5, solid_capstyle="round")
            seen[meaning] = axis.plot(row["value"], y, marker, color=colour, ms=7)[0]
            if row["target"]["value"] is not None:
                seen["target"] = axis.plot(row["target"]["value"], y, "|", color="black", ms=13, mew=2.2)[0]
            axis.text(0, y - 0.26, row["title"], **words)
            axis.text(1, y - 0.26, value_text(row), ha="right", fontweight="bold", **words)
        axis.axvline(1, color="black", lw=0.6, ls=":", zorder=0)
        axis.set(xscale="log", ylim=(len(shown) - 0.6, -0.85), yticks=[], xlabel=f"ratio, log axis; better: {better}")
        axis.set_title(title)
        axis.spines["left"].set_visible(False)
        _plain_ticks(axis.xaxis)
    figure.tight_layout()
    figure.legend(seen.values(), seen, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize=SMALL)
    every = [row for panel in panels for row in panel[1]]
    told = "; ".join(f"{row['title']} {value_text(row)}, {aim_text(row) or 'none'}" for row in every)
    return Picture(
        figure, f"Ratios to the reference on log axes, then the target of each: {told}.", data=[_file(results)]
    )


@styled
def scaling_chart(results: Results) -> Picture | ResultTable:
    """Seconds of a step over the pixels in it, as clips, frames and frame size grow; slopes computed."""
    row = next((row for row in results.main["rows"] if row["series"] and "base" in row["settings"]), None)
    if row is None:
        return ResultTable("How time grows: not measured in this profile.")
    figure, told, corners = Figure(figsize=(WIDTH, 3.6)), [], []
    axis = figure.subplots()
    for name, (meaning, marker, colour) in LINES.items():
        points = [(value, seconds) for grown, value, seconds in row["series"] if grown == name]
        works, seconds = [row["settings"]["base"] | {name: value} for value, _ in points], [time for _, time in points]
        pixels = [work["clips"] * work["frames"] * work["size"] ** 2 / 1e6 for work in works]
        told.append(f"{meaning}: slope {np.polyfit(np.log(pixels), np.log(seconds), 1)[0]:.2f}")
        axis.plot(pixels, seconds, marker=marker, color=colour, label=told[-1])
        corners += zip(pixels, seconds, strict=True)
    (first, start), (last, _) = min(corners), max(corners)
    axis.plot([first, last], [start, start * last / first], ls=":", color="black", lw=1, label="linear: slope 1.00")
    axis.set(xscale="log", yscale="log", xlabel="millions of pixels in a step", ylabel="seconds a step")
    _plain_ticks(axis.xaxis)
    _plain_ticks(axis.yaxis)
    axis.legend(fontsize=SMALL)
    alt = f"Seconds of an all-layer step over its pixels, both axes logarithmic; {'; '.join(told)}; 1 is linear."
    return Picture(figure, alt, data=[_file(results)])


@styled
def profile_chart(results: Results) -> Picture | ResultTable:
    """A bar for each piece of work, divided into its parts."""
    if results.profile is None:
        return ResultTable("Where the time goes: not measured; run python -m benchmarks.profiling.")
    works = results.profile["work"]
    figure, seen, told = Figure(figsize=(WIDTH, 0.75 * len(works) + 0.5)), {}, []
    axis = figure.subplots()
    for y, work in enumerate(works):
        shares, left = {part["name"]: part["share"] for part in work["parts"]}, 0.0
        for name in [name for name in PARTS if name in shares]:
            share, (colour, hatch) = shares[name], PARTS[name]
            seen[name] = axis.barh(
                y, share, 0.5, left, color=colour, hatch=hatch, edgecolor="#555555", lw=0.5, clip_on=False
            )
            if share >= LEAST_NUMBERED:
                axis.text(
                    left + share / 2,
                    y,
                    f"{share:.0%}",
                    ha="center",
                    va="center",
                    fontsize=SMALL,
                    bbox={"fc": "white", "ec": "none", "pad": 1.2},
                )
            left += share
        axis.text(0, y - 0.3, f"{work['title']}: {amount(work['seconds'], 's')}", va="bottom", fontsize=SMALL)
        large = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= LEAST_TOLD)
        told.append(f"{work['title']}: {large}")
    axis.set(xlim=(0, 1), ylim=(len(works) - 0.6, -0.75), yticks=[], xlabel="share of the time")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.spines["left"].set_visible(False)
    figure.tight_layout()
    names = [name for name in PARTS if name in seen]
    figure.legend(
        [seen[name] for name in names], names, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize=SMALL
    )
    return Picture(
        figure, f"Bars divided by what takes the time. {'; '.join(told)}.", data=[f"benchmarks/results/{PROFILE_FILE}"]
    )


def _file(results: Results) -> str:
    return f"benchmarks/results/{results.main['profile']}-cpu.json"


def _plain_ticks(axis) -> None:
    """Plain numbers on a logarithmic axis, few enough to be read."""
    low, high = axis.get_view_interval()
    narrow, wide = high / low < 6, high / low > 60
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if narrow else (1,) if wide else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
