"""Video file -> clip: the first frames as grey images on the paper's grid, uint8 [T,H,W].

The authors' steps (their UCF50 notebook), by OpenCV: decode to BGR, resize bilinearly to 224 x 224, convert
to grey. The same grey levels come faster from the luma plane, which the decoder holds anyway; where that
is not safe, the authors' own steps run instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from os import PathLike
from pathlib import Path

import av
import cv2
import numpy as np

from viptt_core.constants import PAPER_FRAMES, PAPER_SIZE
from viptt_core.errors import ClipTooShortError, DataError, SettingError, check_choice

FITS = ("stretch", "crop")

_COPY_AGAIN = "Copy or download the file again, or leave the clip out."

# The luma shortcut holds where OpenCV's BGR is built from 8-bit, limited-range BT.601 planes.
_LUMA_FORMATS = ("yuv420p", "yuv422p")
_LUMA_COLOURSPACES = (2, 5, 6)  # unspecified (BT.601 is assumed), BT.470BG, SMPTE 170M; ITU-T H.273
_FULL_RANGE = 2  # ITU-T H.273, as FFmpeg numbers it

# Luma 16..235 stretched to 0..255. The path through BGR truncates twice (YUV to BGR, BGR to grey),
# which costs 1.2 grey levels on average whatever the content: measured on UCF101, HMDB51 and UT-Interaction.
_TRUNCATION = 1.2
_GAIN = 255 / 219
_OFFSET = -16 * _GAIN - _TRUNCATION

# Some HMDB51 headers hold text that is not UTF-8, which is of no interest here. PyAV before 19 refuses such
# files unless told otherwise; from 19 on it reads them, and no longer knows the option.
_PYAV_MAJOR = int(av.__version__.split(".")[0])
_OPEN_OPTIONS = {"metadata_errors": "ignore"} if _PYAV_MAJOR < 19 else {}

# Headers of intact videos promise up to this many frames more than there are (UT-Interaction).
HEADER_SLACK = 2


def load_clip(
    path: str | PathLike, *, frames=PAPER_FRAMES, size=PAPER_SIZE, stride: int = 1, fit: str = "stretch"
) -> np.ndarray:
    """Read frames 0, stride, 2*stride, ... of a video as grey images.

    The defaults are the authors': the first 70 frames, each stretched to 224 x 224. Decoding runs
    forward from frame 0 and stops at the last wanted frame. Rotation tags of phone videos are ignored,
    as the OpenCV of the authors' time did. Like OpenCV, it takes the video to end at the first packet
    that cannot be decoded.

    Args:
        path: Video file in any format FFmpeg decodes.
        frames: Number T of frames to return.
        size: Height and width of the result, pixels.
        stride: Distance between two frames taken, in frames of the video.
        fit: "stretch" the frame to a square, or "crop" its central square first: use that where the
            shape of the frame would give the class away.

    Returns:
        uint8 [frames,size,size], grey levels 0..255. At most 1.0 grey level (mean absolute difference of
        a clip) from the authors' OpenCV steps.

    Raises:
        SettingError: `frames`, `size` or `stride` below 1, or an unknown `fit`.
        DataError: the file is missing, empty, not a video, or none of its frames can be decoded.
        ClipTooShortError: fewer frames than needed.
    """
    _check_counts(frames=frames, size=size, stride=stride)
    check_choice("fit", fit, FITS)
    clip = np.empty((frames, size, size), np.uint8)
    needed = (frames - 1) * stride + 1
    found, image = 0, None
    with open_video(path) as (decoded, promised):
        for frame in islice(decoded, needed):
            if found % stride == 0:
                image = _frame_pixels(frame, image)
                _fit_image(image, size, fit, out=clip[found // stride])
            found += 1
    if found < needed:
        raise _too_short(path, found, needed, promised)
    return clip


def video_shape(path: str | PathLike) -> tuple[int, int, int]:
    """Number of frames that can be decoded (headers are often wrong), height and width in pixels.

    Raises:
        DataError: the file is missing, empty, not a video, or none of its frames can be decoded.
    """
    frames, height, width = 0, 0, 0
    with open_video(path) as (decoded, _):
        for frame in decoded:
            frames, height, width = frames + 1, frame.height, frame.width
    return frames, height, width


def grey_frames(rgb: np.ndarray) -> np.ndarray:
    """Grey levels of RGB frames in memory, by OpenCV's weights (0.299, 0.587, 0.114; ITU-R BT.601).

    Args:
        rgb: uint8 [T,H,W,3].

    Returns:
        uint8 [T,H,W].

    Raises:
        DataError: another shape or dtype.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 4 or rgb.shape[-1] != 3 or not rgb.size:
        raise DataError(f"RGB frames are {rgb.dtype} {list(rgb.shape)}.", remedy="Give uint8 [T,H,W,3].")
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in rgb])


def fit_frames(frames_grey: np.ndarray, *, size: int, fit: str = "stretch") -> np.ndarray:
    """Bring grey frames in memory to a square grid, as `load_clip` does with those of a file.

    Args:
        frames_grey: uint8 [T,H,W], grey levels 0..255.
        size: Height and width of the result, pixels.
        fit: "stretch" or "crop", see `load_clip`.

    Returns:
        uint8 [T,size,size].

    Raises:
        SettingError: `size` below 1, or an unknown `fit`.
        DataError: another shape or dtype.
    """
    _check_counts(size=size)
    check_choice("fit", fit, FITS)
    if frames_grey.dtype != np.uint8 or frames_grey.ndim != 3 or not frames_grey.size:
        what = f"grey frames are {frames_grey.dtype} {list(frames_grey.shape)}."
        raise DataError(what, remedy="Give uint8 [T,H,W].")
    fitted = np.empty((len(frames_grey), size, size), np.uint8)
    for image, out in zip(frames_grey, fitted, strict=True):
        _fit_image(image, size, fit, out)
    return fitted


@contextmanager
def open_video(path: str | PathLike) -> Iterator[tuple[Iterator[av.VideoFrame], int]]:
    """Yield the frames as they are decoded, and the number that the header promises (0: it does not say).

    Raises:
        DataError: the file is missing, empty, not a video, or none of its frames can be decoded.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError("is not a file.", path=path, remedy="Check the path.", kind="missing file")
    if file.stat().st_size == 0:
        raise DataError("is empty (0 bytes).", path=path, remedy=_COPY_AGAIN, kind="empty file")
    try:
        # Absolute: FFmpeg takes what stands before a colon in a relative path for a protocol.
        container = av.open(str(file.absolute()), **_OPEN_OPTIONS)
    except av.FFmpegError as error:
        what = f"cannot be opened as a video ({error.strerror}): damaged, or another kind of file."
        raise DataError(what, path=path, remedy=_COPY_AGAIN, kind="not a readable video") from error
    with container:
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None:
            raise DataError(
                "holds no video that can be decoded.",
                path=path,
                remedy="Give a video file.",
                kind="not a readable video",
            )
        stream.codec_context.thread_count = 1  # FFmpeg's own threads slow down clips this small
        yield _decode(container, stream, path), stream.frames


def _decode(container, stream, path: str | PathLike) -> Iterator[av.VideoFrame]:
    """Yield all frames from the first on, up to the first packet that cannot be decoded."""
    found = 0
    try:
        for packet in container.demux(stream):
            for frame in packet.decode():
                found += 1
                yield frame
    except av.error.InvalidDataError:
        pass  # where OpenCV ends the video too; the caller counts what came
    except av.FFmpegError as error:
        raise DataError(
            f"cannot be decoded ({error.strerror}).", path=path, remedy=_COPY_AGAIN, kind="damaged file"
        ) from error
    if not found:
        raise DataError("holds no frame that can be decoded.", path=path, remedy=_COPY_AGAIN, kind="damaged file")


def _frame_pixels(frame: av.VideoFrame, used: np.ndarray | None) -> np.ndarray:
    """Grey levels uint8 [H,W] where the luma plane gives them, else BGR uint8 [H,W,3] (exact, slower).

    The result lies in the memory of `used`, the image before, where that fits: it is in the cache still.
    """
    plane = frame.planes[0]
    if (
        frame.format.name in _LUMA_FORMATS
        and frame.color_range != _FULL_RANGE
        and frame.colorspace in _LUMA_COLOURSPACES
        and frame.height % 2 == 0  # FFmpeg converts odd heights by other, rounding code
        and plane.line_size >= frame.width  # negative in pictures stored bottom-up
    ):
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        luma = lines[: frame.height, : frame.width]  # lines are padded
        # gain * luma + offset, rounded and kept in 0..255: twice as fast as a table of the 256 values.
        return cv2.addWeighted(luma, _GAIN, luma, 0, _OFFSET, dst=used)
    return frame.to_ndarray(format="bgr24", interpolation="BICUBIC")  # of chroma: as OpenCV


def _fit_image(image: np.ndarray, size: int, fit: str, out: np.ndarray) -> None:
    """Bring an image, grey [H,W] or BGR [H,W,3], to the grid of `out`, uint8 [size,size], as grey levels."""
    if fit == "crop":
        height, width = image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if image.ndim == 2:
        cv2.resize(image, (size, size), dst=out, interpolation=cv2.INTER_LINEAR)
    else:  # grey after the resize, in the authors' order
        small = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
        cv2.cvtColor(small, cv2.COLOR_BGR2GRAY, dst=out)


def _too_short(path, found: int, needed: int, promised: int) -> ClipTooShortError:
    what, kind = f"{found} frames can be decoded, {needed} are needed.", "too few frames"
    remedy = "Lower `frames` or `stride`, or leave the clip out."
    if promised > found + HEADER_SLACK:
        what, kind = f"{what} Its header promises {promised}: it looks truncated or damaged.", "truncated file"
        remedy = f"Copy or download the file again. Else: {remedy[0].lower()}{remedy[1:]}"
    return ClipTooShortError(what, path=path, remedy=remedy, kind=kind)


def _check_counts(**settings: int) -> None:
    for name, value in settings.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise SettingError(f"{name} is {value!r}.", remedy="Give a whole number of at least 1.")
