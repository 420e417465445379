"""Several processes give the weights of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


def output_of(arguments, monkeypatch):
    """What a program of Python prints, on one thread."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    answer = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return answer.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_that_share_batches_end_with_the_weights_of_one(tmp_path, monkeypatch, processes):
    printed = output_of([str(HERE / "two_processes.py"), str(tmp_path), str(processes)], monkeypatch)
    result = json.loads(printed.splitlines()[-1])
    assert result["processes"] == [1, processes]
    assert result["difference"] < 1e-5 < 1e-3 < result["moved"]
    np.testing.assert_allclose(result["losses"][0], result["losses"][1], rtol=1e-5)
    assert result["checkpoints"] == 1  # only the main process writes
