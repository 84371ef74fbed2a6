"""The circuit breaker of a backend, as its workers see it: the state is the core's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from guerrilla.engine.backends import path_of

if TYPE_CHECKING:
    from guerrilla._core import Backend
    from guerrilla.engine.base import TaskName

log = logging.getLogger("guerrilla.worker")

_WHAT: Final = {"save": "saving", "validate": "checking recipients"}


class Breaker:
    """Tells the core how batches fare, and whether the next one is worth asking about.

    Shared by the workers of a pool, without a lock of its own.

    Args:
        backend: whose breaker it is.
        task: of the pool; each has its own.
    """

    def __init__(self, backend: Backend, task: TaskName) -> None:
        """Closed, where no other pool of the backend has opened it."""
        self._backend = backend
        self._task = task

    def admits(self, items: int) -> bool:
        """Whether a batch is to be asked about; else its items are answered `451`."""
        if self._backend.admits(self._task):
            return True
        self._backend.count_refused(items)
        return False

    def report(self, *, failed: bool | None) -> None:
        """What became of a batch; None where that says nothing of what it is saved in."""
        if failed is None:
            return
        turn = self._backend.report(self._task, failed)
        if turn is None:
            return
        where = f"{path_of(self._backend.name)}: {_WHAT[self._task]}"
        if turn == "opened":
            log.error("%s fails again and again: answered 451 until a trial succeeds", where)
        else:
            log.warning("%s works again: all is asked again", where)
