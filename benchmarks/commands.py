"""`python -m benchmarks.commands`: what each command of the book takes on this machine: time, memory, disk.

Each is typed in a clean copy of the repository, so that nothing is found that an earlier one left; those that need what
another leaves (`after`) follow it in the same copy. In `results/commands/`, `commands.csv` holds the numbers,
`machine.json` the machine, and `commands.md` is the table that the page *How to reproduce* shows.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil  # comes with accelerate

from benchmarks import ROOT, describe_machine, write_json
from viptt_core.files import git_commit

RESULTS = ROOT / "benchmarks" / "results" / "commands"
EVERY = 0.2  # seconds between two looks at the memory


@dataclass(frozen=True)
class Command:
    """What is typed.

    Attributes:
        name: Of the row.
        typed: As the pages show it. `runs/RUN` stands for the run that fine-tuned from videos.
        what: What it does, in a few words.
        after: Names of the commands that must have run before, in the same copy of the repository.
        why_not: Why it is only measured when it is named; empty: always.
        exits: Exit codes that are no failure.
    """

    name: str
    typed: str
    what: str
    after: tuple[str, ...] = ()
    why_not: str = ""
    exits: tuple[int, ...] = (0,)


DEMO = "papermill notebooks/02_finetune.py out.ipynb -p epochs 50"
COMMANDS = {
    command.name: command
    for command in (
        Command("setup", "make .venv/.installed", "set-up: the first `make`", why_not="downloads 6 GB: `--setup`"),
        Command("demo", DEMO, "both arms on synthetic data: `make demo`"),
        Command("demo again", DEMO, "the same when its runs are found", ("demo",)),
        Command("summary", "viptt summary out.ipynb", "its table", ("demo",)),
        Command("phantom", "viptt phantom data/phantom -n 20", "writes 20 synthetic scans", ("demo",)),
        Command(
            "check",
            "viptt data check imageclef data/phantom",
            "reads them; says that 20 are too few",
            ("demo", "phantom"),
            exits=(0, 1),
        ),
        Command(
            "predict",
            "viptt predict data/phantom --weights runs/RUN -o predictions.csv",
            "predicts them",
            ("demo", "phantom"),
        ),
        Command("05", "papermill notebooks/05_submission.py out.ipynb", "from weights to a submission", ("demo",)),
        Command("00", "papermill notebooks/00_data.py out.ipynb", "the page on data"),
        Command("01", "papermill notebooks/01_pretrain.py out.ipynb", "pretraining"),
        Command("03", "papermill notebooks/03_ablations.py out.ipynb", "the page on ablations"),
        Command("04", "papermill notebooks/04_per_class.py out.ipynb", "the page on classes"),
        Command("06", "papermill notebooks/06_performance.py out.ipynb", "the page on performance"),
        Command("recheck", "make recheck", "every number again from the predictions"),
        Command("plan", "make paper PLAN=1", "what the study would take"),
        Command("book", "jupyter-book build book/", "the book from executed notebooks"),
        Command(
            "bench", "make bench", "ratios of the page *Performance*", why_not="20 minutes, by the rows it records"
        ),
        Command("test", "make test", "ruff and the tests", why_not="as long as all others together: name it"),
    )
}


@dataclass(frozen=True)
class Row:
    """What a command took; numbers are None where it was not measured.

    Attributes:
        command: As typed.
        wall_s, cpu_s: Seconds that passed, and seconds of all cores together.
        peak_mb: Most memory of all its processes at one time (10^6 bytes); pages they share count once (Linux).
        disk_mb: What it left on the disk (10^6 bytes).
        note: What it does, and why it was not measured.
    """

    command: str
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_mb: float | None = None
    disk_mb: float | None = None
    note: str = ""


# --- Measuring ------------------------------------------------------------------------------------
def measure(arguments: list[str], *, cwd: Path, env: dict | None = None, log: Path) -> tuple[int, float, float, float]:
    """Run a command: (exit code, wall seconds, CPU seconds, peak memory in bytes), children of children included."""
    began, peak, cpu, before = time.perf_counter(), 0, {}, _reaped()
    with log.open("wb") as output:
        process = psutil.Popen(
            arguments, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while True:
                peak = max(peak, _look(process, cpu))
                with contextlib.suppress(psutil.TimeoutExpired):
                    code = process.wait(timeout=EVERY)
                    break
        finally:  # an interruption ends the command, too
            if process.is_running():
                for each in [*process.children(recursive=True), process]:
                    with contextlib.suppress(psutil.Error):
                        each.kill()
    wall = time.perf_counter() - began
    # Seen while they ran, or told by the system at their end: either may miss processes, so the larger one.
    return code, wall, max(sum(cpu.values()), _reaped() - before), peak


def _reaped() -> float:
    """CPU seconds of all processes that have ended below this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _look(process: psutil.Process, cpu: dict[int, float]) -> int:
    """Memory of a process and all below it; keeps the CPU seconds of each in `cpu`, for those that end meanwhile."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = each.cpu_times()
                cpu[each.pid] = times.user + times.system
                memory = each.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
    return total


def disk_bytes(folder: Path) -> int:
    """Size of all files below a folder; a link counts nothing."""
    return sum(
        (Path(place) / name).stat().st_size
        for place, _, names in os.walk(folder)
        for name in names
        if not (Path(place) / name).is_symlink()
    )


def clean_copy(folder: Path, *, environment: bool = True) -> Path:
    """Copy what Git would commit into a folder; its .venv is this one's, or none."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    if environment:
        (folder / ".venv").symlink_to(sys.prefix)
    return folder


def call(command: Command, folder: Path) -> list[str]:
    """The arguments that start a command in a copy."""
    words = command.typed.replace("runs/RUN", "runs/finetune-video-*")
    if words.startswith("make ") and command.name != "setup":
        words += " -o .venv/.installed"  # the copy's files may be newer than the environment
    return ["bash", "-c", f"exec {words}"]


def in_copy(command: Command, folder: Path) -> Row:
    """Measure a command in a copy of the repository.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    outside = ("VIPTT_ROOT", "VIPTT_CACHE", "PYTHONPATH", "MAKEFLAGS")
    env = {name: value for name, value in os.environ.items() if name not in outside}
    env |= {"PYTHONUTF8": "1"}
    if command.name != "setup":  # the package of the copy, not that of the checkout in which it was installed
        env |= {"PATH": os.pathsep.join([f"{folder}/.venv/bin", env["PATH"]]), "PYTHONPATH": str(folder)}
    log, before = folder.with_suffix(".log"), disk_bytes(folder)
    code, wall, cpu, peak = measure(call(command, folder), cwd=folder, env=env, log=log)
    if code not in command.exits:
        raise RuntimeError(f"{command.typed}: exit code {code}: {log.read_text(errors='replace')[-2000:]}")
    disk = max(0, disk_bytes(folder) - before)
    return Row(command.typed, round(wall, 1), round(cpu, 1), round(peak / 1e6), round(disk / 1e6, 1), command.what)


# --- Files ----------------------------------------------------------------------------------------
def read_rows(folder: Path = RESULTS) -> dict[str, Row]:
    """Rows of commands.csv by the names of COMMANDS; those that were not measured, or are not there, say so."""
    path, found = folder / "commands.csv", {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                numbers = {f.name: float(line[f.name]) if line[f.name] else None for f in fields(Row)[1:-1]}
                found[line["command"], line["note"]] = Row(line["command"], **numbers, note=line["note"])
    rows = {}
    for name, command in COMMANDS.items():
        missing = Row(command.typed, note=f"{command.what} (not measured: {command.why_not or 'not yet'})")
        rows[name] = found.get((command.typed, command.what), missing)
    return rows


def write_rows(rows: dict[str, Row], machine: dict, folder: Path = RESULTS) -> None:
    """Write commands.csv, machine.json and commands.md."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows.values())
    write_json(folder / "machine.json", machine)
    for name, content in (("commands.csv", text.getvalue()), ("commands.md", shown(rows, machine))):
        partial = folder / f".{name}.part"
        partial.write_text(content, encoding="utf-8")
        os.replace(partial, folder / name)


def shown(rows: dict[str, Row], machine: dict) -> str:
    """The table of the page, in Markdown, and the machine it is of."""
    lines = ["| you type | time | memory | disk |", "|---|---:|---:|---:|"]
    for row in rows.values():
        cells = (duration(row.wall_s), size(row.peak_mb), size(row.disk_mb))
        lines.append(f"| `{row.command}`<br>{row.note} | {' | '.join(cells)} |")
    on = machine["machine"]
    words = [
        on["cpu"],
        f"{on['cores']} cores",
        on["gpu"] or "no GPU",
        on["system"],
        f"Python {on['python']}",
        f"PyTorch {on['torch']}",
        machine["date"],
    ]
    return "\n".join(lines) + f"\n\nMeasured on: {', '.join(words)}.\n"


def duration(seconds: float | None) -> str:
    """As people say it: 4 s, 3 min, 1 h 10 min."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(megabytes: float | None) -> str:
    """As people say it: 0, 12 MB, 1.4 GB."""
    if megabytes is None:
        return ""
    if megabytes < 1:
        return "0" if megabytes < 0.1 else "< 1 MB"
    return f"{megabytes:.0f} MB" if megabytes < 950 else f"{megabytes / 1000:.1f} GB"


# --- The command ----------------------------------------------------------------------------------
def run(names: list[str], *, again: bool = False, folder: Path = RESULTS) -> list[str]:
    """Measure commands, one after the other, each kept as soon as it is known.

    Args:
        names: Of COMMANDS.
        again: Measure anew what was measured.
        folder: Of the results.

    Returns:
        Those that failed.
    """
    machine = {"machine": describe_machine(), "commit": git_commit(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
    record = folder / "machine.json"
    if record.is_file() and json.loads(record.read_text(encoding="utf-8"))["machine"] != machine["machine"]:
        print("commands.csv is of another machine: all of it is measured anew.", flush=True)
        (folder / "commands.csv").unlink(missing_ok=True)
    rows, failed = read_rows(folder), []
    with tempfile.TemporaryDirectory(prefix="viptt-commands-") as place:
        shared: dict[str, Path] = {}  # first of `after` -> its copy
        done: set[str] = set()  # in the shared copies
        for name in names:
            command = COMMANDS[name]
            if rows[name].wall_s is not None and not again:
                print(f"{name}: kept, {duration(rows[name].wall_s)}", flush=True)
                continue
            begins = command.after[0] if command.after else name
            copy = shared.get(begins)
            if copy is None or not command.after:
                copy = Path(place) / f"copy{len(list(Path(place).iterdir()))}"
                shared[begins] = clean_copy(copy, environment=name != "setup")
                done.discard(begins)
            try:
                for before in command.after:
                    if before not in done:
                        print(f"{name}: first {COMMANDS[before].typed} ...", flush=True)
                        in_copy(COMMANDS[before], copy)
                        done.add(before)
                print(f"{name}: {command.typed} ...", flush=True)
                rows[name] = in_copy(command, copy)
            except RuntimeError as error:
                print(f"{name}: failed: {error}", file=sys.stderr, flush=True)
                failed.append(name)
                continue
            done.add(name)
            write_rows(rows, machine, folder)
            row = rows[name]
            told = f"{row.cpu_s:.0f} CPU seconds, memory {size(row.peak_mb)}, disk {size(row.disk_mb)}"
            print(f"  {duration(row.wall_s)}, {told}", flush=True)
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 when all were measured, 1 when one failed, 2 for an unknown name."""
    always = [name for name, command in COMMANDS.items() if not command.why_not]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.commands",
        description="Measure what the commands of the book take: time, memory, disk. What was measured on this machine "
        "is kept; those that are named are measured anew. Close other programs: they share the cores.",
        epilog=f"Names: {', '.join(COMMANDS)}. 20 minutes for all but those measured on request.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all but setup and test)")
    parser.add_argument("--setup", action="store_true", help="also the set-up, which downloads 6 GB")
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="FOLDER",
        help="folder of the results (default: benchmarks/results/commands)",
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in COMMANDS]:
        print(
            f"benchmarks.commands: no row is named {', '.join(unknown)}. Known: {', '.join(COMMANDS)}.", file=sys.stderr
        )
        return 2
    names = options.names or always
    names = (["setup"] if options.setup and "setup" not in names else []) + names
    try:
        return 1 if run(names, again=bool(options.names), folder=options.results) else 0
    except KeyboardInterrupt:
        print("benchmarks.commands: interrupted; finished rows are kept, the same command goes on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
