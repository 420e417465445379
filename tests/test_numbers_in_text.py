"""Numbers that pages state by hand: times beside those measured, counts beside the plans and the committed results."""

import json
import re

import numpy as np
import pytest
from commands import page_text
from tracked import ROOT, tracked_files

from viptt_core.study import cost
from viptt_core.study.ledger import load_claims
from viptt_core.study.outcomes import read_outcomes
from viptt_core.study.plan import load_study

WORDS = {"half a": 0.5, "a few": 5, "a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
MINUTES = rf"(at most |about )?(\d+|{'|'.join(WORDS)})"
ROWS = json.loads((ROOT / "benchmarks" / "results" / "commands.json").read_text("utf-8"))["rows"]


def text(name):
    return page_text(ROOT / name).replace("\n", " ")


def told_times():
    """(what a page calls a time of, whether it is a bound, minutes)."""
    for page in ("README.md", "book/intro.md", "book/own_data.md", "CONTRIBUTING.md"):
        found = re.findall(rf"\bmake (\w+)\b(?:(?!\bmake |[.|]).)*?\b{MINUTES}(?: minutes?\b|, and)", text(page), re.I)
        yield from ((f"make {target}", bound, minutes) for target, bound, minutes in found)
    for path in tracked_files("notebooks/*.py"):
        command = "make demo" if path.stem == "02_finetune" else f"papermill notebooks/{path.name}"
        found = re.findall(rf"\*\*Runtime\.\*\* {MINUTES} minutes?( at most)? on two", page_text(path), re.I)
        yield from ((command, bound or after, minutes) for bound, minutes, after in found)


def measured(command):
    """Seconds of a command, None where nobody measured it: a row begins with it, or says that it is the same."""
    rows = (row["seconds"] for typed, row in ROWS.items() if typed.startswith(command) or f"`{command}`" in typed)
    return next(rows, None)


def test_times_of_pages_are_those_measured():
    times = list(told_times())
    assert {"make demo", "make test", "papermill notebooks/00_data.py"} <= {command for command, *_ in times}
    faults = []
    for command, bound, number in times:
        seconds, told = measured(command), 60 * float(WORDS.get(number.lower(), number))
        low, high = (0, told) if "most" in bound else (0.5 * told, 1.25 * told)
        if seconds is not None and not low <= seconds <= high:
            faults.append(f"{command}: {bound}{number} min; measured {seconds:.0f} s")
    assert faults == []


def test_the_example_of_a_reader_without_data_is_as_large_as_told():
    (told,) = re.findall(r"simulated scans .*? and (\d+) MB", text("book/own_data.md"))
    disk = [
        row["disk"]
        for typed, row in ROWS.items()
        if typed.startswith(("viptt phantom data/own", "viptt phantom data/new"))
    ]
    assert not disk or sum(disk) / 1e6 == pytest.approx(int(told), rel=0.2)


def test_the_fits_of_the_study_are_those_of_its_plan(monkeypatch):
    monkeypatch.setattr(cost, "_seconds_a_step", lambda *_: 0)
    fits = cost.estimate(load_study("synthetic"), None)["fits"].sum()
    assert f"{fits:,} fits" in text("book/reproduce.md")


def test_the_nodules_of_the_page_are_those_of_the_results():
    page, outcomes = page_text(ROOT / "book" / "data.md"), read_outcomes(ROOT / "results" / "real" / "primary.npz")
    counts = np.bincount(outcomes.labels).tolist()
    rows = dict(re.findall(r"^\| ([\w -]+) \| [^|]+ \| (\d+) \|$", page, flags=re.M))
    assert {name: int(count) for name, count in rows.items()} == dict(zip(outcomes.class_names, counts, strict=True))
    assert f"{len(outcomes.names)} lung nodules of {len(set(outcomes.groups))} patients" in page
    benign, malignant, between = map(
        int, re.search(r"benign \((\d+)\) and malignant \((\d+)\); the (\d+)", page).groups()
    )
    assert benign + malignant + between == len(outcomes.names)


def test_what_is_repeated_of_the_program_and_the_paper_is_theirs():
    hours = [load_claims()[name].run["hours"] for name in ("ucf_p100", "tb_final")]
    assert "took {} hours for pretraining and {} hours for the final".format(*hours) in text("book/reproduce.md")
    epochs = {"ucf_v100": "an epoch, backbone frozen (UCF50)", "tb_final": "an epoch, all layers (TB scans)"}
    for name, title in epochs.items():
        run = load_claims()[name].run
        assert f"| {title} | {run['seconds_per_epoch']} s | {run['gpu']} |" in page_text(ROOT / "book/performance.md")
