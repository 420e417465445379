"""A data set of the registry, downloaded and unpacked."""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock

from viptt_core.errors import DataError, StorageError
from viptt_core.sources.archive import unpack
from viptt_core.sources.download import download
from viptt_core.sources.registry import DataSource, RemoteFile, data_source, format_size, remote_files

# Room for what an archive unpacks to: clips and scans are compressed already.
UNPACKED_RATIO = 1.1


def fetch(
    source: str | DataSource,
    root: str | Path | None = None,
    *,
    subset: str = "",
    pixels: int = 28,
    progress: bool = True,
) -> Path:
    """Download and unpack a data set; what is there already is not fetched again.

    Archives are kept beside what they were unpacked to; they can be deleted afterwards.

    Args:
        source: Name of the set, or an entry of one's own.
        root: Folder to put it into; None takes `data/NAME`.
        subset, pixels: See `remote_files`.
        progress: Show progress bars.

    Returns:
        The file or folder to give as data_root.

    Raises:
        DataError: this set cannot be downloaded (the message tells how to get it), or a download failed.
        StorageError: the disk is too full.
    """
    source = data_source(source) if isinstance(source, str) else source
    if source.access != "download":
        raise DataError(
            f"{source.title} cannot be fetched by a command.",
            remedy=f"This is how you get it:\n{source.numbered_steps()}",
        )
    files = remote_files(source, subset=subset, pixels=pixels)
    root = source.default_root if root is None else Path(root).expanduser()
    check_space(root, _bytes_needed(source, files, root))
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".get.lock"):  # a second call waits, and finds everything there; the empty file stays
        for file in files:
            _fetch_file(file, root, progress)
    return root / files[0].result if len(files) == 1 else root


def check_space(root: Path, needed: int) -> None:
    """Raise a StorageError unless the disk of `root` has `needed` bytes free."""
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StorageError(
            f"needs {format_size(needed)}, free are {format_size(free)}.",
            path=root,
            remedy="Free some space, or give another folder with --root.",
        )


def _bytes_needed(source: DataSource, files: tuple[RemoteFile, ...], root: Path) -> int:
    """About what is still to be written, where the size is known."""
    missing = [file for file in files if not (root / file.result).exists()]
    if not missing:
        return 0
    to_unpack = any(file.unpack for file in missing)
    size = source.size if source.size is not None else sum(file.size or 0 for file in missing)
    come = [root / name for file in missing for name in (file.name, f".{file.name}.part")]
    there = sum(path.stat().st_size for path in come if path.is_file())
    return int(max(size - there, 0) + to_unpack * UNPACKED_RATIO * size)


def _fetch_file(file: RemoteFile, root: Path, progress: bool) -> None:
    result = root / file.result
    if file.unpack and result.is_dir():  # it got this name only when it was complete
        return
    archive = root / file.name
    download(file.url, archive, size=file.size, checksum=file.checksum, progress=progress)
    if not file.unpack:
        return
    unpacked = root / f".{file.result}.unpacked"
    if not unpacked.is_dir():
        unpack(archive, unpacked, progress=progress)
    inner = list(unpacked.iterdir())
    # Most archives hold one folder with everything in it; a folder in a folder would only confuse.
    if len(inner) == 1 and inner[0].is_dir():
        inner[0].rename(result)
        unpacked.rmdir()
    else:
        unpacked.rename(result)
