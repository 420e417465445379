"""What can be predicted without the network: a model has to beat it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core import video
from viptt_core.datasets.listing import VIDEO_ENDINGS, has_ending
from viptt_core.leakage import coarse_pixels
from viptt_core.results import predictions_table
from viptt_core.splits import Split
from viptt_core.store import ClipSet

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
            tables.append(
                predictions_table(
                    arm=arm,
                    part=part,
                    names=clips.names[indices],
                    groups=clips.groups[indices],
                    labels=clips.labels[indices],
                    probabilities=probabilities,
                    class_names=clips.class_names,
                )
            )
    return pd.concat(tables, ignore_index=True)


def video_shapes(clips: ClipSet, root: Path) -> np.ndarray:
    """Number of frames, height and width of the files of a video set, int64 [N,3].

    Args:
        clips: The set.
        root: The folder it was loaded from, or that its archive unpacked to.
    """
    folder = next(path for path in (root, *sorted(root.iterdir())) if (path / clips.names[0]).is_file())
    return np.array([video.video_shape(folder / name) for name in clips.names])
