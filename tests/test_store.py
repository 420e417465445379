"""Clip sets on disk: decoded once, complete or absent, what is left out is listed."""

import errno
import json
import os
import signal
import warnings

import numpy as np
import pytest
from forked import in_child

from viptt_core import store
from viptt_core.clips import ClipSet, Item
from viptt_core.errors import ClipTooShortError, DataError, DataWarning, SettingError, StorageError
from viptt_core.files import cache_root
from viptt_core.store import Decoding, Recipe, build_clip_set, open_clip_set

CALLS = []


def decode(source):
    CALLS.append(source)
    if source == "broken":
        raise DataError("is damaged.", path="b.avi", remedy="Copy it again.")
    if source == "short":
        raise ClipTooShortError("has 3 frames, 8 needed.", path="s.avi", remedy="Ask for fewer.")
    if source == "odd":
        warnings.warn("o.nii.gz: 5 voxels are NaN", DataWarning, stacklevel=2)
        return np.full((2, 3, 3), 7, np.uint8)
    if source == "fraction":
        return np.full((2, 3, 3), 100.125, np.float16)
    return np.full((2, 3, 3), source, np.uint8)


def decode_file(path):
    """A file holds what `decode` takes."""
    text = path.read_text()
    return decode(int(text) if text.isdigit() else text)


def built(items, decode, *, n_jobs=1, on_error="raise", progress=False, **recipe):
    recipe = Recipe(items, decode, class_names=("a", "b"), **recipe)
    return build_clip_set(recipe, Decoding(on_error, n_jobs, progress))


def build(*sources, **settings):
    CALLS.clear()
    items = [Item(f"n{i}", i % 2, f"g{i}", source) for i, source in enumerate(sources)]
    settings = {"settings": {"set": "test", "sources": list(sources)}} | settings
    return built(items, decode, **settings)


def visible():
    return [path for path in cache_root().iterdir() if not path.name.startswith(".")]


def build_files(root, labels=None, **settings):
    """A set of all files in a folder; CALLS gets what was decoded."""
    CALLS.clear()
    paths = sorted(root.iterdir())
    items = [Item(path.name, (labels or {}).get(path.name, 0), path.name, path) for path in paths]
    settings = {"settings": {"set": "files"}, "place": [str(root)]} | settings
    return built(items, decode_file, **settings)


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


@pytest.fixture
def files(tmp_path):
    for i, text in enumerate(("5", "6", "short", "8")):
        write(tmp_path / "files" / f"f{i}", text)
    return tmp_path / "files"


def levels(clips):
    return clips.clips[:, 0, 0, 0].tolist()


def test_clips_labels_groups_and_names_come_back_in_order():
    clips = build(5, 6, 7)
    assert clips.clips[:, 0, 0, 0].tolist() == [5, 6, 7] and clips.clips.shape == (3, 2, 3, 3)
    assert clips.labels.tolist() == [0, 1, 0] and clips.names.tolist() == ["n0", "n1", "n2"]
    assert clips.groups.tolist() == ["g0", "g1", "g2"] and clips.counts() == {"a": 2, "b": 1}


def test_a_set_is_decoded_once_and_memory_mapped():
    build(5, 6)
    clips = build(5, 6)
    assert CALLS == [] and isinstance(clips.clips, np.memmap)
    assert clips.clips.flags.writeable is False


def test_other_settings_are_another_set():
    build(5, 6)
    build(5, 6, settings={"set": "test", "frames": 9})
    assert CALLS == [5, 6]


def test_workers_give_the_same_set_as_one_process():
    alone = build(5, 6, 7, settings={"set": "test", "jobs": 1})
    together = build(5, 6, 7, n_jobs=2, settings={"set": "test", "jobs": 2})
    assert np.array_equal(alone.clips, together.clips)


def test_all_unreadable_files_are_named_in_one_error_and_nothing_stays():
    with pytest.raises(DataError, match="(?s)2 of 4 files.*b.avi: is damaged. Copy it again.*on_error") as caught:
        build(1, "broken", 2, "broken")
    assert str(caught.value).count("b.avi") == 2 and "The 2 others are kept" in str(caught.value)
    assert visible() == []


def test_unreadable_files_are_left_out_and_listed_on_request():
    clips = build(1, "broken", 2, on_error="skip")
    assert clips.names.tolist() == ["n0", "n2"]
    assert clips.excluded == (("n1", "is damaged."),)
    assert "Left out: 1" in clips.report() and "n1: is damaged." in clips.report()


def test_short_videos_are_left_out_and_listed():
    clips = build(1, "short", 2)
    assert clips.excluded == (("n1", "has 3 frames, 8 needed."),)


def test_a_set_with_nothing_left_says_why():
    with pytest.raises(DataError, match="(?s)none of the 2 files.*has 3 frames"):
        build("short", "short")
    with pytest.raises(DataError, match="no clip"):
        build()


def test_notes_are_warned_about_and_kept():
    with pytest.warns(DataWarning, match="5 voxels are NaN"):
        build("odd")
    assert "5 voxels are NaN" in build("odd").report()


def test_notes_of_worker_processes_arrive():
    with pytest.warns(DataWarning, match="5 voxels are NaN"):
        build("odd", 3, n_jobs=2)


@pytest.mark.parametrize("damage", ["array", "byte", "json", "meta", "format"])
def test_a_damaged_set_is_refused_with_its_folder_and_built_again(damage):
    build(5, 6)
    (folder,) = visible()
    array, record = folder / "rows.bin", folder / "rows.json"
    if damage == "array":
        array.write_bytes(b"x")
    elif damage == "byte":
        data = array.read_bytes()
        array.write_bytes(data[:-1] + b"x")
    elif damage == "json":
        record.write_text("{")
    else:
        text = json.loads(record.read_text())
        record.write_text(json.dumps(text | ({"meta": {}} if damage == "meta" else {"format": 0})))
    with pytest.raises(DataError, match="clips-.*Delete this folder"):
        open_clip_set(folder)
    again = {"byte": [6], "meta": []}.get(damage, [5, 6])
    with pytest.warns(DataWarning, match=rf"{folder}.* Decoded again: {len(again)} of 2 files"):
        clips = build(5, 6)
    assert again == CALLS and levels(clips) == [5, 6]
    assert levels(open_clip_set(folder)) == [5, 6]


def test_a_set_that_does_not_fit_together_is_refused(make_clip_set):
    with pytest.raises(DataError, match="20 clips but 3 labels"):
        make_clip_set(labels=np.zeros(3, dtype=int))
    with pytest.raises(DataError, match="outside the class names"):
        make_clip_set(labels=np.full(20, 9))
    with pytest.raises(DataError, match="float64.*uint8 .* is needed"):
        ClipSet(np.zeros((1, 1, 1, 1)), np.zeros(1, int), np.array(["g"]), np.array(["n"]), ("a",), {})
    with pytest.raises(SettingError, match="on_error 'ignore' does not exist"):
        build(5, on_error="ignore")


def test_clips_that_differ_from_the_others_are_broken_files():
    with pytest.raises(DataError, match=r"(?s)1 of 2 files.*float16 \(2, 3, 3\) when decoded, not uint8"):
        build(5, "fraction")


# --- Files that change ----------------------------------------------------------------------------


def test_only_changed_and_new_files_are_decoded_again_and_it_is_said(files):
    before = build_files(files)
    write(files / "f1", "9")
    write(files / "e", "4")
    (files / "f0").unlink()
    with pytest.warns(DataWarning, match="1 of 4 files changed, 1 new, 1 gone since.* Decoded again: 2"):
        after = build_files(files)
    assert sorted(CALLS) == [4, 9] and levels(after) == [4, 9, 8] and after.names.tolist() == ["e", "f1", "f3"]
    assert after.excluded == (("f2", "has 3 frames, 8 needed."),) and before.key != after.key
    assert levels(before) == [5, 6, 8]  # still open elsewhere
    assert len(visible()) == 1


def test_other_labels_need_no_decoding(files):
    before = build_files(files)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = build_files(files, labels={"f1": 1})
    assert CALLS == [] and after.labels.tolist() == [0, 1, 0] and levels(after) == [5, 6, 8]
    assert before.key != after.key and len(visible()) == 1


def test_moved_files_keep_the_key_of_the_set(files):
    before = build_files(files)
    moved = files.rename(files.with_name("moved"))
    after = build_files(moved)
    assert before.key == after.key and len(visible()) == 2


def test_after_mending_only_the_broken_file_is_decoded(files):
    write(files / "f1", "broken")
    with pytest.raises(DataError, match="(?s)1 of 4 files.*The 2 others are kept and not decoded again"):
        build_files(files)
    assert visible() == []
    write(files / "f1", "6")
    assert levels(build_files(files)) == [5, 6, 8] and CALLS == [6]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_skipping_uses_what_was_decoded_before_and_raising_tries_the_skipped_again(files, n_jobs):
    write(files / "f1", "broken")
    for on_error, decoded in (("raise", 4), ("skip", 1), ("skip", 0), ("raise", 1)):
        if on_error == "raise":
            with pytest.raises(DataError, match="1 of 4 files"):
                build_files(files, n_jobs=n_jobs)
        else:
            clips = build_files(files, on_error="skip", n_jobs=n_jobs)
            assert levels(clips) == [5, 8] and [name for name, _ in clips.excluded] == ["f1", "f2"]
        assert n_jobs == 2 or len(CALLS) == decoded
    assert levels(open_clip_set(visible()[0])) == [5, 8]


# --- Killed, and two at once ----------------------------------------------------------------------


def dying_at(level):
    def decode_or_die(source):
        if source == level:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(source)

    return decode_or_die


def build_with(decoder, *sources, progress=False):
    CALLS.clear()
    items = [Item(f"n{i}", 0, f"g{i}", source) for i, source in enumerate(sources)]
    return built(items, decoder, settings={"set": "test"}, progress=progress)


def test_a_killed_build_goes_on_where_it_was(capfd):
    assert in_child(lambda: build_with(dying_at(7), 5, "short", "odd", 7, 8)) == -signal.SIGKILL
    assert visible() == []
    with pytest.warns(DataWarning, match="5 voxels are NaN"):
        clips = build_with(decode, 5, "short", "odd", 7, 8, progress=True)
    assert CALLS == [7, 8] and levels(clips) == [5, 7, 7, 8]
    assert clips.excluded == (("n1", "has 3 frames, 8 needed."),) and "5 voxels are NaN" in clips.notes[0]
    assert "5/5" in capfd.readouterr().err


def test_two_processes_decode_a_set_once_between_them(tmp_path):
    waits, told = os.pipe()
    started, begun = os.pipe()
    made, said = tmp_path / "made", tmp_path / "said"

    def slow(source):
        if source == 5:
            os.write(begun, b"x")
            os.read(waits, 1)  # goes on once the other one waits
        with open(made, "ab", buffering=0) as file:
            file.write(b"x")
        return decode(source)

    def second():
        def say(text, **settings):
            said.write_text(text)
            os.write(told, b"x")

        store.print = say
        assert levels(build_with(slow, 5, 6)) == [5, 6]

    first = os.fork()
    if first == 0:
        code = 1
        try:
            assert levels(build_with(slow, 5, 6)) == [5, 6]
            code = 0
        finally:
            os._exit(code)
    os.read(started, 1)
    assert in_child(second) == 0
    assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 0
    assert made.read_bytes() == b"xx" and "another process decodes this set" in said.read_text()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_full_disk_names_the_file_and_keeps_what_is_done(monkeypatch, n_jobs):
    real = os.posix_fallocate

    def fill_up(descriptor, offset, size):
        os.ftruncate(descriptor, size // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", fill_up)
    with pytest.raises(StorageError, match="rows.bin.*No space left.*Free 0.1 GB or name another.*VIPTT_CACHE"):
        build(5, 6, 7, n_jobs=n_jobs)
    assert visible() == [] and CALLS == [5]
    monkeypatch.setattr(os, "posix_fallocate", real)
    assert levels(build(5, 6, 7, n_jobs=n_jobs)) == [5, 6, 7]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIPTT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="file/cache.*Not a directory.*VIPTT_CACHE"):
        build(5)
