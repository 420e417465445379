"""The experiment end to end on tiny sets: keyed pretraining, arms, runs on disk."""

import dataclasses
import errno
import json
import re

import numpy as np
import pandas as pd
import pytest

from viptt_core import experiment
from viptt_core.datasets import load_for
from viptt_core.errors import DataError, SettingError, StorageError
from viptt_core.experiment import compare_starts, finetune, plan_experiment, pretrain
from viptt_core.prediction import weights
from viptt_core.prediction.weights import open_weights
from viptt_core.presets import load_preset
from viptt_core.results import (
    Run,
    Summary,
    class_names_of,
    is_finished,
    predicted_classes,
    predictions_table,
    probabilities_of,
    read_run,
    write_run,
)


@pytest.fixture
def plan():
    plan = plan_experiment("study", epochs=2, pretrain_epochs=1, device="cpu")
    return dataclasses.replace(plan, preset=dataclasses.replace(plan.preset, hidden_size=8, feature_size=8))


@pytest.fixture
def videos(make_clip_set):
    return make_clip_set(n=30, seed=1)


@pytest.fixture
def scans(make_clip_set):
    return make_clip_set(n=30, classes=3, seed=2, synthetic=True)


def quiet(function, *arguments, **settings):
    return function(*arguments, progress=False, **settings)


def test_every_arm_predicts_validation_and_test_parts_once(plan, scans, videos):
    plan = dataclasses.replace(plan, starts=("random", "image", "video"))
    comparison = quiet(compare_starts, plan, scans, videos)
    table = comparison.predictions
    assert list(table["arm"].unique()) == ["random", "image", "video"]
    for _, rows in table.groupby(["arm", "part"]):
        assert len(rows) == 6 and rows["name"].is_unique
    np.testing.assert_allclose(table[["p(class0)", "p(class1)", "p(class2)"]].sum(axis=1), 1, atol=1e-5)
    assert comparison.caveat == ""
    for start in plan.starts:
        assert re.search(rf"{start}: 18 train.* of 2 kept; .*\n  runs/finetune-{start}-", comparison.report())


def test_the_same_seed_gives_the_same_metrics_twice(plan, scans, videos, monkeypatch, tmp_path):
    tables = []
    for root in ("one", "two"):
        monkeypatch.setenv("VIPTT_ROOT", str(tmp_path / root))
        comparison = quiet(compare_starts, plan, scans, videos)
        tables.append((comparison.predictions, comparison.history.drop(columns="seconds")))
    pd.testing.assert_frame_equal(tables[0][0], tables[1][0], check_exact=True)
    pd.testing.assert_frame_equal(tables[0][1], tables[1][1], check_exact=True)


def test_a_pretraining_run_is_reused_only_when_everything_that_decides_it_is_the_same(plan, videos, monkeypatch):
    first = quiet(pretrain, plan, videos)
    monkeypatch.setattr(experiment, "Trainer", lambda *_, **__: pytest.fail("trained again"))
    assert quiet(pretrain, plan, videos).folder == first.folder
    longer = dataclasses.replace(plan, preset=plan.preset.with_epochs(pretrain_epochs=2))
    finetuned_longer = dataclasses.replace(plan, preset=plan.preset.with_epochs(epochs=9))
    assert quiet(pretrain, finetuned_longer, videos).folder == first.folder  # `epochs` is fine-tuning only
    others = [
        (dataclasses.replace(plan, seed=1), videos),
        (longer, videos),
        (plan, dataclasses.replace(videos, source={"test": "other files"})),
    ]
    for other_plan, other_videos in others:
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            quiet(pretrain, other_plan, other_videos)
    monkeypatch.setattr(experiment, "code_version", lambda *_, **__: "other code")
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        quiet(pretrain, plan, videos)


def test_the_video_arm_starts_from_the_pretrained_weights(plan, scans, videos, monkeypatch):
    pretrained = quiet(pretrain, plan, videos)
    seen = {}

    def spy(model, *arguments, **settings):
        seen["start"] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return original(model, *arguments, **settings)

    original = experiment.Trainer
    monkeypatch.setattr(experiment, "Trainer", spy)
    run = quiet(finetune, plan, scans, "video", pretrained=pretrained)
    weights = open_weights(pretrained.folder).tensors
    for name, tensor in seen["start"].items():
        assert name.startswith("classifier") or np.array_equal(tensor, weights[name])
    assert run.config["pretrained"] == pretrained.folder.name
    assert run.config["preset"]["name"] == "study" and run.config["seed"] == 0


def test_the_papers_own_reading_is_marked_selection_biased(plan, scans, videos):
    authors = dataclasses.replace(plan, preset=dataclasses.replace(plan.preset, splits="authors"), starts=("random",))
    assert "Selection-biased" in quiet(compare_starts, authors, scans, videos).caveat


def test_a_run_on_disk_holds_all_that_decided_it(plan, videos):
    run = quiet(pretrain, plan, videos)
    assert {p.name for p in run.folder.iterdir()} == {
        "config.json",
        "history.csv",
        "predictions.csv",
        "provenance.json",
        "weights.json",
        "weights.safetensors",
    }
    assert run.config["data"] == videos.source and run.config["preset"]["pretrain"]["epochs"] == 1
    assert {"commit", "packages", "seconds", "peak_memory_mb", "device"} <= set(run.provenance)
    json.dumps(run.config)


def test_a_damaged_run_is_named(plan, videos):
    run = quiet(pretrain, plan, videos)
    other_columns = run.predictions.rename(columns=lambda name: name.removeprefix("p("))
    other_columns.to_csv(run.folder / "predictions.csv")
    with pytest.raises(DataError, match="pretrain-video-.*hold no probabilities.*run again"):
        read_run(run.folder)
    (run.folder / "history.csv").unlink()
    with pytest.raises(DataError, match="pretrain-video-.*not a finished run.*run again"):
        read_run(run.folder)


def test_names_of_arms_classes_and_clips_may_be_any_words(videos, tmp_path):
    words = ["NA", "None", "nan"]
    classes = ("label", "p(x)", "NA", *(f"class{k}" for k in range(3, len(videos.class_names))))
    names = np.array([*words, *videos.names[3:]])
    clips = dataclasses.replace(videos, class_names=classes[: len(videos.class_names)], names=names, groups=names)
    probabilities = np.full((3, len(clips.class_names)), 1 / len(clips.class_names))
    table = predictions_table(clips, np.arange(3), probabilities, arm="None", part="test")
    write_run(Run(tmp_path / "run", {}, pd.DataFrame({"epoch": [1]}), table, {}))
    read = read_run(tmp_path / "run").predictions
    assert class_names_of(read) == list(clips.class_names) and set(read["arm"]) == {"None"}
    assert read["name"].tolist() == read["group"].tolist() == words
    assert read["label"].tolist() == clips.labels[:3].tolist()
    np.testing.assert_allclose(probabilities_of(read), probabilities, atol=1e-6)


def test_a_failing_run_is_not_finished_and_goes_on_at_the_next_call(plan, videos, monkeypatch, private_root):
    with monkeypatch.context() as patch:
        patch.setattr(weights, "write_tensors", _disk_full)
        with pytest.raises(StorageError, match="weights.safetensors.*No space left"):
            quiet(pretrain, plan, videos)
    (folder,) = (path for path in (private_root / "runs").iterdir() if path.is_dir())
    assert not is_finished(folder) and not list(folder.glob("*.safetensors"))
    with pytest.raises(DataError, match="not a finished run"):
        read_run(folder)
    assert is_finished(quiet(pretrain, plan, videos).folder)


def _disk_full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"preset": "papier"}, "Did you mean 'paper'"),
        ({"starts": "random,vidoe"}, "start 'vidoe'.*Did you mean 'video'"),
        ({"starts": "video, video"}, "names an arm twice"),
        ({"preset": "study", "starts": "image"}, "preset 'study' has no ImageNet weights"),
        ({"epochs": -3}, "epochs is -3"),
        ({"seed": -1}, "seed is -1"),
        ({"device": "gpu"}, "device 'gpu'.*'cuda'"),
        ({"device": "cuda:99"}, "not on this machine"),
    ],
)
def test_mistaken_plans_are_refused_before_any_work(settings, message):
    with pytest.raises(SettingError, match=message):
        plan_experiment(**settings)


def test_the_plan_takes_starts_from_the_preset_or_from_the_reader():
    assert plan_experiment("demo", device="cpu").starts == load_preset("demo").starts == ("image", "video")
    assert plan_experiment("demo", starts=" image, video ", device="cpu").starts == ("image", "video")


def test_the_window_of_a_plan_is_that_of_its_scans_and_is_recorded(videos):
    plan = plan_experiment("study", hu_window="-160,240", pretrain_epochs=1, device="cpu")
    scans = load_for(plan.preset, "phantom", n=60, progress=False)
    assert scans.source["hu_window"] == [-160, 240]
    assert np.mean(np.asarray(scans.clips) == 0) > 0.5  # lung is black, too
    assert quiet(pretrain, plan, videos).config["preset"]["hu_window"] == [-160, 240]
    with pytest.raises(SettingError, match="hu_window is '240,-160'"):
        plan_experiment("study", hu_window="240,-160", device="cpu")


def test_the_summary_scores_the_test_part_with_intervals():
    table = pd.DataFrame(
        {
            "arm": ["random"] * 8 + ["video"] * 8,
            "part": (["test"] * 6 + ["validation"] * 2) * 2,
            "name": list("abcdefgh") * 2,
            "group": list("abcdefgh") * 2,
            "label": [0, 0, 0, 1, 1, 1, 0, 1] * 2,
            "p(x)": [0.9] * 8 + [0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.9],
        }
    )
    table["p(y)"] = 1 - table["p(x)"]
    summary = Summary(table, caveat="Beware.", synthetic=True)
    rows = summary.table.set_index("arm")
    assert rows["n"].tolist() == [6, 6]
    assert rows.loc["random", "kappa"] == 0 and rows.loc["video", "kappa"] == 1
    assert rows.loc["random", "accuracy"] == 0.5 and rows.loc["random", "accuracy_low"] < 0.5
    assert rows["auc"].tolist() == [0.5, 1] and rows.loc["video", "auc_low"] == 1
    text = str(Summary(table, table.assign(arm="another"), caveat="Beware.", synthetic=True))
    assert "another" in text and "95 % interval" in text
    assert "Synthetic data: this says nothing about patients. Beware." in text
    assert predicted_classes(table)[8:12].tolist() == [0, 0, 0, 1]


def test_words_of_a_summary_are_escaped_on_a_page():
    rows = {"arm": "<b>", "part": "test", "name": ["a", "b"], "group": ["a", "b"], "label": [0, 1]}
    table = pd.DataFrame(rows | {"p(x)": [0.9, 0.1], "p(y)": [0.1, 0.9]})
    shown = Summary(table, about="scans of <script>", caveat="a < b")._repr_mimebundle_()
    assert "<script>" not in shown["text/html"] and "<b>" not in shown["text/html"]
    assert "scans of &lt;script&gt;, bootstrap over groups. a &lt; b" in shown["text/html"]
    assert shown["text/plain"].endswith("scans of <script>, bootstrap over groups. a < b")
