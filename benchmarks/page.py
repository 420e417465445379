"""The page *Performance*: `performance.md` with tables, sentences and charts of the result files in its place."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path
from string import Template

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks import PROFILES, ROOT, Result, Target
from viptt_core.errors import DataError
from viptt_core.figures.picture import STYLE, WIDE, with_dark_scheme
from viptt_core.files import write_file

FORMAT = 3  # of the result files
RESULTS = "benchmarks/results"  # this and the others: below a root
PAGE, CHART = "book/performance.md", "book/_static/performance.svg"
HEADLINES = {  # rows of the sentence at the top, and what it calls them
    "the authors' code": {"preprocess_scan": "preprocessing a scan", "decode_clip": "decoding a video clip"},
    "plain PyTorch in fp32": {
        "frozen_pretraining_run": "pretraining with a frozen backbone",
        "finetune_step": "a fine-tuning step of all layers",
    },
    "the authors' preprocessing with plain PyTorch": {"predict_paper": "predicting a scan"},
}
MARKS = {
    True: ("o", "#0072B2", "target met"),
    False: ("D", "#D55E00", "target missed"),
    None: ("s", "#666666", "no target"),
}
WIDTH, SMALL = 5, 8.5  # inches and points: readable on a telephone
WIDE_SUFFIX = ".wide.svg"  # of the form for wide windows, see `viptt_core.book.artwork`


def read_file(path: Path) -> dict:
    """A result file: "profile", "machine", and "rows" as a list of `Result`.

    Raises:
        DataError: it is missing, damaged, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']} instead of {FORMAT}")
        rows = [Result(**row | {"target": row["target"] and Target(*row["target"])}) for row in content["rows"]]
        return content | {"rows": rows}
    except (OSError, ValueError, LookupError, TypeError) as error:
        what = f"holds no results that can be read ({type(error).__name__}: {error})."
        raise DataError(what, path=path, remedy="Delete it if it is there, then run make bench.") from error


def write_page(root: Path = ROOT) -> Path:
    """Write the page and its chart from the result files below a root; returns the page's path.

    Raises:
        DataError: see `read_file`; the file of the quick profile on a CPU must be there, the chart is of it.
    """
    folder = root / RESULTS
    main = folder / "quick-cpu.json"
    others = [path for profile in PROFILES for path in sorted(folder.glob(f"{profile}-*.json")) if path != main]
    contents = [read_file(path) for path in (main, *others)]
    chart, alt = ratio_chart(contents[0]["rows"])
    write_file(root / CHART, chart)
    write_file((root / CHART).with_suffix(WIDE_SUFFIX), ratio_chart(contents[0]["rows"], wide=True)[0])
    template = Template((ROOT / "benchmarks" / "performance.md").read_text(encoding="utf-8"))
    shown = {"results": "\n\n".join(map(section, contents)), "alt": alt, "parts": parts_table(contents[0]["rows"])}
    shown["headline"] = headline(contents[0])
    write_file(root / PAGE, template.substitute(shown))
    return root / PAGE


# --- Words ------------------------------------------------------------------------------------------------
def amount(value: float, unit: str) -> str:
    """A number with its unit, three digits."""
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB"
    if unit == "s" and value < 0.1:
        return f"{1000 * value:.3g} ms"
    digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{digits}x" if unit == "x" else f"{digits} {unit}".strip()


def value_text(row: Result, *, spread: bool = False) -> str:
    """The ratio, or the value in its unit; with `spread` the range over the repeats, too."""
    value, low, high = (amount(each, "x" if row.theirs else row.unit) for each in row.values())
    return f"{value} ({low} to {high})" if spread and len(row.ours) > 1 else value


def target_text(row: Result) -> str:
    """The target, "" where there is none, or nothing to compare with it."""
    if row.missing or row.target is None:
        return ""
    return f"{row.target.kind} {amount(row.target.value, 'x' if row.theirs else row.unit)}"


def outcome(row: Result) -> str:
    """One line: the value, its range, the target and whether it was met; or why there is none."""
    target = f", target {target_text(row)}: {'met' if row.met else 'MISSED'}" if row.target else ""
    return row.missing or value_text(row, spread=True) + target


def headline(content: dict) -> str:
    """The ratios that matter most, in a sentence for each reference; without those that were not measured."""
    measured = {row.name: value_text(row) for row in content["rows"] if row.theirs}
    told = []
    for reference, rows in HEADLINES.items():
        ratios = [f"{words} **{measured[name]}**" for name, words in rows.items() if name in measured]
        told += [f"{', '.join(ratios)} as fast as {reference}"] * bool(ratios)
    return f"On {content['machine']['processor']}: {'; '.join(told) or 'not measured'}."


def section(content: dict) -> str:
    """A result file in Markdown: machine, table, verdict, notes."""
    machine, rows = content["machine"], content["rows"]
    lines = ["| what | beside | ours / theirs | ratio or value (range) | target | met |", "|---|---|---|---|---|---|"]
    for row in rows:
        sides = [side for side in (row.ours, row.theirs) if side]
        medians = [amount(statistics.median(side), row.unit).replace(" ", "\xa0") for side in sides]
        value = "" if row.missing else value_text(row, spread=True)
        met = {True: "yes", False: "**no**", None: row.missing.partition(":")[0] or "no target"}[row.met]
        cells = (row.title, row.reference, " / ".join(medians), value, target_text(row), met)
        lines.append(f"| {' | '.join(cells)} |")
    aimed = [row for row in rows if row.met is not None]
    missed = [f"{row.title} ({value_text(row)}, target {target_text(row)})" for row in aimed if not row.met]
    absent = [f"{row.title} ({row.missing})" for row in rows if row.missing]
    verdict = f"Targets met: {len(aimed) - len(missed)} of {len(aimed)} measured."
    verdict += f" Missed: {'; '.join(missed)}." if missed else ""
    verdict += f" Without a measurement: {'; '.join(absent)}." if absent else ""
    notes = [f"- {row.title}: {'; '.join(row.notes)}." for row in rows if row.notes]
    dates = sorted({row.date[:10] for row in rows})
    commits = dict.fromkeys(f"`{row.commit[:7]}`{' with changes' * row.commit.endswith('+')}" for row in rows)
    measured = (
        f"Measured on: {machine['processor']}, {machine['threads']} threads, "
        f"{'bf16' if machine['bf16'] else 'no bf16'} units, {machine['gpu'] or 'no GPU'}, {machine['system']}, "
        f"Python {machine['python']}, PyTorch {machine['torch']}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, "
        f"commit {' and '.join(commits)}."
    )
    title = f"### {content['profile'].capitalize()} profile, {machine['gpu'] or 'CPU'}"
    folded = "\n".join(["```{dropdown} Notes on the rows", *notes, "```"]) if notes else ""
    return "\n\n".join(filter(None, (title, measured, "\n".join(lines), verdict, folded)))


def parts_table(rows: list[Result]) -> str:
    """Shares of the step's parts, and a sentence on the largest; in Markdown."""
    row = next((row for row in rows if "parts" in row.settings), None)
    if row is None:
        return "Not measured."
    shares = row.settings["parts"]
    largest = " and ".join(f"{name} ({share:.0%})" for name, share in list(shares.items())[:2])
    about = "{frames} frames of {size} × {size}, {precision}".format(**row.settings)
    lines = [f"| {name} | {share:.1%} |" for name, share in shares.items()]
    told = f"A step of {value_text(row)} over {row.settings['batch_size']} clips of {about}: mostly {largest}."
    return "\n".join([told, "", "| part | share |", "|---|---:|", *lines])


# --- Charts -----------------------------------------------------------------------------------------------
@matplotlib.rc_context(STYLE)
def ratio_chart(rows: list[Result], *, wide: bool = False) -> tuple[bytes, str]:
    """Ratios with their range on a log axis, and the targets: SVG, for a phone or wide, and its text alternative."""
    rows = [row for row in rows if row.theirs]
    figure, seen = Figure(figsize=(WIDE, 0.27 * len(rows) + 1) if wide else (WIDTH, 0.44 * len(rows) + 1)), {}
    axis = figure.subplots()
    words = {"transform": axis.get_yaxis_transform(), "va": "bottom", "fontsize": SMALL}
    words["bbox"] = {"fc": "white", "ec": "none", "pad": 0.5}
    for y, row in enumerate(rows):
        (marker, colour, meaning), (value, low, high) = MARKS[row.met], row.values()
        axis.plot([low, high], [y, y], color=colour, lw=2.5, solid_capstyle="round")
        seen[meaning] = axis.plot(value, y, marker, color=colour, ms=7)[0]
        if row.target:
            bound = {"at least": ">", "at most": "<"}[row.target.kind]
            seen[f"target: {row.target.kind}"] = axis.plot(row.target.value, y, bound, color="black", ms=6, zorder=1)[0]
        if wide:
            axis.text(1.02, y, value_text(row), **words | {"va": "center"})
            axis.axhline(y, color="#E4E4E4", lw=0.6, zorder=0)
        else:
            axis.text(0, y - 0.26, row.title, **words)
            axis.text(1, y - 0.26, value_text(row), ha="right", fontweight="bold", **words)
    axis.axvline(1, color="black", lw=0.6, ls=":", zorder=0)
    axis.set(xscale="log", ylim=(len(rows) - 0.6, -0.85), yticks=[], xlabel="ratio, log axis")
    if wide:
        axis.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=SMALL)
        axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.tight_layout()
    figure.legend(seen.values(), seen, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize=SMALL)
    told = "; ".join(f"{row.title} {value_text(row)}, {target_text(row) or 'no target'}" for row in rows)
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", bbox_inches="tight", metadata={"Date": None})
    return with_dark_scheme(svg.getvalue()), f"Ratios on a log axis, then the target of each: {told}."
