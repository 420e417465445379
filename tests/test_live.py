"""The live network: the file it reads holds what it says, and the page computes what PyTorch computes."""

import re
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest
import torch
from browser import DESK, PHONE, ROOT, open_tab, too_wide

from viptt_core.book.live import FILE, WEIGHTS, live_html, read_phantoms, write_phantoms
from viptt_core.clips import Grid
from viptt_core.constants import TB_CLASSES
from viptt_core.datasets.simulated import list_phantoms, simulate_scan
from viptt_core.errors import DataError
from viptt_core.prediction.weights import open_weights, weights_here
from viptt_core.shown import arm_label
from viptt_core.splits import split_by_group
from viptt_core.study.evidence import finding_on_grid, read_evidence
from viptt_core.training.inference import frame_features

MOST_BYTES, MOST_BYTES_OF_FILE = 1.5e6, 400e3
LABELS = [arm_label("image"), arm_label("video")]


@pytest.fixture(scope="module")
def found():
    return read_phantoms(ROOT)


@pytest.fixture(scope="module")
def page():
    return live_html(ROOT)


@pytest.fixture(scope="module")
def models():
    """By the label of the arm."""
    return {label: open_weights(name).model() for label, name in zip(LABELS, WEIGHTS, strict=True)}


def probabilities(model, features):
    with torch.inference_mode():
        return model(torch.from_numpy(features)[None]).softmax(dim=1)[0].tolist()


# --- The file, and the page made of it ----------------------------------------------------------------------------


def test_the_phantoms_are_the_first_of_each_type_that_the_demo_tested(found):
    card = weights_here()[WEIGHTS[1]]
    items = list_phantoms(n=sum(card.data["clips"].values())).items
    labels, groups = np.array([item.label for item in items]), np.array([item.group for item in items])
    split = split_by_group(labels, groups, seed=card.training["seed"])
    parts = {part: len(getattr(split, part)) for part in card.data["clips"]}
    assert parts == card.data["clips"]
    first = {label: place for place, label in reversed([(n, labels[n]) for n in sorted(split.test)])}
    assert found["names"] == [items[first[k]].name for k in range(len(TB_CLASSES))]


def test_slices_and_findings_are_those_of_the_phantoms(found):
    grid, label = Grid(*found["scans"].shape[1:3]), 2
    index = int(found["names"][label].rpartition("_")[2]) - 1
    assert np.array_equal(simulate_scan((0, index, label, True), grid), found["scans"][label])
    assert np.array_equal(finding_on_grid(0, index, label, grid).any(axis=(1, 2)), found["findings"][label])
    assert (found["findings"].any(axis=1) & ~found["findings"].all(axis=1)).all()


def test_the_features_are_those_of_the_backbone_that_both_networks_share(found, models):
    pixels = torch.from_numpy(np.stack([found["scans"][3, 7], np.zeros_like(found["scans"][3, 7])])).float()
    for model in models.values():
        features = frame_features(model, pixels[:, None], "fp32")[:, 0].numpy()
        assert features == pytest.approx(np.stack([found["features"][3, 7], found["empty"]]), abs=1e-3)


def test_the_page_is_small_and_asks_no_other_host(page):
    assert (ROOT / FILE).stat().st_size < MOST_BYTES_OF_FILE
    files = [(ROOT / "book" / "_static" / f"live.{kind}").read_text("utf-8") for kind in ("css", "js")]
    assert len("".join([page, *files])) < MOST_BYTES
    assert not re.search(r"https?://|@import|fetch\(|XMLHttpRequest", "".join([page, *files]))


def test_without_a_script_the_page_shows_the_scans_and_says_where_the_finding_is(found, page):
    for name, type_name, finding in zip(found["names"], TB_CLASSES, found["findings"], strict=True):
        slices = ", ".join(str(slice_ + 1) for slice_ in np.flatnonzero(finding))
        assert f"<figcaption>{name}, {type_name}. Slices with the finding: {slices}.</figcaption>" in page
    assert "<noscript>" in page and page.count('<img src="data:image/webp') == len(TB_CLASSES)


def test_the_page_says_how_good_the_networks_are_and_how_many_phantoms_the_study_has(page):
    cards, n = weights_here(), len(read_evidence(ROOT / "results/synthetic/evidence.npz").names)
    assert f"The study asks the same question of {n} phantoms" in page and "This is synthetic data" in page
    for label, name in zip(LABELS, WEIGHTS, strict=True):
        (test,) = [scores for scores in cards[name].metrics if scores["part"] == "test"]
        assert f"{label} reaches kappa {test['kappa']:.2f} (" in page and f"On the {test['n']} test phantoms" in page


def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(DataError, match=r"live\.npz.*python -m viptt_core\.book\.live"):
        read_phantoms(tmp_path)


@pytest.mark.slow
def test_the_command_makes_the_file(found, tmp_path):
    write_phantoms(tmp_path / FILE)
    made = read_phantoms(tmp_path)
    assert made["names"] == found["names"] and np.array_equal(made["scans"], found["scans"])
    assert made["features"] == pytest.approx(found["features"], abs=1e-3)


# --- In a browser -------------------------------------------------------------------------------------------------


@pytest.fixture
def show(browser, page, tmp_path):
    """The part of the page that lives, without the book around it."""

    @contextmanager
    def showing(**settings):
        static = ROOT / "book" / "_static"
        text = "".join(f"<style>{(static / f'{name}.css').read_text('utf-8')}</style>" for name in ("explorer", "live"))
        text += f'<meta name="viewport" content="width=device-width"><script>{(static / "live.js").read_text("utf-8")}'
        text = f"<!doctype html><meta charset='utf-8'>{text}</script><main><article>{page}"
        (tmp_path / "live.html").write_text(text, "utf-8")
        with open_tab(browser, tmp_path.as_uri() + "/", **settings) as tab:
            tab.open("live.html")
            yield tab
            assert tab.take_faults() == []

    return showing


def shown(tab):
    """Probabilities of the types, and of each place the slice and whether it is hidden, as the page has them."""
    chances = tab.page.locator(".viptt-chances li").evaluate_all("all => all.map(row => Number(row.dataset.chance))")
    places = tab.page.locator(".viptt-slices button").evaluate_all(
        "all => all.map(one => [Number(one.dataset.slice), one.getAttribute('aria-pressed') === 'true'])"
    )
    return chances, places


def of_places(found, label, places):
    return np.stack([found["empty"] if hidden else found["features"][label][slice_] for slice_, hidden in places])


@pytest.mark.slow
def test_the_page_computes_what_pytorch_computes(show, found, models):
    slices = list(range(found["findings"].shape[1]))
    with show() as tab:
        for k, (arm, model) in product(range(len(TB_CLASSES)), models.items()):
            tab.page.locator("select[name='phantom']").select_option(str(k))
            tab.page.locator("select[name='network']").select_option(arm)
            finding = found["findings"][k].tolist()
            others, none = [not met for met in finding], [False] * len(finding)
            for name, hidden, word in (
                ("Reset", none, "whole"),
                ("Hide slices with the finding", finding, "hidden"),
                ("Reverse", finding, "reversed"),
                ("Hide slices without the finding", others, "reversed"),
                ("Shuffle", others, "shuffled"),
                ("Reset", none, "whole"),
            ):
                tab.page.get_by_role("button", name=name).click()
                chances, places = shown(tab)
                wanted = probabilities(model, of_places(found, k, places))
                assert chances == pytest.approx(wanted, abs=1e-4)
                assert [gone for _, gone in sorted(places)] == hidden
                order = [slice_ for slice_, _ in places]
                assert (order == slices, order == slices[::-1]) == (word in ("whole", "hidden"), word == "reversed")
                said = tab.page.locator("#viptt-live [role=status]").inner_text()
                assert word in said and TB_CLASSES[int(np.argmax(wanted))] in said
                assert f"{100 * chances[k]:.1f}\N{NO-BREAK SPACE}%" in said


@pytest.mark.slow
def test_a_slice_is_hidden_and_shown_by_keyboard(show, found, models):
    with show() as tab:
        status, before = tab.page.locator("#viptt-live [role=status]"), shown(tab)
        slice_ = int(np.flatnonzero(found["findings"][0])[0])
        button = tab.page.locator(".viptt-slices button").nth(slice_)
        assert button.get_attribute("aria-label") == f"Hide slice {slice_ + 1} finding"
        button.focus()
        tab.page.keyboard.press("Space")
        chances, places = shown(tab)
        assert [hidden for _, hidden in places] == [place == slice_ for place in range(len(places))]
        assert chances == pytest.approx(probabilities(models[LABELS[0]], of_places(found, 0, places)), abs=1e-4)
        assert status.inner_text().startswith("1 of 16 slices hidden, 1 with the finding. The network ")
        tab.page.locator("select[name='network']").select_option(LABELS[1])
        assert shown(tab)[1] == places  # the other network meets the same slices
        tab.page.locator("select[name='network']").select_option(LABELS[0])
        button.focus()
        tab.page.keyboard.press("Enter")
        assert shown(tab) == before and status.inner_text().startswith("The whole scan. The network predicts ")


@pytest.mark.slow
def test_everything_is_reached_by_keyboard_and_fits_a_phone(show, found):
    with show(width=PHONE) as tab:
        reached = []
        for _ in range(2 + 5 + found["findings"].shape[1]):
            tab.page.keyboard.press("Tab")
            reached.append(tab.page.evaluate("document.activeElement.localName"))
        assert reached == ["select"] * 2 + ["button"] * (len(reached) - 2)
        assert [line for width in (PHONE, DESK) for line in too_wide(tab, width)] == []
