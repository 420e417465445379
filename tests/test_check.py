"""The check of a data set: planted faults are found and nothing else, files are read once, real sets are judged."""

import errno
import os
import time
from collections import Counter
from pathlib import Path

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
from viptt_core.errors import StorageError
from viptt_core.files import cache_root

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
    assert len({kind for kind, *_ in faults}) > 25 and report.spoils


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
    assert report.faults[0].kind == fault and report.spoils and report.reading["n_read"] == 0
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
    assert report.reading["n_read"] == 1 and report.facts["voxels"] == {"5 x 5 x 5": 18}


def test_a_table_that_is_not_there_is_called_by_its_path(tmp_path):
    write_sound_videos(tmp_path / "set", 5)
    table = tmp_path / "nope.csv"
    report = check_dataset("folder", tmp_path / "set", groups=table, **QUIET)
    assert [fault.where for fault in report.faults] == [str(table)]


# --- Reading once -----------------------------------------------------------------------------------------


def kept() -> list[Path]:
    """Files with what was read, of the tests' own cache."""
    return sorted((cache_root() / "checks").iterdir())


def numbers(report) -> tuple[int, int]:
    return report.reading["n_read"], report.reading["n_reused"]


def test_unchanged_files_are_not_read_again_and_the_report_says_so(tmp_path):
    write_sound_scans(tmp_path, n=10)
    first = check_dataset("imageclef", tmp_path, **QUIET)
    assert numbers(first) == (10, 0) and len(kept()) == 10
    second = check_dataset("imageclef", tmp_path, preset="paper", **QUIET)
    assert numbers(second) == (0, 10) and second.facts == first.facts
    assert "Unchanged since it was read before: 10 files" in str(second)
    write_scan(tmp_path / "TRN_0003.nii.gz", b"")
    os.utime(tmp_path / "TRN_0004.nii.gz", (1, 1))
    third = check_dataset("imageclef", tmp_path, **QUIET)
    assert numbers(third) == (2, 8)
    assert "TRN_0003.nii.gz" in [fault.where for fault in third.faults if fault.level == "file"]


def test_other_code_reads_all_files_again(tmp_path, monkeypatch):
    write_sound_scans(tmp_path, n=5)
    check_dataset("imageclef", tmp_path, **QUIET)
    monkeypatch.setattr(reading.files, "code_version", lambda *_: "later")
    assert numbers(check_dataset("imageclef", tmp_path, **QUIET)) == (5, 0)


def test_an_interrupted_check_goes_on_where_it_stopped(tmp_path, monkeypatch):
    write_sound_scans(tmp_path, n=10)
    inspect, seen = reading.inspect_file, []

    def interrupted(role, path):
        seen.append(path)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return inspect(role, path)

    monkeypatch.setattr(reading, "inspect_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_dataset("imageclef", tmp_path, **QUIET)
    assert numbers(check_dataset("imageclef", tmp_path, **QUIET)) == (6, 4)
    assert Counter(seen) == Counter(dict.fromkeys(tmp_path.glob("TRN*"), 1)) + Counter([seen[4]])


def test_what_was_kept_and_got_damaged_costs_one_file_each(tmp_path):
    write_sound_scans(tmp_path, n=6)
    before = check_dataset("imageclef", tmp_path, **QUIET)
    cut, other, empty, *_ = kept()
    cut.write_bytes(cut.read_bytes()[:-30])
    other.write_bytes(b"\xff" + other.read_bytes())
    empty.write_bytes(b"")
    report = check_dataset("imageclef", tmp_path, **QUIET)
    assert numbers(report) == (3, 3) and report.facts == before.facts
    assert numbers(check_dataset("imageclef", tmp_path, **QUIET)) == (0, 6)


def test_what_could_not_be_opened_is_tried_again(tmp_path, monkeypatch):
    write_sound_scans(tmp_path, n=6)
    refusing = {"fault": {"kind": "unreadable file", "what": "cannot be read.", "remedy": ""}}
    with monkeypatch.context() as patch:
        patch.setattr(reading, "inspect_file", lambda role, path: refusing)
        assert len(check_dataset("imageclef", tmp_path, **QUIET).of_level("file")) == 6
    report = check_dataset("imageclef", tmp_path, **QUIET)
    assert numbers(report) == (6, 0) and not report.of_level("file")


def test_what_nobody_asked_for_in_two_months_goes_and_what_was_used_stays(tmp_path):
    days = 86400
    for name in ("a", "b"):
        write_sound_scans(tmp_path / name, n=5)
        check_dataset("imageclef", tmp_path / name, **QUIET)
    for path in kept():
        os.utime(path, (time.time() - 59 * days,) * 2)
    assert numbers(check_dataset("imageclef", tmp_path / "a", **QUIET)) == (0, 5)
    for path in kept():
        os.utime(path, (path.stat().st_mtime - 2 * days,) * 2)
    assert numbers(check_dataset("imageclef", tmp_path / "a", **QUIET)) == (0, 5) and len(kept()) == 5
    assert numbers(check_dataset("imageclef", tmp_path / "b", **QUIET)) == (5, 0)


def test_a_cache_that_cannot_be_written_ends_in_one_clear_error(tmp_path, monkeypatch):
    write_sound_scans(tmp_path / "set", n=3)
    check_dataset("imageclef", tmp_path / "set", **QUIET)

    def read_only(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", read_only)
        check_dataset("imageclef", tmp_path / "set", **QUIET)  # nothing is to be written
        write_scan(tmp_path / "set" / "TRN_0001.nii.gz", chest(9))
        with pytest.raises(StorageError, match="cannot be written .Read-only file system.*VIPTT_CACHE"):
            check_dataset("imageclef", tmp_path / "set", **QUIET)
    (tmp_path / "a file").write_bytes(b"")
    monkeypatch.setenv("VIPTT_CACHE", str(tmp_path / "a file"))
    with pytest.raises(StorageError, match="cannot be written .Not a directory.*VIPTT_CACHE"):
        check_dataset("imageclef", tmp_path / "set", **QUIET)


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
