"""The directive `notebook-status`: a row for every notebook, with its run time, its outcome and its freshness."""

from __future__ import annotations

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from viptt_core.book.publish import PUBLISHED, check_freshness, published_file, read_notebook
from viptt_core.book.stamp import FOLDER, date, describe, duration, read_record


def add_to(app) -> None:
    """Register the directive."""
    app.add_directive("notebook-status", NotebookStatus)


class NotebookStatus(SphinxDirective):
    """The table, as text of the page, so that search finds it."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(status_table())


def status_table() -> str:
    """The table in Markdown."""
    lines = ["| page | outcome | run time | executed | commit | threads, GPU | now |", "|---|---|---:|---|---|---|---|"]
    for name in PUBLISHED:
        record = read_record(name)["provenance"]
        state, _ = describe(check_freshness(name))
        lines.append(
            f"| [{name}]({FOLDER}{name}) | {outcome(name)} | {duration(record['seconds'])} | {date(record)} "
            f"| `{record['commit'][:7]}` | {record['threads']}, {record['gpu'] or 'no GPU'} | {state} |"
        )
    return "\n".join(lines)


def outcome(name: str) -> str:
    """How many cells ran, and whether one failed."""
    notebook = read_notebook(published_file(name))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    ran = [cell for cell in code if cell["execution_count"]]
    failed = [cell for cell in ran if any(output["output_type"] == "error" for output in cell["outputs"])]
    if failed:
        return f"failed in cell {code.index(failed[0]) + 1} of {len(code)}"
    return f"{len(ran)} of {len(code)} cells ran"
