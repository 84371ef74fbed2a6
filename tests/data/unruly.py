"""A module that a config imports: processors and validators that do all that they must not."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

import guerrilla
from guerrilla import Address, Envelope, Processor, Reply, Transaction

ALREADY_OVER = 1.6
"""Seconds: more than the time limit of the tests, less than twice that."""


class NoExceptionError(BaseException):
    """Not an `Exception`, as a panic of the core is none."""


def misbehave(kind: str) -> Any:
    """Does what the subject of a mail, or the user of a recipient, asks for."""
    match kind:
        case "raise":
            raise ValueError("on purpose")
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "panic":
            raise NoExceptionError
        case "recursion":
            return misbehave(kind)
        case "memory":
            raise MemoryError
        case "int":
            return 250
        case "text":
            return "250 OK"
        case "true":
            return True
        case "list":
            return [Reply(250, None, "one"), Reply(250, None, "two")]
        case "tuple":
            return (250, "2.0.0", "OK")
        case "354":
            return Reply(354, None, "Go on")
        case "line ends":
            return Reply(250, None, "OK\r\n250 OK")
        case "replies":
            return guerrilla.Replies([Reply(250, None, "one")] * 7)
        case "hang":
            time.sleep(3_600)
        case "slow":
            time.sleep(ALREADY_OVER)
    return None


@guerrilla.processor("Unruly")
def unruly(envelope: Envelope) -> Any:
    """Misbehaves."""
    return misbehave(envelope.subject)


@guerrilla.processor("UnrulyAsync")
async def unruly_async(envelope: Envelope) -> Any:
    """Misbehaves on an event loop."""
    match envelope.subject:
        case "never":
            await asyncio.Event().wait()
        case "stubborn":
            while True:
                try:
                    await asyncio.sleep(3_600)
                except asyncio.CancelledError:
                    continue
        case _:
            return misbehave(envelope.subject)


@guerrilla.processor("UnrulyBatch")
class UnrulyBatch(Processor):
    """Misbehaves with a whole batch."""

    def save_batch(self, envelopes: Sequence[Envelope]) -> Any:
        """Gives too few outcomes, too many, or none at all."""
        subjects = {envelope.subject for envelope in envelopes}
        if "too few" in subjects:
            return [None] * (len(envelopes) - 1)
        if "too many" in subjects:
            return [None] * (len(envelopes) + 1)
        if "nothing" in subjects:
            return None
        if "generator" in subjects:
            return (None for _ in envelopes)
        if "strange" in subjects:
            return ["250 OK" if e.subject == "strange" else None for e in envelopes]
        for subject in subjects:
            misbehave(subject)
        return [None] * len(envelopes)


@guerrilla.processor("SlowStore", stores=True)
def slow_store(envelope: Envelope) -> None:
    """Takes longer than the time limit, once it has begun to store."""
    if envelope.subject == "slow store":
        time.sleep(ALREADY_OVER)


@guerrilla.validator("UnrulyCheck")
def unruly_check(transaction: Transaction, recipient: Address) -> Any:
    """Misbehaves for some users."""
    return misbehave(recipient.user)


@guerrilla.validator("UnrulyAsyncCheck")
async def unruly_async_check(transaction: Transaction, recipient: Address) -> Any:
    """Never answers for one user."""
    if recipient.user == "never":
        await asyncio.Event().wait()
