"""The runs of a study: each arm, seed and fold is a cell, a file of its own; what is there is not run again.

In a cell every learning rate of the plan is fitted, and the one of lowest validation loss is kept. Where the backbone
is frozen, its features are computed once for all cells, and a fit takes seconds.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save

from viptt_core import files
from viptt_core.clips import ClipSet, Grid, digest
from viptt_core.datasets import load_for
from viptt_core.errors import TrainingError
from viptt_core.experiment import build_model
from viptt_core.files import one_at_a_time
from viptt_core.model import ViPTTNet
from viptt_core.presets import Stage
from viptt_core.probes import baseline_predictions, size_predictions
from viptt_core.results import probabilities_of
from viptt_core.splits import Split, make_split, split_by_group
from viptt_core.study.cells import (
    BASELINES,
    Cell,
    baselines_file,
    cells_of,
    pretraining_file,
    pretraining_of,
    study_folder,
    unpack,
    weights_file,
)
from viptt_core.study.evidence import FILE as EVIDENCE
from viptt_core.study.evidence import finding_on_grid, gather_evidence, write_evidence
from viptt_core.study.outcomes import RUN_COLUMNS, SIZE, SOURCE, Outcomes, collect, read_outcomes, write_outcomes
from viptt_core.study.plan import Arm, Study, slug
from viptt_core.study.variants import draw, join, join_splits, validated, vary
from viptt_core.training import History, Task, Trainer
from viptt_core.training.device import Engine, is_cacheable, pick_device, pick_precision
from viptt_core.training.inference import Features, frame_features, gather_features


@dataclass(frozen=True)
class Fit:
    """What the learning rate of lowest validation loss gave."""

    rate: float
    history: History
    model: ViPTTNet
    logits: np.ndarray  #: float32 [M, K] of the clips that test
    seconds: float  #: of all rates together


def best_fit(model: ViPTTNet, task: Task, rates: Sequence[float], *, engine: Engine, folder: Path) -> Fit:
    """Fit a copy of a model with each learning rate; keep the one of lowest validation loss.

    A rate that diverges is passed over, and a TrainingError where all do. Below `folder`, fits without kept features,
    which take more than seconds, keep checkpoints.
    """
    best, lowest, begun, failed = None, math.inf, time.perf_counter(), None
    for rate in rates:
        copied, tried = copy.deepcopy(model), replace(task, stage=replace(task.stage, learning_rate=rate))
        place = folder / f"{rate:g}" if task.features is None else None
        trainer = Trainer(copied, tried, engine=engine, folder=place)
        try:
            history = trainer.run()
        except TrainingError as error:
            failed = error
            continue
        loss = min(epoch["val_loss"] for epoch in history.epochs)
        if loss < lowest:
            best, lowest = Fit(rate, history, copied, trainer.predict(task.split.test), 0.0), loss
    if best is None:
        raise failed
    return replace(best, seconds=time.perf_counter() - begun)


@dataclass
class Runner:
    """Trains what a study asks for."""

    study: Study  #: the plan
    engine: Engine = field(default_factory=Engine)  #: how to run
    progress: bool = True  #: show progress bars of what is computed once for all cells
    _kept: dict = field(default_factory=dict, repr=False)

    # --- Data: each set and its features once -----------------------------------------------------------

    def clips(self, arm: Arm, source: str = "") -> ClipSet:
        """The scans of an arm, or one of its sets of videos; those of all seeds."""
        settings = self.study.sources[source] if source else self.study.scans
        settings = settings | {"progress": self.progress}
        n = settings.pop("n_no_finding", None)
        if arm.scans == "no finding" and not source:
            settings |= {"finding": False, "n": n or settings.get("n")}
        key = "set", arm.preset, dict(settings)  # nothing else of an arm changes the grid
        name, root = settings.pop("dataset"), settings.pop("root", None)
        return self._once(key, partial(load_for, self.study.preset_of(arm), name, root, **settings))

    def _features(self, arm: Arm, clips: ClipSet, stage: Stage, turned: np.ndarray | None = None) -> Features | None:
        """Features of a whole set; None where the backbone learns. A random backbone is that of seed 0 in all runs."""
        if not is_cacheable(stage) or not self.engine.feature_cache:
            return None
        preset, imagenet = self.study.preset_of(arm), arm.start != "random"

        def gather() -> Features:
            model = build_model(preset, 2, seed=0, imagenet=imagenet)
            model.place(device := pick_device(self.engine.device))
            precision = pick_precision(self.engine.precision, device, preset.backbone)
            return gather_features(model, clips, stage, turned, precision=precision, progress=self.progress)

        which = [] if turned is None else turned.tolist()
        key = ("features", preset.backbone, preset.stem, imagenet, clips.key, stage.pixel_range, which)
        return self._once(key, gather)

    def _once(self, key, make: Callable):
        key = digest(key)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    # --- Pretraining --------------------------------------------------------------------------------------

    def pretraining(self, arm: Arm, seed: int) -> tuple[dict[str, torch.Tensor], float]:
        """What an arm's seed takes over from videos, trained unless it is there; and the learning rate of that."""
        weights = pretraining_file(self.study, arm, seed, ".safetensors")
        with one_at_a_time(weights, "Another process pretrains the same; waiting for it."):
            if not weights.is_file():
                fit = self._pretrain(pretraining_of(self.study, arm), seed, weights.with_suffix(""))
                files.write_file(weights, save(_learned(fit.model)))
        of_source = pretraining_file(self.study, arm, seed, f"-{slug(self.study.sources_of(arm)[0])}.npz")
        return load_file(weights), read_outcomes(of_source).runs["learning_rate"].item()

    def _pretrain(self, arm: Arm, seed: int, folder: Path) -> Fit:
        """Train on all sources of an arm, and write what came of the test videos of each."""
        study, preset = self.study, self.study.preset_of(arm)
        stage, sets, splits, kept = preset.pretrain, {}, [], []
        for name in study.sources_of(arm):
            whole = self.clips(arm, name)
            one, features = vary(whole, self._features(arm, whole, stage), arm.videos, seed)
            sets[name] = one
            kept.append(features)
            n = arm.n_videos or study.n_videos or len(one)
            if n < len(one):
                rows = draw(len(one), n, seed=seed, apart=study.n_videos or n)
                split = split_by_group(one.labels[rows], one.groups[rows], seed=seed)
                splits.append(Split(*(rows[part] for part in (split.train, split.validation, split.test))))
            else:
                splits.append(make_split(preset.splits, one, stage="pretrain", seed=seed))
        joined, heads = join(sets)
        split = join_splits(splits, [len(one) for one in sets.values()])
        if study.pretrain_steps and not arm.preset:
            each = np.bincount(heads[joined.labels[split.train]])
            in_epoch = len(each) * math.ceil(each.max() / stage.batch_size)
            epochs = math.ceil(study.pretrain_steps / in_epoch)
            stage = replace(stage, epochs=epochs, stop_patience=epochs)
        model = build_model(preset, len(joined.class_names), seed=seed)
        task = Task(joined, split, stage, seed, _joined_features(kept), heads)
        fit = best_fit(model, task, study.rates_of(arm, stage), engine=self.engine, folder=folder)
        run = self._run_row(Cell(arm, seed, 0), fit, task)
        for head, name in enumerate(sets):
            mine = heads[joined.labels[split.test]] == head
            # By the true labels, of controls with shuffled ones, too: the runs of a source agree about its videos.
            videos, logits = self.clips(arm, name), fit.logits[mine][:, heads == head]
            one = _outcomes(run, videos, splits[head].test, _softmax(logits))
            write_outcomes(pretraining_file(study, arm, seed, f"-{slug(name)}.npz"), one)
        return fit

    # --- Cells --------------------------------------------------------------------------------------------

    def split(self, arm: Arm, seed: int, fold: int) -> Split:
        """Which scans train, validate and test a run."""
        study, scans = self.study, self.clips(arm)
        if study.folds_of(arm) > 1:
            return split_by_group(scans.labels, scans.groups, seed=seed, fold=fold, folds=study.folds)
        if arm.preset or not study.n_test:
            return make_split(study.preset_of(arm).splits, scans, stage="finetune", seed=seed)
        n = arm.n_train or study.n_train or len(scans) - study.n_test
        first = study.n_test
        if arm.scans == "no finding":  # a smaller set: what its seeds leave over tests
            first = len(scans) - study.seeds_of(arm) * study.n_train
        rows = draw(len(scans), n, seed=seed, apart=study.n_train or n, first=first)
        return validated(scans, rows, np.arange(first), seed)

    def task(self, arm: Arm, seed: int, fold: int) -> Task:
        """What a run has to learn."""
        study, whole, split = self.study, self.clips(arm), self.split(arm, seed, fold)
        stage = study.stage_of(arm)
        turned = self._once(("turned", arm.name), lambda: self._trained_on(arm)) if stage.rotate else None
        scans, features = vary(whole, self._features(arm, whole, stage, turned), arm.scans, seed)
        if arm.extra_steps:  # as many as a pretraining takes, on the scans
            epochs = stage.epochs + math.ceil(study.pretrain_steps / math.ceil(len(split.train) / stage.batch_size))
            stage = replace(stage, epochs=epochs, stop_patience=epochs)
        return Task(scans, split, stage, seed, features)

    def _trained_on(self, arm: Arm) -> np.ndarray:
        """The scans that any run of an arm trains on."""
        trained = [self.split(arm, one.seed, one.fold).train for one in cells_of(self.study, [arm])]
        return np.unique(np.concatenate(trained))

    def fit(self, arm: Arm, seed: int, fold: int) -> tuple[Fit, Task, float]:
        """Pretrain where the arm asks for it, and fine-tune; with the learning rate of pretraining, nan without."""
        task, preset, rate = self.task(arm, seed, fold), self.study.preset_of(arm), math.nan
        model = build_model(preset, len(task.clips.class_names), seed=seed, imagenet=arm.start != "random")
        if self.study.sources_of(arm):
            taken, rate = self.pretraining(arm, seed)
            model.load_pretrained(model.state_dict() | taken)
        folder = study_folder(self.study) / "fits" / slug(arm.name) / f"{seed:02d}-{fold}"
        rates = self.study.rates_of(arm, task.stage)
        return best_fit(model, task, rates, engine=self.engine, folder=folder), task, rate

    def run(self, cell: Cell) -> Cell:
        """Run a cell into its file, unless it is there; returns it."""
        path, keep = cell.file(self.study), cell.seed == cell.fold == 0 and cell.arm.name in self.study.primary
        with one_at_a_time(path, f"Another process runs {cell.arm.name}, seed {cell.seed}; waiting for it."):
            if path.is_file():
                return cell
            fit, task, pretrain_rate = self.fit(cell.arm, cell.seed, cell.fold)
            if keep:  # what evidence is asked of
                files.write_file(weights_file(self.study, cell.arm), save(_learned(fit.model)))
            row = self._run_row(cell, fit, task) | {"pretrain_rate": pretrain_rate}
            write_outcomes(path, _outcomes(row, task.clips, task.split.test, _softmax(fit.logits)))
        return cell

    def run_all(self, arms: Sequence[Arm], jobs: int = 1) -> None:
        """Run every cell of some arms that is not there, so many processes at a time."""
        from tqdm import tqdm

        unpack(self.study)
        todo = [cell for cell in cells_of(self.study, arms) if not cell.file(self.study).is_file()]
        if not todo:
            return
        self.prepare(arms)
        quiet = replace(self, progress=False, _kept={})
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), _become, (quiet,))  # no process before it has work
        with pool, tqdm(desc=self.study.name, total=len(todo), unit="run") as cells:
            for cell in map(self.run, todo) if jobs == 1 else pool.map(_run_here, todo):
                cells.set_postfix_str(f"{cell.arm.name}, seed {cell.seed}", refresh=False)
                cells.update()

    def prepare(self, arms: Sequence[Arm]) -> None:
        """Decode or simulate what some arms need, and compute the features that are kept."""
        for arm in arms:
            self.task(arm, 0, 0)
            for name in self.study.sources_of(arm):
                self._features(arm, self.clips(arm, name), self.study.preset_of(arm).pretrain)

    def run_baselines(self) -> None:
        """Predict without a network: scans of the first arm's runs, and videos of files by the size of the picture."""
        study, arm, parts = self.study, self.study.arms[0], {BASELINES: []}
        for cell in cells_of(study, [arm]):
            task = self.task(arm, cell.seed, cell.fold)
            kept = None if task.features is None else task.features.array[task.features.rows[0]]
            predicted = baseline_predictions(task.clips, task.split, kept)
            for name, rows in predicted[predicted["part"] == "test"].groupby("arm", sort=False):
                run = self._row(name, cell.seed, cell.fold, task.split)
                parts[BASELINES].append(_outcomes(run, task.clips, task.split.test, probabilities_of(rows)))
        for name in study.sources:
            arm = next(arm for arm in study.arms if arm.start == "video")
            videos = self.clips(arm, name)
            for seed in range(study.seeds_of(arm) if videos.files else 0):
                split = make_split(study.preset_of(arm).splits, videos, stage="pretrain", seed=seed)
                one = _outcomes(self._row(SIZE, seed, 0, split), videos, split.test, size_predictions(videos, split))
                parts.setdefault(SOURCE + name, []).append(one)
        for experiment, each in parts.items():
            write_outcomes(baselines_file(study, experiment), collect(each))

    def run_evidence(self, n: int = 200) -> None:
        """Importance of slices to the primary arms of seed 0, for the first n test phantoms; only phantoms have it."""
        study, arms = self.study, [self.study.arm(name) for name in self.study.primary]
        if study.scans["dataset"] != "phantom" or not all(weights_file(study, arm).is_file() for arm in arms):
            return
        task = self.task(arms[0], 0, 0)  # both arms have the same scans
        if task.features is None:  # occlusion is of kept features
            return
        rows, clips = task.split.test[:n], task.clips
        models = {}
        for arm in arms:
            models[arm.name] = build_model(study.preset_of(arm), len(clips.class_names), seed=0)
            models[arm.name].load_state_dict(load_file(weights_file(study, arm)), strict=False)
        grid = Grid(*clips.clips.shape[1:3])
        empty = frame_features(models[arms[0].name], torch.zeros(1, 1, grid.size, grid.size), "fp32")[0, 0].numpy()
        phantoms, seed = zip(rows, clips.labels[rows].tolist(), strict=True), study.scans.get("seed", 0)
        findings = [finding_on_grid(seed, row, label, grid).any(axis=(1, 2)) for row, label in phantoms]
        given = {"names": clips.names[rows], "labels": clips.labels[rows], "findings": np.stack(findings)}
        kept = task.features.array[task.features.of(rows)]
        write_evidence(study_folder(study) / EVIDENCE, gather_evidence(models, kept, empty, **given))

    def _row(self, arm: str, seed: int, fold: int, split: Split) -> dict:
        """What is said of any run, see `outcomes.RUN_COLUMNS`."""
        return {"arm": arm, "seed": seed, "fold": fold, "n_train": len(split.train), "plan": self.study.digest}

    def _run_row(self, cell: Cell, fit: Fit, task: Task) -> dict:
        history = fit.history
        best = min(history.epochs, key=lambda epoch: epoch["val_loss"])
        return self._row(cell.arm.name, cell.seed, cell.fold, task.split) | {
            "learning_rate": fit.rate,
            "epochs": len(history.epochs),
            "best_epoch": history.best_epoch,
            "epoch_limit": task.stage.epochs,
            "stopped_early": history.stopped_early,
            "val_loss": best["val_loss"],
            "val_kappa": best["val_kappa"],
            "seconds": round(fit.seconds, 2),
            **_machine(),
        }


@cache
def _machine() -> dict[str, str]:
    """Device and commit of this process."""
    record = files.provenance()
    return {"device": record["gpu"] or record["processor"], "commit": record["commit"]}


# --- In other processes ---------------------------------------------------------------------------------------------
_HERE: Runner | None = None


def _become(runner: Runner) -> None:
    """Let this process run cells; it has one thread, as there are as many processes as cores."""
    global _HERE
    torch.set_num_threads(1)
    _HERE = runner


def _run_here(cell: Cell) -> Cell:
    return _HERE.run(cell)


# --- Files ----------------------------------------------------------------------------------------------------------
def _learned(model: ViPTTNet) -> dict[str, torch.Tensor]:
    """All weights; without the backbone's where it was frozen."""
    frozen = not any(weight.requires_grad for weight in model.backbone.parameters())
    state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    return {name: tensor for name, tensor in state.items() if not (frozen and name.startswith("backbone."))}


def _joined_features(kept: Sequence[Features | None]) -> Features | None:
    """Features of sets that `join` puts one after another; none is turned."""
    if kept[0] is None or len(kept) == 1:
        return kept[0]
    array = np.concatenate([one.array[one.rows[0]] for one in kept])
    return Features(array, np.arange(len(array))[None])


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Float64 [M, K]."""
    return torch.from_numpy(logits).double().softmax(dim=1).numpy()


def _outcomes(run: dict, clips: ClipSet, rows: np.ndarray, probabilities: np.ndarray) -> Outcomes:
    """One run's predictions of some clips of a set, probabilities [M, K]."""
    return Outcomes(
        clips.names[rows],
        clips.groups[rows],
        clips.labels[rows],
        clips.class_names,
        pd.DataFrame([run], columns=list(RUN_COLUMNS)),
        probabilities.astype(np.float16)[None],
        clips.synthetic,
    )
