"""What we measure against: the authors' steps and straightforward PyTorch, written without viptt_core.

Nothing here is slowed down on purpose: each function is what a careful reader of the authors' notebooks,
or a newcomer to PyTorch or MONAI, would write first. `viptt_core` is not imported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRAMES, SIZE = 70, 224  # the paper's grid
HU_WINDOW = (-1000, 400)  # HU, mapped to 0 and 1
GREY_LEVELS = 255  # uint8 pixels are divided by this
LEARNING_RATE = 0.001  # the authors' SGD, no momentum
BLOCK = 1 << 17  # bytes read at a time: on the machines tried nothing decompressed faster than this


# --- Files ------------------------------------------------------------------------------------------------
def authors_preprocess(
    path: str | PathLike, *, depth: int = FRAMES, size: int = SIZE, hu_window: tuple[float, float] = HU_WINDOW
) -> np.ndarray:
    """A CT scan by the steps of the authors' TB notebook, in its libraries.

    Args:
        path: NIfTI file in HU, square in-plane.
        depth, size: Slices, and height and width in pixels, of the result.
        hu_window: Lower and upper bound in HU, mapped to 0 and 1.

    Returns:
        float32 [depth,size,size] in [0,1].
    """
    import nibabel
    from scipy import ndimage

    low, high = hu_window
    volume = nibabel.load(path).get_fdata()  # float64 [X,Y,Z]
    volume = np.clip(volume, low, high)
    volume = (volume - low) / (high - low)
    volume = ndimage.rotate(volume, 90, axes=(1, 0), reshape=False)
    factors = (size / volume.shape[0], size / volume.shape[1], depth / volume.shape[2])
    volume = ndimage.zoom(volume, factors, order=1)
    volume = np.clip(volume, 0, 1)
    return np.moveaxis(volume, 2, 0).astype(np.float32)


def bare_decompression(path: str | PathLike) -> int:
    """Decompress a gzip file and drop the result: no reader of it can be faster.

    Returns:
        Number of bytes it holds.
    """
    from isal import igzip

    n_bytes = 0
    with igzip.open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            n_bytes += len(block)
    return n_bytes


@functools.cache
def _monai_transforms(depth: int, size: int, hu_window: tuple[float, float]) -> Callable:
    from monai.transforms import Compose, LoadImage, Resize, ScaleIntensityRange

    low, high = hu_window
    return Compose(
        [
            LoadImage(image_only=True, ensure_channel_first=True),
            ScaleIntensityRange(a_min=low, a_max=high, b_min=0, b_max=1, clip=True),
            Resize((size, size, depth), mode="trilinear", align_corners=True),
        ]
    )


def monai_preprocess(
    path: str | PathLike, *, depth: int = FRAMES, size: int = SIZE, hu_window: tuple[float, float] = HU_WINDOW
) -> np.ndarray:
    """The same through MONAI: load, window, resize to the same grid. Needs the extra `bench`.

    The turn by 90 degrees is a view of the small result, so it costs MONAI nothing.

    Args:
        path, depth, size, hu_window: See `authors_preprocess`.

    Returns:
        float32 [depth,size,size] in [0,1].

    Raises:
        ImportError: MONAI is not installed.
    """
    volume = _monai_transforms(depth, size, tuple(hu_window))(path)[0].numpy()  # [X,Y,Z]
    return np.ascontiguousarray(volume.T[:, ::-1], dtype=np.float32)


def opencv_clip(
    path: str | PathLike, *, frames: int = FRAMES, size: int = SIZE, threads: int | None = None
) -> np.ndarray:
    """The first frames of a video by the loop of the authors' UCF50 notebook: read, resize, grey.

    Args:
        path: Video file.
        frames: Number of frames.
        size: Height and width of the result, pixels.
        threads: Of FFmpeg's decoder; None leaves them to OpenCV, as the authors do.

    Returns:
        uint8 [frames,size,size], grey levels 0..255.

    Raises:
        ValueError: the video holds fewer frames.
    """
    import cv2

    options = [] if threads is None else [cv2.CAP_PROP_N_THREADS, threads]
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, options)
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

    Args:
        num_classes: K.
        hidden_size: Units of the LSTM.
        feature_size: Units of the dense layer before the logits.
    """

    def __init__(self, num_classes: int, hidden_size: int = 256, feature_size: int = 1024) -> None:
        super().__init__()
        from torchvision.models import vgg16

        self.stem = nn.Conv3d(1, 3, kernel_size=1)
        # Start values of the three dense layers, which are dropped here, would only cost time.
        self.backbone = vgg16(init_weights=False).features
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

    def freeze(self, frozen: bool = True) -> None:
        """Leave stem and backbone as they are in training, or let them train."""
        self.stem.requires_grad_(not frozen)
        self.backbone.requires_grad_(not frozen)

    @torch.no_grad()
    def copy_from(self, model: nn.Module) -> PlainViPTTNet:
        """Take over the weights of a `viptt_core.model.ViPTTNet` with VGG16; returns the model itself."""
        self.stem.weight.copy_(model.stem.weight.reshape(3, 1, 1, 1, 1))
        self.stem.bias.copy_(model.stem.bias)
        self.backbone.load_state_dict(model.backbone.state_dict())
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(self.lstm, name).copy_(getattr(model.temporal, name))
        self.feature.load_state_dict(model.feature.state_dict())
        self.classifier.load_state_dict(model.classifier.state_dict())
        return self


def paired_weights(plain: PlainViPTTNet, model: nn.Module) -> list[tuple[str, Tensor, Tensor]]:
    """Each weight of the plain model beside the same one of a ViPTTNet, in the ViPTTNet's shape.

    Returns:
        (name in the ViPTTNet, plain tensor, ViPTTNet's tensor) of every trained weight.
    """
    own = dict(plain.named_parameters())
    pairs = []
    for name, theirs in model.named_parameters():
        mine = own[name.replace("temporal.", "lstm.")]
        pairs.append((name, mine.detach().reshape(theirs.shape), theirs.detach()))
    return pairs


# --- Training and predicting ------------------------------------------------------------------------------
@dataclass
class PlainHistory:
    """Mean losses of `plain_fit`, one entry an epoch."""

    losses: list[float] = field(default_factory=list)
    val_losses: list[float] = field(default_factory=list)


def plain_optimiser(model: nn.Module, lr: float = LEARNING_RATE) -> torch.optim.SGD:
    """SGD without momentum over what trains."""
    return torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=lr)


def _batch(model: nn.Module, clips: np.ndarray, labels: np.ndarray | None = None) -> tuple[Tensor, Tensor | None]:
    """uint8 [B,T,H,W] -> float in [0,1] and labels int64 [B], on the model's device."""
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.ascontiguousarray(clips)).float() / GREY_LEVELS
    return pixels.to(device), None if labels is None else torch.from_numpy(np.asarray(labels, np.int64)).to(device)


def plain_step(model: nn.Module, optimiser: torch.optim.Optimizer, clips: np.ndarray, labels: np.ndarray) -> float:
    """One training step.

    Args:
        model: Maps float [B,T,H,W] to logits [B,K]; in training mode.
        optimiser: Over the model's weights.
        clips: uint8 [B,T,H,W].
        labels: int [B].

    Returns:
        Cross-entropy, mean over the batch, before the step.
    """
    pixels, targets = _batch(model, clips, labels)
    optimiser.zero_grad()
    loss = F.cross_entropy(model(pixels), targets)
    loss.backward()
    optimiser.step()
    return loss.item()


def plain_train_epoch(
    model: PlainViPTTNet,
    clips: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int = 1,
    lr: float = LEARNING_RATE,
    frozen: bool,
    optimiser: torch.optim.Optimizer | None = None,
) -> list[float]:
    """One epoch in the order of the clips.

    Args:
        model: Changed in place.
        clips: uint8 [N,T,H,W].
        labels: int [N].
        batch_size: Clips a step; the last step may have fewer.
        lr: Learning rate of a new SGD; not used where `optimiser` is given.
        frozen: Stem and backbone do not train, though they run each step. This is what a feature cache
            trains: the authors' frozen run trained its stem, six numbers, with the rest.
        optimiser: To go on with.

    Returns:
        The loss of each step.
    """
    model.train()
    model.freeze(frozen)
    optimiser = optimiser or plain_optimiser(model, lr)
    return [
        plain_step(model, optimiser, clips[i : i + batch_size], labels[i : i + batch_size])
        for i in range(0, len(clips), batch_size)
    ]


@torch.no_grad()
def plain_validate(model: nn.Module, clips: np.ndarray, labels: np.ndarray, *, batch_size: int = 1) -> float:
    """Mean cross-entropy over clips uint8 [N,T,H,W] with labels int [N]."""
    model.eval()
    total = 0.0
    for i in range(0, len(clips), batch_size):
        pixels, targets = _batch(model, clips[i : i + batch_size], labels[i : i + batch_size])
        total += F.cross_entropy(model(pixels), targets, reduction="sum").item()
    return total / len(clips)


def plain_fit(
    model: PlainViPTTNet,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    *,
    epochs: int,
    frozen: bool,
    batch_size: int = 1,
    lr: float = LEARNING_RATE,
) -> PlainHistory:
    """A whole run: each epoch trains, then validates; no early stopping, so that its length is known.

    Args:
        train, validation: Clips uint8 [N,T,H,W] and labels int [N].
        epochs, frozen, batch_size, lr: See `plain_train_epoch`.
    """
    history = PlainHistory()
    model.freeze(frozen)
    optimiser = plain_optimiser(model, lr)
    for _ in range(epochs):
        losses = plain_train_epoch(model, *train, batch_size=batch_size, frozen=frozen, optimiser=optimiser)
        # Weighted by the clips of each step, of which the last may have fewer.
        sizes = [len(train[0][i : i + batch_size]) for i in range(0, len(train[0]), batch_size)]
        history.losses.append(float(np.average(losses, weights=sizes)))
        history.val_losses.append(plain_validate(model, *validation, batch_size=batch_size))
    return history


@torch.no_grad()
def plain_predict_folder(
    model: nn.Module,
    paths: Sequence[str | PathLike],
    *,
    preprocess: Callable[[str | PathLike], np.ndarray] = authors_preprocess,
) -> np.ndarray:
    """Class probabilities of scans, one scan after the other: prepare, then fp32 at batch 1.

    Args:
        model: Maps float [1,T,H,W] to logits [1,K].
        paths: Scans.
        preprocess: Maps a path to float32 [T,H,W] in [0,1]; a `partial` of it sets the grid.

    Returns:
        float32 [len(paths),K].
    """
    model.eval()
    device = next(model.parameters()).device
    rows = []
    for path in paths:
        volume = torch.from_numpy(preprocess(path)).unsqueeze(0).to(device)
        rows.append(torch.softmax(model(volume), dim=1)[0].cpu().numpy())
    return np.stack(rows)
