"""Many files inspected by worker processes, each outcome kept at once, so that no file is read twice.

The journal has one JSON line a file. A later call takes an outcome up if the file has the same size and time, and
the code that reads it is the same.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from viptt_core import files
from viptt_core.check.inspection import MODULES, UNREADABLE, inspect_file
from viptt_core.files import code_version

_ELSEWHERE = "VIPTT_CACHE names another folder"


@dataclass(frozen=True)
class Job:
    """A file to read: as what (a key of `inspection.INSPECTORS`), and where it is."""

    role: str
    path: Path


@dataclass(frozen=True)
class Readings:
    """Outcome of `inspection.inspect_file` by job, and how many files were read now."""

    outcomes: dict[Job, dict]
    n_read: int
    bytes_read: int


def read_files(jobs: Sequence[Job], journal: Path, *, n_jobs: int, progress: bool, reread: bool) -> Readings:
    """Inspect files, each once; what the journal holds of unchanged files is taken from there.

    Two processes with one journal take turns: the second finds what the first has read.

    Args:
        jobs: The files.
        journal: Made if it is not there.
        n_jobs: Worker processes; 1 reads in this one.
        progress: Show a progress bar.
        reread: Forget the journal first.

    Raises:
        StorageError: the journal cannot be written.
    """
    from tqdm import tqdm

    jobs, code = list(dict.fromkeys(jobs)), code_version(MODULES)
    with _locked(journal):
        if reread:
            journal.unlink(missing_ok=True)
        known = _read_journal(journal)
        stamps = {job: _stamp(job, code) for job in jobs}
        outcomes = {job: known[stamp] for job, stamp in stamps.items() if stamp in known}
        todo = [job for job in jobs if job not in outcomes]
        with (
            journal.open("a", encoding="utf-8") as lines,
            tqdm(
                total=len(jobs), initial=len(outcomes), desc="reading", unit="file", disable=not progress, mininterval=1
            ) as bar,
        ):
            for job, outcome in _inspected(todo, n_jobs):
                outcomes[job] = outcome
                # What could not be read may be there again in a minute, with the same size and time.
                if stamps[job] is not None and outcome.get("fault", {}).get("kind") != UNREADABLE:
                    with files.storing(journal, hint=_ELSEWHERE):
                        lines.write(_line(stamps[job], outcome))
                        lines.flush()
                bar.update()
        if len(known) > 2 * len(jobs):  # mostly of files that are gone or changed
            kept = [_line(stamp, outcomes[job]) for job, stamp in stamps.items() if stamp is not None]
            with files.storing(journal, hint=_ELSEWHERE):
                files.replace(journal, "".join(kept))
    outcomes = {job: outcomes[job] for job in jobs}  # they came as they were ready
    return Readings(outcomes, len(todo), sum(json.loads(stamps[job])[2] for job in todo if stamps[job]))


def _inspected(jobs: Sequence[Job], n_jobs: int) -> Iterator[tuple[Job, dict]]:
    if min(n_jobs, len(jobs)) <= 1:
        yield from map(_inspect, jobs)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    try:
        yield from Parallel(n_jobs=min(n_jobs, len(jobs)), return_as="generator_unordered", pre_dispatch="4*n_jobs")(
            delayed(_inspect)(job) for job in jobs
        )
    except BaseException:
        get_reusable_executor(kill_workers=True).shutdown()  # Ctrl-C ends the workers too
        raise
    get_reusable_executor().shutdown()  # idle workers would keep their memory


def _inspect(job: Job) -> tuple[Job, dict]:
    return job, inspect_file(job.role, job.path)


def _stamp(job: Job, code: str) -> str | None:
    """What must be the same for an outcome to hold; None for a file that is not there."""
    try:
        found = job.path.stat()
    except OSError:
        return None
    return json.dumps([job.role, os.path.abspath(job.path), found.st_size, found.st_mtime_ns, code])


@contextmanager
def _locked(journal: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    with files.storing(journal.parent, hint=_ELSEWHERE):
        journal.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(journal.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print("Another process checks this set; waiting for it.", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _read_journal(journal: Path) -> dict[str, dict]:
    """Outcomes by stamp. A last line that a killed process left unfinished is cut off."""
    if not journal.is_file():
        return {}
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(journal, len(whole))
    known = {}
    for line in whole.decode("utf-8", errors="replace").split("\n"):
        try:
            stamp, outcome = json.loads(line)
            known[stamp] = dict(outcome)
        except (ValueError, TypeError):  # damaged: that file is read again
            continue
    return known


def _line(stamp: str, outcome: dict) -> str:
    return json.dumps([stamp, outcome]) + "\n"
