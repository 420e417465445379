"""Folders of synthetic files: scans as ImageCLEF or a reader's own folder holds them, videos as UCF50 has them."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import nibabel
import numpy as np
from tqdm import tqdm

from viptt_core import files
from viptt_core.constants import TB_CLASSES, UCF_CLASSES, UCF_FRAME_RATE, UCF_GROUPS
from viptt_core.errors import DataError, SettingError, check_counts
from viptt_core.synthetic import actions, phantom
from viptt_core.synthetic.patient import PATIENT, SLICE_THICKNESS

THICKNESSES = tuple(sorted(set(SLICE_THICKNESS)))  # mm; no two scans of a patient have the same
MOST_SCANS = len(THICKNESSES)  # of one patient
LEAST_SIZE = 24  # voxels, so that each scan of a patient can have a grid of its own


@dataclass(frozen=True)
class Folder:
    """What a folder of synthetic files holds."""

    record: str  #: name of the JSON file with the settings, the first that is written
    settings: dict  #: what decides the files
    make: Callable[..., bytes]  #: gives the content of a file
    files: Sequence[tuple[str, tuple]]  #: names of files, relative to the folder, and the arguments of `make` for each
    table: str = ""  #: name of the CSV with the labels, the last that is written; "" for none
    rows: Sequence[str] = ()  #: its lines


def write_folder(root: str | Path, folder: Folder, *, n_jobs: int | None = 1, progress: bool = True) -> Path:
    """Write what is not there yet: an interrupted call is taken up again. The same settings give the same bytes.

    Args:
        root: The folder, made if it is not there; returned.
        folder: What it shall hold.
        n_jobs: See `files.in_workers`.

    Raises:
        DataError: it holds anything that was not written with these settings.
        SettingError: n_jobs is less than 1.
        StorageError: a file cannot be written.
    """
    check_counts(n_jobs=1 if n_jobs is None else n_jobs)
    root = Path(root)
    _claim(root, folder)
    jobs = [(root / name, folder.make, arguments) for name, arguments in folder.files]
    for _ in tqdm(files.in_workers(_write, jobs, n_jobs), "writing", len(jobs), disable=not progress):
        pass
    if folder.table:
        files.write_file(root / folder.table, "\n".join([*folder.rows, ""]))
    return root


def _claim(root: Path, folder: Folder) -> None:
    """Make the folder these files', or see that it is already; a DataError where something else is in it."""
    record, settings = root / folder.record, json.dumps(folder.settings, default=int)
    if record.is_file():
        if (found := record.read_text(encoding="utf-8", errors="replace").strip()) != settings:
            what = f"was written with {found}, not {settings}."
            raise DataError(what, path=root, remedy="Give another folder or the same settings, or delete this one.")
        return
    with files.storing(root):
        root.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in root.iterdir())
    if strange := [name for name in names if not name.startswith(".")]:
        what = f"is not empty ({', '.join(strange[:3])}{' ...' if len(strange) > 3 else ''})."
        raise DataError(what, path=root, remedy="Give another folder: synthetic files are not mixed with others.")
    _write(record, str.encode, (f"{settings}\n",))


def _write(path: Path, make: Callable[..., bytes], arguments: tuple) -> None:
    """Write a file whole or not at all (a kill leaves at most a hidden one); one that is there is complete and kept."""
    if path.exists():
        return
    content = make(*arguments)
    with files.storing(path, hint="what is written is kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.put_in_place(path, [content])


# --- Scans ---


def imageclef(n: int, *, seed: int = 0, size: int = 512, slices: int | None = None) -> Folder:
    """n phantoms as ImageCLEF's TB task has them, each of another patient.

    `TRN_0001.nii.gz ...` (int16 HU) and `TRN_labels.csv` (FileName, TypeOfTB: 1..5). Phantom i has seed (seed, i) and
    the i-th of `cohort_labels(n, seed)`; for `size`, `slices` and what is refused see `make_phantom`.
    """
    phantom.check_grid(size, slices)
    labels = phantom.cohort_labels(n, seed).tolist()
    settings = {"version": phantom.VERSION, "n": n, "seed": seed, "size": size, "slices": slices}
    settings["difficulty"] = phantom.difficulty()
    names = [f"TRN_{i + 1:04d}.nii.gz" for i in range(n)]
    scans = [(name, ((seed, i), labels[i], size, slices)) for i, name in enumerate(names)]
    rows = ["FileName,TypeOfTB", *(f"{name},{label + 1}" for name, label in zip(names, labels, strict=True))]
    return Folder("phantom.json", settings, _scan, scans, "TRN_labels.csv", rows)


def own_scans(n: int, patients: int, *, seed: int = 0, size: int = 512, slices: int | None = None) -> Folder:
    """n phantoms of fewer patients, as a reader's own folder would hold them.

    `scan_001.nii.gz ...` (int16 HU) and `labels.csv` (FileName,diagnosis,patient). A patient keeps body and disease:
    its later scans have another slice thickness, larger pixels and other noise. Patients have the class
    frequencies of the benchmark.

    Args:
        n: Scans, at least one a patient and at most MOST_SCANS.
        size: Voxels along X and Y of a patient's first scan, at least LEAST_SIZE; each later one has a 16th fewer.
        slices: Of every scan, at least 4; None: by a slice thickness of its own.

    Raises:
        SettingError: an argument is outside what is allowed.
    """
    check_counts(n=n, patients=patients)
    check_counts(least=LEAST_SIZE, size=size)
    phantom.check_grid(size, slices)
    if not patients <= n <= MOST_SCANS * patients:
        what = f"{n} scans of {patients} patients are not possible."
        raise SettingError(what, remedy=f"Each patient has 1 to {MOST_SCANS} scans.")
    settings = {"version": phantom.VERSION, "n": n, "patients": patients, "seed": seed, "size": size, "slices": slices}
    labels, rng = phantom.cohort_labels(patients, seed).tolist(), np.random.default_rng(seed)
    further = rng.choice(np.repeat(np.arange(patients), MOST_SCANS - 1), n - patients, replace=False)
    scans, rows = [], ["FileName,diagnosis,patient"]
    for patient, count in enumerate(1 + np.bincount(further, minlength=patients)):
        thickness = rng.permutation(THICKNESSES)
        for k in range(count):
            name = f"scan_{len(scans) + 1:0{max(3, len(str(n)))}}.nii.gz"
            depth = slices or round(sum(PATIENT["length"]) / 2 / thickness[k])  # a usual length in mm
            scans.append((name, ((seed, patient), labels[patient], size - k * (size // 16), depth)))
            rows.append(f"{name},{TB_CLASSES[labels[patient]]},P{patient + 1:0{max(3, len(str(patients)))}}")
    return Folder("example.json", settings, _scan, scans, "labels.csv", rows)


def _scan(seed: tuple[int, int], label: int, size: int, slices: int | None) -> bytes:
    """One phantom as a .nii.gz file; it holds no time: the same phantom gives the same bytes."""
    scan = phantom.make_phantom(seed, label, size=size, slices=slices)
    image = nibabel.Nifti1Image(scan.hu, scan.affine)
    for set_affine in (image.set_sform, image.set_qform):
        set_affine(scan.affine, "scanner")
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), 4, mtime=0)


# --- Videos ---


def ucf50(
    *, seed: int = 0, groups: int = UCF_GROUPS, clips_per_group: int = 4, frames: tuple[int, int] = (75, 160)
) -> Folder:
    """Synthetic videos laid out as UCF50: `CLASS/v_CLASS_gNN_cNN.avi`, 320x240, 26 frames a second.

    Of each class 1 to 25 groups of 1 to 99 clips. `frames`: fewest and most of a clip; each has a number of its own.

    Raises:
        SettingError: an argument is outside what is allowed.
    """
    check_counts(least=0, seed=seed)
    check_counts(most=UCF_GROUPS, groups=groups)
    check_counts(most=99, clips_per_group=clips_per_group)
    check_counts(most_frames=frames[1])
    check_counts(most=frames[1], fewest_frames=frames[0])
    scenes = itertools.product(range(len(UCF_CLASSES)), range(1, groups + 1), range(1, clips_per_group + 1))
    videos = [
        (f"{UCF_CLASSES[scene[0]]}/{actions.clip_name(*scene)}.avi", (seed, scene, tuple(frames))) for scene in scenes
    ]
    settings = {"version": actions.VERSION, "seed": seed, "groups": groups, "clips_per_group": clips_per_group}
    return Folder("actions.json", settings | {"frames": frames}, _video, videos)


def _video(seed: int, scene: tuple[int, int, int], frames: tuple[int, int]) -> bytes:
    """The clip of (label, group, number), with a number of frames of its own, as a file."""
    count = np.random.default_rng([seed, 3, *scene]).integers(frames[0], frames[1] + 1)
    return encode_avi(actions.make_clip(*scene, seed=seed, frames=count))


def encode_avi(clip: np.ndarray) -> bytes:
    """RGB uint8 [T, H, W, 3] as MPEG-4 Part 2 in AVI."""
    encoded = io.BytesIO()
    with av.open(encoded, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=UCF_FRAME_RATE, bit_rate=1_500_000, pix_fmt="yuv420p")
        (stream.height, stream.width), stream.codec_context.codec_tag = clip.shape[1:3], "XVID"
        for image in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return encoded.getvalue()
