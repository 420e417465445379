"""Train, validation and test parts: the authors' own splits, and splits that keep groups together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from viptt_core.errors import DataError
from viptt_core.presets import check_choice
from viptt_core.store import ClipSet

KINDS = ("authors", "group")
STAGES = ("pretrain", "finetune")


@dataclass(frozen=True)
class Split:
    """Indices into a ClipSet; learning rate, stopping and checkpoint see `validation` only.

    Attributes:
        train, validation, test: int64 indices.
        selection_biased: True where test and validation are the same clips, as in the paper's own
            reading: its scores come from the part that picked the checkpoint.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    selection_biased: bool = False

    def sizes(self) -> str:
        """For example "180 train, 60 validation, 60 test"."""
        text = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        return text + (" (test = validation: selection-biased)" if self.selection_biased else "")


def make_split(kind: str, clips: ClipSet, *, stage: str, seed: int = 0, fold: int = 0) -> Split:
    """Split a set as a preset asks: "authors" (fixed seed 0) or "group" (by seed and fold).

    Raises:
        SettingError: unknown kind or stage.
        DataError: too few groups, or a class that no training clip shows.
    """
    check_choice("splits", kind, KINDS)
    check_choice("stage", stage, STAGES)
    if kind == "group":
        split = split_by_group(clips.labels, clips.groups, seed=seed, fold=fold)
    elif stage == "pretrain":
        split = authors_video_split(len(clips))
    else:
        split = authors_scan_split(clips.labels)
    unseen = set(np.unique(clips.labels)) - set(clips.labels[split.train])
    if unseen:
        names = ", ".join(clips.class_names[label] for label in sorted(unseen))
        raise DataError(
            f"no training clip of {names}.", remedy="Add clips or groups of that class, or leave it out."
        )
    return split


def split_by_group(labels: np.ndarray, groups: np.ndarray, *, seed: int, fold: int = 0, folds: int = 5) -> Split:
    """Stratified split in which no group is in two parts.

    The groups fall into `folds` parts of about equal class mix; part `fold` is the test part, the
    next one validates, the others train (60/20/20 with five).

    Args:
        labels: int [N].
        groups: [N], any hashable kind.
        seed: Of the shuffle.
        fold: Which part is the test part, 0 to `folds` - 1.
        folds: Number of parts, at least 3.
    """
    n_groups = len(np.unique(groups))
    if n_groups < folds:
        raise DataError(
            f"{n_groups} groups cannot be split {folds} ways.",
            remedy="More patients (or source videos) are needed, or another group pattern.",
        )
    parts = [
        part
        for _, part in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups)
    ]
    test, validation = parts[fold], parts[(fold + 1) % folds]
    train = np.setdiff1d(np.arange(len(labels)), np.concatenate([test, validation]))
    return Split(train, validation, test)


def authors_video_split(n: int) -> Split:
    """The authors' UCF50 split: by clip, so clips of one source video fall on both sides.

    `train_test_split(0.2, random_state=0)`, then Keras's `validation_split=0.2`: the last fifth of
    the training part, in its shuffled order (1366 clips: 873, 219, 274).
    """
    train, test = train_test_split(np.arange(n), test_size=0.2, random_state=0)
    n_train = int(len(train) * 0.8)
    return Split(train[:n_train], train[n_train:], test)


def authors_scan_split(labels: np.ndarray) -> Split:
    """The authors' TB split: `train_test_split(0.2, random_state=0, stratify=labels)`.

    They report the part that also picks the checkpoint; it stands here as validation and test.
    """
    train, validation = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    return Split(train, validation, validation, selection_biased=True)
