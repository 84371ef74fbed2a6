"""FastCGI without a socket: records, forms, responses."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerrilla.fcgi.form import encode, form
from guerrilla.fcgi.records import (
    BLOCK,
    CONTENT_LIMIT,
    ERRORS_LIMIT,
    OUTPUT_LIMIT,
    Answer,
    AnswerReader,
    ProtocolError,
    request,
)
from guerrilla.fcgi.response import UnclearError, parse
from tests.fastcgi.peers import (
    BEGIN,
    PARAMS,
    STDERR,
    STDIN,
    STDOUT,
    answer,
    asked,
    end,
    record,
)

ESCAPED = re.compile(rb"(?:[A-Za-z0-9._*+-]|%[0-9A-Fa-f]{2})*")


def read(stream: bytes, step: int | None = None) -> Answer | None:
    """What a reader makes of a stream that comes in such pieces."""
    reader = AnswerReader()
    step = step or max(1, len(stream))
    found = None
    for start in range(0, len(stream), step):
        assert found is None
        found = reader.feed(stream[start : start + step])
    return found


# --- Forms ---------------------------------------------------------------------------------------


@given(st.one_of(st.binary(max_size=300), st.text("ab %+&=;é\r\n", max_size=300).map(str.encode)))
def test_any_octets_come_back_from_a_form(octets: bytes) -> None:
    text = encode(octets)
    assert ESCAPED.fullmatch(text)
    assert len(text) <= 3 * len(octets)
    found = parse_qs(
        form({"a": "1", "body": octets, "b": "é"}).decode("ascii"),
        keep_blank_values=True,
        encoding="latin-1",
    )
    assert found["body"] == [octets.decode("latin-1")]
    assert (found["a"], found["b"]) == (["1"], ["Ã©"])


def test_every_octet_is_escaped_in_text_and_in_binary() -> None:
    for code in range(256):
        one = bytes((code,))
        for octets in (one, b"text text " * 3 + one, one * 50):
            text = encode(octets)
            assert ESCAPED.fullmatch(text)
            assert unquote_to_bytes(text.replace(b"+", b" ")) == octets


def test_text_grows_little() -> None:
    assert len(encode(b"QUJD" * 1_000)) == 4_000
    assert len(encode(b"a line of words\r\n" * 100)) < 1.3 * 1_700


# --- Requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [0, 1, 127, CONTENT_LIMIT, CONTENT_LIMIT + 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7]
)
def test_a_request_is_whole_however_large(size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    params = {"SHORT": "y", "LONG": "z" * 200, "N" * 130: "", "UTF": "é", "LIMIT": "a" * 127}
    blocks = list(request(params, content))
    assert max(map(len, blocks)) < BLOCK + 2 * CONTENT_LIMIT
    found = asked(b"".join(blocks))
    assert (found.params, found.content) == (params, content)
    parts = -(-size // CONTENT_LIMIT)
    assert found.kinds == [BEGIN, PARAMS, PARAMS, *[STDIN] * (parts + 1)]


# --- Answers -------------------------------------------------------------------------------------

STREAM = (
    record(STDERR, b"one ")
    + record(STDOUT, b"Status: 200\r\n", padding=3)
    + record(9, b"about the server", number=0)
    + record(STDOUT, b"\r\nSAVED", padding=255)
    + record(STDERR, b"two")
    + record(STDERR)
    + record(STDOUT)
    + end(exit_status=7)
)


@pytest.mark.parametrize("step", [1, 2, 7, 8, 9, 50, 300, 10_000])
def test_an_answer_is_the_same_however_it_is_split(step: int) -> None:
    assert read(STREAM, step) == Answer(b"Status: 200\r\n\r\nSAVED", b"one two", 7)


def test_an_answer_without_its_end_is_none() -> None:
    for length in range(len(STREAM)):
        assert read(STREAM[:length]) is None


def test_what_is_over_the_limits_is_dropped() -> None:
    many = record(STDOUT, b"o" * 60_000) * 3 + record(STDERR, b"e" * 60_000) * 3
    found = read(many + end())
    assert found == Answer(b"o" * OUTPUT_LIMIT, b"e" * ERRORS_LIMIT, 0)


def test_what_comes_after_the_end_is_noticed() -> None:
    reader = AnswerReader()
    assert reader.feed(answer(b"x")) is not None
    assert not reader.has_more
    reader = AnswerReader()
    assert reader.feed(answer(b"x") + b"\x01") is not None
    assert reader.has_more


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", r"this is not FastCGI: b'HTTP/1.1"),
        (b"220 mx.example.com ESMTP\r\n", "this is not FastCGI"),
        (b"\x00" * 8, "this is not FastCGI"),
        (b"\x02" + record(STDOUT)[1:], "this is not FastCGI"),
        (record(STDOUT, b"x", number=2), "this is not FastCGI"),
        (record(STDIN, b"x"), "a record of type 5 is no answer"),
        (record(77), "a record of type 77 is no answer"),
        (record(3, b"abc"), "a record of type 3 is no answer"),
        (end(1), "the request was refused: it cannot multiplex"),
        (end(2), "the request was refused: it is overloaded"),
        (end(3), "the request was refused: it has no responder role"),
        (end(9), "the request was refused: status 9"),
    ],
)
@pytest.mark.parametrize("step", [1, 100])
def test_what_is_no_answer_is_told(stream: bytes, error: str, step: int) -> None:
    with pytest.raises(ProtocolError, match=error):
        read(stream, step)


@given(st.binary(max_size=2_000))
def test_no_octets_break_the_reader(octets: bytes) -> None:
    """They are an answer, part of one, or an error of the protocol."""
    try:
        found = read(octets)
    except ProtocolError:
        return
    assert found is None or isinstance(found, Answer)


# --- Responses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "status", "body"),
    [
        (b"X: y\r\n\r\nSAVED", 200, b"SAVED"),
        (b"X: y\n\nSAVED\r\n\r\nmore", 200, b"SAVED\r\n\r\nmore"),
        (b"Status: 500 Internal Server Error\r\nX: y\r\n\r\n", 500, b""),
        (b"X: y\r\nstatus:404\r\n\r\nno", 404, b"no"),
        (b"X: y\r\n\r\nStatus: 500 is what I say", 200, b"Status: 500 is what I say"),
    ],
)
def test_a_response_has_a_header_section(output: bytes, status: int, body: bytes) -> None:
    found = parse(Answer(output, b"", 0))
    assert (found.status, found.body) == (status, body)


@pytest.mark.parametrize(
    "found", [Answer(b"SAVED", b"", 0), Answer(b"", b"", 0), Answer(b"X: y\r\n\r\nSAVED", b"", 1)]
)
def test_what_is_no_response_is_unclear(found: Answer) -> None:
    with pytest.raises(UnclearError):
        parse(found)
