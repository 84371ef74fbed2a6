"""`guerrillad config`: a sample with every key, and the JSON Schema."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Final

from guerrilla.commands.common import add_command

if TYPE_CHECKING:
    from guerrilla.commands.common import Subparsers

_MORE: Final = """\
The sample is the config that runs without a file: guerrillad config --sample > guerrilla.toml
'guerrillad check' shows the effective config of a file.
"""


def add(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "config", run, help_="write a sample config, or the schema of one", more=_MORE
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--sample", action="store_true", help="TOML with every key, its default and its meaning"
    )
    what.add_argument("--schema", action="store_true", help="JSON Schema, for editors and checks")


def run(args: argparse.Namespace) -> int:
    """Prints it."""
    # Each is needed here alone, and imports every processor.
    if args.sample:
        from guerrilla.reference.sample import sample  # noqa: PLC0415

        print(sample(), end="")
    else:
        from guerrilla.reference.schema import schema  # noqa: PLC0415

        print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0
