"""The forms of a log: a line of text or a JSON object for each record.

Both give a record of the core without a `logging.LogRecord` too, which costs several times as much
as the record itself: see `of_core`.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, ClassVar, Final, Literal, Protocol

LogFormat = Literal["text", "json"]

MAIL: Final = "mail"
"""The attribute of a `LogRecord` that has the fields of a message, as a dict."""

_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))} | {
    0x09: "\\t",
    0x0A: "\\n",
    0x0D: "\\r",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
_STANDARD: Final = frozenset(
    (*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", MAIL)
)
"""Attributes of every `LogRecord`; what else one has came by `extra`."""


class CoreRecord(Protocol):
    """What is asked of a record of the core; see `_core.LogRecord`."""

    @property
    def level(self) -> int:
        """A number of `logging`."""

    @property
    def logger(self) -> str:
        """The logger's name below `guerrilla`."""

    @property
    def server(self) -> str | None:
        """The `listen_interface` of the server that it belongs to."""

    @property
    def message(self) -> str:
        """The text."""

    @property
    def members(self) -> str | None:
        """Members of a JSON object that say the same, for the line of a message."""

    @property
    def created(self) -> float:
        """When it was made, in seconds since 1970."""


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO guerrilla.smtp message`, one line a record, times UTC.

    Control characters in a message are escaped, so that no sender can forge a line; a traceback
    follows on lines that begin with `  | `, which no record does.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Formats one record."""
        message = record.getMessage().translate(_CONTROLS)
        lines = [f"{_stamp(record.created)} {record.levelname} {record.name} {message}"]
        if record.exc_info:
            lines += _block(self.formatException(record.exc_info))
        if record.stack_info:
            lines += _block(record.stack_info)
        return "\n".join(lines)

    def of_core(self, record: CoreRecord, name: str) -> str:
        """The same of a record of the core, with its line end; `name` is its logger's."""
        message = record.message
        if not message.isprintable():
            message = message.translate(_CONTROLS)
        level = logging.getLevelName(record.level)
        return f"{_stamp(record.created)} {level} {name} {message}\n"


class JSONFormatter(logging.Formatter):
    """A JSON object a line, in ASCII.

    Members: `time` as in `LineFormatter`, `level`, `logger`, `message`; what came by `extra` or,
    for the line of a message, its fields; `exception` with the traceback and `stack`, where there
    are such. Text is a JSON string whatever a sender wrote: it ends neither a line nor a member.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Formats one record."""
        entry = _entry(record.created, record.levelname, record.name)
        entry["message"] = record.getMessage()
        entry |= record.__dict__.get(MAIL, {})
        for key, value in record.__dict__.items():
            if key not in _STANDARD:
                entry.setdefault(key, value)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = record.stack_info
        # `repr` is for what no JSON is: to lose the record would be worse.
        return json.dumps(entry, default=repr, skipkeys=True)

    def of_core(self, record: CoreRecord, name: str) -> str:
        """As `LineFormatter.of_core`."""
        entry = _entry(record.created, logging.getLevelName(record.level), name)
        members = record.members
        if members is None:
            entry["message"] = record.message
            return f"{json.dumps(entry)}\n"
        # Joined as text: to parse them and to write them again would cost more than all the rest.
        return f"{json.dumps(entry)[:-1]}, {members}}}\n"


def make_formatter(log_format: LogFormat) -> LineFormatter | JSONFormatter:
    """The formatter of a value of `log_format`."""
    return JSONFormatter() if log_format == "json" else LineFormatter()


def _entry(created: float, level: str, name: str) -> dict[str, Any]:
    return {"time": _stamp(created), "level": level, "logger": name}


class _Clock:
    """The text of the last second that was asked for: most records share it with the one before."""

    last: ClassVar[tuple[int, str]] = (-1, "")


def _stamp(created: float) -> str:
    """`2026-01-31T12:00:00.123Z`."""
    second = int(created)
    # One tuple, so that no thread sees the text of another second.
    known, text = _Clock.last
    if second != known:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _Clock.last = (second, text)
    return f"{text}.{int((created - second) * 1000):03d}Z"


def _block(text: str) -> list[str]:
    return [f"  | {line.translate(_CONTROLS)}" for line in text.split("\n")]
