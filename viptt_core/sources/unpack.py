"""RAR archives: unpacked whole and checked, or not at all.

The listing is vetted before a byte is written, and what was written is compared with it. A RAR needs a program.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import unicodedata
from pathlib import Path

import rarfile
from isal import isal_zlib
from tqdm import tqdm

from viptt_core.errors import DataError, ViPTTError
from viptt_core.files import check_space, format_size, kind_of, one_at_a_time, storing

MOST_RATIO = 100
# Under this no archive is a bomb: it harms no disk, and small files of zeros or text may well shrink 1,000 times.
HARMLESS_BYTES = 100_000_000

AGAIN = "Download it again."
UNSAFE = "Nothing was unpacked. Get the archive from its source again, or unpack it by hand if you trust it."
INSTALL = (
    "Install one (Debian: `apt install unar` or `apt install libarchive-tools`; macOS: `brew install unar`; "
    "conda: `conda install -c conda-forge unrar`), or unpack it by hand: such a folder is fine too."
)

# The best reader of RAR first. One process for a whole archive: with one for each file, a solid archive would be
# unpacked from its start each time.
COMMANDS = {
    "unrar": "unrar x -y -o+ -p- -idq -- {archive} {folder}/",
    "unar": "unar -q -f -D -nr -k skip -o {folder} -- {archive}",
    "7zz": "7zz x -y -bd -bso0 -bsp0 -o{folder} -- {archive}",
    "7z": "7z x -y -bd -bso0 -bsp0 -o{folder} -- {archive}",
    "bsdtar": "bsdtar -x --no-same-owner --no-same-permissions -C {folder} -f {archive}",
}


def unpack(archive: Path, folder: Path, *, progress: bool = True) -> None:
    """Unpack a RAR archive into a folder, unless that is there.

    A folder that is all there is in the archive becomes `folder` itself. What a killed call left is removed by the
    next one; of two calls at once the second waits.

    Raises:
        DataError: the archive is absent, damaged, unsafe, not one or a bomb, or no program here can unpack it.
        StorageError: the disk is too small, or cannot be written.
    """
    archive, folder = Path(archive).absolute(), Path(folder).absolute()
    part = folder.with_name(f".{folder.name}.part")
    with one_at_a_time(folder, f"{folder.name}: another process unpacks it, waiting for it."):
        if folder.exists():
            return
        shutil.rmtree(part, ignore_errors=True)
        try:
            with _open(archive) as file, storing(folder):
                entries = _vetted(archive, file)
                size = sum(info.file_size for info in entries.values())
                check_space(folder.parent, size + 4096 * len(entries))
                part.mkdir()
                if progress:
                    print(f"{archive.name}: unpacking {format_size(size)}, then comparing it with the listing.")
                with tqdm(desc="compared", total=size, unit="B", unit_scale=True, disable=not progress) as bar:
                    root = _unrar(file, part, entries, bar)
                inner = list(root.iterdir())
                os.replace(inner[0] if len(inner) == 1 and inner[0].is_dir() else root, folder)
        except (ViPTTError, MemoryError):
            raise
        except Exception as error:  # rarfile, zlib and struct raise a dozen types where bytes are damaged or hostile
            what = f"is damaged or cut short ({error or type(error).__name__})."
            raise DataError(what, path=archive, remedy=AGAIN) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _open(archive: Path) -> rarfile.RarFile:
    if not rarfile.is_rarfile(archive):
        what = f"is {kind_of(archive) or 'absent, empty or of another kind'}, not a RAR archive."
        raise DataError(what, path=archive, remedy=f"{AGAIN} An archive of another kind can be unpacked by hand.")
    blocks = []
    file = rarfile.RarFile(archive, errors="strict", part_only=True, info_callback=blocks.append)
    if file.needs_password() or blocks[0].flags & rarfile.RAR_MAIN_VOLUME:
        raise DataError("is encrypted, or one of several volumes.", path=archive, remedy="Unpack it by hand.")
    # rarfile stops quietly where an archive was cut between two entries. RAR 2 wrote no end block at all.
    end, last = blocks[-1].data_offset + blocks[-1].add_size, blocks[-1].type
    if last != rarfile.RAR_BLOCK_ENDARC and end != archive.stat().st_size:
        raise rarfile.BadRarFile("the listing stops before the end")
    return file


def _vetted(archive: Path, file: rarfile.RarFile) -> dict[str, rarfile.RarInfo]:
    """The entries by clean relative path; refused as a whole if one of them is not in order."""
    entries, spelled, size = {}, {}, 0
    for info in file.infolist():
        name, mode = info.filename, info.mode if info.host_os == rarfile.RAR_OS_UNIX else 0
        path = "/".join(part for part in name.split("/") if part not in ("", "."))
        key = unicodedata.normalize("NFC", path.casefold())  # as a careless file system sees it
        size += info.file_size
        fault = ""
        if info.file_redir or stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            fault = "is a link, a device or a pipe"
        elif re.match("/|[A-Za-z]:", name) or ".." in name.split("/"):
            fault = "leads out of the folder"
        elif re.search(r"[\\\x00-\x1f\x7f]", name):
            fault = "has a backslash, a NUL or a control character in its name"
        elif key in spelled:
            fault = f"meets the entry '{spelled[key]}'"
        elif size > max(HARMLESS_BYTES, MOST_RATIO * archive.stat().st_size):
            fault = f"brings the unpacked size to {format_size(size)}, over {MOST_RATIO} times the archive's: a bomb"
        if fault:
            raise DataError(f"the entry {name[:200]!r} {fault}.", path=archive, remedy=UNSAFE)
        entries[path], spelled[key] = info, path
    if not entries:
        raise rarfile.BadRarFile("it holds nothing")
    return entries


def _unrar(file: rarfile.RarFile, part: Path, entries: dict[str, rarfile.RarInfo], bar: tqdm) -> Path:
    """Let one program after the other unpack a RAR until one has written what the listing says."""
    # Under this name, away from other archives: unar takes `UCF101.rar` beside `UCF100.rar` for its next volume.
    link = part / "archive.rar"
    link.symlink_to(file.filename)
    faults = []
    for name, command in COMMANDS.items():
        if shutil.which(command.split()[0]):
            # Of a new name each time: a program left over from a killed call finds its folder gone.
            root = part / f"{name}-{os.getpid()}"
            root.mkdir()
            bar.reset()
            words = [word.format(archive=link, folder=root) for word in command.split()]
            fault = _run(words) or _difference(root, entries, bar)
            if not fault:
                return root
            faults.append(f"{name}: {fault}")
            shutil.rmtree(root, ignore_errors=True)
    what = f"could not be unpacked ({'; '.join(faults)})." if faults else "is a RAR, and no program here unpacks one."
    remedy = f"{AGAIN} If that does not help, another program may. {INSTALL}" if faults else INSTALL
    raise DataError(what, path=file.filename, remedy=remedy)


def _run(command: list[str]) -> str:
    """Run a program to its end; returns why it failed, or ""."""
    into_one = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, env=os.environ | {"LC_ALL": "C.UTF-8"}, **into_one)
    words = " ".join(done.stdout.decode(errors="replace").split())[-600:]
    return f"exit code {done.returncode}, {words}" if done.returncode else ""


def _difference(root: Path, entries: dict[str, rarfile.RarInfo], bar: tqdm) -> str:
    """What below `root` differs from the listing: names, sizes, CRC-32, links; "" if nothing does."""
    missing = {path: info for path, info in entries.items() if not info.is_dir()}
    folders = {*entries, *(str(parent) for path in entries for parent in Path(path).parents)} - missing.keys()
    for place in root.rglob("*"):
        path, status = place.relative_to(root).as_posix(), place.lstat()
        if path in folders and stat.S_ISDIR(status.st_mode):
            continue
        info = missing.pop(path, None)
        if info is None or not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            return f"'{path}' was written, which is not in the listing or not a plain file"
        # A RAR 5 may have another checksum than CRC-32, which the program compares.
        if status.st_size != info.file_size or info.CRC not in (None, isal_zlib.crc32(place.read_bytes())):
            return f"'{path}' has another size or checksum than the listing says"
        bar.update(info.file_size)
    return f"{len(missing):,} files were not written, among them '{min(missing)}'" if missing else ""
