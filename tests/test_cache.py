"""Decoded once and found again by contents; whole or not there; what is left out is listed."""

import errno
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from forked import in_child

from viptt_core import cache, files
from viptt_core.cache import Decoding, FileArray, Recipe, build_clip_set, keep, read_kept
from viptt_core.clips import ClipSet, Item
from viptt_core.errors import ClipTooShortError, DataError, DataWarning, Fault, SettingError, StorageError, warn_of
from viptt_core.files import cache_root

SHAPE = (2, 3, 3)


def decode(source, log):
    """A clip of the grey level that a source is, or its file holds; `log` gets a line for each call."""
    text = source.read_text() if isinstance(source, Path) else str(source)
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{text}\n")
    if text == "broken":
        raise DataError("is damaged.", path="b.avi", remedy="Copy it again.")
    if text == "short":
        raise ClipTooShortError("has 3 frames, 8 needed.", path="s.avi", remedy="Ask for fewer.")
    if text == "unreadable":
        raise OSError(errno.EIO, os.strerror(errno.EIO), "u.avi")
    if text == "changing":
        source.write_text("changed")
    if text == "odd":
        warn_of(Fault("voxels not finite", str(source), "5 voxels are NaN", level="note"))
    if text == "fraction":
        return np.full(SHAPE, 100.125, np.float16)
    if text == "large":
        return np.zeros((4, 9, 9), np.uint8)
    return np.full(SHAPE, int(text) if text.isdigit() else 7, np.uint8)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def build(log):
    """Build a set of synthetic sources, or of all files of a folder; `build.decoded()` says what was decoded since."""

    def build(*sources, labels=None, pixels=None, place=None, on_error="raise", n_jobs=1, progress=False, **fields):
        if place is not None:
            sources = sorted(place.iterdir())
        names = [source.name if isinstance(source, Path) else f"n{i}" for i, source in enumerate(sources)]
        labels = labels or [i % 2 for i in range(len(names))]
        items = [Item(*each) for each in zip(names, labels, [f"g{name}" for name in names], sources, strict=True)]
        fields = {"decode": partial(decode, log=log), "class_names": ("a", "b")} | fields
        recipe = Recipe(items, pixels=pixels or {"frames": 2}, settings={"set": "test"}, **fields)
        return build_clip_set(recipe, Decoding(on_error, n_jobs, progress))

    def decoded():
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return lines

    build.decoded = decoded
    return build


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files").mkdir()
    for name, text in zip("abcd", ("5", "6", "short", "8"), strict=True):
        (tmp_path / "files" / name).write_text(text)
    return tmp_path / "files"


def levels(clips):
    return np.asarray(clips.clips)[:, 0, 0, 0].tolist()


def told(clips):
    """What is said of each file."""
    return {fault.where: fault.what for fault in clips.faults}


def kept_files():
    return sorted((cache_root() / "clips").glob("*.npy"))


# --- Sets ---------------------------------------------------------------------------------------------------


def test_clips_labels_groups_and_names_come_back_in_order(build):
    clips = build(5, 6, 7)
    assert levels(clips) == [5, 6, 7] and clips.clips.shape == (3, *SHAPE) and clips.clips.dtype == np.uint8
    assert clips.labels.tolist() == [0, 1, 0] and clips.names.tolist() == ["n0", "n1", "n2"]
    assert clips.groups.tolist() == ["gn0", "gn1", "gn2"] and clips.counts() == {"a": 2, "b": 1}


def test_a_source_is_decoded_once_whatever_set_it_is_in_and_again_for_other_pixels(build):
    build(5, 6)
    assert sorted(build.decoded()) == ["5", "6"]
    assert levels(build(6, 5, 7, labels=[1, 1, 0])) == [6, 5, 7] and build.decoded() == ["7"]
    build(5, 6, pixels={"frames": 9})
    assert sorted(build.decoded()) == ["5", "6"]


def test_other_labels_need_no_decoding_and_give_another_key(build, folder):
    before, decoded = build(place=folder), build.decoded()
    after = build(place=folder, labels=[1, 1, 0, 1])
    assert len(decoded) == 4 and build.decoded() == []
    assert after.labels.tolist() == [1, 1, 1] and levels(after) == [5, 6, 8] and before.key != after.key
    assert before.key != build(place=folder, class_names=("a", "c")).key


def test_a_set_that_does_not_fit_together_is_refused(make_clip_set, build):
    with pytest.raises(DataError, match="20 clips but 3 labels"):
        make_clip_set(labels=np.zeros(3, dtype=int))
    with pytest.raises(DataError, match="outside the class names"):
        make_clip_set(labels=np.full(20, 9))
    with pytest.raises(DataError, match="float64.*uint8 .* is needed"):
        ClipSet(np.zeros((1, 1, 1, 1)), np.zeros(1, int), np.array(["g"]), np.array(["n"]), ("a",), {})
    with pytest.raises(SettingError, match="on_error 'ignore' does not exist"):
        build(5, on_error="ignore")


# --- What a decoder refuses, and what it says ------------------------------------------------------------------


def test_all_that_cannot_be_used_is_named_in_one_error_and_the_rest_is_kept(build):
    with pytest.raises(DataError, match="^b.avi: is damaged. Copy it again.*on_error") as caught:
        build(1, "broken", 2, "broken", "short")
    assert str(caught.value).count("b.avi") == 1 and "The 2 others are kept" in str(caught.value)
    build.decoded()
    assert len(build(1, 2)) == 2 and build.decoded() == []


def test_what_cannot_be_used_is_left_out_and_listed_on_request(build):
    clips = build(1, "broken", 2, "unreadable", on_error="skip")
    assert clips.names.tolist() == ["n0", "n2"] and levels(clips) == [1, 2]
    assert told(clips) == {"n1": "is damaged.", "n3": "cannot be read (Input/output error)."}
    assert "Left out: 2" in clips.report() and "n1: is damaged." in clips.report()


def test_skipping_uses_what_was_found_out_before_and_raising_tries_the_refused_again(build):
    for on_error, decoded in (("raise", 4), ("skip", 0), ("raise", 1), ("skip", 0)):
        if on_error == "raise":
            with pytest.raises(DataError, match="b.avi: is damaged"):
                build(5, "broken", "short", 8)
        else:
            clips = build(5, "broken", "short", 8, on_error="skip")
            assert levels(clips) == [5, 8] and list(told(clips)) == ["n1", "n2"]
        assert len(build.decoded()) == decoded, on_error


def test_an_error_of_the_system_is_the_fault_of_its_file(build, folder):
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "e").mkdir()  # cannot be read as a file, whoever asks
    message = r"(?s)2 faults.*dangling: cannot be read \(No such file.*e: cannot be read \(Is a"
    with pytest.raises(DataError, match=message):
        build(place=folder, n_jobs=2)
    clips = build(place=folder, on_error="skip")
    assert levels(clips) == [5, 6, 8] and list(told(clips)) == ["c", "dangling", "e"]


def test_a_set_with_nothing_left_says_why(build):
    with pytest.raises(DataError, match="(?s)2 faults.*has 3 frames.*None of 2 files is left"):
        build("short", "short")
    with pytest.raises(DataError, match="no clip"):
        build()


@pytest.mark.parametrize(
    "source, message", [("fraction", r"n1: is float16 \(2, 3, 3\)"), ("large", r"n1: is \(4, 9, 9\)")]
)
def test_clips_that_are_not_like_the_others_are_faults(build, source, message):
    with pytest.raises(DataError, match=f"{message} when decoded"):
        build(5, source)


def test_notes_are_warned_about_when_decoded_and_kept(build):
    with pytest.warns(DataWarning, match="5 voxels are NaN"):
        build("odd", 3, n_jobs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "5 voxels are NaN" in build("odd", 3).report()


# --- Files that change, move, are copied -------------------------------------------------------------------------


def replace_unseen(path, text):
    """Other contents of the same size, with the same time of change."""
    before = path.stat()
    other = path.with_name("other")
    other.write_text(text)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.fixture
def settled(monkeypatch):
    """Files count as old the moment they are written, so that their hashes are remembered."""
    monkeypatch.setattr(cache, "SETTLED", -1)


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that were hashed."""
    names, digest = [], cache.hashlib.file_digest

    def noting(file, kind):
        names.append(Path(file.name).name)
        return digest(file, kind)

    monkeypatch.setattr(cache.hashlib, "file_digest", noting)
    return names


def test_a_file_is_hashed_once_until_its_place_times_or_inode_change(build, folder, hashed, settled):
    build(place=folder)
    assert hashed == ["a", "b", "c", "d"] and len(build(place=folder)) == 3 and len(hashed) == 4
    replace_unseen(folder / "a", "9")
    os.utime(folder / "b", ns=(0, 2**62))  # in the year 2116
    assert levels(build(place=folder)) == [9, 6, 8] and hashed[4:] == ["a", "b"]
    assert len(build(place=folder)) == 3 and len(hashed) == 6
    assert build.decoded() == ["5", "6", "short", "8", "9"]


def test_a_file_that_changed_a_moment_ago_is_hashed_each_time(build, folder, hashed):
    """Where the clock of the disk is coarse, a second change would leave it the same times."""
    build(place=folder)
    hashed.clear()
    build(place=folder)
    assert hashed == ["a", "b", "c", "d"]


@pytest.mark.usefixtures("settled")
@pytest.mark.filterwarnings("ignore:.*5 voxels are NaN")
@pytest.mark.parametrize("forget", [False, True])
def test_a_copied_or_moved_folder_is_not_decoded_again_and_notes_name_its_files(build, folder, forget):
    (folder / "e").write_text("odd")
    before = build(place=folder)
    shutil.copytree(folder, folder.with_name("copy"))
    moved = folder.rename(folder.with_name("moved"))
    build.decoded()
    if forget:
        for path in (cache_root() / "clips").iterdir():
            if not path.suffix:
                path.unlink()
    for place in (moved, folder.with_name("copy")):
        clips = build(place=place)
        assert (clips.key, told(clips)[str(place / "e")]) == (before.key, "5 voxels are NaN")
    assert build.decoded() == []


def test_a_file_that_changes_while_it_is_read_is_a_fault(build, folder):
    (folder / "e").write_text("changing")
    with pytest.raises(DataError, match="e: changed while it was read. Start again"):
        build(place=folder)
    (folder / "e").write_text("3")
    assert levels(build(place=folder)) == [5, 6, 8, 3]


def test_a_source_of_two_files_depends_on_both_and_on_neither_place(build, log, tmp_path):
    def pair(name, scan, mask):
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        (root / "scan").write_text(scan)
        (root / "mask").write_text(mask)
        return root / "scan", root / "mask", 3

    def of_pair(source):
        return decode(source[0], log)

    pairs = ("x", "1", "2"), ("y", "1", "2"), ("y", "1", "3")
    keys = [build(pair(*each), decode=of_pair).key for each in pairs]
    assert keys[0] == keys[1] != keys[2] and build.decoded() == ["1", "1"]


# --- Killed, and two at once -----------------------------------------------------------------------------------


def assert_whole():
    for path in kept_files():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_kept(str(path)) is not None and np.load(path).dtype == np.uint8


def dying_at(level, log):
    def decode_or_die(source):
        if source == level:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(source, log)

    return decode_or_die


def test_a_killed_build_goes_on_where_it_was(build, log, capfd):
    sources = (5, "short", "odd", 7, 8)
    assert in_child(lambda: build(*sources, decode=dying_at(7, log))) == -signal.SIGKILL
    build.decoded()
    assert_whole()
    clips = build(*sources, progress=True)
    assert build.decoded() == ["7", "8"] and levels(clips) == [5, 7, 7, 8]
    assert told(clips) == {"n1": "has 3 frames, 8 needed.", "n2": "5 voxels are NaN"}
    assert "5/5" in capfd.readouterr().err


@pytest.mark.parametrize("call", ["replace", "unlink"])
def test_killed_at_a_call_that_makes_a_file_it_leaves_no_half_one(build, folder, monkeypatch, call, settled):
    def build_and_die():
        setattr(os, call, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        build(place=folder)

    assert in_child(build_and_die) == -signal.SIGKILL
    assert_whole()
    assert levels(build(place=folder)) == [5, 6, 8]


BUILD_SLOWLY = """
import sys, time
import numpy as np
from pathlib import Path
from viptt_core.cache import Decoding, Recipe, build_clip_set
from viptt_core.clips import Item

def decode(source):
    with open(sys.argv[2], "a") as log:
        log.write(f"{source.name}\\n")
    time.sleep(0.002)
    return np.full((16, 256, 256), int(source.read_text()), np.uint8)

items = [Item(path.name, 0, path.name, path) for path in sorted(Path(sys.argv[1]).iterdir())]
print("ready", flush=True)
recipe = Recipe(items, decode, {}, {"set": "test"}, ("a",))
clips = build_clip_set(recipe, Decoding(n_jobs=int(sys.argv[3]), progress=False))
assert clips.clips[:, 0, 0, 0].tolist() == [int(item.name) for item in items]
"""


@pytest.mark.parametrize(
    "kills, n_jobs", [(3, 1), pytest.param(20, 1, marks=pytest.mark.slow), pytest.param(20, 2, marks=pytest.mark.slow)]
)
def test_killed_at_random_moments_it_ends_with_every_clip_and_never_shows_a_half_one(tmp_path, log, kills, n_jobs):
    place, rng = tmp_path / "files", random.Random(0)
    place.mkdir()
    for number in range(60):
        (place / f"{number:03d}").write_text(str(number))
    command = [sys.executable, "-c", BUILD_SLOWLY, str(place), str(log), str(n_jobs)]
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.1 if n_jobs == 1 else 2))
        os.killpg(process.pid, signal.SIGKILL)  # the workers, too
        process.wait()
        process.stdout.close()
        assert_whole()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert len(kept_files()) == 60 and len(log.read_text().splitlines()) <= 60 + kills * n_jobs


def test_two_processes_decode_a_set_once_between_them(build, log, tmp_path):
    waits, told = os.pipe()
    started, begun = os.pipe()
    said = tmp_path / "said"

    def slow(source):
        if source == 5:
            os.write(begun, b"x")
            os.read(waits, 1)  # goes on once the other one waits
        return decode(source, log)

    def second():
        def say(text, **settings):
            said.write_text(text)
            os.write(told, b"x")

        files.print = say
        assert levels(build(5, 6, decode=slow)) == [5, 6]

    first = os.fork()
    if first == 0:
        code = 1
        try:
            assert levels(build(5, 6, decode=slow)) == [5, 6]
            code = 0
        finally:
            os._exit(code)
    os.read(started, 1)
    assert in_child(second) == 0
    assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 0
    assert build.decoded() == ["5", "6"] and "test: another process decodes this set" in said.read_text()


# --- Disks -----------------------------------------------------------------------------------------------------


def test_a_full_disk_names_the_file_and_what_was_decoded_is_kept(build):
    def limited(source, log=None):
        return np.zeros((4, 99, 99) if source == 6 else SHAPE, np.uint8)

    def build_within_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))
        message = r"clips/\w+\.npy: cannot be written \(File too large\).*Free.*VIPTT_CACHE"
        with pytest.raises(StorageError, match=message):
            build(5, 6, decode=limited)

    assert in_child(build_within_limit) == 0
    assert len(kept_files()) == 1
    assert_whole()
    assert not [path for path in (cache_root() / "clips").glob(".*") if path.suffix != ".lock"]
    assert len(build(5, 5, decode=limited)) == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("call", ["mkdir", "replace"])
def test_a_place_that_cannot_be_written_is_named_with_the_remedy(build, monkeypatch, number, call):
    def refuse(*arguments, **settings):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StorageError, match=rf"cache/clips.*{os.strerror(number)}.*VIPTT_CACHE names another folder"):
        build(5)


@pytest.mark.usefixtures("settled")
def test_a_set_that_is_there_is_opened_without_writing_anything(build, folder, monkeypatch):
    build(place=folder)
    for path in kept_files():
        os.utime(path, (0, 0))
    for call in ("mkdir", "replace", "unlink", "utime"):
        monkeypatch.setattr(os, call, lambda *_, call=call, **__: (_ for _ in ()).throw(OSError(errno.EROFS, call)))
    assert levels(build(place=folder)) == [5, 6, 8]


@pytest.mark.parametrize("damage", ["cut", "flipped", "flipped header", "empty", "folder"])
def test_a_damaged_clip_is_noticed_on_opening_and_decoded_again(build, damage):
    assert levels(build(5, 6)) == [5, 6]
    path = next(path for path in kept_files() if np.load(path).max() == 6)
    content = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()  # cannot be read, nor written over
        with pytest.raises(StorageError, match=path.name), pytest.warns(DataWarning, match="damaged"):
            build(5, 6)
        return
    position = 20 if damage == "flipped header" else cache.HEADER
    flipped = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
    path.write_bytes({"cut": content[:-9], "empty": b""}.get(damage, flipped))
    build.decoded()
    with pytest.warns(DataWarning, match=rf"{path}: is damaged.*made anew"):
        assert levels(build(5, 6)) == [5, 6]
    assert build.decoded() == ["6"] and path.read_bytes() == content


# --- The array over the files -------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """The same numbers in memory and in a file for each row."""
    array = np.random.default_rng(0).integers(0, 256, (7, 4, 3, 5), np.uint8)
    paths = [str(tmp_path / f"{row}.npy") for row in range(7)]
    for path, row in zip(paths, array, strict=True):
        keep(path, row)
    return array, FileArray(paths, array.shape)


ROWS = [-1, np.int64(3), slice(1, 6, 2), slice(5, 1, -2), [4, 0, 4], np.arange(7) % 2 == 0, np.array([[0, 1], [5, 6]])]
PARTS = [(-1, -1), (slice(2, 5), 1, None), ([0, 5], np.int64(3), slice(1, 2)), (slice(None), [1, 3]), ([1, 2], [0, 3])]
PARTS += [(2, 1, slice(None), [0, 2]), (Ellipsis, 0), (1, 2, 0, 3), (slice(None), 0, 0, 0), ([0, 5], Ellipsis, 2)]


@pytest.mark.parametrize("index", [*ROWS, [], *PARTS], ids=str)
def test_files_are_indexed_as_the_array_they_hold(stored, index):
    array, in_files = stored
    assert in_files[index].shape == array[index].shape and np.array_equal(in_files[index], array[index])


@pytest.mark.parametrize("index", [7, -8, (0, 4), (0, -5), ([7],), (0, 0, 3)])
def test_what_lies_outside_is_an_index_error(stored, index):
    with pytest.raises(IndexError):
        stored[1][index]


def test_files_look_like_the_array_they_hold(stored):
    array, in_files = stored
    for name in ("shape", "ndim", "size", "nbytes", "dtype"):
        assert getattr(in_files, name) == getattr(array, name)
    assert len(in_files) == 7 and np.array_equal(in_files, array) and np.array_equal(list(in_files), array)
    assert np.array_equal(pickle.loads(pickle.dumps(in_files)), array)  # noqa: S301  written here
    assert np.asarray(in_files, dtype=np.float32).dtype == np.float32
    order = np.random.default_rng(1).permuted(np.tile(np.arange(4), (7, 1)), axis=1)[:, :, None, None]
    assert np.array_equal(np.take_along_axis(in_files, order, axis=1), np.take_along_axis(array, order, axis=1))


def test_a_set_of_more_clips_than_a_process_may_open_files_is_built_and_read(build):
    def with_few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        clips = build(*(number % 100 for number in range(300)))
        held = [clips.clips[i] for i in range(300)]
        assert [int(clip[0, 0, 0]) for clip in held] == levels(clips) == [number % 100 for number in range(300)]

    assert in_child(with_few_files) == 0
