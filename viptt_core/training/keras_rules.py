"""The arithmetic of Keras 2 that changes results: loss weighting, early stopping, plateau rule, batches."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# SGD without momentum, as the authors.
OPTIMISERS = {"sgd": torch.optim.SGD, "adamw": partial(torch.optim.AdamW, weight_decay=0.01)}


class EarlyStopping:
    """Keras's EarlyStopping(min_delta=0): `update` returns True when training should stop."""

    def __init__(self, patience: int) -> None:
        self.patience, self.best, self.wait, self.improved = patience, math.inf, 0, False

    def update(self, epoch: int, val_loss: float) -> bool:
        """Take the validation loss of an epoch (counted from 0)."""
        self.improved = val_loss < self.best
        if self.improved:
            self.best, self.wait = val_loss, 0
        else:
            self.wait += 1
        return self.wait >= self.patience and epoch > 0


class ReduceOnPlateau:
    """Keras's ReduceLROnPlateau: an absolute margin, and it acts at wait >= patience.

    PyTorch's scheduler of the same name has a relative margin and acts one epoch later.
    """

    MIN_DELTA = 1e-4

    def __init__(self, learning_rate: float, *, patience: int, factor: float) -> None:
        self.learning_rate, self.patience, self.factor = float(learning_rate), patience, factor
        self.best, self.wait = math.inf, 0

    def update(self, val_loss: float) -> float:
        """Take the validation loss of an epoch; returns the learning rate of the next one."""
        if val_loss < self.best - self.MIN_DELTA:
            self.best, self.wait = val_loss, 0
        else:
            self.wait += 1
            if self.wait >= self.patience:
                self.learning_rate *= self.factor
                self.wait = 0
        return self.learning_rate


def weighted_loss(logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """Keras's class-weighted (float [K]) cross-entropy of logits [B, K] and int64 labels [B]: sum of w_i l_i over B.

    PyTorch's own `weight=` divides by the sum of the weights instead, so that at batch size 1 the weight would vanish.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")  # [B]
    if class_weights is not None:
        losses = losses * class_weights[labels]
    return losses.sum() * (1 / len(labels))


def balanced_class_weights(labels: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """n / (K n_c) for each class, n and K those of its head (int [K]), float64 [K]; 0 for a class without cases."""
    counts = np.bincount(labels, minlength=len(heads))
    cases, classes = np.bincount(heads, counts)[heads], np.bincount(heads)[heads]
    return np.divide(cases, classes * counts, out=np.zeros(len(heads)), where=counts > 0)


def epoch_batches(
    indices: np.ndarray, batch_size: int, shuffle: str, rng: np.random.Generator, heads: np.ndarray | None = None
) -> list[np.ndarray]:
    """Batches of one epoch.

    "samples" draws new batches. "batches" keeps who is with whom and only shuffles the order, which
    is what the authors' loader does: it permutes an index it never uses, and Keras shuffles batches.

    Of several heads (int [n], one a clip) each gives as many batches as the largest needs, in turn; what is smaller is
    gone through again.
    """
    if heads is not None:
        parts = [indices[heads == head] for head in np.unique(heads)]
        most = -(-max(map(len, parts)) // batch_size)
        of_heads = []
        for part in parts:
            of_heads.append([])
            while len(of_heads[-1]) < most:
                of_heads[-1] += epoch_batches(part, batch_size, shuffle, rng)
        return [batch for turn in zip(*(batches[:most] for batches in of_heads), strict=True) for batch in turn]
    if shuffle == "samples":
        indices = rng.permutation(indices)
    batches = np.array_split(indices, range(batch_size, len(indices), batch_size))
    return [batches[i] for i in rng.permutation(len(batches))] if shuffle == "batches" else batches
