"""The README: every file and folder of the top level has its line, and what it links to is there."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NEEDS_NO_LINE = {"README.md", ".gitignore", ".gitattributes"}
NOT_COMMITTED = {"runs"}  # what appears when it is used


def table():
    rows = README.split("| folder | what |")[1].split("\n\n")[0].splitlines()[2:]
    return [name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def test_every_file_and_folder_of_the_top_level_is_explained_once():
    try:
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                                capture_output=True, check=True).stdout.decode()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no Git here")
    there = {name.split("/")[0] for name in listed.split("\0") if name and (ROOT / name).exists()}
    explained = table()
    assert len(explained) == len(set(explained))
    assert set(explained) - NOT_COMMITTED == there - NEEDS_NO_LINE


def test_links_lead_to_files_that_are_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) > 8
    assert [link for link in links if not (ROOT / link).exists()] == []
