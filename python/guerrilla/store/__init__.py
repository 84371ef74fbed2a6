"""The SQL store: one row a recipient, the same columns in every database.

Layout:
    schema.py   the columns, and what a database's SQL must say (`Dialect`)
    rows.py     an envelope becomes rows
    sqlite.py   SQLite: one shared writer a database file, group commit
    database.py the connection to an SQLite file: opening, tables, one write, errors
    files.py    its files: made, moved, replaced, and a log that lost its database
    reader.py   reading and trimming for the commands
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from guerrilla.store.rows import Row, rows_of
from guerrilla.store.schema import StoreError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Row", "Store", "StoreError", "StoreFullError", "rows_of"]


class Store(Protocol):
    """A table that rows are inserted into; a driver makes one, each worker has its own."""

    def insert(self, rows: Sequence[Row]) -> None:
        """Stores all rows durably, or none; a row that is stored already is passed over.

        Raises:
            StoreFullError: there is no room; nothing was stored.
            guerrilla.errors.Unavailable: the database cannot be written now; nothing is known
                to be stored.
            Exception: a row's own fault; nothing was stored.
        """

    def close(self) -> None:
        """Gives back what it holds. Idempotent."""
