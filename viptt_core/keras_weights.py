"""The authors' released weights, Keras 2 HDF5 files, put into a ViPTTNet with VGG16 and LSTM.

Names in such a file depend on the run that wrote it (`conv3d_2`, `lstm_1`), so weights are matched by order, kind
and shape. Everything is checked before the first copy. A file from the internet is not trusted: nothing outside it
is opened, nothing is unpacked, and no weight is read whose shape is not the one that must be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from viptt_core.backbones import BACKBONES
from viptt_core.errors import COPY_AGAIN, DataError
from viptt_core.files import kind_of
from viptt_core.model import check_architecture

_OTHER_LAYOUT = "Load it with Keras 2 (tf_keras) and save it by model.save('name.h5')."
_OTHER_NETWORK = "Give the weights of a ViPTT-Net with VGG16 and LSTM, as the authors released them."


def load_keras_weights(model: nn.Module, path: str | PathLike) -> nn.Module:
    """Put a Keras file's weights into a model, all of them or none.

    Args:
        model: A ViPTTNet with backbone "vgg16" and temporal "lstm", with the sizes that
            `read_keras_architecture` finds.
        path: A whole model or only its weights, saved as HDF5 by Keras 2; float16, 32 or 64.

    Raises:
        DataError: the file is damaged, of another kind, or of another network than the model; names the first weight
            or setting that does not fit. The model is as it was.
    """
    with _opened(path) as file:
        weights, found = _matched(file, path)
        check_architecture(found, model.architecture, Path(path))
        model.load_state_dict({name: _tensor(*weight, path) for name, weight in weights.items()})
    return model


def read_keras_architecture(path: str | PathLike) -> dict[str, str | int]:
    """What `ViPTTNet.architecture` must be for a Keras file's weights to fit, from shapes alone."""
    with _opened(path) as file:
        return _matched(file, path)[1]


# --- ViPTT-Net's weights among those of the file ----------------------------------------------------------------------


def _matched(file: h5py.File, path) -> tuple[dict[str, tuple[str, h5py.Dataset]], dict[str, str | int]]:
    """The file's weights (name there, array) by their names in our model, and the architecture they make up."""
    weights = list(_weights(file, path))
    # A size is the last axis of the first weight that has it; the shapes of all weights are compared below.
    gates, features, classes = (weights[i][1].shape[-1] if i < len(weights) else 0 for i in (28, 31, 33))
    expected = _expected_shapes(gates // 4, features, classes)
    for number, ((ours, wanted), (name, data)) in enumerate(zip(expected.items(), weights, strict=False), 1):
        kind = re.sub(r"(_\d+)?(:\d+)?$", "", name.rpartition("/")[2])  # without ":0" and a number
        if kind != _kind(ours) or data.shape != wanted:
            what = f"does not fit ViPTT-Net: weight {number}, {_shown(name)}, has the shape {data.shape}; expected is"
            raise DataError(f"{what} {ours} ({_kind(ours)}), of shape {wanted}.", path=path, remedy=_OTHER_NETWORK)
    if len(weights) != len(expected):
        lacking = [f"{name} is missing" for name in list(expected)[len(weights) :]]
        surplus = [f"{_shown(name)} is one too many" for name, _ in weights[len(expected) :]]
        what = f"holds {len(weights)} weights, ViPTT-Net has {len(expected)}: {(lacking or surplus)[0]}."
        raise DataError(what, path=path, remedy=_OTHER_NETWORK)
    sizes = {"hidden_size": gates // 4, "feature_size": features, "num_classes": classes}
    return dict(zip(expected, weights, strict=True)), {"backbone": "vgg16", "temporal": "lstm"} | sizes


def _expected_shapes(hidden: int, features: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Shape in Keras of each weight of our model, in the order in which Keras saves them."""
    shapes: dict[str, tuple[int, ...]] = {"stem.weight": (1, 1, 1, 1, 3), "stem.bias": (3,)}
    for name, tensor in BACKBONES["vgg16"].build(None).state_dict().items():
        shapes[f"backbone.{name}"] = tuple(tensor.permute(2, 3, 1, 0).shape if tensor.ndim == 4 else tensor.shape)
    return shapes | {
        "temporal.weight_ih_l0": (BACKBONES["vgg16"].width, 4 * hidden),
        "temporal.weight_hh_l0": (hidden, 4 * hidden),
        "temporal.bias_ih_l0": (4 * hidden,),
        "feature.weight": (hidden, features),
        "feature.bias": (features,),
        "classifier.weight": (features, classes),
        "classifier.bias": (classes,),
    }


def _kind(ours: str) -> str:
    """Keras's word for a weight of our model."""
    return "bias" if "bias" in ours else "recurrent_kernel" if "_hh_" in ours else "kernel"


def _tensor(name: str, data: h5py.Dataset, path) -> torch.Tensor:
    """Float32 values in PyTorch's order of axes.

    Keras's kernels end in (in, out), PyTorch's start with (out, in). Both have the gates in the order i, f, c, o.
    """
    with np.errstate(over="ignore"):  # of float64 values, which then are not finite
        values = data[()].astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"holds NaN or infinite values in {_shown(name)}.", path=path, remedy=COPY_AGAIN)
    if values.ndim == 5:  # the stem: a 3D convolution of one frame, here a 2D one
        values = values[0]
    if values.ndim > 1:
        values = np.ascontiguousarray(np.moveaxis(values, (-1, -2), (0, 1)))
    return torch.from_numpy(values)


# --- Reading the file: what holds for any network ---------------------------------------------------------------------


@contextmanager
def _opened(path: str | PathLike) -> Iterator[h5py.File]:
    """Open an HDF5 file; whatever is wrong with it, also inside the `with` block, becomes a DataError."""
    kind = kind_of(Path(path)) or "an HDF5 file"
    if "HDF5" not in kind:
        raise DataError(f"is {kind}, not an HDF5 file.", path=path, remedy=_OTHER_LAYOUT)
    try:
        with h5py.File(path, "r", locking=False) as file:  # a lock would need a disk that can be written
            yield file
    except DataError:
        raise
    except Exception as error:  # the type depends on where the damage is: OSError, KeyError, RuntimeError, ValueError
        what = f"is missing, may not be read, or is damaged ({type(error).__name__}: {error})."
        raise DataError(what, path=path, remedy=f"Check the path. {COPY_AGAIN}") from error


def _weights(file: h5py.File, path) -> Iterator[tuple[str, h5py.Dataset]]:
    """Name and array of the weights of all layers in Keras's order, each checked but not read."""
    held = {}
    file.visititems(held.__setitem__)  # no links: they can lead to other files
    if "layers" in held or "_layer_checkpoint_dependencies" in held:
        raise DataError("is of the newer layout .weights.h5.", path=path, remedy=_OTHER_LAYOUT)
    root = held.get("model_weights", file)  # else weights only
    for layer, group in _listed(root, "layer_names", held, path):
        for name, data in _listed(group, "weight_names", held, path):
            is_float = isinstance(data, h5py.Dataset) and data.dtype.kind == "f"
            if not is_float or data.external or not data.id.get_offset():  # zeros would be made up without a place
                what = f"holds at {_shown(f'{layer}/{name}')} no float array in one piece within the file."
                raise DataError(what, path=path, remedy=_OTHER_LAYOUT)
            yield f"{layer}/{name}", data


def _listed(group: h5py.Group, attribute: str, held: dict, path) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """The objects in a group whose names an attribute of it lists, by these names.

    Keras splits lists of more than 64,512 bytes into several attributes; those of ViPTT-Net are far shorter.
    """
    if attribute not in group.attrs:
        what = f"holds no Keras model: it has no list {attribute} at {_shown(group.name)}."
        raise DataError(what, path=path, remedy=_OTHER_LAYOUT)
    for stored in group.attrs[attribute]:
        name = stored.decode() if isinstance(stored, bytes) else str(stored)
        if (place := f"{group.name}/{name}".strip("/")) not in held:
            what = f"lists {_shown(name)}, which it does not hold in {_shown(group.name)}."
            raise DataError(what, path=path, remedy=COPY_AGAIN)
        yield name, held[place]


def _shown(name) -> str:
    """A name from the file, short and without control characters."""
    text = str(name)
    return repr(text if len(text) <= 120 else f"{text[:117]}...")
