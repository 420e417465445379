"""Synthetic chest CT in Hounsfield units, with the five TB types as radiology describes them.

A patient is drawn once, in millimetres, and can then be sampled on any voxel grid. Extended organs are signed depths,
turned into soft coverage about one voxel wide; everything small (vessels, ribs, nodules) is a capsule that keeps its
volume on every grid, so that a 2 mm nodule in a 5 mm voxel counts with its volume fraction.

What is learnt from phantoms says nothing about patients: they show that the code runs and reacts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from viptt_core.constants import HU_AIR, TB_CLASSES, TB_TRAIN_COUNTS
from viptt_core.ct import slices_between
from viptt_core.errors import check_counts
from viptt_core.synthetic.patient import Mark, draw_patient, hull, sites
from viptt_core.synthetic.render import Grid, render

VERSION = "2"  # of the generator, recorded with every result: raise it when the output changes

# --- Difficulty: what makes the five types easier or harder to tell apart ----------------------------------
FINDING_CONTRAST = 1.0  # opacity of every soft finding; below 1 all disease is fainter
MIMIC_PROBABILITY = 0.2  # chance of each feature that a finding borrows from another type
FAINT_PROBABILITY = 0.1  # chance that a finding is drawn with FAINT_GAIN times its opacity
FAINT_GAIN = 0.65
MILIARY_COUNT = ((2000, 4000), (5000, 12000))  # nodules, log-uniform: sparse (a mimic) and usual
INCIDENTAL_PROBABILITY = 0.15  # chance of each benign background finding, in every patient
NOISE_SD = (10.0, 40.0)  # HU at 1.5 mm voxels, drawn per scanner


def difficulty() -> list[float]:
    """All of these, for the record of a folder's settings."""
    knobs = [FINDING_CONTRAST, MIMIC_PROBABILITY, FAINT_PROBABILITY, FAINT_GAIN, INCIDENTAL_PROBABILITY]
    return [*knobs, *NOISE_SD, *MILIARY_COUNT[0], *MILIARY_COUNT[1]]


@dataclass(frozen=True)
class Phantom:
    """One synthetic scan. All arrays are [X, Y, Z]: X to the patient's left, Y to the front, Z to the head."""

    hu: np.ndarray  #: int16, Hounsfield units
    spacing: tuple[float, float, float]  #: voxel size in mm along X, Y, Z
    lungs: np.ndarray  #: uint8, 1 right lung, 2 left lung, 0 elsewhere; disease in a lung belongs to it
    finding: np.ndarray  #: bool, where the finding is (half maximum of each of its parts); all False when left out

    @property
    def affine(self) -> np.ndarray:
        """Voxel index to mm, 4x4 float64, orientation ('L', 'A', 'S'), volume centred on the origin."""
        steps = np.array(self.spacing) * (-1, 1, 1)
        affine = np.diag([*steps, 1.0])
        affine[:3, 3] = -steps * (np.array(self.hu.shape) - 1) / 2
        return affine


# --- The five findings ------------------------------------------------------------------------------------
def _balls(rng, sites, radius, hu, gain=1.0) -> Mark:
    return Mark(sites, rng.uniform(*radius, len(sites)), hu, gain)


def _patch(rng, centre, radius, hu, gain=1.0, rough_and_soft=(0.5, 6.0)) -> Mark:
    return Mark(centre, np.broadcast_to(radius, 3) * 1.0, hu, gain, None, *rough_and_soft, int(rng.integers(2**31)))


def _satellites(rng, p, centre, spread, counts, gain) -> Mark:
    return _balls(rng, sites(rng, p, int(rng.integers(*counts)), near=centre, spread=spread), (1.5, 3.5), -40, gain)


def _infiltrative(rng, p, gain, mimic) -> list[Mark]:
    """Ill-defined patches with small satellites, mostly in the upper lobes."""
    marks, side = [], int(rng.choice((-1, 1)))
    size = (12, 17) if mimic() else (19, 36)  # small ones look focal
    zone = (0.55, 0.97) if rng.random() < 0.85 else (0.1, 0.6)
    for _ in range(1 + rng.binomial(4, 0.5)):
        centre = sites(rng, p, 1, side=side if rng.random() < 0.75 else -side, height=zone, margin=7)[0]
        radius = rng.uniform(*size) * rng.uniform(0.7, 1.25, 3)
        marks.append(_patch(rng, centre, radius, rng.uniform(-300, 20), 0.92 * gain, (0.7, rng.uniform(5, 11))))
        near = sites(rng, p, int(rng.integers(6, 26)), margin=2, near=centre, spread=1.1 * radius.mean())
        marks.append(_balls(rng, near, (1.2, 2.8), -80, 0.8 * gain))
    if mimic():  # a small lucency, like a young cavity
        marks.append(_patch(rng, centre, rng.uniform(3, 6), -930, 0.9, (0.2, 1)))
    return marks


def _focal(rng, p, gain, mimic) -> list[Mark]:
    """One or few soft foci under 12 mm in one or two segments."""
    marks, zone = [], (0.5, 0.97) if rng.random() < 0.65 else (0.05, 0.6)
    for segment in sites(rng, p, 1 + int(rng.random() < 0.4), height=zone, margin=9):
        for centre in sites(rng, p, int(rng.integers(1, 4)), near=segment, spread=10, margin=4):
            radius = rng.uniform(3.2, 5.4)
            marks.append(_patch(rng, centre, radius, rng.uniform(-180, 40), gain, (0.25, rng.uniform(0.5, 2.5))))
            if mimic():
                marks.insert(0, _patch(rng, centre, 1.8 * radius, -560, 0.6 * gain, (0.5, 4)))
    return marks


def _tuberculoma(rng, p, gain, mimic) -> list[Mark]:
    """One round, sharp nodule of 15 to 40 mm, sometimes calcified or with a crescent of air."""
    radius = rng.uniform(10, 19)
    centre = sites(rng, p, 1, height=(0.4, 0.95) if rng.random() < 0.75 else (0.1, 0.5), margin=0.75 * radius)[0]
    marks = [_patch(rng, centre, radius * rng.uniform(0.92, 1.08, 3), rng.uniform(15, 60), 1.0, (0.07, 0.4))]
    if rng.random() < 0.2:
        marks += [
            _patch(rng, centre + (0, 0.1 * radius, 0), 0.78 * radius, -960, 1.0, (0.05, 0.4)),
            Mark(centre[None] - (0, 0.12 * radius, 0), np.array([0.70 * radius]), 35),
        ]
    elif rng.random() < 0.4:
        spots = centre + rng.normal(0, 0.25 * radius, (int(rng.integers(1, 5)), 3))
        marks.append(_balls(rng, spots, (0.08 * radius, 0.25 * radius), rng.uniform(250, 800)))
    if mimic():
        marks.append(_satellites(rng, p, centre, 1.6 * radius, (2, 7), gain))
    return marks


def _miliary(rng, p, gain, mimic) -> list[Mark]:
    """Hundreds to thousands of 1.6 to 3 mm nodules all over both lungs; the sparse ones are hard to see."""
    count = int(np.exp(rng.uniform(*np.log(MILIARY_COUNT[0 if mimic() else 1]))))
    marks = [_balls(rng, sites(rng, p, count, margin=1.5), (0.8, 1.5), rng.uniform(-60, 60), gain)]
    if mimic():
        centre = sites(rng, p, 1, height=(0.55, 0.97), margin=7)[0]
        marks.append(_patch(rng, centre, rng.uniform(8, 16), -300, 0.8 * gain))
    return marks


def _fibro_cavernous(rng, p, gain, mimic) -> list[Mark]:
    """Thick-walled cavities and fibrous bands in a lung that shrinks and pulls the mediastinum over."""
    side = int(rng.choice((-1, 1)))
    p.pull, p.lift = side * rng.uniform(7, 24), rng.uniform(5, 22)
    marks = []
    for i in range(1 + rng.binomial(2, 0.6)):
        radius = rng.uniform(17, 31) if i == 0 else rng.uniform(11, 19)
        centre = sites(rng, p, 1, side=side, height=(0.55, 0.95), margin=0.7 * radius)[0]
        shape = radius * rng.uniform(0.85, 1.2, 3)
        if rng.random() < 0.7:
            marks.append(_patch(rng, centre + rng.normal(0, 5, 3), 1.5 * shape, -330, 0.75 * gain, (0.7, 9)))
        marks.append(_patch(rng, centre, shape, rng.uniform(15, 60), 1.0, (0.16, 1.0)))
        bands = sites(rng, p, int(rng.integers(4, 10)), near=centre, spread=1.5 * radius, side=side, margin=-2)
        marks.append(Mark(np.repeat(centre[None], len(bands), 0), rng.uniform(0.7, 2.0, len(bands)), 20, gain, bands))
        marks.append(_satellites(rng, p, centre, 1.6 * radius, (4, 14), gain))
        lumen = np.maximum(shape - rng.uniform(0.18, 0.42) * radius, 3)
        marks.append(_patch(rng, centre + rng.normal(0, 0.06 * radius, 3), lumen, -980, 1.0, (0.2, 0.5)))
    c, y, _, b = hull(p, p.apex - 10)
    marks.insert(0, _patch(rng, np.array([side * c, y, p.apex - 6]), np.array([24, 26, 10]), 10, gain, (0.4, 2)))
    return marks


_FINDINGS = (_infiltrative, _focal, _tuberculoma, _miliary, _fibro_cavernous)


# --- What others call -------------------------------------------------------------------------------------
def check_grid(size: int, slices: int | None) -> None:
    """Raise a SettingError unless a phantom can be drawn with this many voxels in-plane and slices."""
    check_counts(least=16, size=size)
    check_counts(least=4, slices=4 if slices is None else slices)


def make_phantom(
    seed, label: int, *, size: int = 512, slices: int | None = None, finding: bool = True, depth: int = 0
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
        depth: Draw only the slices that enter a resampling to so many (`ct.load_volume`), and leave the others air;
            0 draws all.

    Raises:
        SettingError: An argument is outside what is allowed.
    """
    words = seed if isinstance(seed, tuple) and seed else (seed,)
    for word in words:
        check_counts(least=0, seed=word)
    check_counts(least=0, most=len(TB_CLASSES) - 1, label=label)
    check_grid(size, slices)
    entropy = [len(words), *(int(word) for word in words)]  # the length tells (1,) from (1, 0)
    patient, disease, noise = (
        np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(stream,))) for stream in range(3)
    )
    p, marks = draw_patient(patient, INCIDENTAL_PROBABILITY, NOISE_SD), []
    if finding:
        gain = FINDING_CONTRAST * (FAINT_GAIN if disease.random() < FAINT_PROBABILITY else 1.0)
        marks = _FINDINGS[label](disease, p, gain, lambda: disease.random() < MIMIC_PROBABILITY)
    n_slices = int(slices or round(p.length / p.thickness))
    kept = np.array(slices_between(n_slices, depth) if depth else range(n_slices))
    grid, drawn = Grid(int(size), n_slices, p.fov, p.length, kept), []
    for part, empty in zip(render(p, grid, marks, noise), (HU_AIR, 0, False), strict=True):
        drawn.append(np.full(grid.whole, empty, part.dtype))
        drawn[-1][kept] = part
    hu, lungs, found = (volume.transpose(2, 1, 0) for volume in drawn)
    return Phantom(hu, tuple(grid.spacing.tolist()), lungs, found)


def cohort_labels(n: int, seed: int) -> np.ndarray:
    """Labels int64 [n] in random order, with the class shares of the benchmark's training part.

    Quotas by largest remainder; from n = 5 on every class occurs.
    """
    check_counts(n=n)
    check_counts(least=0, seed=seed)
    share = n * np.array(TB_TRAIN_COUNTS) / sum(TB_TRAIN_COUNTS)
    quota = np.floor(share).astype(np.int64)
    quota[np.argsort(quota - share, kind="stable")[: n - quota.sum()]] += 1
    for empty in np.flatnonzero(quota == 0) if n >= len(quota) else ():
        quota[quota.argmax()] -= 1
        quota[empty] = 1
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(quota)), quota))
