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
from viptt_core.study.plan import Study, pretraining_key
from viptt_core.training import Task, Trainer
from viptt_core.training.device import Engine, is_cacheable, to_pixels
from viptt_core.training.inference import frame_features

STEPS, PATIENCE = 10, 30.0  # steps timed of each kind of training; no more of them after so many seconds


def estimate(study: Study, engine: Engine) -> pd.DataFrame:
    """Columns training, fits, steps, seconds a step, hours: a row a fit's kind, every fit to its last epoch.

    Raises:
        SettingError: a folder is not named, or a setting is unknown.
        DataError: a set cannot be used as it is.
    """
    sizes = {kind: _size(study, kind) for kind in ("scans", "videos")}
    fits, pretrainings, rows = [], {}, {}
    for arm in study.arms:
        preset, pilots = study.preset_of(arm), 0 if arm.rate_of or arm.preset else len(study.learning_rates)
        scans = arm.n_train or study.n_train or study.n_pool or sizes["scans"]
        runs = study.seeds_of(arm) * max(1, study.folds) + pilots
        fits.append(("fine-tuning", preset, preset.stage(arm.start), runs, scans))
        if key := pretraining_key(study, arm):
            runs = max(study.seeds_of(arm) + bool(pilots), pretrainings.get(key, [0] * 4)[3])
            pretrainings[key] = ("pretraining", preset, preset.pretrain, runs, sizes["videos"])
    for kind, preset, stage, runs, clips in [*pretrainings.values(), *fits]:
        how = "frozen" if stage.freeze_backbone else "trained"
        name = f"{kind}, {preset.name}: {preset.backbone} {how}, {preset.temporal}{', rotated' * stage.rotate}"
        if name not in rows:
            rows[name] = {"fits": 0, "steps": 0, "seconds a step": _seconds_a_step(preset, stage, engine)}
        rows[name]["fits"] += runs
        rows[name]["steps"] += runs * stage.epochs * math.ceil(clips / stage.batch_size)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("training").reset_index()
    return table.assign(hours=table["steps"] * table["seconds a step"] / 3600)


def _size(study: Study, kind: str) -> int:
    """Clips of a set, which is listed if it is real."""
    settings = dict(getattr(study, kind))
    name, root = settings.pop("dataset"), settings.pop("root", "")
    if name in SYNTHETIC:
        return settings.get("n") or getattr(study.preset_of(study.arms[0]), f"n_{kind}")
    listing = list_dataset(name, root, **split_settings(name, settings)[2])
    listing.check_usable(settings.get("on_error", "raise"))
    return len(listing.items)


def _seconds_a_step(preset: Preset, stage: Stage, engine: Engine) -> float:
    """Median over steps on a batch of random pixels; on their features where training caches those."""
    n = np.arange(stage.batch_size)
    shape = (len(n), preset.frames, preset.size, preset.size)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    clips = ClipSet(pixels, n % 10, n.astype(str), n.astype(str), tuple("abcdefghij"), {})
    task = Task(clips, Split(n, n[:1], n[:1]), replace(stage, class_weights=False))
    trainer = Trainer(
        build_model(preset, 10, seed=0, imagenet=False), task, engine=replace(engine, feature_cache=False)
    )
    batch = next(iter(trainer.feed.batches([n])))
    if engine.feature_cache and is_cacheable(stage):
        pixels = to_pixels(batch.rows, stage.pixel_range)
        batch = replace(batch, rows=frame_features(trainer.model, pixels, trainer.settled.precision))
    taken: list[float] = []
    while len(taken) < STEPS and sum(taken) < PATIENCE:
        begun = time.perf_counter()
        float(trainer.step(batch))  # waits for the device
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))
