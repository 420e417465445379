"""ImageNet weights of VGG16, as torchvision publishes them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from viptt_core.errors import DataError
from viptt_core.presets import check_choice


def imagenet_features(name: str) -> dict[str, Tensor]:
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
