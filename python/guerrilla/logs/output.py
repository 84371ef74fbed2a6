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
from typing import TYPE_CHECKING, Final

from guerrilla.logs.form import MAIL, OUTPUT, make_formatter
from guerrilla.logs.handlers import FileHandler, StreamHandler, identity, make_handler, open_file
from guerrilla.logs.sharing import SHARED, OwnRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guerrilla._core import LogBatch, LogRecord
    from guerrilla.config import AppConfig
    from guerrilla.logs.form import LogFormat
    from guerrilla.logs.handlers import Opener

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

log = logging.getLogger("guerrilla.logs")


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
        process: the number of this one among several that share the logs; each line has it then.
        opener: opens files, also later.

    Raises:
        OSError: a file cannot be opened for appending; `filename` is its path, as it was given.
    """

    def __init__(
        self,
        log_file: str,
        log_level: str,
        log_format: LogFormat = "text",
        servers: Sequence[ServerLog] = (),
        process: int | None = None,
        *,
        opener: Opener = open_file,
    ) -> None:
        """Attaches to the logger `guerrilla`."""
        self.process = process
        self._opener = opener
        self._logger = logging.getLogger(ROOT)
        self._own = OwnRecords(self)
        self._lock = threading.RLock()
        """Held while logs are written to by the pump, and while they are replaced."""
        self._handlers: dict[str, logging.Handler] = {}
        """Every open log by its `identity`."""
        self._routes: dict[str, _Route] = {}
        self._lost_before = 0
        """Records that logs which are closed by now could not write."""
        self._handler: logging.Handler = logging.NullHandler()
        self.on_level: Callable[[int], None] | None = None
        """Is told of `level` whenever that may have changed."""
        self.settings = LogSettings()
        self.change(LogSettings(log_file, log_level, log_format, tuple(servers)))

    @classmethod
    def from_settings(
        cls, settings: LogSettings, process: int | None = None, opener: Opener = open_file
    ) -> LogOutput:
        """As the class."""
        where = (settings.file, settings.level, settings.format, settings.servers)
        return cls(*where, process, opener=opener)

    def change(self, settings: LogSettings) -> None:
        """Does as the settings say from the next record on; a file that stays is not opened anew.

        Raises:
            OSError: a new file cannot be opened; nothing has changed then.
        """
        with self._lock:
            handlers = self._open(settings)
            for handler in handlers.values():
                if isinstance(handler, StreamHandler):
                    handler.setFormatter(make_formatter(settings.format, self.process))
                    handler.is_shared = self.process is not None
            gone = [found for name, found in self._handlers.items() if name not in handlers]
            main = handlers[identity(settings.file)]
            main.addFilter(self._own)
            # One assignment: no record finds both of them, nor neither.
            kept = [found for found in self._logger.handlers if found is not self._handler]
            self._logger.handlers = [*kept, main]
            self._handlers, self._handler, self.settings = handlers, main, settings
            self._apply_levels()
            for handler in gone:
                self._lost_before += _lost(handler)
                _close(handler)

    def try_out(self, settings: LogSettings) -> None:
        """Opens what `change` would, and closes it again.

        Raises:
            OSError: as `change`.
        """
        with self._lock:
            for name, handler in self._open(settings).items():
                if name not in self._handlers:
                    _close(handler)

    def set_level(self, log_level: str) -> None:
        """Takes effect with the next record, also for the core."""
        old = self.settings
        self.change(LogSettings(old.file, log_level, old.format, old.servers))

    @property
    def level(self) -> int:
        """Below it nothing is recorded by anyone: what the core need not make."""
        main = self._own.level if _is_heard(self._logger) else logging.CRITICAL
        own = [self._level_of(route) for route in self._routes.values()]
        return min([main, *own])

    @property
    def lost(self) -> int:
        """Records that no file had room for, or whose reader was gone."""
        # Without the lock, which the pump holds as long as a file takes.
        return self._lost_before + sum(map(_lost, self._handlers.values()))

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
            SHARED.forget(self)
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
                target.handle(made(batch, record, self))

    def _target(self, batch: LogBatch) -> logging.Handler | logging.Logger | None:
        """Who takes the records; a logger where others than we may hear them."""
        route = self._routes.get(batch.server or "")
        if route is not None and batch.level < route.level:
            return None
        if route is not None and route.handler is not None:
            return route.handler
        logger = logging.getLogger(logger_name(batch))
        if route is None and not (
            batch.level >= self._own.level and logger.isEnabledFor(batch.level)
        ):
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
                    handlers[name] = self._handlers.get(name) or self._opened(log_file)
        except BaseException:
            for name, handler in handlers.items():
                if name not in self._handlers:
                    _close(handler)
            raise
        return handlers

    def _opened(self, log_file: str) -> logging.Handler:
        try:
            return make_handler(log_file, self._opener)
        except OSError as error:
            error.filename = log_file
            raise

    def _apply_levels(self) -> None:
        settings = self.settings
        main = LEVELS[settings.level.lower()]
        self._own.level = main
        routes = {}
        for server in settings.servers:
            if server.file is not None or server.level is not None:
                handler = None if server.file is None else self._handlers[identity(server.file)]
                level = main if server.level is None else LEVELS[server.level.lower()]
                routes[server.name] = _Route(handler, level)
        self._routes = routes
        # The stages are timed where this logger hears of a message.
        most = min([main, *(route.level for route in routes.values())])
        SHARED.want(self, main, most if most < main else None)
        if self.on_level is not None:
            self.on_level(self.level)

    def _level_of(self, route: _Route) -> int:
        if route.handler is None:
            return route.level if _is_heard(self._logger) else logging.CRITICAL
        return logging.CRITICAL if isinstance(route.handler, logging.NullHandler) else route.level

    def _is_alone(self, logger: logging.Logger | None) -> bool:
        """Whether nobody but the main log hears what is logged there, and other daemons' logs."""
        if logger is None or logger.filters or logger.disabled:
            return False
        while logger is not None:
            if any(
                _hears(found) and OwnRecords not in map(type, found.filters)
                for found in logger.handlers
            ):
                return False
            logger = logger.parent if logger.propagate else None
        return True


def log_problem(config: AppConfig, error: OSError) -> str:
    """What is wrong with a log that cannot be opened, by the key that asks for it.

    Args:
        config: what `LogSettings.of` was given.
        error: what `LogOutput` raised.
    """
    path, key = error.filename or config.log_file, "log_file"
    if identity(path) != identity(config.log_file):
        for index, server in enumerate(config.servers):
            if (
                server.is_enabled
                and server.log_file
                and identity(server.log_file) == identity(path)
            ):
                key = f"servers[{index}].log_file"
                break
    return f"{key}: {path}: {error.strerror or error}"


def logger_name(batch: LogBatch) -> str:
    """The logger of records of the core."""
    return f"{ROOT}.{batch.logger}"


def made(batch: LogBatch, record: LogRecord, owner: object = None) -> logging.LogRecord:
    """A record of the core as one of `logging`; `owner` is the log that it is for."""
    logger = logging.getLogger(logger_name(batch))
    found = logger.makeRecord(logger.name, batch.level, "(core)", 0, record.message, (), None)
    found.created = record.created
    found.msecs = (record.created % 1) * 1000
    if owner is not None:
        found.__dict__[OUTPUT] = owner
    if record.members is not None:
        found.__dict__[MAIL] = json.loads(f"{{{record.members}}}")
    return found


def _close(handler: logging.Handler) -> None:
    # A full disk may refuse the rest even now; nobody is left to be told.
    with contextlib.suppress(OSError):
        handler.close()


def _lost(handler: logging.Handler) -> int:
    return handler.lost if isinstance(handler, StreamHandler) else 0


def _hears(handler: logging.Handler) -> bool:
    return not isinstance(handler, logging.NullHandler)


def _is_heard(logger: logging.Logger | None) -> bool:
    """Whether any handler gets its records, its own or one of an application above it."""
    while logger is not None:
        if any(_hears(handler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False
