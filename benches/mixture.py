"""Mail of all kinds, at a bounded rate: what a daemon sees in a long day, as `slope.py` sends it.

Sizes are spread evenly by their logarithm. Among the mails are some with several recipients and
some over TLS, commands that are refused, messages that their sender does not finish, and
connections that come for nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import clients

SECURE: Final = 0.2
"""The share of all that comes over TLS."""
LEAVES: Final = 0.02
"""How often a sender ends its connection, and opens another one."""
SMALLEST: Final = 1 << 10
HEADER: Final = b"Subject: a mixture\r\nFrom: a@example.com\r\nTo: b@example.net\r\n\r\n"
MAIL: Final = b"MAIL FROM:<a@example.com>"
END: Final = b"\r\n.\r\n"
LATE: Final = 1.0
"""Seconds that a sender may be late and still send all; what the machine cannot do is left out."""

KINDS: Final = {"mail": 88, "several": 6, "refused": 2, "reset": 2, "closed": 1, "visit": 1}
"""How often each comes, of a hundred."""
REFUSED: Final = (
    (MAIL + b" SIZE=999999999999\r\n", b"5"),
    (b"RCPT TO:<nobody>\r\n", b"5"),
    (b"MAIL FROM:<a@exam ple.com>\r\n", b"5"),
    (b"DATA\r\n", b"5"),
    (b"RSET\r\n", b"2"),
)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Who sends what: so many things a second, with messages of at most so many octets."""

    port: int
    rate: float
    largest: int
    secure: clients.Secure
    senders: int = 4
    """Each with a connection of either kind."""


class Pace:
    """Lets one thing begin after the other, all at the same distance."""

    def __init__(self, rate: float) -> None:
        self._gap = 1 / rate
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def wait(self, ends: threading.Event) -> bool:
        """Waits for the next turn; whether there is one before the end."""
        with self._lock:
            now = time.monotonic()
            turn = self._next = max(self._next + self._gap, now - LATE)
        return not ends.wait(max(0.0, turn - now))


class Sender:
    """One thing after the other, over two connections that are kept."""

    def __init__(self, mixture: Mixture, seed: int) -> None:
        self._mixture = mixture
        self._chance = random.Random(seed)
        self._kept: dict[bool, socket.socket] = {}
        self._text = clients.LINE * (mixture.largest // len(clients.LINE) + 1)
        self.sent: Counter[str] = Counter()

    def run(self, pace: Pace, ends: threading.Event) -> None:
        """Sends until it is told to end."""
        kinds, weights = list(KINDS), list(KINDS.values())
        try:
            while pace.wait(ends):
                (kind,) = self._chance.choices(kinds, weights)
                self._one(kind, secure=self._chance.random() < SECURE)
                self.sent[kind] += 1
        finally:
            for connection in self._kept.values():
                connection.close()

    def _one(self, kind: str, *, secure: bool) -> None:
        if kind == "visit":
            clients.session(self._mixture.port, self._mixture.secure if secure else None)
            return
        connection = self._connection(secure=secure)
        if kind == "refused":
            for octets, codes in REFUSED:
                connection.sendall(octets)
                clients.reply(connection, codes)
            return
        recipients = self._chance.randint(2, 20) if kind == "several" else 1
        message = self._begin(connection, recipients)
        if kind in ("reset", "closed"):
            connection.sendall(message[: self._chance.randint(0, len(message))])
            self._leave(secure=secure, reset=kind == "reset")
            return
        clients.ask(connection, message + END)
        if self._chance.random() < LEAVES:
            clients.ask(connection, b"QUIT\r\n")
            self._leave(secure=secure, reset=False)

    def _connection(self, *, secure: bool) -> socket.socket:
        if secure not in self._kept:
            way = self._mixture.secure if secure else None
            self._kept[secure] = clients.open_session(self._mixture.port, way)
        return self._kept[secure]

    def _leave(self, *, secure: bool, reset: bool) -> None:
        with self._kept.pop(secure) as connection:
            if reset:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _begin(self, connection: socket.socket, recipients: int) -> bytes:
        """Up to DATA; the message that is to follow."""
        clients.ask(connection, MAIL + b"\r\n")
        for number in range(recipients):
            clients.ask(connection, b"RCPT TO:<b%d@example.net>\r\n" % number)
        clients.ask(connection, b"DATA\r\n")
        exponent = self._chance.uniform(math.log(SMALLEST), math.log(self._mixture.largest))
        return HEADER + self._text[: int(math.exp(exponent))]


@contextlib.contextmanager
def sending(mixture: Mixture) -> Iterator[list[Sender]]:
    """The senders at work; one that fails says so at the end."""
    ends, pace = threading.Event(), Pace(mixture.rate)
    senders = [Sender(mixture, seed) for seed in range(mixture.senders)]
    with ThreadPoolExecutor(mixture.senders) as pool:
        running = [pool.submit(sender.run, pace, ends) for sender in senders]
        try:
            yield senders
        finally:
            ends.set()
        for one in running:
            one.result()
