"""The model as a drawing, its layers as a table, and the claim in one picture.

Sizes and counts are those of the network itself, kappas those of the committed tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from torch import nn

from viptt_core.constants import PAPER_KAPPA_PRETRAINED, PAPER_KAPPA_SCRATCH, TB_CLASSES, UCF_CLASSES
from viptt_core.errors import DataError
from viptt_core.figures import ARM_COLOURS, OTHER_COLOUR, Picture, styled
from viptt_core.figures.study import MARKS, WIDTH
from viptt_core.files import artifact_root
from viptt_core.model import ViPTTNet, count_parameters
from viptt_core.presets import Preset, load_preset
from viptt_core.shown import with_interval
from viptt_core.statistics import PAPER_VALIDATION_COUNTS
from viptt_core.study.outcomes import Committed, read_committed

INK, FAINT = "#333333", "#777777"
SYNTHETIC = "synthetic data"
POWER_QUESTION = "95 % interval of kappa"  # row of the table "power"
SHOWN_FRAMES = 5  # of T, in the drawing


# --- The network ------------------------------------------------------------------------------------------------------
def paper_network(num_classes: int, preset: Preset) -> ViPTTNet:
    """The network of a preset with random weights."""
    return ViPTTNet(
        num_classes,
        backbone=preset.backbone,
        temporal=preset.temporal,
        hidden_size=preset.hidden_size,
        feature_size=preset.feature_size,
        generator=torch.Generator().manual_seed(0),
    )


def layers(preset: Preset, num_classes: int) -> pd.DataFrame:
    """What a clip becomes on its way through the network of a preset, and what each step has learnt.

    Shapes come from sending a clip without content through the network, counts from its weights.

    Returns:
        Columns layer, output (T x H x W x channels), parameters. A block of the backbone ends with a pooling; in a
        backbone without any, with an activation.
    """
    network = paper_network(num_classes, preset).to("meta").eval()
    frames = torch.empty(preset.frames, 3, preset.size, preset.size, device="meta")
    rows = [
        ("input", (preset.frames, preset.size, preset.size), 0),
        ("stem", _last(frames), count_parameters(network.stem)),
    ]
    end = nn.MaxPool2d if any(isinstance(m, nn.MaxPool2d) for m in network.backbone) else nn.ReLU
    block, learnt = 1, 0
    with torch.no_grad():
        for module in network.backbone:
            frames, learnt = module(frames), learnt + count_parameters(module)
            if isinstance(module, end):
                rows.append((f"backbone, block {block}", _last(frames), learnt))
                block, learnt = block + 1, 0
        features = frames.mean(dim=(-2, -1))
        summary = network.temporal.summary(features[None])
        dense = network.feature(summary)
        logits = network.classifier(dense)
    rows += [
        ("mean over the plane", tuple(features.shape), 0),
        ("LSTM, last state", tuple(summary.shape[1:]), count_parameters(network.temporal)),
        ("dense, ReLU", tuple(dense.shape[1:]), count_parameters(network.feature)),
        ("classes, softmax", tuple(logits.shape[1:]), count_parameters(network.classifier)),
        ("all", (), count_parameters(network)),
    ]
    shown = [(layer, "×".join(map(str, shape)), count) for layer, shape, count in rows]
    return pd.DataFrame(shown, columns=["layer", "output", "parameters"])


def _last(frames: torch.Tensor) -> tuple[int, ...]:
    """Shape [T, C, H, W] as T, H, W, C."""
    time, channels, height, width = frames.shape
    return time, height, width, channels


@styled
def model_diagram() -> Picture:
    """The network of the paper, from both inputs to both lists of classes; what goes from videos to scans is framed."""
    preset = load_preset("paper")
    t, size, hidden, feature = preset.frames, preset.size, preset.hidden_size, preset.feature_size
    videos, scans = paper_network(len(UCF_CLASSES), preset), paper_network(len(TB_CLASSES), preset)
    count = {name: count_parameters(part) for name, part in scans.named_children()}
    width = scans.temporal.input_size
    carried = count_parameters(scans) - count["classifier"]
    figure = Figure(figsize=(4.3, 7.5))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 4.3), ylim=(7.5, 0))  # inches, from the top left
    axis.set_axis_off()

    for x, colour, title, motif in (
        (1.05, ARM_COLOURS["video"], "1  videos: frames", _draw_runner),
        (3.25, OTHER_COLOUR, "2  CT scans: slices", _draw_chest),
    ):
        _words(axis, x, 0.14, title, weight="bold", color=colour, size=11)
        _stack(axis, x, 0.75, colour, motif)
        _words(axis, x, 1.36, f"{t} × {size} × {size}, grey", size=9.5)
        _arrow(axis, (x, 1.48), (2.15 + (x - 2.15) * 0.3, 1.97), colour)
    axis.add_patch(
        FancyBboxPatch(
            (0.2, 2.02),
            3.9,
            4.24,
            boxstyle="round,pad=0,rounding_size=0.12",
            fc="none",
            ec=FAINT,
            ls=(0, (4, 3)),
            lw=1.3,
        )
    )

    _box(axis, 2.15, 2.28, 3.1, 0.34, f"1×1×1 convolution, 1 → 3 channels  ({count['stem']:,})")
    _arrow(axis, (2.15, 2.46), (2.15, 2.66))
    axis.add_patch(Polygon([(0.5, 2.7), (3.8, 2.7), (2.95, 3.42), (1.35, 3.42)], fc="none", ec=INK, lw=1.3))
    _words(axis, 2.15, 2.88, "VGG16 on each frame or slice", weight="bold", size=10.5)
    _words(axis, 2.15, 3.07, f"the same {count['backbone']:,} weights", size=9.5)
    _words(axis, 2.15, 3.25, "mean over the plane", size=9.5)
    places = [0.75 + 0.7 * i for i in range(SHOWN_FRAMES)]
    for i, x in enumerate(places):
        _arrow(axis, (2.15 + (x - 2.15) * 0.45, 3.44), (x, 3.68), FAINT)
        axis.add_patch(Rectangle((x - 0.09, 3.71), 0.18, 0.4, fc="none", ec=INK, lw=1))
        for line in (3.79, 3.87, 3.95, 4.03):
            axis.plot([x - 0.09, x + 0.09], [line] * 2, color=INK, lw=0.6)
        _arrow(axis, (x, 4.13), (x, 4.31), FAINT)
        # The last state is the summary: drawn thick.
        last = i == SHOWN_FRAMES - 1
        axis.add_patch(Circle((x, 4.5), 0.17, fc="none", ec=INK, lw=2.6 if last else 1.1))
        if not last:
            _arrow(axis, (x + 0.18, 4.5), (x + 0.52, 4.5))
    _words(axis, (places[-2] + places[-1]) / 2, 3.91, "…", size=12)
    _words(axis, (places[0] + places[1]) / 2, 3.91, f"{width}", size=9.5)
    _words(axis, (places[1] + places[2]) / 2, 3.91, f"{width}", size=9.5)
    _words(axis, 1.75, 4.84, f"LSTM, first to last of {t}  ({count['temporal']:,})", weight="bold", size=9.5)
    _arrow(axis, (places[-1], 4.69), (places[-1], 5.17))
    _words(axis, places[-1] - 0.09, 5.02, f"{hidden}", size=9.5, ha="right")
    _box(axis, 2.15, 5.36, 3.1, 0.34, f"dense {feature:,}, ReLU  ({count['feature']:,})")
    _words(axis, 2.15, 5.78, "carried over from videos to scans:", size=9.5)
    _words(axis, 2.15, 5.99, f"all in this frame, {carried:,} weights", weight="bold", size=10)

    for x, colour, network, what, note in (
        (1.05, ARM_COLOURS["video"], videos, f"{len(UCF_CLASSES)} activities", "left behind"),
        (3.25, OTHER_COLOUR, scans, f"{len(TB_CLASSES)} types of TB", "new"),
    ):
        _arrow(axis, (2.15 + (x - 2.15) * 0.5, 6.28), (x, 6.64), colour)
        _box(axis, x, 6.83, 1.75, 0.34, what, colour)
        _words(axis, x, 7.17, f"{note}  ({count_parameters(network.classifier):,})", size=9.5)
    _words(axis, 2.15, 7.38, "in parentheses: learnt numbers", size=9.5, color=FAINT)
    return Picture(
        figure,
        f"The network, from top to bottom. Frames of a video or slices of a CT scan, {t} pictures of {size} by {size} "
        f"grey pixels, go through a 1 by 1 by 1 convolution to three channels ({count['stem']:,} weights) and one by "
        f"one through the same VGG16 ({count['backbone']:,}), averaged over the plane to {width} numbers each. An LSTM "
        f"({count['temporal']:,}) reads them from the first to the last; its last state of {hidden} numbers goes "
        f"through a dense layer of {feature:,} ({count['feature']:,}) to the classes: first {len(UCF_CLASSES)} "
        f"activities ({count_parameters(videos.classifier):,} weights, left behind), then {len(TB_CLASSES)} types of "
        f"tuberculosis ({count['classifier']:,}, new). All before the classes, {carried:,} weights, is carried over.",
    )


def _words(axis, x: float, y: float, text: str, *, size=10.0, color=INK, weight="normal", ha="center") -> None:
    axis.text(x, y, text, ha=ha, va="center", fontsize=size, color=color, fontweight=weight)


def _box(axis, x: float, y: float, width: float, height: float, text: str, colour: str = INK) -> None:
    axis.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            fc="none",
            ec=colour,
            lw=1.3,
            boxstyle="round,pad=0,rounding_size=0.06",
        )
    )
    _words(axis, x, y, text, weight="bold", size=9.5)


def _arrow(axis, start: tuple, end: tuple, colour: str = INK) -> None:
    axis.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=colour, lw=1.3, shrinkA=0, shrinkB=0)
    )


def _stack(axis, x: float, y: float, colour: str, motif) -> None:
    """A pile of pictures, the nearest one with something on it."""
    for i in range(3, -1, -1):
        left, top = x - 0.45 + 0.09 * i, y - 0.32 - 0.07 * i
        axis.add_patch(Rectangle((left, top), 0.8, 0.72, fc="white", ec=colour, lw=1.2, zorder=4 - i))
    motif(axis, x - 0.05, y + 0.04, colour)


def _draw_runner(axis, x: float, y: float, colour: str) -> None:
    axis.add_patch(Circle((x + 0.05, y - 0.2), 0.06, fc=colour, ec="none", zorder=5))
    for limb in (
        [(0.03, -0.13), (0, 0.06)],
        [(0, 0.06), (0.16, 0.12), (0.14, 0.27)],
        [(0, 0.06), (-0.1, 0.16), (-0.24, 0.2)],
        [(0.02, -0.09), (0.15, 0.0), (0.24, -0.07)],
        [(0.02, -0.09), (-0.12, -0.04), (-0.16, 0.08)],
    ):
        axis.plot(
            [x + dx for dx, _ in limb],
            [y + dy for _, dy in limb],
            color=colour,
            lw=2.2,
            zorder=5,
            solid_capstyle="round",
            solid_joinstyle="round",
        )


def _draw_chest(axis, x: float, y: float, colour: str) -> None:
    axis.add_patch(Ellipse((x, y), 0.68, 0.48, fc="none", ec=colour, lw=2, zorder=5))
    for side in (-1, 1):
        lung = Ellipse((x + side * 0.16, y), 0.2, 0.32, angle=side * 8, fc=colour, alpha=0.45, ec=colour, zorder=5)
        axis.add_patch(lung)
    axis.add_patch(Circle((x, y + 0.15), 0.05, fc=colour, ec="none", zorder=5))


# --- The claim --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Panel:
    """A comparison of starts.

    Attributes:
        title: What it is.
        gain: Of the videos, in words.
        rows: Start, name, kappa and the ends of its interval.
        note: On the data; synthetic ones must have it.
    """

    title: str
    gain: str
    rows: list[tuple[str, str, float, float, float]]
    note: str = ""


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
    panels = [
        _published(synthetic),
        Panel(
            "Equal arms, simulated scans",
            _gain(synthetic, primary.arm, primary.baseline),
            _arms(synthetic, ("random", primary.baseline, primary.arm)),
            SYNTHETIC,
        ),
    ]
    files = ["synthetic/power", "synthetic/arms", "synthetic/contrasts"]
    if not lidc.withdrawn:
        panels.append(
            Panel(
                "Equal arms, real CT: lung nodules",
                _gain(lidc, "video", "image"),
                _arms(lidc, ("random", "image", "video")),
            )
        )
        files += ["lidc/arms", "lidc/contrasts"]
    heights = [len(panel.rows) + 1.6 for panel in panels]
    figure, told = Figure(figsize=(WIDTH, 0.43 * sum(heights) + 0.6)), []
    axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights)
    for axis, panel in zip(axes, panels, strict=True):
        by_start = {start: kappa for start, _, kappa, *_ in panel.rows}
        axis.axvspan(
            by_start["image"],
            by_start["video"],
            0,
            len(panel.rows) / (len(panel.rows) + 1),
            color=ARM_COLOURS["video"],
            alpha=0.22,
            lw=0,
        )
        write = partial(axis.text, va="bottom", transform=axis.get_yaxis_transform())
        for y, (start, name, *estimate) in enumerate(panel.rows):
            axis.plot(estimate[1:], [y, y], color=ARM_COLOURS[start], lw=3, solid_capstyle="round")
            axis.plot(estimate[0], y, MARKS[start], color=ARM_COLOURS[start], ms=8)
            write(0, y - 0.22, f"{name}: {with_interval(*estimate)}", fontsize=9.8)
        write(0, -1.55, panel.title, fontsize=11, fontweight="bold")
        write(0, -1.02, panel.gain, fontsize=9.8)
        if panel.note == SYNTHETIC:
            write(1, -1.02, panel.note, fontsize=9, ha="right", color="#B00020")
        axis.set(yticks=[], ylim=(len(panel.rows) - 0.6, -1.6), xlim=(-0.02, 0.75))
        axis.spines["left"].set_visible(False)
        shown = "; ".join(f"{name} {with_interval(*estimate)}" for _, name, *estimate in panel.rows)
        told.append(f"{panel.title}{f', {panel.note}' if panel.note else ''}: {shown}; {panel.gain}")
    axes[-1].set_xlabel("kappa with 95 % interval; shaded: image to video")
    figure.tight_layout(h_pad=1.0)
    return Picture(
        figure,
        f"Kappa by start with 95 % intervals, in {len(panels)} panels. {'. '.join(told)}.",
        data=[f"results/{file}.csv" for file in files],
    )


def _published(results: Committed) -> Panel:
    n, rows = sum(PAPER_VALIDATION_COUNTS), []
    power = _table(results, "power")
    for start, name, kappa in (
        ("image", "from scratch", PAPER_KAPPA_SCRATCH),
        ("video", "pretrained on videos", PAPER_KAPPA_PRETRAINED),
    ):
        row = power[(power["question"] == POWER_QUESTION) & (power["n"] == n) & (power["kappa"] == kappa)].iloc[0]
        rows.append((start, name, kappa, row["low"], row["high"]))
    gain = f"gap {PAPER_KAPPA_PRETRAINED - PAPER_KAPPA_SCRATCH:+.2f}; intervals estimated by us from n = {n}"
    return Panel("As published, validation scans", gain, rows)


def _arms(results: Committed, names: tuple[str, ...]) -> list[tuple[str, str, float, float, float]]:
    """Rows of a panel; an arm is called by its start, in which alone those of a panel differ."""
    rows = _table(results, "arms").set_index("arm")
    return [
        (row["start"], row["start"], row["kappa"], row["kappa_low"], row["kappa_high"])
        for row in (rows.loc[name] for name in names)
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
