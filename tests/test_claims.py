"""The published numbers: complete, sourced, and the same wherever the book repeats them."""

from pathlib import Path

import pytest

from viptt_core import constants
from viptt_core.errors import SettingError
from viptt_core.sources import registry
from viptt_core.study.claims import load_claims, parse_claim
from viptt_core.study.plan import MEASURES, load_study

ROOT = Path(__file__).resolve().parents[1]


def test_the_headline_numbers_are_those_of_the_abstract():
    claims = load_claims()
    assert (claims["kappa_scratch"].value, claims["kappa_pretrained"].value) == (0.17, 0.35)
    assert claims["kappa_scratch"].value == constants.PAPER_KAPPA_SCRATCH
    assert claims["kappa_pretrained"].value == constants.PAPER_KAPPA_PRETRAINED
    assert claims["kappa_test"].value == constants.PAPER_KAPPA_TEST and claims["place_test"].value == 2
    assert claims["rare_classes"].value is None


def test_every_training_log_is_consistent():
    runs = {name: claim.run for name, claim in load_claims().items() if claim.run}
    assert len(runs) == 6
    for name, run in runs.items():
        assert 1 <= run["best_epoch"] <= run["epochs"], name
        assert ("accuracy" in run) != ("micro_auc" in run), name
        hours = run["epochs"] * run["seconds_per_epoch"] / 3600
        assert hours == pytest.approx(run["hours"], rel=0.07), name  # the median of an epoch, not its mean


@pytest.mark.parametrize(
    "table, message",
    [
        ({"claim": "x"}, "lacks source"),
        ({"claim": "x", "source": "M"}, "source of .a. 'M' does not exist"),
        ({"claim": "x", "source": "P", "valeu": 1}, "Did you mean 'value'"),
    ],
)
def test_mistaken_entries_are_refused(table, message):
    with pytest.raises(SettingError, match=message):
        parse_claim("a", table)


def test_a_gain_is_the_difference_of_two_published_values():
    claims = load_claims()
    assert claims["kappa_gain"].value == 0.18 and claims["kappa_gain"].difference_of
    assert [c.name for c in claims.values() if c.difference_of] == ["kappa_gain"]


def test_every_claim_says_what_it_needs_and_how_to_get_there_or_why_not():
    names = {source.name for source in registry.load_registry().values()}
    for claim in load_claims().values():
        assert claim.needs in names, claim.name
        assert bool(claim.command) != bool(claim.why), claim.name
        assert not claim.answer or claim.command, claim.name


def test_answers_name_arms_and_contrasts_of_the_plans():
    for claim in load_claims().values():
        for answer in [claim.answer, *claim.beside] if claim.answer else claim.beside:
            study = load_study(answer.study)
            for key in {"arm", "baseline"} & set(answer.row):
                study.arm(answer.row[key])
            if answer.table == "contrasts":
                pairs = [
                    pair
                    for family in study.families
                    if family.measure == answer.row["measure"]
                    for pair in family.contrasts
                ]
                assert answer.row["measure"] in MEASURES
                assert [answer.row["arm"], answer.row["baseline"]] in [list(pair) for pair in pairs], claim.name


def test_only_the_study_on_the_papers_data_answers():
    for claim in load_claims().values():
        assert claim.answer is None or claim.answer.study == "paper"
        assert all(answer.study != "paper" for answer in claim.beside)
    paper = load_study("paper")
    assert (paper.scans["dataset"], paper.videos["dataset"]) == ("imageclef", "ucf50")
