"""Titles and answers hold whatever comes out of a study, and say what was not run."""

import pandas as pd
import pytest
from small_study import NODULES, PLAN, bare_results, contrast, study_results

from viptt_core.shown import ResultTable
from viptt_core.study import sentences
from viptt_core.study.verdict import HARMS, HELPS, NO_GAIN, UNDECIDED

PAIR = ("video", "image")
TITLES = {
    HARMS: "ImageNet + videos: lower kappa than ImageNet only",
    HELPS: "ImageNet + videos: higher kappa than ImageNet only",
    NO_GAIN: "ImageNet + videos against ImageNet only: no gain of 0.10 or more",
    UNDECIDED: "ImageNet + videos against ImageNet only: undecided",
    "": "ImageNet + videos against ImageNet only: no verdict",
}


def with_table(name, rows, plan=PLAN):
    """Results of which one table is another."""
    results = study_results(plan)
    results.tables[name] = pd.DataFrame(rows)
    return results


@pytest.mark.parametrize("verdict", TITLES)
def test_a_title_says_no_more_than_the_verdict(verdict):
    row = contrast("primary", PAIR, 0.3, verdict)
    assert sentences.contrast_title(row) == TITLES[verdict]
    assert sentences.contrasts_title(pd.DataFrame([row])) == TITLES[verdict]


def test_verdicts_are_counted_where_there_are_several():
    rows = [contrast("a", PAIR, 0, verdict) for verdict in (HELPS, "", HARMS, "", UNDECIDED)]
    told = sentences.contrasts_title(pd.DataFrame(rows))
    assert told == "Lower in 1 of 5 differences, higher in 1, undecided in 1, no verdict in 2"
    rare = contrast("a", PAIR, 0, HARMS, measure="rare recall")
    assert sentences.contrast_title(rare).endswith("lower recall of rare types than ImageNet only")
    both = contrast("a", ("video", "image", "video", "random"), 0, HELPS)
    assert sentences.contrast_title(both).endswith(": helps") and "lower" not in sentences.contrast_title(both)


def factors(**ends):
    """Rows of the attribution, each with an interval."""
    return [
        {"factor": name, "points": (low + high) / 2, "low": low, "high": high, "level": 0.9875}
        for name, (low, high) in ends.items()
    ]


def test_what_each_change_adds_follows_from_its_interval():
    rows = factors(start=(-0.3, -0.1), weights=(-0.1, 0.2), rotation=(0.01, 0.2))
    rows += [dict(rows[0], factor="naive gap", points=0.05)]
    results = with_table("attribution", rows)
    told = "Raises kappa: rotation; lowers kappa: videos; no difference shown: class weights"
    assert sentences.attribution_title(results) == told
    answer = sentences.attribution_answer(results).text
    assert answer.startswith("All changes together: kappa +0.050") and "videos -0.200 (-0.300 to -0.100)" in answer
    assert answer.endswith("98.8 % intervals.")


def test_missing_cells_of_the_factorial_are_named():
    results = study_results()
    assert sentences.attribution_answer(results).text.endswith("% intervals.")
    rows = results.tables["arms"]
    results.tables["arms"] = rows.assign(seeds=[*rows["seeds"][:-1], 1])
    assert sentences.attribution_answer(results).text.endswith("intervals. Not all planned seeds have run.")
    results.tables.update(arms=rows[~rows["arm"].str.contains("rotation")], attribution=pd.DataFrame())
    answer = sentences.attribution_answer(results).text
    assert answer.startswith("What videos, class weights and rotation add cannot be said yet. 4 of 8 combinations")
    assert "ImageNet + videos, class weights, rotation" in answer


def trend(*points):
    """Rows of the table "trend": start, scans, kappa, each interval 0.1 to both sides."""
    return [
        {"experiment": "labels", "start": start, "n_train": n, "n_videos": 0, "seeds": 3}
        | {"kappa": kappa, "low": kappa - 0.1, "high": kappa + 0.1}
        for start, n, kappa in points
    ]


@pytest.mark.parametrize(
    "kappas, told",
    [
        ((0.1, 0.5), "Kappa rises with the number of labelled scans"),
        ((0.5, 0.1), "Kappa falls with the number of labelled scans"),
        ((0.3, 0.35), "Kappa at few and at many labelled scans: no difference shown"),
    ],
)
def test_a_trend_is_told_by_the_intervals_at_its_ends(kappas, told):
    points = [(start, n, kappa) for start in ("image", "video") for n, kappa in zip((75, 300), kappas, strict=True)]
    results = with_table("trend", trend(*points))
    assert sentences.trend_title(results, "n_train") == told
    mixed = with_table("trend", trend(("image", 75, 0.1), ("image", 300, 0.5), ("video", 75, 0.3), ("video", 300, 0.3)))
    assert "ImageNet only rises; ImageNet + videos no difference shown" in sentences.trend_title(mixed, "n_train")


def test_one_number_of_scans_is_no_trend():
    results = with_table("trend", trend(("image", 300, 0.3), ("video", 300, 0.4)))
    told = sentences.trend_missing(sentences.trend_rows(results, "n_train"), "n_train")
    assert told.endswith("of the plan's numbers only 300 has run.")


def test_sources_are_told_by_whether_they_were_learned_and_controls_are_not_asked():
    results = study_results(NODULES)
    assert sentences.sources_title(results) == "UT: learned; CCTV fights: learned"
    rows = results.tables["sources"]
    some = with_table("sources", rows.assign(learned=[True, False]), NODULES)
    assert sentences.sources_title(some) == "UT: learned; CCTV fights: not learned"
    told = sentences.sources_answer(some).text.splitlines()
    assert told[0].startswith(
        "UT, ImageNet + UT-Interaction: learned, accuracy 0.60 (0.50 to 0.70), without seeing them 0.30"
    )
    assert told[1].startswith("CCTV fights, ImageNet + UT-Interaction: not learned, ")
    twice = with_table("sources", pd.concat([rows, rows.assign(arm="image+both", learned=False)]), NODULES)
    assert sentences.sources_title(twice).startswith("UT: learned in 1 of 2 pretrainings; ")
    shuffled = {**NODULES["arms"][2], "name": "shuffled", "videos": "shuffled labels"}
    plan = NODULES | {"arms": [*NODULES["arms"], shuffled]}
    control = with_table("sources", pd.concat([rows, rows.assign(arm="shuffled", learned=False)]), plan)
    assert sentences.sources_title(control) == "UT: learned; CCTV fights: learned"


@pytest.mark.parametrize("kappa, word", [(0.5, "above"), (0.2, "not above"), (0.304, "not above")])
def test_the_best_baseline_stands_beside_the_best_network(kappa, word):
    results = study_results(NODULES)
    results.tables["baselines"]["kappa"] = [kappa, kappa - 0.1]
    told = sentences.baselines_answer(results).text
    assert told.startswith(f"Diameter alone, with no network trained, reaches kappa {kappa:.2f}")
    assert f": {word} the best network of the primary comparison, ImageNet only, 0.30 (0.20 to 0.40)." in told


def test_runs_plans_and_leaks_are_counted():
    results = study_results()
    arms = len(results.plan.arms)
    assert sentences.plan_answer(results).text == f"Study 'small': {arms} of the {arms} planned arms have run."
    rows = results.tables["arms"]
    results.tables["arms"] = rows.assign(seeds=[1, *rows["seeds"][1:]]).iloc[:-1]
    assert sentences.plan_answer(results).text.startswith(
        f"Study 'small': {arms - 2} of the {arms} planned arms have run. 2 have not"
    )
    told = sentences.runs_answer(study_results()).text
    assert told.startswith(f"Study 'small': of {8 * arms} runs {arms} named a single class for every case; 1 was ended")
    clean = with_table("arms", rows.assign(collapsed=0, at_limit=0))
    assert "none named a single class" in sentences.runs_answer(clean).text
    without = {**PLAN["arms"][1], "name": "image, no finding", "experiment": "no_finding", "scans": "no finding"}
    plan = PLAN | {"arms": [*PLAN["arms"], without]}
    assert sentences.leak_answer(study_results(plan)).text.startswith("An interval of kappa above 0, so a leak: Im")
    table = study_results(plan).tables["arms"].assign(kappa=0.01, kappa_low=-0.1, kappa_high=0.1)
    told = sentences.leak_answer(with_table("arms", table, plan)).text
    assert (
        told.startswith("No interval of kappa is above 0. Kappa: ImageNet only, no finding")
        and "0.01 (-0.10 to 0.10)" in told
    )


def test_classes_are_told_by_their_scores():
    results = study_results()
    table = results.tables["per_class"]
    table.loc[table["class"] == "Focal", ["recall", "recall_low", "recall_high"]] = 0.1, 0.0, 0.2
    table.loc[table["class"] == "Miliary", ["recall", "recall_low", "recall_high"]] = 0.9, 0.8, 1.0
    told = sentences.classes_title(results, "recall", "recall")
    assert told == "Lowest recall: Focal, 0.10; highest: Miliary, 0.90 (mean over arms)"
    lines = sentences.classes_answer(results, "recall", "recall").text.splitlines()
    assert len(lines) == 3 and "ImageNet only: lowest recall Focal 0.10 (0.00 to 0.20)" in lines[1]
    counts = results.tables["confusion"]
    counts.loc[(counts["true"] == "Focal") & (counts["predicted"] == "Miliary"), "count"] = 57
    told = sentences.confusion_title(results, "image")
    assert told == "Most often mistaken: Focal for Miliary, 57% of Focal"


@pytest.mark.parametrize("by, told", [(0.1, "more sure than right"), (-0.1, "less sure than right"), (0, "about as")])
def test_calibration_is_told_by_confidence_against_accuracy(by, told):
    results = study_results()
    table = results.tables["calibration"]
    results.tables["calibration"] = table.assign(accuracy=table["confidence"] - by)
    assert told in sentences.calibration_title(results)
    assert "ImageNet only 0.10" in sentences.calibration_answer(results).text


def test_importance_is_told_against_chance():
    rows = [
        {"arm": arm, "measure": "share", "observed": 0.5, "observed_low": 0.4, "observed_high": 0.6, "chance": 0.45}
        | {"gain_low": low, "gain_high": high}
        for arm, low, high in (("video", 0.01, 0.1), ("image", -0.1, 0.1), ("random", -0.2, -0.1))
    ]
    told = sentences.evidence_title(with_table("evidence", rows))
    assert "above chance (ImageNet + videos); below chance (random weights); not distinguishable from chance" in told
    only = sentences.evidence_answer(with_table("evidence", rows[1:2])).text
    assert "above" not in only and "0.50 (0.40 to 0.60), chance 0.45" in only


def test_every_answer_of_a_study_that_was_not_run_is_a_sentence_that_says_so():
    answers = {name: make for name, make in vars(sentences).items() if name.endswith("_answer")}
    assert len(answers) == 13
    more = {"classes_answer": ["recall", "recall"]}
    for name, make in answers.items():
        for results in (bare_results(), study_results(NODULES, tables={})):
            told = make(results, *more.get(name, ()))
            assert isinstance(told, ResultTable) and told.table is None
            assert "not run yet" in told.text or ": 0 of the" in told.text, name
    assert (sentences.listed("abc"), sentences.listed("a"), sentences.listed([])) == ("a, b and c", "a", "")
