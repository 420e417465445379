"""Rotation against SciPy's, and the authors' odds."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from viptt_core.training.feed import draw_angles, rotate_clips


@pytest.mark.parametrize("degrees", [-20, -5, 10, 90])
@pytest.mark.parametrize("shape", [(40, 40), (40, 33)])
def test_rotation_equals_scipys_away_from_the_border(degrees, shape):
    clip = np.random.default_rng(0).random((1, 2, *shape), dtype=np.float32)
    ours = rotate_clips(torch.from_numpy(clip), torch.tensor([float(degrees)]))[0].numpy()
    theirs = ndimage.rotate(clip[0], degrees, axes=(2, 1), reshape=False, order=1)
    inside = np.hypot(*np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")) < 14
    np.testing.assert_allclose(ours[:, inside], theirs[:, inside], atol=1e-5)


def test_each_clip_turns_by_its_own_angle_and_corners_become_air():
    clips = torch.ones(2, 1, 21, 21)
    turned = rotate_clips(clips, torch.tensor([0.0, 20.0]))
    torch.testing.assert_close(turned[0], clips[0])
    assert turned[1, 0, 0, 0] == 0 and turned[1, 0, 10, 10] == 1


def test_angles_have_the_authors_odds_and_repeat_by_seed():
    angles = draw_angles(12000, torch.Generator().manual_seed(0))
    values, counts = angles.unique(return_counts=True)
    assert values.tolist() == [-20, -10, -5, 0, 5, 10, 20]
    expected = torch.tensor([1, 1, 1, 2, 1, 1, 1]) * 1500.0
    assert (counts - expected).abs().max() < 150
    assert torch.equal(angles, draw_angles(12000, torch.Generator().manual_seed(0)))
