"""Senders that keep count: what was answered, and whether the store agrees.

Each mail has a token of its own. A sender tries again, as an MTA does, whatever was not answered
250, until all is delivered; the ledger says what became of each attempt, and `audit` compares it
with what a store holds: nothing answered 250 is missing or altered, and there are no more copies
than attempts whose fate the receiver could not know.
"""

from __future__ import annotations

import itertools
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple

from tests.corpora import as_sent, corpus, on_the_wire
from tests.wire import GONE, HELLO, Wire

MAILS: Final = 2_000
CONNECTIONS: Final = 100
KILLS: Final = 3

_LARGEST: Final = 32_768
"""Octets of a mail of the corpus that is sent this often; each test of a store sends the others."""
_PAUSE: Final = 0.05
"""Seconds that a sender waits after a 4xx: an MTA waits minutes."""
_TOKEN: Final = re.compile(rb"^X-Ledger: (\S+)\r\n", re.MULTILINE)
_ENVELOPE: Final = b"MAIL FROM:<from@example.org>\r\nRCPT TO:<%s>\r\nDATA\r\n"


class Mail(NamedTuple):
    """A mail to send."""

    token: str
    message: bytes
    """As a receiver with `bare_newline = "fix"` stores it."""


class Ledger:
    """What senders were told. Filled by many threads."""

    def __init__(self, mails: Sequence[Mail]) -> None:
        self.messages = {mail.token: mail.message for mail in mails}
        self.accepted: Counter[str] = Counter()
        """250 after the final dot, by token."""
        self.deferred: Counter[str] = Counter()
        """4xx after the final dot, by token."""
        self.unanswered: Counter[str] = Counter()
        """Connections that ended between the final dot and the answer, by token."""
        self.early: Counter[str] = Counter()
        """4xx before the data, by reply: nothing can have been stored."""
        self.dropped = 0
        """Connections that ended before the final dot."""
        self.other: list[str] = []
        """Anything else: a 5xx, or what is no reply. A receiver must not say it here."""
        self.lock = threading.Lock()

    @property
    def delivered(self) -> int:
        """Mails that have been answered 250."""
        return len(self.accepted)

    @property
    def refusals(self) -> int:
        """Attempts that were answered 4xx."""
        return self.deferred.total() + self.early.total()


def make_mails(count: int = MAILS) -> list[Mail]:
    """Mails of the corpus, round and round, each with a token in its first line."""
    bodies = [as_sent(path.read_bytes()) for path in corpus()]
    bodies = [body for body in bodies if len(body) <= _LARGEST]
    return [
        Mail(f"{number:06d}", b"X-Ledger: %06d\r\n" % number + body)
        for number, body in enumerate(itertools.islice(itertools.cycle(bodies), count))
    ]


def deliver(
    where: int | str,
    mails: Sequence[Mail],
    *,
    connections: int = CONNECTIONS,
    recipient: str = "to@example.com",
    disturb: Callable[[Ledger], None] | None = None,
    patience: float = 240.0,
) -> Ledger:
    """Sends all of them until each has been answered 250.

    Args:
        where: of the receiver, as `Wire` takes it.
        mails: what to send.
        connections: how many send at a time.
        recipient: of each mail.
        disturb: called in a thread of its own while they send; see `killer`.
        patience: seconds after which it fails.

    Raises:
        AssertionError: not all were accepted in time, with what was said last.
    """
    ledger = Ledger(mails)
    left = deque(mails)
    limit = time.monotonic() + patience
    with ThreadPoolExecutor(connections + 1) as pool:
        disturbing = pool.submit(disturb, ledger) if disturb is not None else None
        sending = [
            pool.submit(_Sender(where, ledger, left, recipient.encode(), limit).run)
            for _ in range(min(connections, len(mails)))
        ]
        for sender in sending:
            sender.result()
        if disturbing is not None:
            disturbing.result()
    assert ledger.delivered == len(mails), (
        f"{ledger.delivered} of {len(mails)} accepted; "
        f"{ledger.refusals} refusals, {ledger.other[:5]}"
    )
    return ledger


def killer(
    count: int,
    kill: Callable[[], object],
    restart: Callable[[], object],
    *,
    times: int = KILLS,
    seed: int = 1,
) -> Callable[[Ledger], None]:
    """For `deliver(disturb=…)`: takes away what the receiver stores into, at random moments.

    Each time some sender hears of it before it comes back: else nothing would have been tried.

    Args:
        count: mails that are sent.
        kill: takes it away.
        restart: brings it back.
        times: how often.
        seed: of the moments.
    """
    chance = random.Random(seed)
    part = count * 9 // 10 // times
    moments = [turn * part + chance.randrange(part) for turn in range(times)]

    def disturb(ledger: Ledger) -> None:
        for moment in moments:
            _wait(partial(_is_over, lambda: ledger.delivered, moment))
            before = ledger.refusals
            kill()
            try:
                _wait(partial(_is_over, lambda: ledger.refusals, before + 10))
            finally:
                restart()

    return disturb


def token_of(stored: bytes) -> str:
    """The token of what a store holds: whatever the receiver put before the message."""
    found = _TOKEN.search(stored)
    assert found, f"no mail of ours: {stored[:200]!r}"
    return found[1].decode()


def audit(ledger: Ledger, stored: Iterable[bytes], *, most_copies: int | None = None) -> int:
    """Compares what was answered with what is stored.

    Args:
        ledger: of the senders.
        stored: every message that the store holds, with any header fields before it.
        most_copies: copies beyond the first that there may be in all; by default as many as
            attempts whose fate the receiver could not know.

    Returns:
        The copies beyond the first.

    Raises:
        AssertionError: something accepted is not there, something is there that was not sent or is
            altered, a mail was answered other than 250 or 4xx, or there are too many copies.
    """
    assert not ledger.other, ledger.other[:10]
    copies: Counter[str] = Counter()
    for octets in stored:
        token = token_of(octets)
        assert token in ledger.messages, f"never sent: {token}"
        assert octets.endswith(ledger.messages[token]), f"altered: {token}"
        copies[token] += 1
    lost = sorted(set(ledger.accepted) - set(copies))
    assert not lost, f"{len(lost)} answered 250 and not stored: {lost[:10]}"
    for token, number in copies.items():
        unknown = ledger.deferred[token] + ledger.unanswered[token]
        allowed = ledger.accepted[token] + unknown
        assert number <= allowed, (
            f"{token}: stored {number} times, {allowed} attempts may have been"
        )
    extra = copies.total() - len(copies)
    if most_copies is not None:
        assert extra <= most_copies, f"{extra} copies, at most {most_copies} were expected"
    return extra


class _Sender:
    """One connection, made again when it ends."""

    def __init__(
        self, where: int | str, ledger: Ledger, left: deque[Mail], recipient: bytes, limit: float
    ) -> None:
        self.where = where
        self.ledger = ledger
        self.left = left
        self.envelope = _ENVELOPE % recipient
        self.limit = limit

    def run(self) -> None:
        while self.ledger.delivered < len(self.ledger.messages):
            if time.monotonic() > self.limit:
                return
            try:
                with Wire(self.where) as wire:
                    if wire.ask(HELLO).startswith("250 "):
                        self._send_all(wire)
            except (*GONE, ConnectionRefusedError, EOFError):
                time.sleep(_PAUSE)

    def _send_all(self, wire: Wire) -> None:
        for mail in self._mails():
            try:
                accepted = self._send(wire, mail)
            except BaseException:
                self.left.append(mail)
                raise
            if not accepted:
                self.left.append(mail)
                time.sleep(_PAUSE)

    def _mails(self) -> Iterator[Mail]:
        """What is left; waits where others still have some that may come back."""
        while time.monotonic() < self.limit:
            try:
                yield self.left.popleft()
            except IndexError:
                if self.ledger.delivered == len(self.ledger.messages):
                    return
                time.sleep(_PAUSE)

    def _send(self, wire: Wire, mail: Mail) -> bool:
        """Whether it was answered 250."""
        ledger = self.ledger
        try:
            wire.send(self.envelope)
            replies = [_reply(wire) for _ in range(3)]
        except (*GONE, EOFError):
            with ledger.lock:
                ledger.dropped += 1
            raise
        refused = [reply for reply in replies if reply[:3] not in {"250", "354"}]
        if refused:
            self._note(refused[0], ledger.early, refused[0])
            _wind_up(wire, replies[-1])
            return False
        try:
            wire.send(on_the_wire(mail.message))
            reply = _reply(wire)
        except (*GONE, EOFError):
            with ledger.lock:
                ledger.unanswered[mail.token] += 1
            raise
        if reply.startswith("250 "):
            with ledger.lock:
                ledger.accepted[mail.token] += 1
            return True
        self._note(reply, ledger.deferred, mail.token)
        return False

    def _note(self, reply: str, counter: Counter[str], key: str) -> None:
        with self.ledger.lock:
            if reply.startswith("4"):
                counter[key] += 1
            elif "No valid recipients" not in reply:
                self.ledger.other.append(reply)


def _reply(wire: Wire) -> str:
    reply = wire.reply()
    if not reply:
        raise EOFError
    return reply


def _wind_up(wire: Wire, last: str) -> None:
    """After a refusal: an empty message where the data was asked for all the same, then afresh."""
    if last.startswith("354"):
        wire.ask(b".\r\n")
    wire.ask(b"RSET\r\n")


def _is_over(count: Callable[[], int], bound: int) -> bool:
    return count() >= bound


def _wait(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.002)
