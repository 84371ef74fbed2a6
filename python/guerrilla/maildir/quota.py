"""How much is in a maildir, without a scan for each message.

A maildir is scanned when it is first asked about, and again when that was some time ago or when it
seems full; in between what this process stores is added. So what readers delete, and what other
processes store, counts with some delay.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Usage", "scan", "usage_of"]

FRESH: Final = 60.0
"""Seconds for which a scan is good enough while there is room."""
FRESH_WHEN_FULL: Final = 2.0
"""Seconds for which it is, where there seems to be no room: mail is refused by it."""

_SIZE: Final = re.compile(r",S=([0-9]{1,18})(?=[:,]|$)")


class Usage:
    """The octets in one maildir; for all workers of a process.

    Args:
        path: of the maildir.
        clock: seconds that only grow.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._scanned_at: float | None = None
        self._stored = 0
        self._reserved = 0

    def has_room(self, size: int, quota: int) -> bool:
        """Whether so much more fits.

        Raises:
            OSError: the maildir cannot be read.
        """
        with self._lock:
            return self._fits(size, quota)

    def reserve(self, size: int, quota: int) -> bool:
        """Takes room for a message, where there is some; `settle` has to follow.

        Raises:
            OSError: the maildir cannot be read.
        """
        with self._lock:
            if not self._fits(size, quota):
                return False
            self._reserved += size
            return True

    def settle(self, size: int, *, stored: bool) -> None:
        """Ends a reservation: the message is there, or is not."""
        with self._lock:
            self._reserved -= size
            if stored:
                self._stored += size

    def _fits(self, size: int, quota: int) -> bool:
        if size > quota:
            return False
        self._refresh(FRESH)
        if self._stored + self._reserved + size <= quota:
            return True
        self._refresh(FRESH_WHEN_FULL)
        return self._stored + self._reserved + size <= quota

    def _refresh(self, age: float) -> None:
        now = self._clock()
        if self._scanned_at is None or now - self._scanned_at >= age:
            # A message that is published in between is counted twice until the next scan.
            self._stored = scan(self.path)
            self._scanned_at = now


_usages: Final[dict[str, Usage]] = {}
_usages_lock: Final = threading.Lock()


def usage_of(path: str) -> Usage:
    """The one of that maildir."""
    with _usages_lock:
        return _usages.setdefault(path, Usage(path))


def scan(path: str) -> int:
    """The octets of all messages in a maildir, its subfolders (`.Sent`, Maildir++) included.

    Sizes are read from names (`,S=`); a file whose name has none is looked at.

    Raises:
        OSError: the maildir cannot be read.
    """
    with os.scandir(path) as entries:
        inner = [e.path for e in entries if e.name[0] == "." and e.is_dir(follow_symlinks=False)]
    return sum(sum(_sizes(f"{folder}/{name}")) for folder in (path, *inner) for name in _PLACES)


_PLACES: Final = ("new", "cur")


def _sizes(path: str) -> Iterator[int]:
    try:
        entries = os.scandir(path)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            match = _SIZE.search(entry.name)
            if match is not None:
                yield int(match[1])
                continue
            with contextlib.suppress(FileNotFoundError):  # a reader has just moved it
                yield entry.stat(follow_symlinks=False).st_size
