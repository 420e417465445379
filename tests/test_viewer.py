"""The viewer: every picture in the page, nothing from elsewhere, the same in a live session, small enough."""

import base64
import dataclasses
import json
import re
import shutil
import subprocess

import cv2
import nbformat.v4 as v4
import numpy as np
import pytest

from viptt_core import viewer
from viptt_core.errors import SettingError
from viptt_core.publish import scrub
from viptt_core.viewer import Shown, Viewer, browse_clips, view_clip

WIDGET = "application/vnd.jupyter.widget-view+json"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def data_of(page):
    """What the page's script shows: one entry a clip."""
    return json.loads(re.search(r"clips=(\[.*\]), clip=clips", page)[1])


def picture_of(text):
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_GRAYSCALE)


def test_the_page_holds_every_step_and_no_link_to_elsewhere(make_clip_set):
    page = view_clip(make_clip_set(synthetic=True, frames=5), 3).page()
    (clip,) = data_of(page)
    assert len(clip["frames"]) == clip["count"] == 5 and clip["steps"] == [1, 2, 3, 4, 5]
    assert "class1, c3, synthetic" in page and 'aria-label="step"' in page and "<select>" not in page
    assert not re.search(r"https?://|src=\"(?!data:)", page)


def test_the_page_shows_the_frames_it_was_given():
    frames = np.stack([np.full((20, 30), level, np.uint8) for level in (10, 200)])
    (clip,) = data_of(Viewer(frames, caption="two").page())
    assert [int(picture_of(text).mean()) for text in clip["frames"]] == [10, 200]
    assert picture_of(clip["frames"][0]).shape == (20, 30)


def test_clips_with_fractions_are_shown_as_those_without(make_clip_set):
    whole = make_clip_set(n=4)
    fractions = dataclasses.replace(whole, clips=(whole.clips - np.float16(0.25)).clip(0).astype(np.float16))
    assert view_clip(fractions, 1).page() == view_clip(whole, 1).page()


def test_captions_cannot_inject_markup():
    evil = '</script><script>alert("x")</script>'
    clips = [Shown(np.zeros((1, 4, 4), np.uint8), evil, evil, evil)] * 2
    page = Viewer(clips, unit=evil).page()
    assert page.count("<script>") == page.count("</script>") == 1
    assert data_of(page)[0]["caption"] == evil


@pytest.mark.parametrize("frames", [np.zeros((2, 3, 3)), np.zeros((2, 3), np.uint8), np.zeros((0, 3, 3), np.uint8)])
def test_frames_of_another_kind_are_refused(frames):
    with pytest.raises(SettingError, match="uint8 or float16"):
        Viewer(frames, caption="x")
    with pytest.raises(SettingError, match="no clip"):
        Viewer([])


def test_the_browser_offers_the_first_clips_of_each_class_by_name(make_clip_set):
    page = browse_clips(make_clip_set(n=9, classes=3), per_class=2).page()
    assert re.findall(r'<option value="(\d)">([^<]+)<', page) == [
        ("0", "class0: c0"), ("1", "class0: c3"), ("2", "class1: c1"), ("3", "class1: c4"), ("4", "class2: c2"),
        ("5", "class2: c5"),
    ]  # fmt: skip
    assert re.findall(r'<optgroup label="([^"]+)"', page) == ["class0", "class1", "class2"]
    assert page.index("<label") < page.index("<select>") < page.index("</label>")
    assert [clip["caption"] for clip in data_of(page)][2] == "class1, c1"


def test_a_page_stays_under_its_limit_and_keeps_the_numbers_of_the_steps(make_clip_set):
    clips = make_clip_set(n=4, frames=70, size=224)
    page = browse_clips(clips, most_bytes=60_000).page()
    assert len(page) < 75_000 < len(browse_clips(clips, most_bytes=10**9).page())
    for clip in data_of(page):
        assert clip["count"] == 70 and len(clip["frames"]) == len(clip["steps"]) < 70
        assert clip["steps"][0] == 1 and clip["steps"][-1] == 70
    first = data_of(page)[0]
    shown, meant = picture_of(first["frames"][1]).mean(), clips.clips[0, first["steps"][1] - 1].mean()
    assert shown == pytest.approx(meant, abs=2)


def test_only_a_live_session_gets_the_widget_and_always_the_page_beside_it(make_clip_set, monkeypatch):
    shown = view_clip(make_clip_set(), 0)
    assert set(shown._repr_mimebundle_()) == {"text/plain", "text/html"}
    monkeypatch.setattr(viewer, "_kernel_runs", lambda: True)
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", WIDGET} and bundle[WIDGET]["model_id"]
    assert bundle["text/html"] == shown.page() and bundle["text/plain"] == "class0, c0 (3 steps)"


def test_the_widget_follows_the_slider_and_the_list():
    long, short = (np.full((n, 8, 8), level, np.uint8) for n, level in ((9, 40), (4, 220)))
    long[8] = 90
    box = Viewer([Shown(long, "a long one", "l", "A"), Shown(short, "a short one", "s", "B")]).widget()
    dropdown, image, (play, slider), words = box.children[0], box.children[1], box.children[2].children, box.children[3]

    def level():
        return int(cv2.imdecode(np.frombuffer(image.value, np.uint8), cv2.IMREAD_GRAYSCALE).mean())

    assert (level(), words.value, [label for label, _ in dropdown.options]) == (40, "a long one", ["A: l", "B: s"])
    slider.value = 9
    assert level() == 90
    dropdown.value = 1
    assert (level(), words.value, slider.value, slider.max, play.max) == (220, "a short one", 4, 4, 4)
    assert len(Viewer(long, caption="x").widget().children) == 3  # nothing to choose


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_pages_plays_and_switches_clips(tmp_path):
    """Two viewers on one page, so that neither takes the other's controls."""
    dark, bright = np.full((6, 8, 8), 10, np.uint8), np.full((3, 8, 8), 99, np.uint8)
    page = Viewer(dark, caption="alone").page() + Viewer([Shown(dark, "dark"), Shown(bright, "bright")]).page()
    probe = """<script>
      var box=document.querySelectorAll(".viptt-viewer")[1], told=[];
      var range=box.querySelector("input"), select=box.querySelector("select"), img=box.querySelector("img");
      function tell(){ told.push([box.querySelector("output").textContent, img.alt, range.max,
        range.getAttribute("aria-valuetext")].join("|")); }
      tell(); range.value=0; range.dispatchEvent(new Event("input")); tell();
      img.dispatchEvent(new WheelEvent("wheel",{deltaY:1,cancelable:true})); tell();
      select.value=1; select.dispatchEvent(new Event("change")); tell();
      box.querySelector("button").click();
      setTimeout(function(){ box.querySelector("button").click(); tell();
        told.push(document.querySelector("output").textContent);
        document.body.innerHTML="<pre>"+told.join("\\n")+"</pre>"; },500);
    </script>"""
    (tmp_path / "page.html").write_text(f"<!doctype html><body>{page}{probe}")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=3000", "--dump-dom",
         (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    told = re.search(r"<pre>(.*)</pre>", done.stdout, re.DOTALL)[1].splitlines()
    assert told == [
        "slice 4/6|dark|5|slice 4 of 6", "slice 1/6|dark|5|slice 1 of 6",  # from the middle; the slider moved
        "slice 2/6|dark|5|slice 2 of 6", "slice 2/3|bright|2|slice 2 of 3",  # the wheel turned; another clip
        "slice 3/3|bright|2|slice 3 of 3",  # four steps played, round the end
        "slice 4/6",  # the other viewer stood still
    ]  # fmt: skip


def test_publishing_keeps_the_page_and_drops_the_widget(make_clip_set, monkeypatch, tmp_path):
    monkeypatch.setattr(viewer, "_kernel_runs", lambda: True)
    shown = view_clip(make_clip_set(), 0)
    alone = {"text/plain": "IntSlider()", WIDGET: {"model_id": "x"}}  # a widget of the reader's own
    cell = v4.new_code_cell("x", outputs=[
        v4.new_output("execute_result", shown._repr_mimebundle_()), v4.new_output("display_data", alone),
    ])  # fmt: skip
    notebook = v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    scrub(notebook, tmp_path)
    assert [dict(output["data"]) for output in cell.outputs] == [
        {"text/plain": "class0, c0 (3 steps)", "text/html": shown.page()}
    ]
    assert "widget" not in str(notebook).replace("viptt-viewer", "")
