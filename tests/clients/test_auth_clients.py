"""Clients that were not written by us prove who they are, to a server that requires it."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Pair, self_signed, trusting
from tests.clients.messages import HELO, LF_MESSAGE, MESSAGE, RECIPIENT, SENDER, forget_mails, run
from tests.clients.programs import Job, Program, curl, go, msmtp, nodemailer, swaks
from tests.clients.witnesses import BACKEND, CHAIN, send_witness, witnessed
from tests.daemons import where
from tests.running import RunningDaemon

USER: Final = "alice@example.org"
PASSWORD: Final = "päss wörd: 1"
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
