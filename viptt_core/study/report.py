"""The results of a study as pages show them: read from the committed predictions, never trained for.

A part that a study lacks, or whose runs are not there yet, becomes a sentence that says so: a page fits any study.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core.constants import TB_RARE_CLASSES
from viptt_core.errors import DataError
from viptt_core.files import artifact_root
from viptt_core.metrics import cohen_kappa, per_class
from viptt_core.shown import ResultTable, with_interval
from viptt_core.study import ledger
from viptt_core.study.outcomes import RECORD, Outcomes, read_committed, read_outcomes, withdrawal, withdrawn_sentence
from viptt_core.study.plan import Study, load_study
from viptt_core.study.pointing import Evidence, read_evidence
from viptt_core.study.tables import make_tables

VERDICTS = {1: "better", -1: "worse", 0: "cannot be told apart", None: "no interval"}
EVIDENCE_FILE = "evidence.npz"
SYNTHETIC = "Synthetic data: says nothing about patients."
INTERVAL = "Intervals (95 %) cover training seed and test cases; with one seed, test cases alone."
SEPARATOR = ";"  # names of arms hold commas


@dataclass(frozen=True)
class StudyResults:
    """A plan and what came of it.

    Attributes:
        plan: See `plan.Study`.
        outcomes: By experiment, as far as it was run; empty where nothing was.
        tables: See `tables.make_tables`.
        record: What `study.json` says: plan, commit, machine.
        evidence: Maps, where they were made.
        shown: Arms that the pictures of single classes show; empty: those of the primary experiment.
    """

    plan: Study
    outcomes: dict[str, Outcomes]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    record: dict = field(default_factory=dict)
    evidence: Evidence | None = None
    shown: tuple[str, ...] = ()

    @property
    def synthetic(self) -> bool:
        return any(outcomes.synthetic for outcomes in self.outcomes.values())

    @property
    def withdrawn(self) -> str:
        """What marks all numbers of the study, see `committed.withdrawal`; "" where they stand."""
        return withdrawal(self.record)

    @property
    def marks(self) -> dict[str, bool | str]:
        """What must stand on every picture of the study: arguments of `figures.Picture`."""
        return {"synthetic": self.synthetic, "withdrawn": self.withdrawn}

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms to show by class."""
        if self.shown:
            return self.shown
        run = set(self.rows("arms").get("arm", ()))
        experiment = self.plan.arm(self.plan.primary.arm).experiment
        return tuple(arm.name for arm in self.plan.experiments()[experiment] if arm.name in run)

    def rows(self, table: str) -> pd.DataFrame:
        """A table; empty where the study has none."""
        return self.tables.get(table, pd.DataFrame())

    def contrasts(self, *names: str, measure: str = "") -> pd.DataFrame:
        """Rows of the contrasts of families, chosen by their names or their measure; all without either."""
        rows = self.rows("contrasts")
        if rows.empty:
            return rows
        rows = rows[rows["family"].isin(names)] if names else rows
        return rows[rows["measure"] == measure] if measure else rows

    def scores(self, arm: str, measure: str = "kappa") -> pd.Series:
        """Score of an arm on the test cases by seed; empty where it was not run."""
        outcomes = self.outcomes.get(self.plan.arm(arm).experiment)
        if outcomes is None or not (outcomes.runs["arm"] == arm).any():
            return pd.Series(dtype=float)
        seeds = sorted(outcomes.runs.loc[outcomes.runs["arm"] == arm, "seed"].unique())
        values = [
            _score(measure, outcomes.labels[tested], classes[tested], outcomes.class_names)
            for classes in outcomes.by_seed(arm)[0]
            for tested in [classes >= 0]
        ]
        return pd.Series(values, index=seeds)

    def data(self, *files: str) -> tuple[str, ...]:
        """Paths of committed files of the study, from the artifact's root."""
        return tuple(f"results/{self.plan.name}/{file}" for file in files)

    def absent(self, what: str) -> ResultTable:
        """The sentence in place of a part that is not there."""
        if not self.outcomes:
            return ResultTable(f"{what}: no results of study '{self.plan.name}' here. {_how_to_run(self.plan.name)}")
        return ResultTable(f"{what}: not a part of study '{self.plan.name}', or not run yet.")

    def footer(self, *sentences: str) -> str:
        synthetic = SYNTHETIC if self.synthetic else ""
        return " ".join(filter(None, (*sentences, synthetic, withdrawn_sentence(self.withdrawn))))


def open_results(study: str, *, arms: str = "", folder: str = "", optional: bool = False) -> StudyResults:
    """Read the committed predictions of a study and compute its tables from them.

    Args:
        study: Name of a plan, or the path of one, see `plan.load_study`.
        arms: Those that the pictures of single classes show, separated by SEPARATOR.
        folder: Holds a folder a study; empty: `results` of the artifact's root, or of the checkout.
        optional: Without results return none: every part then is a sentence. Otherwise that is an error.

    Raises:
        SettingError: no such plan or arm.
        DataError: nothing was run yet, or a file is damaged.
    """
    plan = load_study(study)
    shown = tuple(filter(None, (name.strip() for name in arms.split(SEPARATOR))))
    for name in shown:
        plan.arm(name)
    roots = [Path(folder)] if folder else [root / "results" for root in (artifact_root(), _checkout())]
    lies = next((root / plan.name for root in roots if any((root / plan.name).glob("*.npz"))), roots[0] / plan.name)
    files = {name: lies / f"{name}.npz" for name in plan.experiments()}
    outcomes = {name: read_outcomes(path) for name, path in files.items() if path.is_file()}
    if not outcomes:
        if optional:
            return StudyResults(plan, {}, shown=shown)
        raise DataError("holds no results of this study: nothing was run.", path=lies, remedy=_how_to_run(plan.name))
    evidence = read_evidence(lies / EVIDENCE_FILE) if (lies / EVIDENCE_FILE).is_file() else None
    record = read_committed(plan.name, lies.parent.parent).record if (lies / RECORD).is_file() else {}
    return StudyResults(plan, outcomes, make_tables(plan, outcomes, evidence), record, evidence, shown)


# --- Words ----------------------------------------------------------------------------------------------------
def reading(low: float, high: float, words: dict[int | None, str], withdrawn: str = "") -> str:
    """What an interval says, one of `words` by `side`; of withdrawn results only that they are."""
    return withdrawn or words[side(low, high)]


def side(low: float, high: float) -> int | None:
    """On which side of 0 an interval lies: 1, -1, or 0 where it includes 0; None where there is no interval."""
    if np.isnan(low) or np.isnan(high):
        return None
    return int(low > 0) - int(high < 0)


def contrast_name(row) -> str:
    """A contrast, or a difference of differences, in words; `row` is one of the table "contrasts"."""
    plain = f"{row.arm} against {row.baseline}"
    return f"({plain}) against ({row.arm2} against {row.baseline2})" if row.arm2 else plain


def verdict(results: StudyResults, *families: str) -> ResultTable:
    """A sentence for each contrast of some families: what its interval says, and the numbers.

    Args:
        results: Of the study.
        families: Names; none takes that of the primary contrast.
    """
    rows = results.contrasts(*families) if families else primary_row(results)
    if rows.empty:
        return results.absent(" and ".join(families).capitalize() or "The primary contrast")
    said = "\n".join(_sentence(row, results.withdrawn) for _, row in rows.iterrows())
    return ResultTable(results.footer(said))


def primary_row(results: StudyResults) -> pd.DataFrame:
    """The row of the primary contrast; empty where it was not run."""
    rows, rule = results.contrasts(), results.plan.primary
    if rows.empty:
        return rows
    same = (rows["arm"] == rule.arm) & (rows["baseline"] == rule.baseline) & (rows["measure"] == rule.measure)
    return rows[same & (rows["arm2"] == "")].iloc[:1]


def _sentence(row: pd.Series, withdrawn: str) -> str:
    said = ledger.verdict(row, withdrawn).replace("`", "")
    signed = with_interval(row["difference"], row["low"], row["high"], signed=True)
    p = f", p {p_text(row['p_holm'])} after Holm's correction" if not np.isnan(row["p_holm"]) else ""
    return f"{said}. {row['measure'].capitalize()} {signed}{p}, {seeds_text(row['seeds'])}."


def interval_cells(rows: pd.DataFrame, column: str, *, prefix: bool = True, signed: bool = False) -> list[str]:
    """The cells of a column with its interval, from COLUMN_low and COLUMN_high, or from low and high without prefix."""
    columns = [rows[column], *(rows[f"{column}_{end}" if prefix else end] for end in ("low", "high"))]
    return [with_interval(*values, signed=signed) for values in zip(*columns, strict=True)]


def p_text(p: float) -> str:
    """A p value to two digits, "< 0.001" below that, "" for nan."""
    return "" if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.2g}"


def seeds_text(seeds: int) -> str:
    return f"{seeds} seed{'' if seeds == 1 else 's'}"


# --- Reading --------------------------------------------------------------------------------------------------
def _score(measure: str, y_true: np.ndarray, y_pred: np.ndarray, class_names: tuple[str, ...]) -> float:
    if measure == "kappa":
        return cohen_kappa(y_true, y_pred)
    rare = [k for k, name in enumerate(class_names) if name in TB_RARE_CLASSES]
    return float(per_class(y_true, y_pred, len(class_names))["recall"][rare].mean()) if rare else float("nan")


def _checkout() -> Path:
    return Path(__file__).resolve().parents[2]


def _how_to_run(name: str) -> str:
    command = "make paper" if name == "paper" else f"viptt study run {name}, then viptt study pack {name}"
    return f"Run {command}."
