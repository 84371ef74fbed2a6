"""Web servers that are away, ill, slow or endless: no mail is lost, and no worker hangs."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from guerrilla.errors import StartError
from guerrilla.reply import Reply
from guerrilla.webhook import client
from tests.services.base import free_port
from tests.services.webhook import OK, Request, Scripted, answer, answer_json
from tests.webhook.helpers import a_mail, codes, opened, post, told

Until = Callable[[Callable[[], object]], None]

JSON = "Content-Type: application/json"
ENDLESS = 64 << 20
"""Octets that no test wants to read."""


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "Server disconnected without sending a response"),
        (b"", "no answer within 5 s"),
        (b"garbage\r\n\r\n", "illegal status line"),
        (b"SSH-2.0-x\r\n\r\n", "illegal status line"),
        (b"HTTP/1.1 200 OK", "no answer within 5 s"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n", "no answer within 5 s"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "illegal status line"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "illegal header line"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * (1 << 20), "Receive buffer too long"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "no answer within 5 s"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "SWITCH_UPGRADE"),
    ],
)
def test_an_answer_that_is_none(
    said: bytes | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    mail = a_mail()
    limit = 5 if "within" in why else 20
    with Scripted(lambda _: said) as server:
        assert codes(post(server.url, mail, http_timeout=limit)) == [451]
    [line] = errors(caplog)
    assert why in line
    assert server.origin in line
    assert mail.queued_id in line
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK,
        b"HTTP/1.0 200 OK\r\n\r\nas long as it lasts",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        # The mail is saved; the rest is worth a connection at most.
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ngarbage\r\n",
        answer(200, b"", JSON),
        answer(200, b" \r\n", JSON),
        answer(200, b"{}", "Content-Type: text/plain; a=application/json"),
    ],
)
def test_an_answer_that_says_saved(said: bytes) -> None:
    with Scripted(said, closes=True) as server:
        assert codes(post(server.url, a_mail())) == [250]


@pytest.mark.parametrize(
    "said",
    [
        b'{"replies": [{"code": 250}',
        b"<b>Warning</b>: {}",
        b'{"replies": [{"code": 250}]}'.ljust((1 << 20) + 1),
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "application/problem+json; charset=utf-8"])
def test_json_that_cannot_be_read(said: bytes, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with Scripted(answer(200, said, f"Content-Type: {kind}")) as server:
        assert codes(post(server.url, a_mail())) == [451]
    [line] = errors(caplog)
    assert "JSON" in line
    assert len(line) < 600


@pytest.mark.parametrize("body", [b"", b'{"replies": [{"code": 250}]}'])
def test_json_that_ends_early(body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\n{JSON}\r\nContent-Length: {len(body) + 1}\r\n\r\n"
    with Scripted(head.encode() + body, closes=True) as server:
        assert codes(post(server.url, a_mail())) == [451]


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_an_endless_answer_is_not_read(status: int, kind: str, until: Until) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n\r\n".encode()
    with Scripted(head + bytes(ENDLESS)) as server:
        wanted = 250 if (status, kind) == (200, "text/html") else 451
        assert codes(post(server.url, a_mail())) == [wanted]
        until(lambda: server.closed == 2)  # That of the start, and this one.
        # What the sockets of both sides hold, beside what was read.
        assert server.sent < ENDLESS / 2


def test_a_slow_answer_ends_at_the_time_limit() -> None:
    """However often something comes: the limit is for all of it."""
    begin = time.monotonic()
    with Scripted(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10_000, pause=0.02) as server:
        assert codes(post(server.url, a_mail(), http_timeout=5)) == [451]
    assert time.monotonic() - begin < 15


def test_a_slow_body_keeps_no_sender_waiting() -> None:
    begin = time.monotonic()
    with Scripted(answer(200, bytes(60_000)), pause=0.02) as server:
        assert codes(post(server.url, a_mail(), http_timeout=60)) == [250]
    assert time.monotonic() - begin < 30


def test_the_time_limit_ends_with_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes behind a 200 makes nothing unsaved."""
    monkeypatch.setattr(client, "DRAIN_TIME", 4.0)
    with Scripted(answer(200, bytes(60_000)), pause=0.001) as server:
        assert codes(post(server.url, a_mail(), http_timeout=3)) == [250]


def test_a_slow_body_of_json_may_be_a_refusal() -> None:
    with Scripted(answer(200, bytes(10_000), JSON), pause=0.02) as server:
        assert codes(post(server.url, a_mail(), http_timeout=5)) == [451]


def test_a_slow_server_delays_no_other_mail() -> None:
    others = threading.Event()

    def say(request: Request) -> bytes:
        if request.json()["subject"] == "slow":
            others.wait(20)
        return OK

    slow, quick = a_mail("slow"), [a_mail() for _ in range(5)]
    with Scripted(say) as server, opened(server, http_timeout=20) as chain:
        running = threading.Thread(target=chain.run, args=([slow, *quick],))
        running.start()
        limit = time.monotonic() + 10
        while not all(mail.expired for mail in quick):
            assert time.monotonic() < limit
            time.sleep(0.005)
        assert not slow.expired
        others.set()
        running.join()
    assert slow.answered is None


# --- Connections that end ------------------------------------------------------------------------


def has_closed(server: Scripted, connections: int) -> bool:
    return server.closed == connections


def test_a_connection_that_was_closed_meanwhile_costs_nothing(until: Until) -> None:
    with Scripted(OK, closes=True) as server, opened(server) as chain:
        for turn in range(3):
            assert told(chain, a_mail()) == 250
            until(partial(has_closed, server, turn + 2))
    assert server.connections == 4


def once_in_two(request: Request, seen: dict[int, int]) -> bytes | None:
    """An answer to the first request of each connection; to the second, none."""
    seen[request.connection] = seen.get(request.connection, 0) + 1
    return OK if seen[request.connection] == 1 else None


def test_a_mail_is_posted_once_where_its_fate_is_unknown() -> None:
    seen: dict[int, int] = {}
    with (
        Scripted(lambda request: once_in_two(request, seen)) as server,
        opened(server) as chain,
    ):
        assert [told(chain, a_mail()) for _ in range(4)] == [250, 451, 250, 451]
    assert len(server.requests) == 4


@pytest.mark.parametrize("keys", [{}, {"http_format": "raw"}, {"http_batch": "batch"}])
def test_it_is_posted_again_where_the_server_keeps_ids(keys: dict[str, str]) -> None:
    seen: dict[int, int] = {}
    with (
        Scripted(lambda request: once_in_two(request, seen)) as server,
        opened(server, http_repeat=True, **keys) as chain,
    ):
        assert [told(chain, a_mail(str(number))) for number in range(4)] == [250] * 4
    bodies = [request.body for request in server.requests]
    assert len(bodies) == 7
    assert bodies[1] == bodies[2]
    assert (
        server.requests[1].headers["X-Guerrilla-Id"]
        == (server.requests[2].headers["X-Guerrilla-Id"])
    )
    assert len(set(bodies)) == 4


@pytest.mark.parametrize("said", [None, answer(500), b""])
def test_a_new_connection_that_fails_is_not_tried_again(said: bytes | None) -> None:
    with Scripted(lambda _: said) as server:
        keys = {"http_repeat": True, "http_timeout": 5}
        assert codes(post(server.url, a_mail(), **keys)) == [451]
    assert len(server.requests) == 1


def test_a_server_that_went_away_is_told_at_once_and_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Scripted(OK, port=free_port())
    with server, opened(server) as chain:
        assert told(chain, a_mail()) == 250
        server.stop()
        assert told(chain, a_mail()) == 451
        mails = [a_mail() for _ in range(50)]
        chain.run(mails)
        assert {mail.answered for mail in mails} == {Reply.retry()}
        with Scripted(OK, port=server.port):
            limit = time.monotonic() + 20
            while told(chain, a_mail()) != 250:
                assert time.monotonic() < limit
                time.sleep(0.02)
            assert told(chain, a_mail()) == 250
    assert "tried again in" in caplog.text
    assert all("HTTP unavailable: http://127.0.0.1:" in line for line in errors(caplog))


def test_a_server_that_was_away_for_hours_comes_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """More failures than there are powers of two in a float."""
    monkeypatch.setattr("guerrilla.kept.LONGEST_DELAY", 0.0)
    server = Scripted(OK, port=free_port())
    with server, opened(server) as chain:
        server.stop()
        mails = [a_mail() for _ in range(1_100)]
        for mail in mails:
            chain.run([mail])
        assert {mail.answered for mail in mails} == {Reply.retry()}
        with Scripted(OK, port=server.port):
            assert told(chain, a_mail()) == 250
    assert all("HTTP unavailable: http://127.0.0.1:" in line for line in errors(caplog))


def test_a_server_that_answers_before_it_has_heard_all() -> None:
    """As nginx does with what is over its `client_max_body_size`."""
    with Scripted(answer(413), early=True) as server:
        mail = a_mail(body=bytes(8 << 20))
        reply = codes(post(server.url, mail, http_format="raw", http_client_error="550"))
    # 451 where the reset came before the answer was read.
    assert reply in ([552], [451])


def test_a_mail_whose_sender_is_answered_is_not_posted() -> None:
    """It waited for its turn until its time limit."""
    mails = [a_mail(str(number)) for number in range(3)]

    def say(request: Request) -> bytes:
        for mail in mails[1:]:
            mail.answer(Reply.retry())
        return OK

    with Scripted(say) as server, opened(server, http_concurrency=1) as chain:
        chain.run(mails)
    assert len(server.requests) == 1


def test_nor_is_one_of_a_batch_that_was_refused() -> None:
    mails = [a_mail(str(number)) for number in range(3)]

    def say(request: Request) -> bytes:
        if len(request.json()) > 1:
            return answer(400)
        for mail in mails[1:]:
            mail.answer(Reply.retry())
        return OK

    keys = {"http_batch": "batch", "http_concurrency": 1}
    with Scripted(say) as server, opened(server, **keys) as chain:
        chain.run(mails)
    assert [len(request.json()) for request in server.requests] == [3, 1]


def test_nothing_is_saved_twice_under_all_this() -> None:
    """A server of many moods: what it said 200 to is what was answered 250."""
    saved: list[str] = []
    moods = itertools.cycle([OK, answer(503), None, OK, b"x\r\n\r\n", answer(404), answer_json({})])
    lock = threading.Lock()

    def say(request: Request) -> bytes | None:
        with lock:
            mood = next(moods)
        if mood and b" 200 " in mood:
            saved.append(request.json()["queued_id"])
        return mood

    mails = [a_mail() for _ in range(200)]
    with Scripted(say) as server:
        replies = post(server.url, *mails, http_timeout=30, http_concurrency=8)
    accepted = [
        mail.queued_id for mail, reply in zip(mails, replies, strict=True) if reply.code == 250
    ]
    assert sorted(accepted) == sorted(saved)
    assert 50 < len(saved) < 150


def test_a_server_that_is_away_stops_the_start() -> None:
    port = free_port()
    with pytest.raises(StartError) as error, opened(f"http://u:hidden@127.0.0.1:{port}/a"):
        pass
    text = str(error.value)
    assert text.startswith(f"backend_config.http_url: http://127.0.0.1:{port}: cannot connect: ")
    assert "hidden" not in text
