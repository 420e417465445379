"""The feature cache: the same losses, one pass over the clips, taken up again after an interruption."""

import dataclasses

import numpy as np
import pytest
import torch

from viptt_core.errors import DataError
from viptt_core.model import ViPTTNet
from viptt_core.presets import load_preset
from viptt_core.splits import Split
from viptt_core.training import Task, Trainer
from viptt_core.training import inference as features_module
from viptt_core.training.device import Engine, is_cacheable
from viptt_core.training.inference import gather_features

SPLIT = Split(np.arange(10), np.arange(10, 15), np.arange(15, 20))
STAGE = dataclasses.replace(load_preset("frozen").pretrain, epochs=3, batch_size=4, pixel_range="0..1", rotate=False)


def model(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ViPTTNet(2, backbone="small", hidden_size=8, feature_size=8, generator=generator)


def features(net, clips, **settings):
    return gather_features(net.eval(), clips, STAGE, **({"precision": "fp32"} | settings)).array


@pytest.fixture
def counted(monkeypatch):
    calls, original = [], features_module.frame_features

    def count(net, pixels, precision):
        calls.append(len(pixels))
        return original(net, pixels, precision)

    monkeypatch.setattr(features_module, "frame_features", count)
    return calls


@pytest.mark.parametrize("rotate", [False, True])
def test_training_on_cached_features_gives_the_losses_of_training_without(make_clip_set, rotate):
    clips, runs, stage = make_clip_set(size=32), [], dataclasses.replace(STAGE, rotate=rotate)
    for cache in (True, False):
        net = model()
        history = Trainer(
            net, Task(clips, SPLIT, stage), engine=Engine(device="cpu", precision="fp32", feature_cache=cache)
        ).run()
        assert history.engine["feature_cache"] is cache
        runs.append(([(e["loss"], e["val_loss"]) for e in history.epochs], net.state_dict()))
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-5)
    for name, weight in runs[0][1].items():
        torch.testing.assert_close(weight, runs[1][1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_cache_is_used_only_where_features_cannot_change():
    assert is_cacheable(STAGE)
    for change in ({"freeze_backbone": False}, {"freeze_stem": False}):
        assert not is_cacheable(dataclasses.replace(STAGE, **change))
    # The authors freeze VGG16 and train the stem before it: there the features do change.
    assert not is_cacheable(load_preset("paper").pretrain)
    assert is_cacheable(load_preset("frozen").finetune)


def test_features_are_those_of_the_model_and_computed_once(make_clip_set, counted):
    clips, net = make_clip_set(n=6, size=32), model()
    cached = features(net, clips)
    expected = net.features(torch.from_numpy(clips.clips).float() / 255).detach()
    torch.testing.assert_close(torch.from_numpy(np.array(cached)), expected, atol=1e-5, rtol=1e-4)
    assert cached.dtype == np.float32 and cached.shape == expected.shape and sum(counted) == 6
    features(net, clips)
    assert sum(counted) == 6


def test_other_weights_clips_or_precision_are_other_features(make_clip_set, counted):
    clips, net = make_clip_set(n=4, size=32), model()
    features(net, clips)
    features(model(seed=1), clips)
    features(net, dataclasses.replace(clips, source={"test": "other"}))
    features(net, clips, precision="bf16")
    assert sum(counted) == 16
    with torch.no_grad():
        net.classifier.weight.add_(1)  # comes after the features
    features(net, clips)
    assert sum(counted) == 16


def test_an_interrupted_pass_is_taken_up_again(make_clip_set, counted, monkeypatch):
    clips, net = make_clip_set(n=6, size=32), model()
    monkeypatch.setattr(features_module, "INFERENCE_CHUNK", 6)  # two clips of three frames at once
    original = features_module.frame_features

    def interrupted(*arguments):
        if sum(counted) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(features_module, "frame_features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            features(net, clips)
    resumed = np.array(features(net, clips))
    assert counted == [2, 2, 2]
    expected = net.features(torch.from_numpy(clips.clips).float() / 255).detach()
    torch.testing.assert_close(torch.from_numpy(resumed), expected, atol=1e-5, rtol=1e-4)


def test_features_that_are_not_finite_name_the_clip(make_clip_set):
    net = model()
    with torch.no_grad():
        net.stem.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="clip c0 are not finite"):
        features(net, make_clip_set(n=4, size=32))
