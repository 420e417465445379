"""Scan files -> probabilities, with what is unusual about each file. A file that cannot be read stops no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from viptt_core import ct
from viptt_core.datasets.listing import SCAN_ENDINGS, has_ending
from viptt_core.datasets.scans import MASK_FOLDERS, is_hidden, mask_folder, to_grey_levels
from viptt_core.errors import DataError, SettingError
from viptt_core.files import available_cores
from viptt_core.nifti import Seen
from viptt_core.prediction.card import Preprocessing
from viptt_core.prediction.score import INTERRUPTED, Predictions
from viptt_core.prediction.weights import Weights, open_weights
from viptt_core.scan_facts import LEAST_SLICES, ScanFacts, quiet_nibabel, scan_facts, scan_faults, slice_axis
from viptt_core.training.device import Engine, pick_device, pick_precision
from viptt_core.training.inference import predict_logits

TOGETHER = 8  # scans that wait for the model at once, and
FRAMES_TOGETHER = 128  # no more frames, but one scan: at the paper's size a scan fills a GPU by itself
CHEST_MM = {"wide": (150, 600), "long": (120, 800)}  # a field of view that can hold a chest, from child to whole trunk
FEWEST_SHARE = 0.5  # of the frames a model sees: with fewer slices most of them would be made up
GREY_MARGIN = 0.25  # of the range of the training scans' grey levels
DICOM = "Convert DICOM first: dcm2niix -z y -b n -f %f -o OUT FOLDER"


def find_scans(paths: Sequence[str | PathLike]) -> list[Path]:
    """Scans among files and folders, in this order; folders are searched to their end, mask folders left out.

    A file that is named twice counts once.

    Raises:
        DataError: a path does not exist, or a folder holds no scan.
    """
    given = [Path(path).expanduser() for path in paths]
    if missing := [str(path) for path in given if not path.exists()]:
        raise DataError("no such file or folder.", path=", ".join(missing), remedy="Check the path.")
    scans: dict[Path, Path] = {}
    for path in given:
        found = [path] if path.is_file() else _scans_below(path)
        if not found:
            raise DataError(f"holds no scan ({', '.join(SCAN_ENDINGS)}).", path=path, remedy=DICOM)
        for scan in found:
            scans.setdefault(scan.resolve(), scan)
    if not scans:
        raise SettingError("no scan is named.", remedy="Name NIfTI files, or folders of them.")
    return list(scans.values())


def predict_scans(
    weights: Weights | str | PathLike | Sequence[Weights | str | PathLike],
    scans: str | PathLike | Sequence[str | PathLike],
    *,
    masks: str | PathLike | None = None,
    engine: Engine | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
) -> Predictions:
    """Class probabilities of scan files; the next scans are read while the model works on some.

    Args:
        weights: See `weights.open_weights`; several are all asked about each scan, which is read once.
        scans: NIfTI files and folders, see `find_scans`.
        masks: Folder of lung masks, named as the scans, for weights that were trained on the box around the
            lungs; None looks for `masks1` beside a scan.
        engine: How to compute; None takes the fastest device, in fp32: the same digits on every machine.
        n_jobs: Threads that read; None takes the available cores. Decompression runs outside the
            interpreter's lock, so threads do.
        progress: Show a progress bar.

    Returns:
        One entry a scan, those that could not be read included. Ctrl-C ends the work early and loses nothing: the
        scans that are left have the error INTERRUPTED.

    Raises:
        DataError: weights cannot be used, or are none for scans; a path does not exist.
        SettingError: several weights of different classes, or masks that no weights ask for.
    """
    from tqdm import tqdm

    several = [weights] if isinstance(weights, Weights | str | PathLike) else list(weights)
    opened = [each if isinstance(each, Weights) else open_weights(each) for each in several]
    grids = _grids(opened, masks)
    paths = find_scans([scans] if isinstance(scans, str | PathLike) else scans)
    models = _models(opened, engine or Engine(precision="fp32"))
    probabilities = np.full((len(opened), len(paths), len(opened[0].classes)), np.nan)
    warnings, errors = [], []
    read = partial(_read, grids=list(dict.fromkeys(grids)), masks=None if masks is None else Path(masks))
    reading = _ahead(read, paths, n_jobs or available_cores())
    with (
        quiet_nibabel(),
        suppress(KeyboardInterrupt),
        tqdm(total=len(paths), desc="predicting", unit="scan", disable=not progress) as bar,
    ):
        together = min(TOGETHER, max(1, FRAMES_TOGETHER // max(grid.frames for grid in grids)))
        while batch := list(islice(reading, together)):
            sound = [n for n, found in enumerate(batch, start=len(errors)) if not found.error]
            for m, (model, precision) in enumerate(models):
                if sound:
                    clips = np.stack([found.levels[grids[m]] for found in batch if not found.error])
                    logits = predict_logits(
                        model, clips, np.arange(len(clips)), precision=precision, pixel_range=grids[m].pixel_range
                    )
                    probabilities[m, sound] = torch.from_numpy(logits).double().softmax(dim=1).numpy()
            for found in batch:
                errors.append(found.error)
                warnings.append(found.warnings if found.error else (*found.warnings, *_unlike_training(found, opened)))
            bar.update(len(batch))
    reading.close()
    done = min(len(errors), len(warnings))  # an interruption may fall between the two
    probabilities[:, done:] = np.nan
    errors = errors[:done] + [INTERRUPTED] * (len(paths) - done)
    warnings = warnings[:done] + [()] * (len(paths) - done)
    return Predictions(
        tuple(map(str, paths)),
        tuple(opened),
        probabilities,
        tuple(warnings),
        tuple(errors),
        tuple(dict.fromkeys(note for each in opened for note in _notes(each))),
    )


def scan_warnings(where: str, facts: ScanFacts, grid: Preprocessing) -> list[str]:
    """How a scan is unlike a chest CT in Hounsfield units, or unlike what a model sees of it."""
    found = [fault.what for fault in scan_faults(where, facts, grid.orientation)]
    along = slice_axis(facts)
    extents = [n * mm for n, mm in zip(facts.shape, facts.spacing, strict=True)]
    measured = {"long": extents[along], "wide": max(mm for k, mm in enumerate(extents) if k != along)}
    for what, (least, most) in CHEST_MM.items():
        if not least <= measured[what] <= most:
            found.append(f"is {measured[what]:.0f} mm {what}: is it a chest, and are its voxel sizes right?")
    if LEAST_SLICES <= facts.shape[along] < FEWEST_SHARE * grid.frames:  # fewer still is a fault of its own
        found.append(f"has {facts.shape[along]} slices, from which {grid.frames} are made.")
    return found


@dataclass(frozen=True)
class _Found:
    """A scan as it was read: grey levels by grid, or the reason why not."""

    levels: dict[Preprocessing, np.ndarray]
    warnings: tuple[str, ...] = ()
    error: str = ""


def _read(path: Path, *, grids: list[Preprocessing], masks: Path | None) -> _Found:
    levels, warnings = {}, []
    try:
        for grid in grids:
            seen = Seen(path)
            volume = ct.load_volume(
                path,
                depth=grid.frames,
                size=grid.size,
                hu_window=grid.hu_window,
                orientation=grid.orientation,
                mask=_mask_of(path, masks) if grid.crop else None,
                seen=seen,
            )
            levels[grid] = to_grey_levels(volume)  # as training saw scans
            warnings += scan_warnings(str(path), scan_facts(seen), grid)
    except DataError as error:
        return _Found({}, error=f"{error.what} {error.remedy}".strip())
    except (OSError, MemoryError) as error:
        return _Found({}, error=f"cannot be read ({error}).")
    return _Found(levels, tuple(dict.fromkeys(warnings)))


def _mask_of(path: Path, masks: Path | None) -> Path:
    mask = (masks or path.parent / MASK_FOLDERS[0]) / path.name
    if not mask.is_file():
        raise DataError(f"has no lung mask {mask}.", path=path, remedy="Give the folder of masks with --masks.")
    return mask


def _unlike_training(found: _Found, weights: Sequence[Weights]) -> list[str]:
    """Where the mean grey level is one that training never saw."""
    said = []
    for each in weights:
        known = each.card.training.get("grey_levels")
        if not known:
            continue
        level = float(found.levels[each.card.preprocessing].mean()) / 255
        margin = GREY_MARGIN * (known[1] - known[0])
        if not known[0] - margin <= level <= known[1] + margin:
            said.append(f"has a mean grey level of {level:.2f}; training scans had {known[0]:.2f} to {known[1]:.2f}.")
    return list(dict.fromkeys(said))


def _ahead(read, paths: Sequence[Path], n_jobs: int) -> Iterator[_Found]:
    """What `read` gives for each path, in order, some read in advance: never more, however slow the taker."""
    left, running = iter(paths), deque()
    with ThreadPoolExecutor(n_jobs) as pool:
        try:
            running.extend(pool.submit(read, path) for path in islice(left, 2 * n_jobs))
            while running:
                found = running.popleft().result()
                running.extend(pool.submit(read, path) for path in islice(left, 1))
                yield found
        finally:
            pool.shutdown(cancel_futures=True)


def _grids(weights: Sequence[Weights], masks) -> list[Preprocessing]:
    """What each model wants a scan to become; all checks that need no scan."""
    if not weights:
        raise SettingError("no weights are named.", remedy="Name at least one file of weights.")
    for each in weights:
        kind = each.card.preprocessing.kind
        if kind != "scan":
            raise DataError(
                f"was trained on {kind}s ({each.card.about}), not on scans.",
                path=each.path,
                remedy="Give weights that were fine-tuned on CT scans.",
            )
        if each.classes != weights[0].classes:
            raise SettingError(
                f"{each.path} tells {', '.join(each.classes)}; {weights[0].path} tells "
                f"{', '.join(weights[0].classes)}.",
                remedy="Ask them one by one.",
            )
    grids = [each.card.preprocessing for each in weights]
    if masks is not None:
        if not Path(masks).is_dir():
            raise DataError("is no folder of masks.", path=masks, remedy="Check the path.")
        if not any(grid.crop for grid in grids):
            raise SettingError("these weights were trained on whole scans.", remedy="Leave the masks out.")
    return grids


def _models(weights: Sequence[Weights], engine: Engine) -> list[tuple]:
    device = pick_device(engine.device)
    models = []
    for each in weights:
        model = each.model()
        model.place(device)
        models.append((model, pick_precision(engine.precision, device, model.backbone_name)))
    return models


def _notes(weights: Weights) -> Iterator[str]:
    if weights.card.data.get("synthetic"):
        yield f"{weights.name}: trained on synthetic scans; what it says about a patient means nothing."


def _scans_below(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.rglob("*"))
        if has_ending(file, SCAN_ENDINGS)
        and file.is_file()
        and mask_folder(file, folder) is None
        and not is_hidden(file, folder)
    ]
