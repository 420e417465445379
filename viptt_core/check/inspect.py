"""One file -> what is in it, as plain facts: read to its end once, kept while it does not change.

Facts depend neither on a preset nor on the other files of a set: `judge` judges them anew each time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from xxhash import xxh3_128

from viptt_core import files
from viptt_core.cache import ELSEWHERE, mark_used, state_of, sweep
from viptt_core.clips import digest
from viptt_core.datasets.arrays import image_arrays, read_images
from viptt_core.errors import DataError
from viptt_core.nifti import open_scan
from viptt_core.scan_facts import ScanFacts, scan_facts
from viptt_core.video import open_video

UNREADABLE = "unreadable file"  # kind of what may be no fault of the file
_INT16 = np.iinfo(np.int16)
_HINT = f"what was read so far is kept, and {ELSEWHERE}"
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
    """Read all volumes of an .npz file, see `arrays.image_arrays`; raises a DataError if it is damaged."""
    path, shapes, contents = Path(path), {}, {}
    state = files.file_digest(path, "md5")
    for array in image_arrays(path):
        volumes = read_images(path, array, state)
        shapes[array] = volumes.shape
        contents[array] = [xxh3_128(v.tobytes()).hexdigest() if v.min() < v.max() else "" for v in volumes]
    return ArrayFacts(shapes, contents)


INSPECTORS = {
    "scan": (inspect_scan, ScanFacts),
    "video": (inspect_video, VideoFacts),
    "array": (inspect_arrays, ArrayFacts),
}


def inspect_file(role: str, path: Path) -> dict:
    """Read a file as a key of INSPECTORS says; nothing that is wrong with it stops the others.

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
    """What came of a file."""

    role: str  # what it was read as, a key of INSPECTORS
    path: Path
    n_bytes: int
    outcome: dict  # see `inspect_file`
    reused: bool  # kept from an earlier check

    @cached_property
    def facts(self) -> ScanFacts | VideoFacts | ArrayFacts | None:
        """What is in the file; None if it cannot be read."""
        return INSPECTORS[self.role][1](**self.outcome["facts"]) if "facts" in self.outcome else None


def read_files(jobs: Sequence[tuple[str, Path]], *, n_jobs: int | None, progress: bool) -> list[Reading]:
    """Inspect files, each a role and a path, in worker processes; what was kept of an unchanged one is used again."""
    from tqdm import tqdm

    folder, code = files.cache_root() / "checks", files.code_version("check.inspect")
    with files.storing(folder, hint=_HINT):
        folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    readings, todo = {}, []
    for role, path in dict.fromkeys(jobs):
        try:
            state = state_of(path)
        except OSError:  # gone since it was listed
            state = [0]
        place = folder / f"{digest([role, os.path.abspath(path), state, code])}.json"
        kept = _kept(place)
        readings[role, path] = Reading(role, path, state[0], kept or {}, reused=kept is not None)
        todo += [((role, path), place)] if kept is None else []
    shown = {"desc": "reading", "unit": "file", "mininterval": 1, "disable": not progress}
    with tqdm(total=len(readings), initial=len(readings) - len(todo), **shown) as bar:
        for job, outcome in files.in_workers(_read, todo, n_jobs):
            readings[job] = replace(readings[job], outcome=outcome)
            bar.update()
    return list(readings.values())


def _kept(place: Path) -> dict | None:
    """An outcome that was kept; None where none is, or a damaged one."""
    with suppress(OSError, ValueError):
        outcome = json.loads(place.read_bytes())
        mark_used(place, place.stat().st_mtime)
        return outcome
    return None


def _read(job: tuple[str, Path], place: Path) -> tuple[tuple[str, Path], dict]:
    """Inspect a file, and keep the outcome unless it may be another one in a minute."""
    outcome = inspect_file(*job)
    if outcome.get("fault", {}).get("kind") != UNREADABLE:
        with files.storing(place, hint=_HINT):
            files.put_in_place(place, [json.dumps(outcome).encode()])
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
