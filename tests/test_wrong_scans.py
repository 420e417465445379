"""Scans that are not what they seem: other units, headers that claim too much, no orientation, files out of reach.

And those that look odd and are right: they must come out as nibabel reads them.
"""

import gzip
import os
import struct
import tracemalloc
import warnings
import zlib

import nibabel as nib
import numpy as np
import pytest
from planted import AFFINE, chest, claim, padded, patched, scaled, scan_bytes, write_scan

from viptt_core.constants import TB_CLASSES
from viptt_core.ct import load_volume, prepare_volume, read_volume
from viptt_core.errors import DataError, DataWarning
from viptt_core.nifti import open_scan, read_nifti
from viptt_core.scan_facts import scan_facts, scan_faults
from viptt_core.synthetic.phantom import make_phantom
from viptt_core.video import load_clip

GRID = {"depth": 5, "size": 12}


def facts_of(path, orientation="file"):
    return read_volume(path, **GRID, hu_window=(-1000, 400), orientation=orientation)[1]


def faults_of(path, orientation="file"):
    """Kind and level of all that is told of a scan but for its size."""
    faults = scan_faults(path.name, facts_of(path, "file"), orientation)
    return {(fault.kind, fault.level) for fault in faults}


# --- Units --------------------------------------------------------------------------------------------


def patient() -> np.ndarray:
    """HU of a body with a layer of fat, and vessels in its lungs."""
    hu = chest(1)
    hu[(abs(hu + 850) < 150) & (chest(3) > -835)] += 300
    hu[(hu > -200) & (chest(2) > 55)] -= 140
    return hu


def lungs_cut_out(hu, outside):
    return np.where((hu < -500) & (hu > -960), hu, hu.dtype.type(outside))


def magnetic(hu):
    """As a magnetic resonance image: no HU at all, air dark and fat bright."""
    tissue = np.where(hu < -500, 0, np.clip(700 - 4 * hu.astype(float), 60, 1500))
    return np.abs(tissue + np.random.default_rng(0).normal(0, 25, hu.shape)).astype(np.int16)


def grey(hu, low, high):
    return ((np.clip(hu, low, high) - low) / (high - low) * 255).astype(np.uint8)


WRONG_UNITS = {
    "intercept lost": lambda hu: hu + 1024,
    "intercept lost, padding -2000": lambda hu: padded(hu + 1024, -2000),
    "intercept lost, padding -1024": lambda hu: padded(hu + 1024, -1024),
    "intercept twice": lambda hu: hu - 1024,
    "offset": lambda hu: (hu + np.float32(32768)).astype(np.uint16),
    "thousandths": lambda hu: hu / np.float32(1000),
    "attenuation": lambda hu: hu / np.float32(1000) + 1,
    "fractions": lambda hu: (np.clip(hu, -1000, 400) + 1000) / np.float32(1400),
    "grey levels": lambda hu: grey(hu, -1000, 400),
    "clipped": lambda hu: np.clip(hu, -160, 240),
    "clipped, padding -1000": lambda hu: padded(np.clip(hu, -160, 240), -1000),
    "clipped, then noise": lambda hu: np.clip(hu, -160, 240) + np.random.default_rng(0).normal(0, 5, hu.shape),
    "intercept twice, clipped": lambda hu: np.clip(hu - 1024, -1024, 3071),
    "grey levels, less 1000": lambda hu: grey(hu, -1000, 400).astype(np.int16) - 1000,
    "halved": lambda hu: (hu + np.random.default_rng(0).normal(0, 9, hu.shape)) / 2,
    "inverted": lambda hu: -600 - hu,
    "300 too high": lambda hu: hu + 300,
    "300 too low": lambda hu: hu - 300,
    "sign changed": lambda hu: -hu.astype(np.int16),
    "soft-tissue window": lambda hu: grey(hu, -160, 240),
    "lung window": lambda hu: grey(hu, -1350, 150),
    "a wide window of 12 bits": lambda hu: grey(hu, -1350, 150).astype(np.int16) * 16,
    "sign changed, intercept lost": lambda hu: 1024 - hu.astype(np.int16),
    "magnetic resonance": magnetic,
    "a mask": lambda hu: (hu > -300).astype(np.uint8),
    "some voxels far outside": lambda hu: np.where(np.arange(hu.size).reshape(hu.shape) < 20, -1000, hu + 1024),
    "noise": lambda hu: np.random.default_rng(0).integers(0, 60000, hu.shape).astype(np.uint16),
}


@pytest.mark.parametrize("name", WRONG_UNITS)
def test_values_in_other_units_are_told_with_a_remedy(tmp_path, name):
    write_scan(path := tmp_path / "a.nii.gz", WRONG_UNITS[name](patient()))
    assert ("not in HU", "file") in faults_of(path)
    remedy = "looks like a mask" if name == "a mask" else "air is -1000"
    with pytest.warns(DataWarning, match=f"a.nii.gz: does not look like Hounsfield units.*{remedy}"):
        load_volume(path, **GRID)


def test_wrong_units_of_real_scans_are_told_too(tmp_path, shared_data):
    """Real bodies hold fat, contrast medium and bone."""
    for scan in (shared_data / "ct").glob("*_256.nii.gz"):
        hu = np.asanyarray(nib.load(scan).dataobj)[::4, ::4, ::3]
        for name, convert in WRONG_UNITS.items():
            write_scan(path := tmp_path / "a.nii.gz", convert(hu))
            assert ("not in HU", "file") in faults_of(path), (scan.name, name)


SOUND = {
    "plain": lambda hu: hu,
    "padding -2000": lambda hu: padded(hu, -2000),
    "padding of two kinds": lambda hu: np.where(np.arange(hu.shape[0])[:, None, None] < 3, -2048, padded(hu, -3024)),
    "padding that is not a number": lambda hu: padded(hu.astype(np.float32), np.nan),
    "lungs cut out, -1024": lambda hu: lungs_cut_out(hu, -1024),
    "lungs cut out, -3024": lambda hu: lungs_cut_out(hu, -3024),
    "lung alone": lambda hu: hu[(hu > -960) & (hu < -500)][:512].reshape(8, 8, 8),
    "one slice": lambda hu: hu[:, :, 5:6],
    "window of the lung": lambda hu: np.clip(hu, -1350, 150),
    "the paper's window": lambda hu: np.clip(hu, -1000, 400),
    "a part, mostly lung": lambda hu: hu[3:-3, 8:-8],
    "metal": lambda hu: np.where(np.arange(hu.size).reshape(hu.shape) % 50 == 0, np.int16(30000), hu),
    "fractions of HU": lambda hu: hu + np.float32(0.25),
}


@pytest.mark.parametrize("name", SOUND)
def test_values_in_hu_are_taken_whatever_surrounds_the_body(tmp_path, name):
    hu = SOUND[name](patient())
    write_scan(path := tmp_path / "a.nii.gz", hu if hu.dtype.kind == "f" else hu.astype(np.int16))
    assert not {fault for fault in faults_of(path) if fault[1] == "file"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if np.isfinite(hu).all():
            load_volume(path, **GRID)


ODD_AND_TOLD = {
    "circle of 0": (lambda hu: padded(hu, 0), r"2\d% of its voxels are exactly 0:"),
    "circle of 3071": (lambda hu: padded(hu, 3071), r"2\d% of its voxels are exactly 3071:"),
    "lungs cut out, 0": (lambda hu: lungs_cut_out(hu, 0), "of its voxels are exactly 0:"),
    "clipped at -600": (lambda hu: np.maximum(hu, -600), "of its voxels are exactly -600:"),
    "soft tissue alone": (lambda hu: hu[hu > -200][:8000].reshape(20, 20, 20), "holds neither air nor lung"),
}


@pytest.mark.parametrize("name", ODD_AND_TOLD)
def test_what_was_filled_in_cut_off_or_holds_no_lung_is_told_and_not_refused(tmp_path, name, shared_data):
    change, told = ODD_AND_TOLD[name]
    for hu in (
        np.tile(patient(), (2, 2, 2)),
        np.asanyarray(nib.load(next((shared_data / "ct").glob("*_256*"))).dataobj),
    ):
        write_scan(path := tmp_path / "a.nii.gz", change(hu[: 2 * 24 * 4, : 2 * 24 * 4]))
        with pytest.warns(DataWarning, match=told):
            load_volume(path, **GRID)
        assert "file" not in dict(map(reversed, faults_of(path)))


@pytest.mark.parametrize("label", range(len(TB_CLASSES)))
def test_phantoms_are_in_hu(tmp_path, label):
    write_scan(path := tmp_path / "a.nii.gz", make_phantom((0, label), label, size=48, slices=24).hu)
    assert "not in HU" not in dict(faults_of(path))


def test_real_scans_are_in_hu_also_where_they_are_padded(tmp_path, shared_data):
    for scan in (shared_data / "ct").glob("*_256.nii.gz"):
        assert not {kind for kind, level in faults_of(scan) if level == "file"}
        hu = np.asanyarray(nib.load(scan).dataobj)[::4, ::4, ::3]
        for name, change in SOUND.items():
            write_scan(path := tmp_path / "a.nii.gz", change(hu))
            assert "not in HU" not in dict(faults_of(path)), (scan.name, name)


def test_the_spread_of_values_is_that_of_all_voxels(tmp_path, shared_data):
    path = shared_data / "ct" / "lungpetctdx_A0002_s3_256.nii.gz"
    voxels = np.asanyarray(nib.load(path).dataobj)
    told = facts_of(path).percentiles
    np.testing.assert_allclose(
        [np.mean(np.array(told) < hu) for hu in (-900, -500, 0, 100)],
        [np.mean(voxels < hu) for hu in (-900, -500, 0, 100)],
        atol=0.02,
    )


# --- What a header claims ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2_000_000, 1, 1), (1, 2_000_000, 1), (1, 1, 2_000_000), (30_000, 300, 1)])
@pytest.mark.parametrize("call", [load_volume, read_nifti])
def test_a_size_that_is_no_scan_is_refused_by_name_before_memory_is_taken(tmp_path, shape, call):
    claim(path := tmp_path / "large.nii.gz", shape)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"large\.nii\.gz: has \[.*along an axis are no scan.*dcm2niix"):
        call(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize(
    "axes, name, dtype, slope",
    [
        *((axes, "long.nii.gz", "int16", 1) for axes in ("LAS", "ALS", "ASL", "SLA", "RIP")),
        ("LAS", "long.nii", ">i2", 0.5),
        ("LAS", "long.nii.gz", "float64", 1),
    ],
)
@pytest.mark.parametrize("orientation", ["file", "canonical"])
def test_a_stack_of_many_slices_takes_the_memory_of_one(tmp_path, axes, name, dtype, slope, orientation):
    turn = nib.orientations.axcodes2ornt(axes)
    affine = AFFINE @ nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(nib.io_orientation(AFFINE), turn), (64, 64, 64)
    )
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(np.full((96, 96, 1500), -1000, dtype), affine, header)
    image.header.set_slope_inter(slope, 0)
    image.to_filename(path := tmp_path / name)
    assert "".join(nib.aff2axcodes(affine)) == axes
    tracemalloc.start()
    volume, _ = read_volume(path, depth=24, size=24, hu_window=(-1000, 400), orientation=orientation)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * volume.nbytes + 12 * 96 * 96 * 8 + (1 << 20)  # all voxels are 28 MB


# --- Precision --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype, slope, intercept, offset",
    [
        ("uint32", 1, -(2**31), 2**31),
        ("int32", 1, -1e9, 10**9),
        ("int32", 0.01, -20000.5, 2_000_050),
        ("uint16", 1, -32768, 32768),
        ("int16", 0.37, -1024.3, 0),
        ("uint64", 1, -(2**40), 2**40),
        ("float32", 1000, -1000, 0),
        ("float64", 1, -1e12, 10**12),
        (">i4", 1, -1e9, 10**9),
    ],
)
def test_scaled_voxels_are_those_of_float64(tmp_path, dtype, slope, intercept, offset):
    stored = (chest(1).astype(np.int64) + offset).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    content = bytearray(nib.Nifti1Image(stored, AFFINE, header=header).to_bytes())
    content[112:120] = struct.pack(f"{'>' if dtype.startswith('>') else '<'}ff", slope, intercept)
    (path := tmp_path / "a.nii").write_bytes(content)
    theirs = nib.load(path).get_fdata(dtype=np.float64)
    assert theirs.min() < theirs.max()
    np.testing.assert_allclose(read_nifti(path)[0], theirs, rtol=0, atol=0.01)
    np.testing.assert_allclose(load_volume_of(path, theirs), prepare_volume(theirs, **GRID), atol=1e-5)


def load_volume_of(path, hu):
    """The volume; these HU need not look like a chest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return load_volume(path, **GRID)


# --- Orientation ----------------------------------------------------------------------------------------


def without_codes(content: bytes) -> bytes:
    return patched(content, 252, np.zeros(2, np.int16))  # qform_code, sform_code


@pytest.mark.parametrize("voxels", [chest(1), chest(1).astype(np.float32)], ids=["int16", "float32"])
def test_a_scan_that_does_not_say_how_it_lies_is_noted_and_canonical_refuses_to_guess(tmp_path, voxels):
    write_scan(path := tmp_path / "a.nii.gz", without_codes(scan_bytes(voxels)))
    assert ("no orientation", "note") in faults_of(path, "file")
    assert ("no orientation", "file") in faults_of(path, "canonical")
    assert facts_of(path).axes == "" and facts_of(path).transforms == "none"
    np.testing.assert_array_equal(load_volume(path, **GRID), prepare_volume(voxels, **GRID))
    with pytest.raises(DataError, match="a.nii.gz: does not say how it lies.*'file'"):
        load_volume(path, **GRID, orientation="canonical")


def test_a_scan_without_orientation_is_still_judged_by_its_spacing(tmp_path):
    far = np.array([-1.0, 15.0, 15.0, 200.0], np.float32)  # pixdim
    write_scan(path := tmp_path / "a.nii.gz", patched(without_codes(scan_bytes(chest(1))), 76, far))
    assert {("no orientation", "note"), ("bad spacing", "note")} <= faults_of(path)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 3), (0, 4)])
def test_one_code_is_enough_to_know_how_a_scan_lies(tmp_path, codes):
    write_scan(path := tmp_path / "a.nii.gz", patched(scan_bytes(chest(1)), 252, np.array(codes, np.int16)))
    assert "no orientation" not in dict(faults_of(path, "canonical"))
    load_volume(path, **GRID, orientation="canonical")


# --- Files out of reach -----------------------------------------------------------------------------------


def out_of_reach(folder, name):
    """Paths that the system refuses for other reasons than that nothing is there; root may read all else."""
    (folder / f"loop{name}").symlink_to(folder / f"loop{name}")
    return [folder / f"loop{name}", folder / f"{'long' * 99}{name}"]


@pytest.mark.parametrize("call, name", [(load_volume, ".nii.gz"), (read_nifti, ".nii"), (load_clip, ".avi")])
def test_what_the_system_says_of_a_file_is_that_files_fault(tmp_path, call, name):
    for path in out_of_reach(tmp_path, name):
        with pytest.raises(DataError, match="cannot be read.*Check") as caught:
            call(path)
        assert (caught.value.path, caught.value.kind) == (path, "unreadable file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("call, name", [(load_volume, "a.nii.gz"), (load_clip, "a.avi")])
def test_a_file_without_rights_is_named(tmp_path, call, name):
    write_scan(tmp_path / name, chest(1))
    (tmp_path / name).chmod(0)
    with pytest.raises(DataError, match=f"{name}: cannot be read .Permission denied"):
        call(tmp_path / name)


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), PermissionError(13, "Permission denied"), MemoryError()]
)
def test_a_disk_that_fails_while_a_scan_is_read_is_named_with_its_file(tmp_path, error):
    write_scan(path := tmp_path / "a.nii.gz", chest(1))
    with pytest.raises(DataError, match="a.nii.gz: cannot be read") as caught, open_scan(path):
        raise error
    assert caught.value.kind == "unreadable file"


# --- Odd and right --------------------------------------------------------------------------------------


def plain(voxels=None, **fields):
    """A file with other header fields; pixdim is given whole."""
    image = nib.Nifti1Image(chest(1) if voxels is None else voxels, AFFINE)
    for name, value in fields.items():
        image.header[name] = value
    return image.to_bytes()


def of_type(dtype):
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    levels = np.dtype(dtype).itemsize == 1 or np.dtype(dtype).kind == "u"
    voxels = chest(1).astype(np.int64) // (16 if levels else 1) + (70 if levels else 0)
    if np.dtype(dtype) == np.int8:
        voxels -= 70
    return nib.Nifti1Image(voxels.astype(dtype), AFFINE, header=header).to_bytes()


def qform_only():
    image = nib.Nifti1Image(chest(1), None)
    image.set_qform(AFFINE @ np.diag([-1, 1, 1, 1]), 1)
    image.set_sform(None, 0)
    return image.to_bytes()


def bgzf(content, block=9000):
    """Gzip members of some kB that state their length, and an empty one, as genomics tools write (SAM, 4.1)."""
    members = []
    for start in range(0, len(content) + block, block):
        part = content[start : start + block]
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        packed = packer.compress(part) + packer.flush()
        extra = struct.pack("<2sHH", b"BC", 2, len(packed) + 25)
        head = struct.pack("<4BI2BH", 31, 139, 8, 4, 0, 0, 255, len(extra))
        members.append(head + extra + packed + struct.pack("<II", zlib.crc32(part), len(part)))
    return b"".join(members)


def members(content):
    half = len(content) // 2
    return gzip.compress(content[:half]) + gzip.compress(content[half:])


TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
ODD = {
    **{dtype: of_type(dtype) for dtype in (*TYPES, ">i2", ">u4", ">f4", ">f8")},
    "slope 0": plain(scl_slope=0, scl_inter=5),
    "slope that is no number": plain(scl_slope=np.nan, scl_inter=np.nan),
    "slope 2": scaled(chest(1) // 2, 2, 0),
    "qform only": qform_only(),
    "metres": patched(plain(), 123, np.array([1], np.uint8)),  # xyzt_units
    "micrometres": patched(plain(), 123, np.array([3], np.uint8)),
    "one slice": scan_bytes(chest(1)[:, :, :1]),
    "fourth axis": scan_bytes(chest(1)[..., None]),
    "NIfTI-2": nib.Nifti2Image(chest(1), AFFINE).to_bytes(),
    "gzip members": members(plain()),
    "BGZF": bgzf(plain()),
    "trailing bytes": plain() + b"what a camera adds" * 9,
    "a negative voxel size": patched(plain(), 80, np.array([-15.0], np.float32)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_read_as_nibabel_reads_them(tmp_path, name):
    content = ODD[name]
    path = tmp_path / ("odd.nii.gz" if content[:2] == b"\x1f\x8b" else "odd.nii")
    path.write_bytes(content)
    image = nib.load(path)
    theirs = image.get_fdata(dtype=np.float64).reshape(image.shape[:3])
    voxels, affine = read_nifti(path)
    np.testing.assert_array_equal(voxels, theirs)
    assert name not in (*TYPES, ">i2", ">u4", ">f4", ">f8") or voxels.dtype == np.dtype(name).newbyteorder("=")
    mm = {"metres": 1000, "micrometres": 0.001}.get(name, 1)
    np.testing.assert_allclose(affine, np.diag([mm, mm, mm, 1]) @ image.affine, rtol=1e-12)
    np.testing.assert_allclose(load_volume_of(path, theirs), prepare_volume(theirs, **GRID), atol=2e-6)
    with open_scan(path) as scan:
        for _ in scan.planes():
            pass
    facts = scan_facts(scan)
    assert (facts.lowest, facts.highest) == (theirs.min(), theirs.max())
