"""What each factor of a factorial study contributes to the gap between its two extreme arms: Shapley values."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial

import numpy as np
import pandas as pd

from viptt_core.statistics import Resamples, two_level_comparison

COLUMNS = ["factor", "points", "low", "high", "percent"]
START, GAP = "start", "naive gap"


def shapley_weights(n_factors: int) -> np.ndarray:
    """How Shapley values follow from the values of all combinations of factors: they are linear in them.

    Args:
        n_factors: k, at least 1.

    Returns:
        float64 [k, 2**k]; column m is the combination in which factor f is on where bit f of m is 1. Times the values
        of the combinations: what turning a factor on adds, averaged over all orders of turning all of them on.

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


def factorial_arms(factors: Sequence[str]) -> list[str]:
    """Names of the arms in the order of `shapley_weights`, the start being factor 0 and on for "video"."""
    names = []
    for mask in range(2 ** (1 + len(factors))):
        on = [factor for bit, factor in enumerate(factors, 1) if mask >> bit & 1]
        names.append("-".join(["video" if mask & 1 else "image", *on]))
    return names


def attribute(factors: Sequence[str], arms: Sequence[Resamples]) -> pd.DataFrame:
    """Shapley value of the start and of each factor for kappa, and the gap that they add up to.

    Args:
        factors: Names, without the start.
        arms: Of `factorial_arms`, in this order; the same cases and seeds.

    Returns:
        Columns COLUMNS: first the naive gap (all on minus all off), then a row a factor. Points are kappa, with
        two-level intervals; percent is of the gap, nan unless its interval excludes 0.
    """
    gap = np.zeros(len(arms))
    gap[[0, -1]] = -1, 1
    rows = []
    for name, weights in zip((GAP, START, *factors), (gap, *shapley_weights(1 + len(factors))), strict=True):
        found = two_level_comparison("kappa", *arms, weights=weights)
        rows.append([name, found.estimate, found.low, found.high])
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    whole = table.iloc[0]
    known = whole["low"] > 0 or whole["high"] < 0
    return table.assign(percent=100 * table["points"] / whole["points"] if known else np.nan)
