"""What the private database servers have in common: who logs in, and a database for a test."""

from __future__ import annotations

import itertools
from typing import Any, Protocol

USER = "mail"
PASSWORD = "p@ss:w/o'rd\\?#%(é)"
"""With all that means something somewhere in a DSN."""

_NUMBERS = itertools.count(1)


class SQLServer(Protocol):
    """A server that a store can be tested with."""

    driver: str
    """Its `sql_driver`."""

    def dsn(self, database: str, **parameters: str) -> str:
        """The `sql_dsn` of a database, for `USER`."""

    def fresh(self) -> Place:
        """A database that nobody has."""

    def query(self, statement: str, *values: object, database: str) -> list[dict[str, Any]]:
        """Every row, by who may do anything."""

    def start(self) -> None:
        """See `Service`."""

    def stop(self) -> None:
        """See `Service`."""

    def kill(self) -> None:
        """See `Service`."""

    def pause(self) -> None:
        """See `Service`."""

    def resume(self) -> None:
        """See `Service`."""


class Place:
    """A database on a server: for one test."""

    def __init__(self, server: SQLServer) -> None:
        """Takes a name that is free; the server makes the database."""
        self.server = server
        self.driver = server.driver
        self.database = f"mail{next(_NUMBERS)}"

    def dsn(self, **parameters: str) -> str:
        """The `sql_dsn`."""
        return self.server.dsn(self.database, **parameters)

    def query(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Every row, by who may do anything."""
        return self.server.query(statement, *values, database=self.database)

    def rows(self, table: str = "new_mail") -> list[dict[str, Any]]:
        """What is stored, oldest first; bytes as bytes."""
        found = self.query(f"SELECT * FROM {table} ORDER BY mail_id")
        return [{name: _plain(value) for name, value in row.items()} for row in found]

    def count(self, table: str = "new_mail") -> int:
        """How many rows are stored."""
        return int(self.query(f"SELECT count(*) AS n FROM {table}")[0]["n"])


def _plain(value: object) -> object:
    return bytes(value) if isinstance(value, memoryview | bytearray) else value
