"""New keys for TLS tickets, every few hours."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guerrilla._core import SharedMemory

EVERY = 6.0 * 60 * 60
"""Seconds: a ticket says that it is good for twelve hours, which are two keys."""

log = logging.getLogger("guerrilla.tls")


@contextmanager
def rotating(memory: SharedMemory) -> Iterator[None]:
    """Gives all processes a new key each time, in a thread that ends with it.

    One that cannot be made is told of; the keys that are there stay for as long again.
    """
    ended = threading.Event()

    def rotate() -> None:
        while not ended.wait(EVERY):
            try:
                memory.rotate_tickets()
            except OSError as error:
                log.warning("no new key for TLS tickets, the old one stays: %s", error)

    thread = threading.Thread(target=rotate, name="guerrilla-tickets", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
