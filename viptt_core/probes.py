"""How much a split by clip gives away: near-copies of test clips among the training clips, measured.

The probe is the simplest there is: the nearest training clip by coarse pixels decides. It learns nothing about
the classes, so what it gains when groups straddle the split is memory of the source, not understanding.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from viptt_core import video
from viptt_core.clips import ClipSet
from viptt_core.datasets.listing import VIDEO_ENDINGS, has_ending
from viptt_core.errors import SettingError
from viptt_core.results import predictions_table
from viptt_core.splits import Split, split_by_group

BY_CLIP, BY_GROUP = "by clip", "by group"


@dataclass(frozen=True, repr=False)
class Leakage:
    """What a split by clip gives away, beside a split by group of the same sizes and seeds.

    Attributes:
        runs: A row a seed and split: `seed`, `split` (BY_CLIP or BY_GROUP), `n_test`, and of the test clips the
            shares 0..1 `shared` (their group is in the training part too), `same_group` (their nearest training
            clip is of their group) and `accuracy` (it is of their class).
        n_clips, n_groups: Size of the set.
        chance: Share of the largest class: the accuracy of always naming it.
        synthetic: Whether the clips were simulated.
    """

    runs: pd.DataFrame
    n_clips: int
    n_groups: int
    chance: float
    synthetic: bool = False

    @property
    def table(self) -> pd.DataFrame:
        """Mean over the seeds, a row a split (index): `n_test`, `shared`, `same_group`, `accuracy`."""
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
            f"Split by clip, {row['shared']:.0%} of the test clips have their group in the training part too, and for "
            f"{row['same_group']:.0%} the nearest training clip is of that very group. The nearest neighbour is then "
            f"right for {row['accuracy']:.0%}, by group for {self.table.loc[BY_GROUP, 'accuracy']:.0%}: "
            f"{round(100 * self.gains.mean()):+d} points ({points.min():+d} to {points.max():+d} over {len(points)} "
            f"seeds), {verdict}. Always naming the largest class is right for {self.chance:.0%}."
        )

    def __repr__(self) -> str:
        return f"{self._shown().to_string(index=False)}\n{self.sentence()}"

    def _repr_html_(self) -> str:
        table = self._shown().to_html(index=False, border=0, classes="table")
        note = self.sentence() + (" Synthetic data." if self.synthetic else "")
        return f'<div style="overflow-x:auto">{table}</div><p>{html.escape(note)}</p>'

    def _shown(self) -> pd.DataFrame:
        heads = {"shared": "group also trains", "same_group": "nearest of same group", "accuracy": "1-NN accuracy"}
        shares = self.table[list(heads)].map("{:.1%}".format).rename(columns=heads)
        return (
            self.table[["n_test"]]
            .rename(columns={"n_test": "test clips"})
            .round()
            .astype(int)
            .join(shares)
            .reset_index()
        )


def measure_leakage(clips: ClipSet, *, seeds: int = 5, frames: int = 4, side: int = 8) -> Leakage:
    """Compare a split by clip with a split by group, both with a fifth as test part and the rest as training part.

    Args:
        clips: Any set; only the frames looked at are read.
        seeds: Number of splits of each kind.
        frames: Frames of a clip the probe looks at, in the middle of as many equal stretches.
        side: Height and width they are averaged down to.

    Raises:
        SettingError: a count below 1.
        DataError: too few groups for five parts.
    """
    for name, value in (("seeds", seeds), ("frames", frames), ("side", side)):
        if value < 1:
            raise SettingError(f"{name} is {value}.", remedy="Give 1 or more.")
    features = coarse_pixels(clips, frames=frames, side=side)
    rows = []
    for seed in range(seeds):
        by_group = split_by_group(clips.labels, clips.groups, seed=seed).test
        # The same number of clips, and of each class as near as it gets.
        stratify = clips.labels if min(c for c in clips.counts().values() if c) > 1 else None
        _, by_clip = train_test_split(
            np.arange(len(clips)), test_size=len(by_group), random_state=seed, stratify=stratify
        )
        for split, test in ((BY_CLIP, by_clip), (BY_GROUP, by_group)):
            train = np.setdiff1d(np.arange(len(clips)), test)
            nearest = train[nearest_neighbours(features[train], features[test])]
            rows.append(
                {
                    "seed": seed,
                    "split": split,
                    "n_test": len(test),
                    "shared": np.isin(clips.groups[test], clips.groups[train]).mean(),
                    "same_group": (clips.groups[nearest] == clips.groups[test]).mean(),
                    "accuracy": (clips.labels[nearest] == clips.labels[test]).mean(),
                }
            )
    return Leakage(
        pd.DataFrame(rows),
        n_clips=len(clips),
        n_groups=len(np.unique(clips.groups)),
        chance=np.bincount(clips.labels).max() / len(clips),
        synthetic=clips.synthetic,
    )


def coarse_pixels(clips: ClipSet, *, frames: int, side: int) -> np.ndarray:
    """Each clip as a few tiny frames: float32 [N, frames * side * side], grey levels 0..255 averaged over areas."""
    length = clips.clips.shape[1]
    steps = ((np.arange(min(frames, length)) + 0.5) * length / min(frames, length)).astype(int)
    tiny = np.empty((len(clips), len(steps), side, side), np.float32)
    for i in range(len(clips)):
        for j, step in enumerate(steps):
            frame = np.asarray(clips.clips[i, step], np.float32)
            tiny[i, j] = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
    return tiny.reshape(len(clips), -1)


def nearest_neighbours(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Index of the nearest training row of each test row, int64 [M]; the first where several are as near.

    Columns are standardised on the training rows; one that never changes there counts nothing.

    Args:
        train: float [N, D].
        test: float [M, D].
    """
    mean, sd = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    scale = np.divide(1, sd, out=np.zeros_like(sd), where=sd > 0)
    a, b = (train - mean) * scale, (test - mean) * scale
    # |b - a|^2 without |b|^2, which is the same for all training rows.
    return ((a * a).sum(axis=1) - 2 * b @ a.T).argmin(axis=1)


# --- What can be predicted without the network: a model has to beat it ---


NEIGHBOURS = 5
COMPONENTS = 40
GRID = {"frames": 16, "side": 28}  # at most so much of a clip goes into the principal components


def baseline_predictions(clips: ClipSet, split: Split, root: str | Path | None = None) -> pd.DataFrame:
    """Predictions of the baselines that apply to a set, as those of a run.

    - "most frequent class": the class frequencies of the training part, whatever the clip.
    - "PCA + logistic": logistic regression on the first COMPONENTS principal components of coarse pixels.
    - "NAME alone": logistic regression on one covariate, such as the diameter of a nodule.
    - "frame size and length": nearest neighbours on width, height and number of frames of the video files.
      Files cropped to the action, or cut to its length, give the class away without being looked at.

    Args:
        clips: The set.
        split: Baselines learn from its training part and predict the other two.
        root: Folder of a real video set; None or "" for other sets.

    Returns:
        See `results.Run.predictions`; the arm is the baseline's name.
    """
    from sklearn.decomposition import PCA
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n_train = len(split.train)
    pixels = coarse_pixels(clips, **GRID) / 255
    pca = PCA(min(COMPONENTS, n_train, pixels.shape[1]), random_state=0)
    logistic = LogisticRegression(max_iter=5000)
    known = {
        "most frequent class": (DummyClassifier(), np.zeros((len(clips), 1))),
        "PCA + logistic": (make_pipeline(pca, logistic), pixels),
    }
    for name, column in clips.covariates.items():
        known[f"{name} alone"] = (make_pipeline(StandardScaler(), logistic), column[:, None])
    if root and all(has_ending(Path(name), VIDEO_ENDINGS) for name in clips.names):
        nearest = make_pipeline(StandardScaler(), KNeighborsClassifier(min(NEIGHBOURS, n_train)))
        known["frame size and length"] = (nearest, video_shapes(clips, Path(root)))
    tables = []
    for arm, (model, features) in known.items():
        model.fit(features[split.train], clips.labels[split.train])
        for part in ("validation", "test"):
            indices = getattr(split, part)
            probabilities = np.zeros((len(indices), len(clips.class_names)))
            probabilities[:, model.classes_] = model.predict_proba(features[indices])
            tables.append(predictions_table(clips, indices, probabilities, arm=arm, part=part))
    return pd.concat(tables, ignore_index=True)


def video_shapes(clips: ClipSet, root: Path) -> np.ndarray:
    """Number of frames, height and width of the files of a video set, int64 [N,3].

    Args:
        clips: The set.
        root: The folder it was loaded from, or that its archive unpacked to.
    """
    folder = next(path for path in (root, *sorted(root.iterdir())) if (path / clips.names[0]).is_file())
    return np.array([video.video_shape(folder / name) for name in clips.names])
