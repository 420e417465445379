"""Synthetic chest CT in Hounsfield units, with the five TB types as radiology describes them.

A patient is drawn once, in millimetres (x to the left, y to the front, z to the head, y = 0 in the middle of
the chest cavity), and can then be sampled on any voxel grid. Extended organs are signed depths, turned into
soft coverage about one voxel wide; everything small (vessels, ribs, nodules) is a capsule that keeps its
volume on every grid, so that a 2 mm nodule in a 5 mm voxel counts with its volume fraction.

What is learnt from phantoms says nothing about patients: they show that the code runs and reacts.
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from scipy import ndimage

from viptt_core.constants import HU_AIR, TB_CLASSES, TB_TRAIN_COUNTS
from viptt_core.errors import DataError, SettingError

VERSION = "1"  # of the generator, recorded with every result: raise it when the output changes

# --- Difficulty: what makes the five types easier or harder to tell apart ----------------------------------
FINDING_CONTRAST = 1.0  # opacity of every soft finding; below 1 all disease is fainter
MIMIC_PROBABILITY = 0.35  # chance of each feature that a finding borrows from another type
FAINT_PROBABILITY = 0.25  # chance that a finding is drawn with FAINT_GAIN times its opacity
FAINT_GAIN = 0.65
MILIARY_COUNT = ((500, 1500), (1500, 7000))  # nodules, log-uniform: sparse (a mimic) and usual
INCIDENTAL_PROBABILITY = 0.30  # chance of each benign background finding, in every patient
NOISE_SD = (10.0, 40.0)  # HU at 1.5 mm voxels, drawn per scanner

# --- Hounsfield units of tissues, unenhanced CT (textbook ranges) ------------------------------------------
HU_FAT, HU_MUSCLE, HU_SKIN, HU_BLOOD, HU_HEART, HU_LIVER, HU_SPLEEN = -100, 52, 10, 42, 40, 58, 48
HU_CORTEX, HU_MARROW, HU_CARTILAGE, HU_DISC, HU_FLUID, HU_TABLE, HU_FOAM = 620, 190, 110, 80, 12, -250, -930

# --- The patient: name -> (low, high), drawn uniformly; millimetres unless said otherwise ------------------
PATIENT = {
    "length": (268, 325), "half_width": (150, 184), "flatness": (0.65, 0.74),
    "fatness": (0.1, 0.6),  # fat: 4 mm + this share of half width beyond 150 mm
    "apex_gap": (10, 22), "base_gap": (2, 20), "dome": (46, 62), "right_dome": (6, 18),  # diaphragm
    "carina": (0.34, 0.39),  # below the apex, as a fraction of lung height
    "heart": (0.9, 1.12), "aorta": (0.88, 1.15), "vertebra": (21, 25), "phase": (0, 1),
    "rib_slope": (70, 100),  # drop from back to front
    "lung_hu": (-885, -830), "dependent": (20, 70), "bone": (0.85, 1.15),  # HU, HU front to back, scale
    "roll": (-5, 5), "lean": (-3, 3), "nod": (-3, 3), "shift_x": (-9, 9), "shift_y": (-7, 7),  # pose, degrees
    "zoom": (1.03, 1.12),  # field of view / body width
    "table_gap": (2, 8), "kernel": (0.4, 0.9),  # length over which noise is correlated
}  # fmt: skip
SLICE_THICKNESS = (1.0, 1.25, 2.0, 2.5, 2.5, 3.0, 5.0)  # mm, as chest protocols use them
REFERENCE_CAVITY = (128.0, 88.0)  # half width and half depth the paths below were drawn for

# (radius, path of (x, y, z)): mm from the carina in a patient of reference size. First the aortic arch.
GREAT_VESSELS = (
    (14.0, ((6, 18, -50), (-15, 26, -20), (-16, 26, 8), (-8, 16, 26), (6, 0, 34), (18, -22, 28),
            (24, -38, 10))),
    (11.5, ((24, -38, 10), (25, -46, -50), (20, -47, -110), (8, -44, -240))),  # descending aorta
    (9.0, ((-25, 16, -46), (-27, 16, 0), (-24, 17, 40))),  # superior vena cava
    (6.5, ((-24, 17, 40), (-30, 8, 120))), (6.0, ((-24, 17, 40), (4, 30, 44), (30, 14, 120))),
    (6.0, ((-6, 14, 30), (-13, 6, 120))), (4.2, ((5, 2, 34), (11, 0, 120))),
    (5.0, ((15, -14, 32), (20, -12, 120))),
    (13.5, ((15, 36, -46), (20, 18, -18))), (10.5, ((20, 18, -18), (30, -2, -6), (42, -18, -14))),  # lung
    (9.5, ((18, 12, -18), (-8, 3, -20), (-36, 0, -24))),
    (15.0, ((-20, -12, -54), (22, -12, -52))),  # left atrium
    (6.0, ((2, -42, 120), (5, -41, 10), (8, -38, -70), (14, -28, -150))),  # oesophagus
)  # fmt: skip
AIRWAYS = (
    (8.4, ((0, -12, 120), (-1, -22, 60), (-2, -26, 4))),  # trachea
    (6.8, ((-2, -26, 2), (-18, -27, -12), (-38, -24, -28))),
    (5.8, ((-2, -26, 2), (20, -28, -14), (44, -24, -30))),
)  # fmt: skip
HILA = {-1: ((-36, 0, -24), (-20, -12, -54), (-38, -24, -28)),  # artery, veins, bronchus; right
        1: ((42, -18, -14), (22, -12, -52), (44, -24, -30))}  # fmt: skip
LUNG_SQUARE, LUNG_SPLAY = 0.25, 0.10  # boxiness of the cavity; how far its back spreads sideways


@dataclass(frozen=True)
class Phantom:
    """One synthetic scan. All arrays are [X, Y, Z]: X to the patient's left, Y to the front, Z to the head.

    Attributes:
        hu: int16, Hounsfield units.
        spacing: Voxel size in mm along X, Y, Z.
        label: Index into TB_CLASSES, 0..4.
        lungs: uint8, 1 right lung, 2 left lung, 0 elsewhere; disease in a lung belongs to it.
        finding: bool, where the finding is (half maximum of each of its parts); all False when left out.
    """

    hu: np.ndarray
    spacing: tuple[float, float, float]
    label: int
    lungs: np.ndarray
    finding: np.ndarray

    @property
    def affine(self) -> np.ndarray:
        """Voxel index to mm, 4x4 float64, orientation ('L', 'A', 'S'), volume centred on the origin."""
        steps = np.array(self.spacing) * (-1, 1, 1)
        affine = np.diag([*steps, 1.0])
        affine[:3, 3] = -steps * (np.array(self.hu.shape) - 1) / 2
        return affine


@dataclass(frozen=True)
class _Mark:
    """Part of a finding: smooth capsules (rough = 0) or one ellipsoid with a ragged outline."""

    centre: np.ndarray  # [n, 3] mm, or [3] when rough
    radius: np.ndarray  # [n] mm, or [3] when rough
    hu: float
    gain: float = 1.0  # peak opacity
    end: np.ndarray | None = None  # [n, 3] mm: the capsules' other end; None for balls
    rough: float = 0.0  # irregularity of the outline, relative to the radius
    soft: float = 0.5  # mm, width of the edge
    seed: int = 0  # of the outline


class _Grid:
    """Voxel centres in mm around the centre of the field of view; volumes are kept as [Z, Y, X] inside."""

    def __init__(self, size: int, slices: int, fov: float, length: float) -> None:
        self.shape = (slices, size, size)
        self.spacing = np.array([fov / size, fov / size, length / slices])  # x, y, z
        self.origin = -self.spacing * (np.array([size, size, slices]) - 1) / 2
        axes = (self.origin[i] + self.spacing[i] * np.arange(self.shape[2 - i]) for i in range(3))
        self.x, self.y, self.z = (axis.astype(np.float32) for axis in axes)
        self.cover = np.zeros(self.shape, np.float32)  # scratch, always handed back empty

    def slabs(self):
        """Runs of whole slices, small enough that temporaries stay in cache."""
        step = max(1, 300_000 // (self.shape[1] * self.shape[2]))
        return (slice(k, k + step) for k in range(0, self.shape[0], step))


# --- The patient ------------------------------------------------------------------------------------------
def _draw_patient(rng: np.random.Generator, incidental: float, noise_sd) -> SimpleNamespace:
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


def _from_carina(p: SimpleNamespace, points) -> np.ndarray:
    """Points [n, 3] of the reference patient, mm from the carina -> this patient's mm."""
    scale = (p.wide / REFERENCE_CAVITY[0], p.deep / REFERENCE_CAVITY[1], p.height / 255)
    return np.asarray(points, float) * scale + (0, 0, p.carina_z)


def _hull(p: SimpleNamespace, z):
    """Outline of each half of the chest cavity at height z: centre |x|, centre y, half width, half depth."""
    below = np.maximum(p.apex - z, 0.02)
    grow = (1 - np.exp(-below / 34)) ** 0.55  # rounded apex, full width about 12 cm below
    wide = p.wide * (0.95 + 0.05 * below / p.height)
    return (0.36 + 0.11 * grow) * wide, -8 * (1 - grow), 0.53 * wide * grow, p.deep * grow


def _oval(x, y, a, b, square: float = 0.0):
    """Depth in mm, measured along the ray to the centre, inside an oval; negative outside."""
    u, v = x / a, y / b
    u, v = u * u, v * v
    f = u + v
    if square:  # towards a superellipse of exponent 4
        f = (1 - square) * f + square * np.sqrt(u * u + v * v)
    r = np.sqrt(x * x + y * y) + 1e-3
    return r / (np.sqrt(f) + 1e-5) - r


def _pull_at(p: SimpleNamespace, z):
    """Sideways shift in mm of the mediastinum at height z: strongest in the upper chest."""
    return p.pull * (0.35 + 0.65 * np.clip((z - p.base) / p.height, 0, 1))


def _chest(p: SimpleNamespace, x, y, z, spacing=(1.0, 1.0, 1.0)):
    """Depth in mm inside the cavity; in voxel widths inside lung and heart, and above the diaphragm."""
    sx, _, sz = spacing
    c, yc, a, b = _hull(p, z)
    ax, yr = np.abs(x), y - yc
    cavity = _oval(ax - c + LUNG_SPLAY * yr, yr, a, b, LUNG_SQUARE)
    slope = _hull(p, z - 0.5)[2] - _hull(p, z + 0.5)[2]  # mm per mm: the apex needs a wider edge along z
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
    xm = x - _pull_at(p, z)
    column = _oval(
        xm - 1, y + 0.06 * p.deep, (27 + 5 * np.exp(-(((z - p.apex) / 40) ** 2))) * p.wide / 128, 0.9 * p.deep
    )
    heart_z = p.carina_z - 0.28 * p.height
    t = (heart_z - z) / (0.21 * p.height * p.heart)
    size = p.heart * np.sqrt(np.maximum(1 - t * t, 1e-4)) * p.wide / 128
    hx, hy = xm - (17 + 9 * t), y - 0.18 * p.deep
    heart = _oval(0.82 * hx + 0.57 * hy, 0.82 * hy - 0.57 * hx, 63 * size, 47 * size)
    bed = _oval(x - 5, y - p.spine_y + 3, 29.0, 23.0)
    solid = np.maximum(np.maximum(column, heart + 3), np.maximum(bed, 2.5 - np.abs(xm)))
    lung = np.minimum(np.minimum(cavity / np.hypot(sx, slope * sz), -solid / sx), above)
    return cavity, lung, heart / sx, above


def _sites(rng, p, n: int, *, side: int = 0, height=(0.0, 1.0), margin: float = 4.0, near=None, spread=0.0):
    """n random points [n, 3] at least `margin` mm inside a lung (side -1 right, 1 left, 0 both)."""
    low, high = (
        (-p.wide, -p.deep, p.base + height[0] * p.height),
        (p.wide, p.deep, p.base + height[1] * p.height),
    )
    found = np.empty((0, 3))
    while len(found) < n:
        points = (
            rng.uniform(low, high, (4 * n + 256, 3))
            if near is None
            else rng.normal(near, spread, (4 * n + 64, 3))
        )
        keep = _chest(p, *points.T)[1] > margin
        if side:
            keep &= points[:, 0] * side > 0
        found = np.concatenate([found, points[keep]])
        margin, spread = 0.9 * margin - 0.1, spread + 1  # always ends, even in a lung with little room
    return found[:n]


def _grow_tree(rng, root, targets, radius: float):
    """A tree from root that reaches 2**k targets, halving them at each fork; radii follow Murray's law.

    Returns:
        start [m, 3], end [m, 3], radius [m] in mm, first the trunk, last the twigs.
    """
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
        parts += [(nodes, middle, radius), (middle, ends, 0.9 * radius)]
        nodes = ends
    start, end = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return start, end, np.concatenate([np.full(len(part[0]), part[2]) for part in parts])


def _draw_trees(rng, p):
    """Arteries and veins of both lungs as one set of capsules, and the first four generations of bronchi."""
    vessels, bronchi = [], []
    for side, roots in HILA.items():
        artery, vein, bronchus = _from_carina(p, roots)
        targets = _sites(rng, p, 512, side=side, margin=5)
        vessels += [_grow_tree(rng, artery, targets, 5.6)]
        vessels += [_grow_tree(rng, vein, _sites(rng, p, 256, side=side, margin=5), 5.0)]
        bronchi += [_grow_tree(rng, bronchus, targets[:32] + (0, -4, 0), 4.6)]
    join = lambda trees, m: tuple(np.concatenate([tree[i][:m] for tree in trees]) for i in range(3))  # noqa: E731
    return join(vessels, None), join(bronchi, 60)


def _draw_bones(p):
    """Ribs and their cartilage, sternum, clavicles, shoulder blades, processes: start, end, radius, bony."""
    parts = []

    def add(path, radius, bone=True):  # path [..., m, 3], mirrored by the caller
        start, end = path[..., :-1, :].reshape(-1, 3), path[..., 1:, :].reshape(-1, 3)
        parts.append((start, end, np.full(len(start), float(radius)), np.full(len(start), bone)))

    turn = np.radians(np.linspace(-125, 118, 19))  # 0 is the side, -90 the back, 90 the front
    rib = np.arange(11)[:, None]
    drop = p.rib_slope * np.clip(0.5 + 0.12 * rib, 0, 1.1)  # the upper ribs lie flatter
    z = p.apex - 4 - rib * p.height / 10.5 - drop * (turn - turn[0]) / np.ptp(turn)
    c, yc, a, b = _hull(p, np.minimum(z, p.apex - 9))
    ring = 1 / np.sqrt((1 - LUNG_SQUARE) + LUNG_SQUARE * np.sqrt(np.cos(turn) ** 4 + np.sin(turn) ** 4))
    yr = (b + 7) * np.sin(turn) * ring
    path = np.stack([c + (a + 7) * np.cos(turn) * ring - LUNG_SPLAY * yr, yc + yr, z], axis=-1)
    path[..., 0] = np.maximum(path[..., 0], 16)
    for mirror in (np.array([1, 1, 1]), np.array([-1, 1, 1])):
        add(mirror * path[:7, :15], 5.2)
        add(mirror * path[:7, 14:], 5.0, bone=False)
        add(mirror * path[7:, :12], 4.8)
        front = _hull(p, p.apex - 25)[3]
        add(mirror * [(18, front + 2, p.apex - 22), (60, front + 4, p.apex - 6), (118, 8, p.apex + 14)], 5.5)
    plate = p.apex - np.arange(-20, 110, 5.0)  # shoulder blades and sternum are stacks of level capsules
    c, _, a, b = _hull(p, p.apex - 80)
    ends = [
        (c + (a + 21) * np.cos(t) - LUNG_SPLAY * b * np.sin(t), (b + 21) * np.sin(t))
        for t in np.radians((-72, -22))
    ]
    blade = np.stack([np.stack([0 * plate + x, 0 * plate + y, plate], -1) for x, y in ends], -2)
    blade[:, 1, :2] += (blade[:, 0, :2] - blade[:, 1, :2]) * np.linspace(0, 0.8, len(plate))[
        :, None
    ]  # a triangle
    add(blade, 3.0)
    add(blade * (-1, 1, 1), 3.0)
    plate = p.apex - np.arange(42, 175, 5.0)
    front = 6 + _hull(p, plate)[3] + _hull(p, plate)[1]
    add(np.stack([np.stack([0 * plate + x, front, plate], -1) for x in (-11, 11)], -2), 5.5)
    level = (np.arange(-9, 10) + p.phase) * p.vertebra
    for x, y, dz in ((0, -24, -14), (34, -14, 4), (-34, -14, 4)):  # spinous and transverse processes
        start = np.stack([0 * level + np.sign(x) * 13, 0 * level + p.spine_y - 22, level], -1)
        add(np.stack([start, start + (x - np.sign(x) * 13, y, dz)], -2), 4.2)
    return tuple(np.concatenate([part[i] for part in parts]) for i in range(4))


def _draw_incidental(rng, p, probability: float) -> list[_Mark]:
    """Benign background that belongs to the patient: scars, an old granuloma, dependent opacity, a nodule."""
    marks = []
    side = rng.choice((-1, 1), 5)
    has = rng.random(5) < probability
    c, y, _, b = _hull(p, p.apex - 8)
    seed = int(rng.integers(2**31))
    granuloma, nodule, scar = (_sites(rng, p, 1, side=s, margin=6) for s in side[:3])
    radius = rng.uniform(1.5, 3.2, (2, 1))
    if has[0]:
        marks.append(_Mark(granuloma, radius[0], rng.uniform(250, 700)))
    if has[1]:
        marks.append(_Mark(nodule, radius[1], 20))
    if has[2]:
        marks.append(_Mark(scar, np.array([0.9]), -50, end=scar + rng.normal(0, 18, (1, 3))))
    if has[3]:  # apical cap
        marks.append(
            _Mark(
                np.array([side[3] * c, y, p.apex - 5]), np.array([20, 22, 6.0]), -40, 0.9, None, 0.4, 3, seed
            )
        )
    if has[4]:  # gravity: the patient lies on the back
        centre = np.array([side[4] * 0.45 * p.wide, -0.97 * p.deep, p.base + 0.3 * p.height])
        marks.append(_Mark(centre, np.array([42, 13, 55.0]), -520, 0.8, None, 0.3, 9, seed))
    return marks


# --- Rendering --------------------------------------------------------------------------------------------
def _to_scanner(p, points) -> np.ndarray:
    """Patient mm -> scanner mm for points [n, 3]: volume loss, then roll, lean, nod and position."""
    x, y, z = np.asarray(points, float).reshape(-1, 3).T
    x = x + _pull_at(p, z) * np.clip(1 - (x / p.wide) ** 2, 0, 1)
    cos, sin = np.cos(np.radians(p.roll)), np.sin(np.radians(p.roll))
    lean, nod = np.tan(np.radians(p.lean)), np.tan(np.radians(p.nod))
    return np.stack(
        [cos * x - sin * y + p.shift_x + lean * z, sin * x + cos * y + p.shift_y + nod * z, z], axis=-1
    )


def _to_patient(p, grid: _Grid, k: slice):
    """Patient coordinates x, y [Z, Y, X] and z [Z, 1, 1] of the voxels in slab k."""
    z = grid.z[k, None, None]
    x = grid.x - p.shift_x - np.float32(np.tan(np.radians(p.lean))) * z
    y = grid.y[:, None] - p.shift_y - np.float32(np.tan(np.radians(p.nod))) * z
    cos, sin = float(np.cos(np.radians(p.roll))), float(np.sin(np.radians(p.roll)))
    return cos * x + sin * y, cos * y - sin * x, z


def _splat(grid: _Grid, start, end, radius, gain=1.0, add: bool = False, found=None) -> None:
    """Adds capsules (scanner mm) to grid.cover as the share of each voxel that they fill, times gain.

    Below a voxel the capsule is spread over about one voxel an axis and then scaled to its true volume.
    `add` sums overlapping capsules (nodules), else the largest share counts (tubes). `found` [Z, Y, X] bool
    receives the voxels above half of each capsule's own maximum.
    """
    start, end, radius = (np.asarray(v, np.float32) for v in (start, end, radius))
    gain = np.broadcast_to(np.float32(gain), radius.shape)
    step = grid.spacing.astype(np.float32)
    wide = np.sqrt(radius[:, None] ** 2 + (0.5 * step) ** 2)  # semi-axes
    edge = np.prod(step / wide, axis=1) ** np.float32(1 / 3)  # width of the soft edge, relative to them
    middle = (start + end) / 2
    anchor = np.rint((middle - grid.origin) / step).astype(np.int64)
    half = np.floor((np.abs(end - start) / 2 + wide * (1 + edge[:, None] / 2)) / step + 0.5).astype(np.int64)
    half = np.where(half > 6, -(-half // 4) * 4, half)  # few distinct boxes, each vectorised
    volume = np.pi * radius**2 * np.linalg.norm(end - start, axis=1) + 4 / 3 * np.pi * radius**3
    inside = np.all((anchor + half >= 0) & (anchor - half < grid.shape[::-1]), axis=1)
    kinds, kind = np.unique(half, axis=0, return_inverse=True)
    for number, box in enumerate(kinds):
        members = np.flatnonzero((kind.ravel() == number) & inside)
        chunk = max(1, 200_000 // int(np.prod(2 * box + 1)))
        for m in (members[i : i + chunk] for i in range(0, len(members), chunk)):
            rel, run, index, valid = [], [], [], []
            for i in range(3):
                shape = [len(m), 1, 1, 1]
                shape[3 - i] = -1
                voxel = anchor[m, i, None] + np.arange(-box[i], box[i] + 1)
                position = (grid.origin[i] + step[i] * voxel).astype(np.float32)
                rel.append(((position - start[m, i, None]) / wide[m, i, None]).reshape(shape))
                run.append(((end[m, i] - start[m, i]) / wide[m, i]).reshape(-1, 1, 1, 1))
                valid.append(((voxel >= 0) & (voxel < grid.shape[2 - i])).reshape(shape))
                index.append(voxel.clip(0, grid.shape[2 - i] - 1).reshape(shape))
            length = run[0] ** 2 + run[1] ** 2 + run[2] ** 2 + np.float32(1e-9)
            t = (rel[0] * (run[0] / length) + rel[1] * (run[1] / length) + rel[2] * (run[2] / length)).clip(
                0, 1
            )
            q = np.sqrt(sum((rel[i] - t * run[i]) ** 2 for i in range(3)))
            share = (0.5 + (1 - q) / edge[m, None, None, None]).clip(0, 1)
            drawn = share.sum(axis=(1, 2, 3)) * step.prod()
            ratio = np.minimum(volume[m] / drawn, 1 / share.max(axis=(1, 2, 3))) * gain[m]
            share *= ratio.astype(np.float32)[:, None, None, None]
            flat = (index[2] * grid.shape[1] + index[1]) * grid.shape[2] + index[0]
            if found is not None:
                peak = share.max(axis=(1, 2, 3), keepdims=True)
                found.reshape(-1)[flat[(share >= 0.5 * peak) & valid[0] & valid[1] & valid[2]]] = True
            share *= valid[0] & valid[1] & valid[2]
            (np.add if add else np.maximum).at(grid.cover.reshape(-1), flat.ravel(), share.ravel())


def _flush(grid: _Grid, hu, value: float, lung=None, clip: bool = False, erase: bool = False) -> None:
    """Composites grid.cover into hu and empties it; `clip` keeps to the lung, `erase` shrinks the lung."""
    for k in range(grid.shape[0]):
        cover = grid.cover[k]
        if not cover.any():
            continue
        np.minimum(cover, 1, out=cover)
        if clip:
            cover *= lung[k]
        # Disease only adds tissue (vessels stay visible in it); air replaces whatever is there.
        hu[k] += cover * (np.maximum(value - hu[k], 0) if clip and value > -800 else value - hu[k])
        if erase:
            lung[k] *= 1 - cover
        cover[:] = 0


def _paint_slab(p, grid: _Grid, k: slice, texture):
    """Everything that is not a capsule: table, wall, spine, organs, lungs -> hu, lung share [Z, Y, X]."""
    sx, _, sz = (float(s) for s in grid.spacing)
    x, y, z = _to_patient(p, grid, k)
    cavity, lung, heart, above = _chest(p, x, y, z, (sx, sx, sz))
    ax = np.abs(x)
    soft = lambda depth: np.clip(depth / sx + 0.5, 0, 1)  # noqa: E731  depth in mm -> share of the voxel

    def paint(share, value):
        np.add(hu, share * (value - hu), out=hu)

    hu = np.full(x.shape, HU_AIR, np.float32)
    table = grid.y[:, None] + p.half_depth + p.table_gap - p.shift_y + 16 - grid.x**2 / 700 + 0 * z
    paint(soft(np.minimum(-table, table + 24)), HU_FOAM)
    paint(np.maximum(soft(1.2 - np.abs(table)), soft(1.2 - np.abs(table + 24))), HU_TABLE)
    # Body: skin, fat, and a muscle coat that is thick over the chest, beside the spine and at the shoulders.
    top = np.clip((z - p.apex + 45) / 60, 0, 1)
    skin = _oval(x, y + 10, p.half_width * (1 - 0.05 * top), p.half_depth * (1 - 0.20 * top * top), 0.35)
    paint(soft(skin), HU_SKIN)
    paint(soft(skin - 2), HU_FAT + 8 * texture)
    upper = np.clip((z - p.base) / p.height - 0.2, 0, 1)
    bump = lambda at, width: 1 / (1 + ((ax - at) / width) ** 2) ** 2  # noqa: E731
    coat = (
        17 + np.where(y > 0, 26 * upper * bump(62, 45), 14 * bump(30, 26) + 16 * bump(p.wide, 40)) + 90 * top
    )
    muscle = np.minimum(np.minimum(coat + cavity, skin - p.fat), -cavity - 1)
    streak = np.abs(cavity + 18 + 3 * texture) - 1.2 + 40 * top  # fat plane between coat and ribs
    planes = (
        14 * np.abs(np.sin(ax / 23 + y / 37 + 0.3 * texture)) - 2 + 40 * (1 - np.clip(2 * top, 0, 1))
    )  # shoulders
    paint(
        soft(np.minimum(muscle, np.minimum(streak, planes))) * (1 - 0.6 * np.clip(texture - 1.1, 0, 1)),
        HU_MUSCLE + 5 * texture,
    )
    # Under the diaphragm.
    belly = np.minimum(soft(cavity - 2), np.clip(0.5 - above - 2 / max(sx, sz), 0, 1))
    if belly.any():
        liver = _oval(x + 52, y - 4, 98, p.deep * 0.93) + 4 * texture
        paint(belly * soft(liver), HU_LIVER + 3 * texture)
        paint(belly * soft(_oval(x - 0.72 * p.wide, y + 0.45 * p.deep, 30, 34)), HU_SPLEEN)
        stomach = _oval(x - 0.5 * p.wide, y - 0.30 * p.deep, 42, 34)
        paint(belly * soft(stomach), 45)
        paint(belly * soft(stomach - 4), np.where(y > 0.32 * p.deep, HU_AIR, HU_FLUID))
    # Heart; lungs, denser towards the back.
    share = np.clip(heart + 0.5, 0, 1) * np.clip(above + 0.5, 0, 1) * soft(cavity - 3)
    paint(share, HU_HEART + 3 * texture)
    lung = np.clip(lung + 0.5, 0, 1)
    paint(lung, p.lung_hu - p.dependent * np.clip(y / p.deep, -1, 1) / 2 + 14 * texture)
    fissure = np.abs(z - p.base - 0.50 * p.height + 1.05 * y - 0.15 * ax) * 0.68
    paint(lung * np.clip((0.6 + sx / 2 - fissure) / sx, 0, 1) * min(1.0, 1 / sx), -640)
    _paint_spine(p, grid, hu, lung, x, y, z, texture)
    return hu, lung


def _paint_spine(p, grid, hu, lung, x, y, z, texture) -> None:
    """Vertebral bodies with a cortex, discs, canal and arch, in the small window that holds them."""
    sx = float(grid.spacing[0])
    near = (
        np.abs(grid.x - p.shift_x) < 55,
        (grid.y - p.shift_y < p.spine_y + 45) & (grid.y - p.shift_y > p.spine_y - 60),
    )
    if not (near[0].any() and near[1].any()):
        return
    cols, rows = (slice(np.flatnonzero(n)[0], np.flatnonzero(n)[-1] + 1) for n in near)
    window = (slice(None), rows, cols)
    bone, x, y, texture = hu[window], x[window], y[window] - p.spine_y, texture[window]
    soft = lambda depth: np.clip(depth / sx + 0.5, 0, 1)  # noqa: E731
    along = (0.40 - np.abs((z / p.vertebra - p.phase) % 1 - 0.5)) * p.vertebra  # > 0 inside a vertebra
    body = _oval(x, y, 17.0, 14.0, 0.2)
    depth = np.minimum(body, along)
    arch = np.minimum(_oval(x, y + 22, 17, 13), 4 - _oval(x, y + 22, 13, 10) + 3)
    parts = ((soft(body), HU_DISC), (soft(np.minimum(arch, along + 4)), HU_CORTEX * 0.6 * p.bone),
             (soft(depth), HU_CORTEX * 0.8 * p.bone), (soft(depth - 1.8), HU_MARROW * p.bone + 14 * texture),
             (soft(_oval(x, y + 22, 10.0, 8.0)), 25))  # fmt: skip
    for share, value in parts:
        bone += share * (value - bone)


def _paint_mark(p, grid: _Grid, hu, lung, mark: _Mark, found=None) -> None:
    """Composites one mark into hu inside the lung; `found` receives where it is."""
    if not mark.rough:
        start = _to_scanner(p, mark.centre)
        end = start if mark.end is None else _to_scanner(p, mark.end)
        _splat(grid, start, end, mark.radius, mark.gain, mark.end is None, found)
        return _flush(grid, hu, mark.hu, lung, clip=True)
    centre, step = _to_scanner(p, mark.centre)[0], grid.spacing
    reach = mark.radius * (1 + mark.rough) + mark.soft + step
    low = np.maximum(np.ceil((centre - reach - grid.origin) / step), 0).astype(int)
    high = (
        np.minimum(np.floor((centre + reach - grid.origin) / step), np.array(grid.shape[::-1]) - 1).astype(
            int
        )
        + 1
    )
    if np.any(high <= low):
        return None
    rel = [axis[a:b] - c for axis, a, b, c in zip((grid.x, grid.y, grid.z), low, high, centre, strict=True)]
    rel = [rel[0][None, None], rel[1][None, :, None], rel[2][:, None, None]]
    lattice = np.random.default_rng(mark.seed).standard_normal((16, 16, 16)).astype(np.float32)
    box = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
    size = float(mark.radius.mean())
    waves = 0.0
    for scale, weight in ((0.55 * size, 0.75), (0.22 * size, 0.4)):  # coarse lobes and finer tongues
        at = np.broadcast_arrays(*(r / scale + 8 for r in rel))
        waves = waves + weight * ndimage.map_coordinates(lattice, at, order=1, mode="grid-wrap")
    q = np.sqrt(sum((r / a) ** 2 for r, a in zip(rel, mark.radius, strict=True)))
    depth = (1 + mark.rough * np.clip(waves, -1.2, 1) - q) * size
    share = np.clip(0.5 + depth / (mark.soft + float(step.prod()) ** (1 / 3)), 0, 1)
    share *= mark.gain * np.clip(1 + 0.5 * mark.rough * waves, 0.3, 1) * lung[box]
    if found is not None and share.size:
        found[box] |= share > max(0.5 * float(share.max()), 1e-6)
    hu[box] += share * (np.maximum(mark.hu - hu[box], 0) if mark.hu > -800 else mark.hu - hu[box])
    return None


def _render(p, grid: _Grid, marks: list[_Mark], noise: np.random.Generator):
    """Patient p with `marks` on a grid -> hu int16, lungs uint8, finding bool, each [Z, Y, X]."""
    hu, lung = np.empty(grid.shape, np.float32), np.empty(grid.shape, np.float32)
    side, found = np.empty(grid.shape, bool), np.zeros(grid.shape, bool)
    for k in grid.slabs():
        level = (grid.z[k] / p.length + 0.5) * (len(p.texture) - 1)
        low = np.clip(level.astype(int), 0, len(p.texture) - 2)
        part = (level - low)[:, None, None].astype(np.float32)
        planes = p.texture[low] * (1 - part) + p.texture[low + 1] * part
        texture = np.stack(
            [cv2.resize(plane, grid.shape[:0:-1], interpolation=cv2.INTER_CUBIC) for plane in planes]
        )
        hu[k], lung[k] = _paint_slab(p, grid, k, texture)
        x, _, z = _to_patient(p, grid, k)
        side[k] = x > _pull_at(p, z)

    def tubes(parts, value, erase=False):
        _splat(grid, _to_scanner(p, parts[0]), _to_scanner(p, parts[1]), parts[2])
        _flush(grid, hu, value, lung, erase=erase)

    *bones, bony = _draw_bones(p)
    tubes([v[~bony] for v in bones], HU_CARTILAGE)
    tubes([v[bony] for v in bones], HU_CORTEX * p.bone)
    tubes([bones[0][bony], bones[1][bony], bones[2][bony] - 1.6], HU_MARROW * p.bone)
    great, air = ([(_from_carina(p, path[:-1]), _from_carina(p, path[1:]), np.full(len(path) - 1, radius))
                   for radius, path in paths] for paths in (GREAT_VESSELS, AIRWAYS))  # fmt: skip
    great, air = ([np.concatenate(v) for v in zip(*parts, strict=True)] for parts in (great, air))
    great[2] *= p.aorta
    tubes(great, HU_BLOOD, erase=True)
    tubes(p.vessels, HU_BLOOD)
    mask = np.where(lung > 0.5, 1 + side, 0).astype(np.uint8)
    for mark in p.incidental:
        _paint_mark(p, grid, hu, lung, mark)
    for mark in marks:
        _paint_mark(p, grid, hu, lung, mark, found)
    air = [np.concatenate(v) for v in zip(air, p.bronchi, strict=True)]
    wall = np.minimum(0.35 + 0.12 * air[2], 1.5)
    tubes([air[0], air[1], air[2] + wall], 10)
    tubes(air, HU_AIR + 5)
    found &= lung > 0
    _add_noise(p, grid, hu, noise)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16), mask, found


def _add_noise(p, grid: _Grid, hu, rng) -> None:
    """Scanner noise, correlated over about a voxel, and -1000 HU outside the round field of view."""
    sx = float(grid.spacing[0])
    voxel = float(grid.spacing.prod()) ** (1 / 3)
    kernel = cv2.getGaussianKernel(5, max(p.kernel / sx, 0.05), cv2.CV_32F)
    sd = p.noise * (1.5 / voxel) ** 0.5 / float((kernel**2).sum())
    outside = grid.x**2 + grid.y[:, None] ** 2 > (p.fov / 2) ** 2
    before = np.zeros(grid.shape[1:], np.float32)
    for k in range(grid.shape[0]):
        white = rng.standard_normal(grid.shape[1:], dtype=np.float32)
        hu[k] += sd * cv2.sepFilter2D(0.94 * white + 0.34 * before, -1, kernel, kernel)
        hu[k][outside] = HU_AIR
        before = white


# --- The five findings ------------------------------------------------------------------------------------
def _balls(rng, sites, radius, hu, gain=1.0) -> _Mark:
    return _Mark(sites, rng.uniform(*radius, len(sites)), hu, gain)


def _patch(rng, centre, radius, hu, gain=1.0, rough=0.5, soft=6.0) -> _Mark:
    return _Mark(
        centre, np.broadcast_to(radius, 3) * 1.0, hu, gain, None, rough, soft, int(rng.integers(2**31))
    )


def _infiltrative(rng, p, gain, mimic) -> list[_Mark]:
    """Ill-defined patches with small satellites, mostly in the upper lobes."""
    marks, side = [], int(rng.choice((-1, 1)))
    size = (8, 13) if mimic() else (13, 32)  # small ones look focal
    zone = (0.55, 0.97) if rng.random() < 0.85 else (0.1, 0.6)
    for _ in range(1 + rng.binomial(3, 0.4)):
        centre = _sites(rng, p, 1, side=side if rng.random() < 0.75 else -side, height=zone, margin=7)[0]
        radius = rng.uniform(*size) * rng.uniform(0.7, 1.25, 3)
        marks.append(_patch(rng, centre, radius, rng.uniform(-300, 20), 0.92 * gain, 0.7, rng.uniform(5, 11)))
        near = _sites(rng, p, int(rng.integers(6, 26)), margin=2, near=centre, spread=1.1 * radius.mean())
        marks.append(_balls(rng, near, (1.2, 2.8), -80, 0.8 * gain))
    if mimic():  # a small lucency, like a young cavity
        marks.append(_patch(rng, centre, rng.uniform(3, 6), -930, 0.9, 0.2, 1))
    return marks


def _focal(rng, p, gain, mimic) -> list[_Mark]:
    """One or few soft foci under 12 mm in one or two segments."""
    marks, zone = [], (0.5, 0.97) if rng.random() < 0.65 else (0.05, 0.6)
    for segment in _sites(rng, p, 1 + int(rng.random() < 0.4), height=zone, margin=9):
        for centre in _sites(rng, p, int(rng.integers(1, 4)), near=segment, spread=10, margin=4):
            radius = rng.uniform(2.3, 5.2)
            marks.append(
                _patch(rng, centre, radius, rng.uniform(-180, 40), gain, 0.25, rng.uniform(0.5, 2.5))
            )
            if mimic():
                marks.insert(0, _patch(rng, centre, 1.8 * radius, -560, 0.6 * gain, 0.5, 4))
    return marks


def _tuberculoma(rng, p, gain, mimic) -> list[_Mark]:
    """One round, sharp nodule of 15 to 40 mm, sometimes calcified or with a crescent of air."""
    radius = rng.uniform(7.8, 19)
    centre = _sites(
        rng, p, 1, height=(0.4, 0.95) if rng.random() < 0.75 else (0.1, 0.5), margin=0.75 * radius
    )[0]
    marks = [_patch(rng, centre, radius * rng.uniform(0.92, 1.08, 3), rng.uniform(15, 60), 1.0, 0.07, 0.4)]
    if rng.random() < 0.2:
        marks += [_patch(rng, centre + (0, 0.1 * radius, 0), 0.78 * radius, -960, 1.0, 0.05, 0.4),
                  _Mark(centre[None] - (0, 0.12 * radius, 0), np.array([0.70 * radius]), 35)]  # fmt: skip
    elif rng.random() < 0.4:
        spots = centre + rng.normal(0, 0.25 * radius, (int(rng.integers(1, 5)), 3))
        marks.append(_balls(rng, spots, (0.08 * radius, 0.25 * radius), rng.uniform(250, 800)))
    if mimic():
        marks.append(
            _balls(
                rng,
                _sites(rng, p, int(rng.integers(2, 7)), near=centre, spread=1.6 * radius),
                (1.5, 3.5),
                -40,
                gain,
            )
        )
    return marks


def _miliary(rng, p, gain, mimic) -> list[_Mark]:
    """Hundreds to thousands of 1.6 to 3 mm nodules all over both lungs; the sparse ones are hard to see."""
    count = int(np.exp(rng.uniform(*np.log(MILIARY_COUNT[0 if mimic() else 1]))))
    marks = [_balls(rng, _sites(rng, p, count, margin=1.5), (0.8, 1.5), rng.uniform(-60, 60), gain)]
    if mimic():
        centre = _sites(rng, p, 1, height=(0.55, 0.97), margin=7)[0]
        marks.append(_patch(rng, centre, rng.uniform(8, 16), -300, 0.8 * gain))
    return marks


def _fibro_cavernous(rng, p, gain, mimic) -> list[_Mark]:
    """Thick-walled cavities and fibrous bands in a lung that shrinks and pulls the mediastinum over."""
    side = int(rng.choice((-1, 1)))
    p.pull, p.lift = side * rng.uniform(7, 24), rng.uniform(5, 22)
    marks = []
    for i in range(1 + rng.binomial(2, 0.4)):
        radius = rng.uniform(12, 27) if i == 0 else rng.uniform(8, 15)
        centre = _sites(rng, p, 1, side=side, height=(0.55, 0.95), margin=0.7 * radius)[0]
        shape = radius * rng.uniform(0.85, 1.2, 3)
        if rng.random() < 0.7:
            marks.append(_patch(rng, centre + rng.normal(0, 5, 3), 1.5 * shape, -330, 0.75 * gain, 0.7, 9))
        marks.append(_patch(rng, centre, shape, rng.uniform(15, 60), 1.0, 0.16, 1.0))
        bands = _sites(
            rng, p, int(rng.integers(4, 10)), near=centre, spread=1.5 * radius, side=side, margin=-2
        )
        marks.append(
            _Mark(np.repeat(centre[None], len(bands), 0), rng.uniform(0.7, 2.0, len(bands)), 20, gain, bands)
        )
        marks.append(
            _balls(
                rng,
                _sites(rng, p, int(rng.integers(4, 14)), near=centre, spread=1.6 * radius),
                (1.5, 3.5),
                -40,
                gain,
            )
        )
        wall = rng.uniform(0.18, 0.42) * radius
        marks.append(
            _patch(
                rng,
                centre + rng.normal(0, 0.06 * radius, 3),
                np.maximum(shape - wall, 3),
                -980,
                1.0,
                0.2,
                0.5,
            )
        )
    c, y, _, b = _hull(p, p.apex - 10)
    marks.insert(
        0, _patch(rng, np.array([side * c, y, p.apex - 6]), np.array([24, 26, 10]), 10, gain, 0.4, 2)
    )
    return marks


_FINDINGS = (_infiltrative, _focal, _tuberculoma, _miliary, _fibro_cavernous)


# --- What others call -------------------------------------------------------------------------------------
def _check_whole(name: str, value, least: int, most: float = np.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        allowed = f"from {least} to {most}" if most < np.inf else f"of at least {least}"
        raise SettingError(
            f"{name}={value!r} is not allowed.", remedy=f"{name} must be a whole number {allowed}."
        )


def make_phantom(
    seed, label: int, *, size: int = 512, slices: int | None = None, finding: bool = True
) -> Phantom:
    """One synthetic chest CT.

    Patient, disease and noise have random streams of their own: another label, or finding=False, gives the
    same patient; another grid gives the same patient and disease with other noise.

    Args:
        seed: Whole number >= 0, or a tuple of such.
        label: Index into TB_CLASSES, 0..4.
        size: Voxels along X and along Y over the patient's field of view (300 to 400 mm), >= 16.
        slices: Slices over the scan length (268 to 325 mm), >= 4; None: by the scanner's slice thickness.
        finding: False leaves the disease out.

    Raises:
        SettingError: An argument is outside what is allowed.
    """
    words = seed if isinstance(seed, tuple) and seed else (seed,)
    for word in words:
        _check_whole("seed", word, 0)
    _check_whole("label", label, 0, len(TB_CLASSES) - 1)
    _check_whole("size", size, 16)
    if slices is not None:
        _check_whole("slices", slices, 4)
    entropy = [len(words), *(int(word) for word in words)]  # the length tells (1,) from (1, 0)
    patient, disease, noise = (
        np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(stream,))) for stream in range(3)
    )
    p, marks = _draw_patient(patient, INCIDENTAL_PROBABILITY, NOISE_SD), []
    if finding:
        gain = FINDING_CONTRAST * (FAINT_GAIN if disease.random() < FAINT_PROBABILITY else 1.0)
        marks = _FINDINGS[label](disease, p, gain, lambda: disease.random() < MIMIC_PROBABILITY)
    grid = _Grid(int(size), int(slices or round(p.length / p.thickness)), p.fov, p.length)
    hu, lungs, found = (volume.transpose(2, 1, 0) for volume in _render(p, grid, marks, noise))
    return Phantom(hu, tuple(float(step) for step in grid.spacing), int(label), lungs, found)


def cohort_labels(n: int, seed: int) -> np.ndarray:
    """Labels int64 [n] in random order, with the class shares of the benchmark's training part.

    Quotas by largest remainder; from n = 5 on every class occurs.
    """
    _check_whole("n", n, 1)
    _check_whole("seed", seed, 0)
    share = n * np.array(TB_TRAIN_COUNTS) / sum(TB_TRAIN_COUNTS)
    quota = np.floor(share).astype(np.int64)
    quota[np.argsort(quota - share, kind="stable")[: n - quota.sum()]] += 1
    for empty in np.flatnonzero(quota == 0) if n >= len(quota) else ():
        quota[quota.argmax()] -= 1
        quota[empty] = 1
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(quota)), quota))


def _publish(path: Path, content: bytes) -> None:
    """Writes under a temporary name first: a file that is there is complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_scan(
    root: Path, name: str, seed: tuple[int, int], label: int, size: int, slices: int | None
) -> None:
    """Scan, both mask sets and finding of one phantom; files that are there are kept."""
    import nibabel

    paths = [folder / name for folder in (root, root / "masks1", root / "masks2", root / "findings")]
    if all(path.exists() for path in paths):
        return
    phantom = make_phantom(seed, label, size=size, slices=slices)
    # The second set: outlines smoothed over about 6 mm, at least three voxels, as by another method.
    box = [2 * max(int(3 / step), least) + 1 for step, least in zip(phantom.spacing, (1, 1, 0), strict=True)]
    second = np.zeros_like(phantom.lungs)
    for side in (1, 2):
        second[ndimage.uniform_filter((phantom.lungs == side).astype(np.float32), box) > 0.42] = side
    volumes = (phantom.hu, phantom.lungs, second, phantom.finding.astype(np.uint8))
    for path, volume in zip(paths, volumes, strict=True):
        if not path.exists():
            image = nibabel.Nifti1Image(volume, phantom.affine)
            image.set_sform(phantom.affine, "scanner")
            image.set_qform(phantom.affine, "scanner")
            image.header.set_xyzt_units("mm")
            _publish(path, gzip.compress(image.to_bytes(), 4, mtime=0))  # no time: same seed, same bytes


def write_imageclef(
    root,
    n: int,
    *,
    seed: int = 0,
    size: int = 512,
    slices: int | None = None,
    n_jobs: int = 1,
    progress: bool = True,
) -> Path:
    """Writes n phantoms as an ImageCLEF TB-type folder; an interrupted call resumes.

    `TRN_0001.nii.gz ...` (int16 HU), `masks1/` and `masks2/` (uint8 lungs, two versions), `findings/`
    (uint8), `phantom.json` (settings) and, last, `TRN_labels.csv` (`FileName,TypeOfTB`, classes 1..5).
    Phantom i has seed (seed, i) and the i-th of `cohort_labels(n, seed)`.

    Returns:
        The folder.

    Raises:
        DataError: The folder holds scans that were not written with these settings.
        SettingError: An argument is outside what is allowed.
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    labels, root = cohort_labels(n, seed), Path(root)
    _check_whole("size", size, 16)
    if slices is not None:
        _check_whole("slices", slices, 4)
    if n_jobs != -1:
        _check_whole("n_jobs", n_jobs, 1)
    knobs = [FINDING_CONTRAST, MIMIC_PROBABILITY, FAINT_PROBABILITY, FAINT_GAIN, INCIDENTAL_PROBABILITY]
    knobs += [*NOISE_SD, *MILIARY_COUNT[0], *MILIARY_COUNT[1]]
    settings = {"version": VERSION, "n": n, "seed": seed, "size": size, "slices": slices, "difficulty": knobs}
    record, content = root / "phantom.json", json.dumps(settings, default=int) + "\n"
    if record.exists() and record.read_text() != content:
        found = record.read_text().strip()
        remedy = "Give another folder or the same settings, or delete this one."
        what = f"The folder was written with {found}, not {content.strip()}."
        raise DataError(what, path=root, remedy=remedy)
    if not record.exists() and any(root.glob("TRN_*")):
        raise DataError(
            "The folder holds scans that are no phantoms.", path=root, remedy="Give another folder."
        )
    for folder in ("masks1", "masks2", "findings"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    _publish(record, content.encode())
    names = [f"TRN_{i + 1:04d}.nii.gz" for i in range(n)]
    jobs = (
        delayed(_write_scan)(root, name, (seed, i), int(labels[i]), size, slices)
        for i, name in enumerate(names)
    )
    done = Parallel(n_jobs=n_jobs, return_as="generator")(jobs)
    for _ in tqdm(done, total=n, desc="phantoms", disable=not progress):
        pass
    rows = [f"{name},{label + 1}" for name, label in zip(names, labels, strict=True)]
    _publish(root / "TRN_labels.csv", "\n".join(["FileName,TypeOfTB", *rows, ""]).encode())
    return root
