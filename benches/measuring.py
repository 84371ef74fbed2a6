"""What the scenarios of the edge share: figures, samples of which the median counts, a table."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from receivers import Receiver

MANY: Final = 1_000
"""From here on decimals say nothing."""
WARM_UP: Final = 300

Serve = Callable[[str], contextlib.AbstractContextManager[Receiver]]
"""Starts a daemon whose server has these lines of TOML."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure; `must` and `goal` are limits on it, from above unless it is to be high."""

    title: str
    unit: str
    value: float
    must: float | None = None
    goal: float | None = None


@dataclasses.dataclass
class Samples:
    """What was measured, by what it is of."""

    of: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """One more."""
        self.of.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        """The one that counts."""
        return statistics.median(self.of[name])

    def ratio(self, name: str, other: str) -> float:
        """Of two medians."""
        return self.median(name) / self.median(other)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a scenario has to work with."""

    serve: Serve
    tls: str
    """The `tls` key of a server that offers STARTTLS with a certificate for P-256, as TOML."""
    rounds: int
    scale: float
    """Of all counts: a part of them shows that a scenario works, and no figure."""

    def turns(self, what: str) -> Iterator[int]:
        """The rounds, each told to whoever waits."""
        for number in range(1, self.rounds + 1):
            print(f"{what} {number}/{self.rounds}", file=sys.stderr, flush=True)
            yield number

    def count(self, whole: int) -> int:
        """How many to make of so many."""
        return max(1, round(whole * self.scale))


def cpu_us(receiver: Receiver, do: Callable[[], object]) -> float:
    """CPU time of the daemon, in µs, while that is done."""
    before = receiver.cpu_ns()
    do()
    return (receiver.cpu_ns() - before) / 1_000


def table(figures: Iterable[Figure]) -> list[str]:
    """The figures, a line each."""
    form = "{:<46} {:>8}  {:<22} {:>5} {:>5}"
    lines = [form.format("", "", "", "must", "goal")]
    for one in figures:
        value = f"{one.value:,.0f}" if one.value >= MANY else f"{one.value:.2f}"
        limits = ("" if limit is None else f"{limit:g}" for limit in (one.must, one.goal))
        lines.append(form.format(one.title, value, one.unit, *limits).rstrip())
    return lines
