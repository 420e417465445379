"""Running a plan on tiny sets: pilots, draws, folds, transfer, added seeds, packing."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small_study import TOO_FEW
from viptt_core.study.arms import Runner, StudyData, arm_file, pack

from viptt_core import experiment
from viptt_core.errors import DataError
from viptt_core.metrics import accuracy
from viptt_core.results import read_run, runs_root
from viptt_core.study import arms as module
from viptt_core.study.outcomes import read_outcomes
from viptt_core.study.plan import Rule, parse_study
from viptt_core.training.device import Engine

CONTROL = {"experiment": "controls", "rate_of": "random"}
TINY = TOO_FEW | {
    "n_pool": 40,
    "n_train": 25,
    "settings": {"hidden_size": 8, "feature_size": 8, "pretrain": {"epochs": 1}, "finetune": {"epochs": 2}},
    "arms": [
        *TOO_FEW["arms"],
        {"name": "video, only backbone", "start": "video", "transfer": "backbone"} | CONTROL,
        {"name": "random, extra steps", "start": "random", "extra_steps": True} | CONTROL,
    ],
}
FOLDED = {"folds": 3, "n_pool": 0, "n_train": 0, "seeds": 1}
TEST_SCANS = {f"c{i}" for i in range(40, 60)}


@pytest.fixture
def runner(make_clip_set, monkeypatch):
    scans = make_clip_set(n=60, classes=3, seed=2, synthetic=True)
    videos = make_clip_set(n=30, seed=1)
    monkeypatch.setattr(module, "load_for", lambda _, name, *__, **___: scans if name == "phantom" else videos)

    def make(**changes):
        study = parse_study("tiny", TINY | changes, "tiny.toml")
        return Runner(study, StudyData(study), Engine(device="cpu"), progress=False)

    return make


def test_an_arm_tests_the_same_scans_with_every_seed_and_records_its_runs(runner, capsys, monkeypatch):
    one = runner()
    outcomes = one.run_arm(one.study.arm("video"))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("video: 1 of 2 runs, about 0:0") and said[1] == "video: 2 of 2 runs, about 0:00:00 left"
    assert outcomes.runs["seed"].tolist() == [0, 1] and outcomes.tested.all() and set(outcomes.names) == TEST_SCANS
    assert outcomes.runs["n_train"].tolist() == [20, 20]  # of 25, a fifth validates
    row = outcomes.runs.iloc[0]
    run = read_run(runs_root() / row["run"])
    assert run.config["pretrained"] == row["pretrain_run"] and row["epochs"] <= row["epoch_limit"] == 2
    tested = run.predictions[run.predictions["part"] == "test"].set_index("name").loc[outcomes.names]
    np.testing.assert_allclose(outcomes.probabilities[0], tested.iloc[:, -3:], atol=1e-3)
    videos = read_run(runs_root() / row["pretrain_run"]).predictions.query("part == 'test'")
    predicted = videos.filter(like="p(").to_numpy().argmax(1)
    assert row["pretrain_accuracy"] == accuracy(videos["label"].to_numpy(), predicted)
    again = read_outcomes(arm_file(one.study, one.study.arm("video")))
    assert again.runs["run"].tolist() == outcomes.runs["run"].tolist()
    monkeypatch.setattr(experiment, "fit", lambda *_, **__: pytest.fail("trained again"))
    again = runner()
    assert np.array_equal(again.run_arm(again.study.arm("video")).probabilities, outcomes.probabilities)


def test_the_rate_is_that_of_the_lowest_validation_loss_and_its_pilot_is_no_run_of_the_study(runner):
    one = runner(learning_rates=[0.001, 0.01])
    rate, losses = one.rate(one.study.arm("random")), {}
    pilots = {folder.name for folder in runs_root().glob("finetune-*")}
    for run in (read_run(runs_root() / name) for name in pilots):
        assert run.config["seed"] == 1000 and not TEST_SCANS & set(run.predictions["name"])
        losses[run.config["preset"]["finetune"]["learning_rate"]] = run.history["val_loss"].min()
    assert set(losses) == {0.001, 0.01} and rate == min(losses, key=losses.get)
    outcomes = one.run_arm(one.study.arm("random"))
    assert set(outcomes.runs["learning_rate"]) == {rate} and not pilots & set(outcomes.runs["run"])


def test_only_the_named_part_of_the_pretrained_network_is_taken_over(runner, monkeypatch):
    started, original = {}, experiment.fit

    def spy(model, *arguments, **settings):
        started.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return original(model, *arguments, **settings)

    one = runner(seeds=1)
    pretrained = one.pretraining(one.study.arm("video"), 0)
    weights = experiment.open_weights(pretrained.folder).tensors
    monkeypatch.setattr(experiment, "fit", spy)
    one.run_arm(one.study.arm("video, only backbone"))
    same = {name for name in weights if np.array_equal(started[name], weights[name])}
    assert same >= {name for name in weights if name.startswith(("stem.", "backbone."))}
    assert not same & {"temporal.weight_ih_l0", "temporal.weight_hh_l0", "feature.weight"}


def test_extra_steps_are_those_of_the_pretraining(runner):
    one = runner(seeds=1)
    outcomes = one.run_arm(one.study.arm("random, extra steps"))
    # 18 videos in batches of 8 are 3 steps, for one epoch; 20 scans are 3 steps an epoch: one more than the two.
    assert outcomes.runs["epoch_limit"].tolist() == [3] and outcomes.runs["epochs"].tolist() == [3]


def test_seeds_are_added_until_the_interval_is_narrow_enough(runner):
    one, told = runner(), []
    study = replace(one.study, primary=Rule("video", "random", width=1e-6, more=1, most=4))
    Runner(study, one.data, one.engine, progress=False).run_primary(told.append)
    assert read_outcomes(arm_file(study, study.arm("video"))).runs["seed"].tolist() == [0, 1, 2, 3]
    assert [line.split()[0] for line in told] == ["2", "3", "4"]
    wide = replace(study, primary=Rule("video", "random", width=100.0))
    Runner(wide, one.data, one.engine, progress=False).run_primary(told.append)
    assert told[-1].startswith("2 seeds")


def test_packing_leaves_out_what_did_not_run_and_refuses_runs_of_another_plan(runner, tmp_path):
    one = runner(seeds=1)
    with pytest.raises(DataError, match="no arm of the study has run"):
        pack(one.study, tmp_path)
    one.run_arm(one.study.arm("random"))
    assert [path.name for path in pack(one.study, tmp_path)] == ["one.npz", "study.json"]
    assert json.loads((tmp_path / "study.json").read_text())["plan"] == one.study.digest
    assert set(read_outcomes(tmp_path / "one.npz").runs["arm"]) == {"random"}
    with pytest.raises(DataError, match="follow another plan"):
        pack(replace(one.study, digest="another"), tmp_path)


@pytest.mark.parametrize("splits", ["own", "group"])
def test_folds_test_every_scan_once_a_seed_and_baselines_the_same_ones(runner, splits, tmp_path):
    settings = TINY["settings"] | {"splits": splits}  # folds are the study's, whatever the preset would do
    one = runner(**FOLDED, settings=settings, baselines=True)
    arm, baselines = one.run_arm(one.study.arm("random")), one.run_baselines()
    assert arm.runs["fold"].tolist() == [0, 1, 2] and len(arm.names) == 60 and (arm.tested.sum(axis=0) == 1).all()
    for name in ("most frequent class", "PCA + logistic"):
        tested = baselines.of_arm(name)
        assert [set(tested.names[row]) for row in tested.tested] == [set(arm.names[row]) for row in arm.tested]
    assert (baselines.by_seed("PCA + logistic")[0][0] == baselines.labels).mean() > 0.9  # brightness gives it away
    assert [path.name for path in pack(one.study, tmp_path)] == ["one.npz", "baselines.npz", "study.json"]
