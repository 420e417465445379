"""What only a GPU can show; skipped where there is none."""

import dataclasses

import numpy as np
import pytest
import torch
from files import write_noise_scan, write_weights

from viptt_core.model import ViPTTNet
from viptt_core.prediction.scans import predict_scans
from viptt_core.presets import load_preset
from viptt_core.splits import Split
from viptt_core.training import Task, Trainer
from viptt_core.training.device import Engine, pick_precision
from viptt_core.training.feed import Feed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
SPLIT = Split(np.arange(10), np.arange(10, 15), np.arange(15, 20))
STAGE = dataclasses.replace(load_preset("paper").finetune, epochs=2, batch_size=2, rotate=True)


def model():
    return ViPTTNet(2, hidden_size=8, feature_size=8, generator=torch.Generator().manual_seed(0))


def losses(make_clip_set, **engine):
    history = Trainer(model(), Task(make_clip_set(size=32), SPLIT, STAGE), engine=Engine(**engine)).run()
    return [epoch["loss"] for epoch in history.epochs]


def test_fp32_on_the_gpu_gives_the_losses_of_the_cpu(make_clip_set):
    on_gpu, on_cpu = (losses(make_clip_set, device=device, precision="fp32") for device in ("cuda", "cpu"))
    assert on_gpu == pytest.approx(on_cpu, rel=1e-3)


def test_the_precision_the_gpu_supports_gives_nearly_the_losses_of_fp32(make_clip_set):
    assert pick_precision("auto", torch.device("cuda", 0), "vgg16") in ("bf16", "fp16")
    reduced, exact = (losses(make_clip_set, device="cuda", precision=precision) for precision in ("auto", "fp32"))
    assert reduced == pytest.approx(exact, rel=0.02)


def test_rows_arrive_on_the_gpu(make_clip_set):
    array, batches = make_clip_set().clips, [np.array([3, 1]), np.array([0]), np.array([19])]
    for got, batch in zip(Feed(array, torch.device("cuda")).rows(batches), batches, strict=True):
        assert got.is_cuda and np.array_equal(got.cpu().numpy(), array[batch])


def test_no_step_waits_for_the_gpu(make_clip_set, monkeypatch):
    original = Trainer.step

    def watched(self, batch):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return original(self, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    losses(make_clip_set, device="cuda", precision="fp32")  # what is set up at the first step may wait
    monkeypatch.setattr(Trainer, "step", watched)
    assert np.isfinite(losses(make_clip_set, device="cuda", precision="fp32")).all()


def test_scans_predicted_on_the_gpu_get_the_probabilities_of_the_cpu(tmp_path):
    weights = write_weights(tmp_path / "w.safetensors")
    scans = [write_noise_scan(tmp_path / f"{k}.nii.gz", k) for k in range(20)]
    on_gpu, on_cpu = (
        predict_scans(weights, scans, engine=Engine(device=device, precision="fp32"), progress=False)
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(on_gpu.probabilities, on_cpu.probabilities, atol=1e-3)
