"""The reader's own folder: any CSV, any class folders."""

import pytest
from files import write_labels, write_scan, write_video

from viptt_core.cli import main
from viptt_core.datasets import list_dataset, load_dataset, load_for
from viptt_core.errors import DataError
from viptt_core.presets import load_preset

GRID = {"frames": 4, "size": 16, "n_jobs": 1, "progress": False}


@pytest.fixture
def scans(tmp_path):
    for k in range(4):
        write_scan(tmp_path / "images" / f"case{k}.nii.gz", hu=-800 + 200 * k)
    return tmp_path


def kinds(listing):
    return [(fault.kind, fault.where) for fault in listing.faults]


def test_columns_and_patients_are_named_by_settings(scans):
    write_labels(
        scans,
        "case0;ill;p1",
        "case1.nii.gz;well;p1",
        "images/case2.nii.gz;ill;p2",
        r"images\case3;well;p3",
        header="Scan; Diagnosis ;Patient",
    )
    columns = {"file_column": "Scan", "label_column": "Diagnosis", "patient_column": "Patient"}
    clips = load_dataset("folder", scans, **columns, **GRID)
    assert clips.class_names == ("ill", "well") and clips.labels.tolist() == [0, 1, 0, 1]
    assert clips.groups.tolist() == ["p1", "p1", "p2", "p3"] and clips.names[2] == "case2.nii.gz"


def test_numbers_are_classes_in_their_order(scans):
    write_labels(scans, "case0,10", "case1,2", "case2,10", "case3,1", header="FileName,Label")
    assert load_dataset("folder", scans, **GRID).class_names == ("1", "2", "10")


def test_equal_names_in_two_folders_are_told_apart_by_their_paths(tmp_path):
    for folder in ("a", "b"):
        write_scan(tmp_path / folder / "scan.nii.gz")
    write_labels(tmp_path, "a/scan.nii.gz,0", "b/scan.nii.gz,1", header="FileName,Label")
    clips = load_dataset("folder", tmp_path, **GRID)
    assert clips.names.tolist() == ["a/scan.nii.gz", "b/scan.nii.gz"] and clips.labels.tolist() == [0, 1]
    write_labels(tmp_path, "scan.nii.gz,0", header="FileName,Label")
    assert ("two files of one name", "scan.nii.gz") in kinds(list_dataset("folder", tmp_path))


def test_class_folders_of_scans_or_videos(tmp_path):
    for name in ("ill", "well"):
        for k in range(2):
            write_scan(tmp_path / "ct" / name / f"p{k}_{name}.nii.gz")
        for k in range(5):
            write_video(tmp_path / "film" / name / f"v{k}.avi")
    scans = load_dataset("folder", tmp_path / "ct", group_pattern=r"(p\d+)", **GRID)
    assert scans.counts() == {"ill": 2, "well": 2} and set(scans.groups.tolist()) == {"p0", "p1"}
    videos = load_for(load_preset("study"), "folder", tmp_path / "film", frames=1, progress=False)
    assert videos.counts() == {"ill": 5, "well": 5} and videos.groups.tolist() == [f"v{k}" for k in range(5)] * 2
    write_video(tmp_path / "ct" / "film" / "v.avi")
    with pytest.raises(DataError, match=r"holds videos \(film\) and scans \(ill, well\)"):
        load_dataset("folder", tmp_path / "ct", **GRID)


def test_files_outside_of_the_class_folders_are_listed(tmp_path):
    for name in ("ill/a", "well/b", "well/more/c", "d", "masks/deep/e", ".x/y/z"):
        write_scan(tmp_path / f"{name}.nii.gz")
    clips = load_dataset("folder", tmp_path, **GRID)
    assert clips.names.tolist() == ["ill/a.nii.gz", "well/b.nii.gz"]
    assert [name for name, _ in clips.excluded] == ["d.nii.gz", "masks/deep/e.nii.gz", "well/more/c.nii.gz"]
    write_video(tmp_path / "film" / "one" / "a.avi")
    write_video(tmp_path / "film" / "two" / "b.avi")
    write_video(tmp_path / "film" / "c.avi")
    assert kinds(list_dataset("ucf50", tmp_path / "film", group_pattern="(.)")) == [("not in a class folder", "c.avi")]


# --- Real files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("patients", [(), ("--patients", "15")])
def test_written_phantoms_stay_synthetic_when_they_are_read_back(tmp_path, patients):
    folder = tmp_path / "scans"
    assert main(["phantom", str(folder), "-n", "15", "--size", "24", "--slices", "4", "--jobs", "1", *patients]) == 0
    settings = {"label_column": "diagnosis" if patients else "TypeOfTB"}
    clips = load_dataset("folder", folder, frames=4, size=16, n_jobs=1, progress=False, **settings)
    assert clips.synthetic
    (folder / ("example.json" if patients else "phantom.json")).unlink()
    assert not load_dataset("folder", folder, frames=4, size=16, n_jobs=1, progress=False, **settings).synthetic
