"""Every figure of a study has a message, a text alternative with its numbers, fits a telephone, and may be missing."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from small_study import NODULES, PLAN, bare_results, contrast, outcomes, study_results, write_plan

from viptt_core.constants import TB_CLASSES
from viptt_core.figures import Picture, claim
from viptt_core.figures import per_class as figures_per_class
from viptt_core.figures import study as figures_study
from viptt_core.figures.viewer import FINDING, Viewer
from viptt_core.shown import ResultTable, arm_label
from viptt_core.study.evidence import FILE, Evidence, write_evidence
from viptt_core.study.outcomes import write_outcomes
from viptt_core.study.plan import load_study
from viptt_core.study.recheck import write_study
from viptt_core.study.report import PARTS, open_results, show_table
from viptt_core.study.verdict import VERDICTS, make_verdicts, verdicts_json

WIDEST = 400 / 96  # inches on a telephone, at the 96 pixels an inch that browsers take
SMALLEST = 8  # points
SCANS = PLAN["scans"] | {"seed": 5}
SMALL = PLAN | {"scans": SCANS, "settings": {"frames": 8, "size": 16}, "seeds": 3}


def drawing():
    """All functions of both modules that draw."""
    return {
        name: thing
        for module in (figures_study, figures_per_class)
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", "") == module.__name__
        and name != "picture_of"
        and re.search("Picture|Viewer", str(getattr(thing, "__annotations__", {}).get("return")))
    }


def evidence() -> Evidence:
    """Findings in the slices 3 and 4 (from 0), on which the second arm's importance lies; the other's lies anywhere."""
    rng, n = np.random.default_rng(1), 20
    labels, findings = np.arange(n) % len(TB_CLASSES), np.zeros((n, 8), bool)
    findings[np.arange(n), 3 + np.arange(n) % 2] = True
    importance = np.stack([rng.random((n, 8)), 0.1 * rng.random((n, 8)) + findings]).astype(np.float16)
    predicted = np.stack([np.zeros(n, int), np.where(np.arange(n) < 2, 0, labels)])
    names = np.array([f"PHA_{i + 1:04d}" for i in range(n)])
    return Evidence(("random", "video"), names, labels, findings, importance, predicted)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of a study that was run as a whole, its tables computed."""
    root = tmp_path_factory.mktemp("figures")
    study = load_study(write_plan(root, SMALL, "small"))
    folder = root / "results" / "small"
    # Not the types of TB: their tables simulate what the paper's scans can show, which takes long.
    for experiment, arms in study.experiments().items():
        arms = [arm.name for arm in arms]
        write_outcomes(folder / f"{experiment}.npz", outcomes(arms, seeds=3, classes=("a", "b", "c")))
    write_outcomes(folder / "source-actions.npz", outcomes(["video"], seeds=3, classes=("x", "y")))
    write_outcomes(folder / "baselines.npz", outcomes(["most frequent class"], seeds=1, classes=("a", "b", "c")))
    write_evidence(folder / FILE, evidence())
    write_study(study, root)
    (folder / "study.json").write_text(json.dumps({"plan": study.digest, "plan_file": "small.toml"}))
    return open_results("small", folder=root)


@pytest.fixture(scope="module")
def pictures(results):
    return {name: draw(results) for name, draw in drawing().items()}


def test_every_picture_says_what_it_shows_and_is_marked_when_synthetic(pictures):
    assert len(pictures) == 13
    for name, picture in pictures.items():
        assert isinstance(picture, Picture), name
        assert isinstance(picture, Viewer) or (len(picture.title) > 10 and "nan" not in picture.title), name
        assert len(re.findall(r"\d\.\d\d|\d %|\d%|slice \d", picture.alt)) >= 1, name
        assert picture.alt.endswith("Synthetic data."), name
    assert "Synthetic" not in figures_study.sources_chart(study_results(NODULES)).alt


def test_every_part_of_the_report_fits_the_tables_that_are_computed(results):
    assert [name for name in PARTS if show_table(results, name).table is None] == ["power", "missing"]


def test_pictures_can_be_read_on_a_telephone(pictures):
    for name, picture in pictures.items():
        width = picture.figure.get_figwidth()
        texts = picture.figure.findobj(lambda artist: hasattr(artist, "get_fontsize") and artist.get_text().strip())
        assert width <= WIDEST + 0.1 and min(text.get_fontsize() for text in texts) >= SMALLEST, name
        box = picture.figure.get_tightbbox()
        assert box.x0 > -0.15 and box.x1 < width + 0.15, name  # no words reach beyond it


def test_what_a_study_lacks_is_a_sentence():
    for name, draw in drawing().items():
        shown = draw(bare_results())
        assert isinstance(shown, ResultTable) and "not run yet" in shown.text, name


def test_seeds_are_joined_and_the_mean_and_interval_are_those_of_the_table(results):
    picture = figures_study.seed_chart(results)
    upper, lower = picture.figure.axes
    pairs = [line for line in upper.lines if list(line.get_ydata()) == [1, 2]]
    base, arm = results.scores("image"), results.scores("video")
    assert sorted(tuple(line.get_xdata()) for line in pairs) == sorted(zip(base, arm, strict=True))
    assert sorted(lower.lines[0].get_xdata()) == pytest.approx(sorted(arm - base))
    assert f"ImageNet + videos {arm.min():.2f} to {arm.max():.2f}, mean {arm.mean():.2f}, 3 seeds" in picture.alt
    assert f"difference +{(arm - base).mean():.3f}" in lower.get_xlabel()
    assert picture.title == "ImageNet + videos against ImageNet only: no verdict"


def test_no_label_lies_between_the_seeds_that_are_joined_and_baselines_stand_above(results):
    table = [
        {"arm": name, "kappa": 0.4, "kappa_low": 0.3, "kappa_high": 0.5} for name in ("most frequent class", "pixels")
    ]
    beside = replace(results, tables=results.tables | {"baselines": pd.DataFrame(table)})
    picture = figures_study.seed_chart(beside)
    upper = picture.figure.axes[0]
    labels = {text.get_text().split(":")[0]: (text.get_position()[1], text.get_va()) for text in upper.texts}
    assert list(labels) == ["pixels", "random weights", "ImageNet only", "ImageNet + videos"]
    assert labels["pixels"][0] < 0 and labels["ImageNet only"] == (2 - 0.27, "bottom")
    assert labels["ImageNet + videos"] == (3 + 0.27, "top") and "pixels 0.40 (0.30 to 0.50)" in picture.alt
    wide = picture.wide.axes[0]
    assert not wide.texts and [label.get_text().split(":")[0] for label in wide.get_yticklabels()] == list(labels)


def test_a_mark_is_hollow_where_the_interval_includes_zero_and_the_title_says_the_level():
    rows = [contrast("primary", ("video", "image"), value, level=0.975) for value in (0.3, 0.05, -0.3)]
    results = study_results(tables={"contrasts": pd.DataFrame([*rows, contrast("other", ("video", "random"), 0.7)])})
    picture = figures_study.forest_chart(results, "primary")
    (axis,) = picture.figure.axes
    marks = [line for line in axis.lines if line.get_marker() == "o"]
    assert [to_hex(mark.get_markerfacecolor()) == "#ffffff" for mark in marks] == [False, True, False]
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([0.3, 0.05, -0.3])
    assert axis.get_title(loc="left") == "primary (kappa)\n97.5 % intervals" and "0.700" not in picture.alt
    assert len(figures_study.forest_chart(results, measure="kappa").figure.axes) == 2


def test_the_attribution_is_that_of_the_frozen_network():
    (axis,) = figures_study.attribution_chart(study_results()).figure.axes
    assert axis.get_title(loc="left") == "Within the frozen network\n98.8 % intervals"


def test_without_all_cells_of_the_factorial_there_is_a_sentence(results):
    rows = results.tables["arms"]
    tables = {"arms": rows[rows["arm"] != "image-rotation"], "attribution": pd.DataFrame()}
    shown = figures_study.attribution_chart(replace(results, tables=results.tables | tables))
    assert "1 of 8 combinations have not run: ImageNet only, rotation." in shown.text


def test_sources_stand_beside_the_better_of_chance_and_size():
    picture = figures_study.sources_chart(study_results(NODULES))
    titles = [axis.get_title(loc="left") for axis in picture.figure.axes]
    assert titles == ["UT, 6 classes", "CCTV fights, 6 classes"]
    assert "ImageNet + UT-Interaction: 0.60 (0.50 to 0.70), chance 0.30" in picture.alt


def test_a_trend_has_a_point_for_no_video(results):
    picture = figures_study.trend_chart(results, "n_videos")
    assert [label.get_text() for label in picture.figure.axes[0].get_xticklabels()] == ["0", "60", "250"]
    assert "ImageNet only: 0 videos" in picture.alt and "scans" not in picture.alt
    assert "75 labelled scans" in figures_study.trend_chart(results).alt
    rows = results.tables["trend"]
    single = replace(results, tables=results.tables | {"trend": rows[rows["n_train"] == 300]})
    assert "only 300 has run" in figures_study.trend_chart(single).text


def test_the_claim_has_a_panel_for_each_study_that_was_run(results, monkeypatch):
    root = results.folder.parents[1]
    monkeypatch.setattr(claim, "PLACES", {"small": ("phantoms", ""), "real": ("CT", "")})
    (root / VERDICTS).write_text(verdicts_json(make_verdicts(results.plan, results.tables, synthetic=True)))
    picture = claim.claim_chart(root)
    row, (published, ours) = results.rows("contrasts", family="primary").iloc[0], picture.figure.axes
    assert published.get_title(loc="left").startswith("As published, validation scans\ngain +0.18")
    said = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}): no verdict"
    assert ours.get_title(loc="left") == f"All else equal, phantoms (synthetic data)\n{said}"
    assert picture.title == "The paper reports a gain of 0.18. With all else equal, we find nothing that decides yet."
    assert f"{arm_label(row['arm'])}: " in picture.alt and f"{row['arm']}: " not in picture.alt
    assert "in 2 panels" in picture.alt and "0.17 (0.08 to 0.27)" in picture.alt
    assert picture.data == ("results/small/arms.csv", "results/small/contrasts.csv")


def test_confusion_shares_are_of_the_true_class():
    results = study_results()
    table = results.tables["confusion"]
    table.loc[(table["arm"] == "random") & (table["true"] == "Focal") & (table["predicted"] == "Miliary"), "count"] = 57
    picture = figures_per_class.confusion_chart(results)
    assert "random weights: Infiltrative 58%, Focal 28%" in picture.alt  # 28 of 100
    shown = picture.figure.axes[0].collections[0].get_array().reshape(5, 5)
    assert np.allclose(shown.sum(axis=1), 1) and shown[1, 3] == pytest.approx(0.57)


def test_the_area_of_each_class_reaches_from_the_lowest_to_the_highest_seed(results):
    areas, row = results.areas("video"), results.rows("per_class", arm="video").iloc[0]
    assert list(areas.index) == [0, 1, 2] and areas[row["class"]].mean() == pytest.approx(row["auc"])
    ends = f"ImageNet + videos: {row['auc']:.2f} ({areas['a'].min():.2f} to {areas['a'].max():.2f}), chance 0.50"
    assert ends in figures_per_class.auc_chart(results).alt


def test_examples_are_errors_first_with_the_slices_of_the_finding_marked(results):
    picture = figures_per_class.importance_chart(results)
    assert "Infiltrative, predicted Infiltrative: finding in slices 4, most important slice 4" in picture.alt
    assert "Focal, predicted Infiltrative: finding in slices 5, most important slice 5" in picture.alt
    assert len(picture.figure.axes) == len(TB_CLASSES)
    blue = [to_hex(bar.get_facecolor()).upper() == "#56B4E9" for bar in picture.figure.axes[0].patches]
    assert [t for t, found in enumerate(blue) if found] == [3]


def test_the_viewer_pages_through_the_same_phantoms_simulated_again(results):
    viewer = figures_per_class.browse_examples(results)
    assert isinstance(viewer, Viewer) and [clip.heading for clip in viewer.clips] == list(TB_CLASSES)
    assert (
        viewer.clips[1].caption
        == "Focal, PHA_0002, random weights predicts Infiltrative; ImageNet + videos predicts Infiltrative, synthetic"
    )
    assert viewer.clips[0].frames.shape == viewer.clips[0].overlays[FINDING].shape == (8, 16, 16)


def test_evidence_stands_beside_chance(results):
    picture, row = figures_per_class.evidence_chart(results), results.rows("evidence", arm="video").iloc[0]
    assert f"ImageNet + videos: {row['observed']:.2f}" in picture.alt and f"chance {row['chance']:.2f}" in picture.alt
    assert row["gain_low"] > 0 > results.rows("evidence", arm="random")["gain_low"].max()
