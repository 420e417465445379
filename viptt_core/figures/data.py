"""Figures of the data: HU windows, the five TB types, groups and parts, what sampling keeps, leakage."""

from __future__ import annotations

import functools
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation
from scipy import ndimage

from viptt_core import ct
from viptt_core.clips import ClipSet
from viptt_core.constants import CT_WINDOWS, PAPER_FRAMES, TB_CLASSES, UCF_CLASSES, UCF_FRAME_RATE
from viptt_core.figures import (
    OTHER_COLOUR,
    Photograph,
    Picture,
    chart_width,
    draw_slice,
    legend_below,
    new_axes,
    styled,
)
from viptt_core.files import artifact_root
from viptt_core.nifti import read_nifti
from viptt_core.probes import BY_CLIP, BY_GROUP, Leakage
from viptt_core.splits import PARTS, Split

WINDOW_COLOURS = ("#0072B2", "#009E73", "#D55E00")
LUNG_HU = (-950, -600)  # air-filled lung, not the air around the patient
PART_COLOURS = {"train": "#A6A6A6", "validation": "#E69F00", "test": "#3B8FD1"}  # for a light and a dark page
PATIENTS = {"Infiltrative": 3, "Focal": 1, "Tuberculoma": 2, "Miliary": 3, "Fibro-cavernous": 4}  # typical ones
PHANTOM_GRID = (256, 130)  # voxels in-plane, slices: coarser than a scan, to be quick
MOST_GROUPS = 25  # of a class that a chart shows
LUNG_PET_CT_DX = "Lung-PET-CT-Dx (Li et al. 2020), The Cancer Imaging Archive, doi.org/10.7937/TCIA.2020.NNC2-0461"
# What to write below a scan that lies in the folder of this set, see `registry.toml`.
CREDITS = {"lungpetctdx": f"CT: {LUNG_PET_CT_DX}, CC BY 4.0. Changed: one slice, its grey scale."}


@styled
def hu_windows(path: str | Path = "") -> Picture:
    """One raw axial slice, that with the most lung, through several HU windows, and its histogram below.

    Args:
        path: A NIfTI scan in HU, from here or from the artifact's root. Its folder's name tells whom to credit,
            see CREDITS. Where there is no such file, a phantom is shown, and the picture says so.

    Raises:
        DataError: the file is there but cannot be used, see `nifti.read_nifti`.
    """
    file = next((file for file in (Path(path), artifact_root() / path) if file.is_file()), None)
    if file is not None:
        credit = CREDITS.get(file.parent.name, f"CT: {file.name}")
        voxels, affine = read_nifti(file)
        directions = ct.axis_directions(affine, file)  # axes are to run to the patient's left, front and head
        hu, spacing = apply_orientation(voxels, directions), voxel_sizes(affine)[directions[:, 0].argsort()]
    else:
        phantom = typical_phantom("Tuberculoma")
        hu, spacing = phantom.hu, phantom.spacing
        credit = f"{f'No scan at {path}: s' if path else 'S'}imulated. Real scans: {LUNG_PET_CT_DX}."
    z = np.count_nonzero((hu > LUNG_HU[0]) & (hu < LUNG_HU[1]), axis=(0, 1)).argmax()
    values = hu[:, :, z]
    windows = {"all values": (int(values.min()), int(values.max()))} | CT_WINDOWS
    figure = Figure(figsize=(6.4, 7.6))
    pictures, histogram = figure.subfigures(2, 1, height_ratios=(3, 1))
    for axis, (name, (low, high)) in zip(pictures.subplots(2, 2).flat, windows.items(), strict=True):
        grey = np.rint(255 * ct.window_hu(values, (low, high)))
        # As radiologists look at it: front up, the patient's right on the left.
        draw_slice(axis, grey.T[::-1], aspect=spacing[1] / spacing[0], sides=True)
        axis.set_title(f"{name}, {low} to {high} HU", fontsize=9, loc="center")
    axis = histogram.subplots()
    axis.hist(values.ravel(), bins=np.arange(values.min(), values.max() + 21, 20), color="#888888", log=True)
    for (name, ends), colour, line in zip(CT_WINDOWS.items(), WINDOW_COLOURS, ("-", "--", ":"), strict=True):
        axis.vlines(ends, 0.5, axis.get_ylim()[1], color=colour, ls=line, label=name)
    axis.set(xlabel="Hounsfield units (air -1000, water 0)", ylabel="voxels")
    axis.legend(fontsize=8, title="window", title_fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    histogram.subplots_adjust(bottom=0.25)
    figure.text(0.02, 0, textwrap.fill(credit, 100), fontsize=7.5, va="top", ha="left")
    cut = ", ".join(
        f"{name} window {(values < low).mean():.0%} below and {(values > high).mean():.0%} above"
        for name, (low, high) in CT_WINDOWS.items()
    )
    scales = ", ".join(f"{name} {low} to {high} HU" for name, (low, high) in windows.items())
    alt = (
        f"Axial slice {z + 1} of {hu.shape[2]} of a chest CT in {len(windows)} grey scales: {scales}. Below, the "
        f"histogram of its values with the bounds of the windows. Voxels outside: {cut}. {credit}"
    )
    return Photograph(figure, alt, synthetic=file is None)


@styled
def group_structure(clips: ClipSet, splits: dict[str, Split]) -> Picture:
    """Which part each clip of each group falls into, a panel a split: a group that shows two colours straddles.

    Splits are given by the title of the panel. Of each class the first MOST_GROUPS groups are shown, all are counted.
    """
    most = max(np.unique(clips.groups, return_counts=True)[1].max(), 1)
    figure, axes = new_axes(len(splits), 1, size=(chart_width(), len(splits) * (0.27 * len(clips.class_names) + 0.75)))
    colours, told, hidden = ListedColormap(list(PART_COLOURS.values())), [], 0
    for axis, (title, split) in zip(axes[:, 0], splits.items(), strict=True):
        part_of = np.full(len(clips), np.nan)
        for number, part in reversed(list(enumerate(PARTS))):  # a clip that validates and tests counts as validating
            part_of[getattr(split, part)] = number
        parts_of_group, rows = pd.Series(part_of).groupby(clips.groups).nunique(), []
        straddling = f"{(parts_of_group > 1).sum()} of {len(parts_of_group)} groups"
        for label in range(len(clips.class_names)):
            names = np.unique(clips.groups[clips.labels == label])
            hidden = max(hidden, len(names) - MOST_GROUPS)
            shown = [part_of[(clips.labels == label) & (clips.groups == name)] for name in names[:MOST_GROUPS]]
            rows.append([part for parts in shown for part in (*parts, np.nan)])  # a gap after each group
        stripes = np.full((2 * len(rows), max(map(len, rows))), np.nan)  # and one after each class
        for row, parts in enumerate(rows):
            stripes[2 * row, : len(parts)] = parts
        axis.imshow(stripes, cmap=colours, vmin=0, vmax=2, aspect="auto", interpolation="nearest")
        axis.set_title(f"{title}: {straddling} straddle", fontsize=10)
        axis.spines[["left", "bottom"]].set_visible(False)
        axis.set_xticks([])
        axis.set_yticks(2 * np.arange(len(rows)), clips.class_names, fontsize=9)
        axis.tick_params(left=False)
        told.append(f"{title}, {straddling} are in more than one part")
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in PART_COLOURS.values()]
    axes[-1, 0].set_xlabel("a block a group, a stripe a clip")
    figure.tight_layout(rect=(0, 0.3 / figure.get_figheight(), 1, 1))  # room for the legend
    figure.legend(handles, PARTS, ncols=3, loc="lower center", bbox_to_anchor=(0.55, 0))
    more = f" At most {MOST_GROUPS} groups a class are drawn." if hidden > 0 else ""
    alt = f"{len(parts_of_group)} groups of up to {most} clips, a row a class, coloured by the part of each clip: "
    return Picture(figure, f"{alt}{'; '.join(told)}.{more}", synthetic=clips.synthetic)


@styled
def sampling_of_scan(*, depths: tuple[int, ...] = (PAPER_FRAMES, 16)) -> Picture:
    """A miliary phantom seen from the front, whole and resampled to fewer slices; how many nodules a slice meets."""
    phantom, told = typical_phantom("Miliary"), []
    n_slices, lung = phantom.hu.shape[2], phantom.hu.shape[1] // 2
    nodules, n_nodules = ndimage.label(phantom.finding)
    figure, axes = new_axes(1, 1 + len(depths), size=(7.4, 2.7))
    for axis, depth in zip(axes[0], (n_slices, *depths), strict=True):
        # The same linear sampling as the volume's, of the front view alone.
        view = ct.resample_volume(phantom.hu[:, lung][:, None], depth=depth, size=len(phantom.hu))[:, 0]
        met = np.count_nonzero(np.unique(nodules[:, :, slices_read(n_slices, depth)])) / n_nodules
        apart = phantom.spacing[2] * (n_slices - 1) / (depth - 1)
        aspect = phantom.spacing[2] * n_slices / depth / phantom.spacing[0]
        draw_slice(axis, np.rint(255 * ct.window_hu(view))[::-1], aspect=aspect)
        axis.set_title(f"{depth} slices, {apart:.1f} mm apart", fontsize=9, loc="center")
        axis.text(0.5, -0.04, f"{met:.0%} of the nodules met", transform=axis.transAxes, ha="center", va="top")
        told.append(f"{depth} slices {apart:.1f} millimetres apart meet {met:.0%}")
    figure.tight_layout()
    alt = f"A simulated chest with {n_nodules} small nodules seen from the front, with fewer and fewer slices."
    return Photograph(figure, f"{alt} Of the nodules, {'; '.join(told)}.", synthetic=True)


@styled
def sampling_of_video(samplings: dict[str, tuple[int, int]]) -> Picture:
    """Which seconds of a simulated video are seen, a row a sampling: (frames, stride) by name, from the first frame."""
    from viptt_core.synthetic.actions import make_clip

    # Frames, more where a sampling asks for more.
    length = max(160, *((count - 1) * stride + 1 for count, stride in samplings.values()))
    thumbnails, seconds = 8, length / UCF_FRAME_RATE
    frames = make_clip(UCF_CLASSES.index("TennisSwing"), 1, 1, frames=length)
    figure, axes = new_axes(2, 1, size=(7.4, 1.3 + 0.34 * len(samplings)))
    strip, axis = axes[:, 0]
    for k in range(thumbnails):
        frame = frames[round((k + 0.5) * length / thumbnails)]
        strip.imshow(frame, extent=(k * seconds / thumbnails, (k + 0.97) * seconds / thumbnails, 0, 1), aspect="auto")
    strip.set(xlim=(0, seconds), ylim=(0, 1))
    strip.set_axis_off()
    told = []
    for row, (name, (count, stride)) in enumerate(samplings.items()):
        seen = np.arange(count) * stride
        axis.plot([0, seconds], [row, row], color="#DDDDDD", lw=7, solid_capstyle="butt", zorder=1)
        axis.plot(seen / UCF_FRAME_RATE, np.full(count, row), "|", color="#0072B2", ms=9, mew=1.4)
        told.append(f"{name}, {count} frames to second {(seen[-1] + 1) / UCF_FRAME_RATE:.1f}")
    axis.set_yticks(range(len(samplings)), samplings)
    axis.set(xlim=(0, seconds), ylim=(len(samplings) - 0.5, -0.5), xlabel="seconds")
    axis.tick_params(left=False)
    axis.spines["left"].set_visible(False)
    figure.tight_layout()
    alt = f"A simulated video of {seconds:.1f} seconds, and marks at the frames that are read: {'; '.join(told)}."
    return Photograph(figure, f"{alt} What comes later is never seen.", synthetic=True)


@styled
def leakage_chart(leakage: Leakage) -> Picture:
    """Accuracy of the nearest neighbour under both splits, a line a seed, and what always naming one class gets."""
    import seaborn

    figure, axes = new_axes(1, 1, size=(chart_width(), 2.2))
    axis, order = axes[0, 0], [BY_CLIP, BY_GROUP]
    look = {"data": leakage.runs, "x": "accuracy", "y": "split", "order": order, "hue": "split", "hue_order": order}
    look |= {"palette": ["#D55E00", OTHER_COLOUR], "legend": False, "ax": axis}
    seaborn.barplot(errorbar=None, alpha=0.35, **look)
    seaborn.stripplot(marker="|", jitter=False, size=16, linewidth=2, **look)
    axis.axvline(leakage.chance, color="black", lw=0.9, ls="--", label="largest class")
    axis.set_yticks([0, 1], [f"split {name}: {leakage.table.loc[name, 'accuracy']:.0%}" for name in order])
    axis.set(xlim=(0, 1), xlabel="accuracy of the nearest neighbour; a mark a seed", ylabel="")
    axis.xaxis.set_major_formatter("{x:.0%}")
    figure.tight_layout()
    legend_below(figure, axis)
    alt = f"Bars of the accuracy of a nearest neighbour. {leakage.sentence()}"
    return Picture(figure, alt, synthetic=leakage.synthetic, table=leakage.runs)


def slices_read(n_slices: int, depth: int) -> np.ndarray:
    """Indices of the slices that enter when `n_slices` are resampled to `depth` linearly, corners on corners."""
    position = np.linspace(0, n_slices - 1, depth)
    return np.unique(np.concatenate([np.floor(position), np.ceil(position)]).astype(int))


@functools.lru_cache(maxsize=len(TB_CLASSES))  # several pictures of a page show the same ones
def typical_phantom(name: str, size: int = 0):
    """The typical phantom of a type, `size` voxels in-plane; 0: PHANTOM_GRID."""
    from viptt_core.synthetic.phantom import make_phantom

    width, slices = PHANTOM_GRID
    return make_phantom((0, PATIENTS[name]), TB_CLASSES.index(name), size=size or width, slices=slices)
