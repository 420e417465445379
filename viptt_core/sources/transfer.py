"""The bytes behind a URL, fetched into a part file that later requests and later calls go on with."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

from requests import Response

from viptt_core import files
from viptt_core.errors import DataError, StorageError
from viptt_core.sources import web
from viptt_core.sources.web import RetryError

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
