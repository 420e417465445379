"""Small stored RAR archives, byte by byte, good ones and bad ones: nothing free writes RAR.

The layouts are public: RAR 4 in `technote.txt` of RAR, RAR 5 at https://www.rarlab.com/technote.htm.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

UNIX_FILE, UNIX_FOLDER, UNIX_LINK, UNIX_FIFO = 0o100644, 0o040755, 0o120777, 0o010644
SYMLINK, HARD_LINK = 1, 4  # kinds of RAR 5's redirection record


@dataclass
class Item:
    """One entry; what is None follows from the others."""

    name: str | bytes
    data: bytes = b""
    mode: int | None = None
    size: int | None = None  # the declared one
    crc: int | None = None
    method: int = 0  # 0: stored
    folder: bool = False
    encrypted: bool = False
    link: tuple[int, str] | None = None  # RAR 5: kind and target


def _filled(item: Item) -> tuple[bytes, int, int, int]:
    name = item.name.encode() if isinstance(item.name, str) else item.name
    mode = item.mode if item.mode is not None else UNIX_FOLDER if item.folder else UNIX_FILE
    return (
        name,
        mode,
        len(item.data) if item.size is None else item.size,
        zlib.crc32(item.data) if item.crc is None else item.crc,
    )


def rar4(*items: Item, volume: bool = False, encrypted: bool = False, end: bool = True, host: int = 3) -> bytes:
    """A RAR 4 archive; `host` 3 is Unix, 2 Windows."""

    def block(kind: int, flags: int, body: bytes) -> bytes:
        rest = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(rest) & 0xFFFF) + rest

    out = b"Rar!\x1a\x07\x00" + block(0x73, 0x01 * volume | 0x80 * encrypted, bytes(6))
    for item in items:
        name, mode, size, crc = _filled(item)
        name = name.replace(b"/", b"\\")  # RAR 4 has backslashes on Unix too
        flags = 0x8000 | 0xE0 * item.folder | 0x04 * item.encrypted
        large = size >> 32
        body = struct.pack(
            "<LLBLLBBHL",
            len(item.data),
            size & 0xFFFFFFFF,
            host,
            crc,
            0x5A210000,
            29 if item.method else 20,
            0x30 + item.method,
            len(name),
            mode,
        )
        if large:
            flags, body = flags | 0x100, body + struct.pack("<LL", 0, large)
        out += block(0x74, flags, body + name) + item.data
    return out + (block(0x7B, 0x4000, b"") if end else b"")


def vint(number: int) -> bytes:
    """RAR 5's whole number: 7 bits a byte, the lowest first."""
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def rar5(*items: Item, volume: bool = False, encrypted: bool = False, end: int = 5, host: int = 1) -> bytes:
    """A RAR 5 archive; `host` 1 is Unix, 0 Windows; `end` the kind of the last block, 0 for none."""

    def block(kind: int, body: bytes, extra: bytes = b"", data: bytes = b"") -> bytes:
        with_data = kind == 2  # even where there is none: libarchive insists
        flags = bool(extra) | 2 * with_data
        head = vint(kind) + vint(flags) + (vint(len(extra)) if extra else b"") + (vint(len(data)) if with_data else b"")
        rest = head + body + extra
        rest = vint(len(rest)) + rest
        return struct.pack("<L", zlib.crc32(rest)) + rest + data

    def record(kind: int, body: bytes) -> bytes:
        return vint(len(vint(kind) + body)) + vint(kind) + body

    out = b"Rar!\x1a\x07\x01\x00"
    if encrypted:
        out += block(4, vint(0) + vint(0) + b"\x0f" + bytes(16))
    out += block(1, vint(int(volume)))
    for item in items:
        name, mode, size, crc = _filled(item)
        body = vint(1 if item.folder else 4)  # a folder, or: a CRC-32 follows
        body += vint(size) + vint(mode) + (b"" if item.folder else struct.pack("<L", crc))
        body += vint(item.method << 7) + vint(host) + vint(len(name)) + name
        extra = record(1, vint(0) + vint(0) + b"\x0f" + bytes(32)) if item.encrypted else b""
        if item.link:
            goal = item.link[1].encode()
            extra += record(5, vint(item.link[0]) + vint(0) + vint(len(goal)) + goal)
        out += block(2, body, extra, item.data)
    return out + (block(end, vint(0)) if end else b"")
