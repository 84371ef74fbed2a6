"""Where a daemon runs among others."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from guerrilla._core import SharedMemory
    from guerrilla.config import AppConfig, ServerConfig
    from guerrilla.processes.handover import Predecessor


GRACE: Final = 20.0
"""Seconds over `shutdown_timeout` that a child has to end, for workers and chains that close."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A socket that systemd has passed: it keeps it, and so does this process as long as it runs.

    Attributes:
        fd: its descriptor.
        name: its `FileDescriptorName`; by default the name of the socket unit.
        address: where it listens.
        takes_both: it listens on all addresses of IPv6, and takes clients of IPv4 as well.
    """

    fd: int
    name: str
    address: str
    takes_both: bool = False

    def __str__(self) -> str:
        """For errors."""
        return f"{self.name!r} of {self.address}"

    def addresses(self, asked: Collection[str]) -> list[str]:
        """Of those that servers listen at: which it is for, by its name, else by where it is."""
        name = f"systemd:{self.name}"
        if name in asked:
            return [name]
        if self.address not in asked:
            return []
        v4 = f"0.0.0.0:{self.address.rpartition(':')[2]}"
        # `:25` asks for both, and `ListenStream=25` is both in one.
        return [self.address, v4] if self.takes_both and v4 in asked else [self.address]


def passed_for(passed: Iterable[Passed], asked: Collection[str]) -> list[tuple[str, int]]:
    """What of it is for servers at these addresses, which are all that there are."""
    return [(address, one.fd) for one in passed for address in one.addresses(asked)]


@dataclass(frozen=True, slots=True)
class Place:
    """What a daemon is given rather than opens itself.

    Attributes:
        sockets: those that somebody else has bound, as `Core.inherit` takes them: of the process
            above it, or of the one before it. Their descriptors stay the giver's.
        ours: addresses of `sockets` that nobody else goes on with, once the process before it is
            gone: a server that goes may turn away who connects there. Else it changes nothing of
            the socket.
        passed: what systemd has passed, to this process or to the one before it. Their descriptors
            stay open as long as the process runs: a reload may come back to them.
        number: of this process, from 0.
        processes: how many share what the config allows for all of them.
        memory: what they have in common; None for one alone.
        is_child: a process above it has the pid file, the control socket and the signals.
        resolved: the addresses of a `listen_interface`, where the process above it has looked them
            up: all have the same ones, and need no name service when one of them starts again.
        before: the process whose place it takes, which serves until this one is ready.
    """

    sockets: Sequence[tuple[str, int]] = ()
    ours: Collection[str] = ()
    passed: Sequence[Passed] = ()
    number: int = 0
    processes: int = 1
    memory: SharedMemory | None = None
    is_child: bool = False
    resolved: Mapping[str, Sequence[str]] = field(default_factory=dict)
    before: Predecessor | None = None

    def binds(self, asked: Collection[str]) -> list[str]:
        """Those of the servers' addresses that nobody has bound before: the daemon does itself."""
        given = {address for address, _ in (*self.sockets, *passed_for(self.passed, asked))}
        return [address for address in asked if address not in given]


ALONE: Final = Place()
"""One process that opens everything itself."""


def count_processes(config: AppConfig) -> int:
    """How many the config asks for: at 0, one for each core that this process may use."""
    return config.processes or len(os.sched_getaffinity(0))


def by_interface(servers: Iterable[tuple[ServerConfig, str]]) -> dict[str, list[str]]:
    """Their addresses by `listen_interface`, as `Place.resolved`."""
    found: dict[str, list[str]] = {}
    for server, address in servers:
        found.setdefault(server.listen_interface, []).append(address)
    return found
