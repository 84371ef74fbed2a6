"""The watch over children that serve: what stands still is ended, and has a successor.

One that has died is known at once, by its parent's wait. One that stands still is not: what it has
accepted hangs, what connects to it waits, and a reload waits for it. It is asked now and then, as
the watchdog of a service manager asks; but that would end all others as well. So it is this watch
alone that a service manager hears of.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from guerrilla.processes.channel import STOPS, ChannelError, RefusedError
from guerrilla.processes.children import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from guerrilla.processes.channel import Asked
    from guerrilla.processes.children import Child
    from guerrilla.processes.lives import Life

log = logging.getLogger("guerrilla.processes")

EVERY = 5.0
"""Seconds from one question to the next, and for its answer. Not a constant: tests have less
patience."""

MOST = 6
"""Questions in a row without a good answer, which are a minute at most. Counted, and not by the
clock: a machine that was halted has halted the parent too. Not fewer: a processor may hold the
interpreter's lock for a while, and a process may wait for its memory."""

_LATE = 4
"""Rounds that the watch itself may be late: a machine may have more to do than it can."""


class _Watched(NamedTuple):
    """A process, and the question that it is to answer; none where it could not be asked."""

    child: Child
    life: Life
    asked: Asked | None


class Vigil:
    """The watch, once it is kept.

    Args:
        children: which are watched.
        also: is called each time.
    """

    def __init__(self, children: Sequence[Child], also: Callable[[], object]) -> None:
        """Watches nobody."""
        self._children = children
        self._also = also
        self._silent: dict[Life, int] = {}
        """Questions in a row without a good answer."""
        self._ended = threading.Event()
        self._looked_at = time.monotonic()

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Watches over them, in a thread that ends with it."""
        self._looked_at = time.monotonic()
        threading.Thread(target=self._watch, name="guerrilla-vigil", daemon=True).start()
        try:
            yield
        finally:
            self._ended.set()

    def is_kept(self, within: float) -> bool:
        """Whether it has looked at them in the last seconds: at least as many as it may take."""
        return time.monotonic() - self._looked_at <= max(within, EVERY * _LATE)

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            try:
                self._look()
                self._looked_at = time.monotonic()
                self._also()
            except Exception:
                log.exception("the processes cannot be watched over")

    def _look(self) -> None:
        for child in self._children:
            child.end_if_late()
        watched = [one for child in self._children if (one := _ask(child)) is not None]
        limit = time.monotonic() + EVERY
        before = self._silent
        self._silent = {
            one.life: before.get(one.life, 0) + 1 for one in watched if not _is_well(one, limit)
        }
        for one in watched:
            if self._silent.get(one.life, 0) >= MOST and not self._ended.is_set():
                what = f"process {one.child.number} (pid {one.life.pid})"
                log.critical("%s has given no sign of life for a while: it is killed", what)
                one.life.kill()


def _ask(child: Child) -> _Watched | None:
    """Asks one that serves, or that stops to be replaced: its successor waits for its end."""
    life = child.life
    if life is None or child.state not in (State.SERVING, State.STOPPING):
        return None
    if life.asking.has_ended:
        # To it the parent is gone: it stops by itself, and has its time for that.
        child.leaves(life)
        return None
    try:
        arguments = {"within": EVERY * MOST}
        return _Watched(child, life, life.asking.begin("ping", arguments, timeout=EVERY))
    except ChannelError:
        return _Watched(child, life, None)


def _is_well(one: _Watched, limit: float) -> bool:
    """Whether it says so: one that stops by itself is not to be cut short."""
    if one.asked is None:
        return False
    try:
        return one.life.asking.answer(one.asked, limit - time.monotonic()) is True
    except RefusedError as error:
        if error.kind == STOPS:
            one.child.leaves(one.life)
    except ChannelError:
        return False
    return True
