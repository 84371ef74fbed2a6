"""`guerrillad schema`: the table that the SQL stage makes, as SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guerrilla.commands.common import add_command, table_name
from guerrilla.processors.sql import SQL
from guerrilla.store.drivers import DRIVERS

if TYPE_CHECKING:
    import argparse

    from guerrilla.commands.common import Subparsers

_MORE: Final = """\
The SQL stage makes the table itself where its user may; elsewhere make it with this:

    guerrillad schema --driver mysql | mariadb mail
    guerrillad schema --driver postgresql | psql mail
"""


def add(commands: Subparsers) -> None:
    """Adds the command."""
    parser = add_command(
        commands, "schema", run, help_="print the table of the SQL stage", more=_MORE
    )
    parser.add_argument(
        "--driver",
        required=True,
        type=str.lower,
        choices=list(DRIVERS),
        metavar="DRIVER",
        help=f"the database, as in sql_driver: {', '.join(DRIVERS)}",
    )
    parser.add_argument(
        "--table",
        metavar="NAME",
        type=table_name,
        default=SQL.Options().mail_table,
        help="its name, as in mail_table (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Prints it."""
    print(DRIVERS[args.driver].dialect().create_table(args.table) + ";")
    return 0
