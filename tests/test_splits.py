"""Splits: the authors' sizes, published parts, and groups that never straddle."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from viptt_core.clips import Item
from viptt_core.errors import DataError, SettingError
from viptt_core.splits import authors_split, make_split, split_by_group, split_faults

# Scans a class that the authors could read: one Infiltrative scan of 420 could not be.
LABELS_916 = np.repeat(np.arange(5), (419, 226, 101, 100, 70))


def test_the_authors_video_split_has_their_sizes_and_order():
    split = authors_split(np.zeros(1366, int), "pretrain")
    assert (len(split.train), len(split.validation), len(split.test)) == (873, 219, 274)
    shuffled, test = train_test_split(list(range(1366)), test_size=0.2, random_state=0)
    assert split.train.tolist() == shuffled[:873] and split.validation.tolist() == shuffled[873:]
    assert split.test.tolist() == test


def test_the_authors_scan_split_has_their_class_counts_and_is_marked():
    split = authors_split(LABELS_916, "finetune")
    assert np.bincount(LABELS_916[split.train]).tolist() == [335, 180, 81, 80, 56]
    assert np.bincount(LABELS_916[split.validation]).tolist() == [84, 46, 20, 20, 14]
    assert split.selection_biased and np.array_equal(split.test, split.validation)
    assert "selection-biased" in split.sizes()


def test_classes_keep_their_shares():
    split = split_by_group(LABELS_916, np.arange(916), seed=0)
    whole = np.bincount(LABELS_916) / 916
    for part, size in ((split.train, 0.6), (split.validation, 0.2), (split.test, 0.2)):
        assert len(part) / 916 == pytest.approx(size, abs=0.01)
        np.testing.assert_allclose(np.bincount(LABELS_916[part]) / len(part), whole, atol=0.01)


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_too_few_groups_and_unseen_classes_are_refused(make_clip_set):
    with pytest.raises(DataError, match="4 groups cannot be split 5 ways"):
        split_by_group(np.arange(8) % 2, np.arange(8) % 4, seed=0)
    with pytest.raises(DataError, match="40 groups cannot be split 5 ways; the largest class has 4 clips"):
        split_by_group(np.arange(40) % 10, np.arange(40), seed=0)
    for labels in ([0] * 9 + [1], np.arange(9)):
        with pytest.raises(DataError, match="clips cannot be split as by the authors"):
            authors_split(np.array(labels), "finetune")
    labels = np.array([0] * 19 + [1])
    lonely = make_clip_set(labels=labels)
    fold = next(k for k in range(5) if 19 in make_test(lonely, k))
    with pytest.raises(DataError, match="no training clip of class1"):
        make_split("group", lonely, stage="finetune", fold=fold)


def make_test(clips, fold):
    return split_by_group(clips.labels, clips.groups, seed=0, fold=fold).test


# --- Parts a set was published with -------------------------------------------------------------------


@pytest.fixture
def published(make_clip_set):
    parts = np.tile(["train", "train", "test", "train", "validation"], 8)
    return make_clip_set(n=40, parts=parts, groups=np.array([f"g{i}" for i in range(40)]))


def test_published_parts_stay_as_they_are_and_other_sets_are_split_by_group(make_clip_set, published):
    split = make_split("own", published, stage="finetune")
    for part in ("train", "validation", "test"):
        assert getattr(split, part).tolist() == np.flatnonzero(published.parts == part).tolist()
    assert not split.selection_biased
    plain = make_clip_set(n=40)
    for fold in (0, 1):
        own, meant = (make_split(kind, plain, stage="finetune", seed=2, fold=fold) for kind in ("own", "group"))
        assert np.array_equal(own.test, meant.test)


def test_published_parts_without_one_to_train_on_are_refused(make_clip_set):
    with pytest.raises(DataError, match="no training clip of"):
        make_split("own", make_clip_set(n=10, parts=np.array(["test"] * 10)), stage="finetune")


# --- Folds, and classes too small for them ------------------------------------------------------------


@pytest.mark.parametrize("folds", [3, 5])
def test_folds_share_no_group_and_lose_no_clip(folds):
    labels, groups = np.tile([0, 1], 45), np.arange(90) // 3
    for fold in range(folds):
        split = split_by_group(labels, groups, seed=1, fold=fold, folds=folds)
        parts = (split.train, split.validation, split.test)
        assert sorted(np.concatenate(parts)) == list(range(90)) and all(len(part) for part in parts)
        assert sum(len(set(groups[part])) for part in parts) == 30


def test_published_parts_have_no_folds(published):
    with pytest.raises(SettingError, match="no fold 1 of the published parts"):
        make_split("own", published, stage="finetune", fold=1)


@pytest.mark.parametrize(("fold", "folds"), [(5, 5), (0, 2)])
def test_folds_that_do_not_exist_are_refused(make_clip_set, fold, folds):
    clips = make_clip_set(n=40)
    with pytest.raises(SettingError, match=f"no fold {fold} of {folds}"):
        split_by_group(clips.labels, clips.groups, seed=0, fold=fold, folds=folds)


def items(*groups_of_class, parts=("",)):
    return [
        Item(f"{label}{group}{copy}", label, f"{label}{group}", None, part)
        for label, n_groups in enumerate(groups_of_class)
        for group in range(n_groups)
        for copy, part in enumerate((*parts, *parts))
    ]


@pytest.mark.parametrize(
    ("kind", "listed", "few"),
    [
        ("group", items(5, 6), []),
        ("group", items(5, 4), ["b: this class has 4 groups; 5 are needed"]),
        ("own", items(1, 0), ["a: this class has 1 group; 5 are needed", "b: this class has 0 groups; 5 are needed"]),
        ("own", items(2, 2, parts=("train", "validation", "test")), []),
        ("group", items(5, 4, parts=("train", "validation", "test")), ["b: this class has 4 groups"]),
        ("authors", items(1, 1), []),
        ("authors", items(1, 0), ["b: this class has 0 clips; 2 are needed"]),
        ("own", [], []),
    ],
)
def test_classes_too_small_for_a_split_are_counted(kind, listed, few):
    found = [str(fault) for fault in split_faults(kind, listed, ("a", "b"))]
    assert len(found) == len(few) and all(map(str.startswith, found, few))
