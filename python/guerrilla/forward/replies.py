"""Replies of the far side: from octets to values (RFC 5321 section 4.2), and on to our client."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from guerrilla._core import Reply
from guerrilla.forward.steps import ProtocolError

__all__ = ["CLOSING", "FarReply", "ReplyReader"]

CLOSING: Final = 421
"""The far side closes the connection (RFC 5321 section 3.8)."""

MAX_LINE: Final = 4_096
"""Octets of a line: 512 by RFC 5321 section 4.5.3.1.5; some far sides say more."""
MAX_REPLY: Final = 64 << 10
"""Octets of a reply with all its lines: no EHLO comes near it."""
MAX_TEXT: Final = 1_000
"""Characters of a text that are passed on: what fits into the lines of a reply of ours."""
MAX_WIDE_TEXT: Final = 200
"""The same where they are not all ASCII: each may take ten octets (RFC 6533 section 3)."""

_LINE: Final = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED: Final = re.compile(r"([245](?:\.(?:0|[1-9][0-9]{0,2})){2})(?: +|$)")
"""RFC 3463 section 2: no number has a leading zero."""
_NO_CHARACTER: Final = "\ufffd"
"""What stands for octets that are no UTF-8."""
_OURS: Final = frozenset({530, 534, 535, 538})
"""What is said of our login (RFC 4954 section 6), which no sender of a mail can mend."""


@dataclass(frozen=True, slots=True)
class FarReply:
    """A reply as it came.

    Attributes:
        code: 200 to 599.
        lines: the text of each line, without enhanced codes.
        enhanced: the enhanced status code (RFC 3463), where it had one of the code's class.
    """

    code: int
    lines: tuple[str, ...] = ("",)
    enhanced: str | None = None

    def __str__(self) -> str:
        """On one line, for logs and errors."""
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))

    @property
    def is_success(self) -> bool:
        """Whether the code is 2xx."""
        return self.code // 100 == 2  # noqa: PLR2004 - the first digit is the meaning

    @property
    def is_refusal(self) -> bool:
        """Whether the code is 4xx or 5xx."""
        return self.code // 100 in {4, 5}

    @property
    def text(self) -> str:
        """All lines as one, printable: what may stand in a reply of ours, or in a log."""
        text = " ".join(filter(None, map(str.strip, self.lines)))
        if not text.isprintable() or _NO_CHARACTER in text:
            text = "".join(
                char if char.isprintable() and char != _NO_CHARACTER else "?" for char in text
            )
        return text[: MAX_TEXT if text.isascii() else MAX_WIDE_TEXT]

    def passed_on(self) -> Reply:
        """The same as a reply of ours.

        A 421 ends the far side's connection and not ours, so it is a 451; what concerns our login
        there is one too.

        Raises:
            ProtocolError: a code that answers no command of a transaction.
        """
        code, enhanced = self.code, self.enhanced
        if not (self.is_success or self.is_refusal):
            raise ProtocolError(f"it said {self}")
        if code == CLOSING or code in _OURS:
            code, enhanced = 451, f"4{enhanced[1:]}" if enhanced else None
        return Reply(code, enhanced or f"{code // 100}.0.0", self.text or "No reason given")


class ReplyReader:
    """Cuts what comes into replies. Knows no socket."""

    def __init__(self) -> None:
        self._octets = bytearray()
        self._code = 0
        self._lines: list[str] = []
        self._size = 0

    @property
    def has_more(self) -> bool:
        """Whether there is something that nobody has taken: also a part of a line."""
        return bool(self._octets or self._lines)

    def feed(self, octets: bytes) -> None:
        """Takes what came."""
        self._octets += octets

    def next(self) -> FarReply | None:
        """The next reply; None where it is not complete.

        Lines may end in LF alone, and a line of a code alone is one: both are seen.

        Raises:
            ProtocolError: it is none, or too long.
        """
        while (end := self._octets.find(b"\n")) >= 0:
            self._size += end + 1
            line = bytes(self._octets[:end]).removesuffix(b"\r")
            del self._octets[: end + 1]
            if end > MAX_LINE or self._size > MAX_REPLY:
                raise ProtocolError("a reply that is too long")
            if self._is_last(line):
                return self._reply()
        if len(self._octets) > MAX_LINE:
            raise ProtocolError("a line of a reply that is too long")
        return None

    def _is_last(self, line: bytes) -> bool:
        found = _LINE.fullmatch(line)
        if found is None:
            raise ProtocolError(f"no reply: {line[:100]!r}")
        code, sign, text = int(found[1]), found[2], found[3] or b""
        if self._lines and code != self._code:
            raise ProtocolError(f"a reply of several codes: {self._code} and {code}")
        self._code = code
        self._lines.append(text.decode("utf-8", "replace"))
        return sign != b"-"

    def _reply(self) -> FarReply:
        lines, self._lines, self._size = self._lines, [], 0
        enhanced = None
        for index, text in enumerate(lines):
            found = _ENHANCED.match(text)
            if found and found[1][0] == str(self._code)[0]:
                enhanced = enhanced or found[1]
                lines[index] = text[found.end() :]
        return FarReply(self._code, tuple(lines), enhanced)
