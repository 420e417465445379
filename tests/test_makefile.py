"""The set-up of `make`: what it says of a Python that it cannot use."""

import shutil
import subprocess

import pytest
from packaging.requirements import Requirement
from tracked import ROOT

HINT = "Name a Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ..."

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


@pytest.fixture(autouse=True)
def checkout(tmp_path):
    """What make needs, in a folder without an environment."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()


@pytest.fixture
def set_up(tmp_path):
    """Function that begins the set-up: (exit code, the lines it said)."""

    def begin(program):
        command = ["make", ".venv/.installed", f"PYTHON={program}"]
        done = subprocess.run(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert not (tmp_path / ".venv").exists()
        return done.returncode, done.stdout.splitlines()

    return begin


@pytest.fixture
def program(tmp_path):
    """Function that writes a program which stands for a Python, and returns its path."""

    def write(*lines):
        path = tmp_path / "python"
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)
        return path

    return write


def test_a_python_that_is_not_there_or_does_not_start_is_told_with_its_own_error(set_up, program, tmp_path):
    for name in ("no-such-python", tmp_path / "python"):
        code, said = set_up(name)
        assert code and said[0] == f"'{name}' was not found. {HINT}"
    path = program("echo 'libpython3.12.so: cannot open' >&2", "exit 127")  # a shell's code for what is not found
    code, said = set_up(path)
    own = "libpython3.12.so: cannot open"
    assert code and said[:3] == [f"'{path}' was found ({path}) but does not start:", own, HINT]


@pytest.mark.parametrize("version, fits", [("2.7", 0), ("3.1", 0), ("3.14", 0), ("3.11", 1), ("3.13", 1)])
def test_only_a_python_of_a_fitting_version_goes_on_to_the_environment(set_up, program, version, fits):
    path = program("echo 'a warning' >&2", f'[ "$1" = -c ] && echo {version}')
    code, said = set_up(path)
    if fits:
        assert code and said[0].startswith("Setting up .venv") and "Python's venv module does not work here" in said[2]
    else:
        assert code and said[0] == f"'{path}' is Python {version}. {HINT}"


def test_what_is_fetched_is_told_before_it_is_there(program, tmp_path):
    """A program that stands for pip names a file, and goes on once this test has read of it."""
    waiting = "for _ in $(seq 600); do [ -e seen ] && exit; sleep 0.1; done"
    pip = program("echo '  Downloading torch.whl (900 MB)'", waiting, "exit 9")
    pip = pip.rename(tmp_path / "pip")
    python = program("[ $1 = -c ] && echo 3.12 && exit", f"mkdir -p .venv/bin && cp {pip} .venv/bin/python")
    command = ["make", ".venv/.installed", f"PYTHON={python}"]
    with subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE) as making:
        assert making.stdout.readline().startswith("Setting up .venv")
        assert making.stdout.readline() == "  Downloading torch.whl (900 MB)\n"
        (tmp_path / "seen").touch()
        making.stdout.read()
    assert making.returncode == 0 and (tmp_path / ".venv" / ".installed").is_file()


@pytest.mark.parametrize("index", ["", "https://index.example/cpu"])
def test_an_index_that_is_named_is_asked_for_pytorch_alone_and_before_all_else(index, program, tmp_path):
    pip = program('echo "$@" >> asked').rename(tmp_path / "pip")
    python = program("[ $1 = -c ] && echo 3.12 && exit", f"mkdir -p .venv/bin && cp {pip} .venv/bin/python")
    command = ["make", ".venv/.installed", f"PYTHON={python}", f"TORCH_INDEX={index}"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    *first, last = (tmp_path / "asked").read_text().splitlines()
    assert [line.partition("-c constraints.txt ")[2] for line in first] == (
        [f"--no-deps --index-url {index} torch torchvision"] if index else []
    )
    assert last.endswith("-c constraints.txt -e .[all]")


def test_an_index_that_fails_ends_the_set_up(program, tmp_path):
    pip = program("echo asked >> asked; exit 9").rename(tmp_path / "pip")
    python = program("[ $1 = -c ] && echo 3.12 && exit", f"mkdir -p .venv/bin && cp {pip} .venv/bin/python")
    command = ["make", ".venv/.installed", f"PYTHON={python}", "TORCH_INDEX=x"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode
    assert (tmp_path / "asked").read_text() == "asked\n" and not (tmp_path / ".venv" / ".installed").exists()


def test_a_build_for_cpus_fits_the_constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for pinned in (Requirement(line) for line in lines if line.startswith(("torch=", "torchvision="))):
        (version,) = (each.version for each in pinned.specifier)
        assert f"{version}+cpu" in pinned.specifier
