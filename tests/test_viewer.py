"""The viewer: every picture in the page, nothing from elsewhere, the same in a live session, small enough."""

import base64
import json
import re
from contextlib import ExitStack
from datetime import datetime

import cv2
import nbformat.v4 as v4
import numpy as np
import pytest
from browser import CHROMIUM, PHONE, open_browser, open_tab, too_wide

from viptt_core.book.publish import scrub
from viptt_core.constants import CT_WINDOWS, HU_WINDOW, TB_CLASSES
from viptt_core.errors import SettingError
from viptt_core.figures import viewer
from viptt_core.figures.live import draw
from viptt_core.figures.phantoms import compare_phantoms
from viptt_core.figures.pictures import MAP_COLOURS, Overlay, Shown, outlines, pack, path_of
from viptt_core.figures.viewer import Viewer, browse_clips, compare_clips, view_clip

WIDGET = "application/vnd.jupyter.widget-view+json"


def data_of(page):
    """What the page's script is given."""
    return json.loads(re.search(r"vipttViewer\(document.currentScript.parentElement, (\{.*\})\);</script>", page)[1])


def frames_of(sheet):
    """Steps of a sheet, uint8, cut out as the script does."""
    raw = np.frombuffer(base64.b64decode(sheet["picture"]), np.uint8)
    picture, (width, height), (wide, tall) = cv2.imdecode(raw, cv2.IMREAD_GRAYSCALE), sheet["size"], sheet["tile"]
    rows = [row.reshape(tall, -1, wide).swapaxes(0, 1) for row in np.split(picture, len(picture) // tall)]
    return np.concatenate(rows)[:, :height, :width]


def levels(*values, size=(20, 30)):
    """A clip whose step k is all of grey level values[k]."""
    return np.stack([np.full(size, value, np.uint8) for value in values])


# --- The page --------------------------------------------------------------------------------------------


def test_the_page_holds_every_step_and_no_link_to_elsewhere(make_clip_set):
    page = view_clip(make_clip_set(synthetic=True, frames=5), 3).page()
    (clip,) = data_of(page)["clips"]
    assert clip["count"] == 5 and clip["numbers"] == [1, 2, 3, 4, 5] and clip["synthetic"]
    assert 'alt="class1, c3, synthetic"' in page and "<p>class1, c3, synthetic</p>" in page
    assert not re.search(r"https?://|src=\"(?!data:)|@import|url\(", page)


def test_the_page_shows_the_frames_it_was_given_each_in_a_tile_of_its_own():
    (clip,) = data_of(Viewer(levels(10, 200, 90, 120, 30), caption="five").page())["clips"]
    shown = frames_of(clip["sheet"])[:5]
    assert shown.shape == (5, 20, 30) and clip["sheet"]["tile"] == [32, 32]
    for step, level in zip(shown, (10, 200, 90, 120, 30), strict=True):
        assert np.abs(step.astype(int) - level).max() <= 2


def test_captions_cannot_inject_markup():
    evil = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
    overlay = Overlay(evil, np.ones((1, 4, 4), bool))
    clips = [Shown(np.zeros((1, 4, 4), np.uint8), evil, evil, evil, (overlay,))] * 2
    page = Viewer(clips, unit=evil).page()
    assert page.count("<script>") == page.count("</script>") == 1 and page.count("<img") == 1
    assert data_of(page)["clips"][0]["caption"] == evil


@pytest.mark.parametrize("frames", [np.zeros((2, 3, 3)), np.zeros((2, 3), np.uint8), np.zeros((0, 3, 3), np.uint8)])
def test_frames_of_another_kind_are_refused(frames):
    with pytest.raises(SettingError, match="Give uint8"):
        Viewer(frames, caption="x")
    with pytest.raises(SettingError, match="no clip"):
        Viewer([])


@pytest.mark.parametrize("values", [np.zeros((2, 4, 4), bool), np.zeros((3, 4, 4)), np.zeros((3, 4), bool)])
def test_overlays_that_do_not_fit_are_refused_by_name(values):
    with pytest.raises(SettingError, match="overlay 'lesion'"):
        Shown(levels(1, 2, 3), "x", overlays=(Overlay("lesion", values),))


def test_the_browser_offers_the_first_clips_of_each_class_by_name(make_clip_set):
    data = data_of(browse_clips(make_clip_set(n=9, classes=3), per_class=2).page())
    assert data["options"] == ["class0: c0", "class0: c3", "class1: c1", "class1: c4", "class2: c2", "class2: c5"]
    assert data["headings"] == ["class0", "class0", "class1", "class1", "class2", "class2"]
    assert [clip["caption"] for clip in data["clips"]][2] == "class1, c1" and not data["together"]


def test_side_by_side_stands_the_first_clip_of_each_class(make_clip_set):
    marked = {4: [Overlay("lesion", np.ones((3, 8, 8), bool))], 1: [Overlay("lesion", np.zeros((3, 8, 8), bool))]}
    shown = compare_clips(make_clip_set(n=9, classes=3, synthetic=True), overlays=marked)
    data = data_of(shown.page())
    assert data["together"] and [clip["title"] for clip in data["clips"]] == [
        "class0 \u00b7 c0",
        "class1 \u00b7 c1",
        "class2 \u00b7 c2",
    ]
    assert [len(clip["overlays"]) for clip in data["clips"]] == [0, 1, 0]
    assert data["caption"] == "Side by side: class0, class1, class2, synthetic"
    assert shown.page().count("<img alt=") == 3  # a still of each, for where no script runs


@pytest.mark.parametrize(
    "source, look",
    [
        ({"stride": 3}, ("frame", 8.7, None, False)),
        ({"set": "phantom", "hu_window": [-1000, 400]}, ("slice", 12, [-1000, 400], True)),
        (
            {"set": "imageclef", "hu_window": [-1000, 400], "orientation": "canonical"},
            ("slice", 12, [-1000, 400], True),
        ),
        ({"set": "imageclef", "hu_window": [-1000, 400], "orientation": "file"}, ("slice", 12, [-1000, 400], False)),
        ({}, ("step", 12, None, False)),
    ],
)
def test_a_set_is_shown_in_its_own_unit_and_with_its_sides_only_where_they_are_known(make_clip_set, source, look):
    data = data_of(view_clip(make_clip_set(source=source), 0).page())
    assert (data["unit"], data["rate"], data["hu"], data["sides"]) == look
    assert [name for name, *_ in data["presets"]] == (list(CT_WINDOWS) if look[2] else [])


# --- In a browser ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")  # closed before other tests need an event loop
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    pytest.importorskip("playwright")
    with open_browser() as opened:
        yield opened


class Seen:
    """One of the viewers on a page, as a reader sees and handles it."""

    def __init__(self, tab, number=0):
        self.page = tab.page
        self.box = tab.page.locator(".viptt-viewer").nth(number)
        self.picture = self.box.get_by_role("slider").first
        # Nothing is drawn until the pictures are decoded.
        self.page.wait_for_function(
            "box => [...box.querySelectorAll('.viptt-layers > canvas:first-child')].every("
            "canvas => canvas.getContext('2d').getImageData(0, 0, 1, 1).data[3])",
            arg=self.box.element_handle(),
        )

    def colours(self, which="canvas:first-child"):
        """RGBA in the middle of a canvas of each panel."""
        return self.box.locator(f".viptt-layers > {which}").evaluate_all(
            "all => all.map(one => [...one.getContext('2d').getImageData(one.width / 2, one.height / 2, 1, 1).data])"
        )

    @property
    def levels(self):
        """Grey level in the middle of each panel."""
        return [red for red, *_ in self.colours()]

    @property
    def place(self):
        """What is written below the picture, which is what is told to one who does not see it."""
        written = self.box.locator(".viptt-place").text_content()
        assert written.replace("/", " of ") == self.picture.get_attribute("aria-valuetext")
        return written

    @property
    def window(self):
        return self.box.locator(".viptt-window").text_content()

    def press(self, key):
        self.picture.focus()
        self.page.keyboard.press(key)

    def middle(self):
        """Of the picture, in the window."""
        self.picture.scroll_into_view_if_needed()
        box = self.picture.bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.fixture
def show(browser, tmp_path):
    """Opens viewers on a page of their own, with room to scroll, a clock that stands still, and no fault at the end."""
    opened = []

    def open_page(*viewers, **settings):
        body = "".join(one.page() for one in viewers)
        (tmp_path / "page.html").write_text(
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f'<title>viewers</title><body><main><article>{body}</article></main><div style="height:3000px">',
            "utf-8",
        )
        tab = stack.enter_context(open_tab(browser, tmp_path.as_uri() + "/", **settings))
        tab.page.clock.install(time=datetime(2000, 1, 1))
        tab.open("page.html")
        tab.page.clock.pause_at(datetime(2000, 1, 2))
        opened.append(tab)
        return tab

    with ExitStack() as stack:
        yield open_page
        assert [tab.take_faults() for tab in opened] == [[]]


def ramp(steps=24):
    """A clip whose step k, from 1, has grey level 10 k."""
    return levels(*(10 * np.arange(1, steps + 1)), size=(20, 40))


def near(shown, meant):
    """Whether grey levels are the same up to what compression changes."""
    return np.abs(np.array(shown, int) - np.array(meant)).max() <= 2


def test_keys_show_the_step_they_name_and_the_picture_is_that_step(show):
    seen = Seen(show(Viewer(ramp(), caption="x")))
    for key, step in (
        ("Home", 1),
        ("ArrowUp", 1),
        ("PageDown", 11),
        ("ArrowRight", 12),
        ("ArrowLeft", 11),
        ("ArrowDown", 12),
        ("ArrowUp", 11),
        ("End", 24),
        ("PageUp", 14),
    ):
        seen.press(key)
        assert seen.place == f"slice {step}/24" and near(seen.levels, [10 * step]), key
    seen.press("Control+ArrowLeft")
    assert seen.place == "slice 14/24"


def test_every_slice_of_a_page_made_smaller_is_the_slice_its_number_says(show):
    frames = np.stack([np.full((224, 224), 2 * k + 40, np.uint8) for k in range(70)])
    frames[:, ::2] += np.random.default_rng(0).integers(0, 9, frames[:, ::2].shape, dtype=np.uint8)  # packs badly
    seen = Seen(show(Viewer(frames, caption="x", most_bytes=60_000)))
    seen.press("Home")
    for _ in range(7):
        number = int(seen.place.split()[1].split("/")[0])
        around = frames[number - 1, 90:134, 90:134].mean()
        assert abs(seen.levels[0] - around) <= 6
        for _ in range(5):
            seen.press("ArrowRight")
    assert number > 20


def test_the_wheel_pages_and_at_the_end_the_document_scrolls_on(show):
    tab = show(Viewer(ramp(), caption="x"))
    seen = Seen(tab)
    tab.page.mouse.move(*seen.middle())
    tab.page.mouse.wheel(0, 100)
    tab.page.wait_for_function("document.querySelector('.viptt-place').textContent === 'slice 14/24'")
    assert near(seen.levels, [140])
    tab.page.mouse.wheel(0, -100)
    tab.page.wait_for_function("document.querySelector('.viptt-place').textContent === 'slice 13/24'")
    assert tab.page.evaluate("scrollY") == 0
    seen.press("End")
    tab.page.mouse.wheel(0, 100)
    tab.page.wait_for_function("scrollY > 0")
    assert seen.place == "slice 24/24"


def test_a_reader_who_scrolls_over_the_picture_scrolls_on(show):
    tab = show(Viewer(ramp(), caption="x"))
    seen = Seen(tab)
    turn = """picture => {
        window.dispatchEvent(new Event("scroll"));
        const turned = new WheelEvent("wheel", {deltaY: 100, cancelable: true});
        picture.dispatchEvent(turned);
        return turned.defaultPrevented;
    }"""
    assert seen.picture.evaluate(turn) is False and seen.place == "slice 13/24"
    seen.picture.focus()  # now the wheel is meant for it
    assert seen.picture.evaluate(turn) is True and seen.place == "slice 14/24"


def swipe(tab, start, across=0, down=0):
    """A finger that moves in steps of 10 px."""
    finger = tab.page.context.new_cdp_session(tab.page)
    x, y = start
    count = max(abs(across), abs(down)) // 10
    for k in range(count + 1):
        point = {"x": x + across * k / count, "y": y + down * k / count}
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove" if k else "touchStart", "touchPoints": [point]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_swipe_across_pages_and_one_upwards_scrolls_the_document(show):
    tab = show(Viewer(ramp(), caption="x"), width=PHONE)
    tab.page.context.new_cdp_session(tab.page).send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    seen = Seen(tab)
    swipe(tab, seen.middle(), across=120)
    assert int(seen.place.split()[1].split("/")[0]) > 16 and tab.page.evaluate("scrollY") == 0
    before = seen.place
    swipe(tab, seen.middle(), across=-120)
    assert int(seen.place.split()[1].split("/")[0]) < int(before.split()[1].split("/")[0])
    before = seen.place
    swipe(tab, seen.middle(), down=-200)
    tab.page.wait_for_function("scrollY > 50")
    assert seen.place == before


def test_play_runs_at_the_rate_of_the_clip_round_the_end_until_a_key_stops_it(show):
    tab = show(Viewer(ramp(6), caption="x", unit="frame", rate=25))
    seen = Seen(tab)
    seen.press("Home")
    seen.press("Space")
    tab.page.clock.run_for(41)
    assert seen.place == "frame 2/6" and near(seen.levels, [20])
    tab.page.clock.run_for(200)
    assert seen.place == "frame 1/6" and seen.box.get_by_role("button", name="pause").is_visible()
    seen.press("ArrowRight")
    tab.page.clock.run_for(1000)
    assert seen.place == "frame 2/6" and seen.box.get_by_role("button", name="play").is_visible()


def test_play_stops_at_the_end_for_readers_whom_motion_disturbs(show):
    tab = show(Viewer(ramp(6), caption="x", rate=10))
    tab.page.emulate_media(reduced_motion="reduce")
    seen = Seen(tab)
    tab.page.clock.run_for(1000)
    assert seen.place == "slice 4/6"  # nothing plays by itself
    seen.box.get_by_role("button", name="play").click()
    tab.page.clock.run_for(2000)
    assert seen.place == "slice 6/6" and seen.box.get_by_role("button", name="play").is_visible()


def test_window_and_level_spread_the_grey_levels_by_the_formula(show):
    seen = Seen(show(Viewer(ramp(), caption="x", hu_window=HU_WINDOW)))
    hu = HU_WINDOW[0] + 130 / 255 * (HU_WINDOW[1] - HU_WINDOW[0])
    assert near(seen.levels, [130]) and seen.window == "W 1400 L -300 HU"
    button = seen.box.get_by_role("button", name="lung")
    button.click()
    assert seen.window == "W 1500 L -600 HU" and button.get_attribute("aria-pressed") == "true"
    assert near(seen.levels, [255 * (hu + 1350) / 1500])
    seen.box.get_by_role("button", name="soft tissue").click()
    assert near(seen.levels, [0])
    seen.box.get_by_role("slider", name="level").fill("-300")
    seen.box.get_by_role("slider", name="width").fill("200")
    assert seen.window == "W 200 L -300 HU"
    assert abs(seen.levels[0] - 255 * (hu + 400) / 200) <= 14  # seven times the contrast, and what compression changed
    seen.press("r")
    assert near(seen.levels, [130]) and seen.window == "W 1400 L -300 HU"


def test_a_drag_with_shift_changes_window_and_level_and_not_the_slice(show):
    tab = show(Viewer(ramp(), caption="x"))
    seen = Seen(tab)
    x, y = seen.middle()
    tab.page.keyboard.down("Shift")
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(x - 100, y + 30, steps=4)
    tab.page.mouse.up()
    tab.page.keyboard.up("Shift")
    assert (seen.window, seen.place) == ("W 170 L 153", "slice 13/24")
    seen.box.locator("summary", has_text="Window").click()
    seen.box.get_by_role("button", name="reset window").click()
    assert near(seen.levels, [130])


def test_overlays_lie_over_the_grey_picture_and_can_be_switched_and_made_fainter(show):
    region, heat = np.zeros((24, 16, 24), bool), np.zeros((24, 8, 12), np.uint8)
    region[4:, 4:8, 6:18], heat[:, :] = True, 200
    clip = Shown(ramp(), "x", overlays=(Overlay("lesion", region), Overlay("Grad-CAM", heat)))
    seen = Seen(show(Viewer([clip])))
    assert seen.place == "slice 5/24" and near(seen.levels, [50])  # where the lesion begins; grey stays grey
    red, green, blue, alpha = seen.colours("canvas:nth-of-type(2)")[0]
    assert np.abs(np.array([red, green, blue]) - MAP_COLOURS[200]).max() <= 6 and alpha == 255
    outline, heat = seen.box.locator(".viptt-layers svg"), seen.box.locator(".viptt-layers canvas").nth(1)
    layers, drawn = (one.bounding_box() for one in (seen.box.locator(".viptt-layers"), outline.locator("path")))
    assert drawn["x"] - layers["x"] == pytest.approx(layers["width"] * 6 / 24, abs=2)
    assert drawn["y"] - layers["y"] == pytest.approx(layers["height"] * 4 / 16, abs=2)
    assert drawn["width"] == pytest.approx(layers["width"] * 12 / 24, abs=4)
    assert outline.locator("path").get_attribute("stroke") == "#E69F00"
    seen.press("ArrowLeft")
    assert not outline.locator("path").get_attribute("d")  # no lesion in this slice
    seen.press("ArrowRight")
    seen.box.get_by_role("checkbox", name="Grad-CAM").click()
    assert outline.is_visible() and not heat.is_visible()
    seen.press("o")
    assert not outline.is_visible() and not heat.is_visible()
    seen.press("o")
    assert outline.is_visible() and not heat.is_visible()  # as it was
    seen.box.get_by_role("slider", name="opacity of lesion").fill("25")
    assert outline.evaluate("node => getComputedStyle(node).opacity") == "0.25"


def test_clips_side_by_side_page_and_change_their_window_together(show):
    clips = [Shown(ramp(), "a", "one", "A"), Shown(ramp(12), "b", "two", "B", synthetic=True)]
    seen = Seen(show(Viewer(clips, together=True, caption="both")))
    for key, meant in (("Home", [10, 10]), ("End", [240, 120]), ("PageUp", [140, 70])):
        seen.press(key)
        assert near(seen.levels, meant), key
    titles = seen.box.locator(".viptt-panel").all_text_contents()
    assert titles == ["A \u00b7 one", "B \u00b7 twosynthetic"] and seen.box.locator("select").count() == 0


def test_viewers_on_a_page_do_not_take_each_others_keys_or_clips(show):
    clips = [Shown(ramp(6), "first"), Shown(ramp(3) + 5, "second")]
    tab = show(Viewer(ramp(), caption="alone"), Viewer(clips))
    alone, choice = Seen(tab), Seen(tab, 1)
    choice.press("Home")
    choice.box.locator("select").select_option("1")
    tab.page.wait_for_function(
        "document.querySelectorAll('.viptt-viewer canvas')[1].getContext('2d').getImageData(0, 0, 1, 1).data[0] > 12"
    )
    assert (choice.place, choice.picture.get_attribute("aria-label")) == ("slice 1/3", "second")
    assert near(choice.levels, [15]) and choice.box.locator("p").last.text_content() == "second"
    assert alone.place == "slice 13/24" and near(alone.levels, [130])


def test_sides_and_distance_are_shown_where_they_are_known(show):
    known = Shown(ramp(), "x", step_mm=3.01)
    tab = show(Viewer([known], sides=True), Viewer(ramp(), caption="unknown"))
    seen, unknown = Seen(tab), Seen(tab, 1)
    seen.press("PageDown")
    assert seen.place == "slice 23/24, 66 mm from the first"
    assert seen.box.locator(".viptt-side").all_text_contents() == ["R", "L"]
    assert unknown.place == "slice 13/24" and unknown.box.locator(".viptt-side").count() == 0


def test_a_phone_sees_all_of_it_with_room_for_fingers(show):
    overlay = Overlay("a lesion with a long name that breaks", np.zeros((24, 4, 4), bool))
    clips = [Shown(ramp(), "x", f"name {k}" * 9, "A", (overlay,)) for k in range(5)]
    tab = show(Viewer(clips, hu_window=HU_WINDOW), Viewer(clips, together=True, caption="x"), width=PHONE)
    assert too_wide(tab, PHONE) == []
    tab.page.context.new_cdp_session(tab.page).send(
        "Emulation.setEmulatedMedia", {"features": [{"name": "pointer", "value": "coarse"}]}
    )
    for button in tab.page.get_by_role("button").all():
        box = button.bounding_box()
        if tab.page.evaluate("matchMedia('(pointer: coarse)').matches"):
            assert min(box["width"], box["height"]) >= 44


# --- Size ------------------------------------------------------------------------------------------------


def test_a_page_stays_under_its_limit_and_keeps_the_numbers_of_the_steps(make_clip_set):
    clips = make_clip_set(n=4, frames=70, size=224)
    page = browse_clips(clips, most_bytes=60_000).page()
    assert len(page) < 85_000 < len(browse_clips(clips, most_bytes=10**9).page())
    for clip in data_of(page)["clips"]:
        assert clip["count"] == 70 and 1 < len(clip["numbers"]) < 70
        assert clip["numbers"][0] == 1 and clip["numbers"][-1] == 70
    first = data_of(page)["clips"][0]
    shown, meant = frames_of(first["sheet"])[1].mean(), clips.clips[0, first["numbers"][1] - 1].mean()
    assert shown == pytest.approx(meant, abs=3)


def test_70_slices_of_224_pixels_fit_whole_even_where_every_pixel_differs():
    noise = np.random.default_rng(0).normal(120, 20, (70, 224, 224)).clip(0, 255).astype(np.uint8)
    page = Viewer(noise, caption="noise").page()
    assert len(page) < 1_000_000
    smooth = cv2.GaussianBlur(noise.transpose(1, 2, 0), (0, 0), 2).transpose(2, 0, 1)
    (clip,) = data_of(Viewer(smooth, caption="smooth").page())["clips"]
    assert clip["sheet"]["size"] == [224, 224] and len(clip["numbers"]) == 70


def test_script_and_style_are_small_for_many_viewers_share_a_page():
    assert len(viewer._source("viewer.js")) < 10_000 and len(viewer._source("viewer.css")) < 4_000
    assert "//" not in viewer._source("viewer.js")  # remarks stay in the file


# --- Overlays --------------------------------------------------------------------------------------------


def test_an_outline_runs_round_the_pixels_of_a_region_and_its_hole_in_half_pixels():
    region = np.zeros((6, 7), bool)
    region[1:5, 0:4] = True
    region[2, 2] = False
    around, hole = sorted(outlines(region), key=len, reverse=True)
    assert np.ptp(around, axis=0).tolist() == [8, 8] and around.min(axis=0).tolist() == [0, 2]
    assert sorted(map(tuple, hole)) == [(4, 5), (5, 4), (5, 6), (6, 5)]
    assert not outlines(np.zeros((3, 3), bool))


def test_a_path_draws_the_lines_it_is_made_of():
    assert path_of([np.array([(1, 2), (5, 2), (3, -4)]), np.array([(0, 0), (1, 1), (2, 0)])]) == (
        "M1 2l4 0-2-6zM0 0l1 1 1-1z"
    )
    assert path_of([]) == ""


def test_overlays_follow_the_steps_that_are_kept():
    region, heat = np.zeros((9, 8, 8), bool), np.zeros((9, 8, 8), np.uint8)
    region[4, 2, 2], heat[8] = True, 255
    clip = Shown(levels(*range(9)), "x", overlays=(Overlay("lesion", region), Overlay("Grad-CAM", heat)))
    packed = pack(clip, side=256, steps=3, quality=80)
    assert packed["numbers"] == [1, 5, 9]
    assert [bool(path) for path in packed["overlays"][0]["paths"]] == [False, True, False]
    assert packed["overlays"][0]["size"] == [16, 16]
    assert [int(step.mean() > 128) for step in frames_of(packed["overlays"][1]["sheet"])[:3]] == [0, 0, 1]


def test_a_viewer_begins_where_the_finding_is_and_else_in_the_middle():
    region = np.zeros((9, 8, 8), bool)
    assert data_of(Viewer([Shown(levels(*range(9)), "x", overlays=(Overlay("a", region),))]).page())["start"] == 4
    region[7, 2:6, 2:6], region[6, 2, 2] = True, True
    assert data_of(Viewer([Shown(levels(*range(9)), "x", overlays=(Overlay("a", region),))]).page())["start"] == 7


def test_phantoms_stand_side_by_side_with_their_findings():
    shown = compare_phantoms(depth=24, size=32)
    assert [clip.heading for clip in shown.clips] == list(TB_CLASSES) and shown.together and shown.sides
    assert all(clip.overlays[0].values.any() and clip.synthetic and clip.step_mm > 5 for clip in shown.clips)
    assert shown.hu_window == HU_WINDOW and shown.caption.endswith("Fibro-cavernous, synthetic")
    lesion = shown.clips[TB_CLASSES.index("Tuberculoma")]
    inside = lesion.overlays[0].values
    other_side = lesion.frames[inside[:, :, ::-1]]
    assert lesion.frames[inside].mean() > other_side.mean() + 40  # soft tissue in one lung, air in the other


# --- The live session ------------------------------------------------------------------------------------


def test_only_a_live_session_gets_the_widget_and_always_the_page_beside_it(make_clip_set, monkeypatch):
    shown = view_clip(make_clip_set(), 0)
    assert set(shown._repr_mimebundle_()) == {"text/plain", "text/html"}
    monkeypatch.setattr(viewer, "_kernel_runs", lambda: True)
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", WIDGET} and bundle[WIDGET]["model_id"]
    assert shown.page() in bundle["text/html"] and bundle["text/plain"] == "class0, c0 (3 steps)"


def all_of(box, kind):
    """Widgets of a kind inside a box, in order."""
    found = [box] if type(box).__name__ == kind else []
    return found + [one for child in getattr(box, "children", ()) for one in all_of(child, kind)]


def level_of(image):
    return int(cv2.imdecode(np.frombuffer(image.value, np.uint8), cv2.IMREAD_GRAYSCALE).mean())


def test_the_widget_follows_the_slider_and_the_list():
    long, short = levels(*[40] * 8, 90, size=(8, 8)), levels(*[220] * 4, size=(8, 8))
    box = Viewer([Shown(long, "a long one", "l", "A"), Shown(short, "a short one", "s", "B")]).widget()
    kinds = ("Dropdown", "Image", "Play", "IntSlider")
    (dropdown,), (image,), (play,), (slider,) = (all_of(box, kind) for kind in kinds)
    title, words = all_of(box, "Label")
    assert (level_of(image), words.value) == (40, "a long one")
    assert [label for label, _ in dropdown.options] == ["A: l", "B: s"]
    assert image.tooltip is None  # JupyterLab 4 draws no Image that has one
    slider.value = 9
    assert level_of(image) == 90
    dropdown.value = 1
    assert (level_of(image), words.value, title.value) == (220, "a short one", "B \u00b7 s")
    assert (slider.value, slider.max, play.max) == (4, 4, 4)
    assert not all_of(Viewer(long, caption="x").widget(), "Dropdown")  # nothing to choose


def test_the_widget_changes_the_window_of_all_clips_side_by_side_and_plays_at_the_rate():
    clips = [Shown(levels(100, size=(8, 8)), "x", "a", "A"), Shown(levels(150, size=(8, 8)), "x", "b", "B")]
    box = Viewer(clips, together=True, hu_window=(0, 255), rate=20).widget()
    images, (level, width), buttons = (all_of(box, kind) for kind in ("Image", "FloatSlider", "Button"))
    assert [level_of(image) for image in images] == [100, 150] and all_of(box, "Play")[0].interval == 50
    level.value, width.value = 100, 100
    assert [level_of(image) for image in images] == [128, 255]
    assert [button.description for button in buttons] == [*CT_WINDOWS, "reset window"]
    buttons[-1].click()
    assert [level_of(image) for image in images] == [100, 150]


def test_a_drawn_step_shows_only_the_overlays_asked_for_and_as_strong_as_asked():
    region, heat = np.zeros((1, 8, 8), bool), np.full((1, 8, 8), 200, np.uint8)
    region[0, 2:6, 2:6] = True
    clip = Shown(levels(100, size=(8, 8)), "x", overlays=(Overlay("lesion", region), Overlay("map", heat)))
    plain = draw(clip, 0, 127.5, 255, (0, 255), {}, 80)
    assert plain.shape == (8, 8, 3) and (plain == 100).all()
    outlined = draw(clip, 0, 127.5, 255, (0, 255), {"lesion": 1.0}, 80)
    changed = np.argwhere((outlined != 100).any(axis=2))
    assert outlined.shape == (80, 80, 3) and changed.min() in range(17, 21) and changed.max() in range(59, 63)
    assert (outlined[40, 40] == 100).all() and outlined[20, 40].tolist() == [0xE6, 0x9F, 0x00]
    faint = draw(clip, 0, 127.5, 255, (0, 255), {"map": 0.5}, 80)
    assert np.abs(faint[40, 40] - (0.5 * MAP_COLOURS[200] + 50)).max() <= 1


def test_publishing_keeps_the_page_and_drops_the_widget(make_clip_set, monkeypatch, tmp_path):
    monkeypatch.setattr(viewer, "_kernel_runs", lambda: True)
    shown = view_clip(make_clip_set(), 0)
    alone = {"text/plain": "IntSlider()", WIDGET: {"model_id": "x"}}  # a widget of the reader's own
    cell = v4.new_code_cell(
        "x",
        outputs=[
            v4.new_output("execute_result", shown._repr_mimebundle_()),
            v4.new_output("display_data", alone),
        ],
    )
    notebook = v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    scrub(notebook, tmp_path)
    (data,) = [dict(output["data"]) for output in cell.outputs]
    assert set(data) == {"text/plain", "text/html"} and shown.page() in data["text/html"]
    assert "widget" not in str(notebook)
