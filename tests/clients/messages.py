"""The mail that clients deliver, and whether it is stored as it was sent."""

from __future__ import annotations

import os
import subprocess
from typing import Any, Final

import apsw

from tests.running import RunningDaemon

SENDER: Final = "alice@example.org"
RECIPIENT: Final = "bob@example.com"
HELO: Final = "client.example.org"

# A dot at the start of a line, two of them, a dot alone, and no text at all: what stuffing is for.
# The Date is there since msmtp adds one otherwise.
MESSAGE: Final = (
    b"From: Alice <alice@example.org>\r\n"
    b"To: Bob <bob@example.com>\r\n"
    b"Subject: from a real client\r\n"
    b"Date: Mon, 23 Nov 2026 03:46:14 +0000\r\n"
    b"Message-ID: <1@example.org>\r\n"
    b"\r\n"
    b"Hello,\r\n"
    b".hidden\r\n"
    b"..twice\r\n"
    b".\r\n"
    b"\r\n"
    b"caf\xc3\xa9\r\n"
)
LF_MESSAGE: Final = MESSAGE.replace(b"\r\n", b"\n")
"""For clients that make the line ends themselves."""


def run(*command: list[str], message: bytes) -> str:
    """Runs a client with the message on its standard input; its own word says it was accepted.

    Returns:
        What it said.
    """
    words = [word for part in command for word in part]
    done = subprocess.run(words, input=message, capture_output=True, timeout=40, check=False)
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, f"{words[0]} failed\n{said}"
    return said


def assert_stored(
    daemon: RunningDaemon, message: bytes = MESSAGE, *, helo: str = ""
) -> dict[str, Any]:
    """The one row there is holds the delivery header and, after it, the message as it was sent.

    Returns:
        The row.
    """
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
    return row


def forget_mails(daemon: RunningDaemon) -> None:
    """Empties its table, for a daemon that several tests share."""
    connection = apsw.Connection(os.fspath(daemon.db))
    try:
        connection.set_busy_timeout(5_000)
        connection.execute("DELETE FROM new_mail")
    finally:
        connection.close()
