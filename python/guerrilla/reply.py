"""Reply values: what a stage answers with, and how errors and several replies become one.

`Reply` itself is made by the core, which checks it when it is made: whatever exists can go on the
wire.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from guerrilla._core import Reply
from guerrilla.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "AUTHENTICATED",
    "LOG_IN_LATER",
    "NOT_AUTHENTICATED",
    "TAKEN",
    "TRY_LATER",
    "Outcome",
    "Replies",
    "Reply",
    "Taken",
    "fold",
    "reply_for",
]

TRY_LATER = Reply.retry()
"""`451 4.3.0`: the answer to every failure of ours, so that the sender keeps the mail."""

AUTHENTICATED: Final = Reply(235, "2.7.0", "Authentication successful")
"""What a stage of `auth_process` gives for a client that is who it says (RFC 4954 section 6)."""

NOT_AUTHENTICATED: Final = Reply(535, "5.7.8", "Authentication credentials invalid")
"""The answer to credentials that are wrong, and to those that no stage knows."""

LOG_IN_LATER: Final = Reply(454, "4.7.0", "Temporary authentication failure")
"""The answer to AUTH where the failure is ours: it says nothing of the credentials."""


class Taken(Enum):
    """The type of `TAKEN`."""

    TAKEN = "taken"


TAKEN: Final = Taken.TAKEN
"""The outcome of a stage that has kept the envelope and will answer it by `envelope.answer`.

The worker does not wait for that. An envelope that nobody answers gets `451 4.3.0` at its time
limit, or when it is dropped.
"""


class Replies(tuple[Reply, ...]):
    """One reply a recipient, in the order of `rcpt_to`.

    Raises:
        TypeError: an element that is no `Reply`.
    """

    __slots__ = ()

    def __new__(cls, replies: Iterable[Reply]) -> Self:
        """Takes any iterable of replies."""
        self = super().__new__(cls, replies)
        strange = {type(reply).__name__ for reply in self} - {Reply.__name__}
        if strange:
            message = f"Replies takes Reply values, not {', '.join(sorted(strange))}"
            raise TypeError(message)
        return self


Outcome: TypeAlias = Reply | Replies | Taken | None
"""What a stage makes of an envelope: an answer, one answer a recipient, `TAKEN` to answer it
later, or None to pass it on."""


def fold(replies: Iterable[Reply]) -> Reply:
    """The one reply that stands for several, as SMTP has one answer to DATA (RFC 5321 section 3.3).

    All 2xx: the first of them. Any 4xx: the first of those, since the sender must try again for
    that recipient. Else the first 5xx.

    Raises:
        ValueError: no replies at all.
    """
    refused: Reply | None = None
    accepted: Reply | None = None
    for reply in replies:
        if reply.is_success:
            accepted = accepted or reply
        elif reply.code < 500:  # noqa: PLR2004 - the first digit is the meaning
            return reply
        else:
            refused = refused or reply
    folded = refused or accepted
    if folded is None:
        message = "nothing to fold: no replies"
        raise ValueError(message)
    return folded


def reply_for(error: BaseException) -> Reply:
    """The reply to the sender for an error a stage raised.

    A `DeliveryError` carries its own; anything else is a passing failure of ours, `451 4.3.0`.
    """
    if isinstance(error, DeliveryError):
        try:
            return Reply(error.code, error.enhanced, str(error))
        except (TypeError, ValueError):
            # A text with line ends: the code is what matters.
            return _plain(error)
    return TRY_LATER


def _plain(error: DeliveryError) -> Reply:
    """The code of `error` with the text its class has, or `TRY_LATER` when that is no reply."""
    try:
        return Reply(error.code, error.enhanced, type(error).text)
    except (TypeError, ValueError):
        return TRY_LATER
