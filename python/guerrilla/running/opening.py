"""What a daemon opens, in the order of its start: each part is undone when a later one fails.

What fails raises a `StartError` whose problems name the key of the config that asked for it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from guerrilla._core import Core
from guerrilla.engine.backends import backends_of, placed_in
from guerrilla.engine.breaker import Breaker
from guerrilla.engine.worker import PoolSettings, WorkerPool
from guerrilla.errors import ConfigError, StartError
from guerrilla.logs.output import LogOutput, LogSettings, log_problem
from guerrilla.processes.place import ALONE, passed_for
from guerrilla.running.pidfile import PidFile
from guerrilla.running.privileges import become, give_file, give_socket
from guerrilla.running.rights import log_opener
from guerrilla.running.settings import core_settings, placed
from guerrilla.running.settings import place as place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import ExitStack

    from guerrilla._core import Backend
    from guerrilla.config import AppConfig, BackendConfig, ServerConfig
    from guerrilla.engine.base import TaskName
    from guerrilla.engine.chain import Chain
    from guerrilla.processes.place import Place
    from guerrilla.running.privileges import Identity

log = logging.getLogger("guerrilla.daemon")

GRACE: Final = 2.0
"""Seconds that idle workers have to close their chains when the time of a stop is used up."""

_OPEN_LIMIT: Final = 60.0
"""Seconds that a worker has to open its chain, or twice the time limit of its task: the longer."""

_UNIX: Final = "unix:"


def open_log(
    config: AppConfig,
    opened: ExitStack,
    process: int | None = None,
    identity: Identity | None = None,
) -> LogOutput:
    """Opens `log_file`, and those of servers.

    Args:
        config: what names them.
        opened: closes them.
        process: the number of this one among several.
        identity: who gets them, as this process becomes it, or others do.

    Raises:
        StartError: one cannot be written.
    """
    try:
        logs = LogOutput.from_settings(LogSettings.of(config), process, log_opener(identity))
    except OSError as error:
        raise StartError(log_problem(config, error)) from error
    opened.callback(logs.close)
    return logs


def take_pid_file(
    config: AppConfig, held: int | None = None, identity: Identity | None = None
) -> PidFile | None:
    """Takes `pid_file`, where there is one; `held` and `identity` as `PidFile` has them.

    Raises:
        StartError: it cannot be written, or a live daemon has it.
    """
    if not config.pid_file:
        return None
    try:
        return PidFile(config.pid_file, held, identity)
    except FileExistsError as error:
        raise StartError(f"pid_file: {error}") from error
    except OSError as error:
        raise StartError(f"pid_file: {config.pid_file}: {error.strerror or error}") from error


def drop_privileges(identity: Identity, pid_file: PidFile | None, addresses: Sequence[str]) -> None:
    """Becomes the user of the config, who gets what was opened as root before, beside the logs.

    Raises:
        StartError: it cannot be, or not for good.
    """
    if pid_file is not None:
        give_file(identity, pid_file.fileno(), str(pid_file.path))
    for address in addresses:
        if address.startswith(_UNIX):
            give_socket(identity, address.removeprefix(_UNIX))
    become(identity)


def make_core(
    config: AppConfig,
    servers: Sequence[tuple[ServerConfig, str]],
    *,
    tasks: Mapping[str, Collection[TaskName]],
    log_level: int,
    place: Place = ALONE,
) -> Core:
    """The core, which has read the files of TLS and bound nothing; arguments as `core_settings`.

    It has the sockets that are there already.

    Raises:
        StartError: what it cannot obey or read, by its place in the config, and what cannot be
            bound either.
    """
    settings = core_settings(
        config,
        servers,
        tasks=tasks,
        log_level=log_level,
        processes=place.processes,
    )
    try:
        core = Core(settings, place.memory)
    except ValueError as error:
        problems = [*placed(config, str(error)), *unusable(config, servers, place)]
        raise StartError(dict.fromkeys(problems)) from error
    except MemoryError as error:
        raise StartError(str(error)) from error
    inherit_all(config, servers, core, place)
    return core


def inherit(
    config: AppConfig,
    servers: Sequence[tuple[ServerConfig, str]],
    core: Core,
    sockets: Sequence[tuple[str, int]],
    ours: Collection[str] = (),
) -> None:
    """Has a core take sockets that somebody else has bound, for the next time that it listens.

    Args:
        config: whose servers they are for.
        servers: with their addresses.
        core: which takes them.
        sockets: as `Core.inherit` takes them.
        ours: as `Place.ours`.

    Raises:
        StartError: one is not what its server needs.
    """
    try:
        core.inherit([one for one in sockets if one[0] not in ours])
        core.inherit([one for one in sockets if one[0] in ours], kept=False)
    except ValueError as error:
        raise StartError(at_address(config, servers, str(error))) from error


def inherit_all(
    config: AppConfig, servers: Sequence[tuple[ServerConfig, str]], core: Core, place: Place
) -> None:
    """Has a core take all that its servers are given; arguments and errors as `inherit`."""
    inherit(config, servers, core, place.sockets, place.ours)
    passed = passed_for(place.passed, [address for _, address in servers])
    inherit(config, servers, core, passed)


def at_address(config: AppConfig, servers: Sequence[tuple[ServerConfig, str]], problem: str) -> str:
    """A problem that begins with an address, by the place of the server that listens there."""
    names = (server.name for server, address in servers if problem.startswith(f"{address}: "))
    name = next(names, None)
    return problem if name is None else f"{place_of(config, name)}.listen_interface: {problem}"


def make_pools(
    config: AppConfig,
    make_chain: Callable[[str, TaskName], Chain[Any]],
    wanted: Mapping[str, Sequence[TaskName]],
) -> list[WorkerPool[Any]]:
    """Pools, not opened, for these tasks of these backends."""
    backends = backends_of(config)
    return [
        WorkerPool(_pool_settings(name, task, backends[name]), partial(make_chain, name, task))
        for name, tasks in wanted.items()
        for task in tasks
    ]


def begin_pools(pools: Sequence[WorkerPool[Any]], core: Core) -> None:
    """Lets their workers take what comes."""
    backends = {name: core.backend(name) for name in {pool.settings.backend for pool in pools}}
    for backend in backends.values():
        # What those before them answered, and that they failed, says nothing of these.
        backend.renew()
    for pool in pools:
        begin_pool(pool, backends[pool.settings.backend])


def begin_pool(pool: WorkerPool[Any], backend: Backend) -> None:
    """Lets the workers of one pool take what comes; those that are missing are made soon."""
    receives: dict[TaskName, Callable[[int, float], list[Any] | None]] = {
        "save": backend.receive,
        "spooled": backend.receive_spooled,
        "validate": backend.receive_checks,
        "authenticate": backend.receive_logins,
    }
    pool.breaker = Breaker(backend, pool.settings.name) if pool.settings.breaks else None
    pool.receive = receives[pool.settings.name]
    pool.set_intake = backend.set_intake
    pool.begin()


def open_pools(
    pools: Sequence[WorkerPool[Any]], opened: ExitStack, *, at_start: bool = False
) -> None:
    """Opens the chains of all workers.

    Args:
        pools: not opened.
        opened: undoes it.
        at_start: what is needed right of `250` may be away: a machine may come up together with
            its database, or before it, and the spool takes mail meanwhile.

    Raises:
        StartError: what failed, in any pool.
    """
    problems: list[str] = []
    for pool in pools:
        try:
            pool.open(may_be_away=at_start and pool.settings.name == "spooled")
        except (ConfigError, StartError) as error:
            told = placed_in(pool.settings.backend, error.problems)
            problems += [line for line in told if line not in problems]
        else:
            opened.callback(_end_if_open, pool)
    if problems:
        raise StartError(problems)


def listen(config: AppConfig, core: Core) -> list[str]:
    """Binds every server; the bound addresses. Connections wait until `serve`.

    Raises:
        StartError: those that could not be bound, by the place they have in the config.
    """
    try:
        return core.bind()
    except OSError as error:
        places = {
            server.name: f"servers[{index}].listen_interface: "
            for index, server in enumerate(config.servers)
            if server.is_enabled
        }
        raise StartError(
            places.get(line.partition(": cannot listen")[0], "") + line
            for line in str(error).splitlines()
        ) from error


def drop_inherited(core: Core) -> None:
    """Closes what was handed over and no server has asked for: the config is another one."""
    for address in core.drop_inherited():
        log.warning("%s: no server listens there: what was handed over is closed", address)


def serve(core: Core) -> None:
    """Takes connections from now on.

    Raises:
        StartError: the I/O thread could not be made.
    """
    try:
        core.start()
    except OSError as error:
        raise StartError(f"the I/O thread cannot be started: {error.strerror or error}") from error


def unusable(
    config: AppConfig, servers: Sequence[tuple[ServerConfig, str]], place: Place
) -> list[str]:
    """What of TLS cannot be read and which of `servers` cannot be bound; none stays bound.

    For a start that fails already, so that it tells of all servers at once.
    """
    if not servers:
        return []
    settings = core_settings(config, servers, tasks={}, log_level=logging.CRITICAL)
    problems: list[str] = []
    try:
        core = Core(settings)
    except ValueError as error:
        problems += placed(config, str(error))
        for server in settings["servers"]:
            server["tls"] = None  # whose files were what could not be used
        try:
            core = Core(settings)
        except ValueError:
            return problems
    try:
        inherit_all(config, servers, core, place)
        listen(config, core)
    except StartError as error:
        problems += error.problems
    finally:
        core.close()
    return problems


def _pool_settings(name: str, task: TaskName, backend: BackendConfig) -> PoolSettings:
    size, timeout = {
        "save": (backend.save_workers_size, backend.gw_save_timeout),
        "spooled": (backend.save_workers_size, backend.gw_save_timeout),
        "validate": (backend.validate_workers_size, backend.gw_val_rcpt_timeout),
        "authenticate": (backend.auth_workers_size, backend.gw_auth_timeout),
    }[task]
    hang_after = 2 * timeout
    open_limit = max(_OPEN_LIMIT, hang_after)
    # Not logins: no mail is lost by one that fails, and who logs in may try at once again. Nor what
    # is spooled: its sender is answered, and each mail of it waits until it is tried again.
    breaks = backend.breaker_failures > 0 and task in ("save", "validate")
    return PoolSettings(
        task, size, backend.save_batch_size, hang_after, open_limit, breaks, backend=name
    )


def _end_if_open(pool: WorkerPool[Any]) -> None:
    """For a start that failed or a stop that was interrupted; else the stop ended it before."""
    if not pool.ending.is_set():
        pool.end(GRACE)
