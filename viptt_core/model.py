"""ViPTT-Net: a 2D backbone on each frame or slice, then a recurrent layer over them.

stem (1x1, grey to 3 channels) -> backbone -> LSTM, last state (or another summary) -> dense + ReLU -> logits.
As the authors coded it in Keras; layer sizes and start values are theirs.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from viptt_core.errors import DataError, SettingError
from viptt_core.imagenet import imagenet_features
from viptt_core.presets import check_choice
from viptt_core.temporal import TEMPORALS

BACKBONES = ("vgg16", "small")
STEMS = ("glorot", "imagenet")
INFERENCE_CHUNK = 32  # frames that go through the backbone at once when nothing is kept for gradients
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
        temporal: How frames become one summary: "lstm" as the paper, or another of `temporal.TEMPORALS`.
        hidden_size: Size of that summary.
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
        check_choice("temporal", temporal, tuple(TEMPORALS))
        check_choice("stem", stem, STEMS)
        for name, value in (("num_classes", num_classes), ("hidden_size", hidden_size),
                            ("feature_size", feature_size)):  # fmt: skip
            if value < 1:
                raise SettingError(f"{name} is {value}.", remedy="Give a whole number of at least 1.")
        if backbone_weights and backbone != "vgg16":
            raise SettingError(
                f"the {backbone} backbone has no ImageNet weights.", remedy="Leave backbone_weights empty."
            )
        self.backbone_name, self.temporal_name = backbone, temporal
        self.frames_per_chunk = 0  # 0: all frames of a batch at once; see `features`
        self.stem = nn.Conv2d(1, 3, kernel_size=1)  # Keras: Conv3D 1x1x1, the same function frame by frame
        self.backbone, width = _vgg16() if backbone == "vgg16" else _small()
        self.temporal = TEMPORALS[temporal](width, hidden_size)
        self.feature = nn.Linear(hidden_size, feature_size)
        self.classifier = nn.Linear(feature_size, num_classes)
        initialise_as_keras(self, generator)
        if stem == "imagenet":
            nn.init.ones_(self.stem.weight)
            with torch.no_grad():
                self.stem.bias.copy_(-torch.tensor(IMAGENET_MEANS))
        if backbone_weights:
            self.backbone.load_state_dict(imagenet_features(backbone_weights))

    @property
    def architecture(self) -> dict[str, str | int]:
        """What decides the names and shapes of the weights; recorded beside them, see `checkpoint`."""
        return {
            "backbone": self.backbone_name, "temporal": self.temporal_name, "hidden_size": self.temporal.hidden_size,
            "feature_size": self.feature.out_features, "num_classes": self.classifier.out_features,
        }  # fmt: skip

    def forward(self, clips: Tensor) -> Tensor:
        """Class scores of a batch.

        Args:
            clips: float [B, T, H, W], grey, in the scale the model was trained with; or the
                features [B, T, F] of such clips, see `features`.

        Returns:
            float32 [B, K] logits.
        """
        features = clips if clips.ndim == 3 else self.features(clips)
        # A few small matrices: exact arithmetic costs nothing here, and an LSTM adds up its rounding.
        with torch.autocast(clips.device.type, enabled=False):
            summary = self.temporal.summary(features.float())  # [B, hidden]
            return self.classifier(torch.relu(self.feature(summary)))

    def features(self, clips: Tensor) -> Tensor:
        """What stem and backbone make of each frame, averaged over the plane: float [B, T, F].

        With `frames_per_chunk` set, training keeps the activations of no more than so many frames:
        the frames go through in chunks, whose activations are computed again on the way back.
        The gradients are the same. Without gradients nothing is kept and chunks cost nothing.
        """
        batch, frames, height, width = clips.shape
        grey = clips.reshape(batch * frames, height, width)
        if not torch.is_grad_enabled():
            run, chunk = self._frame_features, self.frames_per_chunk or INFERENCE_CHUNK
        elif self.frames_per_chunk:
            chunk = self.frames_per_chunk
            run = partial(checkpoint, self._frame_features, use_reentrant=False, preserve_rng_state=False)
        else:
            run, chunk = self._frame_features, len(grey)
        if self.training and self.normalises:  # statistics are those of the whole batch
            run, chunk = self._frame_features, len(grey)
        return torch.cat([run(part) for part in grey.split(chunk)]).reshape(batch, frames, -1)

    def _frame_features(self, grey: Tensor) -> Tensor:
        """Frames [N, H, W] -> [N, F]."""
        # The stem as a linear map of each pixel: the same function as its 1x1 convolution, many times
        # faster from a single channel, and the result lies channels-last, as the backbone wants it.
        pictures = F.linear(grey.unsqueeze(-1), self.stem.weight.view(3, 1), self.stem.bias).permute(0, 3, 1, 2)
        return self.backbone(pictures).mean(dim=(2, 3))  # global average pooling

    @property
    def normalises(self) -> bool:
        """Whether the backbone has batch normalisation and would update its statistics in training."""
        return any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in self.backbone.modules())

    def freeze(self, *, backbone: bool, stem: bool) -> None:
        """Leave the weights of backbone or stem as they are in training; False trains them.

        A stem before a frozen backbone can still learn, as it does in the authors' code.
        """
        self.backbone.requires_grad_(not backbone)
        self.stem.requires_grad_(not stem)

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


def initialise_as_keras(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Give every layer Keras's start values.

    Kernels Glorot-uniform, recurrent kernels orthogonal, biases zero except an LSTM's forget gate, which
    starts at one.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LSTM | nn.GRU):
            # Keras's fans are those of the whole kernel (inputs, gates x hidden), and so are these.
            nn.init.xavier_uniform_(layer.weight_ih_l0, generator=generator)
            nn.init.orthogonal_(layer.weight_hh_l0, generator=generator)
            nn.init.zeros_(layer.bias_ih_l0)
            nn.init.zeros_(layer.bias_hh_l0)
            if isinstance(layer, nn.LSTM):
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
