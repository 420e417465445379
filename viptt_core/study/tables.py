"""Every table of a study, computed from its predictions alone: no model, no clip; the same numbers on any machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core import files, metrics
from viptt_core.constants import (
    PAPER_KAPPA_PRETRAINED,
    PAPER_KAPPA_SCRATCH,
    PAPER_KAPPA_TEST,
    TB_RARE_CLASSES,
    TB_TRAIN_COUNTS,
)
from viptt_core.errors import SettingError
from viptt_core.results import SCORE_COLUMNS
from viptt_core.statistics import (
    PAPER_TEST_SCANS,
    PAPER_VALIDATION_COUNTS,
    Resamples,
    best_of_k,
    detectable_difference,
    holm,
    kappa_interval_by_simulation,
    resample,
    shapley_weights,
    t_test,
    two_level_comparison,
)
from viptt_core.study.outcomes import Outcomes, read_table
from viptt_core.study.plan import Arm, Study
from viptt_core.study.pointing import Evidence, evidence_tables

CONTRAST = ("arm", "baseline", "arm2", "baseline2")
BEST_OF = 5  # runs an arm of the authors' notebooks could have chosen from
TOLERANCE = 1e-9  # relative and absolute; the files hold twelve digits
START, GAP = "start", "naive gap"  # rows of the attribution beside the factors


@dataclass(frozen=True)
class Tested:
    """What the runs of an arm predicted on the cases that all its seeds tested, folds put together.

    Attributes:
        name, arm: The arm as planned; None for a baseline.
        runs: A row a run, see `outcomes.RUN_COLUMNS`.
        seeds: S numbers, ascending.
        cases: N rows name, group (what is resampled as a whole), label, sorted by name.
        class_names: K names.
        probabilities: float64 [S, N, K].
        resamples: Of the S runs; arms of the same cases meet the same draws.
    """

    name: str
    arm: Arm | None
    runs: pd.DataFrame
    seeds: list[int]
    cases: pd.DataFrame
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    resamples: Resamples

    @property
    def labels(self) -> np.ndarray:
        """Int64 [N]."""
        return self.cases["label"].to_numpy()

    @property
    def rare(self) -> list[int] | None:
        """Numbers of the rare classes; None where the classes are others than those of the paper."""
        known = set(TB_RARE_CLASSES) <= set(self.class_names)
        return [self.class_names.index(name) for name in TB_RARE_CLASSES] if known else None

    def over_seeds(self, score: Callable[[np.ndarray, np.ndarray], float]) -> float:
        """Mean over seeds of a score of labels [N] and probabilities [N, K]."""
        return float(np.mean([score(self.labels, one) for one in self.probabilities]))

    def interval(self, column: str, statistic: str, classes=None) -> dict[str, float]:
        """Mean over seeds and its interval, as columns of a row."""
        found = two_level_comparison(statistic, self.resamples, classes=classes)
        return {column: found.estimate, f"{column}_low": found.low, f"{column}_high": found.high}


def make_tables(
    study: Study, outcomes: dict[str, Outcomes], evidence: Evidence | None = None
) -> dict[str, pd.DataFrame]:
    """All tables of a study by name, of what was run; empty where there is nothing to say.

    Args:
        study: The plan.
        outcomes: By experiment; arms that the plan does not name are baselines.
        evidence: Maps, for the table "evidence".

    Returns:
        Intervals cover 95 %: of seeds and test cases (groups as a whole), and of an arm with one seed of the test
        cases alone. "missing" names planned arms that were not run; contrasts with them are left out, though Holm's
        correction counts them.

    Raises:
        SettingError: arms to be compared were not tested on the same cases, or share no seed.
    """
    tested = gather(study, outcomes)
    arms = {name: one for name, one in tested.items() if one.arm}
    baselines = [one for one in tested.values() if not one.arm]
    # Curves of all arms would be larger than all other tables together.
    main = study.arm(study.primary.arm).experiment
    scores = pd.DataFrame([_arm_row(one) for one in arms.values()])
    return {
        "arms": scores,
        "contrasts": _contrasts(study, arms),
        "attribution": _attribution(study, arms),
        "per_class": _by_arm(arms, _per_class),
        "confusion": _by_arm(arms, _confusion),
        "curves": _by_arm({name: one for name, one in arms.items() if one.arm.experiment == main}, _curves),
        "calibration": _by_arm(arms, lambda one: pd.DataFrame(metrics.calibration_bins(one.labels, one.probabilities))),
        "efficiency": _efficiency(study, scores),
        "pretraining": _pretraining(arms),
        "power": _power() if any(one.rare for one in arms.values()) else pd.DataFrame(),
        "cost": _cost(study, outcomes),
        "baselines": pd.DataFrame([_baseline_row(one) for one in baselines], columns=SCORE_COLUMNS),
        "folds": _folds(study, outcomes, arms),
        "evidence": pd.DataFrame() if evidence is None else evidence_tables(evidence),
        "missing": pd.DataFrame({"arm": [arm.name for arm in study.arms if arm.name not in arms]}),
    }


def gather(study: Study, outcomes: dict[str, Outcomes]) -> dict[str, Tested]:
    """The arms that were run, by name: those planned, in the plan's order, then others (baselines).

    Raises:
        SettingError: the seeds of an arm have no case in common.
    """
    planned = {arm.name: arm for arms in study.experiments().values() for arm in arms}
    found = {}
    for one in outcomes.values():
        cases = pd.DataFrame({"name": one.names, "group": one.groups, "label": one.labels}).sort_values("name")
        for name in one.runs["arm"].unique():
            runs, (classes, probabilities) = one.of_arm(name).runs, one.by_seed(name)
            kept = cases[(classes >= 0).all(axis=0)[cases.index]]
            if kept.empty:
                raise SettingError(f"the seeds of arm '{name}' tested no case in common.", remedy="Run it to its end.")
            found[name] = Tested(
                name,
                planned.get(name),
                runs,
                sorted(int(seed) for seed in runs["seed"].unique()),
                kept.reset_index(drop=True),
                one.class_names,
                probabilities[:, kept.index],
                resample(kept["label"], classes[:, kept.index], groups=kept["group"], n_classes=len(one.class_names)),
            )
    order = [name for name in (*planned, *found) if name in found]
    return {name: found[name] for name in order}


# --- Tables by arm ----------------------------------------------------------------------------------------------------
def _by_arm(arms: dict[str, Tested], make: Callable[[Tested], pd.DataFrame]) -> pd.DataFrame:
    tables = {name: make(one) for name, one in arms.items()}
    return pd.concat(tables, names=["arm"]).reset_index("arm").reset_index(drop=True) if tables else pd.DataFrame()


def _arm_row(one: Tested) -> dict:
    kappas, runs = metrics.kappa_of_tables(one.resamples.whole), one.runs
    rare = dict.fromkeys(("rare_recall", "rare_recall_low", "rare_recall_high"), np.nan)
    if one.rare:
        rare = one.interval("rare_recall", "recall", one.rare)
    at_limit = (_numbers(runs, "epochs") >= _numbers(runs, "epoch_limit")) & ~runs["stopped_early"].astype(bool)
    return {
        "experiment": one.arm.experiment,
        "arm": one.name,
        "start": one.arm.start,
        "seeds": len(one.seeds),
        "n": len(one.cases),
        **one.interval("kappa", "kappa"),
        **one.interval("accuracy", "accuracy"),
        "auc": one.over_seeds(metrics.roc_auc),
        **rare,
        "ece": one.over_seeds(metrics.expected_calibration_error),
        "brier": one.over_seeds(metrics.brier_score),
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
        of_seeds = [metrics.curves(one.labels == c, run[:, c]) for run in one.probabilities]
        for kind in of_seeds[0]:
            y, area = (np.mean([found[kind][i] for found in of_seeds], axis=0) for i in (0, 1))
            # Four digits are more than a picture shows; in full the file would be the largest of all.
            parts.append(pd.DataFrame({"class": name, "curve": kind, "x": metrics.GRID, "y": y.round(4), "area": area}))
    return pd.concat(parts)


def _baseline_row(one: Tested) -> dict:
    first = one.probabilities[0]  # a baseline is run once
    low, high = metrics.bootstrap_ci(metrics.roc_auc, one.labels, first, groups=one.cases["group"])
    scores = one.interval("kappa", "kappa") | one.interval("accuracy", "accuracy")
    auc = {"auc": one.over_seeds(metrics.roc_auc), "auc_low": low, "auc_high": high}
    return {"arm": one.name, "n": len(one.cases), **scores, **auc}


# --- Comparisons of arms ----------------------------------------------------------------------------------------------
def paired(arms: Sequence[Tested]) -> list[Resamples]:
    """Resamples of the seeds that all arms have.

    Raises:
        SettingError: the arms were not tested on the same cases, or share no seed.
    """
    names = ", ".join(f"'{one.name}'" for one in arms)
    if not all(one.cases.equals(arms[0].cases) and one.class_names == arms[0].class_names for one in arms):
        raise SettingError(f"arms {names} were not tested on the same cases.", remedy="Compare arms that were.")
    seeds = [seed for seed in arms[0].seeds if all(seed in one.seeds for one in arms)]
    if not seeds:
        raise SettingError(f"arms {names} share no seed.", remedy="Run them with the same seeds.")
    return [one.resamples[[one.seeds.index(seed) for seed in seeds]] for one in arms]


def _contrasts(study: Study, arms: dict[str, Tested]) -> pd.DataFrame:
    rows = []
    for family in study.families:
        tests = []
        for names in family.contrasts:
            there = [arms[name] for name in names if name in arms]
            rare = family.measure == "rare recall"
            if len(there) < len(names) or (rare and not there[0].rare):
                continue
            found = two_level_comparison(
                "recall" if rare else "kappa",
                *paired(there),
                weights=(1, -1, -1, 1)[: len(names)],
                classes=there[0].rare if rare else None,
            )
            tests.append(
                {"family": family.name, "question": family.question, "measure": family.measure}
                | dict.fromkeys(CONTRAST, "")
                | dict(zip(CONTRAST, names, strict=False))
                | {"seeds": found.n, "difference": found.estimate, "low": found.low, "high": found.high}
                | {"t": found.t, "p": found.p}
            )
        p = np.array([test["p"] for test in tests])
        # What is missing, or has no p, counts as a test that shows nothing: the correction is that of the plan.
        planned = np.ones(len(family.contrasts))
        planned[: len(p)] = np.nan_to_num(p, nan=1)
        for test, corrected in zip(tests, holm(planned), strict=False):
            rows.append(test | {"p_holm": np.nan if np.isnan(test["p"]) else corrected})
    return pd.DataFrame(rows)


def attribute(factors: Sequence[str], arms: Sequence[Resamples]) -> pd.DataFrame:
    """Shapley value of the start and of each factor for kappa, and the gap that they add up to.

    Args:
        factors: Names, without the start.
        arms: Of `Study.factorial_arms`, in this order; the same cases and seeds.

    Returns:
        First the gap (all on minus all off), then a row a factor: points of kappa with two-level interval, percent of
        the gap, nan unless its interval excludes 0.
    """
    gap = np.zeros(len(arms))
    gap[[0, -1]] = -1, 1
    weights = dict(zip((GAP, START, *factors), (gap, *shapley_weights(1 + len(factors))), strict=True))
    found = [two_level_comparison("kappa", *arms, weights=values) for values in weights.values()]
    table = pd.DataFrame({"factor": list(weights), "points": [one.estimate for one in found]})
    table = table.assign(low=[one.low for one in found], high=[one.high for one in found])
    known = found[0].low > 0 or found[0].high < 0
    return table.assign(percent=100 * table["points"] / found[0].estimate if known else np.nan)


def _attribution(study: Study, arms: dict[str, Tested]) -> pd.DataFrame:
    names = study.factorial_arms
    if not study.factors or not all(name in arms for name in names):
        return pd.DataFrame()
    return attribute(study.factors, paired([arms[name] for name in names]))


def _efficiency(study: Study, arms: pd.DataFrame) -> pd.DataFrame:
    """Arms of the experiment "efficiency", and the primary contrast's two at the study's own number of scans."""
    planned = study.experiments().get("efficiency", ())
    if not planned or arms.empty:
        return pd.DataFrame()
    rows = arms[arms["arm"].isin([*(arm.name for arm in planned), study.primary.arm, study.primary.baseline])]
    rows = rows.assign(n_train=[study.arm(name).n_train or study.n_train for name in rows["arm"]])
    rows = rows[["start", "n_train", "seeds", "kappa", "kappa_low", "kappa_high"]]
    rows = rows.rename(columns={"kappa_low": "low", "kappa_high": "high"})
    return rows.sort_values(["start", "n_train"], ignore_index=True)


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
        rows.append((*names, found.estimate, found.low, found.high, found.p))
    return pd.DataFrame(rows, columns=["arm", "baseline", "difference", "low", "high", "p"])


def _kappas_by_run(one: Outcomes) -> pd.Series:
    kappas = [
        metrics.cohen_kappa(one.labels[there], run[there]) for run, there in zip(one.predicted, one.tested, strict=True)
    ]
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
        found = t_test(accuracy) if len(accuracy) > 1 else None
        ends = (found.low, found.high) if found else (np.nan, np.nan)
        rows.append((videos, start, len(accuracy), accuracy.mean(), *ends, int(group["pretrain_classes"].iloc[0])))
    return pd.DataFrame(rows, columns=["videos", "start", "seeds", "accuracy", "low", "high", "classes"])


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
        hours, memory = seconds / 3600, _numbers(runs, "peak_memory_mb").max()
        devices = ", ".join(dict.fromkeys(runs["device"].dropna()))
        rows.append((experiment, len(runs), seconds / len(runs), hours, _wall_hours(runs), memory, devices))
    columns = "experiment", "runs", "core_seconds", "hours_total", "wall_hours", "peak_memory_mb", "device"
    return pd.DataFrame(rows, columns=columns)


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
            rows += [
                ("95 % interval of kappa", n, kappa, kappa, *bounds),
                (f"best of {BEST_OF} equal runs: kappa too high by", n, kappa, best, np.nan, np.nan),
                ("smallest gain that 4 of 5 studies show", n, kappa, gap, np.nan, np.nan),
            ]
    return pd.DataFrame(rows, columns=["question", "n", "kappa", "value", "low", "high"])


def _numbers(runs: pd.DataFrame, column: str) -> pd.Series:
    return pd.to_numeric(runs[column])  # of mixed type where some runs have none


# --- Files ------------------------------------------------------------------------------------------------------------
def write_tables(folder: Path, tables: dict[str, pd.DataFrame]) -> list[Path]:
    """Write NAME.csv for each table, whole or not at all; the files of empty tables are deleted.

    Raises:
        StorageError: a file cannot be written.
    """
    written = []
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        if table.empty:
            with files.storing(path):
                path.unlink(missing_ok=True)
        else:
            files.write_file(path, table.to_csv(index=False, float_format="%.12g", lineterminator="\n"))
            written.append(path)
    return written


def compare_table(path: Path, table: pd.DataFrame) -> str:
    """How a file differs from a table, where numbers may by TOLERANCE; "" if it does not.

    Raises:
        DataError: the file cannot be read.
    """
    if table.empty or not path.is_file():
        wrong = "follows from no predictions" if table.empty else "there is no such file"
        return f"{path.name}: {wrong}" if path.is_file() or not table.empty else ""
    now = table.reset_index(drop=True)
    try:
        pd.testing.assert_frame_equal(read_table(path), now, check_dtype=False, rtol=TOLERANCE, atol=TOLERANCE)
    except AssertionError as error:
        said = str(error).splitlines()
        return f"{path.name}: {said[0]}. {said[-1]} (file, computed)"
    return ""
