"""What `test_golden.py` needs of the package beyond its fixed public names; a move of modules edits only this file."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

import numpy as np


def phantom(label: int, **grid):
    """One synthetic scan of a TB type: int16 HU, uint8 lungs, bool finding, each [X,Y,Z]."""
    from viptt_core.synthetic.phantom import make_phantom

    scan = make_phantom((3, label), label, **grid)
    return scan.hu, scan.lungs, scan.finding


def action(label: int, **grid) -> np.ndarray:
    """One synthetic clip of an activity: RGB uint8 [T,H,W,3]."""
    from viptt_core.synthetic.actions import make_clip

    return make_clip(label, label + 4, 1, **grid)


def clip_set(clips: np.ndarray, labels: np.ndarray):
    """A set of clips in memory, each in a group of its own."""
    from viptt_core.clips import ClipSet

    names = np.array([f"clip{i:02d}" for i in range(len(clips))])
    class_names = tuple(f"class{k}" for k in range(labels.max() + 1))
    return ClipSet(clips, labels, names, names, class_names, {"set": "golden"})


def train(videos, scans, *, epochs: int):
    """The preset "study" with a narrow head: pretrain on videos, fine-tune on scans from what was learnt.

    Returns:
        Of both stages, one after the other: loss, validation loss and learning rate of each epoch, float
        [2 * epochs, 3]; and the probabilities of the scans of the test set, in the order of their names, float [N,K].
    """
    from viptt_core.experiment import finetune, plan_experiment, pretrain
    from viptt_core.results import probabilities_of

    plan = plan_experiment("study", epochs=epochs, pretrain_epochs=epochs, device="cpu", precision="fp32")
    plan = replace(plan, preset=replace(plan.preset, hidden_size=16, feature_size=16))
    pretrained = pretrain(plan, videos, progress=False)
    run = finetune(plan, scans, "video", pretrained=pretrained, progress=False)
    history = [each.history[["loss", "val_loss", "learning_rate"]] for each in (pretrained, run)]
    tested = run.predictions[run.predictions["part"] == "test"].sort_values("name")
    return np.concatenate(history), probabilities_of(tested)


def submission(path, names, probabilities, ensemble: str) -> bytes:
    """The bytes of the file that is handed in for the probabilities [M,N,K] of M models."""
    from viptt_core.submission import combine, write_submission

    return write_submission(path, names, combine(probabilities, ensemble)).read_bytes()


def viewer_page(clips) -> str:
    """The HTML of a viewer of the first clip of each class."""
    from viptt_core.figures.viewer import browse_clips

    return browse_clips(clips, per_class=1).page()


def shown_clips(page: str) -> list[tuple[str, str, np.ndarray]]:
    """What a reader of the page can choose and page through: class, caption, and frames uint8 [T,H,W] of each clip."""
    import cv2

    data = json.loads(re.search(r"vipttViewer\(document.currentScript.parentElement, (\{.*\})\);</script>", page)[1])
    shown = []
    for view in data["views"]:
        (clip,) = view["clips"]
        raw = [np.frombuffer(base64.b64decode(frame), np.uint8) for frame in clip["frames"]]
        frames = np.stack([cv2.imdecode(one, cv2.IMREAD_GRAYSCALE) for one in raw])
        shown.append((view["heading"], view["caption"], frames))
    return shown
