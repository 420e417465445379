"""The authors' Keras files: the same function as Keras computes, and every other file refused before any copy."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from keras_reference import keras_layers, keras_probabilities, write_keras_file

from viptt_core.errors import DataError
from viptt_core.keras_weights import load_keras_weights, read_keras_architecture
from viptt_core.model import ViPTTNet

FIVE = {"backbone": "vgg16", "temporal": "lstm", "hidden_size": 256, "feature_size": 1024, "num_classes": 5}


def two_clips():
    """Clips [2, 3, 32, 32], brightness ramps and noise, of both signs: features of the two differ clearly."""
    y, x = np.mgrid[:32, :32] / 31
    noise = np.random.default_rng(1).standard_normal((3, 32, 32))
    return np.stack([8 * np.stack([x, y, x * y]) - 4, -5 * noise]).astype(np.float32)


def probabilities(model, clips):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(clips)).softmax(dim=1).numpy()


@pytest.fixture(scope="module")
def layers():
    return keras_layers(num_classes=5)


@pytest.fixture(scope="module")
def model():
    return ViPTTNet(5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path):
    """A place for a file of 60 MB, which pytest would keep."""
    yield tmp_path / "weights.h5"
    shutil.rmtree(tmp_path, ignore_errors=True)


def refused(model, path, match):
    """Loading raises, names the file and a remedy, and leaves the model as it was."""
    before = [tensor.sum() for tensor in model.state_dict().values()]  # a copy would live as long as the traceback
    with pytest.raises(DataError, match=match) as caught:
        load_keras_weights(model, path)
    assert caught.value.remedy and caught.value.path == path
    assert before == [tensor.sum() for tensor in model.state_dict().values()]


def changed(layers, name, change):
    """Layers with `change(values)` in place of one weight, found by a part of its name; None leaves it out."""
    full = [weight for _, weights in layers for weight, _ in weights if name in weight][0]
    new = [(layer, [(w, change(v) if w == full else v) for w, v in weights]) for layer, weights in layers]
    return [(layer, [(w, v) for w, v in weights if v is not None]) for layer, weights in new]


# --- The same function; as Keras's definitions say it: test_golden.py ---------------------------


@pytest.mark.slow
@pytest.mark.skipif(not all(map(importlib.util.find_spec, ("tensorflow", "tf_keras"))), reason="needs the extra keras")
def test_a_model_saved_by_keras_predicts_what_keras_predicts(path):
    folder, clips = path.parent, two_clips()
    np.save(folder / "clips.npy", clips)
    # In a process of its own: TensorFlow and PyTorch bring libraries that need not get along.
    code = "import sys, numpy, keras_reference as k; k.save_with_keras(sys.argv[1], numpy.load(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, folder, folder / "clips.npy"], cwd=Path(__file__).parent, check=True)
    for pooling in ("inside", "after"):
        expected = np.load(folder / f"{pooling}.npy")
        stated = keras_probabilities(keras_layers(num_classes=expected.shape[1]), clips)
        np.testing.assert_allclose(stated, expected, atol=1e-4)  # so the other tests' reference is Keras, too
        for saved in ("model", "weights"):
            file = folder / f"{pooling}_{saved}.h5"
            found = load_keras_weights(ViPTTNet(read_keras_architecture(file)["num_classes"]), file)
            np.testing.assert_allclose(probabilities(found, clips), expected, atol=1e-4)


# --- Variants of the layout -------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"suffix": "_2", "whole_model": False},
        {"suffix": "_1", "last": "dense_4", "optimizer": True},
        {"prefix": "time_distributed/vgg16/", "text": str},
    ],
    ids=str,
)
def test_names_and_layout_may_differ_from_run_to_run(path, layers, model, settings):
    write_keras_file(path, num_classes=5, **settings)
    for tensor in model.state_dict().values():  # what an earlier file left
        tensor.zero_()
    state = load_keras_weights(model, path).state_dict()
    stored = [values for _, weights in layers for _, values in weights]
    assert len(state) == len(stored) == 35
    for tensor, values in zip(state.values(), stored, strict=True):  # the same numbers, whatever their order
        assert tensor.numel() == values.size and tensor.double().sum() == pytest.approx(values.sum(dtype=float))
    assert torch.equal(state["classifier.weight"].T, torch.from_numpy(layers[-1][1][0][1]))


@pytest.mark.parametrize("dtype", ["<f2", ">f8"])
def test_other_float_types_are_read_as_float32(path, layers, model, dtype):
    write_keras_file(path, layers=[(n, [(w, v.astype(dtype)) for w, v in weights]) for n, weights in layers])
    state = load_keras_weights(model, path).state_dict()
    for name, values in (("temporal.weight_ih_l0", layers[4][1][0][1]), ("feature.weight", layers[5][1][0][1])):
        assert state[name].dtype == torch.float32
        np.testing.assert_array_equal(state[name], values.astype(dtype).astype(np.float32).T)


def test_the_sizes_of_a_fitting_model_are_read_off_the_file(path):
    write_keras_file(path, num_classes=5, holes=True)
    assert read_keras_architecture(path) == FIVE
    write_keras_file(path, num_classes=7, hidden_size=6, feature_size=9, holes=True)
    found = read_keras_architecture(path)
    assert found == FIVE | {"hidden_size": 6, "feature_size": 9, "num_classes": 7}
    sizes = {name: found[name] for name in ("num_classes", "hidden_size", "feature_size")}
    assert load_keras_weights(ViPTTNet(**sizes), path).architecture == found


# --- Refusals: another network ----------------------------------------------------------------


def test_other_sizes_are_refused_with_the_sizes(path, model):
    write_keras_file(path, num_classes=10, hidden_size=128, holes=True)
    refused(model, path, "weights.h5: is of another model: .*hidden_size 128 instead of 256.*Build")


@pytest.mark.parametrize("settings", [{"backbone": "small"}, {"temporal": "mean"}], ids=str)
def test_another_kind_of_model_is_refused(path, settings):
    write_keras_file(path, num_classes=5, holes=True)
    refused(ViPTTNet(5, **settings), path, "(vgg16|lstm) instead of (small|mean)")


def grown(*shape):
    return lambda values: np.zeros(shape, values.dtype)


@pytest.mark.parametrize(
    "name, change, match",
    [
        ("conv3d/kernel", grown(3, 3, 1, 3), r"weight 1, 'conv3d/.*\(3, 3, 1, 3\).*stem.weight .*\(1, 1, 1, 1, 3\)"),
        ("block5_conv3/bias", grown(256), r"weight 28, .*block5_conv3/bias.*\(256,\).*of shape \(512,\)"),
        ("cell/kernel", grown(1536, 1024), r"\(1536, 1024\).*temporal.weight_ih_l0 .kernel., of shape \(512, 1024\)"),
        ("cell/recurrent", grown(255, 1024), r"\(255, 1024\).*hh_l0 .recurrent_kernel., of shape \(256, 1024\)"),
        ("cell/bias", grown(2, 1024), r"\(2, 1024\).*temporal.bias_ih_l0"),
        ("final_output/kernel", grown(512, 5), r"\(512, 5\).*classifier.weight .kernel., of shape \(1024, 5\)"),
        ("block2_conv1/bias", lambda _: None, r"weight 8, .*block2_conv2/kernel.*backbone.5.bias"),
        ("final_output/bias", lambda _: None, "holds 34 weights, .*: classifier.bias is missing"),
    ],
)
def test_a_weight_of_another_network_is_named_with_what_was_expected(path, model, layers, name, change, match):
    write_keras_file(path, layers=changed(layers, name, change), holes=True)
    refused(model, path, f"weights.h5: .*{match}.*Give the weights of a ViPTT-Net")
    with pytest.raises(DataError, match=match):
        read_keras_architecture(path)


def test_layers_too_many_or_too_few_are_refused(path, model, layers):
    write_keras_file(path, layers=[*layers, ("dense_9", [("dense_9/kernel:0", np.zeros((5, 3), "f4"))])], holes=True)
    refused(model, path, "holds 36 weights, ViPTT-Net has 35: 'dense_9/dense_9/kernel:0' is one too many")
    write_keras_file(path, layers=layers[:-1], holes=True)
    refused(model, path, "holds 33 weights, .*: classifier.weight is missing")
    write_keras_file(path, layers=[], holes=True)
    refused(model, path, "holds 0 weights, .*: stem.weight is missing")


# --- Refusals: another or a damaged file ------------------------------------------------------


@pytest.mark.parametrize(
    "write, match",
    [
        (lambda path: torch.save({"a": torch.ones(2)}, path), "is a zip archive.*PyTorch file.*not an HDF5 file"),
        (lambda path: path.write_text("\n<!DOCTYPE html><title>Log in</title>"), "is a web page, not"),
        (lambda path: path.write_bytes(b"abcde"), "is damaged.*file signature not found"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: None, "is missing.*Check the path"),
    ],
)
def test_a_file_that_is_not_hdf5_is_named_for_what_it_is(path, model, write, match):
    write(path)
    refused(model, path, match)


def newer_layout(file):
    del file["model_weights"]
    file.create_group("layers/dense/vars").create_dataset("0", data=np.zeros(3))


def drop_list(file):
    del file["model_weights"].attrs["layer_names"]


def drop_dataset(file):
    del file["model_weights/dense/dense/bias:0"]


def drop_layer(file):
    del file["model_weights/lstm"]


def list_numbers(file):
    file["model_weights"].attrs["layer_names"] = np.arange(3)


def bad_utf8(file):
    file["model_weights"].attrs["layer_names"] = np.array([b"\xff\xfe"])


def endless_names(file):
    del file["model_weights"].attrs["layer_names"]
    file["model_weights"].attrs["layer_names"] = np.array([b"a" * 5000] * 3)


@pytest.mark.parametrize(
    "damage, match",
    [
        (newer_layout, "is of the newer layout .weights.h5.*model.save"),
        (drop_list, "no Keras model: it has no list layer_names"),
        (drop_dataset, "lists 'dense/bias:0', which it does not hold in '/model_weights/dense'"),
        (drop_layer, "lists 'lstm', which it does not hold"),
        (list_numbers, "lists '0', which it does not hold"),
        (bad_utf8, "damaged .UnicodeDecodeError"),
        (endless_names, r"lists 'a{50,120}\.\.\.', which it does not hold"),
    ],
)
def test_a_file_that_lacks_a_part_is_refused_with_the_part(path, model, layers, damage, match):
    write_keras_file(path, layers=layers, holes=True)
    with h5py.File(path, "r+") as file:
        damage(file)
    refused(model, path, match)


def replace(create):
    """Put another object in the place of the last layer's bias."""

    def damage(file):
        group = file["model_weights/final_output/final_output"]
        del group["bias:0"]
        create(group, "bias:0")

    return damage


NO_ARRAY = "holds at '.*bias:0' no float array in one piece within the file"


def virtual(group, name):
    layout = h5py.VirtualLayout((5,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "bias", (5,))
    group.create_virtual_dataset(name, layout)


def outside(group, name):
    group.create_dataset(name, (5,), "f4", external=[("other.h5", 0, 20)])


@pytest.mark.parametrize(
    "create, match",
    [
        (lambda g, n: g.__setitem__(n, h5py.ExternalLink("other.h5", "/bias")), "lists .*bias:0', which it does not"),
        (lambda g, n: g.__setitem__(n, h5py.SoftLink("/model_weights/dense")), "lists .*bias:0', which it does not"),
        (virtual, NO_ARRAY),
        (outside, NO_ARRAY),
        (lambda g, n: g.create_dataset(n, (5,), "f4", chunks=(5,), compression="gzip"), NO_ARRAY),
        (lambda g, n: g.create_dataset(n, (5,), "f4"), NO_ARRAY),  # HDF5 would read zeros
        (lambda g, n: g.create_dataset(n, data=np.arange(5)), NO_ARRAY),
        (lambda g, n: g.create_group(n), NO_ARRAY),
        (lambda g, n: g.create_dataset(n, data=np.array([0, 1, np.nan, 0, 0], "f4")), "NaN or infinite .*bias:0"),
    ],
)
def test_a_weight_that_is_not_plain_numbers_in_the_file_is_refused(path, model, layers, create, match):
    with h5py.File(path.parent / "other.h5", "w") as other:
        other["bias"] = np.ones(5, "f4")
    write_keras_file(path, layers=layers, holes=True)
    with h5py.File(path, "r+") as file:
        replace(create)(file)
    refused(model, path, match)


def test_a_truncated_file_is_refused_wherever_it_ends(path, model, layers):
    write_keras_file(path, layers=layers, holes=True)
    size = path.stat().st_size
    for length in sorted({size - 1, size // 2, 5000, 2048, 100, 97, 96, 95, 48, 20, 9, 8, 7, 1}, reverse=True):
        os.truncate(path, length)
        with pytest.raises(DataError, match=f"{path}.*is damaged"):
            load_keras_weights(model, path)


@pytest.mark.filterwarnings("error")
def test_damage_anywhere_is_refused_or_harmless(path, model, layers):
    """Bytes outside the weights' values changed at random: a DataError, or the same structure still."""
    write_keras_file(path, layers=layers, holes=True)
    content, found = structure(path), []
    rng = np.random.default_rng(0)
    with open(path, "r+b", buffering=0) as file:
        for case in range(120):
            position, length = int(rng.choice(content)), int(rng.choice([1, 1, 4, 8]))
            file.seek(position)
            before = file.read(length)
            file.seek(position)
            file.write(rng.bytes(len(before)))
            try:
                found.append(read_keras_architecture(path))
                if case % 25 == 0:
                    load_keras_weights(model, path)
            except DataError:
                found.append(None)
            file.seek(position)
            file.write(before)
    assert found.count(None) > 30 and found.count(FIVE) > 10


def structure(path):
    """Positions of a file's bytes that are not values of a weight and not zero (most of those are unused)."""
    values = np.zeros(path.stat().st_size, bool)

    def mark(_, item):
        if isinstance(item, h5py.Dataset):
            start = item.id.get_offset()
            values[start : start + item.id.get_storage_size()] = True

    with h5py.File(path) as file:
        file.visititems(mark)
    return np.flatnonzero(~values & (np.fromfile(path, np.uint8) != 0))
