"""Where the runs of a study lie while it goes on, and how they are put together for `results/`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from viptt_core import files
from viptt_core.errors import DataError
from viptt_core.files import artifact_root, git_commit
from viptt_core.results import runs_root
from viptt_core.study.outcomes import RECORD, collect, read_outcomes, write_outcomes
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


def pretraining_key(study: Study, arm: Arm) -> str:
    """Arms with the same key share their pretrainings; "" for those without."""
    if not (names := study.sources_of(arm)):
        return ""
    preset = study.preset_of(arm)
    parts = (preset.name, preset.backbone, preset.temporal, *names, arm.videos, arm.n_videos or study.n_videos)
    return slug(" ".join(map(str, parts)))


def pack(study: Study, folder: Path | None = None) -> list[Path]:
    """Put the cells of each experiment into one file, the pretrainings of each source too; what is missing is left out.

    Args:
        study: The plan.
        folder: Where to; None takes `results/NAME`.

    Raises:
        DataError: nothing has run.
    """
    folder, here = folder or artifact_root() / "results" / study.name, study_folder(study)
    packed = {}
    for experiment, arms in study.experiments().items():
        packed[experiment] = [
            read_outcomes(path) for cell in cells_of(study, arms) if (path := cell.file(study)).is_file()
        ]
    keys = {}
    for arm in study.arms:
        keys.setdefault(pretraining_key(study, arm), arm.name)
    for name in study.sources:
        paths = sorted((here / "pretraining").glob(f"*/*-{slug(name)}.npz"))
        found = [read_outcomes(path) for path in paths]
        packed[f"source-{name}"] = [replace(one, runs=one.runs.assign(arm=one.runs["arm"].map(keys))) for one in found]
    for path in sorted(here.glob(f"{BASELINES}*.npz")):
        experiment = path.stem.replace(f"{BASELINES}-", "source-")
        packed.setdefault(experiment, []).append(read_outcomes(path))
    packed = {name: collect(parts) for name, parts in packed.items() if parts}
    if not packed:
        raise DataError("no arm of the study has run.", path=here, remedy=f"Run: viptt study run {study.file}")
    written = []
    for name, outcomes in packed.items():
        written.append(folder / f"{name}.npz")
        write_outcomes(written[-1], outcomes)
    runs = pd.concat([one.runs for one in packed.values()])
    plan_file = Path(study.file)
    inside = plan_file.is_relative_to(artifact_root())
    record = {
        "plan": study.digest,
        "plan_file": plan_file.relative_to(artifact_root()).as_posix() if inside else study.file,
        "plan_commit": git_commit(plan_file),
        "commits": sorted(runs["commit"].dropna().unique()),
        "devices": sorted(runs["device"].dropna().unique()),
        "seconds": round(float(pd.to_numeric(runs["seconds"]).sum())),
    }
    written.append(folder / RECORD)
    files.write_file(written[-1], json.dumps(record, indent=1) + "\n")
    return written
