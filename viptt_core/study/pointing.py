"""Whether evidence falls on the finding: maps of a model beside where a phantom's finding truly is, against chance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from viptt_core import ct
from viptt_core.clips import Grid
from viptt_core.datasets.simulated import PHANTOM_OVERSAMPLING
from viptt_core.errors import SettingError
from viptt_core.study.outcomes import read_packed, write_packed


def finding_on_grid(seed: int, index: int, label: int, grid: Grid) -> np.ndarray:
    """The true finding of a phantom of the set "phantom", on the grid of its clip.

    Args:
        seed, index, label: Seed of the set, the phantom's place in it (0..n-1), and its class.
        grid: As given to the set.

    Returns:
        bool [frames, size, size], True in all voxels that the finding reaches; all False where no slice of the clip
        meets it.
    """
    from viptt_core.synthetic.phantom import make_phantom  # slow to import

    finding = make_phantom((seed, index), label, size=round(PHANTOM_OVERSAMPLING * grid.size)).finding
    return ct.resample_volume(finding, depth=grid.frames, size=grid.size) > 0


RESAMPLES = 2000  # of the bootstrap over clips


@dataclass(frozen=True)
class OnFinding:
    """How much evidence falls on the finding, against chance. Shares 0..1, means over clips.

    Attributes:
        observed: On the clip's own finding.
        chance: The same map on the findings of other patients: what knowing where findings usually are would give.
        gain: observed - chance; above 0 the map follows the patient.
        covered: Part of the volume that the finding covers: what a map without any knowledge would give.
        observed_interval, gain_interval: 95 %, bootstrap over clips.
        clips: Number of clips behind these numbers.
        no_finding, no_evidence, no_other: Clips left out, each counted once: the finding is not on the grid; the map
            is nowhere above 0; there is no other patient to compare with.
    """

    observed: float
    chance: float
    gain: float
    covered: float
    observed_interval: tuple[float, float]
    gain_interval: tuple[float, float]
    clips: int
    no_finding: int
    no_evidence: int
    no_other: int


def pointing_game(
    maps: np.ndarray,
    findings: np.ndarray,
    *,
    tolerance: tuple[int, ...] = (),
    classes: np.ndarray | None = None,
    seed: int = 0,
) -> OnFinding:
    """How often the maximum of a map falls on the finding.

    The same for slices: `slice_importance` against `findings.any(axis=(2, 3))`.

    Args:
        maps: float [N, T, H, W], or [N, T]; one clip a patient. Where several places share the maximum, each counts
            for its part.
        findings: bool, shape of `maps`.
        tolerance: The finding is widened by so many voxels along each axis, (slices, rows, columns); () by none. Half
            a cell of the layer in-plane, as (0, 4, 4), allows for the coarseness of Grad-CAM.
        classes: [N]; when given, chance takes other patients of the same class, so that knowing the typical place of
            a class is chance too.
        seed: Of the bootstrap over clips; a clip is never its own other patient.

    Raises:
        SettingError: shapes that do not fit, maps that are not finite, or fewer than two clips that can be compared.

    Source:
        Zhang et al. (2018), International Journal of Computer Vision 126, 1084-1102: the pointing game.
    """
    evidence = _evidence(maps)
    top = (evidence == evidence.max(axis=1, keepdims=True)) & (evidence > 0)
    if len(tolerance) not in (0, maps.ndim - 1) or min(tolerance, default=0) < 0:
        raise SettingError(f"tolerance is {tolerance}.", remedy="Give voxels along each axis of a clip, at least 0.")
    if any(tolerance):
        sides = [2 * n + 1 for n in tolerance]
        findings = np.stack([ndimage.maximum_filter(finding.astype(bool), sides) for finding in findings])
    return _on_finding(top, maps.shape, findings, classes=classes, seed=seed)


def mass_on_finding(
    maps: np.ndarray, findings: np.ndarray, *, classes: np.ndarray | None = None, seed: int = 0
) -> OnFinding:
    """Which share of a map's positive evidence lies on the finding; arguments as for `pointing_game`."""
    return _on_finding(_evidence(maps), maps.shape, findings, classes=classes, seed=seed)


def _evidence(maps: np.ndarray) -> np.ndarray:
    if maps.ndim < 2 or not maps.size or not np.isfinite(maps).all():
        raise SettingError("maps are empty or not finite.", remedy="Give finite numbers [N, T, H, W] or [N, T].")
    return np.maximum(maps, 0).reshape(len(maps), -1)


def _on_finding(evidence: np.ndarray, shape, findings: np.ndarray, *, classes, seed: int) -> OnFinding:
    """Evidence [N, V], not negative, on findings and on those of others."""
    classes = np.zeros(shape[0]) if classes is None else np.asarray(classes)
    if findings.shape != shape or classes.shape != shape[:1]:
        what = f"maps have shape {shape}, findings {findings.shape}, classes {classes.shape}."
        raise SettingError(what, remedy="Give arrays of one shape, and a class for each clip.")
    wide = findings.astype(bool).reshape(len(findings), -1)
    finds, speaks = wide.any(axis=1), evidence.any(axis=1)
    usable = finds & speaks
    other = (classes[:, None] == classes) & usable & ~np.eye(len(classes), dtype=bool)
    kept = np.flatnonzero(usable & other.any(axis=1))
    if len(kept) < 2:
        raise SettingError(
            f"{usable.sum()} clips have finding and evidence, {len(kept)} of them another to be compared with.",
            remedy="Give at least two, of one class where classes count.",
        )
    other, total = other[np.ix_(kept, kept)], evidence[kept].sum(axis=1, dtype=np.float64)
    on = np.empty((len(kept), len(kept)))  # [map, finding]
    for column, j in enumerate(kept):
        on[:, column] = evidence[np.ix_(kept, np.flatnonzero(wide[j]))].sum(axis=1, dtype=np.float64) / total
    draws = np.random.default_rng(seed).multinomial(len(kept), np.full(len(kept), 1 / len(kept)), RESAMPLES)
    ((observed, chance, gain),) = _means(on, other, np.ones((1, len(kept))))
    spread = np.nanpercentile(_means(on, other, draws), [2.5, 97.5], axis=0)
    intervals = [(float(low), float(high)) for low, high in spread.T]
    return OnFinding(
        float(observed),
        float(chance),
        float(gain),
        float(wide[kept].mean()),
        intervals[0],
        intervals[2],
        len(kept),
        int((~finds).sum()),
        int((finds & ~speaks).sum()),
        int(usable.sum()) - len(kept),
    )


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
COLUMNS = [
    "arm",
    "map",
    "measure",
    "observed",
    "observed_low",
    "observed_high",
    "chance",
    "gain",
    "gain_low",
    "gain_high",
    "clips",
]


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
        Columns COLUMNS, one row an arm, map and measure. Occlusion is of whole slices, and so are the findings it is
        compared with; the maximum of Grad-CAM may miss a finding by HALF_CELL in-plane.

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
            found = of(*maps, classes=evidence.labels, **options)
            rows.append(
                (
                    arm,
                    kind,
                    measure,
                    found.observed,
                    *found.observed_interval,
                    found.chance,
                    found.gain,
                    *found.gain_interval,
                    found.clips,
                )
            )
    return pd.DataFrame(rows, columns=COLUMNS)
