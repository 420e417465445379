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
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_formula, None))
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


def _inline_formula(translator, node: nodes.math) -> None:
    translator.body.append(to_mathml(node.astext()))
    raise nodes.SkipNode


def _formula(translator, node: nodes.math_block) -> None:
    formula = to_mathml(node.astext(), display="block")
    translator.body.append(f'<div class="math notranslate nohighlight">{formula}</div>')
    raise nodes.SkipNode


def to_mathml(latex: str, *, display: str = "inline") -> str:
    """A formula of LaTeX as a MathML element; `display` is "inline" or "block"."""
    from latex2mathml.converter import convert

    return convert(latex, display=display)


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
        start, code, files, numbers = found.groups()
        module, _, function = code.rpartition(".")
        drawn_by = f"../_modules/{module.replace('.', '/')}.html#{function}"
        data = [
            f'<a href="../{DATA}/{file}" download>{html.escape(file)}</a>' for file in files.split() if copied(file)
        ]
        data += [numbers] if numbers else []
        data = data or [f'the cells of <a href="../_sources/notebooks/{name}.ipynb" download>this notebook</a>']
        return (
            f'{start}<figcaption class="viptt-source">code: <a href="{drawn_by}">{html.escape(function)}</a> · '
            f"data: {', '.join(data)} · made by <code>viptt publish {name}</code></figcaption></figure>"
        )

    def copied(file: str) -> bool:
        source, target = artifact_root() / file, out / DATA / file
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return source.is_file()

    return FIGURE.sub(complete, page)


# --- The foot of a notebook's page, and the table of all notebooks -----------------------------------------


def _add_stamp(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    name = pagename.removeprefix(FOLDER)
    if pagename.startswith(FOLDER) and name in PUBLISHED:
        context["body"] += stamp_html(name, app.config.html_theme_options.get("repository_url", ""))


def stamp_html(name: str, repository: str = "") -> str:
    """When, where and from what a published notebook was made, and whether that still holds.

    Raises:
        DataError: it was never executed.
    """
    made = _provenance(name)
    state, words = describe(what_changed(name))
    packages = ", ".join(f"{package} {version}" for package, version in made["packages"].items())
    hardware = f"{made['system']}, {made['processor']}, {made['threads']} threads, {made['gpu'] or 'no GPU'}"
    return (
        '<section class="viptt-stamp" aria-label="How this page was made">'
        f'<p><span class="viptt-{state}">{state}</span> {words} '
        f"Executed on {date(made)} in {duration(made['seconds'])}, from commit "
        f"{commit_html(made['commit'], repository)}, on {html.escape(hardware)}.</p>"
        f"<details><summary>Versions, and how to run it again</summary><p>Python {made['python']}, "
        f"{html.escape(packages)}.</p><p><code>viptt publish {name}</code> executes this page again as it stands here; "
        f"<code>papermill notebooks/{name}.py out.ipynb -p NAME VALUE</code> with other parameters.</p>"
        "</details></section>"
    )


class NotebookStatus(SphinxDirective):
    """The directive `notebook-status`: the table, as text of the page, so that search finds it."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(status_table())


def status_table() -> str:
    """A row for every notebook, in Markdown: its run time, its outcome and its freshness."""
    lines = ["| page | outcome | run time | executed | commit | threads, GPU | now |", "|---|---|---:|---|---|---|---|"]
    for name in PUBLISHED:
        made = _provenance(name)
        state, _ = describe(what_changed(name))
        lines.append(
            f"| [{name}]({FOLDER}{name}) | {outcome(name)} | {duration(made['seconds'])} | {date(made)} "
            f"| `{made['commit'][:7]}` | {made['threads']}, {made['gpu'] or 'no GPU'} | {state} |"
        )
    return "\n".join(lines)


def outcome(name: str) -> str:
    """How many cells of a published notebook ran, and whether one failed."""
    code = [cell for cell in read_notebook(published_file(name))["cells"] if cell["cell_type"] == "code"]
    ran = [cell for cell in code if cell["execution_count"]]
    failed = [cell for cell in ran if any(output["output_type"] == "error" for output in cell["outputs"])]
    if failed:
        return f"failed in cell {code.index(failed[0]) + 1} of {len(code)}"
    return f"{len(ran)} of {len(code)} cells ran"


def _provenance(name: str) -> dict:
    return read_notebook(published_file(name))["metadata"]["viptt"]["provenance"]


def describe(changed: list[str]) -> tuple[str, str]:
    """One word, "fresh" or "stale", and a sentence; see `publish.what_changed`."""
    if "source" in changed:
        return "stale", "The notebook has changed since: what stands here is the result of another one."
    if changed:
        return "stale", "The package or the result files it reads have changed since: its numbers may, too."
    return "fresh", "Nothing it was made from has changed since."


def date(provenance: dict) -> str:
    """Such as "3 November 2026"."""
    day = datetime.fromisoformat(provenance["date"])
    return f"{day.day} {day:%B %Y}"


def duration(seconds: float) -> str:
    """Such as "42 s" or "5 min"."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def commit_html(commit: str, repository: str = "") -> str:
    """A commit in seven digits, linked where the repository has an address; files may have differed from it."""
    digits = html.escape(commit.rstrip("+"))
    shown = f"<code>{digits[:7]}</code>"
    if repository and "/OWNER/" not in repository:
        shown = f'<a href="{html.escape(repository, quote=True)}/commit/{digits}">{shown}</a>'
    return shown + (" with changes" if commit.endswith("+") else "")
