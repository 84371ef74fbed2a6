"""Clients that were not written by us deliver mail to a running daemon."""

from __future__ import annotations

import smtplib

import pytest

from tests.clients.messages import HELO, LF_MESSAGE, MESSAGE, RECIPIENT, SENDER, assert_stored, run
from tests.running import RunningDaemon, running_daemon

__all__ = ["running_daemon"]


def test_smtplib(running_daemon: RunningDaemon) -> None:
    with smtplib.SMTP("127.0.0.1", running_daemon.port, timeout=20) as client:
        assert client.sendmail(SENDER, [RECIPIENT], MESSAGE) == {}
    assert_stored(running_daemon)


def test_smtplib_with_many_messages_on_one_connection(running_daemon: RunningDaemon) -> None:
    with smtplib.SMTP("127.0.0.1", running_daemon.port, timeout=20) as client:
        for number in range(5):
            client.sendmail(SENDER, [RECIPIENT], MESSAGE + b"%d\r\n" % number)
    mails = [row["mail"] for row in running_daemon.rows()]
    assert len(mails) == 5
    for number, mail in enumerate(mails):
        assert mail.endswith(b"\r\n" + MESSAGE + b"%d\r\n" % number)


def test_swaks(running_daemon: RunningDaemon) -> None:
    run(
        ["swaks", "--server", "127.0.0.1", "--port", str(running_daemon.port)],
        ["--helo", HELO, "--from", SENDER, "--to", RECIPIENT, "--data", "-"],
        message=LF_MESSAGE,
    )
    # It ends every message with an empty line of its own.
    assert_stored(running_daemon, MESSAGE + b"\r\n", helo=HELO)


def test_swaks_pipelining(running_daemon: RunningDaemon) -> None:
    run(
        ["swaks", "--server", "127.0.0.1", "--port", str(running_daemon.port), "--pipeline"],
        ["--helo", HELO, "--from", SENDER, "--to", RECIPIENT, "--data", "-"],
        message=LF_MESSAGE,
    )
    assert_stored(running_daemon, MESSAGE + b"\r\n", helo=HELO)


@pytest.mark.parametrize("option", [[], ["--crlf"]], ids=["as it is", "crlf"])
def test_curl(running_daemon: RunningDaemon, option: list[str]) -> None:
    run(
        ["curl", "--silent", "--show-error", "--max-time", "20", "--upload-file", "-", *option],
        ["--mail-from", SENDER, "--mail-rcpt", RECIPIENT],
        [f"smtp://127.0.0.1:{running_daemon.port}/{HELO}"],
        message=LF_MESSAGE if option else MESSAGE,
    )
    assert_stored(running_daemon, helo=HELO)
