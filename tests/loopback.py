"""A server on this machine that gives scripted answers, for the tests of downloads."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Loopback:
    """Gives its answers in turn, the last one again and again.

    Attributes:
        url: Of the server, without a slash at the end.
        answers: What is still to be answered.
        asked: Of each request so far, the bytes it asked for and of which version: ("bytes=5-", '"1"').
        paths: Of each request, its path.
    """

    def __init__(self, url: str) -> None:
        self.url, self.answers, self.asked, self.paths = url, [], [], []

    def script(self, *answers: Answer) -> None:
        """Forget the past and give these answers from now on."""
        self.answers, self.asked, self.paths = list(answers), [], []


@contextmanager
def serve() -> Iterator[Loopback]:
    """Run a server in a thread."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_GET(self):
            loopback.paths.append(self.path)
            loopback.asked.append((self.headers["Range"], self.headers["If-Range"]))
            self.close_connection = True
            answer = loopback.answers.pop(0) if len(loopback.answers) > 1 else loopback.answers[0]
            with suppress(ConnectionError):  # the client may be gone
                answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    loopback = Loopback(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield loopback
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Just this; headers with _ for -."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        _start(handler, code, {"Content-Length": str(len(body))} | headers)
        handler.wfile.write(body)

    return answer


def file(
    content: bytes,
    *,
    etag: str = '"1"',
    ranges: bool = True,
    sent: int | None = None,
    framing: str = "length",
    after: Callable[[BaseHTTPRequestHandler], None] | None = None,
    piece: int | None = None,
    if_range: bool = True,
    shift: int = 0,
    **headers: str,
) -> Answer:
    """A file, as a good server sends it unless told otherwise.

    Args:
        content: The whole file.
        etag: Of this version; none if empty.
        ranges: Whether a part may be asked for.
        sent: Bytes of the body after which the connection ends.
        framing: How the client learns of the end: "length", "chunked" or "close".
        after: Called after each piece (without pieces, after the body) while the connection stands.
        piece: Bytes written at once.
        if_range: Whether another version's part is refused.
        shift: By how much a part begins too late, or, below zero, too early.
        **headers: Further ones, with _ for -.
    """

    def answer(handler: BaseHTTPRequestHandler) -> None:
        told, body, code = dict(headers), content, 200
        if etag:
            told["ETag"] = etag
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
        if asked and ranges and (not if_range or handler.headers["If-Range"] == etag):
            start, whole = int(asked[1]) + shift, len(content)
            if start >= len(content):
                return status(416, Content_Range=f"bytes */{whole}")(handler)
            code, body = 206, content[start:]
            told["Content-Range"] = f"bytes {start}-{len(content) - 1}/{whole}"
        if framing == "length":
            told["Content-Length"] = str(len(body))
        elif framing == "chunked":
            told["Transfer-Encoding"] = "chunked"
        _start(handler, code, told)
        body = body if sent is None else body[:sent]
        piece_size = piece or max(len(body), 1)
        for data in [body[i : i + piece_size] for i in range(0, len(body), piece_size)] or [b""]:
            if data:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if framing == "chunked" else data)
            if after:
                after(handler)
        if framing == "chunked" and sent is None:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def hold(handler: BaseHTTPRequestHandler) -> None:
    """Say no more until the client goes away."""
    handler.connection.recv(1)


def _start(handler: BaseHTTPRequestHandler, code: int, headers: dict[str, str]) -> None:
    handler.send_response(code)
    for name, value in ({"Connection": "close"} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
