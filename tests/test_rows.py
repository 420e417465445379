"""Arrays filled row by row: killed anywhere, they are taken up again; what is visible is complete."""

import errno
import hashlib
import itertools
import json
import os
import resource
import signal

import numpy as np
import pytest
from forked import in_child

from viptt_core.errors import DataError, SettingError, StorageError
from viptt_core.rows import RowFile, open_rows, write_row

KEYS = ["a", "left b", "c", "d", "left e", "f"]
KEPT = ["a", "c", "d", "f"]
SHAPE = (2, 3)


def content(key):
    return np.frombuffer(hashlib.sha256(key.encode()).digest()[:6], np.uint8).reshape(SHAPE)


def build(folder, keys=KEYS, made=None, stop_at=None):
    """Fill and finish; `made` gets the key of each row that had to be made."""
    with RowFile(folder, keys, dtype="uint8") as rows:
        rows.allocate(SHAPE)
        for i, key in enumerate(keys):
            if i in rows.done or i in rows.left:
                continue
            if key == stop_at:
                raise InterruptedError
            if made is not None:
                made(key)
            if key.startswith("left"):
                rows.leave_out(i, "too short")
            else:
                rows.write(i, content(key), {"of": key})
        rows.finish({"by": "test"})


def stop(folder, keys, stop_at):
    with pytest.raises(InterruptedError):
        build(folder, keys, stop_at=stop_at)


def assert_holds(folder, keys):
    array, record = open_rows(folder)
    assert np.array_equal(array, [content(key) for key in keys])
    assert [record["keys"][i] for i, _, _ in record["rows"]] == keys
    assert [note for _, _, note in record["rows"]] == [{"of": key} for key in keys]


def visible(folder):
    return [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "set"


def test_rows_come_back_with_notes_and_without_gaps(folder):
    build(folder)
    assert_holds(folder, KEPT)
    array, record = open_rows(folder)
    assert isinstance(array, np.memmap) and not array.flags.writeable and array.dtype == np.uint8
    assert record["meta"] == {"by": "test"} and record["left"] == [[i, {"reason": "too short"}] for i in (1, 4)]
    assert sorted(path.name for path in folder.iterdir()) == ["rows.bin", "rows.json"]


def test_a_finished_array_is_not_made_again_and_takes_a_new_record(folder):
    build(folder)
    with RowFile(folder, KEYS, dtype="uint8") as rows:
        assert rows.finished and list(rows.done) == [0, 2, 3, 5] and list(rows.left) == [1, 4]
        rows.finish({"by": "another"})
    assert open_rows(folder)[1]["meta"] == {"by": "another"}
    assert_holds(folder, KEPT)


# --- Killed at every point ----------------------------------------------------------------------


def scenario_new(folder):
    return KEYS, KEPT, len(KEYS)


def scenario_update(folder):
    build(folder)
    return ["new", *KEYS[1:]], ["new", "c", "d", "f"], 1


def scenario_shifted_rest(folder):
    stop(folder, KEYS, stop_at="f")
    return ["new", *KEYS], ["new", *KEPT], 2


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("scenario", [scenario_new, scenario_update, scenario_shifted_rest])
def test_killed_before_any_system_call_it_loses_one_row_at_most(tmp_path, monkeypatch, scenario, torn):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # real ones would only take time
    real_write = os.write
    for point in itertools.count(1):
        folder = tmp_path / str(point) / "set"
        keys, kept, expected = scenario(folder)
        made = tmp_path / str(point) / "made"

        def note(key, made=made):
            with open(made, "ab", buffering=0) as file:
                file.write(key.encode() + b"\n")

        def build_and_die(point=point, folder=folder, keys=keys, note=note):
            calls = itertools.count(1)

            def dying(name, real):
                def call(*arguments, **settings):
                    if next(calls) == point:
                        if torn and name == "pwrite":
                            real(arguments[0], bytes(arguments[1])[:3], arguments[2])
                        elif torn and name == "write":
                            real_write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*arguments, **settings)

                return call

            for name in ("write", "pwrite", "fsync", "replace", "rename", "unlink", "truncate", "rmdir"):
                setattr(os, name, dying(name, getattr(os, name)))
            build(folder, keys, note)

        code = in_child(build_and_die)
        assert code in (0, -signal.SIGKILL)
        if folder.exists():
            open_rows(folder)  # what is visible is whole
        build(folder, keys, note)
        assert_holds(folder, kept)
        assert len(made.read_text().split("\n")) - 1 <= expected + (code != 0)
        hidden = sorted(path.name for path in folder.parent.iterdir() if path.name.startswith("."))
        assert hidden == [".set.lock"]
        if code == 0:
            break
    assert point > 20  # so many calls there are at least


def test_a_torn_journal_line_costs_its_row_only(folder):
    stop(folder, KEYS, stop_at="f")
    journal = folder.with_name(".set.part") / "journal.jsonl"
    lines = journal.read_text().splitlines()
    assert '"row": 3' in lines[-2]
    journal.write_text("\n".join(lines[:-2] + [lines[-2][:-4]]))
    made = []
    build(folder, KEYS, made.append)
    assert made == ["d", "left e", "f"]
    assert_holds(folder, KEPT)


def test_rows_changed_behind_its_back_are_made_again(folder):
    stop(folder, KEYS, stop_at="f")
    write_row(folder.with_name(".set.part") / "rows.bin", 2, content("other"))
    made = []
    build(folder, KEYS, made.append)
    assert made == ["c", "f"]
    assert_holds(folder, KEPT)


@pytest.mark.parametrize("keys", [["new", *KEYS], KEYS[::-1], KEYS[2:], [*KEYS, "new"]])
@pytest.mark.parametrize("finished", [False, True])
def test_rows_of_other_places_are_used_again(folder, keys, finished):
    if finished:
        build(folder)
    else:
        stop(folder, KEYS, stop_at="f")
    made = []
    build(folder, keys, made.append)
    assert made == [key for key in keys if key == "new" or (key == "f" and not finished)]
    assert_holds(folder, [key for key in keys if not key.startswith("left")])


def test_an_error_before_the_first_row_leaves_nothing_but_the_lock(folder):
    stop(folder, KEYS, stop_at="a")
    assert [path.name for path in folder.parent.iterdir()] == [".set.lock"]


# --- Two processes ----------------------------------------------------------------------------------


def test_of_two_processes_one_fills_and_the_other_waits(folder):
    waits, told = os.pipe()
    started, begun = os.pipe()
    made = folder.parent / "made"

    def make(key):
        with open(made, "ab", buffering=0) as file:
            file.write(b"x")

    def fill():
        with RowFile(folder, ["a", "c"], dtype="uint8") as rows:
            os.write(begun, b"x")
            os.read(waits, 1)  # goes on once the other one waits
            rows.allocate(SHAPE)
            for i, key in enumerate(["a", "c"]):
                make(key)
                rows.write(i, content(key), {"of": key})
            rows.finish({})

    first = os.fork()
    if first == 0:
        try:
            fill()
        finally:
            os._exit(0)
    os.read(started, 1)
    with RowFile(folder, ["a", "c"], dtype="uint8", waiting=lambda: os.write(told, b"x")) as rows:
        assert rows.finished and len(rows.done) == 2
    os.waitpid(first, 0)
    assert made.read_bytes() == b"xx"
    assert_holds(folder, ["a", "c"])


# --- Files that cannot be written -------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_known_before_the_work(folder, monkeypatch, number):
    def full(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    made = []
    with pytest.raises(StorageError, match=r"set.part/rows.bin.*No row is kept.*Free 0.1 GB or .*VIPTT_CACHE"):
        build(folder, KEYS, made.append)
    assert made == [] and visible(folder) == []


@pytest.mark.parametrize("call", ["pwrite", "write", "fsync"])
def test_a_disk_that_fills_up_keeps_the_rows_there_are(folder, monkeypatch, call):
    stop(folder, KEYS, stop_at="d")

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill_the_disk(key):
        monkeypatch.setattr(os, call, full)

    with pytest.raises(StorageError, match="No space left.*of 6 rows are kept and will be taken up again.*Free"):
        build(folder, KEYS, fill_the_disk)
    monkeypatch.undo()
    assert visible(folder) == []
    made = []
    build(folder, KEYS, made.append)
    assert "a" not in made and "c" not in made
    assert_holds(folder, KEPT)


def test_a_real_limit_of_the_system_is_met_with_its_name(folder):
    def build_within(limit):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        message = r"rows.bin: cannot be written \(File too large\)"
        with pytest.raises(StorageError, match=message), RowFile(folder, ["a"], dtype="uint8") as rows:
            rows.allocate((1 << 20,))

    assert in_child(lambda: build_within(1 << 16)) == 0
    assert visible(folder) == []


def test_a_row_that_a_worker_cannot_write_is_told_as_any_other(folder):
    stop(folder, KEYS, stop_at="d")
    message = r"rows.bin: cannot be written \(Read-only file system\). 2 of 6 rows"
    with pytest.raises(StorageError, match=message), RowFile(folder, KEYS, dtype="uint8") as rows:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(rows.array))


def test_a_disk_that_cannot_reserve_is_asked_for_its_room(folder, monkeypatch):
    def cannot(*arguments):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    with pytest.raises(StorageError, match="rows.bin.*No space left"), RowFile(folder, ["a"], dtype="uint8") as rows:
        rows.allocate((1 << 60,))
    build(folder)
    assert_holds(folder, KEPT)


# --- Damage and misuse --------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["byte", "size", "json", "part of json"])
def test_damage_is_found_on_opening_and_mended_by_building(folder, damage):
    build(folder)
    array, record = folder / "rows.bin", folder / "rows.json"
    if damage == "byte":
        write_row(array, 1, content("other"))
    elif damage == "size":
        os.truncate(array, 13)
    elif damage == "json":
        record.write_text(record.read_text()[:-9])
    else:
        record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "rows"}))
    with pytest.raises(DataError, match="set: .*Delete this folder"):
        open_rows(folder)
    made = []
    build(folder, KEYS, made.append)
    assert made == {"byte": ["c"], "size": ["d", "f"]}.get(damage, KEYS)
    assert_holds(folder, KEPT)


def test_left_out_rows_are_tried_again_on_request(folder):
    build(folder)
    with RowFile(folder, KEYS, dtype="uint8", retry=lambda note: note["reason"] == "too short") as rows:
        assert not rows.finished and rows.left == {} and list(rows.done) == [0, 2, 3, 5]
    assert_holds(folder, KEPT)  # and nothing was lost by looking


def test_mistakes_are_refused(folder):
    with pytest.raises(SettingError, match="same key"):
        RowFile(folder, ["a", "a"], dtype="uint8")
    with RowFile(folder, ["a", "c"], dtype="uint8") as rows:
        rows.allocate(SHAPE)
        with pytest.raises(DataError, match=r"row 0 is float64 \(2, 3\), not uint8 \(2, 3\)"):
            rows.write(0, np.zeros(SHAPE))
        rows.write(0, content("a"))
        with pytest.raises(DataError, match="1 of 2 rows are missing"):
            rows.finish({})
        with pytest.raises(DataError, match=r"holds rows of shape \(2, 3\), not \(5,\)"):
            rows.allocate((5,))
