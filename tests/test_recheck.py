"""Rechecking: what is committed is computed again, every way of tampering is told, and torch is not needed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from viptt_core.cli import main
from viptt_core.study import recheck as module
from viptt_core.study.ledger import CARD, PAGE, write_page
from viptt_core.study.outcomes import RUN_COLUMNS, Outcomes, write_outcomes
from viptt_core.study.plan import load_study
from viptt_core.study.recheck import recheck, write_study
from viptt_core.study.tables import make_tables

PLAN = """
about = "Two arms"
preset = "study"
seeds = 2
[scans]
dataset = "phantom"
[videos]
dataset = "actions"
[primary]
arm = "video"
baseline = "random"
[[arms]]
name = "random"
experiment = "both"
start = "random"
[[arms]]
name = "video"
experiment = "both"
start = "video"
[[families]]
name = "primary"
question = "Does it help?"
contrasts = [["video", "random"]]
"""
CLASSES = tuple("abcde")  # not those of the benchmark, whose table of power takes seconds


def two_arms(digest):
    """Predictions of two arms with two seeds on 40 cases, one right more often than the other."""
    draw, labels = np.random.default_rng(0), np.arange(40) % 5
    runs = pd.DataFrame(
        [
            dict.fromkeys(RUN_COLUMNS, 1)
            | {
                "arm": arm,
                "seed": seed,
                "fold": 0,
                "learning_rate": 0.001,
                "stopped_early": True,
                "device": "cpu",
                "run": f"{arm}{seed}",
                "commit": "0123abc",
                "plan": digest,
                "epoch_limit": 9,
                "pretrain_run": f"p{seed}" if arm == "video" else "",
                "pretrain_accuracy": 0.5 + seed / 10 if arm == "video" else np.nan,
                "pretrain_classes": 10 if arm == "video" else np.nan,
            }
            for arm in ("random", "video")
            for seed in (0, 1)
        ]
    )
    scores = draw.random((4, 40, 5))
    scores[:, np.arange(40), labels] += np.array([0.1, 0.2, 0.6, 0.7])[:, None]
    scores = (scores / scores.sum(axis=-1, keepdims=True)).astype(np.float16)
    names = np.array([f"scan{i:02d}" for i in range(40)])
    return Outcomes(names, names, labels, CLASSES, runs, scores, synthetic=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    plan = tmp_path_factory.mktemp("plan") / "synthetic.toml"
    plan.write_text(PLAN)
    return make_tables(load_study(str(plan)), {"both": two_arms("")})


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A repository with the results of one small study, tables and pages written."""
    root = tmp_path_factory.mktemp("committed")
    plan, folder = root / "plans" / "synthetic.toml", root / "results" / "synthetic"
    plan.parent.mkdir()
    plan.write_text(PLAN)
    study = load_study(str(plan))
    write_outcomes(folder / "both.npz", two_arms(study.digest))
    write_study(study, root)
    (folder / "study.json").write_text(json.dumps({"plan": study.digest, "plan_file": "plans/synthetic.toml"}))
    write_page(PAGE, root)
    shutil.copy(Path(__file__).parents[1] / CARD, root)
    write_page(CARD, root)
    return root


@pytest.fixture
def root(committed, tmp_path):
    return shutil.copytree(committed, tmp_path / "root")


@pytest.fixture
def quick(made, monkeypatch):
    """Tables without their bootstraps, for what does not depend on the predictions."""
    monkeypatch.setattr(module, "make_tables", lambda *_: made)


def test_what_was_committed_is_identical_without_torch_and_matplotlib(committed):
    code = (
        "import sys; from pathlib import Path; from viptt_core.study.recheck import recheck\n"
        "found = recheck(root=Path(sys.argv[1]))\n"
        "print([m for m in ('torch', 'torchvision', 'matplotlib') if m in sys.modules], found)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(committed)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] []"
    assert "synthetic: contrasts identical" in done.stdout and f"{PAGE.as_posix()}: identical" in done.stdout
    assert "MODEL_CARD.md: identical" in done.stdout


def test_predictions_that_were_changed_make_tables_differ(root, capsys):
    path = root / "results" / "synthetic" / "both.npz"
    changed = module.read_outcomes(path)
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
    differences = recheck(root=root)
    assert any("contrasts" in difference for difference in differences)
    assert any("confusion" in difference for difference in differences)
    assert any(difference.startswith("book/claims.md: line ") for difference in differences)


@pytest.mark.usefixtures("quick")
def test_a_plan_that_changed_after_the_runs_is_told(root):
    plan = root / "plans" / "synthetic.toml"
    plan.write_text(PLAN.replace("seeds = 2", "seeds = 3"))
    differences = recheck(root=root)
    assert any("study.json is of plan" in difference for difference in differences)
    assert any("both.npz holds runs of another plan" in difference for difference in differences)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", [PAGE, CARD])
def test_a_page_edited_by_hand_is_told_by_its_line(root, name, capsys):
    page = root / name
    page.write_text(re.sub(r"0\.\d\d ", "0.99 ", page.read_text(), count=1))
    (difference,) = recheck(root=root)
    assert "0.99" in difference and difference.startswith(f"{name.as_posix()}: line ")
    assert f"{name.as_posix()}: differs" in capsys.readouterr().out
    page.unlink()
    assert recheck(root=root)[0].startswith(f"{name.as_posix()}: ")


@pytest.mark.usefixtures("quick")
def test_a_page_that_cannot_be_computed_is_told_and_the_others_are_compared(root, capsys):
    (root / "results" / "02_finetune.csv").write_bytes(b"")
    (difference,) = recheck(root=root)
    assert difference.startswith("MODEL_CARD.md: ") and "02_finetune.csv: cannot be read" in difference
    assert "book/claims.md: identical" in capsys.readouterr().out


def test_a_damaged_file_is_told_and_the_rest_is_checked(root):
    (root / "results" / "synthetic" / "both.npz").write_bytes(b"PK")
    (difference,) = recheck(root=root)
    assert difference.startswith("synthetic: ") and "both.npz" in difference


def test_packing_makes_the_tables_of_committed_predictions_again(root, monkeypatch):
    monkeypatch.setenv("VIPTT_ROOT", str(root))
    table = root / "results" / "synthetic" / "arms.csv"
    before = table.read_bytes()
    table.unlink()
    assert main(["study", "pack", str(root / "plans" / "synthetic.toml")]) == 0 and table.read_bytes() == before
