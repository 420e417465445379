"""The page on one's own data: its commands are run as they are printed, at a smaller size."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from commands import block_commands, blocks, is_run, reduced, run
from files import write_scan, write_weights

from viptt_core.prediction.scans import predict_scans
from viptt_core.prediction.weights import WEIGHTS
from viptt_core.synthetic.folders import own_scans

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "book" / "own_data.md").read_text(encoding="utf-8")
SHORT, _, TEXT = PAGE.partition("## What you need")  # its commands are shown again below, where they run
PLACEHOLDER = "RUN"  # the reader's choice from `viptt weights list`


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which the page's relative paths mean what they say, as in the repository's top folder."""
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.setenv("VIPTT_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_all_steps_in_their_order():
    begun = [" ".join(words[:2]) for words in block_commands(TEXT)]
    steps = ["viptt phantom", "viptt data", "papermill notebooks/02_finetune.py"]
    steps += [f"viptt {step}" for step in ("summary", "weights", "predict", "score")]
    assert sorted(steps, key=begun.index) == steps
    assert set(re.findall(r"^```(\w*)$", TEXT, flags=re.M)) == {"bash", "python", "text", ""}  # nothing runs unseen


def test_the_short_answer_at_the_top_has_the_commands_of_the_steps_in_their_order():
    short = block_commands(SHORT)
    assert [words for words in block_commands(TEXT) if words in short] == short and len(short) == 5
    (block,) = blocks(SHORT, "bash")
    assert max(map(len, block.splitlines())) <= 37  # a telephone shows no more of a line


def test_the_table_of_the_page_is_the_examples():
    header = own_scans(2, 2).rows[0]
    assert f"```text\n{header}\n" in TEXT
    own = next(words for words in block_commands(TEXT) if words[:2] == ["viptt", "data"])
    assert {own[own.index(column) + 1] for column in ("--label-column", "--patient-column")} < set(header.split(","))


def test_the_uncertainties_are_those_of_the_binomial():
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ± (\d+) points \|$", TEXT, flags=re.M)
    assert len(rows) == 4
    for patients, tested, points in (map(int, row) for row in rows):
        assert tested == patients // 5 and points == round(100 * 1.96 * 0.5 / tested**0.5)


def test_the_warnings_of_the_page_are_those_of_the_program(folder):
    grid = {"frames": 24, "training": {"grey_levels": [0.9, 0.95]}}
    write_weights(folder / "runs" / PLACEHOLDER / WEIGHTS, classes=("ill", "well"), **grid)
    write_scan(folder / "odd" / "holes.nii", nan_voxels=3)
    flat = np.full((12, 12, 11), -500, np.int16)
    flat[0] = -1000
    tissue = np.linspace(-150, 150, flat.size).reshape(flat.shape).astype(np.int16)
    volumes = {"narrow": (flat[:, :6], np.eye(4)), "grey": (flat + 1000, np.eye(4)), "tissue": (tissue, np.eye(4))}
    images = {name: nib.Nifti1Image(*volume) for name, volume in volumes.items()}
    images["two"] = nib.Nifti1Image(flat, np.eye(4))
    images["two"].set_qform(np.diag([-1, 1, 1, 1]), "scanner")
    for name, image in images.items():
        nib.save(image, folder / "odd" / f"{name}.nii")
    predictions = predict_scans(PLACEHOLDER, "odd", n_jobs=1, progress=False)
    said = [warning for of_scan in predictions.warnings for warning in of_scan]
    table = TEXT.split("| warning |")[1].split("\n\n")[0]
    phrases = [part for cell in re.findall(r"^\| ([^|]+) \|", table, flags=re.M) for part in cell.split("; ")]
    for phrase in phrases:
        pattern = re.sub(r"\d[\d.]*", "NUMBER", phrase.replace("...", "ANY"))
        pattern = re.escape(pattern).replace("NUMBER", r"[\d.]+").replace("ANY", ".*")
        assert any(re.search(pattern, warning) for warning in said), f"{phrase}: {said}"
    assert len(phrases) == 9


def test_the_page_works_from_its_first_command_to_its_last(folder, capsys):
    name, printed = PLACEHOLDER, {}
    for words in block_commands(TEXT):
        if not is_run(words) or "authors-tbt" in words:  # those weights are a download
            continue
        words = [name if word == PLACEHOLDER else word for word in reduced(words)]
        code, text = run(words)
        assert code == 0, f"{words}: {text}"
        printed[" ".join(words[:3])] = text
        if words[1:] == ["weights", "list"]:
            shape = re.search(r"^```text\n(finetune-.*)\n```$", TEXT, flags=re.M)[1]  # the page's line, but for numbers
            pattern = re.sub(r"'demo'", "'study'", re.sub(r"\(\d+ scans\)", r"(N scans)", shape))
            pattern = re.escape(pattern).replace("N", r"\d+").replace("0123456789abcdef", "[0-9a-f]+")
            name = next(line for line in text.splitlines() if re.fullmatch(pattern, line)).split()[0]
    predicted = pd.read_csv("predictions.csv")
    documented = re.findall(r"^\| `(\w+)` \|", TEXT.split("## Predict new scans")[1].split("## ")[0], flags=re.M)
    classes = list(predicted)[2:-4]
    assert len(predicted) == 6 and predicted["error"].isna().all() and predicted["warnings"].isna().all()
    assert list(predicted) == [*documented[:2], *classes, *documented[2:]] and len(classes) == 5
    assert printed["viptt data check"].startswith("SOUND")
    for scores in ("viptt summary out.ipynb", "viptt score predictions.csv"):
        assert "kappa (95 % interval)" in printed[scores]

    (lines,), left = blocks(TEXT, "python"), {}
    assert f'"{PLACEHOLDER}"' in lines
    exec(lines.replace(f'"{PLACEHOLDER}"', repr(name)), left)
    assert capsys.readouterr().out.endswith("0 could not be read\n")
    assert left["predictions"].probabilities.shape == (1, 6, 5)
    pd.testing.assert_frame_equal(pd.read_csv("predictions.csv"), predicted)

    scan = Path("data/new/scan_002.nii.gz")  # damaged: the others are predicted, and the exit code says so
    scan.write_bytes(scan.read_bytes()[:500])
    words = next(words for words in block_commands(TEXT) if words[:2] == ["viptt", "predict"])
    code, _ = run([name if word == PLACEHOLDER else word for word in reduced(words)])
    predicted = pd.read_csv("predictions.csv")
    assert code == 1 and predicted["error"].notna().tolist() == [False, True, False, False, False, False]
    assert predicted["class"].notna().tolist() == [True, False, True, True, True, True]
