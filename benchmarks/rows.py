"""The rows of the benchmarks: each runs ours and its reference in turn and returns what it measured.

To add one, write `def name(profile) -> Comparison` under `@row(title, reference=..., target=...)`. It may raise
`NotMeasuredError` with what is missing. `viptt_core` is imported inside the functions: a list is printed
at once.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import (
    ROOT,
    Comparison,
    Memory,
    NotMeasuredError,
    Profile,
    Target,
    alternate,
    at_least,
    at_most,
    memory_of,
    row,
    seconds_of,
)

PHANTOM_SHAPE = (512, 512, 130)  # voxels, as a usual chest CT
PHANTOMS = 4  # scans written
FOLDER_SCANS = 8  # of the folder row: starting two workers takes as long as some scans, and real folders hold hundreds
CHECKED_SCANS = {"quick": 16, "full": 100}  # of the row of the check
LEAST_NOISE = 15.0  # HU: a scan without noise compresses too well and flatters whoever decompresses less
SOFT_TISSUE = (-100, 100)  # HU, where noise is measured
MAD_TO_SD = 1.4826  # of a normal distribution
FRAMES, SIZE = 70, 224  # the paper's grid, in both profiles: preparing a file is cheap enough
CLIP_CALLS = 20  # calls a measurement of a clip, which takes some tens of milliseconds
REAL_SCAN = "ct/lungpetctdx_A0001_s3_512.nii.gz"
REAL_CLIP = "videos/ucf101/BaseballPitch/v_BaseballPitch_g01_c01.avi"
GRID = {"frames": FRAMES, "size": SIZE}
CLASSES = 10
EPOCHS = 28  # of the frozen run
TRAIN_CLIPS, VALIDATION_CLIPS = 4, 1  # of the frozen run: the reference needs seconds a clip and epoch
CHUNK = 10  # frames whose activations the step in little memory keeps at once
MEMORY_TIMED = {"quick": 16, "full": FRAMES}  # frames of a clip where chunks are compared with none
GPU_STEPS = 10  # a measurement
MATMUL = 8192  # rows and columns of the matrices that tell a GPU's rate

# --- Files to measure on ----------------------------------------------------------------------------------


def shared_file(name: str) -> Path | None:
    """A real file, below VIPTT_SHARED_DATA or the folder `shared/data` beside the checkout; None without it."""
    folder = Path(os.environ.get("VIPTT_SHARED_DATA") or ROOT.parent / "shared" / "data")
    return folder / name if (folder / name).is_file() else None


def scratch(name: str) -> Path:
    """A folder in the cache for files that are made once."""
    from viptt_core.files import cache_root

    return cache_root() / "benchmarks" / name


def noise_sd(hu: np.ndarray) -> float:
    """Noise of a scan [X,Y,Z] in HU: robust spread between slices, over soft tissue.

    Slices of one scanner share noise, so that the true value lies above this one.
    """
    low, high = SOFT_TISSUE
    before, after = hu[:, :, :-1].astype(np.float32), hu[:, :, 1:].astype(np.float32)
    middle = (before + after) / 2
    steps = (after - before)[(middle > low) & (middle < high)]
    return float(MAD_TO_SD * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2))


@functools.cache
def phantom_scans() -> tuple[tuple[Path, ...], tuple[float, ...]]:
    """Scans [512,512,130] int16, written once, none with less noise than LEAST_NOISE; and their noise in HU."""
    import nibabel

    from viptt_core.synthetic.folders import imageclef, write_folder
    from viptt_core.synthetic.phantom import VERSION

    size, _, slices = PHANTOM_SHAPE
    root = scratch(f"phantoms-{VERSION}-{size}x{size}x{slices}")
    write_folder(root, imageclef(PHANTOMS, size=size, slices=slices), n_jobs=2, progress=False)
    paths, noises = sorted(root.glob("TRN_*.nii.gz")), []
    for path in paths:
        image = nibabel.load(path)
        hu = np.asanyarray(image.dataobj)
        if (noise := noise_sd(hu)) < LEAST_NOISE:
            more = LEAST_NOISE * np.random.default_rng(0).standard_normal(hu.shape, dtype=np.float32)
            hu = np.clip(np.rint(hu + more), hu.min(), hu.max()).astype(hu.dtype)
            noise = noise_sd(hu)
            partial = path.with_name(f".{path.name}.{os.getpid()}.part")
            noisier = nibabel.Nifti1Image(hu, image.affine, image.header).to_bytes()
            partial.write_bytes(gzip.compress(noisier, 4, mtime=0))
            os.replace(partial, path)
        noises.append(noise)
    return tuple(paths), tuple(noises)


def _phantom_settings(n: int) -> dict:
    paths, noises = phantom_scans()
    return GRID | {
        "n": n,
        "voxels": list(PHANTOM_SHAPE),
        "noise_sd_hu": [round(noise, 1) for noise in noises[:n]],
        "file_bytes": [path.stat().st_size for path in paths[:n]],
    }


@contextmanager
def fresh_cache() -> Iterator[Path]:
    """An empty cache of decoded sets for the time of the block, so that nothing is found ready."""
    before = os.environ.get("VIPTT_CACHE")
    with tempfile.TemporaryDirectory(prefix="viptt-benchmark-") as folder:
        os.environ["VIPTT_CACHE"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("VIPTT_CACHE")
            if before is not None:
                os.environ["VIPTT_CACHE"] = before


# --- Preparing files --------------------------------------------------------------------------------------
def _difference_note(ours: np.ndarray, reference: np.ndarray) -> str:
    """How far apart two volumes [T,H,W] in [0,1] are; scipy's zoom leaves a line of zeros at the border."""
    difference = np.abs(ours.astype(np.float64) - reference)
    inside = difference[:, 1:-1, 1:-1].max()
    return f"results differ by {difference.mean():.1e} on average, inside the border by {inside:.1e} at most (of 1)"


def _preprocess(path: Path, profile: Profile, reference, settings: dict) -> Comparison:
    from viptt_core.ct import load_volume

    difference = _difference_note(load_volume(path), reference(path))  # runs both once: the warm-up
    ours, theirs = alternate(
        lambda: load_volume(path), lambda: reference(path), profile.repeats, warm_up=(lambda: None,) * 2
    )
    return Comparison(ours, theirs, settings, ["one process", difference])


@row("preprocess one scan", reference="the authors' nibabel and scipy steps", target=at_least(10))
def preprocess_scan(profile: Profile) -> Comparison:
    """A phantom on the paper's grid."""
    from benchmarks.reference import authors_preprocess

    return _preprocess(phantom_scans()[0][0], profile, authors_preprocess, _phantom_settings(1))


@row("preprocess a real scan", reference="the authors' nibabel and scipy steps", target=at_least(10))
def preprocess_real_scan(profile: Profile) -> Comparison:
    """A real chest CT with fewer, thicker slices."""
    import nibabel

    from benchmarks.reference import authors_preprocess

    if (path := shared_file(REAL_SCAN)) is None:
        raise NotMeasuredError("the real scan is not here (folder shared/data, or VIPTT_SHARED_DATA)")
    settings = GRID | {"n": 1, "voxels": list(nibabel.load(path).shape), "file_bytes": [path.stat().st_size]}
    return _preprocess(path, profile, authors_preprocess, settings)


@row("preprocess one scan, all of it", reference="bare decompression of the same file", target=at_most(2.5))
def preprocess_vs_floor(profile: Profile) -> Comparison:
    """How near the floor: no reader of the file can be faster than its decompression."""
    from benchmarks.reference import bare_decompression
    from viptt_core.ct import load_volume

    path = phantom_scans()[0][0]
    ours, floor = alternate(lambda: load_volume(path), lambda: bare_decompression(path), 3 * profile.repeats)
    return Comparison(ours, floor, _phantom_settings(1), ["one process; the ratio is ours / decompression"])


@row("preprocess one scan, beside MONAI", reference="MONAI: load, window, resize", target=at_least(2.5))
def preprocess_vs_monai(profile: Profile) -> Comparison:
    """MONAI's resize uses all of torch's threads, ours one."""
    import torch

    from benchmarks.reference import monai_preprocess

    try:
        import monai
    except ImportError as error:
        raise NotMeasuredError(f"MONAI is not installed (extra `bench`): {error}") from error
    found = _preprocess(phantom_scans()[0][0], profile, monai_preprocess, _phantom_settings(1))
    found.notes.append(f"MONAI {monai.__version__} with {torch.get_num_threads()} threads, ours one")
    return found


@row("preprocess a folder, two workers", reference="the authors' steps, one process", target=at_least(16))
def preprocess_folder(profile: Profile) -> Comparison:
    """From files to a decoded set on disk, by the workers, into an empty cache each time."""
    from benchmarks.reference import authors_preprocess
    from viptt_core.datasets import load_dataset

    with tempfile.TemporaryDirectory(prefix="viptt-benchmark-") as root:
        paths = _link_folder(Path(root))

        def ours() -> None:
            with fresh_cache():
                load_dataset("imageclef", root, n_jobs=2, progress=False)

        def authors() -> None:
            for path in paths:
                authors_preprocess(path)

        warm_up = (ours, lambda: authors_preprocess(paths[0]))
        seconds = alternate(ours, authors, profile.repeats, warm_up=warm_up)
    notes = [
        "ours ends with the set on disk and includes starting its workers; the authors' keeps nothing",
        f"{PHANTOMS} phantoms, each under {FOLDER_SCANS // PHANTOMS} names and read each time",
        "starting the workers takes as long as some scans: the more scans in the folder, the higher the ratio",
    ]
    return Comparison(*seconds, _phantom_settings(PHANTOMS) | {"n": len(paths), "workers": 2}, notes)


@row(
    "check a folder of scans, two workers",
    reference="decompressing its files and nothing else, one process",
    target=at_most(1),
)
def check(profile: Profile) -> Comparison:
    """`viptt data check` of files that no check has read before: every voxel read, hashed and judged."""
    from benchmarks.reference import bare_decompression
    from viptt_core.check import check_dataset

    with tempfile.TemporaryDirectory(prefix="viptt-benchmark-") as root:
        paths = _link_folder(Path(root), CHECKED_SCANS[profile.name])
        n_bytes = sum(path.stat().st_size for path in paths)

        def ours() -> None:
            with fresh_cache():
                check_dataset("imageclef", root, n_jobs=2, progress=False)

        def floor() -> None:
            for path in paths:
                bare_decompression(path)

        seconds = alternate(ours, floor, profile.repeats, warm_up=(ours, lambda: bare_decompression(paths[0])))
    middle = statistics.median(seconds[0])
    notes = [
        f"{len(paths) / middle:.1f} scans and {n_bytes / middle / 1e6:.0f} MB of files a second, the start of two "
        "workers included",
        f"{PHANTOMS} phantoms under {len(paths)} names: the disk is read once, memory after that",
    ]
    return Comparison(*seconds, _phantom_settings(PHANTOMS) | {"n": len(paths), "workers": 2}, notes)


def _link_folder(root: Path, n: int = FOLDER_SCANS) -> list[Path]:
    """An ImageCLEF folder of n names that point at the phantoms."""
    scans, _ = phantom_scans()
    paths = [root / f"TRN_{i + 1:04d}.nii.gz" for i in range(n)]
    for i, path in enumerate(paths):
        path.symlink_to(scans[i % len(scans)].resolve())
    lines = [f"{path.name},{i % 5 + 1}" for i, path in enumerate(paths)]  # any of the five types
    (root / "TRN_labels.csv").write_text("FileName,TypeOfTB\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return paths


@row(
    "decode 70 frames of a clip, one thread",
    reference="the authors' OpenCV loop, one thread: read, resize, grey",
    target=at_least(1.3),
)
def decode_clip(profile: Profile) -> Comparison:
    """A UCF clip where there is one, else a synthetic one in the same format."""
    import cv2

    from benchmarks.reference import opencv_clip
    from viptt_core.video import load_clip

    path, kind = shared_file(REAL_CLIP), "UCF clip"
    if path is None:
        path, kind = synthetic_clip(), "synthetic clip (the real one is not here)"
    difference = np.abs(load_clip(path).astype(int) - opencv_clip(path, threads=1)).mean()

    def compare(threads: int | None) -> tuple[list[float], list[float]]:
        return alternate(
            lambda: load_clip(path), lambda: opencv_clip(path, threads=threads), 5 * profile.repeats, times=CLIP_CALLS
        )

    default = cv2.getNumThreads()
    freely, freely_theirs = compare(None)
    cv2.setNumThreads(1)
    try:
        seconds = compare(1)
    finally:
        cv2.setNumThreads(default)
    ratio = statistics.median(freely_theirs) / statistics.median(freely)
    notes = [
        f"{kind}; results differ by {difference:.2f} grey levels on average",
        f"{ratio:.2f}x where OpenCV takes the threads it likes ({default} here) for decoding and resizing; "
        "ours decodes in one, and a set is decoded by several workers",
    ]
    return Comparison(*seconds, GRID | {"n": 1, "calls": CLIP_CALLS, "file_bytes": [path.stat().st_size]}, notes)


def synthetic_clip() -> Path:
    """One clip of the synthetic activities in UCF's format, written once."""
    from viptt_core.synthetic.actions import VERSION
    from viptt_core.synthetic.folders import ucf50, write_folder

    root = scratch(f"actions-{VERSION}")
    content = ucf50(groups=1, clips_per_group=1, frames=(FRAMES + 5, FRAMES + 35))
    write_folder(root, content, n_jobs=2, progress=False)
    return min(root.glob("BaseballPitch/*.avi"))


# --- The network: what both sides get ---------------------------------------------------------------------
def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _speed_target() -> Target:
    """Of a step or a forward pass: what the hardware's matrix units make possible."""
    from viptt_core.training.device import cpu_has_bf16

    return at_least(3 if _device() == "cuda" else 1.8 if cpu_has_bf16() else 1)


def noise_clips(n: int, frames: int, size: int):
    """A ClipSet of noise: how long a step takes does not depend on what is seen."""
    from viptt_core.clips import ClipSet

    rng = np.random.default_rng(0)
    names = np.array([f"clip{i}" for i in range(n)])
    return ClipSet(
        rng.integers(0, 256, (n, frames, size, size), dtype=np.uint8),
        rng.integers(0, CLASSES, n),
        names,
        names,
        tuple(f"class{i}" for i in range(CLASSES)),
        {"noise": [n, frames, size]},
        synthetic=True,
    )


def first_and_last(n_train: int, n_validation: int):
    """Split: the first clips train, the others validate."""
    from viptt_core.splits import Split

    return Split(np.arange(n_train), np.arange(n_train, n_train + n_validation), np.empty(0, np.int64))


def plain_stage(*, frozen: bool, batch_size: int, epochs: int = 1):
    """The Stage that does what the reference's loop does: SGD, pixels in 0..1, no early stop."""
    from viptt_core.presets import load_preset

    return replace(
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


def models():
    """A ViPTTNet with random weights, and the reference's with the same, on the device."""
    import torch

    from benchmarks.reference import PlainViPTTNet
    from viptt_core.model import ViPTTNet

    model = ViPTTNet(CLASSES, generator=torch.Generator().manual_seed(0))
    return model, PlainViPTTNet(CLASSES).copy_from(model).to(_device())


def full_step(model, clips, *, precision: str = "auto", chunk: int | None = None, compiled: bool = False) -> Callable:
    """A function that takes one all-layer step of `viptt_core.training` over all of `clips`; it returns the loss.

    Args:
        model: ViPTTNet; trained in place.
        clips: ClipSet of one batch.
        precision: Of the engine.
        chunk: Frames whose activations are kept at once; 0 keeps all, None leaves it to the engine.
        compiled: Through torch.compile.
    """
    from viptt_core.training import Task, Trainer
    from viptt_core.training.device import Engine

    engine = Engine(device=_device(), precision=precision, frames_per_chunk=chunk or 0, compile=compiled)
    split, stage = first_and_last(len(clips), 0), plain_stage(frozen=False, batch_size=len(clips))
    trainer = Trainer(model, Task(clips, split, stage), engine=engine)
    if chunk is not None:
        model.frames_per_chunk = chunk
    return lambda: trainer.step(next(trainer.feed.batches([split.train])))


def _precision() -> str:
    import torch

    from viptt_core.training.device import pick_precision

    return pick_precision("auto", torch.device(_device()), "vgg16")


# --- Training and predicting ------------------------------------------------------------------------------
@functools.cache
def frozen_seconds(profile: Profile) -> dict[str, list[float]]:
    """Seconds of the frozen run and of its epochs, in turn, so that three rows share the reference's time.

    Returns:
        "run": 28 epochs by `fit`, features included; "cached": an epoch of it after the first; "uncached":
        one without the cache; "reference": an epoch of the plain loop. All epochs include validation.
    """
    from benchmarks.reference import plain_train_epoch, plain_validate
    from viptt_core.training import Task, fit
    from viptt_core.training.device import Engine

    model, plain = models()
    clips = noise_clips(TRAIN_CLIPS + VALIDATION_CLIPS, profile.frames, profile.size)
    split = first_and_last(TRAIN_CLIPS, VALIDATION_CLIPS)

    def run(epochs: int, *, cache: bool = True) -> float:
        stage = plain_stage(frozen=True, batch_size=1, epochs=epochs)
        engine = Engine(device=_device(), feature_cache=cache)
        return seconds_of(lambda: fit(model, Task(clips, split, stage), engine=engine))

    def reference_epoch() -> None:
        plain_train_epoch(plain, clips.clips[split.train], clips.labels[split.train], frozen=True)
        plain_validate(plain, clips.clips[split.validation], clips.labels[split.validation])

    plain_validate(plain, clips.clips[:1], clips.labels[:1])  # warm up
    with fresh_cache():
        run(1)
    seconds = {"run": [], "cached": [], "uncached": [], "reference": []}
    for _ in range(profile.repeats):
        with fresh_cache():
            seconds["run"].append(run(EPOCHS))
            seconds["cached"].append((run(EPOCHS) - run(1)) / (EPOCHS - 1))  # the features are there
        seconds["uncached"].append(run(1, cache=False))
        seconds["reference"].append(seconds_of(reference_epoch))
    return seconds


def _frozen_settings(profile: Profile) -> dict:
    return {
        "frames": profile.frames,
        "size": profile.size,
        "train": TRAIN_CLIPS,
        "validation": VALIDATION_CLIPS,
        "batch_size": 1,
        "precision": _precision(),
        "weights": "random",
    }


@row(
    "frozen pretraining, 28 epochs with the feature cache",
    reference="plain PyTorch, fp32, backbone at each step",
    target=at_least(15),
)
def frozen_pretraining_run(profile: Profile) -> Comparison:
    """A whole run, the features included; both validate after each epoch."""
    seconds = frozen_seconds(profile)
    notes = [
        f"the reference's epochs are all the same work: one is measured in each repeat and counted {EPOCHS} times",
        "the more epochs, the higher the ratio: the features cost the same",
    ]
    whole = [EPOCHS * each for each in seconds["reference"]]
    return Comparison(seconds["run"], whole, _frozen_settings(profile) | {"epochs": EPOCHS}, notes)


@row(
    "frozen epoch after the first, with the feature cache",
    reference="plain PyTorch, fp32, backbone at each step",
    target=at_least(200),
)
def frozen_epoch_cached(profile: Profile) -> Comparison:
    """What each further epoch costs, validation and keeping the best weights included."""
    seconds = frozen_seconds(profile)
    notes = [f"(run of {EPOCHS} epochs - run of one) / {EPOCHS - 1}, with the features ready"]
    return Comparison(seconds["cached"], seconds["reference"], _frozen_settings(profile), notes)


@row("frozen epoch without the cache", reference="plain PyTorch, fp32", target=at_least(1.8))
def frozen_epoch_uncached(profile: Profile) -> Comparison:
    """Both run the backbone at each step and validate; ours includes what `fit` prepares."""
    seconds = frozen_seconds(profile)
    return Comparison(seconds["uncached"], seconds["reference"], _frozen_settings(profile), target=_speed_target())


@row("fine-tuning step, all layers", reference="plain PyTorch, fp32", target=at_least(1.8))
def finetune_step(profile: Profile) -> Comparison:
    """A batch of two, as the paper's."""
    from benchmarks.reference import plain_optimiser, plain_step

    model, plain = models()
    clips = noise_clips(2, profile.frames, profile.size)
    step, optimiser = full_step(model, clips), plain_optimiser(plain.train())
    seconds = alternate(
        step, lambda: plain_step(plain, optimiser, clips.clips, clips.labels), profile.repeats, warm_up=(step, int)
    )
    settings = {
        "frames": profile.frames,
        "size": profile.size,
        "batch_size": 2,
        "precision": _precision(),
        "frames_per_chunk": model.frames_per_chunk,
        "weights": "random",
    }
    return Comparison(*seconds, settings, target=_speed_target())


@row("effect of whole grey levels on the logits", reference="float32 volumes")
def float16_store(profile: Profile) -> Comparison:
    """What a set stored as uint8 or as float16 changes, in units of the spread of the logits over the scans."""
    import torch

    from viptt_core.ct import load_volume

    model, _ = models()
    model.to(_device()).eval()
    stored = {
        "uint8": lambda levels: np.rint(levels).astype(np.uint8).astype(np.float32),
        "float16": lambda levels: levels.astype(np.float16).astype(np.float32),
    }
    volumes = [255 * load_volume(path, depth=profile.frames, size=profile.size) for path in phantom_scans()[0]]

    @torch.inference_mode()
    def logits(prepare: Callable, precision: str = "fp32") -> np.ndarray:
        from viptt_core.training.device import autocast

        with autocast(torch.device(_device()), precision):
            rows = [model(torch.from_numpy(prepare(v)).to(_device())[None] / 255)[0].cpu() for v in volumes]
        return torch.stack(rows).double().numpy()

    exact = logits(lambda levels: levels)
    spread = float(np.sqrt(exact.var(axis=0, ddof=1).mean()))
    changes = {name: np.abs(logits(prepare) - exact) / spread for name, prepare in stored.items()}
    changes["bf16 backbone"] = np.abs(logits(lambda levels: levels, "bf16") - exact) / spread
    effect = {name: {"mean": float(change.mean()), "max": float(change.max())} for name, change in changes.items()}
    settings = _phantom_settings(PHANTOMS) | {
        "frames": profile.frames,
        "size": profile.size,
        "precision": "fp32",
        "weights": "random",
        "effect": effect,
        "logits_sd": spread,
    }
    notes = [f"{name}: {change['mean']:.1e} on average, {change['max']:.1e} at most" for name, change in effect.items()]
    notes.append("the value is uint8's mean; relative to the logits' sd over the scans, mean over the classes")
    return Comparison([effect["uint8"]["mean"]], settings=settings, notes=notes, unit="of the sd")


# --- Several processes ------------------------------------------------------------------------------------
def train_in_processes() -> None:
    """What each process of `launch` runs: a short training; the first one writes weights and seconds."""
    import torch

    from viptt_core.model import ViPTTNet
    from viptt_core.training import Task, fit
    from viptt_core.training.device import Engine

    order = json.loads(os.environ["BENCHMARK_ORDER"])
    model = ViPTTNet(CLASSES, generator=torch.Generator().manual_seed(0))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = order["batch_size"]
    clips = noise_clips(3 * batch, order["frames"], order["size"])
    stage = replace(plain_stage(frozen=False, batch_size=batch, epochs=2), learning_rate=order["learning_rate"])
    engine = Engine(device=order["device"], precision=order["precision"])
    history = fit(model, Task(clips, first_and_last(2 * batch, batch), stage), engine=engine)
    if int(os.environ.get("RANK", 0)) == 0:
        weights = {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}
        change = max(float(np.abs(weights[name] - start[name].numpy()).max()) for name in weights)
        about = {"processes": history.engine["processes"], "seconds": history.epochs[-1]["seconds"], "change": change}
        np.savez(order["file"], about=json.dumps(about), **weights)


def launch(processes: int, **order) -> tuple[dict[str, np.ndarray], dict]:
    """Run `train_in_processes` in so many processes: the weights, and what was said about them."""
    with tempfile.TemporaryDirectory(prefix="viptt-benchmark-") as folder:
        script, file = Path(folder) / "child.py", Path(folder) / "weights.npz"
        entry = train_in_processes.__name__
        script.write_text(f"from benchmarks.rows import {entry}\n{entry}()\n", encoding="utf-8")
        command = [sys.executable]
        if processes > 1 and order["device"] == "cpu":
            # Without MPI `accelerate launch --cpu` starts a single process; torch's launcher needs none.
            command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
        elif processes > 1:
            command += [
                "-m",
                "accelerate.commands.launch",
                "--multi_gpu",
                "--num_processes",
                str(processes),
                "--num_machines",
                "1",
                "--mixed_precision",
                "no",
                "--dynamo_backend",
                "no",
                "--main_process_port",
                "0",
            ]
        threads = max(1, (os.cpu_count() or 1) // processes) if order["device"] == "cpu" else None
        environment = os.environ | {
            "BENCHMARK_ORDER": json.dumps(order | {"file": str(file)}),
            "PYTHONPATH": str(ROOT),
            "ACCELERATE_USE_CPU": str(order["device"] == "cpu").lower(),
        }
        environment |= {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run([*command, str(script)], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{processes} processes: exit {done.returncode}: {done.stderr.strip()[-500:]}")
        with np.load(file) as found:
            weights = {name: found[name] for name in found.files if name != "about"}
            return weights, json.loads(str(found["about"]))


@row("two processes, the same global batch", reference="one process", target=at_most(1e-5, "difference"))
def two_processes(profile: Profile) -> Comparison:
    """Largest difference of a weight after training all layers in two processes and in one."""
    order = {"device": "cpu", "precision": "fp32", "batch_size": 4, "frames": 4, "size": 32, "learning_rate": 0.01}
    (one, alone), (two, together) = launch(1, **order), launch(2, **order)
    if (alone["processes"], together["processes"]) != (1, 2):
        raise RuntimeError(f"ran in {alone['processes']} and {together['processes']} processes, not in 1 and 2")
    difference = max(float(np.abs(one[name] - two[name]).max()) for name in one)
    notes = [
        f"training changed a weight by {alone['change']:.1e} at most",
        "equality only: two processes of one CPU share its cores, so they are not faster",
    ]
    return Comparison([difference], settings=order | {"epochs": 2, "steps": 4}, notes=notes, unit="difference")


# --- Memory -----------------------------------------------------------------------------------------------
def prepare_step(*, frames: int, size: int, chunk: int, precision: str) -> Callable:
    """For `memory_of`: an all-layer step over two clips."""
    model, _ = models()
    step = full_step(model, noise_clips(2, frames, size), chunk=chunk, precision=precision)
    return lambda: float(step())


@functools.cache
def step_memory(frames: int, chunk: int, precision: str = "fp32") -> Memory:
    """Peak and seconds of one all-layer step over two clips of 224 x 224, in a process of its own."""
    step = f"{prepare_step.__module__}:{prepare_step.__name__}"
    return memory_of(step, frames=frames, size=SIZE, chunk=chunk, precision=precision)


def _memory_settings(frames: int) -> dict:
    return {"batch_size": 2, "frames": frames, "size": SIZE, "frames_per_chunk": CHUNK, "precision": "fp32"}


@row("peak memory of the all-layer step in chunks", reference="an absolute bound", target=at_most(4e9, "bytes"))
def finetune_memory(profile: Profile) -> Comparison:
    """The paper's batch, two clips of 70 frames, in both profiles; the whole process counts."""
    found, plain = step_memory(FRAMES, CHUNK), step_memory(MEMORY_TIMED[profile.name], 0)
    notes = [
        f"without chunks {plain.peak_bytes / 1e9:.2f} GB over two clips of {MEMORY_TIMED[profile.name]} frames",
        f"of the peak, {found.extra_bytes / 1e9:.2f} GB came with the step, the rest is libraries and weights",
    ]
    if profile.name == "full":
        notes.append(f"without chunks in bf16 {step_memory(FRAMES, 0, 'bf16').peak_bytes / 1e9:.2f} GB")
    return Comparison([found.peak_bytes], settings=_memory_settings(FRAMES), notes=notes, unit="bytes")


@row("time of the all-layer step in chunks", reference="the same step without chunks", target=at_most(1.4))
def finetune_chunk_time(profile: Profile) -> Comparison:
    """What computing the activations twice costs."""
    frames = MEMORY_TIMED[profile.name]
    chunked, plain = step_memory(frames, CHUNK), step_memory(frames, 0)
    notes = [
        f"the losses differ by {abs(chunked.result - plain.result):.1e}",
        "each the first step of a process of its own, so that fetching its memory counts",
    ]
    return Comparison([chunked.seconds], [plain.seconds], _memory_settings(frames), notes)


# --- Growth with the work ---------------------------------------------------------------------------------
SCALING_BASE = {"clips": 1, "frames": 8, "size": 112}
SCALING_AXES = {"clips": (1, 2, 4), "frames": (4, 8, 16, 32), "size": (56, 112, 224)}


@row("growth of the all-layer step with clips, frames and pixels", reference="itself: linear growth is a slope of 1")
def scaling(profile: Profile) -> Comparison:
    """Slopes on log-log axes; for the size over the pixels of a frame."""
    series, slopes = [], {}
    model, _ = models()
    for axis, values in SCALING_AXES.items():
        for value in values:
            work = SCALING_BASE | {axis: value}
            step = full_step(model, noise_clips(work["clips"], work["frames"], work["size"]))
            step()  # warm up
            series.append((axis, value, statistics.median(seconds_of(step) for _ in range(profile.repeats))))
        points = np.log(
            [(value ** (2 if name == "size" else 1), seconds) for name, value, seconds in series if name == axis]
        )
        slopes[axis] = float(np.polyfit(*points.T, 1)[0])
    notes = [", ".join(f"{axis} {slope:.2f}" for axis, slope in slopes.items())]
    settings = {"base": SCALING_BASE, "slopes": slopes, "precision": _precision()}
    return Comparison(list(slopes.values()), settings=settings, notes=notes, unit="slope", series=series)


# --- On a GPU ---------------------------------------------------------------------------------------------
@functools.cache
def gpu_step(profile: Profile) -> dict:
    """The all-layer step over the paper's batch on a GPU: seconds, those compiled, and the settings."""
    clips = noise_clips(2, FRAMES, SIZE)
    model, _ = models()
    seconds = {}
    for compiled in (False, True):
        step = full_step(model, clips, compiled=compiled)
        for _ in range(3):
            step()  # warm up, compile
        seconds[compiled] = [seconds_of(step, times=GPU_STEPS) for _ in range(profile.repeats)]
    settings = GRID | {
        "batch_size": 2,
        "precision": _precision(),
        "frames_per_chunk": model.frames_per_chunk,
        "steps": GPU_STEPS,
    }
    notes = [f"through torch.compile {1000 * statistics.median(seconds[True]):.0f} ms"]
    return {"seconds": seconds[False], "settings": settings, "notes": notes}


def step_flops(frames: int, size: int) -> float:
    """Multiplications and additions of an all-layer step over so many frames: three times those of the way there."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, _ = models()
    model.to("cpu")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.features(torch.zeros(1, 1, size, size))
    return 3.0 * frames * counter.get_total_flops()


@functools.cache
def matmul_rate(repeats: int) -> float:
    """Operations a second of a large bf16 matrix product on the GPU."""
    import torch

    left, right = torch.randn(2, MATMUL, MATMUL, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        left @ right
    return 2 * MATMUL**3 / min(seconds_of(lambda: left @ right, times=GPU_STEPS) for _ in range(repeats))


@row("fine-tuning step over the paper's batch", reference="none: milliseconds", gpu=True)
def gpu_step_time(profile: Profile) -> Comparison:
    """Two clips of 70 frames, all layers."""
    found = gpu_step(profile)
    return Comparison(found["seconds"], settings=found["settings"], notes=found["notes"])


@row("clips a second in fine-tuning", reference="none", gpu=True)
def gpu_clips_a_second(profile: Profile) -> Comparison:
    """From the same steps."""
    found = gpu_step(profile)
    return Comparison([2 / each for each in found["seconds"]], settings=found["settings"], unit="clips/s")


@row(
    "share of the GPU's bf16 matrix rate in the step",
    reference="a bf16 matrix product of 8192 x 8192",
    target=at_least(0.5, "of the rate"),
    gpu=True,
)
def gpu_matmul_share(profile: Profile) -> Comparison:
    """Operations of the convolutions, counted, over those the GPU could do in the same time."""
    found, rate, work = gpu_step(profile), matmul_rate(profile.repeats), step_flops(2 * FRAMES, SIZE)
    shares = [work / each / rate for each in found["seconds"]]
    notes = [f"the product runs at {rate / 1e12:.0f} TFLOP/s, the step holds {work / 1e12:.1f} TFLOP"]
    return Comparison(shares, settings=found["settings"], notes=notes, unit="of the rate")


@row(
    "GPU memory of the all-layer step in chunks",
    reference="an absolute bound: a free Colab GPU has 15 GB",
    target=at_most(12e9, "bytes"),
    gpu=True,
)
def gpu_memory(profile: Profile) -> Comparison:
    """The paper's batch."""
    import torch

    model, _ = models()
    peaks = {}
    for chunk in (CHUNK, 0):
        step = full_step(model, noise_clips(2, FRAMES, SIZE), chunk=chunk)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        peaks[chunk] = torch.cuda.max_memory_allocated()
    settings = _memory_settings(FRAMES) | {"precision": _precision()}
    notes = [f"without chunks {peaks[0] / 1e9:.2f} GB"]
    return Comparison([peaks[CHUNK]], settings=settings, notes=notes, unit="bytes")


@row("two GPUs, the same global batch", reference="one GPU", target=at_least(1.8), gpu=True)
def two_gpus(profile: Profile) -> Comparison:
    """An epoch of two steps and its validation, all layers."""
    import torch

    if torch.cuda.device_count() < 2:
        raise NotMeasuredError("one GPU only")
    order = {
        "device": "cuda",
        "precision": "auto",
        "batch_size": 8,
        "frames": profile.frames,
        "size": SIZE,
        "learning_rate": 0.001,
    }
    pairs = [(launch(2, **order)[1]["seconds"], launch(1, **order)[1]["seconds"]) for _ in range(profile.repeats)]
    return Comparison([ours for ours, _ in pairs], [one for _, one in pairs], order)
