"""`python -m benchmarks.commands`: what each command of the book takes on this machine: time, memory, disk.

`results/commands.json` holds the numbers, `results/commands.md` is the table that the page *How to reproduce* shows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks import ROOT, describe_machine, run_process, worktree
from benchmarks.page import RESULTS
from viptt_core.files import git_commit, write_file


class Command(NamedTuple):
    """What is typed, what it does, and exit codes that are no failure."""

    typed: str
    what: str
    accept: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        """Of its row: numbers belong to what was typed then."""
        return f"{self.typed}  # {self.what}"


DEMO = "papermill notebooks/02_finetune.py out.ipynb -p epochs 50"
# A group is typed in a clean checkout of its own, in this order. `runs/RUN` is the run that fine-tuned from videos.
GROUPS = (
    (
        Command(DEMO, "both arms on synthetic data: `make demo`"),
        Command(DEMO, "the same when its runs are found"),
        Command("viptt summary out.ipynb", "its table"),
        Command("viptt phantom data/phantom -n 20", "writes 20 synthetic scans"),
        Command("viptt data check imageclef data/phantom", "reads them; says that 20 are too few", (0, 1)),
        Command("viptt predict data/phantom --weights runs/RUN -o predictions.csv", "predicts them"),
        Command("papermill notebooks/05_submission.py out.ipynb", "from weights to a submission"),
    ),
    (Command("papermill notebooks/00_data.py out.ipynb", "the page on data"),),
    (Command("papermill notebooks/01_pretrain.py out.ipynb", "pretraining"),),
    (Command("papermill notebooks/03_ablations.py out.ipynb", "the page on ablations"),),
    (Command("papermill notebooks/04_per_class.py out.ipynb", "the page on classes"),),
    (Command("make recheck", "every number again from the predictions"),),
    (Command("make paper PLAN=1", "what the study would take"),),
    (Command("jupyter-book build book/", "the book from executed notebooks"),),
    (Command("make test", "ruff and the tests"),),
)


def measure(command: Command, folder: Path) -> dict:
    """Seconds, peak memory and what is left on the disk (bytes) of a command that is typed in a checkout."""
    outside = ("VIPTT_ROOT", "VIPTT_CACHE", "MAKEFLAGS")
    env = {name: value for name, value in os.environ.items() if name not in outside}
    env |= {"PYTHONUTF8": "1", "PYTHONPATH": str(folder), "PATH": f"{sys.prefix}/bin{os.pathsep}{env['PATH']}"}
    words = command.typed.replace("runs/RUN", "runs/finetune-video-*")
    if words.startswith("make "):
        words += " -o .venv/.installed"  # the files of the checkout may be newer than the environment
    before, log = disk_bytes(folder), folder.with_suffix(".log")
    seconds, peak, _ = run_process(["bash", "-c", f"exec {words}"], log=log, accept=command.accept, cwd=folder, env=env)
    return {"seconds": round(seconds, 1), "memory": peak, "disk": max(0, disk_bytes(folder) - before)}


def disk_bytes(folder: Path) -> int:
    """Size of all files below a folder; a link counts nothing."""
    places = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in places if not path.is_symlink())


def table(content: dict) -> str:
    """The table of the page, in Markdown, and the machine it is of."""
    lines = ["| you type | time | memory | disk |", "|---|---:|---:|---:|"]
    for command in (command for group in GROUPS for command in group):
        row = content["rows"].get(command.name)
        cells = (duration(row["seconds"]), size(row["memory"]), size(row["disk"])) if row else ("not measured", "", "")
        lines.append(f"| `{command.typed}`<br>{command.what} | {' | '.join(cells)} |")
    machine, dates = content["machine"], sorted(row["date"] for row in content["rows"].values())
    told = [machine["processor"], machine["gpu"] or "no GPU", machine["system"], f"Python {machine['python']}"]
    commits = dict.fromkeys(f"commit `{row['commit'][:7]}`" for row in content["rows"].values())
    told += [f"PyTorch {machine['torch']}", " to ".join(dict.fromkeys((dates[0], dates[-1]))), *commits]
    return "\n".join(lines) + f"\n\nMeasured on: {', '.join(told)}.\n"


def duration(seconds: float) -> str:
    """As people say it: 4 s, 3 min, 1 h 10 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(n_bytes: int) -> str:
    """As people say it: 0, < 1 MB, 12 MB, 1.4 GB."""
    if n_bytes < 1e6:
        return "0" if n_bytes < 1e5 else "< 1 MB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes < 950e6 else f"{n_bytes / 1e9:.1f} GB"


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
        if words and not any(word in command.typed for word in words for command in group):
            continue
        with worktree("HEAD") as folder:
            (folder / ".venv").symlink_to(sys.prefix)
            for command in group:
                print(f"{command.name} ...", flush=True)
                row = measure(command, folder)
                origin = {"commit": git_commit(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
                content["rows"][command.name] = row | origin
                write_file(path, json.dumps(content, indent=1) + "\n")
                write_file(path.with_suffix(".md"), table(content))
                told = f"memory {size(row['memory'])}, disk {size(row['disk'])}"
                print(f"  {duration(row['seconds'])}, {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.commands",
        description="Measure what the commands of the book take: time, memory, disk, as they are at the last commit. "
        "Half an hour for all. Close other programs: they share the cores.",
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="only commands with it, and those typed beside them")
    try:
        run(parser.parse_args().words)
    except RuntimeError as error:
        sys.exit(f"benchmarks.commands: {error}")


if __name__ == "__main__":
    main()
