"""The published notebooks: executed by papermill, scrubbed, stamped with what they were made from."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from viptt_core import files
from viptt_core.errors import DataError
from viptt_core.files import artifact_root, code_version, imported_modules, provenance
from viptt_core.papermill_io import PREFIX, notebook_sha256, source_sha256
from viptt_core.results import SCORE_COLUMNS, SUMMARY_MIME

PUBLISHED = ("00_data", "01_pretrain", "02_finetune", "03_ablations", "04_per_class", "05_submission")
# Result files a notebook reads, besides what it makes itself; a study's tables stand for the predictions they are from.
READS = dict.fromkeys(("03_ablations", "04_per_class"), ("results/*/*.csv", "results/*/study.json"))
RESULT_NOTEBOOK = "02_finetune"  # the one whose table is kept in `results/`, for the picture of the README


def publish(name: str) -> Path:
    """Execute one notebook, such as "02_finetune", and write it, scrubbed and stamped, into the book; returns its path.

    An older one stays until the new one is complete. A papermill.PapermillExecutionError where a cell failed.
    """
    import nbformat
    import pandas as pd
    import papermill

    root = artifact_root()
    source, target = root / "notebooks" / f"{name}.py", published_file(name)
    unfinished = root / "runs" / f"{name}.unfinished.ipynb"
    unfinished.parent.mkdir(exist_ok=True)
    began = time.perf_counter()
    notebook = papermill.execute_notebook(f"{PREFIX}{source}", str(unfinished), cwd=str(root))
    record = provenance() | {"seconds": round(time.perf_counter() - began)}
    scrub(notebook, root)
    notebook.metadata.viptt = dict(notebook.metadata.viptt) | {
        "modules": code_version(*imported_modules(source.read_text("utf-8"))),
        "read": read_version(name, root),
        "provenance": record,
    }
    files.write_file(target, nbformat.writes(notebook) + "\n")
    unfinished.unlink()
    if name == RESULT_NOTEBOOK:
        table = pd.DataFrame(recorded_summaries(target)[-1]["rows"])[SCORE_COLUMNS]
        files.write_file(root / "results" / f"{name}.csv", table.to_csv(index=False))
    return target


def scrub(notebook, root: Path) -> None:
    """Take out what belongs to this machine or this minute: what goes to stderr (progress bars), times, paths."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            for shown in (output, output.get("data", {})):
                for kind, value in shown.items():
                    if isinstance(value, str) and kind.startswith("text"):
                        shown[kind] = value.replace(f"{root}{os.sep}", "").replace(str(Path.home()), "~")


def what_changed(name: str) -> list[str]:
    """What an executed notebook no longer fits: "source", so that the page shows the result of other code; "package",
    if the modules it imports mean something else now or the result files it reads have changed. Empty if it is fresh.
    """
    root = artifact_root()
    source = (root / "notebooks" / f"{name}.py").read_text("utf-8")
    if not published_file(name).is_file():
        return ["source"]
    stamp = read_notebook(published_file(name))["metadata"].get("viptt", {})
    source_changed = stamp.get("source", {}).get("sha256") != notebook_sha256(source)
    package_now = code_version(*imported_modules(source)), read_version(name, root)
    package_changed = (stamp.get("modules"), stamp.get("read")) != package_now
    return ["source"] * source_changed + ["package"] * package_changed


def read_version(name: str, root: Path) -> str:
    """Hash of the names and contents of the result files a notebook reads; "" where it reads none."""
    read = sorted(path for pattern in READS.get(name, ()) for path in root.glob(pattern))
    hashes = {path.relative_to(root).as_posix(): source_sha256(path.read_text("utf-8")) for path in read}
    return source_sha256(json.dumps(hashes))[:16] if hashes else ""


def recorded_summaries(path: Path) -> list[dict]:
    """Machine-readable copies of the result tables in an executed notebook, see `results.Summary`.

    A DataError where it is no notebook, or none that got as far as its result.
    """
    found = [
        output["data"][SUMMARY_MIME]
        for cell in read_notebook(path)["cells"]
        for output in cell.get("outputs", [])
        if SUMMARY_MIME in output.get("data", {})
    ]
    if not found:
        raise DataError("holds no result table.", path=path, remedy="Execute 01_pretrain or 02_finetune to its end.")
    return found


def published_file(name: str) -> Path:
    """Where the executed form of a notebook lies."""
    return artifact_root() / "book" / "notebooks" / f"{name}.ipynb"


def read_notebook(path: Path) -> dict:
    """Parsed .ipynb; a DataError where it is missing or no notebook."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        remedy = "Execute it with papermill or `viptt publish`."
        raise DataError(f"is no executed notebook ({error}).", path=path, remedy=remedy) from error
