"""What senders were told of each mail, and whether a store agrees."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from tests.mails import Mail, token_of

_QUEUED: Final = re.compile(r"250 2\.0\.0 OK: queued as ([0-9a-z]{26})$")
_FIELDS: Final = re.compile(rb"(?:[!-9;-~]+:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n)*")
"""Whole header fields, and nothing else."""
_ID: Final = re.compile(rb" id ([0-9a-z]{26});\r\n")
"""Of a `Received` field that `Header` has made."""


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
        """Tries to connect that did not come so far."""
        self.other: list[str] = []
        """Anything else: what is no reply, or a code that has no place there."""
        self.lock = threading.Lock()
        self.most: int | None = None
        """Once so many mails are settled no sender begins another: see `is_held`."""

    @property
    def is_held(self) -> bool:
        """Whether senders wait for what disturbs them, lest they are through before it begins."""
        return self.most is not None and self.settled >= self.most

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
        strict: nothing may be before a message but header fields. Of each mail the very copy has to
            be there that its 250 named by its id, which `Header` writes there.

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
        if strict and _id_of(octets, token, ledger) in {ledger.queued.get(token), None}:
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


def _id_of(octets: bytes, token: str, ledger: Ledger) -> str | None:
    """The queued id of a stored copy: what is put before it has that; None: that is nothing."""
    head = octets[: len(octets) - len(ledger.messages[token])]
    assert _FIELDS.fullmatch(head), f"{token}: before it: {head[:200]!r}"
    found = _ID.search(head)
    return found[1].decode() if found is not None else None if not head else ""
