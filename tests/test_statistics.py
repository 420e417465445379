"""Statistics of repeated runs against scipy, hand-worked values, plain loops and simulated truth."""

import numpy as np
import pytest
from scipy import stats

from viptt_core.errors import SettingError
from viptt_core.metrics import accuracy, bootstrap_ci, cohen_kappa, per_class
from viptt_core.statistics import (
    best_of_k,
    detectable_difference,
    holm,
    kappa_interval_by_simulation,
    kappa_of_tables,
    nadeau_bengio,
    paired_differences,
    two_level_bootstrap,
)

VALIDATION = [84, 46, 20, 20, 14]  # the paper's 184 validation scans
TRAINING = [420, 226, 101, 100, 70]  # the benchmark's training scans: shares of the 421 test scans
PUBLISHED_GAIN = 0.18  # 0.17 -> 0.35, the published gain


def runs(seed, n_seeds=4, n=120, k=4, q=0.5):
    """Labels [N] and predictions [S, N], right with chance q (one number, or one a seed), else a guess."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(k, size=n)
    right = rng.random((n_seeds, n)) < np.broadcast_to(q, (n_seeds,))[:, None]
    return y_true, np.where(right, y_true, rng.integers(k, size=(n_seeds, n)))


def width(interval):
    return interval.high - interval.low


# Two-level bootstrap


def test_kappa_of_tables_is_that_of_the_metric_and_undefined_alike():
    y_true, y_pred = runs(0)
    tables = np.zeros((4, 4, 4), dtype=int)
    for table, run in zip(tables, y_pred, strict=True):
        np.add.at(table, (y_true, run), 1)
    np.testing.assert_allclose(kappa_of_tables(tables), [cohen_kappa(y_true, run) for run in y_pred], atol=1e-12)
    assert np.isnan(kappa_of_tables(np.array([[7, 0], [0, 0]])))


def mean_recall(classes):
    return lambda y_true, y_pred: per_class(y_true, y_pred, 4)["recall"][classes].mean()


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    "name, slow", [("kappa", cohen_kappa), ("accuracy", accuracy), ("recall", mean_recall([1, 3]))]
)
def test_counting_by_group_gives_what_looping_over_cases_gives(name, slow, grouped):
    y_true, a = runs(1)
    b = runs(2, q=0.3)[1]
    settings = {"n_resamples": 40, "groups": np.random.default_rng(3).integers(30, size=120) if grouped else None}
    fast = two_level_bootstrap(name, y_true, a, b, classes=[1, 3] if name == "recall" else None, **settings)
    looped = two_level_bootstrap(slow, y_true, a, b, **settings)
    assert (fast.estimate, fast.low, fast.high) == pytest.approx((looped.estimate, looped.low, looped.high), abs=1e-12)
    by_hand = np.mean([slow(y_true, x) for x in a]) - np.mean([slow(y_true, x) for x in b])
    assert fast.estimate == pytest.approx(by_hand, abs=1e-12)


def test_the_interval_is_that_of_a_plain_loop_over_patients_and_seeds():
    y_true, a = runs(4, n_seeds=5, q=[0.3, 0.4, 0.5, 0.6, 0.7])
    b = runs(5, n_seeds=5, q=0.3)[1]
    patient = np.arange(120) // 3
    pairs = list(zip(a, b, strict=True))
    gains = np.array([cohen_kappa(y_true, x) - cohen_kappa(y_true, y) for x, y in pairs])
    rng = np.random.default_rng(6)
    values = []
    for _ in range(1500):
        cases = np.concatenate([np.flatnonzero(patient == p) for p in rng.choice(40, 40)])
        drawn = [cohen_kappa(y_true[cases], x[cases]) - cohen_kappa(y_true[cases], y[cases]) for x, y in pairs]
        values.append(np.mean(drawn) + np.mean(rng.choice(gains - gains.mean(), 5)))
    ours = two_level_bootstrap("kappa", y_true, a, b, groups=patient, few_seeds=False)
    assert (ours.low, ours.high) == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.02)


@pytest.mark.parametrize("groups", [None, np.arange(200) // 4])
def test_seeds_that_all_say_the_same_leave_the_one_level_interval(groups):
    y_true, one = runs(7, n_seeds=1, n=200)
    ours = two_level_bootstrap("kappa", y_true, np.repeat(one, 3, axis=0), groups=groups, n_resamples=4000)
    theirs = bootstrap_ci(cohen_kappa, y_true, one[0], groups=groups, n_resamples=2000, seed=1)
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=0.015)
    assert ours.estimate == pytest.approx(cohen_kappa(y_true, one[0]))


def test_with_one_patient_only_the_seeds_vary_and_the_interval_is_worked_by_hand():
    # Accuracies 0.6 and 0.8. A draw of two seeds has mean 0.6, 0.7 or 0.8, with chances 1/4, 1/2, 1/4.
    y_true, y_pred = np.zeros(10, int), np.zeros((2, 10), int)
    y_pred[0, :4], y_pred[1, :2] = 1, 1
    plain = two_level_bootstrap("accuracy", y_true, y_pred, groups=np.zeros(10), few_seeds=False)
    assert (plain.estimate, plain.low, plain.high) == pytest.approx((0.7, 0.6, 0.8))
    widened = two_level_bootstrap("accuracy", y_true, y_pred, groups=np.zeros(10))
    assert widened.high - 0.7 == pytest.approx(0.1 * np.sqrt(2) * 12.7062 / 1.95996, abs=1e-4)


def test_two_arms_are_drawn_together_so_that_what_they_share_cancels():
    y_true, a = runs(8, n_seeds=5, n=400, q=[0.2, 0.35, 0.5, 0.65, 0.8])
    same = two_level_bootstrap("kappa", y_true, a, a)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    worse = a.copy()
    worse[:, :40] = (y_true[:40] + 1) % 4
    assert width(two_level_bootstrap("kappa", y_true, a, worse)) < 0.4 * width(two_level_bootstrap("kappa", y_true, a))
    mismatched = worse[::-1]
    assert width(two_level_bootstrap("kappa", y_true, a, mismatched)) > 3 * width(
        two_level_bootstrap("kappa", y_true, a, worse)
    )


def test_swapping_the_arms_turns_the_interval_round():
    y_true, a = runs(9)
    b = runs(10, q=0.2)[1]
    gain, loss = two_level_bootstrap("kappa", y_true, a, b), two_level_bootstrap("kappa", y_true, b, a)
    assert gain.low > 0
    assert (loss.estimate, loss.low, loss.high) == pytest.approx((-gain.estimate, -gain.high, -gain.low))


def test_copies_of_patients_do_not_narrow_the_interval():
    y_true, one = runs(11, n_seeds=1)
    a = np.repeat(one, 2, axis=0)  # seeds that agree: the test level alone
    copies = np.repeat(y_true, 5), np.repeat(a, 5, axis=1)
    grouped = two_level_bootstrap("kappa", *copies, groups=np.repeat(np.arange(120), 5))
    assert width(grouped) == pytest.approx(width(two_level_bootstrap("kappa", y_true, a)), rel=1e-9)
    assert width(two_level_bootstrap("kappa", *copies)) < 0.6 * width(grouped)


def test_a_function_may_take_probabilities():
    y_true, _ = runs(12)
    probabilities = np.random.default_rng(13).dirichlet(np.ones(4), (3, 120))

    def of_truth(y_true, probabilities):
        return probabilities[np.arange(len(y_true)), y_true].mean()

    interval = two_level_bootstrap(of_truth, y_true, probabilities, n_resamples=100)
    assert interval.low < interval.estimate < interval.high


def test_bootstrap_is_repeatable_by_seed_and_does_not_depend_on_the_block_size(monkeypatch):
    y_true, a = runs(14)
    once = two_level_bootstrap("kappa", y_true, a)
    assert once != two_level_bootstrap("kappa", y_true, a, seed=1)
    monkeypatch.setattr("viptt_core.statistics.BLOCK", 1000)
    again = two_level_bootstrap("kappa", y_true, a)
    assert (again.low, again.high) == pytest.approx((once.low, once.high), abs=1e-12)


def test_undefined_kappa_gives_nan_and_a_class_missing_from_a_draw_is_left_out():
    ones = np.ones((2, 5), int)
    assert np.isnan([*vars(two_level_bootstrap("kappa", ones[0], ones)).values()]).all()
    y_true = np.array([0, 0, 0, 0, 1])  # a third of the draws lack class 1
    assert two_level_bootstrap("recall", y_true, np.stack([y_true, y_true])).low == 1
    assert np.isnan(two_level_bootstrap("recall", y_true, np.stack([y_true, y_true]), classes=[1, 4]).estimate)


@pytest.mark.parametrize(
    "skill_sd, alike, fails", [(0.12, 0.2, "test level alone"), (0.02, 0.9, "seed level alone"), (0.07, 0.6, "")]
)
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
        both = two_level_bootstrap("kappa", y_true, y_pred, groups=patient, n_resamples=400, seed=i)
        seeds = paired_differences([cohen_kappa(y_true, run) for run in y_pred], np.zeros(n_seeds))
        counts = np.eye(k * k)[y_true * k + y_pred].reshape(n_seeds, 50, 3, -1).sum(axis=2)
        draws = rng.multinomial(50, np.full(50, 1 / 50), size=400)
        of_test = kappa_of_tables((draws @ counts).reshape(n_seeds, 400, k, k)).mean(axis=0)
        bounds = [(both.low, both.high), (seeds.low, seeds.high), np.percentile(of_test, [2.5, 97.5])]
        for hits, (low, high) in zip(covered.values(), bounds, strict=True):
            hits.append(low <= 0.4 <= high)
    share = {name: np.mean(hits) for name, hits in covered.items()}
    assert 0.92 <= share["both levels"] <= 0.99
    assert not fails or share[fails] < 0.8


@pytest.mark.parametrize(
    "change",
    [
        {"level": 95},
        {"n_resamples": 0},
        {"groups": [1, 2]},
        {"statistic": "auc"},
        {"y_pred": [[0, 1, 1]]},
        {"y_pred": [0, 1, 1]},
        {"y_pred": [[0, 1], [1, 1]]},
        {"y_pred": [[0, -1, 1], [0, 1, 1]]},
        {"y_pred": [[0.5, 0.5, 1], [0, 1, 1]]},
        {"baseline": [[0, 1, 1]] * 3},
        {"statistic": accuracy, "classes": [1]},
        {"y_true": [], "y_pred": [[], []]},
    ],
)
def test_impossible_bootstrap_input_is_refused(change):
    good = {"statistic": "kappa", "y_true": [0, 1, 0], "y_pred": [[0, 1, 1], [0, 0, 1]]}
    two_level_bootstrap(**good, n_resamples=5)
    with pytest.raises(SettingError):
        two_level_bootstrap(**{**good, **change})


# Tests of differences


def test_paired_differences_equal_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.1, 0.2, 7), rng.normal(0, 0.2, 7)
    ours, theirs = paired_differences(a, b, level=0.9), stats.ttest_rel(a, b)
    assert (ours.t, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(0.9)))
    assert ours.estimate == pytest.approx((a - b).mean()) and ours.n == 7
    exact = stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert ours.p_exact == pytest.approx(exact.pvalue, abs=1e-12)


def test_the_sign_flip_test_of_a_hand_worked_case():
    # 3 + 2 - 1 = 4: of the eight patterns +-3 +-2 +-1 those at +-6 and +-4 are as far, 4 of 8
    assert paired_differences([3, 2, -1], [0, 0, 0]).p_exact == 0.5
    assert paired_differences([0.5, 0.4, 0.3, 0.6, 0.5], [0.1, 0.1, 0.1, 0.1, 0.1]).p_exact == 2 / 32


def test_equal_sums_count_as_equal_in_spite_of_rounding():
    # 0.1 + 0.2 is not 0.3 in floats: all patterns at +-0.4 and +-0.6... are counted on both sides
    assert paired_differences([0.1, 0.2, 0.3], [0, 0, 0]).p_exact == 0.25
    assert paired_differences([0.1, 0.2, -0.3], [0, 0, 0]).p_exact == 1


def test_many_seeds_have_no_exact_test():
    a = np.random.default_rng(1).normal(size=17)
    assert paired_differences(a[:16], np.zeros(16)).p_exact is not None
    assert paired_differences(a, np.zeros(17)).p_exact is None


def test_arms_that_agree_in_every_run_differ_by_nothing():
    same = paired_differences([0.2, 0.3, 0.1], [0.2, 0.3, 0.1])
    assert (same.estimate, same.low, same.high, same.t, same.p, same.p_exact) == (0, 0, 0, 0, 1, 1)
    assert nadeau_bengio([0.5, 0.5], 8, 2).t == np.inf


def test_the_corrected_t_test_of_a_hand_worked_case():
    # mean 0.03, s**2 0.00025; (1/5 + 20/80) * 0.00025 = 0.0001125; t = 0.03 / 0.0106066 = 2.828427
    ours = nadeau_bengio([0.02, 0.04, 0.01, 0.05, 0.03], 80, 20)
    assert ours.t == pytest.approx(2.828427, abs=1e-6)
    assert ours.p == pytest.approx(0.047421, abs=1e-6)
    assert ours.p == pytest.approx(2 * stats.t(4).sf(np.sqrt(8)))
    # Student's t with four degrees of freedom at 0.975 is 2.776445
    assert (ours.low, ours.high) == pytest.approx((0.03 - 2.776445 * 0.0106066, 0.03 + 2.776445 * 0.0106066), abs=1e-7)


def test_without_overlap_the_corrected_test_is_the_plain_one():
    x = np.random.default_rng(2).normal(0.3, 1, 10)
    assert nadeau_bengio(x, 10**12, 1).p == pytest.approx(stats.ttest_1samp(x, 0).pvalue, rel=1e-6)


def test_the_corrected_test_keeps_its_level_over_repeated_splits_where_the_plain_one_does_not():
    rng = np.random.default_rng(3)
    corrected, plain = [], []
    for _ in range(400):
        cases = rng.normal(size=100)  # per-case differences of two equal arms
        splits = [cases[rng.permutation(100)[:20]].mean() for _ in range(15)]
        corrected.append(nadeau_bengio(splits, 80, 20).p < 0.05)
        plain.append(stats.ttest_1samp(splits, 0).pvalue < 0.05)
    assert np.mean(corrected) < 0.08 and np.mean(plain) > 0.25


@pytest.mark.parametrize("bad", [[0.1], [0.1, np.nan], [[0.1, 0.2]], []])
def test_differences_that_allow_no_test_are_refused(bad):
    with pytest.raises(SettingError):
        nadeau_bengio(bad, 80, 20)
    with pytest.raises(SettingError):
        paired_differences(bad, np.zeros_like(bad))


def test_unequal_lengths_sizes_and_levels_are_refused():
    with pytest.raises(SettingError, match="shape"):
        paired_differences([0.1, 0.2], [0.1])
    with pytest.raises(SettingError, match="n_test"):
        nadeau_bengio([0.1, 0.2], 80, 0)
    with pytest.raises(SettingError, match="level"):
        paired_differences([0.1, 0.2], [0, 0], level=95)


def test_holm_of_a_hand_worked_family():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04 -> 0.06 (never below the one before)
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.6]), [1, 1])
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_the_step_down_procedure_rejects(seed):
    p = np.random.default_rng(seed).random(8) ** 3
    rejected = np.zeros(8, dtype=bool)
    for step, test in enumerate(np.argsort(p)):
        if p[test] > 0.05 / (8 - step):
            break
        rejected[test] = True
    assert ((holm(p) <= 0.05) == rejected).all()


@pytest.mark.parametrize("bad", [[0.1, np.nan], [1.2], [-0.1], 0.5])
def test_holm_refuses_what_is_no_p_value(bad):
    with pytest.raises(SettingError, match="0 to 1"):
        holm(bad)


# What n scans can show


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
    assert (ours.estimate, ours.low, ours.high) == pytest.approx((kappa, low, high), abs=0.004)


def test_counts_are_scaled_by_largest_remainders():
    # 192.8, 103.8, 46.4, 45.9, 32.1: the three largest remainders are rounded up
    by_hand = kappa_interval_by_simulation([193, 104, 46, 46, 32], 0.2, guesses=TRAINING)
    assert kappa_interval_by_simulation(TRAINING, 0.2, n=421) == by_hand


def asymptotic_sd(p, n):
    """Large-sample standard deviation of kappa of a table of shares: Fleiss, Cohen & Everitt (1969)."""
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    agree, chance = np.trace(p), rows @ columns
    both = columns[:, None] + rows[None, :]  # for cell (i, j): column share of i plus row share of j
    total = sum(p[i, i] * ((1 - chance) - (rows[i] + columns[i]) * (1 - agree)) ** 2 for i in range(len(p)))
    off = p * both**2
    total += (1 - agree) ** 2 * (off.sum() - np.trace(off)) - (agree * chance - 2 * chance + agree) ** 2
    return np.sqrt(total / n) / (1 - chance) ** 2


@pytest.mark.parametrize("kappa", [0.1, 0.35, 0.7])
def test_simulated_intervals_agree_with_the_large_sample_formula(kappa):
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    table = kappa * np.diag(shares) + (1 - kappa) * np.outer(shares, shares)
    ours = kappa_interval_by_simulation(shares * 2000, kappa)
    assert width(ours) == pytest.approx(2 * 1.96 * asymptotic_sd(table, 2000), rel=0.04)


@pytest.mark.parametrize("guesses", [None, [1, 1, 1, 1], [0, 0, 1, 5]])
def test_whatever_the_guesses_the_simulated_kappa_is_the_one_asked_for(guesses):
    wide = kappa_interval_by_simulation([40, 30, 20, 10], 0.3, n=10**6, guesses=guesses)
    assert (wide.low, wide.high) == pytest.approx((0.3, 0.3), abs=0.003)


def test_a_confusion_table_gives_counts_and_guesses():
    table = np.array([[30, 5, 5], [10, 15, 5], [10, 0, 20]])
    by_parts = kappa_interval_by_simulation([40, 30, 30], 0.4, guesses=[50, 20, 30])
    assert kappa_interval_by_simulation(table, 0.4) == by_parts != kappa_interval_by_simulation([40, 30, 30], 0.4)


def test_perfect_agreement_has_no_interval_and_four_times_the_cases_halve_it():
    perfect = kappa_interval_by_simulation(VALIDATION, 1)
    assert (perfect.low, perfect.high) == (1, 1)
    small, large = (kappa_interval_by_simulation(VALIDATION, 0.3, n=n) for n in (200, 800))
    assert width(small) == pytest.approx(2 * width(large), rel=0.05)


def test_best_of_k_is_the_expected_largest_of_k_normal_errors():
    sd = width(kappa_interval_by_simulation(VALIDATION, 0.17)) / (2 * 1.96)
    assert best_of_k(VALIDATION, 0.17) == pytest.approx(1.16296 * sd, abs=0.002)
    assert best_of_k(VALIDATION, 0.17, 2) == pytest.approx(sd / np.sqrt(np.pi), abs=0.002)
    assert best_of_k(VALIDATION, 0.17) == pytest.approx(0.06, abs=0.005)


def test_one_run_or_runs_that_all_agree_inflate_nothing():
    assert best_of_k(VALIDATION, 0.17, 1) == pytest.approx(0, abs=0.002)
    assert best_of_k(VALIDATION, 0.17, 5, shared=1) == pytest.approx(0, abs=0.002)
    # independent errors on half of the cases only: half of the variance
    half = best_of_k(VALIDATION, 0.17, 5, shared=0.5)
    assert half == pytest.approx(best_of_k(VALIDATION, 0.17) / np.sqrt(2), abs=0.003)


def test_the_published_gap_is_less_than_184_scans_show_between_single_unpaired_runs():
    gap = detectable_difference(VALIDATION, 0.17)
    sd = [width(kappa_interval_by_simulation(VALIDATION, k)) / (2 * 1.96) for k in (0.17, 0.17 + gap)]
    assert gap == pytest.approx((1.95996 + 0.84162) * np.hypot(*sd), abs=0.004)
    assert gap > PUBLISHED_GAIN


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_the_detectable_gain_is_found_in_four_of_five_studies_simulated_case_by_case(shared):
    rng, n, sims = np.random.default_rng(4), 300, 1500
    gap = detectable_difference([150, 100, 50], 0.3, shared=shared)
    y_true = np.repeat([0, 1, 2], [150, 100, 50])

    def table(q, hard, guess):
        y_pred = np.where(hard < q, y_true, guess)
        return np.eye(9)[y_true * 3 + y_pred].sum(axis=1).reshape(sims, 3, 3)

    def draw():
        return rng.random((sims, n)), rng.choice(3, p=[1 / 2, 1 / 3, 1 / 6], size=(sims, n))

    (hard, guess), (own_hard, own_guess) = draw(), draw()
    alike = rng.random((sims, n)) < shared
    better = table(0.3 + gap, np.where(alike, hard, own_hard), np.where(alike, guess, own_guess))
    gains = kappa_of_tables(better) - kappa_of_tables(table(0.3, hard, guess))
    assert gains.mean() == pytest.approx(gap, abs=0.006)
    assert np.mean(np.abs(gains) > 1.96 * gains.std()) == pytest.approx(0.8, abs=0.04)


def test_pairing_and_more_scans_make_smaller_gains_detectable(monkeypatch):
    monkeypatch.setattr("viptt_core.statistics.SIMULATIONS", 4000)
    unpaired = detectable_difference(VALIDATION, 0.17)
    assert detectable_difference(VALIDATION, 0.17, shared=0.8) < 0.7 * unpaired
    assert detectable_difference(VALIDATION, 0.17, n=4 * 184) == pytest.approx(unpaired / 2, abs=0.01)
    assert detectable_difference(VALIDATION, 0.17, power=0.95) > 1.2 * unpaired


def test_too_few_scans_detect_nothing():
    assert np.isnan(detectable_difference([3, 2], 0.6))


@pytest.mark.parametrize(
    "call",
    [
        lambda: kappa_interval_by_simulation([10, 0], 0.2),
        lambda: kappa_interval_by_simulation([10, -1, 4], 0.2),
        lambda: kappa_interval_by_simulation([10, 5], 1.2),
        lambda: kappa_interval_by_simulation([10, 5], -0.2),
        lambda: kappa_interval_by_simulation([10, 5], 0.2, level=95),
        lambda: kappa_interval_by_simulation([10, 5], 0.2, n=1),
        lambda: kappa_interval_by_simulation([10, 5], 0.2, guesses=[1, 1, 1]),
        lambda: kappa_interval_by_simulation([10, 5], 0.2, guesses=[0, 0]),
        lambda: best_of_k([10, 5], 0.2, 0),
        lambda: best_of_k([10, 5], 0.2, shared=2),
        lambda: detectable_difference([10, 5], 0.2, power=0.01),
    ],
)
def test_impossible_simulations_are_refused(call):
    with pytest.raises(SettingError):
        call()
