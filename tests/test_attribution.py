"""Shapley values against hand-worked games, the axioms, and averages over all orders."""

from itertools import permutations

import numpy as np
import pytest

from viptt_core.metrics import cohen_kappa
from viptt_core.statistics import resample, shapley_weights, two_level_comparison
from viptt_core.study.tables import attribute


def test_a_hand_worked_game_of_two_factors():
    # nothing 0, a alone 1, b alone 2, both 5. a adds 1 first and 3 last: 2; b adds 2 first and 4 last: 3
    np.testing.assert_allclose(shapley_weights(2) @ [0, 1, 2, 5], [2, 3])
    assert (shapley_weights(1) == [[-1, 1]]).all()


@pytest.mark.parametrize("k", [2, 3, 4])
def test_shapley_values_are_averages_over_all_orders_and_add_up_to_the_gap(k):
    values = np.random.default_rng(k).normal(size=2**k)
    added, orders = np.zeros(k), list(permutations(range(k)))
    for order in orders:
        mask = 0
        for factor in order:
            added[factor] += values[mask | 1 << factor] - values[mask]
            mask |= 1 << factor
    ours = shapley_weights(k) @ values
    np.testing.assert_allclose(ours, added / len(orders))
    assert ours.sum() == pytest.approx(values[-1] - values[0])


def factorial_runs(gains, n=400, n_seeds=3, seed=0):
    """Labels, and predictions of the arms of a factorial whose skill is 0.3 plus the gains of what is on."""
    rng = np.random.default_rng(seed)
    y_true, k = rng.integers(3, size=n), len(gains)
    hard, guess = rng.random((n_seeds, n)), rng.integers(3, size=(n_seeds, n))
    skills = [0.3 + sum(gain for bit, gain in enumerate(gains) if mask >> bit & 1) for mask in range(2**k)]
    return y_true, [np.where(hard < skill, y_true, guess) for skill in skills]


def test_attribution_says_which_factor_makes_the_gap_and_adds_up_to_it():
    y_true, arms = factorial_runs([0.0, 0.4, -0.1])
    table = attribute(["unfrozen", "weights"], [resample(y_true, arm) for arm in arms]).set_index("factor")
    assert list(table.index) == ["naive gap", "start", "unfrozen", "weights"]
    gap = np.mean([cohen_kappa(y_true, run) for run in arms[-1]]) - np.mean([cohen_kappa(y_true, r) for r in arms[0]])
    assert table.loc["naive gap", "points"] == pytest.approx(gap)
    assert table["points"][1:].sum() == pytest.approx(gap) and table["percent"][1:].sum() == pytest.approx(100)
    assert table.loc["start", ["points", "low", "high"]].abs().max() < 1e-12
    assert table.loc["unfrozen", "low"] > 0 > table.loc["weights", "high"]
    direct = two_level_comparison("kappa", *(resample(y_true, arm) for arm in arms), weights=shapley_weights(3)[1])
    assert tuple(table.loc["unfrozen", ["points", "low", "high"]]) == (direct.estimate, direct.low, direct.high)


def test_shares_of_a_gap_that_may_be_none_are_not_given():
    y_true, arms = factorial_runs([0.3, -0.3])
    table = attribute(["unfrozen"], [resample(y_true, arm) for arm in arms]).set_index("factor")
    assert table["percent"].isna().all() and table.loc["start", "low"] > 0 > table.loc["unfrozen", "high"]
