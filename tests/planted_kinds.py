"""Sound data sets of every sort, and the kinds of fault that people's own files have, each planted into one of them."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import nibabel as nib
import numpy as np
from planted import AFFINE, chest, lungs, patched, scan_bytes, write_scan, write_sound_videos, write_video

GROUPS = 6  # of a class
ARRAYS = {"train": 12, "val": 6, "test": 6}
COLUMNS = "FileName,Label,Patient"
IN_TABLE = {"patient_column": "Patient"}


class Kind(NamedTuple):
    """A kind of fault.

    Attributes:
        name: Of the case.
        sort: The sound set it is planted in, one of SORTS.
        plant: Changes that set, whose folder it is given; may return settings.
        found: What the check must report; "" where the files are right and it must not.
    """

    name: str
    sort: str
    plant: Callable[[Path], dict | None]
    found: str


# --- Sound sets ---


def table(root: Path, change: Callable[[list[str]], list[str]] = list, header: str = COLUMNS) -> None:
    """A label table of `sound_table`, its rows changed."""
    rows = [f"s{i:02d}.nii.gz,{'ill' if i % 2 else 'well'},p{i:02d}" for i in range(2 * GROUPS)]
    (root / "labels.csv").write_text("\n".join([header, *change(rows), ""]), encoding="utf-8")


def sound_table(root: Path) -> tuple[str, dict]:
    for i in range(2 * GROUPS):
        write_scan(root / f"s{i:02d}.nii.gz", chest(i))
    table(root)
    return "folder", IN_TABLE


def sound_imageclef(root: Path) -> tuple[str, dict]:
    rows = ["FileName,TypeOfTB"]
    for i in range(5 * GROUPS):
        name = f"TRN_{i + 1:04d}.nii.gz"
        write_scan(root / name, chest(i))
        write_scan(root / "masks1" / name, lungs())
        rows.append(f"{name},{i % 5 + 1}")
    (root / "labels.csv").write_text("\n".join([*rows, ""]))
    return "imageclef", {}


def sound_scans(root: Path) -> tuple[str, dict]:
    for i in range(2 * GROUPS):
        write_scan(root / ("ill" if i % 2 else "well") / f"s{i:02d}.nii.gz", chest(i))
    return "folder", {}


def sound_videos(root: Path) -> tuple[str, dict]:
    write_sound_videos(root, GROUPS)
    return "folder", {}


def sound_arrays(root: Path, **changes: np.ndarray) -> tuple[str, dict]:
    rng, columns = np.random.default_rng(0), {}
    for part, n in ARRAYS.items():
        columns[f"{part}_images"] = rng.integers(1, 255, (n, 5, 8, 8), np.uint8)
        columns[f"{part}_labels"] = (np.arange(n) % 2)[:, None]
    root.mkdir(exist_ok=True)
    np.savez_compressed(root / "mine.npz", **columns | changes)
    return "medmnist3d", {}


SORTS = {
    "table": sound_table,
    "imageclef": sound_imageclef,
    "scans": sound_scans,
    "videos": sound_videos,
    "arrays": sound_arrays,
}


# --- One scan, video or table of a set made otherwise ---


def scan(content: bytes | np.ndarray) -> Callable[[Path], None]:
    return lambda root: write_scan(root / "s03.nii.gz", content) and None


def rows(change: Callable[[list[str]], list[str]], header: str = COLUMNS, **settings) -> Callable[[Path], dict]:
    return lambda root: table(root, change, header) or settings


def row(text: str) -> Callable[[Path], dict]:
    """The row of the fourth scan is written so."""
    return rows(lambda of_scans: [*of_scans[:3], text, *of_scans[4:]])


def labels(*spellings: str) -> Callable[[Path], dict]:
    """The labels of the table, in turn."""
    return rows(lambda _: [f"s{i:02d}.nii.gz,{spellings[i % len(spellings)]},p{i}" for i in range(2 * GROUPS)])


def encoded(encoding: str, header: str = COLUMNS) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        text = (root / "labels.csv").read_text().replace(COLUMNS, header).replace("ill", "Läsion")
        (root / "labels.csv").write_bytes(text.encode(encoding))

    return plant


def scaled(hu: np.ndarray, intercept: float) -> bytes:
    """A scan that is stored with an intercept, which nibabel drops when it writes."""
    image = nib.Nifti1Image((hu - intercept).astype(np.int16), AFFINE)
    return patched(image.to_bytes(), 112, np.array([1, intercept], np.float32))


def padded(voxels: np.ndarray, padding: int) -> np.ndarray:
    """The corners of every slice, where a scanner sees nothing."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in voxels.shape[:2]), indexing="ij")
    return np.where((x**2 + y**2 > 1)[..., None], padding, voxels)


def claim(shape: tuple[int, ...]) -> Callable[[Path], None]:
    """The header of a scan states a size that its few bytes unpack to."""

    def plant(root: Path) -> None:
        header = nib.Nifti2Header()
        header.set_data_shape(shape)
        header.set_data_dtype(np.uint8)
        header.set_sform(np.eye(4), 1)
        header["vox_offset"], header["magic"] = header.single_vox_offset, header.single_magic
        (root / "s03.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4 + int(np.prod(shape)))))

    return plant


def write_mp4(path: Path, shown_ms: int | None = None) -> None:
    """72 frames; with `shown_ms` an edit list that shows only so much of them (ISO 14496-12, 8.6.6)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        rng = np.random.default_rng(9)
        for _ in range(72):
            image = rng.integers(0, 255, (24, 32, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    if shown_ms is not None:
        content = bytearray(path.read_bytes())
        content[(at := content.index(b"elst") + 12) : at + 4] = struct.pack(">I", shown_ms)
        path.write_bytes(content)


def damaged_frames(root: Path) -> None:
    write_mp4(path := root / "Rowing" / "v_Rowing_g09_c01.mp4")
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 400
    content[start : start + 60 : 3] = bytes(range(200, 220))
    path.write_bytes(content)


def other_endings(root: Path) -> None:
    for k, path in enumerate(sorted(root.rglob("*.avi"))):
        path.rename(path.with_suffix((".MOV", ".m4v", ".mpg")[k % 3]))


def frames_as_pictures(root: Path) -> None:
    for path in sorted(root.rglob("*.avi")):
        path.unlink()
        path.with_suffix("").mkdir()
        (path.with_suffix("") / "frame_0001.jpg").write_bytes(b"\xff\xd8\xff\xe0")


def dicom(root: Path) -> None:
    for path in sorted(root.rglob("*.nii.gz")):
        path.unlink()
        (path.parent / "series").mkdir(exist_ok=True)
        (path.parent / "series" / path.name[:3]).write_bytes(bytes(128) + b"DICM" + bytes(64))


def renamed_class(name: str) -> Callable[[Path], None]:
    return lambda root: (root / "ill").rename(root / name) and None


def moved_and_linked(root: Path) -> None:
    shutil.move(root / "ill", root.parent / f"{root.name} elsewhere")
    (root / "ill").symlink_to(root.parent / f"{root.name} elsewhere")


def not_utf8(root: Path) -> None:
    os.rename(root / "s03.nii.gz", os.fsencode(root) + b"/s\xff3.nii.gz")


def groups_table(change: Callable[[list[str]], list[str]]) -> Callable[[Path], dict]:
    def plant(root: Path) -> dict:
        of_files = [f"{path.relative_to(root)},{path.parent.name},{path.stem}" for path in sorted(root.rglob("*.avi"))]
        (root / "groups.csv").write_text("\n".join(["file,class,group", *change(of_files), ""]))
        return {"groups": "groups.csv"}

    return plant


def class_of(name: str, content: bytes = b"?") -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return plant


def few_groups(root: Path) -> None:
    for path in sorted((root / "ill").iterdir())[2:]:
        path.unlink()


def confounded(root: Path) -> None:
    """Each class comes from a scanner with a number of slices of its own."""
    for i in range(40):
        write_scan(root / ("ill" if i % 2 else "well") / f"s{i:02d}.nii.gz", chest(i, (24, 24, 12 + i % 2)))


def zoomed(root: Path) -> None:
    """The videos of one class come in another frame size."""
    for i in range(2 * GROUPS):
        for name, size in (("Mixing", (32, 24)), ("Rowing", (40, 24))):
            write_video(root / name / f"v_{name}_g{i:02d}_c01.avi", seed=i, size=size)


def array_labels(of_numbers: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """The labels of a sound set of arrays are those of the numbers 0 to n."""
    changes = {f"{part}_labels": of_numbers(np.arange(n)[:, None]) for part, n in ARRAYS.items()}
    return lambda root: sound_arrays(root, **changes) and None


def array_cubes(root: Path) -> None:
    rng = np.random.default_rng(1)
    sound_arrays(root, **{f"{part}_images": rng.integers(1, 255, (n, 8, 8, 8), np.uint8) for part, n in ARRAYS.items()})


def turned_part(root: Path) -> None:
    sound_arrays(root, test_images=np.ones((6, 8, 8, 5), np.uint8))


def one_class_in(part: str) -> Callable[[Path], None]:
    return lambda root: sound_arrays(root, **{f"{part}_labels": np.zeros((ARRAYS[part], 1), int)}) and None


def blank_volumes(root: Path) -> None:
    sound_arrays(root, test_images=np.full((6, 5, 8, 8), 7, np.uint8))


def one_patient(root: Path) -> None:
    sound_arrays(root, **{f"{part}_patient": np.arange(n) for part, n in ARRAYS.items()})


def flipped_byte(root: Path) -> None:
    content = bytearray((root / "mine.npz").read_bytes())
    content[800] ^= 255
    (root / "mine.npz").write_bytes(content)


KINDS = (
    # HU
    Kind("HU: intercept lost, padding", "table", scan(padded(chest(3) + 1024, -2000).astype(np.int16)), "not in HU"),
    Kind("HU: clipped to a window", "table", scan(chest(3).clip(-160, 240)), "not in HU"),
    Kind("HU: padding below 16 bits", "table", scan(scaled(padded(chest(3), -31744), -1024)), ""),
    # Table structure
    Kind(
        "two columns of one name",
        "table",
        rows(lambda of_scans: [f"{each},ill" for each in of_scans], f"{COLUMNS},Label"),
        "columns of one name",
    ),
    Kind("a cell too many", "table", row("s03.nii.gz,ill,p03,with an unquoted, comma"), "ragged row"),
    Kind("a quote left open", "table", row('"s03.nii.gz,ill,p03'), "unclosed quote"),
    Kind("a scan under two names", "table", rows(lambda of_scans: [*of_scans, "s03,well,p03"]), "duplicate row"),
    # Words for "missing"
    *(
        Kind(f"label '{word}'", "table", row(f"s03.nii.gz,{word},p03"), "missing label")
        for word in ("nan", "NA", "None", "n/a", "")
    ),
    *(Kind(f"patient '{word}'", "table", row(f"s03.nii.gz,ill,{word}"), "no patient") for word in ("NA", "nan", "")),
    # Near-equal labels
    Kind("labels 1 and 1.0", "table", labels("0", "1", "0", "1.0"), "near-equal values"),
    Kind("labels 1 and 01", "table", labels("0", "1", "0", "01"), "near-equal values"),
    Kind("labels focal and Focal", "table", labels("well", "focal", "well", "Focal"), "near-equal values"),
    Kind("a trailing blank", "table", labels("well", "ill", "well", "ill "), ""),
    # Settings
    Kind("classes unknown", "table", rows(list, classes="well,sick"), "class without files"),
    Kind("label_column beside folders", "scans", lambda root: {"label_column": "diagnosis"}, "label_column"),
    Kind("group_pattern and patients", "table", rows(list, group_pattern="(s)"), "group_pattern"),
    # Reserved folder names
    Kind("a class called findings", "scans", renamed_class("findings"), "class of masks"),
    Kind("a class called seg", "scans", renamed_class("seg"), ""),
    Kind("masks called seg", "table", lambda root: write_scan(root / "seg" / "s03.nii.gz", lungs()) and None, "masks"),
    Kind("a class of DICOM", "scans", class_of("worse/p1/IM1", bytes(128) + b"DICM"), "Convert DICOM"),
    Kind("a class one folder deeper", "scans", class_of("worse/p0/s99.nii.gz"), "folder not read"),
    Kind("a class of pictures", "videos", class_of("Worse/v01/1.jpg"), "folder not read"),
    Kind("notes beside the classes", "scans", class_of("docs/readme.pdf"), ""),
    Kind("another table beside the classes", "scans", class_of("notes.csv", b"a,b\n1,2\n"), "table not read"),
    Kind("classes ill and Ill", "scans", class_of("Ill/s99.nii.gz"), "near-equal values"),
    # Walking folders
    Kind("a linked class folder", "scans", moved_and_linked, ""),
    Kind("a link into nothing", "scans", lambda root: (root / "ill" / "s99.nii.gz").symlink_to("x"), "unreadable file"),
    Kind("links in a circle", "scans", lambda root: (root / "ill" / "up").symlink_to(root), "folder linked twice"),
    # Paths in tables
    Kind("./s03", "table", row("./s03,ill,p03"), ""),
    Kind("another ending", "table", row("s03.NII.GZ,ill,p03"), ""),
    Kind("a Windows path", "table", row(r".\s03.nii.gz,ill,p03"), ""),
    Kind("a name that comes near", "table", row("s_03.nii.gz,ill,p03"), "missing file"),
    # Names and endings
    Kind("a name that is not UTF-8", "table", not_utf8, "name not UTF-8"),
    Kind("videos of other endings", "videos", other_endings, ""),
    Kind("frames as pictures", "videos", frames_as_pictures, "no videos"),
    # Frame counts
    Kind("an edit list", "videos", lambda root: write_mp4(root / "Rowing" / "v.mp4", 800), "too few frames"),
    Kind("an edit list that cuts little", "videos", lambda root: write_mp4(root / "Rowing" / "v.mp4", 2840), ""),
    Kind("damaged frames", "videos", damaged_frames, "frames are damaged"),
    # Orientation
    Kind(
        "orientation unknown",
        "table",
        scan(patched(scan_bytes(chest(3)), 252, np.zeros(2, np.int16))),
        "no orientation",
    ),
    # Arrays
    Kind("labels from 1", "arrays", array_labels(lambda n: n % 2 + 1), "class without volumes"),
    Kind("a gap in the labels", "arrays", array_labels(lambda n: n % 2 * 2), "class without volumes"),
    Kind("a label of 2^40", "arrays", array_labels(lambda n: n % 2 * 2**40), "unknown label"),
    Kind("a column without an axis", "arrays", array_labels(lambda n: np.array(1)), "not one label each"),
    Kind("volumes that are cubes", "arrays", array_cubes, "slice axis unknown"),
    Kind("a patient in two parts", "arrays", one_patient, "group in two parts"),
    Kind("a damaged .npz", "arrays", flipped_byte, "damaged file"),
    Kind("parts of other shapes", "arrays", turned_part, "parts unlike"),
    Kind("a part without a class", "arrays", one_class_in("train"), "part without a class"),
    Kind("a test part of one class", "arrays", one_class_in("test"), "part without a class"),
    Kind("a blank volume", "arrays", blank_volumes, "one grey level"),
    # Sizes
    Kind("a row of two million voxels", "table", claim((2_000_000, 1, 1)), "not a 3-D grey scan"),
    # Table readers
    Kind("UTF-16", "table", encoded("utf-16"), "not UTF-8"),
    Kind("Windows-1252", "table", encoded("cp1252"), "not UTF-8"),
    Kind("a long cell", "table", row(f"s03.nii.gz,ill,{'p' * 200_000}"), "long cell"),
    Kind("a NUL byte", "table", row("s03.nii.gz,i\0ll,p03"), "damaged file"),
    Kind("sep= and blank lines", "table", rows(list, f"sep=,\n\n{COLUMNS}"), ""),
    # Groups of videos
    Kind("a table of groups", "videos", groups_table(list), ""),
    Kind("a video without a group", "videos", groups_table(lambda of_files: of_files[1:]), "no group"),
    Kind("too few groups", "scans", few_groups, "too few groups"),
    # Column names
    Kind("other columns", "table", rows(list, "Dateiname,Diagnose,Patienten-Nr."), "no label table"),
    # Shortcuts
    Kind("slices tell the class", "scans", confounded, "format tells the class"),
    Kind("frame size tells the class", "videos", zoomed, "format tells the class"),
    # DICOM
    Kind("DICOM", "scans", dicom, "dcm2niix"),
)
