"""What repeated runs can show: two-level bootstrap and t test, paired and corrected tests, Holm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy import stats

from viptt_core.errors import SettingError

BLOCK = 2**22  # numbers held at once while resampling: 32 MB as float64


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval; nan where the statistic is undefined."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison(Interval):
    """A mean difference with its t test.

    Attributes:
        t, p: Of the two-sided test against 0.
        n: Differences, one a training seed or fold.
        df: Degrees of freedom of the test.
        p_exact: Of the sign-flip test; None where it was not computed.
    """

    t: float
    p: float
    n: int
    df: float = float("nan")
    p_exact: float | None = None


@dataclass(frozen=True)
class Resamples:
    """Confusion tables of S runs, rows true classes: of the test set, and of resamples that are the same for all runs.

    Attributes:
        whole, drawn: float64 [S, K, K] and [R, S, K, K].
        n_units: Groups (patients) drawn from; single cases where there are no groups.
    """

    whole: np.ndarray
    drawn: np.ndarray
    n_units: int

    def __getitem__(self, runs) -> Resamples:
        """Those of some runs: a slice or a list of row numbers."""
        return Resamples(self.whole[runs], self.drawn[:, runs], self.n_units)


def kappa_of_tables(tables) -> np.ndarray:
    """Cohen's kappa of many confusion tables at once: [..., K, K] -> float [...]; nan where undefined."""
    n = tables.sum(axis=(-2, -1))
    chance = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1)
    # Multiplied by n * n throughout: counts stay whole, so that "undefined" is an exact zero.
    return _ratio(n * np.trace(tables, axis1=-2, axis2=-1) - chance, n * n - chance)


def resample(y_true, y_pred, *, groups=None, n_classes: int = 0, n_resamples: int = 2000, seed: int = 0) -> Resamples:
    """Draw test sets, groups with replacement, and count each run's confusion table on them.

    Two calls with the same groups and seed draw the same test sets.

    Args:
        y_true: int [N], classes 0..K-1.
        y_pred: int [S, N], one row a run.
        groups: [N], what is drawn as a whole (patients); None draws single cases.
        n_classes: K, where classes exist that nobody has or names.
        n_resamples, seed: As in bootstrap_ci.

    Raises:
        SettingError: shapes that do not fit, values that are not classes.
    """
    y_true, y_pred, unit_of_case = _fitting(y_true, [y_pred], groups)
    runs, n_units = y_pred[0], int(unit_of_case.max()) + 1
    whole = runs.ndim == 2 and all(x.dtype.kind in "iu" and x.min() >= 0 for x in (y_true, runs))
    require(whole, "Labels or predictions are not classes.", "Give whole numbers from 0, of cases tested in all runs.")
    n_runs, k = len(runs), max(n_classes, int(max(y_true.max(), runs.max())) + 1)
    cell = ((unit_of_case * n_runs + np.arange(n_runs)[:, None]) * k + y_true) * k + runs
    counts = np.bincount(cell.ravel(), minlength=n_units * n_runs * k * k).reshape(n_units, -1).astype(float)
    drawn = [weights @ counts for weights in _draws(n_units, n_resamples, seed)]
    return Resamples(counts.sum(axis=0).reshape(n_runs, k, k), np.concatenate(drawn).reshape(-1, n_runs, k, k), n_units)


def two_level_comparison(
    statistic: str,
    *arms: Resamples,
    weights=None,
    classes=None,
    level: float = 0.95,
    seed: int = 0,
    few_seeds: bool = True,
) -> Comparison:
    """As two_level_bootstrap, from tables that were counted before.

    Args:
        statistic: See STATISTICS.
        arms: Of the same cases and the same seeds in the same order. With one seed the interval is that of the test
            sample alone; t and p are nan then.
        weights, classes, level, seed, few_seeds: As there.
    """
    alike = len({(arm.n_units, *arm.drawn.shape) for arm in arms}) == 1
    require(alike, "arms differ in seeds, groups or classes.", "Give one resampling of the same cases an arm.")
    of_tables = _statistic(statistic, classes)
    whole, drawn = np.stack([of_tables(arm.whole) for arm in arms]), [of_tables(arm.drawn) for arm in arms]
    return _two_level(whole, np.stack(drawn, axis=1), arms[0].n_units, weights, level, seed, few_seeds)


def two_level_bootstrap(
    statistic: str | Callable[..., float],
    y_true,
    *arms,
    weights=None,
    groups=None,
    classes=None,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    few_seeds: bool = True,
) -> Comparison:
    """A weighted sum of arms, averaged over training seeds, with an interval that covers both seed and test sample.

    Each resample draws groups with replacement, the same for all seeds and arms, and adds how far S seeds
    drawn with replacement, the same for all arms, deviate on the whole test set (on the resampled one,
    that would hold a run's own test noise once more). Where seeds differ by little but that noise, which
    is in both parts, the interval is too wide. The t test divides by the two-level standard error: variance
    of seeds over S plus variance of resamples, with Satterthwaite's degrees of freedom.

    Args:
        statistic: One of STATISTICS, all fast; or any function (y_true [N], y_pred [N, ...]) -> float,
            called S times an arm and resample.
        y_true: int [N], classes 0..K-1.
        arms: one or more of int [S, N], row s of each from the same training seed, S >= 2; for a
            function any [S, N, ...].
        weights: one number an arm, such as (1, -1, -1, 1) for a difference of differences; None takes
            one arm as it is, and of two the first minus the second.
        groups: [N], what is drawn as a whole (patients); None draws single cases.
        classes: for "recall", "precision" and "f1", the classes averaged over; None takes all.
        n_resamples, level, seed: As in bootstrap_ci; resamples where the statistic is nan are left out.
        few_seeds: Widen the seed part by sqrt(S / (S - 1)) and by Student's over the normal quantile: the
            spread of a few seeds, taken as it is, understates what others would do.

    Returns:
        Comparison; the estimate is the mean over seeds on the whole test set.

    Raises:
        SettingError: shapes that do not fit, one seed only, settings out of range.

    Source:
        Owen (2007), Annals of Applied Statistics 1, 386-411 (rows and columns drawn independently);
        Hesterberg (2015), The American Statistician 69, 371-386 (widening for small samples);
        Satterthwaite (1946), Biometrics Bulletin 2, 110-114.
    """
    y_true, arms, unit_of_case = _fitting(y_true, arms, groups)
    n_seeds = len(arms[0])
    require(n_seeds > 1, "There is one training seed.", "Give two or more; for a single run use bootstrap_ci.")
    if not callable(statistic):
        everything = resample(
            y_true,
            np.concatenate(arms),
            groups=unit_of_case,
            n_resamples=n_resamples,
            seed=seed,
            n_classes=1 + max([0] if classes is None else classes),
        )
        arms = [everything[start : start + n_seeds] for start in range(0, len(arms) * n_seeds, n_seeds)]
        return two_level_comparison(
            statistic, *arms, weights=weights, classes=classes, level=level, seed=seed, few_seeds=few_seeds
        )
    require(classes is None, "classes is given with a function.", 'Use it with "recall" and the like.')
    n_units = int(unit_of_case.max()) + 1

    def evaluate(times):
        cases = np.repeat(np.arange(len(y_true)), times.astype(int)[unit_of_case])
        return np.array([[statistic(y_true[cases], run[cases]) for run in arm] for arm in arms])

    drawn = [evaluate(times) for block in _draws(n_units, n_resamples, seed) for times in block]
    return _two_level(evaluate(np.ones(n_units)), np.array(drawn), n_units, weights, level, seed, few_seeds)


def paired_differences(a, b, *, level: float = 0.95) -> Comparison:
    """Mean of a - b over the same seeds: t interval, two-sided t test and exact sign-flip test.

    Args:
        a, b: float [S], the score of each seed in the two arms, S >= 2.
        level: Coverage as to the training seed, on this one test set; two_level_bootstrap covers both.

    Returns:
        Comparison; p_exact (None for S above 16) is the share of all 2**S sign patterns whose mean is
        at least as far from 0. It cannot be below 2 / 2**S: 0.0625 for five seeds.

    Raises:
        SettingError: lengths that differ, fewer than two, nan, level out of range.

    Source:
        Student (1908), Biometrika 6, 1-25; Fisher (1935), The Design of Experiments, section 21.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    require(a.shape == b.shape, f"scores have shapes {a.shape} and {b.shape}.", "Give one an arm and seed.")
    comparison = _t_test(a - b, 0, level)
    if comparison.n > 16:  # 2**16 patterns take milliseconds; with more seeds the t test is good enough
        return comparison
    sums = np.abs(np.array(list(product((1, -1), repeat=comparison.n))) @ (a - b))
    slack = 1e-9 * np.abs(a - b).sum()  # sums that are equal but for rounding count as equal
    return replace(comparison, p_exact=float(np.mean(sums >= sums[0] - slack)))


def nadeau_bengio(differences, n_train: int, n_test: int, *, level: float = 0.95) -> Comparison:
    """Corrected resampled t test, for differences over folds or repeated splits of one data set.

    The training sets of two folds overlap, so the plain t test finds too much: the variance of the
    mean is taken as (1/J + n_test/n_train) s**2 instead of s**2 / J.

    Args:
        differences: float [J], one arm minus the other, one a fold (or fold and seed), J >= 2.
        n_train, n_test: Cases in the training and the test part of a split.
        level: Coverage, between 0 and 1.

    Returns:
        Comparison with J - 1 degrees of freedom.

    Raises:
        SettingError: fewer than two differences, nan, sizes below 1, level out of range.

    Source:
        Nadeau & Bengio (2003), Machine Learning 52, 239-281.
    """
    require(n_train >= 1 and n_test >= 1, f"n_train is {n_train}, n_test {n_test}.", "Give at least 1 each.")
    return _t_test(np.asarray(differences, dtype=float), n_test / n_train, level)


def holm(p_values) -> np.ndarray:
    """Holm's adjusted p values for a family of tests: reject where they are at most alpha.

    Args:
        p_values: float [M], 0..1.

    Returns:
        float [M] in the order given, at most 1.

    Raises:
        SettingError: a value outside 0..1 (nan too), or not a list.

    Source:
        Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    p = np.asarray(p_values, dtype=float)
    require(p.ndim == 1 and ((p >= 0) & (p <= 1)).all(), f"p values are {p}.", "Give a list of numbers from 0 to 1.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1, (len(p) - np.arange(len(p))) * p[order]))
    return adjusted


def _ratio(numerator, denominator) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator != 0)


_BY_CLASS = {
    "recall": lambda tables: _ratio(np.diagonal(tables, 0, -2, -1), tables.sum(axis=-1)),
    # 0 for a class that is never predicted, as in metrics.per_class: a run that gives it up must not drop out.
    "precision": lambda tables: np.nan_to_num(_ratio(np.diagonal(tables, 0, -2, -1), tables.sum(axis=-2))),
    "f1": lambda tables: _ratio(2 * np.diagonal(tables, 0, -2, -1), tables.sum(axis=-1) + tables.sum(axis=-2)),
}
_OVERALL = {
    "kappa": kappa_of_tables,
    "accuracy": lambda tables: np.trace(tables, axis1=-2, axis2=-1) / tables.sum(axis=(-2, -1)),
}
STATISTICS = (*_OVERALL, *_BY_CLASS)  # those by class are averaged over the classes given


def _statistic(name: str, classes) -> Callable[[np.ndarray], np.ndarray]:
    require(name in STATISTICS, f"statistic is {name!r}.", f"Give a function or one of {', '.join(STATISTICS)}.")
    if name in _OVERALL:
        return _OVERALL[name]
    chosen = slice(None) if classes is None else list(classes)
    return lambda tables: _BY_CLASS[name](tables)[..., chosen].mean(axis=-1)


def _fitting(y_true, arms, groups) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Labels, arms and the number of each case's group, once their shapes fit."""
    y_true, arms = np.asarray(y_true), [np.asarray(arm) for arm in arms]
    units = np.arange(y_true.size) if groups is None else np.asarray(groups)
    what = f"labels have shape {y_true.shape}, groups {units.shape}, predictions {[arm.shape for arm in arms]}."
    fits = y_true.ndim == 1 and len(y_true) and units.shape == y_true.shape
    fits = fits and len({arm.shape for arm in arms}) == 1 and arms[0].shape[1:2] == y_true.shape
    require(fits, what, "Give [N], [N] and [S, N] an arm, of the same cases.")
    return y_true, arms, np.unique(units, return_inverse=True)[1]


def _draws(n_units: int, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each unit was drawn, float64 [some, n_units], n_resamples rows in all."""
    require(n_resamples >= 1, f"n_resamples is {n_resamples}.", "Give at least 1; 2000 is usual.")
    rng = np.random.default_rng(seed)
    for start in range(0, n_resamples, rows := max(1, BLOCK // n_units)):
        drawn = rng.integers(n_units, size=(min(rows, n_resamples - start), n_units))
        flat = (drawn + n_units * np.arange(len(drawn))[:, None]).ravel()
        # As float64, so that the product with the counts is one call of BLAS.
        yield np.bincount(flat, minlength=drawn.size).reshape(drawn.shape).astype(float)


def _two_level(whole, drawn, n_units: int, weights, level: float, seed: int, few_seeds: bool) -> Comparison:
    """The weighted sum of arms, out of each run's statistic on the test set [A, S] and on its resamples [R, A, S]."""
    n_arms, n_seeds = whole.shape
    weights = np.array([1.0, -1.0][:n_arms]) if weights is None else np.asarray(weights, dtype=float)
    good = weights.shape == (n_arms,) and np.isfinite(weights).all()
    require(good, f"weights are {weights} for {n_arms} arms.", "Give one finite number an arm.")
    of_seed, test_part = weights @ whole, drawn.mean(axis=2) @ weights
    mean, of_test = float(of_seed.mean()), float(np.nanvar(test_part)) if np.isfinite(test_part).any() else np.nan
    if n_seeds == 1:
        return Comparison(mean, *percentile_interval(test_part, level), np.nan, np.nan, 1)
    # A stream of its own: arms with other numbers of seeds meet the same test sets.
    rng = np.random.default_rng((seed, 1))
    seed_part = (of_seed - mean)[rng.integers(n_seeds, size=(len(drawn), n_seeds))].mean(axis=1)
    if few_seeds:
        tail = (1 + level) / 2
        seed_part *= np.sqrt(n_seeds / (n_seeds - 1)) * stats.t.ppf(tail, n_seeds - 1) / stats.norm.ppf(tail)
    parts = np.array([of_seed.var(ddof=1) / n_seeds, of_test])
    shares = parts / parts.sum() if parts.sum() else np.array([1.0, 0.0])
    df = float(1 / (shares**2 / [n_seeds - 1, max(1, n_units - 1)]).sum())
    return Comparison(
        mean,
        *percentile_interval(test_part + seed_part, level),
        *_t_and_p(mean, float(np.sqrt(parts.sum())), df),
        n_seeds,
        df,
    )


def percentile_interval(values, level: float) -> tuple[float, float]:
    """Bounds that leave out the same share at both ends; nan values do not count, (nan, nan) where all are."""
    require(0 < level < 1, f"level is {level}.", "Give a number between 0 and 1, such as 0.95.")
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)]) if len(values) else [np.nan] * 2
    return float(low), float(high)


def _t_and_p(mean: float, error: float, df: float) -> tuple[float, float]:
    # Arms that agree in every run (both name one class only) differ by nothing: t is 0, not 0 / 0.
    t = mean / error if error else float(np.copysign(np.inf, mean)) if mean else 0.0
    return t, float(2 * stats.t.sf(abs(t), df))


def _t_test(differences, extra_variance: float, level: float) -> Comparison:
    require(0 < level < 1, f"level is {level}.", "Give a number between 0 and 1, such as 0.95.")
    good = differences.ndim == 1 and len(differences) > 1 and np.isfinite(differences).all()
    require(good, f"differences are {differences}.", "Give a list of at least two finite numbers.")
    n, mean = len(differences), float(differences.mean())
    error = float(differences.std(ddof=1) * np.sqrt(1 / n + extra_variance))
    half = float(error * stats.t.ppf((1 + level) / 2, n - 1))
    return Comparison(mean, mean - half, mean + half, *_t_and_p(mean, error, n - 1), n, n - 1)


def require(good, what: str, remedy: str) -> None:
    """Raise a SettingError unless `good`."""
    if not good:
        raise SettingError(what, remedy=remedy)


# --- What n scans can show: simulated kappa intervals, the best of k runs, the smallest gain that is found ---


PAPER_VALIDATION_COUNTS = (84, 46, 20, 20, 14)  # scans a class, a fifth of the training part [C]
PAPER_TEST_SCANS = 421  # hidden test of the benchmark [B]; their classes are not public
SIMULATIONS = 10_000  # test sets simulated; moves a 95 % bound by about 0.001 at 184 cases


def kappa_interval_by_simulation(class_counts, kappa: float, *, n=None, guesses=None, level=0.95, seed=0) -> Interval:
    """Between what bounds kappa on n cases falls when the true one is `kappa`.

    Model of errors, here and below: a prediction is right with chance q, else drawn from `guesses`
    whatever the true class; q is the one that gives the wanted kappa (q = kappa when the guesses
    follow the class shares).

    Args:
        class_counts: int [K], true cases a class; or a confusion table [K, K], whose row sums are
            the counts and whose column sums the guesses.
        kappa: The true one, 0..1.
        n: Cases, 2 or more, to which the counts are scaled; None takes them as they are.
        guesses: float [K], how often each class is guessed, in any unit; None takes the class shares.
        level: Share of the simulated test sets inside, between 0 and 1.
        seed: Of the simulation.

    Raises:
        SettingError: kappa or level out of range, counts that make no classes, guesses that do not fit.
    """
    values = _simulate(*_classes(class_counts, n, guesses), [kappa], 0, seed)
    return Interval(float(kappa), *percentile_interval(values, level))


def best_of_k(class_counts, kappa: float, k: int = 5, *, n=None, guesses=None, shared=0.0, seed=0) -> float:
    """How much the best of k equally good runs exceeds their true kappa, on average, in kappa points.

    Args:
        class_counts, kappa, n, guesses, seed: As in kappa_interval_by_simulation, errors too.
        k: Runs the best is chosen from, at least 1.
        shared: Share of cases on which all runs say the same, 0..1. At 0 the runs err independently,
            the largest inflation; at 1 there is nothing to choose from.
    """
    require(k >= 1, f"k is {k}.", "Give at least 1 run.")
    values = _simulate(*_classes(class_counts, n, guesses), [kappa] * k, shared, seed)
    return float(np.nanmean(values.max(axis=1)) - kappa)


def detectable_difference(
    class_counts, kappa: float, *, n=None, guesses=None, shared=0.0, power=0.8, alpha=0.05, seed=0
) -> float:
    """Smallest true gain over an arm at `kappa` that one run an arm shows with the given power.

    Shown: the interval by the simulated standard deviation excludes 0. What seeds add is left out.

    Args:
        class_counts, kappa, n, guesses, seed: As in kappa_interval_by_simulation, errors too.
        shared: How far the arms are paired, 0..1: the share of cases on which they differ only where
            the better arm knows more; on the others they err independently. 0 is unpaired.
        power: Share of studies that are to show the gain.
        alpha: Two-sided level of the test, below power.

    Returns:
        Kappa points, to 0.001; nan where not even a perfect second arm would do.
    """
    counts, guesses = _classes(class_counts, n, guesses)
    require(0 < alpha < power < 1, f"alpha is {alpha}, power {power}.", "Give 0 < alpha < power < 1.")

    def is_shown(gain: float) -> bool:
        # The same seed each time, so that power grows with the gain and bisection is safe.
        gains = np.diff(_simulate(counts, guesses, [kappa, min(1, kappa + gain)], shared, seed))
        return np.mean(np.abs(gains) > stats.norm.ppf(1 - alpha / 2) * np.nanstd(gains)) >= power

    low, high, possible = 0.0, 1.0 - kappa, is_shown(1.0 - kappa)
    while possible and high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if is_shown(middle) else (middle, high)
    return float(high) if possible else float("nan")


def _classes(class_counts, n, guesses) -> tuple[np.ndarray, np.ndarray]:
    """Counts int [K] that sum to n, and how wrong predictions spread, float [K] that sums to 1."""
    counts = np.asarray(class_counts)
    if counts.ndim == 2:
        counts, guesses = counts.sum(axis=1), counts.sum(axis=0) if guesses is None else guesses
    guesses = np.asarray(counts if guesses is None else guesses, dtype=float)
    good = guesses.shape == counts.shape and (guesses >= 0).all() and guesses.any()
    require(good, f"guesses are {guesses}.", "Give one number a class, none below 0.")
    if n is not None:
        exact = counts * (n / counts.sum())
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1  # largest remainders
    good = counts.ndim == 1 and (counts >= 0).all() and np.count_nonzero(counts) > 1
    require(good, f"class counts are {counts}.", "Give at least two classes that have cases.")
    return np.rint(counts).astype(int), guesses / guesses.sum()


def _simulate(counts, guesses, kappas, shared: float, seed: int) -> np.ndarray:
    """Kappas float [SIMULATIONS, A] of A arms on the same cases; `kappas` are the true ones, ascending."""
    require(all(0 <= x <= 1 for x in (shared, *kappas)), f"kappa is {kappas[-1]}, shared {shared}.", "Give 0 to 1.")
    shares, rng, k = counts / counts.sum(), np.random.default_rng(seed), len(counts)
    alike, by_guess = shares @ shares, shares @ guesses
    # kappa = q (1 - alike) / (1 - q alike - (1 - q) by_guess), solved for q; rounding must not pass 1
    known = [min(1.0, kappa * (1 - by_guess) / (1 - alike - kappa * (by_guess - alike))) for kappa in kappas]
    common = rng.binomial(counts, shared, size=(SIMULATIONS, k))
    # Bracket b of the common cases is known to the arms from b on; the others make the same guess.
    brackets = np.outer(np.diff([0, *known, 1]), guesses)
    drawn = rng.multinomial(common, brackets.ravel()).reshape(SIMULATIONS, k, -1, k)
    tables = []
    for arm, q in enumerate(known):
        own = rng.multinomial(counts - common, q * np.eye(k) + (1 - q) * guesses)
        right = drawn[:, :, : arm + 1].sum(axis=(2, 3))
        tables.append(own + right[..., None] * np.eye(k, dtype=int) + drawn[:, :, arm + 1 :].sum(axis=2))
    return kappa_of_tables(np.stack(tables, axis=1))
