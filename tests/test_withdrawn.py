"""A study that is withdrawn: its mark stands beside every number of it, and it takes part in no verdict."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from ledgers import write_arms, write_contrasts, write_record
from small_study import TABLES, nodule_results
from test_figures_study import drawing

from viptt_core.figures import Picture
from viptt_core.figures.claim import claim_chart
from viptt_core.study import arms, report
from viptt_core.study.claims import load_claims
from viptt_core.study.ledger import ledger_text, status
from viptt_core.study.outcomes import WITHDRAWN, read_committed
from viptt_core.study.plan import load_study
from viptt_core.study.report import verdict

ROOT = Path(__file__).resolve().parents[1]
REASON = "read in a mirror"
MARK = f"{WITHDRAWN}: {REASON}"
VERDICTS = ("better", "worse", "cannot be told apart", "helps", "hurts", "interval lies")


@pytest.fixture(scope="module")
def withdrawn():
    return dataclasses.replace(nodule_results(), record={WITHDRAWN: REASON})


def withdraw(root, study):
    """Withdraw a study below a root."""
    path = root / "results" / study / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {WITHDRAWN: REASON}))


def test_the_study_of_nodules_is_withdrawn_and_its_one_plan_is_still_the_committed_one():
    results = read_committed("lidc", ROOT)
    assert results.withdrawn == "withdrawn: read along the wrong axis" and results.follows_plan
    assert not read_committed("synthetic", ROOT).withdrawn


def test_every_table_of_a_withdrawn_study_is_marked_and_says_nothing_is_better(withdrawn):
    for show in (*TABLES, report.plan_table):
        shown = show(withdrawn)
        if shown.table is None and show is not verdict:
            continue
        text = str(shown)
        assert MARK in shown.text, show.__name__
        assert not any(word in text for word in VERDICTS), show.__name__
        assert WITHDRAWN not in str(show(nodule_results())), show.__name__


def test_every_picture_of_a_withdrawn_study_is_marked(withdrawn):
    drawn = {name: draw(withdrawn) for name, draw in drawing().items()}
    drawn = {name: picture for name, picture in drawn.items() if isinstance(picture, Picture)}
    assert len(drawn) > 7
    for name, picture in drawn.items():
        assert picture.alt.endswith(f"These numbers are {MARK}."), name
        assert MARK in [text.get_text() for text in picture.figure.texts], name
    assert WITHDRAWN not in drawing()["replication_chart"](nodule_results()).alt


def test_the_ledger_marks_a_withdrawn_study_and_draws_no_verdict_from_it(tmp_path):
    folder = write_record(tmp_path, "lidc")
    write_contrasts(folder, ("starts", "kappa", "video", "random", 0.0811, 0.0211, 0.1411))
    write_arms(folder, image=(0.5, 0.4, 0.6))
    assert "video against random: helps" in ledger_text(tmp_path)
    withdraw(tmp_path, "lidc")
    page = ledger_text(tmp_path)
    assert "helps, the" not in page
    assert f"**video against random: nothing is said ({MARK})**" in page
    assert f"| LIDC-IDRI ({MARK}) | `image` | 0.50 (0.40 to 0.60) |" in page


def test_a_withdrawn_study_reproduces_nothing(tmp_path):
    write_arms(write_record(tmp_path, "paper"), **{"image, as the authors": (0.2, 0.1, 0.3)})
    claim = load_claims()["kappa_scratch"]
    assert status(claim, read_committed("paper", tmp_path)) == "reproduced"
    withdraw(tmp_path, "paper")
    assert status(claim, read_committed("paper", tmp_path)) == f"not attempted: {MARK}"
    assert "0.20 (0.10 to 0.30)" not in ledger_text(tmp_path)


def test_the_first_picture_follows_the_record(tmp_path):
    shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.npz"))
    withdraw(tmp_path, "lidc")
    assert "nodules" not in claim_chart(tmp_path).alt
    record = tmp_path / "results" / "lidc" / "study.json"
    record.write_text(
        json.dumps({key: value for key, value in json.loads(record.read_text()).items() if key != WITHDRAWN})
    )
    picture = claim_chart(tmp_path)
    assert "lung nodules" in picture.alt and "results/lidc/arms.csv" in picture.data


def test_packing_the_runs_of_the_same_plan_again_keeps_the_mark(tmp_path, monkeypatch):
    study, made = load_study("lidc"), nodule_results().outcomes["lidc"]
    runs = made.runs.assign(plan=study.digest)
    monkeypatch.setattr(arms, "arm_file", lambda *_: ROOT / "results" / "lidc" / "lidc.npz")
    monkeypatch.setattr(arms, "read_outcomes", lambda path: dataclasses.replace(made, runs=runs))
    folder = tmp_path / "results" / "lidc"
    folder.mkdir(parents=True)
    for plan, kept in ((study.digest, True), ("another", False)):
        record = {"plan": plan, "plan_file": "viptt_core/study/plans/lidc.toml", WITHDRAWN: REASON}
        (folder / "study.json").write_text(json.dumps(record))
        arms.pack(study, folder)
        assert (WITHDRAWN in json.loads((folder / "study.json").read_text())) is kept
