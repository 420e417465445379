"""Pretrained weights of the backbones (ImageNet; Kinetics for a 3D one), as torchvision publishes them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from viptt_core.backbones import BACKBONES
from viptt_core.errors import DataError
from viptt_core.presets import check_choice
from viptt_core.sources.download import download, verify


def imagenet_features(name: str, backbone: str = "vgg16") -> dict[str, Tensor]:
    """Pretrained weights of a backbone without its head: downloaded once, checksum compared at every use.

    torchvision publishes the first eight digits of the SHA-256 in the file's name.

    Args:
        name: torchvision's, one of the backbone's in `BACKBONES`.
        backbone: Whose weights.

    Returns:
        Tensors under the backbone's own names.

    Raises:
        SettingError: the backbone has no weights of this name.
        DataError: they cannot be had, are damaged, or hold values that are not finite.
        StorageError: they cannot be written.
    """
    from torchvision.models import get_model_weights

    check_choice("backbone", backbone, BACKBONES)
    facts = BACKBONES[backbone]
    check_choice("backbone_weights", name, facts.weights)
    url = get_model_weights(backbone)[name].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    checksum = f"sha256:{path.stem.rsplit('-', 1)[1]}"
    if path.is_file():
        verify(path, checksum)
    else:
        try:
            download(url, path, checksum=checksum)
        except DataError as error:
            raise DataError(
                f"{backbone} weights {name} could not be downloaded ({error}).",
                path=url,
                remedy=f"Connect to the network, or put this file into {path.parent} (TORCH_HOME moves that folder).",
            ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # refuses anything but tensors
        features = {
            key.removeprefix(facts.prefix): value for key, value in state.items() if not key.startswith(facts.head)
        }
        finite = all(tensor.isfinite().all() for tensor in features.values())
    except Exception as error:  # of many types; PyTorch's words even advise to read what it refuses here
        raise DataError(
            f"holds something else than weights ({type(error).__name__}).",
            path=path,
            remedy="Do not open it by other means; delete it, and start again.",
        ) from error
    if not finite:
        raise DataError(
            f"{backbone} weights {name} hold values that are not finite.",
            path=path,
            remedy=f"Take {facts.weights[-1]}.",
        )
    return features
