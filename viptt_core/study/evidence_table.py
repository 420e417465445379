"""Maps of what networks looked at, in one file, and the table of how much of it falls on the true finding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core.errors import SettingError
from viptt_core.pointing import mass_on_finding, pointing_game
from viptt_core.study.packed import read_packed, write_packed

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
