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

import numpy as np
from scipy import ndimage

from viptt_core.constants import TB_CLASSES, TB_TRAIN_COUNTS
from viptt_core.errors import DataError, SettingError
from viptt_core.synthetic.patient import Mark, draw_patient, hull, sites
from viptt_core.synthetic.render import Grid, render

VERSION = "1"  # of the generator, recorded with every result: raise it when the output changes

# --- Difficulty: what makes the five types easier or harder to tell apart ----------------------------------
FINDING_CONTRAST = 1.0  # opacity of every soft finding; below 1 all disease is fainter
MIMIC_PROBABILITY = 0.2  # chance of each feature that a finding borrows from another type
FAINT_PROBABILITY = 0.1  # chance that a finding is drawn with FAINT_GAIN times its opacity
FAINT_GAIN = 0.65
MILIARY_COUNT = ((2000, 4000), (5000, 12000))  # nodules, log-uniform: sparse (a mimic) and usual
INCIDENTAL_PROBABILITY = 0.15  # chance of each benign background finding, in every patient
NOISE_SD = (10.0, 40.0)  # HU at 1.5 mm voxels, drawn per scanner


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


# --- The five findings ------------------------------------------------------------------------------------
def _balls(rng, sites, radius, hu, gain=1.0) -> Mark:
    return Mark(sites, rng.uniform(*radius, len(sites)), hu, gain)


def _patch(rng, centre, radius, hu, gain=1.0, rough=0.5, soft=6.0) -> Mark:
    return Mark(centre, np.broadcast_to(radius, 3) * 1.0, hu, gain, None, rough, soft, int(rng.integers(2**31)))


def _infiltrative(rng, p, gain, mimic) -> list[Mark]:
    """Ill-defined patches with small satellites, mostly in the upper lobes."""
    marks, side = [], int(rng.choice((-1, 1)))
    size = (12, 17) if mimic() else (19, 36)  # small ones look focal
    zone = (0.55, 0.97) if rng.random() < 0.85 else (0.1, 0.6)
    for _ in range(1 + rng.binomial(4, 0.5)):
        centre = sites(rng, p, 1, side=side if rng.random() < 0.75 else -side, height=zone, margin=7)[0]
        radius = rng.uniform(*size) * rng.uniform(0.7, 1.25, 3)
        marks.append(_patch(rng, centre, radius, rng.uniform(-300, 20), 0.92 * gain, 0.7, rng.uniform(5, 11)))
        near = sites(rng, p, int(rng.integers(6, 26)), margin=2, near=centre, spread=1.1 * radius.mean())
        marks.append(_balls(rng, near, (1.2, 2.8), -80, 0.8 * gain))
    if mimic():  # a small lucency, like a young cavity
        marks.append(_patch(rng, centre, rng.uniform(3, 6), -930, 0.9, 0.2, 1))
    return marks


def _focal(rng, p, gain, mimic) -> list[Mark]:
    """One or few soft foci under 12 mm in one or two segments."""
    marks, zone = [], (0.5, 0.97) if rng.random() < 0.65 else (0.05, 0.6)
    for segment in sites(rng, p, 1 + int(rng.random() < 0.4), height=zone, margin=9):
        for centre in sites(rng, p, int(rng.integers(1, 4)), near=segment, spread=10, margin=4):
            radius = rng.uniform(3.2, 5.4)
            marks.append(_patch(rng, centre, radius, rng.uniform(-180, 40), gain, 0.25, rng.uniform(0.5, 2.5)))
            if mimic():
                marks.insert(0, _patch(rng, centre, 1.8 * radius, -560, 0.6 * gain, 0.5, 4))
    return marks


def _tuberculoma(rng, p, gain, mimic) -> list[Mark]:
    """One round, sharp nodule of 15 to 40 mm, sometimes calcified or with a crescent of air."""
    radius = rng.uniform(10, 19)
    centre = sites(rng, p, 1, height=(0.4, 0.95) if rng.random() < 0.75 else (0.1, 0.5), margin=0.75 * radius)[0]
    marks = [_patch(rng, centre, radius * rng.uniform(0.92, 1.08, 3), rng.uniform(15, 60), 1.0, 0.07, 0.4)]
    if rng.random() < 0.2:
        marks += [
            _patch(rng, centre + (0, 0.1 * radius, 0), 0.78 * radius, -960, 1.0, 0.05, 0.4),
            Mark(centre[None] - (0, 0.12 * radius, 0), np.array([0.70 * radius]), 35),
        ]
    elif rng.random() < 0.4:
        spots = centre + rng.normal(0, 0.25 * radius, (int(rng.integers(1, 5)), 3))
        marks.append(_balls(rng, spots, (0.08 * radius, 0.25 * radius), rng.uniform(250, 800)))
    if mimic():
        marks.append(
            _balls(
                rng,
                sites(rng, p, int(rng.integers(2, 7)), near=centre, spread=1.6 * radius),
                (1.5, 3.5),
                -40,
                gain,
            )
        )
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
            marks.append(_patch(rng, centre + rng.normal(0, 5, 3), 1.5 * shape, -330, 0.75 * gain, 0.7, 9))
        marks.append(_patch(rng, centre, shape, rng.uniform(15, 60), 1.0, 0.16, 1.0))
        bands = sites(rng, p, int(rng.integers(4, 10)), near=centre, spread=1.5 * radius, side=side, margin=-2)
        marks.append(Mark(np.repeat(centre[None], len(bands), 0), rng.uniform(0.7, 2.0, len(bands)), 20, gain, bands))
        marks.append(
            _balls(
                rng,
                sites(rng, p, int(rng.integers(4, 14)), near=centre, spread=1.6 * radius),
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
    c, y, _, b = hull(p, p.apex - 10)
    marks.insert(0, _patch(rng, np.array([side * c, y, p.apex - 6]), np.array([24, 26, 10]), 10, gain, 0.4, 2))
    return marks


_FINDINGS = (_infiltrative, _focal, _tuberculoma, _miliary, _fibro_cavernous)


# --- What others call -------------------------------------------------------------------------------------
def _check_whole(name: str, value, least: int, most: float = np.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        allowed = f"from {least} to {most}" if most < np.inf else f"of at least {least}"
        raise SettingError(f"{name}={value!r} is not allowed.", remedy=f"{name} must be a whole number {allowed}.")


def make_phantom(seed, label: int, *, size: int = 512, slices: int | None = None, finding: bool = True) -> Phantom:
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
    p, marks = draw_patient(patient, INCIDENTAL_PROBABILITY, NOISE_SD), []
    if finding:
        gain = FINDING_CONTRAST * (FAINT_GAIN if disease.random() < FAINT_PROBABILITY else 1.0)
        marks = _FINDINGS[label](disease, p, gain, lambda: disease.random() < MIMIC_PROBABILITY)
    grid = Grid(int(size), int(slices or round(p.length / p.thickness)), p.fov, p.length)
    hu, lungs, found = (volume.transpose(2, 1, 0) for volume in render(p, grid, marks, noise))
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


def _write_scan(root: Path, name: str, seed: tuple[int, int], label: int, size: int, slices: int | None) -> None:
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
        raise DataError("The folder holds scans that are no phantoms.", path=root, remedy="Give another folder.")
    for folder in ("masks1", "masks2", "findings"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    _publish(record, content.encode())
    names = [f"TRN_{i + 1:04d}.nii.gz" for i in range(n)]
    jobs = (delayed(_write_scan)(root, name, (seed, i), int(labels[i]), size, slices) for i, name in enumerate(names))
    done = Parallel(n_jobs=n_jobs, return_as="generator")(jobs)
    for _ in tqdm(done, total=n, desc="phantoms", disable=not progress):
        pass
    rows = [f"{name},{label + 1}" for name, label in zip(names, labels, strict=True)]
    _publish(root / "TRN_labels.csv", "\n".join(["FileName,TypeOfTB", *rows, ""]).encode())
    return root
