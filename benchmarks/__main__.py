"""`python -m benchmarks`: run rows, keep each as soon as it is known, write the page *Performance*."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks import PROFILES, ROOT, Row, describe_machine
from benchmarks.page import FORMAT, RESULTS, outcome, read_file, write_page
from benchmarks.rows import ROWS
from viptt_core.errors import ViPTTError
from viptt_core.files import git_commit, write_file


def run(rows: Mapping[str, Row], names: list[str], profile: str, folder: Path) -> list[str]:
    """Measure rows, one after the other; each is on disk as soon as it is known.

    Args:
        rows: All that there are; the file keeps their order, and what the same machine gave before.
        names: Which to measure; empty: all that this commit has not measured.
        profile: Of PROFILES.
        folder: Where the results file lies: `<profile>-cpu.json`, or `<profile>-<name of the GPU>.json`.

    Returns:
        Names of those that failed.
    """
    machine, commit = describe_machine(), git_commit()
    device = re.sub(r"[^a-z0-9]+", "-", (machine["gpu"] or "cpu").lower()).strip("-")
    path, known = folder / f"{profile}-{device}.json", {}
    if path.is_file() and (content := read_file(path))["machine"] == machine:
        known = {row.name: row for row in content["rows"] if row.name in rows}
    print(f"{', '.join(f'{name}: {value}' for name, value in machine.items())}; {profile} profile", flush=True)
    for number, name in enumerate(names or rows, 1):
        print(f"[{number}/{len(names or rows)}] {rows[name].title}, beside {rows[name].reference} ...", flush=True)
        before = known.get(name)
        if before and not names and not before.missing and before.commit == commit and not commit.endswith("+"):
            print(f"  kept from {before.date}: {outcome(before)}", flush=True)
            continue
        began = time.perf_counter()
        known[name] = result = rows[name].measure(PROFILES[profile])
        result.name, result.commit = name, commit
        result.date = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        measured = [asdict(known[each]) for each in rows if each in known]
        content = {"format": FORMAT, "profile": profile, "machine": machine, "rows": measured}
        write_file(path, json.dumps(content, indent=1) + "\n")
        print(f"  {outcome(result)} ({time.perf_counter() - began:.0f} s)", flush=True)
    return [name for name in names or rows if known[name].missing.startswith("failed")]


def main(arguments: list[str] | None = None, rows: Mapping[str, Row] = ROWS, root: Path = ROOT) -> int:
    """Run the command; 0 when every row ran, 1 when one failed, 2 for a bad order, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure ours beside a reference, in turn, on this machine, and write the page Performance. A row "
        "is kept as soon as it is known, and as long as the commit is the same. A missed target is no error.",
        epilog="Close other programs: they share the cores that are measured.",
    )
    told = ", ".join(f"{name}: {frames} frames a clip" for name, (frames, _) in PROFILES.items())
    parser.add_argument("--profile", choices=list(PROFILES), default="quick", help=f"{told} (default: quick)")
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME",
        choices=list(rows),
        default=[],
        help=f"only these, measured anew: {', '.join(rows)}",
    )
    parser.add_argument("--page", action="store_true", help="write the page from the results that are there, and stop")
    options = parser.parse_args(arguments)
    failed = []
    try:
        if not options.page:
            failed = run(rows, options.rows, options.profile, root / RESULTS)
        print(f"written: {write_page(root).relative_to(root)}")
    except KeyboardInterrupt:
        print("benchmarks: interrupted; finished rows are kept, the same command goes on from there.", file=sys.stderr)
        return 130
    except ViPTTError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
