"""Baselines that need no network, on sets where their score is known."""

import warnings
from dataclasses import replace

import cv2
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from viptt_core.check import check_dataset
from viptt_core.clips import ClipSet
from viptt_core.datasets import load_dataset
from viptt_core.errors import DataWarning, SettingError
from viptt_core.metrics import accuracy, roc_auc
from viptt_core.probes import (
    PERCENTILES,
    baseline_predictions,
    grey_percentiles,
    header_faults,
    over_time,
    read_headers,
    size_predictions,
)
from viptt_core.results import predicted_classes, probabilities_of
from viptt_core.splits import FOLDS, Split, make_split

SPLIT = Split(np.arange(12), np.arange(12, 16), np.arange(16, 20))


def of_test(table, arm):
    rows = table[(table["arm"] == arm) & (table["part"] == "test")]
    return rows["label"].to_numpy(), probabilities_of(rows), predicted_classes(rows)


def scored(table, arm):
    truth, _, predicted = of_test(table, arm)
    return accuracy(truth, predicted)


def test_the_most_frequent_class_is_that_of_the_training_part(make_clip_set):
    labels = np.array([0] * 9 + [1] * 3 + [0] * 4 + [0, 1, 1, 1])
    table = baseline_predictions(make_clip_set(labels=labels), SPLIT)
    assert scored(table, "most frequent class") == 0.25
    assert np.allclose(of_test(table, "most frequent class")[1], [0.75, 0.25])


def test_brightness_is_enough_for_principal_components(make_clip_set):
    table = baseline_predictions(make_clip_set(), SPLIT)
    assert scored(table, "PCA + logistic") == 1
    assert table.groupby(["arm", "part"]).size().unique().tolist() == [4]


def test_features_are_summed_up_over_time_and_in_thirds():
    features = np.arange(48, dtype=np.float32).reshape(2, 6, 4) ** 2
    summed = over_time(features).reshape(2, 6, 4)
    parts = (features, features[:, :2], features[:, 2:4], features[:, 4:])
    for column, part in zip((0, 3, 4, 5), parts, strict=True):
        np.testing.assert_allclose(summed[:, column], part.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(summed[:, 1], features[:, -1])
    np.testing.assert_allclose(summed[:, 2], features.std(axis=1), rtol=1e-5)


def test_grey_levels_are_looked_at_as_a_whole_and_in_the_middle():
    clip = np.zeros((6, 12, 12))
    clip[1:5, 3:9, 3:9], clip[2:4, 4:8, 4:8] = 100, np.arange(2)[:, None, None] * 50 + 150
    whole, half, third = grey_percentiles(clip).reshape(3, len(PERCENTILES))
    np.testing.assert_allclose(third, np.percentile([150, 200] * 16, PERCENTILES))
    assert half[0] == 100 and (half[-1], whole[-1]) == (200, 200) and whole[PERCENTILES.index(75)] == 0
    assert np.isfinite(grey_percentiles(np.ones((1, 2, 2)))).all()


def test_grey_percentiles_are_judged_by_plain_logistic_regression(make_clip_set):
    clips = make_clip_set(labels=(np.arange(20) % 4 == 0) * 1)
    values = np.stack([grey_percentiles(clip) for clip in clips.clips])
    centre, scale = values[SPLIT.train].mean(axis=0), values[SPLIT.train].std(axis=0)
    values = (values - centre) / np.where(scale == 0, 1, scale)
    model = LogisticRegression().fit(values[SPLIT.train], clips.labels[SPLIT.train])
    found = of_test(baseline_predictions(clips, SPLIT), "grey percentiles")[1]
    np.testing.assert_allclose(found, model.predict_proba(values[SPLIT.test]), atol=1e-4)


def test_only_clips_of_the_split_are_looked_at(make_clip_set):
    rows = np.arange(1, 40, 2)
    split = Split(*(rows[getattr(SPLIT, part)] for part in ("train", "validation", "test")))
    labels, unused = np.arange(40) // 2 % 2, np.zeros((40, 3, 4), np.float32)
    table = baseline_predictions(make_clip_set(n=40, labels=labels, covariates={"age": labels * 1.0}), split, unused)
    assert table[table["part"] == "test"]["name"].unique().tolist() == [f"c{n}" for n in rows[SPLIT.test]]
    assert scored(table, "age alone") == 1 and scored(table, "features + logistic") == 0.5


def test_each_covariate_is_tried_alone(make_clip_set):
    clips = make_clip_set(covariates={"age": np.arange(20.0), "size": (np.arange(20) % 2) * 1.0})
    table = baseline_predictions(clips, SPLIT)
    assert scored(table, "size alone") == 1 and scored(table, "age alone") < 1


def write_videos(clips, folder, size_of):
    """A black video of each clip, (width, height) by its label, of 3 to 5 frames."""
    files = {}
    for i, (name, label) in enumerate(zip(clips.names, clips.labels.tolist(), strict=True)):
        width, height = size_of(label)
        path = files[name] = folder / f"{name}.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"XVID"), 25, (width, height))
        for _ in range(3 + i % 3):
            writer.write(np.zeros((height, width, 3), np.uint8))
        writer.release()
    return files


@pytest.mark.parametrize("leaks", [True, False])
def test_file_format_tells_classes_apart_only_when_it_leaks_them(make_clip_set, tmp_path, leaks):
    files = write_videos(make_clip_set(), tmp_path, lambda label: (32 + 32 * label * leaks, 32))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        score = scored(baseline_predictions(make_clip_set(files=files), SPLIT), "file headers alone")
    assert score == 1 if leaks else score < 1
    told = [str(w.message) for w in caught if w.category is DataWarning]
    assert len(told) == leaks and all("most of all width" in text for text in told)


@pytest.mark.parametrize("telling", ["width", "side"])
def test_of_the_size_of_a_video_only_the_side_of_its_square_crop_counts(make_clip_set, tmp_path, telling):
    labels = np.array([0, 1, 1, 1] * 5)
    clips = make_clip_set(labels=labels, groups=np.array([f"g{i // 2}" for i in range(20)]))
    sizes = {"width": lambda label: (32 + 32 * label, 32), "side": lambda label: (64, 32 + 16 * label)}
    files = write_videos(clips, tmp_path, sizes[telling])
    predicted = size_predictions(make_clip_set(labels=labels, groups=clips.groups, files=files), SPLIT)
    expected = np.eye(2)[labels[16:]] if telling == "side" else [[0.25, 0.75]] * 4
    np.testing.assert_allclose(predicted, expected)
    with pytest.raises(SettingError, match="no files"):
        size_predictions(clips, SPLIT)


CONFOUNDED = {  # scans of class 1 differ by this and by nothing else
    "scanner": lambda header, ill: header.__setitem__("descrip", b"maker B" if ill else b"maker A"),
    "axes": lambda header, ill: header.set_sform(np.diag([1 if ill else -1, 1, 1, 1]), code=1),
    "spacing": lambda header, ill: header.set_sform(np.diag([1, 1, 1.25 if ill else 1, 1]), code=1),
    "data type": lambda header, ill: header.set_data_dtype(np.float32 if ill else np.int16),
}


def write_scans(root, confound=None, *, slices=lambda k: 5, noise=lambda k: 50):
    """20 scans of noise, in two folders by turns."""
    rng = np.random.default_rng(0)
    for k in range(20):
        voxels = rng.normal(-500, noise(k), (12, 12, slices(k))).astype(np.int16)
        image = nib.Nifti1Image(voxels, np.eye(4))
        if confound:
            confound(image.header, k % 2)
            image = nib.Nifti1Image(voxels, None, image.header)
        path = root / "ab"[k % 2] / f"s{k:02d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, path)
    return root


def scans_of(make_clip_set, root):
    paths = sorted(root.glob("*/*.nii.gz"), key=lambda path: path.name)
    files = {path.relative_to(root).as_posix(): path for path in paths}
    return make_clip_set(names=np.array(list(files)), files=files), paths


@pytest.mark.parametrize("name", CONFOUNDED)
def test_scans_of_a_class_from_one_scanner_are_told_by_their_headers_alone(make_clip_set, tmp_path, name):
    clips, paths = scans_of(make_clip_set, write_scans(tmp_path, CONFOUNDED[name]))
    (fault,) = header_faults(read_headers(paths), clips.labels, clips.groups)
    assert (
        fault.kind == "format tells the class"
        and fault.level == "note"
        and "accuracy of 1.00, by luck 0.50" in fault.what
    )
    with pytest.warns(DataWarning, match="headers alone.*tell the class"):
        assert scored(baseline_predictions(clips, SPLIT), "file headers alone") == 1
    report = check_dataset("folder", tmp_path, n_jobs=1, progress=False)
    assert "format tells the class" in [fault.kind for fault in report.faults]


@pytest.mark.parametrize("differs", [{"slices": lambda k: 5 + k % 2}, {"noise": lambda k: 5 + 400 * (k % 2)}])
def test_the_number_of_slices_and_the_size_of_files_are_headers_too(tmp_path, differs):
    report = check_dataset("folder", write_scans(tmp_path, **differs), n_jobs=1, progress=False)
    (fault,) = (fault for fault in report.faults if fault.kind == "format tells the class")
    assert ("most of all voxels along Z" if "slices" in differs else "most of all bytes") in fault.what


def test_headers_that_are_alike_give_no_baseline_away(make_clip_set, tmp_path):
    clips, paths = scans_of(make_clip_set, write_scans(tmp_path))
    assert header_faults(read_headers(paths), clips.labels, clips.groups) == []
    assert scored(baseline_predictions(clips, SPLIT), "file headers alone") < 1
    loaded = load_dataset("folder", tmp_path, frames=2, size=8, n_jobs=1, progress=False)
    assert loaded.files == clips.files
    assert "file headers alone" not in set(baseline_predictions(make_clip_set(), SPLIT)["arm"])


def test_headers_are_judged_by_group_and_never_by_luck():
    rng = np.random.default_rng(0)
    labels, groups = np.arange(120) % 4, [f"g{i // 6}" for i in range(120)]
    random = rng.normal(size=(120, 3))
    assert header_faults(pd.DataFrame(random), labels, groups) == []
    telling = pd.DataFrame(random + 3 * labels[:, None])
    (fault,) = header_faults(telling.rename(columns=str), labels, groups)
    assert fault.kind == "format tells the class" and not fault.spoils
    assert header_faults(telling[:18], labels[:18], groups[:18]) == []  # too few to tell
    assert header_faults(telling, np.zeros(120, int), groups) == []
    # What is only alike within a group tells nothing about other groups.
    by_group = pd.DataFrame(np.repeat(rng.normal(size=(20, 3)), 6, axis=0))
    assert header_faults(by_group, np.arange(120) // 6 % 4, groups) == []


def headers_of(n, rng):
    """Files that differ in many ways."""
    columns = {"slices": rng.integers(60, 200, n), "mm": rng.normal(0.7, 0.1, n), "bytes": rng.integers(0, 10**8, n)}
    names = {name: rng.choice(list("ABC"), n) for name in ("axes", "stored as", "kernel")}
    return pd.DataFrame(columns | names)


@pytest.mark.parametrize("counts, per_group", [((15, 5), 1), ((8, 8), 2), ((6,) * 5, 1)])
def test_one_column_that_names_the_class_is_found_among_others_in_few_files(counts, per_group):
    labels = np.repeat(np.arange(len(counts)), counts).repeat(per_group)
    groups = np.arange(len(labels)) // per_group
    headers = headers_of(len(labels), np.random.default_rng(1))
    assert header_faults(headers, labels, groups) == []
    (fault,) = header_faults(headers.assign(**{"written by": np.array(list("BDACE"))[labels]}), labels, groups)
    assert "most of all written by" in fault.what


def test_a_rare_class_of_one_scanner_is_noticed():
    labels = np.array([0] * 60 + [1] * 30 + [2] * 12)
    scanner = np.where(labels == 2, "B", "A")
    headers = pd.DataFrame({"scanner": scanner, "bytes": np.random.default_rng(0).integers(0, 9, len(labels))})
    (fault,) = header_faults(headers, labels, [str(i) for i in range(len(labels))])
    assert "most of all scanner" in fault.what


def test_real_nodules_give_the_known_baselines(shared_data):
    """Known for them, in other folds by patient: diameter alone AUC 0.897, PCA-40 and logistic regression 0.826."""
    path = shared_data / "lidc" / "lidc848_nodule3d_28.npz"
    with np.load(path) as stored:
        columns = {
            name: np.concatenate([stored[f"{part}_{name}"] for part in ("train", "val", "test")])
            for name in ("images", "labels", "patient", "diameter_mm")
        }
    labels, groups = columns["labels"].ravel().astype(np.int64), columns["patient"].astype(str)
    names, diameters = np.arange(len(labels)).astype(str), columns["diameter_mm"].ravel().astype(float)
    clips = ClipSet(columns["images"], labels, groups, names, ("benign", "malignant"), {})
    clips = replace(clips, covariates={"diameter_mm": diameters})
    splits = [make_split("group", clips, stage="finetune", fold=fold) for fold in range(FOLDS)]
    folds = [baseline_predictions(clips, split) for split in splits]
    for arm, known, within in (("diameter_mm alone", 0.897, 0.01), ("PCA + logistic", 0.826, 0.03)):
        found = [roc_auc(*of_test(table, arm)[:2]) for table in folds]
        assert np.mean(found) == pytest.approx(known, abs=within), arm


def test_features_of_a_backbone_are_tried_where_they_are_given(make_clip_set):
    clips = make_clip_set()
    features = np.random.default_rng(0).normal(size=(20, 3, 5)).astype(np.float32)
    features[:, 1] += 9 * clips.labels[:, None]  # at one time
    table = baseline_predictions(clips, SPLIT, features)
    assert scored(table, "features + logistic") == 1
    assert "features + logistic" not in set(baseline_predictions(clips, SPLIT)["arm"])
