"""The table in PostgreSQL: made if it is missing, and looked at before it is used."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

from guerrilla.store.dialects import PostgreSQLDialect
from guerrilla.store.fitting import Column, Fitting, fit, require_key_length
from guerrilla.store.schema import KEY, StoreAwayError, StoreError
from guerrilla.store.statement import Statement, Target, own_statement, written_statement

if TYPE_CHECKING:
    from collections.abc import Callable

    from guerrilla.store.postgresqldsn import PostgreSQLAddress
    from guerrilla.store.rows import Value

    Connection = psycopg.Connection[tuple[Any, ...]]

_log = logging.getLogger("guerrilla.store")

_COLUMNS: Final = """
    SELECT a.attname, t.typname, CASE WHEN a.atttypmod > 4 THEN a.atttypmod - 4 END,
        NOT a.attnotnull OR a.atthasdef OR a.attidentity <> ''
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = to_regclass(quote_ident(%s)) AND a.attnum > 0 AND NOT a.attisdropped
"""
_KEYS: Final = """
    SELECT x.indexrelid::bigint, a.attname, t.typname, coalesce(c.collisdeterministic, true)
    FROM pg_index x
    CROSS JOIN LATERAL unnest(x.indkey::int2[], x.indcollation::oid[])
        WITH ORDINALITY AS k (attnum, sorted_by, place)
    JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_collation c ON c.oid = k.sorted_by
    WHERE x.indrelid = to_regclass(quote_ident(%s)) AND k.place <= x.indnkeyatts
        AND x.indisunique AND x.indisvalid AND x.indimmediate
        AND x.indpred IS NULL AND x.indexprs IS NULL
"""
_EXACT: Final = frozenset({"varchar", "text"})
"""Types that are equal only where every character is."""

_AT_START: Final = {
    "28P01": (" refuses the user or password", "", "sql_dsn"),
    "28000": (" refuses the user", "", "sql_dsn"),
    "3D000": ("", ": make it with CREATE DATABASE, or name another", "sql_dsn"),
    "42501": ("", ": GRANT the user SELECT and INSERT on the table", "mail_table"),
    "53300": (" takes no more connections", "", "sql_dsn"),
}
"""What is said before and after the server's own words, and the key to look at."""
_WRONG: Final = frozenset({"28P01", "28000", "3D000"})
"""Of those, what has the class of a server that is away."""
_REFUSED: Final = ("password authentication failed", "no password supplied")
"""How a login ends: libpq gives no code then."""


class Plan(NamedTuple):
    """How rows are inserted."""

    statement: Statement
    fits: tuple[tuple[int, Callable[[Value], Value]], ...]
    is_bytes: tuple[bool, ...]
    """Whether each value of a row is bytes."""


def plan(connection: Connection, address: PostgreSQLAddress, target: Target) -> Plan:
    """Looks at the server and the table, which it makes if it is missing.

    Raises:
        StoreError: the table cannot be used.
        psycopg.Error: the server did not answer as expected.
    """
    _look_at_server(connection, address)
    if not target.insert:
        _make(connection, address, target)
    if target.is_own:
        return _own(connection, address, target)
    statement = written_statement(PostgreSQLDialect(), target)
    is_bytes = tuple(name in {"mail", "ip_addr"} for name in statement.columns)
    _try_written(connection, address, target, statement)
    return Plan(statement, (), is_bytes)


def at_start(error: Exception, address: PostgreSQLAddress) -> StoreError:
    """An error of a start, with what to do about it."""
    text = described(error)
    code = getattr(error, "sqlstate", None)
    where = f"PostgreSQL {address.name}"
    if code is None and isinstance(error, psycopg.OperationalError):
        if any(words in text for words in _REFUSED):
            return StoreError(f"{where} refuses the user or password: {text}")
        if "does not exist" in text and "database" in text:
            return StoreError(f"{where}: {text}: make it with CREATE DATABASE, or name another")
        return StoreAwayError(f"{where} cannot be reached: {text}")
    before, after, key = _AT_START.get(str(code), ("", "", "sql_dsn"))
    # Of the same class are a server that is short of something or shut down, and lost connections.
    is_away = isinstance(error, psycopg.OperationalError) and code not in _WRONG
    kind = StoreAwayError if is_away else StoreError
    return kind(f"{where}{before}: {text}{after}", key=key)


def described(error: Exception) -> str:
    """One line of an error: the server's own words, without those of libpq around them."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return said or " ".join(str(error).split()) or type(error).__name__


def _rows(connection: Connection, statement: str, *values: object) -> list[tuple[Any, ...]]:
    # Its names were checked or are ours, or the config wrote it.
    cursor = connection.execute(statement.encode(), values or None)
    return cursor.fetchall() if cursor.description is not None else []


def _look_at_server(connection: Connection, address: PostgreSQLAddress) -> None:
    """Sets up the session; warns of a server whose commits do not outlive a crash."""
    _rows(connection, "SET TIME ZONE 'UTC'")
    # The server gives up a little before we do: else it would end as a lost connection.
    limit = max(1, int(address.read * 900))
    _rows(connection, f"SET statement_timeout = {limit}")
    wanted = (
        "SELECT current_setting('server_encoding'), current_setting('synchronous_commit'), "
        "current_setting('fsync')"
    )
    ((encoding, commit, sync),) = _rows(connection, wanted)
    if encoding not in {"UTF8", "SQL_ASCII"}:
        raise StoreError(
            f"PostgreSQL {address.name} keeps text as {encoding}, which cannot hold every "
            "character: make a database with ENCODING 'UTF8'"
        )
    if commit == "off":
        _rows(connection, "SET synchronous_commit = on")
    if sync == "off":
        _log.warning(
            "PostgreSQL %s: fsync is off: mails that were answered 250 are lost when its machine "
            "fails; set it to on",
            address.name,
        )


def _make(connection: Connection, address: PostgreSQLAddress, target: Target) -> None:
    """Makes the table where there is none; a user who may not make one needs none made."""
    if _columns(connection, target.table):
        return
    try:
        _rows(connection, PostgreSQLDialect().create_table(target.table, target.columns))
    except psycopg.Error as error:
        # IF NOT EXISTS is no help where another worker makes it at the same moment.
        if _columns(connection, target.table):
            return
        raise StoreError(
            f"PostgreSQL {address.name} has no table {target.table} that the user may use, and it "
            f"cannot be made ({described(error)}): GRANT the rights, or make it with what "
            "'guerrillad schema --driver postgresql' prints",
            key="mail_table",
        ) from error


def _columns(connection: Connection, table: str) -> dict[str, Column]:
    return {
        str(name): Column(
            str(kind), kind == "bytea", length if kind in {"varchar", "bpchar"} else None, optional
        )
        for name, kind, length, optional in _rows(connection, _COLUMNS, table)
    }


def _own(connection: Connection, address: PostgreSQLAddress, target: Target) -> Plan:
    where = f"{target.table} in PostgreSQL {address.name}"
    found = _columns(connection, target.table)
    fitting: Fitting = fit(found, target, where)
    keyed = set(KEY) <= set(fitting.columns) and _has_key(connection, target.table, where)
    if keyed:
        require_key_length(found, where)
    dialect = PostgreSQLDialect()
    _rows(connection, dialect.insert_nothing(target.table, fitting.columns))
    statement = own_statement(dialect, target.table, fitting.columns, skip_repeats=keyed)
    is_bytes = tuple(name in {"mail", "ip_addr"} and found[name].binary for name in fitting.columns)
    return Plan(statement, fitting.fits, is_bytes)


def _has_key(connection: Connection, table: str, where: str) -> bool:
    """Whether a unique index on exactly `KEY` lets a repeat be passed over.

    Raises:
        StoreError: such an index takes different recipients for the same.
    """
    indexes: dict[int, dict[str, bool]] = {}
    for index, column, kind, exact in _rows(connection, _KEYS, table):
        indexes.setdefault(index, {})[str(column)] = bool(exact) and kind in _EXACT
    found = False
    for columns in indexes.values():
        if columns.keys() != set(KEY):
            continue
        found = True
        for name, exact in columns.items():
            if not exact:
                raise StoreError(
                    f"the table {where} compares {name} so that a mail could be taken for another: "
                    'its unique key has to be of the type varchar or text and the collation "C"',
                    key="mail_table",
                )
    return found


def _try_written(
    connection: Connection, address: PostgreSQLAddress, target: Target, statement: Statement
) -> None:
    """Lets the server read the INSERT of the config."""
    marks = [f"${number}" for number in range(1, len(statement.columns) + 1)]
    text = f"{statement.head}{statement.row(marks)}{statement.tail}"
    key = "sql_insert" if target.insert else "sql_values"
    try:
        _rows(connection, f"PREPARE guerrilla AS {text}")
        # It looks at the rights as well, and inserts nothing.
        _rows(connection, f"EXPLAIN EXECUTE guerrilla ({', '.join(['NULL'] * len(marks))})")
        _rows(connection, "DEALLOCATE guerrilla")
    except psycopg.Error as error:
        raise StoreError(
            f"PostgreSQL {address.name} does not take it: {described(error)}", key=key
        ) from error
