"""`python -m benchmarks`: run rows, keep each as soon as it is known, write the page *Performance*."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks import FAILED, MEASURED, PROFILES, ROOT, Row, describe_machine
from benchmarks.page import FORMAT, RESULTS, outcome, read_file, target_text, write_page
from viptt_core.errors import ViPTTError
from viptt_core.files import git_commit, write_file


def code_version() -> str:
    """Hash of what decides a measurement: the package, the rows and what they are given."""
    own = [ROOT / "benchmarks" / f"{name}.py" for name in ("rows", "inputs", "reference")]
    paths = sorted((ROOT / "viptt_core").rglob("*.py")) + own
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def run(rows: Mapping[str, Row], names: list[str], profile: str, folder: Path) -> list[str]:
    """Measure rows, one after the other; each is on disk as soon as it is known.

    What another machine or other code gave leaves the results file: it must not pass for this one's.

    Args:
        rows: All that are registered; the file keeps their order.
        names: Which to measure, also if they are in the file; empty: all that are not.
        profile: Of PROFILES.
        folder: Where the results file lies: `<profile>-cpu.json`, or `<profile>-<name of the GPU>.json`.

    Returns:
        Names of those that failed.
    """
    machine, code, commit = describe_machine(), code_version(), git_commit()
    device = re.sub(r"[^a-z0-9]+", "-", (machine["gpu"] or "cpu").lower()).strip("-")
    path, known = folder / f"{profile}-{device}.json", {}
    if path.is_file() and (content := read_file(path))["machine"] == machine:
        known = {row.name: row for row in content["rows"] if row.name in rows and row.code == code}
    print(f"{', '.join(f'{name}: {value}' for name, value in machine.items())}; {profile} profile", flush=True)
    for number, name in enumerate(names or rows, 1):
        print(f"[{number}/{len(names or rows)}] {rows[name].title}, beside {rows[name].reference} ...", flush=True)
        if name in known and known[name].status == MEASURED and not names:
            print(f"  kept from {known[name].date}: {outcome(known[name])}", flush=True)
            continue
        began = time.perf_counter()
        known[name] = result = rows[name].measure(PROFILES[profile])
        result.code, result.commit = code, commit
        result.date = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        measured = [asdict(known[each]) for each in rows if each in known]
        content = {"format": FORMAT, "profile": profile, "machine": machine, "rows": measured}
        write_file(path, json.dumps(content, indent=1) + "\n")
        print(f"  {outcome(result)} ({time.perf_counter() - began:.0f} s)", flush=True)
    return [name for name in names or rows if known[name].status == FAILED]


def main(arguments: list[str] | None = None, rows: Mapping[str, Row] | None = None, root: Path = ROOT) -> int:
    """Run the command; 0 when every row ran, 1 when one failed, 2 for a bad order, 130 when interrupted."""
    if rows is None:
        import benchmarks.rows  # noqa: F401  registers them
        from benchmarks import ROWS as rows
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure ours beside a reference, in turn, on this machine, and write the page Performance. A row "
        "is kept as soon as it is known, and as long as the code is the same. A missed target is no error.",
        epilog="Close other programs: they share the cores that are measured.",
    )
    told = ", ".join(f"{name}: {frames} frames a clip" for name, (frames, _) in PROFILES.items())
    parser.add_argument("--profile", choices=list(PROFILES), default="quick", help=f"{told} (default: quick)")
    parser.add_argument(
        "--rows", nargs="+", metavar="NAME", choices=list(rows), help="only these, measured anew (names: --list)"
    )
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--page", action="store_true", help="write the page from the results that are there, and stop")
    options = parser.parse_args(arguments)
    if options.list:
        for name, row in rows.items():
            print("; ".join(filter(None, (f"{name}: {row.title}", f"beside {row.reference}", target_text(row)))))
        return 0
    failed = []
    try:
        if not options.page:
            failed = run(rows, options.rows or [], options.profile, root / RESULTS)
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
