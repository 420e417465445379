"""Runs and tables on disk: what training wrote is all that metrics and figures read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core.clips import ClipSet
from viptt_core.errors import DataError
from viptt_core.files import artifact_root, write_file
from viptt_core.metrics import accuracy, bootstrap_ci, cohen_kappa, roc_auc
from viptt_core.shown import ResultTable, ShownAsTable, arm_label, with_interval

SUMMARY_MIME = "application/vnd.viptt.summary+json"
SCORES = {"kappa": "kappa", "accuracy": "accuracy", "auc": "AUC"}  # column -> heading
SCORE_COLUMNS = ["arm", "n", *(f"{score}{end}" for score in SCORES for end in ("", "_low", "_high"))]


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path  #: where it lies; `weights.safetensors` is in it
    config: dict  #: everything that decided its outcome
    history: pd.DataFrame  #: one row an epoch, see `training.History`
    predictions: pd.DataFrame  #: of the validation and test sets, see `predictions_table`
    provenance: dict  #: commit, versions, machine, duration, memory

    def report(self) -> str:
        """Two lines for a reader: the parts, the epoch kept, time and device; and where the run lies."""
        return (
            f"{self.config['split']}; epoch {self.config['best_epoch']} of {len(self.history)} kept; "
            f"{self.provenance['seconds']:.0f} s on {self.provenance['device']} in {self.provenance['precision']}\n"
            f"  runs/{self.folder.name}"
        )


def runs_root() -> Path:
    """Folder of all runs."""
    return artifact_root() / "runs"


def write_run(run: Run) -> None:
    """Write what makes a run finished, its provenance last: a folder without that file is not finished."""
    write_file(run.folder / "config.json", json.dumps(run.config, indent=1, default=str))
    for name, table in (("history", run.history), ("predictions", run.predictions)):
        write_file(run.folder / f"{name}.csv", table.to_csv(index=False))
    write_file(run.folder / "provenance.json", json.dumps(run.provenance, indent=1))


def is_finished(folder: Path) -> bool:
    """Whether a run is complete."""
    return (folder / "provenance.json").is_file()


def read_run(folder: Path) -> Run:
    """Read a finished run; a DataError if it is not finished, or a part of it is missing or damaged."""
    try:
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        history = pd.read_csv(folder / "history.csv")
        # A clip may be called "NA"; only an empty cell is an unknown number.
        texts = dict.fromkeys(("arm", "part", "name", "group"), str)
        predictions = pd.read_csv(folder / "predictions.csv", dtype=texts, keep_default_na=False, na_values=[""])
        class_names_of(predictions)
    except (OSError, ValueError) as error:
        raise DataError(f"not a finished run ({error}).", path=folder, remedy="Delete it and run again.") from error
    return Run(folder, config, history, predictions, provenance)


# --- Predictions: one row a clip, see `predictions_table` -------------------------------------------------------


def probability_column(class_name: str) -> str:
    """Name of the column with the probabilities of a class."""
    return f"p({class_name})"


def predictions_table(
    clips: ClipSet, indices: np.ndarray, probabilities: np.ndarray, *, arm: str, part: str
) -> pd.DataFrame:
    """Predictions [M, K] of the clips at `indices`, int [M], a row each; six decimals of the probabilities are kept.

    Columns arm (which model), part ("validation" or "test"), name, group, label, and p(CLASS) for each class.
    """
    columns = {"arm": arm, "part": part, "name": clips.names[indices], "group": clips.groups[indices]}
    table = pd.DataFrame(columns | {"label": clips.labels[indices]})
    names = [probability_column(name) for name in clips.class_names]
    return pd.concat([table, pd.DataFrame(probabilities, columns=names).round(6)], axis=1)


def class_names_of(predictions: pd.DataFrame) -> list[str]:
    """Names of the K classes of a table of predictions, in label order; a DataError where it holds no probabilities."""
    names = [column[2:-1] for column in predictions if column.startswith("p(") and column.endswith(")")]
    if not names:
        raise DataError("these predictions hold no probabilities.", remedy="They stand in columns p(CLASS).")
    return names


def probabilities_of(predictions: pd.DataFrame) -> np.ndarray:
    """Probabilities of a table of predictions: float64 [N, K]."""
    return predictions[[probability_column(name) for name in class_names_of(predictions)]].to_numpy(np.float64)


def predicted_classes(predictions: pd.DataFrame) -> np.ndarray:
    """Most probable class of each row: int64 [N]."""
    return probabilities_of(predictions).argmax(axis=1)


class Summary(ShownAsTable):
    """Test scores of each arm with bootstrap intervals, as a table a notebook shows.

    Beside the HTML a machine-readable copy goes into the notebook, which `viptt summary` prints. It is of any number of
    tables and arms, see `predictions_table`, with a caveat under it, and says of synthetic clips that they are.
    """

    def __init__(
        self, *predictions: pd.DataFrame, caveat: str = "", synthetic: bool = False, about: str = "Test set"
    ) -> None:
        rows = pd.concat(predictions, ignore_index=True)
        of_arms = rows[rows["part"] == "test"].groupby("arm", sort=False)
        self.table = pd.DataFrame([{"arm": arm} | scores_of(found) for arm, found in of_arms], columns=SCORE_COLUMNS)
        self.synthetic, self.about = synthetic, about
        self.caveat = ("Synthetic data: this says nothing about patients. " if synthetic else "") + caveat

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        record = {"text": str(self), "rows": json.loads(self.table.to_json(orient="records"))}
        return super()._repr_mimebundle_() | {SUMMARY_MIME: record}

    def _shown(self) -> ResultTable:
        shown = self.table[["arm", "n"]].assign(arm=self.table["arm"].map(arm_label))
        for score, heading in SCORES.items():
            values = self.table[[score, f"{score}_low", f"{score}_high"]].itertuples(index=False)
            shown[f"{heading} (95 % interval)"] = [with_interval(*row, digits=3) for row in values]
        return ResultTable(f"{self.about}, bootstrap over groups. {self.caveat}".strip(), shown)


def scores_of(rows: pd.DataFrame, intervals: Sequence[str] = tuple(SCORES)) -> dict[str, float]:
    """Number of rows, their SCORES, and of those with an interval its ends: n, kappa, kappa_low, kappa_high, ..."""
    y_true, y_pred, groups = rows["label"].to_numpy(), predicted_classes(rows), rows["group"].to_numpy()
    scores = {"n": len(rows)}
    for score, statistic in (("kappa", cohen_kappa), ("accuracy", accuracy), ("auc", roc_auc)):
        predicted = probabilities_of(rows) if score == "auc" else y_pred
        scores[score] = statistic(y_true, predicted)
        if score in intervals:
            scores[f"{score}_low"], scores[f"{score}_high"] = bootstrap_ci(statistic, y_true, predicted, groups=groups)
    return scores
