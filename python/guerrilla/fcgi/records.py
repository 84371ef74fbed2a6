"""The FastCGI protocol, version 1, as the side that asks sees it: octets in, octets out.

Section numbers are those of the FastCGI Specification of 1996. One request at a time, since
PHP-FPM and most other servers do not multiplex them (§3.3); so the id is always the same.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Answer", "AnswerReader", "ProtocolError", "request"]

VERSION: Final = 1
REQUEST_ID: Final = 1
RESPONDER: Final = 1
KEEP_CONNECTION: Final = 1

CONTENT_LIMIT: Final = 65_528
"""Octets of content in a record that we send: 65,535 at most (§3.3), a multiple of 8 so that none
needs padding."""
BLOCK: Final = 1 << 20
"""Octets after which a part of a request is handed out: a large mail is not copied whole."""
OUTPUT_LIMIT: Final = 64 << 10
"""Octets of a script's output that are kept; what follows is read and dropped."""
ERRORS_LIMIT: Final = 8 << 10
"""The same of what it complains of."""

_HEADER: Final = struct.Struct("!BBHHBx")
_BEGIN: Final = struct.Struct("!HB5x")
_END: Final = struct.Struct("!IB3x")
_LONG: Final = struct.Struct("!I")
_SHORT_LENGTH: Final = 127
_LONG_LENGTH: Final = 0x8000_0000


class Kind(enum.IntEnum):
    """Types of records (§8)."""

    BEGIN_REQUEST = 1
    END_REQUEST = 3
    PARAMS = 4
    STDIN = 5
    STDOUT = 6
    STDERR = 7


_REFUSALS: Final = {
    1: "it cannot multiplex",
    2: "it is overloaded",
    3: "it has no responder role",
}
"""What a `protocolStatus` means (§5.5); 0 is a request that was carried out."""


class ProtocolError(Exception):
    """The peer does not speak FastCGI, or refused the request by it."""


@dataclass(frozen=True)
class Answer:
    """What became of a request that was carried out.

    Attributes:
        output: the first octets of what the script wrote, at most `OUTPUT_LIMIT`.
        errors: the first octets of what it, or the server, complained of.
        exit_status: 0 where the script ended well.
    """

    output: bytes
    errors: bytes
    exit_status: int


def request(params: Mapping[str, str], content: bytes) -> Iterator[bytes]:
    """The octets of a request, in blocks of about `BLOCK`; the connection stays open after it.

    Args:
        params: what CGI has in the environment (RFC 3875 §4.1), sent as UTF-8.
        content: what the script reads from its standard input.
    """
    block = bytearray(_header(Kind.BEGIN_REQUEST, _BEGIN.size))
    block += _BEGIN.pack(RESPONDER, KEEP_CONNECTION)
    for kind, data in ((Kind.PARAMS, _pairs(params)), (Kind.STDIN, content)):
        view = memoryview(data)
        for start in range(0, len(view), CONTENT_LIMIT):
            part = view[start : start + CONTENT_LIMIT]
            block += _header(kind, len(part))
            block += part
            if len(block) >= BLOCK:
                yield bytes(block)
                block.clear()
        block += _header(kind, 0)  # the end of this stream
    yield bytes(block)


def _header(kind: Kind, length: int) -> bytes:
    return _HEADER.pack(VERSION, kind, REQUEST_ID, length, 0)


def _pairs(params: Mapping[str, str]) -> bytes:
    """Name-value pairs (§3.4)."""
    block = bytearray()
    for name, value in params.items():
        pair = name.encode(), value.encode("utf-8", "replace")
        for text in pair:
            length = len(text)
            short = length <= _SHORT_LENGTH
            block += bytes((length,)) if short else _LONG.pack(length | _LONG_LENGTH)
        block += b"".join(pair)
    return bytes(block)


class AnswerReader:
    """Reads the answer to one request, however its octets are split."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.started = False
        """Whether any octet has come."""
        self._unread = bytearray()
        self._output = bytearray()
        self._errors = bytearray()
        self._answer: Answer | None = None

    @property
    def has_more(self) -> bool:
        """Whether octets came after the end, which nobody has asked for."""
        return self._answer is not None and bool(self._unread)

    def feed(self, data: bytes) -> Answer | None:
        """Takes what was received; the answer once it is whole.

        Raises:
            ProtocolError: this is no FastCGI, or the request was refused.
        """
        self.started = self.started or bool(data)
        self._unread += data
        start = 0
        while self._answer is None and len(self._unread) - start >= _HEADER.size:
            version, kind, number, length, padding = _HEADER.unpack_from(self._unread, start)
            # Looked at first, so that what is not FastCGI is not waited for.
            if version != VERSION or number not in (0, REQUEST_ID):
                seen = bytes(self._unread[start : start + 16])
                raise ProtocolError(f"this is not FastCGI: {seen!r}")
            begin = start + _HEADER.size
            end = begin + length + padding
            if len(self._unread) < end:
                break
            if number == REQUEST_ID:  # 0: about the server, not the request (§4)
                self._take(kind, self._unread[begin : begin + length])
            start = end
        del self._unread[:start]
        return self._answer

    def _take(self, kind: int, content: bytearray) -> None:
        match kind:
            case Kind.STDOUT:
                self._output += content[: OUTPUT_LIMIT - len(self._output)]
            case Kind.STDERR:
                self._errors += content[: ERRORS_LIMIT - len(self._errors)]
            case Kind.END_REQUEST if len(content) >= _END.size:
                exit_status, refusal = _END.unpack_from(content)
                if refusal:
                    why = _REFUSALS.get(refusal, f"status {refusal}")
                    raise ProtocolError(f"the request was refused: {why}")
                self._answer = Answer(bytes(self._output), bytes(self._errors), exit_status)
            case _:
                raise ProtocolError(f"a record of type {kind} is no answer")
