"""No code path unpickles: by the syntax trees of all code, and by files that would do harm if one did.

What processes of one run hand to each other (joblib, torch.distributed) comes from no file and is not meant.
"""

import ast
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
PRETRAINED = ROOT / "viptt_core" / "backbones.py"

MODULES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle")
# Functions that unpickle, or write what must be unpickled, or run text; however they are imported.
FUNCTIONS = (
    "joblib.load",
    "joblib.dump",
    "joblib.Memory",
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "torch.jit.save",
    "torch.package",
    "torch.serialization",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.utils.model_zoo",
    "yaml.unsafe_load",
    "yaml.unsafe_load_all",
    "yaml.full_load",
    "yaml.full_load_all",
    "eval",
    "exec",
    "builtins.eval",
    "builtins.exec",
)
# Methods whatever they are called on. Accelerate's two write and read pickles.
METHODS = ("read_pickle", "to_pickle", "read_hdf", "to_hdf", "save_state", "load_state")
YAML = ("yaml.load", "yaml.load_all")
SAFE_LOADERS = ("yaml.SafeLoader", "yaml.CSafeLoader")
TENSORS_ONLY = "torch.load(weights_only=True)"


def findings(source: str) -> list[tuple[int, str]]:
    """Line and name of all in Python source that unpickles, or may; also `TENSORS_ONLY`, which one place may call."""
    tree = ast.parse(source)
    known = _imported(tree)
    found = []
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{name}" for name in names)] if not node.level else []
            found += [(node.lineno, name) for name in names if name.split(".")[0] in MODULES or _within(name)]
            found += [(node.lineno, name) for name in names if name.split(".")[-1] in METHODS]
        elif isinstance(node, ast.Attribute | ast.Name):
            name, call = _dotted(node, known), called.get(id(node))
            if name == "torch.load" and call and _literal(call, "weights_only") is True and not _unpacks(call):
                found.append((node.lineno, TENSORS_ONLY))
            elif _within(name) or name.split(".")[0] in MODULES:
                found.append((node.lineno, name))
            elif isinstance(node, ast.Attribute) and node.attr in METHODS:
                found.append((node.lineno, f".{node.attr}"))
            elif name in YAML and not (call and _safe_yaml(call, known)):
                found.append((node.lineno, name))
        if isinstance(node, ast.Call):
            name = _dotted(node.func, known)
            pickles = any(word.arg == "allow_pickle" and _value(word.value) is not False for word in node.keywords)
            if pickles or (name == "numpy.load" and (len(node.args) > 2 or _unpacks(node))):
                found.append((node.lineno, f"{name}(allow_pickle)"))
            downloads = any(word.arg in ("weights", "pretrained") for word in node.keywords)
            if downloads and name.startswith("torchvision.models."):
                found.append((node.lineno, f"{name}(weights)"))
            if name in ("__import__", "importlib.import_module") and node.args:
                module = _value(node.args[0])
                if isinstance(module, str) and module.split(".")[0] in MODULES:
                    found.append((node.lineno, module))
    return sorted(set(found))


def _imported(tree: ast.AST) -> dict[str, str]:
    """Name in this file -> what it is of which module."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return known


def _dotted(node: ast.AST, known: dict[str, str]) -> str:
    """`np.lib.format` -> "numpy.lib.format"; "" for anything but names joined by dots."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value, known)):
        return f"{before}.{node.attr}"
    return ""


def _within(name: str) -> bool:
    return any(name == known or name.startswith(f"{known}.") for known in FUNCTIONS)


def _value(node: ast.AST | None):
    return node.value if isinstance(node, ast.Constant) else None


def _literal(call: ast.Call, keyword: str):
    return next((_value(word.value) for word in call.keywords if word.arg == keyword), None)


def _unpacks(call: ast.Call) -> bool:
    """Whether arguments come out of a list or a dictionary, unseen."""
    return any(word.arg is None for word in call.keywords) or any(isinstance(arg, ast.Starred) for arg in call.args)


def _safe_yaml(call: ast.Call, known: dict[str, str]) -> bool:
    loader = next((word.value for word in call.keywords if word.arg == "Loader"), None) or (call.args[1:2] or [None])[0]
    return loader is not None and _dotted(loader, known) in SAFE_LOADERS


# --- The checker finds what it should ---------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import cPickle",
        "import _pickle",
        "import dill",
        "import cloudpickle",
        "import shelve",
        "import marshal",
        "import jsonpickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n    import os, pickle",
        "from dill import load",
        "__import__('pickle').loads(b'')",
        "import importlib\nimportlib.import_module('pickle')",
        "import joblib\njoblib.load('x')",
        "import joblib\njoblib.dump(1, 'x')",
        "from joblib import load",
        "from joblib import dump as d",
        "from joblib import Memory",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import torch\ntorch.load('x', weights_only=flag)",
        "import torch\ntorch.load('x', None, True)",
        "import torch\ntorch.load('x', **{'weights_only': True})",
        "import torch\nread = torch.load",
        "import torch\ntorch.load('x', weights_only=True, **more)",
        "import torch as t\nt.load('x')",
        "from torch import load as read\nread('x')",
        "from torch import load",
        "import torch\nmap(torch.load, paths)",
        "import torch\ntorch.save(1, 'x')",
        "from torch import save",
        "import torch\ntorch.jit.load('x')",
        "from torch import jit\njit.load('x')",
        "import torch.jit\ntorch.jit.load('x')",
        "import torch\ntorch.hub.load('a', 'b')",
        "from torch.hub import load_state_dict_from_url",
        "from torch.serialization import load",
        "from torch.utils import model_zoo",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nnp.load('x', None, True)",
        "import numpy\nnumpy.load('x', allow_pickle=flag)",
        "from numpy import load\nload('x', allow_pickle=1)",
        "import numpy as np\nnp.load('x', **how)",
        "import numpy as np\nnp.load(*how)",
        "import numpy as np\nnp.lib.format.read_array(f, allow_pickle=True)",
        "from numpy.lib.format import read_array\nread_array(f, allow_pickle=True)",
        "import pandas as pd\npd.read_pickle('x')",
        "from pandas import read_pickle",
        "table.to_pickle('x')",
        "import pandas as pd\npd.read_hdf('x')",
        "accelerator.save_state('x')",
        "accelerator.load_state('x')",
        "import yaml\nyaml.load(f)",
        "import yaml\nyaml.load(f, Loader=yaml.Loader)",
        "from yaml import load\nload(f)",
        "import yaml\nyaml.load(f, yaml.FullLoader)",
        "import yaml\nyaml.unsafe_load(f)",
        "from yaml import full_load",
        "import yaml\nyaml.load_all(f)",
        "eval('1')",
        "exec(text)",
        "run = eval",
        "import builtins\nbuiltins.exec(text)",
        "from torchvision.models import vgg16\nvgg16(weights='DEFAULT')",
        "import torchvision\ntorchvision.models.get_model('vgg16', weights=w)",
        "from torchvision import models\nmodels.vgg16(pretrained=True)",
    ],
)
def test_what_unpickles_is_found(source):
    found = findings(source)
    assert found and TENSORS_ONLY not in [what for _, what in found]


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.load('x')",
        "import numpy as np\nnp.load('x', 'r', allow_pickle=False)",
        "import numpy as np\nnp.load('x', 'r')",
        "import numpy as np\nnp.lib.format.read_array(f)",
        "import numpy as np\nnp.lib.format.read_array(f, allow_pickle=False)",
        "import yaml\nyaml.safe_load(f)",
        "import yaml\nyaml.load(f, Loader=yaml.SafeLoader)",
        "from yaml import CSafeLoader, load\nload(f, CSafeLoader)",
        "model.eval()",
        "import ast\nast.literal_eval('1')",
        "from joblib import Parallel, delayed",
        "import json\njson.load(f)",
        "from safetensors.torch import load_file, save_file\nsave_file({}, 'x')",
        "from torchvision.models import vgg16\nvgg16()",
        "import tomllib\ntomllib.load(f)",
        "'pickle'  # torch.load",
        "from viptt_core.training.checkpoint import save_checkpoint",
        "from .load import save",
        "load = 1\nsave = load",
        "generator.set_state(state)\nmodel.load_state_dict(state)",
        "compare(weights=w)",
        "evaluate('x')",
    ],
)
def test_what_does_not_unpickle_is_not_found(source):
    assert findings(source) == []


def test_reading_tensors_only_is_told_apart():
    source = "import torch\nx = torch.load(path, map_location='cpu', weights_only=True)"
    assert findings(source) == [(2, TENSORS_ONLY)]


# --- All code ---------------------------------------------------------------------------------------


def test_no_code_unpickles_but_one_place_that_reads_tensors_only():
    files = [path for folder in FOLDERS for path in tracked_files(f"{folder}/**/*.py")]
    assert len(files) > 80 and {path.relative_to(ROOT).parts[0] for path in files} == set(FOLDERS)
    found = [
        (path.relative_to(ROOT).as_posix(), what)
        for path in files
        for _, what in findings(path.read_text(encoding="utf-8"))
    ]
    assert found == [(PRETRAINED.relative_to(ROOT).as_posix(), TENSORS_ONLY)]


def test_the_one_place_compares_the_checksum_first():
    tree = ast.parse(PRETRAINED.read_text(encoding="utf-8"))

    def calls(node, name):
        return [call for call in ast.walk(node) if isinstance(call, ast.Call) and ast.unparse(call.func) == name]

    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and calls(node, "torch.load")]
    (load,), (digest,) = calls(function, "torch.load"), calls(function, "file_digest")
    # In a statement of the function itself, so in any case; then a question that only a raise can end.
    at = next(i for i, node in enumerate(function.body) if calls(node, "file_digest"))
    compared, question = ast.unparse(function.body[at].targets[0]), function.body[at + 1]
    assert isinstance(question, ast.If) and isinstance(question.body[-1], ast.Raise)
    assert ast.unparse(question.test) == f"not {compared}.startswith(facts.weights[name])"
    assert question.end_lineno < load.lineno and ast.unparse(digest.args[0]) == ast.unparse(load.args[0])


def test_the_workflow_unpickles_nothing():
    assert _suspicious((ROOT / "workflow" / "Snakefile").read_text(encoding="utf-8")) == []
    for text in (
        "import pickle",
        "x = torch.load(f)",
        "np.load(f, allow_pickle=True)",
        "eval(text)",
        "joblib.load(f)",
        "pd.read_pickle(f)",
        "yaml.load(f)",
    ):
        assert _suspicious(f"rule a:\n    run:\n        {text}\n") == [3]


def _suspicious(snakefile: str) -> list[int]:
    """Lines of a Snakefile, which is no Python, with a word that has no business there."""
    words = r"|".join(
        [rf"\b{word}\b" for word in MODULES]
        + [
            r"\bjoblib\.",
            r"\btorch\.",
            r"allow_pickle",
            r"_pickle\b",
            r"\byaml\.",
            r"\beval\s*\(",
            r"\bexec\s*\(",
        ]
    )
    return [number for number, line in enumerate(snakefile.split("\n"), 1) if re.search(words, line.split("#")[0])]


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


@pytest.mark.parametrize("make", MAKERS)
def test_the_planted_files_do_harm_when_unpickled(tmp_path, make):
    path, marker = tmp_path / "weights.pt", tmp_path / "unpickled"
    make(path, Planted(marker))
    assert not marker.exists()
    if make is as_bare_pickle:
        pickle.loads(path.read_bytes())  # noqa: S301
    else:
        torch.load(path, weights_only=False)
    assert marker.exists()


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

    return load_dataset("medmnist3d", path, slice_axis=0, frames=4, size=16, n_jobs=1, progress=False)


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
        ("test_images", (2, 1, 1, 1)),
        ("val_labels", (2, 1)),
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
    from viptt_core.study.outcomes import read_outcomes
    from viptt_core.study.pointing import read_evidence

    path, planted = tmp_path / "a.npz", np.empty(1, dtype=object)
    planted.fill(Planted(marker))
    np.savez(path, **{"meta": np.array(json.dumps({"format": 1})), name: planted})
    with pytest.raises(DataError, match=r"a\.npz.*allow_pickle"):
        read_as_npz(path)
    for read in (read_outcomes, read_evidence):
        with pytest.raises(DataError, match=r"a\.npz"):
            read(path)


def test_planted_objects_in_an_array_do_harm_when_unpickled(tmp_path):
    marker, planted = tmp_path / "unpickled", np.empty(1, dtype=object)
    planted.fill(Planted(marker))
    np.savez(tmp_path / "a.npz", planted=planted)
    with np.load(tmp_path / "a.npz", allow_pickle=True) as file:
        file["planted"]
    assert marker.exists()
