"""The spool of a daemon: opened by the core, worked on by the pools of the task `spooled`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from guerrilla.engine.backends import backends_of
from guerrilla.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guerrilla._core import Core
    from guerrilla.config import AppConfig
    from guerrilla.engine.base import TaskName
    from guerrilla.running.parts import Parts

log = logging.getLogger("guerrilla.spool")


def open_spool(config: AppConfig, core: Core, processes: int = 1) -> None:
    """Opens the spool, where there is one; one that is open obeys the limits of now.

    What a daemon before it had not finished is taken up with it.

    Args:
        config: what is to run.
        core: whose it is.
        processes: how many share `max_bytes`, each with a folder of its own.

    Raises:
        StartError: it cannot be opened.
    """
    spool = config.spool
    if spool is None:
        return
    try:
        core.open_spool(
            {
                "path": spool.path,
                # 0 is no limit, and stays that.
                "max_bytes": -(-spool.max_bytes // processes),
                "min_free": spool.min_free,
                "max_age": spool.max_age,
            }
        )
    except (OSError, ValueError) as error:
        raise StartError(f"spool.path: {error}") from error


def waiting(core: Core) -> dict[str, int]:
    """How many spooled mails each backend has, of those that have any."""
    spool = core.spool()
    return {} if spool is None else dict(spool.waiting())


def with_spooled(
    wanted: Mapping[str, Sequence[TaskName]], core: Core
) -> dict[str, Sequence[TaskName]]:
    """The tasks of each backend, with that of spooled mail where some is left.

    Its chain may have the spool no more.
    """
    left = waiting(core)
    return {
        name: tasks if name not in left or "spooled" in tasks else [*tasks, "spooled"]
        for name, tasks in wanted.items()
    }


def waiting_warnings(config: AppConfig, core: Core) -> list[str]:
    """A line for each backend that is gone and has spooled mail."""
    backends = backends_of(config)
    return [
        f"spool: {count} mails wait for the backend {name}, which is not in the config: they stay "
        f"until it is there again, or until they are dropped (guerrillad spool drop)"
        for name, count in waiting(core).items()
        if name not in backends
    ]


class Unserved:
    """Says once of each backend that spooled mail waits for it and nobody works on it.

    A start and a reload begin that work where it is there by then. It may come later: from the
    folder of a process that has ended, by `guerrillad spool replay`, or from a session that began
    when the chain had the spool.

    Args:
        parts: of a daemon that runs.
    """

    def __init__(self, parts: Parts) -> None:
        """Says nothing."""
        self._parts = parts
        self._seen: set[str] = set()
        self._told: set[str] = set()

    def look(self) -> None:
        """For the supervisor, now and then. What it sees for the first time may be about to end."""
        parts = self._parts
        served = {pool.settings.backend for pool in parts.pools if pool.settings.name == "spooled"}
        left = waiting(parts.core)
        now = left.keys() - served
        self._told &= now
        for name in sorted(now & self._seen - self._told):
            log.warning(
                "spool: %d mails wait for the backend %s, and nobody works on them: %s",
                left[name],
                name,
                "reload the config"
                if name in backends_of(parts.config)
                else "bring it back, or drop them (guerrillad spool drop)",
            )
            self._told.add(name)
        self._seen = now
