"""Logging: standard `logging` below the logger `guerrilla`, set up as the config says.

Nothing happens on import. A daemon makes one `LogOutput` when it starts and closes it when it ends;
an application that sets up `logging` itself says `log_file = "off"` and gets the records through
propagation.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from guerrilla.logformat import MAIL, make_formatter
from guerrilla.loghandlers import FileHandler, StreamHandler, identity, make_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla._core import LogBatch, LogRecord
    from guerrilla.config import AppConfig
    from guerrilla.logformat import LogFormat

ROOT: Final = "guerrilla"

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
"""Go-Guerrilla's names of levels."""

_PUMP_BATCH: Final = 2_000
_PUMP_WAIT: Final = 1.0
_PUMP_PAUSE: Final = 0.02
"""Seconds between two batches. To wake the pump costs the I/O thread a system call: so it is woken
fifty times a second at the most, and not for each message."""

log = logging.getLogger("guerrilla.logs")
_mail_log: Final = logging.getLogger("guerrilla.mail")


class RecordSource(Protocol):
    """What the pump needs of the core."""

    def receive_logs(
        self,
        max: int,  # noqa: A002 - its name there
        timeout: float,
        form: LogFormat | None = ...,
    ) -> Sequence[LogBatch] | None:
        """See `Core.receive_logs`."""

    def set_log_level(self, level: int) -> None:
        """See `Core.set_log_level`."""


@dataclass(frozen=True, slots=True)
class ServerLog:
    """The log of one server.

    Attributes:
        name: `ServerConfig.name`.
        file: as `LogOutput.log_file`; None for the main log.
        level: a name of `LEVELS`; None for the main level.
    """

    name: str
    file: str | None = None
    level: str | None = None


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What a config says of logs."""

    file: str = "stderr"
    level: str = "debug"
    format: LogFormat = "text"
    servers: tuple[ServerLog, ...] = ()

    @classmethod
    def of(cls, config: AppConfig) -> LogSettings:
        """Of the config's own keys and those of its enabled servers."""
        servers = tuple(
            ServerLog(server.name, server.log_file, server.log_level)
            for server in config.servers
            if server.is_enabled
        )
        return cls(config.log_file, config.log_level, config.log_format, servers)


@dataclass(frozen=True, slots=True)
class _Route:
    """Where the core's records of a server go. `handler` None: to the main log."""

    handler: logging.Handler | None
    level: int


class LogOutput:
    """Where the records of `guerrilla` go: to the main log, those of a server to its own if any.

    Args:
        log_file: a path, `stderr`, `stdout` or `off`.
        log_level: a name of `LEVELS`.
        log_format: `text` or `json`, of every log.
        servers: those that may have a file or a level of their own.

    Raises:
        OSError: a file cannot be opened for appending; `filename` is its path, as it was given.
    """

    def __init__(
        self,
        log_file: str,
        log_level: str,
        log_format: LogFormat = "text",
        servers: Sequence[ServerLog] = (),
    ) -> None:
        """Attaches to the logger `guerrilla`."""
        self._logger = logging.getLogger(ROOT)
        self._before = (self._logger.level, _mail_log.level)
        self._lock = threading.RLock()
        """Held while logs are written to by the pump, and while they are replaced."""
        self._handlers: dict[str, logging.Handler] = {}
        """Every open log by its `identity`."""
        self._routes: dict[str, _Route] = {}
        self._handler: logging.Handler = logging.NullHandler()
        self.on_level: Callable[[int], None] | None = None
        """Is told of `level` whenever that may have changed."""
        self.settings = LogSettings()
        self.change(LogSettings(log_file, log_level, log_format, tuple(servers)))

    @classmethod
    def from_settings(cls, settings: LogSettings) -> LogOutput:
        """As the class."""
        return cls(settings.file, settings.level, settings.format, settings.servers)

    def change(self, settings: LogSettings) -> None:
        """Does as the settings say from the next record on; a file that stays is not opened anew.

        Raises:
            OSError: a new file cannot be opened; nothing has changed then.
        """
        with self._lock:
            handlers = self._open(settings)
            for handler in handlers.values():
                if isinstance(handler, StreamHandler):
                    handler.setFormatter(make_formatter(settings.format))
            gone = [found for name, found in self._handlers.items() if name not in handlers]
            main = handlers[identity(settings.file)]
            # One assignment: no record finds both of them, nor neither.
            kept = [found for found in self._logger.handlers if found is not self._handler]
            self._logger.handlers = [*kept, main]
            self._handlers, self._handler, self.settings = handlers, main, settings
            self._apply_levels()
            for handler in gone:
                _close(handler)

    def set_level(self, log_level: str) -> None:
        """Takes effect with the next record, also for the core."""
        old = self.settings
        self.change(LogSettings(old.file, log_level, old.format, old.servers))

    @property
    def level(self) -> int:
        """Below it nothing is recorded by anyone: what the core need not make."""
        main = self._logger.level if _is_heard(self._logger) else logging.CRITICAL
        own = [self._level_of(route) for route in self._routes.values()]
        return min([main, *own])

    @property
    def files(self) -> list[tuple[int, str]]:
        """Descriptor and path of each log that is a file."""
        handlers = [found for found in self._handlers.values() if isinstance(found, FileHandler)]
        return [found.file for found in handlers if found.file is not None]

    def reopen(self) -> None:
        """Opens every file anew, after it was moved away; nothing else changes.

        Raises:
            OSError: one cannot be opened; the old one stays in use, and the others are opened.
        """
        failed: OSError | None = None
        for handler in self._handlers.values():
            if isinstance(handler, FileHandler):
                try:
                    handler.reopen()
                except OSError as error:
                    failed = failed or error
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Detaches and closes; the logger has the level it had before."""
        with self._lock:
            self._logger.removeHandler(self._handler)
            self._logger.setLevel(self._before[0])
            _mail_log.setLevel(self._before[1])
            self._routes = {}
            for handler in self._handlers.values():
                _close(handler)

    def write(self, batches: Sequence[LogBatch], form: LogFormat | None) -> None:
        """Logs records of the core, each in the log of its server.

        Args:
            batches: as `Core.receive_logs` gives them.
            form: the form of their lines, if they have any; those of another form are not used.
        """
        with self._lock:
            for batch in batches:
                try:
                    self._write(batch, form)
                except Exception:
                    log.exception("records of the core could not be logged")

    def _write(self, batch: LogBatch, form: LogFormat | None) -> None:
        target = self._target(batch)
        if isinstance(target, StreamHandler) and form == self.settings.format:
            target.write(batch.lines)
        elif target is not None and not isinstance(target, logging.NullHandler):
            for record in batch.records:
                target.handle(_made(batch, record))

    def _target(self, batch: LogBatch) -> logging.Handler | logging.Logger | None:
        """Who takes the records; a logger where others than we may hear them."""
        route = self._routes.get(batch.server or "")
        if route is not None and batch.level < route.level:
            return None
        if route is not None and route.handler is not None:
            return route.handler
        logger = logging.getLogger(_name(batch))
        if route is None and not logger.isEnabledFor(batch.level):
            return None
        return self._handler if self._is_alone(logger) else logger

    def _open(self, settings: LogSettings) -> dict[str, logging.Handler]:
        """The logs of the settings: those that are open already, and new ones."""
        wanted = [settings.file, *(s.file for s in settings.servers if s.file is not None)]
        handlers: dict[str, logging.Handler] = {}
        try:
            for log_file in wanted:
                name = identity(log_file)
                if name not in handlers:
                    handlers[name] = self._handlers.get(name) or _opened(log_file)
        except BaseException:
            for name, handler in handlers.items():
                if name not in self._handlers:
                    _close(handler)
            raise
        return handlers

    def _apply_levels(self) -> None:
        settings = self.settings
        main = LEVELS[settings.level.lower()]
        self._logger.setLevel(main)
        routes = {}
        for server in settings.servers:
            if server.file is not None or server.level is not None:
                handler = None if server.file is None else self._handlers[identity(server.file)]
                level = main if server.level is None else LEVELS[server.level.lower()]
                routes[server.name] = _Route(handler, level)
        self._routes = routes
        # The stages are timed where this logger hears of a message.
        most = min([main, *(route.level for route in routes.values())])
        _mail_log.setLevel(most if most < main else self._before[1])
        if self.on_level is not None:
            self.on_level(self.level)

    def _level_of(self, route: _Route) -> int:
        if route.handler is None:
            return route.level if _is_heard(self._logger) else logging.CRITICAL
        return logging.CRITICAL if isinstance(route.handler, logging.NullHandler) else route.level

    def _is_alone(self, logger: logging.Logger | None) -> bool:
        """Whether nobody but the main log hears what is logged there."""
        if logger is None or logger.filters or logger.disabled:
            return False
        while logger is not None:
            if any(_hears(found) and found is not self._handler for found in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return True


def log_problem(config: AppConfig, error: OSError) -> str:
    """What is wrong with a log that cannot be opened, by the key that asks for it.

    Args:
        config: what `LogSettings.of` was given.
        error: what `LogOutput` raised.
    """
    path, key = error.filename, "log_file"
    if path != config.log_file:
        files = [server.log_file if server.is_enabled else None for server in config.servers]
        key = f"servers[{files.index(path)}].log_file"
    return f"{key}: {path}: {error.strerror or error}"


class LogPump:
    """The thread that brings the core's records into the log, with the time they were made.

    Args:
        source: the core.
        output: the log; without one, whoever has set up `logging` gets them.
    """

    def __init__(self, source: RecordSource, output: LogOutput | None = None) -> None:
        """Starts nothing; from now on the core follows the levels of the log."""
        self._source = source
        self._output = output
        self._stopping = threading.Event()
        if output is not None:
            output.on_level = source.set_log_level
        self._thread = threading.Thread(target=self._run, name="guerrilla-logs", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Waits for the last record, after the core was closed; not for a thread never started."""
        if self._output is not None:
            self._output.on_level = None
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            form = None if self._output is None else self._output.settings.format
            batches = self._source.receive_logs(_PUMP_BATCH, _PUMP_WAIT, form)
            if batches is None:
                return
            try:
                self._write(batches, form)
            except Exception:
                log.exception("records of the core could not be logged")
            self._stopping.wait(_PUMP_PAUSE)

    def _write(self, batches: Sequence[LogBatch], form: LogFormat | None) -> None:
        if self._output is not None:
            self._output.write(batches, form)
            return
        for batch in batches:
            logger = logging.getLogger(_name(batch))
            if logger.isEnabledFor(batch.level):
                for record in batch.records:
                    logger.handle(_made(batch, record))


def _name(batch: LogBatch) -> str:
    return f"{ROOT}.{batch.logger}"


def _made(batch: LogBatch, record: LogRecord) -> logging.LogRecord:
    """A record of the core as one of `logging`."""
    logger = logging.getLogger(_name(batch))
    made = logger.makeRecord(logger.name, batch.level, "(core)", 0, record.message, (), None)
    made.created = record.created
    made.msecs = (record.created % 1) * 1000
    if record.members is not None:
        made.__dict__[MAIL] = json.loads(f"{{{record.members}}}")
    return made


def _opened(log_file: str) -> logging.Handler:
    try:
        return make_handler(log_file)
    except OSError as error:
        error.filename = log_file
        raise


def _close(handler: logging.Handler) -> None:
    # A full disk may refuse the rest even now; nobody is left to be told.
    with contextlib.suppress(OSError):
        handler.close()


def _hears(handler: logging.Handler) -> bool:
    return not isinstance(handler, logging.NullHandler)


def _is_heard(logger: logging.Logger | None) -> bool:
    """Whether any handler gets its records, its own or one of an application above it."""
    while logger is not None:
        if any(_hears(handler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False
