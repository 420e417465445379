"""The authors' released weights, Keras 2 HDF5 files, put into a ViPTTNet with VGG16 and LSTM.

Names in such a file depend on the run that wrote it (`conv3d_2`, `lstm_1`), so weights are matched by order, kind
and shape. Everything is checked before the first copy. A file from the internet is not trusted: nothing outside it
is opened, nothing is unpacked, and no weight is read whose shape is not the one that must be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from viptt_core.errors import DataError, SettingError
from viptt_core.model import plain_module

_VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of each block
_HIDDEN, _GATES, _FEATURES, _CLASSES = "hidden", "4 x hidden", "features", "classes"  # sizes the file decides
_MOST_NAMES = 64  # in one list; ViPTT-Net has 35 weights, so a longer list is of another network
_LONGEST_NAME = 1000  # bytes; also bounds what is read of a list of names
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OTHER_FILES = {  # first bytes -> what such a file is
    b"PK": "a zip archive, such as a Keras 3 .keras file or a PyTorch file,",
    b"\x80": "a Python pickle,",
    b"<": "a web page,",
    b"version https://git-lfs": "a Git LFS pointer, not the file it stands for,",
}
_COPY_AGAIN = "Copy or download the file again."
_OTHER_LAYOUT = "Load it with Keras 2 (tf_keras) and save it by model.save('name.h5')."
_OTHER_NETWORK = "Give the weights of a ViPTT-Net with VGG16 and LSTM, as the authors released them."


def load_keras_weights(model: nn.Module, path: str | PathLike) -> nn.Module:
    """Put a Keras file's weights into a model, all of them or none.

    Args:
        model: A ViPTTNet with backbone "vgg16" and temporal "lstm", with the sizes that
            `read_keras_architecture` finds.
        path: A whole model or only its weights, saved as HDF5 by Keras 2; float16, 32 or 64.

    Returns:
        The same model.

    Raises:
        SettingError: the model has another backbone or recurrent layer.
        DataError: the file is damaged, of another kind, or of another network or number of classes; names the first
            weight that does not fit. The model is as it was.
    """
    net = plain_module(model)
    if (net.backbone_name, net.temporal_name) != ("vgg16", "lstm"):
        raise SettingError(
            f"Keras weights are of VGG16 and LSTM, the model has {net.backbone_name} and {net.temporal_name}.",
            remedy="Build it with backbone='vgg16' and temporal='lstm'.",
        )
    with _opened(path) as file:
        weights, found = _fitted(file, path)
        for name, wanted in net.architecture.items():
            if found[name] != wanted:
                what = f"{found[name]} classes" if name == "num_classes" else f"a {name} of {found[name]}"
                raise DataError(
                    f"holds {what}, the model has {wanted}.",
                    path=path,
                    kind="another size",
                    remedy=f"Build the model with {name}={found[name]}.",
                )
        arrays = {name: weight.values(path) for name, weight in weights.items()}
    net.load_state_dict({name: torch.from_numpy(values) for name, values in arrays.items()})
    return model


def read_keras_architecture(path: str | PathLike) -> dict[str, str | int]:
    """What `ViPTTNet.architecture` must be for a Keras file's weights to fit, from shapes alone.

    Raises:
        DataError: as `load_keras_weights`, but for values that are not finite.
    """
    with _opened(path) as file:
        return _fitted(file, path)[1]


@dataclass(frozen=True)
class _Weight:
    """A weight in the file whose values lie there as Keras stores them."""

    name: str  # as the file has it
    data: h5py.Dataset

    @property
    def kind(self) -> str:
        """kernel, recurrent_kernel or bias: the last part of the name, without ":0" and a number."""
        return re.sub(r"(_\d+)?(:\d+)?$", "", self.name.rpartition("/")[2])

    def values(self, path) -> np.ndarray:
        """Read float32 values, in PyTorch's order of axes.

        Keras's kernels end in (in, out), PyTorch's start with (out, in). Both have the gates in the order i, f, c, o.
        """
        with np.errstate(over="ignore"):  # of float64 values, which then are not finite
            values = self.data[()].astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError(
                f"holds NaN or infinite values in {_shown(self.name)}.",
                path=path,
                remedy=_COPY_AGAIN,
                kind="not finite",
            )
        if values.ndim == 5:  # the stem: a 3D convolution of one frame, here a 2D one
            values = values[0]
        return values if values.ndim == 1 else np.ascontiguousarray(np.moveaxis(values, (-1, -2), (0, 1)))


@dataclass(frozen=True)
class _Place:
    """A weight that must be in the file, in Keras's shape, and where it goes."""

    name: str  # in the model's state_dict
    layer: str  # for messages
    kind: str
    shape: tuple[int | str, ...]  # a str stands for a size the file decides


def _places() -> Iterator[_Place]:
    """All weights in the order in which Keras saves them."""
    yield _Place("stem.weight", "the 1x1x1 stem", "kernel", (1, 1, 1, 1, 3))
    yield _Place("stem.bias", "the 1x1x1 stem", "bias", (3,))
    index, before = 0, 3
    for block, (channels, n_convolutions) in enumerate(_VGG16_BLOCKS, 1):
        for number in range(1, n_convolutions + 1):
            layer = f"VGG16's block{block}_conv{number}"
            yield _Place(f"backbone.{index}.weight", layer, "kernel", (3, 3, before, channels))
            yield _Place(f"backbone.{index}.bias", layer, "bias", (channels,))
            index, before = index + 2, channels  # past the activation
        index += 1  # past the pooling
    yield _Place("temporal.weight_ih_l0", "the LSTM", "kernel", (before, _GATES))
    yield _Place("temporal.weight_hh_l0", "the LSTM", "recurrent_kernel", (_HIDDEN, _GATES))
    yield _Place("temporal.bias_ih_l0", "the LSTM", "bias", (_GATES,))
    yield _Place("feature.weight", "the dense layer before the last", "kernel", (_HIDDEN, _FEATURES))
    yield _Place("feature.bias", "the dense layer before the last", "bias", (_FEATURES,))
    yield _Place("classifier.weight", "the last layer", "kernel", (_FEATURES, _CLASSES))
    yield _Place("classifier.bias", "the last layer", "bias", (_CLASSES,))


def _fitted(file: h5py.File, path) -> tuple[dict[str, _Weight], dict[str, str | int]]:
    """The file's weights by their place in the model, and the architecture they make up."""
    places, weights, sizes = list(_places()), list(_weights(file, path)), {}
    for number, (place, weight) in enumerate(zip(places, weights, strict=False), 1):
        shape = weight.data.shape
        if weight.kind != place.kind or not _bind(place.shape, shape, sizes):
            expected = ", ".join(str(sizes.get(size, size)) for size in place.shape)
            _refuse(
                f"does not fit ViPTT-Net: weight {number}, {_shown(weight.name)}, has the shape {shape}; expected "
                f"is the {place.kind} of {place.layer}, of shape ({expected}).",
                path,
            )
    if len(weights) < len(places):
        missing = places[len(weights)]
        _refuse(f"holds {len(weights)} weights; the next, the {missing.kind} of {missing.layer}, is missing.", path)
    if len(weights) > len(places):
        extra = weights[len(places)]
        _refuse(
            f"holds {len(weights)} weights, ViPTT-Net has {len(places)}; the first one too many is "
            f"{_shown(extra.name)}, of shape {extra.data.shape}.",
            path,
        )
    _check_order(weights, path)
    architecture = {
        "backbone": "vgg16",
        "temporal": "lstm",
        "hidden_size": sizes[_HIDDEN],
        "feature_size": sizes[_FEATURES],
        "num_classes": sizes[_CLASSES],
    }
    return {place.name: weight for place, weight in zip(places, weights, strict=True)}, architecture


def _bind(expected: tuple[int | str, ...], shape: tuple[int, ...], sizes: dict[str, int]) -> bool:
    """Whether a shape is as expected; a size met for the first time is taken into `sizes`."""
    if len(shape) != len(expected):
        return False
    for wanted, found in zip(expected, shape, strict=True):
        if sizes.get(wanted, wanted) == found:
            continue
        if not isinstance(wanted, str) or wanted in sizes or (wanted == _GATES and found % 4):
            return False
        sizes[wanted] = found
        if wanted == _GATES:
            sizes[_HIDDEN] = found // 4
    return True


def _check_order(weights: list[_Weight], path) -> None:
    """Where VGG16's own names stand in the file, they must rise: several of its kernels have the same shape.

    Keras saves what was trained before what was frozen; with single layers frozen the order is another.
    """
    found = [re.findall(r"block(\d+)_conv(\d+)", weight.name) for weight in weights]
    numbers = [tuple(map(int, matches[-1])) for matches in found if matches]
    for before, after in zip(numbers, numbers[1:], strict=False):
        if after < before:
            raise DataError(
                "has block{}_conv{} of VGG16 after block{}_conv{}.".format(*after, *before),
                path=path,
                kind="another order",
                remedy="Set trainable=True on all layers in Keras and save the model again.",
            )


def _refuse(what: str, path) -> None:
    raise DataError(what, path=path, remedy=_OTHER_NETWORK, kind="another network")


# --- Reading the file: what holds for any network ----------------------------------------------


@contextmanager
def _opened(path: str | PathLike) -> Iterator[h5py.File]:
    """Open an HDF5 file; whatever is wrong with it, also inside the `with` block, becomes a DataError."""
    _check_signature(path)
    try:
        with h5py.File(path, "r", locking=False) as file:  # a lock would need a disk that can be written
            yield file
    except DataError:
        raise
    except Exception as error:  # the type depends on where the damage is: OSError, KeyError, RuntimeError, ValueError
        what = "truncated" if "truncated file" in str(error) else "truncated or damaged"
        raise DataError(
            f"is {what} ({type(error).__name__}: {error}).", path=path, remedy=_COPY_AGAIN, kind="damaged file"
        ) from error


def _check_signature(path: str | PathLike) -> None:
    """Refuse what is no HDF5 file, by its first bytes."""
    if not Path(path).is_file():
        raise DataError("is not a file.", path=path, remedy="Check the path.", kind="missing file")
    try:
        with Path(path).open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise DataError(
            f"cannot be read ({error}).",
            path=path,
            remedy="Check its permissions and the disk.",
            kind="unreadable file",
        ) from error
    if not start:
        raise DataError("is empty (0 bytes).", path=path, remedy=_COPY_AGAIN, kind="empty file")
    if not start.startswith(_SIGNATURE):
        looks = next((text for first, text in _OTHER_FILES.items() if start.lstrip().startswith(first)), "")
        raise DataError(
            f"is {looks} not an HDF5 file.".replace("  ", " "),
            path=path,
            kind="wrong file type",
            remedy=f"Download the .h5 file itself. {_OTHER_LAYOUT}",
        )


def _weights(file: h5py.File, path) -> Iterator[_Weight]:
    """The weights of all layers in Keras's order, each checked but not read."""
    whole = _has(file, "model_weights")  # else a file of weights only
    root = _descend(file, "model_weights", path) if whole else file
    layers = _names(root, "layer_names", path)
    if layers is None:
        newer = _has(root, "layers") or _has(root, "_layer_checkpoint_dependencies")
        what = "is of the newer layout .weights.h5" if newer else "holds no Keras model: it has no list layer_names"
        raise DataError(f"{what}.", path=path, remedy=_OTHER_LAYOUT, kind="another layout")
    for layer in layers:
        group = _descend(root, layer, path)
        names = _names(group, "weight_names", path) if isinstance(group, h5py.Group) else None
        if names is None:
            raise DataError(
                f"has no list weight_names at the layer {_shown(layer)}.",
                path=path,
                remedy=_OTHER_LAYOUT,
                kind="another layout",
            )
        for name in names:
            data = _descend(group, name, path)
            _check_storage(data, f"{layer}/{name}", path)
            yield _Weight(f"{layer}/{name}", data)


def _names(group: h5py.Group, attribute: str, path) -> list[str] | None:
    """A list of names, which Keras splits into `<attribute>0`, `<attribute>1` ... where it is long; None if absent."""
    parts = [attribute]
    if not h5py.h5a.exists(group.id, attribute.encode()):
        n_parts = 0
        while n_parts <= _MOST_NAMES and h5py.h5a.exists(group.id, f"{attribute}{n_parts}".encode()):
            n_parts += 1
        parts = [f"{attribute}{number}" for number in range(n_parts)]
    names: list[str] = []
    for part in parts:
        stored = h5py.h5a.open(group.id, part.encode())
        dtype = stored.dtype
        text = h5py.check_string_dtype(dtype)
        if len(stored.shape) != 1 or (prod(stored.shape) and text is None):
            raise DataError(
                f"has no list of names in {part} at {_shown(group.name)}.",
                path=path,
                remedy=_COPY_AGAIN,
                kind="damaged file",
            )
        n_names = len(names) + stored.shape[0]
        if n_names > _MOST_NAMES:
            _refuse(
                f"is not of ViPTT-Net: {part} at {_shown(group.name)} lists {n_names} names, expected are at most "
                f"{_MOST_NAMES}.",
                path,
            )
        if text is not None and (text.length or 0) > _LONGEST_NAME:  # None: each has its own
            _refuse(f"is not of ViPTT-Net: {part} at {_shown(group.name)} has names of {text.length} bytes.", path)
        if stored.shape[0]:  # an empty list has no text type
            names += [n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs[part]]
    return names if parts else None


def _has(group: h5py.Group, name: str) -> bool:
    """Whether a link of this name exists, wherever it leads."""
    return group.id.links.exists(name.encode())


def _descend(group: h5py.Group, name: str, path) -> h5py.Group | h5py.Dataset:
    """The object at a name with slashes, by hard links only: others can lead to other files."""
    here = group
    for part in filter(None, name.split("/")):
        if not isinstance(here, h5py.Group) or not _has(here, part):
            raise DataError(
                f"lists {_shown(name)}, which it does not hold in {_shown(group.name)}.",
                path=path,
                remedy=_COPY_AGAIN,
                kind="missing weight",
            )
        if here.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise DataError(
                f"has a link at {_shown(name)} instead of the weight itself.",
                path=path,
                remedy=_OTHER_LAYOUT,
                kind="link",
            )
        here = here[part]
    return here


def _check_storage(data, name: str, path) -> None:
    """Refuse what is not a float array in one piece within the file: outside, packed or absent values."""
    what = None
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        what = "is not an array"
    elif data.dtype.kind != "f" or data.dtype.itemsize not in (2, 4, 8):
        what = f"holds {data.dtype}, not float16, float32 or float64"
    elif (layout := data.id.get_create_plist()).get_layout() != h5py.h5d.CONTIGUOUS or layout.get_external_count():
        what = "is not stored in one piece in this file, as Keras stores it"  # virtual, external, packed
    elif data.id.get_offset() is None:  # HDF5 would make up zeros; values past the end it refuses itself
        what = f"states the shape {data.shape}, but its values are not in the file"
    if what:
        raise DataError(
            f"has a weight that cannot be used: {_shown(name)} {what}.",
            path=path,
            remedy=_OTHER_LAYOUT,
            kind="unusable weight",
        )


def _shown(name) -> str:
    """A name from the file, short and without control characters."""
    text = str(name)
    return repr(text if len(text) <= 120 else f"{text[:117]}...")
