"""Predictions of many runs in one file: complete, the same bytes twice, checked when read."""

import numpy as np
import pandas as pd
import pytest

from viptt_core.errors import DataError
from viptt_core.study.outcomes import RUN_COLUMNS, Outcomes, collect, read_outcomes, read_table, write_outcomes

NAMES = np.array([f"c{i}" for i in range(6)])


def make(arm="a", seed=0, fold=0, cases=range(6), **fields):
    cases = list(cases)
    rng = np.random.default_rng([seed, fold, len(arm)])
    runs = pd.DataFrame([dict.fromkeys(RUN_COLUMNS) | {"arm": arm, "seed": seed, "fold": fold, "seconds": 1.25}])
    settings = {
        "names": NAMES[cases],
        "groups": np.array([f"g{i // 2}" for i in cases]),
        "labels": np.array(cases) % 3,
        "class_names": ("x", "y", "z"),
        "runs": runs[list(RUN_COLUMNS)],
        "probabilities": rng.dirichlet(np.ones(3), (1, len(cases))).astype(np.float16),
        "synthetic": True,
    }
    return Outcomes(**(settings | fields))


def test_what_was_written_is_read_again(tmp_path):
    outcomes = collect([make(seed=0), make(seed=1)])
    path = tmp_path / "deep" / "a.npz"
    write_outcomes(path, outcomes)
    again = read_outcomes(path)
    for name in ("names", "groups", "labels", "probabilities"):
        assert np.array_equal(getattr(again, name), getattr(outcomes, name))
    assert again.class_names == ("x", "y", "z") and again.synthetic and again.runs["seconds"].tolist() == [1.25, 1.25]
    assert again.runs["seed"].tolist() == [0, 1] and again.probabilities.dtype == np.float16
    first = path.read_bytes()
    write_outcomes(path, again)
    assert path.read_bytes() == first


def test_folds_are_put_together_by_seed():
    parts = [make(seed=s, fold=f, cases=range(3 * f, 3 * f + 3)) for s in (1, 0) for f in (1, 0)]
    outcomes = collect(parts)
    assert outcomes.tested.sum(axis=1).tolist() == [3, 3, 3, 3]
    classes, probabilities = outcomes.by_seed("a")
    assert classes.shape == (2, 6) and (classes >= 0).all() and not np.isnan(probabilities).any()
    for part in parts:
        seed = int(part.runs["seed"][0])
        for name, values in zip(part.names, part.probabilities[0], strict=True):
            case = int(np.flatnonzero(outcomes.names == name)[0])
            assert np.array_equal(probabilities[seed, case], values) and classes[seed, case] == values.argmax()


def test_an_arm_that_did_not_run_is_named():
    with pytest.raises(DataError, match="no run of arm 'c'.*viptt study run"):
        make().of_arm("c")


@pytest.mark.parametrize("changed", [{"labels": np.zeros(6, int)}, {"class_names": ("x", "y", "w")}])
def test_runs_that_disagree_about_a_case_are_not_put_together(changed):
    with pytest.raises(DataError, match="differ in classes, or in the label"):
        collect([make(), make("b", **changed)])


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
