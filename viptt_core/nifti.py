"""NIfTI file -> its slices, one by one, after every check of the file and its header.

Slices are read into the same memory, so a scan of any length needs that of one slice. A damaged file, a header
that contradicts itself, and a compression bomb end in a DataError that names the file and the remedy.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.spatialimages import HeaderDataError

from viptt_core.constants import HU_AIR
from viptt_core.errors import DataError, DataWarning

_GZIP_MOST = 1032  # deflate never packs more bytes than this into one
HIGHEST_MINIMUM = -100  # HU, fat: every chest scan also holds lung and air, far below
_COPY_AGAIN = "Copy or download the file again."
_CONVERT_AGAIN = "Convert the scan again, for example with dcm2niix, to one 3-D .nii.gz file."


def read_nifti(path: str | PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI-1 or NIfTI-2 scan, checking the header before any voxel is read.

    Returns:
        Voxels [X,Y,Z] in the file's own dtype (float32 where the header asks for scaling), in HU for
        CT; NaN and infinities are read as air, with a DataWarning. Affine float64 [4,4], index to mm.

    Raises:
        DataError: missing, empty, truncated or damaged; not NIfTI; not one grey value on three axes;
            a header that contradicts itself; no finite voxel.
    """
    seen = Seen(path)
    with open_scan(path) as scan:
        voxels = np.empty(scan.shape, scan.dtype, order="F")
        for target, plane in zip(voxels.T, map(seen.fill_with_air, scan.planes()), strict=True):
            target[...] = plane
    seen.report()
    return voxels, scan.affine


@dataclass(frozen=True)
class Scan:
    """An open NIfTI file whose header is sound; the stream stands at the first voxel."""

    stream: BinaryIO
    shape: tuple[int, int, int]  # X, Y, Z
    stored: np.dtype
    dtype: np.dtype  # of the planes: native byte order, float32 where they are scaled
    scaling: tuple[float, float] | None  # slope and intercept, where there is something to do
    affine: np.ndarray  # float64 [4,4], voxel index to mm
    header: nib.Nifti1Header

    def planes(self) -> Iterator[np.ndarray]:
        """Read the slices [Y,X] in order, each valid until the next, then the file to its end."""
        plane = np.empty((self.shape[1], self.shape[0]), self.stored)
        raw = plane.view(np.uint8).reshape(-1)
        for _ in range(self.shape[2]):
            if self.stream.readinto(raw) < raw.size:
                raise EOFError
            values = plane.astype(self.dtype, copy=False)
            if self.scaling is not None:  # in place: what is stored is read anew each time
                values *= self.scaling[0]
                values += self.scaling[1]
            yield values
        while self.stream.readinto(raw):  # only at the end is the checksum compared
            pass


class Seen:
    """What is noticed in the voxels while they pass, to be reported once at the end.

    Attributes:
        path: Of the file; None for an array.
        scan: The file, closed by then; None for an array.
        n_voxels, n_holes: Voxels, and those that are not finite.
        lowest, highest: HU of the finite voxels, where the range is noted.
    """

    def __init__(self, path=None) -> None:
        self.path, self.scan, self.n_voxels, self.n_holes = path, None, 0, 0
        self.lowest, self.highest = np.inf, -np.inf

    def fill_with_air(self, plane: np.ndarray) -> np.ndarray:
        """Replace NaN and infinities by air in a copy; the plane itself where there are none."""
        self.n_voxels += plane.size
        if plane.dtype.kind != "f" or (finite := np.isfinite(plane)).all():
            return plane
        self.n_holes += plane.size - np.count_nonzero(finite)
        return np.where(finite, plane, plane.dtype.type(HU_AIR))

    def note_range(self, plane: np.ndarray) -> np.ndarray:
        """Note the range of the finite voxels; the plane itself."""
        low, high = plane.min(), plane.max()
        if not (np.isfinite(low) and np.isfinite(high)):  # copying the others takes time, and is hardly ever needed
            finite = plane[np.isfinite(plane)]
            low, high = (finite.min(), finite.max()) if finite.size else (np.inf, -np.inf)
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        return plane

    def check(self) -> None:
        """Raise a DataError if no voxel is finite."""
        if self.n_holes == self.n_voxels:
            raise DataError("holds no finite voxel.", path=self.path, remedy=_CONVERT_AGAIN, kind="no finite voxel")

    def report(self) -> None:
        """Check, and warn of what is unusual."""
        self.check()
        if self.n_holes:
            what = f"{self.n_holes} voxels are NaN or infinite; read as air."
            warnings.warn(what if self.path is None else f"{self.path}: {what}", DataWarning, stacklevel=3)
        if HIGHEST_MINIMUM < self.lowest < np.inf:  # infinite: nobody noted the range
            what = f"{self.path}: does not look like Hounsfield units (values {self.lowest:g} to {self.highest:g})."
            remedy = "Rescale it so that air is -1000 and water 0, or check that it is a CT."
            warnings.warn(f"{what} {remedy}", DataWarning, stacklevel=3)


@contextmanager
def open_scan(path: str | PathLike) -> Iterator[Scan]:
    """Open a scan and check its header; whatever is wrong with the file becomes a DataError.

    Reading errors inside the `with` block do too.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError("is not a file.", path=path, remedy="Check the path.", kind="missing file")
    if not (n_bytes := file.stat().st_size):
        raise DataError("is empty (0 bytes).", path=path, remedy=_COPY_AGAIN, kind="empty file")
    with file.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
    if file.suffix == ".gz" and not zipped:
        raise DataError(
            "is not gzip data although its name ends in .gz.",
            path=path,
            remedy=f"{_COPY_AGAIN} If it is an uncompressed scan, name it .nii.",
            kind="wrong file type",
        )
    try:
        with igzip.open(file, "rb") if zipped else file.open("rb") as stream:
            header = _read_header(stream, path)
            shape, stored = _read_layout(header, n_bytes * (_GZIP_MOST if zipped else 1), path)
            slope, intercept = header.get_slope_inter()  # None: the header asks for no scaling
            scaling = None if slope is None or (slope, intercept) == (1, 0) else (slope, intercept)
            dtype = stored.newbyteorder("=") if scaling is None else np.dtype(np.float32)
            yield Scan(stream, shape, stored, dtype, scaling, _read_affine(header, path), header)
    except EOFError as error:
        raise DataError(
            "is truncated: its data ends early.", path=path, remedy=_COPY_AGAIN, kind="truncated file"
        ) from error
    except (igzip.BadGzipFile, isal_zlib.error) as error:
        raise DataError(
            f"holds damaged gzip data ({error}).", path=path, remedy=_COPY_AGAIN, kind="damaged file"
        ) from error
    except HeaderDataError as error:
        raise DataError(
            f"has a bad NIfTI header ({error}).", path=path, remedy=_CONVERT_AGAIN, kind="bad header"
        ) from error


def _read_header(stream: BinaryIO, path) -> nib.Nifti1Header:
    """Parse and check the header, leaving the stream at the first voxel."""
    block = stream.read(nib.Nifti2Header.sizeof_hdr)  # the longer one, with its magic in front
    kind = nib.Nifti2Header if block[4:8] == b"n+2\0" else nib.Nifti1Header
    stated = {int.from_bytes(block[:4], order) for order in ("little", "big")}  # the length of the header itself
    is_nifti = kind is nib.Nifti2Header or block[344:348] == b"n+1\0"
    if len(block) < kind.sizeof_hdr and (is_nifti or kind.sizeof_hdr in stated):
        raise DataError("is truncated: its header ends early.", path=path, remedy=_COPY_AGAIN, kind="truncated file")
    if not is_nifti:
        raise DataError(
            "is not a NIfTI file (header and voxels in one file).",
            path=path,
            remedy=_CONVERT_AGAIN,
            kind="wrong file type",
        )
    header = kind(block[: kind.sizeof_hdr])  # raises HeaderDataError on contradictions
    offset = float(header["vox_offset"]) or kind.single_vox_offset
    if not kind.sizeof_hdr <= offset < 1 << 30:
        raise HeaderDataError(f"voxels start at byte {offset:g}")
    stream.seek(int(offset))
    return header


def _read_affine(header: nib.Nifti1Header, path) -> np.ndarray:
    try:
        affine = header.get_best_affine()
    except ValueError as error:
        raise HeaderDataError(f"orientation: {error}") from error
    if np.isinf(header["scl_slope"]) or not np.isfinite(affine).all():  # nibabel: an infinite slope is none
        raise DataError(
            "has a slope or affine that is not finite.", path=path, remedy=_CONVERT_AGAIN, kind="bad header"
        )
    return affine


def _read_layout(header: nib.Nifti1Header, most_bytes: int, path) -> tuple[tuple[int, int, int], np.dtype]:
    """Shape X, Y, Z and stored dtype of the voxels, which must fit into `most_bytes`."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    what = None
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        what = f"has {len(shape)} axes {list(shape)}; a scan has three."
    elif min(shape) < 1:
        what = f"has an axis of length 0: {list(shape)}."
    elif dtype.kind not in "iuf":
        what = "holds colour or complex values, not HU."
    if what:
        raise DataError(what, path=path, remedy=_CONVERT_AGAIN, kind="not a 3-D grey scan")
    if (n_bytes := dtype.itemsize * prod(shape)) > most_bytes:  # the header lies: do not even ask for the memory
        what = f"is truncated: its header promises {n_bytes} bytes of voxels, it holds fewer."
        raise DataError(what, path=path, remedy=_COPY_AGAIN, kind="truncated file")
    return shape[:3], dtype
