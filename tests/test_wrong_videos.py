"""Videos that hold less than their header says, or other pictures than were recorded."""

import struct

import numpy as np
import pytest
from test_video import (
    assert_agrees,
    authors_steps,
    count_frames,
    patch_after,
    refused,
    scene,
    write_or_skip,
    write_video,
)

from viptt_core.errors import ClipTooShortError, DataWarning
from viptt_core.video import load_clip, open_video


@pytest.mark.parametrize("kept", [400, 800, 1600])  # milliseconds of 2400
def test_frames_that_an_edit_list_cuts_off_are_not_called_truncated(tmp_path, kept):
    path = write_video(tmp_path / "trimmed.mp4", scene(60))
    patch_after(path, b"elst", 12, struct.pack(">I", kept))  # ISO 14496-12, 8.6.6: how much is shown
    n = count_frames(path)
    assert n == len(authors_steps(path)) and abs(n - kept / 40) <= 1
    assert_agrees(load_clip(path, frames=n), authors_steps(path))
    message = refused(path, "Lower `frames`", ClipTooShortError, load_clip, frames=60)
    assert f"{n} frames can be decoded, 60 are needed" in message and "truncated" not in message
    with open_video(path) as video:
        assert abs(sum(1 for _ in video.frames()) - video.promised) <= 1 and not video.ends_early


@pytest.mark.parametrize(
    "name, options",
    [
        ("v.avi", {}),
        ("v.mp4", {"movflags": "faststart"}),
    ],
)
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_file_that_ends_early_is_called_truncated(tmp_path, name, options, kept):
    path = write_video(tmp_path / name, scene(60), options=options)
    whole = load_clip(path, frames=5)
    with open_video(path) as video:
        assert sum(1 for _ in video.frames()) == 60 and not video.ends_early
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    np.testing.assert_array_equal(load_clip(path, frames=5), whole)
    message = refused(path, "download the file again", ClipTooShortError, load_clip, frames=60)
    assert "promises 60: it is truncated" in message


@pytest.mark.parametrize("name", ["v.avi", "v.mp4", "v.mkv", "v.webm"])
def test_what_follows_a_whole_file_is_no_truncation(tmp_path, name):
    codec = "libvpx" if name.endswith("webm") else "mpeg4"
    path = write_or_skip(tmp_path / name, scene(9), codec, "yuv420p")
    whole = path.read_bytes()
    for behind in (b"", bytes(40), b"\x19" * 40, b"\xff" * 40):
        path.write_bytes(whole + behind)
        assert "truncated" not in refused(path, "Lower `frames`", ClipTooShortError, load_clip, frames=20)


def test_a_frame_size_that_no_camera_has_is_refused_before_memory_is_taken(tmp_path):
    path = write_video(tmp_path / "large.avi", scene(3), "mjpeg", "yuvj420p")
    raw = bytearray(path.read_bytes())
    start, places = 0, []
    while (start := raw.find(b"\xff\xc0\0\x11\x08", start) + 1) > 0:  # ITU-T T.81, B.2.2: height and width follow
        places.append(start + 4)
    for place in places:
        raw[place : place + 4] = struct.pack(">HH", 60000, 60000)
    path.write_bytes(raw)
    assert len(places) == 3
    refused(path, "download the file again", call=load_clip, frames=2)


def test_damaged_frames_are_told_and_read_as_opencv_reads_them(tmp_path):
    path = write_video(tmp_path / "v.mp4", scene(12))
    raw = bytearray(path.read_bytes())
    start = raw.index(b"mdat") + 400
    raw[start : start + 60 : 3] = bytes(range(200, 220))
    path.write_bytes(raw)
    with pytest.warns(DataWarning, match=r"v\.mp4: \d+ of 12 frames are damaged"):
        clip = load_clip(path, frames=12)
    assert_agrees(clip, authors_steps(path))
