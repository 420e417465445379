"""Which slices and which places a model's class score rests on: occlusion and Grad-CAM.

Everything is explained of the model as it is, in evaluation mode; mode, flags and gradients are left as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from viptt_core.errors import SettingError, check_choice
from viptt_core.model import INFERENCE_CHUNK, ViPTTNet, plain_module
from viptt_core.training.device import PIXEL_SCALES, to_pixels
from viptt_core.training.inference import FEATURES_TOGETHER


def slice_importance(model: ViPTTNet, clips: np.ndarray, classes: np.ndarray, *, pixel_range: str) -> np.ndarray:
    """How much the logit of a class drops when one slice after another is replaced by the clip's mean slice.

    The backbone sees each slice once; only the recurrent part runs again for each hidden slice.

    Args:
        model: On its device.
        clips: uint8 [N, T, H, W].
        classes: int [N], the class explained of each clip, such as the predicted one.
        pixel_range: "0..1" or "0..255", as in training.

    Returns:
        float32 [N, T], logit of the whole clip minus logit without the slice: above 0 where it speaks for the class.

    Raises:
        SettingError: an argument is out of range, the shapes do not fit, or the backbone sees whole clips: its
            features are not of single slices.

    Source:
        Zeiler & Fergus (2014), ECCV, 818-833: occlusion, there by patches of a picture.
    """
    model = plain_module(model)
    targets = _check_clips(model, clips, classes, pixel_range)
    frames = clips.shape[1]
    hidden = torch.eye(frames + 1, frames, dtype=torch.bool).roll(1, 0).to(targets.device)  # row 0: the whole clip
    drops = []
    with _held_still(model), torch.inference_mode():
        for part in _parts(len(clips), FEATURES_TOGETHER // (frames + 1)):
            pixels = _pixels(clips[part], targets.device, pixel_range)
            features = model.features(torch.cat([pixels, pixels.mean(dim=1, keepdim=True)], dim=1))[:, None]
            variants = torch.where(hidden[..., None], features[:, :, -1:], features[:, :, :-1])  # [B, T + 1, T, F]
            logits = model(variants.flatten(0, 1)).unflatten(0, (-1, frames + 1))  # [B, T + 1, K]
            logits = logits[torch.arange(len(pixels)), :, targets[part]]
            drops.append(logits[:, :1] - logits[:, 1:])
    return torch.cat(drops).cpu().numpy()


def grad_cam(model: ViPTTNet, clips: np.ndarray, classes: np.ndarray, *, pixel_range: str) -> np.ndarray:
    """Where in each slice the evidence for a class lies: Grad-CAM, through the recurrent part.

    Of the rectified output of the backbone's last convolution, each slice with channel weights of its own: slices of
    a clip can be compared. No finer than the cells of that layer (8 pixels with "small", 16 with "vgg16", 32 with
    "efficientnet_b3"). These are put where their receptive fields lie: plain resizing would shift those of "small"
    by half a cell.

    Which slice matters is for `slice_importance` to say: the gradient can be small at the very slice that decides, once
    a recurrent layer is sure of it, and the map then peaks in another.

    Args:
        model, clips, classes, pixel_range: See `slice_importance`.

    Returns:
        float32 [N, T, H, W] in 0..1, the largest of each clip 1; all 0 where nothing speaks for the class.

    Raises:
        SettingError: as `slice_importance`, or captum is not installed.

    Source:
        Selvaraju et al. (2017), ICCV, 618-626.
    """
    try:
        from captum.attr import LayerGradCam  # slow to import, and nothing else here needs it
    except ImportError as error:
        remedy = "Install the extra that brings it: pip install -c constraints.txt -e '.[explain]'"
        raise SettingError("Grad-CAM needs captum, which is not installed.", remedy=remedy) from error
    model = plain_module(model)
    targets = _check_clips(model, clips, classes, pixel_range)
    layer, first, step = _last_convolution(model.backbone)
    maps = np.empty(clips.shape, np.float32)
    with _held_still(model), torch.enable_grad():
        for part in model.modules():
            if isinstance(part, nn.RNNBase):
                part.train()  # cuDNN goes back through no other; a single layer has no dropout and stays the same
        explain = LayerGradCam(model, layer).attribute
        for part in _parts(len(clips), INFERENCE_CHUNK // clips.shape[1]):
            pixels = _pixels(clips[part], targets.device, pixel_range)
            cells = explain(pixels, target=targets[part], relu_attributions=True).detach()[:, 0]  # [B * T, h, w]
            rows, columns = (
                _interpolation(n, m, first, step).to(cells)
                for n, m in zip(pixels.shape[2:], cells.shape[1:], strict=True)
            )
            fine = (rows @ cells @ columns.T).reshape(pixels.shape)
            largest = fine.amax(dim=(1, 2, 3), keepdim=True)
            maps[part] = (fine / largest.where(largest > 0, 1)).cpu().numpy()
    return maps


def _check_clips(model: ViPTTNet, clips: np.ndarray, classes, pixel_range: str) -> Tensor:
    """The classes int64 [N] on the model's device."""
    if model.sees_clips:
        raise SettingError(
            f"the backbone {model.backbone_name} sees whole clips: no feature is of one slice alone.",
            remedy="Explain a model whose backbone sees each slice alone, such as vgg16.",
        )
    check_choice("pixel_range", pixel_range, PIXEL_SCALES)
    classes, known = np.asarray(classes), model.classifier.out_features
    if clips.ndim != 4 or not clips.size or classes.shape != clips.shape[:1]:
        what = f"clips have shape {clips.shape}, classes {classes.shape}."
        raise SettingError(what, remedy="Give [N, T, H, W] and [N].")
    if not np.issubdtype(classes.dtype, np.integer) or classes.min() < 0 or classes.max() >= known:
        raise SettingError(f"classes are {np.unique(classes)}.", remedy=f"Give whole numbers from 0 to {known - 1}.")
    return torch.from_numpy(classes.astype(np.int64)).to(next(model.parameters()).device)


@contextmanager
def _held_still(model: ViPTTNet) -> Iterator[None]:
    """Evaluation mode, fixed weights, frames not in chunks; on leaving, all is as it was."""
    modes = [(part, part.training) for part in model.modules()]
    trained, chunk = [weight for weight in model.parameters() if weight.requires_grad], model.frames_per_chunk
    try:
        model.eval().requires_grad_(False)
        model.frames_per_chunk = 0  # captum would see the last chunk only
        yield
    finally:
        model.frames_per_chunk = chunk
        for part, training in modes:
            part.training = training
        for weight in trained:
            weight.requires_grad_(True)


def _last_convolution(backbone: nn.Module) -> tuple[nn.Module, float, float]:
    """The layer that rectifies the last convolution, and where its cells lie: centre of the first, step, pixels.

    Branches, as EfficientNet's, count as if in a row: their kernels are odd and padded by half, and shift nothing.
    """
    parts = [part for part in backbone.modules() if not any(part.children())]
    last = max(i for i, part in enumerate(parts) if isinstance(part, nn.Conv2d))
    last = next((i for i in range(last, len(parts)) if isinstance(parts[i], nn.ReLU | nn.SiLU)), last)
    first, step = 0.0, 1.0
    for part in parts[: last + 1]:
        if isinstance(part, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = (
                value if isinstance(value, int) else value[0] for value in (part.kernel_size, part.stride, part.padding)
            )
            first += step * ((kernel - 1) / 2 - padding)
            step *= stride
    return parts[last], first, step


def _interpolation(pixels: int, cells: int, first: float, step: float) -> Tensor:
    """Linear interpolation between cells as a matrix [pixels, cells]; beyond the outer cells their value stays."""
    position = ((torch.arange(pixels) - first) / step).clamp(0, cells - 1)
    return torch.relu(1 - (position[:, None] - torch.arange(cells)).abs())


def _pixels(clips: np.ndarray, device: torch.device, pixel_range: str) -> Tensor:
    return to_pixels(torch.from_numpy(np.array(clips)).to(device), pixel_range)  # a copy: stored sets are read-only


def _parts(n: int, together: int) -> Iterator[slice]:
    together = max(1, together)
    return (slice(start, start + together) for start in range(0, n, together))
