"""The claim ledger, `book/claims.md`: each published number beside ours, then our own studies against their plans.

Every number of the page is formatted from `claims.toml`, from the plans and from the tables in `results/`; no number
is typed here. The same holds for what stands between two comments of README, first page and model card.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

import pandas as pd

from viptt_core import files
from viptt_core.errors import DataError, check_choice
from viptt_core.files import artifact_root
from viptt_core.presets import build
from viptt_core.results import SCORE_COLUMNS
from viptt_core.shown import ResultTable, with_interval
from viptt_core.study.outcomes import RECORD, read_table
from viptt_core.study.plan import study_names
from viptt_core.study.report import StudyResults, interval_cells, open_results, show_table
from viptt_core.study.verdict import VERDICTS, contrast_name, make_verdicts, read_verdicts, verdict_text, verdicts_json

CLAIMS = "claims.toml"
SOURCES = {"P": "the paper's abstract", "C": "the authors' public notebooks"}
# The studies of the page, in its order.
DATA = {
    "synthetic": "Synthetic data",
    "real": "LIDC-IDRI, five types of nodules",
    "malignancy": "LIDC-IDRI, benign or malignant",
    "paper": "ImageCLEF and UCF50",
}
WHY = {
    "imageclef": "ImageCLEF's scans need a registration; command below",
    "ucf50": "UCF50's videos are a download of their own; command below",
}
NOT_YET = "The studies are not run yet."


# --- What the paper says ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Answer:
    """Where a number stands in the tables of a study: `results/STUDY/TABLE.csv`.

    Attributes:
        table, column: Where the number is.
        row: What the other columns must hold.
        study: Name of the plan; "paper" is the one on the data of the claims.
        of: Which published number is meant: "" is the value of the claim, else a key of its `run`.
    """

    table: str
    column: str
    row: dict[str, str]
    study: str = "paper"
    of: str = ""


@dataclass(frozen=True)
class Claim:
    """A published statement.

    Attributes:
        name, claim: Its key, and the statement in words.
        source: A key of SOURCES.
        value, unit: The number; None where the statement has none.
        run: What the training log says beside the value: gpu, epochs, best_epoch (from 1), accuracy or micro_auc at
            that epoch, seconds_per_epoch (median), hours.
        difference_of: Two claims whose difference is the value, which is then not published but computed here.
        needs: The data set it is about, a name of the registry.
        command: What reproduces it, in the top folder of the repository; "" where there is none, then see `why`.
        answer: Where our number for it stands, as an `Answer`; None where no table holds it.
        beside: Answers on other data. They are shown and never count.
        why: Why there is no command or no answer.
    """

    name: str
    claim: str
    source: str
    value: float | None = None
    unit: str = ""
    run: dict[str, str | float] = field(default_factory=dict)
    difference_of: tuple = ()
    needs: str = ""
    command: str = ""
    answer: Answer | None = None
    beside: tuple = ()
    why: str = ""


def load_claims() -> dict[str, Claim]:
    """All published statements by name, in the order of CLAIMS.

    Raises:
        SettingError: an unknown or missing field, or a source that is none.
    """
    text = resources.files("viptt_core.study").joinpath(CLAIMS).read_text(encoding="utf-8")
    claims = {name: parse_claim(name, table) for name, table in tomllib.loads(text).items()}
    for name, claim in claims.items():
        if claim.difference_of:
            first, second = (claims[other].value for other in claim.difference_of)
            claims[name] = replace(claim, value=round(first - second, 10))
    return claims


def parse_claim(name: str, table: dict) -> Claim:
    """Build one claim out of its parsed TOML table."""
    made = {"name": name} | table
    if "answer" in made:
        made["answer"] = build(Answer, made["answer"], f"{name}.answer", CLAIMS)
    made["beside"] = [build(Answer, entry, f"{name}.beside", CLAIMS) for entry in made.get("beside", [])]
    claim = build(Claim, made, name, CLAIMS)
    check_choice(f"source of [{name}]", claim.source, tuple(SOURCES))
    return claim


def status(claim: Claim, results: StudyResults) -> str:
    """What became of a claim: "reproduced", "differs", "undecided", or "not attempted: why".

    Only results on the data set that the claim is about, after the plan as it is now, count. A claim without a number
    is judged by the sign.
    """
    if why := _does_not_count(claim, results):
        return f"not attempted: {why}"
    low, high = _estimate(results, claim.answer)[1:]
    value = claim.run.get(claim.answer.of) if claim.answer.of else claim.value
    if math.isnan(low):
        return "undecided: no interval"
    if value is None:
        return "reproduced" if low > 0 else "differs" if high < 0 else "undecided: the interval includes 0"
    return "reproduced" if low <= value <= high else "differs"


def _does_not_count(claim: Claim, results: StudyResults) -> str:
    """Why a study says nothing about a claim; "" where it does."""
    sets = {results.plan.scans["dataset"], *(source["dataset"] for source in results.plan.sources.values())}
    if claim.why or not results.record:
        return claim.why or WHY[claim.needs]
    if claim.answer is None:
        return "no table holds it"
    if claim.answer.study != results.plan.name or claim.needs not in sets:
        return "the study is on other data"
    if not results.follows_plan:
        return "the results follow another plan than the one that is here"
    return "" if _row(results, claim.answer) is not None else "no run of its arms"


def _row(results: StudyResults, answer: Answer) -> pd.Series | None:
    """The row that holds a number; of contrasts, a plain one unless `arm2` is named. SettingError: no such column."""
    table = results.rows(answer.table)
    wanted = ({"arm2": ""} if answer.table == "contrasts" else {}) | answer.row
    for column in (*wanted, answer.column) if len(table) else ():
        check_choice(f"column of {answer.table}.csv", column, tuple(table))
    rows = results.rows(answer.table, **wanted)
    return None if rows.empty else rows.iloc[0]


def _estimate(results: StudyResults, answer: Answer) -> tuple[float, float, float]:
    found = _row(results, answer)
    prefix = f"{answer.column}_" if f"{answer.column}_low" in found else ""
    return found[answer.column], float(found[f"{prefix}low"]), float(found[f"{prefix}high"])


# --- The page ---------------------------------------------------------------------------------------------------
def _studies(root: Path) -> dict[str, StudyResults]:
    """The studies of DATA that have a plan here, then others that have results."""
    names = [*(name for name in DATA if name in study_names())]
    names += sorted(path.parent.name for path in (root / "results").glob(f"*/{RECORD}"))
    return {name: open_results(name, folder=root) for name in dict.fromkeys(names)}


def verdicts_text(root: Path) -> str:
    """The file VERDICTS, from the tables of all studies."""
    return verdicts_json(
        [
            verdict
            for results in _studies(root).values()
            for verdict in make_verdicts(results.plan, results.tables, synthetic=results.synthetic)
        ]
    )


def ledger_text(root: Path) -> str:
    """The page `book/claims.md`."""
    claims = list(load_claims().values())
    studies = _studies(root)
    parts = [
        _HEAD,
        "## What we find",
        "\n".join(f"- {verdict_text(row)}" for row in read_verdicts(root)) or NOT_YET,
        *_published([claim for claim in claims if not claim.run], studies["paper"]),
        *_beside(claims, studies),
        *_logs([claim for claim in claims if claim.run], studies["paper"]),
        *_commands(claims),
        _OWN,
    ]
    for name, results in studies.items():
        if results.record or name != "paper":
            parts += _own_study(DATA.get(name, name), results)
    return "\n\n".join(filter(None, parts)) + "\n"


_HEAD = """# Claims, and what became of them

Each published number, what we have to set beside it, and how to get there. No number of this page is typed: all are
computed from `claims.toml`, the plans and the tables in `results/`. `viptt recheck` computes the tables and this page
again and compares.

- **reproduced**: on the data set that the claim is about, the published value lies in our interval. A wide interval
  holds many values: look at its width.
- **differs**: on the same data set, it lies outside.
- **undecided**: the claim has no number, and our interval includes 0.
- **not attempted**: everything else, with the reason.

A result on synthetic data, or on open scans of another disease, stands beside a claim. It never makes one
*reproduced*."""

_OWN = """## Our own studies

The plan of a study names its arms, seeds, questions and its one primary contrast, and is committed before the first
run. A verdict follows from an interval, whatever it says: *harms* where the interval lies below 0, *helps* where it
lies above 0, *no gain of 0.10 or more* where its upper end is below 0.10, else *undecided*. With fewer than 8 seeds
there is an interval and no verdict. Figures: [ablations](notebooks/03_ablations), [results by
class](notebooks/04_per_class)."""


def _published(claims: list[Claim], results: StudyResults) -> list[str]:
    rows = []
    for claim in claims:
        ours = "" if _does_not_count(claim, results) else _shown(results, claim.answer)
        rows.append((claim.claim, _value(claim), claim.source, ours, status(claim, results)))
    sources = "; ".join(f"**{letter}** {what}" for letter, what in SOURCES.items())
    return [
        "## What the paper says",
        markdown_table(("claim", "published", "source", "ours (interval)", "status"), "lrcrl", rows),
        f"Sources: {sources}. *Computed*: the difference of two published values, itself not published. The commands "
        "stand [below](commands-of-claims).",
        "The paper's numbers for each class and its table of ablations: not available. We could read its abstract "
        "and the notebooks, no more. That its two validation kappas belong to the two unequal runs of the "
        "notebooks is our reading.",
    ]


def _beside(claims: list[Claim], studies: dict[str, StudyResults]) -> list[str]:
    rows = []
    for claim, answer in [(one, answer) for one in claims for answer in one.beside if answer.study in studies]:
        named = contrast_name({"arm2": ""} | answer.row) if "baseline" in answer.row else answer.row["arm"]
        about = claim.claim.split(":")[0] + (f", {answer.of}" if answer.of else "")
        rows.append((about, DATA[answer.study], f"`{named}`", _shown(studies[answer.study], answer)))
    return [
        "## Ours, on other data",
        "Other scans, other videos, a smaller network. Nothing here counts for or against a published number.",
        markdown_table(("claim", "data", "arm or contrast", "ours (interval)"), "lllr", rows),
    ]


def _logs(claims: list[Claim], results: StudyResults) -> list[str]:
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
    for command in dict.fromkeys(claim.command.strip() for claim in claims if claim.command):
        names = [claim.claim.split(":")[0] for claim in claims if claim.command.strip() == command]
        parts.append("\n".join(f"- {name}" for name in names) + f"\n\n```bash\n{command}\n```")
    return parts


def _own_study(title: str, results: StudyResults) -> list[str]:
    plan, record = results.plan, results.record
    file = record.get("plan_file", f"viptt_core/study/plans/{plan.name}.toml")
    says = " Synthetic data: this says nothing about patients." if results.synthetic else ""
    head = [f"### {title}", f"{plan.about.removesuffix('.')}{'' if plan.about.endswith('?') else '.'}{says}"]
    named = f"Plan: `{file}`, digest `{record.get('plan', plan.digest)}`"
    if not results.tables:
        return [*head, f"{named}. {results.absent('Results').text}"]
    commit = record.get("plan_commit")
    tables = ", ".join(f"[{name}.csv](../results/{results.folder.name}/{name}.csv)" for name in results.tables)
    missing = ", ".join(f"`{arm}`" for arm in results.rows("missing").get("arm", ()))
    return [
        *head,
        f"{named}, {f'frozen in commit `{commit}`' if commit else 'the commit that froze it is not recorded'}. "
        "To check: this lists the commits of the plan's file, and none may be younger than the first run.",
        f"```bash\ngit log --format='%h %ad %s' -- {file}\n```",
        ""
        if results.follows_plan
        else f"**These results follow another plan than the file as it is, whose digest is `{plan.digest}`.**",
        f"Tables: {tables}.",
        f"Planned arms without runs: {missing}." if missing else "",
        _markdown("**Sources.** Were the videos learned?", show_table(results, "sources")),
        *(
            _markdown(f"**{one.name.capitalize()}.** {one.question}", show_table(results, "contrasts", family=one.name))
            for one in plan.families
        ),
        _markdown("**Within the frozen network.**", show_table(results, "attribution")),
    ]


def _markdown(above: str, shown: ResultTable) -> str:
    """A table of the report in Markdown, words above it; "" where the report has a sentence."""
    if shown.table is None:
        return ""
    table = shown.table.drop(columns="family", errors="ignore").astype(str)
    if "contrast" in table:
        table["contrast"] = [f"`{name}`" for name in table["contrast"]]
    return f"{above}\n\n{markdown_table(table, 'l' * len(table.columns), table.to_numpy())}"


def _shown(results: StudyResults, answer: Answer) -> str:
    found = _row(results, answer)
    if found is None:
        return "not run yet"
    shown = with_interval(*_estimate(results, answer), signed=answer.column == "difference")
    return f"{shown}, {found['seeds']:.0f} seeds"


def _value(claim: Claim) -> str:
    if claim.value is None:
        return "no number"
    digits = f"{claim.value:.2f}" if claim.unit == "kappa" else f"{claim.value:g}"
    return f"{digits} (computed)" if claim.difference_of else digits


def markdown_table(head: Iterable[str], align: str, rows: Iterable[Iterable[str]]) -> str:
    """A table; `align` has a letter a column: l, r or c."""
    rule = ["---:" if side == "r" else ":---:" if side == "c" else "---" for side in align]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


# --- What stands between two comments of other pages ---------------------------------------------------------------
def _scores(root: Path) -> str:
    """The table of the model card: the arms of the primary experiments, and those with nothing to learn."""
    parts = [pd.DataFrame(columns=["data", "arm", "n", "seeds", *SCORE_COLUMNS[2:]])]
    for name, results in _studies(root).items():
        main = results.plan.arm(results.plan.primary[0]).experiment
        wanted = [arm.name for arm in results.plan.arms if main == arm.experiment or arm.scans == "no finding"]
        parts.append(results.rows("arms", arm=wanted).assign(data=DATA.get(name, name)))
    if (path := root / "results" / "02_finetune.csv").is_file():
        parts.append(read_table(path).assign(data="fine-tuning page", seeds=1))
    rows = pd.concat(parts, ignore_index=True)
    scores = zip(*(interval_cells(rows, name) for name in ("kappa", "accuracy")), strict=True)
    cells = [
        (row.data, f"`{row.arm}`", f"{row.n}", f"{row.seeds}", *each)
        for row, each in zip(rows.itertuples(), scores, strict=True)
    ]
    return markdown_table(("data", "arm", "n", "seeds", "kappa", "accuracy"), "llrrrr", cells)


def _primary_answers(root: Path) -> str:
    """The sentences on the primary contrasts, a point each."""
    return "\n".join(f"- {verdict_text(row)}" for row in read_verdicts(root) if row["primary"]) or NOT_YET


def _filled(page: str, what: str, made: Callable[[Path], str]) -> Callable[[Path], str]:
    """A page with what is computed between two comments; "" where there is no page (results outside the repository)."""
    begin, end = f"<!-- {what} -->\n", f"\n<!-- end of {what} -->"

    def text(root: Path) -> str:
        if not (root / page).is_file():
            return ""
        before, found, rest = (root / page).read_text(encoding="utf-8").partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            remedy = "Take it from the repository again."
            raise DataError(f"lacks the comments around its {what}.", path=root / page, remedy=remedy)
        return f"{before}{begin}{made(root)}{end}{after}"

    return text


# What is generated, or holds something that is, in this order: text by the root of the repository; "" for no such page.
PAGES: dict[str, Callable[[Path], str]] = {
    VERDICTS: verdicts_text,
    "book/claims.md": ledger_text,
    "README.md": _filled("README.md", "verdict", _primary_answers),
    "book/intro.md": _filled("book/intro.md", "verdict", _primary_answers),
    "MODEL_CARD.md": _filled("MODEL_CARD.md", "scores", _scores),
}


def write_pages(root: Path | None = None) -> list[Path]:
    """Write all of PAGES below `root`, the repository by default; returns their paths.

    Raises:
        DataError: a table cannot be read, or a page has no place for what is computed.
        StorageError: one cannot be written.
    """
    root, written = root or artifact_root(), []
    for page, make in PAGES.items():
        if text := make(root):
            files.write_file(root / page, text)
            written.append(root / page)
    return written
