"""What can be told without understanding a picture: by near-copies, file headers, one number, coarse pixels.

A network has to beat these. Where they do well, a set or a split gives something away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.affines import voxel_sizes
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from viptt_core.clips import ClipSet
from viptt_core.datasets.listing import VIDEO_ENDINGS, has_ending
from viptt_core.errors import Fault, check_counts, require, warn_of
from viptt_core.nifti import open_scan
from viptt_core.results import predictions_table
from viptt_core.shown import ResultTable, ShownAsTable
from viptt_core.splits import FOLDS, Split, split_by_group
from viptt_core.video import open_video

# --- Near-copies of test clips among the training clips: how much a split by clip gives away ---

BY_CLIP, BY_GROUP = "by clip", "by group"


@dataclass(frozen=True)
class Leakage(ShownAsTable):
    """What a split by clip gives away, beside a split by group of the same sizes and seeds.

    The nearest training clip by coarse pixels decides: what it gains when groups straddle the split is memory.
    """

    #: A row a seed and split, with `seed`, `split` (BY_CLIP or BY_GROUP), `n_test`, and of the test clips the shares
    #: 0..1 `shared` (their group is in the training set too), `same_group` (their nearest training clip is of their
    #: group) and `accuracy` (it is of their class).
    runs: pd.DataFrame
    #: Size of the set.
    n_clips: int
    n_groups: int
    chance: float  #: share of the largest class, the accuracy of always naming it
    synthetic: bool = False  #: whether the clips were simulated

    @property
    def table(self) -> pd.DataFrame:
        """Means over the seeds of `n_test`, `shared`, `same_group` and `accuracy`, one row per split (the index)."""
        return self.runs.drop(columns="seed").groupby("split", sort=False).mean()

    @property
    def gains(self) -> np.ndarray:
        """Accuracy by clip minus accuracy by group, float64, one a seed."""
        accuracy = self.runs.pivot(index="seed", columns="split", values="accuracy")
        return (accuracy[BY_CLIP] - accuracy[BY_GROUP]).to_numpy()

    def sentence(self) -> str:
        """What the numbers say."""
        if self.n_groups == self.n_clips:
            return "Every clip is a group of its own: a split by clip is a split by group, and nothing can leak."
        row, points = self.table.loc[BY_CLIP], np.rint(100 * self.gains).astype(int)
        verdict = (
            "a gain that clips from new sources would not show"
            if self.gains.min() > 0
            else "no sure gain for this probe. A network that sees more than coarse pixels may still have one"
        )
        return (
            f"Split by clip, {row['shared']:.0%} of the test clips have their group in the training set too, and for "
            f"{row['same_group']:.0%} the nearest training clip is of that very group. The nearest neighbour is then "
            f"right for {row['accuracy']:.0%}, by group for {self.table.loc[BY_GROUP, 'accuracy']:.0%}: "
            f"{round(100 * self.gains.mean()):+d} points ({points.min():+d} to {points.max():+d} over {len(points)} "
            f"seeds), {verdict}. Always naming the largest class is right for {self.chance:.0%}."
        )

    def _shown(self) -> ResultTable:
        heads = {"shared": "group also trains", "same_group": "nearest of same group", "accuracy": "1-NN accuracy"}
        shares = self.table[list(heads)].map("{:.1%}".format).rename(columns=heads)
        shares.insert(0, "test clips", self.table["n_test"].round().astype(int))
        return ResultTable(self.sentence() + (" Synthetic data." if self.synthetic else ""), shares.reset_index())


def measure_leakage(clips: ClipSet, *, seeds: int = 5, frames: int = 4, side: int = 8) -> Leakage:
    """Compare a split by clip with a split by group, both with a fifth as test set and the rest as training set.

    There are so many `seeds` of either, and clips are compared by `coarse_pixels`: only the frames looked at are read.

    Raises:
        SettingError: a count below 1.
        DataError: too few groups for five parts.
    """
    from sklearn.neighbors import NearestNeighbors

    check_counts(seeds=seeds, frames=frames, side=side)
    features = coarse_pixels(clips, frames=frames, side=side)
    # The same number of clips in both, and of each class as near as it gets.
    stratify = clips.labels if min(c for c in clips.counts().values() if c) > 1 else None
    rows = []
    for seed in range(seeds):
        by_group = split_by_group(clips.labels, clips.groups, seed=seed).test
        settings = {"test_size": len(by_group), "random_state": seed, "stratify": stratify}
        by_clip = train_test_split(np.arange(len(clips)), **settings)[1]
        for split, test in ((BY_CLIP, by_clip), (BY_GROUP, by_group)):
            train = np.setdiff1d(np.arange(len(clips)), test)
            scaler = StandardScaler().fit(features[train])
            nearest = NearestNeighbors(n_neighbors=1).fit(scaler.transform(features[train]))
            nearest = train[nearest.kneighbors(scaler.transform(features[test]), return_distance=False)[:, 0]]
            shares = {
                "shared": np.isin(clips.groups[test], clips.groups[train]).mean(),
                "same_group": (clips.groups[nearest] == clips.groups[test]).mean(),
                "accuracy": (clips.labels[nearest] == clips.labels[test]).mean(),
            }
            rows.append({"seed": seed, "split": split, "n_test": len(test)} | shares)
    chance = np.bincount(clips.labels).max() / len(clips)
    return Leakage(pd.DataFrame(rows), len(clips), len(np.unique(clips.groups)), chance, clips.synthetic)


def coarse_pixels(clips: ClipSet, rows: np.ndarray | None = None, *, frames: int, side: int) -> np.ndarray:
    """Clips, all or those of int [M], as tiny frames from the middle of equal stretches: float32 [M, frames * side²].

    Grey levels, 0..255, are averaged over areas.
    """
    rows, length = np.arange(len(clips)) if rows is None else rows, clips.clips.shape[1]
    frames = min(frames, length)
    tiny = np.empty((len(rows), frames, side, side), np.float32)
    for i, j in np.ndindex(len(rows), frames):
        frame = np.asarray(clips.clips[rows[i], int((j + 0.5) * length / frames)], np.float32)
        tiny[i, j] = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
    return tiny.reshape(len(rows), -1)


# --- What the headers of files tell of the class: a scanner, a number of slices, a length, a size ---

LEAST_FILES = 20  # fewer tell nothing about a leak
MARGIN = 0.1  # balanced accuracy above chance that is worth a note
DRAWS = 199  # of labels shuffled between groups: one of them may do as well, so luck is told in one of 100 sets
LEAVES = [2, 5, 10, 20, 40]  # clips that a leaf of the tree on one number must hold
VIDEO_HEADER = ("width", "height", "frames", "rate", "codec")


def header_of(read) -> dict[str, float | str]:
    """What is known of a file before it is looked at, of a `nifti.Scan`, or of the facts of a scan or video."""
    if hasattr(read, "codec"):
        return {name: getattr(read, name) for name in VIDEO_HEADER}
    affine = np.vstack([np.reshape(read.affine, (-1, 4))[:3], [0, 0, 0, 1]])
    voxels = {f"voxels along {axis}": n for axis, n in zip("XYZ", read.shape, strict=True)}
    lengths = {f"mm along {axis}": float(mm) for axis, mm in zip("XYZ", voxel_sizes(affine), strict=True)}
    axes = "".join(code or "?" for code in nib.aff2axcodes(affine))
    return voxels | lengths | {"axes": axes, "stored as": np.dtype(read.stored).str, "written by": read.written_by}


def read_headers(paths: Sequence[Path]) -> pd.DataFrame:
    """What is known of videos or scans before they are looked at: a row a file, numbers and text."""
    rows = []
    for path in paths:
        if has_ending(path, VIDEO_ENDINGS):
            with open_video(path) as video:
                first = next(frames := video.frames())
                length = video.promised or 1 + sum(1 for _ in frames)
                rate, codec = float(video.stream.average_rate or 0), video.stream.codec_context.name
            row = dict(zip(VIDEO_HEADER, (first.width, first.height, length, rate, codec), strict=True))
        else:
            with open_scan(path) as scan:
                row = header_of(scan)
        rows.append(row | {"bytes": path.stat().st_size})
    return pd.DataFrame(rows)


def header_faults(headers: pd.DataFrame, labels: Sequence[int], groups: Sequence[str]) -> list[Fault]:
    """Say so if headers alone ([N] rows, such as of `read_headers`) tell the class, in parts of the set by group."""
    labels, groups = np.asarray(labels), np.asarray(groups)
    classes, counts = np.unique(labels, return_counts=True)
    members = np.array([len(np.unique(groups[labels == label])) for label in classes])
    enough = len(labels) >= LEAST_FILES and len(np.unique(groups)) >= FOLDS and counts.max(initial=0) >= FOLDS
    if not enough or len(classes) < 2 or (headers.nunique() == 1).all():
        return []
    features, rng, chance = _as_numbers(headers), np.random.default_rng(0), 1 / len(classes)
    names, first, group = np.unique(groups, return_index=True, return_inverse=True)
    folds = (rng.permutation(len(names)) % FOLDS)[group]
    accuracy = _told_by_headers(features, labels, folds)
    if accuracy <= chance + MARGIN:
        return []
    if accuracy <= chance + 4 * chance * np.sqrt((chance * (1 - chance) / members).sum()):  # four standard errors
        if (labels != labels[first][group]).any():  # groups of several classes: each file is a unit of its own
            first = group = np.arange(len(labels))
        drawn = (labels[rng.permutation(first)][group] for _ in range(DRAWS))
        as_good = (1 for by_luck in drawn if _told_by_headers(features, by_luck, folds) >= accuracy)
        if sum(islice(as_good, 2)) > 1:
            return []
    most = headers.columns[_header_tree().fit(features, labels).feature_importances_.argmax()]
    what = (
        f"the files' headers alone ({', '.join(map(str, headers.columns))}; most of all {most}) tell the class "
        f"with a balanced accuracy of {accuracy:.2f}, by luck {chance:.2f}."
    )
    remedy = (
        "A network may learn that instead: take classes from the same scanners and cameras, crop or letterbox, take a "
        "fixed number of frames or slices, and report this number beside the model's."
    )
    return [Fault("format tells the class", ".", what, remedy, level="note")]


def _told_by_headers(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> float:
    """Balanced accuracy of a tree in folds [N], which must not depend on the labels."""
    predicted = cross_val_predict(_header_tree(), features, labels, cv=PredefinedSplit(folds))
    return float(balanced_accuracy_score(labels, predicted))


def size_predictions(clips: ClipSet, split: Split) -> np.ndarray:
    """Class probabilities of test videos from the one thing that a square crop leaves of a file's size: its side.

    A tree on the smaller of width and height, in pixels; how fine it is, is chosen by group among all other videos.

    Returns:
        float64 [M,K] of the M videos of `split.test`; a SettingError where the clips are not of files.
    """
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

    require(clips.files, "these clips are of no files.", "Ask for the size of real videos only.")
    headers = read_headers([clips.files[name] for name in clips.names])
    sides = headers[["width", "height"]].min(axis=1).to_numpy()[:, None]
    known = np.sort(np.r_[split.train, split.validation])
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    tree = GridSearchCV(_header_tree().set_params(class_weight=None), {"min_samples_leaf": LEAVES}, cv=folds)
    tree.fit(sides[known], clips.labels[known], groups=clips.groups[known])
    return _probabilities(tree, sides[split.test], clips)


def _probabilities(model, values: np.ndarray, clips: ClipSet) -> np.ndarray:
    """Of all classes of a set, float64 [M,K]: 0 of a class that the model has not met."""
    probabilities = np.zeros((len(values), len(clips.class_names)))
    probabilities[:, model.classes_] = model.predict_proba(values)
    return probabilities


def _header_tree():
    from sklearn.tree import DecisionTreeClassifier

    # Needs no scales, finds the one column that tells among many that do not, and is quick.
    return DecisionTreeClassifier(min_samples_leaf=2, class_weight="balanced", random_state=0)


def _as_numbers(headers: pd.DataFrame) -> np.ndarray:
    """float64 [N,F]; text is numbered in its order."""
    text = headers.select_dtypes(exclude="number").columns
    return headers.assign(**{name: headers[name].astype(str).rank(method="dense") for name in text}).to_numpy(float)


# --- What can be predicted without the network: a model has to beat it ---

COMPONENTS = 40
PERCENTILES = (5, 25, 50, 75, 90, 99)  # of the grey levels of a clip
MIDDLES = (1, 1 / 2, 1 / 3)  # of each axis: what is looked for often lies in the middle
GRID = {"frames": 16, "side": 28}  # at most so much of a clip goes into the principal components
STRENGTH = 0.01  # inverse of the penalty on the weights of many features


def baseline_predictions(clips: ClipSet, split: Split, features: np.ndarray | None = None) -> pd.DataFrame:
    """Predictions, see `results.Run.predictions`, of the baselines that apply to a set; the arm is the baseline's name.

    - "most frequent class": the class frequencies of the training set, whatever the clip.
    - "PCA + logistic": logistic regression on the first COMPONENTS principal components of coarse pixels.
    - "grey percentiles": logistic regression on `grey_percentiles`, standardised.
    - "features + logistic": the same, regularised, on what `over_time` makes of `features`, float32 [N, T', F], of a
      backbone that was not trained on this set; only where they are given.
    - "NAME alone": logistic regression on one covariate, such as the diameter of a nodule.
    - "file headers alone": a decision tree on what `read_headers` gives, for sets of files.

    Warns:
        DataWarning: file headers alone tell the class, see `header_faults`.
    """
    from sklearn.decomposition import PCA
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    used = np.unique(np.concatenate([split.train, split.validation, split.test]))
    pixels = coarse_pixels(clips, used, **GRID) / 255
    pca = PCA(min(COMPONENTS, len(split.train), pixels.shape[1]), random_state=0)
    logistic = LogisticRegression(max_iter=5000)
    scaled = make_pipeline(StandardScaler(), logistic)
    known = {
        "most frequent class": (DummyClassifier(), np.zeros((len(used), 1))),
        "PCA + logistic": (make_pipeline(pca, logistic), pixels),
        "grey percentiles": (scaled, np.stack([grey_percentiles(clips.clips[n]) for n in used])),
    }
    if features is not None:
        strict = LogisticRegression(C=STRENGTH, max_iter=5000)
        known["features + logistic"] = (make_pipeline(StandardScaler(), strict), over_time(features[used]))
    for name, column in clips.covariates.items():
        known[f"{name} alone"] = (scaled, column[used, None])
    if clips.files:
        headers = read_headers([clips.files[name] for name in clips.names[used]])
        known["file headers alone"] = (_header_tree(), _as_numbers(headers))
        for fault in header_faults(headers, clips.labels[used], clips.groups[used]):
            warn_of(fault)
    tables = []
    for arm, (model, values) in known.items():
        model.fit(values[np.searchsorted(used, split.train)], clips.labels[split.train])
        for part in ("validation", "test"):
            indices = getattr(split, part)
            probabilities = _probabilities(model, values[np.searchsorted(used, indices)], clips)
            tables.append(predictions_table(clips, indices, probabilities, arm=arm, part=part))
    return pd.concat(tables, ignore_index=True)


def grey_percentiles(clip: np.ndarray) -> np.ndarray:
    """PERCENTILES of the grey levels of a clip [T,H,W], of all of it and of its MIDDLES: float64 [M * P]."""
    parts = []
    for share in MIDDLES:
        edges = [(round(n * (1 - share) / 2), round(n * (1 + share) / 2)) for n in clip.shape]
        parts.append(np.percentile(clip[tuple(slice(low, max(high, low + 1)) for low, high in edges)], PERCENTILES))
    return np.concatenate(parts)


def over_time(features: np.ndarray) -> np.ndarray:
    """Features [N,T,F] summed up over time: their mean, maximum, deviation, and means of three thirds, [N,6F]."""
    thirds = [third.mean(axis=1) for third in np.array_split(features, 3, axis=1)]
    return np.concatenate([features.mean(axis=1), features.max(axis=1), features.std(axis=1), *thirds], axis=1)
