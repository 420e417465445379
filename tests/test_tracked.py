"""What Git tracks and what it leaves out: drafts spoil no test, and what commands write is not committed by mistake."""

import shutil
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import pytest
from commands import all_commands
from tracked import ROOT, in_git, tracked_files

pytestmark = pytest.mark.skipif(not in_git(), reason="not a Git checkout")


def git(*words, text=""):
    return subprocess.run(["git", *words], cwd=ROOT, input=text, capture_output=True, text=True).stdout.split()


def ignored(names):
    """Those of some names, files that need not exist, that Git ignores."""
    return set(git("check-ignore", "--no-index", "--stdin", text="\n".join(names)))


def test_what_the_commands_of_the_pages_write_is_ignored():
    written = set()
    for shown in all_commands():
        words = list(shown.words)
        if words[0] == "papermill":
            written |= {word for word in words if word.endswith(".ipynb")}
        written |= {word for option, word in pairwise(words) if option in ("-o", "-d")}
    folders = {"data/own": "data/own/scan_001.nii.gz", "wheels": "wheels/x"}
    written = {folders.get(name, name) for name in written if not name.isupper()}
    assert {"out.ipynb", "predictions.csv", "submission.txt", *folders.values()} <= written
    written |= {"own.ipynb", "predictions.json", "predictions-2.csv", "submission-2.txt", "scans/001.dcm"}
    assert written - ignored(written) == set()


def test_no_source_is_ignored():
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []
    modules = {"viptt_core/submission/__init__.py", "viptt_core/predictions.py", "viptt_core/release/notes.py"}
    assert ignored(modules | {"tests/test_submission.py", "results/mine/arms.csv", "results/submission.csv"}) == set()


def test_predictions_of_all_studies_together_stay_light():
    assert sum(path.stat().st_size for path in tracked_files("results/**/*")) < 12e6


def test_a_source_distribution_holds_every_file(tmp_path):
    tracked = [path.relative_to(ROOT) for path in tracked_files("**/*")]
    for path in tracked:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path, follow_symlinks=False)
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("dist/*.tar.gz"))) as archive:
        held = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    assert not set(tracked) - held
