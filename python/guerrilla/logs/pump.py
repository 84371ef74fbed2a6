"""The thread that brings the core's records into the log."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, Protocol

from guerrilla.logs.output import logger_name, made

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla._core import LogBatch
    from guerrilla.logs.form import LogFormat
    from guerrilla.logs.output import LogOutput

_PUMP_BATCH: Final = 2_000
_PUMP_WAIT: Final = 1.0
_PUMP_PAUSE: Final = 0.02
"""Seconds between two batches. To wake the pump costs the I/O thread a system call: so it is woken
fifty times a second at the most, and not for each message."""

log = logging.getLogger("guerrilla.logs")


class RecordSource(Protocol):
    """What the pump needs of the core."""

    def receive_logs(
        self,
        max: int,  # noqa: A002 - its name there
        timeout: float,
        form: LogFormat | None = ...,
        process: int | None = ...,
    ) -> Sequence[LogBatch] | None:
        """See `Core.receive_logs`."""

    def set_log_level(self, level: int) -> None:
        """See `Core.set_log_level`."""


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
        process = None if self._output is None else self._output.process
        # Who stands in for the core needs to know of no processes.
        more = () if process is None else (process,)
        while True:
            form = None if self._output is None else self._output.settings.format
            batches = self._source.receive_logs(_PUMP_BATCH, _PUMP_WAIT, form, *more)
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
            logger = logging.getLogger(logger_name(batch))
            if logger.isEnabledFor(batch.level):
                for record in batch.records:
                    logger.handle(made(batch, record))
