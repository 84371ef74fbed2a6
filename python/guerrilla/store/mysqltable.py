"""The table in MySQL or MariaDB: made if it is missing, and looked at before it is used."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pymysql

from guerrilla.store import mysqlerrors
from guerrilla.store.dialects import MySQLDialect
from guerrilla.store.fitting import Column, fit, require_key_length
from guerrilla.store.schema import KEY, StoreError
from guerrilla.store.statement import Statement, Target, own_statement, written_statement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from guerrilla.store.dsn import MySQLAddress
    from guerrilla.store.rows import Value

    Connection = pymysql.Connection[pymysql.cursors.Cursor]

_log = logging.getLogger("guerrilla.store")

_CODECS: Final[Mapping[str, str]] = {
    "utf8": "utf-8-bmp",
    "utf8mb3": "utf-8-bmp",
    "latin1": "cp1252",
    "ascii": "ascii",
}
"""Character sets that cannot hold everything, as Python writes them."""

_COLUMNS: Final = """
    SELECT LOWER(column_name), LOWER(data_type), character_set_name, character_maximum_length,
        is_nullable = 'YES' OR column_default IS NOT NULL OR extra <> ''
    FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = %s
"""
_KEYS: Final = """
    SELECT s.index_name, LOWER(s.column_name), s.sub_part, c.collation_name
    FROM information_schema.statistics s JOIN information_schema.columns c
        ON c.table_schema = s.table_schema AND c.table_name = s.table_name
        AND c.column_name = s.column_name
    WHERE s.table_schema = DATABASE() AND s.table_name = %s AND s.non_unique = 0
"""
_ENGINE: Final = """
    SELECT t.engine, e.transactions FROM information_schema.tables t
    LEFT JOIN information_schema.engines e ON e.engine = t.engine
    WHERE t.table_schema = DATABASE() AND t.table_name = %s
"""


class Plan(NamedTuple):
    """How rows are inserted."""

    statement: Statement
    fits: tuple[tuple[int, Callable[[Value], Value]], ...]
    mail_limit: int | None
    max_packet: int


def plan(connection: Connection, address: MySQLAddress, target: Target) -> Plan:
    """Looks at the server and the table, which it makes if it is missing.

    Raises:
        StoreError: the table cannot be used.
        pymysql.MySQLError: the server did not answer as expected.
    """
    max_packet = _look_at_server(connection, address)
    if not target.insert:
        _make(connection, address, target)
    if target.is_own:
        statement, fits, limit = _own(connection, address, target)
        return Plan(statement, fits, limit, max_packet)
    statement = written_statement(MySQLDialect(), target)
    _try_written(connection, address, target, statement)
    return Plan(statement, (), None, max_packet)


def _rows(connection: Connection, statement: str, *values: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _look_at_server(connection: Connection, address: MySQLAddress) -> int:
    """The longest packet in bytes; warns of a server whose commits do not outlive a crash."""
    # A lock is waited for no longer than an answer: else it would end as a lost connection.
    wait = max(1, int(address.read) - 1)
    _rows(
        connection,
        f"SET SESSION innodb_lock_wait_timeout = LEAST({wait}, @@SESSION.innodb_lock_wait_timeout)",
    )
    wanted = "SELECT @@max_allowed_packet, @@innodb_flush_log_at_trx_commit"
    ((packet, flush),) = _rows(connection, wanted)
    if int(flush) != 1:
        _log.warning(
            "MySQL %s: innodb_flush_log_at_trx_commit is %s: mails that were answered 250 are lost "
            "when its machine fails; set it to 1",
            address.name,
            flush,
        )
    return int(packet)


def _make(connection: Connection, address: MySQLAddress, target: Target) -> None:
    """Makes the table where there is none; a user who may not make one needs none made."""
    if _columns(connection, target.table):
        return
    try:
        _rows(connection, MySQLDialect().create_table(target.table, target.columns))
    except pymysql.MySQLError as error:
        code, text = mysqlerrors.parts(error)
        raise StoreError(
            f"MySQL {address.name} has no table {target.table} that the user may use, and it "
            f"cannot be made ({code}: {text}): GRANT the rights, or make it with what "
            "'guerrillad schema --driver mysql' prints",
            key="mail_table",
        ) from error


def _columns(connection: Connection, table: str) -> dict[str, Column]:
    return {
        str(name): Column(
            str(kind),
            str(kind).endswith(("blob", "binary")),
            None if length is None else int(length),
            bool(optional),
            _CODECS.get(str(charset)),
        )
        for name, kind, charset, length, optional in _rows(connection, _COLUMNS, table)
    }


def _own(
    connection: Connection, address: MySQLAddress, target: Target
) -> tuple[Statement, tuple[tuple[int, Callable[[Value], Value]], ...], int | None]:
    where = f"{target.table} in MySQL {address.name}"
    for engine, transactions in _rows(connection, _ENGINE, target.table):
        if engine and transactions != "YES":
            raise StoreError(
                f"the table {where} is kept by {engine}, which cannot save a batch whole or not at "
                f"all: ALTER TABLE {target.table} ENGINE=InnoDB",
                key="mail_table",
            )
    found = _columns(connection, target.table)
    fitting = fit(found, target, where)
    keyed = set(KEY) <= set(fitting.columns) and _has_key(connection, target.table, where)
    if keyed:
        require_key_length(found, where)
    dialect = MySQLDialect()
    _rows(connection, dialect.insert_nothing(target.table, fitting.columns))
    statement = own_statement(dialect, target.table, fitting.columns, skip_repeats=keyed)
    return statement, fitting.fits, fitting.mail_limit


def _has_key(connection: Connection, table: str, where: str) -> bool:
    """Whether a unique index on exactly `KEY` lets a repeat be passed over.

    Raises:
        StoreError: such an index takes different recipients for the same.
    """
    indexes: dict[str, dict[str, tuple[Any, Any]]] = {}
    for index, column, part, collation in _rows(connection, _KEYS, table):
        indexes.setdefault(str(index), {})[str(column)] = (part, collation)
    found = False
    for columns in indexes.values():
        if columns.keys() != set(KEY):
            continue
        found = True
        for name, (part, collation) in columns.items():
            exact = collation is None or str(collation).endswith("_bin")
            if part is not None or not exact:
                how = f"by its first {part} characters" if part is not None else f"by {collation}"
                raise StoreError(
                    f"the table {where} compares {name} {how}, so that a mail could be taken for "
                    "another: its unique key has to be of whole columns of a collation _bin",
                    key="mail_table",
                )
    return found


def _try_written(
    connection: Connection, address: MySQLAddress, target: Target, statement: Statement
) -> None:
    """Lets the server read the INSERT of the config."""
    marks = "?" * len(statement.columns)
    text = f"{statement.head}{statement.row(marks)}{statement.tail}"
    key = "sql_insert" if target.insert else "sql_values"
    try:
        _rows(connection, "PREPARE guerrilla FROM %s", text)
        _rows(connection, "DEALLOCATE PREPARE guerrilla")
    except pymysql.MySQLError as error:
        _, why = mysqlerrors.parts(error)
        raise StoreError(f"MySQL {address.name} does not take it: {why}", key=key) from error
