"""What is given to a mail server that shall send it on, and what it says of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol


class Submitted(NamedTuple):
    """A mail for a sender."""

    message: bytes
    """With CRLF, without dot-stuffing."""
    sender: str = "<from@example.org>"
    """The reverse-path."""
    recipients: tuple[str, ...] = ("<to@example.com>",)
    """Each a forward-path, and the parameters of RCPT behind it."""
    parameters: str = "BODY=8BITMIME"
    """Of MAIL."""

    def commands(self) -> bytes:
        """Everything up to the 354."""
        lines = [f"MAIL FROM:{self.sender} {self.parameters}"]
        lines += [f"RCPT TO:{recipient}" for recipient in self.recipients]
        return "".join(f"{line}\r\n" for line in [*lines, "DATA"]).encode()


class Outcome(NamedTuple):
    """What a sender's log has of one mail and one recipient."""

    queue_id: str
    recipient: str
    status: Literal["sent", "deferred", "bounced"]
    said: str
    """The reply; where it was no 2xx, with what the sender says of it."""
    line: str
    """Of the log."""


class Sender(Protocol):
    """A mail server that sends all it has to one receiver, and only when told so."""

    def submit(self, mails: Sequence[Submitted]) -> list[str]:
        """Gives mails to it; their ids in its queue."""

    def copies(self, ids: Sequence[str]) -> list[bytes]:
        """The messages of mails in its queue, its own `Received` first, with CRLF."""

    def release(self, outcomes: int) -> None:
        """Sends what is in its queue; returns when there are as many outcomes as these."""

    def outcomes(self) -> list[Outcome]:
        """What became of each mail and recipient."""
