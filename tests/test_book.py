"""What the built book adds to its pages: formulas, a line below figures, the stamp, the status, the reference."""

import ast
import base64
import json
import re
from types import SimpleNamespace

import docutils.core
import matplotlib.figure
import pandas as pd
import pytest
from docutils import nodes
from sphinx.ext.napoleon.docstring import GoogleDocstring
from tracked import ROOT, tracked_files

from viptt_core.book import sphinx_ext
from viptt_core.book.publish import PUBLISHED
from viptt_core.book.sphinx_ext import complete_figures, meanings_of, metadata_html, stamp_html, status_table
from viptt_core.figures import Picture, styled

PROVENANCE = {
    "commit": "0123456789abcdef+",
    "date": "2026-11-03T10:00:00+00:00",
    "python": "3.12.1",
    "packages": {"torch": "2.15"},
    "system": "Linux x86_64",
    "processor": "Some <CPU>, 2 cores",
    "threads": 2,
    "gpu": None,
    "seconds": 200,
}


@pytest.fixture
def checkout(monkeypatch):
    """The committed pages, not the folder of the tests."""
    monkeypatch.delenv("VIPTT_ROOT")


# --- Formulas ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, formula, start",
    [(nodes.math, r"\frac{a}{b}", "<math xmlns"), (nodes.math_block, "x_t", '<div class="math notranslate')],
)
def test_formulas_become_mathml_that_needs_no_script(kind, formula, start):
    translator = SimpleNamespace(body=[])
    with pytest.raises(nodes.SkipNode):
        sphinx_ext._formula(translator, kind("", formula))
    (written,) = translator.body
    assert written.startswith(start) and ("<mfrac>" in written or "<msub>" in written)
    assert f'display="{"inline" if kind is nodes.math else "block"}"' in written


# --- Figures ----------------------------------------------------------------------------------------------


@styled
def a_chart(**settings):
    figure = matplotlib.figure.Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return Picture(figure, "A line from 0 to 1.", **settings)


def completed(tmp_path, **settings):
    """The line below the chart."""
    page = complete_figures(a_chart(**settings)._repr_mimebundle_()["text/html"], "02_finetune", tmp_path)
    return page.partition('<figcaption class="viptt-source">')[2]


def test_a_figure_names_its_function_its_command_and_the_notebook_whose_data_it_shows(tmp_path):
    line = completed(tmp_path)
    assert f'<a href="../_modules/{__name__}.html#a_chart">a_chart</a>' in line
    assert "<code>viptt publish 02_finetune</code>" in line
    assert 'href="../_sources/notebooks/02_finetune.ipynb"' in line


def test_a_figure_brings_its_committed_files_and_its_own_numbers_into_the_book(tmp_path, checkout):
    line = completed(tmp_path, data=["results/02_finetune.csv", "absent.csv"], table=pd.DataFrame({"kappa": [0.5]}))
    (link,) = re.findall(r'href="\.\./(_data/[^"]+)"', line)
    assert (tmp_path / link).read_bytes() == (ROOT / "results" / "02_finetune.csv").read_bytes()
    name, data = re.search(r'download="([^"]+)" href="data:text/csv;base64,([^"]+)"', line).groups()
    assert name == "a_chart.csv" and base64.b64decode(data) == b"kappa\n0.5\n" and "absent" not in line


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_figure_says_what_drew_it_from_files_that_are_there(name):
    notebook = json.loads((ROOT / "book" / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    pages = [
        "".join(output["data"]["text/html"])
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {})
    ]
    tags = [tag for page in pages for tag in re.findall(r'<figure class="viptt-figure"[^>]*>', page)]
    assert tags and not any("<img" in page and "viptt-figure" not in page for page in pages)
    for tag in tags:
        code, files = re.search(r'data-code="viptt_core\.([\w.]+)" data-files="([^"]*)"', tag).groups()
        module, _, function = code.rpartition(".")
        package = ROOT / "viptt_core" / module.replace(".", "/")
        source = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
        tree = ast.parse(source.read_text(encoding="utf-8"))
        assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], code
        assert all((ROOT / file).is_file() for file in files.split()), files


# --- What others see of a page, pictures, previews -----------------------------------------------------------


def page_of(text):
    return docutils.core.publish_doctree(text, settings_overrides={"report_level": 5})


def test_what_others_see_of_a_page_is_its_title_and_how_it_begins():
    page = page_of('Scans & <videos>\n================\n\n.. note:: Not this.\n\nSays "it".\n\n' + 90 * "More. ")
    told = metadata_html(page, "https://owner.github.io/viptt-net/", "paper.html", "The book")
    found = dict(re.findall(r'(?:name|property)="([^"]*)" content="([^"]*)"', told))
    assert found["og:title"] == "Scans &amp; &lt;videos&gt;" and found["og:site_name"] == "The book"
    assert found["description"] == found["og:description"] and found["description"].startswith(
        "Says &quot;it&quot;. More."
    )
    assert len(found["description"]) < 320 and found["description"].endswith(" …")
    assert found["og:url"] == "https://owner.github.io/viptt-net/paper.html"
    assert found["og:image"] == f"https://owner.github.io/viptt-net/{sphinx_ext.CARD}"


def test_a_chart_brings_its_wide_form_where_there_is_one(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "a.wide.svg").touch()
    page = page_of("\n\n".join(f".. figure:: _static/{name}.svg\n   :class: viptt-chart" for name in "ab"))
    app = SimpleNamespace(builder=SimpleNamespace(format="html"), srcdir=tmp_path)
    sphinx_ext._add_wide_forms(app, page, "notebooks/00_data")
    source, end = page.findall(nodes.raw)
    assert source.astext() == '<picture><source media="(min-width:700px)" srcset="../_static/a.wide.svg">'
    assert source.parent.children == [source, next(page.findall(nodes.image)), end] and not source["classes"]


def test_a_term_is_previewed_by_the_first_sentence_about_it():
    glossary = page_of("clip\n  A video, e.g. a film. Or a volume.\n\n  More.\n\nscan\n  A file\n  of CT.\n")
    for term in glossary.findall(nodes.term):
        term["ids"] = [f"term-{term.astext()}"]
    assert meanings_of(glossary) == {"term-clip": "A video, e.g. a film.", "term-scan": "A file of CT."}


def test_a_link_to_a_named_figure_shows_it_and_one_to_a_term_says_what_it_means():
    figure = ".. figure:: _static/{0}.svg\n\n   Picture\n   of {0} & more.\n".format
    names = {"a": "model", "b": "notebooks/00_data"}
    pages = {page: page_of(figure(name)) for name, page in names.items()}
    for name, page in names.items():
        pages[page].ids[f"figure-{name}"] = next(pages[page].findall(nodes.figure))
    pages["glossary"] = page_of("clip\n  A video.\n\nscan\n  A file.\n")
    page = pages["notebooks/00_data"]
    for term in pages["glossary"].findall(nodes.term):
        term["ids"] = [f"term-{term.astext()}"]
    places = ("../model.html#figure-a", "", "../glossary.html#term-scan", "../model.html#layers", "https://a.org")
    links = [nodes.reference("", "", nodes.inline(), refuri=place) for place in places]
    links[1]["refid"] = "figure-b"
    links[2].next_node()["classes"] = ["std-term"]
    page.append(nodes.paragraph("", "", *links))
    images = {f"_static/{name}.svg": ({"a page"}, f"{name}1.svg") for name in "ab"}
    app = SimpleNamespace(env=SimpleNamespace(get_doctree=pages.get, images=images))
    sphinx_ext._add_previews(app, page, "notebooks/00_data")
    shown = '<template><img src="../_images/{0}1.svg" alt="Picture of {0} &amp; more."></template>'.format
    assert [link.astext() for link in links] == [shown("a"), shown("b"), "", "", ""]
    assert [link.get("reftitle") for link in links] == [None, None, "A file.", None, None]


# --- The stamp and the status -----------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "word"), [([], "fresh"), (["source"], "stale"), (["package"], "stale")])
def test_a_page_says_how_it_was_made_and_whether_that_has_changed(changed, word, monkeypatch):
    monkeypatch.setattr(sphinx_ext, "what_changed", lambda name: changed)
    monkeypatch.setattr(sphinx_ext, "read_notebook", lambda path: {"metadata": {"viptt": {"provenance": PROVENANCE}}})
    page = stamp_html("02_finetune")
    told = [f'<span class="viptt-{word}">{word}</span>', "3 November 2026", "3 min", "Some &lt;CPU&gt;", "no GPU"]
    told += ["<code>0123456 with changes</code>", "Python 3.12.1", "torch 2.15", "viptt publish 02_finetune"]
    assert [part for part in told if part not in page] == []


def test_the_status_has_a_row_for_every_notebook(checkout):
    rows = status_table().splitlines()[2:]
    assert [re.match(r"\| \[(\w+)\]\(notebooks/\1\) \| \d+ (?:s|min) \|", row)[1] for row in rows] == list(PUBLISHED)


# --- The reference ----------------------------------------------------------------------------------------


def test_the_reference_has_every_module_once():
    pages = [page.read_text(encoding="utf-8") for page in tracked_files("book/api/*.md")]
    listed = [name for page in pages for name in re.findall(r"^\.\. automodule:: viptt_core\.(\S+)$", page, flags=re.M)]
    files = [path.relative_to(ROOT / "viptt_core").with_suffix("") for path in tracked_files("viptt_core/**/*.py")]
    modules = {".".join(path.parts).removesuffix(".__init__") for path in files}
    empty = {"__init__", "__main__", "book", "prediction", "sources", "study", "synthetic"}  # nothing but a docstring
    commands = {name for name in modules if name.split(".")[0] == "cli"}  # they have a page of their own
    assert sorted(listed) == sorted(modules - empty - commands)


def test_the_reference_takes_no_sentence_for_a_type_and_no_two_names_for_one():
    """Napoleon reads what stands before a colon as an attribute's type, and a line of `Attributes:` as one name."""
    faults = []
    for path in tracked_files("viptt_core/**/*.py"):
        text = path.read_text(encoding="utf-8")
        about = re.findall(r"#: (.*(?:\n +#: .*)*)", text)
        for node in ast.walk(ast.parse(text)):
            docstring = isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) or ""
            if any("property" in ast.unparse(by) for by in getattr(node, "decorator_list", ())):
                about.append(docstring)
            faults += re.findall(r"^ {4}\w+(?:, \w+)+: .*", docstring, flags=re.M)
        faults += [line for line in about if ":type:" in str(GoogleDocstring(line, what="attribute", name="it"))]
    assert faults == []
