"""The figures of one run and of the data: what they show is true, said in words, and marked where it is synthetic."""

import base64
import functools
import re

import nbconvert
import nbformat.v4 as v4
import nibabel
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.colors import rgb_to_hsv, to_rgb
from matplotlib.figure import Figure
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy import ndimage

from viptt_core import ct, figures
from viptt_core.constants import TB_CLASSES
from viptt_core.figures import data as figures_data
from viptt_core.figures.data import group_structure, hu_windows, sampling_of_scan, sampling_of_video
from viptt_core.figures.picture import with_dark_scheme
from viptt_core.figures.viewer import compare_clips
from viptt_core.probes import measure_leakage
from viptt_core.results import Summary
from viptt_core.splits import make_split
from viptt_core.synthetic.phantom import make_phantom


@pytest.fixture(autouse=True)
def quick_phantoms(monkeypatch):
    """Coarse phantoms, each made once."""
    monkeypatch.setattr(figures_data, "PHANTOM_GRID", (64, 40))
    monkeypatch.setattr(figures_data, "typical_phantom", _made)


@functools.cache
def _made(name, original=figures_data.typical_phantom):
    return original.__wrapped__(name)


@pytest.fixture
def predictions():
    chances = np.random.default_rng(0).dirichlet(np.ones(3), 60)
    table = pd.DataFrame(chances, columns=["p(Focal)", "p(Miliary)", "p(Other)"])
    names = [f"s{i % 30}" for i in range(60)]
    return table.assign(arm=["random", "video"] * 30, part="test", name=names, group=names, label=np.arange(60) % 3)


@pytest.fixture
def pictures(make_clip_set, predictions):
    """One of each kind, of synthetic data."""
    clips = make_clip_set(synthetic=True)
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3, 2, 1], "val_loss": [3, 1, 2], "val_kappa": [0, 0.2, 0.1]})
    return {
        "show_clips": figures.show_clips(clips),
        "class_balance": figures.class_balance(clips),
        "training_curves": figures.training_curves(history, synthetic=True),
        "confusion": figures.confusion(predictions, synthetic=True),
        "kappa_by_arm": figures.kappa_by_arm(Summary(predictions).table, synthetic=True),
        "hu_windows": hu_windows(),
        "group_structure": figures_data.group_structure(
            clips, {"by group": make_split("group", clips, stage="pretrain")}
        ),
        "sampling_of_scan": sampling_of_scan(),
        "sampling_of_video": sampling_of_video({"paper": (70, 1)}),
        "leakage_chart": figures_data.leakage_chart(measure_leakage(clips, seeds=2)),
    }


def test_every_picture_says_what_it_shows_and_is_marked_synthetic(pictures, predictions):
    assert set(pictures) == {
        name
        for module in (figures, figures_data)
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", "") == module.__name__
        and getattr(thing, "__annotations__", {}).get("return") == "Picture"
    }
    for name, picture in pictures.items():
        page = picture._repr_mimebundle_()["text/html"]
        alt = re.search(r'alt="([^"]+)"', page)[1]
        assert len(alt) > 40 and alt.endswith("Synthetic data."), name
        assert any(text.get_text() == "synthetic data" for text in picture.figure.texts), name
        kind, data = re.search(r"data:image/(\S+?);base64,([^\"]+)", page).groups()
        assert kind in ("webp", "svg+xml") and 1000 < len(base64.b64decode(data)) < 200_000, name
    assert "class0 10, class1 10" in pictures["class_balance"].alt
    assert "epoch 2 of 3 kept, validation kappa 0.20" in pictures["training_curves"].alt
    table = Summary(predictions).table
    assert f"random weights: {table['kappa'][0]:.2f} ({table['kappa_low'][0]:.2f} to" in pictures["kappa_by_arm"].alt
    counts = [sum(int(text.get_text()) for text in axis.texts) for axis in pictures["confusion"].figure.axes]
    assert counts == [30, 30]


def test_a_picture_of_real_data_is_not_marked_and_has_the_same_bytes_each_time(make_clip_set):
    picture, again = (figures.class_balance(make_clip_set()) for _ in range(2))
    assert "ynthetic" not in picture.alt and not any(text.get_text() for text in picture.figure.texts)
    assert picture.encode("svg") == again.encode("svg")


def test_other_forms_of_a_notebook_keep_every_figure(make_clip_set):
    clips = make_clip_set(synthetic=True)
    shown = [figures.class_balance(clips), figures.show_clips(clips), compare_clips(clips)]
    bundles = [InteractiveShell.instance().display_formatter.format(one) for one in shown]
    outputs = [v4.new_output("display_data", data, metadata=metadata) for data, metadata in bundles]
    notebook = v4.new_notebook(cells=[v4.new_code_cell("x", outputs=outputs)])
    body, resources = nbconvert.MarkdownExporter().from_notebook_node(notebook)
    assert len(re.findall(r"<img src=|!\[\w*\]\(", body)) >= 3
    assert len(resources["outputs"]) == 3
    assert all(picture.startswith(b"\x89PNG") for picture in resources["outputs"].values())


def test_a_chart_has_a_form_for_wide_windows_and_its_message_above(predictions):
    picture = figures.kappa_by_arm(Summary(predictions).table)
    picture.title = "a < b"
    page = picture._repr_mimebundle_()["text/html"]
    assert '<strong>a &lt; b</strong></p><picture><source media="(min-width:700px)" srcset="data:image/svg' in page
    assert picture.wide.get_figwidth() > 1.5 * picture.figure.get_figwidth()
    (axis,) = picture.wide.axes
    names = [text.get_text() for text in axis.texts if text.get_ha() == "right"]
    assert names == ["random weights", "ImageNet + videos"]
    assert picture.encode("svg") != picture.encode("svg", wide=True) and not figures.is_wide()


def test_what_has_one_form_is_embedded_once(make_clip_set):
    for picture in (figures.show_clips(make_clip_set()), figures.Picture(Figure(), "nothing")):
        assert picture.wide is None and picture.page().count("base64,") == 1


def test_a_chart_has_colours_for_a_dark_page_and_orange_stays_orange():
    svg = with_dark_scheme(b'<svg a="1"><path style="fill: #ffffff; stroke: #e69f00"/></svg>').decode()
    assert svg.startswith('<svg a="1"><style>@media (prefers-color-scheme: dark)')
    dark = dict(re.findall(r'\[style\*="(\w+: #\w{6})"\]\{\w+:(#\w{6})!important\}', svg))
    assert to_rgb(dark["fill: #ffffff"]) < (0.1, 0.1, 0.15)
    hue, _, value = rgb_to_hsv(to_rgb(dark["stroke: #e69f00"]))
    assert 0.08 < hue < 0.13 and value > 0.85


def test_a_picture_without_words_is_refused():
    with pytest.raises(ValueError, match="text alternative"):
        figures.Picture(Figure(), " ")


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


@pytest.mark.parametrize("folder, words", [("mine", "CT: scan.nii.gz"), ("lungpetctdx", "NNC2-0461, CC BY 4.0.")])
def test_a_real_scan_carries_its_source_and_is_not_called_synthetic(tmp_path, scan, folder, words):
    (tmp_path / folder).mkdir()
    picture = hu_windows(write(tmp_path / folder / "scan.nii.gz", scan))
    written = " ".join(text.get_text().replace("\n", " ") for text in picture.figure.texts)
    assert words in written and words in picture.alt and "ynthetic" not in picture.alt + written
    assert ("CC BY" in written) == (folder == "lungpetctdx")  # nobody else's scan is said to be theirs


def test_without_a_scan_a_phantom_is_shown_and_says_so(tmp_path):
    path = tmp_path / "lungpetctdx" / "none.nii.gz"
    alt = hu_windows(path).alt
    assert f"No scan at {path}: simulated" in alt and "The Cancer Imaging Archive" in alt
    assert "CC BY 4.0" not in alt and "No scan" not in hu_windows().alt  # no licence of a picture that is not theirs


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
    front = 255 * ct.window_hu(phantom.hu[:, phantom.hu.shape[1] // 2]).T[::-1]
    for shown in (whole, same):  # neither mirrored nor turned
        np.testing.assert_allclose(shown, front, atol=1)


def test_the_seconds_of_a_video_are_those_of_its_frames():
    picture = sampling_of_video({"paper": (70, 1), "long": (70, 3)})
    assert "paper, 70 frames to second 2.7; long, 70 frames to second 8.0" in picture.alt
    assert "simulated video of 8.0 seconds" in picture.alt  # long enough for all
    marks = [line.get_xdata() for line in picture.figure.axes[1].lines if line.get_marker() == "|"]
    assert [len(seen) for seen in marks] == [70, 70]
    np.testing.assert_allclose(marks[1], np.arange(70) * 3 / 26)
