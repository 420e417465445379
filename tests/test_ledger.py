"""The claim ledger: what counts as reproduced, and that the committed page is up to date."""

from pathlib import Path

import pandas as pd
import pytest
from ledgers import write_arms, write_contrasts, write_record

from viptt_core.errors import DataError, SettingError
from viptt_core.study.claims import load_claims
from viptt_core.study.ledger import PAGE, ledger_text, status
from viptt_core.study.outcomes import read_committed
from viptt_core.study.plan import load_study

ROOT = Path(__file__).resolve().parents[1]
OURS = {"image, as the authors": (0.2, 0.1, 0.3), "video, as the authors": (0.2, 0.1, 0.3)}
AUTHORS = ("video, as the authors", "image, as the authors")
PRIMARY = (load_study("synthetic").primary.arm, load_study("synthetic").primary.baseline)


def statuses(root):
    return {name: status(claim, read_committed("paper", root)) for name, claim in load_claims().items()}


def test_a_published_value_inside_our_interval_is_reproduced_and_outside_differs(tmp_path):
    write_arms(write_record(tmp_path, "paper"), **OURS)
    found = statuses(tmp_path)
    assert (found["kappa_scratch"], found["kappa_pretrained"]) == ("reproduced", "differs")
    row = "Kappa on validation scans, trained from scratch | 0.17 | P | 0.20 (0.10 to 0.30), 3 seeds | reproduced"
    assert f"| {row} |" in ledger_text(tmp_path)


@pytest.mark.parametrize(
    "ends, text",
    [((0.01, 0.2), "reproduced"), ((-0.2, -0.01), "differs"), ((-0.1, 0.2), "undecided: the interval includes 0")],
)
def test_a_claim_without_a_number_is_judged_by_the_sign(tmp_path, ends, text):
    write_contrasts(write_record(tmp_path, "paper"), ("rare classes", "rare recall", *AUTHORS, 0.0, *ends))
    assert statuses(tmp_path)["rare_classes"] == text


def test_the_gain_is_computed_and_answered_by_the_contrast_of_the_authors_arms(tmp_path):
    write_contrasts(
        write_record(tmp_path, "paper"),
        ("primary", "kappa", "video", "image", 0.9, 0.8, 1.0),
        ("gains", "kappa", *AUTHORS, 0.9, 0.8, 1.0, "video", "image"),
        ("the paper's comparison", "kappa", *AUTHORS, 0.1, 0.0, 0.2),
    )
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


def test_each_study_shows_plan_verdict_families_and_attribution(tmp_path):
    synthetic, lidc = (write_record(tmp_path, name) for name in ("synthetic", "lidc"))
    few, many = ([f"{start}, {n} scans" for start in ("video", "image")] for n in (75, 600))
    write_contrasts(
        synthetic,
        ("primary", "kappa", *PRIMARY, 0.05, -0.0004, 0.1),
        ("label efficiency", "kappa", *few, -0.2, -0.3, -0.1, *many),
    )
    gap = {"factor": "naive gap", "points": 0.1877, "low": 0.1, "high": 0.2, "percent": 100}
    pd.DataFrame([gap, gap | {"factor": "start", "percent": 27.3}]).to_csv(synthetic / "attribution.csv", index=False)
    write_contrasts(lidc, ("starts", "kappa", "video", "random", 0.0811, 0.0211, 0.1411))
    (lidc / "missing.csv").write_text("arm\nimage\n")
    (lidc / "folds.csv").write_text("arm,baseline,difference,low,high,p\nvideo,random,0.0812,-0.1,0.26,0.0004\n")
    page, primary = ledger_text(tmp_path), " against ".join(PRIMARY)
    for text in (
        f"digest `{load_study('synthetic').digest}`, frozen in commit `0123abc`",
        "git log --format='%h %ad %s' -- plans/synthetic.toml",
        f"**{primary}: cannot be told apart, the interval includes 0**",
        f"| `{primary}` | 3 | +0.050 (+0.000 to +0.100) | 0.037 | cannot be told apart |",
        "| `(video, 75 scans against image, 75 scans) against (video, 600 scans against image, 600 scans)` "
        "| 3 | -0.200 (-0.300 to -0.100) |",
        "| `video against random` | +0.081 (-0.100 to +0.260) | < 0.001 | cannot be told apart |",
        "| naive gap | +0.188 (+0.100 to +0.200) | 100 % |",
        "Planned arms without runs: `image`.",
        "[contrasts.csv](../results/lidc/contrasts.csv)",
    ):
        assert text in page, text


def test_the_rule_for_seeds_tells_whether_its_width_was_reached(tmp_path):
    folder = write_record(tmp_path, "synthetic")
    for low, said in ((0.01, "It is as narrow as that"), (-0.2, "It is not as narrow as that")):
        write_contrasts(folder, ("primary", "kappa", *PRIMARY, 0.05, low, 0.1))
        assert said in ledger_text(tmp_path)


def test_the_committed_page_is_what_would_be_written_now():
    committed = (ROOT / PAGE).read_text(encoding="utf-8")
    assert committed == ledger_text(ROOT), "book/claims.md is not up to date: viptt study ledger"


def test_a_damaged_record_and_a_missing_column_are_told(tmp_path):
    folder = write_record(tmp_path, "paper")
    (folder / "arms.csv").write_text("armed,kappa\nx,0.1\n")
    with pytest.raises(SettingError, match=r"column of arms.csv 'arm' does not exist"):
        ledger_text(tmp_path)
    (folder / "study.json").write_text("{")
    with pytest.raises(DataError, match=r"study\.json: cannot be read"):
        ledger_text(tmp_path)
