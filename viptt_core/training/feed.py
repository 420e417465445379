"""Clips on their way to the device: moved as they are stored, turned into pixel values there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from viptt_core.constants import ROTATION_DEGREES, ROTATION_PROBABILITY
from viptt_core.training.device import free_memory

PIXEL_SCALES = {"0..1": 1 / 255, "0..255": 1.0}
RESIDENT_SHARE = 0.4  # of the device's free memory: a set up to this size is moved there once and for all
UPLOAD_BYTES = 1 << 27  # a set is moved in pieces of about this size


class Feed:
    """Batches of an array [N, ...] on a device.

    On an accelerator the whole array is moved there when it fits; else the next batch is gathered
    into pinned memory and sent while the device still works on the last one.

    Args:
        array: uint8 or float16 clips [N, T, H, W], or float32 features [N, T, F].
        device: Where the batches are wanted.
        resident: Whether to keep the whole array on the device; None decides by size.
    """

    def __init__(self, array: np.ndarray, device: torch.device, *, resident: bool | None = None) -> None:
        self.array, self.device = array, device
        if resident is None:
            resident = device.type != "cpu" and array.nbytes <= RESIDENT_SHARE * free_memory(device)
        self.on_device = self._upload() if resident else None

    def batches(self, index_batches: Sequence[np.ndarray]) -> Iterator[Tensor]:
        """Yield the rows of each index batch, in the array's own dtype."""
        if self.on_device is not None:
            # The order of the whole epoch goes over once, so that no step waits for its indices.
            order = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *index_batches])).to(self.device)
            for indices in order.split([len(batch) for batch in index_batches]):
                yield self.on_device.index_select(0, indices)
        elif self.device.type == "cpu":
            for batch in index_batches:
                yield torch.from_numpy(self.array[batch])
        else:
            yield from self._sent_ahead(index_batches)

    def _sent_ahead(self, index_batches: Sequence[np.ndarray]) -> Iterator[Tensor]:
        pinned = self.device.type == "cuda"

        def gather(batch: np.ndarray) -> Tensor:
            rows = torch.from_numpy(self.array[batch])
            return rows.pin_memory() if pinned else rows

        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(gather, batch) for batch in index_batches[:2]]
            for position in range(len(index_batches)):
                rows = ahead.pop(0).result()
                if position + 2 < len(index_batches):
                    ahead.append(reader.submit(gather, index_batches[position + 2]))
                yield rows.to(self.device, non_blocking=pinned)

    def _upload(self) -> Tensor:
        rows = max(1, UPLOAD_BYTES // max(1, self.array[:1].nbytes))
        first = torch.from_numpy(np.array(self.array[:1]))
        whole = torch.empty(self.array.shape, dtype=first.dtype, device=self.device)
        for start in range(0, len(whole), rows):
            whole[start : start + rows] = torch.from_numpy(np.array(self.array[start : start + rows]))
        return whole


@dataclass(frozen=True)
class EpochShare:
    """What one process does in an epoch, an entry a step.

    Attributes:
        indices: Clips, int64.
        labels: Theirs, on the device.
        angles: Degrees to rotate them by, on the device; None where nothing is rotated.
        weights: What to multiply the sum of their losses by, so that the average over the processes
            is the mean of the whole batch; 0 for a clip that only stands in where there is none.
    """

    indices: list[np.ndarray]
    labels: Sequence[Tensor]
    angles: Sequence[Tensor] | None
    weights: list[float]


def epoch_share(
    batches: Sequence[np.ndarray], labels: Tensor, angles: Tensor | None, *, rank: int, processes: int
) -> EpochShare:
    """Deal the batches of an epoch out to processes: each takes every `processes`-th clip of each batch.

    Args:
        batches: The whole batches, in order.
        labels: int64 [N] of the whole set, on the device.
        angles: Degrees [sum of batch sizes] in the order of the batches, or None.
        rank: Of this process, from 0.
        processes: How many there are.
    """
    sizes = [len(batch) for batch in batches]
    mine = [batch[rank::processes] for batch in batches]
    weights = [processes / size if len(part) else 0.0 for part, size in zip(mine, sizes, strict=True)]
    # A batch smaller than the number of processes: the rest takes part with a clip that counts nothing.
    mine = [part if len(part) else batch[:1] for part, batch in zip(mine, batches, strict=True)]
    order = torch.from_numpy(np.concatenate(mine)).to(labels.device)
    lengths = [len(part) for part in mine]
    turns = None
    if angles is not None:
        parts = [(part[rank::processes], part[:1]) for part in angles.split(sizes)]
        turns = torch.cat([part if len(part) else first for part, first in parts]).to(labels.device).split(lengths)
    # Sent over once an epoch, so that no step waits for it.
    return EpochShare(mine, labels.index_select(0, order).split(lengths), turns, weights)


def to_pixels(batch: Tensor, pixel_range: str) -> Tensor:
    """Stored grey levels 0..255 as float32 in "0..1" or "0..255"; features [B, T, F] stay as they are."""
    return batch if batch.ndim == 3 else batch.float() * PIXEL_SCALES[pixel_range]


# --- Augmentation on the training device: the authors' axial rotation ---


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
