"""The claim ledger: what counts as reproduced, and that what is committed is up to date."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from small_study import contrast

from viptt_core.errors import DataError, SettingError
from viptt_core.study.ledger import (
    PAGES,
    first_answer,
    headline,
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
from viptt_core.study.verdict import HARMS, HELPS, NO_GAIN, UNDECIDED, VERDICTS, verdicts_json

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
        "| ImageNet + videos against ImageNet only | +0.050 (+0.000 to +0.100) | no gain of 0.10 or more | kappa |",
        "| (ImageNet + videos, 75 scans against ImageNet only, 75 scans) against (ImageNet + videos, 900 scans ",
        "| all changes together | +0.188 (+0.100 to +0.200) | 98.8% | 100 |",
        "**Planned and not run.**\n\n| arm |\n| --- |\n| ImageNet only |",
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
    page, asked = (tmp_path / "book" / "claims.md").read_text(), {record["question"] for record in records}
    for question in asked:
        (bullet,) = re.findall(rf"^- \*\*{re.escape(question)}\*\*(.*(?:\n  - .*)*)", page, flags=re.M)
        said = [line.strip().removeprefix("- ") for line in bullet.strip().split("\n")]
        assert said == [record["sentence"] for record in records if record["question"] == question]
    assert {page.count(f"**{question}**") for question in asked} == {1}


# --- The first page ------------------------------------------------------------------------------------------
def write_verdict(root, low, high, verdict, **changes):
    """A `verdict.json` of one primary contrast below a root; returns its record."""
    record = {"study": "synthetic", "data": "synthetic", "primary": True, "question": "?", "verdict": verdict}
    record |= {"arm": "video", "baseline": "image", "arm2": "", "baseline2": "", "measure": "kappa"}
    record |= {"difference": (low + high) / 2, "low": low, "high": high, "level": 0.95, "seeds": 20, "n": 2000}
    record |= {"sentence": "Harms. ImageNet + videos against ImageNet only: kappa."} | changes
    (root / VERDICTS).parent.mkdir(exist_ok=True)
    (root / VERDICTS).write_text(verdicts_json([record]))
    return record


@pytest.mark.parametrize(
    "low, high, verdict, holds, said",
    [
        (-0.05, -0.01, HARMS, "not where", "lowers kappa by 0.030 (95 % interval 0.010 to 0.050)."),
        (0.01, 0.05, HELPS, "yes, where", "raises kappa by 0.030 (95 % interval 0.010 to 0.050)."),
        (-0.09, 0.01, NO_GAIN, "not where", "changes kappa by -0.040 (95 % interval -0.090 to +0.010): no gain of"),
        (-0.1, 0.3, UNDECIDED, "not shown", "changes kappa by +0.100 (95 % interval -0.100 to +0.300): undecided."),
        (-0.1, 0.3, "", "open.", "changes kappa by +0.100 (95 % interval -0.100 to +0.300): no verdict (2 seeds)."),
    ],
)
def test_the_first_answer_follows_from_the_verdict_and_a_direction_in_words_has_no_sign(
    tmp_path, low, high, verdict, holds, said
):
    sentence = f"{verdict.capitalize() or 'No verdict (2 seeds)'}. ImageNet + videos against ImageNet only: kappa."
    record = write_verdict(tmp_path, low, high, verdict, sentence=sentence)
    answer = first_answer(tmp_path).replace("\N{NO-BREAK SPACE}", " ")
    assert f"- **Our answer:** {holds}" in answer and f"{headline([record]).partition('. ')[2]}." in answer
    assert f"  - On simulated scans, pretraining on videos {said}" in answer
    assert "20 seeds on 2,000 simulated scans (synthetic)." in answer and "kappa 0.35 instead of 0.17" in answer


def test_verdicts_that_disagree_are_one_answer():
    records = {verdict: {"verdict": verdict} for verdict in (HARMS, HELPS, NO_GAIN, UNDECIDED, "")}
    for verdicts, found in {
        (HELPS, NO_GAIN): "a gain in some tests and not in others",
        (HARMS, NO_GAIN, ""): "no gain of 0.10 or more",
        (HARMS, UNDECIDED): "no gain so far, and cannot exclude one",
        (HARMS,): "a loss",
        (): "nothing that decides yet",
    }.items():
        said = headline([records[verdict] for verdict in verdicts])
        assert said == f"The paper reports a gain of 0.18. With all else equal, we find {found}"


def test_the_papers_own_scans_stay_open_until_they_were_tried(tmp_path):
    write_verdict(tmp_path, -0.05, -0.01, HARMS)
    assert "- **Still open:** the paper's own scans" in first_answer(tmp_path)
    sentence = "Helps, and the paper's gain of 0.18 lies outside. ImageNet + videos against ImageNet only."
    write_verdict(tmp_path, 0.01, 0.05, HELPS, study="paper", sentence=sentence)
    answer = first_answer(tmp_path)
    assert "- **Still open:** other videos" in answer and "0.050), and the paper's gain of 0.18 lies outside." in answer


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
