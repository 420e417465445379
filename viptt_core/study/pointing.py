"""Whether evidence falls on the finding: maps of a model beside where a phantom's finding truly is, against chance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from viptt_core.errors import SettingError
from viptt_core.study.outcomes import read_packed, write_packed

RESAMPLES = 2000  # of the bootstrap over clips


def pointing_game(
    maps: np.ndarray, findings: np.ndarray, *, tolerance: tuple[int, ...] = (), classes=None, seed: int = 0
) -> dict[str, float]:
    """How often the maximum of a map falls on the finding; where several places share it, each counts for its part.

    Args:
        maps, findings, classes, seed: See `mass_on_finding`.
        tolerance: The finding is widened by so many voxels along each axis, (slices, rows, columns); () by none.

    Source:
        Zhang et al. (2018), International Journal of Computer Vision 126, 1084-1102: the pointing game.
    """
    highest = maps.max(axis=tuple(range(1, maps.ndim)), keepdims=True, initial=0)
    top = np.where(np.isnan(maps), np.nan, (maps == highest) & (maps > 0))
    if any(tolerance):
        sides = [1, *(2 * n + 1 for n in tolerance)]
        findings = ndimage.maximum_filter(findings.astype(np.uint8), sides, mode="constant") > 0
    return mass_on_finding(top, findings, classes=classes, seed=seed)


def mass_on_finding(maps: np.ndarray, findings: np.ndarray, *, classes=None, seed: int = 0) -> dict[str, float]:
    """Which share of a map's positive evidence lies on the finding, mean over clips, against chance.

    Args:
        maps: float [N, T, H, W], or [N, T] of slices; one clip a patient.
        findings: bool, shape of `maps`.
        classes: [N]; when given, chance takes other patients of the same class, so that knowing the typical place of
            a class is chance too.
        seed: Of the bootstrap over clips; a clip is never its own other patient.

    Returns:
        observed, observed_low, observed_high: on the clip's own finding; chance: the same map on the findings of other
        patients, what knowing where findings usually are would give; gain, gain_low, gain_high: observed - chance;
        clips: how many had finding, evidence and another patient.

    Raises:
        SettingError: shapes that do not fit, or fewer than two clips that can be compared.
    """
    classes = np.zeros(len(maps)) if classes is None else np.asarray(classes)
    fits = findings.shape == maps.shape and classes.shape == maps.shape[:1] and maps.size
    if not fits or not np.isfinite(maps).all():
        what = f"maps have shape {maps.shape}, findings {findings.shape}, classes {classes.shape}."
        raise SettingError(what, remedy="Give finite numbers in arrays of one shape, and a class for each clip.")
    evidence = np.maximum(maps.astype(np.float64), 0).reshape(len(maps), -1)
    wide = findings.astype(bool).reshape(len(findings), -1)
    usable = wide.any(axis=1) & evidence.any(axis=1)
    other = (classes[:, None] == classes) & usable & ~np.eye(len(classes), dtype=bool)
    kept = np.flatnonzero(usable & other.any(axis=1))
    if len(kept) < 2:
        raise SettingError(
            f"{usable.sum()} clips have finding and evidence, {len(kept)} of them another to be compared with.",
            remedy="Give at least two, of one class where classes count.",
        )
    on = evidence[kept] @ wide[kept].T / evidence[kept].sum(axis=1, keepdims=True)  # [map, finding]
    other = other[np.ix_(kept, kept)]
    draws = np.random.default_rng(seed).multinomial(len(kept), np.full(len(kept), 1 / len(kept)), RESAMPLES)
    ((observed, chance, gain),) = _means(on, other, np.ones((1, len(kept))))
    low, high = np.nanpercentile(_means(on, other, draws), [2.5, 97.5], axis=0)
    shares = {"observed": observed, "observed_low": low[0], "observed_high": high[0], "chance": chance}
    return shares | {"gain": gain, "gain_low": low[2], "gain_high": high[2], "clips": len(kept)}


def _means(on: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Observed, chance and gain [R, 3] of clips that occur weights [R, N] times each; nan where nobody has another."""
    own, others = np.diag(on), weights @ other.T
    with np.errstate(invalid="ignore", divide="ignore"):
        chance = weights @ (on * other).T / others
        paired = weights * (others > 0)
        means = [weights @ own / weights.sum(axis=1)]
        means += [np.nansum(paired * values, axis=1) / paired.sum(axis=1) for values in (chance, own - chance)]
    return np.stack(means, axis=1)


# --- Maps of what networks looked at, in one file, and the table of how much of it falls on the true finding ---


OCCLUSION, GRAD_CAM = "occlusion", "Grad-CAM"
HALF_CELL = 4  # pixels of a clip: half a cell of the layer that Grad-CAM is of, in the backbone "small"
# What there is of each arm: its prefix and dtype in the file.
BY_ARM = {
    "slice_importance": ("occlusion", np.float16),
    "grad_cam": ("grad_cam", np.uint8),
    "predicted": ("predicted", np.int64),
}


@dataclass(frozen=True)
class Evidence:
    """Maps of one network an arm, beside where the finding truly is.

    Attributes:
        names, labels: str [N], int [N], the clips.
        class_names: K names.
        findings: bool [N, T, h, w].
        slice_importance: By arm, float16 [N, T]: drop of the score when a slice is hidden.
        grad_cam: By arm, uint8 [N, T, h, w], at most 255; height and width of clips, or a part of them.
        predicted: By arm, int [N].
        shown: int [M], which of the N are stored as pictures, too.
        clips: uint8 [M, T, H, W].
        synthetic: Whether the clips were simulated.

    Raises:
        SettingError: shapes that do not fit, or arms that are not the same in all three.
    """

    names: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    findings: np.ndarray
    slice_importance: dict[str, np.ndarray]
    grad_cam: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]
    shown: np.ndarray
    clips: np.ndarray
    synthetic: bool

    def __post_init__(self) -> None:
        n, steps = self.findings.shape[:2]
        fits = len(self.names) == len(self.labels) == n and self.clips.shape[:2] == (len(self.shown), steps)
        fits &= list(self.slice_importance) == list(self.grad_cam) == list(self.predicted)
        for arm in self.predicted if fits else ():
            fits &= self.predicted[arm].shape == (n,) and self.slice_importance[arm].shape == (n, steps)
            fits &= self.grad_cam[arm].shape == self.findings.shape
        if not fits:
            raise SettingError(
                "maps, findings, clips and names do not fit each other.",
                remedy="Give each arm all three, for the same clips on the same grid.",
            )

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms, in the file's order."""
        return tuple(self.predicted)


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write a file; an older one stays until the new one is complete.

    Raises:
        StorageError: it cannot be written.
    """
    meta = {"class_names": list(evidence.class_names), "arms": list(evidence.arms), "synthetic": evidence.synthetic}
    by_arm = {
        f"{prefix}/{arm}": maps.astype(dtype)
        for name, (prefix, dtype) in BY_ARM.items()
        for arm, maps in getattr(evidence, name).items()
    }
    write_packed(
        path,
        meta,
        names=evidence.names.astype(str),
        labels=evidence.labels.astype(np.int64),
        findings=evidence.findings.astype(bool),
        shown=evidence.shown.astype(np.int64),
        clips=evidence.clips.astype(np.uint8),
        **by_arm,
    )


def read_evidence(path: Path) -> Evidence:
    """Read a file of `write_evidence`.

    Raises:
        DataError: it is missing, damaged or of another format.
    """
    return read_packed(path, _unpack, what="maps", remedy="Take it from the repository again, or make it anew.")


def _unpack(meta: dict, file) -> Evidence:
    by_arm = {name: {arm: file[f"{prefix}/{arm}"] for arm in meta["arms"]} for name, (prefix, _) in BY_ARM.items()}
    arrays = {name: file[name] for name in ("names", "labels", "findings", "shown", "clips")}
    return Evidence(class_names=tuple(meta["class_names"]), synthetic=meta["synthetic"], **arrays, **by_arm)


def evidence_tables(evidence: Evidence) -> pd.DataFrame:
    """How much of each arm's evidence falls on the finding, against the findings of others of the same class.

    Returns:
        Columns arm, map, measure, and those of `mass_on_finding`. Occlusion is of whole slices, and so are the findings
        it is compared with; the maximum of Grad-CAM may miss a finding by HALF_CELL in-plane.

    Raises:
        SettingError: fewer than two clips of a class can be compared.
    """
    rows = []
    on_slice = evidence.findings.any(axis=(2, 3))
    in_plane = HALF_CELL * evidence.findings.shape[-1] // evidence.clips.shape[-1]  # the maps may be coarser
    for arm in evidence.arms:
        slices, voxels = (evidence.slice_importance[arm], on_slice), (evidence.grad_cam[arm], evidence.findings)
        for kind, maps, measure, of, options in (
            (OCCLUSION, slices, "pointing", pointing_game, {}),
            (OCCLUSION, slices, "mass", mass_on_finding, {}),
            (GRAD_CAM, voxels, "pointing", pointing_game, {"tolerance": (0, in_plane, in_plane)}),
            (GRAD_CAM, voxels, "mass", mass_on_finding, {}),
        ):
            named = {"arm": arm, "map": kind, "measure": measure}
            rows.append(named | of(*maps, classes=evidence.labels, **options))
    return pd.DataFrame(rows)
