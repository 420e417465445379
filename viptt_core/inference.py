"""Class scores of clips in memory: what training validates with, and what predictions are made from."""

from __future__ import annotations

import numpy as np
import torch

from viptt_core.engine import autocast
from viptt_core.feed import Feed, to_pixels
from viptt_core.model import INFERENCE_CHUNK, ViPTTNet, plain_module

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
