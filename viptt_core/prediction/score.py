"""Predictions of scans + a label table -> rows like those of a run, so that `results.Summary` scores them alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from viptt_core.constants import TB_CLASSES
from viptt_core.datasets.labels import Columns, Table, join, read_table
from viptt_core.datasets.listing import Listing
from viptt_core.datasets.scans import IMAGECLEF_COLUMNS
from viptt_core.errors import DataError
from viptt_core.prediction.card import RESEARCH_ONLY
from viptt_core.prediction.weights import Weights, weights_name
from viptt_core.results import probability_column

LABEL_COLUMNS = ("Label", IMAGECLEF_COLUMNS.label)  # looked for in this order
MODEL_COLUMN = "weights"  # of the file that `viptt submit` keeps: which model a row is of
LISTED = 10  # scans that a report names before it only counts
REMEDY = "Give the file that `viptt predict --csv` wrote."


@dataclass(frozen=True)
class Labelled:
    """Predictions that have a label, and what is left out of the scores.

    Attributes:
        rows: As `results.Run.predictions`: arm, part ("test"), name, group (the patient, else the scan), label, then
            one probability column a class.
        failed: Scans that could not be read.
        unlabelled: Scans that were read and have no row in the table.
        unpredicted: Rows of the table whose scan was not predicted.
    """

    rows: pd.DataFrame = field(repr=False)
    failed: tuple[str, ...]
    unlabelled: tuple[str, ...]
    unpredicted: tuple[str, ...]

    def report(self) -> str:
        """How many scans are scored, and which are not, a line each."""
        n, patients = len(self.rows), self.rows["group"].nunique()
        lines = [f"{_scans(n)} scored{f', of {patients} patient' + 's' * (patients > 1) if patients < n else ''}"]
        for names, why in (
            (self.failed, "could not be read and left out of the scores"),
            (self.unlabelled, "without a label and left out of the scores"),
            (self.unpredicted, "with a label but not predicted"),
        ):
            if names:
                more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
                lines.append(f"{_scans(len(names))} {why}: {', '.join(names[:LISTED])}{more}")
        return "\n".join(lines)


def read_labels(
    path: str | PathLike, *, file_column: str = "", label_column: str = "", patient_column: str = ""
) -> Table:
    """Read a label table, see `labels.read_table`; what is wrong with it is told when it is joined.

    Args:
        path: The CSV.
        file_column: Names the scan by its file name or path; "" for FileName.
        label_column: "" for the one of LABEL_COLUMNS that is there.
        patient_column: Intervals are then over patients; "" for each scan its own.

    Raises:
        DataError: there is no such file.
    """
    tables = [
        read_table(Path(path).expanduser(), Columns(file_column or IMAGECLEF_COLUMNS.file, label, patient_column))
        for label in ([label_column] if label_column else LABEL_COLUMNS)
    ]
    return next((table for table in tables if "missing column" not in {f.kind for f in table.faults}), tables[0])


def read_predictions(path: str | PathLike) -> dict[str, pd.DataFrame]:
    """Read what `viptt predict --csv` or `viptt submit` wrote: one table a model, by the name of its arm.

    Raises:
        DataError: there is no such file, or it is none of these.
    """
    path = Path(path)
    texts = ["scan", "class", "warnings", "error", MODEL_COLUMN]
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(texts, str), encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError("no such file.", path=path, remedy=REMEDY, kind="missing file") from error
    except (OSError, ValueError) as error:
        raise DataError(f"holds no predictions ({error}).", path=path, remedy=REMEDY) from error
    lacking = [name for name in ("scan", "class", "entropy_bits", "error") if name not in table]
    if lacking:
        raise DataError(f"holds no predictions: it lacks the columns {', '.join(lacking)}.", path=path, remedy=REMEDY)
    table = table.fillna(dict.fromkeys([name for name in texts if name in table], ""))
    names = classes_of(table)
    values = table.loc[table["error"] == "", names].apply(pd.to_numeric, errors="coerce").to_numpy()
    if len(names) < 2 or not table["scan"].all() or not ((values >= 0) & (values <= 1)).all():
        raise DataError("holds rows that are no probabilities of a scan, and no error.", path=path, remedy=REMEDY)
    if MODEL_COLUMN not in table:
        return {"predicted": table}
    of_model = dict(list(table.groupby(MODEL_COLUMN, sort=False)))
    return dict(zip(model_names([Path(file) for file in of_model]), of_model.values(), strict=True))


def model_names(files: Sequence[Path]) -> list[str]:
    """Names of weights by their files, or by their runs; numbered where these do not differ."""
    names = [weights_name(file) for file in files]
    return names if len(set(names)) == len(names) else [f"{n} {name}" for n, name in enumerate(names, 1)]


def classes_of(predictions: pd.DataFrame) -> list[str]:
    """Names of the probability columns of a table of `predictions.Predictions`."""
    columns = list(predictions.columns)
    return columns[columns.index("class") + 1 : columns.index("entropy_bits")]


def match_labels(predictions: pd.DataFrame, table: Table, *, arm: str = "predicted") -> Labelled:
    """Join predictions to labels on the scans' names or paths, never on their order.

    Args:
        predictions: As `predictions.Predictions.table` gives them; rows with an error are left out.
        table: See `read_labels`. Labels are names of classes, or numbers 1..5 for the benchmark's five.
        arm: Name of the model, in the rows.

    Raises:
        DataError: the table has faults, a label is unknown, a row of it means two scans, a scan is predicted
            twice, or none is left to score.
    """
    names, class_names = predictions["scan"].tolist(), classes_of(predictions)
    if double := [name for name, count in Counter(map(os.path.abspath, names)).items() if count > 1]:
        raise DataError(
            f"{_scans(len(double))} predicted more than once: {', '.join(double[:LISTED])}.",
            remedy="Keep one row a scan.",
        )
    known = known_labels(class_names, [label for _, label, _ in table.rows])
    joined, faults = _joined(table, [Path(name) for name in names], known)
    stopping = tuple(fault for fault in (*table.faults, *faults) if fault.level == "set")
    Listing("labels", table.path.parent, "scan", (), tuple(class_names), faults=stopping).left_out("skip")
    label_of = {str(path): (label, patient) for path, label, patient in joined}
    failed = predictions["error"].ne("").to_numpy()
    has_label = np.array([str(Path(name)) in label_of for name in names])
    rows = predictions[~failed & has_label]
    if rows.empty:
        what = f"no scan is left to score: {failed.sum()} of {len(names)} could not be read, "
        raise DataError(
            f"{what}{(~failed & ~has_label).sum()} have no label.",
            path=table.path,
            remedy="Its rows name scans by file name, or by path.",
        )
    found = [label_of[str(Path(name))] for name in rows["scan"]]
    scored = pd.DataFrame(
        {
            "arm": arm,
            "part": "test",
            "name": rows["scan"].to_numpy(),
            "group": [patient or name for (_, patient), name in zip(found, rows["scan"], strict=True)],
            "label": [label for label, _ in found],
        }
    )
    return Labelled(
        pd.concat(
            [scored, rows[class_names].astype(float).reset_index(drop=True).rename(columns=probability_column)], axis=1
        ),
        failed=tuple(predictions.loc[failed, "scan"]),
        unlabelled=tuple(predictions.loc[~failed & ~has_label, "scan"]),
        unpredicted=tuple(fault.where for fault in faults if fault.kind == "missing file"),
    )


def known_labels(class_names: Sequence[str], labels: Sequence[str]) -> dict[str, int]:
    """Label as written -> index of the class; numbers mean the benchmark's five classes, counted from 1."""
    written = [label for label in labels if label]
    if tuple(class_names) == TB_CLASSES and written and all(label.isdecimal() for label in written):
        return {str(k): k - 1 for k in range(1, len(TB_CLASSES) + 1)}
    return {name: k for k, name in enumerate(class_names)}


def _joined(table: Table, files: list[Path], known: dict[str, int]):
    """See `labels.join`; paths in the table may begin at any folder above the scans: where most rows are found."""
    files_at = {Path(os.path.abspath(path)): path for path in files}
    nearest = Path(os.path.commonpath([path.parent for path in files_at]))
    joined, faults = max(
        (join(table, list(files_at), root, known) for root in (nearest, *nearest.parents)),
        key=lambda found: len(found[0]),
    )
    return [(files_at[path], label, patient) for path, label, patient in joined], faults


def _scans(count: int) -> str:
    return "1 scan" if count == 1 else f"{count} scans"


# --- What models say about scans, as a table, as JSON and as text; with it how far it can be trusted ---


INTERRUPTED = "not predicted: the work was interrupted."


@dataclass(frozen=True)
class Predictions:
    """What models say about scans.

    Attributes:
        names: The N scans as they were named.
        weights: The M models.
        probabilities: float64 [M, N, K]; nan for a scan that could not be read.
        warnings: Of each scan: how it is unlike what the models were trained on.
        errors: Of each scan: why it could not be read; "" for all others.
        notes: About the models, whatever the scan.
    """

    names: tuple[str, ...]
    weights: tuple[Weights, ...] = field(repr=False)
    probabilities: np.ndarray = field(repr=False)
    warnings: tuple[tuple[str, ...], ...] = field(repr=False)
    errors: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.weights[0].classes

    @property
    def failed(self) -> np.ndarray:
        """Scans that could not be read, bool [N]."""
        return np.array([bool(error) for error in self.errors])

    @property
    def interrupted(self) -> bool:
        """Whether the work ended early."""
        return INTERRUPTED in self.errors

    def table(self, model: int = 0) -> pd.DataFrame:
        """What one model says: scan, class, a probability a class, entropy_bits, warnings, error, notice.

        The entropy is 0 for a model that is sure, log2 K for one that has no idea. It says nothing about
        whether the model is right, nor whether it should have been asked.
        """
        probabilities = self.probabilities[model]
        rows = pd.DataFrame(probabilities, columns=list(self.class_names)).round(6)
        classes = [
            "" if failed else self.class_names[k]
            for failed, k in zip(self.failed, probabilities.argmax(axis=1), strict=True)
        ]
        rows.insert(0, "class", classes)
        rows.insert(0, "scan", list(self.names))
        return rows.assign(
            entropy_bits=entropy_bits(probabilities).round(4),
            warnings=["; ".join(w) for w in self.warnings],
            error=list(self.errors),
            notice=RESEARCH_ONLY,
        )

    def to_dict(self, model: int = 0) -> dict[str, Any]:
        """The same, and what the model is, as a plain dictionary for JSON."""
        weights, scans = self.weights[model], []
        for n, row in enumerate(self.table(model).to_dict("records")):
            failed = bool(self.errors[n])
            scans.append(
                {
                    "scan": row["scan"],
                    "status": "failed" if failed else "ok",
                    "class": row["class"] or None,
                    "probabilities": None if failed else {name: row[name] for name in self.class_names},
                    "entropy_bits": None if failed else row["entropy_bits"],
                    "warnings": list(self.warnings[n]),
                    "error": row["error"] or None,
                }
            )
        return {
            "notice": RESEARCH_ONLY,
            "notes": list(self.notes),
            "classes": list(self.class_names),
            "weights": {"file": weights.path.name, "sha256": weights.sha256, "about": weights.card.about},
            "preprocessing": weights.card.to_dict()["preprocessing"],
            "scans": scans,
        }

    def __str__(self) -> str:
        shown = self.table().drop(columns=["warnings", "error", "notice"])
        lines = [shown.round(3).to_string(index=False, na_rep="-")]
        for name, warnings, error in zip(self.names, self.warnings, self.errors, strict=True):
            lines += [f"{name}: failed: {error}"] if error else [f"{name}: {warning}" for warning in warnings]
        return "\n".join([*lines, *self.notes, RESEARCH_ONLY])

    def _repr_html_(self) -> str:
        shown = self.table().drop(columns=["notice"]).round(3)
        html = shown.to_html(index=False, border=0, classes="table", na_rep="")
        return f'<div style="overflow-x:auto">{html}</div><p>{" ".join([*self.notes, RESEARCH_ONLY])}</p>'


def entropy_bits(probabilities: np.ndarray) -> np.ndarray:
    """Shannon entropy over the last axis, in bits; nan stays nan."""
    return -(probabilities * np.log2(np.where(probabilities == 0, 1, probabilities))).sum(axis=-1) + 0.0
