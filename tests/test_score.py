"""Predictions and labels: joined by name, and scored as a run is."""

import numpy as np
import pandas as pd
import pytest

from viptt_core.cli import main
from viptt_core.constants import TB_CLASSES
from viptt_core.errors import DataError
from viptt_core.metrics import accuracy, bootstrap_ci, cohen_kappa
from viptt_core.prediction.score import match_labels, read_labels, read_predictions
from viptt_core.results import Summary, class_names_of, predicted_classes

ILL_WELL = ("ill", "well")


def labelled(*tables, **settings):
    """The rows that are scored."""
    return match_labels(*tables, **settings).rows


def predictions(scans, classes, names=ILL_WELL, failed=()):
    """As `viptt predict -o` writes them; the class of each scan has 0.6."""
    rows = np.full((len(scans), len(names)), 0.4 / (len(names) - 1))
    rows[np.arange(len(scans)), classes] = 0.6
    table = pd.DataFrame(rows, columns=list(names))
    table.insert(0, "class", [names[k] for k in classes])
    table.insert(0, "scan", list(scans))
    table = table.assign(entropy_bits=1.0, warnings="", error="", notice="Research use only")
    bad = table["scan"].isin(list(failed))
    table.loc[bad, [*names, "entropy_bits"]] = np.nan
    table.loc[bad, ["class", "error"]] = ["", "is truncated."]
    return table


@pytest.fixture
def labels(tmp_path):
    def write(*rows, header="FileName,Label", **columns):
        (tmp_path / "labels.csv").write_text("\n".join([header, *rows, ""]))
        return read_labels(tmp_path / "labels.csv", **columns)

    return write


def test_labels_are_joined_by_name_and_never_by_order(labels):
    table = labels("c,ill", "a.nii.gz,well", "ct/b.nii.gz,ill")
    found = labelled(predictions(["ct/a.nii.gz", "ct/b.nii.gz", "ct/c.nii.gz"], [0, 0, 1]), table, arm="one")
    assert found["name"].tolist() == ["ct/a.nii.gz", "ct/b.nii.gz", "ct/c.nii.gz"]
    assert found["label"].tolist() == [1, 0, 0]
    assert class_names_of(found) == ["ill", "well"] and predicted_classes(found).tolist() == [0, 0, 1]
    assert set(found["arm"]) == {"one"} and set(found["part"]) == {"test"}
    assert found["group"].tolist() == found["name"].tolist()


def test_equal_names_are_told_apart_by_paths_that_begin_at_any_folder_above(labels, tmp_path):
    scans = [str(tmp_path / "set" / folder / "scan.nii.gz") for folder in ("p1", "p2")]
    for above in ("", "set/"):
        table = labels(f"{above}p1/scan.nii.gz,ill", f"{above}p2/scan,well")
        assert labelled(predictions(scans, [0, 0]), table)["label"].tolist() == [0, 1]
    with pytest.raises(DataError, match="2 files are named so"):
        labelled(predictions(scans, [0, 0]), labels("scan.nii.gz,ill"))


def test_numbers_are_the_five_types_only_for_a_model_that_tells_them(labels):
    scans = ["a.nii.gz", "b.nii.gz"]
    table = labels("a.nii.gz,5", "b.nii.gz,1", header="FileName,TypeOfTB")
    assert labelled(predictions(scans, [0, 1], TB_CLASSES), table)["label"].tolist() == [4, 0]
    with pytest.raises(DataError, match="unknown label '5'"):
        labelled(predictions(scans, [0, 1]), table)
    assert labelled(predictions(scans, [0, 1], ("1", "5")), table)["label"].tolist() == [1, 0]
    named = labels("a.nii.gz,Focal", "b.nii.gz,Miliary")
    assert labelled(predictions(scans, [0, 1], TB_CLASSES), named)["label"].tolist() == [1, 3]


def test_a_faulty_table_and_a_scan_predicted_twice_are_refused(labels):
    with pytest.raises(DataError, match=r"labels.csv: .*'b.nii.gz' has no label \(line 3"):
        labelled(predictions(["a.nii.gz", "b.nii.gz"], [0, 1], TB_CLASSES), labels("a.nii.gz,Focal", "b.nii.gz,n/a"))
    with pytest.raises(DataError, match="predicted more than once"):
        labelled(predictions(["a.nii.gz", "./a.nii.gz"], [0, 1]), labels("a.nii.gz,ill"))


def test_what_is_left_out_is_told(labels):
    scans = [f"{letter}.nii.gz" for letter in "abcd"]
    table = labels("a.nii.gz,ill", "b.nii.gz,well", "c.nii.gz,well", "e.nii.gz,ill")
    found = match_labels(predictions(scans, [0, 1, 0, 0], failed=["b.nii.gz"]), table)
    assert found.rows["name"].tolist() == ["a.nii.gz", "c.nii.gz"]
    assert found.rows[["p(ill)", "p(well)"]].notna().all(axis=None)
    assert found.left_out == {"failed": ["b.nii.gz"], "unlabelled": ["d.nii.gz"], "unpredicted": ["e.nii.gz"]}
    assert found.report().splitlines() == [
        "2 scans scored",
        "1 scan could not be read and left out of the scores: b.nii.gz",
        "1 scan without a label and left out of the scores: d.nii.gz",
        "1 scan with a label but not predicted: e.nii.gz",
    ]


def test_scores_are_those_of_the_metrics_with_intervals_over_patients(labels):
    rng = np.random.default_rng(0)
    scans = [f"s{i:02d}.nii.gz" for i in range(40)]
    true, said = rng.integers(0, 2, 40), rng.integers(0, 2, 40)
    patients = [f"p{i // 4}" for i in range(40)]
    rows = [f"{s},{ILL_WELL[k]},{p}" for s, k, p in zip(scans, true, patients, strict=True)]
    table = labels(*rows, header="FileName,Label,patient", patient_column="patient")
    found = match_labels(predictions(scans, said), table)
    assert found.report() == "40 scans scored, of 10 patients"
    row = Summary(found.rows).table.iloc[0]
    assert row["kappa"] == cohen_kappa(true, said) and row["accuracy"] == accuracy(true, said)
    expected = bootstrap_ci(cohen_kappa, true, said, groups=patients)
    assert (row["kappa_low"], row["kappa_high"]) == expected != bootstrap_ci(cohen_kappa, true, said)


def test_predictions_of_several_models_are_kept_apart(tmp_path):
    a, b = (predictions(["a.nii.gz", "b.nii.gz"], k, failed=["b.nii.gz"]) for k in ([0, 0], [1, 0]))
    pd.concat([a.assign(weights="one"), b.assign(weights="NA")]).to_csv(tmp_path / "p.csv", index=False)
    found = read_predictions(tmp_path / "p.csv")
    assert {name: rows["class"].tolist() for name, rows in found.items()} == {"one": ["ill", ""], "NA": ["well", ""]}


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.drop(columns="error"), "lacks the columns error"),
        (lambda t: t.assign(ill=1.5), "line 2 holds no scan"),
        (lambda t: t.assign(scan=""), "line 2 holds no scan"),
        (lambda t: t[:0], "no row below its header"),
        (lambda t: t.assign(ill=0.6, well=0.6), "line 2 holds no scan"),
        (lambda t: t.assign(**{"class": "well"}), "line 2 holds no scan"),
        (lambda t: t.drop(columns="ill"), "line 2 holds no scan"),
        (lambda t: pd.concat([t, t.assign(scan="./a.nii.gz")]), "p.csv: 1 scan predicted more than once: .*a.nii.gz"),
    ],
)
def test_a_table_that_holds_no_predictions_is_refused(tmp_path, change, words):
    change(predictions(["a.nii.gz"], [0])).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(DataError, match=words):
        read_predictions(tmp_path / "p.csv")


@pytest.mark.parametrize("error", ["NA", "null"])
def test_an_error_is_an_error_whatever_its_words(tmp_path, labels, error):
    table = predictions(["NA", "b.nii.gz"], [0, 1], failed=["NA"]).replace({"error": {"is truncated.": error}})
    table.to_csv(tmp_path / "p.csv", index=False)
    (read,) = read_predictions(tmp_path / "p.csv").values()
    assert read["scan"].tolist() == ["NA", "b.nii.gz"] and read["error"].tolist() == [error, ""]
    assert match_labels(read, labels("NA,ill", "b,well")).left_out["failed"] == ["NA"]


def test_probabilities_rounded_as_they_are_written_are_taken(tmp_path):
    names, rows = list("abcde"), np.random.default_rng(0).dirichlet(np.ones(5), 50)
    table = predictions([f"{n}.nii.gz" for n in range(50)], rows.argmax(axis=1), names)
    table[names] = rows.round(6)
    table.to_csv(tmp_path / "p.csv", index=False)
    np.testing.assert_array_equal(read_predictions(tmp_path / "p.csv")["predicted"][names], rows.round(6))


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00\x01,2\n", b'{"scans": []}\n'])
def test_what_is_no_table_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(DataError, match="p.csv: holds no predictions: .* Give the file that `viptt predict"):
        read_predictions(tmp_path / "p.csv")


def test_the_command_prints_scores_and_what_is_left_out(tmp_path, labels, capsys):
    labels("a,ill,p1", "b,well,p1", "c,well,p2", header="FileName,dx,who")
    scans = ["a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz"]
    predictions(scans, [0, 1, 1, 0], failed=["c.nii.gz"]).to_csv(tmp_path / "p.csv", index=False)
    files = [str(tmp_path / name) for name in ("p.csv", "labels.csv")]
    arguments = ["score", *files, "--label-column", "dx", "--patient-column", "who"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 scans scored, of 1 patient\n1 scan could not be read") and "1.000" in printed
    assert "ynthetic" not in printed
    (tmp_path / "phantom.json").write_text("{}")  # scores of phantoms are marked
    assert main(arguments) == 0
    assert "Synthetic data: this says nothing about patients." in capsys.readouterr().out
