"""What a conversation consists of: what is said, what is heard, and how it fails.

A conversation is a generator: it yields what is to be done next and gets what was heard. It knows
neither a socket nor a clock, so that a test is one `send` after the other.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from guerrilla.forward.replies import FarReply

__all__ = [
    "Conversation",
    "Heard",
    "LostError",
    "ProtocolError",
    "RefusedError",
    "Say",
    "Secure",
    "ask",
    "ask_all",
    "line",
]

CRLF: Final = b"\r\n"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class ProtocolError(Exception):
    """The far side does not speak SMTP, or not as it has to here."""


class LostError(Exception):
    """The connection ended, or the far side ended it by a 421, before it had taken the message."""


class RefusedError(Exception):
    """The far side will have no session with us."""


class LoginRefusedError(RefusedError):
    """It does not know us by this name and password."""


@dataclass(frozen=True, slots=True)
class Say:
    """Something to send.

    Attributes:
        octets: in pieces.
        replies: how many it is answered by, at least one.
        is_message: it is a message, or a part of one, which counts as a whole once its last piece
            is there: a reply that comes before ends the sending.
    """

    octets: Iterable[bytes] = field(repr=False)  # it may hold a password
    replies: int
    is_message: bool = False


@dataclass(frozen=True, slots=True)
class Secure:
    """A TLS handshake comes now. It is heard as nothing."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came in answer.

    Attributes:
        replies: in order; fewer than expected where `lost` says why.
        lost: how the connection ended.
        in_doubt: the end of a message may have arrived.
        unsent: the far side answered before it had heard all of a message.
    """

    replies: Sequence[FarReply] = ()
    lost: str = ""
    in_doubt: bool = False
    unsent: bool = False

    def __getitem__(self, index: int) -> FarReply:
        """The reply of that number.

        Raises:
            LostError: it never came.
        """
        try:
            return self.replies[index]
        except IndexError:
            raise LostError(self.lost) from None


_Value = TypeVar("_Value")
Conversation: TypeAlias = Generator[Say | Secure, Heard, _Value]
"""Something that is talked through, with its result."""


def line(text: str) -> bytes:
    """A command line.

    Raises:
        ValueError: a control character is in it, which might end it.
    """
    if _CONTROL.search(text):
        raise ValueError(f"no control character can be in a command: {text!r}")
    return text.encode() + CRLF


def ask(command: bytes) -> Conversation[FarReply]:
    """Says one command; its reply.

    Raises:
        LostError: none came.
    """
    heard = yield Say((command,), 1)
    return heard[0]


def ask_all(commands: Sequence[bytes], *, pipelined: bool) -> Conversation[Heard]:
    """Says MAIL and the commands that follow it; a reply each.

    Args:
        commands: in order.
        pipelined: all at once (RFC 2920), else one after the other, and nothing after a MAIL that
            is refused.
    """
    if pipelined:
        return (yield Say((b"".join(commands),), len(commands)))
    replies: list[FarReply] = []
    for command in commands:
        heard = yield Say((command,), 1)
        replies += heard.replies
        if heard.lost or not replies[0].is_success:
            return Heard(replies, heard.lost)
    return Heard(replies)
