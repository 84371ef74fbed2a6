"""Senders that keep count: what was answered, and whether the store agrees.

Each mail has a token of its own. A sender tries again, as an MTA does, whatever was not answered
250, until all is delivered; the ledger says what became of each attempt, and `audit` compares it
with what a store holds: nothing answered 250 is missing or altered, nothing is there that was
refused for good, and there are no more copies than attempts whose fate the receiver could not know.
"""

from __future__ import annotations

import contextlib
import random
import re
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeAlias

from tests.certificates import encrypted
from tests.corpora import on_the_wire
from tests.mails import MAILS, Mail, make_mails, mixed_mails, token_of
from tests.wire import GONE, HELLO, Wire

__all__ = [
    "CONNECTIONS",
    "KILLS",
    "MAILS",
    "Ledger",
    "Mail",
    "Where",
    "audit",
    "deliver",
    "killer",
    "make_mails",
    "mixed_mails",
    "token_of",
    "wait_for",
]

CONNECTIONS: Final = 100
KILLS: Final = 3

_PAUSE: Final = 0.05
"""Seconds that a sender waits after a 4xx: an MTA waits minutes."""
_QUEUED: Final = re.compile(r"250 2\.0\.0 OK: queued as ([0-9a-z]{26})$")
_FIELDS: Final = re.compile(rb"(?:[!-9;-~]+:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n)*")
"""Whole header fields, and nothing else."""
_ID: Final = re.compile(rb" id ([0-9a-z]{26});\r\n")
"""Of a `Received` field that `Header` has made."""
_ENVELOPE: Final = b"MAIL FROM:<from@example.org>\r\nRCPT TO:<%s>\r\nDATA\r\n"


Where: TypeAlias = int | str | Callable[[], int | str]
"""Of a receiver, as `Wire` takes it; or what says where it is, asked before each connection."""


class Ledger:
    """What senders were told. Filled by many threads.

    Args:
        mails: what they send.
        may_reject: a 5xx is an answer as good as another, and ends the tries of its mail; else it
            is a failure.
    """

    def __init__(self, mails: Sequence[Mail], *, may_reject: bool = False) -> None:
        self.may_reject = may_reject
        self.messages = {mail.token: mail.message for mail in mails}
        self.accepted: Counter[str] = Counter()
        """250 after the final dot, by token."""
        self.queued: dict[str, str] = {}
        """The ids that those named, by token."""
        self.deferred: Counter[str] = Counter()
        """4xx after the final dot, by token."""
        self.unanswered: Counter[str] = Counter()
        """Connections that ended between the final dot and the answer, by token."""
        self.early: Counter[str] = Counter()
        """4xx before the data, by reply: nothing can have been stored."""
        self.rejected: Counter[str] = Counter()
        """5xx before or after the data, by token."""
        self.rejections: list[str] = []
        """What those said."""
        self.heard: Counter[str] = Counter()
        """Refusals by their codes, as "452 4.3.1"."""
        self.dropped = 0
        """Connections that ended before the final dot."""
        self.opened = 0
        """Connections on which EHLO was answered 250, within TLS where that was asked for."""
        self.unopened = 0
        """Tries to connect that did not come so far: nobody listened, or not to EHLO or STARTTLS."""
        self.other: list[str] = []
        """Anything else: what is no reply, or a code that has no place there."""
        self.lock = threading.Lock()

    @property
    def delivered(self) -> int:
        """Mails that have been answered 250."""
        return len(self.accepted)

    @property
    def settled(self) -> int:
        """Mails that need no more tries: answered 250, or refused for good."""
        if not self.rejected:
            return len(self.accepted)
        with self.lock:
            return len(self.accepted.keys() | self.rejected.keys())

    @property
    def lost_answers(self) -> int:
        """Attempts that may have been stored, of which the sender cannot know."""
        return self.unanswered.total()

    @property
    def attempts(self) -> int:
        """Times that a mail was sent whole, or refused before it was."""
        return self.accepted.total() + self.refusals + self.rejected.total() + self.lost_answers

    @property
    def refusals(self) -> int:
        """Attempts that were answered 4xx."""
        return self.deferred.total() + self.early.total()

    def meet(self, *, is_open: bool) -> None:
        """Writes a try to connect down."""
        with self.lock:
            self.opened += is_open
            self.unopened += not is_open

    def take(self, token: str, reply: str) -> None:
        """Writes a 250 after the final dot down."""
        queued = _QUEUED.match(reply)
        with self.lock:
            self.accepted[token] += 1
            if queued is not None:
                self.queued[token] = queued[1]

    def end(self, token: str, *, whole: bool) -> None:
        """Writes the end of a connection down.

        Args:
            token: of the mail that it was about.
            whole: whether the final dot was sent. Else nothing of it may be stored.
        """
        with self.lock:
            if whole:
                self.unanswered[token] += 1
            else:
                self.dropped += 1


def deliver(
    where: Where,
    mails: Sequence[Mail],
    *,
    connections: int = CONNECTIONS,
    recipient: str = "to@example.com",
    disturb: Callable[[Ledger], None] | None = None,
    patience: float = 240.0,
    tls: float = 0.0,
    may_reject: bool = False,
    pause: float = 0.0,
) -> Ledger:
    """Sends all of them until each has been answered 250.

    Args:
        where: of the receiver.
        mails: what to send.
        connections: how many send at a time.
        recipient: of each mail.
        disturb: called in a thread of its own while they send; see `killer`.
        patience: seconds after which it fails.
        tls: the share of the connections that say STARTTLS first.
        may_reject: whether a mail may be answered 5xx, which ends the tries.
        pause: seconds that a sender rests behind a mail, so that a fast machine is not through
            before what disturbs takes effect.

    Raises:
        AssertionError: not all were accepted in time, with what was said last.
    """
    ledger = Ledger(mails, may_reject=may_reject)
    left = deque(mails)
    number = min(connections, len(mails))
    limit = time.monotonic() + patience
    with ThreadPoolExecutor(connections + 1) as pool:
        disturbing = pool.submit(disturb, ledger) if disturb is not None else None
        sending = [
            pool.submit(
                _Sender(
                    where, ledger, left, recipient.encode(), limit, secret=secret, pause=pause
                ).run
            )
            for secret in (index < round(tls * number) for index in range(number))
        ]
        for sender in sending:
            sender.result()
        if disturbing is not None:
            disturbing.result()
    assert (ledger.settled if may_reject else ledger.delivered) == len(mails), (
        f"{ledger.delivered} of {len(mails)} accepted; "
        f"{ledger.refusals} refusals, {(ledger.rejections + ledger.other)[:5]}"
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
            wait_for(partial(_is_over, lambda: ledger.delivered, moment))
            before = ledger.refusals
            kill()
            try:
                wait_for(partial(_is_over, lambda: ledger.refusals, before + 10))
            finally:
                restart()

    return disturb


def audit(
    ledger: Ledger,
    stored: Iterable[bytes],
    *,
    most_copies: int | None = None,
    deferred_may_be_stored: bool = True,
    strict: bool = False,
) -> int:
    """Compares what was answered with what is stored.

    Args:
        ledger: of the senders.
        stored: every message that the store holds, with any header fields before it.
        most_copies: copies beyond the first that there may be in all; by default as many as
            attempts whose fate the receiver could not know.
        deferred_may_be_stored: whether a 4xx after the data is such an attempt, as where a commit
            failed of which nobody knows whether the store has it.
        strict: whether the store has nothing but header fields before a message, and among them
            what `Header` makes: then of each mail the very copy has to be there that its 250 named.

    Returns:
        The copies beyond the first.

    Raises:
        AssertionError: something accepted is not there, something is there that was not sent or is
            altered, a mail was answered other than 250 or 4xx, or there are too many copies.
    """
    assert not ledger.other, ledger.other[:10]
    assert ledger.may_reject or not ledger.rejected, ledger.rejections[:10]
    copies: Counter[str] = Counter()
    answered: set[str] = set()
    for octets in stored:
        token = token_of(octets)
        assert token in ledger.messages, f"never sent: {token}"
        assert octets.endswith(ledger.messages[token]), f"altered: {token}"
        copies[token] += 1
        if strict and _id_of(octets, token, ledger) == ledger.queued.get(token):
            answered.add(token)
    lost = sorted(set(ledger.accepted) - set(copies))
    assert not lost, f"{len(lost)} answered 250 and not stored: {lost[:10]}"
    others = sorted(set(ledger.queued) - answered) if strict else []
    assert not others, f"{len(others)} answered 250, and only other tries stored: {others[:10]}"
    for token, number in copies.items():
        unknown = ledger.unanswered[token]
        if deferred_may_be_stored:
            unknown += ledger.deferred[token]
        allowed = ledger.accepted[token] + unknown
        assert number <= allowed, (
            f"{token}: stored {number} times, {allowed} attempts may have been"
        )
    extra = copies.total() - len(copies)
    if most_copies is not None:
        assert extra <= most_copies, f"{extra} copies, at most {most_copies} were expected"
    return extra


def _id_of(octets: bytes, token: str, ledger: Ledger) -> str:
    """The queued id of a stored copy; empty where it has none."""
    head = octets[: len(octets) - len(ledger.messages[token])]
    assert _FIELDS.fullmatch(head), f"{token}: before it: {head[:200]!r}"
    found = _ID.search(head)
    return found[1].decode() if found is not None else ""


class _Sender:
    """One connection, made again when it ends."""

    def __init__(
        self,
        where: Where,
        ledger: Ledger,
        left: deque[Mail],
        recipient: bytes,
        limit: float,
        *,
        secret: bool,
        pause: float,
    ) -> None:
        self.where = where
        self.ledger = ledger
        self.left = left
        self.envelope = _ENVELOPE % recipient
        self.limit = limit
        self.secret = secret
        """Whether it says STARTTLS."""
        self.pause = pause

    def run(self) -> None:
        while self.ledger.settled < len(self.ledger.messages):
            if time.monotonic() > self.limit:
                return
            wire: Wire | None = None
            try:
                where = self.where() if callable(self.where) else self.where
                with contextlib.ExitStack() as opened:
                    if (wire := self._opened(where, opened)) is not None:
                        self.ledger.meet(is_open=True)
                        self._send_all(wire)
                        continue
            except (*GONE, ConnectionRefusedError, EOFError, ssl.SSLError):
                pass
            if wire is None:
                self.ledger.meet(is_open=False)
            time.sleep(_PAUSE)

    def _opened(self, where: int | str, opened: contextlib.ExitStack) -> Wire | None:
        """A connection up to the answer to its last EHLO; None where that is no 250."""
        wire = opened.enter_context(Wire(where))
        if self.secret and wire.ask(HELLO).startswith("250 "):
            if not wire.ask(b"STARTTLS\r\n").startswith("220 "):
                return None
            wire = opened.enter_context(encrypted(wire))
        return wire if wire.ask(HELLO).startswith("250 ") else None

    def _send_all(self, wire: Wire) -> None:
        for mail in self._mails():
            try:
                settled = self._send(wire, mail)
            except BaseException:
                self.left.append(mail)
                raise
            if not settled:
                self.left.append(mail)
            if not settled or self.pause:
                time.sleep(self.pause if settled else _PAUSE)

    def _mails(self) -> Iterator[Mail]:
        """What is left; waits where others still have some that may come back."""
        while time.monotonic() < self.limit:
            try:
                yield self.left.popleft()
            except IndexError:
                if self.ledger.settled == len(self.ledger.messages):
                    return
                time.sleep(_PAUSE)

    def _send(self, wire: Wire, mail: Mail) -> bool:
        """Whether it needs no more tries."""
        ledger = self.ledger
        try:
            wire.send(self.envelope)
            replies = [_reply(wire) for _ in range(3)]
        except (*GONE, EOFError, ssl.SSLError):
            ledger.end(mail.token, whole=False)
            raise
        refused = [reply for reply in replies if reply[:3] not in {"250", "354"}]
        if refused:
            settled = self._note(mail, refused[0], ledger.early, refused[0])
            _wind_up(wire, replies[-1])
            return settled
        whole = False
        try:
            wire.send(on_the_wire(mail.message))
            whole = True
            reply = _reply(wire)
        except (*GONE, EOFError, ssl.SSLError):
            ledger.end(mail.token, whole=whole)
            raise
        if reply.startswith("250 "):
            ledger.take(mail.token, reply)
            return True
        return self._note(mail, reply, ledger.deferred, mail.token)

    def _note(self, mail: Mail, reply: str, counter: Counter[str], key: str) -> bool:
        """Writes a refusal down; whether it was for good."""
        with self.ledger.lock:
            self.ledger.heard[reply[:9]] += 1
            if reply.startswith("4"):
                counter[key] += 1
            elif reply.startswith("5"):
                self.ledger.rejected[mail.token] += 1
                self.ledger.rejections.append(reply)
                return True
            else:
                self.ledger.other.append(reply)
        return False


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


def wait_for(true: Callable[[], bool], patience: float = 120.0) -> None:
    """Waits for what senders have been told; fails when it does not come in time."""
    limit = time.monotonic() + patience
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.002)
