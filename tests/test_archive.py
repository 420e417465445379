"""Archives: unpacked whole and right, or refused with nothing written anywhere."""

from __future__ import annotations

import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from rar_writer import HARD_LINK, SYMLINK, UNIX_FIFO, UNIX_LINK, Item, rar4, rar5

from viptt_core.errors import DataError, StorageError
from viptt_core.sources import archive, archive_listing
from viptt_core.sources.archive import unpack

KINDS = ("zip", "tar", "tar.gz", "tar.xz", "tar.bz2", "rar4", "rar5")
RARS = {"rar4": rar4, "rar5": rar5}
FILES = {"UCF/Biking/v_Biking_g01_c01.avi": bytes(range(256)) * 9000, "UCF/read me.txt": b"hello", "UCF/none": b""}


def write(place: Path, kind: str, files, name: str = "set") -> Path:
    """An archive of (name, data) pairs, however odd the names."""
    pairs = list(files.items()) if isinstance(files, dict) else files
    ending = "rar" if kind in RARS else kind
    path = place / f"{name}.{ending}"
    if kind in RARS:
        path.write_bytes(RARS[kind](*(Item(name, data) for name, data in pairs)))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two of the same name
            for name, data in pairs:
                info = zipfile.ZipInfo("x")
                info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
                info.external_attr = 0o4777 << 16
                file.writestr(info, data)
    else:
        with tarfile.open(path, "w" + kind.replace("tar", "").replace(".", ":"), format=tarfile.PAX_FORMAT) as file:
            for name, data in pairs:
                member = tarfile.TarInfo(name.replace("\0", "_"))
                member.size, member.mode, member.pax_headers = len(data), 0o6777, {"path": name} if "\0" in name else {}
                file.addfile(member, io.BytesIO(data))
    return path


def write_member(path: Path, **fields) -> Path:
    """A tar with one good file and one member of these fields."""
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("good"))
        member = tarfile.TarInfo("bad")
        for field, value in fields.items():
            setattr(member, field, value)
        file.addfile(member, io.BytesIO(bytes(member.size)))
    return path


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "data" / "out"


@pytest.fixture
def by_program(monkeypatch):
    """Let these programs, name -> command, do what rarfile could read by itself."""
    opener = archive.open_archive

    @contextmanager
    def unreadable(path):
        with opener(path) as opened:
            yield archive_listing.Opened(opened.entries, None)

    def use(**programs):
        monkeypatch.setattr(archive, "open_archive", unreadable)
        monkeypatch.setattr(archive, "_PROGRAMS", programs)

    return use


@pytest.fixture
def script(tmp_path):
    """Factory of fake programs: a Python body that finds `archive` and `folder`; returns their command."""

    def make(name: str, body: str) -> tuple[str, ...]:
        path = tmp_path / name
        path.write_text(f"#!{sys.executable} -IS\nimport os, sys, time\narchive, folder = sys.argv[1:]\n{body}\n")
        path.chmod(0o755)
        return (str(path), "{a}", "{f}")

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tree(folder: Path) -> list[str]:
    """Everything there is, but the empty lock that stays."""
    return sorted(str(path) for path in folder.rglob("*") if path.suffix != ".lock")


def refused(path: Path, out: Path, match: str, kind=DataError) -> str:
    """The message of the refusal, which left no trace."""
    top = path.parents[1]
    before = sorted(map(str, top.rglob("*")))
    with pytest.raises(kind, match=match) as error:
        unpack(path, out, progress=False)
    assert sorted(map(str, top.rglob("*"))) == before
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_unpacks_byte_for_byte(place, out, kind):
    assert unpack(write(place, kind, FILES), out, progress=False) == out
    assert contents(out) == FILES
    for path in [out, *out.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)
    assert tree(out.parent) == sorted([*tree(out), str(out)])


@pytest.mark.parametrize("program", ["unrar", "unar", "7zz", "7z", "bsdtar"])
@pytest.mark.parametrize("kind", RARS)
def test_programs_unpack_what_rarfile_lists(place, out, by_program, kind, program):
    if not shutil.which(program):
        pytest.skip(f"{program} is not here")
    items = [
        Item("a", folder=True, mode=0o040700),
        Item("a/odd mode", b"x", mode=0o104777),
        Item("b/c/d.avi", FILES["UCF/Biking/v_Biking_g01_c01.avi"]),
        Item("empty folder", folder=True),
        Item("nothing"),
    ]
    # Numbered neighbours look like volumes to unar; `[` and `*` like patterns to others.
    path = place / "-a [x]*" / "UCF101.rar"
    path.parent.mkdir()
    path.write_bytes(RARS[kind](*items))
    for name in ("UCF100.rar", "UCF102.rar"):
        (path.parent / name).write_bytes(RARS[kind](Item("other", b"y")))
    by_program(**{program: archive._PROGRAMS[program]})
    unpack(path, out, progress=False)
    assert contents(out) == {item.name: item.data for item in items if not item.folder}
    assert (out / "empty folder").is_dir()
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*") if path.is_file()} == {0o644}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [out, *out.rglob("*")] if path.is_dir()} == {0o755}


def test_rar4_from_windows_has_backslashes(place, out):
    path = place / "w.rar"
    path.write_bytes(rar4(Item("a\\b.txt", b"x", mode=0x20), host=2))
    unpack(path, out, progress=False)
    assert contents(out) == {"a/b.txt": b"x"}


BAD_NAMES = {
    "../evil": "leads out",
    "a/../../evil": "leads out",
    "a/..": "leads out",
    "/evil": "absolute",
    "C:/evil": "absolute",
    "c:evil": "absolute",
    "a\\..\\..\\evil": "backslash|leads out",
    "a\0b": "NUL",
    "a\nb": "control",
    "a" * 256: "too long",
    "/".join(["abcdefg"] * 130): "too long",
}


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "rar4", "rar5"])
def test_names_refused(place, out, kind, name):
    path = write(place, kind, [("good", b"x"), (name, b"x")])
    message = refused(path, out, BAD_NAMES[name])
    assert "entry" in message and "Nothing was unpacked" in message


@pytest.mark.parametrize(
    "pair,match",
    [
        (("a", "a"), "twice"),
        (("a/b", "A/B"), "meets"),
        (("a/x", "A/y"), "meets"),
        (("a", "a/b"), "meets"),
        (("a/b", "a"), "meets"),
        (("e\u0301", "\u00e9"), "meets"),
        (("a/b", "a/./b"), "twice"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar", "rar4", "rar5"])
def test_names_that_meet_refused(place, out, kind, pair, match):
    refused(write(place, kind, [(pair[0], b"x"), (pair[1], b"y")]), out, match)


def test_folder_listed_as_a_file_too(place, out):
    path = place / "a.rar"
    path.write_bytes(rar5(Item("a", folder=True), Item("a", b"x")))
    refused(path, out, "meets|twice")


BAD_RARS = {
    "4 link": (rar4(Item("l", b"/etc/passwd", mode=UNIX_LINK)), "'l' is a link"),
    "4 pipe": (rar4(Item("l", mode=UNIX_FIFO)), "'l' is a device"),
    "4 encrypted": (rar4(Item("good"), Item("s", b"x", encrypted=True)), "'s' is encrypted"),
    "4 encrypted listing": (rar4(Item("s", b"x"), encrypted=True), "encrypted listing"),
    "4 volume": (rar4(Item("s", b"x"), volume=True), "several volumes"),
    "4 split": (rar4(Item("s", b"x", split=True)), "several volumes"),
    "4 old": (rar4(Item("s", b"x", old=True)), "old version"),
    "4 lying": (rar4(Item("s", b"x", size=5)), "'s' says it has 5 bytes and has 1"),
    "4 bomb": (rar4(Item("s", b"x" * 99, size=1 << 40, method=3)), "'s' brings .* a bomb"),
    "4 crc": (rar4(Item("s", b"x", crc=1)), "damaged.*CRC"),
    "4 windows link": (rar4(Item("s", b"x", mode=0x420), host=2), "'s' is a link"),
    "4 two names": (rar4(Item(b"..\\x\0" + b"\0\0good", b"x", two_names=True)), "'good' leads out"),
    "5 link": (rar5(Item("l", link=(SYMLINK, "/etc/passwd"))), "'l' is a link"),
    "5 hard link": (rar5(Item("good"), Item("l", link=(HARD_LINK, "good"))), "'l' is a link"),
    "5 mode": (rar5(Item("l", b"x", mode=UNIX_LINK)), "'l' is a link"),
    "5 pipe": (rar5(Item("l", mode=UNIX_FIFO)), "'l' is a device"),
    "5 encrypted": (rar5(Item("s", b"x", encrypted=True)), "'s' is encrypted"),
    "5 encrypted listing": (rar5(Item("s", b"x"), encrypted=True), "encrypted listing"),
    "5 volume": (rar5(Item("s", b"x"), volume=True), "several volumes"),
    "5 split": (rar5(Item("s", b"x", split=True)), "several volumes"),
    "5 old": (rar5(Item("s", b"x", old=True)), "old version"),
    "5 lying": (rar5(Item("s", b"x", size=5)), "'s' says it has 5 bytes and has 1"),
    "5 bomb": (rar5(Item("s", b"x" * 99, size=1 << 40, method=3)), "'s' brings .* a bomb"),
    "5 crc": (rar5(Item("s", b"x", crc=1)), "damaged.*CRC"),
    "5 cut at a block": (rar5(Item("s", b"x"), end=0), "damaged or cut short"),
    "5 unknown block": (rar5(Item("s", b"x"), end=9), "damaged or cut short.*before the end"),
    "4 cut in the data": (rar4(Item("a", b"x" * 99))[:-50], "damaged or cut short"),
    "5 cut in the data": (rar5(Item("a", b"x" * 99))[:-50], "damaged or cut short"),
    "4 header": (rar4(Item("abcde", b"x")).replace(b"abcde", b"abcdf"), "damaged or cut short"),
    "5 header": (rar5(Item("abcde", b"x")).replace(b"abcde", b"abcdf"), "damaged or cut short"),
}


@pytest.mark.parametrize("case", BAD_RARS)
def test_rars_refused(place, out, case):
    path = place / "bad.rar"
    path.write_bytes(BAD_RARS[case][0])
    if case.endswith("crc"):  # known only when it is read
        with pytest.raises(DataError, match=BAD_RARS[case][1]):
            unpack(path, out, progress=False)
        assert tree(out.parent) == []
    else:
        refused(path, out, BAD_RARS[case][1])


@pytest.mark.parametrize(
    "fields,match",
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc"}, "link"),
        ({"type": tarfile.LNKTYPE, "linkname": "good"}, "link"),
        ({"type": tarfile.CHRTYPE}, "device"),
        ({"type": tarfile.BLKTYPE}, "device"),
        ({"type": tarfile.FIFOTYPE}, "device"),
        ({"pax_headers": {"GNU.sparse.major": "0", "GNU.sparse.map": "0,0", "GNU.sparse.size": "99"}}, "sparse"),
        ({"name": "a\udcff"}, "UTF-8"),
    ],
)
def test_tar_members_refused(place, out, fields, match):
    refused(write_member(place / "a.tar", **fields), out, match)


def _patched(path: Path, change) -> Path:
    path.write_bytes(bytes(change(bytearray(path.read_bytes()))))
    return path


@pytest.mark.parametrize("mode,match", [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "device"), (stat.S_IFCHR, "device")])
def test_zip_modes_refused(place, out, mode, match):
    with zipfile.ZipFile(place / "a.zip", "w") as file:
        info = zipfile.ZipInfo("l")
        info.external_attr = (mode | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    refused(place / "a.zip", out, match)


def test_encrypted_and_divided_zips_refused(place, out):
    def change(at, value):
        def do(data):
            data[data.index(b"PK\1\2") + at] |= value
            return data

        return do

    refused(_patched(write(place, "zip", FILES), change(8, 1)), out, "encrypted")
    refused(_patched(write(place, "zip", FILES), change(34, 1)), out, "volume")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2", "rar4", "rar5"])
@pytest.mark.parametrize("kept", [0.3, 0.97])
def test_cut_archives_leave_nothing(place, out, kind, kept):
    files = {"a": os.urandom(40_000), "b": os.urandom(40_000)}
    path = _patched(write(place, kind, files), lambda data: data[: int(81_000 * kept)])
    with pytest.raises(DataError, match="damaged or cut short.*Download it again") as error:
        unpack(path, out, progress=False)
    assert str(path) in str(error.value) and tree(out.parent) == []


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz", "tar.bz2", "rar4", "rar5"])
def test_a_wrong_byte_leaves_nothing(place, out, kind):
    def change(data):
        data[60_000] ^= 1
        return data

    path = _patched(write(place, kind, {"a": os.urandom(40_000), "b": os.urandom(40_000)}), change)
    with pytest.raises(DataError, match="damaged"):
        unpack(path, out, progress=False)
    assert tree(out.parent) == []


def test_a_damaged_tar_header_is_not_the_end(place, out):
    def change(data):
        data[data.index(b"second")] ^= 1
        return data

    refused(_patched(write(place, "tar", {"first": b"x", "second": b"y"}), change), out, "damaged")


def test_zip_that_holds_more_than_it_says(place, out):
    def change(data):
        at = data.index(b"PK\1\2") + 24
        data[at : at + 4] = (10).to_bytes(4, "little")
        return data

    path = _patched(write(place, "zip", {"a": b"x" * 5000}), change)
    with pytest.raises(DataError):
        unpack(path, out, progress=False)
    assert tree(out.parent) == []


def test_a_reader_that_yields_more_than_the_listing_is_stopped(place, out, monkeypatch):
    monkeypatch.setattr(archive, "_read", lambda path, source: b"x" * 100)
    with pytest.raises(DataError, match="'a' holds more than it says"):
        unpack(write(place, "zip", {"a": b"x" * 150}), out, progress=False)
    assert tree(out.parent) == []


def test_huge_tar_header_is_not_read_into_memory(place, out):
    path = write_member(place / "a.tar", type=tarfile.GNUTYPE_LONGNAME, size=17 << 20)
    refused(path, out, "header of")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz", "tar.bz2"])
def test_bombs(place, out, monkeypatch, kind):
    path = write(place, kind, {"zeros": bytes(2_000_000)})
    monkeypatch.setattr(archive_listing, "HARMLESS_BYTES", 1_000_000)
    refused(path, out, "'zeros' brings the unpacked size to 2,000,000 bytes.*bomb")
    monkeypatch.undo()
    unpack(path, out, progress=False)  # so small that it harms nobody


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_entries(place, out, monkeypatch, kind):
    monkeypatch.setattr(archive_listing, "MOST_ENTRIES", 2)
    refused(write(place, kind, FILES), out, "more than 2 entries")


def test_disk_too_small(place, out, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 9000, 9000))
    with pytest.raises(StorageError, match="set.zip needs .* are free"):
        unpack(write(place, "zip", FILES), out, progress=False)
    assert tree(out.parent) == []


@pytest.mark.parametrize(
    "name,data,match",
    [
        ("a.rar", b"\n<!DOCTYPE html><html>", "web page"),
        ("a.rar", b"", "is empty"),
        ("a.zip", b"hello", "is not a RAR"),
        ("a.rar", b"PK\3\4", "content of a .zip"),
        ("a.zip", rar5(), "content of a .rar"),
        ("a.tar.gz", b"\xfd7zXZ\0", "content of a .tar.xz"),
        ("a.tgz", b"\x1f\x8bhello", "damaged"),
        ("a.tar", b"x" * 600, "is not a RAR"),
        ("a.rar", b"x" * 100 + rar5(), "is not a RAR"),
    ],
)
def test_wrong_content_behind_the_ending(place, out, name, data, match):
    (place / name).write_bytes(data)
    refused(place / name, out, match)


def test_no_archive_and_full_folders(place, out):
    with pytest.raises(DataError, match="no such archive"):
        unpack(place / "a.zip", out)
    path = write(place, "zip", FILES)
    out.mkdir(parents=True)
    unpack(path, out, progress=False)  # empty: fine
    with pytest.raises(DataError, match="not an empty folder"):
        unpack(path, out, progress=False)
    with pytest.raises(DataError, match="not an empty folder"):
        unpack(path, path, progress=False)


def test_leftover_does_not_count_as_used_space(place, out, monkeypatch):
    (out.parent / ".out.part").mkdir(parents=True)
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: shutil._ntuple_diskusage(10**9, 0, 0 if (out.parent / ".out.part").exists() else 10**9),
    )
    unpack(write(place, "zip", FILES), out, progress=False)
    assert contents(out) == FILES


def test_folder_that_cannot_be_written(place, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        unpack(write(place, "zip", FILES), tmp_path / "file" / "out", progress=False)


def test_killed_in_the_middle_then_done_again(place, out):
    path = write(place, "zip", FILES)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom viptt_core.sources import archive\n"
        "read, seen = archive._read, []\n"
        "def kill(path, source):\n    seen.append(1)\n    if len(seen) > 2: os.kill(os.getpid(), 9)\n"
        "    return read(path, source)\n"
        "archive._read = kill\narchive.unpack(Path(sys.argv[1]), Path(sys.argv[2]), progress=False)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, path, out]).returncode == -signal.SIGKILL
    assert not out.exists() and (out.parent / ".out.part").is_dir()
    unpack(path, out, progress=False)
    assert contents(out) == FILES and not (out.parent / ".out.part").exists()


def test_two_calls_do_not_meet(place, out):
    path = write(place, "zip", FILES)
    out.parent.mkdir()
    with FileLock(out.parent / ".out.lock"):
        thread = threading.Thread(target=unpack, args=(path, out), kwargs={"progress": False})
        thread.start()
        time.sleep(0.3)
        assert tree(out.parent) == []
    thread.join(10)
    assert contents(out) == FILES


def test_the_second_of_two_calls_finds_the_folder_full(place, out):
    path = write(place, "zip", FILES)
    out.parent.mkdir()
    with ThreadPoolExecutor() as pool:
        with FileLock(out.parent / ".out.lock"):
            second = pool.submit(unpack, path, out, progress=False)
            time.sleep(0.3)
            out.mkdir()
            (out / "theirs").write_text("x")
        with pytest.raises(DataError, match="not an empty folder"):
            second.result(10)
    assert contents(out) == {"theirs": b"x"} and not (out.parent / ".out.part").exists()


GOOD = 'os.mkdir(folder + "/a")\nopen(folder + "/a/b", "w").write("hello")'
WRONG = {
    "size": (GOOD.replace("hello", "hell"), "has 4 bytes, not 5"),
    "checksum": (GOOD.replace("hello", "hellO"), "checksum of 'a/b'"),
    "missing": ("pass", "1 files were not written, among them 'a/b'"),
    "another name": (GOOD.replace('/b"', '/c"'), "'a/c' was written"),
    "link": ('os.mkdir(folder + "/a")\nos.symlink("/etc", folder + "/a/b")', "not a plain file"),
    "hard link": (GOOD + '\nos.link(folder + "/a/b", folder + "/../c")', "not a plain file"),
    "folder link": ('os.symlink("/etc", folder + "/a")', "'a' was written"),
    "exit code": ('print("one\\ntwo is broken", file=sys.stderr)\nsys.exit(3)', "exit code 3, one / two is broken"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_program_wrote_is_checked_and_the_next_one_tried(place, out, by_program, script, case):
    body, match = WRONG[case]
    path = write(place, "rar4", {"a/b": b"hello"})
    by_program(first=script("first", body))
    with pytest.raises(DataError, match=f"(?s)first: .*{match}.*another program may.*apt install unar"):
        unpack(path, out, progress=False)
    assert tree(out.parent) == []
    by_program(first=script("first", body), second=script("second", GOOD))
    unpack(path, out, progress=False)
    assert contents(out) == {"a/b": b"hello"}


@pytest.mark.parametrize(
    "body",
    [
        'file = open(folder + "/a", "wb")\nwhile True: file.write(bytes(9999)); file.flush(); time.sleep(.001)',
        'for i in range(10**9): open(f"{folder}/{i}", "w"); time.sleep(.001)',
    ],
)
def test_program_that_writes_too_much_is_stopped(place, out, by_program, script, tmp_path, body):
    pid = tmp_path / "pid"
    by_program(
        first=script("first", f'open("{pid}", "w").write(str(os.getpid()))\n{body}'), second=script("second", GOOD)
    )
    with pytest.raises(DataError, match="first wrote more than the listing says .* was stopped"):
        unpack(write(place, "rar5", {"a/b": b"hello"}), out, progress=False)
    assert tree(out.parent) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_interrupt_ends_the_program(place, out, by_program, script, tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    by_program(first=script("first", f'{GOOD}\nopen("{pid}", "w").write(str(os.getpid()))\ntime.sleep(60)'))

    def interrupt(folder):
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt
        return 0, 0

    monkeypatch.setattr(archive, "_measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack(write(place, "rar5", {"a/b": b"hello"}), out, progress=False)
    assert tree(out.parent) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_compressed_rar_without_a_program_says_what_to_install(place, out, monkeypatch):
    path = place / "a.rar"
    path.write_bytes(rar4(Item("s", b"x" * 9, size=20, method=3)))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DataError) as error:
        unpack(path, out, progress=False)
    for remedy in ("apt install unar", "libarchive-tools", "brew install unar", "conda-forge unrar", "by hand"):
        assert remedy in str(error.value)
    assert tree(out.parent) == []


def test_progress_bar_counts_bytes(place, out, capsys):
    unpack(write(place, "zip", {"a": b"x" * 2000}), out)
    assert "2.00k/2.00k" in capsys.readouterr().err
