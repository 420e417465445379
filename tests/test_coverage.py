"""The intervals of the studies, as used, on simulated studies that share training data and test cases."""

import pytest

from benchmarks.coverage import COHORTS, FOLDS, measure


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.0, 0.10])
@pytest.mark.parametrize("design", [COHORTS, FOLDS], ids=lambda design: design.name)
def test_intervals_hold_the_truth_and_verdicts_are_seldom_wrong(design, effect):
    found = measure(design, effect, studies=100)
    assert found["coverage at 0.950"] >= 0.93 and found["coverage at 0.983"] >= 0.93
    assert found["wrong families"] <= 0.06
