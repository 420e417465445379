"""Synthetic activity videos: determinism, and what varies with what."""

import re

import cv2
import numpy as np
import pytest

from viptt_core.constants import UCF_CLASSES, UCF_GROUP_PATTERN, UCF_GROUPS
from viptt_core.errors import SettingError
from viptt_core.synthetic import actions
from viptt_core.synthetic.actions import clip_name, make_clip
from viptt_core.synthetic.choreography import keyed

LABELS = range(len(UCF_CLASSES))
SMALL = {"frames": 8, "stride": 4, "shape": (48, 64)}


def blurred(clip):
    """Every frame in grey, averaged over 4 x 4 pixels: sensor noise hardly counts; float [T, H/4, W/4]."""
    frames, height, width, _ = clip.shape
    return clip.reshape(frames, height // 4, 4, width // 4, 4, 3).mean((2, 4, 5))


def colours(clip):
    """Joint histogram of the colours of a clip, 8 levels a channel, summing to 1."""
    cells = (clip.reshape(-1, 3) // 32).astype(int) @ (64, 8, 1)
    return np.bincount(cells, minlength=512) / len(cells)


@pytest.mark.parametrize("label", LABELS)
def test_same_arguments_same_pixels_and_others_differ(label):
    clip = make_clip(label, 3, 1, **SMALL)
    assert clip.shape == (8, 48, 64, 3) and clip.dtype == np.uint8
    actions._group_look.cache_clear()
    np.testing.assert_array_equal(clip, make_clip(label, 3, 1, **SMALL))
    for group, number, seed in ((3, 2, 0), (4, 1, 0), (3, 1, 1)):
        other = make_clip(label, group, number, seed=seed, **SMALL)
        assert np.abs(blurred(clip) - blurred(other)).mean() > 2


@pytest.mark.parametrize("label", LABELS)
def test_other_strides_and_sizes_show_the_same_scene(label):
    every = make_clip(label, 7, 2, frames=22, shape=(48, 64))
    np.testing.assert_array_equal(make_clip(label, 7, 2, frames=8, stride=3, shape=(48, 64)), every[::3])
    large = make_clip(label, 5, 1, frames=2, stride=20)
    for shape in ((64, 64), (120, 160), (24, 32)):
        for a, b in zip(large, make_clip(label, 5, 1, frames=2, stride=20, shape=shape), strict=True):
            shrunk = cv2.resize(a, shape[::-1], interpolation=cv2.INTER_AREA)
            assert np.corrcoef(shrunk.ravel(), b.ravel())[0, 1] > 0.93 and abs(shrunk.mean() - b.mean()) < 3


def test_all_groups_render_and_their_names_are_ucfs():
    names = {clip_name(label, group, 1) for label in LABELS for group in range(1, UCF_GROUPS + 1)}
    assert len(names) == 250 and all(re.fullmatch(UCF_GROUP_PATTERN, name) for name in names)
    assert clip_name(0, 1, 1) == "v_Mixing_g01_c01" and clip_name(9, 25, 12) == "v_Skijet_g25_c12"
    for group in range(1, UCF_GROUPS + 1):
        for label in (group % 5, group % 5 + 5):  # every label and every group, but not all 250 pairs, to save time
            clip = make_clip(label, group, 1, frames=1, shape=(24, 32))
            assert clip.mean(-1).std() > 8, "a picture, not a flat colour"


def test_clips_of_a_group_look_alike_and_groups_do_not():
    within, between = [], []
    for label in LABELS:
        first, second = (
            np.array([colours(make_clip(label, group, number, **SMALL)) for group in (1, 2, 3, 4)]) for number in (1, 2)
        )
        distance = np.abs(first[:, None] - second).sum(-1) / 2
        within.append(np.diag(distance).mean())
        between.append(distance[~np.eye(4, dtype=bool)].mean())
        assert within[-1] < 0.75 * between[-1], UCF_CLASSES[label]
    assert np.mean(within) < 0.5 * np.mean(between)


def test_actions_and_background_repeat_themselves_without_a_jump():
    for keys in (actions.moves.TENNIS, actions.moves.PITCH):
        path = keyed(np.linspace(0, 2, 401), keys)
        np.testing.assert_allclose(path[:201], path[200:], atol=1e-9)
        assert (np.abs(np.diff(path, axis=0)).max(0) < 0.15 * np.ptp(path, axis=0) + 1e-9).all()
    canvas = actions._group_look(0, UCF_CLASSES.index("HorseRiding"), 1).canvas.astype(float)
    assert np.abs(canvas[:, 0] - canvas[:, -1]).mean() < 2 * np.abs(np.diff(canvas, axis=1)).mean() + 1


def test_knobs_change_what_they_say(monkeypatch):
    def picture(**knobs):
        with monkeypatch.context() as patch:
            for name, value in knobs.items():
                patch.setattr(actions, name, value)
            actions._group_look.cache_clear()
            return make_clip(1, 6, 1, frames=2, shape=(96, 128)).astype(float)

    clean = picture(NOISE_LEVEL=0.0)
    noise = (picture(NOISE_LEVEL=10.0) - clean)[(clean > 40) & (clean < 215)]
    assert noise.std() == pytest.approx(10, rel=0.1) and abs(noise.mean()) < 1
    flat = picture(NOISE_LEVEL=0.0, BACKGROUND_CONTRAST=0.0)
    assert flat[:, :, :4].std(1).mean() < 0.2 * clean[:, :, :4].std(1).mean()  # down the left edge
    shown, hidden = (picture(NOISE_LEVEL=0.0, PROP_VISIBILITY=(v, v)) for v in (1.0, 0.0))
    assert 0.0005 < (np.abs(shown - hidden).max(-1) > 20).mean() < 0.2
    actions._group_look.cache_clear()


WRONG = {
    "label": [{"label": value} for value in (10, -1, "Mixing", True)],
    "group": [{"group": value} for value in (0, 26)],
    "clip": [{"clip": 0}],
    "seed": [{"seed": -1}],
    "frames": [{"frames": value} for value in (0, 2.5)],
    "stride": [{"stride": 0}],
    "height": [{"shape": (23, 64)}],
    "width": [{"shape": (24, 31)}],
}


@pytest.mark.parametrize("name, change", [(name, change) for name, changes in WRONG.items() for change in changes])
def test_wrong_arguments_are_named(name, change):
    with pytest.raises(SettingError, match=rf"^{name} is .*Give a whole number") as error:
        make_clip(**({"label": 0, "group": 1, "clip": 1} | change))
    assert error.value.remedy
