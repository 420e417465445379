"""The runs of a study: learning rates from pilot runs, then every arm with all its seeds and folds.

Finished runs are found again by what decided them (`experiment`), so that an interrupted study goes on.
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core import files
from viptt_core.clips import ClipSet
from viptt_core.datasets import load_for
from viptt_core.errors import DataError, DataWarning
from viptt_core.experiment import Plan, finetune, pretrain
from viptt_core.files import artifact_root, git_commit
from viptt_core.metrics import accuracy
from viptt_core.presets import Preset
from viptt_core.probes import baseline_predictions
from viptt_core.results import Run, class_names_of, predicted_classes, probabilities_of, runs_root
from viptt_core.splits import make_split
from viptt_core.statistics import resample, two_level_comparison
from viptt_core.study.outcomes import (
    RECORD,
    RUN_COLUMNS,
    WITHDRAWN,
    Outcomes,
    collect,
    read_committed,
    read_outcomes,
    write_outcomes,
)
from viptt_core.study.plan import Arm, Study, pretraining_key, slug
from viptt_core.study.variants import draw_scans, fold_scans, vary_scans, vary_videos
from viptt_core.training.device import Engine


def study_folder(study: Study) -> Path:
    """Where a study's arms and rates lie until they are packed."""
    return runs_root() / "studies" / study.name


def arm_file(study: Study, arm: Arm) -> Path:
    """Outcomes of an arm."""
    return study_folder(study) / "arms" / f"{slug(arm.name)}.npz"


def baselines_file(study: Study) -> Path:
    """Outcomes of the baselines."""
    return study_folder(study) / "baselines.npz"


@dataclass
class StudyData:
    """The sets of a study, each loaded once.

    Args:
        study: The plan.
        progress: Show progress bars of decoding.
    """

    study: Study
    progress: bool = True
    _loaded: dict = field(default_factory=dict)

    def scans(self, arm: Arm) -> ClipSet:
        """All scans of an arm, before any draw."""
        settings = dict(self.study.scans)
        if arm.scans == "no finding":
            settings["finding"] = False
            if self.study.n_no_finding:
                settings["n"] = self.study.n_pool + self.study.n_no_finding
        return vary_scans(self._load(self.study.preset_of(arm), settings), arm.scans, seed=0)

    def videos(self, arm: Arm, seed: int) -> ClipSet:
        """The videos an arm pretrains on."""
        return vary_videos(self._load(self.study.preset_of(arm), self.study.videos), arm.videos, seed)

    def reports(self) -> list[tuple[str, str]]:
        """(name, report) of each set loaded so far."""
        return [(json.loads(key)[1]["dataset"], loaded.report()) for key, loaded in self._loaded.items()]

    def _load(self, preset: Preset, settings: dict) -> ClipSet:
        grid = {name: getattr(preset, name) for name in ("frames", "size", "stride", "fit", "hu_window", "orientation")}
        key = json.dumps([grid, settings], sort_keys=True, default=str)
        if key not in self._loaded:
            named = dict(settings)
            self._loaded[key] = load_for(
                preset, named.pop("dataset"), named.pop("root", None), progress=self.progress, **named
            )
        return self._loaded[key]


@dataclass(frozen=True)
class Runner:
    """Trains what a study asks for.

    Attributes:
        study, data: The plan and its sets.
        engine: How to run.
        progress: Show progress bars.
    """

    study: Study
    data: StudyData
    engine: Engine = Engine()
    progress: bool = True

    def pretraining(self, arm: Arm, seed: int) -> Run | None:
        """The pretraining run of an arm's seed, trained now unless it is there; None for random or ImageNet weights."""
        preset = self.study.preset_of(arm)
        if not pretraining_key(self.study, arm):
            return None
        with warnings.catch_warnings():
            if arm.videos == "split by clip":  # what is warned of is what this control is for
                warnings.simplefilter("ignore", DataWarning)
            return pretrain(
                Plan(preset, (arm.start,), seed, self.engine),
                self.data.videos(arm, seed),
                start=arm.pretrains,
                progress=self.progress,
            )

    def rate(self, arm: Arm) -> float:
        """An arm's learning rate: the one of the plan's with the lowest validation loss in a pilot run.

        The pilot's seed, and with it its scans, its split and its start, are used by no other run, and its test part
        is none of the study's.
        """
        if arm.rate_of:
            return self.rate(self.study.arm(arm.rate_of))
        if not self.study.learning_rates or arm.preset:
            return self.study.preset_of(arm).stage(arm.start).learning_rate
        path = study_folder(self.study) / "rates" / f"{slug(arm.name)}.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["plan"] == self.study.digest:
                return found["rate"]
        seed = self.study.pilot_seed
        pretrained, losses, seconds = self.pretraining(arm, seed), {}, 0.0
        scans = self._scans(arm, seed, fold=0, test=False)
        for rate in self.study.learning_rates:
            run = self._finetune(arm, scans, seed, rate, pretrained)
            losses[rate] = float(run.history["val_loss"].min())
            seconds += run.provenance["seconds"]
        best = min(losses, key=losses.get)
        found = {
            "plan": self.study.digest,
            "rate": best,
            "seconds": round(seconds, 1),
            "val_loss": {str(rate): loss for rate, loss in losses.items()},
        }
        files.write_file(path, json.dumps(found))
        return best

    def run_arm(self, arm: Arm, seeds: int = 0) -> Outcomes:
        """All seeds and folds of an arm, into its file.

        Args:
            arm: Which.
            seeds: How many; 0 takes the plan's.
        """
        rate, parts, seconds = self.rate(arm), [], []
        seeds, folds = seeds or self.study.seeds_of(arm), max(1, self.study.folds)
        for seed in range(seeds):
            pretrained = self.pretraining(arm, seed)
            for fold in range(folds):
                scans = self._scans(arm, seed, fold)
                run = self._finetune(arm, scans, seed, rate, pretrained)
                parts.append(_outcome(self.study, arm, run, pretrained, (seed, fold), scans))
                seconds.append(run.provenance["seconds"])
                left = timedelta(seconds=round(np.mean(seconds) * (seeds * folds - len(seconds))))
                print(f"{arm.name}: {len(seconds)} of {seeds * folds} runs, about {left} left", flush=True)
        outcomes = collect(parts)
        write_outcomes(arm_file(self.study, arm), outcomes)
        return outcomes

    def run_primary(self, say=print) -> None:
        """Both arms of the primary contrast, with as many seeds as the rule asks for."""
        rule, study = self.study.primary, self.study
        arms = study.arm(rule.arm), study.arm(rule.baseline)
        seeds = max(map(study.seeds_of, arms))
        while True:
            one, other = (self.run_arm(arm, seeds) for arm in arms)
            if not rule.width or seeds < 2:
                return
            ours, theirs = one.by_seed(arms[0].name)[0], other.by_seed(arms[1].name)[0]
            tables = resample(one.labels, np.concatenate([ours, theirs]), groups=one.groups)
            found = two_level_comparison("kappa", tables[: len(ours)], tables[len(ours) :])
            say(f"{seeds} seeds: the 95 % interval of the primary contrast is {found.high - found.low:.3f} wide.")
            if found.high - found.low <= rule.width or seeds >= rule.most:
                return
            seeds = min(seeds + rule.more, rule.most)

    def run_baselines(self) -> Outcomes:
        """What needs no network, on the scans of the first arm's first seed or of all folds, into a file of its own."""
        arm, parts = self.study.arms[0], []
        for fold in range(max(1, self.study.folds)):
            scans = self._scans(arm, 0, fold)
            split = make_split(self._splits(arm), scans, stage="finetune", seed=0)
            predicted = baseline_predictions(scans, split)
            for name, rows in predicted[predicted["part"] == "test"].groupby("arm", sort=False):
                run = {"arm": name, "seed": 0, "fold": fold, "n_train": len(split.train), "plan": self.study.digest}
                parts.append(_outcomes(run, rows, scans.synthetic))
        outcomes = collect(parts)
        write_outcomes(baselines_file(self.study), outcomes)
        return outcomes

    def _scans(self, arm: Arm, seed: int, fold: int, *, test: bool = True) -> ClipSet:
        scans, study = self.data.scans(arm), self.study
        if study.folds:
            return fold_scans(scans, fold, study.folds, seed=0 if test else seed)
        if not study.n_pool:
            return scans
        return draw_scans(
            scans, n_pool=study.n_pool, n_train=arm.n_train or study.n_train or study.n_pool, seed=seed, test=test
        )

    def _splits(self, arm: Arm) -> str:
        """How scans are split: draws and folds are parts of the set, which no preset may split otherwise."""
        return "official" if self.study.folds or self.study.n_pool else self.study.preset_of(arm).splits

    def _finetune(self, arm: Arm, scans: ClipSet, seed: int, rate: float, pretrained: Run | None) -> Run:
        preset = self.study.preset_of(arm)
        scratch = {name: value for name, value in preset.scratch.items() if name != "learning_rate"}
        preset = replace(
            preset, finetune=replace(preset.finetune, learning_rate=rate), scratch=scratch, splits=self._splits(arm)
        )
        if arm.extra_steps:
            preset = replace(preset, finetune=self._with_extra_steps(arm, scans, seed, preset))
        plan = Plan(preset, (arm.start,), seed, self.engine)
        return finetune(plan, scans, arm.start, pretrained=pretrained, transfer=arm.parts, progress=self.progress)

    def _with_extra_steps(self, arm: Arm, scans: ClipSet, seed: int, preset: Preset):
        """The stage with the steps of the pretraining in addition; it does not stop before it took them all."""

        def steps(clips: ClipSet, stage: str) -> int:
            kind = self._splits(arm) if stage == "finetune" else self.study.preset_of(arm).splits
            split = make_split(kind, clips, stage=stage, seed=seed)
            return math.ceil(len(split.train) / getattr(preset, stage).batch_size)

        extra = preset.pretrain.epochs * steps(self.data.videos(arm, seed), "pretrain")
        epochs = preset.finetune.epochs + math.ceil(extra / steps(scans, "finetune"))
        return replace(preset.finetune, epochs=epochs, stop_patience=epochs)


def _outcome(
    study: Study, arm: Arm, run: Run, pretrained: Run | None, cell: tuple[int, int], scans: ClipSet
) -> Outcomes:
    """A finished run of an arm, seed and fold (`cell`), as `Outcomes` of one row."""
    seed, fold = cell
    tested = run.predictions[run.predictions["part"] == "test"]
    best = run.history.loc[run.history["val_loss"].idxmin()]
    row = {
        "arm": arm.name,
        "seed": seed,
        "fold": fold,
        "n_train": int(run.config["split"].split(" ")[0]),
        "learning_rate": float(run.history["learning_rate"].iloc[0]),
        "epochs": len(run.history),
        "best_epoch": int(run.config["best_epoch"]),
        "stopped_early": bool(run.config["stopped_early"]),
        "epoch_limit": int(run.config["preset"]["finetune"]["epochs"]),
        "val_loss": float(best["val_loss"]),
        "val_kappa": float(best["val_kappa"]),
        "seconds": run.provenance["seconds"],
        "peak_memory_mb": run.provenance["peak_memory_mb"],
        "device": _device(run),
        "finished": run.provenance["date"],
        "run": run.folder.name,
        "commit": run.provenance["commit"],
        "plan": study.digest,
    }
    if pretrained is not None:
        held_out = pretrained.predictions[pretrained.predictions["part"] == "test"]
        row |= {
            "pretrain_run": pretrained.folder.name,
            "pretrain_seconds": pretrained.provenance["seconds"],
            "pretrain_accuracy": accuracy(held_out["label"].to_numpy(), predicted_classes(held_out)),
            "pretrain_classes": len(class_names_of(held_out)),
        }
    return _outcomes(row, tested, scans.synthetic)


def _outcomes(run: dict, tested: pd.DataFrame, synthetic: bool) -> Outcomes:
    """Predictions of the test part of one run, see `results.Run.predictions`."""
    return Outcomes(
        tested["name"].to_numpy(str),
        tested["group"].to_numpy(str),
        tested["label"].to_numpy(np.int64),
        tuple(class_names_of(tested)),
        pd.DataFrame([run], columns=list(RUN_COLUMNS)),
        probabilities_of(tested).astype(np.float16)[None],
        synthetic,
    )


def _device(run: Run) -> str:
    return run.provenance.get("gpu") or run.provenance.get("processor") or run.provenance["device"]


def pack(study: Study, folder: Path | None = None) -> list[Path]:
    """Put the arms of each experiment into one file, and what was run into `study.json`; what is missing is left out.

    Args:
        study: The plan.
        folder: Where to; None takes `results/NAME`.

    Raises:
        DataError: no arm has run, or some ran after another plan.
    """
    folder, written, commits, devices = folder or artifact_root() / "results" / study.name, [], set(), set()
    arm_files = {name: [arm_file(study, arm) for arm in arms] for name, arms in study.experiments().items()}
    for experiment, paths in (arm_files | {"baselines": [baselines_file(study)]}).items():
        parts = [read_outcomes(path) for path in paths if path.is_file()]
        other = {plan for part in parts for plan in part.runs["plan"]} - {study.digest}
        if other:
            what = f"runs of '{experiment}' follow another plan ({', '.join(sorted(other))})."
            remedy = "Move this folder away and run the study again."
            raise DataError(what, path=study_folder(study), remedy=remedy)
        if parts:
            written.append(folder / f"{experiment}.npz")
            write_outcomes(written[-1], collect(parts))
            commits |= {commit for part in parts for commit in part.runs["commit"].dropna()}
            devices |= {device for part in parts for device in part.runs["device"].dropna()}
    if not written:
        raise DataError("no arm of the study has run.", path=study_folder(study), remedy="Run: make paper")
    plan_file = Path(study.file)
    inside = plan_file.is_relative_to(artifact_root())
    committed = read_committed(study.name, folder.parent.parent).record if (folder / RECORD).is_file() else {}
    record = {
        "plan": study.digest,
        "plan_file": plan_file.relative_to(artifact_root()).as_posix() if inside else study.file,
        "plan_commit": git_commit(plan_file),
        "commits": sorted(commits),
        "devices": sorted(devices),
    } | _pilots(study)
    if WITHDRAWN in committed and committed.get("plan") == study.digest:  # the same runs do not stand again
        record[WITHDRAWN] = committed[WITHDRAWN]
    written.append(folder / RECORD)
    files.write_file(written[-1], json.dumps(record, indent=1) + "\n")
    return written


def _pilots(study: Study) -> dict:
    """Number and cost of the pilot runs that chose the learning rates."""
    rates = [json.loads(path.read_text("utf-8")) for path in sorted((study_folder(study) / "rates").glob("*.json"))]
    rates = [rate for rate in rates if rate["plan"] == study.digest]
    return {
        "pilot_runs": sum(len(rate["val_loss"]) for rate in rates),
        "pilot_seconds": round(sum(rate["seconds"] for rate in rates), 1),
    }
