"""Everything a page shows of the studies, computed again from the committed predictions: no training, no torch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

from viptt_core.errors import DataError, ViPTTError, check_choice
from viptt_core.files import artifact_root
from viptt_core.study import ledger
from viptt_core.study.outcomes import RECORD, Committed, Outcomes, read_committed, read_outcomes
from viptt_core.study.plan import Study
from viptt_core.study.pointing import Evidence, read_evidence
from viptt_core.study.tables import compare_table, make_tables, write_tables

MOST_BYTES = 10_000_000  # of all predictions together: they are in the repository
EVIDENCE = "evidence"


def recheck(studies: list[str] | None = None, root: Path | None = None) -> list[str]:
    """Compute tables, ledger and model card again and compare with what is committed; prints what it looks at.

    Args:
        studies: Names below `results/`; None takes all that have a record.
        root: Of the repository.

    Returns:
        The differences in words; none if all is identical.

    Raises:
        SettingError: a study has no results.
    """
    root = root or artifact_root()
    known = sorted(path.parent.name for path in (root / "results").glob(f"*/{RECORD}"))
    for name in studies or ():
        check_choice("study with results", name, known)
    differences = _sizes(root)
    for name in studies or known:
        try:
            differences += _study(read_committed(name, root))
        except ViPTTError as error:
            differences.append(f"{name}: {error}")
    for page, text in ledger.PAGES.items():
        differences += _page(root, page, text)
    return differences


def write_study(study: Study, root: Path | None = None) -> list[Path]:
    """Write the tables of a study beside its predictions in `results/`; returns their paths.

    Args:
        study: The plan.
        root: Of the repository.

    Raises:
        DataError: there are no predictions, or they are damaged.
        StorageError: a table cannot be written.
    """
    folder = (root or artifact_root()) / "results" / study.name
    outcomes, evidence = _read(folder)
    if not outcomes:
        remedy = f"Run the study first: viptt study run {study.name} ARM"
        raise DataError("holds no predictions.", path=folder, remedy=remedy)
    return write_tables(folder, make_tables(study, outcomes, evidence))


def _read(folder: Path) -> tuple[dict[str, Outcomes], Evidence | None]:
    """Predictions by experiment, and the maps if there are any."""
    files = {path.stem: path for path in sorted(folder.glob("*.npz"))}
    evidence = files.pop(EVIDENCE, None)
    return (
        {stem: read_outcomes(path) for stem, path in files.items()},
        None if evidence is None else read_evidence(evidence),
    )


def _sizes(root: Path) -> list[str]:
    size = sum(path.stat().st_size for path in (root / "results").rglob("*.npz"))
    print(f"predictions: {size / 1e6:.1f} MB of at most {MOST_BYTES / 1e6:.0f} MB", flush=True)
    return [f"results/: the .npz files are larger than {MOST_BYTES / 1e6:.0f} MB"] if size > MOST_BYTES else []


def _study(committed: Committed) -> list[str]:
    """Differences of a study: its plan, the plan of each run, and every table."""
    study, name = committed.study, committed.study.name
    differences = []
    if not committed.follows_plan:
        differences.append(
            f"{name}: {RECORD} is of plan {committed.record.get('plan')}, {committed.plan_file} is {study.digest}"
        )
    outcomes, evidence = _read(committed.folder)
    for stem, experiment in outcomes.items():
        planned = experiment.runs["arm"].isin([arm.name for arm in study.arms])  # baselines are no arms
        if set(experiment.runs["plan"][planned]) - {study.digest}:
            differences.append(f"{name}: {stem}.npz holds runs of another plan than {study.digest}")
    print(f"{name}: computing the tables from {len(outcomes)} files", flush=True)
    for table, rows in make_tables(study, outcomes, evidence).items():
        found = compare_table(committed.folder / f"{table}.csv", rows)
        if found or not rows.empty:
            print(f"{name}: {table} {'differs' if found else 'identical'}", flush=True)
        differences += [f"{name}: {found}"] if found else []
    return differences


def _page(root: Path, page: Path, text: Callable[[Path], str]) -> list[str]:
    """Where a page differs from what would be written now: its first line that does."""
    path, name = root / page, page.as_posix()
    try:
        there = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        now = text(root).splitlines()
    except ViPTTError as error:
        return [f"{name}: {error}"]
    for number, (old, new) in enumerate(zip_longest(there, now), 1):
        if old != new:
            print(f"{name}: differs", flush=True)
            return [f"{name}: line {number} is {old!r}, computed {new!r}"]
    print(f"{name}: identical", flush=True)
    return []
