"""Importance of slices: against the plain loop, chance counted by hand, the true finding on the grid."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from viptt_core.clips import Grid
from viptt_core.errors import SettingError
from viptt_core.model import ViPTTNet
from viptt_core.study.evidence import (
    evidence_table,
    finding_on_grid,
    gather_evidence,
    on_finding,
    read_evidence,
    write_evidence,
)
from viptt_core.synthetic.phantom import make_phantom


def small(seed):
    generator = torch.Generator().manual_seed(seed)
    settings = {"backbone": "small", "temporal": "projected lstm", "hidden_size": 8, "feature_size": 6}
    return ViPTTNet(3, **settings, generator=generator)


@pytest.fixture
def evidence():
    rng = np.random.default_rng(0)
    features, findings = rng.normal(size=(4, 5, 96)).astype(np.float32), np.eye(4, 5) > 0
    phantoms = {"names": np.array(list("abcd")), "labels": np.array([0, 0, 1, 1]), "findings": findings}
    models, empty = {"image": small(0), "video": small(1)}, np.full(96, 0.5, np.float32)
    return features, empty, models, gather_evidence(models, features, empty, **phantoms)


def test_importance_is_what_the_predicted_class_loses_when_a_slice_is_empty(evidence):
    features, empty, models, found = evidence
    assert found.arms == ("image", "video") and found.importance.shape == (2, 4, 5)
    for a, model in enumerate(models.values()):
        for i, scan in enumerate(features):

            def chance(scan, k=None, model=model):
                with torch.no_grad():
                    chances = model.eval()(torch.from_numpy(scan[None])).softmax(dim=1)[0]
                return chances[k] if k is not None else int(chances.argmax())

            k = chance(scan)
            assert found.predicted[a, i] == k
            for t in range(5):
                without = np.concatenate([scan[:t], empty[None], scan[t + 1 :]])
                assert found.importance[a, i, t] == pytest.approx(float(chance(scan, k) - chance(without, k)), abs=1e-3)
    assert np.abs(found.importance).max() > 1e-2


def test_it_comes_back_as_it_was_written(evidence, tmp_path):
    made = evidence[-1]
    write_evidence(tmp_path / "evidence.npz", made)
    read = read_evidence(tmp_path / "evidence.npz")
    for name, value in vars(made).items():
        np.testing.assert_equal(getattr(read, name), value, name)
    assert read.importance.dtype == np.float16
    assert list(evidence_table(read)["arm"]) == ["image", "image", "video", "video"]


def test_the_finding_is_turned_and_resampled_as_scipy_does_it():
    finding = make_phantom((5, 0), 4, size=64).finding.astype(float)
    turned = ndimage.rotate(finding, 90, axes=(1, 0), order=1)
    factors = (32 / 64, 32 / 64, 12 / finding.shape[2])
    part = ndimage.zoom(turned, factors, order=1).transpose(2, 0, 1)
    found = finding_on_grid(5, 0, 4, Grid(12, 32))
    assert found.shape == (12, 32, 32) and found.dtype == bool and found.any()
    sure = np.abs(part) > 1e-5  # rounding decides elsewhere
    np.testing.assert_array_equal(found[sure], (part > 0)[sure])


IMPORTANCE = np.array([[9, 1, 0, 0], [-1, 2, 6, 0], [1, 1, 5, 1]], float)
FINDINGS = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]) > 0
CLASSES = np.zeros(3, int)


def test_the_share_on_the_finding_and_chance_are_those_counted_by_hand():
    found = on_finding(IMPORTANCE, FINDINGS, CLASSES)  # what is below 0 counts nothing
    assert found["observed"] == pytest.approx((9 / 10 + 2 / 8 + 6 / 8) / 3)
    assert found["chance"] == pytest.approx(((1 / 10 + 0) / 2 + (0 + 6 / 8) / 2 + (1 / 8 + 1 / 8) / 2) / 3)
    assert found["gain"] == pytest.approx(found["observed"] - found["chance"]) and found["scans"] == 3


def test_scans_without_finding_importance_or_another_patient_do_not_count():
    importance = np.concatenate([IMPORTANCE, IMPORTANCE[:1], -np.abs(IMPORTANCE[:1]), IMPORTANCE[:1]])
    findings = np.concatenate([FINDINGS, FINDINGS[:1] & False, FINDINGS[:1], FINDINGS[:1]])
    found = on_finding(importance, findings, np.array([0, 0, 0, 0, 0, 1]))
    assert found == on_finding(IMPORTANCE, FINDINGS, CLASSES)
    for nobody in (np.arange(3), CLASSES[:1]):
        with pytest.raises(SettingError, match="another to be compared with"):
            on_finding(IMPORTANCE[: len(nobody)], FINDINGS[: len(nobody)], nobody)


def test_intervals_are_those_of_a_bootstrap_in_which_no_scan_meets_its_copy():
    rng = np.random.default_rng(3)
    n, classes = 9, np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
    importance, findings = rng.random((n, 12)), rng.random((n, 12)) < 0.4
    found = on_finding(importance, findings, classes, seed=7)
    on = (importance[:, None] * findings).sum(2) / importance.sum(1, keepdims=True)
    observed, gains = [], []
    for counts in np.random.default_rng(7).multinomial(n, [1 / n] * n, 2000):
        drawn = np.repeat(np.arange(n), counts)
        observed.append(np.mean([on[i, i] for i in drawn]))
        others = {i: [on[i, j] for j in drawn if j != i and classes[j] == classes[i]] for i in drawn}
        paired = [on[i, i] - np.mean(others[i]) for i in drawn if others[i]]
        gains.append(np.mean(paired) if paired else np.nan)
    np.testing.assert_allclose([found["observed_low"], found["observed_high"]], np.percentile(observed, [2.5, 97.5]))
    np.testing.assert_allclose([found["gain_low"], found["gain_high"]], np.nanpercentile(gains, [2.5, 97.5]))
