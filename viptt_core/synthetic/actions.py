"""Synthetic human-activity videos: an articulated figure does the ten UCF activities.

`choreography` says how figure and props move; this module draws the groups (actor, place, light, camera),
paints the scrolling background and films the scene. Nobody was recorded.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from types import SimpleNamespace

import cv2
import numpy as np

from viptt_core.constants import UCF_CLASSES, UCF_FRAME_RATE, UCF_FRAME_SIZE, UCF_GROUPS
from viptt_core.errors import check_counts
from viptt_core.synthetic import choreography as moves

VERSION = "1"  # of the generator: raise it whenever the output changes

# --- How hard the task is -------------------------------------------------------------------------------
NOISE_LEVEL = 5.0  # grey levels, standard deviation of the noise in a frame, at any frame size
BACKGROUND_CONTRAST = 1.0  # 1 as painted, 0 flat
PROP_VISIBILITY = (0.35, 1.0)  # range over groups; at 0 a prop has the colour of the ground
AMPLITUDE = (0.75, 1.15)  # range over groups, size of the movements
TEMPO = (0.8, 1.25)  # range over groups, times the action's own rate

# --- The painter's box: RGB, 0..255 ---------------------------------------------------------------------
SKIN = ((236, 194, 164), (213, 164, 128), (172, 120, 84), (122, 80, 56), (92, 60, 44))
HAIR = ((38, 28, 24), (70, 46, 30), (120, 84, 48), (178, 146, 96), (96, 92, 90))
SURFACES = {
    "grass": (96, 128, 62),
    "sand": (196, 172, 128),
    "asphalt": (122, 122, 124),
    "clay": (168, 104, 74),
    "floor": (164, 126, 88),
    "water": (70, 112, 138),
}
BACKDROPS = {  # colour at the top, at the horizon, of the ridge; height and roughness of the ridge; boxes
    "trees": ((150, 184, 216), (206, 218, 224), (58, 84, 44), 0.20, 1.0, 0),
    "hills": ((128, 170, 214), (214, 222, 226), (104, 122, 104), 0.16, 0.25, 0),
    "town": ((168, 186, 204), (214, 214, 210), (92, 98, 78), 0.05, 0.8, 9),
    "sea": ((120, 168, 216), (214, 226, 232), (74, 116, 146), 0.07, 0.0, 0),
    "wall": ((206, 198, 180), (182, 172, 152), (120, 100, 80), 0.02, 0.0, 9),
}
OUTSIDE, ANYWHERE = ("trees", "hills", "town", "sea"), ("wall", "trees", "hills", "town", "sea")
SOFT, FIRM = ("grass", "sand", "clay"), ("floor", "asphalt", "grass", "clay")
# Move; rate (Hz); usual headings (degrees; 0: to the right, -90: to the camera), their spread; height of the
# figure and row of the ground in picture heights; surfaces and backdrops, most shared by many classes.
ACTIONS: dict[str, tuple[Callable, float, tuple, float, float, float, tuple, tuple]] = {
    "Mixing": (moves.mixing, 1.5, (-90,), 28, 1.22, 1.30, ("floor", "grass", "clay"), ("wall", *OUTSIDE[:3])),
    "TennisSwing": (moves.tennis_swing, 0.55, (0, 180, -90, 90), 40, 0.64, 0.89, FIRM, ANYWHERE),
    "HorseRiding": (moves.horse_riding, 1.5, (0, 180), 38, 0.51, 0.88, SOFT, OUTSIDE),
    "JumpRope": (moves.jump_rope, 1.8, (-90, -60, -130, 0), 30, 0.66, 0.90, FIRM, ANYWHERE),
    "JumpingJack": (moves.jumping_jack, 1.05, (-90, -70, 90), 30, 0.64, 0.91, FIRM, ANYWHERE),
    "BaseballPitch": (moves.baseball_pitch, 0.45, (0, 180, -90), 30, 0.64, 0.89, SOFT, OUTSIDE),
    "Rowing": (moves.rowing, 0.75, (0, 180), 28, 0.76, 0.77, ("water", "water", "water", "floor"), OUTSIDE),
    "SkateBoarding": (moves.skateboarding, 0.42, (-90, 90), 35, 0.62, 0.90, ("asphalt", "floor"), ANYWHERE),
    "WalkingWithDog": (moves.walking_with_dog, 0.95, (0, 180), 50, 0.62, 0.90, (*FIRM[1:], "sand"), OUTSIDE),
    "Skijet": (moves.skijet, 0.9, (0, 180), 45, 0.64, 0.78, ("water",), OUTSIDE),
}

CIRCLE = moves.ring(14)[:, :2]
FIXED_POINT = 4  # fractional bits of OpenCV's drawing coordinates
ASPECT = UCF_FRAME_SIZE[1] / UCF_FRAME_SIZE[0]  # the scene is ASPECT wide and 1 high at any frame size
MARGIN, PERIOD = 0.10, 2.5  # background beyond the picture's edges; picture widths after which it repeats
SMALL = 112  # pixels; smaller pictures are drawn larger and averaged, or thin limbs would swell to a pixel


# --- A group: actor, place, light and camera --------------------------------------------------------------
@functools.lru_cache(maxsize=8)
def _group_look(seed: int, label: int, group: int) -> SimpleNamespace:
    """All that the clips of a group share, with the painted background (at the reference size)."""
    rng = np.random.default_rng([seed, 1, label, group])
    move, rate, headings, spread, size, row, surfaces, backdrops = ACTIONS[UCF_CLASSES[label]]
    muted = 0.4 * rng.uniform(size=(4, 1)) + 0.6 * rng.uniform(size=(4, 3))
    look = SimpleNamespace(
        move=move,
        hertz=rate * rng.uniform(*TEMPO),
        amplitude=rng.uniform(*AMPLITUDE),
        variant=rng.uniform(),
        heading=np.deg2rad(rng.choice(headings) + rng.uniform(-spread, spread)),
        side=rng.choice((-1, 1)),
        tilt=np.deg2rad(rng.uniform(3, 14)),
        size=size * rng.uniform(0.88, 1.08),
        surface=rng.choice(surfaces),
        backdrop=rng.choice(backdrops),
        horizon=rng.uniform(0.36, 0.56),
        cast=rng.uniform(0.72, 1.12) * rng.uniform((0.94, 1, 0.92), (1.08, 1, 1.06)),
        row=row,
        leg=rng.uniform(0.95, 1.06),
        arm=rng.uniform(0.95, 1.07),
        shoulder=rng.uniform(0.9, 1.12),
        bulk=rng.uniform(0.88, 1.22),
        skin=rng.choice(SKIN),
        hair=rng.choice(HAIR),
        cap=rng.uniform() < 0.4,
        visibility=rng.uniform(*PROP_VISIBILITY),
        sparks=rng.uniform((-1, 0, 0), (1, 1, 1), (44, 3)),
    )
    look.shirt, look.trousers, look.shoes, look.gear = muted * [[200], [145], [205], [175]] + [[40], [25], [30], [60]]
    look.forearm = look.skin if rng.uniform() < 0.7 else look.shirt
    look.shank = look.skin if rng.uniform() < 0.35 else look.trousers
    look.horizon += 0.16 * (look.backdrop == "wall")
    look.ground = np.array(SURFACES[look.surface]) + rng.uniform(-14, 14, 3)
    look.canvas, look.horizon_row = _paint(look, rng)
    return look


def _fractal(rng: np.random.Generator, rows: int, columns: int, cells: int, stretch: float = 1) -> np.ndarray:
    """Smooth noise float32 [rows, columns], about -1..1, periodic along the columns."""
    total = np.zeros((rows, columns), np.float32)
    for octave in range(4):
        across = cells * 2**octave
        down = max(int(across * rows / columns * stretch), 2)
        coarse = rng.uniform(-1, 1, (down, across)).astype(np.float32)
        pad = round(2 * columns / across)
        coarse = np.concatenate([coarse[:, -2:], coarse, coarse[:, :2]], 1)
        fine = cv2.resize(coarse, (columns + 2 * pad, rows), interpolation=cv2.INTER_CUBIC)
        total += fine[:, pad : pad + columns] / 2**octave
    return total


def _paint(look: SimpleNamespace, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Background uint8 [rows, columns, 3], periodic, for 240-row pictures; and the row of the horizon."""
    height, width = UCF_FRAME_SIZE
    rows, columns = round(height * (1 + 2 * MARGIN)), round(width * PERIOD)
    split = round(height * (look.horizon + MARGIN))
    top, low, ridge, level, rough, boxes = BACKDROPS[look.backdrop]
    indoors = look.backdrop == "wall"
    ramp = np.linspace(0, 1, split, dtype=np.float32)[:, None, None]  # single precision halves the time
    clouds = 9 * (not indoors) * _fractal(rng, split, columns, 5, 3)[..., None]
    far = (1 - ramp) * np.float32(top) + ramp * np.float32(low) + clouds
    for layer in (1.5, 1.0):  # a paler, higher ridge behind a darker one
        profile = 0.4 * _fractal(rng, 2, columns, 7)[0] + 0.22 * rough * _fractal(rng, 2, columns, 50)[0]
        profile = level * height * layer * (1 + profile * (rough > 0))
        colour = np.float32(np.array(ridge) + 26 * (layer > 1) + rng.uniform(-14, 14, 3))
        leaves = 26 * rough * _fractal(rng, split, columns, 60, 1.2)[..., None]
        far = np.where((np.arange(split)[:, None] > split - profile)[..., None], colour + leaves, far)
    for _ in range(boxes):  # houses with windows, or pictures and shelves on a wall
        w, h = rng.integers(40, 120), rng.integers(30, 60 if indoors else 110)
        x, bottom = rng.integers(0, columns - w), split - indoors * rng.integers(15, 50)
        y, colour = max(bottom - h, 0), rng.uniform(80, 215) + rng.uniform(-22, 22, 3)
        far[y:bottom, x : x + w] = colour
        if indoors:
            far[y + 5 : bottom - 5, x + 5 : x + w - 5] = colour * 0.6 + rng.uniform(0, 90)
            continue
        for wy, wx in itertools.product(range(y + 6, bottom - 10, 18), range(x + 6, x + w - 8, 16)):
            far[wy : wy + 9, wx : wx + 8] = colour * rng.uniform(0.45, 0.8)
    depth = np.linspace(0, 1, rows - split, dtype=np.float32)[:, None, None]
    finer = (255 * depth.ravel() ** 0.6).astype(int)  # towards the horizon
    texture = _fractal(rng, 256, columns, 40, 2.2)[finer, :, None]
    ground = np.float32(look.ground) + {"water": 22, "floor": 5, "asphalt": 8}.get(look.surface, 15) * texture
    if look.surface in ("floor", "asphalt", "clay"):  # seams, kerbs, court lines
        lines = (len(depth) * np.array((0.08, 0.2, 0.38, 0.62, 0.93))).astype(int)
        ground[lines] += -22 if look.surface == "floor" else 24
    canvas = np.concatenate([far, ground * (0.86 + 0.2 * depth)])
    light = 1 + 0.14 * np.sin(np.arange(columns) * 2 * np.pi / columns + rng.uniform(0, 6))[:, None]
    mean = canvas.mean((0, 1))
    canvas = (mean + BACKGROUND_CONTRAST * (canvas - mean)) * np.float32(light * look.cast)
    return np.clip(canvas, 0, 255).astype(np.uint8), split


@functools.lru_cache(maxsize=4)
def _noise(height: int, width: int) -> np.ndarray:
    """Tile of sensor noise around 128, standard deviation 32; every frame takes a part of its own."""
    noise = np.random.default_rng(0).normal(128, 32, (height + 61, width + 67, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


# --- The camera -------------------------------------------------------------------------------------------
def _project(scene: moves.Scene, zoom: float, centre: np.ndarray, height: int, width: int) -> np.ndarray:
    """Give all pieces colours and outlines in fixed-point pixels; their order from back to front, int [F, pieces]."""
    look, pieces = scene.look, scene.pieces
    x, y, z = np.moveaxis(np.concatenate([p.points for p in pieces], 1) * (1, look.side, 1), -1, 0)
    x, z = x - scene.pitch[:, None] * z, z + scene.pitch[:, None] * x + scene.bob[:, None]
    turn, scale = look.heading + scene.yaw[:, None], np.array((width / ASPECT, height))
    right, away = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    near = zoom / (1 + 0.10 * away)  # mild perspective

    def screen(right, up):
        return ((centre[:, None] + np.stack([right, -up], -1) * near[..., None]) * scale)[:, :, None]

    def fixed(outline):
        return np.round(outline * 2**FIXED_POINT).astype(np.int32).reshape(len(outline), -1, 2)

    spots = screen(right, z * np.cos(look.tilt) + away * np.sin(look.tilt))
    shade = screen(right + 0.35 * z, away * np.sin(look.tilt) + 0.10 * z)  # where the sun throws them
    depth = away * np.cos(look.tilt) - z * np.sin(look.tilt)
    rings = (near * np.concatenate([p.radii for p in pieces]))[..., None, None] * CIRCLE * scale
    edges, depths = np.cumsum([0] + [len(p.radii) for p in pieces]), []
    for p, a, b in zip(pieces, edges, edges[1:], strict=False):
        spot, rounding = spots[:, a:b], rings[:, a:b] if p.radii.any() else 0
        colour = np.clip(p.colour * look.cast, 0, 255)
        depths.append(depth[:, a:b].mean(1) - p.nudge)
        p.outline, p.dark = fixed(spot + rounding), tuple(colour * (1 if p.flat else 0.8))
        p.thickness = max(round(p.line * zoom * height), 1)
        if not p.flat:
            p.shadow = fixed(shade[:, a:b] + rounding * np.array((1, 0.5)))
            p.lit = fixed(spot + (0.55 * rounding - (0.3, 0.35) * np.max(rounding, -2, keepdims=True)))
            p.bright = tuple(np.minimum(colour * 1.1, 255))
    return np.argsort(-np.stack(depths, 1), 1)


def _draw(frame: np.ndarray, scene: moves.Scene, order: np.ndarray, k: int) -> None:
    """Paint shadows and pieces of frame `k`, in their order, into `frame`, in place."""
    mask = np.zeros(frame.shape[:2], np.uint8)
    for p in scene.pieces:
        if not p.flat:
            cv2.fillConvexPoly(mask, cv2.convexHull(p.shadow[k]), 255, cv2.LINE_8, FIXED_POINT)
    dim = 0.8 if scene.look.surface == "water" else 0.68
    cv2.copyTo(cv2.convertScaleAbs(frame, alpha=dim), mask, frame)
    for p in (scene.pieces[j] for j in order):
        if p.line:
            cv2.polylines(frame, [p.outline[k]], False, p.dark, p.thickness, cv2.LINE_AA, FIXED_POINT)
            continue
        cv2.fillConvexPoly(frame, cv2.convexHull(p.outline[k]), p.dark, cv2.LINE_AA, FIXED_POINT)
        if not p.flat:
            cv2.fillConvexPoly(frame, cv2.convexHull(p.lit[k]), p.bright, cv2.LINE_AA, FIXED_POINT)


def clip_name(label: int, group: int, clip: int) -> str:
    """UCF50's name of a clip, without the file ending: `v_Mixing_g01_c01`."""
    check_counts(least=0, most=len(UCF_CLASSES) - 1, label=label)
    check_counts(most=UCF_GROUPS, group=group)
    check_counts(most=99, clip=clip)
    return f"v_{UCF_CLASSES[label]}_g{group:02d}_c{clip:02d}"


def make_clip(
    label: int,
    group: int,
    clip: int,
    *,
    seed: int = 0,
    frames: int = 70,
    stride: int = 1,
    shape: tuple[int, int] = UCF_FRAME_SIZE,
) -> np.ndarray:
    """Render one clip; the same arguments always give the same pixels.

    Args:
        label: index into `UCF_CLASSES`.
        group: 1..25; clips of a group share actor, place, light and camera.
        clip: 1..99; clips of a group differ in phase, start, distance, camera shake and a little in tempo.
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
    check_counts(least=0, seed=seed)
    check_counts(frames=frames, stride=stride)
    check_counts(least=24, height=shape[0])
    check_counts(least=32, width=shape[1])
    look = _group_look(int(seed), int(label), int(group))
    rng, index = np.random.default_rng([seed, 2, label, group, clip]), np.arange(frames) * stride
    time = index / UCF_FRAME_RATE
    # Everything that changes over time is a function of the frame's number, so that any stride agrees.
    speeds, starts = rng.uniform((0.5, 1.6, 7), (1.2, 3.2, 11), (4, 3)), rng.uniform(0, 2 * np.pi, (4, 3))
    waves = np.sin(time[:, None, None] * speeds + starts) * (1, 0.5, 0.25)  # [F, 4, 3]
    pan, nod, wander, flicker = waves.sum(-1).T
    pan, nod = 0.05 * pan, 0.012 * nod
    scene = moves.Scene(look, time * look.hertz * rng.uniform(0.94, 1.06) + rng.uniform())
    forward, left = look.move(scene, look) or (0.0, 0.0)
    zoom = look.size * rng.uniform(0.93, 1.07)
    speed = zoom * (forward * np.cos(look.heading) - look.side * left * np.sin(look.heading))
    enlarge = -(-SMALL // min(shape))
    height, width = shape[0] * enlarge, shape[1] * enlarge
    middle = ASPECT / 2 + (0.07 * wander + rng.uniform(-0.1, 0.1))
    order = _project(scene, zoom, np.stack([middle + pan, look.row + nod], -1), height, width)
    period, rows = round(PERIOD * width), round((1 + 2 * MARGIN) * height)
    canvas = cv2.resize(look.canvas, (period, rows), interpolation=cv2.INTER_AREA)
    canvas = np.concatenate([canvas, canvas[:, :width]], 1)
    split, begin = round(look.horizon_row * rows / len(look.canvas)), rng.uniform(0, PERIOD * ASPECT)
    # Columns where the picture starts: far things pass slower; glint is a second sheet of water.
    near, far, glint = (
        np.round((begin + time * v - pan) * width / ASPECT).astype(int) % period
        for v in (speed, 0.4 * speed, speed + 0.05)
    )
    first = np.round((MARGIN - nod) * height).astype(int)
    corner = (index[:, None] * (7, 13) + rng.integers(0, 60, 2)) % (61, 67)
    tile, out = _noise(*shape), np.empty((frames, *shape, 3), np.uint8)
    frame = np.empty((height, width, 3), np.uint8)
    for k in range(frames):
        cut, last = max(split - first[k], 0), first[k] + height
        frame[:cut] = canvas[first[k] : first[k] + cut, far[k] : far[k] + width]
        frame[cut:] = canvas[first[k] + cut : last, near[k] : near[k] + width]
        if look.surface == "water":
            sheet = canvas[first[k] + cut : last, (glint[k] + 311) % period :][:, :width]
            cv2.addWeighted(frame[cut:], 0.6, sheet, 0.4, 0, dst=frame[cut:])
        _draw(frame, scene, order[k], k)
        small = frame if enlarge == 1 else cv2.resize(frame, shape[::-1], interpolation=cv2.INTER_AREA)
        noise = tile[corner[k, 0] :, corner[k, 1] :][: shape[0], : shape[1]]
        cv2.addWeighted(small, 1 + 0.03 * flicker[k], noise, NOISE_LEVEL / 32, -4 * NOISE_LEVEL, dst=out[k])
    return out
