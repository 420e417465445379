"""One file -> what is in it: read to its end, once, and told as plain facts.

What the readers refuse becomes a fault. Facts do not depend on a preset or on the other files of a set, so that
they can be kept and judged anew; `check` does that. Worker processes import little else.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from isal import isal_zlib

from viptt_core import files
from viptt_core.errors import DataError
from viptt_core.files import code_version
from viptt_core.nifti import open_scan
from viptt_core.scan_facts import ScanFacts, scan_facts
from viptt_core.video import open_video

UNREADABLE = "unreadable file"  # kind of what may be no fault of the file
_INT16 = np.iinfo(np.int16)
# Formats whose first plane is 8-bit luma, one byte a pixel.
_LUMA_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "nv12")


@dataclass(frozen=True)
class MaskFacts:
    """A mask: its grid, how many voxels are not 0, its values (None where they are no whole numbers 0..255)."""

    shape: tuple[int, ...]
    affine: tuple[float, ...]
    n_marked: int
    values: tuple[int, ...] | None


@dataclass(frozen=True)
class VideoFacts:
    """A video, decoded to its end.

    Attributes:
        frames: Frames that can be decoded.
        promised: Frames the header states; 0 where it states none.
        ends_early: Whether the file is truncated or damaged.
        height, width: Pixels, of the first frame.
        rate: Frames a second, by the median distance in time; 0 where the file has no times.
        lowest, highest: Luma, 0..255, over all frames.
        content: Hash of the luma of all frames: the same in another container or under another name.
    """

    frames: int
    promised: int
    ends_early: bool
    height: int
    width: int
    rate: float
    lowest: int
    highest: int
    content: str


@dataclass(frozen=True)
class ArrayFacts:
    """Volumes in one .npz file: by part, one hash a volume, and the indices of those of one grey level."""

    shapes: dict[str, tuple[int, ...]]
    content: dict[str, tuple[str, ...]]
    constant: dict[str, tuple[int, ...]]


Facts = ScanFacts | MaskFacts | VideoFacts | ArrayFacts


def inspect_scan(path: str | PathLike) -> ScanFacts:
    """Read a CT scan (NIfTI) to its end, slice by slice.

    Raises:
        DataError: it cannot be used, see `nifti.read_nifti`.
    """
    with open_scan(path) as scan:
        digest = hashlib.sha256(repr(scan.shape).encode())
        for plane in scan.planes():
            digest.update(_checksum(_whole_hu(plane)))
    return scan_facts(scan, content=digest.hexdigest())


def inspect_mask(path: str | PathLike) -> MaskFacts:
    """Read a mask (NIfTI) to its end.

    Raises:
        DataError: it cannot be read, see `nifti.read_nifti`.
    """
    counts, whole, marked = np.zeros(256, np.int64), True, 0
    with open_scan(path) as mask:
        for plane in mask.planes():
            marked += np.count_nonzero(plane)
            small = plane if plane.dtype == np.uint8 else _as_bytes(plane)
            if small is None:
                whole = False
            else:
                counts += cv2.calcHist([small], [0], None, [256], [0, 256]).reshape(-1).astype(np.int64)
    values = tuple(np.flatnonzero(counts).tolist()) if whole else None
    return MaskFacts(mask.shape, tuple(mask.affine[:3].ravel().tolist()), int(marked), values)


def inspect_video(path: str | PathLike) -> VideoFacts:
    """Decode a video to its end.

    Raises:
        DataError: no frame of it can be decoded, see `video.open_video`.
    """
    digest, lowest, highest = hashlib.sha256(), 255, 0
    shape, times = (0, 0), []
    with open_video(path) as video:
        for frame in video.frames():
            luma = _luma(frame)
            if video.decoded == 1:
                shape = luma.shape
            lowest, highest = min(lowest, int(luma.min())), max(highest, int(luma.max()))
            digest.update(repr(luma.shape).encode())
            digest.update(_checksum(np.ascontiguousarray(luma)))
            if frame.time is not None:
                times.append(frame.time)
        ends_early = video.ends_early
    step = float(np.median(np.diff(np.sort(times)))) if len(times) > 1 else 0.0
    rate = 1 / step if step > 0 else 0.0
    content = digest.hexdigest()
    return VideoFacts(video.decoded, video.promised, ends_early, *shape, round(rate, 3), lowest, highest, content)


def inspect_arrays(path: str | PathLike) -> ArrayFacts:
    """Read all volumes of an .npz file in the layout of `datasets.arrays`.

    Raises:
        DataError: it is damaged.
    """
    shapes, content, constant = {}, {}, {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                if not name.endswith("_images"):
                    continue
                volumes, part = file[name], name.removesuffix("_images")
                shapes[part] = volumes.shape
                content[part] = tuple(hashlib.sha256(np.ascontiguousarray(v)).hexdigest() for v in volumes)
                constant[part] = tuple(i for i, volume in enumerate(volumes) if volume.min() == volume.max())
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, AttributeError) as error:
        raise DataError(
            f"cannot be read as an .npz file ({error}).",
            path=path,
            kind="damaged file",
            remedy="Copy or download the file again.",
        ) from error
    return ArrayFacts(shapes, content, constant)


INSPECTORS = {
    "scan": (inspect_scan, ScanFacts),
    "mask": (inspect_mask, MaskFacts),
    "video": (inspect_video, VideoFacts),
    "array": (inspect_arrays, ArrayFacts),
}


def inspect_file(role: str, path: str | PathLike) -> dict:
    """Read a file; nothing that is wrong with it stops the others.

    Args:
        role: A key of INSPECTORS.
        path: The file.

    Returns:
        JSON-ready: {"facts": ...}, see `facts_of`, or {"fault": {"kind", "what", "remedy"}}.
    """
    try:
        return {"facts": json.loads(json.dumps(asdict(INSPECTORS[role][0](path))))}  # lists, as in the journal
    except DataError as error:
        return {"fault": {"kind": error.kind or UNREADABLE, "what": error.what, "remedy": error.remedy}}
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})."
        return {"fault": {"kind": UNREADABLE, "what": what, "remedy": "Check its rights and the disk."}}
    except Exception as error:  # a library that fails in a new way on one of a thousand files
        what = f"made the reader fail ({type(error).__name__}: {error})."
        return {"fault": {"kind": UNREADABLE, "what": what, "remedy": "Leave it out, and report this."}}


def facts_of(role: str, values: dict) -> Facts:
    """Facts out of the JSON-ready form that `inspect_file` returns."""
    return INSPECTORS[role][1](**{name: _tuples(value) for name, value in values.items()})


def _checksum(plane: np.ndarray) -> bytes:
    """What stands for a plane in the hash of all: SHA-256 of every byte would cost a quarter of the decompression.

    Two scans that differ in one slice only are taken for the same once in four billion.
    """
    return isal_zlib.crc32(plane).to_bytes(4, "little")


def _whole_hu(plane: np.ndarray) -> np.ndarray:
    """HU as int16, one after the other; the plane itself where it is that already."""
    if plane.dtype.kind == "f":
        plane = np.rint(plane)
    if plane.dtype != np.int16:
        plane = np.clip(plane, _INT16.min, _INT16.max).astype(np.int16)
    return np.ascontiguousarray(plane)


def _as_bytes(plane: np.ndarray) -> np.ndarray | None:
    """The plane as uint8, or None where that would change a value."""
    with np.errstate(invalid="ignore"):
        small = plane.astype(np.uint8)
    return small if np.array_equal(small, plane) else None


def _luma(frame) -> np.ndarray:
    """Luma of a decoded frame, uint8 [H,W]; a view where the decoder holds it."""
    plane = frame.planes[0]
    if frame.format.name in _LUMA_FORMATS and plane.line_size >= frame.width:
        return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
    return frame.to_ndarray(format="gray")


def _tuples(value):
    if isinstance(value, dict):
        return {key: _tuples(part) for key, part in value.items()}
    return tuple(value) if isinstance(value, list) else value


# --- Many files inspected by worker processes, each outcome kept at once, so that no file is read twice ---


_ELSEWHERE = "VIPTT_CACHE names another folder"


@dataclass(frozen=True)
class Job:
    """A file to read: as what (a key of `inspection.INSPECTORS`), and where it is."""

    role: str
    path: Path


@dataclass(frozen=True)
class Readings:
    """Outcome of `inspection.inspect_file` by job, and how many files were read now."""

    outcomes: dict[Job, dict]
    n_read: int
    bytes_read: int


def read_files(jobs: Sequence[Job], journal: Path, *, n_jobs: int, progress: bool, reread: bool) -> Readings:
    """Inspect files, each once; what the journal holds of unchanged files is taken from there.

    Two processes with one journal take turns: the second finds what the first has read.

    Args:
        jobs: The files.
        journal: Made if it is not there.
        n_jobs: Worker processes; 1 reads in this one.
        progress: Show a progress bar.
        reread: Forget the journal first.

    Raises:
        StorageError: the journal cannot be written.
    """
    from tqdm import tqdm

    jobs, code = list(dict.fromkeys(jobs)), code_version("check.inspection")
    with _locked(journal):
        if reread:
            journal.unlink(missing_ok=True)
        known = _read_journal(journal)
        stamps = {job: _stamp(job, code) for job in jobs}
        outcomes = {job: known[stamp] for job, stamp in stamps.items() if stamp in known}
        todo = [job for job in jobs if job not in outcomes]
        with (
            journal.open("a", encoding="utf-8") as lines,
            tqdm(
                total=len(jobs), initial=len(outcomes), desc="reading", unit="file", disable=not progress, mininterval=1
            ) as bar,
        ):
            for job, outcome in _inspected(todo, n_jobs):
                outcomes[job] = outcome
                # What could not be read may be there again in a minute, with the same size and time.
                if stamps[job] is not None and outcome.get("fault", {}).get("kind") != UNREADABLE:
                    with files.storing(journal, hint=_ELSEWHERE):
                        lines.write(_line(stamps[job], outcome))
                        lines.flush()
                bar.update()
        if len(known) > 2 * len(jobs):  # mostly of files that are gone or changed
            kept = [_line(stamp, outcomes[job]) for job, stamp in stamps.items() if stamp is not None]
            with files.storing(journal, hint=_ELSEWHERE):
                files.replace(journal, "".join(kept))
    outcomes = {job: outcomes[job] for job in jobs}  # they came as they were ready
    return Readings(outcomes, len(todo), sum(json.loads(stamps[job])[2] for job in todo if stamps[job]))


def _inspected(jobs: Sequence[Job], n_jobs: int) -> Iterator[tuple[Job, dict]]:
    if min(n_jobs, len(jobs)) <= 1:
        yield from map(_inspect, jobs)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    try:
        yield from Parallel(n_jobs=min(n_jobs, len(jobs)), return_as="generator_unordered", pre_dispatch="4*n_jobs")(
            delayed(_inspect)(job) for job in jobs
        )
    except BaseException:
        get_reusable_executor(kill_workers=True).shutdown()  # Ctrl-C ends the workers too
        raise
    get_reusable_executor().shutdown()  # idle workers would keep their memory


def _inspect(job: Job) -> tuple[Job, dict]:
    return job, inspect_file(job.role, job.path)


def _stamp(job: Job, code: str) -> str | None:
    """What must be the same for an outcome to hold; None for a file that is not there."""
    try:
        found = job.path.stat()
    except OSError:
        return None
    return json.dumps([job.role, os.path.abspath(job.path), found.st_size, found.st_mtime_ns, code])


@contextmanager
def _locked(journal: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    with files.storing(journal.parent, hint=_ELSEWHERE):
        journal.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(journal.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print("Another process checks this set; waiting for it.", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _read_journal(journal: Path) -> dict[str, dict]:
    """Outcomes by stamp. A last line that a killed process left unfinished is cut off."""
    if not journal.is_file():
        return {}
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(journal, len(whole))
    known = {}
    for line in whole.decode("utf-8", errors="replace").split("\n"):
        try:
            stamp, outcome = json.loads(line)
            known[stamp] = dict(outcome)
        except (ValueError, TypeError):  # damaged: that file is read again
            continue
    return known


def _line(stamp: str, outcome: dict) -> str:
    return json.dumps([stamp, outcome]) + "\n"
