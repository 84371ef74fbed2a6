"""Descriptors used up: who is there goes on or hears 4xx, who comes waits, and it recovers."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.daemons import where
from tests.faults.daemons import descriptors, hang_up, mails_in, mails_of, stats
from tests.faults.load import sustain
from tests.faults.tally import Tally
from tests.running import RunningDaemon
from tests.wire import HELLO, PATIENCE, TRANSACTION, Wire, cpu_seconds, until

LIMIT: Final = 64
CROWD: Final = 80
"""Clients that only hold a connection, besides those who send."""
SENDERS: Final = 20
"""They stay: what they leave has to be enough for the files of their mails."""
LIMITED: Final = ("sh", "-c", f'ulimit -n {LIMIT} && exec "$0" -m guerrilla "$@"', sys.executable)
QUIET: Final = 1.0
"""Seconds in which nobody sends, and many wait to be accepted."""
BUSY: Final = 0.4
"""Seconds of CPU that it may take meanwhile, with a reload: a loop that spins takes all of them."""
HELD: Final = 0.5
"""Seconds that the crowd stays each time."""

SMALL: Final = b"X-Ledger: small\r\n"
REFUSED: Final = "accept failed: Too many open files"

STORES: Final = {"SQLite": "SQL", "MailDir": "MailDir"}


def start(folder: Path, store: str) -> RunningDaemon:
    return RunningDaemon(
        folder,
        chain=f"HeadersParser|Header|{STORES[store]}",
        top="spill_size = '16 KiB'",  # many of the mails need a file of their own then
        server=f"max_clients = {LIMIT}",
        backend=f"maildir_path = '{folder}/[user]'\nmaildir_user_map = 'to=-1:-1'",
        command=LIMITED,
    )


def stored(folder: Path, store: str) -> Iterator[bytes]:
    return mails_in(folder / "mail.db") if store == "SQLite" else mails_of(folder / "to")


@contextmanager
def crowd(daemon: RunningDaemon) -> Iterator[None]:
    """Clients who take every descriptor that is left; some of them wait to be accepted."""
    before = daemon.log_text().count(REFUSED)
    with ExitStack() as held:
        for _ in range(CROWD):
            held.enter_context(socket.create_connection(where(daemon), PATIENCE))
        # Not by the count, which the daemon's own short-lived files keep below the limit.
        until(lambda: daemon.log_text().count(REFUSED) > before)
        yield


class Other:
    """Who sends a mail now and then beside the others, always the same one."""

    def __init__(self) -> None:
        self.taken = 0
        """How often it was answered 250."""

    def small(self, wire: Wire) -> str:
        """A mail of a client that is there: the last reply."""
        wire.send(TRANSACTION)
        replies = [wire.reply() for _ in range(3)]
        if not replies[-1].startswith("354"):
            return replies[-1]
        reply = wire.ask(SMALL + b"\r\n.\r\n")
        self.taken += reply.startswith("250 ")
        return reply

    def small_from_anew(self, daemon: RunningDaemon) -> str:
        """A mail of a client that comes now."""
        with Wire(daemon.port) as wire:
            wire.ask(HELLO)
            return self.small(wire)


@pytest.mark.parametrize("store", STORES)
def test_without_descriptors_nothing_is_lost_and_nothing_spins(
    tmp_path: Path, full: bool, tally: Callable[[str, str], Tally], store: str
) -> None:
    rounds, other = 8 if full else 1, Other()
    with start(tmp_path, store) as daemon:
        before = descriptors(daemon.pid)
        with Wire(daemon.port) as wire:
            assert wire.ask(HELLO).startswith("250 ")
            with crowd(daemon):
                hang_up(daemon)
                began = cpu_seconds(daemon.pid)
                time.sleep(QUIET)
                assert cpu_seconds(daemon.pid) - began < BUSY
                assert other.small(wire)[:3] in {"250", "451", "452"}
            until(lambda: descriptors(daemon.pid) <= before + 2)
            assert other.small(wire).startswith("250 ")

        def disturb() -> None:
            for _ in range(rounds):
                with crowd(daemon):
                    time.sleep(HELD)
                until(lambda: other.small_from_anew(daemon).startswith("250 "))

        ledger = sustain(daemon.port, disturb, connections=SENDERS)
        until(lambda: descriptors(daemon.pid) <= before + 2)
        assert stats(daemon)["accept_errors"] > 0
        assert "Traceback" not in daemon.log_text()
        with crowd(daemon):
            daemon.stop()
    ours = (mail for mail in stored(tmp_path, store) if SMALL not in mail)
    row = tally("no descriptors", store).audit(ledger, ours, rounds=rounds)
    assert (row.unanswered, row.doubled) == (0, 0)
    assert {code[:4] for code in ledger.heard} <= {"451 ", "452 "}
    others = [mail for mail in stored(tmp_path, store) if SMALL in mail]
    assert len(others) == other.taken
