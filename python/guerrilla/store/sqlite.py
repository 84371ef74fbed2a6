"""SQLite: one shared writer a database file, and group commit.

A file has one writer connection in the whole process, whatever the number of workers and chains:
SQLite lets only one write at a time anyway, and several connections would sync the disk several
times. While one worker commits, the others leave their rows in line; whoever comes next takes all
of them into one transaction. Each is told only after the commit that has its rows.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, ClassVar

import apsw

from guerrilla.errors import Unavailable
from guerrilla.store.database import PASSING, Batch, Database, describe, require_version
from guerrilla.store.files import resolve
from guerrilla.store.schema import (
    RowTooLargeError,
    StoreAwayError,
    StoreFullError,
    check_table_name,
)
from guerrilla.store.statement import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guerrilla.store.rows import Row


def connect(dsn: str, target: Target | str, lifetime: float = 0.0) -> SQLiteStore:
    """Opens the database of a `sql_dsn`, which is a path, and makes the table if it is missing.

    Args:
        dsn: the path.
        target: the table and what is inserted there; a name alone means our columns.
        lifetime: means nothing here: no server has a connection to drop.

    Raises:
        StoreError: the database or its table cannot be used; the message says why.
    """
    require_version()
    del lifetime
    if isinstance(target, str):
        target = Target(target)
    check_table_name(target.table)
    writer = _Writer.acquire(resolve(dsn))
    try:
        writer.check(target)
    except BaseException:
        writer.release()
        raise
    return SQLiteStore(writer, target)


class SQLiteStore:
    """A table in a database file; see `guerrilla.store.Store`."""

    def __init__(self, writer: _Writer, target: Target) -> None:
        self._writer = writer
        self._target = target
        self._closed = False

    @property
    def path(self) -> str:
        """The database file, with links resolved."""
        return self._writer.path

    def insert(self, rows: Sequence[Row]) -> None:
        """Stores all rows durably, or none, and returns after the commit.

        Raises:
            StoreFullError: the disk is full; nothing was stored.
            guerrilla.errors.Unavailable: locked, read-only, damaged, an I/O error.
            Exception: a row's own fault; nothing was stored.
        """
        if rows:
            self._writer.insert(Batch(self._target, rows))

    def close(self) -> None:
        """Gives up the file; the last one that does checkpoints and closes it. Idempotent."""
        if not self._closed:
            self._closed = True
            self._writer.release()


class _Writer:
    """The line in front of one database file: who is first writes for all who wait."""

    _shared: ClassVar[dict[str, _Writer]] = {}
    _registry: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def acquire(cls, path: str) -> _Writer:
        """The writer of a file, made if it is the first use; to be released once."""
        with cls._registry:
            writer = cls._shared.get(path)
            if writer is None:
                writer = cls._shared[path] = cls(path)
            writer._users += 1
            return writer

    def __init__(self, path: str) -> None:
        self.path = path
        self._users = 0
        self._turn = threading.Condition()
        self._line: list[Batch] = []
        self._busy = False
        self._database = Database(path)

    def release(self) -> None:
        with self._registry:
            self._users -= 1
            if self._users:
                return
            del self._shared[self.path]
        with self._exclusive():
            self._database.close()

    def check(self, target: Target) -> None:
        """Opens the file and makes the table; an error is a StoreError that says why."""
        with self._exclusive():
            try:
                self._database.prepare({target})
            except (apsw.Error, OSError, Unavailable) as error:
                self._database.abandon()
                raise StoreAwayError(describe(error, self.path)) from error

    def insert(self, batch: Batch) -> None:
        """Returns once a commit has the batch, by whichever thread; raises what went wrong."""
        batches: list[Batch] = []
        with self._turn:
            self._line.append(batch)
            self._turn.wait_for(lambda: batch.done or not self._busy)
            if not batch.done:
                self._busy = True
                batches, self._line = self._line, []
        if batches:
            try:
                self._write(batches)
            finally:
                self._tell(batches)
        if batch.error is not None:
            raise batch.error

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: not self._busy)
            self._busy = True
        try:
            yield
        finally:
            self._tell([])

    def _tell(self, batches: list[Batch]) -> None:
        with self._turn:
            for batch in batches:
                batch.done = True
            self._busy = False
            self._turn.notify_all()

    def _write(self, batches: list[Batch]) -> None:
        """Writes all in one transaction; each alone when one of them brings the rest down."""
        for batch in batches:  # What stays if this thread is torn away in the middle.
            batch.error = Unavailable(f"{self.path}: the write was broken off")
        try:
            self._database.write(batches)
        except apsw.FullError as error:
            self._fail(batches, StoreFullError, error)
        except Unavailable as error:
            self._fail(batches, Unavailable, error, reopen=False)
        except PASSING as error:
            self._fail(batches, Unavailable, error)
        except Exception as error:  # noqa: BLE001  # a row's own fault, raised to whose row it is
            if len(batches) == 1:
                batches[0].error = _fault(error)
                return
            for batch in batches:
                self._write([batch])
        else:
            for batch in batches:
                batch.error = None

    def _fail(
        self,
        batches: list[Batch],
        kind: type[StoreFullError | Unavailable],
        error: Exception,
        *,
        reopen: bool = True,
    ) -> None:
        if reopen:
            self._database.abandon()
        text = describe(error, self.path) if reopen else str(error)
        for batch in batches:  # Each its own: an exception belongs to the thread that raises it.
            batch.error = kind(text)
            batch.error.__cause__ = error


def _fault(error: Exception) -> Exception:
    """The error of a row, in our words where they exist."""
    if not isinstance(error, apsw.TooBigError):
        return error
    found = RowTooLargeError("a mail is larger than SQLite takes")
    found.__cause__ = error
    return found
