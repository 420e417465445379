"""The `viptt` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from functools import partial

from viptt_core import __version__
from viptt_core.cli.command import Parser, add_command, path, print_table
from viptt_core.cli.data import add_data_commands
from viptt_core.cli.predict import add_predict_commands
from viptt_core.cli.study import add_study_commands
from viptt_core.errors import ViPTTError

GROUPS = ("data", "weights", "study")  # commands that have commands of their own


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors a user can mend are one message, not a traceback."""
    options = build_parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()  # here, where a closed pipe can be dealt with
    except ViPTTError as error:
        print(f"viptt: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("viptt: interrupted; what was complete is kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its end
        return 0
    return code or 0


def build_parser(part: str = "") -> argparse.ArgumentParser:
    """The parser of every command, help included; or of a part of them: one of GROUPS, or "others" but those."""
    parser = Parser(
        prog="viptt",
        description="ViPTT-Net: video pretraining for tuberculosis typing on chest CT. Research use only.",
        epilog="Experiments run as notebooks: papermill notebooks/02_finetune.py out.ipynb -p epochs 50",
    )
    parser.add_argument("--version", action="version", version=f"viptt {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_data_commands(commands)
    add_predict_commands(commands)
    add_study_commands(commands)

    presets = add_command(commands, _presets)
    presets.add_argument("name", nargs="?", help="preset to show, or a TOML file of your own")
    summary = add_command(commands, _summary)
    summary.add_argument("notebook", type=path, help="for example out.ipynb")
    publish = add_command(commands, _publish, "viptt publish 02_finetune")
    publish.add_argument("names", nargs="*", metavar="NAME", help="such as 02_finetune (default: all)")
    publish.add_argument("--stale", action="store_true", help="only those whose source or package has changed")
    publish.add_argument("--check", action="store_true", help="execute nothing, and fail if one has changed")
    add_command(commands, _env)

    if part == "others":
        for group in GROUPS:
            del commands.choices[group]
        return parser
    return commands.choices[part] if part else parser


# The reference in the book takes functions without arguments, and shows no command of a command.
others_parser, data_parser, weights_parser, study_parser = (partial(build_parser, part) for part in ("others", *GROUPS))


def _presets(options) -> None:
    """List the presets, or show all settings of one."""
    from viptt_core.presets import load_preset, preset_names

    if options.name:
        print(json.dumps(asdict(load_preset(options.name)), indent=1))
    else:
        print_table((name, load_preset(name).about) for name in preset_names())


def _summary(options) -> None:
    """Print the result table of an executed notebook."""
    from viptt_core.book.publish import recorded_summaries

    print("\n\n".join(summary["text"] for summary in recorded_summaries(options.notebook)))


def _publish(options) -> None:
    """Execute notebooks and write them into the book, with the pictures and tables of its other pages."""
    from viptt_core.book.artwork import write_artwork
    from viptt_core.book.publish import PUBLISHED, publish, what_changed
    from viptt_core.errors import DataError, check_choice
    from viptt_core.files import artifact_root

    for name in options.names:
        check_choice("notebook", name, PUBLISHED)
    names = options.names or PUBLISHED
    if options.check or options.stale:
        changes = {name: " and ".join(what_changed(name)) for name in names}
        print_table((name, f"stale: {changed} changed" if changed else "fresh") for name, changed in changes.items())
        names = [name for name in names if changes[name]]
    if options.check and names:
        remedy = f"Run: viptt publish {' '.join(names)}"
        raise DataError(f"{', '.join(names)} must be executed again.", remedy=remedy)
    if not options.check:
        for name in names:
            print(publish(name), flush=True)
        write_artwork(artifact_root())


def _env(options) -> None:
    """Print versions, machine and commit, for a bug report."""
    from viptt_core.files import provenance

    print(json.dumps(provenance(), indent=1))
