"""Clients that were not written by us prove who they are, to a server that requires it."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import bcrypt
import pytest

from tests.certificates import Pair, self_signed, trusting
from tests.clients.messages import HELO, LF_MESSAGE, MESSAGE, RECIPIENT, SENDER, forget_mails, run
from tests.clients.programs import Job, Program, curl, go, msmtp, nodemailer, swaks
from tests.clients.witnesses import BACKEND, CHAIN, send_witness, witnessed
from tests.daemons import where
from tests.running import RunningDaemon

USER: Final = "alice@example.org"
PASSWORD: Final = "päss wörd: 1"
PLAIN_USER: Final = "bob"
PLAIN_PASSWORD: Final = "secret 2"
"""For smtplib, which has ASCII alone."""
WAYS: Final = [
    *((program, way) for program in (curl, msmtp, nodemailer, swaks) for way in ("PLAIN", "LOGIN")),
    (go, "PLAIN"),
]
"""Go's net/smtp knows no LOGIN."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The server's pair, which clients trust."""
    return self_signed(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[RunningDaemon]:
    """One daemon for the whole file."""
    folder = send_witness(tmp_path_factory.mktemp("shared") / "daemon")
    files = f"private_key_file = '{pair.key}', public_key_file = '{pair.certificate}'"
    backend = f"{BACKEND}\n{auth_file(folder)}"
    server = f"auth = {{ required = true }}\ntls = {{ start_tls_on = true, {files} }}\n"
    with RunningDaemon(folder, chain=CHAIN, backend=backend, server=server) as running:
        yield running


@pytest.fixture
def daemon(shared: RunningDaemon) -> Iterator[RunningDaemon]:
    """The daemon, which has seen and stored nothing yet."""
    (shared.folder / "witnessed.jsonl").unlink(missing_ok=True)
    yield shared
    forget_mails(shared)


@pytest.mark.parametrize(("program", "mechanism"), WAYS)
def test_with_the_right_password_the_mail_is_taken(
    daemon: RunningDaemon, pair: Pair, tmp_path: Path, program: Program, mechanism: str
) -> None:
    job = Job(where(daemon), pair=pair, login=(mechanism, USER, PASSWORD))
    run(program(job, tmp_path), message=LF_MESSAGE)
    assert_stored_as(daemon, MESSAGE + b"\r\n" if program is swaks else MESSAGE)


@pytest.mark.parametrize(("program", "mechanism"), WAYS)
def test_with_a_wrong_one_nothing_is(
    daemon: RunningDaemon, pair: Pair, tmp_path: Path, program: Program, mechanism: str
) -> None:
    job = Job(where(daemon), pair=pair, login=(mechanism, USER, f"{PASSWORD}!"))
    done = subprocess.run(
        program(job, tmp_path), input=LF_MESSAGE, capture_output=True, timeout=40, check=False
    )
    assert done.returncode != 0
    # curl says it in words of its own.
    assert b"535" in done.stdout + done.stderr or program is curl
    assert daemon.rows() == []
    assert "wörd" not in daemon.log_text()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_smtplib(daemon: RunningDaemon, pair: Pair, mechanism: str) -> None:
    with smtplib.SMTP(*where(daemon), HELO, timeout=20) as client:
        client.starttls(context=trusting(pair))
        client.ehlo()
        assert set(client.esmtp_features["auth"].split()) == {"PLAIN", "LOGIN"}
        with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
            client.sendmail(SENDER, [RECIPIENT], MESSAGE)
        client.user, client.password = PLAIN_USER, PLAIN_PASSWORD
        method = client.auth_plain if mechanism == "PLAIN" else client.auth_login
        code, _ = client.auth(mechanism, method)
        assert code == 235
        assert client.sendmail(SENDER, [RECIPIENT], MESSAGE) == {}
    assert_stored_as(daemon, MESSAGE, PLAIN_USER)


def auth_file(folder: Path) -> str:
    """Makes the file of users; the lines of `backend_config` that name it."""
    lines = [
        f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
        for user, password in ((USER, PASSWORD), (PLAIN_USER, PLAIN_PASSWORD))
    ]
    (folder / "users").write_text("".join(lines), encoding="utf-8")
    (folder / "users").chmod(0o600)
    return f"auth_process = 'AuthFile'\nauth_file = '{folder / 'users'}'\n"


def assert_stored_as(daemon: RunningDaemon, message: bytes, user: str = USER) -> None:
    """Octet for octet, over TLS, and with the name of who sent it."""
    [row] = daemon.rows()
    assert row["mail"].endswith(b"\r\n" + message)
    assert row["is_tls"] == 1
    [seen] = witnessed(daemon.folder)
    assert seen["auth"] == user
    # Go's net/smtp says SMTPUTF8 wherever it is offered.
    protocol = b"UTF8SMTPSA" if "SMTPUTF8" in seen["parameters"] else b"ESMTPSA"
    assert b" with %s id " % protocol in row["mail"]
