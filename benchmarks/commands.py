"""`python -m benchmarks.commands`: what each command of the book takes on this machine: time, memory, disk.

`results/commands.json` holds the numbers, `results/commands.md` is the table that the page *How to reproduce* shows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import ROOT, describe_machine
from benchmarks.page import RESULTS
from viptt_core.files import format_size, git_commit, write_file
from viptt_core.presets import read_toml

GROUPS = [group["commands"] for group in read_toml(Path(__file__).with_suffix(".toml"))["groups"]]


def measure(typed: str, folder: Path) -> dict:
    """What a command takes that is typed in a checkout.

    Returns:
        "seconds"; "memory", the most bytes that all its processes held at one time, shared pages counted once (Linux);
        "disk", the bytes that it left.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    words = typed.replace("runs/RUN", "runs/finetune-video-*")
    if words.startswith("make "):
        words += " -o .venv/.installed"  # the files of the checkout may be newer than the environment
    if words.startswith("viptt data check"):
        words += " || test $? = 1"  # it has something to say
    env = {name: each for name, each in os.environ.items() if name not in ("VIPTT_ROOT", "VIPTT_CACHE", "MAKEFLAGS")}
    env |= {"PYTHONUTF8": "1", "PYTHONPATH": str(folder), "PATH": f"{sys.prefix}/bin{os.pathsep}{env['PATH']}"}
    before, log = disk_bytes(folder), folder.with_suffix(".log")
    began, memory, code = time.perf_counter(), 0, None
    with log.open("wb") as output:
        process = psutil.Popen(["bash", "-c", words], stdout=output, stderr=output, cwd=folder, env=env)
        while code is None:
            memory = max(memory, memory_bytes(process))
            with contextlib.suppress(psutil.TimeoutExpired):
                # Looks are dense in a short command, and rare in a long one.
                code = process.wait(min(0.2, (time.perf_counter() - began) / 20))
    seconds = time.perf_counter() - began
    if code:
        printed = log.read_text(encoding="utf-8", errors="replace").strip()
        raise RuntimeError(f"{typed}: exit code {code}: {printed[-2000:]}")
    return {"seconds": round(seconds, 1), "memory": memory, "disk": max(0, disk_bytes(folder) - before)}


def memory_bytes(process: psutil.Process) -> int:
    """What a process and all below it hold. (`ru_maxrss` is one of them only, and never less than its parent's.)"""
    total = 0
    with contextlib.suppress(psutil.Error):
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                memory = each.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
    return total


def disk_bytes(folder: Path) -> int:
    """Size of all files below a folder; a link counts nothing."""
    places = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in places if not path.is_symlink())


def table(content: dict) -> str:
    """The table of the page, in Markdown, and the machine it is of."""
    lines = ["| you type | time | memory | disk |", "|---|---:|---:|---:|"]
    for typed, what in (command for group in GROUPS for command in group):
        cells = ("not measured", "", "")
        if row := content["rows"].get(f"{typed}  # {what}"):
            seconds = max(1, row["seconds"])
            time_text = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
            cells = (time_text, format_size(row["memory"]), format_size(row["disk"]))
        lines.append(f"| `{typed}`<br>{what} | {' | '.join(cells)} |")
    machine, dates = content["machine"], sorted(row["date"] for row in content["rows"].values())
    told = [machine["processor"], machine["gpu"] or "no GPU", machine["system"], f"Python {machine['python']}"]
    commits = dict.fromkeys(f"commit `{row['commit'][:7]}`" for row in content["rows"].values())
    told += [f"PyTorch {machine['torch']}", " to ".join(dict.fromkeys((dates[0], dates[-1]))), *commits]
    seconds = [row["seconds"] for row in content["rows"].values()]
    within = f" in {sum(seconds) / 60:.0f} minutes" if len(seconds) == len(lines) - 2 else ""
    return "\n".join(lines) + f"\n\nMeasured{within} on: {', '.join(told)}.\n"


def run(words: list[str], root: Path = ROOT) -> None:
    """Measure the groups that hold one of the words, all without words; each command is kept as soon as it is known.

    What was measured on another machine is dropped.

    Raises:
        RuntimeError: a command failed; with the end of what it printed.
    """
    path = root / RESULTS / "commands.json"
    content = {"machine": describe_machine(), "rows": {}}
    if path.is_file() and (known := json.loads(path.read_text(encoding="utf-8")))["machine"] == content["machine"]:
        content = known
    for group in GROUPS:
        if words and not any(word in typed for word in words for typed, _ in group):
            continue
        with tempfile.TemporaryDirectory(prefix="viptt-benchmark-") as place:
            Path(place).chmod(0o755)  # tests that give up root's rights read the checkout, too
            folder = Path(place) / "checkout"
            subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
            (folder / ".venv").symlink_to(sys.prefix)
            for typed, what in group:
                print(f"{typed}  # {what} ...", flush=True)
                row = measure(typed, folder)
                row |= {"commit": git_commit(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
                content["rows"][f"{typed}  # {what}"] = row
                write_file(path, json.dumps(content, indent=1) + "\n")
                write_file(path.with_suffix(".md"), table(content))
                print(f"  {row}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.commands",
        description="Measure what the commands of the book take: time, memory, disk, as they are at the last commit. "
        "Close other programs: they share the cores.",
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="only commands with it, and those typed beside them")
    try:
        run(parser.parse_args().words)
    except RuntimeError as error:
        sys.exit(f"benchmarks.commands: {error}")
