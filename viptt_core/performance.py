"""The page Performance: tables and sentences from what `benchmarks/` measured. Nothing is measured here."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from viptt_core.errors import DataError
from viptt_core.shown import ResultTable

FORMAT, PROFILE_FILE = 1, "profile-cpu.json"
MET = {True: "yes", False: "no", None: "no target"}
LEAST_SHOWN = 0.01  # of the time; smaller parts only fill the table


@dataclass(frozen=True)
class Results:
    """What was measured: contents of result files.

    Attributes:
        main: Of the chosen profile on a CPU.
        others: Of other profiles and of GPUs, by the words that head their column.
        profile: Where the time goes; None where that was not measured.
    """

    main: dict
    others: dict[str, dict]
    profile: dict | None

    @property
    def on_gpu(self) -> bool:
        return any(content["machine"]["gpu"] for content in self.others.values())

    def machines(self) -> ResultTable:
        """Each machine with its versions, date and commit."""
        every = {_label(self.main): self.main} | self.others
        return ResultTable("; ".join(_machine(name, content) for name, content in every.items()) + ".")

    def verdict(self) -> ResultTable:
        """How many targets were met, which were missed, and what was not measured and why."""
        rows = self.main["rows"]
        aims = [row for row in rows if row["met"] is not None]
        missed = [f"{row['title']} ({value_text(row)}, target {aim_text(row)})" for row in aims if not row["met"]]
        absent = [f"{row['title']} ({row['status']}: {row['reason']})" for row in rows if row["status"] != "measured"]
        text = f"Targets met: {len(aims) - len(missed)} of {len(aims)} measured."
        text += f" Missed: {'; '.join(missed)}." if missed else ""
        return ResultTable(text + (f" Without a measurement: {'; '.join(absent)}." if absent else ""))


def load_results(profile: str = "quick", *, folder: str | Path = "") -> Results:
    """Read the result files.

    Args:
        profile: "quick" or "full": the page is about `<profile>-cpu.json`; all others stand beside it.
        folder: Where the files lie; empty: `benchmarks/results` of the checkout.

    Raises:
        DataError: a file is missing or damaged.
    """
    checkout = Path(__file__).resolve().parent.parent / "benchmarks"
    folder = Path(folder) if folder else (checkout if checkout.is_dir() else Path("benchmarks")) / "results"
    own, profiled = folder / f"{profile}-cpu.json", folder / PROFILE_FILE
    main = _read(own, "rows", "make bench-full" if profile == "full" else "make bench")
    others = [_read(path, "rows", "make bench") for path in sorted(set(folder.glob("*.json")) - {own, profiled})]
    parts = _read(profiled, "work", "python -m benchmarks.profiling") if profiled.is_file() else None
    return Results(main, {_label(content): content for content in others}, parts)


def results_table(results: Results) -> ResultTable:
    """All rows: what, beside what, both times, ratio with range, target, met; other files as further columns."""
    lines, notes = [], []
    for row in results.main["rows"]:
        measured = row["status"] == "measured"
        line = {
            "what": row["title"],
            "beside": row["reference"],
            "ours / theirs": " / ".join(filter(None, (_median(row, "ours"), _median(row, "reference_values")))),
            "ratio or value (range)": value_text(row, spread=True) if measured else "",
            "target": aim_text(row),
            "met": MET[row["met"]] if measured else row["status"],
        }
        for name, content in results.others.items():
            line[name] = _elsewhere(next((each for each in content["rows"] if each["name"] == row["name"]), None))
        lines.append(line if results.on_gpu else line | {"GPU": "not measured"})
        notes += [f"{row['title']}: {'; '.join(row['notes'])}."] if row["notes"] else []
    text = "" if results.on_gpu else "GPU: not measured, because no result file of a GPU is here."
    return ResultTable(text, pd.DataFrame(lines), notes=tuple(notes))


def profile_table(results: Results) -> ResultTable:
    """Parts of each piece of work with their share, a sentence on the largest, and the machine."""
    if results.profile is None:
        return ResultTable("Where the time goes: not measured.")
    lines, told = [], []
    for work in results.profile["work"]:
        largest = " and ".join(f"{part['name']} ({part['share']:.0%})" for part in work["parts"][:2])
        told.append(f"{work['title'].capitalize()}: {amount(work['seconds'], 's')}, mostly {largest}.")
        lines += [
            (work["title"], part["name"], f"{part['share']:.1%}", ", ".join(part["operators"]))
            for part in work["parts"]
            if part["share"] >= LEAST_SHOWN
        ]
    size = next((work["settings"] for work in results.profile["work"] if "frames" in work["settings"]), None)
    if size is not None:
        told.append(f"Clips of {size['frames']} frames of {size['size']} x {size['size']}, {size['precision']}.")
    return ResultTable(
        f"{' '.join(told)} {_machine('Measured on', results.profile)}.",
        pd.DataFrame(lines, columns=["work", "part", "share", "mostly"]),
    )


# --- Reading and wording ------------------------------------------------------------------------------------
def _read(path: Path, key: str, command: str) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError("is not there: nothing was measured.", path=path, remedy=f"Run {command}.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error}).", path=path, remedy=f"Delete it, then run {command}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.get(key):
        raise DataError("holds no results of this version.", path=path, remedy=f"Delete it, then run {command}.")
    return content


def _label(content: dict) -> str:
    return f"{content['profile']} profile, {content['machine']['gpu'] or 'CPU'}"


def _machine(name: str, content: dict) -> str:
    machine, rows = content["machine"], content.get("rows") or [content["provenance"]]
    dates = sorted({row["date"][:10] for row in rows})
    commits = sorted({row["commit"][:7] + (" with changes" if row["commit"].endswith("+") else "") for row in rows})
    return (
        f"{name}: {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{' '.join(machine['flags']) or 'no special instructions'}, torch {machine['torch']}, "
        f"GPU: {machine['gpu'] or 'none'}; {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}, "
        f"commit {' and '.join(commits)}"
    )


def _elsewhere(row: dict | None) -> str:
    """The cell of a row in another file."""
    if row is None or row["status"] != "measured":
        return "not measured"
    return value_text(row, spread=True) + (f", met: {MET[row['met']]}" if row["met"] is not None else "")


def value_text(row: dict, *, spread: bool = False) -> str:
    """The ratio, or the value in its unit; with `spread` the range over the repeats too."""
    target, unit = row["target"], row["unit"]
    unit = target["unit"] if target["value"] is not None or row["reference_values"] else unit
    several = spread and len(row["ours"]) > 1  # one measurement has no range
    around = f" ({amount(row['low'], unit)} to {amount(row['high'], unit)})" if several else ""
    return amount(row["value"], unit) + around


def aim_text(row: dict) -> str:
    """The target, "" where there is none."""
    target = row["target"]
    return "" if target["value"] is None else f"{target['kind']} {amount(target['value'], target['unit'])}"


def _median(row: dict, which: str) -> str:
    return amount(statistics.median(row[which]), row["unit"]) if row[which] else ""


def amount(value: float, unit: str) -> str:
    """A number with its unit, three digits."""
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB"
    if unit == "s" and value < 0.1:
        return f"{1000 * value:.3g} ms"
    digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{digits}{'' if unit == 'x' else ' '}{unit}"
