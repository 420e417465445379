"""Archives unpacked whole, checked, or not at all.

The whole listing is looked at before a byte is written. Everything then lands in a hidden folder beside the
target and is renamed at the end, so what is visible is complete. A compressed RAR needs a program from outside;
what it was declared to write and what it wrote are compared, file by file.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import rarfile
from filelock import FileLock
from isal import isal_zlib
from tqdm import tqdm

from viptt_core.errors import DataError, StorageError
from viptt_core.files import storing
from viptt_core.sources.archive_listing import AGAIN, CHUNK, UNSAFE, Entry, open_archive, reading, refusal, vet

__all__ = ["unpack"]

_INSTALL = (
    "Install one (Debian: `apt install unar` or `apt install libarchive-tools`; macOS: `brew install unar`; "
    "conda: `conda install -c conda-forge unrar`), or unpack it by hand: such a folder is fine too."
)

# One process for the whole archive: a process for each file would unpack a solid one from its start each time.
# The best reader of RAR first. {a}: archive, {f}: folder.
_PROGRAMS = {
    "unrar": ("unrar", "x", "-y", "-o+", "-p-", "-idq", "--", "{a}", "{f}/"),
    "unar": ("unar", "-q", "-f", "-D", "-nr", "-k", "skip", "-p", "", "-o", "{f}", "--", "{a}"),
    "7zz": ("7zz", "x", "-y", "-bd", "-bso0", "-bsp0", "-p", "-o{f}", "--", "{a}"),
    "7z": ("7z", "x", "-y", "-bd", "-bso0", "-bsp0", "-p", "-o{f}", "--", "{a}"),
    "bsdtar": ("bsdtar", "-x", "--no-same-owner", "--no-same-permissions", "-C", "{f}", "-f", "{a}"),
}


def unpack(archive: Path, folder: Path, *, progress: bool = True) -> Path:
    """Unpack an archive into a folder: everything, checked, or nothing.

    Links, devices, names that lead out of the folder or that meet another, encrypted and multi-volume archives,
    and bombs are refused before anything is written. Files get the mode 0644, folders 0755. What a killed call
    left is removed by the next one; of two calls at once the second waits, and then finds the folder full.

    Args:
        archive: .rar, .zip, .tar, .tar.gz, .tar.xz or .tar.bz2; told by its content.
        folder: Where to; absent or empty.
        progress: Show a progress bar.

    Returns:
        `folder`.

    Raises:
        DataError: the archive is absent, damaged, unsafe or not what its ending says, the folder is not empty,
            or no program here can unpack this RAR.
        StorageError: the disk is too small, or cannot be written.
    """
    archive, target = Path(archive).absolute(), Path(folder).resolve()
    _refuse_full(target)
    with ExitStack() as stack:
        with reading(archive):
            found = stack.enter_context(open_archive(archive))
            wanted = vet(archive, found.entries)
        with storing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(target.with_name(f".{target.name}.lock")))
        part = target.with_name(f".{target.name}.part")
        stack.callback(shutil.rmtree, part, ignore_errors=True)
        shutil.rmtree(part, ignore_errors=True)
        _refuse_full(target)
        _refuse_too_large(archive, target, wanted)
        if found.read is None:
            root = _unpack_by_program(archive, part, wanted, progress)
        else:
            root = _unpack_by_reading(archive, part, wanted, found.read, progress)
        with storing(target):
            os.replace(root, target)
    return Path(folder)


def _refuse_full(target: Path) -> None:
    with storing(target):
        if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
            raise DataError("is not an empty folder.", path=target, remedy="Move it away, or choose another one.")


def _refuse_too_large(archive: Path, target: Path, wanted: dict[str, Entry]) -> None:
    need, free = sum(entry.size for entry in wanted.values()), shutil.disk_usage(target.parent).free
    if need + 4096 * len(wanted) > free:
        raise StorageError(
            f"{archive.name} needs {need / 1e9:.1f} GB here and {free / 1e9:.1f} GB are free.",
            path=target,
            remedy="Make room, or choose another folder.",
        )


def _new_root(part: Path) -> Path:
    # Of a new name each time: a program left over from a killed call finds its folder gone.
    with storing(part):
        part.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(dir=part))


def _unpack_by_reading(archive: Path, part: Path, wanted: dict[str, Entry], read: Callable, progress: bool) -> Path:
    root = _new_root(part)
    with _bar("unpacking", archive, wanted, progress) as bar:
        for path, entry in wanted.items():
            with storing(root / path):
                (root / path if entry.is_folder else (root / path).parent).mkdir(parents=True, exist_ok=True)
            if entry.is_folder:
                continue
            with reading(archive):
                source = read(entry.source)
            with source, storing(root / path), open(root / path, "xb") as file:
                left = entry.size
                while data := _read(archive, source):
                    left -= len(data)
                    if left < 0:
                        break
                    file.write(data)
                    bar.update(len(data))
            if left:
                raise refusal(archive, path, f"holds {'more' if left < 0 else 'less'} than it says")
    if fault := _fault_of_written(root, wanted, lambda size: None, checksums=False):
        raise DataError(f"{fault}.", path=archive, remedy=AGAIN)
    return root


def _read(archive: Path, source) -> bytes:
    with reading(archive):  # inside of `storing`: an error of the archive is not one of the disk
        return source.read(CHUNK)


def _unpack_by_program(archive: Path, part: Path, wanted: dict[str, Entry], progress: bool) -> Path:
    """Let one program after the other unpack a RAR until one has written what the listing says."""
    programs = [name for name, command in _PROGRAMS.items() if shutil.which(command[0])]
    if not programs:
        raise DataError("is a compressed RAR, and no program that unpacks one is here.", path=archive, remedy=_INSTALL)
    failures = []
    # Under this name, away from other archives: unar takes `UCF101.rar` beside `UCF100.rar` for its next volume.
    link = _new_root(part) / "archive.rar"
    with storing(link):
        link.symlink_to(archive)
    for name in programs:
        root = _new_root(part)
        with _bar(f"{name}:", archive, wanted, progress) as bar:
            fault = _run(archive, link, name, root, wanted, bar)
        if not fault:
            with _bar("checking", archive, wanted, progress) as bar:
                fault = _fault_of_written(root, wanted, bar.update)
        if not fault:
            return root
        failures.append(f"{name}: {fault}")
        shutil.rmtree(root, ignore_errors=True)
    raise DataError(
        f"could not be unpacked ({'; '.join(failures)}).",
        path=archive,
        remedy=f"{AGAIN} If that does not help, another program may. {_INSTALL}",
    )


def _run(archive: Path, link: Path, name: str, root: Path, wanted: dict[str, Entry], bar: tqdm) -> str:
    """Run a program to its end; returns why it failed, or "".

    Raises:
        DataError: it wrote more than the listing says, and was stopped.
    """
    command = [word.format(a=link, f=root) for word in _PROGRAMS[name]]
    most, files = bar.total, sum(not entry.is_folder for entry in wanted.values())
    with tempfile.TemporaryFile() as log:  # a pipe that nobody empties would stop the program
        try:
            process = subprocess.Popen(
                command,
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"LC_ALL": "C.UTF-8"},
            )
        except OSError as error:
            return str(error)
        try:
            pause = 0.05
            while True:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(pause)
                start = time.monotonic()
                count, size = _measure(root)
                pause = max(0.05, 10 * (time.monotonic() - start))  # look often, and yet cost a tenth of a core
                bar.update(size - bar.n)
                if size > most or count > files:
                    raise DataError(
                        f"{name} wrote more than the listing says ({files:,} files, {most:,} bytes) and was stopped.",
                        path=archive,
                        remedy=UNSAFE,
                    )
                if process.returncode is not None:
                    break
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        lines = log.read()[-4000:].decode(errors="replace").split("\n")
    if process.returncode == 0:
        return ""
    return f"exit code {process.returncode}, " + " / ".join(line.strip() for line in lines if line.strip())[-600:]


def _measure(folder: Path | str) -> tuple[int, int]:
    """Number and bytes of the files below a folder that is being written."""
    count = size = 0
    try:
        for item in os.scandir(folder):
            more = (
                _measure(item.path)
                if item.is_dir(follow_symlinks=False)
                else (1, item.stat(follow_symlinks=False).st_size)
            )
            count, size = count + more[0], size + more[1]
    except OSError:  # gone or not readable between two looks; the check at the end looks again
        pass
    return count, size


def _fault_of_written(root: Path, wanted: dict[str, Entry], seen: Callable, *, checksums: bool = True) -> str:
    """Give everything below `root` its mode; returns what differs from the listing, or ""."""
    files = {path: entry for path, entry in wanted.items() if not entry.is_folder}
    folders = {path for path, entry in wanted.items() if entry.is_folder}
    folders |= {str(parent) for path in wanted for parent in Path(path).parents}
    with storing(root):
        os.chmod(root, 0o755)
        for folder, inner, names in os.walk(root):  # top down: a folder's mode is set before it is entered
            for name in inner + names:
                place = Path(folder, name)
                path, status = place.relative_to(root).as_posix(), place.lstat()
                if stat.S_ISDIR(status.st_mode) and path in folders:
                    place.chmod(0o755)
                    continue
                entry = files.pop(path, None)
                if entry is None or not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                    return f"'{path}' was written, which is not in the listing or not a plain file"
                if status.st_size != entry.size:
                    return f"'{path}' has {status.st_size:,} bytes, not {entry.size:,}"
                place.chmod(0o644)
                if checksums and not _is_intact(place, entry.source, seen):
                    return f"the checksum of '{path}' is wrong"
        for path in folders:
            (root / path).mkdir(parents=True, exist_ok=True)
    return f"{len(files):,} files were not written, among them '{next(iter(files))}'" if files else ""


def _is_intact(path: Path, info: rarfile.RarInfo, seen: Callable) -> bool:
    """Whether a file has the checksum of the listing: CRC-32, or BLAKE2 where RAR 5 was asked for that."""
    crc, blake = 0, rarfile.Blake2SP() if info.blake2sp_hash and info.CRC is None else None
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            if blake is None:
                crc = isal_zlib.crc32(data, crc)
            else:
                blake.update(data)
            seen(len(data))
    if blake is not None:
        return blake.digest() == info.blake2sp_hash
    return info.CRC in (None, crc)


def _bar(doing: str, archive: Path, wanted: dict[str, Entry], progress: bool) -> tqdm:
    total = sum(entry.size for entry in wanted.values())
    return tqdm(total=total, desc=f"{doing} {archive.name}", unit="B", unit_scale=True, disable=not progress)
