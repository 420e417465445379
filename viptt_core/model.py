"""ViPTT-Net: a backbone on each frame or slice, then a recurrent layer over its features.

stem (1x1, grey to 3 channels) -> backbone -> LSTM, last state (or another summary) -> dense + ReLU -> logits.
Layer sizes and initial values are those of the authors' Keras code.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from viptt_core.backbones import find_backbone, imagenet_features
from viptt_core.errors import DataError, SettingError, check_choice, check_counts

INFERENCE_CHUNK = 32  # frames that go through the backbone at once when nothing is kept for gradients


class ViPTTNet(nn.Module):
    """The CNN-RNN of the paper.

    Args:
        num_classes: K, 10 activities or 5 tuberculosis types.
        backbone: A name of `backbones.BACKBONES`, such as "vgg16", "lite0" or "small" (four convolutions); or a network
            of timm, such as "timm:resnet18".
        backbone_weights: Name of the backbone's weights, for VGG16 torchvision's "IMAGENET1K_FEATURES", which Keras
            loads, for timm's networks "pretrained"; None or "" starts from random weights.
        temporal: How frames become one summary: "lstm" as the paper, or another of `TEMPORALS`.
        hidden_size: Size of that summary.
        feature_size: Units of the dense layer before the logits.
        stem: Start of the 1x1 stem: "glorot" (Keras), or "imagenet", which copies grey to three channels and
            normalises them, so that pixels in 0..255 meet the backbone as it was trained.
        generator: Source of the random start; None takes PyTorch's global one.

    Raises:
        SettingError: an argument names something that does not exist.
        DataError: pretrained weights can be neither found nor downloaded.
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
        facts = find_backbone(backbone)
        check_choice("temporal", temporal, tuple(TEMPORALS))
        check_choice("stem", stem, ("glorot", "imagenet"))
        check_counts(num_classes=num_classes, hidden_size=hidden_size, feature_size=feature_size)
        if backbone_weights and not facts.weights:
            what = f"the {backbone} backbone has no ImageNet weights."
            raise SettingError(what, remedy="Leave backbone_weights empty.")
        self.backbone_name, self.temporal_name = backbone, temporal
        self.frames_per_chunk = 0  # 0: all frames of a batch at once; see `features`
        self.stem = nn.Conv2d(1, 3, kernel_size=1)  # Keras: Conv3D 1x1x1, the same function frame by frame
        self.backbone = facts.build(generator)
        self.temporal = TEMPORALS[temporal](facts.width, hidden_size)
        self.feature = nn.Linear(hidden_size, feature_size)
        self.classifier = nn.Linear(feature_size, num_classes)
        for part in self.children():
            if part is not self.backbone or facts.keras_start:
                initialise_as_keras(part, generator)
        if stem == "imagenet":
            means, deviations = torch.tensor(facts.means), torch.tensor(facts.deviations)
            with torch.no_grad():
                self.stem.weight.copy_((1 / deviations).view(3, 1, 1, 1))
                self.stem.bias.copy_(-means / deviations)
        if backbone_weights:
            self.backbone.load_state_dict(imagenet_features(backbone_weights, backbone)[0])

    @property
    def architecture(self) -> dict[str, str | int]:
        """What decides the names and shapes of the weights; recorded beside them, see `checkpoint`."""
        return {
            "backbone": self.backbone_name,
            "temporal": self.temporal_name,
            "hidden_size": self.temporal.hidden_size,
            "feature_size": self.feature.out_features,
            "num_classes": self.classifier.out_features,
        }

    def forward(self, clips: Tensor) -> Tensor:
        """Class scores of a batch, float32 [B, K] logits.

        Args:
            clips: float [B, T, H, W], grey, in the scale the model was trained with; or their features [B, T, F].
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
        pictures = clips.reshape(batch * frames, height, width)
        together, run = batch * frames, self._frame_features
        if not self.updates_statistics:  # else they are those of the whole batch
            together = self.frames_per_chunk or (together if torch.is_grad_enabled() else INFERENCE_CHUNK)
        if torch.is_grad_enabled() and together < batch * frames:
            run = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
        features = torch.cat([run(part) for part in pictures.split(together)])  # [B * T, F]
        return features.reshape(batch, frames, self.temporal.input_size)

    def _frame_features(self, grey: Tensor) -> Tensor:
        """Frames [N, H, W] -> [N, F]."""
        # The stem as a linear map of each pixel: the same function as its 1x1 convolution, many times
        # faster from a single channel, and the result lies channels-last, as the backbone wants it.
        pictures = F.linear(grey.unsqueeze(-1), self.stem.weight.view(3, 1), self.stem.bias).movedim(-1, 1)
        return self.backbone(pictures).mean(dim=(-2, -1))  # average pooling over the plane

    @property
    def updates_statistics(self) -> bool:
        """Whether a pass in the present mode (train or eval) updates the backbone's batch normalisation."""
        return any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in self.backbone.modules())

    def place(self, device: torch.device) -> None:
        """Move the model to a device, its kernels laid out as they compute fastest: channels last."""
        self.to(device, memory_format=torch.channels_last)

    def freeze(self, *, backbone: bool, stem: bool) -> None:
        """Leave the weights of backbone or stem as they are in training; False trains them.

        A stem before a frozen backbone can still learn, as it does in the authors' code.
        """
        self.backbone.requires_grad_(not backbone)
        self.stem.requires_grad_(not stem)

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Take over everything but the last layer, as the authors did between the stages.

        `state` is that of a ViPTTNet of the same shape, with any number of classes; else a DataError is raised.
        """
        own = self.state_dict()
        kept = {name for name in own if not name.startswith("classifier.")}
        given = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
        differing = sorted(kept ^ set(given)) or sorted(n for n in kept if own[n].shape != given[n].shape)
        if differing:
            what = f"the pretrained weights do not fit this model, first at '{differing[0]}'."
            raise DataError(what, remedy="Pretrain with the same backbone, hidden_size and feature_size.")
        self.load_state_dict(given, strict=False)


def initialise_as_keras(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Keras's start: kernels Glorot-uniform, recurrent ones orthogonal, biases 0 but 1 of an LSTM's forget gate."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LSTM):
            # Keras's fans are those of the whole kernel (inputs, gates x hidden), and so are these.
            nn.init.xavier_uniform_(layer.weight_ih_l0, generator=generator)
            nn.init.orthogonal_(layer.weight_hh_l0, generator=generator)
            nn.init.zeros_(layer.bias_ih_l0)
            nn.init.zeros_(layer.bias_hh_l0)
            hidden = layer.hidden_size
            nn.init.ones_(layer.bias_ih_l0.data[hidden : 2 * hidden])  # gates in the order i, f, c, o


def count_parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """Number of weights, of all or only of those that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def check_architecture(found: dict, wanted: dict, path: Path) -> None:
    """Raise a DataError that names each difference between two architectures."""
    differing = [name for name, value in wanted.items() if found.get(name) != value]
    if differing:
        each = ", ".join(f"{name} {found.get(name, 'unknown')} instead of {wanted[name]}" for name in differing)
        remedy = "Build the model with these settings, or name other weights."
        raise DataError(f"is of another model: {each}.", path=path, remedy=remedy)


# --- Features float [B, T, F] -> one summary [B, hidden_size]: the paper's LSTM, and what can stand in its place ------


class KerasLSTM(nn.LSTM):
    """One-layer LSTM with one bias vector, as Keras has it.

    PyTorch adds two bias vectors, which is the same function with 4 x hidden more parameters. The
    second one is kept as a constant zero that is neither trained nor saved.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)
        zeros = torch.zeros_like(self.bias_hh_l0.data)
        del self.bias_hh_l0
        self.register_buffer("bias_hh_l0", zeros, persistent=False)

    def summary(self, features: Tensor) -> Tensor:
        """The last state."""
        return self(features)[0][:, -1]


class ProjectedLSTM(nn.Module):
    """Features of each frame, standardised and mapped linearly to `hidden_size`, then an LSTM.

    For a wide backbone whose features are of any size: as they are, they would saturate the gates of the LSTM.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.standardise = nn.BatchNorm1d(input_size, affine=False)  # each feature, over the frames of a batch
        self.value, self.lstm = nn.Linear(input_size, hidden_size), KerasLSTM(hidden_size, hidden_size)

    def summary(self, features: Tensor) -> Tensor:
        """The last state."""
        frames = self.standardise(features.flatten(0, 1))  # [B, T, F] -> [B * T, F]
        return self.lstm.summary(self.value(frames).unflatten(0, features.shape[:2]))


class MeanPooling(nn.Module):
    """The plain mean over frames, then a linear map to `hidden_size`: a clip as a bag of pictures.

    With `standardised`, features are standardised first, as for `ProjectedLSTM`.
    """

    def __init__(self, input_size: int, hidden_size: int, standardised: bool = False) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.value = nn.Linear(input_size, hidden_size)
        self.standardise = nn.BatchNorm1d(input_size, affine=False) if standardised else nn.Identity()

    def summary(self, features: Tensor) -> Tensor:
        """The mean, mapped."""
        return self.value(self.standardise(features.flatten(0, 1)).unflatten(0, features.shape[:2]).mean(dim=1))


TEMPORALS = {
    "lstm": KerasLSTM,
    "projected lstm": ProjectedLSTM,
    "mean": MeanPooling,
    "projected mean": partial(MeanPooling, standardised=True),
}
