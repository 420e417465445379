"""From models and scans to the submission: command and Python alike; every mistake said before the work."""

import inspect
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from files import write_noise_scan, write_weights
from tracked import tracked_files

from viptt_core.cli import main
from viptt_core.constants import TB_CLASSES
from viptt_core.datasets.simulated import list_phantoms
from viptt_core.errors import DataError, SettingError
from viptt_core.experiment import plan_experiment
from viptt_core.figures import entry as figures_entry
from viptt_core.metrics import cohen_kappa
from viptt_core.prediction import scans as predict
from viptt_core.prediction.scans import predict_scans
from viptt_core.prediction.score import read_labels
from viptt_core.results import Summary
from viptt_core.submission import ENSEMBLES, combine
from viptt_core.submission import entry as entry_module
from viptt_core.submission.entry import (
    counts_table,
    entry_models,
    entry_scans,
    keep_entry,
    plan_entry,
    scans_table,
    scores,
    write_entry,
)

ROOT = Path(__file__).resolve().parents[1]
N = 5


@pytest.fixture
def weights(tmp_path):
    """Three models that do not agree on `scans`, so that every ensemble says something else."""
    return [write_weights(tmp_path / f"m{seed}.safetensors", seed=seed) for seed in (1, 8, 11)]


@pytest.fixture
def scans(tmp_path):
    """Scans of noise, each darker than the one before."""
    (tmp_path / "scans").mkdir()
    for i in range(N):
        hu = np.random.default_rng(i).integers(-1000, 400, (18, 20, 9))
        hu[4 + i :] -= 300 * i
        scan = nib.Nifti1Image(hu.clip(-1000, 400).astype(np.int16), np.diag([-15.0, 15.0, 30.0, 1.0]))
        scan.to_filename(tmp_path / "scans" / f"TST_{i + 1:04d}.nii.gz")
    return tmp_path / "scans"


@pytest.fixture
def unread(monkeypatch):
    """No scan may be read, and nothing be trained."""

    def refuse(*arguments, **settings):
        raise AssertionError("a scan was read, or a model trained")

    monkeypatch.setattr(predict, "_read", refuse)
    for name in ("compare_starts", "load_for"):
        monkeypatch.setattr(entry_module, name, refuse)


def made(weights, scans, tmp_path, *, labels="", **settings):
    plan = plan_entry(weights, output=tmp_path / "out.txt", **settings)
    paths, known = entry_scans(plan, scans, labels=read_labels(labels) if labels else None)
    return keep_entry(plan, predict_scans(entry_models(plan), paths, n_jobs=1, progress=False), known)


def submit(weights, scans, *more):
    scans = scans if isinstance(scans, list) else [scans]
    return main(list(map(str, ["submit", *scans, "--weights", *weights, "--jobs", 1, *more])))


# --- One way of doing it --------------------------------------------------------------------------


def test_both_commands_and_python_give_the_same_predictions_and_file(weights, scans, tmp_path):
    found = predict_scans(weights, scans, n_jobs=1, progress=False)
    for ensemble in ("authors", "mean"):
        assert submit(weights, scans, "-o", tmp_path / f"{ensemble}.txt", "--ensemble", ensemble) == 0
        lines = [f"TST_{i + 1:04d}.nii.gz,{k}" for i, k in enumerate(combine(found.probabilities, ensemble))]
        assert (tmp_path / f"{ensemble}.txt").read_text().splitlines() == lines
    assert (tmp_path / "authors.txt").read_bytes() != (tmp_path / "mean.txt").read_bytes()  # else nothing is shown
    assert main(["predict", str(scans), "--weights", str(weights[0]), "-o", str(tmp_path / "alone.csv")]) == 0
    alone, kept = (pd.read_csv(tmp_path / name) for name in ("alone.csv", "authors.predictions.csv"))
    for m, path in enumerate(weights):
        expected = found.table(m)
        for table in (kept[kept["weights"] == path.stem], *[alone] * (m == 0)):
            np.testing.assert_array_equal(table[list(TB_CLASSES)].to_numpy(), expected[list(TB_CLASSES)].to_numpy())
            assert table["class"].tolist() == expected["class"].tolist()
            assert table["scan"].tolist() == [str(scans / f"TST_{i + 1:04d}.nii.gz") for i in range(N)]


# --- Scans that cannot be read --------------------------------------------------------------------


def test_a_damaged_scan_keeps_the_file_from_being_written_until_it_gets_a_class(weights, scans, tmp_path, capsys):
    whole, out, bad = tmp_path / "whole.txt", tmp_path / "sub.txt", scans / "TST_0003.nii.gz"
    assert submit(weights, scans, "-o", whole, "--ensemble", "vote") == 0
    bad.write_bytes(bad.read_bytes()[:200])
    capsys.readouterr()
    assert submit(weights, scans, "-o", out) == 1
    error = capsys.readouterr().err
    assert f"{bad}: failed: " in error and "1 of 5 scans could not be read" in error
    assert f"{out}: not written: the task wants every scan. Not read: TST_0003.nii.gz." in error and "--fill" in error
    assert not out.exists()
    kept = pd.read_csv(tmp_path / "sub.predictions.csv")
    assert kept["error"].notna().sum() == 3 and kept["Focal"].notna().sum() == 12
    assert submit(weights, scans, "-o", out, "--ensemble", "vote", "--fill", "2") == 0
    assert f"{bad}: failed: " in capsys.readouterr().err
    lines = whole.read_text().splitlines()
    assert out.read_text().splitlines() == [*lines[:2], "TST_0003.nii.gz,2", *lines[3:]]


# --- Mistakes, before any work --------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, words",
    [
        (["--ensemble", "majority"], "ensemble 'majority' does not exist. Known: mean, vote, authors"),
        (["--ensemble", "vot"], "Did you mean 'vote'?"),
        (["--ensemble", "authors"], "'authors' is of three runs, and 2 were given"),
        (["--fill", "6"], "fill is 6. Give a whole number from 0 to 5"),
        (["-o", "none/sub.txt"], "none: no such folder. Make it first."),
        (["-o", "."], ".: is a folder. Name the file to write"),
        (["--weights", "none"], "none: no such weights"),
        (["--weights", ""], "no weights are named"),
    ],
)
def test_settings_are_checked_before_any_scan_is_read(
    weights, scans, tmp_path, capsys, monkeypatch, unread, more, words
):
    monkeypatch.chdir(tmp_path)
    assert submit(weights[:2], scans, "-o", "sub.txt", *more) == 1
    error = capsys.readouterr().err
    assert words in error and error.startswith("viptt: ")
    assert not (tmp_path / "sub.txt").exists() and not (tmp_path / "sub.predictions.csv").exists()


def test_other_classes_and_a_name_that_two_scans_share_are_refused_too(weights, scans, tmp_path, capsys, unread):
    other = write_weights(tmp_path / "other.safetensors", classes=("ill", "well"))
    assert submit([other], scans, "-o", tmp_path / "sub.txt") == 1
    assert "tells ill, well. The task has Infiltrative, Focal" in capsys.readouterr().err
    write_noise_scan(tmp_path / "more" / "TST_0002.nii.gz")
    assert submit(weights, [scans, tmp_path / "more"], "-o", tmp_path / "sub.txt") == 1
    error = capsys.readouterr().err
    assert "'TST_0002.nii.gz': more than one scan is named so. A submission knows each scan" in error


@pytest.mark.parametrize("name", ["a b.nii.gz", "a,b.nii.gz", "a.nii", "A.NII.GZ"])
def test_a_name_that_no_submission_can_hold_is_refused_before_any_scan_is_read(weights, tmp_path, unread, name):
    write_noise_scan(tmp_path / "s" / "x.nii.gz").rename(tmp_path / "s" / name)
    with pytest.raises(DataError, match="is not the bare name of a .nii.gz file"):
        made(weights, tmp_path / "s", tmp_path)


def test_faulty_labels_are_refused_before_any_scan_is_read(weights, scans, tmp_path, unread):
    (tmp_path / "l.csv").write_text("FileName,Label\nTST_0001,Focl\n")
    for name, given, message in (
        ("l.csv", scans, "unknown label 'Focl'"),
        ("none.csv", scans, "no such file"),
        ("l.csv", "", "labels are named, but no scans"),
    ):
        with pytest.raises((DataError, SettingError), match=message):
            made(weights, given, tmp_path, labels=tmp_path / name)


# --- What stands in it ----------------------------------------------------------------------------


def test_tables_and_figures_count_what_the_models_said(weights, scans, tmp_path):
    (scans / "TST_0002.nii.gz").write_bytes(b"")
    entry = made(weights, scans, tmp_path)
    fine = [0, 2, 3, 4]
    votes = entry.predictions.probabilities[:, fine].argmax(axis=2) + 1
    counts = counts_table(entry).table
    assert counts["who"].tolist() == ["m1", "m8", "m11", *(f"ensemble: {method}" for method in ENSEMBLES)]
    for row, numbers in zip(counts[list(TB_CLASSES)].to_numpy()[:3], votes, strict=True):
        assert row.tolist() == [(numbers == k).sum() for k in range(1, 6)]
    authors = combine(entry.predictions.probabilities[:, fine], "authors")
    none = (authors != votes).all(axis=0).sum()
    assert none > 0  # else this test says nothing
    assert counts["said by no model"].tolist()[0::4] == [0, 0] and counts["said by no model"].iloc[-1] == none
    assert "5 scans. 1 could not be read; 4 have warnings." in scans_table(entry).text
    assert scans_table(entry).table.iloc[1].tolist()[:4] == ["TST_0002.nii.gz", "", "", ""]
    assert f"m1: Infiltrative {(votes[0] == 1).sum()}, " in figures_entry.counts_chart(entry).alt
    found = scores(entry)  # without labels
    assert "nothing can be scored" in str(found) and figures_entry.scores_chart(found, entry) is found


def test_scores_are_of_the_classes_that_are_handed_in(weights, scans, tmp_path):
    labels = [1, 2, 3, 4, 5]
    write_noise_scan(scans / "TST_0006.nii.gz")  # has no label
    (tmp_path / "l.csv").write_text("FileName,TypeOfTB\n" + "".join(f"TST_000{k},{k}\n" for k in labels))
    entry = made(weights, scans, tmp_path, labels=tmp_path / "l.csv")
    summary = scores(entry)
    table = summary.table.set_index("arm")
    assert list(table.index) == ["m1", "m8", "m11", *(f"ensemble: {method}" for method in ENSEMBLES)]
    for method in ENSEMBLES:
        said = combine(entry.predictions.probabilities, method)[:5]
        row = table.loc[f"ensemble: {method}"]
        assert row["kappa"] == pytest.approx(cohen_kappa(np.array(labels) - 1, said - 1)) and np.isnan(row["auc"])
        assert row["n"] == 5
    assert table["auc"].iloc[:3].notna().all()
    assert "5 scans scored" in summary.caveat and "TST_0006.nii.gz" in summary.caveat
    assert counts_table(entry).table.iloc[-1, :-1].tolist() == ["true", 1, 1, 1, 1, 1]
    assert f"m1: {table['kappa'].iloc[0]:.2f}" in figures_entry.scores_chart(summary, entry).alt


def test_models_are_named_by_start_file_or_number(tmp_path, scans):
    def names(weights):
        return made(weights, scans, tmp_path).models

    by_start = [
        write_weights(tmp_path / f"{k}.safetensors", training={"start": start})
        for k, start in enumerate(("random", "image"))
    ]
    assert names(by_start) == ["random", "image"]
    by_seed = [
        write_weights(tmp_path / f"{start}{seed}.safetensors", training={"start": start, "seed": seed})
        for start, seed in (("image", 0), ("video", 0), ("video", 1))
    ]
    assert names(by_seed) == ["image, seed 0", "video, seed 0", "video, seed 1"]
    same = [write_weights(tmp_path / run / "weights.safetensors", training={"start": "video"}) for run in ("a", "b")]
    assert names(same) == ["a", "b"] and names([same[0]] * 2) == ["1 a", "2 a"]


# --- Synthetic models and scans -------------------------------------------------------------------


def test_without_weights_and_scans_synthetic_ones_are_made_and_marked(private_root, monkeypatch, make_clip_set):
    loaded = []

    def load(preset, name, *, n):
        loaded.append((name, n))
        classes = TB_CLASSES if name == "phantom" else tuple("abcde")
        return make_clip_set(
            n=60, classes=5, class_names=classes, synthetic=True, source={"set": name, "hu_window": [-1000, 400]}
        )

    monkeypatch.setattr(entry_module, "load_for", load)
    plan = plan_entry(ensemble="authors")
    paths, known = entry_scans(plan, preset="study", n=6)
    assert len(paths) == 6 and private_root in paths[0].parents
    training = plan_experiment("study", starts="random,video", epochs=1, pretrain_epochs=1, device="cpu")
    models = entry_models(plan, training, n_train=40)
    assert loaded == [("phantom", 40), ("actions", None)]
    assert len(models) == 3  # the last initialisation once more, with the next seed
    entry = keep_entry(plan, predict_scans(models, paths, n_jobs=1, progress=False), known)
    assert entry.synthetic and entry.models == ["random, seed 0", "video, seed 0", "video, seed 1"]
    classes = write_entry(entry)
    assert plan.output == private_root / "runs" / "submission.txt"
    assert len(plan.output.read_text().splitlines()) == 6
    assert plan.output.read_text().startswith(f"TRN_0001.nii.gz,{classes[0]}\n")
    summary = scores(entry)
    assert isinstance(summary, Summary) and summary.synthetic and set(summary.table["n"]) == {6}
    for picture in (figures_entry.counts_chart(entry), figures_entry.scores_chart(summary, entry)):
        assert picture.alt.endswith("Synthetic data.")


def test_synthetic_test_patients_are_of_a_cohort_that_no_run_has_seen():
    cohorts = {inspect.signature(list_phantoms).parameters["seed"].default, *range(10)}
    for plan in tracked_files("viptt_core/study/plans/*.toml"):
        cohorts |= {int(number) for number in re.findall(r"\b(?:cohort|seed)s? = (\d+)", plan.read_text("utf-8"))}
    assert 2 in cohorts and entry_module.COHORT not in cohorts
