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


@dataclass(frozen=True, slots=True)
class Place:
    """What a daemon is given rather than opens itself.

    Attributes:
        sockets: those that somebody else has bound, as `Core.inherit` takes them: of the process
            above it, of the one before it, or of systemd. Their descriptors stay the giver's.
        ours: addresses whose sockets nobody has but the process above it and its children: a server
            that goes may turn away who connects there. Else it changes nothing of the socket.
        passed: those of `sockets` whose descriptors stay open as long as the process runs, as those
            of systemd do: a reload may come back to them.
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
    passed: Sequence[tuple[str, int]] = ()
    number: int = 0
    processes: int = 1
    memory: SharedMemory | None = None
    is_child: bool = False
    resolved: Mapping[str, Sequence[str]] = field(default_factory=dict)
    before: Predecessor | None = None


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
