"""What Git tracks and what it leaves out: drafts spoil no test, and what commands write is not committed by mistake."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import tracked
from commands import all_commands
from tracked import ROOT, in_git, tracked_files


def git(folder, *words, text=""):
    return subprocess.run(["git", *words], cwd=folder, input=text, capture_output=True, text=True).stdout.split()


def ignored(names):
    """Those of some names, files that need not exist, that Git ignores."""
    return set(git(ROOT, "check-ignore", "--no-index", "--stdin", text="\n".join(names)))


@pytest.fixture
def drafts(tmp_path, monkeypatch):
    """A repository of two pages, one of them deleted, with a draft beside them."""
    git(tmp_path, "init", "--quiet")
    for name in ("book/page.md", "book/api/gone.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    git(tmp_path, "add", ".")
    (tmp_path / "book/api/gone.md").unlink()
    (tmp_path / "book/draft.md").touch()
    monkeypatch.setattr(tracked, "ROOT", tmp_path)
    return tmp_path


def test_drafts_and_deleted_files_are_not_among_the_tracked_ones(drafts):
    assert tracked_files.__wrapped__("book/**/*.md") == tracked_files.__wrapped__("**/*") == (drafts / "book/page.md",)
    assert tracked_files.__wrapped__("*.md") == ()


def test_outside_a_checkout_all_files_count(drafts):
    (drafts / ".git").rename(drafts / "book" / "git")
    assert not in_git()
    assert [path.name for path in tracked_files.__wrapped__("book/**/*.md")] == ["draft.md", "page.md"]


def test_what_the_commands_of_the_pages_write_is_ignored():
    if not in_git():
        pytest.skip("not a Git checkout")
    written = set()
    for shown in all_commands():
        words = list(shown.words)
        if words[0] == "papermill":
            written |= {word for word in words if word.endswith(".ipynb")}
        for option in {"-o", "-d"} & set(words):
            written.add(words[words.index(option) + 1])
    written = {name for name in written if not name.isupper()} - {"data/own", "wheels"} | {
        "data/own/scan_001.nii.gz",
        "wheels/x",
    }
    assert {"out.ipynb", "predictions.csv", "submission.txt"} <= written
    others = {"own.ipynb", "predictions.json", "predictions-2.csv", "submission-2.txt", "scans/001.dcm"}
    assert (written | others) - ignored(written | others) == set()


def test_no_source_is_ignored():
    if not in_git():
        pytest.skip("not a Git checkout")
    assert git(ROOT, "ls-files", "--cached", "--ignored", "--exclude-standard") == []
    to_come = {
        "viptt_core/submission/__init__.py",
        "viptt_core/predictions.py",
        "tests/test_submission.py",
        "viptt_core/release/notes.py",
        "results/mine/arms.csv",
        "results/submission.csv",
    }
    assert ignored(to_come) == set()


def test_a_source_distribution_holds_every_file(tmp_path):
    if not in_git():
        pytest.skip("no Git checkout")
    tracked = [path.relative_to(ROOT) for path in tracked_files("**/*")]
    for path in tracked:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path, follow_symlinks=False)
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("dist/*.tar.gz"))) as archive:
        held = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    assert not set(tracked) - held
