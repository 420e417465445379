"""Benchmarks: ours beside a reference, alternately, in one run on one machine.

`python -m benchmarks --help`. A row is a function in `rows.py`; it returns times (or bytes) of ours and of
the reference, and the record around them - ratio, spread, target met or not - is computed here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # of the checkout
MEASURED, NOT_MEASURED, FAILED = "measured", "not measured", "failed"
_MARK = "benchmark-child:"  # the line of a child's output that holds its measurement


# --- What a row is ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Target:
    """What a row should reach; its kind decides how the ratio is formed.

    Attributes:
        kind: "at least": how many times less ours takes, reference / ours. "at most": how many times more
            ours takes, ours / reference. "none": no target, the ratio as for "at least".
        value: The bound, in `unit`.
        unit: "x", a ratio to the reference; else ours by itself, in this unit ("s", "bytes", ...).
    """

    kind: str
    value: float | None
    unit: str = "x"

    def met(self, value: float) -> bool | None:
        """Whether a measured value reaches it; None without a target."""
        if self.value is None:
            return None
        return value >= self.value if self.kind == "at least" else value <= self.value


def at_least(value: float, unit: str = "x") -> Target:
    """Ours at least `value` times faster (or smaller) than the reference; with another unit, that by itself."""
    return Target("at least", value, unit)


def at_most(value: float, unit: str = "x") -> Target:
    """Ours at most `value` times the reference; with another unit ("s", "bytes", ...), that by itself."""
    return Target("at most", value, unit)


NO_TARGET = Target("none", None)


@dataclass(frozen=True)
class Profile:
    """How much is measured.

    Attributes:
        name: "quick" or "full".
        frames: Frames of a clip in rows that run the network.
        size: Height and width of a frame, pixels.
        repeats: Measurements of each side of a row.
    """

    name: str
    frames: int
    size: int
    repeats: int


PROFILES = {
    "quick": Profile("quick", frames=16, size=224, repeats=3),
    "full": Profile("full", frames=70, size=224, repeats=2),
}


@dataclass
class Comparison:
    """What a row function returns.

    Attributes:
        ours, reference: Seconds (or another unit) of each repeat, the i-th of both taken one after the other.
            `reference` may be empty where the target is absolute.
        settings: What was run: frames, size, n, ...
        notes: What a reader should know.
        unit: "s", "bytes", or another word.
        target: In place of the row's own, where it depends on what the machine can do.
        series: What can be drawn: (axis, where on it, seconds) of each point.
    """

    ours: list[float]
    reference: list[float] = field(default_factory=list)
    settings: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unit: str = "s"
    target: Target | None = None
    series: list[tuple[str, float, float]] = field(default_factory=list)


@dataclass
class Record:
    """One row of the results, JSON-ready.

    Attributes:
        name, title, reference: The row, what it does, what it is compared with.
        status: "measured", "not measured" or "failed"; `reason` says why.
        unit, ours, reference_values, series: See `Comparison`.
        value: What is compared with the target: the ratio of the medians, or the median of ours.
        low, high: Smallest and largest of the repeats, pair by pair.
        met: Whether the target was reached; None where there is none or nothing was measured.
        target: kind, value, unit.
        code: Hash of the code it was measured with.
        commit, date: Of the measurement; "+" after a commit: with changes.
        seconds: What the row took in all.
    """

    name: str
    title: str
    reference: str
    target: Target
    status: str
    reason: str = ""
    unit: str = "s"
    ours: list[float] = field(default_factory=list)
    reference_values: list[float] = field(default_factory=list)
    value: float | None = None
    low: float | None = None
    high: float | None = None
    met: bool | None = None
    settings: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    series: list[list] = field(default_factory=list)
    code: str = ""
    commit: str = ""
    date: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict) -> Record:
        return cls(**(fields | {"target": Target(**fields["target"])}))


class NotMeasuredError(Exception):
    """A row cannot be measured here; its text says what is missing."""


@dataclass(frozen=True)
class Row:
    """A registered row; call `measure`."""

    name: str
    title: str
    reference: str
    target: Target
    function: Callable[[Profile], Comparison]
    gpu: bool = False

    def code(self) -> str:
        """Hash of what decides the measurement: viptt_core, the references, the row's function and its helpers."""
        return hashlib.sha256((_measured_code() + _source_with_helpers(self.function)).encode()).hexdigest()[:16]

    def measure(self, profile: Profile) -> Record:
        """Run it. Nothing is raised for what goes wrong inside: the record says so."""
        record = Record(self.name, self.title, self.reference, self.target, NOT_MEASURED, code=self.code())
        began = time.perf_counter()
        try:
            if self.gpu and (reason := _why_no_gpu()):
                raise NotMeasuredError(reason)
            _fill(record, self.function(profile))
        except NotMeasuredError as missing:
            record.reason = str(missing)
        except Exception as error:  # one broken row must not lose the others; the caller exits non-zero
            record.status, record.reason = FAILED, f"{type(error).__name__}: {error}"
        record.seconds = time.perf_counter() - began
        return record


ROWS: dict[str, Row] = {}


def row(title: str, *, reference: str, target: Target = NO_TARGET, gpu: bool = False) -> Callable:
    """Register a function `(profile) -> Comparison` as a row under its name.

    Args:
        title: What ours does, in a few words.
        reference: What it is compared with.
        target: What it should reach.
        gpu: Needs a CUDA device; "not measured" without.
    """

    def register(function: Callable[[Profile], Comparison]) -> Callable[[Profile], Comparison]:
        name = function.__name__
        if name in ROWS:
            raise ValueError(f"two rows are named {name}")
        ROWS[name] = Row(name, title, reference, target, function, gpu)
        return function

    return register


def _fill(record: Record, found: Comparison) -> None:
    record.ours, record.reference_values = list(found.ours), list(found.reference)
    record.settings, record.notes, record.unit = found.settings, found.notes, found.unit
    record.series = [list(point) for point in found.series]
    record.target = found.target or record.target
    record.value, record.low, record.high = summarise(found.ours, found.reference, record.target)
    record.status, record.met = MEASURED, record.target.met(record.value)


def summarise(ours: list[float], reference: list[float], target: Target) -> tuple[float, float, float]:
    """The value to compare with a target, and the smallest and largest over the repeats.

    Ratio of the medians for "x" (reference / ours, or ours / reference for "at most"), with the range of
    the ratios pair by pair; else the median and range of ours.
    """
    if target.unit != "x" or (target.value is None and not reference):
        return statistics.median(ours), min(ours), max(ours)
    above, below = (ours, reference) if target.kind == "at most" else (reference, ours)
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(above) / statistics.median(below), min(pairs), max(pairs)


def _source_with_helpers(function: Callable) -> str:
    """Source of a function and of all it uses from its own module: functions, and constants by value."""
    found, todo = {}, {function.__name__: function}
    while todo:
        name, current = todo.popitem()
        current = inspect.unwrap(current) if callable(current) else current
        if name in found:
            continue
        if inspect.isfunction(current) and current.__module__ == function.__module__:
            found[name] = inspect.getsource(current)
            used, codes = set(), [current.__code__]
            while codes:
                code = codes.pop()
                used.update(code.co_names)
                codes += [part for part in code.co_consts if inspect.iscode(part)]
            todo |= {other: current.__globals__[other] for other in used if other in current.__globals__}
        elif isinstance(current, (int, float, str, tuple, dict)) and name.isupper():
            found[name] = repr(current)
    return "".join(f"{name}: {found[name]}" for name in sorted(found))


def _measured_code() -> str:
    files = sorted((ROOT / "viptt_core").rglob("*.py")) + [ROOT / "benchmarks" / "reference.py"]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def _why_no_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "no CUDA device on this machine"


# --- Measuring --------------------------------------------------------------------------------------------
def seconds_of(work: Callable[[], object], *, times: int = 1) -> float:
    """Wall seconds of one call: the mean over `times` calls in a row. Waits for the GPU where there is one."""
    _synchronise()
    began = time.perf_counter()
    for _ in range(times):
        work()
    _synchronise()
    return (time.perf_counter() - began) / times


def alternate(
    ours: Callable[[], object],
    reference: Callable[[], object],
    repeats: int,
    *,
    times: int = 1,
    warm_up: tuple[Callable[[], object], Callable[[], object]] | None = None,
) -> tuple[list[float], list[float]]:
    """Seconds of ours and of the reference, in turn (A B A B ...), so that both meet the same machine.

    Args:
        ours, reference: What to time.
        repeats: Measurements of each.
        times: Calls a measurement, for work of a few milliseconds.
        warm_up: What to call once before, instead of `ours` and `reference` themselves.
    """
    for work in warm_up or (ours, reference):
        work()
    pairs = [(seconds_of(ours, times=times), seconds_of(reference, times=times)) for _ in range(repeats)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _synchronise() -> None:
    torch = sys.modules.get("torch")  # not imported: then nothing runs on a GPU either
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


# --- Peak memory, in a process of its own -----------------------------------------------------------------
@dataclass(frozen=True)
class Memory:
    """What one piece of work took in a fresh process.

    Attributes:
        peak_bytes: Largest resident set of the whole process.
        extra_bytes: The same less the resident set just before the work.
        seconds: Of the work, without preparing it.
        result: What the work returned (JSON).
    """

    peak_bytes: int
    extra_bytes: int
    seconds: float
    result: object = None


def memory_of(prepare: str, **settings) -> Memory:
    """Measure in a fresh Python process.

    Args:
        prepare: "package.module:function". It is called with `settings`, makes everything ready and returns
            a function without arguments: the work that is measured.
        settings: JSON-ready.

    Raises:
        RuntimeError: the process failed (killed for want of memory, say); with the end of what it wrote.
    """
    order = json.dumps({"prepare": prepare, "settings": settings})
    done = subprocess.run(
        [sys.executable, "-c", "import benchmarks; benchmarks._measure_memory()"],
        input=order,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not lines:
        why = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"exited {done.returncode}"
        raise RuntimeError(f"the process of {prepare} {why}: {done.stderr.strip()[-500:]}")
    return Memory(**json.loads(lines[-1].removeprefix(_MARK)))


def _measure_memory() -> None:
    """The child's side of `memory_of`."""
    order = json.loads(sys.stdin.read())
    module, function = order["prepare"].split(":")
    work = getattr(importlib.import_module(module), function)(**order["settings"])
    _forget_peak()
    before = _resident_bytes()
    began = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - began
    peak = max(_peak_bytes(), before)
    print(_MARK + json.dumps(dataclasses.asdict(Memory(peak, peak - before, seconds, result))), flush=True)


def _status_bytes(name: str) -> int | None:
    """A size from Linux's /proc/self/status; None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return None


def _peak_bytes() -> int:
    # Not ru_maxrss where there is better: a child's starts at what its parent held when it was started.
    if (peak := _status_bytes("VmHWM")) is not None:
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _resident_bytes() -> int:
    resident = _status_bytes("VmRSS")
    return _peak_bytes() if resident is None else resident


def _forget_peak() -> None:
    """Start the peak anew, so that what preparing took does not count (Linux)."""
    # Where it cannot be: the peak of preparing counts too, which can only make ours look worse.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


# --- Machine and files ------------------------------------------------------------------------------------
NAMED_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")


def describe_machine() -> dict:
    """CPU, cores, threads, the instructions that matter, torch and GPU of this machine. JSON-ready."""
    import torch

    from viptt_core.files import available_cores

    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    entries = dict(line.split(":", 1) for line in reversed(text.splitlines()) if ":" in line)
    entries = {name.strip(): value.strip() for name, value in entries.items()}
    present = set(entries.get("flags", "").split())
    return {
        "cpu": entries.get("model name") or platform.processor() or "unknown",
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "flags": [flag for flag in NAMED_FLAGS if flag in present],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def write_json(path: Path, content: dict) -> None:
    """Write under a temporary name and rename: what is visible is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
