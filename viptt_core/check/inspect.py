"""One file -> what is in it, as plain facts: read to its end once.

Facts depend neither on a preset nor on the other files of a set: `judge` judges them anew each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from xxhash import xxh3_128

from viptt_core import files
from viptt_core.datasets.arrays import PARTS, opened
from viptt_core.errors import DataError, Fault
from viptt_core.nifti import open_scan
from viptt_core.scan_facts import ScanFacts, scan_facts
from viptt_core.video import open_video

_INT16 = np.iinfo(np.int16)
# Formats whose first plane is 8-bit luma, one byte a pixel.
_LUMA_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "nv12")


@dataclass(frozen=True)
class VideoFacts:
    """A video, decoded to its end."""

    frames: int  # that can be decoded
    promised: int  # by the header; 0 where it states none
    ends_early: bool  # the file was cut off, or a part of it cannot be decoded
    damaged: int  # frames that the decoder calls damaged
    height: int  # pixels, of the first frame
    width: int
    rate: float  # frames a second, by the median distance in time; 0 where the file has no times
    codec: str
    lowest: int  # luma, 0..255, over all frames
    highest: int
    content: str  # hash of the luma of all frames: the same in another container or under another name


@dataclass(frozen=True)
class ArrayFacts:
    """Volumes in one .npz file, by array: their shape, and a hash of each; "" for one of a single grey level."""

    shapes: dict[str, Sequence[int]]
    content: dict[str, Sequence[str]]


def inspect_scan(path: str | PathLike) -> ScanFacts:
    """Read a CT scan (NIfTI) to its end; raises a DataError if it cannot be used, see `nifti.read_nifti`."""
    with open_scan(path) as scan:
        content = xxh3_128(repr(scan.shape).encode())
        for plane in scan.planes():
            content.update(_whole_hu(plane))
        return scan_facts(scan, content.hexdigest())


def inspect_video(path: str | PathLike) -> VideoFacts:
    """Decode a video to its end; raises a DataError if no frame can be decoded, see `video.open_video`."""
    content, lowest, highest, damaged, shapes, times = xxh3_128(), 255, 0, 0, [], []
    with open_video(path) as video:
        for frame in video.frames():
            luma, damaged = _luma(frame), damaged + frame.is_corrupt
            lowest, highest = min(lowest, int(luma.min())), max(highest, int(luma.max()))
            content.update(repr(luma.shape).encode())
            content.update(np.ascontiguousarray(luma))
            shapes.append(luma.shape)
            if frame.time is not None:
                times.append(frame.time)
        promised, ends_early, codec = video.promised, video.ends_early, video.stream.codec_context.name
    step = float(np.median(np.diff(np.sort(times)))) if len(times) > 1 else 0.0
    rate = round(1 / step, 3) if step > 0 else 0.0
    values = (promised, ends_early, damaged, *shapes[0], rate, codec, lowest, highest)
    return VideoFacts(len(shapes), *values, content.hexdigest())


def inspect_arrays(path: str | PathLike) -> ArrayFacts:
    """Read all volumes of an .npz file, MedMNIST's or those of nodules; raises a DataError if it is damaged."""
    shapes, contents = {}, {}
    with opened(Path(path)) as arrays:
        for name in ("volumes",) if "volumes" in arrays else [f"{part}_images" for part in PARTS]:
            volumes = arrays[name]
            shapes[name] = volumes.shape
            contents[name] = [xxh3_128(v.tobytes()).hexdigest() if v.min() < v.max() else "" for v in volumes]
    return ArrayFacts(shapes, contents)


INSPECTORS = {"scan": inspect_scan, "video": inspect_video, "array": inspect_arrays}


@dataclass(frozen=True)
class Reading:
    """What came of a file."""

    role: str  # what it was read as, a key of INSPECTORS
    path: Path
    n_bytes: int = 0
    facts: ScanFacts | VideoFacts | ArrayFacts | None = None  # what is in it; None if it cannot be read
    fault: Fault | None = None  # why not, its place left out


def inspect_file(role: str, path: Path) -> Reading:
    """Read a file as a key of INSPECTORS says; nothing that is wrong with it stops the others."""
    try:
        facts = INSPECTORS[role](path)
        return Reading(role, path, path.stat().st_size, facts)
    except DataError as error:
        fault = Fault.of(error, "", "file")
    except Exception as error:  # a library that fails in a new way on one of a thousand files
        what, remedy = f"made the reader fail ({type(error).__name__}: {error}).", "Leave it out, and report this."
        fault = Fault("unreadable file", "", what, remedy, "file")
    return Reading(role, path, fault=fault)


def read_files(jobs: Sequence[tuple[str, Path]], *, n_jobs: int | None, progress: bool) -> list[Reading]:
    """Inspect files, each a role and a path, in worker processes."""
    from tqdm import tqdm

    jobs, shown = list(dict.fromkeys(jobs)), {"desc": "reading", "unit": "file", "mininterval": 1}
    readings = tqdm(files.in_workers(inspect_file, jobs, n_jobs), total=len(jobs), disable=not progress, **shown)
    of_file = {(reading.role, reading.path): reading for reading in readings}
    return [of_file[job] for job in jobs]


def _whole_hu(plane: np.ndarray) -> np.ndarray:
    """HU as int16, one after the other; the plane itself where it is that already."""
    if plane.dtype.kind == "f":
        plane = np.rint(plane)
    if plane.dtype != np.int16:
        plane = np.clip(plane, _INT16.min, _INT16.max).astype(np.int16)
    return np.ascontiguousarray(plane)


def _luma(frame) -> np.ndarray:
    """Luma of a decoded frame, uint8 [H,W]; a view where the decoder holds it."""
    plane = frame.planes[0]
    if frame.format.name in _LUMA_FORMATS and plane.line_size >= frame.width:
        return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
    return frame.to_ndarray(format="gray")
