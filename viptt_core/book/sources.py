"""The line below each figure of a notebook's page: the code that drew it, its data, the command that made it.

`figures.Picture` and `viewer.Viewer` say in their HTML which function drew them and which files they read; only the
build knows where on the book's pages these stand.
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

from docutils import nodes

from viptt_core.files import artifact_root

DATA = "_data"  # folder of the built book that holds copies of the files
FIGURE = re.compile(
    r'(<figure class="viptt-figure"[^>]*data-code="([\w.]*)" data-files="([^"]*)">.*?)'
    r"(?:<figcaption>(.*?)</figcaption>)?</figure>",
    re.DOTALL,
)


def add_to(app) -> None:
    """Add the lines to pages that are notebooks, and copy the files they link to."""
    app.connect("doctree-resolved", _complete_figures)


def _complete_figures(app, doctree: nodes.document, docname: str) -> None:
    if app.builder.format != "html":
        return
    folder, _, name = docname.rpartition("/")
    up = "../" * docname.count("/")
    for node in doctree.findall(nodes.raw):
        if folder == "notebooks" and node.get("format") == "html" and "viptt-figure" in node.astext():
            text = FIGURE.sub(lambda found: _complete(found, name, up, Path(app.outdir)), node.astext())
            node.replace_self(nodes.raw("", text, format="html"))


def _complete(found: re.Match, name: str, up: str, out: Path) -> str:
    start, code, files, numbers = found.groups()
    return (
        f'{start}<figcaption class="viptt-source">{source_line(code, files.split(), numbers, name, up, out)}'
        "</figcaption></figure>"
    )


def source_line(code: str, files: list[str], numbers: str | None, name: str, up: str, out: Path) -> str:
    """The line.

    Args:
        code: Full name of the function, such as "viptt_core.figures.kappa_by_arm".
        files: Committed files, from the artifact's root; each is copied into the built book.
        numbers: Link to numbers that come with the figure.
        name: Of the notebook.
        up: From the page to the top of the book.
        out: Folder of the built book.
    """
    module, _, function = code.rpartition(".")
    page = f"{up}_modules/{module.replace('.', '/')}.html#{function}"
    data = [f'<a href="{up}{DATA}/{file}" download>{html.escape(file)}</a>' for file in files if _copied(file, out)]
    data += [numbers] if numbers else []
    data = data or [f'the cells of <a href="{up}_sources/notebooks/{name}.ipynb" download>this notebook</a>']
    return (
        f'code: <a href="{page}">{html.escape(function)}</a> · data: {", ".join(data)} · '
        f"made by <code>viptt publish {name}</code>"
    )


def _copied(file: str, out: Path) -> bool:
    """Copy a committed file into the built book; False where it is not there."""
    source, target = artifact_root() / file, out / DATA / file
    if not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_file() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)
    return True
