"""Debugger: logs what is received; can be slow and fail on purpose."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from guerrilla.engine.base import Processor

if TYPE_CHECKING:
    from guerrilla._core import Envelope

__all__ = ["Debugger"]

log = logging.getLogger("guerrilla.debugger")


class Debugger(Processor):
    """Logs sender, recipients and headers of each mail, and sleeps when told to.

    It stores nothing.
    """

    class Options(BaseModel):
        """Keys of `backend_config`."""

        model_config = ConfigDict(use_attribute_docstrings=True)

        log_received_mails: bool = False
        """Log each mail at level info."""
        sleep_seconds: float = Field(default=0, ge=0)
        """Sleep this long for each mail, to try out timeouts; after exactly 1 it fails."""

    def __init__(self, options: Options) -> None:
        """Keeps the options."""
        super().__init__(options)
        self._logs = options.log_received_mails
        self._sleep = options.sleep_seconds

    def save(self, envelope: Envelope) -> None:
        """Logs and sleeps; passes the envelope on.

        Raises:
            RuntimeError: `sleep_seconds` is 1.
        """
        if self._logs and log.isEnabledFor(logging.INFO):
            log.info(
                "%s: mail from <%s> to %s",
                envelope.queued_id,
                envelope.mail_from,
                ", ".join(f"<{recipient}>" for recipient in envelope.rcpt_to),
            )
            log.info("%s: headers are: %s", envelope.queued_id, envelope.header.items())
        if self._sleep:
            time.sleep(self._sleep)
            if self._sleep == 1:
                message = "sleep_seconds is 1: failing on purpose"
                raise RuntimeError(message)
