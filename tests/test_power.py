"""Simulated kappa intervals against the large-sample formula, hand-worked values and case-by-case simulation."""

import numpy as np
import pytest

from viptt_core.errors import SettingError
from viptt_core.metrics import kappa_of_tables
from viptt_core.statistics import best_of_k, detectable_difference, kappa_interval_by_simulation

VALIDATION = [84, 46, 20, 20, 14]  # the paper's 184 validation scans
TRAINING = [420, 226, 101, 100, 70]  # the benchmark's training scans: shares of the 421 test scans


def width(interval):
    return interval[1] - interval[0]


@pytest.mark.parametrize(
    "counts, n, kappa, low, high",
    [
        (VALIDATION, None, 0.17, 0.075, 0.267),
        (VALIDATION, None, 0.35, 0.249, 0.451),
        (TRAINING, 421, 0.20, 0.136, 0.264),
    ],
)
def test_simulated_intervals_of_kappa_are_those_known_of_the_benchmark(counts, n, kappa, low, high):
    ours = kappa_interval_by_simulation(counts, kappa, n=n)
    assert ours == pytest.approx((low, high), abs=0.004)


def test_perfect_agreement_has_no_interval_and_four_times_the_cases_halve_it():
    perfect = kappa_interval_by_simulation(VALIDATION, 1)
    assert perfect == (1, 1)
    small, large = (kappa_interval_by_simulation(VALIDATION, 0.3, n=n) for n in (200, 800))
    assert width(small) == pytest.approx(2 * width(large), rel=0.05)


def test_best_of_k_is_the_expected_largest_of_k_normal_errors():
    sd = width(kappa_interval_by_simulation(VALIDATION, 0.17)) / (2 * 1.96)
    assert best_of_k(VALIDATION, 0.17) == pytest.approx(1.16296 * sd, abs=0.002)
    assert best_of_k(VALIDATION, 0.17, 2) == pytest.approx(sd / np.sqrt(np.pi), abs=0.002)
    assert best_of_k(VALIDATION, 0.17) == pytest.approx(0.06, abs=0.005)


def test_the_detectable_gain_is_found_in_four_of_five_studies_simulated_case_by_case():
    rng, n, sims = np.random.default_rng(4), 300, 1500
    gap = detectable_difference([150, 100, 50], 0.3)
    y_true = np.repeat([0, 1, 2], [150, 100, 50])

    def table(q, hard, guess):
        y_pred = np.where(hard < q, y_true, guess)
        return np.eye(9)[y_true * 3 + y_pred].sum(axis=1).reshape(sims, 3, 3)

    def draw():
        return rng.random((sims, n)), rng.choice(3, p=[1 / 2, 1 / 3, 1 / 6], size=(sims, n))

    gains = kappa_of_tables(table(0.3 + gap, *draw())) - kappa_of_tables(table(0.3, *draw()))
    assert gains.mean() == pytest.approx(gap, abs=0.006)
    assert np.mean(np.abs(gains) > 1.96 * gains.std()) == pytest.approx(0.8, abs=0.04)


def test_too_few_scans_detect_nothing():
    assert np.isnan(detectable_difference([3, 2], 0.6))


@pytest.mark.parametrize(
    "call",
    [
        lambda: kappa_interval_by_simulation([10, 0], 0.2),
        lambda: kappa_interval_by_simulation([10, -1, 4], 0.2),
        lambda: kappa_interval_by_simulation([10, 5], 1.2),
        lambda: kappa_interval_by_simulation([10, 5], -0.2),
        lambda: kappa_interval_by_simulation([10, 5], 0.2, n=1),
        lambda: best_of_k([10, 5], 0.2, 0),
    ],
)
def test_impossible_simulations_are_refused(call):
    with pytest.raises(SettingError):
        call()
