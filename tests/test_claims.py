"""The published numbers: complete, sourced, and the same wherever the package repeats them."""

import pytest

from viptt_core import constants
from viptt_core.errors import SettingError
from viptt_core.sources import registry
from viptt_core.study.ledger import load_claims, parse_claim
from viptt_core.study.plan import load_study


def test_the_headline_numbers_are_those_of_the_abstract_and_the_gain_is_their_difference():
    claims = load_claims()
    headline = ("kappa_scratch", "kappa_pretrained", "kappa_test", "place_test", "rare_classes", "kappa_gain")
    assert [claims[name].value for name in headline] == [0.17, 0.35, 0.20, 2, None, 0.18]
    assert claims["kappa_scratch"].value == constants.PAPER_KAPPA_SCRATCH
    assert claims["kappa_pretrained"].value == constants.PAPER_KAPPA_PRETRAINED
    assert claims["kappa_test"].value == constants.PAPER_KAPPA_TEST
    assert [claim.name for claim in claims.values() if claim.difference_of] == ["kappa_gain"]


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


@pytest.mark.parametrize("claim", load_claims().values(), ids=lambda claim: claim.name)
def test_a_claim_says_what_it_needs_how_to_get_there_or_why_not_and_its_answers_are_planned(claim):
    assert claim.needs in {source.name for source in registry.load_registry().values()}
    assert bool(claim.command) != bool(claim.why)
    answers = [claim.answer] if claim.answer else []
    assert claim.command or not answers
    for answer in answers:
        assert set(answer) == {"table", "column", "row"}
        study, row = load_study("paper"), answer["row"]
        for key in {"arm", "baseline"} & set(row):
            study.arm(row[key])
        if answer["table"] == "contrasts":
            families = [family for family in study.families if family.measure == row["measure"]]
            pairs = [tuple(pair) for family in families for pair in family.contrasts]
            assert (row["arm"], row["baseline"]) in pairs


def test_the_study_paper_is_on_the_papers_data():
    paper = load_study("paper")
    assert (paper.scans["dataset"], paper.sources["videos"]["dataset"]) == ("imageclef", "ucf50")
