"""Keys in every form, and certificates of clients under each `client_auth_type`."""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.certificates import Authority, Pair, self_signed, traditional, trusting
from tests.clients.messages import HELO, MESSAGE, RECIPIENT, SENDER
from tests.clients.tls_servers import IMPLICIT, Server, tls_daemon
from tests.clients.witnesses import witnessed
from tests.daemons import where
from tests.running import DaemonError, RunningDaemon
from tests.wire import PATIENCE, Wire

TYPES: Final = (
    "NoClientCert",
    "RequestClientCert",
    "RequireAnyClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
)

VERSIONS: Final = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)

REFUSED: Final = "refused"
UNSEEN: Final = None
UNVERIFIED: Final = False
VERIFIED: Final = True

OUTCOMES: Final = {
    # What becomes of a client without a certificate, with one of our authority, of another one.
    "NoClientCert": (UNSEEN, UNSEEN, UNSEEN),
    "RequestClientCert": (UNSEEN, UNVERIFIED, UNVERIFIED),
    "RequireAnyClientCert": (REFUSED, UNVERIFIED, UNVERIFIED),
    "VerifyClientCertIfGiven": (UNSEEN, VERIFIED, REFUSED),
    "RequireAndVerifyClientCert": (REFUSED, VERIFIED, REFUSED),
}
CLIENTS: Final = ("none", "ours", "another")


@dataclass(frozen=True)
class Edge:
    """A daemon with a server for each of `TYPES`, and what clients of it need."""

    daemon: RunningDaemon
    pair: Pair
    clients: dict[str, Pair | None]


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Two private authorities; the servers trust the first one."""
    folder = tmp_path_factory.mktemp("certificates")
    pair = self_signed(folder)
    ours, another = Authority(folder, "ours"), Authority(folder, "another")
    clients = {
        "none": None,
        "ours": ours.issue("/O=Example/CN=client.example.org"),
        "another": another.issue("/O=Example/CN=client.example.org"),
    }
    sections = [
        f"{IMPLICIT}\n{pair.toml()}root_cas_file = '{ours.certificate}'\n"
        f"client_auth_type = '{kind}'"
        for kind in TYPES
    ]
    with tls_daemon(folder / "daemon", *sections) as daemon:
        yield Edge(daemon, pair, clients)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", TYPES)
def test_client_certificates(edge: Edge, kind: str, client: str, version: ssl.TLSVersion) -> None:
    expected = OUTCOMES[kind][CLIENTS.index(client)]
    context = trusting(edge.pair, edge.clients[client])
    context.maximum_version = context.minimum_version = version
    server = where(edge.daemon, TYPES.index(kind))
    subject = f"{kind} {client} {version.name}"
    if expected is REFUSED:
        # In TLS 1.3 the client hears of it with the first octets that it reads.
        with pytest.raises((ssl.SSLError, ConnectionError, smtplib.SMTPException)):
            deliver(server, context, subject)
        assert mails(edge.daemon, subject) == []
        return
    deliver(server, context, subject)
    [seen] = mails(edge.daemon, subject)
    if expected is UNSEEN:
        assert seen["tls"]["client_subject"] is None
    else:
        assert "CN=client.example.org" in seen["tls"]["client_subject"]
    assert seen["tls"]["client_verified"] is (expected is VERIFIED)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_that_is_resumed_has_the_certificate(edge: Edge, version: ssl.TLSVersion) -> None:
    server = where(edge.daemon, TYPES.index("RequireAndVerifyClientCert"))
    context = trusting(edge.pair, edge.clients["ours"])
    context.maximum_version = context.minimum_version = version
    session = None
    for subject in ("first", "resumed"):
        plain = socket.create_connection(server, timeout=PATIENCE)
        tls = context.wrap_socket(plain, server_hostname=server[0], session=session)
        with Wire(tls) as wire:
            assert wire.deliver(f"Subject: {subject} {version.name}".encode()).startswith("250 ")
            assert tls.session_reused is (subject == "resumed")
            session = tls.session  # in TLS 1.3 it comes behind the handshake
        [seen] = mails(edge.daemon, f"{subject} {version.name}")
        assert "CN=client.example.org" in seen["tls"]["client_subject"]
        assert seen["tls"]["client_verified"] is True


def test_authorities_make_the_default_verify(tmp_path: Path) -> None:
    """`VerifyClientCertIfGiven` where `root_cas_file` is set, as in Go-Guerrilla."""
    pair, ours = self_signed(tmp_path), Authority(tmp_path, "ours")
    section = f"{IMPLICIT}\n{pair.toml()}root_cas_file = '{ours.certificate}'"
    with tls_daemon(tmp_path / "daemon", section) as daemon:
        deliver(where(daemon), trusting(pair), "none")
        deliver(where(daemon), trusting(pair, ours.issue("/CN=known")), "known")
        unknown = Authority(tmp_path, "another").issue("/CN=unknown")
        with pytest.raises((ssl.SSLError, ConnectionError, smtplib.SMTPException)):
            deliver(where(daemon), trusting(pair, unknown), "unknown")
        assert [seen["tls"]["client_verified"] for seen in witnessed(daemon.folder)] == [
            False,
            True,
        ]


def test_every_form_of_a_key(tmp_path: Path) -> None:
    """PKCS#8 of either kind, SEC1 and PKCS#1, by a server for each."""
    ec, rsa = self_signed(tmp_path, stem="ec"), self_signed(tmp_path, stem="rsa", rsa=True)
    pairs = [ec, rsa, traditional(ec), traditional(rsa)]
    kinds = ["PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"]
    for pair, kind in zip(pairs, kinds, strict=True):
        assert pair.key.read_text().startswith(f"-----BEGIN {kind}-----\n")
    sections = [f"{IMPLICIT}\n{pair.toml()}" for pair in pairs]
    with tls_daemon(tmp_path / "daemon", *sections) as daemon:
        for number, pair in enumerate(pairs):
            deliver(where(daemon, number), trusting(pair), f"key {number}")
            assert len(mails(daemon, f"key {number}")) == 1


def test_a_chain_is_shown_whole(tmp_path: Path) -> None:
    """A client that knows the root alone gets what is between from the server."""
    root = Authority(tmp_path, "root")
    between = Authority(tmp_path, "between", root)
    leaf = between.issue_server()
    chain = tmp_path / "chain.crt"
    chain.write_bytes(leaf.certificate.read_bytes() + between.certificate.read_bytes())
    context = trusting(Pair(leaf.key, root.certificate))
    sections = [
        f"{IMPLICIT}\n{Pair(leaf.key, shown).toml()}" for shown in (chain, leaf.certificate)
    ]
    with tls_daemon(tmp_path / "daemon", *sections) as daemon:
        deliver(where(daemon), context, "whole")
        assert len(mails(daemon, "whole")) == 1
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
            deliver(where(daemon, 1), context, "leaf")


@pytest.mark.parametrize("rsa", [False, True], ids=["of the same kind", "of another kind"])
def test_a_key_that_does_not_fit_its_certificate_is_an_error_at_start(
    tmp_path: Path, rsa: bool
) -> None:
    one, other = self_signed(tmp_path, stem="one"), self_signed(tmp_path, stem="two", rsa=rsa)
    mixed = Pair(one.key, other.certificate)
    with pytest.raises(DaemonError) as error:
        tls_daemon(tmp_path / "daemon", f"{IMPLICIT}\n{mixed.toml()}")
    [line] = [line for line in str(error.value).splitlines() if "tls.private_key_file" in line]
    assert "does not fit" in line
    assert "one.key" in line
    assert "two.crt" in line


def deliver(server: Server, context: ssl.SSLContext, subject: str) -> None:
    """One mail over implicit TLS."""
    with smtplib.SMTP_SSL(*server, HELO, timeout=20, context=context) as client:
        message = MESSAGE.replace(b"from a real client", subject.encode())
        assert client.sendmail(SENDER, [RECIPIENT], message) == {}


def mails(daemon: RunningDaemon, subject: str) -> list[dict[str, Any]]:
    """What was seen of the mails with this subject; each that was seen is stored, and in TLS."""
    rows = [row for row in daemon.rows() if row["subject"] == subject]
    if not rows:
        return []
    assert [row["is_tls"] for row in rows] == [1]
    return [seen for seen in witnessed(daemon.folder) if seen["subject"] == subject]
