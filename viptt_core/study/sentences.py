"""What the results of a study say, in a sentence: titles of figures, and the answer above each.

All are computed from the committed tables and hold whatever comes out; nothing presupposes an effect. A title is short;
an answer has the numbers with their intervals. What was not run is said as such.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from viptt_core.shown import ResultTable, arm_label, with_interval
from viptt_core.study.report import NO_VERDICT, StudyResults, factor_label
from viptt_core.study.tables import GAP, START
from viptt_core.study.verdict import (
    HARMS,
    HELPS,
    NO_GAIN,
    UNDECIDED,
    contrast_name,
    measure_label,
    source_label,
)

VERDICT_WORDS = {HARMS: "lower", HELPS: "higher", NO_GAIN: NO_GAIN, UNDECIDED: UNDECIDED, "": NO_VERDICT}
ALONG = {"n_train": "labelled scans", "n_videos": "videos"}
TELLING = 0.02  # mean confidence minus accuracy, from which on a network is called too sure


def listed(words) -> str:
    """Such as "a, b and c"."""
    *most, last = list(words) or [""]
    return f"{', '.join(most)} and {last}" if most else last


# --- Contrasts --------------------------------------------------------------------------------------------------
def contrast_title(row) -> str:
    """What one contrast came to; `row` is of the table, or a record."""
    if row["verdict"] not in (HARMS, HELPS) or row["arm2"]:
        return f"{contrast_name(row)}: {row['verdict'] or NO_VERDICT}"
    score = f"{VERDICT_WORDS[row['verdict']]} {measure_label(row['measure'])}"
    return f"{arm_label(row['arm'])}: {score} than {arm_label(row['baseline'])}"


def contrasts_title(rows: pd.DataFrame) -> str:
    """What some contrasts came to: the one there is, or how many have which verdict."""
    rows = rows.to_dict("records")
    if len(rows) == 1:
        return contrast_title(rows[0])
    counts = Counter(row["verdict"] for row in rows)
    told = [f"{counts[verdict]} {words}" for verdict, words in VERDICT_WORDS.items() if counts[verdict]]
    return f"Of {len(rows)} differences: {', '.join(told)}"


# --- Attribution ------------------------------------------------------------------------------------------------
def missing_text(results: StudyResults) -> str:
    """Which arms of the factorial were not run, or that seeds of some are missing; "" for neither."""
    plan, rows = results.plan, results.rows("arms")
    seeds = dict(zip(rows.get("arm", ()), rows.get("seeds", ()), strict=True))
    missing = [name for name in plan.factorial_arms if name not in seeds]
    if missing:
        count = len(plan.factorial_arms)
        return f"{len(missing)} of {count} combinations have not run: {'; '.join(map(arm_label, missing))}."
    least = min((plan.seeds_of(plan.arm(name)) for name in plan.factorial_arms), default=0)
    return "Not all planned seeds have run." if any(seeds[name] < least for name in plan.factorial_arms) else ""


def attribution_title(results: StudyResults) -> str:
    """Which of the changes move kappa."""
    rows = results.rows("attribution")
    rows = rows[rows["factor"] != GAP].to_dict("records") if len(rows) else []
    told = {"raises kappa": [], "lowers kappa": [], "no difference shown": []}
    for row in rows:
        which = "raises kappa" if row["low"] > 0 else "lowers kappa" if row["high"] < 0 else "no difference shown"
        told[which].append(factor_label(row["factor"]))
    return _capital("; ".join(f"{which}: {listed(names)}" for which, names in told.items() if names))


def attribution_answer(results: StudyResults) -> ResultTable:
    """What each change adds, or which combinations it takes to say so."""
    plan, rows = results.plan, results.rows("attribution")
    if not plan.factors or not results.tables:
        return results.absent("Attribution within the frozen network")
    missing = missing_text(results)
    if rows.empty:
        changes = listed(factor_label(name) for name in (START, *plan.factors))
        return ResultTable(f"What {changes} add cannot be said yet. {missing}")
    parts = {row.factor: with_interval(row.points, row.low, row.high, signed=True) for row in rows.itertuples()}
    gap = parts.pop(GAP)
    each = listed(f"{factor_label(name)} {part}" for name, part in parts.items())
    return ResultTable(
        f"All changes together: kappa {gap}. Of it: {each}. "
        f"{100 * rows['level'].iloc[0]:.3g} % intervals. {missing}".rstrip()
    )


def factorial_title(results: StudyResults) -> str:
    """How many of the combinations are shown, and the best of them."""
    names = results.plan.factorial_arms
    rows = results.rows("arms", arm=names)
    best = rows.loc[rows["kappa"].idxmax()]
    shown = f"All {len(names)}" if len(rows) == len(names) else f"{len(rows)} of {len(names)}"
    return f"{shown} combinations; the highest kappa: {arm_label(best['arm'])}, {best['kappa']:.2f}"


# --- Numbers of scans and videos ----------------------------------------------------------------------------------
def trend_rows(results: StudyResults, along: str) -> pd.DataFrame:
    """The rows of the table "trend" over one of ALONG: the experiment "labels" varies scans, "dose" videos."""
    return results.rows("trend", experiment="labels" if along == "n_train" else "dose")


def trend_is_drawn(rows: pd.DataFrame, along: str) -> bool:
    """Whether any arm was run with more than one number, the dose beside no videos: one point is no trend."""
    return bool(len(rows)) and rows[along].nunique() > (2 if along == "n_videos" else 1)


def trend_answer(results: StudyResults, along: str) -> ResultTable:
    """Kappa at the smallest and at the largest number, or that there is no trend yet."""
    rows = trend_rows(results, along)
    if rows.empty:
        return results.absent(f"Kappa by number of {ALONG[along]}")
    if not trend_is_drawn(rows, along):
        sizes = sorted({int(size) for size in rows[along] if size})
        return ResultTable(
            f"Kappa by number of {ALONG[along]}: of the plan's numbers only {listed(f'{n:,}' for n in sizes)} has run."
        )
    told = []
    for start, group in _by_line(rows, along).items():
        ends = group.iloc[[0, -1]]
        numbers = [with_interval(*values) for values in ends[["kappa", "low", "high"]].to_numpy()]
        sizes = [f"{int(size):,}" for size in ends[along]]
        told.append(f"{start}: kappa {numbers[0]} at {sizes[0]}, {numbers[1]} at {sizes[1]} {ALONG[along]}")
    return ResultTable(f"{'. '.join(told)}.")


def trend_title(results: StudyResults, along: str) -> str:
    """Whether the intervals at both ends of the axis overlap."""
    told = {}
    for start, group in _by_line(trend_rows(results, along), along).items():
        first, last = group.iloc[0], group.iloc[-1]
        way = (
            "rises"
            if last["low"] > first["high"]
            else "falls"
            if last["high"] < first["low"]
            else "no difference shown"
        )
        told.setdefault(way, []).append(start)
    if len(told) == 1:
        (way,) = told
        if way == "no difference shown":
            return f"Kappa at few and at many {ALONG[along]}: {way}"
        return f"Kappa {way} with the number of {ALONG[along]}"
    return f"Kappa by number of {ALONG[along]}: " + "; ".join(f"{listed(who)} {way}" for way, who in told.items())


def _by_line(rows: pd.DataFrame, along: str) -> dict[str, pd.DataFrame]:
    """Rows by what they start from; over videos, none of them is the first point of the one line there is."""
    groups = {"all": rows} if along == "n_videos" else dict(list(rows.groupby("start", sort=False)))
    sorted_ = {start: group.sort_values(along) for start, group in groups.items()}
    return {arm_label("video" if start == "all" else start): group for start, group in sorted_.items()}


# --- Videos and baselines -----------------------------------------------------------------------------------------
def sound_sources(results: StudyResults) -> pd.DataFrame:
    """The rows of the table "sources" but those of controls, whose videos were changed."""
    rows, sound = results.rows("sources"), {arm.name for arm in results.plan.arms if arm.videos == "sound"}
    return rows[rows["arm"].isin(sound)] if len(rows) else rows


def sources_title(results: StudyResults) -> str:
    """Which videos were learned, or in how many of the pretrainings that saw them."""
    told = []
    for source, rows in sound_sources(results).groupby("source", sort=False):
        learned, count = int(rows["learned"].sum()), len(rows)
        some = f"learned in {learned} of {count} pretrainings"
        told.append(f"{source_label(source)}: {'learned' if learned == count else some if learned else 'not learned'}")
    return _capital("; ".join(told))


def sources_answer(results: StudyResults) -> ResultTable:
    """Accuracy on held-out videos beside what can be told without seeing them."""
    rows = sound_sources(results)
    if rows.empty:
        return results.absent("What was learned of the videos")
    told = [
        f"{source_label(row.source)}, {arm_label(row.arm)}: {'learned' if row.learned else 'not learned'}, accuracy "
        f"{with_interval(row.accuracy, row.low, row.high)}, without seeing them "
        f"{np.nanmax([row.chance, row.size_accuracy]):.2f}."
        for row in rows.itertuples()
    ]
    return ResultTable("\n".join(map(_capital, told)))


def baselines_answer(results: StudyResults) -> ResultTable:
    """The best of what needs no trained network beside the best network of the primary experiment."""
    arms, baselines = results.rows("arms", experiment=main_of(results)), results.rows("baselines")
    if arms.empty or baselines.empty:
        return results.absent("What needs no network")
    best = [rows.loc[rows["kappa"].idxmax()] for rows in (baselines, arms)]
    names = [arm_label(row["arm"]) for row in best]
    base, network = (with_interval(row["kappa"], row["kappa_low"], row["kappa_high"]) for row in best)
    above = "above" if round(best[0]["kappa"], 2) > round(best[1]["kappa"], 2) else "not above"
    return ResultTable(
        f"{_capital(names[0])}, with no network trained, reaches kappa {base}: {above} the best network of the primary "
        f"comparison, {names[1]}, {network}."
    )


def main_of(results: StudyResults) -> str:
    """The experiment of the primary contrast."""
    return results.plan.arm(results.plan.primary[0]).experiment


# --- The plan and the runs ----------------------------------------------------------------------------------------
def plan_answer(results: StudyResults) -> ResultTable:
    """How much of the plan was run."""
    plan, rows = results.plan, results.rows("arms")
    seeds = dict(zip(rows.get("arm", ()), rows.get("seeds", ()), strict=True))
    whole = sum(seeds.get(arm.name, 0) >= plan.seeds_of(arm) for arm in plan.arms)
    left = len(plan.arms) - whole
    rest = f" {left} have not, or not with all their seeds: the table says which." if left else ""
    return ResultTable(f"Study '{plan.name}': {whole} of the {len(plan.arms)} planned arms have run.{rest}")


def runs_answer(results: StudyResults) -> ResultTable:
    """How many runs collapsed, and how many were ended by the limit of epochs."""
    rows = results.rows("arms")
    if rows.empty:
        return results.absent("How the runs ended")
    collapsed, at_limit, runs = (int(rows[name].sum()) for name in ("collapsed", "at_limit", "runs"))
    return ResultTable(
        f"Study '{results.plan.name}': of {runs:,} runs {collapsed or 'none'} named a single class for every case; "
        f"{at_limit or 'none'} {'was' if at_limit == 1 else 'were'} ended by the limit of epochs."
    )


def cost_answer(results: StudyResults) -> ResultTable:
    """What the runs took."""
    rows = results.rows("cost")
    if rows.empty:
        return results.absent("What it cost")
    return ResultTable(
        f"Study '{results.plan.name}': {rows['hours_total'].sum():.1f} core-hours for {rows['fits'].sum():,} fits."
    )


def power_answer(results: StudyResults) -> ResultTable:
    """The smallest gain that one run an arm could show on so many scans, and what choosing among runs pretends."""
    rows = results.rows("power")
    if rows.empty:
        return results.absent("What so many test scans can show")
    told = []
    for n, group in rows.groupby("n", sort=False):
        gain, best = (group.loc[group["question"].str.startswith(words), "value"] for words in ("smallest", "best of"))
        told.append(
            f"On {n:,} scans 4 of 5 studies show a gain of {gain.max():.2f} or more; "
            f"the best of several equal runs is up to {best.max():.2f} too high."
        )
    return ResultTable("\n".join(told))


def leak_answer(results: StudyResults) -> ResultTable:
    """Whether kappa is above chance where there is nothing to learn."""
    arms = [arm.name for arm in results.plan.arms if arm.scans == "no finding"]
    rows = results.rows("arms", arm=arms)
    if rows.empty:
        return results.absent("Scans without a finding")
    told = [
        f"{arm_label(row.arm)} {with_interval(row.kappa, row.kappa_low, row.kappa_high)}" for row in rows.itertuples()
    ]
    leaks = rows.loc[rows["kappa_low"] > 0, "arm"]
    found = (
        f"A kappa above 0, so a leak: {listed(map(arm_label, leaks))}" if len(leaks) else "No kappa above 0 is shown"
    )
    return ResultTable(f"{found}. Kappa: {listed(told)}.")


# --- Single classes -----------------------------------------------------------------------------------------------
def confusion_title(results: StudyResults, arm: str) -> str:
    """The mistake that an arm makes most often, as a share of the true class."""
    rows = results.rows("confusion", arm=arm)
    share = rows["count"] / rows.groupby("true")["count"].transform("sum")
    worst = rows.loc[share[rows["true"] != rows["predicted"]].idxmax()]
    return f"Most often mistaken: {worst['true']} for {worst['predicted']}, {share[worst.name]:.0%} of {worst['true']}"


def confusion_answer(results: StudyResults) -> ResultTable:
    """The most frequent mistake of each arm."""
    arms = [arm for arm in results.arms if len(results.rows("confusion", arm=arm))]
    if not arms:
        return results.absent("Confusion matrices")
    return ResultTable("\n".join(f"{arm_label(arm)}. {confusion_title(results, arm)}." for arm in arms))


def classes_title(results: StudyResults, column: str, word: str) -> str:
    """The class with the lowest and the one with the highest score, mean over the arms to show."""
    means = results.rows("per_class", arm=results.arms).groupby("class", sort=False)[column].mean()
    return (
        f"Lowest {word}: {means.idxmin()}, {means.min():.2f}; highest: {means.idxmax()}, {means.max():.2f} "
        "(mean over arms)"
    )


def classes_answer(results: StudyResults, column: str, word: str) -> ResultTable:
    """The lowest and the highest score, with the interval of each arm where there is one."""
    rows = results.rows("per_class", arm=results.arms)
    if rows.empty:
        return results.absent("Scores by class")
    told = []
    for arm, group in rows.groupby("arm", sort=False):
        ends = [group.loc[group[column].idxmin()], group.loc[group[column].idxmax()]]
        each = [
            f"{row['class']} "
            + with_interval(row[column], row.get(f"{column}_low", np.nan), row.get(f"{column}_high", np.nan))
            for row in ends
        ]
        told.append(f"{arm_label(arm)}: lowest {word} {each[0]}, highest {each[1]}.")
    return ResultTable("\n".join(told))


def curves_title(results: StudyResults) -> str:
    """The smallest and the largest area under the ROC curves."""
    rows = results.rows("curves", arm=results.arms, curve="roc")
    least, most = rows.loc[rows["area"].idxmin()], rows.loc[rows["area"].idxmax()]
    ends = [f"{row['area']:.2f} ({row['class']})" for row in (least, most)]
    return f"Areas under the ROC curves from {' to '.join(ends)}"


def curves_answer(results: StudyResults) -> ResultTable:
    """The smallest and the largest area, arm by arm."""
    rows = results.rows("curves", arm=results.arms, curve="roc")
    if rows.empty:
        return results.absent("Curves")
    told = []
    for arm, group in rows.groupby("arm", sort=False):
        areas = group.groupby("class", sort=False)["area"].first()
        told.append(f"{arm_label(arm)} from {areas.min():.2f} to {areas.max():.2f}")
    return ResultTable(f"Area under the ROC curve, over classes: {listed(told)}.")


def calibration_title(results: StudyResults) -> str:
    """Which arms are surer than right, by mean confidence minus accuracy."""
    told = {"more sure than right": [], "less sure than right": [], "about as sure as right": []}
    for arm in results.arms:
        rows = results.rows("calibration", arm=arm)
        if len(rows) and rows["n"].sum():
            rows = rows[rows["n"] > 0]
            too_sure = np.average(rows["confidence"] - rows["accuracy"], weights=rows["n"])
            words = list(told)
            told[words[0] if too_sure > TELLING else words[1] if too_sure < -TELLING else words[2]].append(arm)
    there = {words: arms for words, arms in told.items() if arms}
    if len(there) == 1:
        (words,) = there
        return f"The networks are {words}"
    return "; ".join(f"{words.capitalize()}: {listed(map(arm_label, arms))}" for words, arms in there.items())


def calibration_answer(results: StudyResults) -> ResultTable:
    """The calibration errors."""
    rows = results.rows("arms", arm=results.arms)
    if rows.empty:
        return results.absent("Calibration")
    each = listed(f"{arm_label(row.arm)} {row.ece:.2f}" for row in rows.itertuples())
    return ResultTable(f"Expected calibration error: {each}.")


def evidence_title(results: StudyResults) -> str:
    """For which arms the share of importance on the finding is above chance."""
    told = {"above chance": [], "below chance": [], "not told from chance": []}
    for row in results.rows("evidence", measure="share").itertuples():
        words = list(told)
        told[words[0] if row.gain_low > 0 else words[1] if row.gain_high < 0 else words[2]].append(row.arm)
    each = "; ".join(f"{words} ({listed(map(arm_label, arms))})" for words, arms in told.items() if arms)
    return f"Importance on slices with the finding: {each}"


def evidence_answer(results: StudyResults) -> ResultTable:
    """The shares of importance on the finding, and chance."""
    rows = results.rows("evidence", measure="share")
    if rows.empty:
        return results.absent("Importance on slices with the finding")
    each = "; ".join(
        f"{arm_label(row.arm)} {with_interval(row.observed, row.observed_low, row.observed_high)}, "
        f"chance {row.chance:.2f}"
        for row in rows.itertuples()
    )
    return ResultTable(f"Share of the importance on slices with the finding: {each}.")


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
