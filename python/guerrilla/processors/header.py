"""Header: makes the delivery header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from guerrilla.engine.base import Processor

if TYPE_CHECKING:
    from guerrilla._core import Envelope

__all__ = ["Header"]


class Header(Processor):
    """Makes `Delivered-To` and `Received` (RFC 5321 section 4.4) for what is stored.

    `envelope.delivery_header` is the form without a recipient, `delivery_header_for(i)` the one
    for the copy of a single recipient. The message itself does not change.
    """

    class Options(BaseModel):
        """Keys of `backend_config`."""

        model_config = ConfigDict(use_attribute_docstrings=True)

        primary_mail_host: str = "localhost"
        """The host of `Delivered-To: USER@HOST`; by default the host name of the receiver."""

    def __init__(self, options: Options) -> None:
        """Keeps the host."""
        super().__init__(options)
        self._host = options.primary_mail_host

    def save(self, envelope: Envelope) -> None:
        """Makes the header; always passes the envelope on."""
        envelope.make_delivery_header(self._host)
