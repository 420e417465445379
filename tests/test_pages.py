"""The pages of the book: all in the table of contents, their pictures and numbers those that the code makes."""

import dataclasses
import itertools
import operator
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tracked import ROOT, tracked_files

from viptt_core.book.artwork import WIDE, draw_artwork
from viptt_core.book.publish import PUBLISHED, read_notebook
from viptt_core.constants import (
    CT_WINDOWS,
    HU_WINDOW,
    PAPER_FRAMES,
    PAPER_SIZE,
    TB_CLASSES,
    TB_TRAIN_COUNTS,
    UCF_CLASSES,
)
from viptt_core.experiment import build_model
from viptt_core.model import count_parameters
from viptt_core.presets import load_preset
from viptt_core.shown import arm_label, interval, with_interval
from viptt_core.splits import authors_split
from viptt_core.statistics import PAPER_VALIDATION_COUNTS, kappa_interval_by_simulation
from viptt_core.study.ledger import PLACES, headline, load_claims
from viptt_core.study.plan import SEEDS_OF_A_VERDICT
from viptt_core.study.report import open_results
from viptt_core.study.verdict import GAIN, read_verdicts

BOOK = ROOT / "book"
PAGES = tracked_files("book/*.md")
# Pages whose numbers are written by hand, but those that show what a command prints or measures.
TYPED = {f"book/{page.name}" for page in PAGES} - {f"book/{name}.md" for name in ("claims", "performance", "own_data")}
REMEDY = "not up to date: viptt publish --stale"
FIGURE = re.compile(r"\{figure\} (_static/\S+)\n((?::.*\n)+)")
PICTURES = {f"_static/{name}.svg" for name in ("claim", "intervals", "kappa")}
A_FEW_MINUTES = 300  # seconds
DRAWINGS = {"_static/hu.svg", "_static/model.svg", "_static/parts.svg"}


@cache
def text(name):
    """A page, its lines joined."""
    return (BOOK / name).read_text(encoding="utf-8").replace("\n", " ")


@cache
def pictures():
    return {name.removeprefix("book/"): picture for name, picture in draw_artwork(ROOT).items()}


def words(svg):
    """What is written in a picture: matplotlib draws letters as paths and keeps the text as a comment."""
    return re.findall(r"<!-- (.*?) -->", svg)


def alternatives():
    """By picture, the text alternatives that the pages give it."""
    found = {}
    for page in PAGES:
        for name, options in FIGURE.findall(page.read_text(encoding="utf-8")):
            assert ":class: viptt-chart" in options, (page, name)
            found.setdefault(name, set()).add(re.search(r'^:alt: "(.*)"$', options, flags=re.M)[1])
    return found


def listed_pages(part):
    for entry in part.get("chapters", []) + part.get("sections", []):
        yield entry["file"]
        yield from listed_pages(entry)


def test_every_page_is_in_the_table_of_contents_and_every_entry_is_a_page():
    contents = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    listed = [contents["root"], *(name for part in contents["parts"] for name in listed_pages(part))]
    there = {path.relative_to(BOOK).with_suffix("").as_posix() for path in tracked_files("book/**/*.md")}
    there |= {f"notebooks/{path.stem}" for path in tracked_files("book/notebooks/*.ipynb")}
    assert contents["root"] == "intro" and len(listed) == len(set(listed))
    assert set(listed) == there
    assert all(part["caption"] for part in contents["parts"])


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_committed_pictures_say_what_the_code_writes_now(name):
    for form, wide in ((Path(name), False), (Path(name).with_suffix(WIDE), True)):
        committed = words((BOOK / form).read_text(encoding="utf-8"))
        assert committed == words(pictures()[name].encode("svg", wide=wide).decode()), REMEDY
        assert len(committed) > 5 and set(pictures()) == PICTURES


def test_text_alternatives_of_pages_are_those_of_the_pictures():
    alts = alternatives()
    # kappa.svg stands in README alone: its page draws it itself
    assert set(alts) == PICTURES - {"_static/kappa.svg"} | DRAWINGS
    for name, found in alts.items():
        assert len(found) == 1 and (name in DRAWINGS or found == {pictures()[name].alt}), name


def test_the_claim_picture_shows_the_published_values_and_those_of_the_tables():
    alt, claims = pictures()["_static/claim.svg"].alt, load_claims()
    for claim in ("kappa_scratch", "kappa_pretrained"):
        value = claims[claim].value
        assert with_interval(value, *kappa_interval_by_simulation(PAPER_VALIDATION_COUNTS, value)) in alt
    assert f"gain {claims['kappa_gain'].value:+.2f}" in alt
    records = [record for record in read_verdicts(ROOT) if record["primary"] and record["study"] in PLACES]
    assert records and pictures()["_static/claim.svg"].title == f"{headline(records)}."
    for record in records:
        assert with_interval(record["difference"], record["low"], record["high"], signed=True) in alt
        arms = open_results(record["study"], folder=ROOT).rows("arms", arm=[record["arm"], record["baseline"]])
        for row in arms.to_dict("records"):
            shown = with_interval(row["kappa"], row["kappa_low"], row["kappa_high"])
            assert f"{arm_label(row['arm'])}: {shown}" in alt


@pytest.mark.parametrize("name", ["README.md", "MODEL_CARD.md", "results/README.md", *sorted(TYPED)])
def test_an_estimate_with_its_interval_stands_only_where_it_is_generated(name):
    words = (ROOT / name).read_text(encoding="utf-8")
    words = re.sub(r"<!-- (verdict|further|scores) -->.*?<!-- end of \1 -->|^:alt: .*$", "", words, flags=re.S | re.M)
    assert re.findall(r"[-+]?\d\.\d+ \([-+]?\d\.\d+ to [-+]?\d\.\d+\)", words) == []


@cache
def network(name, num_classes):
    return build_model(load_preset(name), num_classes, seed=0, imagenet=False)


def layer_parameters(name, num_classes):
    """Learnt numbers of each part of a network, by name on the pages."""
    parts = {"stem": "stem", "backbone": "backbone", "LSTM": "temporal", "dense": "feature", "classes": "classifier"}
    return {part: count_parameters(getattr(network(name, num_classes), found)) for part, found in parts.items()}


def test_the_drawing_of_the_model_has_the_numbers_of_the_network_in_picture_and_words():
    preset, ucf = load_preset("paper"), layer_parameters("paper", len(UCF_CLASSES))
    tb = layer_parameters("paper", len(TB_CLASSES))
    carried = sum(tb.values()) - tb["classes"]
    numbers = {f"{count:,}" for count in (*tb.values(), ucf["classes"], carried, preset.feature_size)}
    numbers |= {str(n) for n in (preset.frames, preset.size, preset.hidden_size, len(UCF_CLASSES), len(TB_CLASSES))}
    drawn = re.findall(r"<text.*?>(.*?)</text>", (BOOK / "_static/model.svg").read_text("utf-8"))
    for told in (drawn, alternatives()["_static/model.svg"]):
        assert numbers <= set(re.findall(r"\d[\d,]*\d|\d", " ".join(told)))


def test_the_drawn_scale_of_hounsfield_units_has_the_windows_of_the_package():
    drawing, (alt,) = (BOOK / "_static/hu.svg").read_text("utf-8"), alternatives()["_static/hu.svg"]
    for name, (low, high) in CT_WINDOWS.items():
        assert f"window, {name}: {low} to {high}" in drawing and f"window, {name}: {low} to {high}" in alt


@pytest.mark.parametrize("name, title", [("paper", "VGG16"), ("study", "small")])
def test_the_table_of_layers_is_that_of_the_network(name, title):
    preset, expected = load_preset(name), layer_parameters(name, len(TB_CLASSES))
    table = pd.read_csv(ROOT / "results" / "parameters.csv", thousands=",", index_col="layer")
    outputs, counts = table[f"{title}: output"].dropna(), table[f"{title}: parameters"].fillna(0)
    assert counts["all"] == counts.drop("all").sum() == sum(expected.values()) and counts["stem"] == expected["stem"]
    dense = [expected[part] for part in ("LSTM", "dense", "classes")]
    assert counts[["LSTM, last state", "dense, ReLU", "classes, softmax"]].tolist() == dense
    # What a clip without content is after each module of the backbone, and what has been learnt until then.
    frames, learnt, passed = torch.empty(preset.frames, 3, preset.size, preset.size, device="meta"), 0, []
    for module in network(name, len(TB_CLASSES)).to("meta").eval().backbone:
        frames, learnt = module(frames), learnt + count_parameters(module)
        time, channels, height, width = frames.shape
        passed.append((f"{time}×{height}×{width}×{channels}", learnt))
    blocks = outputs[outputs.index.str.startswith("backbone")]
    assert set(zip(blocks, counts[blocks.index].cumsum(), strict=True)) <= set(passed)
    assert (blocks.iloc[-1], expected["backbone"]) == passed[-1]
    sizes = f"{preset.frames}×{channels}", f"{preset.hidden_size}", f"{preset.feature_size}", f"{len(TB_CLASSES)}"
    assert tuple(outputs.iloc[-4:]) == sizes
    assert outputs["input"] == outputs["stem"].removesuffix("×3") == f"{preset.frames}×{preset.size}×{preset.size}"


def test_the_model_page_has_the_numbers_of_the_network():
    page, paper = text("model.md"), load_preset("paper")
    tb, ucf = (layer_parameters("paper", len(classes)) for classes in (TB_CLASSES, UCF_CLASSES))
    assert f"network has {ucf['classes']:,} parameters, and all of it {sum(ucf.values()):,}" in page
    assert f"VGG16 holds {100 * tb['backbone'] / sum(tb.values()):.0f} % of the large network" in page
    assert f"for 512 and {paper.hidden_size}, {tb['LSTM']:,}" in page
    assert tb["LSTM"] == 4 * paper.hidden_size * (512 + paper.hidden_size + 1)  # the formula of the page
    lite0, first = network("demo", len(TB_CLASSES)), load_preset("demo")
    assert f"EfficientNet-Lite0, {lite0.temporal.value.in_features}: 40 channels" in page
    assert f"then a linear layer to {lite0.temporal.value.out_features} |" in page
    assert f"| {paper.hidden_size}, {paper.feature_size:,} | {first.hidden_size}, {first.feature_size} |" in page
    for name in ("parameters", "presets"):
        assert f":file: ../results/{name}.csv" in page


SETTINGS = {  # rows of the table of presets, and the fields of a preset that they tell
    "input T×H×W": ("frames", "size"),
    "every n-th frame of a video": ("stride",),
    "frames made square by": ("fit",),
    "scans reoriented": ("orientation",),
    "backbone": ("backbone",),
    "initial stem": ("stem",),
    "temporal part, dense layer": ("temporal", "hidden_size", "feature_size"),
    "split": ("splits",),
    "pretraining: optimiser, learning rate": ("pretrain.optimiser", "pretrain.learning_rate"),
    "pretraining: batch size, maximum epochs": ("pretrain.batch_size", "pretrain.epochs"),
    "pretraining: trained layers": ("pretrain.freeze_stem", "pretrain.freeze_backbone"),
    "fine-tuning: optimiser, learning rate": ("finetune.optimiser", "finetune.learning_rate"),
    "fine-tuning: batch size, maximum epochs": ("finetune.batch_size", "finetune.epochs"),
    "fine-tuning: trained layers": ("finetune.freeze_stem", "finetune.freeze_backbone"),
    "fine-tuning: class weights": ("finetune.class_weights",),
    "fine-tuning: random rotation": ("finetune.rotate",),
    "pixels: videos, scans": ("pretrain.pixel_range", "finetune.pixel_range"),
    "batches of scans": ("finetune.shuffle",),
}


@pytest.mark.parametrize("row", SETTINGS)
def test_the_table_of_presets_is_that_of_the_presets(row):
    """It has every number, presets differ where it says so, and the two arms of one are told where they differ."""
    table = pd.read_csv(ROOT / "results" / "presets.csv", index_col="setting", dtype=str)
    assert list(table.index) == list(SETTINGS)
    values, told = {}, table.loc[row]
    for name in table:
        preset = load_preset(name)
        arms = [dataclasses.replace(preset, finetune=preset.stage(start)) for start in ("video", "image")]
        found = {tuple(operator.attrgetter(field)(arm) for field in SETTINGS[row]) for arm in arms}
        assert (len(found) > 1) == told[name].startswith("video: ") == ("image: " in told[name])
        numbers = {f"{value:g}" for value in next(iter(found)) if type(value) in (int, float)}
        assert numbers <= set(re.findall(r"[\d.]+", told[name])), name
        values[name] = found
    for one, other in itertools.combinations(table, 2):
        assert (values[one] == values[other]) == (told[one] == told[other]), (one, other)


def test_the_page_on_the_paper_repeats_the_published_numbers():
    claims, page = load_claims(), text("paper.md")
    found = re.findall(r"^\| (.+?) \| (.+?) \| ([PC, ]+) \|$", (BOOK / "paper.md").read_text("utf-8"), re.M)
    told = {what: value for what, value, _ in found}
    for what, name in (
        ("kappa on validation scans, trained from scratch", "kappa_scratch"),
        ("kappa on validation scans, pretrained on videos", "kappa_pretrained"),
        ("kappa on the hidden test scans of ImageCLEF 2021, second place", "kappa_test"),
    ):
        assert float(told[what]) == claims[name].value
    assert f"reads {claims['clips'].value:g}" in told["activity videos used for pretraining"]
    ucf, tb = claims["ucf_p100"].run, claims["tb_final"].run
    assert f"pretraining took {ucf['hours']} hours" in page
    assert f"final training on scans {tb['hours']:.2f} hours" in page
    assert f"after {ucf['epochs']} epochs, the {ucf['best_epoch']}nd kept" in page
    assert f"after {tb['epochs']} epochs, the {tb['best_epoch']}th kept" in page


def test_the_page_on_the_paper_begins_with_what_is_wrong_and_has_the_sizes_of_network_and_split():
    page, paper = text("paper.md"), load_preset("paper")
    assert re.match(r"# [^*]+ \*\*What did the paper do wrong, if anything\?\*\* \w", page)
    tb, ucf = (layer_parameters("paper", len(classes)) for classes in (TB_CLASSES, UCF_CLASSES))
    assert f"| {ucf['classes']:,} / {tb['classes']:,} |" in page
    assert all(f"| {tb[part]:,} |" in page for part in ("stem", "backbone", "LSTM", "dense"))
    assert f"The input is {paper.frames} frames or slices of {paper.size} × {paper.size}" in page
    clips = authors_split(np.arange(int(load_claims()["clips"].value)) % len(UCF_CLASSES), "pretrain")
    sizes = len(clips.train), len(clips.validation), len(clips.test)
    assert "| {} training, {} validation, {} test, by clip |".format(*sizes) in page
    scans = authors_split(np.repeat(np.arange(5), np.subtract(TB_TRAIN_COUNTS, (1, 0, 0, 0, 0))), "finetune")
    assert f"| {len(scans.train)} training, {len(scans.validation)} validation |" in page
    assert f"The {len(scans.validation)} validation scans" in page


def test_rules_of_verdicts_are_those_of_the_program():
    for name in ("claims.md", "glossary.md"):
        assert f"*no gain of {GAIN:.2f} or more*" in text(name)
    assert f"below {GAIN:.2f}, otherwise" in text("claims.md")
    assert f"fewer than {SEEDS_OF_A_VERDICT} seeds" in text("claims.md")


def test_times_and_sizes_in_the_words_of_notebooks_are_those_of_the_authors_and_of_the_published_runs():
    words = {name: (ROOT / "notebooks" / f"{name}.py").read_text("utf-8").replace("\n# ", " ") for name in PUBLISHED}
    claims = load_claims()
    hours = [claim.run["hours"] for name, claim in claims.items() if name.startswith("ucf_")]
    assert f"runs took {min(hours):.1f} to {max(hours):.1f} hours" in words["01_pretrain"]
    assert f"final run took {claims['tb_final'].run['hours']:.1f} hours" in words["02_finetune"]
    low, high = HU_WINDOW
    assert f"keeps {low} to {high} HU" in words["00_data"] and f"paper's {high - low} HU" in words["00_data"]
    assert f"{PAPER_FRAMES} slices of {PAPER_SIZE} x {PAPER_SIZE}" in words["00_data"]
    assert f"the first {PAPER_FRAMES} frames" in words["00_data"]
    for name in PUBLISHED:
        if "A few minutes at most" in words[name]:
            page = read_notebook(BOOK / "notebooks" / f"{name}.ipynb")
            assert page["metadata"]["viptt"]["provenance"]["seconds"] < A_FEW_MINUTES, name


def test_intervals_of_the_published_values_are_those_of_the_simulation():
    scratch, pretrained = (kappa_interval_by_simulation(PAPER_VALIDATION_COUNTS, kappa) for kappa in (0.17, 0.35))
    assert f"They are {interval(*scratch)} and {interval(*pretrained)}" in text("paper.md")
    assert scratch[1] > pretrained[0]  # "overlap"
    assert f"from {interval(*pretrained)}" in text("background_ml.md")


def test_the_table_of_types_is_that_of_the_benchmark():
    found = re.findall(r"^\| ([\w-]+) \| (\d+) \| (\d+) % \|", (BOOK / "background_ml.md").read_text("utf-8"), re.M)
    total = sum(TB_TRAIN_COUNTS)
    counts = dict(zip(TB_CLASSES, TB_TRAIN_COUNTS, strict=True)).items()
    assert found == [(name, str(count), f"{100 * count / total:.0f}") for name, count in counts]
    assert f"and {found[0][2]} % of the answers are right" in text("background_ml.md")
    assert f"{total} with labels" in text("background_ml.md")
    weights = sum(layer_parameters("paper", len(TB_CLASSES)).values())
    assert f"with {weights / 1e6:.0f} million weights" in text("background_ml.md")


def test_every_term_that_a_page_uses_is_in_the_glossary():
    glossary = (BOOK / "glossary.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\{glossary\}\n(.*?)```", glossary, flags=re.S)
    terms = {line.lower() for block in blocks for line in block.splitlines() if line and not line.startswith(" ")}
    used = {
        (page.name, (target or shown).lower())
        for page in PAGES
        for shown, target in re.findall(
            r"\{term\}`([^`<]+?)(?:\s*<([^>]+)>)?`", page.read_text(encoding="utf-8").replace("\n", " ")
        )
    }
    assert len(used) > 15
    assert not [entry for entry in used if entry[1] not in terms]


def test_every_work_that_a_page_cites_is_in_the_references_once():
    keys = re.findall(r"^@\w+\{(\w+),", (BOOK / "references.bib").read_text(encoding="utf-8"), flags=re.M)
    groups = [group for page in PAGES for group in re.findall(r"\{cite\}`([^`]+)`", page.read_text(encoding="utf-8"))]
    assert len(keys) == len(set(keys)) and {key.strip() for group in groups for key in group.split(",")} <= set(keys)
