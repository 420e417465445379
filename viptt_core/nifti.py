"""NIfTI file -> its slices, one by one, after every check of the file and its header.

Slices are read into the same memory, so a scan of any length needs that of one slice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, prod
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.spatialimages import HeaderDataError

from viptt_core.constants import HU_AIR
from viptt_core.errors import CONVERT_AGAIN, COPY_AGAIN, DataError, Fault, warn_of
from viptt_core.files import reading

MOST_VOXELS = (4096, 4096, 2**15)  # along X, Y, Z; a CT has 512, 512 and some hundred
SAMPLED = 24  # voxels along an axis, at most, that tell how the values of a scan are spread
_GZIP_MOST = 1032  # deflate never packs more bytes than this into one
_LARGEST_NUMBER = 1e38  # in an affine: what float32 holds
_MM = {1: 1000.0, 3: 0.001}  # of metres and micrometres, by their code; all other codes are taken for millimetres
_QUIET = logging.Logger("nibabel on headers", logging.CRITICAL + 1)  # what matters becomes an error or a fault


def read_nifti(path: str | PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI-1 or NIfTI-2 scan, checking the header before any voxel is read.

    Returns:
        Voxels [X,Y,Z], in HU for CT, in the file's dtype or, where they are scaled, a float; NaN and infinities are
        read as air, with a DataWarning. Affine float64 [4,4], index to mm.

    Raises:
        DataError: missing, empty, unreadable, truncated or damaged; not NIfTI; not one grey value on three axes;
            longer than MOST_VOXELS; a header that contradicts itself; no finite voxel.
    """
    with open_scan(path) as scan:
        voxels = np.empty(scan.shape, scan.dtype, order="F")
        for target, plane in zip(voxels.T, scan.planes(), strict=True):
            target[...] = plane
    if scan.n_holes:
        what = f"{scan.n_holes} voxels are NaN or infinite; read as air."
        warn_of(Fault("voxels not finite", str(path), what, level="note"))
    return voxels, scan.affine


@dataclass
class Scan:
    """An open NIfTI file whose header is sound, and what `planes` notices while the voxels pass."""

    path: Path
    stream: BinaryIO  # stands at the first voxel
    header: nib.Nifti1Header
    shape: tuple[int, int, int]  # X, Y, Z
    stored: np.dtype  # of the voxels in the file
    dtype: np.dtype  # of the planes: native, a float where they are scaled
    scaling: tuple[float, float] | None  # slope and intercept, where there is something to do
    affine: np.ndarray  # float64 [4,4], voxel index to mm
    n_holes: int = 0  # voxels that are NaN or infinite
    lowest: float = inf  # HU of the others
    highest: float = -inf
    sampled: list[np.ndarray] = field(default_factory=list)  # voxels of a sub-grid, holes as they are stored

    @property
    def written_by(self) -> str:
        """What the header says of the program."""
        return self.header["descrip"].item().decode(errors="replace")

    def planes(self) -> Iterator[np.ndarray]:
        """Read the slices [Y,X] in order, holes as air, each valid until the next; then the file to its end."""
        plane = np.empty((self.shape[1], self.shape[0]), self.stored)
        raw = plane.view(np.uint8).reshape(-1)
        x, y, z = (-(-n // SAMPLED) for n in self.shape)
        for index in range(self.shape[2]):
            if self.stream.readinto(raw) < raw.size:
                raise EOFError
            values = plane.astype(self.dtype, copy=False)
            if self.scaling is not None:  # in place: what is stored is read anew each time
                with np.errstate(over="ignore", invalid="ignore"):  # what overflows is a hole
                    values *= self.scaling[0]
                    values += self.scaling[1]
            if index % z == z // 2:
                self.sampled.append(values[y // 2 :: y, x // 2 :: x].copy())
            lowest, highest = values.min(), values.max()
            if not (np.isfinite(lowest) and np.isfinite(highest)):
                finite = np.isfinite(values)
                known = values[finite]
                values[~finite] = HU_AIR
                self.n_holes += values.size - known.size
                lowest, highest = known.min(initial=inf), known.max(initial=-inf)
            self.lowest, self.highest = min(self.lowest, float(lowest)), max(self.highest, float(highest))
            yield values
        while self.stream.read(1 << 16):  # only at the end is the checksum compared
            pass
        if self.n_holes == prod(self.shape):
            raise _refusal("no finite voxel", "holds no finite voxel.", self.path)


@contextmanager
def open_scan(path: str | PathLike) -> Iterator[Scan]:
    """Open a scan and check its header; what is wrong with the file, in the `with` block too, becomes a DataError."""
    file = Path(path)
    with reading(file) as n_bytes:
        with file.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
        if file.suffix == ".gz" and not zipped:
            remedy = f"{COPY_AGAIN} If it is an uncompressed scan, name it .nii."
            raise _refusal("wrong file type", "is not gzip data although its name ends in .gz.", path, remedy)
        try:
            with igzip.open(file, "rb") if zipped else file.open("rb") as stream:
                yield _start_scan(file, stream, n_bytes * (_GZIP_MOST if zipped else 1))
        except EOFError as error:
            raise _refusal("truncated file", "is truncated: its data ends early.", path) from error
        except (igzip.BadGzipFile, isal_zlib.error) as error:
            raise _refusal("damaged file", f"holds damaged gzip data ({error}).", path) from error
        except HeaderDataError as error:
            raise _refusal("bad header", f"has a bad NIfTI header ({error}).", path) from error


def _refusal(kind: str, what: str, path: str | PathLike, remedy: str = "") -> DataError:
    """An error with the remedy of its kind: to copy the file again, or else to convert it again."""
    usual = COPY_AGAIN if kind in ("truncated file", "damaged file") else CONVERT_AGAIN
    return DataError(what, path=path, remedy=remedy or usual, kind=kind)


def _start_scan(path: Path, stream: BinaryIO, most_bytes: int) -> Scan:
    """Check the header, and leave the stream at the first voxel; the voxels must fit into `most_bytes`."""
    header = _read_header(path, stream)
    shape, stored = header.get_data_shape(), header.get_data_dtype()
    faults = {
        f"has {len(shape)} axes {list(shape)}; a scan has three.": len(shape) < 3 or any(n != 1 for n in shape[3:]),
        f"has an axis of length 0: {list(shape)}.": min(shape, default=1) < 1,
        "holds colour or complex values, not HU.": stored.kind not in "iuf",
        f"has {list(shape[:3])} voxels; more than {list(MOST_VOXELS)} along an axis are no scan.": any(
            n > most for n, most in zip(shape, MOST_VOXELS, strict=False)
        ),
    }
    if what := next((what for what, is_so in faults.items() if is_so), ""):
        raise _refusal("not a 3-D grey scan", what, path)
    if (n_bytes := stored.itemsize * prod(shape)) > most_bytes:  # the header lies: do not even ask for the memory
        what = f"is truncated: its header promises {n_bytes} bytes of voxels, it holds fewer."
        raise _refusal("truncated file", what, path)
    slope, intercept = header.get_slope_inter()  # None: the header asks for no scaling
    scaling = None if slope is None or (slope, intercept) == (1, 0) else (slope, intercept)
    dtype = stored.newbyteorder("=") if scaling is None else _scaled_dtype(stored, slope, intercept)
    try:
        with np.errstate(all="ignore"):  # what comes of it is looked at
            affine = header.get_best_affine()
            affine[:3] *= _MM.get(int(header["xyzt_units"]) % 8, 1.0)
    except ValueError as error:
        raise HeaderDataError(f"orientation: {error}") from error
    if np.isinf(header["scl_slope"]) or not (np.abs(affine) < _LARGEST_NUMBER).all():  # nibabel: infinite slope is none
        raise HeaderDataError("a slope or affine that is not finite")
    return Scan(path, stream, header, shape[:3], stored, dtype, scaling, affine)


def _read_header(path: Path, stream: BinaryIO) -> nib.Nifti1Header:
    """Parse and check the header alone, leaving the stream at the first voxel."""
    block = stream.read(nib.Nifti2Header.sizeof_hdr)  # the longer one, with its magic in front
    kind = nib.Nifti2Header if block[4:8] == b"n+2\0" else nib.Nifti1Header
    stated = {int.from_bytes(block[:4], order) for order in ("little", "big")}  # the length of the header itself
    is_nifti = kind is nib.Nifti2Header or block[344:348] == b"n+1\0"
    if len(block) < kind.sizeof_hdr and (is_nifti or kind.sizeof_hdr in stated):
        raise _refusal("truncated file", "is truncated: its header ends early.", path)
    if not is_nifti:
        raise _refusal("wrong file type", "is not a NIfTI file (header and voxels in one file).", path)
    header = kind(block[: kind.sizeof_hdr], check=False)
    header.check_fix(_QUIET)  # raises HeaderDataError on contradictions
    offset = float(header["vox_offset"]) or kind.single_vox_offset
    if not kind.sizeof_hdr <= offset < 1 << 30:
        raise HeaderDataError(f"voxels start at byte {offset:g}")
    stream.seek(int(offset))
    return header


def _scaled_dtype(stored: np.dtype, slope: float, intercept: float) -> np.dtype:
    """float32 where it holds every scaled value to 0.01 HU, as with the 16 bits of scanners; else float64."""
    if stored.kind == "f":
        return np.dtype(np.float64)
    limits = np.iinfo(stored)
    largest = max(-limits.min, limits.max) * abs(slope) + abs(intercept)
    whole = slope.is_integer() and intercept.is_integer()
    return np.dtype(np.float32 if largest < (2**24 if whole else 2**15) else np.float64)
