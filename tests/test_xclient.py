"""XCLIENT over sockets: who may say it, and what of it the envelope and `Received:` have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from guerrilla._core import Envelope
from guerrilla.daemon import Daemon
from tests.certificates import encrypted, self_signed
from tests.daemons import Keeper, Make, connect, received, with_header
from tests.wire import HELLO, Wire

MAIL: Final = b"Subject: hello\r\n\r\nbody"
STRANGER: Final = "127.0.0.2"
"""An address of this machine that the daemons here do not trust."""

Serve = Callable[..., Daemon]


@pytest.fixture
def serve(make: Make) -> Serve:
    """A daemon that takes XCLIENT from 127.0.0.1, with these keys of its server, which runs."""

    def start(**server: Any) -> Daemon:
        own = {"xclient_on": True, "trusted_proxies": ["127.0.0.1"], **server}
        daemon = make(with_header(**own))
        daemon.start()
        return daemon

    return start


def delivered(wire: Wire, keeper: type[Keeper]) -> Envelope:
    """The envelope of a mail that is sent on this connection."""
    assert wire.begin_again().ask(MAIL + b"\r\n.\r\n").startswith("250 2.0.0 ")
    return keeper.envelopes[-1]


def test_every_attribute_reaches_the_envelope_and_received(
    serve: Serve, keeper: type[Keeper]
) -> None:
    with connect(serve()) as wire:
        wire.ask(HELLO)
        assert wire.ask(
            b"XCLIENT NAME=spike.example.net ADDR=192.0.2.7 PORT=4711 PROTO=ESMTP "
            b"HELO=spike DESTADDR=198.51.100.2 DESTPORT=25\r\n"
        ).startswith("220 mx.example.com ")
        # HELO was said for it.
        envelope = delivered(wire, keeper)
    assert (envelope.remote_name, envelope.remote_ip) == ("spike.example.net", "192.0.2.7")
    assert envelope.remote_port == 4711
    assert (envelope.local_ip, envelope.local_port) == ("198.51.100.2", 25)
    assert (envelope.helo, envelope.esmtp) == ("spike", True)
    assert received(envelope).startswith(
        "from spike (spike.example.net [192.0.2.7]) by mx.example.com with ESMTP id "
    )


def test_smtp_ipv6_and_what_is_not_known(serve: Serve, keeper: type[Keeper]) -> None:
    with connect(serve()) as wire:
        said = b"XCLIENT NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::7 PROTO=SMTP HELO=a+2Bb\r\n"
        assert wire.ask(said).startswith("220 ")
        envelope = delivered(wire, keeper)
    assert (envelope.remote_name, envelope.remote_ip) == (None, "2001:db8::7")
    assert (envelope.helo, envelope.esmtp) == ("a+b", False)
    assert received(envelope).startswith(
        "from a+b ([IPv6:2001:db8::7]) by mx.example.com with SMTP id "
    )


def test_the_login_of_the_client_is_on_the_envelope(serve: Serve, keeper: type[Keeper]) -> None:
    with connect(serve()) as wire:
        assert wire.ask(b"XCLIENT LOGIN=alice ADDR=192.0.2.7\r\n").startswith("220 ")
        wire.ask(HELLO)
        assert delivered(wire, keeper).auth == "alice"


def test_the_session_begins_anew(serve: Serve, keeper: type[Keeper]) -> None:
    """What the proxy said of itself is not the client's."""
    with connect(serve()) as wire:
        wire.ask(b"EHLO proxy.example.com\r\n")
        assert wire.ask(b"XCLIENT ADDR=192.0.2.7\r\n").startswith("220 ")
        assert wire.ask(b"MAIL FROM:<from@example.org>\r\n").startswith("503 5.5.1 ")
        wire.ask(HELLO)
        envelope = delivered(wire, keeper)
    assert (envelope.helo, envelope.remote_ip) == ("client.example.org", "192.0.2.7")


def test_it_is_for_trusted_peers_alone(serve: Serve, keeper: type[Keeper]) -> None:
    daemon = serve()
    with connect(daemon) as trusted:
        trusted.send(HELLO)
        assert [line for line in trusted.lines() if line[4:].startswith("XCLIENT ")]
    with connect(daemon, STRANGER) as wire:
        wire.send(HELLO)
        assert not [line for line in wire.lines() if "XCLIENT" in line]
        assert wire.ask(b"XCLIENT ADDR=192.0.2.7 NAME=bank.example\r\n").startswith("550 5.7.0 ")
        envelope = delivered(wire, keeper)
    assert (envelope.remote_ip, envelope.remote_name) == (STRANGER, None)


def test_a_client_that_was_named_is_not_trusted_by_it(serve: Serve) -> None:
    """Trust is asked of the socket's address, not of what anybody said."""
    with connect(serve(), STRANGER) as wire:
        assert wire.ask(b"XCLIENT ADDR=127.0.0.1\r\n").startswith("550 5.7.0 ")
        assert wire.ask(b"XCLIENT ADDR=192.0.2.7\r\n").startswith("550 5.7.0 ")


def test_it_is_no_command_where_it_is_off(serve: Serve) -> None:
    with connect(serve(xclient_on=False)) as wire:
        wire.send(HELLO)
        assert not [line for line in wire.lines() if "XCLIENT" in line]
        assert wire.ask(b"XCLIENT ADDR=192.0.2.7\r\n").startswith("500 5.5.1 ")


def test_the_peer_of_a_unix_socket_is_trusted(
    serve: Serve, keeper: type[Keeper], tmp_path: Path
) -> None:
    interface = f"unix:{tmp_path}/mail.sock"
    serve(listen_interface=interface, trusted_proxies=[])
    with Wire(interface) as wire:
        assert wire.ask(b"XCLIENT ADDR=192.0.2.7 PORT=4711\r\n").startswith("220 ")
        wire.ask(HELLO)
        envelope = delivered(wire, keeper)
    assert (envelope.remote_ip, envelope.remote_port) == ("192.0.2.7", 4711)


def test_limits_of_an_address_count_the_true_client(serve: Serve) -> None:
    daemon = serve(max_connections_per_ip=1)
    with connect(daemon) as first, connect(daemon) as second, connect(daemon) as third:
        assert first.ask(b"XCLIENT ADDR=192.0.2.7\r\n").startswith("220 ")
        assert second.ask(b"XCLIENT ADDR=192.0.2.8\r\n").startswith("220 ")
        assert third.ask(b"XCLIENT ADDR=192.0.2.7\r\n").startswith("421 4.7.0 ")
        assert third.rest() == []


def test_it_stands_within_starttls(serve: Serve, keeper: type[Keeper], tmp_path: Path) -> None:
    """A proxy may encrypt its own connection; what it says holds after the handshake too."""
    with connect(serve(tls=self_signed(tmp_path).section())) as wire:
        assert wire.ask(b"XCLIENT ADDR=192.0.2.7\r\n").startswith("220 ")
        wire.ask(HELLO)
        assert wire.ask(b"STARTTLS\r\n").startswith("220 ")
        with encrypted(wire) as inner:
            inner.ask(HELLO)
            envelope = delivered(inner, keeper)
    assert envelope.remote_ip == "192.0.2.7"
    assert envelope.tls is not None
