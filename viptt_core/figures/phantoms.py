"""Phantoms in the viewer, with the finding outlined: the generator knows where it is."""

from __future__ import annotations

import numpy as np

from viptt_core import ct
from viptt_core.constants import HU_WINDOW, PAPER_FRAMES, PAPER_SIZE, TB_CLASSES
from viptt_core.figures.data import typical_phantom
from viptt_core.figures.pictures import Overlay, Shown
from viptt_core.figures.viewer import Viewer, caption_together
from viptt_core.shown import named
from viptt_core.synthetic.phantom import Phantom

SMALL_GRID = (30, 112)  # slices, pixels: of five that share a page
QUALITY = 70  # of their WebP: three quarters of the usual size


@named
def view_phantom(
    name: str = "Fibro-cavernous", *, depth: int = PAPER_FRAMES, size: int = PAPER_SIZE, width: int = 560
) -> Viewer:
    """One phantom on the paper's grid and in its window.

    Args:
        name: One of TB_CLASSES.
        depth, size: Of the grid: slices, pixels.
        width: Largest width on the page, in CSS pixels.
    """
    shown = _shown(name, typical_phantom(name, 2 * size), depth, size)
    return Viewer([shown], hu_window=HU_WINDOW, sides=True, width=width, quality=QUALITY)


@named
def compare_phantoms(
    *, depth: int = SMALL_GRID[0], size: int = SMALL_GRID[1], width: int = 720, most_bytes: int = 450_000
) -> Viewer:
    """A typical phantom of each of the five types side by side; arguments as for `view_phantom` and `Viewer`."""
    shown = [_shown(name, typical_phantom(name), depth, size) for name in TB_CLASSES]
    return Viewer(
        shown,
        caption=caption_together(shown),
        together=True,
        hu_window=HU_WINDOW,
        sides=True,
        width=width,
        quality=QUALITY,
        most_bytes=most_bytes,
    )


def _shown(name: str, phantom: Phantom, depth: int, size: int) -> Shown:
    volume = ct.prepare_volume(phantom.hu, depth=depth, size=size, hu_window=HU_WINDOW)
    finding = ct.resample_volume(phantom.finding, depth=depth, size=size) > 0
    step_mm = phantom.spacing[2] * (phantom.hu.shape[2] - 1) / (depth - 1)
    return Shown(
        np.rint(255 * volume).astype(np.uint8),
        f"{name}, a simulated chest, synthetic",
        "",
        name,
        (Overlay("finding, outlined", finding),),
        step_mm,
        synthetic=True,
    )
