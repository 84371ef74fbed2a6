"""Compressor: says that stores keep the compressed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guerrilla.engine.base import Processor

if TYPE_CHECKING:
    from guerrilla._core import Envelope

__all__ = ["VALUE", "Compressor", "stored_form"]

VALUE: Final = "zlib-compressor"
"""The key of `envelope.values` that it sets."""


class Compressor(Processor):
    """Sets `envelope.values["zlib-compressor"]`: stores after it keep the zlib form of a mail.

    Nothing is compressed yet: a store reads `envelope.compressed_for(i)` when it writes the copy of
    a recipient, and each reading gives the same octets.
    """

    def save(self, envelope: Envelope) -> None:
        """Sets the value; always passes the envelope on."""
        envelope.values[VALUE] = True


def stored_form(envelope: Envelope, index: int) -> bytes:
    """What a store keeps for a recipient: the zlib form where Compressor came before it."""
    if envelope.values.get(VALUE):
        return envelope.compressed_for(index)
    return envelope.bytes_for(index)
