"""UCF50 and UCF101 as their archives unpack, ImageCLEF's masks and test part, MosMedData."""

from dataclasses import replace

import numpy as np
import pytest
from files import write_labels, write_mask, write_scan, write_video

from viptt_core.ct import CROP_MARGIN_MM, load_volume
from viptt_core.datasets import list_dataset, load_dataset, load_for
from viptt_core.errors import DataError, SettingError
from viptt_core.study.plan import load_study

GRID = {"frames": 4, "size": 16, "n_jobs": 1, "progress": False}


def kinds(listing):
    return {(fault.kind, fault.where, fault.level) for fault in listing.faults}


# --- Videos -----------------------------------------------------------------------------------------


@pytest.fixture
def ucf101(tmp_path):
    """Three classes of two groups; the published split 1 trains on g08 and tests on g01."""
    lines = {"train": [], "test": []}
    for name in ("Archery", "Mixing", "Rowing"):
        for group, part in ((1, "test"), (8, "train")):
            for clip in (1, 2):
                path = tmp_path / "UCF-101" / name / f"v_{name}_g{group:02d}_c{clip:02d}.avi"
                write_video(path, frames=4, level=40 + 10 * group)
                lines[part].append(f"{name}/{path.name}")
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text("".join(f"{line} {k}\r\n" for k, line in enumerate(lines["train"])))
    (lists / "testlist01.txt").write_text("".join(f"{line}\n" for line in lines["test"]))
    return tmp_path


def test_ucf101_takes_the_published_parts(ucf101):
    clips = load_dataset("ucf101", ucf101, **GRID)
    assert clips.class_names == ("Archery", "Mixing", "Rowing") and len(clips) == 12
    of_part = {part: {group[-3:] for group in clips.groups[clips.parts == part]} for part in ("train", "test")}
    assert of_part == {"train": {"g08"}, "test": {"g01"}}
    assert load_dataset("ucf101", ucf101 / "UCF-101", **GRID).parts.tolist() == clips.parts.tolist()


def test_ucf101_names_what_its_lists_and_its_folder_do_not_share(ucf101):
    (ucf101 / "UCF-101" / "Mixing" / "v_Mixing_g01_c01.avi").unlink()
    write_video(ucf101 / "UCF-101" / "Mixing" / "v_Mixing_g30_c01.avi")
    assert kinds(list_dataset("ucf101", ucf101)) == {
        ("missing file", "Mixing/v_Mixing_g01_c01.avi", "file"),
        ("not in the split lists", "Mixing/v_Mixing_g30_c01.avi", "left out"),
    }
    with pytest.raises(DataError, match="v_Mixing_g01_c01.avi: ucfTrainTestlist names it"):
        load_dataset("ucf101", ucf101, **GRID)
    assert len(load_dataset("ucf101", ucf101, on_error="skip", **GRID).faults) == 2


@pytest.mark.parametrize("written", ["./Mixing/", "UCF-101/Mixing/", "Mixing\\"])
def test_ucf101_lists_may_name_their_videos_in_another_way(ucf101, written):
    parts = load_dataset("ucf101", ucf101, **GRID).parts.tolist()
    for table in (ucf101 / "ucfTrainTestlist").iterdir():
        table.write_text(table.read_text().replace("Mixing/", written))
    assert load_dataset("ucf101", ucf101, **GRID).parts.tolist() == parts


def test_a_set_of_which_nothing_is_left_is_no_sound_set(ucf101):
    for table in (ucf101 / "ucfTrainTestlist").iterdir():
        table.write_text("Elsewhere/v_g01.avi 1\n")
    with pytest.raises(DataError, match="no file of it can be used"):
        load_dataset("ucf101", ucf101, **GRID)


def test_ucf101_without_its_lists_says_how_to_get_them(ucf101):
    with pytest.raises(DataError, match="testlist02.txt: no such file.*viptt data get ucf101"):
        load_dataset("ucf101", ucf101, fold=2, **GRID)
    (ucf101 / "ucfTrainTestlist").rename(ucf101 / "elsewhere")
    with pytest.raises(DataError, match="published splits.*viptt data get ucf101"):
        load_dataset("ucf101", ucf101, **GRID)
    with pytest.raises(SettingError, match="fold '4' does not exist. Known: 1, 2, 3"):
        load_dataset("ucf101", ucf101, fold=4, **GRID)


@pytest.mark.parametrize(
    "source, folder, counts, groups",
    [("ut", "ut_interaction", [20] * 6, 20), ("fights", "fight_cctv", [150] * 2, 72)],
)
def test_of_the_real_sources_no_clip_is_too_short_for_the_plan(shared_data, source, folder, counts, groups):
    study = load_study("real")
    settings = dict(study.sources[source])
    clips = load_for(
        replace(study.preset_of(study.arms[0]), size=8),
        settings.pop("dataset"),
        shared_data / "videos" / folder,
        progress=False,
        n_jobs=1,
        **settings,
    )
    assert list(clips.counts().values()) == counts and len(set(clips.groups)) == groups
    assert clips.source["fit"] == "crop" and clips.source["frames"] == 16
    assert [fault for fault in clips.faults if fault.level != "note"] == []


# --- ImageCLEF --------------------------------------------------------------------------------------


@pytest.fixture
def imageclef(tmp_path):
    for k in (1, 2, 3):
        write_scan(tmp_path / "train" / f"TRN_000{k}.nii.gz", hu=-900 + 100 * k)
        write_mask(tmp_path / "masks1" / f"TRN_000{k}.nii.gz")
        write_mask(tmp_path / "masks2" / f"TRN_000{k}.nii.gz", high=(12, 12, 5))
    write_scan(tmp_path / "test" / "TST_0001.nii.gz")
    write_labels(tmp_path, "TRN_0001.nii.gz,1", "TRN_0002.nii.gz,2", "TRN_0003.nii.gz,5")
    return tmp_path


def test_the_hidden_test_part_and_the_masks_are_no_training_scans(imageclef):
    listing = list_dataset("imageclef", imageclef)
    assert [item.name for item in listing.items] == ["TRN_0001.nii.gz", "TRN_0002.nii.gz", "TRN_0003.nii.gz"]
    assert listing.unlabelled == (imageclef / "test" / "TST_0001.nii.gz",) and listing.faults == ()
    assert {name: len(masks) for name, masks in listing.masks.items()} == {"masks1": 3, "masks2": 3}


def test_the_lungs_are_cropped_by_the_mask_set_asked_for(imageclef):
    whole, first, second = (
        load_dataset("imageclef", imageclef, **GRID, **crop)
        for crop in ({}, {"crop": "lungs"}, {"crop": "lungs", "masks": "masks2"})
    )
    path = imageclef / "train" / "TRN_0002.nii.gz"
    cropped = load_volume(path, depth=4, size=16, mask=imageclef / "masks1" / path.name)
    assert CROP_MARGIN_MM == 5  # at 1 mm voxels the box of masks1 reaches x = 12, and y from 0 to 12
    np.testing.assert_allclose(first.clips[1], cropped * 255, atol=0.501)
    assert len({clips.key for clips in (whole, first, second)}) == 3


def test_a_missing_mask_and_an_unknown_crop_are_named(imageclef):
    (imageclef / "masks1" / "TRN_0002.nii.gz").unlink()
    with pytest.raises(DataError, match="TRN_0002.nii.gz: has no mask in masks1/"):
        load_dataset("imageclef", imageclef, crop="lungs", **GRID)
    assert len(load_dataset("imageclef", imageclef, crop="lungs", on_error="skip", **GRID)) == 2
    with pytest.raises(SettingError, match="crop 'lung' does not exist"):
        load_dataset("imageclef", imageclef, crop="lung", **GRID)
    assert len(load_dataset("imageclef", imageclef, **GRID)) == 3


# --- MosMedData -------------------------------------------------------------------------------------


@pytest.fixture
def mosmed(tmp_path):
    number = 0
    for name, count in (("CT-0", 3), ("CT-1", 2), ("CT-4", 1)):
        for _ in range(count):
            number += 1
            write_scan(tmp_path / "studies" / name / f"study_{number:04d}.nii.gz", hu=-100 * number)
    write_mask(tmp_path / "masks" / "study_0004_mask.nii.gz")
    return tmp_path


@pytest.mark.parametrize("below", ["", "studies"])
def test_mosmed_takes_its_classes_from_the_folders(mosmed, below):
    (mosmed / "studies" / "CT-4").rename(mosmed / "studies" / "ct-4")
    with pytest.raises(DataError, match="(?s)no folder of scans 'CT-2'.*There are: CT-0, CT-1, ct-4"):
        load_dataset("mosmed", mosmed / below, **GRID)
    (mosmed / "studies" / "ct-4").rename(mosmed / "studies" / "CT-4")
    clips = load_dataset("mosmed", mosmed / below, classes="CT-0, CT-1, CT-4", **GRID)
    assert clips.counts() == {"CT-0": 3, "CT-1": 2, "CT-4": 1} and len(set(clips.groups.tolist())) == 6


def test_rare_mosmed_classes_can_be_joined_or_left_out(mosmed):
    assert load_dataset("mosmed", mosmed, classes="CT-0,CT-1+CT-4", **GRID).counts() == {"CT-0": 3, "CT-1+CT-4": 3}
    assert load_dataset("mosmed", mosmed, classes="CT-0,CT-1", **GRID).counts() == {"CT-0": 3, "CT-1": 2}
    with pytest.raises(DataError, match="no folder of scans 'CT-3'. There are: CT-0, CT-1, CT-4"):
        load_dataset("mosmed", mosmed, classes="CT-0,CT-3", **GRID)
