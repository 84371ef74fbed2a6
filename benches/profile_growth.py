"""How what a message costs grows: with its size, its recipients, connections, workers, batches.

The client is Postfix's smtp-source, and for connections `guerrillad bench`, which opens 10,000.
Each load has a daemon of its own, and goes on until it is ended; some short windows are taken from
the middle of it, of which the median counts.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Final

from family import SMALL, Start, by_postfix, family, load
from measured import middle
from postfix import Postfix
from profiled import Point

KIB: Final = 1_024
SIZES: Final = tuple(KIB * n for n in (1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 51_200))
LARGE: Final = 1 << 20
"""From here on fewer connections, so that a load has begun within seconds."""
CONNECTIONS: Final = (1, 10, 100, 1_000, 10_000)
RECIPIENTS: Final = (1, 2, 5, 10, 20, 50, 100)
WORKERS: Final = (1, 2, 3, 4)
BATCHES: Final = (1, 8, 64, 256)
SESSIONS: Final = 100
SLOW: Final = {"slow_batch": 0.005, "slow_mail": 0.0001}
"""A store that takes 5 ms for a batch, and 0.1 ms more for each mail in it."""
SERVER: Final = 'max_clients = 10100\nmax_size = "64 MiB"\nmax_recipients = 200'


@dataclasses.dataclass(frozen=True)
class Growth:
    """What the tables have to work with."""

    postfix: Postfix
    folder: Path
    windows: int = 3
    seconds: float = 0.7
    """Of a window."""
    settle: float = 0.3
    quick: bool = False

    def few(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """The first and the last of them where there is a hurry."""
        return (values[0], values[-1]) if self.quick else values


@dataclasses.dataclass(frozen=True)
class Asked:
    """One load."""

    table: str
    x: int
    y: int = 0
    connections: int = SESSIONS
    size: int = SMALL
    chain: str = "null"
    keys: tuple[tuple[str, object], ...] = ()


def points(growth: Growth) -> Iterator[Point]:
    """All tables."""
    yield from sizes(growth)
    yield from connections(growth)
    yield from recipients(growth)
    yield from grid(growth, "null")
    yield from grid(growth, "slow")


def sizes(growth: Growth) -> Iterator[Point]:
    """From 1 KiB to 50 MiB."""
    for size in growth.few(SIZES):
        sessions = 50 if size < LARGE else 10 if size == LARGE else 4
        asked = Asked("size", size, connections=sessions, size=size)
        yield one(growth, asked, by_postfix(growth.postfix))


def connections(growth: Growth) -> Iterator[Point]:
    """From 1 to 10,000, all of which send."""
    for count in growth.few(CONNECTIONS):
        yield one(growth, Asked("connections", count, connections=count), by_bench)


def recipients(growth: Growth) -> Iterator[Point]:
    """From 1 to 100 a message."""
    for count in growth.few(RECIPIENTS):
        start = by_postfix(growth.postfix, recipients=count)
        yield one(growth, Asked("recipients", count), start)


def grid(growth: Growth, chain: str) -> Iterator[Point]:
    """Workers and batches, with a chain that does nothing, and with a store that is waited for."""
    slow = SLOW if chain == "slow" else {}
    for workers, batch in product(growth.few(WORKERS), growth.few(BATCHES)):
        keys = {"save_workers_size": workers, "save_batch_size": batch, **slow}
        asked = Asked(f"grid {chain}", workers, batch, chain=chain, keys=tuple(keys.items()))
        yield one(growth, asked, by_postfix(growth.postfix))


def one(growth: Growth, asked: Asked, start: Start) -> Point:
    """A daemon of its own, and some windows of the load."""
    print(f"{asked.table}: {asked.x:,} {asked.y or ''}".rstrip(), file=sys.stderr, flush=True)
    folder, keys = growth.folder / "growth", dict(asked.keys)
    with (
        family(folder, 1, asked.chain, keys, server=SERVER) as daemon,
        load(daemon, start, asked.connections, 1, asked.size) as senders,
    ):
        time.sleep(growth.settle)
        windows = [daemon.window(senders, growth.seconds) for _ in range(growth.windows)]
        resident = daemon.receiver.resident_kib() / KIB
    rate, server, client = (
        middle(getattr(window, key) for window in windows)
        for key in ("rate", "server_us", "client_us")
    )
    where = asked.table, asked.x, asked.y, asked.connections
    return Point(*where, rate, server, client, resident)


def by_bench(port: int, connections: int, size: int) -> subprocess.Popen[str]:
    """`guerrillad bench`, for as long as it may."""
    command = [sys.executable, "-m", "guerrilla", "bench", "--target", f"127.0.0.1:{port}"]
    command += ["--connections", str(connections), "--size", str(size), "--duration", "10m"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
