"""The page Performance: tables and pictures of what `benchmarks/` measured. Nothing is measured here."""

from __future__ import annotations

import html
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from viptt_core.errors import DataError
from viptt_core.figures import Picture, styled

FORMAT, PROFILE_FILE = 1, "profile-cpu.json"
MET = {True: "yes", False: "no", None: "no target"}
MARKS = {
    True: ("o", "#0072B2", "target met"), False: ("D", "#D55E00", "target missed"), None: ("s", "#666666", "no target"),
}  # fmt: skip
WIDTH, SMALL = 4.4, 8.5  # inches and points: readable on a telephone
LINES = {"clips": ("more clips", "o", "#0072B2"), "frames": ("more frames", "s", "#E69F00"),
         "size": ("larger frames", "^", "#009E73")}  # fmt: skip
PARTS = {  # colour and hatch
    "convolution forward": ("#56B4E9", ""), "convolution backward": ("#0072B2", ""), "ReLU": ("#F0E442", ""),
    "pooling": ("#009E73", ""), "LSTM": ("#CC79A7", ""), "stem and dense layers": ("#D55E00", ""),
    "optimiser": ("#E69F00", ""), "data movement": ("#999999", ""), "decompression": ("#444444", ""),
    "in-plane resampling": ("#DDDDDD", "\\\\\\"), "other": ("#FFFFFF", "..."),
}  # fmt: skip
LEAST_SHOWN, LEAST_NUMBERED = 0.001, 0.08  # shares: in the table, and with room for a number in a bar


@dataclass(frozen=True)
class Shown:
    """A table, which scrolls by itself on a narrow screen, with sentences below it and notes that unfold."""

    text: str = ""
    table: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        table = [] if self.table is None else [self.table.to_string(index=False)]
        return "\n".join([*table, self.text, *self.notes]).strip()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        page = "" if self.table is None else self.table.to_html(index=False, border=0, classes="table")
        page = f'<div style="overflow-x:auto">{page}</div><p>{html.escape(self.text)}</p>'
        items = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        page += f"<details><summary>Notes on the rows</summary><ul>{items}</ul></details>" if items else ""
        return {"text/plain": str(self), "text/html": page}


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

    def machines(self) -> Shown:
        """Each machine with its versions, date and commit."""
        every = {_label(self.main): self.main} | self.others
        return Shown("; ".join(_machine(name, content) for name, content in every.items()) + ".")

    def verdict(self) -> Shown:
        """How many targets were met, which were missed, and what was not measured and why."""
        rows = self.main["rows"]
        aims = [row for row in rows if row["met"] is not None]
        missed = [f"{row['title']} ({_value(row)}, target {_aim(row)})" for row in aims if not row["met"]]
        absent = [f"{row['title']} ({row['status']}: {row['reason']})" for row in rows if row["status"] != "measured"]
        text = f"Targets met: {len(aims) - len(missed)} of {len(aims)} measured."
        text += f" Missed: {'; '.join(missed)}." if missed else ""
        return Shown(text + (f" Without a measurement: {'; '.join(absent)}." if absent else ""))


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


def results_table(results: Results) -> Shown:
    """All rows: what, reference, both times, ratio with range, target, met; other files as further columns."""
    lines, notes = [], []
    for row in results.main["rows"]:
        measured = row["status"] == "measured"
        line = {
            "what": row["title"], "reference": row["reference"], "ours": _median(row, "ours"),
            "the reference": _median(row, "reference_values"),
            "ratio or value (range)": _value(row, spread=True) if measured else "", "target": _aim(row),
            "met": MET[row["met"]] if measured else f"{row['status']}: {row['reason']}",
        }  # fmt: skip
        for name, content in results.others.items():
            line[name] = _elsewhere(next((each for each in content["rows"] if each["name"] == row["name"]), None))
        lines.append(line if results.on_gpu else line | {"GPU": "not measured"})
        notes += [f"{row['title']}: {'; '.join(row['notes'])}."] if row["notes"] else []
    text = "" if results.on_gpu else "GPU: not measured, because no result file of a GPU is here."
    return Shown(text, pd.DataFrame(lines), tuple(notes))


@styled
def ratio_chart(results: Results) -> Picture | Shown:
    """Ratios with their range on log axes, and the targets; one panel a direction of the target."""
    rows = [row for row in results.main["rows"] if row["reference_values"] and row["target"]["unit"] == "x"]
    faster, slower = ([r for r in rows if (r["target"]["kind"] == "at most") is most] for most in (False, True))
    panels = [("Times faster than the reference", faster, "right"), ("Times the reference's time", slower, "left")]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return Shown("Ratios: not measured.")
    heights = [len(panel[1]) + 1.6 for panel in panels]
    figure, seen = Figure(figsize=(WIDTH, 0.44 * sum(heights) + 0.3)), {}
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, shown, better) in zip(axes, panels, strict=True):
        words = {"transform": axis.get_yaxis_transform(), "va": "bottom", "fontsize": SMALL}
        for y, row in enumerate(shown):
            marker, colour, meaning = MARKS[row["met"]]
            axis.plot([row["low"], row["high"]], [y, y], color=colour, lw=2.5, solid_capstyle="round")
            seen[meaning] = axis.plot(row["value"], y, marker, color=colour, ms=7)[0]
            if row["target"]["value"] is not None:
                seen["target"] = axis.plot(row["target"]["value"], y, "|", color="black", ms=13, mew=2.2)[0]
            axis.text(0, y - 0.26, row["title"], **words)
            axis.text(1, y - 0.26, _value(row), ha="right", fontweight="bold", **words)
        axis.axvline(1, color="black", lw=0.6, ls=":", zorder=0)
        axis.set(xscale="log", ylim=(len(shown) - 0.6, -0.85), yticks=[], xlabel=f"ratio, log axis; better: {better}")
        axis.set_title(title)
        axis.spines["left"].set_visible(False)
        _plain_ticks(axis.xaxis)
    figure.tight_layout()
    figure.legend(seen.values(), seen, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize=SMALL)
    told = "; ".join(f"{row['title']} {_value(row)}, {_aim(row) or 'none'}" for panel in panels for row in panel[1])
    return Picture(figure, f"Ratios to the reference on log axes, then the target of each: {told}.")


@styled
def scaling_chart(results: Results) -> Picture | Shown:
    """Seconds of a step over the pixels in it, as clips, frames and frame size grow; slopes computed."""
    row = next((row for row in results.main["rows"] if row["series"] and "base" in row["settings"]), None)
    if row is None:
        return Shown("How time grows: not measured in this profile.")
    figure, told, corners = Figure(figsize=(WIDTH, 3.6)), [], []
    axis = figure.subplots()
    for name, (meaning, marker, colour) in LINES.items():
        points = [(value, seconds) for grown, value, seconds in row["series"] if grown == name]
        works, seconds = [row["settings"]["base"] | {name: value} for value, _ in points], [time for _, time in points]
        pixels = [work["clips"] * work["frames"] * work["size"] ** 2 / 1e6 for work in works]
        told.append(f"{meaning}: slope {np.polyfit(np.log(pixels), np.log(seconds), 1)[0]:.2f}")
        axis.plot(pixels, seconds, marker=marker, color=colour, label=told[-1])
        corners += zip(pixels, seconds, strict=True)
    (first, start), (last, _) = min(corners), max(corners)
    axis.plot([first, last], [start, start * last / first], ls=":", color="black", lw=1, label="linear: slope 1.00")
    axis.set(xscale="log", yscale="log", xlabel="millions of pixels in a step", ylabel="seconds a step")
    _plain_ticks(axis.xaxis)
    _plain_ticks(axis.yaxis)
    axis.legend(fontsize=SMALL)
    alt = f"Seconds of an all-layer step over its pixels, both axes logarithmic; {'; '.join(told)}; 1 is linear."
    return Picture(figure, alt)


@styled
def profile_chart(results: Results) -> Picture | Shown:
    """A bar for each piece of work, divided into its parts."""
    if results.profile is None:
        return Shown("Where the time goes: not measured; run python -m benchmarks.profiling.")
    works = results.profile["work"]
    figure, seen, told = Figure(figsize=(WIDTH, 0.75 * len(works) + 0.5)), {}, []
    axis = figure.subplots()
    for y, work in enumerate(works):
        shares, left = {part["name"]: part["share"] for part in work["parts"]}, 0.0
        for name in [name for name in PARTS if name in shares]:
            share, (colour, hatch) = shares[name], PARTS[name]
            seen[name] = axis.barh(y, share, 0.5, left, color=colour, hatch=hatch, edgecolor="#555555", lw=0.5)
            if share >= LEAST_NUMBERED:
                axis.text(left + share / 2, y, f"{share:.0%}", ha="center", va="center", fontsize=SMALL,
                          bbox={"fc": "white", "ec": "none", "pad": 1.2})  # fmt: skip
            left += share
        axis.text(0, y - 0.3, f"{work['title']}: {_amount(work['seconds'], 's')}", va="bottom", fontsize=SMALL)
        told.append(f"{work['title']}: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    axis.set(xlim=(0, 1), ylim=(len(works) - 0.6, -0.75), yticks=[], xlabel="share of the time")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.spines["left"].set_visible(False)
    figure.tight_layout()
    names = [name for name in PARTS if name in seen]
    figure.legend([seen[name] for name in names], names, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2,
                  fontsize=SMALL)  # fmt: skip
    return Picture(figure, f"Bars divided by what takes the time. {'; '.join(told)}.")


def profile_table(results: Results) -> Shown:
    """Parts of each piece of work with their share, a sentence on the largest, and the machine."""
    if results.profile is None:
        return Shown("Where the time goes: not measured.")
    lines, told = [], []
    for work in results.profile["work"]:
        largest = " and ".join(f"{part['name']} ({part['share']:.0%})" for part in work["parts"][:2])
        told.append(f"{work['title'].capitalize()}: {_amount(work['seconds'], 's')}, mostly {largest}.")
        lines += [(work["title"], part["name"], f"{part['share']:.1%}", ", ".join(part["operators"]))
                  for part in work["parts"] if part["share"] >= LEAST_SHOWN]  # fmt: skip
    return Shown(f"{' '.join(told)} {_machine('Measured on', results.profile)}.",
                 pd.DataFrame(lines, columns=["work", "part", "share", "mostly"]))  # fmt: skip


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
        return "not measured" if row is None else f"{row['status']}: {row['reason']}"
    return _value(row, spread=True) + (f", met: {MET[row['met']]}" if row["met"] is not None else "")


def _value(row: dict, *, spread: bool = False) -> str:
    target, unit = row["target"], row["unit"]
    unit = target["unit"] if target["value"] is not None or row["reference_values"] else unit
    around = f" ({_amount(row['low'], unit)} to {_amount(row['high'], unit)})" if spread else ""
    return _amount(row["value"], unit) + around


def _aim(row: dict) -> str:
    target = row["target"]
    return "" if target["value"] is None else f"{target['kind']} {_amount(target['value'], target['unit'])}"


def _median(row: dict, which: str) -> str:
    return _amount(statistics.median(row[which]), row["unit"]) if row[which] else ""


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB"
    if unit == "s" and value < 0.1:
        return f"{1000 * value:.3g} ms"
    digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{digits}{'' if unit == 'x' else ' '}{unit}"


def _plain_ticks(axis) -> None:
    """Plain numbers on a logarithmic axis, few enough to be read."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 60 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
