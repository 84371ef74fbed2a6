"""STARTTLS and implicit TLS as RFC 3207 asks for them, over sockets."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guerrilla.daemon import Daemon
from tests.certificates import encrypted, self_signed, unverified
from tests.daemons import Keeper, Make, connect, received, where, with_header
from tests.wire import GONE, HELLO, TRANSACTION, Wire, until


@pytest.fixture
def serve(make: Make, tmp_path: Path) -> Callable[..., Daemon]:
    """A daemon with these keys of `tls`, and of its server, which runs."""
    pair = self_signed(tmp_path)

    def start(server: dict[str, Any] | None = None, **tls: Any) -> Daemon:
        raw = pair.config(**tls)
        raw["servers"][0] |= server or {}
        daemon = make(raw)
        daemon.start()
        return daemon

    return start


Serve = Callable[..., Daemon]


def offers(wire: Wire) -> list[str]:
    """What EHLO offers."""
    wire.send(HELLO)
    return [line[4:].split()[0] for line in wire.lines()[1:]]


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


def test_what_was_agreed_on_is_on_the_envelope_and_in_received(
    make: Make, keeper: type[Keeper], tmp_path: Path
) -> None:
    raw = with_header(tls=self_signed(tmp_path).section())
    with make(raw) as daemon, connect(daemon) as wire:
        wire.ask(HELLO)
        wire.ask(b"STARTTLS\r\n")
        with encrypted(wire, name="mx.example.com") as inner:
            tls = inner.socket
            assert isinstance(tls, ssl.SSLSocket)
            agreed = tls.cipher()
            assert agreed is not None
            assert inner.deliver(b"mine").startswith("250 ")
    [envelope] = keeper.envelopes
    assert envelope.tls is not None
    assert (envelope.tls.version, envelope.tls.cipher) == ("TLSv1.3", agreed[0])
    assert envelope.tls.server_name == "mx.example.com"
    assert (envelope.tls.client_subject, envelope.tls.client_verified) == (None, False)
    assert f"(using TLSv1.3 with cipher {agreed[0]})" in received(envelope)
    assert " with ESMTPS id " in received(envelope)


# --- Resumption -----------------------------------------------------------------------------------


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


# --- Handshakes that do not come to an end --------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "a part"])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_handshake_has_a_deadline(serve: Serve, begun: bytes, implicit: bool) -> None:
    # Before STARTTLS the same limit is that of a command.
    daemon = limited(serve, implicit, timeout="300ms" if implicit else "4s")
    with begin_handshake(daemon, implicit) as wire:
        wire.send(begun)
        assert wire.socket.recv(4096) == b""
    until(lambda: daemon.stats()["tls_failures"] == 1)


def test_octets_of_a_handshake_do_not_extend_it(serve: Serve) -> None:
    daemon = limited(serve, True, timeout="500ms")
    with begin_handshake(daemon, True) as wire:
        wire.send(b"\x16\x03\x01\x02\x00")
        wire.socket.settimeout(0.1)
        closed = False
        for _ in range(300):  # half a minute, and fewer octets than the record is to have
            try:
                wire.send(b"\0")
                closed = wire.socket.recv(4096) == b""
            except TimeoutError:
                continue  # not closed yet
            except GONE:
                closed = True
            break
        assert closed


@pytest.mark.parametrize("implicit", [False, True])
def test_a_handshake_counts_as_a_client(serve: Serve, implicit: bool) -> None:
    daemon = limited(serve, implicit, max_clients=1)
    with begin_handshake(daemon, implicit):
        until(lambda: daemon.stats()["connections_open"] == 1)
        with connect(daemon, greeted=False) as refused:
            # Where TLS comes first there is nobody to talk to.
            lines = refused.rest()
            assert [line[:10] for line in lines] == ([] if implicit else ["421 4.7.0 "])
        assert daemon.stats()["connections_refused"] == 1


def limited(serve: Serve, implicit: bool, **server: Any) -> Daemon:
    """A daemon with implicit TLS or STARTTLS, and these keys of its server."""
    return serve(start_tls_on=not implicit, tls_always_on=implicit, server=server)


def begin_handshake(daemon: Daemon, implicit: bool) -> Wire:
    """A connection that the daemon expects a handshake on."""
    wire = connect(daemon, greeted=not implicit)
    if not implicit:
        assert wire.ask(b"STARTTLS\r\n").startswith("220 ")
    return wire


# --- Versions -------------------------------------------------------------------------------------


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
