"""The connection to an SQLite database file: opening it durably, its tables, one write.

Which errors mean what is said here too; `sqlite` decides who is told.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final

import apsw

from guerrilla.errors import Unavailable
from guerrilla.store.dialects import SQLiteDialect
from guerrilla.store.files import Files, file_id, files_of, log_header, make_file, remove_rest
from guerrilla.store.schema import KEY, StoreError
from guerrilla.store.statement import Statement, Target, own_statement, written_statement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla.store.rows import Row, Value

    _Insert = tuple[str, Callable[[tuple[Value, ...]], tuple[Value, ...]]]

OLDEST: Final = (3, 51, 3)
"""Before it a write that meets a checkpoint in WAL mode can lose committed data."""

BUSY_TIMEOUT_MS: Final = 5_000

_log = logging.getLogger("guerrilla.store")

PASSING: Final = (
    apsw.AbortError,
    apsw.AuthError,
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.IOError,
    apsw.InterruptError,
    apsw.LockedError,
    apsw.NoMemError,
    apsw.NotADBError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
    apsw.SQLError,
    apsw.SchemaChangeError,
    OSError,
    StoreError,
)
"""Errors of the place, not of a row: the same mail can be stored once the cause is gone."""


def require_version() -> None:
    """Checks the SQLite in use.

    Raises:
        StoreError: it is older than `OLDEST`.
    """
    found = apsw.sqlite_lib_version()
    if tuple(int(part) for part in found.split(".")[:3]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        msg = f"SQLite {found} can lose committed data: {oldest} or newer is needed (package apsw)"
        raise StoreError(msg)


def describe(error: Exception, path: str) -> str:
    """One line that says what is wrong with the database, in a reader's words."""
    match error:
        case apsw.BusyError() | apsw.LockedError():
            what = "is locked by another process"
        case apsw.CorruptError() | apsw.NotADBError():
            what = "is damaged, or no SQLite database"
        case apsw.FullError():
            what = "cannot grow: the disk is full"
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            what = "cannot be written"
        case apsw.CantOpenError():
            what = "cannot be opened"
        case apsw.IOError():
            what = "cannot be read or written"
        case StoreError():
            return str(error)
        case _:
            return f"{path}: {error}"
    return f"{path} {what} ({error})"


class Batch:
    """One worker's rows in line; `done` and `error` are set by whoever wrote them."""

    __slots__ = ("done", "error", "rows", "target")

    def __init__(self, target: Target, rows: Sequence[Row]) -> None:
        self.target = target
        self.rows = rows
        self.done = False
        self.error: Exception | None = None


class Database:
    """The connection to one database file; used by one thread at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: apsw.Connection | None = None
        self._failed: apsw.Connection | None = None
        """One that could not write, and stays open until another takes its place.

        Its index of the log ends before the commit that failed. Without it the log would be read
        anew, and a mail found there that was answered 4xx: the sender would bring it again.
        """
        self._files = Files(None, None, None)
        """Those of the connection, or of the last one."""
        self._log_left = b""
        """What tells the log that an abandoned connection left beside the file."""
        self._inserts: dict[Target, _Insert] = {}
        """The INSERT of one row, and what takes its values from a row."""
        self._said_moved = False

    def prepare(self, targets: set[Target]) -> apsw.Connection:
        """An open connection to the file that the path names now, with these tables made."""
        connection = self._connection
        if connection is not None and self._files != files_of(self._path):
            self._leave(connection)
            connection = None
        if connection is None:
            connection = self._connection = self._connect()
            self._said_moved = False
        for target in targets - self._inserts.keys():
            self._inserts[target] = _prepare(connection, target, self._path)
        return connection

    def write(self, batches: Sequence[Batch]) -> None:
        """All rows of all batches in one transaction, or none of them."""
        connection = self.prepare({batch.target for batch in batches})
        connection.execute("BEGIN IMMEDIATE")
        try:
            for batch in batches:
                statement, pick = self._inserts[batch.target]
                connection.executemany(statement, (pick(row.values()) for row in batch.rows))
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(apsw.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise
        if self._files != files_of(self._path):
            msg = f"{self._path} was moved or removed while it was written to"
            raise Unavailable(msg)

    def abandon(self) -> None:
        """Drops the connection after a failure; the next batch opens a new one.

        Not that of a file that was moved: only this connection can still complete it.
        """
        self._inserts.clear()
        if self._is_moved():
            return
        connection = self._connection
        if connection is not None and not _is_copied(connection):
            self._failed, self._connection = connection, None
        self._drop()
        self._log_left = log_header(self._path)

    def close(self) -> None:
        """Moves all from the log (`-wal`) into the database file, then closes it."""
        if self._connection is not None:
            try:
                self._connection.pragma("wal_checkpoint", "TRUNCATE")
            except apsw.Error as error:
                what = describe(error, self._path)
                _log.warning("the last mails stay in %s-wal: %s", self._path, what)
        self._drop()
        self._drop_failed()

    def _connect(self) -> apsw.Connection:
        """Opens the file, which must still be the one at the path when all its files are open."""
        make_file(self._path)
        main = file_id(self._path)
        left = bool(self._log_left) and self._log_left == log_header(self._path)
        if left and main != self._files.main:
            msg = (
                f"{self._path} was replaced, and {self._path}-wal holds mails of the old file: "
                "put that back, or remove the log"
            )
            raise StoreError(msg)
        try:
            connection = _open(self._path)
        except apsw.BusyError:
            self._drop_failed()  # in case that it is what holds a lock
            raise
        files = files_of(self._path)
        if files.main != main or None in files:
            connection.close(True)  # at once, whatever is open on it
            msg = f"{self._path} was moved or removed while it was opened"
            raise Unavailable(msg)
        try:
            _empty_log(connection, self._path, has_failed=left)
        except BaseException as error:
            connection.close(True)
            if isinstance(error, Unavailable):
                self._drop_failed()
            raise
        self._drop_failed()
        self._files = files
        self._log_left = b""
        return connection

    def _is_moved(self) -> bool:
        """Whether the database or its log is no longer at the path."""
        return self._files[:2] != files_of(self._path)[:2]

    def _leave(self, connection: apsw.Connection) -> None:
        """The file was moved, removed or replaced: completes the old one, then lets go of it.

        Its last mails may still be in the log, which stays where it was. A new file would throw
        that log away, and a file put in its place would be overwritten from it.
        """
        if not self._is_moved():
            # Only the log's index was removed. Who opened the file since then has another one, and
            # may have put mails into the log that this connection would cut off.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._drop()
            return
        if not self._said_moved:  # Once, however often it has to be tried.
            _log.warning("%s was moved, removed or replaced: it is opened again", self._path)
            self._said_moved = True
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").get[0]
        except apsw.Error as error:
            msg = f"{self._path} was moved or replaced, and the old file cannot be completed"
            raise Unavailable(f"{msg} ({error})") from error
        if busy:
            msg = f"{self._path} was moved or replaced while another process reads the old file"
            raise Unavailable(msg)
        if self._files.main != file_id(self._path):
            remove_rest(self._path, self._files)
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._inserts.clear()
        self._close(connection)

    def _drop_failed(self) -> None:
        connection, self._failed = self._failed, None
        self._close(connection)

    def _close(self, connection: apsw.Connection | None) -> None:
        if connection is not None:
            try:
                connection.close(True)  # at once, whatever is open on it
            except apsw.Error as error:
                _log.warning("closing: %s", describe(error, self._path))


def _open(path: str) -> apsw.Connection:
    """A connection to an existing file that writes durably; its log is made if missing."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        _expect(path, "read-only", connection.readonly("main"), wanted=False)
        # Only a database without tables takes this: what is purged can be given back later.
        connection.pragma("auto_vacuum", "INCREMENTAL")
        connection.pragma("synchronous", "FULL")
        connection.pragma("fullfsync", "ON")  # macOS: past the cache of the disk as well.
        _expect(path, "journal_mode", connection.pragma("journal_mode", "WAL"), wanted="wal")
        _expect(path, "synchronous", connection.pragma("synchronous"), wanted=2)
        connection.pragma("schema_version")  # The first read opens the log.
    except BaseException:
        connection.close(True)  # at once, whatever is open on it
        raise
    return connection


def _is_copied(connection: apsw.Connection) -> bool:
    """Whether all that was committed could be copied from the log into the database."""
    try:
        busy, logged, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").get
    except apsw.Error:
        return False
    return not busy and logged == copied


def _empty_log(connection: apsw.Connection, path: str, *, has_failed: bool) -> None:
    """Moves what an earlier connection left in the log into the database.

    After a sync that failed the system keeps what it could not write, but only in memory, and never
    tries again: what is read from the log then may not be on disk. Behind it a transaction that is
    synced would be lost with the next power failure, since reading the log ends at the first gap.

    Args:
        connection: it has written nothing yet.
        path: of the database.
        has_failed: whether that is known of the log. Else another process that uses it is not
            waited for.
    """
    connection.set_busy_timeout(BUSY_TIMEOUT_MS if has_failed else 0)
    busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").get[0]
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    if busy and has_failed:
        msg = f"{path} could not be written, and another process reads it: its log has to wait"
        raise Unavailable(msg)


def _expect(path: str, what: str, found: object, *, wanted: object) -> None:
    if found != wanted:
        msg = f"{path} cannot be written safely: {what} is {found}, expected {wanted}"
        raise StoreError(msg)


def _prepare(connection: apsw.Connection, target: Target, path: str) -> _Insert:
    """Makes the table if it is missing, and the INSERT for it."""
    if target.is_own:
        statement = _own_statement(connection, target, path)
    else:
        if not target.insert:
            connection.execute(SQLiteDialect().create_table(target.table))
        statement = written_statement(SQLiteDialect(), target)
    text = f"{statement.head}{statement.row('?' * len(statement.columns))}{statement.tail}"
    if not target.is_own:
        try:
            connection.execute(f"EXPLAIN {text}", [None] * len(statement.columns))
        except apsw.SQLError as error:
            key = "sql_insert" if target.insert else "sql_values"
            raise StoreError(f"{path} does not take it: {error}", key=key) from error
    return text, statement.picker()


def _own_statement(connection: apsw.Connection, target: Target, path: str) -> Statement:
    dialect = SQLiteDialect()
    connection.execute(dialect.create_table(target.table, target.columns))
    there = table_columns(connection, target.table)
    missing = [name for name in target.columns if name not in there and name != "queued_id"]
    if missing:
        msg = f"the table {target.table} in {path} has no column {', '.join(missing)}"
        raise StoreError(msg)
    columns = [name for name in target.columns if name in there]
    skip_repeats = _has_key(connection, target.table, path) and set(KEY) <= set(columns)
    return own_statement(dialect, target.table, columns, skip_repeats=skip_repeats)


def table_columns(connection: apsw.Connection, table: str) -> list[str]:
    """The names of a table's columns, in lower case; empty where there is no such table."""
    found = connection.execute("SELECT lower(name) FROM pragma_table_info(?)", (table,))
    return [str(name) for (name,) in found]


def _has_key(connection: apsw.Connection, table: str, path: str) -> bool:
    """Whether a unique index on exactly `KEY` lets a repeat be passed over.

    Raises:
        StoreError: such an index takes different recipients for the same.
    """
    found = False
    unique = 'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial'
    for (index,) in connection.execute(unique, (table,)).fetchall():
        parts = "SELECT lower(name), upper(coll) FROM pragma_index_xinfo(?) WHERE key"
        by_column = connection.execute(parts, (index,))
        collations = {str(column): str(by) for column, by in by_column}
        if collations.keys() != set(KEY):
            continue
        found = True
        for column, collation in collations.items():
            if collation != "BINARY":
                msg = (
                    f"the table {table} in {path} compares {column} by {collation}, so that a mail "
                    "could be taken for another: its unique key has to be BINARY"
                )
                raise StoreError(msg)
    return found
