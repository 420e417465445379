"""Baselines that need no understanding, on sets where their score is known."""

import cv2
import numpy as np
import pytest

from viptt_core.baselines import baseline_accuracies, file_format_accuracy
from viptt_core.splits import Split

SPLIT = Split(np.arange(12), np.arange(12, 16), np.arange(16, 20))


def test_guessing_and_the_most_frequent_class(make_clip_set):
    labels = np.array([0] * 9 + [1] * 3 + [0] * 4 + [0, 1, 1, 1])
    scores = baseline_accuracies(make_clip_set(labels=labels), SPLIT)
    assert scores == {"equal guessing": 0.5, "most frequent class": 0.25}


@pytest.mark.parametrize("leaks", [True, False])
def test_file_format_tells_classes_apart_only_when_it_leaks_them(make_clip_set, tmp_path, leaks):
    clips = make_clip_set()
    for i, (name, label) in enumerate(zip(clips.names, clips.labels, strict=True)):
        size = (32 + 32 * int(label), 32) if leaks else (32, 32)
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter_fourcc(*"XVID"), 25, size)
        for _ in range(3 + i % 3):
            writer.write(np.zeros((size[1], size[0], 3), np.uint8))
        writer.release()
    named = make_clip_set(names=np.array([f"{name}.avi" for name in clips.names]))
    score = file_format_accuracy(named, SPLIT, tmp_path)
    assert score == 1 if leaks else score < 1
    assert "frame size and length" in baseline_accuracies(named, SPLIT, tmp_path)
