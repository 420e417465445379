"""The built book in a headless browser: read from disk or over HTTP, watched while it is read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # other hosts are asked in vain, and at once
)
AXE = "axe-core@4.14.1"
LISTINGS = ("_modules/index.html", "_modules/viptt_core/figures.html")
PHONE, DESK = 375, 1400  # widths of a page, in CSS pixels


@dataclass
class Book:
    """The built book.

    Attributes:
        folder: Of its pages.
        failed: Whether the build said so, which a warning is enough for.
        log: What it said of warnings and errors, and its end.
    """

    folder: Path
    failed: bool
    log: str

    @property
    def pages(self) -> dict[str, Path]:
        """Its pages by address, such as "notebooks/00_data.html"; of the listings of source code, two.

        Without index.html, which leads on to the first page at once.
        """
        found = {page.relative_to(self.folder).as_posix(): page for page in sorted(self.folder.rglob("*.html"))}
        for name in list(found):
            if name.startswith(("_modules/", "_static/", "index.html")) and name not in LISTINGS:
                del found[name]
        return found


def build(folder: Path) -> Book:
    """Build the book into a folder as `make book` does."""
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "--all", "-W", "--keep-going", "book/"]
    command += ["--path-output", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = (done.stdout + done.stderr).splitlines()
    told = [line for line in said[:-20] if re.search("warning|error", line, re.IGNORECASE)] + said[-20:]
    return Book(folder / "_build" / "html", done.returncode != 0, "\n".join(told))


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; gives its address, with a slash at the end."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def open_browser():
    """A headless Chromium. While it is open, its thread has a running event loop: nothing else can start one there."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Tab:
    """A tab that notes what goes wrong in it.

    Attributes:
        page: Playwright's.
        base: What every address begins with that it may ask for; also where `open` looks.
        faults: Errors that pages reported, and requests to elsewhere, since the last `take_faults`.
    """

    page: object
    base: str
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda said: said.type == "error" and self.faults.append(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._note)

    def _note(self, request) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.faults.append(f"asks for {request.url}")

    def open(self, name: str) -> None:
        self.page.goto(self.base + name)

    def take_faults(self) -> list[str]:
        taken, self.faults[:] = self.faults[:], []
        return taken


@contextmanager
def open_tab(browser, base: str, *, scheme: str = "light", width: int = DESK) -> Iterator[Tab]:
    """A fresh tab, its reader's choice of scheme made before."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    context.set_default_timeout(20_000)
    context.add_init_script(f"for (const key of ['mode', 'theme']) localStorage[key] ??= '{scheme}'")
    yield Tab(context.new_page(), base)
    context.close()


# What is wider than the window and in no box that scrolls: the reader must scroll the page sideways, or never sees it.
TOO_WIDE = """() => {
  const wide = document.documentElement.scrollWidth, told = [];
  if (wide > innerWidth) told.push(`the page is ${wide} px wide`);
  const scrolls = node => node && node !== document.body &&
    (["auto", "scroll"].includes(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
  for (const node of document.querySelectorAll("main article *")) {
    const box = node.getBoundingClientRect();
    if (box.width > 1 && box.right > innerWidth + 1 && !scrolls(node)) {
      told.push(`${node.outerHTML.slice(0, 100)} ends at ${Math.round(box.right)} px`);
      break;
    }
  }
  return told;
}"""


def too_wide(tab: Tab, width: int) -> list[str]:
    """What does not fit into a window of this width, in words."""
    tab.page.set_viewport_size({"width": width, "height": 900})
    return [f"{width} px: {told}" for told in tab.page.evaluate(TOO_WIDE)]


# Tables of which a part is beyond the edge of a box, so that a reader must scroll to see it, or never knows of it.
CUT_OFF = """async () => {
  document.querySelectorAll("details").forEach(node => node.open = true);
  await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  return [...document.querySelectorAll("main article table")].flatMap(table => {
    for (let node = table; node.tagName !== "ARTICLE"; node = node.parentElement)
      if (node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== "inline")
        return [`${table.textContent.trim().slice(0, 60)}: ${node.scrollWidth} px in ${node.clientWidth}`];
    return [];
  });
}"""


def cut_off(tab: Tab, width: int) -> list[str]:
    """The tables that do not fit into a window of this width, in words."""
    tab.page.set_viewport_size({"width": width, "height": 900})
    return [f"{width} px: {told}" for told in tab.page.evaluate(CUT_OFF)]


def violations(tab: Tab, axe: str) -> list[str]:
    """What axe-core finds on the page in the tab that is serious or critical."""
    tab.page.evaluate(axe)
    found = tab.page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
    return [
        f"{one['id']}: {node['target']} {node['html'][:150]} {node['any'][:1] and node['any'][0]['message']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def find_axe() -> str:
    """The script of axe-core: the file that VIPTT_AXE names, an installed one, or fetched by npm once for all runs.

    Raises:
        LookupError: it is not here, and npm cannot fetch it.
    """
    script = Path("node_modules", "axe-core", "axe.min.js")
    kept = ROOT / "data" / "cache" / "npm"
    for path in (Path(os.environ.get("VIPTT_AXE", "")), ROOT / script, kept / script):
        if path.is_file():
            return path.read_text("utf-8")
    kept.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", kept, AXE]
    with FileLock(kept / "install.lock"):
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise LookupError(f"npm could not fetch {AXE}, and VIPTT_AXE names no axe.min.js: {error}") from error
    return (kept / script).read_text("utf-8")


class Markup(HTMLParser):
    """What a page says, read without a browser.

    Attributes:
        images: Attributes of each `img`.
        links: By class, the addresses of each `a`; under "" of all.
        places: What a link may lead to: ids.
    """

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.images: list[dict] = []
        self.links: dict[str, list[str]] = defaultdict(list)
        self.places: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.places.add(told.get("id"))
        if tag == "img":
            self.images.append(told)
        elif tag == "a" and told.get("href"):
            for name in ("", *(told.get("class") or "").split()):
                self.links[name].append(told["href"])
