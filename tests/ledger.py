"""Senders that keep count: what was answered, and whether the store agrees.

Each mail has a token of its own. A sender tries again, as an MTA does, whatever was not answered
250, until all is delivered; the ledger says what became of each attempt, and `audit` compares it
with what a store holds: nothing answered 250 is missing or altered, nothing is there that was
refused for good, and there are no more copies than attempts whose fate the receiver could not know.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeAlias

from tests.accounts import Ledger, audit
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
    "reach",
    "token_of",
    "wait_for",
]

CONNECTIONS: Final = 100
KILLS: Final = 3

_PAUSE: Final = 0.05
"""Seconds that a sender waits after a 4xx: an MTA waits minutes."""
_ENVELOPE: Final = b"MAIL FROM:<from@example.org>\r\nRCPT TO:<%s>\r\nDATA\r\n"


Where: TypeAlias = int | str | Callable[[], int | str | socket.socket]
"""Of a receiver, as `Wire` takes it; or what says where it is, or connects, asked before each
connection."""


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
        tls: the share of the connections that say STARTTLS first, and of the mails, which these
            alone send: so they come by TLS, however slow a handshake is.
        may_reject: whether a mail may be answered 5xx, which ends the tries.
        pause: seconds that a sender rests behind a mail, so that a fast machine is not through
            before what disturbs takes effect.

    Raises:
        AssertionError: not all were accepted in time, with what was said last.
    """
    ledger = Ledger(mails, may_reject=may_reject)
    number = min(connections, len(mails))
    secret = round(tls * number)
    share = secret / number if number else 0.0
    left: dict[bool, deque[Mail]] = {True: deque(), False: deque()}
    for at, mail in enumerate(mails):
        left[int((at + 1) * share) > int(at * share)].append(mail)
    limit = time.monotonic() + patience
    with ThreadPoolExecutor(connections + 1) as pool:
        disturbing = pool.submit(disturb, ledger) if disturb is not None else None
        sending = [
            pool.submit(
                _Sender(
                    where, ledger, left[by], recipient.encode(), limit, secret=by, pause=pause
                ).run
            )
            for by in (index < secret for index in range(number))
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
            reach(ledger, moment)
            before = ledger.refusals
            kill()
            ledger.most = None
            try:
                wait_for(partial(_is_over, lambda: ledger.refusals, before + 10))
            finally:
                restart()

    return disturb


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

    def _opened(
        self, where: int | str | socket.socket, opened: contextlib.ExitStack
    ) -> Wire | None:
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
            if self.ledger.is_held:
                time.sleep(_PAUSE)
                continue
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


def reach(ledger: Ledger, count: int) -> None:
    """Waits until so many mails are settled, and has no sender begin another until `most` is None.

    On a busy machine they would else be through before this is seen.
    """
    ledger.most = count
    wait_for(partial(_is_over, lambda: ledger.settled, count))


def _is_over(count: Callable[[], int], bound: int) -> bool:
    return count() >= bound


def wait_for(true: Callable[[], bool], patience: float = 120.0) -> None:
    """Waits for what senders have been told; fails when it does not come in time."""
    limit = time.monotonic() + patience
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.002)
