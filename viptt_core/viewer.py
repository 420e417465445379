"""Viewer that pages through volumes and clips: ipywidgets where a kernel runs, HTML and JavaScript elsewhere.

The HTML is whole in itself: it needs no kernel, no widget state and no network, so a published page keeps it alone.
"""

from __future__ import annotations

import base64
import html
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from viptt_core.errors import SettingError
from viptt_core.store import CLIP_DTYPES, ClipSet

PLAY_MS = 120  # a step
MOST_BYTES = 500_000  # of the pictures of one `browse_clips` in a page
# Largest side in pixels, steps shown, JPEG quality: the first that stays under the limit is taken.
LADDER = ((256, 80, 80), (160, 48, 70), (128, 32, 65), (112, 24, 60), (96, 16, 50), (64, 12, 50), (48, 8, 40))

TEMPLATE = """<div class="viptt-viewer" style="max-width:{width}px;color:inherit">
{select}<img alt="{alt}" style="width:100%;background:#000" src="data:image/jpeg;base64,{first}">
<div style="display:flex;gap:.6em;align-items:center">
<button type="button" aria-label="play" style="min-width:2.5em;min-height:2em">&#9654;</button>
<input type="range" min="0" max="{last}" value="{start}" style="flex:1;min-width:4em" aria-label="{unit}">
<output style="min-width:6em">{shown}</output></div>
<p style="margin:.2em 0 0">{alt}</p>
<script>(function(){{
  var box=document.currentScript.parentElement, clips={clips}, clip=clips[0], timer=null;
  var img=box.querySelector("img"), range=box.querySelector("input"), out=box.querySelector("output");
  var button=box.querySelector("button"), select=box.querySelector("select"), words=box.querySelector("p");
  function show(){{ img.src="data:image/jpeg;base64,"+clip.frames[range.value];
    out.textContent="{unit} "+clip.steps[range.value]+"/"+clip.count;
    range.setAttribute("aria-valuetext","{unit} "+clip.steps[range.value]+" of "+clip.count); }}
  function stop(){{ clearInterval(timer); timer=null; button.innerHTML="&#9654;";
    button.setAttribute("aria-label","play"); }}
  range.addEventListener("input",show);
  img.addEventListener("wheel",function(e){{ var to=+range.value+(e.deltaY>0?1:-1);
    if(to<0||to>+range.max) return;
    e.preventDefault(); range.value=to; show(); }},{{passive:false}});
  button.addEventListener("click",function(){{ if(timer){{ stop(); return; }}
    button.innerHTML="&#10074;&#10074;"; button.setAttribute("aria-label","pause");
    timer=setInterval(function(){{ range.value=(+range.value+1)%clip.frames.length; show(); }},{play_ms}); }});
  if(select) select.addEventListener("change",function(){{ clip=clips[select.value];
    range.max=clip.frames.length-1; img.alt=words.textContent=clip.caption; show(); }});
  show();
}})();</script></div>"""


@dataclass(frozen=True)
class Shown:
    """One clip to page through.

    Attributes:
        frames: uint8 or float16 [T, H, W], grey levels 0..255.
        caption: Says what is shown.
        name: In the list of clips.
        heading: Its class, over the names of the list.
    """

    frames: np.ndarray
    caption: str
    name: str = ""
    heading: str = ""


class Viewer:
    """Page through volumes or clips: slider, arrow keys on it, mouse wheel on the picture, play; choose one if several.

    Args:
        frames: uint8 or float16 [T, H, W], grey levels 0..255; fractions are rounded where they are shown. Or
            several clips, each as `Shown`.
        caption: Says what is shown; it is the picture's text alternative too. Of one clip.
        unit: "slice", "frame" or "step".
        width: Largest width on the page, in CSS pixels.
        quality: JPEG quality, 1 to 100.
        most_bytes: Size limit of the pictures in the page; None for none. Above it they become smaller, then
            fewer: the numbers beside the slider stay those of the clip. A live session shows all.

    Raises:
        SettingError: frames of another dtype or number of dimensions, or no clip.
    """

    def __init__(self, frames: np.ndarray | Sequence[Shown], *, caption: str = "", unit: str = "slice",
                 width: int = 420, quality: int = 80, most_bytes: int | None = None) -> None:  # fmt: skip
        self.clips = [Shown(np.asarray(frames), caption)] if isinstance(frames, np.ndarray) else list(frames)
        if not self.clips:
            raise SettingError("there is no clip to show.", remedy="Give at least one.")
        for clip in self.clips:
            if clip.frames.ndim != 3 or clip.frames.dtype not in CLIP_DTYPES or not len(clip.frames):
                raise SettingError(f"frames are {clip.frames.dtype} {clip.frames.shape}.",
                                   remedy="Give uint8 or float16 [T, H, W].")  # fmt: skip
        self.unit, self.width, self.quality, self.most_bytes = unit, width, quality, most_bytes

    def __repr__(self) -> str:
        if len(self.clips) > 1:
            return f"{len(self.clips)} clips: " + ", ".join(clip.name for clip in self.clips)
        return f"{self.clips[0].caption} ({len(self.clips[0].frames)} {self.unit}s)"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, object]:
        """HTML and words; in a live session the widget too, which front ends that know it prefer."""
        live = self.widget()._repr_mimebundle_() if _kernel_runs() else {}
        return live | {"text/plain": repr(self), "text/html": self.page()}

    def page(self) -> str:
        """A piece of HTML that is whole in itself."""
        clips, first = self._encoded(), self.clips[0]
        start = len(clips[0]["frames"]) // 2
        return TEMPLATE.format(
            width=self.width, alt=html.escape(first.caption, quote=True), unit=html.escape(self.unit, quote=True),
            select=self._select(), start=start, first=clips[0]["frames"][start], last=len(clips[0]["frames"]) - 1,
            shown=f"{html.escape(self.unit)} {clips[0]['steps'][start]}/{clips[0]['count']}", play_ms=PLAY_MS,
            clips=json.dumps(clips).replace("<", "\\u003c"),  # no caption can end the script
        )  # fmt: skip

    def widget(self):
        """The ipywidgets form: pictures come from the kernel, every step of every clip at full size."""
        import ipywidgets

        clip = ipywidgets.Dropdown(options=[(f"{c.heading}: {c.name}", i) for i, c in enumerate(self.clips)],
                                   description="clip")  # fmt: skip
        steps = len(self.clips[0].frames)
        slider = ipywidgets.IntSlider(steps // 2 + 1, 1, steps, description=self.unit)
        play = ipywidgets.Play(min=1, max=steps, value=slider.value, interval=PLAY_MS)
        image, words = ipywidgets.Image(format="jpeg", width=self.width), ipywidgets.Label()
        ipywidgets.jslink((play, "value"), (slider, "value"))

        def choose(change=None) -> None:
            play.max = slider.max = len(self.clips[clip.value].frames)
            show()

        def show(change=None) -> None:
            shown = self.clips[clip.value]
            image.value, words.value = _jpeg(shown.frames[slider.value - 1], quality=self.quality), shown.caption
            image.tooltip = f"{shown.caption}, {self.unit} {slider.value}"

        clip.observe(choose, "value")
        slider.observe(show, "value")
        show()
        rows = [image, ipywidgets.HBox([play, slider]), words]
        return ipywidgets.VBox([clip, *rows] if len(self.clips) > 1 else rows)

    def _select(self) -> str:
        if len(self.clips) == 1:
            return ""
        groups = dict.fromkeys(clip.heading for clip in self.clips)
        listed = "".join(
            f'<optgroup label="{html.escape(heading, quote=True)}">'
            + "".join(f'<option value="{i}">{html.escape(heading)}: {html.escape(clip.name)}</option>'
                      for i, clip in enumerate(self.clips) if clip.heading == heading) + "</optgroup>"
            for heading in groups
        )  # fmt: skip
        return f'<label style="display:block;margin-bottom:.4em">clip <select>{listed}</select></label>\n'

    def _encoded(self) -> list[dict]:
        """What the script shows of each clip: JPEGs in base64, their numbers from 1, the number of all, words."""
        if self.most_bytes is None:
            return [_encode(clip, quality=self.quality) for clip in self.clips]
        for side, steps, quality in LADDER:
            encoded = [_encode(clip, side=side, steps=steps, quality=quality) for clip in self.clips]
            if sum(len(frame) for clip in encoded for frame in clip["frames"]) <= self.most_bytes:
                break
        return encoded


def view_clip(clips: ClipSet, index: int, *, width: int = 420) -> Viewer:
    """Viewer of one clip of a ClipSet, captioned with its class and name."""
    return Viewer([_shown(clips, index)], unit="step", width=width)


def browse_clips(clips: ClipSet, *, per_class: int = 2, width: int = 420, most_bytes: int = MOST_BYTES) -> Viewer:
    """Viewer of the first clips of each class, chosen by class and name.

    Args:
        clips: The set.
        per_class: Clips of each class.
        width: Largest width on the page, in CSS pixels.
        most_bytes: See `Viewer`.
    """
    chosen = [i for k in range(len(clips.class_names)) for i in np.flatnonzero(clips.labels == k)[:per_class]]
    return Viewer([_shown(clips, i) for i in chosen], unit="step", width=width, most_bytes=most_bytes)


def _shown(clips: ClipSet, index: int) -> Shown:
    heading, name = clips.class_names[clips.labels[index]], str(clips.names[index])
    return Shown(clips.clips[index], f"{heading}, {name}{', synthetic' if clips.synthetic else ''}", name, heading)


def _encode(clip: Shown, *, quality: int, side: int | None = None, steps: int | None = None) -> dict:
    count = len(clip.frames)
    kept = np.linspace(0, count - 1, min(count, steps or count)).round().astype(int)
    frames = [base64.b64encode(_jpeg(clip.frames[k], quality=quality, side=side)).decode() for k in kept]
    return {"frames": frames, "steps": (kept + 1).tolist(), "count": count, "caption": clip.caption}


def _jpeg(frame: np.ndarray, *, quality: int, side: int | None = None) -> bytes:
    if frame.dtype != np.uint8:
        frame = np.rint(frame).clip(0, 255).astype(np.uint8)
    if side is not None and max(frame.shape) > side:
        height, width = (max(round(n * side / max(frame.shape)), 1) for n in frame.shape)
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _kernel_runs() -> bool:
    """Whether a Jupyter kernel runs this code, so that a widget has someone to talk to."""
    shell: Callable | None = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return getattr(shell() if shell else None, "kernel", None) is not None
