"""Reading and trimming the SQLite store beside a running daemon.

Every read is a page of its own: a reader that is slow, or piped into a pager, holds no snapshot
that would keep the daemon's log from being written back.
"""

from __future__ import annotations

import dataclasses
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias, cast

import apsw

from guerrilla.store.database import BUSY_TIMEOUT_MS, describe, require_version, table_columns
from guerrilla.store.files import refuse_lone_log, resolve
from guerrilla.store.schema import StoreError, check_table_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

_PAGE: Final = 500
_PURGE_ROWS: Final = 200
_VACUUM_PAGES: Final = 2_000
_LEAST_PAUSE: Final = 0.005
_LOCK_STEP: Final = 0.001
_LOCK_STEPS: Final = 60_000
"""Longer than the daemon waits: of the two, nobody waits for this one."""

_Columns: TypeAlias = tuple[int, str, str, str, str, str, int, str]
"""What `_fields` selects."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoredMail:
    """A row of the table, without its message."""

    mail_id: int
    queued_id: str
    """Empty in a table that has no such column."""
    date: str
    """Time of receipt in UTC, `YYYY-MM-DD HH:MM:SS`."""
    sender: str
    """The reverse-path; empty for the null path."""
    recipient: str
    subject: str
    size: int
    """Octets of the message as stored, its delivery header included."""
    hash: str


class Reader:
    """A table of a database file, opened for reading; a context manager.

    Args:
        path: the database file.
        table: its table of mails.

    Raises:
        StoreError: no such file, no database, no such table, or not a table of mails.
    """

    def __init__(self, path: str, table: str) -> None:
        self._path = resolve(path)
        self._table = check_table_name(table)
        self._connection = _connect(self._path, apsw.SQLITE_OPEN_READONLY)
        try:
            self._keyed, self._fields = _fields(self._connection, self._path, table)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes it."""
        self.close()

    def close(self) -> None:
        """Closes the database. Idempotent."""
        self._connection.close()

    def newest(self, limit: int | None = None) -> Iterator[StoredMail]:
        """The mails, newest first, `limit` at most.

        Raises:
            StoreError: reading failed; from the iteration.
        """
        return self._pages("mail_id < ?", 2**63 - 1, "DESC", limit)

    def oldest(self, since: str = "") -> Iterator[StoredMail]:
        """The mails received at `since` (UTC, `YYYY-MM-DD HH:MM:SS`) or later, oldest first.

        Raises:
            StoreError: reading failed; from the iteration.
        """
        return (mail for mail in self._pages("mail_id > ?", -1, "ASC", None) if mail.date >= since)

    def find(self, name: str) -> list[StoredMail]:
        """The mails of a mail_id, a queued_id (one a recipient) or a hash; oldest first.

        Raises:
            StoreError: reading failed.
        """
        if name.isascii() and name.isdigit() and len(name) < len(str(2**63)):
            found = self._select("WHERE mail_id = ?", (int(name),))
            if found:
                return found
        if self._keyed:
            # In any case, as people copy it; each form is looked up in the index.
            forms = (name, name.lower(), name.upper())
            found = self._select("WHERE queued_id IN (?, ?, ?) ORDER BY mail_id", forms)
            if found:
                return found
        return self._select("WHERE hash = ? ORDER BY mail_id", (name.lower(),)) if name else []

    def message(self, mail: StoredMail) -> bytes:
        """The message as stored: delivery header and message.

        Raises:
            StoreError: the mail is gone, its message is kept elsewhere, or reading failed.
        """
        where = f'SELECT body, mail FROM "{self._table}" WHERE mail_id = ?'  # noqa: S608
        rows = self._query(where, (mail.mail_id,))
        if not rows:
            msg = f"mail {mail.mail_id} is no longer in {self._path}"
            raise StoreError(msg)
        body, data = rows[0]
        return self._unpacked(mail.mail_id, str(body or ""), data)

    def _unpacked(self, mail_id: int, body: str, data: apsw.SQLiteValue) -> bytes:
        if body == "redis":
            msg = f"mail {mail_id}: its message is kept in Redis, not in {self._path}"
            raise StoreError(msg)
        octets = data.encode() if isinstance(data, str) else bytes(_buffer(data))
        if body not in {"gzip", "gzencode"}:
            return octets
        try:
            return zlib.decompress(octets)
        except zlib.error as error:
            msg = f"mail {mail_id}: its compressed message is damaged ({error})"
            raise StoreError(msg) from error

    def _pages(self, bound: str, start: int, order: str, limit: int | None) -> Iterator[StoredMail]:
        tail = f"WHERE {bound} ORDER BY mail_id {order} LIMIT ?"
        while limit is None or limit > 0:
            page = self._select(tail, (start, _PAGE if limit is None else min(limit, _PAGE)))
            yield from page
            if not page:
                return
            start = page[-1].mail_id
            limit = None if limit is None else limit - len(page)

    def _select(self, tail: str, bindings: Sequence[apsw.SQLiteValue]) -> list[StoredMail]:
        rows = self._query(f'SELECT {self._fields} FROM "{self._table}" {tail}', bindings)  # noqa: S608
        return [StoredMail(*cast("_Columns", row)) for row in rows]

    def _query(
        self, statement: str, bindings: Sequence[apsw.SQLiteValue]
    ) -> list[apsw.SQLiteValues]:
        try:
            return self._connection.execute(statement, bindings).fetchall()
        except apsw.Error as error:
            raise StoreError(describe(error, self._path)) from error


def purge(path: str, table: str, before: str, *, dry_run: bool = False) -> int:
    """Deletes the mails received before a time (UTC, `YYYY-MM-DD HH:MM:SS`); how many.

    Works beside a daemon: in short transactions, with a pause after each in which the daemon
    gets its turn. The room is given back to the file system where the daemon made the file; the
    room in any other file is used again for new mails.

    Raises:
        StoreError: the database or table cannot be used; what was deleted before stays deleted.
    """
    path = resolve(path)
    check_table_name(table)
    flag = apsw.SQLITE_OPEN_READONLY if dry_run else apsw.SQLITE_OPEN_READWRITE
    connection = _connect(path, flag)
    connection.set_busy_handler(_wait_for_lock)
    try:
        _fields(connection, path, table)
        if dry_run:
            count = f'SELECT count(*) FROM "{table}" WHERE "date" < ?'  # noqa: S608
            return int(connection.execute(count, (before,)).get)
        deleted = sum(_delete_pages(connection, table, before))
        _give_back(connection)
    except apsw.Error as error:
        raise StoreError(describe(error, path)) from error
    finally:
        connection.close()
    return deleted


def _delete_pages(connection: apsw.Connection, table: str, before: str) -> Iterator[int]:
    old = f'SELECT mail_id FROM "{table}" WHERE mail_id > ? AND "date" < ? ORDER BY mail_id LIMIT ?'  # noqa: S608
    # The date again: in an existing table another mail may have the same mail_id.
    delete = f'DELETE FROM "{table}" WHERE mail_id = ? AND "date" < ?'  # noqa: S608
    last: apsw.SQLiteValue = -1
    while found := connection.execute(old, (last, before, _PURGE_ROWS)).fetchall():
        with _Turn(connection):
            connection.executemany(delete, [(mail_id, before) for (mail_id,) in found])
        last = found[-1][0]
        yield len(found)


def _wait_for_lock(tries: int) -> bool:
    """Looks often: SQLite's own waiting backs off and would seldom meet a busy daemon's gap."""
    time.sleep(_LOCK_STEP)
    return tries < _LOCK_STEPS


def _give_back(connection: apsw.Connection) -> None:
    """Shortens the file by its free pages, in steps; nothing happens in a file without them."""
    if connection.pragma("auto_vacuum") != 2:  # INCREMENTAL  # noqa: PLR2004
        return
    while int(connection.pragma("freelist_count")) > 0:
        with _Turn(connection):
            connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()


class _Turn:
    """A short write transaction, then a pause as long: SQLite's lock knows no queue."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._start = 0.0

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._start = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.execute("COMMIT" if error is None else "ROLLBACK")
        time.sleep(max(time.monotonic() - self._start, _LEAST_PAUSE))


def _connect(path: str, flag: int) -> apsw.Connection:
    require_version()
    if not Path(path).is_file():
        msg = f"{path}: no such database file (the daemon makes it when it starts)"
        raise StoreError(msg)
    refuse_lone_log(path)
    try:
        connection = apsw.Connection(path, flags=flag)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("PRAGMA schema_version").fetchall()
    except apsw.Error as error:
        raise StoreError(describe(error, path)) from error
    return connection


def _fields(connection: apsw.Connection, path: str, table: str) -> tuple[bool, str]:
    """Whether the table has a queued_id; what `StoredMail` is made of, as SQL."""
    try:
        columns = table_columns(connection, table)
    except apsw.Error as error:
        raise StoreError(describe(error, path)) from error
    if not columns:
        msg = f"{path} has no table {table}"
        raise StoreError(msg)
    wanted = ("mail_id", "date", "from", "recipient", "subject", "mail", "hash")
    missing = [name for name in wanted if name not in columns]
    if missing:
        msg = f"the table {table} in {path} has no column {', '.join(missing)}"
        raise StoreError(msg)
    queued_id = "queued_id" if "queued_id" in columns else "''"
    date, sender, recipient, subject, digest = (
        f"coalesce({name}, '')" for name in ('"date"', '"from"', "recipient", "subject", "hash")
    )
    size = "coalesce(octet_length(mail), 0)"
    names = (queued_id, date, sender, recipient, subject, size, digest)
    return "queued_id" in columns, ", ".join(("mail_id", *names))


def _buffer(data: apsw.SQLiteValue) -> bytes:
    return data if isinstance(data, bytes) else b""
