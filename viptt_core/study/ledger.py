"""The claim ledger: each published number beside ours, and what becomes of it on the pages that show it.

Every number between two comments of a page of PAGES is formatted from `claims.toml`, from the plans and from the tables
in `results/`; no number is typed there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from viptt_core import files
from viptt_core.constants import PAPER_KAPPA_PRETRAINED, PAPER_KAPPA_SCRATCH
from viptt_core.errors import DataError, check_choice
from viptt_core.files import artifact_root
from viptt_core.presets import build, read_toml
from viptt_core.results import SCORE_COLUMNS
from viptt_core.shown import WORDS, arm_label, interval, with_ends, with_interval
from viptt_core.study.outcomes import RECORD, read_table
from viptt_core.study.plan import study_names
from viptt_core.study.report import StudyResults, interval_cells, open_results, show_table
from viptt_core.study.sentences import attribution_answer, baselines_answer
from viptt_core.study.verdict import (
    HARMS,
    HELPS,
    NO_GAIN,
    PAPER_GAIN,
    UNDECIDED,
    VERDICTS,
    by_question,
    contrast_name,
    make_verdicts,
    read_verdicts,
    verdicts_json,
)

CLAIMS = "claims.toml"
SOURCES = ("P", "C")  # the paper's abstract, the authors' public notebooks
DATA: dict[str, str] = WORDS["studies"]  # the studies of the page, in its order
PLACES: dict[str, list[str]] = WORDS["places"]  # where a study tests, for a first reader, and its test cases
# What stands above the answers on each kind of data.
ANSWERS = {
    "synthetic": "### On synthetic data\n\nSimulated scans: these answers say nothing about patients.",
    "real": "### On real scans",
}
NOT_YET = "The studies are not run yet."


# --- What the paper says, and what became of it -----------------------------------------------------------------
@dataclass(frozen=True)
class Claim:
    """A published statement."""

    name: str  #: its key
    claim: str  #: the statement in words
    source: str  #: one of SOURCES
    value: float | None = None  #: the number; None where the statement has none
    unit: str = ""  #: of the number
    #: What the training log says beside the value (gpu, epochs, best_epoch from 1, accuracy or micro_auc at that epoch,
    #: median seconds_per_epoch, hours).
    run: dict[str, str | float] = field(default_factory=dict)
    difference_of: tuple = ()  #: two claims whose difference is the value, which is then computed here, not published
    needs: str = ""  #: the data set it is about, a name of the registry
    command: str = ""  #: what reproduces it, in the top folder of the repository; "" where there is none, see `why`
    #: Where our number stands in the study on the data of the paper (`table` and `column`, and `row`, what the other
    #: columns must hold); {} where no table holds it.
    answer: dict = field(default_factory=dict)
    why: str = ""  #: why there is no command or no answer


def load_claims() -> dict[str, Claim]:
    """All published statements by name, in the order of CLAIMS; a SettingError where `parse_claim` gives one."""
    claims = {name: parse_claim(name, table) for name, table in read_toml(Path(__file__).with_name(CLAIMS)).items()}
    for name, claim in claims.items():
        if claim.difference_of:
            first, second = (claims[other].value for other in claim.difference_of)
            claims[name] = replace(claim, value=round(first - second, 10))
    return claims


def parse_claim(name: str, table: dict) -> Claim:
    """Build a claim out of its TOML table; a SettingError for an unknown or missing field, or a source that is none."""
    claim = build(Claim, {"name": name} | table, name, CLAIMS)
    check_choice(f"source of [{name}]", claim.source, SOURCES)
    return claim


def status(claim: Claim, results: StudyResults) -> str:
    """What became of a claim: "reproduced", "differs", "undecided", or "not attempted: why".

    Only results on the data set that the claim is about, after the plan as it is now, count. A claim without a number
    is judged by the sign.
    """
    ours = _ours(claim, results)
    if isinstance(ours, str):
        return f"not attempted: {ours}"
    _, low, high = with_ends(ours, claim.answer["column"])
    if math.isnan(low):
        return "undecided: no interval"
    if claim.value is None:
        return "reproduced" if low > 0 else "differs" if high < 0 else "undecided: the interval includes 0"
    return "reproduced" if low <= claim.value <= high else "differs"


def _ours(claim: Claim, results: StudyResults) -> pd.Series | str:
    """The row with our number, of contrasts a plain one unless `arm2` is named; or why the study has none."""
    sets = {results.plan.scans["dataset"], *(source["dataset"] for source in results.plan.sources.values())}
    if claim.why or not results.record:
        return claim.why or WORDS["needs"][claim.needs]
    if not claim.answer:
        return "no table holds it"
    if claim.needs not in sets:
        return "the study is on other data"
    if not results.follows_plan:
        return "the results follow another plan than the one that is here"
    answer = claim.answer
    wanted = ({"arm2": ""} if answer["table"] == "contrasts" else {}) | answer["row"]
    table = results.rows(answer["table"])
    for column in (*wanted, answer["column"]) if len(table) else ():
        check_choice(f"column of {answer['table']}.csv", column, tuple(table))
    rows = results.rows(answer["table"], **wanted)
    return "no run of its arms" if rows.empty else rows.iloc[0]


# --- What stands on pages: each takes the root of the repository -------------------------------------------------
def studies_below(root: Path) -> dict[str, StudyResults]:
    """The studies of DATA that have a plan here, then others that have results."""
    names = [name for name in DATA if name in study_names()]
    names += sorted(path.parent.name for path in (root / "results").glob(f"*/{RECORD}"))
    return {name: open_results(name, folder=root) for name in dict.fromkeys(names)}


def verdicts_text(root: Path) -> str:
    """The file VERDICTS, from the tables of all studies."""
    records = []
    for results in studies_below(root).values():
        records += make_verdicts(results.plan, results.tables, synthetic=results.synthetic)
    return verdicts_json(records)


def _answers(root: Path) -> str:
    """The answer to every question, a bullet a question: those on simulated scans, then those on real ones."""
    records, parts = read_verdicts(root), []
    for data, heading in ANSWERS.items():
        there = [record for record in records if record["data"] == data]
        bullets = []
        for study in dict.fromkeys(record["study"] for record in there):
            for question, said in by_question(record for record in there if record["study"] == study).items():
                bullets.append(f"- **{question}** {said[0]}" if len(said) == 1 else f"- **{question}**")
                bullets += [f"  - {sentence}" for sentence in said if len(said) > 1]
        parts += [f"{heading}\n\n" + "\n".join(bullets)] if bullets else []
    return "\n\n".join(parts) or NOT_YET


def first_answer(root: Path) -> str:
    """The claim, our answer, its evidence and what stays open, for a reader who sees nothing else."""
    records = _primary(root)
    does_it_hold, found = _finding(records)
    cases = [f"{one['seeds']} seeds on {one['n']:,} {_place(one)[1]}" for one in records]
    other = "the paper's own scans, which need a registration"
    if any(one["study"] == "paper" and one["verdict"] for one in records):
        other = "other videos, other scans and other networks"
    lines = [
        "- **The claim:** pretraining on videos of people helps a network to tell types of tuberculosis apart on chest "
        f"CT: kappa {PAPER_KAPPA_PRETRAINED:.2f} instead of {PAPER_KAPPA_SCRATCH:.2f} "
        "([ViPTT-Net](https://arxiv.org/abs/2105.12810)).",
        f"- **Our answer:** {does_it_hold}. With all else equal, we find {found}.",
        *(f"  - On {_place(one)[0]}, {_in_short(one)}." for one in records),
        f"- **The evidence:** {'; '.join(('fixed plans', *cases))}.",
        f"- **Still open:** {other}.",
    ]
    return "\n".join(lines)


def _primary(root: Path) -> list[dict[str, Any]]:
    """The primary records that have a verdict; all of them where none has."""
    records = [record for record in read_verdicts(root) if record["primary"]]
    return [record for record in records if record["verdict"]] or records


def headline(records: Sequence[dict[str, Any]]) -> str:
    """What the paper reports and what we find, a sentence each, from the primary records."""
    return f"The paper reports a gain of {PAPER_GAIN:.2f}. With all else equal, we find {_finding(records)[1]}"


def _further(root: Path) -> str:
    """What else a first reader should know: what each of the changes adds, and what needs no network."""
    found, on_real_scans = (open_results(name, folder=root) for name in ("synthetic", "real"))
    changes, baselines = found.rows("attribution"), on_real_scans.rows("baselines")
    lines = ["- **On simulated scans.** " + attribution_answer(found).text] if len(changes) else []
    lines += ["- **On real nodules.** " + baselines_answer(on_real_scans).text] if len(baselines) else []
    return "\n".join(lines) or NOT_YET


def _finding(records: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Whether the claim holds, and what we find, from the verdicts that there are."""
    said = {record["verdict"] for record in records if record["verdict"]}
    if not said:
        return "open", "nothing that decides yet"
    if said == {HELPS}:
        return "yes, where we could test it", "a gain"
    if HELPS in said:
        return "in part", "a gain in some tests and not in others"
    if UNDECIDED in said:
        return "not shown", "no gain so far, and cannot exclude one"
    found = "a loss" if said == {HARMS} else NO_GAIN
    return "not where we could test it", found


def _place(record: dict[str, Any]) -> list[str]:
    return PLACES.get(record["study"], [f"study {record['study']}", f"{record['data']} test cases"])


def _in_short(record: dict[str, Any]) -> str:
    """A primary record as part of a sentence: the direction is a word, so the amount has no sign."""
    arm, start, more = arm_label(record["arm"]), arm_label("image"), f"{arm_label('image').split()[0]} + "
    plain = arm.startswith(more) and arm_label(record["baseline"]) == start
    what = f"pretraining on {arm.removeprefix(more)}" if plain else contrast_name(record)
    said, low, high = record["sentence"].partition(". ")[0], record["low"], record["high"]
    level, measure, verdict = f"{100 * record['level']:.3g}\u00a0% interval", record["measure"], record["verdict"]
    if verdict in (HARMS, HELPS):
        low, high = sorted((abs(low), abs(high)))
        changes = f"{'lowers' if verdict == HARMS else 'raises'} {measure} by {abs(record['difference']):.3f}"
        return f"{what} {changes} ({level} {low:.3f} to {high:.3f}){said[len(verdict) :]}"
    difference = with_interval(record["difference"], math.nan, math.nan, signed=True)
    ends = interval(low, high, signed=True)
    return f"{what} changes {measure} by {difference} ({level} {ends}): {said[0].lower()}{said[1:]}"


def published_table(root: Path) -> str:
    """Each published number, and what became of it."""
    results, rows = open_results("paper", folder=root), []
    for claim in load_claims().values():
        value = "no number" if claim.value is None else f"{claim.value:.2f}" if claim.unit == "kappa" else claim.value
        row, ours = _ours(claim, results), ""
        if not isinstance(row, str):
            column = claim.answer["column"]
            number = with_interval(*with_ends(row, column), signed=column == "difference")
            ours = f"{number}, {row['seeds']:.0f} seeds"
        told = [f"{key.replace('_', '-')} {claim.run[key]}" for key in ("accuracy", "micro_auc") if key in claim.run]
        told += [f"{claim.run['gpu']}, {claim.run['hours']:.2f} hours"] if claim.run else []
        words = f"{claim.claim} ({'; '.join(told)})" if told else claim.claim
        value = f"{value} (computed)" if claim.difference_of else f"{value}"
        rows.append((words, value, claim.source, ours, status(claim, results)))
    return markdown_table(("claim", "published", "source", "ours (interval)", "status"), "lrcrl", rows)


def _commands(root: Path) -> str:
    about = {}
    for claim in load_claims().values():
        about.setdefault(claim.command.strip(), []).append(f"- {claim.claim.split(':')[0]}")
    return "\n\n".join("\n".join(each) + f"\n\n```bash\n{command}\n```" for command, each in about.items() if command)


def studies_text(root: Path) -> str:
    """Each study: its plan, its sources, its contrasts, its attribution."""
    parts = []
    for name, results in studies_below(root).items():
        plan, record = results.plan, results.record
        file = record.get("plan_file", f"viptt_core/study/plans/{plan.name}.toml")
        parts += [f"### {DATA.get(name, name)}", plan.about if plan.about.endswith("?") else f"{plan.about}."]
        parts += ["Synthetic data: this says nothing about patients."] if results.synthetic else []
        frozen = f", frozen in commit `{record['plan_commit']}`" if record.get("plan_commit") else ""
        parts.append(f"Plan: `{file}`, digest `{record.get('plan', plan.digest)}`{frozen}.")
        if not results.tables:
            parts.append(results.absent("Results").text)
            continue
        if not results.follows_plan:
            parts.append(f"**These results follow another plan than the file as it is, digest `{plan.digest}`.**")
        tables = ", ".join(f"[{table}.csv](../results/{results.folder.name}/{table}.csv)" for table in results.tables)
        parts.append(f"Tables: {tables}.")
        shown = {"**Sources.** Were the videos learned?": show_table(results, "sources")}
        for one in plan.families:
            shown[f"**{one.name.capitalize()}.** {one.question}"] = show_table(results, "contrasts", family=one.name)
        shown["**Within the frozen network.**"] = show_table(results, "attribution")
        shown["**Planned and not run.**"] = show_table(results, "missing")
        for above, each in shown.items():
            if each.table is not None:
                table = each.table.drop(columns="family", errors="ignore").astype(str)
                parts += [above, markdown_table(table, "l" * len(table.columns), table.to_numpy())]
    return "\n\n".join(parts)


def scores_table(root: Path) -> str:
    """Scores of the arms of the primary experiments, of those with nothing to learn, and of the fine-tuning page."""
    parts = [pd.DataFrame(columns=["data", "arm", "n", "seeds", *SCORE_COLUMNS[2:]])]
    for name, results in studies_below(root).items():
        arms, main = results.plan.arms, results.plan.main
        wanted = [arm.name for arm in arms if arm.experiment == main or arm.scans == "no finding"]
        parts.append(results.rows("arms", arm=wanted).assign(data=DATA.get(name, name)))
    if (path := root / "results" / "02_finetune.csv").is_file():
        parts.append(read_table(path).assign(data="fine-tuning page", seeds=1))
    rows = pd.concat(parts, ignore_index=True)
    scores = {name: interval_cells(rows, name) for name in ("kappa", "accuracy")}
    table = rows[["data", "arm", "n", "seeds"]].assign(arm=rows["arm"].map(arm_label), **scores).astype(str)
    return markdown_table(table, "llrrrr", table.to_numpy())


def markdown_table(head: Iterable[str], align: str, rows: Iterable[Iterable[str]]) -> str:
    """A table; `align` has a letter a column: l, r or c."""
    rule = ["---:" if side == "r" else ":---:" if side == "c" else "---" for side in align]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


# What stands on each page between `<!-- NAME -->` and `<!-- end of NAME -->`.
FIRST = {"verdict": first_answer, "message": lambda root: f"**{headline(_primary(root))}.**", "further": _further}
PAGES: dict[str, dict[str, Callable[[Path], str]]] = {
    "README.md": FIRST,
    "book/intro.md": FIRST,
    "book/claims.md": {
        "verdict": _answers,
        "published": published_table,
        "scores": scores_table,
        "commands": _commands,
        "studies": studies_text,
    },
    "MODEL_CARD.md": {"scores": scores_table},
}


def page_text(page: str, root: Path) -> str:
    """The text of VERDICTS, or of one of PAGES with what is computed put in; "" for a page that is not there.

    Raises:
        DataError: a table cannot be read, or the page lacks the comments around one.
    """
    if page == VERDICTS:
        return verdicts_text(root)
    text = (root / page).read_text(encoding="utf-8") if (root / page).is_file() else ""
    for name, make in PAGES[page].items() if text else ():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = f"\n{rest}".partition(f"\n<!-- end of {name} -->")
        if not begin or not end:
            remedy = "Take it from the repository again."
            raise DataError(f"lacks the comments around its {name}.", path=root / page, remedy=remedy)
        text = f"{before}{begin}{make(root)}{end}{after}"
    return text


def write_pages(root: Path | None = None) -> list[Path]:
    """Write VERDICTS and those of PAGES that are there, below the root of the repository; returns their paths.

    Raises:
        DataError: see `page_text`.
        StorageError: a page cannot be written.
    """
    root, written = root or artifact_root(), []
    for page in (VERDICTS, *PAGES):
        if text := page_text(page, root):
            files.write_file(root / page, text)
            written.append(root / page)
    return written
