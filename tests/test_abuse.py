"""After every kind of abuse a daemon is what it was before: descriptors, threads, memory.

`make abuse` does it with 20,000 connections.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests import abuse
from tests.running import RunningDaemon, listeners
from tests.wire import Wire, resident_memory, until

MIB: Final = 2**20
TELLING: Final = Path(__file__).parent / "data" / "telling.py"
SERVERS: Final = {
    "plain": 'timeout = "1s"\nmax_clients = 100\nmax_size = "1 MiB"\ndata_timeout = "2s"',
    "full": "max_clients = 1",
}
GROWTH: Final = 4 * MIB
"""Octets that chance may make of a process that has done the same before: 210 a connection of
`make abuse`. Measured are 1 to 3 MiB, and no more after 100,000 connections than after 20,000."""
SETTLED: Final = 0.2
"""Seconds without a change."""


class State(NamedTuple):
    """What a process holds."""

    descriptors: int
    threads: int
    connections_open: int
    memory_used: int
    memory_retained: int


class Abused:
    """A daemon that has been, and will be, abused."""

    def __init__(self, running: RunningDaemon) -> None:
        self.running = running
        self.addresses = dict(zip(SERVERS, running.addresses, strict=True))
        self._rounds = 0

    def counters(self) -> dict[str, int]:
        """What it counts."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(10)
            asking.connect(str(self.running.folder / "counters.sock"))
            told = json.loads(b"".join(iter(lambda: asking.recv(65_536), b"")))
        return {str(name): int(count) for name, count in told.items()}

    def state(self) -> State:
        """What it holds now."""
        pid, counters = self.running.pid, self.counters()
        return State(
            len(os.listdir(f"/proc/{pid}/fd")),
            len(os.listdir(f"/proc/{pid}/task")),
            *(counters[name] for name in State._fields[2:]),
        )

    def settle(self) -> State:
        """What it holds when nothing changes any more."""
        states = [(time.monotonic(), self.state())]

        def settled() -> bool:
            now = time.monotonic(), self.state()
            if now[1] != states[0][1]:
                states[0] = now
            return now[0] - states[0][0] > SETTLED

        until(settled)
        return states[0][1]

    def abuse(self, connections: int) -> None:
        """Has all places of the one server taken and abuses both."""
        self._rounds += 1
        with Wire(self.addresses["full"]):
            abuse.commit(self.addresses, connections, self._rounds)


@pytest.fixture
def abused(tmp_path: Path) -> Iterator[Abused]:
    """A daemon with a server for each of `SERVERS`."""
    config = listeners(tmp_path, servers=list(SERVERS.values()))
    config = config.replace('log_level = "info"', 'log_level = "error"')
    command = (sys.executable, str(TELLING))
    with RunningDaemon(tmp_path, config=config, command=command) as running:
        yield Abused(running)
        assert running.log_text() == ""


def test_abuse_leaves_nothing(abused: Abused, pytestconfig: pytest.Config) -> None:
    connections = int(pytestconfig.getoption("--abuse"))
    # What is needed once, as code, caches and the allocator's own, is no leak.
    abused.abuse(1_000)
    before, memory = abused.settle(), resident_memory(abused.running.pid)
    began = time.monotonic()
    abused.abuse(connections)
    took = time.monotonic() - began
    after = abused.settle()
    grown = resident_memory(abused.running.pid) - memory
    print(f"{connections:,} connections in {took:.1f} s")  # noqa: T201 - shown with -s
    print(f"{memory / MIB:.1f} MiB resident, then {grown / 1024:+,.0f} KiB; {after}")  # noqa: T201
    assert after == before
    assert (after.connections_open, after.memory_used, after.memory_retained) == (0, 0, 0)
    assert grown < GROWTH
    counters = abused.counters()
    assert counters["panics"] == 0
    assert counters["connections_accepted"] + counters["connections_refused"] >= connections
    with Wire(abused.addresses["plain"]) as honest:
        assert honest.deliver(b"Subject: honest\r\n\r\nbody").startswith("250 2.0.0 ")
