"""Splits: the authors' sizes, and groups that never straddle."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from viptt_core.errors import DataError, SettingError
from viptt_core.splits import authors_scan_split, authors_video_split, make_split, split_by_group

# Scans a class that the authors could read: one Infiltrative scan of 420 could not be.
LABELS_916 = np.repeat(np.arange(5), (419, 226, 101, 100, 70))


def test_the_authors_video_split_has_their_sizes_and_order():
    split = authors_video_split(1366)
    assert (len(split.train), len(split.validation), len(split.test)) == (873, 219, 274)
    shuffled, test = train_test_split(list(range(1366)), test_size=0.2, random_state=0)
    assert split.train.tolist() == shuffled[:873] and split.validation.tolist() == shuffled[873:]
    assert split.test.tolist() == test


def test_the_authors_scan_split_has_their_class_counts_and_is_marked():
    split = authors_scan_split(LABELS_916)
    assert np.bincount(LABELS_916[split.train]).tolist() == [335, 180, 81, 80, 56]
    assert np.bincount(LABELS_916[split.validation]).tolist() == [84, 46, 20, 20, 14]
    assert split.selection_biased and np.array_equal(split.test, split.validation)
    assert "selection-biased" in split.sizes()


def test_no_group_straddles_and_nothing_is_lost():
    rng = np.random.default_rng(0)
    groups = rng.integers(40, size=300)
    labels = rng.integers(3, size=300)
    split = split_by_group(labels, groups, seed=1)
    parts = [set(groups[part]) for part in (split.train, split.validation, split.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    everything = np.concatenate([split.train, split.validation, split.test])
    assert sorted(everything) == list(range(300))


def test_classes_keep_their_shares():
    split = split_by_group(LABELS_916, np.arange(916), seed=0)
    whole = np.bincount(LABELS_916) / 916
    for part, size in ((split.train, 0.6), (split.validation, 0.2), (split.test, 0.2)):
        assert len(part) / 916 == pytest.approx(size, abs=0.01)
        np.testing.assert_allclose(np.bincount(LABELS_916[part]) / len(part), whole, atol=0.01)


def test_folds_test_everything_once():
    labels, groups = np.tile([0, 1], 25), np.arange(50)
    tests = [split_by_group(labels, groups, seed=0, fold=fold).test for fold in range(5)]
    assert sorted(np.concatenate(tests)) == list(range(50))


def test_the_seed_decides_the_split():
    def of(seed):
        return split_by_group(np.tile([0, 1], 50), np.arange(100), seed=seed).test.tolist()

    assert of(0) == of(0) != of(1)


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_too_few_groups_and_unseen_classes_are_refused(make_clip_set):
    with pytest.raises(DataError, match="4 groups cannot be split 5 ways"):
        split_by_group(np.arange(8) % 2, np.arange(8) % 4, seed=0)
    labels = np.array([0] * 19 + [1])
    lonely = make_clip_set(labels=labels)
    fold = next(k for k in range(5) if 19 in make_test(lonely, k))
    with pytest.raises(DataError, match="no training clip of class1"):
        make_split("group", lonely, stage="finetune", fold=fold)


def make_test(clips, fold):
    return split_by_group(clips.labels, clips.groups, seed=0, fold=fold).test


@pytest.mark.parametrize("bad", [{"kind": "groups", "stage": "finetune"}, {"kind": "group", "stage": "fine"}])
def test_unknown_kinds_and_stages_are_refused(make_clip_set, bad):
    with pytest.raises(SettingError, match="does not exist"):
        make_split(bad["kind"], make_clip_set(), stage=bad["stage"])
