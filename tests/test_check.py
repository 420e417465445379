"""The check of a data set: planted faults are found and nothing else, files are read once, real sets are judged."""

from collections import Counter

import numpy as np
import pytest
from files import publish
from planted import (
    AFFINE,
    chest,
    plant_scans,
    plant_videos,
    scan_bytes,
    write_scan,
    write_sound_scans,
    write_sound_videos,
)

from viptt_core.check import check_dataset
from viptt_core.check import inspect as reading

QUIET = {"n_jobs": 1, "progress": False}


def found(report) -> list[tuple[str, str, str]]:
    return sorted((fault.kind, fault.where, fault.level) for fault in report.faults)


def unlike(report, faults: set) -> tuple[set, set]:
    """Planted faults that were not found, and found ones that were not planted."""
    return faults - set(found(report)), set(found(report)) - faults


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    return root, plant_scans(root)


# --- What is found --------------------------------------------------------------------------------------


def test_every_planted_fault_of_scans_is_found_and_nothing_else(planted):
    root, faults = planted
    report = check_dataset("imageclef", root, n_jobs=2, progress=False)
    assert unlike(report, faults) == (set(), set())
    assert max(Counter(found(report)).values()) == 1
    assert len({kind for kind, *_ in faults}) > 20 and report.spoils


def test_every_planted_fault_of_videos_is_found_and_nothing_else(tmp_path):
    faults = plant_videos(tmp_path / "videos")
    report = check_dataset("ucf50", tmp_path / "videos", **QUIET)
    assert unlike(report, faults) == (set(), set()) and len(report.faults) == len(faults)
    assert report.spoils


def test_where_the_affine_is_ignored_other_axes_spoil_and_a_useless_affine_does_not(planted):
    root, faults = planted
    report = check_dataset("imageclef", root, preset="paper", **QUIET)
    changes = {
        ("other axes", "TRN_0057.nii.gz"): "file",
        ("two orientations", "TRN_0060.nii.gz"): "note",
        ("bad spacing", "TRN_0058.nii.gz"): "note",
    }
    expected = {(kind, where, changes.get((kind, where), level)) for kind, where, level in faults}
    assert expected != faults and unlike(report, expected) == (set(), set())
    mirrored = next(fault for fault in report.faults if fault.kind == "other axes")
    assert "RAS" in mirrored.what and "mirrored" in mirrored.what and "corrected" in mirrored.remedy


def test_test_scans_without_labels_are_read_and_compared_with_the_labelled_ones(tmp_path):
    rows = write_sound_scans(tmp_path)
    write_scan(tmp_path / "TST_0001.nii.gz", chest(500))
    write_scan(tmp_path / "TST_0002.nii.gz", chest(501)[:, :, :6].astype(np.float32) / 1000)
    write_scan(tmp_path / "deeper" / "TST_0003.nii.gz", chest(4))
    assert len(rows) == 40
    report = check_dataset("imageclef", tmp_path, **QUIET)
    assert set(found(report)) == {
        ("duplicate content", "deeper/TST_0003.nii.gz", "set"),
        ("few slices", "TST_0002.nii.gz", "note"),
        ("not in HU", "TST_0002.nii.gz", "file"),
    }
    assert report.counts["unlabelled"] == 3


# --- Tables that cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table, settings, fault",
    [
        ("FileName,TypeOfTB\nTRN_0001.nii.gz,Läsion\n".encode("latin-1"), {}, "not UTF-8"),
        (b"File,Type\nTRN_0001.nii.gz,1\n", {}, "no label table"),
        (b"File,Type\nTRN_0001.nii.gz,1\n", {"labels": "labels.csv"}, "missing column"),
        (None, {"labels": "labels.csv"}, "missing file"),
    ],
)
def test_without_a_usable_table_that_is_told_first_and_no_scan_is_read(tmp_path, table, settings, fault, monkeypatch):
    write_sound_scans(tmp_path, n=2)
    write_scan(tmp_path / "TST_0003.nii.gz", chest(3))
    (tmp_path / "labels.csv").unlink()
    if table is not None:
        (tmp_path / "labels.csv").write_bytes(table)
    settings = {key: tmp_path / name for key, name in settings.items()}
    monkeypatch.setattr(reading, "inspect_file", None)
    report = check_dataset("imageclef", tmp_path, **settings, **QUIET)
    assert report.faults[0].kind == fault and report.spoils and report.checked.readings == []
    assert "too few groups" not in {fault.kind for fault in report.faults}


# --- Sets as a whole --------------------------------------------------------------------------------------


def test_most_of_a_set_decides_which_axes_are_the_usual_ones(tmp_path):
    write_sound_scans(tmp_path)
    for i in range(40):
        if i % 10:  # 36 of 40 are turned round
            write_scan(tmp_path / f"TRN_{i + 1:04d}.nii.gz", scan_bytes(chest(i), AFFINE @ np.diag([-1, -1, 1, 1])))
    report = check_dataset("imageclef", tmp_path, preset="paper", **QUIET)
    other = [where for kind, where, _ in found(report) if kind == "other axes"]
    assert other == [f"TRN_{i + 1:04d}.nii.gz" for i in range(0, 40, 10)]
    assert report.facts["orientation"] == {"RPS": 36, "LAS": 4}
    assert ("axes not canonical", ".", "note") in found(report)
    followed = check_dataset("imageclef", tmp_path, preset="corrected", **QUIET)
    assert {kind: level for kind, _, level in found(followed)} == {"other axes": "note"}


def test_the_same_volume_in_two_published_parts_is_found(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    volumes = {part: rng.integers(0, 255, (6, 5, 5, 5), np.uint8) for part in ("train", "val", "test")}
    volumes["test"][2] = volumes["train"][1]
    volumes["train"][4] = volumes["train"][0]
    volumes["val"][3] = 9
    labels = {f"{part}_labels": np.zeros((6, 1), np.uint8) for part in volumes}
    for part in volumes:
        labels[f"{part}_labels"][3:] = 1
    volumes["train"][5] = volumes["val"][0]  # another label and another part
    np.savez(tmp_path / "amnist3d.npz", **{f"{part}_images": v for part, v in volumes.items()}, **labels)
    publish(monkeypatch, path := tmp_path / "amnist3d.npz")
    report = check_dataset("medmnist3d", path, **QUIET)
    assert found(report) == [
        ("duplicate content", "test_0002", "set"),
        ("duplicate content", "train_0004", "set"),
        ("duplicate content", "val_0000", "set"),
        ("one grey level", "val_0003", "file"),
    ]
    assert len(report.checked.readings) == 1 and report.facts["voxels"] == {"5 x 5 x 5": 18}


def test_a_table_that_is_not_there_is_called_by_its_path(tmp_path):
    write_sound_videos(tmp_path / "set", 5)
    table = tmp_path / "nope.csv"
    report = check_dataset("folder", tmp_path / "set", groups=table, **QUIET)
    assert [fault.where for fault in report.faults] == [str(table)]


# --- The report -------------------------------------------------------------------------------------------


def test_the_table_has_the_verdict_first_and_the_worst_faults_before_the_others(planted):
    text = str(check_dataset("imageclef", planted[0], **QUIET))
    assert text.startswith("NOT SOUND: 22 faults would stop or spoil a run (1 file left out, 5 notes).")
    parts = ["class   ", "Infiltrative", "slices", "orientation", "Stops a run", "duplicate content (1)"]
    parts += ["Files that stop", "empty file (1)", "Left out of every run", "Good to know", "voxels not finite (1)"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "TRN_0063.nii.gz: holds the same voxels as TRN_0008.nii.gz" in text


# --- Real files -------------------------------------------------------------------------------------------


def test_ut_interaction_is_sound_but_its_format_tells_the_class(shared_data):
    root = shared_data / "videos" / "ut_interaction"
    report = check_dataset("folder", root, preset="paper", group_pattern=r"(seq\d+)", progress=False)
    assert not report.spoils and report.counts["listed"] == 120 and report.counts["groups"] == 20
    kinds = Counter(kind for kind, *_ in found(report))
    assert kinds == {"format tells the class": 1, "too few frames": 3}
    telling = next(fault for fault in report.faults if fault.kind == "format tells the class")
    accuracy = float(telling.what.split("balanced accuracy of ")[1][:4])
    assert 0.4 < accuracy < 0.7 and "by luck 0.17" in telling.what


def test_real_scans_are_in_hu_and_alike(shared_data, tmp_path):
    rows = []
    for k, path in enumerate(sorted((shared_data / "ct").glob("*_256.nii.gz"))):
        (tmp_path / path.name).symlink_to(path)
        rows.append(f"{path.name},{k % 2}")
    (tmp_path / "l.csv").write_text("\n".join(["FileName,Label", *rows, ""]))
    report = check_dataset("folder", tmp_path, preset="corrected", **QUIET)
    assert {kind for kind, *_ in found(report)} <= {"too few groups"}
    assert report.facts["orientation"] == {"LPS": len(rows)}
    ignored = check_dataset("folder", tmp_path, preset="paper", **QUIET)
    assert set(found(ignored)) - set(found(report)) == {("axes not canonical", ".", "note")}
    assert report.facts["lowest HU"][0] == -1024 and 50 < report.facts["lung or air, %"][1] < 80
