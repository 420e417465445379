"""Class scores of clips in memory: what training validates with, and what predictions are made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from viptt_core.cache import ELSEWHERE, keep, read_kept
from viptt_core.clips import ClipSet, digest
from viptt_core.constants import ROTATION_DEGREES
from viptt_core.errors import DataError, SettingError
from viptt_core.files import cache_root, code_version, one_at_a_time
from viptt_core.model import INFERENCE_CHUNK, ViPTTNet
from viptt_core.presets import Stage
from viptt_core.training.device import autocast, to_pixels
from viptt_core.training.feed import Feed, rotate_clips

FEATURES_TOGETHER = 256  # clips whose cached features go through the recurrent layer at once


@contextmanager
def _predicting(model: ViPTTNet) -> Iterator[None]:
    """Compute as in prediction: no gradients, statistics of normalisation as they are; then all is as before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _in_parts(indices: np.ndarray, array: np.ndarray) -> list[np.ndarray]:
    """Indices of clips, or of their features, in parts of as many as go through the network at once."""
    together = FEATURES_TOGETHER if array.ndim == 3 else max(1, INFERENCE_CHUNK // array.shape[1])
    return np.array_split(indices, range(together, len(indices), together))


def predict_logits(
    model: ViPTTNet, array: np.ndarray | Feed, indices: np.ndarray, *, pixel_range: str, precision: str = "fp32"
) -> np.ndarray:
    """Class scores of the clips at `indices`, in that order, float32 [M, K].

    Args:
        model: On its device; left in the mode (training or not) it came in.
        array: uint8 clips [N, T, H, W] or float32 features [N, T, F], or a Feed of them.
        indices: int [M].
        pixel_range: See `device.PIXEL_SCALES`.
        precision: See `device.pick_precision`.
    """
    device = next(model.parameters()).device
    feed = array if isinstance(array, Feed) else Feed(array, device)
    parts = _in_parts(indices, feed.array)
    with _predicting(model), autocast(device, precision):
        logits = [model(to_pixels(rows, pixel_range)).float() for rows in feed.rows(parts)]  # [B, T, H, W] -> [B, K]
        return torch.cat(logits).cpu().numpy()  # the only wait for the device


# --- Backbone features of a whole set, computed once where neither stem nor backbone learns ---


@dataclass(frozen=True)
class Features:
    """Features of the clips of a set, as they lie in the plane and turned."""

    array: np.ndarray  #: float32 [M, T, F]
    #: int64 [A, N], which of them are of clip n, turned by the a-th of 0 and ROTATION_DEGREES; -1 where not computed.
    rows: np.ndarray

    def of(self, clips: np.ndarray, angles: np.ndarray | int = 0) -> np.ndarray:
        """Rows of clips turned by the angles of these numbers, int64 [n]; a SettingError if one was not computed."""
        found = self.rows[angles, clips]
        if (found < 0).any():
            remedy = "Gather them of all clips that are trained on, turned where the stage rotates."
            raise SettingError("the features of a clip are not there.", remedy=remedy)
        return found


def gather_features(
    model: ViPTTNet,
    clips: ClipSet,
    stage: Stage,
    turned: np.ndarray | None = None,
    *,
    precision: str,
    progress: bool = False,
) -> Features:
    """Features of all clips of a set, in memory; where the stage rotates, also of some in each of the six turns.

    They are computed at the first call and found in the cache at later ones. An interrupted call is taken up again,
    and of two processes one computes while the other waits.

    Args:
        model: Whose features, on its device; its stem and backbone decide with the other settings what is computed.
        clips: Of which set.
        stage: What scale the pixels are in, and whether it rotates.
        turned: int [M], clips to be turned, those that train; None turns none.
        precision: See `device.pick_precision`.
        progress: Show a progress bar.

    Raises:
        DataError: a feature is not finite; names the clip.
        StorageError: the cache cannot be written.
    """
    rows = np.arange(len(clips.clips))
    turned = turned if stage.rotate and turned is not None else rows[:0]
    wanted = [(rows, 0.0), *((turned, degrees) for degrees in ROTATION_DEGREES if len(turned))]
    place, filled = np.full((len(wanted), len(rows)), -1), 0
    n_frames, n_features = clips.clips.shape[1], model.temporal.input_size
    array = np.empty((sum(len(part) for part, _ in wanted), n_frames, n_features), np.float32)
    for which, (part, degrees) in enumerate(wanted):
        place[which, part] = filled + np.arange(len(part))
        settings = {"pixel_range": stage.pixel_range, "precision": precision, "degrees": degrees}
        _fill(array[filled : filled + len(part)], model, clips, part, settings, progress)
        filled += len(part)
    return Features(array, place)


def _fill(into: np.ndarray, model: ViPTTNet, clips: ClipSet, rows: np.ndarray, settings: dict, progress: bool) -> None:
    """Put features of the clips at `rows`, int [M], into an array, float32 [M, T, F], see `gather_features`."""
    from tqdm import tqdm

    parts = _in_parts(rows, clips.clips)  # a file each
    code = code_version("training.inference", apart_from=("presets",))
    identity = {"clips": clips.key, "weights": _weights_digest(model), "code": code} | settings
    folder = cache_root() / "features"
    paths = [f"{folder}/{digest([identity, part.tolist(), clips.names[part].tolist()])}.npy" for part in parts]
    if not all(map(read_kept, paths)):
        bar = tqdm(total=len(rows), desc="backbone features", unit="clip", disable=not progress, mininterval=1)
        waiting = "Another process computes the same features; waiting for it."
        with one_at_a_time(folder / digest(identity), waiting, hint=ELSEWHERE), bar:
            todo = [k for k, path in enumerate(paths) if read_kept(path) is None]
            bar.update(len(rows) - sum(len(parts[k]) for k in todo))
            feed = Feed(clips.clips, next(model.parameters()).device)  # each clip is needed once
            for k, batch in zip(todo, feed.rows([parts[k] for k in todo]), strict=True):
                pixels = to_pixels(batch, settings["pixel_range"])
                if settings["degrees"]:
                    pixels = rotate_clips(pixels, torch.full((len(pixels),), settings["degrees"]))
                features = frame_features(model, pixels, settings["precision"]).cpu().numpy()
                spoilt = parts[k][~np.isfinite(features).all(axis=(1, 2))]
                if len(spoilt):
                    what = f"the features of clip {clips.names[spoilt[0]]} are not finite."
                    raise DataError(what, remedy="Use precision fp32, or check the clip.")
                keep(paths[k], features)
                bar.update(len(features))
    for path, part in zip(paths, np.split(into, np.cumsum([len(part) for part in parts])[:-1]), strict=True):
        part[...] = np.load(path)


def frame_features(model: ViPTTNet, pixels: torch.Tensor, precision: str) -> torch.Tensor:
    """Features float32 [B, T, F] of float clips [B, T, H, W], statistics of normalisation as they are."""
    with _predicting(model), autocast(pixels.device, precision):
        return model.features(pixels).float()


def _weights_digest(model: ViPTTNet) -> str:
    """Hash of all weights that features depend on."""
    total = hashlib.sha256()
    for part in (model.stem, model.backbone):
        for name, tensor in part.state_dict().items():
            total.update(name.encode())
            total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
