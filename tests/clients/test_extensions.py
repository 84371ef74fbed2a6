"""Clients that were not written by us use what a server offers beyond SMTP: UTF-8, DSN and LMTP."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path
from typing import Any, Final

import pytest

from tests.certificates import Pair, self_signed
from tests.clients.messages import HELO, LF_MESSAGE, MESSAGE, RECIPIENT, SENDER, run
from tests.clients.programs import Job, Program, curl, go, msmtp, nodemailer, swaks
from tests.clients.witnesses import BACKEND, CHAIN, send_witness, witnessed
from tests.daemons import where
from tests.running import RunningDaemon

UTF8_SENDER: Final = "jörg@bücher.example"
UTF8_RECIPIENT: Final = "δοκιμή@例え.example"

_SECOND: Final = """\
[[servers]]
listen_interface = "127.0.0.2:0"
host_name = "mx.example.com"
protocol = "lmtp"
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The server's pair, which clients trust."""
    return self_signed(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[RunningDaemon]:
    """One daemon for the whole file: SMTP with STARTTLS, and LMTP."""
    files = f"private_key_file = '{pair.key}', public_key_file = '{pair.certificate}'"
    server = f"tls = {{ start_tls_on = true, {files} }}\n{_SECOND}"
    folder = send_witness(tmp_path_factory.mktemp("shared") / "daemon")
    with RunningDaemon(folder, chain=CHAIN, backend=BACKEND, server=server) as running:
        yield running


@pytest.fixture
def daemon(shared: RunningDaemon) -> RunningDaemon:
    """The daemon, which has seen nothing yet."""
    (shared.folder / "witnessed.jsonl").unlink(missing_ok=True)
    return shared


def test_utf8_by_smtplib(daemon: RunningDaemon) -> None:
    message = EmailMessage(policy=SMTPUTF8)
    message["From"] = f"Jörg <{UTF8_SENDER}>"
    message["To"] = UTF8_RECIPIENT
    message["Subject"] = "Grüße, 世界"
    message.set_content("süß\n", cte="8bit")
    with smtplib.SMTP(*where(daemon), HELO, timeout=20) as client:
        assert client.send_message(message) == {}
    seen = stored(daemon, message.as_bytes())
    assert seen["subject"] == "Grüße, 世界"
    assert_utf8(seen)


@pytest.mark.parametrize("program", [curl, go, nodemailer], ids=lambda one: one.__name__)
def test_utf8(daemon: RunningDaemon, pair: Pair, tmp_path: Path, program: Program) -> None:
    job = Job(where(daemon), UTF8_SENDER, UTF8_RECIPIENT, pair)
    message = MESSAGE.replace(b"from a real client", "Grüße, 世界".encode())
    run(program(job, tmp_path), message=message.replace(b"\r\n", b"\n"))
    seen = stored(daemon, message)
    assert seen["subject"] == "Grüße, 世界"
    assert_utf8(seen)


@pytest.mark.parametrize("program", [msmtp, nodemailer], ids=lambda one: one.__name__)
def test_notifications(daemon: RunningDaemon, pair: Pair, tmp_path: Path, program: Program) -> None:
    dsn = {"id": "QQ314159", "return": "headers", "notify": ["success", "delay"]}
    run(program(Job(where(daemon), pair=pair, dsn=dsn), tmp_path), message=LF_MESSAGE)
    seen = stored(daemon, MESSAGE)
    assert seen["parameters"]["RET"] == "HDRS"
    [(recipient, asked)] = seen["rcpt_to"]
    assert recipient == RECIPIENT
    assert asked["NOTIFY"].upper() == "SUCCESS,DELAY"
    if program is nodemailer:
        assert seen["parameters"]["ENVID"] == "QQ314159"
        assert asked["ORCPT"] == f"rfc822;{RECIPIENT}"


def test_notifications_by_smtplib(daemon: RunningDaemon) -> None:
    with smtplib.SMTP(*where(daemon), HELO, timeout=20) as client:
        client.ehlo()
        assert client.has_extn("dsn")
        asked = ["NOTIFY=NEVER", "ORCPT=rfc822;bob+2Bx@example.net"]
        ours = ["RET=FULL", "ENVID=1"]
        assert client.sendmail(SENDER, [RECIPIENT], MESSAGE, ours, asked) == {}
    seen = stored(daemon, MESSAGE)
    assert (seen["parameters"]["RET"], seen["parameters"]["ENVID"]) == ("FULL", "1")
    given = {"NOTIFY": "NEVER", "ORCPT": "rfc822;bob+2Bx@example.net"}
    assert seen["rcpt_to"] == [[RECIPIENT, given]]


@pytest.mark.parametrize("program", [msmtp, nodemailer, swaks], ids=lambda one: one.__name__)
def test_lmtp(daemon: RunningDaemon, tmp_path: Path, program: Program) -> None:
    run(program(Job(where(daemon, 1), lmtp=True), tmp_path), message=LF_MESSAGE)
    seen = stored(daemon, MESSAGE + b"\r\n" if program is swaks else MESSAGE)
    assert seen["protocol"] == "LMTP"
    assert seen["helo"] in {HELO, "localhost"}


def test_lmtp_by_smtplib(daemon: RunningDaemon) -> None:
    host, port = where(daemon, 1)
    with smtplib.LMTP(host, port, HELO) as client:
        assert client.sendmail(SENDER, [RECIPIENT], MESSAGE) == {}
    assert stored(daemon, MESSAGE)["protocol"] == "LMTP"


def stored(daemon: RunningDaemon, message: bytes) -> dict[str, Any]:
    """What the stage saw of the last mail, which is stored as it was sent."""
    mail: bytes = daemon.rows()[-1]["mail"]
    assert mail.endswith(b"\r\n" + message)
    [seen] = witnessed(daemon.folder)
    return seen


def assert_utf8(seen: dict[str, Any]) -> None:
    """Both addresses came as they are."""
    assert "SMTPUTF8" in seen["parameters"]
    hosts = {"bücher.example": "xn--bcher-kva.example", "例え.example": "xn--r8jz45g.example"}
    for found, sent in [
        (seen["mail_from"], UTF8_SENDER),
        (seen["rcpt_to"][0][0], UTF8_RECIPIENT),
    ]:
        user, _, host = sent.rpartition("@")
        # Some clients give hosts in their A-form.
        assert found in {sent, f"{user}@{hosts[host]}"}
