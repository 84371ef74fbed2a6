"""What the daemons of one process share: the loggers, whose levels have to suit each of them."""

from __future__ import annotations

import logging
import threading
from typing import Final

from guerrilla.logs.form import OUTPUT

_LOGGERS: Final = (logging.getLogger("guerrilla"), logging.getLogger("guerrilla.mail"))


class SharedLevels:
    """The levels of the loggers `guerrilla` and `guerrilla.mail`: the lowest that anyone wants."""

    def __init__(self) -> None:
        """Nobody wants anything."""
        self._lock = threading.Lock()
        self._wanted: dict[object, tuple[int, int | None]] = {}
        self._before = (0, 0)

    def want(self, owner: object, main: int, mail: int | None) -> None:
        """What one daemon wants from now on; `mail` None: what it has without us."""
        with self._lock:
            if not self._wanted:
                self._before = (_LOGGERS[0].level, _LOGGERS[1].level)
            self._wanted[owner] = (main, mail)
            self._apply()

    def forget(self, owner: object) -> None:
        """A daemon has ended; after the last one the loggers are as before the first."""
        with self._lock:
            if self._wanted.pop(owner, None) is not None:
                self._apply()

    def _apply(self) -> None:
        mains = [main for main, _ in self._wanted.values()]
        mails = [mail for _, mail in self._wanted.values() if mail is not None]
        _LOGGERS[0].setLevel(min(mains, default=self._before[0]))
        _LOGGERS[1].setLevel(min(mails, default=self._before[1]))


SHARED: Final = SharedLevels()


class OwnRecords(logging.Filter):
    """Lets into a daemon's log what is its own, or of nobody in particular and not below its level.

    What the core makes is told by `OUTPUT`; it was looked at before. What Python code logs cannot
    be told apart: every daemon has it.
    """

    def __init__(self, owner: object) -> None:
        """Of one daemon's log."""
        super().__init__()
        self.level = logging.NOTSET
        self._owner = owner

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record belongs there."""
        owner = record.__dict__.get(OUTPUT)
        return record.levelno >= self.level if owner is None else owner is self._owner
