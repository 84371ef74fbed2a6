"""`GuerrillaServer` that misbehaves: each kind at each stage, over sockets."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast, get_args

import pytest

from guerrilla import Reply
from guerrilla.testing import GuerrillaServer
from guerrilla.testing.faults import Where
from tests.certificates import encrypted, self_signed
from tests.wire import HELLO, Wire, until

STAGES: Final[dict[Where, bytes]] = {
    "connect": b"",
    "helo": HELLO,
    "mail": b"MAIL FROM:<from@example.org>\r\n",
    "rcpt": b"RCPT TO:<to@example.com>\r\n",
    "data": b"DATA\r\n",
    "message": b"Subject: hello\r\n\r\nbody\r\n.\r\n",
}
"""What a client says at each stage, in order."""

EACH: Final = pytest.mark.parametrize("at", get_args(Where))
LATER: Final = Reply.retry("4.2.0", "Later")
NEVER: Final = Reply.reject("5.2.0", "Never")
BYE: Final = Reply(421, "4.3.2", "Closing the connection")
SECONDS: Final = 0.2

Server = GuerrillaServer


def until_stage(server: Server, at: Where, client: socket.socket | None = None) -> Wire:
    """A client that has said what is answered at this stage; `client` is its socket, if any."""
    wire = Wire(client or server.port, greeted=False)
    for stage, said in STAGES.items():
        wire.send(said)
        if stage == ("message" if at == "saved" else at):
            return wire
        assert wire.reply()[:3] in {"220", "250", "354"}
    raise AssertionError(at)


def heard(server: Server, at: Where) -> str:
    """What a client hears at this stage. It may be reset before it knows that it is connected."""
    with socket.socket() as client:
        client.connect((server.host, server.port))
        return until_stage(server, at, client).line()


def finish(wire: Wire, at: Where) -> str:
    """Goes on from a stage whose reply was read; the last reply."""
    stages = list(STAGES)
    rest = stages[stages.index(at) + 1 :] if at != "saved" else []
    return [wire.ask(STAGES[stage]) for stage in rest][-1]


def is_well(server: Server) -> bool:
    """Whether a client is served as if nothing had been."""
    before = len(server.received)
    with until_stage(server, "message") as wire:
        assert wire.reply().startswith("250 ")
    return len(server.received) == before + 1


@EACH
@pytest.mark.parametrize("reply", [LATER, NEVER])
def test_a_stage_is_refused(guerrilla_server: Server, at: Where, reply: Reply) -> None:
    guerrilla_server.refuse(reply, at=at, count=1)
    with until_stage(guerrilla_server, at) as wire:
        assert wire.reply() == str(reply)
        match at:
            case "connect":
                assert wire.rest() == []
            case "helo" | "mail" | "rcpt":
                # Nothing of it was done, and it may be tried again.
                expected = {"helo": "503 ", "mail": "503 ", "rcpt": "554 "}[at]
                following = list(STAGES.values())[list(STAGES).index(at) + 1]
                assert wire.ask(following).startswith(expected)
                assert wire.ask(STAGES[at]).startswith("250 ")
                assert finish(wire, at).startswith("250 ")
            case "data":
                assert wire.ask(STAGES["data"]).startswith("503 ")
            case "message" | "saved":
                assert wire.ask(STAGES["mail"]).startswith("250 ")
    assert [len(guerrilla_server.refused), len(guerrilla_server.received)] == {
        "message": [1, 0],
        "saved": [0, 1],
        "helo": [0, 1],
        "mail": [0, 1],
        "rcpt": [0, 1],
    }.get(at, [0, 0])
    assert is_well(guerrilla_server)


@EACH
def test_a_stage_ends_the_connection_with_421(guerrilla_server: Server, at: Where) -> None:
    guerrilla_server.refuse(BYE, at=at, count=1)
    with until_stage(guerrilla_server, at) as wire:
        assert wire.rest() == [str(BYE)]
    assert is_well(guerrilla_server)


@EACH
def test_a_stage_is_late(guerrilla_server: Server, at: Where) -> None:
    guerrilla_server.delay(SECONDS, at=at, count=1)
    begun = time.monotonic()
    with until_stage(guerrilla_server, at) as wire:
        assert wire.reply()[:3] in {"220", "250", "354"}
        assert time.monotonic() - begun >= SECONDS
        if at not in {"message", "saved"}:
            assert finish(wire, at).startswith("250 ")
    assert len(guerrilla_server.received) == 1
    assert is_well(guerrilla_server)


@EACH
@pytest.mark.parametrize("reset", [False, True])
def test_a_stage_drops_the_connection_without_a_word(
    guerrilla_server: Server, at: Where, *, reset: bool
) -> None:
    guerrilla_server.drop(at=at, count=1, reset=reset)
    if reset:
        with pytest.raises(ConnectionResetError):
            heard(guerrilla_server, at)
    else:
        assert heard(guerrilla_server, at) == ""
    assert len(guerrilla_server.received) == (at == "saved")
    assert len(guerrilla_server.refused) == (at == "message")
    assert is_well(guerrilla_server)
    until(lambda: guerrilla_server.daemon.stats()["connections_open"] == 0)


@pytest.mark.parametrize("reply", [LATER, NEVER, BYE])
def test_the_first_chunk_of_a_message_is_refused_as_data_is(
    guerrilla_server: Server, reply: Reply
) -> None:
    """Its octets are no commands then; the chunks behind it are no message and no other stage."""
    guerrilla_server.refuse(reply, at="data", count=1)
    guerrilla_server.refuse(NEVER, at="message", count=1)
    with until_stage(guerrilla_server, "rcpt") as wire:
        assert wire.reply().startswith("250 ")
        wire.send(b"BDAT 6\r\nRSET\r\nBDAT 0\r\nBDAT 6 LAST\r\nQUIT\r\n")
        assert wire.reply() == str(reply)
        if reply is BYE:
            assert wire.rest() == []
        else:
            assert [wire.reply()[:3] for _ in range(2)] == ["503", "503"]
            wire.send(STAGES["mail"] + STAGES["rcpt"] + b"BDAT 1\r\na" + b"BDAT 1 LAST\r\nb")
            assert [wire.reply() for _ in range(4)][-2:] == [
                "250 2.0.0 1 octets received",
                str(NEVER),
            ]
    guerrilla_server.behave()
    assert is_well(guerrilla_server)


def test_the_first_chunk_is_late_and_so_is_an_empty_one(guerrilla_server: Server) -> None:
    guerrilla_server.delay(SECONDS, at="data", count=2)
    with until_stage(guerrilla_server, "rcpt") as wire:
        assert wire.reply().startswith("250 ")
        for sent in (b"BDAT 0 LAST\r\n", b"BDAT 2 LAST\r\nab"):
            begun = time.monotonic()
            assert wire.ask(sent).startswith("250 2.0.0 OK")
            assert time.monotonic() - begun >= SECONDS
            wire.send(STAGES["mail"] + STAGES["rcpt"])
            assert [wire.reply()[:3] for _ in range(2)] == ["250", "250"]
        # Only the first of a message is asked about.
        guerrilla_server.refuse(NEVER, at="data", count=2)
        assert wire.ask(b"BDAT 1 LAST\r\nx") == str(NEVER)
        wire.send(STAGES["mail"] + STAGES["rcpt"])
        assert [wire.reply()[:3] for _ in range(2)] == ["250", "250"]
        assert wire.ask(b"BDAT 0 LAST\r\n") == str(NEVER)
        guerrilla_server.behave()
        wire.send(STAGES["mail"] + STAGES["rcpt"] + b"BDAT 1\r\nx")
        assert [wire.reply()[:3] for _ in range(3)] == ["250", "250", "250"]
        guerrilla_server.refuse(NEVER, at="data", count=1)
        assert wire.ask(b"BDAT 1 LAST\r\nx").startswith("250 2.0.0 OK")


def test_what_was_pipelined_behind_is_not_lost_nor_answered(guerrilla_server: Server) -> None:
    guerrilla_server.delay(SECONDS, at="mail", count=1)
    guerrilla_server.refuse(LATER, at="rcpt", count=1)
    guerrilla_server.drop(at="message", count=1)
    everything = b"".join(STAGES.values())
    with Wire(guerrilla_server.port) as wire:
        wire.send(HELLO + STAGES["mail"] + STAGES["rcpt"] * 2 + STAGES["data"])
        assert wire.reply().startswith("250 ")
        assert [wire.reply()[:3] for _ in range(4)] == ["250", "451", "250", "354"]
        # What comes behind the final dot is read and thrown away: a FIN all the same.
        wire.send(STAGES["message"] + everything)
        assert wire.line() == ""


def test_faults_of_several_stages_do_not_wait_for_each_other(guerrilla_server: Server) -> None:
    guerrilla_server.refuse(NEVER, at="data", count=1)
    guerrilla_server.refuse(LATER, at="mail", count=2)
    replies = []
    for _ in range(4):
        with until_stage(guerrilla_server, "mail") as wire:
            replies.append(wire.reply()[:3])
    assert replies == ["451", "451", "250", "250"]
    with until_stage(guerrilla_server, "data") as wire:
        assert wire.reply() == str(NEVER)


def test_a_count_holds_over_connections_at_the_same_time(guerrilla_server: Server) -> None:
    guerrilla_server.refuse(LATER, at="rcpt", count=7)
    replies: list[str] = []

    def client() -> None:
        with until_stage(guerrilla_server, "rcpt") as wire:
            replies.append(wire.reply()[:3])

    threads = [threading.Thread(target=client) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replies) == ["250"] * 13 + ["451"] * 7


def test_what_comes_each_time_ends_with_good_behaviour(guerrilla_server: Server) -> None:
    for at in get_args(Where):
        guerrilla_server.refuse(NEVER, at=at)
    for _ in range(3):
        with until_stage(guerrilla_server, "connect") as wire:
            assert wire.reply() == str(NEVER)
    guerrilla_server.behave()
    assert is_well(guerrilla_server)


def test_it_also_means_sessions_that_are_open(guerrilla_server: Server) -> None:
    with until_stage(guerrilla_server, "mail") as wire:
        assert wire.reply().startswith("250 ")
        guerrilla_server.refuse(LATER, at="rcpt")
        assert wire.ask(STAGES["rcpt"]) == str(LATER)
        guerrilla_server.behave()
        assert wire.ask(STAGES["rcpt"]).startswith("250 ")


def test_what_is_asked_for_before_the_start_holds_and_ends_with_the_stop() -> None:
    server = GuerrillaServer()
    server.refuse(NEVER, at="connect")
    server.refuse(LATER, at="message")
    with server, until_stage(server, "connect") as wire:
        assert wire.reply() == str(NEVER)
    with server:
        assert is_well(server)


def test_delays_in_the_core_go_on_side_by_side(guerrilla_server: Server) -> None:
    guerrilla_server.delay(0.5, at="rcpt")

    async def client() -> bytes:
        reader, writer = await asyncio.open_connection(guerrilla_server.host, guerrilla_server.port)
        writer.write(HELLO.replace(b"EHLO", b"HELO") + STAGES["mail"] + STAGES["rcpt"])
        lines = [await reader.readline() for _ in range(4)]
        writer.close()
        return lines[-1][:4]

    async def clients() -> list[bytes]:
        return await asyncio.gather(*(client() for _ in range(30)))

    begun = time.monotonic()
    assert asyncio.run(clients()) == [b"250 "] * 30
    assert 0.5 <= time.monotonic() - begun < 12


@pytest.mark.parametrize("at", ["connect", "rcpt"])
def test_a_client_that_goes_ends_its_delay(guerrilla_server: Server, at: Where) -> None:
    guerrilla_server.delay(60, at=at)
    stats = guerrilla_server.daemon.stats
    wire = until_stage(guerrilla_server, at)
    state = "sessions_opening" if at == "connect" else "sessions_waiting"
    until(lambda: stats()[state] == 1)
    wire.reset()
    until(lambda: stats()["connections_open"] == 0)


@pytest.mark.parametrize("at", ["connect", "mail", "message"])
def test_a_stop_ends_delays(at: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guerrilla.testing.server._STOP", 15.0)
    with GuerrillaServer() as server:
        server.delay(60, at=at)
        wire = until_stage(server, at)
        state = "sessions_opening" if at == "connect" else "sessions_waiting"
        until(lambda: server.daemon.stats()[state] == 1)
        begun = time.monotonic()
    assert time.monotonic() - begun < 20
    with wire:
        assert wire.reply()[:3] in {"220", "250", "421"}


def test_it_misbehaves_within_tls(tmp_path: Path) -> None:
    pair = self_signed(tmp_path)
    with GuerrillaServer(server={"tls": pair.section(tls_always_on=True)}) as server:
        server.drop(at="connect", count=1)
        server.refuse(LATER, at="helo", count=1)
        server.drop(at="mail", count=1)
        with Wire(server.port, greeted=False) as outer, encrypted(outer) as wire:
            assert wire.line() == ""
        with (
            Wire(server.port, greeted=False) as outer,
            encrypted(outer, greeted=True) as wire,
        ):
            assert wire.ask(HELLO) == str(LATER)
            assert wire.ask(HELLO).startswith("250 ")
            assert wire.ask(STAGES["mail"]) == ""


def test_a_program_that_sends_twice_is_caught(guerrilla_server: Server) -> None:
    """The mail was taken, but its sender does not know, and has to send it again."""
    guerrilla_server.drop(at="saved", count=1)
    for _ in range(2):
        try:
            with smtplib.SMTP(guerrilla_server.host, guerrilla_server.port) as client:
                client.sendmail("a@example.org", ["b@example.com"], "Subject: once\r\n\r\n")
        except smtplib.SMTPServerDisconnected:
            continue
    assert [envelope.subject for envelope in guerrilla_server.received] == ["once", "once"]
    assert guerrilla_server.daemon.stats()["answers_lost"] == 1
    assert guerrilla_server.daemon.stats()["messages_accepted"] == 1


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s: s.refuse(LATER, at="rctp"), "at: expected one of connect, .* got 'rctp'"),
        (lambda s: s.drop(count=0), "count: expected at least 1, or None, got 0"),
        (lambda s: s.delay(-1, at="mail"), "seconds: expected a time of 0 or more, got -1"),
        (lambda s: s.delay(float("nan")), "seconds: "),
        (lambda s: s.delay(float("inf"), at="mail"), "delay: not a time in seconds: inf"),
    ],
)
def test_what_cannot_be_asked_for(
    guerrilla_server: Server, ask: Callable[[Any], None], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ask(guerrilla_server)
    assert is_well(guerrilla_server)


def test_the_core_knows_its_stages(guerrilla_server: Server) -> None:
    parts = guerrilla_server.daemon._parts
    assert parts is not None
    core = cast("Any", parts.core)
    with pytest.raises(ValueError, match="no stage: noop"):
        core.plan_fault("noop", None, 0.0, None, None)
    with pytest.raises(ValueError, match="no way to end a connection: burn"):
        core.plan_cut("id", "burn")
