"""Slice viewer: a self-contained piece of HTML that pages through a volume or clip.

It needs no kernel, no widget state and no network, so it works in a published page and in a notebook.
"""

from __future__ import annotations

import base64
import html
import json

import numpy as np

from viptt_core.errors import SettingError
from viptt_core.store import CLIP_DTYPES

TEMPLATE = """<div class="viptt-viewer" style="max-width:{width}px">
<img alt="{alt}" style="width:100%;image-rendering:auto;background:#000" src="{first}">
<div style="display:flex;gap:.6em;align-items:center">
<button type="button" aria-label="play or pause">&#9654;</button>
<input type="range" min="0" max="{last}" value="{start}" style="flex:1" aria-label="{unit}">
<output style="min-width:5em">{unit} {shown}/{count}</output></div>
<script>(function(){{
  var box=document.currentScript.parentElement, frames={frames}, timer=null;
  var img=box.querySelector("img"), range=box.querySelector("input"), out=box.querySelector("output");
  function show(){{ img.src="data:image/jpeg;base64,"+frames[range.value];
    out.textContent="{unit} "+(+range.value+1)+"/"+frames.length; }}
  range.addEventListener("input",show);
  img.addEventListener("wheel",function(e){{ e.preventDefault();
    range.value=+range.value+(e.deltaY>0?1:-1); show(); }},{{passive:false}});
  box.querySelector("button").addEventListener("click",function(){{
    if(timer){{ clearInterval(timer); timer=null; return; }}
    timer=setInterval(function(){{ range.value=(+range.value+1)%frames.length; show(); }},120); }});
}})();</script></div>"""


class Viewer:
    """Page through one volume or clip: slider, arrow keys on it, mouse wheel on the picture, play.

    Args:
        frames: uint8 or float16 [T, H, W], grey levels 0..255; fractions are rounded where they are shown.
        caption: Says what is shown; it is the picture's text alternative too.
        unit: "slice" or "frame".
        width: Largest width on the page, in CSS pixels.
        quality: JPEG quality, 1 to 100.

    Raises:
        SettingError: frames of another dtype or number of dimensions.
    """

    def __init__(self, frames: np.ndarray, *, caption: str, unit: str = "slice", width: int = 420,
                 quality: int = 80) -> None:  # fmt: skip
        frames = np.asarray(frames)
        if frames.ndim != 3 or frames.dtype not in CLIP_DTYPES:
            raise SettingError(f"frames are {frames.dtype} {frames.shape}.", remedy="Give uint8 or float16 [T, H, W].")
        self.frames, self.caption, self.unit, self.width, self.quality = frames, caption, unit, width, quality

    def _repr_html_(self) -> str:
        encoded = [self._jpeg(frame) for frame in self.frames]
        start = len(encoded) // 2
        page = TEMPLATE.format(
            width=self.width, alt=html.escape(self.caption, quote=True), unit=self.unit, start=start,
            first=f"data:image/jpeg;base64,{encoded[start]}", shown=start + 1, count=len(encoded),
            last=len(encoded) - 1, frames=json.dumps(encoded),
        )  # fmt: skip
        return f"<figure>{page}<figcaption>{html.escape(self.caption)}</figcaption></figure>"

    def __repr__(self) -> str:
        return f"{self.caption} ({len(self.frames)} {self.unit}s)"

    def _jpeg(self, frame: np.ndarray) -> str:
        import cv2

        if frame.dtype != np.uint8:
            frame = np.rint(frame).clip(0, 255).astype(np.uint8)
        _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        return base64.b64encode(data.tobytes()).decode()


def view_clip(clips, index: int, *, width: int = 420) -> Viewer:
    """Viewer of one clip of a ClipSet, captioned with its class and name."""
    name = clips.class_names[clips.labels[index]]
    mark = ", synthetic" if clips.synthetic else ""
    return Viewer(clips.clips[index], caption=f"{name}, {clips.names[index]}{mark}", unit="step", width=width)
