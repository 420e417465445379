"""What a result was made with: the version of its code follows the imports, and nothing has to be listed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from viptt_core import datasets, experiment, files
from viptt_core.errors import SettingError
from viptt_core.files import code_version, imported_modules, reached_modules

TRAINING = reached_modules("experiment", apart_from=experiment.APART)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package whose files may be changed."""
    copy = tmp_path / "viptt_core"
    shutil.copytree(files.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(files, "PACKAGE", copy)
    return copy


def source_of(package: Path, module: str) -> Path:
    path = package.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def training_version() -> str:
    return code_version("experiment", apart_from=experiment.APART)


def test_a_change_in_any_module_that_training_reaches_changes_its_version(package):
    seen = {training_version()}
    for module in TRAINING:
        path = source_of(package, module)
        path.write_text(f"{path.read_text()}\n_CHANGED = True\n")
        assert training_version() not in seen, module
        seen.add(training_version())


def test_changed_words_change_no_version(package):
    before = training_version()
    for module in TRAINING:
        path = source_of(package, module)
        text = path.read_text()
        end = text.index('"""', 3)
        path.write_text(f'"""Other words."""{text[end + 3 :]}\n# And a comment.\n')
    assert training_version() == before


def test_what_training_needs_is_reached_and_what_shows_it_is_not():
    of_training = {f"training.{path.stem}" for path in (files.PACKAGE / "training").glob("[!_]*.py")}
    assert of_training | {"training", "model", "backbones", "splits", "clips", "cache"} <= set(TRAINING)
    assert not {name.split(".")[0] for name in TRAINING} & {"figures", "study", "prediction", "shown", "cli", "book"}


def test_a_module_that_is_newly_imported_counts_at_once(package):
    (package / "training" / "tricks.py").write_text("STRENGTH = 1\n")
    path = source_of(package, "training.feed")
    path.write_text(f"{path.read_text()}\n\ndef late():\n    from viptt_core.training import tricks\n")
    before = training_version()
    (package / "training" / "tricks.py").write_text("STRENGTH = 2\n")
    assert training_version() != before


def test_a_change_of_what_is_left_apart_changes_nothing(package):
    before = training_version()
    for module in ("presets", "prediction.weights", "shown", "figures"):
        path = source_of(package, module)
        path.write_text(f"{path.read_text()}\n_CHANGED = True\n")
    (package / "presets" / "presets.toml").write_text("")
    assert training_version() == before


def test_data_beside_a_module_counts(package):
    before = code_version("presets")
    table = package / "presets" / "presets.toml"
    table.write_text(f"{table.read_text()}\n[another]\n")
    assert code_version("presets") != before


def test_imports_are_followed_into_functions():
    source = "import viptt_core.ct\nfrom viptt_core import files as f\n"
    source += "def late():\n    from viptt_core.training.feed import Feed\n"
    assert imported_modules(source) == {"ct", "files", "training.feed"}
    reached = reached_modules(*imported_modules("from viptt_core.datasets import load_for\n"))
    assert {"datasets", "ct", "video", "synthetic.phantom", "synthetic.patient", "cache", "errors"} <= set(reached)
    assert "training" not in reached and "figures" not in reached


@pytest.mark.parametrize(
    "decoder, needed",
    [
        ("datasets.folders", {"ct", "nifti", "video"}),
        ("datasets.arrays", {"ct"}),
        ("datasets.simulated", {"ct", "video", "synthetic.phantom", "synthetic.render", "synthetic.choreography"}),
    ],
)
def test_decoded_clips_depend_on_what_decides_pixels_and_not_on_how_they_are_kept(decoder, needed):
    reached = set(reached_modules(decoder, apart_from=datasets.NO_PIXELS))
    assert needed <= reached and not reached & {"cache", "files", "clips", "presets", "training"}


@pytest.mark.parametrize("given, place", [("~", ""), ("~/x", "x"), ("~/a b/../c", "c")])
@pytest.mark.parametrize("variable, folder", [("VIPTT_CACHE", files.cache_root), ("VIPTT_ROOT", files.artifact_root)])
def test_a_tilde_in_a_variable_is_the_home_folder(tmp_path, monkeypatch, variable, folder, given, place):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, given)
    assert folder() == (tmp_path / place).resolve()
    monkeypatch.setenv(variable, "~nobody of this name/x")
    with pytest.raises(SettingError, match=f"{variable} is '~nobody of this name/x'.*Write the whole path"):
        folder()


def test_a_file_that_git_does_not_hold_as_it_is_has_no_commit_of_its_own(tmp_path):
    def git(*words):
        settings = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *settings, *words], cwd=tmp_path, check=True, capture_output=True)

    def commit_now():
        files.git_commit.cache_clear()
        return files.git_commit(plan)

    plan = tmp_path / "plan.toml"
    plan.write_text("seeds = 3\n")
    assert commit_now() == "unknown"  # no checkout
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert commit_now() == "unknown+"
    git("add", plan.name)
    git("commit", "-q", "-m", "plan")
    assert len(commit_now()) == 40
    plan.write_text("seeds = 30\n")
    assert commit_now().endswith("+")
    git("rm", "-q", "-f", plan.name)
    git("commit", "-q", "-m", "no plan")
    plan.write_text("seeds = 3\n")  # written again, not committed: the commit that took it away is not its own
    assert commit_now().endswith("+")
