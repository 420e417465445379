"""The tables that the pages show of a study, cells worded, captions and footers included."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pandas as pd

from viptt_core.shown import ResultTable
from viptt_core.study.outcomes import withdrawn_sentence
from viptt_core.study.plan import Arm
from viptt_core.study.report import (
    INTERVAL,
    VERDICTS,
    StudyResults,
    contrast_name,
    interval_cells,
    p_text,
    reading,
)

# Others' results on NoduleMNIST3D: name, AUC, accuracy. [B] MedMNIST v2, Yang et al. (2023), Scientific Data 10, 41.
PUBLISHED_NODULES = (
    ("ResNet-18 + 3D", 0.863, 0.844),
    ("ResNet-18 + ACS", 0.873, 0.847),
    ("ResNet-50 + 3D", 0.875, 0.847),
)
NOT_ONE_TO_ONE = (
    "Published: MedMNIST v2 (Yang et al. 2023). Their split and their sampling of the nodules are not "
    "ours, so that no comparison is one to one."
)
PER_CLASS = {"precision": "precision", "recall": "recall", "F1": "f1"}
EVIDENCE_MEASURES = {"pointing": "maximum on the finding", "mass": "share of the evidence"}
FOLLOWS = {1: "follows the patient", -1: "avoids the finding", 0: "no more than chance", None: "no interval"}
SCORES = ("kappa", "accuracy", "auc")
SCORE_COLUMNS = ["arm", *(f"{score}{end}" for score in SCORES for end in ("", "_low", "_high"))]
WORDS = {"rate_of": "learning rate of", "n_train": "scans", "scans": "kind of scans", "rotate": "rotation"}
NOT_APART = ("name", "experiment", "start", "seeds")  # fields of an arm that have a column of their own


# --- The plan, and how the runs went --------------------------------------------------------------------------
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
            f"Each arm takes, of the learning rates {', '.join(f'{rate:g}' for rate in plan.learning_rates)}, the "
            f"one with the lowest validation loss in a pilot run (seed {plan.pilot_seed}) that no result "
            "uses."
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
    arms = results.rows("arms")
    if arms.empty:
        return results.absent("How the runs ended")
    runs = _runs(results)["arm"].value_counts()
    table = pd.DataFrame(
        {
            "arm": arms["arm"],
            "runs": arms["arm"].map(runs),
            "learning rate": arms["learning_rate"].map("{:g}".format),
            "epoch kept (median)": arms["best_epoch"].map("{:g}".format),
            "at the epoch limit": arms["at_limit"],
        }
    )
    limit = f"{arms['at_limit'].sum():.0f} of {runs.sum()} runs were ended by the epoch limit, not by stopping early."
    return ResultTable(results.footer(limit), table, "How the runs ended")


def cost_table(results: StudyResults) -> ResultTable:
    """Runs, core-hours, wall time, memory and device of each experiment."""
    cost = results.rows("cost")
    if cost.empty:
        return results.absent("Costs")
    table = pd.DataFrame(
        {
            "experiment": cost["experiment"],
            "runs": cost["runs"],
            "core-seconds a run": cost["core_seconds"].map("{:.0f}".format),
            "core-hours": cost["hours_total"].map("{:.2f}".format),
            "hours from first to last": cost["wall_hours"].map("{:.2f}".format),
            "peak memory (MB)": cost["peak_memory_mb"].map("{:.0f}".format),
            "device": cost["device"],
        }
    )
    told = [
        f"In all {cost['runs'].sum()} runs, {cost['hours_total'].sum():.1f} core-hours.",
        "Seconds are those of the clock, one thread a run: where runs shared the cores, waiting is in them.",
    ]
    if results.record.get("pilot_runs"):
        told.append(
            f"Besides, {results.record['pilot_runs']} pilot runs for the learning rates, "
            f"{results.record['pilot_seconds'] / 3600:.1f} core-hours."
        )
    told += [f"Commit {commit[:12]}." for commit in results.record.get("commits", ())]
    return ResultTable(" ".join(filter(None, (*told, withdrawn_sentence(results.withdrawn)))), table, "What it cost")


# --- Results --------------------------------------------------------------------------------------------------
def arms_table(results: StudyResults, *experiments: str) -> ResultTable:
    """Scores of the arms of some experiments; without any named, of the primary contrast's."""
    arms, experiments = results.rows("arms"), experiments or (results.plan.arm(results.plan.primary.arm).experiment,)
    arms = arms[arms["experiment"].isin(experiments)] if len(arms) else arms
    if arms.empty:
        return results.absent("Scores of the arms")
    table = pd.DataFrame(
        {
            "arm": arms["arm"],
            "seeds": arms["seeds"],
            "kappa": interval_cells(arms, "kappa"),
            "accuracy": interval_cells(arms, "accuracy"),
            "AUC": arms["auc"].map("{:.2f}".format),
            "recall of rare classes": interval_cells(arms, "rare_recall"),
            "SD of kappa": arms["seed_sd"].map("{:.3f}".format),
        }
    )
    return ResultTable(results.footer(f"{_cases(arms)} {INTERVAL} SD: over seeds."), table, "Mean over seeds")


def contrasts_table(results: StudyResults, *families: str, measure: str = "") -> ResultTable:
    """Differences of the contrasts of some families, chosen by name or by measure, with what their intervals say."""
    rows = results.contrasts(*families, measure=measure)
    if rows.empty:
        return results.absent(" and ".join(families).capitalize() or "Contrasts")
    table = pd.DataFrame(
        {
            "family": rows["family"],
            "contrast": [contrast_name(row) for row in rows.itertuples()],
            "measure": rows["measure"],
            "seeds": rows["seeds"],
            "difference": interval_cells(rows, "difference", signed=True, prefix=False),
            "p": rows["p"].map(p_text),
            "p (Holm)": rows["p_holm"].map(p_text),
            "the first is": [reading(row.low, row.high, VERDICTS, results.withdrawn) for row in rows.itertuples()],
        }
    )
    said = "An interval that includes 0 tells nothing apart. Holm: corrected for the contrasts of the family."
    return ResultTable(results.footer(said, INTERVAL), table, "Differences")


def attribution_table(results: StudyResults) -> ResultTable:
    """What each factor contributes to the gap between the paper's two arms."""
    rows = results.rows("attribution")
    if rows.empty:
        return results.absent("Attribution")
    table = pd.DataFrame(
        {
            "factor": rows["factor"],
            "kappa": interval_cells(rows, "points", signed=True, prefix=False),
            "share of the gap": ["" if pd.isna(value) else f"{value:.0f} %" for value in rows["percent"]],
        }
    )
    known = "" if rows["percent"].notna().any() else "No shares: the interval of the gap includes 0."
    said = "Shapley values: what turning a factor on adds, averaged over all orders; they add up to the gap."
    return ResultTable(results.footer(said, known, INTERVAL), table, "Where the gap comes from")


def pretraining_table(results: StudyResults) -> ResultTable:
    """Accuracy of the pretraining on its own test videos."""
    rows = results.rows("pretraining")
    if rows.empty:
        return results.absent("Pretraining")
    table = pd.DataFrame(
        {
            "videos": rows["videos"],
            "start": rows["start"],
            "seeds": rows["seeds"],
            "accuracy": interval_cells(rows, "accuracy", prefix=False),
            "chance": (1 / rows["classes"]).map("{:.2f}".format),
        }
    )
    said = "Split by group unless the videos say by clip. Intervals: t over seeds, on one set of videos."
    return ResultTable(results.footer(said), table, "How well pretraining classifies test videos")


def efficiency_table(results: StudyResults) -> ResultTable:
    """Kappa by number of labelled scans."""
    rows = results.rows("efficiency")
    if rows.empty:
        return results.absent("Label efficiency")
    table = pd.DataFrame(
        {
            "start": rows["start"],
            "labelled scans": rows["n_train"],
            "seeds": rows["seeds"],
            "kappa": interval_cells(rows, "kappa", prefix=False),
        }
    )
    return ResultTable(results.footer(INTERVAL), table, "Kappa by number of scans that train and validate")


def power_table(results: StudyResults) -> ResultTable:
    """What test sets of the paper's size can show, by simulation."""
    rows = results.rows("power")
    if rows.empty:
        return results.absent("What so many scans can show")
    table = pd.DataFrame(
        {
            "question": rows["question"],
            "test scans": rows["n"],
            "true kappa": rows["kappa"].map("{:.2f}".format),
            "answer": interval_cells(rows, "value", prefix=False),
        }
    )
    said = "Simulated: no network is in it, one run an arm, what seeds add is left out."
    text = " ".join(filter(None, (said, withdrawn_sentence(results.withdrawn))))
    return ResultTable(text, table, "What so many test scans can show")


def folds_table(results: StudyResults) -> ResultTable:
    """Differences over folds, with the test that knows that training sets overlap."""
    rows = results.rows("folds")
    if rows.empty:
        return results.absent("Differences over folds")
    table = pd.DataFrame(
        {
            "contrast": rows["arm"] + " against " + rows["baseline"],
            "difference of kappa": interval_cells(rows, "difference", signed=True, prefix=False),
            "p": rows["p"].map(p_text),
            "the first is": [reading(row.low, row.high, VERDICTS, results.withdrawn) for row in rows.itertuples()],
        }
    )
    said = "Corrected resampled t test (Nadeau and Bengio): the training sets of folds overlap."
    return ResultTable(results.footer(said), table, "Differences over folds, averaged over seeds")


def replication_table(results: StudyResults) -> ResultTable:
    """The arms beside baselines without a network and, for the nodules, beside what others published."""
    arms, baselines = results.rows("arms"), results.rows("baselines")
    if arms.empty:
        return results.absent("Replication")
    scores = pd.concat([rows.reindex(columns=SCORE_COLUMNS) for rows in (arms, baselines) if len(rows)])
    table = pd.DataFrame({"arm": scores["arm"]} | {name: interval_cells(scores, name) for name in SCORES})
    published = published_results(results)
    others = pd.DataFrame(
        {
            "arm": [f"{name} (published)" for name, _, _ in published],
            "accuracy": [f"{accuracy:.3f}" for _, _, accuracy in published],
            "auc": [f"{auc:.3f}" for _, auc, _ in published],
        }
    )
    table = pd.concat([table, others]).fillna("").rename(columns={"auc": "AUC"})
    said = "" if baselines.empty else "Baselines use no network."
    text = results.footer(_cases(arms), said, INTERVAL, NOT_ONE_TO_ONE if published else "")
    return ResultTable(text, table, results.plan.about)


def published_results(results: StudyResults) -> tuple:
    """Results of others on the same set, see PUBLISHED_NODULES; () where none are known."""
    scans = results.plan.scans
    nodules = scans.get("dataset") == "medmnist3d" and scans.get("subset", "nodulemnist3d") == "nodulemnist3d"
    return PUBLISHED_NODULES if nodules else ()


def per_class_table(results: StudyResults) -> ResultTable:
    """Precision, recall and F1 of each class and arm."""
    rows = results.rows("per_class")
    rows = rows[rows["arm"].isin(results.arms)] if len(rows) else rows
    if rows.empty:
        return results.absent("Scores by class")
    table = pd.DataFrame(
        {"class": rows["class"], "arm": rows["arm"], "test cases": rows["support"]}
        | {name: interval_cells(rows, column) for name, column in PER_CLASS.items()}
    )
    order = list(dict.fromkeys(rows["class"]))
    table = table.sort_values("class", key=lambda names: names.map(order.index), kind="stable")
    return ResultTable(results.footer(INTERVAL), table, "Scores by class, mean over seeds")


def pointing_table(results: StudyResults) -> ResultTable:
    """How much of the evidence falls on the true finding, against chance."""
    rows = results.rows("evidence")
    if rows.empty:
        return results.absent("Evidence on the finding")
    table = pd.DataFrame(
        {
            "arm": rows["arm"],
            "map": rows["map"],
            "measure": rows["measure"].map(EVIDENCE_MEASURES),
            "clips": rows["clips"],
            "on the finding": interval_cells(rows, "observed"),
            "chance": rows["chance"].map("{:.2f}".format),
            "above chance": interval_cells(rows, "gain", signed=True),
            "reads as": [reading(row.gain_low, row.gain_high, FOLLOWS, results.withdrawn) for row in rows.itertuples()],
        }
    )
    said = (
        "Chance: the same map on the findings of other patients of the same class. Intervals: over clips, of one "
        "network an arm."
    )
    return ResultTable(results.footer(said), table, "Evidence on the true finding")


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
    low, high = arms["n"].min(), arms["n"].max()
    return f"{low} test cases." if low == high else f"{low} to {high} test cases."
