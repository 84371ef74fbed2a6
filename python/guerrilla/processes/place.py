"""Where a daemon runs among others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla._core import SharedMemory


@dataclass(frozen=True, slots=True)
class Place:
    """What a daemon is given rather than opens itself.

    Attributes:
        sockets: those that somebody else has bound, as `Core.inherit` takes them: of the process
            above it, of the one before it, or of systemd. Their descriptors stay the giver's.
        number: of this process, from 0.
        processes: how many share what the config allows for all of them.
        memory: what they have in common; None for one alone.
        is_child: a process above it has the pid file, the control socket and the signals.
    """

    sockets: Sequence[tuple[str, int]] = ()
    number: int = 0
    processes: int = 1
    memory: SharedMemory | None = None
    is_child: bool = False


ALONE: Final = Place()
"""One process that opens everything itself."""
