"""The pictures and tables of the book's pages that are no notebooks, made from committed files alone.

Notebooks draw their own. Here, each file has the function that makes it, so that nothing is copied by hand. The
drawings `hu.svg`, `model.svg` and `parts.svg` are edited as they are; tests compare their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import yaml
from torch import nn

from viptt_core import files
from viptt_core.constants import TB_CLASSES
from viptt_core.figures import Picture, kappa_by_arm
from viptt_core.figures.claim import claim_chart, interval_chart
from viptt_core.figures.study import attribution_chart
from viptt_core.files import artifact_root
from viptt_core.model import ViPTTNet, count_parameters
from viptt_core.presets import Preset, Stage, load_preset
from viptt_core.study.outcomes import read_outcomes, read_table
from viptt_core.study.plan import load_study
from viptt_core.study.report import StudyResults

PRESETS = ("paper", "corrected", "frozen", "demo", "study")
SIZES = {"paper": "VGG16", "demo": "small"}  # presets whose layers are counted


def attribution(root: Path) -> Picture:
    """What the gap between the paper's two unequal arms is made of, on synthetic scans."""
    folder = root / "results" / "synthetic"
    # The table as committed: computing it again from the predictions takes minutes, and `viptt recheck` does.
    outcomes = {"attribution": read_outcomes(folder / "attribution.npz")}
    tables = {"attribution": read_table(folder / "attribution.csv")}
    return attribution_chart(StudyResults(load_study("synthetic"), outcomes, tables))


def kappa(root: Path) -> Picture:
    """Test kappas of the published page on fine-tuning, which runs on synthetic scans."""
    return kappa_by_arm(read_table(root / "results" / "02_finetune.csv"), synthetic=True)


def parameters() -> str:
    """Layers of the paper's network and of the small one side by side, as CSV."""
    tables = {title: layers(load_preset(name), len(TB_CLASSES)).set_index("layer") for name, title in SIZES.items()}
    rows = list(dict.fromkeys(layer for table in tables.values() for layer in table.index))
    order = list(max(tables.values(), key=len).index)  # blocks that one of them lacks stay empty
    table = pd.DataFrame({"layer": sorted(rows, key=order.index)})
    for title, found in tables.items():
        shown = found.reindex(table["layer"])
        table[f"{title}: output"] = shown["output"].fillna("").to_numpy()
        table[f"{title}: parameters"] = [f"{count:,.0f}" if count > 0 else "" for count in shown["parameters"]]
    return table.to_csv(index=False)


def paper_network(num_classes: int, preset: Preset) -> ViPTTNet:
    """The network of a preset with random weights."""
    return ViPTTNet(
        num_classes,
        backbone=preset.backbone,
        temporal=preset.temporal,
        hidden_size=preset.hidden_size,
        feature_size=preset.feature_size,
        generator=torch.Generator().manual_seed(0),
    )


def layers(preset: Preset, num_classes: int) -> pd.DataFrame:
    """What a clip becomes on its way through the network of a preset, and what each step has learnt.

    Shapes come from sending a clip without content through the network, counts from its weights.

    Returns:
        Columns layer, output (T x H x W x channels), parameters. A block of the backbone ends with a pooling; in a
        backbone without any, with an activation.
    """
    network = paper_network(num_classes, preset).to("meta").eval()
    frames = torch.empty(preset.frames, 3, preset.size, preset.size, device="meta")
    rows = [
        ("input", (preset.frames, preset.size, preset.size), 0),
        ("stem", _last(frames), count_parameters(network.stem)),
    ]
    end = nn.MaxPool2d if any(isinstance(m, nn.MaxPool2d) for m in network.backbone) else nn.ReLU
    block, learnt = 1, 0
    with torch.no_grad():
        for module in network.backbone:
            frames, learnt = module(frames), learnt + count_parameters(module)
            if isinstance(module, end):
                rows.append((f"backbone, block {block}", _last(frames), learnt))
                block, learnt = block + 1, 0
        features = frames.mean(dim=(-2, -1))
        summary = network.temporal.summary(features[None])
        dense = network.feature(summary)
        logits = network.classifier(dense)
    rows += [
        ("mean over the plane", tuple(features.shape), 0),
        ("LSTM, last state", tuple(summary.shape[1:]), count_parameters(network.temporal)),
        ("dense, ReLU", tuple(dense.shape[1:]), count_parameters(network.feature)),
        ("classes, softmax", tuple(logits.shape[1:]), count_parameters(network.classifier)),
        ("all", (), count_parameters(network)),
    ]
    shown = [(layer, "×".join(map(str, shape)), count) for layer, shape, count in rows]
    return pd.DataFrame(shown, columns=["layer", "output", "parameters"])


def _last(frames: torch.Tensor) -> tuple[int, ...]:
    """Shape [T, C, H, W] as T, H, W, C."""
    time, channels, height, width = frames.shape
    return time, height, width, channels


def settings() -> str:
    """What the presets set, one column a preset, as CSV."""
    rows = {
        "input T×H×W": lambda p: f"{p.frames}×{p.size}×{p.size}",
        "every n-th frame of a video": lambda p: f"{p.stride}",
        "a frame is made square by": lambda p: {"stretch": "stretching", "crop": "cropping"}[p.fit],
        "scans are turned": lambda p: {"file": "never", "canonical": "by their header"}[p.orientation],
        "backbone": lambda p: p.backbone,
        "start of the stem": lambda p: {"glorot": "random", "imagenet": "as VGG16 expects"}[p.stem],
        "temporal part, dense layer": lambda p: f"{p.temporal.upper()} {p.hidden_size}, {p.feature_size}",
        "parts": lambda p: {"authors": "by clip; by scan, no test part", "own": "three, by group"}[p.splits],
        "pretraining: optimiser, rate": lambda p: _optimiser(p.pretrain),
        "pretraining: batch, epochs at most": lambda p: f"{p.pretrain.batch_size}, {p.pretrain.epochs}",
        "pretraining: what is trained": lambda p: _trained(p.pretrain),
        "fine-tuning: optimiser, rate": lambda p: _optimiser(p.finetune),
        "fine-tuning: batch, epochs at most": lambda p: f"{p.finetune.batch_size}, {p.finetune.epochs}",
        "fine-tuning: what is trained": lambda p: _both(p, _trained),
        "fine-tuning: classes weighted": lambda p: _both(p, lambda stage: _yes(stage.class_weights)),
        "fine-tuning: scans rotated": lambda p: _both(p, lambda stage: _yes(stage.rotate)),
        "pixels: videos, scans": lambda p: f"{p.pretrain.pixel_range}, {p.finetune.pixel_range}",
        "batches of scans": lambda p: {"batches": "always the same", "samples": "new each epoch"}[p.finetune.shuffle],
    }
    presets = [load_preset(name) for name in PRESETS]
    table = pd.DataFrame([[name, *map(tell, presets)] for name, tell in rows.items()], columns=["setting", *PRESETS])
    return table.to_csv(index=False)


def _optimiser(stage: Stage) -> str:
    return f"{ {'sgd': 'SGD', 'adamw': 'AdamW'}[stage.optimiser] }, {stage.learning_rate:g}"


def _trained(stage: Stage) -> str:
    frozen = [name for name, fixed in (("stem", stage.freeze_stem), ("backbone", stage.freeze_backbone)) if fixed]
    return f"all but {' and '.join(frozen)}" if frozen else "all"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _both(preset: Preset, tell: Callable[[Stage], str]) -> str:
    """One answer for all arms, or two where the arm from videos differs from the other."""
    video, image = tell(preset.stage("video")), tell(preset.stage("image"))
    return video if video == image else f"video: {video}; image: {image}"


def citation(root: Path) -> str:
    """CITATION.cff as BibTeX."""
    cff = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    authors = [
        f"{person['family-names']}, {person['given-names']}" if "family-names" in person else f"{{{person['name']}}}"
        for person in cff["authors"]
    ]
    fields = {
        "author": " and ".join(authors),
        "title": f"{{{cff['title']}}}",
        "version": cff["version"],
        "year": str(cff.get("date-released", ""))[:4],
        "doi": cff.get("doi", ""),
        "url": cff.get("url") or cff.get("repository-code", ""),
        "license": cff.get("license", ""),
    }
    lines = [f"  {name:<7} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join(["@software{viptt_net_artifact,", *lines, "}", ""])


# Paths from the artifact's root.
PICTURES: dict[str, Callable[[Path], Picture]] = {
    "book/_static/claim.svg": claim_chart,
    "book/_static/intervals.svg": lambda root: interval_chart(),
    "book/_static/attribution.svg": attribution,
    "book/_static/kappa.svg": kappa,
}
TEXTS: dict[str, Callable[[Path], str]] = {
    "results/parameters.csv": lambda root: parameters(),
    "results/presets.csv": lambda root: settings(),
    "book/_static/citation.bib": citation,
}


def write_artwork(root: Path | None = None) -> list[Path]:
    """Write all pictures and tables below `root`, the repository by default; returns their paths.

    Raises:
        DataError: a committed file is missing or damaged.
        StorageError: one cannot be written.
    """
    root = root or artifact_root()
    made = {name: draw(root).encode("svg") for name, draw in PICTURES.items()}
    made |= {name: write(root) for name, write in TEXTS.items()}
    for name, content in made.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        files.write_file(root / name, content)
    return [root / name for name in made]
