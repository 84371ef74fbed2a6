"""The connection to an SQLite database file: opening it durably, its tables, one write.

Which errors mean what is said here too; `sqlite` decides who is told.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from guerrilla.errors import Unavailable
from guerrilla.store.schema import COLUMNS, KEY, SQLiteDialect, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guerrilla.store.rows import Row, Value

OLDEST: Final = (3, 51, 3)
"""Before it a write that meets a checkpoint in WAL mode can lose committed data."""

BUSY_TIMEOUT_MS: Final = 5_000

_FILE_MODE: Final = 0o600

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

    __slots__ = ("done", "error", "rows", "table")

    def __init__(self, table: str, rows: Sequence[Row]) -> None:
        self.table = table
        self.rows = rows
        self.done = False
        self.error: Exception | None = None


class Database:
    """The connection to one database file; used by one thread at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: apsw.Connection | None = None
        self._identity: tuple[tuple[int, int] | None, ...] = ()
        self._inserts: dict[str, tuple[str, bool]] = {}

    def prepare(self, tables: set[str]) -> apsw.Connection:
        """An open connection to the file that the path names now, with these tables made."""
        connection = self._connection
        if connection is not None and self._identity != _identity(self._path):
            self._leave(connection)
            connection = None
        if connection is None:
            connection = self._connection = _open(self._path)
        for table in tables - self._inserts.keys():
            self._inserts[table] = _prepare_table(connection, table, self._path)
            self._identity = _identity(self._path)
        return connection

    def write(self, batches: Sequence[Batch]) -> None:
        """All rows of all batches in one transaction, or none of them."""
        connection = self.prepare({batch.table for batch in batches})
        connection.execute("BEGIN IMMEDIATE")
        try:
            for batch in batches:
                statement, keyed = self._inserts[batch.table]
                connection.executemany(statement, _bindings(batch.rows, keyed=keyed))
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(apsw.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise
        if self._identity != _identity(self._path):
            msg = f"{self._path} was moved or removed while it was written to"
            raise Unavailable(msg)

    def abandon(self) -> None:
        """Drops the connection after a failure; the next batch opens a new one."""
        connection, self._connection = self._connection, None
        self._inserts.clear()
        if connection is not None:
            try:
                connection.close(True)  # at once, whatever is open on it
            except apsw.Error as error:
                _log.warning("closing: %s", describe(error, self._path))

    def close(self) -> None:
        """Moves all from the log (`-wal`) into the database file, then closes it."""
        if self._connection is not None:
            with contextlib.suppress(apsw.Error):
                self._connection.pragma("wal_checkpoint", "TRUNCATE")
        self.abandon()

    def _leave(self, connection: apsw.Connection) -> None:
        """The file was moved, removed or replaced: completes the old one, then lets go of it.

        Its last mails may still be in the log, which stays where it was. A new file would throw
        that log away, and a file put in its place would be overwritten from it.
        """
        _log.warning("%s was moved, removed or replaced: it is opened again", self._path)
        try:
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").get[0]
        except apsw.Error as error:
            _log.warning("completing the old file: %s", describe(error, self._path))
            busy = 0
        if busy:
            msg = f"{self._path} was moved or replaced while another process reads the old file"
            raise Unavailable(msg)
        self.abandon()


def _identity(path: str) -> tuple[tuple[int, int] | None, ...]:
    """Which files the path and its log are now: device and inode of each, None for missing."""
    return tuple(_device_and_inode(name) for name in (path, f"{path}-wal"))


def _device_and_inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # Twice a batch: Path takes twice as long.
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def _open(path: str) -> apsw.Connection:
    """A connection that writes durably; the file is made if it is missing."""
    _make_file(path)
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        _expect(path, "read-only", connection.readonly("main"), wanted=False)
        # Only a database without tables takes this: what is purged can be given back later.
        connection.pragma("auto_vacuum", "INCREMENTAL")
        connection.pragma("synchronous", "FULL")
        _expect(path, "journal_mode", connection.pragma("journal_mode", "WAL"), wanted="wal")
        _expect(path, "synchronous", connection.pragma("synchronous"), wanted=2)
    except BaseException:
        connection.close(True)  # at once, whatever is open on it
        raise
    return connection


def _make_file(path: str) -> None:
    """Makes an empty file that only its owner may read; SQLite's own would follow the umask.

    A file that is there is never opened here: closing it would drop the POSIX locks that SQLite
    holds on it anywhere in this process.
    """
    file = Path(path)
    if not file.parent.is_dir():
        msg = f"{path} cannot be made: there is no folder {file.parent}"
        raise StoreError(msg)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _FILE_MODE))
    except FileExistsError:
        if not file.is_file():
            msg = f"{path} is no file: expected the path of a database file"
            raise StoreError(msg) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise apsw.FullError(str(error)) from error
        msg = f"{path} cannot be made: {error.strerror}"
        raise StoreError(msg) from error


def _expect(path: str, what: str, found: object, *, wanted: object) -> None:
    if found != wanted:
        msg = f"{path} cannot be written safely: {what} is {found}, expected {wanted}"
        raise StoreError(msg)


def _prepare_table(connection: apsw.Connection, table: str, path: str) -> tuple[str, bool]:
    """Makes the table if it is missing; the INSERT for it, and whether it has a queued_id."""
    dialect = SQLiteDialect()
    connection.execute(dialect.create_table(table))
    columns = table_columns(connection, table)
    missing = [name for name in COLUMNS if name not in columns and name != "queued_id"]
    if missing:
        msg = f"the table {table} in {path} has no column {', '.join(missing)}"
        raise StoreError(msg)
    keyed = "queued_id" in columns
    wanted = COLUMNS if keyed else COLUMNS[1:]
    return dialect.insert(table, wanted, skip_repeats=_has_key(connection, table)), keyed


def table_columns(connection: apsw.Connection, table: str) -> list[str]:
    """The names of a table's columns, in lower case; empty where there is no such table."""
    found = connection.execute("SELECT lower(name) FROM pragma_table_info(?)", (table,))
    return [str(name) for (name,) in found]


def _has_key(connection: apsw.Connection, table: str) -> bool:
    """Whether a unique index on exactly `KEY` lets a repeat be passed over."""
    unique = 'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial'
    for (index,) in connection.execute(unique, (table,)).fetchall():
        names = connection.execute("SELECT name FROM pragma_index_info(?)", (index,))
        if sorted(str(name).lower() for (name,) in names) == sorted(KEY):
            return True
    return False


def _bindings(rows: Sequence[Row], *, keyed: bool) -> Iterator[tuple[Value, ...]]:
    """The values of each row, made when SQLite asks for them: one message at a time in memory."""
    for row in rows:
        values = row.values()
        yield values if keyed else values[1:]
