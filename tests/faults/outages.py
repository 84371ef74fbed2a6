"""What is done to a server that mails are stored into, while mails come in; and its end.

Each outage takes something away, waits until senders have felt it, and brings it back. It is called
in a thread of its own at random moments of a delivery: see `outages`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.faults.behind import Behind
from tests.ledger import Ledger, reach

FELT: Final = 10
"""Attempts that must have failed before something comes back."""
SLOW: Final = 0.2
"""Seconds each way."""
SLOWLY: Final = 12
"""Pieces of talk that must have been so late."""
_PATIENCE: Final = 60.0


Outage = Callable[[Behind, Ledger], None]


def stopped(behind: Behind, ledger: Ledger) -> None:
    """Stopped as its owner would, and started when senders have been refused."""
    before = ledger.refusals
    behind.server.stop()
    try:
        until(lambda: ledger.refusals >= before + FELT)
    finally:
        behind.server.start()


def restarted(behind: Behind, ledger: Ledger) -> None:
    """Stopped and started at once: whoever has a connection loses it, and has to come again."""
    behind.server.stop()
    before = ledger.delivered
    assert before < len(ledger.messages), "nobody was sending any more"
    behind.server.start()
    until(lambda: ledger.delivered >= min(before + FELT, len(ledger.messages)))


def hung(behind: Behind, ledger: Ledger) -> None:
    """Stands still for longer than any time limit, and goes on with what it had been given."""
    before = ledger.refusals
    behind.server.pause()
    try:
        until(lambda: ledger.refusals >= before + FELT)
    finally:
        behind.server.resume()


def slowed(behind: Behind, ledger: Ledger) -> None:
    """Everything takes 200 ms each way; mails are saved all the same."""
    del ledger
    before = behind.proxy.late
    behind.proxy.delay = SLOW
    try:
        until(lambda: behind.proxy.late >= before + SLOWLY)
    finally:
        behind.proxy.delay = 0.0


def cut_off(behind: Behind, ledger: Ledger) -> None:
    """All its connections are ended, several times, by a reset and by a FIN in turn."""
    for turn in range(6):
        before = ledger.delivered
        # Else all may be through before the last cut, and nobody connects any more.
        ledger.most = before + 2 * FELT
        until(lambda: behind.proxy.drop(reset=turn % 2 == 0) > 0)  # noqa: B023 - called at once
        until(lambda: ledger.delivered >= min(before + FELT, len(ledger.messages)))  # noqa: B023
    ledger.most = None


def outages(behind: Behind, kinds: Sequence[Outage], *, seed: int = 1) -> Callable[[Ledger], None]:
    """For `deliver(disturb=…)`: each of them in turn, at random moments of the delivery."""
    chance = random.Random(seed)

    def disturb(ledger: Ledger) -> None:
        part = len(ledger.messages) * 8 // 10 // len(kinds)
        for turn, outage in enumerate(kinds):
            moment = turn * part + chance.randrange(1, part)
            reach(ledger, moment)
            ledger.most = None
            outage(behind, ledger)

    return disturb


def until(true: Callable[[], object], patience: float = _PATIENCE) -> None:
    """Waits until something is true; fails when it does not become so."""
    limit = time.monotonic() + patience
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.002)
