"""Figures of a running daemon."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from guerrilla.daemon import Daemon
from tests.certificates import self_signed
from tests.daemons import Keeper, Make, config, connect, where
from tests.wire import HELLO, PATIENCE, TRANSACTION, Wire, until

STATES = ("opening", "handshake", "idle", "transaction", "data", "waiting", "closing")


def sessions(daemon: Daemon) -> dict[str, int]:
    """How many there are in each state that has any; they are all the connections."""
    figures = daemon.stats()
    found = {state: figures[f"sessions_{state}"] for state in STATES}
    if sum(found.values()) != figures["connections_open"]:
        return {}  # the moment between: to be looked at again
    return {state: count for state, count in found.items() if count}


def every_way_in(tmp_path: Path) -> dict[str, Any]:
    """Servers: STARTTLS; implicit TLS; behind a proxy; with a delay before the greeting."""
    pair = self_signed(tmp_path)
    raw = config(save_process="HeadersParser|Keeper", validate_process="Keeper")
    plain = raw["servers"][0]
    address = "listen_interface"
    raw["servers"] = [
        plain | {"tls": pair.section()},
        plain | {address: "127.0.0.2:0", "tls": pair.section(tls_always_on=True)},
        plain | {address: "127.0.0.3:0", "proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]},
        plain | {address: "127.0.0.4:0", "greet_delay": 25},
    ]
    return raw


def silent(daemon: Daemon, index: int) -> socket.socket:
    """A client of that server that says nothing, and hears nothing yet."""
    return socket.create_connection(where(daemon, index), PATIENCE)


def test_replies_are_counted_by_their_codes(make: Make) -> None:
    raw = config()
    raw["servers"][0]["max_clients"] = 1
    with make(raw) as daemon:
        with connect(daemon) as wire:
            assert wire.deliver(b"Subject: counted").startswith("250 ")
            assert wire.ask(b"WHAT\r\n").startswith("500 ")
            with connect(daemon, greeted=False) as refused:
                assert refused.reply().startswith("421 ")
            assert wire.ask(b"QUIT\r\n").startswith("221 ")
        figures = daemon.stats()
    found = {name: value for name, value in figures.items() if name.startswith("replies_")}
    # EHLO, MAIL, RCPT and the message.
    assert found == {
        "replies_220": 1,
        "replies_221": 1,
        "replies_250": 4,
        "replies_354": 1,
        "replies_421": 1,
        "replies_500": 1,
    }


def test_the_age_of_the_queue_is_that_of_the_oldest_mail_in_it(
    make: Make, keeper: type[Keeper]
) -> None:
    with make() as daemon, connect(daemon) as first, connect(daemon) as second:
        assert daemon.stats()["queue_age_ms"] == 0
        first.begin().send(b"Subject: hang\r\n\r\n.\r\n")
        assert keeper.entered.wait(20)
        second.begin().send(b"Subject: waits\r\n\r\n.\r\n")
        until(lambda: daemon.stats()["queue_age_ms"] > 50)
        assert daemon.stats()["queue_depth"] == 1
        keeper.release.set()
        assert second.reply().startswith("250 ")
        assert daemon.stats()["queue_age_ms"] == 0


def test_sessions_are_counted_by_what_they_wait_for(
    make: Make, keeper: type[Keeper], tmp_path: Path
) -> None:
    with make(every_way_in(tmp_path)) as daemon, ExitStack() as stack:

        def wire() -> Wire:
            return stack.enter_context(connect(daemon))

        assert sessions(daemon) == {}
        clients: list[socket.socket] = [silent(daemon, 2), silent(daemon, 3)]
        until(lambda: sessions(daemon) == {"opening": 2})
        clients.append(silent(daemon, 1))
        until(lambda: sessions(daemon) == {"opening": 2, "handshake": 1})
        starting = wire()
        starting.ask(HELLO)
        until(lambda: sessions(daemon) == {"opening": 2, "handshake": 1, "idle": 1})
        starting.ask(b"STARTTLS\r\n")
        until(lambda: sessions(daemon) == {"opening": 2, "handshake": 2})
        mailing, receiving, waiting, quitting = (wire() for _ in range(4))
        mailing.ask(HELLO)
        mailing.send(TRANSACTION.partition(b"DATA")[0])
        assert [mailing.reply()[:3] for _ in range(2)] == ["250", "250"]
        receiving.begin().send(b"Subject: half")
        waiting.begin().send(b"Subject: hang\r\n\r\n.\r\n")
        assert keeper.entered.wait(PATIENCE)
        expected = {"opening": 2, "handshake": 2, "transaction": 1, "data": 1, "waiting": 1}
        until(lambda: sessions(daemon) == expected | {"idle": 1})
        seen: list[dict[str, int]] = []

        def has_gone_on() -> bool:
            seen.append(sessions(daemon))
            return seen[-1] in (expected | {"closing": 1}, expected)

        # For a second it may read why. Who is given no core for as long misses that: once more.
        for _ in range(10):
            quitting.send(b"WHAT\r\n" * 20)  # more than max_errors
            until(has_gone_on)
            assert quitting.rest()[-1].startswith("421 ")
            if seen[-1] != expected:
                break
            quitting = wire()
        assert seen[-1] == expected | {"closing": 1}
        # A reset, a FIN, and what comes of the answer.
        mailing.reset()
        receiving.close()
        keeper.release.set()
        assert waiting.reply().startswith("250 ")
        until(lambda: sessions(daemon) == {"opening": 2, "handshake": 2, "idle": 1})
        for client in clients:
            client.close()
        stack.close()
        until(lambda: sessions(daemon) == {} and daemon.stats()["connections_open"] == 0)
        json.dumps(daemon.status())


def test_a_check_that_waits_is_counted_as_waiting(make: Make, keeper: type[Keeper]) -> None:
    class Slow(keeper):  # type: ignore[valid-type,misc]
        def validate(self, *_: object) -> None:
            self.entered.set()
            self.release.wait(PATIENCE)

    daemon = make(config(save_process="Keeper", validate_process="Slow"))
    daemon.add_processor("Slow", Slow)
    with daemon, connect(daemon) as wire:
        wire.send(HELLO + TRANSACTION)
        assert keeper.entered.wait(PATIENCE)
        until(lambda: sessions(daemon) == {"waiting": 1})
        keeper.release.set()
        until(lambda: sessions(daemon) == {"data": 1})
    assert sessions(daemon) == {}


@pytest.mark.parametrize("at", ["cut", "stopped"])
def test_a_stop_leaves_no_session_behind(make: Make, at: str, keeper: type[Keeper]) -> None:
    """Whether they end by themselves or are cut off in the middle."""
    daemon = make()
    daemon.start()
    with connect(daemon), connect(daemon) as waiting:
        waiting.begin().send(b"Subject: hang\r\n\r\n.\r\n")
        assert keeper.entered.wait(PATIENCE)
        parts = daemon._parts
        assert parts is not None
        if at == "stopped":
            keeper.release.set()
        daemon.shutdown(PATIENCE if at == "stopped" else 0)
        keeper.release.set()
        figures = parts.core.stats()
    assert {figures[f"sessions_{state}"] for state in STATES} == {0}
