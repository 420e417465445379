"""What publishes the artifact: its address, workflows, images, citation and release notes."""

import argparse
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from tracked import ROOT, in_git, tracked_files

from viptt_core import __version__
from viptt_core.book.publish import PUBLISHED
from viptt_core.cli import build_parser
from viptt_core.papermill_io import notebook_sha256

NEW = "https://github.com/some.one/viptt_net-2"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = tracked_files(".github/workflows/*.yml")
SETUP = ROOT / ".github" / "actions" / "setup" / "action.yml"


def read(name) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def load(path: Path) -> dict:
    """A YAML file; the key `on` of a workflow, which YAML takes for a truth value, under its name."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {("on" if key is True else key): value for key, value in content.items()}


ADDRESS = load(ROOT / "_config.yml")["repository"]["url"]


# --- The address of the repository --------------------------------------------------------------------


def make_address(folder, url):
    return subprocess.run(["make", "address", f"URL={url}"], cwd=folder, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_one_command_sets_the_address_everywhere_and_keeps_the_stamps(tmp_path):
    """Every file that carries it, the tests apart; a page that is fresh stays so."""
    if not in_git():
        pytest.skip("not a Git checkout")
    name = ADDRESS.removeprefix("https://github.com/").encode()
    carrying = [path.relative_to(ROOT) for path in tracked_files("**/*") if name in path.read_bytes()]
    carrying = [path for path in carrying if path.parts[0] != "tests"]
    for path in [*carrying, Path("Makefile")]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    sources = {path: notebook_sha256(read(path)) for path in carrying if path.parts[0] == "notebooks"}
    for url in ("viptt-net", f"{NEW}/tree/main", "https://gitlab.com/a/b", "https://github.com/a b/c"):
        done = make_address(tmp_path, url)
        assert done.returncode and "usage: make address URL=https://github.com/" in done.stderr
        assert all((tmp_path / path).read_bytes() == (ROOT / path).read_bytes() for path in carrying)
    done = make_address(tmp_path, NEW)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(carrying) > 10
    assert not any(name in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert f"\n  url: {NEW}\n" in (tmp_path / "_config.yml").read_text()
    assert len(sources) == len(PUBLISHED)
    for path, sha256 in sources.items():
        assert NEW in (tmp_path / path).read_text() and notebook_sha256((tmp_path / path).read_text()) == sha256


# --- GitHub Actions -----------------------------------------------------------------------------------


def jobs():
    """(workflow, name, job) of every job."""
    return [(path.stem, name, job) for path in WORKFLOWS for name, job in load(path)["jobs"].items()]


def steps(kind):
    """Every `run:` or `uses:` of workflows and of the set-up they share."""
    found = [step for _, _, job in jobs() for step in job["steps"]] + load(SETUP)["runs"]["steps"]
    return [step[kind] for step in found if kind in step]


def test_tests_run_on_every_version_of_python_that_the_project_names():
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
    assert load(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == named
    assert load(SETUP)["inputs"]["python"]["default"] in named and len(named) == 3


@pytest.mark.parametrize(("workflow", "name", "job"), jobs(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_job_has_a_time_limit_and_asks_for_no_more_than_it_needs(workflow, name, job):
    assert 5 <= job["timeout-minutes"] <= 120
    more = {"publish": {"pages": "write", "id-token": "write"}, "release": {"contents": "write"}}
    assert job["permissions"] == more.get(name, {"contents": "read"})
    content = load(ROOT / ".github" / "workflows" / f"{workflow}.yml")
    assert content["permissions"] == {"contents": "read"} and content["concurrency"]["group"]


def test_actions_are_githubs_own_and_pinned_to_a_major_version_or_lie_here():
    for action in steps("uses"):
        assert re.fullmatch(r"actions/[\w-]+@v\d+", action) or (ROOT / action / "action.yml").is_file(), action


def test_what_the_workflows_call_exists():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE)) | {".venv/.installed"}
    (subparsers,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    text = "\n".join(steps("run")).replace("\\\n", " ")
    called = re.findall(r"\bmake (\S+)", text)
    assert {"test", "book", "demo", "recheck", "notebooks", ".venv/.installed"} == set(called) <= targets
    commands = re.findall(r"\bviptt ([^\n)|]+)", text)
    assert {command.split()[0] for command in commands} == {"publish", "--version"}
    for command in commands:
        if not command.startswith("--version"):
            assert command.split()[0] in subparsers.choices
            build_parser().parse_args(command.split())


def notes_for(tag, changelog, folder):
    """What the step of the release makes of a changelog."""
    steps = load(ROOT / ".github/workflows/release.yml")["jobs"]["release"]["steps"]
    script = next(step["run"] for step in steps if step.get("name") == "Release notes")
    (folder / "CHANGELOG.md").write_text(changelog)
    done = subprocess.run(["bash", "-e", "-c", script], cwd=folder, env={"TAG": tag, "PATH": "/usr/bin:/bin"})
    return (folder / "notes.md").read_text().strip() if done.returncode == 0 else None


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path):
    changelog = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2027-01-01\n\n### Added\n- New.\n\n## [0.1.0]\n- Old.\n"
    assert notes_for("v0.2.0", changelog, tmp_path) == "### Added\n- New."
    assert notes_for("v0.1.0", changelog, tmp_path) == "- Old."
    assert notes_for("v0.2", changelog, tmp_path) is None and notes_for("v0x2x0", changelog, tmp_path) is None


# --- Images -------------------------------------------------------------------------------------------


def test_what_the_dockerfile_copies_exists_and_no_step_runs_as_root_after_the_user_is_made():
    lines = re.sub(r"\\\n", " ", read("Dockerfile")).splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    for name, arguments in instructions:
        if name == "COPY":
            *sources, _ = (word for word in arguments.split() if not word.startswith("--"))
            assert sources and all((ROOT / source).exists() for source in sources)
            assert "--chown=viptt:viptt" in arguments
    assert [arguments for name, arguments in instructions if name == "USER"] == ["1000"]
    assert instructions[0] == ["FROM", "python:3.12-slim"] and instructions[-1][0] == "CMD"
    assert json.loads(instructions[-1][1])[:2] == ["jupyter", "lab"]


# --- Versions, citation -------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere_and_the_newest_of_the_changelog():
    assert PROJECT["version"] == __version__ == yaml.safe_load(read("CITATION.cff"))["version"]
    (first, *released) = re.findall(r"^## \[(.+?)\](.*)$", read("CHANGELOG.md"), flags=re.MULTILINE)
    assert first == ("Unreleased", "") and (not released or released[0][0] == __version__)
    assert all(re.fullmatch(r" - \d{4}-\d\d-\d\d", rest) for _, rest in released)


def test_zenodo_citation_and_bibtex_name_the_same_work_and_the_paper():
    deposit, citation = json.loads(read(".zenodo.json")), yaml.safe_load(read("CITATION.cff"))
    assert deposit["title"] == citation["title"] and deposit["upload_type"] == citation["type"] == "software"
    assert deposit["license"] == citation["license"] == PROJECT["license"]
    assert deposit["keywords"] == citation["keywords"] == PROJECT["keywords"]
    assert [c["name"] for c in deposit["creators"]] == [a["name"] for a in citation["authors"]]
    assert [c["name"] for c in deposit["creators"]] == [a["name"] for a in PROJECT["authors"]]
    related = {entry["relation"]: entry["identifier"] for entry in deposit["related_identifiers"]}
    (paper,) = (identifier["value"] for identifier in citation["references"][0]["identifiers"])
    assert related == {"isDerivedFrom": paper, "isSupplementTo": citation["repository-code"]}
    bibtex = dict(re.findall(r"^  (\w+) += \{\{?(.+?)\}?\},$", read("book/_static/citation.bib"), flags=re.MULTILINE))
    assert bibtex.pop("author") == " and ".join(author["name"] for author in citation["authors"])
    assert bibtex.pop("url") == citation["repository-code"]
    assert bibtex == {name: str(citation[name]) for name in ("title", "version", "license")}


def test_the_contributors_page_names_files_that_exist():
    text = read("CONTRIBUTING.md")
    for name in re.findall(r"`([\w./-]+\.(?:py|toml|yml|json|md|cff|txt))`", text):
        if name.startswith("my"):  # the reader's own, in a recipe
            continue
        assert any((ROOT / folder / name).exists() for folder in ("", "viptt_core", ".github/workflows")), name
    named = {"datasets/__init__": "MEDIA LISTERS", "book/publish": "READS PUBLISHED", "backbones/__init__": "BACKBONES"}
    named |= {"figures/__init__": "ARM_COLOURS", "experiment": "APART"}
    for module, variables in named.items():
        for name in variables.split():
            assert name in text and re.search(rf"^{name}\b.*=", read(f"viptt_core/{module}.py"), re.MULTILINE)
