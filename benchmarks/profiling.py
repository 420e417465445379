"""`python -m benchmarks.profiling`: where the time of a step, of a feature pass and of a scan goes, on the CPU.

Times of single operators come from torch.profiler, those of the stages of a scan from cProfile; both are put under
names a reader knows. How long the work takes is measured apart, without a profiler.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import ROOT, describe_machine, seconds_of, write_json

RESULTS = ROOT / "benchmarks" / "results"
FILE = "profile-cpu.json"
FORMAT = 1
FRAMES, SIZE = 16, 224
NAMED = 3  # operators named in each part
OTHER = "other"
REPEATS, ENOUGH = 3, 10.0  # measurements of the whole, and seconds after which there are no more
CACHED_STEPS = 20  # a profile, because one takes milliseconds
# The first group that knows an operator, or one that called it, gets its time. Parts of names in lower case.
GROUPS = {
    "optimiser": ("optimizer.", "_fused_"),
    "LSTM": ("lstm", "rnn"),
    "pooling": ("pool", "aten::mean", "meanbackward"),
    "data movement": ("copy", "aten::to", "aten::cat", "aten::stack", "contiguous", "index_select"),
    "convolution backward": ("convolution_backward", "convolutionbackward"),
    "convolution forward": ("conv",),
    "ReLU": ("relu", "clamp_min", "threshold"),
    "stem and dense layers": ("linear", "addmm", "aten::mm"),
}


def group_of(names: Iterable[str]) -> str:
    """Group of an operator.

    Args:
        names: Its own name and those of the operators that called it.
    """
    known = [name.lower() for name in names]
    for group, marks in GROUPS.items():
        if any(mark in name for mark in marks for name in known):
            return group
    return OTHER


def parts_of(spent: dict[str, Counter]) -> list[dict]:
    """Parts of a whole, largest first, JSON-ready: name, share, the operators that took most.

    Args:
        spent: Group -> operator -> time, in any unit.
    """
    whole = sum(times.total() for times in spent.values())
    parts = [
        {"name": group, "share": times.total() / whole, "operators": [name for name, _ in times.most_common(NAMED)]}
        for group, times in spent.items()
    ]
    return sorted(parts, key=lambda part: -part["share"])


def profile_operators(work: Callable[[], object], times: int = 1) -> list[dict]:
    """Parts of what `work` does, by torch.profiler; time between operators counts as other."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        began = time.perf_counter()
        for _ in range(times):
            work()
        microseconds = 1e6 * (time.perf_counter() - began)
    spent: dict[str, Counter] = {}
    for event in profiler.events():
        chain, caller = [event.name], event.cpu_parent
        while caller is not None:
            chain.append(caller.name)
            caller = caller.cpu_parent
        spent.setdefault(group_of(chain), Counter())[event.name.removeprefix("aten::")] += event.self_cpu_time_total
    between = microseconds - sum(times.total() for times in spent.values())
    spent.setdefault(OTHER, Counter())["Python between operators"] += max(between, 0.0)
    return parts_of(spent)


def profile_scan(path: Path) -> list[dict]:
    """Parts of reading one scan, by cProfile: decompression, in-plane resampling, the rest."""
    from viptt_core import ct, nifti

    profiler = cProfile.Profile()
    profiler.runcall(ct.load_volume, path)
    found = pstats.Stats(profiler)
    reading = shrinking = 0.0
    for (_, _, name), (*_, callers) in found.stats.items():
        inside = sum(times[3] for (file, *_), times in callers.items() if file in (ct.__file__, nifti.__file__))
        if any(word in name for word in ("readinto", "'read'", "seek")) or name == "read":
            reading += inside
        elif name == "shrink":
            shrinking += inside
    rest = found.total_tt - reading - shrinking
    return parts_of(
        {
            "decompression": Counter({"isal": reading}),
            "in-plane resampling": Counter({"take, clip, arithmetic on slices": shrinking}),
            OTHER: Counter({"interpolation between slices, checks": rest}),
        }
    )


def measure(name: str, title: str, work: Callable[[], object], parts: Callable[[], list[dict]], **settings) -> dict:
    """One piece of work, JSON-ready: its seconds without a profiler, and its parts."""
    print(f"{title} ...", flush=True)
    work()  # warm up
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < ENOUGH:
        seconds.append(seconds_of(work))
    return {"name": name, "title": title, "seconds": statistics.median(seconds), "settings": settings, "parts": parts()}


def all_work(frames: int, size: int) -> list[dict]:
    """Measure everything."""
    import torch

    from benchmarks.rows import (
        first_and_last,
        fresh_cache,
        full_step,
        models,
        noise_clips,
        phantom_scans,
        plain_stage,
    )
    from viptt_core.ct import load_volume
    from viptt_core.training import Task, Trainer
    from viptt_core.training.device import Engine, pick_precision, to_pixels
    from viptt_core.training.inference import frame_features

    precision = pick_precision("auto", torch.device("cpu"), "vgg16")
    settings = {"frames": frames, "size": size, "precision": precision}
    model, _ = models()
    clips = noise_clips(2, frames, size)
    step = full_step(model, clips)
    found = [
        measure(
            "finetune_step",
            "fine-tuning step, all layers, two clips",
            step,
            lambda: profile_operators(step),
            batch_size=2,
            **settings,
        )
    ]
    pixels = to_pixels(torch.from_numpy(clips.clips[:1]), "0..1")

    def features() -> None:
        frame_features(model, pixels, precision)

    found.append(
        measure(
            "feature_pass",
            "features of one clip, backbone frozen",
            features,
            lambda: profile_operators(features),
            batch_size=1,
            **settings,
        )
    )
    with fresh_cache():
        task = Task(clips, first_and_last(1, 1), plain_stage(frozen=True, batch_size=1))
        trainer = Trainer(model, task, engine=Engine(device="cpu"))

    def cached() -> None:
        trainer.step(next(trainer.feed.batches([task.split.train])))

    found.append(
        measure(
            "cached_step",
            "training step on cached features, one clip",
            cached,
            lambda: profile_operators(cached, CACHED_STEPS),
            batch_size=1,
            **settings,
        )
    )
    scan = phantom_scans()[0][0]
    found.append(
        measure(
            "preprocess_scan",
            "preprocess one scan (512 x 512 x 130)",
            lambda: load_volume(scan),
            lambda: profile_scan(scan),
            n=1,
        )
    )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    command = argparse.ArgumentParser(
        prog="python -m benchmarks.profiling",
        description="Say where the time goes on the CPU, also where there is a GPU. Under two minutes on two cores.",
        epilog="Close other programs: they share the cores that are measured.",
    )
    command.add_argument("--frames", type=int, default=FRAMES, help=f"of a clip (default: {FRAMES})")
    command.add_argument("--size", type=int, default=SIZE, help=f"height and width, pixels (default: {SIZE})")
    command.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="FOLDER",
        help=f"folder of {FILE} (default: benchmarks/results)",
    )
    options = command.parse_args(arguments)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks for one
    from viptt_core.files import provenance

    content = {
        "format": FORMAT,
        "machine": describe_machine(),
        "provenance": provenance(),
        "work": all_work(options.frames, options.size),
    }
    for work in content["work"]:
        shares = ", ".join(f"{part['name']} {part['share']:.0%}" for part in work["parts"] if part["share"] >= 0.01)
        print(f"{work['title']}: {work['seconds']:.3g} s; {shares}")
    path = options.results / FILE
    write_json(path, content)
    print(f"written to {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
