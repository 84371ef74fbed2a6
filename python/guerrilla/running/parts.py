"""What a running daemon has: opened in order, replaced one by one in a reload, ended in order."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from guerrilla.config.oddities import auth_oddities, may_offer_auth
from guerrilla.engine.backends import (
    DEFAULT,
    backends_of,
    make_chain,
    path_of,
    placed_in,
    tasks,
)
from guerrilla.engine.figures import StageBook
from guerrilla.engine.imported import changed_modules
from guerrilla.engine.supervisor import Supervisor
from guerrilla.errors import StartError
from guerrilla.eventpump import EventPump
from guerrilla.logs.pump import LogPump
from guerrilla.processes.activation import tell_unserved
from guerrilla.processes.place import ALONE, count_processes
from guerrilla.running.filesystems import spool_warnings
from guerrilla.running.opening import (
    GRACE,
    begin_pools,
    drop_inherited,
    drop_privileges,
    listen,
    make_core,
    make_pools,
    open_log,
    open_pools,
    serve,
    take_pid_file,
    unusable,
)
from guerrilla.running.privileges import root_warnings, wanted_identity
from guerrilla.running.spooling import Unserved, open_spool, with_spooled
from guerrilla.running.startup import config_problems, raise_file_limit, resolve_servers
from guerrilla.running.tlswatch import make_watch
from guerrilla.stream import begin_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path
    from threading import RLock

    from guerrilla._core import Core
    from guerrilla.config import AppConfig, ServerConfig
    from guerrilla.engine.backend import BackendFactory
    from guerrilla.engine.base import TaskName
    from guerrilla.engine.chain import Chain
    from guerrilla.engine.registry import Registry
    from guerrilla.engine.worker import WorkerPool
    from guerrilla.events import EventBus
    from guerrilla.logs.output import LogOutput
    from guerrilla.processes.place import Place
    from guerrilla.running.configwatch import ConfigWatch
    from guerrilla.running.pidfile import PidFile
    from guerrilla.running.privileges import Identity
    from guerrilla.running.tlswatch import TLSWatch

log = logging.getLogger("guerrilla.daemon")


class Checked(NamedTuple):
    """What was found before anything is opened."""

    servers: list[tuple[ServerConfig, str]]
    """Those that are enabled, with each of their addresses."""
    identity: Identity | None
    """Who it becomes once the ports are bound; None: it stays who it is."""
    problems: list[str]
    """What a start would refuse, a line each, which begins with the key of the config."""
    warnings: list[str]
    """What works and is hardly meant, likewise."""


@dataclass(frozen=True)
class Plan:
    """A config with what it takes to run it.

    Attributes:
        folder: of the config file, for modules beside it.
        backend: what stands in place of the chains.
        resolved: addresses that are known already, as `Place.resolved`.
        is_alone: no other process can be started beside this one, as in a program that has made
            threads and opened files of its own.
    """

    config: AppConfig
    registry: Registry
    folder: Path | None
    backend: BackendFactory | None
    resolved: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_alone: bool = False

    @property
    def tasks(self) -> dict[str, list[TaskName]]:
        """What there are workers for, by backend."""
        names = backends_of(self.config)
        return {name: tasks(self.config, name, self.backend) for name in names}

    def make_chain(self, backend: str, task: TaskName, book: StageBook | None = None) -> Chain[Any]:
        """A new chain for one worker of a backend, not opened; its stages count in `book`."""
        return make_chain(self.config, self.registry, backend, task, self.backend, book=book)

    def problems(self) -> list[str]:
        """What is wrong with the config, as far as its text tells."""
        found = config_problems(self.config, self.registry, self.folder, self.backend)
        count = count_processes(self.config)
        if self.is_alone and count > 1:
            found.append(
                f"processes: a Daemon within a program is one process, not {count}: remove the key "
                "or set it to 1; guerrillad serve runs several"
            )
        return found

    def warnings(self) -> list[str]:
        """What works and is hardly meant; of a config without problems."""
        found = [*self.config.warnings(), *self._auth_warnings(), *spool_warnings(self.config)]
        backends = backends_of(self.config)
        for name, kinds in self.tasks.items():
            if self.backend is not None and name == DEFAULT:
                continue
            found += placed_in(name, changed_modules(backends[name].import_))
            for task in kinds:
                warnings = self.make_chain(name, task).warnings()
                found += warnings if name == DEFAULT else placed_in(name, warnings)
        return found

    def _auth_warnings(self) -> list[str]:
        checked = [name for name, kinds in self.tasks.items() if "authenticate" in kinds]
        servers = [
            (index, server) for index, server in enumerate(self.config.servers) if server.is_enabled
        ]
        offering = {server.backend for _, server in servers if may_offer_auth(server)}
        return [
            f"servers[{index}].{oddity}"
            for index, server in servers
            for oddity in auth_oddities(server, is_checked=server.backend in checked)
        ] + [
            f"{path_of(name)}.auth_process: is never asked, as no server that names it has TLS or "
            "auth.allow_plaintext"
            for name in checked
            if name not in offering
        ]

    def look(self) -> Checked:
        """All that can be told without opening anything, as the user that it is."""
        problems = self.problems()
        servers, unresolved = resolve_servers(self.config, self.resolved)
        problems += [*unresolved, *raise_file_limit(servers)]
        identity = None
        try:
            identity = wanted_identity(self.config)
        except StartError as error:
            problems += error.problems
        # Chains of a config with problems cannot be made.
        warnings = self.config.warnings() if problems else self.warnings()
        warnings += root_warnings(self.config, servers)
        return Checked(servers, identity, problems, warnings)

    def check(self, place: Place = ALONE) -> Checked:
        """What `look` finds, where a start can begin with it; `place` has what needs no binding.

        Raises:
            StartError: all problems; where a host is not known, those of binding the others too.
        """
        found = self.look()
        problems = found.problems
        if len({server.listen_interface for server, _ in found.servers}) < _enabled(self.config):
            problems = [*dict.fromkeys([*problems, *unusable(self.config, found.servers, place)])]
        if problems:
            raise StartError(problems)
        return found


def _enabled(config: AppConfig) -> int:
    """How many servers there are to be."""
    return max(1, sum(server.is_enabled for server in config.servers))


@dataclass
class HeldPid:
    """The pid file of now, where there is one."""

    file: PidFile | None

    def remove(self) -> None:
        """At the end, or where another follows."""
        if self.file is not None:
            self.file.remove()


@dataclass
class Parts:
    """What a running daemon has, and a reload replaces."""

    config: AppConfig
    """What is in force."""
    servers: list[tuple[ServerConfig, str]]
    """Those that are enabled, with each of their addresses."""
    bound: list[str]
    """Where it listened at the start."""
    core: Core
    logs: LogOutput
    pid: HeldPid
    pools: list[WorkerPool[Any]]
    supervisor: Supervisor
    watch: TLSWatch | None
    watched: Callable[[], object]
    """What a watch on files of TLS calls."""
    retired: list[WorkerPool[Any]] = field(default_factory=list)
    """Pools whose workers end once they have answered what they have in hand."""
    config_watch: ConfigWatch | None = None
    watched_config: Path | None = None
    """The file that it looks at."""
    book: StageBook = field(default_factory=StageBook)
    """What the stages count."""
    place: Place = ALONE
    """What it has that was given to it."""
    began: float = field(default_factory=time.monotonic)
    reloads: int = 0
    reload_failures: int = 0
    """Reloads of which some part could not be put in force."""

    def addresses(self) -> list[str]:
        """Where it listens, in the order of the servers; where it did, after the end."""
        return self.core.addresses() or list(self.bound)

    def stop_config_watch(self) -> None:
        """At the end, or where `watch_config` is turned off."""
        if self.config_watch is not None:
            self.config_watch.stop()
            self.config_watch = None

    def stop_watch(self) -> None:
        """At the end, or where another follows."""
        if self.watch is not None:
            self.watch.stop()


def open_parts(
    plan: Plan,
    checked: Checked,
    opened: ExitStack,
    bus: EventBus,
    watched: Callable[[], object],
    *,
    lock: RLock,
    place: Place,
    before_serving: Callable[[Sequence[str], HeldPid], object],
) -> Parts:
    """Opens everything; `opened` undoes it, the last first: see `Daemon.shutdown`.

    `lock` is held while it starts, reloads and stops. `before_serving` is called when all is open,
    and nobody is served yet: with the addresses as they were bound, and the pid file.

    Raises:
        StartError: everything that could not start.
    """
    config = plan.config
    number = place.number if place.is_child else None
    logs = open_log(config, opened, number, checked.identity)
    begin_stream(plan.backend, opened)
    held = None if place.before is None else place.before.offer.pid_file
    pid = HeldPid(None if place.is_child else take_pid_file(config, held, checked.identity))
    opened.callback(pid.remove)
    watch = make_watch(config, watched)
    servers, kinds = checked.servers, plan.tasks
    core = make_core(config, servers, tasks=kinds, log_level=logs.level, place=place)
    pump = LogPump(core, logs)
    opened.callback(pump.join)
    events = EventPump(core, bus)
    opened.callback(events.end)
    opened.callback(core.close)
    bound = listen(config, core)
    drop_inherited(core)
    tell_unserved(place.passed, [address for _, address in servers])
    if checked.identity is not None:
        # Before any other thread, and anything of the chains: all that is the new user's.
        drop_privileges(
            checked.identity, pid.file, place.binds([address for _, address in servers])
        )
    pump.start()
    open_spool(config, core, place.processes)
    book = StageBook()
    pools = make_pools(config, partial(plan.make_chain, book=book), with_spooled(kinds, core))
    supervisor = Supervisor(pools)
    opened.callback(supervisor.stop)
    open_pools(pools, opened, at_start=True)
    before_serving([address for _, address in servers], pid)
    serve(core)
    supervisor.start()
    begin_pools(pools, core)
    parts = Parts(
        *(config, servers, bound, core, logs, pid, pools, supervisor, watch, watched),
        book=book,
        place=place,
    )
    supervisor.also = Unserved(parts, plan, lock).look
    opened.callback(parts.stop_watch)
    if watch is not None:
        watch.start()
    return parts


def wind_down(parts: Parts, timeout: float) -> bool:
    """Ends sessions, then workers; whether all of them ended by themselves."""
    limit = time.monotonic() + timeout
    log.info("stopping")
    graceful = parts.core.stop(timeout)
    if not graceful:
        log.warning("sessions were cut off after %.0f s", timeout)
    for pool in [*parts.pools, *parts.retired]:
        if not pool.end(max(limit - time.monotonic(), min(timeout, GRACE))):
            graceful = False
            log.warning("%s workers did not end in time", pool.settings.label)
    log.info("stopped")
    return graceful
