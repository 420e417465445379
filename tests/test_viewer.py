"""The viewer: every picture in the page, nothing from elsewhere, the same in a live session, small enough."""

import base64
import json
import re
from contextlib import ExitStack
from datetime import datetime

import cv2
import numpy as np
import pytest
from browser import PHONE, open_tab, too_wide

from viptt_core.constants import CT_WINDOWS, HU_WINDOW
from viptt_core.errors import SettingError
from viptt_core.figures import FINDING_COLOUR, viewer
from viptt_core.figures.viewer import Look, Shown, Viewer, browse_clips, compare_clips


def data_of(page):
    """What the page's script is given."""
    return json.loads(re.search(r"vipttViewer\(document.currentScript.parentElement, (\{.*\})\);</script>", page)[1])


def frames_of(clip):
    """Frames of a clip as they were packed: uint8 [T, h, w]."""
    raw = [np.frombuffer(base64.b64decode(frame), np.uint8) for frame in clip["frames"]]
    return np.stack([cv2.imdecode(one, cv2.IMREAD_GRAYSCALE) for one in raw])


def levels(*values, size=(20, 30)):
    """A clip whose step k is all of grey level values[k]."""
    return np.stack([np.full(size, value, np.uint8) for value in values])


# --- The page --------------------------------------------------------------------------------------------


def test_the_page_holds_every_step_and_no_link_to_elsewhere(make_clip_set):
    page = browse_clips(make_clip_set(synthetic=True, frames=5), per_class=1).page()
    views = data_of(page)["views"]
    assert all(
        len(clip["frames"]) == clip["steps"] == 5 and clip["synthetic"] for view in views for clip in view["clips"]
    )
    assert 'alt="class0, c0, synthetic: step 3 of 5. Synthetic data."' in page  # for where no script runs
    assert not re.search(r"https?://|src=\"(?!data:)|@import|url\((?!#)", page)


def test_captions_cannot_inject_markup():
    evil = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
    clip = Shown(np.zeros((1, 4, 4), np.uint8), evil, evil, evil, {evil: np.ones((1, 4, 4), bool)})
    page = Viewer([clip, clip], Look(unit=evil)).page()
    assert page.count("<script>") == page.count("</script>") == 1 and page.count("<img") == 1
    assert evil in data_of(page)["views"][0]["caption"]


@pytest.mark.parametrize("frames", [np.zeros((2, 3, 3)), np.zeros((2, 3), np.uint8), np.zeros((0, 3, 3), np.uint8)])
def test_frames_of_another_kind_and_viewers_of_nothing_are_refused(frames):
    with pytest.raises(SettingError, match="Give uint8"):
        Shown(frames)
    with pytest.raises(SettingError, match="no clip"):
        Viewer([], Look())


@pytest.mark.parametrize("values", [np.zeros((2, 4, 4), bool), np.zeros((3, 4, 4)), np.zeros((3, 4), bool)])
def test_overlays_that_do_not_fit_are_refused_by_name(values):
    with pytest.raises(SettingError, match="overlay 'lesion'"):
        Shown(levels(1, 2, 3), overlays={"lesion": values})


def test_the_browser_offers_the_first_clips_of_each_class_by_name(make_clip_set):
    views = data_of(browse_clips(make_clip_set(n=9, classes=3), per_class=2).page())["views"]
    titles = [f"class{k} \u00b7 c{i}" for k, i in ((0, 0), (0, 3), (1, 1), (1, 4), (2, 2), (2, 5))]
    assert [[clip["title"] for clip in view["clips"]] for view in views] == [[title] for title in titles]
    assert [view["heading"] for view in views] == ["class0", "class0", "class1", "class1", "class2", "class2"]
    assert views[2]["caption"] == "class1, c1"


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
    data = data_of(compare_clips(make_clip_set(source=source)).page())
    assert (data["unit"], data["rate"], data["hu"], data["sides"]) == look
    assert [name for name, *_ in data["presets"]] == (list(CT_WINDOWS) if look[2] else [])


# --- In a browser ----------------------------------------------------------------------------------------


class Seen:
    """One of the viewers on a page, as a reader sees and handles it."""

    def __init__(self, tab, number=0):
        self.page = tab.page
        self.box = tab.page.locator(".viptt-viewer").nth(number)
        self.picture = self.box.get_by_role("slider").first
        self.layers = self.box.locator(".viptt-layers")

    def pixel(self, panel=0, across=0.5, down=0.5):
        """The colour that is seen somewhere in a panel, RGB."""
        seen = cv2.imdecode(np.frombuffer(self.layers.nth(panel).screenshot(), np.uint8), cv2.IMREAD_COLOR)
        return seen[int(down * len(seen)), int(across * len(seen[0])), ::-1].tolist()

    @property
    def levels(self):
        """Grey level in the middle of each panel."""
        return [self.pixel(panel)[0] for panel in range(self.layers.count())]

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


def as_output(shown):
    """What JupyterLab does with HTML: it sets it, makes its scripts anew, and puts it into the document."""
    html = json.dumps(shown.page()).replace("<", "\\u003c")
    return f"""<script>
      const output = document.createElement("div");
      output.innerHTML = {html};
      for (const script of output.querySelectorAll("script")) {{
        const anew = document.createElement("script");
        anew.textContent = script.textContent;
        script.replaceWith(anew);
      }}
      document.currentScript.after(output);
    </script>"""


@pytest.fixture
def show(browser, tmp_path):
    """Opens viewers on a page of their own, with room to scroll, a clock that stands still, and no fault at the end."""
    opened = []

    def open_page(*viewers, live=False, **settings):
        body = "".join(as_output(one) if live else one.page() for one in viewers)
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
    """Frames whose step k, from 1, has grey level 10 k."""
    return levels(*(10 * np.arange(1, steps + 1)), size=(20, 40))


def paged(steps=24, **settings):
    """A viewer of such a clip."""
    return Viewer([Shown(ramp(steps))], Look(**settings))


def near(shown, meant):
    """Whether grey levels are the same up to what compression changes."""
    return np.abs(np.array(shown, int) - np.array(meant)).max() <= 2


@pytest.mark.parametrize("live", [False, True], ids=["page", "JupyterLab"])
def test_keys_show_the_step_they_name_and_the_picture_is_that_step(show, live):
    seen = Seen(show(paged(), live=live))
    steps = {"Home": 1, "ArrowUp": 1, "PageDown": 11, "ArrowRight": 12, "ArrowLeft": 11, "ArrowDown": 12, "End": 24}
    for key, step in (*steps.items(), ("PageUp", 14), ("ArrowUp", 13), ("ArrowRight", 14)):
        seen.press(key)
        assert seen.place == f"slice {step}/24" and near(seen.levels, [10 * step]), key
    seen.press("Control+ArrowLeft")
    assert seen.place == "slice 14/24"
    seen.page.evaluate("() => { window.taken = []; document.onkeydown = event => taken.push(event.key); }")
    for key in ("ArrowLeft", "o", "d", "Control+s"):  # JupyterLab deletes a cell by d
        seen.press(key)
    assert seen.page.evaluate("taken") == ["Control", "s"]


def test_the_wheel_pages_and_at_the_end_or_where_the_reader_scrolls_by_the_document_scrolls_on(show):
    seen = Seen(show(paged()))
    page = seen.page
    turn = """picture => {
        window.dispatchEvent(new Event("scroll"));
        const turned = new WheelEvent("wheel", {deltaY: 100, cancelable: true});
        picture.dispatchEvent(turned);
        return turned.defaultPrevented;
    }"""
    assert seen.picture.evaluate(turn) is False and seen.place == "slice 13/24"
    seen.picture.focus()  # now the wheel is meant for it
    assert seen.picture.evaluate(turn) is True and seen.place == "slice 14/24"
    page.mouse.move(*seen.middle())
    for turned, step in ((100, 15), (-100, 14)):
        page.mouse.wheel(0, turned)
        page.wait_for_function(f"document.querySelector('.viptt-place').textContent === 'slice {step}/24'")
    assert near(seen.levels, [140]) and page.evaluate("scrollY") == 0
    seen.press("End")
    page.mouse.wheel(0, 100)
    page.wait_for_function("scrollY > 0")
    assert seen.place == "slice 24/24"


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
    tab = show(paged(), width=PHONE)
    tab.page.context.new_cdp_session(tab.page).send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    seen = Seen(tab)
    swipe(tab, seen.middle(), across=120)
    right = seen.picture.get_attribute("aria-valuenow")
    assert int(right) > 16 and tab.page.evaluate("scrollY") == 0
    swipe(tab, seen.middle(), across=-120)
    left = seen.picture.get_attribute("aria-valuenow")
    assert int(left) < int(right)
    swipe(tab, seen.middle(), down=-200)
    tab.page.wait_for_function("scrollY > 50")
    assert seen.picture.get_attribute("aria-valuenow") == left


def test_play_runs_at_the_rate_of_the_clip_round_the_end_until_a_key_stops_it(show):
    seen = Seen(show(paged(6, unit="frame", rate=25)))
    clock = seen.page.clock
    clock.run_for(1000)
    assert seen.place == "frame 4/6"  # nothing plays by itself
    seen.press("Home")
    seen.press("Space")
    clock.run_for(41)
    assert seen.place == "frame 2/6" and near(seen.levels, [20])
    clock.run_for(200)
    assert seen.place == "frame 1/6" and seen.box.get_by_role("button", name="pause").is_visible()
    seen.press("ArrowRight")
    clock.run_for(1000)
    assert seen.place == "frame 2/6"
    seen.page.emulate_media(reduced_motion="reduce")  # a reader whom motion disturbs
    seen.box.get_by_role("button", name="play").click()
    clock.run_for(2000)
    assert seen.place == "frame 6/6" and seen.box.get_by_role("button", name="play").is_visible()


def test_window_and_level_spread_the_grey_levels_by_the_formula(show):
    seen = Seen(show(paged(hu_window=HU_WINDOW)))
    hu = HU_WINDOW[0] + 130 / 255 * (HU_WINDOW[1] - HU_WINDOW[0])
    assert near(seen.levels, [130]) and seen.window == "W 1400 L -300 HU"
    button = seen.box.get_by_role("button", name="lung")
    button.click()
    assert seen.window == "W 1500 L -600 HU" and button.get_attribute("aria-pressed") == "true"
    assert near(seen.levels, [255 * (hu + 1350) / 1500])
    seen.box.get_by_role("button", name="soft tissue").click()
    assert near(seen.levels, [0])
    seen.box.locator("summary", has_text="Window").click()
    seen.box.get_by_role("slider", name="level").fill("-300")
    seen.box.get_by_role("slider", name="width").fill("200")
    assert seen.window == "W 200 L -300 HU"
    assert abs(seen.levels[0] - 255 * (hu + 400) / 200) <= 14  # seven times the contrast, and what compression changed
    seen.press("r")
    assert near(seen.levels, [130]) and seen.window == "W 1400 L -300 HU"
    assert seen.box.get_by_role("button", name="reset window").get_attribute("aria-pressed") is None


def test_overlays_lie_over_the_grey_picture_and_can_be_switched_and_made_fainter(show):
    region, lung = np.zeros((24, 16, 32), bool), np.zeros((24, 8, 16), bool)
    region[4:, 4:12, 8:24], lung[:, 2:6, 1:3] = True, True
    clip = Shown(ramp(), overlays={"lesion": region, "lung": lung})
    seen = Seen(show(Viewer([clip], Look())))
    assert seen.place == "slice 5/24" and near(seen.levels, [50])  # where the lesion begins; grey stays grey
    outline = seen.layers.locator("path").first
    edge = [int(FINDING_COLOUR[k : k + 2], 16) for k in (1, 3, 5)]
    assert near(seen.pixel(down=0.75), edge)
    assert near(seen.pixel(across=1 / 16), edge)
    seen.press("ArrowLeft")
    assert not outline.get_attribute("d") and near(seen.pixel(down=0.75), [40])  # no lesion in this slice
    seen.press("ArrowRight")
    seen.box.get_by_role("checkbox", name="lung").click()
    assert near(seen.pixel(down=0.75), edge) and near(seen.pixel(across=1 / 16), [50])
    seen.press("o")
    assert near(seen.pixel(down=0.75), [50]) and near(seen.pixel(across=1 / 16), [50])
    seen.press("o")
    assert near(seen.pixel(down=0.75), edge) and near(seen.pixel(across=1 / 16), [50])  # as it was
    seen.box.get_by_role("slider", name="opacity of lesion").fill("25")
    assert near(seen.pixel(down=0.75), 0.25 * np.array(edge) + 0.75 * 50)


@pytest.mark.parametrize("live", [False, True], ids=["page", "JupyterLab"])
def test_clips_side_by_side_say_sides_and_synthetic_and_page_together(show, live):
    region = np.zeros((24, 4, 4), bool)
    region[6, 1:3, 1:3] = True
    clips = [
        Shown(ramp(), "one", "A", overlays={"lesion": region}),
        Shown(ramp(12), "two", "B", synthetic=True),
    ]
    seen = Seen(show(Viewer(clips, Look(sides=True), together=True), live=live))
    assert seen.place == "slice 7/24"  # where the finding is
    for key, meant in (("Home", [10, 10]), ("End", [240, 120]), ("PageUp", [140, 70])):
        seen.press(key)
        assert near(seen.levels, meant), key
    titles = seen.box.locator(".viptt-panels > div").all_text_contents()
    assert titles == ["A \u00b7 oneRL", "B \u00b7 twosyntheticRL"] and seen.box.locator("select").count() == 0


def test_viewers_on_a_page_do_not_take_each_others_keys_clips_or_windows(show):
    tab = show(paged(), Viewer([Shown(ramp(6), "first"), Shown(ramp(3) + 5, "second")], Look()))
    alone, choice = Seen(tab), Seen(tab, 1)
    choice.press("Home")
    choice.box.locator("select").select_option("1")
    assert (choice.place, choice.picture.get_attribute("aria-label")) == ("slice 2/3", "second")
    assert near(choice.levels, [25]) and choice.box.locator("p").last.text_content() == "second"
    choice.press("Home")
    choice.box.locator("summary", has_text="Window").click()
    choice.box.get_by_role("slider", name="level").fill("0")
    assert near(choice.levels, [142]) and alone.place == "slice 13/24" and near(alone.levels, [130])


def test_a_phone_sees_all_of_it_with_room_for_fingers(show):
    overlays = {"a lesion with a long name that breaks": np.zeros((24, 4, 4), bool)}
    clips = [Shown(ramp(), f"name {k}" * 9, "A", overlays=overlays) for k in range(5)]
    tab = show(Viewer(clips, Look(hu_window=HU_WINDOW)), Viewer(clips, Look(), together=True), width=PHONE)
    assert too_wide(tab, PHONE) == []
    tab.page.context.new_cdp_session(tab.page).send(
        "Emulation.setEmulatedMedia", {"features": [{"name": "pointer", "value": "coarse"}]}
    )
    for button in tab.page.get_by_role("button").all():
        box = button.bounding_box()
        if tab.page.evaluate("matchMedia('(pointer: coarse)').matches"):
            assert min(box["width"], box["height"]) >= 44


# --- Size ------------------------------------------------------------------------------------------------


def test_a_page_stays_under_its_limit_and_keeps_every_step():
    noise = np.random.default_rng(0).normal(120, 20, (70, 224, 224)).clip(0, 255).astype(np.uint8)
    (clip,) = data_of(Viewer([Shown(noise)], Look()).page())["views"][0]["clips"]
    assert sum(map(len, clip["frames"])) < viewer.MOST_BYTES and len(clip["frames"]) == 70
    smooth = cv2.GaussianBlur(noise.transpose(1, 2, 0), (0, 0), 2).transpose(2, 0, 1)
    (clip,) = data_of(Viewer([Shown(smooth)], Look()).page())["views"][0]["clips"]
    assert clip["size"] == [224, 224] and frames_of(clip).shape == (70, 224, 224)


# --- Overlays --------------------------------------------------------------------------------------------


def test_an_outline_runs_round_the_pixels_of_a_region_and_its_hole_in_half_pixels():
    region = np.zeros((6, 7), bool)
    region[1:5, 0:4] = True
    region[2, 2] = False
    lines = [
        np.cumsum(np.reshape(re.findall(r"-?\d+", line), (-1, 2)).astype(int), axis=0)
        for line in viewer.outline(region).split("M")[1:]
    ]
    around, hole = sorted(lines, key=len, reverse=True)
    assert np.ptp(around, axis=0).tolist() == [8, 8] and around.min(axis=0).tolist() == [0, 2]
    assert sorted(map(tuple, hole.tolist())) == [(4, 5), (5, 4), (5, 6), (6, 5)]
    assert viewer.outline(np.zeros((3, 3), bool)) == ""


def test_a_viewer_begins_where_the_finding_is_and_else_in_the_middle():
    region = np.zeros((9, 8, 8), bool)
    found = region.copy()
    found[7, 2:6, 2:6], found[6, 2, 2] = True, True
    clips = [Shown(levels(*range(9)), overlays={"a": values}) for values in (region, found)]
    assert [view["start"] for view in data_of(Viewer(clips, Look()).page())["views"]] == [4, 7]
    assert Viewer(clips[1:], Look()).alt.endswith("slice 8 of 9.")
