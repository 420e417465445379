"""Damaged inputs by the hundred: each ends in the value that other libraries read, or in an error or warning of ours.

Every input is read in a worker process with a limit of time and of memory. A kind of input is a `Case`: add others to
CASES. The mutations of a case are the same in every run.
"""

import gzip
import hashlib
import importlib
import io
import json
import multiprocessing
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from files import write_weights
from keras_reference import write_keras_file
from mutations import mutated, mutated_json, mutated_table
from planted import AFFINE, chest

from viptt_core.errors import DataWarning, ViPTTError

SECONDS, GIGABYTES = 20, 3
FEWEST = 100  # inputs of a case; all cases have 1,000 at least
FINE = ("value", "refused", "warned")


class Case(NamedTuple):
    """A kind of input.

    Attributes:
        name: Of the case.
        make_files: (folder, generator) -> paths of mutated files, written there.
        read: path -> None; raises AssertionError where a value is wrong, and whatever the package raises.
        module: Imported before memory is limited: what PyTorch maps counts, and is not the input's.
    """

    name: str
    make_files: Callable[[Path, np.random.Generator], list[Path]]
    read: Callable[[Path], None]
    module: str = "viptt_core.errors"


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


def start(module) -> None:
    """Import what reads, then limit memory."""
    importlib.import_module(module)
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + GIGABYTES * 10**9,) * 2)
    except (ImportError, OSError):  # not Linux: the limit of memory is not tried
        pass


def outcomes(read, paths, module) -> dict[Path, str]:
    """Outcome by file, each read in a process that is replaced where it hangs or dies."""
    found, pool = {}, None
    for path in paths:
        if pool is None:
            pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start, (module,))
            pool.submit(int).result(120)
        try:
            found[path] = pool.submit(outcome_of, read, path).result(SECONDS)
        except (TimeoutError, BrokenProcessPool) as error:
            found[path] = f"hangs for more than {SECONDS} s, or crashed ({type(error).__name__})"
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool = None
    if pool is not None:
        pool.shutdown()
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
    millimetres = {1: 1e3, 3: 1e-3}.get(int(image.header["xyzt_units"]) % 8, 1.0)  # metres, micrometres
    np.testing.assert_allclose(affine[:3], millimetres * image.affine[:3], rtol=1e-12)
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


# --- Tables ---------------------------------------------------------------------------------------------


def write_folders(folder, files, table, tables) -> list[Path]:
    """A folder for each content of the table, with files beside it that no one opens."""
    paths = []
    for number, content in enumerate(tables):
        paths.append(folder / f"{number:03d}")
        for name in files:
            (paths[-1] / name).parent.mkdir(parents=True, exist_ok=True)
            (paths[-1] / name).write_bytes(b"")
        paths[-1].mkdir(exist_ok=True)
        (paths[-1] / table).write_bytes(content)
    return paths


def label_tables(folder, rng):
    names = [f"ct/s{k:02d}.nii.gz" for k in range(8)]
    rows = [f"{name},{'ill' if k % 2 else 'well'},p{k // 2},{k + 40}" for k, name in enumerate(names)]
    table = "\n".join(["FileName,Label,Patient,Age", *rows])
    return write_folders(folder, names, "labels.csv", (mutated_table(table, rng) for _ in range(300)))


def group_tables(folder, rng):
    names = [f"{'run' if k % 2 else 'walk'}/v{k:02d}.avi" for k in range(8)]
    rows = [f"{name},{name.split('/')[0]},g{k // 3}" for k, name in enumerate(names)]
    table = "\n".join(["file,class,group", *rows])
    return write_folders(folder, names, "groups.csv", (mutated_table(table, rng) for _ in range(300)))


def read_labels_and_patients(path) -> None:
    """Each scan's class and patient as pandas reads them."""
    compare_table(path, "labels.csv", lambda names: ["FileName", "Label", "Patient"], patient_column="Patient")


def read_classes_and_groups(path) -> None:
    """Each video's class and group as pandas reads them: the last column is the group, the one between the class."""
    compare_table(path, "groups.csv", lambda names: [names[0], "".join(names[1:-1]), names[-1]], groups="groups.csv")


def compare_table(root, name, columns, **settings) -> None:
    """Class and group of each item, as `columns(names)` of file, class and group say; an empty class says nothing."""
    from viptt_core.datasets import list_dataset

    listing = list_dataset("folder", root, **settings)
    listing.check_usable("raise")
    text = (root / name).read_text(encoding="utf-8-sig")
    separator = max(",;\t", key=re.split("[\r\n]", text)[0].count)
    try:
        theirs = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, skipinitialspace=True)
    except pd.errors.ParserError:  # more empty cells at the end of a row than columns
        return
    theirs = theirs.rename(columns=str.strip)
    file, *others = columns(list(theirs))
    stems = [stem_of(cell) for cell in theirs[file]]
    for item in listing.items:
        assert stems.count(stem_of(item.source.name)) == 1, f"{item.source.name} has not one row"
        row = theirs.iloc[stems.index(stem_of(item.source.name))]
        for ours, column in zip((listing.class_names[item.label], item.group), others, strict=True):
            stated = form(row[column]) if column else ""
            assert stated in ("", form(ours)), f"{item.source.name}: {ours}, not {row[column]}"


def stem_of(text) -> str:
    return re.sub(r"\.(nii|nii\.gz|avi)$", "", text.strip().replace("\\", "/").split("/")[-1], flags=re.IGNORECASE)


def form(text) -> str:
    """What spellings of one class or patient share."""
    return re.sub(r"^(-?\d+)\.0*$", r"\1", " ".join(normalize("NFC", text).casefold().split()))


TRUTH = {f"s{k:02d}": "ill" if k % 2 else "well" for k in range(12)}


def prediction_tables(folder, rng):
    """Of one model and of two, with a scan that could not be read; the labels beside them are sound."""
    rows = [
        f"ct/{scan}.nii.gz,{'ill,0.7,0.3' if k % 3 else 'well,0.2,0.8'},0.88,,,Research use only"
        for k, scan in enumerate(TRUTH)
    ]
    rows.append("ct/s12.nii.gz,,,,,,is empty.,Research use only")
    header = "scan,class,ill,well,entropy_bits,warnings,error,notice"
    two = [f"{header},weights", *(f"{row},{model}" for model in ("a", "b") for row in rows)]
    tables = ["\n".join([header, *rows]), "\n".join(two)]
    paths = write_folders(folder, (), "predictions.csv", (mutated_table(tables[k % 2], rng) for k in range(120)))
    for path in paths:
        labels = [f"{scan},{label},p{k // 2}" for k, (scan, label) in enumerate(TRUTH.items())]
        (path / "labels.csv").write_text("\n".join(["FileName,Label,Patient", *labels]))
    return paths


def read_scores(path) -> None:
    """What `viptt score` prints: numbers, kappa and accuracy as they follow from the table."""
    from viptt_core.prediction.score import match_labels, read_labels, read_predictions
    from viptt_core.results import Summary

    table = read_labels(path / "labels.csv", patient_column="Patient")
    tables = read_predictions(path / "predictions.csv")
    found = [match_labels(rows, table, arm=arm) for arm, rows in tables.items()]
    summary = Summary(*(each.rows for each in found))
    assert all(each.report() for each in found) and str(summary)
    theirs = pd.read_csv(path / "predictions.csv", dtype=str, keep_default_na=False)
    theirs["truth"] = [TRUTH.get(stem_of(scan)) for scan in theirs["scan"]]
    theirs = theirs[(theirs["error"] == "") & theirs["truth"].notna()]
    for scores, arm in zip(summary.table.to_dict("records"), tables, strict=True):
        mine = theirs[theirs["weights"] == arm] if "weights" in theirs else theirs
        right = (mine["class"] == mine["truth"]).mean()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one class alone kappa is undefined
            kappa = sklearn.metrics.cohen_kappa_score(mine["truth"], mine["class"])
        np.testing.assert_allclose([scores[name] for name in ("n", "accuracy", "kappa")], [len(mine), right, kappa])
        assert np.isnan(scores["auc"]) or 0 <= scores["auc"] <= 1, scores


# --- Arrays ---------------------------------------------------------------------------------------------


def npz_files(folder, rng):
    """Damaged before the arrays are packed, so that all checksums are right, and after."""
    arrays = {}
    for part, n in (("train", 6), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (n, 4, 10, 10), np.uint8)
        arrays[f"{part}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    members = {name: npy(array) for name, array in arrays.items()}
    before = []
    for number in range(280):
        one, other = rng.choice(list(members), 2)
        content = members[one]
        if number % 4 == 0:
            changed = {one: members[other], other: content}
        elif number % 4 == 1:
            changed = {one: restated(content, rng)}
        else:
            changed = {one: mutated(content, rng, 128 if number % 4 == 2 else len(content))}
        before.append(packed(members | changed))
    after = [mutated(packed(members, kind), rng, 200) for kind in (0, 8) for _ in range(50)]
    return write_all(folder, ".npz", before + after)


def restated(content, rng) -> bytes:
    """An array whose header, of 128 bytes, states another number or another order of its axes."""
    header = content[10:128].decode()
    numbers = list(re.finditer(r"\d+", header))
    one, other = sorted(int(k) for k in rng.integers(len(numbers), size=2))
    kind = int(rng.integers(3))
    if kind == 0 and one < other:
        (low, end), (start, high) = numbers[one].span(), numbers[other].span()
        header = header[:low] + numbers[other][0] + header[end:start] + numbers[one][0] + header[high:]
    else:
        number = ["0", "1", "7", "-1", str(2**31), str(2**62), str(10**30), "1.5"][rng.integers(8)]
        header = header[: numbers[one].start()] + number + header[numbers[one].end() :]
    if kind == 2:
        header = header.replace("False", "True")
    return content[:10] + header.rstrip().ljust(117).encode()[:117] + b"\n" + content[128:]


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
    """Volumes and labels as NumPy reads them."""
    from viptt_core.datasets.arrays import opened, read_images

    found = {}
    for part in ("train", "val", "test"):
        found[f"{part}_images"] = read_images(path, f"{part}_images", path.name)
        with opened(path) as arrays:
            found[f"{part}_labels"] = arrays[f"{part}_labels"]
    with np.load(path) as theirs:
        for name, array in found.items():
            np.testing.assert_array_equal(array, theirs[name])


# --- Weights --------------------------------------------------------------------------------------------

BLOCK = 512


def keras_files(folder, rng):
    """Only what is not zero is damaged and written: the rest, 59 MB, are holes that take no disk."""
    whole = folder / "whole.h5"
    write_keras_file(whole, holes=True, hidden_size=8, feature_size=8)
    content = whole.read_bytes()
    blocks = {at: content[at : at + BLOCK] for at in range(0, len(content), BLOCK) if any(content[at : at + BLOCK])}
    paths = []
    for number in range(100):
        paths.append(folder / f"{number:03d}.h5")
        at = int(rng.choice(list(blocks)))
        new = mutated(blocks[at], rng, len(blocks[at]))
        shift, length = len(new) - len(blocks[at]), len(content)
        if len(new) < len(blocks[at]):  # the file ends here
            shift, length = 0, at + len(new)
        with open(paths[-1], "wb") as file:
            for place, block in (blocks | {at: new}).items():
                file.seek(place + shift * (place > at))
                file.write(block)
            file.truncate(length + shift)
    return paths


def read_keras(path) -> None:
    """Each tensor as h5py reads it, its axes in PyTorch's order."""
    import h5py

    from viptt_core.keras_weights import load_keras_weights, read_keras_architecture
    from viptt_core.model import ViPTTNet

    model = load_keras_weights(ViPTTNet(**read_keras_architecture(path)), path)
    ours = list(model.state_dict().values())
    with h5py.File(path, "r") as file:
        root = file["model_weights"]
        names = [(layer, name) for layer in root.attrs["layer_names"] for name in root[layer].attrs["weight_names"]]
        theirs = [root[layer][name][()] for layer, name in names]
    assert len(ours) == len(theirs)
    for mine, values in zip(ours, theirs, strict=True):
        if values.ndim == 5:
            values = values[0]
        if values.ndim > 1:
            values = values.transpose(-1, -2, *range(values.ndim - 2))
        np.testing.assert_array_equal(mine.numpy(), values.astype(np.float32))


def safetensors_files(folder, rng):
    """Damaged: the JSON beside the weights; their header, its length and the checksum beside it right; any bytes."""
    card = {"data": {"set": "phantom"}, "training": {"seed": 1, "grey_levels": [0.2, 0.6]}}
    write_weights(folder / "whole.safetensors", **card)
    whole, beside = (folder / "whole.safetensors").read_bytes(), json.loads((folder / "whole.json").read_text())
    start = 8 + int.from_bytes(whole[:8], "little")
    header, paths = json.loads(whole[8:start]), []
    stated = json.loads(header["__metadata__"]["viptt"])
    for number in range(600):
        paths.append(folder / f"{number:03d}")
        paths[-1].mkdir()
        content, card = whole, json.dumps(beside)
        kind = number % 5
        if kind == 0:
            card = mutated_json(beside, rng)
        elif kind == 1:
            content = mutated(whole, rng, start)
        else:
            inner = kind < 4
            metadata = {"__metadata__": {"viptt": mutated_json(stated, rng)}} if inner else {}
            text = json.dumps(header | metadata) if inner else mutated_json(header, rng)
            content = len(text.encode()).to_bytes(8, "little") + text.encode() + whole[start:]
        if kind:
            card = card.replace(beside["sha256"], hashlib.sha256(content).hexdigest())
        (paths[-1] / "weights.safetensors").write_bytes(content)
        (paths[-1] / "weights.json").write_bytes(card.encode())
    return paths


def read_weights(path) -> None:
    """Each tensor of the model, and the classes, as the bytes of the file say."""
    from viptt_core.prediction.weights import open_weights

    weights = open_weights(path)
    model = weights.model()
    json.dumps(weights.to_dict())
    content = weights.path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    assert list(weights.classes) == json.loads(header["__metadata__"]["viptt"])["card"]["classes"]
    for name, mine in model.state_dict().items():
        low, high = header[name]["data_offsets"]
        kind = {"F32": "<f4", "I32": "<i4", "I64": "<i8"}[header[name]["dtype"]]
        theirs = np.frombuffer(content[start + low : start + high], kind).reshape(header[name]["shape"])
        np.testing.assert_array_equal(mine.numpy(), theirs.astype(mine.numpy().dtype))


CASES = [
    Case("NIfTI", plain_scans, read_scan),
    Case("NIfTI in gzip", packed_scans, read_scan),
    Case("AVI", avi_videos, read_video),
    Case("MP4", mp4_videos, read_video),
    Case("labels", label_tables, read_labels_and_patients),
    Case("groups", group_tables, read_classes_and_groups),
    Case("predictions", prediction_tables, read_scores),
    Case("arrays", npz_files, read_npz),
    Case("Keras", keras_files, read_keras, "viptt_core.keras_weights"),
    Case("safetensors", safetensors_files, read_weights, "viptt_core.prediction.weights"),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_damaged_input_is_read_right_or_refused_by_name(tmp_path, case):
    paths = case.make_files(tmp_path, np.random.default_rng(len(case.name)))
    found = outcomes(case.read, paths, case.module)
    wrong = [f"{path.name}: {outcome}" for path, outcome in found.items() if outcome not in FINE]
    print(case.name, Counter(outcome if outcome in FINE else "wrong" for outcome in found.values()))
    assert len(found) == len(paths) >= FEWEST and not wrong, "\n".join(wrong)
    assert {"value", "refused"} <= set(found.values())  # else the mutations are too weak or too strong
