"""How commands of `viptt` are added, what a mistyped one is told, and how a table is printed."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


class Parser(argparse.ArgumentParser):
    """A parser that answers what it does not know with the usage of its own command and the near match."""

    def parse_known_args(self, args=None, namespace=None):
        """As argparse does, but names may stand behind options, and what is unknown is an error of its command."""
        options, unknown = super().parse_known_args(args, namespace)
        if names := [action.dest for action in self._get_positional_actions() if action.nargs == "*"]:
            setattr(options, names[0], getattr(options, names[0]) + [word for word in unknown if word[0] != "-"])
            unknown = [word for word in unknown if word[0] == "-"]
        if unknown:
            near = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            self.error(f"not known here: {' '.join(unknown)}{hint}")
        return options, unknown

    def add_argument(self, *names, **settings):
        """As of argparse, with the default in the help: the reference in the book shows the text as it stands."""
        if "action" not in settings and settings.get("default") not in (None, ""):
            settings["help"] += f" (default: {settings['default']})"
        return super().add_argument(*names, **settings)


def add_command(commands, run: Callable, example: str = "") -> Parser:
    """Add a command to subparsers: a function that takes the options, gives it its name and says what it does."""
    name, text = run.__name__.strip("_").replace("_", "-"), " ".join(run.__doc__.split())
    epilog = f"Example: {example}" if example else None
    parser = commands.add_parser(name, help=text[0].lower() + text[1:-1], description=text, epilog=epilog)
    parser.set_defaults(run=run)
    return parser


def add_group(commands, name: str, text: str):
    """Add a command that has commands of its own; gives their subparsers."""
    parser = commands.add_parser(name, help=text[0].lower() + text[1:-1], description=text)
    return parser.add_subparsers(title="commands", required=True, metavar="COMMAND")


def path(text: str) -> Path:
    """An argument that is a path; a shell leaves the ~ of --root=~/x as it is."""
    return Path(text).expanduser()


def positive(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def print_table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows of cells, each column as wide as its longest cell."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
