"""Arrays in MedMNIST's 3-D layout: files the tests write, and real ones where they are."""

import hashlib

import numpy as np
import pytest
from scipy import ndimage

from viptt_core.datasets import list_dataset, load_dataset
from viptt_core.errors import DataError, SettingError

GRID = {"frames": 4, "size": 16, "slice_axis": 0, "n_jobs": 1, "progress": False}
SIZES = {"train": 6, "val": 2, "test": 3}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    content = {}
    for part, n in SIZES.items():
        content[f"{part}_images"] = rng.integers(0, 256, (n, 8, 10, 12), dtype=np.uint8)
        content[f"{part}_labels"] = (np.arange(n) % 2)[:, None].astype(np.uint8)
    return content


def write(path, content):
    np.savez_compressed(path, **content)
    return path


def test_volumes_labels_and_published_parts(arrays, tmp_path):
    path = write(tmp_path / "mine.npz", arrays)
    clips = load_dataset("medmnist3d", path, **(GRID | {"frames": 8}))
    assert clips.class_names == ("class 0", "class 1") and len(clips) == sum(SIZES.values())
    assert clips.parts.tolist() == ["train"] * 6 + ["validation"] * 2 + ["test"] * 3
    assert clips.names[6] == "val_0000" and clips.groups.tolist() == clips.names.tolist()
    # Slices, rows and columns stay in their order; scipy resamples as the authors do.
    volume = arrays["test_images"][1].astype(np.float64)
    expected = ndimage.zoom(volume, (1, 16 / 10, 16 / 12), order=1)
    assert np.abs(clips.clips[9] - expected).max() <= 0.51


def test_patients_names_and_further_numbers_come_along(arrays, tmp_path):
    for part, n in SIZES.items():
        arrays[f"{part}_patient"] = np.array([f"P{i // 2}" for i in range(n)])
        arrays[f"{part}_name"] = np.array([f"{part}-nodule{i}" for i in range(n)])
        arrays[f"{part}_diameter_mm"] = np.arange(n, dtype=np.float32) + 0.5
    arrays["train_only"] = np.zeros(6)
    clips = load_dataset("medmnist3d", write(tmp_path / "mine.npz", arrays), classes="benign, malignant", **GRID)
    assert clips.class_names == ("benign", "malignant") and clips.groups[:3].tolist() == ["P0", "P0", "P1"]
    assert clips.names[-1] == "test-nodule2" and list(clips.covariates) == ["diameter_mm"]
    np.testing.assert_array_equal(clips.covariates["diameter_mm"][-3:], [0.5, 1.5, 2.5])
    again = load_dataset("medmnist3d", tmp_path / "mine.npz", classes="benign, malignant", **GRID)
    assert again.covariates.keys() == clips.covariates.keys() and again.parts.tolist() == clips.parts.tolist()


def test_a_file_of_a_folder_is_named_by_subset_and_pixels(arrays, tmp_path):
    write(tmp_path / "mine.npz", arrays)
    assert len(load_dataset("medmnist3d", tmp_path, **GRID)) == 11
    write(tmp_path / "mine_64.npz", arrays)
    assert list_dataset("medmnist3d", tmp_path, subset="mine", pixels=64).root.name == "mine_64.npz"
    with pytest.raises(DataError, match="has 2 .npz files.*mine, mine_64.*subset"):
        load_dataset("medmnist3d", tmp_path, **GRID)
    with pytest.raises(DataError, match="has no file yours.npz"):
        load_dataset("medmnist3d", tmp_path, subset="yours", **GRID)
    with pytest.raises(SettingError, match="pixels .32. does not exist"):
        load_dataset("medmnist3d", tmp_path, subset="mine", pixels=32, **GRID)


@pytest.mark.parametrize(
    "change, kind, message",
    [
        (lambda c: c.pop("val_labels"), "missing column", "lacks val_labels"),
        (lambda c: c.update(val_labels=c["val_labels"][:1]), "lengths differ", "2 val_images but 1 val_labels"),
        (lambda c: c.update(test_images=c["test_images"][..., None]), "not grey volumes", r"uint8 \[3, 8, 10, 12, 1\]"),
        (lambda c: c.update(test_images=c["test_images"] / 255), "not grey volumes", "float64"),
        (lambda c: c.update(train_labels=np.zeros((6, 3), int)), "not one label each", r"int64 \[6, 3\]"),
        (lambda c: c.update(train_labels=np.zeros((6, 1)) - 1), "not one label each", "float64"),
    ],
)
def test_other_layouts_are_refused(arrays, tmp_path, change, kind, message):
    change(arrays)
    with pytest.raises(DataError, match=f"mine.npz: .*{message}") as caught:
        load_dataset("medmnist3d", write(tmp_path / "mine.npz", arrays), **GRID)
    assert caught.value.kind == kind


def test_a_file_under_a_published_name_must_be_the_published_one(arrays, tmp_path):
    with pytest.raises(DataError, match="has the MD5 .*published is 8755a7e9e05a4d9ce80a24c3e7a256f3.*another name"):
        load_dataset("medmnist3d", write(tmp_path / "nodulemnist3d.npz", arrays), **GRID)


# --- Real files -----------------------------------------------------------------------------------


def test_the_published_file_is_accepted_with_its_class_names(shared_data):
    path = shared_data / "medmnist" / "adrenalmnist3d.npz"
    assert hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == "bbd3c5a5576322bc4cdfea780653b1ce"
    listing = list_dataset("medmnist3d", path)
    assert listing.faults == () and len(listing.items) == 1188 + 98 + 298 and len(listing.class_names) == 2
    assert listing.class_names[0] == "normal"
