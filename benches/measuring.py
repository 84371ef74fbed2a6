"""What all measurements share: samples, of which the median counts, and what a row works with."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postfix import BenchError, Load, Postfix
from receivers import Receiver, guerrillad

if TYPE_CHECKING:
    from stores import Places

MANY: Final = 1_000
"""From here on decimals say nothing."""
WARM_UP: Final = 300

Start = Callable[[], contextlib.AbstractContextManager[Receiver]]
"""Starts a receiver."""


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

    def parts(self, count: int) -> Iterator[Samples]:
        """So many, in the order in which they were taken; those of a row stay together."""
        for place in range(count):
            yield Samples(
                {
                    name: part
                    for name, values in self.of.items()
                    if (
                        part := values[
                            len(values) * place // count : len(values) * (place + 1) // count
                        ]
                    )
                }
            )

    def median(self, name: str) -> float:
        """The one that counts."""
        return statistics.median(self.of[name])

    def ratio(self, name: str, other: str) -> float:
        """Of two medians."""
        return self.median(name) / self.median(other)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a row has to work with."""

    folder: Path
    """For configs; daemons run there."""
    tls: str
    """The `tls` key of a server that offers STARTTLS with a certificate for P-256, as TOML."""
    samples: Samples = dataclasses.field(default_factory=Samples)
    scale: float = 1.0
    """Of all counts and times: a part of them shows that a row works, and little else."""
    peers: Mapping[str, Start] = dataclasses.field(default_factory=dict)
    """Receivers that others wrote, by name."""
    sender: Postfix | None = None
    stores: Places | None = None

    def serve(
        self, keys: str = "max_clients = 1500"
    ) -> contextlib.AbstractContextManager[Receiver]:
        """Starts a daemon whose server has these lines of TOML."""
        return guerrillad(self.folder, keys)

    def count(self, whole: int) -> int:
        """How many to make of so many."""
        return max(1, round(whole * self.scale))

    def say(self, what: str) -> None:
        """To whoever waits."""
        print(f"  {what}", file=sys.stderr, flush=True)

    @property
    def postfix(self) -> Postfix:
        """Where its programs are.

        Raises:
            BenchError: nowhere.
        """
        if self.sender is None:
            raise BenchError("smtp-source and smtp-sink are missing")
        return self.sender

    @property
    def places(self) -> Places:
        """Servers to store into.

        Raises:
            BenchError: there are to be none.
        """
        if self.stores is None:
            raise BenchError("there are no servers to store into")
        return self.stores

    def send(self, receiver: Receiver, load: Load, name: str) -> None:
        """Has smtp-source send the messages, and notes what each of them cost both sides."""
        before = receiver.cpu_ns()
        wall, client = self.postfix.send(receiver.port, load)
        server_us = (receiver.cpu_ns() - before) / 1_000
        self.samples.add(f"{name} server µs", server_us / load.messages)
        self.samples.add(f"{name} client µs", client * 1e6 / load.messages)
        self.samples.add(f"{name} messages/s", load.messages / wall)


def cpu_us(receiver: Receiver, do: Callable[[], object]) -> float:
    """CPU time of the daemon, in µs, while that is done."""
    before = receiver.cpu_ns()
    do()
    return (receiver.cpu_ns() - before) / 1_000


def number(value: float) -> str:
    """With as many digits as say something."""
    return f"{value:,.0f}" if value >= MANY else f"{value:.2f}"


def table(figures: Iterable[Figure]) -> list[str]:
    """The figures, a line each."""
    form = "{:<46} {:>8}  {:<22} {:>5} {:>5}"
    lines = [form.format("", "", "", "must", "goal")]
    for one in figures:
        limits = ("" if limit is None else f"{limit:g}" for limit in (one.must, one.goal))
        lines.append(form.format(one.title, number(one.value), one.unit, *limits).rstrip())
    return lines
