"""`python -m benchmarks.against COMMIT`: this code beside an older commit's, in turn, on this machine.

Each measurement is a process of its own, so that neither code finds what the other left in memory. A row is
measured in pairs, old and new, the order swapped from pair to pair; what is printed is the median ratio of seconds
new / old with its bootstrap interval over pairs, and the peak memory of either. Files that the rows read are written
once, by the older code.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import run_process, worktree
from benchmarks.inputs import write_copy
from viptt_core.files import write_file

PAIRS = 7
TARGET = 1.05  # no interval of a ratio may lie above this
DEMO = ["-p", "epochs", "5", "-p", "pretrain_epochs", "5", "-p", "n_scans", "100", "-p", "n_videos", "125"]
TIMED = """
import time
{prepare}
began = time.perf_counter()
{work}
seconds = time.perf_counter() - began
print("seconds", seconds)
"""
ONE_CLIP = """
import torch
from benchmarks.rows import full_step, noise_clips
from viptt_core.model import ViPTTNet
model = ViPTTNet(10, generator=torch.Generator().manual_seed(0))
clips = noise_clips({n}, 70, 224)
"""
PRETRAIN = """
from dataclasses import replace
import numpy as np
from viptt_core.presets import load_preset
from viptt_core.splits import Split
stage = replace(load_preset("paper").pretrain, epochs=1)
split = Split(np.array([0]), np.array([1]), np.empty(0, np.int64))
def fit_once():
    try:
        from viptt_core.training import Task, fit
    except ImportError:
        from viptt_core.train import fit
        return fit(model, clips, split, stage, seed=0)
    return fit(model, Task(clips, split, stage, 0))
"""
EMPTY = "import shutil\nfrom viptt_core.files import cache_root\nshutil.rmtree(cache_root(), ignore_errors=True)\n"
LOAD = """
from viptt_core.datasets import load_dataset
def load(name, root):
    return load_dataset(name, root, n_jobs=2, progress=False)
"""
FEED = """
import numpy as np, torch
try:
    from viptt_core.training.feed import Feed
except ImportError:
    from viptt_core.feed import Feed
clips = load('ucf50', '{videos}')
batches = np.array_split(np.random.default_rng(0).permutation(len(clips)), len(clips) // 4)
feed = Feed(clips.clips, torch.device('cpu'))
read = feed.rows if hasattr(feed, 'rows') else feed.batches
"""
# Name -> what is done before the clock starts, and what is timed; the names in braces are of `write_files`.
SNIPPETS = {
    "load_volume of 512 x 512 x 130, three times": (
        "from viptt_core.ct import load_volume\nload_volume('{scan}')",
        "for _ in range(3): load_volume('{scan}')",
    ),
    "a step of pretraining at the paper's size, and the validation of a clip": (
        ONE_CLIP.format(n=2) + PRETRAIN,
        "fit_once()",
    ),
    "a step of fine-tuning all layers at the paper's size, one scan": (
        ONE_CLIP.format(n=1) + "step = full_step(model, clips)",
        "step()",
    ),
    "decoding 40 scans of 512 x 512 x 130, two workers": (EMPTY + LOAD, "load('folder', '{copies}')"),
    "decoding 200 videos, two workers": (EMPTY + LOAD, "load('ucf50', '{videos}')"),
    "opening the 200 decoded videos": (LOAD + "load('ucf50', '{videos}')", "load('ucf50', '{videos}')"),
    "three epochs over them": (LOAD + FEED, "for _ in range(3):\n    for rows in read(batches): pass"),
}
PREDICT = "viptt predict on 20 scans"
COLD, WARM = "the demo notebook, reduced, cold caches", "the demo notebook, reduced, warm caches"


class Side:
    """A checkout of one commit with a root of its own for caches and runs."""

    def __init__(self, name: str, folder: Path, home: Path) -> None:
        self.name, self.folder, self.home = name, folder, home
        home.mkdir(parents=True, exist_ok=True)

    def run(self, arguments: list[str]) -> tuple[float, int, str]:
        """See `run_process`."""
        own = {"PYTHONPATH": str(self.folder), "VIPTT_ROOT": str(self.home), "OMP_NUM_THREADS": "2"}
        return run_process(arguments, log=self.home / "printed", cwd=self.folder, env=os.environ | own)

    def snippet(self, prepare: str, work: str) -> tuple[float, int]:
        """What the code between the clock's two readings took."""
        _, memory, printed = self.run([sys.executable, "-c", TIMED.format(prepare=prepare, work=work)])
        seconds = float(next(line.split()[1] for line in printed.splitlines() if line.startswith("seconds ")))
        return seconds, memory

    def demo(self, *, cold: bool) -> tuple[float, int]:
        if cold:
            shutil.rmtree(self.home / "data", ignore_errors=True)
        shutil.rmtree(self.home / "runs", ignore_errors=True)
        output = str(self.home / "out.ipynb")
        return self.run(["papermill", "notebooks/02_finetune.py", output, "--no-progress-bar", *DEMO])[:2]

    def predict(self, scans: Path) -> tuple[float, int]:
        runs = self.home / "runs"
        if not runs.is_dir():
            self.demo(cold=False)
        run = next(path for path in runs.glob("finetune-video-*") if path.is_dir())
        return self.run(["viptt", "predict", str(scans), "--weights", str(run), "-o", str(self.home / "p.csv")])[:2]


def write_files(old: Side, folder: Path) -> dict[str, Path]:
    """Files as the older code writes them.

    Returns:
        "scan": one of 512 x 512 x 130; "copies": 40 of it in two classes; "scans": 20 links to ten of 256 x 256 x 80;
        "videos": 200 in ten classes.
    """
    places = {name: folder / name for name in ("one", "ten", "copies", "scans", "videos")}
    for words in (
        f"phantom {places['one']} -n 1 --size 512 --slices 130",
        f"phantom {places['ten']} -n 10 --size 256 --slices 80",
        f"actions {places['videos']} --groups 5 --clips 4",
    ):
        old.run(["viptt", *words.split(), "--jobs", "2"])
    places["scan"] = places["one"] / "TRN_0001.nii.gz"
    for i in range(40):
        copy = places["copies"] / "ab"[i % 2] / f"scan_{i:02d}.nii.gz"
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_copy(places["scan"], copy, i)
    places["scans"].mkdir()
    for i, path in enumerate(2 * sorted(places["ten"].glob("TRN_*.nii.gz"))):
        (places["scans"] / f"scan_{i:02d}.nii.gz").symlink_to(path)
    return places


def ratio_interval(old: list[float], new: list[float]) -> tuple[float, float, float]:
    """Median of the ratios new / old of the pairs, and its 95 % bootstrap interval over pairs."""
    ratios = np.array(new) / np.array(old)
    draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__)
    parser.add_argument("commit", help="the older code, such as a tag")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--only", nargs="*", help="rows whose names begin so")
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="viptt-against-") as folder,
        worktree(options.commit) as old,
        worktree("HEAD") as new,
    ):
        base = Path(folder)
        sides = [Side("old", old, base / "old-home"), Side("new", new, base / "new-home")]
        rows = {
            name: row
            for name, row in rows_on(write_files(sides[0], base)).items()
            if not options.only or any(name.startswith(begin) for begin in options.only)
        }
        found = {}
        for name, row in rows.items():
            found[name] = compare(name, row, sides, options.pairs)
            if options.output:
                content = {"pairs": options.pairs, "against": options.commit, "rows": found}
                write_file(options.output, json.dumps(content, indent=1) + "\n")


def rows_on(places: dict[str, Path]) -> dict[str, Callable[[Side], tuple[float, int]]]:
    """Each row: a function that measures a side, seconds and peak memory in bytes."""
    rows = {
        COLD: lambda side: side.demo(cold=True),
        WARM: lambda side: side.demo(cold=False),
        PREDICT: lambda side: side.predict(places["scans"]),
    }
    for name, code in SNIPPETS.items():
        for place, path in places.items():
            code = [part.replace(f"{{{place}}}", str(path)) for part in code]
        rows[name] = lambda side, code=code: side.snippet(*code)
    return rows


def compare(name: str, row: Callable[[Side], tuple[float, int]], sides: list[Side], pairs: int) -> dict:
    """Measure both sides in pairs, print the outcome and return it, JSON-ready."""
    seconds, memory = {"old": [], "new": []}, {"old": [], "new": []}
    for pair in range(pairs):
        for side in sides if pair % 2 == 0 else sides[::-1]:
            taken, peak = row(side)
            seconds[side.name].append(taken)
            memory[side.name].append(peak / 1e6)
    ratio, low, high = ratio_interval(seconds["old"], seconds["new"])
    verdict = "slower" if low > TARGET else "as fast" if high <= TARGET else "not told apart from slower"
    print(
        f"{name}: {np.median(seconds['old']):.2f} s -> {np.median(seconds['new']):.2f} s, "
        f"ratio {ratio:.3f} ({low:.3f} to {high:.3f}): {verdict}; "
        f"peak {np.median(memory['old']):.0f} MB -> {np.median(memory['new']):.0f} MB",
        flush=True,
    )
    return {"seconds": seconds, "memory_mb": memory, "ratio": [ratio, low, high]}


if __name__ == "__main__":
    main()
