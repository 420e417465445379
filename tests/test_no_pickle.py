"""No code path unpickles: by the words of all code, and by files that would do harm if one did.

What processes of one run hand to each other (joblib, torch.distributed) comes from no file and is not meant.
"""

import hashlib
import json
import os
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tracked import ROOT, tracked_files

from viptt_core.errors import DataError

FOLDERS = ("viptt_core", "notebooks", "workflow", "benchmarks")
PRETRAINED = ROOT / "viptt_core" / "backbones" / "__init__.py"
MODULES = r"(?:c?_?pickle|cPickle|dill|cloudpickle|shelve|marshal|jsonpickle)\b"
# What unpickles, writes what must be unpickled, or runs text. Accelerate's two methods read and write pickles.
UNPICKLES = re.compile(
    rf"\b(?:import|from) (?:\w+, )*{MODULES}|(?:import_module|__import__)\(.{MODULES}"
    r"|\bjoblib\.(?:load|dump|Memory)\b|from joblib import .*\b(?:load|dump|Memory)\b"
    r"|\btorch\.(?:load|save|jit|package|serialization|hub\.load|utils\.model_zoo)"
    r"|from torch[\w.]* import .*\b(?:load|save|jit|package|serialization|model_zoo|load_state_dict_from_url)\b"
    r"|allow_pickle\s*=\s*(?!False)|\bnp\.load\((?:[^,)]*,){2}\s*\w+\s*[,)]"
    r"|\b(?:read|to)_(?:pickle|hdf)\b|\b(?:save|load)_state\b"
    r"|\byaml\.(?:load|unsafe|full)|from yaml import .*\b(?:load|load_all|unsafe_\w+|full_\w+)\b"
    r"|(?<![.\w])(?:eval|exec)\("
)


def findings(source: str) -> list[str]:
    """The lines, without their comments, that unpickle or may."""
    lines = [line.partition("#")[0] for line in source.splitlines()]
    return [line.strip() for line in lines if UNPICKLES.search(line)]


def test_no_code_unpickles_but_one_place_that_reads_tensors_only():
    files = [path for folder in FOLDERS for path in tracked_files(f"{folder}/**/*.py")]
    assert len(files) > 80 and {path.relative_to(ROOT).parts[0] for path in files} == set(FOLDERS)
    files.append(ROOT / "workflow" / "Snakefile")
    found = {path: lines for path in files if (lines := findings(path.read_text(encoding="utf-8")))}
    assert set(found) == {PRETRAINED} and len(found[PRETRAINED]) == 1
    assert "torch.load(" in found[PRETRAINED][0] and "weights_only=True" in found[PRETRAINED][0]


# --- Files that would do harm -----------------------------------------------------------------------


class Planted:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.fixture
def marker(tmp_path):
    """What a planted file makes when it is unpickled; it must not be there after the test."""
    path = tmp_path / "unpickled"
    yield path
    assert not path.exists(), "the file was unpickled"


def as_zip(path, planted):
    torch.save({"features.0.weight": planted}, path)


def as_zip_beside_tensors(path, planted):
    torch.save({"features.0.weight": torch.zeros(3), "features.0.bias": planted}, path)


def as_legacy_file(path, planted):
    torch.save({"features.0.weight": planted}, path, _use_new_zipfile_serialization=False)


def as_bare_pickle(path, planted):
    path.write_bytes(pickle.dumps(planted, protocol=2))


MAKERS = [as_zip, as_zip_beside_tensors, as_legacy_file, as_bare_pickle]


def open_weights(path):
    """As weights from elsewhere, with no JSON beside them."""
    from viptt_core.prediction.weights import open_weights

    return open_weights(path)


def read_keras(path):
    from viptt_core.keras_weights import read_keras_architecture

    return read_keras_architecture(path)


def read_checkpoint(path):
    """The file as a checkpoint whose name fits its contents."""
    from viptt_core.training.checkpoint import read_checkpoint

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(path.with_name(f"checkpoint-000000001-{digest[:16]}.safetensors"))
    return read_checkpoint(path.parent)


def read_as_npz(path):
    from viptt_core.study.outcomes import read_packed

    return read_packed(path, lambda meta, file: dict(file), what="predictions", remedy="")


def load_as_npz(path):
    from viptt_core.datasets import load_dataset

    return load_dataset("lidc", path, frames=4, size=16, n_jobs=1, progress=False)


def inspect_as_npz(path):
    from viptt_core.check.inspect import inspect_arrays

    return inspect_arrays(path)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("read", [open_weights, read_keras, read_checkpoint, read_as_npz, load_as_npz])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights.npz"])
def test_a_planted_file_is_refused_and_not_unpickled(tmp_path, marker, make, read, name):
    path = tmp_path / name
    make(path, Planted(marker))
    with pytest.raises(DataError):
        read(path)


@pytest.mark.parametrize("make", MAKERS)
def test_planted_weights_are_refused_although_their_checksum_fits(tmp_path, monkeypatch, marker, make):
    from viptt_core.backbones import BACKBONES, imagenet_features

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    make(tmp_path / "planted.pt", Planted(marker))
    path = folder / "planted-00000000.pth"
    (tmp_path / "planted.pt").rename(path)
    monkeypatch.setitem(
        BACKBONES["vgg16"].weights, "IMAGENET1K_FEATURES", hashlib.sha256(path.read_bytes()).hexdigest()
    )
    published = {"IMAGENET1K_FEATURES": SimpleNamespace(url=f"https://models.invalid/{path.name}")}
    monkeypatch.setattr("torchvision.models.get_model_weights", lambda backbone: published)
    with pytest.raises(DataError, match=f"{path.name}.*something else than weights"):
        imagenet_features("IMAGENET1K_FEATURES")


def grey_volumes(**changes):
    content = {}
    for part, n in {"train": 4, "val": 2, "test": 2}.items():
        content |= {f"{part}_images": np.zeros((n, 4, 8, 8), np.uint8), f"{part}_labels": np.arange(n)[:, None] % 2}
    return content | changes


@pytest.mark.parametrize(
    "name, shape",
    [
        ("train_images", (4,)),
        ("train_patient", (4,)),
        ("train_diameter", (4,)),
    ],
)
def test_planted_objects_in_a_data_set_are_refused_and_not_unpickled(tmp_path, marker, name, shape):
    path, planted = tmp_path / "mine.npz", np.empty(shape, dtype=object)
    planted.fill(Planted(marker))
    np.savez(path, **grey_volumes(**{name: planted}))
    with pytest.raises(DataError, match=r"mine\.npz"):
        load_as_npz(path)
    if name.endswith("_images"):
        with pytest.raises(DataError, match=r"mine\.npz.*pickle"):
            inspect_as_npz(path)


@pytest.mark.parametrize("name", ["meta", "probabilities"])
def test_planted_objects_in_the_files_of_a_study_are_refused_and_not_unpickled(tmp_path, marker, name):
    from viptt_core.study.evidence import read_evidence
    from viptt_core.study.outcomes import read_outcomes

    path, planted = tmp_path / "a.npz", np.empty(1, dtype=object)
    planted.fill(Planted(marker))
    np.savez(path, **{"meta": np.array(json.dumps({"format": 1})), name: planted})
    for read in (read_as_npz, read_outcomes, read_evidence):
        with pytest.raises(DataError, match=r"a\.npz"):
            read(path)
