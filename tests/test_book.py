"""What the built book adds to its pages: formulas, a line below figures, the stamp, the status, the reference."""

import ast
import base64
import json
import re

import matplotlib.figure
import pandas as pd
import pytest
from tracked import ROOT, tracked_files

from viptt_core.book import sphinx_ext
from viptt_core.book.publish import PUBLISHED
from viptt_core.book.sphinx_ext import commit_html, complete_figures, outcome, stamp_html, status_table, to_mathml
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


def test_formulas_become_mathml_that_needs_no_script():
    inline, block = to_mathml(r"\kappa = \frac{a}{b}"), to_mathml("x_t", display="block")
    assert inline.startswith("<math") and "<mfrac>" in inline and 'display="inline"' in inline
    assert "<msub>" in block and 'display="block"' in block


# --- Figures ----------------------------------------------------------------------------------------------


@styled
def a_chart(**settings):
    figure = matplotlib.figure.Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return Picture(figure, "A line from 0 to 1.", **settings)


def completed(picture, tmp_path):
    page = complete_figures(picture._repr_mimebundle_()["text/html"], "02_finetune", tmp_path)
    return page.partition('<figcaption class="viptt-source">')[2]


def test_a_figure_links_to_the_function_that_drew_it_and_names_its_command(tmp_path):
    line = completed(a_chart(), tmp_path)
    assert f'<a href="../_modules/{__name__}.html#a_chart">a_chart</a>' in line
    assert "<code>viptt publish 02_finetune</code>" in line
    assert 'href="../_sources/notebooks/02_finetune.ipynb"' in line  # its data are what the notebook made


def test_a_figure_of_committed_files_brings_them_into_the_book(tmp_path, checkout):
    line = completed(a_chart(data=["results/02_finetune.csv", "results/absent.csv"]), tmp_path)
    (link,) = re.findall(r'href="\.\./(_data/[^"]+)"', line)
    assert (tmp_path / link).read_bytes() == (ROOT / "results" / "02_finetune.csv").read_bytes()
    assert "absent" not in line


def test_numbers_that_stand_in_no_file_come_with_the_figure(tmp_path):
    picture = a_chart(table=pd.DataFrame({"arm": ["video"], "kappa": [0.5]}))
    link = r'download="([^"]+)" href="data:text/csv;base64,([^"]+)"'
    name, data = re.search(link, completed(picture, tmp_path)).groups()
    assert name == "a_chart.csv" and base64.b64decode(data).decode() == "arm,kappa\nvideo,0.5\n"


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


# --- The stamp and the status -----------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "word"), [([], "fresh"), (["source"], "stale"), (["package"], "stale")])
def test_a_page_says_whether_what_it_was_made_from_has_changed(changed, word, monkeypatch):
    monkeypatch.setattr(sphinx_ext, "what_changed", lambda name: changed)
    monkeypatch.setattr(sphinx_ext, "_provenance", lambda name: PROVENANCE)
    page = stamp_html("02_finetune")
    assert f'<span class="viptt-{word}">{word}</span>' in page
    for part in (
        "3 November 2026",
        "3 min",
        "<code>0123456</code> with changes",
        "Some &lt;CPU&gt;",
        "no GPU",
        "Python 3.12.1",
        "torch 2.15",
        "viptt publish 02_finetune",
    ):
        assert part in page


def test_commits_are_linked_once_the_repository_has_an_address():
    assert "<a " not in commit_html("abc", "https://github.com/OWNER/viptt-net")
    assert commit_html("abc", "https://example.org/a/b").startswith('<a href="https://example.org/a/b/commit/abc">')


def test_the_status_has_a_row_for_every_notebook(checkout):
    rows = status_table().splitlines()[2:]
    assert [re.match(r"\| \[(\w+)\]\(notebooks/\1\) \|", row)[1] for row in rows] == list(PUBLISHED)
    assert all(re.search(r"\| (\d+) of \1 cells ran \|", row) for row in rows)


def test_a_failed_cell_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("VIPTT_ROOT", str(tmp_path))
    cells = [
        {"cell_type": "code", "execution_count": n, "outputs": [{"output_type": kind}] if kind else []}
        for n, kind in ((1, "stream"), (2, "error"), (None, ""))
    ]
    (tmp_path / "book" / "notebooks").mkdir(parents=True)
    (tmp_path / "book" / "notebooks" / "x.ipynb").write_text(json.dumps({"cells": cells}))
    assert outcome("x") == "failed in cell 2 of 3"


# --- The reference ----------------------------------------------------------------------------------------


def test_the_reference_has_every_module_once():
    pages = [page.read_text(encoding="utf-8") for page in tracked_files("book/api/*.md")]
    listed = [name for page in pages for name in re.findall(r"^\.\. automodule:: viptt_core\.(\S+)$", page, flags=re.M)]
    files = [path.relative_to(ROOT / "viptt_core").with_suffix("") for path in tracked_files("viptt_core/**/*.py")]
    modules = {".".join(path.parts).removesuffix(".__init__") for path in files}
    empty = {"__init__", "__main__", "book", "prediction", "sources", "study", "synthetic"}  # nothing but a docstring
    commands = {name for name in modules if name.split(".")[0] == "cli"}  # they have a page of their own
    assert sorted(listed) == sorted(modules - empty - commands)
