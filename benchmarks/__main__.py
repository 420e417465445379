"""`python -m benchmarks`: run rows, keep each as soon as it is known, print the table."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import FAILED, MEASURED, NOT_MEASURED, PROFILES, ROOT, Record, Row, describe_machine, write_json
from viptt_core.performance import amount

RESULTS = ROOT / "benchmarks" / "results"
FORMAT = 1  # of the results file


def results_path(folder: Path, profile: str, machine: dict) -> Path:
    """`<profile>-cpu.json`, or `<profile>-<name of the GPU>.json`."""
    device = re.sub(r"[^a-z0-9]+", "-", (machine["gpu"] or "cpu").lower()).strip("-")
    return folder / f"{profile}-{device}.json"


def read_records(path: Path, machine: dict) -> dict[str, Record]:
    """Records of a results file by name; none where there is no file, or one of another machine."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("format") != FORMAT:
        return {}
    if content["machine"] != machine:
        print(f"{path.name} is of another machine or another torch: all of it is measured anew.", flush=True)
        return {}
    return {fields["name"]: Record.from_json(fields) for fields in content["rows"]}


def run(
    rows: Mapping[str, Row], names: list[str], profile_name: str, *, folder: Path = RESULTS, again: bool = False
) -> tuple[Path, list[Record]]:
    """Measure rows, one after the other; each is on disk as soon as it is known.

    Args:
        rows: All that are registered; the file keeps their order, and drops what is not among them.
        names: Which to measure.
        profile_name: Of PROFILES.
        folder: Where the results lie.
        again: Measure anew also what was measured on this machine with the same code.

    Returns:
        The results file and the records of `names`.
    """
    from viptt_core.files import provenance

    profile, machine, origin = PROFILES[profile_name], describe_machine(), provenance()
    path = results_path(folder, profile_name, machine)
    known = {name: record for name, record in read_records(path, machine).items() if name in rows}
    # A row of older code must not pass for one of this code, also where this call does not measure it.
    known = {name: record for name, record in known.items() if record.code == rows[name].code()}
    print(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}, "
        f"GPU: {machine['gpu'] or 'none'}; profile {profile_name}: {len(names)} rows",
        flush=True,
    )
    for number, name in enumerate(names, 1):
        head = f"[{number}/{len(names)}] {name}:"
        if name in known and known[name].status == MEASURED and not again:
            print(f"{head} kept from {known[name].date}; {outcome(known[name])}", flush=True)
            continue
        print(f"{head} {rows[name].title}, beside {rows[name].reference} ...", flush=True)
        record = rows[name].measure(profile)
        record.commit, record.date = origin["commit"], time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        known[name] = record
        content = {
            "format": FORMAT,
            "profile": profile_name,
            "machine": machine,
            "provenance": origin,
            "rows": [known[each].to_json() for each in rows if each in known],
        }
        write_json(path, content)
        print(f"{' ' * len(head)} {outcome(record)} ({record.seconds:.0f} s)", flush=True)
    return path, [known[name] for name in names]


def outcome(record: Record) -> str:
    """One line: the value, its range, the target and whether it was met; or why there is none."""
    if record.status != MEASURED:
        return f"{record.status}: {record.reason}"
    unit = record.target.unit if record.target.value is not None or record.reference_values else record.unit
    text = f"{amount(record.value, unit)} ({amount(record.low, unit)} to {amount(record.high, unit)})"
    if record.met is None:
        return text
    aim = f"{record.target.kind} {amount(record.target.value, unit)}"
    return f"{text}, target {aim}: {'met' if record.met else 'MISSED'}"


def table(records: list[Record]) -> str:
    """The final table, a line a row."""
    head = ["row", "ours", "reference", "ratio or value", "range", "target", ""]
    lines = [head]
    for record in records:
        if record.status != MEASURED:
            lines.append([record.name, "", "", record.status, "", _aim(record), record.reason])
            continue
        unit = record.target.unit if record.target.value is not None or record.reference_values else record.unit
        lines.append(
            [
                record.name,
                _median(record.ours, record.unit),
                _median(record.reference_values, record.unit),
                amount(record.value, unit),
                f"{amount(record.low, unit)} to {amount(record.high, unit)}",
                _aim(record),
                {True: "met", False: "MISSED", None: ""}[record.met],
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )


def _aim(record: Record) -> str:
    target = record.target
    return "" if target.value is None else f"{target.kind} {amount(target.value, target.unit)}"


def _median(values: list[float], unit: str) -> str:
    import statistics

    return amount(statistics.median(values), unit) if values else ""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    profiles = "; ".join(
        f"{p.name}: {p.frames} frames of {p.size} x {p.size}, {p.repeats} repeats" for p in PROFILES.values()
    )
    command = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure ours beside a reference, alternately, on this machine. "
        "Each row is written to the results file as soon as it is known; a row that was measured on this machine "
        "with the same code is kept. A missed target is said and is no error; a row that fails is.",
        epilog=f"Profiles (of the rows that run the network) - {profiles}. Rows that prepare files always use "
        "the paper's grid. Close other programs: they share the cores that are measured.",
    )
    command.add_argument("--profile", choices=list(PROFILES), default="quick", help="how much (default: quick)")
    command.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows (default: all; names: --list)")
    command.add_argument("--again", action="store_true", help="measure anew what is already in the results file")
    command.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="FOLDER",
        help="folder of the results file (default: benchmarks/results)",
    )
    command.add_argument("--list", action="store_true", help="print the rows and stop")
    return command


def main(arguments: list[str] | None = None, rows: Mapping[str, Row] | None = None) -> int:
    """Run the command; 0 when every row ran, 1 when one failed, 2 for an unknown row, 130 when interrupted."""
    if rows is None:
        import benchmarks.predict_rows
        import benchmarks.rows  # noqa: F401  registers them
        from benchmarks import ROWS as rows
    options = parser().parse_args(arguments)
    if options.list:
        width = max(map(len, rows), default=0)
        for name, row in rows.items():
            aim = _aim(Record(name, "", "", row.target, NOT_MEASURED))
            print(
                f"{name.ljust(width)}  {row.title}; beside {row.reference}"
                + (f"; {aim}" if aim else "")
                + ("; needs a GPU" if row.gpu else "")
            )
        return 0
    unknown = [name for name in options.rows or () if name not in rows]
    if unknown:
        print(f"benchmarks: no row is named {', '.join(unknown)}. Known: {', '.join(rows)}.", file=sys.stderr)
        return 2
    names = list(dict.fromkeys(options.rows or rows))
    try:
        path, records = run(rows, names, options.profile, folder=options.results, again=options.again)
    except KeyboardInterrupt:
        print("benchmarks: interrupted; finished rows are kept, the same command goes on from there.", file=sys.stderr)
        return 130
    print(f"\n{table(records)}\n\nwritten to {_shown(path)}")
    missed = [record.name for record in records if record.met is False]
    failed = [record.name for record in records if record.status == FAILED]
    if missed:
        print(f"target missed: {', '.join(missed)}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _shown(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
