"""The leakage of a split by clip: planted, counted by hand, and compared with scikit-learn."""

import dataclasses

import numpy as np
import pytest
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from viptt_core.errors import SettingError
from viptt_core.probes import BY_CLIP, BY_GROUP, coarse_pixels, measure_leakage
from viptt_core.splits import split_by_group


@pytest.fixture
def copies(make_clip_set):
    """40 groups of 5 near-copies whose look has nothing to do with their class."""
    rng = np.random.default_rng(0)
    source = rng.integers(0, 200, (40, 6, 16, 16)).repeat(5, axis=0)
    clips = (source + rng.integers(0, 8, source.shape)).astype(np.uint8)
    labels, groups = np.arange(200) // 5 % 4, np.array([f"g{i // 5}" for i in range(200)])
    blank = make_clip_set(n=200, classes=4, frames=6)
    return type(blank)(clips, labels, groups, blank.names, blank.class_names, blank.source)


def test_near_copies_give_a_split_by_clip_away_and_nothing_to_a_split_by_group(copies):
    leakage = measure_leakage(copies, seeds=3)
    by_clip, by_group = leakage.table.loc[BY_CLIP], leakage.table.loc[BY_GROUP]
    assert by_clip["accuracy"] > 0.98 and by_clip["same_group"] > 0.98 and by_clip["shared"] > 0.98
    assert by_group["accuracy"] < 0.6  # chance is 0.25, of 8 groups a seed
    assert by_group["same_group"] == by_group["shared"] == 0
    assert leakage.chance == 0.25 and (leakage.gains > 0.5).all()
    assert leakage.gains.mean() == pytest.approx(by_clip["accuracy"] - by_group["accuracy"])


def test_the_shares_and_accuracies_are_those_of_a_loop_and_of_scikit_learn(copies):
    noise = np.random.default_rng(1).integers(0, 40, copies.clips.shape)
    copies = dataclasses.replace(copies, clips=(copies.clips[:] // 4 + noise).astype(np.uint8))
    leakage = measure_leakage(copies, seeds=2, frames=2, side=2)
    assert 0.3 < leakage.table.loc[BY_CLIP, "same_group"] < 0.9  # hard enough that another split gives other shares
    features = coarse_pixels(copies, frames=2, side=2)
    everything = np.arange(len(copies))
    for row in leakage.runs.to_dict("records"):
        test = split_by_group(copies.labels, copies.groups, seed=row["seed"]).test
        if row["split"] == BY_CLIP:
            _, test = train_test_split(
                everything, test_size=len(test), random_state=row["seed"], stratify=copies.labels
            )
        train = np.setdiff1d(everything, test)
        shared = sum(copies.groups[i] in set(copies.groups[train]) for i in test) / len(test)
        scaler = StandardScaler().fit(features[train])
        known = scaler.transform(features[train]), copies.labels[train]
        model = KNeighborsClassifier(1).fit(*known)
        nearest = model.kneighbors(scaler.transform(features[test]), return_distance=False)[:, 0]
        assert row["n_test"] == len(test) and row["shared"] == pytest.approx(shared)
        assert row["accuracy"] == pytest.approx(model.score(scaler.transform(features[test]), copies.labels[test]))
        assert row["same_group"] == pytest.approx((copies.groups[train][nearest] == copies.groups[test]).mean())


def test_coarse_pixels_are_means_over_areas_of_frames_spread_over_the_clip(make_clip_set):
    clips = make_clip_set(n=4, frames=9, size=16)
    tiny = coarse_pixels(clips, frames=3, side=4).reshape(4, 3, 4, 4)
    meant = clips.clips[:, [1, 4, 7]].reshape(4, 3, 4, 4, 4, 4).mean(axis=(3, 5))
    np.testing.assert_allclose(tiny, meant, atol=1e-3)
    assert coarse_pixels(clips, frames=50, side=2).shape == (4, 9 * 4)  # no more frames than there are


def test_the_words_state_the_numbers_and_whether_they_are_synthetic(copies):
    leakage = measure_leakage(copies, seeds=2)
    accuracy, low, high = leakage.table.loc[BY_CLIP, "accuracy"], leakage.gains.min(), leakage.gains.max()
    assert f"right for {accuracy:.0%}, by group" in leakage.sentence()
    assert f"({round(100 * low):+d} to {round(100 * high):+d} over 2 seeds), a gain that" in leakage.sentence()
    page = leakage._repr_mimebundle_()["text/html"]
    assert f">{accuracy:.1%}</td>" in page and page.count("<tr") == 3 and "ynthetic" not in page
    assert "Synthetic data." in str(type(leakage)(leakage.runs, 200, 40, 0.25, synthetic=True))


def test_groups_that_hold_every_class_mislead_the_probe_and_no_gain_is_claimed(copies):
    across = dataclasses.replace(copies, labels=np.arange(200) % 4)  # near-copies of another class
    leakage = measure_leakage(across, seeds=3)
    assert leakage.table.loc[BY_CLIP, "same_group"] > 0.9 and leakage.gains.mean() < 0
    assert "no sure gain for this probe" in leakage.sentence() and "new sources" not in leakage.sentence()


@pytest.mark.parametrize("setting", ["seeds", "frames", "side"])
def test_counts_below_one_are_refused(make_clip_set, setting):
    with pytest.raises(SettingError, match=f"{setting} is 0"):
        measure_leakage(make_clip_set(), **{setting: 0})
