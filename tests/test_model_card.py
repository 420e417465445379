"""The model card: whole, written for use in research alone, and without a number that no file gives."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from viptt_core.study.ledger import page_text

ROOT = Path(__file__).resolve().parents[1]
CARD = "MODEL_CARD.md"
TEXT = (ROOT / CARD).read_text(encoding="utf-8")
TABLE = TEXT.partition("<!-- scores -->\n")[2].partition("\n<!-- end of scores -->")[0]
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


def test_the_table_is_made_anew_and_nothing_else(root):
    (root / CARD).write_text(TEXT.replace(TABLE, ""), encoding="utf-8")
    assert page_text(CARD, root) == TEXT, "not up to date: viptt study ledger"


def test_use_on_patients_is_ruled_out_and_numbers_are_marked_synthetic_and_stand_in_the_table_alone():
    for text in (TEXT.split("\n## ")[0], part(TEXT, "Intended use")):
        plain = " ".join(text.split()).lower()
        words = ("not a medical device", "research", "diagnosis", "triage", "treatment", "screening")
        assert all(word in plain for word in words)
    assert "*Synthetic data" in part(TEXT, "Quantitative analyses").partition("<!-- scores -->")[0]
    plain = NAMES.sub(" ", re.sub(r"\]\([^)]*\)", " ", TEXT.replace(TABLE, "")))
    assert re.findall(r".*\d.*", plain) == []


@pytest.mark.parametrize("column", ["n", "kappa_low"])
def test_a_number_changed_in_a_table_changes_the_card(root, column):
    path = root / "results" / "02_finetune.csv"
    table = pd.read_csv(path)
    table.assign(**{column: table[column] + (0.25 if table[column].dtype == float else 7)}).to_csv(path, index=False)
    assert page_text(CARD, root) != TEXT


def test_links_of_the_card_lead_to_files_of_the_repository():
    inside = [link for link in re.findall(r"\]\(([^)]*)\)", TEXT) if not link.startswith("https://")]
    # The book's page includes the card, and turns links that start so.
    assert len(inside) > 4 and all(link.startswith("./") and (ROOT / link).is_file() for link in inside)
    page = (ROOT / "book" / "model_card.md").read_text(encoding="utf-8")
    assert "```{include} ../MODEL_CARD.md\n:relative-docs: ./\n```" in page
