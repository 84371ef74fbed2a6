"""The PROXY protocol over sockets: whom it is believed of, what it says, and its limits."""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import pytest

from guerrilla.daemon import Daemon
from tests.certificates import encrypted, self_signed
from tests.daemons import Keeper, Make, connect, received, with_header
from tests.wire import HELLO, Wire, until

MAIL: Final = b"Subject: hello\r\n\r\nbody"
STRANGER: Final = "127.0.0.2"
"""An address of this machine that the daemons here do not trust."""
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
PROXY, LOCAL = 0x21, 0x20
"""Version 2, and its command."""
UNSPECIFIED, TCP4, TCP6 = 0x00, 0x11, 0x21
"""Family and transport."""

Serve = Callable[..., Daemon]
Header = Callable[..., bytes]


def text(source: str = "192.0.2.7", destination: str = "198.51.100.2", port: int = 4711) -> bytes:
    """A header of version 1."""
    family = ip_address(source).version
    return f"PROXY TCP{family} {source} {destination} {port} 25\r\n".encode()


def binary(source: str = "192.0.2.7", destination: str = "198.51.100.2", port: int = 4711) -> bytes:
    """A header of version 2."""
    version = ip_address(source).version
    ends = ip_address(source).packed + ip_address(destination).packed
    family = {4: TCP4, 6: TCP6}[version]
    return framed(PROXY, family, ends + struct.pack("!HH", port, 25))


def framed(command: int, family: int, payload: bytes) -> bytes:
    """Version 2, with anything in it."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(payload)) + payload


both_versions = pytest.mark.parametrize("header", [text, binary], ids=["v1", "v2"])


@pytest.fixture
def serve(make: Make) -> Serve:
    """A daemon that takes PROXY headers from 127.0.0.1, with these keys of its server."""

    def start(**server: Any) -> Daemon:
        own = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"], **server}
        daemon = make(with_header(**own))
        daemon.start()
        return daemon

    return start


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, Any]:
    """A `tls` section with STARTTLS."""
    return self_signed(tmp_path).section()


@pytest.fixture
def implicit(tmp_path: Path) -> dict[str, Any]:
    """A `tls` section with TLS at once."""
    return self_signed(tmp_path).section(start_tls_on=False, tls_always_on=True)


def silent(daemon: Daemon, source: str = "127.0.0.1") -> Wire:
    """A connection on which nothing was said."""
    return connect(daemon, source, greeted=False)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings about PROXY."""
    records = [one for one in caplog.records if one.levelno == logging.WARNING]
    return [one.getMessage() for one in records if "PROXY" in one.getMessage()]


# --- What it says ---------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize(
    ("client", "server"),
    [("192.0.2.7", "198.51.100.2"), ("2001:db8::7", "2001:db8::25")],
    ids=["IPv4", "IPv6"],
)
def test_both_ends_reach_the_envelope(
    serve: Serve, keeper: type[Keeper], header: Header, client: str, server: str
) -> None:
    with silent(serve()) as wire:
        wire.send(header(client, server) + b"NOOP\r\n")  # what follows is the client's
        assert wire.reply().startswith("220 mx.example.com ")
        assert wire.reply().startswith("250 ")
        assert wire.deliver(MAIL).startswith("250 2.0.0 ")
    [envelope] = keeper.envelopes
    assert (envelope.remote_ip, envelope.remote_port) == (client, 4711)
    assert (envelope.local_ip, envelope.local_port) == (server, 25)
    assert (envelope.remote_name, envelope.helo) == (None, "client.example.org")
    literal = f"IPv6:{client}" if ":" in client else client
    assert received(envelope).startswith(f"from client.example.org ([{literal}]) by ")


@both_versions
def test_a_header_may_come_in_pieces(serve: Serve, keeper: type[Keeper], header: Header) -> None:
    with silent(serve()) as wire:
        for octet in header():
            wire.send(bytes([octet]))
        assert wire.reply().startswith("220 ")
        assert wire.deliver(MAIL).startswith("250 ")
    assert keeper.envelopes[0].remote_ip == "192.0.2.7"


@pytest.mark.parametrize(
    "header",
    [b"PROXY UNKNOWN\r\n", framed(LOCAL, UNSPECIFIED, b""), framed(PROXY, UNSPECIFIED, b"")],
    ids=["UNKNOWN", "LOCAL", "UNSPEC"],
)
def test_a_connection_of_the_proxy_itself(
    serve: Serve, keeper: type[Keeper], header: bytes
) -> None:
    with silent(serve()) as wire:
        own_port = wire.socket.getsockname()[1]
        wire.send(header)
        assert wire.reply().startswith("220 ")
        assert wire.deliver(MAIL).startswith("250 ")
    [envelope] = keeper.envelopes
    assert (envelope.remote_ip, envelope.remote_port) == ("127.0.0.1", own_port)


def test_what_the_header_says_of_tls_is_passed_over(serve: Serve, keeper: type[Keeper]) -> None:
    """HAProxy's `send-proxy-v2-ssl` adds TLVs behind the addresses."""
    payload = binary()[16:] + b"\x20\x00\x05" + b"\x01\x00\x00\x00\x00"
    with silent(serve()) as wire:
        wire.send(framed(PROXY, TCP4, payload))
        assert wire.reply().startswith("220 ")
        assert wire.deliver(MAIL).startswith("250 ")
    assert keeper.envelopes[0].remote_ip == "192.0.2.7"


# --- Beside TLS and XCLIENT -----------------------------------------------------------------------


@both_versions
def test_it_comes_before_implicit_tls(
    serve: Serve, keeper: type[Keeper], implicit: dict[str, Any], header: Header
) -> None:
    with silent(serve(tls=implicit)) as wire:
        # In one segment with the first octets of the handshake.
        wire.socket.send(header(), socket.MSG_MORE)
        with encrypted(wire, greeted=True) as inner:
            assert inner.deliver(MAIL).startswith("250 ")
    [envelope] = keeper.envelopes
    assert envelope.remote_ip == "192.0.2.7"
    assert envelope.tls is not None


@both_versions
def test_it_comes_before_starttls(
    serve: Serve, keeper: type[Keeper], tls: dict[str, Any], header: Header
) -> None:
    with silent(serve(tls=tls)) as wire:
        wire.send(header())
        assert wire.reply().startswith("220 ")
        wire.ask(HELLO)
        assert wire.ask(b"STARTTLS\r\n").startswith("220 ")
        with encrypted(wire) as inner:
            assert inner.deliver(MAIL).startswith("250 ")
    [envelope] = keeper.envelopes
    assert envelope.remote_ip == "192.0.2.7"
    assert envelope.tls is not None


def test_xclient_may_follow(serve: Serve, keeper: type[Keeper]) -> None:
    """As of nginx with `proxy_protocol on` and `xclient on`."""
    with silent(serve(xclient_on=True)) as wire:
        wire.send(text())
        assert wire.reply().startswith("220 ")
        assert wire.ask(b"XCLIENT ADDR=192.0.2.8 NAME=spike.example.net\r\n").startswith("220 ")
        assert wire.deliver(MAIL).startswith("250 ")
    [envelope] = keeper.envelopes
    assert (envelope.remote_ip, envelope.remote_name) == ("192.0.2.8", "spike.example.net")


# --- Who is believed ------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [b"", text(), binary()], ids=["none", "v1", "v2"])
def test_a_peer_that_is_not_trusted_is_refused(serve: Serve, octets: bytes) -> None:
    with silent(serve(), STRANGER) as wire:
        if octets:
            wire.send(octets)
        assert wire.rest() == ["421 4.7.0 This port takes connections from its proxies only"]


def test_the_peer_of_a_unix_socket_is_trusted(
    serve: Serve, keeper: type[Keeper], tmp_path: Path
) -> None:
    interface = f"unix:{tmp_path}/mail.sock"
    serve(listen_interface=interface, trusted_proxies=[])
    with Wire(interface, greeted=False) as wire:
        wire.send(binary())
        assert wire.reply().startswith("220 ")
        assert wire.deliver(MAIL).startswith("250 ")
    assert keeper.envelopes[0].remote_ip == "192.0.2.7"


def test_limits_of_an_address_count_the_true_client(serve: Serve) -> None:
    daemon = serve(max_connections_per_ip=1)
    with silent(daemon) as first, silent(daemon) as other, silent(daemon) as second:
        first.send(text("192.0.2.7"))
        assert first.reply().startswith("220 ")
        other.send(text("192.0.2.8"))
        assert other.reply().startswith("220 ")
        second.send(text("192.0.2.7"))
        assert second.reply().startswith("421 4.7.0 ")
        assert second.rest() == []


def test_a_limit_of_an_address_is_worth_no_handshake(
    serve: Serve, implicit: dict[str, Any]
) -> None:
    daemon = serve(tls=implicit, max_connections_per_ip=1)
    with silent(daemon) as first, silent(daemon) as second:
        first.send(text())
        with encrypted(first, greeted=True):
            second.send(text())
            assert second.rest() == []


# --- What is no header ----------------------------------------------------------------------------

GARBAGE: Final = {
    "SMTP": HELLO,
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "short": b"PROXY TCP4 192.0.2.7\r\n",
    "no address": b"PROXY TCP4 192.0.2.256 192.0.2.2 4711 25\r\n",
    "bare LF": text().replace(b"\r", b""),
    "signature": binary().replace(b"QUIT", b"QUIP"),
    "version 3": framed(0x31, TCP4, binary()[16:]),
    "datagrams": framed(PROXY, 0x12, binary()[16:]),
    # Without an end, so that it is not the end that shows them to be bad.
    "a long line": b"PROXY TCP4 " + b"1" * 97,
    "a long payload": framed(PROXY, TCP4, b"x" * 60_000)[:16],
}


@pytest.mark.parametrize("octets", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_garbage_of_a_trusted_peer_closes_with_a_warning(
    serve: Serve,
    implicit: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    octets: bytes,
    kind: str,
) -> None:
    daemon = serve(**({"tls": implicit} if kind == "tls" else {}))
    with silent(daemon) as wire:
        wire.send(octets)
        assert wire.rest() == []
        until(lambda: warned(caplog))
    assert daemon.stats()["proxies_refused"] == 1


@pytest.mark.parametrize("begun", [b"", b"PROXY TCP4 192.", SIGNATURE], ids=["none", "v1", "v2"])
def test_a_header_that_does_not_come_is_waited_for_in_bounds(
    serve: Serve, caplog: pytest.LogCaptureFixture, begun: bytes
) -> None:
    with silent(serve(timeout="200ms")) as wire:
        wire.send(begun)
        assert wire.rest() == []
        until(lambda: warned(caplog))


def test_octets_of_a_header_do_not_extend_its_time(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with silent(serve(timeout="1s")) as wire:
        wire.socket.settimeout(0.2)
        for octet in b"PROXY TCP4 " + b"1" * 200:
            try:
                wire.send(bytes([octet]))
                assert not wire.socket.recv(1)
            except TimeoutError:
                continue  # not closed yet
            except ConnectionError:
                pass
            break
    # Without a bound of time it would be that of octets, of which one comes each 0.2 seconds.
    assert time.monotonic() - began < 15
    until(lambda: warned(caplog))
