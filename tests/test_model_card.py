"""The model card: whole, written for use in research alone, and without a number that no file gives."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from viptt_core.cli import main
from viptt_core.errors import DataError
from viptt_core.study.ledger import CARD, END_OF_SCORES, SCORES, card_text, write_page
from viptt_core.study.outcomes import WITHDRAWN

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / CARD).read_text(encoding="utf-8")
TABLE = TEXT.partition(SCORES)[2].partition(END_OF_SCORES)[0]
# Digits that are part of a name, of a version or of a year.
NAMES = re.compile(
    r"(?i:ucf50)|VGG16|Keras 2\b|TF 2\.4\.1|HDF5|\.h5\b|\bF1\b|CC BY 3\.0|\b(?:2010|2011|2019|2021)\b|95 %"
)


@pytest.fixture
def root(tmp_path):
    """The committed tables, without the predictions, and the card."""
    shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.npz"))
    shutil.copy(ROOT / CARD, tmp_path)
    return tmp_path


def part(text, heading):
    """What stands below a heading, up to the next one of its level."""
    return re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text, flags=re.M | re.S)[1]


def test_the_committed_card_is_what_the_command_writes_which_is_the_table_and_nothing_else(root, monkeypatch, capsys):
    monkeypatch.setenv("VIPTT_ROOT", str(root))
    (root / CARD).write_text(TEXT.replace(TABLE, ""), encoding="utf-8")
    assert main(["study", "card"]) == 0
    assert capsys.readouterr().out.strip() == str(root / CARD)
    assert (root / CARD).read_bytes() == (ROOT / CARD).read_bytes(), "not up to date: viptt study card"


def test_use_on_patients_is_ruled_out_and_numbers_are_marked_synthetic_and_stand_in_the_table_alone():
    for text in (TEXT.split("\n## ")[0], part(TEXT, "Intended use")):
        plain = " ".join(text.split()).lower()
        words = ("not a medical device", "research", "diagnosis", "triage", "treatment", "screening")
        assert all(word in plain for word in words)
    assert "*Synthetic data" in part(TEXT, "Quantitative analyses").partition(SCORES)[0]
    plain = NAMES.sub(" ", re.sub(r"\]\([^)]*\)", " ", TEXT.replace(TABLE, "")))
    assert re.findall(r".*\d.*", plain) == []


@pytest.mark.parametrize("column", ["n", "kappa_low"])
def test_a_number_changed_in_a_table_changes_the_card(root, column):
    path = root / "results" / "synthetic" / "arms.csv"
    table = pd.read_csv(path)
    table.assign(**{column: table[column] + (0.25 if table[column].dtype == float else 7)}).to_csv(path, index=False)
    assert card_text(root) != TEXT


def test_a_withdrawn_study_has_no_row(root):
    record = root / "results" / "lidc" / "study.json"
    assert "LIDC" not in TABLE
    record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != WITHDRAWN}))
    assert card_text(root).count("| LIDC-IDRI | ") == 3


def test_a_card_without_a_place_for_the_table_is_told_and_kept(root):
    (root / CARD).write_text("# Model card\n")
    with pytest.raises(DataError, match="lacks the two comments"):
        write_page(CARD, root)
    assert (root / CARD).read_text() == "# Model card\n"


def test_links_of_the_card_lead_to_files_of_the_repository():
    inside = [link for link in re.findall(r"\]\(([^)]*)\)", TEXT) if not link.startswith("https://")]
    # The book's page includes the card, and turns links that start so.
    assert len(inside) > 4 and all(link.startswith("./") and (ROOT / link).is_file() for link in inside)
    page = (ROOT / "book" / "model_card.md").read_text(encoding="utf-8")
    assert "```{include} ../MODEL_CARD.md\n:relative-docs: ./\n```" in page
