"""How it runs: chunks, precision and memory change speed, not results."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from viptt_core.backbones import BACKBONES
from viptt_core.errors import DataWarning, SettingError, TrainingError
from viptt_core.model import ViPTTNet
from viptt_core.presets import load_preset
from viptt_core.splits import Split
from viptt_core.training import Task, Trainer
from viptt_core.training import device as engine_module
from viptt_core.training.device import Engine, autocast, fits_fp16, pick_chunk, pick_precision, settle

CPU = torch.device("cpu")
SPLIT = Split(np.arange(4), np.arange(4, 6), np.arange(6, 8))
STAGE = dataclasses.replace(load_preset("paper").finetune, epochs=1, rotate=False, class_weights=False)


@pytest.fixture(autouse=True)
def same_random_numbers():
    """What a test draws is the same each time, so that its tolerance is met always or never."""
    torch.manual_seed(0)


def vgg(seed=0, **settings):
    return ViPTTNet(2, hidden_size=8, feature_size=8, generator=torch.Generator().manual_seed(seed), **settings)


def gradients(model, clips):
    model.train().zero_grad()
    model.features(clips).square().sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_gradients_in_chunks_equal_the_plain_ones():
    # In double precision: in single, another order of sums can move a maximum of pooling, and with it a gradient.
    model, clips = vgg().double(), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    plain = gradients(model, clips)
    assert len(plain) == 28  # stem and thirteen convolutions
    model.frames_per_chunk = 4
    for name, gradient in gradients(model, clips).items():
        assert float((gradient - plain[name]).abs().max()) <= 1e-10 * float(plain[name].abs().max()), name


def test_chunks_keep_less():
    model, clips = vgg().train(), torch.rand(2, 4, 32, 32)

    def kept_bytes():
        kept = {}

        def note(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            result = model.features(clips)
        assert result.requires_grad
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        return sum(size for pointer, size in kept.items() if pointer not in weights)

    plain = kept_bytes()
    model.frames_per_chunk = 2
    assert kept_bytes() < plain / 10


def test_the_chunk_is_what_fits_into_the_room():
    model = vgg().train()
    each = 32 * 32 * BACKBONES["vgg16"].kept_bytes
    for room, precision, expected in (
        (1000 * each, "fp32", 0),
        (10 * each, "fp32", 6),
        (10 * each, "bf16", 10),
        (1, "fp32", 1),
    ):
        assert pick_chunk(model, (2, 10, 32, 32), precision, room) == expected
    model.freeze(backbone=True, stem=True)
    assert pick_chunk(model, (2, 10, 32, 32), "fp32", 1) == 0  # nothing is kept
    small = ViPTTNet(2, backbone="small").train()
    assert pick_chunk(small, (2, 10, 32, 32), "fp32", 1) == 0  # its normalisation needs the whole batch


@pytest.mark.parametrize("said", ["CUDA out of memory.\nmore", "DefaultCPUAllocator: can't allocate memory: you tried"])
def test_out_of_memory_names_the_setting_that_needs_less(make_clip_set, monkeypatch, said):
    def no_memory(self, grey):
        raise (torch.OutOfMemoryError if "CUDA" in said else RuntimeError)(said)

    engine = Engine(device="cpu", precision="fp32", frames_per_chunk=3)
    trainer = Trainer(vgg(), Task(make_clip_set(n=8, size=32), SPLIT, STAGE), engine=engine)
    monkeypatch.setattr(ViPTTNet, "_frame_features", no_memory)
    with pytest.raises(TrainingError, match=r"out of memory on cpu \(.*memory.*frames_per_chunk \(now 3;.*batch_size"):
        trainer.step(next(trainer.feed.batches([SPLIT.train])))


def test_precision_follows_what_the_device_has(monkeypatch):
    cuda = torch.device("cuda", 0)
    for capability, expected in (((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert pick_precision("auto", cuda, "vgg16") == expected
    for units, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(engine_module, "cpu_has_bf16", lambda units=units: units)
        assert pick_precision("auto", CPU, "vgg16") == expected
        assert pick_precision("auto", CPU, "small") == "fp32"
    assert pick_precision("fp16", CPU, "vgg16") == "fp16"


def test_fp16_that_overflows_falls_back_to_fp32_and_says_so(make_clip_set):
    model = vgg()
    bright = torch.full((1, 2, 32, 32), 255, dtype=torch.uint8)
    assert fits_fp16(model, bright, "0..1")
    with torch.no_grad():
        model.stem.weight.fill_(1000)  # 255 x 1000 is beyond the largest fp16
    assert not fits_fp16(model, bright // 255, "0..255")
    stage = dataclasses.replace(STAGE, pixel_range="0..255", learning_rate=1e-9)
    with pytest.warns(DataWarning, match="fp16 overflows.*fp32"):
        history = Trainer(
            model, Task(make_clip_set(n=8, size=32), SPLIT, stage), engine=Engine(device="cpu", precision="fp16")
        ).run()
    assert history.engine["precision"] == "fp32"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_stays_near_fp32(precision):
    model, clips = vgg().eval(), torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        exact = model(clips)
        with autocast(CPU, precision):
            reduced = model(clips)
    assert reduced.dtype == torch.float32
    # bf16 has 8 bits of precision, and VGG16 is 13 convolutions deep.
    assert 0 < float((reduced - exact).abs().max()) < 0.05 * float(exact.abs().max())


@pytest.mark.parametrize("reduced", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])  # no CPU here is fast in it
def test_training_in_reduced_precision_gives_nearly_the_losses_of_fp32(make_clip_set, reduced):
    clips, stage = make_clip_set(n=8, size=32, frames=1), dataclasses.replace(STAGE, learning_rate=0.01)
    losses = []
    for name in ("fp32", reduced):
        history = Trainer(vgg(), Task(clips, SPLIT, stage), engine=Engine(device="cpu", precision=name)).run()
        assert history.engine["precision"] == name
        losses.append([epoch["loss"] for epoch in history.epochs])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"precision": "fp8"}, "precision 'fp8'"),
        ({"frames_per_chunk": -1}, "frames_per_chunk is -1"),
        ({"check_every": 0}, "check_every is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        Engine(**settings)


def test_an_explicit_chunk_that_has_no_effect_is_said(make_clip_set):
    small = ViPTTNet(2, backbone="small", hidden_size=8, feature_size=8)
    with pytest.warns(DataWarning, match="frames_per_chunk has no effect"):
        Trainer(small, Task(make_clip_set(n=8), SPLIT, STAGE), engine=Engine(device="cpu", frames_per_chunk=2)).run()


def test_everything_about_the_machine_is_settled_at_once(monkeypatch):
    model, clips = vgg(), np.zeros((2, 3, 32, 32), np.uint8)
    monkeypatch.setattr(engine_module, "free_memory", lambda _: 1)
    settled = settle(Engine("cpu", "fp32"), model, STAGE, clips)
    assert (settled.device, settled.feature_cache) == (CPU, False)
    assert settled.frames_per_chunk == model.frames_per_chunk == 1
    frozen = settle(Engine("cpu", "fp32"), model, load_preset("frozen").finetune, clips)
    assert frozen.feature_cache and frozen.frames_per_chunk == 0 and not model.backbone[0].weight.requires_grad
    assert model.training and not model.backbone.training
    assert frozen.record()["feature_cache"] is True and json.dumps(frozen.record())
