"""Benchmarks: ours beside a reference, in turn, in one run on one machine. `python -m benchmarks --help`.

Rows are in `rows.py`, references in `reference.py`; `page.py` writes the page *Performance*. `commands.py` measures
whole commands.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from viptt_core.files import provenance
from viptt_core.training.device import cpu_has_bf16

ROOT = Path(__file__).resolve().parent.parent  # of the checkout


class Profile(NamedTuple):
    """Frames of a clip in rows that run the network, and measurements of each side of a row."""

    frames: int
    repeats: int


PROFILES = {"quick": Profile(frames=16, repeats=3), "full": Profile(frames=70, repeats=2)}


class Target(NamedTuple):
    """What a row should reach: a ratio, "at least" (reference / ours) or "at most" (ours / reference); or a value."""

    kind: str
    value: float


@dataclass
class Result:
    """What was measured of a row, JSON-ready. The row's function gives the first five fields.

    Attributes:
        ours, theirs: Seconds (or `unit`) of each repeat; the i-th of both were taken one after the other. `theirs` is
            empty where there is no reference.
        unit: "s", "bytes", or another word.
        settings: What was run: frames, size, ...
        notes: What a reader should know.
        missing: Why there is no measurement, "" if there is one.
        commit, date: Of the measurement; "+" after a commit: with changes.
    """

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    unit: str = "s"
    settings: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    name: str = ""
    title: str = ""
    reference: str = ""
    target: Target | None = None
    missing: str = ""
    commit: str = ""
    date: str = ""

    def values(self) -> tuple[float, float, float]:
        """What is compared with the target, and the smallest and largest of the repeats.

        Beside a reference the ratio of the medians, with the range of the ratios pair by pair; else median and range.
        """
        if not self.theirs:
            return statistics.median(self.ours), min(self.ours), max(self.ours)
        at_most = self.target is not None and self.target.kind == "at most"
        above, below = (self.ours, self.theirs) if at_most else (self.theirs, self.ours)
        pairs = [a / b for a, b in zip(above, below, strict=True)]
        return statistics.median(above) / statistics.median(below), min(pairs), max(pairs)

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None where there is none, or nothing was measured."""
        if self.target is None or self.missing:
            return None
        value = self.values()[0]
        return value >= self.target.value if self.target.kind == "at least" else value <= self.target.value


class NotMeasuredError(Exception):
    """A row cannot be measured here; its text says why."""


class Row(NamedTuple):
    """A row of the table: what is measured, beside what, what it should reach, and by which function."""

    title: str
    reference: str
    target: Target | None
    function: Callable[[Profile], Result]

    def measure(self, profile: Profile) -> Result:
        """Run it. Nothing is raised for what goes wrong inside: the result says so."""
        try:
            result = self.function(profile)
        except (NotMeasuredError, ImportError) as error:
            result = Result(missing=f"not measured: {error}")
        except Exception as error:  # one broken row must not lose the others; the caller exits non-zero
            result = Result(missing=f"failed: {type(error).__name__}: {error}")
        result.title, result.reference, result.target = self.title, self.reference, self.target
        return result


def seconds_of(work: Callable[[], object], *, times: int = 1) -> float:
    """Wall seconds of one call: the mean over `times` calls in a row. Waits for the GPU where there is one."""
    synchronise = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronise()
    began = time.perf_counter()
    for _ in range(times):
        work()
    synchronise()
    return (time.perf_counter() - began) / times


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int, *, times: int = 1, warm_up: bool = True
) -> tuple[list[float], list[float]]:
    """Seconds of ours and of the reference, in turn (A B A B ...), so that both meet the same machine.

    Args:
        ours, theirs: What to time.
        repeats: Measurements of each.
        times: Calls a measurement, for work of a few milliseconds.
        warm_up: Call both once before.
    """
    if warm_up:
        ours(), theirs()
    pairs = [(seconds_of(ours, times=times), seconds_of(theirs, times=times)) for _ in range(repeats)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def describe_machine() -> dict:
    """Processor, threads, versions and GPU of this machine. JSON-ready."""
    told = provenance()
    machine = {name: told[name] for name in ("processor", "threads", "system", "python", "gpu")}
    return machine | {"torch": torch.__version__, "bf16": cpu_has_bf16()}
