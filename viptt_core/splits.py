"""Train, validation and test parts: the authors' own, those a set was published with, and by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from viptt_core.clips import ClipSet, Item
from viptt_core.errors import DataError, Fault, SettingError, check_choice, counted, listed, warn_of

KINDS = ("authors", "group", "official", "own")
STAGES = ("pretrain", "finetune")
PARTS = ("train", "validation", "test")
FOLDS = 5
_BY_GROUP = "Add clips, or split by 'group'."
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
    parts = {item.part for item in items}
    if kind == "official" or (kind == "own" and parts != {""}):
        faults = list(_published_faults(items, class_names))
        if faults or "validation" in parts:
            return faults
        items = [item for item in items if item.part == "train"]  # a fifth of them, by group, validates
    counts = Counter(label for label, _ in {(i.label, i.name if kind == "authors" else i.group) for i in items})
    few = {name: n for label, name in enumerate(class_names) if (n := counts[label]) < least}
    needed = f"{least} are needed for every part of a split to show it."
    return [
        Fault("too few groups", name, f"this class has {counted(n, noun)}; {needed}", _REMEDY)
        for name, n in few.items()
    ]


def _published_faults(items: Sequence[Item], class_names: Sequence[str]) -> Iterator[Fault]:
    """Published parts that are not there, or show too few classes."""
    for part in PARTS:
        shown = {item.label for item in items if item.part == part}
        unseen = [name for label, name in enumerate(class_names) if label not in shown]
        if not shown:
            if part != "validation":
                yield Fault("part without clips", ".", f"the published part '{part}' has no clip.", _BY_GROUP)
        elif unseen and (part == "train" or len(shown) < 2):
            what = f"the published part '{part}' has no clip of {listed(unseen)}."
            yield Fault("part without a class", ".", what, _BY_GROUP)
        elif unseen:
            what = f"the published part '{part}' has no clip of {listed(unseen)}: nothing is told of it there."
            yield Fault("part without a class", ".", what, level="note")


def part_faults(groups: Sequence[str], parts: Sequence[str]) -> list[Fault]:
    """A note of the groups that are in more than one published part; those stay as they are."""
    counts = Counter(group for group, _ in set(zip(groups, parts, strict=True)))
    if not (straddling := sorted(group for group, n in counts.items() if n > 1)):
        return []
    what = f"{len(straddling)} of {len(counts)} groups are in more than one published part: {listed(straddling)}."
    remedy = "Scores on them are too high; a split by 'group' is not."
    return [Fault("group in two parts", ".", what, remedy, level="note")]


def make_split(kind: str, clips: ClipSet, *, stage: str, seed: int = 0, fold: int = 0) -> Split:
    """Split a set as a preset asks.

    Args:
        kind: "authors" (by clip, fixed seed 0), "official" (the parts the set was published with), "group"
            (by seed and fold), or "own": official where the set was published with parts, else by group.
        clips: The set.
        stage: "pretrain" or "finetune"; the authors split videos and scans differently.
        seed: Of the split by group, see `split_by_group`; the others are one split.
        fold: Of the split by group, too.

    Raises:
        SettingError: unknown kind or stage, or a fold of the published parts.
        DataError: too few groups, no published parts, or a class that no training clip shows.

    Warns:
        DataWarning: groups that are in more than one published part.
    """
    check_choice("splits", kind, KINDS)
    check_choice("stage", stage, STAGES)
    if kind == "own":
        kind = "group" if clips.parts is None else "official"
    if kind == "official" and fold:
        remedy = "Give fold 0, or split by 'group'."
        raise SettingError(f"there is no fold {fold} of the published parts.", remedy=remedy)
    if kind == "group":
        split = split_by_group(clips.labels, clips.groups, seed=seed, fold=fold)
    elif kind == "official":
        split = official_split(clips, seed=seed)
    else:
        split = authors_split(clips.labels, stage)
    if unseen := sorted(set(clips.labels.tolist()) - set(clips.labels[split.train].tolist())):
        raise DataError(f"no training clip of {', '.join(clips.class_names[k] for k in unseen)}.", remedy=_REMEDY)
    return split


def split_by_group(labels: np.ndarray, groups: np.ndarray, *, seed: int, fold: int = 0, folds: int = FOLDS) -> Split:
    """Stratified split in which no group is in two parts.

    The groups fall into `folds` parts of about equal class mix; part `fold` is the test part, the next one validates,
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


def official_split(clips: ClipSet, *, seed: int) -> Split:
    """The parts a set was published with; if none of them validates, about a fifth of the training part, by group.

    Raises:
        DataError: no published parts, or only some of the clips have one, or no training or test part.
    """
    if clips.parts is None:
        raise DataError("this set was not published with parts.", remedy="Split it by 'group'.")
    if others := sorted(set(clips.parts.tolist()) - set(PARTS)):
        what = f"clips are in no published part, or in one of another name ({', '.join(others)})."
        remedy = f"Name the part of each clip ({', '.join(PARTS)}), or split by 'group'."
        raise DataError(f"{np.isin(clips.parts, others).sum()} {what}", remedy=remedy)
    train, validation, test = (np.flatnonzero(clips.parts == part) for part in PARTS)
    for part, indices in (("train", train), ("test", test)):
        if not len(indices):
            raise DataError(f"the set was published without a part '{part}'.", remedy="Split it by 'group'.")
    for fault in part_faults(clips.groups.tolist(), clips.parts.tolist()):
        warn_of(fault)
    if not len(validation):
        inner = group_parts(clips.labels[train], clips.groups[train], seed=seed, folds=FOLDS)[0]
        train, validation = np.delete(train, inner), train[inner]
    return Split(train, validation, test)


def authors_split(labels: np.ndarray, stage: str) -> Split:
    """The authors' splits by clip: `train_test_split(0.2, random_state=0)`, stratified for scans.

    Of videos, clips of one source fall on both sides, and Keras's `validation_split=0.2` takes the last fifth of the
    training part, in its shuffled order (1366 clips: 873, 219, 274). Of scans they report the part that also picks
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
