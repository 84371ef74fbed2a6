"""`guerrillad config`: a sample with every key, the JSON Schema, what a running daemon has."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Final

from guerrilla.commands.common import add_command
from guerrilla.commands.control import add_socket, asked
from guerrilla.config.writing import toml

if TYPE_CHECKING:
    from guerrilla.commands.common import Subparsers

_MORE: Final = """\
The sample is the config that runs without a file: guerrillad config --sample > guerrilla.toml
'guerrillad check' shows the effective config of a file.
"""


def add(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "config",
        run,
        help_="write a sample config, its schema, or the one in use",
        more=_MORE,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--sample", action="store_true", help="TOML with every key, its default and its meaning"
    )
    what.add_argument(
        "--running", action="store_true", help="what a running daemon has now, secrets as ***"
    )
    what.add_argument("--schema", action="store_true", help="JSON Schema, for editors and checks")
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Prints it.

    Raises:
        ControlError: no daemon answers.
    """
    if not args.running and (args.socket is not None or args.config is not None):
        args.parser.error("-c and --socket go with --running")
    # Each is needed here alone, and imports every processor.
    if args.running:
        print(toml(asked(args, "config")), end="")
    elif args.sample:
        from guerrilla.reference.sample import sample  # noqa: PLC0415

        print(sample(), end="")
    else:
        from guerrilla.reference.schema import schema  # noqa: PLC0415

        print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0
