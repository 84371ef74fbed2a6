"""STARTTLS and implicit TLS as RFC 3207 asks for them, over sockets."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guerrilla.daemon import Daemon
from tests.daemons import Keeper, Make, where
from tests.pairs import Files, make_pair, unverified
from tests.wire import HELLO, TRANSACTION, Wire

Connect = Callable[..., Wire]


def encrypted(wire: Wire, *, greeted: bool = False) -> Wire:
    """The connection after its handshake."""
    return Wire(unverified().wrap_socket(wire.socket), greeted=greeted)


@pytest.fixture
def serve(make: Make, tmp_path: Path) -> Callable[..., Daemon]:
    """A daemon with these keys of `tls`, which runs."""
    files = Files(tmp_path)
    files.write(*make_pair(tmp_path, "mx.example.com"))

    def start(**tls: Any) -> Daemon:
        daemon = make(files.config(**tls))
        daemon.start()
        return daemon

    return start


Serve = Callable[..., Daemon]


def offers(wire: Wire) -> list[str]:
    """What EHLO offers."""
    wire.send(HELLO)
    lines = [wire.line()]
    while lines[-1][3:4] == "-":
        lines.append(wire.line())
    return [line[4:].split()[0] for line in lines[1:]]


def test_it_is_offered_before_tls_and_not_within(serve: Serve) -> None:
    with Wire(where(serve())[1]) as wire:
        assert "STARTTLS" in offers(wire)
        assert wire.ask(b"STARTTLS\r\n") == "220 2.0.0 Ready to start TLS"
        with encrypted(wire) as inner:
            assert "STARTTLS" not in offers(inner)
            assert inner.ask(b"STARTTLS\r\n").startswith("503 5.5.1 ")


def test_it_takes_no_argument(serve: Serve) -> None:
    with Wire(where(serve())[1]) as wire:
        wire.ask(HELLO)
        assert wire.ask(b"STARTTLS now\r\n").startswith("501 5.5.4 ")
        assert wire.ask(b"NOOP\r\n").startswith("250 ")


def test_what_was_said_before_is_forgotten(serve: Serve) -> None:
    with Wire(where(serve())[1]) as wire:
        wire.ask(HELLO)
        wire.ask(b"STARTTLS\r\n")
        with encrypted(wire) as inner:
            assert inner.ask(b"MAIL FROM:<from@example.org>\r\n").startswith("503 5.5.1 ")


def test_commands_behind_it_in_plain_text_are_never_executed(
    serve: Serve, keeper: type[Keeper]
) -> None:
    """As CVE-2011-0411: somebody on the way writes them."""
    with Wire(where(serve())[1]) as wire:
        wire.ask(HELLO)
        injected = HELLO + TRANSACTION + b"injected\r\n.\r\n"
        assert wire.ask(b"STARTTLS\r\n" + injected).startswith("220 ")
        with encrypted(wire) as inner:
            assert inner.ask(b"NOOP\r\n") == "250 2.0.0 OK"
            assert inner.deliver(b"mine").startswith("250 ")
    assert keeper.kept == [b"mine\r\n"]


def test_a_handshake_that_fails_ends_the_connection(serve: Serve) -> None:
    with Wire(where(serve())[1]) as wire:
        wire.ask(HELLO)
        wire.ask(b"STARTTLS\r\n")
        wire.send(HELLO + TRANSACTION)  # which is no handshake
        wire.socket.settimeout(30)
        octets = b""
        try:
            while more := wire.socket.recv(4096):
                octets += more
        except ConnectionResetError:
            pass
        # An alert record (RFC 8446 §5.1) may come, and nothing of SMTP.
        assert octets == b"" or octets[0] == 21


def test_tls_can_be_required(serve: Serve) -> None:
    daemon = serve(required=True)
    with Wire(where(daemon)[1]) as wire:
        wire.ask(HELLO)
        refusal = "530 5.7.0 Must issue a STARTTLS command first"
        assert wire.ask(b"MAIL FROM:<from@example.org>\r\n") == refusal
        for command in (b"NOOP\r\n", b"RSET\r\n"):
            assert wire.ask(command).startswith("250 ")
        wire.ask(b"STARTTLS\r\n")
        with encrypted(wire) as inner:
            assert inner.deliver(b"mine").startswith("250 ")


def test_implicit_tls_begins_before_the_greeting(serve: Serve, keeper: type[Keeper]) -> None:
    daemon = serve(start_tls_on=False, tls_always_on=True, required=True)
    with Wire(where(daemon)[1], greeted=False) as wire:
        inner = encrypted(wire, greeted=True)
        with inner:
            assert inner.greeting.startswith("220 mx.example.com ")
            assert "STARTTLS" not in offers(inner)
            assert inner.deliver(b"mine").startswith("250 ")
    assert keeper.kept == [b"mine\r\n"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("always", [False, True], ids=["STARTTLS", "implicit"])
def test_a_client_that_comes_back_resumes_its_session(
    serve: Serve, always: bool, version: ssl.TLSVersion
) -> None:
    """The ticket has come at the latest with the first reply, before which nobody looks for it."""
    daemon = serve(start_tls_on=not always, tls_always_on=always)
    context = unverified()
    context.maximum_version = version

    def come(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
        with Wire(where(daemon)[1], greeted=not always) as wire:
            if not always:
                wire.ask(HELLO)
                wire.ask(b"STARTTLS\r\n")
            secure = context.wrap_socket(wire.socket, session=session)
            with Wire(secure, greeted=always) as inner:
                assert inner.deliver(b"mine").startswith("250 ")
                return secure.session, secure.session_reused

    session, reused = come(None)
    assert not reused
    assert session is not None
    assert session.has_ticket
    for _ in range(2):
        assert come(session)[1]


def test_no_version_before_1_2(serve: Serve) -> None:
    """RFC 8996. The client's own lower limit is lowered as far as its library goes."""
    daemon = serve(start_tls_on=False, tls_always_on=True)
    context = unverified()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    # An alert is the server's word: the client was ready to speak it. Which one it is depends on
    # what else the old version lacks.
    refusal = pytest.raises(ssl.SSLError, match=r"alert (protocol version|handshake failure)")
    with Wire(where(daemon)[1], greeted=False) as wire, refusal:
        context.wrap_socket(wire.socket)
