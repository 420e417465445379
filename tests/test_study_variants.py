"""Draws by seed, folds, and the changed clips of the controls."""

import numpy as np
import pytest

from viptt_core.errors import SettingError
from viptt_core.splits import make_split
from viptt_core.study.variants import draw_scans, fold_scans, vary_scans, vary_videos


def test_a_draw_keeps_the_test_scans_and_the_class_mix(make_clip_set):
    scans = make_clip_set(n=60, classes=3)
    drawn = [draw_scans(scans, n_pool=40, n_train=21, seed=seed) for seed in (0, 1)]
    for clips in drawn:
        split = make_split("own", clips, stage="finetune", seed=0)
        assert len(clips) == 41 and set(clips.names[split.test]) == {f"c{i}" for i in range(40, 60)}
        assert set(clips.names[clips.parts == "train"]) <= {f"c{i}" for i in range(40)}
        assert np.bincount(clips.labels[clips.parts == "train"]).tolist() == [7, 7, 7]
        at = int(np.flatnonzero(clips.names == "c45")[0])
        assert np.array_equal(clips.clips[at], scans.clips[45]) and clips.labels[at] == scans.labels[45]
    assert set(drawn[0].names) != set(drawn[1].names) and drawn[0].key != drawn[1].key


@pytest.mark.parametrize(("n_pool", "n_train"), [(60, 10), (40, 41), (40, 0)])
def test_a_draw_that_cannot_be_made_is_refused(make_clip_set, n_pool, n_train):
    with pytest.raises(SettingError, match="cannot be drawn"):
        draw_scans(make_clip_set(n=60), n_pool=n_pool, n_train=n_train, seed=0)


def test_folds_test_every_case_once(make_clip_set):
    scans = make_clip_set(n=40)
    folds = [fold_scans(scans, k, 5) for k in range(5)]
    assert sorted(np.concatenate([f.names[f.parts == "test"] for f in folds])) == sorted(scans.names)
    assert len({f.key for f in folds}) == 5


def test_shuffled_labels_keep_their_counts_and_leave_the_clips(make_clip_set):
    videos = make_clip_set(n=40, classes=4)
    changed = vary_videos(videos, "shuffled labels", seed=3)
    assert np.bincount(changed.labels).tolist() == np.bincount(videos.labels).tolist()
    assert (changed.labels != videos.labels).mean() > 0.5 and changed.clips is videos.clips
    assert changed.key not in (videos.key, vary_videos(videos, "shuffled labels", seed=4).key)


@pytest.mark.parametrize("vary, variant", [(vary_videos, "shuffled frames"), (vary_scans, "shuffled slices")])
def test_shuffled_steps_are_the_same_in_orders_of_each_clips_own(make_clip_set, vary, variant):
    clips = make_clip_set(n=12, frames=6)
    changed = vary(clips, variant, seed=0)
    orders = [
        tuple(next(t for t in range(6) if np.array_equal(step, before[t])) for step in after)
        for before, after in zip(clips.clips, changed.clips, strict=True)
    ]
    assert all(sorted(order) == list(range(6)) for order in orders) and len(set(orders)) > 6
    assert changed.key != clips.key


def test_split_by_clip_puts_groups_on_both_sides(make_clip_set):
    videos = make_clip_set(n=100, groups=np.repeat([f"g{i}" for i in range(20)], 5))
    changed = vary_videos(videos, "split by clip", seed=0)
    counts = {part: int((changed.parts == part).sum()) for part in ("train", "validation", "test")}
    assert counts == {"train": 60, "validation": 20, "test": 20}
    assert set(changed.groups[changed.parts == "train"]) & set(changed.groups[changed.parts == "test"])


def test_sound_clips_are_left_alone_and_an_unknown_variant_is_refused(make_clip_set):
    clips = make_clip_set()
    assert vary_videos(clips, "sound", 0) is clips and vary_scans(clips, "sound", 0) is clips
    assert vary_scans(clips, "no finding", 0) is clips  # another set, not a change of this one
    with pytest.raises(SettingError, match="shuffled frames"):
        vary_videos(clips, "shufled frames", 0)
