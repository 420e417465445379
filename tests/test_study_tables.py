"""Tables of a study against scikit-learn, scipy, hand-worked values and the statistics called directly."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn import metrics
from small_study import TOO_FEW

from viptt_core.constants import TB_CLASSES
from viptt_core.errors import SettingError
from viptt_core.metrics import GRID, brier_score, calibration_bins, cohen_kappa, curves, expected_calibration_error
from viptt_core.statistics import mean_interval, resample, shapley_weights, two_level_comparison
from viptt_core.study.outcomes import RUN_COLUMNS, SIZE, Outcomes
from viptt_core.study.plan import parse_study
from viptt_core.study.tables import compare_table, make_tables, write_tables

N, PATIENTS = 150, 60
CASES = np.array([f"case {i:03d}" for i in range(N)])
GROUPS = np.array([f"patient {i % PATIENTS:02d}" for i in range(N)])
LABELS = np.random.default_rng(0).choice(5, size=N, p=[0.4, 0.2, 0.15, 0.15, 0.1])
SHUFFLED = np.random.default_rng(1).permutation(N)
SKILLS = {
    "random": 0.5,
    "image": 0.8,
    "video": 1.5,
    "video, 75 scans": 1.0,
    "image, 75 scans": 0.7,
    "video-weights": 3.0,
}


def arm(name, experiment="starts", **fields):
    return {"name": name, "experiment": experiment, "start": name.split(",")[0]} | fields


LABELS_75 = ["video", "image", "video, 75 scans", "image, 75 scans"]
PLAN = TOO_FEW | {
    "seeds": 8,
    "n_train": 300,
    "n_videos": 250,
    "rates": [0.001, 0.01],
    "arms": [arm("random"), arm("image"), arm("video")]
    + [arm(f"{start}, 75 scans", "labels", n_train=75) for start in ("image", "video")],
    "families": [
        {"name": "primary", "question": "Does it help?", "contrasts": [["video", "image"]]},
        {"name": "starts", "question": "Do they?", "contrasts": [["video", "random"], ["image", "random"], LABELS_75]},
        {"name": "rare", "question": "Rare ones?", "contrasts": [["video", "random"]], "measure": "rare recall"},
    ],
}


def study(**changes):
    return parse_study("mine", PLAN | changes, "mine.toml")


def run(name, seed):
    row = dict.fromkeys(RUN_COLUMNS) | {"arm": name, "seed": seed, "fold": 0, "learning_rate": 0.001, "n_train": 240}
    row |= {"epochs": 20 if seed == 0 else 30, "best_epoch": 10 + seed, "epoch_limit": 30, "stopped_early": seed != 1}
    return row | {"seconds": 10.0, "device": "some CPU", "plan": "p"}


def outcomes(arms, order=slice(None)):
    """Predictions of arms, {name: seeds}; `order` is that of the cases in the file."""
    runs = pd.DataFrame([run(name, seed) for name, seeds in arms.items() for seed in range(seeds)])
    scores = np.random.default_rng(len(arms)).normal(size=(len(runs), N, 5))
    scores += runs["arm"].map(SKILLS).fillna(1).to_numpy()[:, None, None] * np.eye(5)[LABELS]
    chances = special.softmax(scores, axis=-1).astype(np.float16)[:, order]
    return Outcomes(CASES[order], GROUPS[order], LABELS[order], TB_CLASSES, runs, chances, True)


def everything():
    return {
        "starts": outcomes({"video": 9, "random": 8, "image": 8}),
        "labels": outcomes({"image, 75 scans": 3, "video, 75 scans": 3}, SHUFFLED),
    }


def folded(whole, folds=3):
    """Each run of some outcomes as one a fold, which tests every third patient; in no order."""
    cases = np.arange(N) % PATIENTS % folds == np.arange(folds)[:, None]
    of, fold = np.random.default_rng(2).permutation([(r, f) for r in range(len(whole.runs)) for f in range(folds)]).T
    chances = np.where(cases[fold][..., None], whole.probabilities[of], np.nan).astype(np.float16)
    return replace(whole, runs=whole.runs.loc[of].assign(fold=fold, n_train=80), probabilities=chances), cases


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
    assert found["kappa_median"] == pytest.approx(np.median([cohen_kappa(LABELS, y) for y in classes]))
    assert tuple(found[["n", "seeds", "runs", "start", "experiment"]]) == (N, 9, 9, "video", "starts")
    assert tuple(found[["learning_rate", "best_epoch", "at_limit", "collapsed"]]) == (0.001, 14, 1, 0)
    assert list(tables["arms"]["arm"]) == [arm["name"] for arm in PLAN["arms"]]
    empty = {name for name, table in tables.items() if table.empty}
    assert empty == {"attribution", "sources", "baselines", "missing"}


def test_scores_by_class_and_confusion_are_those_of_scikit_learn(tables):
    classes, chances = everything()["starts"].by_seed("image")
    expected = np.mean([metrics.precision_recall_fscore_support(LABELS, y, zero_division=0)[:3] for y in classes], 0)
    found = tables["per_class"][tables["per_class"]["arm"] == "image"]
    np.testing.assert_allclose(found[["precision", "recall", "f1"]].to_numpy().T, expected)
    assert list(found["class"]) == list(TB_CLASSES) and list(found["support"]) == list(np.bincount(LABELS))
    areas = [[metrics.roc_auc_score(k == LABELS, p[:, k]) for p in chances] for k in range(5)]
    np.testing.assert_allclose(found["auc"], np.mean(areas, axis=1))
    assert (found["f1_low"] < found["f1"]).all() and (found["f1"] < found["f1_high"]).all()
    counts = tables["confusion"][tables["confusion"]["arm"] == "image"]
    assert (counts["count"] == sum(metrics.confusion_matrix(LABELS, y) for y in classes).ravel()).all()
    cell = row(counts, true="Focal", predicted="Miliary")["count"]
    assert cell == sum(((LABELS == 1) & (y == 3)).sum() for y in classes)


def test_one_seed_has_an_interval_of_the_test_cases_and_no_verdict():
    made = make_tables(study(), {"starts": outcomes({"video": 1, "image": 8, "random": 8})})
    video, alone = row(made["arms"], arm="video"), row(made["contrasts"], family="starts", arm="video")
    assert video["kappa_low"] < video["kappa"] < video["kappa_high"] and np.isnan(video["seed_sd"])
    assert alone["low"] < alone["difference"] < alone["high"]
    assert tuple(alone[["seeds", "verdict"]]) == (1, "")
    assert row(made["contrasts"], family="starts", arm="image")["verdict"] == "undecided"


def test_a_run_that_names_one_class_only_is_counted_and_kept():
    made = everything()["starts"]
    made.probabilities[2] = np.eye(5)[0]  # the third seed of "video"
    found = row(make_tables(study(), {"starts": made})["arms"], arm="video")
    assert (found["collapsed"], found["runs"]) == (1, 9) and found["kappa_median"] > found["kappa"]


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
def test_a_contrast_is_the_two_level_comparison_over_the_seeds_that_both_have_at_the_level_of_its_family(tables):
    starts, labels = everything().values()
    video, image, random = starts.by_seed("video")[0][:8], *(starts.by_seed(name)[0] for name in ("image", "random"))
    direct = two_level("kappa", video, image)
    found = row(tables["contrasts"], family="primary")
    wanted = (direct.estimate, direct.low, direct.high, 8, N, 0.95)
    assert tuple(found[["difference", "low", "high", "seeds", "n", "level"]]) == wanted
    assert tuple(found[["arm", "baseline", "arm2", "baseline2", "verdict"]]) == ("video", "image", "", "", "helps")
    assert found["has_018"] == (found["low"] < 0.18 < found["high"])
    rare = two_level("recall", video, random, classes=[2, 3, 4])
    assert row(tables["contrasts"], family="rare")["high"] == rare.high
    # A difference of differences, with cases of files in another order: one of three contrasts.
    few = [labels.by_seed(f"{start}, 75 scans")[0][:, np.argsort(SHUFFLED)] for start in ("video", "image")]
    direct = two_level("kappa", video[:3], image[:3], *few, weights=(1, -1, -1, 1), level=1 - 0.05 / 3)
    found = row(tables["contrasts"], arm2="video, 75 scans")
    assert tuple(found[["difference", "low", "high", "verdict"]]) == (direct.estimate, direct.low, direct.high, "")


def test_a_family_for_a_look_has_no_verdict():
    families = [PLAN["families"][0] | {"verdict": False}]
    found = make_tables(study(families=families), everything())["contrasts"].iloc[0]
    assert found["low"] > 0 and found["verdict"] == ""


def test_missing_arms_are_named_and_their_contrasts_left_out_though_they_count():
    made = make_tables(study(), {"starts": outcomes({"video": 8, "random": 8})})
    assert list(made["missing"]["arm"]) == ["image", "image, 75 scans", "video, 75 scans"]
    assert list(made["contrasts"]["family"]) == ["starts", "rare"]
    assert row(made["contrasts"], family="starts")["level"] == 1 - 0.05 / 3
    assert [name for name, table in make_tables(study(), {}).items() if len(table)] == ["missing"]


def test_arms_tested_on_other_cases_are_not_compared():
    less = everything()
    less["labels"].probabilities[:, 3] = np.nan
    with pytest.raises(SettingError, match="same cases"):
        make_tables(study(), less)
    with pytest.raises(SettingError, match="share no seed"):
        make_tables(study(), {"starts": replace(made := everything()["starts"], runs=made.runs.assign(fold=range(25)))})


def test_the_factorial_is_attributed_when_it_is_complete():
    plan = study(factors=["weights"])
    starts, others = outcomes({"image": 3, "video": 4}), outcomes({"image-weights": 3, "video-weights": 3})
    found = make_tables(plan, {"starts": starts, "attribution": others})["attribution"]
    cells = [starts.by_seed(name)[0][:3] for name in ("image", "video")]
    cells += [others.by_seed(f"{name}-weights")[0] for name in ("image", "video")]
    image, video, plain, full = (np.mean([cohen_kappa(LABELS, one) for one in classes]) for classes in cells)
    assert list(found["factor"]) == ["naive gap", "start", "weights"]
    assert list(found["points"][:2]) == pytest.approx([full - image, (video - image + full - plain) / 2])
    assert found["points"][1:].sum() == pytest.approx(found["points"][0])
    direct = two_level("kappa", *cells, weights=shapley_weights(2)[1], level=1 - 0.05 / 3)
    assert tuple(found.iloc[2][["points", "low", "high"]]) == (direct.estimate, direct.low, direct.high)
    np.testing.assert_allclose(found["percent"], 100 * found["points"] / found["points"][0])
    others.probabilities[3:] = starts.probabilities[:3]  # all on is as good as all off: no shares of nothing
    assert make_tables(plan, {"starts": starts, "attribution": others})["attribution"]["percent"].isna().all()
    assert make_tables(plan, {"starts": starts})["attribution"].empty


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


def test_trends_have_the_primary_arms_at_the_numbers_of_the_study():
    arms = [*PLAN["arms"], arm("video, 60 videos", "dose", n_videos=60)]
    made = make_tables(study(arms=arms), everything() | {"dose": outcomes({"video, 60 videos": 3})})
    found = made["trend"].groupby("experiment")
    labels, dose = found.get_group("labels"), found.get_group("dose")
    assert list(labels["start"]) == ["image", "image", "video", "video"]
    assert list(labels["n_train"]) == [75, 300, 75, 300] and list(labels["seeds"]) == [3, 8, 3, 9]
    assert list(dose["n_videos"]) == [0, 60, 250]
    score = row(made["arms"], arm="video")
    assert tuple(labels.iloc[3][["kappa", "low", "high"]]) == tuple(score[["kappa", "kappa_low", "kappa_high"]])


def test_where_folds_repeat_each_run_counts_and_their_overlap_widens_the_interval():
    whole = outcomes({"video": 9, "random": 8, "image": 8})
    folds, cases = folded(whole)
    made = make_tables(study(folds=3), {"starts": folds})
    kappas = {
        name: [cohen_kappa(LABELS[case], run[case]) for run in whole.by_seed(name)[0][:8] for case in cases]
        for name in ("video", "random")
    }
    differences = np.subtract(kappas["video"], kappas["random"])
    direct = mean_interval(differences, overlap=N / 3 / 80, level=1 - 0.05 / 3)
    found = row(made["contrasts"], family="starts", arm="video")
    assert tuple(found[["difference", "low", "high"]]) == pytest.approx((direct.estimate, direct.low, direct.high))
    assert tuple(found[["seeds", "n", "verdict"]]) == (8, N, "helps")
    score, direct = row(made["arms"], arm="random"), mean_interval(kappas["random"], overlap=N / 3 / 80)
    assert tuple(score[["kappa", "kappa_low"]]) == pytest.approx((direct.estimate, direct.low))
    assert tuple(score[["n", "seeds", "runs"]]) == (N, 8, 24)
    seeds = np.reshape(kappas["random"], (8, 3)).mean(axis=1)
    assert tuple(score[["kappa_median", "seed_sd"]]) == pytest.approx((np.median(seeds), seeds.std(ddof=1)))
    support = made["per_class"].groupby("arm")["support"].sum()
    assert (support == N).all() and made["confusion"].groupby("arm")["count"].sum()["video"] == 9 * N


def test_a_fold_without_a_class_says_nothing_about_it():
    folds, cases = folded(outcomes({"video": 2}))
    folds.labels[cases[0] & (LABELS == 4)] = 3
    made = make_tables(study(folds=3), {"starts": folds})
    found = made["per_class"].iloc[4]
    recalls = [np.mean(run[case & (folds.labels == 4)] == 4) for run in folds.by_seed("video")[0] for case in cases[1:]]
    assert found["recall"] == pytest.approx(np.mean(recalls)) and found["recall_low"] < found["recall"]
    assert made["curves"]["y"].notna().all()


# --- Runs ---------------------------------------------------------------------------------------------------
def test_arms_that_no_plan_names_are_baselines():
    made = make_tables(study(), {"starts": outcomes({"video": 3, "most frequent class": 1, "size alone": 2})})
    assert list(made["baselines"]["arm"]) == ["most frequent class", "size alone"]
    assert (made["baselines"]["kappa_low"] < made["baselines"]["kappa"]).all()
    assert tuple(made["cost"].iloc[0]) == ("starts", 3, 6, pytest.approx(30 / 3600), "some CPU")
    assert list(made["arms"]["arm"]) == ["video"] and "most frequent class" not in set(made["per_class"]["arm"])


def videos(right, size):
    """Two seeds that hold out other videos, of two classes in groups of five; so many of ten right, in each seed."""
    truth = np.arange(20) % 2
    chances = np.full((4, 20, 2), np.nan, np.float16)
    for number, correct in enumerate((right, right, size, size)):
        case = np.arange(10) + 10 * (number % 2)
        named = np.where(np.arange(10) < correct, truth[case], 1 - truth[case])
        chances[number, case] = np.eye(2)[named]
    runs = pd.DataFrame([run(name, seed) for name in ("video", SIZE) for seed in range(2)])
    names = np.array([f"v{i:02d}" for i in range(20)])
    return Outcomes(names, np.array([f"g{i % 4}" for i in range(20)]), truth, ("x", "y"), runs, chances, True)


@pytest.mark.parametrize("right, size, learned", [(10, 5, True), (5, 4, False), (9, 10, False)])
def test_a_source_is_learned_above_chance_and_above_what_the_size_of_the_picture_tells(right, size, learned):
    settings = {"sources": {"mine": {"dataset": "actions"}}, "gate": True}
    made = make_tables(study(**settings), everything() | {"source-mine": videos(right, size)})
    found = made["sources"].iloc[0]
    assert tuple(found[["source", "arm", "classes", "seeds", "n", "groups"]]) == ("mine", "video", 2, 2, 20, 4)
    assert tuple(found[["accuracy", "chance", "size_accuracy", "learned"]]) == (right / 10, 0.5, size / 10, learned)
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert row(made["contrasts"], family="primary")["verdict"] == ("helps" if learned else "")
    assert row(made["contrasts"], family="starts", arm="image")["verdict"] == "undecided"
    # two runs and their two rates; the baseline costs nothing
    assert tuple(row(made["cost"], experiment="pretraining"))[1:4] == (2, 4, pytest.approx(20 / 3600))


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
    for name in ("sources", "missing", "arms", "notes"):
        (tmp_path / f"{name}.csv").write_text("arm,p\nvideo,0.5\n")
    found = differences(tmp_path, {name: tables[name] for name in ("arms", "cost", "sources")})
    assert found[0].startswith("arms.csv: DataFrame are different")
    assert found[1:] == ["cost.csv: there is no such file", "sources.csv: follows from no predictions"]
    write_tables(tmp_path, tables)
    assert differences(tmp_path, tables) == [] and not (tmp_path / "missing.csv").exists()
    assert (tmp_path / "notes.csv").exists()  # nothing else is deleted
