"""Predictions of scans + a label table -> rows like those of a run, so that `results.Summary` scores them alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core.constants import TB_CLASSES
from viptt_core.datasets.folders import IMAGECLEF_COLUMNS
from viptt_core.datasets.labels import Columns, Table, classes_of_labels, join, read_table
from viptt_core.errors import DataError, counted, listed, raise_faults
from viptt_core.results import probability_column

LABEL_COLUMNS = ("Label", IMAGECLEF_COLUMNS.label)  # looked for in this order
MODEL_COLUMN = "weights"  # of the file that `viptt submit` keeps: which model a row is of
MOST_OFF = 1e-3  # by which probabilities, rounded as they are written, may miss a sum of 1
REMEDY = "Give the file that `viptt predict -o` wrote."
LEFT_OUT = {
    "failed": "could not be read and left out of the scores",
    "unlabelled": "without a label and left out of the scores",
    "unpredicted": "with a label but not predicted",
}


@dataclass(frozen=True)
class Labelled:
    """Predictions that have a label, and what is left out of the scores."""

    #: As `results.Run.predictions`, with arm, part ("test"), name, group (the patient, else the scan), label, then one
    #: probability column a class.
    rows: pd.DataFrame = field(repr=False)
    left_out: dict[str, list[str]]  #: names of scans, or rows of the label table, by the keys of LEFT_OUT

    def report(self) -> str:
        """How many scans are scored, and which are not, a line each."""
        patients = self.rows["group"].nunique()
        of_patients = f", of {counted(patients, 'patient')}" if patients < len(self.rows) else ""
        left_out = [f"{counted(len(n), 'scan')} {LEFT_OUT[why]}: {listed(n)}" for why, n in self.left_out.items() if n]
        return "\n".join([f"{counted(len(self.rows), 'scan')} scored{of_patients}", *left_out])


def read_labels(
    path: str | PathLike, *, file_column: str = "", label_column: str = "", patient_column: str = ""
) -> Table:
    """Read a CSV with a row a scan, see `labels.read_table`; what is wrong with it is told when it is joined.

    Columns are of file names or paths ("" for FileName), of labels ("" for the one of LABEL_COLUMNS that is there), and
    of patients, over whom intervals then are ("" for each scan its own).
    """
    tables = [
        read_table(Path(path).expanduser(), Columns(file_column or IMAGECLEF_COLUMNS.file, label, patient_column))
        for label in ([label_column] if label_column else LABEL_COLUMNS)
    ]
    return next((table for table in tables if "missing column" not in {f.kind for f in table.faults}), tables[0])


def read_predictions(path: str | PathLike) -> dict[str, pd.DataFrame]:
    """Read what `viptt predict -o` or `viptt submit` wrote: one table a model, by the name of its arm.

    Raises:
        DataError: there is no such file, it is none of these, a model has a scan twice, or a row holds neither an
            error nor probabilities that sum to 1 and are largest for the class it names.
    """
    path = Path(path)
    try:
        # As text: a scan or an error may be called "NA".
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        if lacking := [name for name in ("scan", "class", "entropy_bits", "error") if name not in table]:
            raise ValueError(f"it lacks the columns {', '.join(lacking)}")
        if table.empty:
            raise ValueError("there is no row below its header")
        names = classes_of(table)
        table[names] = table[names].apply(pd.to_numeric, errors="coerce")
        values = table[names].to_numpy(dtype=float)
        largest = (values == values.max(axis=1, keepdims=True, initial=0)) & (table[["class"]].to_numpy() == names)
        sound = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) <= MOST_OFF) & largest.any(axis=1)
        faulty = (table["scan"] == "") | ((table["error"] == "") & ~(sound & (len(names) > 1)))
        if faulty.any():
            what = "no scan with an error, or with probabilities that sum to 1 and are largest for its class"
            raise ValueError(f"line {faulty.argmax() + 2} holds {what}")
    except (OSError, ValueError) as error:
        kind = "missing file" if isinstance(error, FileNotFoundError) else ""
        raise DataError(f"holds no predictions: {error}.", path=path, remedy=REMEDY, kind=kind) from error
    models = dict(list(table.groupby(MODEL_COLUMN, sort=False))) if MODEL_COLUMN in table else {"predicted": table}
    for rows in models.values():
        _check_once(rows["scan"], path)
    return models


def classes_of(predictions: pd.DataFrame) -> list[str]:
    """Names of the probability columns of a table of `predictions.Predictions`."""
    columns = list(predictions.columns)
    return columns[columns.index("class") + 1 : columns.index("entropy_bits")]


def join_labels(
    scans: Sequence[str], class_names: Sequence[str], table: Table
) -> tuple[dict[str, tuple[int, str]], list[str]]:
    """Join scans to labels on their names or paths, never on their order.

    Args:
        scans: Files, as they were named.
        class_names: Of the model that is asked about them.
        table: See `read_labels`. Labels are names of classes, or numbers 1..5 for the benchmark's five. Its paths may
            begin at any folder above the scans: where most rows are found.

    Returns:
        Index of the class and patient ("" without that column) by scan, of those that have a label; and the rows of
        the table that name none of the scans.

    Raises:
        DataError: the table has faults, a label is unknown, a row means two scans, or a scan is named twice.
    """
    _check_once(scans)
    known = {name: name for name in class_names}
    if tuple(class_names) == TB_CLASSES and any(row.label[:1].isdigit() for row in table.rows):
        known = {str(k): name for k, name in enumerate(TB_CLASSES, 1)}
    files = {Path(os.path.abspath(scan)): scan for scan in scans}
    nearest = Path(os.path.commonpath([path.parent for path in files]))
    joined, faults = join(table, list(files), nearest)
    class_of, _, of_labels = classes_of_labels(table, known)
    raise_faults([fault for fault in (*table.faults, *of_labels, *faults) if fault.level == "set"], table.path.parent)
    unpredicted = [fault.where for fault in faults if fault.kind == "missing file"]
    index = {label: class_names.index(name) for label, name in class_of.items()}
    return {files[path]: (index[row.label], row.group) for path, row in joined.items()}, unpredicted


def match_labels(predictions: pd.DataFrame, table: Table, *, arm: str = "predicted") -> Labelled:
    """Predictions of one model (arm), as `scans.Predictions.table` gives them, beside the labels of their scans.

    A DataError: see `join_labels`; or no scan is left to score.
    """
    class_names = classes_of(predictions)
    labels, unpredicted = join_labels(predictions["scan"].tolist(), class_names, table)
    failed, has_label = predictions["error"].ne(""), predictions["scan"].isin(list(labels))
    rows = predictions[~failed & has_label].reset_index(drop=True)
    if rows.empty:
        what = f"no scan is left to score: {failed.sum()} of {len(failed)} could not be read, "
        what += f"{(~failed & ~has_label).sum()} have no label."
        raise DataError(what, path=table.path, remedy="Its rows name scans by file name, or by path.")
    columns = {
        "arm": arm,
        "part": "test",
        "name": rows["scan"],
        "group": [labels[scan][1] or scan for scan in rows["scan"]],
        "label": [labels[scan][0] for scan in rows["scan"]],
    }
    probabilities = rows[class_names].astype(float).rename(columns=probability_column)
    unlabelled = predictions.loc[~failed & ~has_label, "scan"].tolist()
    left_out = {"failed": predictions.loc[failed, "scan"].tolist(), "unlabelled": unlabelled}
    return Labelled(pd.concat([pd.DataFrame(columns), probabilities], axis=1), left_out | {"unpredicted": unpredicted})


def _check_once(scans: Sequence[str], path: Path | None = None) -> None:
    """Raise a DataError that names the scans, and the file at `path` that holds them, unless each is there once."""
    if double := [name for name, count in Counter(map(os.path.abspath, scans)).items() if count > 1]:
        message = f"{counted(len(double), 'scan')} predicted more than once: {listed(double)}."
        raise DataError(message, path=path, remedy="Keep one row a scan.")
