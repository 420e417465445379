"""What the built book shows beside its text: how a page was made, where a figure comes from, formulas, previews.

A Sphinx extension, named in `_config.yml`. It reads committed files only and executes nothing.
"""

from __future__ import annotations

import functools
import html
import posixpath
import re
import shutil
import textwrap
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from docutils import nodes
from jinja2 import Environment
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from viptt_core.book.artwork import WIDE
from viptt_core.book.publish import PUBLISHED, published_file, read_notebook, what_changed
from viptt_core.figures.claim import claim_chart
from viptt_core.figures.picture import WIDE_FROM
from viptt_core.files import artifact_root

FOLDER = "notebooks/"
DATA = "_data"  # folder of the built book that holds copies of the files that figures are drawn from
FIGURE = re.compile(
    r'(<figure class="viptt-figure"[^>]*data-code="([\w.]*)" data-files="([^"]*)">.*?)'
    r"(?:<figcaption>(.*?)</figcaption>)?</figure>",
    re.DOTALL,
)
NAMED = "figure-"  # how the name of a figure begins: links to it show it
CARD = "_static/claim.png"  # the picture that stands beside a link to the book elsewhere
WRITTEN = {"model_card": "MODEL_CARD.md", "changelog": "CHANGELOG.md"}  # pages whose text is another file


def setup(app) -> None:
    """Add everything to Sphinx, and take away the scripts of Thebe, which name another host."""
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)
    app.add_directive("notebook-status", NotebookStatus)
    app.connect("html-page-context", _add_stamp)
    app.connect("html-page-context", _add_links, priority=900)  # after the theme's own
    app.connect("html-page-context", _add_metadata)
    app.connect("env-get-outdated", _made_anew)
    app.connect("doctree-resolved", _add_sources)
    app.connect("doctree-resolved", _add_wide_forms)
    app.connect("doctree-resolved", _add_previews)
    app.connect("build-finished", _draw_card)
    app.connect("build-finished", _without_maps)


def _without_maps(app, exception: Exception | None) -> None:
    """Take away the theme's maps for debugging its scripts, a tenth of the book."""
    for path in Path(app.outdir).glob("_static/**/*.map"):
        path.unlink()


def _made_anew(app, env, added, changed, removed) -> list[str]:
    """Pages that depend on more than their own file."""
    pages = (*(f"{FOLDER}{name}" for name in PUBLISHED), "status", "explorer", "live")
    return [name for name in pages if name in env.found_docs]


def fill_template(template: str, told: dict) -> str:
    """HTML of a template beside this module, with what is told in it; text is escaped."""
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(Path(__file__).with_name(template).read_text(encoding="utf-8")).render(told)


# --- Formulas as MathML, which browsers draw without a script ---------------------------------------------


def _formula(translator, node: nodes.math | nodes.math_block) -> None:
    from latex2mathml.converter import convert

    if isinstance(node, nodes.math):
        formula = convert(node.astext())
    else:
        formula = f'<div class="math notranslate nohighlight">{convert(node.astext(), display="block")}</div>'
    translator.body.append(formula)
    raise nodes.SkipNode


# --- Pictures in their wide form, terms with their meaning ------------------------------------------------


def _add_wide_forms(app, doctree: nodes.document, docname: str) -> None:
    for image in list(doctree.findall(nodes.image)) if app.builder.format == "html" else ():
        wide = Path(image["uri"]).with_suffix(WIDE)
        if "viptt-chart" in image["classes"] and Path(app.srcdir, wide).is_file():
            place = "../" * docname.count("/") + wide.as_posix()
            start = f'<picture><source media="(min-width:{WIDE_FROM}px)" srcset="{place}">'
            image.parent.insert(image.parent.index(image) + 1, nodes.raw("", "</picture>", format="html"))
            image.parent.insert(image.parent.index(image), nodes.raw("", start, format="html"))


def _add_previews(app, doctree: nodes.document, docname: str) -> None:
    """What a link leads to is shown on hover and focus, by `book.js`: what a term means, a figure that has a name."""
    meanings, tree_of = {}, functools.cache(app.env.get_doctree)
    for link in doctree.findall(nodes.reference):
        page, _, place = link.get("refuri", "").partition("#")
        place = link.get("refid", place)
        if any("std-term" in node["classes"] for node in link.findall(nodes.inline)):
            meanings = meanings or meanings_of(tree_of("glossary"))
            link["reftitle"] = meanings.get(place, "")
        elif place.startswith(NAMED):
            name = posixpath.normpath(posixpath.join(posixpath.dirname(docname), page)).removesuffix(".html")
            figure = tree_of(name if page else docname).ids[place]
            image = f"{'../' * docname.count('/')}_images/{app.env.images[figure.next_node(nodes.image)['uri']][1]}"
            caption = html.escape(figure.next_node(nodes.caption).astext().replace("\n", " "))
            shown = f'<template><img src="{image}" alt="{caption}"></template>'
            link += nodes.raw("", shown, format="html")


def meanings_of(glossary: nodes.document) -> dict[str, str]:
    """By its place on the page, the first sentence about each term."""
    found = {}
    for entry in glossary.findall(nodes.definition_list_item):
        paragraph = next(entry.findall(nodes.definition)).next_node(nodes.paragraph)
        cited = [node for node in paragraph.findall(addnodes.pending_xref) if node["refdomain"] == "cite"]
        text = "".join(node.astext() for node in paragraph.children if node not in cited)
        first = re.split(r"(?<=[.?!]) (?=[A-Z])", " ".join(text.split()).replace(" ,", ","))[0]
        found |= {place: first for term in entry.findall(nodes.term) for place in term["ids"]}
    return found


# --- The line below each figure of a notebook's page: its code, its data, its command ----------------------


def _add_sources(app, doctree: nodes.document, docname: str) -> None:
    if app.builder.format != "html" or not docname.startswith(FOLDER):
        return
    for node in doctree.findall(nodes.raw):
        if node.get("format") == "html" and "viptt-figure" in node.astext():
            text = complete_figures(node.astext(), docname.removeprefix(FOLDER), Path(app.outdir))
            node.replace_self(nodes.raw("", text, format="html"))


def copy_data(files: Iterable[str], out: Path) -> None:
    """Copy committed files, named from the artifact's root, into the folder DATA of the built book `out`."""
    for file in files:
        (out / DATA / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact_root() / file, out / DATA / file)


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
        copy_data(files, out)
        data = [f'<a href="../{DATA}/{file}" download>{file}</a>' for file in files] + [numbers] * bool(numbers)
        data = data or [f'the cells of <a href="../_sources/notebooks/{name}.ipynb" download>this notebook</a>']
        return (
            f'{start}<figcaption class="viptt-source">code: <a href="{drawn_by}">{function}</a> · '
            f"data: {', '.join(data)} · made by <code>viptt publish {name}</code></figcaption></figure>"
        )

    return FIGURE.sub(complete, page)


# --- What others see of a page, and where it leads --------------------------------------------------------


def _add_links(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """The pages before and after under their short names; the link to edit one leads to what is edited."""
    for key, name in zip(("prev", "next"), app.builder.relations.get(pagename, ("", "", ""))[1:], strict=True):
        if name and (title := app.env.external_site_map[name].title):
            context[key]["title"] = title
    name = pagename.removeprefix(FOLDER)
    source = f"{FOLDER}{name}.py" if pagename.startswith(FOLDER) else WRITTEN.get(pagename)
    for button in (one for group in context["header_buttons"] for one in group.get("buttons", ())):
        if source and button.get("label") == "source-edit-button":
            start, _, _ = button["url"].rpartition("/book/")
            button["url"] = f"{start}/{source}"


def _add_metadata(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    if doctree is not None:
        owner, repository = app.config.html_theme_options["repository_url"].split("/")[-2:]
        site = f"https://{owner}.github.io/{repository}/"
        context["metatags"] += metadata_html(doctree, site, f"{pagename}.html", app.config.html_title)


def metadata_html(page: nodes.document, site: str, name: str, project: str) -> str:
    """What search engines and links in a chat show of a page: its title, how it begins, a picture.

    Args:
        page: Its tree.
        site: Address of the book, with a slash at the end.
        name: Of the page's file in it.
        project: Title of the book.
    """
    words = [node.astext() for node in page.findall(nodes.paragraph) if not isinstance(node.parent, nodes.Admonition)]
    start = textwrap.shorten(" ".join(words), 300, placeholder=" …")
    title = next((node.astext() for node in page.findall(nodes.title)), project)
    told = {"og:title": title, "og:site_name": project, "og:type": "website", "og:description": start}
    told |= {
        "og:url": site + name,
        "og:image": site + CARD,
        "og:image:alt": "Kappa as published, and with all else equal",
    }
    tags = [f'<meta name="description" content="{html.escape(start)}" />']
    tags += [f'<meta property="{key}" content="{html.escape(value)}" />' for key, value in told.items()]
    return "\n".join(["", *tags, ""])


def _draw_card(app, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        Path(app.outdir, CARD).write_bytes(claim_chart(artifact_root()).encode("png", wide=True, dpi=130))


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
