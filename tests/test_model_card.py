"""The model card: whole, written for use in research alone, and without a number that no file gives."""

import json
import re
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest
from ledgers import write_arms, write_record

from viptt_core.cli import main
from viptt_core.constants import TB_CLASSES, UCF_CLASSES
from viptt_core.errors import DataError, SettingError
from viptt_core.presets import load_preset
from viptt_core.study.ledger import verdict
from viptt_core.study.model_card import PAGE, TEMPLATE, card_text, layer_parameters, write_card
from viptt_core.study.outcomes import WITHDRAWN

ROOT = Path(__file__).resolve().parents[1]
TEXT = resources.files("viptt_core.study").joinpath(TEMPLATE).read_text(encoding="utf-8")
SECTIONS = [
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Training data",
    "Evaluation data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
]
# Digits that are part of a name, of a version or of a year.
NAMES = re.compile(
    r"(?i:ucf50)|VGG16|Keras 2\b|TF 2\.4\.1|HDF5|\.h5\b|\bF1\b|CC BY 3\.0|\b(?:2010|2011|2019|2021)\b|"
    r"`class 0` and `class 1`"
)
ESTIMATE = re.compile(r"([-+]?\d+\.\d+) \(([-+]?\d+\.\d+) to ([-+]?\d+\.\d+)\)")
TRIPLES = [(name, f"{name}_low", f"{name}_high") for name in ("kappa", "accuracy", "precision", "recall", "f1")]
CSV = (
    "synthetic/arms",
    "synthetic/contrasts",
    "synthetic/per_class",
    "lidc/arms",
    "lidc/baselines",
    "lidc/contrasts",
    "lidc/per_class",
    "02_finetune",
)


@pytest.fixture
def root(tmp_path):
    """The committed tables, without the predictions."""
    shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.npz"))
    return tmp_path


@pytest.fixture
def standing(root):
    """The same, nothing of it withdrawn."""
    for path in (root / "results").glob("*/study.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in record.items() if key != WITHDRAWN}))
    return root


def change(root, file, **columns):
    """Apply a function to columns of a table."""
    path = root / "results" / f"{file}.csv"
    table = pd.read_csv(path)
    table.assign(**{name: apply(table[name]) for name, apply in columns.items()}).to_csv(path, index=False)


def changed_lines(root):
    return set(card_text(root).splitlines()) - set((ROOT / PAGE).read_text(encoding="utf-8").splitlines())


def part(text, heading):
    """What stands below a heading, up to the next one that is no deeper."""
    marks = re.search(rf"^(#+) {re.escape(heading)}$", text, flags=re.M)[1]
    return re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#{{2,{len(marks)}}} |\Z)", text, flags=re.M | re.S)[1]


def test_the_committed_card_is_what_would_be_written_now():
    assert (ROOT / PAGE).read_text(encoding="utf-8") == card_text(ROOT), "not up to date: viptt study card"


def test_the_command_writes_the_card(root, monkeypatch, capsys):
    monkeypatch.setenv("VIPTT_ROOT", str(root))
    assert main(["study", "card"]) == 0
    assert capsys.readouterr().out.strip() == str(root / PAGE)
    assert (root / PAGE).read_bytes() == (ROOT / PAGE).read_bytes()


def test_all_usual_sections_are_there_in_their_order():
    assert re.findall(r"^## (.*)$", card_text(ROOT), flags=re.M) == SECTIONS
    assert all(len(part(TEXT, section).split()) > 30 for section in SECTIONS)


def test_use_on_patients_is_ruled_out_at_the_top_and_among_the_uses():
    for text in (TEXT.split("\n## ")[0], part(TEXT, "Intended use")):
        plain = " ".join(text.split()).lower()
        assert "not a medical device" in plain
        assert all(word in plain for word in ("research", "diagnosis", "triage", "treatment", "screening"))


def test_synthetic_numbers_are_marked_in_their_sections():
    text = card_text(ROOT)
    for heading in ("C: synthetic scans", "C: the published fine-tuning page"):
        assert "*Synthetic data" in part(text, heading)


def test_no_number_is_typed_into_the_sentences():
    plain = NAMES.sub(" ", re.sub(r"\]\([^)]*\)|\{\w+\}", " ", TEXT))
    assert re.findall(r".*\d.*", plain) == []


def test_every_placeholder_is_filled():
    text = card_text(ROOT)
    assert "{" not in text and "nan" not in re.findall(r"\w+", text)


def test_every_estimate_is_a_row_of_a_table():
    tables = [pd.read_csv(ROOT / "results" / f"{name}.csv") for name in CSV]
    known = {
        tuple(round(value, 2) + 0 for value in row)
        for table in tables
        for triple in TRIPLES
        if set(triple) <= set(table)
        for row in table[list(triple)].itertuples(index=False, name=None)
    }
    known |= {
        tuple(round(value, 3) + 0 for value in row)
        for table in tables
        if "difference" in table
        for row in table[["difference", "low", "high"]].itertuples(index=False, name=None)
    }
    found = ESTIMATE.findall(card_text(ROOT).replace("\N{NO-BREAK SPACE}", " "))
    assert len(found) > 80
    assert [triple for triple in found if tuple(map(float, triple)) not in known] == []


@pytest.mark.parametrize(
    "file, column",
    [
        (file, column)
        for file in CSV
        for column in (
            ("difference", "high", "seeds")
            if "contrasts" in file
            else ("support", "precision", "recall_low", "f1_high")
            if "per_class" in file
            else ("n", "kappa", "accuracy_high")
            if file in ("lidc/baselines", "02_finetune")
            else ("n", "seeds", "kappa", "kappa_low", "accuracy", "ece")
        )
    ],
)
def test_a_number_changed_in_a_table_changes_the_card(root, file, column):
    assert changed_lines(root) == set()
    change(root, file, **{column: lambda values: values + (0.25 if values.dtype == float else 7)})
    assert changed_lines(root)


def test_numbers_of_tables_stand_beside_the_name_they_are_of(root):
    rows = pd.read_csv(root / "results" / "lidc" / "arms.csv").set_index("arm")
    text = card_text(root).replace("\N{NO-BREAK SPACE}", " ")
    for arm, row in rows.iterrows():
        kappa = f"{row.kappa:.2f} ({row.kappa_low:.2f} to {row.kappa_high:.2f})"
        assert f"| `{arm}` | {row.n} | {row.seeds} | {kappa} | " in text


def test_what_is_no_network_is_told_apart_from_what_is_one():
    shown = re.findall(r"^\| `([^|]*)` \|", part(card_text(ROOT), "C: the published fine-tuning page"), flags=re.M)
    assert shown == ["random", "video", "most frequent class (no network)", "PCA + logistic (no network)"]


def test_verdicts_are_those_of_the_ledger(standing):
    change(standing, "lidc/contrasts", low=lambda _: 0.1, high=lambda _: 0.3, p_holm=lambda _: 0.01)
    found = part(card_text(standing), "C: lung nodules (LIDC-IDRI)")
    assert "- `video` helps against `random`: the interval lies above 0. Kappa" in found
    assert "told apart" not in found
    for _, row in pd.read_csv(ROOT / "results/synthetic/contrasts.csv").fillna("").iterrows():
        if row["family"] in ("primary", "against random", "what pretraining needs", "order of slices"):
            assert f"- {verdict(row)}. Kappa" in card_text(ROOT)


@pytest.mark.parametrize(
    "low, high, said",
    [
        (-0.1, 0.1, "Nothing beside the findings"),
        (0.01, 0.2, "Something beside the findings"),
        (-0.2, -0.01, "worse than chance"),
        (None, None, "no interval"),
    ],
)
def test_the_control_without_findings_says_what_its_interval_says(root, low, high, said):
    change(root, "synthetic/arms", kappa_low=lambda _: low, kappa_high=lambda _: high)
    controls = re.findall(r"^- `.*, no finding`: .*$", card_text(root), flags=re.M)
    assert len(controls) == 2 and all(said in line for line in controls)


def test_the_best_of_a_table_is_named_and_each_other_row_once(standing):
    text = part(card_text(standing), "C: lung nodules (LIDC-IDRI)")
    sentence = re.search(r"The highest kappa.*", text)[0]
    arms = re.findall(r"^\| (`[^|]*`) \| 848", text, flags=re.M)
    assert len(arms) == 6 and sorted(re.findall(r"`[^`]*`", sentence)) == sorted(arms)
    assert "has `diameter_mm alone (no network)`. Its interval lies above that of `most frequent" in sentence
    change(standing, "lidc/arms", kappa=lambda _: 0.95, kappa_low=lambda _: 0.9, kappa_high=lambda _: 1.0)
    change(standing, "lidc/baselines", kappa_high=lambda _: 0.8)
    sentence = re.search(r"The highest kappa.*", part(card_text(standing), "C: lung nodules (LIDC-IDRI)"))[0]
    assert "has `random`. Its interval lies above those of `most" in sentence
    assert "overlaps those of `image` and `video`." in sentence


def test_the_weakest_class_of_each_arm_is_named(root):
    path = root / "results" / "lidc" / "per_class.csv"
    table = pd.read_csv(path)
    assert "Least recall: `random`: class 1 (0.73); `image`: class 1 (0.70); `video`: class 1" in card_text(root)
    table.loc[(table["arm"] == "image") & (table["class"] == "class 0"), "recall"] = 0.1
    table.to_csv(path, index=False)
    assert "Least recall: `random`: class 1 (0.73); `image`: class 0 (0.10);" in card_text(root)


def test_the_fate_of_published_numbers_is_that_of_the_ledger(tmp_path):
    write_arms(
        write_record(tmp_path, "paper"),
        **{"image, as the authors": (0.2, 0.1, 0.3), "video, as the authors": (0.2, 0.1, 0.3)},
    )
    text = card_text(tmp_path)
    assert "| Kappa on validation scans, trained from scratch | 0.17 | reproduced |" in text
    assert "| Kappa on validation scans, pretrained on videos | 0.35 | differs |" in text
    assert "| Kappa on the hidden test scans of ImageCLEF 2021 | 0.20 | not attempted |" in text


def test_without_results_the_card_says_so_and_holds_no_estimate(tmp_path):
    text = card_text(tmp_path)
    assert text.count("No results yet: `results/") >= 8
    assert not ESTIMATE.search(text.replace("\N{NO-BREAK SPACE}", " ")) and "[arms.csv]" not in text


def test_results_of_another_plan_are_told(root):
    assert "follow another plan" not in card_text(root)
    record = root / "results" / "lidc" / "study.json"
    record.write_text(re.sub(r'"plan": "\w+"', '"plan": "ffff"', record.read_text()))
    assert card_text(root).count("These results follow another plan") == 1


@pytest.mark.parametrize(
    "table, column",
    [
        ("synthetic/arms", "ece"),
        ("lidc/per_class", "f1_low"),
        ("lidc/contrasts", "p_holm"),
        ("02_finetune", "kappa_high"),
    ],
)
def test_a_missing_column_is_told_by_its_name_and_file(root, table, column):
    path = root / "results" / f"{table}.csv"
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(SettingError, match=f"column of {path.name} '{column}' does not exist"):
        write_card(root)
    assert not (root / PAGE).exists()


def test_a_damaged_table_is_told(root):
    (root / "results" / "02_finetune.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"02_finetune\.csv: cannot be read"):
        card_text(root)


@pytest.mark.parametrize("preset, classes", [("paper", UCF_CLASSES), ("paper", TB_CLASSES), ("study", TB_CLASSES)])
def test_the_weights_are_counted_as_the_network_has_them(preset, classes):
    import torch

    from viptt_core.model import ViPTTNet, count_parameters

    chosen = load_preset(preset)
    with torch.device("meta"):
        network = ViPTTNet(
            len(classes), backbone=chosen.backbone, hidden_size=chosen.hidden_size, feature_size=chosen.feature_size
        )
    layers = layer_parameters(chosen, len(classes))
    parts = {"stem": "stem", "backbone": "backbone", "LSTM": "temporal", "dense": "feature", "classes": "classifier"}
    assert layers == {layer: count_parameters(getattr(network, name)) for layer, name in parts.items()}
    assert f"{sum(layers.values()):,}" in part(card_text(ROOT), "Model details")


def test_other_backbones_are_not_counted():
    with pytest.raises(SettingError, match="backbone 'r3d_18' does not exist"):
        layer_parameters(replace(load_preset("paper"), backbone="r3d_18"), 5)


def test_links_of_the_card_lead_to_files_of_the_repository():
    links = re.findall(r"\]\(([^)]*)\)", card_text(ROOT))
    inside = [link for link in links if not link.startswith("https://")]
    # The book's page includes the card, and turns links that start so.
    assert len(inside) > 6 and all(link.startswith("./") and (ROOT / link).is_file() for link in inside)
    page = (ROOT / "book" / "model_card.md").read_text(encoding="utf-8")
    assert "```{include} ../MODEL_CARD.md\n:relative-docs: ./\n```" in page


def test_the_card_is_short_and_its_tables_are_whole():
    text = card_text(ROOT)
    assert len(text.splitlines()) <= 250
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        columns = {line.count("|") - 1 for line in block.splitlines()}
        assert len(columns) == 1 and columns.pop() <= 6
