"""What a check of a data set found: a table for people, and everything as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from viptt_core.errors import LEVELS, Fault

LISTED = 20  # files of a kind that the table names before it only counts
_HEADINGS = {
    "set": "Stops a run, or spoils its splits",
    "file": "Files that stop or spoil a run",
    "left out": "Left out of every run",
    "note": "Good to know",
}
_KINDS_LISTED = 5  # values of a tally, such as frame sizes


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        name: Of the data set.
        root: Its folder (or file).
        preset: The preset it was judged for.
        counts: Files listed ("listed"), without label ("unlabelled"), masks ("masks"), and "groups".
        classes: Class -> {"files", "groups"}, in label order.
        facts: By name: a number, [lowest, median, highest], or a tally of values; in the words of the table.
        faults: What was found, the worst first.
        files: File -> its facts; see `inspection`.
        n_read, n_reused: Files read now, and taken from an earlier check.
        bytes_read: Of the files read now.
        seconds: The whole check.
    """

    name: str
    root: Path
    preset: str
    counts: dict[str, int]
    classes: dict[str, dict[str, int]]
    facts: dict[str, float | list[float] | dict[str, int]]
    faults: tuple[Fault, ...]
    files: dict[str, dict]
    n_read: int
    n_reused: int
    bytes_read: int
    seconds: float

    @property
    def spoils(self) -> bool:
        """Whether something would stop a run or spoil its result."""
        return any(fault.spoils for fault in self.faults)

    def of_level(self, level: str) -> list[Fault]:
        """Faults of one level, see `listing.LEVELS`."""
        return [fault for fault in self.faults if fault.level == level]

    def to_dict(self) -> dict:
        """Everything, JSON-ready."""
        values = {name: value for name, value in vars(self).items() if name not in ("root", "faults")}
        return {"spoils": self.spoils, **values, "root": str(self.root), "faults": [asdict(f) for f in self.faults]}

    def __str__(self) -> str:
        return "\n".join([self._verdict(), "", *self._overview(), *self._listed_faults(), "", self._reading()])

    def _verdict(self) -> str:
        stops = [*self.of_level("set"), *self.of_level("file")]
        rest = [
            f"{_counted(len(self.of_level(level)), noun)}"
            for level, noun in (("left out", "file left out"), ("note", "note"))
            if self.of_level(level)
        ]
        beside = f" ({', '.join(rest)})" if rest else ""
        if not stops:
            return f"SOUND: nothing was found that would spoil a run{beside}."
        return f"NOT SOUND: {_counted(len(stops), 'fault')} would stop or spoil a run{beside}."

    def _overview(self) -> Iterator[str]:
        counts = self.counts
        parts = [
            f"{counts['listed']} labelled",
            *(
                f"{counts[key]} {words}"
                for key, words in (("unlabelled", "without label"), ("masks", "masks"))
                if counts[key]
            ),
        ]
        yield f"{self.name} in {self.root}, judged for the preset '{self.preset}'"
        yield f"  {', '.join(parts)}; {_counted(len(self.classes), 'class')}, {_counted(counts['groups'], 'group')}"
        if self.classes:
            width = max(len("class"), *map(len, self.classes))
            yield f"\n  {'class'.ljust(width)}   files  groups   share"
            for name, n in self.classes.items():
                share = n["files"] / max(counts["listed"], 1)
                yield f"  {name.ljust(width)}  {n['files']:6}  {n['groups']:6}  {share:6.1%}"
        if self.facts:
            width = max(map(len, self.facts))
            yield ""
            for name, value in self.facts.items():
                yield f"  {name.ljust(width)}  {_shown(value)}"

    def _listed_faults(self) -> Iterator[str]:
        for level in LEVELS:
            faults = sorted(self.of_level(level), key=lambda fault: fault.kind)  # stable: files keep their order
            if faults:
                yield f"\n{_HEADINGS[level]}"
            for kind, group in groupby(faults, key=lambda fault: fault.kind):
                alike = list(group)
                remedies = {fault.remedy for fault in alike}
                yield f"  {kind} ({len(alike)})"
                for fault in alike[:LISTED]:
                    name = "the set" if fault.where == "." else fault.where
                    own = f" {fault.remedy}" if len(remedies) > 1 and fault.remedy else ""
                    yield f"    {name}: {fault.what}{own}"
                if len(alike) > LISTED:
                    yield f"    ... and {len(alike) - LISTED} more, see --json"
                if len(remedies) == 1 and alike[0].remedy:
                    yield f"    -> {alike[0].remedy}"

    def _reading(self) -> str:
        text = f"Read {_counted(self.n_read, 'file')} ({self.bytes_read / 1e6:.1f} MB) in {self.seconds:.1f} s."
        if self.n_reused:
            again = (
                "is unchanged since it was read before and was"
                if self.n_reused == 1
                else "are unchanged since they were read before and were"
            )
            text += f" {_counted(self.n_reused, 'file')} {again} not read again; --reread reads all."
        return text


def _counted(n: int, noun: str) -> str:
    if n == 1:
        return f"1 {noun}"
    if noun.startswith("file "):
        return f"{n} files{noun[4:]}"
    return f"{n} {noun}{'es' if noun.endswith('s') else 's'}"


def _shown(value) -> str:
    if isinstance(value, dict):
        common = sorted(value.items(), key=lambda pair: -pair[1])
        text = ", ".join(f"{name} ({n})" for name, n in common[:_KINDS_LISTED])
        return text + (f" and {len(common) - _KINDS_LISTED} others" if len(common) > _KINDS_LISTED else "")
    if isinstance(value, list):
        low, middle, high = (f"{number:.4g}" for number in value)
        return low if low == high else f"{low} to {high} (median {middle})"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
