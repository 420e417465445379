"""One training loop for both stages, with Keras's loss weighting, early stopping and plateau rule."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from viptt_core.augment import draw_angles, rotate_clips
from viptt_core.errors import SettingError, ViPTTError
from viptt_core.metrics import accuracy, cohen_kappa
from viptt_core.model import ViPTTNet
from viptt_core.presets import Stage
from viptt_core.splits import Split
from viptt_core.store import ClipSet

PIXEL_SCALES = {"0..1": 1 / 255, "0..255": 1.0}
OPTIMISERS = {
    "sgd": lambda weights, rate: torch.optim.SGD(weights, lr=rate),  # no momentum, as the authors
    "adamw": lambda weights, rate: torch.optim.AdamW(weights, lr=rate, weight_decay=0.01),
}


class TrainingError(ViPTTError, RuntimeError):
    """Training that cannot go on."""


@dataclass
class History:
    """What training did.

    Attributes:
        epochs: One record an epoch: epoch (from 1), loss, val_loss, val_accuracy, val_kappa,
            learning_rate, seconds.
        best_epoch: Epoch whose weights the model was left with (lowest validation loss).
        stopped_early: Whether early stopping ended training before the epoch limit.
    """

    epochs: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False


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
        self.learning_rate, self.patience, self.factor = learning_rate, patience, factor
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
    """Keras's class-weighted cross-entropy: sum of w_i l_i over the batch size.

    PyTorch's own `weight=` divides by the sum of the weights instead, so that at batch size 1 the
    weight would vanish.

    Args:
        logits: float [B, K].
        labels: int64 [B].
        class_weights: float [K] or None.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses if class_weights is None else losses * class_weights[labels]).mean()


def balanced_class_weights(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """n / (K n_c) for each class, float64 [K]; 0 for a class without cases."""
    counts = np.bincount(labels, minlength=n_classes)
    return np.divide(len(labels), n_classes * counts, out=np.zeros(n_classes), where=counts > 0)


def to_input(clips: np.ndarray, device: torch.device, pixel_range: str) -> Tensor:
    """Move uint8 clips [B,T,H,W] to the device and convert them there to float in `pixel_range`."""
    batch = torch.from_numpy(np.ascontiguousarray(clips)).to(device, non_blocking=True)
    return batch.float() * PIXEL_SCALES[pixel_range]


@torch.inference_mode()
def predict_logits(model: ViPTTNet, clips: np.ndarray, indices: np.ndarray, *, batch_size: int,
                   pixel_range: str) -> np.ndarray:  # fmt: skip
    """Class scores of the clips at `indices`, in that order: float32 [len(indices), K]."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    batches = np.array_split(indices, range(batch_size, len(indices), batch_size))
    logits = [model(to_input(clips[batch], device, pixel_range)).float().cpu() for batch in batches]
    model.train(was_training)
    return torch.cat(logits).numpy()


def epoch_batches(indices: np.ndarray, batch_size: int, shuffle: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of one epoch.

    "samples" draws new batches. "batches" keeps who is with whom and only shuffles the order, which
    is what the authors' loader does: it permutes an index it never uses, and Keras shuffles batches.
    """
    if shuffle == "samples":
        indices = rng.permutation(indices)
    batches = np.array_split(indices, range(batch_size, len(indices), batch_size))
    return [batches[i] for i in rng.permutation(len(batches))] if shuffle == "batches" else batches


def fit(
    model: ViPTTNet,
    clips: ClipSet,
    split: Split,
    stage: Stage,
    *,
    seed: int,
    device: torch.device,
    progress: str | None = None,
) -> History:
    """Train a model in place and leave it with the weights of the lowest validation loss.

    Args:
        model: Any ViPTTNet; moved to `device`.
        clips: The set.
        split: Trains on `train`, watches `validation`; `test` is not touched.
        stage: Settings.
        seed: Of the batches and the augmentation.
        device: Where to train.
        progress: Title of a progress bar; None shows none.

    Returns:
        The epochs' record.

    Raises:
        SettingError: unknown optimiser, shuffle or pixel range.
        TrainingError: the loss is not finite.
    """
    from tqdm import tqdm

    for name, known in (("optimiser", OPTIMISERS), ("pixel_range", PIXEL_SCALES),
                        ("shuffle", ("samples", "batches"))):  # fmt: skip
        if getattr(stage, name) not in known:
            raise SettingError(f"{name} is '{getattr(stage, name)}'.", remedy=f"Known: {', '.join(known)}.")
    model.to(device, memory_format=torch.channels_last)
    model.freeze_backbone(stage.freeze_backbone)
    rng, angle_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    optimiser = OPTIMISERS[stage.optimiser](
        [p for p in model.parameters() if p.requires_grad], stage.learning_rate
    )
    weights = None
    if stage.class_weights:
        balanced = balanced_class_weights(clips.labels[split.train], len(clips.class_names))
        weights = torch.tensor(balanced, dtype=torch.float32, device=device)
    stopping = EarlyStopping(stage.stop_patience)
    plateau = ReduceOnPlateau(stage.learning_rate, patience=stage.plateau_patience, factor=stage.plateau_factor)
    history, best_state = History(), model.state_dict()
    bar = tqdm(range(stage.epochs), desc=progress, unit="epoch", disable=progress is None, mininterval=1)
    for epoch in bar:
        start = time.perf_counter()
        loss = _train_epoch(model, clips, split.train, stage, optimiser, weights, rng, angle_rng)
        record = {"epoch": epoch + 1, "loss": loss, **_validate(model, clips, split.validation, stage)}
        record |= {"learning_rate": plateau.learning_rate, "seconds": time.perf_counter() - start}
        history.epochs.append(record)
        if not (math.isfinite(loss) and math.isfinite(record["val_loss"])):
            raise TrainingError(
                f"the loss of epoch {epoch + 1} is not finite.", remedy="Lower the learning rate."
            )
        history.stopped_early = stopping.update(epoch, record["val_loss"])
        if stopping.improved:
            history.best_epoch = epoch + 1
            best_state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        bar.set_postfix(loss=f"{loss:.3f}", val_loss=f"{record['val_loss']:.3f}", refresh=False)
        if history.stopped_early:
            break
        learning_rate = plateau.update(record["val_loss"])
        for group in optimiser.param_groups:
            group["lr"] = learning_rate
    bar.close()
    model.load_state_dict(best_state)
    return history


def _train_epoch(model, clips, indices, stage, optimiser, weights, rng, angle_rng) -> float:
    """One pass over the training part; returns the mean loss of its samples."""
    model.train()
    if stage.freeze_backbone:
        model.backbone.eval()  # its normalisation statistics stay as they are, too
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)  # summed on the device: no wait for it inside the loop
    for batch in epoch_batches(indices, stage.batch_size, stage.shuffle, rng):
        pixels = to_input(clips.clips[batch], device, stage.pixel_range)
        if stage.rotate:
            pixels = rotate_clips(pixels, draw_angles(len(batch), angle_rng))
        labels = torch.from_numpy(clips.labels[batch]).to(device)
        loss = weighted_loss(model(pixels), labels, weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(batch)
    return float(total / len(indices))


def _validate(model, clips, indices, stage) -> dict[str, float]:
    """Loss (unweighted, as Keras's), accuracy and kappa on the validation part."""
    logits = predict_logits(
        model, clips.clips, indices, batch_size=stage.batch_size, pixel_range=stage.pixel_range
    )
    labels = clips.labels[indices]
    predicted = logits.argmax(axis=1)
    return {
        "val_loss": float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))),
        "val_accuracy": accuracy(labels, predicted),
        "val_kappa": cohen_kappa(labels, predicted),
    }
