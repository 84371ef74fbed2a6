"""The thread that looks after the workers, and closes the intake where too many hang."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from guerrilla.engine.backends import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla.engine.worker import WorkerPool

log = logging.getLogger("guerrilla.worker")


class Supervisor:
    """The thread that looks after the pools.

    Args:
        pools: all of the daemon's.
    """

    def __init__(self, pools: Sequence[WorkerPool[Any]]) -> None:
        """Starts nothing."""
        self._pools = list(pools)
        self._closed: set[tuple[str, str]] = set()
        """Backends, and what of them is not taken: see `_taken_by`."""
        self.also: Callable[[], object] = lambda: None
        """What else is to be looked at each time."""
        self._stopping = False
        self.looked_at = time.monotonic()
        """When it last looked after the pools, as a monotonic time."""
        self._wake = threading.Event()
        self._interval = _interval(min(pool.settings.hang_after for pool in pools))
        self._thread = threading.Thread(target=self._run, name="guerrilla-supervisor", daemon=True)
        for pool in pools:
            pool.on_change = self._wake.set

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def replace(self, pools: Sequence[WorkerPool[Any]]) -> None:
        """Looks after these, and after those before them until their workers have ended."""
        for pool in pools:
            pool.on_change = self._wake.set
        retiring = [pool for pool in self._pools if pool not in pools and pool.size]
        self._pools = [*pools, *retiring]
        shortest = min(pool.settings.hang_after for pool in self._pools)
        self._interval = _interval(shortest)
        self._wake.set()

    def stop(self) -> None:
        """Ends the thread, after which nothing is replaced any more."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._interval)
            self._wake.clear()
            try:
                for pool in self._pools:
                    pool.check(time.monotonic())
                self._adjust_intake()
                self.also()
                self.looked_at = time.monotonic()
            except Exception:
                log.exception("the supervisor failed; it goes on")

    def _adjust_intake(self) -> None:
        pools = [pool for pool in self._pools if not pool.retired]
        exhausted = {_taken_by(pool) for pool in pools if pool.exhausted}
        for pool in pools:
            taken = name, what = _taken_by(pool)
            if (taken in exhausted) == (taken in self._closed):
                continue
            if what == "mail":
                # Not for the others: who sends need not log in, and what is spooled is safe.
                pool.set_intake(taken not in exhausted)
            what += "" if name == DEFAULT else f" of the backend {name}"
            if taken in exhausted:
                self._closed.add(taken)
                log.critical("too many workers hang: no %s is taken, restart the daemon", what)
            else:
                self._closed.discard(taken)
                log.warning("workers came back: %s is taken again", what)


def _taken_by(pool: WorkerPool[Any]) -> tuple[str, str]:
    """The backend, and what the pool takes of it, for a person."""
    what = {"authenticate": "login", "spooled": "spooled mail"}.get(pool.settings.name, "mail")
    return pool.settings.backend, what


def _interval(hang_after: float) -> float:
    """Seconds between two looks."""
    return min(1.0, max(0.05, hang_after / 40))
