"""Many senders at once: every mail that was answered 250 is stored, once, byte for byte."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import smtplib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.corpora import as_sent
from tests.running import RunningDaemon

CONNECTIONS: Final = 50
MAILS: Final = 2_000
BIGGEST: Final = 20 * 1024
SENDERS: Final = 20
ENOUGH: Final = 10
"""Mails of each sender that are answered 250 before the daemon is told to stop."""

QUEUED: Final = re.compile(rb"2\.0\.0 OK: queued as ([0-9a-z]{26})")


class Mail(NamedTuple):
    """A mail that is like no other, by its recipients and, if it has room for it, its text."""

    recipients: tuple[str, ...]
    message: bytes


def mails(token: str, sizes: random.Random) -> Iterator[Mail]:
    """Mails without end, of any bytes, ended by CRLF, with dots at line starts."""
    for number in itertools.count():
        recipients = [f"{token}.{number}.{one}@example.com" for one in range(sizes.randint(1, 3))]
        size = sizes.choice((0, 1, 100, sizes.randint(0, BIGGEST), BIGGEST))
        text = f"Subject: {token}.{number}\n\n.\n..\n".encode() + sizes.randbytes(BIGGEST)
        yield Mail(tuple(recipients), as_sent(text[:size]))


class Sender:
    """One connection, and what came of the mails that were sent over it."""

    def __init__(self, port: int, token: str) -> None:
        self.mails = mails(token, random.Random(token))
        self.tried: dict[str, Mail] = {}
        """Every mail that was begun, by each of its recipients."""
        self.queued: dict[str, Mail] = {}
        """The mails that were answered 250, by their queued_id."""
        self.refusals: list[int] = []
        """All other replies to commands and messages than 250."""
        self._port = port

    def run(self, *, until: Callable[[Sender], bool]) -> None:
        """Sends until it is told to stop, until a 421 or until the connection is closed."""
        # Closed may also be the connection on which `with` says QUIT.
        with (
            contextlib.suppress(smtplib.SMTPServerDisconnected),
            smtplib.SMTP("127.0.0.1", self._port, "client.example.org", timeout=20) as client,
        ):
            client.ehlo_or_helo_if_needed()
            while not until(self) and 421 not in self.refusals:
                self._send(client, next(self.mails))

    def _send(self, client: smtplib.SMTP, mail: Mail) -> None:
        self.tried |= dict.fromkeys(mail.recipients, mail)
        queued = None
        for code, text in transaction(client, mail):
            if code != 250:
                self.refusals.append(code)
                if code != 421:
                    client.rset()
                return
            queued = QUEUED.fullmatch(text)
        assert queued is not None  # that is the last reply
        self.queued[queued[1].decode()] = mail


def transaction(client: smtplib.SMTP, mail: Mail) -> Iterator[tuple[int, bytes]]:
    """The answers to the commands of a transaction and to its message."""
    yield client.mail("from@example.org")
    for recipient in mail.recipients:
        yield client.rcpt(recipient)
    try:
        yield client.data(mail.message)
    except smtplib.SMTPDataError as refused:  # before the message
        text = refused.smtp_error
        yield refused.smtp_code, text if isinstance(text, bytes) else text.encode()


def stored(row: dict[str, Any]) -> bytes:
    """The message of a row, without the delivery header."""
    mail: bytes = row["mail"]
    to, received, by, date, message = mail.split(b"\r\n", 4)
    assert to == b"Delivered-To: " + row["recipient"].encode()
    assert received.startswith(b"Received: from client.example.org ")
    assert row["queued_id"].encode() in by
    assert date.startswith(b"\t")
    return message


def check(daemon: RunningDaemon, senders: Sequence[Sender]) -> None:
    """Asserts that what was answered 250 is stored as it was sent, once, and nothing else is."""
    rows = daemon.rows()
    tried = {to: mail for sender in senders for to, mail in sender.tried.items()}
    queued = {
        (queued_id, to)
        for sender in senders
        for queued_id, mail in sender.queued.items()
        for to in mail.recipients
    }
    assert max(Counter(row["recipient"] for row in rows).values()) == 1
    assert all(stored(row) == tried[row["recipient"]].message for row in rows)
    assert {(row["queued_id"], row["recipient"]) for row in rows} == queued


def start(folder: Path) -> RunningDaemon:
    backend = 'save_workers_size = 2\nprimary_mail_host = "example.com"'
    return RunningDaemon(folder, backend=backend)


# Both tests enter the daemon last: if they fail, its end is what ends the threads.


def test_every_mail_of_a_crowd_is_stored_once(tmp_path: Path) -> None:
    share = MAILS // CONNECTIONS
    with ThreadPoolExecutor(CONNECTIONS) as threads, start(tmp_path) as daemon:
        senders = [Sender(daemon.port, f"crowd{number}") for number in range(CONNECTIONS)]
        list(threads.map(lambda one: one.run(until=lambda one: len(one.queued) == share), senders))
    assert [sender.refusals for sender in senders] == [[]] * CONNECTIONS
    assert len({queued_id for sender in senders for queued_id in sender.queued}) == MAILS
    check(daemon, senders)


def test_a_stop_under_load_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    enough = threading.Event()

    def never(_: Sender) -> bool:
        if min(len(sender.queued) for sender in senders) >= ENOUGH:
            enough.set()
        return False

    with ThreadPoolExecutor(SENDERS) as threads, start(tmp_path) as daemon:
        senders = [Sender(daemon.port, f"stop{number}") for number in range(SENDERS)]
        # Each ends only when the daemon ends it.
        running = [threads.submit(sender.run, until=never) for sender in senders]
        assert enough.wait(60)
        daemon.stop()
        for sender in running:
            sender.result(20)
    refusals = {code for sender in senders for code in sender.refusals}
    assert refusals <= set(range(400, 500)), refusals
    # A graceful stop also leaves no sender in doubt: what is stored was answered.
    check(daemon, senders)
