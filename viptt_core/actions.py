"""Synthetic human-activity videos: an articulated figure does the ten UCF activities.

`choreography` says how figure and props move; this module draws the groups (actor, place, light, camera),
paints the scrolling background, films the scene and writes the clips as a UCF50-like folder. As in UCF50 the
clips of a group share everything but phase, start, distance and camera shake. Nobody was recorded.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from viptt_core import choreography as moves
from viptt_core.constants import UCF_CLASSES, UCF_FRAME_RATE, UCF_FRAME_SIZE, UCF_GROUPS
from viptt_core.errors import DataError, SettingError

VERSION = "1"  # of the generator: raise it whenever the output changes

# --- How hard the task is -------------------------------------------------------------------------------
NOISE_LEVEL = 5.0  # grey levels, standard deviation of the noise in a frame, at any frame size
BACKGROUND_CONTRAST = 1.0  # 1 as painted, 0 flat
PROP_VISIBILITY = (0.35, 1.0)  # range over groups; at 0 a prop has the colour of the ground
AMPLITUDE = (0.75, 1.15)  # range over groups, size of the movements
TEMPO = (0.8, 1.25)  # range over groups, times the action's own rate
VIEW_SPREAD = 1.0  # 0: each action from its usual side only, 1: the widest choice of views
CAMERA_SHAKE = 1.0  # 0: tripod
DRIFT = 1.0  # how far the figure may stand or wander from the middle of the picture

# --- The painter's box: RGB, 0..255 ---------------------------------------------------------------------
SKIN = ((236, 194, 164), (213, 164, 128), (172, 120, 84), (122, 80, 56), (92, 60, 44))
HAIR = ((38, 28, 24), (70, 46, 30), (120, 84, 48), (178, 146, 96), (96, 92, 90))
SURFACES = {"grass": (96, 128, 62), "sand": (196, 172, 128), "asphalt": (122, 122, 124),
            "clay": (168, 104, 74), "floor": (164, 126, 88), "water": (70, 112, 138)}  # fmt: skip
BACKDROPS = {  # colour at the top, at the horizon, of the ridge; height and roughness of the ridge; boxes
    "trees": ((150, 184, 216), (206, 218, 224), (58, 84, 44), 0.20, 1.0, 0),
    "hills": ((128, 170, 214), (214, 222, 226), (104, 122, 104), 0.16, 0.25, 0),
    "town": ((168, 186, 204), (214, 214, 210), (92, 98, 78), 0.05, 0.8, 9),
    "sea": ((120, 168, 216), (214, 226, 232), (74, 116, 146), 0.07, 0.0, 0),
    "wall": ((206, 198, 180), (182, 172, 152), (120, 100, 80), 0.02, 0.0, 9),
}  # fmt: skip
OUTSIDE, FIRM = ("trees", "hills", "town", "sea"), ("floor", "asphalt", "grass", "sand")
# Move; rate (Hz); usual headings (degrees; 0: to the right, -90: to the camera) and their spread; height of
# the figure and of the ground, from the top, in picture heights; surfaces; backdrops (shared by most classes).
ACTIONS: dict[str, tuple[Callable, float, tuple, float, float, float, tuple, tuple]] = {
    "Mixing": (moves.mixing, 1.5, (-90,), 28, 1.22, 1.30, ("floor", "grass", "clay"), ("wall", *OUTSIDE[:3])),
    "TennisSwing": (moves.tennis_swing, 0.55, (0, 180, -90, 90), 40, 0.64, 0.89, ("clay", *FIRM[:3]), ("wall", *OUTSIDE)),
    "HorseRiding": (moves.horse_riding, 1.5, (0, 180), 38, 0.51, 0.88, ("grass", "sand", "clay"), OUTSIDE),
    "JumpRope": (moves.jump_rope, 1.8, (-90, -60, -130, 0), 30, 0.66, 0.90, FIRM, ("wall", *OUTSIDE)),
    "JumpingJack": (moves.jumping_jack, 1.05, (-90, -70, 90), 30, 0.64, 0.91, FIRM, ("wall", *OUTSIDE)),
    "BaseballPitch": (moves.baseball_pitch, 0.45, (0, 180, -90, 60), 30, 0.64, 0.89, ("grass", "clay", "sand"), OUTSIDE),
    "Rowing": (moves.rowing, 0.75, (0, 180), 28, 0.76, 0.77, ("water", "water", "water", "floor"), OUTSIDE),
    "SkateBoarding": (moves.skateboarding, 0.42, (-90, 90), 35, 0.62, 0.90, ("asphalt", "floor", "clay"), ("wall", *OUTSIDE)),
    "WalkingWithDog": (moves.walking_with_dog, 0.95, (0, 180), 50, 0.62, 0.90, ("grass", "asphalt", "sand"), OUTSIDE),
    "Skijet": (moves.skijet, 0.9, (0, 180), 45, 0.64, 0.78, ("water",), OUTSIDE),
}  # fmt: skip

CIRCLE = moves.ring(14)[:, :2]
FIXED_POINT = 4  # fractional bits of OpenCV's drawing coordinates
ASPECT = UCF_FRAME_SIZE[1] / UCF_FRAME_SIZE[0]  # the scene is ASPECT wide and 1 high at any frame size
MARGIN, PERIOD = 0.10, 2.5  # background beyond the picture's edges; picture widths after which it repeats
SMALL = 112  # pixels; smaller pictures are drawn larger and averaged, or thin limbs would swell to whole pixels


# --- Group and clip: everything random is drawn here, from two separate streams -----------------
@functools.lru_cache(maxsize=8)
def _group_look(seed: int, label: int, group: int) -> SimpleNamespace:
    """Actor, place, light and camera of a group, with the painted background (reference size)."""
    rng = np.random.default_rng([seed, 1, label, group])
    move, rate, headings, spread, size, ground_row, surfaces, backdrops = ACTIONS[UCF_CLASSES[label]]

    def tone(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high) * 0.4 + rng.uniform(low, high, 3) * 0.6

    cast = rng.uniform(0.72, 1.12) * np.array((1 + rng.uniform(-0.06, 0.08), 1.0, 1 + rng.uniform(-0.08, 0.06)))
    look = SimpleNamespace(
        move=move, hertz=rate * rng.uniform(*TEMPO), amplitude=rng.uniform(*AMPLITUDE), variant=rng.uniform(),
        heading=np.deg2rad(headings[rng.integers(len(headings))] + VIEW_SPREAD * rng.uniform(-spread, spread)),
        tilt=np.deg2rad(rng.uniform(3, 14)), size=size * rng.uniform(0.88, 1.08), ground_row=ground_row,
        side=rng.choice((-1, 1)), surface=surfaces[rng.integers(len(surfaces))], cast=cast,
        backdrop=backdrops[rng.integers(len(backdrops))], horizon=rng.uniform(0.36, 0.56), cap=rng.uniform() < 0.4,
        leg=rng.uniform(0.95, 1.06), arm=rng.uniform(0.95, 1.07), shoulder=rng.uniform(0.9, 1.12),
        bulk=rng.uniform(0.88, 1.22), skin=np.array(SKIN[rng.integers(len(SKIN))]), hair=np.array(HAIR[rng.integers(len(HAIR))]),
        shirt=tone(40, 240), trousers=tone(25, 170), shoes=tone(30, 235), gear=tone(60, 235),
        visibility=rng.uniform(*PROP_VISIBILITY), sparks=rng.uniform((-1, 0, 0), (1, 1, 1), (44, 3)))
    look.forearm = look.skin if rng.uniform() < 0.7 else look.shirt
    look.shank = look.skin if rng.uniform() < 0.35 else look.trousers
    look.horizon += 0.16 * (look.backdrop == "wall")
    look.ground = np.array(SURFACES[look.surface], float) + rng.uniform(-14, 14, 3)
    look.canvas, look.horizon_row = _paint(look, rng)
    return look


def _fractal(rng, rows: int, columns: int, *, cells: int, stretch: float = 1.0) -> np.ndarray:
    """Smooth noise [rows, columns], about -1..1, periodic along the columns."""
    total = np.zeros((rows, columns), np.float32)
    for octave in range(4):
        across = cells * 2**octave
        down = max(int(across * rows / columns * stretch), 2)
        coarse = rng.uniform(-1, 1, (down, across)).astype(np.float32)
        coarse = np.concatenate([coarse[:, -2:], coarse, coarse[:, :2]], 1)
        pad = round(2 * columns / across)
        fine = cv2.resize(coarse, (columns + 2 * pad, rows), interpolation=cv2.INTER_CUBIC)
        total += fine[:, pad : pad + columns] / 2**octave
    return total


def _paint(look: SimpleNamespace, rng) -> tuple[np.ndarray, int]:
    """Periodic background [rows, columns, 3] uint8 for 240-row pictures, and the row of the horizon."""
    height, width = UCF_FRAME_SIZE
    rows, columns, split = round(height * (1 + 2 * MARGIN)), round(width * PERIOD), round(height * (look.horizon + MARGIN))
    top, low, ridge, level, rough, boxes = BACKDROPS[look.backdrop]
    canvas = np.empty((rows, columns, 3), np.float32)
    ramp = np.linspace(0, 1, split)[:, None, None]
    clouds = _fractal(rng, split, columns, cells=5, stretch=3)[..., None]
    canvas[:split] = (1 - ramp) * top + ramp * np.array(low) + 9 * clouds * (look.backdrop != "wall")
    row = np.arange(rows)[:, None]
    for layer in (1.5, 1.0):  # a paler, higher ridge behind a darker one
        profile = 0.4 * _fractal(rng, 2, columns, cells=7)[0] + 0.22 * rough * _fractal(rng, 2, columns, cells=50)[0]
        profile = level * height * layer * (1 + (profile if rough else 0))
        leaf = 26 * rough * _fractal(rng, rows, columns, cells=60, stretch=1.2)[..., None]
        colour = np.array(ridge) + (layer > 1) * 26.0 + rng.uniform(-14, 14, 3)
        canvas = np.where((row > split - profile)[..., None], colour + leaf, canvas)
    for _ in range(boxes):  # houses with windows, or pictures and shelves on a wall
        indoors = look.backdrop == "wall"
        w, h = rng.integers(40, 120), rng.integers(30, 60) if indoors else rng.integers(40, 110)
        x, y = rng.integers(0, columns - w), split - (rng.integers(h + 15, h + 50) if indoors else h)
        colour = rng.uniform(80, 215) + rng.uniform(-22, 22, 3)
        canvas[max(y, 0) : y + h, x : x + w] = colour
        if indoors:
            canvas[max(y, 0) + 5 : y + h - 5, x + 5 : x + w - 5] = colour * 0.6 + rng.uniform(0, 90)
            continue
        for wy, wx in itertools.product(range(max(y, 0) + 6, y + h - 10, 18), range(x + 6, x + w - 8, 16)):
            canvas[wy : wy + 9, wx : wx + 8] = colour * rng.uniform(0.45, 0.8)
    depth = np.linspace(0, 1, rows - split)
    flat = _fractal(rng, 256, columns, cells=40, stretch=2.2)
    nearby = flat[np.minimum(255 * depth**0.6, 255).astype(int)]  # texture is finer towards the horizon
    strength = {"water": 22, "floor": 5, "asphalt": 8}.get(look.surface, 15)
    ground = np.broadcast_to(look.ground, nearby.shape + (3,)) + strength * nearby[..., None]
    if look.surface in ("floor", "asphalt", "clay"):
        seams = np.isin(np.arange(len(depth)), (len(depth) * np.array((0.08, 0.2, 0.38, 0.62, 0.93))).astype(int))
        ground = ground + seams[:, None, None] * (24 if look.surface != "floor" else -22)
    canvas[split:] = ground * (0.86 + 0.2 * depth[:, None, None])
    light = 1 + 0.14 * np.sin(np.arange(columns) * 2 * np.pi / columns + rng.uniform(0, 6))[:, None]
    mean = canvas.mean((0, 1))
    canvas = (mean + BACKGROUND_CONTRAST * (canvas - mean)) * light * look.cast
    return np.clip(canvas, 0, 255).astype(np.uint8), split


@functools.lru_cache(maxsize=4)
def _noise(height: int, width: int) -> np.ndarray:
    """Tile of sensor noise around 128, standard deviation 32; every frame takes its own part."""
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(128, 32, (height + 61, width + 67, 3)), 0, 255).astype(np.uint8)


def _check(name: str, value, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low or (high and value > high):
        allowed = f"an integer from {low} to {high}" if high else f"an integer of at least {low}"
        raise SettingError(f"{name} is {value!r}.", remedy=f"Use {allowed}.")


def clip_name(label: int, group: int, clip: int) -> str:
    """UCF50's name of a clip, without the file ending: `v_Mixing_g01_c01`."""
    _check("label", label, 0, len(UCF_CLASSES) - 1)
    _check("group", group, 1, UCF_GROUPS)
    _check("clip", clip, 1, 99)
    return f"v_{UCF_CLASSES[label]}_g{group:02d}_c{clip:02d}"


def make_clip(label: int, group: int, clip: int, *, seed: int = 0, frames: int = 70, stride: int = 1,
              shape: tuple[int, int] = UCF_FRAME_SIZE) -> np.ndarray:  # fmt: skip
    """Render one clip; the same arguments always give the same pixels.

    Args:
        label: index into `UCF_CLASSES`.
        group: 1..25; clips of a group share actor, place, light and camera.
        clip: 1..99; clips of a group differ in phase, tempo, distance and camera shake.
        seed: of the whole data set, 0 or more.
        frames: number of frames to render.
        stride: frame `k` shows the scene at `k * stride / UCF_FRAME_RATE` seconds.
        shape: height and width in pixels, at least (24, 32). The scene is 4:3 and is squeezed to fit.

    Returns:
        RGB frames, uint8 [frames, height, width, 3].

    Raises:
        SettingError: an argument is out of its range.
    """
    clip_name(label, group, clip)
    for name, value, low in (("seed", seed, 0), ("frames", frames, 1), ("stride", stride, 1),
                             ("shape[0]", shape[0], 24), ("shape[1]", shape[1], 32)):  # fmt: skip
        _check(name, value, low)
    look = _group_look(seed, label, group)
    rng = np.random.default_rng([seed, 2, label, group, clip])
    index = np.arange(frames) * stride
    time = index / UCF_FRAME_RATE
    wobble = [sum(a * np.sin(time * w + p) for a, w, p in zip((1, 0.5, 0.25), rng.uniform((0.5, 1.6, 7), (1.2, 3.2, 11)),
              rng.uniform(0, 6.3, 3), strict=True)) for _ in range(4)]  # fmt: skip
    scene = moves.Scene(look, time * look.hertz * rng.uniform(0.94, 1.06) + rng.uniform())
    velocity = look.move(scene, look)

    # Small pictures are drawn larger and averaged, or thin limbs would swell to whole pixels.
    enlarge = -(-SMALL // min(shape))
    height, width = shape[0] * enlarge, shape[1] * enlarge
    zoom = look.size * rng.uniform(0.93, 1.07)
    speed = zoom * (velocity[0] * np.cos(look.heading) - look.side * velocity[1] * np.sin(look.heading))
    start = rng.uniform(0, PERIOD)
    pan, nod = CAMERA_SHAKE * 0.05 * wobble[0], CAMERA_SHAKE * 0.012 * wobble[1]
    middle = ASPECT / 2 + DRIFT * (0.07 * wobble[2] + rng.uniform(-0.1, 0.1))
    centre = np.stack([middle + pan, look.ground_row + nod + 0.008 * wobble[3]], -1)
    drawing = _project(scene, zoom, centre, height, width)
    canvas = cv2.resize(look.canvas, (round(PERIOD * width), round((1 + 2 * MARGIN) * height)), interpolation=cv2.INTER_AREA)
    canvas = np.concatenate([canvas, canvas[:, : width + 1]], 1)
    split, period = round(look.horizon_row * canvas.shape[0] / look.canvas.shape[0]), round(PERIOD * width)
    near = np.round((start * ASPECT + time * speed - pan) / ASPECT * width).astype(int) % period
    far = np.round((start * ASPECT + time * speed * 0.4 - pan) / ASPECT * width).astype(int) % period
    glint = np.round((time * (speed + 0.05) - pan + 1.1) / ASPECT * width).astype(int) % period
    first = np.round((MARGIN - nod) * height).astype(int)
    gain = (1 + 0.03 * wobble[3]).tolist()
    out = np.empty((frames, *shape, 3), np.uint8)
    tile = _noise(*shape)
    offset = (index[:, None] * (7, 13) + rng.integers(0, 60, 2)) % (61, 67)
    frame = np.empty((height, width, 3), np.uint8)
    for k in range(frames):
        cut = int(np.clip(split - first[k], 0, height))
        frame[:cut] = canvas[first[k] : first[k] + cut, far[k] : far[k] + width]
        floor = canvas[first[k] + cut : first[k] + height, near[k] : near[k] + width]
        if look.surface == "water":  # two sheets sliding over one another glitter
            floor = cv2.addWeighted(floor, 0.6, canvas[first[k] + cut : first[k] + height, glint[k] : glint[k] + width], 0.4, 0)
        frame[cut:] = floor
        _draw(frame, drawing, k)
        small = frame if enlarge == 1 else cv2.resize(frame, shape[::-1], interpolation=cv2.INTER_AREA)
        y, x = offset[k]
        noise = tile[y : y + shape[0], x : x + shape[1]]
        cv2.addWeighted(small, gain[k], noise, NOISE_LEVEL / 32, -4 * NOISE_LEVEL, dst=out[k])
    return out


def _project(scene: moves.Scene, zoom: float, centre: np.ndarray, height: int, width: int) -> SimpleNamespace:
    """Camera: outlines of all pieces in fixed-point pixels, and for each frame their order from back to front."""
    look, pieces = scene.look, scene.pieces
    points = np.concatenate([p.points for p in pieces], 1)
    x, y, z = points[..., 0], points[..., 1] * look.side, points[..., 2]
    x, z = x - scene.pitch[:, None] * z, z + scene.pitch[:, None] * x + scene.bob[:, None]
    turn = look.heading + scene.yaw[:, None]
    right, away = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    scale = np.array((width / ASPECT, height))
    near = 1 / (1 + 0.10 * away)  # mild perspective

    def screen(right, up):
        return (centre[:, None] + zoom * np.stack([right, -up], -1) * near[..., None]) * scale

    spots = screen(right, z * np.cos(look.tilt) + away * np.sin(look.tilt))
    shade = screen(right + 0.35 * z, away * np.sin(look.tilt) + 0.10 * z)
    depth = away * np.cos(look.tilt) - z * np.sin(look.tilt)
    radius = (zoom * near * np.concatenate([p.radii for p in pieces]))[..., None, None] * CIRCLE * scale
    edges = np.cumsum([0] + [p.points.shape[1] for p in pieces])
    fixed = lambda a: np.round(a * 2**FIXED_POINT).astype(np.int32).reshape(len(a), -1, 2)  # noqa: E731
    sun = np.array((-0.3, -0.35)) * np.abs(radius).max(-2)
    light = look.cast[None] * np.ones((len(pieces), 1))
    drawing = []
    for p, a, b in zip(pieces, edges, edges[1:], strict=False):
        ring = radius[:, a:b] if p.radii.any() else 0
        base = spots[:, a:b, None]
        colour = np.clip(p.colour * light[0], 0, 255)
        drawing.append(SimpleNamespace(
            line=max(round(p.line * zoom * height), 1) if p.line else 0,
            outline=fixed(spots[:, a:b]) if p.line else fixed(base + ring),
            bright=None if p.flat else fixed(base + 0.55 * ring + sun[:, a:b, None]),
            shadow=None if p.flat else fixed(shade[:, a:b, None] + ring * (1, 0.5)),
            dark=tuple((colour * (1 if p.flat else 0.80)).tolist()), light=tuple(np.clip(colour * 1.1, 0, 255).tolist())))
    order = np.stack([depth[:, a:b].mean(1) - p.nudge for p, a, b in zip(pieces, edges, edges[1:], strict=False)], 1)
    return SimpleNamespace(parts=drawing, order=np.argsort(-order, 1).tolist(), water=look.surface == "water")


def _draw(frame: np.ndarray, drawing: SimpleNamespace, k: int) -> None:
    """Paint shadows and pieces of frame `k` into `frame`, in place."""
    mask = np.zeros(frame.shape[:2], np.uint8)
    for part in drawing.parts:
        if part.shadow is not None:
            cv2.fillConvexPoly(mask, cv2.convexHull(part.shadow[k]), 255, cv2.LINE_8, FIXED_POINT)
    cv2.copyTo(cv2.convertScaleAbs(frame, alpha=0.68 if not drawing.water else 0.8), mask, frame)
    for j in drawing.order[k]:
        part = drawing.parts[j]
        if part.line:
            cv2.polylines(frame, [part.outline[k]], False, part.dark, part.line, cv2.LINE_AA, FIXED_POINT)
            continue
        cv2.fillConvexPoly(frame, cv2.convexHull(part.outline[k]), part.dark, cv2.LINE_AA, FIXED_POINT)
        if part.bright is not None:
            cv2.fillConvexPoly(frame, cv2.convexHull(part.bright[k]), part.light, cv2.LINE_AA, FIXED_POINT)
