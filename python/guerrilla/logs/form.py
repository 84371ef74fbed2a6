"""The forms of a log: a line of text or a JSON object for each record.

The core writes the same lines of its own records itself, since to make a `logging.LogRecord` of
each costs several times as much: `rust/src/log/line.rs` is the twin of this module.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Final, Literal

LogFormat = Literal["text", "json"]

MAIL: Final = "mail"
"""The attribute of a `LogRecord` that has the fields of a message, as a dict."""
OUTPUT: Final = "_guerrilla_output"
"""The attribute that has the log which a record of the core is for."""

_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))} | {
    0x09: "\\t",
    0x0A: "\\n",
    0x0D: "\\r",
    # The line and the paragraph separator, and what turns the direction of text.
    **{code: f"\\u{code:04x}" for code in (*range(0x2028, 0x202F), 0x200E, 0x200F)},
    **{code: f"\\u{code:04x}" for code in range(0x2066, 0x206A)},
}
_STANDARD: Final = frozenset(
    (*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", MAIL, OUTPUT)
)
"""Attributes of every `LogRecord`; what else one has came by `extra`."""


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO guerrilla.smtp message`, one line a record, times UTC.

    Control characters in a message are escaped, so that no sender can forge a line; a traceback
    follows on lines that begin with `  | `, which no record does.

    Args:
        process: the number of this one among several, which then stands behind the logger, as
            `guerrilla.smtp[1]`.
    """

    def __init__(self, process: int | None = None) -> None:
        super().__init__()
        self._mark = "" if process is None else f"[{process}]"

    def format(self, record: logging.LogRecord) -> str:
        """Formats one record."""
        message = record.getMessage().translate(_CONTROLS)
        lines = [f"{_stamp(record.created)} {record.levelname} {record.name}{self._mark} {message}"]
        if record.exc_info:
            lines += _block(self.formatException(record.exc_info))
        if record.stack_info:
            lines += _block(record.stack_info)
        return "\n".join(lines)


class JSONFormatter(logging.Formatter):
    """A JSON object a line, in ASCII.

    Members: `time` as in `LineFormatter`, `level`, `logger`, `message`; what came by `extra` or,
    for the line of a message, its fields; `exception` with the traceback and `stack`, where there
    are such. Text is a JSON string whatever a sender wrote: it ends neither a line nor a member.

    Args:
        process: the number of this one among several: the member `process` then.
    """

    def __init__(self, process: int | None = None) -> None:
        super().__init__()
        self._process = {} if process is None else {"process": process}

    def format(self, record: logging.LogRecord) -> str:
        """Formats one record."""
        entry = {
            "time": _stamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            **self._process,
            "message": record.getMessage(),
        }
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


def make_formatter(
    log_format: LogFormat, process: int | None = None
) -> LineFormatter | JSONFormatter:
    """The formatter of a value of `log_format`; `process` is this one among several."""
    return JSONFormatter(process) if log_format == "json" else LineFormatter(process)


def _stamp(created: float) -> str:
    """`2026-01-31T12:00:00.123Z`."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
    return f"{text}.{int((created % 1) * 1000):03d}Z"


def _block(text: str) -> list[str]:
    return [f"  | {line.translate(_CONTROLS)}" for line in text.split("\n")]
