"""Nodules of LIDC-IDRI: five types from ratings, benign or malignant, padding left out, the centre of each slice."""

import numpy as np
import pytest
from scipy import ndimage

from viptt_core.check import check_dataset
from viptt_core.datasets import list_dataset, load_dataset
from viptt_core.datasets.lidc import RATINGS, TASKS, nodule_types
from viptt_core.errors import DataError, SettingError

GRID = {"frames": 6, "size": 20, "n_jobs": 1, "progress": False}
# Texture, calcification, spiculation, lobulation of one nodule on each side of each bound, and its type.
RATED = [
    ((1, 6, 1, 1), 0),
    ((2, 3, 5, 5), 0),
    ((2.1, 3, 5, 5), 1),
    ((3.9, 6, 1, 1), 1),
    ((4, 5.4, 5, 5), 2),
    ((4, 5.5, 2.5, 1), 3),
    ((5, 6, 1, 2.5), 3),
    ((5, 6, 2.4, 2.4), 4),
    ((4, 5.5, 1, 1), 4),
]
N = 2 * len(RATED)


def content():
    """Each rated nodule twice, of one patient; slices last, 3 to 6 of 12, the others empty."""
    rng = np.random.default_rng(0)
    volumes = rng.integers(1, 256, (N, 12, 12, 12), np.uint8)
    for n, volume in enumerate(volumes):
        volume[..., : 2 + n % 3] = volume[..., 5 + n % 6 :] = 0
    rated = np.repeat([ratings for ratings, _ in RATED], 2, axis=0).astype(np.float32)
    return {
        "volumes": volumes,
        "names": np.array([f"P{n // 2}_R_{n % 2}" for n in range(N)]),
        "patient": np.array([f"P{n // 2}" for n in range(N)]),
        "malignancy_label": np.array([0, 1, 255] * (N // 3), np.uint8),
        "diameter_mm": np.arange(N, dtype=np.float32) + 4,
        "attr_mean": np.column_stack([np.full(N, 3, np.float32), rated]),
        "attr_names": np.array(["Malignancy_value", *RATINGS]),
        "masks": np.zeros((N, 3), np.uint8),
    }


@pytest.fixture
def write(tmp_path):
    def write(**changed):
        np.savez(tmp_path / "nodules.npz", **(content() | changed))
        return tmp_path / "nodules.npz"

    return write


def resampled(volume, centre):
    """Independently: SciPy's corner-aligned linear zoom of the slices that are not empty."""
    filled = np.flatnonzero(volume.any(axis=(0, 1)))
    edge = (volume.shape[0] - centre) // 2
    part = volume[edge : edge + centre, edge : edge + centre, filled[0] : filled[-1] + 1].astype(float)
    shape = (GRID["size"], GRID["size"], GRID["frames"])
    return np.moveaxis(ndimage.zoom(part, np.divide(shape, part.shape), order=1), 2, 0)


def test_ratings_decide_the_type_in_the_order_of_the_rule(write):
    assert nodule_types(*np.array([ratings for ratings, _ in RATED]).T).tolist() == [kind for _, kind in RATED]
    clips = load_dataset("lidc", write(), centre=8, **GRID)
    assert clips.class_names == TASKS["types"] and clips.labels.tolist() == [kind for _, kind in RATED for _ in "12"]
    assert clips.groups.tolist() == [name.split("_")[0] for name in clips.names] and not clips.synthetic
    np.testing.assert_array_equal(clips.covariates["diameter_mm"], np.arange(N) + 4)


def test_nodules_that_are_not_clearly_benign_or_malignant_are_left_out(write):
    clips = load_dataset("lidc", write(), task="malignancy", centre=8, **GRID)
    assert clips.class_names == ("benign", "malignant") and clips.labels.tolist() == [0, 1] * (N // 3)
    assert clips.names[:3].tolist() == ["P0_R_0", "P0_R_1", "P1_R_1"]
    np.testing.assert_allclose(clips.clips[2], resampled(content()["volumes"][3], 8), atol=0.51)


@pytest.mark.parametrize("centre", [7, 12])
def test_empty_planes_go_and_the_centre_is_enlarged(write, centre):
    clips = load_dataset("lidc", write(), centre=centre, **GRID)
    for clip, volume in zip(clips.clips, content()["volumes"], strict=True):
        np.testing.assert_allclose(clip, resampled(volume, centre), atol=0.51)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"volumes": np.zeros((N, 12, 12, 12))}, "volumes float64"),
        ({"volumes": np.ones((N - 1, 12, 12, 12), np.uint8)}, rf"volumes uint8 \[{N - 1}, 12"),
        ({"patient": np.array(["P"])}, r"patient <U1 \[1\]"),
        ({"attr_mean": np.full((N, 5), np.nan)}, "attr_mean"),
        ({"attr_names": np.array(list("abcde"))}, "no rating Calcification_value"),
        ({"diameter_mm": np.array(["4"] * N)}, "diameter_mm <U1"),
        ({"names": np.array("P1")}, r"names <U2 \[\]"),
        ({"volumes": np.uint8(1)}, r"volumes uint8 \[\]"),
        ({"names": np.array([{}] * N, object)}, "Object arrays cannot be loaded"),
        ({"names": np.array(["same"] * N)}, f"{N} volumes"),
    ],
)
def test_another_layout_is_refused_by_name(write, changed, words):
    with pytest.raises(DataError, match=f"(?s)nodules.npz.*{words}"):
        load_dataset("lidc", write(**changed), **GRID, centre=8)


def test_a_missing_array_an_unknown_task_and_too_large_a_centre_are_refused(write, tmp_path):
    path = write()
    with pytest.raises(SettingError, match="task 'type' does not exist. Did you mean 'types'"):
        list_dataset("lidc", path, task="type")
    with pytest.raises(SettingError, match="centre is 24.*12 pixels a side"):
        list_dataset("lidc", path)
    np.savez(path, names=np.array(["a"]))
    with pytest.raises(DataError, match="lacks volumes, it lacks patient.*viptt data list lidc"):
        list_dataset("lidc", tmp_path)


def test_the_check_reads_every_volume(write):
    report = check_dataset("lidc", write(), n_jobs=1, progress=False, centre=8)
    assert "18" in str(report) and not [fault for fault in report.faults if fault.kind == "duplicate content"]
    twice = content()["volumes"]
    twice[4] = twice[0]
    kinds = [f.kind for f in check_dataset("lidc", write(volumes=twice), n_jobs=1, progress=False, centre=8).faults]
    assert "duplicate content" in kinds


def test_the_real_nodules_have_the_known_counts_and_pixels(shared_data):
    path = shared_data / "lidc" / "lidc994_cube32_u8.npz"
    clips = load_dataset("lidc", path, **GRID)
    assert list(clips.counts().values()) == [54, 68, 163, 184, 525] and len(set(clips.groups)) == 551
    benign = list_dataset("lidc", path, task="malignancy").items
    assert np.bincount([item.label for item in benign]).tolist() == [444, 404]
    with np.load(path) as theirs:
        np.testing.assert_allclose(clips.clips[500], resampled(theirs["volumes"][500], 24), atol=0.51)
