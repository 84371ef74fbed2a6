"""The daemon: a core, its workers and its log, started and stopped in order."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from guerrilla import config as _config
from guerrilla.config import AppConfig
from guerrilla.errors import StartError
from guerrilla.logs import LogPump
from guerrilla.opening import (
    GRACE,
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
from guerrilla.privileges import root_warnings, wanted_identity
from guerrilla.registry import DECORATED, Registry
from guerrilla.startup import (
    config_problems,
    make_chain,
    raise_file_limit,
    resolve_servers,
    tasks,
)
from guerrilla.tlswatch import make_watch, reload_tls
from guerrilla.worker import Supervisor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from types import TracebackType

    from guerrilla._core import Core
    from guerrilla.backend import BackendFactory
    from guerrilla.base import Processor, TaskName
    from guerrilla.chain import Chain
    from guerrilla.config import ServerConfig
    from guerrilla.logs import LogOutput
    from guerrilla.privileges import Identity
    from guerrilla.worker import WorkerPool

log = logging.getLogger("guerrilla.daemon")


class Daemon:
    """An SMTP receiver: what `guerrillad serve` runs, for use within a program.

    A context manager: it starts, and stops gracefully at the end. It installs no signal handlers.
    Methods may be called from any thread. A daemon that was stopped is not started again.

    Args:
        config: what to run; Go-Guerrilla's defaults without it.
        config_file: where the config came from: errors name it, and modules of `import` may lie
            beside it.
        backend: makes what stands in place of the chains, once for each worker.
    """

    def __init__(
        self,
        config: AppConfig | None = None,
        config_file: str | PathLike[str] | None = None,
        *,
        backend: BackendFactory | None = None,
    ) -> None:
        """Opens nothing."""
        self.config = config if config is not None else AppConfig.default()
        self.config_file = Path(config_file) if config_file is not None else None
        self._backend = backend
        self._tasks = tasks(self.config, backend)
        self._registry = Registry(DECORATED)
        self._lock = threading.RLock()
        """Held while it starts and while it stops: one waits for the other."""
        self._busy = False
        """It starts or stops. Whoever holds the lock and finds that is a signal handler that came
        into the middle of it, and must not wait for it."""
        self._stop_wanted = False
        """A signal handler asked for a stop in the middle of the start."""
        self._started = False
        self._graceful = True
        self._done = threading.Event()
        self._opened = ExitStack()
        self._addresses: list[str] = []
        self._warnings: list[str] = []
        self._identity: Identity | None = None
        """Who it becomes once the ports are bound; None: it stays who it is."""
        self._core: Core | None = None
        self._logs: LogOutput | None = None
        self._pools: list[WorkerPool[Any]] = []
        self._supervisor: Supervisor | None = None

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """A daemon for a config file, JSON or TOML.

        Raises:
            ConfigError: the file cannot be read, or something in it is wrong.
        """
        return cls(_config.load(path), path)

    @property
    def addresses(self) -> list[str]:
        """Where it listens, in the order of the servers, with real ports; empty before start."""
        return list(self._addresses)

    def warnings(self) -> list[str]:
        """What works and is hardly meant, as a chain that stores nothing; complete after start."""
        return list(self._warnings)

    def add_processor(self, name: str, processor: type[Processor]) -> None:
        """Makes a processor known to this daemon alone.

        Raises:
            RuntimeError: after start.
            ValueError: the name is taken, or cannot stand in a chain.
            TypeError: not a class.
        """
        if self._started:
            message = "add_processor comes before start"
            raise RuntimeError(message)
        self._registry.add(name, processor)

    def start(self) -> None:
        """Starts to serve, and returns.

        Order: what the config asks for → log → pid file → sockets are bound → `user` and `group` →
        chains of all workers → mail is taken. Whatever fails undoes what came before, but that the
        process has become another user: that is for good, and for the whole program.

        Raises:
            StartError: everything that could not start, one line each.
            RuntimeError: started before.
        """
        with self._lock:
            if self._started:
                message = "a daemon is started once"
                raise RuntimeError(message)
            self._started = self._busy = True
            try:
                with ExitStack() as opened:
                    self._open(opened)
                    self._opened = opened.pop_all()
            except StartError as error:
                self._done.set()
                raise StartError(self._named(error.problems)) from error
            except BaseException:
                self._done.set()
                raise
            finally:
                self._busy = False
            log.info("started with the chain %s", self.config.backend_config.save_process)
            for warning in self._warnings:
                log.warning("%s", warning)
            if self._stop_wanted:
                self.shutdown()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the daemon has stopped; False when `timeout` seconds passed first."""
        return self._done.wait(timeout)

    def shutdown(self, timeout: float | None = None) -> bool:
        """Stops gracefully; a second call waits for the first. Nothing happens before start.

        It may be called by a signal handler. One that interrupts a start or stop of the same thread
        does not wait for it: the start will end with a stop, the stop goes on.

        Order: no new connections → sessions finish their transactions, which needs the workers →
        workers take what is queued and close their chains → the core ends → the last records →
        the pid file, the log.

        Args:
            timeout: seconds that transactions have; by default `shutdown_timeout`. Waiting for a
                start or stop of another thread is part of them, and endless by default.

        Returns:
            Whether it has stopped, and every session and every worker ended by itself.
        """
        begun = time.monotonic()
        if not self._lock.acquire(timeout=_lock_patience(timeout)):
            return False
        try:
            if self._busy:
                self._stop_wanted = True
                return False
            if self._started and not self._done.is_set():
                if timeout is None:
                    self._stop(self.config.shutdown_timeout)
                else:
                    self._stop(max(0.0, begun + timeout - time.monotonic()))
        finally:
            self._lock.release()
        return self._graceful

    def reopen_logs(self) -> None:
        """Opens log files anew, after they were moved away.

        Raises:
            OSError: one cannot be opened; the old one stays in use.
        """
        if self._logs is not None:
            self._logs.reopen()

    def reload_tls(self) -> list[str]:
        """Reads the files of TLS of every server again, as after a certificate was renewed.

        What loads is taken over for new handshakes; no connection is dropped. A server whose files
        do not load stays with what it has. Both are logged.

        Returns:
            A line for each problem, with the key and why; empty before start.
        """
        return [] if self._core is None else reload_tls(self.config, self._core)

    def stats(self) -> dict[str, int]:
        """All counters of the core, and of the workers; empty before start."""
        if self._core is None:
            return {}
        counters = self._core.stats()
        for pool in self._pools:
            name = pool.settings.name
            counters[f"{name}_workers"] = pool.size
            counters[f"{name}_workers_abandoned"] = pool.abandoned
            counters[f"{name}_workers_replaced"] = pool.replaced
        return counters

    def is_well(self, within: float) -> bool:
        """Whether its supervisor has looked after the workers in the last `within` seconds."""
        supervisor = self._supervisor
        return supervisor is not None and time.monotonic() - supervisor.looked_at <= within

    def __enter__(self) -> Self:
        """Starts."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops gracefully."""
        self.shutdown()

    def _open(self, opened: ExitStack) -> None:
        """Opens everything; `opened` undoes it, the last first."""
        servers = self._check()
        self._logs = open_log(self.config, opened)
        pid_file = take_pid_file(self.config, opened)
        watch = make_watch(self.config, self.reload_tls)
        core = make_core(
            self.config,
            servers,
            check_recipients="validate" in self._tasks,
            log_level=self._logs.level,
        )
        pump = LogPump(core, self._logs)
        # Registered in the order of start, so undone in that of a stop: see `shutdown`.
        opened.callback(pump.join)
        opened.callback(core.close)
        addresses = listen(self.config, core)
        if self._identity is not None:
            # Before any other thread, and anything of the chains: all that is the new user's.
            drop_privileges(self._identity, self._logs, pid_file, addresses)
        self._pools = make_pools(self.config, core, self._make_chain, self._tasks)
        supervisor = Supervisor(self._pools, core.set_intake)
        opened.callback(supervisor.stop)
        pump.start()
        open_pools(self._pools, opened)
        serve(core)
        self._addresses = addresses
        self._core = core
        supervisor.start()
        self._supervisor = supervisor
        for pool in self._pools:
            pool.begin()
        if watch is not None:
            opened.callback(watch.stop)
            watch.start()

    def _check(self) -> list[tuple[ServerConfig, str]]:
        """Everything that can be told without opening anything.

        Raises:
            StartError: all problems.
        """
        folder = self.config_file.parent if self.config_file is not None else None
        problems = config_problems(self.config, self._registry, folder, self._backend)
        servers, unresolved = resolve_servers(self.config)
        if unresolved:
            problems += [*unresolved, *unusable(self.config, servers)]
        problems += raise_file_limit(servers)
        try:
            self._identity = wanted_identity(self.config)
        except StartError as error:
            problems += error.problems
        if problems:
            raise StartError(problems)
        self._warnings = self.config.warnings() + root_warnings(self.config, servers)
        for task in self._tasks if self._backend is None else ():
            self._warnings += self._make_chain(task).warnings()
        return servers

    def _named(self, problems: Sequence[str]) -> Sequence[str]:
        """Problems with the file whose config could not start."""
        if self.config_file is None:
            return problems
        return [f"{self.config_file}: {problem}" for problem in problems]

    def _make_chain(self, task: TaskName) -> Chain[Any]:
        return make_chain(self.config, self._registry, task, self._backend)

    def _stop(self, timeout: float) -> None:
        """Whatever interrupts it, nothing stays open: not the pid file, not the log."""
        try:
            self._busy = True
            self._graceful = False  # Until the end says otherwise.
            self._graceful = self._wind_down(timeout)
        finally:
            try:
                self._opened.close()
            finally:
                self._done.set()
                self._busy = False

    def _wind_down(self, timeout: float) -> bool:
        """Ends sessions, then workers; whether all of them ended by themselves."""
        core = self._core
        if core is None:  # It never came so far.
            return True
        limit = time.monotonic() + timeout
        log.info("stopping")
        graceful = core.stop(timeout)
        if not graceful:
            log.warning("sessions were cut off after %.0f s", timeout)
        for pool in self._pools:
            if not pool.end(max(limit - time.monotonic(), min(timeout, GRACE))):
                graceful = False
                log.warning("%s workers did not end in time", pool.settings.name)
        log.info("stopped")
        return graceful


def _lock_patience(timeout: float | None) -> float:
    """Seconds as `Lock.acquire` takes them."""
    return -1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
