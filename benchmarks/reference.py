"""What we measure against: the authors' steps and straightforward PyTorch, written without viptt_core.

Nothing here is slowed down on purpose: each function is what a careful reader of the authors' notebooks,
or a newcomer to PyTorch or MONAI, would write first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from os import PathLike

import cv2
import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from isal import igzip
from scipy import ndimage
from torch import Tensor, nn
from torchvision.models import vgg16

FRAMES, SIZE = 70, 224  # the paper's grid
LOW, HIGH = -1000, 400  # HU, mapped to 0 and 1
LEARNING_RATE = 0.001  # the authors' SGD, no momentum
BLOCK = 1 << 17  # bytes read at a time: on the machines tried nothing decompressed faster than this


# --- Files ------------------------------------------------------------------------------------------------
def authors_preprocess(path: str | PathLike, *, depth: int = FRAMES, size: int = SIZE) -> np.ndarray:
    """A CT scan (NIfTI, square in-plane) by the steps of the authors' TB notebook.

    Returns:
        float32 [depth,size,size] in [0,1].
    """
    volume = nibabel.load(path).get_fdata()  # float64 [X,Y,Z]
    volume = np.clip(volume, LOW, HIGH)
    volume = (volume - LOW) / (HIGH - LOW)
    volume = ndimage.rotate(volume, 90, axes=(1, 0), reshape=False)
    factors = (size / volume.shape[0], size / volume.shape[1], depth / volume.shape[2])
    volume = ndimage.zoom(volume, factors, order=1)
    volume = np.clip(volume, 0, 1)
    return np.moveaxis(volume, 2, 0).astype(np.float32)


def bare_decompression(path: str | PathLike) -> int:
    """Decompress a gzip file and drop the result: no reader of it can be faster. Returns its number of bytes."""
    n_bytes = 0
    with igzip.open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            n_bytes += len(block)
    return n_bytes


@functools.cache
def _monai_transforms(depth: int, size: int) -> Callable:
    from monai.transforms import Compose, LoadImage, Resize, ScaleIntensityRange

    return Compose(
        [
            LoadImage(image_only=True, ensure_channel_first=True),
            ScaleIntensityRange(a_min=LOW, a_max=HIGH, b_min=0, b_max=1, clip=True),
            Resize((size, size, depth), mode="trilinear", align_corners=True),
        ]
    )


def monai_preprocess(path: str | PathLike, *, depth: int = FRAMES, size: int = SIZE) -> np.ndarray:
    """The same through MONAI (extra `bench`). The turn by 90 degrees is a view, which costs nothing."""
    volume = _monai_transforms(depth, size)(path)[0].numpy()  # [X,Y,Z]
    return np.ascontiguousarray(volume.T[:, ::-1], dtype=np.float32)


def opencv_clip(path: str | PathLike, *, frames: int = FRAMES, size: int = SIZE) -> np.ndarray:
    """The first frames of a video by the loop of the authors' UCF50 notebook, in one thread.

    Returns:
        uint8 [frames,size,size], grey levels 0..255.

    Raises:
        ValueError: the video holds fewer frames.
    """
    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    clip = []
    while len(clip) < frames:
        there, frame = capture.read()
        if not there:
            break
        frame = cv2.resize(frame, (size, size))
        clip.append(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
    capture.release()
    if len(clip) < frames:
        raise ValueError(f"{path}: {len(clip)} frames, {frames} are needed.")
    return np.array(clip)


# --- The network ------------------------------------------------------------------------------------------
class PlainViPTTNet(nn.Module):
    """ViPTT-Net with VGG16 as one writes it first: contiguous fp32, every frame through torchvision's layers.

    PyTorch's LSTM has two bias vectors where Keras has one: the second stays zero and does not train, so that
    a step changes the same weights as in `viptt_core`.
    """

    def __init__(self, num_classes: int, hidden_size: int = 256, feature_size: int = 1024) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, 3, kernel_size=1)
        self.backbone = vgg16(init_weights=False).features  # `copy_from` gives the weights
        self.lstm = nn.LSTM(512, hidden_size, batch_first=True)
        nn.init.zeros_(self.lstm.bias_hh_l0)
        self.lstm.bias_hh_l0.requires_grad_(False)
        self.feature = nn.Linear(hidden_size, feature_size)
        self.classifier = nn.Linear(feature_size, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips float [B,T,H,W] -> logits float [B,K]."""
        batch, frames, height, width = clips.shape
        coloured = self.stem(clips.unsqueeze(1))  # [B,3,T,H,W]
        pictures = coloured.transpose(1, 2).reshape(batch * frames, 3, height, width)
        maps = self.backbone(pictures)  # [B*T,512,H/32,W/32]
        features = F.adaptive_avg_pool2d(maps, 1).reshape(batch, frames, -1)  # [B,T,512]
        states, _ = self.lstm(features)  # [B,T,hidden]
        return self.classifier(torch.relu(self.feature(states[:, -1])))

    def copy_from(self, model: nn.Module) -> PlainViPTTNet:
        """Take over the weights of a `viptt_core.model.ViPTTNet` with VGG16; returns the model itself."""
        weights = {name.replace("temporal.", "lstm."): weight for name, weight in model.state_dict().items()}
        weights["stem.weight"] = weights["stem.weight"].reshape(3, 1, 1, 1, 1)
        self.load_state_dict(weights | {"lstm.bias_hh_l0": self.lstm.bias_hh_l0})
        return self


# --- Training and predicting: clips uint8 [N,T,H,W], labels int [N] -----------------------------------------
def plain_optimiser(model: nn.Module) -> torch.optim.SGD:
    """SGD without momentum over what trains."""
    return torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=LEARNING_RATE)


def _batch(model: nn.Module, clips: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Pixels in [0,1] and labels, on the model's device."""
    device = next(model.parameters()).device
    return (torch.from_numpy(clips).float() / 255).to(device), torch.from_numpy(labels).to(device)


def plain_step(model: nn.Module, optimiser: torch.optim.Optimizer, clips: np.ndarray, labels: np.ndarray) -> float:
    """One training step over all clips; returns the mean cross-entropy before it."""
    pixels, targets = _batch(model, clips, labels)
    optimiser.zero_grad()
    loss = F.cross_entropy(model(pixels), targets)
    loss.backward()
    optimiser.step()
    return loss.item()


def plain_frozen_epoch(model: PlainViPTTNet, clips: np.ndarray, labels: np.ndarray) -> list[float]:
    """An epoch in the order of the clips, one a step; returns the loss of each.

    Stem and backbone do not train, though they run each step. This is what a feature cache trains.
    """
    model.train()
    model.stem.requires_grad_(False)
    model.backbone.requires_grad_(False)
    optimiser = plain_optimiser(model)
    return [plain_step(model, optimiser, clips[i : i + 1], labels[i : i + 1]) for i in range(len(clips))]


@torch.no_grad()
def plain_validate(model: nn.Module, clips: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy, one clip after the other."""
    model.eval()
    total = 0.0
    for i in range(len(clips)):
        pixels, targets = _batch(model, clips[i : i + 1], labels[i : i + 1])
        total += F.cross_entropy(model(pixels), targets).item()
    return total / len(clips)


@torch.no_grad()
def plain_predict_folder(
    model: nn.Module, paths: Sequence[str | PathLike], *, preprocess: Callable = authors_preprocess
) -> np.ndarray:
    """Class probabilities float32 [len(paths),K] of scans, one after the other: prepare, then fp32."""
    model.eval()
    device = next(model.parameters()).device
    rows = []
    for path in paths:
        volume = torch.from_numpy(preprocess(path)).unsqueeze(0).to(device)
        rows.append(torch.softmax(model(volume), dim=1)[0].cpu().numpy())
    return np.stack(rows)
