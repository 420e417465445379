"""Data sets on files the tests write, and on real ones where they are."""

import subprocess
import sys

import numpy as np
import pytest
from files import write_labels, write_scan, write_video

from viptt_core import files
from viptt_core.constants import TB_CLASSES, UCF_CLASSES
from viptt_core.datasets import load_dataset, load_for
from viptt_core.errors import DataError, SettingError
from viptt_core.presets import load_preset

GRID = {"frames": 4, "size": 16, "n_jobs": 1, "progress": False}


@pytest.fixture
def video_folder(tmp_path):
    root = tmp_path / "videos"
    for label, name in enumerate(("Rowing", "Mixing")):
        for group in (1, 2):
            write_video(root / name / f"v_{name}_g{group:02d}_c01.avi", level=60 + 80 * label)
    return root


@pytest.fixture
def scan_folder(tmp_path):
    root = tmp_path / "scans"
    for i in range(3):
        write_scan(root / f"TRN_{i + 1:04d}.nii.gz", hu=-800 + 400 * i)
    write_scan(root / "masks1" / "TRN_0001.nii.gz")
    # Rows out of order: labels must be joined on the name.
    write_labels(root, "TRN_0003.nii.gz,5", "TRN_0001.nii.gz,2", "TRN_0002.nii.gz,1")
    return root


def test_files_are_read_without_loading_the_generators():
    """Each worker process imports this module first."""
    code = "import sys, viptt_core.datasets; sys.exit(any(m.startswith('viptt_core.synthetic.') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- Video folders ------------------------------------------------------------------------------


def test_a_video_folder_gives_clips_by_class_and_group(video_folder):
    clips = load_dataset("ucf50", video_folder, **GRID)
    assert clips.class_names == ("Mixing", "Rowing") and clips.labels.tolist() == [0, 0, 1, 1]
    assert clips.groups.tolist() == ["v_Mixing_g01", "v_Mixing_g02", "v_Rowing_g01", "v_Rowing_g02"]
    assert clips.names[0] == "Mixing/v_Mixing_g01_c01.avi" and not clips.synthetic
    assert abs(int(clips.clips[0].mean()) - 140) <= 2 and abs(int(clips.clips[3].mean()) - 60) <= 2


def test_the_papers_ten_classes_are_taken_in_the_papers_order_when_all_are_there(tmp_path):
    for name in (*UCF_CLASSES, "Archery"):
        write_video(tmp_path / name / f"v_{name}_g01_c01.avi", frames=4)
    assert load_dataset("ucf50", tmp_path, **GRID).class_names == UCF_CLASSES
    chosen = load_dataset("ucf50", tmp_path, classes=("Rowing", "Archery"), **GRID)
    assert chosen.class_names == ("Rowing", "Archery") and len(chosen) == 2


def test_a_group_pattern_names_what_stays_together(tmp_path):
    for name in ("push", "point"):
        write_video(tmp_path / name / f"ut_set1_seq07_{name}.avi")
    assert set(load_dataset("ucf50", tmp_path, group_pattern=r"(seq\d+)", **GRID).groups) == {"seq07"}
    with pytest.raises(SettingError, match="no capture group"):
        load_dataset("ucf50", tmp_path, group_pattern=r"seq\d+", **GRID)
    with pytest.raises(SettingError, match="no regular expression"):
        load_dataset("ucf50", tmp_path, group_pattern="(", **GRID)


def test_too_short_videos_are_listed_and_unreadable_ones_stop_the_run(video_folder):
    write_video(video_folder / "Rowing" / "v_Rowing_g03_c01.avi", frames=2)
    clips = load_dataset("ucf50", video_folder, **GRID)
    assert [fault.where for fault in clips.faults] == ["Rowing/v_Rowing_g03_c01.avi"]
    assert "2 frames" in clips.report()
    whole = (video_folder / "Mixing" / "v_Mixing_g01_c01.avi").read_bytes()
    (video_folder / "Mixing" / "v_Mixing_g02_c01.avi").write_bytes(whole[:100])
    with pytest.raises(DataError, match="v_Mixing_g02_c01.avi: .*The 3 others are kept"):
        load_dataset("ucf50", video_folder, **GRID)
    left = load_dataset("ucf50", video_folder, on_error="skip", **GRID)
    assert len(left) == 3 and len(left.faults) == 2


# --- Scan folders ---------------------------------------------------------------------------------


def test_labels_are_joined_on_the_file_name_and_masks_are_no_scans(scan_folder):
    clips = load_dataset("imageclef", scan_folder, **GRID)
    assert clips.names.tolist() == [f"TRN_000{i}.nii.gz" for i in (1, 2, 3)]
    assert clips.labels.tolist() == [1, 0, 4] and clips.class_names == TB_CLASSES
    expected = [round(255 * (hu + 1000) / 1400) for hu in (-800, -400, 0)]
    assert np.median(clips.clips[:].reshape(3, -1), axis=1).tolist() == expected


def test_what_has_no_scan_or_no_label_is_listed_when_skipped(scan_folder):
    write_labels(scan_folder, "TRN_0001.nii.gz,1", "TRN_0002.nii.gz,2", "TRN_0009.nii.gz,1")
    clips = load_dataset("imageclef", scan_folder, on_error="skip", **GRID)
    assert clips.names.tolist() == ["TRN_0001.nii.gz", "TRN_0002.nii.gz"]
    assert {fault.where: fault.what for fault in clips.faults if fault.level != "note"} == {
        "TRN_0009.nii.gz": "line 4 of labels.csv names it, but there is no such file.",
        "TRN_0003.nii.gz": "no label in labels.csv.",
    }


def test_label_files_are_found_by_their_columns(scan_folder):
    (scan_folder / "metadata.csv").write_text("FileName,Age\nTRN_0001.nii.gz,40\n")
    assert len(load_dataset("imageclef", scan_folder, **GRID)) == 3
    (scan_folder / "second.csv").write_text("FileName,TypeOfTB\nTRN_0001.nii.gz,1\n")
    with pytest.raises(DataError, match="holds 2 CSV files .*: labels.csv, second.csv"):
        load_dataset("imageclef", scan_folder, **GRID)
    assert len(load_dataset("imageclef", scan_folder, labels=scan_folder / "second.csv", **GRID)) == 1
    (scan_folder / "labels.csv").unlink()
    (scan_folder / "second.csv").unlink()
    with pytest.raises(DataError, match="holds no CSV with the columns FileName, TypeOfTB"):
        load_dataset("imageclef", scan_folder, **GRID)


@pytest.mark.parametrize("name", ["phantom", "actions"])
def test_other_code_of_a_decoder_makes_another_set(monkeypatch, name):
    before = load_dataset(name, n=10, **GRID)
    monkeypatch.setattr("viptt_core.datasets.code_version", lambda *_, **__: "other")
    assert load_dataset(name, n=10, **GRID).key != before.key


def test_the_version_of_code_is_the_same_on_every_python(monkeypatch, tmp_path):
    """3.13 leaves out empty lists of a tree, 3.11 has no type parameters, 3.12.1 ends `{n:{width}}` otherwise."""
    (tmp_path / "viptt_core").mkdir()
    source = 'class Row:\n    def shown(self, n=[], width=3):\n        return f"{n:{width}} {n:{width}d}", ""\n'
    (tmp_path / "viptt_core" / "row.py").write_text(source)
    monkeypatch.setattr(files, "PACKAGE", tmp_path / "viptt_core")
    assert files.code_version("row") == "c7b0be691c8c3311"


# --- Synthetic sets -----------------------------------------------------------------------------


def test_synthetic_sets_are_marked_and_repeat_by_seed(monkeypatch, tmp_path):
    sets = []
    for cache in ("a", "b"):
        monkeypatch.setenv("VIPTT_CACHE", str(tmp_path / cache))
        sets.append([load_dataset(name, n=10, **GRID) for name in ("phantom", "actions")])
    for one, two in zip(*sets, strict=True):
        assert one.synthetic and np.array_equal(one.clips, two.clips) and one.key == two.key
    assert sets[0][0].class_names == TB_CLASSES and sets[0][1].class_names == UCF_CLASSES


def test_phantoms_without_finding_are_the_same_patients():
    grid = GRID | {"size": 32, "frames": 60}
    ill, well = (load_dataset("phantom", n=3, finding=finding, **grid) for finding in (True, False))
    assert ill.labels.tolist() == well.labels.tolist() and ill.key != well.key
    difference = np.abs(ill.clips[:].astype(int) - well.clips[:]).mean(axis=(1, 2, 3))
    assert (difference > 0).all() and (difference < 30).all()


# --- Names, settings, roots -----------------------------------------------------------------------


def test_a_preset_gives_the_grid():
    preset = load_preset("study")
    clips = load_for(preset, "actions", n=50, n_jobs=1, progress=False, group_pattern="", on_error=None)
    assert clips.clips.shape == (50, preset.frames, preset.size, preset.size)
    assert clips.source["stride"] == preset.stride


@pytest.mark.parametrize(
    "name, root, settings, message",
    [
        ("ucf", "", {}, "dataset 'ucf' does not exist. Did you mean 'ucf50'"),
        ("phantom", "", {"frame": 3}, "setting of 'phantom' 'frame'.*Did you mean 'frames'"),
        ("imageclef", "", {}, "needs a folder.*data_root"),
        ("phantom", "x", {}, "reads no folder"),
        ("actions", "", {"n": 3}, "at least one clip for each of 10"),
        ("imageclef", "does/not/exist", {}, "no such folder"),
        ("imageclef", b"x", {}, "root is b'x'.*str"),
        ("folder", ".", {"classes": 5}, "classes is 5.*str"),
        ("folder", ".", {"group_pattern": 5}, "group_pattern is 5.*str"),
        ("folder", ".", {"labels": 5}, "labels is 5.*str"),
        ("phantom", "", {"n": True}, "n is True.*int"),
        ("phantom", "", {"n": "2"}, "n is '2'.*int"),
        ("phantom", "", {"hu_window": None}, "hu_window is None.*-1000,400"),
        ("phantom", "", {"n_jobs": "2"}, "n_jobs is '2'.*whole number"),
        ("phantom", "", {"frames": True}, "frames is True.*whole number"),
        ("actions", "", {"size": 10**6}, "a clip of 70 x 1000000 x 1000000 is too large"),
    ],
)
def test_mistaken_calls_say_what_to_do(name, root, settings, message):
    with pytest.raises((SettingError, DataError), match=message):
        load_dataset(name, root, **settings)
