"""A finished figure: its words, its form for telephones and for wide windows, its colours on light and dark pages."""

from __future__ import annotations

import base64
import colorsys
import functools
import html
import io
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import pandas as pd
from matplotlib import rc_context, rc_params_from_file
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

WIDTH, WIDE, SMALL = 4.2, 7.8, 8.5  # inches of the two forms of a chart, points: readable on a telephone
WIDE_FROM = 700  # CSS pixels of a window that shows the wide form
RED = "#B00020"
# What the colours become on a dark page; all others keep their hue and turn light into dark.
ON_DARK = {"#E69F00": "#F0AD2E", "#0072B2": "#4DA3E8", "#009E73": "#2FBF93", "#D55E00": "#F07C3A", "#56B4E9": "#7CC8F2"}
ON_DARK |= {"#999999": "#A8A8A8", RED: "#FF7B89", "#FFFFFF": "#121212"}  # white is the ground: the theme's
ON_DARK |= {colour: colour for colour in ("#A6A6A6", "#3B8FD1")}  # also within pictures that stay as they are
STYLE = rc_params_from_file(Path(__file__).with_name("house.mplstyle"), use_default_template=False)

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
        with rc_context(STYLE):
            shown = draw(*args, **settings)
        if isinstance(shown, Picture):
            shown.code = f"{draw.__module__}.{draw.__qualname__}"
            shown.again = functools.partial(styled_draw, *args, **settings)
        return shown

    return styled_draw


@dataclass(eq=False, repr=False)
class Picture:
    """A finished figure with its text alternative, shown by notebooks and the book.

    The book adds a line with its source below: code, data, command (see `viptt_core.book.sphinx_ext`).
    """

    figure: Figure
    alt: str  #: what the picture shows, for readers who do not see it
    _: KW_ONLY
    title: str = ""  #: its message, a sentence above it
    synthetic: bool = False  #: whether "synthetic data" is written on it
    data: Sequence[str] = ()  #: committed files it is drawn from, paths from the artifact's root
    table: pd.DataFrame | None = None  #: numbers that stand in no committed file; they go along, as CSV
    code: str = ""  #: full name of the function that drew it
    again: Callable[[], Picture] | None = None  #: draws it once more

    vector = True  # on a page as SVG, in two forms and two colour schemes

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError("a picture needs a text alternative")
        self.alt, self.data = self.alt + (" Synthetic data." if self.synthetic else ""), tuple(self.data)
        # Below everything else, where no label of an axis can be.
        mark = "synthetic data" * self.synthetic
        self.figure.text(0.995, -0.01, mark, ha="right", va="top", fontsize=8, color=RED)

    @functools.cached_property
    def wide(self) -> Figure | None:
        """The form for wide windows; None where there is but one."""
        if not self.vector or self.again is None:
            return None
        drawing = copy_context()
        drawing.run(_wide.set, True)
        figure = drawing.run(self.again).figure
        return None if figure.get_figwidth() == self.figure.get_figwidth() else figure

    def encode(self, kind: str, *, wide: bool = False, **settings) -> bytes:
        """The picture as "svg", "webp" or another kind, the same bytes for the same picture."""
        file, figure = io.BytesIO(), wide and self.wide or self.figure
        if kind == "svg":
            settings["metadata"] = {"Date": None}
        with rc_context(STYLE):
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
