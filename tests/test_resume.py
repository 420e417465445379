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

from viptt_core.errors import DataError, TrainingError
from viptt_core.model import ViPTTNet
from viptt_core.presets import load_preset
from viptt_core.splits import Split
from viptt_core.training import Task, Trainer
from viptt_core.training.checkpoint import read_checkpoint
from viptt_core.training.device import Engine

PROGRAM = Path(__file__).with_name("killed_training.py")
EVERY_STEP = Engine(device="cpu", precision="fp32", checkpoint_seconds=0, check_every=1)
SPLIT = Split(np.arange(10), np.arange(10, 15), np.arange(15, 20))
STAGE = dataclasses.replace(load_preset("study").finetune, epochs=3, batch_size=5, learning_rate=0.01)


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


class _Stopping(Trainer):
    """Ends, as a kill would, after so many steps."""

    steps_left = 3

    def step(self, batch):
        if self.steps_left == 0:
            raise _Interrupted
        self.steps_left -= 1
        return super().step(batch)


class _Spoilt(Trainer):
    """Reports a loss that is not finite at one step, counted from 1 over all epochs."""

    spoilt = 4

    def step(self, batch):
        return super().step(batch) * (float("nan") if self.steps == self.spoilt - 1 else 1)


def stopped(clips, folder, steps=3):
    """Train into `folder` until `steps` steps are taken."""
    trainer = _Stopping(model(), Task(clips, SPLIT, STAGE), engine=EVERY_STEP, folder=folder)
    trainer.steps_left = steps
    with pytest.raises(_Interrupted):
        trainer.run()


def test_a_checkpoint_of_another_training_is_refused_with_the_difference(make_clip_set, tmp_path):
    clips = make_clip_set()
    stopped(clips, tmp_path)
    other = dataclasses.replace(STAGE, learning_rate=0.5)
    with pytest.raises(DataError, match="checkpoint-000000003.*other learning_rate.*Delete it"):
        Trainer(model(), Task(clips, SPLIT, other), engine=EVERY_STEP, folder=tmp_path).run()
    with pytest.raises(DataError, match="other seed"):
        Trainer(model(), Task(clips, SPLIT, STAGE, 1), engine=EVERY_STEP, folder=tmp_path).run()
    with pytest.raises(DataError, match="num_classes 2 instead of 5"):
        Trainer(model(5), Task(clips, SPLIT, STAGE), engine=EVERY_STEP, folder=tmp_path).run()


def test_a_tampered_checkpoint_is_refused(make_clip_set, tmp_path):
    stopped(make_clip_set(), tmp_path)
    weights = next(tmp_path.glob("checkpoint-*"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(DataError, match="checkpoint-000000003.*changed after it was written"):
        Trainer(model(), Task(make_clip_set(), SPLIT, STAGE), engine=EVERY_STEP, folder=tmp_path).run()


def test_a_loss_that_is_not_finite_names_the_clips_and_keeps_the_last_good_checkpoint(make_clip_set, tmp_path):
    clips = make_clip_set()
    with pytest.raises(TrainingError, match=f"(?s)not finite in epoch 2, step 2.*: c.*kept in {tmp_path}") as caught:
        _Spoilt(model(), Task(clips, SPLIT, STAGE), engine=EVERY_STEP, folder=tmp_path).run()
    named = str(caught.value).split("before it: ")[1].split(". Check")[0].split(", ")
    assert sorted(named) == sorted(clips.names[SPLIT.train])  # both batches of five
    kept = read_checkpoint(tmp_path)
    assert kept.state["at"]["steps"] == 3 and all(w.isfinite().all() for w in kept.tensors["model"].values())


def test_weights_that_are_not_finite_are_never_saved(make_clip_set, tmp_path):
    class Spoiling(Trainer):
        def step(self, batch):
            loss = super().step(batch)
            if self.steps == 1:
                with torch.no_grad():
                    self.model.classifier.weight.fill_(float("inf"))
            return loss

    task = Task(make_clip_set(n=20), SPLIT, dataclasses.replace(STAGE, batch_size=2))
    with pytest.raises(TrainingError, match="a weight is not finite after step 2"):
        Spoiling(model(), task, engine=EVERY_STEP, folder=tmp_path).run()
    assert read_checkpoint(tmp_path).state["at"]["steps"] == 1


def test_a_training_that_ended_is_not_trained_again(make_clip_set, tmp_path):
    task, runs = Task(make_clip_set(), SPLIT, STAGE), []
    for _ in range(2):
        net = model()
        trainer = Trainer(net, task, engine=EVERY_STEP, folder=tmp_path)
        runs.append((trainer.steps, trainer.run().epochs, net.state_dict()))
    assert (runs[0][0], runs[1][0]) == (0, 6) and runs[0][1] == runs[1][1]
    assert all(torch.equal(runs[0][2][name], runs[1][2][name]) for name in runs[0][2])


def test_a_killed_training_of_two_heads_on_turned_features_ends_as_one_that_was_not(make_clip_set, tmp_path):
    stage = dataclasses.replace(load_preset("frozen").finetune, rotate=True, epochs=3, batch_size=3)
    task = Task(make_clip_set(classes=5), SPLIT, stage, heads=np.array([0, 0, 0, 1, 1]))
    trainer = _Stopping(model(5), task, engine=EVERY_STEP, folder=tmp_path)
    trainer.steps_left = trainer.steps_in_epoch + 1
    with pytest.raises(_Interrupted):
        trainer.run()
    ends = []
    for folder in (tmp_path, None):
        net = model(5)
        resumed = Trainer(net, task, engine=EVERY_STEP, folder=folder)
        assert resumed.steps == (trainer.steps_in_epoch + 1 if folder else 0)
        ends.append(([e["val_loss"] for e in resumed.run().epochs], net.state_dict()))
    assert ends[0][0] == ends[1][0] and all(torch.equal(ends[0][1][name], ends[1][1][name]) for name in ends[0][1])
    with pytest.raises(DataError, match="other heads"):
        Trainer(model(5), dataclasses.replace(task, heads=None), engine=EVERY_STEP, folder=tmp_path)
