"""The figures of the data: what they show is true, said in words, and marked where it is synthetic."""

import functools
import re

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy import ndimage

from viptt_core import ct
from viptt_core.constants import TB_CLASSES
from viptt_core.figures import data as figures_data
from viptt_core.figures.data import group_structure, hu_windows, sampling_of_scan, sampling_of_video
from viptt_core.probes import measure_leakage
from viptt_core.splits import make_split
from viptt_core.synthetic.phantom import make_phantom


@pytest.fixture(autouse=True)
def quick_phantoms(monkeypatch):
    """Coarse phantoms, each made once."""
    monkeypatch.setattr(figures_data, "PHANTOM_GRID", (64, 40))
    monkeypatch.setattr(figures_data, "typical_phantom", _made)


@functools.cache
def _made(name, original=figures_data.typical_phantom):
    return original(name)


@pytest.fixture(scope="module")
def scan():
    return make_phantom(7, TB_CLASSES.index("Tuberculoma"), size=48, slices=20)


def write(path, phantom, axes="LAS"):
    """The phantom stored with its axes in another order or direction."""
    turn = ornt_transform(axcodes2ornt("LAS"), axcodes2ornt(axes))
    voxels = nibabel.orientations.apply_orientation(phantom.hu, turn)
    nibabel.Nifti1Image(voxels, phantom.affine @ inv_ornt_aff(turn, phantom.hu.shape)).to_filename(path)
    return path


def pixels(axis):
    return np.asarray(axis.images[0].get_array())


@pytest.fixture
def videos(make_clip_set):
    groups = np.array([f"g{i // 4:02d}" for i in range(120)])
    return make_clip_set(n=120, labels=np.arange(120) // 60, groups=groups, synthetic=True)


@pytest.fixture
def pictures(videos):
    return {
        "hu_windows": hu_windows(),
        "group_structure": group_structure(videos, {"by group": make_split("group", videos, stage="pretrain")}),
        "sampling_of_scan": sampling_of_scan(),
        "sampling_of_video": sampling_of_video({"paper": (70, 1)}),
        "leakage_chart": figures_data.leakage_chart(measure_leakage(videos, seeds=2)),
    }


def test_every_figure_says_in_words_what_it_shows_and_is_marked_synthetic(pictures):
    drawing = {
        name
        for name, thing in vars(figures_data).items()
        if getattr(thing, "__module__", "") == figures_data.__name__
        and getattr(thing, "__annotations__", {}).get("return") == "Picture"
    }
    assert set(pictures) == drawing
    for name, picture in pictures.items():
        assert len(picture.alt) > 60 and picture.alt.endswith("Synthetic data."), name
        assert any(text.get_text() == "synthetic data" for text in picture.figure.texts), name
        assert 2_000 < len(picture._repr_mimebundle_()["text/html"]) < 200_000, name


# --- HU windows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["LAS", "RAS", "SRP"])
def test_a_scan_is_shown_as_radiologists_look_at_it_however_it_is_stored(tmp_path, scan, axes):
    picture = hu_windows(write(tmp_path / "scan.nii.gz", scan, axes))
    lungs = np.count_nonzero((scan.hu > -950) & (scan.hu < -600), axis=(0, 1))
    assert f"slice {lungs.argmax() + 1} of 20" in picture.alt
    shown = pixels(picture.figure.axes[1])  # the paper's window
    plane = np.rint(255 * ct.window_hu(scan.hu[:, :, lungs.argmax()]))
    assert np.array_equal(shown[0], plane[:, -1])  # X runs to the left, which is on the right of the picture
    assert np.array_equal(shown, plane.T[::-1])  # Y to the front, which is on top


def test_the_words_state_what_each_window_leaves_out(tmp_path, scan):
    alt = hu_windows(write(tmp_path / "scan.nii", scan)).alt
    z = int(re.search(r"slice (\d+) of", alt)[1]) - 1
    values = scan.hu[:, :, z]
    assert f"the paper's window {(values < -1000).mean():.0%} below and {(values > 400).mean():.0%} above" in alt
    assert f"all values {values.min()} to {values.max()} HU" in alt


@pytest.mark.parametrize(
    "folder, words", [("mine", "CT: scan.nii.gz"), ("lungpetctdx", "NNC2-0461, CC BY 4.0. Changed:")]
)
def test_a_real_scan_carries_its_source_and_is_not_called_synthetic(tmp_path, scan, folder, words):
    (tmp_path / folder).mkdir()
    picture = hu_windows(write(tmp_path / folder / "scan.nii.gz", scan))
    written = " ".join(text.get_text().replace("\n", " ") for text in picture.figure.texts)
    assert words in written and words in picture.alt and "ynthetic" not in picture.alt + written
    assert ("CC BY" in written) == (folder == "lungpetctdx")  # nobody else's scan is said to be theirs


def test_without_a_scan_a_phantom_is_shown_and_says_so(tmp_path):
    picture = hu_windows(tmp_path / "lungpetctdx" / "none.nii.gz")
    assert f"No scan at {tmp_path}/lungpetctdx/none.nii.gz: simulated" in picture.alt
    assert "The Cancer Imaging Archive" in picture.alt
    assert "CC BY 4.0" not in picture.alt  # no licence of a picture that is not theirs
    assert "No scan" not in hu_windows().alt


# --- Types, groups, sampling --------------------------------------------------------------------------


def test_groups_that_straddle_are_counted_and_none_under_the_split_by_group(videos):
    by_clip, by_group = (make_split(kind, videos, stage="pretrain") for kind in ("authors", "group"))
    picture = group_structure(videos, {"by clip": by_clip, "by group": by_group})
    part_of = {i: part for part in ("train", "validation", "test") for i in getattr(by_clip, part)}
    straddling = sum(len({part_of[i] for i in np.flatnonzero(videos.groups == g)}) > 1 for g in set(videos.groups))
    assert straddling > 10
    assert f"by clip, {straddling} of 30 groups are in more than one part" in picture.alt
    assert "by group, 0 of 30 groups are in more than one part" in picture.alt
    shown = pixels(picture.figure.axes[0])
    sizes = [len(by_clip.train), len(by_clip.validation), len(by_clip.test)]
    assert [int((shown == number).sum()) for number in range(3)] == sizes


@pytest.mark.parametrize(("n_slices", "depth"), [(40, 16), (40, 70), (12, 1)])
def test_the_slices_read_are_those_the_resampling_reads(n_slices, depth):
    met = []
    for z in range(n_slices):
        impulse = np.zeros((2, 2, n_slices), np.float32)
        impulse[:, :, z] = 1
        if ct.resample_volume(impulse, depth=depth, size=2).max() > 1e-4:
            met.append(z)
    assert figures_data.slices_read(n_slices, depth).tolist() == met


def test_fewer_slices_meet_fewer_nodules_as_counted_one_by_one():
    picture = sampling_of_scan(depths=(40, 8))
    phantom = _made("Miliary")
    nodules, n = ndimage.label(phantom.finding)
    read = set(figures_data.slices_read(40, 8).tolist())
    met = sum(any(z in read for z in range(*box[2].indices(40))) for box in ndimage.find_objects(nodules))
    assert 0.05 < met / n < 0.95
    assert f"8 slices {phantom.spacing[2] * 39 / 7:.1f} millimetres apart meet {met / n:.0%}" in picture.alt
    whole, same, fewer = (pixels(axis) for axis in picture.figure.axes)
    assert whole.shape == same.shape == (40, 64) and fewer.shape == (8, 64)
    np.testing.assert_allclose(same, whole, atol=1)  # neither mirrored nor turned


def test_the_seconds_of_a_video_are_those_of_its_frames():
    picture = sampling_of_video({"paper": (70, 1), "long": (70, 3)}, length=160)
    assert "paper, 70 frames to second 2.7; long, 70 frames to second 8.0" in picture.alt
    assert "simulated video of 8.0 seconds" in picture.alt  # long enough for all
    marks = [line.get_xdata() for line in picture.figure.axes[1].lines if line.get_marker() == "|"]
    assert [len(seen) for seen in marks] == [70, 70]
    np.testing.assert_allclose(marks[1], np.arange(70) * 3 / 26)
