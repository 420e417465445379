"""Clip sets on disk: decoded once, complete or absent, what is left out is listed."""

import json
import warnings

import numpy as np
import pytest

from viptt_core.env import cache_root
from viptt_core.errors import ClipTooShortError, DataError, DataWarning
from viptt_core.store import Item, build_clip_set, open_clip_set

CALLS = []


def decode(source):
    CALLS.append(source)
    if source == "broken":
        raise DataError("is damaged.", path="b.avi", remedy="Copy it again.")
    if source == "short":
        raise ClipTooShortError("has 3 frames, 8 needed.", path="s.avi", remedy="Ask for fewer.")
    if source == "odd":
        warnings.warn("o.nii.gz: 5 voxels are NaN", DataWarning, stacklevel=2)
        return np.full((2, 3, 3), 7, np.uint8)
    return np.full((2, 3, 3), source, np.uint8)


def build(*sources, **settings):
    CALLS.clear()
    items = [Item(f"n{i}", i % 2, f"g{i}", source) for i, source in enumerate(sources)]
    settings = {"n_jobs": 1, "progress": False, "source": {"sources": list(sources)}} | settings
    return build_clip_set(items, decode, class_names=("a", "b"), **settings)


def test_clips_labels_groups_and_names_come_back_in_order():
    clips = build(5, 6, 7)
    assert clips.clips[:, 0, 0, 0].tolist() == [5, 6, 7] and clips.clips.shape == (3, 2, 3, 3)
    assert clips.labels.tolist() == [0, 1, 0] and clips.names.tolist() == ["n0", "n1", "n2"]
    assert clips.groups.tolist() == ["g0", "g1", "g2"] and clips.counts() == {"a": 2, "b": 1}


def test_a_set_is_decoded_once_and_memory_mapped():
    build(5, 6)
    clips = build(5, 6)
    assert CALLS == [] and isinstance(clips.clips, np.memmap)
    assert clips.clips.flags.writeable is False


def test_other_settings_are_another_set():
    build(5, 6)
    build(5, 6, source={"frames": 9})
    assert CALLS == [5, 6]


def test_workers_give_the_same_set_as_one_process():
    alone = build(5, 6, 7, source={"jobs": 1})
    together = build(5, 6, 7, n_jobs=2, source={"jobs": 2})
    assert np.array_equal(alone.clips, together.clips)


def test_all_unreadable_files_are_named_in_one_error_and_nothing_stays():
    with pytest.raises(DataError, match="(?s)2 of 4 files.*b.avi: is damaged. Copy it again.*on_error") as caught:
        build(1, "broken", 2, "broken")
    assert str(caught.value).count("b.avi") == 2
    assert list(cache_root().iterdir()) == []


def test_unreadable_files_are_left_out_and_listed_on_request():
    clips = build(1, "broken", 2, on_error="skip")
    assert clips.names.tolist() == ["n0", "n2"]
    assert clips.excluded == (("n1", "is damaged."),)
    assert "Left out: 1" in clips.report() and "n1: is damaged." in clips.report()


def test_short_videos_are_left_out_and_listed():
    clips = build(1, "short", 2)
    assert clips.excluded == (("n1", "has 3 frames, 8 needed."),)


def test_a_set_with_nothing_left_says_why():
    with pytest.raises(DataError, match="(?s)none of the 2 files.*has 3 frames"):
        build("short", "short")
    with pytest.raises(DataError, match="no clip"):
        build()


def test_notes_are_warned_about_and_kept():
    with pytest.warns(DataWarning, match="5 voxels are NaN"):
        build("odd")
    assert "5 voxels are NaN" in build("odd").report()


def test_notes_of_worker_processes_arrive():
    with pytest.warns(DataWarning, match="5 voxels are NaN"):
        build("odd", 3, n_jobs=2)


@pytest.mark.parametrize("damage", ["array", "json", "format"])
def test_a_damaged_set_is_refused_with_its_folder(damage):
    build(5, 6)
    folder = next(cache_root().iterdir())
    if damage == "array":
        (folder / "clips.u8").write_bytes(b"x")
    elif damage == "json":
        (folder / "clipset.json").write_text("{")
    else:
        meta = json.loads((folder / "clipset.json").read_text())
        (folder / "clipset.json").write_text(json.dumps(meta | {"format": 0}))
    with pytest.raises(DataError, match="clips-.*Delete this folder"):
        open_clip_set(folder)


def test_a_set_that_does_not_fit_together_is_refused(make_clip_set):
    with pytest.raises(DataError, match="20 clips but 3 labels"):
        make_clip_set(labels=np.zeros(3, dtype=int))
    with pytest.raises(DataError, match="outside the class names"):
        make_clip_set(labels=np.full(20, 9))
