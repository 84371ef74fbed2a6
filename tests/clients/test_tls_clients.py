"""Clients that were not written by us deliver mail over TLS, by STARTTLS and by implicit TLS.

Each of them trusts the server's certificate alone, and checks it.
"""

from __future__ import annotations

import os
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority, Pair, self_signed, trusting
from tests.clients.messages import (
    HELO,
    LF_MESSAGE,
    MESSAGE,
    RECIPIENT,
    SENDER,
    assert_stored,
    forget_mails,
    run,
)
from tests.clients.programs import built, nodemailer_script
from tests.clients.tls_servers import IMPLICIT, WAYS, Server, both_ways, on_way, tls_daemon
from tests.clients.witnesses import witnessed
from tests.daemons import where
from tests.running import RunningDaemon


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The server's pair, which clients trust."""
    return self_signed(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[RunningDaemon]:
    """One daemon for the whole file, with a server for each of `WAYS`."""
    with both_ways(tmp_path_factory.mktemp("shared") / "daemon", pair) as running:
        yield running


@pytest.fixture
def daemon(shared: RunningDaemon) -> Iterator[RunningDaemon]:
    """The daemon, which has stored nothing yet."""
    yield shared
    forget_mails(shared)


@pytest.mark.parametrize("way", WAYS)
def test_smtplib(daemon: RunningDaemon, pair: Pair, way: str) -> None:
    with smtplib_client(daemon, way, trusting(pair)) as client:
        assert client.sendmail(SENDER, [RECIPIENT], MESSAGE) == {}
    assert_stored_in_tls(daemon)


@pytest.mark.parametrize("way", WAYS)
def test_openssl(daemon: RunningDaemon, pair: Pair, way: str) -> None:
    """Pipelined, so that one input is the whole session."""
    transaction = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{RECIPIENT}>\r\nDATA\r\n".encode()
    stuffed = MESSAGE.replace(b"\r\n.", b"\r\n..")
    option = ["-starttls", "smtp", "-name", HELO] if way == "starttls" else []
    host, port = on_way(daemon, way)
    said = run(
        ["openssl", "s_client", "-connect", f"{host}:{port}", *option],
        ["-CAfile", os.fspath(pair.certificate), "-verify_ip", host, "-verify_return_error"],
        # -quiet would verify as well; without it, R and Q at the start of a line are commands.
        ["-quiet"],
        message=f"EHLO {HELO}\r\n".encode() + transaction + stuffed + b".\r\nQUIT\r\n",
    )
    assert "250 2.0.0 OK: queued as" in said
    assert_stored_in_tls(daemon)


@pytest.mark.parametrize("way", WAYS)
def test_swaks(daemon: RunningDaemon, pair: Pair, way: str) -> None:
    host, port = on_way(daemon, way)
    run(
        ["swaks", "--server", host, "--port", str(port)],
        ["--tls" if way == "starttls" else "--tls-on-connect"],
        ["--tls-verify", "--tls-ca-path", os.fspath(pair.certificate)],
        ["--helo", HELO, "--from", SENDER, "--to", RECIPIENT, "--data", "-"],
        message=LF_MESSAGE,
    )
    # It ends every message with an empty line of its own.
    assert_stored_in_tls(daemon, MESSAGE + b"\r\n")


@pytest.mark.parametrize("way", WAYS)
def test_curl(daemon: RunningDaemon, pair: Pair, way: str) -> None:
    run(
        curl(on_way(daemon, way), pair, scheme="smtp" if way == "starttls" else "smtps"),
        message=MESSAGE,
    )
    assert_stored_in_tls(daemon)


def test_curl_with_a_client_certificate(tmp_path: Path, pair: Pair) -> None:
    authority = Authority(tmp_path, "senders")
    client = authority.issue("/O=Example/CN=curl")
    section = (
        f"{IMPLICIT}\n{pair.toml()}root_cas_file = '{authority.certificate}'\n"
        "client_auth_type = 'RequireAndVerifyClientCert'"
    )
    with tls_daemon(tmp_path / "daemon", section) as daemon:
        certificate = ["--cert", os.fspath(client.certificate), "--key", os.fspath(client.key)]
        run(curl(where(daemon), pair, scheme="smtps"), certificate, message=MESSAGE)
        assert_stored_in_tls(daemon)
    [seen] = witnessed(daemon.folder)
    assert "CN=curl" in seen["tls"]["client_subject"]
    assert seen["tls"]["client_verified"] is True


@pytest.mark.parametrize("way", WAYS)
def test_msmtp(daemon: RunningDaemon, pair: Pair, tmp_path: Path, way: str) -> None:
    host, port = on_way(daemon, way)
    config = tmp_path / "msmtprc"
    config.write_text(
        f"account default\nhost {host}\nport {port}\nauth off\n"
        f"domain {HELO}\nfrom {SENDER}\ntls on\n"
        f"tls_starttls {'on' if way == 'starttls' else 'off'}\n"
        f"tls_trust_file {pair.certificate}\n",
        encoding="utf-8",
    )
    config.chmod(0o600)
    run(["msmtp", f"--file={config}", RECIPIENT], message=LF_MESSAGE)
    assert_stored_in_tls(daemon)


@pytest.mark.parametrize("way", WAYS)
def test_go(daemon: RunningDaemon, pair: Pair, way: str) -> None:
    run([built("go-client")], arguments(daemon, pair, way), message=MESSAGE)
    # It says SMTPUTF8 wherever that is offered.
    assert_stored_in_tls(daemon, protocol=b"UTF8SMTPS")


@pytest.mark.parametrize("way", WAYS)
def test_nodemailer(daemon: RunningDaemon, pair: Pair, way: str) -> None:
    run(nodemailer_script(), arguments(daemon, pair, way), message=MESSAGE)
    assert_stored_in_tls(daemon)


@pytest.mark.parametrize("client", ["go-client", "curl", "msmtp"])
def test_a_client_that_does_not_trust_the_certificate_delivers_nothing(
    daemon: RunningDaemon, tmp_path: Path, client: str
) -> None:
    """So the checks above are checks: the certificate is what decides."""
    other = self_signed(tmp_path, stem="other")
    host, port = server = on_way(daemon, "tls")
    commands = {
        "go-client": [built("go-client"), *arguments(daemon, other, "tls")],
        "curl": curl(server, other, scheme="smtps"),
        "msmtp": [
            *("msmtp", "--file=/dev/null", f"--host={host}", f"--port={port}", "--tls=on"),
            *("--tls-starttls=off", f"--tls-trust-file={other.certificate}", f"--from={SENDER}"),
            RECIPIENT,
        ],
    }
    done = subprocess.run(
        commands[client], input=LF_MESSAGE, capture_output=True, timeout=40, check=False
    )
    assert done.returncode != 0
    assert b"certificate" in (done.stdout + done.stderr)
    assert daemon.rows() == []


def smtplib_client(daemon: RunningDaemon, way: str, context: ssl.SSLContext) -> smtplib.SMTP:
    """Connected and in TLS."""
    server = on_way(daemon, way)
    if way == "tls":
        return smtplib.SMTP_SSL(*server, HELO, timeout=20, context=context)
    client = smtplib.SMTP(*server, HELO, timeout=20)
    client.starttls(context=context)
    return client


def curl(server: Server, pair: Pair, *, scheme: str) -> list[str]:
    """The command; it takes the message from its standard input."""
    host, port = server
    return [
        *("curl", "--silent", "--show-error", "--max-time", "20", "--ssl-reqd"),
        *("--cacert", os.fspath(pair.certificate), "--upload-file", "-"),
        *("--mail-from", SENDER, "--mail-rcpt", RECIPIENT, f"{scheme}://{host}:{port}/{HELO}"),
    ]


def arguments(daemon: RunningDaemon, pair: Pair, way: str) -> list[str]:
    """Of the clients that are programs of our own."""
    host, port = on_way(daemon, way)
    return [way, host, str(port), os.fspath(pair.certificate), SENDER, RECIPIENT]


def assert_stored_in_tls(
    daemon: RunningDaemon, message: bytes = MESSAGE, *, protocol: bytes = b"ESMTPS"
) -> None:
    """Octet for octet, and marked as what came over TLS."""
    row = assert_stored(daemon, message, helo=HELO)
    assert row["is_tls"] == 1
    delivery_header = row["mail"].removesuffix(message)
    assert b" with %s id " % protocol in delivery_header
    seen = witnessed(daemon.folder)[-1]["tls"]
    assert seen["version"] in {"TLSv1.2", "TLSv1.3"}
    assert f"using {seen['version']} with cipher {seen['cipher']}".encode() in delivery_header
