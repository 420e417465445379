"""From models and a folder of scans to the file of the task: what `viptt submit` and notebook 05 do, and show.

Everything that can be known to be wrong is said before the first scan is read: a run over 421 scans takes a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core import files, submission
from viptt_core.constants import TB_CLASSES
from viptt_core.datasets import load_for
from viptt_core.datasets.labels import Table
from viptt_core.datasets.listing import is_synthetic
from viptt_core.datasets.simulated import PHANTOM_OVERSAMPLING
from viptt_core.errors import DataError, SettingError, check_counts, listed
from viptt_core.experiment import Plan, compare_starts
from viptt_core.prediction.scans import Predictions, check_output, find_scans
from viptt_core.prediction.score import MODEL_COLUMN, join_labels, match_labels, read_labels
from viptt_core.prediction.weights import Weights, open_weights
from viptt_core.presets import STARTS, load_preset
from viptt_core.results import Summary, probability_column, runs_root
from viptt_core.shown import ResultTable, arm_label

COHORT = 2021  # seed of the synthetic test patients; those of training and of the studies have other seeds
ENSEMBLE = "ensemble: "  # how their names begin among the arms


@dataclass(frozen=True)
class EntryPlan:
    """Settings of an entry, as `plan_entry` has checked them and says what they mean."""

    weights: tuple[str, ...]
    ensemble: str
    output: Path
    fill: int = 0


@dataclass(frozen=True)
class Entry:
    """Scans predicted by every model, and their classes where these are known."""

    plan: EntryPlan
    predictions: Predictions = field(repr=False)
    labels: Table | None = None

    @property
    def names(self) -> list[str]:
        """Names of the N scans in the submission."""
        return [Path(name).name for name in self.predictions.names]

    @property
    def models(self) -> list[str]:
        """Names that tell the models apart, their initialisations if these differ, else their files or runs."""
        weights = self.predictions.weights
        starts = [each.card.training.get("start") for each in weights]
        seeds = [each.card.training.get("seed") for each in weights]
        with_seed = [start and f"{start}, seed {seed}" for start, seed in zip(starts, seeds, strict=True)]
        for names in (starts, with_seed, [each.name for each in weights]):
            if all(names) and len(set(names)) == len(names):
                return names
        return [f"{n} {each.name}" for n, each in enumerate(weights, 1)]

    @property
    def synthetic(self) -> bool:
        """Whether scans or models are of synthetic data."""
        of_models = [each.synthetic for each in self.predictions.weights]
        return any(of_models) or any(is_synthetic(Path(name).parent) for name in self.predictions.names)

    @property
    def kept(self) -> Path:
        """Where the probabilities of each model go, beside the submission."""
        return self.plan.output.with_suffix(".predictions.csv")

    def votes(self) -> np.ndarray:
        """Class number 1..5 that each model gives each scan, 0 for one that could not be read: int64 [M, N]."""
        return np.where(self.predictions.failed, 0, self.predictions.probabilities.argmax(axis=2) + 1)

    def classes(self, method: str) -> np.ndarray:
        """Class number 1..5 of each scan by an ensemble, 0 for one that could not be read: int64 [N]."""
        read = ~self.predictions.failed
        classes = np.zeros(len(read), np.int64)
        if read.any():
            classes[read] = submission.combine(self.predictions.probabilities[:, read], method)
        return classes

    def ensembles(self) -> dict[str, np.ndarray]:
        """The classes by each ensemble that so many models allow."""
        of_three = len(self.predictions.weights) == len(submission.AUTHORS_WEIGHTS)
        return {name: self.classes(name) for name in submission.ENSEMBLES if of_three or name != "authors"}


def plan_entry(
    weights: str | Sequence[str | PathLike] = "", *, ensemble: str = "mean", output: str | PathLike = "", fill: int = 0
) -> EntryPlan:
    """Check the settings of an entry, before models are trained or scans are read.

    Args:
        weights: References to the models, see `weights.open_weights`, in a sequence or separated by commas; empty for
            models of synthetic data, one an initialisation.
        ensemble: One of `submission.ENSEMBLES`.
        output: The file to write; "" for submission.txt among the runs.
        fill: Class 1..5 for a scan that cannot be read; 0: then nothing is written.

    Raises:
        SettingError: a setting does not exist or is out of its range, or three models are needed.
        DataError: the folder of `output` is not there.
    """
    named = weights.split(",") if isinstance(weights, str) else weights
    references = tuple(text for text in (str(each).strip() for each in named) if text)
    submission.check_ensemble(ensemble, len(references or STARTS))
    check_counts(least=0, most=len(TB_CLASSES), fill=fill)
    if not output:
        runs_root().mkdir(parents=True, exist_ok=True)
    path = Path(output or runs_root() / "submission.txt").expanduser()
    check_output(path)
    return EntryPlan(references, ensemble, path, fill)


def entry_models(
    plan: EntryPlan, training: Plan | None = None, *, n_train: int = 0, n_videos: int = 0
) -> tuple[Weights, ...]:
    """Open the models of an entry; where none are named, train three on synthetic data, or find them.

    The three are of the initialisations that are planned, and where these are fewer, of the last with the next seeds.

    Args:
        plan: See `plan_entry`.
        training: See `experiment.plan_experiment`: settings as in notebook 02, so that its runs are found.
        n_train: Number of synthetic scans; 0 takes the preset's.
        n_videos: Number of synthetic videos; 0 takes the preset's.

    Raises:
        SettingError: neither weights nor a training is named, or models are of other classes than the task's.
    """
    references: Sequence[str | Path] = plan.weights
    if not references:
        if training is None:
            raise SettingError("no weights are named.", remedy="Name at least one file of weights.")
        scans = load_for(training.preset, "phantom", n=n_train or None)
        videos = load_for(training.preset, "actions", n=n_videos or None)
        runs, seed = [*compare_starts(training, scans, videos).runs.values()], training.seed
        while len(runs) < 3:
            seed += 1
            again = replace(training, starts=training.starts[-1:], seed=seed)
            runs += compare_starts(again, scans, videos).runs.values()
        references = [run.folder for run in runs]
    opened = tuple(map(open_weights, references))
    for each in opened:
        if each.classes != TB_CLASSES:
            message = f"{each.path} tells {', '.join(each.classes)}."
            raise SettingError(message, remedy=f"The task has {', '.join(TB_CLASSES)}.")
    return opened


def entry_scans(
    plan: EntryPlan,
    scans: str | PathLike | Sequence[str | PathLike] = "",
    *,
    labels: Table | None = None,
    preset: str = "demo",
    n: int = 0,
) -> tuple[list[Path], Table | None]:
    """Find the scans of an entry; where none are named, write synthetic ones of patients that no run has seen.

    Args:
        plan: See `plan_entry`.
        scans: Files and folders, see `scans.find_scans`.
        labels: Their classes, where these are known, see `score.read_labels`; returned beside the files.
        preset: Whose grid the synthetic scans have.
        n: Number of synthetic scans; 0 takes 100.

    Raises:
        DataError: no scans, names that `submission.check_names` refuses, or labels that cannot be joined.
        SettingError: labels without scans.
    """
    if not scans:
        if labels:
            raise SettingError("labels are named, but no scans.", remedy="Name their folder with scans.")
        from viptt_core.synthetic.folders import imageclef, write_folder

        n, size = n or 100, PHANTOM_OVERSAMPLING * load_preset(preset).size
        folder = files.artifact_root() / "data" / f"phantoms-{COHORT}-{n}-{size}"
        scans = write_folder(folder, imageclef(n, seed=COHORT, size=size), n_jobs=None)
        labels = read_labels(scans / "TRN_labels.csv")
    paths = find_scans([scans] if isinstance(scans, str | PathLike) else scans)
    submission.check_names([path.name for path in paths])
    if labels:  # its faults are said now, and not after the work
        join_labels([str(path) for path in paths], TB_CLASSES, labels)
    return paths, labels


def keep_entry(plan: EntryPlan, predictions: Predictions, labels: Table | None = None) -> Entry:
    """Keep what the models said about the scans: the probabilities are written beside the output, see `Entry.kept`."""
    entry = Entry(plan, predictions, labels)
    tables = [predictions.table(m).assign(**{MODEL_COLUMN: name}) for m, name in enumerate(entry.models)]
    files.write_file(entry.kept, pd.concat(tables).to_csv(index=False))
    return entry


def write_entry(entry: Entry) -> np.ndarray:
    """Write the submission of the planned ensemble; returns its classes, int64 [N].

    Raises:
        DataError: scans could not be read and no class was given for them; nothing is written then.
    """
    failed, plan = entry.predictions.failed, entry.plan
    if failed.any() and not plan.fill:
        names = [name for name, bad in zip(entry.names, failed, strict=True) if bad]
        remedy = "Mend the scans, or give them a class with --fill (in the notebook: fill)."
        what = f"not written: the task wants every scan. Not read: {listed(names)}."
        raise DataError(what, path=plan.output, remedy=remedy)
    classes = np.where(failed, plan.fill, entry.classes(plan.ensemble))
    submission.write_submission(plan.output, entry.names, classes)
    return classes


# --- What stands in an entry, as tables ---


def models_table(models: Sequence[Weights]) -> ResultTable:
    """What each model is, by its card, and what all of them may be used for."""
    rows = [{"model": model.name, "about": model.card.about} for model in models]
    return ResultTable(models[0].card.use, pd.DataFrame(rows))


def scans_table(entry: Entry) -> ResultTable:
    """The scans that could not be read or have warnings, and what each model says of them."""
    predictions, votes = entry.predictions, entry.votes()
    told = [n for n, of_scan in enumerate(predictions.warnings) if of_scan or predictions.failed[n]]
    rows = {"scan": [entry.names[n] for n in told]}
    for name, numbers in zip(entry.models, votes[:, told], strict=True):
        rows[name] = [TB_CLASSES[number - 1] if number else "" for number in numbers]
    rows["what"] = [predictions.errors[n] or "; ".join(predictions.warnings[n]) for n in told]
    failed = predictions.failed.sum()
    text = f"{len(votes[0])} scans. {failed} could not be read; {len(told) - failed} have warnings."
    return ResultTable("\n".join([text, *predictions.notes]), pd.DataFrame(rows) if told else None)


def count_answers(entry: Entry) -> pd.DataFrame:
    """How many scans each model and each ensemble puts into each class, and how many truly are in it, if known.

    A row each; columns who (ensembles after ENSEMBLE, then "true"), the classes, then the scans of which no model said
    so.
    """
    votes = entry.votes()
    rows = list(zip(entry.models, votes, strict=True))
    rows += [(f"{ENSEMBLE}{method}", numbers) for method, numbers in entry.ensembles().items()]
    counted = [
        {"who": who}
        | submission.count_classes(numbers.tolist())
        | {"said by no model": (numbers != votes).all(0).sum()}
        for who, numbers in rows
    ]
    if entry.labels is not None:
        true = match_labels(entry.predictions.table(), entry.labels).rows["label"] + 1
        counted.append({"who": "true"} | submission.count_classes(true) | {"said by no model": ""})
    return pd.DataFrame(counted)


def counts_table(entry: Entry) -> ResultTable:
    """What `count_answers` gives, with the names of pages."""
    counts = count_answers(entry)
    return ResultTable(table=counts.assign(who=counts["who"].map(arm_label)))


def scores(entry: Entry) -> Summary | ResultTable:
    """Kappa and accuracy of each model and each ensemble, with intervals, where the classes are known."""
    if entry.labels is None:
        return ResultTable("The classes of these scans are not known here: nothing can be scored.")
    models = enumerate(entry.models)
    matched = [match_labels(entry.predictions.table(m), entry.labels, arm=name) for m, name in models]
    rows = matched[0].rows
    labelled = [entry.predictions.names.index(name) for name in rows["name"]]
    arms = [each.rows for each in matched]
    for method, classes in entry.ensembles().items():
        # 1 for the class that the file names, so that what is scored is what is handed in.
        certain = np.eye(len(TB_CLASSES))[classes[labelled] - 1]
        columns = dict(zip(map(probability_column, TB_CLASSES), certain.T, strict=True))
        arms.append(rows.assign(arm=f"{ENSEMBLE}{method}", **columns))
    left = matched[0].report().replace("\n", "; ")
    caveat = f"{left}. Ensembles answer with a class, which has no AUC."
    summary = Summary(*arms, caveat=caveat, synthetic=entry.synthetic, about="Labelled scans")
    summary.table.loc[summary.table["arm"].str.startswith(ENSEMBLE), ["auc", "auc_low", "auc_high"]] = np.nan
    return summary
