"""Archives: unpacked whole and right, or refused with nothing written anywhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from rar_writer import HARD_LINK, SYMLINK, UNIX_FIFO, UNIX_LINK, Item, rar4, rar5

from viptt_core.errors import DataError, StorageError
from viptt_core.sources import unpack as room
from viptt_core.sources.unpack import unpack

RARS = {"rar4": rar4, "rar5": rar5}
FILES = {"UCF/Biking/v_Biking_g01_c01.avi": bytes(range(256)) * 9000, "UCF/read me.txt": b"hello", "none": b""}


def write(place: Path, kind: str, files) -> Path:
    """An archive of (name, data) pairs, however odd the names."""
    pairs = list(files.items()) if isinstance(files, dict) else files
    path = place / "set.rar"
    path.write_bytes(RARS[kind](*(Item(name, data) for name, data in pairs)))
    return path


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "data" / "out"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Let scripts unpack RARs: name -> a Python body that finds `archive` and `folder`."""

    def use(**bodies: str) -> None:
        for name, body in bodies.items():
            begin = "import os, sys, time\narchive, folder = sys.argv[1:]\n"
            (tmp_path / name).write_text(f"#!{sys.executable} -IS\n{begin}{body}\n")
            (tmp_path / name).chmod(0o755)
        commands = {name: f"{tmp_path / name} {{archive}} {{folder}}" for name in bodies}
        monkeypatch.setattr(room, "COMMANDS", commands)

    return use


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tree(folder: Path) -> list[str]:
    """Everything there is, but the empty locks that stay."""
    return sorted(str(path) for path in folder.rglob("*") if path.suffix != ".lock")


def refused(path: Path, out: Path, match: str, kind=DataError) -> None:
    """It is refused by name, and nothing is left of it."""
    out.parent.mkdir(exist_ok=True)
    before = tree(path.parents[1])
    with pytest.raises(kind, match=match) as error:
        unpack(path, out, progress=False)
    assert tree(path.parents[1]) == before and str(path) in str(error.value)


@pytest.mark.parametrize("kind", RARS)
def test_unpacks_byte_for_byte(place, out, stored_rars, kind):
    unpack(write(place, kind, FILES), out, progress=False)
    assert contents(out) == FILES
    assert tree(out.parent) == sorted([*tree(out), str(out)])


@pytest.mark.parametrize("program", room.COMMANDS)
@pytest.mark.parametrize("kind", RARS)
def test_programs_unpack_what_rarfile_lists(place, out, monkeypatch, kind, program):
    if not shutil.which(program):
        pytest.skip(f"{program} is not here")
    items = [
        Item("a", folder=True, mode=0o040700),
        Item("a/odd mode", b"x", mode=0o104777),
        Item("b/c/d.avi", FILES["UCF/Biking/v_Biking_g01_c01.avi"]),
        Item("b/\u00e9\u0107.txt", b"y"),
        Item("empty folder", folder=True),
        Item("nothing"),
    ]
    # Numbered neighbours look like volumes to unar; `[` and `*` like patterns to others.
    path = place / "-a [x]*" / "UCF101.rar"
    path.parent.mkdir()
    path.write_bytes(RARS[kind](*items))
    for name in ("UCF100.rar", "UCF102.rar"):
        (path.parent / name).write_bytes(RARS[kind](Item("other", b"y")))
    monkeypatch.setattr(room, "COMMANDS", {program: room.COMMANDS[program]})
    try:
        unpack(path, out, progress=False)
    except DataError as error:
        if re.search("unrar-free|Cannot open the file as archive", str(error)):
            pytest.skip(f"this {program} was built without RAR, or without RAR 5")
        raise
    assert contents(out) == {item.name: item.data for item in items if not item.folder}


def test_rar4_from_windows_has_backslashes(place, out, stored_rars):
    path = place / "w.rar"
    path.write_bytes(rar4(Item("a\\b.txt", b"x", mode=0x20), Item("c", mode=0x20), host=2))
    unpack(path, out, progress=False)
    assert contents(out) == {"a/b.txt": b"x", "c": b""}


BAD_NAMES = {
    "../evil": "leads out",
    "a/../../evil": "leads out",
    "a/..": "leads out",
    "/evil": "leads out",
    "C:/evil": "leads out",
    "c:evil": "leads out",
    "a\\..\\..\\evil": "backslash|leads out",
    "a\nb": "control",
}


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", RARS)
def test_names_refused(place, out, kind, name):
    refused(write(place, kind, [("good", b"x"), (name, b"x")]), out, f"entry .*{BAD_NAMES[name]}.*Nothing was unpacked")


@pytest.mark.parametrize("pair", [("a", "a"), ("a/b", "A/B"), ("e\u0301", "\u00c9"), ("a/b", "a/./b")])
@pytest.mark.parametrize("kind", RARS)
def test_names_that_meet_refused(place, out, kind, pair):
    refused(write(place, kind, [(pair[0], b"x"), (pair[1], b"y")]), out, "meets the entry")


BAD_RARS = {
    "4 link": (rar4(Item("l", b"/etc/passwd", mode=UNIX_LINK)), "'l' is a link"),
    "4 pipe": (rar4(Item("l", mode=UNIX_FIFO)), "'l' is a link, a device or a pipe"),
    "4 encrypted": (rar4(Item("good"), Item("s", b"x", encrypted=True)), "is encrypted"),
    "4 encrypted listing": (rar4(Item("s", b"x"), encrypted=True), "is encrypted"),
    "4 volume": (rar4(Item("s", b"x"), volume=True), "several volumes"),
    "4 bomb": (rar4(Item("s", b"x" * 99, size=1 << 40, method=3)), "'s' brings .* a bomb"),
    "5 link": (rar5(Item("l", link=(SYMLINK, "/etc/passwd"))), "'l' is a link"),
    "5 hard link": (rar5(Item("good"), Item("l", link=(HARD_LINK, "good"))), "'l' is a link"),
    "5 mode": (rar5(Item("l", b"x", mode=UNIX_LINK)), "'l' is a link"),
    "5 encrypted": (rar5(Item("s", b"x", encrypted=True)), "is encrypted"),
    "5 encrypted listing": (rar5(Item("s", b"x"), encrypted=True), "is encrypted"),
    "5 volume": (rar5(Item("s", b"x"), volume=True), "several volumes"),
    "5 bomb": (rar5(Item("s", b"x" * 99, size=1 << 40, method=3)), "'s' brings .* a bomb"),
    "5 cut at a block": (rar5(Item("s", b"x"), end=0), "damaged or cut short"),
    "5 unknown block": (rar5(Item("s", b"x"), end=9), "damaged or cut short.*before the end"),
    "4 cut in the data": (rar4(Item("a", b"x" * 99))[:-50], "damaged or cut short"),
    "5 cut in the data": (rar5(Item("a", b"x" * 99))[:-50], "damaged or cut short"),
    "4 header": (rar4(Item("abcde", b"x")).replace(b"abcde", b"abcdf"), "damaged or cut short"),
    "5 header": (rar5(Item("abcde", b"x")).replace(b"abcde", b"abcdf"), "damaged or cut short"),
    "5 nothing": (rar5(), "damaged or cut short.*holds nothing"),
}


@pytest.mark.parametrize("case", BAD_RARS)
def test_rars_refused(place, out, case):
    path = place / "bad.rar"
    path.write_bytes(BAD_RARS[case][0])
    refused(path, out, BAD_RARS[case][1])


def _patched(path: Path, change) -> Path:
    data = bytearray(path.read_bytes())
    path.write_bytes(bytes(change(data) or data))
    return path


def _flip(data: bytearray) -> None:
    data[60_000] ^= 1


@pytest.mark.parametrize("change", [lambda data: data[:24_000], lambda data: data[:78_000], _flip])
@pytest.mark.parametrize("kind", RARS)
def test_cut_or_changed_archives_leave_nothing(place, out, stored_rars, kind, change):
    path = write(place, kind, {"a": os.urandom(40_000), "b": os.urandom(40_000)})
    refused(_patched(path, change), out, "(damaged or cut short|could not be unpacked).*Download it again")


@pytest.mark.parametrize("content", [b"\n<!DOCTYPE html><html>", b"", b"hello", b"PK\3\4", b"x" * 100 + rar5()])
def test_what_is_no_archive_is_refused(place, out, content):
    (place / "a.rar").write_bytes(content)
    what = "a web page" if b"html" in content else "a zip archive" if content[:2] == b"PK" else "not a RAR archive"
    refused(place / "a.rar", out, what)


def test_a_folder_that_is_there_is_left_as_it_is(place, out):
    with pytest.raises(DataError, match="set.rar: is absent"):
        unpack(place / "set.rar", out)
    out.mkdir(parents=True)
    (out / "mine").write_text("x")
    unpack(write(place, "rar5", FILES), out, progress=False)
    assert contents(out) == {"mine": b"x"}


def test_disk_too_small_and_leftovers_do_not_count(place, out, stored_rars, monkeypatch):
    path, leftover = write(place, "rar5", FILES), out.parent / ".out.part"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 9000))
    with pytest.raises(StorageError, match="needs 2.3 MB, free are 9.0 kB"):
        unpack(path, out, progress=False)
    assert tree(out.parent) == []
    leftover.mkdir(parents=True)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 9000 if leftover.exists() else 10**9)
    )
    unpack(path, out, progress=False)
    assert contents(out) == FILES


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)


def test_killed_in_the_middle_then_done_again(place, out, tmp_path, stored_rars):
    """The program that a killed call leaves behind goes on, and does no harm."""
    path, began, goes_on, ended = write(place, "rar4", FILES), *(tmp_path / name for name in ("began", "on", "ended"))
    slow = tmp_path / "slow"
    waits = f"while [ ! -e {goes_on} ]; do sleep 0.01; done"
    more = f"(echo more > $2/more) 2> /dev/null; touch {ended}"  # nobody reads any longer what it says
    slow.write_text(f"#!/bin/sh\necho half > $2/half; touch {began}; {waits}; {more}\n")
    slow.chmod(0o755)
    script = (
        f"import sys\nfrom pathlib import Path\nfrom viptt_core.sources import unpack\n"
        f"unpack.COMMANDS = {{'slow': '{slow} {{archive}} {{folder}}'}}\n"
        "unpack.unpack(Path(sys.argv[1]), Path(sys.argv[2]), progress=False)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, path, out], start_new_session=True) as child:
        wait_for(began)
        child.kill()
    assert child.returncode == -signal.SIGKILL and not out.exists() and (out.parent / ".out.part").is_dir()
    unpack(path, out, progress=False)
    goes_on.touch()
    wait_for(ended)
    assert contents(out) == FILES and not (out.parent / ".out.part").exists()


def test_the_second_of_two_calls_waits_and_finds_the_folder(place, out):
    path = write(place, "rar5", FILES)
    out.parent.mkdir()
    with FileLock(out.parent / ".out.lock"):
        thread = threading.Thread(target=unpack, args=(path, out), kwargs={"progress": False})
        thread.start()
        time.sleep(0.3)
        assert tree(out.parent) == []
        out.mkdir()
    thread.join()
    assert contents(out) == {} and not (out.parent / ".out.part").exists()


GOOD = 'os.mkdir(folder + "/a")\nopen(folder + "/a/b", "w").write("hello")'
WRONG = {
    "size": (GOOD.replace("hello", "hell"), "'a/b' has another size or checksum"),
    "checksum": (GOOD.replace("hello", "hellO"), "'a/b' has another size or checksum"),
    "missing": ("pass", "1 files were not written, among them 'a/b'"),
    "another name": (GOOD.replace('/b"', '/c"'), "'a/c' was written"),
    "another folder": (f'{GOOD}\nos.mkdir(folder + "/c")', "'c' was written"),
    "link": ('os.mkdir(folder + "/a")\nos.symlink("/etc", folder + "/a/b")', "not a plain file"),
    "hard link": (f'{GOOD}\nos.link(folder + "/a/b", folder + "/../c")', "not a plain file"),
    "folder link": ('os.symlink("/etc", folder + "/a")', "'a' was written"),
    "exit code": ('print("one\\ntwo is broken", file=sys.stderr)\nsys.exit(3)', "exit code 3, one two is broken"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_program_wrote_is_checked_and_the_next_one_tried(place, out, programs, case):
    body, match = WRONG[case]
    path = write(place, "rar4", {"a/b": b"hello"})
    programs(first=body)
    refused(path, out, f"first: .*{match}.*another program may.*apt install unar")
    programs(first=body, second=GOOD)
    unpack(path, out, progress=False)
    assert contents(out) == {"b": b"hello"}


def test_interrupt_ends_the_program(place, out, programs, tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    programs(first=f'open("{pid}", "w").write(str(os.getpid()))\ntime.sleep(60)')

    def interrupted(process, *_, **__):
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(write(place, "rar5", {"a/b": b"hello"}), out, progress=False)
    assert tree(out.parent) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_rar_without_a_program_says_what_to_install(place, out, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    path = write(place, "rar4", FILES)
    for remedy in ("apt install unar", "libarchive-tools", "brew install unar", "conda-forge unrar", "by hand"):
        refused(path, out, f"no program.*{remedy}")
