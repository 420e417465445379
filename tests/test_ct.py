"""Chest CT files against the authors' steps in scipy, and every way a file can be unusable."""

import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from viptt_core.ct import load_volume, prepare_volume, resample_volume, window_hu
from viptt_core.errors import DataError, DataWarning, SettingError
from viptt_core.nifti import read_nifti

SHARED = Path(os.environ.get("VIPTT_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
REAL_SCANS = sorted((SHARED / "ct").glob("*.nii.gz"))
AFFINE = np.diag([-0.7, -0.7, 2.5, 1.0])


def authors_steps(hu, depth, size, low=-1000, high=400):
    """What the authors' TB notebook does, by the functions it calls."""
    volume = (np.clip(hu.astype(np.float64), low, high) - low) / (high - low)
    volume = ndimage.rotate(volume, 90, axes=(1, 0), reshape=hu.shape[0] != hu.shape[1])
    factors = np.array([size, size, depth]) / volume.shape
    return np.moveaxis(np.clip(ndimage.zoom(volume, factors, order=1), 0, 1), 2, 0)


def lumpy_scan(shape=(40, 40, 20), dtype=np.int16, seed=0):
    """Smooth noise over the range of air to bone, different in every direction."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    return (-400 + 450 * smooth / smooth.std()).astype(dtype)


def write_scan(path, voxels, kind=nib.Nifti1Image, header=None):
    kind(voxels, AFFINE, header=header).to_filename(path)
    return path


def patch(path, offset, new):
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(new)] = new
    path.write_bytes(raw)
    return path


@pytest.fixture
def scan(tmp_path):
    return write_scan(tmp_path / "scan.nii.gz", lumpy_scan())


@pytest.fixture
def plain(tmp_path):
    """Uncompressed, so that header fields can be overwritten in place."""
    return write_scan(tmp_path / "scan.nii", lumpy_scan())


def refused(path, remedy, call=read_nifti):
    with pytest.raises(DataError) as caught:
        call(path)
    assert str(path) in str(caught.value)
    assert remedy in str(caught.value)
    return str(caught.value)


# --- Agreement with the authors' preprocessing -----------------------------------------------


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.name, marks=[pytest.mark.slow] * (n > 0)) for n, path in enumerate(REAL_SCANS)],
)
def test_real_scan_agrees_with_the_authors_steps(path):
    ours = load_volume(path)
    theirs = authors_steps(np.asanyarray(nib.load(path).dataobj), 70, 224)
    assert (ours.shape, ours.dtype) == ((70, 224, 224), np.float32)
    assert np.abs(ours - theirs).mean() <= 5e-4


@pytest.mark.parametrize(
    ("shape", "depth", "size"),
    [
        ((40, 40, 20), 31, 24),
        ((40, 40, 20), 7, 64),
        ((24, 24, 1), 5, 16),
        ((24, 24, 9), 1, 1),
        ((24, 24, 9), 9, 24),
        ((24, 24, 2), 70, 30),
        ((30, 22, 11), 8, 16),
        ((22, 30, 11), 8, 16),
        ((1, 1, 3), 4, 2),
    ],
)
def test_any_shape_agrees_with_the_authors_steps(shape, depth, size):
    hu = lumpy_scan(shape) if min(shape) > 1 or shape[0] > 1 else np.array([[[-900, 0, 300]]], np.int16)
    np.testing.assert_allclose(prepare_volume(hu, depth=depth, size=size), authors_steps(hu, depth, size), atol=2e-6)


def test_window_comes_before_interpolation():
    """Metal next to air: interpolating first would spread 3000 HU into the neighbours."""
    hu = lumpy_scan()
    hu[::3] = 3000
    np.testing.assert_allclose(prepare_volume(hu, depth=9, size=17), authors_steps(hu, 9, 17), atol=2e-6)


@pytest.mark.parametrize("window", [(-1000, 400), (-160, 240), (-1024.5, 3071)])
def test_window_setting_is_followed(scan, window):
    theirs = authors_steps(lumpy_scan(), 6, 12, *window)
    np.testing.assert_allclose(load_volume(scan, depth=6, size=12, hu_window=window), theirs, atol=2e-6)


def test_first_voxel_lands_bottom_left_in_the_first_slice():
    hu = np.full((8, 8, 5), -1000, np.int16)
    hu[0, 0, 0] = 400  # first along X, Y and Z
    hu[7, 0, 4] = -300  # last along X and Z
    volume = prepare_volume(hu, depth=5, size=8)
    assert volume[0, 7, 0] == 1.0
    assert volume[4, 7, 7] == pytest.approx(0.5)
    assert np.count_nonzero(volume) == 2


def test_window_maps_its_bounds_to_zero_and_one():
    hu = np.array([-2000, -1000, -300, 400, 3000], np.int16)
    np.testing.assert_allclose(window_hu(hu), [0, 0, 0.5, 1, 1], atol=1e-6)
    assert window_hu(hu).dtype == np.float32


@pytest.mark.parametrize("order", ["C", "F"])
def test_array_in_memory_is_not_changed(order):
    hu = np.asarray(lumpy_scan((12, 12, 6), np.float32), order=order)
    hu[3, 4, 5] = np.nan
    before = hu.copy()
    with pytest.warns(DataWarning, match="1 voxels"):
        volume = prepare_volume(hu, depth=4, size=6)
    np.testing.assert_array_equal(hu, before)
    assert np.isfinite(volume).all()


@pytest.mark.parametrize("shape", [(20, 20, 9), (17, 26, 5), (12, 9, 1), (9, 9, 40)])
@pytest.mark.parametrize("scaling", [None, (2.0, -1024.0), (0.5, 3.0)])
@pytest.mark.parametrize("dtype", ["int16", ">i2", "int32", "float32", "float64", ">f4"])
def test_one_pass_equals_the_whole_array(tmp_path, dtype, scaling, shape):
    voxels = lumpy_scan(shape, np.float64).astype(dtype)
    voxels[0, 0, 0] = -1000
    path = tmp_path / "scan.nii"
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    write_scan(path, voxels, header=header)
    if scaling:
        patch(path, 112, struct.pack(">ff" if dtype.startswith(">") else "<ff", *scaling))
    packed = tmp_path / "scan.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    whole, _ = read_nifti(path)
    np.testing.assert_allclose(whole, voxels * scaling[0] + scaling[1] if scaling else voxels, rtol=1e-5, atol=1e-3)
    for order in "CF":
        expected = prepare_volume(np.asarray(whole, order=order), depth=7, size=11)
        np.testing.assert_array_equal(load_volume(path, depth=7, size=11), expected)
        np.testing.assert_array_equal(load_volume(packed, depth=7, size=11), expected)


# --- Reading -----------------------------------------------------------------------------------


def test_voxels_that_are_not_finite_are_air_and_counted(tmp_path):
    voxels = lumpy_scan(dtype=np.float32)
    as_air = voxels.copy()
    voxels[3, 4, 5], voxels[6, 7, 8], voxels[0, 0, 0] = np.nan, np.inf, -np.inf
    as_air[3, 4, 5] = as_air[6, 7, 8] = as_air[0, 0, 0] = -1000
    path = write_scan(tmp_path / "holes.nii.gz", voxels)
    with pytest.warns(DataWarning, match=r"holes\.nii\.gz: 3 of 32000 voxels.*air") as caught:
        volume = load_volume(path, depth=20, size=40)
    assert len(caught) == 1
    np.testing.assert_array_equal(volume, prepare_volume(as_air, depth=20, size=40))


def test_missing_file_and_folder_are_refused(tmp_path):
    refused(tmp_path / "none.nii.gz", "Check the path", load_volume)
    refused(tmp_path, "Check the path", load_volume)


# --- Unusable input -----------------------------------------------------------------------------


def stored(voxels=None, offset=0, values=b"", kind=nib.Nifti1Image):
    """A file that is not compressed, with other bytes in its header."""
    content = bytearray(kind(lumpy_scan() if voxels is None else voxels, AFFINE).to_bytes())
    content[offset : offset + len(values)] = values
    return bytes(content)


def packed(content, kept=1.0, at=None, values=b""):
    """Compressed, then cut, or with other bytes at a place."""
    content = bytearray(gzip.compress(content))
    if at is not None:
        content[at : at + len(values)] = values
    return bytes(content[: int(len(content) * kept)])


AGAIN, CONVERT = "download the file again", "dcm2niix"
UNUSABLE = {
    "empty": (b"", "0 bytes", AGAIN),
    "no gzip": (stored(), "not gzip", AGAIN),
    "cut at the beginning": (packed(stored(), kept=0.001), "truncated", AGAIN),
    "cut in the middle": (packed(stored(), kept=0.5), "truncated", AGAIN),
    "cut at the end": (packed(stored(), kept=0.999), "truncated", AGAIN),
    "a block type that does not exist": (packed(stored(), at=10, values=b"\xff" * 40), "damaged", AGAIN),  # RFC 1951
    "text": (packed(b"FileName,TypeOfTB\n" * 99), "not a NIfTI", CONVERT),
    "zeros": (packed(bytes(1000)), "not a NIfTI", CONVERT),
    "header of a pair": (packed(stored(offset=344, values=b"ni1\0")), "", "one 3-D .nii.gz file"),
    "header cut short": (packed(stored(kind=nib.Nifti2Image)[:400]), "truncated", AGAIN),
    "a byte too few": (packed(stored()[:-1]), "truncated", AGAIN),
    "no such size": (packed(stored(offset=42, values=struct.pack("<hhh", 30000, 30000, 30000))), "", CONVERT),
    "more than is there": (packed(stored(offset=42, values=struct.pack("<hhh", 4000, 4000, 30000))), "", AGAIN),
    **{
        f"{len(shape)} axes": (packed(stored(np.zeros(shape, np.int16))), str(len(shape)), "3-D")
        for shape in ((9,), (9, 8), (9, 8, 7, 2), (9, 8, 7, 1, 3))
    },
    "axis of length zero": (packed(stored(offset=44, values=bytes(2))), "length 0", CONVERT),
    "no finite voxel": (packed(stored(np.full((4, 4, 3), np.nan, np.float32))), "finite", CONVERT),
    "colour": (packed(stored(np.zeros((4, 4, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")]))), "colour", CONVERT),
    "complex": (packed(stored(np.zeros((4, 4, 3), np.complex64))), "colour", CONVERT),
    **{
        name: (packed(stored(offset=offset, values=struct.pack("<" + "f" * len(values), *values))), "", CONVERT)
        for name, offset, *values in (
            ("slope", 112, np.inf, 0.0),
            ("intercept", 112, 1.0, np.inf),
            ("affine", 280, np.nan),
            ("offset nan", 108, np.nan),
            ("offset inside header", 108, 8.0),
            ("offset far away", 108, 1e20),
        )
    },
    "orientation": (
        packed(stored(offset=252, values=struct.pack("<hhfff", 1, 0, 5, 5, 5))),  # the quaternion, not the matrix
        "",
        CONVERT,
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_files_are_refused_by_name_with_the_remedy(tmp_path, case):
    content, words, remedy = UNUSABLE[case]
    (tmp_path / "scan.nii.gz").write_bytes(content)
    assert words in refused(tmp_path / "scan.nii.gz", remedy)


WRONG_SETTINGS = {"depth": (0, 10**9), "size": (0, -5, 22.4, True, 10**7)}
WRONG_SETTINGS["hu_window"] = ((400, -1000), (0, 0), (np.nan, 400), (1, 2, 3), None, 5)


@pytest.mark.parametrize("settings", [{name: value} for name, values in WRONG_SETTINGS.items() for value in values])
def test_settings_are_checked_before_the_file(tmp_path, settings):
    for call in (load_volume, lambda _, **given: prepare_volume(lumpy_scan(), **given)):
        with pytest.raises(SettingError, match=f"{next(iter(settings))} is|too large") as caught:
            call(tmp_path / "none.nii.gz", **settings)
        assert "Give" in str(caught.value)


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 0), (5, 5, 5, 1)])
def test_array_of_another_shape_is_refused(shape):
    for call in (prepare_volume, resample_volume):
        with pytest.raises(DataError, match=r"Give \[X,Y,Z\]"):
            call(np.zeros(shape, np.int16), depth=2, size=2)
