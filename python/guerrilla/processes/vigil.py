"""The watch over children that serve: one that gives no sign of life is ended, and has a successor.

One that has died is known at once, by its parent's wait. One that stands still is not: what it has
accepted hangs, what connects to it waits, and a reload waits for it. It is asked now and then, as
the watchdog of a service manager asks; but that would end all others as well.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from guerrilla.processes.channel import ChannelError, RefusedError
from guerrilla.processes.children import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guerrilla.processes.channel import Asked
    from guerrilla.processes.children import Child
    from guerrilla.processes.lives import Life

log = logging.getLogger("guerrilla.processes")

EVERY = 5.0
"""Seconds from one question to the next, and for its answer. Not a constant: tests have less
patience."""

MOST = 6
"""Questions in a row without an answer, which are a minute at most. Counted, and not by the clock:
a machine that was halted has halted the parent too. Not fewer: a processor may hold the
interpreter's lock for a while, and a process may wait for its memory."""


class _Watched(NamedTuple):
    """A process, and the question that it is to answer; none where it could not be asked."""

    number: int
    life: Life
    asked: Asked | None


@contextmanager
def keeping(children: Sequence[Child]) -> Iterator[None]:
    """Watches over them, in a thread that ends with it."""
    ended = threading.Event()

    def watch() -> None:
        silent: dict[Life, int] = {}
        while not ended.wait(EVERY):
            watched = [one for child in children if (one := _ask(child)) is not None]
            limit = time.monotonic() + EVERY
            silent = {
                one.life: silent.get(one.life, 0) + 1 for one in watched if not _answers(one, limit)
            }
            for one in watched:
                if silent.get(one.life, 0) >= MOST and not ended.is_set():
                    what = f"process {one.number} (pid {one.life.pid})"
                    log.critical("%s has given no sign of life for a while: it is killed", what)
                    one.life.kill()

    thread = threading.Thread(target=watch, name="guerrilla-vigil", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _ask(child: Child) -> _Watched | None:
    """Asks one that serves, or that stops to be replaced: its successor waits for its end."""
    life = child.life
    if life is None or child.state not in (State.SERVING, State.STOPPING):
        return None
    try:
        arguments = {"within": EVERY * MOST}
        return _Watched(child.number, life, life.asking.begin("ping", arguments, timeout=EVERY))
    except ChannelError:
        return _Watched(child.number, life, None)


def _answers(one: _Watched, limit: float) -> bool:
    """Whether it says anything: one that stops by itself is not well, and not to be cut short."""
    if one.asked is None:
        return False
    try:
        one.life.asking.answer(one.asked, limit - time.monotonic())
    except RefusedError:
        pass
    except ChannelError:
        return False
    return True
