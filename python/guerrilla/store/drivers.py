"""The databases by the names of `sql_driver`, each behind the package it needs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, NamedTuple

from guerrilla.store.dialects import Dialect, MySQLDialect, PostgreSQLDialect, SQLiteDialect
from guerrilla.store.schema import StoreError

if TYPE_CHECKING:
    from guerrilla.store import Store
    from guerrilla.store.statement import Target

__all__ = ["DRIVERS", "Driver", "connect", "find"]


class Driver(NamedTuple):
    """A database that mails can be stored in."""

    module: str
    """Has `connect(dsn, target, lifetime)`."""
    dialect: type[Dialect]
    package: str
    """The Python package it needs."""
    extra: str
    """What installs it; empty for what guerrilla always brings."""


_MYSQL: Final = Driver("guerrilla.store.mysql", MySQLDialect, "PyMySQL", "mysql")
_POSTGRESQL: Final = Driver(
    "guerrilla.store.postgresql", PostgreSQLDialect, "psycopg", "postgresql"
)
_SQLITE: Final = Driver("guerrilla.store.sqlite", SQLiteDialect, "apsw", "")

DRIVERS: Final = {
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "postgres": _POSTGRESQL,
    "postgresql": _POSTGRESQL,
    "pgx": _POSTGRESQL,
    "sqlite": _SQLITE,
    "sqlite3": _SQLITE,
}
"""By their names: Go's, and those of the databases."""


def find(name: str) -> Driver:
    """The driver of a name in any case.

    Raises:
        StoreError: there is none; its `key` is `sql_driver`.
    """
    driver = DRIVERS.get(name.strip().lower())
    if driver is None:
        known = ", ".join(DRIVERS)
        raise StoreError(f"expected one of {known}, got {name!r}", key="sql_driver")
    return driver


def connect(name: str, dsn: str, target: Target, lifetime: float = 0.0) -> Store:
    """Opens a database, checks the table, and makes it if it is missing.

    Any list of `schema.FIELDS` can be the columns of `target`, so that a processor with a table of
    its own uses the same rows: `insert(rows_of(envelope, host))`.

    Args:
        name: a `sql_driver`.
        dsn: a `sql_dsn` as that driver has it.
        target: the table, and what is inserted there.
        lifetime: `sql_max_conn_lifetime` in seconds; 0 for no limit.

    Raises:
        StoreError: it cannot be used; the message says why, and `key` which key to look at.
    """
    driver = find(name)
    try:
        module = importlib.import_module(driver.module)
    except ImportError as error:
        what = f"pip install 'guerrilla[{driver.extra}]'" if driver.extra else "install it"
        raise StoreError(
            f"{name!r} needs the Python package {driver.package} ({error}): {what}",
            key="sql_driver",
        ) from error
    store: Store = module.connect(dsn, target, lifetime)
    return store
