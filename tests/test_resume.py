"""A training that is killed ends, bit for bit, as one that was not."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from viptt_core import training as train
from viptt_core.errors import DataError, TrainingError
from viptt_core.model import ViPTTNet
from viptt_core.presets import load_preset
from viptt_core.splits import Split
from viptt_core.training import fit
from viptt_core.training.checkpoint import read_checkpoint
from viptt_core.training.device import Engine

PROGRAM = Path(__file__).with_name("killed_training.py")
EVERY_STEP = Engine(device="cpu", precision="fp32", checkpoint_seconds=0, check_every=1)
SPLIT = Split(np.arange(10), np.arange(10, 15), np.arange(15, 20))
STAGE = dataclasses.replace(load_preset("demo").finetune, epochs=3, batch_size=5, learning_rate=0.01)


def model(num_classes=2):
    return ViPTTNet(
        num_classes, backbone="small", hidden_size=8, feature_size=8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills, seed", [(3, 0), pytest.param(20, 1, marks=pytest.mark.slow)])
def test_a_killed_training_resumes_and_ends_with_the_same_weights(tmp_path, kills, seed):
    answer = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), str(kills), str(seed)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout.splitlines()[-1])
    assert result["killed"] == kills
    assert all(run["same_weights"] and run["same_log"] for run in result["runs"])
    assert all(run["resumed"] for run in result["runs"])


class _Interrupted(Exception):
    pass


def interrupt_after(monkeypatch, steps):
    original, taken = train._Training._step, []

    def step(self, *arguments):
        if len(taken) == steps:
            raise _Interrupted
        taken.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(train._Training, "_step", step)


def stopped(monkeypatch, clips, folder, steps=3, **settings):
    """Train into `folder` until `steps` steps are taken."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, steps)
        with pytest.raises(_Interrupted):
            fit(model(), clips, SPLIT, STAGE, seed=0, engine=EVERY_STEP, folder=folder, **settings)


def test_the_log_of_a_running_training_can_be_read(make_clip_set, tmp_path, monkeypatch):
    stopped(monkeypatch, make_clip_set(), tmp_path, steps=5)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 1 + 2  # header, two epochs
    assert read_checkpoint(tmp_path).state["steps"] == 5 and read_checkpoint(tmp_path).state["epoch"] == 2


def test_a_checkpoint_of_another_training_is_refused_with_the_difference(make_clip_set, tmp_path, monkeypatch):
    clips = make_clip_set()
    stopped(monkeypatch, clips, tmp_path)
    other = dataclasses.replace(STAGE, learning_rate=0.5)
    with pytest.raises(DataError, match="checkpoint-000000003.*other learning_rate.*Delete it"):
        fit(model(), clips, SPLIT, other, seed=0, engine=EVERY_STEP, folder=tmp_path)
    with pytest.raises(DataError, match="other seed"):
        fit(model(), clips, SPLIT, STAGE, seed=1, engine=EVERY_STEP, folder=tmp_path)
    with pytest.raises(DataError, match="num_classes 2 instead of 5"):
        fit(model(5), clips, SPLIT, STAGE, seed=0, engine=EVERY_STEP, folder=tmp_path)


def test_a_tampered_checkpoint_is_refused(make_clip_set, tmp_path, monkeypatch):
    stopped(monkeypatch, make_clip_set(), tmp_path)
    weights = next(tmp_path.glob("checkpoint-*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(DataError, match="model.safetensors.*changed after it was written"):
        fit(model(), make_clip_set(), SPLIT, STAGE, seed=0, engine=EVERY_STEP, folder=tmp_path)


def test_a_loss_that_is_not_finite_names_the_clips_and_keeps_the_last_good_checkpoint(
    make_clip_set, tmp_path, monkeypatch
):
    clips, original = make_clip_set(), train.weighted_loss
    taken = []

    def spoilt(*arguments):
        taken.append(1)
        return original(*arguments) * (float("nan") if len(taken) == 4 else 1)

    monkeypatch.setattr(train, "weighted_loss", spoilt)
    with pytest.raises(TrainingError, match=f"(?s)not finite in epoch 2, step 2.*: c.*{tmp_path}") as caught:
        fit(model(), clips, SPLIT, STAGE, seed=0, engine=EVERY_STEP, folder=tmp_path)
    named = str(caught.value).split("before it: ")[1].split(". Check")[0].split(", ")
    assert sorted(named) == sorted(clips.names[SPLIT.train])  # both batches of five
    kept = read_checkpoint(tmp_path)
    assert kept.state["steps"] == 3 and all(w.isfinite().all() for w in kept.tensors["model"].values())


def test_flags_are_read_every_so_many_steps_and_still_name_the_step(make_clip_set, monkeypatch):
    original, taken, looks = train.weighted_loss, [], []

    def spoilt(*arguments):
        taken.append(1)
        return original(*arguments) * (float("nan") if len(taken) == 2 else 1)

    look = train._Training._check_finite

    def noting(self, *arguments):
        looks.append(self.position)
        look(self, *arguments)

    monkeypatch.setattr(train._Training, "_check_finite", noting)
    monkeypatch.setattr(train, "weighted_loss", spoilt)
    stage = dataclasses.replace(STAGE, batch_size=1)
    with pytest.raises(TrainingError, match="epoch 1, step 2. This batch and the one before it"):
        fit(model(), make_clip_set(), SPLIT, stage, seed=0, engine=dataclasses.replace(EVERY_STEP, check_every=4))
    assert looks == [4]


def test_weights_that_are_not_finite_are_never_saved(make_clip_set, tmp_path, monkeypatch):
    original = train._Training._step

    def spoil(self, *arguments):
        loss = original(self, *arguments)
        if self.steps == 1:
            with torch.no_grad():
                self.plain.classifier.weight.fill_(float("inf"))
        return loss

    monkeypatch.setattr(train._Training, "_step", spoil)
    with pytest.raises(TrainingError, match="a weight is not finite after step 2"):
        fit(
            model(),
            make_clip_set(n=20),
            SPLIT,
            dataclasses.replace(STAGE, batch_size=2),
            seed=0,
            engine=EVERY_STEP,
            folder=tmp_path,
        )
    assert read_checkpoint(tmp_path).state["steps"] == 1
