"""PostgreSQL, by psycopg 3: a batch is one INSERT of many rows, its messages sent as they are."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import psycopg

from guerrilla.errors import Unavailable
from guerrilla.store.fitting import fitted
from guerrilla.store.postgresqldsn import PostgreSQLAddress, parse_postgresql
from guerrilla.store.postgresqltable import at_start, described, plan
from guerrilla.store.schema import RowTooLargeError, StoreFullError
from guerrilla.store.server import STATEMENT_BYTES, Link, ServerStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg.abc import PQGen

    from guerrilla.store.rows import Row, Value
    from guerrilla.store.statement import Statement, Target

LONGEST: Final = (1 << 30) - (1 << 20)
"""Bytes of a message: a value and a packet of PostgreSQL have less than a GiB."""

_ROW_CLASSES: Final = ("22", "23", "54")
"""SQLSTATE: data, integrity, limits of the program. Anything else is no fault of a row."""
_DISK_FULL: Final = "53100"


def connect(dsn: str, target: Target, lifetime: float = 0.0) -> ServerStore:
    """Opens the database of a `sql_dsn` and makes the table if it is missing.

    Raises:
        StoreError: the server, database or table cannot be used; the message says why.
    """
    address = parse_postgresql(dsn)
    name = f"PostgreSQL {address.name}"
    store = ServerStore(name, lambda: PostgreSQLLink(_log_in(address), address, target), lifetime)
    store.open()
    return store


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose server cannot hold a worker for ever."""

    answer_limit: float = 0.0

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's, but each command has a time limit."""
        return super().wait(gen, interval, self.answer_limit if timeout is None else timeout)


def _log_in(address: PostgreSQLAddress) -> _Connection:
    """A connection on which every statement is a transaction of its own."""
    try:
        # Commands without a limit would be those of the login, which has its own.
        found = _Connection.connect(**address.parameters, autocommit=True)
    except (psycopg.Error, OSError) as error:
        raise at_start(error, address) from error
    found.answer_limit = address.read
    return found


class PostgreSQLLink(Link):
    """A connection, and the statement for its table."""

    def __init__(self, connection: _Connection, address: PostgreSQLAddress, target: Target) -> None:
        """Checks the table, and makes it if it is missing; closes the connection on an error."""
        self._connection = connection
        self._name = f"PostgreSQL {address.name}"
        try:
            self._plan = plan(connection, address, target)
        except BaseException as error:
            self.close()
            if isinstance(error, psycopg.Error):
                raise at_start(error, address) from error
            raise
        self._pick = self._plan.statement.picker()

    def write(self, rows: Sequence[Row]) -> None:
        """See `Link`."""
        batches = self._batches(rows)
        try:
            first = next(batches)
            second = next(batches, None)
            if second is None:
                self._insert(first)
            else:
                with self._connection.transaction():
                    self._insert(first)
                    self._insert(second)
                    # No longer needed, and as long as a statement may be.
                    del first, second
                    for batch in batches:
                        self._insert(batch)
        except psycopg.Error as error:
            translated = self._translated(error)
            if isinstance(translated, Unavailable):
                self.close()
            raise translated from error

    def socket(self) -> int:
        """See `Link`."""
        return -1 if self._connection.closed else self._connection.fileno()

    def close(self) -> None:
        """See `Link`."""
        with contextlib.suppress(psycopg.Error, OSError):
            self._connection.close()

    def _insert(self, batch: list[Sequence[Value]]) -> None:
        statement = _text(self._plan.statement, self._plan.is_bytes, len(batch))
        values = [value for row in batch for value in row]
        # Its names were checked or are ours, or the config wrote it.
        self._connection.execute(statement, values)

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[Sequence[Value]]]:
        """The values of as many rows as a statement takes, again and again."""
        batch: list[Sequence[Value]] = []
        size = 0
        most = _PARAMETERS // max(1, len(self._plan.statement.columns))
        for row in rows:
            values = self._values(row)
            length = sum(len(value) for value in values if isinstance(value, bytes))
            if length > LONGEST:
                raise RowTooLargeError(
                    f"{self._name}: a mail has {length} bytes, and no value more than {LONGEST}"
                )
            if batch and (size + length > STATEMENT_BYTES or len(batch) >= most):
                yield batch
                batch = []
                size = 0
            batch.append(values)
            size += length
        yield batch

    def _values(self, row: Row) -> Sequence[Value]:
        """Numbers as text too: the server makes of it what the column is."""
        values = fitted(self._pick(row.values()), self._plan.fits)
        return [str(value) if isinstance(value, int) else value for value in values]

    def _translated(self, error: psycopg.Error) -> Exception:
        code = error.sqlstate or ""
        if code == _DISK_FULL:
            return StoreFullError(f"{self._name}: no room left ({described(error)})")
        # Without a code it is of psycopg, before anything was sent.
        if code.startswith(_ROW_CLASSES) or (not code and isinstance(error, psycopg.DataError)):
            return error
        return Unavailable(f"{self._name}: {described(error)}")


_PARAMETERS: Final = 65_535
"""Of one statement, at most: they are counted with 16 bits."""


@lru_cache(maxsize=256)
def _text(statement: Statement, is_bytes: tuple[bool, ...], rows: int) -> bytes:
    """The INSERT of so many rows, as psycopg reads it; bytes go in binary."""
    marks = ["%b" if binary else "%s" for binary in is_bytes]
    head, tail = (text.replace("%", "%%") for text in (statement.head, statement.tail))
    escaped = tuple(literal.replace("%", "%%") for literal in statement.literals)
    row = "".join(literal + mark for literal, mark in zip(escaped, (*marks, ""), strict=True))
    return (head + ", ".join([row] * rows) + tail).encode()
