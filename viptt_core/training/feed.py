"""Clips on their way to the device: moved as they are stored, turned in their plane there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from viptt_core.constants import ROTATION_DEGREES, ROTATION_PROBABILITY


@dataclass(frozen=True)
class Batch:
    """One batch, on the device."""

    rows: Tensor  #: uint8 clips [B, T, H, W], or float32 features [B, T, F]
    labels: Tensor  #: int64 [B]
    angles: Tensor | None  #: float32 [B], degrees to rotate the clips by; None where nothing is rotated


class Feed:
    """A set, uint8 clips [N, T, H, W] or float32 features [N, T, F], on its way to a device, batch by batch.

    To an accelerator the next batch is sent while it still works on the last one. `batches` needs labels, int64 [N].
    """

    def __init__(self, array: np.ndarray, device: torch.device, labels: np.ndarray | None = None) -> None:
        self.array, self.device = array, device
        self.labels = None if labels is None else torch.from_numpy(labels).to(device)

    def batches(self, indices: Sequence[np.ndarray], angles: Tensor | None = None) -> Iterator[Batch]:
        """Yield the batches of these indices, int64 each, turned by `angles`: float32 degrees, one a clip in order."""
        # What belongs to the clips is sent over once an epoch, so that no step waits for it.
        lengths = [len(part) for part in indices]
        rows = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *indices])).to(self.device)
        labels = self.labels.index_select(0, rows).split(lengths)
        turns = [None] * len(indices) if angles is None else angles.to(self.device).split(lengths)
        yield from map(Batch, self.rows(indices), labels, turns)

    def rows(self, indices: Sequence[np.ndarray]) -> Iterator[Tensor]:
        """Yield the rows at each array of indices, on the device and in the array's own dtype."""
        if self.device.type == "cpu":
            yield from map(self._gathered, indices)
        else:
            for rows in read_ahead(self._gathered, indices, 1):
                yield rows.to(self.device, non_blocking=rows.is_pinned())

    def _gathered(self, part: np.ndarray) -> Tensor:
        rows = torch.from_numpy(self.array[part])
        return rows.pin_memory() if self.device.type == "cuda" else rows


def read_ahead(read: Callable, keys: Iterable, n_jobs: int) -> Iterator:
    """What `read` gives for each key, in order, two a thread read in advance: never more, however slow the taker."""
    left, running = iter(keys), deque()
    with ThreadPoolExecutor(n_jobs) as pool:
        try:
            running.extend(pool.submit(read, key) for key in islice(left, 2 * n_jobs))
            while running:
                ready = running.popleft().result()
                running.extend(pool.submit(read, key) for key in islice(left, 1))
                yield ready
        finally:
            pool.shutdown(cancel_futures=True)


# --- Augmentation on the training device: the authors' axial rotation ---


def draw_angles(n: int, generator: torch.Generator) -> Tensor:
    """Draw n rotation angles in degrees, float32 [n]: 0 a quarter of the time, else one of the authors' six.

    Drawn on the CPU, so that the same seed gives the same angles on every device.
    """
    rotated = torch.rand(n, generator=generator) < ROTATION_PROBABILITY
    choice = torch.randint(len(ROTATION_DEGREES), (n,), generator=generator)
    return torch.where(rotated, torch.tensor(ROTATION_DEGREES, dtype=torch.float32)[choice], 0.0)


def rotate_clips(clips: Tensor, degrees: Tensor) -> Tensor:
    """Rotate every frame of a clip in its plane about the centre, corners filled with 0 (air).

    The same turn as `scipy.ndimage.rotate(..., reshape=False)` of the (row, column) plane, with
    linear interpolation where the authors had cubic splines; float [B, T, H, W] by float [B] degrees.
    """
    height, width = clips.shape[2:]
    angle = degrees.to(clips.device, clips.dtype) * (math.pi / 180)
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    # affine_grid counts in half sides, so a frame that is not square turns in stretched coordinates.
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3)  # [B, 6] -> [B, 2, 3]
    grid = F.affine_grid(matrix, list(clips.shape), align_corners=False)  # [B, H, W, 2]
    return F.grid_sample(clips, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
