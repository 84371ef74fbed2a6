"""`guerrillad cert`: what it makes, as openssl and Python's ssl see it, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shlex
import smtplib
import socket
import ssl
import stat
import subprocess
import threading
import tomllib
from pathlib import Path

import pytest

from guerrilla._core import make_certificate
from guerrilla.cli import main
from guerrilla.commands import cert
from guerrilla.config import AppConfig, load
from guerrilla.daemon import Daemon
from tests.daemons import where

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY, CERTIFICATE = Path("tls/mx.example.com.key"), Path("tls/mx.example.com.crt")


def make(*arguments: str) -> int:
    return main(["cert", "--host", "mx.example.com", "--out", "tls", *arguments])


def openssl(*arguments: str) -> str:
    return subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, check=True, timeout=30
    ).stdout


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that says why not."""
    assert main(["cert", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line.removeprefix("guerrillad: ")


# What is made


def test_openssl_finds_hosts_key_and_days() -> None:
    hosts = ("*.example.org", "[IPv6:2001:db8::1]", "192.0.2.1")
    assert make(*(word for host in hosts for word in ("--host", host)), "--days", "30") == 0
    for option, name, matches in (
        ("-checkhost", "mx.example.com", True),
        ("-checkhost", "mail.example.org", True),
        ("-checkhost", "example.com", False),
        ("-checkip", "192.0.2.1", True),
        ("-checkip", "2001:db8::1", True),
        ("-checkip", "192.0.2.2", False),
    ):
        said = openssl("x509", "-in", str(CERTIFICATE), "-noout", option, name)
        assert ("does match" in said) is matches, said
    public = openssl("x509", "-in", str(CERTIFICATE), "-noout", "-pubkey")
    assert openssl("pkey", "-in", str(KEY), "-pubout") == public
    text = openssl("x509", "-in", str(CERTIFICATE), "-noout", "-text")
    for part in ("prime256v1", "ecdsa-with-SHA256", "CA:FALSE", "TLS Web Server Authentication"):
        assert part in text
    assert KEY.read_text().startswith("-----BEGIN PRIVATE KEY-----\n")  # PKCS#8
    # Valid now, 29 days from now, and no longer in 31 days: -checkend fails then.
    openssl("verify", "-x509_strict", "-CAfile", str(CERTIFICATE), str(CERTIFICATE))
    openssl("x509", "-in", str(CERTIFICATE), "-noout", "-checkend", str(29 * 86_400))
    with pytest.raises(subprocess.CalledProcessError):
        openssl("x509", "-in", str(CERTIFICATE), "-noout", "-checkend", str(31 * 86_400))


@pytest.mark.parametrize("host", ["mx.example.com", "127.0.0.1", "::1", "a.example.net"])
def test_a_client_that_is_given_the_certificate_trusts_it(host: str) -> None:
    others = [word for name in ("127.0.0.1", "[::1]", "*.example.net") for word in ("--host", name)]
    assert make(*others) == 0
    client = ssl.create_default_context(cafile=str(CERTIFICATE))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert client.check_hostname
    assert shake_hands(client, host) == (("commonName", "mx.example.com"),)


def test_a_client_does_not_take_it_for_another_host() -> None:
    assert make() == 0
    client = ssl.create_default_context(cafile=str(CERTIFICATE))
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(client, "mx.example.net")


def shake_hands(client: ssl.SSLContext, host: str) -> object:
    """One handshake with a server that has the pair; the subject that the client sees."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE, KEY)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as connection:
                connection.recv(1)
        except OSError:  # The client did not like it.
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        ours.settimeout(20)
        with client.wrap_socket(ours, server_hostname=host) as connection:
            found = connection.getpeercert()
            assert found is not None
            return found["subject"][0]
    finally:
        ours.close()
        thread.join(20)


def test_it_prints_what_to_put_into_the_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert make() == 0
    said = capsys.readouterr().out
    assert said.startswith(f"made {KEY}\nmade {CERTIFICATE}, valid until 20")
    (table,) = re.findall(r"^\[servers\.tls\]\n(?:\w+ = .*\n)+", said, re.MULTILINE)
    Path("guerrilla.toml").write_text(
        f'[[servers]]\nlisten_interface = "127.0.0.1:0"\n{table}', encoding="utf-8"
    )
    (server,) = load("guerrilla.toml").servers
    assert server.tls.start_tls_on
    assert server.tls.private_key_file == str(KEY.absolute())
    assert server.tls.public_key_file == str(CERTIFICATE.absolute())


def test_two_are_never_the_same() -> None:
    assert make_certificate(["a"], 1) != make_certificate(["a"], 1)


# Files


def test_only_its_owner_may_read_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first moment on: looked at when the first octet is written."""
    seen: list[int] = []
    write = cert._write

    def look(fd: int, text: str) -> None:
        seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        write(fd, text)

    monkeypatch.setattr(cert, "_write", look)
    before = os.umask(0)
    try:
        assert make() == 0
        assert make("--force") == 0
    finally:
        os.umask(before)
    assert seen == [0o600, 0o644] * 2
    assert stat.S_IMODE(KEY.stat().st_mode) == 0o600
    assert stat.S_IMODE(CERTIFICATE.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("MX1.Example.com.", "mx1.example.com"),
        ("*.example.com", "_wildcard.example.com"),
        ("192.0.2.1", "192.0.2.1"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("[IPv6:2001:DB8::1]", "2001-db8--1"),
    ],
)
def test_files_are_named_after_the_first_host(host: str, name: str) -> None:
    assert main(["cert", "--host", host, "--host", "other.example", "--out", "a/b"]) == 0
    assert sorted(os.listdir("a/b")) == [f"{name}.crt", f"{name}.key"]


@pytest.mark.parametrize("there", [KEY, CERTIFICATE])
def test_a_file_that_is_there_stays(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tls").mkdir()
    there.write_text("mine")
    line = refused(capsys, "--host", "mx.example.com", "--out", "tls")
    assert line == f"{there} is there already: --force replaces it"
    assert there.read_text() == "mine"
    assert os.listdir("tls") == [there.name]


def test_force_replaces_both_and_leaves_nothing_else() -> None:
    assert make() == 0
    before = KEY.read_text()
    assert make("--force") == 0
    assert KEY.read_text() != before
    assert sorted(os.listdir("tls")) == [CERTIFICATE.name, KEY.name]
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE, KEY)  # they belong to each other


def test_force_that_fails_leaves_nothing_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make() == 0
    before = KEY.read_text()

    def full(fd: int, text: str) -> None:
        os.close(fd)
        raise OSError(28, "No space left on device")

    capsys.readouterr()
    monkeypatch.setattr(cert, "_write", full)
    line = refused(capsys, "--host", "mx.example.com", "--out", "tls", "--force")
    assert line == "tls: No space left on device"
    assert KEY.read_text() == before
    assert sorted(os.listdir("tls")) == [CERTIFICATE.name, KEY.name]


# What is refused


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "a name has 1 to 253 characters"),
        ("a_b.example", "a label has 1 to 63 letters, digits and hyphens"),
        ("../../etc/passwd", "a label has 1 to 63 letters, digits and hyphens"),
        ("bücher.example", "write it in its ASCII form"),
        ("*.com", "a wildcard needs a domain of two labels"),
        ("192.0.2.300", "it looks like an IPv4 address and is none"),
        ("[mx.example.com]", "no address stands in the brackets"),
    ],
)
def test_a_host_that_is_none(host: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "--host", "mx.example.com", "--host", host, "--out", "tls")
    assert line.startswith(f"'{host}' is no host for a certificate: {reason}")
    assert not Path("tls").exists()


@pytest.mark.parametrize("days", ["0", "-1", "36501", "99999999999999999999"])
def test_days_out_of_range(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "--host", "mx.example.com", "--out", "tls", f"--days={days}")
    assert line == "expected 1 to 36500 days"


def test_no_host_at_all() -> None:
    with pytest.raises(ValueError, match="expected at least one host"):
        make_certificate([], 1)


def test_a_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    host = ("--host", "mx.example.com", "--out")
    assert refused(capsys, *host, "file") == "file is no folder"
    assert refused(capsys, *host, "file/tls") == "file/tls: Not a directory"
    # Nobody may write there, not even root.
    assert refused(capsys, *host, "/proc").startswith("/proc/mx.example.com.key: ")
    assert refused(capsys, *host, "/proc", "--force").startswith("/proc")


# The examples


@pytest.mark.parametrize("name", ["starttls.toml", "smtps.toml"])
def test_the_examples_name_what_their_command_makes(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    (command,) = re.findall(r"^#   guerrillad (cert .*)$", text, re.MULTILINE)
    assert f"#   guerrillad serve -c examples/{name}\n" in text
    assert main(shlex.split(command)) == 0
    (server,) = load(EXAMPLES / name).servers
    assert server.tls.start_tls_on is (name == "starttls.toml")
    assert server.tls.tls_always_on is (name == "smtps.toml")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert server.tls.public_key_file is not None
    context.load_cert_chain(server.tls.public_key_file, server.tls.private_key_file)
    # And the one that its last command has openssl trust.
    (trusted,) = re.findall(r"-CAfile (\S+)$", text, re.MULTILINE)
    assert trusted == tomllib.loads(text)["servers"][0]["tls"]["public_key_file"]


@pytest.mark.parametrize("name", ["starttls.toml", "smtps.toml"])
def test_the_examples_take_mail_by_a_verified_tls(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tomllib.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    raw["servers"][0]["listen_interface"] = "127.0.0.1:0"
    raw.pop("pid_file", None)
    assert main(["cert", "--host", "mx.example.com", "--host", "localhost", "--out", "tls"]) == 0
    context = ssl.create_default_context(cafile=raw["servers"][0]["tls"]["public_key_file"])
    with Daemon(AppConfig.model_validate(raw)) as daemon:
        _, port = where(daemon)
        if name == "smtps.toml":
            client: smtplib.SMTP = smtplib.SMTP_SSL("localhost", port, timeout=20, context=context)
        else:
            client = smtplib.SMTP("localhost", port, timeout=20)
            client.starttls(context=context)
        with client:
            refused = client.sendmail("a@client.example", ["b@example.com"], "Subject: hello\n")
    assert refused == {}
    capsys.readouterr()
    assert main(["mail", "list", "--json", "--db", "mail.db"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["subject"] == "hello"
