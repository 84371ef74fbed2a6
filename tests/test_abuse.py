"""After every kind of abuse a daemon is what it was before: descriptors, threads, memory.

`make abuse` does it with 20,000 connections of each kind.
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

from tests import abuse, abuse_edge, abuse_extensions  # noqa: F401 - adds its kinds
from tests.certificates import self_signed
from tests.passwords import quick_argon2, quick_bcrypt, write_users
from tests.running import RunningDaemon, listeners
from tests.wire import Wire, resident_memory, until

MIB: Final = 2**20
TELLING: Final = Path(__file__).parent / "data" / "telling.py"
SHORT: Final = 'timeout = "5s"\n'
LONG: Final = 'timeout = "1h"\n'
"""Of a server whose only place is taken, so that it stays so."""
SERVERS: Final = {
    "plain": SHORT + 'max_clients = 100\nmax_size = "1 MiB"\ndata_timeout = "10s"',
    "starttls": SHORT + "tls = { start_tls_on = true, FILES }",
    "implicit": SHORT + "tls = { tls_always_on = true, FILES }",
    "proxy": SHORT + "proxy_protocol = true\nxclient_on = true\nmax_connections_per_ip = 50",
    "untrusted": SHORT + 'proxy_protocol = true\ntrusted_proxies = ["192.0.2.1"]',
    "slow": LONG + 'greet_delay = "20s"',
    "auth": SHORT
    + "auth = { required = true, allow_plaintext = true, failure_delay = 0, max_failures = 0 }",
    "full": LONG + "max_clients = 1",
    "crowded": LONG + "max_connections_per_ip = 1",
    "named": LONG + "proxy_protocol = true\nmax_connections_per_ip = 1",
}
GROWTH: Final = 4 * MIB
"""Octets that chance may make of a process that has done the same before: 210 a connection of
`make abuse`. Measured are 1 to 3 MiB, and no more after 100,000 connections than after 20,000."""
SETTLED: Final = 0.2
"""Seconds without a change."""


REACHED: Final = {
    "connections_refused": 2,
    "connections_limited": 3,
    "proxies_refused": 6,
    "early_talkers": 1,
    "tls_handshakes": 4,
    "tls_failures": 9,
    "logins_failed": 2,
}
"""Counters that so many kinds move, each time they come."""


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
        return {str(name): count for name, count in told.items() if isinstance(count, int)}

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
            # What is said to be open or taken is about to go, however late.
            return not any(now[1][2:]) and now[0] - states[0][0] > SETTLED

        until(settled)
        return states[0][1]

    def abuse(self, each: int) -> int:
        """Has all places taken where that is the point, and abuses all, so often by each kind.

        Returns:
            How many connections that were.
        """
        self._rounds += 1
        with (
            Wire(self.addresses["full"]),
            Wire(self.addresses["crowded"]),
            Wire(self.addresses["named"], greeted=False) as named,
        ):
            named.send(abuse_edge.HELD)
            assert named.reply().startswith("220 ")
            return abuse.commit(self.addresses, each, self._rounds)


@pytest.fixture
def abused(tmp_path: Path) -> Iterator[Abused]:
    """A daemon with a server for each of `SERVERS`."""
    files = self_signed(tmp_path).toml().strip().replace("\n", ", ")
    servers = [keys.replace("FILES", files) for keys in SERVERS.values()]
    config = listeners(tmp_path, servers=servers)
    # Those that send no whole PROXY header are warned of, and so are refusals.
    config = config.replace('log_level = "info"', 'log_level = "error"')
    users = write_users(tmp_path / "users", f"joe:{quick_argon2()}", f"jane:{quick_bcrypt()}")
    config += f'\nauth_process = "AuthFile"\nauth_file = {json.dumps(str(users))}\n'
    command = (sys.executable, str(TELLING))
    with RunningDaemon(tmp_path, config=config, command=command) as running:
        yield Abused(running)
        assert running.log_text() == ""


def test_abuse_leaves_nothing(abused: Abused, pytestconfig: pytest.Config) -> None:
    each = int(pytestconfig.getoption("--abuse"))
    # What is needed once, as code, caches and the allocator's own, is no leak.
    abused.abuse(min(each, 200))
    before, memory = abused.settle(), resident_memory(abused.running.pid)
    counted = abused.counters()
    began = time.monotonic()
    connections = abused.abuse(each)
    took = time.monotonic() - began
    after = abused.settle()
    grown = resident_memory(abused.running.pid) - memory
    print(f"{connections:,} connections in {took:.1f} s")  # noqa: T201 - shown with -s
    print(f"{memory / MIB:.1f} MiB resident, then {grown / 1024:+,.0f} KiB; {after}")  # noqa: T201
    assert after == before
    assert (after.connections_open, after.memory_used, after.memory_retained) == (0, 0, 0)
    assert grown < GROWTH
    told = {name: count - counted[name] for name, count in abused.counters().items()}
    assert told["panics"] == 0
    # Each kind did come to where it is abuse: otherwise it would show nothing.
    assert told["connections_accepted"] + told["connections_refused"] > 0.8 * connections
    for name, kinds in REACHED.items():
        assert told[name] >= kinds * each, name
    # Every handshake ends, and in one way.
    handshakes = each * sum(len(abuse.KINDS[server]) for server in ("starttls", "implicit"))
    assert told["tls_handshakes"] + told["tls_failures"] == handshakes
    with Wire(abused.addresses["plain"]) as honest:
        assert honest.deliver(b"Subject: honest\r\n\r\nbody").startswith("250 2.0.0 ")
