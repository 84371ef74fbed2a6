"""What an answer of a web server means for a mail, or for each mail of a batch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from guerrilla._core import Reply
from guerrilla.reply import TRY_LATER, Replies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guerrilla._core import Envelope
    from guerrilla.reply import Outcome

__all__ = ["Answer", "UnclearError", "outcomes", "refuses"]

SHOWN: Final = 200
"""Characters of what a server says that a reply or the log repeats."""

REFUSED: Final = Reply(550, "5.0.0", "Rejected")
TOO_LARGE: Final = Reply(552, "5.3.4", "Message too big")

PASSING: Final = frozenset({401, 407, 408, 425, 429})
"""Of 4xx those that a later request may not get: our credentials are wrong, or it is too early,
too late or too much (RFC 9110 §15.5, RFC 8470 §5.2, RFC 6585 §4)."""

_SAVED: Final = Reply.ok()
_OK: Final = range(200, 300)
_CLIENT_ERRORS: Final = range(400, 500)
_CONTENT_TOO_LARGE: Final = 413
_REPLIES: Final = "replies"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as far as it was read.

    Attributes:
        status: of it.
        is_json: its content type says so.
        body: the first octets of it.
        is_whole: that is all of it.
        location: where it redirects to.
    """

    status: int
    is_json: bool = False
    body: bytes = b""
    is_whole: bool = True
    location: str = ""

    @property
    def is_success(self) -> bool:
        """Whether it is 2xx."""
        return self.status in _OK

    def __str__(self) -> str:
        """One line for the log."""
        if self.location:
            return f"status {self.status} to {self.location}, which is not followed"
        return f"status {self.status}, {_plain(self.body.decode('utf-8', 'replace'))!r}"


class UnclearError(Exception):
    """Nobody can tell from an answer what became of the mails, or it is a passing failure."""


def refuses(answer: Answer) -> bool:
    """Whether it blames what was posted: 4xx, but not those of `PASSING`."""
    return answer.status in _CLIENT_ERRORS and answer.status not in PASSING


def outcomes(answer: Answer, envelopes: Sequence[Envelope], client_error: int) -> Sequence[Outcome]:
    """What became of each mail that was posted.

    Args:
        answer: to the request with all of them.
        envelopes: in order.
        client_error: 550 or 451: what a mail is answered that the server blames.

    Raises:
        UnclearError: all of them are to be answered 451.
    """
    if answer.is_success:
        replies = _replies(answer)
        if replies is None:
            return [None] * len(envelopes)
        return [_of_mail(envelope, replies, len(envelopes)) for envelope in envelopes]
    if refuses(answer) and client_error == REFUSED.code:
        reply = TOO_LARGE if answer.status == _CONTENT_TOO_LARGE else REFUSED
        return [reply] * len(envelopes)
    raise UnclearError(str(answer))


def _replies(answer: Answer) -> Sequence[Mapping[str, Any]] | None:
    """The replies that a successful answer has for single mails; None where it has none.

    Raises:
        UnclearError: it may have had some.
    """
    if not (answer.is_json and answer.body.strip()):
        if answer.is_json and not answer.is_whole:
            raise UnclearError(f"status {answer.status}, and its JSON did not come")
        return None
    if not answer.is_whole:
        raise UnclearError(f"{answer}: its JSON is too long, or ends early")
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise UnclearError(f"{answer}: not the JSON that it is said to be: {error}") from None
    if not (isinstance(found, dict) and _REPLIES in found):
        return None
    replies = found[_REPLIES]
    if not (isinstance(replies, list) and all(isinstance(one, dict) for one in replies)):
        raise UnclearError(f"{answer}: {_REPLIES} is no list of objects")
    return replies


def _of_mail(envelope: Envelope, replies: Sequence[Mapping[str, Any]], mails: int) -> Outcome:
    """What the replies say of one mail; what they do not say is that it was saved."""
    name = envelope.queued_id
    mine = [one for one in replies if one.get("id", None if mails > 1 else name) == name]
    every = next((_reply(one) for one in mine if "rcpt_to" not in one), None)
    named = {str(one["rcpt_to"]): _reply(one) for one in mine if "rcpt_to" in one}
    if not named:
        reply = every or TRY_LATER
        return None if reply.is_success else reply
    recipients = [str(recipient) for recipient in envelope.rcpt_to]
    # Who is named otherwise than he was posted is one of those, and nobody knows which.
    others = every if every is not None and named.keys() <= set(recipients) else TRY_LATER
    found = [named.get(recipient, others) for recipient in recipients]
    if all(reply.is_success for reply in found):
        return None
    return Replies(_SAVED if reply.is_success else reply for reply in found)


def _reply(one: Mapping[str, Any]) -> Reply:
    """The SMTP reply that an object stands for; a 451 for what is none."""
    code, enhanced, text = one.get("code"), one.get("enhanced"), one.get("text")
    if not isinstance(code, int):
        return TRY_LATER
    if not isinstance(enhanced, str):
        enhanced = f"{code // 100}.0.0"
    plain = _plain(text) if isinstance(text, str) else ""
    try:
        return Reply(code, enhanced, plain or ("OK" if code in _OK else "Not saved"))
    except (ValueError, OverflowError):
        return TRY_LATER


def _plain(text: str) -> str:
    """Printable ASCII on one line, cut."""
    words = " ".join(text[: 2 * SHOWN].split())
    return "".join(c if " " <= c <= "~" else "?" for c in words)[:SHOWN]
