"""What `scaling.py` has measured, as `scaling.json` keeps it, and figures of the README."""

from __future__ import annotations

import dataclasses
import random
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import kept

HERE: Final = Path(__file__).parent
FILE: Final = HERE / "scaling.json"
README: Final = HERE / "README.md"
SMALL_KIB, LARGE_KIB = 4, 50
"""Of the messages."""
TRIES: Final = 2_001
"""Of what chance does."""
STORING: Final = re.compile(r"^([^\d\n]*?) +(\d+)((?: +[\d,]+)+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Memory:
    """KiB of a process: in memory, the same with what it shares divided, what is its own."""

    rss: float
    pss: float
    own: float

    @classmethod
    def of(cls, pid: int) -> Memory:
        """As the kernel adds it up."""
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        rows = (line.split() for line in text.splitlines()[1:])
        kib = {row[0]: float(row[1]) for row in rows}
        return cls(kib["Rss:"], kib["Pss:"], kib["Private_Clean:"] + kib["Private_Dirty:"])


@dataclasses.dataclass(frozen=True)
class Share:
    """A chain with so many processes: medians of the rounds; CPU in µs a message."""

    chain: str
    processes: int
    rate: float
    slowest: float
    """The rate of the slowest round."""
    server_us: float
    client_us: float
    share: float
    """Of cores / (server + client CPU a message)."""
    others: float
    """Cores that others had meanwhile: neighbours, interrupts, the host of a virtual machine."""
    rest: tuple[Memory, ...]
    """Of each process that serves, then of the parent, before the first mail."""
    load: tuple[Memory, ...]


@dataclasses.dataclass(frozen=True)
class Few:
    """The rate of few connections: median and worst of the tries."""

    connections: int
    processes: int
    shared: bool
    rate: float
    slowest: float
    busiest: float
    """The share of mails of the busiest process, against an even one."""
    others: float


@dataclasses.dataclass(frozen=True)
class Balance:
    """How connections fall on processes: the share of the busiest against an even one."""

    connections: int
    processes: int
    shared: bool
    busiest: float
    worst: float


@dataclasses.dataclass(frozen=True)
class Point:
    """What the simulation has to confirm."""

    chain: str
    batch: int
    workers: int
    connections: int
    rate: float
    server_us: float
    client_us: float
    others: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """All of it."""

    machine: str
    date: str
    cores: int
    quick: bool
    shares: tuple[Share, ...]
    few: tuple[Few, ...]
    balance: tuple[Balance, ...]
    points: tuple[Point, ...]

    @classmethod
    def read(cls, path: Path) -> Measured:
        """From a file that `text` has made.

        Raises:
            OSError: it cannot be read.
            ValueError: it is none of those; the text names it.
        """
        return kept.read(path, "scaling.py", cls._of)

    @classmethod
    def _of(cls, told: dict[str, Any]) -> Measured:
        def memories(row: dict[str, Any]) -> dict[str, Any]:
            return {key: tuple(Memory(**one) for one in row[key]) for key in ("rest", "load")}

        told["shares"] = tuple(Share(**row | memories(row)) for row in told["shares"])
        for key, kind in {"few": Few, "balance": Balance, "points": Point}.items():
            told[key] = tuple(kind(**row) for row in told[key])
        return cls(**told)

    def text(self) -> str:
        """As JSON."""
        return kept.written(dataclasses.asdict(self))

    def of(self, chain: str, processes: int) -> Share:
        """What was measured of a chain with so many processes."""
        return next(one for one in self.shares if (one.chain, one.processes) == (chain, processes))

    @property
    def many(self) -> int:
        """As many processes as were compared with one."""
        return max(one.processes for one in self.shares)


def middle(samples: Iterable[float]) -> float:
    """The one that counts."""
    return statistics.median(samples)


def by_chance(connections: int, processes: int) -> float:
    """The share of the busiest, where each connection is given to a process by chance: a median."""
    drawn = random.Random(connections * processes)
    found = []
    for _ in range(TRIES):
        each = [0] * processes
        for _ in range(connections):
            each[drawn.randrange(processes)] += 1
        found.append(busiest(each))
    return middle(found)


def busiest(each: Sequence[float]) -> float:
    """The largest share against an even one: 1 is even, as many as there are is one alone."""
    return max(each) * len(each) / sum(each)


# --- Figures of the README ------------------------------------------------------------------------


def figure(title: str, unit: str = "", column: int = 0) -> float:
    """The figure behind a title in one of the tables of benches/README.md, or one further right.

    Raises:
        LookupError: there is none of that title and unit.
    """
    line = rf"^{re.escape(title)}  +((?:[\d,.]+ +){{{column + 1}}}){re.escape(unit)}"
    found = re.search(line, _readme(), re.MULTILINE)
    if found is None:
        raise LookupError(f"benches/README.md has no figure {title!r} {unit}".rstrip())
    return float(found[1].split()[column].replace(",", ""))


@dataclasses.dataclass(frozen=True)
class Stored:
    """A row of the table of storing, for one number of connections."""

    store: str
    batch: int
    connections: int
    rate: float
    server_us: float
    behind_us: float


def stored() -> list[Stored]:
    """All rows of the table of storing in benches/README.md."""
    block = _readme().partition("<!-- processors -->")[2].partition("<!-- end of processors -->")[0]
    found, name = [], ""
    for title, batch, cells in STORING.findall(block):
        name = title.strip() or name
        values = [float(cell.replace(",", "")) for cell in cells.split()]
        triples = [values[first : first + 3] for first in range(0, 9, 3)]
        for connections, (rate, own, behind) in zip((1, 10, 100), triples, strict=True):
            found.append(Stored(name, int(batch), connections, rate, own, behind))
    return found


def _readme() -> str:
    return README.read_text(encoding="utf-8")
