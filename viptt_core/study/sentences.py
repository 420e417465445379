"""What the results of a study say, in a sentence: titles of figures, and the answer above each.

All are computed from the committed tables and hold whatever comes out; nothing presupposes an effect. A title is short;
an answer has the numbers with their intervals. What was not run is said as such.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from viptt_core.shown import ResultTable, arm_label, label, with_ends, with_interval
from viptt_core.study.report import NO_VERDICT, StudyResults, interval_cells, or_absent
from viptt_core.study.tables import GAP, START
from viptt_core.study.verdict import HARMS, HELPS, NO_GAIN, UNDECIDED, contrast_name

VERDICT_WORDS = {HARMS: "lower", HELPS: "higher", NO_GAIN: NO_GAIN, UNDECIDED: UNDECIDED, "": NO_VERDICT}
ALONG = {"n_train": "labelled scans", "n_videos": "videos"}
NO_DIFFERENCE = "no difference shown"
TELLING = 0.02  # mean confidence minus accuracy, from which on a network is called too sure


def listed(words) -> str:
    """Such as "a, b and c"."""
    *most, last = list(words) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _by_side(words: tuple[str, str, str], ends: dict[str, tuple[float, float]]) -> dict[str, str]:
    """Names whose interval lies above 0, below it, or on both sides, listed below the first, second or third word."""
    named: dict[str, list[str]] = {word: [] for word in words}
    for name, (low, high) in ends.items():
        named[words[0] if low > 0 else words[1] if high < 0 else words[2]].append(name)
    return {word: listed(names) for word, names in named.items() if names}


def _each_arm(rows: pd.DataFrame, column: str) -> list[str]:
    """Each arm with its score and interval."""
    cells = interval_cells(rows, column)
    return [f"{arm_label(arm)} {cell}" for arm, cell in zip(rows["arm"], cells, strict=True)]


# --- Contrasts --------------------------------------------------------------------------------------------------
def contrast_title(row) -> str:
    """What one contrast came to; `row` is of the table, or a record."""
    if row["verdict"] not in (HARMS, HELPS) or row["arm2"]:
        return f"{contrast_name(row)}: {row['verdict'] or NO_VERDICT}"
    score = f"{VERDICT_WORDS[row['verdict']]} {label(row['measure'])}"
    return f"{arm_label(row['arm'])}: {score} than {arm_label(row['baseline'])}"


def contrasts_title(rows: pd.DataFrame) -> str:
    """What some contrasts came to: the one there is, or how many have which verdict."""
    if len(rows) == 1:
        return contrast_title(rows.iloc[0])
    counts = Counter(rows["verdict"])
    told = [f"{words} in {counts[verdict]}" for verdict, words in VERDICT_WORDS.items() if counts[verdict]]
    told[0] += f" of {len(rows)} differences"
    return _capital(", ".join(told))


# --- Attribution ------------------------------------------------------------------------------------------------
def _missing(results: StudyResults) -> str:
    """Which arms of the factorial were not run, or that seeds of some are missing; "" for neither."""
    plan = results.plan
    missing = [arm_label(name) for name in plan.factorial_arms if name not in results.seeds]
    if missing:
        return f"{len(missing)} of {len(plan.factorial_arms)} combinations have not run: {'; '.join(missing)}."
    least = min(plan.seeds_of(plan.arm(name)) for name in plan.factorial_arms)
    few = any(results.seeds[name] < least for name in plan.factorial_arms)
    return "Not all planned seeds have run." if few else ""


def attribution_title(results: StudyResults) -> str:
    """Which of the changes move kappa."""
    rows = results.rows("attribution")
    ends = {label(row.factor): (row.low, row.high) for row in rows.itertuples() if row.factor != GAP}
    told = _by_side(("raises kappa", "lowers kappa", NO_DIFFERENCE), ends)
    return _capital("; ".join(f"{which}: {names}" for which, names in told.items()))


def attribution_answer(results: StudyResults) -> ResultTable:
    """What each change adds, or which combinations it takes to say so."""
    plan, rows = results.plan, results.rows("attribution")
    if not plan.factors or not results.tables:
        return results.absent("Attribution within the frozen network")
    if rows.empty:
        changes = listed(map(label, (START, *plan.factors)))
        return ResultTable(f"What {changes} add cannot be said yet. {_missing(results)}")
    parts = dict(zip(rows["factor"], interval_cells(rows, "points", signed=True), strict=True))
    gap = parts.pop(GAP)
    each = listed(f"{label(name)} {part}" for name, part in parts.items())
    level = f"{100 * rows['level'].iloc[0]:.3g} % intervals."
    return ResultTable(f"All changes together: kappa {gap}. Of this: {each}. {level} {_missing(results)}".rstrip())


# --- Numbers of scans and videos ----------------------------------------------------------------------------------
def trend_rows(results: StudyResults, along: str) -> pd.DataFrame:
    """The rows of the table "trend" over one of ALONG: the experiment "labels" varies scans, "dose" videos."""
    experiment = "labels" if along == "n_train" else "dose"
    return results.needed(f"Kappa by number of {ALONG[along]}", "trend", experiment=experiment)


def trend_missing(rows: pd.DataFrame, along: str) -> str:
    """Why there is no trend, "" where there is one: more than one number, the dose beside no videos, was run."""
    if rows[along].nunique() > (2 if along == "n_videos" else 1):
        return ""
    sizes = listed(f"{int(size):,}" for size in sorted(set(rows[along])) if size)
    return f"Kappa by number of {ALONG[along]}: of the plan's numbers only {sizes} has run."


def trend_title(results: StudyResults, along: str) -> str:
    """Whether the intervals at both ends of the axis overlap."""
    rows, ends = trend_rows(results, along), {}
    # Over videos, none of them is the first point of the one line there is.
    for start, group in [("video", rows)] if along == "n_videos" else rows.groupby("start", sort=False):
        group = group.sort_values(along)
        first, last = group.iloc[0], group.iloc[-1]
        ends[arm_label(start)] = last["low"] - first["high"], last["high"] - first["low"]
    told = _by_side(("rises", "falls", NO_DIFFERENCE), ends)
    if len(told) > 1:
        return f"Kappa by number of {ALONG[along]}: " + "; ".join(f"{who} {way}" for way, who in told.items())
    if NO_DIFFERENCE in told:
        return f"Kappa at few and at many {ALONG[along]}: {NO_DIFFERENCE}"
    return f"Kappa {''.join(told)} with the number of {ALONG[along]}"


# --- Videos and baselines -----------------------------------------------------------------------------------------
def _sound_sources(results: StudyResults) -> pd.DataFrame:
    """The rows of the table "sources" but those of controls, whose videos were changed."""
    sound = [arm.name for arm in results.plan.arms if arm.videos == "sound"]
    return results.needed("What was learned from the videos", "sources", arm=sound)


def sources_title(results: StudyResults) -> str:
    """Which videos were learned, or in how many of the pretrainings that saw them."""
    told = []
    for source, rows in _sound_sources(results).groupby("source", sort=False):
        learned, count = int(rows["learned"].sum()), len(rows)
        some = f"learned in {learned} of {count} pretrainings"
        told.append(f"{label(source)}: {'learned' if learned == count else some if learned else 'not learned'}")
    return _capital("; ".join(told))


@or_absent
def sources_answer(results: StudyResults) -> ResultTable:
    """Accuracy on held-out videos beside what can be told without seeing them."""
    told = [
        f"{label(row.source)}, {arm_label(row.arm)}: {'learned' if row.learned else 'not learned'}, accuracy "
        f"{with_interval(row.accuracy, row.low, row.high)}, without seeing them "
        f"{np.nanmax([row.chance, row.size_accuracy]):.2f}."
        for row in _sound_sources(results).itertuples()
    ]
    return ResultTable("\n".join(map(_capital, told)))


@or_absent
def baselines_answer(results: StudyResults) -> ResultTable:
    """The best of what needs no trained network beside the best network of the primary experiment."""
    what = "What needs no network"
    rows = results.needed(what, "baselines"), results.needed(what, "arms", experiment=results.plan.main)
    base, network = (one.loc[one["kappa"].idxmax()] for one in rows)
    above = "above" if round(base["kappa"], 2) > round(network["kappa"], 2) else "not above"
    base_kappa, network_kappa = (with_interval(*with_ends(one, "kappa")) for one in (base, network))
    return ResultTable(
        f"{_capital(arm_label(base['arm']))}, with no network trained, reaches kappa {base_kappa}: {above} the best "
        f"network of the primary comparison, {arm_label(network['arm'])}, {network_kappa}."
    )


# --- The plan and the runs ----------------------------------------------------------------------------------------
def plan_answer(results: StudyResults) -> ResultTable:
    """How much of the plan was run."""
    plan = results.plan
    whole = sum(results.seeds.get(arm.name, 0) >= plan.seeds_of(arm) for arm in plan.arms)
    left = len(plan.arms) - whole
    rest = f" {left} have not, or not with all their seeds: the table says which." if left else ""
    return ResultTable(f"Study '{plan.name}': {whole} of the {len(plan.arms)} planned arms have run.{rest}")


@or_absent
def runs_answer(results: StudyResults) -> ResultTable:
    """How many runs collapsed, and how many were ended by the limit of epochs."""
    rows = results.needed("How the runs ended", "arms")
    collapsed, at_limit, runs = (int(rows[name].sum()) for name in ("collapsed", "at_limit", "runs"))
    return ResultTable(
        f"Study '{results.plan.name}': of {runs:,} runs {collapsed or 'none'} named a single class for every case; "
        f"{at_limit or 'none'} {'was' if at_limit == 1 else 'were'} ended by the limit of epochs."
    )


@or_absent
def cost_answer(results: StudyResults) -> ResultTable:
    """What the runs took."""
    rows = results.needed("What it cost", "cost")
    hours, fits = rows["hours_total"].sum(), rows["fits"].sum()
    return ResultTable(f"Study '{results.plan.name}': {hours:.1f} core-hours for {fits:,} fits.")


@or_absent
def power_answer(results: StudyResults) -> ResultTable:
    """The smallest gain that one run an arm could show on so many scans, and what choosing among runs pretends."""
    told = []
    for n, group in results.needed("What so many test scans can show", "power").groupby("n", sort=False):
        gain, best = (group.loc[group["question"].str.startswith(words), "value"] for words in ("smallest", "best of"))
        told.append(
            f"On {n:,} scans, a gain must be at least {gain.max():.2f} for 4 of 5 studies to show it; "
            f"the best of several equal runs is up to {best.max():.2f} too high."
        )
    return ResultTable("\n".join(told))


@or_absent
def leak_answer(results: StudyResults) -> ResultTable:
    """Whether kappa is above chance where there is nothing to learn."""
    arms = [arm.name for arm in results.plan.arms if arm.scans == "no finding"]
    rows = results.needed("Scans without a finding", "arms", arm=arms)
    leaks = listed(map(arm_label, rows.loc[rows["kappa_low"] > 0, "arm"]))
    found = f"An interval of kappa above 0, so a leak: {leaks}" if leaks else "No interval of kappa is above 0"
    return ResultTable(f"{found}. Kappa: {listed(_each_arm(rows, 'kappa'))}.")


# --- Single classes -----------------------------------------------------------------------------------------------
def confusion_title(results: StudyResults, arm: str) -> str:
    """The mistake that an arm makes most often, as a share of the true class."""
    rows = results.rows("confusion", arm=arm)
    share = rows["count"] / rows.groupby("true")["count"].transform("sum")
    worst = rows.loc[share[rows["true"] != rows["predicted"]].idxmax()]
    return f"Most often mistaken: {worst['true']} for {worst['predicted']}, {share[worst.name]:.0%} of {worst['true']}"


@or_absent
def confusion_answer(results: StudyResults) -> ResultTable:
    """The most frequent mistake of each arm."""
    arms = results.needed("Confusion matrices", "confusion", arm=results.arms)["arm"].unique()
    return ResultTable("\n".join(f"{arm_label(arm)}. {confusion_title(results, arm)}." for arm in arms))


def classes_title(results: StudyResults, column: str, word: str) -> str:
    """The class with the lowest and the one with the highest score, mean over the arms to show."""
    means = results.rows("per_class", arm=results.arms).groupby("class", sort=False)[column].mean()
    ends = f"Lowest {word}: {means.idxmin()}, {means.min():.2f}; highest: {means.idxmax()}, {means.max():.2f}"
    return f"{ends} (mean over arms)"


@or_absent
def classes_answer(results: StudyResults, column: str, word: str) -> ResultTable:
    """The lowest and the highest score, with the interval of each arm where there is one."""
    told = []
    for arm, rows in results.needed("Scores by class", "per_class", arm=results.arms).groupby("arm", sort=False):
        ends = rows.loc[[rows[column].idxmin(), rows[column].idxmax()]]
        least, most = (f"{name} {cell}" for name, cell in zip(ends["class"], interval_cells(ends, column), strict=True))
        told.append(f"{arm_label(arm)}: lowest {word} {least}, highest {most}.")
    return ResultTable("\n".join(told))


def curves_title(results: StudyResults) -> str:
    """The smallest and the largest area under the ROC curves."""
    rows = results.rows("curves", arm=results.arms, curve="roc")
    ends = rows.loc[[rows["area"].idxmin(), rows["area"].idxmax()]]
    told = [f"{area:.2f} ({name})" for area, name in zip(ends["area"], ends["class"], strict=True)]
    return f"Areas under the ROC curves from {' to '.join(told)}"


@or_absent
def curves_answer(results: StudyResults) -> ResultTable:
    """The smallest and the largest area, arm by arm."""
    areas = results.needed("Curves", "curves", arm=results.arms, curve="roc").groupby("arm", sort=False)["area"]
    each = areas.agg(["min", "max"]).itertuples()
    told = listed(f"{arm_label(row.Index)} from {row.min:.2f} to {row.max:.2f}" for row in each)
    return ResultTable(f"Area under the ROC curve, over classes: {told}.")


def calibration_title(results: StudyResults) -> str:
    """Which arms are surer than right, by mean confidence minus accuracy."""
    ends = {}
    for arm, rows in results.rows("calibration", arm=results.arms).query("n > 0").groupby("arm", sort=False):
        too_sure = np.average(rows["confidence"] - rows["accuracy"], weights=rows["n"])
        ends[arm_label(arm)] = too_sure - TELLING, too_sure + TELLING
    told = _by_side(("more sure than right", "less sure than right", "about as sure as right"), ends)
    if len(told) == 1:
        return f"The networks are {''.join(told)}"
    return "; ".join(f"{words.capitalize()}: {arms}" for words, arms in told.items())


@or_absent
def calibration_answer(results: StudyResults) -> ResultTable:
    """The calibration errors."""
    rows = results.needed("Calibration", "arms", arm=results.arms)
    each = listed(f"{arm_label(row.arm)} {row.ece:.2f}" for row in rows.itertuples())
    return ResultTable(f"Expected calibration error: {each}.")


def evidence_title(results: StudyResults) -> str:
    """For which arms the share of importance on the finding is above chance."""
    rows = results.rows("evidence", measure="share")
    ends = {arm_label(row.arm): (row.gain_low, row.gain_high) for row in rows.itertuples()}
    told = _by_side(("above chance", "below chance", "not distinguishable from chance"), ends)
    return f"Importance on slices with the finding: {'; '.join(f'{words} ({arms})' for words, arms in told.items())}"


@or_absent
def evidence_answer(results: StudyResults) -> ResultTable:
    """The shares of importance on the finding, and chance."""
    rows = results.needed("Importance on slices with the finding", "evidence", measure="share")
    told = zip(_each_arm(rows, "observed"), rows["chance"], strict=True)
    each = "; ".join(f"{arm}, chance {chance:.2f}" for arm, chance in told)
    return ResultTable(f"Share of the importance on slices with the finding: {each}.")
