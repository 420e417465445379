"""Test predictions of many runs in one compressed file, and what is known of each run.

Everything a study reports is computed from these files: no model, no clip is needed for it.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core import files
from viptt_core.errors import DataError, require

# Of each run: which arm, seed and fold it is; the learning rates it chose and how it was trained; what it cost.
RUN_COLUMNS = (
    "arm",
    "seed",
    "fold",
    "learning_rate",
    "pretrain_rate",  # nan without pretraining
    "n_train",  # scans fitted, without those that validate
    "epochs",
    "best_epoch",
    "epoch_limit",
    "stopped_early",
    "val_loss",
    "val_kappa",
    "seconds",  # of all fits: one a learning rate
    "device",
    "commit",
    "plan",
)
ARRAYS = {"names": str, "groups": str, "labels": np.int64, "probabilities": np.float16}  # of a file, beside its meta
SOURCE = "source-"  # before a source's name: the file of its pretrainings, tested on its held-out videos
SIZE = "size of the picture"  # baseline there: what metadata tell that reach the network


@dataclass(frozen=True)
class Outcomes:
    """What the runs of an experiment predicted."""

    names: np.ndarray  #: str [N], the cases
    groups: np.ndarray  #: str [N], what they are resampled by
    labels: np.ndarray  #: int64 [N]
    class_names: tuple[str, ...]  #: K names
    runs: pd.DataFrame  #: one row a run, columns RUN_COLUMNS
    probabilities: np.ndarray  #: float16 [R, N, K]; nan for cases that a run did not test
    synthetic: bool  #: whether the cases were simulated

    def __post_init__(self) -> None:
        shape = (len(self.runs), len(self.names), len(self.class_names))
        fits = self.probabilities.shape == shape and len(self.names) == len(self.groups) == len(self.labels)
        what = f"probabilities have shape {self.probabilities.shape}, expected {shape}."
        require(fits, what, "One row a run, one column a case.")

    @property
    def tested(self) -> np.ndarray:
        """Which cases each run tested, bool [R, N]."""
        return ~np.isnan(self.probabilities[..., 0])

    @property
    def predicted(self) -> np.ndarray:
        """Most probable class, int64 [R, N]; -1 where not tested."""
        filled = np.where(self.tested[..., None], self.probabilities, -1)
        return np.where(self.tested, filled.argmax(axis=-1), -1)

    def of_arm(self, arm: str) -> Outcomes:
        """The runs of one arm, by seed and fold; a DataError where there is none."""
        rows = self.runs.reset_index(drop=True)
        rows = rows[rows["arm"] == arm].sort_values(["seed", "fold"])
        if rows.empty:
            raise DataError(f"holds no run of arm '{arm}'.", remedy="Run it: viptt study run STUDY " + arm)
        return replace(self, runs=rows.reset_index(drop=True), probabilities=self.probabilities[rows.index])

    def of_runs(self, rows: Sequence[int]) -> Outcomes:
        """Some of the runs, with the cases that any of them tested."""
        there = ~np.isnan(self.probabilities[rows, :, 0]).all(axis=0)
        cases = {name: getattr(self, name)[there] for name in ("names", "groups", "labels")}
        runs = self.runs.iloc[rows].reset_index(drop=True)
        return replace(self, runs=runs, probabilities=self.probabilities[rows][:, there], **cases)

    def by_seed(self, arm: str) -> tuple[np.ndarray, np.ndarray]:
        """Predictions of an arm with its folds put together, each case once a seed.

        Returns:
            int64 [S, N] classes, -1 where not tested; float64 [S, N, K] probabilities, nan there.
        """
        one = self.of_arm(arm)
        folds = [one.probabilities[one.runs["seed"] == seed].astype(float) for seed in one.runs["seed"].unique()]
        whole = np.stack([np.fmax.reduce(runs) for runs in folds])  # all but one of the runs say nan of a case
        return replace(one, runs=one.runs.drop_duplicates("seed"), probabilities=whole).predicted, whole


def collect(parts: list[Outcomes]) -> Outcomes:
    """One table out of several on the same cases; a case that one of them lacks counts as not tested by it.

    A DataError where they differ in classes, or in label or group of a case.
    """
    first = parts[0]
    cases = pd.concat([pd.DataFrame({"name": p.names, "group": p.groups, "label": p.labels}) for p in parts])
    cases = cases.drop_duplicates()
    if cases["name"].duplicated().any() or any(p.class_names != first.class_names for p in parts):
        raise DataError(
            "runs of one experiment differ in classes, or in the label or group of a case.",
            remedy="Give the arms that test other cases an experiment of their own.",
        )
    position = {name: i for i, name in enumerate(cases["name"])}
    blocks = []
    for part in parts:
        block = np.full((len(part.runs), len(cases), len(first.class_names)), np.nan, np.float16)
        block[:, [position[name] for name in part.names]] = part.probabilities
        blocks.append(block)
    return Outcomes(
        cases["name"].to_numpy(str),
        cases["group"].to_numpy(str),
        cases["label"].to_numpy(np.int64),
        first.class_names,
        pd.concat([p.runs for p in parts], ignore_index=True),
        np.concatenate(blocks),
        first.synthetic,
    )


def write_outcomes(path: Path, outcomes: Outcomes) -> None:
    """Write a file, see `write_packed`."""
    meta = {
        "class_names": list(outcomes.class_names),
        "synthetic": outcomes.synthetic,
        "runs": json.loads(outcomes.runs[list(RUN_COLUMNS)].to_json(orient="split", index=False, double_precision=12)),
    }
    write_packed(path, meta, **{name: getattr(outcomes, name).astype(kind) for name, kind in ARRAYS.items()})


def read_outcomes(path: Path) -> Outcomes:
    """Read a file of `write_outcomes`; a DataError where it is missing, damaged or of another format."""
    remedy = "Take it from the repository again, or make it: viptt study pack STUDY"
    return read_packed(path, _unpack, what="predictions", remedy=remedy)


def _unpack(meta: dict, file) -> Outcomes:
    runs = pd.DataFrame(meta["runs"]["data"], columns=meta["runs"]["columns"])
    arrays = {name: file[name] for name in ARRAYS}
    return Outcomes(**arrays, class_names=tuple(meta["class_names"]), runs=runs, synthetic=meta["synthetic"])


# --- Arrays and a few plain values in one compressed file: written whole, checked when read, never unpickled ---


FORMAT = 1


def write_packed(path: Path, meta: dict, **arrays: np.ndarray) -> None:
    """Write a file, the same bytes for the same content; an older one stays until the new one is complete.

    Its folder is made, `meta` is JSON-ready, no array holds objects; a StorageError where it cannot be written.
    """
    packed = io.BytesIO()
    np.savez_compressed(packed, meta=np.array(json.dumps({"format": FORMAT} | meta)), **arrays)
    files.write_file(path, packed.getvalue())


def read_packed(path: Path, build, *, what: str, remedy: str):
    """Read a file of `write_packed`.

    Args:
        path: Of the file.
        build: (meta, file) -> what is returned; a name it does not find, or a value that does not fit, is damage.
        what: What the file should hold, for the message of a DataError where it is missing or damaged.
        remedy: For the message.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']}")
            return build(meta, file)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"holds no {what} of a study ({error}).", path=path, remedy=remedy) from error


# --- What a study left in `results/`: its record and its tables, as they are in the repository ---


RECORD = "study.json"
TEXT_COLUMNS = ("arm", "baseline", "arm2", "baseline2", "verdict", "class", "true", "predicted")  # some are empty


def read_table(path: Path) -> pd.DataFrame:
    """A table as committed, to the last bit; an empty cell is "" among names and nan among numbers.

    A DataError where it cannot be read.
    """
    try:
        # Names as text, or a column without any would come as numbers; and one may be "NA".
        texts = dict.fromkeys(TEXT_COLUMNS, str)
        table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error}).", path=path, remedy="Take it from the repository again.") from error
    return table.assign(**{name: table[name].fillna("") for name in TEXT_COLUMNS if name in table})
