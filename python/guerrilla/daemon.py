"""The daemon: a core, its workers and its log, started and stopped in order."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from guerrilla import config as _config
from guerrilla.config import AppConfig
from guerrilla.config.diff import reopened
from guerrilla.control.server import move_control, open_control
from guerrilla.control.spool import SpoolDesk
from guerrilla.engine.backend import backend_name
from guerrilla.engine.registry import DECORATED, Registry
from guerrilla.errors import ConfigError, StartError
from guerrilla.events import EventBus
from guerrilla.processes.estate import Estate, not_within_a_program, settle, take_over
from guerrilla.processes.place import ALONE
from guerrilla.running.configwatch import ConfigWatch
from guerrilla.running.parts import Plan, open_parts, wind_down
from guerrilla.running.reloading import Reload, read_again
from guerrilla.running.spooling import away_warnings, waiting_warnings
from guerrilla.running.startup import named
from guerrilla.running.status import counters, status
from guerrilla.running.tlswatch import reload_tls
from guerrilla.stream import AsyncDaemon, stop_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from os import PathLike
    from types import TracebackType

    from guerrilla._core import Spool
    from guerrilla.control.server import Control
    from guerrilla.engine.backend import BackendFactory
    from guerrilla.engine.base import Processor
    from guerrilla.events import Event
    from guerrilla.processes.place import Place
    from guerrilla.running.parts import HeldPid, Parts
    from guerrilla.running.reloading import ReloadReport

log = logging.getLogger("guerrilla.daemon")


class Daemon(AsyncDaemon):
    """An SMTP receiver: what `guerrillad serve` runs, for use within a program.

    A context manager, also an `async` one: it starts, and stops gracefully at the end. It installs
    no signal handlers. Methods may be called from any thread. A daemon that has stopped can be
    started again, with the config of now; but as the user it has become.

    Args:
        config: what to run; Go-Guerrilla's defaults without it.
        config_file: where the config came from: errors name it, and modules of `import` may lie
            beside it.
        backend: makes what stands in place of the chains of `backend_config`, once for each worker.
        overrides: fields of `AppConfig` that go before those of the file, at each reload too.
        place: what it is given rather than opens itself, as by the process before it; by default
            nothing.
    """

    def __init__(
        self,
        config: AppConfig | None = None,
        config_file: str | PathLike[str] | None = None,
        *,
        backend: BackendFactory | None = None,
        overrides: Mapping[str, Any] | None = None,
        place: Place = ALONE,
    ) -> None:
        """Opens nothing."""
        self._place = place
        self._overrides = dict(overrides or {})
        self.config = self._overridden(config if config is not None else AppConfig.default())
        self.config_file = Path(config_file) if config_file is not None else None
        self._backend = backend
        self.events = EventBus()
        self.around_reload: Callable[[], AbstractContextManager[object]] = nullcontext
        """What a reload happens within, whoever asks for it: to tell a service manager, say."""
        self.on_stop: Callable[[], object] = lambda: None
        """Called when a stop begins."""
        self.upgrader: Callable[[], dict[str, Any]] = not_within_a_program
        """Has another program take over, as `Upgrade.run`."""
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
        self._warnings: list[str] = []
        self._control: Control | None = None
        self._parts: Parts | None = None
        """What it has open; None before it has started."""

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
        return [] if self._parts is None else self._parts.addresses()

    @property
    def logger(self) -> logging.Logger:
        """Where all of its records go; those of a program may go there too."""
        return logging.getLogger("guerrilla")

    def warnings(self) -> list[str]:
        """What works and is hardly meant, as a chain that stores nothing; complete after start.

        So is what the chains right of `250` need and is away now.
        """
        away = away_warnings(self._parts.pools) if self._parts is not None and self._runs else []
        return [*self._warnings, *away]

    def add_processor(self, name: str, processor: type[Processor]) -> None:
        """Makes a processor known to this daemon alone.

        Raises:
            RuntimeError: after start.
            ValueError: the name is taken, or cannot stand in a chain.
            TypeError: not a class.
        """
        if self._runs:
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
            if self._runs:
                message = "it runs already"
                raise RuntimeError(message)
            self._started = self._busy = self._graceful = True
            self._stop_wanted = False
            self._parts = None
            self._done.clear()
            try:
                with ExitStack() as opened:
                    plan = self._plan(self.config, is_alone=not self._place.is_child)
                    checked = plan.check(self._place)
                    self._warnings = checked.warnings
                    parts = open_parts(
                        *(plan, checked, opened, self.events, self.reload_tls),
                        lock=self._lock,
                        place=self._place,
                        before_serving=partial(self._take_over, opened),
                    )
                    self._warnings += waiting_warnings(self.config, parts.core)
                    if not self._place.is_child and self._place.before is None:
                        self._control = open_control(self, self.config_file, opened)
                    opened.callback(parts.stop_config_watch)
                    self._watch_config(parts)
                    self._parts, self._opened = parts, opened.pop_all()
                    if self._place.before is not None:
                        settle(self._place.before, parts.core)
            except StartError as error:
                self._done.set()
                raise StartError(named(self.config_file, error.problems)) from error
            except BaseException:
                self._done.set()
                raise
            finally:
                self._busy = False
            log.info("started with the %s %s", *self._saves())
            for name, backend in self.config.backends.items():
                log.info("backend %s: the chain %s", name, backend.save_process)
            for warning in self._warnings if self._place.number == 0 else ():
                log.warning("%s", warning)  # Once, where several have the same config.
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
            if self._runs:
                if timeout is None:
                    self._stop(self.config.shutdown_timeout)
                else:
                    self._stop(max(0.0, begun + timeout - time.monotonic()))
        finally:
            self._lock.release()
        return self._graceful

    def reopen_logs(self) -> None:
        """Opens log files anew, after they were moved away; then publishes that.

        Raises:
            OSError: one cannot be opened; the old one stays in use.
        """
        if self._parts is not None:
            self._parts.logs.reopen()
            for change in reopened(self._parts.config):
                self.events.publish(change.event, change.payload)

    def reload_tls(self) -> list[str]:
        """Reads the files of TLS of every server again, as after a certificate was renewed.

        What loads is taken over for new handshakes; no connection is dropped. A server whose files
        do not load stays with what it has. Both are logged.

        Returns:
            A line for each problem, with the key and why; empty before start.
        """
        return [] if self._parts is None else reload_tls(self.config, self._parts.core)

    def reload_config(self, config: AppConfig) -> ReloadReport:
        """Obeys another config, without a client that hears of it.

        It is validated whole; then each part is replaced by itself, and where the new one cannot
        start the old one goes on. `docs/reload.md` says when each key takes effect.

        Raises:
            ConfigError: something in it is wrong; nothing was changed.
            RuntimeError: it does not run.
        """
        return self._reload(lambda: config, self.config_file)

    def _reload(self, read: Callable[[], AppConfig], file: Path | None) -> ReloadReport:
        """Reads under the lock: of two reloads the later one has what is there later."""
        with self.around_reload():
            with self._lock:
                parts = self._parts
                if parts is None or not self._runs or self._busy:
                    message = "reload_config needs a daemon that runs"
                    raise RuntimeError(message)
                before, self.config_file = self.config_file, file
                try:
                    report = self._obey(parts, read())
                except BaseException:
                    self.config_file = before
                    raise
            for change in report.changes:
                self.events.publish(change.event, change.payload)
            return report

    def _obey(self, parts: Parts, config: AppConfig) -> ReloadReport:
        plan = self._plan(config)
        problems = plan.problems()
        if problems:
            raise ConfigError(named(self.config_file, problems))
        return self._obeyed(parts, Reload(parts, plan).run())

    def _obeyed(self, parts: Parts, report: ReloadReport) -> ReloadReport:
        self.config = parts.config
        self._warnings = list(report.warnings)
        self._watch_config(parts)
        move_control(self._control, self.config, self.config_file)
        log.info("reloaded: %d changes, %d failures", len(report.changes), len(report.failures))
        return report

    def reload_config_file(self, path: str | PathLike[str] | None = None) -> ReloadReport:
        """Reads a file and obeys it, as `reload_config`; by default the one it was started with.

        Raises:
            ConfigError: it cannot be read, or something in it is wrong; nothing was changed.
            RuntimeError: it does not run, or there is no file.
        """
        path = path if path is not None else self.config_file
        if path is None:
            message = "reload_config_file needs a path: the daemon was started without a file"
            raise RuntimeError(message)
        return self._reload(lambda: self._overridden(_config.load(path)), Path(path))

    def load_config(self, path: str | PathLike[str]) -> None:
        """Reads a config file, before start.

        Raises:
            ConfigError: it cannot be read, or something in it is wrong.
            RuntimeError: after start.
        """
        self.set_config(self._overridden(_config.load(path)))
        self.config_file = Path(path)

    def set_config(self, config: AppConfig) -> None:
        """What to run, before start.

        Raises:
            RuntimeError: after start.
        """
        if self._runs:
            message = "set_config comes before start; reload_config is for a daemon that runs"
            raise RuntimeError(message)
        self.config = config

    def subscribe(self, event: Event | str, handler: Callable[[Any], object]) -> None:
        """Calls `handler` with what is published, before start or after."""
        self.events.subscribe(event, handler)

    def unsubscribe(self, event: Event | str, handler: Callable[[Any], object]) -> None:
        """Calls it no more."""
        self.events.unsubscribe(event, handler)

    def publish(self, event: Event | str, payload: Any = None) -> None:
        """Calls all who have subscribed to the event, which may be one of your own."""
        self.events.publish(event, payload)

    def stats(self) -> dict[str, Any]:
        """All counters of the core, of the workers and, as `stages`, of each stage of the chains.

        Values of JSON: integers, but `stages`, which `docs/control.md` describes. Empty before
        start.
        """
        if self._parts is None:
            return {}
        return counters(self._parts)

    def status(self) -> dict[str, Any]:
        """What it is and does now, in values of JSON; `stats` has more figures."""
        found = status(self._parts, self.config, self.warnings(), self._backend)
        return found | dict([self._saves()])

    def spool(self) -> Spool | None:
        """Its spool, as `guerrillad spool` has it; None where there is none, and before start."""
        return None if self._parts is None else self._parts.core.spool()

    def spool_desk(self) -> SpoolDesk:
        """For the control socket: who answers a client what it asks of the spool."""
        return SpoolDesk(self.spool)

    def is_well(self, within: float) -> bool:
        """Whether its supervisor has looked after the workers in the last `within` seconds."""
        parts = self._parts
        return parts is not None and time.monotonic() - parts.supervisor.looked_at <= within

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

    def hand_over(self) -> Estate:
        """What a program that takes its place goes on with.

        Raises:
            RuntimeError: it does not run.
        """
        parts = self._parts
        if parts is None or not self._runs:
            message = "it does not run"
            raise RuntimeError(message)
        sockets, passed = parts.core.sockets(), self._place.passed
        return Estate(sockets, parts.core, parts.pid, self._control, passed)

    def _take_over(self, opened: ExitStack, addresses: Sequence[str], pid: HeldPid) -> None:
        """Waits until the process before this one lets it begin, where there is one."""
        before = self._place.before
        if before is not None:
            control = open_control(self, self.config_file, opened, before.offer.control)
            self._control = control
            take_over(before, addresses, pid, control)

    def _watch_config(self, parts: Parts) -> None:
        """Begins or ends to look at the config file, as `watch_config` says."""
        # Of several processes the parent looks at it: all of them obey another config, or none.
        watches = self.config.watch_config and not self._place.is_child
        wanted = self.config_file if watches else None
        if parts.watched_config == wanted:
            return
        parts.stop_config_watch()
        parts.watched_config = wanted
        if wanted is not None:
            read = partial(read_again, self, "watch_config")
            # What a reload has just read is in force; behind an upgrade it may not be.
            known = self._parts is not None or self._place.before is None
            parts.config_watch = ConfigWatch(wanted, read, known=known)
            parts.config_watch.start()

    @property
    def _runs(self) -> bool:
        """It was started, and has not stopped."""
        return self._started and not self._done.is_set()

    def _saves(self) -> tuple[str, str]:
        """What mails go to: its kind, and its name."""
        if self._backend is not None:
            return "backend", backend_name(self._backend)
        return "chain", self.config.backend_config.save_process

    def _overridden(self, config: AppConfig) -> AppConfig:
        return config.model_copy(update=self._overrides) if self._overrides else config

    def _plan(self, config: AppConfig, *, is_alone: bool = False) -> Plan:
        folder = self.config_file.parent if self.config_file is not None else None
        resolved = self._place.resolved
        return Plan(config, self._registry, folder, self._backend, resolved, is_alone=is_alone)

    def _stop(self, timeout: float) -> None:
        """Whatever interrupts it, nothing stays open: not the pid file, not the log."""
        try:
            self._busy = True
            self.on_stop()
            self._graceful = False  # Until the end says otherwise.
            stop_stream(self._backend)
            self._graceful = self._parts is None or wind_down(self._parts, timeout)
        finally:
            try:
                self._opened.close()
            finally:
                self._done.set()
                self._busy = False


def _lock_patience(timeout: float | None) -> float:
    """Seconds as `Lock.acquire` takes them."""
    return -1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
