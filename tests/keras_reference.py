"""ViPTT-Net as Keras defines it: an HDF5 file in Keras 2's layout, and the network's arithmetic in NumPy, float64.

Written from Keras's definitions of its layers, without the package under test.
"""

from __future__ import annotations

import h5py
import numpy as np

WIDTHS = {"block1": (64, 64), "block2": (128, 128), "block3": (256,) * 3, "block4": (512,) * 3, "block5": (512,) * 3}


def keras_layers(*, num_classes, seed=0, hidden_size=256, feature_size=1024, suffix="", prefix="", last="final_output"):
    """Random weights as a list of layers: (name, [(name of the weight, float32 array), ...]).

    Scales keep signals alive through all layers: features and logits of about one, gates that are not saturated.
    `suffix` is what a second model in the same Python process gets ("_1"), `prefix` what some versions put in front
    of the names of nested weights.
    """
    rng = np.random.default_rng(seed)

    def layer(name, kernel, scale, **others):
        weights = {"kernel": rng.standard_normal(kernel, np.float32) * np.float32(scale)} | others
        weights["bias"] = rng.uniform(-0.3, 0.3, others["recurrent_kernel"].shape[1] if others else kernel[-1])
        return [(f"{name}/{kind}:0", np.asarray(values, np.float32)) for kind, values in weights.items()]

    convolutions, before = [], 3
    for block, widths in WIDTHS.items():
        for number, width in enumerate(widths, 1):
            name = f"{prefix}{block}_conv{number}"
            convolutions += layer(name, (3, 3, before, width), (2 / (9 * before)) ** 0.5)
            before = width
    recurrent = rng.standard_normal((hidden_size, 4 * hidden_size)) / hidden_size**0.5
    lstm = layer(
        f"lstm{suffix}/lstm_cell{suffix}", (before, 4 * hidden_size), 1.5 / before**0.5, recurrent_kernel=recurrent
    )
    return [
        (f"input{suffix or '_1'}", []),
        (f"conv3d{suffix}", layer(f"conv3d{suffix}", (1, 1, 1, 1, 3), 1.5)),
        (f"time_distributed{suffix}", convolutions),
        (f"time_distributed{suffix}_pooling", []),
        (f"lstm{suffix}", lstm),
        (f"dense{suffix}", layer(f"dense{suffix}", (hidden_size, feature_size), 4 / hidden_size**0.5)),
        (last, layer(last, (feature_size, num_classes), 4 / feature_size**0.5)),
    ]


def write_keras_file(
    path,
    *,
    num_classes=5,
    seed=0,
    layers=None,
    whole_model=True,
    optimizer=False,
    text=bytes,
    holes=False,
    **settings,
):
    """Write a file as Keras 2 does and return the layers in it.

    Args:
        path: File to write.
        num_classes, seed, **settings: Of `keras_layers`, unless `layers` are given.
        whole_model: As `model.save`; else as `model.save_weights`.
        optimizer: Add a group of an optimiser's state.
        text: bytes for fixed-length names, as older h5py wrote them, or str.
        holes: Leave large weights as holes in the file, read as zeros: for tests of the layout; takes no disk.
    """
    layers = keras_layers(num_classes=num_classes, seed=seed, **settings) if layers is None else layers
    allocated = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    allocated.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    allocated.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        if whole_model:
            file.attrs["model_config"], file.attrs["training_config"] = "{}", "{}"
        root.attrs["backend"], root.attrs["keras_version"] = "tensorflow", "2.4.0"
        _write_names(root, "layer_names", [name for name, _ in layers], text)
        for name, weights in layers:
            group = root.create_group(name)
            _write_names(group, "weight_names", [name for name, _ in weights], text)
            for weight, values in weights:
                if holes and values.nbytes > 10_000:
                    group.create_dataset(weight, values.shape, values.dtype, dcpl=allocated)
                else:
                    group.create_dataset(weight, data=values)
        if optimizer:
            group = file.create_group("optimizer_weights")
            _write_names(group, "weight_names", ["SGD/iter:0"], text)
            group.create_dataset("SGD/iter:0", data=np.int64(7))
    return layers


def _write_names(group, attribute, names, text):
    # An empty list is float64: NumPy's idea of it.
    group.attrs[attribute] = np.array([name.encode() for name in names]) if text is bytes or not names else names


def save_with_keras(folder, clips):
    """Build the authors' model in tf_keras, with the average pooling inside VGG16 and after it, and save it.

    Writes into `folder`, for each pooling ("inside", "after"): <pooling>_model.h5, <pooling>_weights.h5, and
    <pooling>.npy with Keras's own predictions [B, K] for `clips` [B, T, H, W]; K is 5 inside, 10 after.
    """
    import tf_keras

    make = tf_keras.layers
    for pooling, num_classes in (("inside", 5), ("after", 10)):
        pictures = tf_keras.Input((*clips.shape[1:], 1))
        vgg16 = tf_keras.applications.VGG16(
            include_top=False,
            weights=None,
            input_shape=(*clips.shape[2:], 3),
            pooling="avg" if pooling == "inside" else None,
        )
        x = make.TimeDistributed(vgg16)(make.Conv3D(3, 1)(pictures))
        if pooling == "after":
            x = make.TimeDistributed(make.GlobalAveragePooling2D())(x)
        x = make.Dense(1024, activation="relu")(make.LSTM(256)(x))
        model = tf_keras.Model(pictures, make.Dense(num_classes, activation="softmax", name="final_output")(x))
        layers = keras_layers(num_classes=num_classes)
        # Keras's own start gives nearly uniform predictions, which would prove little.
        model.set_weights([values for _, named in layers for _, values in named])
        vgg16.trainable = pooling == "after"  # the authors froze it in their first stage
        model.compile("sgd", "categorical_crossentropy")
        model.save(f"{folder}/{pooling}_model.h5")
        model.save_weights(f"{folder}/{pooling}_weights.h5")
        np.save(f"{folder}/{pooling}.npy", model.predict(clips[..., None], verbose=0))


def keras_probabilities(layers, clips):
    """What the network of `keras_layers` predicts for clips [B, T, H, W]: float64 [B, K]."""
    weights = [values.astype(np.float64) for _, named in layers for _, values in named]
    stem, stem_bias = weights[:2]
    convolutions, (kernel, recurrent, gate_bias, dense, dense_bias, last, last_bias) = weights[2:-7], weights[-7:]
    batch, frames, height, width = clips.shape
    pictures = clips[..., None].astype(np.float64) @ stem[0, 0, 0] + stem_bias  # [B, T, H, W, 3]
    x = pictures.reshape(batch * frames, height, width, 3)
    position = 0
    for widths in WIDTHS.values():
        for _ in widths:
            x = np.maximum(_convolve(x, convolutions[position]) + convolutions[position + 1], 0)
            position += 2
        x = _pool(x)
    features = x.mean(axis=(1, 2)).reshape(batch, frames, -1)  # global average pooling
    hidden = cell = np.zeros((batch, len(recurrent)))
    for t in range(frames):
        i, f, c, o = np.split(features[:, t] @ kernel + hidden @ recurrent + gate_bias, 4, axis=1)
        cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(c)
        hidden = _sigmoid(o) * np.tanh(cell)
    scores = np.maximum(hidden @ dense + dense_bias, 0) @ last + last_bias
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _convolve(x, kernel):
    """Conv2D, padding 'same': each of the nine positions of the kernel is one matrix product."""
    _, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(padded[:, r : r + height, c : c + width] @ kernel[r, c] for r in range(3) for c in range(3))


def _pool(x):
    """MaxPooling2D 2x2, stride 2, padding 'valid': an odd last row or column is left out."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))
