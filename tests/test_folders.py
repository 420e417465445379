"""Folders of synthetic files: in the layouts that readers know, the same bytes again, nothing overwritten."""

import csv
import json

import cv2
import nibabel
import numpy as np
import pytest

from viptt_core import files
from viptt_core.cli import main
from viptt_core.constants import TB_CLASSES, UCF_CLASSES, UCF_FRAME_RATE, UCF_FRAME_SIZE
from viptt_core.datasets import load_dataset
from viptt_core.errors import DataError, SettingError, StorageError
from viptt_core.synthetic import actions, phantom
from viptt_core.synthetic.actions import make_clip
from viptt_core.synthetic.folders import MOST_SCANS, imageclef, own_scans, ucf50, write_folder
from viptt_core.synthetic.phantom import cohort_labels, make_phantom

GRID = {"size": 32, "slices": 6}
LAYOUTS = {
    imageclef: {"n": 5, "seed": 4, **GRID},
    own_scans: {"n": 9, "patients": 4, "seed": 3, **GRID},
    ucf50: {"groups": 1, "clips_per_group": 1, "frames": (9, 12)},
}


def write(root, layout, *, n_jobs=1, **changes):
    return write_folder(root, layout(**(LAYOUTS[layout] | changes)), n_jobs=n_jobs, progress=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """layout -> a folder of it."""
    return {layout: write(tmp_path_factory.mktemp("set") / layout.__name__, layout) for layout in LAYOUTS}


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def assert_holds(path, volume, scan):
    """A file is this volume of a phantom, with the phantom's place in space."""
    image = nibabel.load(path)
    assert image.get_data_dtype() == volume.dtype and image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), volume)
    for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 1 and np.allclose(affine, scan.affine, atol=1e-3)
    assert image.header.get_zooms() == pytest.approx(scan.spacing, rel=1e-5)


# --- What they hold ---


def test_an_imageclef_folder_has_scans_and_labels(written):
    folder, labels = written[imageclef], cohort_labels(5, 4)
    names = [f"TRN_{i:04d}.nii.gz" for i in range(1, 6)]
    expected = [{"FileName": name, "TypeOfTB": str(label + 1)} for name, label in zip(names, labels, strict=True)]
    assert rows_of(folder / "TRN_labels.csv") == expected
    assert set(content(folder)) == {"phantom.json", "TRN_labels.csv", *names}
    for i in (0, 4):
        scan = make_phantom((4, i), int(labels[i]), **GRID)
        assert_holds(folder / names[i], scan.hu, scan)


def test_each_patient_of_ones_own_scans_has_a_scan_or_some_and_one_disease(written):
    rows, labels = rows_of(written[own_scans] / "labels.csv"), cohort_labels(4, 3)
    assert [row["FileName"] for row in rows] == [f"scan_{i:03d}.nii.gz" for i in range(1, 10)]
    assert set(content(written[own_scans])) == {"labels.csv", "example.json"} | {row["FileName"] for row in rows}
    diseases = {row["patient"]: row["diagnosis"] for row in rows}
    assert [diseases[f"P{k + 1:03d}"] for k in range(4)] == [TB_CLASSES[label] for label in labels]
    assert all(row["diagnosis"] == diseases[row["patient"]] for row in rows)
    counts = [sum(row["patient"] == patient for row in rows) for patient in diseases]
    assert sum(counts) == 9 and len(set(counts)) > 1 and max(counts) <= MOST_SCANS
    first = {row["patient"]: row["FileName"] for row in reversed(rows)}
    for k, label in enumerate(labels.tolist()):
        scan = make_phantom((3, k), label, **GRID)
        assert_holds(written[own_scans] / first[f"P{k + 1:03d}"], scan.hu, scan)


def test_a_patients_scans_show_one_body_on_grids_of_their_own(written):
    of_patient = {}
    for row in rows_of(written[own_scans] / "labels.csv"):
        image = nibabel.load(written[own_scans] / row["FileName"])
        extent = np.multiply(image.shape, image.header.get_zooms())
        of_patient.setdefault(row["patient"], []).append((image.shape, extent))
    for scans in of_patient.values():
        assert len({shape for shape, _ in scans}) == len(scans)
        assert all(np.allclose(extent, scans[0][1], rtol=1e-4) for _, extent in scans)
    extents = [tuple(scans[0][1]) for scans in of_patient.values()]
    assert len(set(extents)) == len(extents)


@pytest.mark.parametrize("slices", [4, None])
def test_a_patient_has_as_many_scans_as_there_are_thicknesses(slices):
    grids = [arguments[2:] for _, arguments in own_scans(MOST_SCANS, 1, size=24, slices=slices).files]
    assert len(set(grids)) == MOST_SCANS
    assert len({slices for _, slices in grids}) == (1 if slices else MOST_SCANS)


def test_written_videos_are_like_ucf50s(written):
    folder, counts = written[ucf50], set()
    names = {f"{name}/v_{name}_g01_c01.avi" for name in UCF_CLASSES}
    assert set(content(folder)) == {"actions.json"} | names
    for label, name in enumerate(UCF_CLASSES):
        capture = cv2.VideoCapture(str(folder / name / f"v_{name}_g01_c01.avi"))
        size = capture.get(cv2.CAP_PROP_FRAME_HEIGHT), capture.get(cv2.CAP_PROP_FRAME_WIDTH)
        assert size == UCF_FRAME_SIZE
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(UCF_FRAME_RATE, abs=0.1)
        assert int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") in (b"XVID", b"FMP4")
        frames = []
        while (read := capture.read())[0]:
            frames.append(read[1][..., ::-1])
        counts.add(len(frames))
        clip = make_clip(label, 1, 1, frames=len(frames)).astype(float)
        assert np.abs(np.mean(frames, -1) - clip.mean(-1)).mean() < 6, name
        np.testing.assert_allclose(np.mean(frames, (0, 1, 2)), clip.mean((0, 1, 2)), atol=2, err_msg=name)
    assert counts <= {9, 10, 11, 12} and len(counts) > 1, "the number of frames varies"


def test_ones_own_scans_are_read_as_such(written):
    settings = {"label_column": "diagnosis", "patient_column": "patient", "frames": 4, "size": 16}
    clips = load_dataset("folder", written[own_scans], n_jobs=1, progress=False, **settings)
    assert len(clips) == 9 and len(set(clips.groups)) == 4 and clips.faults == ()


# --- How they are written ---


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_interrupted_folder_is_taken_up_again_to_the_same_bytes(written, tmp_path, layout):
    whole, (first, kept, *_, last) = content(written[layout]), [name for name, _ in layout(**LAYOUTS[layout]).files]
    for name, data in whole.items():
        if name not in (first, last) and not name.endswith(".csv"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"already there" if name == kept else data)
    (tmp_path / ".0123abcd").write_bytes(b"half")  # what a kill leaves
    write(tmp_path, layout, n_jobs=2)
    assert content(tmp_path) == whole | {kept: b"already there", ".0123abcd": b"half"}


def test_what_is_there_is_not_made_again(written, monkeypatch):
    for generator, name in ((phantom, "make_phantom"), (actions, "make_clip")):
        monkeypatch.setattr(generator, name, lambda *_, **__: pytest.fail("made again"))
    for layout, folder in written.items():
        assert write(folder, layout) == folder


def test_another_seed_gives_other_files(written, tmp_path):
    other = content(write(tmp_path, own_scans, seed=4))
    assert all(other[name] != data for name, data in content(written[own_scans]).items())


@pytest.mark.parametrize(
    "layout, change",
    [
        *((imageclef, change) for change in ({"seed": 5}, {"size": 40}, {"slices": 9}, {"n": 7}, {"knob": 0.7})),
        *((own_scans, change) for change in ({"seed": 5}, {"size": 40}, {"slices": 9}, {"n": 8}, {"patients": 5})),
        *((ucf50, change) for change in ({"seed": 1}, {"groups": 2}, {"clips_per_group": 2}, {"frames": (9, 13)})),
    ],
)
def test_a_folder_of_other_settings_is_refused_and_left_as_it_is(written, monkeypatch, layout, change):
    before = content(written[layout])
    if "knob" in change:
        monkeypatch.setattr(phantom, "FINDING_CONTRAST", change["knob"])
        change = {}
    with pytest.raises(DataError, match="was written with .* not "):
        write(written[layout], layout, **change)
    assert content(written[layout]) == before


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["TRN_0001.nii.gz", "Mixing", "notes.txt"])
def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path, layout, name):
    (tmp_path / name).write_bytes(b"a patient")
    with pytest.raises(DataError, match=f"is not empty .{name}.*Give another folder"):
        write(tmp_path, layout)
    assert content(tmp_path) == {name: b"a patient"}


def test_a_failed_write_is_said_and_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(StorageError, match="Free some space and start again; what is written is kept"):
        write(tmp_path, ucf50)
    assert content(tmp_path) == {}


@pytest.mark.parametrize(
    "layout, name, change",
    [
        *((imageclef, name, {name: value}) for name, value in {"n": 0, "seed": -1, "size": 15, "slices": 3}.items()),
        *((own_scans, name, {name: value}) for name, value in {"n": 0, "seed": -1, "size": 23, "slices": 3}.items()),
        (own_scans, "patients", {"patients": 0}),
        (own_scans, "3 scans of 4 patients", {"n": 3}),
        (own_scans, f"{4 * MOST_SCANS + 1} scans of 4 patients", {"n": 4 * MOST_SCANS + 1}),
        *((ucf50, name, {name: value}) for name, value in {"seed": -1, "groups": 26, "clips_per_group": 0}.items()),
        (ucf50, "fewest_frames", {"frames": (20, 10)}),
        (ucf50, "fewest_frames", {"frames": (0, 10)}),
        *((layout, "n_jobs", {"n_jobs": 0}) for layout in LAYOUTS),
    ],
)
def test_wrong_arguments_are_named_and_write_nothing(tmp_path, layout, name, change):
    with pytest.raises(SettingError, match=f"^{name} "):
        write(tmp_path / "new", layout, **change)
    assert not (tmp_path / "new").exists()


def test_the_command_writes_ones_own_scans_and_says_how_to_read_them(tmp_path, capsys):
    folder = tmp_path / "own"
    words = ["phantom", str(folder), "-n", "3", "--patients", "2", "--size", "24", "--slices", "4", "--jobs", "1"]
    assert main(words) == 0
    told = "-p label_column diagnosis -p patient_column patient -p dataset folder -p data_root"
    assert f"{told} {folder}" in capsys.readouterr().out
    assert json.loads((folder / "example.json").read_text())["patients"] == 2
    assert main([*words[:5], "4", *words[6:]]) == 1
    assert "3 scans of 4 patients are not possible" in capsys.readouterr().err
