"""The claim ledger: what counts as reproduced, what a verdict says, and that the committed page is up to date."""

import math
from pathlib import Path

import pandas as pd
import pytest
from ledgers import write_arms, write_contrasts, write_record

from viptt_core.errors import DataError, SettingError
from viptt_core.study.claims import load_claims
from viptt_core.study.ledger import PAGE, ledger_text, status
from viptt_core.study.outcomes import read_committed
from viptt_core.study.plan import load_study
from viptt_core.study.report import sentence

ROOT = Path(__file__).resolve().parents[1]
OURS = {"image, as the authors": (0.2, 0.1, 0.3), "video, as the authors": (0.2, 0.1, 0.3)}
AUTHORS = ("video, as the authors", "image, as the authors")
PRIMARY = (load_study("synthetic").primary.arm, load_study("synthetic").primary.baseline)


def contrast(low, high, **more):
    return pd.Series({"arm": "a", "baseline": "b", "low": low, "high": high, "p_holm": 0.01} | more)


def statuses(root):
    return {name: status(claim, read_committed("paper", root)) for name, claim in load_claims().items()}


def fill(root):
    """Results of all three studies."""
    paper = write_record(root, "paper")
    write_arms(paper, **OURS)
    write_contrasts(
        paper,
        ("primary", "kappa", "video", "image", 0.0123, -0.0456, 0.0789),
        ("rare classes", "rare recall", *AUTHORS, 0.21, 0.11, 0.31),
    )
    synthetic = write_record(root, "synthetic")
    write_arms(synthetic, image=(0.1234, 0.0456, 0.2345), random=(0.3, 0.2, 0.4))
    write_contrasts(
        synthetic,
        ("primary", "kappa", *PRIMARY, 0.05, -0.0004, 0.1),
        (
            "label efficiency",
            "kappa",
            "video, 75 scans",
            "image, 75 scans",
            -0.2,
            -0.3,
            -0.1,
            "video, 600 scans",
            "image, 600 scans",
        ),
    )
    factors = {
        "factor": ["naive gap", "start"],
        "points": [0.1877, 0.0512],
        "low": [0.1, 0.01],
        "high": [0.2, 0.09],
        "percent": [100, 27.3],
    }
    pd.DataFrame(factors).to_csv(synthetic / "attribution.csv", index=False)
    lidc = write_record(root, "lidc")
    write_contrasts(lidc, ("starts", "kappa", "video", "random", 0.0811, 0.0211, 0.1411))
    pd.DataFrame({"arm": ["image"]}).to_csv(lidc / "missing.csv", index=False)
    pd.DataFrame(
        {"arm": ["video"], "baseline": ["random"], "difference": [0.0812], "low": [-0.1], "high": [0.26], "p": [0.0004]}
    ).to_csv(lidc / "folds.csv", index=False)


def test_a_published_value_inside_our_interval_is_reproduced_and_outside_differs(tmp_path):
    write_arms(write_record(tmp_path, "paper"), **OURS)
    found = statuses(tmp_path)
    assert (found["kappa_scratch"], found["kappa_pretrained"]) == ("reproduced", "differs")


@pytest.mark.parametrize(
    "ends, text",
    [((0.01, 0.2), "reproduced"), ((-0.2, -0.01), "differs"), ((-0.1, 0.2), "undecided: the interval includes 0")],
)
def test_a_claim_without_a_number_is_judged_by_the_sign(tmp_path, ends, text):
    write_contrasts(write_record(tmp_path, "paper"), ("rare classes", "rare recall", *AUTHORS, 0.0, *ends))
    assert statuses(tmp_path)["rare_classes"] == text


def test_the_gain_is_computed_and_answered_by_the_contrast_of_the_authors_arms(tmp_path):
    folder = write_record(tmp_path, "paper")
    write_contrasts(
        folder,
        ("primary", "kappa", "video", "image", 0.9, 0.8, 1.0),
        ("gains", "kappa", *AUTHORS, 0.9, 0.8, 1.0, "video", "image"),
        ("the paper's comparison", "kappa", *AUTHORS, 0.1, 0.0, 0.2),
    )
    assert statuses(tmp_path)["kappa_gain"] == "reproduced"
    row = "pretraining | 0.18 (computed) | P | +0.100 (+0.000 to +0.200), 3 seeds | reproduced |"
    assert f"| Gain in validation kappa by {row}" in ledger_text(tmp_path)


def test_synthetic_and_open_results_never_reproduce_a_claim(tmp_path):
    hit = {"image": (0.17, 0.0, 1.0), "random": (0.17, 0.0, 1.0), "video": (0.35, 0.0, 1.0)}
    for name in ("synthetic", "lidc"):
        write_arms(write_record(tmp_path, name), **hit)
    assert all(text.startswith("not attempted: ") for text in statuses(tmp_path).values())
    assert "0.17 (0.00 to 1.00)" in ledger_text(tmp_path)  # it stands beside


def test_results_of_another_plan_than_the_one_there_do_not_count(tmp_path):
    write_arms(write_record(tmp_path, "paper", plan="f" * 16), **OURS)
    assert "another plan" in statuses(tmp_path)["kappa_scratch"]
    assert "These results follow another plan" in ledger_text(tmp_path)


@pytest.mark.parametrize(
    "row, text",
    [
        (contrast(0.01, 0.2), "a against b: helps, the interval lies above 0"),
        (contrast(-0.2, -0.01), "a against b: hurts, the interval lies below 0"),
        (contrast(0.0, 0.2), "a against b: cannot be told apart, the interval includes 0"),
        (
            contrast(0.01, 0.2, p_holm=0.2),
            "a against b: helps, the interval lies above 0, though not after correcting for the other contrasts of its "
            "family",
        ),
        (
            contrast(0.01, 0.2, arm2="c", baseline2="d"),
            "(a against b) against (c against d): helps, the interval lies above 0",
        ),
        (contrast(math.nan, math.nan), "a against b: nothing is said (no interval)"),
    ],
)
def test_a_verdict_follows_from_the_interval(row, text):
    assert sentence(row) == text


def test_each_study_shows_plan_verdict_families_and_attribution(tmp_path):
    fill(tmp_path)
    page = ledger_text(tmp_path)
    assert f"digest `{load_study('synthetic').digest}`, frozen in commit `0123abc`" in page
    assert "git log --format='%h %ad %s' -- plans/synthetic.toml" in page
    primary = f"{PRIMARY[0]} against {PRIMARY[1]}"
    assert f"**{primary}: cannot be told apart, the interval includes 0**" in page
    assert f"| `{primary}` | 3 | +0.050 (+0.000 to +0.100) | 0.037 | cannot be told apart |" in page
    assert (
        "| `(video, 75 scans against image, 75 scans) against (video, 600 scans against image, 600 scans)` "
        "| 3 | -0.200 (-0.300 to -0.100) |"
    ) in page
    assert "| `video against random` | +0.081 (-0.100 to +0.260) | < 0.001 | cannot be told apart |" in page
    assert "| naive gap | +0.188 (+0.100 to +0.200) | 100 % |" in page
    assert "Planned arms without runs: `image`." in page
    assert "[contrasts.csv](../results/lidc/contrasts.csv)" in page
    assert (
        "| Kappa on validation scans, trained from scratch | 0.17 | P | 0.20 (0.10 to 0.30), 3 seeds | reproduced |"
        in page
    )


def test_the_rule_for_seeds_tells_whether_its_width_was_reached(tmp_path):
    folder = write_record(tmp_path, "synthetic")
    for low, said in ((0.01, "It is as narrow as that"), (-0.2, "It is not as narrow as that")):
        write_contrasts(folder, ("primary", "kappa", *PRIMARY, 0.05, low, 0.1))
        assert said in ledger_text(tmp_path)


def test_the_committed_page_is_what_would_be_written_now():
    assert (ROOT / PAGE).read_text(encoding="utf-8") == ledger_text(ROOT), (
        "book/claims.md is not up to date: viptt study ledger"
    )


def test_a_damaged_record_and_a_missing_column_are_told(tmp_path):
    folder = write_record(tmp_path, "paper")
    (folder / "arms.csv").write_text("armed,kappa\nx,0.1\n")
    with pytest.raises(SettingError, match=r"column of arms.csv 'arm' does not exist"):
        ledger_text(tmp_path)
    (folder / "study.json").write_text("{")
    with pytest.raises(DataError, match=r"study\.json: cannot be read"):
        ledger_text(tmp_path)
