"""Another config for a daemon that runs: what changes is replaced, what cannot be stays.

Read, validated and compared whole; then each part by itself. The old part serves until the new one
has started, so no client hears of it; and where the new one cannot start, the old one goes on.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from guerrilla._core import Core
from guerrilla.config.diff import changes
from guerrilla.engine.backends import backends_of, keep_backends
from guerrilla.errors import ConfigError, NotNowError, StartError
from guerrilla.logs.output import LogSettings, log_problem
from guerrilla.processes.place import passed_for
from guerrilla.running.opening import (
    GRACE,
    begin_pools,
    inherit,
    make_pools,
    open_pools,
    take_pid_file,
)
from guerrilla.running.settings import core_settings, placed
from guerrilla.running.spooling import open_spool, waiting, waiting_warnings, with_spooled
from guerrilla.running.startup import raise_file_limit, resolve_servers
from guerrilla.running.staying import kept_until_start, servers_in_force
from guerrilla.running.tlswatch import make_watch

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from guerrilla._core import CoreSettings
    from guerrilla.config import AppConfig, ServerConfig
    from guerrilla.control.server import Report
    from guerrilla.engine.base import TaskName
    from guerrilla.engine.worker import WorkerPool
    from guerrilla.events import Change
    from guerrilla.running.parts import Parts, Plan

log = logging.getLogger("guerrilla.reload")


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What came of a reload.

    Attributes:
        changes: what is in force now, in the order it was published.
        failures: a line each: the key, and why what was there before goes on.
        warnings: what works and is hardly meant, of what is in force now; as after a start.
    """

    changes: tuple[Change, ...]
    failures: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all of it is in force."""
        return not self.failures


class Reload:
    """One reload.

    Args:
        parts: of the daemon; replaced one by one.
        plan: for a config that has no problems.
    """

    def __init__(self, parts: Parts, plan: Plan) -> None:
        """Changes nothing."""
        self._parts = parts
        self._plan = plan
        self._new = plan.config
        self._failures: list[str] = []
        self._opened: list[WorkerPool[Any]] = []
        """Workers of what is new, until they are begun."""
        self._keeps = True
        """What cannot start leaves what was there before; else it refuses all of it."""

    def run(self) -> ReloadReport:
        """Puts it in force, as far as it can be."""
        self._keep_what_only_a_start_can_change()
        self._replace_log()
        # First: what the core is to ask has to have somebody who answers.
        self._opened = self._open_pools(self._open_spool())
        return self._obey_now()

    def prepare(self, sockets: Sequence[tuple[str, int]] = (), ours: Collection[str] = ()) -> None:
        """Opens what is new and replaces nothing: `commit` or `abandon` is to follow.

        For one of several processes, of which all obey or none: what cannot start here refuses all
        of it. A spool that is new is open from now on, whatever follows.

        Args:
            sockets: as `Core.inherit` takes them, for servers that are new.
            ours: as `Place.ours`.

        Raises:
            StartError: everything that cannot be; nothing is left of it.
        """
        self._keeps = False
        self._failures += self._unready(sockets, ours)
        self._opened = self._open_pools(self._open_spool())
        if self._failures:
            self.abandon()
            raise StartError(dict.fromkeys(self._failures))

    def commit(self) -> ReloadReport:
        """Puts in force what was prepared."""
        self._keeps = True
        self._replace_log()
        return self._obey_now()

    def abandon(self) -> None:
        """Closes what was prepared."""
        opened, self._opened = self._opened, []
        for pool in opened:
            pool.end(GRACE)
        self._parts.core.drop_inherited()
        # Which has the new limits; it is open, so that nothing can fail.
        open_spool(self._parts.config, self._parts.core, self._parts.place.processes)

    def _unready(self, sockets: Sequence[tuple[str, int]], ours: Collection[str]) -> list[str]:
        """What of the config cannot be obeyed on this machine, but for chains and the spool."""
        parts = self._parts
        servers, problems = resolve_servers(self._new, self._plan.resolved)
        problems += raise_file_limit(servers)
        try:
            # It reads the files of TLS and binds nothing.
            Core(self._settings(servers)).close()
        except ValueError as error:
            problems += placed(self._new, str(error))
        try:
            inherit(self._new, servers, parts.core, sockets, ours)
        except StartError as error:
            problems += error.problems
        try:
            parts.logs.try_out(LogSettings.of(self._new))
        except OSError as error:
            problems.append(log_problem(self._new, error))
        return problems

    def _obey_now(self) -> ReloadReport:
        parts, old = self._parts, self._parts.config
        opened, self._opened = self._opened, []
        try:
            tls_changed = self._replace_core()
        except BaseException:
            for pool in opened:
                pool.end(GRACE)
            raise
        self._replace_pools(opened)
        self._replace_pid_file()
        self._replace_watch()
        parts.config = self._new
        parts.reloads += 1
        parts.reload_failures += bool(self._failures)
        return ReloadReport(
            tuple(changes(old, self._new, tls_changed=tls_changed)),
            tuple(self._failures),
            self._warn(),
        )

    def _warn(self) -> tuple[str, ...]:
        """Logs what a start would, of what is in force now."""
        warnings = replace(self._plan, config=self._new).warnings()
        warnings += waiting_warnings(self._new, self._parts.core)
        for warning in warnings:
            log.warning("%s", warning)
        return tuple(warnings)

    def _keep(self, **fields: Any) -> None:
        """What is in force in the end is not all that was asked for."""
        self._new = self._new.model_copy(update=fields)

    def _fail(self, *lines: str) -> None:
        for line in lines if self._keeps else ():
            log.error("%s; what was there before stays", line)
        self._failures += lines

    def _keep_what_only_a_start_can_change(self) -> None:
        left = sum(waiting(self._parts.core).values())
        self._new, problems = kept_until_start(self._parts.config, self._new, left)
        self._fail(*problems)

    def _open_spool(self) -> list[str]:
        """Opens a spool that is new; the names of backends that cannot do without, if it does not.

        One that is open stays where it is, and obeys new limits.
        """
        try:
            open_spool(self._new, self._parts.core, self._parts.place.processes)
        except StartError as error:
            self._fail(*error.problems)
            self._keep(spool=self._parts.config.spool)
            return [
                name
                for name, backend in backends_of(self._new).items()
                if backend.spools != "never"
            ]
        return []

    def _open_pools(self, failed: list[str]) -> list[WorkerPool[Any]]:
        """The workers of what is new or changed, opened; what does not open leaves the old.

        Args:
            failed: backends that have failed already.
        """
        parts, plan, opened = self._parts, self._plan, []
        make_chain = partial(plan.make_chain, book=parts.book)
        for name in self._changed_backends():
            if name in failed:
                continue
            pools = make_pools(self._new, make_chain, {name: self._tasks(name)})
            try:
                with ExitStack() as undo:
                    open_pools(pools, undo)
                    undo.pop_all()
            except StartError as error:
                self._fail(*error.problems)
                failed.append(name)
            else:
                opened += pools
        if failed:
            self._new, homeless = keep_backends(parts.config, self._new, failed)
            self._fail(*homeless)
        return opened

    def _changed_backends(self) -> list[str]:
        """Those that get other workers: also where spooled mail has come to one that has none."""
        parts = self._parts
        old, new = backends_of(parts.config), backends_of(self._new)
        served = {pool.settings.backend for pool in parts.pools if pool.settings.name == "spooled"}
        late = waiting(parts.core).keys() - served
        return [name for name in new if old.get(name) != new[name] or name in late]

    def _tasks(self, name: str) -> list[TaskName]:
        """Sessions that began with a check go on with it: once there, its workers stay.

        So do those of what is spooled.
        """
        wanted = with_spooled({name: self._plan.tasks[name]}, self._parts.core)[name]
        pools = [pool for pool in self._parts.pools if pool.settings.backend == name]
        return list(dict.fromkeys([*wanted, *(pool.settings.name for pool in pools)]))

    def _replace_pools(self, opened: list[WorkerPool[Any]]) -> None:
        """Behind the core, which knows all backends now."""
        parts = self._parts
        if not opened and parts.config.backends.keys() == self._new.backends.keys():
            return
        begin_pools(opened, parts.core)
        replaced = {pool.settings.backend for pool in opened}
        pools = {name: self._stay(name, replaced) for name in backends_of(self._new)}
        for pool in opened:
            pools[pool.settings.backend].append(pool)
        now = [pool for those in pools.values() for pool in those]
        gone = [pool for pool in parts.pools if pool not in now]
        for pool in gone:
            if pool.settings.backend in replaced or pool.settings.name == "spooled":
                # What is spooled for a backend that is gone waits until it is there again.
                pool.retire()
            else:
                # Transactions that began with it have nobody else.
                pool.drain()
        parts.pools = now
        parts.retired = [pool for pool in parts.retired if pool.size] + gone
        parts.supervisor.replace(now)

    def _stay(self, name: str, replaced: set[str]) -> list[WorkerPool[Any]]:
        """The pools of a backend that go on."""
        pools = self._parts.pools if name not in replaced else ()
        return [pool for pool in pools if pool.settings.backend == name]

    def _replace_core(self) -> list[str]:
        """Servers and limits; the names of the servers whose files of TLS changed."""
        parts, asked = self._parts, self._new
        servers, unresolved = self._resolved()
        self._fail(*unresolved, *raise_file_limit(servers))
        if unresolved:
            servers = self._stay_in_place(servers)
        told = parts.core.reload_tls()
        self._take_passed(servers)
        problems = self._obey(servers)
        # By their places in the config that was asked for.
        self._fail(*placed(asked, "\n".join(problems)))
        kept = servers_in_force(
            parts.config, self._new, problems, {name for name, _ in parts.core.clients()}
        )
        if kept != self._new.servers:
            self._keep(servers=kept)
            servers, _ = self._resolved()
            self._fail(*placed(self._new, "\n".join(self._obey(servers))))
            self._replace_log()
        # Sockets of servers that are gone, which might have had to go on: see `Core.reload`.
        parts.core.drop_inherited()
        parts.servers = servers
        return [name for name, reason in told if reason is None]

    def _resolved(self) -> tuple[list[tuple[ServerConfig, str]], list[str]]:
        """The servers with their addresses, and a problem for each whose name nobody knows now.

        Such a one goes on at its last addresses.
        """
        servers, unresolved = resolve_servers(self._new, self._plan.resolved)
        if unresolved:
            servers += self._addresses_before({server.name for server, _ in servers})
        return servers, unresolved

    def _stay_in_place(
        self, servers: list[tuple[ServerConfig, str]]
    ) -> list[tuple[ServerConfig, str]]:
        """Where a server has moved to a name that nobody knows: the one that it was, goes on.

        Not by closing and binding it again: who waits to be accepted would be reset, and a port
        below 1024 can be bound by root alone.
        """
        known = {server.name for server, _ in servers}
        kept = servers_in_force(self._parts.config, self._new, (), known)
        if kept == self._new.servers:
            return servers
        self._keep(servers=kept)
        self._replace_log()
        return self._resolved()[0]

    def _take_passed(self, servers: list[tuple[ServerConfig, str]]) -> None:
        """Sockets that were passed at the start, for a server that was taken out and is back.

        For one at the address of a socket that had a name, too: should it come to nothing, the one
        of that name goes on with all that it had.
        """
        parts = self._parts
        there = {address for _, address in parts.servers}
        passed = passed_for(parts.place.passed, [address for _, address in servers])
        parts.core.inherit([one for one in passed if one[0] not in there])

    def _obey(self, servers: list[tuple[ServerConfig, str]]) -> list[str]:
        """Tells the core; what it could not obey."""
        # `Plan.problems` has asked a core whether it can: nothing of it is refused here.
        return self._parts.core.reload(self._settings(servers))

    def _settings(self, servers: list[tuple[ServerConfig, str]]) -> CoreSettings:
        return core_settings(
            self._new,
            servers,
            tasks=replace(self._plan, config=self._new).tasks,
            log_level=self._parts.logs.level,
            processes=self._parts.place.processes,
        )

    def _addresses_before(self, resolved: set[str]) -> list[tuple[ServerConfig, str]]:
        """Where servers go on whose host name nobody knows now."""
        return [
            (server, address)
            for server in self._new.servers
            if server.is_enabled and server.name not in resolved
            for before, address in self._parts.servers
            if before.name == server.name
        ]

    def _replace_log(self) -> None:
        parts, old = self._parts, self._parts.config
        try:
            parts.logs.change(LogSettings.of(self._new))
            parts.logs.reopen()
        except OSError as error:
            self._fail(log_problem(self._new, error))
            self._keep_logs(old)

    def _keep_logs(self, old: AppConfig) -> None:
        before = {server.name: server for server in old.servers}
        self._keep(
            log_file=old.log_file,
            log_level=old.log_level,
            log_format=old.log_format,
            servers=tuple(
                server.model_copy(update={"log_file": was.log_file, "log_level": was.log_level})
                if (was := before.get(server.name))
                else server.model_copy(update={"log_file": None, "log_level": None})
                for server in self._new.servers
            ),
        )

    def _replace_pid_file(self) -> None:
        parts, old = self._parts, self._parts.config
        if old.pid_file == self._new.pid_file or parts.place.is_child:
            return
        try:
            fresh = take_pid_file(self._new)
        except StartError as error:
            self._fail(*error.problems)
            self._keep(pid_file=old.pid_file)
            return
        parts.pid.remove()
        parts.pid.file = fresh

    def _replace_watch(self) -> None:
        parts = self._parts
        parts.stop_watch()
        parts.watch = make_watch(self._new, parts.watched)
        if parts.watch is not None:
            parts.watch.start()


class _Reads(Protocol):
    """A daemon, or the parent of several processes."""

    def reload_config_file(self) -> Report:
        """As `Daemon.reload_config_file`."""


def read_again(daemon: _Reads, why: str) -> bool:
    """Reloads the config file for a signal or a change, which wait for no answer: it is logged.

    Args:
        daemon: one that runs.
        why: what asked for it, for the log.

    Returns:
        Whether that is all: False where the same file may be obeyed a little later.
    """
    try:
        report = daemon.reload_config_file()
    except ConfigError as error:
        for problem in error.problems:
            log.error("%s: %s", why, problem)  # noqa: TRY400  # no fault of code
        log.error("%s: nothing of the config was applied", why)  # noqa: TRY400
        return not isinstance(error, NotNowError)
    except RuntimeError as error:
        log.error("%s: %s", why, error)  # noqa: TRY400
        return True
    for change in report.changes:
        log.info("%s: %s", why, change)
    return True
