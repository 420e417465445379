"""The claim ledger: what counts as reproduced, and that what is committed is up to date."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from small_study import contrast

from viptt_core.errors import DataError, SettingError
from viptt_core.study.ledger import (
    PAGES,
    load_claims,
    page_text,
    published_table,
    scores_table,
    status,
    studies_text,
    write_pages,
)
from viptt_core.study.plan import PLANS, load_study
from viptt_core.study.report import open_results
from viptt_core.study.verdict import VERDICTS

ROOT = Path(__file__).resolve().parents[1]
OURS = {"image, as the authors": (0.2, 0.1, 0.3), "video, as the authors": (0.2, 0.1, 0.3)}
AUTHORS = ("video, as the authors", "image, as the authors")


def write_record(root, name, **changes):
    """A study's plan and its `study.json` below a root, without tables; returns `results/NAME`."""
    plan, folder = root / "plans" / f"{name}.toml", root / "results" / name
    for made in (plan.parent, folder):
        made.mkdir(parents=True, exist_ok=True)
    shutil.copy(PLANS / f"{name}.toml", plan)
    record = {"plan": load_study(str(plan)).digest, "plan_file": f"plans/{name}.toml", "plan_commit": "0123abc"}
    (folder / "study.json").write_text(json.dumps(record | changes))
    return folder


def write_arms(folder, **arms):
    """`arms.csv`: by arm its kappa with low and high."""
    table = pd.DataFrame.from_dict(arms, orient="index", columns=["kappa", "kappa_low", "kappa_high"])
    table = table.rename_axis("arm").reset_index().assign(experiment="e", start="image", seeds=3, n=184)
    table = table.assign(accuracy=0.5, accuracy_low=0.4, accuracy_high=0.6)
    table.to_csv(folder / "arms.csv", index=False)


def write_contrasts(folder, *rows):
    pd.DataFrame(rows).to_csv(folder / "contrasts.csv", index=False)


def statuses(root):
    return {name: status(claim, open_results("paper", folder=root)) for name, claim in load_claims().items()}


def test_a_published_value_inside_our_interval_is_reproduced_and_outside_differs(tmp_path):
    write_arms(write_record(tmp_path, "paper"), **OURS)
    found = statuses(tmp_path)
    assert (found["kappa_scratch"], found["kappa_pretrained"]) == ("reproduced", "differs")
    row = "Kappa on validation scans, trained from scratch | 0.17 | P | 0.20 (0.10 to 0.30), 3 seeds | reproduced"
    assert f"| {row} |" in published_table(tmp_path)


@pytest.mark.parametrize(
    "difference, text",
    [(0.11, "reproduced"), (-0.11, "differs"), (0.05, "undecided: the interval includes 0")],
)
def test_a_claim_without_a_number_is_judged_by_the_sign(tmp_path, difference, text):
    row = contrast("rare types", ("video", "image"), difference, measure="rare recall")
    write_contrasts(write_record(tmp_path, "paper"), row)
    assert statuses(tmp_path)["rare_classes"] == text


def test_the_gain_is_computed_and_answered_by_the_contrast_of_the_authors_arms(tmp_path):
    write_contrasts(
        write_record(tmp_path, "paper"),
        contrast("primary", ("video", "image"), 0.9),
        contrast("gains", (*AUTHORS, "video", "image"), 0.9),
        contrast("the authors' arms", AUTHORS, 0.1),
    )
    row = "pretraining | 0.18 (computed) | P | +0.100 (+0.000 to +0.200), 8 seeds | reproduced |"
    assert f"| Gain in validation kappa by {row}" in published_table(tmp_path)


def test_synthetic_results_never_reproduce_a_claim(tmp_path):
    write_arms(write_record(tmp_path, "synthetic"), image=(0.17, 0.0, 1.0), video=(0.35, 0.0, 1.0))
    assert all(text.startswith("not attempted: ") for text in statuses(tmp_path).values())
    assert "| Synthetic data | ImageNet only | 184 | 3 | 0.17 (0.00 to 1.00) |" in scores_table(tmp_path)


def test_results_of_another_plan_than_the_one_there_do_not_count(tmp_path):
    write_arms(write_record(tmp_path, "paper", plan="f" * 16), **OURS)
    assert "another plan" in statuses(tmp_path)["kappa_scratch"]
    assert "These results follow another plan" in studies_text(tmp_path)


def test_each_study_shows_its_plan_answers_families_and_attribution(tmp_path):
    folder = write_record(tmp_path, "synthetic")
    few, many = ([f"{start}, {n} scans" for start in ("video", "image")] for n in (75, 900))
    study = load_study("synthetic")
    write_contrasts(
        folder,
        contrast("primary", study.primary, 0.05, "no gain of 0.10 or more", reach=0.0504),
        contrast("number of labelled scans", (*few, *many), -0.2, "harms", level=0.99),
    )
    gap = {"factor": "naive gap", "points": 0.1877, "low": 0.1, "high": 0.2, "level": 0.9875, "percent": 100}
    pd.DataFrame([gap, gap | {"factor": "start", "percent": 27.3}]).to_csv(folder / "attribution.csv", index=False)
    (folder / "missing.csv").write_text("arm\nimage\n")
    page = studies_text(tmp_path)
    for text in (
        f"digest `{study.digest}`, frozen in commit `0123abc`",
        "| ImageNet + videos against ImageNet only | kappa | 8 | 60 | +0.050 (+0.000 to +0.100) | 95.0% | no",
        "| (ImageNet + videos, 75 scans against ImageNet only, 75 scans) against (ImageNet + videos, 900 scans ",
        "| naive gap | +0.188 (+0.100 to +0.200) | 98.8% | 100 |",
        "**Planned and not run.**\n\n| arm |\n| --- |\n| image |",
        "[contrasts.csv](../results/synthetic/contrasts.csv)",
    ):
        assert text in page, text


def test_pages_hold_the_answers_of_all_studies(tmp_path):
    study = load_study("synthetic")
    rows = [contrast(family.name, names, 0.05) for family in study.families for names in family.contrasts]
    write_contrasts(write_record(tmp_path, "synthetic"), *rows)
    for page in PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    assert write_pages(tmp_path) == [tmp_path / page for page in (VERDICTS, *PAGES)]
    records = json.loads((tmp_path / VERDICTS).read_text())["questions"]
    assert len(records) == len(rows)
    for record in records:
        line = f"- {record['question']} {record['sentence']}\n"
        assert line in (tmp_path / "book" / "claims.md").read_text()
        assert (line in (tmp_path / "README.md").read_text()) == record["primary"]


@pytest.mark.parametrize("page", [VERDICTS, *PAGES])
def test_what_is_committed_is_what_would_be_written_now(page):
    committed = (ROOT / page).read_text(encoding="utf-8")
    assert committed == page_text(page, ROOT), f"{page} is not up to date: viptt study ledger"


def test_a_page_without_a_place_for_what_is_computed_is_told_and_kept(tmp_path):
    (tmp_path / "README.md").write_text("# A readme\n")
    with pytest.raises(DataError, match="lacks the comments around its verdict"):
        write_pages(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# A readme\n"


def test_a_column_that_is_missing_is_told(tmp_path):
    (write_record(tmp_path, "paper") / "arms.csv").write_text("armed,kappa\nx,0.1\n")
    with pytest.raises(SettingError, match=r"column of arms.csv 'arm' does not exist"):
        published_table(tmp_path)
