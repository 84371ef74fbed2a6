"""Stages to measure with: one that Python itself is the limit of, and a store of a known slowness.

`scaling.py` puts this file beside the config of a daemon, which imports it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from email import message_from_bytes, policy

import guerrilla
from guerrilla import Envelope, Outcome, Processor

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
