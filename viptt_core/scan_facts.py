"""What a NIfTI file says of itself, and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import HeaderDataError

from viptt_core.errors import CONVERT_AGAIN, Fault
from viptt_core.nifti import Scan

LEAST_SLICES = 10  # a chest of 30 cm in slices of 10 mm has 30; fewer than 10 are a scout view or a part
SPACING_MM = (0.05, 50.0)  # outside, millimetres were mistaken for something else
SQUARE = 0.01  # relative difference of width and height that nobody sees

AIR = (-1100, -500)  # HU: air, lung
WATER = (-200, 200)  # HU: soft tissue, fat
BRIGHT = 400  # HU: bone, metal
BETWEEN = -300  # HU: lung is darker, fat and soft tissue are brighter
LEAST_NEAR, MOST_BRIGHT = 0.03, 0.25  # shares of the voxels, with room for parts and metal
CUT = -900  # HU: a scan that was cut off above has lost a part of the lung
MOST_OF_A_MASK = 16  # a mask numbers its regions from 0 on
PADDING_GAP, PADDING_SHARE = 100, 0.05  # padding: the lowest value, this far (HU) below the next, of so many voxels
SPIKE = 0.08  # share of one value that no tissue reaches: in real scans at most 3 %


@dataclass(frozen=True)
class ScanFacts:
    """A scan as it is stored."""

    shape: tuple[int, ...]  # voxels along the file's axes X, Y, Z
    spacing: tuple[float, ...]  # mm along them, by the affine
    affine: tuple[float, ...]  # its first three rows, index to mm, flat
    axes: str  # direction in which each axis runs, such as "LAS"; "" where the file does not tell
    transforms: str  # "none" without sform and qform, "turned" where their axes run in other directions, else ""
    n_not_finite: int  # voxels that are NaN or infinite
    lowest: float  # HU, of the others
    highest: float
    # Of a sub-grid, padding left aside: HU and share of values that SPIKE of the voxels have or more (filled in, cut
    # off, clipped air), and HU below which 0.5, 1.5, ... 99.5 % of the others lie.
    spikes: tuple[tuple[float, float], ...]
    percentiles: tuple[float, ...]
    stored: str  # data type of the voxels in the file
    written_by: str  # what its header says of the program
    content: str = ""  # hash of shape and HU in whole numbers, however they are stored; "" where nobody asked for it

    @property
    def spread(self) -> tuple[np.ndarray, np.ndarray]:
        """HU, and the share of voxels near each, first of the percentiles, then of the spikes."""
        values, shares = np.reshape(self.spikes, (-1, 2)).T
        others = np.full(len(self.percentiles), (1 - shares.sum()) / max(len(self.percentiles), 1))
        return np.append(self.percentiles, values), np.append(others, shares)

    @property
    def air(self) -> float:
        """Share of lung and air, padding left aside; nan where nothing is known."""
        hu, shares = self.spread
        return float(shares[hu < AIR[1]].sum()) if hu.size else float("nan")


def scan_facts(scan: Scan, content: str = "") -> ScanFacts:
    """The facts of a scan whose planes were all read."""
    with np.errstate(all="ignore"):  # an axis without length is told by its spacing
        transforms, codes = _compare_transforms(scan), nib.aff2axcodes(scan.affine)
    spikes, percentiles = _spread(np.concatenate(scan.sampled, axis=None))
    return ScanFacts(
        shape=scan.shape,
        spacing=tuple(voxel_sizes(scan.affine).tolist()),
        affine=tuple(scan.affine[:3].ravel().tolist()),
        axes="" if transforms == "none" or None in codes else "".join(codes),
        transforms=transforms,
        n_not_finite=scan.n_holes,
        lowest=scan.lowest,
        highest=scan.highest,
        spikes=spikes,
        percentiles=percentiles,
        stored=scan.stored.str,
        written_by=scan.written_by,
        content=content,
    )


def _compare_transforms(scan: Scan) -> str:
    """Whether the header's two transforms contradict each other, see ScanFacts."""
    header = scan.header
    if not header["sform_code"] and not header["qform_code"]:
        return "none"
    if header["sform_code"] and header["qform_code"]:
        with suppress(ValueError, HeaderDataError):  # a quaternion that is none; the affine came from the sform
            axes = [nib.io_orientation(affine) for affine in (header.get_sform(), header.get_qform())]
            return "" if np.array_equal(*axes, equal_nan=True) else "turned"
    return ""


def _spread(sampled: np.ndarray) -> tuple[tuple[tuple[float, float], ...], tuple[float, ...]]:
    """Spikes and percentiles, see ScanFacts."""
    hu, counts = np.unique(sampled[np.isfinite(sampled)].astype(float), return_counts=True)
    while len(hu) > 1 and hu[0] < min(CUT, hu[1] - PADDING_GAP) and counts[0] >= PADDING_SHARE * counts.sum():
        hu, counts = hu[1:], counts[1:]
    often = counts >= SPIKE * counts.sum()
    spikes = tuple(zip(hu[often].tolist(), (counts[often] / counts.sum()).tolist(), strict=True))
    others = np.repeat(hu[~often], counts[~often])
    places = ((np.arange(100) + 0.5) / 100 * others.size).astype(int)
    return spikes, tuple(others[places].tolist()) if others.size else ()


def scan_faults(where: str, facts: ScanFacts, orientation: str) -> Iterator[Fault]:
    """What is wrong with a scan by itself."""
    canonical = orientation == "canonical"
    matters = "file" if canonical else "note"  # what only an orientation can spoil
    if facts.n_not_finite:
        what = f"{facts.n_not_finite} of {prod(facts.shape)} voxels are NaN or infinite; they are read as air."
        yield Fault("voxels not finite", where, what, level="note")
    if facts.lowest == facts.highest:
        yield Fault("one grey level", where, f"every voxel is {facts.lowest:g}.", "Leave it out.", level="file")
    else:
        yield from _unit_faults(where, facts)
    if facts.transforms == "none":
        what = "does not say how it lies: the codes of its sform and its qform are 0."
        remedy = f"{CONVERT_AGAIN} Only orientation='canonical' needs to know."
        yield Fault("no orientation", where, what, remedy, level=matters)
    if min(facts.spacing) <= 0 or not (facts.axes or facts.transforms == "none"):
        what = f"its affine gives an axis no length or direction ({_mm(facts.spacing)})."
        yield Fault("bad spacing", where, what, CONVERT_AGAIN, level=matters)
    elif not all(SPACING_MM[0] <= mm <= SPACING_MM[1] for mm in facts.spacing):
        what = f"its header states a spacing of {_mm(facts.spacing)}."
        yield Fault("bad spacing", where, what, CONVERT_AGAIN, "note")
    if facts.axes and facts.transforms == "turned":
        followed = "; the sform is followed" if canonical else ""
        what = f"its sform and qform turn it in different ways{followed}."
        yield Fault("two orientations", where, what, f"Find out which one is right. {CONVERT_AGAIN}", level=matters)
    if (n := facts.shape[slice_axis(facts)]) < LEAST_SLICES:
        yield Fault("few slices", where, f"has {n} slices.", "Is it a scout view?", level="note")
    i, j = (k for k in range(3) if k != slice_axis(facts))
    width, height = (facts.shape[k] * (facts.spacing[k] if min(facts.spacing) > 0 else 1) for k in (i, j))
    if abs(width - height) > SQUARE * max(width, height):
        size = f"{width:.0f} by {height:.0f} mm ({facts.shape[i]} by {facts.shape[j]} voxels)"
        what = f"its slices measure {size}; resizing stretches them to a square."
        yield Fault("not square", where, what, level="note")


def _unit_faults(where: str, facts: ScanFacts) -> Iterator[Fault]:
    """A scan in other units can be decoded, but nearly all of it falls on one side of the window, unnoticed."""
    hu, shares = facts.spread
    if not hu.size:
        return
    air, water, bright, below = _shares(hu, shares, AIR, WATER, (BRIGHT, np.inf), (-np.inf, AIR[0]))
    n = len(facts.percentiles)
    lowest = facts.spikes[0][0] if facts.spikes and facts.spikes[0][0] == hu.min() else -np.inf
    is_plain = lowest <= AIR[1] and max(hu[n:], default=0) <= WATER[1]  # nothing cut off, nor filled as no tissue is
    if _holds_chest(hu, shares) or (n and _holds_chest(hu[:n], shares[:n], or_part=is_plain)):
        for value, share in facts.spikes:
            if value > CUT:
                what = f"{share:.0%} of its voxels are exactly {value:g}: filled in, or cut off there."
                remedy = "They are read as they stand; better take the scan that this was made from."
                yield Fault("filled or cut off", where, what, remedy, level="note")
        if air < LEAST_NEAR:
            what = f"holds neither air nor lung; {water:.0%} of its voxels are near water."
            yield Fault("no lung", where, what, "Is it a chest, and in HU?", level="note")
        return
    what = (
        f"does not look like Hounsfield units (values {facts.lowest:g} to {facts.highest:g}; padding aside, {air:.0%} "
        f"of the voxels are near air, {water:.0%} near water, {bright:.0%} above {BRIGHT}, {below:.0%} below {AIR[0]})."
    )
    remedy = "Was its intercept lost or applied twice, was it cut off, or made a picture? "
    remedy += "Take the scan that it was made from, or rescale it so that air is -1000 and water 0."
    if np.dtype(facts.stored).kind in "iu" and facts.lowest >= 0 and facts.highest <= MOST_OF_A_MASK:
        remedy = "It looks like a mask: give the scan that it was made from."
    yield Fault("not in HU", where, what, remedy, level="file")


def _holds_chest(hu: np.ndarray, shares: np.ndarray, or_part: bool = False) -> bool:
    """Whether these can be HU of a scan in which there is some chest; or of lung alone, or of soft tissue alone.

    The dark voxels and the bright ones of a chest are two heaps, each where HU has air and lung, or tissue.
    """
    air, water, bright, below, lung, well_below = _shares(
        hu, shares, AIR, WATER, (BRIGHT, np.inf), (-np.inf, AIR[0]), (-1050, -400), (-np.inf, -1050)
    )
    if bright > MOST_BRIGHT or below > 0.5:
        return False
    darkest, dark = _quantiles(hu, shares, hu < BETWEEN, (0.1, 0.5))
    low, tissue = _quantiles(hu, shares, hu >= BETWEEN, (0.05, 0.5))
    if min(air, water) >= LEAST_NEAR:
        is_cut = shares[hu.argmin()] >= SPIKE
        return bool((is_cut or darkest < -800) and -250 < tissue < 200)
    lung_alone = lung > 0.5 and well_below < 0.05 and -950 < dark < AIR[1] and hu.max() > -600
    tissue_alone = water > 0.5 and hu.min() < -20 and tissue - low > 20
    return bool(or_part and (lung_alone or tissue_alone))


def _quantiles(hu: np.ndarray, shares: np.ndarray, of: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """HU below which these shares of some of the voxels lie; nan where there are none."""
    if not of.any():
        return np.full(len(levels), np.nan)
    return np.quantile(hu[of], levels, weights=shares[of], method="inverted_cdf")


def _shares(hu: np.ndarray, shares: np.ndarray, *ranges: tuple[float, float]) -> list[float]:
    """Of all voxels those in each range of HU."""
    return [float(np.average((low <= hu) & (hu <= high), weights=shares)) for low, high in ranges]


def slice_axis(facts: ScanFacts) -> int:
    """The file's axis along the body; the third where the file does not say."""
    return next((k for k, code in enumerate(facts.axes) if code in "SI"), 2)


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{mm:.4g}" for mm in spacing) + " mm"
