"""What repeated runs can show: two-level bootstrap, interval over folds; and what n scans can show, by simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import factorial

import numpy as np
from scipy import stats

from viptt_core.errors import require
from viptt_core.metrics import CLASS_SCORES, SCORES, check_level, kappa_of_tables, percentile_interval

LEVEL = 0.95  # coverage of an interval unless another is asked for
STATISTICS = (*SCORES, *CLASS_SCORES)  # those by class are averaged over the classes given


@dataclass(frozen=True)
class Comparison:
    """A mean difference with its interval; nan where the statistic is undefined."""

    estimate: float
    low: float  #: bounds of its interval
    high: float
    n: int  #: differences, one a run


# --- Training seeds and test sample: the two-level bootstrap ----------------------------------------------------------


@dataclass(frozen=True)
class Resamples:
    """Confusion tables of S runs, rows true classes: of the test set, and of resamples, the same for all runs."""

    whole: np.ndarray  #: float64 [S, K, K]
    drawn: np.ndarray  #: float64 [R, S, K, K]
    n_units: int  #: groups (patients) drawn from; single cases where there are no groups
    seed: int  #: of the draws

    def __getitem__(self, runs: slice | Sequence[int]) -> Resamples:
        """The tables of some of the runs."""
        return replace(self, whole=self.whole[runs], drawn=self.drawn[:, runs])


def resample(y_true, y_pred, *, groups=None, n_classes: int = 0, n_resamples: int = 2000, seed: int = 0) -> Resamples:
    """Draw test sets, groups with replacement, and count each run's confusion table on them.

    Two calls with the same groups and seed draw the same test sets.

    Args:
        y_true: int [N], classes 0..K-1.
        y_pred: int [S, N], one row a run.
        groups: [N], what is drawn as a whole (patients); None draws single cases.
        n_classes: K, where classes exist that nobody has or names.
        n_resamples: Number of test sets drawn, R.
        seed: Of the draws.

    Raises:
        SettingError: shapes that do not fit, values that are not classes.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    units = np.arange(y_true.size) if groups is None else np.asarray(groups)
    fits = y_true.ndim == 1 and units.shape == y_true.shape and y_pred.ndim == 2 and y_pred.shape[1:] == y_true.shape
    shapes = f"labels have shape {y_true.shape}, groups {units.shape}, predictions {y_pred.shape}."
    require(fits and y_pred.size, shapes, "Give [N], [N] and [S, N], of the same cases.")
    are_classes = all(values.dtype.kind in "iu" and values.min() >= 0 for values in (y_true, y_pred))
    require(are_classes, "Labels or predictions are not classes.", "Give whole numbers from 0, tested in all runs.")
    require(n_resamples >= 1, f"n_resamples is {n_resamples}.", "Give at least 1; 2000 is usual.")
    unit_of_case = np.unique(units, return_inverse=True)[1]
    n_units, n_runs = int(unit_of_case.max()) + 1, len(y_pred)
    k = max(n_classes, int(max(y_true.max(), y_pred.max())) + 1)
    cell = ((unit_of_case * n_runs + np.arange(n_runs)[:, None]) * k + y_true) * k + y_pred
    counts = np.bincount(cell.ravel(), minlength=n_units * n_runs * k * k).reshape(n_units, -1).astype(float)
    units_drawn = np.random.default_rng(seed).integers(n_units, size=(n_resamples, n_units))
    # As float64, so that the product with the counts is one call of BLAS.
    times = np.stack([np.bincount(row, minlength=n_units) for row in units_drawn]).astype(float)
    drawn = times @ counts
    return Resamples(counts.sum(axis=0).reshape(n_runs, k, k), drawn.reshape(-1, n_runs, k, k), n_units, seed)


def two_level_comparison(
    statistic: str, *arms: Resamples, weights=None, classes=None, level: float = LEVEL
) -> Comparison:
    """A weighted sum of arms, averaged over training seeds, with an interval that covers both seed and test sample.

    Each resample draws groups with replacement, the same for all seeds and arms, and adds how far S seeds drawn with
    replacement, the same for all arms, deviate on the whole test set. Where seeds differ by little but test noise,
    which is in both parts, the interval is too wide. The seed part is widened by sqrt(S / (S - 1)) and by Student's
    over the normal quantile: few seeds understate what others would do.

    Args:
        statistic: One of STATISTICS.
        arms: Of the same cases, each with the same S training seeds in the same order. With one seed the interval
            is that of the test sample alone; resamples where the statistic is nan do not count.
        weights: One number an arm, such as (1, -1, -1, 1) for a difference of differences; None takes
            one arm as it is, and of two the first minus the second.
        classes: For "recall", "precision" and "f1", the classes averaged over; None takes all.
        level: Coverage, between 0 and 1.

    Raises:
        SettingError: arms, weights or level that do not fit, a statistic that does not exist.

    Source:
        Owen (2007), Annals of Applied Statistics 1, 386-411 (rows and columns drawn independently);
        Hesterberg (2015), The American Statistician 69, 371-386 (widening for small samples).
    """
    alike = len({(arm.n_units, arm.seed, *arm.drawn.shape) for arm in arms}) == 1
    require(alike, "arms differ in seeds, groups or classes.", "Give one resampling of the same cases an arm.")
    check_level(level)
    weights = np.array([1.0, -1.0][: len(arms)] if weights is None else weights, dtype=float)
    good = weights.shape == (len(arms),) and np.isfinite(weights).all()
    require(good, f"weights are {weights} for {len(arms)} arms.", "Give one finite number an arm.")
    of_seed = weights @ [score_tables(statistic, arm.whole, classes) for arm in arms]  # [S]
    drawn = weights @ [score_tables(statistic, arm.drawn, classes).mean(axis=1) for arm in arms]  # [R]
    mean, n_seeds = float(of_seed.mean()), len(of_seed)
    if n_seeds > 1:
        # A stream of its own: arms with other numbers of seeds meet the same test sets.
        rng = np.random.default_rng((arms[0].seed, 1))
        seed_part = (of_seed - mean)[rng.integers(n_seeds, size=(len(drawn), n_seeds))].mean(axis=1)
        tail = (1 + level) / 2
        drawn += seed_part * np.sqrt(n_seeds / (n_seeds - 1)) * stats.t.ppf(tail, n_seeds - 1) / stats.norm.ppf(tail)
    return Comparison(mean, *percentile_interval(drawn, level), n_seeds)


def score_tables(statistic: str, tables: np.ndarray, classes=None) -> np.ndarray:
    """One of STATISTICS of confusion tables [..., K, K]: float [...], see `two_level_comparison`."""
    require(statistic in STATISTICS, f"statistic is {statistic!r}.", f"Give one of {', '.join(STATISTICS)}.")
    if statistic in SCORES:
        return SCORES[statistic](tables)
    return CLASS_SCORES[statistic](tables)[..., slice(None) if classes is None else list(classes)].mean(axis=-1)


# --- Runs that each test other cases ----------------------------------------------------------------------------------


def mean_interval(differences, *, overlap: float = 0.0, level: float = LEVEL) -> Comparison:
    """Mean of differences, float [J], one a run, with Student's t interval of J - 1 degrees of freedom.

    The training sets of two folds overlap, so the plain interval is too narrow: the variance of the mean is taken as
    (1/J + overlap) s**2 instead of s**2 / J. The overlap is n_test / n_train for folds or repeated splits of one set.

    Raises:
        SettingError: fewer than two differences, nan, an overlap below 0, a level out of range.

    Source:
        Nadeau & Bengio (2003), Machine Learning 52, 239-281.
    """
    differences = np.asarray(differences, dtype=float)
    good = differences.ndim == 1 and len(differences) > 1 and np.isfinite(differences).all()
    require(good, f"differences are {differences}.", "Give a list of at least two finite numbers.")
    require(overlap >= 0, f"overlap is {overlap}.", "Give the number of test cases over that of training cases.")
    check_level(level)
    n, mean = len(differences), float(differences.mean())
    half = float(differences.std(ddof=1) * np.sqrt(1 / n + overlap) * stats.t.ppf((1 + level) / 2, n - 1))
    return Comparison(mean, mean - half, mean + half, n)


# --- What factors contribute ------------------------------------------------------------------------------------------


def shapley_weights(n_factors: int) -> np.ndarray:
    """What turning each of k factors on adds, averaged over all orders of turning all of them on.

    Returns:
        float64 [k, 2**k], weights of the values of all combinations; in that of column m factor f is on where bit f
        of m is 1.

    Source:
        Shapley (1953), Contributions to the Theory of Games 2, 307-317.
    """
    weights = np.zeros((n_factors, 2**n_factors))
    for factor in range(n_factors):
        for mask in range(2**n_factors):
            if not mask >> factor & 1:
                before = mask.bit_count()  # factors turned on before this one
                share = factorial(before) * factorial(n_factors - before - 1) / factorial(n_factors)
                weights[factor, mask | 1 << factor] += share
                weights[factor, mask] -= share
    return weights


# --- What n scans can show: simulated kappa intervals, the best of k runs, the smallest gain that is found ------------


PAPER_VALIDATION_COUNTS = (84, 46, 20, 20, 14)  # scans a class, a fifth of the training set [C]
PAPER_TEST_SCANS = 421  # hidden test of the benchmark [B]; their classes are not public
SIMULATIONS = 10_000  # test sets simulated; moves a 95 % bound by about 0.001 at 184 cases


def kappa_interval_by_simulation(class_counts, kappa: float, *, n: int | None = None) -> tuple[float, float]:
    """Between what bounds, low and high, kappa on n cases falls when the true one is `kappa`.

    Model of errors, here and below: a prediction is right with chance q, else a class drawn by the class shares,
    whatever the true one; q is the chance that gives the wanted kappa (kappa itself where nothing is scaled).

    Args:
        class_counts: int [K], true cases a class.
        kappa: The true one, 0..1.
        n: Cases, 2 or more, to which the counts are scaled; None takes them as they are.

    Raises:
        SettingError: kappa out of range, counts that make no classes.
    """
    return percentile_interval(_simulate(*_scaled(class_counts, n), [kappa]), LEVEL)


def best_of_k(class_counts, kappa: float, k: int = 5, *, n: int | None = None) -> float:
    """How much the best of k equally good runs exceeds their true kappa, on average, in kappa points.

    The runs err independently, which makes this the largest such gain. See `kappa_interval_by_simulation`.
    """
    require(k >= 1, f"k is {k}.", "Give at least 1 run.")
    values = _simulate(*_scaled(class_counts, n), [kappa] * k)
    return float(np.nanmean(values.max(axis=1)) - kappa)


def detectable_difference(class_counts, kappa: float, *, n: int | None = None) -> float:
    """Smallest true gain over an arm at `kappa`, in kappa points to 0.001, that four of five studies of one run show.

    Shown: the 95 % interval by the simulated standard deviation excludes 0. The arms err independently (are not
    paired), and what seeds add is left out. nan where not even a perfect second arm would do. See
    `kappa_interval_by_simulation`.
    """
    counts, guesses = _scaled(class_counts, n)

    def is_shown(gain: float) -> bool:
        # The same draws each time, so that power grows with the gain and bisection is safe.
        gains = np.diff(_simulate(counts, guesses, [kappa, min(1, kappa + gain)]))
        return np.mean(np.abs(gains) > stats.norm.ppf((1 + LEVEL) / 2) * np.nanstd(gains)) >= 0.8

    low, high = 0.0, 1.0 - kappa
    if not is_shown(high):
        return float("nan")
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if is_shown(middle) else (middle, high)
    return float(high)


def _scaled(class_counts, n: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Counts int [K] that sum to n, by largest remainders, and the shares float [K] of the classes before scaling."""
    given = np.asarray(class_counts)
    good = given.ndim == 1 and (given >= 0).all() and np.count_nonzero(given) > 1
    require(good, f"class counts are {given}.", "Give at least two classes that have cases.")
    n = round(given.sum()) if n is None else n
    exact = given * (n / given.sum())
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    require(np.count_nonzero(counts) > 1, f"{n} cases are of {counts}.", "Take more cases, of two classes at least.")
    return counts, given / given.sum()


def _simulate(counts: np.ndarray, guesses: np.ndarray, kappas: list[float]) -> np.ndarray:
    """Kappas float [SIMULATIONS, A] of A arms whose true ones are `kappas`; wrong predictions spread as `guesses`."""
    require(all(0 <= kappa <= 1 for kappa in kappas), f"kappa is {kappas[0]}.", "Give a number from 0 to 1.")
    shares, rng, tables = counts / counts.sum(), np.random.default_rng(0), []
    alike, by_guess = shares @ shares, shares @ guesses
    for kappa in kappas:
        # kappa = q (1 - alike) / (1 - q alike - (1 - q) by_guess), solved for q; rounding must not pass 1
        q = min(1.0, kappa * (1 - by_guess) / (1 - alike - kappa * (by_guess - alike)))
        chances = q * np.eye(len(counts)) + (1 - q) * guesses
        tables.append(rng.multinomial(counts, chances, size=(SIMULATIONS, len(counts))))
    return kappa_of_tables(np.stack(tables, axis=1))
