"""What a training step costs on this machine, measured on random pixels and from random weights."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from viptt_core.backbones import find_backbone
from viptt_core.clips import ClipSet
from viptt_core.experiment import build_model
from viptt_core.files import peak_memory_mb
from viptt_core.model import INFERENCE_CHUNK
from viptt_core.presets import Preset, Stage
from viptt_core.splits import Split
from viptt_core.training import Task, fit
from viptt_core.training.device import Engine, is_cacheable, pick_device
from viptt_core.training.inference import predict_logits

MEASURED_STEPS = 3
SLOW = 20.0  # seconds; a step that takes longer is measured on FEW_FRAMES of one clip
FEW_FRAMES = 8


@dataclass(frozen=True)
class Cost:
    """What was measured of one kind of training.

    Attributes:
        step: Seconds a step.
        predict: Seconds to predict a clip (a frame, where frames are the clips); 0 where features are cached.
        features: Seconds to compute the features of a clip for the cache; 0 where they are not cached.
        feature_bytes: Of a clip, in the cache.
        weight_bytes: Of the model.
        memory_mb: Largest memory of this process until then, or of the GPU.
        scaled: Whether a few frames were measured for the whole batch.
    """

    step: float
    predict: float
    features: float
    feature_bytes: int
    weight_bytes: int
    memory_mb: float
    scaled: bool = False


def pixelless(labels, groups, class_names, parts=None) -> ClipSet:
    """A set whose clips are a single black pixel; groups are turned into names, and clips named by their number."""
    n = len(labels)
    return ClipSet(
        np.zeros((n, 1, 1, 1), np.uint8),
        np.array(labels, np.int64),
        np.array(groups, str),
        np.arange(n).astype(str),
        tuple(class_names),
        {},
        parts=None if parts is None else np.array(parts, str),
    )


def measure(preset: Preset, stage: Stage, *, classes: int, stills: bool, engine: Engine) -> Cost:
    """Take MEASURED_STEPS training steps at the real shapes, after one to warm up; nothing is kept.

    Args:
        preset: Gives the model and the grid.
        stage: How it is trained.
        classes: Their number.
        stills: Whether single frames are the clips.
        engine: How to run.
    """
    device, cached = pick_device(engine.device), engine.feature_cache and is_cacheable(stage)
    frames, few = 1 if stills else preset.frames, min(FEW_FRAMES, preset.frames)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with _private_cache():

        def steps(batch: int, length: int, count: int) -> tuple:
            model = build_model(preset, classes, seed=0, imagenet=False)
            shape = (length, preset.size, preset.size)
            return model, *_steps(model, replace(stage, batch_size=batch), shape, classes, count, engine)

        model, clips, precision, seconds = steps(few, 1, 1) if stills else steps(1, few, 1)
        part = stage.batch_size * frames / few
        scaled = seconds * part > SLOW and part > 1
        if not scaled:
            part = 1
            model, clips, precision, seconds = steps(stage.batch_size, frames, 1 + MEASURED_STEPS)
    many = np.resize(np.arange(len(clips)), max(1, INFERENCE_CHUNK // clips.shape[1]))
    predict = _seconds_to_predict(model, clips, many, stage, precision) / len(many)
    # An epoch of the measurement validates one entry, too, on features if they are cached.
    step = part * (seconds if cached else max(seconds - predict, seconds / 2))
    predict *= frames / clips.shape[1]
    gpu = device.type == "cuda"
    facts = find_backbone(preset.backbone)
    return Cost(
        step=step,
        predict=0.0 if cached else predict,
        features=predict if cached else 0.0,
        feature_bytes=4 * facts.steps(frames) * facts.width if cached else 0,
        weight_bytes=sum(tensor.nbytes for tensor in model.state_dict().values()),
        memory_mb=torch.cuda.max_memory_allocated(device) / 1e6 if gpu else peak_memory_mb(),
        scaled=scaled,
    )


def _steps(model, stage: Stage, shape: tuple, classes: int, count: int, engine: Engine) -> tuple:
    """Train; returns the clips it took, the precision, and the seconds of a step: the first only where it is alone."""
    batch = stage.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)
    clips = replace(
        pixelless(np.arange(batch) % classes, range(batch), [f"class {k}" for k in range(classes)]),
        clips=pixels,
        source={"measured": pixels.shape},
    )
    # A rate of 0 keeps the weights where they are: random pixels would send them anywhere.
    stage = replace(
        stage, epochs=count, learning_rate=0.0, class_weights=False, stop_patience=count + 1, plateau_patience=count + 1
    )
    split = Split(np.arange(batch), np.arange(1), np.arange(1))
    history = fit(model, Task(clips, split, stage), engine=engine)
    seconds = float(np.median([epoch["seconds"] for epoch in history.epochs[1:] or history.epochs]))
    return clips.clips, history.engine["precision"], seconds


def _seconds_to_predict(model, clips: np.ndarray, indices: np.ndarray, stage: Stage, precision: str) -> float:
    begun = time.perf_counter()
    predict_logits(model, clips, indices, pixel_range=stage.pixel_range, precision=precision)
    return time.perf_counter() - begun


@contextmanager
def _private_cache() -> Iterator[None]:
    """Features of random pixels go to a folder that is deleted."""
    before = os.environ.get("VIPTT_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VIPTT_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("VIPTT_CACHE")
            if before is not None:
                os.environ["VIPTT_CACHE"] = before
