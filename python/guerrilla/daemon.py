"""The daemon: a core, its workers and its log, started and stopped in order."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from guerrilla import config as _config
from guerrilla._core import Core
from guerrilla.config import AppConfig
from guerrilla.errors import ConfigError, StartError
from guerrilla.logs import LogOutput, LogPump
from guerrilla.pidfile import PidFile
from guerrilla.registry import DECORATED, Registry
from guerrilla.startup import (
    config_problems,
    core_settings,
    make_chain,
    raise_file_limit,
    resolve_servers,
    tasks,
)
from guerrilla.worker import PoolSettings, Supervisor, WorkerPool

if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType

    from guerrilla._core import Check, Envelope
    from guerrilla.backend import BackendFactory
    from guerrilla.base import Processor, TaskName
    from guerrilla.chain import Chain
    from guerrilla.config import ServerConfig

log = logging.getLogger("guerrilla.daemon")

_GRACE = 2.0
"""Seconds that idle workers have to close their chains when the time of a stop is used up."""


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
        self._lock = threading.Lock()
        """Held while it starts and while it stops: one waits for the other."""
        self._started = False
        self._graceful = True
        self._done = threading.Event()
        self._opened = ExitStack()
        self._addresses: list[str] = []
        self._warnings: list[str] = []
        self._core: Core | None = None
        self._logs: LogOutput | None = None
        self._pools: list[WorkerPool[Any]] = []

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

        Order: what the config asks for → log → pid file → chains of all workers → sockets. Whatever
        fails undoes what came before.

        Raises:
            StartError: everything that could not start, one line each.
            RuntimeError: started before.
        """
        with self._lock:
            if self._started:
                message = "a daemon is started once"
                raise RuntimeError(message)
            self._started = True
            try:
                with ExitStack() as opened:
                    self._open(opened)
                    self._opened = opened.pop_all()
            except BaseException:
                self._done.set()
                raise
        log.info("started with the chain %s", self.config.backend_config.save_process)
        for warning in self._warnings:
            log.warning("%s", warning)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the daemon has stopped; False when `timeout` seconds passed first."""
        return self._done.wait(timeout)

    def shutdown(self, timeout: float | None = None) -> bool:
        """Stops gracefully; a second call waits for the first. Nothing happens before start.

        Order: no new connections → sessions finish their transactions, which needs the workers →
        workers take what is queued and close their chains → the core ends → the last records →
        the pid file, the log.

        Args:
            timeout: seconds that transactions have; by default `shutdown_timeout`.

        Returns:
            Whether every session and every worker ended by itself.
        """
        with self._lock:
            if self._started and not self._done.is_set():
                try:
                    self._stop(self.config.shutdown_timeout if timeout is None else timeout)
                finally:
                    self._done.set()
        return self._graceful

    def reopen_logs(self) -> None:
        """Opens log files anew, after they were moved away.

        Raises:
            OSError: one cannot be opened; the old one stays in use.
        """
        if self._logs is not None:
            self._logs.reopen()

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
        self._logs = self._open_log(opened)
        self._take_pid_file(opened)
        try:
            core = Core(
                core_settings(
                    self.config,
                    servers,
                    check_recipients="validate" in self._tasks,
                    log_level=self._logs.level,
                )
            )
        except ValueError as error:
            raise StartError(self._named([str(error)])) from error
        pump = LogPump(core)
        # Registered in the order of start, so undone in that of a stop: see `shutdown`.
        opened.callback(pump.join)
        opened.callback(core.close)
        self._pools = self._make_pools(core)
        supervisor = Supervisor(self._pools, core.set_intake)
        opened.callback(supervisor.stop)
        pump.start()
        self._open_pools(opened)
        try:
            self._addresses = core.start()
        except OSError as error:
            raise StartError(str(error).splitlines()) from error
        self._core = core
        supervisor.start()
        for pool in self._pools:
            pool.begin()

    def _check(self) -> list[tuple[ServerConfig, str]]:
        """Everything that can be told without opening anything.

        Raises:
            StartError: all problems.
        """
        folder = self.config_file.parent if self.config_file is not None else None
        problems = self._named(config_problems(self.config, self._registry, folder, self._backend))
        servers, unresolved = resolve_servers(self.config)
        problems += self._named(unresolved)
        problems += self._named(raise_file_limit(servers))
        if problems:
            raise StartError(problems)
        self._warnings = self.config.warnings()
        for task in self._tasks if self._backend is None else ():
            self._warnings += self._make_chain(task).warnings()
        return servers

    def _named(self, problems: list[str]) -> list[str]:
        """Problems of the config, with its file."""
        if self.config_file is None:
            return problems
        return [f"{self.config_file}: {problem}" for problem in problems]

    def _open_log(self, opened: ExitStack) -> LogOutput:
        try:
            logs = LogOutput(self.config.log_file, self.config.log_level)
        except OSError as error:
            message = f"log_file: {self.config.log_file}: {error.strerror or error}"
            raise StartError(message) from error
        opened.callback(logs.close)
        return logs

    def _take_pid_file(self, opened: ExitStack) -> None:
        if not self.config.pid_file:
            return
        try:
            held = PidFile(self.config.pid_file)
        except FileExistsError as error:
            message = f"pid_file: {error}"
            raise StartError(message) from error
        except OSError as error:
            message = f"pid_file: {self.config.pid_file}: {error.strerror or error}"
            raise StartError(message) from error
        opened.callback(held.remove)

    def _make_chain(self, task: TaskName) -> Chain[Any]:
        return make_chain(self.config, self._registry, task, self._backend)

    def _make_pools(self, core: Core) -> list[WorkerPool[Any]]:
        backend = self.config.backend_config
        saving: WorkerPool[Envelope] = WorkerPool(
            PoolSettings(
                "save",
                backend.save_workers_size,
                backend.save_batch_size,
                hang_after=2 * backend.gw_save_timeout,
            ),
            partial(self._make_chain, "save"),
            core.receive,
        )
        if "validate" not in self._tasks:
            return [saving]
        checking: WorkerPool[Check] = WorkerPool(
            PoolSettings(
                "validate",
                backend.validate_workers_size,
                backend.save_batch_size,
                hang_after=2 * backend.gw_val_rcpt_timeout,
            ),
            partial(self._make_chain, "validate"),
            core.receive_checks,
        )
        return [saving, checking]

    def _open_pools(self, opened: ExitStack) -> None:
        """Opens the chains of all workers.

        Raises:
            StartError: what failed, in either pool.
        """
        problems: list[str] = []
        for pool in self._pools:
            try:
                pool.open()
            except (ConfigError, StartError) as error:
                problems += [line for line in error.problems if line not in problems]
            else:
                opened.callback(_end_if_open, pool)
        if problems:
            raise StartError(problems)

    def _stop(self, timeout: float) -> None:
        core = self._core
        if core is None:  # It never came so far.
            return
        limit = time.monotonic() + timeout
        log.info("stopping")
        self._graceful = core.stop(timeout)
        if not self._graceful:
            log.warning("sessions were cut off after %.0f s", timeout)
        for pool in self._pools:
            if not pool.end(max(limit - time.monotonic(), min(timeout, _GRACE))):
                self._graceful = False
                log.warning("%s workers did not end in time", pool.settings.name)
        log.info("stopped")
        self._opened.close()


def _end_if_open(pool: WorkerPool[Any]) -> None:
    """For a start that failed; a stop has ended the pools before."""
    if not pool.ending.is_set():
        pool.end(_GRACE)
