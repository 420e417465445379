"""Running a plan on tiny sets: cells, rates, what is carried over, controls, packing; frozen features and real ones."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from viptt_core.errors import DataError, TrainingError
from viptt_core.files import artifact_root
from viptt_core.study import runs as module
from viptt_core.study.cells import Cell, cells_of, pack, pretraining_file, study_folder, unpack
from viptt_core.study.outcomes import read_outcomes
from viptt_core.study.plan import parse_study
from viptt_core.study.runs import Runner
from viptt_core.training.device import Engine

TINY = {
    "about": "A plan for tests",
    "preset": "study",
    "seeds": 2,
    "n_test": 20,
    "n_train": 20,
    "n_videos": 30,
    "rates": [0.001, 0.01],
    "pretrain_steps": 4,
    "baselines": True,
    "settings": {
        "hidden_size": 8,
        "feature_size": 8,
        "pretrain": {"freeze_backbone": True, "freeze_stem": True, "batch_size": 9},
        "finetune": {"epochs": 2, "freeze_backbone": True, "freeze_stem": True, "batch_size": 8, "rotate": False},
    },
    "scans": {"dataset": "phantom"},
    "sources": {"a": {"dataset": "actions"}, "b": {"dataset": "actions", "n": 40}},
    "arms": [
        {"name": "image", "experiment": "primary", "start": "image"},
        {"name": "video", "experiment": "primary", "start": "video"},
        {"name": "one source", "experiment": "more", "start": "video", "sources": ["b"]},
        {"name": "shuffled", "experiment": "more", "start": "image", "scans": "shuffled slices", "seeds": 1},
        {"name": "more steps", "experiment": "more", "start": "image", "extra_steps": True, "seeds": 1},
        {"name": "trained", "experiment": "more", "start": "video", "freeze_backbone": False, "seeds": 1},
    ],
    "families": [{"name": "primary", "question": "Which?", "contrasts": [["video", "image"]]}],
}
FOLDED = {"folds": 3, "n_test": 0, "n_train": 0, "seeds": 1}


@pytest.fixture
def runner(make_clip_set, monkeypatch):
    sets = {
        "phantom": make_clip_set(n=80, classes=3, seed=2, synthetic=True),
        "actions": make_clip_set(n=60, seed=1),
        40: make_clip_set(n=40, seed=3, classes=3),
    }
    monkeypatch.setattr(module, "load_for", lambda _, name, *__, n=None, **___: sets[n or name])

    def make(**changes):
        study = parse_study("tiny", TINY | changes, "tiny.toml")
        return Runner(replace(study, digest="0" * 16), Engine(device="cpu"), progress=False)

    return make


def arm_outcomes(one, name):
    return [read_outcomes(cell.file(one.study)) for cell in cells_of(one.study, [one.study.arm(name)])]


def test_a_study_runs_each_cell_once_and_goes_on_where_it_was_killed(runner, monkeypatch):
    one = runner()
    one.run_all(one.study.arms)
    image = arm_outcomes(one, "image")
    assert [found.runs["seed"].item() for found in image] == [0, 1]
    assert all(len(found.names) == 20 and found.tested.all() for found in image)
    assert image[0].runs["n_train"].item() == 16  # of 20, a fifth validates
    lost = Cell(one.study.arm("video"), 1, 0).file(one.study)
    before = read_outcomes(lost)
    lost.unlink()
    again, fitted = runner(), []
    best_fit = module.best_fit
    monkeypatch.setattr(module, "best_fit", lambda *args, **more: fitted.append(1) or best_fit(*args, **more))
    again.run_all(again.study.arms)
    assert len(fitted) == 1 and np.array_equal(read_outcomes(lost).probabilities, before.probabilities)


def test_the_rate_is_that_of_the_lowest_validation_loss(runner):
    one, losses = runner(), {}
    arm = one.study.arm("image")
    for rate in TINY["rates"]:
        history = one.fit(replace(arm, rates=(rate,)), 0, 0)[0].history
        losses[rate] = min(epoch["val_loss"] for epoch in history.epochs)
    best = one.fit(arm, 0, 0)[0]
    assert best.rate == min(losses, key=losses.get)
    assert min(epoch["val_loss"] for epoch in best.history.epochs) == min(losses.values())


def test_a_rate_that_diverges_is_passed_over_and_all_of_them_are_an_error(runner, monkeypatch):
    one, run, bad = runner(), module.Trainer.run, [0.001]

    def diverging(self, *args):
        if self.task.stage.learning_rate in bad:
            raise TrainingError("the loss is not finite", remedy="none")
        return run(self, *args)

    monkeypatch.setattr(module.Trainer, "run", diverging)
    assert one.fit(one.study.arm("image"), 0, 0)[0].rate == 0.01
    bad.append(0.01)
    with pytest.raises(TrainingError, match="not finite"):
        one.fit(one.study.arm("image"), 0, 0)


class Caught(Exception):
    """Carries what a fit would have begun with."""


def begun(one, name, monkeypatch, seed=0):
    """The weights and the task that an arm's fits begin with."""

    def catch(model, task, *_, **__):
        raise Caught(model.state_dict(), task)

    with monkeypatch.context() as patched:
        patched.setattr(module, "best_fit", catch)
        with pytest.raises(Caught) as caught:
            one.fit(one.study.arm(name), seed, 0)
    return caught.value.args


def test_all_but_the_last_layer_is_carried_over_from_the_videos(runner, monkeypatch):
    one = runner()
    taken, rate = one.pretraining(one.study.arm("video"), 0)
    assert rate in TINY["rates"] and not any(name.startswith("backbone.") for name in taken)
    image, video = (begun(one, name, monkeypatch)[0] for name in ("image", "video"))
    for name, tensor in video.items():
        if name.startswith(("temporal.", "feature.")):
            assert torch.equal(tensor, taken[name]) and not torch.equal(tensor, image[name]), name
        else:
            assert torch.equal(tensor, image[name]), name


def test_pretraining_takes_the_steps_of_the_plan_on_all_its_sources_and_tests_each(runner):
    one, trained = runner(), []
    run = module.Trainer.run
    module.Trainer.run = lambda self, *args: trained.append(self) or run(self, *args)
    try:
        one.pretraining(one.study.arm("video"), 0)
        one.pretraining(one.study.arm("one source"), 0)
    finally:
        module.Trainer.run = run
    # 30 videos of a draw, 18 of them train: two batches of 9, and as many of the other source
    assert [(t.steps, t.steps_in_epoch) for t in trained] == [(4, 4)] * 2 + [(4, 2)] * 2
    assert trained[0].task.heads.tolist() == [0, 0, 1, 1, 1]
    for source, classes in (("a", 2), ("b", 3)):
        outcomes = read_outcomes(pretraining_file(one.study, one.study.arm("trained"), 0, f"-{source}.npz"))
        assert len(outcomes.class_names) == classes and outcomes.runs["arm"].item() == "video"
        np.testing.assert_allclose(outcomes.probabilities.sum(axis=-1), 1, atol=2e-3)


def test_the_controls_differ_in_what_they_name_alone(runner, monkeypatch):
    one = runner()
    image, shuffled, more = (begun(one, name, monkeypatch)[1] for name in ("image", "shuffled", "more steps"))
    assert np.array_equal(image.split.train, shuffled.split.train)
    same = (image.features.array == shuffled.features.array).all(axis=2)
    assert not same.all() and np.allclose(image.features.array.sum(1), shuffled.features.array.sum(1), atol=1e-4)
    # four steps of pretraining are two epochs of the 16 scans that train
    assert (image.stage.epochs, more.stage.epochs, more.stage.stop_patience) == (2, 4, 4)
    trained = one.task(one.study.arm("trained"), 0, 0)
    assert trained.features is None and not trained.stage.freeze_backbone


def test_folds_are_another_partition_each_seed_and_test_every_case_once(runner):
    one = runner(**FOLDED)
    arm = one.study.arm("image")
    folds = [[one.split(arm, seed, fold).test for fold in range(3)] for seed in range(2)]
    assert all(sorted(np.concatenate(tests)) == list(range(80)) for tests in folds)
    assert not np.array_equal(folds[0][0], folds[1][0])
    assert len(cells_of(one.study, [arm])) == 3


def test_packed_are_the_arms_of_each_experiment_the_sources_and_the_baselines(runner):
    control = {"name": "labels", "experiment": "more", "start": "video", "sources": ["b"], "videos": "shuffled labels"}
    one = runner(seeds=1, arms=[*TINY["arms"], control])
    with pytest.raises(DataError, match="no arm of the study has run"):
        pack(one.study)
    one.run_all([one.study.arm(name) for name in ("image", "video", "one source", "labels")])
    one.run_baselines()
    written = {path.name for path in pack(one.study)}
    assert written == {"primary.npz", "more.npz", "source-a.npz", "source-b.npz", "baselines.npz", "study.json"}
    folder = artifact_root() / "results" / "tiny"
    assert read_outcomes(folder / "primary.npz").runs["arm"].tolist() == ["image", "video"]
    assert read_outcomes(folder / "source-b.npz").runs["arm"].tolist() == ["labels", "one source", "video"]
    assert "most frequent class" in set(read_outcomes(folder / "baselines.npz").runs["arm"])
    assert json.loads((folder / "study.json").read_text())["synthetic"]
    assert pack(one.study) and module.weights_file(one.study, one.study.arm("video")).is_file()


def test_a_study_begun_elsewhere_goes_on_from_its_packed_results(runner):
    one = runner(seeds=1)
    one.run_all([one.study.arm(name) for name in ("image", "video")])
    one.run_baselines()
    written = {path: path.read_bytes() for path in pack(one.study)}
    shutil.rmtree(study_folder(one.study))
    unpack(one.study)
    assert Cell(one.study.arm("video"), 0, 0).file(one.study).is_file()
    assert {path: path.read_bytes() for path in pack(one.study)} == written
    shutil.rmtree(study_folder(one.study))
    unpack(replace(one.study, digest="another"))
    assert not study_folder(one.study).exists()
