"""One training loop for both stages; it resumes where it was killed."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from viptt_core import files
from viptt_core.clips import ClipSet
from viptt_core.constants import ROTATION_DEGREES
from viptt_core.errors import DataError, SettingError, TrainingError, check_choice
from viptt_core.metrics import accuracy, cohen_kappa
from viptt_core.model import ViPTTNet, check_architecture
from viptt_core.presets import Stage
from viptt_core.splits import Split
from viptt_core.training import checkpoint, keras_rules
from viptt_core.training.device import PIXEL_SCALES, Engine, autocast, is_cacheable, settle, to_pixels
from viptt_core.training.feed import Batch, Feed, draw_angles, rotate_clips
from viptt_core.training.inference import Features, gather_features, predict_logits


@dataclass(frozen=True)
class Task:
    """What is to be learnt, and from what; a SettingError if a setting is unknown, or features or heads do not fit."""

    clips: ClipSet  #: the set
    split: Split  #: training learns from `train` and watches `validation`; `test` is not touched
    stage: Stage  #: optimiser, augmentation, what is frozen, when to stop
    seed: int = 0  #: of the batches and the augmentation
    #: Of all clips, where stem and backbone stay as they are; with None the trainer gathers them itself.
    features: Features | None = None
    #: int [K], which head each class is of; None becomes zeros, all of one. Classes of different heads never
    #: compete, as if each head had a last layer of its own. A batch is of one head, and each counts as much.
    heads: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_choice("optimiser", self.stage.optimiser, tuple(keras_rules.OPTIMISERS))
        check_choice("pixel_range", self.stage.pixel_range, tuple(PIXEL_SCALES))
        check_choice("shuffle", self.stage.shuffle, ("samples", "batches"))
        if self.features is not None and not is_cacheable(self.stage):
            remedy = "Leave the features out, or freeze stem and backbone."
            raise SettingError("the features of this stage change while it is trained.", remedy=remedy)
        n_classes = len(self.clips.class_names)
        if self.heads is None:
            object.__setattr__(self, "heads", np.zeros(n_classes, np.int64))
        if len(self.heads) != n_classes:
            what = f"{len(self.heads)} classes have a head, {n_classes} have a name."
            raise SettingError(what, remedy="Name the head of each class.")


@dataclass
class History:
    """What training did."""

    #: A record each of epoch (from 1), loss, val_loss, val_accuracy, val_kappa, learning_rate, seconds.
    epochs: list[dict] = field(default_factory=list)
    best_epoch: int = 0  #: epoch whose weights the model was left with (lowest validation loss)
    stopped_early: bool = False  #: whether early stopping ended training before the epoch limit
    #: How it ran, with device, precision, frames_per_chunk, feature_cache, resumed.
    engine: dict = field(default_factory=dict)


class Trainer:
    """One training: `run` is the whole loop, `step` one update of the weights.

    A killed run goes on from its last checkpoint and ends as if it had not been, on a CPU bit for bit.

    Args:
        model: Any ViPTTNet; moved to the device.
        task: What it is to learn.
        engine: How to run; None takes what the machine does best.
        folder: Where checkpoints and `history.csv` go; None keeps neither.

    Raises:
        SettingError: the device is not there.
        DataError: the checkpoint in `folder` is damaged or of another training.
    """

    def __init__(
        self, model: ViPTTNet, task: Task, *, engine: Engine | None = None, folder: Path | None = None
    ) -> None:
        clips, stage = task.clips, task.stage
        self.model, self.task, self.folder, self.engine = model, task, folder, engine or Engine()
        array, labels, self.features = clips.clips, clips.labels, task.features
        given = array if self.features is None else self.features.array
        self.settled = settled = settle(self.engine, model, stage, given)
        device = settled.device
        if settled.feature_cache and self.features is None:
            settings = {"precision": settled.precision, "progress": folder is not None}
            self.features = gather_features(model, clips, stage, task.split.train, **settings)
        if self.features is not None:
            array, labels = self.features.array, np.zeros(len(self.features.array), np.int64)
            for rows in self.features.rows:
                labels[rows[rows >= 0]] = clips.labels[rows >= 0]
        self.feed = Feed(array, device, labels)  # its `batches` are what `step` takes
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        fused = device.type in ("cpu", "cuda")  # into one pass over the weights where the device can
        self.optimiser = keras_rules.OPTIMISERS[stage.optimiser](weights, lr=stage.learning_rate, fused=fused)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settled.precision == "fp16")
        self.class_weights = None
        if stage.class_weights:
            balanced = keras_rules.balanced_class_weights(clips.labels[task.split.train], task.heads)
            self.class_weights = torch.tensor(balanced, dtype=torch.float32, device=device)
        self.rng, self.angle_rng = np.random.default_rng(task.seed), torch.Generator().manual_seed(task.seed)
        self.stopping = keras_rules.EarlyStopping(stage.stop_patience)
        patience, factor = stage.plateau_patience, stage.plateau_factor
        self.plateau = keras_rules.ReduceOnPlateau(stage.learning_rate, patience=patience, factor=factor)
        self.history, self.best = History(engine=settled.record() | {"resumed": 0}), {}
        self.train_heads = task.heads[clips.labels[task.split.train]]  # of each clip
        self.strangers = torch.from_numpy(task.heads[:, None] != task.heads).to(device)  # bool [K, K], by class
        sizes = np.unique(self.train_heads, return_counts=True)[1]
        self.steps_in_epoch = len(sizes) * math.ceil(sizes.max() / stage.batch_size)
        self.epoch, self.position, self.steps, self.seconds = 0, 0, 0, 0.0
        self.total = torch.zeros((), device=device)  # of the losses; summed there, so that no step waits for it
        self._keep_generators()
        self.saved_at = time.monotonic()
        self._resume()

    # --- The loop ------------------------------------------------------------------------------------

    def run(self, progress: str | None = None) -> History:
        """Take all steps that are still to be taken; the model is left with the best weights.

        Args:
            progress: Title of a progress bar; None shows none.

        Raises:
            TrainingError: a loss is not finite, or the device's memory does not suffice.
            StorageError: a checkpoint cannot be written; the one before it is kept.
        """
        from tqdm import tqdm

        stage, train = self.task.stage, self.task.split.train
        shown = {"unit": "step", "disable": progress is None, "mininterval": 1}
        bar = tqdm(desc=progress, total=stage.epochs * self.steps_in_epoch, initial=self.steps, **shown)
        while self.epoch < stage.epochs and not self.history.stopped_early:
            # After a kill the epoch is drawn again, and the steps that were taken are skipped.
            self._keep_generators()
            batches = keras_rules.epoch_batches(train, stage.batch_size, stage.shuffle, self.rng, self.train_heads)
            taken, drawn = sum(map(len, batches[: self.position])), sum(map(len, batches))
            angles = draw_angles(drawn, self.angle_rng)[taken:] if stage.rotate else None  # one a clip
            left = batches[self.position :]
            if self.features is not None:
                turns = 0 if angles is None else (angles.numpy()[:, None] == (0, *ROTATION_DEGREES)).argmax(axis=1)
                rows = self.features.of(np.concatenate(left), turns)
                left, angles = np.split(rows, np.cumsum([len(batch) for batch in left])[:-1]), None
            parts = self.feed.batches(left, angles)
            for group in self.optimiser.param_groups:
                group["lr"] = self.plateau.learning_rate
            losses, begun = [], time.perf_counter()
            for batch in parts:
                losses.append(self.step(batch))
                self.total += losses[-1] * len(batches[self.position])
                self.position, self.steps = self.position + 1, self.steps + 1
                bar.update()
                if len(losses) == self.engine.check_every or self.position == self.steps_in_epoch:
                    self._check_finite(losses, batches)
                    losses = []
                    if self.position < self.steps_in_epoch:
                        self.seconds, begun = self.seconds + time.perf_counter() - begun, time.perf_counter()
                        self._save()
            loss = float(self.total) / drawn
            record = {"epoch": self.epoch + 1, "loss": loss, **self.validate()}
            record["learning_rate"] = self.plateau.learning_rate
            record["seconds"] = self.seconds + time.perf_counter() - begun
            self._end_epoch(record)
            shown = {name: f"{record[name]:.3f}" for name in ("loss", "val_loss")}
            bar.set_postfix(epoch=f"{self.epoch}/{stage.epochs}", **shown, refresh=False)
        bar.close()
        self.model.load_state_dict(self.best)
        return self.history

    def step(self, batch: Batch) -> Tensor:
        """Update the weights once, by a batch of `feed.batches`; returns its loss, a float32 number on the device."""
        with self.settled.naming_memory():
            pixels = to_pixels(batch.rows, self.task.stage.pixel_range)  # uint8 -> float32 [B, T, H, W]; or [B, T, F]
            if batch.angles is not None:
                pixels = rotate_clips(pixels, batch.angles)
            self.optimiser.zero_grad(set_to_none=True)
            with autocast(self.settled.device, self.settled.precision):
                logits = self._of_own_head(self.model(pixels), batch.labels)  # [B, T, H, W] -> [B, K]
            loss = keras_rules.weighted_loss(logits, batch.labels, self.class_weights)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimiser)
            self.scaler.update()
        return loss.detach()

    def validate(self) -> dict[str, float]:
        """Loss (unweighted, as Keras's), accuracy and kappa on the validation part, each a mean over the heads."""
        indices = self.task.split.validation
        logits, labels = torch.from_numpy(self.predict(indices)), self.task.clips.labels[indices]
        logits = self._of_own_head(logits.to(self.settled.device), torch.from_numpy(labels)).cpu()  # [M, K]
        heads, scores = self.task.heads[labels], []
        for head in np.unique(heads):
            true, of_head = labels[heads == head], logits[heads == head]
            predicted = of_head.argmax(dim=1).numpy()
            loss = float(F.cross_entropy(of_head, torch.from_numpy(true)))
            scores.append((loss, accuracy(true, predicted), cohen_kappa(true, predicted)))
        return dict(zip(("val_loss", "val_accuracy", "val_kappa"), np.mean(scores, axis=0).tolist(), strict=True))

    def predict(self, indices: np.ndarray) -> np.ndarray:
        """Logits of clips by the model as it is, float32 [M, K], those of all heads."""
        rows = indices if self.features is None else self.features.of(indices)
        settings = {"pixel_range": self.task.stage.pixel_range, "precision": self.settled.precision}
        return predict_logits(self.model, self.feed, rows, **settings)

    def _of_own_head(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [B, K] of which only those of the head of each label [B] can count."""
        return logits.masked_fill(self.strangers[labels.to(self.strangers.device)], -math.inf)

    # --- Between the steps ---------------------------------------------------------------------------

    def _end_epoch(self, record: dict) -> None:
        """Decide about learning rate and stopping, keep the best weights, write the log, save."""
        if not (math.isfinite(record["loss"]) and math.isfinite(record["val_loss"])):
            raise TrainingError(f"the loss of epoch {self.epoch + 1} is not finite.", remedy=self._remedy())
        self.epoch, self.position, self.seconds = self.epoch + 1, 0, 0.0
        self.total.zero_()
        self.history.epochs.append(record)
        self.history.stopped_early = self.stopping.update(self.epoch - 1, record["val_loss"])
        if self.stopping.improved:
            self.history.best_epoch = self.epoch
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.plateau.update(record["val_loss"])
        self._keep_generators()
        if self.folder is not None:
            files.write_file(self.folder / "history.csv", pd.DataFrame(self.history.epochs).to_csv(index=False))
        self._save()

    def _check_finite(self, losses: list[Tensor], batches: list[np.ndarray]) -> None:
        """Stop if one of the last losses is not finite, and name the clips it came from."""
        values = torch.stack(losses).cpu().numpy()
        if np.isfinite(values).all():
            return
        first = self.position - len(losses) + int(np.flatnonzero(~np.isfinite(values))[0])
        # The batch before it may be the one whose update spoilt the weights.
        names = [str(self.task.clips.names[i]) for step in (first - 1, first) if step >= 0 for i in batches[step]]
        what = f"the loss is not finite in epoch {self.epoch + 1}, step {first + 1}."
        what += f" This batch and the one before it: {', '.join(names)}."
        raise TrainingError(what, remedy=self._remedy())

    def _remedy(self) -> str:
        kept = f" The last good checkpoint is kept in {self.folder}." if checkpoint.checkpoints(self.folder) else ""
        return f"Check these clips, lower the learning rate, or use precision fp32.{kept}"

    # --- Saving and resuming -----------------------------------------------------------------------------

    def _keep_generators(self) -> None:
        """Remember the generators as they are before an epoch is drawn: so they go into a checkpoint."""
        self.drawn_from = self.rng.bit_generator.state, self.angle_rng.get_state()

    def _state(self) -> dict:
        """Everything but tensors, as JSON; what stands under "identity" must be the same to go on."""
        task, precision = self.task, self.settled.precision
        return {
            "identity": {"data": task.clips.key, "seed": task.seed, "precision": precision, **asdict(task.stage)}
            | {"heads": task.heads.tolist()},
            "architecture": self.model.architecture,
            "at": {name: getattr(self, name) for name in ("epoch", "position", "steps", "seconds")},
            "history": asdict(self.history),
            "stopping": vars(self.stopping),
            "plateau": vars(self.plateau),
            "rng": self.drawn_from[0],
            "scaler": self.scaler.state_dict(),
        }

    def _save(self) -> None:
        """Write a checkpoint if there is a folder and the last one is old enough."""
        due = time.monotonic() - self.saved_at >= self.engine.checkpoint_seconds
        if self.folder is None or not due:
            return
        weights = self.model.state_dict()
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise TrainingError(f"a weight is not finite after step {self.steps}.", remedy=self._remedy())
        tensors = {
            "model": weights,
            "best": self.best,
            "progress": {"total": self.total, "angles": self.drawn_from[1]},
            "optimiser": checkpoint.optimiser_tensors(self.optimiser, self.model),
        }
        checkpoint.save_checkpoint(self.folder, self.steps, self._state(), tensors)
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        """Go on from the checkpoint in the folder, if there is one."""
        found, own = checkpoint.read_checkpoint(self.folder), self._state()
        if found is None:
            return
        with checkpoint.refusing(found.path):
            state, tensors = found.state, found.tensors
            check_architecture(state["architecture"], own["architecture"], found.path)
            differing = sorted(name for name, value in own["identity"].items() if state["identity"][name] != value)
            if differing:
                what = f"belongs to another training (other {', '.join(differing)})."
                remedy = "Delete it to start anew, or take the settings it was written with."
                raise DataError(what, path=found.path, remedy=remedy)
            if state["at"]["epoch"]:
                self.model.load_state_dict(tensors["best"])  # complains if they are of something else
            self.best = {name: tensor.to(self.settled.device) for name, tensor in tensors["best"].items()}
            self.model.load_state_dict(tensors["model"])
            checkpoint.restore_optimiser(self.optimiser, self.model, tensors["optimiser"])
            self.scaler.load_state_dict(state["scaler"])
            self.rng.bit_generator.state = state["rng"]
            self.angle_rng.set_state(tensors["progress"]["angles"])
            self.total.copy_(tensors["progress"]["total"])
            vars(self.stopping).update(state["stopping"])
            vars(self.plateau).update(state["plateau"])
            vars(self).update(state["at"])
            # Another chunk would round differently.
            self.model.frames_per_chunk = state["history"]["engine"]["frames_per_chunk"]
            self.settled = replace(self.settled, frames_per_chunk=self.model.frames_per_chunk)
            self.history = History(**state["history"])
            self.history.engine = self.settled.record() | {"resumed": self.history.engine["resumed"] + 1}
