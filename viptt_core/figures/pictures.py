"""What a viewer shows, and how it is packed: all steps of a clip in one picture, outlines of findings as paths."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np

from viptt_core.errors import SettingError

OUTLINE_COLOUR = "#E69F00"  # Okabe and Ito's orange
MAP_COLOURS = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_INFERNO)[0, :, ::-1]  # RGB [256, 3]
BLOCK = 16  # pixels: WebP codes blocks of this size, and no block may hold parts of two steps
# Largest side in pixels, steps kept, WebP quality: the first that stays under a size limit is taken.
LADDER = (
    (256, 80, 80),
    (224, 70, 70),
    (160, 48, 70),
    (128, 32, 65),
    (112, 24, 60),
    (96, 16, 50),
    (64, 12, 50),
    (48, 8, 40),
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
        caption: Says what is shown.
        name: In the list of clips, and over the picture.
        heading: Its class, over the names of the list.
        overlays: What can be laid over it.
        step_mm: Distance of two slices in mm; 0 where it is not known.
        synthetic: Whether it was simulated; the picture then says so.

    Raises:
        SettingError: frames or an overlay of another dtype or shape.
    """

    frames: np.ndarray
    caption: str
    name: str = ""
    heading: str = ""
    overlays: tuple[Overlay, ...] = ()
    step_mm: float = 0.0
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
    def title(self) -> str:
        """What stands over the picture."""
        return " \N{MIDDLE DOT} ".join(part for part in (self.heading, self.name) if part)


def pack_within(clips: list[Shown], most_bytes: int, *, quality: int) -> list[dict]:
    """Pack clips for a page, smaller and with fewer steps where they would take more than `most_bytes`."""
    for side, steps, most_quality in LADDER:
        packed = [pack(clip, side=side, steps=steps, quality=min(quality, most_quality)) for clip in clips]
        if sum(map(_size, packed)) <= most_bytes:
            break
    return packed


def pack(clip: Shown, *, side: int, steps: int, quality: int) -> dict:
    """What the script of a page shows of a clip, JSON-ready.

    Args:
        clip: Frames whose grid is finer than `side` are reduced to it; of more than `steps` some are left out.
        side, steps, quality: See LADDER.

    Returns:
        `sheet`: see `_sheet`; `numbers`: of the steps kept, from 1; `count`: of all steps; `overlays`: either with
        a sheet of their own or with `paths`, an SVG path a step, in a box of `size`.
    """
    count = len(clip.frames)
    kept = np.linspace(0, count - 1, min(count, steps)).round().astype(int)
    overlays = []
    for overlay in clip.overlays:
        values = overlay.values[kept]
        if overlay.is_region:
            height, width = values.shape[1:]
            drawn = {"size": [2 * width, 2 * height], "paths": [path_of(outlines(region)) for region in values]}
        else:
            drawn = {"sheet": _sheet(values, side=side, quality=quality)}
        overlays.append({"name": overlay.name} | drawn)
    return {
        "title": clip.title,
        "caption": clip.caption,
        "synthetic": clip.synthetic,
        "mm": clip.step_mm,
        "count": count,
        "numbers": (kept + 1).tolist(),
        "sheet": _sheet(clip.frames[kept], side=side, quality=quality),
        "overlays": overlays,
    }


def still(clip: Shown, *, side: int = 224, quality: int = 70) -> str:
    """The middle step as WebP in base64, for where no script runs."""
    middle = len(clip.frames) // 2
    return _webp(_reduced(clip.frames[middle : middle + 1], side)[0], quality)


def outlines(region: np.ndarray) -> list[np.ndarray]:
    """Closed lines round a region, bool [h, w]: int [n, 2] each, corners (x, y) in half pixels, the first not repeated.

    Lines run halfway between pixels inside and outside, holes have one of their own.
    """
    from contourpy import contour_generator

    framed = np.pad(region, 1).astype(np.float32)  # nothing is open at the edge
    lines = []
    for line in contour_generator(z=framed).lines(0.5):
        corners = np.rint(2 * line).astype(int)[:-1] - 1  # half pixels from the corner of the picture
        before, after = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
        lines.append(corners[(before != after).any(axis=1)])  # points on a straight line say nothing
    return lines


def path_of(lines: list[np.ndarray]) -> str:
    """Closed lines as an SVG path, each step relative to the last, which is the shortest."""
    path = ""
    for line in lines:
        moves = " ".join(f"{x} {y}" for x, y in np.diff(line, axis=0))
        path += f"M{line[0][0]} {line[0][1]}l{moves}z"
    return path.replace(" -", "-")


def _sheet(frames: np.ndarray, *, side: int, quality: int) -> dict:
    """All steps in one picture, row after row: `columns` of them a row, each `size` within a `tile`, pixels (w, h)."""
    frames = _reduced(frames, side)
    count, height, width = frames.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    frames = np.pad(frames, ((0, 0), (0, -height % BLOCK), (0, -width % BLOCK)), mode="edge")
    frames = np.concatenate([frames, np.zeros((rows * columns - count, *frames.shape[1:]), np.uint8)])
    tall, wide = frames.shape[1:]
    picture = frames.reshape(rows, columns, tall, wide).swapaxes(1, 2).reshape(rows * tall, columns * wide)
    return {"size": [width, height], "tile": [wide, tall], "columns": columns, "picture": _webp(picture, quality)}


def _reduced(frames: np.ndarray, side: int) -> np.ndarray:
    """Reduced to a largest side."""
    largest = max(frames.shape[1:])
    if largest <= side:
        return frames
    height, width = (max(round(n * side / largest), 1) for n in frames.shape[1:])
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])


def _webp(picture: np.ndarray, quality: int) -> str:
    encoded = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return base64.b64encode(encoded.tobytes()).decode()


def _size(packed: dict) -> int:
    """Characters that pictures and paths take in a page."""
    drawn = [packed, *packed["overlays"]]
    return sum(len(part["sheet"]["picture"]) if "sheet" in part else sum(map(len, part["paths"])) for part in drawn)
