"""Class scores and probabilities: of clips in memory, and of scan files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from os import PathLike

import numpy as np
import torch

from viptt_core import ct
from viptt_core.checkpoint import plain_module
from viptt_core.engine import Engine, autocast, pick_device, pick_precision
from viptt_core.env import available_cores
from viptt_core.feed import Feed, to_pixels
from viptt_core.model import INFERENCE_CHUNK, ViPTTNet

FEATURES_TOGETHER = 256  # clips whose cached features go through the recurrent layer at once


@torch.inference_mode()
def predict_logits(model: ViPTTNet, array: np.ndarray | Feed, indices: np.ndarray, *, pixel_range: str,
                   precision: str = "fp32") -> np.ndarray:  # fmt: skip
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


def predict_scans(model: ViPTTNet, paths: Sequence[str | PathLike], *, frames: int, size: int, pixel_range: str,
                  orientation: str = "file", engine: Engine | None = None, n_jobs: int | None = None,
                  progress: bool = True) -> np.ndarray:  # fmt: skip
    """Class probabilities of scan files; the next scans are read while the model works on one.

    Args:
        model: Moved to the engine's device.
        paths: NIfTI files, see `ct.load_volume`.
        frames, size, pixel_range, orientation: Grid, scale and orientation the model was trained on, see its preset.
        engine: How to compute; None takes what the machine does best.
        n_jobs: Threads that read; None takes the available cores. Decompression runs outside the
            interpreter's lock, so threads do.
        progress: Show a progress bar.

    Returns:
        float64 [N, K], rows in the order of `paths`, each summing to 1.

    Raises:
        DataError: a scan cannot be used.
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    engine = engine or Engine()
    device = pick_device(engine.device)
    precision = pick_precision(engine.precision, device, model.backbone_name)
    model.place(device)
    read = partial(ct.load_volume, depth=frames, size=size, orientation=orientation)
    volumes = Parallel(n_jobs=n_jobs or available_cores(), prefer="threads", return_as="generator",
                       pre_dispatch="2*n_jobs")(delayed(read)(path) for path in paths)  # fmt: skip
    probabilities = []
    for volume in tqdm(volumes, total=len(paths), desc="predicting", unit="scan", disable=not progress):
        # As training saw scans: whole grey levels.
        clip = np.rint(volume * 255).astype(np.uint8)[None]
        logits = predict_logits(model, clip, np.arange(1), pixel_range=pixel_range, precision=precision)
        probabilities.append(torch.from_numpy(logits).double().softmax(dim=1).numpy())
    return np.concatenate(probabilities)
