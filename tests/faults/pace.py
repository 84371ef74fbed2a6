"""Senders who keep a rate, and the time that each mail took."""

from __future__ import annotations

import itertools
import random
import ssl
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from tests.certificates import encrypted
from tests.ledger import Ledger
from tests.wire import GONE, HELLO, TRANSACTION, Wire

SENDERS: Final = 50
SECRET: Final = 10
"""Of them so many say STARTTLS."""
STAY: Final = 40
"""Mails on one connection."""
PAUSE: Final = 0.05
"""Seconds that a sender waits after a 4xx, or when its connection has ended."""
_KINDS: Final = (
    (750, 0, 1_000),
    (220, 1_000, 8_000),
    (29, 8_000, 64_000),
    (1, 1_100_000, 1_200_000),
)
"""Sizes, from and to, and of how many mails in a thousand. The last are received as files."""


class Messages(dict[str, bytes]):
    """Messages by their tokens, as a ledger keeps them, but made when one is looked at."""

    def __init__(self) -> None:
        super().__init__()
        chance = random.Random(1)
        self._sizes = [
            chance.randint(least, most) for share, least, most in _KINDS for _ in range(share)
        ]
        chance.shuffle(self._sizes)
        line = bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=76)) + b"\r\n"
        self._text = line * (max(self._sizes) // len(line) + 1)

    def __getitem__(self, token: str) -> bytes:
        size = self._sizes[int(token) % len(self._sizes)]
        return b"X-Ledger: %s\r\n\r\n%s\r\n" % (token.encode(), self._text[:size].rstrip(b"\r"))


class Taken(NamedTuple):
    """A mail that was answered 250."""

    when: float
    """By `time.monotonic`."""
    seconds: float
    """From MAIL to the answer, of the try that succeeded."""


class Pace:
    """Many senders, until `end`.

    Args:
        port: of the receiver.
        ledger: whose messages are `Messages`.
        numbers: of the mails; shared by those who send to one store.
        rate: mails a second, of all of them together; 0: as fast as it goes.
    """

    def __init__(
        self, port: int, ledger: Ledger, numbers: Iterator[int], rate: float = 0.0
    ) -> None:
        self.ledger = ledger
        self.taken: list[Taken] = []
        self.failures: list[BaseException] = []
        """What ended a sender."""
        self._port = port
        self._numbers = numbers
        self._rate = rate
        self._slots = itertools.count()
        self._ending = threading.Event()
        self._began = time.monotonic()
        self._threads = [
            threading.Thread(target=self._run, args=(at < SECRET,)) for at in range(SENDERS)
        ]

    def start(self) -> None:
        """From now on they send."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Each ends with the mail that it has begun, when that is taken."""
        self._ending.set()
        for thread in self._threads:
            thread.join()
        assert not self.failures, self.failures

    def _run(self, secret: bool) -> None:
        token = ""
        try:
            while token or not self._ending.is_set():
                try:
                    with ExitStack() as opened:
                        wire = _opened(opened, self._port, secret=secret)
                        for _ in range(STAY):
                            token = token or self._next()
                            if not token:
                                return
                            if self._send(wire, token):
                                token = ""
                            else:
                                time.sleep(PAUSE)
                except (*GONE, ConnectionRefusedError, EOFError, ssl.SSLError):
                    time.sleep(PAUSE)
        except BaseException as error:  # noqa: BLE001 - told by `end`
            self.failures.append(error)

    def _next(self) -> str:
        """The token of the next mail, when it is its time; empty at the end."""
        if self._rate:
            due = self._began + next(self._slots) / self._rate
            if self._ending.wait(max(0.0, due - time.monotonic())):
                return ""
        if self._ending.is_set():
            return ""
        token = f"{next(self._numbers):07d}"
        dict.__setitem__(self.ledger.messages, token, b"")
        return token

    def _send(self, wire: Wire, token: str) -> bool:
        ledger, whole, began = self.ledger, False, time.monotonic()
        message = ledger.messages[token]
        try:
            wire.send(TRANSACTION)
            replies = [_reply(wire) for _ in range(3)]
            if not replies[-1].startswith("354 "):
                return self._refused(ledger.early, replies[-1], replies[-1])
            wire.send(message)
            wire.send(b".\r\n")
            whole = True
            reply = _reply(wire)
        except (*GONE, EOFError, ssl.SSLError):
            ledger.end(token, whole=whole)
            raise
        if not reply.startswith("250 "):
            return self._refused(ledger.deferred, token, reply)
        now = time.monotonic()
        ledger.take(token, reply)
        self.taken.append(Taken(now, now - began))
        return True

    def _refused(self, counter: Counter[str], key: str, reply: str) -> bool:
        with self.ledger.lock:
            if reply.startswith("4"):
                counter[key] += 1
            else:
                self.ledger.other.append(reply)
        if reply.startswith("421 "):
            raise EOFError
        return False


def slope(points: Sequence[tuple[float, float]]) -> float:
    """By least squares: how much the second of each grows while the first grows by one."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def quantile(taken: Sequence[Taken], share: float) -> float:
    """The seconds that this share of the mails took at most."""
    seconds = sorted(one.seconds for one in taken)
    return seconds[min(len(seconds) - 1, int(len(seconds) * share))]


def _opened(opened: ExitStack, port: int, *, secret: bool) -> Wire:
    wire = opened.enter_context(Wire(port))
    _ask(wire, HELLO)
    if secret:
        assert _ask(wire, b"STARTTLS\r\n").startswith("220 ")
        wire = opened.enter_context(encrypted(wire))
        _ask(wire, HELLO)
    return wire


def _ask(wire: Wire, octets: bytes) -> str:
    wire.send(octets)
    return _reply(wire)


def _reply(wire: Wire) -> str:
    reply = wire.reply()
    if not reply:
        raise EOFError
    return reply
