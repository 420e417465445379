"""The first cell of a notebook, and the lines that keep on a Drive what is made on Google Colab."""

import re
import subprocess
import tomllib

import jupytext
import pytest
from packaging.requirements import Requirement
from tracked import ROOT

from viptt_core.book.publish import PUBLISHED


def first_cell(name):
    """Tags and source of a notebook's first cell of code."""
    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    return cell.metadata.get("tags"), cell.source


def test_every_notebook_begins_with_the_same_cell_which_the_book_leaves_out():
    (cell,) = {(tuple(tags), source) for tags, source in map(first_cell, PUBLISHED)}
    assert cell[0] == ("colab", "remove-cell")


@pytest.mark.parametrize("shell", ["google.colab._shell.Shell", "ipykernel.zmqshell.ZMQInteractiveShell"])
def test_only_on_colab_the_cell_fetches_installs_without_constraints_and_goes_to_the_checkout(shell):
    commands = []

    class Shell:
        system = commands.append

        def __str__(self):
            return f"<{shell} object at 0x7f>"

        def run_line_magic(self, *magic):
            commands.append(magic)

    exec(compile(first_cell("02_finetune")[1], "first cell", "exec"), {"get_ipython": Shell})
    if "colab" not in shell:
        assert commands == []
        return
    fetch, install, go = commands
    assert re.fullmatch(r"git clone --depth 1 https://github\.com/[\w.-]+/[\w.-]+ /content/viptt-net", fetch)
    assert install == "pip install --quiet --editable /content/viptt-net"  # no -c, no extra
    assert go == ("cd", "/content/viptt-net")  # IPython imports from the working folder


def test_the_lines_of_the_page_put_runs_and_cache_on_the_drive(tmp_path):
    page = (ROOT / "book" / "reproduce.md").read_text(encoding="utf-8")
    mount, folders, cache = (
        re.search(r"```ipython3\n(.*google\.colab.*?)```", page, flags=re.DOTALL)[1].strip().split("\n")
    )
    drive = "/content/drive/MyDrive/viptt-net"
    assert 'drive.mount("/content/drive")' in mount and cache.strip() == f"%env VIPTT_CACHE={drive}/cache"
    for _ in range(2):  # a second session does so again
        command = folders.strip().removeprefix("!").replace("/content/drive", str(tmp_path / "drive"))
        subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
        (tmp_path / "runs" / "finetune-x").mkdir(exist_ok=True)
    assert (tmp_path / "drive/MyDrive/viptt-net/runs/finetune-x").is_dir()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["finetune-x"]


# --- What Colab has installed -------------------------------------------------------------------------

# From its list of packages of June 2026. Replacing what runs there can keep a runtime from starting.
COLAB = {
    "ipykernel": "6.17.1",
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "numpy": "2.0.2",
    "pandas": "2.2.2",
    "scipy": "1.16.3",
    "scikit-learn": "1.6.1",
    "matplotlib": "3.10.0",
}


def test_installing_on_colab_replaces_neither_its_kernel_nor_its_pytorch():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    assert {name: str(needed[name]) for name, version in COLAB.items() if version not in needed[name]} == {}
