"""Stages to measure with: one that Python is the limit of, a store of a known slowness, a leak.

`scaling.py`, `slope.py` and `states.py` put it beside the config of a daemon, which imports it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from email import message_from_bytes, policy
from typing import ClassVar

import guerrilla
from guerrilla import Credentials, Envelope, Outcome, Processor, Reply, Transaction

HEADERS = ("From", "To", "Date", "Subject", "Message-Id")


@guerrilla.processor("Email")
def parse(envelope: Envelope) -> None:
    """Parses the mail as many programs do, and reads some of its headers."""
    message = message_from_bytes(bytes(envelope), policy=policy.default)
    for name in HEADERS:
        str(message[name])


@guerrilla.processor("Slow", stores=True)
class Slow(Processor):
    """Takes as long as it is told to for a batch, whatever that costs a real store."""

    class Options(Processor.Options):
        """The keys of `backend_config` it reads."""

        slow_batch: float = 0.0
        """Seconds of each batch: a sync, a round trip, a commit."""
        slow_mail: float = 0.0
        """Seconds of each mail in it."""

    options: Options

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Keeps nothing."""
        time.sleep(self.options.slow_batch + self.options.slow_mail * len(envelopes))
        return [None] * len(envelopes)


@guerrilla.processor("Hoard")
class Hoard(Processor):
    """A leak: it keeps a KiB of each mail, so that `slope.py` has something to find."""

    kept: ClassVar[list[bytes]] = []

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Keeps a copy, which nobody else has."""
        self.kept.extend(bytes(1_024) for _ in envelopes)
        return [None] * len(envelopes)


@guerrilla.processor("Anybody")
class Anybody(Processor):
    """Knows everybody who logs in."""

    def authenticate(self, transaction: Transaction, credentials: Credentials) -> Reply:
        """Accepts."""
        del transaction, credentials
        return guerrilla.AUTHENTICATED
