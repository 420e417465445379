"""The foot of a notebook's page: when, where and from what it was made, and whether that still holds."""

from __future__ import annotations

import html
from datetime import datetime

from viptt_core.book.address import UNKNOWN_OWNER
from viptt_core.book.publish import PUBLISHED, Freshness, check_freshness, published_file, read_notebook

FOLDER = "notebooks/"


def add_to(app) -> None:
    """Stamp the pages; they are read anew at each build, because what they were made from may have changed."""
    app.connect("html-page-context", _stamp)
    app.connect(
        "env-get-outdated",
        lambda app, env, added, changed, removed: [
            name for name in (*(f"{FOLDER}{name}" for name in PUBLISHED), "status") if name in env.found_docs
        ],
    )


def _stamp(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    name = pagename.removeprefix(FOLDER)
    if pagename.startswith(FOLDER) and name in PUBLISHED:
        context["body"] += stamp_html(name, app.config.html_theme_options.get("repository_url", ""))


def stamp_html(name: str, repository: str = "") -> str:
    """The stamp of a published notebook; commits are linked to where the repository has an address.

    Raises:
        DataError: it was never executed.
    """
    record = read_record(name)
    provenance, parameters = record["provenance"], record["parameters"]
    state, words = describe(check_freshness(name))
    packages = ", ".join(f"{package} {version}" for package, version in provenance["packages"].items())
    given = ", ".join(f"{key} = {value!r}" for key, value in parameters.items()) or "as in the notebook"
    return (
        '<section class="viptt-stamp" aria-label="How this page was made">'
        f'<p><span class="viptt-{state}">{state}</span> {words} '
        f"Executed on {date(provenance)} in {duration(provenance['seconds'])}, from commit "
        f"{commit_html(provenance['commit'], repository)}, on {html.escape(hardware(provenance))}.</p>"
        f"<details><summary>Versions, and how to run it again</summary><p>Python {provenance['python']}, "
        f"{html.escape(packages)}. Parameters: {html.escape(given)}.</p>"
        f"<p><code>viptt publish {name}</code> executes this page again as it stands here; "
        f"<code>papermill notebooks/{name}.py out.ipynb -p NAME VALUE</code> with other parameters.</p>"
        "</details></section>"
    )


def read_record(name: str) -> dict:
    """What an executed notebook says of its run: parameters and provenance, see `publish.publish`.

    Raises:
        DataError: it was never executed.
    """
    return read_notebook(published_file(name))["metadata"]["viptt"]


def describe(freshness: Freshness) -> tuple[str, str]:
    """One word, "fresh" or "stale", and a sentence."""
    if freshness.source_changed:
        return "stale", "The notebook has changed since: what stands here is the result of another one."
    if freshness.code_changed:
        return "stale", "The package or the result files it reads have changed since: its numbers may, too."
    return "fresh", "Nothing it was made from has changed since."


def date(provenance: dict) -> str:
    """Such as "3 November 2026"."""
    day = datetime.fromisoformat(provenance["date"])
    return f"{day.day} {day:%B %Y}"


def duration(seconds: float) -> str:
    """Such as "42 s" or "5 min"."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def hardware(provenance: dict) -> str:
    """System, processor and GPU in words."""
    gpu = provenance["gpu"] or "no GPU"
    return f"{provenance['system']}, {provenance['processor']}, {provenance['threads']} threads, {gpu}"


def commit_html(commit: str, repository: str = "") -> str:
    """A commit in seven digits, linked where the repository has an address; files may have differed from it."""
    digits = html.escape(commit.rstrip("+"))
    shown = f"<code>{digits[:7]}</code>"
    if repository and f"/{UNKNOWN_OWNER}/" not in repository:
        shown = f'<a href="{html.escape(repository, quote=True)}/commit/{digits}">{shown}</a>'
    return shown + (" with changes" if commit.endswith("+") else "")
