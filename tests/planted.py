"""Folders of scans and of videos in the true layouts, sound but for faults that are planted and listed."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import av
import nibabel as nib
import numpy as np

from viptt_core.constants import TB_CLASSES

Planted = set[tuple[str, str, str]]  # kind, where, level

SHAPE = (24, 24, 12)
AFFINE = np.diag([-15.0, 15.0, 20.0, 1.0])  # stored L, A, S: canonical
SOUND_SCANS = 40
FRAMES = 72
FRAME_SIZE = (32, 24)  # width, height


# --- Scans ----------------------------------------------------------------------------------------------


def chest(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Something like a chest: int16 HU, air around a body with two lungs, noise of its own."""
    noise = np.random.default_rng(seed).normal(0, 20, shape)
    x, y = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    plane = np.where(x**2 + y**2 < 0.8, 40, -1000)
    plane[(np.abs(x) - 0.4) ** 2 + y**2 < 0.08] = -850
    return np.clip(plane.reshape(*plane.shape, *[1] * (len(shape) - 2)) + noise, -1024, 1500).astype(np.int16)


def scan_bytes(voxels: np.ndarray, affine: np.ndarray = AFFINE, qform: np.ndarray | None = None) -> bytes:
    """A NIfTI file, not compressed; `qform` where it is to differ from the sform."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, "scanner")
    image.set_qform(affine if qform is None else qform, "scanner")
    return image.to_bytes()


def write_scan(path: Path, content: bytes | np.ndarray, level: int = 1) -> bytes:
    """Compress and write a scan; returns what is in the file."""
    if isinstance(content, np.ndarray):
        content = scan_bytes(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    zipped = gzip.compress(content, level, mtime=0)
    path.write_bytes(zipped)
    return zipped


def patched(content: bytes, offset: int, values: np.ndarray) -> bytes:
    """The file with other bytes in its header."""
    changed = bytearray(content)
    changed[offset : offset + values.nbytes] = values.tobytes()
    return bytes(changed)


def scaled(stored: np.ndarray, slope: float, intercept: float) -> bytes:
    """A scan of these stored voxels with slope and intercept in its header, which nibabel drops."""
    return patched(scan_bytes(stored), 112, np.array([slope, intercept], np.float32))


def padded(voxels: np.ndarray, padding: float) -> np.ndarray:
    """The corners of every slice, where a scanner sees nothing: a fifth of the voxels."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in voxels.shape[:2]), indexing="ij")
    return np.where((x**2 + y**2 > 1)[..., None], voxels.dtype.type(padding), voxels)


def claim(path: Path, shape: tuple[int, ...]) -> None:
    """A scan whose header states a size that its few bytes unpack to."""
    header = nib.Nifti2Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header.set_sform(np.eye(4), 1)
    header["vox_offset"], header["magic"] = header.single_vox_offset, header.single_magic
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4 + int(np.prod(shape)))))


def turned(degrees: float) -> np.ndarray:
    """AFFINE, turned about the body's axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(4)
    turn[:2, :2] = [[c, -s], [s, c]]
    return turn @ AFFINE


def write_sound_scans(root: Path, n: int = SOUND_SCANS) -> list[str]:
    """Scans in ImageCLEF's layout, the same number of each class; returns the rows of the table."""
    rows = []
    for i in range(n):
        name = f"TRN_{i + 1:04d}.nii.gz"
        write_scan(root / name, chest(i))
        rows.append(f"{name},{i % len(TB_CLASSES) + 1}")
    write_table(root, rows)
    return rows


def write_table(root: Path, rows: list[str]) -> None:
    (root / "labels.csv").write_text("\n".join(["FileName,TypeOfTB", *rows, ""]), encoding="utf-8")


def plant_scans(root: Path) -> Planted:
    """Sound scans and, for every fault, one more; returns the faults as a check for 'corrected' must find them."""
    rows, found = write_sound_scans(root), set()
    number = SOUND_SCANS

    def add(kind: str, content: bytes | np.ndarray, level: str = "file", *, zipped: bool = False) -> str:
        nonlocal number
        number += 1
        name = f"TRN_{number:04d}.nii.gz"
        if zipped:
            (root / name).write_bytes(content)
        else:
            write_scan(root / name, content)
        rows.append(f"{name},{number % len(TB_CLASSES) + 1}")
        if kind:
            found.add((kind, name, level))
        return name

    plain = scan_bytes(chest(900))
    whole = gzip.compress(plain, 1, mtime=0)
    add("empty file", b"", zipped=True)
    add("truncated file", whole[: len(whole) * 6 // 10], zipped=True)
    add("truncated file", patched(plain, 42, np.array([512, 512, 4000], np.int16)))  # promises more than can be
    add("truncated file", plain[:-1000])  # sound gzip data of a scan that was cut before
    add("truncated file", plain[:200])  # the header is cut off
    add("wrong file type", b"<!DOCTYPE html><title>Sign in</title>", zipped=True)
    add("wrong file type", b"\xff\xd8\xff\xe0 a picture", zipped=True)
    add("damaged file", whole[:-8] + bytes(byte ^ 255 for byte in whole[-8:-4]) + whole[-4:], zipped=True)
    add("bad header", patched(plain, 108, np.array([np.nan], np.float32)))  # where the voxels start
    add("not a 3-D grey scan", scan_bytes(chest(901, SHAPE[:2])))
    add("not a 3-D grey scan", scan_bytes(chest(902, (*SHAPE, 2))))
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    add("not a 3-D grey scan", scan_bytes(colour))
    holes = chest(903).astype(np.float32)
    holes[3, 4, 5] = np.nan
    add("voxels not finite", holes, "note")
    add("no finite voxel", np.full(SHAPE, np.nan, np.float32))
    add("not in HU", ((chest(904).astype(int) + 1024) * 255 // 2524).astype(np.uint8))
    add("one grey level", np.full(SHAPE, -1000, np.int16))
    add("other axes", scan_bytes(chest(905), AFFINE @ np.diag([-1, 1, 1, 1])), "note")
    add("bad spacing", patched(scan_bytes(chest(908)), 312, np.zeros(4, np.float32)))  # srow_z
    add("bad spacing", scan_bytes(chest(909), AFFINE @ np.diag([1, 1, 10, 1])), "note")  # 200 mm
    add("two orientations", scan_bytes(chest(910), AFFINE, AFFINE @ np.diag([-1, 1, 1, 1])))
    add("few slices", chest(912, (24, 24, 4)), "note")
    add("not square", chest(913, (24, 16, 12)), "note")
    # The same scan: compressed otherwise, as float32, with another origin; its label is another one.
    moved = AFFINE.copy()
    moved[:3, 3] = 7
    add("duplicate content", scan_bytes(chest(7).astype(np.float32), moved), "set")

    # The table, and the files beside it.
    rows += ["TRN_0900.nii.gz,1", "TRN_0001.nii.gz,1", "TRN_0901.nii.gz,9"]
    write_scan(root / "TRN_0901.nii.gz", chest(920))
    write_scan(root / "TRN_0902.nii.gz", chest(921))
    write_scan(root / "second" / "TRN_0002.nii.gz", chest(922))
    found |= {
        ("missing file", "TRN_0900.nii.gz", "file"),
        ("duplicate row", "labels.csv", "set"),
        ("unknown label", "labels.csv", "set"),
        ("no label", "TRN_0902.nii.gz", "left out"),
        ("two files of one name", "TRN_0002.nii.gz", "set"),
    }

    write_table(root, rows)
    return found


# --- Videos ---------------------------------------------------------------------------------------------


def write_video(
    path: Path, seed: int, frames: int = FRAMES, size: tuple[int, int] = FRAME_SIZE, picture: np.ndarray | None = None
) -> None:
    """A moving noise picture as MPEG-4 in AVI, as UCF50 has it; or one picture all along."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, (width, height) = np.random.default_rng(seed), size
    still = rng.integers(0, 255, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    partial = path.with_name(f".{path.name}.part")
    with av.open(str(partial), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25, pix_fmt="yuv420p")
        stream.width, stream.height = size
        stream.codec_context.thread_count = 1
        for k in range(frames):
            image = np.roll(still, k, axis=1) if picture is None else picture
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
    os.replace(partial, path)


def write_sound_videos(root: Path, groups: int = 6) -> None:
    """Two classes of videos in UCF50's layout."""
    for label, name in enumerate(("Mixing", "Rowing")):
        for group in range(1, groups + 1):
            write_video(root / name / f"v_{name}_g{group:02d}_c01.avi", seed=100 * label + group)


def plant_videos(root: Path) -> Planted:
    """Sound videos and, for every fault, one more; returns the faults as a check for 70 frames must find them."""
    write_sound_videos(root)
    found = set()

    def new(kind: str, level: str = "file") -> Path:
        number = 40 + len(found)
        path = root / "Rowing" / f"v_Rowing_g{number:02d}_c01.avi"
        found.add((kind, f"Rowing/{path.name}", level))
        return path

    new("empty file").write_bytes(b"")
    new("not a readable video").write_text("This clip is not available in your country.\n")
    write_video(new("too few frames", "left out"), 301, frames=20)
    write_video(path := new("truncated file"), 302, frames=150)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    write_video(path := new("truncated file", "note"), 303, frames=240)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    write_video(new("one grey level"), 0, picture=np.full((24, 32, 3), 90, np.uint8))
    shutil.copy(root / "Rowing" / "v_Rowing_g01_c01.avi", new("duplicate content", "set"))  # another group
    twin = root / "Rowing" / "v_Rowing_g02_c02.avi"
    shutil.copy(root / "Rowing" / "v_Rowing_g02_c01.avi", twin)  # the same group
    shutil.copy(root / "Mixing" / "v_Mixing_g03_c01.avi", root / "Rowing" / "v_Rowing_g98_c01.avi")
    write_video(root / "Mixing" / "holiday.avi", 305)
    (root / "Mixing" / "v_Mixing_g09_c01.avi.part").write_bytes(b"half")
    (root / "Skijet").mkdir()
    return found | {
        ("duplicate content", f"Rowing/{twin.name}", "note"),
        ("duplicate content", "Rowing/v_Rowing_g98_c01.avi", "set"),
        ("no group", "Mixing/holiday.avi", "set"),
        ("stray file", "Mixing/v_Mixing_g09_c01.avi.part", "left out"),
        ("empty folder", "Skijet", "note"),
    }
