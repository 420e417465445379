"""The model card, `MODEL_CARD.md`: what the weights are, what they are for, how well they do and what is not known.

Its sentences stand in `model_card.md` beside this file, without a number: each is put in here, from committed files.
Sections and their order: Mitchell et al. (2019), Model cards for model reporting, doi 10.1145/3287560.3287596.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import pandas as pd

from viptt_core import __version__, files
from viptt_core.constants import HU_WINDOW, UCF_CLASSES
from viptt_core.errors import check_choice
from viptt_core.files import artifact_root
from viptt_core.presets import Preset, load_preset
from viptt_core.shown import with_interval
from viptt_core.sources.registry import ACCESS, data_source
from viptt_core.study.claims import load_claims
from viptt_core.study.ledger import markdown_table, status, verdict
from viptt_core.study.outcomes import Committed, read_committed, read_table, withdrawn_sentence
from viptt_core.study.report import INTERVAL, seeds_text, side

PAGE = Path("MODEL_CARD.md")
TEMPLATE = "model_card.md"
# Output channels of the 3x3 convolutions. VGG16's have biases: Simonyan and Zisserman (2015), table 1, D. Those of the
# small backbone have none; each is normalised, with a scale and a shift a channel: `backbones.py`.
CHANNELS = {"vgg16": (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512), "small": (16, 32, 64, 96)}
USES = {
    "ucf50": "A: videos",
    "imageclef": "A: scans",
    "actions": "C: videos before the phantoms",
    "phantom": "C: scans",
}
FAMILIES = {
    "synthetic": ("primary", "against random", "what pretraining needs", "order of slices"),
    "lidc": ("starts",),
}
SCORES = ("kappa", "accuracy")
NO_FINDING = "no finding"  # of `plan.SCAN_VARIANTS`
NO_NETWORK = " (no network)"


def card_text(root: Path | None = None) -> str:
    """The card, from the tables below `root`, the repository by default.

    Raises:
        DataError: a table or a record cannot be read.
        SettingError: a table lacks a column.
    """
    root = root or artifact_root()
    text = resources.files("viptt_core.study").joinpath(TEMPLATE).read_text(encoding="utf-8")
    parts = (_details(), _data(root), _published(root), _synthetic(root), _lidc(root), _fine_tuning(root))
    return text.format(**{name: value for part in parts for name, value in part.items()})


def write_card(root: Path | None = None) -> Path:
    """Write the card below `root`, the repository by default; returns its path.

    Raises:
        DataError, SettingError: see `card_text`.
        StorageError: it cannot be written.
    """
    root = root or artifact_root()
    files.write_file(root / PAGE, card_text(root))
    return root / PAGE


def layer_parameters(preset: Preset, num_classes: int) -> dict[str, int]:
    """Learnt numbers of each layer of a network with an LSTM: what Keras counts, without building it.

    Args:
        preset: Names the backbone, one of CHANNELS, and the sizes.
        num_classes: K.

    Raises:
        SettingError: another backbone.
    """
    check_choice("backbone", preset.backbone, tuple(CHANNELS))
    widths = (3, *CHANNELS[preset.backbone])
    # A channel has a bias, or a scale and a shift of its own.
    beside = 1 if preset.backbone == "vgg16" else 2
    backbone = sum(9 * before * after + beside * after for before, after in zip(widths, widths[1:], strict=False))
    hidden, feature = preset.hidden_size, preset.feature_size
    return {
        "stem": 3 + 3,
        "backbone": backbone,
        "LSTM": 4 * hidden * (widths[-1] + hidden + 1),
        "dense": (hidden + 1) * feature,
        "classes": (feature + 1) * num_classes,
    }


# --- What the networks are, and their data ---------------------------------------------------------------------
def _details() -> dict[str, str]:
    tb, ucf = data_source("imageclef").expected.classes, len(UCF_CLASSES)
    paper, small = load_preset("paper"), load_preset("study")
    sizes = [layer_parameters(paper, ucf), layer_parameters(paper, tb), layer_parameters(small, tb)]
    names = {
        "stem": "stem, grey to three channels",
        "backbone": f"backbone: `{paper.backbone}` or `{small.backbone}`",
        "LSTM": f"LSTM of {paper.hidden_size} or {small.hidden_size}",
        "dense": f"dense layer of {paper.feature_size} or {small.feature_size}",
        "classes": "classes",
    }
    rows = [(names[layer], *(f"{size[layer]:,}" for size in sizes)) for layer in names]
    rows += [
        ("all", *(f"{sum(size.values()):,}" for size in sizes)),
        ("input: slices × height × width", *map(_grid, (paper, paper, small))),
    ]
    head = ("layer", f"A, {ucf} activities", f"A, {tb} types", f"C, {tb} types")
    return {
        "version": __version__,
        "hu_low": str(HU_WINDOW[0]),
        "hu_high": str(HU_WINDOW[1]),
        "n_types": str(tb),
        "intervals": INTERVAL,
        "layers": markdown_table(head, "lrrr", rows),
    }


def _grid(preset: Preset) -> str:
    return f"{preset.frames} × {preset.size} × {preset.size}"


def _data(root: Path) -> dict[str, str]:
    clef, rows, nodules = data_source("imageclef").expected, [], read_committed("lidc", root)
    for name, use in USES.items():
        source = data_source(name)
        title = f"[{source.title}]({source.page})" if source.page else source.title
        rows.append(f"| {title} | {use} | {source.licence} | {ACCESS[source.access]} |")
    shares = ", ".join(f"{name} {count} ({_percent(count / clef.files)})" for name, count in clef.class_counts.items())
    return {
        "sets": "\n".join(rows),
        "n_clef": str(clef.files),
        "n_hidden": str(clef.test_files),
        "clips": f"{load_claims()['clips'].value:,}",
        "n_activities": str(len(UCF_CLASSES)),
        "shares": shares,
        "rarest_share": _percent(min(clef.class_counts.values()) / clef.files),
        "n_phantoms": _tested(read_committed("synthetic", root)),
        "n_nodules": _tested(nodules),
        "nodules_mark": f" ({nodules.withdrawn})" if nodules.withdrawn else "",
    }


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _tested(results: Committed) -> str:
    """Test cases of the arm of the primary contrast."""
    arm = results.row("arms", arm=results.study.primary.arm)
    return "the" if arm is None else f"{arm['n']:.0f}"


# --- Results -----------------------------------------------------------------------------------------------------
def _published(root: Path) -> dict[str, str]:
    paper = read_committed("paper", root)
    rows = [
        (
            claim.claim,
            f"{claim.value:.2f}" if claim.unit == "kappa" else f"{claim.value:g}",
            status(claim, paper).split(":")[0],
        )
        for claim in load_claims().values()
        if claim.source == "P" and claim.value is not None and not claim.difference_of
    ]
    return {"published": markdown_table(("of the authors", "published", "here"), "lrl", rows)}


def _synthetic(root: Path) -> dict[str, str]:
    results = read_committed("synthetic", root)
    arms = _arms(results)
    planned = [arm.name for arm in results.study.arms if arm.scans == NO_FINDING]
    controls = [_no_finding(row) for _, row in arms[arms["arm"].isin(planned)].iterrows()]
    return {
        "synthetic_scores": _scores(results, arms),
        "synthetic_verdicts": _verdicts(results),
        "no_finding": "\n".join(controls) or _absent(results),
        "synthetic_classes": _classes(results),
    }


def _lidc(root: Path) -> dict[str, str]:
    results = read_committed("lidc", root)
    baselines = _rows(results, "baselines", "arm", "n", *_with_ends(SCORES))
    compared = pd.concat([_arms(results), baselines.assign(arm=baselines["arm"] + NO_NETWORK)], ignore_index=True)
    return {
        "lidc_scores": _scores(results, compared),
        "lidc_best": _best(compared, results.withdrawn),
        "lidc_verdicts": _verdicts(results),
        "lidc_classes": _classes(results),
    }


def _fine_tuning(root: Path) -> dict[str, str]:
    """Of the one run that the page on fine-tuning shows: networks by their start, and baselines."""
    path = root / "results" / "02_finetune.csv"
    if not path.is_file():
        return {"page_scores": f"No results yet: `results/{path.name}` is not there."}
    rows = _checked(read_table(path), path.name, "arm", "n", *_with_ends(SCORES))
    network = rows["arm"].isin(load_preset("demo").starts)
    rows = rows.assign(arm=rows["arm"].where(network, rows["arm"] + NO_NETWORK))
    cells = [(f"`{row['arm']}`", f"{row['n']:.0f}", *_estimates(row, SCORES)) for _, row in rows.iterrows()]
    return {"page_scores": markdown_table(("start or baseline", "n", *SCORES), "lrrr", cells)}


def _arms(results: Committed) -> pd.DataFrame:
    """The arms that the card shows: those of the primary experiment, and those on scans without findings."""
    study = results.study
    shown = [
        arm.name
        for arm in study.arms
        if arm.experiment == study.arm(study.primary.arm).experiment or arm.scans == NO_FINDING
    ]
    rows = _rows(results, "arms", "arm", "n", "seeds", "ece", *_with_ends(SCORES))
    return rows[rows["arm"].isin(shown)]


def _scores(results: Committed, rows: pd.DataFrame) -> str:
    if rows.empty:
        return _absent(results)
    cells = [
        (
            f"`{row['arm']}`",
            _count(row["n"]),
            _count(row["seeds"]),
            *_estimates(row, SCORES),
            "" if pd.isna(row["ece"]) else f"{row['ece']:.2f}",
        )
        for _, row in rows.iterrows()
    ]
    name = results.folder.name
    files = ["arms.csv", *(["baselines.csv"] if results.table("baselines") is not None else [])]
    links = ", ".join(f"[{file}](./results/{name}/{file})" for file in files)
    other = "" if results.follows_plan else " **These results follow another plan than the one that is here.**"
    below = f"With 95 % intervals; n: test cases. Tables: {links}. Plan: `{results.plan_file}`.{other}"
    if results.withdrawn:
        below = f"**{withdrawn_sentence(results.withdrawn)}** {below}"
    return f"{markdown_table(('arm', 'n', 'seeds', *SCORES, 'ECE'), 'lrrrrr', cells)}\n\n{below}"


def _classes(results: Committed) -> str:
    """A table of the arms of the primary experiment by class, and the weakest class of each."""
    study, cells, weakest = results.study, [], []
    measures = ("precision", "recall", "f1")
    rows = _rows(results, "per_class", "arm", "class", "support", *_with_ends(measures))
    for arm in study.experiments()[study.arm(study.primary.arm).experiment]:
        own = rows[rows["arm"] == arm.name]
        if own.empty:
            continue
        # A column with the names of arms would push the last measure off the page.
        cells.append((f"`{arm.name}`", *[""] * 4))
        cells += [(row["class"], _count(row["support"]), *_estimates(row, measures)) for _, row in own.iterrows()]
        least = own.loc[own["recall"].idxmin()]
        weakest.append(f"`{arm.name}`: {least['class']} ({least['recall']:.2f})")
    if not cells:
        return _absent(results)
    said = (f"Least recall: {'; '.join(weakest)}.", withdrawn_sentence(results.withdrawn))
    table = markdown_table(("class", "n", "precision", "recall", "F1"), "lrrrr", cells)
    return f"{table}\n\n{' '.join(filter(None, said))}"


# --- Words that follow from the numbers --------------------------------------------------------------------------
def _verdicts(results: Committed) -> str:
    """A sentence a planned contrast, in the words of the ledger."""
    rows = _rows(
        results,
        "contrasts",
        "family",
        "measure",
        "arm",
        "baseline",
        "arm2",
        "baseline2",
        "difference",
        "low",
        "high",
        "p_holm",
        "seeds",
    )
    rows = rows[rows["family"].isin(FAMILIES[results.folder.name])]
    said = [
        f"- {verdict(row, results.withdrawn)}. {row['measure'].capitalize()} "
        f"{with_interval(row['difference'], row['low'], row['high'], signed=True)}, {seeds_text(row['seeds'])}."
        for _, row in rows.iterrows()
    ]
    return "\n".join(said) or _absent(results)


def _no_finding(row: pd.Series) -> str:
    said = {
        0: "the interval includes zero. Nothing beside the findings is seen to give a class away",
        1: "the interval lies above zero. Something beside the findings gives classes away",
        -1: "the interval lies below zero, worse than chance",
        None: "no interval",
    }[side(row["kappa_low"], row["kappa_high"])]
    return f"- `{row['arm']}`: kappa {_estimates(row, ['kappa'])[0]}: {said}."


def _best(rows: pd.DataFrame, withdrawn: str) -> str:
    """Which row has the highest kappa, and from which others its interval is apart; nothing of withdrawn rows."""
    if rows.empty:
        return ""
    if withdrawn:
        return f"Nothing is said about which row is the best ({withdrawn})."
    best = rows.iloc[int(rows["kappa"].argmax())]
    others = rows[rows["arm"] != best["arm"]]
    apart = others[others["kappa_high"] < best["kappa_low"]]["arm"]
    above = f"lies above {_listed(apart)}" if len(apart) else ""
    over = f"overlaps {_listed(others['arm'].drop(apart.index))}" if len(apart) < len(others) else ""
    said = " and ".join(filter(None, (above, over)))
    return f"The highest kappa of this table has `{best['arm']}`{f'. Its interval {said}' if said else ''}."


def _listed(names: Iterable[str]) -> str:
    shown = [f"`{name}`" for name in names]
    return f"that of {shown[0]}" if len(shown) == 1 else f"those of {', '.join(shown[:-1])} and {shown[-1]}"


def _absent(results: Committed) -> str:
    return f"No results yet: `results/{results.folder.name}/` holds none."


# --- Reading and writing cells -----------------------------------------------------------------------------------
def _with_ends(columns: Iterable[str]) -> list[str]:
    return [f"{column}{end}" for column in columns for end in ("", "_low", "_high")]


def _rows(results: Committed, table: str, *columns: str) -> pd.DataFrame:
    """These columns of a table; no rows where there is no table."""
    rows = results.table(table)
    return pd.DataFrame(columns=list(columns)) if rows is None else _checked(rows, f"{table}.csv", *columns)


def _checked(rows: pd.DataFrame, file: str, *columns: str) -> pd.DataFrame:
    for column in columns:
        check_choice(f"column of {file}", column, tuple(rows))
    return rows[list(columns)]


def _estimates(row: pd.Series, columns: Iterable[str]) -> list[str]:
    """Values with their intervals, which a narrow table must not break."""
    return [with_interval(*row[_with_ends([column])]).replace(" ", "\N{NO-BREAK SPACE}") for column in columns]


def _count(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.0f}"
