"""Program behind test_resume.py: trains in child processes that are killed, then compares the weights.

Usage: python killed_training.py FOLDER KILLS SEED. Prints JSON. PyTorch is imported once and the children
are forked from here, so that a kill costs little; nothing is computed in this process before.
"""

import dataclasses
import json
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # what training imports late: here once, not in each child

from viptt_core.clips import ClipSet
from viptt_core.model import ViPTTNet
from viptt_core.presets import load_preset
from viptt_core.splits import Split
from viptt_core.training import Task, Trainer
from viptt_core.training.checkpoint import write_tensors
from viptt_core.training.device import Engine

EPOCHS, STEPS = 4, 4
MOST_EVENTS = 14  # of the 58 of a whole run: four kills fit into one


def clip_set() -> ClipSet:
    rng = np.random.default_rng(0)
    return ClipSet(
        rng.integers(0, 256, (20, 3, 16, 16)).astype(np.uint8),
        np.arange(20) % 2,
        np.arange(20).astype(str),
        np.arange(20).astype(str),
        ("a", "b"),
        {"test": 0},
    )


def train_into(folder: Path, weights: Path) -> None:
    """Train with everything that has a state: normalisation, AdamW, rotation, plateau; a checkpoint a step."""
    model = ViPTTNet(2, backbone="small", hidden_size=8, feature_size=8, generator=torch.Generator().manual_seed(0))
    stage = dataclasses.replace(
        load_preset("study").finetune,
        epochs=EPOCHS,
        batch_size=3,
        learning_rate=0.01,
        rotate=True,
        class_weights=True,
        plateau_patience=1,
        plateau_factor=0.5,
    )
    split = Split(np.arange(12), np.arange(12, 16), np.arange(16, 20))
    history = Trainer(
        model,
        Task(clip_set(), split, stage),
        folder=folder,
        engine=Engine(device="cpu", checkpoint_seconds=0, check_every=1),
    ).run()
    write_tensors(weights, model.state_dict())
    records = [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in history.epochs]
    weights.with_suffix(".json").write_text(json.dumps([records, history.engine["resumed"]]))


def announce(pipe: int) -> None:
    """Say each step and each change on disk through the pipe just before it happens."""

    def saying(function):
        def said(*arguments, **settings):
            os.write(pipe, b".")
            return function(*arguments, **settings)

        return said

    Trainer.step = saying(Trainer.step)
    for name in ("rename", "replace", "fsync"):
        setattr(os, name, saying(getattr(os, name)))


def run_child(folder: Path, weights: Path, kill_after: int | None) -> bool:
    """Train in a child; kill it after so many events. Returns whether it was killed before it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        if kill_after is not None:
            announce(writing)
        train_into(folder, weights)
        os._exit(0)
    os.close(writing)
    seen = 0
    while kill_after is not None and seen < kill_after and (said := os.read(reading, 1)):
        seen += len(said)
    if kill_after is not None and seen == kill_after:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"the child failed with status {status}")
    return os.WIFSIGNALED(status)


def main() -> None:
    root, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng, killed = random.Random(seed), 0
    run_child(root / "whole", root / "whole.safetensors", None)
    for attempt in range(kills):
        # A run that ended before its kill starts anew in another folder: each kill counts.
        folder = root / f"killed-{attempt // 4}"
        killed += run_child(folder, root / f"killed-{attempt // 4}.safetensors", rng.randint(1, MOST_EVENTS))
    whole = (root / "whole.safetensors").read_bytes()
    results = []
    for folder in sorted(root.glob("killed-*/")):
        weights = root / f"{folder.name}.safetensors"
        run_child(folder, weights, None)
        records, resumed = json.loads(weights.with_suffix(".json").read_text())
        same_log = records == json.loads((root / "whole.json").read_text())[0]
        results.append({"same_weights": weights.read_bytes() == whole, "same_log": same_log, "resumed": resumed})
    print(json.dumps({"killed": killed, "runs": results}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
