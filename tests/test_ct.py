"""Chest CT files against the authors' steps in scipy, and every way a file can be unusable."""

import gzip
import os
import struct
import tracemalloc
import warnings
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
    [pytest.param(p, id=p.name, marks=[pytest.mark.slow] if "512" in p.name else []) for p in REAL_SCANS],
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


def test_resampling_keeps_units_and_corners():
    hu = lumpy_scan((10, 12, 6))
    volume = resample_volume(hu, depth=4, size=5)
    assert volume.dtype == np.float32
    assert (volume[0, 4, 0], volume[3, 0, 4]) == (hu[0, 0, 0], hu[-1, -1, -1])


@pytest.mark.parametrize("order", ["C", "F"])
def test_array_in_memory_is_not_changed(order):
    hu = np.asarray(lumpy_scan((12, 12, 6), np.float32), order=order)
    hu[3, 4, 5] = np.nan
    before = hu.copy()
    with pytest.warns(DataWarning, match="1 voxels"):
        volume = prepare_volume(hu, depth=4, size=6)
    np.testing.assert_array_equal(hu, before)
    assert np.isfinite(volume).all()


def test_memory_stays_below_a_floating_point_copy_of_the_scan():
    hu = np.asfortranarray(np.zeros((256, 256, 128), np.int16))
    tracemalloc.start()
    prepare_volume(hu, depth=16, size=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < hu.size * 4 / 8


@pytest.mark.parametrize("name", ["long.nii", "long.nii.gz"])
@pytest.mark.parametrize("dtype", ["int16", ">i2", "float32", "float64"])
@pytest.mark.parametrize("slope", [1.0, 0.5])
def test_memory_does_not_grow_with_the_number_of_slices(tmp_path, name, dtype, slope):
    voxels = np.zeros((64, 64, 600), dtype)
    voxels[0] = -1000
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(voxels, AFFINE, header=header)
    image.header.set_slope_inter(slope, 0)
    image.to_filename(tmp_path / name)
    tracemalloc.start()
    volume = load_volume(tmp_path / name, depth=40, size=32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    one_slice = 64 * 64 * 8
    assert peak < volume.nbytes + 12 * one_slice + (1 << 20)  # 1 MiB: what the gzip reader holds


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


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", ">i2", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii"])
def test_voxels_and_affine_come_back_in_the_files_dtype(tmp_path, dtype, name):
    voxels = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    read, affine = read_nifti(write_scan(tmp_path / name, voxels, header=header))
    np.testing.assert_array_equal(read, voxels)
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_allclose(affine, AFFINE)
    assert affine.dtype == np.float64


def test_nifti_2_is_read(tmp_path):
    path = write_scan(tmp_path / "scan.nii.gz", lumpy_scan(), kind=nib.Nifti2Image)
    np.testing.assert_array_equal(read_nifti(path)[0], lumpy_scan())


def test_slope_and_intercept_are_applied(plain):
    patch(plain, 112, struct.pack("<ff", 2.0, -1024.0))  # scl_slope, scl_inter
    read, _ = read_nifti(plain)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, lumpy_scan() * 2.0 - 1024)


@pytest.mark.parametrize("slope", [0.0, np.nan, 1.0])
def test_header_without_scaling_keeps_integers(plain, slope):
    patch(plain, 112, struct.pack("<ff", slope, 0.0))
    assert read_nifti(plain)[0].dtype == np.int16


def test_header_extension_is_skipped(tmp_path):
    image = nib.Nifti1Image(lumpy_scan(), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"any text" * 9))
    image.to_filename(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(read_nifti(tmp_path / "scan.nii.gz")[0], lumpy_scan())


def test_fourth_axis_of_length_one_is_dropped(tmp_path):
    path = write_scan(tmp_path / "scan.nii.gz", lumpy_scan()[..., None])
    assert nib.load(path).shape == (40, 40, 20, 1)
    np.testing.assert_array_equal(read_nifti(path)[0], lumpy_scan())


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


@pytest.mark.parametrize(
    "voxels",
    [
        np.random.default_rng(0).integers(0, 256, (6, 6, 4)).astype(np.uint8),
        np.random.default_rng(0).random((6, 6, 4), np.float32),
        np.random.default_rng(0).integers(0, 4096, (6, 6, 4)).astype(np.int16),
    ],
    ids=["grey levels", "fractions", "without the -1024"],
)
def test_values_that_are_not_hounsfield_units_are_reported(tmp_path, voxels):
    path = write_scan(tmp_path / "grey.nii.gz", voxels)
    with pytest.warns(DataWarning, match=r"grey\.nii\.gz: does not look like Hounsfield units"):
        load_volume(path, depth=2, size=4)


def test_good_scan_gives_no_warning(scan):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_volume(scan, depth=4, size=8)


# --- Unusable input -----------------------------------------------------------------------------


def test_missing_file_and_folder_are_refused(tmp_path):
    refused(tmp_path / "none.nii.gz", "Check the path", load_volume)
    refused(tmp_path, "Check the path", load_volume)


def test_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.nii.gz"
    path.touch()
    assert "0 bytes" in refused(path, "download the file again")


def test_name_in_gz_without_gzip_inside_is_refused(scan):
    scan.write_bytes(gzip.decompress(scan.read_bytes()))
    assert "not gzip" in refused(scan, "download the file again")


@pytest.mark.parametrize("kept", [0.001, 0.5, 0.999])
def test_truncated_gzip_is_refused(scan, kept):
    whole = scan.read_bytes()
    scan.write_bytes(whole[: max(int(len(whole) * kept), 15)])
    assert "truncated" in refused(scan, "download the file again", load_volume)


def test_damaged_gzip_is_refused(scan):
    whole = bytearray(scan.read_bytes())
    whole[-6] ^= 255  # in the checksum: all voxels decompress
    scan.write_bytes(whole)
    assert "damaged" in refused(scan, "download the file again")


def test_impossible_gzip_stream_is_refused(scan):
    whole = bytearray(scan.read_bytes())
    start = whole.index(b"\0", 10) + 1 if whole[3] & 8 else 10  # after the name, if it holds one
    whole[start : start + 40] = b"\xff" * 40  # a block type that does not exist; RFC 1951, 3.2.3
    scan.write_bytes(whole)
    assert "damaged" in refused(scan, "download the file again")


@pytest.mark.parametrize("content", [b"FileName,TypeOfTB\n", b"FileName,TypeOfTB\n" * 99, bytes(1000)])
def test_other_content_is_refused(tmp_path, content):
    for name, packed in (("text.nii.gz", gzip.compress(content)), ("text.nii", content)):
        (tmp_path / name).write_bytes(packed)
        assert "not a NIfTI" in refused(tmp_path / name, "dcm2niix")


def test_header_file_of_a_pair_is_refused(plain):
    refused(patch(plain, 344, b"ni1\0"), "one 3-D .nii.gz file")


def test_header_cut_short_is_refused(tmp_path):
    path = write_scan(tmp_path / "scan.nii", lumpy_scan(), kind=nib.Nifti2Image)
    path.write_bytes(path.read_bytes()[:400])
    assert "truncated" in refused(path, "download the file again")


def test_fewer_voxels_than_the_header_promises_are_refused(plain, tmp_path):
    cut = plain.read_bytes()[:-1]
    plain.write_bytes(cut)
    assert "truncated" in refused(plain, "download the file again")
    packed = tmp_path / "cut.nii.gz"
    packed.write_bytes(gzip.compress(cut))
    assert "truncated" in refused(packed, "download the file again")


def test_absurd_header_is_refused_without_asking_for_the_memory(plain):
    refused(patch(plain, 42, struct.pack("<hhh", 30000, 30000, 30000)), "dcm2niix")
    refused(patch(plain, 42, struct.pack("<hhh", 4000, 4000, 30000)), "download the file again")


@pytest.mark.parametrize("shape", [(9,), (9, 8), (9, 8, 7, 2), (9, 8, 7, 1, 3)])
def test_other_than_three_axes_are_refused(tmp_path, shape):
    path = write_scan(tmp_path / "axes.nii.gz", np.zeros(shape, np.int16))
    assert str(len(shape)) in refused(path, "3-D")


def test_axis_of_length_zero_is_refused(plain):
    assert "length 0" in refused(patch(plain, 44, struct.pack("<h", 0)), "dcm2niix")


@pytest.mark.parametrize("dtype", [[("R", "u1"), ("G", "u1"), ("B", "u1")], np.complex64])
def test_colour_and_complex_values_are_refused(tmp_path, dtype):
    assert "colour" in refused(write_scan(tmp_path / "rgb.nii.gz", np.zeros((4, 4, 3), dtype)), "dcm2niix")


@pytest.mark.parametrize(
    ("offset", "value"),
    [(112, np.inf), (116, np.inf), (280, np.nan), (108, np.nan), (108, 8.0), (108, 1e20)],
    ids=["slope", "intercept", "affine", "offset nan", "offset inside header", "offset far away"],
)
def test_header_numbers_that_make_no_sense_are_refused(plain, offset, value):
    patch(plain, 112, struct.pack("<ff", 1.0, 0.0))
    refused(patch(plain, offset, struct.pack("<f", value)), "dcm2niix")


def test_impossible_orientation_is_refused(plain):
    patch(plain, 252, struct.pack("<hh", 1, 0))  # use the quaternion, not the matrix
    refused(patch(plain, 256, struct.pack("<fff", 5, 5, 5)), "dcm2niix")


def test_scan_without_any_finite_voxel_is_refused(tmp_path):
    path = write_scan(tmp_path / "nan.nii.gz", np.full((4, 4, 3), np.nan, np.float32))
    assert "finite" in refused(path, "dcm2niix", load_volume)


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 0},
        {"size": 0},
        {"size": -5},
        {"size": 22.4},
        {"hu_window": (400, -1000)},
        {"hu_window": (0, 0)},
        {"hu_window": (np.nan, 400)},
        {"hu_window": (1, 2, 3)},
        {"hu_window": None},
        {"hu_window": 5},
        {"size": True},
        {"size": 10**7},
        {"depth": 10**9},
    ],
)
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
