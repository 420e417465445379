"""One training loop for both stages and for any number of processes; it resumes where it was killed."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from viptt_core.clips import ClipSet
from viptt_core.errors import DataError, DataWarning, SettingError, TrainingError, check_choice
from viptt_core.metrics import accuracy, cohen_kappa
from viptt_core.model import ViPTTNet, check_architecture
from viptt_core.presets import Stage
from viptt_core.results import write_history
from viptt_core.splits import Split
from viptt_core.training import checkpoint
from viptt_core.training.device import (
    OPTIMISERS,
    Engine,
    autocast,
    fits_fp16,
    is_out_of_memory,
    lower_chunk,
    make_optimiser,
    over_processes,
    pick_chunk,
    pick_device,
    pick_precision,
    trains_on_cpus,
)
from viptt_core.training.feed import PIXEL_SCALES, Feed, draw_angles, epoch_share, rotate_clips, to_pixels
from viptt_core.training.inference import cached_features, is_cacheable, predict_logits
from viptt_core.training.keras_rules import (
    EarlyStopping,
    ReduceOnPlateau,
    balanced_class_weights,
    epoch_batches,
    weighted_loss,
)


@dataclass
class History:
    """What training did.

    Attributes:
        epochs: A record each: epoch (from 1), loss, val_loss, val_accuracy, val_kappa, learning_rate, seconds.
        best_epoch: Epoch whose weights the model was left with (lowest validation loss).
        stopped_early: Whether early stopping ended training before the epoch limit.
        engine: How it ran: device, processes, precision, frames_per_chunk, compiled, feature_cache, resumed.
    """

    epochs: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False
    engine: dict = field(default_factory=dict)


def fit(
    model: ViPTTNet,
    clips: ClipSet,
    split: Split,
    stage: Stage,
    *,
    seed: int,
    engine: Engine | None = None,
    folder: Path | None = None,
    progress: str | None = None,
) -> History:
    """Train a model in place and leave it with the weights of the lowest validation loss.

    Several processes (`accelerate launch`, `notebook_launcher`) share each batch and give the weights of
    one. A killed run goes on from its last checkpoint and ends as if it had not been, on a CPU bit for bit.

    Args:
        model: Any ViPTTNet; moved to the device.
        clips: The set.
        split: Trains on `train`, watches `validation`; `test` is not touched.
        stage: Settings.
        seed: Of the batches and the augmentation.
        engine: How to run; None takes what the machine does best.
        folder: Where checkpoints and `history.csv` go; None keeps neither.
        progress: Title of a progress bar; None shows none.

    Returns:
        The epochs' record.

    Raises:
        SettingError: unknown optimiser, shuffle or pixel range.
        TrainingError: a loss is not finite, or the device's memory does not suffice.
        DataError: the checkpoint in `folder` is damaged or of another training.
        StorageError: a checkpoint cannot be written; the last one is kept.
    """
    for name, known in (("optimiser", OPTIMISERS), ("pixel_range", PIXEL_SCALES), ("shuffle", ("samples", "batches"))):
        check_choice(name, getattr(stage, name), tuple(known))
    return _Training(model, clips, split, stage, seed, engine or Engine(), folder).run(progress)


class _Training:
    """The state of one training: what a step changes, and what a checkpoint holds."""

    def __init__(
        self,
        model: ViPTTNet,
        clips: ClipSet,
        split: Split,
        stage: Stage,
        seed: int,
        engine: Engine,
        folder: Path | None,
    ) -> None:
        from accelerate import Accelerator

        # Accelerate brings processes together; precision is ours, because only the backbone gets it.
        self.accelerator = Accelerator(
            cpu=trains_on_cpus(),
            mixed_precision="no",
            project_dir=folder,
            log_with="tensorboard" if engine.tensorboard else None,
        )
        self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device if self.processes > 1 else pick_device(engine.device)
        self.clips, self.split, self.stage, self.seed = clips, split, stage, seed
        self.engine, self.folder = engine, folder
        model.place(self.device)
        model.freeze(backbone=stage.freeze_backbone, stem=stage.freeze_stem)
        self.plain = model
        self._set_mode()
        pixels = to_pixels(torch.from_numpy(np.array(clips.clips[:1])).to(self.device), stage.pixel_range)
        self.precision = pick_precision(engine.precision, self.device, model.backbone_name)
        if self.precision == "fp16" and not fits_fp16(model, pixels, 255 * PIXEL_SCALES[stage.pixel_range]):
            warnings.warn("fp16 overflows in the backbone; training in fp32.", DataWarning, stacklevel=3)
            self.precision = "fp32"
        self.cached = engine.feature_cache and is_cacheable(stage)
        array = clips.clips
        if self.cached:
            array = cached_features(
                model,
                clips,
                stage.pixel_range,
                device=self.device,
                precision=self.precision,
                progress=self.rank == 0 and folder is not None,
            )
        self.feed = Feed(array, self.device)
        self.labels = torch.from_numpy(clips.labels).to(self.device)
        model.frames_per_chunk = engine.frames_per_chunk
        if engine.frames_per_chunk and model.updates_statistics:
            what = "frames_per_chunk has no effect: the statistics of this backbone are those of the whole batch."
            warnings.warn(what, DataWarning, stacklevel=3)
        if not self.cached and not engine.frames_per_chunk:
            frames = math.ceil(stage.batch_size / self.processes) * pixels.shape[1]
            model.frames_per_chunk = pick_chunk(model, frames, pixels[0, 0], self.precision)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # the shapes of a training hardly change
        if engine.compile:
            model.backbone.compile()
        self.model = over_processes(model, self.accelerator, self.device)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimiser = make_optimiser(stage.optimiser, weights, stage.learning_rate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.class_weights = None
        if stage.class_weights:
            balanced = balanced_class_weights(clips.labels[split.train], len(clips.class_names))
            self.class_weights = torch.tensor(balanced, dtype=torch.float32, device=self.device)
        self.rng, self.angle_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        self.stopping = EarlyStopping(stage.stop_patience)
        self.plateau = ReduceOnPlateau(
            stage.learning_rate, patience=stage.plateau_patience, factor=stage.plateau_factor
        )
        self.history, self.best = History(), {}
        self.epoch, self.position, self.steps, self.seconds = 0, 0, 0, 0.0
        self.total = torch.zeros((), device=self.device)  # of the losses; summed there, so that no step waits for it
        self.saved_at, self.resumed = time.monotonic(), 0

    # --- The loop ------------------------------------------------------------------------------------

    def run(self, progress: str | None) -> History:
        from tqdm import tqdm

        self._resume()
        if self.engine.tensorboard:
            self.accelerator.init_trackers("tensorboard")
        steps = math.ceil(len(self.split.train) / self.stage.batch_size)
        bar = tqdm(
            total=self.stage.epochs * steps,
            initial=self.steps,
            desc=progress,
            unit="step",
            disable=progress is None or self.rank > 0,
            mininterval=1,
        )
        while self.epoch < self.stage.epochs and not self.history.stopped_early:
            self._train_epoch(bar)
            self._end_epoch()
            last = self.history.epochs[-1]
            bar.set_postfix(
                epoch=f"{self.epoch}/{self.stage.epochs}",
                loss=f"{last['loss']:.3f}",
                val_loss=f"{last['val_loss']:.3f}",
                refresh=False,
            )
        bar.close()
        if self.engine.tensorboard:
            self.accelerator.end_training()
        self.plain.load_state_dict(self.best)
        self.history.engine = {
            "device": str(self.device),
            "processes": self.processes,
            "precision": self.precision,
            "frames_per_chunk": self.plain.frames_per_chunk,
            "compiled": self.engine.compile,
            "feature_cache": self.cached,
            "resumed": self.resumed,
        }
        return self.history

    def _train_epoch(self, bar) -> None:
        """Take the steps of one epoch that are still to be taken."""
        self._set_mode()
        # A checkpoint holds the generators as they are here: the epoch is drawn again, and its first steps skipped.
        self.drawn_from = self.rng.bit_generator.state, self.angle_rng.get_state()
        for group in self.optimiser.param_groups:
            group["lr"] = self.plateau.learning_rate
        batches = epoch_batches(self.split.train, self.stage.batch_size, self.stage.shuffle, self.rng)
        angles = draw_angles(len(self.split.train), self.angle_rng) if self.stage.rotate else None
        share = epoch_share(batches, self.labels, angles, rank=self.rank, processes=self.processes)
        begun, unseen = time.perf_counter(), torch.zeros(self.engine.check_every, device=self.device)
        first = self.position
        for step, batch in enumerate(self.feed.batches(share.indices[first:]), start=first):
            pixels = to_pixels(batch, self.stage.pixel_range)
            if share.angles is not None:
                pixels = rotate_clips(pixels, share.angles[step])
            loss = self._step(pixels, share.labels[step], share.weights[step])
            self.total += loss * (len(batches[step]) / self.processes)
            unseen[step % len(unseen)] = ~torch.isfinite(loss)
            self.position, self.steps = step + 1, self.steps + 1
            bar.update()
            if self.position % len(unseen) == 0 or self.position == len(batches):
                self._check_finite(unseen, batches)
                if self.position < len(batches):
                    self.seconds, begun = self.seconds + time.perf_counter() - begun, time.perf_counter()
                    self._save()
        self.seconds += time.perf_counter() - begun

    def _set_mode(self) -> None:
        self.plain.train()
        if self.stage.freeze_backbone:
            self.plain.backbone.eval()  # its normalisation statistics stay as they are, too

    def _step(self, pixels: Tensor, labels: Tensor, weight: float) -> Tensor:
        """One update; returns the loss of this process's part. Out of memory, it tries again with smaller chunks."""
        while True:
            try:
                self.optimiser.zero_grad(set_to_none=True)
                with autocast(self.device, self.precision):
                    logits = self.model(pixels)
                # Summed over the processes this is the mean of the whole batch, see `feed.epoch_share`.
                loss = weighted_loss(logits, labels, self.class_weights, 1) * weight
                self.accelerator.backward(self.scaler.scale(loss))
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                said = str(error).splitlines()[0]
            # Outside the handler: the error holds on to the tensors that filled the memory.
            frames = math.prod(pixels.shape[:2]) if pixels.ndim == 4 else 1
            lower_chunk(self.plain, frames, device=self.device, said=said, alone=self.processes == 1)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss.detach()

    def _end_epoch(self) -> None:
        """Validate, decide about learning rate and stopping, keep the best weights, save."""
        begun = time.perf_counter()
        loss = float(self.accelerator.reduce(self.total, "sum")) / len(self.split.train)
        record = {"epoch": self.epoch + 1, "loss": loss, **self._validate()}
        record["learning_rate"] = self.plateau.learning_rate
        if not (math.isfinite(loss) and math.isfinite(record["val_loss"])):
            raise TrainingError(f"the loss of epoch {self.epoch + 1} is not finite.", remedy=self._remedy())
        record["seconds"] = self.seconds + time.perf_counter() - begun
        self.history.epochs.append(record)
        self.history.stopped_early = self.stopping.update(self.epoch, record["val_loss"])
        if self.stopping.improved:
            self.history.best_epoch = self.epoch + 1
            self.best = {name: tensor.detach().clone() for name, tensor in self.plain.state_dict().items()}
        self.plateau.update(record["val_loss"])
        self.epoch, self.position, self.seconds = self.epoch + 1, 0, 0.0
        self.total.zero_()
        self.drawn_from = self.rng.bit_generator.state, self.angle_rng.get_state()
        if self.engine.tensorboard:
            self.accelerator.log({k: v for k, v in record.items() if k != "epoch"}, step=self.epoch)
        if self.folder is not None and self.rank == 0:
            write_history(self.folder, self.history.epochs)
        self._save()

    def _validate(self) -> dict[str, float]:
        """Loss (unweighted, as Keras's), accuracy and kappa on the validation part."""
        indices = self.split.validation
        each = math.ceil(len(indices) / self.processes)
        padded = np.resize(indices, each * self.processes)  # repeats some, so that all shares are equally long
        logits = predict_logits(
            self.plain,
            self.feed,
            padded[self.rank * each : (self.rank + 1) * each],
            pixel_range=self.stage.pixel_range,
            precision=self.precision,
        )
        logits = self.accelerator.gather(torch.from_numpy(logits).to(self.device)).cpu()[: len(indices)]
        labels = self.clips.labels[indices]
        predicted = logits.argmax(dim=1).numpy()
        return {
            "val_loss": float(F.cross_entropy(logits, torch.from_numpy(labels))),
            "val_accuracy": accuracy(labels, predicted),
            "val_kappa": cohen_kappa(labels, predicted),
        }

    def _check_finite(self, unseen: Tensor, batches: list[np.ndarray]) -> None:
        """Stop if a loss since the last look was not finite, and name the clips it came from."""
        bad = self.accelerator.reduce(unseen, "sum").cpu().numpy()
        if bad.any():
            since = (self.position - 1) // len(bad) * len(bad)
            first = since + int(np.flatnonzero(bad)[0])
            # The batch before it may be the one whose update spoilt the weights.
            names = [str(self.clips.names[i]) for step in (first - 1, first) if step >= 0 for i in batches[step]]
            raise TrainingError(
                f"the loss is not finite in epoch {self.epoch + 1}, step {first + 1}. This batch and the one "
                f"before it: {', '.join(names)}.",
                remedy=self._remedy(),
            )
        unseen.zero_()

    def _remedy(self) -> str:
        last = "" if self.folder is None else f" The last good checkpoint is kept in {self.folder}."
        return f"Check these clips, lower the learning rate, or use precision fp32.{last}"

    # --- Saving and resuming -----------------------------------------------------------------------------

    def _identity(self) -> dict:
        """What must be the same for a checkpoint to be gone on from."""
        return {"data": self.clips.key, "seed": self.seed, "precision": self.precision, **asdict(self.stage)}

    def _save(self) -> None:
        """Write a checkpoint if there is a folder and the last one is old enough. No process waits for another."""
        due = time.monotonic() - self.saved_at >= self.engine.checkpoint_seconds
        if self.folder is None or self.rank > 0 or not due:
            return
        weights = self.plain.state_dict()
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise TrainingError(f"a weight is not finite after step {self.steps}.", remedy=self._remedy())
        bits, angles = self.drawn_from
        checkpoint.save_checkpoint(
            self.folder,
            self.steps,
            {
                "identity": self._identity(),
                "architecture": self.plain.architecture,
                "epoch": self.epoch,
                "position": self.position,
                "steps": self.steps,
                "seconds": self.seconds,
                "rng": bits,
                "stopping": [self.stopping.best, self.stopping.wait],
                "plateau": [self.plateau.learning_rate, self.plateau.best, self.plateau.wait],
                "epochs": self.history.epochs,
                "best_epoch": self.history.best_epoch,
                "stopped_early": self.history.stopped_early,
                "scaler": self.scaler.state_dict(),
                "frames_per_chunk": self.plain.frames_per_chunk,
                "resumed": self.resumed,
            },
            {
                "model": weights,
                "best": self.best,
                "progress": {"total": self.total, "angles": angles},
                "optimiser": checkpoint.optimiser_tensors(self.optimiser, self.plain),
            },
        )
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        found = checkpoint.read_checkpoint(self.folder) if self.folder is not None else None
        at = self.accelerator.gather(torch.tensor([found.state["steps"] if found else 0], device=self.device))
        if len(set(at.tolist())) > 1:
            raise SettingError(
                "the processes do not see the same checkpoint.",
                remedy="Put the run's folder on a disk that all machines share.",
            )
        if found is None:
            return
        state, tensors = found.state, found.tensors
        check_architecture(state["architecture"], self.plain.architecture, found.folder)
        differing = sorted(name for name, value in self._identity().items() if state["identity"].get(name) != value)
        if differing:
            raise DataError(
                f"belongs to another training (other {', '.join(differing)}).",
                path=found.folder,
                remedy="Delete it to start anew, or take the settings it was written with.",
            )
        self.plain.load_state_dict(tensors["model"])
        self.best = {name: tensor.to(self.device) for name, tensor in tensors["best"].items()}
        checkpoint.restore_optimiser(self.optimiser, self.plain, tensors["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.rng.bit_generator.state = state["rng"]
        self.angle_rng.set_state(tensors["progress"]["angles"])
        self.total.copy_(tensors["progress"]["total"])
        self.stopping.best, self.stopping.wait = state["stopping"]
        self.plateau.learning_rate, self.plateau.best, self.plateau.wait = state["plateau"]
        self.history = History(state["epochs"], state["best_epoch"], state["stopped_early"])
        self.epoch, self.position, self.steps = state["epoch"], state["position"], state["steps"]
        self.seconds, self.resumed = state["seconds"], state["resumed"] + 1
        self.plain.frames_per_chunk = state["frames_per_chunk"]  # another one would round differently
