"""Clients that were not written by us deliver mail to a running daemon."""

from __future__ import annotations

import smtplib
import subprocess

import pytest

from tests.running import RunningDaemon, running_daemon

__all__ = ["running_daemon"]

SENDER = "alice@example.org"
RECIPIENT = "bob@example.com"
# A dot at the start of a line, two of them, a dot alone, and no text at all: what stuffing is for.
MESSAGE = (
    b"From: Alice <alice@example.org>\r\n"
    b"To: Bob <bob@example.com>\r\n"
    b"Subject: from a real client\r\n"
    b"Message-ID: <1@example.org>\r\n"
    b"\r\n"
    b"Hello,\r\n"
    b".hidden\r\n"
    b"..twice\r\n"
    b".\r\n"
    b"\r\n"
    b"caf\xc3\xa9\r\n"
)


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
        ["--helo", "client.example.org", "--from", SENDER, "--to", RECIPIENT, "--data", "-"],
        # swaks makes the line ends itself.
        message=MESSAGE.replace(b"\r\n", b"\n"),
    )
    # It ends every message with an empty line of its own.
    assert_stored(running_daemon, MESSAGE + b"\r\n", helo="client.example.org")


def test_swaks_pipelining(running_daemon: RunningDaemon) -> None:
    run(
        ["swaks", "--server", "127.0.0.1", "--port", str(running_daemon.port), "--pipeline"],
        ["--helo", "client.example.org", "--from", SENDER, "--to", RECIPIENT, "--data", "-"],
        message=MESSAGE.replace(b"\r\n", b"\n"),
    )
    assert_stored(running_daemon, MESSAGE + b"\r\n", helo="client.example.org")


@pytest.mark.parametrize("option", [[], ["--crlf"]], ids=["as it is", "crlf"])
def test_curl(running_daemon: RunningDaemon, option: list[str]) -> None:
    run(
        ["curl", "--silent", "--show-error", "--max-time", "20", "--upload-file", "-", *option],
        ["--mail-from", SENDER, "--mail-rcpt", RECIPIENT],
        [f"smtp://127.0.0.1:{running_daemon.port}/client.example.org"],
        message=MESSAGE.replace(b"\r\n", b"\n") if option else MESSAGE,
    )
    assert_stored(running_daemon, helo="client.example.org")


def run(*command: list[str], message: bytes) -> None:
    """Runs a client with the message on its standard input; its own word says it was accepted."""
    words = [word for part in command for word in part]
    done = subprocess.run(words, input=message, capture_output=True, timeout=40, check=False)
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, f"{words[0]} failed\n{said}"


def assert_stored(daemon: RunningDaemon, message: bytes = MESSAGE, *, helo: str = "") -> None:
    """The one row there is holds the delivery header and, after it, the message as it was sent."""
    [row] = daemon.rows()
    mail: bytes = row["mail"]
    assert mail.endswith(b"\r\n" + message)
    delivery_header = mail.removesuffix(message)
    assert f"from {helo}".encode() in delivery_header
    assert row["queued_id"].encode() in delivery_header
    assert (row["recipient"], row["return_path"]) == (RECIPIENT, SENDER)
    assert row["subject"] == "from a real client"
    # Nothing goes wrong behind the client's back.
    assert not [line for line in daemon.log_text().splitlines() if "ERROR" in line.upper()]
