"""Tables of a study against scikit-learn, scipy, hand-worked values and the statistics called directly."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from sklearn import metrics
from small_study import TOO_FEW

from viptt_core.constants import TB_CLASSES
from viptt_core.errors import SettingError
from viptt_core.metrics import GRID, brier_score, calibration_bins, cohen_kappa, curves, expected_calibration_error
from viptt_core.statistics import holm, resample, shapley_weights, t_test, two_level_comparison
from viptt_core.study.outcomes import RUN_COLUMNS, Outcomes
from viptt_core.study.plan import parse_study
from viptt_core.study.tables import attribute, compare_table, make_tables, write_tables

N, PATIENTS = 150, 60
CASES = np.array([f"case {i:03d}" for i in range(N)])
GROUPS = np.array([f"patient {i % PATIENTS:02d}" for i in range(N)])
LABELS = np.random.default_rng(0).choice(5, size=N, p=[0.4, 0.2, 0.15, 0.15, 0.1])
SHUFFLED = np.random.default_rng(1).permutation(N)
SKILLS = {"random": 0.5, "image": 0.8, "video": 1.5, "video, 75 scans": 1.0, "image, 75 scans": 0.7}


def arm(name, experiment="starts", **fields):
    return {"name": name, "experiment": experiment, "start": name.split(",")[0]} | fields


EFFICIENCY = ["video", "image", "video, 75 scans", "image, 75 scans"]
PLAN = TOO_FEW | {
    "seeds": 3,
    "n_train": 300,
    "primary": {"arm": "video", "baseline": "image"},
    "arms": [arm("random"), arm("image"), arm("video", seeds=4)]
    + [arm(f"{start}, 75 scans", "efficiency", n_train=75) for start in ("image", "video")],
    "families": [
        {"name": "primary", "question": "Does it help?", "contrasts": [["video", "image"]]},
        {"name": "starts", "question": "Do they?", "contrasts": [["video", "random"], ["image", "random"], EFFICIENCY]},
        {"name": "rare", "question": "Rare ones?", "contrasts": [["video", "random"]], "measure": "rare recall"},
    ],
}


def study(**changes):
    return parse_study("mine", PLAN | changes, "mine.toml")


def run(name, seed):
    row = dict.fromkeys(RUN_COLUMNS) | {"arm": name, "seed": seed, "fold": 0, "learning_rate": 0.001, "n_train": 240}
    row |= {"epochs": 20 if seed == 0 else 30, "best_epoch": 10 + seed, "epoch_limit": 30, "stopped_early": seed != 1}
    row |= {"seconds": 10.0, "peak_memory_mb": 500, "device": "some CPU", "plan": "p"}
    row["finished"] = f"2026-01-01T10:{seed:02d}:10+00:00"
    if name != "random":
        row |= {"pretrain_run": f"{name} {seed}", "pretrain_accuracy": 0.5 + 0.1 * seed}
        row |= {"pretrain_classes": 10, "pretrain_seconds": 30.0}
    return row


def outcomes(arms, order=slice(None)):
    """Predictions of arms, {name: seeds}; `order` is that of the cases in the file."""
    runs = pd.DataFrame([run(name, seed) for name, seeds in arms.items() for seed in range(seeds)])
    scores = np.random.default_rng(len(arms)).normal(size=(len(runs), N, 5))
    scores += runs["arm"].map(SKILLS).fillna(1).to_numpy()[:, None, None] * np.eye(5)[LABELS]
    chances = special.softmax(scores, axis=-1).astype(np.float16)[:, order]
    return Outcomes(CASES[order], GROUPS[order], LABELS[order], TB_CLASSES, runs, chances, True)


def everything():
    return {
        "starts": outcomes({"video": 4, "random": 3, "image": 3}),
        "efficiency": outcomes({"image, 75 scans": 3, "video, 75 scans": 3}, SHUFFLED),
    }


@pytest.fixture(scope="module", autouse=True)
def _few_simulations():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("viptt_core.statistics.SIMULATIONS", 200)
        yield


@pytest.fixture(scope="module")
def tables(_few_simulations):
    return make_tables(study(), everything())


def row(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def two_level(statistic, *arms, **settings):
    return two_level_comparison(statistic, *(resample(LABELS, arm, groups=GROUPS) for arm in arms), **settings)


# --- Scores of arms -----------------------------------------------------------------------------------------
def test_scores_of_an_arm_are_those_of_scikit_learn_averaged_over_seeds(tables):
    found = row(tables["arms"], arm="video")
    classes, chances = everything()["starts"].by_seed("video")
    chances = chances / chances.sum(axis=-1, keepdims=True)  # scikit-learn wants sums of 1 beyond float16

    def mean(score):
        return pytest.approx(np.mean([score(*pair) for pair in zip(classes, chances, strict=True)]), abs=1e-3)

    assert found["kappa"] == mean(lambda y, p: metrics.cohen_kappa_score(LABELS, y))
    assert found["accuracy"] == mean(lambda y, p: metrics.accuracy_score(LABELS, y))
    assert found["auc"] == mean(lambda y, p: metrics.roc_auc_score(LABELS, p, multi_class="ovr"))
    assert found["rare_recall"] == mean(lambda y, p: metrics.recall_score(LABELS, y, labels=[2, 3, 4], average="macro"))
    assert found["seed_sd"] == pytest.approx(np.std([cohen_kappa(LABELS, y) for y in classes], ddof=1))
    interval = two_level("recall", classes, classes=[2, 3, 4])
    assert (found["rare_recall_low"], found["rare_recall_high"]) == (interval.low, interval.high)
    assert (found["n"], found["seeds"], found["start"], found["experiment"]) == (N, 4, "video", "starts")
    assert (found["learning_rate"], found["best_epoch"], found["at_limit"]) == (0.001, 11.5, 1)
    assert list(tables["arms"]["arm"]) == [arm["name"] for arm in PLAN["arms"]]
    empty = {name for name, table in tables.items() if table.empty}
    assert empty == {"attribution", "baselines", "folds", "evidence", "missing"}


def test_scores_by_class_and_confusion_are_those_of_scikit_learn(tables):
    classes, _ = everything()["starts"].by_seed("image")
    expected = np.mean([metrics.precision_recall_fscore_support(LABELS, y, zero_division=0)[:3] for y in classes], 0)
    found = tables["per_class"][tables["per_class"]["arm"] == "image"]
    np.testing.assert_allclose(found[["precision", "recall", "f1"]].to_numpy().T, expected)
    assert list(found["class"]) == list(TB_CLASSES) and list(found["support"]) == list(np.bincount(LABELS))
    assert (found["f1_low"] < found["f1"]).all() and (found["f1"] < found["f1_high"]).all()
    counts = tables["confusion"][tables["confusion"]["arm"] == "image"]
    assert (counts["count"] == sum(metrics.confusion_matrix(LABELS, y) for y in classes).ravel()).all()
    cell = row(counts, true="Focal", predicted="Miliary")["count"]
    assert cell == sum(((LABELS == 1) & (y == 3)).sum() for y in classes)


def test_one_seed_has_an_interval_of_the_test_cases_and_no_p():
    made = make_tables(study(), {"starts": outcomes({"video": 1, "image": 3, "random": 3})})
    video, alone = row(made["arms"], arm="video"), row(made["contrasts"], family="starts", arm="video")
    assert video["kappa_low"] < video["kappa"] < video["kappa_high"] and np.isnan(video["seed_sd"])
    assert alone["seeds"] == 1 and np.isnan(alone[["t", "p", "p_holm"]].astype(float)).all()
    other = row(made["contrasts"], family="starts", arm="image")
    assert other["p_holm"] == pytest.approx(min(1, 3 * other["p"]))  # of three planned tests


def test_calibration_of_a_hand_worked_case():
    # Top probabilities 0.9 right, 0.8 wrong, 0.55 right, 0.5 wrong: in bins up to 0.9, 0.8, 0.6 and 0.5.
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.45, 0.55], [0.5, 0.5]])
    y_true = np.array([0, 1, 1, 1])
    bins = calibration_bins(y_true, p)
    assert list(bins["n"]) == [0, 0, 0, 0, 1, 1, 0, 1, 1, 0]
    np.testing.assert_allclose(bins["confidence"][[4, 5, 7, 8]], [0.5, 0.55, 0.8, 0.9])
    np.testing.assert_allclose(bins["accuracy"][[4, 5, 7, 8]], [0, 1, 0, 1])
    assert np.isnan(bins["accuracy"]).sum() == 6
    assert expected_calibration_error(y_true, p) == pytest.approx((0.1 + 0.8 + 0.45 + 0.5) / 4)
    # squared distances 0.01 + 0.01, 0.64 + 0.64, 0.2025 + 0.2025, 0.25 + 0.25
    assert brier_score(y_true, p) == pytest.approx((0.02 + 1.28 + 0.405 + 0.5) / 4)


@pytest.mark.parametrize("digits", [1, 8])  # with many equal scores, and without
def test_curves_are_those_of_scikit_learn(digits):
    rng = np.random.default_rng(digits)
    positive = rng.random(200) < 0.3
    scores = (rng.normal(size=200) + positive).round(digits)
    ours = curves(positive, scores)
    assert ours["roc"][1] == pytest.approx(metrics.roc_auc_score(positive, scores))
    assert ours["pr"][1] == pytest.approx(metrics.average_precision_score(positive, scores))
    false, true, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(ours["roc"][0], np.interp(GRID, false, true))
    precision, recall, _ = metrics.precision_recall_curve(positive, scores)
    by_hand = [precision[(recall >= x - 1e-12) & (recall > 0)][-1] for x in GRID]
    np.testing.assert_allclose(ours["pr"][0], by_hand)


# --- Comparisons --------------------------------------------------------------------------------------------
def test_a_contrast_is_the_two_level_comparison_over_the_seeds_that_both_have(tables):
    starts, efficiency = everything().values()
    video, image, random = starts.by_seed("video")[0][:3], *(starts.by_seed(name)[0] for name in ("image", "random"))
    direct = two_level("kappa", video, image)
    found = row(tables["contrasts"], family="primary")
    wanted = (direct.estimate, direct.low, direct.high, direct.t, direct.p, 3)
    assert tuple(found[["difference", "low", "high", "t", "p", "seeds"]]) == wanted
    assert (found["arm"], found["baseline"], found["arm2"], found["baseline2"]) == ("video", "image", "", "")
    rare = two_level("recall", video, random, classes=[2, 3, 4])
    assert row(tables["contrasts"], family="rare")["high"] == rare.high
    # A difference of differences, with cases of files in another order.
    few = [efficiency.by_seed(f"{start}, 75 scans")[0][:, np.argsort(SHUFFLED)] for start in ("video", "image")]
    direct = two_level("kappa", video, image, *few, weights=(1, -1, -1, 1))
    found = row(tables["contrasts"], arm2="video, 75 scans")
    assert tuple(found[["difference", "low", "high", "p"]]) == (direct.estimate, direct.low, direct.high, direct.p)
    families = tables["contrasts"].groupby("family")
    assert families.size().to_dict() == {"primary": 1, "rare": 1, "starts": 3}
    for _, rows in families:
        np.testing.assert_allclose(rows["p_holm"], holm(rows["p"]))


def test_missing_arms_are_named_and_their_contrasts_left_out():
    made = make_tables(study(), {"starts": outcomes({"video": 3, "random": 3})})
    assert list(made["missing"]["arm"]) == ["image", "image, 75 scans", "video, 75 scans"]
    assert list(made["contrasts"]["family"]) == ["starts", "rare"]
    found = row(made["contrasts"], family="starts")
    assert found["p_holm"] == pytest.approx(min(1, 3 * found["p"]))  # the plan's three tests, not the one that ran
    assert [name for name, table in make_tables(study(), {}).items() if len(table)] == ["missing"]


def test_arms_tested_on_other_cases_are_not_compared_and_what_an_arm_did_not_test_does_not_count():
    less = everything()
    less["efficiency"].probabilities[0, 3] = np.nan
    with pytest.raises(SettingError, match="same cases"):
        make_tables(study(), less)
    less["efficiency"].probabilities[1] = np.nan
    with pytest.raises(SettingError, match="no case in common"):
        make_tables(study(), less)
    less = everything()
    less["starts"].probabilities[:4, 7] = np.nan  # the four runs of "video"
    found = make_tables(study(families=[]), less)
    assert row(found["arms"], arm="video")["n"] == N - 1 and row(found["arms"], arm="image")["n"] == N
    assert found["contrasts"].empty


def test_the_factorial_is_attributed_when_it_is_complete():
    plan = study(factors=["unfrozen"], arms=[arm("image"), arm("video")], families=[])
    starts, others = outcomes({"image": 3, "video": 4}), outcomes({"image-unfrozen": 3, "video-unfrozen": 3})
    found = make_tables(plan, {"starts": starts, "attribution": others})["attribution"]
    cells = [starts.by_seed(name)[0][:3] for name in ("image", "video")]
    cells += [others.by_seed(f"{name}-unfrozen")[0] for name in ("image", "video")]
    image, video, plain, full = (np.mean([cohen_kappa(LABELS, one) for one in classes]) for classes in cells)
    assert list(found["factor"]) == ["naive gap", "start", "unfrozen"]
    assert list(found["points"][:2]) == pytest.approx([full - image, (video - image + full - plain) / 2])
    direct = two_level("kappa", *cells, weights=shapley_weights(2)[1])
    assert tuple(found.iloc[2][["points", "low", "high"]]) == (direct.estimate, direct.low, direct.high)
    assert make_tables(plan, {"starts": starts})["attribution"].empty


def test_shares_of_a_gap_add_up_to_it_and_are_not_given_where_it_may_be_none():
    none, some, most = (np.where(np.arange(N) < right, LABELS, (LABELS + 1) % 5)[None] for right in (30, 60, 130))
    for last, there in ((most, True), (none, False)):
        arms = [resample(LABELS, classes, groups=GROUPS) for classes in (none, some, none, last)]
        table = attribute(["unfrozen"], arms).set_index("factor")
        assert table.loc["start", "points"] + table.loc["unfrozen", "points"] == pytest.approx(table["points"].iloc[0])
        shares = 100 * table["points"] / table.loc["naive gap", "points"] if there else [np.nan] * 3
        np.testing.assert_allclose(table["percent"], shares)


def test_shapley_values_of_a_hand_worked_game():
    # nothing 0, a alone 1, b alone 2, both 5. a adds 1 first and 3 last: 2; b adds 2 first and 4 last: 3
    np.testing.assert_allclose(shapley_weights(2) @ [0, 1, 2, 5], [2, 3])


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_shapley_values_are_averages_over_all_orders(k):
    values = np.random.default_rng(k).normal(size=2**k)
    added, orders = np.zeros(k), list(permutations(range(k)))
    for order in orders:
        mask = 0
        for factor in order:
            added[factor] += values[mask | 1 << factor] - values[mask]
            mask |= 1 << factor
    np.testing.assert_allclose(shapley_weights(k) @ values, added / len(orders))


def test_efficiency_has_the_primary_arms_at_the_number_of_scans_of_the_study(tables):
    found = tables["efficiency"]
    assert list(found["start"]) == ["image", "image", "video", "video"]
    assert list(found["n_train"]) == [75, 300, 75, 300] and list(found["seeds"]) == [3, 3, 3, 4]
    score = row(tables["arms"], arm="video")
    assert tuple(found.iloc[3][["kappa", "low", "high"]]) == tuple(score[["kappa", "kappa_low", "kappa_high"]])


def test_differences_over_folds_are_averaged_over_seeds_and_corrected():
    whole, cases = outcomes({"video": 2, "random": 2}), np.arange(N) % PATIENTS % 3 == np.arange(3)[:, None]
    runs = [(run, fold) for run in range(4) for fold in range(3)]
    kappas = [cohen_kappa(LABELS[cases[fold]], whole.predicted[run, cases[fold]]) for run, fold in runs]
    differences = np.subtract(*np.reshape(kappas, (2, 2, 3))).mean(axis=0)
    of, folds = np.random.default_rng(2).permutation(runs).T  # in no order
    folded = replace(
        whole,
        runs=whole.runs.loc[of].assign(fold=folds, n_train=80),
        probabilities=np.where(cases[folds][..., None], whole.probabilities[of], np.nan).astype(np.float16),
    )
    folded = {"starts": folded}
    made = make_tables(study(folds=3), folded)
    expected = t_test(differences, overlap=N / 3 / 80)
    found = row(made["folds"], arm="video", baseline="random")
    wanted = (expected.estimate, expected.low, expected.high, expected.p)
    assert tuple(found[["difference", "low", "high", "p"]]) == pytest.approx(wanted)
    assert row(made["arms"], arm="video")["n"] == N and row(made["arms"], arm="video")["seeds"] == 2
    assert make_tables(study(), folded)["folds"].empty


# --- Runs ---------------------------------------------------------------------------------------------------
def test_arms_that_no_plan_names_are_baselines():
    made = make_tables(study(), {"starts": outcomes({"video": 3, "most frequent class": 1, "size alone": 2})})
    baselines = made["baselines"]
    assert list(baselines["arm"]) == ["most frequent class", "size alone"]
    assert (baselines["auc_low"] < baselines["auc"]).all() and (baselines["auc"] < baselines["auc_high"]).all()
    assert row(made["cost"], experiment="starts")["runs"] == 3
    assert list(made["arms"]["arm"]) == ["video"] and "most frequent class" not in set(made["per_class"]["arm"])


def test_each_pretraining_counts_once_in_accuracy_and_in_cost():
    shared = everything()
    runs = shared["efficiency"].runs
    runs["pretrain_run"] = [f"{start} {seed}" for start, seed in zip(runs["arm"].str[:5], runs["seed"], strict=True)]
    made = make_tables(study(), shared)
    video = row(made["pretraining"], start="video")
    assert (video["videos"], video["seeds"], video["classes"]) == ("sound", 4, 10)
    accuracy = [0.5, 0.6, 0.7, 0.8]
    low, high = stats.t.interval(0.95, 3, np.mean(accuracy), stats.sem(accuracy))
    assert tuple(video[["accuracy", "low", "high"]]) == pytest.approx((0.65, low, high))
    assert "random" not in set(made["pretraining"]["start"])
    starts, efficiency = (row(made["cost"], experiment=name) for name in ("starts", "efficiency"))
    # 10 runs of 10 s and 7 pretrainings of 30 s, which the 6 runs of the other experiment use, too
    assert (starts["runs"], starts["core_seconds"], starts["hours_total"]) == (10, 31, pytest.approx(310 / 3600))
    assert (efficiency["runs"], efficiency["core_seconds"]) == (6, 10)
    assert (starts["peak_memory_mb"], starts["device"]) == (500, "some CPU")
    # four seeds, one run a minute, the first from 10:00:00
    assert starts["wall_hours"] == pytest.approx((60 * 3 + 10) / 3600)


# --- Files --------------------------------------------------------------------------------------------------
def differences(folder, tables):
    return [found for name, table in tables.items() if (found := compare_table(folder / f"{name}.csv", table))]


def test_written_tables_are_the_same_bytes_again_and_only_more_than_rounding_is_a_difference(tables, tmp_path):
    paths = write_tables(tmp_path / "results", tables)
    assert [path.stem for path in paths] == [name for name, table in tables.items() if len(table)]
    before = [path.read_bytes() for path in paths]
    assert differences(tmp_path / "results", tables) == []
    assert [path.read_bytes() for path in write_tables(tmp_path / "results", tables)] == before
    arms = tables["arms"]
    for change, found in ((5e-10, False), (5e-9, True)):
        changed = arms.assign(kappa=arms["kappa"] + change)
        assert bool(compare_table(tmp_path / "results" / "arms.csv", changed)) is found


@pytest.mark.parametrize(
    "table, number, column, value",
    [
        ("arms", 2, "kappa", 0.5),
        ("arms", 3, "n", 7),
        ("contrasts", 1, "baseline", "image"),
        ("contrasts", 0, "difference", np.nan),
        ("calibration", 0, "accuracy", 0.5),
    ],
)
def test_a_changed_cell_is_found_by_table_row_and_column(tables, tmp_path, table, number, column, value):
    write_tables(tmp_path, {table: tables[table]})
    changed = tables[table].copy()
    changed.loc[number, column] = value
    found = compare_table(tmp_path / f"{table}.csv", changed)
    assert found.startswith(f"{table}.csv: ") and f'(column name="{column}")' in found
    assert f"index {number}, first diff" in found


def test_missing_and_surplus_files_and_other_shapes_are_differences_until_tables_are_written_anew(tables, tmp_path):
    for name in ("folds", "missing", "arms", "notes"):
        (tmp_path / f"{name}.csv").write_text("arm,p\nvideo,0.5\n")
    found = differences(tmp_path, {name: tables[name] for name in ("arms", "cost", "folds")})
    assert found[0].startswith("arms.csv: DataFrame are different")
    assert found[1:] == ["cost.csv: there is no such file", "folds.csv: follows from no predictions"]
    write_tables(tmp_path, tables)
    assert differences(tmp_path, tables) == [] and not (tmp_path / "missing.csv").exists()
    assert (tmp_path / "notes.csv").exists()  # nothing else is deleted
