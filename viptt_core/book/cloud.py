"""What a notebook does first on Google Colab and on Binder: say what the machine lacks, keep what is made on Drive.

On any other machine there is nothing to do and nothing is said.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from viptt_core.files import artifact_root

DRIVE = Path("/content/drive")  # where Colab mounts it
DRIVE_FOLDER = Path("MyDrive", "viptt-net")
NO_GPU_COLAB = (
    'This runtime has no GPU. The preset "demo" needs none. For the presets "paper" and "corrected", or to wait less, '
    "switch one on before you run the other cells: Runtime > Change runtime type > T4 GPU."
)
NO_GPU_BINDER = (
    'Binder has no GPU and little memory. Where a page has a preset, leave it at "demo"; '
    'if the kernel dies, take "study". What you make here is deleted when you leave.'
)
NO_DRIVE = "keep_on_drive needs Google Colab: here, decoded data and runs stay in data/cache and runs."


def prepare(*, keep_on_drive: bool = False) -> None:
    """Say what this machine lacks, if it is one of Colab's or Binder's.

    Args:
        keep_on_drive: On Colab, ask for the reader's Google Drive and put decoded data and runs there, so that
            the next runtime takes them up. Without it they end with this one.

    Raises:
        StorageError: the Drive cannot be written.
    """
    if on_colab():
        if not _has_gpu():
            print(NO_GPU_COLAB)
        if keep_on_drive:
            print(_keep_on_drive())
        return
    if on_binder():
        print(NO_GPU_BINDER)
    if keep_on_drive:
        print(NO_DRIVE)


def on_colab() -> bool:
    """Whether this is a kernel of Google Colab, which loads this module before any cell runs."""
    return "google.colab" in sys.modules


def on_binder() -> bool:
    """Whether this is a server that BinderHub started."""
    return "BINDER_SERVICE_HOST" in os.environ


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _keep_on_drive() -> str:
    """Mount the Drive, and let the cache and the folder of runs lie there; says where.

    Only these two move: `VIPTT_ROOT` would move `results/` as well, and the committed ones are read from the checkout.
    """
    from google.colab import drive

    from viptt_core.files import storing

    drive.mount(str(DRIVE))  # asks the reader, unless it is mounted
    kept, runs = DRIVE / DRIVE_FOLDER, artifact_root() / "runs"
    with storing(kept, hint="or set keep_on_drive=False"):
        for folder in (kept / "cache", kept / "runs"):
            folder.mkdir(parents=True, exist_ok=True)
        if not runs.is_symlink():
            _move_into(kept / "runs", runs)
            runs.symlink_to(kept / "runs", target_is_directory=True)
    os.environ["VIPTT_CACHE"] = str(kept / "cache")
    return f"Decoded data and runs are kept in your Drive: {DRIVE_FOLDER / 'cache'} and {DRIVE_FOLDER / 'runs'}."


def _move_into(target: Path, source: Path) -> None:
    """Move what a folder holds, if it is there, and remove it; of two with one name the target's is kept."""
    if not source.is_dir():
        return
    for path in source.iterdir():
        if not (target / path.name).exists():
            shutil.move(path, target / path.name)
    shutil.rmtree(source)
