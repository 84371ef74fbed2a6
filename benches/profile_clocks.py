"""What each thread of a daemon has used, by the kernel's own clocks, which slow nothing down."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

IO: Final = "I/O thread"
WORKERS: Final = "workers"
OTHERS: Final = "other threads"
_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Clock:
    """Of some threads: seconds of CPU, those of them in user and kernel mode, and waits."""

    cpu: float = 0.0
    user: float = 0.0
    system: float = 0.0
    """In ticks, so that only the ratio of the two says something."""
    waits: float = 0.0
    """Times that they gave up the CPU by themselves."""

    def __add__(self, other: Clock) -> Clock:
        return self._each(other, 1)

    def __sub__(self, other: Clock) -> Clock:
        return self._each(other, -1)

    def _each(self, other: Clock, sign: int) -> Clock:
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Clock(*(one + sign * two for one, two in zip(mine, theirs, strict=True)))

    def modes(self) -> tuple[float, float]:
        """CPU seconds in user and in kernel mode, by the ratio of the ticks."""
        ticks = self.user + self.system
        user = self.cpu * self.user / ticks if ticks else 0.0
        return user, self.cpu - user


def clocks(pid: int) -> dict[str, Clock]:
    """Of the I/O thread, of the threads of Python's, and of others of the core."""
    found = dict.fromkeys((IO, WORKERS, OTHERS), Clock())
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name, clock = _clock(task)
        except (FileNotFoundError, ProcessLookupError):  # It has ended meanwhile.
            continue
        found[_kind(name)] += clock
    return found


def _kind(name: str) -> str:
    if name == "guerrilla-io":
        return IO
    return OTHERS if name.startswith(("guerrilla-", "spool")) else WORKERS


def _clock(task: Path) -> tuple[str, Clock]:
    stat = (task / "stat").read_text(encoding="utf-8", errors="replace")
    name, _, rest = stat.partition("(")[2].rpartition(")")
    user, system = (int(cell) / _TICK for cell in rest.split()[11:13])
    ran = int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    status = (task / "status").read_text(encoding="utf-8", errors="replace")
    waits = next(line for line in status.splitlines() if line.startswith("voluntary"))
    return name, Clock(ran, user, system, float(waits.split()[1]))


def between(before: Mapping[str, Clock], after: Mapping[str, Clock]) -> dict[str, Clock]:
    """What they have used meanwhile."""
    return {name: clock - before[name] for name, clock in after.items()}
