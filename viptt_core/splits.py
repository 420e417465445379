"""Train, validation and test sets: the authors' own, those a set was published with, and by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from viptt_core.clips import ClipSet, Item
from viptt_core.errors import DataError, Fault, SettingError, check_choice, counted

PARTS = ("train", "validation", "test")
FOLDS = 5
_REMEDY = "Add files (or simulate more), join classes, or leave one out."


@dataclass(frozen=True)
class Split:
    """Indices (int64) into a ClipSet; learning rate, stopping and checkpoint see `validation` only.

    `selection_biased`: test and validation are the same clips, as in the paper's own reading.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    selection_biased: bool = False

    def sizes(self) -> str:
        """For example "180 train, 60 validation, 60 test"."""
        text = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        return text + (" (test = validation: selection-biased)" if self.selection_biased else "")


def split_faults(kind: str, items: Sequence[Item], class_names: Sequence[str]) -> list[Fault]:
    """Why a set cannot be split: one class only, or classes with too few groups (for the authors' splits: clips)."""
    if not items:
        return []
    if len(class_names) < 2:
        what = f"has one class: {', '.join(class_names)}."
        return [Fault("fewer than two classes", ".", what, "At least two are needed to tell them apart.")]
    noun, least = ("clip", 2) if kind == "authors" else ("group", FOLDS)
    if kind == "own" and any(item.part for item in items):  # as they were published
        return []
    counts = Counter(label for label, _ in {(i.label, i.name if kind == "authors" else i.group) for i in items})
    needed = f"{least} are needed for every part of a split to show it."
    return [
        Fault("too few groups", name, f"this class has {counted(counts[label], noun)}; {needed}", _REMEDY)
        for label, name in enumerate(class_names)
        if counts[label] < least
    ]


def make_split(kind: str, clips: ClipSet, *, stage: str, seed: int = 0, fold: int = 0) -> Split:
    """Split a set as a preset asks.

    Args:
        kind: "authors" (by clip, fixed seed 0), "group" (by seed and fold), or "own": the parts that a set was
            published with, where it has them, else by group.
        clips: The set.
        stage: "pretrain" or "finetune"; the authors split videos and scans differently.
        seed: Of the split by group, see `split_by_group`; the others are one split.
        fold: Of the split by group, too.

    Raises:
        SettingError: unknown kind or stage, or a fold of the published parts.
        DataError: too few groups, or a class that no training clip shows.
    """
    check_choice("splits", kind, ("authors", "group", "own"))
    check_choice("stage", stage, ("pretrain", "finetune"))
    if kind == "own" and clips.parts is not None:
        if fold:
            remedy = "Give fold 0, or split by 'group'."
            raise SettingError(f"there is no fold {fold} of the published parts.", remedy=remedy)
        split = Split(*(np.flatnonzero(clips.parts == part) for part in PARTS))
    elif kind == "authors":
        split = authors_split(clips.labels, stage)
    else:
        split = split_by_group(clips.labels, clips.groups, seed=seed, fold=fold)
    if unseen := sorted(set(clips.labels.tolist()) - set(clips.labels[split.train].tolist())):
        raise DataError(f"no training clip of {', '.join(clips.class_names[k] for k in unseen)}.", remedy=_REMEDY)
    return split


def split_by_group(labels: np.ndarray, groups: np.ndarray, *, seed: int, fold: int = 0, folds: int = FOLDS) -> Split:
    """Stratified split in which no group is in two parts.

    The groups fall into `folds` parts of about equal class mix; part `fold` is the test set, the next one validates,
    the others train (60/20/20 with five). Over all folds every clip is tested once.

    Raises:
        SettingError: no such fold, or fewer than 3.
        DataError: fewer groups, or clips of every class, than folds.
    """
    if folds < 3 or not 0 <= fold < folds:
        remedy = "Give 3 folds or more: one tests, one validates, the others train."
        raise SettingError(f"there is no fold {fold} of {folds}.", remedy=remedy)
    parts = group_parts(labels, groups, seed=seed, folds=folds)
    test, validation = parts[fold], parts[(fold + 1) % folds]
    train = np.setdiff1d(np.arange(len(labels)), np.concatenate([test, validation]))
    return Split(train, validation, test)


def authors_split(labels: np.ndarray, stage: str) -> Split:
    """The authors' splits by clip: `train_test_split(0.2, random_state=0)`, stratified for scans.

    Of videos, clips of one source fall on both sides, and Keras's `validation_split=0.2` takes the last fifth of the
    training set, in its shuffled order (1366 clips: 873, 219, 274). Of scans they report the part that also picks
    the checkpoint; it stands here as validation and test.
    """
    from sklearn.model_selection import train_test_split

    stratify = labels if stage == "finetune" else None
    try:
        train, test = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=0, stratify=stratify)
    except ValueError as error:
        what = f"{len(labels)} clips cannot be split as by the authors: {error}"
        raise DataError(what, remedy=_REMEDY) from error
    if stage == "finetune":
        return Split(train, test, test, selection_biased=True)
    n_train = int(len(train) * 0.8)
    return Split(train[:n_train], train[n_train:], test)


def group_parts(labels: np.ndarray, groups: np.ndarray, *, seed: int, folds: int) -> list[np.ndarray]:
    """Indices [N] in `folds` parts of about equal size and class mix, no group in two of them."""
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import, and what lists files needs it not

    n_groups, largest = len(np.unique(groups)), np.bincount(labels).max(initial=0)
    if n_groups < folds or largest < folds:
        what = f"{n_groups} groups cannot be split {folds} ways; the largest class has {largest} clips."
        raise DataError(what, remedy=f"{_REMEDY} Does the group pattern join too much?")
    folder = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [part for _, part in folder.split(labels, labels, groups)]
