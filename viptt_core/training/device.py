"""How training and prediction run on the machine at hand: device, precision, memory, processes.

Nothing here changes what is computed, only how fast, in how much memory and to how many digits.
"""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from viptt_core.backbones import find_backbone
from viptt_core.errors import DataWarning, SettingError, TrainingError, check_choice
from viptt_core.model import ViPTTNet

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPTIMISERS = {
    "sgd": lambda weights, **settings: torch.optim.SGD(weights, **settings),  # no momentum, as the authors
    "adamw": lambda weights, **settings: torch.optim.AdamW(weights, weight_decay=0.01, **settings),
}
# Saved activations may fill this share of the free memory before frames go through in chunks.
ACTIVATION_SHARE = 0.6
MOST_FRAMES_PER_CHUNK = 16  # more do not make a step faster, on a CPU or a GPU


@dataclass(frozen=True)
class Engine:
    """Settings of how, not of what.

    Attributes:
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:N" or "mps".
        precision: Of the backbone: "fp32", "bf16", "fp16", or "auto" (see `pick_precision`). The
            recurrent layer, the loss and the weights are always fp32.
        frames_per_chunk: Frames whose activations training keeps at once, see `ViPTTNet.features`;
            0 keeps all where they fit, else as many as do.
        compile: Run the backbone through torch.compile; pays off on a GPU and in long runs.
        feature_cache: Compute the features of a frozen stem and backbone once.
        processes: Processes that train together when started from a notebook; one a GPU.
        checkpoint_seconds: Least time between two checkpoints of a running training.
        check_every: Steps between two looks at whether all losses were finite. A look waits for the
            device, so it is not taken at every step; checkpoints are only written right after one.
        tensorboard: Also log to TensorBoard, in the run's folder.
    """

    device: str = "auto"
    precision: str = "auto"
    frames_per_chunk: int = 0
    compile: bool = False
    feature_cache: bool = True
    processes: int = 1
    checkpoint_seconds: float = 60.0
    check_every: int = 20
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, ("auto", *PRECISIONS))
        for name, least in (("frames_per_chunk", 0), ("processes", 1), ("checkpoint_seconds", 0), ("check_every", 1)):
            if getattr(self, name) < least:
                raise SettingError(f"{name} is {getattr(self, name)}.", remedy=f"Give at least {least}.")
        if self.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise SettingError("TensorBoard is not installed.", remedy='Run: pip install "viptt-core[tensorboard]"')


def pick_device(name: str = "auto") -> torch.device:
    """Turn a device name into a device; "auto" takes CUDA, then MPS, then the CPU.

    Among processes started by `accelerate launch`, "auto" and "cuda" are the GPU of this process.

    Raises:
        SettingError: the name is unknown to PyTorch, or the device is not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    remedy = "Use 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'."
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingError(f"device '{name}' is not one PyTorch knows.", remedy=remedy) from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise SettingError(f"device '{name}' is not on this machine.", remedy=remedy)
    return device


def trains_on_cpus() -> bool:
    """Whether processes that train together do so on CPUs: no GPU is there, or the launcher was told so."""
    told = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")
    return told or not torch.cuda.is_available()


def process_state():
    """Accelerate's view of the processes that train together: rank, barrier."""
    from accelerate import PartialState

    return PartialState(cpu=trains_on_cpus())  # not told, it takes processes on CPUs for strangers


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
        if name == "bf16" and device.type == "cpu" and not cpu_has_bf16():
            warnings.warn("this CPU has no bf16 units: bf16 is slower than fp32 here.", DataWarning, stacklevel=2)
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if device.type == "cpu" and not find_backbone(backbone).light and cpu_has_bf16() else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context in which the backbone computes in `precision`."""
    enabled = precision != "fp32"
    return torch.autocast(device.type, dtype=PRECISIONS[precision] if enabled else None, enabled=enabled)


def make_optimiser(name: str, weights: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """The optimiser of that name, fused into one pass over the weights where the device can."""
    return OPTIMISERS[name](weights, lr=learning_rate, fused=weights[0].device.type in ("cpu", "cuda"))


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def activation_bytes(model: ViPTTNet, frame: Tensor, precision: str) -> int:
    """Bytes that training keeps of one frame [H, W] until the way back, measured (in a clip, where it sees clips)."""

    def kept_of(frames: int) -> int:
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast(frame.device, precision):
            features = model.features(frame.expand(1, frames, *frame.shape))
        del features
        return sum(kept.values())

    few = find_backbone(model.backbone_name).time_stride  # fewer frames than to one step of the features cost as many
    # Weights, and their copies in another precision, are kept once however many frames.
    return (kept_of(2 * few) - kept_of(few)) // few


def pick_chunk(model: ViPTTNet, frames: int, frame: Tensor, precision: str) -> int:
    """Frames per chunk with which the activations of `frames` frames fit into memory; 0 when all of them do.

    A backbone that sees whole clips takes at least one at once, whatever the number, see `ViPTTNet.features`.
    """
    if model.updates_statistics or not any(
        p.requires_grad for p in (*model.stem.parameters(), *model.backbone.parameters())
    ):
        return 0
    each = activation_bytes(model, frame, precision)
    room = ACTIVATION_SHARE * free_memory(frame.device)
    return 0 if frames * each <= room else max(1, min(int(room / each), MOST_FRAMES_PER_CHUNK))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of PyTorch says that the device's memory is used up (the CPU has no type of its own)."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def lower_chunk(model: ViPTTNet, frames: int, *, device: torch.device, said: str, alone: bool = True) -> None:
    """After an out-of-memory error, halve the frames whose activations are kept, and say so.

    A backbone that sees whole clips goes straight on to one clip at once, the least there is: a chunk of 1.

    Args:
        model: Its `frames_per_chunk` is set.
        frames: Frames of the batch that did not fit.
        device: Where it did not fit.
        said: What the device said.
        alone: Whether this is the only process: others would wait for one that tries again.

    Raises:
        TrainingError: nothing is left to lower.
    """
    chunk = min(model.frames_per_chunk or frames, frames)
    if chunk == 1 or model.updates_statistics or not alone:
        raise TrainingError(
            f"out of memory on {device} ({said}).",
            remedy=f"Set frames_per_chunk (now {model.frames_per_chunk}; 0 is all frames at once) to a smaller "
            "number, such as 8, or lower batch_size.",
        )
    model.frames_per_chunk = 1 if model.sees_clips else math.ceil(chunk / 2)
    warnings.warn(
        f"out of memory on {device}: frames_per_chunk lowered to {model.frames_per_chunk}.", DataWarning, stacklevel=2
    )
    if device.type == "cuda":
        torch.cuda.empty_cache()


@torch.no_grad()
def fits_fp16(model: ViPTTNet, pixels: Tensor, brightest: float) -> bool:
    """Whether the backbone's values stay in the range of fp16, which 0..255 pixels can make them leave.

    Args:
        model: On the device.
        pixels: float [B, T, H, W] to try; a frame of the brightest pixels is tried, too.
        brightest: Largest value a pixel can have.
    """
    with autocast(pixels.device, "fp16"):
        tried = model.features(pixels), model.features(torch.full_like(pixels[:1, :1], brightest))
    return all(bool(torch.isfinite(features).all()) for features in tried)


def over_processes(model: ViPTTNet, accelerator, device: torch.device) -> nn.Module:
    """The model wrapped so that processes average their gradients; itself where there is only one."""
    if accelerator.num_processes == 1:
        return model
    if model.updates_statistics and device.type == "cuda":
        model.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(model.backbone)
    elif model.updates_statistics:
        what = "on CPUs each process normalises its own share of a batch: the result is not that of one process."
        warnings.warn(what, DataWarning, stacklevel=2)
    return accelerator.prepare_model(model, device_placement=False)
