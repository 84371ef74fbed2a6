"""HeadersParser: parses the header section and decodes the subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guerrilla.engine.base import Processor

if TYPE_CHECKING:
    from guerrilla._core import Envelope

__all__ = ["HeadersParser"]


class HeadersParser(Processor):
    """Parses the header section into `envelope.header` and decodes `envelope.subject` (RFC 2047).

    Both are made on first use anyway; with this stage the work is done, once, before the stages
    that follow. It refuses nothing: a line that is no header field is kept as it is.
    """

    def save(self, envelope: Envelope) -> None:
        """Parses; always passes the envelope on."""
        envelope.header  # noqa: B018 - parsed on first use
        envelope.subject  # noqa: B018 - decoded on first use
