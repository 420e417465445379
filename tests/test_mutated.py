"""Damaged inputs by the hundred: each ends in the value that other libraries read, or in an error or warning of ours.

Every input is read in a worker process with a limit of time and of memory. A kind of input is a `Case`: add others to
CASES. The mutations of a case are the same in every run.
"""

import gzip
import multiprocessing
import struct
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from planted import AFFINE, chest

from viptt_core.errors import DataWarning, ViPTTError

SECONDS, GIGABYTES = 20, 3
FINE = ("value", "refused", "warned")


class Case(NamedTuple):
    """A kind of input.

    Attributes:
        name: Of the case.
        make_files: (folder, generator) -> paths of mutated files, written there.
        read: path -> None; raises AssertionError where a value is wrong, and whatever the package raises.
    """

    name: str
    make_files: Callable[[Path, np.random.Generator], list[Path]]
    read: Callable[[Path], None]


# --- A worker that reads one file after the other -----------------------------------------------------------


def outcome_of(read, path) -> str:
    """One of FINE, or what went wrong; a wrong value is wrong with a warning, too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            read(path)
        except ViPTTError as error:
            if "not enough memory" in str(error):
                return f"took more than {GIGABYTES} GB: {error}"
            return "refused" if str(path) in str(error) else f"does not name the file: {error}"
        except AssertionError as error:
            return f"wrong value: {error}"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
    if foreign := [warning for warning in caught if not issubclass(warning.category, DataWarning)]:
        return f"{foreign[0].category.__name__}: {foreign[0].message} ({foreign[0].filename}:{foreign[0].lineno})"
    return "warned" if caught else "value"


def serve(read, connection, gigabytes) -> None:
    """Answer paths with outcomes, in a process of its own."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + int(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError):  # not Linux: the limit of memory is not tried
        pass
    connection.send("ready")
    while (path := connection.recv()) is not None:
        connection.send(outcome_of(read, path))


def outcomes(read, paths, *, seconds=SECONDS, gigabytes=GIGABYTES) -> dict[Path, str]:
    """Outcome by file; the process is replaced where it hangs or dies."""
    context, process, found = multiprocessing.get_context("spawn"), None, {}
    for path in paths:
        if process is None:
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(read, there, gigabytes), daemon=True)
            process.start()
            there.close()
            assert here.poll(120) and here.recv() == "ready"
        try:
            here.send(path)
            found[path] = here.recv() if here.poll(seconds) else f"hangs for more than {seconds} s"
        except (EOFError, OSError):
            process.join()
            found[path] = f"crashed with exit code {process.exitcode}"
        if found[path].startswith(("hangs", "crashed")):
            process.kill()
            process = None
    if process is not None:
        here.send(None)
        process.join()
    return found


# --- Mutations ------------------------------------------------------------------------------------------


def mutated(content: bytes, rng: np.random.Generator, header: int) -> bytes:
    """Bytes flipped, cut, blanked, repeated, or made extreme, in the header (its length in bytes) or anywhere."""
    changed = bytearray(content)
    end = header if rng.random() < 0.6 else len(content)
    at, n = int(rng.integers(end)), int(rng.integers(1, 65))
    kind = rng.choice(["flip", "cut", "blank", "repeat", "number", "swap"], p=[0.3, 0.15, 0.1, 0.1, 0.25, 0.1])
    if kind == "flip":
        for place in rng.integers(end, size=rng.integers(1, 9)):
            changed[place] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del changed[int(rng.integers(len(content))) :]
    elif kind == "blank":
        changed[at : at + n] = bytes([int(rng.choice([0, 255]))]) * min(n, len(changed) - at)
    elif kind == "repeat":
        changed[at:at] = changed[at : at + n]
    elif kind == "number":
        at -= at % 4
        changed[at : at + 4] = rng.choice(NUMBERS)
    else:
        changed[at : at + n] = changed[at : at + n][::-1]
    return bytes(changed)


NUMBERS = [
    struct.pack(code, value)
    for code, values in {
        "<i": (0, 1, -1, 2**31 - 1, -(2**31), 30000, 65536),
        ">i": (1, 2**31 - 1, 30000),
        "<f": (np.nan, np.inf, -np.inf, 1e38, 1e-38, -1.0, 1000.0),
    }.items()
    for value in values
]


def write_all(folder, ending, contents) -> list[Path]:
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"{number:03d}{ending}")
        paths[-1].write_bytes(content)
    return paths


# --- NIfTI ----------------------------------------------------------------------------------------------


def scans(rng) -> list[bytes]:
    """Of several types, with and without scaling."""
    hu = chest(1)
    made = [
        nib.Nifti1Image(hu, AFFINE).to_bytes(),
        nib.Nifti1Image(hu.astype(np.float32), AFFINE).to_bytes(),
        nib.Nifti1Image((hu + 1024).astype(np.uint16), AFFINE).to_bytes(),
        nib.Nifti2Image(hu.astype(np.int32), AFFINE).to_bytes(),
    ]
    made[2] = made[2][:112] + np.array([1, -1024], np.float32).tobytes() + made[2][120:]
    return made


def plain_scans(folder, rng):
    return write_all(folder, ".nii", (mutated(content, rng, 352) for content in scans(rng) for _ in range(40)))


def packed_scans(folder, rng):
    """Mutated before they are packed, and after."""
    before = [gzip.compress(mutated(content, rng, 352), 1, mtime=0) for content in scans(rng) for _ in range(25)]
    after = [mutated(gzip.compress(content, 1, mtime=0), rng, 30) for content in scans(rng) for _ in range(15)]
    return write_all(folder, ".nii.gz", before + after)


def read_scan(path) -> None:
    """Voxels and affine as nibabel reads them; the volume made of those voxels."""
    from viptt_core.check.inspect import inspect_scan
    from viptt_core.ct import load_volume, prepare_volume
    from viptt_core.nifti import read_nifti

    voxels, affine = read_nifti(path)
    volume = load_volume(path, depth=4, size=12)
    inspect_scan(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = nib.load(path)
        except nib.filebasedimages.ImageFileError:  # the length of the header is wrong, the header is not
            return
        if image.dataobj.offset == 0:  # it takes the header for voxels; others take 0 for the header's end, as we do
            return
        theirs = image.get_fdata(dtype=np.float64)
    theirs = theirs.reshape(theirs.shape[:3])
    finite = np.isfinite(theirs)
    np.testing.assert_allclose(voxels[finite], theirs[finite], rtol=1e-6, atol=0.01)
    assert (voxels[~finite] == -1000).all()
    np.testing.assert_array_equal(affine, image.affine)
    np.testing.assert_allclose(volume, prepare_volume(np.where(finite, theirs, -1000), depth=4, size=12), atol=1e-4)


# --- Videos ---------------------------------------------------------------------------------------------


def video(path, codec, pixels, **options) -> bytes:
    """30 frames of 48 x 64: coloured waves that move."""
    import av

    t, y, x = np.mgrid[:30, :48, :64]
    waves = [np.sin(x / 9 + t / 5), np.sin(y / 7 + t / 9), np.cos((x + y) / 11 - t / 7)]
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, width=64, height=48, pix_fmt=pixels)
        for image in (128 + 100 * np.stack(waves, axis=-1)).astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def avi_videos(folder, rng):
    made = [video(folder / "a.avi", "mpeg4", "yuv420p"), video(folder / "b.avi", "mjpeg", "yuvj420p")]
    return write_all(folder, ".avi", (mutated(content, rng, 2200) for content in made for _ in range(75)))


def mp4_videos(folder, rng):
    content = video(folder / "a.mp4", "mpeg4", "yuv420p", movflags="faststart")
    return write_all(folder, ".mp4", (mutated(content, rng, 1500) for _ in range(150)))


def read_video(path) -> None:
    """The frames that OpenCV reads, wherever as many can be decoded."""
    import cv2

    from viptt_core.check.inspect import inspect_video
    from viptt_core.video import load_clip

    inspect_video(path)
    with warnings.catch_warnings(record=True) as damage:
        warnings.simplefilter("always")
        clip = load_clip(path, frames=20, size=32)
    if damage:  # is told; what a decoder makes of it differs from version to version
        warnings.warn_explicit(damage[0].message, damage[0].category, damage[0].filename, damage[0].lineno)
        return
    capture, theirs = cv2.VideoCapture(str(path)), []
    while len(theirs) < len(clip) and (got := capture.read())[0]:
        theirs.append(cv2.cvtColor(cv2.resize(got[1], (32, 32)), cv2.COLOR_BGR2GRAY))
    capture.release()
    if not theirs:  # it does not open the file
        return
    assert len(theirs) == len(clip), f"OpenCV reads {len(theirs)} frames"
    difference = np.abs(clip - np.stack(theirs).astype(float))
    # Where the decoder notices no damage, colours that no camera gives are further from OpenCV than a sound video is.
    assert difference.mean() <= 3.0, f"differs by {difference.mean():.1f} grey levels"


CASES = [
    Case("NIfTI", plain_scans, read_scan),
    Case("NIfTI in gzip", packed_scans, read_scan),
    Case("AVI", avi_videos, read_video),
    Case("MP4", mp4_videos, read_video),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_damaged_input_is_read_right_or_refused_by_name(tmp_path, case):
    paths = case.make_files(tmp_path, np.random.default_rng(len(case.name)))
    found = outcomes(case.read, paths)
    wrong = [f"{path.name}: {outcome}" for path, outcome in found.items() if outcome not in FINE]
    print(case.name, Counter(outcome if outcome in FINE else "wrong" for outcome in found.values()))
    assert len(found) == len(paths) >= 150 and not wrong, "\n".join(wrong)
    assert {"value", "refused"} <= set(found.values())  # else the mutations are too weak or too strong


# --- The harness itself ---------------------------------------------------------------------------------


def misbehave(path) -> None:
    """What the name says."""
    if path.name == "hang":
        time.sleep(60)
    elif path.name == "crash":
        import os

        os._exit(3)
    elif path.name == "memory":
        np.ones(10**9)
    elif path.name == "foreign":
        raise KeyError("shape")
    elif path.name == "overflow":
        np.float32(1e38) * np.float32(1e38)
    elif path.name == "wrong":
        raise AssertionError("3 is not 4")
    elif path.name == "unnamed":
        raise ViPTTError("is bad.")
    elif path.name == "named":
        raise ViPTTError("is bad.", path=path)


def test_the_harness_tells_hangs_crashes_memory_and_foreign_exceptions_apart(tmp_path):
    names = ["fine", "hang", "crash", "memory", "foreign", "overflow", "wrong", "unnamed", "named", "fine again"]
    found = list(outcomes(misbehave, [tmp_path / name for name in names], seconds=3, gigabytes=1).values())
    told = ["value", "hangs", "crashed with exit code 3", "MemoryError", "KeyError", "RuntimeWarning", "wrong value"]
    told += ["does not name the file", "refused", "value"]
    assert all(outcome.startswith(start.replace("MemoryError", "")) for outcome, start in zip(found, told, strict=True))
    assert "MemoryError" in found[3] and found[0] == found[-1] == "value"
