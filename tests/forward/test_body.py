"""Messages in pieces: line ends, dots, chunks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from guerrilla.forward import body
from guerrilla.forward.body import Body, chunk, fixed, stuffed

FIXED = [
    (b"", b""),
    (b"a\r\nb\r\n", b"a\r\nb\r\n"),
    (b"a\nb\rc", b"a\r\nb\r\nc"),
    (b"\n\r\n\r", b"\r\n\r\n\r\n"),
    (b"\r\r\n\n", b"\r\n\r\n\r\n"),
    # What a far side might take for the end of a message.
    (b"x\n.\nMAIL FROM:<evil@example.org>\n", b"x\r\n.\r\nMAIL FROM:<evil@example.org>\r\n"),
    (b"x\r\n.\rQUIT", b"x\r\n.\r\nQUIT"),
]

STUFFED = [
    (b"", b".\r\n"),
    (b".", b"..\r\n.\r\n"),
    (b".\r\n", b"..\r\n.\r\n"),
    (b"\r\n", b"\r\n.\r\n"),
    (b"a", b"a\r\n.\r\n"),
    (b"a\r\n", b"a\r\n.\r\n"),
    (b"a\r\n.\r\n", b"a\r\n..\r\n.\r\n"),
    (b"a\r\n.\r\n.\r\nb", b"a\r\n..\r\n..\r\nb\r\n.\r\n"),
    (b"..\r\n...", b"...\r\n....\r\n.\r\n"),
    (b"a.\r\nb.c", b"a.\r\nb.c\r\n.\r\n"),
]


def splits(octets: bytes) -> Iterator[list[bytes]]:
    """In one piece, in two wherever they may part, and in single octets."""
    yield [octets]
    for index in range(len(octets) + 1):
        yield [octets[:index], octets[index:]]
    yield [octets[index : index + 1] for index in range(len(octets))]


@pytest.mark.parametrize(("given", "sent"), FIXED)
def test_bare_line_ends_become_crlf_however_it_is_split(given: bytes, sent: bytes) -> None:
    for pieces in splits(given):
        assert b"".join(fixed(pieces)) == sent


@pytest.mark.parametrize(("given", "sent"), STUFFED)
def test_dots_are_doubled_however_it_is_split(given: bytes, sent: bytes) -> None:
    for pieces in splits(given):
        found = list(stuffed(fixed(pieces)))
        assert b"".join(found) == sent
        # Up to the last piece it is no message: so it is known when the far side may have it.
        assert not any(b"\r\n.\r\n" in b"\r\n" + piece for piece in found[:-1])


@pytest.mark.parametrize("message", [given for given, _ in FIXED + STUFFED])
def test_nothing_within_a_message_ends_it(message: bytes) -> None:
    for pieces in splits(message):
        sent = b"\r\n" + b"".join(stuffed(fixed(pieces)))
        assert sent.index(b"\r\n.\r\n") == len(sent) - 5
        inner = sent[:-3]
        assert inner.count(b"\n") == inner.count(b"\r\n") == inner.count(b"\r")


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("message", [given for given, _ in FIXED])
def test_the_chunk_has_the_size_that_it_says(message: bytes, is_binary: bool) -> None:
    whole = Body(b"Received: x\r\n", message, is_binary=is_binary)
    sent = b"".join(chunk(whole.survey().size, whole.pieces()))
    line, _, octets = sent.partition(b"\r\n")
    assert line == b"BDAT %d LAST" % len(octets)
    expected = b"Received: x\r\n" + message
    assert octets == (expected if is_binary else b"".join(fixed([expected])))


def test_an_empty_chunk() -> None:
    assert b"".join(chunk(0, Body(b"", b"").pieces())) == b"BDAT 0 LAST\r\n"


def test_a_large_message_is_never_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "PIECE", 100)
    message = b"".join(b".%d\r\n" % number for number in range(1_000))
    whole = Body(b"Received: x\r\n", memoryview(message))
    pieces = list(stuffed(whole.pieces()))
    assert max(map(len, pieces)) < 200
    assert b"".join(pieces) == b"Received: x\r\n" + message.replace(b".", b"..") + b".\r\n"
    assert whole.survey().size == len(message) + 13
    assert whole.survey().is_ascii
    assert not Body(b"", message + b"\xff").survey().is_ascii
