"""The results of a study as pages show them: read from the committed tables, never trained for.

A part that a study lacks, or that was not run yet, becomes a sentence that says so: a page fits any study.
"""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core.errors import DataError
from viptt_core.files import artifact_root
from viptt_core.metrics import confusion_matrix
from viptt_core.presets import read_toml
from viptt_core.shown import WORDS, ResultTable, arm_label, label, with_ends, with_interval
from viptt_core.statistics import score_tables
from viptt_core.study.evidence import FILE as EVIDENCE
from viptt_core.study.evidence import Evidence, read_evidence
from viptt_core.study.outcomes import RECORD, read_outcomes, read_table
from viptt_core.study.plan import PLANS, Arm, Study, load_study
from viptt_core.study.tables import Tested, gather
from viptt_core.study.verdict import by_question, contrast_name, read_verdicts

NO_VERDICT = "no verdict"  # fewer than 8 seeds, videos not learned, or none was planned
SEPARATOR = ";"  # names of arms hold commas
NOT_APART = ("name", "experiment", "start", "seeds")  # fields of an arm that are told otherwise


class AbsentError(Exception):
    """A study has no part of this name, or it was not run yet."""


def or_absent(show: Callable) -> Callable:
    """Let a function of a study's results give the sentence of `StudyResults.absent` for a part that is `needed`."""

    @functools.wraps(show)
    def shown(results: StudyResults, *args, **settings):
        try:
            return show(results, *args, **settings)
        except AbsentError as error:
            return results.absent(str(error))

    return shown


@dataclass(frozen=True)
class StudyResults:
    """A plan and what came of it."""

    plan: Study  #: as its file is now
    folder: Path  #: `results/STUDY`
    record: dict = field(default_factory=dict)  #: what `study.json` says; empty before the runs
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  #: those of `tables.make_tables` that are there
    #: Arms that the pictures of single classes show; where none, those of the primary experiment.
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
        main = self.plan.experiments()[self.plan.main]
        return self.shown or tuple(arm.name for arm in main if arm.name in self.seeds)

    @property
    def seeds(self) -> dict[str, int]:
        """Seeds of each arm that was run."""
        rows = self.rows("arms")
        return dict(zip(rows["arm"], rows["seeds"], strict=True)) if len(rows) else {}

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

    def needed(self, what: str, table: str, **wanted: str | Iterable[str]) -> pd.DataFrame:
        """The same for a page that shows `what`; where there are none `or_absent` says so."""
        rows = self.rows(table, **wanted)
        if rows.empty:
            raise AbsentError(what)
        return rows

    @cached_property
    def tested(self) -> dict[str, Tested]:
        """By arm its predictions, where they are here."""
        files = {name: self.folder / f"{name}.npz" for name in self.plan.experiments()}
        return gather(self.plan, {name: read_outcomes(path) for name, path in files.items() if path.is_file()})

    def scores(self, arm: str, measure: str = "kappa") -> pd.Series:
        """Score of an arm on the test cases by seed, folds put together; empty where it was not run."""
        if (one := self.tested.get(arm)) is None:
            return pd.Series(dtype=float)
        classes, k = one.by_seed(arm)[0], len(one.class_names)
        tables = [confusion_matrix(one.labels[named >= 0], named[named >= 0], k) for named in classes]
        statistic, of_classes = one.measured(measure)
        return pd.Series(score_tables(statistic, np.stack(tables), of_classes), one.runs["seed"].unique())

    def areas(self, arm: str) -> pd.DataFrame:
        """Area under the ROC curve of each class against the rest, a row a seed; empty where the arm was not run."""
        if (one := self.tested.get(arm)) is None:
            return pd.DataFrame()
        return pd.DataFrame(one.areas, columns=one.class_names).groupby(one.runs["seed"]).mean()

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


# --- Sentences and cells ----------------------------------------------------------------------------------------------
def banner(*studies: StudyResults) -> ResultTable:
    """What stands once at the top of a page: which of its studies are simulated, and what that means."""
    names = [f"'{one.plan.name}'" for one in studies if one.synthetic and one.tables]
    if not names:
        return ResultTable("No result on this page is simulated.")
    some = f"Study {names[0]} is" if len(names) == 1 else f"Studies {' and '.join(names)} are"
    text = f"{some} simulated: its results say nothing about patients. Its figures are marked."
    title = '<p class="admonition-title">Synthetic data</p>'
    return ResultTable(text, page=f'<div class="admonition important">{title}<p>{html.escape(text)}</p></div>')


def answers(results: StudyResults, *families: str) -> ResultTable:
    """The sentences that answer the questions of a study, or of some families; read from `results/verdict.json`."""
    records = [one for one in read_verdicts(results.folder.parents[1]) if one["study"] == results.plan.name]
    said = by_question(one for one in records if not families or one["family"] in families)
    if not said:
        return results.absent(" and ".join(families).capitalize() or "The answers")
    page = ""
    for question, sentences in said.items():
        items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
        page += f"<p><strong>{html.escape(question)}</strong></p><ul>{items}</ul>"
    return ResultTable("\n".join("\n".join((asked, *sentences)) for asked, sentences in said.items()), page=page)


def interval_cells(rows: pd.DataFrame, column: str, *, signed: bool = False) -> list[str]:
    """The cells of a column with its interval, see `shown.with_ends`."""
    return [with_interval(*with_ends(row, column), signed=signed) for row in rows.to_dict("records")]


# --- Tables, declared -------------------------------------------------------------------------------------------
PARTS = read_toml(Path(__file__).with_suffix(".toml"))
# How the names in a column are shown.
LABELS = {"arm": arm_label, "start": arm_label, "factor": label, "source": label, "measure": label}


def show_table(results: StudyResults, name: str, **wanted: str | Sequence[str]) -> ResultTable:
    """One of PARTS, with the rows whose columns hold what is wanted, such as `family="controls"`; "scores" without it
    shows the primary experiment, and what needs no network below. A sentence where the study has none.
    """
    part, beside = PARTS[name], pd.DataFrame()
    if name == "scores" and not wanted:
        wanted, beside = {"experiment": results.plan.main}, results.rows("baselines")
    if name == "classes":
        wanted = {"arm": results.arms} | wanted
    rows = results.rows(part["table"], **wanted)
    if rows.empty:
        return results.absent(part["caption"])
    if name == "contrasts":
        names = [contrast_name(row) for row in rows.to_dict("records")]
        rows = rows.assign(contrast=names, verdict=rows["verdict"].replace("", NO_VERDICT))
    rows = pd.concat([rows, beside], ignore_index=True)
    cells = {}
    for column in part["columns"].split("; "):
        heading, _, form = column.partition(":")
        heading, _, named = heading.partition("=")
        cells[heading] = _cells(rows, named or heading, form)
    return ResultTable(part.get("text", ""), pd.DataFrame(cells), part["caption"])


def _cells(rows: pd.DataFrame, column: str, form: str) -> pd.Series | list[str]:
    """A column as text, see `report.toml`; a number that is not there is an empty cell."""
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
    plan = results.plan
    lines = [
        {"arm": arm_label(arm.name), "in files and commands": arm.name, "what sets it apart": _apart(arm)}
        | {"seeds planned": plan.seeds_of(arm), "seeds run": results.seeds.get(arm.name, 0)}
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
        value, name = getattr(arm, one.name), WORDS["fields"].get(one.name, one.name.replace("_", " "))
        if one.name in NOT_APART or value == one.default:
            continue
        value = " and ".join(f"{each}" for each in value) if isinstance(value, tuple) else value
        said.append(name if value is True else f"no {name}" if value is False else f"{name}: {value}")
    return ", ".join(said)
