"""Scan files -> probabilities, with what is unusual about each file. A file that cannot be read stops no other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import entr

from viptt_core.datasets.folders import read_scan
from viptt_core.datasets.listing import SCAN_ENDINGS, has_ending, nothing_to_read, printable, walk_folder
from viptt_core.errors import DataError, SettingError, raise_faults
from viptt_core.files import available_cores
from viptt_core.prediction.card import RESEARCH_ONLY, Preprocessing
from viptt_core.prediction.weights import Weights, open_weights
from viptt_core.scan_facts import ScanFacts, scan_faults, slice_axis
from viptt_core.shown import ResultTable, ShownAsTable
from viptt_core.training.device import Engine, pick_device, pick_precision
from viptt_core.training.feed import read_ahead
from viptt_core.training.inference import predict_logits

TOGETHER = 8  # scans that wait for the model at once
CHEST_MM = {"wide": (150, 600), "long": (120, 800)}  # a field of view that can hold a chest, from child to whole trunk
GREY_MARGIN = 0.25  # of the range of the training scans' grey levels
# Beside faults for which `viptt data check` refuses a training scan. Others, such as slices that are not square, are
# not told: training scans may have them as well.
TOLD_NOTES = ("voxels not finite", "few slices", "filled or cut off", "no lung")


@dataclass(frozen=True)
class Predictions(ShownAsTable):
    """What models say about scans."""

    names: tuple[str, ...]  #: the N scans as they were named
    weights: tuple[Weights, ...] = field(repr=False)  #: the M models
    probabilities: np.ndarray = field(repr=False)  #: float64 [M, N, K], 0..1; nan for a scan that could not be read
    #: Of each scan, how it is unlike what the models were trained on.
    warnings: tuple[tuple[str, ...], ...] = field(repr=False)
    errors: tuple[str, ...] = field(repr=False)  #: of each scan, why it could not be read; "" for all others
    notes: tuple[str, ...] = ()  #: about the models, whatever the scan

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.weights[0].classes

    @property
    def failed(self) -> np.ndarray:
        """Scans that could not be read, bool [N]."""
        return np.array([bool(error) for error in self.errors])

    @property
    def failures(self) -> list[str]:
        """Each scan that could not be read, and why."""
        return [f"{name}: failed: {error}" for name, error in zip(self.names, self.errors, strict=True) if error]

    def table(self, model: int = 0) -> pd.DataFrame:
        """What one model says: scan, class, a probability a class, entropy_bits, warnings, error, notice.

        The entropy is 0 for a model that is sure, log2 K for one that has no idea. It says nothing about
        whether the model is right, nor whether it should have been asked.
        """
        probabilities = self.probabilities[model]
        best = np.where(self.failed, "", np.array(self.class_names)[probabilities.argmax(axis=1)])
        of_classes = pd.DataFrame(probabilities, columns=list(self.class_names)).round(6)
        return pd.concat([pd.DataFrame({"scan": self.names, "class": best}), of_classes], axis=1).assign(
            entropy_bits=(entr(probabilities).sum(axis=1) / np.log(2)).round(4),
            warnings=["; ".join(warnings) for warnings in self.warnings],
            error=list(self.errors),
            notice=f"{RESEARCH_ONLY} Trained on synthetic data." if self.weights[model].synthetic else RESEARCH_ONLY,
        )

    def _shown(self) -> ResultTable:
        shown = self.table().drop(columns=["warnings", "error", "notice"]).round(3)
        if self.weights[0].synthetic:
            shown["trained on"] = "synthetic data"
        of_scans = zip(self.names, self.warnings, strict=True)
        told = [f"{name}: {warning}" for name, warnings in of_scans for warning in warnings]
        text = "\n".join([*self.failures, *told, *self.notes, RESEARCH_ONLY])
        return ResultTable(text, shown.astype(object).where(shown.notna(), "-"))


def find_scans(paths: Sequence[str | PathLike]) -> list[Path]:
    """Scans among files and folders, in this order; folders are searched to their end, mask folders left out.

    A file that is named twice counts once. Folders that cannot be read are among them, and fail as a scan does. A
    DataError if a path does not exist, or a folder holds no scan.
    """
    given = [Path(path).expanduser() for path in paths]
    if missing := [str(path) for path in given if not path.exists()]:
        raise DataError("no such file or folder.", path=", ".join(missing), remedy="Check the path.")
    scans: dict[Path, Path] = {}
    for path in given:
        for scan in [path] if path.is_file() else _scans_below(path):
            scans.setdefault(scan.resolve(), scan)
    if not scans:
        raise SettingError("no scan is named.", remedy="Name NIfTI files, or folders of them.")
    return list(scans.values())


def predict_scans(
    weights: Weights | str | PathLike | Sequence[Weights | str | PathLike],
    scans: str | PathLike | Sequence[str | PathLike],
    *,
    engine: Engine | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
) -> Predictions:
    """Class probabilities of scan files; the next scans are read while the model works on some.

    Args:
        weights: See `weights.open_weights`; several are all asked about each scan, which is read once.
        scans: NIfTI files and folders, see `find_scans`.
        engine: How to compute; None takes the fastest device, in fp32: the same digits on every machine.
        n_jobs: Threads that read (decompression leaves the interpreter's lock); None takes the available cores.

    Returns:
        One entry a scan, those that could not be read included.

    Raises:
        DataError: weights cannot be used, or are none for scans; a path does not exist.
        SettingError: several weights of different classes.
    """
    from tqdm import tqdm

    several = [weights] if isinstance(weights, Weights | str | PathLike) else list(weights)
    opened = tuple(each if isinstance(each, Weights) else open_weights(each) for each in several)
    _check_models(opened)
    paths = find_scans([scans] if isinstance(scans, str | PathLike) else scans)
    engine = engine or Engine(precision="fp32")
    device = pick_device(engine.device)
    models = [each.model() for each in opened]
    for model in models:
        model.place(device)
    precisions = [pick_precision(engine.precision, device, model.backbone_name) for model in models]
    probabilities = np.full((len(opened), len(paths), len(opened[0].classes)), np.nan)
    told: list[tuple[tuple[str, ...], str]] = []  # of each scan
    read = partial(_read, weights=opened)
    with (
        closing(read_ahead(read, paths, n_jobs or available_cores())) as reading,
        tqdm(total=len(paths), desc="predicting", unit="scan", disable=not progress) as bar,
    ):
        while batch := list(islice(reading, TOGETHER)):
            sound = [n for n, (*_, error) in enumerate(batch) if not error]
            for m, each in enumerate(opened if sound else ()):
                grid = each.card.preprocessing
                clips = np.stack([batch[n][0][grid] for n in sound])
                settings = {"precision": precisions[m], "pixel_range": grid.pixel_range}
                logits = predict_logits(models[m], clips, np.arange(len(clips)), **settings)
                probabilities[m, np.add(sound, len(told))] = torch.from_numpy(logits).double().softmax(dim=1).numpy()
            # Grey levels are let go: those of all scans would fill the memory.
            told += [(warnings, error) for _, warnings, error in batch]
            bar.update(len(batch))
    synthetic = [each.name for each in opened if each.synthetic]
    return Predictions(
        tuple(printable(str(path)) for path in paths),
        opened,
        probabilities,
        *zip(*told, strict=True),
        tuple(f"{name}: trained on synthetic scans; what it says about a patient means nothing." for name in synthetic),
    )


def check_output(path: Path) -> None:
    """Raise a DataError unless a file can lie there; worth knowing before the work that is to fill it."""
    if not path.absolute().parent.is_dir():
        raise DataError("no such folder.", path=path.absolute().parent, remedy="Make it first.")
    if path.is_dir():
        raise DataError("is a folder.", path=path, remedy="Name the file to write.")


def scan_warnings(where: str, facts: ScanFacts, grid: Preprocessing) -> list[str]:
    """How a scan is unlike a chest CT in Hounsfield units on which a model could have been trained."""
    faults = scan_faults(where, facts, grid.orientation)
    told = [fault.what for fault in faults if fault.level == "file" or fault.kind in TOLD_NOTES]
    along = slice_axis(facts)
    extents = [n * mm for n, mm in zip(facts.shape, facts.spacing, strict=True)]
    measured = {"long": extents[along], "wide": max(mm for k, mm in enumerate(extents) if k != along)}
    for direction, (least, most) in CHEST_MM.items():
        if not least <= measured[direction] <= most:
            told.append(f"is {measured[direction]:.0f} mm {direction}: is it a chest, and are its voxel sizes right?")
    return told


def _read(path: Path, *, weights: Sequence[Weights]) -> tuple[dict[Preprocessing, np.ndarray], tuple[str, ...], str]:
    """Grey levels of a scan by grid, uint8 [T,H,W], and what is unusual about it; or why it could not be read."""
    levels, warnings = {}, {}  # the latter for its keys, in their order
    try:
        if os.path.isdir(path):  # among files only where it could not be looked into
            raise DataError("is a folder that cannot be read.", remedy="See that you may read it.")
        for grid in dict.fromkeys(each.card.preprocessing for each in weights):
            levels[grid], facts = read_scan(path, grid)  # as training saw scans
            warnings |= dict.fromkeys(scan_warnings(str(path), facts, grid))
    except DataError as error:
        remedy = error.remedy
        if error.kind == "missing file" and not error.path.exists():  # what is named was there
            remedy = "Rename or remove it: its name is not UTF-8, or it is a link to nothing."
        return {}, (), f"{error.what} {remedy}".strip()
    for each in weights:
        if known := each.card.training.get("grey_levels"):
            level = float(levels[each.card.preprocessing].mean()) / 255
            margin = GREY_MARGIN * (known[1] - known[0])
            if not known[0] - margin <= level <= known[1] + margin:
                told = f"has a mean grey level of {level:.2f}; training scans had {known[0]:.2f} to {known[1]:.2f}."
                warnings[told] = None
    return levels, tuple(warnings), ""


def _check_models(weights: Sequence[Weights]) -> None:
    """All checks that need no scan."""
    if not weights:
        raise SettingError("no weights are named.", remedy="Name at least one file of weights.")
    for each in weights:
        kind = each.card.preprocessing.kind
        if kind != "scan":
            what = f"was trained on {kind}s ({each.card.about}), not on scans."
            raise DataError(what, path=each.path, remedy="Give weights that were fine-tuned on CT scans.")
        if each.classes != weights[0].classes:
            told = [f"{one.path} tells {', '.join(one.classes)}" for one in (each, weights[0])]
            raise SettingError(f"{'; '.join(told)}.", remedy="Ask them one by one.")


def _scans_below(root: Path) -> list[Path]:
    """Scans below a folder, or an error; what cannot be read is among them, to be told with the reason."""
    folder = walk_folder(root)
    unreadable = [
        root / fault.where
        for fault in folder.faults
        if fault.kind == "unreadable folder" or has_ending(Path(fault.where), SCAN_ENDINGS)
    ]
    scans = folder.scans()
    if not scans and not unreadable:
        raise_faults([nothing_to_read(folder, ("scan",))], root)
    return sorted([*scans, *unreadable])
