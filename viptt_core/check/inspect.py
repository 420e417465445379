"""One file -> what is in it: read to its end, once, and told as plain facts, which are kept while it does not change.

What the readers refuse becomes a fault. Facts depend neither on a preset nor on the other files of a set, so that
they can be kept and judged anew; `judge` does that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from xxhash import xxh3_128

from viptt_core import files
from viptt_core.cache import keep, read_kept, sweep
from viptt_core.clips import digest
from viptt_core.datasets.arrays import PARTS, read_images
from viptt_core.errors import DataError
from viptt_core.nifti import open_scan
from viptt_core.scan_facts import ScanFacts, scan_facts
from viptt_core.video import open_video

UNREADABLE = "unreadable file"  # kind of what may be no fault of the file
_INT16 = np.iinfo(np.int16)
_NO_ARRAY = np.empty(0, np.uint8)
# Formats whose first plane is 8-bit luma, one byte a pixel.
_LUMA_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "nv12")


@dataclass(frozen=True)
class MaskFacts:
    """A mask: its grid, how many voxels are not 0, and whether all are whole numbers from 0 to 255."""

    shape: Sequence[int]
    affine: Sequence[float]
    n_marked: int
    whole: bool


@dataclass(frozen=True)
class VideoFacts:
    """A video, decoded to its end.

    Attributes:
        frames: Frames that can be decoded.
        promised: Frames the header states; 0 where it states none.
        ends_early: Whether the file was cut off, or a part of it cannot be decoded.
        height, width: Pixels, of the first frame.
        rate: Frames a second, by the median distance in time; 0 where the file has no times.
        codec: Name of its compression.
        lowest, highest: Luma, 0..255, over all frames.
        content: Hash of the luma of all frames: the same in another container or under another name.
    """

    frames: int
    promised: int
    ends_early: bool
    height: int
    width: int
    rate: float
    codec: str
    lowest: int
    highest: int
    content: str


@dataclass(frozen=True)
class ArrayFacts:
    """Volumes in one .npz file, by part: their shape, and a hash of each; "" for one of a single grey level."""

    shapes: dict[str, Sequence[int]]
    content: dict[str, Sequence[str]]


def inspect_scan(path: str | PathLike) -> ScanFacts:
    """Read a CT scan (NIfTI) to its end, slice by slice.

    Raises:
        DataError: it cannot be used, see `nifti.read_nifti`.
    """
    with open_scan(path) as scan:
        content = xxh3_128(repr(scan.shape))
        for plane in scan.planes():
            content.update(_whole_hu(plane))
        return scan_facts(scan, content.hexdigest())


def inspect_mask(path: str | PathLike) -> MaskFacts:
    """Read a mask (NIfTI) to its end.

    Raises:
        DataError: it cannot be read, see `nifti.read_nifti`.
    """
    whole, marked = True, 0
    with open_scan(path) as mask, np.errstate(invalid="ignore"):
        for plane in mask.planes():
            marked += int(np.count_nonzero(plane))
            whole = whole and (plane.dtype == np.uint8 or np.array_equal(plane.astype(np.uint8), plane))
    return MaskFacts(mask.shape, mask.affine[:3].ravel().tolist(), marked, whole)


def inspect_video(path: str | PathLike) -> VideoFacts:
    """Decode a video to its end.

    Raises:
        DataError: no frame of it can be decoded, see `video.open_video`.
    """
    content, lowest, highest, shapes, times = xxh3_128(), 255, 0, [], []
    with open_video(path) as video:
        for frame in video.frames():
            luma = _luma(frame)
            lowest, highest = min(lowest, int(luma.min())), max(highest, int(luma.max()))
            content.update(repr(luma.shape))
            content.update(np.ascontiguousarray(luma))
            shapes.append(luma.shape)
            if frame.time is not None:
                times.append(frame.time)
        promised, ends_early, codec = video.promised, video.ends_early, video.stream.codec_context.name
    step = float(np.median(np.diff(np.sort(times)))) if len(times) > 1 else 0.0
    rate = round(1 / step, 3) if step > 0 else 0.0
    values = (promised, ends_early, *shapes[0], rate, codec, lowest, highest)
    return VideoFacts(len(shapes), *values, content.hexdigest())


def inspect_arrays(path: str | PathLike) -> ArrayFacts:
    """Read all volumes of an .npz file in the layout of `datasets.arrays`.

    Raises:
        DataError: it is damaged.
    """
    shapes, contents, state = {}, {}, files.file_digest(Path(path), "md5")
    for part in PARTS:
        volumes = read_images(str(path), part, state)
        shapes[part] = volumes.shape
        contents[part] = [xxh3_128(v.tobytes()).hexdigest() if v.min() < v.max() else "" for v in volumes]
    return ArrayFacts(shapes, contents)


INSPECTORS = {
    "scan": (inspect_scan, ScanFacts),
    "mask": (inspect_mask, MaskFacts),
    "video": (inspect_video, VideoFacts),
    "array": (inspect_arrays, ArrayFacts),
}


def inspect_file(role: str, path: Path) -> dict:
    """Read a file; nothing that is wrong with it stops the others.

    Args:
        role: A key of INSPECTORS.
        path: The file.

    Returns:
        JSON-ready: {"facts": ...} or {"fault": {"kind", "what", "remedy"}}.
    """
    try:
        return {"facts": json.loads(json.dumps(asdict(INSPECTORS[role][0](path))))}  # lists, as when it was kept
    except DataError as error:
        kind, what, remedy = error.kind or UNREADABLE, error.what, error.remedy
    except Exception as error:  # a library that fails in a new way on one of a thousand files
        kind, what = UNREADABLE, f"made the reader fail ({type(error).__name__}: {error})."
        remedy = "Leave it out, and report this."
    return {"fault": {"kind": kind, "what": what, "remedy": remedy}}


@dataclass(frozen=True)
class Reading:
    """What came of a file.

    Attributes:
        role: What it was read as, a key of INSPECTORS.
        path: Where it is.
        n_bytes: Its size.
        outcome: See `inspect_file`.
        reused: Whether that was kept from an earlier check.
    """

    role: str
    path: Path
    n_bytes: int
    outcome: dict
    reused: bool

    @cached_property
    def facts(self) -> ScanFacts | MaskFacts | VideoFacts | ArrayFacts | None:
        """What is in the file; None if it cannot be read."""
        return INSPECTORS[self.role][1](**self.outcome["facts"]) if "facts" in self.outcome else None


def read_files(jobs: Sequence[tuple[str, Path]], *, n_jobs: int | None, progress: bool, reread: bool) -> list[Reading]:
    """Inspect files in worker processes; what any check has kept of an unchanged one is taken from the cache.

    Args:
        jobs: Role and path of each, see `inspect_file`.
        n_jobs: Worker processes; 1 reads in this one, None takes the available cores.
        progress: Show a progress bar.
        reread: Read all of them.

    Raises:
        StorageError: the cache cannot be written.
    """
    from tqdm import tqdm

    folder, code = files.cache_root() / "checks", files.code_version("check.inspect")
    with files.storing(folder, hint="VIPTT_CACHE names another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    states = {job: _state(job[1]) for job in jobs}
    places = {job: folder / digest([job[0], os.path.abspath(job[1]), state, code]) for job, state in states.items()}
    kept = {} if reread else {job: found[1] for job, place in places.items() if (found := read_kept(place))}
    todo = [(job, place) for job, place in places.items() if job not in kept]
    outcomes = dict(kept)
    with tqdm(total=len(places), initial=len(kept), desc="reading", unit="file", disable=not progress) as bar:
        for job, outcome in files.in_workers(_read, todo, n_jobs):
            outcomes[job] = outcome
            bar.update()
    return [Reading(*job, state[0], outcomes[job], job in kept) for job, state in states.items()]


def _state(path: Path) -> list[int]:
    """Size in bytes, and what changes with the contents; of a file that is not there only a 0."""
    try:
        status = path.stat()
    except OSError:
        return [0]
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(job: tuple[str, Path], place: Path) -> tuple[tuple[str, Path], dict]:
    """Inspect a file, and keep the outcome unless it may be another one in a minute."""
    outcome = inspect_file(*job)
    if outcome.get("fault", {}).get("kind") != UNREADABLE:
        keep(place, _NO_ARRAY, outcome)
    return job, outcome


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
