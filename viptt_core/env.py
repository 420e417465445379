"""Where things are on disk, which device to use, seeds, and the provenance record of a run."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import platform
import random
import subprocess
import tomllib
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import numpy as np

RECORDED_PACKAGES = (
    "torch",
    "torchvision",
    "accelerate",
    "numpy",
    "scipy",
    "scikit-learn",
    "nibabel",
    "av",
    "opencv-python-headless",
)


def artifact_root() -> Path:
    """Folder that holds `data/`, `runs/` and `results/`.

    The environment variable `VIPTT_ROOT` if set; else the checkout this package is imported from;
    else (installed without a checkout, as on Colab) the current folder.
    """
    if os.environ.get("VIPTT_ROOT"):
        return Path(os.environ["VIPTT_ROOT"]).resolve()
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def cache_root() -> Path:
    """Folder of decoded clip sets and pretrained weights; `VIPTT_CACHE` overrides it."""
    override = os.environ.get("VIPTT_CACHE")
    return Path(override).resolve() if override else artifact_root() / "data" / "cache"


def available_cores() -> int:
    """CPU cores this process may use (a container or job scheduler may grant fewer than exist)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators.

    Our own code draws from generators passed in; this catches libraries that do not.
    """
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def provenance() -> dict:
    """What a result was made with: commit, versions, machine, time (UTC). JSON-ready."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "commit": git_commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes); 0 where unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak * 1024 / 1e6


@functools.cache
def git_commit() -> str:
    """Commit of the checkout, "+" appended when files differ from it; "unknown" outside one."""
    try:
        changed = _git(Path(__file__).parent, "status", "--porcelain", "--untracked-files=no", "--", ".")
        return _git(Path(__file__).parent, "rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def file_commit(path: Path) -> str:
    """Commit that last changed a file, "+" appended when it has changed since; "unknown" outside a checkout."""
    try:
        changed = _git(path.parent, "status", "--porcelain", "--", path.name)
        commit = _git(path.parent, "log", "-1", "--format=%H", "--", path.name)
        return (commit or "unknown") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def code_version(modules: Sequence[str]) -> str:
    """Hash of the syntax trees of modules of this package, docstrings and comments left out.

    It changes when what the code does may have changed, and not when its words did.
    """
    trees = []
    for module in modules:
        source = Path(importlib.util.find_spec(f"viptt_core.{module}").origin)
        trees.append(_syntax_tree(source, source.stat().st_mtime_ns))
        table = source.with_suffix(".toml")  # a module's own data, such as the presets
        if table.is_file():
            trees.append(json.dumps(tomllib.loads(table.read_text(encoding="utf-8")), sort_keys=True))
        if source.name == "__init__.py":  # and what a package brings for pages
            trees += [
                path.read_text(encoding="utf-8")
                for ending in ("js", "css")
                for path in sorted(source.parent.glob(f"*.{ending}"))
            ]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()[:16]


@functools.cache
def _syntax_tree(source: Path, changed: int) -> str:
    """Of a file as it was when it last changed: the book's build asks for the same ones again and again."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = body[1:]
    return ast.dump(tree)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or "unknown"
    return f"{name}, {available_cores()} cores"
