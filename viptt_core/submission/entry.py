"""From models and a folder of scans to the file of the task: what `viptt submit` and notebook 05 do, and show.

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
from viptt_core.errors import LISTED, DataError, SettingError
from viptt_core.experiment import Plan, compare_starts
from viptt_core.files import artifact_root, available_cores
from viptt_core.prediction.scans import Predictions, find_scans
from viptt_core.prediction.score import MODEL_COLUMN, join_labels, match_labels, model_names, read_labels
from viptt_core.prediction.weights import Weights, open_weights
from viptt_core.presets import STARTS, load_preset
from viptt_core.results import Summary, probability_column, runs_root
from viptt_core.shown import ResultTable
from viptt_core.submission import (
    AUTHORS_WEIGHTS,
    ENSEMBLES,
    SCAN_NAME,
    check_ensemble,
    combine,
    counts_of,
    expected_names,
    write_submission,
)

OUTPUT = "submission.txt"
KEPT = ".predictions.csv"  # beside the submission: the probabilities of each model
COHORT = 2021  # seed of the synthetic test patients; those of training and of the studies have other seeds
N_SCANS = 100  # synthetic ones, by default
HEAD = 5  # scans of a kind that a table shows


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
    scans: EntryScans
    predictions: Predictions = field(repr=False)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, see `names_of`."""
        return names_of(self.predictions.weights)

    @property
    def synthetic(self) -> bool:
        """Whether scans or models are of synthetic data."""
        return self.scans.synthetic or any(each.card.data.get("synthetic") for each in self.predictions.weights)

    @property
    def methods(self) -> tuple[str, ...]:
        """Ensembles that so many models allow."""
        return tuple(m for m in ENSEMBLES if m != "authors" or len(self.models) == len(AUTHORS_WEIGHTS))

    @property
    def kept(self) -> Path:
        """Where the probabilities go."""
        return self.plan.output.with_suffix(KEPT)

    def votes(self) -> np.ndarray:
        """Class number 1..5 that each model gives each scan, 0 for one that could not be read: int64 [M, N]."""
        return np.where(self.predictions.failed, 0, self.predictions.probabilities.argmax(axis=2) + 1)

    def classes(self, method: str) -> np.ndarray:
        """Class number 1..5 of each scan by an ensemble, 0 for one that could not be read: int64 [N]."""
        classes, read = np.zeros(len(self.scans.paths), np.int64), ~self.predictions.failed
        if read.any():
            classes[read] = combine(self.predictions.probabilities[:, read], method)
        return classes


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
        weights: References, in a sequence or separated by commas; empty for one model an initialisation.
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
    plan: EntryPlan, training: Plan, *, n_train: int = 0, n_videos: int = 0, progress: bool = True
) -> tuple[Weights, ...]:
    """Open the models of an entry; where none are named, train one an initialisation on synthetic data, or find it.

    Args:
        plan: See `plan_entry`.
        training: See `experiment.plan_experiment`: settings as in notebook 02, so that its runs are found.
        n_train, n_videos: Numbers of synthetic scans and videos; 0: the preset's.
        progress: Show progress bars.

    Raises:
        DataError, SettingError: see `open_models`.
    """
    if plan.weights:
        return open_models(plan)
    scans = load_for(training.preset, "phantom", n=n_train or None, progress=progress)
    videos = load_for(training.preset, "actions", n=n_videos or None, progress=progress)
    runs = compare_starts(training, scans, videos, progress=progress).runs
    return tuple(open_weights(run.folder) for run in runs.values())


def open_models(plan: EntryPlan) -> tuple[Weights, ...]:
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
            message = f"{each.path} tells {', '.join(each.classes)}."
            raise SettingError(message, remedy=f"The task has {', '.join(TB_CLASSES)}.")
    return opened


def names_of(weights: Sequence[Weights]) -> tuple[str, ...]:
    """Names that tell models apart: their initialisations, if these differ; else their files or runs."""
    starts = [str(each.card.training.get("start") or "") for each in weights]
    if all(starts) and len(set(starts)) == len(starts):
        return tuple(starts)
    return tuple(model_names([each.path for each in weights]))


def entry_scans(
    plan: EntryPlan,
    scans: str | PathLike | Sequence[str | PathLike] = "",
    *,
    labels: Table | None = None,
    preset: str = "demo",
    n: int = 0,
    progress: bool = True,
) -> EntryScans:
    """Find the scans of an entry; where none are named, write synthetic ones of patients that no run has seen.

    Args:
        plan: See `plan_entry`.
        scans: Files and folders, see `scans.find_scans`.
        labels: Their classes, where these are known, see `score.read_labels`.
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
        scans = _written_phantoms(preset, n or N_SCANS, progress)
        labels = read_labels(scans / "TRN_labels.csv")
    paths = find_scans([scans] if isinstance(scans, str | PathLike) else scans)
    _check_names(paths, plan.expected)
    if labels:  # its faults are said now, and not after the work
        join_labels([str(path) for path in paths], TB_CLASSES, labels)
    return EntryScans(tuple(paths), labels, any(is_synthetic(folder) for folder in {path.parent for path in paths}))


def keep_entry(plan: EntryPlan, scans: EntryScans, predictions: Predictions) -> Entry:
    """Keep what the models said about the scans: the probabilities are written beside the output, see `Entry.kept`.

    Args:
        plan, scans: What was checked.
        predictions: See `scans.predict_scans`.

    Raises:
        StorageError: the probabilities cannot be written.
    """
    entry = Entry(plan, scans, predictions)
    models = enumerate(predictions.weights)
    tables = [predictions.table(m).assign(**{MODEL_COLUMN: str(each.path)}) for m, each in models]
    files.write_file(entry.kept, pd.concat(tables).to_csv(index=False))
    return entry


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
        parts = [f"{_listed(part)} {verb}" for part, verb in ((lacking, "missing"), (more, "not expected")) if part]
        message = f"{expected} scans are expected: {'; '.join(parts)}."
        raise DataError(message, remedy="Name the folder of the test scans, or give their number.")


def _written_phantoms(preset: str, n: int, progress: bool) -> Path:
    from viptt_core.synthetic.phantom import write_imageclef

    size = PHANTOM_OVERSAMPLING * load_preset(preset).size
    folder = artifact_root() / "data" / f"phantoms-{COHORT}-{n}-{size}"
    return write_imageclef(folder, n, seed=COHORT, size=size, n_jobs=available_cores(), progress=progress)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


# --- What stands in an entry, as tables ---


def models_table(weights: Sequence[Weights]) -> ResultTable:
    """The cards: what each model is, what a scan becomes for it, and how it did on the test part of its own data."""
    rows = []
    for name, each in zip(names_of(weights), weights, strict=True):
        card, grid = each.card, each.card.preprocessing
        window = f", {grid.hu_window[0]} to {grid.hu_window[1]} HU" if grid.hu_window else ""
        own = next((scores for scores in card.metrics if scores.part == "test" and scores.kappa is not None), None)
        interval = "" if own is None or own.kappa_low is None else f" ({own.kappa_low:.2f} to {own.kappa_high:.2f})"
        rows.append(
            {
                "model": name,
                "about": card.about,
                "input": f"{grid.kind}, {grid.frames} x {grid.size} x {grid.size}{window}{', lungs' * bool(grid.crop)}",
                "kappa on its own test part": f"{own.kappa:.2f}{interval}, n = {own.n}" if own else "not known",
                "sha256": each.sha256[:12],
            }
        )
    return ResultTable(weights[0].card.use, pd.DataFrame(rows))


def scans_table(entry: Entry) -> ResultTable:
    """The first scans, those that could not be read, and some of those with warnings: what each model says."""
    predictions = entry.predictions
    failed = np.flatnonzero(predictions.failed).tolist()
    odd = [n for n, warnings in enumerate(predictions.warnings) if warnings and not predictions.failed[n]]
    chosen = sorted({*range(min(HEAD, len(predictions.names))), *failed[: 2 * HEAD], *odd[:HEAD]})
    rows = {"scan": [entry.scans.names[n] for n in chosen]}
    rows |= {name: [_named(votes[n]) for n in chosen] for name, votes in zip(entry.models, entry.votes(), strict=True)}
    rows["warnings"] = ["; ".join(predictions.warnings[n]) for n in chosen]
    rows["error"] = [predictions.errors[n] for n in chosen]
    text = (
        f"{len(chosen)} of {len(predictions.names)} scans. {len(failed)} could not be read; {len(odd)} have warnings."
    )
    return ResultTable("\n".join([text, *predictions.notes]), pd.DataFrame(rows))


def counts_table(entry: Entry) -> pd.DataFrame:
    """How many scans each model and each ensemble puts into each class, and how many truly are in it, if known.

    Returns:
        One row a model, ensemble ("mean", "vote" ...) or "true"; columns: who, kind ("model", "ensemble", "true"),
        then the classes.
    """
    rows = [(name, "model", votes) for name, votes in zip(entry.models, entry.votes(), strict=True)]
    rows += [(method, "ensemble", entry.classes(method)) for method in entry.methods]
    if entry.scans.labels is not None:
        labels = match_labels(entry.predictions.table(), entry.scans.labels).rows["label"]
        rows.append(("true", "true", labels.to_numpy() + 1))
    counted = [dict(zip(TB_CLASSES, counts_of(classes).tolist(), strict=True)) for _, _, classes in rows]
    return pd.DataFrame([{"who": who, "kind": kind} | n for (who, kind, _), n in zip(rows, counted, strict=True)])


def differences_table(entry: Entry) -> ResultTable:
    """What the models said where the ensembles differ, and what each ensemble makes of it; the most frequent first."""
    read = ~entry.predictions.failed
    if "authors" not in entry.methods or not read.any():
        return ResultTable("The authors' ensemble is of three models; these are compared by the others alone.")
    votes = entry.votes()[:, read].T
    answers = np.stack([entry.classes(method)[read] for method in entry.methods], axis=1)
    voted, averaged = (answers[:, entry.methods.index(method)] for method in ("vote", "authors"))
    none = (votes != averaged[:, None]).all(axis=1)
    columns = [*entry.models, *map(ensemble_name, entry.methods)]
    table = pd.DataFrame(np.concatenate([votes, answers], axis=1), columns=columns)
    table["said by no model"] = np.where(none, "yes", "")
    counted = table[(answers != answers[:, :1]).any(axis=1)].value_counts().rename("scans").reset_index()
    counted = counted.sort_values(["scans", *columns], ascending=[False] + [True] * len(columns))
    counted[columns] = counted[columns].map(_named)
    text = (
        f"{len(counted[: 2 * HEAD])} of {len(counted)} ways to differ. The models do not all say the same of "
        f"{(votes != votes[:, :1]).any(axis=1).sum()} of {len(votes)} scans. Averaged class numbers are another class "
        f"than the vote for {(averaged != voted).sum()} scans, and one that no model said for {none.sum()}."
    )
    return ResultTable(text, counted[: 2 * HEAD])


def scores(entry: Entry) -> Summary | ResultTable:
    """Kappa and accuracy of each model and each ensemble, with intervals, where the classes are known."""
    if entry.scans.labels is None:
        return ResultTable("The classes of these scans are not known here: nothing can be scored.")
    matched = [
        match_labels(entry.predictions.table(m), entry.scans.labels, arm=name) for m, name in enumerate(entry.models)
    ]
    rows = matched[0].rows
    labelled = [entry.predictions.names.index(name) for name in rows["name"]]
    arms = [each.rows for each in matched]
    for method in entry.methods:
        # 1 for the class that the file names, so that what is scored is what is handed in.
        certain = np.eye(len(TB_CLASSES))[entry.classes(method)[labelled] - 1]
        columns = dict(zip(map(probability_column, TB_CLASSES), certain.T, strict=True))
        arms.append(rows.assign(arm=ensemble_name(method), **columns))
    left = matched[0].report().replace("\n", "; ")
    caveat = f"{left}. Ensembles answer with a class, which has no AUC."
    summary = Summary(*arms, caveat=caveat, synthetic=entry.synthetic, about="labelled scans")
    of_ensemble = summary.table["arm"].isin([ensemble_name(method) for method in entry.methods])
    summary.table.loc[of_ensemble, ["auc", "auc_low", "auc_high"]] = np.nan
    return summary


def ensemble_name(method: str) -> str:
    """Name of an ensemble among the arms."""
    return f"ensemble: {method}"


def _named(number: int) -> str:
    return f"{number} {TB_CLASSES[number - 1]}" if number else ""
