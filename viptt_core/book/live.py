"""The page "What does the network use?": the demo's trained layers, to be run in the page on a phantom of each type.

The frozen backbone does not run there: `python -m viptt_core.book.live` writes what it makes of the slices to FILE.
"""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import torch
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from viptt_core.book.sphinx_ext import fill_template
from viptt_core.clips import Grid
from viptt_core.constants import TB_CLASSES
from viptt_core.datasets.simulated import list_phantoms, simulate_scan
from viptt_core.figures.viewer import webp
from viptt_core.files import artifact_root
from viptt_core.prediction.weights import DEMO, open_weights, weights_here
from viptt_core.shown import arm_label, with_interval
from viptt_core.splits import split_by_group
from viptt_core.study.evidence import FILE as EVIDENCE
from viptt_core.study.evidence import finding_on_grid, read_evidence
from viptt_core.study.outcomes import read_packed, write_packed
from viptt_core.training.checkpoint import read_tensors
from viptt_core.training.inference import frame_features

FILE = Path("results", "live.npz")
WEIGHTS = ("demo-synthetic-image", "demo-synthetic")  # one network an arm, of the same frozen backbone
IN_A_ROW = 8  # slices of a picture
QUALITY = 80  # of WebP


def setup(app) -> None:
    """Add the directive."""
    app.add_directive("live-network", LiveNetwork)


class LiveNetwork(SphinxDirective):
    """Everything on the page below its text."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", live_html(artifact_root()), format="html")]


def write_phantoms(path: Path) -> None:
    """Simulate the first test phantom of each type, and write slices [N,T,H,W], features [N,T,F] and findings [N,T]."""
    weights = open_weights(WEIGHTS[0])
    grid = Grid(weights.card.preprocessing.frames, weights.card.preprocessing.size)
    items = list_phantoms(n=sum(weights.card.data["clips"].values())).items
    labels, groups = np.array([item.label for item in items]), np.array([item.group for item in items])
    test = split_by_group(labels, groups, seed=weights.card.training["seed"]).test
    chosen = [items[test[labels[test] == k].min()] for k in range(len(TB_CLASSES))]
    scans = np.stack([simulate_scan(item.source, grid) for item in chosen])
    pixels = torch.from_numpy(np.concatenate([scans, np.zeros_like(scans[:1])])).float()
    features = frame_features(weights.model(), pixels, "fp32").numpy()
    findings = [finding_on_grid(*item.source[:3], grid).any(axis=(1, 2)) for item in chosen]
    names = [item.name for item in chosen]
    write_packed(path, {"names": names}, scans=scans, features=features[:-1], empty=features[-1, 0], findings=findings)


def read_phantoms(root: Path) -> dict:
    """Content of FILE: "names", a phantom a class, and arrays by name; a DataError where it is missing or damaged."""
    arrays = ("scans", "features", "empty", "findings")
    return read_packed(
        root / FILE,
        lambda meta, file: {"names": meta["names"]} | {name: file[name] for name in arrays},
        what="phantoms",
        remedy="Make it anew: python -m viptt_core.book.live",
    )


def live_html(root: Path) -> str:
    """The HTML of the directive; `root` holds `results/`."""
    found, cards, evidence = read_phantoms(root), weights_here(), root / "results" / "synthetic" / EVIDENCE
    told = {"classes": TB_CLASSES, "steps": found["features"].shape[1], "phantoms": [], "arms": []}
    data = {"empty": _packed(found["empty"]), "features": [_packed(one) for one in found["features"]]}
    data |= {"findings": found["findings"].tolist(), "weights": []}
    for k, name in enumerate(found["names"]):
        slices, picture = (np.flatnonzero(found["findings"][k]) + 1).tolist(), _picture(found["scans"][k])
        told["phantoms"].append({"name": name, "type": TB_CLASSES[k], "finding": slices, "picture": picture})
    for name in WEIGHTS:
        card, tensors = cards[name], read_tensors(DEMO / f"{name}.safetensors")[0]
        data["weights"].append({key: _packed(one.numpy()) for key, one in tensors.items() if one.is_floating_point()})
        test = next(scores for scores in card.metrics if scores["part"] == "test")
        kappa = with_interval(test["kappa"], test["kappa_low"], test["kappa_high"])
        told["arms"].append({"label": arm_label(card.training["start"]), "kappa": kappa, "n": test["n"]})
    told |= {"data": data, "n": len(read_evidence(evidence).names) if evidence.is_file() else 0}
    return fill_template("live.html", told)


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _picture(scan: np.ndarray) -> str:
    """Slices [T,H,W] in rows of IN_A_ROW, WebP."""
    return webp(np.vstack([np.hstack(scan[at : at + IN_A_ROW]) for at in range(0, len(scan), IN_A_ROW)]), QUALITY)


if __name__ == "__main__":
    write_phantoms(artifact_root() / FILE)
