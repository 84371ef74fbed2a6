"""What TLS a server agrees on, as `openssl s_client` sees it.

Where a test shows a refusal, the same probe succeeds with a server of openssl's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Pair, self_signed
from tests.clients.probes import HTTP, probe, weak_server
from tests.clients.tls_servers import IMPLICIT, WAYS, Server, both_ways, on_way, tls_daemon
from tests.daemons import where
from tests.running import RunningDaemon

TLS10: Final = ("-tls1", "-cipher", "DEFAULT@SECLEVEL=0")
TLS11: Final = ("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
X25519: Final = ("-tls1_3", "-groups", "X25519")
P384: Final = ("-tls1_3", "-groups", "P-384")

WEAK: Final = (
    "AES128-GCM-SHA256",  # the key exchange by RSA has no forward secrecy
    "AES256-SHA",
    "DHE-RSA-AES128-GCM-SHA256",  # finite-field Diffie-Hellman
    "ECDHE-RSA-AES128-SHA",  # CBC
    "ECDHE-RSA-AES256-SHA384",
    "ECDHE-RSA-CAMELLIA128-SHA256",
)
"""Of TLS 1.2, by OpenSSL's names: what RFC 9325 §4.2 does not recommend."""

GOOD: Final = (
    ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"),
    ("-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"),
    ("-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"),
    ("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"),
    ("-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"),
    ("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"),
)


@pytest.fixture(scope="module")
def rsa(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """With an RSA key, which every cipher of these tests can do with."""
    return self_signed(tmp_path_factory.mktemp("rsa"), rsa=True)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, rsa: Pair) -> Iterator[RunningDaemon]:
    """With STARTTLS at its first server, implicit TLS at its second, and no key beyond these."""
    with both_ways(tmp_path_factory.mktemp("both") / "daemon", rsa) as running:
        yield running


@pytest.fixture(scope="module")
def weak(rsa: Pair) -> Iterator[Server]:
    """Where a server is that takes what ours refuses."""
    with weak_server(rsa) as where_it_is:
        yield where_it_is


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("old", [TLS10, TLS11], ids=["1.0", "1.1"])
def test_old_versions_are_refused(
    daemon: RunningDaemon, weak: Server, way: str, old: tuple[str, ...]
) -> None:
    assert probe(on_way(daemon, way), *old, starttls=way == "starttls") is None
    taken = probe(weak, *old, then=HTTP)
    assert taken is not None
    assert taken.protocol in {"TLSv1", "TLSv1.1"}


@pytest.mark.parametrize("cipher", WEAK)
def test_weak_ciphers_are_refused(daemon: RunningDaemon, weak: Server, cipher: str) -> None:
    options = ("-tls1_2", "-cipher", f"{cipher}@SECLEVEL=0")
    assert probe(on_way(daemon, "tls"), *options) is None
    taken = probe(weak, *options, then=HTTP)
    assert taken is not None
    assert taken.cipher == cipher


@pytest.mark.parametrize("options", GOOD, ids=lambda options: options[2])
def test_good_ciphers_are_taken(daemon: RunningDaemon, options: tuple[str, ...]) -> None:
    agreed = probe(on_way(daemon, "tls"), *options)
    assert agreed is not None
    assert agreed.cipher == options[2]
    assert agreed.protocol == {"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}[options[0]]


@pytest.mark.parametrize("way", WAYS)
def test_the_newest_version_is_chosen(daemon: RunningDaemon, way: str) -> None:
    agreed = probe(on_way(daemon, way), starttls=way == "starttls")
    assert agreed is not None
    assert agreed.protocol == "TLSv1.3"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_is_resumed(
    daemon: RunningDaemon, tmp_path: Path, way: str, version: str
) -> None:
    session = tmp_path / "session.pem"
    server, starttls = on_way(daemon, way), way == "starttls"
    first = probe(server, version, "-sess_out", session, starttls=starttls)
    assert first is not None
    assert not first.reused
    assert "TLS session ticket:" in first.said
    second = probe(server, version, "-sess_in", session, starttls=starttls)
    assert second is not None
    assert second.reused
    assert second.protocol == first.protocol


def test_protocols_turns_a_version_off(tmp_path: Path, rsa: Pair) -> None:
    to_12 = f"{IMPLICIT}\n{rsa.toml()}protocols = ['tls1.0', 'tls1.2']"
    from_13 = f"{IMPLICIT}\n{rsa.toml()}protocols = ['tls1.3']"
    with tls_daemon(tmp_path / "daemon", to_12, from_13) as daemon:
        at_most, at_least = where(daemon), where(daemon, 1)
        assert probe(at_most, "-tls1_3") is None
        assert probe(at_least, "-tls1_2") is None
        for server, version in ((at_most, "TLSv1.2"), (at_least, "TLSv1.3")):
            agreed = probe(server)
            assert agreed is not None
            assert agreed.protocol == version


def test_ciphers_are_those_named(tmp_path: Path, rsa: Pair) -> None:
    """By Go's names; those of TLS 1.2 leave TLS 1.3 as it is."""
    names = "ciphers = ['TLS_RSA_WITH_AES_128_CBC_SHA', 'TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305']"
    with tls_daemon(tmp_path / "daemon", f"{IMPLICIT}\n{rsa.toml()}{names}") as daemon:
        agreed = probe(where(daemon), "-tls1_2")
        assert agreed is not None
        assert agreed.cipher == "ECDHE-RSA-CHACHA20-POLY1305"
        assert probe(where(daemon), "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256") is None
        assert probe(where(daemon), "-tls1_3") is not None


@pytest.mark.parametrize(
    ("name", "taken", "refused"), [("P384", P384, X25519), ("X25519", X25519, P384)]
)
def test_curves_are_those_named(
    tmp_path: Path, rsa: Pair, name: str, taken: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    with tls_daemon(tmp_path / "daemon", f"{IMPLICIT}\n{rsa.toml()}curves = ['{name}']") as daemon:
        assert probe(where(daemon), *taken) is not None
        assert probe(where(daemon), *refused) is None


def test_names_that_are_gone_are_told_in_one_warning(tmp_path: Path, rsa: Pair) -> None:
    """As a config of Go-Guerrilla may have them; what is left of it works."""
    names = (
        "protocols = ['tls1.0', 'tls1.3']\ncurves = ['P521', 'P256']\n"
        "ciphers = ['TLS_RSA_WITH_RC4_128_SHA', 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256']"
    )
    with tls_daemon(tmp_path / "daemon", f"{IMPLICIT}\n{rsa.toml()}{names}") as daemon:
        assert probe(where(daemon)) is not None
        [line] = [line for line in daemon.log_text().splitlines() if "no longer offered" in line]
    assert "servers[0].tls: " in line
    for name in ("tls1.0", "P521", "TLS_RSA_WITH_RC4_128_SHA"):
        assert name in line
    for name in ("tls1.3", "P256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"):
        assert name not in line


TLS13: Final = (
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
)
TLS12: Final = (
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
"""As OpenSSL names them; the one that we like best is the last."""


@pytest.mark.parametrize("prefers", [None, False, True])
def test_whose_order_of_ciphers_counts(tmp_path: Path, rsa: Pair, prefers: bool | None) -> None:
    """Ours, when nothing is said of it: AES-128, then AES-256, then ChaCha."""
    order = "" if prefers is None else f"prefer_server_cipher_suites = {str(prefers).lower()}"
    with tls_daemon(tmp_path / "daemon", f"{IMPLICIT}\n{rsa.toml()}{order}") as daemon:
        for version, option, theirs, second, first in (
            ("-tls1_3", "-ciphersuites", *TLS13),
            ("-tls1_2", "-cipher", *TLS12),
        ):
            for offered, ours in (((theirs, second, first), first), ((theirs, second), second)):
                agreed = probe(where(daemon), version, option, ":".join(offered))
                assert agreed is not None
                assert agreed.cipher == (theirs if prefers is False else ours)


@pytest.mark.parametrize("way", WAYS)
def test_a_certificate_is_chosen_by_the_name_that_the_client_asks_for(
    tmp_path: Path, way: str
) -> None:
    first = self_signed(tmp_path, "mx.example.com", stem="first")
    second = self_signed(tmp_path, "mx.example.net", "*.mail.example.net", stem="second")
    section = f"{first.toml()}[[servers.tls.certificates]]\n{second.toml()}"
    asked = {
        ("-noservername",): "mx.example.com",
        ("-servername", "mx.example.com"): "mx.example.com",
        ("-servername", "mx.example.net"): "mx.example.net",
        ("-servername", "MX.Example.NET"): "mx.example.net",
        ("-servername", "a.mail.example.net"): "mx.example.net",
        ("-servername", "a.b.mail.example.net"): "mx.example.com",
        ("-servername", "elsewhere.example"): "mx.example.com",
    }
    with both_ways(tmp_path / "daemon", first, section.removeprefix(first.toml())) as daemon:
        server, starttls = on_way(daemon, way), way == "starttls"
        agreed = {options: probe(server, *options, starttls=starttls) for options in asked}
    assert {options: one and one.name for options, one in agreed.items()} == asked
