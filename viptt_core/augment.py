"""Augmentation on the training device: the authors' axial rotation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from viptt_core.constants import ROTATION_DEGREES, ROTATION_PROBABILITY


def draw_angles(n: int, generator: torch.Generator) -> Tensor:
    """Draw n rotation angles in degrees: 0 a quarter of the time, else one of the authors' six.

    Drawn on the CPU, so that the same seed gives the same angles on every device.

    Returns:
        float32 [n].
    """
    rotated = torch.rand(n, generator=generator) < ROTATION_PROBABILITY
    choice = torch.randint(len(ROTATION_DEGREES), (n,), generator=generator)
    return torch.where(rotated, torch.tensor(ROTATION_DEGREES, dtype=torch.float32)[choice], 0.0)


def rotate_clips(clips: Tensor, degrees: Tensor) -> Tensor:
    """Rotate every frame of a clip in its plane about the centre, corners filled with 0 (air).

    The same turn as `scipy.ndimage.rotate(..., reshape=False)` of the (row, column) plane, with
    linear interpolation where the authors had cubic splines.

    Args:
        clips: float [B, T, H, W].
        degrees: float [B].

    Returns:
        float [B, T, H, W].
    """
    _, _, height, width = clips.shape
    angle = degrees.to(clips.device, clips.dtype) * (math.pi / 180)
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    # affine_grid counts in half sides, so a frame that is not square turns in stretched coordinates.
    matrix = torch.stack(
        [
            torch.stack([cos, -sin * height / width, zero], dim=1),
            torch.stack([sin * width / height, cos, zero], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(matrix, list(clips.shape), align_corners=False)  # [B, H, W, 2]
    return F.grid_sample(clips, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
