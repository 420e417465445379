"""A study that is withdrawn: its mark stands beside every number of it, and it takes part in no verdict."""

import dataclasses
import json
import re
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
from viptt_core.study.outcomes import WITHDRAWN, read_committed, read_table
from viptt_core.study.plan import load_study
from viptt_core.study.report import verdict

ROOT = Path(__file__).resolve().parents[1]
REASON = "read in a mirror"
MARK = f"{WITHDRAWN}: {REASON}"
# An estimate as pages show it, spaces of any kind: "0.57 (0.50 to 0.63)", signed or not.
ESTIMATE = re.compile(r"([-+]?\d\.\d+)\s\(([-+]?\d\.\d+)\sto\s([-+]?\d\.\d+)\)")
STUDIES = {path.parent.name for path in (ROOT / "results").glob("*/study.json")}
PAGES = [
    ROOT / "README.md",
    ROOT / "MODEL_CARD.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "book").glob("*.md")),
    *sorted((ROOT / "book" / "notebooks").glob("*.ipynb")),
]
VERDICTS = ("better", "worse", "cannot be told apart", "helps", "hurts", "interval lies")


def estimates(study):
    """All estimates of a study's tables, as numbers to two and to three digits."""
    found = set()
    for path in (ROOT / "results" / study).glob("*.csv"):
        table = read_table(path)
        for low in [name for name in table if name.endswith("low")]:
            stem = low.removesuffix("low")
            for value in [stem.rstrip("_")] if stem else ["value", "difference", "accuracy", "points", "kappa"]:
                if value in table:
                    rows = table[[value, low, f"{stem}high"]].itertuples(index=False, name=None)
                    found |= {tuple(round(number, digits) + 0.0 for number in row) for row in rows for digits in (2, 3)}
    return found


def blocks(path):
    """Pieces of a page, each with what a reader sees together with it.

    Of a notebook the outputs; of Markdown the paragraphs, and the rows of tables with what stands above and below.
    """
    if path.suffix == ".ipynb":
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                texts = ["".join(text) for text in output.get("data", {}).values() if isinstance(text, list | str)]
                yield from zip(texts, texts, strict=True)
        return
    pieces = path.read_text(encoding="utf-8").split("\n\n")
    for number, piece in enumerate(pieces):
        if not piece.startswith("|"):
            yield piece, piece
            continue
        around = " ".join([*pieces[max(number - 1, 0) : number], *pieces[number + 1 : number + 2]])
        yield from ((row, f"{row} {around}") for row in piece.splitlines())


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


@pytest.mark.parametrize("study", sorted(STUDIES))
def test_every_committed_page_marks_the_numbers_of_a_withdrawn_study(study):
    mark = read_committed(study, ROOT).withdrawn
    if not mark:
        return
    others = set().union(*map(estimates, STUDIES - {study}))
    own, seen, bare = estimates(study) - others, set(), []
    for path in PAGES:
        for piece, together in blocks(path):
            numbers = {tuple(map(float, found)) for found in ESTIMATE.findall(piece)} & own
            seen |= {path.name} if numbers else set()
            bare += [(path.name, sorted(numbers))] if numbers and mark not in " ".join(together.split()) else []
    assert bare == []
    assert {"claims.md", "03_ablations.ipynb"} <= seen
    assert not seen & {"intro.md", "README.md"}


def test_what_is_told_of_the_nodules_in_sentences_is_marked_and_not_on_the_first_pages():
    mark = read_committed("lidc", ROOT).withdrawn
    assert f"overlap ({mark})." in (ROOT / "book" / "background_radiology.md").read_text(encoding="utf-8")
    assert mark in (ROOT / "book" / "limitations.md").read_text(encoding="utf-8")
    index = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert f"| `lidc_demo.csv` | **{mark}**" in index and f"`lidc` (**{mark}**)" in index
    for page in ("README.md", "book/intro.md"):
        told = (ROOT / page).read_text(encoding="utf-8").lower()
        assert not any(word in told for word in ("nodule", "lidc", "real ct")), page


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
