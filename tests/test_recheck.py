"""Rechecking: what is committed is computed again, every way of tampering is told, and torch is not needed."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from small_study import TOO_FEW, outcomes, write_plan

from viptt_core.cli import main
from viptt_core.study import recheck as module
from viptt_core.study.ledger import PAGES, write_pages
from viptt_core.study.outcomes import read_outcomes, write_outcomes
from viptt_core.study.plan import load_study
from viptt_core.study.recheck import recheck, write_study
from viptt_core.study.verdict import VERDICTS

CARD, PAGE = "MODEL_CARD.md", "book/claims.md"
CLASSES = tuple("abcde")  # not those of the benchmark, whose table of power takes seconds


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A repository with the results of one small study, tables and pages written; and its tables."""
    root = tmp_path_factory.mktemp("committed")
    folder = root / "results" / "synthetic"
    study = load_study(write_plan(root, TOO_FEW, "synthetic"))
    made = outcomes(("random", "video"), n=40, seeds=2, classes=CLASSES)
    made = replace(made, runs=made.runs.assign(plan=study.digest))
    write_outcomes(folder / "one.npz", made)
    (folder / "study.json").write_text(json.dumps({"plan": study.digest, "plan_file": "synthetic.toml"}))
    write_study(study, root)
    for page in PAGES:
        (root / page).parent.mkdir(exist_ok=True)
        shutil.copy(Path(__file__).parents[1] / page, root / page)
    write_pages(root)
    return root, module.make_tables(study, {"one": made})


@pytest.fixture
def root(committed, tmp_path):
    return shutil.copytree(committed[0], tmp_path / "root")


@pytest.fixture
def quick(committed, monkeypatch):
    """Tables without their bootstraps, for what does not depend on the predictions."""
    monkeypatch.setattr(module, "make_tables", lambda *_: committed[1])


def test_what_was_committed_is_identical_without_torch_and_matplotlib(root):
    code = (
        "import sys; from pathlib import Path; from viptt_core.study.recheck import recheck\n"
        "found = recheck(root=Path(sys.argv[1]))\n"
        "print([m for m in ('torch', 'torchvision', 'matplotlib') if m in sys.modules], found)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] []"
    for name in ("synthetic: contrasts", *(f"{page}:" for page in (VERDICTS, *PAGES))):
        assert f"{name} identical" in done.stdout


def test_predictions_that_were_changed_make_tables_differ(root, capsys):
    path = root / "results" / "synthetic" / "one.npz"
    changed = read_outcomes(path)
    changed.probabilities[0, :20] = changed.probabilities[0, :20, ::-1]
    write_outcomes(path, changed)
    assert any("arms" in difference for difference in recheck(root=root))
    assert "synthetic: arms differs" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_a_number_changed_in_a_table_and_a_table_that_is_missing_are_told(root):
    path = root / "results" / "synthetic" / "contrasts.csv"
    table = pd.read_csv(path)
    table.assign(difference=table["difference"] + 0.002).to_csv(path, index=False)
    path.with_name("confusion.csv").unlink()
    differences = "\n".join(recheck(root=root))
    assert "contrasts.csv: " in differences and "confusion.csv: there is no such file" in differences
    assert "\nbook/claims.md: line " in differences and "\nresults/verdict.json: line " in differences


@pytest.mark.usefixtures("quick")
def test_a_plan_that_changed_after_the_runs_is_told(root):
    write_plan(root, TOO_FEW | {"seeds": 3}, "synthetic")
    differences = "\n".join(recheck(root=root))
    assert "study.json is of plan" in differences and "one.npz holds runs of another plan" in differences


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", [VERDICTS, *PAGES])
def test_a_page_edited_by_hand_is_told_by_its_line(root, name, capsys):
    text = (root / name).read_text()
    number = r"\d\.\d\d \(" if name == CARD else "synthetic test cases|seeds on"
    changed = re.sub(number, "9.99 (", text, count=1)
    (root / name).write_text(changed)
    difference = recheck(root=root)[0]
    assert "9.99 (" in difference and difference.startswith(f"{name}: line ")
    assert f"{name}: differs" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "file, content, told, other",
    [
        ("02_finetune.csv", b"", r"^MODEL_CARD.md: .*02_finetune.csv: cannot be read", "README.md"),
        ("synthetic/one.npz", b"PK", r"^synthetic: .*one.npz", "MODEL_CARD.md"),
    ],
)
def test_a_damaged_file_is_told_and_the_rest_is_checked(root, capsys, file, content, told, other):
    (root / "results" / file).write_bytes(content)
    difference = recheck(root=root)[-1]
    assert re.search(told, difference) and f"{other}: identical" in capsys.readouterr().out


def test_packing_makes_the_tables_of_committed_predictions_again(root, monkeypatch):
    monkeypatch.setenv("VIPTT_ROOT", str(root))
    table = root / "results" / "synthetic" / "arms.csv"
    before = table.read_bytes()
    table.unlink()
    assert main(["study", "pack", str(root / "synthetic.toml")]) == 0 and table.read_bytes() == before
