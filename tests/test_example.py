"""Phantoms in the layout of one's own data: patients with several scans, the same bytes, nothing overwritten."""

import csv
import json

import nibabel
import numpy as np
import pytest

from viptt_core.cli import main
from viptt_core.constants import TB_CLASSES
from viptt_core.datasets import load_dataset
from viptt_core.errors import DataError, SettingError
from viptt_core.synthetic.example import MOST_SCANS, write_example
from viptt_core.synthetic.phantom import cohort_labels, make_phantom

TINY = {"patients": 4, "seed": 3, "size": 32, "slices": 6, "progress": False}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp("own") / "data", 9, **TINY)


def rows_of(folder):
    with open(folder / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_patient_has_a_scan_or_some_and_one_disease(example):
    rows = rows_of(example)
    assert list(rows[0]) == ["FileName", "diagnosis", "patient"]
    assert [row["FileName"] for row in rows] == [f"scan_{i:03d}.nii.gz" for i in range(1, 10)]
    assert set(content(example)) == {"labels.csv", "example.json"} | {row["FileName"] for row in rows}
    diseases = {row["patient"]: row["diagnosis"] for row in rows}
    assert [diseases[f"P{k + 1:03d}"] for k in range(4)] == [TB_CLASSES[label] for label in cohort_labels(4, 3)]
    assert all(row["diagnosis"] == diseases[row["patient"]] for row in rows)
    counts = [sum(row["patient"] == patient for row in rows) for patient in diseases]
    assert sum(counts) == 9 and len(set(counts)) > 1 and max(counts) <= MOST_SCANS


def test_a_patients_scans_show_one_body_on_grids_of_their_own(example):
    of_patient = {}
    for row in rows_of(example):
        image = nibabel.load(example / row["FileName"])
        extent = np.multiply(image.shape, image.header.get_zooms())
        of_patient.setdefault(row["patient"], []).append((image.shape, extent))
    for scans in of_patient.values():
        assert len({shape for shape, _ in scans}) == len(scans)
        assert all(np.allclose(extent, scans[0][1], rtol=1e-4) for _, extent in scans)
    extents = [tuple(scans[0][1]) for scans in of_patient.values()]
    assert len(set(extents)) == len(extents)


def test_files_hold_the_phantom_in_hounsfield_units(example):
    first = {row["patient"]: row["FileName"] for row in reversed(rows_of(example))}
    for k, label in enumerate(cohort_labels(4, 3)):
        scan = make_phantom((3, k), int(label), size=32, slices=6)
        image = nibabel.load(example / first[f"P{k + 1:03d}"])
        assert image.get_data_dtype() == np.int16 and image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), scan.hu)
        for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
            assert code == 1 and np.allclose(affine, scan.affine, atol=1e-3)


def test_without_a_number_of_slices_each_scan_of_a_patient_has_its_own_thickness(tmp_path):
    folder = write_example(tmp_path, 3, patients=1, size=24, progress=False)
    thickness = [nibabel.load(folder / f"scan_00{i}.nii.gz").header.get_zooms()[2] for i in (1, 2, 3)]
    assert min(abs(a / b - 1) for i, a in enumerate(thickness) for b in thickness[:i]) > 0.1


def test_it_is_read_as_ones_own_data(example):
    clips = load_dataset(
        "folder",
        example,
        label_column="diagnosis",
        patient_column="patient",
        frames=4,
        size=16,
        n_jobs=1,
        progress=False,
    )
    assert len(clips) == 9 and len(set(clips.groups)) == 4 and clips.excluded == ()


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(example, tmp_path):
    again = write_example(tmp_path / "a", 9, **TINY)
    assert content(again) == content(example)
    other = write_example(tmp_path / "b", 9, **(TINY | {"seed": 4}))
    assert all(content(other)[name] != data for name, data in content(example).items())


def test_an_interrupted_example_is_taken_up_again(example, tmp_path):
    for name in ("example.json", "scan_002.nii.gz"):
        (tmp_path / name).write_bytes(content(example)[name])
    (tmp_path / "scan_003.nii.gz.tmp").write_bytes(b"half")  # what a kill leaves
    (tmp_path / "scan_001.nii.gz").write_bytes(b"already there")
    write_example(tmp_path, 9, **TINY)
    assert content(tmp_path) == content(example) | {"scan_001.nii.gz": b"already there"}


def test_one_that_was_killed_at_its_very_start_is_taken_up_too(tmp_path):
    (tmp_path / "example.json.tmp").write_bytes(b"half")
    write_example(tmp_path, 1, **(TINY | {"patients": 1}))
    assert set(content(tmp_path)) == {"example.json", "labels.csv", "scan_001.nii.gz"}


@pytest.mark.parametrize("other", [{"seed": 5}, {"size": 40}, {"slices": 9}, {"patients": 5}, {"n": 8}])
def test_an_example_of_other_settings_is_refused(example, other):
    before = content(example)
    with pytest.raises(DataError, match="was written with .* not "):
        write_example(example, **({"n": 9} | TINY | other))
    assert content(example) == before


@pytest.mark.parametrize("name", ["scan_001.nii.gz", "labels.csv", "notes.txt"])
def test_a_folder_with_other_files_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"a patient")
    with pytest.raises(DataError, match=f"is not empty .{name}"):
        write_example(tmp_path, 9, **TINY)
    assert content(tmp_path) == {name: b"a patient"}


@pytest.mark.parametrize(
    "change, said",
    [
        ({"n": 3}, "3 scans of 4 patients"),
        ({"n": 4 * MOST_SCANS + 1}, "of 4 patients"),
        ({"n": 0}, "n=0"),
        ({"patients": 0}, "patients=0"),
        ({"size": 23}, "size=23"),
        ({"slices": 3}, "slices=3"),
        ({"seed": -1}, "seed=-1"),
        ({"n_jobs": 0}, "n_jobs=0"),
    ],
)
def test_wrong_arguments_are_named_and_write_nothing(tmp_path, change, said):
    with pytest.raises(SettingError, match=said):
        write_example(tmp_path / "own", **({"n": 9} | TINY | change))
    assert not (tmp_path / "own").exists()


def test_a_patient_may_have_as_many_scans_as_there_are_thicknesses(tmp_path):
    folder = write_example(tmp_path, MOST_SCANS, patients=1, size=24, slices=4, progress=False)
    assert len({nibabel.load(path).shape for path in folder.glob("*.nii.gz")}) == MOST_SCANS


def test_the_command_writes_it_and_says_how_to_read_it(tmp_path, capsys):
    folder = tmp_path / "own"
    words = ["phantom", str(folder), "-n", "3", "--patients", "2", "--size", "24", "--slices", "4", "--jobs", "1"]
    assert main(words) == 0
    assert f"-p data_root {folder} -p label_column diagnosis -p patient_column patient" in capsys.readouterr().out
    assert json.loads((folder / "example.json").read_text())["patients"] == 2 and len(rows_of(folder)) == 3
    assert main([*words[:5], "4", *words[6:]]) == 1
    assert "3 scans of 4 patients are not possible" in capsys.readouterr().err
