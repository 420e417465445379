"""Files from the network that are visible only when complete and verified."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from filelock import FileLock
from requests import Response

from viptt_core import files
from viptt_core.errors import DataError, SettingError, StorageError
from viptt_core.sources import download as web

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


# --- The bytes behind a URL, fetched into a part file that later requests and later calls go on with ---


_LONGEST_PAUSE = 60  # seconds
_KEPT = "what has come is kept"


class Transfer:
    """A file on its way.

    Beside the part file a JSON file keeps which version the bytes are of. The caller sees to it that no other
    process works on the same file, verifies the content and renames it.

    Args:
        url: http or https.
        path: The file to be; `.NAME.part` is written beside it.
        size: In bytes, if known.
        checked: Whether the caller has a checksum to compare the content with.
        timeout: Seconds without a byte after which a connection is given up.
        bar: A tqdm bar of bytes.

    Attributes:
        part: The part file.
        hint: What to add to the message if the content turns out to be wrong.
    """

    def __init__(self, url: str, path: Path, *, size: int | None, checked: bool, timeout: float, bar) -> None:
        self.url, self.path, self.size, self.checked, self.timeout, self.bar = url, path, size, checked, timeout, bar
        self.part = path.with_name(f".{path.name}.part")
        self.hint = ""
        self._state = path.with_name(f".{path.name}.part.json")

    def receive(self, attempts: int, pause: float) -> None:
        """Fetch until the part file is complete and on the disk.

        Args:
            attempts: Requests in a row that may bring nothing new.
            pause: Seconds before the second attempt; doubled each time, up to a minute.

        Raises:
            DataError: the server refuses, announces or sends another file than is asked for, or cannot be reached.
            StorageError: the part file cannot be written.
        """
        failures, most = 0, self._kept()[0]
        while True:
            try:
                return self._attempt()
            except RetryError as error:
                # Only a new record counts: a server that cuts each answer at the same place must come to an end.
                size = self._written()
                failures, most = 0 if size > most else failures + 1, max(size, most)
                if failures >= attempts:
                    raise self._gave_up(error) from error
                wait = min(max(pause * 2 ** max(failures - 1, 0), error.wait), _LONGEST_PAUSE)
                self.bar.set_postfix_str(f"waiting {wait:.0f} s, {error.reason}")
            time.sleep(wait)
            self.bar.set_postfix_str("")

    def discard(self) -> None:
        """Delete the part file and what is known of it."""
        with files.storing(self.part, hint=_KEPT):
            self.part.unlink(missing_ok=True)
            self._state.unlink(missing_ok=True)

    # --- One request ---------------------------------------------------------------------------------

    def _attempt(self) -> None:
        offset, validator, total = self._kept()
        if offset and offset == total:  # stopped between the last byte and the check
            return
        headers = {"Accept-Encoding": "identity"}  # compressed on the way, a part could not be continued
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
        with web.open_url(self.url, headers, timeout=self.timeout, checked=self.checked) as response:
            status = response.status_code
            if status == 416 and offset:
                if response.headers.get("Content-Range") == f"bytes */{offset}":
                    return
                self.discard()
                raise RetryError("the server could not go on")
            if status in (408, 429) or status >= 500:
                raise RetryError(f"the server answers {status} {response.reason}", web.asked_wait(response))
            if status == 206:
                total = self._range_total(response, offset, validator, total)
            elif status == 200:
                offset, total = 0, web.length(response)
            else:
                raise DataError(
                    f"the server answers {status} {response.reason}.",
                    path=self.url,
                    remedy="Check the address, and whether it asks for a login or a licence.",
                )
            self._check(response, total)
            self._write(response, offset, self.size if total is None else total)

    def _range_total(self, response: Response, offset: int, validator: str, total: int | None) -> int:
        """Length of the whole file, of an answer that goes on where the part file ends."""
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        # Some servers do not know If-Range.
        version = response.headers.get("ETag" if validator.startswith('"') else "Last-Modified", validator)
        if not place or int(place[1]) != offset or total not in (None, int(place[2])) or version != validator:
            self.discard()
            raise RetryError("the server goes on with something else")
        return int(place[2])

    def _check(self, response: Response, total: int | None) -> None:
        if self.size is not None and total not in (None, self.size):
            raise web.refusal(self.url, f"the server announces {total} bytes, not {self.size}")
        page = response.headers.get("Content-Type", "").lower().startswith("text/html")
        page = page and self.path.suffix.lower() not in (".html", ".htm")
        self.hint = "; it is a web page" if page else ""
        if not self.checked:
            if page:
                raise web.refusal(self.url, "the server sends a web page in place of the file")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise web.refusal(self.url, "the server sends the file only in a compressed form")
            if total is None and self.size is None and not web.is_chunked(response):
                raise web.refusal(self.url, "the server does not say where the file ends")
        if total is not None:
            with files.storing(self.part, hint=_KEPT):
                free, needed = shutil.disk_usage(self.part.parent).free, total - self._written()
            if free < needed:
                raise StorageError(
                    f"{needed} bytes are needed, {free} are free.",
                    path=self.path,
                    remedy="Free some space and start again.",
                )

    def _write(self, response: Response, offset: int, total: int | None) -> None:
        self.bar.reset(total)
        self.bar.initial = self.bar.n = self.bar.last_print_n = offset
        with files.storing(self.part, hint=_KEPT):
            descriptor = os.open(self.part, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                if not offset:
                    # In this order: a kill in between must not leave old bytes said to be of the new version.
                    os.ftruncate(descriptor, 0)
                    state = {"url": self.url, "validator": web.validator(response), "total": total}
                    files.replace(self._state, json.dumps(state))
                os.lseek(descriptor, offset, os.SEEK_SET)
                while data := web.read(response):
                    files.write_all(descriptor, data)
                    offset += len(data)
                    self.bar.update(len(data))
                    if total is not None and offset > total:
                        break
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if total is not None and offset > total:
            self.discard()
            raise web.refusal(self.url, f"the server sends more than {total} bytes")
        if total is not None and offset < total:
            raise RetryError("the connection ended early")

    # --- What is kept, errors ------------------------------------------------------------------------

    def _written(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _kept(self) -> tuple[int, str, int | None]:
        """Bytes to go on from, what tells the server their version, the length of the whole; or 0, "", None."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            url, validator, total = state["url"], state["validator"], state["total"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0, "", None
        offset = self._written()
        other = url != self.url or (self.size is not None and total not in (None, self.size))
        if other or not validator or (total is not None and offset > total):
            return 0, "", None
        return offset, validator, total

    def _gave_up(self, error: RetryError) -> DataError:
        kept, _, total = self._kept()
        told = f"{kept} of {total or 'unknown'} bytes are kept" if kept else "nothing is kept"
        return DataError(
            f"could not be downloaded ({error.reason}); {told}.",
            path=self.url,
            remedy=f"Start again later{': it goes on from there' if kept else ''}.",
        )


# --- HTTP as a download needs it: which redirects are followed, which failures may pass, what an answer says ---


_REDIRECTS, _PIECE = 5, 1 << 18


class RetryError(Exception):
    """A request failed for a reason that may pass.

    Args:
        reason: Why, for the reader.
        wait: Seconds the server asks for.
    """

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.reason, self.wait = reason, wait


@contextmanager
def open_url(url: str, headers: dict[str, str], *, timeout: float, checked: bool) -> Iterator[Response]:
    """Ask for a URL and follow at most five redirects, never from https to http.

    Args:
        url: https or http.
        headers: Of the request.
        timeout: Seconds without a byte after which the connection is given up.
        checked: Whether a checksum of the content is known; else http is for this machine only.

    Yields:
        The answer, of whatever status, its body not yet read.

    Raises:
        DataError: a redirect is refused, or there is no such server.
        RetryError: no connection for now.
    """
    with requests.Session() as session:
        # requests would follow a redirect from https to http, so each is followed here.
        response = _ask(session, url, headers, timeout, checked)
        for _ in range(_REDIRECTS):
            if not response.is_redirect:
                break
            response.close()
            target = urljoin(response.url, session.get_redirect_target(response))
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
                raise refusal(url, f"it leads away from https, to {target}")
            url = target
            response = _ask(session, url, headers, timeout, checked)
        if response.is_redirect:
            raise refusal(url, f"it comes after {_REDIRECTS} redirects and is another one")
        try:
            yield response
        finally:
            response.close()


def _ask(session: requests.Session, url: str, headers: dict[str, str], timeout: float, checked: bool) -> Response:
    scheme = urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise refusal(url, "it is neither http nor https")
    if scheme == "http" and not checked and not _is_this_machine(url):
        raise refusal(url, "over http, what comes could not be trusted without a checksum")
    try:
        return session.get(url, headers=headers, stream=True, allow_redirects=False, timeout=timeout)
    except requests.exceptions.SSLError as error:
        raise refusal(url, f"its certificate is not accepted ({_innermost(error)})") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise RetryError(f"no connection: {_innermost(error)}") from error
    except requests.RequestException as error:
        raise refusal(url, str(error)) from error


def _innermost(error: BaseException) -> str:
    """What the system said, without the layers of libraries around it."""
    while inner := getattr(error, "reason", None) or error.__cause__ or error.__context__:
        if not isinstance(inner, BaseException):
            break
        error = inner
    return getattr(error, "strerror", None) or str(error)


def read(response: Response) -> bytes:
    """The next bytes of a body as they were sent, as soon as there are some; empty at the end.

    Raises:
        RetryError: the connection broke, or nothing came in time.
    """
    try:
        # `iter_content` waits for whole pieces and loses the last one when the connection breaks.
        return response.raw.read1(_PIECE, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise RetryError(f"the connection broke: {error}") from error


def length(response: Response) -> int | None:
    """Bytes of the body, if the server says so."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() and not is_chunked(response) else None


def is_chunked(response: Response) -> bool:
    """Whether the body says itself where it ends."""
    return "chunked" in response.headers.get("Transfer-Encoding", "").lower()


def validator(response: Response) -> str:
    """What tells this version of the file from others: a strong ETag, else the time of the last change, else empty."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def asked_wait(response: Response) -> float:
    """Seconds after which the server wants to be asked again; 0 if it does not say."""
    try:
        return urllib3.util.Retry().get_retry_after(response.raw) or 0
    except urllib3.exceptions.HTTPError:
        return 0


def refusal(url: str, why: str) -> DataError:
    """The error for a URL that another request would not help."""
    return DataError(f"not downloaded: {why}.", path=url, remedy="Check the address; a browser shows what is there.")


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
