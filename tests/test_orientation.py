"""The same patient stored in other ways."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from viptt_core.ct import axis_directions, load_volume, prepare_volume
from viptt_core.errors import DataError, SettingError

GRID = {"depth": 7, "size": 12}
SPACING = (0.8, 0.7, 2.5)
STORED = [
    tuple(pair[direction] for pair, direction in zip(axes, directions, strict=True))
    for axes in permutations((("L", "R"), ("A", "P"), ("S", "I")))
    for directions in product((0, 1), repeat=3)
]


@pytest.fixture(scope="module")
def patient():
    """Smooth noise, different in every direction, stored as ('L', 'A', 'S')."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((20, 24, 14)), 1.5)
    voxels = (-400 + 900 * smooth / smooth.std()).astype(np.int16)
    return nib.Nifti1Image(voxels, np.diag([-SPACING[0], SPACING[1], SPACING[2], 1.0]))


def stored_as(image, axes):
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes))
    return image.as_reoriented(turn)


@pytest.mark.parametrize("axes", STORED, ids="".join)
def test_every_way_to_store_a_patient_gives_one_canonical_volume(patient, axes, tmp_path):
    path = tmp_path / "scan.nii.gz"
    stored_as(patient, axes).to_filename(path)
    expected = prepare_volume(np.asarray(patient.dataobj), **GRID)
    np.testing.assert_allclose(load_volume(path, orientation="canonical", **GRID), expected, atol=2e-6)
    same = np.abs(load_volume(path, **GRID) - expected).max() < 2e-6
    assert same == (axes == ("L", "A", "S"))


def test_canonical_shows_a_patient_as_radiologists_do(tmp_path):
    """Front on top, the patient's left on the right, feet first."""
    voxels = np.full((10, 10, 10), -1000, np.int16)
    for corner, hu in (((9, 5, 5), -600), ((5, 9, 5), -200), ((5, 5, 9), 200)):  # right, front, head in RAS
        voxels[corner] = hu
    nib.Nifti1Image(voxels, np.diag([1, 1, 3, 1.0])).to_filename(tmp_path / "ras.nii.gz")
    volume = load_volume(tmp_path / "ras.nii.gz", depth=10, size=10, orientation="canonical")

    def at(hu):
        return tuple(np.argwhere(np.isclose(volume, (hu + 1000) / 1400, atol=1e-6))[0])

    assert at(-600)[2] == 0 and at(-200)[1] == 0 and at(200)[0] == 9  # [slice, row, column]


def test_an_oblique_scan_goes_to_the_nearest_axes(patient, tmp_path):
    turned = nib.affines.from_matvec(nib.eulerangles.euler2mat(z=0.3)) @ patient.affine
    nib.Nifti1Image(patient.dataobj, turned).to_filename(tmp_path / "scan.nii.gz")
    assert axis_directions(turned).tolist() == [[0, 1], [1, 1], [2, 1]]
    expected = prepare_volume(np.asarray(patient.dataobj), **GRID)
    np.testing.assert_array_equal(load_volume(tmp_path / "scan.nii.gz", orientation="canonical", **GRID), expected)


def test_an_affine_without_a_direction_is_named(patient, tmp_path):
    image = nib.Nifti1Image(np.asarray(patient.dataobj), np.eye(4))
    image.set_sform(np.diag([-1, 1, 0, 1.0]), 1)
    image.to_filename(tmp_path / "flat.nii.gz")
    load_volume(tmp_path / "flat.nii.gz", **GRID)  # the authors' way does not look at it
    with pytest.raises(DataError, match="flat.nii.gz.*no direction"):
        load_volume(tmp_path / "flat.nii.gz", orientation="canonical", **GRID)


def test_an_unknown_orientation_is_refused_before_the_file_is_opened():
    with pytest.raises(SettingError, match="orientation 'RAS' does not exist.*file, canonical"):
        load_volume("nowhere.nii.gz", orientation="RAS")
