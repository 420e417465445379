"""Statistics of repeated runs against scipy, hand-worked values, plain loops and simulated truth."""

import numpy as np
import pytest
from scipy import stats

from viptt_core.errors import SettingError
from viptt_core.metrics import CLASS_SCORES, accuracy, cohen_kappa, confusion_matrix, kappa_of_tables
from viptt_core.statistics import mean_interval, resample, two_level_comparison


def runs(seed, n_seeds=4, n=120, k=4, q=0.5):
    """Labels [N] and predictions [S, N], right with chance q (one number, or one a seed), else a guess."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(k, size=n)
    right = rng.random((n_seeds, n)) < np.broadcast_to(q, (n_seeds,))[:, None]
    return y_true, np.where(right, y_true, rng.integers(k, size=(n_seeds, n)))


def two_level(statistic, y_true, *arms, weights=None, classes=None, level=0.95, **settings):
    """Arms [S, N], resampled and compared."""
    n_classes = 1 + max([np.max(arm) for arm in (y_true, *arms)] + [0 if classes is None else max(classes)])
    tables = [resample(y_true, arm, n_classes=n_classes, **settings) for arm in arms]
    return two_level_comparison(statistic, *tables, weights=weights, classes=classes, level=level)


def width(interval):
    return interval.high - interval.low


# Two-level bootstrap


def mean_of(score):
    return lambda y_true, y_pred: CLASS_SCORES[score](confusion_matrix(y_true, y_pred, 4))[[1, 3]].mean()


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    "name, slow",
    [("kappa", cohen_kappa), ("accuracy", accuracy), *((s, mean_of(s)) for s in ("recall", "f1"))],
)
def test_counting_by_group_gives_what_looping_over_cases_gives(name, slow, grouped):
    y_true, a = runs(1)
    classes = [1, 3] if name in ("recall", "precision", "f1") else None
    unit = np.random.default_rng(3).integers(30, size=120) if grouped else np.arange(120)
    units = np.unique(unit)
    one = two_level(name, y_true, a[:1], classes=classes, groups=unit, n_resamples=40)
    drawn = np.random.default_rng(0).integers(len(units), size=(40, len(units)))
    samples = [np.concatenate([np.flatnonzero(unit == units[u]) for u in row]) for row in drawn]
    looped = np.percentile([slow(y_true[cases], a[0, cases]) for cases in samples], [2.5, 97.5])
    assert (one.low, one.high) == pytest.approx(tuple(looped), abs=1e-9)
    b = runs(2, q=0.3)[1]
    by_hand = np.mean([slow(y_true, x) for x in a]) - np.mean([slow(y_true, x) for x in b])
    assert two_level(name, y_true, a, b, classes=classes).estimate == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_the_interval_is_that_of_a_plain_loop_over_patients_and_seeds(level):
    y_true, a = runs(4, n_seeds=5, q=[0.3, 0.4, 0.5, 0.6, 0.7])
    b = runs(5, n_seeds=5, q=0.3)[1]
    patient = np.arange(120) // 3
    pairs = list(zip(a, b, strict=True))
    gains = np.array([cohen_kappa(y_true, x) - cohen_kappa(y_true, y) for x, y in pairs])
    rng = np.random.default_rng(6)
    tail = (1 + level) / 2
    values, widened = [], np.sqrt(5 / 4) * stats.t.ppf(tail, 4) / stats.norm.ppf(tail)
    for _ in range(1500):
        cases = np.concatenate([np.flatnonzero(patient == p) for p in rng.choice(40, 40)])
        drawn = [cohen_kappa(y_true[cases], x[cases]) - cohen_kappa(y_true[cases], y[cases]) for x, y in pairs]
        values.append(np.mean(drawn) + widened * np.mean(rng.choice(gains - gains.mean(), 5)))
    ours = two_level("kappa", y_true, a, b, groups=patient, level=level)
    assert (ours.low, ours.high) == pytest.approx(np.percentile(values, [100 - 100 * tail, 100 * tail]), abs=0.03)


def test_two_arms_are_drawn_together_so_that_what_they_share_cancels():
    y_true, a = runs(8, n_seeds=5, n=400, q=[0.2, 0.35, 0.5, 0.65, 0.8])
    same = two_level("kappa", y_true, a, a)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    worse = a.copy()
    worse[:, :40] = (y_true[:40] + 1) % 4
    paired = width(two_level("kappa", y_true, a, worse))
    assert paired < 0.4 * width(two_level("kappa", y_true, a))
    assert width(two_level("kappa", y_true, a, worse[::-1])) > 3 * paired


def test_bootstrap_is_repeatable_by_seed():
    y_true, a = runs(14)
    once = two_level("kappa", y_true, a)
    assert once == two_level("kappa", y_true, a) != two_level("kappa", y_true, a, seed=1)
    one_patient = {"groups": np.zeros(120), "n_resamples": 9}  # only the seeds vary
    of_seeds = [two_level("kappa", y_true, a, **one_patient, seed=seed) for seed in (0, 1)]
    assert of_seeds[0] != of_seeds[1]


def test_undefined_kappa_gives_nan_and_a_class_missing_from_a_draw_is_left_out():
    ones = np.ones((2, 5), int)
    undefined = two_level("kappa", ones[0], ones)
    assert np.isnan([undefined.estimate, undefined.low, undefined.high]).all()
    y_true = np.array([0, 0, 0, 0, 1])  # a third of the draws lack class 1
    assert two_level("recall", y_true, np.stack([y_true, y_true])).low == 1
    assert np.isnan(two_level("recall", y_true, np.stack([y_true, y_true]), classes=[1, 4]).estimate)


@pytest.mark.parametrize("skill_sd, alike, fails", [(0.12, 0.2, "test level alone"), (0.02, 0.9, "seed level alone")])
def test_two_levels_cover_the_truth_where_one_level_alone_does_not(skill_sd, alike, fails):
    """True kappa 0.4. Seeds differ in skill; the 50 patients of three scans in difficulty, for all seeds `alike`."""
    rng, k, n_seeds, n, repeats = np.random.default_rng(16), 3, 5, 150, 300
    patient = np.arange(n) // 3
    covered = {"both levels": [], "seed level alone": [], "test level alone": []}
    for i in range(repeats):
        y_true = rng.integers(k, size=n)
        skill = np.clip(0.4 + skill_sd * rng.standard_normal(n_seeds), 0, 1)
        hard = np.where(rng.random(n) < alike, rng.random(50)[patient], rng.random((n_seeds, n)))
        y_pred = np.where(hard < skill[:, None], y_true, rng.integers(k, size=(n_seeds, n)))
        both = two_level("kappa", y_true, y_pred, groups=patient, n_resamples=400, seed=i)
        seeds = mean_interval([cohen_kappa(y_true, run) for run in y_pred])
        counts = np.eye(k * k)[y_true * k + y_pred].reshape(n_seeds, 50, 3, -1).sum(axis=2)
        draws = rng.multinomial(50, np.full(50, 1 / 50), size=400)
        of_test = kappa_of_tables((draws @ counts).reshape(n_seeds, 400, k, k)).mean(axis=0)
        bounds = [(both.low, both.high), (seeds.low, seeds.high), np.percentile(of_test, [2.5, 97.5])]
        for hits, (low, high) in zip(covered.values(), bounds, strict=True):
            hits.append(low <= 0.4 <= high)
    share = {name: np.mean(hits) for name, hits in covered.items()}
    assert 0.92 <= share["both levels"] <= 0.99
    assert share[fails] < 0.8


@pytest.mark.parametrize(
    "change",
    [
        {"n_resamples": 0},
        {"groups": [1, 2]},
        {"statistic": "auc"},
        {"arms": []},
        {"arms": [[[0, -1, 1], [0, 1, 1]]]},
        {"arms": [[[0.5, 0.5, 1], [0, 1, 1]]]},
        {"arms": [[[0, 1, 1]] * 2, [[0, 1, 1]] * 3]},
        {"weights": (1, -1)},
        {"weights": (np.nan,)},
        {"level": 1},
        {"y_true": [], "arms": [[[], []]]},
    ],
)
def test_impossible_bootstrap_input_is_refused(change):
    good = {"statistic": "kappa", "y_true": [0, 1, 0], "arms": [[[0, 1, 1], [0, 0, 1]]]}

    def call(statistic, y_true, arms, weights=None, level=0.95, **settings):
        tables = [resample(y_true, arm, **settings) for arm in arms]
        two_level_comparison(statistic, *tables, weights=weights, level=level)

    call(**good, n_resamples=5)
    with pytest.raises(SettingError):
        call(**{**good, **change})


def test_any_weighted_sum_of_arms_is_one_call():
    y_true, a = runs(20)
    b, c, d = (runs(seed, q=q)[1] for seed, q in ((21, 0.4), (22, 0.3), (23, 0.2)))
    gains = [two_level("kappa", y_true, *pair) for pair in ([a, b], [c, d])]
    both = two_level("kappa", y_true, a, b, c, d, weights=(1, -1, -1, 1))
    assert both.estimate == pytest.approx(gains[0].estimate - gains[1].estimate, abs=1e-12)
    # The same arm on both sides cancels in every resample.
    gain = two_level("kappa", y_true, a, c, b, c, weights=(2, -1, -2, 1))
    assert (gain.estimate, gain.low) == pytest.approx((2 * gains[0].estimate, 2 * gains[0].low), abs=1e-12)


# Runs that each test other cases


def test_without_overlap_the_interval_is_the_one_of_scipy():
    differences = np.random.default_rng(0).normal(0.1, 0.2, 7)
    ours = mean_interval(differences, level=0.9)
    assert (ours.low, ours.high) == pytest.approx(stats.t.interval(0.9, 6, differences.mean(), stats.sem(differences)))
    assert ours.estimate == pytest.approx(differences.mean()) and ours.n == 7


def test_the_corrected_interval_of_a_hand_worked_case():
    # J = 5 differences: mean 0.03, deviations -0.01, 0.01, -0.02, 0.02, 0: s**2 = 0.001 / 4 = 0.00025.
    # 20 cases test and 80 train: (1/5 + 20/80) * 0.00025 = 0.0001125, whose root is 0.0106066.
    # Student's t with 4 degrees of freedom is 2.776445 at 0.975 and 4.604095 at 0.995.
    for level, t in ((0.95, 2.776445), (0.99, 4.604095)):
        ours = mean_interval([0.02, 0.04, 0.01, 0.05, 0.03], overlap=20 / 80, level=level)
        assert (ours.low, ours.high) == pytest.approx((0.03 - t * 0.0106066, 0.03 + t * 0.0106066), abs=1e-7)


@pytest.mark.parametrize("bad", [[0.1], [0.1, np.nan], [[0.1, 0.2]]])
def test_differences_that_allow_no_interval_are_refused(bad):
    with pytest.raises(SettingError, match="at least two finite numbers"):
        mean_interval(bad)
    for wrong in ({"overlap": -1}, {"level": 1.5}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            mean_interval([0.1, 0.2], **wrong)
