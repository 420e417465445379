"""The patient of a synthetic chest CT: size, pose, organs, vessels, bones and benign findings, in mm.

x to the left, y to the front, z to the head, y = 0 in the middle of the chest cavity.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

# --- The patient: name -> (low, high), drawn uniformly; millimetres unless said otherwise ------------------
PATIENT = {
    "length": (268, 325),
    "half_width": (150, 184),
    "flatness": (0.65, 0.74),
    "fatness": (0.1, 0.6),  # fat: 4 mm + this share of half width beyond 150 mm
    "apex_gap": (10, 22),
    "base_gap": (2, 20),
    "dome": (46, 62),
    "right_dome": (6, 18),  # diaphragm
    "carina": (0.34, 0.39),  # below the apex, as a fraction of lung height
    "heart": (0.9, 1.12),
    "aorta": (0.88, 1.15),
    "vertebra": (21, 25),
    "phase": (0, 1),
    "rib_slope": (70, 100),  # drop from back to front
    "lung_hu": (-885, -830),
    "dependent": (20, 70),
    "bone": (0.85, 1.15),  # HU, HU front to back, scale
    "roll": (-5, 5),
    "lean": (-3, 3),
    "nod": (-3, 3),
    "shift_x": (-9, 9),
    "shift_y": (-7, 7),  # pose, degrees
    "zoom": (1.03, 1.12),  # field of view / body width
    "table_gap": (2, 8),
    "kernel": (0.4, 0.9),  # length over which noise is correlated
}
SLICE_THICKNESS = (1.0, 1.25, 2.0, 2.5, 2.5, 3.0, 5.0)  # mm, as chest protocols use them
REFERENCE_CAVITY = (128.0, 88.0)  # half width and half depth the paths below were drawn for

# (radius, path of (x, y, z)): mm from the carina in a patient of reference size. First the aortic arch.
GREAT_VESSELS = (
    (14.0, ((6, 18, -50), (-15, 26, -20), (-16, 26, 8), (-8, 16, 26), (6, 0, 34), (18, -22, 28), (24, -38, 10))),
    (11.5, ((24, -38, 10), (25, -46, -50), (20, -47, -110), (8, -44, -240))),  # descending aorta
    (9.0, ((-25, 16, -46), (-27, 16, 0), (-24, 17, 40))),  # superior vena cava
    (6.5, ((-24, 17, 40), (-30, 8, 120))),
    (6.0, ((-24, 17, 40), (4, 30, 44), (30, 14, 120))),
    (6.0, ((-6, 14, 30), (-13, 6, 120))),
    (4.2, ((5, 2, 34), (11, 0, 120))),
    (5.0, ((15, -14, 32), (20, -12, 120))),
    (13.5, ((15, 36, -46), (20, 18, -18))),
    (10.5, ((20, 18, -18), (30, -2, -6), (42, -18, -14))),  # lung
    (9.5, ((18, 12, -18), (-8, 3, -20), (-36, 0, -24))),
    (15.0, ((-20, -12, -54), (22, -12, -52))),  # left atrium
    (6.0, ((2, -42, 120), (5, -41, 10), (8, -38, -70), (14, -28, -150))),  # oesophagus
)
AIRWAYS = (
    (8.4, ((0, -12, 120), (-1, -22, 60), (-2, -26, 4))),  # trachea
    (6.8, ((-2, -26, 2), (-18, -27, -12), (-38, -24, -28))),
    (5.8, ((-2, -26, 2), (20, -28, -14), (44, -24, -30))),
)
HILA = {
    -1: ((-36, 0, -24), (-20, -12, -54), (-38, -24, -28)),  # artery, veins, bronchus; right
    1: ((42, -18, -14), (22, -12, -52), (44, -24, -30)),
}
LUNG_SQUARE, LUNG_SPLAY = 0.25, 0.10  # boxiness of the cavity; how far its back spreads sideways


@dataclass(frozen=True)
class Mark:
    """Part of a finding: smooth capsules (rough = 0) or one ellipsoid with a ragged outline."""

    centre: np.ndarray  # [n, 3] mm, or [3] when rough
    radius: np.ndarray  # [n] mm, or [3] when rough
    hu: float
    gain: float = 1.0  # peak opacity
    end: np.ndarray | None = None  # [n, 3] mm: the capsules' other end; None for balls
    rough: float = 0.0  # irregularity of the outline, relative to the radius
    soft: float = 0.5  # mm, width of the edge
    seed: int = 0  # of the outline


def draw_patient(rng: np.random.Generator, incidental: float, noise_sd) -> SimpleNamespace:
    """All numbers of one patient and scanner, the vessel trees included; mm, HU, degrees."""
    p = SimpleNamespace(**{name: float(rng.uniform(*span)) for name, span in PATIENT.items()})
    p.noise = float(rng.uniform(*noise_sd))
    p.thickness = float(rng.choice(SLICE_THICKNESS))
    p.fov = float(np.clip(2 * p.half_width * p.zoom, 300, 400))
    p.fat = 4 + p.fatness * (p.half_width - 150)
    p.half_depth = p.half_width * p.flatness
    p.wide, p.deep = p.half_width - p.fat - 25, p.half_depth - p.fat * 0.6 - 24  # chest cavity
    p.apex, p.base = p.length / 2 - p.apex_gap, -p.length / 2 + p.base_gap
    p.height = p.apex - p.base
    p.carina_z = p.apex - p.carina * p.height
    p.dome_top = p.base + 1.3 * p.dome
    p.spine_y = -p.deep + 15.0
    p.pull = p.lift = 0.0  # mediastinal shift and raised diaphragm: set by volume loss only
    p.vessels, p.bronchi = _draw_trees(rng, p)
    p.incidental = _draw_incidental(rng, p, incidental)
    p.texture = rng.standard_normal((40, 44, 44)).astype(np.float32)
    return p


def from_carina(p: SimpleNamespace, points) -> np.ndarray:
    """Points [n, 3] of the reference patient, mm from the carina -> this patient's mm."""
    scale = (p.wide / REFERENCE_CAVITY[0], p.deep / REFERENCE_CAVITY[1], p.height / 255)
    return np.asarray(points, float) * scale + (0, 0, p.carina_z)


def hull(p: SimpleNamespace, z):
    """Outline of each half of the chest cavity at height z: centre `|x|`, centre y, half width, half depth."""
    below = np.maximum(p.apex - z, 0.02)
    grow = (1 - np.exp(-below / 34)) ** 0.55  # rounded apex, full width about 12 cm below
    wide = p.wide * (0.95 + 0.05 * below / p.height)
    return (0.36 + 0.11 * grow) * wide, -8 * (1 - grow), 0.53 * wide * grow, p.deep * grow


def oval(x, y, a, b, square: float = 0.0):
    """Depth in mm, measured along the ray to the centre, inside an oval; negative outside."""
    u, v = x / a, y / b
    u, v = u * u, v * v
    f = u + v
    if square:  # towards a superellipse of exponent 4
        f = (1 - square) * f + square * np.sqrt(u * u + v * v)
    r = np.sqrt(x * x + y * y) + 1e-3
    return r / (np.sqrt(f) + 1e-5) - r


def pull_at(p: SimpleNamespace, z):
    """Sideways shift in mm of the mediastinum at height z: strongest in the upper chest."""
    return p.pull * (0.35 + 0.65 * np.clip((z - p.base) / p.height, 0, 1))


def chest(p: SimpleNamespace, x, y, z, sx: float = 1.0, sz: float = 1.0):
    """Depth in mm inside the cavity; in voxel widths (mm) inside lung and heart, and above the diaphragm."""
    c, yc, a, b = hull(p, z)
    ax, yr = np.abs(x), y - yc
    cavity = oval(ax - c + LUNG_SPLAY * yr, yr, a, b, LUNG_SQUARE)
    slope = hull(p, z - 0.5)[2] - hull(p, z + 0.5)[2]  # mm per mm: the apex needs a wider edge along z
    # Diaphragm: a dome a side, highest in front of the middle, the right one higher.
    out = ax - c
    out = np.where(out < 0, 0.45 * out, out)
    q = (out / a) ** 2 + ((yr - 10) / b) ** 2
    top = p.dome_top + p.right_dome * np.clip(0.5 - x / 50, 0, 1)
    if p.lift:
        top = top + p.lift * np.clip(0.5 + np.sign(p.pull) * x / 50, 0, 1)
    normal = 1 / (1 + (2 * p.dome) ** 2 / (p.wide * 0.53 * p.deep) * q)  # squared z part of the unit normal
    above = (z - top + p.dome * q) * np.sqrt(normal / (normal * sz**2 + (1 - normal) * sx**2))
    # Mediastinum: a column wide in the middle and narrow in front, the heart, and what surrounds the spine.
    xm = x - pull_at(p, z)
    half_width = (27 + 5 * np.exp(-(((z - p.apex) / 40) ** 2))) * p.wide / 128
    column = oval(xm - 1, y + 0.06 * p.deep, half_width, 0.9 * p.deep)
    heart_z = p.carina_z - 0.28 * p.height
    t = (heart_z - z) / (0.21 * p.height * p.heart)
    size = p.heart * np.sqrt(np.maximum(1 - t * t, 1e-4)) * p.wide / 128
    hx, hy = xm - (17 + 9 * t), y - 0.18 * p.deep
    heart = oval(0.82 * hx + 0.57 * hy, 0.82 * hy - 0.57 * hx, 63 * size, 47 * size)
    bed = oval(x - 5, y - p.spine_y + 3, 29.0, 23.0)
    solid = np.maximum(np.maximum(column, heart + 3), np.maximum(bed, 2.5 - np.abs(xm)))
    lung = np.minimum(np.minimum(cavity / np.hypot(sx, slope * sz), -solid / sx), above)
    return cavity, lung, heart / sx, above


def sites(rng, p, n: int, *, side: int = 0, height=(0.0, 1.0), margin: float = 4.0, near=None, spread=0.0):
    """n random points [n, 3] at least `margin` mm inside a lung (side -1 right, 1 left, 0 both)."""
    low = -p.wide, -p.deep, p.base + height[0] * p.height
    high = p.wide, p.deep, p.base + height[1] * p.height
    found = np.empty((0, 3))
    while len(found) < n:
        points = rng.uniform(low, high, (4 * n + 256, 3)) if near is None else rng.normal(near, spread, (4 * n + 64, 3))
        keep = chest(p, *points.T)[1] > margin
        if side:
            keep &= points[:, 0] * side > 0
        found = np.concatenate([found, points[keep]])
        margin, spread = 0.9 * margin - 0.1, spread + 1  # always ends, even in a lung with little room
    return found[:n]


def join_capsules(parts, first: int | None = None) -> tuple[np.ndarray, ...]:
    """Several lots of capsules as one: start [m, 3], end [m, 3], radius [m] and more; of each lot only the `first`."""
    return tuple(np.concatenate([values[:first] for values in each]) for each in zip(*parts, strict=True))


def _grow_tree(rng, root, targets, radius: float):
    """A tree of capsules from root, trunk first, to 2**k targets, halving them at each fork by Murray's law."""
    parts, nodes, groups = [], np.asarray(root)[None], targets[None]
    while groups.shape[1] > 1:
        axis = np.ptp(groups, axis=1).argmax(axis=1)
        along = np.take_along_axis(groups, axis[:, None, None], axis=2)
        groups = np.take_along_axis(groups, along.argsort(axis=1), axis=1).reshape(2 * len(nodes), -1, 3)
        nodes, radius = np.repeat(nodes, 2, axis=0), radius * 0.5 ** (1 / 3)
        reach = groups.mean(axis=1) - nodes
        ends = nodes + (0.5 if groups.shape[1] > 1 else 1.0) * reach
        bend = rng.normal(0, 0.07, reach.shape) * np.linalg.norm(reach, axis=1, keepdims=True)
        middle = (nodes + ends) / 2 + bend
        thick = np.full(len(nodes), radius)
        parts += [(nodes, middle, thick), (middle, ends, 0.9 * thick)]
        nodes = ends
    return join_capsules(parts)


def _draw_trees(rng, p):
    """Arteries and veins of both lungs as one set of capsules, and the first four generations of bronchi."""
    vessels, bronchi = [], []
    for side, roots in HILA.items():
        artery, vein, bronchus = from_carina(p, roots)
        targets = sites(rng, p, 512, side=side, margin=5)
        vessels += [_grow_tree(rng, artery, targets, 5.6)]
        vessels += [_grow_tree(rng, vein, sites(rng, p, 256, side=side, margin=5), 5.0)]
        bronchi += [_grow_tree(rng, bronchus, targets[:32] + (0, -4, 0), 4.6)]
    return join_capsules(vessels), join_capsules(bronchi, 60)


def draw_bones(p):
    """Ribs and their cartilage, sternum, clavicles, shoulder blades, processes: start, end, radius, bony."""
    parts = []

    def add(path, radius, bone=True):  # path [..., m, 3], mirrored by the caller
        start, end = path[..., :-1, :].reshape(-1, 3), path[..., 1:, :].reshape(-1, 3)
        parts.append((start, end, np.full(len(start), float(radius)), np.full(len(start), bone)))

    turn = np.radians(np.linspace(-125, 118, 19))  # 0 is the side, -90 the back, 90 the front
    rib = np.arange(11)[:, None]
    drop = p.rib_slope * np.clip(0.5 + 0.12 * rib, 0, 1.1)  # the upper ribs lie flatter
    z = p.apex - 4 - rib * p.height / 10.5 - drop * (turn - turn[0]) / np.ptp(turn)
    c, yc, a, b = hull(p, np.minimum(z, p.apex - 9))
    ring = 1 / np.sqrt((1 - LUNG_SQUARE) + LUNG_SQUARE * np.sqrt(np.cos(turn) ** 4 + np.sin(turn) ** 4))
    yr = (b + 7) * np.sin(turn) * ring
    path = np.stack([c + (a + 7) * np.cos(turn) * ring - LUNG_SPLAY * yr, yc + yr, z], axis=-1)
    path[..., 0] = np.maximum(path[..., 0], 16)
    for mirror in (np.array([1, 1, 1]), np.array([-1, 1, 1])):
        add(mirror * path[:7, :15], 5.2)
        add(mirror * path[:7, 14:], 5.0, bone=False)
        add(mirror * path[7:, :12], 4.8)
        front = hull(p, p.apex - 25)[3]
        add(mirror * [(18, front + 2, p.apex - 22), (60, front + 4, p.apex - 6), (118, 8, p.apex + 14)], 5.5)
    plate = p.apex - np.arange(-20, 110, 5.0)  # shoulder blades and sternum are stacks of level capsules
    c, _, a, b = hull(p, p.apex - 80)
    turn = np.radians((-72, -22))
    ends = zip(c + (a + 21) * np.cos(turn) - LUNG_SPLAY * b * np.sin(turn), (b + 21) * np.sin(turn), strict=True)
    blade = np.stack([np.stack([0 * plate + x, 0 * plate + y, plate], -1) for x, y in ends], -2)
    blade[:, 1, :2] += (blade[:, 0, :2] - blade[:, 1, :2]) * np.linspace(0, 0.8, len(plate))[:, None]  # a triangle
    add(blade, 3.0)
    add(blade * (-1, 1, 1), 3.0)
    plate = p.apex - np.arange(42, 175, 5.0)
    front = 6 + hull(p, plate)[3] + hull(p, plate)[1]
    add(np.stack([np.stack([0 * plate + x, front, plate], -1) for x in (-11, 11)], -2), 5.5)
    level = (np.arange(-9, 10) + p.phase) * p.vertebra
    for x, y, dz in ((0, -24, -14), (34, -14, 4), (-34, -14, 4)):  # spinous and transverse processes
        start = np.stack([0 * level + np.sign(x) * 13, 0 * level + p.spine_y - 22, level], -1)
        add(np.stack([start, start + (x - np.sign(x) * 13, y, dz)], -2), 4.2)
    return join_capsules(parts)


def _draw_incidental(rng, p, probability: float) -> list[Mark]:
    """Benign background that belongs to the patient: scars, an old granuloma, dependent opacity, a nodule."""
    marks = []
    side = rng.choice((-1, 1), 5)
    has = rng.random(5) < probability
    c, y, _, b = hull(p, p.apex - 8)
    seed = int(rng.integers(2**31))
    granuloma, nodule, scar = (sites(rng, p, 1, side=s, margin=6) for s in side[:3])
    radius = rng.uniform(1.5, 3.2, (2, 1))
    if has[0]:
        marks.append(Mark(granuloma, radius[0], rng.uniform(250, 700)))
    if has[1]:
        marks.append(Mark(nodule, radius[1], 20))
    if has[2]:
        marks.append(Mark(scar, np.array([0.9]), -50, end=scar + rng.normal(0, 18, (1, 3))))
    if has[3]:  # apical cap
        centre = np.array([side[3] * c, y, p.apex - 5])
        marks.append(Mark(centre, np.array([20, 22, 6.0]), -40, 0.9, None, 0.4, 3, seed))
    if has[4]:  # gravity: the patient lies on the back
        centre = np.array([side[4] * 0.45 * p.wide, -0.97 * p.deep, p.base + 0.3 * p.height])
        marks.append(Mark(centre, np.array([42, 13, 55.0]), -520, 0.8, None, 0.3, 9, seed))
    return marks
