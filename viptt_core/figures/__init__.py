"""Figures, one function each. All read clips, predictions or histories; none trains or predicts.

Colours are Okabe and Ito's, safe for colour-blind readers; arms keep theirs throughout.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from viptt_core import metrics
from viptt_core.clips import ClipSet
from viptt_core.results import class_names_of, predicted_classes
from viptt_core.shown import figure_html, named, with_interval

ARM_COLOURS = {"random": "#999999", "image": "#E69F00", "video": "#0072B2"}
OTHER_COLOUR = "#009E73"
WIDTH = 5  # inches, of a chart: its letters can be read on a telephone
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


def styled(draw: Callable) -> Callable:
    """Draw in the house style, and let the picture say which function drew it."""
    return named(matplotlib.rc_context(STYLE)(draw))


class Picture:
    """A finished figure with its text alternative, shown by notebooks and the book.

    The book adds a line with its source below: code, data, command (see `viptt_core.book.sphinx_ext`).

    Args:
        figure: The matplotlib figure.
        alt: What the picture shows, for readers who do not see it.
        synthetic: Write "synthetic data" on it.
        withdrawn: Write this on it, such as "withdrawn: read along the wrong axis"; "" for nothing.
        data: Committed files it is drawn from, paths from the artifact's root.
        table: The numbers it is drawn from, where they stand in no committed file: they go along, as CSV.
    """

    vector = True  # shown as SVG; charts are inverted on a dark page

    def __init__(
        self,
        figure: Figure,
        alt: str,
        *,
        synthetic: bool = False,
        withdrawn: str = "",
        data: Sequence[str] = (),
        table: pd.DataFrame | None = None,
    ) -> None:
        if not alt.strip():
            raise ValueError("a picture needs a text alternative")
        self.figure, self.data, self.table, self.code = figure, tuple(data), table, ""
        self.alt = alt + (" Synthetic data." if synthetic else "")
        self.alt += f" These numbers are {withdrawn}." if withdrawn else ""
        if synthetic:
            # Below everything else, where no label of an axis can be.
            figure.text(0.995, -0.01, "synthetic data", ha="right", va="top", fontsize=8, color="#B00020")
        if withdrawn:
            # Above everything else: legends stand below.
            figure.text(0.005, 1.01, withdrawn, ha="left", va="bottom", fontsize=8, color="#B00020")

    def encode(self, kind: str, **settings) -> bytes:
        """The picture as "svg", "webp" or another kind, the same bytes for the same picture."""
        file = io.BytesIO()
        if kind == "svg":
            settings["metadata"] = {"Date": None}
        with matplotlib.rc_context(STYLE):
            self.figure.savefig(file, format=kind, bbox_inches="tight", **settings)
        return file.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the picture; the ending decides the format."""
        Path(path).write_bytes(self.encode(Path(path).suffix.removeprefix("."), dpi=160))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        if self.vector:
            mime, picture = "image/svg+xml", self.encode("svg")
        else:  # a third of the size of a PNG
            mime, picture = "image/webp", self.encode("webp", dpi=110, pil_kwargs={"quality": 85})
        look = ' class="viptt-chart"' if self.vector else ""
        image = (
            f'<img src="data:{mime};base64,{base64.b64encode(picture).decode()}"{look} '
            f'alt="{html.escape(self.alt, quote=True)}" style="max-width:100%;height:auto">'
        )
        page = figure_html(image, code=self.code, data=self.data, numbers=self._numbers())
        return {"text/html": page, "text/plain": self.alt}

    def _numbers(self) -> str:
        if self.table is None:
            return ""
        data = base64.b64encode(self.table.to_csv(index=False).encode()).decode()
        name = f"{self.code.rpartition('.')[2] or 'figure'}.csv"
        return f'<a download="{name}" href="data:text/csv;base64,{data}">numbers (CSV)</a>'


class Photograph(Picture):
    """A figure of photographs or volumes: shown as WebP, and left as it is on a dark page."""

    vector = False


@styled
def show_clips(clips: ClipSet, *, per_class: int = 1, columns: int = 8) -> Picture:
    """Filmstrips: one row a clip, `columns` of its frames or slices from first to last, each class in turn."""
    rows = [i for k in range(len(clips.class_names)) for i in np.flatnonzero(clips.labels == k)[:per_class]]
    steps = np.linspace(0, clips.clips.shape[1] - 1, min(columns, clips.clips.shape[1])).round().astype(int)
    width, height = len(steps) + 1.4, len(rows) + 0.3  # inches: one a picture, and room for words
    figure, axes = new_axes(len(rows), len(steps), size=(width, height))
    for row, i in zip(axes, rows, strict=True):
        for axis, step in zip(row, steps, strict=True):
            axis.imshow(clips.clips[i, step], cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
        row[0].text(
            -0.06,
            0.5,
            clips.class_names[clips.labels[i]],
            transform=row[0].transAxes,
            ha="right",
            va="center",
            fontsize=9,
        )
    for axis, step in zip(axes[0], steps, strict=True):
        axis.set_title(f"{step + 1}", fontsize=8, fontweight="normal", loc="center", pad=3)
    figure.subplots_adjust(left=1.4 / width, right=1, bottom=0.02, top=1 - 0.28 / height, wspace=0.03, hspace=0.03)
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
    figure, axes = new_axes(1, 1, size=(WIDTH, 0.34 * len(counts) + 0.8))
    axis = axes[0, 0]
    bars = axis.barh(list(counts), list(counts.values()), color=OTHER_COLOUR)
    axis.bar_label(bars, padding=3)
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
    figure, axes = new_axes(2, 1, size=(WIDTH, 5.6))
    kept = []
    for arm, rows in history.groupby("arm", sort=False):
        colour, best = ARM_COLOURS.get(arm, OTHER_COLOUR), rows.loc[rows["val_loss"].idxmin()]
        axes[0, 0].plot(rows["epoch"], rows["loss"], color=colour, ls=":", lw=1.3)
        for axis, column in ((axes[0, 0], "val_loss"), (axes[1, 0], "val_kappa")):
            axis.plot(rows["epoch"], rows[column], color=colour, label=arm)
            axis.plot(best["epoch"], best[column], "o", color=colour)
        kept.append(f"{arm}: epoch {best['epoch']:.0f} of {len(rows)} kept, validation kappa {best['val_kappa']:.2f}")
    axes[0, 0].set(xlabel="epoch", ylabel="cross-entropy", title="Loss: training dotted, validation solid")
    axes[1, 0].set(xlabel="epoch", ylabel="kappa", title="Validation kappa")
    axes[1, 0].legend(title="start")
    figure.tight_layout()
    return Picture(
        figure,
        "Loss and validation kappa over the epochs. " + "; ".join(kept) + ".",
        synthetic=synthetic,
        table=history,
    )


@styled
def confusion(predictions: pd.DataFrame, *, part: str = "test", synthetic: bool = False) -> Picture:
    """Confusion matrix of each arm: counts written, colour the share of the true class (seaborn)."""
    import seaborn

    names = class_names_of(predictions)
    arms = list(predictions[predictions["part"] == part].groupby("arm", sort=False))
    side = 0.42 * len(names) + 0.5
    figure, axes = new_axes(len(arms), 1, size=(side + 1.6, side * len(arms) + 1.3))
    told, counts = [], []
    for axis, (arm, rows) in zip(axes[:, 0], arms, strict=True):
        predicted = predicted_classes(rows)
        table = metrics.confusion_matrix(rows["label"].to_numpy(), predicted, len(names))
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        seaborn.heatmap(
            share,
            annot=table,
            fmt="d",
            cmap="Blues",
            vmin=0,
            vmax=1,
            cbar=False,
            square=True,
            ax=axis,
            xticklabels=names if axis is axes[-1, 0] else False,
            yticklabels=names,
        )
        axis.set(ylabel="true", title=f"start: {arm}")
        axis.tick_params(axis="x", rotation=90)
        axis.tick_params(axis="y", rotation=0)
        recall = metrics.per_class(rows["label"].to_numpy(), predicted, len(names))["recall"]
        told.append(f"{arm}: " + ", ".join(f"{n} {r:.2f}" for n, r in zip(names, recall, strict=True)))
        counts.append(pd.DataFrame(table, columns=names).assign(arm=arm, true=names))
    axes[-1, 0].set_xlabel("predicted")
    figure.tight_layout()
    return Picture(
        figure,
        f"Confusion matrices of the {part} part. Recall by class, {'; '.join(told)}.",
        synthetic=synthetic,
        table=pd.concat(counts)[["arm", "true", *names]],
    )


@styled
def kappa_by_arm(table: pd.DataFrame, *, on: str = "test part", synthetic: bool = False) -> Picture:
    """Kappa of each arm as a dot with its interval; `table` is that of a `results.Summary`, `on` names the scans."""
    table = table.dropna(subset=["kappa"])
    figure, axes = new_axes(1, 1, size=(WIDTH, 0.5 * len(table) + 1.1))
    axis = axes[0, 0]
    for y, row in enumerate(table.itertuples()):
        colour = ARM_COLOURS.get(row.arm, OTHER_COLOUR)
        axis.plot([row.kappa_low, row.kappa_high], [y, y], color=colour, lw=3, solid_capstyle="round")
        axis.plot(row.kappa, y, "o", color=colour, ms=9)
        axis.annotate(f"{row.kappa:.2f}", (row.kappa, y), textcoords="offset points", xytext=(0, 9), ha="center")
    axis.axvline(0, color="black", lw=0.8)
    axis.set(
        yticks=range(len(table)), yticklabels=list(table["arm"]), xlabel=f"kappa, {on}", ylim=(len(table) - 0.4, -0.9)
    )
    told = "; ".join(f"{r.arm} {with_interval(r.kappa, r.kappa_low, r.kappa_high)}" for r in table.itertuples())
    return Picture(figure, f"Kappa of each arm with its interval: {told}.", synthetic=synthetic, table=table)


def new_axes(rows: int, columns: int, *, size: Sequence[float]):
    """A figure outside pyplot (nothing is shown twice, nothing stays in memory) and its axes [rows, columns]."""
    figure = Figure(figsize=tuple(size))
    return figure, figure.subplots(rows, columns, squeeze=False)
