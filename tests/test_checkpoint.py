"""Training states on disk: whole or absent, refused with the reason when they do not fit."""

import errno
import json
import os

import pytest
import torch

from viptt_core.errors import DataError, StorageError
from viptt_core.model import ViPTTNet
from viptt_core.training.checkpoint import (
    optimiser_tensors,
    read_checkpoint,
    remove_checkpoints,
    restore_optimiser,
    save_checkpoint,
)


def small(num_classes=3, **settings):
    return ViPTTNet(num_classes, backbone="small", hidden_size=8, feature_size=6, **settings)


def save(run, step=7, value=1.0):
    return save_checkpoint(run, step, {"steps": step, "best": float("inf")}, {"model": {"w": torch.full((4,), value)}})


def test_a_state_comes_back_as_it_was_written(tmp_path):
    path = save(tmp_path / "run")
    found = read_checkpoint(tmp_path / "run")
    assert found.path == path and found.state == {"steps": 7, "best": float("inf")}
    assert torch.equal(found.tensors["model"]["w"], torch.ones(4))
    assert read_checkpoint(tmp_path / "empty") is None


def test_only_the_newest_state_is_kept(tmp_path):
    save(tmp_path, 9, 1.0)
    (tmp_path / "checkpoint-000000008-0.safetensors.tmp").touch()  # of a killed process
    newest = save(tmp_path, 10, 2.0)
    assert list(tmp_path.iterdir()) == [newest]
    assert float(read_checkpoint(tmp_path).tensors["model"]["w"][0]) == 2
    remove_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "changed", "renamed"])
def test_a_damaged_state_is_refused_by_file(tmp_path, damage):
    path = save(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "renamed":
        path.rename(path.with_name("checkpoint-000000007-0000.safetensors"))
    elif damage == "truncated":
        path.write_bytes(content[:-3])
    else:
        content[-6] ^= 1
        path.write_bytes(content)
    with pytest.raises(DataError, match="checkpoint-000000007.*changed after it was written.*Delete this file"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_full_disk_keeps_the_last_state_and_names_the_path(tmp_path, monkeypatch, failing):
    kept = save(tmp_path, 9)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(StorageError, match=f"{tmp_path}.*No space left.*last checkpoint"):
        save(tmp_path, 10)
    assert list(tmp_path.iterdir()) == [kept]
    assert read_checkpoint(tmp_path).state["steps"] == 9
    with pytest.raises(StorageError, match="No space left.*start again.$") as caught:
        save(tmp_path / "new", 1)
    assert "checkpoint" not in str(caught.value).replace(str(tmp_path), "")


def test_an_optimiser_is_restored_by_the_names_of_the_weights():
    model = small().to(memory_format=torch.channels_last)
    first, second = (torch.optim.AdamW(list(model.parameters())[::order], lr=0.1, fused=True) for order in (1, -1))
    model(torch.rand(1, 2, 16, 16)).sum().backward()
    first.step()
    kept = optimiser_tensors(first, model)
    assert "stem.weight/exp_avg" in kept and json.dumps(sorted(kept))
    restore_optimiser(second, model, kept)  # the same weights in another order
    for weight in model.parameters():
        for quantity, value in first.state[weight].items():
            assert torch.equal(second.state[weight][quantity], value)
            assert second.state[weight][quantity].stride() == value.stride()  # fused optimisers walk through memory
