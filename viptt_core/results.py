"""Runs and tables on disk: what training wrote is all that metrics and figures read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core import files
from viptt_core.errors import DataError
from viptt_core.files import artifact_root
from viptt_core.metrics import accuracy, bootstrap_ci, cohen_kappa, roc_auc
from viptt_core.shown import table_html

SUMMARY_MIME = "application/vnd.viptt.summary+json"
SCORES = ("kappa", "accuracy", "auc")
SCORE_COLUMNS = ["arm", "n", *(f"{score}{end}" for score in SCORES for end in ("", "_low", "_high"))]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where it lies; `weights.safetensors` is in it.
        config: Everything that decided its outcome.
        history: One row an epoch, see `train.History`.
        predictions: One row a clip of the validation and test parts: arm, part, name, group, label,
            then one probability column a class, named after it.
        provenance: Commit, versions, machine, duration, memory.
    """

    folder: Path
    config: dict
    history: pd.DataFrame
    predictions: pd.DataFrame
    provenance: dict

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


def write_history(folder: Path, epochs: list[dict]) -> None:
    """Write the epochs so far to `history.csv` in a run's folder, replacing an older one."""
    files.write_file(folder / "history.csv", pd.DataFrame(epochs).to_csv(index=False))


def write_config(folder: Path, config: dict) -> None:
    """Write `config.json`: first of a run's files, and again with what came of it."""
    files.write_file(folder / "config.json", json.dumps(config, indent=1, default=str))


def write_run(folder: Path, *, config: dict, history: list[dict], predictions: pd.DataFrame, provenance: dict) -> Run:
    """Write what makes a run finished, its provenance last: a folder without that file is not finished.

    Raises:
        StorageError: a file cannot be written.
    """
    write_config(folder, config)
    write_history(folder, history)
    files.write_file(folder / "predictions.csv", predictions.to_csv(index=False))
    files.write_file(folder / "provenance.json", json.dumps(provenance, indent=1))
    return read_run(folder)


def is_finished(folder: Path) -> bool:
    """Whether a run is complete."""
    return (folder / "provenance.json").is_file()


def read_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        DataError: it is not finished, or a part of it is missing or damaged.
    """
    try:
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        history = pd.read_csv(folder / "history.csv")
        predictions = pd.read_csv(folder / "predictions.csv", dtype={"name": str, "group": str})
    except (OSError, ValueError) as error:
        raise DataError(f"not a finished run ({error}).", path=folder, remedy="Delete it and run again.") from error
    return Run(folder, config, history, predictions, provenance)


def predictions_table(
    *, arm: str, part: str, names, groups, labels, probabilities: np.ndarray, class_names: Sequence[str]
) -> pd.DataFrame:
    """Predictions of one part of one arm, one row a clip, see `Run.predictions`."""
    table = pd.DataFrame({"arm": arm, "part": part, "name": names, "group": groups, "label": labels})
    return pd.concat([table, pd.DataFrame(probabilities, columns=list(class_names)).round(6)], axis=1)


def predicted_classes(predictions: pd.DataFrame) -> np.ndarray:
    """Most probable class of each row: int64 [N]."""
    return predictions.iloc[:, 5:].to_numpy().argmax(axis=1)


def class_names_of(predictions: pd.DataFrame) -> list[str]:
    """Names of the probability columns."""
    return list(predictions.columns[5:])


class Summary:
    """Test scores of each arm with bootstrap intervals, as a table a notebook shows.

    Beside the HTML a machine-readable copy goes into the notebook, which `viptt summary` prints.

    Args:
        predictions: See `Run.predictions`, any number of tables and arms: of runs, of baselines.
        part: "test", or "validation" for the paper's own, selection-biased reading.
        level: Coverage of the intervals.
        caveat: A sentence shown under the table.
        synthetic: Whether the clips were simulated; the table then says so.
        about: What the rows are of, where they are no part of a split.
    """

    def __init__(
        self,
        *predictions: pd.DataFrame,
        part: str = "test",
        level: float = 0.95,
        caveat: str = "",
        synthetic: bool = False,
        about: str = "",
    ) -> None:
        rows = []
        predictions = pd.concat(predictions, ignore_index=True)
        for arm, rows_of_arm in predictions[predictions["part"] == part].groupby("arm", sort=False):
            y_true, y_pred = rows_of_arm["label"].to_numpy(), predicted_classes(rows_of_arm)
            probabilities = rows_of_arm[class_names_of(rows_of_arm)].to_numpy()
            row = {"arm": arm, "n": len(y_true)}
            for score, statistic, predicted in (
                ("kappa", cohen_kappa, y_pred),
                ("accuracy", accuracy, y_pred),
                ("auc", roc_auc, probabilities),
            ):
                row[score] = statistic(y_true, predicted)
                row[f"{score}_low"], row[f"{score}_high"] = bootstrap_ci(
                    statistic, y_true, predicted, level=level, groups=rows_of_arm["group"].to_numpy()
                )
            rows.append(row)
        self.table = pd.DataFrame(rows, columns=SCORE_COLUMNS)
        self.part, self.level, self.synthetic, self.about = part, level, synthetic, about or f"{part} part"
        self.caveat = ("Synthetic data: this says nothing about patients. " if synthetic else "") + caveat

    def __str__(self) -> str:
        return f"{self._shown().to_string(index=False)}\n{self._footer()}"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {
            "text/plain": str(self),
            "text/html": f"{table_html(self._shown())}<p>{self._footer()}</p>",
            SUMMARY_MIME: {
                "text": str(self),
                "part": self.part,
                "synthetic": self.synthetic,
                "rows": json.loads(self.table.to_json(orient="records")),
            },
        }

    def _shown(self) -> pd.DataFrame:
        percent = f"{self.level * 100:g} %"
        shown = self.table[["arm", "n"]].copy()
        for score in SCORES:
            columns = self.table[[score, f"{score}_low", f"{score}_high"]].itertuples(index=False)
            name = "AUC" if score == "auc" else score
            shown[f"{name} ({percent} interval)"] = [_with_interval(*values) for values in columns]
        return shown

    def _footer(self) -> str:
        return f"{self.about}, bootstrap over groups. {self.caveat}".strip()


def _with_interval(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value:.3f}" + ("" if np.isnan(low) else f" ({low:.3f} to {high:.3f})")
