"""The viewer in a live session: ipywidgets, whose pictures the kernel draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from viptt_core.figures.pictures import MAP_COLOURS, OUTLINE_COLOUR, Shown, outlines

if TYPE_CHECKING:
    from viptt_core.figures.viewer import Viewer

OPACITY = {True: 1.0, False: 0.6}  # at first, of an outline and of a map
ORANGE = tuple(int(OUTLINE_COLOUR[k : k + 2], 16) for k in (1, 3, 5))


def build_widget(viewer: Viewer):
    """Slider, play, choice of a clip, window and level, overlays, as the page has them; all steps at full size."""
    import ipywidgets as w

    shown = viewer.clips if viewer.together else viewer.clips[:1]
    low, high = viewer.grey_range
    listed = [(f"{clip.heading}: {clip.name}", i) for i, clip in enumerate(viewer.clips)]
    chosen = w.Dropdown(options=listed, description="clip")
    side = viewer.width // (min(len(shown), 3) if viewer.together else 1)
    images, titles = [w.Image(format="png", width=side) for _ in shown], [w.Label(clip.title) for clip in shown]
    panels = w.HBox(
        [w.VBox(pair) for pair in zip(titles, images, strict=True)],
        layout=w.Layout(flex_flow="row wrap", max_width=f"{viewer.width + 40}px"),
    )
    step, words = w.IntSlider(1, 1, 1, description=viewer.unit), w.Label(viewer.caption)
    play = w.Play(min=1, interval=round(1000 / viewer.rate))
    w.jslink((play, "value"), (step, "value"))
    level = w.FloatSlider((low + high) / 2, min=low, max=high, step=1, description="level", readout_format=".0f")
    width = w.FloatSlider(high - low, min=1, max=2 * (high - low), step=1, description="width", readout_format=".0f")
    names = list(dict.fromkeys(overlay.name for clip in viewer.clips for overlay in clip.overlays))
    regions = {overlay.name: overlay.is_region for clip in viewer.clips for overlay in clip.overlays}
    switches = {name: w.Checkbox(True, description=name, indent=False) for name in names}
    opacity = {name: w.FloatSlider(OPACITY[regions[name]], min=0, max=1, description="opacity") for name in names}

    def fit(start: int) -> None:
        play.max = step.max = max(len(clip.frames) for clip in shown)
        step.value = min(start, step.max)

    def choose(change=None) -> None:
        shown[:] = [viewer.clips[chosen.value]]
        titles[0].value, words.value = shown[0].title, shown[0].caption
        fit(step.value)
        show()

    def show(change=None) -> None:
        laid = {name: opacity[name].value for name in names if switches[name].value}
        share = (step.value - 1) / max(step.max - 1, 1)
        for image, clip in zip(images, shown, strict=True):
            k = round(share * (len(clip.frames) - 1))
            pixels = draw(clip, k, level.value, width.value, viewer.grey_range, laid, side)
            # No tooltip: JupyterLab 4 draws no Image that has one.
            image.value = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()

    def set_window(bounds: tuple[float, float]) -> None:
        level.value, width.value = (bounds[0] + bounds[1]) / 2, bounds[1] - bounds[0]

    def button(name: str, bounds: tuple[float, float]):
        made = w.Button(description=name)
        made.on_click(lambda _: set_window(bounds))
        return made

    shown = list(shown)
    fit(max(len(clip.frames) for clip in shown) // 2 + 1)
    chosen.observe(choose, "value")
    for control in (step, level, width, *switches.values(), *opacity.values()):
        control.observe(show, "value")
    show()
    windows = [button(name, bounds) for name, bounds in viewer.presets.items()]
    windows.append(button("reset window", viewer.grey_range))
    rows = [panels, w.HBox([play, step]), w.HBox(windows), w.HBox([level, width])]
    rows += [w.HBox([switches[name], opacity[name]]) for name in names] + [words]
    return w.VBox(rows if viewer.together or len(viewer.clips) == 1 else [chosen, *rows])


def draw(
    clip: Shown, k: int, level: float, width: float, grey_range: tuple[float, float], laid: dict[str, float], side: int
) -> np.ndarray:
    """One step with window and overlays: uint8 [h, w, 3], RGB, at least `side` wide where there is an overlay.

    Args:
        clip, k: The clip, and which of its steps, from 0.
        level, width: The window, in the units of `grey_range`.
        grey_range: What grey levels 0 and 255 stand for.
        laid: Opacity 0..1 of the overlays to show, by name.
        side: Pixels.
    """
    low, high = grey_range
    values = low + np.arange(256) / 255 * (high - low)
    table = np.rint(255 * ((values - level) / width + 0.5)).clip(0, 255).astype(np.uint8)
    pixels = cv2.cvtColor(table[clip.frames[k]], cv2.COLOR_GRAY2RGB)
    overlays = [overlay for overlay in clip.overlays if overlay.name in laid]
    if not overlays:
        return pixels
    scale = max(1, -(-side // pixels.shape[1]))  # outlines finer than the pixels they go round
    pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    size = pixels.shape[1::-1]
    for overlay in overlays:
        values, opacity = overlay.values[k], laid[overlay.name]
        if overlay.is_region:
            fine = np.array(size) / (2 * np.array(values.shape[::-1]))  # `outlines` counts half pixels
            lines = [np.rint(line * fine).astype(np.int32) for line in outlines(values)]
            top, alpha = cv2.polylines(pixels.copy(), lines, True, ORANGE, 2, cv2.LINE_AA), opacity
        else:
            heat = cv2.resize(values, size, interpolation=cv2.INTER_LINEAR)
            top, alpha = MAP_COLOURS[heat], opacity * (heat[..., None] / 127.5).clip(0, 1)
        pixels = np.rint(alpha * top + (1 - alpha) * pixels).astype(np.uint8)
    return pixels
