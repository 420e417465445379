"""Predictions of many runs in one file: complete, the same bytes twice, checked when read."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_study import outcomes

from viptt_core.errors import DataError
from viptt_core.study.outcomes import collect, read_outcomes, read_table, write_outcomes

MADE = outcomes(("a",), n=6, seeds=2, classes=("x", "y", "z"))


def test_what_was_written_is_read_again(tmp_path):
    path = tmp_path / "deep" / "a.npz"
    write_outcomes(path, MADE)
    again, first = read_outcomes(path), path.read_bytes()
    for name in ("names", "groups", "labels", "probabilities"):
        assert np.array_equal(getattr(again, name), getattr(MADE, name))
    assert again.class_names == ("x", "y", "z") and again.synthetic and again.probabilities.dtype == np.float16
    pd.testing.assert_frame_equal(again.runs, MADE.runs, check_dtype=False)
    write_outcomes(path, again)
    assert path.read_bytes() == first


def test_folds_are_put_together_by_seed():
    parts = []
    for seed, fold in ((1, 1), (1, 0), (0, 1), (0, 0)):
        cases = slice(3 * fold, 3 * fold + 3)
        arrays = {name: getattr(MADE, name)[cases] for name in ("names", "groups", "labels")}
        runs = MADE.runs.iloc[[seed]].assign(fold=fold)
        parts.append(replace(MADE, **arrays, runs=runs, probabilities=MADE.probabilities[[seed], cases]))
    collected = collect(parts)
    assert collected.tested.sum(axis=1).tolist() == [3, 3, 3, 3]
    order = np.argsort(collected.names)
    classes, probabilities = collected.by_seed("a")
    assert np.array_equal(probabilities[:, order], MADE.probabilities)
    assert np.array_equal(classes[:, order], MADE.predicted)


def test_an_arm_that_did_not_run_is_named():
    with pytest.raises(DataError, match="no run of arm 'c'.*viptt study run"):
        MADE.of_arm("c")


@pytest.mark.parametrize("changed", [{"labels": np.zeros(6, int)}, {"class_names": ("x", "y", "w")}])
def test_runs_that_disagree_about_a_case_are_not_put_together(changed):
    with pytest.raises(DataError, match="differ in classes, or in the label"):
        collect([MADE, replace(MADE, **changed)])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz.*no predictions"):
        read_outcomes(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["NA", "None", "nan", "1", ""])
def test_names_in_committed_tables_are_read_as_text(tmp_path, name):
    table = pd.DataFrame({"arm": name, "class": [name, name], "true": name, "predicted": name, "f1": [0.5, np.nan]})
    table.to_csv(tmp_path / "per_class.csv", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "per_class.csv"), table, check_dtype=False)
