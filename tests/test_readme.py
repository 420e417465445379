"""The README: every file and folder of the top level has its line, and what it links to is there."""

import re

import pytest
from tracked import ROOT, in_git, tracked_files

README = (ROOT / "README.md").read_text(encoding="utf-8")
NEEDS_NO_LINE = {"README.md", ".gitignore", ".gitattributes"}
NOT_COMMITTED = {"runs"}  # what appears when it is used


def table():
    rows = README.split("| folder | what |")[1].split("\n\n")[0].splitlines()[2:]
    return [name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def test_every_file_and_folder_of_the_top_level_is_explained_once():
    if not in_git():
        pytest.skip("not a Git checkout")
    there = {path.relative_to(ROOT).parts[0] for path in tracked_files("**/*")}
    explained = table()
    assert len(explained) == len(set(explained))
    assert set(explained) - NOT_COMMITTED == there - NEEDS_NO_LINE


def test_links_lead_to_files_that_are_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) > 8
    assert [link for link in links if not (ROOT / link).exists()] == []
