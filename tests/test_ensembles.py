"""Ensembles: the mean, the vote, and the authors' average of class numbers, against answers worked by hand."""

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest

from viptt_core.errors import SettingError
from viptt_core.submission import AUTHORS_WEIGHTS, ENSEMBLES, combine


def runs(*classes, k=5, sure=0.6):
    """Probabilities [M, 1, K] of models that say these classes, and hold all others to be equally likely."""
    rows = np.full((len(classes), 1, k), (1 - sure) / (k - 1))
    for row, number in zip(rows, classes, strict=True):
        row[0, number - 1] = sure
    return rows


def test_the_mean_of_probabilities_decides_and_a_tie_goes_to_the_lower_class():
    values = np.array([[[0.4, 0.35, 0.25], [0.2, 0.4, 0.4]], [[0.1, 0.5, 0.4], [0.2, 0.4, 0.4]]])
    answer = combine(values, "mean")
    assert answer.tolist() == [2, 2] and answer.dtype == np.int64
    assert combine(values[:1], "mean").tolist() == [1, 2]


def test_the_order_of_the_models_does_not_decide():
    # Added up in this order, 0.1, 0.2 and 0.3 differ from 0.3, 0.2 and 0.1 in the last bit.
    tied = np.array([[[0.1, 0.3, *[0.15] * 4]], [[0.2, 0.2, *[0.15] * 4]], [[0.3, 0.1, *[0.15] * 4]]])
    assert [combine(tied[list(order)], "mean").tolist() for order in permutations(range(3))] == [[1]] * 6


def test_most_votes_win_even_against_a_sure_model():
    values = np.concatenate([runs(4, sure=0.99), runs(2, 2, sure=0.4)])
    assert combine(values, "vote").tolist() == [2] and combine(values, "mean").tolist() == [4]


@pytest.mark.parametrize("sure, expected", [((0.5, 0.9, 0.6), 3), ((0.9, 0.5, 0.6), 1), ((0.5, 0.5, 0.8), 5)])
def test_a_tied_vote_goes_to_the_tied_class_of_larger_mean_probability(sure, expected):
    values = np.concatenate([runs(number, sure=s) for number, s in zip((1, 3, 5), sure, strict=True)])
    assert combine(values, "vote").tolist() == [expected]


def test_a_class_without_most_votes_never_wins_by_its_mean():
    # Two votes each for 1 and 2; 3 is the second choice of all and has the largest mean.
    values = np.array([[[0.5, 0.03, 0.47]], [[0.5, 0.03, 0.47]], [[0.02, 0.5, 0.48]], [[0.02, 0.5, 0.48]]])
    assert combine(values, "mean").tolist() == [3] and combine(values, "vote").tolist() == [2]
    tied = np.concatenate([runs(3, sure=0.6), runs(3, sure=0.6), runs(2, sure=0.6), runs(2, sure=0.6)])
    assert combine(tied, "vote").tolist() == [2]  # and where the means are tied as well, the lower class


def test_averaged_class_numbers_are_rounded_exactly_and_never_lie_half_way():
    weights = [Fraction(str(weight)) for weight in AUTHORS_WEIGHTS]
    assert sum(weights) == 1
    for k in (5, 10):
        for classes in product(range(1, k + 1), repeat=3):
            exact = sum(weight * number for weight, number in zip(weights, classes, strict=True))
            assert exact % 1 != Fraction(1, 2)
            assert combine(runs(*classes, k=k), "authors").tolist() == [round(exact)], classes


@pytest.mark.parametrize(
    "values, method, message",
    [
        *[(runs(*[1] * count), "authors", f"'authors'.*three.*{count} were given") for count in (1, 2, 4)],
        *[(runs(1, 2, 3) * factor, method, "failed scans.*softmax") for factor in (np.nan, 2) for method in ENSEMBLES],
        (runs(1), "votes", "Did you mean 'vote'"),
    ],
)
def test_what_cannot_be_combined_is_refused(values, method, message):
    with pytest.raises(SettingError, match=message):
        combine(values, method)
