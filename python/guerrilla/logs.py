"""Logging: standard `logging` below the logger `guerrilla`, set up as the config says.

Nothing happens on import. A daemon makes one `LogOutput` when it starts and closes it when it ends;
an application that sets up `logging` itself says `log_file = "off"` and gets the records through
propagation.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from guerrilla._core import LogRecord

    class RecordSource(Protocol):
        """What the pump needs of the core."""

        def receive_logs(self, max: int, timeout: float) -> list[LogRecord] | None:  # noqa: A002
            """See `Core.receive_logs`."""


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

_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))} | {
    0x09: "\\t",
    0x0A: "\\n",
    0x0D: "\\r",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}

_PUMP_BATCH: Final = 512
_PUMP_WAIT: Final = 1.0

log = logging.getLogger("guerrilla.logs")


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO guerrilla.smtp message`, one line a record, times UTC.

    Control characters in a message are escaped, so that no sender can forge a line; a traceback
    follows on lines that begin with `  | `, which no record does.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Formats one record."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        message = record.getMessage().translate(_CONTROLS)
        lines = [
            f"{stamp}.{int(record.msecs):03d}Z {record.levelname} {record.name} {message}",
        ]
        if record.exc_info:
            lines += _block(self.formatException(record.exc_info))
        if record.stack_info:
            lines += _block(record.stack_info)
        return "\n".join(lines)


class LogOutput:
    """Where the records of `guerrilla` go.

    Args:
        log_file: a path, `stderr`, `stdout` or `off`.
        log_level: a name of `LEVELS`.

    Raises:
        OSError: the file cannot be opened for appending.
    """

    def __init__(self, log_file: str, log_level: str) -> None:
        """Attaches to the logger `guerrilla`."""
        self._logger = logging.getLogger(ROOT)
        self._before = self._logger.level
        self._handler = _handler(log_file)
        self._handler.setFormatter(LineFormatter())
        self._logger.addHandler(self._handler)
        self.set_level(log_level)

    def set_level(self, log_level: str) -> None:
        """Takes effect with the next record."""
        self._logger.setLevel(LEVELS[log_level.lower()])

    @property
    def level(self) -> int:
        """Below it nothing is recorded by anyone: what the core need not make."""
        return self._logger.level if _is_heard(self._logger) else logging.CRITICAL

    @property
    def file(self) -> tuple[int, str] | None:
        """Descriptor and path of the log file; None where the log is no file."""
        handler = self._handler
        if not isinstance(handler, _File) or handler.stream is None:
            return None
        return handler.stream.fileno(), handler.baseFilename

    def reopen(self) -> None:
        """Opens the file anew, after it was moved away; nothing else changes.

        Raises:
            OSError: it cannot be opened; the old one stays in use.
        """
        if isinstance(self._handler, _File):
            self._handler.reopen()

    def redirect(self, log_file: str) -> None:
        """Goes on in another file.

        Raises:
            OSError: it cannot be opened; the old one stays in use.
        """
        handler = _handler(log_file)
        handler.setFormatter(self._handler.formatter)
        before, self._handler = self._handler, handler
        self._logger.addHandler(handler)
        self._logger.removeHandler(before)
        with contextlib.suppress(OSError):
            before.close()

    def close(self) -> None:
        """Detaches and closes; the logger has the level it had before."""
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._before)
        # A full disk may refuse the rest even now; nobody is left to be told.
        with contextlib.suppress(OSError):
            self._handler.close()


class LogPump:
    """The thread that brings the core's records into `logging`, with the time they were made."""

    def __init__(self, source: RecordSource) -> None:
        """`source` is the core."""
        self._source = source
        self._thread = threading.Thread(target=self._run, name="guerrilla-logs", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Waits for the last record, after the core was closed; not for a thread never started."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            records = self._source.receive_logs(_PUMP_BATCH, _PUMP_WAIT)
            if records is None:
                return
            try:
                _emit(records)
            except Exception:
                log.exception("a record of the core could not be logged")


def _emit(records: Sequence[LogRecord]) -> None:
    for record in records:
        logger = logging.getLogger(f"{ROOT}.{record.logger}" if record.logger else ROOT)
        if not logger.isEnabledFor(record.level):
            continue
        made = logger.makeRecord(logger.name, record.level, "(core)", 0, record.message, (), None)
        made.created = record.created
        made.msecs = (record.created % 1) * 1000
        logger.handle(made)


def _block(text: str) -> list[str]:
    return [f"  | {line.translate(_CONTROLS)}" for line in text.split("\n")]


def _is_heard(logger: logging.Logger | None) -> bool:
    """Whether any handler gets its records, its own or one of an application above it."""
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _handler(log_file: str) -> logging.Handler:
    match log_file.lower():
        case "off":
            return logging.NullHandler()
        case "stderr" | "":
            return _Stream(sys.stderr)
        case "stdout":
            return _Stream(sys.stdout)
        case _:
            return _File(log_file)


class _Stream(logging.StreamHandler[TextIO]):
    """A stream; one that cannot be written to is told of once, until a record goes through."""

    _failed = False
    _told = False

    def emit(self, record: logging.LogRecord) -> None:
        self._failed = False
        super().emit(record)
        self._told = self._failed

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name there
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)  # a fault of whoever logs: told with its place
            return
        self._failed = True
        if not self._told and sys.stderr is not None:
            # A line for each record would fill what may be the last place left.
            name = getattr(self, "baseFilename", None) or getattr(self.stream, "name", "")
            text = f"guerrilla: log_file: {name}: {error.strerror or error}: records are lost\n"
            with contextlib.suppress(OSError):
                sys.stderr.write(text)
                sys.stderr.flush()


class _File(_Stream, logging.FileHandler):
    """A file that can be opened anew while it is written to."""

    def __init__(self, path: str) -> None:
        logging.FileHandler.__init__(self, path, encoding="utf-8", errors="backslashreplace")

    def reopen(self) -> None:
        fresh = self._open()
        self.acquire()
        try:
            # Not by `setStream`: it flushes the old one first, and stays with it when that fails.
            old, self.stream = self.stream, fresh
        finally:
            self.release()
        with contextlib.suppress(OSError):
            if old is not None:
                old.close()
