"""SIGTERM, as clients see it: the idle hear it at once, a transaction may be finished."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.running import RunningDaemon
from tests.wire import Wire

GOODBYE = "421 4.3.0 "


def ended(daemon: RunningDaemon) -> int:
    """The status it ends with, without another signal."""
    status = daemon.process.wait(20)
    daemon.kill()
    return status


def test_the_idle_are_told_at_once_and_transactions_may_finish(tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path)
    with Wire(daemon.port) as silent, Wire(daemon.port) as greeted, Wire(daemon.port) as busy:
        greeted.ask(b"EHLO client.example.org\r\n")
        busy.ask(b"EHLO client.example.org\r\n")
        assert busy.ask(b"MAIL FROM:<a@example.org>\r\n").startswith("250 ")
        daemon.process.send_signal(signal.SIGTERM)
        for idle in (silent, greeted):
            assert [line[: len(GOODBYE)] for line in idle.rest()] == [GOODBYE]
        # Nobody else is let in, and the transaction takes as long as it takes.
        where = ("127.0.0.1", daemon.port)
        with contextlib.suppress(ConnectionError), socket.create_connection(where, 20) as late:
            assert late.recv(3) in {b"", b"421"}
        assert daemon.process.poll() is None
        assert busy.ask(b"RCPT TO:<b@example.com>\r\n").startswith("250 ")
        assert busy.ask(b"DATA\r\n").startswith("354 ")
        assert busy.ask(b"Subject: last\r\n\r\n.\r\n").startswith("250 2.0.0 ")
        assert [line[: len(GOODBYE)] for line in busy.rest()] == [GOODBYE]
    assert ended(daemon) == 0
    assert [row["subject"] for row in daemon.rows()] == ["last"]


@pytest.mark.parametrize("ending", [b"RSET\r\n", b"DATA\r\n"])
def test_whoever_leaves_its_transaction_is_told_then(tmp_path: Path, ending: bytes) -> None:
    """By RSET, or by a DATA that is refused: it has no recipient."""
    daemon = RunningDaemon(tmp_path)
    with Wire(daemon.port) as busy:
        busy.ask(b"EHLO client.example.org\r\n")
        busy.ask(b"MAIL FROM:<a@example.org>\r\n")
        daemon.process.send_signal(signal.SIGTERM)
        busy.ask(ending)
        if ending != b"RSET\r\n":
            busy.ask(b"RSET\r\n")
        assert [line[: len(GOODBYE)] for line in busy.rest()] == [GOODBYE]
    assert ended(daemon) == 0


def test_a_transaction_has_shutdown_timeout_and_no_longer(tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path, top='shutdown_timeout = "500ms"')
    with Wire(daemon.port).begin() as busy:
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        # It may hear why; what it does not hear is that its mail was taken.
        assert not [line for line in busy.rest() if not line.startswith("421 ")]
        assert 0.4 < time.monotonic() - began < 10
    assert ended(daemon) == 1
    assert "sessions were cut off after " in daemon.log_text()
    assert daemon.rows() == []


def test_a_second_signal_waits_for_no_transaction(tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path)
    with Wire(daemon.port) as idle, Wire(daemon.port).begin() as busy:
        daemon.process.send_signal(signal.SIGTERM)
        assert [line[: len(GOODBYE)] for line in idle.rest()] == [GOODBYE]
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        assert ended(daemon) == 1
        assert time.monotonic() - began < 5
        assert busy.rest() == []
    assert "guerrillad: stopped at once" in daemon.log_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_that_comes_too_late_changes_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    """When the interpreter has given the handlers up, it would be what the process ends by."""
    (tmp_path / "last_moment.py").write_text(LAST_MOMENT.format(number=int(number)))
    daemon = RunningDaemon(tmp_path, backend='import = ["last_moment"]')
    daemon.process.send_signal(signal.SIGTERM)
    assert ended(daemon) == 0


LAST_MOMENT = """\
import os


class Last:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {number})


last = Last()
"""
