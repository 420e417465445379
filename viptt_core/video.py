"""Video file -> clip: the first frames as grey images on the paper's grid, uint8 [T,H,W].

The authors' steps, by OpenCV: decode to BGR, resize bilinearly to 224 x 224, convert to grey. The luma plane, which
the decoder holds anyway, gives the same grey levels faster; where that is not safe, the authors' own steps run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path

import av
import cv2
import numpy as np

from viptt_core.constants import PAPER_FRAMES, PAPER_SIZE
from viptt_core.errors import (
    COPY_AGAIN,
    ClipTooShortError,
    DataError,
    Fault,
    check_choice,
    check_counts,
    check_grid,
    warn_of,
)
from viptt_core.files import reading

FITS = ("stretch", "crop")
MOST_PIXELS = 2**25  # of a frame: 8K has 33 million; a header that claims more is not believed

# The luma shortcut holds where OpenCV's BGR is built from 8-bit, limited-range BT.601 planes.
_LUMA_FORMATS = ("yuv420p", "yuv422p")
_LUMA_COLOURSPACES = (2, 5, 6)  # unspecified (BT.601 is assumed), BT.470BG, SMPTE 170M; ITU-T H.273
_FULL_RANGE = 2  # ITU-T H.273, as FFmpeg numbers it

# Luma 16..235 stretched to 0..255. The path through BGR truncates twice, which costs 1.2 grey levels on average,
# whatever the content: measured on UCF101, HMDB51 and UT-Interaction.
_GAIN = 255 / 219
_OFFSET = -16 * _GAIN - 1.2

# Some HMDB51 headers hold text that is not UTF-8. PyAV before 19 needs this option to open them, later ones lack it.
_OPEN_OPTIONS = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
_DECODER_OPTIONS = {"max_pixels": str(MOST_PIXELS)}

# Headers of intact videos promise up to this many frames more than there are (UT-Interaction).
HEADER_SLACK = 2


def load_clip(
    path: str | PathLike, *, frames=PAPER_FRAMES, size=PAPER_SIZE, stride: int = 1, fit: str = "stretch"
) -> np.ndarray:
    """Read frames 0, stride, 2*stride, ... of a video as grey images.

    The defaults are the authors'. Decoding runs forward from frame 0 to the last wanted frame. As in the OpenCV of
    the authors' time, rotation tags are ignored, and a video ends at the first packet that cannot be decoded.

    Args:
        path: Video file in any format FFmpeg decodes.
        frames: Number T of frames to return.
        size: Height and width of the result, pixels.
        stride: Distance between two frames taken, in frames of the video.
        fit: "stretch" the frame to a square, or "crop" its central square: where its shape would tell the class.

    Returns:
        uint8 [frames,size,size], on average at most 1.0 grey level from the authors' OpenCV steps.

    Raises:
        SettingError: `frames`, `size` or `stride` below 1 or too large, or an unknown `fit`.
        DataError: see `open_video`; or no frame can be decoded.
        ClipTooShortError: fewer frames than needed.

    Warns:
        DataWarning: frames that are damaged.
    """
    check_counts(stride=stride)
    check_grid(size, frames=frames)
    check_choice("fit", fit, FITS)
    clip = np.empty((frames, size, size), np.uint8)
    needed = (frames - 1) * stride + 1
    image, damaged = None, 0
    with open_video(path) as video:
        for index, frame in enumerate(islice(video.frames(), needed)):
            damaged += frame.is_corrupt
            if index % stride == 0:
                image = _frame_pixels(frame, image, exact=damaged > 0)  # damage passes on to later frames
                _fit_image(image, size, fit, out=clip[index // stride])
        if video.decoded < needed:
            what = f"{video.decoded} frames can be decoded, {needed} are needed."
            remedy, kind = "Lower `frames` or `stride`, or leave the clip out.", "too few frames"
            if video.ends_early:
                cause = f"Its header promises {video.promised}: it" if video.promised else "It"
                what, kind = f"{what} {cause} is truncated or damaged.", "truncated file"
                remedy = f"{COPY_AGAIN} Else: {remedy[0].lower()}{remedy[1:]}"
            raise ClipTooShortError(what, path=path, remedy=remedy, kind=kind)
    if damaged:
        what = f"{damaged} of {needed} frames are damaged; what the decoder made of them is taken."
        warn_of(Fault("damaged frames", str(path), what, level="note"))
    return clip


def fit_frames(frames: np.ndarray, *, size: int, fit: str = "stretch") -> np.ndarray:
    """Bring frames in memory, uint8 grey [T,H,W] or RGB [T,H,W,3], to the grid of `load_clip`: uint8 [T,size,size].

    Raises:
        SettingError: `size` below 1, or an unknown `fit`.
        DataError: another shape or dtype.
    """
    check_grid(size)
    check_choice("fit", fit, FITS)
    if frames.dtype != np.uint8 or frames.shape[3:] not in ((), (3,)) or frames.ndim < 3 or not frames.size:
        what = f"frames are {frames.dtype} {list(frames.shape)}."
        raise DataError(what, remedy="Give uint8, grey [T,H,W] or RGB [T,H,W,3].")
    fitted = np.empty((len(frames), size, size), np.uint8)
    for image, out in zip(frames, fitted, strict=True):
        _fit_image(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image, size, fit, out)
    return fitted


@dataclass
class Video:
    """An open video, and how far it could be decoded."""

    path: Path
    container: av.container.InputContainer
    stream: av.VideoStream
    promised: int  # frames that the header states; 0 where it does not say
    decoded: int = 0  # frames that came
    broken: bool = False  # whether a packet was cut off or could not be decoded

    def frames(self) -> Iterator[av.VideoFrame]:
        """All frames from the first on, up to the first packet that cannot be decoded: OpenCV ends the video there."""
        try:
            for packet in self.container.demux(self.stream):
                self.broken |= packet.is_corrupt
                for frame in packet.decode():
                    self.decoded += 1
                    yield frame
        except av.error.InvalidDataError:
            self.broken = True
        if not self.decoded:
            what = "holds no frame that can be decoded."
            raise DataError(what, path=self.path, remedy=COPY_AGAIN, kind="damaged file")

    @property
    def ends_early(self) -> bool:
        """Whether less came than the header promises, or something broken, once all frames are decoded."""
        return self.broken or self.promised > self.decoded + HEADER_SLACK


@contextmanager
def open_video(path: str | PathLike) -> Iterator[Video]:
    """Open a video; whatever is wrong with the file, in the `with` block too, becomes a DataError.

    Raises:
        DataError: the file is missing, empty, unreadable, not a video, or its frames are larger than MOST_PIXELS.
    """
    file = Path(path)
    with reading(file):
        try:
            # Absolute: FFmpeg takes what stands before a colon in a relative path for a protocol.
            container = av.open(str(file.absolute()), options=_DECODER_OPTIONS, **_OPEN_OPTIONS)
        except (PermissionError, FileNotFoundError):  # not what is in the file
            raise
        except av.FFmpegError as error:
            what = f"cannot be opened as a video ({error.strerror}): damaged, or another kind of file."
            raise DataError(what, path=path, remedy=COPY_AGAIN, kind="not a readable video") from error
        with container:
            stream = container.streams.best("video")
            codec = None if stream is None else stream.codec_context
            if codec is None:
                what = "holds no video that can be decoded."
                raise DataError(what, path=path, remedy="Give a video file.", kind="not a readable video")
            if codec.width * codec.height > MOST_PIXELS:
                what = f"claims frames of {codec.width} x {codec.height} pixels, more than any camera's."
                raise DataError(what, path=path, remedy=COPY_AGAIN, kind="damaged file")
            codec.options, codec.thread_count = _DECODER_OPTIONS, 1  # threads slow down clips this small
            try:
                yield Video(file, container, stream, _promised(container, stream))
            except av.FFmpegError as error:
                what = f"cannot be decoded ({error.strerror})."
                raise DataError(what, path=path, remedy=COPY_AGAIN, kind="damaged file") from error


def _promised(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """Frames that the header states, without those that an edit list of an MP4 cuts off; 0 where it does not say."""
    if "mp4" not in container.format.name or not (stream.duration and stream.average_rate):
        return stream.frames
    return min(stream.frames, math.ceil(stream.duration * stream.time_base * stream.average_rate))


def _frame_pixels(frame: av.VideoFrame, used: np.ndarray | None, exact: bool) -> np.ndarray:
    """Grey levels uint8 [H,W] where the luma plane gives them, else or if asked for BGR uint8 [H,W,3] (exact, slower).

    The result lies in the memory of `used`, the image before, where that fits: it is in the cache still.
    """
    plane = frame.planes[0]
    if (
        not exact  # asked for where there may be colours that no camera gives
        and frame.format.name in _LUMA_FORMATS
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
    small = cv2.resize(image, (size, size), dst=out if image.ndim == 2 else None, interpolation=cv2.INTER_LINEAR)
    if image.ndim == 3:  # grey after the resize, in the authors' order
        cv2.cvtColor(small, cv2.COLOR_BGR2GRAY, dst=out)
