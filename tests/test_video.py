"""Video files against the authors' OpenCV steps, and every way a file can be unusable."""

import os
import struct
import wave
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from viptt_core.errors import ClipTooShortError, DataError, SettingError
from viptt_core.video import fit_frames, load_clip, open_video

SHARED = Path(os.environ.get("VIPTT_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
REAL_VIDEOS = sorted((SHARED / "videos").glob("*/*/*.avi"))[::8]


def authors_steps(path, frames=None, size=224):
    """What the authors' UCF50 notebook does: uint8 [T,size,size]."""
    capture, clip = cv2.VideoCapture(str(path)), []
    while frames is None or len(clip) < frames:
        there, bgr = capture.read()
        if not there:
            break
        clip.append(cv2.cvtColor(cv2.resize(bgr, (size, size)), cv2.COLOR_BGR2GRAY))
    capture.release()
    return np.stack(clip)


def scene(n=20, height=96, width=128):
    """Smooth coloured waves that move: uint8 RGB [T,H,W,3]."""
    t, y, x = np.mgrid[:n, :height, :width].astype(np.float32)
    waves = [np.sin(x / 30 + t / 5), np.sin(y / 20 + t / 3), np.cos((x + y) / 40 + t / 9)]
    return (128 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def write_video(path, rgb, codec="mpeg4", pixels="yuv420p", options=None, **tags):
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt = *rgb.shape[1:3], pixels
        for tag, value in tags.items():
            setattr(stream.codec_context, tag, value)
        for image in rgb:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


def write_or_skip(path, rgb, codec, pixels):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec} encoder")
    if codec == "libx264":
        rgb = rgb[:, :, : rgb.shape[2] // 2 * 2]  # H.264 with 4:2:0 has even widths only
    return write_video(path, rgb, codec, pixels)


def patch_after(path, tag, offset, new):
    raw = bytearray(path.read_bytes())
    start = raw.index(tag) + offset
    raw[start : start + len(new)] = new
    path.write_bytes(raw)
    return path


def assert_agrees(ours, theirs, mean=1.0, bias=0.5):
    """Largest mean absolute difference and mean difference, in grey levels."""
    difference = ours.astype(np.float64) - theirs
    assert ours.dtype == np.uint8
    assert np.abs(difference).mean() <= mean
    assert abs(difference.mean()) <= bias


def count_frames(path):
    with open_video(path) as video:
        return sum(1 for _ in video.frames())


def refused(path, remedy, kind=DataError, call=count_frames, **settings):
    with pytest.raises(DataError) as caught:
        call(path, **settings)
    assert type(caught.value) is kind
    assert str(path) in str(caught.value)
    assert remedy in str(caught.value)
    return str(caught.value)


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "v_Kick_g01_c01.avi", scene())


# --- Agreement with the authors' preprocessing -----------------------------------------------


@pytest.mark.parametrize("path", REAL_VIDEOS, ids=lambda p: p.stem[:40])
def test_real_video_agrees_with_the_authors_steps(path):
    theirs = authors_steps(path, 70)
    assert_agrees(load_clip(path, frames=len(theirs)), theirs)


NEAR, EXACT = {}, {"mean": 0.05, "bias": 0.05}  # how the luma plane agrees with the authors' steps, and their steps
FORMATS = [
    (NEAR, "a.avi", "mpeg4", "yuv420p"),
    (NEAR, "b.mp4", "mpeg4", "yuv420p"),
    (NEAR, "c.mkv", "ffv1", "yuv422p"),
    (NEAR, "d.mp4", "libx264", "yuv420p"),
    (EXACT, "a.avi", "mjpeg", "yuvj420p"),
    (EXACT, "b.mkv", "ffv1", "yuv444p"),
    (EXACT, "c.mkv", "ffv1", "gray"),
    (EXACT, "d.mkv", "ffv1", "bgr0"),
    (EXACT, "e.mkv", "ffv1", "yuv420p10le"),
    (EXACT, "f.avi", "rawvideo", "bgr24"),
    (EXACT, "g.mp4", "libx264", "yuvj420p"),
]
ODD_HEIGHTS = [((97, 133), EXACT, "odd.mkv", "ffv1", pixels) for pixels in ("yuv420p", "yuv422p")]


@pytest.mark.parametrize(
    "shape, within, name, codec, pixels",
    [*((shape, *each) for each in FORMATS for shape in ((96, 128), (98, 133))), *ODD_HEIGHTS],
)
def test_each_pixel_format_agrees_with_the_authors_steps(tmp_path, shape, within, name, codec, pixels):
    path = write_or_skip(tmp_path / name, scene(6, *shape), codec, pixels)
    assert_agrees(load_clip(path, frames=6), authors_steps(path), **within)


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("a.webm", "libvpx", "yuv420p", {"live": "1"}),  # states neither duration nor number of frames
        ("b.webm", "libvpx-vp9", "yuv420p", {"live": "1"}),
        ("c.mkv", "libsvtav1", "yuv420p", {}),
        ("d.mp4", "libx265", "yuv420p", {}),
        ("e.mp4", "libx265", "yuv420p10le", {}),
        ("f.mpg", "mpeg2video", "yuv420p", {}),
    ],
)
def test_newer_and_older_codecs_agree_with_the_authors_steps(tmp_path, name, codec, pixels, options):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec} encoder")
    path = write_video(tmp_path / name, scene(12), codec, pixels, options)
    no_opencv = codec == "libsvtav1"  # some builds of it do not decode AV1
    theirs = fit_frames(np.stack(decode_rgb(path)), size=224) if no_opencv else authors_steps(path, 12)
    assert_agrees(load_clip(path, frames=12), theirs)
    message = refused(path, "Lower `frames`", ClipTooShortError, load_clip, frames=40)
    assert "12 frames can be decoded" in message and "truncated" not in message


@pytest.mark.parametrize(("tag", "value"), [("colorspace", 1), ("color_range", 2)])
def test_luma_of_another_standard_equals_the_authors_steps(tmp_path, tag, value):
    """BT.709 (1), or full range (2; ITU-T H.273): luma is not the grey level that OpenCV computes."""
    path = write_video(tmp_path / "tagged.mkv", scene(6), "ffv1", **{tag: value})
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.format.name, getattr(frame, tag)) == ("yuv420p", value)
    assert_agrees(load_clip(path, frames=6), authors_steps(path), **EXACT)


def test_every_luma_level_becomes_its_grey_level(tmp_path):
    """Exactly: none lies so near to a half that the processor could decide how it is rounded."""
    luma = np.arange(256, dtype=np.uint8).reshape(16, 16)
    planes = np.concatenate([luma, np.full((8, 16), 128, np.uint8)])  # Y, then U and V
    path = tmp_path / "levels.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        for image in (planes, planes[::-1]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "yuv420p")))
        container.mux(stream.encode())
    unrounded = (luma.astype(np.float64) - 16) * 255 / 219 - 1.2
    assert np.abs(unrounded % 1 - 0.5).min() > 4e-4
    expected = np.rint(np.clip(unrounded, 0, 255))
    first, second = load_clip(path, frames=2, size=16)  # the second in the memory of the first
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(second[8:], expected[:7:-1])


# --- Which frames, and how they are fitted ----------------------------------------------------


def test_stride_takes_every_nth_frame_from_the_first(video):
    np.testing.assert_array_equal(load_clip(video, frames=4, stride=6), load_clip(video, frames=19)[::6])


def test_last_frame_needed_may_be_the_last_of_the_file(video):
    assert count_frames(video) == 20
    assert load_clip(video, frames=20).shape[0] == load_clip(video, frames=2, stride=19).shape[0] * 10
    refused(video, "Lower", ClipTooShortError, load_clip, frames=2, stride=20)


@pytest.mark.parametrize("shape", [(96, 128), (97, 133)])  # by luma plane and by the exact path
def test_crop_of_a_file_equals_crop_in_memory(tmp_path, shape):
    path = write_video(tmp_path / "v.mkv", scene(3, *shape), "ffv1")
    uncut = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in decode_rgb(path)])
    assert_agrees(load_clip(path, frames=3, size=48, fit="crop"), fit_frames(uncut, size=48, fit="crop"))


def decode_rgb(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_frames_that_change_size_are_fitted_one_by_one(tmp_path):
    path = tmp_path / "changing.mjpeg"
    images = [np.full(shape, level, np.uint8) for shape, level in (((40, 60), 50), ((80, 32), 150))]
    path.write_bytes(b"".join(cv2.imencode(".jpg", image)[1].tobytes() for image in images))
    clip = load_clip(path, frames=2, size=16)
    np.testing.assert_allclose(clip.mean(axis=(1, 2)), [50, 150], atol=1)


def test_rotation_tag_is_ignored(tmp_path):
    upright = write_video(tmp_path / "upright.mp4", scene(4))
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(upright.read_bytes())
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    patch_after(turned, b"tkhd", 44, quarter)  # ISO 14496-12: the matrix of the track header
    with av.open(str(turned)) as container:
        assert abs(next(container.decode(video=0)).rotation) == 90
    np.testing.assert_array_equal(load_clip(turned, frames=4), load_clip(upright, frames=4))


@pytest.mark.parametrize("name", ["a:b.avi", "clip %03d (1)!+.avi", "clip.txt"])
def test_unusual_file_names_are_read(tmp_path, monkeypatch, video, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(video.read_bytes())
    np.testing.assert_array_equal(load_clip(name, frames=3), load_clip(video, frames=3))


def test_header_text_that_is_not_utf8_is_no_obstacle(video):
    """PyAV before 19 refuses it unless told otherwise; PyAV 19 reads it, and refuses to be told."""
    expected = load_clip(video, frames=20)
    patch_after(video, b"ISFT", 8, b"caf\xe9")  # RIFF: the text after its size; Latin-1, as cameras write it
    if int(av.__version__.split(".")[0]) < 19:
        with pytest.raises(UnicodeDecodeError):
            av.open(str(video))
    else:
        with pytest.raises(TypeError):
            av.open(str(video), metadata_errors="ignore")
    np.testing.assert_array_equal(load_clip(video, frames=20), expected)


@pytest.mark.parametrize("promised", [0, 3, 5000])
def test_frame_count_of_the_header_is_not_trusted(video, promised):
    patch_after(video, b"strh", 8 + 32, struct.pack("<I", promised))  # AVI stream header: dwLength
    assert count_frames(video) == 20
    assert len(load_clip(video, frames=20)) == 20


# --- Frames in memory ---------------------------------------------------------------------------


def test_grey_of_rgb_weighs_the_colours_as_opencv():
    rgb = scene(3, 96, 96)
    expected = rgb @ np.array([0.299, 0.587, 0.114])
    grey = fit_frames(rgb, size=96)
    assert (grey.shape, grey.dtype) == (rgb.shape[:3], np.uint8)
    assert np.abs(grey - expected).max() <= 0.51


def test_frames_in_memory_are_stretched_bilinearly():
    ramp = np.broadcast_to(np.arange(0, 240, 2, dtype=np.uint8), (2, 30, 120))
    fitted = fit_frames(ramp, size=60)
    assert (fitted.shape, fitted.dtype) == ((2, 60, 60), np.uint8)
    np.testing.assert_allclose(fitted[1, 7], np.arange(60) * 4 + 1, atol=1)


def test_crop_in_memory_takes_rows_of_a_tall_frame():
    rows = np.broadcast_to(np.arange(90, dtype=np.uint8)[:, None], (1, 90, 30))
    np.testing.assert_array_equal(fit_frames(rows, size=30, fit="crop")[0, :, 0], np.arange(30, 60))


@pytest.mark.parametrize(
    "shape, dtype",
    [
        ((5, 6), "uint8"),
        ((0, 5, 6), "uint8"),
        ((2, 5, 6, 4), "uint8"),
        ((1, 2, 5, 6, 3), "uint8"),
        ((2, 5, 6), "float32"),
    ],
)
def test_frames_in_memory_of_another_shape_are_refused(shape, dtype):
    with pytest.raises(DataError, match=r"Give uint8, grey \[T,H,W\] or RGB \[T,H,W,3\]"):
        fit_frames(np.zeros(shape, dtype), size=4)


# --- Unusable input -----------------------------------------------------------------------------


def test_too_short_video_says_what_was_found_and_needed(video):
    remedy = "Lower `frames` or `stride`, or leave the clip out"
    message = refused(video, remedy, ClipTooShortError, load_clip)
    assert "20 frames" in message
    assert "70 are needed" in message
    assert "truncated" not in message


def test_damaged_video_ends_where_opencv_ends_it(tmp_path):
    path = write_video(tmp_path / "damaged.avi", scene(30), "mjpeg", "yuvj420p")
    pieces = path.read_bytes().split(b"\xff\xd8")  # how a JPEG image begins: image n is piece n
    pieces[13] = bytes(len(pieces[13]) - 16) + pieces[13][-16:]  # at the end: size of the next image
    path.write_bytes(b"\0\0".join([b"\xff\xd8".join(pieces[:13]), b"\xff\xd8".join(pieces[13:])]))
    theirs = authors_steps(path)
    assert count_frames(path) == len(theirs) == 12
    assert_agrees(load_clip(path, frames=len(theirs)), theirs)
    refused(path, "download the file again", ClipTooShortError, load_clip, frames=30)


def test_missing_file_and_folder_are_refused(tmp_path):
    for call in (count_frames, load_clip):
        refused(tmp_path / "none.avi", "Check the path", call=call)
        refused(tmp_path, "Check the path", call=call)


def sound_alone(path):
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))


def unknown_codec(path):
    path.write_bytes(write_video(path, scene(5)).read_bytes().replace(b"FMP4", b"zzzz"))


def headers_alone(path):
    content = write_video(path, scene(5)).read_bytes()
    path.write_bytes(content[: content.index(b"movi") + 4])


@pytest.mark.parametrize(
    "write, words, remedy",
    [
        (lambda path: path.touch(), "0 bytes", "download the file again"),
        (lambda path: path.write_bytes(b"this is text, not a video\n" * 50), "", "download the file again"),
        (lambda path: path.write_bytes(bytes(5000)), "", "download the file again"),
        (lambda path: path.write_bytes(b"RIFF"), "", "download the file again"),
        (sound_alone, "no video", "Give a video file"),
        (unknown_codec, "no video", "Give a video file"),
        (headers_alone, "", "download the file again"),
    ],
)
def test_unusable_files_are_refused_by_name_with_the_remedy(tmp_path, write, words, remedy):
    write(tmp_path / "v.avi")
    assert words in refused(tmp_path / "v.avi", remedy, call=load_clip)


WRONG_SETTINGS = {"frames": (0, 7.5, 10**9), "size": (0,), "stride": (0, -1), "fit": ("letterbox",)}


@pytest.mark.parametrize("settings", [{name: value} for name, values in WRONG_SETTINGS.items() for value in values])
def test_settings_are_checked_before_the_file(tmp_path, settings):
    with pytest.raises(SettingError, match=f"{next(iter(settings))} |a clip of 1000000000 x 224 x 224 is too large"):
        load_clip(tmp_path / "none.avi", **settings)
