"""`guerrillad schema`: the table that the SQL stage makes, as SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guerrilla.commands.common import CommandError, add_command
from guerrilla.processors.sql import SQL
from guerrilla.store.drivers import DRIVERS
from guerrilla.store.schema import check_table_name

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
        default=SQL.Options().mail_table,
        help="its name, as in mail_table (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Prints it.

    Raises:
        CommandError: the name cannot be one of a table.
    """
    try:
        table = check_table_name(args.table)
    except ValueError as error:
        raise CommandError(f"--table: {error}") from error
    print(DRIVERS[args.driver].dialect().create_table(table) + ";")
    return 0
