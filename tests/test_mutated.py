"""Damaged inputs by the hundred: each ends in the value that other libraries read, or in an error or warning of ours.

Every input is read in a worker process with a limit of time and of memory. A kind of input is a `Case`: add others to
CASES. The mutations of a case are the same in every run.
"""

import gzip
import io
import multiprocessing
import os
import re
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from mutations import mutated, mutated_table
from planted import AFFINE, chest

from viptt_core.errors import DataWarning, ViPTTError

SECONDS, GIGABYTES = 20, 3
FEWEST = 100  # inputs of a case
FINE = ("value", "refused", "warned")


class Case(NamedTuple):
    """A kind of input: how mutated files are made, and how one is read.

    `read` raises AssertionError where a value is wrong, and whatever the package raises.
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


# --- Files -----------------------------------------------------------------------------------------------


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


def videos(folder, rng):
    made = [
        video(folder / "a.avi", "mpeg4", "yuv420p"),
        video(folder / "b.avi", "mjpeg", "yuvj420p"),
        video(folder / "c.mp4", "mpeg4", "yuv420p", movflags="faststart"),
    ]
    return write_all(folder, ".avi", (mutated(content, rng, 2000) for content in made for _ in range(75)))


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


# --- Tables ---------------------------------------------------------------------------------------------


def label_tables(folder, rng):
    """Beside the scans that the table names, which no one opens."""
    names = [f"s{k:02d}.nii.gz" for k in range(8)]
    rows = [f"ct/{name},{'ill' if k % 2 else 'well'},p{k // 2},{k + 40}" for k, name in enumerate(names)]
    table, paths = "\n".join(["FileName,Label,Patient,Age", *rows]), []
    for number in range(300):
        paths.append(folder / f"{number:03d}")
        (paths[-1] / "ct").mkdir(parents=True)
        (paths[-1] / "labels.csv").write_bytes(mutated_table(table, rng))
        for name in names:
            (paths[-1] / "ct" / name).touch()
    return paths


def read_labels_and_patients(path) -> None:
    """Each scan's class and patient as pandas reads them; an empty class says nothing."""
    from viptt_core.datasets import list_dataset

    listing = list_dataset("folder", path, patient_column="Patient")
    listing.left_out("raise")
    text = (path / "labels.csv").read_text(encoding="utf-8-sig")
    separator = max(",;\t", key=re.split("[\r\n]", text)[0].count)
    try:
        theirs = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, skipinitialspace=True)
    except pd.errors.ParserError:  # more empty cells at the end of a row than columns
        return
    theirs = theirs.rename(columns=str.strip)
    stems = [stem_of(cell) for cell in theirs["FileName"]]
    for item in listing.items:
        assert stems.count(stem_of(item.source.name)) == 1, f"{item.source.name} has not one row"
        row = theirs.iloc[stems.index(stem_of(item.source.name))]
        for ours, column in ((listing.class_names[item.label], "Label"), (item.group, "Patient")):
            assert form(row[column]) in ("", form(ours)), f"{item.source.name}: {ours}, not {row[column]}"


def stem_of(text) -> str:
    return re.sub(r"\.(nii|nii\.gz|avi)$", "", text.strip().replace("\\", "/").split("/")[-1], flags=re.IGNORECASE)


def form(text) -> str:
    """What spellings of one class or patient share."""
    return re.sub(r"^(-?\d+)\.0*$", r"\1", " ".join(normalize("NFC", text).casefold().split()))


# --- Arrays ---------------------------------------------------------------------------------------------


def npz_files(folder, rng):
    """Damaged before the arrays are packed, so that all checksums are right, and after."""
    arrays = {}
    for part, n in (("train", 6), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (n, 4, 10, 10), np.uint8)
        arrays[f"{part}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
        arrays[f"{part}_patient"] = np.array([f"{part}{i // 2}" for i in range(n)])
        arrays[f"{part}_age"] = np.arange(n, dtype=np.float32) + 40
    members = {name: npy(array) for name, array in arrays.items()}
    before = []
    for number in range(200):
        one = rng.choice(list(members))
        header = 128 if number % 2 else len(members[one])
        before.append(packed(members | {one: mutated(members[one], rng, header)}))
    after = [mutated(packed(members, kind), rng, 200) for kind in (0, 8) for _ in range(50)]
    return write_all(folder, ".npz", before + after)


def npy(array) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def packed(members, kind=zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member, kind)
    return content.getvalue()


def read_npz(path) -> None:
    """Labels, patients and pixels as NumPy reads them."""
    from viptt_core.clips import Grid
    from viptt_core.datasets import list_dataset
    from viptt_core.datasets.arrays import decode_volume, read_images

    warnings.filterwarnings("ignore", message=".*additional header parsing")  # NumPy's word on files of Python 2
    listing = list_dataset("medmnist3d", path)
    listing.left_out("raise")
    clips = [decode_volume(item.source, Grid(frames=4, size=12)) for item in listing.items]
    assert all(clip.shape == (4, 12, 12) and clip.dtype == np.uint8 for clip in clips)
    with np.load(path) as theirs:
        for part in ("train", "val", "test"):
            items = [item for item in listing.items if item.source.part == part]
            images = read_images(path, part, items[0].source.digest) if items else ()
            np.testing.assert_array_equal(images, theirs[f"{part}_images"][: len(images)])
            assert [item.label for item in items] == theirs[f"{part}_labels"].ravel().tolist()
            assert [item.group for item in items] == theirs[f"{part}_patient"].astype(str).tolist()
            if items and "age" in items[0].covariates:
                np.testing.assert_array_equal([item.covariates["age"] for item in items], theirs[f"{part}_age"].ravel())


CASES = [
    Case("NIfTI", plain_scans, read_scan),
    Case("NIfTI in gzip", packed_scans, read_scan),
    Case("videos", videos, read_video),
    Case("labels", label_tables, read_labels_and_patients),
    Case("arrays", npz_files, read_npz),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_damaged_input_is_read_right_or_refused_by_name(tmp_path, case):
    paths = case.make_files(tmp_path, np.random.default_rng(len(case.name)))
    found = outcomes(case.read, paths)
    wrong = [f"{path.name}: {outcome}" for path, outcome in found.items() if outcome not in FINE]
    print(case.name, Counter(outcome if outcome in FINE else "wrong" for outcome in found.values()))
    assert len(found) == len(paths) >= FEWEST and not wrong, "\n".join(wrong)
    assert {"value", "refused"} <= set(found.values())  # else the mutations are too weak or too strong


# --- The harness itself ---------------------------------------------------------------------------------


def misbehave(path) -> None:
    """What the name says."""
    if path.name == "hang":
        time.sleep(60)
    elif path.name == "crash":
        os._exit(3)
    elif path.name == "memory":
        np.ones(10**9)
    elif path.name == "foreign":
        raise KeyError("shape")
    elif path.name == "unnamed":
        raise ViPTTError("is bad.")
    elif path.name == "named":
        raise ViPTTError("is bad.", path=path)


@pytest.mark.slow
def test_the_harness_tells_hangs_crashes_memory_and_foreign_exceptions_apart(tmp_path):
    told = {
        "fine": "value",
        "hang": "hangs",
        "crash": "crashed with exit code 3",
        "memory": ".*MemoryError",
        "foreign": "KeyError",
        "unnamed": "does not name the file",
        "named": "refused",
        "fine again": "value",
    }
    found = outcomes(misbehave, [tmp_path / name for name in told], seconds=3, gigabytes=1)
    assert all(re.match(start, found[tmp_path / name]) for name, start in told.items())
