"""The files of the repository, told from what else lies in its folder: a reader's notebooks, predictions, drafts."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def in_git() -> bool:
    """Whether this is a Git checkout, and Git is here to read it."""
    return _listed() is not None


@cache
def tracked_files(pattern: str) -> tuple[Path, ...]:
    """The files that Git tracks and that fit a pattern, sorted; without Git all that fit, tracked or not.

    Args:
        pattern: As of `Path.glob`, from the root of the repository: "book/*.md", "viptt_core/**/*.py".
    """
    listed = _listed(f":(glob){pattern}")
    found = ROOT.glob(pattern) if listed is None else (ROOT / name for name in listed)
    return tuple(sorted(path for path in found if path.is_file()))


def _listed(*pathspecs: str) -> list[str] | None:
    """What `git ls-files` lists; None where there is no checkout, as in an unpacked source distribution."""
    if not (ROOT / ".git").exists():  # a folder, or the file of a second worktree; not that of a folder further up
        return None
    try:
        done = subprocess.run(["git", "ls-files", "-z", "--", *pathspecs], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [name for name in done.stdout.decode().split("\0") if name]
