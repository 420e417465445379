"""Phantoms in the layout of one's own data: scans of patients, several of some, with a label CSV.

Nothing here decides what a phantom looks like: the generator is `phantom`, whose checks this module shares.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

from viptt_core import files
from viptt_core.constants import TB_CLASSES
from viptt_core.errors import DataError, SettingError
from viptt_core.synthetic.patient import PATIENT, SLICE_THICKNESS
from viptt_core.synthetic.phantom import VERSION, _check_whole, cohort_labels, make_phantom

HEADER = "FileName,diagnosis,patient"
TABLE, RECORD = "labels.csv", "example.json"
THICKNESSES = tuple(sorted(set(SLICE_THICKNESS)))  # mm; no two scans of a patient have the same
MOST_SCANS = len(THICKNESSES)  # of one patient
LEAST_SIZE = 24  # so that each scan of a patient can have a grid of its own


def write_example(
    root,
    n: int,
    *,
    patients: int,
    seed: int = 0,
    size: int = 128,
    slices: int | None = None,
    n_jobs: int = 1,
    progress: bool = True,
) -> Path:
    """Write n phantoms of fewer patients, as a reader's own folder would hold them; an interrupted call resumes.

    `scan_001.nii.gz ...` (int16 HU), `example.json` (settings) and, last, `labels.csv` (FileName,diagnosis,patient).
    A patient keeps body and disease: its later scans have another slice thickness, larger pixels and other noise.
    Patients have the class frequencies of the benchmark. The same settings give the same bytes.

    Args:
        root: The folder; made if it is not there.
        n: Scans, at least one a patient and at most MOST_SCANS.
        patients: People.
        seed: Of the whole set.
        size: Voxels along X and Y of a patient's first scan, at least LEAST_SIZE; each later one has a 16th fewer.
        slices: Of every scan, at least 4; None: by a slice thickness of its own.
        n_jobs: Worker processes.
        progress: Show a progress bar.

    Returns:
        The folder.

    Raises:
        DataError: the folder holds anything that was not written with these settings.
        SettingError: an argument is outside what is allowed.
        StorageError: a file cannot be written.
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    _check_whole("patients", patients, 1)
    _check_whole("n", n, 1)
    _check_whole("size", size, LEAST_SIZE)
    if slices is not None:
        _check_whole("slices", slices, 4)
    if n_jobs != -1:
        _check_whole("n_jobs", n_jobs, 1)
    labels, root = cohort_labels(patients, seed), Path(root)
    scans = _scans(n, patients, seed, size, slices)
    _claim(root, {"version": VERSION, "n": n, "patients": patients, "seed": seed, "size": size, "slices": slices})
    names = [f"scan_{i + 1:0{max(3, len(str(n)))}}.nii.gz" for i in range(n)]
    jobs = (
        delayed(_write_scan)(root / name, (seed, patient), int(labels[patient]), *grid)
        for name, (patient, *grid) in zip(names, scans, strict=True)
    )
    for _ in tqdm(Parallel(n_jobs=n_jobs, return_as="generator")(jobs), total=n, desc="phantoms", disable=not progress):
        pass
    rows = [
        f"{name},{TB_CLASSES[labels[patient]]},P{patient + 1:0{max(3, len(str(patients)))}}"
        for name, (patient, *_) in zip(names, scans, strict=True)
    ]
    files.write_file(root / TABLE, "\n".join([HEADER, *rows, ""]))
    return root


def _scans(n: int, patients: int, seed: int, size: int, slices: int | None) -> list[tuple[int, int, int]]:
    """(patient, voxels in-plane, slices) of each scan, patient by patient."""
    if not patients <= n <= MOST_SCANS * patients:
        raise SettingError(
            f"{n} scans of {patients} patients are not possible.", remedy=f"Each patient has 1 to {MOST_SCANS} scans."
        )
    rng = np.random.default_rng(seed)
    further = rng.choice(np.repeat(np.arange(patients), MOST_SCANS - 1), n - patients, replace=False)
    length = sum(PATIENT["length"]) / 2  # mm
    found = []
    for patient, count in enumerate(1 + np.bincount(further, minlength=patients)):
        thickness = rng.permutation(THICKNESSES)
        found += [(patient, size - k * (size // 16), slices or round(length / thickness[k])) for k in range(count)]
    return found


def _claim(root: Path, settings: dict) -> None:
    """Make the folder this example's, or see that it is already.

    Raises:
        DataError: something else is in it.
    """
    record, content = root / RECORD, json.dumps(settings, default=int) + "\n"
    if record.is_file():
        if (found := record.read_text(encoding="utf-8")) != content:
            what = f"was written with {found.strip()}, not {content.strip()}."
            raise DataError(what, path=root, remedy="Give another folder or the same settings, or delete this one.")
        return
    with files.storing(root):
        root.mkdir(parents=True, exist_ok=True)
        strange = sorted(
            path.name for path in root.iterdir() if not path.name.startswith(".") and path.name != f"{RECORD}.tmp"
        )
        if strange:
            raise DataError(
                f"is not empty ({', '.join(strange[:3])}{' ...' if len(strange) > 3 else ''}).",
                path=root,
                remedy="Give another folder: an example is not mixed with other files.",
            )
        files.replace(record, content)


def _write_scan(path: Path, seed: tuple[int, int], label: int, size: int, slices: int) -> None:
    """Write one phantom; a file that is there is complete and is kept."""
    import nibabel

    if path.exists():
        return
    phantom = make_phantom(seed, label, size=size, slices=slices)
    image = nibabel.Nifti1Image(phantom.hu, phantom.affine)
    for place in (image.set_sform, image.set_qform):
        place(phantom.affine, "scanner")
    image.header.set_xyzt_units("mm")
    files.write_file(path, gzip.compress(image.to_bytes(), 4, mtime=0))  # no time: same seed, same bytes
