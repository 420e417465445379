"""Viewer that pages through volumes and clips: one script, in a page and as a live widget.

A page of it is whole in itself: no kernel, no widget state, no network. Window and level work on the 8-bit picture: HU
outside the window a clip was read through are gone, and a narrow window spreads few grey levels, and with them what
compression changed.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

import cv2
import matplotlib
import numpy as np

from viptt_core import ct
from viptt_core.clips import ClipSet
from viptt_core.constants import CT_WINDOWS, HU_WINDOW, PAPER_FRAMES, PAPER_SIZE, TB_CLASSES, UCF_FRAME_RATE
from viptt_core.errors import SettingError
from viptt_core.figures import STYLE, Photograph, draw_slice, new_axes
from viptt_core.figures.data import typical_phantom
from viptt_core.shown import figure_html, named

SLICES_A_SECOND = 12  # played
MOST_BYTES = 700_000  # of the pictures of one viewer: 70 slices of 224 x 224 fit
LARGEST, SMALLEST = 256, 48  # sides of a packed picture, in pixels
QUALITY = 70  # of WebP
MAP_COLOURS = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_INFERNO)[0]  # BGR [256, 3]
SCRIPT, STYLE_SHEET = (
    (resources.files("viptt_core.figures") / f"viewer.{kind}").read_text("utf-8") for kind in ("js", "css")
)
MODULE = (
    SCRIPT
    + """
export default {
  render({ model, el }) {
    const box = document.createElement("div");
    box.className = "viptt-viewer";
    el.append(box);
    vipttViewer(box, model.get("data"));
  },
};
"""
)


@dataclass(frozen=True)
class Overlay:
    """A finding or a map to lay over a clip, on a grid of its own that covers the same field of view.

    Attributes:
        name: Beside its switch.
        values: bool [T, h, w]: a region, shown by its outline; or uint8 [T, h, w]: a map, shown in colours, the more
            transparent the lower it is.
    """

    name: str
    values: np.ndarray

    @property
    def is_region(self) -> bool:
        """Whether it is drawn as an outline."""
        return self.values.dtype == bool


@dataclass(frozen=True)
class Shown:
    """One clip to page through.

    Attributes:
        frames: uint8 [T, H, W], grey levels 0..255.
        name: In the list of clips, and over the picture.
        heading: Its class, over the names of the list.
        note: More to say in the caption.
        overlays: What can be laid over it.
        synthetic: Whether it was simulated; the picture then says so.

    Raises:
        SettingError: frames or an overlay of another dtype or shape.
    """

    frames: np.ndarray
    name: str = ""
    heading: str = ""
    note: str = ""
    overlays: tuple[Overlay, ...] = ()
    synthetic: bool = False

    def __post_init__(self) -> None:
        if self.frames.ndim != 3 or self.frames.dtype != np.uint8 or not len(self.frames):
            raise SettingError(f"frames are {self.frames.dtype} {self.frames.shape}.", remedy="Give uint8 [T, H, W].")
        for overlay in self.overlays:
            shape, dtype = overlay.values.shape, overlay.values.dtype
            if len(shape) != 3 or shape[0] != len(self.frames) or dtype not in (bool, np.uint8):
                raise SettingError(
                    f"overlay '{overlay.name}' is {dtype} {shape}, the clip {self.frames.shape}.",
                    remedy="Give bool or uint8 [T, h, w], one for each frame.",
                )

    @property
    def caption(self) -> str:
        """Says what is shown; the text alternative, too."""
        return ", ".join(filter(None, (self.heading, self.name, self.note, "synthetic" * self.synthetic)))


@dataclass
class Viewer:
    """Page through volumes or clips: keys, wheel, touch, slider, play; window and level; overlays.

    Attributes:
        clips: At least one.
        together: Show all clips side by side, with one slider; else one, and a list to choose from.
        unit: "slice", "frame" or "step".
        rate: Steps a second when played.
        hu_window: What grey levels 0 and 255 stand for, in HU, where the clips are CT.
        sides: The patient's right is on the left of the picture; it then says so.
        width: Largest width, in CSS pixels.
        most_bytes: Size limit of the pictures: above it they become smaller.
        data: Committed files the clips are from, paths from the artifact's root.

    Raises:
        SettingError: no clip.
    """

    clips: Sequence[Shown]
    together: bool = False
    unit: str = "slice"
    rate: float = SLICES_A_SECOND
    hu_window: tuple[float, float] | None = None
    sides: bool = False
    width: int = 420
    most_bytes: int = MOST_BYTES
    data: Sequence[str] = ()
    code: str = field(default="", init=False)  # the function that made it, see `shown.named`

    def __post_init__(self) -> None:
        if not self.clips:
            raise SettingError("there is no clip to show.", remedy="Give at least one.")
        self.views = [list(self.clips)] if self.together else [[clip] for clip in self.clips]

    def __repr__(self) -> str:
        return "; ".join(map(_caption, self.views))

    def _repr_mimebundle_(self, include=None, exclude=None):
        """HTML, a still and words; in a live session the widget, which front ends that know it prefer."""
        html = figure_html(self.page(), code=self.code, data=self.data)
        live, metadata = self.widget()._repr_mimebundle_() if _kernel_runs() else ({}, {})
        return live | {"text/html": html, "image/png": self.still().png(), "text/plain": repr(self)}, metadata

    def content(self) -> dict:
        """What the script shows, JSON-ready."""
        side, packed = LARGEST, []
        while not packed or side > SMALLEST and len(json.dumps(packed)) > self.most_bytes:
            packed = [[_pack(clip, side) for clip in view] for view in self.views]
            side = side * 3 // 4
        views = [
            {
                "heading": view[0].heading,
                "label": f"{view[0].heading}: {view[0].name}",
                "caption": _caption(view),
                "start": _start(view),
                "clips": clips,
            }
            for view, clips in zip(self.views, packed, strict=True)
        ]
        return {
            "views": views,
            "unit": self.unit,
            "rate": round(self.rate, 1),
            "hu": self.hu_window and [float(end) for end in self.hu_window],
            "sides": self.sides,
            "width": self.width,
            "presets": [(name, *window) for name, window in CT_WINDOWS.items()] if self.hu_window else [],
        }

    def page(self) -> str:
        """A piece of HTML that is whole in itself."""
        content = json.dumps(self.content(), separators=(",", ":")).replace(
            "<", "\\u003c"
        )  # no caption ends the script
        return (
            f'<style>{STYLE_SHEET}</style><div class="viptt-viewer">{self.still().image()}<script>{SCRIPT}'
            f"vipttViewer(document.currentScript.parentElement, {content});</script></div>"
        )

    def widget(self):
        """The same for a live session, an `anywidget.AnyWidget`."""
        import anywidget
        import traitlets

        class Live(anywidget.AnyWidget):
            _esm, _css = MODULE, STYLE_SHEET
            data = traitlets.Dict().tag(sync=True)

        return Live(data=self.content())

    @matplotlib.rc_context(STYLE)
    def still(self) -> Photograph:
        """What a reader sees first, for where no script runs."""
        view, start = self.views[0], _start(self.views[0])
        figure, axes = new_axes(1, len(view), size=(2.4 * len(view), 2.7))
        for axis, clip in zip(axes[0], view, strict=True):
            step = round(start * (len(clip.frames) - 1) / max(_longest(view) - 1, 1))
            finding = next((overlay.values[step] for overlay in clip.overlays if overlay.is_region), None)
            draw_slice(axis, clip.frames[step], finding, sides=self.sides)
            axis.set_title(clip.heading, fontsize=9, loc="center")
        figure.tight_layout()
        synthetic = any(clip.synthetic for clip in view)
        return Photograph(
            figure, f"{_caption(view)}: {self.unit} {start + 1} of {_longest(view)}.", synthetic=synthetic
        )


@named
def browse_clips(clips: ClipSet, *, per_class: int = 2) -> Viewer:
    """Viewer of the first clips of each class, chosen by class and name."""
    return Viewer(_first_of_each_class(clips, per_class), **_look(clips))


@named
def compare_clips(clips: ClipSet) -> Viewer:
    """Viewer of the first clip of each class side by side, paged and windowed together."""
    return Viewer(_first_of_each_class(clips, 1), together=True, width=720, **_look(clips))


@named
def view_phantom(name: str = "Fibro-cavernous", *, depth: int = PAPER_FRAMES, size: int = PAPER_SIZE) -> Viewer:
    """The typical phantom of one of TB_CLASSES in the paper's window, by default on its grid: slices, pixels."""
    shown = _phantom(name, typical_phantom(name, 2 * size), depth, size)
    return Viewer([shown], hu_window=HU_WINDOW, sides=True, width=560)


@named
def compare_phantoms(*, depth: int = 30, size: int = 112) -> Viewer:
    """A typical phantom of each of TB_CLASSES side by side, the finding outlined; a grid for five to share a page."""
    clips = [_phantom(name, typical_phantom(name), depth, size) for name in TB_CLASSES]
    return Viewer(clips, together=True, hu_window=HU_WINDOW, sides=True, width=720)


def _phantom(name: str, phantom, depth: int, size: int) -> Shown:
    volume = ct.prepare_volume(phantom.hu, depth=depth, size=size, hu_window=HU_WINDOW)
    finding = ct.resample_volume(phantom.finding, depth=depth, size=size) > 0
    frames, overlay = np.rint(255 * volume).astype(np.uint8), Overlay("finding, outlined", finding)
    return Shown(frames, heading=name, note="a simulated chest", overlays=(overlay,), synthetic=True)


def _first_of_each_class(clips: ClipSet, count: int) -> list[Shown]:
    chosen = [i for k in range(len(clips.class_names)) for i in np.flatnonzero(clips.labels == k)[:count]]
    return [
        Shown(clips.clips[i], str(clips.names[i]), clips.class_names[clips.labels[i]], synthetic=clips.synthetic)
        for i in chosen
    ]


def _look(clips: ClipSet) -> dict:
    """How a set wants to be shown, by what it was made from: in its unit, at its rate, in HU, with its sides."""
    made = clips.source
    if "stride" in made:
        return {"unit": "frame", "rate": UCF_FRAME_RATE / made["stride"]}
    if "hu_window" not in made:
        return {"unit": "step"}
    # Phantoms lie as canonical scans do: columns run to the patient's left.
    sides = made.get("set") == "phantom" or made.get("orientation") == "canonical"
    return {"hu_window": made["hu_window"], "sides": sides}


def _caption(view: Sequence[Shown]) -> str:
    if len(view) == 1:
        return view[0].caption
    return f"Side by side: {', '.join(clip.heading for clip in view)}{', synthetic' * view[0].synthetic}"


def _longest(view: Sequence[Shown]) -> int:
    return max(len(clip.frames) for clip in view)


def _start(view: Sequence[Shown]) -> int:
    """Step to begin with: where the findings are largest, each against its own largest slice; else the middle."""
    regions = [overlay.values for clip in view for overlay in clip.overlays if overlay.is_region]
    areas = [region.sum(axis=(1, 2)) for region in regions if region.any() and len(region) == _longest(view)]
    return int(sum(area / area.max() for area in areas).argmax()) if areas else _longest(view) // 2


def _pack(clip: Shown, side: int) -> dict:
    """What the script shows of a clip, reduced to a largest side; a region as an SVG path a step in a box of `size`."""
    overlays = []
    for overlay in clip.overlays:
        if overlay.is_region:
            height, width = overlay.values.shape[1:]
            drawn = {"size": [2 * width, 2 * height], "paths": [outline(region) for region in overlay.values]}
        else:
            drawn = {"frames": [_webp(_coloured(_reduced(values, side))) for values in overlay.values]}
        overlays.append({"name": overlay.name} | drawn)
    return {
        "title": " \N{MIDDLE DOT} ".join(filter(None, (clip.heading, clip.name))),
        "synthetic": clip.synthetic,
        "steps": len(clip.frames),
        "size": clip.frames.shape[:0:-1],
        "frames": [_webp(_reduced(frame, side)) for frame in clip.frames],
        "overlays": overlays,
    }


def outline(region: np.ndarray) -> str:
    """SVG path round a region, bool [h, w], halfway between pixels inside and outside, in half pixels."""
    from contourpy import contour_generator

    path = ""
    for line in contour_generator(z=np.pad(region, 1).astype(np.float32)).lines(0.5):  # nothing is open at the edge
        corners = np.rint(2 * line).astype(int)[:-1] - 1  # half pixels from the corner of the picture
        before, after = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
        corners = corners[(before != after).any(axis=1)]  # points on a straight line say nothing
        moves = " ".join(f"{x} {y}" for x, y in np.diff(corners, axis=0))
        path += f"M{corners[0][0]} {corners[0][1]}l{moves}z"
    return path


def _reduced(picture: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(picture.shape)
    return picture if scale >= 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _coloured(values: np.ndarray) -> np.ndarray:
    """A map, uint8 [h, w], in colours, BGRA: the lower, the more transparent."""
    alpha = np.minimum(2 * values.astype(int), 255).astype(np.uint8)
    return np.dstack([MAP_COLOURS[values], alpha])


def _webp(picture: np.ndarray) -> str:
    encoded = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1]
    return base64.b64encode(encoded.tobytes()).decode()


def _kernel_runs() -> bool:
    """Whether a Jupyter kernel runs this code, so that a widget has someone to talk to."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
