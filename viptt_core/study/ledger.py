"""The claim ledger, `book/claims.md`: each published number beside ours, then our own studies against their plans.

Every number of the page is formatted from `claims.toml`, from the plans and from the tables in `results/`; no number
is typed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from viptt_core import files
from viptt_core.files import artifact_root
from viptt_core.shown import with_interval
from viptt_core.study.claims import SOURCES, Answer, Claim, load_claims
from viptt_core.study.outcomes import Committed, read_committed, withdrawn_sentence

PAGE = Path("book") / "claims.md"
ALPHA = 0.05
# The studies of the page, in its order.
DATA = {"synthetic": "Synthetic data", "lidc": "LIDC-IDRI", "paper": "ImageCLEF and UCF50"}
WHY = {
    "imageclef": "ImageCLEF's scans need a registration; command below",
    "ucf50": "UCF50's videos are a download of their own; command below",
}
FACTORS = {
    "start": "videos instead of single pictures",
    "unfrozen": "all layers trained, the backbone too",
    "weights": "classes weighted",
    "rotation": "scans rotated",
    "naive gap": "all together",
}


def verdict(contrast: pd.Series, withdrawn: str = "") -> str:
    """What a row of the table "contrasts" says, in a sentence: by its interval, whatever we hoped for.

    Args:
        contrast: The row.
        withdrawn: The mark of a study that is withdrawn, see `committed.withdrawal`: then nothing is said.
    """
    low, high = contrast["low"], contrast["high"]
    first, second, more, less = f"`{contrast['arm']}`", f"`{contrast['baseline']}`", "helps against", "hurts against"
    if contrast.get("arm2"):
        first = f"the gain of {first} over {second}"
        second = f"that of `{contrast['arm2']}` over `{contrast['baseline2']}`"
        more, less = "is larger than", "is smaller than"
    if withdrawn:
        return f"nothing is said about {first} and {second} ({withdrawn})"
    if math.isnan(low) or math.isnan(high):
        return f"nothing is said about {first} and {second}: there is no interval"
    if low <= 0 <= high:
        return f"{first} and {second} cannot be told apart: the interval includes 0"
    said = f"{more} {second}: the interval lies above 0" if low > 0 else f"{less} {second}: the interval lies below 0"
    # An interval is of one contrast, the corrected p of the family: it may be the stricter.
    holm = ", though not after correcting for the other contrasts of its family" if contrast["p_holm"] > ALPHA else ""
    return f"{first} {said}{holm}"


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
        *_ours(claims, studies["paper"]),
        *_beside(claims, studies),
        *_logs(logs, studies["paper"]),
        *_commands(claims),
        _OWN,
    ]
    for name, results in studies.items():
        if results.record or name != "paper":
            parts += _own_study(DATA[name], results)
    return "\n\n".join(parts) + "\n"


def write_ledger(root: Path | None = None) -> Path:
    """Write the page below `root`, the repository by default; returns its path.

    Raises:
        StorageError: it cannot be written.
    """
    root = root or artifact_root()
    files.write_file(root / PAGE, ledger_text(root))
    return root / PAGE


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
    rows = [(claim.claim, _value(claim), claim.source, status(claim, results)) for claim in claims]
    sources = "; ".join(f"**{letter}** {what}" for letter, what in SOURCES.items())
    return [
        "## What the paper says",
        markdown_table(("claim", "published", "source", "status"), "lrcl", rows),
        f"Sources: {sources}. *Computed*: the difference of two published values, itself not published.",
        "The paper's numbers for each class and its table of ablations: not available. We could read its abstract "
        "and the notebooks, no more. That its two validation kappas belong to the two unequal runs of the "
        "notebooks is our reading.",
    ]


def _ours(claims: list[Claim], results: Committed) -> list[str]:
    rows = []
    for claim in claims:
        found = _answer(claim, results)
        if found is not None:
            file = f"{claim.answer.table}.csv"
            rows.append(
                (
                    claim.claim,
                    _estimate(found, claim.answer),
                    _count(_cases(found, results)),
                    _count(found.get("seeds")),
                    _link(results, file),
                )
            )
    head = "## Ours, on the data of the claims"
    if not rows:
        return [head, f"{_absence(results)} The commands stand [below](commands-of-claims)."]
    return [head, markdown_table(("claim", "ours (95 % interval)", "n", "seeds", "run"), "lrrrl", rows)]


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
            rows.append((f"{DATA[answer.study]}{mark}", _arms(answer.row), *shown))
        head = ("data", "arm or contrast", "ours (95 % interval)", "seeds")
        parts += [_topic(claim, claim.beside[0].of), markdown_table(head, "llrr", rows)]
    return parts


def _logs(claims: list[Claim], results: Committed) -> list[str]:
    rows, runs = [], []
    for claim in claims:
        score = next(name for name in ("accuracy", "micro_auc") if name in claim.run)
        what = claim.claim.split(":")[0]
        rows.append(
            (
                what,
                f"{claim.value:.4f}",
                f"{score.replace('micro_auc', 'micro-AUC')} {claim.run[score]:.4f}",
                status(claim, results),
            )
        )
        runs.append(
            (
                what,
                claim.run["gpu"],
                f"{claim.run['best_epoch']} of {claim.run['epochs']}",
                str(claim.run["seconds_per_epoch"]),
                f"{claim.run['hours']:.2f}",
            )
        )
    return [
        "## Training logs",
        "From the outputs that the authors stored with their notebooks (C): the lowest "
        "validation loss, and the score at that epoch.",
        markdown_table(("run", "loss", "score", "status"), "lrrl", rows),
        markdown_table(("run", "GPU", "best epoch", "s an epoch", "hours"), "llrrr", runs),
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
    files = sorted(path.name for path in results.folder.glob("*.csv"))
    head.append(f"Tables: {', '.join(_link(results, file) for file in files)}.")
    if (missing := results.table("missing")) is not None:
        head.append(f"Planned arms without runs: {', '.join(f'`{arm}`' for arm in missing['arm'])}.")
    return [*head, *_primary(results, rule), *_families(results), *_folds(results), *_attribution(results)]


def _primary(results: Committed, rule) -> list[str]:
    found = results.row("contrasts", arm=rule.arm, baseline=rule.baseline, measure=rule.measure)
    if found is None:
        return ["**Primary contrast**: not in the tables yet."]
    parts = [
        _marked("**Primary contrast.**", results),
        _contrasts([found], measure=rule.measure),
        f"Verdict: **{verdict(found, results.withdrawn)}**.",
    ]
    if rule.width:
        reached = "is" if found["high"] - found["low"] <= rule.width else "is not"
        parts.append(
            f"Seeds were to be added until the interval is no wider than {rule.width:.2f}, up to {rule.most} "
            f"seeds, whatever its value. It {reached} as narrow as that."
        )
    return parts


def _families(results: Committed) -> list[str]:
    table = results.table("contrasts")
    if table is None:
        return []
    parts = ["**All contrasts.** The p values of one table are corrected together, by Holm's method."]
    for (_, question), rows in table.groupby(["family", "question"], sort=False):
        shown = _contrasts([row for _, row in rows.iterrows()], measure=rows["measure"].iloc[0])
        parts += [_marked(question, results), shown]
    return parts


def _folds(results: Committed) -> list[str]:
    table = results.table("folds")
    if table is None or table.empty:
        return []
    rows = [
        (_arms(row), with_interval(row["difference"], row["low"], row["high"], digits=3), _p(row["p"]))
        for _, row in table.iterrows()
    ]
    head = (
        "**By folds.** The same contrasts over the folds, corrected for training sets that overlap (Nadeau and Bengio)."
    )
    return [_marked(head, results), markdown_table(("contrast", "kappa (95 % interval)", "p"), "lrr", rows)]


def _attribution(results: Committed) -> list[str]:
    table = results.table("attribution")
    if table is None or table.empty:
        return []
    rows = [
        (
            FACTORS.get(row["factor"], row["factor"]),
            with_interval(row["points"], row["low"], row["high"], digits=3),
            "" if math.isnan(row["percent"]) else f"{round(row['percent']) + 0} %",
        )
        for _, row in table.iterrows()
    ]
    head = (
        "**What the unequal comparison is made of.** The gap between the two unequal arms, and what each change adds "
        "on average over all orders of making them (Shapley values)."
    )
    return [_marked(head, results), markdown_table(("change", "kappa (95 % interval)", "share"), "lrr", rows)]


def _contrasts(rows: list[pd.Series], measure: str) -> str:
    shown = [
        (
            _arms(row),
            with_interval(row["difference"], row["low"], row["high"], digits=3),
            _count(row["seeds"]),
            _p(row["p"]),
            _p(row["p_holm"]),
        )
        for row in rows
    ]
    return markdown_table(("contrast", f"{measure} (95 % interval)", "seeds", "p", "p, Holm"), "lrrrr", shown)


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


def _marked(text: str, results: Committed) -> str:
    """What stands above a table, with the mark of a study that is withdrawn."""
    return " ".join(filter(None, (text, withdrawn_sentence(results.withdrawn))))


def _absence(results: Committed) -> str:
    return f"No results yet: `results/{results.study.name}/` holds none."


def _cases(found: pd.Series, results: Committed):
    """How many cases a row is about; a contrast's are those of its arm."""
    if "n" in found:
        return found["n"]
    arm = results.row("arms", arm=found["arm"]) if "arm" in found else None
    return None if arm is None else arm["n"]


def _ends(found: pd.Series, answer: Answer) -> tuple[float, float]:
    named = f"{answer.column}_low" in found
    return tuple(float(found[f"{answer.column}_{end}" if named else end]) for end in ("low", "high"))


def _estimate(found: pd.Series, answer: Answer) -> str:
    return with_interval(found[answer.column], *_ends(found, answer), digits=3)


def _topic(claim: Claim, of: str) -> str:
    """What a claim, or a number of its training log, is about: its words before the colon are the run."""
    return f"{claim.claim.split(':')[0]}, {of}:" if of else f"{claim.claim}:"


def _value(claim: Claim) -> str:
    if claim.value is None:
        return "no number"
    digits = f"{claim.value:.2f}" if claim.unit == "kappa" else f"{claim.value:g}"
    return f"{digits} (computed)" if claim.difference_of else digits


def _arms(row: pd.Series | dict[str, str]) -> str:
    """An arm, or a contrast, or a difference of differences."""
    first, second = (
        " − ".join(f"`{row[key]}`" for key in keys if row.get(key))
        for keys in (("arm", "baseline"), ("arm2", "baseline2"))
    )
    return f"({first}) − ({second})" if second else first or ", ".join(f"`{value}`" for value in row.values())


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _count(value) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.0f}"


def _link(results: Committed, file: str) -> str:
    return f"[{file}](../results/{results.folder.name}/{file})"


def markdown_table(head: Iterable[str], align: str, rows: Iterable[Iterable[str]]) -> str:
    """A table; `align` has a letter a column: l, r or c."""
    rule = ["---:" if side == "r" else ":---:" if side == "c" else "---" for side in align]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
