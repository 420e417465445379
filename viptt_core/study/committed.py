"""What a study left in `results/`: its record and its tables, as they are in the repository."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from viptt_core.errors import DataError, check_choice
from viptt_core.study.plan import PLANS, Study, load_study

RECORD = "study.json"
WITHDRAWN = "withdrawn"  # field of the record: why the results must not be used
TEXT_COLUMNS = ("arm", "baseline", "arm2", "baseline2")  # of which some are empty


@dataclass(frozen=True)
class Committed:
    """A plan, and what its runs left.

    Attributes:
        study: The plan as its file is now.
        folder: `results/STUDY`.
        plan_file: Relative to the repository.
        record: What `study.json` says; empty before the runs.
    """

    study: Study
    folder: Path
    plan_file: str
    record: dict

    @property
    def follows_plan(self) -> bool:
        """Whether the results are of the plan as its file is now."""
        return self.record.get("plan") == self.study.digest

    @property
    def withdrawn(self) -> str:
        """See `withdrawal`."""
        return withdrawal(self.record)

    def table(self, name: str) -> pd.DataFrame | None:
        """A table; None where there is none."""
        path = self.folder / f"{name}.csv"
        return read_table(path) if path.is_file() else None

    def row(self, table: str, **wanted: str) -> pd.Series | None:
        """The first row whose columns hold what is wanted; of contrasts, a plain one unless `arm2` is named.

        Raises:
            SettingError: the table has no such column.
        """
        rows = self.table(table)
        if rows is None:
            return None
        if "arm2" in rows:
            wanted = {"arm2": ""} | wanted
        for column, value in wanted.items():
            check_choice(f"column of {table}.csv", column, tuple(rows))
            rows = rows[rows[column] == value]
        return None if rows.empty else rows.iloc[0]


def withdrawal(record: dict) -> str:
    """What must stand beside every number of a study whose record withdraws it.

    Args:
        record: What `study.json` says.

    Returns:
        Such as "withdrawn: read along the wrong axis"; "" for results that stand.
    """
    reason = record.get(WITHDRAWN, "")
    return f"{WITHDRAWN}: {reason}" if reason else ""


def withdrawn_sentence(mark: str) -> str:
    """A sentence with a mark of `withdrawal`; "" without one."""
    return f"These numbers are {mark}." if mark else ""


def read_committed(name: str, root: Path) -> Committed:
    """A study's plan and results below `root`; without results, the plan that comes with the package.

    Raises:
        DataError: `study.json` cannot be read.
        SettingError: no such plan.
    """
    folder = root / "results" / name
    path = folder / RECORD
    if not path.is_file():
        return Committed(load_study(name), folder, f"viptt_core/study/plans/{name}.toml", {})
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        plan_file = str(record["plan_file"])
    except (OSError, ValueError, KeyError) as error:
        remedy = "Take it from the repository again, or make it: viptt study pack STUDY"
        raise DataError(f"cannot be read ({error!r}).", path=path, remedy=remedy) from error
    # An installed package has its plans in another place than the repository.
    file = root / plan_file if (root / plan_file).is_file() else PLANS / Path(plan_file).name
    return Committed(load_study(str(file)), folder, plan_file, record)


def read_table(path: Path) -> pd.DataFrame:
    """A table as committed, to the last bit; an empty cell is "" among names and nan among numbers.

    Raises:
        DataError: it cannot be read.
    """
    try:
        # Names as text, or a column without any would come as numbers.
        table = pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error}).", path=path, remedy="Take it from the repository again.") from error
    return table.assign(**{name: table[name].fillna("") for name in TEXT_COLUMNS if name in table})
