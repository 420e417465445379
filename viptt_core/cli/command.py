"""How commands of `viptt` are added, and what a mistyped one is told."""

from __future__ import annotations

import argparse
import difflib
import re
from pathlib import Path


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistyped option or command with its own usage and the near match."""

    def parse_known_args(self, args=None, namespace=None):
        """As argparse does, but what is unknown is an error of the command it was given to."""
        if self._subparsers is None:
            for word in args or []:
                if word == "--":
                    break
                name, known = word.partition("=")[0], list(self._option_string_actions)
                if word.startswith("--") and not any(option.startswith(name) for option in known):
                    self.error(f"there is no option {name}{_hint(name, known)}")
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"too many arguments: {' '.join(unknown)}")
        return options, unknown

    def add_argument(self, *names, **settings):
        """As of argparse, with the default written out: the reference in the book shows the text as it stands."""
        settings["help"] = settings.get("help", "").replace("%(default)s", str(settings.get("default")))
        return super().add_argument(*names, **settings)

    def _check_value(self, action, value):
        known = [str(choice) for choice in action.choices or []]
        if known and value not in action.choices:
            message = f"'{value}' is none of {', '.join(known)}{_hint(str(value), known)}"
            raise argparse.ArgumentError(action, message)


def _hint(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def add_command(commands, name: str, run, text: str, example: str = "") -> argparse.ArgumentParser:
    """Add a command to subparsers; `run` takes the options, `text` says what it does, `example` how it is typed."""
    epilog = f"Example: {example}" if example else None
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog)
    parser.set_defaults(run=run)
    parser._negative_number_matcher = re.compile("-[0-9]")  # -1000,400 is a value, no option
    return parser


def add_group(commands, name: str, text: str):
    """Add a command that has commands of its own; gives their subparsers."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    return parser.add_subparsers(title="commands", required=True, metavar="COMMAND")


def path(text: str) -> Path:
    """An argument that is a path; a shell leaves the ~ of --root=~/x as it is."""
    return Path(text).expanduser()


def positive(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)
