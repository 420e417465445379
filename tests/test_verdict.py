"""What studies conclude: the rule case by case, the gate, the primary contrast, the sentences and their file."""

import json

import numpy as np
import pandas as pd
import pytest
from small_study import NODULES, PLAN, SEEDS, contrast, outcomes

from viptt_core.errors import DataError
from viptt_core.study.plan import parse_study
from viptt_core.study.tables import make_tables
from viptt_core.study.verdict import VERDICTS, decide, make_verdicts, read_verdicts, verdicts_json


@pytest.mark.parametrize(
    "low, high, verdict, changed",
    [
        (-0.05, -0.01, "harms", {}),
        (0.01, 0.05, "helps", {}),  # below 0.10, and yet it helps
        (0.15, 0.30, "helps", {}),
        (-0.05, 0.09, "no gain of 0.10 or more", {}),
        (-0.05, 0.10, "undecided", {}),
        (-0.30, 0.40, "undecided", {}),
        (0.0, 0.05, "no gain of 0.10 or more", {}),  # an end on 0 excludes nothing
        (-0.05, 0.0, "no gain of 0.10 or more", {}),
        (-0.05, 0.09, "undecided", {"measure": "rare recall"}),
        (-0.05, 0.09, "undecided", {"classes": 2}),
        (-0.05, -0.01, "harms", {"measure": "rare recall", "classes": 2}),
        (0.01, 0.05, "helps", {"seeds": 8}),
        (0.01, 0.05, "", {"seeds": 7}),
        (np.nan, np.nan, "", {}),
    ],
)
def test_the_rule(low, high, verdict, changed):
    assert decide(low, high, **({"measure": "kappa", "classes": 5, "seeds": 20} | changed)) == verdict


def made(plan, *rows, learned=None):
    """Verdicts of rows; `learned` is {(arm, source): bool}."""
    sources = pd.DataFrame([{"arm": arm, "source": name, "learned": ok} for (arm, name), ok in (learned or {}).items()])
    tables = {"contrasts": pd.DataFrame(rows), "sources": sources}
    return make_verdicts(parse_study("small", plan, "small.toml"), tables, synthetic=plan is PLAN)


def test_a_sentence_holds_numbers_interval_level_seeds_cases_and_data():
    found = made(
        PLAN,
        contrast("primary", ("video", "image"), 0.12345, "helps"),
        contrast("primary", ("video", "image"), 0.4, "helps"),
        contrast("against random", ("video", "random"), 0.4, "helps", level=0.975),
        contrast("label efficiency", ("video, 75 scans", "image, 75 scans", "video", "image"), np.nan),
        contrast("label efficiency", ("video, 75 scans", "image, 75 scans", "video", "image"), -0.0001, ""),
    )
    videos, small = (
        "ImageNet + videos against ImageNet only",
        "ImageNet + videos, 75 scans against ImageNet only, 75 scans",
    )
    counts = "; 8 seeds, 60 synthetic test cases)."
    assert [record["sentence"] for record in found] == [
        f"Helps, and the paper's gain of 0.18 lies inside. {videos}: kappa +0.123 "
        f"(95 % interval +0.023 to +0.223{counts}",
        f"Helps, and the paper's gain of 0.18 lies outside. {videos}: kappa +0.400 "
        f"(95 % interval +0.300 to +0.500{counts}",
        "Helps. ImageNet + videos against random weights: kappa +0.400 (97.5 % interval +0.300 to +0.500" + counts,
        f"No verdict (fewer than 8 seeds). ({small}) against ({videos}): kappa +0.000 "
        f"(95 % interval -0.100 to +0.100{counts}",
    ]
    assert [record["primary"] for record in found] == [True, False, False, False]


ROWS = (
    contrast("primary", ("image+both", "image"), 0.2, ""),
    contrast("each", ("image+UT", "image"), 0.3, "helps"),
    contrast("each", ("image+both", "image+UT"), 0.1, ""),
)
BOTH = {("image+UT", "UT"): True, ("image+both", "UT"): True, ("image+both", "fights"): True}


@pytest.mark.parametrize(
    "changed, primary, failed",
    [
        ({}, 0, ""),
        ({("image+both", "fights"): False}, 1, "CCTV fights"),
        ({("image+both", "fights"): False, ("image+UT", "UT"): False}, 0, "CCTV fights"),  # none passes: no verdict
        ({("image+both", "fights"): False, ("image+both", "UT"): False}, 1, "UT and CCTV fights"),
    ],
)
def test_the_gate_names_what_was_not_learned_and_hands_the_question_to_the_source_that_was(changed, primary, failed):
    found = made(NODULES, *ROWS, learned=BOTH | changed)
    assert [record["primary"] for record in found].index(True) == primary
    assert sum(record["primary"] for record in found) == 1
    said = f"No verdict (not learned: {failed})" if failed else "No verdict (fewer than 8 seeds)"
    assert said in found[0]["sentence"] and "real test cases" in found[0]["sentence"]
    ungated = made(NODULES | {"gate": False}, *ROWS)
    assert ungated[0]["primary"] and "learned" not in ungated[0]["sentence"]
    assert "not learned: UT and CCTV fights" in made(NODULES, *ROWS)[0]["sentence"]  # never tested is not learned


def test_the_file_holds_every_record_and_is_read_again(tmp_path):
    found = made(NODULES, *ROWS, learned=BOTH)
    assert read_verdicts(tmp_path) == []
    path = tmp_path / VERDICTS
    path.parent.mkdir()
    path.write_text(verdicts_json(found))
    assert read_verdicts(tmp_path) == found == json.loads(path.read_text())["questions"]
    wanted = "study data family question arm baseline arm2 baseline2 measure difference low high level seeds n verdict"
    assert list(found[0]) == [*wanted.split(), "sentence", "primary"]
    path.write_text("{")
    with pytest.raises(DataError, match=r"verdict\.json"):
        read_verdicts(tmp_path)


def test_an_arm_whose_plan_is_not_run_to_its_end_has_no_verdict_yet(monkeypatch):
    monkeypatch.setattr("viptt_core.statistics.SIMULATIONS", 200)
    plan = PLAN | {"seeds": SEEDS + 2}
    study, runs = parse_study("mine", plan, "mine.toml"), {"primary": outcomes()}
    row = make_tables(study, runs)["contrasts"].iloc[0]
    assert (row["seeds"], row["verdict"]) == (SEEDS, "")
    (said, *_) = make_verdicts(study, make_tables(study, runs), synthetic=True)
    assert f"No verdict ({SEEDS} of {SEEDS + 2} seeds have run)" in said["sentence"]
    whole = parse_study("mine", PLAN, "mine.toml")
    assert make_tables(whole, runs)["contrasts"].iloc[0]["verdict"] != ""
