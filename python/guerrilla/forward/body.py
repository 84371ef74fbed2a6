"""A message on its way: pieces of it, their line ends, their dots.

All of it works on a piece at a time, so that a message in a file is not brought into memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["PIECE", "Body", "chunk", "fixed", "stuffed"]

PIECE: Final = 256 << 10
"""Octets of a piece, about: what is copied at a time."""

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Survey:
    """What has to be known of a message before it is sent."""

    size: int
    """Octets with the line ends that it is sent with, before dots are doubled."""
    is_ascii: bool


class Body:
    """A message with what was put before it.

    Args:
        head: added header fields.
        data: the message as it was received.
        is_binary: each octet is to arrive as it is (BINARYMIME); else a bare CR or LF becomes
            CRLF, as no other line end may be sent (RFC 5321 section 2.3.8). A far side that took
            one for a line end would see the end of the message where ours was not.
    """

    def __init__(self, head: bytes, data: memoryview | bytes, *, is_binary: bool = False) -> None:
        self._head = head
        self._data = memoryview(data)
        self._is_binary = is_binary

    def pieces(self) -> Iterator[bytes]:
        """The octets to be sent, anew at each call."""
        raw = self._raw()
        return raw if self._is_binary else fixed(raw)

    def survey(self) -> Survey:
        """Looks through all of it."""
        size, is_ascii = 0, True
        for piece in self.pieces():
            size += len(piece)
            is_ascii = is_ascii and piece.isascii()
        return Survey(size, is_ascii)

    def _raw(self) -> Iterator[bytes]:
        begin = max(0, PIECE - len(self._head))
        yield self._head + self._data[:begin]
        for start in range(begin, len(self._data), PIECE):
            yield bytes(self._data[start : start + PIECE])


def fixed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Each bare CR or LF becomes CRLF."""
    held = b""
    for piece in pieces:
        octets = held + piece
        held = b"\r" if octets.endswith(b"\r") else b""  # a LF may follow
        octets = octets[: len(octets) - len(held)]
        ends = octets.count(b"\r\n")
        if octets.count(b"\n") != ends or octets.count(b"\r") != ends:
            octets = _LINE_END.sub(b"\r\n", octets)
        yield octets
    if held:
        yield b"\r\n"


def stuffed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What follows DATA: dots doubled, and the end (RFC 5321 section 4.5.2).

    The pieces have no bare CR or LF. The last one yielded, and no other, ends in the end of data.
    """
    # As if a line had just ended: that removes the special case of the first.
    held, ready, is_first = b"\r\n", b"", True
    for piece in pieces:
        octets = held + piece
        held = b"\r\n" if octets.endswith(b"\r\n") else b""  # a dot may follow
        octets = octets[: len(octets) - len(held)].replace(b"\r\n.", b"\r\n..")
        if is_first and octets:
            octets, is_first = octets[2:], False
        if ready:
            yield ready
        ready = octets
    if is_first:
        yield b".\r\n"
    else:
        yield ready + held + (b".\r\n" if held == b"\r\n" else b"\r\n.\r\n")


def chunk(size: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A message as the one and last chunk of BDAT (RFC 3030 section 2)."""
    before = b"BDAT %d LAST\r\n" % size
    for piece in pieces:
        if piece:
            yield before + piece
            before = b""
    if before:
        yield before
