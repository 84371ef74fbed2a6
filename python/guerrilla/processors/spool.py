"""250: answers once a mail is in the spool; what stands right of it comes after the answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from guerrilla.config import SPOOL
from guerrilla.engine.base import Processor
from guerrilla.reply import TAKEN, TRY_LATER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla._core import Envelope
    from guerrilla.reply import Outcome

__all__ = ["Spool"]

log = logging.getLogger("guerrilla.spool")


class Spool(Processor):
    """Hands mails to the spool, which answers `250` when they are on the disk.

    A mail that the spool has no room for is answered `452 4.3.1`, one that cannot be saved now
    `451 4.3.0`; nothing of it is kept then. What stages before it have put into `envelope.values`
    is kept where it is JSON; a mail with any other value there is answered `451 4.3.0`.
    """

    stores = True

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        """Hands each to the core, which answers all of a commit together."""
        return [self._take(envelope) for envelope in envelopes]

    def _take(self, envelope: Envelope) -> Outcome:
        try:
            if envelope.spool():
                return TAKEN
            problem = "this mail comes from no server that has a spool"
        except Exception as error:  # noqa: BLE001 - whatever a value does when it is looked at
            # Of this mail alone: the others of the batch go on.
            problem = str(error)
        log.error("%s: %s: %s: answered 451", envelope.queued_id, SPOOL, problem)
        return TRY_LATER
