"""ImageCLEF 2021's TB-type task: several models' answers combined, and the file to hand in.

The file is text without a header, one line `TST_0001.nii.gz,2` a scan, classes numbered from 1. [B]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from viptt_core import files
from viptt_core.constants import TB_CLASSES
from viptt_core.errors import DataError, SettingError, check_choice, listed

SCAN_NAME = re.compile(r"[^/\\,\"\s]+\.nii\.gz")  # a name that does not break the lines of the file
ENSEMBLES = ("mean", "vote", "authors")
AUTHORS_WEIGHTS = (0.6, 0.2, 0.2)  # of their three runs, in the order of the runs [C]


def check_names(names: Sequence[str]) -> None:
    """Raise a DataError unless each file name is there once and can stand in a submission."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if wrong := twice or [name for name in names if not SCAN_NAME.fullmatch(name)]:
        what = "more than one scan is named so" if twice else "is not the bare name of a .nii.gz file"
        remedy = "A submission knows each scan by its file name, such as TST_0001.nii.gz: name one folder of scans."
        raise DataError(f"{listed([repr(name) for name in wrong])}: {what}.", remedy=remedy)


def write_submission(path: str | PathLike, names: Sequence[str], classes) -> Path:
    """Write the classes, int [N] of 1..5, of scans by their file names, in the order given; returns the path.

    Raises:
        DataError: the names make no sound file, see `check_names`; nothing is written then.
        StorageError: it cannot be written; an older file of this name stays whole.
    """
    check_names(names)
    path = Path(path)
    files.write_file(path, "".join(f"{name},{number}\n" for name, number in zip(names, classes, strict=True)))
    return path


def count_classes(numbers: Iterable[int]) -> dict[str, int]:
    """How many of the class numbers 1..5 mean each class, by its name; 0, of scans without a class, is not counted."""
    counts = Counter(numbers)
    return {name: counts[number] for number, name in enumerate(TB_CLASSES, 1)}


def counts_text(counts: Mapping[str, int]) -> str:
    """Counts of the classes in words: "Infiltrative 3, Focal 1, ..."."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


# --- Several models' probabilities -> one class a scan ---


def check_ensemble(method: str, n_models: int) -> None:
    """Raise a SettingError unless the method exists and takes so many models."""
    check_choice("ensemble", method, ENSEMBLES)
    if method == "authors" and n_models != len(AUTHORS_WEIGHTS):
        message = f"the ensemble 'authors' is of three runs, and {n_models} were given."
        raise SettingError(message, remedy="Give three, in the order of their weights, or take 'mean' or 'vote'.")


def combine(probabilities, method: str) -> np.ndarray:
    """One class a scan out of the probabilities of several models.

    "mean" takes the class of the largest mean probability, the lower one on a tie. "vote" takes the class that
    most models find most probable; on a tie, of the tied classes the one with the larger mean probability.

    "authors" is round(0.6 a + 0.2 b + 0.2 c) over the class NUMBERS of three runs, as the authors handed in. It is
    wrong for classes without an order: where one run says Infiltrative (1) and two say Tuberculoma (3), 1.8 becomes
    2, Focal, which no run said and which is no finding between the two. It stands here only to repeat the authors.

    Args:
        probabilities: float [M, N, K] of M models, 0..1, without failed scans; N and M at least 1, K at least 2.
        method: One of ENSEMBLES.

    Returns:
        int64 [N], class numbers 1..K.

    Raises:
        SettingError: another method, no probabilities, or not three models for "authors".
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if not (np.abs(values.sum(axis=2) - 1) <= 1e-3).all():  # of a failed scan they are nan
        message = "values are no probabilities: a scan's classes do not add up to 1."
        raise SettingError(message, remedy="Leave failed scans out; give what softmax returns, not logits.")
    check_ensemble(method, len(values))
    said = values.argmax(axis=2).astype(np.int64) + 1
    if method == "authors":
        # Ten times the sum is even, so it never lies half way between two classes, and rounding needs no rule.
        return np.rint(np.tensordot(AUTHORS_WEIGHTS, said, axes=1)).astype(np.int64)
    mean = np.sort(values, axis=0).mean(axis=0)  # sorted, so that the order of the models decides no tie by rounding
    if method == "vote":
        votes = (said[..., None] == np.arange(1, values.shape[2] + 1)).sum(axis=0)
        mean = np.where(votes == votes.max(axis=1, keepdims=True), mean, -1.0)
    return mean.argmax(axis=1).astype(np.int64) + 1
