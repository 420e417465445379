"""The built book as readers meet it: from disk and over HTTP, on a phone and a desk, light and dark, by keyboard."""

import functools
import io
import os
import posixpath
import re
from urllib.parse import unquote, urlsplit

import pytest
from browser import (
    DESK,
    LISTINGS,
    PHONE,
    ROOT,
    Book,
    Markup,
    build,
    cut_off,
    find_axe,
    open_tab,
    serve,
    too_wide,
    violations,
)
from PIL import Image

pytestmark = pytest.mark.slow
# A book that is built already, of which a page of each kind is enough: `.ci/run` says so.
BUILT = os.environ.get("VIPTT_BOOK")
WIDTHS = (PHONE, DESK)
TABLE_WIDTHS = (PHONE, 768, DESK, 1920)
MOST_BYTES, MOST_BYTES_OF_A_PAGE = 40e6, 3e6
VIEWER_PAGE, MOST_BYTES_OF_VIEWER_PAGE = "notebooks/00_data.html", 2.2e6  # 70 slices, wide and narrow charts
# One page of each kind.
KINDS = (
    "intro.html",
    "model.html",
    VIEWER_PAGE,
    "notebooks/03_ablations.html",
    "claims.html",
    "explorer.html",
    "live.html",
    "status.html",
    "references.html",
    "search.html",
    "api/model.html",
    *LISTINGS,
)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """That of VIPTT_BOOK, else one that is built now."""
    if BUILT:
        return Book(ROOT / BUILT, failed=False, log="")
    pytest.importorskip("jupyter_book")
    return build(tmp_path_factory.mktemp("book"))


@pytest.fixture(scope="module")
def axe():
    try:
        return find_axe()
    except LookupError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["disk", "http"])
def base(request, book):
    """Where the book is: a reader opens its index.html, or a server has it."""
    if request.param == "disk":
        yield book.folder.as_uri() + "/"
    else:
        with serve(book.folder) as url:
            yield url


@pytest.fixture
def on_disk(book):
    return book.folder.as_uri() + "/"


def is_chart(image):
    return "viptt-chart" in (image.get("class") or "")


def listed(found):
    return "\n".join(f"{name}: {line}" for name, lines in found.items() for line in lines)


def test_the_book_builds_without_a_warning(book):
    assert not book.failed, book.log
    assert set(book.pages) >= set(KINDS) and (book.folder / "index.html").is_file()


def test_pages_report_no_error_ask_no_other_host_and_fit_the_window(browser, book, base):
    found = {}
    with open_tab(browser, base) as tab:
        for name in KINDS if BUILT or base.startswith("http:") else book.pages:
            tab.open(name)
            told = [line for width in WIDTHS for line in too_wide(tab, width)] + tab.take_faults()
            if told:
                found[name] = told
    assert not found, listed(found)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_have_no_serious_barrier(browser, book, on_disk, axe, scheme, width):
    """Contrast, names, roles, keyboard: the rules of axe-core."""
    found = {}
    with open_tab(browser, on_disk, scheme=scheme, width=width) as tab:
        for name in KINDS if BUILT else book.pages:
            tab.open(name)
            assert tab.page.evaluate("document.documentElement.dataset.theme") == scheme
            if told := violations(tab, axe):
                found[name] = told
    assert not found, listed(found)


def test_no_table_hides_a_column(browser, book, on_disk):
    found = {}
    with open_tab(browser, on_disk) as tab:
        for name in KINDS if BUILT else book.pages:
            tab.open(name)
            if told := [line for width in TABLE_WIDTHS for line in cut_off(tab, width)]:
                found[name] = told
    assert not found, listed(found)


def test_a_row_of_a_wide_table_is_a_card_on_a_phone_that_names_its_columns(browser, on_disk):
    with open_tab(browser, on_disk, width=PHONE) as tab:
        tab.open("claims.html")
        table = tab.page.locator("table.viptt-cards").first
        heads = table.locator("th").all_inner_texts()
        cells = table.locator("tbody tr").first.locator("td")  # an empty one is not shown
        assert cells.evaluate_all("all => all.map(cell => cell.dataset.label)") == heads and len(heads) > 3
        assert len({round(box["y"]) for cell in cells.all() if (box := cell.bounding_box())}) > 1


def test_the_theme_button_darkens_the_page_and_charts_and_leaves_photographs(browser, book, on_disk):
    pages = book.pages.items()
    chart = next(name for name, page in pages if any(is_chart(image) for image in Markup(page).images))
    looks = """() => Object.fromEntries(["main article img", "body"].map(which => [which,
      [...document.querySelectorAll(which)].map(node => getComputedStyle(node))
        .map(style => which === "body" ? style.backgroundColor : style.filter)]))"""
    with open_tab(browser, on_disk) as tab:
        tab.open(chart)
        picture = tab.page.locator("img.viptt-chart").first
        assert corner(picture) == (255, 255, 255)
        for mode in ("auto", "dark"):
            tab.page.get_by_role("button", name="Color mode").click()
            assert tab.page.evaluate("document.documentElement.dataset.mode") == mode
        filters, (ground,) = tab.page.evaluate(looks).values()
        assert set(filters) == {"none"}
        assert corner(picture) == tuple(map(int, re.findall(r"\d+", ground))) and max(corner(picture)) < 50


def corner(picture):
    """The colour of a picture's upper left corner, as the browser shows it."""
    with Image.open(io.BytesIO(picture.screenshot())) as shown:
        return shown.convert("RGB").getpixel((2, 2))


def test_terms_citations_and_figures_are_previewed_on_hover_and_focus(browser, base):
    with open_tab(browser, base) as tab:
        article, tooltip = tab.page.locator(".bd-article"), tab.page.get_by_role("tooltip")
        for page, name, told in (
            ("paper.html", "seed", "The number that fixes all random draws"),
            ("paper.html", "Cohen, 1960", "A coefficient of agreement"),
            ("glossary.html", "the network", "The network, with the paper’s sizes"),
        ):
            tab.open(page)
            link = article.get_by_role("link", name=name, exact=True).first
            for look, leave in ((link.hover, lambda: tab.page.mouse.move(0, 0)), (link.focus, link.blur)):
                look()
                tooltip.wait_for()
                assert told in (tooltip.inner_text() or tooltip.locator("img").get_attribute("alt"))
                leave()
                tooltip.wait_for(state="detached")
        link.hover()
        assert tooltip.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
        assert tab.take_faults() == []


def test_search_finds_the_pages_of_a_word(browser, base):
    with open_tab(browser, base) as tab:
        tab.open("notebooks/02_finetune.html")
        tab.page.get_by_role("button", name=re.compile("^Search")).first.click()
        tab.page.get_by_role("searchbox").fill("kappa")
        tab.page.keyboard.press("Enter")
        tab.page.get_by_text(re.compile(r"found \d+ page")).wait_for()
        found = tab.page.locator("#search-results li a")
        pages = {href.split("#")[0] for href in found.evaluate_all("all => all.map(a => a.getAttribute('href'))")}
        assert pages >= {"claims.html", "notebooks/02_finetune.html"}
        found.first.click()
        tab.page.wait_for_load_state()
        assert "kappa" in tab.page.locator("main").inner_text().lower()
        assert tab.take_faults() == []


def test_next_leads_through_all_pages_of_the_contents(book):
    page, read = "intro.html", []
    while page not in read:
        read.append(page)
        onward = Markup(book.pages[page]).links["right-next"]
        page = posixpath.normpath(posixpath.join(posixpath.dirname(page), onward[0])) if onward else page
    contents = re.findall(r"(?:file|root): (\S+)", (ROOT / "book" / "_toc.yml").read_text("utf-8"))
    assert read == [f"{name}.html" for name in contents]


def test_every_link_within_the_book_leads_somewhere(book):
    """To a page and a place on it, to a listing of code, to a file that comes with the book."""
    markup, dead = functools.cache(Markup), set()
    for name, page in book.pages.items():
        for link in markup(page).links[""]:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            path, place = page.parent / unquote(address.path) if address.path else page, unquote(address.fragment)
            if not path.is_file() or place and path.suffix == ".html" and place not in markup(path).places:
                dead.add((name, link))
    assert dead == set()


def test_pages_open_themselves_on_colab_and_binder_and_the_first_one_a_notebook(book):
    repository = re.search(r"^  url: https://github.com/(\S+)", (ROOT / "_config.yml").read_text("utf-8"), re.M)[1]
    for name, page in book.pages.items():
        to_run = [unquote(link) for link in Markup(page).links[""] if re.match("https://(colab|mybinder)", link)]
        shown = "notebooks/02_finetune.html" if name == "intro.html" else name
        file = f"book/{shown.removesuffix('.html')}.ipynb"
        meant = [
            f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/{file}",
            f"https://colab.research.google.com/github/{repository}/blob/main/{file}",
        ]
        assert sorted(to_run, reverse=True) == meant * shown.startswith("notebooks/"), name


def test_the_page_to_edit_is_the_file_that_is_written_by_hand(book):
    """Not a copy that a command makes; it is there."""
    address = re.search(r"^  url: (\S+)", (ROOT / "_config.yml").read_text("utf-8"), re.M)[1]
    edited = {name: Markup(page).links["btn-source-edit-button"] for name, page in book.pages.items()}
    for name, links in edited.items():
        files = [link.removeprefix(f"{address}/edit/main/") for link in links]
        assert all((ROOT / file).is_file() and not file.endswith(".ipynb") for file in files), (name, links)
        assert len(files) == 1 or not (ROOT / "book" / name).with_suffix(".md").is_file()
    assert edited["notebooks/00_data.html"] == [f"{address}/edit/main/notebooks/00_data.py"]


@pytest.mark.parametrize(("width", "height"), [(DESK, 900), (PHONE, 800)])
def test_the_first_screen_answers_whether_the_claim_holds_and_leads_on_to_two_questions(
    browser, on_disk, width, height
):
    bottoms = """all => all.map(node => node.getBoundingClientRect()).map(box => box.bottom)"""
    with open_tab(browser, on_disk, width=width) as tab:
        tab.page.set_viewport_size({"width": width, "height": height})
        for question in ("What did the paper do wrong, if anything?", "How do I run it on my scans?"):
            tab.open("intro.html")
            answer, link = tab.page.get_by_text("Still open:"), tab.page.get_by_role("link", name=question)
            seen = [*answer.evaluate_all(bottoms), *link.evaluate_all(bottoms)]
            assert len(seen) == 2 and max(seen) < height
            link.click()
            tab.page.wait_for_load_state()
            assert "intro" not in tab.page.url


def test_every_picture_has_a_text_alternative(book):
    """Without one, Sphinx takes the name of the file."""
    missing = [
        (name, image.get("src", "")[:80])
        for name, page in book.pages.items()
        for image in Markup(page).images
        if not (image.get("alt") or "").strip() or re.search(r"\.(svg|png|jpe?g|webp|gif)$", image["alt"])
    ]
    assert missing == []


def test_the_book_and_its_pages_stay_small(book):
    sizes = {name: page.stat().st_size for name, page in book.pages.items()}
    assert sum(path.stat().st_size for path in book.folder.rglob("*") if path.is_file()) < MOST_BYTES
    assert {name: size for name, size in sizes.items() if size >= MOST_BYTES_OF_A_PAGE} == {}
    assert sizes[VIEWER_PAGE] < MOST_BYTES_OF_VIEWER_PAGE


# --- The viewer ------------------------------------------------------------------------------------------


def test_the_viewers_of_the_book_answer_keys_and_slider_alike(browser, on_disk):
    picture_of = "picture => picture.querySelector('image').getAttribute('href')"
    with open_tab(browser, on_disk) as tab:
        tab.open(VIEWER_PAGE)
        for viewer in tab.page.locator(".viptt-viewer").all():
            picture, slider = viewer.get_by_role("slider").first, viewer.locator("input[type=range]").first
            picture.focus()
            tab.page.keyboard.press("Home")
            first, scrolled = picture.evaluate(picture_of), tab.page.evaluate("scrollY")
            tab.page.keyboard.press("PageDown")
            later = picture.evaluate(picture_of)
            assert first != later and slider.input_value() == "10"
            slider.fill("0")
            assert picture.evaluate(picture_of) == first
            slider.fill("10")
            assert picture.evaluate(picture_of) == later
            assert (tab.page.evaluate("scrollY"), tab.page.url) == (scrolled, on_disk + VIEWER_PAGE)  # not the page's
        assert tab.take_faults() == []
