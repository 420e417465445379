"""Where the runs of a study lie while it goes on, and how they are put together for `results/`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from viptt_core import files
from viptt_core.errors import DataError
from viptt_core.files import artifact_root, git_commit
from viptt_core.results import runs_root
from viptt_core.study.evidence import FILE as EVIDENCE
from viptt_core.study.outcomes import RECORD, SOURCE, collect, read_outcomes, write_outcomes
from viptt_core.study.plan import Arm, Study, slug

BASELINES = "baselines"  # experiment of what needs no network


def study_folder(study: Study) -> Path:
    """Where a study's cells lie until they are packed; another plan has another folder."""
    return runs_root() / "studies" / f"{study.name}-{study.digest}"


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    arm: Arm
    seed: int
    fold: int

    def file(self, study: Study) -> Path:
        """Its outcomes."""
        return study_folder(study) / "cells" / slug(self.arm.name) / f"{self.seed:02d}-{self.fold}.npz"


def cells_of(study: Study, arms: Sequence[Arm]) -> list[Cell]:
    """All runs of some arms, seed by seed, so that arms to be compared are finished together."""
    seeds = range(max(study.seeds_of(arm) for arm in arms))
    wanted = [(seed, arm) for seed in seeds for arm in arms if seed < study.seeds_of(arm)]
    return [Cell(arm, seed, fold) for seed, arm in wanted for fold in range(study.folds_of(arm))]


def weights_file(study: Study, arm: Arm) -> Path:
    """What an arm of the primary contrast learned with seed 0, a frozen backbone left out."""
    return study_folder(study) / "weights" / f"{slug(arm.name)}.safetensors"


def pretraining_of(study: Study, arm: Arm) -> Arm | None:
    """The first arm of the plan that is pretrained as this one is: both share the weights. None without videos."""

    def decides(one: Arm) -> tuple:
        preset = study.preset_of(one)
        return study.sources_of(one), preset.name, preset.backbone, preset.temporal, one.videos, one.n_videos

    return next((one for one in study.arms if study.sources_of(one) and decides(one) == decides(arm)), None)


def pretraining_file(study: Study, arm: Arm, seed: int, ending: str) -> Path:
    """Of the pretraining of an arm's seed: ".safetensors", what was learned; "-SOURCE.npz", its test on that source."""
    return study_folder(study) / "pretraining" / slug(pretraining_of(study, arm).name) / f"{seed:02d}{ending}"


def baselines_file(study: Study, experiment: str = BASELINES) -> Path:
    """Of what needs no network, on scans or on the videos of a source."""
    return study_folder(study) / f"{experiment}-by-itself.npz"


def pack(study: Study, folder: Path | None = None) -> list[Path]:
    """Put the cells of each experiment into one file, the pretrainings of each source too; what is missing is left out.

    Args:
        study: The plan.
        folder: Where to; None takes `results/NAME`.

    Raises:
        DataError: nothing has run.
    """
    folder, here = folder or artifact_root() / "results" / study.name, study_folder(study)
    packed = {name: [cell.file(study) for cell in cells_of(study, arms)] for name, arms in study.experiments().items()}
    for name in study.sources:
        packed[SOURCE + name] = sorted((here / "pretraining").glob(f"*/*-{slug(name)}.npz"))
    for experiment in (*packed, BASELINES):
        packed.setdefault(experiment, []).append(baselines_file(study, experiment))
    packed = {name: [read_outcomes(path) for path in paths if path.is_file()] for name, paths in packed.items()}
    packed = {name: collect(parts) for name, parts in packed.items() if parts}
    if not packed:
        raise DataError("no arm of the study has run.", path=here, remedy=f"Run: viptt study run {study.file}")
    written = [folder / f"{name}.npz" for name in packed]
    for path, outcomes in zip(written, packed.values(), strict=True):
        write_outcomes(path, outcomes)
    if (here / EVIDENCE).is_file():
        written.append(folder / EVIDENCE)
        files.write_file(written[-1], (here / EVIDENCE).read_bytes())
    runs = pd.concat([one.runs for one in packed.values()])
    plan_file = Path(study.file)
    inside, planned = plan_file.is_relative_to(artifact_root()), git_commit(plan_file)
    record = {
        "plan": study.digest,
        "plan_file": plan_file.relative_to(artifact_root()).as_posix() if inside else study.file,
        "plan_commit": "" if planned == "unknown" or planned.endswith("+") else planned,
        "commits": sorted(runs["commit"].dropna().unique()),
        "devices": sorted(runs["device"].dropna().unique()),
        "synthetic": any(packed[name].synthetic for name in study.experiments() if name in packed),
        "seconds": round(float(pd.to_numeric(runs["seconds"]).sum())),
    }
    written.append(folder / RECORD)
    files.write_file(written[-1], json.dumps(record, indent=1) + "\n")
    return written


def unpack(study: Study, folder: Path | None = None) -> None:
    """Put packed runs of the same plan back in their places, so that a study begun elsewhere goes on.

    Args:
        study: The plan.
        folder: Where from; None takes `results/NAME`.
    """
    folder, planned = folder or artifact_root() / "results" / study.name, {arm.name: arm for arm in study.arms}
    record = folder / RECORD
    if not record.is_file() or json.loads(record.read_text(encoding="utf-8")).get("plan") != study.digest:
        return
    for path in folder.glob("*.npz"):
        if path.name == EVIDENCE:
            continue
        whole, places = read_outcomes(path), {}
        for row, run in enumerate(whole.runs.itertuples()):
            place, arm = baselines_file(study, path.stem), planned.get(run.arm)
            if arm and path.stem.startswith(SOURCE):
                place = pretraining_file(study, arm, run.seed, f"-{slug(path.stem.removeprefix(SOURCE))}.npz")
            elif arm:
                place = Cell(arm, run.seed, run.fold).file(study)
            places.setdefault(place, []).append(row)
        for place, rows in places.items():
            if not place.is_file():
                write_outcomes(place, whole.of_runs(rows))
