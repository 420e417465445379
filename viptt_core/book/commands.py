"""The directive `command-help`: what `viptt ... --help` prints, a section a command."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from unittest import mock

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

COLUMNS = 92  # of the help; a page has room for them


def add_to(app) -> None:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)


class CommandHelp(SphinxDirective):
    """Every command in the order of `viptt --help`."""

    def run(self) -> list[nodes.Node]:
        from viptt_core.cli import build_parser

        sections = []
        with mock.patch.dict("os.environ", COLUMNS=str(COLUMNS)):  # argparse wraps to the terminal
            for parser in each_command(build_parser()):
                section = nodes.section(ids=[nodes.make_id(parser.prog)])
                section += nodes.title("", parser.prog)
                section += nodes.literal_block("", parser.format_help(), language="text")
                sections.append(section)
        return sections


def each_command(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of commands that do something, those of groups of commands opened."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for command in group.choices.values():
            yield from each_command(command)
