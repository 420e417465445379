"""Viewer that pages through volumes and clips: a picture that a script in the page brings to life.

It is whole in itself: no kernel, no network. Window and level work on the 8-bit picture: HU outside the window a clip
was read through are gone, and a narrow window spreads few grey levels, and with them what compression changed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from viptt_core import ct
from viptt_core.clips import ClipSet
from viptt_core.constants import CT_WINDOWS, HU_WINDOW, PAPER_FRAMES, PAPER_SIZE, TB_CLASSES, UCF_FRAME_RATE
from viptt_core.errors import SettingError
from viptt_core.figures import Photograph, draw_slice, first_of_each_class, new_axes, styled
from viptt_core.figures.data import typical_phantom

SLICES_A_SECOND = 12  # played
WIDTHS = {"together": 720, "alone": 420}  # at most, CSS pixels
MOST_BYTES = 700_000  # of the pictures of one viewer, above it they become smaller: 70 slices of 224 x 224 fit
LARGEST, SMALLEST = 256, 48  # sides of a packed picture, in pixels
QUALITY = 70  # of WebP
SCRIPT, STYLE_SHEET = (Path(__file__).with_name(f"viewer.{kind}").read_text("utf-8") for kind in ("js", "css"))


@dataclass(frozen=True)
class Shown:
    """One clip to page through; a SettingError for frames or an overlay of another dtype or shape."""

    frames: np.ndarray  #: uint8 [T, H, W], grey levels 0..255
    name: str = ""  #: in the list of clips, and over the picture
    heading: str = ""  #: its class, over the names of the list
    note: str = ""  #: more to say in the caption
    #: Regions by name whose outline can be laid over it, bool [T, h, w], on a grid of its own that covers the same
    #: field of view.
    overlays: Mapping[str, np.ndarray] = field(default_factory=dict)
    synthetic: bool = False  #: whether it was simulated; the picture then says so

    def __post_init__(self) -> None:
        if self.frames.ndim != 3 or self.frames.dtype != np.uint8 or not len(self.frames):
            raise SettingError(f"frames are {self.frames.dtype} {self.frames.shape}.", remedy="Give uint8 [T, H, W].")
        for name, values in self.overlays.items():
            if values.ndim != 3 or len(values) != len(self.frames) or values.dtype != bool:
                what = f"overlay '{name}' is {values.dtype} {values.shape}, the clip {self.frames.shape}."
                raise SettingError(what, remedy="Give bool [T, h, w], one for each frame.")

    @property
    def caption(self) -> str:
        """Says what is shown; the text alternative, too."""
        return ", ".join(filter(None, (self.heading, self.name, self.note, "synthetic" * self.synthetic)))


@dataclass(frozen=True)
class Look:
    """How clips are shown."""

    unit: str = "slice"  #: or "frame", or "step"
    rate: float = SLICES_A_SECOND  #: steps a second when played
    hu_window: tuple[float, float] | None = None  #: what grey levels 0 and 255 stand for, in HU, where the clips are CT
    sides: bool = False  #: the patient's right is on the left of the picture, which then says so


FINDING = "finding, outlined"  # name of an overlay
PHANTOM_LOOK = Look(hu_window=HU_WINDOW, sides=True)


class Viewer(Photograph):
    """Page through volumes or clips: keys, wheel, touch, slider, play; window and level; overlays.

    Where no script runs, it is a picture of the first clip.

    Args:
        clips: At least one.
        look: How they are shown.
        together: Show all clips side by side, with one slider; else one, and a list to choose from.
        data: Committed files the clips are from, paths from the artifact's root.

    Raises:
        SettingError: no clip.
    """

    def __init__(self, clips: Sequence[Shown], look: Look, *, together: bool = False, data: Sequence[str] = ()) -> None:
        if not clips:
            raise SettingError("there is no clip to show.", remedy="Give at least one.")
        self.clips, self.look, self.width = list(clips), look, WIDTHS["together" if together else "alone"]
        self.views = [self.clips] if together else [[clip] for clip in clips]
        figure, alt = _still(self.views[0], look)
        super().__init__(figure, alt, synthetic=any(clip.synthetic for clip in self.views[0]), data=data)

    def page(self) -> str:
        """A piece of HTML that is whole in itself."""
        content = json.dumps(self.content(), separators=(",", ":"))
        content = content.replace("<", "\\u003c")  # no caption ends the script
        return (
            f'<style>{STYLE_SHEET}</style><div class="viptt-viewer">{super().page()}<script>{SCRIPT}'
            f"vipttViewer(document.currentScript.parentElement, {content});</script></div>"
        )

    def content(self) -> dict:
        """What the script shows, JSON-ready."""
        side, packed = LARGEST, []
        while not packed or side > SMALLEST and len(json.dumps(packed)) > MOST_BYTES:
            packed = [[_pack(clip, side) for clip in view] for view in self.views]
            side = side * 3 // 4
        views = [
            {"heading": view[0].heading, "caption": _caption(view), "start": _start(view), "clips": clips}
            for view, clips in zip(self.views, packed, strict=True)
        ]
        hu = self.look.hu_window
        return {
            "views": views,
            "unit": self.look.unit,
            "rate": round(self.look.rate, 1),
            "hu": hu and [float(end) for end in hu],
            "sides": self.look.sides,
            "width": self.width,
            "presets": [(name, *window) for name, window in CT_WINDOWS.items()] if hu else [],
        }


@styled
def browse_clips(clips: ClipSet, *, per_class: int = 2) -> Viewer:
    """Viewer of the first clips of each class, chosen by class and name."""
    return Viewer(_first_of_each_class(clips, per_class), _look(clips))


@styled
def compare_clips(clips: ClipSet) -> Viewer:
    """Viewer of the first clip of each class side by side, paged and windowed together."""
    return Viewer(_first_of_each_class(clips, 1), _look(clips), together=True)


@styled
def view_phantom(name: str = "Fibro-cavernous", *, depth: int = PAPER_FRAMES, size: int = PAPER_SIZE) -> Viewer:
    """The typical phantom of one of TB_CLASSES in the paper's window, by default on its grid: slices, pixels."""
    return Viewer([_phantom(name, typical_phantom(name, 2 * size), depth, size)], PHANTOM_LOOK)


@styled
def compare_phantoms(*, depth: int = 30, size: int = 112) -> Viewer:
    """A typical phantom of each of TB_CLASSES side by side, the finding outlined; a grid for five to share a page."""
    clips = [_phantom(name, typical_phantom(name), depth, size) for name in TB_CLASSES]
    return Viewer(clips, PHANTOM_LOOK, together=True)


def _phantom(name: str, phantom, depth: int, size: int) -> Shown:
    volume = ct.prepare_volume(phantom.hu, depth=depth, size=size, hu_window=HU_WINDOW)
    overlays = {FINDING: ct.resample_volume(phantom.finding, depth=depth, size=size) > 0}
    frames = np.rint(255 * volume).astype(np.uint8)
    return Shown(frames, heading=name, note="a simulated chest", overlays=overlays, synthetic=True)


def _first_of_each_class(clips: ClipSet, count: int) -> list[Shown]:
    return [
        Shown(clips.clips[i], str(clips.names[i]), clips.class_names[clips.labels[i]], synthetic=clips.synthetic)
        for i in first_of_each_class(clips, count)
    ]


def _look(clips: ClipSet) -> Look:
    """How a set wants to be shown, by what it was made from: in its unit, at its rate, in HU, with its sides."""
    made = clips.source
    if "stride" in made:
        return Look("frame", UCF_FRAME_RATE / made["stride"])
    if "hu_window" not in made:
        return Look("step")
    # Phantoms lie as canonical scans do: columns run to the patient's left.
    sides = made.get("set") == "phantom" or made.get("orientation") == "canonical"
    return Look(hu_window=made["hu_window"], sides=sides)


def _still(view: Sequence[Shown], look: Look) -> tuple[Figure, str]:
    """What a reader sees first, for where no script runs, and what it shows in words."""
    start, last = _start(view), _longest(view) - 1
    figure, axes = new_axes(1, len(view), size=(2.4 * len(view), 2.7))
    for axis, clip in zip(axes[0], view, strict=True):
        step = round(start * (len(clip.frames) - 1) / max(last, 1))
        finding = next((region[step] for region in clip.overlays.values()), None)
        draw_slice(axis, clip.frames[step], finding, sides=look.sides)
        axis.set_title(clip.heading, fontsize=9, loc="center")
    figure.tight_layout()
    return figure, f"{_caption(view)}: {look.unit} {start + 1} of {last + 1}."


def _caption(view: Sequence[Shown]) -> str:
    if len(view) == 1:
        return view[0].caption
    return f"Side by side: {', '.join(clip.heading for clip in view)}{', synthetic' * view[0].synthetic}"


def _longest(view: Sequence[Shown]) -> int:
    return max(len(clip.frames) for clip in view)


def _start(view: Sequence[Shown]) -> int:
    """Step to begin with: where the findings are largest, each against its own largest slice; else the middle."""
    areas = [
        region.sum(axis=(1, 2))
        for clip in view
        for region in clip.overlays.values()
        if region.any() and len(region) == _longest(view)
    ]
    return int(sum(area / area.max() for area in areas).argmax()) if areas else _longest(view) // 2


def _pack(clip: Shown, side: int) -> dict:
    """What the script shows of a clip, reduced to a largest side; a region as an SVG path a step in a box of `size`."""
    overlays = [
        {"name": name, "size": [2 * n for n in region.shape[:0:-1]], "paths": [outline(plane) for plane in region]}
        for name, region in clip.overlays.items()
    ]
    scale = side / max(clip.frames.shape[1:])
    reduced = {"dsize": None, "fx": scale, "fy": scale, "interpolation": cv2.INTER_AREA}
    frames = [cv2.resize(frame, **reduced) for frame in clip.frames] if scale < 1 else clip.frames
    return {
        "title": " \N{MIDDLE DOT} ".join(filter(None, (clip.heading, clip.name))),
        "synthetic": clip.synthetic,
        "steps": len(clip.frames),
        "size": clip.frames.shape[:0:-1],
        "frames": [webp(frame, QUALITY) for frame in frames],
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


def webp(picture: np.ndarray, quality: int) -> str:
    """A grey picture, uint8 [h, w], as WebP in base64; quality is 1 to 100."""
    encoded = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return base64.b64encode(encoded.tobytes()).decode()
