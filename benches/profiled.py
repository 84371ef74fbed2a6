"""What `profiler.py` has measured, as `profile.json` keeps it. Times are CPU µs a message."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Final

import kept
from measured import HERE

FILE: Final = HERE / "profile.json"


@dataclasses.dataclass(frozen=True)
class Thread:
    """Of the I/O thread, of the workers, of all others."""

    name: str
    user_us: float
    system_us: float
    waits: float
    """Times a message that it gave up the CPU by itself."""
    cores: float
    """Of its time; 1.0 is a thread that does nothing else."""


@dataclasses.dataclass(frozen=True)
class Spent:
    """What one load costs, and on what."""

    name: str
    title: str
    rate: float
    server_us: float
    client_us: float
    others: float
    """Cores that others had meanwhile."""
    threads: tuple[Thread, ...]
    parts: dict[str, float]
    """By perf; empty without it."""
    calls: dict[str, float]
    """System calls a message, by strace; empty without it."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One load of those that grow; what grows is `x`, and in a grid `y` too."""

    table: str
    x: int
    y: int
    connections: int
    rate: float
    server_us: float
    client_us: float
    resident_mib: float


@dataclasses.dataclass(frozen=True)
class Profile:
    """All of it."""

    machine: str
    date: str
    quick: bool
    spent: tuple[Spent, ...]
    points: tuple[Point, ...]

    @classmethod
    def read(cls, path: Path) -> Profile:
        """From a file that `text` has made.

        Raises:
            OSError: it cannot be read.
            ValueError: it is none of those; the text names it.
        """
        return kept.read(path, "profiler.py", cls._of)

    @classmethod
    def _of(cls, told: dict[str, Any]) -> Profile:
        def threads(row: dict[str, Any]) -> dict[str, Any]:
            return {"threads": tuple(Thread(**one) for one in row["threads"])}

        told["spent"] = tuple(Spent(**row | threads(row)) for row in told["spent"])
        told["points"] = tuple(Point(**row) for row in told["points"])
        return cls(**told)

    def text(self) -> str:
        """As JSON."""
        return kept.written(dataclasses.asdict(self))

    def of(self, table: str) -> list[Point]:
        """The loads of one table."""
        return [one for one in self.points if one.table == table]
