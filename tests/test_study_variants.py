"""Draws by seed, joined sources, and the changed clips of the controls."""

import numpy as np
import pytest

from viptt_core.errors import SettingError
from viptt_core.splits import Split
from viptt_core.study.variants import draw, join, join_splits, validated, vary
from viptt_core.training.inference import Features

SHUFFLED = ("shuffled frames", "shuffled slices")


def test_draws_of_seeds_are_disjoint_and_a_smaller_one_lies_in_the_larger_one():
    drawn = [draw(100, 20, seed=seed, apart=20, first=40) for seed in range(4)]
    assert sorted(np.concatenate(drawn)[:60]) == list(range(40, 100)) and set(drawn[3]) == set(drawn[0])
    assert set(draw(100, 5, seed=2, apart=20, first=40)) < set(drawn[2])
    assert set(drawn[1]) < set(draw(100, 45, seed=1, apart=20, first=40))


@pytest.mark.parametrize("n", [0, 61])
def test_a_draw_that_cannot_be_made_is_refused(n):
    with pytest.raises(SettingError, match=f"{n} cannot be drawn of 60"):
        draw(100, n, seed=0, apart=20, first=40)


def test_a_fifth_of_the_drawn_groups_validates(make_clip_set):
    clips = make_clip_set(n=60, groups=np.repeat([f"g{i}" for i in range(30)], 2))
    rows, test = np.arange(20, 60), np.arange(20)
    split = validated(clips, rows, test, seed=0)
    assert sorted([*split.train, *split.validation]) == rows.tolist() and len(split.validation) == 8
    assert not set(clips.groups[split.train]) & set(clips.groups[split.validation])


def test_joined_sources_keep_their_classes_apart(make_clip_set):
    one, other = make_clip_set(n=6, classes=2), make_clip_set(n=4, classes=3, seed=1)
    joined, heads = join({"a": one, "b": other})
    assert heads.tolist() == [0, 0, 1, 1, 1] and joined.class_names[2].startswith("b: ")
    assert np.array_equal(joined.clips[6:], other.clips) and (joined.labels[6:] == other.labels + 2).all()
    assert len(set(joined.names)) == 10 and joined.groups[0].startswith("a/")
    split = join_splits([Split(np.array([0]), np.array([1]), np.array([2]))] * 2, [6, 4])
    assert split.train.tolist() == [0, 6] and split.test.tolist() == [2, 8]


def test_shuffled_labels_keep_their_counts_and_leave_the_clips(make_clip_set):
    videos = make_clip_set(n=40, classes=4)
    changed = vary(videos, None, "shuffled labels", seed=3)[0]
    assert np.bincount(changed.labels).tolist() == np.bincount(videos.labels).tolist()
    assert (changed.labels != videos.labels).mean() > 0.5 and changed.clips is videos.clips
    assert changed.key not in (videos.key, vary(videos, None, "shuffled labels", seed=4)[0].key)


@pytest.mark.parametrize("variant", SHUFFLED)
def test_shuffled_steps_are_the_same_in_orders_of_each_clips_own(make_clip_set, variant):
    clips = make_clip_set(n=12, frames=6)
    changed = vary(clips, None, variant, seed=0)[0]
    orders = [
        tuple(next(t for t in range(6) if np.array_equal(step, before[t])) for step in after)
        for before, after in zip(clips.clips, changed.clips, strict=True)
    ]
    assert all(sorted(order) == list(range(6)) for order in orders) and len(set(orders)) > 6
    assert changed.key != clips.key


@pytest.mark.parametrize("variant", [*SHUFFLED, "still frames"])
def test_kept_features_are_changed_as_the_clips_would_be(make_clip_set, variant):
    clips = make_clip_set(n=5, frames=4)

    def features(of):  # two numbers a frame
        return np.stack([of.clips.mean(axis=(2, 3)), of.clips.std(axis=(2, 3))], axis=-1).astype(np.float32)

    turned = np.array([[0, 1, 2, 3, 4], [-1, 5, -1, 6, -1]])  # two of the clips, turned: here the same features again
    kept = Features(np.concatenate([features(clips), features(clips)[[1, 3]]]), turned)
    changed = vary(clips, kept, variant, seed=1)[1]
    wanted = features(vary(clips, None, variant, seed=1)[0])
    np.testing.assert_array_equal(changed.array, np.concatenate([wanted, wanted[[1, 3]]]))


def test_sound_clips_are_left_alone(make_clip_set):
    clips = make_clip_set()
    assert vary(clips, None, "sound", 0)[0] is clips
    assert vary(clips, None, "no finding", 0)[0] is clips  # another set, not a change of this one
