"""The claim ledger, `book/claims.md`: each published number beside ours, then our own studies against their plans.

Every number of the page is formatted from `claims.toml`, from the plans and from the tables in `results/`; no number
is typed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from viptt_core import files
from viptt_core.errors import DataError
from viptt_core.files import artifact_root
from viptt_core.results import SCORE_COLUMNS
from viptt_core.shown import ResultTable, with_interval
from viptt_core.study.claims import SOURCES, Answer, Claim, load_claims
from viptt_core.study.outcomes import Committed, read_committed, read_table, withdrawn_sentence
from viptt_core.study.plan import Rule
from viptt_core.study.report import (
    StudyResults,
    attribution_table,
    contrast_name,
    contrasts_table,
    folds_table,
    interval_cells,
    primary_row,
    sentence,
)

PAGE, CARD = Path("book") / "claims.md", Path("MODEL_CARD.md")
# Around the one table of the model card that is not written by hand.
SCORES, END_OF_SCORES = "<!-- scores: `viptt study card` writes this table -->\n", "<!-- end of scores -->"
# The studies of the page, in its order.
DATA = {"synthetic": "Synthetic data", "lidc": "LIDC-IDRI", "paper": "ImageCLEF and UCF50"}
WHY = {
    "imageclef": "ImageCLEF's scans need a registration; command below",
    "ucf50": "UCF50's videos are a download of their own; command below",
}


def published(claim: Claim, of: str = "") -> float | None:
    """The number that an answer is held against: the claim's value, or one of its training log."""
    return claim.run.get(of) if of else claim.value


def status(claim: Claim, results: Committed) -> str:
    """What became of a claim: "reproduced", "differs", "undecided", or "not attempted: why".

    Only results on the data set that the claim is about, after the plan as it is now, count. A claim without a number
    is judged by its verdict.
    """
    found = _answer(claim, results)
    if found is None:
        return f"not attempted: {_why(claim, results)}"
    low, high = _ends(found, claim.answer)
    value = published(claim, claim.answer.of)
    if math.isnan(low) or math.isnan(high):
        return "undecided: no interval"
    if value is None:
        return "reproduced" if low > 0 else "differs" if high < 0 else "undecided: the interval includes 0"
    return "reproduced" if low <= value <= high else "differs"


def ledger_text(root: Path | None = None) -> str:
    """The page."""
    root = root or artifact_root()
    claims = list(load_claims().values())
    studies = {name: read_committed(name, root) for name in DATA}
    abstract, logs = [c for c in claims if not c.run], [c for c in claims if c.run]
    parts = [
        _HEAD,
        *_published(abstract, studies["paper"]),
        *_beside(claims, studies),
        *_logs(logs, studies["paper"]),
        *_commands(claims),
        _OWN,
    ]
    for name, results in studies.items():
        if results.record or name != "paper":
            parts += _own_study(DATA[name], results)
    return "\n\n".join(filter(None, parts)) + "\n"


def card_text(root: Path | None = None) -> str:
    """The model card below `root`, the repository by default, with the scores of the studies that stand.

    Where there is no card (results outside the repository), it is the table alone.

    Raises:
        DataError: the card lacks the comments around its table, or a table cannot be read.
    """
    root = root or artifact_root()
    card = root / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# Scores\n\n{SCORES}{END_OF_SCORES}\n"
    before, begin, rest = text.partition(SCORES)
    _, end, after = rest.partition(END_OF_SCORES)
    if not begin or not end:
        raise DataError(
            "lacks the two comments around its table.", path=card, remedy="Take it from the repository again."
        )
    parts = [pd.DataFrame(columns=["data", "arm", "n", "seeds", *SCORE_COLUMNS[2:]])]
    for name, title in DATA.items():
        results, rows = read_committed(name, root), read_committed(name, root).tables().get("arms")
        if rows is not None and not results.withdrawn:
            main = results.study.arm(results.study.primary.arm).experiment
            wanted = [arm.name for arm in results.study.arms if main == arm.experiment or arm.scans == "no finding"]
            parts.append(rows[rows["arm"].isin(wanted)].assign(data=title))
    if (path := root / "results" / "02_finetune.csv").is_file():
        parts.append(read_table(path).assign(data="fine-tuning page", seeds=1))
    rows = pd.concat(parts, ignore_index=True)
    scores = zip(*(interval_cells(rows, name) for name in ("kappa", "accuracy")), strict=True)
    cells = [
        (row.data, f"`{row.arm}`", f"{row.n}", f"{row.seeds}", *each)
        for row, each in zip(rows.itertuples(), scores, strict=True)
    ]
    table = markdown_table(("data", "arm", "n", "seeds", "kappa", "accuracy"), "llrrrr", cells)
    return f"{before}{begin}{table}\n{end}{after}"


PAGES = {PAGE: ledger_text, CARD: card_text}


def write_page(page: Path, root: Path | None = None) -> Path:
    """Write one of PAGES below `root`, the repository by default; returns its path.

    Raises:
        DataError: a table cannot be read, or the card has no place for its own.
        StorageError: it cannot be written.
    """
    root = root or artifact_root()
    files.write_file(root / page, PAGES[page](root))
    return root / page


_HEAD = """# Claims, and what became of them

Each published number, what we have to set beside it, and how to get there. No number of this page is typed: all are
computed from `claims.toml`, the plans and the tables in `results/`. `viptt recheck` computes the tables and this page
again and compares.

- **reproduced**: on the data set that the claim is about, the published value lies in our 95 % interval. A wide
  interval holds many values: look at its width.
- **differs**: on the same data set, it lies outside.
- **undecided**: the claim has no number, and our interval includes 0.
- **not attempted**: everything else, with the reason.

A result on synthetic data, or on open scans of another disease, stands beside a claim. It never makes one
*reproduced*."""

_OWN = """## Our own studies

The plan of a study names its arms, seeds, tests and its one primary contrast, and is committed before the first run.
The verdict follows from the interval of the primary contrast, whatever it says. Figures:
[ablations](notebooks/03_ablations), [results by class](notebooks/04_per_class)."""


def _published(claims: list[Claim], results: Committed) -> list[str]:
    rows = []
    for claim in claims:
        found = _answer(claim, results)
        ours = "" if found is None else f"{_estimate(found, claim.answer)}, {found['seeds']} seeds"
        rows.append((claim.claim, _value(claim), claim.source, ours, status(claim, results)))
    sources = "; ".join(f"**{letter}** {what}" for letter, what in SOURCES.items())
    return [
        "## What the paper says",
        markdown_table(("claim", "published", "source", "ours (95 % interval)", "status"), "lrcrl", rows),
        "" if results.record else f"{_absence(results)} The commands stand [below](commands-of-claims).",
        f"Sources: {sources}. *Computed*: the difference of two published values, itself not published.",
        "The paper's numbers for each class and its table of ablations: not available. We could read its abstract "
        "and the notebooks, no more. That its two validation kappas belong to the two unequal runs of the "
        "notebooks is our reading.",
    ]


def _beside(claims: list[Claim], studies: dict[str, Committed]) -> list[str]:
    parts = [
        "## Ours, on other data",
        "Other scans, other videos, a smaller network. Nothing here counts for or against a published number.",
    ]
    for claim in (claim for claim in claims if claim.beside):
        rows = []
        for answer in claim.beside:
            results = studies[answer.study]
            found = results.row(answer.table, **answer.row) if results.record else None
            shown = ("no results yet", "") if found is None else (_estimate(found, answer), _count(found.get("seeds")))
            mark = f" ({results.withdrawn})" if results.withdrawn else ""
            named = answer.row.get("arm") or ", ".join(answer.row.values())
            named = contrast_name(SimpleNamespace(**answer.row)) if "baseline" in answer.row else named
            rows.append((f"{DATA[answer.study]}{mark}", f"`{named}`", *shown))
        head = ("data", "arm or contrast", "ours (95 % interval)", "seeds")
        parts += [_topic(claim, claim.beside[0].of), markdown_table(head, "llrr", rows)]
    return parts


def _logs(claims: list[Claim], results: Committed) -> list[str]:
    rows = []
    for claim in claims:
        score = next(name for name in ("accuracy", "micro_auc") if name in claim.run)
        told = f"{score.replace('micro_auc', 'micro-AUC')} {claim.run[score]:.4f}"
        ran = f"{claim.run['gpu']}, {claim.run['hours']:.2f} hours"
        rows.append((claim.claim.split(":")[0], ran, f"{claim.value:.4f}", told, status(claim, results)))
    return [
        "## Training logs",
        "From the outputs that the authors stored with their notebooks (C): the lowest "
        "validation loss, and the score at that epoch.",
        markdown_table(("run", "on", "loss", "score", "status"), "llrrl", rows),
    ]


def _commands(claims: list[Claim]) -> list[str]:
    parts = [
        "(commands-of-claims)=\n## Commands",
        "In the top folder of the repository, with the data in `data/`, see "
        "[data sets](data). [How to reproduce](reproduce) says what they need.",
    ]
    for command in dict.fromkeys(claim.command for claim in claims if claim.command):
        names = [claim.claim.split(":")[0] for claim in claims if claim.command == command]
        parts.append("\n".join(f"- {name}" for name in names) + f"\n\n```bash\n{command}\n```")
    return parts


def _own_study(title: str, results: Committed) -> list[str]:
    study, rule = results.study, results.study.primary
    says = " Synthetic data: this says nothing about patients." if study.scans["dataset"] == "phantom" else ""
    head = [f"### {title}", f"{study.about}.{says}"]
    digest = results.record.get("plan", study.digest)
    plan = f"Plan: `{results.plan_file}`, digest `{digest}`"
    if not results.record:
        return [*head, f"{plan}. {_absence(results)}"]
    commit = results.record.get("plan_commit")
    head += [
        f"{plan}, {f'frozen in commit `{commit}`' if commit else 'the commit that froze it is not recorded'}. "
        "To check: this lists the commits of the plan's file, and none may be younger than the first run.",
        f"```bash\ngit log --format='%h %ad %s' -- {results.plan_file}\n```",
    ]
    if results.withdrawn:
        head.append(f"**{withdrawn_sentence(results.withdrawn)}** They take part in no verdict.")
    if not results.follows_plan:
        head.append(f"**These results follow another plan than the file as it is, whose digest is `{study.digest}`.**")
    tables = results.tables()
    head.append(f"Tables: {', '.join(_link(results, f'{name}.csv') for name in tables)}.")
    if "missing" in tables:
        head.append(f"Planned arms without runs: {', '.join(f'`{arm}`' for arm in tables['missing']['arm'])}.")
    shown = StudyResults(study, {}, tables, results.record)
    mark = withdrawn_sentence(results.withdrawn)
    families = [
        markdown(f"{one.question} {mark}", contrasts_table(shown, one.name), "family", "measure", "p")
        for one in study.families
    ]
    return [
        *head,
        *_primary(shown, rule),
        "**All contrasts.** The p values of one table are corrected together, by Holm's method."
        if any(families)
        else "",
        *families,
        markdown(
            "**By folds.** The same contrasts over the folds, corrected for training sets that overlap (Nadeau and "
            f"Bengio). {mark}",
            folds_table(shown),
        ),
        markdown(
            "**What the unequal comparison is made of.** The gap between the two unequal arms, and what each change "
            f"adds on average over all orders of making them (Shapley values). {mark}",
            attribution_table(shown),
        ),
    ]


def _primary(shown: StudyResults, rule: Rule) -> list[str]:
    rows = primary_row(shown)
    if rows.empty:
        return ["**Primary contrast**: not in the tables yet."]
    row = rows.iloc[0]
    estimate = with_interval(row["difference"], row["low"], row["high"], signed=True)
    parts = [
        f"**Primary contrast**, by {rule.measure}: `{contrast_name(row)}` {estimate}, {row['seeds']} seeds. "
        f"{withdrawn_sentence(shown.withdrawn)}".strip(),
        f"Verdict: **{sentence(row, shown.withdrawn)}**.",
    ]
    if rule.width:
        reached = "is" if row["high"] - row["low"] <= rule.width else "is not"
        parts.append(
            f"Seeds were to be added until the interval is no wider than {rule.width:.2f}, up to {rule.most} "
            f"seeds, whatever its value. It {reached} as narrow as that."
        )
    return parts


def markdown(above: str, shown: ResultTable, *left_out: str) -> str:
    """A table of the report in Markdown without some columns, words above it; "" where the report has a sentence."""
    if shown.table is None:
        return ""
    table = shown.table.drop(columns=list(left_out)).astype(str)
    if "contrast" in table:
        table["contrast"] = [f"`{name}`" for name in table["contrast"]]
    return f"{above.strip()}\n\n{markdown_table(table, 'l' * len(table.columns), table.to_numpy())}"


def _answer(claim: Claim, results: Committed) -> pd.Series | None:
    """The row that answers a claim, of results on its own data after the plan as it is."""
    if claim.answer is None or claim.answer.study != results.study.name:
        return None
    if results.withdrawn or not results.follows_plan:
        return None
    sets = (results.study.scans["dataset"], results.study.videos["dataset"])
    return results.row(claim.answer.table, **claim.answer.row) if claim.needs in sets else None


def _why(claim: Claim, results: Committed) -> str:
    if claim.why:
        return claim.why
    if not results.record:
        return WHY[claim.needs]
    if results.withdrawn:
        return results.withdrawn
    if not results.follows_plan:
        return "the results follow another plan than the one that is here"
    return "no table holds it" if claim.answer is None else "no run of its arms"


def _absence(results: Committed) -> str:
    return f"No results yet: `results/{results.study.name}/` holds none."


def _ends(found: pd.Series, answer: Answer) -> tuple[float, float]:
    named = f"{answer.column}_low" in found
    return tuple(float(found[f"{answer.column}_{end}" if named else end]) for end in ("low", "high"))


def _estimate(found: pd.Series, answer: Answer) -> str:
    return with_interval(found[answer.column], *_ends(found, answer), signed=answer.column == "difference")


def _topic(claim: Claim, of: str) -> str:
    """What a claim, or a number of its training log, is about: its words before the colon are the run."""
    return f"{claim.claim.split(':')[0]}, {of}:" if of else f"{claim.claim}:"


def _value(claim: Claim) -> str:
    if claim.value is None:
        return "no number"
    digits = f"{claim.value:.2f}" if claim.unit == "kappa" else f"{claim.value:g}"
    return f"{digits} (computed)" if claim.difference_of else digits


def _count(value) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.0f}"


def _link(results: Committed, file: str) -> str:
    return f"[{file}](../results/{results.folder.name}/{file})"


def markdown_table(head: Iterable[str], align: str, rows: Iterable[Iterable[str]]) -> str:
    """A table; `align` has a letter a column: l, r or c."""
    rule = ["---:" if side == "r" else ":---:" if side == "c" else "---" for side in align]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
