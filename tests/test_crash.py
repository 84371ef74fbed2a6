"""The daemon is killed while many send to it: what was answered 250 is stored, whole and once."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import apsw

from tests.test_load import Sender, start, stored

ROUNDS: Final = 3
SENDERS: Final = 20
ENOUGH: Final = 5
"""Mails of each sender that are answered 250 before the daemon is killed."""


def kill_under_load(folder: Path, number: int) -> list[Sender]:
    """Kills a daemon while it stores; what each sender sent to it, and what was answered 250."""
    enough = threading.Event()

    def never(_: Sender) -> bool:
        if min(len(sender.queued) for sender in senders) >= ENOUGH:
            enough.set()
        return False

    with ThreadPoolExecutor(SENDERS) as threads:
        daemon = start(folder)
        try:
            senders = [Sender(daemon.port, f"crash{number}.{one}") for one in range(SENDERS)]
            running = [threads.submit(sender.run, until=never) for sender in senders]
            assert enough.wait(20)
        finally:
            daemon.kill()
        for sender in running:
            with contextlib.suppress(OSError):  # its connection was torn
                sender.result(20)
    return senders


def check(rows: Sequence[dict[str, Any]], senders: Sequence[Sender]) -> None:
    """Asserts that what was answered 250 is there, and that nothing is there by half.

    A mail that was stored just before its answer could be sent is there too: with each recipient
    and its whole message.
    """
    tried = {to: mail for sender in senders for to, mail in sender.tried.items()}
    found = {row["recipient"]: row["queued_id"] for row in rows}
    assert max(Counter(row["recipient"] for row in rows).values()) == 1
    assert all(stored(row) == tried[row["recipient"]].message for row in rows)
    for to, queued_id in found.items():
        assert {found.get(recipient) for recipient in tried[to].recipients} == {queued_id}
    queued = {
        to: queued_id
        for sender in senders
        for queued_id, mail in sender.queued.items()
        for to in mail.recipients
    }
    assert len(queued) >= SENDERS * ENOUGH
    assert queued.items() <= found.items()


def test_a_killed_daemon_has_stored_what_it_answered_for(tmp_path: Path) -> None:
    senders: list[Sender] = []
    for number in range(ROUNDS):
        # Each daemon begins with what the killed one before it left behind.
        senders += kill_under_load(tmp_path, number)
        assert (tmp_path / "mail.db-wal").stat().st_size > 0
    with start(tmp_path) as daemon:
        check(daemon.rows(), senders)
    check(daemon.rows(), senders)
    with contextlib.closing(apsw.Connection(os.fspath(daemon.db))) as connection:
        assert connection.pragma("integrity_check") == "ok"
