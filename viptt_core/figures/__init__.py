"""Figures, one function each. All read clips, predictions or histories; none trains or predicts.

Colours are Okabe and Ito's, safe for colour-blind readers; arms keep theirs throughout.
"""

from __future__ import annotations

import base64
import colorsys
import functools
import html
import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from viptt_core import metrics
from viptt_core.clips import ClipSet
from viptt_core.results import class_names_of, predicted_classes
from viptt_core.shown import arm_label, with_interval

ARM_COLOURS = {"random": "#999999", "image": "#E69F00", "video": "#0072B2"}
MARKS = {"random": "D", "image": "s", "video": "o"}  # beside the colours of the starts
OTHER_COLOUR = "#009E73"
FINDING_COLOUR = "#56B4E9"
WIDTH, WIDE, SMALL = 4.2, 7.8, 8.5  # inches of the two forms of a chart, points: readable on a telephone
WIDE_FROM = 700  # CSS pixels of a window that shows the wide form
LINE, LINE_HEIGHT = 58, 0.165  # characters in a line of a chart, its height in inches
NAME = 42  # characters in a line of a name beside its row
ON_WHITE = {"fc": "white", "ec": "none", "pad": 0.5}  # behind words that a line may cross
RED = "#B00020"
# What the colours become on a dark page; all others keep their hue and turn light into dark.
ON_DARK = {"#E69F00": "#F0AD2E", "#0072B2": "#4DA3E8", "#009E73": "#2FBF93", "#D55E00": "#F07C3A", "#56B4E9": "#7CC8F2"}
ON_DARK |= {"#999999": "#A8A8A8", RED: "#FF7B89", "#FFFFFF": "#121212"}  # white is the ground: the theme's
ON_DARK |= {colour: colour for colour in ("#A6A6A6", "#3B8FD1")}  # also within pictures that stay as they are
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "svg.fonttype": "path",
    "svg.hashsalt": "viptt",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "legend.frameon": False,
}


_wide = ContextVar("wide", default=False)


def chart_width() -> float:
    """Inches: those of the form that is being drawn."""
    return WIDE if is_wide() else WIDTH


def is_wide() -> bool:
    """Whether the form for wide windows is being drawn: a chart is drawn once for a telephone and once for a desk."""
    return _wide.get()


def styled(draw: Callable) -> Callable:
    """Draw in the house style, and let the picture carry the full name of the function that drew it.

    A chart is drawn again for wide windows when a page shows it, see `is_wide`.
    """

    @functools.wraps(draw)
    def styled_draw(*args, **settings):
        with matplotlib.rc_context(STYLE):
            shown = draw(*args, **settings)
        if isinstance(shown, Picture):
            shown.code = f"{draw.__module__}.{draw.__qualname__}"
            shown.again = functools.partial(styled_draw, *args, **settings)
        return shown

    return styled_draw


class Picture:
    """A finished figure with its text alternative, shown by notebooks and the book.

    The book adds a line with its source below: code, data, command (see `viptt_core.book.sphinx_ext`).

    Args:
        figure: The matplotlib figure.
        alt: What the picture shows, for readers who do not see it.
        title: Its message, a sentence above it.
        synthetic: Write "synthetic data" on it.
        data: Committed files it is drawn from, paths from the artifact's root.
        table: The numbers it is drawn from, where they stand in no committed file: they go along, as CSV.
    """

    vector = True  # on a page as SVG, in two forms and two colour schemes

    def __init__(
        self,
        figure: Figure,
        alt: str,
        *,
        title: str = "",
        synthetic: bool = False,
        data: Sequence[str] = (),
        table: pd.DataFrame | None = None,
    ) -> None:
        if not alt.strip():
            raise ValueError("a picture needs a text alternative")
        self.figure, self.title, self.data, self.table, self.code = figure, title, tuple(data), table, ""
        self.alt = alt + (" Synthetic data." if synthetic else "")
        self.again: Callable[[], Picture] | None = None
        # Below everything else, where no label of an axis can be.
        figure.text(0.995, -0.01, "synthetic data" * synthetic, ha="right", va="top", fontsize=8, color=RED)

    @functools.cached_property
    def wide(self) -> Figure | None:
        """The form for wide windows; None where there is but one."""
        if not self.vector or self.again is None:
            return None
        token = _wide.set(True)
        try:
            figure = self.again().figure
        finally:
            _wide.reset(token)
        return None if figure.get_figwidth() == self.figure.get_figwidth() else figure

    def encode(self, kind: str, *, wide: bool = False, **settings) -> bytes:
        """The picture as "svg", "webp" or another kind, the same bytes for the same picture."""
        file, figure = io.BytesIO(), wide and self.wide or self.figure
        if kind == "svg":
            settings["metadata"] = {"Date": None}
        with matplotlib.rc_context(STYLE):
            figure.savefig(file, format=kind, bbox_inches="tight", **settings)
        return with_dark_scheme(file.getvalue()) if kind == "svg" else file.getvalue()

    def page(self) -> str:
        """HTML of the picture alone."""
        style = ' style="max-width:100%;height:auto"'
        alt = f'alt="{html.escape(self.alt, quote=True)}"'
        if not self.vector:  # a third of the size of a PNG
            picture = self.encode("webp", dpi=110, pil_kwargs={"quality": 85})
            return f'<img src="{_inlined(picture, "webp")}" {alt}{style}>'
        page = f'<img src="{_inlined(self.encode("svg"), "svg+xml")}" class="viptt-chart" {alt}{style}>'
        if self.wide is None:
            return page
        wide = _inlined(self.encode("svg", wide=True), "svg+xml")
        return f'<picture><source media="(min-width:{WIDE_FROM}px)" srcset="{wide}">{page}</picture>'

    def png(self) -> str:
        """A small PNG, base64: it stands beside each HTML, and is rarely seen."""
        from PIL import Image

        file = io.BytesIO()
        with Image.open(io.BytesIO(self.encode("png", dpi=80))) as picture:
            picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        return base64.b64encode(file.getvalue()).decode()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        """HTML for pages, which says what drew the picture from which files; PNG for all that show no HTML; words."""
        title = f'<p class="viptt-title"><strong>{html.escape(self.title)}</strong></p>' if self.title else ""
        caption = ""
        if self.table is not None:
            numbers = base64.b64encode(self.table.to_csv(index=False).encode()).decode()
            name = f"{self.code.rpartition('.')[2] or 'figure'}.csv"
            link = f'<a download="{name}" href="data:text/csv;base64,{numbers}">numbers (CSV)</a>'
            caption = f"<figcaption>{link}</figcaption>"
        figure = (
            f'<figure class="viptt-figure" style="margin:0" data-code="{self.code}" '
            f'data-files="{" ".join(self.data)}">{title}{self.page()}{caption}</figure>'
        )
        return {"text/html": figure, "image/png": self.png(), "text/plain": f"{self.title} {self.alt}".lstrip()}


def _inlined(picture: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def with_dark_scheme(svg: bytes) -> bytes:
    """An SVG that follows the colour scheme of its page: colours of ON_DARK change, all others are inverted."""
    text = svg.decode()
    rules = ["svg{fill:#fff}"]  # words state no colour
    for colour in sorted(set(re.findall("(?:fill|stroke): (#[0-9a-f]{6})", text))):
        hue, light, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
        dark = ON_DARK.get(colour.upper()) or to_hex(colorsys.hls_to_rgb(hue, 0.93 - 0.85 * light, saturation))
        rules += [f'[style*="{part}: {colour}"]{{{part}:{dark}!important}}' for part in ("fill", "stroke")]
    style = f"<style>@media (prefers-color-scheme: dark){{{''.join(rules)}}}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda found: found[1] + style, text, count=1).encode()


class Photograph(Picture):
    """A figure of photographs or volumes: on a page as WebP, and left as it is where the page is dark."""

    vector = False


# --- What several figures are made of -----------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A value and its interval, a row of a chart.

    Attributes:
        name: Of the row.
        value: The estimate itself.
        low: Lower end of its interval; nan where there is none.
        high: Upper end of its interval; nan where there is none.
        colour: Of its dot, in matplotlib's words.
        mark: Of its dot, in matplotlib's words.
        chance: Where a tick is drawn; nan for none.
        signed: A difference: with its sign, and hollow where the interval includes 0.
    """

    name: str
    value: float
    low: float
    high: float
    colour: str = OTHER_COLOUR
    mark: str = "o"
    chance: float = np.nan
    signed: bool = False

    @property
    def numbers(self) -> str:
        """Value, interval and chance in words."""
        chance = "" if np.isnan(self.chance) else f", chance {self.chance:.2f}"
        return with_interval(self.value, self.low, self.high, signed=self.signed) + chance

    def __str__(self) -> str:
        return f"{self.name}: {self.numbers}".rstrip(": ")


def new_axes(rows: int, columns: int, *, size: Sequence[float], **settings):
    """A figure outside pyplot (nothing is shown twice, nothing stays in memory) and its axes [rows, columns]."""
    figure = Figure(figsize=tuple(size))
    return figure, figure.subplots(rows, columns, squeeze=False, **settings)


def draw_estimates(panels: Mapping[str, Sequence[Estimate]], xlabel: str):
    """A panel a title: in it a row an estimate with its dot and interval, its name and numbers.

    The words stand above the dot; where the chart is wide, names stand on the left and numbers on the right.

    Returns:
        The figure, its axes [panels], and all rows in words.
    """
    draw = _draw_wide if is_wide() else _draw_narrow
    figure, axes = draw(panels)
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        axis.set_title(title, fontsize=10)
        axis.spines["left"].set_visible(False)
        if any(row.signed for row in rows):
            axis.axvline(0, color="black", lw=0.8, ls=":", zorder=0)
    axis.locator_params(axis="x", nbins=6)
    axis.set_xlabel(xlabel)
    figure.tight_layout()
    told = [
        f"{title}: {'; '.join(map(str, rows))}" if title else "; ".join(map(str, rows))
        for title, rows in panels.items()
    ]
    return figure, axes, ". ".join(told).replace("\n", ", ")


def _draw_narrow(panels: Mapping[str, Sequence[Estimate]]):
    words = [[textwrap.fill(str(row), LINE, break_on_hyphens=False) for row in rows] for rows in panels.values()]
    heights = [sum(text.count("\n") + 2.4 for text in texts) for texts in words]
    titles = sum(title.count("\n") + 2 for title in panels if title)
    size = (WIDTH, LINE_HEIGHT * (sum(heights) + titles + len(panels)) + 0.5)
    figure, axes = new_axes(len(panels), 1, size=size, sharex=True, height_ratios=heights)
    for axis, height, texts, rows in zip(axes[:, 0], heights, words, panels.values(), strict=True):
        axis.set(yticks=[], ylim=(height, -0.2))
        top = 0.0
        for text, row in zip(texts, rows, strict=True):
            axis.text(0, top, text, va="top", fontsize=SMALL, transform=axis.get_yaxis_transform(), bbox=ON_WHITE)
            top += text.count("\n") + 1.7
            _draw_estimate(axis, top, row)
            top += 0.7
    return figure, axes[:, 0]


def _draw_wide(panels: Mapping[str, Sequence[Estimate]]):
    names = [[textwrap.fill(row.name, NAME, break_on_hyphens=False) for row in rows] for rows in panels.values()]
    heights = [sum(text.count("\n") + 1.6 for text in texts) for texts in names]
    titles = sum(title.count("\n") + 2 for title in panels if title)
    size = (WIDE, LINE_HEIGHT * (sum(heights) + titles + len(panels)) + 0.5)
    figure, axes = new_axes(len(panels), 1, size=size, sharex=True, height_ratios=heights)
    for axis, height, texts, rows in zip(axes[:, 0], heights, names, panels.values(), strict=True):
        lines = np.array([text.count("\n") + 1.6 for text in texts])
        places = np.cumsum(lines) - lines / 2
        axis.set_yticks(places, texts, fontsize=SMALL + 0.5)
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(height, 0)
        for place, row in zip(places, rows, strict=True):
            axis.text(1.02, place, row.numbers, va="center", fontsize=SMALL + 0.5, transform=axis.get_yaxis_transform())
            axis.axhline(place, color="#E4E4E4", lw=0.6, zorder=0)
            _draw_estimate(axis, place, row)
    return figure, axes[:, 0]


def _draw_estimate(axis, place: float, row: Estimate) -> None:
    reach = np.nan_to_num([[max(row.value - row.low, 0)], [max(row.high - row.value, 0)]])
    hollow = "white" if row.signed and row.low <= 0 <= row.high else row.colour
    axis.errorbar(row.value, place, xerr=reach, fmt=row.mark, ms=6, color=row.colour, mfc=hollow, elinewidth=2)
    axis.plot(row.chance, place, "|", color="black", ms=13, mew=2)


def draw_matrices(counts: Mapping[str, np.ndarray], names: Sequence[str], written: str):
    """Confusion matrices [K,K], a panel a title: colour is the share of the true class, a row.

    Args:
        counts: By title; rows are true, columns predicted.
        names: Of the K classes.
        written: What stands in a cell: "counts" or "shares".

    Returns:
        The figure, and of each matrix the shares of the true classes that are predicted rightly, in words.
    """
    import seaborn

    columns = min(len(counts), 3) if is_wide() else 1
    rows = -(-len(counts) // columns)
    size = (chart_width(), rows * (0.36 * len(names) + 0.5) + 0.9)
    figure, axes = new_axes(rows, columns, size=size, sharex=True, sharey=True)
    told = []
    for axis in axes.flat[len(counts) :]:
        axis.set_axis_off()
    for axis, (title, table) in zip(axes.flat, counts.items(), strict=False):
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        cells = {"annot": table, "fmt": "d"} if written == "counts" else {"annot": share, "fmt": ".0%"}
        # The lighter half of the colours, on which black words can be read.
        words = {"fontsize": SMALL, "color": "black"}
        colours = {"cmap": "Blues", "vmin": 0, "vmax": 2, "cbar": False, "annot_kws": words}
        seaborn.heatmap(share, xticklabels=names, yticklabels=names, ax=axis, **cells, **colours)
        axis.set_title(title, fontsize=10)
        axis.set_ylabel("true" if axis in axes[:, 0] else "", fontsize=SMALL)
        axis.tick_params(axis="y", rotation=0, labelsize=SMALL, length=0)
        axis.tick_params(axis="x", rotation=90, labelsize=SMALL, length=0)
        told.append(
            f"{title}: " + ", ".join(f"{name} {right:.0%}" for name, right in zip(names, share.diagonal(), strict=True))
        )
        axis.set_xlabel("predicted" if axis in axes[-1] else "", fontsize=SMALL)
    figure.tight_layout()
    return figure, "; ".join(told)


def draw_slice(axis, pixels: np.ndarray, finding: np.ndarray | None = None, *, aspect: float = 1, sides: bool = False):
    """A picture, uint8 [h,w], the outline of a finding, bool on a grid of its own, and the patient's sides.

    Args:
        axis: To draw on.
        pixels: The picture.
        finding: What is marked on it, over the same field of view.
        aspect: Height of a pixel over its width.
        sides: The patient's right is on the left of the picture: say so.
    """
    height, width = pixels.shape
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), aspect=aspect)
    if finding is not None and finding.any():
        box = {"extent": (0, width, 0, height), "origin": "lower"}
        axis.contour(finding, levels=[0.5], colors=FINDING_COLOUR, linewidths=1, **box)
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()
    for x, letter in ((0.03, "R"), (0.97, "L")) if sides else ():
        axis.text(x, 0.5, letter, transform=axis.transAxes, color="white", fontsize=8, ha="center", va="center")


def legend_below(figure: Figure, axis) -> None:
    """Below everything, on the left: the right is for the mark of synthetic data."""
    once = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(once.values(), once, loc="upper left", bbox_to_anchor=(0, 0.01), fontsize=SMALL)


def first_of_each_class(clips: ClipSet, count: int) -> list[int]:
    """Indices of the first `count` clips of each class, class by class."""
    return [i for k in range(len(clips.class_names)) for i in np.flatnonzero(clips.labels == k)[:count]]


# --- Of one run ---------------------------------------------------------------------------------------------


@styled
def show_clips(clips: ClipSet, *, per_class: int = 1, columns: int = 8) -> Picture:
    """Filmstrips: one row a clip, `columns` of its frames or slices from first to last, each class in turn."""
    rows = first_of_each_class(clips, per_class)
    steps = np.linspace(0, clips.clips.shape[1] - 1, min(columns, clips.clips.shape[1])).round().astype(int)
    figure, axes = new_axes(len(rows), len(steps), size=(len(steps), len(rows)))  # inches: one a picture
    for row, i in zip(axes, rows, strict=True):
        for axis, step in zip(row, steps, strict=True):
            axis.imshow(clips.clips[i, step], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(clips.class_names[clips.labels[i]], rotation=0, ha="right", va="center", fontsize=9)
    for axis, step in zip(axes[0], steps, strict=True):
        axis.set_title(f"{step + 1}", fontsize=8, fontweight="normal", loc="center", pad=3)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0.03, hspace=0.03)
    return Photograph(
        figure,
        f"{len(rows)} rows of {len(steps)} frames or slices each, numbered along the top, one row for each of "
        f"{', '.join(clips.class_names)}.",
        synthetic=clips.synthetic,
    )


@styled
def class_balance(clips: ClipSet) -> Picture:
    """Number of clips of each class, as labelled bars."""
    counts = clips.counts()
    figure, axes = new_axes(1, 1, size=(chart_width(), 0.34 * len(counts) + 0.8))
    axis = axes[0, 0]
    axis.bar_label(axis.barh(list(counts), list(counts.values()), color=OTHER_COLOUR), padding=3)
    axis.invert_yaxis()
    axis.set(xlabel="clips", title="Class balance")
    axis.margins(x=0.1)
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return Picture(
        figure,
        f"Bars of the number of clips of each class: {listed}.",
        synthetic=clips.synthetic,
        table=pd.DataFrame({"class": list(counts), "clips": list(counts.values())}),
    )


@styled
def training_curves(history: pd.DataFrame, *, synthetic: bool = False) -> Picture:
    """Loss and validation kappa over epochs; a dot marks the epoch whose weights were kept.

    Args:
        history: See `train.History`; a column `arm` is optional.
        synthetic: Mark the figure.
    """
    history = history if "arm" in history else history.assign(arm="video")
    figure, axes = new_axes(*((1, 2) if is_wide() else (2, 1)), size=(chart_width(), 3.2 if is_wide() else 5.6))
    losses, kappas = axes.flat
    kept = []
    for arm, rows in history.groupby("arm", sort=False):
        colour, best = ARM_COLOURS.get(arm, OTHER_COLOUR), rows.loc[rows["val_loss"].idxmin()]
        name = arm_label(arm)
        losses.plot(rows["epoch"], rows["loss"], color=colour, ls=":", lw=1.3)
        for axis, column in ((losses, "val_loss"), (kappas, "val_kappa")):
            axis.plot(rows["epoch"], rows[column], color=colour, label=name)
            axis.plot(best["epoch"], best[column], "o", color=colour)
        kept.append(f"{name}: epoch {best['epoch']:.0f} of {len(rows)} kept, validation kappa {best['val_kappa']:.2f}")
    losses.set(xlabel="epoch", ylabel="cross-entropy", title="Loss: training dotted, validation solid")
    kappas.set(xlabel="epoch", ylabel="kappa", title="Validation kappa")
    figure.tight_layout()
    if history["arm"].nunique() > 1:
        legend_below(figure, kappas)
    alt = f"Loss and validation kappa over the epochs. {'; '.join(kept)}."
    return Picture(figure, alt, synthetic=synthetic, table=history)


@styled
def confusion(predictions: pd.DataFrame, *, part: str = "test", synthetic: bool = False) -> Picture:
    """Confusion matrix of each arm: counts written, colour the share of the true class."""
    names = class_names_of(predictions)
    counts = {
        arm_label(arm): metrics.confusion_matrix(rows["label"].to_numpy(), predicted_classes(rows), len(names))
        for arm, rows in predictions[predictions["part"] == part].groupby("arm", sort=False)
    }
    figure, told = draw_matrices(counts, names, "counts")
    tables = [pd.DataFrame(table, columns=names).assign(arm=arm, true=names) for arm, table in counts.items()]
    return Picture(
        figure,
        f"Confusion matrices of the {part} set. Recall by class, {told}.",
        synthetic=synthetic,
        table=pd.concat(tables)[["arm", "true", *names]],
    )


@styled
def kappa_by_arm(table: pd.DataFrame, *, on: str = "test set", synthetic: bool = False) -> Picture:
    """Kappa of each arm as a dot with its interval; `table` is that of a `results.Summary`, `on` names the scans."""
    table = table.dropna(subset=["kappa"])
    rows = [
        Estimate(
            *(arm_label(row.arm), row.kappa, row.kappa_low, row.kappa_high),
            *(ARM_COLOURS.get(row.arm, OTHER_COLOUR), MARKS.get(row.arm, "o")),
        )
        for row in table.itertuples()
    ]
    figure, (axis,), told = draw_estimates({"": rows}, f"kappa, {on}")
    axis.axvline(0, color="black", lw=0.8, zorder=0)
    return Picture(figure, f"Kappa of each arm with its interval: {told}.", synthetic=synthetic, table=table)
