"""The results of a study as pages show them: read from the committed tables, never trained for.

A part that a study lacks, or that was not run yet, becomes a sentence that says so: a page fits any study.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from viptt_core.constants import TB_RARE_CLASSES
from viptt_core.errors import DataError
from viptt_core.files import artifact_root
from viptt_core.metrics import cohen_kappa, per_class, roc_auc
from viptt_core.shown import ResultTable, arm_label, with_interval
from viptt_core.study.evidence import FILE as EVIDENCE
from viptt_core.study.evidence import Evidence, read_evidence
from viptt_core.study.outcomes import RECORD, read_outcomes, read_table
from viptt_core.study.plan import PLANS, Arm, Study, load_study
from viptt_core.study.tables import GAP, START
from viptt_core.study.verdict import contrast_name, measure_label, read_verdicts, source_label, verdict_text

NO_VERDICT = "no verdict"  # fewer than 8 seeds, videos not learned, or none was planned
SEPARATOR = ";"  # names of arms hold commas
PER_CLASS = {"precision": "precision", "recall": "recall", "F1": "f1"}
NOT_APART = ("name", "experiment", "start", "seeds")  # fields of an arm that are told otherwise
WORDS = {"n_train": "scans", "n_videos": "videos", "videos": "kind of videos", "scans": "kind of scans"}
FACTOR_WORDS = {GAP: "all changes together", START: "videos", "weights": "class weights"}
WORDS |= {"rotate": "rotation", "temporal": "temporal part", "freeze_backbone": "frozen CNN", "rates": "learning rates"}


@dataclass(frozen=True)
class StudyResults:
    """A plan and what came of it.

    Attributes:
        plan: As its file is now.
        folder: `results/STUDY`.
        record: What `study.json` says; empty before the runs.
        tables: See `tables.make_tables`, by name; those that are there.
        shown: Arms that the pictures of single classes show; (): those of the primary experiment.
    """

    plan: Study
    folder: Path
    record: dict = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    shown: tuple[str, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether the scans are simulated, be it in files."""
        return self.record.get("synthetic", self.plan.scans["dataset"] == "phantom")

    @property
    def follows_plan(self) -> bool:
        """Whether the results are of the plan as its file is now."""
        return self.record.get("plan") == self.plan.digest

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms to show by class."""
        run = set(self.rows("arms").get("arm", ()))
        experiment = self.plan.arm(self.plan.primary[0]).experiment
        return self.shown or tuple(arm.name for arm in self.plan.experiments()[experiment] if arm.name in run)

    @cached_property
    def evidence(self) -> Evidence | None:
        """Importance of slices, where it was measured."""
        path = self.folder / EVIDENCE
        return read_evidence(path) if path.is_file() else None

    def rows(self, table: str, **wanted: str | Iterable[str]) -> pd.DataFrame:
        """The rows of a table whose columns hold what is wanted, or one of several; empty where there are none."""
        rows = self.tables.get(table, pd.DataFrame())
        for column, values in wanted.items() if len(rows) else ():
            rows = rows[rows[column].isin([values] if isinstance(values, str) else list(values))]
        return rows

    @property
    def primary(self) -> pd.DataFrame:
        """The one row of the primary contrast; empty where it was not run."""
        return self.rows("contrasts", family=self.plan.families[0].name)

    def scores(self, arm: str, measure: str = "kappa") -> pd.Series:
        """Score of an arm on the test cases by seed, folds put together; empty where it was not run."""
        path, scores = self.folder / f"{self.plan.arm(arm).experiment}.npz", {}
        if self.rows("arms", arm=arm).empty or not path.is_file():
            return pd.Series(dtype=float)
        outcomes = read_outcomes(path)
        names = outcomes.class_names
        rare = [k for k, name in enumerate(names) if name in TB_RARE_CLASSES]
        for seed, classes in zip(outcomes.of_arm(arm).runs["seed"].unique(), outcomes.by_seed(arm)[0], strict=True):
            labels, predicted = outcomes.labels[classes >= 0], classes[classes >= 0]
            recall = per_class(labels, predicted, len(names))["recall"][rare]
            scores[seed] = cohen_kappa(labels, predicted) if measure == "kappa" else recall.mean()
        return pd.Series(scores)

    def areas(self, arm: str) -> pd.DataFrame:
        """Area under the ROC curve of each class against the rest, a row a seed; empty where the arm was not run."""
        path = self.folder / f"{self.plan.arm(arm).experiment}.npz"
        if self.rows("arms", arm=arm).empty or not path.is_file():
            return pd.DataFrame()
        one, rows = read_outcomes(path).of_arm(arm), []
        for labels, probabilities in (
            (one.labels[there], run[there]) for run, there in zip(one.probabilities, one.tested, strict=True)
        ):
            p = probabilities.astype(float)
            rows.append([roc_auc(1 * (labels == k), p[:, [k, k]] * [-1, 1]) for k in range(len(one.class_names))])
        return pd.DataFrame(rows, columns=one.class_names).groupby(one.runs["seed"]).mean()

    def data(self, *files: str) -> tuple[str, ...]:
        """Paths of committed files of the study, from the artifact's root."""
        return tuple(f"results/{self.plan.name}/{file}" for file in files)

    def absent(self, what: str) -> ResultTable:
        """The sentence in place of a part that is not there."""
        if self.tables:
            return ResultTable(f"{what}: not a part of study '{self.plan.name}', or not run yet.")
        name = self.plan.name
        how = "make paper" if name == "paper" else f"viptt study run {name}, then viptt study pack {name}"
        return ResultTable(f"{what}: study '{name}' is not run yet. Run {how}.")


def open_results(study: str, *, arms: str = "", folder: str | Path = "") -> StudyResults:
    """Read what is committed of a study; without results, the plan alone.

    Args:
        study: Name of a plan or of a folder of results, or the path of a plan, see `plan.load_study`.
        arms: Those that the pictures of single classes show, separated by SEPARATOR.
        folder: Holds `results/`; empty: the artifact's root, or where it has no results of the study, the checkout.

    Raises:
        SettingError: no such plan or arm.
        DataError: a file is damaged.
    """
    roots = [Path(folder)] if folder else [artifact_root(), Path(__file__).resolve().parents[2]]
    places = [root / "results" / Path(study).stem for root in roots]
    place = next((path for path in places if (path / RECORD).is_file()), places[0])
    record, file = {}, study
    if (place / RECORD).is_file():
        try:
            record = json.loads((place / RECORD).read_text(encoding="utf-8"))
            named = place.parents[1] / record["plan_file"]
        except (OSError, ValueError, KeyError) as error:
            remedy = "Take it from the repository again, or make it: viptt study pack STUDY"
            raise DataError(f"cannot be read ({error!r}).", path=place / RECORD, remedy=remedy) from error
        if Path(study).suffix != ".toml":  # an installed package has its plans in another place than the repository
            file = str(named if named.is_file() else PLANS / named.name)
    plan = load_study(file)
    shown = tuple(filter(None, (name.strip() for name in arms.split(SEPARATOR))))
    for name in shown:
        plan.arm(name)
    return StudyResults(
        plan, place, record, {path.stem: read_table(path) for path in sorted(place.glob("*.csv"))}, shown
    )


# --- Words: the same on every page ------------------------------------------------------------------------------
def factor_label(name: str) -> str:
    """A row of the attribution as pages name it."""
    return FACTOR_WORDS.get(name, name)


@dataclass(frozen=True)
class Words:
    """Sentences with a look of their own on a page."""

    text: str
    page: str  #: the same in HTML

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/plain": self.text, "text/html": self.page}


def banner(*studies: StudyResults) -> Words:
    """What stands once at the top of a page: which of its studies are simulated, and what that means."""
    names = [f"'{one.plan.name}'" for one in studies if one.synthetic and one.tables]
    if not names:
        return Words(text := "No result on this page is simulated.", f"<p>{text}</p>")
    some = f"Study {names[0]} is" if len(names) == 1 else f"Studies {' and '.join(names)} are"
    text = f"{some} simulated: its results say nothing about patients. Its figures are marked."
    title = '<p class="admonition-title">Synthetic data</p>'
    return Words(text, f'<div class="admonition important">{title}<p>{html.escape(text)}</p></div>')


def answers(results: StudyResults, *families: str) -> Words | ResultTable:
    """The sentences that answer the questions of a study, or of some families; read from `results/verdict.json`."""
    questions = {}
    for record in read_verdicts(results.folder.parents[1]):
        if record["study"] == results.plan.name and (not families or record["family"] in families):
            questions.setdefault(record["question"], []).append(verdict_text(record))
    if not questions:
        return results.absent(" and ".join(families).capitalize() or "The answers")
    page = ""
    for question, said in questions.items():
        items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in said)
        page += f"<p><strong>{html.escape(question)}</strong></p><ul>{items}</ul>"
    return Words("\n".join("\n".join((asked, *said)) for asked, said in questions.items()), page)


def interval_cells(rows: pd.DataFrame, column: str, *, signed: bool = False) -> list[str]:
    """The cells of a column with its interval, from COLUMN_low and COLUMN_high, or from low and high."""
    prefix = f"{column}_" if f"{column}_low" in rows else ""
    values = zip(rows[column], rows[f"{prefix}low"], rows[f"{prefix}high"], strict=True)
    return [with_interval(*each, signed=signed) for each in values]


# --- Tables, declared -------------------------------------------------------------------------------------------
INTERVAL = "Intervals (95 %) cover training seed and test cases; with one seed, test cases alone."


class Part(NamedTuple):
    """How a table of a study is shown: its columns as "HEADING=COLUMN:FORMAT", what stands above and below it.

    Without "=COLUMN" the column is called as its heading. FORMAT is "interval", "signed" (interval of a difference),
    or one of Python's; none leaves the cell.
    """

    table: str
    caption: str
    columns: str
    text: str = ""


PARTS = {
    "scores": Part(
        "arms",
        "Scores of the arms, mean over seeds",
        "arm; seeds; cases=n; kappa:interval; accuracy:interval; AUC=auc:.2f; recall of rare types=rare_recall:"
        "interval; median=kappa_median:.2f; SD=seed_sd:.3f",
        f"{INTERVAL} Median and SD: of kappa, over seeds.",
    ),
    "runs": Part(
        "arms",
        "How the runs ended",
        "arm; runs; learning rate=learning_rate:g; epoch kept=best_epoch:g; ended by the limit of epochs=at_limit; "
        "named one class only=collapsed",
        "Learning rate, epoch: medians. Of the learning rates of the plan each run takes the one of lowest validation "
        "loss. A run that the limit of epochs ended might have gained more. One that names a single class for every "
        "case has collapsed: it counts.",
    ),
    "contrasts": Part(
        "contrasts",
        "Contrasts",
        "family; contrast; difference:signed; verdict; measure; interval at=level:.1%; seeds; cases=n",
        "The more contrasts a family has, the wider its intervals: all of them hold in at least 95 of 100 studies.",
    ),
    "attribution": Part(
        "attribution",
        "Where the gap within the frozen network comes from",
        "factor; kappa=points:signed; interval at=level:.1%; share of the gap in %=percent:.0f",
        "Shapley values: what turning a factor on adds, averaged over all orders; they add up to the gap. Shares stand "
        "where the interval of the gap excludes 0.",
    ),
    "trend": Part(
        "trend",
        "Kappa by number of labelled scans and of videos",
        "varied=experiment; starts from=start; labelled scans=n_train; videos=n_videos; seeds; kappa:interval",
        f"{INTERVAL} Cohorts overlap: intervals, no verdict.",
    ),
    "sources": Part(
        "sources",
        "What was learned of the videos: accuracy on those held out",
        "videos=source; arm; classes; seeds; held out=n; groups; accuracy:interval; largest class=chance:.2f; "
        "size of the picture=size_accuracy:.2f; learned",
        "Learned: the lower end of the interval (95 %, over groups) lies above the largest class and above what the "
        "size of the picture gives.",
    ),
    "baselines": Part(
        "baselines",
        "Without a network",
        "baseline=arm; cases=n; kappa:interval; accuracy:interval; AUC=auc:.2f",
        "Intervals (95 %): over test cases.",
    ),
    "classes": Part(
        "per_class",
        "Scores by class, mean over seeds",
        "class; arm; cases=support; AUC=auc:.2f; precision:interval; recall:interval; F1=f1:interval",
        f"AUC: the class against all others. {INTERVAL}",
    ),
    "evidence": Part(
        "evidence",
        "Importance on slices with the finding",
        "arm; measure; scans; on the finding=observed:interval; chance:.2f; above chance=gain:signed",
        "Chance: the same importance on the findings of other patients of the class. Intervals (95 %): over scans, of "
        "one network an arm.",
    ),
    "power": Part(
        "power",
        "What so many test scans can show",
        "question; test scans=n; true kappa=kappa:.2f; answer=value:interval",
        "Simulated: no network is in it, one run an arm, what seeds add is left out.",
    ),
    "cost": Part(
        "cost",
        "What it cost",
        "experiment; runs; fits; core-hours=hours_total:.2f; on=device",
        "A run fits every learning rate. Hours are of the clock, one thread a fit.",
    ),
    "missing": Part("missing", "Planned arms that were not run", "arm"),
}


# How the names in a column are shown.
LABELS = {
    "arm": arm_label,
    "start": arm_label,
    "factor": factor_label,
    "source": source_label,
    "measure": measure_label,
}


def show_table(results: StudyResults, name: str, **wanted: str | Sequence[str]) -> ResultTable:
    """One of PARTS, with the rows whose columns hold what is wanted, such as `family="controls"`; "scores" without it
    shows the primary experiment, and what needs no network below. A sentence where the study has none.
    """
    part = PARTS[name]
    beside = results.rows("baselines") if name == "scores" and not wanted else pd.DataFrame()
    if name == "scores" and not wanted:
        wanted = {"experiment": results.plan.arm(results.plan.primary[0]).experiment}
    if name == "classes":
        wanted = {"arm": results.arms} | wanted
    rows = results.rows(part.table, **wanted)
    if rows.empty:
        return results.absent(part.caption)
    if name == "contrasts":
        names = [contrast_name(row) for row in rows.to_dict("records")]
        rows = rows.assign(contrast=names, verdict=rows["verdict"].replace("", NO_VERDICT))
    rows = pd.concat([rows, beside], ignore_index=True)
    cells = {}
    for column in part.columns.split("; "):
        heading, _, form = column.partition(":")
        heading, _, named = heading.partition("=")
        cells[heading] = _cells(rows, named or heading, form)
    return ResultTable(part.text, pd.DataFrame(cells), part.caption)


def _cells(rows: pd.DataFrame, column: str, form: str) -> pd.Series | list[str]:
    """A column as text, see `Part`; a number that is not there is an empty cell."""
    if column in LABELS:
        return rows[column].map(LABELS[column])
    if not form and rows[column].dtype == float and not (rows[column] % 1).any():  # counts, some of which are not there
        form = ".0f"
    if form in ("interval", "signed"):
        return interval_cells(rows, column, signed=form == "signed")
    if rows[column].dtype == bool:
        return rows[column].map({True: "yes", False: "no"})
    return rows[column].map(lambda value: "" if pd.isna(value) else f"{value:{form}}") if form else rows[column]


# --- The plan ---------------------------------------------------------------------------------------------------
def plan_table(results: StudyResults) -> ResultTable:
    """Every arm with what sets it apart, seeds planned and run; below it the rules."""
    plan, run = results.plan, results.rows("arms")
    run = dict(zip(run.get("arm", ()), run.get("seeds", ()), strict=True))
    lines = [
        {"arm": arm_label(arm.name), "in files and commands": arm.name, "what sets it apart": _apart(arm)}
        | {"seeds planned": plan.seeds_of(arm), "seeds run": run.get(arm.name, 0)}
        for arm in plan.arms
    ]
    followed = results.record.get("plan", plan.digest)
    rates = (
        f"Of the learning rates {', '.join(f'{rate:g}' for rate in plan.rates)} each seed and fold takes the one of "
    )
    text = (
        f"Primary contrast: {' against '.join(map(arm_label, plan.primary))}, by {plan.families[0].measure}. "
        "No seeds are added.",
        f"{rates}lowest validation loss." if plan.rates else "Learning rates are the preset's.",
        f"Plan: {Path(plan.file).name}, digest {plan.digest}.",
        "" if followed == plan.digest else f"The results follow another plan than this one, digest {followed}.",
    )
    return ResultTable(" ".join(filter(None, text)), pd.DataFrame(lines), plan.about)


def families_table(results: StudyResults) -> ResultTable:
    """The questions that the plan asks, how many contrasts answer each, and at which level its intervals are."""
    lines = [
        {"family": one.name, "question": one.question, "measure": one.measure, "contrasts": len(one.contrasts)}
        | {"intervals at": f"{1 - 0.05 / len(one.contrasts):.1%}", "verdict": "yes" if one.verdict else "no"}
        for one in results.plan.families
    ]
    return ResultTable("", pd.DataFrame(lines), "The questions, in the plan's order")


def _apart(arm: Arm) -> str:
    """What an arm states that is not as in the plainest one, in words."""
    start = arm_label(arm.start)
    said = [] if arm_label(arm.name).startswith(start) else [f"starts from {start}"]
    for one in fields(Arm):
        value, name = getattr(arm, one.name), WORDS.get(one.name, one.name.replace("_", " "))
        if one.name in NOT_APART or value == one.default:
            continue
        value = " and ".join(f"{each}" for each in value) if isinstance(value, tuple) else value
        said.append(name if value is True else f"no {name}" if value is False else f"{name}: {value}")
    return ", ".join(said)
