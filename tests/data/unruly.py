"""A module that a config imports: processors and validators that do all that they must not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import guerrilla
from guerrilla import Address, Envelope, Processor, Reply, Transaction

ALREADY_OVER = 6.0
"""Seconds: more than the time limit of the tests, less than twice that."""


log = logging.getLogger("guerrilla.unruly")


class NoExceptionError(BaseException):
    """Not an `Exception`, as a panic of the core is none."""


def fail(error: BaseException) -> None:
    """Raises it."""
    raise error


def endlessly(depth: int = 0) -> int:
    """Runs out of stack."""
    return endlessly(depth + 1) + 1


def dawdle() -> None:
    """Takes its time, and says so."""
    log.warning("a slow one")
    time.sleep(ALREADY_OVER)


MISDEEDS: dict[str, Callable[[], Any]] = {
    "raise": lambda: fail(ValueError("on purpose")),
    "memory": lambda: fail(MemoryError()),
    "recursion": endlessly,
    "exit": lambda: sys.exit(3),
    "interrupt": lambda: fail(KeyboardInterrupt()),
    "panic": lambda: fail(NoExceptionError()),
    "int": lambda: 250,
    "text": lambda: "250 OK",
    "true": lambda: True,
    "list": lambda: [Reply(250, None, "one"), Reply(250, None, "two")],
    "tuple": lambda: (250, "2.0.0", "OK"),
    "354": lambda: Reply(354, None, "Go on"),
    "line ends": lambda: Reply(250, None, "OK\r\n250 OK"),
    "replies": lambda: guerrilla.Replies([Reply(250, None, "one")] * 7),
    "hang": lambda: time.sleep(3_600),
    "slow": dawdle,
}
"""By the subject of a mail, or the user of a recipient, that asks for it."""


def misbehave(kind: str) -> Any:
    """Does what is asked for; all others are passed on."""
    misdeed = MISDEEDS.get(kind)
    return misdeed() if misdeed is not None else None


@guerrilla.processor("Unruly")
def unruly(envelope: Envelope) -> Any:
    """Misbehaves."""
    return misbehave(envelope.subject)


@guerrilla.processor("UnrulyAsync")
async def unruly_async(envelope: Envelope) -> Any:
    """Misbehaves on an event loop."""
    if envelope.subject == "never":
        await asyncio.Event().wait()
    while envelope.subject == "stubborn":
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3_600)
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
