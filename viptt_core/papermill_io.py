"""Lets papermill run our `.py` notebooks, and checks the parameters it was given.

papermill reads `.ipynb` only and picks its readers by path *prefix*. The entry point
`"jupytext://" = "viptt_core.papermill_io:handler"` (group `papermill.io`) makes it load this module
on every call; `handler` then wraps papermill's local reader, so that `notebooks/x.py`, `./notebooks/x.py`,
an absolute path, a bare name and `jupytext://notebooks/x.py` all work. Nothing heavy is imported before
a `.py` notebook is read, and importing never raises: a plug-in that does would break every call.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import re
import signal
import sys
import threading
import warnings
from typing import Any

from viptt_core.errors import DataError, SettingError
from viptt_core.presets import fits

PREFIX = "jupytext://"
INJECTED_FIRST_LINE = "# Parameters"  # papermill's default comment at the top of the cell it injects
NOT_SHOWN = re.compile(r'\A# ---\n.*?^# ---$|^# %% tags=\["colab".*?(?=^# %%)', flags=re.MULTILINE | re.DOTALL)
SOURCE_SUFFIXES = (".py", ".md")  # never written to: they are what notebooks are made from
INTERRUPTED = "Interrupted. What was finished is kept: the same command goes on from there."
CHECKED = (bool, int, float, str)  # annotations of parameters whose values are compared with them


# --- Reading and writing -------------------------------------------------------------------


def to_notebook_json(text: str, path: str) -> str:
    """Convert the text of a percent notebook to `.ipynb` JSON that is the same on every call.

    Cell ids come from position and content; `metadata.viptt.source` has the hash of the text, see `notebook_sha256`.
    A DataError if the text is no percent notebook or has no cell tagged `parameters`.
    """
    if not re.search(r"^# ?%%", text, flags=re.MULTILINE):
        what = "is a Python file, but no jupytext percent notebook."
        raise DataError(what, path=path, remedy="Its cells must start with '# %%' lines.")
    import jupytext
    import nbformat

    notebook = jupytext.reads(text, {"extension": ".py", "format_name": "percent"})
    if not any("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells):
        remedy = """Start one cell with the line '# %% tags=["parameters"]'."""
        raise DataError("has no cell for parameters.", path=path, remedy=remedy)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.viptt = {"source": {"sha256": notebook_sha256(text)}}
    notebook.nbformat, notebook.nbformat_minor = 4, 5  # cell ids exist since 4.5
    for position, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{position:02d}-{source_sha256(cell.source)[:8]}"
    return nbformat.writes(notebook)


def source_sha256(text: str) -> str:
    """SHA-256 of a source text, line ends counted as one newline (a checkout may change them)."""
    return hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest()


def notebook_sha256(text: str) -> str:
    """SHA-256 of a percent notebook, but for jupytext's header and the cell for Colab: a page shows neither."""
    return source_sha256(NOT_SHOWN.sub("", text).strip())


def _wrap_local_handler() -> Any:
    """Teach papermill's local handler our two rules, once, and return it.

    Changed in place, because papermill sets the working folder on this very object.
    """
    from papermill.iorw import papermill_io

    local = papermill_io.get_handler("local")
    if hasattr(local, "viptt_wrapped"):
        return local
    plain_read, plain_write = local.read, local.write

    def read(path: str) -> str:
        path = path.removeprefix(PREFIX)
        text = plain_read(path)
        if not path.lower().endswith(".py"):
            return text
        _replace_client()
        return to_notebook_json(text, path)

    def write(buf: str, path: str) -> None:
        path = path.removeprefix(PREFIX)
        if path.lower().endswith(SOURCE_SUFFIXES):
            what = "an executed notebook is not written over a source file."
            raise SettingError(what, path=path, remedy="Give an output name that ends in .ipynb.")
        plain_write(buf, path)

    local.read, local.write, local.viptt_wrapped = read, write, True
    # papermill says so on each call although the file is read well.
    warnings.filterwarnings("ignore", message=r"The specified file \(.*\.py\) does not end in")
    return local


@functools.cache
def _replace_client() -> None:
    """From here on papermill shows the progress of a cell, and ends a Ctrl-C in one line."""
    from papermill import engines

    class Client(engines.PapermillNotebookClient):
        at_work = interrupted = False

        def interrupt(self, *_) -> None:
            """Let the cell end by itself: what is cut off between two messages ends in a dead kernel."""
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the next one does not wait
            self.interrupted = True
            if self.at_work:
                from nbclient.util import run_sync

                run_sync(self.km.interrupt_kernel)()

        def execute_cell(self, *cell, **settings):
            self.at_work = not self.interrupted
            try:
                return super().execute_cell(*cell, **settings) if self.at_work else None
            finally:
                self.at_work = False
                if self.interrupted:
                    raise KeyboardInterrupt from None

        def execute(self, **settings):
            self.extra_arguments = ["--log-level=ERROR"]  # else each kernel warns of connections within this machine
            if self.nb_man.pbar and sys.stderr.isatty():  # in a file the bars of cells would be thousands of lines
                self.nb_man.pbar.bar_format = "{desc}: {n_fmt} of {total_fmt} cells, {elapsed}"
                self.stderr_file = self.stderr_file or sys.stderr
            before, settable = signal.getsignal(signal.SIGINT), threading.current_thread() is threading.main_thread()
            try:
                if settable:
                    signal.signal(signal.SIGINT, self.interrupt)
                return super().execute(**settings)
            except KeyboardInterrupt:
                self.nb_man.cleanup_pbar()
                print(f"\n{INTERRUPTED}", file=sys.stderr)
                raise SystemExit(130) from None
            finally:
                if settable:
                    signal.signal(signal.SIGINT, before)

    engines.PapermillNotebookClient = Client


def __getattr__(name: str) -> Any:
    # Lazy, because notebooks import this module too, only for `check_parameters`.
    if name != "handler":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    try:
        return _wrap_local_handler()
    except (ImportError, AttributeError) as error:  # another papermill than we know
        warnings.warn(f"papermill cannot read .py notebooks here: {error}", stacklevel=2)
        return object()


# --- Checking parameters -------------------------------------------------------------------


def check_parameters(namespace: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a notebook by name; fails if one is of a wrong type, or was given and does not exist.

    papermill itself only warns, and an hour later the default was used. Call it as
    `given = check_parameters(globals())` right after the cell tagged `parameters`.

    Args:
        namespace: The notebook's globals. What is annotated there is a parameter; IPython keeps the source of
            executed cells in `In`, and the cell that papermill adds comes right before this one.

    Raises:
        SettingError: names each wrong parameter, its near match, and all parameters there are.
    """
    annotated = namespace.get("__annotations__", {})
    declared = {name: kind for name, kind in annotated.items() if name in namespace}
    injected = [cell for cell in namespace.get("In", [])[-2:-1] if cell.strip().startswith(INJECTED_FIRST_LINE + "\n")]
    names = [s.targets[0].id for cell in injected for s in ast.parse(cell).body if isinstance(s, ast.Assign)]
    problems = []
    for name in dict.fromkeys((*names, *declared)):
        value, expected = namespace[name], declared.get(name)
        if expected is None:
            near = difflib.get_close_matches(name, declared, n=1, cutoff=0.5)
            problems.append(f"there is no parameter '{name}'" + (f"; did you mean '{near[0]}'?" if near else "."))
        elif expected in CHECKED and not fits(value, expected):
            advice = f" (to pass it as text: -r {name} {value})" if expected is str else ""
            problems.append(f"parameter '{name}' must be {expected.__name__}, not {value!r}{advice}.")
    if problems:
        raise SettingError(" ".join(problems), remedy=f"Parameters of this notebook: {', '.join(declared)}.")
    return {name: namespace[name] for name in declared}
