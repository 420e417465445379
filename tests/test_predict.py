"""Scan files -> probabilities, against the steps done one by one; files that are unusual, and files that fail."""

import csv
import io
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from files import write_noise_scan, write_weights

from viptt_core.cli import main
from viptt_core.constants import TB_CLASSES
from viptt_core.ct import load_volume
from viptt_core.datasets.folders import read_scan
from viptt_core.errors import DataError, SettingError
from viptt_core.prediction import scans as predict
from viptt_core.prediction.card import RESEARCH_ONLY, Preprocessing
from viptt_core.prediction.scans import find_scans, predict_scans, scan_warnings
from viptt_core.prediction.weights import open_weights
from viptt_core.training.device import Engine
from viptt_core.training.feed import read_ahead

STORED = {"0.nii.gz": (-1, 1, 1), "1.nii.gz": (1, 1, 1), "2.nii.gz": (-1, -1, -1)}  # how the axes run


@pytest.fixture
def scans(tmp_path):
    """Three scans, stored in three orientations."""
    return [write_noise_scan(tmp_path / "scans" / name, k, signs) for k, (name, signs) in enumerate(STORED.items())]


def quiet(weights, paths, **settings):
    return predict_scans(
        weights, paths, **{"engine": Engine(device="cpu", precision="fp32"), "n_jobs": 2, "progress": False} | settings
    )


def one_by_one(path, scans, **grid):
    """The same by hand."""
    weights = open_weights(path)
    volumes = [load_volume(scan, **{"depth": 6, "size": 16, "orientation": "canonical"} | grid) for scan in scans]
    levels = torch.from_numpy(np.rint(np.stack(volumes) * 255))
    levels = levels / 255 if weights.card.preprocessing.pixel_range == "0..1" else levels
    with torch.no_grad():
        return weights.model()(levels).softmax(dim=1).numpy()


# --- Probabilities ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid, pixel_range",
    [({"orientation": "file"}, "0..1"), ({"orientation": "canonical"}, "0..255"), ({"hu_window": (-1000, 0)}, "0..1")],
)
def test_probabilities_are_those_of_the_steps_done_one_by_one(tmp_path, scans, grid, pixel_range):
    path = write_weights(tmp_path / "w.safetensors", pixel_range=pixel_range, **grid)
    found = quiet(path, scans)
    assert found.probabilities.shape == (1, 3, 5) and np.allclose(found.probabilities.sum(axis=2), 1)
    assert found.class_names == TB_CLASSES and not found.failed.any()
    np.testing.assert_allclose(found.probabilities[0], one_by_one(path, scans, **grid), atol=1e-5)
    assert found.probabilities.max() > 0.3  # far from equal: the comparison says something


def test_a_scan_gets_the_same_answer_alone_and_among_many(tmp_path, scans):
    path = write_weights(tmp_path / "w.safetensors")
    many = [write_noise_scan(tmp_path / f"{k}.nii.gz", k) for k in range(2 * predict.TOGETHER + 3)]
    together = quiet(path, many).probabilities[0]
    alone = np.concatenate([quiet(path, scan).probabilities[0] for scan in many])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_several_models_are_asked_at_one_reading_of_each_scan(tmp_path, scans, monkeypatch):
    paths = [write_weights(tmp_path / f"{seed}.safetensors", seed=seed) for seed in range(2)]
    paths.append(write_weights(tmp_path / "other.safetensors", seed=2, frames=4))
    read = []
    monkeypatch.setattr(predict, "read_scan", lambda scan, grid: read.append(scan) or read_scan(scan, grid))
    found = quiet(paths, scans)
    assert len(read) == 2 * len(scans)  # two grids
    for m, path in enumerate(paths):
        assert np.array_equal(found.probabilities[m], quiet(path, scans).probabilities[0])
    assert found.table(1).loc[0, "Focal"] == round(found.probabilities[1, 0, 1], 6)


def test_folders_are_searched_without_masks_hidden_files_and_doubles(tmp_path, scans):
    root = scans[0].parent
    for name in ("deep/er/3.nii.gz", "masks1/0.nii.gz", ".cache/4.nii.gz", "._0.nii.gz", "5.NII"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scans[0], root / name)
    (root / "labels.csv").write_text("FileName,Label\n")
    found = find_scans([root / "1.nii.gz", root, root / "deep", root / "deep" / ".." / "2.nii.gz"])
    found = [path.relative_to(root).as_posix() for path in found]
    assert found == ["1.nii.gz", "0.nii.gz", "2.nii.gz", "5.NII", "deep/er/3.nii.gz"]


def test_a_file_in_a_folder_whose_name_is_not_utf_8_fails_and_is_told_why(tmp_path, scans):
    try:
        shutil.copy(scans[0], os.fsdecode(os.fsencode(scans[0].parent) + b"/s\xff.nii.gz"))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    *others, error = quiet(write_weights(tmp_path / "w.safetensors"), scans[0].parent).errors
    assert others == [""] * len(scans) and "Rename or remove it: its name is not UTF-8" in error


def test_scans_that_cannot_be_reached_are_among_those_found_and_scans_may_lie_in_any_folder(tmp_path, scans):
    root = tmp_path / "linked"
    (root / "findings").mkdir(parents=True)
    (root / "gone.nii.gz").symlink_to("nowhere")
    (root / "deep").symlink_to(scans[0].parent)
    shutil.copy(scans[0], root / "findings" / "other.nii.gz")
    found = [path.relative_to(root).as_posix() for path in find_scans([root])]
    assert found == ["deep/0.nii.gz", "deep/1.nii.gz", "deep/2.nii.gz", "findings/other.nii.gz", "gone.nii.gz"]


@pytest.mark.parametrize(
    "given, message",
    [
        (["no", "none"], "no, none: no such file"),
        (["empty"], "empty: holds no scans.*found: nothing. Give the folder of scans"),
        (["dicom"], "dicom: holds no scans.*1 .dcm. .*dcm2niix"),
        (["videos"], "videos: holds no scans.*found: 1 .avi. Give the folder of scans"),
        ([], "no scan"),
    ],
)
def test_paths_without_scans_are_refused_before_any_work(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("dicom/1.dcm", "videos/1.avi"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises((DataError, SettingError), match=message):
        find_scans(given)


# --- What is unusual ----------------------------------------------------------------------------------


def axes(*mm, degrees=0.0):
    """An affine of these voxel sizes, its slices turned about the third axis."""
    turn, angle = np.eye(4), np.radians(degrees)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.diag([-mm[0], *mm[1:], 1.0]) @ turn


@pytest.mark.parametrize(
    "shape, affine, message",
    [
        ((18, 20, 4), axes(16.0, 14.4, 70.0), "has 4 slices"),
        ((18, 20, 12), axes(1.0, 0.9, 25.0), "is 18 mm wide"),
        ((18, 20, 12), axes(16.0, 14.4, 100.0), "is 1200 mm long"),
        ((18, 20, 12), axes(16.0, 16.0, 25.0), ""),  # slices that are not square
        ((18, 20, 12), axes(16.0, 14.4, 25.0, degrees=5), ""),  # askew
        ((18, 20, 11), axes(16.0, 14.4, 27.0), ""),  # fewer slices than half of the frames
    ],
)
def test_implausible_sizes_are_told_and_nothing_of_a_scan_like_those_of_training(tmp_path, shape, affine, message):
    voxels = np.random.default_rng(0).integers(-1000, 400, shape).astype(np.int16)
    nib.Nifti1Image(voxels, affine).to_filename(tmp_path / "0.nii.gz")
    grid = Preprocessing("scan", 24, 16, "0..1", (-1000, 400), "canonical")
    told = scan_warnings("0.nii.gz", read_scan(tmp_path / "0.nii.gz", grid)[1], grid)
    assert any(message in warning for warning in told) if message else told == []


def test_values_that_are_no_hu_and_grey_levels_never_seen_are_told_and_predicted(tmp_path):
    shifted = tmp_path / "shifted.nii.gz"
    image = nib.load(write_noise_scan(tmp_path / "0.nii.gz"))
    nib.Nifti1Image(image.get_fdata().astype(np.int16) + 1024, image.affine).to_filename(shifted)
    path = write_weights(tmp_path / "w.safetensors", training={"grey_levels": [0.4, 0.6]})
    found = quiet(path, [tmp_path / "0.nii.gz", shifted])
    assert found.warnings[0] == () and not found.failed.any()
    assert any("does not look like Hounsfield units (values 24 to 1423;" in told for told in found.warnings[1])
    with pytest.warns(match="Hounsfield"):
        level = load_volume(shifted, depth=6, size=16, orientation="canonical").mean()
    assert f"has a mean grey level of {level:.2f}; training scans had 0.40 to 0.60." in found.warnings[1]
    assert "Hounsfield" in found.table().loc[1, "warnings"]


def test_weights_from_synthetic_scans_say_so(tmp_path, scans):
    found = quiet(write_weights(tmp_path / "w.safetensors", data={"synthetic": True}), scans)
    assert found.notes == ("w: trained on synthetic scans; what it says about a patient means nothing.",)
    assert found.notes[0] in str(found) and found.notes[0] in found._repr_mimebundle_()["text/html"]
    rows = len(scans)
    assert found.table()["notice"].str.endswith("Trained on synthetic data.").sum() == rows
    assert sum(line.endswith("synthetic data") for line in str(found).splitlines()) == rows


# --- What cannot be used ------------------------------------------------------------------------------


def test_weights_that_do_not_fit_the_scans_or_each_other_are_refused(tmp_path, scans):
    one = write_weights(tmp_path / "one.safetensors")
    other = write_weights(tmp_path / "other.safetensors", classes=("ill", "well"))
    video = write_weights(tmp_path / "video.safetensors", kind="video")
    for weights, message in (
        (video, "trained on videos.*fine-tuned on CT scans"),
        ([one, other], "tells ill, well"),
        ([], "no weights"),
    ):
        with pytest.raises((DataError, SettingError), match=message):
            quiet(weights, scans)


@pytest.mark.parametrize("content", [b"", bytes(128) + b"DICM" + bytes(200)])
def test_a_damaged_scan_is_told_and_stops_no_other(tmp_path, scans, content):
    path = write_weights(tmp_path / "w.safetensors")
    whole = quiet(path, scans).probabilities[0]
    scans[1].write_bytes(content)
    found = quiet(path, scans)
    assert found.failed.tolist() == [False, True, False] and found.errors[1]
    assert np.isnan(found.probabilities[0, 1]).all()
    np.testing.assert_allclose(found.probabilities[0, [0, 2]], whole[[0, 2]], atol=1e-6)
    assert found.table()["error"].astype(bool).tolist() == [False, True, False]
    assert f"{scans[1]}: failed: {found.errors[1]}" in str(found)


def test_a_folder_that_cannot_be_read_is_told_and_the_other_scans_are_predicted(tmp_path, scans, monkeypatch):
    (locked := scans[0].parent / "locked").mkdir()

    def refuse(path, iterdir=Path.iterdir):
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    found = quiet(write_weights(tmp_path / "w.safetensors"), scans[0].parent)
    assert dict(zip(found.names, found.errors, strict=True)) == dict.fromkeys(map(str, scans), "") | {
        str(locked): "is a folder that cannot be read. See that you may read it."
    }


def test_reading_is_never_far_ahead_of_the_model():
    """However slow the model: else a folder of scans would pile up in memory."""
    started = []
    reading = read_ahead(lambda path: started.append(path) or path, range(50), n_jobs=2)
    ahead = [(path, len(started) - path) for path in reading]
    assert [path for path, _ in ahead] == list(range(50)) and max(n for _, n in ahead) <= 2 * 2 + 1


# --- The command --------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    return write_weights(tmp_path / "w.safetensors")


def run(capsys, *arguments):
    code = main(["predict", *map(str, arguments), "--device", "cpu"])
    return code, *capsys.readouterr()


def test_every_form_of_output_holds_the_same_numbers_and_the_notice(tmp_path, scans, weights, capsys):
    expected = quiet(weights, scans)
    target = tmp_path / "out.csv"
    assert run(capsys, *scans, "--weights", weights, "-o", target)[0] == 0
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert [row["scan"] for row in rows] == list(map(str, scans))
    for n, row in enumerate(rows):
        assert [float(row[name]) for name in TB_CLASSES] == expected.probabilities[0, n].round(6).tolist()
        assert row["class"] == TB_CLASSES[expected.probabilities[0, n].argmax()] and row["notice"] == RESEARCH_ONLY
    code, text, _ = run(capsys, *scans, "--weights", weights)
    assert code == 0 and text.rstrip().endswith(RESEARCH_ONLY)


def test_a_damaged_file_among_many_gives_exit_code_one_and_is_listed(tmp_path, scans, weights, capsys):
    scans[1].write_bytes(scans[1].read_bytes()[:2000])
    code, _, said = run(capsys, scans[0].parent, "--weights", weights, "-o", tmp_path / "out.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert code == 1 and [bool(row["error"]) for row in rows] == [False, True, False]
    assert "truncated" in rows[1]["error"] and rows[1]["Focal"] == "" and rows[0]["Focal"]
    assert f"{scans[1]}: failed:" in said and "1 of 3 scans could not be read" in said
    code, text, said = run(capsys, scans[0].parent, "--weights", weights)
    assert code == 1 and "truncated" in text and "1 of 3 scans" in said


def test_what_cannot_be_written_is_said_before_the_work(tmp_path, scans, weights, capsys, monkeypatch):
    monkeypatch.setattr(predict, "_read", None)
    for name, words in (("no/out.csv", "no such folder"), ("out.xlsx", "'.xlsx' does not exist. Known: .csv.")):
        code, _, said = run(capsys, *scans, "--weights", weights, "-o", tmp_path / name)
        assert code == 1 and words in said


# --- Real scans ---------------------------------------------------------------------------------------


def test_every_real_scan_is_predicted_without_a_warning(shared_data, tmp_path):
    scans = sorted((shared_data / "ct").glob("*.nii.gz"))
    found = quiet(write_weights(tmp_path / "w.safetensors"), scans)
    assert len(scans) == 5 and not found.failed.any() and np.isfinite(found.probabilities).all()
    assert found.warnings == ((),) * len(scans)
    masks = quiet(write_weights(tmp_path / "w.safetensors"), shared_data / "ct" / "lungmask_derived")
    assert all(any("Hounsfield" in warning for warning in warnings) for warnings in masks.warnings)
    assert os.fspath(scans[0]) == found.names[0]
