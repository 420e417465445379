"""Downloads: what is visible is whole and verified, and what was cut short goes on where it stopped."""

import hashlib
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import loopback
import pytest
import requests
from filelock import FileLock
from loopback import file, hold, status

from viptt_core.errors import DataError, StorageError
from viptt_core.sources import fetch as room
from viptt_core.sources.fetch import download
from viptt_core.sources.registry import RemoteFile

CONTENT = bytes(range(256)) * 40
OTHER = CONTENT[::-1]
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
WHOLE = (None, None)  # a request for all of it


def rest(start: int, version: str = '"1"') -> tuple[str, str]:
    """A request for what is missing, if the server still has this version."""
    return f"bytes={start}-", version


@pytest.fixture
def server(monkeypatch):
    """One for each test: a request that an earlier one gave up could still be logged."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with loopback.serve() as server:
        yield server


@pytest.fixture
def waits(monkeypatch):
    """Seconds the code meant to wait; it does not. Its patience is short."""
    waits = []
    monkeypatch.setattr(room, "time", SimpleNamespace(sleep=waits.append))
    monkeypatch.setattr(room, "TIMEOUT", 5)
    monkeypatch.setattr(room, "ATTEMPTS", 3)
    return waits


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "data.bin"


@pytest.fixture
def get(server, path, waits):
    """Download from the server."""

    def get(checksum="", *, url="", progress=False):
        return download(RemoteFile(url or f"{server.url}/data.bin", checksum=checksum), path.parent, progress=progress)

    return get


def names(path):
    """Names of the files in the folder, without the lock's, and the version of a part."""
    found = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.endswith(".lock"))
    return [".data.bin.part" if name.endswith(".part") else name for name in found]


# --- Whole files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [SHA256, MD5])
def test_file_arrives_and_is_not_asked_for_again(server, get, path, checksum):
    server.script(file(CONTENT))
    assert get(checksum) == path
    get(checksum)
    assert path.read_bytes() == CONTENT
    assert names(path) == ["data.bin"]
    assert server.asked == [WHOLE]


@pytest.mark.parametrize("framing, checksum", [("chunked", ""), ("close", SHA256)])
def test_length_need_not_be_announced(server, get, framing, checksum):
    server.script(file(CONTENT, framing=framing))
    assert get(checksum).read_bytes() == CONTENT


# --- Going on ------------------------------------------------------------------------------------------


def test_cut_body_goes_on_where_it_stopped(server, get, path, waits):
    whole = file(CONTENT)
    server.script(file(CONTENT, sent=1000), whole, file(CONTENT, sent=500), whole)
    assert get().read_bytes() == CONTENT
    assert server.asked == [WHOLE, WHOLE, rest(1000), WHOLE, rest(1500)]
    assert waits == [room.PAUSE, room.PAUSE]
    assert names(path) == ["data.bin", "data.bin.sha256"]


@pytest.mark.parametrize(
    "cut, then",
    [
        ({}, {"ranges": False}),  # no parts: all of it comes in answer to a request for one
        ({"etag": ""}, {"etag": ""}),  # nothing tells one version from the next
        ({"etag": 'W/"1"'}, {"etag": 'W/"1"'}),  # only "about the same"
        ({"framing": "chunked"}, {"framing": "chunked"}),  # nothing tells where it ends
    ],
)
def test_body_that_cannot_go_on_starts_again(server, get, cut, then):
    server.script(file(CONTENT, sent=1000, **cut), file(CONTENT, **then))
    assert get().read_bytes() == CONTENT
    assert cut == {} or set(server.asked) == {WHOLE}


@pytest.mark.parametrize(
    "wrong",
    [
        {"etag": '"2"'},  # the file has changed
        {"etag": '"2"', "if_range": False},  # and the server does not look at the version asked for
        {"shift": -7},  # not the part asked for
        {"shift": 10**6},  # as if it were shorter
    ],
)
def test_two_versions_are_never_mixed(server, get, wrong):
    content = CONTENT if "etag" in wrong else OTHER
    server.script(file(OTHER, sent=1000), file(content, **wrong), file(content, **wrong), file(content))
    assert get().read_bytes() == content


@pytest.mark.parametrize("changed", ["address", "length", "version"])
def test_part_of_another_file_is_not_taken_up(server, get, path, changed):
    server.script(file(OTHER, sent=1000), status(404))
    with pytest.raises(DataError, match="404"):
        get()
    assert names(path) == [".data.bin.part"]
    content = CONTENT[:-1] if changed == "length" else CONTENT
    server.script(file(content, etag='"2"' if changed == "version" else '"1"'))
    url = f"{server.url}/other/data.bin" if changed == "address" else ""
    assert get(url=url).read_bytes() == content
    assert server.asked == [WHOLE] and names(path) == ["data.bin", "data.bin.sha256"]


def test_part_of_a_later_call_goes_on_also_after_a_failure_on_the_way(server, get, path):
    server.script(file(CONTENT, sent=1000), status(500))
    with pytest.raises(DataError, match=r"1000 bytes are kept.*goes on from there"):
        get()
    assert names(path) == [".data.bin.part"]
    server.script(status(503), file(CONTENT))
    assert get().read_bytes() == CONTENT
    assert server.asked[-1] == rest(1000)


def _interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("where, call", [(room.files, "file_digest"), (room.os, "replace")])
def test_complete_part_is_not_fetched_again(server, get, path, monkeypatch, where, call):
    server.script(file(CONTENT))
    with monkeypatch.context() as patch:
        patch.setattr(where, call, _interrupt)
        with pytest.raises(KeyboardInterrupt):
            get()
    assert get().read_bytes() == CONTENT and names(path) == ["data.bin", "data.bin.sha256"]
    assert all(asked == WHOLE for asked in server.asked)


CHILD = """
import sys
from pathlib import Path
from viptt_core.sources.fetch import download
from viptt_core.sources.registry import RemoteFile

print("ready", flush=True)
download(RemoteFile(sys.argv[1]), Path(sys.argv[2]), progress=False)
"""


def _child(server, path) -> subprocess.Popen:
    """A process that downloads, and is about to begin."""
    command = [sys.executable, "-c", CHILD, f"{server.url}/data.bin", path.parent]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def test_kill_leaves_a_part_that_goes_on(server, get, path):
    server.script(file(CONTENT, piece=1000, after=hold), file(CONTENT))
    with _child(server, path) as child:
        while not list(path.parent.glob(".*.part")):
            time.sleep(0.01)
        child.kill()
    assert names(path) == [".data.bin.part"]
    assert get().read_bytes() == CONTENT
    assert len(server.asked) in (2, 3)  # whether the first piece was on the disk


@pytest.mark.slow
def test_killed_at_twenty_moments_it_is_never_half_there_and_gets_done(server, path):
    """Each kill falls somewhere into a download; one that is done before its kill begins anew."""
    content = random.Random(0).randbytes(3_000_000)
    server.script(file(content, piece=1 << 14, after=lambda _: time.sleep(0.002)))
    kills, moments, done = 0, random.Random(1), 0
    while kills < 20:
        with _child(server, path) as child:
            time.sleep(moments.uniform(0, 0.3))
            child.kill()
        kills += child.returncode != 0
        if path.exists():
            assert path.read_bytes() == content
            done += 1
            path.unlink()
            assert names(path) == ["data.bin.sha256"]
    offsets = [int(start[6:-1]) for start, _ in server.asked if start]
    assert offsets and max(offsets) < len(content)
    with _child(server, path) as child:
        pass
    assert child.returncode == 0 and path.read_bytes() == content and names(path) == ["data.bin", "data.bin.sha256"]


def test_second_caller_waits_and_finds_the_file(server, get, path, monkeypatch):
    arrived, waiting, acquire = threading.Event(), threading.Event(), FileLock.acquire

    def acquiring(lock, *arguments, **settings):
        if arrived.is_set():
            waiting.set()
        return acquire(lock, *arguments, **settings)

    def meet(_):
        arrived.set()
        waiting.wait(60)

    monkeypatch.setattr(FileLock, "acquire", acquiring)
    server.script(file(CONTENT, piece=len(CONTENT) // 2, after=meet))
    results = []
    threads = [threading.Thread(target=lambda: results.append(get().read_bytes())) for _ in range(2)]
    threads[0].start()
    assert arrived.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert waiting.is_set() and results == [CONTENT] * 2
    assert server.asked == [WHOLE]


# --- What servers do wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [hold, file(CONTENT, sent=0, after=hold)], ids=["no answer", "no body"])
def test_server_that_stays_silent_is_said_so(server, get, path, answer, monkeypatch):
    monkeypatch.setattr(room, "TIMEOUT", 0.1)
    server.script(answer)
    with pytest.raises(DataError, match="(?i)could not be downloaded.*timed out"):
        get()
    assert not path.exists()


def test_failure_that_may_pass_is_tried_again(server, get, waits, monkeypatch):
    monkeypatch.setattr(room, "ATTEMPTS", 6)
    server.script(status(500), status(429), status(408), status(503), status(502), file(CONTENT))
    assert get().read_bytes() == CONTENT
    assert server.asked == [WHOLE] * 6
    assert waits == [4, 8, 16, 32, 60]


@pytest.mark.parametrize(
    "answer, asked", [(status(500), 3), (file(CONTENT, etag="", sent=1000), 4), (file(CONTENT, sent=0), 3)]
)
def test_failure_that_does_not_pass_ends(server, get, path, answer, asked):
    server.script(answer)
    with pytest.raises(DataError, match="127.0.0.1.*could not be downloaded.*bytes are kept.*Start again later"):
        get()
    assert len(server.asked) == asked and not path.exists()


def test_no_server_is_said_so(get, waits, path):
    with pytest.raises(DataError, match="127.0.0.1.*could not be downloaded.*refused"):
        get(url="http://127.0.0.1:9/data.bin")
    assert waits == [4, 8] and not path.exists()


@pytest.mark.parametrize("code", [401, 404, 204, 416, 206])
def test_refusal_is_final(server, get, path, code):
    server.script(status(code))
    with pytest.raises(DataError, match=rf"{server.url}/data.bin: .*{code}"):
        get()
    assert server.asked == [WHOLE] and names(path) == []


@pytest.mark.parametrize(
    "answer, words",
    [
        (file(b"<html>Log in", Content_Type="text/html; charset=utf-8"), "web page"),
        (file(CONTENT, Content_Encoding="gzip"), "compressed"),
        (file(CONTENT, framing="close"), "does not say where the file ends"),
    ],
)
def test_what_is_not_the_file_is_refused_without_a_checksum(server, get, path, answer, words):
    server.script(answer)
    with pytest.raises(DataError, match=words):
        get()
    assert names(path) == []
    if words != "web page":
        assert get(SHA256).read_bytes() == CONTENT  # as sent: some servers so label .gz files


@pytest.mark.parametrize("content, words", [(OTHER, "another file"), (b"<html>Log in", "a web page")])
def test_wrong_content_is_deleted(server, get, path, content, words):
    server.script(file(content))
    with pytest.raises(DataError) as caught:
        get(SHA256)
    for part in (words, SHA256[7:], hashlib.sha256(content).hexdigest(), str(path)):
        assert part in str(caught.value)
    assert server.asked == [WHOLE] and names(path) == []


# --- Redirects and schemes -----------------------------------------------------------------------------


def redirect(url):
    return status(302, Location=url)


def test_redirects_are_followed_and_the_name_stays(server, get, path):
    server.script(*[redirect("/next?name=x.exe")] * 5, file(CONTENT, Content_Disposition="attachment; filename=x.exe"))
    assert get(SHA256) == path
    assert server.paths == ["/data.bin", *["/next?name=x.exe"] * 5]


@pytest.mark.parametrize("target", ["/data.bin", "file:///etc/passwd", "ftp://127.0.0.1/file"])
def test_redirects_that_lead_nowhere_are_refused(server, get, path, target):
    server.script(redirect(target))
    with pytest.raises(DataError, match="not downloaded"):
        get(SHA256)
    assert names(path) == []


def test_what_is_not_https_is_for_this_machine_alone(get, path, monkeypatch):
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: pytest.fail("went to the network"))
    for url in ("http://files.test/data.bin", "ftp://files.test/data.bin"):
        with pytest.raises(DataError, match="without https"):
            get(SHA256, url=url)
    assert names(path) == []


@pytest.mark.parametrize("checksum", ["", SHA256])
def test_redirect_away_from_https_is_refused(server, get, path, monkeypatch, checksum):
    send = requests.adapters.HTTPAdapter.send

    def as_if_secure(adapter, request, **settings):
        request.url = request.url.replace("https://safe.test", server.url)
        return send(adapter, request, **settings)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", as_if_secure)
    server.script(redirect(f"{server.url}/next"), file(CONTENT))
    with pytest.raises(DataError, match="not downloaded.*http://127.0.0.1"):
        get(checksum, url="https://safe.test/data.bin")
    assert server.paths == ["/data.bin"] and names(path) == []


def test_certificate_that_is_not_accepted_is_final(get, waits, path, monkeypatch):
    def get_nothing(*_, **__):
        raise requests.exceptions.SSLError("self-signed certificate")

    monkeypatch.setattr(requests.Session, "get", get_nothing)
    with pytest.raises(DataError, match="certificate"):
        get(url="https://files.test/data.bin")
    assert waits == []


# --- Files that are there, recorded checksums ----------------------------------------------------------


def test_first_download_is_recorded_and_holds(server, get, path):
    server.script(file(CONTENT))
    record = path.with_name("data.bin.sha256")
    get()
    assert record.read_text() == f"{SHA256[7:]}  data.bin\n"
    if tool := shutil.which("sha256sum"):
        subprocess.run([tool, "--check", "--status", record.name], cwd=path.parent, check=True)
    path.unlink()
    server.script(file(OTHER))
    with pytest.raises(DataError, match=r"not what was expected.*delete .*data.bin.sha256"):
        get()
    assert names(path) == ["data.bin.sha256"]
    record.unlink()
    assert get().read_bytes() == OTHER


@pytest.mark.parametrize("checksum", ["", SHA256])
def test_file_that_was_damaged_is_said_and_left(server, get, path, checksum):
    server.script(file(CONTENT))
    get()
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"data\.bin: is not what was expected.*Delete it and start again"):
        get(checksum)
    assert path.read_bytes() == CONTENT[:-1] and len(server.asked) == 1


def test_file_put_there_by_hand_is_recorded(server, get, path):
    server.script(file(OTHER))
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    get()
    assert path.with_name("data.bin.sha256").read_text().startswith(SHA256[7:])
    assert server.asked == []


@pytest.mark.parametrize("text", ["", "nonsense", "\xff"])
def test_damaged_record_is_not_believed(server, get, path, text):
    server.script(file(CONTENT))
    get()
    path.with_name("data.bin.sha256").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"delete .*data\.bin\.sha256"):
        get()


# --- The disk ------------------------------------------------------------------------------------------


def test_disk_without_room_is_known_before(server, get, path, monkeypatch):
    server.script(file(CONTENT, after=hold))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(CONTENT) - 1))
    with pytest.raises(StorageError, match="needs 10.2 kB, free are 10.2 kB"):
        get()
    assert not path.exists()


def test_full_disk_keeps_what_has_come(server, get, path):
    server.script(file(CONTENT))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(StorageError, match="Free some space.*is kept"):
            get()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(path) == [".data.bin.part"]
    assert get().read_bytes() == CONTENT
    assert server.asked == [WHOLE, WHOLE, rest(5000)]
