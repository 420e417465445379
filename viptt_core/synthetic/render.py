"""Draws the patient of a synthetic chest CT, and what ails it, on any voxel grid."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from viptt_core.constants import HU_AIR
from viptt_core.synthetic import patient
from viptt_core.synthetic.patient import Mark, chest, from_carina, join_capsules, oval, pull_at

# --- Hounsfield units of tissues, unenhanced CT (textbook ranges) ------------------------------------------
HU_FAT, HU_MUSCLE, HU_SKIN, HU_BLOOD, HU_HEART, HU_LIVER, HU_SPLEEN = -100, 52, 10, 42, 40, 58, 48
HU_CORTEX, HU_MARROW, HU_CARTILAGE, HU_DISC, HU_FLUID, HU_TABLE, HU_FOAM = 620, 190, 110, 80, 12, -250, -930


class Grid:
    """Voxel centres in mm around the centre of the field of view; volumes are kept as [Z, Y, X] inside.

    Only the slices `kept` (ascending) are drawn; each is the same as where all are.
    """

    def __init__(self, size: int, slices: int, fov: float, length: float, kept: np.ndarray) -> None:
        self.whole, self.kept = (slices, size, size), kept
        self.shape = (len(kept), size, size)
        self.spacing = np.array([fov / size, fov / size, length / slices])  # x, y, z
        self.origin = -self.spacing * (np.array([size, size, slices]) - 1) / 2
        places = np.arange(size), np.arange(size), kept
        axes = (self.origin[i] + self.spacing[i] * places[i] for i in range(3))
        self.x, self.y, self.z = (axis.astype(np.float32) for axis in axes)
        self.cover = np.zeros(self.shape, np.float32)  # scratch, always handed back empty

    def slabs(self):
        """Runs of whole slices, small enough that temporaries stay in cache."""
        step = max(1, 100_000 // (self.shape[1] * self.shape[2]))
        return (slice(k, k + step) for k in range(0, self.shape[0], step))


def _to_scanner(p, points) -> np.ndarray:
    """Patient mm -> scanner mm for points [n, 3]: volume loss, then roll, lean, nod and position."""
    x, y, z = np.asarray(points, float).reshape(-1, 3).T
    x = x + pull_at(p, z) * np.clip(1 - (x / p.wide) ** 2, 0, 1)
    cos, sin = np.cos(np.radians(p.roll)), np.sin(np.radians(p.roll))
    lean, nod = np.tan(np.radians(p.lean)), np.tan(np.radians(p.nod))
    return np.stack([cos * x - sin * y + p.shift_x + lean * z, sin * x + cos * y + p.shift_y + nod * z, z], axis=-1)


def _to_patient(p, grid: Grid, k: slice):
    """Patient coordinates x, y [Z, Y, X] and z [Z, 1, 1] of the voxels in slab k."""
    z = grid.z[k, None, None]
    x = grid.x - p.shift_x - np.float32(np.tan(np.radians(p.lean))) * z
    y = grid.y[:, None] - p.shift_y - np.float32(np.tan(np.radians(p.nod))) * z
    cos, sin = float(np.cos(np.radians(p.roll))), float(np.sin(np.radians(p.roll)))
    return cos * x + sin * y, cos * y - sin * x, z


def splat(grid: Grid, capsules, gain=1.0, add: bool = False, found=None) -> None:
    """Adds capsules to grid.cover as the share of each voxel that they fill, times gain.

    `capsules`: start [n, 3], end [n, 3] and radius [n], scanner mm. Below a voxel one is spread over about one voxel an
    axis, and fainter by as much. `add` sums overlapping capsules (nodules), else the largest share counts (tubes).
    `found` [Z, Y, X] bool receives the voxels above half of what each capsule has at its middle.
    """
    start, end, radius = (np.asarray(values, np.float32) for values in capsules)
    step = grid.spacing.astype(np.float32)
    wide = np.sqrt(radius[:, None] ** 2 + (0.5 * step) ** 2)  # semi-axes
    edge = np.prod(step / wide, axis=1) ** np.float32(1 / 3)  # width of the soft edge, relative to them; at most 2
    run = (end - start) / wide
    along = run / ((run**2).sum(axis=1, keepdims=True) + np.float32(1e-9))
    # Volumes of the capsule, and of what is drawn: a soft edge of width e adds e^2 / 12 to a disc, e^2 / 4 to a ball.
    volume = np.pi * radius**2 * np.linalg.norm(end - start, axis=1) + 4 / 3 * np.pi * radius**3
    drawn = np.pi * np.linalg.norm(run, axis=1) * (1 + edge**2 / 12) + 4 / 3 * np.pi * (1 + edge**2 / 4)
    strength = (np.minimum(volume / (drawn * wide.prod(axis=1)), 1) * gain).astype(np.float32)

    def share_at(points, m):
        """Share of voxels at `points`, three arrays in mm that broadcast to [members, ...], without `strength`."""
        shape = (-1,) + (1,) * (points[0].ndim - 1)
        rel = [(points[i] - start[m, i].reshape(shape)) / wide[m, i].reshape(shape) for i in range(3)]
        t = sum(rel[i] * along[m, i].reshape(shape) for i in range(3)).clip(0, 1)
        q = np.sqrt(sum((rel[i] - t * run[m, i].reshape(shape)) ** 2 for i in range(3)))
        return (0.5 + (1 - q) / edge[m].reshape(shape)).clip(0, 1)

    anchor = np.rint(((start + end) / 2 - grid.origin) / step).astype(np.int64)
    half = np.floor((np.abs(end - start) / 2 + wide * (1 + edge[:, None] / 2)) / step + 0.5).astype(np.int64)
    half = np.where(half > 6, -(-half // 4) * 4, half)  # few distinct boxes, each vectorised
    inside = np.all((anchor + half >= 0) & (anchor - half < grid.whole[::-1]), axis=1)
    first, after = np.searchsorted(grid.kept, (anchor[:, 2] - half[:, 2], anchor[:, 2] + half[:, 2] + 1))
    rows = np.where(inside, after - first, 0)  # slices that are drawn, of each capsule
    owner = np.repeat(np.arange(len(radius)), rows)  # a capsule in a slice is a box of [Y, X]
    row = np.arange(len(owner)) - np.repeat(np.cumsum(rows) - rows, rows) + first[owner]
    kinds, kind = np.unique(half[owner, :2], axis=0, return_inverse=True)
    for number, (reach_x, reach_y) in enumerate(kinds):
        members = np.flatnonzero(kind.ravel() == number)
        chunk = max(1, 50_000 // int((2 * reach_x + 1) * (2 * reach_y + 1)))
        for part in (members[i : i + chunk] for i in range(0, len(members), chunk)):
            m, z = owner[part], row[part, None, None]
            x = anchor[m, 0, None, None] + np.arange(-reach_x, reach_x + 1)
            y = anchor[m, 1, None, None] + np.arange(-reach_y, reach_y + 1)[:, None]
            within = (x >= 0) & (x < grid.shape[2]) & (y >= 0) & (y < grid.shape[1])
            x, y = x.clip(0, grid.shape[2] - 1), y.clip(0, grid.shape[1] - 1)
            share = share_at((grid.x[x], grid.y[y], grid.z[z]), m)
            flat = (z * grid.shape[1] + y) * grid.shape[2] + x
            if found is not None:
                middle = share_at((grid.origin + step * anchor[m]).astype(np.float32).T, m)
                found.reshape(-1)[flat[(share >= 0.5 * middle[:, None, None]) & (share > 0) & within]] = True
            share *= strength[m, None, None] * within
            (np.add if add else np.maximum).at(grid.cover.reshape(-1), flat.ravel(), share.ravel())


def _flush(grid: Grid, hu, value: float, lung=None, clip: bool = False, erase: bool = False) -> None:
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


def _paint_slab(p, grid: Grid, k: slice, texture):
    """Everything that is not a capsule: table, wall, spine, organs, lungs -> hu, lung share, left half [Z, Y, X]."""
    sx, _, sz = (float(s) for s in grid.spacing)
    x, y, z = _to_patient(p, grid, k)
    cavity, lung, heart, above = chest(p, x, y, z, sx, sz)
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
    skin = oval(x, y + 10, p.half_width * (1 - 0.05 * top), p.half_depth * (1 - 0.20 * top * top), 0.35)
    paint(soft(skin), HU_SKIN)
    paint(soft(skin - 2), HU_FAT + 8 * texture)
    upper = np.clip((z - p.base) / p.height - 0.2, 0, 1)
    bump = lambda at, width: 1 / (1 + ((ax - at) / width) ** 2) ** 2  # noqa: E731
    coat = 17 + np.where(y > 0, 26 * upper * bump(62, 45), 14 * bump(30, 26) + 16 * bump(p.wide, 40)) + 90 * top
    muscle = np.minimum(np.minimum(coat + cavity, skin - p.fat), -cavity - 1)
    streak = np.abs(cavity + 18 + 3 * texture) - 1.2 + 40 * top  # fat plane between coat and ribs
    planes = 14 * np.abs(np.sin(ax / 23 + y / 37 + 0.3 * texture)) - 2 + 40 * (1 - np.clip(2 * top, 0, 1))  # shoulders
    share = soft(np.minimum(muscle, np.minimum(streak, planes))) * (1 - 0.6 * np.clip(texture - 1.1, 0, 1))
    paint(share, HU_MUSCLE + 5 * texture)
    # Under the diaphragm.
    belly = np.minimum(soft(cavity - 2), np.clip(0.5 - above - 2 / max(sx, sz), 0, 1))
    if belly.any():
        liver = oval(x + 52, y - 4, 98, p.deep * 0.93) + 4 * texture
        paint(belly * soft(liver), HU_LIVER + 3 * texture)
        paint(belly * soft(oval(x - 0.72 * p.wide, y + 0.45 * p.deep, 30, 34)), HU_SPLEEN)
        stomach = oval(x - 0.5 * p.wide, y - 0.30 * p.deep, 42, 34)
        paint(belly * soft(stomach), 45)
        paint(belly * soft(stomach - 4), np.where(y > 0.32 * p.deep, HU_AIR, HU_FLUID))
    # Heart; lungs, denser towards the back.
    share = np.clip(heart + 0.5, 0, 1) * np.clip(above + 0.5, 0, 1) * soft(cavity - 3)
    paint(share, HU_HEART + 3 * texture)
    lung = np.clip(lung + 0.5, 0, 1)
    paint(lung, p.lung_hu - p.dependent * np.clip(y / p.deep, -1, 1) / 2 + 14 * texture)
    fissure = np.abs(z - p.base - 0.50 * p.height + 1.05 * y - 0.15 * ax) * 0.68
    paint(lung * np.clip((0.6 + sx / 2 - fissure) / sx, 0, 1) * min(1.0, 1 / sx), -640)
    _paint_spine(p, grid, hu, (x, y, z), texture)
    return hu, lung, x > pull_at(p, z)


def _paint_spine(p, grid, hu, coordinates, texture) -> None:
    """Vertebral bodies with a cortex, discs, canal and arch, in the small window that holds them."""
    sx = float(grid.spacing[0])
    columns = np.flatnonzero(np.abs(grid.x - p.shift_x) < 55)
    rows = np.flatnonzero((grid.y - p.shift_y < p.spine_y + 45) & (grid.y - p.shift_y > p.spine_y - 60))
    if not (len(columns) and len(rows)):
        return
    x, y, z = coordinates
    window = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    bone, x, y, texture = hu[window], x[window], y[window] - p.spine_y, texture[window]
    soft = lambda depth: np.clip(depth / sx + 0.5, 0, 1)  # noqa: E731
    along = (0.40 - np.abs((z / p.vertebra - p.phase) % 1 - 0.5)) * p.vertebra  # > 0 inside a vertebra
    body = oval(x, y, 17.0, 14.0, 0.2)
    depth = np.minimum(body, along)
    arch = np.minimum(oval(x, y + 22, 17, 13), 4 - oval(x, y + 22, 13, 10) + 3)
    parts = (
        (soft(body), HU_DISC),
        (soft(np.minimum(arch, along + 4)), HU_CORTEX * 0.6 * p.bone),
        (soft(depth), HU_CORTEX * 0.8 * p.bone),
        (soft(depth - 1.8), HU_MARROW * p.bone + 14 * texture),
        (soft(oval(x, y + 22, 10.0, 8.0)), 25),
    )
    for share, value in parts:
        bone += share * (value - bone)


def _paint_mark(p, grid: Grid, hu, lung, mark: Mark, found=None) -> None:
    """Composites one mark into hu inside the lung; `found` receives where it is."""
    if not mark.rough:
        start = _to_scanner(p, mark.centre)
        end = start if mark.end is None else _to_scanner(p, mark.end)
        splat(grid, (start, end, mark.radius), mark.gain, mark.end is None, found)
        _flush(grid, hu, mark.hu, lung, clip=True)
        return
    centre, step = _to_scanner(p, mark.centre)[0], grid.spacing
    reach = mark.radius * (1 + mark.rough) + mark.soft + step
    low = np.maximum(np.ceil((centre - reach - grid.origin) / step), 0).astype(int)
    high = np.minimum(np.floor((centre + reach - grid.origin) / step), np.array(grid.whole[::-1]) - 1).astype(int) + 1
    low[2], high[2] = np.searchsorted(grid.kept, (low[2], high[2]))
    if np.any(high <= low):
        return
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


def _capsules(p, paths) -> tuple[np.ndarray, ...]:
    """Start [n, 3], end [n, 3] and radius [n], in this patient's mm, along paths of the reference patient."""
    points = [(from_carina(p, path), radius) for radius, path in paths]
    return join_capsules([(path[:-1], path[1:], np.full(len(path) - 1, radius)) for path, radius in points])


def render(p, grid: Grid, marks: list[Mark], noise: np.random.Generator):
    """Patient p with `marks` on a grid -> hu int16, lungs uint8, finding bool, each [Z, Y, X] of the slices kept."""
    hu, lung = np.empty(grid.shape, np.float32), np.empty(grid.shape, np.float32)
    side, found = np.empty(grid.shape, bool), np.zeros(grid.shape, bool)
    for k in grid.slabs():
        level = (grid.z[k] / p.length + 0.5) * (len(p.texture) - 1)
        low = np.clip(level.astype(int), 0, len(p.texture) - 2)
        part = (level - low)[:, None, None].astype(np.float32)
        planes = p.texture[low] * (1 - part) + p.texture[low + 1] * part
        texture = np.stack([cv2.resize(plane, grid.shape[:0:-1], interpolation=cv2.INTER_CUBIC) for plane in planes])
        hu[k], lung[k], side[k] = _paint_slab(p, grid, k, texture)

    def tubes(start, end, radius, value, erase=False):
        splat(grid, (_to_scanner(p, start), _to_scanner(p, end), radius))
        _flush(grid, hu, value, lung, erase=erase)

    start, end, radius, bony = patient.draw_bones(p)
    tubes(start[~bony], end[~bony], radius[~bony], HU_CARTILAGE)
    tubes(start[bony], end[bony], radius[bony], HU_CORTEX * p.bone)
    tubes(start[bony], end[bony], radius[bony] - 1.6, HU_MARROW * p.bone)
    start, end, radius = _capsules(p, patient.GREAT_VESSELS)
    tubes(start, end, radius * p.aorta, HU_BLOOD, erase=True)
    tubes(*p.vessels, HU_BLOOD)
    mask = np.where(lung > 0.5, 1 + side, 0).astype(np.uint8)
    for mark in p.incidental:
        _paint_mark(p, grid, hu, lung, mark)
    for mark in marks:
        _paint_mark(p, grid, hu, lung, mark, found)
    start, end, radius = join_capsules([_capsules(p, patient.AIRWAYS), p.bronchi])
    tubes(start, end, radius + np.minimum(0.35 + 0.12 * radius, 1.5), 10)  # the wall
    tubes(start, end, radius, HU_AIR + 5)
    found &= lung > 0
    _add_noise(p, grid, hu, noise)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16), mask, found


def _add_noise(p, grid: Grid, hu, rng) -> None:
    """Scanner noise, correlated over about a voxel, and -1000 HU outside the round field of view."""
    sx = float(grid.spacing[0])
    voxel = float(grid.spacing.prod()) ** (1 / 3)
    kernel = cv2.getGaussianKernel(5, max(p.kernel / sx, 0.05), cv2.CV_32F)
    sd = p.noise * (1.5 / voxel) ** 0.5 / float((kernel**2).sum())
    outside = grid.x**2 + grid.y[:, None] ** 2 > (p.fov / 2) ** 2
    word, white = int(rng.integers(2**63)), {}
    for row, k in enumerate(grid.kept.tolist()):
        # A stream of its own for each slice, which also reaches into the next one.
        white = {z: white[z] if z in white else _white(word, z, grid.shape[1:]) for z in (k - 1, k)}
        hu[row] += sd * cv2.sepFilter2D(0.94 * white[k] + 0.34 * white[k - 1], -1, kernel, kernel)
        hu[row][outside] = HU_AIR


def _white(word: int, z: int, shape) -> np.ndarray:
    return np.random.default_rng([word, z + 1]).standard_normal(shape, dtype=np.float32)
