"""What the runs of a study see: scans drawn by seed or fold, and the changed clips of the controls.

Every change is recorded in the set's `source`, so that no run is taken for one on other clips.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.model_selection import train_test_split

from viptt_core.clips import ClipSet
from viptt_core.errors import SettingError, check_choice
from viptt_core.splits import split_by_group
from viptt_core.study.plan import SCAN_VARIANTS, VIDEO_VARIANTS

HELD_OUT = 0.4  # of the clips split by clip, half of it to validate: as the five folds by group leave them


def draw_scans(scans: ClipSet, *, n_pool: int, n_train: int, seed: int, test: bool = True) -> ClipSet:
    """The scans of one seed: some of the pool, in its class mix, as training part; the rest of the set tests.

    Args:
        scans: The set; the first `n_pool` are the pool.
        n_pool: Below len(scans).
        n_train: At most n_pool; part of them validates, see `splits.official_split`.
        seed: Of the draw.
        test: False tests on what the draw left of the pool instead (or on the draw itself where it left nothing):
            pilot runs then never see a test scan.

    Raises:
        SettingError: sizes that do not fit.
    """
    if not 0 < n_train <= n_pool < len(scans):
        raise SettingError(
            f"{n_train} of a pool of {n_pool} cannot be drawn of {len(scans)} scans.",
            remedy="Give n_train <= n_pool < number of scans.",
        )
    train, left = np.arange(n_pool), np.arange(0)
    if n_train < n_pool:
        train, left = train_test_split(train, train_size=n_train, random_state=seed, stratify=scans.labels[:n_pool])
    tested = np.arange(n_pool, len(scans)) if test else left if len(left) else train
    indices = np.concatenate([np.sort(train), tested])
    parts = np.array(["train"] * len(train) + ["test"] * len(tested))
    drawn = {"n_pool": n_pool, "n_train": n_train, "draw": seed, "test": test}
    return replace(
        scans,
        clips=scans.clips[indices],
        labels=scans.labels[indices],
        groups=scans.groups[indices],
        names=scans.names[indices],
        parts=parts,
        source=scans.source | drawn,
        covariates={name: column[indices] for name, column in scans.covariates.items()},
    )


def fold_scans(scans: ClipSet, fold: int, folds: int, seed: int = 0) -> ClipSet:
    """The set with the parts of one fold by group.

    The folds are the same for every training seed; pilot runs have folds of another seed.
    """
    split = split_by_group(scans.labels, scans.groups, seed=seed, fold=fold, folds=folds)
    parts = np.full(len(scans), "validation")
    parts[split.train], parts[split.test] = "train", "test"
    return replace(scans, parts=parts, source=scans.source | {"fold": fold, "folds": folds, "fold_seed": seed})


def vary_videos(videos: ClipSet, variant: str, seed: int) -> ClipSet:
    """Videos as a control needs them.

    - "shuffled labels": each clip has the label of another; nothing about activities can be learnt.
    - "shuffled frames": the frames of each clip in a random order of its own.
    - "still frames": the middle frame of each clip, as often as it had frames; nothing moves.
    - "split by clip": split at random, so that clips of one source video are on both sides.

    Raises:
        SettingError: unknown variant.
    """
    check_choice("variant of the videos", variant, VIDEO_VARIANTS)
    if variant == "sound":
        return videos
    rng = np.random.default_rng([seed, VIDEO_VARIANTS.index(variant)])
    n, frames = videos.clips.shape[:2]
    changed: dict[str, object] = {"source": videos.source | {"variant": variant, "variant_seed": seed}}
    if variant == "shuffled labels":
        changed["labels"] = rng.permutation(videos.labels)
    elif variant == "shuffled frames":
        changed["clips"] = shuffle_steps(videos.clips, rng)
    elif variant == "still frames":
        changed["clips"] = np.repeat(videos.clips[:, frames // 2, None], frames, axis=1)
    else:
        train, held = train_test_split(np.arange(n), test_size=HELD_OUT, random_state=seed, stratify=videos.labels)
        test = train_test_split(held, test_size=0.5, random_state=seed, stratify=videos.labels[held])[1]
        parts = np.full(n, "validation")
        parts[train], parts[test] = "train", "test"
        changed["parts"] = parts
    return replace(videos, **changed)


def vary_scans(scans: ClipSet, variant: str, seed: int) -> ClipSet:
    """Scans as a control needs them: "shuffled slices" in a random order of each scan's own, in all parts.

    "no finding" is another set, see `datasets.simulated.phantom`.

    Raises:
        SettingError: unknown variant.
    """
    check_choice("variant of the scans", variant, SCAN_VARIANTS)
    if variant != "shuffled slices":
        return scans
    rng = np.random.default_rng([seed, SCAN_VARIANTS.index(variant)])
    return replace(
        scans, clips=shuffle_steps(scans.clips, rng), source=scans.source | {"variant": variant, "variant_seed": seed}
    )


def shuffle_steps(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each clip [T, H, W] with its frames or slices in a random order of its own."""
    order = rng.permuted(np.tile(np.arange(clips.shape[1]), (len(clips), 1)), axis=1)
    return np.take_along_axis(clips, order[:, :, None, None], axis=1)
