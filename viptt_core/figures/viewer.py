"""Viewer that pages through volumes and clips: ipywidgets where a kernel runs, HTML and JavaScript elsewhere.

The HTML is whole in itself: it needs no kernel, no widget state and no network, so a published page keeps it alone.
Window and level work on the 8-bit picture: HU outside the window a clip was read through are gone, and a narrow window
spreads few grey levels, and with them what compression changed.
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import resources

import numpy as np

from viptt_core.clips import ClipSet
from viptt_core.constants import CT_WINDOWS, UCF_FRAME_RATE
from viptt_core.errors import SettingError
from viptt_core.figures.pictures import MAP_COLOURS, OUTLINE_COLOUR, Overlay, Shown, pack_within, still
from viptt_core.shown import figure_html, named

SLICES_A_SECOND = 12  # played
MOST_BYTES = 700_000  # of the pictures of one viewer in a page: 70 slices of 224 x 224 fit
KEYS = (
    ("\N{LEFTWARDS ARROW} \N{RIGHTWARDS ARROW} \N{UPWARDS ARROW} \N{DOWNWARDS ARROW}", "one {unit}."),
    ("Page Up", "and"),
    ("Page Down", "ten."),
    ("Home", "and"),
    ("End", "first and last."),
    ("Space", "play, pause."),
    ("o", "overlays on, off."),
    ("r", "reset the window."),
    ("Wheel", "or"),
    ("swipe across", "pages."),
    ("Shift + drag", "window and level. Click the picture first."),
)
PAGE = """<div class="viptt-viewer{kind}" style="max-width:{width}px" data-lm-suppress-shortcuts="true">
<style>{style}</style>
<div class="viptt-stills">{stills}</div>
<p>{caption}</p>
<script>{script}
vipttViewer(document.currentScript.parentElement, {data});</script></div>"""


class Viewer:
    """Page through volumes or clips: keys, wheel, touch, slider, play; window and level; overlays.

    Args:
        frames: uint8 [T, H, W], grey levels 0..255. Or
            several clips, each as `Shown`.
        caption: Says what is shown; it is the picture's text alternative too. Of one clip, or of several together.
        together: Show all clips side by side, with one slider; else one, and a list to choose from.
        unit: "slice", "frame" or "step".
        rate: Steps a second when played.
        hu_window: What grey levels 0 and 255 stand for, in HU, where the clips are CT.
        sides: The patient's right is on the left of the picture; it then says so.
        width: Largest width on the page, in CSS pixels.
        quality: WebP quality, 1 to 100.
        most_bytes: Size limit of the pictures in the page. Above it they become smaller, then fewer: the numbers
            beside the slider stay those of the clip. A live session shows all.
        data: Committed files the clips are from, paths from the artifact's root.

    Raises:
        SettingError: no clip, or one of another form, see `Shown`.
    """

    def __init__(
        self,
        frames: np.ndarray | Sequence[Shown],
        *,
        caption: str = "",
        together: bool = False,
        unit: str = "slice",
        rate: float = SLICES_A_SECOND,
        hu_window: tuple[float, float] | None = None,
        sides: bool = False,
        width: int = 420,
        quality: int = 80,
        most_bytes: int = MOST_BYTES,
        data: Sequence[str] = (),
    ) -> None:
        self.clips = [Shown(np.asarray(frames), caption)] if isinstance(frames, np.ndarray) else list(frames)
        if not self.clips:
            raise SettingError("there is no clip to show.", remedy="Give at least one.")
        self.caption = caption if together or len(self.clips) == 1 and caption else self.clips[0].caption
        self.together, self.unit, self.rate, self.sides = together, unit, rate, sides
        self.hu_window = None if hu_window is None else (float(hu_window[0]), float(hu_window[1]))
        self.width, self.quality, self.most_bytes = width, quality, most_bytes
        self.code, self.data = "", tuple(data)

    def __repr__(self) -> str:
        if len(self.clips) > 1:
            return f"{len(self.clips)} clips: " + ", ".join(clip.name for clip in self.clips)
        return f"{self.caption} ({len(self.clips[0].frames)} {self.unit}s)"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, object]:
        """HTML and words; in a live session the widget too, which front ends that know it prefer."""
        live = self.widget()._repr_mimebundle_() if _kernel_runs() else {}
        return live | {"text/plain": repr(self), "text/html": figure_html(self.page(), code=self.code, data=self.data)}

    @property
    def grey_range(self) -> tuple[float, float]:
        """What grey levels 0 and 255 stand for: HU, or themselves."""
        return self.hu_window or (0.0, 255.0)

    @property
    def presets(self) -> dict[str, tuple[float, float]]:
        """Windows to choose from, by name: of CT, else none."""
        return CT_WINDOWS if self.hu_window else {}

    def page(self) -> str:
        """A piece of HTML that is whole in itself."""
        clips = pack_within(self.clips, self.most_bytes, quality=self.quality)
        data = {
            "clips": clips,
            "options": [_option(clip) for clip in self.clips],
            "together": self.together,
            "headings": [clip.heading for clip in self.clips],
            "caption": self.caption,
            "unit": self.unit,
            "rate": round(self.rate, 1),
            "hu": self.hu_window,
            "sides": self.sides,
            "outline": OUTLINE_COLOUR,
            "presets": [(name, *window) for name, window in self.presets.items()],
            "colours": MAP_COLOURS[::15].tolist(),
            "start": _start(clips if self.together else clips[:1]),
            "keys": [(key, does.format(unit=self.unit)) for key, does in KEYS],
        }
        stills = "".join(
            f'<img alt="{html.escape(clip.caption, quote=True)}" src="data:image/webp;base64,{still(clip)}">'
            for clip in (self.clips if self.together else self.clips[:1])
        )
        return PAGE.format(
            kind=" viptt-together" if self.together else "",
            width=self.width,
            stills=stills,
            style=_source("viewer.css"),
            script=_source("viewer.js"),
            caption=html.escape(self.caption),
            data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),  # no caption can end the script
        )

    def widget(self):
        """The ipywidgets form: pictures come from the kernel, every step of every clip at full size."""
        from viptt_core.figures.live import build_widget

        return build_widget(self)


@named
def view_clip(clips: ClipSet, index: int, *, overlays: Sequence[Overlay] = (), width: int = 420) -> Viewer:
    """Viewer of one clip of a ClipSet, captioned with its class and name."""
    return Viewer([_shown(clips, index, overlays)], width=width, **_look(clips))


@named
def browse_clips(
    clips: ClipSet,
    *,
    per_class: int = 2,
    overlays: Mapping[int, Sequence[Overlay]] | None = None,
    width: int = 420,
    most_bytes: int = MOST_BYTES,
) -> Viewer:
    """Viewer of the first clips of each class, chosen by class and name.

    Args:
        clips: The set.
        per_class: Clips of each class.
        overlays: By the index of a clip.
        width: Largest width on the page, in CSS pixels.
        most_bytes: See `Viewer`.
    """
    chosen = first_of_each_class(clips, per_class)
    return Viewer(
        [_shown(clips, i, (overlays or {}).get(i, ())) for i in chosen],
        width=width,
        most_bytes=most_bytes,
        **_look(clips),
    )


@named
def compare_clips(
    clips: ClipSet,
    *,
    overlays: Mapping[int, Sequence[Overlay]] | None = None,
    width: int = 720,
    most_bytes: int = MOST_BYTES,
) -> Viewer:
    """Viewer of the first clip of each class side by side, paged and windowed together; arguments as `browse_clips`."""
    shown = [_shown(clips, i, (overlays or {}).get(i, ())) for i in first_of_each_class(clips, 1)]
    return Viewer(
        shown, caption=caption_together(shown), together=True, width=width, most_bytes=most_bytes, **_look(clips)
    )


def caption_together(shown: Sequence[Shown]) -> str:
    """Caption of clips side by side."""
    return f"Side by side: {', '.join(clip.heading for clip in shown)}{', synthetic' * shown[0].synthetic}"


def first_of_each_class(clips: ClipSet, count: int) -> list[int]:
    """Indices of the first `count` clips of each class, in class order."""
    return [int(i) for k in range(len(clips.class_names)) for i in np.flatnonzero(clips.labels == k)[:count]]


def _shown(clips: ClipSet, index: int, overlays: Sequence[Overlay]) -> Shown:
    heading, name = clips.class_names[clips.labels[index]], str(clips.names[index])
    return Shown(
        clips.clips[index],
        f"{heading}, {name}{', synthetic' * clips.synthetic}",
        name,
        heading,
        tuple(overlays),
        synthetic=clips.synthetic,
    )


def _look(clips: ClipSet) -> dict:
    """How a set wants to be shown, by what it was made from: in its unit, at its rate, in HU, with its sides."""
    made = clips.source
    if "stride" in made:
        return {"unit": "frame", "rate": UCF_FRAME_RATE / made["stride"]}
    if "hu_window" not in made:
        return {"unit": "step"}
    # Phantoms lie as canonical scans do: columns run to the patient's left.
    return {
        "unit": "slice",
        "hu_window": made["hu_window"],
        "sides": made.get("set") == "phantom" or made.get("orientation") == "canonical",
    }


def _start(packed: Sequence[dict]) -> int:
    """Step to begin with: where the findings are largest, each against its own largest slice; else the middle."""
    paths = [overlay["paths"] for clip in packed for overlay in clip["overlays"] if "paths" in overlay]
    largest = [max(map(len, steps)) for steps in paths]
    if not any(largest):
        return max(len(clip["numbers"]) for clip in packed) // 2
    shares = [
        sum(len(path) / max(most, 1) for path, most in zip(step, largest, strict=True))
        for step in zip(*paths, strict=False)
    ]
    return shares.index(max(shares))


def _option(clip: Shown) -> str:
    return f"{clip.heading}: {clip.name}"


def _source(name: str) -> str:
    """A file of the package, small for a page: without indentation; of a script also without remarks and spaces."""
    text = (resources.files("viptt_core.figures") / name).read_text("utf-8")
    lines = [line.strip() for line in text.splitlines()]
    if name.endswith(".js"):
        lines = [re.sub(r"(^|\s+)// .*", "", line) for line in lines]
        spaced = re.compile(r"""("[^"]*"|'[^']*')| *([][!=+*/<>?:;,{}()&|-]) *""")
        lines = [spaced.sub(lambda found: found[1] or found[2], line) for line in lines]
    return re.sub(r"([;{,(])\n", r"\1", "\n".join(line for line in lines if line))


def _kernel_runs() -> bool:
    """Whether a Jupyter kernel runs this code, so that a widget has someone to talk to."""
    shell: Callable | None = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return getattr(shell() if shell else None, "kernel", None) is not None
