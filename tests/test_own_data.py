"""The reader's own folder: any CSV, any class folders."""

import pytest
from files import write_labels, write_scan, write_video

from viptt_core.cli import main
from viptt_core.datasets import load_dataset, load_for
from viptt_core.errors import DataError
from viptt_core.presets import load_preset

GRID = {"frames": 4, "size": 16, "n_jobs": 1, "progress": False}


@pytest.fixture
def scans(tmp_path):
    for k in range(4):
        write_scan(tmp_path / "images" / f"case{k}.nii.gz", hu=-800 + 200 * k)
    return tmp_path


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
