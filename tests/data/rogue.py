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
from typing import Any

import guerrilla
from guerrilla import Envelope, NoSuchUser, Processor
from guerrilla.processors.sql import SQL

FOREVER = 3_600.0

kept: list[Envelope] = []


def hold_the_gil(seconds: float) -> None:
    """Sleeps in C as a library does that computes and lets no other thread run meanwhile."""
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))


MISDEEDS: dict[str, Callable[[float], Any]] = {
    "hang": lambda _: time.sleep(FOREVER),
    "exit": lambda _: sys.exit(3),
    "end": lambda _: os._exit(3),
    "gil": hold_the_gil,
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
    """Raises for some mails, whatever else is in their batch; the first batch waits for `open`."""

    class Options(SQL.Options, Marked):
        """See `Marked`."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._mine = options

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Any]:
        """Saves all of them, or raises."""
        if _mark(self._mine.rogue_marks, "entered"):
            while not Path(self._mine.rogue_marks, "open").exists():
                time.sleep(0.002)
        for index, envelope in enumerate(envelopes):
            if self._is_poison(envelope, alone=len(envelopes) == 1):
                self._leave(envelopes[:index])
                refused = self._mine.rogue_does == "refuse"
                raise NoSuchUser("nobody") if refused else ValueError("on purpose")
        return super().save_batch(envelopes)

    def _leave(self, envelopes: Sequence[Envelope]) -> None:
        """Does something about those before it."""

    def _is_poison(self, envelope: Envelope, *, alone: bool) -> bool:
        token, options = _token(envelope), self._mine
        if token not in options.rogue_tokens:
            return False
        if self._mine.rogue_does == "refuse":
            return True
        # As long as it is asked about in company: alone it fails once more, and is well then.
        ends = alone or not self.atomic
        return _mark(options.rogue_marks, token) if ends else not self._is_over(token)

    def _is_over(self, token: str) -> bool:
        return Path(self._mine.rogue_marks, token).exists()


@guerrilla.processor("PoisonedAtomic")
class PoisonedAtomic(_Poisoned):
    """Saves nothing of a batch that it raises for, and says so."""


@guerrilla.processor("PoisonedHalf")
class PoisonedHalf(_Poisoned):
    """Saves those before the one that it raises for."""

    atomic = False

    def _leave(self, envelopes: Sequence[Envelope]) -> None:
        if envelopes:
            super(_Poisoned, self).save_batch(envelopes)
