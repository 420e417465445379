"""The commands that the pages show: which there are, what is wrong with one, and which are run, and how."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jupytext
from tracked import ROOT, tracked_files

from viptt_core.cli import build_parser, main
from viptt_core.presets import preset_names

PAGES = sorted(
    [
        *tracked_files("book/*.md"),
        *tracked_files("notebooks/*.py"),
        *tracked_files("data/README.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "MODEL_CARD.md", "CHANGELOG.md")),
    ]
)
FENCE = r"^( *)```(?:\{code-block\} )?(\w*) *\n(.*?)^\1``` *$"
SHELL = ("bash", "sh", "shell", "console")  # every line is a command
PLAIN = ("", "text")  # lines that begin as a command does are
PROGRAMS = ("viptt", "papermill", "jupyter-book", "make", "pip", "python", "python3")
PROGRAMS += ("conda", "docker", "ruff", "pytest", "git")
OTHER_PROGRAMS = ("cd", "source", "touch", "dcm2niix")  # and nothing is known of their arguments

# --- How each command is run -------------------------------------------------------------------
# Keys are how a command begins; the longest one that fits decides.
ONE_EPOCH = "-p preset study -p epochs 1 -p device cpu"
BOTH_STAGES = f"{ONE_EPOCH} -p pretrain_epochs 1"

# Run, with these options in place of the page's, or added.
REDUCED = {
    "viptt phantom": "-n 3 --size 24 --slices 12 --jobs 1",
    "viptt phantom data/clinic": "-n 3 --patients 3 --size 24 --slices 12 --jobs 1",
    "viptt phantom data/own": "-n 70 --size 24 --slices 12 --jobs 1",  # of 60 patients: five of the rarest class
    "viptt phantom data/new": "-n 6 --patients 5 --size 24 --slices 12 --jobs 1",
    "viptt actions": "--groups 1 --clips 1 --jobs 1",
    "viptt data list": "",
    "viptt data check": "--preset study --jobs 1",
    "viptt data check lidc": "--preset study --jobs 1 --centre 12",
    "viptt weights list": "",
    "viptt weights get FILE.h5": "",
    "viptt predict": "--device cpu --jobs 1",
    "viptt submit": "--device cpu --jobs 1",
    "viptt score": "",
    "viptt summary": "",
    "papermill notebooks/00_data.py": "-p preset study",
    "papermill notebooks/01_pretrain.py": ONE_EPOCH,
    "papermill notebooks/02_finetune.py": BOTH_STAGES,
    "papermill notebooks/02_finetune.py out.ipynb -p dataset folder": f"{BOTH_STAGES} -p n_videos 50",
    "papermill notebooks/02_finetune.py --help-notebook": "",
}


def _key(words) -> str:
    """The longest key of REDUCED that a command begins with; "" if there is none."""
    return max((key for key in REDUCED if list(words)[: len(key.split())] == key.split()), key=len, default="")


def is_run(words) -> bool:
    """Whether a command is one to run, at reduced parameters."""
    return _key(words) != ""


def reduced(words) -> list[str]:
    """A command with its options of REDUCED in place of the page's own."""
    options, words = shlex.split(REDUCED.get(_key(words), "")), list(words)
    length = 3 if options[:1] == ["-p"] else 2  # -p NAME VALUE
    for option in (options[i : i + length] for i in range(0, len(options), length)):
        for i in range(len(words) - length + 1):
            if words[i : i + length - 1] == option[:-1]:
                words[i : i + length] = option
                break
        else:
            words += option
    return words


def run(words) -> tuple[int, str]:
    """Run a `viptt` or papermill command where it stands: (exit code, what it printed)."""
    if words[0] == "papermill":
        if "--help-notebook" not in words:
            words = [*words, "--no-progress-bar"]
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr[-3000:]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(words[1:])
    return code, printed.getvalue()


# --- Which there are ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A command on a page. `words` as the shell would split them; `within` a line of text, or a block of its own."""

    page: str
    words: tuple[str, ...]
    within: bool

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def page_text(path: Path) -> str:
    """Markdown of a page; of a notebook that of its text cells."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in jupytext.read(path).cells if cell.cell_type == "markdown")


def blocks(text: str, *languages: str) -> list[str]:
    """Fenced blocks in these languages, without their fences and indentation."""
    return [
        textwrap.dedent(block)
        for _, language, block in re.findall(FENCE, text, flags=re.M | re.S)
        if language in languages
    ]


def lines(block: str) -> list[list[str]]:
    """The words of each command of a block, in order; comments, prompts, line breaks and variables set taken out."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(re.sub(r"^\s*[$] ", "", line), comments=True)
        while "&&" in words:
            found.append(words[: words.index("&&")])
            words = words[words.index("&&") + 1 :]
        found.append(words)
    found = [[word for i, word in enumerate(words) if i or not re.fullmatch(r"[A-Z_]+=\S*", word)] for words in found]
    return [words for words in found if words]


def block_commands(text: str) -> list[list[str]]:
    """The words of each command of the blocks of a page, in their order."""
    found = []
    for _, language, block in re.findall(FENCE, text, flags=re.M | re.S):
        if language in SHELL:
            found += lines(textwrap.dedent(block))
        elif language in PLAIN:
            first = re.compile(rf"[$ ]*({'|'.join(PROGRAMS)}) [\w.-]")
            joined = textwrap.dedent(block).replace("\\\n", " ").splitlines()
            found += [words for line in joined if first.match(line) for words in lines(line)]
    return found


def inline_code(text: str) -> list[str]:
    """Code within lines, its own line breaks taken out."""
    text = re.sub(FENCE, "", text, flags=re.M | re.S)
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)", text)]


def commands_of(path: Path) -> list[Shown]:
    """All commands of a page: those of its blocks, then those within its lines."""
    page, text = path.relative_to(ROOT).as_posix(), page_text(path)
    within = [words for code in inline_code(text) if code.split()[0] in PROGRAMS for words in lines(code)]
    return [
        *(Shown(page, tuple(words), False) for words in block_commands(text)),
        *(Shown(page, tuple(words), True) for words in within),
    ]


@cache
def all_commands() -> tuple[Shown, ...]:
    """All commands of all pages."""
    return tuple(shown for path in PAGES if path.is_file() for shown in commands_of(path))


# --- What is wrong with one -----------------------------------------------------------------------


def fault(words, *, within: bool = False) -> str:
    """What is wrong with a command; "" if nothing is. One within a line may only name a program or a subcommand."""
    words = [word for word in words if word != "..."]
    checks = {"viptt": _viptt, "papermill": _papermill, "make": _make, "docker": lambda *_: ""}
    checks |= dict.fromkeys(("python", "python3"), _python)
    program = Path(words[0]).name
    if program not in PROGRAMS or len(words) == 1:
        return "" if within or program in (*PROGRAMS, *OTHER_PROGRAMS) else "no such program is known"
    return checks.get(program, _paths)(words[1:], within)


def parameters_of(notebook: str) -> set[str]:
    """Names in the parameters cell of notebooks/NAME.py."""
    cells = jupytext.read(ROOT / "notebooks" / f"{notebook}.py").cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    return set(re.findall(r"^(\w+):", source, flags=re.M))


def parameters_fault(words, known) -> str:
    """What is wrong with `-p NAME VALUE` and `-r NAME VALUE` among words."""
    for i, word in enumerate(words):
        if word in ("-p", "-r"):
            name, value = [*words[i + 1 : i + 3], "", ""][:2]
            if name not in known:
                return f"there is no parameter '{name}'"
            if not value or value.startswith("-"):
                return f"parameter '{name}' has no value"
            if name == "preset" and value not in preset_names() and ".toml" not in value:
                return f"there is no preset '{value}'"
    return ""


def _viptt(words, within) -> str:
    parser, rest = build_parser(), list(words)
    while rest and (below := _subcommands(parser)):
        if rest[0].startswith("-"):
            break
        if rest[0].isupper():  # `viptt COMMAND --help`
            return ""
        if rest[0] not in below:
            return f"there is no command '{rest[0]}'"
        parser = below[rest.pop(0)]
    if within and all(word.startswith("-") for word in rest):
        return " ".join(f"there is no option '{word}'" for word in rest if word not in parser._option_string_actions)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            build_parser().parse_args(words)
    except SystemExit as stopped:
        return "" if not stopped.code else said.getvalue().strip().splitlines()[-1]
    return ""


def _subcommands(parser) -> dict:
    return next((action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)), {})


def _papermill(words, within) -> str:
    path = ROOT / words[0]
    if not path.is_file() or path.parent.name != "notebooks":
        return f"there is no notebook {words[0]}"
    if words[1:] == ["--help-notebook"]:
        return ""
    if not words[1:2] or not words[1].endswith(".ipynb"):
        return "no .ipynb to write"
    known = {"-p": 3, "-r": 3, "--no-progress-bar": 1, "--cwd": 2}
    rest = words[2:]
    while rest:
        if rest[0] not in known:
            return f"'{rest[0]}' is no option of papermill used here"
        rest = rest[known[rest[0]] :]
    return parameters_fault(words, parameters_of(path.stem))


def _make(words, within) -> str:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", text, flags=re.M)
    for word in words:
        name, is_set, _ = word.partition("=")
        if is_set and not re.search(rf"\$\({name}\)|^ifdef {name}$", text, flags=re.M):
            return f"the Makefile uses no variable '{name}'"
        if not is_set and word not in targets:
            return f"the Makefile has no target '{word}'"
    return ""


def _python(words, within) -> str:
    if "-m" not in words:
        return _paths(words[:1], within)
    module, *rest = words[words.index("-m") + 1 :]
    if module == "viptt_core":
        return _viptt(rest, within)
    ours = ROOT.joinpath(*module.split("."))
    known = ours.is_dir() or ours.with_suffix(".py").is_file() or importlib.util.find_spec(module.partition(".")[0])
    return "" if known else f"there is no module {module}"


def _paths(words, within) -> str:
    """Files of the repository among the words: they look like paths, and must exist."""
    named = [word for word in words if re.fullmatch(r"[\w.-]+(/[\w.-]+)+|\w+\.(py|toml|yml|md|txt)", word)]
    missing = [word for word in named if not (ROOT / word).exists()]
    return f"not here: {', '.join(missing)}" if missing else ""
