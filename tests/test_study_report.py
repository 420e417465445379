"""What pages say of a study is read and computed: numbers, answers, and why a part is missing."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from small_study import (
    NODULES,
    PLAN,
    PRIMARY,
    SEEDS,
    TOO_FEW,
    bare_results,
    contrast,
    outcomes,
    study_results,
    tables,
    write_plan,
)

from viptt_core.errors import DataError
from viptt_core.metrics import cohen_kappa
from viptt_core.shown import ResultTable, arm_label, with_interval
from viptt_core.study import report
from viptt_core.study.outcomes import write_outcomes
from viptt_core.study.plan import load_study
from viptt_core.study.report import PARTS, answers, open_results, show_table
from viptt_core.study.tables import write_tables
from viptt_core.study.verdict import VERDICTS, make_verdicts, verdicts_json


@pytest.fixture
def root(tmp_path):
    """A repository with a plan, its tables and answers, and the runs of the primary experiment."""
    study = load_study(write_plan(tmp_path, PLAN, "small"))
    folder, made = tmp_path / "results" / "small", tables(study)
    write_tables(folder, made)
    write_outcomes(folder / "primary.npz", outcomes())
    (folder / "study.json").write_text(json.dumps({"plan": study.digest, "plan_file": "small.toml"}))
    (tmp_path / VERDICTS).write_text(verdicts_json(make_verdicts(study, made, synthetic=True)))
    return tmp_path


# --- Opening --------------------------------------------------------------------------------------------------
def test_results_are_opened_by_name_or_by_the_path_of_their_plan(root):
    for named in ("small", str(root / "small.toml")):
        results = open_results(named, folder=root, arms=" video ;random")
        assert results.follows_plan and results.synthetic and results.arms == ("video", "random")
        assert set(results.tables) >= {"arms", "contrasts"} and results.evidence is None
        pd.testing.assert_frame_equal(results.rows("contrasts"), study_results().rows("contrasts"))
    assert open_results("small", folder=root).arms == PRIMARY
    write_plan(root, PLAN | {"seeds": 3}, "small")
    changed = open_results("small", folder=root)
    assert not changed.follows_plan and "follow another plan" in report.plan_table(changed).text


def test_a_damaged_record_is_told(root):
    (root / "results" / "small" / "study.json").write_text("{")
    with pytest.raises(DataError, match=r"study\.json: cannot be read"):
        open_results("small", folder=root)


def test_without_results_every_part_is_a_sentence_that_names_the_command(private_root):
    for name, command in (("synthetic", "viptt study run synthetic"), ("paper", "make paper")):
        results = open_results(name, folder=private_root)
        shown = [answers(results), *(show_table(results, part) for part in PARTS)]
        for part in shown:
            assert part.table is None and f"study '{name}' is not run yet. Run {command}" in part.text
        assert results.arms == () and results.scores("image").empty


# --- Answers and scores ---------------------------------------------------------------------------------------
def test_answers_are_those_of_the_file_below_their_question(root):
    results = open_results("small", folder=root)
    records = json.loads((root / VERDICTS).read_text())["questions"]
    lines = str(answers(results)).splitlines()
    assert [record["sentence"] in lines for record in records] == [True] * 5
    assert lines[:2] == ["primary?", records[0]["sentence"]] and lines.count("against random?") == 1
    assert str(answers(results, "rare classes")).splitlines() == ["rare classes?", records[3]["sentence"]]
    assert "not run yet" in answers(results, "no such family").text
    page = answers(results, "against random")._repr_mimebundle_()["text/html"]
    assert page.count("<strong>against random?</strong>") == 1 and page.count("<li>") == 2


def test_what_is_simulated_is_said_once_at_the_top():
    simulated, nodules = study_results(), study_results(NODULES)
    said = report.banner(nodules, simulated)
    assert str(said) == "Study 'small' is simulated: its results say nothing about patients. Its figures are marked."
    assert "Synthetic data</p>" in said._repr_mimebundle_()["text/html"]
    assert str(report.banner(nodules)) == "No result on this page is simulated."
    assert not any("patients" in str(show_table(simulated, name)) for name in PARTS)


def test_scores_by_seed_are_those_of_the_predictions(root):
    results, made = open_results("small", folder=root), outcomes()
    scores, predicted = results.scores("image"), made.predicted[1 * SEEDS + 2]  # third seed of the second arm
    assert list(scores.index) == list(range(SEEDS)) and scores[2] == cohen_kappa(made.labels, predicted)
    rare = results.scores("image", "rare recall")
    recalls = [(predicted == k)[made.labels == k].mean() for k in (2, 3, 4)]
    assert rare[2] == pytest.approx(np.mean(recalls))
    assert results.scores("video, 75 scans").empty


# --- Tables ---------------------------------------------------------------------------------------------------
def test_every_declared_column_is_one_of_the_tables_and_what_is_lacking_is_a_sentence():
    results, nodules = study_results(), study_results(NODULES)
    for name in PARTS:
        shown = show_table(results, name)
        assert (shown.table is None) == (name in ("baselines", "evidence", "missing")), name
    assert show_table(nodules, "baselines").table["baseline"].tolist() == ["diameter alone", "logistic regression"]
    assert show_table(nodules, "sources").table["learned"].tolist() == ["yes", "yes"]
    beside = show_table(nodules, "scores").table
    assert (
        beside["arm"].tolist()[-2:] == ["diameter alone", "logistic regression"] and beside["seeds"].tolist()[-1] == ""
    )
    assert "small' is not run yet" in show_table(bare_results(), "scores").text


def test_tables_hold_the_rows_that_are_asked_for():
    results = study_results()
    rows = pd.DataFrame(
        [
            contrast("a", ("video", "image"), 0.3, "helps", level=0.9875),
            contrast("b", ("video", "image"), 0.05, "", measure="rare recall"),
            contrast("c", ("video, 75 scans", "image, 75 scans", "video", "image"), 0),
        ]
    )
    results.tables["contrasts"] = rows
    shown = show_table(results, "contrasts").table
    assert list(shown["verdict"]) == ["helps", "no verdict", "undecided"] and shown["interval at"][0] == "98.8%"
    assert shown["difference"][0] == "+0.300 (+0.200 to +0.400)" and shown["contrast"][2].count("against") == 3
    assert list(show_table(results, "contrasts", family=["c", "not there"]).table["family"]) == ["c"]
    assert list(show_table(results, "contrasts", measure="rare recall").table["family"]) == ["b"]
    assert list(show_table(results, "scores").table["arm"]) == list(
        map(arm_label, PRIMARY)
    )  # of the primary experiment
    few = list(show_table(results, "scores", experiment="labels").table["arm"])
    assert few == ["ImageNet only, 75 scans", "ImageNet + videos, 75 scans"]
    assert show_table(results, "attribution").table["factor"].tolist()[:3] == [
        "all changes together",
        "videos",
        "class weights",
    ]
    assert "not run yet" in str(show_table(results, "scores", experiment="not there"))


def test_tables_are_html_with_a_caption_and_escaped_words():
    page = ResultTable("a < b\nc", pd.DataFrame({"x": ["<b>"]}), "c & d")._repr_mimebundle_()["text/html"]
    assert "c &amp; d</caption>" in page and "&lt;b&gt;" in page and "<p>a &lt; b<br>c</p>" in page
    kept = ResultTable("", pd.DataFrame({"x": ["0.30 (0.20 to 0.40)"]}))._repr_mimebundle_()["text/html"]
    assert "<td>0.30 (0.20\xa0to\xa00.40)</td>" in kept  # a line may end before an interval, not within it
    assert ResultTable("alone")._repr_mimebundle_() == {"text/plain": "alone", "text/html": "<p>alone</p>"}


def test_a_column_that_never_changes_is_said_once_below_the_table():
    rows = pd.DataFrame({"arm": ["a"] * 3, "seeds": [5] * 3, "note": [""] * 3, "kappa": ["0.1", "0.2", "0.1"]})
    shown = ResultTable("More.", rows)._repr_mimebundle_()
    assert "<p>In every row: seeds 5.<br>More.</p>" in shown["text/html"]
    assert re.findall("<th>(.*?)</th>", shown["text/html"]) == ["arm", "kappa"] and "seeds" in shown["text/plain"]
    few = ResultTable("", rows[:2])._repr_mimebundle_()["text/html"]
    assert "<th>seeds</th>" in few and "<p>" not in few  # two may agree by chance


def test_cells_hold_the_value_with_its_interval():
    unknown = [np.nan, np.nan]
    rows = pd.DataFrame({"x": [0.354, np.nan, 0.5], "x_low": [0.301, *unknown], "x_high": [0.409, *unknown]})
    assert report.interval_cells(rows, "x") == ["0.35 (0.30 to 0.41)", "", "0.50"]
    plain = rows.rename(columns={"x_low": "low", "x_high": "high"})
    assert report.interval_cells(plain, "x", signed=True)[0] == "+0.354 (+0.301 to +0.409)"
    assert with_interval(-0.0001, -0.0004, 0.2, signed=True) == "+0.000 (+0.000 to +0.200)"


def test_the_plan_table_holds_what_sets_arms_apart_seeds_and_the_rules():
    results = study_results()
    shown = report.plan_table(results)
    table = shown.table.set_index("in files and commands")
    assert table.loc["video-rotation", "arm"] == "ImageNet + videos, rotation"
    assert table.loc["video, 75 scans", "what sets it apart"] == "scans: 75"
    assert table.loc["video-rotation", "what sets it apart"] == "frozen CNN, no class weights, rotation"
    assert table.loc["video, 75 scans", "seeds planned"] == 3 and table.loc["image", "seeds run"] == SEEDS
    assert len(table) == len(results.plan.arms) > len(PLAN["arms"])
    assert "0.001, 0.003 each seed" in shown.text and "another plan" not in shown.text
    levels = report.families_table(results).table.set_index("family")["intervals at"]
    assert (levels["primary"], levels["against random"]) == ("95.0%", "97.5%")
    assert "the preset's" in report.plan_table(study_results(TOO_FEW)).text


def test_neither_tables_nor_figures_need_torch():
    code = "import sys, viptt_core.study.recheck, viptt_core.figures.per_class; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "name, label",
    [
        ("image", "ImageNet only"),
        ("video-weights-rotation", "ImageNet + videos, class weights, rotation"),
        ("image+both, shuffled labels", "ImageNet + both video sets, shuffled video labels"),
        ("video, 75 scans", "ImageNet + videos, 75 scans"),
        ("my-own, image", "my-own, ImageNet only"),
        ("", ""),
    ],
)
def test_an_arm_is_named_as_on_pages(name, label):
    assert arm_label(name) == label
