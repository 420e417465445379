"""The rows: each runs ours and its reference in turn and returns what it measured.

To add one, write `def name(profile) -> Result` under `@row(title, reference, target)`. It may raise
`NotMeasuredError` with what is missing.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import ROOT, NotMeasuredError, Profile, Result, Row, Target, alternate, reference, seconds_of
from benchmarks.inputs import (
    DEVICE,
    PHANTOM_SHAPE,
    PHANTOMS,
    fresh_cache,
    full_step,
    models,
    noise_clips,
    paper_weights,
    phantom_folder,
    phantom_scans,
    plain_task,
    synthetic_clip,
)
from benchmarks.reference import FRAMES, SIZE
from viptt_core.check import check_dataset
from viptt_core.ct import load_volume
from viptt_core.datasets import load_dataset
from viptt_core.files import peak_memory_mb
from viptt_core.prediction.scans import predict_scans
from viptt_core.training import Trainer
from viptt_core.training.device import Engine, cpu_has_bf16, pick_precision
from viptt_core.video import load_clip

FOLDER_SCANS, CHECKED_SCANS, PREDICTED_SCANS = 8, 16, 5
CLIP_CALLS = 20  # calls a measurement of a clip, which takes some tens of milliseconds
EPOCHS, TRAIN_CLIPS = 28, 4  # of the frozen run, which validates on one more: the reference needs seconds a clip
CHUNK = 10  # frames whose activations the step in little memory keeps at once
AUTHORS, PLAIN = "the authors' nibabel and scipy steps", "plain PyTorch, fp32"
# Of a step or a forward pass: what the hardware's matrix units make possible.
SPEED = Target("at least", 3 if DEVICE == "cuda" else 1.8 if cpu_has_bf16() else 1)
ROWS: dict[str, Row] = {}


def row(title: str, beside: str, target: Target | None = None) -> Callable:
    """Register a function `(profile) -> Result` as a row under its name."""

    def register(function: Callable[[Profile], Result]) -> Callable[[Profile], Result]:
        ROWS[function.__name__] = Row(title, beside, target, function)
        return function

    return register


# --- Preparing files --------------------------------------------------------------------------------------
def _scans(n: int = 1, **settings) -> dict:
    return {"n": n, "frames": FRAMES, "size": SIZE, "voxels": list(PHANTOM_SHAPE)} | settings


def _preprocess(profile: Profile, theirs: Callable) -> Result:
    path = phantom_scans()[0]
    difference = np.abs(load_volume(path) - theirs(path))
    seconds = alternate(lambda: load_volume(path), lambda: theirs(path), profile.repeats)
    note = f"results differ by {difference.mean():.1e} on average (of 1)"
    return Result(*seconds, settings=_scans(), notes=["one process", note])


@row("preprocess one scan", AUTHORS, Target("at least", 10))
def preprocess_scan(profile: Profile) -> Result:
    return _preprocess(profile, reference.authors_preprocess)


@row("preprocess one scan, all of it", "bare decompression of the same file", Target("at most", 2.5))
def preprocess_vs_floor(profile: Profile) -> Result:
    """How near the floor: no reader of the file can be faster than its decompression."""
    path = phantom_scans()[0]
    seconds = alternate(lambda: load_volume(path), lambda: reference.bare_decompression(path), 3 * profile.repeats)
    return Result(*seconds, settings=_scans(), notes=["one process; the ratio is ours / decompression"])


@row("preprocess one scan, beside MONAI", "MONAI: load, window, resize", Target("at least", 2.5))
def preprocess_vs_monai(profile: Profile) -> Result:
    import monai  # extra `bench`

    result = _preprocess(profile, reference.monai_preprocess)
    result.notes.append(f"MONAI {monai.__version__} with {torch.get_num_threads()} threads, ours one")
    return result


def _folder(profile: Profile, n: int, ours: Callable[[Path], object], theirs: Callable[[Path], object]) -> Result:
    """Ours of a folder, each time with an empty cache, beside the reference of one file after the other."""
    with phantom_folder(n) as (root, paths):

        def ours_of_all() -> None:
            with fresh_cache():
                ours(root)

        ours_of_all()
        theirs(paths[0])
        seconds = alternate(ours_of_all, lambda: [theirs(path) for path in paths], profile.repeats, warm_up=False)
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
    middle = statistics.median(seconds[0])
    notes = [
        f"{n / middle:.1f} scans and {megabytes / middle:.0f} MB of files a second, the start of two workers included: "
        "the more scans, the less it counts",
        f"copies of {PHANTOMS} phantoms, read from memory",
    ]
    return Result(*seconds, settings=_scans(n, workers=2), notes=notes)


@row("preprocess a folder, two workers", "the authors' steps, one process", Target("at least", 16))
def preprocess_folder(profile: Profile) -> Result:
    """From files to a decoded set on disk; the authors' steps keep nothing."""
    load = functools.partial(load_dataset, "imageclef", n_jobs=2, progress=False)
    return _folder(profile, FOLDER_SCANS, load, reference.authors_preprocess)


@row(
    "check a folder of scans, two workers",
    "decompressing its files and nothing else, one process",
    Target("at most", 1),
)
def check(profile: Profile) -> Result:
    """`viptt data check` of files that no check has read before: every voxel read, hashed and judged."""
    inspect = functools.partial(check_dataset, "imageclef", n_jobs=2, progress=False)
    return _folder(profile, CHECKED_SCANS, inspect, reference.bare_decompression)


@row(
    "decode 70 frames of a clip, one thread",
    "the authors' OpenCV loop, one thread: read, resize, grey",
    Target("at least", 1.3),
)
def decode_clip(profile: Profile) -> Result:
    path = synthetic_clip()
    difference = np.abs(load_clip(path).astype(int) - reference.opencv_clip(path)).mean()
    seconds = alternate(
        lambda: load_clip(path), lambda: reference.opencv_clip(path), 5 * profile.repeats, times=CLIP_CALLS
    )
    notes = [f"synthetic clip; results differ by {difference:.2f} grey levels on average"]
    return Result(*seconds, settings={"frames": FRAMES, "size": SIZE, "calls": CLIP_CALLS}, notes=notes)


# --- Training ---------------------------------------------------------------------------------------------
PRECISION = pick_precision("auto", torch.device(DEVICE), "vgg16")


def _network(profile: Profile, **settings) -> dict:
    return {"frames": profile.frames, "size": SIZE, "precision": PRECISION, "weights": "random"} | settings


@functools.cache
def frozen_seconds(profile: Profile) -> dict[str, list[float]]:
    """Seconds of the frozen run and of its epochs, in turn, so that three rows share the reference's time.

    Returns:
        "run": 28 epochs by a `Trainer`, features included; "cached": an epoch of it after the first; "uncached":
        one without the cache; "theirs": an epoch of the plain loop. All epochs include validation.
    """
    model, plain = models()
    clips = noise_clips(TRAIN_CLIPS + 1, profile.frames, SIZE)

    def run(epochs: int, *, cache: bool = True) -> float:
        task = plain_task(clips, TRAIN_CLIPS, frozen=True, batch_size=1, epochs=epochs)
        return seconds_of(lambda: Trainer(model, task, engine=Engine(device=DEVICE, feature_cache=cache)).run())

    def their_epoch() -> None:
        reference.plain_frozen_epoch(plain, clips.clips[:TRAIN_CLIPS], clips.labels[:TRAIN_CLIPS])
        reference.plain_validate(plain, clips.clips[TRAIN_CLIPS:], clips.labels[TRAIN_CLIPS:])

    reference.plain_validate(plain, clips.clips[:1], clips.labels[:1])  # warm up
    with fresh_cache():
        run(1)
    seconds = {"run": [], "cached": [], "uncached": [], "theirs": []}
    for _ in range(profile.repeats):
        with fresh_cache():
            seconds["run"].append(run(EPOCHS))
            seconds["cached"].append((run(EPOCHS) - run(1)) / (EPOCHS - 1))  # the features are there
        seconds["uncached"].append(run(1, cache=False))
        seconds["theirs"].append(seconds_of(their_epoch))
    return seconds


def _frozen(profile: Profile, which: str, note: str, *, epochs: int = 1) -> Result:
    seconds = frozen_seconds(profile)
    settings = _network(profile, train=TRAIN_CLIPS, validation=1, batch_size=1, epochs=epochs)
    return Result(seconds[which], [epochs * each for each in seconds["theirs"]], settings=settings, notes=[note])


@row("frozen pretraining, 28 epochs with the feature cache", f"{PLAIN}, backbone at each step", Target("at least", 15))
def frozen_pretraining_run(profile: Profile) -> Result:
    note = f"one epoch of the reference is measured in each repeat and counted {EPOCHS} times: all are the same work"
    return _frozen(profile, "run", note, epochs=EPOCHS)


@row("frozen epoch after the first, with the feature cache", f"{PLAIN}, backbone at each step", Target("at least", 200))
def frozen_epoch_cached(profile: Profile) -> Result:
    return _frozen(profile, "cached", f"(run of {EPOCHS} epochs - run of one) / {EPOCHS - 1}, with the features ready")


@row("frozen epoch without the cache", PLAIN, SPEED)
def frozen_epoch_uncached(profile: Profile) -> Result:
    return _frozen(profile, "uncached", "mostly the forward pass: both run the backbone at each step, and validate")


@row("fine-tuning step, all layers", PLAIN, SPEED)
def finetune_step(profile: Profile) -> Result:
    """A batch of two, as the paper's."""
    model, plain = models()
    clips = noise_clips(2, profile.frames, SIZE)
    step, optimiser = full_step(model, clips), reference.plain_optimiser(plain.train())
    seconds = alternate(
        step, lambda: reference.plain_step(plain, optimiser, clips.clips, clips.labels), profile.repeats
    )
    return Result(*seconds, settings=_network(profile, batch_size=2, frames_per_chunk=model.frames_per_chunk))


# The first group that knows an operator gets its time. Parts of names.
GROUPS = {
    "optimiser": ("optimizer", "_fused_", "_foreach_"),
    "LSTM": ("lstm", "rnn"),
    "pooling": ("pool", "aten::mean"),
    "data movement": ("copy", "aten::to", "aten::cat", "aten::stack", "contiguous", "index_select"),
    "convolution backward": ("convolution_backward", "convolutionbackward"),
    "convolution forward": ("conv",),
    "ReLU": ("relu", "clamp_min", "threshold"),
}


def group_of(operator: str) -> str:
    """Name under which a reader knows an operator."""
    marked = (name for name, marks in GROUPS.items() if any(mark in operator.lower() for mark in marks))
    return next(marked, "other")


def parts_of(work: Callable[[], object]) -> dict[str, float]:
    """Share of each group of operators in the CPU time of `work`, largest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        work()
    spent = Counter()
    for event in profiler.key_averages():
        spent[group_of(event.key)] += event.self_cpu_time_total
    return {name: time / spent.total() for name, time in spent.most_common()}


@row("the same step, by what takes its time", "none: its time")
def step_parts(profile: Profile) -> Result:
    if DEVICE != "cpu":
        raise NotMeasuredError("it tells operators of a CPU apart")
    step = full_step(models()[0], noise_clips(2, profile.frames, SIZE))
    step()  # warm up
    seconds = [seconds_of(step) for _ in range(profile.repeats)]
    return Result(seconds, settings=_network(profile, batch_size=2, parts=parts_of(step)))


SCALING_BASE = {"clips": 1, "frames": 8, "size": 112}
SCALING_AXES = {"clips": (1, 2, 4), "frames": (4, 8, 16, 32), "size": (56, 112, 224)}


@row("growth of the all-layer step with clips, frames and pixels", "itself: linear growth is a slope of 1")
def scaling(profile: Profile) -> Result:
    """Slopes on log-log axes over the pixels in a step."""
    points, slopes, model = [], {}, models()[0]
    for axis, values in SCALING_AXES.items():
        for value in values:
            work = SCALING_BASE | {axis: value}
            step = full_step(model, noise_clips(work["clips"], work["frames"], work["size"]))
            step()  # warm up
            points.append([axis, value, statistics.median(seconds_of(step) for _ in range(profile.repeats))])
        grown = [(value ** (2 if axis == "size" else 1), seconds) for name, value, seconds in points if name == axis]
        slopes[axis] = float(np.polyfit(*np.log(grown).T, 1)[0])
    settings = {"base": SCALING_BASE, "points": points, "precision": PRECISION}
    notes = [", ".join(f"{axis} {slope:.2f}" for axis, slope in slopes.items())]
    return Result(list(slopes.values()), unit="", settings=settings, notes=notes)


# --- Memory -----------------------------------------------------------------------------------------------
def take_step(frames: int, chunk: int) -> None:
    """What the process of `step_memory` runs: an all-layer fp32 step over two clips."""
    step, losses = full_step(models()[0], noise_clips(2, frames, SIZE), chunk=chunk, precision="fp32"), []
    seconds = seconds_of(lambda: losses.append(float(step())))
    print(json.dumps({"peak": 1e6 * peak_memory_mb(), "seconds": seconds, "loss": losses[0]}))


@functools.cache
def step_memory(frames: int, chunk: int) -> dict:
    """Of one step in a process of its own: "peak" memory in bytes, "seconds" and "loss"."""
    code = f"from benchmarks.rows import take_step; take_step({frames}, {chunk})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _chunked(frames: int) -> dict:
    return {"batch_size": 2, "frames": frames, "size": SIZE, "frames_per_chunk": CHUNK, "precision": "fp32"}


@row("peak memory of the all-layer step in chunks", "an absolute bound", Target("at most", 4e9))
def finetune_memory(profile: Profile) -> Result:
    """The paper's batch, two clips of 70 frames, in both profiles; the whole process counts."""
    chunked, whole = step_memory(FRAMES, CHUNK), step_memory(profile.frames, 0)
    notes = [f"without chunks {whole['peak'] / 1e9:.2f} GB over two clips of {profile.frames} frames"]
    return Result([chunked["peak"]], unit="bytes", settings=_chunked(FRAMES), notes=notes)


@row("time of the all-layer step in chunks", "the same step without chunks", Target("at most", 1.4))
def finetune_chunk_time(profile: Profile) -> Result:
    """What computing the activations twice costs."""
    chunked, whole = step_memory(profile.frames, CHUNK), step_memory(profile.frames, 0)
    notes = [
        f"the losses differ by {abs(chunked['loss'] - whole['loss']):.1e}",
        "each the first step of a process of its own, so that fetching its memory counts",
    ]
    return Result([chunked["seconds"]], [whole["seconds"]], settings=_chunked(profile.frames), notes=notes)


# --- Predicting -------------------------------------------------------------------------------------------
def _predict(precision: str) -> Result:
    """A folder, beside the authors' preprocessing and a plain loop over the scans in fp32."""
    engine, weights, plain, found = Engine(device=DEVICE, precision=precision), paper_weights(), models()[1], {}

    def ours(scans: list[Path]) -> None:
        found["ours"] = predict_scans(weights, scans, engine=engine, progress=False).probabilities[0]

    def theirs() -> None:
        found["theirs"] = reference.plain_predict_folder(plain, paths)

    with phantom_folder(PREDICTED_SCANS) as (_, paths):
        ours(paths[:1])
        preparing = seconds_of(lambda: reference.authors_preprocess(paths[0]))
        seconds = alternate(lambda: ours(paths), theirs, 1, warm_up=False)
    notes = [
        f"copies of {PHANTOMS} phantoms",
        f"probabilities differ by {np.abs(found['ours'] - found['theirs']).max():.1e} at most (of 1)",
        f"of the reference's {seconds[1][0] / PREDICTED_SCANS:.2f} s a scan, {preparing:.2f} s are preparing it",
    ]
    return Result(*seconds, settings=_scans(PREDICTED_SCANS, precision=precision), notes=notes)


ONE_BY_ONE = "the authors' steps, then plain PyTorch, fp32, one by one"


@row("predict 5 scans at the paper's size, fp32", ONE_BY_ONE, Target("at least", 1.8))
def predict_paper(profile: Profile) -> Result:
    """As `viptt predict` does it unless told otherwise: the same digits on every machine."""
    return _predict("fp32")


@row("predict 5 scans at the paper's size, fastest precision", ONE_BY_ONE, Target("at least", 1.8))
def predict_paper_fastest(profile: Profile) -> Result:
    """With `--precision auto`."""
    return _predict("auto")
