"""MedMNIST's files as they were published: which axis the slices run along, damage, sizes that are not there."""

import io
import zipfile

import numpy as np
import pytest
from files import publish
from scipy import ndimage

from viptt_core.datasets import list_dataset, load_dataset
from viptt_core.errors import DataError, DataWarning

GRID = {"frames": 4, "size": 16, "n_jobs": 1, "progress": False}
SIZES = {"train": 6, "val": 3, "test": 3}


def content(shape=(10, 10, 10), *, seed=0, n=1):
    """Noise without an empty plane; two classes."""
    rng, made = np.random.default_rng(seed), {}
    for part, size in SIZES.items():
        made[f"{part}_images"] = rng.integers(1, 256, (n * size, *shape), dtype=np.uint8)
        made[f"{part}_labels"] = (np.arange(n * size) % 2)[:, None].astype(np.uint8)
    return made


def padded(axis, *, side=12, n=20, seed=0):
    """Volumes of 4 to 7 slices along an axis, padded with empty planes to a cube."""
    made, rng = content((side,) * 3, n=n, seed=seed), np.random.default_rng(seed)
    for part in SIZES:
        for volume in made[f"{part}_images"]:
            slices, thick = np.moveaxis(volume, axis, 0), int(rng.integers(4, 8))
            first = (side - thick) // 2
            slices[:first] = slices[first + thick :] = 0
    return made


@pytest.fixture
def path(tmp_path):
    return tmp_path / "minemnist3d.npz"


@pytest.fixture
def write(path, monkeypatch):
    """Writes a file that counts as published."""

    def call(made):
        np.savez_compressed(path, **made)
        return publish(monkeypatch, path)

    return call


# --- Which axis runs from slice to slice ---


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_padded_axis_is_that_of_the_slices_and_its_padding_goes_before_resampling(write, axis):
    made = padded(axis)
    made["train_images"] = np.asfortranarray(made["train_images"])
    made["train_images"][3] = 0  # an empty volume
    with pytest.warns(DataWarning, match="train_images 3: every voxel is the same"):
        clips = load_dataset("medmnist3d", path := write(made), **GRID)
    assert clips.source["slice_axis"] == axis and clips.source["padding"] == "left out"
    for n in (0, 1, 2, 4):
        volume = np.moveaxis(made["train_images"][n], axis, 0)
        slices = volume[volume.any(axis=(1, 2))]
        expected = ndimage.zoom(slices.astype(float), (4 / len(slices), 16 / 12, 16 / 12), order=1)
        assert np.abs(clips.clips[n] - expected).max() <= 0.51
    (fault,) = list_dataset("medmnist3d", path).faults
    assert (fault.kind, fault.level) == ("padding", "note") and f"axis {axis}" in fault.what


def objects():
    """Bright boxes in the middle of nothing, as shape masks are."""
    made = content((12, 12, 12), n=5)
    for part in SIZES:
        inside = np.zeros((12, 12, 12), bool)
        inside[3:9, 2:10, 3:8] = True
        made[f"{part}_images"] *= inside
    return made


def shapes():
    """Flat ones of one grey level: what is empty around them is no padding."""
    made = content((12, 12, 12), n=5)
    for part in SIZES:
        made[f"{part}_images"][...] = 255
        made[f"{part}_images"][:, :, :, 4:] = 0
    return made


@pytest.mark.parametrize("made", [content(), objects(), shapes()], ids=["noise", "objects", "shapes"])
def test_where_no_axis_is_padded_slices_run_along_the_first_and_all_are_kept(write, made):
    clips = load_dataset("medmnist3d", path := write(made), **GRID)
    assert (clips.source["slice_axis"], clips.source["padding"]) == (0, "kept")
    assert list_dataset("medmnist3d", path).faults == ()
    first = made["train_images"][0]
    expected = ndimage.zoom(first.astype(float), (4 / len(first), 16 / len(first), 16 / len(first)), order=1)
    assert np.abs(clips.clips[0] - expected).max() <= 0.51


def test_a_real_published_file_is_read(shared_data):
    pytest.importorskip("medmnist")  # which knows the published files
    listing = list_dataset("medmnist3d", shared_data / "medmnist" / "adrenalmnist3d.npz")
    assert (listing.settings["slice_axis"], listing.settings["padding"], listing.faults) == (0, "kept", ())
    assert len(listing.items) == 1188 + 98 + 298
    assert listing.class_names[0] == "normal" and len(listing.class_names) == 2


# --- The file ---


def test_parts_classes_and_names_are_the_published_ones(write):
    clips = load_dataset("medmnist3d", write(content()), **GRID)
    assert clips.class_names == ("benign", "malignant") and len(clips) == sum(SIZES.values())
    assert clips.parts.tolist() == ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    assert clips.groups.tolist() == clips.names.tolist() and clips.names[6] == "val_0000"


def test_a_folder_must_hold_one_file(write, tmp_path):
    write(content())
    assert len(load_dataset("medmnist3d", tmp_path, **GRID)) == 12
    (tmp_path / "other.npz").write_bytes(b"")
    with pytest.raises(DataError, match="holds 2 .npz files.*Give the file itself"):
        load_dataset("medmnist3d", tmp_path, **GRID)
    with pytest.raises(DataError, match="no such file or folder"):
        load_dataset("medmnist3d", tmp_path / "none", **GRID)


@pytest.mark.parametrize("name, published", [("nodulemnist3d", "8755a7e9e05a4d9ce80a24c3e7a256f3"), ("mine", "none")])
def test_a_file_must_be_the_published_one(tmp_path, name, published):
    pytest.importorskip("medmnist")
    np.savez_compressed(tmp_path / f"{name}.npz", **content())
    with pytest.raises(DataError, match=f"its MD5 is .*, published is {published}.*Get the file again"):
        load_dataset("medmnist3d", tmp_path, **GRID)


def test_one_flipped_byte_is_the_files_own_fault(write, path, monkeypatch):
    whole = write(content()).read_bytes()
    told, most = 0, 0
    for position in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        publish(monkeypatch, path)  # its checksum would tell before
        try:
            load_dataset("medmnist3d", path, **GRID)
        except DataError as error:
            told, most = told + (path.name in str(error)), max(most, str(error).count(path.name))
    assert told > 30


def test_arrays_of_objects_are_not_unpickled(write):
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        load_dataset("medmnist3d", write(content() | {"train_labels": np.array([{}] * 6, object)}), **GRID)


def test_a_size_that_is_claimed_and_not_there_is_refused(write, path, monkeypatch):
    made = content()
    made.pop("train_labels")
    write(made)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (9,)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_labels.npy", header.getvalue() + b"1234")
    publish(monkeypatch, path)
    with pytest.raises(DataError, match="minemnist3d.npz: cannot be read as an .npz file"):
        load_dataset("medmnist3d", path, **GRID)
