"""The synthetic CT: reproducible, anatomically sane, the five findings as specified."""

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from viptt_core.constants import HU_AIR, TB_CLASSES, TB_TRAIN_COUNTS
from viptt_core.ct import prepare_volume, slices_between
from viptt_core.errors import SettingError
from viptt_core.synthetic import patient, phantom, render
from viptt_core.synthetic.phantom import cohort_labels, make_phantom

INFILTRATIVE, FOCAL, TUBERCULOMA, MILIARY, FIBRO_CAVERNOUS = range(5)
GRID = {"size": 96, "slices": 40}
SMALL = {"size": 32, "slices": 8}
SEEDS = (3, 4)


@pytest.fixture(scope="module")
def scans():
    """label, seed -> the scan with its finding; None, seed -> the same patient without."""
    made = {(label, seed): make_phantom((seed, 7), label, **GRID) for label in range(5) for seed in SEEDS}
    return made | {(None, seed): make_phantom((seed, 7), 0, finding=False, **GRID) for seed in SEEDS}


def volume(scan, mask):
    """mm3"""
    return mask.sum() * float(np.prod(scan.spacing))


def diameter(mm3):
    """Of a ball of this volume, mm."""
    return (6 * mm3 / np.pi) ** (1 / 3)


def pieces(mask):
    """The largest connected piece of a mask, and how many there are."""
    numbered, count = ndimage.label(mask)
    return numbered == np.bincount(numbered[mask]).argmax(), count


# --- Reproducible, and the same patient throughout --------------------------------------------------------
def test_the_same_seed_gives_the_same_scan_bit_for_bit_and_others_differ():
    scans = {}
    for seed in (1, 2, (1, 0), (1, 1)):
        scans[seed], again = (make_phantom(seed, FIBRO_CAVERNOUS, **SMALL) for _ in range(2))
        for name in ("hu", "lungs", "finding", "spacing"):
            np.testing.assert_array_equal(getattr(scans[seed], name), getattr(again, name))
        differing = [(scans[seed].hu != other.hu).mean() for known, other in scans.items() if known != seed]
        assert min(differing, default=1) > 0.2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("label", range(5))
def test_a_finding_lies_in_the_lungs_and_without_it_the_same_patient_is_left(scans, label, seed):
    ill, well = scans[label, seed], scans[None, seed]
    changed = ill.hu != well.hu
    assert (ill.lungs[ill.finding] > 0).mean() > 0.9 and not well.finding.any()
    assert changed[ill.finding].mean() > 0.9
    if label == FIBRO_CAVERNOUS:  # volume loss changes the chest, but neither the wall nor the noise
        edge = np.ones(changed.shape, bool)
        edge[4:-4, 13:-18] = False  # table, skin and the air around
        assert not changed[edge].any()
        sides = np.bincount(ill.lungs[ill.finding], minlength=3)  # and pulls the mediastinum to that of the cavities
        worse = 1 if sides[1] > sides[2] else 2
        lost, spared = ((ill.lungs == side).sum() / (well.lungs == side).sum() for side in (worse, 3 - worse))
        assert sides[worse] > 5 * sides[3 - worse] and lost < min(0.97, spared - 0.02)
    else:
        near = ndimage.distance_transform_edt(~ill.finding, sampling=ill.spacing) < 40  # mm
        assert not (changed & ~near).any()
        np.testing.assert_array_equal(ill.lungs, well.lungs)


def test_another_grid_shows_the_same_patient_and_finding():
    fine = make_phantom(9, TUBERCULOMA, size=96, slices=48)
    coarse = make_phantom(9, TUBERCULOMA, size=48, slices=24)
    assert np.allclose(np.multiply(fine.spacing, fine.hu.shape), np.multiply(coarse.spacing, coarse.hu.shape))
    means = fine.hu.reshape(48, 2, 48, 2, 24, 2).mean(axis=(1, 3, 5))
    inside = np.hypot(*np.mgrid[-23.5:24, -23.5:24])[:, :, None] < 23 + np.zeros(24)
    assert np.abs(means - coarse.hu)[inside].mean() < 45
    assert np.corrcoef(means[inside], coarse.hu[inside])[0, 1] > 0.98
    centres = [s.affine @ [*np.argwhere(s.finding).mean(axis=0), 1] for s in (fine, coarse)]
    assert np.linalg.norm(centres[0] - centres[1]) < 6
    assert volume(fine, fine.finding) == pytest.approx(volume(coarse, coarse.finding), rel=0.5)


def test_grids_range_from_the_smallest_to_that_of_the_slice_thickness():
    for label in range(5):
        scan = make_phantom(1, label, size=16, slices=4)
        assert scan.hu.shape == scan.lungs.shape == scan.finding.shape == (16, 16, 4) and scan.finding.any()
    thickness = {make_phantom(seed, FOCAL, size=16).spacing[2] for seed in range(4)}
    assert all(min(abs(t - s) for s in patient.SLICE_THICKNESS) < 0.05 for t in thickness) and len(thickness) > 1


# --- Anatomy ----------------------------------------------------------------------------------------------
def test_types_orientation_and_affine(scans):
    scan = scans[INFILTRATIVE, 3]
    assert (scan.hu.dtype, scan.lungs.dtype, scan.finding.dtype) == (np.int16, np.uint8, bool)
    assert nibabel.aff2axcodes(scan.affine) == ("L", "A", "S")
    assert nibabel.affines.voxel_sizes(scan.affine) == pytest.approx(scan.spacing)
    assert scan.affine @ [*(np.array(scan.hu.shape) - 1) / 2, 1] == pytest.approx([0, 0, 0, 1])
    assert 300 <= scan.spacing[0] * 96 <= 400 and 260 <= scan.spacing[2] * 40 <= 330


@pytest.mark.parametrize("seed", SEEDS)
def test_tissues_have_their_hounsfield_units(scans, seed):
    hu = scans[None, seed].hu
    assert -950 < hu[ndimage.binary_erosion(scans[None, seed].lungs > 0, iterations=2)].mean() < -650
    assert (hu[0, 0] == HU_AIR).all() and hu[48, 92].mean() < -950  # the latter in front of the patient
    assert (hu[40:56, 30:60, 36] < -600).any()  # the airway in the neck
    middle = hu[30:66, 30:66, 10:14]  # heart and liver
    assert 20 < np.median(middle[middle > -50]) < 70
    assert (hu > 250).mean() > 0.002 and ((hu > -140) & (hu < -60)).mean() > 0.02  # bone, fat


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_are_where_they_belong(scans, seed):
    scan = scans[None, seed]
    right, left = scan.lungs == 1, scan.lungs == 2
    assert np.argwhere(right)[:, 0].mean() + 20 < np.argwhere(left)[:, 0].mean()
    assert 2e6 < volume(scan, scan.lungs > 0) < 9e6 and 0.9 < right.sum() / left.sum() < 1.4
    for mask in (right, left):  # one piece each
        assert pieces(mask)[0].sum() > 0.99 * mask.sum()
    bone = np.argwhere(scan.hu[30:66, :, 15:25] > 250)
    assert np.median(bone[:, 1]) < 40  # the spine is at the back
    heart_level = 24 if (scan.lungs[:, :, 10] > 0).sum() < 300 else 17
    assert right[:, :, heart_level].sum() > left[:, :, heart_level].sum()  # the heart takes the left


# --- Findings ---------------------------------------------------------------------------------------------
def test_infiltrates_are_ground_glass_patches_mostly_above():
    upper, means = 0, []
    for seed in range(10):
        scan = make_phantom(seed, INFILTRATIVE, size=64, slices=32)
        means.append(scan.hu[pieces(scan.finding)[0]].mean())
        lung = np.flatnonzero((scan.lungs > 0).any(axis=(0, 1)))
        upper += np.argwhere(scan.finding)[:, 2].mean() > lung.mean()
    assert upper >= 7
    assert -600 < np.mean(means) < -100 and np.min(means) > -720 and np.max(means) < -50


@pytest.mark.parametrize("seed", SEEDS)
def test_foci_are_few_and_small(monkeypatch, seed):
    monkeypatch.setattr(phantom, "MIMIC_PROBABILITY", 0.0)  # no halos
    scan = make_phantom(seed, FOCAL, size=160, slices=80)
    numbered, count = ndimage.label(scan.finding, np.ones((3, 3, 3)))
    sizes = [volume(scan, numbered == number) for number in range(1, count + 1)]
    assert 1 <= count <= 6 and np.median([diameter(size) for size in sizes]) < 14
    assert diameter(sum(sizes)) < 14 * count ** (1 / 3) + 4


@pytest.mark.parametrize("seed", range(6))
def test_tuberculoma_is_one_round_nodule_of_15_to_40_mm(monkeypatch, seed):
    monkeypatch.setattr(phantom, "MIMIC_PROBABILITY", 0.0)  # no satellites
    scan = make_phantom(seed, TUBERCULOMA, **GRID)
    assert 13.5 < diameter(volume(scan, scan.finding)) < 42 and pieces(scan.finding)[1] == 1
    extent = np.ptp(np.argwhere(scan.finding), axis=0) + 1
    assert np.ptp(extent * scan.spacing) < 2 * max(scan.spacing) + 6
    assert scan.hu[scan.finding].max() > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_miliary_nodules_are_many_and_everywhere(seed):
    scan = make_phantom(seed, MILIARY, size=128, slices=64)
    assert pieces(scan.finding)[1] > 200
    sides = np.bincount(scan.lungs[scan.finding], minlength=3)[1:]
    assert sides.min() > 0.3 * sides.sum()
    height = np.argwhere(scan.finding)[:, 2]
    assert np.ptp(np.percentile(height, [5, 95])) > 0.5 * np.ptp(np.flatnonzero(scan.lungs.any((0, 1))))


@pytest.mark.parametrize("seed", SEEDS)
def test_cavities_hold_air_within_a_wall(seed):
    scan = make_phantom(seed, FIBRO_CAVERNOUS, size=128, slices=64)
    air = scan.finding & (scan.hu < -900)
    assert volume(scan, air) > 200
    lumen = pieces(air)[0]
    shell = ndimage.binary_dilation(lumen, iterations=2) & ~ndimage.binary_dilation(lumen)
    assert (shell & scan.finding).sum() > 0.9 * shell.sum()
    assert np.percentile(scan.hu[shell], 75) > -150


def test_knobs_act(monkeypatch):
    def added():
        well, ill = (make_phantom(2, MILIARY, size=64, slices=32, finding=f).hu.astype(int) for f in (0, 1))
        return (ill - well).sum()

    full = added()
    monkeypatch.setattr(phantom, "FINDING_CONTRAST", 0.5)
    assert added() == pytest.approx(0.5 * full, rel=0.1)
    plain = make_phantom(2, FOCAL, finding=False, **SMALL).hu
    monkeypatch.setattr(phantom, "INCIDENTAL_PROBABILITY", 1.0)
    assert (make_phantom(2, FOCAL, finding=False, **SMALL).hu != plain).any()


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5, 4.0])
@pytest.mark.parametrize("shape", [(16, 8), (64, 60), (128, 20)])
def test_small_nodules_keep_their_volume_and_place_on_every_grid(radius, shape):
    grid = render.Grid(*shape, fov=240.0, length=240.0, kept=np.arange(shape[1]))
    volumes, n = [], 60
    for centre in np.random.default_rng(0).uniform(-60, 60, (n, 3)):
        grid.cover[:], found = 0, np.zeros(grid.shape, bool)
        render.splat(grid, (centre[None], centre[None], np.array([radius])), add=True, found=found)
        volumes.append(grid.cover.sum(dtype=float) * grid.spacing.prod())
        assert grid.cover.max() <= 1.0001
        assert found.any()
        z, y, x = (np.average(i, weights=grid.cover) for i in np.indices(grid.shape))
        at = grid.origin + grid.spacing * (x, y, z)
        assert np.abs(at - centre).max() < grid.spacing.max() / 2
    ratio = np.array(volumes) / (4 / 3 * np.pi * radius**3)
    assert ratio.mean() == pytest.approx(1, abs=0.03)
    assert ratio.min() > 0.75 and ratio.max() < 1.25


@pytest.mark.parametrize("label", range(5))
def test_slices_drawn_alone_are_those_of_the_whole_phantom(label):
    whole, part = make_phantom((4, label), label, size=48), make_phantom((4, label), label, size=48, depth=6)
    drawn = slices_between(whole.hu.shape[2], 6)
    assert len(drawn) < whole.hu.shape[2]
    np.testing.assert_array_equal(part.hu[:, :, drawn], whole.hu[:, :, drawn])
    np.testing.assert_array_equal(part.lungs[:, :, drawn], whole.lungs[:, :, drawn])
    np.testing.assert_array_equal(prepare_volume(part.hu, depth=6, size=24), prepare_volume(whole.hu, depth=6, size=24))


# --- Cohort -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 4, 5, 6, 20, 101, 917])
def test_a_cohort_has_the_benchmark_shares_in_an_order_by_its_seed(n):
    labels = cohort_labels(n, 3)
    counts = np.bincount(labels, minlength=5)
    assert labels.dtype == np.int64 and counts.sum() == n and (n < 5 or counts.min() >= 1)
    np.testing.assert_array_equal(labels, cohort_labels(n, 3))
    if n >= 20:
        assert np.abs(counts - n * np.array(TB_TRAIN_COUNTS) / 917).max() < 1
        assert (np.diff(labels) < 0).any() and (labels != cohort_labels(n, 2)).any()


WRONG = {
    "seed": (-1, (1, -2), (), 1.5),
    "label": (len(TB_CLASSES), -1, True),
    "size": (15, 64.0),
    "slices": (3, 0),
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(SettingError, match=name):
        make_phantom(**({"seed": 1, "label": 0} | SMALL | {name: value}))
