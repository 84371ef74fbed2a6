"""A module that a config imports: processors that do to a daemon under load what they must not.

Each misdeed is for one mail of a ledger, once: a file `TOKEN` in `rogue_marks` says that it has
begun, `TOKEN.over` that it has ended. So the mail's next try goes well, after a restart too.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import guerrilla
from guerrilla import Envelope, NoSuchUser, Processor
from guerrilla.processors.sql import SQL

FOREVER = 3_600.0

FULL = 64
"""Mails of a full batch."""

kept: list[Envelope] = []
poisonous: dict[str, int] = {}
"""How often it is still raised for them, by token."""


def hold_the_gil(seconds: float) -> None:
    """Sleeps in C as a library does that computes and lets no other thread run meanwhile."""
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))


MISDEEDS: dict[str, Callable[[float], Any]] = {
    "hang": lambda _: time.sleep(FOREVER),
    "exit": lambda _: sys.exit(3),
    "end": lambda _: os._exit(3),
    "gil": hold_the_gil,
    "crash": lambda _: ctypes.string_at(0),
}


class Marked(Processor.Options):
    """Which mails it is, and where it says so."""

    rogue_does: str = ""
    rogue_tokens: tuple[str, ...] = ()
    rogue_marks: str = ""
    rogue_seconds: float = 0.0


def _token(envelope: Envelope) -> str:
    return str(envelope.header["X-Ledger"])


def _mark(folder: str, name: str) -> bool:
    """Whether it is the first with this name."""
    try:
        Path(folder, name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@guerrilla.processor("Rogue")
class Rogue(Processor):
    """Does one of the misdeeds above."""

    class Options(Marked):
        """See `Marked`."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._options = options

    def save(self, envelope: Envelope) -> None:
        """Passes on all others."""
        options, token = self._options, _token(envelope)
        if token in options.rogue_tokens and _mark(options.rogue_marks, token):
            MISDEEDS[options.rogue_does](options.rogue_seconds)
            _mark(options.rogue_marks, f"{token}.over")


@guerrilla.processor("Leak")
def leak(envelope: Envelope) -> None:
    """Keeps every envelope, and so its octets."""
    kept.append(envelope)


class _Poisoned(SQL):
    """Raises for one mail of 64, whatever else is in its batch.

    The first batch waits for a file `open`, so that the next one is full.
    """

    tries: ClassVar[int]
    """How often it raises for that mail."""

    class Options(SQL.Options, Marked):
        """See `Marked`; `rogue_most` is how many such mails there are."""

        rogue_most: int = 1

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._mine = options

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Any]:
        """Saves all of them, or raises."""
        if _mark(self._mine.rogue_marks, "entered"):
            while not Path(self._mine.rogue_marks, "open").exists():
                time.sleep(0.002)
        if len(envelopes) == FULL and len(poisonous) < self._mine.rogue_most:
            self._choose(_token(envelopes[FULL // 2]))
        for index, envelope in enumerate(envelopes):
            if self._raises_for(_token(envelope)):
                self._leave(envelopes[:index])
                refuses = self._mine.rogue_does == "refuse"
                raise NoSuchUser("nobody") if refuses else ValueError("on purpose")
        return super().save_batch(envelopes)

    def _choose(self, token: str) -> None:
        poisonous.setdefault(token, self.tries)
        _mark(self._mine.rogue_marks, f"{token}.poison")

    def _raises_for(self, token: str) -> bool:
        left = poisonous.get(token, 0)
        if left and self._mine.rogue_does != "refuse":
            poisonous[token] = left - 1
        return left > 0

    def _leave(self, envelopes: Sequence[Envelope]) -> None:
        """Does something about those before it."""


@guerrilla.processor("PoisonedAtomic")
class PoisonedAtomic(_Poisoned):
    """Saves nothing of a batch that it raises for, and says so: it is asked one by one then."""

    tries = 2


@guerrilla.processor("PoisonedHalf")
class PoisonedHalf(_Poisoned):
    """Saves those before the one that it raises for."""

    atomic = False
    tries = 1

    def _leave(self, envelopes: Sequence[Envelope]) -> None:
        super(_Poisoned, self).save_batch(envelopes)
