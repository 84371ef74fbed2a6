"""What the stores on a database server share: a kept connection, and who is told what.

A worker has one connection. It is made at `open` with all that can be checked, looked at before
each batch, and made again when it was lost; see `guerrilla.kept`.
"""

from __future__ import annotations

import abc
import select
import time
from typing import TYPE_CHECKING, Final

from guerrilla.errors import Unavailable
from guerrilla.kept import Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla.store.rows import Row

STATEMENT_BYTES: Final = 4 << 20
"""A statement that has become so long is sent: the rows of large mails must not be in memory at
once. One that holds a single row may be longer."""


class Link(abc.ABC):
    """A connection that is logged in, with a table that was checked."""

    @abc.abstractmethod
    def write(self, rows: Sequence[Row]) -> None:
        """All rows in one transaction, or none of them.

        Raises:
            StoreFullError: there is no room; nothing was stored.
            RowTooLargeError: nothing was stored.
            Unavailable: nothing is known to be stored, and the connection is of no more use.
            Exception: a row's own fault; nothing was stored.
        """

    @abc.abstractmethod
    def socket(self) -> int:
        """Its file descriptor; negative when it is closed."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes it, and waits for nothing."""

    def is_gone(self) -> bool:
        """Whether the server has closed it: it says nothing unasked, but when it leaves."""
        number = self.socket()
        if number < 0:
            return True
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(0))


class ServerStore:
    """A table on a database server; see `guerrilla.store.Store`. For one thread.

    Args:
        name: of the server and database, for errors and logs.
        connect: makes a link; raises StoreError where it can say why not.
        lifetime: seconds after which a connection is made anew; 0 for never.
    """

    def __init__(self, name: str, connect: Callable[[], Link], lifetime: float = 0.0) -> None:
        self._kept = Kept(name, connect, lambda link: link.close())
        self._lifetime = lifetime
        self._link: Link | None = None
        self._since = 0.0

    def open(self) -> None:
        """Connects and checks.

        Raises:
            StoreError: the server, database or table cannot be used; the message says why.
        """
        self._kept.open()

    def insert(self, rows: Sequence[Row]) -> None:
        """See `Store`."""
        if not rows:
            return
        link = self._fresh()
        try:
            link.write(rows)
        except Unavailable:
            self._kept.lost()
            raise
        except Exception:
            # A row's fault leaves the connection as it was; anything else closed it.
            if link.is_gone():
                self._kept.lost()
            raise
        except BaseException:
            self._kept.lost()
            raise

    def close(self) -> None:
        """See `Store`."""
        self._kept.close()

    def _fresh(self) -> Link:
        """A link that is neither closed by the server nor too old."""
        link = self._kept.get()
        if link is not self._link:
            self._link, self._since = link, time.monotonic()
        old = 0 < self._lifetime < time.monotonic() - self._since
        if old or link.is_gone():
            self._kept.lost()
            link = self._kept.get()
            self._link, self._since = link, time.monotonic()
        return link
