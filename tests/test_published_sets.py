"""UCF50 as its archive unpacks, ImageCLEF's masks and test part, MosMedData."""

from dataclasses import replace

import pytest
from files import write_labels, write_scan

from viptt_core.datasets import list_dataset, load_dataset, load_for
from viptt_core.errors import DataError
from viptt_core.study.plan import load_study

GRID = {"frames": 4, "size": 16, "n_jobs": 1, "progress": False}


def kinds(listing):
    return {(fault.kind, fault.where, fault.level) for fault in listing.faults}


# --- Videos -----------------------------------------------------------------------------------------


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
        write_scan(tmp_path / "masks1" / f"TRN_000{k}.nii.gz", hu=1)
    write_scan(tmp_path / "test" / "TST_0001.nii.gz")
    write_labels(tmp_path, "TRN_0001.nii.gz,1", "TRN_0002.nii.gz,2", "TRN_0003.nii.gz,5")
    return tmp_path


def test_the_hidden_test_part_and_the_masks_are_no_training_scans(imageclef):
    listing = list_dataset("imageclef", imageclef)
    assert [item.name for item in listing.items] == ["TRN_0001.nii.gz", "TRN_0002.nii.gz", "TRN_0003.nii.gz"]
    assert listing.unlabelled == (imageclef / "test" / "TST_0001.nii.gz",) and listing.faults == ()


# --- MosMedData -------------------------------------------------------------------------------------


@pytest.fixture
def mosmed(tmp_path):
    number = 0
    for name, count in (("CT-0", 3), ("CT-1", 2), ("CT-4", 1)):
        for _ in range(count):
            number += 1
            write_scan(tmp_path / "studies" / name / f"study_{number:04d}.nii.gz", hu=-100 * number)
    write_scan(tmp_path / "masks" / "study_0004_mask.nii.gz", hu=1)
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
