"""What a study takes: a few training steps are timed on this machine, times the fits of the plan; nothing is kept."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pandas as pd

from viptt_core.clips import ClipSet
from viptt_core.datasets import SYNTHETIC, list_dataset, split_settings
from viptt_core.experiment import build_model
from viptt_core.presets import Preset, Stage
from viptt_core.splits import Split
from viptt_core.study.cells import pretraining_of
from viptt_core.study.plan import Study
from viptt_core.training import Task, Trainer
from viptt_core.training.device import Engine, is_cacheable
from viptt_core.training.inference import Features

STEPS, PATIENCE = 10, 30.0  # steps timed of each kind of training; no more of them after so many seconds


def estimate(study: Study, engine: Engine) -> pd.DataFrame:
    """Columns training, fits, steps, seconds a step, hours: a row a fit's kind, every fit to its last epoch.

    What is computed once for all fits (clips, features) is not in it.

    Raises:
        SettingError: a folder is not named, or a setting is unknown.
        DataError: a set cannot be used as it is.
    """
    rows, fits, pretrainings = {}, [], {}
    n_scans = _size(study, study.scans) - study.n_test
    n_videos = {name: study.n_videos or _size(study, settings) for name, settings in study.sources.items()}
    for arm in study.arms:
        preset, stage = study.preset_of(arm), study.stage_of(arm)
        clips = arm.n_train or study.n_train or n_scans
        runs = study.seeds_of(arm) * study.folds_of(arm) * len(study.rates_of(arm, stage))
        fits.append(("fine-tuning", preset, stage, runs, stage.epochs * math.ceil(clips / stage.batch_size)))
        if first := pretraining_of(study, arm):
            stage, clips = preset.pretrain, sum(arm.n_videos or n_videos[name] for name in study.sources_of(arm))
            runs = max(study.seeds_of(arm) * len(study.rates_of(arm, stage)), pretrainings.get(first.name, [0] * 4)[3])
            steps = study.pretrain_steps or stage.epochs * math.ceil(clips / stage.batch_size)
            pretrainings[first.name] = ("pretraining", preset, stage, runs, steps)
    for kind, preset, stage, runs, steps in [*pretrainings.values(), *fits]:
        how = "frozen" if stage.freeze_backbone else "trained"
        name = f"{kind}, {preset.name}: {preset.backbone} {how}, {preset.temporal}{', rotated' * stage.rotate}"
        if name not in rows:
            rows[name] = {"fits": 0, "steps": 0, "seconds a step": _seconds_a_step(preset, stage, engine)}
        rows[name]["fits"] += runs
        rows[name]["steps"] += runs * steps
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("training").reset_index()
    return table.assign(hours=table["steps"] * table["seconds a step"] / 3600)


def _size(study: Study, settings: dict) -> int:
    """Clips of a set, which is listed if it is real."""
    named = dict(settings)
    name, root = named.pop("dataset"), named.pop("root", "")
    if name in SYNTHETIC:
        preset = study.preset_of(study.arms[0])
        return named.get("n") or (preset.n_scans if name == "phantom" else preset.n_videos)
    listing = list_dataset(name, root, **split_settings(name, named)[2])
    listing.check_usable(named.get("on_error", "raise"))
    return len(listing.items)


def _seconds_a_step(preset: Preset, stage: Stage, engine: Engine) -> float:
    """Median over steps on a batch of random pixels, or of random features where those are kept."""
    n = np.arange(stage.batch_size)
    rng, shape = np.random.default_rng(0), (len(n), preset.frames, preset.size, preset.size)
    clips = ClipSet(
        rng.integers(0, 256, shape, np.uint8), n % 10, n.astype(str), n.astype(str), tuple("abcdefghij"), {}
    )
    model, features = build_model(preset, 10, seed=0, imagenet=False), None
    if engine.feature_cache and is_cacheable(stage):
        array = rng.random((len(n), preset.frames, model.temporal.input_size), np.float32)
        features = Features(array, np.tile(n, (7 if stage.rotate else 1, 1)))
    task = Task(clips, Split(n, n[:1], n[:1]), replace(stage, class_weights=False), features=features)
    trainer = Trainer(model, task, engine=engine)
    batch = next(iter(trainer.feed.batches([n])))
    taken: list[float] = []
    while len(taken) < STEPS and sum(taken) < PATIENCE:
        begun = time.perf_counter()
        float(trainer.step(batch))  # waits for the device
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))
