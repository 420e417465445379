"""papermill on our .py notebooks: every spelling, checked parameters, errors that stay visible."""

import contextlib
import json
import os
import re
import subprocess
import sys
import termios
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest
from click.testing import CliRunner
from papermill.cli import papermill as papermill_command

from viptt_core import papermill_io
from viptt_core.errors import DataError, SettingError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = """\
# %% [markdown]
# # A tiny notebook

# %%
from viptt_core.papermill_io import check_parameters

# %% tags=["parameters"]
epochs: int = 2  # passes over the training part
rate: float = 1e-3  # learning rate
data_root: str = ""  # folder of the data
resume: bool = True  # go on where a run stopped

# %%
check_parameters(globals())

# %%
print("epochs", epochs)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder laid out like ours: notebooks/x.py and a pyproject.toml, made the working folder."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "x.py").write_text(NOTEBOOK, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments, **settings):
    """The `papermill` command in a process of its own."""
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **settings)


def outputs(path):
    """All output text of an executed notebook."""
    cells = nbformat.read(path, as_version=4).cells
    return "".join(json.dumps(cell.get("outputs", "")) for cell in cells)


# --- The command, as typed ------------------------------------------------------------------


def test_command_runs_a_py_notebook_with_parameters(project):
    done = run("notebooks/x.py", "out.ipynb", "-p", "epochs", 50, "-p", "rate", 1)
    assert done.returncode == 0, done.stderr
    assert "does not end in" not in done.stderr
    assert "epochs 50" in outputs("out.ipynb")


def test_misspelt_parameter_fails_and_names_the_near_match(project):
    done = run("notebooks/x.py", "out.ipynb", "-p", "epoch", 50)
    assert done.returncode == 1
    for text in (done.stderr, outputs("out.ipynb")):
        assert "there is no parameter 'epoch'; did you mean 'epochs'?" in text
        assert "epochs, rate, data_root, resume" in text


@pytest.mark.parametrize(
    ("spelling", "folder", "options"),
    [
        ("notebooks/x.py", ".", []),
        ("{root}/notebooks/x.py", ".", []),
        ("../notebooks/x.py", "notebooks", []),
        ("notebooks/x.py", ".", ["--cwd", "notebooks"]),
        ("jupytext://notebooks/x.py", ".", []),
    ],
)
def test_every_spelling_reads_the_same_notebook(project, monkeypatch, spelling, folder, options):
    monkeypatch.chdir(folder)
    arguments = [spelling.format(root=project), str(project / "out.ipynb"), "--prepare-only", *options]
    done = CliRunner().invoke(papermill_command, [*arguments, "-p", "epochs", "7"])
    assert done.exit_code == 0, done.output
    notebook = nbformat.read(project / "out.ipynb", as_version=4)
    assert notebook.metadata.viptt.source.sha256 == papermill_io.notebook_sha256(NOTEBOOK)
    assert notebook.metadata.kernelspec.name == "python3"
    injected = [cell.source for cell in notebook.cells if "injected-parameters" in cell.metadata.tags]
    assert injected == ["# Parameters\nepochs = 7\n"]


def test_help_lists_typed_and_explained_parameters(project):
    done = CliRunner().invoke(papermill_command, ["notebooks/x.py", "--help-notebook"])
    assert re.search(r"epochs: int \(default 2\)\s+passes over the training part", done.output)
    assert re.search(r"rate: float \(default 1e-3\)\s+learning rate", done.output)
    assert "Unknown type" not in done.output


@pytest.mark.parametrize("name", ["02_finetune", "01_pretrain", "00_data"])
def test_papermill_finds_every_parameter_of_published_notebooks(monkeypatch, name):
    """It overlooks what it cannot parse, `int | None` for one."""
    monkeypatch.chdir(ROOT)
    parameters = papermill.inspect_notebook(f"notebooks/{name}.py")
    assert list(parameters) == re.findall(
        r"^(\w+): \w+ = ", (ROOT / "notebooks" / f"{name}.py").read_text("utf-8"), re.M
    )
    assert all(one["help"] and one["inferred_type_name"] != "None" for one in parameters.values())


# --- What is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["notebooks/x.py", "./README.md", "jupytext://notebooks/y.py"])
def test_a_source_file_is_never_overwritten(project, output):
    with pytest.raises(SettingError, match="not written over a source file"):
        papermill.execute_notebook("notebooks/x.py", output, progress_bar=False)
    assert (project / "notebooks" / "x.py").read_text(encoding="utf-8") == NOTEBOOK
    assert not [path for path in project.rglob("*.*") if path.name in ("README.md", "y.py")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('a plain script')\n", "no jupytext percent notebook"),
        ("# %%\nepochs = 2\n", "no cell for parameters"),
    ],
)
def test_other_python_files_give_a_clear_error(project, text, message):
    (project / "notebooks" / "x.py").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"x.py: .*{message}"):
        papermill.execute_notebook("notebooks/x.py", "out.ipynb", prepare_only=True)


# --- Conversion -------------------------------------------------------------------------------


def test_conversion_is_the_same_on_every_call_and_records_its_source(project):
    first = papermill_io.to_notebook_json(NOTEBOOK, "notebooks/x.py")
    assert papermill_io.to_notebook_json(NOTEBOOK, str(project / "notebooks/x.py")) == first
    changed = papermill_io.to_notebook_json(NOTEBOOK + "\nepochs\n", "x.py")
    one, other = (nbformat.reads(text, as_version=4) for text in (first, changed))
    nbformat.validate(one)
    assert (
        one.metadata.viptt.source == {"sha256": papermill_io.notebook_sha256(NOTEBOOK)} != other.metadata.viptt.source
    )
    ids = [cell.id for cell in one.cells]
    assert len(set(ids)) == len(ids) and [cell.id for cell in other.cells][:-1] == ids[:-1]


def test_plug_in_never_raises_on_another_papermill(monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill.iorw", None)  # importing it now fails
    with pytest.warns(UserWarning, match="cannot read .py notebooks"):
        assert papermill_io.handler is not None
    with pytest.raises(AttributeError):
        _ = papermill_io.no_such_name


# --- Parameters, without a kernel ---------------------------------------------------------------

DECLARED = """\
epochs: int = 2  # passes
rate: float = 1e-3
name: str = "a"
fast: bool = False
anything: list[str] = []
"""


def check(injected, *, history=True):
    """check_parameters after the two cells ran, as IPython leaves its namespace; a plain script has no history."""
    namespace = {}
    exec(DECLARED, namespace)
    exec(injected, namespace)
    if history:
        namespace["In"] = ["", "import os", DECLARED, injected, "check_parameters(globals())"]
    return papermill_io.check_parameters(namespace)


@pytest.mark.parametrize(
    "assignment", ["epochs = 50", "rate = 1", 'rate = float("nan")', 'name = ""', "fast = True", "anything = {}"]
)
def test_values_that_fit_pass(assignment):
    check(f"# Parameters\n{assignment}\n")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ('epochs = "many"', "parameter 'epochs' must be int, not 'many'"),
        ("epochs = 1.5", "must be int, not 1.5"),
        ("epochs = True", "must be int, not True"),
        ("rate = False", "must be float"),
        ("fast = 1", "'fast' must be bool"),
        ("name = 2021", "must be str, not 2021 .*-r name 2021"),
        ("epoch = 50", "did you mean 'epochs'"),
        ("zzz = 50", r"no parameter 'zzz'\. Parameters of this notebook: epochs, rate"),
        ('epoch = 50\nrate = "x"', "'epoch'.*'rate' must be float"),
    ],
)
def test_values_that_do_not_fit_are_refused(assignment, message):
    with pytest.raises(SettingError, match=message):
        check(f"# Parameters\n{assignment}\n")


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize(
    "between", ["", "x = 1", "# Parameters\nepochs: int = 3", "# Parameters of the optimiser\nx = 1"]
)
def test_parameters_are_what_is_annotated_whatever_other_cells_assign(history, between):
    others = {"rate": 1e-3, "name": "a", "fast": False, "anything": []}
    assert check(between, history=history) == {"epochs": 3 if "epochs" in between else 2} | others


def test_a_wrong_value_typed_into_the_cell_itself_is_refused():
    with pytest.raises(SettingError, match="'epochs' must be int, not 'many'"):
        check('epochs: int = "many"', history=False)


# --- What a page was made from -----------------------------------------------------------------------


def test_what_jupyterlab_adds_to_a_source_and_the_cell_for_colab_do_not_change_its_hash():
    notebook = jupytext.reads(NOTEBOOK, "py:percent")
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata["jupytext"] = {"formats": "py:percent"}
    saved = jupytext.writes(notebook, "py:percent")
    with_cell = NOTEBOOK.replace("# %%\nfrom", '# %% tags=["colab", "remove-cell"]\nimport os\n\n# %%\nfrom', 1)
    assert "jupytext_version: " in saved and with_cell != NOTEBOOK
    same = [papermill_io.notebook_sha256(text) for text in (NOTEBOOK, saved, with_cell)]
    assert len(set(same)) == 1 and papermill_io.notebook_sha256(saved + "\nepochs\n") not in same


# --- What is seen in a terminal ------------------------------------------------------------------------

WAITING = """
# %%
import sys
import termios
import time

print("\\rworking: 30%|###  | 3/10 [00:03<00:07]", end="", file=sys.stderr, flush=True)
time.sleep(1000 * (epochs > 2))

# %%
print("\\nthe next cell", file=sys.stderr)
"""


@pytest.fixture
def terminal(project):
    """Function that calls papermill in a terminal, types Ctrl-C at a sign: (exit code, what was shown)."""
    pty = pytest.importorskip("pty")
    (project / "notebooks" / "x.py").write_text(NOTEBOOK + WAITING, encoding="utf-8")

    def call(*arguments, interrupt_at=None):
        command = [sys.executable, "-m", "papermill", "notebooks/x.py", "out.ipynb", *arguments]
        process, descriptor = pty.fork()
        if not process:
            os.execv(command[0], command)
        termios.tcsetwinsize(descriptor, (24, 100))
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(descriptor, 4096):
                shown += part
                if interrupt_at and interrupt_at in shown:
                    os.write(descriptor, b"\x03")
                    interrupt_at = None
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown.decode()

    return call


def test_progress_is_seen_and_ctrl_c_ends_the_cell_in_one_line_and_keeps_what_was_made(terminal):
    code, shown = terminal("-p", "epochs", "3", interrupt_at=b"working")
    assert "\rworking: 30%|###  | 3/10 [00:03<00:07]" in shown and "of 8 cells" in shown
    assert code == 130 and papermill_io.INTERRUPTED in shown and "without encryption" not in shown
    assert "Traceback" not in shown and "the next cell" not in shown
    assert "KeyboardInterrupt" in outputs("out.ipynb") and "epochs 3" in outputs("out.ipynb")
