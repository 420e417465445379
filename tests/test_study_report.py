"""What pages say of a study is computed: numbers, verdicts, and why a part is missing."""

import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from small_study import (
    PLAN,
    PRIMARY,
    SEEDS,
    TABLES,
    TOO_FEW,
    bare_results,
    contrast,
    evidence,
    nodule_results,
    outcomes,
    study_results,
    write_plan,
)

from viptt_core.errors import DataError
from viptt_core.metrics import cohen_kappa
from viptt_core.shown import ResultTable, p_text, with_interval
from viptt_core.study import report
from viptt_core.study.outcomes import write_outcomes
from viptt_core.study.pointing import Evidence, evidence_tables, read_evidence, write_evidence


# --- Opening --------------------------------------------------------------------------------------------------
def test_results_are_read_and_their_tables_computed(tmp_path, monkeypatch):
    plan = write_plan(tmp_path, TOO_FEW)
    write_outcomes(tmp_path / "own" / "one.npz", outcomes(("random", "video")))
    given = {}

    def make_tables(study, found, maps):
        given.update(study=study.name, experiments=list(found), maps=maps)
        return {"arms": pd.DataFrame({"arm": ["random", "video"]})}

    monkeypatch.setattr(report, "make_tables", make_tables)
    results = report.open_results(plan, folder=tmp_path, arms=" video ;random")
    assert given == {"study": "own", "experiments": ["one"], "maps": None}
    assert results.synthetic and results.arms == ("video", "random") and results.evidence is None
    write_evidence(tmp_path / "own" / "evidence.npz", evidence())
    assert report.open_results(plan, folder=tmp_path).arms == ("random", "video")
    assert isinstance(given["maps"], Evidence)


def test_without_results_the_error_names_the_command_and_optional_ones_are_sentences(private_root):
    for name, command in (("lidc", "viptt study run lidc"), ("paper", "make paper")):
        with pytest.raises(DataError, match=command) as error:
            report.open_results(name, folder=private_root)
        assert error.value.path == private_root / name
    results = report.open_results("lidc", folder=private_root, optional=True)
    for show in TABLES:
        assert "no results of study 'lidc' here. Run viptt study run lidc" in str(show(results)), show.__name__
    assert not results.synthetic and results.arms == ()


# --- Verdicts and scores --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "low, high, more, said",
    [
        (0.01, 0.2, {}, "a against b: helps, the interval lies above 0"),
        (-0.2, -0.01, {}, "a against b: hurts, the interval lies below 0"),
        (0.0, 0.2, {}, "a against b: cannot be told apart, the interval includes 0"),
        (-0.1, 0.0, {}, "a against b: cannot be told apart, the interval includes 0"),
        (np.nan, np.nan, {}, "a against b: nothing is said (no interval)"),
        (
            0.01,
            0.2,
            {"p_holm": 0.2},
            "a against b: helps, the interval lies above 0, though not after correcting for the other contrasts of its "
            "family",
        ),
        (
            0.1,
            0.2,
            {"arm2": "c", "baseline2": "d"},
            "(a against b) against (c against d): helps, the interval lies above 0",
        ),
    ],
)
def test_a_verdict_follows_from_the_interval(low, high, more, said):
    assert report.sentence(pd.Series(contrast("primary", "a", "b", 0) | {"low": low, "high": high} | more)) == said


def test_the_verdict_is_of_the_primary_contrast_unless_a_family_is_named():
    for difference, word in ((0.3, "helps"), (-0.3, "hurts"), (0.05, "cannot be told apart")):
        pairs = (("random", 0.9), ("image-unfrozen", difference))
        rows = pd.DataFrame([contrast("primary", "video-unfrozen", *pair) for pair in pairs])
        text = str(report.verdict(study_results(tables={"contrasts": rows})))
        assert word in text and f"{difference:+.3f} ({difference - 0.1:+.3f} to {difference + 0.1:+.3f})" in text
        assert "image-unfrozen" in text and f"{SEEDS} seeds" in text and "+0.90" not in text
        assert text.endswith(report.SYNTHETIC)
    text = str(report.verdict(study_results(), "rare classes"))
    assert "hurts" in text and "p 0.2 after Holm" in text


def test_scores_by_seed_are_those_of_the_predictions():
    results = study_results()
    made = results.outcomes["primary"]
    scores, predicted = results.scores("image-unfrozen"), made.predicted[1 * SEEDS + 2]  # third seed of the second arm
    assert list(scores.index) == [0, 1, 2, 3]
    assert scores[2] == pytest.approx(cohen_kappa(made.labels, predicted))
    recalls = [(predicted == made.labels)[made.labels == k].mean() for k in (2, 3, 4)]  # the rare classes
    assert results.scores("image-unfrozen", "rare recall")[2] == pytest.approx(np.mean(recalls))
    assert results.scores("video, 75 scans").empty


# --- Tables ---------------------------------------------------------------------------------------------------
def test_every_table_says_that_the_data_are_synthetic_and_what_a_study_lacks_is_a_sentence():
    for show in TABLES:
        shown, absent = show(study_results()), show(bare_results())
        assert shown.table is None or report.SYNTHETIC in shown.text, show.__name__
        assert absent.table is None and "not a part of study 'own', or not run yet." in absent.text, show.__name__
    assert report.SYNTHETIC not in str(report.replication_table(nodule_results()))


def test_tables_are_html_with_a_caption_and_escaped_words():
    page = ResultTable("a < b\nc", pd.DataFrame({"x": ["<b>"]}), "c & d")._repr_mimebundle_()["text/html"]
    assert "c &amp; d</caption>" in page and "&lt;b&gt;" in page and "<p>a &lt; b<br>c</p>" in page
    wide = ResultTable("", pd.DataFrame({"x": ["a b", "a " * 40]}))._repr_mimebundle_()["text/html"]
    assert wide.count('nowrap">a b</td>') == 1 and wide.count('<td style="min-width') == 1
    assert ResultTable("alone")._repr_mimebundle_() == {"text/plain": "alone", "text/html": "<p>alone</p>"}


def test_cells_hold_the_value_with_its_interval():
    unknown = [np.nan, np.nan]
    rows = pd.DataFrame({"x": [0.354, np.nan, 0.5], "x_low": [0.301, *unknown], "x_high": [0.409, *unknown]})
    assert report.interval_cells(rows, "x") == ["0.35 (0.30 to 0.41)", "", "0.50"]
    plain = rows.rename(columns={"x_low": "low", "x_high": "high"})
    assert report.interval_cells(plain, "x", signed=True)[0] == "+0.354 (+0.301 to +0.409)"
    assert with_interval(-0.0001, -0.0004, 0.2, signed=True) == "+0.000 (+0.000 to +0.200)"
    assert with_interval(-0.05, -0.091, -0.005, signed=True).endswith("to -0.005)")
    assert [p_text(p) for p in (0.0004, 0.0123, np.nan)] == ["< 0.001", "0.012", ""]


def test_the_plan_table_holds_what_sets_arms_apart_seeds_and_the_rules():
    results = study_results()
    shown = report.plan_table(results)
    table = shown.table.set_index("arm")
    assert table.loc["video, 75 scans", "what sets it apart"] == "scans: 75, extra steps"
    assert table.loc["video-unfrozen", "what sets it apart"] == "no class weights"
    assert tuple(table.loc["video-unfrozen", ["seeds planned", "seeds run"]]) == (SEEDS, SEEDS)
    assert table.loc["video, 75 scans", "seeds run"] == 0 and len(table) == len(results.plan.arms) > len(PLAN["arms"])
    assert "no wider than 0.1" in shown.text and "0.001, 0.003" in shown.text and "another plan" not in shown.text
    assert "another plan" in report.plan_table(dataclasses.replace(results, record={"plan": "x"})).text


def test_tables_hold_the_families_and_experiments_asked_for_and_count_runs_at_the_limit():
    results = study_results()
    rare = report.contrasts_table(results, measure="rare recall").table
    assert list(rare["family"]) == ["rare classes"] and list(rare["verdict"]) == ["hurts"]
    two = report.contrasts_table(results, "primary", "label efficiency", "not there").table
    assert list(two["verdict"]) == ["cannot be told apart", "helps"]
    assert two["contrast"].iloc[1].count("against") == 3
    assert len(report.contrasts_table(results).table) == 4
    assert list(report.arms_table(results).table["arm"]) == list(PRIMARY)  # of the primary experiment
    named = report.arms_table(results, "efficiency", "not there").table
    assert list(named["arm"]) == ["image, 75 scans", "video, 75 scans"]
    assert "not run yet" in str(report.arms_table(results, "not there"))
    endings = report.endings_table(results)
    assert f"1 of {3 * SEEDS} runs were ended by the epoch limit" in endings.text
    assert endings.table.set_index("arm").loc["random", "runs"] == SEEDS


def test_no_share_of_a_gap_whose_interval_includes_zero():
    results = study_results()
    assert list(report.attribution_table(results).table["share of the gap"]) == ["100 %"] * 4
    results.tables["attribution"]["percent"] = np.nan
    shown = report.attribution_table(results)
    assert set(shown.table["share of the gap"]) == {""} and "No shares" in shown.text


# --- Evidence -------------------------------------------------------------------------------------------------
def test_evidence_comes_back_as_it_was_written(tmp_path):
    made = evidence()
    write_evidence(tmp_path / "x" / "evidence.npz", made)
    read = read_evidence(tmp_path / "x" / "evidence.npz")
    assert read.arms == made.arms
    for name, value in dataclasses.asdict(made).items():
        np.testing.assert_equal(getattr(read, name), value, name)
    assert read.grad_cam["video"].dtype == np.uint8 and read.slice_importance["video"].dtype == np.float16


def test_maps_on_the_finding_beat_chance_and_grad_cam_may_miss_by_half_a_cell_of_its_layer():
    made = evidence()
    table = evidence_tables(made).set_index(["arm", "map", "measure"]).sort_index()
    assert len(table) == 8 and (table["clips"] == 20).all()
    assert (table.loc["video", "gain_low"] > 0).all() and (table.loc["untrained", "gain_low"] <= 0).all()
    assert (table.xs("pointing", level="measure").loc["video", "observed"] == 1).all()
    missed = {arm: np.roll(maps, 2, axis=2) for arm, maps in made.grad_cam.items()}  # 2 voxels are 4 pixels here
    moved = evidence_tables(dataclasses.replace(made, grad_cam=missed)).set_index(["arm", "map", "measure"])
    # A roll takes a few beyond the other border.
    assert moved.loc[("video", "Grad-CAM", "pointing"), "observed"] > 0.6
    assert moved.loc[("video", "Grad-CAM", "mass"), "observed"] < 0.1


def test_neither_tables_nor_figures_need_torch():
    code = (
        "import sys, viptt_core.study.report, viptt_core.figures.per_class, viptt_core.study.pointing; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
