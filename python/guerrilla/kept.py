"""A connection that is kept: made when a chain opens, and made again once it was lost.

A processor asks for it with each batch. Where it was lost, the next batch makes a new one; where
that fails too, the batches that follow are told so at once until some time has passed, so that a
server that is down costs each sender one `451` and not one time-out.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from guerrilla.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Kept", "delay_after"]

log = logging.getLogger("guerrilla.kept")

FIRST_DELAY: Final = 0.1
"""Seconds after the first failure in which nothing is tried; each further one doubles it."""
LONGEST_DELAY: Final = 5.0

_Connection = TypeVar("_Connection")


def delay_after(failures: int) -> float:
    """Seconds in which nothing is tried, after so many failures before this one."""
    # A server may be away for days: of 2.0**1024 there is no float.
    return min(FIRST_DELAY * 2.0 ** min(failures, 10), LONGEST_DELAY)


class Kept(Generic[_Connection]):
    """One connection of one worker, used by one thread.

    Args:
        name: of what it leads to, for errors and logs: `redis 127.0.0.1:6379`.
        connect: makes a connection that is known to work; may raise anything.
        disconnect: closes one, and may fail, since it may be broken.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], _Connection],
        disconnect: Callable[[_Connection], object],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens nothing."""
        self.name = name
        self._connect = connect
        self._disconnect = disconnect
        self._clock = clock
        self._connection: _Connection | None = None
        self._failures = 0
        self._not_before = 0.0
        self._why = ""

    def open(self) -> None:
        """Connects, for `Processor.open`; whatever `connect` raises comes out as it is."""
        self._connection = self._connect()

    def get(self) -> _Connection:
        """The connection, made again where it was lost.

        Raises:
            guerrilla.Unavailable: it cannot be made now, or could not a moment ago.
        """
        if self._connection is not None:
            return self._connection
        left = self._not_before - self._clock()
        if left > 0:
            raise Unavailable(f"{self.name}: {self._why}; tried again in {left:.1f} s")
        try:
            self._connection = self._connect()
        except Exception as error:
            self._fail(error)
            raise Unavailable(f"{self.name}: {self._why}") from error
        if self._failures:
            log.info("%s: connected again", self.name)
        self._failures = 0
        return self._connection

    def lost(self) -> None:
        """Gives it up after an error that leaves it unknown or broken; `get` makes a new one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            self._disconnect(connection)
        except Exception:
            log.debug("%s: closing failed", self.name, exc_info=True)

    def close(self) -> None:
        """For `Processor.close`. Idempotent."""
        self.lost()

    def _fail(self, error: Exception) -> None:
        self._why = f"{type(error).__name__}: {error}"
        self._not_before = self._clock() + delay_after(self._failures)
        self._failures += 1
