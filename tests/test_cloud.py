"""The first cell of a notebook: what it does on Google Colab, on Binder, and on any other machine."""

import os
import re
import sys
import tomllib
import types
from pathlib import Path

import jupytext
import pytest
from packaging.requirements import Requirement

from viptt_core.book import cloud
from viptt_core.book.cloud import prepare
from viptt_core.book.publish import PUBLISHED
from viptt_core.errors import StorageError
from viptt_core.files import cache_root
from viptt_core.results import runs_root

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def plain(monkeypatch):
    """Any other machine, whatever the tests run on."""
    monkeypatch.delenv("BINDER_SERVICE_HOST", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "google"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def colab(plain, monkeypatch, tmp_path):
    """Google Colab as the cell sees it: its module is loaded, and mounting the Drive makes a folder. It has a GPU."""
    mounted = []

    def mount(place):
        mounted.append(place)
        (tmp_path / "drive" / "MyDrive").mkdir(parents=True, exist_ok=True)

    module = types.ModuleType("google.colab")
    module.drive = types.SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setattr(cloud, "DRIVE", tmp_path / "drive")
    monkeypatch.setattr(cloud, "_has_gpu", lambda: True)
    return mounted


def first_cell(name="02_finetune"):
    """Tags and source of a notebook's first cell of code."""
    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    return cell.metadata.get("tags"), cell.source


def run_first_cell(monkeypatch, *, cloned=False):
    """Execute it with a kernel that only notes its commands; returns them and what became the working folder."""
    commands, folders = [], []
    kernel = types.SimpleNamespace(system=commands.append)
    monkeypatch.setattr("IPython.get_ipython", lambda: kernel)
    monkeypatch.setattr(os.path, "isdir", lambda path: cloned)
    monkeypatch.setattr(os, "chdir", folders.append)
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = first_cell()[1]
    monkeypatch.setattr("viptt_core.book.cloud.prepare", lambda **settings: folders.append(settings))
    exec(compile(source, "first cell", "exec"), {})
    return commands, folders, list(sys.path)


# --- The cell ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_notebook_begins_with_the_same_cell_which_the_book_leaves_out(name):
    assert first_cell(name) == first_cell() and first_cell()[0] == ["colab", "remove-cell"]


def test_on_colab_the_cell_fetches_installs_without_constraints_and_imports_from_the_checkout(colab, monkeypatch):
    commands, (folder, settings), path = run_first_cell(monkeypatch)
    assert len(commands) == 2
    assert re.fullmatch(r"git clone --depth 1 https://github\.com/[\w.-]+/[\w.-]+ /content/viptt-net", commands[0])
    assert commands[1] == "pip install --quiet --editable /content/viptt-net"  # no -c, no extra
    assert folder == path[0] == "/content/viptt-net" and settings == {"keep_on_drive": False}


def test_a_second_run_of_the_cell_on_colab_does_not_fetch_again(colab, monkeypatch):
    commands, *_ = run_first_cell(monkeypatch, cloned=True)
    assert [command.split()[0] for command in commands] == ["pip"]


def test_elsewhere_the_cell_runs_no_command_and_stays_where_it_is(plain, monkeypatch):
    before = list(sys.path)
    commands, told, path = run_first_cell(monkeypatch)
    assert commands == [] and told == [{"keep_on_drive": False}] and path == before


# --- What it says -------------------------------------------------------------------------------------


def test_elsewhere_nothing_is_said_or_made(plain, capsys, private_root):
    prepare()
    assert capsys.readouterr().out == "" and not private_root.exists()


def test_elsewhere_the_drive_is_refused_in_a_sentence_and_nothing_moves(plain, capsys, private_root):
    before = cache_root(), runs_root()
    prepare(keep_on_drive=True)
    assert "needs Google Colab" in capsys.readouterr().out
    assert (cache_root(), runs_root()) == before and not private_root.exists()


def test_on_binder_the_reader_learns_that_there_is_no_gpu_and_which_preset_to_take(plain, monkeypatch, capsys):
    monkeypatch.setenv("BINDER_SERVICE_HOST", "10.0.0.1")
    prepare()
    said = capsys.readouterr().out
    assert "no GPU" in said and 'leave it at "demo"' in said and "Colab" not in said


def test_on_colab_without_a_gpu_the_reader_learns_where_to_switch_one_on(colab, monkeypatch, capsys):
    monkeypatch.setattr(cloud, "_has_gpu", lambda: False)
    prepare()
    said = capsys.readouterr().out
    assert "Runtime > Change runtime type" in said and "paper" in said and "Binder" not in said


def test_on_colab_with_a_gpu_nothing_is_said_and_the_drive_is_left_alone(colab, capsys):
    prepare()
    assert capsys.readouterr().out == "" and colab == []


def test_named_presets_exist():
    from viptt_core.presets import preset_names

    named = set(re.findall(r'"(\w+)"', cloud.NO_GPU_COLAB + cloud.NO_GPU_BINDER))
    assert len(named) == 4 and named <= set(preset_names())


# --- What is kept on the Drive ------------------------------------------------------------------------


def test_kept_on_drive_are_caches_and_runs_and_not_the_results(colab, capsys, private_root, tmp_path):
    (private_root / "results").mkdir(parents=True)
    prepare(keep_on_drive=True)
    kept = tmp_path / "drive" / "MyDrive" / "viptt-net"
    assert colab == [str(tmp_path / "drive")] and "MyDrive/viptt-net/runs" in capsys.readouterr().out
    assert cache_root() == kept / "cache" and cache_root().is_dir()
    (runs_root() / "finetune-x").mkdir()
    assert [path.name for path in (kept / "runs").iterdir()] == ["finetune-x"]
    assert (private_root / "results").is_dir() and not (kept / "results").exists()


def test_runs_made_before_the_drive_was_asked_for_move_there_and_a_second_call_changes_nothing(
    colab, private_root, tmp_path
):
    for place, words in ((private_root / "runs", "here"), (tmp_path / "drive/MyDrive/viptt-net/runs", "on the Drive")):
        (place / "both").mkdir(parents=True)
        (place / "both" / "log.txt").write_text(words)
    (private_root / "runs" / "new").mkdir()
    for _ in range(2):
        prepare(keep_on_drive=True)
        assert sorted(path.name for path in runs_root().iterdir()) == ["both", "new"]
        (log,) = (runs_root() / "both").iterdir()
        assert log.name == "log.txt" and log.read_text() == "on the Drive"
        assert runs_root().is_symlink()


def test_a_drive_that_cannot_be_written_is_named_with_the_way_out(colab, tmp_path):
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive" / "MyDrive").mkdir()
    (tmp_path / "drive" / "MyDrive" / "viptt-net").write_text("a file")
    with pytest.raises(StorageError, match="viptt-net.*keep_on_drive=False"):
        prepare(keep_on_drive=True)


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
    "accelerate": "1.13.0",
}


def test_installing_on_colab_replaces_neither_its_kernel_nor_its_pytorch():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    assert {name: str(needed[name]) for name, version in COLAB.items() if version not in needed[name]} == {}
