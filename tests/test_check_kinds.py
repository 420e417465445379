"""The check finds no fault in sound sets of every sort, and tells what only a check of the whole set can."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from planted import chest, padded, scaled, write_scan, write_sound_scans, write_sound_videos

from viptt_core.check import check_dataset

GROUPS = 6  # of a class
ARRAYS = {"train": 12, "val": 6, "test": 6}


def sound_table(root):
    for i in range(2 * GROUPS):
        write_scan(root / f"s{i:02d}.nii.gz", chest(i))
    rows = [f"s{i:02d}.nii.gz,{'ill' if i % 2 else 'well'},p{i:02d}" for i in range(2 * GROUPS)]
    (root / "labels.csv").write_text("\n".join(["FileName,Label,Patient", *rows, ""]), encoding="utf-8")
    return "folder", {"patient_column": "Patient"}


def sound_imageclef(root):
    write_sound_scans(root, 5 * GROUPS)
    return "imageclef", {}


def sound_scans(root):
    for i in range(2 * GROUPS):
        write_scan(root / ("ill" if i % 2 else "well") / f"s{i:02d}.nii.gz", chest(i))
    return "folder", {}


def sound_videos(root):
    write_sound_videos(root, GROUPS)
    return "folder", {}


def sound_arrays(root, **changes):
    rng, columns = np.random.default_rng(0), {}
    for part, n in ARRAYS.items():
        columns[f"{part}_images"] = rng.integers(1, 255, (n, 5, 8, 8), np.uint8)
        columns[f"{part}_labels"] = (np.arange(n) % 2)[:, None]
    root.mkdir(exist_ok=True)
    np.savez_compressed(root / "mine.npz", **columns | changes)
    return "medmnist3d", {}


@pytest.fixture(autouse=True)
def any_array_file_is_published(monkeypatch):
    monkeypatch.setattr("viptt_core.datasets.arrays.files.file_digest", lambda *_: "published")
    entry = {"MD5": "published", "label": {"0": "benign", "1": "malignant"}}
    monkeypatch.setattr("viptt_core.datasets.arrays.medmnist_sets", lambda: {"mine": entry})


SORTS = (sound_table, sound_imageclef, sound_scans, sound_videos, sound_arrays)


def check(name, root, preset="paper", **settings):
    return check_dataset(name, root, preset=preset, n_jobs=1, progress=False, **settings)


@pytest.mark.parametrize("write", SORTS)
def test_a_sound_set_has_no_fault(tmp_path, write):
    name, settings = write(tmp_path / "set")
    for preset in ("paper", "corrected"):
        report = check(name, tmp_path / "set", preset, **settings)
        faults = {(fault.kind, fault.where, fault.level) for fault in report.faults}
        assert faults == set() and not report.spoils
        assert str(report).startswith("SOUND")


def write_mp4(root, shown_ms=None):
    """72 frames; with `shown_ms` an edit list that shows only so much of them (ISO 14496-12, 8.6.6)."""
    path = root / "Rowing" / "v_Rowing_g09_c01.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        rng = np.random.default_rng(9)
        for _ in range(72):
            image = rng.integers(0, 255, (24, 32, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    if shown_ms is not None:
        content[(at := content.index(b"elst") + 12) : at + 4] = struct.pack(">I", shown_ms)
    else:
        start = content.index(b"mdat") + 400
        content[start : start + 60 : 3] = bytes(range(200, 220))
    path.write_bytes(content)


def pad_below_16_bits(root):
    """-32768 as it is stored, beside an intercept of -1024."""
    write_scan(root / "s03.nii.gz", scaled(padded(chest(3) + 1024, -32768), 1, -1024))


@pytest.mark.parametrize(
    "write, plant, told",
    [
        (sound_table, pad_below_16_bits, ""),
        (sound_videos, lambda root: write_mp4(root, 800), "too few frames"),
        (sound_videos, lambda root: write_mp4(root, 2840), ""),
        (sound_videos, write_mp4, "frames are damaged"),
    ],
    ids=["padding", "an edit list", "one that cuts little", "damage"],
)
def test_the_check_tells_what_is_wrong_and_takes_what_is_right(tmp_path, write, plant, told):
    name, settings = write(tmp_path / "set")
    plant(tmp_path / "set")
    report = check(name, tmp_path / "set", **settings)
    assert told in str(report) and report.counts["listed"] >= 12
    assert told or not [str(fault) for fault in report.faults if fault.spoils]
