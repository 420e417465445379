"""Batches on their way to the device: the same rows by every road."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from viptt_core.training.device import to_pixels
from viptt_core.training.feed import Feed, draw_angles, read_ahead, rotate_clips

CPU = torch.device("cpu")
BATCHES = [np.array([3, 1]), np.array([0]), np.array([4, 2])]


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 256, (5, 2, 4, 4)).astype(np.uint8)


ROADS = {
    "as asked for": lambda array: Feed(array, CPU).rows(BATCHES),
    "sent ahead": lambda array: read_ahead(Feed(array, CPU)._gathered, BATCHES, 1),
}


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)
def test_rows_come_in_the_order_asked_for_by_every_road(array, road):
    for got, batch in zip(road(array), BATCHES, strict=True):
        np.testing.assert_array_equal(got.numpy(), array[batch])


def test_grey_levels_are_scaled_and_features_left_alone(array):
    clips = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert to_pixels(clips, "0..1").flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert to_pixels(clips, "0..255").flatten().tolist() == [0, 51, 255]
    features = torch.rand(2, 3, 4)
    assert to_pixels(features, "0..1") is features


def test_labels_and_angles_go_with_their_clips(array):
    angles = torch.tensor([30.0, 10, 0, 40, 20])  # in the order of BATCHES
    for batch, indices in zip(Feed(array, CPU, np.arange(5) * 10).batches(BATCHES, angles), BATCHES, strict=True):
        assert batch.labels.tolist() == (indices * 10).tolist() == batch.angles.tolist()
        np.testing.assert_array_equal(batch.rows.numpy(), array[indices])


# --- Rotation against SciPy's, and the authors' odds ------------------------------------------------------


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
