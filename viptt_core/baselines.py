"""What can be predicted without understanding the picture: a model has to beat it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from viptt_core import video
from viptt_core.splits import Split
from viptt_core.store import ClipSet

NEIGHBOURS = 5


def baseline_accuracies(clips: ClipSet, split: Split, root: str | Path | None = None) -> dict[str, float]:
    """Test accuracy of the baselines that apply to a set.

    Args:
        clips: The set.
        split: Baselines learn from its training part and are scored on its test part.
        root: Folder of a real video set; None or "" for a synthetic one, whose files are all alike.

    Returns:
        "equal guessing" and "most frequent class"; for real videos also "frame size and length".
    """
    labels = clips.labels[split.test]
    scores = {
        "equal guessing": 1 / len(clips.class_names),
        "most frequent class": float(np.mean(labels == np.bincount(clips.labels[split.train]).argmax())),
    }
    if root:
        scores["frame size and length"] = file_format_accuracy(clips, split, Path(root))
    return scores


def file_format_accuracy(clips: ClipSet, split: Split, root: Path) -> float:
    """Accuracy of nearest neighbours on width, height and number of frames of the video files.

    Files cropped to the action, or cut to its length, give the class away without being looked at.
    """
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    shapes = np.array([video.video_shape(root / name) for name in clips.names])
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(min(NEIGHBOURS, len(split.train))))
    model.fit(shapes[split.train], clips.labels[split.train])
    return float(model.score(shapes[split.test], clips.labels[split.test]))
