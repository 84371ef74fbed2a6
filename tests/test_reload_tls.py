"""Keys and files of TLS that a reload changes: from which handshake on."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.events import Event
from guerrilla.running import tlswatch
from tests.certificates import Authority, Pair, encrypted, self_signed, unverified
from tests.daemons import Make, config, connect
from tests.reloads import MAIL, SENDER, each, ehlo, reload, server, shows
from tests.wire import HELLO, Wire, until


def test_tls_is_turned_on_and_its_certificate_changes(running: Daemon, tmp_path: Path) -> None:
    first = self_signed(tmp_path, "one.example", stem="one")
    second = self_signed(tmp_path, "two.example", stem="two")
    with connect(running) as wire:
        assert wire.ask(b"STARTTLS\r\n").startswith("500 ")
        reload(running, server(tls=first.section()))
        assert wire.ask(b"STARTTLS\r\n").startswith("220 ")
        with encrypted(wire) as inner:
            reload(running, server(tls=second.section()))
            assert inner.deliver(MAIL).startswith("250 ")
    with connect(running) as wire:
        wire.ask(b"STARTTLS\r\n")
        with encrypted(wire) as inner:
            shown = inner.socket.getpeercert(binary_form=True)  # type: ignore[attr-defined]
            assert shown == second.der()


def test_a_bad_key_leaves_the_old_one_and_the_rest_in_force(
    running: Daemon, tmp_path: Path
) -> None:
    pair = self_signed(tmp_path, stem="good")
    reload(running, server(tls=pair.section()))
    bad = pair.section(private_key_file=str(tmp_path / "missing"))
    report = running.reload_config(server(tls=bad, max_size=100))
    (line,) = report.failures
    assert line.startswith(f"servers[0].tls.private_key_file: {tmp_path}/missing: ")
    assert running.config == server(tls=pair.section(), max_size=100)
    assert Event.SERVER_TLS_CONFIG not in {change.event for change in report.changes}
    with connect(running) as wire:
        wire.send(HELLO)
        assert "250-SIZE 100" in wire.lines()
        assert wire.ask(b"STARTTLS\r\n").startswith("220 ")
        with encrypted(wire) as inner:
            assert inner.ask(HELLO).startswith("250 ")


# --- Key by key -----------------------------------------------------------------------------------


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Pair, Pair]:
    return (
        self_signed(tmp_path, "one.example", stem="one"),
        self_signed(tmp_path, "two.example", stem="two"),
    )


@shows("between transactions", "servers[].tls.start_tls_on", "servers[].tls.required")
def test_keys_of_tls_between_transactions(make: Make, pairs: tuple[Pair, Pair]) -> None:
    raw = config()
    with make(raw) as daemon, connect(daemon) as old, connect(daemon) as busy:
        busy.begin()
        raw["servers"][0]["tls"] = pairs[0].section()
        assert daemon.reload_config(from_mapping(raw)).ok
        assert ehlo("STARTTLS")(old)
        raw["servers"][0]["tls"] = pairs[0].section(required=True)
        assert daemon.reload_config(from_mapping(raw)).ok
        assert old.ask(SENDER).startswith("530 5.7.0 ")
        assert busy.ask(MAIL + b"\r\n.\r\n").startswith("250 ")
        assert busy.ask(SENDER).startswith("530 5.7.0 ")


@shows("next connection", "servers[].tls.tls_always_on")
def test_implicit_tls_at_the_next_connection(make: Make, pairs: tuple[Pair, Pair]) -> None:
    with make() as daemon, connect(daemon) as old:
        new = pairs[0].config(start_tls_on=False, tls_always_on=True)
        assert daemon.reload_config(from_mapping(new)).ok
        assert old.deliver(b"as before").startswith("250 ")
        with connect(daemon, greeted=False) as wire, encrypted(wire, greeted=True) as inner:
            assert inner.deliver(b"within").startswith("250 ")


def client(ciphers: str = "", curve: str = "", highest: str = "TLSv1_3") -> ssl.SSLContext:
    """One that takes any certificate, and offers no more than this."""
    context = unverified()
    context.maximum_version = ssl.TLSVersion[highest]
    if ciphers:
        context.set_ciphers(ciphers)
    if curve:
        context.set_ecdh_curve(curve)
    return context


Agreed = tuple[bytes, str, str]


def handshake(wire: Wire, context: ssl.SSLContext, name: str | None = None) -> Agreed | None:
    """The certificate that STARTTLS shows, the version and the cipher; None where it fails."""
    assert wire.ask(b"STARTTLS\r\n").startswith("220 ")
    try:
        with context.wrap_socket(wire.socket, server_hostname=name) as inner:
            shown, version, cipher = (
                inner.getpeercert(binary_form=True),
                inner.version(),
                inner.cipher(),
            )
            assert shown is not None
            assert version is not None
            assert cipher is not None
            # In TLS 1.3 it is only after our end of it that the server looks at our certificate.
            inner.settimeout(30)
            inner.sendall(HELLO)
            return (shown, version, cipher[0]) if inner.recv(3) == b"250" else None
    except (ssl.SSLError, ConnectionError):
        return None


TWO: Final = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384"
"""In the client's order, which is not ours."""

Sees = Callable[[Agreed | None, Pair], bool]


def one_version(agreed: Agreed | None, _: Pair) -> bool:
    return agreed is not None and agreed[1] == "TLSv1.2"


def fails(agreed: Agreed | None, _: Pair) -> bool:
    return agreed is None


def with_cipher(name: str) -> Sees:
    return lambda agreed, _: agreed is not None and agreed[2] == name


def the_other(agreed: Agreed | None, other: Pair) -> bool:
    return agreed is not None and agreed[0] == other.der()


HANDSHAKE: Final[dict[str, tuple[Any, ssl.SSLContext, Sees]]] = {
    "protocols": (["tls1.2", "tls1.2"], client(), one_version),
    "ciphers": (
        ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"],
        client(TWO, highest="TLSv1_2"),
        with_cipher("ECDHE-ECDSA-CHACHA20-POLY1305"),
    ),
    "curves": (["X25519"], client(curve="prime256v1"), fails),
    "prefer_server_cipher_suites": (
        False,
        client(TWO, highest="TLSv1_2"),
        with_cipher("ECDHE-ECDSA-CHACHA20-POLY1305"),
    ),
    "client_auth_type": ("RequireAnyClientCert", client(), fails),
    "certificates": ("OTHER", client(), the_other),
}
"""The new value, a client, and what that sees at its handshake then."""


@pytest.mark.parametrize("key", each("next handshake", HANDSHAKE, "servers[].tls."))
def test_the_next_handshake_obeys_it(make: Make, pairs: tuple[Pair, Pair], key: str) -> None:
    """On connections that were there before, too."""
    one, two = pairs
    value, context, sees = HANDSHAKE[key]
    if value == "OTHER":
        value = [{"private_key_file": str(two.key), "public_key_file": str(two.certificate)}]
    with make(one.config()) as daemon, connect(daemon) as before, connect(daemon) as old:
        assert not sees(handshake(before, context, "two.example"), two)
        assert daemon.reload_config(from_mapping(one.config(**{key: value}))).ok
        assert sees(handshake(old, context, "two.example"), two)


@shows("next handshake", "servers[].tls.private_key_file", "servers[].tls.public_key_file")
def test_the_next_handshake_shows_the_files_of_now(make: Make, pairs: tuple[Pair, Pair]) -> None:
    one, two = pairs
    with make(one.config()) as daemon, connect(daemon) as old, connect(daemon) as older:
        assert daemon.reload_config(from_mapping(two.config())).ok
        assert the_other(handshake(old, client()), two)
        # The same names, other content.
        two.become(one)
        assert daemon.reload_config(from_mapping(two.config())).ok
        assert the_other(handshake(older, client()), one)


@shows("next handshake", "servers[].tls.root_cas_file")
def test_the_next_handshake_asks_for_a_certificate(
    make: Make, pairs: tuple[Pair, Pair], tmp_path: Path
) -> None:
    mine, foreign = Authority(tmp_path, "mine"), Authority(tmp_path, "foreign")
    pair = foreign.issue("/CN=client")
    context = unverified()
    context.load_cert_chain(pair.certificate, pair.key)
    roots = str(mine.certificate)
    with make(pairs[0].config()) as daemon, connect(daemon) as before, connect(daemon) as old:
        assert handshake(before, context) is not None
        assert daemon.reload_config(from_mapping(pairs[0].config(root_cas_file=roots))).ok
        assert handshake(old, context) is None


@shows("at once", "servers[].tls.watch")
def test_files_are_watched_from_now_on(
    make: Make, pairs: tuple[Pair, Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlswatch, "INTERVAL", 0.02)
    live = Pair(tmp_path / "live.key", tmp_path / "live.crt")
    live.become(pairs[0])

    def sees(pair: Pair) -> bool:
        with connect(daemon) as wire:
            return the_other(handshake(wire, client()), pair)

    with make(live.config()) as daemon:
        assert daemon.reload_config(from_mapping(live.config(watch=True))).ok
        live.become(pairs[1])
        until(lambda: sees(pairs[1]))
        assert daemon.reload_config(from_mapping(live.config())).ok
        assert not [t for t in threading.enumerate() if t.name == "guerrilla-tls"]
