"""Downloads: what is visible is whole and verified, and what was cut short goes on where it stopped."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import loopback
import pytest
import requests
from filelock import FileLock
from loopback import file, hold, status

from viptt_core import files
from viptt_core.errors import DataError, SettingError, StorageError
from viptt_core.sources import download as transfer
from viptt_core.sources.download import download, file_digest, verify

CONTENT = bytes(range(256)) * 40
OTHER = CONTENT[::-1]
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
WHOLE = (None, None)  # a request for all of it


@pytest.fixture
def server(monkeypatch):
    """One for each test: a request that an earlier one gave up could still be logged."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with loopback.serve() as server:
        yield server


@pytest.fixture
def waits(monkeypatch):
    """Seconds the code meant to wait; it does not."""
    waits = []
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=waits.append))
    return waits


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "data.bin"


@pytest.fixture
def fetch(server, path, waits):
    """Download from the server with a short patience."""

    def fetch(url="", **settings):
        settings = {"progress": False, "timeout": 5, "attempts": 3, "pause": 0} | settings
        return download(url or f"{server.url}/file", path, **settings)

    return fetch


def names(path):
    """Names of the files in the folder, without the lock's."""
    return sorted(entry.name for entry in path.parent.iterdir() if not entry.name.endswith(".lock"))


# --- Whole files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "checksum",
    [SHA256, SHA256[:15], SHA256.upper(), f"md5:{hashlib.md5(CONTENT).hexdigest()}"],
    ids=["whole", "first digits", "capitals", "md5"],
)
def test_file_arrives_and_is_not_asked_for_again(server, fetch, path, checksum):
    server.script(file(CONTENT))
    assert fetch(checksum=checksum, size=len(CONTENT)) == path
    fetch(checksum=checksum, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert names(path) == ["data.bin"]
    assert server.asked == [WHOLE]


@pytest.mark.parametrize(
    "framing, settings", [("chunked", {}), ("close", {"size": len(CONTENT)}), ("close", {"checksum": SHA256})]
)
def test_length_need_not_be_announced(server, fetch, path, framing, settings):
    server.script(file(CONTENT, framing=framing))
    assert fetch(**settings).read_bytes() == CONTENT


def test_end_that_nothing_tells_is_refused(server, fetch, path):
    server.script(file(CONTENT, framing="close"))
    with pytest.raises(DataError, match="does not say where the file ends"):
        fetch()
    assert names(path) == []


def test_empty_file_arrives(server, fetch):
    server.script(file(b""))
    assert fetch(size=0).read_bytes() == b""


def test_bytes_are_kept_as_they_come(server, fetch, path, monkeypatch):
    """The server waits with each piece until the one before is on the disk."""
    written, write = threading.Semaphore(0), files.write_all

    def writing(descriptor, data, offset=None):
        write(descriptor, data, offset)
        if bytes(data[:1]) != b"{":  # not the file beside it
            written.release()

    monkeypatch.setattr(files, "write_all", writing)
    server.script(file(CONTENT[:50], piece=10, after=lambda _: written.acquire(timeout=4) or pytest.fail("kept back")))
    assert fetch(timeout=3, attempts=1).read_bytes() == CONTENT[:50]
    assert server.asked == [WHOLE]


def test_bar_begins_at_what_is_kept(server, fetch, capsys):
    server.script(file(CONTENT, sent=8192), file(CONTENT))
    fetch(checksum=SHA256, progress=True)
    shown = capsys.readouterr().err
    assert "data.bin" in shown and "80%" in shown and "100%" in shown


# --- Going on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing, settings", [("length", {}), ("chunked", {}), ("close", {"size": len(CONTENT)})])
def test_cut_body_goes_on_where_it_stopped(server, fetch, path, waits, framing, settings):
    server.script(file(CONTENT, sent=1000, framing=framing), file(CONTENT, sent=500), file(CONTENT))
    assert fetch(pause=1, **settings).read_bytes() == CONTENT
    assert server.asked == [WHOLE, ("bytes=1000-", '"1"'), ("bytes=1500-", '"1"')]
    assert waits == [1, 1]
    assert names(path) == ["data.bin", "data.bin.sha256"]


def test_time_of_last_change_serves_where_there_is_no_etag(server, fetch):
    changed = "Wed, 01 Jan 2020 00:00:00 GMT"
    server.script(
        file(CONTENT, etag="", sent=1000, Last_Modified=changed),
        status(
            206, CONTENT[1000:], Content_Range=f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}", Last_Modified=changed
        ),
    )
    assert fetch().read_bytes() == CONTENT
    assert server.asked == [WHOLE, ("bytes=1000-", changed)]


@pytest.mark.parametrize(
    "cut, then",
    [
        ({}, {"ranges": False}),  # no parts: all of it comes in answer to a request for one
        ({"etag": ""}, {"etag": ""}),  # nothing tells one version from the next
        ({"etag": 'W/"1"'}, {"etag": 'W/"1"'}),  # only "about the same"
    ],
)
def test_body_that_cannot_go_on_starts_again(server, fetch, path, cut, then):
    server.script(file(CONTENT, sent=1000, **cut), file(CONTENT, **then))
    assert fetch().read_bytes() == CONTENT
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "wrong, requests_made",
    [
        ({"etag": '"2"'}, 2),  # answered with all of the new version
        ({"etag": '"2"', "if_range": False}, 3),  # with a part of it
        ({"etag": '"1"', "total": len(CONTENT) + 1}, 3),  # grown, and the server did not notice
        ({"etag": '"1"', "shift": -7}, 3),  # not the part asked for
    ],
)
def test_two_versions_are_never_mixed(server, fetch, path, wrong, requests_made):
    server.script(file(OTHER, sent=1000), file(CONTENT, **wrong), file(CONTENT, etag='"2"'))
    assert fetch().read_bytes() == CONTENT
    assert len(server.asked) == requests_made


def test_part_of_a_later_call_goes_on(server, fetch, path):
    server.script(file(CONTENT, sent=1000), file(CONTENT, sent=0))
    with pytest.raises(DataError, match=r"1000 of 10240 bytes are kept.* goes on from there"):
        fetch(attempts=2)
    assert names(path) == [".data.bin.part", ".data.bin.part.json"]
    server.script(file(CONTENT))
    assert fetch().read_bytes() == CONTENT
    assert server.asked == [("bytes=1000-", '"1"')]


def test_part_of_another_address_or_size_is_not_taken_up(server, fetch, path):
    for settings in {"url": f"{server.url}/other"}, {"size": len(CONTENT)}:
        server.script(file(OTHER[:5000], sent=1000), file(OTHER[:5000], sent=0))
        with pytest.raises(DataError, match="1000 of 5000 bytes are kept"):
            fetch(attempts=1)
        server.script(file(CONTENT))
        assert fetch(**settings).read_bytes() == CONTENT
        assert server.asked == [WHOLE]
        path.unlink()
        (path.parent / "data.bin.sha256").unlink()


def test_complete_part_is_not_asked_for_again(server, fetch, path, monkeypatch):
    server.script(file(CONTENT))
    with monkeypatch.context() as patch:
        patch.setattr("viptt_core.sources.download.file_digest", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    assert names(path) == [".data.bin.part", ".data.bin.part.json"]
    assert fetch().read_bytes() == CONTENT
    assert server.asked == [WHOLE]


def test_complete_part_of_unknown_length_is_found_complete(server, fetch, path, monkeypatch):
    server.script(file(CONTENT, framing="chunked"), file(CONTENT))
    with monkeypatch.context() as patch:
        patch.setattr("viptt_core.sources.download.file_digest", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    assert fetch().read_bytes() == CONTENT
    assert server.asked == [WHOLE, (f"bytes={len(CONTENT)}-", '"1"')]


def test_part_beyond_the_end_starts_again(server, fetch):
    server.script(file(CONTENT, sent=1000, framing="chunked"), status(416, Content_Range="bytes */500"), file(CONTENT))
    assert fetch().read_bytes() == CONTENT
    assert server.asked == [WHOLE, ("bytes=1000-", '"1"'), WHOLE]


def test_interrupt_leaves_the_part(server, fetch, path, monkeypatch):
    server.script(file(CONTENT, sent=1000), file(CONTENT))
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "time", SimpleNamespace(sleep=_interrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch()
    assert (path.parent / ".data.bin.part").stat().st_size == 1000
    assert fetch().read_bytes() == CONTENT
    assert server.asked[1] == ("bytes=1000-", '"1"')


def test_kill_between_two_versions_does_not_mix_them(server, fetch, path, monkeypatch):
    def replacing(state, text, replace=files.replace):
        replace(state, text)
        raise KeyboardInterrupt

    server.script(file(OTHER, sent=1000), file(OTHER, sent=0))
    with pytest.raises(DataError, match="1000 of 10240 bytes are kept"):
        fetch(attempts=1)
    server.script(file(CONTENT, etag='"2"'))
    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", replacing)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    assert fetch().read_bytes() == CONTENT


CHILD = """
import sys
from pathlib import Path
from viptt_core import files
from viptt_core.sources.download import download

def writing(descriptor, data, offset=None, write=files.write_all):
    write(descriptor, data, offset)
    print(bytes(data[:1]) == b"{", len(data), flush=True)

files.write_all = writing
download(sys.argv[1], Path(sys.argv[2]), progress=False)
"""


def test_kill_leaves_a_part_that_goes_on(server, fetch, path):
    server.script(file(CONTENT, sent=1000, after=hold), file(CONTENT))
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, f"{server.url}/file", path], stdout=subprocess.PIPE, text=True
    ) as child:
        written = 0
        while written < 1000:
            is_state, size = child.stdout.readline().split()
            written += int(size) if is_state == "False" else 0
        child.kill()
    assert names(path) == [".data.bin.part", ".data.bin.part.json"]
    assert fetch().read_bytes() == CONTENT
    assert server.asked == [WHOLE, ("bytes=1000-", '"1"')]


def test_second_caller_waits_and_finds_the_file(server, fetch, path, monkeypatch):
    arrived, waiting, acquire = threading.Event(), threading.Event(), FileLock.acquire

    def acquiring(lock, *arguments, **settings):
        if arrived.is_set():
            waiting.set()
        return acquire(lock, *arguments, **settings)

    def meet(_):
        arrived.set()
        waiting.wait(5)

    monkeypatch.setattr(FileLock, "acquire", acquiring)
    server.script(file(CONTENT, piece=len(CONTENT) // 2, after=meet))
    results = []
    threads = [threading.Thread(target=lambda: results.append(fetch().read_bytes())) for _ in range(2)]
    threads[0].start()
    assert arrived.wait(5)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert waiting.is_set() and results == [CONTENT] * 2
    assert server.asked == [WHOLE]


def _interrupt(*_):
    raise KeyboardInterrupt


# --- What servers do wrong -----------------------------------------------------------------------------


def test_silent_server_is_given_up_and_asked_again(server, fetch, waits):
    server.script(file(CONTENT, sent=1000, after=hold), file(CONTENT))
    assert fetch(timeout=2).read_bytes() == CONTENT
    assert server.asked[:2] == [WHOLE, ("bytes=1000-", '"1"')]


@pytest.mark.parametrize("answer", [hold, file(CONTENT, sent=0, after=hold)], ids=["no answer", "no body"])
def test_server_that_stays_silent_is_said_so(server, fetch, path, answer):
    server.script(answer)
    with pytest.raises(DataError, match="timed out"):
        fetch(timeout=0.1, attempts=1)
    assert not path.exists()


def test_failure_that_may_pass_is_tried_again(server, fetch, waits):
    late = status(429, Retry_After="7")
    very_late = status(503, Retry_After="4000")
    server.script(status(500), late, very_late, status(502), file(CONTENT))
    assert fetch(attempts=5, pause=1).read_bytes() == CONTENT
    assert server.asked == [WHOLE] * 5
    assert waits == [1, 7, 60, 8]


@pytest.mark.parametrize("answer", [status(500), file(CONTENT, etag="", sent=1000), file(CONTENT, sent=0)])
def test_failure_that_does_not_pass_ends(server, fetch, path, answer):
    server.script(answer)
    with pytest.raises(DataError, match="127.0.0.1.*could not be downloaded.*nothing is kept.*Start again later"):
        fetch()
    assert len(server.asked) <= 4
    assert not path.exists()


def test_no_server_is_said_so(fetch, waits, path):
    with pytest.raises(DataError, match="127.0.0.1.*no connection"):
        fetch("http://127.0.0.1:9/file", attempts=3, pause=1)
    assert waits == [1, 2]
    assert not path.exists()


@pytest.mark.parametrize("code", [401, 403, 404, 410, 204, 304, 416])
def test_refusal_is_final(server, fetch, path, code):
    server.script(status(code))
    with pytest.raises(DataError, match=rf"{server.url}/file: .*{code}"):
        fetch()
    assert server.asked == [WHOLE]
    assert names(path) == []


def test_wrong_length_is_refused_before_the_body(server, fetch, path):
    server.script(file(CONTENT, after=hold))
    with pytest.raises(DataError, match="announces 10240 bytes, not 10239"):
        fetch(size=len(CONTENT) - 1)
    assert server.asked == [WHOLE]
    assert names(path) == []


def test_body_without_end_is_left(server, fetch, path):
    server.script(file(CONTENT, framing="chunked", after=hold))
    with pytest.raises(DataError, match="more than 100 bytes"):
        fetch(size=100)
    assert names(path) == []


def test_wrong_content_is_deleted(server, fetch, path):
    server.script(file(OTHER))
    with pytest.raises(DataError) as caught:
        fetch(checksum=SHA256)
    assert SHA256[7:] in str(caught.value) and hashlib.sha256(OTHER).hexdigest() in str(caught.value)
    assert server.asked == [WHOLE]
    assert names(path) == []


def test_web_page_is_not_taken_for_the_file(server, fetch, path):
    server.script(file(b"<html>Log in", Content_Type="text/html; charset=utf-8"))
    with pytest.raises(DataError, match="web page"):
        fetch()
    with pytest.raises(DataError, match="web page"):
        fetch(checksum=SHA256)
    assert names(path) == []
    download(f"{server.url}/file", path.with_suffix(".html"), progress=False)


def test_compressed_file_is_refused_without_a_checksum(server, fetch, path):
    server.script(file(CONTENT, Content_Encoding="gzip"))
    with pytest.raises(DataError, match="compressed"):
        fetch()
    assert fetch(checksum=SHA256).read_bytes() == CONTENT  # as sent: some servers so label .gz files


# --- Redirects and schemes -----------------------------------------------------------------------------


def redirect(url):
    return status(302, Location=url)


def test_redirects_are_followed(server, fetch, path):
    server.script(*[redirect("/next?name=x.exe")] * 5, file(CONTENT, Content_Disposition="attachment; filename=x.exe"))
    assert fetch() == path
    assert server.paths == ["/file", *["/next?name=x.exe"] * 5]


@pytest.mark.parametrize(
    "target, match",
    [
        ("/file", "5 redirects"),
        ("file:///etc/passwd", "neither http nor https"),
        ("ftp://127.0.0.1/file", "neither"),
        ("http://files.test/file", "without a checksum"),
    ],
)
def test_redirects_elsewhere_are_refused(server, fetch, path, target, match):
    server.script(redirect(target))
    with pytest.raises(DataError, match=match):
        fetch()
    assert len(server.asked) == (6 if target == "/file" else 1)
    assert names(path) == []


@pytest.mark.parametrize("settings", [{}, {"checksum": SHA256}])
def test_redirect_away_from_https_is_refused(server, fetch, path, monkeypatch, settings):
    get = requests.Session.get
    monkeypatch.setattr(
        requests.Session,
        "get",
        lambda session, url, **rest: get(session, url.replace("https://safe.test", server.url), **rest),
    )
    server.script(redirect(f"{server.url}/next"), file(CONTENT))
    with pytest.raises(DataError, match="away from https"):
        fetch("https://safe.test/file", **settings)
    assert server.paths == ["/file"]
    assert names(path) == []


def test_certificate_that_is_not_accepted_is_final(fetch, waits, path, monkeypatch):
    def get(*_, **__):
        raise requests.exceptions.SSLError("self-signed")

    monkeypatch.setattr(requests.Session, "get", get)
    with pytest.raises(DataError, match="certificate"):
        fetch("https://files.test/file")
    assert waits == []


def test_address_and_checksum_are_looked_at_before_the_network(fetch, path, monkeypatch):
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: pytest.fail("went to the network"))
    for url in "file:///etc/passwd", "ftp://files.test/x", "data.bin":
        with pytest.raises(SettingError, match="only http and https"):
            fetch(url, checksum=SHA256)
    with pytest.raises(DataError, match="without a checksum"):
        fetch("http://files.test/file")
    for checksum in "sha256:1234567", "sha1:0123456789", "0123456789", "md5:" + "0" * 33, "sha256:0123456g":
        with pytest.raises(SettingError, match="no checksum"):
            fetch(checksum=checksum)
    assert not path.exists()


# --- Files that are there, recorded checksums ----------------------------------------------------------


def test_first_download_is_recorded_and_holds(server, fetch, path):
    server.script(file(CONTENT))
    record = path.with_name("data.bin.sha256")
    fetch()
    assert record.read_text() == f"{SHA256[7:]}  data.bin\n"
    if tool := shutil.which("sha256sum"):
        subprocess.run([tool, "--check", "--status", record.name], cwd=path.parent, check=True)
    path.unlink()
    server.script(file(OTHER))
    with pytest.raises(DataError, match=r"first download.*delete .*data.bin.sha256"):
        fetch()
    assert names(path) == ["data.bin.sha256"]
    record.unlink()
    assert fetch().read_bytes() == OTHER


@pytest.mark.parametrize(
    "settings, match",
    [
        ({}, "has changed since it was downloaded"),
        ({"checksum": SHA256}, "is damaged"),
        ({"size": len(CONTENT)}, "has 10239 bytes, not 10240"),
    ],
)
def test_file_that_was_damaged_is_said_and_left(server, fetch, path, settings, match):
    server.script(file(CONTENT))
    fetch()
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=rf"data\.bin: {match}.*Delete it"):
        fetch(**settings)
    assert path.read_bytes() == CONTENT[:-1]
    assert len(server.asked) == 1


def test_file_put_there_by_hand_is_recorded(server, fetch, path):
    server.script(file(OTHER))
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    fetch()
    assert path.with_name("data.bin.sha256").read_text().startswith(SHA256[7:])
    assert server.asked == []


def test_damaged_record_is_said(server, fetch, path):
    server.script(file(CONTENT))
    fetch()
    path.with_name("data.bin.sha256").write_text("")
    with pytest.raises(DataError, match=r"data\.bin\.sha256: holds no SHA-256"):
        fetch()


def test_verify(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    verify(tmp_path / "file", SHA256)
    assert file_digest(tmp_path / "file", "md5") == hashlib.md5(CONTENT).hexdigest()
    with pytest.raises(DataError, match="file: is damaged: its checksum differs"):
        verify(tmp_path / "file", "sha256:00000000")
    with pytest.raises(DataError, match="gone: cannot be read"):
        verify(tmp_path / "gone", SHA256)


# --- The disk ------------------------------------------------------------------------------------------


def test_disk_without_room_is_known_before(server, fetch, path, monkeypatch):
    server.script(file(CONTENT, after=hold))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(CONTENT) - 1))
    with pytest.raises(StorageError, match="10240 bytes are needed, 10239 are free"):
        fetch()
    assert names(path) == []


def test_full_disk_keeps_what_has_come(server, fetch, path, monkeypatch):
    write = files.write_all

    def writing(descriptor, data, offset=None):
        if bytes(data[:1]) == b"{":
            return write(descriptor, data, offset)
        write(descriptor, data[:100], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.script(file(CONTENT))
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", writing)
        with pytest.raises(StorageError, match="No space left.*is kept"):
            fetch()
    assert names(path) == [".data.bin.part", ".data.bin.part.json"]
    assert fetch().read_bytes() == CONTENT
    assert server.asked == [WHOLE, ("bytes=100-", '"1"')]


def test_folder_that_cannot_be_made_is_said(fetch, path):
    path.parent.write_bytes(b"a file in its place")
    with pytest.raises(StorageError, match="cannot be written"):
        fetch()
