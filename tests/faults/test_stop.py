"""SIGTERM under load: who has an answer has it once, who has none may try again."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.faults.daemons import Returning, mails_in
from tests.faults.tally import Tally
from tests.ledger import Ledger, deliver, mixed_mails, wait_for
from tests.running import RunningDaemon
from tests.wire import Wire

CONNECTIONS: Final = 50
SHARE: Final = 300
"""Mails a round: a stop comes in the midst of them, and all are sent between two starts."""
AT_ONCE: Final = "guerrillad: stopped at once"
LATER: Final = 0.3
"""Seconds within which a second signal comes: as long as a stop under load takes."""


def start(folder: Path) -> RunningDaemon:
    return RunningDaemon(folder, backend="save_workers_size = 2")


def each_time(
    rounds: int, chance: random.Random, stop: Callable[[], object]
) -> Callable[[Ledger], None]:
    """For `deliver(disturb=…)`: stops it so often, each time in the midst of mails."""

    def disturb(ledger: Ledger) -> None:
        for turn in range(rounds):
            moment = turn * SHARE + chance.randrange(SHARE)
            wait_for(partial(_has, ledger, moment))
            stop()

    return disturb


def _has(ledger: Ledger, number: int) -> bool:
    return ledger.delivered >= number


def test_a_graceful_stop_loses_and_doubles_nothing(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    rounds = 30 if full else 3
    with Returning(partial(start, tmp_path)) as returning:

        def stop() -> None:
            returning.daemon.stop()  # asserts that its status is 0
            assert "Traceback" not in returning.daemon.log_text()
            returning.again()

        disturb = each_time(rounds, random.Random(1), stop)
        mails = mixed_mails(SHARE * (rounds + 1))
        ledger = deliver(returning.where, mails, connections=CONNECTIONS, disturb=disturb)
    stored = mails_in(tmp_path / "mail.db")
    row = tally("SIGTERM", "SQLite").audit(ledger, stored, rounds=rounds)
    # Who had sent a whole message was answered before its connection ended.
    assert (row.unanswered, row.doubled, ledger.deferred.total()) == (0, 0, 0)
    assert ledger.dropped >= rounds, "nobody was sending"


def test_a_stop_that_is_cut_short_loses_nothing(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    """By a second signal at any moment of the first one's stop: it ends at once."""
    rounds = 10 if full else 2
    chance = random.Random(2)
    statuses: list[int] = []
    with Returning(partial(start, tmp_path)) as returning:

        def stop() -> None:
            daemon = returning.daemon
            with ExitStack() as held:
                if not statuses:  # The first stop would wait for this message.
                    held.enter_context(Wire(daemon.port)).begin()
                daemon.process.send_signal(signal.SIGTERM)
                # Two that are pending together are one.
                wait_for(lambda: "SIGTERM: stopping" in daemon.log_text())
                time.sleep(chance.uniform(0, LATER))
                daemon.process.send_signal(chance.choice([signal.SIGTERM, signal.SIGINT]))
                statuses.append(returning.ended())
            with pytest.raises(ConnectionRefusedError):
                returning.where()
            assert (AT_ONCE in daemon.log_text()) == (statuses[-1] == 1)
            returning.again()

        disturb = each_time(rounds, chance, stop)
        mails = mixed_mails(SHARE * (rounds + 1))
        ledger = deliver(returning.where, mails, connections=CONNECTIONS, disturb=disturb)
    # 0 where it came too late to cut anything short.
    assert set(statuses) <= {0, 1}, statuses
    assert statuses[0] == 1
    stored = mails_in(tmp_path / "mail.db")
    tally("SIGTERM twice", "SQLite").audit(ledger, stored, rounds=rounds)
