"""Tables of a study against scikit-learn, scipy, hand-worked values and the statistics called directly."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics

from viptt_core.constants import TB_CLASSES
from viptt_core.errors import SettingError
from viptt_core.metrics import GRID, brier_score, calibration_bins, cohen_kappa, curves, expected_calibration_error
from viptt_core.statistics import holm, resample, t_test, two_level_comparison
from viptt_core.study.outcomes import RUN_COLUMNS, Outcomes
from viptt_core.study.plan import parse_study
from viptt_core.study.tables import compare_table, make_tables, write_tables

N, PATIENTS = 150, 60
CASES = np.array([f"case {i:03d}" for i in range(N)])
GROUPS = np.array([f"patient {i % PATIENTS:02d}" for i in range(N)])
LABELS = np.random.default_rng(0).choice(5, size=N, p=[0.4, 0.2, 0.15, 0.15, 0.1])
SKILLS = {"random": 0.5, "image": 0.8, "video": 1.5, "video, 75 scans": 1.0, "image, 75 scans": 0.7}


def two_level(statistic, *arms, **settings):
    return two_level_comparison(statistic, *(resample(LABELS, arm, groups=GROUPS) for arm in arms), **settings)


@pytest.fixture(autouse=True)
def _few_simulations(monkeypatch):
    monkeypatch.setattr("viptt_core.statistics.SIMULATIONS", 200)


def arm(name, experiment, **fields):
    return {"name": name, "experiment": experiment, "start": name.split(",")[0]} | fields


ARMS = [
    arm("random", "starts"),
    arm("image", "starts"),
    arm("video", "starts", seeds=4),
    arm("image, 75 scans", "efficiency", n_train=75),
    arm("video, 75 scans", "efficiency", n_train=75),
]
EFFICIENCY = ["video", "image", "video, 75 scans", "image, 75 scans"]
FAMILIES = [
    {"name": "primary", "question": "Does it help?", "contrasts": [["video", "image"]]},
    {"name": "starts", "question": "Do they?", "contrasts": [["video", "random"], ["image", "random"], EFFICIENCY]},
    {"name": "rare", "question": "Rare ones?", "contrasts": [["video", "random"]], "measure": "rare recall"},
]
PLAN = {
    "about": "",
    "preset": "study",
    "seeds": 3,
    "n_train": 300,
    "scans": {"dataset": "phantom"},
    "videos": {"dataset": "actions"},
    "primary": {"arm": "video", "baseline": "image"},
    "arms": ARMS,
    "families": FAMILIES,
}


def study(**changes):
    return parse_study("mine", PLAN | changes, "mine.toml")


def probabilities(seed, skill, n_classes=5):
    rng = np.random.default_rng(seed)
    scores = np.exp(rng.normal(size=(N, n_classes)) + skill * np.eye(n_classes)[LABELS % n_classes])
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float16)


def run(name, seed, fold=0, **columns):
    row = dict.fromkeys(RUN_COLUMNS) | {"arm": name, "seed": seed, "fold": fold, "learning_rate": 0.001, "n_train": 240}
    row |= {"epochs": 20 if seed == 0 else 30, "best_epoch": 10 + seed, "epoch_limit": 30, "stopped_early": seed != 1}
    row |= {"seconds": 10.0, "peak_memory_mb": 500, "device": "some CPU", "plan": "p"}
    row["finished"] = f"2026-01-01T10:{seed:02d}:10+00:00"
    if name != "random":
        row |= {"pretrain_run": f"{name} {seed}", "pretrain_accuracy": 0.5 + 0.1 * seed}
        row |= {"pretrain_classes": 10, "pretrain_seconds": 30.0}
    return row | columns


def outcomes(arms, order=None, class_names=TB_CLASSES, labels=LABELS):
    """Predictions of arms, {name: seeds}; `order` is that of the cases in the file."""
    order = np.arange(N) if order is None else order
    rows, blocks = [], []
    for name, n_seeds in arms.items():
        for seed in range(n_seeds):
            rows.append(run(name, seed))
            blocks.append(probabilities([*map(ord, name), seed], SKILLS.get(name, 1.0), len(class_names)))
    runs = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    predicted = np.stack(blocks)[:, order]
    return Outcomes(CASES[order], GROUPS[order], labels[order], tuple(class_names), runs, predicted, True)


SHUFFLED = np.random.default_rng(1).permutation(N)


def everything():
    return {
        "starts": outcomes({"video": 4, "random": 3, "image": 3}),
        "efficiency": outcomes({"image, 75 scans": 3, "video, 75 scans": 3}, SHUFFLED),
    }


@pytest.fixture(scope="module")
def tables():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("viptt_core.statistics.SIMULATIONS", 200)
        return make_tables(study(), everything())


def row(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


# Scores of arms


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


def test_arms_stand_in_the_order_of_the_plan(tables):
    assert list(tables["arms"]["arm"]) == ["random", "image", "video", "image, 75 scans", "video, 75 scans"]
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
    arms, contrasts = made["arms"], made["contrasts"]
    assert row(arms, arm="video")["kappa_low"] < row(arms, arm="video")["kappa"] < row(arms, arm="video")["kappa_high"]
    assert np.isnan(row(arms, arm="video")["seed_sd"])
    alone = row(contrasts, family="starts", arm="video")
    assert alone["seeds"] == 1 and np.isnan(alone[["t", "p", "p_holm"]].astype(float)).all()
    other = row(contrasts, family="starts", arm="image")
    assert other["p_holm"] == pytest.approx(min(1, 3 * other["p"]))  # of three planned tests


# Calibration and curves


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
    assert brier_score(y_true, p) == pytest.approx(2 * metrics.brier_score_loss(y_true, p[:, 1]))


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


# Comparisons


def test_a_contrast_is_the_two_level_comparison_over_the_seeds_that_both_have(tables):
    one = everything()["starts"]
    video, image = one.by_seed("video")[0][:3], one.by_seed("image")[0]
    direct = two_level("kappa", video, image)
    found = row(tables["contrasts"], family="primary")
    wanted = (direct.estimate, direct.low, direct.high, direct.t, direct.p, 3)
    assert tuple(found[["difference", "low", "high", "t", "p", "seeds"]]) == wanted
    assert (found["arm"], found["baseline"], found["arm2"], found["baseline2"]) == ("video", "image", "", "")
    rare = two_level("recall", video, one.by_seed("random")[0], classes=[2, 3, 4])
    assert row(tables["contrasts"], family="rare")["high"] == rare.high


def test_a_difference_of_differences_pairs_cases_of_files_in_another_order(tables):
    both = everything()
    back = np.argsort(SHUFFLED)
    few = [both["efficiency"].by_seed(name)[0][:, back] for name in ("video, 75 scans", "image, 75 scans")]
    many = [both["starts"].by_seed(name)[0][:3] for name in ("video", "image")]
    direct = two_level("kappa", *many, *few, weights=(1, -1, -1, 1))
    found = row(tables["contrasts"], arm2="video, 75 scans")
    assert tuple(found[["difference", "low", "high", "p"]]) == (direct.estimate, direct.low, direct.high, direct.p)


def test_p_values_are_corrected_within_their_family(tables):
    for _, rows in tables["contrasts"].groupby("family"):
        np.testing.assert_allclose(rows["p_holm"], holm(rows["p"]))
    assert set(tables["contrasts"].groupby("family").size()) == {1, 3}


def test_missing_arms_are_named_and_their_contrasts_left_out():
    made = make_tables(study(), {"starts": outcomes({"video": 3, "random": 3})})
    assert list(made["missing"]["arm"]) == ["image", "image, 75 scans", "video, 75 scans"]
    assert list(made["contrasts"]["family"]) == ["starts", "rare"]
    found = row(made["contrasts"], family="starts")
    assert found["p_holm"] == pytest.approx(min(1, 3 * found["p"]))  # the plan's three tests, not the one that ran
    assert [name for name, table in make_tables(study(), {}).items() if len(table)] == ["missing"]


def test_arms_tested_on_other_cases_are_not_compared():
    less = everything()["efficiency"]
    less.probabilities[0, 3] = np.nan
    with pytest.raises(SettingError, match="same cases"):
        make_tables(study(), everything() | {"efficiency": less})
    less.probabilities[1] = np.nan
    with pytest.raises(SettingError, match="no case in common"):
        make_tables(study(), everything() | {"efficiency": less})


def test_cases_that_an_arm_did_not_test_do_not_count():
    more = everything()
    more["starts"].probabilities[:4, 7] = np.nan  # the four runs of "video"
    found = make_tables(study(families=[]), more)
    assert row(found["arms"], arm="video")["n"] == N - 1 and row(found["arms"], arm="image")["n"] == N
    assert found["contrasts"].empty


def test_the_factorial_is_attributed_when_it_is_complete():
    names = ["image", "video", "image-unfrozen", "video-unfrozen"]
    plan = study(factors=["unfrozen"], arms=[arm("image", "starts"), arm("video", "starts")], families=[])
    factorial = {"starts": outcomes({"image": 3, "video": 4}), "attribution": outcomes(dict.fromkeys(names[2:], 3))}
    found = make_tables(plan, factorial)["attribution"]
    assert list(found["factor"]) == ["naive gap", "start", "unfrozen"]
    kappa = [
        np.mean([cohen_kappa(LABELS, y) for y in factorial[e].by_seed(name)[0][:3]])
        for name, e in zip(names, ["starts"] * 2 + ["attribution"] * 2, strict=True)
    ]
    assert found["points"][0] == pytest.approx(kappa[3] - kappa[0])
    assert found["points"][1] == pytest.approx((kappa[1] - kappa[0] + kappa[3] - kappa[2]) / 2)
    assert make_tables(plan, {"starts": factorial["starts"]})["attribution"].empty


def test_efficiency_has_the_primary_arms_at_the_number_of_scans_of_the_study(tables):
    found = tables["efficiency"]
    assert list(found["start"]) == ["image", "image", "video", "video"]
    assert list(found["n_train"]) == [75, 300, 75, 300] and list(found["seeds"]) == [3, 3, 3, 4]
    score = row(tables["arms"], arm="video")
    assert tuple(found.iloc[3][["kappa", "low", "high"]]) == tuple(score[["kappa", "kappa_low", "kappa_high"]])


def test_differences_over_folds_are_averaged_over_seeds_and_corrected():
    folds = np.arange(N) % PATIENTS % 3
    rows, blocks, kappas = [], [], {}
    for name in ("video", "random"):
        for seed in range(2):
            whole = probabilities([len(name), seed], SKILLS[name])
            for fold in range(3):
                rows.append(run(name, seed, fold, n_train=80))
                blocks.append(np.where((folds == fold)[:, None], whole, np.nan))
                kappas[name, seed, fold] = cohen_kappa(LABELS[folds == fold], whole.argmax(axis=1)[folds == fold])
    shuffled = np.random.default_rng(2).permutation(len(rows))
    runs = pd.DataFrame(rows)[list(RUN_COLUMNS)].iloc[shuffled]
    folded = Outcomes(CASES, GROUPS, LABELS, TB_CLASSES, runs, np.stack(blocks)[shuffled].astype(np.float16), True)
    made = make_tables(study(folds=3), {"starts": folded})
    differences = [np.mean([kappas["video", s, f] - kappas["random", s, f] for s in range(2)]) for f in range(3)]
    expected = t_test(differences, overlap=N / 3 / 80)
    found = row(made["folds"], arm="video", baseline="random")
    assert tuple(found[["difference", "low", "high", "p"]]) == pytest.approx(
        (expected.estimate, expected.low, expected.high, expected.p)
    )
    assert row(made["arms"], arm="video")["n"] == N and row(made["arms"], arm="video")["seeds"] == 2
    assert make_tables(study(), {"starts": folded})["folds"].empty


def test_arms_that_no_plan_names_are_baselines():
    made = make_tables(study(), {"starts": outcomes({"video": 3, "most frequent class": 1, "size alone": 2})})
    assert list(made["baselines"]["arm"]) == ["most frequent class", "size alone"]
    assert row(made["cost"], experiment="starts")["runs"] == 3
    assert list(made["arms"]["arm"]) == ["video"] and "most frequent class" not in set(made["per_class"]["arm"])
    assert (made["baselines"]["auc_low"] < made["baselines"]["auc"]).all()
    assert (made["baselines"]["auc"] < made["baselines"]["auc_high"]).all()


# Runs


def test_each_pretraining_counts_once_in_accuracy_and_in_cost():
    shared = everything()
    shared["efficiency"].runs["pretrain_run"] = [
        f"{name.split(',')[0]} {seed}" for name, seed in shared["efficiency"].runs[["arm", "seed"]].to_numpy()
    ]
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
    last = shared["starts"].runs["seed"].max()  # one run a minute, the first from 10:00:00
    assert starts["wall_hours"] == pytest.approx((60 * last + 10) / 3600)


# Files


def differences(folder, tables):
    return [found for name, table in tables.items() if (found := compare_table(folder / f"{name}.csv", table))]


def test_written_tables_are_found_identical_and_are_the_same_bytes_again(tables, tmp_path):
    paths = write_tables(tmp_path / "results", tables)
    assert [path.stem for path in paths] == [name for name, table in tables.items() if len(table)]
    before = [path.read_bytes() for path in paths]
    assert differences(tmp_path / "results", tables) == []
    assert [path.read_bytes() for path in write_tables(tmp_path / "results", tables)] == before


def test_a_changed_cell_is_found_by_table_row_and_column(tables, tmp_path):
    write_tables(tmp_path, tables)
    for table, number, column, value in (
        ("arms", 2, "kappa", 0.5),
        ("arms", 3, "n", 7),
        ("contrasts", 1, "baseline", "image"),
        ("contrasts", 0, "difference", np.nan),
        ("calibration", 0, "accuracy", 0.5),
    ):
        changed = tables[table].copy()
        changed.loc[number, column] = value
        found = compare_table(tmp_path / f"{table}.csv", changed)
        assert found.startswith(f"{table}.csv: ") and f'(column name="{column}")' in found
        assert f"index {number}, first diff" in found


def test_only_more_than_rounding_is_a_difference(tables, tmp_path):
    write_tables(tmp_path, tables)
    arms = tables["arms"]
    assert differences(tmp_path, {"arms": arms.assign(kappa=arms["kappa"] + 5e-10)}) == []
    assert differences(tmp_path, {"arms": arms.assign(kappa=arms["kappa"] + 5e-9)})


def test_a_missing_file_a_surplus_one_and_another_shape_are_differences(tables, tmp_path):
    write_tables(tmp_path, tables)
    (tmp_path / "cost.csv").unlink()
    (tmp_path / "folds.csv").write_text("arm,p\nvideo,0.5\n")
    (tmp_path / "arms.csv").write_text("arm,kappa\nvideo,0.5\n")
    found = differences(tmp_path, tables)
    assert found[0].startswith("arms.csv: DataFrame are different")
    assert found[1:] == ["cost.csv: there is no such file", "folds.csv: follows from no predictions"]


def test_tables_that_are_not_made_any_more_are_deleted_and_nothing_else_is(tables, tmp_path):
    (tmp_path / "missing.csv").write_text("arm\nvideo\n")
    (tmp_path / "notes.csv").write_text("mine\n")
    write_tables(tmp_path, tables)
    assert not (tmp_path / "missing.csv").exists() and (tmp_path / "notes.csv").exists()
