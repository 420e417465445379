"""The results of a study as pages show them: read from the committed predictions, never trained for.

A part that a study lacks, or whose runs are not there yet, becomes a sentence that says so: a page fits any study.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core.constants import TB_RARE_CLASSES
from viptt_core.errors import DataError
from viptt_core.files import artifact_root
from viptt_core.metrics import cohen_kappa, per_class
from viptt_core.results import SCORE_COLUMNS
from viptt_core.shown import ResultTable, p_text, side, with_interval
from viptt_core.study.outcomes import RECORD, Outcomes, read_committed, read_outcomes, withdrawal, withdrawn_sentence
from viptt_core.study.plan import Arm, Study, load_study
from viptt_core.study.pointing import Evidence, read_evidence
from viptt_core.study.tables import make_tables

ALPHA = 0.05
VERDICTS = {1: "helps", -1: "hurts", 0: "cannot be told apart", None: "no interval"}
FOLLOWS = {1: "follows the patient", -1: "avoids the finding", 0: "no more than chance", None: "no interval"}
EVIDENCE_FILE = "evidence.npz"
SYNTHETIC = "Synthetic data: says nothing about patients."
INTERVAL = "Intervals (95 %) cover training seed and test cases; with one seed, test cases alone."
SEPARATOR = ";"  # names of arms hold commas
PER_CLASS = {"precision": "precision", "recall": "recall", "F1": "f1"}
EVIDENCE_MEASURES = {"pointing": "maximum on the finding", "mass": "share of the evidence"}
WORDS = {"rate_of": "learning rate of", "n_train": "scans", "scans": "kind of scans", "rotate": "rotation"}
NOT_APART = ("name", "experiment", "start", "seeds")  # fields of an arm that have a column of their own


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
        if outcomes is None or arm not in set(outcomes.runs["arm"]):
            return pd.Series(dtype=float)
        scores, names = {}, outcomes.class_names
        rare = [k for k, name in enumerate(names) if name in TB_RARE_CLASSES]
        for seed, classes in zip(outcomes.of_arm(arm).runs["seed"].unique(), outcomes.by_seed(arm)[0], strict=True):
            labels, predicted = outcomes.labels[classes >= 0], classes[classes >= 0]
            recall = per_class(labels, predicted, len(names))["recall"][rare].mean() if rare else np.nan
            scores[seed] = cohen_kappa(labels, predicted) if measure == "kappa" else recall
        return pd.Series(scores)

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
    roots = (
        [Path(folder)]
        if folder
        else [root / "results" for root in (artifact_root(), Path(__file__).resolve().parents[2])]
    )
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


# --- Words: the same on every page ------------------------------------------------------------------------------
def contrast_name(row) -> str:
    """A contrast, or a difference of differences, in words; `row` is one of the table "contrasts"."""
    plain = f"{row.arm} against {row.baseline}"
    return f"({plain}) against ({row.arm2} against {row.baseline2})" if getattr(row, "arm2", "") else plain


def sentence(row: pd.Series, withdrawn: str = "") -> str:
    """What a row of the table "contrasts" says by its interval; nothing with the mark of a study that is withdrawn."""
    name, lies = contrast_name(row), side(row["low"], row["high"])
    if withdrawn or lies is None:
        return f"{name}: nothing is said ({withdrawn or VERDICTS[None]})"
    if lies == 0:
        return f"{name}: {VERDICTS[0]}, the interval includes 0"
    # An interval is of one contrast, the corrected p of the family: it may be the stricter.
    holm = ", though not after correcting for the other contrasts of its family" if row["p_holm"] > ALPHA else ""
    return f"{name}: {VERDICTS[lies]}, the interval lies {'above' if lies > 0 else 'below'} 0{holm}"


def verdict(results: StudyResults, *families: str) -> ResultTable:
    """What the interval of each contrast of some families says, in a sentence; by default the primary contrast."""
    rows = results.contrasts(*families) if families else primary_row(results)
    if rows.empty:
        return results.absent(" and ".join(families).capitalize() or "The primary contrast")
    said = []
    for _, row in rows.iterrows():
        p = f", p {p_text(row['p_holm'])} after Holm's correction" if row["p_holm"] >= 0 else ""
        shown = with_interval(row["difference"], row["low"], row["high"], signed=True)
        seeds = f"{row['seeds']} seed{'' if row['seeds'] == 1 else 's'}"
        said.append(f"{sentence(row, results.withdrawn)}. {row['measure'].capitalize()} {shown}{p}, {seeds}.")
    return ResultTable(results.footer("\n".join(said)))


def primary_row(results: StudyResults) -> pd.DataFrame:
    """The row of the primary contrast; empty where it was not run."""
    rows, rule = results.contrasts(measure=results.plan.primary.measure), results.plan.primary
    if rows.empty:
        return rows
    return rows[(rows["arm"] == rule.arm) & (rows["baseline"] == rule.baseline) & (rows["arm2"] == "")].iloc[:1]


def interval_cells(rows: pd.DataFrame, column: str, *, signed: bool = False) -> list[str]:
    """The cells of a column with its interval, from COLUMN_low and COLUMN_high, or from low and high."""
    prefix = f"{column}_" if f"{column}_low" in rows else ""
    values = zip(rows[column], rows[f"{prefix}low"], rows[f"{prefix}high"], strict=True)
    return [with_interval(*each, signed=signed) for each in values]


def _cells(rows: pd.DataFrame, column: str, form: str) -> pd.Series | list[str]:
    """A column as text: with its interval, as p values, in one of Python's formats, or as it is."""
    if form in ("interval", "signed"):
        return interval_cells(rows, column, signed=form == "signed")
    return rows[column].map(p_text if form == "p" else f"{{:{form}}}".format) if form else rows[column]


def _worded(results: StudyResults, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of contrasts with their names and what their intervals say."""
    names = [contrast_name(row) for row in rows.itertuples()]
    return rows.assign(contrast=names, says=_readings(results, rows, VERDICTS)) if len(rows) else rows


def _readings(results: StudyResults, rows: pd.DataFrame, words: dict, prefix: str = "") -> list[str]:
    """What intervals say, each one of `words` by `side`; of withdrawn results only that they are."""
    ends = zip(rows[f"{prefix}low"], rows[f"{prefix}high"], strict=True)
    return [results.withdrawn or words[side(*each)] for each in ends]


# --- The plan, and how the runs went --------------------------------------------------------------------------
def _shown(
    results: StudyResults, rows: pd.DataFrame, caption: str, columns: dict[str, str], *sentences: str
) -> ResultTable:
    """A table with sentences below it, or a sentence alone where there are no rows.

    `columns` are headings with "COLUMN FORMAT", see `_cells`; empty sentences are left out.
    """
    if rows.empty:
        return results.absent(caption)
    cells = {heading: _cells(rows, *column.partition(" ")[::2]) for heading, column in columns.items()}
    return ResultTable(results.footer(*sentences), pd.DataFrame(cells), caption)


def plan_table(results: StudyResults) -> ResultTable:
    """Every arm with what sets it apart, seeds planned and run; below it the rules."""
    plan, rule = results.plan, results.plan.primary
    run = _runs(results).groupby("arm")["seed"].nunique()
    lines = [
        {
            "experiment": arm.experiment,
            "arm": arm.name,
            "start": arm.start,
            "what sets it apart": _apart(arm),
            "seeds planned": plan.seeds_of(arm),
            "seeds run": run.get(arm.name, 0),
        }
        for arm in plan.arms
    ]
    stop, rates = "No seeds are added.", "Learning rates are the preset's."
    if rule.width:
        stop = (
            f"Seeds are added to both, {rule.more} at a time, until its 95 % interval is no wider than "
            f"{rule.width:g}, at most {rule.most}; its value is not looked at."
        )
    if plan.learning_rates:
        rates = (
            f"Each arm takes, of the learning rates {', '.join(map(str, plan.learning_rates))}, the one with the "
            f"lowest validation loss in a pilot run (seed {plan.pilot_seed}) that no result uses."
        )
    followed = results.record.get("plan", plan.digest)
    other = "" if followed == plan.digest else f"The results follow another plan than this one, digest {followed}."
    return ResultTable(
        results.footer(
            f"Primary contrast: {rule.arm} against {rule.baseline}, by {rule.measure}. {stop} {rates} The p values of "
            f"a family of contrasts are corrected together (Holm). Plan: {Path(plan.file).name}, digest {plan.digest}.",
            other,
        ),
        pd.DataFrame(lines),
        plan.about,
    )


def families_table(results: StudyResults) -> ResultTable:
    """The questions that the plan asks, and how many contrasts answer each."""
    lines = [
        {"family": one.name, "question": one.question, "measure": one.measure, "contrasts": len(one.contrasts)}
        for one in results.plan.families
    ]
    return ResultTable("", pd.DataFrame(lines), "The questions, in the plan's order")


def endings_table(results: StudyResults) -> ResultTable:
    """How the runs ended: learning rates, epochs kept, runs cut off by the epoch limit."""
    arms, runs = results.rows("arms"), _runs(results)["arm"].value_counts()
    arms = arms.assign(runs=arms["arm"].map(runs)) if len(arms) else arms
    columns = {"arm": "arm", "runs": "runs", "learning rate": "learning_rate g", "epoch kept (median)": "best_epoch g"}
    cut_off = f"{arms['at_limit'].sum():.0f} of {runs.sum()} runs" if len(arms) else ""
    said = f"{cut_off} were ended by the epoch limit, not by stopping early."
    return _shown(results, arms, "How the runs ended", columns | {"at the epoch limit": "at_limit"}, said)


def cost_table(results: StudyResults) -> ResultTable:
    """Runs, core-hours, wall time, memory and device of each experiment."""
    cost, record = results.rows("cost"), results.record
    columns = {
        "experiment": "experiment",
        "runs": "runs",
        "core-seconds a run": "core_seconds .0f",
        "core-hours": "hours_total .2f",
        "hours from first to last": "wall_hours .2f",
        "peak memory (MB)": "peak_memory_mb .0f",
        "device": "device",
    }
    pilots = (
        f"{record.get('pilot_runs')} pilot runs for the learning rates, {record.get('pilot_seconds', 0) / 3600:.1f}"
    )
    return _shown(
        results,
        cost,
        "What it cost",
        columns,
        f"In all {cost['runs'].sum()} runs, {cost['hours_total'].sum():.1f} core-hours." if len(cost) else "",
        "Seconds are those of the clock, one thread a run: where runs shared the cores, waiting is in them.",
        f"Besides, {pilots} core-hours." if record.get("pilot_runs") else "",
        *(f"Commit {commit[:12]}." for commit in record.get("commits", ())),
    )


# --- Results --------------------------------------------------------------------------------------------------
def arms_table(results: StudyResults, *experiments: str) -> ResultTable:
    """Scores of the arms of some experiments; without any named, of the primary contrast's."""
    arms, experiments = results.rows("arms"), experiments or (results.plan.arm(results.plan.primary.arm).experiment,)
    arms = arms[arms["experiment"].isin(experiments)] if len(arms) else arms
    columns = {
        "arm": "arm",
        "seeds": "seeds",
        "kappa": "kappa interval",
        "accuracy": "accuracy interval",
        "AUC": "auc .2f",
        "recall of rare classes": "rare_recall interval",
        "SD of kappa": "seed_sd .3f",
    }
    said = f"{_cases(arms)} {INTERVAL} SD: over seeds."
    return _shown(results, arms, "Scores of the arms, mean over seeds", columns, said)


def contrasts_table(results: StudyResults, *families: str, measure: str = "") -> ResultTable:
    """Differences of the contrasts of some families, chosen by name or by measure, with what their intervals say."""
    rows = _worded(results, results.contrasts(*families, measure=measure))
    columns = {name: name for name in ("family", "contrast", "measure", "seeds")}
    columns |= {"difference": "difference signed", "p": "p p", "p (Holm)": "p_holm p", "verdict": "says"}
    said = "An interval that includes 0 tells nothing apart. Holm: corrected for the contrasts of the family."
    return _shown(results, rows, " and ".join(families).capitalize() or "Contrasts", columns, said, INTERVAL)


def attribution_table(results: StudyResults) -> ResultTable:
    """What each factor contributes to the gap between the paper's two arms."""
    rows = results.rows("attribution")
    known = len(rows) and rows["percent"].notna().any()
    shares = [f"{value:.0f} %" if known else "" for value in rows.get("percent", ())]
    return _shown(
        results,
        rows.assign(share=shares),
        "Where the gap comes from",
        {"factor": "factor", "kappa": "points signed", "share of the gap": "share"},
        "Shapley values: what turning a factor on adds, averaged over all orders; they add up to the gap.",
        "" if known else "No shares: the interval of the gap includes 0.",
        INTERVAL,
    )


def efficiency_table(results: StudyResults) -> ResultTable:
    """Kappa by number of labelled scans."""
    columns = {"start": "start", "labelled scans": "n_train", "seeds": "seeds", "kappa": "kappa interval"}
    caption = "Kappa by number of scans that train and validate"
    return _shown(results, results.rows("efficiency"), caption, columns, INTERVAL)


def power_table(results: StudyResults) -> ResultTable:
    """What test sets of the paper's size can show, by simulation."""
    columns = {"question": "question", "test scans": "n", "true kappa": "kappa .2f", "answer": "value interval"}
    said = "Simulated: no network is in it, one run an arm, what seeds add is left out."
    return _shown(results, results.rows("power"), "What so many test scans can show", columns, said)


def folds_table(results: StudyResults) -> ResultTable:
    """Differences over folds, with the test that knows that training sets overlap."""
    rows = _worded(results, results.rows("folds"))
    columns = {"contrast": "contrast", "difference of kappa": "difference signed", "p": "p p", "verdict": "says"}
    said = "Corrected resampled t test (Nadeau and Bengio): the training sets of folds overlap."
    return _shown(results, rows, "Differences over folds, averaged over seeds", columns, said)


def replication_table(results: StudyResults) -> ResultTable:
    """The arms beside baselines without a network."""
    arms, baselines = results.rows("arms"), results.rows("baselines")
    rows = pd.concat([table.reindex(columns=SCORE_COLUMNS) for table in (arms, baselines) if len(table)] or [arms])
    columns = {"arm": "arm", "kappa": "kappa interval", "accuracy": "accuracy interval", "AUC": "auc interval"}
    said = "" if baselines.empty else "Baselines use no network."
    return _shown(results, rows, results.plan.about, columns, _cases(arms), said, INTERVAL)


def per_class_table(results: StudyResults) -> ResultTable:
    """Precision, recall and F1 of each class and arm."""
    rows = results.rows("per_class")
    if len(rows):
        order = list(dict.fromkeys(rows["class"]))
        rows = rows[rows["arm"].isin(results.arms)]
        rows = rows.sort_values("class", key=lambda names: names.map(order.index), kind="stable")
    columns = {"class": "class", "arm": "arm", "test cases": "support"}
    columns |= {name: f"{column} interval" for name, column in PER_CLASS.items()}
    return _shown(results, rows, "Scores by class, mean over seeds", columns, INTERVAL)


def pointing_table(results: StudyResults) -> ResultTable:
    """How much of the evidence falls on the true finding, against chance."""
    rows = results.rows("evidence")
    if len(rows):
        said = _readings(results, rows, FOLLOWS, "gain_")
        rows = rows.assign(measure=rows["measure"].map(EVIDENCE_MEASURES), says=said)
    columns = {name: name for name in ("arm", "map", "measure", "clips")}
    columns |= {"on the finding": "observed interval", "chance": "chance .2f", "above chance": "gain signed"}
    return _shown(
        results,
        rows,
        "Evidence on the true finding",
        columns | {"reads as": "says"},
        "Chance: the same map on the findings of other patients of the same class. Intervals: over clips, of one "
        "network an arm.",
    )


def _apart(arm: Arm) -> str:
    """What an arm states that is not as in the plainest one, in words."""
    said = []
    for one in fields(Arm):
        value = getattr(arm, one.name)
        if one.name in NOT_APART or value == one.default:
            continue
        name = WORDS.get(one.name, one.name.replace("_", " "))
        said.append(name if value is True else f"no {name}" if value is False else f"{name}: {value}")
    return ", ".join(said)


def _runs(results: StudyResults) -> pd.DataFrame:
    """The runs of all experiments, as far as there are any."""
    tables = [outcomes.runs[["arm", "seed", "fold"]] for outcomes in results.outcomes.values()]
    return pd.concat(tables) if tables else pd.DataFrame({"arm": [], "seed": [], "fold": []})


def _cases(arms: pd.DataFrame) -> str:
    sizes = [] if arms.empty else sorted({arms["n"].min(), arms["n"].max()})
    return f"{' to '.join(map(str, sizes))} test cases."


def _how_to_run(name: str) -> str:
    command = "make paper" if name == "paper" else f"viptt study run {name}, then viptt study pack {name}"
    return f"Run {command}."
