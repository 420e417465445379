"""Batches on their way to the device: the same rows by every road, and each process its share."""

import numpy as np
import pytest
import torch

from viptt_core.training.feed import Feed, epoch_share, to_pixels

CPU = torch.device("cpu")
BATCHES = [np.array([3, 1]), np.array([0]), np.array([4, 2])]


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 256, (5, 2, 4, 4)).astype(np.uint8)


def rows_of(feed):
    return [batch.numpy() for batch in feed.batches(BATCHES)]


def test_rows_come_in_the_order_asked_for(array):
    for got, batch in zip(rows_of(Feed(array, CPU)), BATCHES, strict=True):
        np.testing.assert_array_equal(got, array[batch])


def test_a_resident_set_gives_the_same_rows(array, monkeypatch):
    monkeypatch.setattr("viptt_core.training.feed.UPLOAD_BYTES", 2 * array[0].nbytes)  # so that it goes over in pieces
    feed = Feed(array, CPU, resident=True)
    assert feed.on_device is not None and torch.equal(feed.on_device, torch.from_numpy(array))
    for got, batch in zip(rows_of(feed), BATCHES, strict=True):
        np.testing.assert_array_equal(got, array[batch])


def test_rows_sent_ahead_are_the_same(array):
    for got, batch in zip(Feed(array, CPU)._sent_ahead(BATCHES), BATCHES, strict=True):
        np.testing.assert_array_equal(got.numpy(), array[batch])


def test_a_set_stays_on_disk_where_the_device_is_too_small(array, monkeypatch):
    monkeypatch.setattr("viptt_core.training.feed.free_memory", lambda _: array.nbytes)
    assert Feed(array, torch.device("meta")).on_device is None
    monkeypatch.setattr("viptt_core.training.feed.free_memory", lambda _: 10 * array.nbytes)
    assert Feed(array, torch.device("meta")).on_device is not None


def test_grey_levels_are_scaled_and_features_left_alone(array):
    clips = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert to_pixels(clips, "0..1").flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert to_pixels(clips, "0..255").flatten().tolist() == [0, 51, 255]
    halves = torch.tensor([0.5, 127.5], dtype=torch.float16).reshape(1, 1, 1, 2)
    assert to_pixels(halves, "0..1").flatten().tolist() == pytest.approx([0.5 / 255, 0.5])
    features = torch.rand(2, 3, 4)
    assert to_pixels(features, "0..1") is features


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_shares_of_all_processes_make_the_mean_of_each_batch(processes):
    losses = torch.arange(5, dtype=torch.float64) ** 2
    labels, angles = torch.arange(5) * 10, torch.tensor([30.0, 10, 0, 40, 20])  # in the order of BATCHES
    shares = [epoch_share(BATCHES, labels, angles, rank=r, processes=processes) for r in range(processes)]
    for step, batch in enumerate(BATCHES):
        averaged = sum(float(losses[s.indices[step]].sum()) * s.weights[step] for s in shares) / processes
        assert averaged == pytest.approx(float(losses[batch].mean()))
        seen = np.concatenate([s.indices[step] for s in shares if s.weights[step]])
        assert sorted(seen) == sorted(batch)
    for share in shares:
        for indices, own, turns in zip(share.indices, share.labels, share.angles, strict=True):
            assert own.tolist() == (indices * 10).tolist() == turns.tolist()


def test_a_process_without_a_clip_takes_part_with_one_that_counts_nothing():
    share = epoch_share(BATCHES, torch.arange(5), None, rank=1, processes=2)
    assert share.weights == [1.0, 0.0, 1.0] and share.indices[1].tolist() == [0] and share.angles is None
