"""The time of day jumps an hour forward and back under load: no session hears of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

import apsw

from tests.faults.daemons import Returning, mails_in, stats
from tests.faults.load import ROOM, add, sustain
from tests.faults.tally import Tally
from tests.ledger import deliver, mixed_mails
from tests.running import RunningDaemon
from tests.wire import Wire, until

HOUR: Final = 3_600
JUMPS: Final = (HOUR, 0, -HOUR, 0)
"""Where the clock is set to in turn, from the right time."""
SUSPECTS: Final = (
    *("timeouts", "messages_deferred", "expired_before_commit", "saved_late", "answers_lost"),
    *("peer_gone", "memory_used", "memory_retained", "save_workers_abandoned", "breaker_opened"),
)
"""What it would count who took the time of day for a clock."""

CROWD: Final = 50
"""Mails that are received at each time of day."""
FAR: Final = 900_000
"""The number of the first mail of the second process."""
MEANWHILE: Final = b"X-Waits: " + b"x" * 900 + b"\r\n"
"""What a client says with each jump: by the right clock it is neither idle nor too slow."""
LAST: Final = b"X-Ledger: waiting\r\n\r\n.\r\n"
IN_ORDER: Final = "SELECT queued_id, unixepoch(date) FROM new_mail ORDER BY mail_id"

SLOW: Final = """\
import asyncio

from guerrilla import processor


@processor("Slow")
async def slow(envelope):
    await asyncio.sleep(0.01)
"""
"""A stage that runs under the deadline of its mail."""


class Clock:
    """The time of day of a process, by libfaketime.

    Args:
        folder: for the file that says what time it is.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)

    def set(self, offset: int) -> None:
        """So many seconds from the right time, from now on."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset:+d}\n")
        fresh.replace(self._file)

    @property
    def environment(self) -> Mapping[str, str]:
        """For a process that is to have it; CLOCK_MONOTONIC, which only counts, stays its own."""
        return {
            **os.environ,
            "LD_PRELOAD": os.fspath(_library()),
            "FAKETIME_TIMESTAMP_FILE": os.fspath(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def _library() -> Path:
    """Debian has it where the dynamic linker does not look by itself."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def start(folder: Path, clock: Clock) -> RunningDaemon:
    return RunningDaemon(
        folder,
        chain="HeadersParser|Slow|Header|SQL",
        server=f"timeout = 60\n{ROOM}",
        backend='import = ["slow"]\ngw_save_timeout = 60\nbreaker_failures = 1',
        environment=clock.environment,
    )


def ids_of(database: Path) -> list[tuple[str, int]]:
    """Queued ids and times of the stored mails, in the order in which they were stored."""
    with closing(apsw.Connection(os.fspath(database), apsw.SQLITE_OPEN_READONLY)) as connection:
        return list(connection.execute(IN_ORDER))


def goes_on(daemon: RunningDaemon) -> None:
    """Waits until mails have come that it has received from now on."""
    enough = stats(daemon)["messages_received"] + CROWD
    until(lambda: stats(daemon)["messages_accepted"] >= enough)


def test_a_clock_that_jumps_is_heard_by_nobody(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally]
) -> None:
    rounds = 6 if full else 1
    (tmp_path / "slow.py").write_text(SLOW)
    clock = Clock(tmp_path)
    with Returning(partial(start, tmp_path, clock)) as returning:
        with Wire(returning.daemon.port) as waiting:
            waiting.begin()  # a client in the midst of its message all the while

            def disturb() -> None:
                for offset in JUMPS * rounds:
                    clock.set(offset)
                    goes_on(returning.daemon)
                    waiting.send(MEANWHILE)

            ledger = sustain(returning.where, disturb)
            assert waiting.ask(LAST).startswith("250 ")
        until(lambda: stats(returning.daemon)["memory_retained"] == 0)
        found = stats(returning.daemon)
        returning.daemon.stop()
        # Another process, at a time that has been before.
        clock.set(-HOUR)
        returning.again()
        later = deliver(returning.where, mixed_mails(CROWD, first=FAR), connections=CROWD)
        add(ledger, later)
    assert {name: found[name] for name in SUSPECTS} == dict.fromkeys(SUSPECTS, 0)
    assert (ledger.unopened, ledger.dropped, ledger.refusals) == (0, 0, 0)
    ids, times = zip(*ids_of(tmp_path / "mail.db"), strict=True)
    assert len(set(ids)) == len(ids)
    for process in (ids[:-CROWD], ids[-CROWD:]):
        assert list(process) == sorted(process)
    assert max(times) - min(times) > 2 * HOUR - 60, "the clock did not jump"
    ours = (mail for mail in mails_in(tmp_path / "mail.db") if not mail.endswith(LAST[:-3]))
    note = "the time of day an hour on and back; and back at a restart"
    tally("clock", "SQLite").audit(ledger, ours, rounds=len(JUMPS) * rounds, note=note)
