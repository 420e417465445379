"""What the runs of a study see: the scans of one seed, joined sources, and the changed clips of the controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from viptt_core.clips import ClipSet
from viptt_core.errors import require
from viptt_core.splits import FOLDS, PARTS, Split, group_parts
from viptt_core.study.plan import SCAN_VARIANTS, VIDEO_VARIANTS
from viptt_core.training.inference import Features

VARIANTS = (*VIDEO_VARIANTS, *SCAN_VARIANTS)


def draw(n_total: int, n: int, *, seed: int, apart: int, first: int = 0) -> np.ndarray:
    """The rows of one seed: int64 [n] of the `n_total - first` from row `first` on.

    Rows are taken in an order that is the same for all seeds, `apart` further on with each: draws of no more than
    `apart` rows are disjoint until the rows are used up, and a smaller draw of a seed lies in its larger one. A
    SettingError where there are fewer than n.
    """
    pool = n_total - first
    require(0 < n <= pool, f"{n} cannot be drawn of {pool}.", "Make the set larger, or the draw smaller.")
    order = np.random.default_rng(0).permutation(pool)
    return first + order[(seed * apart + np.arange(n)) % pool]


def validated(clips: ClipSet, rows: np.ndarray, test: np.ndarray, seed: int) -> Split:
    """Some rows, of which a fifth validates (groups whole, by class), and the rows that test."""
    inner = group_parts(clips.labels[rows], clips.groups[rows], seed=seed, folds=FOLDS)[0]
    return Split(np.delete(rows, inner), rows[inner], test)


def join(sets: dict[str, ClipSet]) -> tuple[ClipSet, np.ndarray]:
    """Sets of videos one after another, and the number of its set for each class, int64 [K]; names say the set."""
    parts, starts = list(sets.values()), np.cumsum([0, *(len(one.class_names) for one in sets.values())])
    joined = ClipSet(
        np.concatenate([one.clips[:] for one in parts]) if len(parts) > 1 else parts[0].clips,
        np.concatenate([one.labels + start for one, start in zip(parts, starts, strict=False)]),
        np.concatenate([[f"{name}/{group}" for group in one.groups] for name, one in sets.items()]),
        np.concatenate([[f"{name}/{clip}" for clip in one.names] for name, one in sets.items()]),
        tuple(f"{name}: {class_name}" for name, one in sets.items() for class_name in one.class_names),
        {"joined": [one.source for one in parts]},
        synthetic=any(one.synthetic for one in parts),
    )
    return joined, np.repeat(np.arange(len(parts)), np.diff(starts))


def join_splits(splits: Sequence[Split], sizes: Sequence[int]) -> Split:
    """The splits of sets that `join` puts one after another, as one."""
    starts = np.cumsum([0, *sizes[:-1]])
    moved = [[getattr(one, part) + start for part in PARTS] for one, start in zip(splits, starts, strict=True)]
    return Split(*map(np.concatenate, zip(*moved, strict=True)))


def vary(clips: ClipSet, features: Features | None, variant: str, seed: int) -> tuple[ClipSet, Features | None]:
    """Clips, and their features where those are kept, as a control needs them.

    - "shuffled labels": each clip has the label of another of its set; nothing can be learnt.
    - "shuffled frames", "shuffled slices": each clip's in a random order of its own.
    - "still frames": the middle frame of each clip, as often as it had frames; nothing moves.

    "no finding" is another set, see `datasets.simulated.list_phantoms`.
    """
    rng, source = np.random.default_rng([seed, VARIANTS.index(variant)]), clips.source | {"variant": [variant, seed]}
    if variant in ("sound", "no finding"):
        return clips, features
    if variant == "shuffled labels":
        return replace(clips, labels=rng.permutation(clips.labels), source=source), features
    n, frames = clips.clips.shape[:2] if features is None else (len(clips), features.array.shape[1])
    order = np.full((n, frames), frames // 2)
    if variant != "still frames":
        order = rng.permuted(np.tile(np.arange(frames), (n, 1)), axis=1)
    if features is None:
        changed = np.take_along_axis(clips.clips[:], order[:, :, None, None], axis=1)
        return replace(clips, clips=changed, source=source), None
    array = np.empty_like(features.array)
    for rows in features.rows:  # a clip keeps its order whichever way it is turned
        there = rows >= 0
        array[rows[there]] = np.take_along_axis(features.array[rows[there]], order[there, :, None], axis=1)
    return clips, replace(features, array=array)
