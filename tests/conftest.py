"""Shared fixtures: a private root and cache for every test, and small clip sets."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from viptt_core.clips import ClipSet


@pytest.fixture(autouse=True)
def private_root(tmp_path, monkeypatch):
    """Runs and caches of a test never meet the reader's; a `make` in a test is no part of the one that runs it."""
    for name in ("MAKELEVEL", "MAKEFLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VIPTT_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("VIPTT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "root"


@pytest.fixture(scope="module", autouse=True)
def memory_given_back():
    """What a module let go goes back to the system, so that two workers hold less."""
    yield
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real files for development; tests that need them skip where the folder is absent."""
    folder = Path(os.environ.get("VIPTT_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the folder of real files is not here")
    return folder


@pytest.fixture
def make_clip_set():
    """Factory of small sets whose classes differ in brightness, so that they can be learnt."""

    def make(n=20, frames=3, size=16, classes=2, seed=0, **fields) -> ClipSet:
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % classes
        brightness = labels * 150 // max(classes - 1, 1)
        clips = rng.integers(0, 60, (n, frames, size, size)) + brightness[:, None, None, None]
        settings = {
            "labels": labels,
            "groups": np.array([f"g{i}" for i in range(n)]),
            "names": np.array([f"c{i}" for i in range(n)]),
            "class_names": tuple(f"class{k}" for k in range(classes)),
            "source": {"test": seed},
        }
        return ClipSet(clips.astype(np.uint8), **(settings | fields))

    return make


@pytest.fixture
def stored_rars(tmp_path, monkeypatch):
    """A program that unpacks RARs as rarfile reads them, where nothing is compressed: none need be installed."""
    from viptt_core.sources import unpack

    script = tmp_path / "stored_rars.py"
    script.write_text("import rarfile, sys\nrarfile.RarFile(sys.argv[1]).extractall(sys.argv[2])\n")
    monkeypatch.setattr(unpack, "COMMANDS", {"stored": f"{sys.executable} {script} {{archive}} {{folder}}"})


@pytest.fixture(scope="module")  # closed before other tests need an event loop
def browser():
    """A headless Chromium."""
    from browser import CHROMIUM, open_browser

    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    pytest.importorskip("playwright")
    with open_browser() as opened:
        yield opened
