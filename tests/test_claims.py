"""The published numbers: complete, sourced, and the same wherever the book repeats them."""

import re
from pathlib import Path

import pytest

from viptt_core import constants
from viptt_core.claims import load_claims, parse_claim
from viptt_core.errors import SettingError

ROOT = Path(__file__).resolve().parents[1]


def test_the_headline_numbers_are_those_of_the_abstract():
    claims = load_claims()
    assert (claims["kappa_scratch"].value, claims["kappa_pretrained"].value) == (0.17, 0.35)
    assert claims["kappa_scratch"].value == constants.PAPER_KAPPA_SCRATCH
    assert claims["kappa_pretrained"].value == constants.PAPER_KAPPA_PRETRAINED
    assert claims["kappa_test"].value == constants.PAPER_KAPPA_TEST and claims["place_test"].value == 2
    assert claims["rare_classes"].value is None


def test_the_first_page_repeats_the_published_numbers():
    claims = load_claims()
    table = re.findall(r"^\| (.+?) \| (.+?) \| ([PC, ]+) \|$", (ROOT / "book" / "intro.md").read_text("utf-8"), re.M)
    told = {what: value for what, value, _ in table}
    for what, name in (("kappa on validation scans, trained from scratch", "kappa_scratch"),
                       ("kappa on validation scans, pretrained on videos", "kappa_pretrained"),
                       ("kappa on the hidden test scans of ImageCLEF 2021, second place", "kappa_test")):  # fmt: skip
        assert float(told[what]) == claims[name].value
    assert f"reads {claims['clips'].value:g}" in told["activity videos used for pretraining"]
    text = (ROOT / "book" / "intro.md").read_text("utf-8").replace("\n", " ")
    assert f"pretraining took {claims['ucf_p100'].run['hours']} hours" in text
    assert f"final training on scans {claims['tb_final'].run['hours']:.2f} hours" in text


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
    [({"claim": "x"}, "lacks source"), ({"claim": "x", "source": "M"}, "source of .a. 'M' does not exist"),
     ({"claim": "x", "source": "P", "valeu": 1}, "Did you mean 'value'")],
)  # fmt: skip
def test_mistaken_entries_are_refused(table, message):
    with pytest.raises(SettingError, match=message):
        parse_claim("a", table)
