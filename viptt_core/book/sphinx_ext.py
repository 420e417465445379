"""What the built book shows beside its text: how a page was made, where a figure comes from, formulas.

A Sphinx extension, named in `_config.yml`. It reads committed files only and executes nothing.
"""

from __future__ import annotations

import html
import re
import shutil
from datetime import datetime
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from viptt_core import __version__
from viptt_core.book.publish import PUBLISHED, published_file, read_notebook, what_changed
from viptt_core.files import artifact_root

FOLDER = "notebooks/"
DATA = "_data"  # folder of the built book that holds copies of the files that figures are drawn from
FIGURE = re.compile(
    r'(<figure class="viptt-figure"[^>]*data-code="([\w.]*)" data-files="([^"]*)">.*?)'
    r"(?:<figcaption>(.*?)</figcaption>)?</figure>",
    re.DOTALL,
)


def setup(app) -> dict[str, bool | str]:
    """Add everything to Sphinx, and take away the scripts of Thebe, which name another host."""
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)
    app.add_directive("notebook-status", NotebookStatus)
    app.connect("html-page-context", _add_stamp)
    app.connect("env-get-outdated", _made_anew)
    app.connect("doctree-resolved", _add_sources)
    return {"version": __version__, "parallel_read_safe": True, "parallel_write_safe": True}


def _made_anew(app, env, added, changed, removed) -> list[str]:
    """Pages that depend on more than their own file."""
    return [name for name in (*(f"{FOLDER}{name}" for name in PUBLISHED), "status") if name in env.found_docs]


# --- Formulas as MathML, which browsers draw without a script ---------------------------------------------


def _formula(translator, node: nodes.math | nodes.math_block) -> None:
    from latex2mathml.converter import convert

    if isinstance(node, nodes.math):
        formula = convert(node.astext())
    else:
        formula = f'<div class="math notranslate nohighlight">{convert(node.astext(), display="block")}</div>'
    translator.body.append(formula)
    raise nodes.SkipNode


# --- The line below each figure of a notebook's page: its code, its data, its command ----------------------


def _add_sources(app, doctree: nodes.document, docname: str) -> None:
    if app.builder.format != "html" or not docname.startswith(FOLDER):
        return
    for node in doctree.findall(nodes.raw):
        if node.get("format") == "html" and "viptt-figure" in node.astext():
            text = complete_figures(node.astext(), docname.removeprefix(FOLDER), Path(app.outdir))
            node.replace_self(nodes.raw("", text, format="html"))


def complete_figures(page: str, name: str, out: Path) -> str:
    """HTML of a notebook's page with a line below each figure; the files it names are copied into the built book.

    Args:
        page: HTML, in which each figure says which function drew it and which files it reads.
        name: Of the notebook.
        out: Folder of the built book.
    """

    def complete(found: re.Match) -> str:
        start, code, named, numbers = found.groups()
        module, _, function = code.rpartition(".")
        drawn_by = f"../_modules/{module.replace('.', '/')}.html#{function}"
        files = [file for file in named.split() if (artifact_root() / file).is_file()]
        for file in files:
            (out / DATA / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact_root() / file, out / DATA / file)
        data = [f'<a href="../{DATA}/{file}" download>{file}</a>' for file in files] + [numbers] * bool(numbers)
        data = data or [f'the cells of <a href="../_sources/notebooks/{name}.ipynb" download>this notebook</a>']
        return (
            f'{start}<figcaption class="viptt-source">code: <a href="{drawn_by}">{function}</a> · '
            f"data: {', '.join(data)} · made by <code>viptt publish {name}</code></figcaption></figure>"
        )

    return FIGURE.sub(complete, page)


# --- The foot of a notebook's page, and the table of all notebooks -----------------------------------------


def _add_stamp(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    name = pagename.removeprefix(FOLDER)
    if pagename.startswith(FOLDER) and name in PUBLISHED:
        context["body"] += stamp_html(name)


def stamp_html(name: str) -> str:
    """When, where and from what a published notebook was made, and whether that still holds.

    Raises:
        DataError: it was never executed.
    """
    made = provenance_in_words(name)
    return (
        '<section class="viptt-stamp" aria-label="How this page was made">'
        f'<p><span class="viptt-{made["state"]}">{made["state"]}</span> {made["reason"]} Executed on {made["day"]} in '
        f"{made['duration']}, from commit <code>{made['commit']}</code>, on {html.escape(made['machine'])}, "
        f"{html.escape(made['threads'])}.</p>"
        f"<details><summary>Versions, and how to run it again</summary><p>{html.escape(made['packages'])}.</p>"
        f"<p><code>viptt publish {name}</code> executes this page again as it stands here; "
        f"<code>papermill notebooks/{name}.py out.ipynb -p NAME VALUE</code> with other parameters.</p>"
        "</details></section>"
    )


class NotebookStatus(SphinxDirective):
    """The directive `notebook-status`: the table, as text of the page, so that search finds it."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(status_table())


def status_table() -> str:
    """A row for every notebook, in Markdown: its run time and its freshness."""
    lines = ["| page | run time | executed | commit | threads, GPU | now |", "|---|---:|---|---|---|---|"]
    for name in PUBLISHED:
        made = provenance_in_words(name)
        shown = (f"[{name}]({FOLDER}{name})", *(made[key] for key in ("duration", "day", "commit", "threads", "state")))
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def provenance_in_words(name: str) -> dict[str, str]:
    """What a published notebook says of how it was made, and whether it is "fresh" or "stale", and why.

    Raises:
        DataError: it was never executed.
    """
    made, changed = read_notebook(published_file(name))["metadata"]["viptt"]["provenance"], what_changed(name)
    day, seconds = datetime.fromisoformat(made["date"]), made["seconds"]
    if "source" in changed:
        reason = "The notebook has changed since: what stands here is the result of another one."
    elif changed:
        reason = "The package or the result files it reads have changed since: its numbers may, too."
    else:
        reason = "Nothing it was made from has changed since."
    packages = {"Python": made["python"], **made["packages"]}
    return {
        "state": "stale" if changed else "fresh",
        "reason": reason,
        "day": f"{day.day} {day:%B %Y}",
        "duration": f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min",
        "commit": made["commit"][:7] + " with changes" * made["commit"].endswith("+"),
        "machine": f"{made['system']}, {made['processor']}",
        "threads": f"{made['threads']} threads, {made['gpu'] or 'no GPU'}",
        "packages": ", ".join(f"{package} {version}" for package, version in packages.items()),
    }
