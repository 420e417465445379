"""What n scans can show: simulated kappa intervals, the best of k runs, the smallest gain that is found."""

from __future__ import annotations

import numpy as np
from scipy import stats

from viptt_core.statistics import Interval, kappa_of_tables, percentile_interval, require

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
