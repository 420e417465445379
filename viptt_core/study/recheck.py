"""Everything a page shows of the studies, computed again from the committed predictions: no training, no torch."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import pandas as pd

from viptt_core import files
from viptt_core.errors import DataError, ViPTTError, check_choice
from viptt_core.files import artifact_root
from viptt_core.study import evidence, ledger
from viptt_core.study.outcomes import RECORD, Outcomes, read_outcomes
from viptt_core.study.plan import Study
from viptt_core.study.report import StudyResults, open_results
from viptt_core.study.tables import compare_table, make_tables, write_tables
from viptt_core.study.verdict import VERDICTS


def recheck(studies: list[str] | None = None, root: Path | None = None) -> list[str]:
    """Compute tables, verdicts and pages again and compare with what is committed; prints what it looks at.

    Args:
        studies: Names below `results/`, a SettingError where one has no results; None takes all that have a record.
        root: Of the repository.

    Returns:
        The differences in words; none if all is identical.
    """
    root = root or artifact_root()
    known = sorted(path.parent.name for path in (root / "results").glob(f"*/{RECORD}"))
    for name in studies or ():
        check_choice("study with results", name, known)
    differences = []
    for name in studies or known:
        try:
            differences += _study(open_results(name, folder=root))
        except ViPTTError as error:
            differences.append(f"{name}: {error}")
    for page in (VERDICTS, *ledger.PAGES):
        differences += _page(root, page)
    return differences


def write_study(study: Study, root: Path | None = None) -> list[Path]:
    """Write the tables of a study beside its predictions in `results/`, then the verdicts; returns the paths.

    A DataError where there are no predictions, or damaged ones; a StorageError where a file cannot be written.
    """
    root = root or artifact_root()
    folder = root / "results" / study.name
    outcomes = _predictions(folder)
    if not outcomes:
        remedy = f"Run the study first: viptt study run {study.name} ARM"
        raise DataError("holds no predictions.", path=folder, remedy=remedy)
    written = write_tables(folder, _tables(study, folder, outcomes))
    files.write_file(root / VERDICTS, ledger.verdicts_text(root))
    return [*written, root / VERDICTS]


def _predictions(folder: Path) -> dict[str, Outcomes]:
    return {path.stem: read_outcomes(path) for path in sorted(folder.glob("*.npz")) if path.name != evidence.FILE}


def _tables(study: Study, folder: Path, outcomes: dict[str, Outcomes]) -> dict[str, pd.DataFrame]:
    path = folder / evidence.FILE
    found = evidence.evidence_table(evidence.read_evidence(path)) if path.is_file() else pd.DataFrame()
    return make_tables(study, outcomes) | {"evidence": found}


def _study(results: StudyResults) -> list[str]:
    """Differences of a study: its plan, the plan of each run, and every table."""
    study, name, differences = results.plan, results.plan.name, []
    if not results.follows_plan:
        differences.append(f"{name}: {RECORD} is of plan {results.record.get('plan')}, its file is {study.digest}")
    outcomes = _predictions(results.folder)
    for stem, one in outcomes.items():
        planned = one.runs["arm"].isin([arm.name for arm in study.arms])  # baselines are no arms
        if set(one.runs["plan"][planned]) - {study.digest}:
            differences.append(f"{name}: {stem}.npz holds runs of another plan than {study.digest}")
    print(f"{name}: computing the tables from {len(outcomes)} files", flush=True)
    for table, rows in _tables(study, results.folder, outcomes).items():
        found = compare_table(results.folder / f"{table}.csv", rows)
        if found or not rows.empty:
            print(f"{name}: {table} {'differs' if found else 'identical'}", flush=True)
        differences += [f"{name}: {found}"] if found else []
    return differences


def _page(root: Path, page: str) -> list[str]:
    """Where a page differs from what would be written now: its first line that does."""
    path = root / page
    try:
        there = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        now = ledger.page_text(page, root).splitlines()
    except ViPTTError as error:
        return [f"{page}: {error}"]
    pairs = enumerate(zip_longest(there, now), 1)
    differences = [f"{page}: line {number} is {old!r}, computed {new!r}" for number, (old, new) in pairs if old != new]
    print(f"{page}: {'differs' if differences else 'identical'}", flush=True)
    return differences[:1]
