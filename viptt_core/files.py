"""Files: where they lie, how they are written whole or not at all, and what a result was made with."""

from __future__ import annotations

import ast
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

from viptt_core.errors import DataError, SettingError, StorageError, ViPTTError

PACKAGE = Path(__file__).parent
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "nibabel", "av")


def artifact_root() -> Path:
    """Folder that holds `data/`, `runs/` and `results/`.

    The environment variable `VIPTT_ROOT` if set; else the checkout this package is imported from;
    else (installed without a checkout, as on Colab) the current folder.
    """
    if given := _folder_of("VIPTT_ROOT"):
        return given
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def cache_root() -> Path:
    """Folder of decoded clip sets and pretrained weights; `VIPTT_CACHE` overrides it."""
    return _folder_of("VIPTT_CACHE") or artifact_root() / "data" / "cache"


def _folder_of(variable: str) -> Path | None:
    """The folder that an environment variable names, `~` for the home folder; None if it names none."""
    try:
        return Path(os.environ[variable]).expanduser().resolve() if os.environ.get(variable) else None
    except RuntimeError as error:
        what = f"{variable} is '{os.environ[variable]}', and there is no such home folder."
        raise SettingError(what, remedy="Write the whole path.") from error


def available_cores() -> int:
    """CPU cores this process may use (a container or job scheduler may grant fewer than exist)."""
    from joblib import cpu_count

    return cpu_count()


def provenance() -> dict:
    """What a result was made with: commit, versions, machine, time (UTC). JSON-ready."""
    import torch

    try:
        processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))[1]
    except (OSError, TypeError):  # another system, or another word for it
        processor = platform.processor() or "unknown"
    return {
        "commit": git_commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in RECORDED_PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": f"{processor}, {available_cores()} cores",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes)."""
    try:  # Linux, where `ru_maxrss` is never less than that of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


@functools.cache
def git_commit(path: Path = PACKAGE) -> str:
    """Commit of the checkout, or the one that last changed a file; "+" is appended if that differs from it now.

    "unknown" outside a checkout.
    """
    folder, names = (path, ()) if path.is_dir() else (path.parent, ("--", path.name))
    try:
        commit = _git(folder, "log", "-1", "--format=%H", *names)
        untracked = "--untracked-files=" + ("all" if names else "no")
        changed = _git(folder, "status", "--porcelain", untracked, *(names or ("--", ".")))
        return (commit or "unknown") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


# --- Several processes ---


@contextmanager
def one_at_a_time(path: Path, waiting: str, *, hint: str = "") -> Iterator[None]:
    """Let one process at a time make a file or folder; the others say that they are waiting, and wait.

    Args:
        path: What is made; the empty file `.NAME.lock` beside it stays.
        waiting: What a process says before it waits.
        hint: See `storing`.

    Raises:
        StorageError: the lock cannot be made.
    """
    turn = FileLock(path.with_name(f".{path.name}.lock"))  # the system drops it with the process, however that ends
    with storing(path, hint=hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            turn.acquire(timeout=0)
        except Timeout:
            print(waiting, flush=True)
            turn.acquire(poll_interval=0.1)
    try:
        yield
    finally:
        turn.release()


def in_workers(function: Callable, arguments: Sequence[tuple], n_jobs: int | None) -> Iterator:
    """Call a function with each of the arguments in worker processes, and yield the results as they are ready.

    Args:
        function: Of a module, or a `partial` or method of what can be pickled.
        arguments: Of each call.
        n_jobs: None takes the available cores; with 1 this process does it.
    """
    n_jobs = min(available_cores() if n_jobs is None else n_jobs, len(arguments))
    if n_jobs <= 1:
        yield from (function(*each) for each in arguments)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered", pre_dispatch="3*n_jobs")
    try:
        yield from parallel(delayed(function)(*each) for each in arguments)
    except BaseException:
        get_reusable_executor(kill_workers=True).shutdown()  # Ctrl-C ends the workers, too
        raise
    get_reusable_executor().shutdown()  # idle workers would keep their memory


# --- What a result depends on: the modules of this package that its code reaches by imports ---


def code_version(*modules: str, apart_from: Sequence[str] = ()) -> str:
    """Hash of what modules of this package do, together with all modules that they import, directly or not.

    Comments and docstrings do not count. The data beside a module (.toml, .js, .css) counts with it.

    Args:
        modules: Where to begin: names below `viptt_core`, such as "training" (its `__init__`) or "training.feed".
        apart_from: See `reached_modules`.
    """
    meanings = []
    for module in reached_modules(*modules, apart_from=apart_from):
        source = _source_of(module)
        meanings.append(_read_module(source, source.stat().st_mtime_ns)[1])
        stem = source.parent.name if source.stem == "__init__" else source.stem
        beside = (source.with_name(stem + ending) for ending in (".toml", ".js", ".css"))
        meanings += [path.read_text(encoding="utf-8") for path in beside if path.is_file()]
    return hashlib.sha256("\n".join(meanings).encode()).hexdigest()[:16]


def reached_modules(*modules: str, apart_from: Sequence[str] = ()) -> list[str]:
    """Modules of this package, and those that they import, directly or not, sorted.

    Args:
        modules: Where to begin, see `code_version`.
        apart_from: Modules, or packages with all that is in them, that are neither listed nor followed. To forget
            one here costs at most a computation that was not needed; to name one too many can hide a stale result.
    """
    apart = tuple(f"{name}." for name in apart_from)
    reached, waiting = set(), set(modules)
    while waiting:
        reached.add(module := waiting.pop())
        source = _source_of(module)
        imported = _read_module(source, source.stat().st_mtime_ns)[0]
        waiting |= {name for name in imported - reached if not f"{name}.".startswith(apart)}
    return sorted(reached)


@functools.cache
def _read_module(source: Path, changed: int) -> tuple[frozenset[str], str]:
    """What a module imports, and the hash of its meaning; kept for the file as it was when it last changed."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
        elif isinstance(node, ast.JoinedStr):  # Python 3.12.1 has an empty text at its end, others have none
            node.values = [part for part in node.values if not isinstance(part, ast.Constant) or part.value]
    return imported_modules(tree), hashlib.sha256(_meaning(tree).encode()).hexdigest()


def _meaning(tree: ast.Module) -> str:
    """A syntax tree as text, the same on every Python: 3.13 leaves out empty lists, 3.11 has no type parameters."""
    everything = {"show_empty": True} if sys.version_info >= (3, 13) else {}
    return ast.dump(tree, **everything).replace(", type_params=[]", "")


def imported_modules(source: str | ast.Module) -> frozenset[str]:
    """Modules of this package that Python source imports itself, in functions too."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source) if isinstance(source, str) else source):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:  # what is imported is a module, or something in one
            imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    prefix = f"{PACKAGE.name}."
    below = {name.removeprefix(prefix) for name in imported if name.startswith(prefix)}
    return frozenset(name for name in below if _source_of(name).is_file())


def _source_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


# --- How bytes reach the disk, whole or not at all. Nothing here knows what they mean ---


@contextmanager
def storing(path: Path, *, hint: str = "") -> Iterator[None]:
    """Turn what the system says about a file that cannot be written into a `StorageError`.

    Args:
        path: Named in the error.
        hint: Goes on the remedy, such as "what has come is kept".
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        what = f"cannot be written ({os.strerror(error.errno) if error.errno else error})."
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, or the reader's share of it
        remedy = "Free some space and start again" if is_full else "See that you may write there"
        raise StorageError(what, path=path, remedy=f"{remedy}{f'; {hint}' if hint else ''}.") from error


@contextmanager
def reading(path: Path) -> Iterator[int]:
    """Check a file, give its size in bytes, and turn what the system says of it inside the block into a `DataError`.

    Raises:
        DataError: not a file, empty, without rights, gone meanwhile, or too large for the memory.
    """
    try:
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a zero byte in the name
            found = None
        if found is None or not stat.S_ISREG(found.st_mode):
            raise DataError("is not a file.", path=path, remedy="Check the path.", kind="missing file")
        if not found.st_size:
            remedy = "Copy or download the file again."
            raise DataError("is empty (0 bytes).", path=path, remedy=remedy, kind="empty file")
        yield found.st_size
    except ViPTTError:
        raise
    except (OSError, MemoryError) as error:
        reason = "not enough memory" if isinstance(error, MemoryError) else error.strerror or error
        remedy = "Check that it is there, its rights, and the disk."
        raise DataError(f"cannot be read ({reason}).", path=path, remedy=remedy, kind="unreadable file") from error


def put_in_place(path: Path, parts: Sequence[bytes], *, durable: bool = False) -> None:
    """Write a file under another name and rename it, from any number of processes; a failed one leaves nothing.

    With `durable` it is forced to the disk before that, which what can be made again need not be.
    """
    unfinished = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with open(unfinished, "wb") as file:
            file.writelines(parts)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file for good, in a folder that is made if it is not there.

    Raises:
        StorageError: it cannot be written; an older file of this name stays whole.
    """
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(path, [content.encode() if isinstance(content, str) else content], durable=True)


def file_digest(path: Path, algorithm: str) -> str:
    """Digest of a file's bytes in hexadecimal; algorithm is a name that hashlib knows, such as "sha256"."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def check_space(folder: Path, needed: int) -> None:
    """Raise a StorageError unless the disk of a folder, which need not be there yet, has this many bytes free."""
    folder = Path(folder).absolute()
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.is_dir())).free
    if free < needed:
        what = f"needs {format_size(needed)}, free are {format_size(free)}."
        raise StorageError(what, path=folder, remedy="Free some space and start again, or choose another folder.")


def format_size(size: int | None) -> str:
    """Bytes as a reader says them: "3.2 GB"; "" for None."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size and size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return "" if size is None else f"{size} bytes"


# How files begin that people take for weights.
_KINDS = {
    b"PK": "a zip archive, such as a PyTorch file or a .keras file of Keras 3",
    b"\x80": "a Python pickle, such as an older PyTorch file",
    b"\x89HDF": "an HDF5 file, as Keras 2 writes",
    b"<": "a web page",
    b"version https://git-lfs": "a Git LFS pointer, not the file it stands for",
}


def kind_of(path: Path) -> str:
    """What a file is by its first bytes, in words; "" where that is not known, or it cannot be read."""
    try:
        with open(path, "rb") as file:
            first_bytes = file.read(64).lstrip()
    except OSError:
        return ""
    return next((kind for beginning, kind in _KINDS.items() if first_bytes.startswith(beginning)), "")
