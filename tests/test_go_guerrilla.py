"""What Go-Guerrilla's own tests and faults are about, where no other test here shows it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from guerrilla._core import Check, Envelope
from guerrilla.config import AppConfig, from_mapping
from guerrilla.daemon import Daemon
from guerrilla.errors import StartError
from guerrilla.events import Event
from guerrilla.reply import Outcome, Reply
from tests.daemons import Keeper, Make, config, connect, send, with_header
from tests.wire import HELLO, TRANSACTION, Wire

# --- As a package ---------------------------------------------------------------------------------


def test_handlers_come_and_go_before_the_start_and_after_it(make: Make, tmp_path: Path) -> None:
    daemon = make()
    heard: list[str] = []

    def on_pid_file(change: Any) -> None:
        heard.append(change.new.pid_file)
        daemon.unsubscribe(Event.PID_FILE, on_pid_file)  # as Go-Guerrilla's own test does

    def move(name: str) -> None:
        new = from_mapping({**config(), "pid_file": str(tmp_path / name)})
        assert daemon.reload_config(new).ok

    daemon.subscribe(Event.PID_FILE, on_pid_file)
    with daemon:
        move("one")
        move("two")
        assert heard == [str(tmp_path / "one")]
        daemon.subscribe("config_change:pid_file", on_pid_file)
        move("three")
        assert heard[1:] == [str(tmp_path / "three")]
        daemon.subscribe("weather:rain", heard.append)
        daemon.publish("weather:rain", "wet")
        assert heard[2:] == ["wet"]


def test_the_logger_is_that_of_every_record(
    make: Make, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """So a program's own records go where those of the daemon do."""
    path = tmp_path / "main.log"
    with make(log_file=str(path), log_level="info") as daemon, caplog.at_level(logging.INFO):
        daemon.logger.info("from the program")
        daemon.logger.getChild("program").warning("from a part of it")
    assert {record.name.split(".")[0] for record in caplog.records} == {daemon.logger.name}
    lines = path.read_text().splitlines()
    assert [line for line in lines if line.endswith("from the program")]
    assert [line for line in lines if line.endswith("guerrilla.program from a part of it")]


def test_a_start_reports_every_server_that_cannot_start_and_leaves_none(make: Make) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        taken = [f"127.0.0.1:{server.getsockname()[1]}" for server in (one, two)]
        raw = config()
        raw["servers"] += [{"listen_interface": name} for name in taken]
        daemon = make(raw)
        with pytest.raises(StartError) as caught:
            daemon.start()
        assert [line.partition(": ")[0] for line in caught.value.problems] == [
            "servers[1].listen_interface",
            "servers[2].listen_interface",
        ]
        assert daemon.addresses == []


class Whole:
    """A backend that stands in place of the gateway, the chains and all their keys."""

    saved: list[Envelope]

    def open(self) -> None: ...

    def close(self) -> None: ...

    def save_batch(self, envelopes: Sequence[Envelope]) -> Sequence[Outcome]:
        self.saved += envelopes
        return [Reply.ok("as I like") for _ in envelopes]

    def validate_batch(self, checks: Sequence[Check]) -> Sequence[Reply | None]:
        return [None] * len(checks)


def test_a_custom_backend_stays_over_a_reload(caplog: pytest.LogCaptureFixture) -> None:
    kept: list[Envelope] = []

    class Own(Whole):
        saved = kept

    daemon = Daemon(from_mapping(config(validate_process="Wildcard")), backend=Own)
    with caplog.at_level(logging.INFO), daemon:
        assert "started with the backend Own" in caplog.messages
        status = daemon.status()
        assert (status["backend"], "chain" in status) == ("Own", False)
        # Nobody is asked by the chains of the config, so they are not shown.
        chains = {"save_process": "", "validate_process": "", "auth_process": ""}
        assert status["validate_process"] == ""
        assert status["backends"] == {"default": chains}
        assert send(daemon) == (250, b"2.0.0 as I like")
        assert daemon.reload_config(from_mapping(config(save_workers_size=3))).ok
        assert send(daemon) == (250, b"2.0.0 as I like")
    assert len(kept) == 2


def test_a_config_that_is_not_set_is_go_guerrillas() -> None:
    daemon = Daemon()
    assert daemon.config == AppConfig.default()
    assert [server.listen_interface for server in daemon.config.servers] == ["127.0.0.1:2525"]


def test_a_server_that_does_not_say_so_is_enabled() -> None:
    """In Go a flag that is not there is false; here nobody means that by it."""
    raw = {"servers": [{"listen_interface": "127.0.0.1:25"}]}
    assert from_mapping(raw).servers[0].is_enabled


# --- Faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4_095, 4_097, 200_000])
def test_a_large_header_section_is_parsed(make: Make, keeper: type[Keeper], size: int) -> None:
    """There one over 4 KiB had no headers and no subject."""
    filler = b"".join(b"X-Filler: %070d\r\n" % number for number in range(size // 82 + 1))[:size]
    message = filler.rpartition(b"\r\n")[0] + b"\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\n\r\nbody"
    with make() as daemon, connect(daemon) as wire:
        assert wire.deliver(message).startswith("250 ")
    (envelope,) = keeper.envelopes
    assert envelope.subject == "café"
    assert len(envelope.header.get_all("x-filler")) > size // 100


@pytest.mark.parametrize("end", [b"", b"RSET\r\nQUIT\r\n"], ids=["gone", "reset"])
def test_nothing_of_one_client_reaches_the_next(
    make: Make, keeper: type[Keeper], end: bytes
) -> None:
    """There a pooled envelope kept the last client's mail, and the next one's took it along."""
    secret = b"MAIL FROM:<secret@example.org>\r\nRCPT TO:<secret@example.com>\r\n"
    with make() as daemon:
        for _ in range(20):
            with connect(daemon) as first:
                first.send(b"EHLO secret.example.org\r\n" + secret)
                if not end:
                    first.send(b"DATA\r\nSubject: secret\r\n\r\nsecret\r\n")
                first.send(end)
                first.finish_sending()
                first.rest()
            with connect(daemon) as second:
                assert second.ask(b"DATA\r\n").startswith("503 ")
                assert second.ask(b"RCPT TO:<to@example.com>\r\n").startswith("503 ")
                second.send(HELLO)
                second.lines()
                assert second.ask(b"DATA\r\n").startswith("503 ")
                second.send(TRANSACTION)
                assert [second.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
                assert second.ask(b".\r\n").startswith("250 ")
    assert len(keeper.envelopes) == 20
    for envelope in keeper.envelopes:
        assert (bytes(envelope.data), envelope.subject) == (b"", "")
        assert envelope.helo == "client.example.org"
        assert str(envelope.mail_from) == "from@example.org"
        assert [str(address) for address in envelope.rcpt_to] == ["to@example.com"]
        assert b"secret" not in envelope.to_bytes()


def test_hashes_and_headers_of_recipients_are_their_own(make: Make, keeper: type[Keeper]) -> None:
    """There the state of the hash was shared, and the second recipient got headers alone."""
    raw = with_header()
    raw["backend_config"]["save_process"] = "HeadersParser|Hasher|Header|Keeper"
    with make(raw) as daemon, connect(daemon) as wire:
        wire.send(HELLO + b"MAIL FROM:<from@example.org>\r\n")
        wire.send(b"".join(b"RCPT TO:<to%d@example.com>\r\n" % number for number in range(5)))
        wire.send(b"DATA\r\n")
        assert [wire.reply()[:3] for _ in range(8)] == ["250"] * 7 + ["354"]
        assert wire.ask(b"Subject: hello\r\n\r\nbody\r\n.\r\n").startswith("250 ")
    (envelope,) = keeper.envelopes
    assert len(set(envelope.hashes)) == len(envelope.hashes) == 5
    for number in range(5):
        header = envelope.delivery_header_for(number)
        assert b"Delivered-To: to%d@" % number in header
        assert header.count(b"Delivered-To: ") == 1
    assert bytes(envelope).endswith(b"Subject: hello\r\n\r\nbody\r\n")


def test_a_full_server_still_accepts_who_comes_and_tells_them(make: Make) -> None:
    """There the accept loop waited for a free place, and nobody heard a word."""
    raw = config()
    raw["servers"][0]["max_clients"] = 2
    with make(raw) as daemon, connect(daemon) as one, connect(daemon) as two:
        for _ in range(20):
            with Wire(daemon.addresses[0], greeted=False) as more:
                assert more.rest() == ["421 4.7.0 Too many connections, please try again later"]
        for wire in (one, two):
            assert wire.deliver(b"Subject: here").startswith("250 ")
