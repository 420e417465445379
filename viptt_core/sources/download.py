"""Files from the network that are visible only when complete and verified."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from viptt_core import files
from viptt_core.errors import DataError, SettingError
from viptt_core.sources.transfer import Transfer

DIGITS = {"md5": 32, "sha256": 64}  # hexadecimal, of a whole digest


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    checksum: str = "",
    progress: bool = True,
    timeout: float = 60,
    attempts: int = 5,
    pause: float = 1.0,
) -> Path:
    """Download a file unless it is there; go on where an earlier call stopped; verify it in either case.

    What has come so far is `.NAME.part` beside it, which version it is of `.NAME.part.json`. Of several
    processes one downloads and the others wait. Without a checksum the SHA-256 of the first download is
    written to `NAME.sha256`, as sha256sum does, and holds from then on.

    Args:
        url: https, or http if the content is known by a checksum or the server is this machine.
        path: The file, whatever the server calls it.
        size: In bytes, if known.
        checksum: "md5:HEX" or "sha256:HEX", all digits or the first of them, at least eight.
        progress: Show a bar.
        timeout: Seconds without a byte after which a connection is given up.
        attempts: Requests in a row that may bring nothing new.
        pause: Seconds before the second attempt; doubled each time, up to a minute.

    Returns:
        `path`.

    Raises:
        DataError: it cannot be had or is not what it should be, be it the file that was there or the new one.
        SettingError: the URL is of another kind, or the checksum is malformed.
        StorageError: it cannot be written; what has come is kept.
    """
    from tqdm import tqdm

    path = Path(path)
    if checksum:
        _parsed(checksum)
    if urlsplit(url).scheme not in ("http", "https"):
        raise SettingError("only http and https are downloaded.", path=url)
    if path.exists():
        return _accept(path, size, checksum)
    lock = FileLock(path.with_name(f".{path.name}.lock"))  # the empty file stays
    with files.storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        if path.exists():  # by now
            return _accept(path, size, checksum)
        with tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar:
            known = checksum or _recorded(path)
            transfer = Transfer(url, path, size=size, checked=bool(known), timeout=timeout, bar=bar)
            transfer.receive(attempts, pause)
        _publish(transfer, path, known, is_record=not checksum)
    finally:
        lock.release()
    return path


def _publish(transfer: Transfer, path: Path, known: str, *, is_record: bool) -> None:
    """Verify what has come and give it its name."""
    part = transfer.part
    if known and (difference := _difference(part, known)):
        transfer.discard()
        raise DataError(
            f"what came from {transfer.url} {'differs from the first download' if is_record else 'is not the file'}: "
            f"{difference}{transfer.hint}.",
            path=path,
            remedy=f"Start again; if this stays so, the file has changed at its source. If that is expected, "
            f"{f'delete {_record_of(path)}' if is_record else 'correct the checksum'}.",
        )
    if not known:
        _record(path, file_digest(part, "sha256"))
    with files.storing(path):
        os.replace(part, path)
        files.sync(path.parent)
    transfer.discard()


def file_digest(path: Path, algorithm: str) -> str:
    """Digest of a file's bytes in hexadecimal; algorithm is "md5" or "sha256".

    Raises:
        DataError: it cannot be read.
    """
    try:
        return files.file_digest(path, algorithm)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}).", path=path, remedy="Check who may read it.") from error


def verify(path: Path, checksum: str) -> None:
    """Compare a file with its checksum, see `download`.

    Raises:
        DataError: it differs, or the file cannot be read.
        SettingError: the checksum is malformed.
    """
    if difference := _difference(path, checksum):
        raise DataError(
            f"is damaged: its checksum differs ({difference}).", path=path, remedy="Delete it and start again."
        )


def _parsed(checksum: str) -> tuple[str, str]:
    algorithm, _, digits = checksum.lower().partition(":")
    if algorithm not in DIGITS or not re.fullmatch(rf"[0-9a-f]{{8,{DIGITS[algorithm]}}}", digits):
        raise SettingError(f"{checksum!r} is no checksum.", remedy="Write md5:HEX or sha256:HEX, 8 digits or more.")
    return algorithm, digits


def _difference(path: Path, checksum: str) -> str:
    algorithm, expected = _parsed(checksum)
    found = file_digest(path, algorithm)
    return "" if found.startswith(expected) else f"{algorithm} is {found}, not {expected}"


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _recorded(path: Path) -> str:
    """Checksum written at the first download; empty if there was none."""
    try:
        digits = _record_of(path).read_text(encoding="utf-8").partition(" ")[0]
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        digits = ""
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise DataError("holds no SHA-256.", path=_record_of(path), remedy="Delete it if you trust the file beside it.")
    return f"sha256:{digits}"


def _record(path: Path, digits: str) -> None:
    with files.storing(_record_of(path)):
        files.replace(_record_of(path), f"{digits}  {path.name}\n")


def _accept(path: Path, size: int | None, checksum: str) -> Path:
    """Verify a file that is there; it is never overwritten."""
    if size is not None and path.stat().st_size != size:
        raise DataError(f"has {path.stat().st_size} bytes, not {size}.", path=path, remedy="Delete it and start again.")
    recorded = "" if checksum else _recorded(path)
    if checksum:
        verify(path, checksum)
    elif not recorded:
        _record(path, file_digest(path, "sha256"))
    elif difference := _difference(path, recorded):
        raise DataError(
            f"has changed since it was downloaded: its checksum differs ({difference}).",
            path=path,
            remedy=f"Delete it and start again, or, if you meant to change it, delete {_record_of(path)}.",
        )
    return path
