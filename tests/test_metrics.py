"""Metrics against scikit-learn and hand-worked values."""

import numpy as np
import pytest
from sklearn import metrics as sk

from viptt_core.errors import SettingError
from viptt_core.metrics import CLASS_SCORES, accuracy, bootstrap_ci, cohen_kappa, confusion_matrix, roc_auc


def random_pair(seed, n=200, k=5):
    rng = np.random.default_rng(seed)
    y_true = rng.integers(k, size=n)
    return y_true, np.where(rng.random(n) < 0.5, y_true, rng.integers(k, size=n))


@pytest.mark.parametrize("seed", range(2))
def test_scores_equal_scikit_learn(seed):
    y_true, y_pred = random_pair(seed)
    assert cohen_kappa(y_true, y_pred) == pytest.approx(sk.cohen_kappa_score(y_true, y_pred), abs=1e-12)
    assert accuracy(y_true, y_pred) == pytest.approx(sk.accuracy_score(y_true, y_pred), abs=1e-12)
    assert (confusion_matrix(y_true, y_pred, 5) == sk.confusion_matrix(y_true, y_pred)).all()
    table = confusion_matrix(y_true, y_pred, 5)
    theirs = sk.precision_recall_fscore_support(y_true, y_pred)
    for name, scores in zip(("precision", "recall", "f1"), theirs, strict=False):
        np.testing.assert_allclose(CLASS_SCORES[name](table), scores, atol=1e-12)


@pytest.mark.parametrize("k", [2, 5])
def test_the_roc_area_equals_scikit_learn_with_ties(k):
    rng = np.random.default_rng(k)
    y_true = rng.integers(k, size=150)
    scores = rng.dirichlet(np.ones(k), 150).round(1) + 0.3 * np.eye(k)[y_true]
    scores /= scores.sum(axis=1, keepdims=True)
    theirs = sk.roc_auc_score(y_true, scores[:, 1] if k == 2 else scores, multi_class="ovr")
    assert roc_auc(y_true, scores) == pytest.approx(theirs, abs=1e-12)


def test_the_roc_area_is_half_for_a_constant_and_undefined_without_a_class():
    assert roc_auc([0, 1, 1], np.full((3, 2), 0.5)) == 0.5
    assert np.isnan(roc_auc([0, 0, 1], np.full((3, 3), 1 / 3)))
    with pytest.raises(SettingError, match="Give"):
        roc_auc([0, 1], [0.2, 0.8])


def test_kappa_of_a_constant_guess_is_zero_and_of_one_class_undefined():
    assert cohen_kappa([0, 1, 2, 0], [0, 0, 0, 0]) == 0
    assert np.isnan(cohen_kappa([1, 1], [1, 1]))


@pytest.mark.parametrize("y_true, y_pred", [([0, 1], [0]), ([], []), ([[0]], [[0]]), ([0, -1], [0, 0])])
def test_arrays_that_do_not_pair_are_refused(y_true, y_pred):
    with pytest.raises(SettingError):
        cohen_kappa(np.array(y_true, dtype=int), np.array(y_pred, dtype=int))


def test_bootstrap_interval_of_a_mean_agrees_with_scipy():
    from scipy.stats import bootstrap

    y_true, y_pred = random_pair(0)
    right = (y_true == y_pred).astype(float)
    theirs = bootstrap((right,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert bootstrap_ci(accuracy, y_true, y_pred, n_resamples=5000) == pytest.approx(tuple(theirs), abs=0.01)


def test_drawing_groups_widens_the_interval_of_copies():
    y_true, y_pred = random_pair(2, n=40)
    ten_copies = np.repeat(y_true, 10), np.repeat(y_pred, 10)
    low, high = bootstrap_ci(accuracy, *ten_copies)
    low_grouped, high_grouped = bootstrap_ci(accuracy, *ten_copies, groups=np.repeat(np.arange(40), 10))
    assert high_grouped - low_grouped > 2.5 * (high - low)
    assert (low_grouped, high_grouped) == pytest.approx(bootstrap_ci(accuracy, y_true, y_pred), abs=0.04)


@pytest.mark.parametrize("bad", [{"level": 95}, {"level": 0}, {"n_resamples": 0}, {"groups": [1, 2]}])
def test_impossible_bootstrap_settings_are_refused(bad):
    with pytest.raises(SettingError):
        bootstrap_ci(accuracy, [0, 1, 1], [0, 1, 0], **bad)
