"""Handlers of `logging` for a daemon: they write batches, and files that can be moved away."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import stat
import sys
from io import StringIO, TextIOWrapper
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Opener = Callable[[str, int], int]
    """Opens a file for appending, by its path and the flags of `os.open`: its descriptor."""

_FILE_MODE: Final = 0o640
"""Of a log that is made, less what the umask takes: not everybody is to read who writes to whom."""


def open_file(path: str, flags: int) -> int:
    """Opens a log, or makes it; the mode of one that is there stays. It waits for no reader.

    Raises:
        OSError: it cannot be, or is a pipe that nobody reads: to open that would wait for ever.
    """
    try:
        fd = os.open(path, flags | os.O_NONBLOCK, _FILE_MODE)
    except OSError as error:
        if error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode):
            what = "is a pipe that nobody reads: start its reader first"
            raise OSError(errno.ENXIO, what, path) from None
        raise
    os.set_blocking(fd, True)
    return fd


def make_handler(log_file: str, opener: Opener = open_file) -> logging.Handler:
    """For a path, `stderr`, `stdout` or `off`; `opener` opens the path.

    Raises:
        OSError: the file cannot be opened for appending; `filename` is the path.
    """
    match log_file.lower():
        case "off":
            return logging.NullHandler()
        case "stderr" | "":
            return StreamHandler(sys.stderr)
        case "stdout":
            return StreamHandler(sys.stdout)
        case _:
            return FileHandler(log_file, opener)


def identity(log_file: str) -> str:
    """Equal for what is the same log, so that nothing is opened twice."""
    name = log_file.lower() or "stderr"
    return name if name in ("off", "stderr", "stdout") else os.path.abspath(log_file)


class StreamHandler(logging.StreamHandler[TextIO]):
    """A stream; one that cannot be written to is told of once, until a record goes through."""

    lost = 0
    """Records that could not be written: at most so many, as part of them may have gone through."""
    is_shared = False
    """Other processes write to it as well."""
    _failed = False
    _told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        self._failed = False
        super().emit(record)
        self._told = self._failed

    def write(self, lines: str) -> None:
        """Writes many at once: whole lines, in the form of this log."""
        self.acquire()
        try:
            self._failed = False
            # Gone when the process ends, and then nobody is left to be told.
            if self.stream is not None:
                for part in self._at_once(lines):
                    self.stream.write(part)
                    self.flush()
        except Exception:  # noqa: BLE001 - as `emit` does
            self.lost += lines.count("\n") - 1  # and one that is counted there
            self.handleError(logging.makeLogRecord({"msg": "records of the core"}))
        finally:
            self._told = self._failed
            self.release()

    def _at_once(self, lines: str) -> Iterable[str]:
        """Whole lines that a pipe takes together, where others write to it too (pipe(7))."""
        return whole_lines(lines, select.PIPE_BUF) if self.is_shared else (lines,)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name there
        """Tells of a disk that is full; the record is lost, and counted."""
        self.lost += 1
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


class FileHandler(StreamHandler, logging.FileHandler):
    """A file that can be opened anew while it is written to."""

    def __init__(self, path: str, opener: Opener = open_file) -> None:
        """Opens it for appending."""
        self._opener = opener
        logging.FileHandler.__init__(self, path, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding=self.encoding,
            errors=self.errors,
            opener=self._opener,
        )

    def _at_once(self, lines: str) -> Iterable[str]:
        """All: what is appended to a file is written together, however much it is."""
        return (lines,)

    def reopen(self) -> None:
        """Opens it anew, after it was moved away.

        Raises:
            OSError: it cannot be opened; the old one stays in use.
        """
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


def whole_lines(lines: str, most: int) -> Iterator[str]:
    """Cuts a text behind line ends, into parts of at most so many octets where lines allow it."""
    part: list[str] = []
    size = 0
    for line in StringIO(lines, newline="\n"):
        octets = len(line.encode("utf-8", "backslashreplace"))
        if part and size + octets > most:
            yield "".join(part)
            part, size = [], 0
        part.append(line)
        size += octets
    if part:
        yield "".join(part)
