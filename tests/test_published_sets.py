"""UCF50 and UCF101 as their archives unpack, ImageCLEF's masks and test part, MosMedData."""

import os

import nibabel as nib
import numpy as np
import pytest
from files import write_labels, write_mask, write_scan, write_video

from viptt_core.constants import UCF_CLASSES
from viptt_core.ct import CROP_MARGIN_MM, load_volume, prepare_volume
from viptt_core.datasets import list_dataset, load_dataset, load_for
from viptt_core.errors import DataError, SettingError
from viptt_core.presets import load_preset

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


def test_ucf50_is_found_in_the_folder_its_archive_unpacks_to(tmp_path):
    for name in ("Mixing", "Rowing"):
        write_video(tmp_path / "UCF50" / name / f"v_{name}_g01_c01.avi")
    assert load_dataset("ucf50", tmp_path, **GRID).names.tolist() == [
        "Mixing/v_Mixing_g01_c01.avi",
        "Rowing/v_Rowing_g01_c01.avi",
    ]


def test_every_class_or_some_joined_into_one(tmp_path):
    for name in (*UCF_CLASSES, "Archery"):
        write_video(tmp_path / name / f"v_{name}_g01_c01.avi", frames=4)
    assert len(load_dataset("ucf50", tmp_path, **GRID).class_names) == 10
    assert len(load_dataset("ucf50", tmp_path, classes="all", **GRID).class_names) == 11
    joined = load_dataset("ucf50", tmp_path, classes="Archery, Rowing+Skijet", **GRID)
    assert joined.class_names == ("Archery", "Rowing+Skijet") and joined.labels.tolist() == [0, 1, 1]


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
    assert len(load_dataset("ucf101", ucf101, on_error="skip", **GRID).excluded) == 2


def test_ucf101_without_its_lists_says_how_to_get_them(ucf101):
    with pytest.raises(DataError, match="testlist02.txt: no such file.*viptt data get ucf101"):
        load_dataset("ucf101", ucf101, fold=2, **GRID)
    (ucf101 / "ucfTrainTestlist").rename(ucf101 / "elsewhere")
    with pytest.raises(DataError, match="published splits.*viptt data get ucf101"):
        load_dataset("ucf101", ucf101, **GRID)
    with pytest.raises(SettingError, match="fold '4' does not exist. Known: 1, 2, 3"):
        load_dataset("ucf101", ucf101, fold=4, **GRID)


def test_other_files_among_the_videos_are_listed(ucf101):
    (ucf101 / "UCF-101" / "Mixing" / "v_Mixing_g02_c01.avi.crdownload").write_bytes(b"half")
    (ucf101 / "UCF-101" / "Mixing" / "._v_Mixing_g02_c01.avi").write_bytes(b"a shadow of a Mac's disk")
    listing = list_dataset("ucf101", ucf101)
    assert kinds(listing) == {("stray file", "Mixing/v_Mixing_g02_c01.avi.crdownload", "left out")}


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


def test_a_changed_mask_makes_its_scan_be_decoded_again(imageclef):
    before = load_dataset("imageclef", imageclef, crop="lungs", **GRID)
    write_mask(imageclef / "masks1" / "TRN_0001.nii.gz", high=(5, 5, 3))
    after = load_dataset("imageclef", imageclef, crop="lungs", **GRID)
    assert before.key != after.key


def test_presets_say_whether_the_affine_counts(imageclef):
    rows = [f"TRN_{k:04d}.nii.gz,{k % 5 + 1}" for k in range(4, 29)]
    for row in rows:  # five of each class, to be split
        write_scan(imageclef / "train" / row.split(",")[0])
    for path in imageclef.glob("train/TRN_000[123].nii.gz"):
        path.unlink()
    write_labels(imageclef, *rows)
    files = load_for(load_preset("paper"), "imageclef", imageclef, **GRID)
    turned = load_for(load_preset("corrected"), "imageclef", imageclef, **GRID)
    assert (files.source["orientation"], turned.source["orientation"]) == ("file", "canonical")


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
    clips = load_dataset("mosmed", mosmed / below, **GRID)
    assert clips.counts() == {"CT-0": 3, "CT-1": 2, "CT-4": 1} and len(set(clips.groups.tolist())) == 6


def test_rare_mosmed_classes_can_be_joined_or_left_out(mosmed):
    assert load_dataset("mosmed", mosmed, classes="CT-0,CT-1+CT-4", **GRID).counts() == {"CT-0": 3, "CT-1+CT-4": 3}
    assert load_dataset("mosmed", mosmed, classes="CT-0,CT-1", **GRID).counts() == {"CT-0": 3, "CT-1": 2}
    with pytest.raises(DataError, match="no folder of scans 'CT-3'. There are: CT-0, CT-1, CT-4"):
        load_dataset("mosmed", mosmed, classes="CT-0,CT-3", **GRID)


# --- Real files, put into the layouts by links --------------------------------------------------------


@pytest.fixture
def real_scans(shared_data):
    """Four real chest scans, 256 x 256."""
    return sorted((shared_data / "ct").glob("*_256.nii.gz"))


def test_real_ucf_clips_in_both_layouts(shared_data, tmp_path):
    clips = sorted((shared_data / "videos" / "ucf101").glob("*/v_*.avi"))
    lines = []
    for path in clips:
        target = tmp_path / "UCF-101" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(path, target)
        lines.append(f"{path.parent.name}/{path.name}")
    (tmp_path / "ucfTrainTestlist").mkdir()
    (tmp_path / "ucfTrainTestlist" / "trainlist01.txt").write_text("".join(f"{line} 1\n" for line in lines[:-1]))
    (tmp_path / "ucfTrainTestlist" / "testlist01.txt").write_text(f"{lines[-1]}\n")
    grid = {"frames": 20, "size": 32, "n_jobs": 1, "progress": False}
    official = load_dataset("ucf101", tmp_path, **grid)
    assert official.class_names == ("ApplyEyeMakeup", "BaseballPitch", "SoccerJuggling") and len(official) == 4
    assert official.parts.tolist() == ["train"] * 3 + ["test"] and official.excluded == ()
    plain = load_dataset("ucf50", tmp_path / "UCF-101", **grid)
    assert np.array_equal(plain.clips, official.clips) and plain.clips.std() > 20
    assert all(group.startswith("v_") and "_g" in group for group in plain.groups)


def test_real_scans_as_imageclef_with_lung_masks(shared_data, real_scans, tmp_path):
    tmp_path /= "set"  # the cache of a test lies in the other
    (tmp_path / "masks1").mkdir(parents=True)
    for k, path in enumerate(real_scans, 1):
        mask = shared_data / "ct" / "lungmask_derived" / path.name.replace(".nii.gz", "_lung.nii.gz")
        os.symlink(path, tmp_path / f"TRN_000{k}.nii.gz")
        os.symlink(mask, tmp_path / "masks1" / f"TRN_000{k}.nii.gz")
    write_labels(tmp_path, *(f"TRN_000{k}.nii.gz,{k}" for k in (4, 3, 2, 1)))
    grid = {"frames": 12, "size": 48, "n_jobs": 1, "progress": False, "orientation": "canonical"}
    whole = load_dataset("imageclef", tmp_path, **grid)
    lungs = load_dataset("imageclef", tmp_path, crop="lungs", **grid)
    assert whole.labels.tolist() == [0, 1, 2, 3] and lungs.notes == ()
    assert not np.array_equal(whole.clips, lungs.clips)
    for k, path in enumerate(real_scans, 1):
        mask = np.asanyarray(nib.load(tmp_path / "masks1" / f"TRN_000{k}.nii.gz").dataobj) > 0
        spacing = nib.load(path).header.get_zooms()
        box = []
        for axis, mm in enumerate(spacing):
            inside = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
            margin = round(CROP_MARGIN_MM / mm)
            box.append(slice(max(inside[0] - margin, 0), inside[-1] + 1 + margin))
        cut = nib.load(path).slicer[tuple(box)]
        turn = nib.orientations.ornt_transform(nib.io_orientation(cut.affine), nib.orientations.axcodes2ornt("LAS"))
        cut = cut.as_reoriented(turn).get_fdata(dtype=np.float32)
        assert np.abs(lungs.clips[k - 1] - 255 * prepare_volume(cut, depth=12, size=48)).max() <= 0.51


def test_real_scans_as_mosmed(real_scans, tmp_path):
    for k, path in enumerate(real_scans):
        (tmp_path / "studies" / f"CT-{k % 2}").mkdir(parents=True, exist_ok=True)
        os.symlink(path, tmp_path / "studies" / f"CT-{k % 2}" / f"study_000{k}.nii.gz")
    clips = load_dataset("mosmed", tmp_path, frames=12, size=48, n_jobs=1, progress=False)
    assert clips.counts() == {"CT-0": 2, "CT-1": 2} and clips.excluded == () and clips.notes == ()
    expected = load_volume(real_scans[1], depth=12, size=48)
    assert np.abs(clips.clips[2] - 255 * expected).max() <= 0.5
