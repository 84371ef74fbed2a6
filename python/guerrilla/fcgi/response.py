"""What a script says: its output as CGI has it, and what that means for a mail or a recipient."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guerrilla._core import Reply

if TYPE_CHECKING:
    from guerrilla.fcgi.records import Answer

__all__ = ["Response", "UnclearError", "parse", "saved", "validated"]

SHOWN: Final = 200
"""Characters of what a script says that a reply or the log repeats."""
REFUSED: Final = "User unknown in local recipient table"

_OK: Final = range(200, 300)
_BLANK_LINE: Final = re.compile(rb"\r?\n\r?\n")
_STATUS: Final = re.compile(rb"^status:[ \t]*([0-9]{3})\b", re.IGNORECASE | re.MULTILINE)
_SAVED: Final = re.compile(rb"SAVED(?:[ \t]+([0-9]{1,15})\b)?")
_REPLY: Final = re.compile(rb"([45][0-9]{2})(?:[ \t]+([45]\.[0-9]{1,3}\.[0-9]{1,3}))?(?:[ \t]|$)")
# PHP's own words, where it shows its errors in the output.
_ERROR: Final = re.compile(
    rb"^(?:<b>|PHP )?(?:Fatal error|Parse error|Warning|Notice|Deprecated)(?:</b>)?: ", re.MULTILINE
)
# It has then left out what does not fit, and runs the script without.
_LEFT_OUT: Final = re.compile(
    rb"POST Content-Length of [0-9]+ bytes exceeds|Input variables exceed"
)


class UnclearError(Exception):
    """Nobody can tell from this answer what became of the mail or recipient."""


@dataclass(frozen=True)
class Response:
    """An answer as CGI has it (RFC 3875 §6).

    Attributes:
        status: 200 where the script gives none.
        body: the first octets of it.
        errors: what the script or the server complained of.
    """

    status: int
    body: bytes
    errors: bytes

    @property
    def first_line(self) -> str:
        """Of the body: printable ASCII, cut."""
        return _plain(self.body.partition(b"\n")[0])

    def __str__(self) -> str:
        """One line for the log."""
        text = f"status {self.status}, {_plain(self.body)!r}"
        return f"{text}; it complained: {_plain(self.errors)!r}" if self.errors else text


def parse(answer: Answer) -> Response:
    """Splits header and body.

    Raises:
        UnclearError: it has no header section, or the script ended with an error.
    """
    if answer.exit_status:
        raise UnclearError(f"exit status {answer.exit_status}, {_plain(answer.output)!r}")
    blank = _BLANK_LINE.search(answer.output)
    if blank is None:
        raise UnclearError(f"no header section, {_plain(answer.output)!r}")
    # With its line end, so that each field has one.
    status = _STATUS.search(answer.output, 0, blank.end())
    return Response(int(status[1]) if status else 200, answer.output[blank.end() :], answer.errors)


def saved(response: Response, size: int) -> Reply | None:
    """What became of a mail: None when it is saved, else what its sender is told.

    Args:
        response: of the script.
        size: octets of the field `body`.

    Raises:
        UnclearError: it may or may not be saved.
    """
    if response.status not in _OK:
        raise UnclearError(str(response))
    if said := _SAVED.match(response.body):
        if said[1] is not None and int(said[1]) != size:
            raise UnclearError(f"{said[0].decode()} of {size} octets")
        if _LEFT_OUT.search(response.errors):
            raise UnclearError(str(response))
        return None
    if reply := _reply(response):
        return reply
    raise UnclearError(str(response))


def validated(response: Response) -> Reply | None:
    """What is said of a recipient: None when it is taken, else what the client is told.

    Raises:
        UnclearError: the script failed, so that this is no refusal.
    """
    if response.status not in _OK:
        raise UnclearError(str(response))
    if response.body.startswith(b"PASS"):
        return None
    if reply := _reply(response):
        return reply
    # Anything else refuses for good, so it has to be what the script meant to say.
    if response.errors or _ERROR.search(response.body):
        raise UnclearError(str(response))
    reason = "" if response.body.startswith(b"<") else response.first_line
    return Reply(550, "5.1.1", f"{REFUSED}: {reason}" if reason else REFUSED)


def _reply(response: Response) -> Reply | None:
    """The SMTP reply that the body begins with.

    Raises:
        UnclearError: it looks like one and is none.
    """
    line = response.body.partition(b"\n")[0].rstrip()
    found = _REPLY.match(line)
    if found is None:
        return None
    code = int(found[1])
    enhanced = found[2].decode() if found[2] else f"{code // 100}.0.0"
    text = _plain(line[found.end() :]) or ("Not saved" if code < 500 else "Rejected")  # noqa: PLR2004
    try:
        return Reply(code, enhanced, text)
    except ValueError as error:
        raise UnclearError(f"{_plain(line)!r}: {error}") from None


def _plain(octets: bytes) -> str:
    """Printable ASCII on one line, cut."""
    text = " ".join(octets[: 2 * SHOWN].decode("ascii", "replace").split())
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:SHOWN]
