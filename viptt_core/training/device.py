"""How training and prediction run on the machine at hand: device, precision, memory.

Nothing here changes what is computed, only how fast, in how much memory and to how many digits.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from viptt_core.backbones import find_backbone
from viptt_core.errors import DataWarning, SettingError, TrainingError, check_choice, check_counts
from viptt_core.model import ViPTTNet
from viptt_core.presets import Stage

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PIXEL_SCALES = {"0..1": 1 / 255, "0..255": 1.0}
# Saved activations may fill this share of the free memory before frames go through in chunks.
ACTIVATION_SHARE = 0.6
HALF = 0.6  # of the bytes of fp32 are kept in 16 bits, at most; the places of the maxima in pooling have 64
MOST_FRAMES_PER_CHUNK = 16  # more do not make a step faster, on a CPU or a GPU


@dataclass(frozen=True)
class Engine:
    """Settings of how, not of what."""

    device: str = "auto"  #: "auto" (CUDA, then MPS, then CPU) or a name, see `pick_device`
    #: Of the backbone, "fp32", "bf16", "fp16", or "auto" (see `pick_precision`). The recurrent layer, the loss and the
    #: weights are always fp32.
    precision: str = "auto"
    #: Frames whose activations training keeps at once, see `ViPTTNet.features`; 0 keeps all where they fit, else as
    #: many as do.
    frames_per_chunk: int = 0
    feature_cache: bool = True  #: compute the features of a frozen stem and backbone once
    checkpoint_seconds: float = 60.0  #: least time between two checkpoints of a running training
    #: Steps between two looks at whether all losses were finite. A look waits for the device, so it is not taken at
    #: every step; checkpoints are only written right after one.
    check_every: int = 20

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, ("auto", *PRECISIONS))
        check_counts(least=0, frames_per_chunk=self.frames_per_chunk)
        check_counts(check_every=self.check_every)


@dataclass(frozen=True)
class Settled:
    """What an `Engine` comes to for one model, one stage and this machine."""

    device: torch.device  #: where it is computed
    precision: str  #: of the backbone, "fp32", "bf16" or "fp16"
    frames_per_chunk: int  #: frames whose activations are kept at once; 0 is all of them
    feature_cache: bool  #: whether the backbone's features are computed once and kept

    def record(self) -> dict:
        """How a run is computed, as JSON."""
        return vars(self) | {"device": str(self.device)}

    @contextmanager
    def naming_memory(self) -> Iterator[None]:
        """Turn an out-of-memory error into a TrainingError that names what needs less."""
        try:
            yield
        except RuntimeError as error:  # the CPU has no type of its own for it
            if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
            what = f"out of memory on {self.device} ({str(error).splitlines()[0]})."
            now = f"(now {self.frames_per_chunk}; 0 is all frames at once)"
            remedy = f"Set frames_per_chunk {now} to a smaller number, such as 8, or lower batch_size."
            raise TrainingError(what, remedy=remedy) from error


def settle(engine: Engine, model: ViPTTNet, stage: Stage, array: np.ndarray) -> Settled:
    """Decide once how a training runs, and bring the model into that state: placed, frozen, chunked.

    The array holds clips, uint8 [N, T, H, W], or features, float32 [M, T, F], for which no backbone runs.
    """
    device = pick_device(engine.device)
    model.place(device)
    model.freeze(backbone=stage.freeze_backbone, stem=stage.freeze_stem)
    model.train()
    if stage.freeze_backbone:
        model.backbone.eval()  # its normalisation statistics stay as they are, too
    given = array.ndim == 3
    precision = "fp32" if given else pick_precision(engine.precision, device, model.backbone_name)
    if precision == "fp16" and not fits_fp16(model, torch.from_numpy(array[:1]).to(device), stage.pixel_range):
        warnings.warn("fp16 overflows in the backbone; training in fp32.", DataWarning, stacklevel=3)
        precision = "fp32"
    cached, chunk = given or (engine.feature_cache and is_cacheable(stage)), engine.frames_per_chunk
    if chunk and model.updates_statistics:
        what = "frames_per_chunk has no effect: the statistics of this backbone are those of the whole batch."
        warnings.warn(what, DataWarning, stacklevel=3)
    if not cached and not chunk:
        chunk = pick_chunk(model, (stage.batch_size, *array.shape[1:]), precision, free_memory(device))
    model.frames_per_chunk = chunk
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # the shapes of a training hardly change
    return Settled(device, precision, chunk, cached)


def is_cacheable(stage: Stage) -> bool:
    """Whether the features of a clip stay the same throughout a stage.

    The authors freeze VGG16 but train the stem before it, so in the preset `paper` they do not.
    """
    return stage.freeze_backbone and stage.freeze_stem


def to_pixels(batch: Tensor, pixel_range: str) -> Tensor:
    """Stored grey levels 0..255 as float32 in "0..1" or "0..255"; features [B, T, F] stay as they are."""
    return batch if batch.ndim == 3 else batch.float() * PIXEL_SCALES[pixel_range]


def pick_device(name: str = "auto") -> torch.device:
    """Turn a device name into a device that is on this machine; "auto" takes CUDA, then MPS, then the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    remedy = "Use 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'."
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingError(f"device '{name}' is not one PyTorch knows.", remedy=remedy) from error
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cpu": 1, "cuda": gpus, "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        raise SettingError(f"device '{name}' is not on this machine.", remedy=remedy)
    return device


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AVX512-BF16 or AMX); else bf16 is slower than fp32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def pick_precision(name: str, device: torch.device, backbone: str) -> str:
    """Turn "auto" into the fastest precision the device really supports: "fp32", "bf16" or "fp16".

    CUDA: bf16 from compute capability 8.0, below it fp16. CPU: bf16 with hardware for it, else fp32.
    A light backbone, as the small one, stays in fp32 on a CPU: it trains in minutes anyway, and the same digits
    on all machines are worth more.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if device.type == "cpu" and not find_backbone(backbone).light and cpu_has_bf16() else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context in which the backbone computes in `precision`."""
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")


@torch.no_grad()
def fits_fp16(model: ViPTTNet, clips: Tensor, pixel_range: str) -> bool:
    """Whether the backbone's values stay in the range of fp16, which 0..255 pixels can make them leave.

    Tried on `clips`, uint8 [B, T, H, W], and on a frame of the largest value a pixel can have.
    """
    with autocast(clips.device, "fp16"):
        tried = [model.features(to_pixels(part, pixel_range)) for part in (clips, torch.full_like(clips[:1, :1], 255))]
    return all(bool(torch.isfinite(features).all()) for features in tried)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def pick_chunk(model: ViPTTNet, shape: tuple[int, ...], precision: str, room: int) -> int:
    """Frames per chunk with which the activations of a batch [B, T, H, W] fit into `room` bytes; 0 when all do."""
    learning = any(p.requires_grad for part in (model.stem, model.backbone) for p in part.parameters())
    if model.updates_statistics or not learning:
        return 0
    batch, frames, height, width = shape
    each = height * width * find_backbone(model.backbone_name).kept_bytes * (1 if precision == "fp32" else HALF)
    fitting = int(ACTIVATION_SHARE * room / each) if each else batch * frames
    return 0 if fitting >= batch * frames else max(1, min(fitting, MOST_FRAMES_PER_CHUNK))
