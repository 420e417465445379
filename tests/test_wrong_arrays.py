"""Arrays in MedMNIST's 3-D layout: what is in them, other axes, labels from 1, damage, sizes that are not there."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from scipy import ndimage

from viptt_core.datasets import arrays, list_dataset, load_dataset
from viptt_core.errors import DataError, DataWarning, SettingError

GRID = {"frames": 4, "size": 16, "n_jobs": 1, "progress": False}
SIZES = {"train": 6, "val": 3, "test": 3}


def content(shape=(8, 10, 10), *, seed=0, n=1, **columns):
    """Noise without an empty plane; two classes; `columns` are made of the number of volumes of a part."""
    rng, made = np.random.default_rng(seed), {}
    for part, size in SIZES.items():
        made[f"{part}_images"] = rng.integers(1, 256, (n * size, *shape), dtype=np.uint8)
        made[f"{part}_labels"] = (np.arange(n * size) % 2)[:, None].astype(np.uint8)
        made |= {f"{part}_{name}": column(n * size) for name, column in columns.items()}
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


def write(path, made):
    np.savez_compressed(path, **made)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.npz"


def faults(path, **settings):
    return list_dataset("medmnist3d", path, **settings).faults


# --- Which axis runs from slice to slice ---


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_padded_axis_is_that_of_the_slices_and_its_padding_goes_before_resampling(path, axis):
    made = padded(axis)
    clips = load_dataset("medmnist3d", write(path, made), **GRID)
    assert clips.source["slice_axis"] == axis and clips.source["padding"] == "left out"
    for clip, volume in zip(clips.clips, made["train_images"], strict=False):
        volume = np.moveaxis(volume, axis, 0)
        slices = volume[volume.any(axis=(1, 2))]
        expected = ndimage.zoom(slices.astype(float), (4 / len(slices), 16 / 12, 16 / 12), order=1)
        assert np.abs(clip - expected).max() <= 0.51
    (fault,) = faults(path)
    assert (fault.kind, fault.level) == ("padding", "note") and f"axis {axis}" in fault.what


@pytest.mark.parametrize("shape, axis", [((5, 9, 9), 0), ((9, 5, 9), 1), ((9, 9, 5), 2), ((30, 9, 9), 0)])
def test_square_slices_of_another_number_show_their_axis(path, shape, axis):
    made = content(shape)
    clips = load_dataset("medmnist3d", write(path, made), **GRID)
    assert (clips.source["slice_axis"], clips.source["padding"]) == (axis, "kept") and faults(path) == ()
    first = np.moveaxis(made["train_images"][0], axis, 0)
    expected = ndimage.zoom(first.astype(float), (4 / len(first), 16 / 9, 16 / 9), order=1)
    assert np.abs(clips.clips[0] - expected).max() <= 0.51


def objects(n):
    """Bright boxes in the middle of nothing, as shape masks are."""
    made = content((12, 12, 12), n=n)
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


def contradicting():
    made = content((12, 12, 6), n=5)
    for part in SIZES:
        made[f"{part}_images"][:, 3:] = 0
    return made


@pytest.mark.parametrize(
    "made",
    [content((9, 9, 9)), content((8, 10, 12)), objects(5), shapes(), contradicting()],
    ids=["cubes", "three", "objects", "shapes", "both"],
)
def test_where_the_axis_is_not_clear_it_must_be_said_and_then_holds(path, made):
    write(path, made)
    with pytest.raises(DataError, match=r"which axis of its volumes .* runs from slice to slice.*slice_axis=0"):
        load_dataset("medmnist3d", path, **GRID)
    keys = set()
    for axis in range(3):
        clips = load_dataset("medmnist3d", path, slice_axis=axis, **GRID)
        assert clips.source["slice_axis"] == axis
        first = np.moveaxis(made["train_images"][0], axis, 0)
        kept = first[first.any(axis=(1, 2))] if clips.source["padding"] == "left out" else first
        zoom = (4 / len(kept), 16 / kept.shape[1], 16 / kept.shape[2])
        assert np.abs(clips.clips[0] - ndimage.zoom(kept.astype(float), zoom, order=1)).max() <= 0.51
        keys.add(clips.key)
    assert len(keys) == 3


def test_what_is_said_wins_over_what_is_found_and_nothing_else_is_left_out(path):
    write(path, padded(2))
    clips = load_dataset("medmnist3d", path, slice_axis=0, **GRID)
    assert (clips.source["slice_axis"], clips.source["padding"]) == (0, "kept")
    assert ["axis 2 runs" in fault.what for fault in faults(path, slice_axis=0)] == [True]
    assert load_dataset("medmnist3d", path, slice_axis="0", **GRID).key == clips.key  # as a command gives it
    for axis in (3, -1, "z"):
        with pytest.raises(SettingError, match=f"slice_axis '{axis}' does not exist"):
            list_dataset("medmnist3d", path, slice_axis=axis)


def test_fortran_order_and_empty_parts_are_no_obstacle(path):
    made = padded(1)
    made["train_images"] = np.asfortranarray(made["train_images"])
    made["train_images"][3] = 0  # an empty volume
    made["val_images"], made["val_labels"] = made["val_images"][:0], made["val_labels"][:0]
    clips = load_dataset("medmnist3d", write(path, made), **GRID)
    assert clips.source["slice_axis"] == 1 and set(clips.parts) == {"train", "test"}


def test_real_nodules_have_their_slices_last_and_published_shapes_stay_as_they_were(shared_data):
    pytest.importorskip("medmnist")  # which knows the published files
    listing = list_dataset("medmnist3d", shared_data / "lidc" / "lidc848_nodule3d_28.npz")
    assert listing.settings["slice_axis"] == 2 and listing.settings["padding"] == "left out"
    assert [fault.kind for fault in listing.faults] == ["padding"]
    listing = list_dataset("medmnist3d", shared_data / "medmnist" / "adrenalmnist3d.npz")
    assert (listing.settings["slice_axis"], listing.settings["padding"], listing.faults) == (0, "kept", ())
    assert (
        len(listing.items) == 1188 + 98 + 298 and listing.class_names[0] == "normal" and len(listing.class_names) == 2
    )


# --- Labels and columns ---


@pytest.mark.parametrize(
    "labels, dtype, empty, unknown",
    [
        ([1, 2], np.uint8, [0], [2]),
        ([1, 2, 3], np.int64, [0], [3]),
        ([0, 2], np.uint8, [1], [2]),
        ([0, 1, 3, 7], np.int32, [2], [7]),
        ([-1, 0], np.int8, [1], [-1]),
        ([0, 2**40], np.int64, [1], [2**40]),
        ([0, 2**64 - 1], np.uint64, [1], [2**64 - 1]),
    ],
)
def test_labels_with_gaps_are_refused_and_make_no_class_without_volumes(path, labels, dtype, empty, unknown):
    made = content()
    for part, size in SIZES.items():
        made[f"{part}_labels"] = np.array([labels[i % len(labels)] for i in range(size)], dtype)[:, None]
    listing = list_dataset("medmnist3d", write(path, made))
    assert len(listing.class_names) == len(labels)
    told = [fault for fault in listing.faults if fault.kind == "class without volumes"]
    assert [f"has the label {label} " in fault.what for fault, label in zip(told, empty, strict=False)] == [True] * len(
        empty
    )
    named = [fault for fault in listing.faults if fault.kind == "unknown label"]
    assert any(fault.what == f"has the label {unknown[0]}." for fault in named)
    with pytest.raises(DataError, match="no volume has the label"):
        load_dataset("medmnist3d", path, **GRID)


def test_a_class_named_without_volumes_or_in_no_utf_8_is_refused(path):
    write(path, content())
    with pytest.raises(SettingError, match=r"classes name b\\xfc, which is not UTF-8"):
        load_dataset("medmnist3d", path, classes="a,b\udcfc", **GRID)
    with pytest.raises(DataError, match=r"no volume has the label 2 \(rare\)"):
        load_dataset("medmnist3d", path, classes="benign, malignant, rare", **GRID)


WRONG_COLUMNS = [  # what is changed in a sound file, kind of the fault, words of the error
    (lambda c: c.pop("val_labels"), "missing column", "lacks val_labels"),
    (lambda c: c.pop("val_patient"), "missing column", ""),
    ({"val_labels": np.zeros((1, 1), int)}, "lengths differ", "3 val_images but 1 val_labels. Give one each"),
    ({"test_images": np.zeros((3, 8, 10, 10, 1), np.uint8)}, "not grey volumes", r"uint8 \[3, 8, 10, 10, 1\]"),
    ({"test_images": np.zeros((3, 8, 10, 10))}, "not grey volumes", "float64"),
    ({"val_images": np.uint8(1)}, "not grey volumes", ""),
    ({"test_images": np.zeros((3, 10, 10, 8), np.uint8)}, "parts unlike", r"test \[3, 10, 10, 8\]"),
    ({"train_labels": np.zeros((6, 3), int)}, "not one label each", r"int64 \[6, 3\]"),
    ({"train_labels": np.zeros((6, 1)) - 1}, "not one label each", "float64"),
    ({"train_labels": np.uint8(1)}, "not one label each", ""),
    ({"train_patient": np.array("P1")}, "not one value each", ""),
    ({"train_age": np.float32(1)}, "not one value each", ""),
    ({"test_patient": np.array([0.5, 1.5, 2.5])}, "not one value each", ""),
    ({"val_patient": np.arange(3)}, "text and numbers", ""),
    *(({"test_patient": np.array(["P1", word, "P2"])}, "no patient", "") for word in (" ", "nan", "unknown")),
    ({"train_patient": np.array([b"\xff"] * 6)}, "not text", ""),
    ({"train_patient": np.array([{}] * 6, object)}, "column of objects", ""),
    ({"train_patient": np.array([2**31, *b"train"] * 6, np.uint32).view("<U6")}, "damaged file", ""),
    ({"train_patient": np.array(["\ud800"] * 6)}, "damaged file", ""),
    ({f"{part}_name": np.array(["same"] * n) for part, n in SIZES.items()}, "two volumes of one name", ""),
]


@pytest.mark.parametrize("change, kind, words", WRONG_COLUMNS)
def test_columns_that_do_not_fit_are_faults_of_the_file(path, change, kind, words):
    made = content(patient=lambda n: np.array([f"P{i}" for i in range(n)]))
    change(made) if callable(change) else made.update(change)
    assert kind in [fault.kind for fault in faults(write(path, made))]
    with pytest.raises(DataError, match=f"(?s)mine.npz.*{words}"):
        load_dataset("medmnist3d", path, **GRID)


def test_parts_patients_names_and_further_numbers_come_along(path):
    made = content(
        patient=lambda n: np.array([f"P{i // 2}" for i in range(n)]),
        diameter_mm=lambda n: np.arange(n, dtype=np.float32) + 0.5,
    )
    made |= {f"{part}_name": np.array([f"{part}-nodule{i}" for i in range(n)]) for part, n in SIZES.items()}
    clips = load_dataset("medmnist3d", write(path, made | {"train_only": np.zeros(6)}), **GRID)
    assert clips.class_names == ("class 0", "class 1") and len(clips) == sum(SIZES.values())
    assert clips.parts.tolist() == ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    assert clips.groups[:3].tolist() == ["P0", "P0", "P1"] and clips.names[-1] == "test-nodule2"
    assert list(clips.covariates) == ["diameter_mm"]
    np.testing.assert_array_equal(clips.covariates["diameter_mm"][-3:], [0.5, 1.5, 2.5])
    plain = load_dataset("medmnist3d", write(path, content()), classes="benign, malignant", **GRID)
    assert plain.class_names == ("benign", "malignant") and plain.groups.tolist() == plain.names.tolist()
    assert plain.names[6] == "val_0000"


def test_a_file_of_a_folder_is_named_by_subset_and_pixels(path):
    folder = write(path, content()).parent
    assert len(load_dataset("medmnist3d", folder, **GRID)) == 12
    write(folder / "mine_64.npz", content())
    assert list_dataset("medmnist3d", folder, subset="mine", pixels=64).root.name == "mine_64.npz"
    for choice, words in (({}, "has 2 .npz files.*mine, mine_64.*subset"), ({"subset": "yours"}, "no file yours.npz")):
        with pytest.raises(DataError, match=words):
            load_dataset("medmnist3d", folder, **choice, **GRID)
    with pytest.raises(SettingError, match="pixels .32. does not exist"):
        load_dataset("medmnist3d", folder, subset="mine", pixels=32, **GRID)
    for choice in ({"subset": "mine"}, {"pixels": 28}):
        with pytest.raises(SettingError, match="choose a file of a folder"):
            list_dataset("medmnist3d", path, **choice)


def test_a_file_under_a_published_name_must_be_the_published_one(path):
    pytest.importorskip("medmnist")
    with pytest.raises(DataError, match="has the MD5 .*published is 8755a7e9e05a4d9ce80a24c3e7a256f3.*another name"):
        load_dataset("medmnist3d", write(path.with_name("nodulemnist3d.npz"), content()), **GRID)


def test_patients_may_be_numbers_and_are_no_covariate(path):
    clips = load_dataset("medmnist3d", write(path, content(patient=lambda n: np.arange(n) // 2)), **GRID)
    assert clips.groups[:4].tolist() == ["0", "0", "1", "1"] and clips.covariates == {}


def test_only_columns_of_one_finite_number_a_volume_are_covariates(path):
    made = content(
        ratings=lambda n: np.ones((n, 9)),
        masks=lambda n: np.ones((n, 8, 10, 10), bool),
        age=lambda n: np.full(n, np.nan),
        centre=lambda n: np.array(["A"] * n),
        size=lambda n: np.arange(n)[:, None] / 2,
    )
    clips = load_dataset("medmnist3d", write(path, made), **GRID)
    assert list(clips.covariates) == ["size"] and clips.covariates["size"][:3].tolist() == [0, 0.5, 1]
    (fault,) = faults(path)
    assert fault.level == "note" and "ratings, masks, age, centre: not read" in fault.what


def test_a_patient_is_one_whatever_the_spelling_and_named_when_in_two_parts(path):
    patients = {"train": ["1", "2", "3", "3", "4", "5"], "val": ["6", "07", "8"], "test": ["7", "9", "02"]}
    made = content() | {f"{part}_patient": np.array(names) for part, names in patients.items()}
    clips = load_dataset("medmnist3d", write(path, made), **GRID)
    assert clips.groups[7] == clips.groups[9] and clips.groups[1] == clips.groups[11]
    told = [fault.what for fault in faults(path)]
    assert len(told) == 3 and "2 of 9 groups are in more than one published part: 02, 07." in told[2]
    assert all(any(what == fault.what for fault in clips.faults) for what in told)


def test_a_blank_volume_is_told_by_a_run_too(path):
    made = content()
    made["test_images"][1] = 7
    with pytest.warns(DataWarning, match="mine.npz: test_images 1: every voxel is the same"):
        clips = load_dataset("medmnist3d", write(path, made), **GRID)
    assert len(clips.faults) == 1


# --- Damage, and sizes that are not there ---


def test_one_flipped_byte_is_the_files_own_fault(path):
    whole = write(path, content(patient=lambda n: np.array([f"P{i}" for i in range(n)]))).read_bytes()
    told, most = 0, 0
    for position in range(0, len(whole), len(whole) // 150):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            load_dataset("medmnist3d", path, **GRID)
        except DataError as error:
            told, most = told + ("mine.npz" in str(error)), max(most, str(error).count("mine.npz"))
    assert told > 100 and most == 1  # and not once a volume


def npy(shape, dtype, payload):
    """An array file whose header may claim more than there is."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue() + payload


@pytest.mark.parametrize(
    "name, member, words",
    [
        ("train_labels", npy((2**40,), "<i8", b"1234"), "train_labels claims 8796093022208 bytes, and holds 4"),
        ("train_patient", npy((6,), "<U99999999", b""), "train_patient claims .* and holds 0"),
        ("train_images", npy((2**40, 8, 10, 10), "|u1", b""), "train_images claims"),
        ("test_images", npy((3, 8, 10, 2**50), "|u1", b"?"), "test_images claims"),
        ("val_age", npy((2**62, 2**62), "<f8", b""), "val_age claims"),
        ("train_labels", npy((2**23 + 1,), "<i8", bytes(2**26 + 8)), "train_labels would take 67108872 bytes"),
    ],
)
def test_sizes_that_are_claimed_are_refused_by_name_before_memory_is_taken(path, name, member, words):
    made = content()
    made.pop(name, None)
    write(path, made)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", member)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"mine.npz: {words}"):
            load_dataset("medmnist3d", path, **GRID)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_what_is_not_read_may_be_large(path, monkeypatch):
    monkeypatch.setitem(arrays.MOST_BYTES, "values", 2**10)
    made = content(masks=lambda n: np.ones((n, 8, 10, 10), bool))
    assert len(load_dataset("medmnist3d", write(path, made), **GRID)) == 12


def test_images_that_unpack_to_more_than_memory_should_hold_are_refused(path, monkeypatch):
    monkeypatch.setitem(arrays.MOST_BYTES, "images", 2**12)
    with pytest.raises(DataError, match="mine.npz: train_images would take 4800 bytes; 4096 are the most.*NIfTI"):
        load_dataset("medmnist3d", write(path, content()), **GRID)
