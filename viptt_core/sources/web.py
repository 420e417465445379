"""HTTP as a download needs it: which redirects are followed, which failures may pass, what an answer says."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests import Response

from viptt_core.errors import DataError

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
