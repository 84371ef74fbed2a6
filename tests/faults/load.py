"""Senders that go on for as long as a fault lasts, and one ledger of what all of them were told."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.ledger import Ledger, Mail, Where, deliver, mixed_mails

CONNECTIONS: Final = 50
BATCH: Final = 300
"""Mails that are sent before it looks again whether the fault is over."""
ROOM: Final = "max_clients = 200"
"""Of a server: the connections of one batch may still be ending when those of the next one come."""


def sustain(
    where: Where,
    disturb: Callable[[], object],
    *,
    make: Callable[[int, int], list[Mail]] = lambda count, first: mixed_mails(count, first=first),
    connections: int = CONNECTIONS,
    tls: float = 0.0,
    batch: int = BATCH,
    least: int = 0,
) -> Ledger:
    """Sends mails until `disturb` has ended, and all of them are delivered.

    Args:
        where: of the receiver.
        disturb: what is done to it, in a thread of its own.
        make: makes so many mails, of which the first has this number.
        connections: how many send at a time.
        tls: the share of the connections that say STARTTLS first.
        batch: of how many mails these connections are; then come others.
        least: mails that are sent at least.
    """
    found = Ledger([])
    with ThreadPoolExecutor(1) as pool:
        disturbing = pool.submit(disturb)
        for first in itertools.count(step=batch):
            if disturbing.done() and first >= least:
                break
            mails = make(batch, first)
            add(found, deliver(where, mails, connections=connections, tls=tls))
        disturbing.result()
    return found


def add(found: Ledger, ledger: Ledger) -> None:
    """Adds what the senders of other mails were told."""
    found.messages |= ledger.messages
    found.accepted += ledger.accepted
    found.queued |= ledger.queued
    found.deferred += ledger.deferred
    found.unanswered += ledger.unanswered
    found.early += ledger.early
    found.heard += ledger.heard
    found.rejected += ledger.rejected
    found.rejections += ledger.rejections
    found.dropped += ledger.dropped
    found.opened += ledger.opened
    found.unopened += ledger.unopened
    found.other += ledger.other
