"""Benchmarks: ours beside a reference, in turn, in one run on one machine. `python -m benchmarks --help`.

Rows are in `rows.py`, references in `reference.py`; `page.py` writes the page *Performance*. `commands.py` measures
whole commands, `against.py` compares two commits.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent  # of the checkout
MEASURED, NOT_MEASURED, FAILED = "measured", "not measured", "failed"
EVERY = 0.2  # seconds between two looks at the memory of a process


class Profile(NamedTuple):
    """Frames of a clip in rows that run the network, and measurements of each side of a row."""

    frames: int
    repeats: int


PROFILES = {"quick": Profile(frames=16, repeats=3), "full": Profile(frames=70, repeats=2)}


@dataclass(frozen=True)
class Target:
    """What a row should reach.

    Attributes:
        kind: "at least": reference / ours, how many times faster ours is. "at most": ours / reference. "none": no
            target, and the ratio of "at least".
        value: The bound; None without one.
        unit: "x" for a ratio; else ours is compared by itself, in this unit ("s", "bytes", ...).
    """

    kind: str = "none"
    value: float | None = None
    unit: str = "x"


@dataclass
class Result:
    """What was measured of a row, JSON-ready. The row's function fills the first five fields, and perhaps `target`.

    Attributes:
        ours, theirs: Seconds (or `unit`) of each repeat; the i-th of both were taken one after the other. `theirs` is
            empty where there is no reference.
        unit: "s", "bytes", or another word.
        settings: What was run: frames, size, ...
        notes: What a reader should know.
        target: The row's own, unless it depends on the machine.
        status: MEASURED, NOT_MEASURED or FAILED; `reason` says why.
        code: Version of the code it was measured with.
        commit, date: Of the measurement; "+" after a commit: with changes.
    """

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    unit: str = "s"
    settings: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    target: Target | None = None
    name: str = ""
    title: str = ""
    reference: str = ""
    status: str = MEASURED
    reason: str = ""
    code: str = ""
    commit: str = ""
    date: str = ""

    @classmethod
    def from_json(cls, fields: dict) -> Result:
        return cls(**(fields | {"target": Target(**fields["target"])}))

    def values(self) -> tuple[float, float, float]:
        """What is compared with the target, and the smallest and largest of the repeats.

        For "x" the ratio of the medians, with the range of the ratios pair by pair; else median and range of ours.
        """
        if self.target.unit != "x" or not self.theirs:
            return statistics.median(self.ours), min(self.ours), max(self.ours)
        above, below = (self.ours, self.theirs) if self.target.kind == "at most" else (self.theirs, self.ours)
        pairs = [a / b for a, b in zip(above, below, strict=True)]
        return statistics.median(above) / statistics.median(below), min(pairs), max(pairs)

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None where there is none, or nothing was measured."""
        if self.target.value is None or self.status != MEASURED:
            return None
        value = self.values()[0]
        return value >= self.target.value if self.target.kind == "at least" else value <= self.target.value


class NotMeasuredError(Exception):
    """A row cannot be measured here; its text says what is missing."""


@dataclass(frozen=True)
class Row:
    """A registered row."""

    name: str
    title: str
    reference: str
    target: Target
    function: Callable[[Profile], Result]

    def measure(self, profile: Profile) -> Result:
        """Run it. Nothing is raised for what goes wrong inside: the result says so."""
        try:
            result = self.function(profile)
        except NotMeasuredError as missing:
            result = Result(status=NOT_MEASURED, reason=str(missing))
        except Exception as error:  # one broken row must not lose the others; the caller exits non-zero
            result = Result(status=FAILED, reason=f"{type(error).__name__}: {error}")
        result.name, result.title, result.reference = self.name, self.title, self.reference
        result.target = result.target or self.target
        return result


ROWS: dict[str, Row] = {}


def row(title: str, reference: str, target: Target | None = None) -> Callable:
    """Register a function `(profile) -> Result` as a row under its name."""

    def register(function: Callable[[Profile], Result]) -> Callable[[Profile], Result]:
        ROWS[function.__name__] = Row(function.__name__, title, reference, target or Target(), function)
        return function

    return register


def seconds_of(work: Callable[[], object], *, times: int = 1) -> float:
    """Wall seconds of one call: the mean over `times` calls in a row. Waits for the GPU where there is one."""
    import torch

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


def run_process(
    arguments: list[str], *, log: Path, accept: tuple[int, ...] = (0,), **settings
) -> tuple[float, int, str]:
    """Run a command to its end.

    Args:
        arguments: The command.
        log: Gets what it prints.
        accept: Exit codes that are no failure.
        settings: `cwd` and `env` of `subprocess.Popen`.

    Returns:
        Seconds; the most bytes that all its processes held at one time, shared pages counted once (Linux); its output.

    Raises:
        RuntimeError: it failed, or was killed for want of memory; with the end of what it printed.
    """
    began, peak, code = time.perf_counter(), 0, None
    with log.open("wb") as output:
        process = psutil.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **settings)
        try:
            while code is None:
                peak = max(peak, _memory(process))
                with contextlib.suppress(psutil.TimeoutExpired):
                    code = process.wait(EVERY)
        finally:  # an interruption ends the command, too
            for each in [*process.children(recursive=True), process] if code is None else ():
                with contextlib.suppress(psutil.Error):
                    each.kill()
    seconds, text = time.perf_counter() - began, log.read_text(encoding="utf-8", errors="replace")
    if code not in accept:
        raise RuntimeError(f"{' '.join(arguments)[:200]}: exit code {code}: {text.strip()[-2000:]}")
    return seconds, peak, text


def _memory(process: psutil.Process) -> int:
    """Bytes that a process and all below it hold."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory = each.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
    return total


@contextlib.contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A clean checkout of a commit, for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="viptt-benchmark-") as folder:
        checkout = Path(folder) / "checkout"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", checkout, commit], cwd=ROOT, check=True)
        try:
            yield checkout
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=ROOT, check=True)


def describe_machine() -> dict:
    """Processor, threads, versions and GPU of this machine. JSON-ready."""
    import torch

    from viptt_core.files import provenance
    from viptt_core.training.device import cpu_has_bf16

    told = provenance()
    machine = {name: told[name] for name in ("processor", "threads", "system", "python", "gpu")}
    return machine | {"torch": torch.__version__, "bf16": cpu_has_bf16()}
