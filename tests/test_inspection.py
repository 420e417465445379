"""What is told about one file, against other libraries, on files the tests write and on real ones."""

import gzip

import av
import cv2
import nibabel as nib
import numpy as np
import pytest
from planted import AFFINE, chest, scan_bytes, turned, write_scan, write_video

from viptt_core.check.inspect import inspect_arrays, inspect_file, inspect_scan, inspect_video

# --- Scans ----------------------------------------------------------------------------------------------


def assert_as_nibabel_says(path):
    facts, image = inspect_scan(path), nib.load(path)
    voxels = np.asanyarray(image.dataobj).astype(np.float32)
    finite = voxels[np.isfinite(voxels)]
    assert facts.shape == image.shape and facts.axes == "".join(nib.aff2axcodes(image.affine))
    np.testing.assert_allclose(facts.spacing, image.header.get_zooms(), rtol=1e-5)
    np.testing.assert_allclose(np.reshape(facts.affine, (3, 4)), image.affine[:3])
    assert facts.n_not_finite == voxels.size - finite.size
    assert (facts.lowest, facts.highest) == (finite.min(), finite.max())
    assert facts.air == pytest.approx((finite < -500).mean(), abs=0.02)


@pytest.mark.parametrize("dtype", [">i2", "uint8", "float32"])
def test_facts_of_a_scan_are_those_of_nibabel(tmp_path, dtype):
    voxels = chest(1) if dtype != "uint8" else (chest(1) // 16 + 70)
    write_scan(tmp_path / "a.nii.gz", scan_bytes(voxels.astype(dtype), turned(10)))
    assert_as_nibabel_says(tmp_path / "a.nii.gz")


def test_holes_are_counted_and_read_as_air(tmp_path):
    voxels = chest(1).astype(np.float32)
    voxels += 3000  # air is no longer the lowest value
    voxels[0, :4, 3] = np.nan, np.inf, -np.inf, np.nan
    voxels[:, :, 5] = np.nan
    write_scan(tmp_path / "a.nii.gz", voxels)
    assert inspect_scan(tmp_path / "a.nii.gz").n_not_finite == 4 + 24 * 24
    assert_as_nibabel_says(tmp_path / "a.nii.gz")


def content(tmp_path, file: bytes) -> str:
    (tmp_path / "x.nii.gz").write_bytes(file)
    return inspect_scan(tmp_path / "x.nii.gz").content


def test_the_same_voxels_have_the_same_content_however_they_are_stored(tmp_path):
    hu = chest(5)
    first = content(tmp_path, gzip.compress(scan_bytes(hu), 9))
    raw = nib.Nifti1Image((hu.astype(np.int32) + 1024).astype(np.uint16), AFFINE)
    raw.header.set_slope_inter(1, -1024)
    others = [
        gzip.compress(scan_bytes(hu), 1),
        gzip.compress(scan_bytes(hu.astype(np.float32) + 0.2), 1),
        gzip.compress(scan_bytes(hu.astype(">i2")), 1),
        gzip.compress(scan_bytes(hu.astype(np.float64), turned(20)), 1),
        gzip.compress(nib.Nifti2Image(hu, AFFINE).to_bytes(), 1),
        scan_bytes_scaled(raw),
    ]
    assert {content(tmp_path, other) for other in others} == {first}
    (tmp_path / "x.nii").write_bytes(scan_bytes(hu))
    assert inspect_scan(tmp_path / "x.nii").content == first


def scan_bytes_scaled(image: nib.Nifti1Image) -> bytes:
    """nibabel drops slope and intercept when it writes; they are put back."""
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([1, -1024], np.float32).tobytes()
    return gzip.compress(bytes(content), 1)


@pytest.mark.parametrize(
    "qform, told",
    [
        (AFFINE, ""),
        (AFFINE @ np.diag([-1, 1, 1, 1]), "turned"),
        (turned(10), ""),
        (AFFINE + np.array([[0, 0, 0, 30]] * 3 + [[0, 0, 0, 0]]), ""),
    ],
    ids=["alike", "mirrored", "askew", "moved"],
)
def test_two_orientations_in_a_header_are_compared(tmp_path, qform, told):
    write_scan(tmp_path / "a.nii.gz", scan_bytes(chest(1), AFFINE, qform))
    assert inspect_scan(tmp_path / "a.nii.gz").transforms == told


# --- Videos ---------------------------------------------------------------------------------------------


def opencv_shape(path) -> tuple[int, int, int]:
    capture, frames, shape = cv2.VideoCapture(str(path)), 0, (0, 0)
    while (got := capture.read())[0]:
        frames, shape = frames + 1, got[1].shape[:2]
    return frames, *shape


def test_frames_of_real_videos_are_counted_as_opencv_does(shared_data):
    paths = sorted((shared_data / "videos").glob("*/*/*.avi"))
    for path in [*paths[:9], *paths[9::20]]:
        facts = inspect_video(path)
        assert (facts.frames, facts.height, facts.width) == opencv_shape(path), path.name
        assert 24 < facts.rate < 31 and facts.lowest < 30 and facts.highest > 130 and not facts.ends_early


def test_a_video_is_the_same_in_another_container_and_not_with_another_frame(tmp_path):
    write_video(tmp_path / "a.avi", 1)
    with av.open(str(tmp_path / "a.avi")) as source, av.open(str(tmp_path / "a.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    write_video(tmp_path / "b.avi", 2)
    write_video(tmp_path / "c.avi", 1, frames=71)
    first, remuxed, other, shorter = (inspect_video(tmp_path / n) for n in ("a.avi", "a.mkv", "b.avi", "c.avi"))
    assert first.content == remuxed.content and first.frames == remuxed.frames == 72
    assert len({first.content, other.content, shorter.content}) == 3
    assert first.rate == pytest.approx(25) and first.promised == 72 and not first.ends_early


# --- Arrays and outcomes --------------------------------------------------------------------------------


def write_arrays(path, volumes):
    """A file in MedMNIST's layout, the same volumes in every part."""
    parts = ("train", "val", "test")
    images = {f"{part}_images": volumes[::-1] if part == "test" else volumes for part in parts}
    labels = {f"{part}_labels": np.zeros((len(volumes), 1), np.uint8) for part in parts}
    np.savez_compressed(path, **images, **labels)


def test_each_volume_of_an_array_file_has_a_content_of_its_own(tmp_path):
    volumes = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 4), np.uint8)
    volumes[1] = 7
    write_arrays(tmp_path / "a.npz", volumes)
    facts = inspect_arrays(tmp_path / "a.npz")
    train = facts.content["train_images"]
    assert train == facts.content["test_images"][::-1] and len(set(train)) == 3
    assert [bool(content) for content in train] == [True, False, True]
    assert facts.shapes["train_images"] == (3, 4, 4, 4)


def test_what_a_reader_refuses_becomes_a_fault_with_its_kind(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"")
    assert inspect_file("scan", tmp_path / "a.nii.gz").fault.kind == "empty file"
    assert inspect_file("video", tmp_path / "gone.avi").fault.kind == "missing file"


def test_a_reader_that_fails_otherwise_does_not_end_the_check(tmp_path, monkeypatch):
    def fails(error):
        def inspect(_):
            raise error

        monkeypatch.setitem(inspect_file.__globals__["INSPECTORS"], "scan", inspect)
        return inspect_file("scan", tmp_path).fault

    assert fails(PermissionError(13, "Permission denied")).kind == "unreadable file"
    assert "IndexError: out of range" in fails(IndexError("out of range")).what
    with pytest.raises(KeyboardInterrupt):
        fails(KeyboardInterrupt())
