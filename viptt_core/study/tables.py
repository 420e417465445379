"""Every table of a study, computed from its predictions alone: no model, no clip; the same numbers on any machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core import files
from viptt_core.constants import PAPER_KAPPA_PRETRAINED, PAPER_KAPPA_SCRATCH, PAPER_KAPPA_TEST, TB_TRAIN_COUNTS
from viptt_core.errors import DataError
from viptt_core.metrics import bootstrap_ci, cohen_kappa, kappa_of_tables, roc_auc
from viptt_core.results import SCORE_COLUMNS
from viptt_core.statistics import (
    PAPER_TEST_SCANS,
    PAPER_VALIDATION_COUNTS,
    best_of_k,
    detectable_difference,
    holm,
    kappa_interval_by_simulation,
    t_test,
)
from viptt_core.study.attribution import attribute, factorial_arms
from viptt_core.study.outcomes import Outcomes
from viptt_core.study.plan import Study
from viptt_core.study.pointing import Evidence, evidence_tables
from viptt_core.study.probabilities import GRID, brier_score, calibration_bins, curves, expected_calibration_error
from viptt_core.study.tested import Tested, compare_arms, gather, paired

TABLES = (
    "arms",
    "contrasts",
    "attribution",
    "per_class",
    "confusion",
    "curves",
    "calibration",
    "efficiency",
    "pretraining",
    "power",
    "cost",
    "baselines",
    "folds",
    "evidence",
    "missing",
)
CONTRAST = ("arm", "baseline", "arm2", "baseline2")
BEST_OF = 5  # runs an arm of the authors' notebooks could have chosen from
TOLERANCE = 1e-9  # relative or absolute; the files hold twelve digits


def make_tables(
    study: Study, outcomes: dict[str, Outcomes], evidence: Evidence | None = None
) -> dict[str, pd.DataFrame]:
    """All tables of a study, of what was run; a table that would be empty is left out.

    Args:
        study: The plan.
        outcomes: By experiment; arms that the plan does not name are baselines.
        evidence: Maps, for the table "evidence".

    Returns:
        By name, in the order of TABLES. Intervals cover 95 %: of seeds and test cases (groups as a whole), and of
        an arm with one seed of the test cases alone. "missing" names planned arms that were not run; contrasts with
        them are left out, though Holm's correction counts them.

    Raises:
        SettingError: arms to be compared were not tested on the same cases, or share no seed.
    """
    tested = gather(study, outcomes)
    arms = {name: one for name, one in tested.items() if one.arm}
    baselines = [one for one in tested.values() if not one.arm]
    main = study.arm(study.primary.arm).experiment  # curves of all arms would be larger than all other tables together
    made = {
        "arms": pd.DataFrame([_arm_row(one) for one in arms.values()]),
        "contrasts": _contrasts(study, arms),
        "attribution": _attribution(study, arms),
        "per_class": _by_arm(arms, _per_class),
        "confusion": _by_arm(arms, _confusion),
        "curves": _by_arm({name: one for name, one in arms.items() if one.arm.experiment == main}, _curves),
        "calibration": _by_arm(arms, lambda one: calibration_bins(one.labels, one.probabilities)),
        "efficiency": _efficiency(study, arms),
        "pretraining": _pretraining(arms),
        "power": _power() if any(one.rare for one in arms.values()) else pd.DataFrame(),
        "cost": _cost(study, outcomes),
        "baselines": pd.DataFrame([_baseline_row(one) for one in baselines], columns=SCORE_COLUMNS),
        "folds": _folds(study, outcomes, arms),
        "evidence": pd.DataFrame() if evidence is None else evidence_tables(evidence),
        "missing": pd.DataFrame({"arm": [arm.name for arm in study.arms if arm.name not in arms]}),
    }
    return {name: made[name] for name in TABLES if len(made[name])}


# --- Tables by arm ----------------------------------------------------------------------------------------------------
def _by_arm(arms: dict[str, Tested], make: Callable[[Tested], pd.DataFrame]) -> pd.DataFrame:
    tables = [make(one).assign(arm=name) for name, one in arms.items()]
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    return table[["arm", *(column for column in table if column != "arm")]]


def _arm_row(one: Tested) -> dict:
    kappas, runs = kappa_of_tables(one.resamples.whole), one.runs
    rare = one.interval("rare_recall", "recall", one.rare) if one.rare else {}
    at_limit = (_numbers(runs, "epochs") >= _numbers(runs, "epoch_limit")) & ~runs["stopped_early"].astype(bool)
    return {
        "experiment": one.arm.experiment,
        "arm": one.name,
        "start": one.arm.start,
        "seeds": len(one.seeds),
        "n": len(one.cases),
        **one.interval("kappa", "kappa"),
        **one.interval("accuracy", "accuracy"),
        "auc": one.over_seeds(roc_auc),
        **dict.fromkeys(("rare_recall", "rare_recall_low", "rare_recall_high"), np.nan),
        **rare,
        "ece": one.over_seeds(expected_calibration_error),
        "brier": one.over_seeds(brier_score),
        "learning_rate": _numbers(runs, "learning_rate").median(),
        "best_epoch": _numbers(runs, "best_epoch").median(),
        "at_limit": int(at_limit.sum()),
        "seed_sd": kappas.std(ddof=1) if len(kappas) > 1 else np.nan,
    }


def _per_class(one: Tested) -> pd.DataFrame:
    support = one.resamples.whole[0].sum(axis=1).astype(int)
    rows = []
    for c, name in enumerate(one.class_names):
        scores = [one.interval(score, score, [c]) for score in ("precision", "recall", "f1")]
        rows.append({"class": name, "support": support[c]} | scores[0] | scores[1] | scores[2])
    return pd.DataFrame(rows)


def _confusion(one: Tested) -> pd.DataFrame:
    k = len(one.class_names)
    counts = one.resamples.whole.sum(axis=0).astype(int)
    names = np.array(one.class_names)
    return pd.DataFrame({"true": np.repeat(names, k), "predicted": np.tile(names, k), "count": counts.ravel()})


def _curves(one: Tested) -> pd.DataFrame:
    parts = []
    for c, name in enumerate(one.class_names):
        of_seeds = [curves(one.labels == c, run[:, c]) for run in one.probabilities]
        for kind in of_seeds[0]:
            y, area = (np.mean([found[kind][i] for found in of_seeds], axis=0) for i in (0, 1))
            # Four digits are more than a picture shows; in full the file would be the largest of all.
            parts.append(pd.DataFrame({"class": name, "curve": kind, "x": GRID, "y": y.round(4), "area": area}))
    return pd.concat(parts)


def _baseline_row(one: Tested) -> dict:
    auc = bootstrap_ci(roc_auc, one.labels, one.probabilities[0], groups=one.groups)  # a baseline is run once
    return {
        "arm": one.name,
        "n": len(one.cases),
        **one.interval("kappa", "kappa"),
        **one.interval("accuracy", "accuracy"),
        "auc": one.over_seeds(roc_auc),
        "auc_low": auc[0],
        "auc_high": auc[1],
    }


# --- Comparisons of arms ----------------------------------------------------------------------------------------------
def _contrasts(study: Study, arms: dict[str, Tested]) -> pd.DataFrame:
    rows = []
    for family in study.families:
        tests = []
        for names in family.contrasts:
            weights = (1, -1, -1, 1)[: len(names)]
            there = all(name in arms for name in names)
            found = compare_arms(family.measure, [arms[name] for name in names], weights) if there else None
            if found:
                named = dict.fromkeys(CONTRAST, "") | dict(zip(CONTRAST, names, strict=False))
                tests.append(
                    {
                        "family": family.name,
                        "question": family.question,
                        "measure": family.measure,
                        **named,
                        "seeds": found.n,
                        "difference": found.estimate,
                        "low": found.low,
                        "high": found.high,
                        "t": found.t,
                        "p": found.p,
                    }
                )
        p = np.array([test["p"] for test in tests])
        # What is missing, or has no p, counts as a test that shows nothing: the correction is that of the plan.
        planned = np.ones(len(family.contrasts))
        planned[: len(p)] = np.nan_to_num(p, nan=1)
        for test, corrected in zip(tests, holm(planned), strict=False):
            rows.append(test | {"p_holm": np.nan if np.isnan(test["p"]) else corrected})
    return pd.DataFrame(rows)


def _attribution(study: Study, arms: dict[str, Tested]) -> pd.DataFrame:
    names = factorial_arms(study.factors)
    if not study.factors or not all(name in arms for name in names):
        return pd.DataFrame()
    return attribute(study.factors, paired([arms[name] for name in names]))


def _efficiency(study: Study, arms: dict[str, Tested]) -> pd.DataFrame:
    """Arms of the experiment "efficiency", and the primary contrast's two at the study's own number of scans."""
    planned = study.experiments().get("efficiency", ())
    names = [arm.name for arm in planned] + [study.primary.arm, study.primary.baseline] * bool(planned)
    rows = []
    for one in (arms[name] for name in names if name in arms):
        kappa = one.interval("kappa", "kappa")
        rows.append(
            {
                "start": one.arm.start,
                "n_train": one.arm.n_train or study.n_train,
                "seeds": len(one.seeds),
                "kappa": kappa["kappa"],
                "low": kappa["kappa_low"],
                "high": kappa["kappa_high"],
            }
        )
    return pd.DataFrame(rows).sort_values(["start", "n_train"], ignore_index=True) if rows else pd.DataFrame()


def _folds(study: Study, outcomes: dict[str, Outcomes], arms: dict[str, Tested]) -> pd.DataFrame:
    """Differences of kappa, one a fold: the mean over seeds."""
    rows = []
    pairs = [names for family in study.families if family.measure == "kappa" for names in family.contrasts]
    for names in dict.fromkeys(tuple(names) for names in pairs if study.folds and len(names) == 2):
        if not all(name in arms for name in names):
            continue
        one, other = (outcomes[arms[name].arm.experiment].of_arm(name) for name in names)
        by_fold = (_kappas_by_run(one) - _kappas_by_run(other)).groupby("fold").mean()
        n_test = one.tested.sum(axis=1).mean()
        found = t_test(by_fold, overlap=n_test / _numbers(one.runs, "n_train").mean())
        rows.append(
            {
                "arm": names[0],
                "baseline": names[1],
                "difference": found.estimate,
                "low": found.low,
                "high": found.high,
                "p": found.p,
            }
        )
    return pd.DataFrame(rows)


def _kappas_by_run(one: Outcomes) -> pd.Series:
    kappas = [cohen_kappa(one.labels[there], run[there]) for run, there in zip(one.predicted, one.tested, strict=True)]
    return pd.Series(kappas, pd.MultiIndex.from_frame(one.runs[["seed", "fold"]]))


# --- Runs -------------------------------------------------------------------------------------------------------------
def _pretraining(arms: dict[str, Tested]) -> pd.DataFrame:
    """Accuracy on test videos, of pretrainings with the study's own network, each counted once."""
    own = [one for one in arms.values() if not (one.arm.temporal or one.arm.backbone or one.arm.preset)]
    runs = [one.runs.assign(videos=one.arm.videos, start=one.arm.start) for one in own if one.arm.pretrains]
    if not runs:
        return pd.DataFrame()
    done = pd.concat(runs).dropna(subset="pretrain_accuracy").drop_duplicates("pretrain_run")
    rows = []
    for (videos, start), group in done.groupby(["videos", "start"], sort=False):
        accuracy = _numbers(group, "pretrain_accuracy").to_numpy()
        low = high = np.nan
        if len(accuracy) > 1:
            found = t_test(accuracy)
            low, high = found.low, found.high
        rows.append(
            {
                "videos": videos,
                "start": start,
                "seeds": len(accuracy),
                "accuracy": accuracy.mean(),
                "low": low,
                "high": high,
                "classes": int(_numbers(group, "pretrain_classes").iloc[0]),
            }
        )
    return pd.DataFrame(rows)


def _cost(study: Study, outcomes: dict[str, Outcomes]) -> pd.DataFrame:
    """Seconds of training of the planned arms; a pretraining counts once, in the first experiment that uses it."""
    rows, counted, planned = [], set(), {arm.name for arm in study.arms}
    for experiment in [name for name in study.experiments() if name in outcomes]:
        runs = outcomes[experiment].runs
        runs = runs[runs["arm"].isin(planned)]
        once = runs.dropna(subset="pretrain_run").drop_duplicates("pretrain_run")
        once = once[~once["pretrain_run"].isin(counted)]
        counted |= set(once["pretrain_run"])
        seconds = _numbers(runs, "seconds").sum() + _numbers(once, "pretrain_seconds").sum()
        rows.append(
            {
                "experiment": experiment,
                "runs": len(runs),
                "core_seconds": seconds / len(runs),
                "hours_total": seconds / 3600,
                "wall_hours": _wall_hours(runs),
                "peak_memory_mb": _numbers(runs, "peak_memory_mb").max(),
                "device": ", ".join(dict.fromkeys(runs["device"].dropna())),
            }
        )
    return pd.DataFrame(rows)


def _wall_hours(runs: pd.DataFrame) -> float:
    """From the start of the first run to the end of the last; nan where they do not say when they ended."""
    if runs["finished"].isna().any():
        return float("nan")
    ends = pd.to_datetime(runs["finished"])
    begins = ends - pd.to_timedelta(_numbers(runs, "seconds"), unit="s")
    return (ends.max() - begins.min()).total_seconds() / 3600


def _power() -> pd.DataFrame:
    """What the paper's numbers of scans can show, by simulation: one run an arm, errors independent."""
    rows = []
    for counts, n in ((PAPER_VALIDATION_COUNTS, sum(PAPER_VALIDATION_COUNTS)), (TB_TRAIN_COUNTS, PAPER_TEST_SCANS)):
        for kappa in (PAPER_KAPPA_SCRATCH, PAPER_KAPPA_PRETRAINED, PAPER_KAPPA_TEST):
            bounds = kappa_interval_by_simulation(counts, kappa, n=n)
            best, gap = best_of_k(counts, kappa, BEST_OF, n=n), detectable_difference(counts, kappa, n=n)
            for question, value, (low, high) in (
                ("95 % interval of kappa", kappa, bounds),
                (f"best of {BEST_OF} equal runs: kappa too high by", best, (np.nan, np.nan)),
                ("smallest gain that 4 of 5 studies show", gap, (np.nan, np.nan)),
            ):
                rows.append({"question": question, "n": n, "kappa": kappa, "value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def _numbers(runs: pd.DataFrame, column: str) -> pd.Series:
    return pd.to_numeric(runs[column])  # of mixed type where some runs have none


# --- Files ------------------------------------------------------------------------------------------------------------
def write_tables(folder: Path, tables: dict[str, pd.DataFrame]) -> list[Path]:
    """Write NAME.csv for each table, whole or not at all; those of TABLES that are not made any more are deleted.

    Raises:
        StorageError: a file cannot be written.
    """
    written = []
    for name, table in tables.items():
        written.append(folder / f"{name}.csv")
        files.write_file(written[-1], table.to_csv(index=False, float_format="%.12g", lineterminator="\n"))
    for name in set(TABLES) - set(tables):
        with files.storing(folder / f"{name}.csv"):
            (folder / f"{name}.csv").unlink(missing_ok=True)
    return written


def compare_tables(folder: Path, tables: dict[str, pd.DataFrame]) -> list[str]:
    """Where the files of a folder differ from tables: at most one sentence a column, with its first row that does.

    Numbers may differ by TOLERANCE.
    """
    return [found for name, table in tables.items() for found in _differences(folder / f"{name}.csv", table)]


def _differences(path: Path, table: pd.DataFrame) -> Iterable[str]:
    if not path.is_file():
        yield f"{path.name}: there is no such file"
        return
    try:
        old = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise DataError(f"cannot be read ({error}).", path=path, remedy="Take it from the repository again.") from error
    if list(old) != list(table) or len(old) != len(table):
        yield (
            f"{path.name}: has {len(old)} rows and columns {', '.join(old)}; "
            f"computed {len(table)} rows and columns {', '.join(table)}"
        )
        return
    for column in table:
        there, now = old[column], table[column].reset_index(drop=True)
        if pd.api.types.is_numeric_dtype(now):
            numbers, now = pd.to_numeric(there, errors="coerce").to_numpy(float), now.to_numpy(float)
            same = np.isclose(numbers, now, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
            same &= np.isnan(numbers) == (there == "").to_numpy()  # a word is not an empty cell
        else:
            same = (there == now.astype(str)).to_numpy()
        if not same.all():
            first, more = int(np.argmin(same)), int((~same).sum()) - 1
            yield (
                f"{path.name}: row {first + 1}, column {column}: {there[first]!r} in the file, {now[first]} computed"
                f"{f', and {more} more rows' if more else ''}"
            )
