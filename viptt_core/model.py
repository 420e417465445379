"""ViPTT-Net: a 2D backbone on each frame or slice, then a recurrent layer over them.

stem (1x1, grey to 3 channels) -> backbone -> LSTM, last state -> dense + ReLU -> logits.
As the authors coded it in Keras; layer sizes and start values are theirs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from viptt_core.errors import DataError, SettingError
from viptt_core.presets import check_choice

BACKBONES = ("vgg16", "small")
TEMPORALS = ("lstm",)
STEMS = ("glorot", "imagenet")
# Mean of ImageNet's red, green, blue in 0..255: what the Caffe VGG16 weights expect subtracted.
# Source: torchvision, VGG16_Weights.IMAGENET1K_FEATURES.transforms().
IMAGENET_MEANS = (123.0, 117.0, 104.0)  # 255 x (0.48235, 0.45882, 0.40784)


class ViPTTNet(nn.Module):
    """The CNN-RNN of the paper.

    Args:
        num_classes: K, 10 activities or 5 tuberculosis types.
        backbone: "vgg16", or "small" (four convolutions, for demonstrations on a CPU).
        backbone_weights: torchvision's name of the VGG16 weights, "IMAGENET1K_FEATURES" for those
            Keras loads; None or "" starts from random weights.
        temporal: "lstm".
        hidden_size: Units of the LSTM.
        feature_size: Units of the dense layer before the logits.
        stem: Start of the 1x1 stem: "glorot" (Keras), or "imagenet", which copies grey to three
            channels and subtracts ImageNet's means, so that pixels in 0..255 meet VGG16 as it was trained.
        generator: Source of the random start; None takes PyTorch's global one.

    Raises:
        SettingError: an argument names something that does not exist.
        DataError: ImageNet weights can be neither found nor downloaded.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "vgg16",
        backbone_weights: str | None = None,
        temporal: str = "lstm",
        hidden_size: int = 256,
        feature_size: int = 1024,
        stem: str = "glorot",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_choice("backbone", backbone, BACKBONES)
        check_choice("temporal", temporal, TEMPORALS)
        check_choice("stem", stem, STEMS)
        for name, value in (("num_classes", num_classes), ("hidden_size", hidden_size),
                            ("feature_size", feature_size)):  # fmt: skip
            if value < 1:
                raise SettingError(f"{name} is {value}.", remedy="Give a whole number of at least 1.")
        if backbone_weights and backbone != "vgg16":
            raise SettingError(
                f"the {backbone} backbone has no ImageNet weights.", remedy="Leave backbone_weights empty."
            )
        self.stem = nn.Conv2d(1, 3, kernel_size=1)  # Keras: Conv3D 1x1x1, the same function frame by frame
        self.backbone, width = _vgg16() if backbone == "vgg16" else _small()
        self.temporal = KerasLSTM(width, hidden_size, batch_first=True)
        self.feature = nn.Linear(hidden_size, feature_size)
        self.classifier = nn.Linear(feature_size, num_classes)
        initialise_as_keras(self, generator)
        if stem == "imagenet":
            nn.init.ones_(self.stem.weight)
            with torch.no_grad():
                self.stem.bias.copy_(-torch.tensor(IMAGENET_MEANS))
        if backbone_weights:
            self.backbone.load_state_dict(_imagenet_features(backbone_weights))

    def forward(self, clips: Tensor) -> Tensor:
        """Class scores of a batch.

        Args:
            clips: float [B, T, H, W], grey, in the scale the model was trained with.

        Returns:
            float [B, K] logits.
        """
        batch, frames, height, width = clips.shape
        # The stem as a linear map of each pixel: the same function as its 1x1 convolution, many times
        # faster from a single channel, and the result lies channels-last, as the backbone wants it.
        grey = clips.reshape(batch * frames, height, width, 1)
        pictures = F.linear(grey, self.stem.weight.view(3, 1), self.stem.bias).permute(0, 3, 1, 2)  # [B*T, 3, H, W]
        features = self.backbone(pictures).mean(dim=(2, 3))  # global average pooling: [B*T, F]
        states, _ = self.temporal(features.reshape(batch, frames, -1))  # [B, T, hidden]
        return self.classifier(torch.relu(self.feature(states[:, -1])))

    def freeze_backbone(self, frozen: bool = True) -> None:
        """Leave the backbone's weights as they are in training (the stem before it still learns)."""
        self.backbone.requires_grad_(not frozen)

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Take over everything but the last layer, as the authors did between the stages.

        Args:
            state: `state_dict()` of a ViPTTNet of the same shape, with any number of classes.

        Raises:
            DataError: a tensor is missing, unknown, or of another shape.
        """
        own = self.state_dict()
        kept = {name for name in own if not name.startswith("classifier.")}
        given = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
        differing = sorted(kept ^ set(given)) or sorted(n for n in kept if own[n].shape != given[n].shape)
        if differing:
            raise DataError(
                f"the pretrained weights do not fit this model, first at '{differing[0]}'.",
                remedy="Pretrain with the same backbone, hidden_size and feature_size.",
            )
        self.load_state_dict(given, strict=False)


class KerasLSTM(nn.LSTM):
    """One-layer LSTM with one bias vector, as Keras has it.

    PyTorch adds two bias vectors, which is the same function with 4 x hidden more parameters. The
    second one is kept as a constant zero that is neither trained nor saved.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        zeros = torch.zeros_like(self.bias_hh_l0.data)
        del self.bias_hh_l0
        self.register_buffer("bias_hh_l0", zeros, persistent=False)


def initialise_as_keras(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Give every layer Keras's start values.

    Kernels Glorot-uniform, the LSTM's recurrent kernel orthogonal, biases zero except the LSTM's
    forget gate, which starts at one.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LSTM):
            # Keras's fans are those of the whole kernel (inputs, 4 x hidden), and so are these.
            nn.init.xavier_uniform_(layer.weight_ih_l0, generator=generator)
            nn.init.orthogonal_(layer.weight_hh_l0, generator=generator)
            nn.init.zeros_(layer.bias_ih_l0)
            hidden = layer.hidden_size
            nn.init.ones_(layer.bias_ih_l0.data[hidden : 2 * hidden])  # gates in the order i, f, c, o


def count_parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """Number of weights, of all or only of those that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def _vgg16() -> tuple[nn.Sequential, int]:
    """VGG16's convolutions, uninitialised, and the number of channels they end in."""
    from torchvision.models import vgg16

    with torch.device("meta"):  # its three dense layers would take 500 MB only to be dropped
        features = vgg16().features
    return features.to_empty(device="cpu"), 512


def _small() -> tuple[nn.Sequential, int]:
    """Four normalised convolutions to an eighth of the height and width; learns within minutes on a CPU."""
    widths, strides = (3, 16, 32, 64, 96), (2, 2, 2, 1)
    layers: list[nn.Module] = []
    for before, after, stride in zip(widths, widths[1:], strides, strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after),
                   nn.ReLU(inplace=True)]  # fmt: skip
    return nn.Sequential(*layers), widths[-1]


def _imagenet_features(name: str) -> dict[str, Tensor]:
    """ImageNet weights of the convolutions: downloaded once, checksum compared at every use.

    torchvision publishes the first eight digits of the SHA-256 in the file's name.
    """
    from torchvision.models import VGG16_Weights

    check_choice("backbone_weights", name, [member.name for member in VGG16_Weights])
    url = VGG16_Weights[name].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    checksum = path.stem.rsplit("-", 1)[1]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=checksum)
        except (URLError, OSError, RuntimeError) as error:
            raise DataError(
                f"ImageNet weights {name} could not be downloaded ({error}).", path=url,
                remedy=f"Connect to the network, or put this file into {path.parent} (TORCH_HOME moves that folder).",
            ) from error  # fmt: skip
    with open(path, "rb") as file:
        if not hashlib.file_digest(file, "sha256").hexdigest().startswith(checksum):
            raise DataError("is damaged: its checksum differs.", path=path, remedy="Delete it and start again.")
    state = torch.load(path, map_location="cpu", weights_only=True)  # refuses anything but tensors
    prefix = "features."
    features = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not all(tensor.isfinite().all() for tensor in features.values()):
        raise DataError(f"ImageNet weights {name} hold values that are not finite.", path=path,
                        remedy="Take IMAGENET1K_FEATURES.")  # fmt: skip
    return features
