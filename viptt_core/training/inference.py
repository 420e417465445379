"""Class scores of clips in memory: what training validates with, and what predictions are made from."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from viptt_core.backbones import backbone_code, find_backbone
from viptt_core.clips import ClipSet, digest
from viptt_core.errors import DataError
from viptt_core.files import cache_root, code_version
from viptt_core.model import INFERENCE_CHUNK, ViPTTNet, plain_module
from viptt_core.presets import Stage
from viptt_core.rows import RowFile, open_rows
from viptt_core.training.device import autocast
from viptt_core.training.feed import Feed, to_pixels

FEATURES_TOGETHER = 256  # clips whose cached features go through the recurrent layer at once


@torch.inference_mode()
def predict_logits(
    model: ViPTTNet, array: np.ndarray | Feed, indices: np.ndarray, *, pixel_range: str, precision: str = "fp32"
) -> np.ndarray:
    """Class scores of the clips at `indices`, in that order.

    Args:
        model: On its device; left in the mode (training or not) it came in.
        array: uint8 clips [N, T, H, W] or float32 features [N, T, F], or a Feed of them.
        indices: int [M].
        pixel_range: "0..1" or "0..255".
        precision: Of the backbone, see `engine.pick_precision`.

    Returns:
        float32 [M, K].
    """
    model = plain_module(model)
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    feed = array if isinstance(array, Feed) else Feed(array, device, resident=False)
    shape = feed.array.shape
    together = FEATURES_TOGETHER if len(shape) == 3 else max(1, INFERENCE_CHUNK // shape[1])
    batches = np.array_split(indices, range(together, len(indices), together))
    logits = []
    for batch in feed.batches(batches):
        pixels = to_pixels(batch, pixel_range)
        with autocast(device, precision):
            logits.append(model(pixels).float())
    model.train(was_training)
    return torch.cat(logits).cpu().numpy()  # the only wait for the device


# --- Backbone features of a whole set, computed once where neither stem nor backbone learns ---


def is_cacheable(stage: Stage) -> bool:
    """Whether the features of a clip stay the same throughout a stage.

    The authors freeze VGG16 but train the stem before it, so in the preset `paper` they do not.
    """
    return stage.freeze_backbone and stage.freeze_stem and not stage.rotate


def cached_features(
    model: ViPTTNet, clips: ClipSet, pixel_range: str, *, device: torch.device, precision: str, progress: bool = False
) -> np.ndarray:
    """Features of every clip, computed at the first call and read from the cache at later ones.

    An interrupted call is taken up again, and of two processes one computes while the other waits.

    Args:
        model: On `device`; its stem and backbone decide, together with the clips, what is computed.
        clips: The set.
        pixel_range: "0..1" or "0..255".
        device, precision: How to compute, see `engine`.
        progress: Show a progress bar.

    Returns:
        float32 [N, T', F], read-only, memory-mapped; T' is T unless the backbone sees whole clips.

    Raises:
        DataError: a feature is not finite; names the clip.
        StorageError: the cache cannot be written.
    """
    from tqdm import tqdm

    model = plain_module(model)
    identity = {
        "clips": clips.key,
        "weights": _weights_digest(model),
        "pixel_range": pixel_range,
        "precision": precision,
        "code": code_version("training.inference", apart_from=("presets",)) + backbone_code(model.backbone_name),
    }
    folder = cache_root() / f"features-{digest(identity)}"
    keys = [f"{position}:{name}" for position, name in enumerate(clips.names)]
    with RowFile(folder, keys, dtype=np.float32, waiting=_say_waiting) as rows:
        if not rows.finished:
            todo = [i for i in range(len(clips)) if i not in rows.done]
            n, frames = clips.clips.shape[:2]
            steps = find_backbone(model.backbone_name).steps(frames)
            rows.allocate((steps, model.temporal.input_size))
            together = max(1, INFERENCE_CHUNK // frames)
            batches = np.array_split(np.array(todo, np.int64), range(together, len(todo), together)) if todo else []
            bar = tqdm(
                total=n,
                initial=n - len(todo),
                desc="backbone features",
                unit="clip",
                disable=not progress,
                mininterval=1,
            )
            feed = Feed(clips.clips, device, resident=False)  # each clip is needed once
            for batch, pixels in zip(batches, feed.batches(batches), strict=True):
                features = frame_features(model, to_pixels(pixels, pixel_range), precision).cpu().numpy()
                for index, values in zip(batch.tolist(), features, strict=True):
                    if not np.isfinite(values).all():
                        raise DataError(
                            f"the features of clip {clips.names[index]} are not finite.",
                            remedy="Use precision fp32, or check the clip.",
                        )
                    rows.write(index, values)
                bar.update(len(batch))
            bar.close()
            rows.finish({})
    return open_rows(folder, verify=False)[0]  # each row was verified a moment ago


@torch.inference_mode()
def frame_features(model: ViPTTNet, pixels: torch.Tensor, precision: str) -> torch.Tensor:
    """Features float32 [B, T', F] of float clips [B, T, H, W], statistics of normalisation as they are."""
    was_training = model.training
    model.eval()
    with autocast(pixels.device, precision):
        features = model.features(pixels).float()
    model.train(was_training)
    return features


def _weights_digest(model: ViPTTNet) -> str:
    """Hash of all weights that features depend on."""
    total = hashlib.sha256()
    for part in (model.stem, model.backbone):
        for name, tensor in part.state_dict().items():
            total.update(name.encode())
            total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _say_waiting() -> None:
    print("Another process computes the same features; waiting for it.", flush=True)
