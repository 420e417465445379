"""What both sides of a row get: phantoms, an empty cache, clips of noise, networks with the same weights."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks.reference import FRAMES, SIZE, PlainViPTTNet
from viptt_core.clips import ClipSet
from viptt_core.files import cache_root
from viptt_core.model import ViPTTNet
from viptt_core.prediction.card import Card, Preprocessing
from viptt_core.prediction.weights import Weights, open_weights, save_weights
from viptt_core.presets import load_preset
from viptt_core.splits import Split
from viptt_core.synthetic import actions, phantom
from viptt_core.synthetic.folders import imageclef, ucf50, write_folder
from viptt_core.training import Task, Trainer
from viptt_core.training.device import Engine

PHANTOM_SHAPE = (512, 512, 130)  # voxels, as a usual chest CT
PHANTOMS = 4  # scans written
CLASSES = 10
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@functools.cache
def phantom_scans() -> list[Path]:
    """Scans [512,512,130] int16, written once."""
    size, _, slices = PHANTOM_SHAPE
    root = cache_root() / "benchmarks" / f"phantoms-{phantom.VERSION}-{size}x{size}x{slices}"
    write_folder(root, imageclef(PHANTOMS, size=size, slices=slices), n_jobs=2, progress=False)
    return sorted(root.glob("TRN_*.nii.gz"))


def write_copy(scan: Path, copy: Path, number: int) -> None:
    """A gzip file of other contents and the same work: bytes 4 to 8 are the time it was made."""
    content = scan.read_bytes()
    copy.write_bytes(content[:4] + number.to_bytes(4, "little") + content[8:])


@contextmanager
def phantom_folder(n: int) -> Iterator[tuple[Path, list[Path]]]:
    """An ImageCLEF folder of n copies of the phantoms, for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="viptt-benchmark-") as folder:
        paths = [Path(folder) / f"TRN_{i + 1:04d}.nii.gz" for i in range(n)]
        for i, path in enumerate(paths):
            write_copy(phantom_scans()[i % PHANTOMS], path, i)
        labels = [f"{path.name},{i % 5 + 1}\n" for i, path in enumerate(paths)]  # any of the five types
        (Path(folder) / "TRN_labels.csv").write_text("FileName,TypeOfTB\n" + "".join(labels), encoding="utf-8")
        yield Path(folder), paths


def synthetic_clip() -> Path:
    """One clip of the synthetic activities in UCF's format, written once."""
    root = cache_root() / "benchmarks" / f"actions-{actions.VERSION}"
    clip = ucf50(groups=1, clips_per_group=1, frames=(FRAMES + 5, FRAMES + 35))
    write_folder(root, clip, n_jobs=2, progress=False)
    return min(root.glob("BaseballPitch/*.avi"))


@contextmanager
def fresh_cache() -> Iterator[Path]:
    """An empty cache of decoded sets for the time of the block, so that nothing is found ready."""
    with (
        tempfile.TemporaryDirectory(prefix="viptt-benchmark-") as folder,
        mock.patch.dict(os.environ, VIPTT_CACHE=folder),
    ):
        yield Path(folder)


def noise_clips(n: int, frames: int, size: int) -> ClipSet:
    """A set of noise: how long a step takes does not depend on what is seen."""
    rng = np.random.default_rng(0)
    clips, labels = rng.integers(0, 256, (n, frames, size, size), dtype=np.uint8), rng.integers(0, CLASSES, n)
    names, classes = np.array([f"clip{i}" for i in range(n)]), tuple(f"class{i}" for i in range(CLASSES))
    return ClipSet(clips, labels, names, names, classes, {"noise": [n, frames, size]}, synthetic=True)


def plain_task(clips: ClipSet, n_train: int, *, frozen: bool, batch_size: int, epochs: int = 1) -> Task:
    """The work of the reference's loop: SGD, pixels in 0..1, no early stop.

    The first `n_train` clips train, the others validate.
    """
    stage = replace(
        load_preset("frozen").pretrain,
        freeze_backbone=frozen,
        freeze_stem=frozen,
        batch_size=batch_size,
        epochs=epochs,
        optimiser="sgd",
        learning_rate=0.001,
        class_weights=False,
        rotate=False,
        pixel_range="0..1",
        stop_patience=epochs + 1,
        plateau_patience=epochs + 1,
    )
    return Task(clips, Split(np.arange(n_train), np.arange(n_train, len(clips)), np.empty(0, np.int64)), stage)


def models() -> tuple[ViPTTNet, PlainViPTTNet]:
    """A ViPTTNet with random weights, and the reference's with the same, on the device."""
    model = ViPTTNet(CLASSES, generator=torch.Generator().manual_seed(0))
    return model, PlainViPTTNet(CLASSES).copy_from(model).to(DEVICE)


def full_step(model: ViPTTNet, clips: ClipSet, *, precision: str = "auto", chunk: int | None = None) -> Callable:
    """A function that takes one all-layer step of `viptt_core.training` over all of `clips`; it returns the loss.

    Args:
        model: Trained in place.
        clips: One batch.
        precision: Of the engine.
        chunk: Frames whose activations are kept at once; 0 keeps all, None leaves it to the engine.
    """
    task = plain_task(clips, len(clips), frozen=False, batch_size=len(clips))
    trainer = Trainer(model, task, engine=Engine(device=DEVICE, precision=precision, frames_per_chunk=chunk or 0))
    if chunk is not None:
        model.frames_per_chunk = chunk
    return lambda: trainer.step(next(trainer.feed.batches([task.split.train])))


def paper_weights() -> Weights:
    """The random weights of `models`, for scans on the paper's grid."""
    grid = Preprocessing("scan", FRAMES, SIZE, "0..1", (-1000, 400), "file")
    card = Card("untrained", tuple(str(k) for k in range(CLASSES)), grid, {}, {}, (), {}, "none")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        save_weights(path, models()[0], card)
        return open_weights(path)
