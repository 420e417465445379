"""Program behind test_processes.py: trains the same in one process and in several, and compares.

Usage: python two_processes.py FOLDER PROCESSES. Prints JSON. Nothing is computed before the fork.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # imported late by training: here once, not in each process
from accelerate import debug_launcher
from torch import nn

from viptt_core.backbones import IMAGENET_MEANS, Backbone
from viptt_core.clips import ClipSet
from viptt_core.model import ViPTTNet
from viptt_core.presets import load_preset
from viptt_core.splits import Split
from viptt_core.training import Task, fit
from viptt_core.training.checkpoint import read_tensors, write_tensors
from viptt_core.training.device import Engine, process_state

# Without normalisation over a batch, which would tell its shares from the whole.
PLAIN = Backbone(
    lambda generator: nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU()), 8, IMAGENET_MEANS, (1.0,) * 3
)


def start() -> ViPTTNet:
    generator = torch.Generator().manual_seed(0)
    return ViPTTNet(3, backbone="__main__:PLAIN", hidden_size=8, feature_size=8, generator=generator)


def train_into(root: Path, name: str) -> None:
    """Seven clips in batches of three: shares of two and one, and a last batch with a clip for only one process."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    clips = ClipSet(
        rng.integers(0, 256, (12, 2, 32, 32)).astype(np.uint8),
        np.arange(12) % 3,
        np.arange(12).astype(str),
        np.arange(12).astype(str),
        ("a", "b", "c"),
        {"test": 0},
    )
    stage = dataclasses.replace(
        load_preset("paper").finetune, epochs=2, batch_size=3, learning_rate=0.05, shuffle="samples"
    )
    model = start()
    history = fit(
        model,
        Task(clips, Split(np.arange(7), np.arange(7, 12), np.arange(7, 12)), stage),
        engine=Engine(device="cpu", precision="fp32", checkpoint_seconds=0),
        folder=root / name,
    )
    if process_state().is_main_process:
        write_tensors(root / f"{name}.safetensors", model.state_dict())
        (root / f"{name}.json").write_text(json.dumps([history.epochs, history.engine]))


def main() -> None:
    root, processes = Path(sys.argv[1]), int(sys.argv[2])
    debug_launcher(train_into, (root, "several"), num_processes=processes)
    debug_launcher(train_into, (root, "one"), num_processes=1)
    one, several = (read_tensors(root / f"{name}.safetensors")[0] for name in ("one", "several"))
    logs = [json.loads((root / f"{name}.json").read_text()) for name in ("one", "several")]
    before = start().state_dict()
    print(
        json.dumps(
            {
                "difference": max(float((one[name] - several[name]).abs().max()) for name in one),
                "moved": max(float((one[name] - before[name]).abs().max()) for name in one),
                "losses": [[(epoch["loss"], epoch["val_loss"]) for epoch in log[0]] for log in logs],
                "processes": [log[1]["processes"] for log in logs],
                "checkpoints": len(list((root / "several").glob("checkpoint-*"))),
            }
        )
    )


if __name__ == "__main__":
    main()
