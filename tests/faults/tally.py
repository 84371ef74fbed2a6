"""The verdict on one fault: the ledger of the senders beside what the store holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tests.faults.table import Row
from tests.ledger import Ledger, audit

_HEAD: Final = 2_048
"""Octets of a message that have all that is put before it."""


class Tally:
    """One fault before one store, which becomes a row of the table.

    Args:
        rows: where the row goes.
        fault: what was done to it.
        store: what it was done to.
    """

    def __init__(self, rows: list[Row], fault: str, store: str) -> None:
        self._rows = rows
        self._fault = fault
        self._store = store

    def audit(
        self,
        ledger: Ledger,
        stored: Iterable[bytes],
        *,
        rounds: int = 1,
        deferred_may_be_stored: bool = False,
        most_copies: int | None = None,
        tls: int = 0,
        note: str = "",
    ) -> Row:
        """Asserts that nothing is lost, and records the row.

        Args:
            ledger: of the senders.
            stored: every message that the store holds, with any header fields before it.
            rounds: how often the fault was there.
            deferred_may_be_stored: whether a 4xx after the data may have been stored, and so leave
                a copy: where a commit failed of which nobody can know whether the store has it.
            most_copies: beyond the first that there may be in all, where most of the 4xx are known
                to be of mails that are not stored.
            tls: how many have to have come by TLS at least, as their `Received` says.
            note: what the row says at its end.

        Raises:
            AssertionError: a mail answered 250 is not there, or only other tries of it are; one is
                there that was never sent, was only ever refused, or is altered; there are more
                copies than lost answers allow.
        """
        count = _Counted(stored)
        doubled = audit(
            ledger,
            count,
            most_copies=most_copies,
            deferred_may_be_stored=deferred_may_be_stored,
            strict=True,
        )
        assert count.secret >= tls, f"{count.secret} came by TLS, {tls} were to"
        return self.record(ledger, stored=count.number, doubled=doubled, rounds=rounds, note=note)

    def record(
        self,
        ledger: Ledger | None = None,
        *,
        stored: int = 0,
        doubled: int = 0,
        rounds: int = 1,
        note: str = "",
    ) -> Row:
        """Records the row of a test that has asserted its own statement.

        Args:
            ledger: of the senders, if mail was sent.
            stored: messages that the store holds.
            doubled: how many of them are copies beyond the first.
            rounds: how often the fault was there.
            note: the statement.
        """
        row = Row(self._fault, self._store, rounds=rounds, stored=stored, note=note)
        if ledger is not None:
            row = Row(
                self._fault,
                self._store,
                rounds=rounds,
                sent=ledger.attempts,
                answered=ledger.accepted.total(),
                refused=ledger.refusals,
                rejected=ledger.rejected.total(),
                unanswered=ledger.lost_answers,
                stored=stored,
                doubled=doubled,
                note=note,
            )
        self._rows.append(row)
        return row


class _Counted:
    """Messages of a store, which need not be in memory all at once."""

    def __init__(self, messages: Iterable[bytes]) -> None:
        self._messages = messages
        self.number = 0
        self.secret = 0
        """How many came by TLS."""

    def __iter__(self) -> Iterator[bytes]:
        for message in self._messages:
            self.number += 1
            self.secret += b" with ESMTPS id " in message[:_HEAD]
            yield message
