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


def voxel_volume(scan):
    return float(np.prod(scan.spacing))


def finding_volume(scan):
    """mm3"""
    return scan.finding.sum() * voxel_volume(scan)


# --- Reproducible, and the same patient throughout --------------------------------------------------------
@pytest.mark.parametrize("seed", [5, (5, 2)])
def test_same_seed_gives_the_same_scan_bit_for_bit(seed):
    first, second = (make_phantom(seed, FIBRO_CAVERNOUS, **SMALL) for _ in range(2))
    for name in ("hu", "lungs", "finding"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.spacing == second.spacing


def test_seeds_differ_also_as_tuples():
    scans = [make_phantom(seed, FOCAL, **SMALL).hu for seed in (1, 2, (1, 0), (1, 1))]
    for i in range(4):
        for j in range(i):
            assert (scans[i] != scans[j]).mean() > 0.2


@pytest.mark.parametrize("label", [INFILTRATIVE, FOCAL, TUBERCULOMA, MILIARY])
def test_without_finding_the_same_patient_is_left(scans, label):
    for seed in SEEDS:
        ill, well = scans[label, seed], scans[None, seed]
        changed = ill.hu != well.hu
        near = ndimage.distance_transform_edt(~ill.finding, sampling=ill.spacing) < 40  # mm
        assert not well.finding.any()
        assert changed[ill.finding].mean() > 0.9
        assert not (changed & ~near).any()
        np.testing.assert_array_equal(ill.lungs, well.lungs)


def test_volume_loss_changes_the_chest_but_neither_the_wall_nor_the_noise(scans):
    for seed in SEEDS:
        ill, well = scans[FIBRO_CAVERNOUS, seed], scans[None, seed]
        changed = ill.hu != well.hu
        assert changed[ill.finding].mean() > 0.9
        edge = np.ones(changed.shape, bool)
        edge[4:-4, 13:-18] = False  # table, skin and the air around
        assert not changed[edge].any()


def test_volume_loss_pulls_the_mediastinum_to_the_side_of_the_cavities(scans):
    for seed in SEEDS:
        ill, well = scans[FIBRO_CAVERNOUS, seed], scans[None, seed]
        sides = np.bincount(ill.lungs[ill.finding], minlength=3)
        worse = 1 if sides[1] > sides[2] else 2
        assert sides[worse] > 5 * sides[3 - worse]
        lost = (ill.lungs == worse).sum() / (well.lungs == worse).sum()
        spared = (ill.lungs == 3 - worse).sum() / (well.lungs == 3 - worse).sum()
        assert lost < 0.97
        assert lost < spared - 0.02


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
    assert finding_volume(fine) == pytest.approx(finding_volume(coarse), rel=0.5)


def test_left_out_slices_follow_from_the_slice_thickness():
    thickness = {make_phantom(seed, FOCAL, size=16).spacing[2] for seed in range(4)}
    assert all(min(abs(t - s) for s in patient.SLICE_THICKNESS) < 0.05 for t in thickness)
    assert len(thickness) > 1


@pytest.mark.parametrize("label", range(5))
def test_works_on_the_smallest_grid(label):
    scan = make_phantom(1, label, size=16, slices=4)
    assert scan.hu.shape == scan.lungs.shape == scan.finding.shape == (16, 16, 4)
    assert scan.finding.any()


# --- Anatomy ----------------------------------------------------------------------------------------------
def test_types_orientation_and_affine(scans):
    scan = scans[INFILTRATIVE, 3]
    assert (scan.hu.dtype, scan.lungs.dtype, scan.finding.dtype) == (np.int16, np.uint8, bool)
    assert nibabel.aff2axcodes(scan.affine) == ("L", "A", "S")
    assert nibabel.affines.voxel_sizes(scan.affine) == pytest.approx(scan.spacing)
    centre = scan.affine @ [*(np.array(scan.hu.shape) - 1) / 2, 1]
    assert centre == pytest.approx([0, 0, 0, 1])
    assert 300 <= scan.spacing[0] * 96 <= 400
    assert 260 <= scan.spacing[2] * 40 <= 330


def test_tissues_have_their_hounsfield_units(scans):
    for seed in SEEDS:
        scan = scans[None, seed]
        lung = ndimage.binary_erosion(scan.lungs > 0, iterations=2)
        assert -950 < scan.hu[lung].mean() < -650
        assert (scan.hu[0, 0] == HU_AIR).all()
        assert scan.hu[48, 92].mean() < -950  # in front of the patient
        middle = scan.hu[30:66, 30:66, 10:14]  # heart and liver
        assert 20 < np.median(middle[middle > -50]) < 70
        assert (scan.hu > 250).mean() > 0.002
        assert ((scan.hu > -140) & (scan.hu < -60)).mean() > 0.02


def test_organs_are_where_they_belong(scans):
    for seed in SEEDS:
        scan = scans[None, seed]
        x = np.arange(96)[:, None, None]
        right, left = scan.lungs == 1, scan.lungs == 2
        assert (x * right).sum() / right.sum() + 20 < (x * left).sum() / left.sum()
        litres = (scan.lungs > 0).sum() * voxel_volume(scan) / 1e6
        assert 2 < litres < 9
        assert 0.9 < right.sum() / left.sum() < 1.4
        for mask in (right, left):  # one piece each
            pieces = ndimage.label(mask)[0]
            assert np.bincount(pieces[mask])[1:].max() > 0.99 * mask.sum()
        bone = np.argwhere(scan.hu[30:66, :, 15:25] > 250)
        assert np.median(bone[:, 1]) < 40  # the spine is at the back
        heart_level = 24 if (scan.lungs[:, :, 10] > 0).sum() < 300 else 17
        assert right[:, :, heart_level].sum() > left[:, :, heart_level].sum()  # the heart takes the left


def test_the_airway_is_open_and_forks(scans):
    scan = scans[None, 3]
    spread = []
    for z in (33, 18):  # neck and below the carina, beyond which bronchi lie apart
        low = ndimage.label(scan.hu[36:60, 30:66, z] < -700)[0]
        spread.append(len(np.unique(low)) - 1)
    assert spread[0] >= 1
    assert (scan.hu[40:56, 30:60, 36] < -600).any()


# --- Findings ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("label", range(5))
def test_findings_lie_in_the_lungs(scans, label):
    for seed in SEEDS:
        scan = scans[label, seed]
        assert scan.finding.any()
        assert (scan.lungs[scan.finding] > 0).mean() > 0.9


def test_infiltrates_are_ground_glass_patches_mostly_above(scans):
    upper, means = 0, []
    for seed in range(10):
        scan = make_phantom(seed, INFILTRATIVE, size=64, slices=32)
        pieces = ndimage.label(scan.finding)[0]
        largest = pieces == np.bincount(pieces[scan.finding]).argmax()
        means.append(scan.hu[largest].mean())
        lung = np.flatnonzero((scan.lungs > 0).any(axis=(0, 1)))
        upper += np.argwhere(scan.finding)[:, 2].mean() > lung.mean()
    assert upper >= 7
    assert -600 < np.mean(means) < -100
    assert np.min(means) > -720
    assert np.max(means) < -50


def test_foci_are_few_and_small(monkeypatch):
    monkeypatch.setattr(phantom, "MIMIC_PROBABILITY", 0.0)  # no halos
    for seed in SEEDS:
        scan = make_phantom(seed, FOCAL, size=160, slices=80)
        pieces, count = ndimage.label(scan.finding, np.ones((3, 3, 3)))
        assert 1 <= count <= 6
        sizes = np.bincount(pieces.ravel())[1:] * voxel_volume(scan)
        single = (6 * sizes / np.pi) ** (1 / 3)
        assert np.median(single) < 14
        assert (6 * sizes.sum() / np.pi) ** (1 / 3) < 14 * count ** (1 / 3) + 4


def test_tuberculoma_is_one_round_nodule_of_15_to_40_mm(monkeypatch):
    monkeypatch.setattr(phantom, "MIMIC_PROBABILITY", 0.0)  # no satellites
    for seed in range(6):
        scan = make_phantom(seed, TUBERCULOMA, **GRID)
        assert 13.5 < (6 * finding_volume(scan) / np.pi) ** (1 / 3) < 42
        assert ndimage.label(scan.finding)[1] == 1
        extent = np.ptp(np.argwhere(scan.finding), axis=0) + 1
        assert np.ptp(extent * scan.spacing) < 2 * max(scan.spacing) + 6
        assert scan.hu[scan.finding].max() > 0


def test_miliary_nodules_are_many_and_everywhere(scans):
    for seed in SEEDS:
        scan = make_phantom(seed, MILIARY, size=128, slices=64)
        pieces = ndimage.label(scan.finding)[0]
        assert pieces.max() > 200
        sides = np.bincount(scan.lungs[scan.finding], minlength=3)[1:]
        assert sides.min() > 0.3 * sides.sum()
        height = np.argwhere(scan.finding)[:, 2]
        assert np.ptp(np.percentile(height, [5, 95])) > 0.5 * np.ptp(np.flatnonzero(scan.lungs.any((0, 1))))


def test_cavities_hold_air_within_a_wall():
    for seed in SEEDS:
        scan = make_phantom(seed, FIBRO_CAVERNOUS, size=128, slices=64)
        air = scan.finding & (scan.hu < -900)
        assert air.sum() * voxel_volume(scan) > 200  # mm3
        lumen = ndimage.label(air)[0]
        largest = lumen == np.bincount(lumen[air]).argmax()
        shell = ndimage.binary_dilation(largest, iterations=2) & ~ndimage.binary_dilation(largest)
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
def test_small_nodules_keep_their_volume_on_every_grid(radius, shape):
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


# --- Cohort and folder ------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 4, 5, 6, 20, 101, 917])
def test_cohort_has_the_benchmark_shares(n):
    labels = cohort_labels(n, 3)
    counts = np.bincount(labels, minlength=5)
    share = n * np.array(TB_TRAIN_COUNTS) / 917
    assert labels.dtype == np.int64
    assert counts.sum() == n
    assert n < 5 or counts.min() >= 1
    if n >= 20:
        assert np.abs(counts - share).max() < 1
        assert (np.diff(labels) < 0).any()
    if n == 917:
        assert tuple(counts) == TB_TRAIN_COUNTS


def test_cohort_order_follows_the_seed():
    np.testing.assert_array_equal(cohort_labels(50, 1), cohort_labels(50, 1))
    assert (cohort_labels(50, 1) != cohort_labels(50, 2)).any()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("seed", {"seed": -1}),
        ("seed", {"seed": (1, -2)}),
        ("seed", {"seed": ()}),
        ("seed", {"seed": 1.5}),
        ("label", {"label": len(TB_CLASSES)}),
        ("label", {"label": -1}),
        ("label", {"label": True}),
        ("size", {"size": 15}),
        ("size", {"size": 64.0}),
        ("slices", {"slices": 3}),
        ("slices", {"slices": 0}),
    ],
)
def test_wrong_arguments_are_named(name, change):
    with pytest.raises(SettingError, match=name):
        make_phantom(**({"seed": 1, "label": 0} | SMALL | change))
