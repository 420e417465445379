"""Baselines that need no network, on sets where their score is known."""

import cv2
import numpy as np
import pytest

from viptt_core.datasets import load_dataset
from viptt_core.metrics import accuracy, roc_auc
from viptt_core.probes import baseline_predictions
from viptt_core.results import predicted_classes, probabilities_of
from viptt_core.splits import Split, make_folds

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


def test_each_covariate_is_tried_alone(make_clip_set):
    clips = make_clip_set(covariates={"age": np.arange(20.0), "size": (np.arange(20) % 2) * 1.0})
    table = baseline_predictions(clips, SPLIT)
    assert scored(table, "size alone") == 1 and scored(table, "age alone") < 1


@pytest.mark.parametrize("leaks", [True, False])
@pytest.mark.parametrize("below", ["", "UCF50"])
def test_file_format_tells_classes_apart_only_when_it_leaks_them(make_clip_set, tmp_path, leaks, below):
    clips = make_clip_set()
    (tmp_path / below).mkdir(exist_ok=True)
    for i, (name, label) in enumerate(zip(clips.names, clips.labels, strict=True)):
        size = (32 + 32 * int(label), 32) if leaks else (32, 32)
        path = tmp_path / below / f"{name}.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"XVID"), 25, size)
        for _ in range(3 + i % 3):
            writer.write(np.zeros((size[1], size[0], 3), np.uint8))
        writer.release()
    named = make_clip_set(names=np.array([f"{name}.avi" for name in clips.names]))
    score = scored(baseline_predictions(named, SPLIT, tmp_path), "frame size and length")
    assert score == 1 if leaks else score < 1


def test_real_nodules_give_the_known_baselines(shared_data):
    """Known for them, in other folds by patient: diameter alone AUC 0.897, PCA-40 and logistic regression 0.826."""
    clips = load_dataset(
        "medmnist3d", shared_data / "lidc" / "lidc848_nodule3d_28.npz", frames=28, size=28, n_jobs=1, progress=False
    )
    folds = [baseline_predictions(clips, split) for split in make_folds("group", clips, stage="finetune")]
    for arm, known, within in (("diameter_mm alone", 0.897, 0.01), ("PCA + logistic", 0.826, 0.03)):
        found = [roc_auc(*of_test(table, arm)[:2]) for table in folds]
        assert np.mean(found) == pytest.approx(known, abs=within), arm
