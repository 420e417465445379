"""The notebooks: thin, parameterised, runnable; the published ones fresh, clean and light."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tracked import ROOT, tracked_files

from viptt_core.book.publish import PUBLISHED, recorded_summaries, scrub, what_changed
from viptt_core.shown import show_code

TINY = {"preset": "study", "n_scans": 60, "n_videos": 50, "epochs": 1, "device": "cpu"}
EXERCISES = ("00_data", "01_pretrain", "02_finetune", "03_ablations", "04_per_class")
LOGIC = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.Lambda, ast.BinOp, ast.comprehension)


def cells_of(name):
    """(tags, source) of each code cell of a notebook's source."""
    import jupytext

    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    return [(c.metadata.get("tags", []), c.source) for c in notebook.cells if c.cell_type == "code"]


# --- The sources ----------------------------------------------------------------------------------


def test_every_notebook_is_published():
    assert tuple(sorted(path.stem for path in tracked_files("notebooks/*.py"))) == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_notebooks_hold_explained_parameters_calls_and_no_logic(name):
    text = (ROOT / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
    assert [part for part in ("# # ", "**Aim.**", "**Runtime.**", "## Recap") if part not in text] == []
    _, *cells = cells_of(name)  # the first is Colab's, see test_cloud.py
    position = next(i for i, (tags, _) in enumerate(cells) if "parameters" in tags)
    for line in cells[position][1].splitlines():
        assert re.fullmatch(r"\w+: (str|int|float|bool) = \S.*  # .{10,}", line), line
    assert re.match(r"(given = )?check_parameters\(globals\(\)\)\n", cells[position + 1][1])
    for tags, source in cells:
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, LOGIC), f"{name}: {ast.unparse(node)}"
            assert "parameters" in tags or not isinstance(node, ast.AnnAssign), f"{name}: taken for a parameter"


@pytest.mark.parametrize("name", EXERCISES)
def test_a_notebook_ends_with_an_exercise_for_each_kind_of_reader_and_its_folded_solution(name):
    import jupytext

    cells = jupytext.read(ROOT / "notebooks" / f"{name}.py").cells
    solutions = [i for i, cell in enumerate(cells) if "solution" in cell.metadata.get("tags", [])]
    for i, reader in zip(solutions, ("Radiology", "Machine learning"), strict=True):
        assert "hide-cell" in cells[i].metadata["tags"] and cells[i].source.startswith("# ")
        assert ast.parse(cells[i].source).body, "no code"
        assert re.match(rf"(## Exercises\n)?\*\*{reader}\.\*\* \w", cells[i - 1].source)
    assert cells[solutions[-1] + 1].source.startswith("## Recap")


def test_jupyterlab_writes_no_header_into_a_source_and_outputs_beside_it():
    import jupytext
    from jupytext.config import load_jupytext_config

    path = ROOT / "notebooks" / "02_finetune.py"
    notebook, config = jupytext.read(path), load_jupytext_config(str(path))
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    assert jupytext.writes(notebook, "py:percent", config=config) == path.read_text(encoding="utf-8")
    assert config.default_formats(str(path)) == "ipynb,py:percent"


def test_shown_code_is_a_cell_of_python_that_stands_at_the_margin():
    class Indented:
        def method(self):
            return 1

    assert show_code(Indented.method).data == "```python\ndef method(self):\n    return 1\n```"


@pytest.fixture
def same_clips(tmp_path_factory, monkeypatch):
    """One cache for all notebooks, in every worker: they read the same synthetic sets."""
    monkeypatch.setenv("VIPTT_CACHE", str(tmp_path_factory.getbasetemp().parent / "clips-of-notebooks"))


# Of these, what they compute and draw is tested piece by piece; that they run, their published pages show.
SLOW = ("00_data", "03_ablations", "04_per_class")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in PUBLISHED])
def test_notebooks_run_with_other_parameters(name, tmp_path, private_root, same_clips):
    """papermill as a reader types it, at the smallest size."""
    out = tmp_path / "out.ipynb"
    known = (ROOT / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
    settings = TINY | {
        "02_finetune": {"pretrain_epochs": 1, "starts": "random,video"},
        "05_submission": {"pretrain_epochs": 1, "n_train": 60, "n_scans": 5, "ensemble": "authors"},
    }.get(name, {})
    given = [part for key, value in settings.items() if f"\n{key}:" in known for part in ("-p", key, str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", f"notebooks/{name}.py", str(out), "--no-progress-bar", *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    if name in ("01_pretrain", "02_finetune"):
        text = recorded_summaries(out)[-1]["text"]
        assert "kappa (95 % interval)" in text
        arms = ("random", "video") if name == "02_finetune" else ("video", "most frequent class")
        assert all(arm in text for arm in arms)
        assert len(list((private_root / "runs").glob("pretrain-video-*"))) == 1
    if name == "05_submission":
        written = (private_root / "runs" / "submission.txt").read_text()
        assert re.fullmatch(r"(TRN_000[1-5]\.nii\.gz,[1-5]\n){5}", written)


def test_scrubbing_takes_out_progress_and_paths_and_keeps_results(tmp_path):
    import nbformat.v4 as v4

    cell = v4.new_code_cell("x", metadata={"papermill": {"duration": 1}, "tags": ["parameters"]})
    cell.outputs = [
        v4.new_output("stream", name="stderr", text="50%|#####"),
        v4.new_output("stream", name="stdout", text=f"read {tmp_path}/data/x"),
    ]
    notebook = v4.new_notebook(cells=[cell], metadata={"papermill": {}, "language_info": {"name": "python"}})
    scrub(notebook, tmp_path)
    assert [output["text"] for output in cell.outputs] == ["read data/x"]
    assert cell.metadata == {"tags": ["parameters"]} and set(notebook.metadata) == {"language_info"}


# --- The published, executed ones -------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_notebooks_fit_their_source(name, monkeypatch):
    monkeypatch.delenv("VIPTT_ROOT")
    assert "source" not in what_changed(name), f"run: viptt publish {name}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_notebooks_hold_real_outputs_and_nothing_of_the_machine(name):
    path = ROOT / "book" / "notebooks" / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert path.stat().st_size < 3_000_000
    assert str(ROOT) not in text and str(Path.home()) not in text and "widget-view" not in text
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert len(outputs) >= 5 and not any(o["output_type"] == "error" or o.get("name") == "stderr" for o in outputs)
    assert notebook["metadata"]["viptt"]["provenance"]["packages"]["torch"]
    pages = ["".join(o["data"]["text/html"]) for o in outputs if "text/html" in o.get("data", {})]
    tags = [tag for page in pages for tag in re.findall(r"<img [^>]*>", page)]
    assert len(tags) >= 3 and [tag[:200] for tag in tags if not re.search(r'alt="[^"]{10,}"', tag)] == []
