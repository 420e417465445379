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
READS = {
    "03_ablations": ("results/*/*.csv", "results/*/study.json"),
    "04_per_class": ("results/*/*.csv", "results/*/study.json"),
}
RESULT_NOTEBOOK = "02_finetune"  # the one whose table other pages show, too
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


def publish(name: str) -> Path:
    """Execute one notebook and write it, scrubbed and stamped, into the book.

    Args:
        name: Such as "02_finetune".

    Returns:
        The executed notebook. An older one stays until the new one is complete.

    Raises:
        papermill.PapermillExecutionError: a cell failed.
    """
    import nbformat
    import papermill

    root = artifact_root()
    source, target = root / "notebooks" / f"{name}.py", published_file(name)
    target.parent.mkdir(parents=True, exist_ok=True)
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
        write_result(target, root)
    return target


def write_result(notebook: Path, root: Path) -> None:
    """Write the result table of an executed notebook to `results/`; the picture of the README is drawn from it."""
    import pandas as pd

    table = pd.DataFrame(recorded_summaries(notebook)[-1]["rows"])[SCORE_COLUMNS]
    files.write_file(root / "results" / f"{notebook.stem}.csv", table.to_csv(index=False))


def scrub(notebook, root: Path) -> None:
    """Take out what belongs to this machine or this minute: progress bars, times, paths, widgets."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if not _is_noise(output)]
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET_MIME, None)
            if "text" in output:
                output["text"] = _without_paths(output["text"], root)
            for mime, value in output.get("data", {}).items():
                if isinstance(value, str) and mime.startswith("text/"):
                    output["data"][mime] = _without_paths(value, root)


def what_changed(name: str) -> list[str]:
    """What an executed notebook no longer fits: "source", so that the page shows the result of other code; "package",
    if the modules it imports mean something else now or the result files it reads have changed. Empty if it is fresh.
    """
    root = artifact_root()
    source = (root / "notebooks" / f"{name}.py").read_text("utf-8")
    if not published_file(name).is_file():
        return ["source"]
    stamp = read_notebook(published_file(name))["metadata"].get("viptt", {})
    made_from = stamp.get("source", {}).get("sha256"), stamp.get("modules"), stamp.get("read", "")
    modules, read = code_version(*imported_modules(source)), read_version(name, root)
    source_changed, package_changed = made_from[0] != notebook_sha256(source), made_from[1:] != (modules, read)
    return ["source"] * source_changed + ["package"] * package_changed


def read_version(name: str, root: Path) -> str:
    """Hash of the names and contents of the result files a notebook reads; "" where it reads none."""
    if name not in READS:
        return ""
    read = sorted(path for pattern in READS[name] for path in root.glob(pattern))
    files = {path.relative_to(root).as_posix(): source_sha256(path.read_text("utf-8")) for path in read}
    return source_sha256(json.dumps(files))[:16]


def read_summary(path: Path) -> str:
    """Result table recorded in an executed notebook, as text.

    Raises:
        DataError: no notebook, or none that got as far as its result.
    """
    return "\n\n".join(summary["text"] for summary in recorded_summaries(path))


def recorded_summaries(path: Path) -> list[dict]:
    """Machine-readable copies of the result tables in an executed notebook, see `results.Summary`.

    Raises:
        DataError: no notebook, or none that got as far as its result.
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
    """Parsed .ipynb.

    Raises:
        DataError: it is missing or no notebook.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"is no executed notebook ({error}).", path=path, remedy="Execute it with papermill or `viptt publish`."
        ) from error


def _is_noise(output) -> bool:
    """Progress bars and other words on stderr; widgets, which need a kernel, with nothing else to show."""
    shown = set(output.get("data", {}))
    return output.get("name") == "stderr" or (WIDGET_MIME in shown and shown <= {WIDGET_MIME, "text/plain"})


def _without_paths(text: str, root: Path) -> str:
    return text.replace(f"{root}{os.sep}", "").replace(str(Path.home()), "~")
