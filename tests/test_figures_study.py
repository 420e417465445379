"""Every figure of a study has a text alternative with its numbers, fits a telephone, and may be missing."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from small_study import (
    PLAN,
    TABLES,
    bare_results,
    contrast,
    evidence,
    nodule_results,
    outcomes,
    study_results,
    write_plan,
)

from viptt_core.figures import Picture
from viptt_core.figures import per_class as figures_per_class
from viptt_core.figures import study as figures_study
from viptt_core.figures.viewer import Viewer
from viptt_core.shown import ResultTable
from viptt_core.study.outcomes import write_outcomes
from viptt_core.study.pointing import evidence_tables, write_evidence
from viptt_core.study.report import attribution_table, open_results

WIDEST = 400 / 96  # inches on a telephone, at the 96 pixels an inch that browsers take
SMALLEST = 8  # points


def drawing():
    """All functions of both modules that draw."""
    return {
        name: thing
        for module in (figures_study, figures_per_class)
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", "") == module.__name__
        and name != "picture_of"
        and "Picture" in str(getattr(thing, "__annotations__", {}).get("return"))
    }


@pytest.fixture(scope="module")
def pictures():
    return {
        name: draw(nodule_results() if name == "replication_chart" else study_results())
        for name, draw in drawing().items()
    }


def test_every_picture_says_what_it_shows_and_is_marked_when_synthetic(pictures):
    assert len(pictures) == 13
    for name, picture in pictures.items():
        assert isinstance(picture, Picture), name
        assert len(re.findall(r"\d\.\d\d|\d %|\d%|slice \d", picture.alt)) >= 3, name
        assert picture.alt.endswith("Synthetic data.") == (name != "replication_chart"), name


def test_pictures_can_be_read_on_a_telephone(pictures):
    for name, picture in pictures.items():
        width = picture.figure.get_figwidth()
        texts = picture.figure.findobj(lambda artist: hasattr(artist, "get_fontsize") and artist.get_text().strip())
        assert width <= WIDEST + 0.1 and min(text.get_fontsize() for text in texts) >= SMALLEST, name
        box = picture.figure.get_tightbbox()
        # No words reach beyond it; the blocks of the strip are figures of their own.
        assert name == "evidence_strip" or box.x0 > -0.15 and box.x1 < width + 0.15, name


def test_what_a_study_lacks_is_a_sentence():
    for run in (True, False):
        for name, draw in drawing().items():
            shown = draw(bare_results(run=run))
            assert isinstance(shown, ResultTable) and "study 'own'" in shown.text, name
        assert isinstance(figures_per_class.browse_examples(bare_results(run=run)), ResultTable)


def test_pictures_and_tables_fit_the_tables_that_are_computed(tmp_path):
    arms = [
        ("random", "image-unfrozen", "video-unfrozen"),
        ("image, 75 scans", "video, 75 scans"),
        ("image", "video", "image-rotation", "video-rotation", "image-unfrozen-rotation", "video-unfrozen-rotation"),
    ]
    plan = write_plan(tmp_path, PLAN, name="small")
    for experiment, names in zip(("primary", "efficiency", "attribution"), arms, strict=True):
        # Not the types of TB: their tables simulate what the paper's scans can show, which takes long.
        write_outcomes(tmp_path / "small" / f"{experiment}.npz", outcomes(names, classes=("a", "b", "c")))
    write_evidence(tmp_path / "small" / "evidence.npz", evidence())
    results = open_results(plan, folder=tmp_path)
    for name, draw in drawing().items():
        assert isinstance(draw(results), Picture), name
    lacking = {show.__name__ for show in TABLES if show(results).table is None}
    assert lacking == {"power_table", "folds_table", "verdict"}
    shares = attribution_table(results).table["share of the gap"]
    assert shares[0] == "100 %" and sum(float(share[:-2]) for share in shares[1:]) == pytest.approx(100, abs=2)


def test_seeds_are_joined_and_the_mean_and_interval_are_those_of_the_table():
    results = study_results()
    picture = figures_study.seed_chart(results)
    upper, lower = picture.figure.axes
    pairs = [line for line in upper.lines if list(line.get_ydata()) == [1, 2]]
    base, arm = results.scores("image-unfrozen"), results.scores("video-unfrozen")
    assert sorted(tuple(line.get_xdata()) for line in pairs) == sorted(zip(base, arm, strict=True))
    assert sorted(lower.lines[0].get_xdata()) == pytest.approx(sorted(arm - base))
    assert f"video-unfrozen {arm.min():.2f} to {arm.max():.2f}, mean {arm.mean():.2f}, 4 seeds" in picture.alt
    assert "+0.050 (-0.050 to +0.150)" in picture.alt and "+0.050 (-0.050 to +0.150)" in lower.get_xlabel()


def test_a_mark_is_hollow_where_the_interval_includes_zero():
    rows = pd.DataFrame([contrast("primary", "video-unfrozen", "random", value) for value in (0.3, 0.05, -0.3)])
    axis = figures_study.forest_chart(study_results(tables={"contrasts": rows})).figure.axes[0]
    marks = [line for line in axis.lines if line.get_marker() == "o"]
    assert [to_hex(mark.get_markerfacecolor()) == "#ffffff" for mark in marks] == [False, True, False]
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([0.3, 0.05, -0.3])


def test_a_forest_holds_only_the_families_that_are_asked_for():
    alt = figures_study.forest_chart(study_results(), "label efficiency").alt
    assert "+0.120 (+0.020 to +0.220)" in alt and "-0.30" not in alt
    assert "-0.300 (-0.400 to -0.200)" in figures_study.forest_chart(study_results(), measure="rare recall").alt


def test_the_factorial_shows_each_cell_with_both_starts():
    results = study_results()
    arms = results.tables["arms"]
    arms.loc[arms["arm"] == "video-unfrozen-rotation", "kappa"] = 0.39
    picture = figures_study.factorial_chart(results)
    assert "8 arms" in picture.alt and "start: video: 0.39" in picture.alt
    titles = [axis.get_title(loc="left") for axis in picture.figure.axes]
    assert titles == [figures_study.NONE_ON, "unfrozen", "rotation", "unfrozen + rotation"]
    assert all(len(axis.texts) == 2 for axis in picture.figure.axes)


def test_confusion_shares_are_of_the_true_class():
    results = study_results()
    table = results.tables["confusion"]
    table.loc[(table["arm"] == "random") & (table["true"] == "Focal") & (table["predicted"] == "Miliary"), "count"] = 57
    picture = figures_per_class.confusion_chart(results)
    assert "random: Infiltrative 58%, Focal 28%" in picture.alt  # 28 of 100
    shown = picture.figure.axes[0].collections[0].get_array().reshape(5, 5)
    assert np.allclose(shown.sum(axis=1), 1) and shown[1, 3] == pytest.approx(0.57)


def test_examples_show_the_slices_around_the_finding_and_its_outline():
    picture = figures_per_class.evidence_strip(study_results())
    assert "Infiltrative, predicted Infiltrative: finding in slices 4, most important slice 4" in picture.alt
    assert "Focal, predicted Infiltrative: finding in slices 5, most important slice 5" in picture.alt
    titles = [axis.get_title(loc="center") for axis in picture.figure.subfigs[1].subfigs[0].axes]
    assert [title for title in titles if title] == ["2", "3", "4", "5", "6", "7"]
    for example, column, t in ((0, 3, 3), (1, 3, 4)):
        axes = picture.figure.subfigs[example].subfigs[0].axes
        outlined = [bool(axis.collections) for axis in axes]  # above without, below with Grad-CAM
        assert outlined == [at == column for _ in range(2) for at in range(6)]
        corners = axes[column].collections[0].get_paths()[0].vertices / 2  # the map has 8 x 8 voxels, the slice 16
        rows, columns = np.nonzero(evidence().findings[example, t])
        assert corners.mean(axis=0) == pytest.approx([columns.mean() + 0.5, rows.mean() + 0.5], abs=0.4)


def test_an_example_whose_finding_is_not_on_the_grid_is_left_out():
    made = evidence()
    findings = made.findings.copy()
    findings[0] = False
    results = study_results(evidence=dataclasses.replace(made, findings=findings))
    alt = figures_per_class.evidence_strip(results).alt
    assert "Infiltrative, predicted Infiltrative: finding in slices 5" in alt  # the next one of its class


def test_pointing_stands_beside_chance():
    results = study_results()
    picture = figures_per_class.pointing_chart(results)
    row = evidence_tables(results.evidence).iloc[0]
    assert f"maximum on the finding: occlusion, untrained: {row['observed']:.2f}" in picture.alt
    assert f"chance {row['chance']:.2f}" in picture.alt


def test_errors_come_first_in_the_viewer_and_captions_name_every_prediction():
    viewer = figures_per_class.browse_examples(study_results())
    assert isinstance(viewer, Viewer)
    assert viewer.clips[0].heading == "Focal taken for Infiltrative"  # the one error of the last arm
    assert [clip.heading.endswith(", right") for clip in viewer.clips] == [False] + [True] * 5
    assert "p1, untrained predicts Infiltrative; video predicts Infiltrative" in viewer.clips[0].caption
    assert viewer.clips[0].caption.endswith(", synthetic")
    assert len(viewer.page()) < 100_000
