"""The SQL store: one row a recipient, the same columns in every database.

Layout:
    schema.py     the columns, and the errors of a store
    dialects.py   what each database's SQL says about them
    rows.py       an envelope becomes rows
    statement.py  the INSERT: our own, or one that a config writes
    drivers.py    the databases by their names; `connect`
    sqlite.py     SQLite: one shared writer a database file, group commit
    database.py   the connection to an SQLite file: opening, tables, one write, errors
    files.py      its files: made, moved, replaced, and a log that lost its database
    reader.py     reading and trimming for the commands
    server.py     what the stores on a server share: one kept connection a worker
    fitting.py    how rows fit a table that was there before
    dsn.py        where a MySQL server is; tls.py: TLS to it
    mysql.py      MySQL and MariaDB; mysqltable.py: the table there; mysqlerrors.py: its errors
    postgresql.py PostgreSQL; postgresqltable.py: the table there

A processor with a table of its own opens it by `drivers.connect` with a `Target` that names its
columns, any of `schema.FIELDS`, and inserts the rows of `rows_of`: they have a value for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from guerrilla.store.rows import Row, rows_of
from guerrilla.store.schema import RowTooLargeError, StoreError, StoreFullError
from guerrilla.store.statement import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Row",
    "RowTooLargeError",
    "Store",
    "StoreError",
    "StoreFullError",
    "Target",
    "rows_of",
]


class Store(Protocol):
    """A table that rows are inserted into; a driver makes one, each worker has its own."""

    def insert(self, rows: Sequence[Row]) -> None:
        """Stores all rows durably, or none; a row that is stored already is passed over.

        Raises:
            StoreFullError: there is no room; nothing was stored.
            RowTooLargeError: a row is larger than the database ever takes; nothing was stored.
            guerrilla.errors.Unavailable: the database cannot be written now; nothing is known
                to be stored.
            Exception: a row's own fault; nothing was stored.
        """

    def close(self) -> None:
        """Gives back what it holds. Idempotent."""
