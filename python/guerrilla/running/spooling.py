"""The spool of a daemon: opened by the core, worked on by the pools of the task `spooled`."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from guerrilla.engine.backends import backends_of, placed_in
from guerrilla.errors import StartError
from guerrilla.running.opening import begin_pool, make_pools

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from threading import RLock

    from guerrilla._core import Core
    from guerrilla.config import AppConfig
    from guerrilla.engine.base import TaskName
    from guerrilla.engine.worker import WorkerPool
    from guerrilla.running.parts import Parts, Plan

log = logging.getLogger("guerrilla.spool")


def open_spool(config: AppConfig, core: Core) -> None:
    """Opens the spool, where there is one; one that is open obeys the limits of now.

    What a daemon before it had not finished is taken up with it.

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
                "max_bytes": spool.max_bytes,
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


def away_warnings(pools: Iterable[WorkerPool[Any]]) -> list[str]:
    """A line for each backend whose spooled mail waits for what its chain needs."""
    found = []
    for pool in pools:
        name, problems = pool.settings.backend, pool.problems
        if pool.settings.name == "spooled" and problems:
            why = "; ".join(placed_in(name, problems))
            found.append(f"spool: mail of the backend {name} waits until its chain opens: {why}")
    return found


class Unserved:
    """Begins to work on spooled mail of backends that have no workers for it.

    A start and a reload begin that where it is there by then. It may come later: from the folder of
    a process that has ended, by `guerrillad spool replay`, or from a session that began when the
    chain had the spool. Where its backend is not in the config it is told of, once.

    Args:
        parts: of a daemon that runs.
        plan: makes the chains, of the config of then.
        lock: held while the daemon starts, reloads and stops.
    """

    def __init__(self, parts: Parts, plan: Plan, lock: RLock) -> None:
        """Does nothing."""
        self._parts = parts
        self._plan = plan
        self._lock = lock
        self._seen: set[str] = set()
        self._told: set[str] = set()

    def look(self) -> None:
        """For the supervisor, now and then."""
        late = self._late()
        if late:
            # Never waited for: who stops holds it, and waits for the supervisor. A start and a
            # reload do themselves what is to be done; it is looked at again.
            if not self._lock.acquire(blocking=False):
                return
            try:
                late = self._serve()
            finally:
                self._lock.release()
        self._tell(late)

    def _late(self) -> dict[str, int]:
        """Mails of each backend that nobody works on."""
        pools = self._parts.pools
        served = {pool.settings.backend for pool in pools if pool.settings.name == "spooled"}
        left = waiting(self._parts.core)
        return {name: count for name, count in left.items() if name not in served}

    def _serve(self) -> dict[str, int]:
        """Makes the workers, as a start would; what is left is of backends that are gone.

        They open their chains in their own threads: the supervisor, which calls this, has them
        tried again where that fails.
        """
        parts = self._parts
        late, known = self._late(), backends_of(parts.config)
        make_chain = partial(replace(self._plan, config=parts.config).make_chain, book=parts.book)
        wanted: dict[str, list[TaskName]] = {name: ["spooled"] for name in late if name in known}
        pools = make_pools(parts.config, make_chain, wanted)
        for pool in pools:
            name = pool.settings.backend
            log.info("spool: %d mails wait for the backend %s: work begins", late.pop(name), name)
            begin_pool(pool, parts.core.backend(name))
        if pools:
            parts.pools = [*parts.pools, *pools]
            parts.supervisor.replace(parts.pools)
        return late

    def _tell(self, late: Mapping[str, int]) -> None:
        """What it sees for the first time may be about to end."""
        self._told &= late.keys()
        for name in sorted(late.keys() & self._seen - self._told):
            log.warning(
                "spool: %d mails wait for the backend %s, and nobody works on them: "
                "bring it back, or drop them (guerrillad spool drop)",
                late[name],
                name,
            )
            self._told.add(name)
        self._seen = set(late)
