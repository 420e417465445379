"""One command of `viptt`, as its parts add it."""

from __future__ import annotations

import argparse


def add_command(commands, name: str, run, text: str, example: str = "") -> argparse.ArgumentParser:
    """Add a command to subparsers; `run` takes the options, `text` says what it does, `example` how it is typed."""
    parser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"Example: {example}" if example else None
    )
    parser.set_defaults(run=run)
    return parser
