"""From models and a folder of scans to the file of ImageCLEF's TB-type task: what `viptt submit` and notebook 05 do.

Everything that can be known to be wrong is said before the first scan is read: a run over 421 scans takes a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core import files
from viptt_core.constants import TB_CLASSES
from viptt_core.datasets import load_for
from viptt_core.datasets.labels import Table
from viptt_core.datasets.listing import is_synthetic
from viptt_core.datasets.simulated import PHANTOM_OVERSAMPLING
from viptt_core.ensembles import AUTHORS_WEIGHTS, ENSEMBLES, check_ensemble, combine
from viptt_core.errors import DataError, SettingError
from viptt_core.experiment import compare_starts, plan_experiment
from viptt_core.files import artifact_root, available_cores
from viptt_core.prediction.scans import find_scans, predict_scans
from viptt_core.prediction.score import MODEL_COLUMN, Predictions, match_labels, model_names, read_labels
from viptt_core.prediction.weights import Weights, open_weights
from viptt_core.presets import STARTS, load_preset
from viptt_core.results import runs_root
from viptt_core.submission import SCAN_NAME, expected_names, write_submission
from viptt_core.training.device import Engine

OUTPUT = "submission.txt"
KEPT = ".predictions.csv"  # beside the submission: the probabilities of each model
COHORT = 2021  # seed of the synthetic test patients; those of training and of the studies have other seeds
N_SCANS = 100  # synthetic ones, by default
LISTED = 10  # names in a message


@dataclass(frozen=True)
class EntryPlan:
    """Settings of an entry, checked.

    Attributes:
        weights: References to the models, see `weights.open_weights`; empty: models of synthetic data.
        ensemble: One of `submission.ENSEMBLES`.
        output: The file to write.
        fill: Class 1..5 for a scan that cannot be read; 0: then nothing is written.
        expected: Number of scans TST_0001.nii.gz and so on that must be there; 0: any scans.
    """

    weights: tuple[str, ...]
    ensemble: str
    output: Path
    fill: int = 0
    expected: int = 0

    @property
    def kept(self) -> Path:
        """Where the probabilities go."""
        return self.output.with_suffix(KEPT)


@dataclass(frozen=True)
class Models:
    """Opened weights, and the names that tell them apart."""

    weights: tuple[Weights, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Their starts, if these differ; else their files or runs, numbered where those do not differ either."""
        starts = [str(each.card.training.get("start") or "") for each in self.weights]
        if all(starts) and len(set(starts)) == len(starts):
            return tuple(starts)
        return tuple(model_names([each.path for each in self.weights]))

    @property
    def synthetic(self) -> bool:
        return any(each.card.data.get("synthetic") for each in self.weights)


@dataclass(frozen=True)
class EntryScans:
    """The scans to predict.

    Attributes:
        paths: Of the N files.
        labels: Where their classes are known.
        synthetic: Whether they are simulated.
    """

    paths: tuple[Path, ...]
    labels: Table | None = None
    synthetic: bool = False

    @property
    def names(self) -> list[str]:
        """As the submission names them."""
        return [path.name for path in self.paths]


@dataclass(frozen=True)
class Entry:
    """Scans predicted by every model."""

    plan: EntryPlan
    models: Models
    scans: EntryScans
    predictions: Predictions = field(repr=False)

    @property
    def synthetic(self) -> bool:
        return self.scans.synthetic or self.models.synthetic

    @property
    def methods(self) -> tuple[str, ...]:
        """Ensembles that these models allow."""
        return tuple(m for m in ENSEMBLES if m != "authors" or len(self.models.weights) == len(AUTHORS_WEIGHTS))

    @property
    def sound(self) -> np.ndarray:
        """Probabilities of the S scans that could be read, float64 [M, S, K]."""
        return self.predictions.probabilities[:, ~self.predictions.failed]

    def votes(self) -> np.ndarray:
        """Class number 1..5 that each model gives each scan, 0 for one that could not be read: int64 [M, N]."""
        votes = np.zeros(self.predictions.probabilities.shape[:2], np.int64)
        votes[:, ~self.predictions.failed] = self.sound.argmax(axis=2) + 1
        return votes

    def classes(self, method: str) -> np.ndarray:
        """Class number 1..5 of each scan by an ensemble, 0 for one that could not be read: int64 [N]."""
        classes = np.zeros(len(self.predictions.names), np.int64)
        if not self.predictions.failed.all():
            classes[~self.predictions.failed] = combine(self.sound, method)
        return classes

    def head(self, rows: int = 5) -> str:
        """The first lines of the written file."""
        return "\n".join(self.plan.output.read_text(encoding="utf-8").splitlines()[:rows])


def plan_entry(
    weights: str | Sequence[str | PathLike] = "",
    *,
    ensemble: str = "mean",
    output: str | PathLike = "",
    fill: int = 0,
    expected: int = 0,
) -> EntryPlan:
    """Check the settings of an entry, before models are trained or scans are read.

    Args:
        weights: References, in a sequence or separated by commas; empty for one model a start.
        ensemble, fill, expected: See `EntryPlan`.
        output: "" for submission.txt among the runs.

    Raises:
        SettingError: an ensemble or class that does not exist, or three models are needed.
        DataError: the folder of `output` is not there.
    """
    listed = weights.split(",") if isinstance(weights, str) else weights
    references = tuple(text for text in (str(each).strip() for each in listed) if text)
    check_ensemble(ensemble, len(references or STARTS))
    if not 0 <= fill <= len(TB_CLASSES):
        raise SettingError(f"class {fill} does not exist.", remedy=f"Give 1 to {len(TB_CLASSES)}.")
    if expected < 0:
        raise SettingError(f"{expected} scans are expected.", remedy="Give their number, or 0 for any.")
    if not output:
        runs_root().mkdir(parents=True, exist_ok=True)
    path = Path(output or runs_root() / OUTPUT).expanduser()
    if not path.absolute().parent.is_dir():
        raise DataError("no such folder.", path=path.absolute().parent, remedy="Make it first.")
    if path.is_dir():
        raise DataError("is a folder.", path=path, remedy="Name the file to write, such as submission.txt.")
    return EntryPlan(references, ensemble, path, fill, expected)


def entry_models(
    plan: EntryPlan,
    *,
    preset: str = "demo",
    epochs: int = 0,
    pretrain_epochs: int = 0,
    n_train: int = 0,
    n_videos: int = 0,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> Models:
    """Open the models of an entry; where none are named, train one from each start on synthetic data, or find it.

    Args:
        plan: See `plan_entry`.
        preset, epochs, pretrain_epochs, seed, device: Of the training, see `experiment.plan_experiment`: the same as
            notebook 02 trains, so that its runs are found.
        n_train, n_videos: Numbers of synthetic scans and videos; 0: the preset's.
        progress: Show progress bars.

    Raises:
        DataError, SettingError: see `open_models`, and `experiment.plan_experiment`.
    """
    if plan.weights:
        return open_models(plan)
    training = plan_experiment(
        preset, starts=",".join(STARTS), epochs=epochs, pretrain_epochs=pretrain_epochs, seed=seed, device=device
    )
    scans = load_for(training.preset, "phantom", n=n_train or None, progress=progress)
    videos = load_for(training.preset, "actions", n=n_videos or None, progress=progress)
    runs = compare_starts(training, scans, videos, progress=progress).runs
    return Models(tuple(open_weights(run.folder) for run in runs.values()))


def open_models(plan: EntryPlan) -> Models:
    """Open the models that a plan names.

    Raises:
        DataError: weights cannot be used, see `weights.open_weights`.
        SettingError: none are named, or they are of other classes than the task's.
    """
    if not plan.weights:
        raise SettingError("no weights are named.", remedy="Name at least one file of weights.")
    opened = tuple(map(open_weights, plan.weights))
    for each in opened:
        if each.classes != TB_CLASSES:
            raise SettingError(
                f"{each.path} tells {', '.join(each.classes)}.", remedy=f"The task has {', '.join(TB_CLASSES)}."
            )
    return Models(opened)


def entry_scans(
    plan: EntryPlan,
    scans: str | PathLike | Sequence[str | PathLike] = "",
    *,
    labels: str | PathLike = "",
    file_column: str = "",
    label_column: str = "",
    patient_column: str = "",
    preset: str = "demo",
    n: int = 0,
    progress: bool = True,
) -> EntryScans:
    """Find the scans of an entry; where none are named, write synthetic ones of patients that no run has seen.

    Args:
        plan: See `plan_entry`.
        scans: Files and folders, see `predict.find_scans`.
        labels: CSV of their classes, where these are known.
        file_column, label_column, patient_column: Of the CSV, see `score.read_labels`.
        preset: Its grid decides that of synthetic scans.
        n: Number of synthetic scans; 0: N_SCANS.
        progress: Show a progress bar.

    Raises:
        DataError: no scans, a name twice or not as a submission wants it, not those that are expected, or labels that
            cannot be joined.
        SettingError: labels without scans.
    """
    if not scans:
        if labels:
            raise SettingError("labels are named, but no scans.", remedy="Name their folder with scans.")
        folder = _written_phantoms(preset, n or N_SCANS, progress)
        scans, labels = folder, folder / "TRN_labels.csv"
    paths = find_scans([scans] if isinstance(scans, str | PathLike) else scans)
    _check_names(paths, plan.expected)
    table = (
        read_labels(labels, file_column=file_column, label_column=label_column, patient_column=patient_column)
        if labels
        else None
    )
    if table is not None:  # its faults are said now, and not after the work
        match_labels(
            pd.DataFrame(
                {
                    "scan": [str(path) for path in paths],
                    "class": "",
                    **dict.fromkeys(TB_CLASSES, 0.0),
                    "entropy_bits": 0.0,
                    "error": "",
                }
            ),
            table,
        )
    return EntryScans(tuple(paths), table, any(is_synthetic(folder) for folder in {path.parent for path in paths}))


def predict_entry(
    plan: EntryPlan,
    models: Models,
    scans: EntryScans,
    *,
    masks: str | PathLike = "",
    device: str = "auto",
    precision: str = "fp32",
    n_jobs: int | None = None,
    progress: bool = True,
) -> Entry:
    """Ask every model about every scan, see `predict.predict_scans`; the probabilities are kept in `plan.kept`.

    Args:
        plan, models, scans: What was checked.
        masks: Folder of lung masks, for models that want them.
        device, precision: See `engine.Engine`; fp32 gives the same digits on every machine.
        n_jobs: Threads that read; None takes the available cores.
        progress: Show a progress bar.

    Raises:
        DataError, SettingError: as `predict_scans`.
        StorageError: the probabilities cannot be written.
    """
    predictions = predict_scans(
        models.weights,
        scans.paths,
        masks=masks or None,
        n_jobs=n_jobs,
        progress=progress,
        engine=Engine(device=device, precision=precision),
    )
    tables = [predictions.table(m).assign(**{MODEL_COLUMN: str(each.path)}) for m, each in enumerate(models.weights)]
    files.write_file(plan.kept, pd.concat(tables).to_csv(index=False))
    return Entry(plan, models, scans, predictions)


def write_entry(entry: Entry) -> np.ndarray:
    """Write the submission of the planned ensemble.

    Returns:
        The classes written, int64 [N].

    Raises:
        DataError: the prediction was interrupted, or scans could not be read and no class was given for them;
            nothing is written then.
        StorageError: the file cannot be written.
    """
    failed, plan = entry.predictions.failed, entry.plan
    if entry.predictions.interrupted:  # no class is given for scans that nobody has looked at
        raise DataError("not written: the prediction was interrupted.", path=plan.output, remedy="Predict again.")
    if failed.any() and not plan.fill:
        names = [name for name, bad in zip(entry.scans.names, failed, strict=True) if bad]
        raise DataError(
            f"not written: the task wants every scan. Not read: {_listed(names)}.",
            path=plan.output,
            remedy="Mend the scans, or give them a class with --fill (in the notebook: fill).",
        )
    classes = np.where(failed, plan.fill, entry.classes(plan.ensemble))
    write_submission(plan.output, entry.scans.names, classes)
    return classes


def counts_of(classes: np.ndarray) -> np.ndarray:
    """How many scans have class 1, 2, ... 5; those with 0 are not counted: int64 [5]."""
    return np.bincount(classes, minlength=len(TB_CLASSES) + 1)[1:]


def _check_names(paths: Sequence[Path], expected: int) -> None:
    names = Counter(path.name for path in paths)
    if double := [name for name, count in names.items() if count > 1]:
        where = ", ".join(str(path) for path in paths if path.name == double[0])
        raise DataError(
            f"{_listed(double)}: more than one scan is named so ({where}), and a submission knows scans by "
            "their names.",
            remedy="Name one folder, or rename the scans.",
        )
    if bad := [name for name in names if not SCAN_NAME.fullmatch(name)]:
        raise DataError(
            f"{_listed(bad)}: a submission names .nii.gz files, without spaces or commas.",
            remedy="Compress or rename these scans.",
        )
    wanted = expected_names(expected) if expected else list(names)
    lacking, more = [name for name in wanted if name not in names], sorted(set(names) - set(wanted))
    if lacking or more:
        what = [f"{_listed(part)} {verb}" for part, verb in ((lacking, "missing"), (more, "not expected")) if part]
        raise DataError(
            f"{expected} scans are expected: {'; '.join(what)}.",
            remedy="Name the folder of the test scans, or give their number.",
        )


def _written_phantoms(preset: str, n: int, progress: bool) -> Path:
    from viptt_core.synthetic.phantom import write_imageclef

    size = PHANTOM_OVERSAMPLING * load_preset(preset).size
    folder = artifact_root() / "data" / f"phantoms-{COHORT}-{n}-{size}"
    return write_imageclef(folder, n, seed=COHORT, size=size, n_jobs=available_cores(), progress=progress)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
