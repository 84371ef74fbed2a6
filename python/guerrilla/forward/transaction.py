"""A mail transaction with the far side (RFC 5321 section 3.3), or the beginning of one.

The promise is that of the whole program: a recipient is 2xx only where the far side has said so,
and nothing is sent a second time by us once its end may have arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from guerrilla._core import Reply
from guerrilla.forward.body import Body, chunk, stuffed
from guerrilla.forward.commands import Path, Wishes, is_binary, mail_command, rcpt_command
from guerrilla.forward.steps import Heard, LostError, ProtocolError, Say, ask, ask_all

if TYPE_CHECKING:
    from guerrilla.forward.extensions import Extensions
    from guerrilla.forward.replies import FarReply
    from guerrilla.forward.steps import Conversation

__all__ = ["IN_DOUBT", "Mail", "Result", "relay", "verify"]

IN_DOUBT: Final = Reply(451, "4.4.2", "The next server may have it and did not say so")
"""The message was sent, and the connection ended before the answer: our client tries again."""

TOO_MANY: Final = Reply(452, "4.5.3", "Too many recipients for the next server")
"""RFC 5321 section 4.5.3.1.10: our client sends to the others in another transaction."""

GO_AHEAD: Final = 354
RESET: Final = b"RSET\r\n"


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to be relayed.

    Attributes:
        sender: its reverse-path.
        recipients: at least one.
        head: header fields that were put before it.
        data: the message.
        has_utf8_header: our client said SMTPUTF8, and the header section makes use of it.
    """

    sender: Path
    recipients: Sequence[Path]
    head: bytes = b""
    data: memoryview | bytes = b""
    has_utf8_header: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What became of it.

    Attributes:
        replies: one a recipient, as our client may hear it; None for one that the far side would
            have taken, had the others been taken too.
        is_clean: the connection is as before, ready for the next.
        doubt: why it is not known whether the far side took the message.
    """

    replies: Sequence[Reply | None]
    is_clean: bool = True
    doubt: str = ""


def relay(mail: Mail, far: Extensions, *, lmtp: bool, apart: bool) -> Conversation[Result]:
    """Hands a mail over.

    Args:
        mail: the mail.
        far: what the far side can do.
        lmtp: it answers the message once for each recipient (RFC 2033 section 4.2).
        apart: our client can hear a reply of its own for each recipient, so that those who are
            taken get the mail where others are not; else it goes to all of them or none.

    Raises:
        LostError: the connection ended before anything can have been taken.
        ProtocolError: a reply that makes no sense there.
    """
    return (yield from _Relay(mail, far, lmtp=lmtp, apart=apart).run())


class _Relay:
    """See `relay`."""

    def __init__(self, mail: Mail, far: Extensions, *, lmtp: bool, apart: bool) -> None:
        self._far = far
        self._lmtp = lmtp
        self._apart = apart
        # BDAT where nothing else will do: a reply too many, of whatever came before, would be taken
        # for its own, and a mail for saved that nobody has. To DATA it is no 354, and is found out.
        self._chunks = is_binary(mail.sender)
        self._body = Body(mail.head, mail.data, is_binary=self._chunks)
        survey = self._body.survey()
        self._size = survey.size
        paths = (mail.sender, *mail.recipients)
        has_utf8_path = not all(path.told(far).isascii() for path in paths)
        self._wishes = Wishes(
            size=survey.size,
            has_8bit=not survey.is_ascii,
            needs_utf8=mail.has_utf8_header or has_utf8_path,
        )
        self._replies: list[Reply | None] = [None] * len(mail.recipients)
        self._plan(mail)

    def _plan(self, mail: Mail) -> None:
        """The commands, and the replies of those that cannot be said."""
        far, wishes = self._far, self._wishes
        rcpts = [rcpt_command(path, wishes, far) for path in mail.recipients]
        if any(isinstance(command, Reply) for command in rcpts):
            # Without those recipients it may be a mail like any other.
            has_utf8_sender = not mail.sender.told(far).isascii()
            wishes = replace(wishes, needs_utf8=mail.has_utf8_header or has_utf8_sender)
        most = far.limit("RCPTMAX") or len(rcpts)
        begin = mail_command(mail.sender, wishes, far)
        self._commands = [begin] if isinstance(begin, bytes) else []
        self._asked: list[int] = []
        for index, command in enumerate(rcpts):
            if isinstance(begin, Reply):
                self._replies[index] = begin
            elif isinstance(command, Reply):
                self._replies[index] = command
            elif len(self._asked) == most:
                self._replies[index] = TOO_MANY
            else:
                self._commands.append(command)
                self._asked.append(index)

    def run(self) -> Conversation[Result]:
        is_whole = len(self._asked) == len(self._replies)
        if not self._asked or not (is_whole or self._apart):
            return Result(self._replies)
        # Only where nothing can make us want to stop behind the RCPTs may DATA go with them.
        with_data = self._apart and not self._chunks and "PIPELINING" in self._far
        commands = [*self._commands, b"DATA\r\n"] if with_data else self._commands
        heard = yield from ask_all(commands, pipelined="PIPELINING" in self._far)
        if not heard[0].is_success:
            self._answer(self._asked, heard[0])
            return Result(self._replies, is_clean=_is_refused(heard, len(commands), with_data))
        taken = self._sorted(heard)
        if not taken or (len(taken) < len(self._replies) and not self._apart):
            is_clean = _is_refused(heard, len(commands), with_data)
            return (yield from self._stop(is_clean=is_clean))
        if self._chunks:
            return (yield from self._send(taken))
        go_ahead = heard[len(commands) - 1] if with_data else (yield from ask(b"DATA\r\n"))
        if go_ahead.code != GO_AHEAD:
            if go_ahead.is_success:
                raise ProtocolError(f"it said {go_ahead} to DATA")
            self._answer(taken, go_ahead)
            return (yield from self._stop())
        return (yield from self._send(taken))

    def _sorted(self, heard: Heard) -> list[int]:
        """Notes the refusals; the recipients that are taken."""
        taken = []
        for position, index in enumerate(self._asked, 1):
            if (reply := heard[position]).is_success:
                taken.append(index)
            else:
                self._replies[index] = reply.passed_on()
        return taken

    def _answer(self, indices: Sequence[int], reply: FarReply) -> None:
        for index in indices:
            self._replies[index] = reply.passed_on()

    def _stop(self, *, is_clean: bool = True) -> Conversation[Result]:
        """Ends the transaction without a message."""
        if is_clean:
            heard = yield Say((RESET,), 1)
            is_clean = bool(heard.replies) and heard[0].is_success
        return Result(self._replies, is_clean=is_clean)

    def _send(self, taken: Sequence[int]) -> Conversation[Result]:
        """The message, and what is said of it."""
        pieces = self._body.pieces()
        octets = chunk(self._size, pieces) if self._chunks else stuffed(pieces)
        expected = len(taken) if self._lmtp else 1
        heard = yield Say(octets, expected, is_message=True)
        if heard.lost and not heard.replies and not heard.in_doubt:
            raise LostError(heard.lost)
        if heard.unsent and not heard[0].is_refusal:
            raise ProtocolError(f"it said {heard[0]} before it had heard all")
        doubt = self._note(taken, heard, of_all=heard.unsent or not self._lmtp)
        if doubt or heard.lost or heard.unsent:
            return Result(self._replies, is_clean=False, doubt=doubt)
        if self._chunks and not all(reply.is_success for reply in heard.replies):
            return (yield from self._stop())  # RFC 3030 section 2 leaves the state open
        return Result(self._replies)

    def _note(self, taken: Sequence[int], heard: Heard, *, of_all: bool) -> str:
        """Notes what was said of the message; why that is not known of all, where it is not."""
        doubt = ""
        for position, index in enumerate(taken):
            place = 0 if of_all else position
            reply = heard.replies[place] if place < len(heard.replies) else None
            if reply is not None and not (reply.is_success or reply.is_refusal):
                doubt = doubt or f"it said {reply}"
            if reply is None:
                doubt = doubt or heard.lost
            # Behind one that makes no sense nobody knows whose the others are.
            self._replies[index] = reply.passed_on() if reply and not doubt else IN_DOUBT
        return doubt


def _is_refused(heard: Heard, expected: int, with_data: bool) -> bool:
    """Whether nothing waits for a message: all was answered, and DATA was refused."""
    if heard.lost:
        return False
    return not with_data or (len(heard.replies) == expected and heard[-1].code != GO_AHEAD)


def verify(
    sender: Path, recipient: Path, far: Extensions, *, size: int
) -> Conversation[tuple[Reply, bool]]:
    """Asks whether the far side would take a recipient.

    Returns:
        What it said, and whether the connection is as before.

    Raises:
        LostError, ProtocolError: as for `relay`.
    """
    is_utf8 = not (sender.told(far).isascii() and recipient.told(far).isascii())
    wishes = Wishes(size=size, needs_utf8=is_utf8)
    commands = []
    for command in (mail_command(sender, wishes, far), rcpt_command(recipient, wishes, far)):
        if isinstance(command, Reply):
            return command, True
        commands.append(command)
    pipelined = "PIPELINING" in far
    heard = yield from ask_all([*commands, RESET], pipelined=pipelined)
    reply = heard[0] if not heard[0].is_success else heard[1]
    passed_on = reply.passed_on()
    # Without pipelining nothing is said behind a MAIL that is refused, and nothing is open then.
    is_over = not pipelined and not heard[0].is_success
    return passed_on, not heard.lost and (is_over or heard[-1].is_success)
