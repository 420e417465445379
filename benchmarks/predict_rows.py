"""The rows about `viptt_core.prediction.scans`: from scan files to probabilities, and in how much memory."""

from __future__ import annotations

import functools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import Comparison, Profile, alternate, at_least, at_most, memory_of, row, seconds_of
from benchmarks.rows import FRAMES, SIZE, _device, _phantom_settings, models, phantom_scans, scratch

MANY, MANY_SIZE, MANY_SLICES = 100, 256, 80  # phantoms for the demo weights, and their voxels
PAPER_SCANS = 5
STEADY = 20  # scans after which memory should have stopped growing
MOST_GROWTH = 30e6  # bytes from then on: less than ten volumes of the paper's size
FASTER = at_least(1.8)


@functools.cache
def many_phantoms() -> tuple[Path, ...]:
    """Scans [256,256,80], written once; from patients that no model has seen."""
    from viptt_core.synthetic.folders import imageclef, write_folder
    from viptt_core.synthetic.phantom import VERSION

    root = scratch(f"phantoms-{VERSION}-{MANY}x{MANY_SIZE}")
    write_folder(root, imageclef(MANY, seed=6, size=MANY_SIZE, slices=MANY_SLICES), n_jobs=2, progress=False)
    return tuple(sorted(root.glob("TRN_*.nii.gz")))


def demo_weights():
    """Weights of a finished run of 02_finetune with the demo preset; without one, of an untrained model of its shape.

    Returns:
        `Weights`, and a note that says which.
    """
    from viptt_core.experiment import build_model
    from viptt_core.prediction.weights import open_weights, weights_here
    from viptt_core.presets import load_preset

    preset = load_preset("demo")
    for name, card in weights_here().items():
        training = card.training
        if training.get("stage") == "finetune" and training["preset"].get("name") == preset.name:
            return open_weights(name), f"weights: {card.about}"
    model = build_model(preset, 5, seed=0)
    weights = _saved(model, frames=preset.frames, size=preset.size, orientation="canonical")
    return weights, "weights: untrained, of the demo preset's shape"


def paper_weights():
    """The random weights of `rows.models`, as `Weights` for scans on the paper's grid."""
    return _saved(models()[0], frames=FRAMES, size=SIZE, orientation="file")


def _saved(model, *, frames: int, size: int, orientation: str):
    from viptt_core.prediction.card import Card, Preprocessing
    from viptt_core.prediction.weights import open_weights, save_weights

    grid = Preprocessing("scan", frames, size, "0..1", (-1000, 400), orientation)
    names = tuple(str(k) for k in range(model.architecture["num_classes"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        save_weights(path, model, Card("untrained", names, grid, {}, {}, (), {}, "none"))
        return open_weights(path)


def _folder(weights, plain, paths, repeats: int, notes: list[str], settings: dict, precision: str) -> Comparison:
    """Predictions of `paths`, beside the authors' preprocessing and a plain loop over the scans in fp32."""
    from benchmarks.reference import authors_preprocess, plain_predict_folder
    from viptt_core.prediction.scans import predict_scans
    from viptt_core.training.device import Engine

    grid = weights.card.preprocessing
    prepare = functools.partial(authors_preprocess, depth=grid.frames, size=grid.size)
    found = {}

    def ours(scans=paths) -> None:
        engine = Engine(device=_device(), precision=precision)
        found["ours"] = predict_scans(weights, scans, engine=engine, progress=False).probabilities[0]

    def theirs() -> None:
        found["theirs"] = plain_predict_folder(plain, paths, preprocess=prepare)

    seconds = alternate(ours, theirs, repeats, warm_up=(lambda: ours(paths[:1]), int))
    preparing = seconds_of(lambda: prepare(paths[0]))
    each = statistics.median(seconds[1]) / len(paths)
    notes = [
        *notes,
        f"probabilities differ by {np.abs(found['ours'] - found['theirs']).max():.1e} at most (of 1)",
        f"of the reference's {each:.2f} s a scan, {preparing:.2f} s are preparing it",
    ]
    return Comparison(*seconds, settings | {"frames": grid.frames, "size": grid.size, "precision": precision}, notes)


@row(
    "predict 100 phantoms with the demo weights",
    reference="the authors' steps, then plain PyTorch, one by one",
    target=FASTER,
)
def predict_many(profile: Profile) -> Comparison:
    """A folder as `viptt predict` takes it."""
    weights, note = demo_weights()
    plain = weights.model().to(_device())
    settings = {"n": MANY, "voxels": [MANY_SIZE, MANY_SIZE, MANY_SLICES]}
    return _folder(weights, plain, many_phantoms(), 2, [note], settings, "fp32")


@row(
    "predict 5 scans at the paper's size, fp32",
    reference="the authors' steps, then plain PyTorch, fp32, one by one",
    target=FASTER,
)
def predict_paper(profile: Profile) -> Comparison:
    """As `viptt predict` does it unless told otherwise: the same digits on every machine."""
    return _paper(profile, "fp32")


@row(
    "predict 5 scans at the paper's size, fastest precision",
    reference="the authors' steps, then plain PyTorch, fp32, one by one",
    target=FASTER,
)
def predict_paper_fastest(profile: Profile) -> Comparison:
    """With `--precision auto`."""
    return _paper(profile, "auto")


def _paper(profile: Profile, precision: str) -> Comparison:
    scans = phantom_scans()[0]
    paths = [scans[k % len(scans)] for k in range(PAPER_SCANS)]
    with tempfile.TemporaryDirectory() as folder:  # a file that is named twice would count once
        links = [Path(folder) / f"{k}.nii.gz" for k in range(len(paths))]
        for link, path in zip(links, paths, strict=True):
            link.hardlink_to(path)
        return _folder(
            paper_weights(),
            models()[1],
            links,
            1,
            [f"{len(scans)} phantoms under {len(links)} names"],
            _phantom_settings(len(scans)),
            precision,
        )


def predict_in_turn() -> Callable[[], dict]:
    """For `memory_of`: the folder of phantoms again and again; resident memory after each scan."""
    from benchmarks import _resident_bytes
    from viptt_core.prediction import scans as predict
    from viptt_core.training.device import Engine

    weights, paths = paper_small(), many_phantoms()
    resident, warned = [], predict._warnings

    def noting(*arguments):
        resident.append(_resident_bytes())
        return warned(*arguments)

    def work() -> dict:
        predict._warnings = noting  # called once a scan
        predict.predict_scans(weights, paths, engine=Engine(device="cpu", precision="fp32"), progress=False)
        return {"resident": resident}

    return work


def paper_small():
    """A light network that takes the paper's grid: what grows is then the volumes, not the time it takes."""
    from viptt_core.experiment import build_model
    from viptt_core.presets import load_preset

    return _saved(build_model(load_preset("demo"), 5, seed=0), frames=FRAMES, size=SIZE, orientation="file")


@row(
    "memory of predicting 100 scans: growth from the first to the last",
    reference="an absolute bound",
    target=at_most(MOST_GROWTH, "bytes"),
)
def predict_memory(profile: Profile) -> Comparison:
    """Resident memory must not grow with the folder."""
    many_phantoms()
    found = memory_of("benchmarks.predict_rows:predict_in_turn")
    resident = found.result["resident"]
    # Medians: a buffer that a reader holds at the moment of a look is no growth, what is never given back is.
    early, late = (statistics.median(part) for part in (resident[STEADY : 2 * STEADY], resident[-STEADY:]))
    growth = late - early
    note = (
        f"median of the last {STEADY} scans less that of scans {STEADY + 1} to {2 * STEADY}; at most "
        f"{(max(resident[STEADY:]) - early) / 1e6:.0f} MB above it for a moment; peak {found.peak_bytes / 1e9:.2f} "
        f"GB; volumes of 70 x 224 x 224, a small network"
    )
    series = [("scan", float(k + 1), float(value)) for k, value in enumerate(resident)]
    return Comparison([max(growth, 0)], settings={"n": MANY}, notes=[note], unit="bytes", series=series)
