"""A load against servers that refuse, reset, stall or talk nonsense: counted, and no hang."""

from __future__ import annotations

import socket
import time
from itertools import count

import pytest

from tests.bench.peers import (
    Answer,
    Bench,
    closes,
    errors,
    hangs,
    refusals,
    resets,
    serving,
    session,
    stalls,
)

SOME = ("--messages", 6, "--connections", 2)
SIX = ("--messages", 6, "--connections", 6)
IMPATIENT = (*SIX, "--timeout", "4s")
"""Each connection waits once, all at the same time; what does not stall has time enough."""


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_nobody_listens(bench: Bench) -> None:
    status, told = bench.json("--target", free_address(), *SOME)
    assert (status, told["ended"]) == (1, "unopened")
    assert errors(told) == {("refused", "connect"): 2}
    assert told["messages"] == dict.fromkeys(told["messages"], 0)
    assert "refused" in told["errors"][0]["text"].lower()


def test_a_socket_file_that_is_not_there(bench: Bench) -> None:
    status, told = bench.json("--target", "unix:/nonexistent/socket", *SOME)
    assert (status, errors(told)) == (1, {("unreachable", "connect"): 2})


@pytest.mark.parametrize(
    ("verb", "at"),
    [("CONNECT", "greeting"), ("EHLO", "helo")],
)
@pytest.mark.parametrize(
    ("answer", "kind"), [(closes, "closed"), (resets, "reset"), (stalls, "stalled")]
)
def test_before_a_message_can_be_sent(
    verb: str, at: str, answer: Answer, kind: str, bench: Bench
) -> None:
    with serving(session({verb: answer})) as address:
        status, told = bench.json("--target", address, *(IMPATIENT if kind == "stalled" else SIX))
    assert (status, told["ended"]) == (1, "unopened")
    # A reset may be there before the connection is said to be.
    places = {at, "connect"} if (kind, at) == ("reset", "greeting") else {at}
    found = errors(told)
    assert sum(found.pop((kind, place), 0) for place in places) == 6
    assert found == {}


@pytest.mark.parametrize(
    ("verb", "at"),
    [("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data"), (".", "message")],
)
@pytest.mark.parametrize(
    ("answer", "kind"), [(closes, "closed"), (resets, "reset"), (stalls, "stalled")]
)
def test_in_the_middle_of_a_message(
    verb: str, at: str, answer: Answer, kind: str, bench: Bench
) -> None:
    """Each message has a connection of its own then, and each of them fails."""
    with serving(session({verb: answer})) as address:
        status, told = bench.json("--target", address, *(IMPATIENT if kind == "stalled" else SIX))
    assert (status, told["ended"]) == (1, "done")
    assert told["messages"]["failed"] == 6
    assert errors(told) == {(kind, at): 6}
    assert told["connections_made"] >= 6


def test_a_reset_while_the_message_is_written(bench: Bench) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"220 ready\r\n")
        for answer in (b"250 a\r\n", b"250 b\r\n", b"250 c\r\n", b"354 go\r\n"):
            connection.recv(1_024)
            connection.sendall(answer)
        connection.recv(1_000)
        resets(connection)

    with serving(serve) as address:
        status, told = bench.json("--target", address, *SOME, "--size", "8m")
    assert status == 1
    assert errors(told) == {("reset", "message"): 6}


def test_one_that_never_reads(bench: Bench) -> None:
    """The write waits as long as a reply would be waited for."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"220 a\r\n250 b\r\n250 c\r\n250 d\r\n354 e\r\n")
        hangs(connection)

    with serving(serve) as address:
        status, told = bench.json("--target", address, *IMPATIENT, "--size", "16m")
    assert status == 1
    assert errors(told) == {("stalled", "message"): 6}


def test_a_reply_that_drips(bench: Bench) -> None:
    """An octet now and then makes nothing longer."""

    def drips(connection: socket.socket) -> None:
        for octet in count():
            connection.sendall(bytes([b"250-slow "[octet % 9]]))
            time.sleep(0.05)

    with serving(session({"MAIL": drips})) as address:
        status, told = bench.json("--target", address, *IMPATIENT)
    assert (status, errors(told)) == (1, {("stalled", "mail"): 6})


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("HTTP/1.1 400 Bad Request\r\n", "a line that is no reply"),
        ("\xff\xfe\x00\x80" * 20 + "\r\n", "a line that is no reply"),
        ("250-" + "x" * 5_000, "a reply line of more than 2048 octets"),
        ("250-more\r\n" * 1_000, "a reply of more than 256 lines"),
        ("250-a\r\n550 b\r\n", "a reply with different codes"),
        ("354 go\r\n", "a reply that has no place there: 354"),
    ],
)
def test_what_is_no_reply(answer: str, text: str, bench: Bench) -> None:
    with serving(session({"MAIL": answer})) as address:
        status, told = bench.json("--target", address, *SOME)
    assert status == 1
    [error] = told["errors"]
    assert (error["kind"], error["at"], error["count"]) == ("protocol", "mail", 6)
    assert error["text"] == text


@pytest.mark.parametrize(
    ("verb", "at"), [("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data"), (".", "message")]
)
@pytest.mark.parametrize("code", [452, 554])
@pytest.mark.parametrize("how", [(), ("--pipelining",)])
def test_refusals(verb: str, at: str, code: int, how: tuple[str, ...], bench: Bench) -> None:
    """They are no errors, and the connection goes on."""
    answers = {verb: f"{code} 1.2.3 no\r\n", "EHLO": "250 PIPELINING\r\n"}
    with serving(session(answers)) as address:
        status, told = bench.json("--target", address, *SOME, *how)
    assert (status, told["ended"]) == (1, "done")
    assert told["messages"]["refused"] == 6
    assert (told["errors"], refusals(told)) == ([], {(code, at): 6})
    assert told["refusals"][0]["text"] == "1.2.3 no"
    assert told["connections_made"] == 2


def test_a_server_that_closes_after_each_message(bench: Bench) -> None:
    """With 421, as it may; it refuses the message that would have come next."""
    answers: dict[str, Answer] = {".": "250 OK\r\n421 4.3.2 that was enough\r\n"}
    with serving(session(answers)) as address:
        status, told = bench.json("--target", address, *SOME, "--per-connection", 1)
    assert (status, told["messages"]["accepted"]) == (0, 6)
    with serving(session(answers)) as address:
        status, told = bench.json("--target", address, *SOME)
    assert status == 1
    assert refusals(told) == {(421, "mail"): told["messages"]["refused"]}
    assert told["messages"]["accepted"] + told["messages"]["refused"] == 6


@pytest.mark.parametrize(("answer", "code"), [("554 go away\r\n", 554), ("421 later\r\n", 421)])
def test_a_greeting_that_refuses(answer: str, code: int, bench: Bench) -> None:
    with serving(session({"CONNECT": answer})) as address:
        status, told = bench.json("--target", address, *SOME)
    assert (status, told["ended"]) == (1, "unopened")
    assert refusals(told) == {(code, "greeting"): 2}


def test_one_that_takes_no_second_connection_is_given_up(bench: Bench) -> None:
    """After some tries, long before the time is over; what it has taken is told."""
    numbers = count()

    def serve(connection: socket.socket) -> None:
        if next(numbers):
            connection.sendall(b"421 4.3.2 not again\r\n")
        else:
            session({})(connection)

    with serving(serve) as address:
        words = ("--connections", 1, "--messages", 100, "--per-connection", 2)
        status, told = bench.json("--target", address, *words)
    assert (status, told["ended"]) == (1, "gave-up")
    assert told["messages"]["accepted"] == 2
    assert refusals(told) == {(421, "greeting"): 6}


def test_starttls_that_is_not_offered(bench: Bench) -> None:
    with serving(session({})) as address:
        status, told = bench.json("--target", address, *SOME, "--tls")
    assert (status, errors(told)) == (1, {("no-starttls", "helo"): 2})


def test_a_handshake_that_is_none(bench: Bench) -> None:
    answers: dict[str, Answer] = {"EHLO": "250 STARTTLS\r\n", "STARTTLS": "220 go\r\n"}
    with serving(session(answers)) as address:
        status, told = bench.json("--target", address, *SOME, "--tls", "implicit")
        assert (status, errors(told)) == (1, {("tls", "tls"): 2})
        status, told = bench.json("--target", address, *IMPATIENT, "--tls")
        assert status == 1
        assert {at for _, at in errors(told)} == {"tls"}


def test_a_server_that_stalls_ends_with_the_duration(bench: Bench) -> None:
    """Whatever the time limit of a reply is, the run has an end of its own."""
    with serving(session({".": stalls})) as address:
        words = ("--duration", "300ms", "--timeout", "4s", "--connections", 3)
        began = time.monotonic()
        status, told = bench.json("--target", address, *words)
    assert (status, told["ended"]) == (1, "duration")
    assert errors(told) == {("stalled", "message"): 3}
    assert time.monotonic() - began < 20


def test_what_a_server_says_cannot_move_the_cursor(bench: Bench) -> None:
    with serving(session({"MAIL": "550 \x1b[2J\x07evil\r\n"})) as address:
        _, out, _ = bench("--target", address, *SOME)
    assert "550 at mail: 6 (\\x1b[2J\\x07evil)" in out
    assert "\x1b" not in out
