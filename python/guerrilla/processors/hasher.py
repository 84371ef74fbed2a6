"""Hasher: one id a recipient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guerrilla.engine.base import Processor

if TYPE_CHECKING:
    from guerrilla._core import Envelope

__all__ = ["Hasher"]


class Hasher(Processor):
    """Fills `envelope.hashes` with one MD5 (hex) a recipient, in the order of `rcpt_to`.

    Made from sender, subject, queued id and recipient: the same envelope has the same hashes, so
    that saving it again is seen as a repeat. They are names, not a protection.
    """

    def save(self, envelope: Envelope) -> None:
        """Fills `hashes`; always passes the envelope on."""
        envelope.compute_hashes()
