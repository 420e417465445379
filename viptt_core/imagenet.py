"""ImageNet weights of VGG16, as torchvision publishes them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from viptt_core.errors import DataError
from viptt_core.presets import check_choice
from viptt_core.sources.download import download, verify


def imagenet_features(name: str) -> dict[str, Tensor]:
    """ImageNet weights of the convolutions: downloaded once, checksum compared at every use.

    torchvision publishes the first eight digits of the SHA-256 in the file's name.

    Raises:
        DataError: they cannot be had, are damaged, or hold values that are not finite.
        StorageError: they cannot be written.
    """
    from torchvision.models import VGG16_Weights

    check_choice("backbone_weights", name, [member.name for member in VGG16_Weights])
    url = VGG16_Weights[name].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    checksum = f"sha256:{path.stem.rsplit('-', 1)[1]}"
    if path.is_file():
        verify(path, checksum)
    else:
        try:
            download(url, path, checksum=checksum)
        except DataError as error:
            raise DataError(
                f"ImageNet weights {name} could not be downloaded ({error}).", path=url,
                remedy=f"Connect to the network, or put this file into {path.parent} (TORCH_HOME moves that folder).",
            ) from error  # fmt: skip
    state = torch.load(path, map_location="cpu", weights_only=True)  # refuses anything but tensors
    prefix = "features."
    features = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not all(tensor.isfinite().all() for tensor in features.values()):
        raise DataError(f"ImageNet weights {name} hold values that are not finite.", path=path,
                        remedy="Take IMAGENET1K_FEATURES.")  # fmt: skip
    return features
