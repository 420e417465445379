"""Which slices the answers of networks rest on, and whether these are the ones with the finding, against chance.

Whole slices are hidden, not parts: to the trained layers a slice is numbers that were pooled over its plane.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core import ct
from viptt_core.clips import Grid
from viptt_core.datasets.simulated import PHANTOM_OVERSAMPLING
from viptt_core.errors import require
from viptt_core.study.outcomes import read_packed, write_packed

FILE = "evidence.npz"  # in the folder of a study
RESAMPLES = 2000  # of the bootstrap over scans


@dataclass(frozen=True)
class Evidence:
    """Importance of the slices of N phantoms to one network an arm, and which slices the finding truly meets."""

    arms: tuple[str, ...]  #: A names
    names: np.ndarray  #: str [N]
    labels: np.ndarray  #: int64 [N], indices into constants.TB_CLASSES
    findings: np.ndarray  #: bool [N, T]
    importance: np.ndarray  #: float16 [A, N, T], how much the chance of the predicted class drops without a slice
    predicted: np.ndarray  #: int64 [A, N]


def gather_evidence(models: dict, features: np.ndarray, empty: np.ndarray, **phantoms: np.ndarray) -> Evidence:
    """Replace one slice after another by an empty one, and see how much the predicted class loses.

    Args:
        models: ViPTTNets by arm, on the CPU, of one frozen backbone; they are set to evaluation.
        features: float32 [N, T, F], what the backbone makes of the slices.
        empty: float32 [F], of a slice without anything: `model.features` of zeros.
        phantoms: Names, labels and findings, see `Evidence`.

    Source:
        Zeiler & Fergus (2014), ECCV, 818-833: occlusion, there by patches of a picture.
    """
    import torch  # slow, and the tables do without

    n, steps, _ = features.shape
    hidden = np.eye(steps + 1, steps, -1, dtype=bool)[..., None]  # row 0: the whole scan
    importance, predicted = np.empty((len(models), n, steps), np.float16), np.empty((len(models), n), np.int64)
    for a, model in enumerate(models.values()):
        model.eval()
        for i, scan in enumerate(features):
            with torch.inference_mode():
                variants = torch.from_numpy(np.where(hidden, empty, scan).astype(np.float32))  # [T + 1, T, F]
                chances = model(variants).softmax(dim=1).numpy()
            predicted[a, i] = chances[0].argmax()
            importance[a, i] = chances[0, predicted[a, i]] - chances[1:, predicted[a, i]]
    return Evidence(tuple(models), **phantoms, importance=importance, predicted=predicted)


def finding_on_grid(seed: int, index: int, label: int, grid: Grid) -> np.ndarray:
    """The true finding of the phantom at a place in the set "phantom" of a seed, 0..n-1, on the grid of its clip.

    Returns:
        bool [frames, size, size], True in all voxels that the finding reaches.
    """
    from viptt_core.synthetic.phantom import make_phantom  # slow to import

    finding = make_phantom((seed, index), label, size=round(PHANTOM_OVERSAMPLING * grid.size)).finding
    return ct.resample_volume(finding, depth=grid.frames, size=grid.size) > 0


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write a file, see `outcomes.write_packed`."""
    arrays = {name: value for name, value in vars(evidence).items() if name != "arms"}
    write_packed(path, {"arms": list(evidence.arms)}, **arrays)


def read_evidence(path: Path) -> Evidence:
    """Read a file of `write_evidence`; a DataError where it is missing, damaged or of another format."""

    def build(meta: dict, file) -> Evidence:
        return Evidence(tuple(meta["arms"]), *(file[field.name] for field in fields(Evidence)[1:]))

    remedy = "Take it from the repository again, or make it anew."
    return read_packed(path, build, what="importance of slices", remedy=remedy)


def evidence_table(evidence: Evidence) -> pd.DataFrame:
    """How much of the importance falls on slices with the finding: columns arm, measure, and those of `on_finding`.

    Measures: "share" of all that is above 0, and "top": how often the most important slice is one of them.
    """
    rows = []
    for arm, importance in zip(evidence.arms, evidence.importance.astype(np.float64), strict=True):
        top = (importance == importance.max(axis=1, keepdims=True)) & (importance > 0)
        for measure, values in (("share", importance), ("top", top)):
            found = on_finding(values, evidence.findings, evidence.labels)
            rows.append({"arm": arm, "measure": measure} | found)
    return pd.DataFrame(rows)


def on_finding(importance: np.ndarray, findings: np.ndarray, classes: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """Which share of the importance lies on the slices of the finding, mean over scans, against chance.

    Args:
        importance: float [N, T]; what is below 0 counts nothing.
        findings: bool [N, T].
        classes: int [N].
        seed: Of the bootstrap over scans; a scan is never its own other patient.

    Returns:
        observed, chance, gain (observed - chance), each with _low and _high (95 %), and scans: how many had finding,
        importance and another patient. Chance is the same importance on the findings of other patients of the class:
        what knowing where findings usually are would give.

    Raises:
        SettingError: fewer than two scans can be compared.
    """
    weight = np.maximum(importance, 0).astype(np.float64)
    usable = findings.any(axis=1) & weight.any(axis=1)
    other = (classes[:, None] == classes) & usable & ~np.eye(len(classes), dtype=bool)
    kept = np.flatnonzero(usable & other.any(axis=1))
    what = f"{usable.sum()} scans have finding and importance, {len(kept)} of them another to be compared with."
    require(len(kept) > 1, what, "Give at least two of one class.")
    on = weight[kept] @ findings[kept].T / weight[kept].sum(axis=1, keepdims=True)  # [importance, finding]
    other = other[np.ix_(kept, kept)]
    draws = np.random.default_rng(seed).multinomial(len(kept), np.full(len(kept), 1 / len(kept)), RESAMPLES)
    means = _means(on, other, np.vstack([np.ones(len(kept)), draws]))  # the first row: each scan once
    low, high = np.nanpercentile(means[1:], [2.5, 97.5], axis=0)
    shares = {}
    for name, *values in zip(("observed", "chance", "gain"), means[0], low, high, strict=True):
        shares |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
    return shares | {"scans": len(kept)}


def _means(on: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Observed, chance and gain [R, 3] of scans that occur weights [R, N] times each; nan where nobody has another."""
    own, others = np.diag(on), weights @ other.T
    with np.errstate(invalid="ignore", divide="ignore"):
        chance, paired = weights @ (on * other).T / others, weights * (others > 0)
        means = [weights @ own / weights.sum(axis=1)]
        means += [np.nansum(paired * values, axis=1) / paired.sum(axis=1) for values in (chance, own - chance)]
    return np.stack(means, axis=1)
