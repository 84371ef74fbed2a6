"""Limits of one client address and of one connection, and the wait before the greeting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from guerrilla.daemon import Daemon
from tests.certificates import encrypted, self_signed
from tests.daemons import Keeper, Make, connect, with_header
from tests.wire import HELLO, TRANSACTION, Wire, until

MAIL: Final = b"Subject: hello\r\n\r\nbody"
OTHER: Final = "127.0.0.2"
"""An address of this machine beside 127.0.0.1."""
DELAY: Final = 0.3
"""Seconds of `greet_delay` where there is one."""

Serve = Callable[..., Daemon]


@pytest.fixture
def serve(make: Make) -> Serve:
    """A daemon with these keys of its server, which runs."""

    def start(**server: Any) -> Daemon:
        daemon = make(with_header(**server))
        daemon.start()
        return daemon

    return start


TOO_MANY = "421 4.7.0 Too many connections from your address, please try again later"
TOO_FAST = "421 4.7.0 Too many new connections from your address, please try again later"


def is_refused(wire: Wire, reply: str = TOO_MANY) -> bool:
    """Whether the connection was not for this client; if it was, it is greeted."""
    with wire:
        first = wire.reply()
        if first.startswith("220 "):
            return False
        assert first == reply
        assert wire.rest() == []
        return True


# --- An address -----------------------------------------------------------------------------------


def test_max_connections_per_ip(serve: Serve, keeper: type[Keeper]) -> None:
    daemon = serve(max_connections_per_ip=2)
    with connect(daemon) as first, connect(daemon):
        assert is_refused(connect(daemon, greeted=False))
        assert not is_refused(connect(daemon, OTHER, greeted=False))
        assert first.deliver(MAIL).startswith("250 ")  # who is in is not harmed
        assert daemon.stats()["connections_limited"] == 1
        first.reset()
        until(lambda: not is_refused(connect(daemon, greeted=False)))
    assert len(keeper.kept) == 1


def test_max_connection_rate_per_ip(serve: Serve) -> None:
    """Over a minute, whether or not the connections are still there."""
    daemon = serve(max_connection_rate_per_ip=3)
    for _ in range(3):
        with connect(daemon) as wire:
            assert wire.ask(b"QUIT\r\n").startswith("221 ")
    until(lambda: daemon.stats()["connections_open"] == 0)
    assert is_refused(connect(daemon, greeted=False), TOO_FAST)
    assert not is_refused(connect(daemon, OTHER, greeted=False))


@contextmanager
def behind_a_proxy(daemon: Daemon, address: str) -> Iterator[Wire]:
    """A client that a proxy says is at this address of IPv6."""
    with connect(daemon, greeted=False) as wire:
        wire.send(f"PROXY TCP6 {address} 2001:db8:ffff::25 4711 25\r\n".encode())
        yield wire


@pytest.mark.parametrize(
    ("prefix", "address", "refused"),
    [
        (64, "2001:db8:0:1::2", True),
        (64, "2001:db8:0:2::1", False),
        (48, "2001:db8:0:2::1", True),
        (48, "2001:db8:1:1::1", False),
        (128, "2001:db8:0:1::2", False),
        (128, "2001:db8:0:1::1", True),
    ],
)
def test_ipv6_prefix(serve: Serve, prefix: int, address: str, refused: bool) -> None:
    daemon = serve(proxy_protocol=True, max_connections_per_ip=1, ipv6_prefix=prefix)
    with behind_a_proxy(daemon, "2001:db8:0:1::1") as first:
        assert first.reply().startswith("220 ")
        with behind_a_proxy(daemon, address) as second:
            assert is_refused(second) is refused


def test_addresses_of_ipv4_are_whole_whatever_the_prefix(serve: Serve) -> None:
    daemon = serve(max_connections_per_ip=1, ipv6_prefix=1)
    with connect(daemon):
        assert not is_refused(connect(daemon, OTHER, greeted=False))
        assert is_refused(connect(daemon, greeted=False))


# --- A connection ---------------------------------------------------------------------------------


def test_max_messages(serve: Serve, keeper: type[Keeper]) -> None:
    with connect(serve(max_messages=2)) as wire:
        assert wire.deliver(MAIL).startswith("250 2.0.0 ")
        # A transaction without a message is none.
        assert wire.ask(b"MAIL FROM:<from@example.org>\r\n").startswith("250 ")
        assert wire.ask(b"RSET\r\n").startswith("250 ")
        assert wire.begin_again().ask(MAIL + b"\r\n.\r\n").startswith("250 2.0.0 ")
        assert wire.ask(b"MAIL FROM:<from@example.org>\r\n").startswith("421 4.7.0 ")
        assert wire.rest() == []
    assert len(keeper.kept) == 2


# --- greet_delay ----------------------------------------------------------------------------------


def test_a_client_that_waits_is_greeted(serve: Serve) -> None:
    daemon = serve(greet_delay=f"{DELAY}s")
    began = time.monotonic()
    with connect(daemon) as wire:
        assert wire.greeting.startswith("220 ")
        assert time.monotonic() - began >= DELAY
        assert wire.deliver(MAIL).startswith("250 ")


@pytest.mark.parametrize("talk", [HELLO + TRANSACTION, b"\r\n"], ids=["a mail", "a line end"])
def test_a_client_that_talks_first_is_refused(
    serve: Serve, keeper: type[Keeper], talk: bytes
) -> None:
    daemon = serve(greet_delay="20s", timeout="60s")
    began = time.monotonic()
    with connect(daemon, greeted=False) as wire:
        wire.send(talk)
        assert wire.rest() == ["554 5.5.1 Error: you spoke before the greeting"]
    assert time.monotonic() - began < 20  # at once
    assert daemon.stats()["early_talkers"] == 1
    assert keeper.kept == []


def test_a_proxy_header_is_no_talk(serve: Serve) -> None:
    daemon = serve(greet_delay=f"{DELAY}s", proxy_protocol=True)
    with connect(daemon, greeted=False) as wire:
        wire.send(b"PROXY UNKNOWN\r\n")
        assert wire.reply().startswith("220 ")
    with connect(daemon, greeted=False) as wire:
        wire.send(b"PROXY UNKNOWN\r\n" + HELLO)
        assert wire.reply().startswith("554 5.5.1 ")


def test_the_wait_comes_after_the_handshake(serve: Serve, tmp_path: Path) -> None:
    implicit = self_signed(tmp_path).section(start_tls_on=False, tls_always_on=True)
    daemon = serve(greet_delay=f"{DELAY}s", tls=implicit)
    with connect(daemon, greeted=False) as wire, encrypted(wire, greeted=True) as inner:
        assert inner.deliver(MAIL).startswith("250 ")
    # Time enough to speak before it is over.
    daemon = serve(greet_delay="20s", timeout="60s", tls=implicit)
    with connect(daemon, greeted=False) as wire, encrypted(wire) as inner:
        inner.send(HELLO)
        assert inner.reply().startswith("554 5.5.1 ")
