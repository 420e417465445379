"""What is in an archive, and whether it may be unpacked: RAR, zip and tar. Nothing here writes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import rarfile

from viptt_core.errors import DataError, ViPTTError

MOST_ENTRIES = 1_000_000
MOST_RATIO = 100
# Under this no archive is a bomb: it harms no disk, and small files of zeros or text may well shrink 1,000 times.
HARMLESS_BYTES = 100_000_000
_LONGEST_PART, _LONGEST_NAME = 255, 1000  # bytes: what ext4, APFS and PATH_MAX of macOS take
CHUNK = 1 << 20

AGAIN = "Download it again."
UNSAFE = "Nothing was unpacked. Get the archive from its source again, or unpack it by hand if you trust it."

_MAGIC = {
    "rar": (rarfile.RAR_ID, rarfile.RAR5_ID),
    "zip": (b"PK\3\4", b"PK\5\6"),
    "tar.gz": (b"\x1f\x8b",),
    "tar.xz": (b"\xfd7zXZ\0",),
    "tar.bz2": (b"BZh",),
}
_ENDINGS = {
    ".rar": "rar",
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.xz": "tar.xz",
    ".txz": "tar.xz",
    ".tar.bz2": "tar.bz2",
    ".tbz2": "tar.bz2",
}
_TAR_OPENERS = {"tar": open, "tar.gz": gzip.open, "tar.xz": lzma.open, "tar.bz2": bz2.open}

# What readers of archives raise on damaged or hostile bytes. DataError is a ValueError: `reading` lets it pass.
_DAMAGE = (
    rarfile.Error,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    RuntimeError,
)


@dataclass(frozen=True)
class Entry:
    """One line of a listing; `fault` says why it must not be unpacked, `source` is the reader's own record."""

    name: str
    size: int
    is_folder: bool
    fault: str
    source: object


@dataclass(frozen=True)
class Opened:
    """An archive's entries, perhaps read as they are asked for, and how to read one; None: a program must."""

    entries: Iterable[Entry]
    read: Callable | None


def open_archive(archive: Path) -> AbstractContextManager[Opened]:
    """Open an archive of any kind for reading.

    Raises:
        DataError: it is absent, not what its ending says, encrypted or one of several volumes.
    """
    if not archive.is_file():
        raise DataError("there is no such archive.", path=archive, remedy=AGAIN)
    kind = _kind(archive)
    return _open_zip(archive) if kind == "zip" else _open_rar(archive) if kind == "rar" else _open_tar(archive, kind)


def _kind(archive: Path) -> str:
    """What the content is; refused where the ending says otherwise."""
    with reading(archive), open(archive, "rb") as file:
        head = file.read(512)
    kind = next((kind for kind, magics in _MAGIC.items() if head.startswith(magics)), None)
    if kind is None and head[257:262] == b"ustar":
        kind = "tar"
    if kind is None:
        page = head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))
        what = "is a web page, not an archive" if page else "is empty" if not head else "is not a RAR, zip or tar file"
        raise DataError(f"{what}.", path=archive, remedy=AGAIN)
    said = next((said for ending, said in _ENDINGS.items() if archive.name.lower().endswith(ending)), kind)
    if said != kind:
        raise DataError(
            f"has the content of a .{kind}, not what its ending says.",
            path=archive,
            remedy="Rename it if that is what you wanted; else download it again.",
        )
    return kind


@contextmanager
def _open_zip(archive: Path) -> Iterator[Opened]:
    with zipfile.ZipFile(archive) as file:
        yield Opened([_zip_entry(info) for info in file.infolist()], file.open)


def _zip_entry(info: zipfile.ZipInfo) -> Entry:
    fault = "is encrypted" if info.flag_bits & 0x2041 else "lies in another volume" if info.volume else ""
    fault = fault or _mode_fault(info.external_attr >> 16)
    # `filename` ends at the first NUL; the original shows it.
    return Entry(info.orig_filename, info.file_size, info.is_dir(), fault, info)


@contextmanager
def _open_tar(archive: Path, kind: str) -> Iterator[Opened]:
    with _TAR_OPENERS[kind](archive, "rb") as raw, tarfile.open(fileobj=_Sparing(raw), mode="r:") as tar:
        yield Opened(_tar_entries(tar), tar.extractfile)


def _tar_entries(tar: tarfile.TarFile) -> Iterator[Entry]:
    while (member := tar.next()) is not None:
        fault = (
            "is a link"
            if member.issym() or member.islnk()
            else "is a sparse file"
            if member.issparse()
            else ""
            if member.isreg() or member.isdir()
            else "is a device or of an unknown kind"
        )
        yield Entry(member.name, 0 if member.isdir() else member.size, member.isdir(), fault, member)
    # tarfile takes a header it cannot read for the end of the archive.
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(512) != bytes(512):
        raise tarfile.ReadError("there is no end mark where the listing stops")
    for _ in range(16):  # on to the checksum of the compressed stream, behind the padding
        if not tar.fileobj.read(CHUNK):
            return
    raise tarfile.ReadError("much follows the end mark")


class _Sparing:
    """A file that refuses huge reads: tarfile would take a long name of 50 GB into memory."""

    def __init__(self, file) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 16 * CHUNK:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._read(size)


@contextmanager
def _open_rar(archive: Path) -> Iterator[Opened]:
    blocks, size, last = 0, archive.stat().st_size, None

    def look(block) -> None:
        nonlocal blocks, last
        blocks, last = blocks + 1, block
        if blocks > 2 * MOST_ENTRIES:
            raise DataError(f"has more than {MOST_ENTRIES:,} entries.", path=archive, remedy=UNSAFE)
        volume = {
            rarfile.RAR_BLOCK_MAIN: rarfile.RAR_MAIN_VOLUME,
            rarfile.RAR_BLOCK_ENDARC: 1,
            rarfile.RAR_BLOCK_FILE: rarfile.RAR_FILE_SPLIT_BEFORE | rarfile.RAR_FILE_SPLIT_AFTER,
        }
        if block.flags & volume.get(block.type, 0):
            raise DataError("is one of several volumes.", path=archive, remedy="Unpack it by hand.")
        if block.data_offset + block.add_size > size:
            raise rarfile.BadRarFile("a block ends behind the end of the file")
        # rarfile leaves old versions of files out of its listing; a program may unpack them.
        old = block.flags & rarfile.RAR_FILE_VERSION or getattr(block, "file_version", None)
        if block.type == rarfile.RAR_BLOCK_FILE and old:
            raise refusal(archive, block.filename, "is an old version of a file")

    file = rarfile.RarFile(str(archive), errors="strict", info_callback=look, part_only=True)
    infos, newer = file.infolist(), rarfile.get_rar_version(str(archive)) == rarfile.RAR_V5
    if file.needs_password() and not any(info.needs_password() for info in infos):
        raise DataError("has an encrypted listing.", path=archive, remedy="Unpack it by hand.")
    # rarfile stops quietly at a block it does not know; a program would go on. RAR 2 wrote no end block at all.
    if last is None or last.type != rarfile.RAR_BLOCK_ENDARC and last.data_offset + last.add_size < size:
        raise rarfile.BadRarFile("the listing stops before the end")
    with open(archive, "rb") as raw:
        entries = [_rar_entry(info, raw, newer) for info in infos]
    stored = all(info.compress_type == rarfile.RAR_M0 for info in infos if not info.is_dir())
    yield Opened(entries, file.open if stored else None)


def _rar_entry(info: rarfile.RarInfo, raw, newer: bool) -> Entry:
    stored = info.compress_type == rarfile.RAR_M0
    fault = ""
    if info.is_symlink() or info.file_redir:
        fault = "is a link"
    elif info.needs_password():
        fault = "is encrypted"
    elif newer and info.file_flags & rarfile.RAR5_FILE_FLAG_UNKNOWN_SIZE:
        fault = "does not say its size"
    elif stored and not info.is_dir() and info.file_size != info.compress_size:
        fault = f"says it has {info.file_size:,} bytes and has {info.compress_size:,}"
    elif info.host_os == rarfile.RAR_OS_UNIX:
        fault = _mode_fault(info.mode)
    elif info.host_os == rarfile.RAR_OS_WIN32 and info.mode & stat.FILE_ATTRIBUTE_REPARSE_POINT:
        fault = "is a link"
    # Older RARs hold two names, and a program may take the other one.
    other = info.orig_filename.decode("latin-1")
    fault = fault or _leads_out(other if newer else other.replace("\\", "/"))
    # rarfile ends a name at its first NUL without a word; the header still has the whole name's length.
    raw.seek(info.header_offset)
    header, length = raw.read(info.header_size), len(info.orig_filename)
    whole = (
        _vint(length) + info.orig_filename in header
        if newer
        else info.flags & rarfile.RAR_FILE_UNICODE or struct.unpack_from("<H", header, 26)[0] == length
    )
    fault = fault or ("" if whole else "has a NUL in its name")
    return Entry(info.filename, 0 if info.is_dir() else info.file_size, info.is_dir(), fault, info)


def _vint(number: int) -> bytes:
    """RAR 5's way to write a whole number."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _vint(number >> 7)


def _mode_fault(mode: int) -> str:
    kind = stat.S_IFMT(mode & 0xFFFF)
    return (
        ""
        if kind in (0, stat.S_IFREG, stat.S_IFDIR)
        else ("is a link" if kind == stat.S_IFLNK else "is a device or of an unknown kind")
    )


def _leads_out(name: str) -> str:
    """Why a name could be a place outside the folder; "" if it could not."""
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "has an absolute path"
    return "leads out of its folder" if ".." in name.split("/") else ""


def _name_fault(name: str) -> str:
    if fault := _leads_out(name):
        return fault
    if "\\" in name:
        return "has a backslash in its name"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "has a NUL or control character in its name"
    try:
        longest = max(len(part.encode()) for part in name.split("/"))
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    return "has too long a name" if longest > _LONGEST_PART or len(name.encode()) > _LONGEST_NAME else ""


def vet(archive: Path, entries: Iterable[Entry]) -> dict[str, Entry]:
    """The entries by clean relative path; refused as a whole if one of them is not in order."""
    wanted: dict[str, Entry] = {}
    spelled: dict[str, tuple[str, bool]] = {}  # path as a careless file system sees it -> as it is; is a folder
    most, total = max(HARMLESS_BYTES, MOST_RATIO * archive.stat().st_size), 0
    for count, entry in enumerate(entries, 1):
        if count > MOST_ENTRIES:
            raise DataError(f"has more than {MOST_ENTRIES:,} entries.", path=archive, remedy=UNSAFE)
        if fault := entry.fault or _name_fault(entry.name):
            raise refusal(archive, entry.name, fault)
        total += entry.size
        if total > most:
            raise refusal(
                archive,
                entry.name,
                f"brings the unpacked size to {total:,} bytes, more than {MOST_RATIO} times the archive's: a bomb",
            )
        parts = [part for part in entry.name.split("/") if part not in ("", ".")]
        if not parts and entry.is_folder:
            continue  # "./", with which many a tar begins
        path = "/".join(parts)
        if not path or path in wanted:
            raise refusal(archive, entry.name, "is there twice" if path else "has no name")
        for depth in range(1, len(parts) + 1):
            name, is_folder = "/".join(parts[:depth]), depth < len(parts) or entry.is_folder
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
            if spelled.setdefault(key, (name, is_folder)) != (name, is_folder):
                raise refusal(archive, entry.name, f"meets the entry '{spelled[key][0]}'")
        wanted[path] = entry
    return wanted


def refusal(archive: Path, name: str, fault: str) -> DataError:
    return DataError(f"the entry {name[:200]!r} {fault}.", path=archive, remedy=UNSAFE)


@contextmanager
def reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except ViPTTError:
        raise
    except _DAMAGE as error:
        raise DataError(
            f"is damaged or cut short ({error or type(error).__name__}).", path=archive, remedy=AGAIN
        ) from error
