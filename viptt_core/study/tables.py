"""Every table of a study, computed from its predictions alone: no model, no clip; the same numbers on any machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core import files, metrics, statistics
from viptt_core.constants import (
    PAPER_KAPPA_PRETRAINED,
    PAPER_KAPPA_SCRATCH,
    PAPER_KAPPA_TEST,
    TB_RARE_CLASSES,
    TB_TRAIN_COUNTS,
)
from viptt_core.errors import SettingError
from viptt_core.statistics import Comparison, Resamples, resample, score_tables, two_level_comparison
from viptt_core.study.outcomes import SIZE, SOURCE, Outcomes, read_table
from viptt_core.study.plan import Arm, Study
from viptt_core.study.verdict import CONTRAST, PAPER_GAIN, decide, unlearned

BEST_OF = 5  # runs an arm of the authors' notebooks could have chosen from
TOLERANCE = 1e-9  # relative and absolute; the files hold twelve digits
WEIGHTS = (1, -1, -1, 1)  # of the arms of a contrast, two or four
START, GAP = "start", "naive gap"  # rows of the attribution beside the factors


@dataclass(frozen=True)
class Tested(Outcomes):
    """The J runs of an arm, by seed and fold, on the N cases that any of them tested, by name."""

    arm: Arm | None = None  #: as planned; None for a baseline
    name: str = ""

    @cached_property
    def by_run(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Labels int64 [M] and probabilities float64 [M, K] of the M cases of each run."""
        return [(self.labels[there], run[there]) for run, there in zip(self.probabilities, self.tested, strict=True)]

    @cached_property
    def confusion(self) -> np.ndarray:
        """Int64 [J, K, K], rows true classes."""
        k = len(self.class_names)
        return np.stack([metrics.confusion_matrix(labels, run.argmax(axis=1), k) for labels, run in self.by_run])

    @cached_property
    def resamples(self) -> Resamples:
        """Of runs that all test the N cases; arms of the same cases meet the same draws."""
        return resample(self.labels, self.predicted, groups=self.groups, n_classes=len(self.class_names))

    @property
    def keys(self) -> list[tuple[int, int]]:
        """Seed and fold of each run."""
        return [(int(seed), int(fold)) for seed, fold in zip(self.runs["seed"], self.runs["fold"], strict=True)]

    @property
    def rare(self) -> list[int] | None:
        """Numbers of the rare classes; None where the classes are others than those of the paper."""
        known = set(TB_RARE_CLASSES) <= set(self.class_names)
        return [self.class_names.index(name) for name in TB_RARE_CLASSES] if known else None

    def measured(self, measure: str) -> tuple[str, list[int] | None]:
        """The statistic, and of which classes, that one of `plan.MEASURES` stands for."""
        return ("recall", self.rare) if measure == "rare recall" else ("kappa", None)

    def over_runs(self, score: Callable[[np.ndarray, np.ndarray], float]) -> float:
        """Mean over runs of a score of labels [M] and probabilities [M, K], where it is defined."""
        return float(_mean([score(*run) for run in self.by_run]))

    @cached_property
    def areas(self) -> np.ndarray:
        """Area under the ROC curve of each class against the rest, float [J, K]; nan where it is not defined."""
        ks = range(len(self.class_names))
        return np.array([[metrics.roc_auc(1 * (y == k), p[:, [k, k]] * [-1, 1]) for k in ks] for y, p in self.by_run])

    def interval(self, column: str, statistic: str, classes=None) -> dict[str, float]:
        """Mean over runs and its 95 % interval, cut to the values that a score can take, as columns of a row."""
        found = compare([self], statistic, classes=classes)
        low, high = np.clip((found.low, found.high), -1 if statistic == "kappa" else 0, 1).tolist()
        return {column: found.estimate, f"{column}_low": low, f"{column}_high": high}


def compare(
    arms: Sequence[Tested], statistic: str = "kappa", *, weights=None, classes=None, level: float = statistics.LEVEL
) -> Comparison:
    """A weighted sum of arms over the seeds and folds that all have, with its interval: the one rule for all tables.

    Where all runs test the same cases, a two-level bootstrap over seeds and test cases (groups whole). Where each run
    tests others (folds, repeated splits), the corrected interval over single runs, which knows that their training
    sets overlap; runs in which the statistic is undefined do not count. Statistic, weights (WEIGHTS where none are
    given), classes and level are those of `statistics.two_level_comparison`.

    Raises:
        SettingError: the arms share no run, or tested other cases in one.
    """
    names, runs = ", ".join(f"'{one.name}'" for one in arms), shared_runs(arms)
    if not runs[0]:
        raise SettingError(f"arms {names} share no seed.", remedy="Run them with the same seeds.")
    weights = WEIGHTS[: len(arms)] if weights is None else weights
    tests = [one.tested[rows] for one, rows in zip(arms, runs, strict=True)]
    for one, tested in zip(arms[1:], tests[1:], strict=True):
        pairs = [(arms[0].names[a], one.names[b]) for a, b in zip(tests[0], tested, strict=True)]
        if one.class_names != arms[0].class_names or not all(np.array_equal(*pair) for pair in pairs):
            raise SettingError(f"arms {names} were not tested on the same cases.", remedy="Compare arms that were.")
    if all(one.tested.all() for one in arms):
        tables = [one.resamples[rows] for one, rows in zip(arms, runs, strict=True)]
        return two_level_comparison(statistic, *tables, weights=weights, classes=classes, level=level)
    differences, overlap = run_differences(arms, runs, statistic, weights, classes)
    if len(differences) < 2:
        return Comparison(float(_mean(differences)), np.nan, np.nan, len(differences))
    return statistics.mean_interval(differences, overlap=overlap, level=level)


def shared_runs(arms: Sequence[Tested]) -> list[list[int]]:
    """Of each arm, the numbers of its runs of the seeds and folds that all arms have."""
    shared = [key for key in arms[0].keys if all(key in one.keys for one in arms)]
    return [[one.keys.index(key) for key in shared] for one in arms]


def run_differences(arms: Sequence[Tested], runs, statistic: str, weights, classes) -> tuple[np.ndarray, float]:
    """The weighted sum of arms in each run in which it is defined, float [J]; and test over training cases."""
    pairs = list(zip(arms, runs, strict=True))
    differences = weights @ np.array([score_tables(statistic, one.confusion[rows], classes) for one, rows in pairs])
    n_test = np.mean([one.tested[rows].sum(axis=1) for one, rows in pairs])
    n_train = np.mean([_numbers(one.runs, "n_train").iloc[rows] for one, rows in pairs])
    return differences[np.isfinite(differences)], n_test / n_train


def make_tables(study: Study, outcomes: dict[str, Outcomes]) -> dict[str, pd.DataFrame]:
    """All tables of a study by name, of what was run; empty where there is nothing to say.

    Outcomes are given by experiment, and those of sources after SOURCE; arms that the plan does not name are baselines.
    Intervals are those of `compare`, at 95 % but for contrasts (1 - 0.05 / number of contrasts that the family plans)
    and the attribution (by its number of rows). "missing" names planned arms that were not run; contrasts with them
    are left out.

    Raises:
        SettingError: arms to be compared were not tested on the same cases, or share no seed.
    """
    tested = gather(study, {name: one for name, one in outcomes.items() if not name.startswith(SOURCE)})
    arms = {name: one for name, one in tested.items() if one.arm}
    baselines = [one for one in tested.values() if not one.arm]
    scores, sources = pd.DataFrame([_arm_row(one) for one in arms.values()]), _sources(study, outcomes)
    return {
        "arms": scores,
        "contrasts": _contrasts(study, arms, sources),
        "attribution": _attribution(study, arms),
        "trend": _trend(study, scores),
        "sources": sources,
        "per_class": _by_arm(arms, _per_class),
        "confusion": _by_arm(arms, _confusion),
        # Curves of all arms would be larger than all other tables together.
        "curves": _by_arm({name: one for name, one in arms.items() if one.arm.experiment == study.main}, _curves),
        "calibration": _by_arm(arms, _calibration),
        "power": _power() if any(one.rare for one in arms.values()) else pd.DataFrame(),
        "cost": _cost(study, outcomes),
        "baselines": pd.DataFrame([{"arm": one.name, **_scores(one)} for one in baselines]),
        "missing": pd.DataFrame({"arm": [arm.name for arm in study.arms if arm.name not in arms]}),
    }


def gather(study: Study, outcomes: dict[str, Outcomes]) -> dict[str, Tested]:
    """The arms that were run, by name: those planned, in the plan's order, then others (baselines)."""
    planned, found = {arm.name: arm for arm in study.arms}, {}
    for one in outcomes.values():
        for name in one.runs["arm"].unique():
            mine = one.of_arm(name)
            kept = np.flatnonzero(mine.tested.any(axis=0))
            kept = kept[np.argsort(mine.names[kept])]
            cases = {key: getattr(mine, key)[kept] for key in ("names", "groups", "labels")}
            cases["probabilities"] = mine.probabilities[:, kept].astype(float)
            found[name] = Tested(**(vars(mine) | cases), arm=planned.get(name), name=name)
    order = [name for name in (*planned, *found) if name in found]
    return {name: found[name] for name in order}


# --- Tables by arm ----------------------------------------------------------------------------------------------------
def _by_arm(arms: dict[str, Tested], make: Callable[[Tested], pd.DataFrame]) -> pd.DataFrame:
    tables = {name: make(one) for name, one in arms.items()}
    return pd.concat(tables, names=["arm"]).reset_index("arm").reset_index(drop=True) if tables else pd.DataFrame()


def _scores(one: Tested) -> dict:
    scores = one.interval("kappa", "kappa") | one.interval("accuracy", "accuracy")
    return {"n": len(one.names)} | scores | {"auc": _mean(_mean(one.areas))}


def _arm_row(one: Tested) -> dict:
    runs = one.runs.assign(kappa=score_tables("kappa", one.confusion))
    of_seeds = runs.groupby("seed")["kappa"].mean()
    rare = dict.fromkeys(("rare_recall", "rare_recall_low", "rare_recall_high"), np.nan)
    at_limit = (_numbers(runs, "epochs") >= _numbers(runs, "epoch_limit")) & ~runs["stopped_early"].astype(bool)
    return {
        "experiment": one.arm.experiment,
        "arm": one.name,
        "start": one.arm.start,
        "seeds": len(of_seeds),
        **_scores(one),
        "kappa_median": of_seeds.median(),
        "collapsed": int(((one.confusion.sum(axis=1) > 0).sum(axis=1) == 1).sum()),
        "runs": len(runs),
        **(one.interval("rare_recall", "recall", one.rare) if one.rare else rare),
        "ece": one.over_runs(metrics.expected_calibration_error),
        "brier": one.over_runs(metrics.brier_score),
        "learning_rate": _numbers(runs, "learning_rate").median(),
        "best_epoch": _numbers(runs, "best_epoch").median(),
        "at_limit": int(at_limit.sum()),
        "seed_sd": of_seeds.std(),
    }


def _per_class(one: Tested) -> pd.DataFrame:
    support = np.bincount(one.labels, minlength=len(one.class_names))
    rows = []
    for k, name in enumerate(one.class_names):
        row = {"class": name, "support": support[k], "auc": _mean(one.areas[:, k])}
        for score in ("precision", "recall", "f1"):
            row |= one.interval(score, score, [k])
        rows.append(row)
    return pd.DataFrame(rows)


def _confusion(one: Tested) -> pd.DataFrame:
    names, counts = np.array(one.class_names), one.confusion.sum(axis=0).ravel()
    k = len(names)
    return pd.DataFrame({"true": np.repeat(names, k), "predicted": np.tile(names, k), "count": counts})


def _calibration(one: Tested) -> pd.DataFrame:
    labels, probabilities = (np.concatenate(parts) for parts in zip(*one.by_run, strict=True))
    return pd.DataFrame(metrics.calibration_bins(labels, probabilities))


def _curves(one: Tested) -> pd.DataFrame:
    parts = []
    for k, name in enumerate(one.class_names):
        of_runs = [metrics.curves(labels == k, run[:, k]) for labels, run in one.by_run]
        for kind in of_runs[0]:
            y, area = (_mean([found[kind][i] for found in of_runs]) for i in (0, 1))
            # Four digits are more than a picture shows; in full the file would be the largest of all.
            parts.append(pd.DataFrame({"class": name, "curve": kind, "x": metrics.GRID, "y": y.round(4), "area": area}))
    return pd.concat(parts)


# --- Comparisons of arms ----------------------------------------------------------------------------------------------
def _contrasts(study: Study, arms: dict[str, Tested], sources: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for family in study.families:
        level, rare = 1 - 0.05 / len(family.contrasts), family.measure == "rare recall"
        for names in family.contrasts:
            there = [arms[name] for name in names if name in arms]
            if len(there) < len(names) or (rare and not there[0].rare):
                continue
            statistic, classes = there[0].measured(family.measure)
            found = compare(there, statistic, classes=classes, level=level)
            runs = there[0].runs["seed"].iloc[shared_runs(there)[0]].value_counts()
            seeds = int((runs == study.folds_of(there[0].arm)).sum())  # those of which all folds were run
            k = len(there[0].class_names)
            verdict = decide(found.low, found.high, measure=family.measure, classes=k, seeds=seeds)
            planned = min(study.seeds_of(one.arm) for one in there)
            unlearnt = unlearned(study, sources, [one.arm for one in there])
            silent = not family.verdict or seeds < planned or unlearnt  # no verdict before the plan's last run
            row = {"family": family.name, "question": family.question, "measure": family.measure}
            row |= dict.fromkeys(CONTRAST, "") | dict(zip(CONTRAST, names, strict=False))
            row |= {"seeds": seeds, "n": len(there[0].names), "difference": found.estimate}
            row |= {"low": found.low, "high": found.high, "level": level, "verdict": "" if silent else verdict}
            rows.append(row | {"has_018": not rare and found.low <= PAPER_GAIN <= found.high})
    return pd.DataFrame(rows)


def _attribution(study: Study, arms: dict[str, Tested]) -> pd.DataFrame:
    """The gap between all factors on and all off, then what each adds to it: the start and the factors (Shapley)."""
    there = [arms[name] for name in study.factorial_arms if name in arms]
    if not study.factors or len(there) < len(study.factorial_arms):
        return pd.DataFrame()
    gap = np.zeros(len(there))
    gap[[0, -1]] = -1, 1
    factors, values = (GAP, START, *study.factors), (gap, *statistics.shapley_weights(1 + len(study.factors)))
    level = 1 - 0.05 / len(factors)
    found = [compare(there, weights=weights, level=level) for weights in values]
    table = pd.DataFrame([(one.estimate, one.low, one.high) for one in found], columns=["points", "low", "high"])
    known = found[0].low > 0 or found[0].high < 0  # no share of what may be nothing
    table = table.assign(level=level, percent=100 * table["points"] / found[0].estimate if known else np.nan)
    table.insert(0, "factor", factors)
    return table


def _trend(study: Study, arms: pd.DataFrame) -> pd.DataFrame:
    """Kappa by number of labelled scans, and of videos: arms of these experiments, and the primary ones in both."""
    rows = []
    for experiment in ("labels", "dose"):
        planned = [arm.name for arm in study.experiments().get(experiment, ())]
        of_both = arms[arms["arm"].isin([*planned, *study.primary])] if planned and len(arms) else arms[:0]
        for row in of_both.itertuples():
            arm = study.arm(row.arm)
            n_videos = (arm.n_videos or study.n_videos) if arm.start == "video" else 0
            sizes = {"n_train": arm.n_train or study.n_train, "n_videos": n_videos, "seeds": row.seeds}
            scores = {"kappa": row.kappa, "low": row.kappa_low, "high": row.kappa_high}
            rows.append({"experiment": experiment, "start": row.start} | sizes | scores)
    table = pd.DataFrame(rows)
    return table.sort_values(["experiment", "start", "n_train", "n_videos"], ignore_index=True) if rows else table


# --- Runs -------------------------------------------------------------------------------------------------------------
def _sources(study: Study, outcomes: dict[str, Outcomes]) -> pd.DataFrame:
    """What each pretraining learned of each of its sources: accuracy on held-out videos, interval over groups."""
    rows, planned = [], {arm.name for arm in study.arms}
    for name in [name for name in study.sources if SOURCE + name in outcomes]:
        one = outcomes[SOURCE + name]
        size = one.of_arm(SIZE) if SIZE in set(one.runs["arm"]) else None
        size = np.nan if size is None else (size.predicted == size.labels)[size.tested].mean()
        for arm in [arm for arm in one.runs["arm"].unique() if arm in planned]:
            mine = one.of_arm(arm)
            run, case = mine.tested.nonzero()
            labels, groups, k = mine.labels[case], mine.groups[case], len(mine.class_names)
            # All seeds together: they hold other groups out, and a group is drawn with all its tests.
            tests = resample(labels, mine.predicted[run, case][None], groups=groups, n_classes=k)
            found = two_level_comparison("accuracy", tests)
            chance = np.bincount(labels).max() / len(labels)
            row = {"source": name, "arm": arm, "classes": k, "seeds": mine.runs["seed"].nunique()}
            row |= {"n": len(np.unique(case)), "groups": tests.n_units, "accuracy": found.estimate, "low": found.low}
            row |= {"high": found.high, "chance": chance, "size_accuracy": size}
            rows.append(row | {"learned": bool(found.low > np.fmax(chance, size))})
    return pd.DataFrame(rows)


def _cost(study: Study, outcomes: dict[str, Outcomes]) -> pd.DataFrame:
    """Fits and hours of the planned arms by experiment; a pretraining counts once, whatever its sources."""
    planned = {arm.name: arm for arm in study.arms}
    runs = {name: outcomes[name].runs for name in study.experiments() if name in outcomes}
    sources = [one.runs for name, one in outcomes.items() if name.startswith(SOURCE)]
    if sources:
        runs["pretraining"] = pd.concat(sources).drop_duplicates(["arm", "seed"])
    rows = []
    for name, table in runs.items():
        table, fits = table[table["arm"].isin(list(planned))], 0
        for arm, n in table["arm"].value_counts().items():
            stage = study.stage_of(planned[arm])
            stage = study.preset_of(planned[arm]).pretrain if name == "pretraining" else stage
            fits += n * len(study.rates_of(planned[arm], stage))
        devices = ", ".join(dict.fromkeys(table["device"].dropna()))
        rows.append((name, len(table), fits, _numbers(table, "seconds").sum() / 3600, devices))
    return pd.DataFrame(rows, columns=["experiment", "runs", "fits", "hours_total", "device"])


def _power() -> pd.DataFrame:
    """What the paper's numbers of scans can show, by simulation: one run an arm, errors independent."""
    rows = []
    validation = statistics.PAPER_VALIDATION_COUNTS
    for counts, n in ((validation, sum(validation)), (TB_TRAIN_COUNTS, statistics.PAPER_TEST_SCANS)):
        for kappa in (PAPER_KAPPA_SCRATCH, PAPER_KAPPA_PRETRAINED, PAPER_KAPPA_TEST):
            bounds = statistics.kappa_interval_by_simulation(counts, kappa, n=n)
            best = statistics.best_of_k(counts, kappa, BEST_OF, n=n)
            gap = statistics.detectable_difference(counts, kappa, n=n)
            rows += [
                ("95 % interval of kappa", n, kappa, kappa, *bounds),
                (f"best of {BEST_OF} equal runs: kappa too high by", n, kappa, best, np.nan, np.nan),
                ("smallest gain that 4 of 5 studies show", n, kappa, gap, np.nan, np.nan),
            ]
    return pd.DataFrame(rows, columns=["question", "n", "kappa", "value", "low", "high"])


def _numbers(runs: pd.DataFrame, column: str) -> pd.Series:
    return pd.to_numeric(runs[column])  # of mixed type where some runs have none


def _mean(values) -> np.ndarray:
    """Mean over the first axis of what is defined; nan where nothing is."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=0) / defined.sum(axis=0)


# --- Files ------------------------------------------------------------------------------------------------------------
def write_tables(folder: Path, tables: dict[str, pd.DataFrame]) -> list[Path]:
    """Write NAME.csv for each table, delete the files of empty ones; a StorageError where that fails."""
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
    """How a file differs from a table, where numbers may by TOLERANCE, else ""; a DataError where it cannot be read."""
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
