"""Clients that are programs, and how each of them is told what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.certificates import Pair
from tests.clients.messages import HELO, RECIPIENT, SENDER

_BUILT: Final = Path(__file__).parent.parent.parent / "build" / "clients"
_SCRIPT: Final = Path(__file__).parent / "node" / "send.js"


@dataclass(frozen=True)
class Job:
    """What a client shall do with the message on its standard input."""

    where: tuple[str, int]
    """Host and port of the server."""
    sender: str = SENDER
    recipient: str = RECIPIENT
    pair: Pair | None = None
    """What it trusts, and then it wants STARTTLS; none: without TLS."""
    login: tuple[str, str, str] | None = None
    """The mechanism of AUTH, a name, a password."""
    lmtp: bool = False
    dsn: Mapping[str, Any] = field(default_factory=dict)
    """What is asked of notifications, as Nodemailer has it: `id`, `return`, `notify`."""


Program = Callable[[Job, Path], list[str]]
"""Makes the command; it may write a file into a folder."""


def swaks(job: Job, folder: Path) -> list[str]:
    """It ends every message with an empty line of its own."""
    host, port = job.where
    command = ["swaks", "--server", host, "--port", str(port), "--helo", HELO]
    command += ["--from", job.sender, "--to", job.recipient, "--data", "-"]
    if job.lmtp:
        command += ["--protocol", "LMTP"]
    if job.pair is not None:
        command += ["--tls", "--tls-verify", "--tls-ca-path", os.fspath(job.pair.certificate)]
    if job.login is not None:
        mechanism, user, password = job.login
        command += ["--auth", mechanism, "--auth-user", user, "--auth-password", password]
    return command


def curl(job: Job, folder: Path) -> list[str]:
    """It speaks no LMTP, and asks nothing of notifications."""
    host, port = job.where
    command = ["curl", "--silent", "--show-error", "--max-time", "20", "--upload-file", "-"]
    command += ["--crlf", "--mail-from", job.sender, "--mail-rcpt", job.recipient]
    if job.pair is not None:
        command += ["--ssl-reqd", "--cacert", os.fspath(job.pair.certificate)]
    if job.login is not None:
        mechanism, user, password = job.login
        command += ["--login-options", f"AUTH={mechanism}", "--user", f"{user}:{password}"]
    return [*command, f"smtp://{host}:{port}/{HELO}"]


def msmtp(job: Job, folder: Path) -> list[str]:
    """It takes all but the recipient from a file."""
    host, port = job.where
    lines = ["account default", f"host {host}", f"port {port}", f"domain {HELO}"]
    lines += [f"from {job.sender}", f"protocol {'lmtp' if job.lmtp else 'smtp'}"]
    if job.pair is not None:
        lines += ["tls on", f"tls_trust_file {job.pair.certificate}"]
    if job.login is not None:
        mechanism, user, password = job.login
        lines += [f"auth {mechanism.lower()}", f"user {user}", f'password "{password}"']
        lines += ["tls_starttls on"]
    if job.dsn:
        kept = {"headers": "headers", "full": "full"}[job.dsn["return"]]
        lines += [f"dsn_return {kept}", f"dsn_notify {','.join(job.dsn['notify'])}"]
    config = folder / "msmtprc"
    config.write_text("\n".join([*lines, ""]), encoding="utf-8")
    config.chmod(0o600)
    return ["msmtp", f"--file={config}", job.recipient]


def nodemailer(job: Job, folder: Path) -> list[str]:
    """Nodemailer, by `nodemailer_script`."""
    host, port = job.where
    options: dict[str, Any] = {"lmtp": job.lmtp} if job.lmtp else {}
    if job.dsn:
        options["dsn"] = {**job.dsn, "recipient": f"rfc822;{job.recipient}"}
    if job.login is not None:
        mechanism, user, password = job.login
        options |= {"authMethod": mechanism, "auth": {"user": user, "pass": password}}
    mode, authority = "starttls", os.devnull
    if job.pair is None:
        mode = "plain"
        options["ignoreTLS"] = True
    else:
        authority = os.fspath(job.pair.certificate)
    words = [mode, host, str(port), authority, job.sender, job.recipient, json.dumps(options)]
    return [*nodemailer_script(), *words]


def go(job: Job, folder: Path) -> list[str]:
    """Go's net/smtp, which knows PLAIN of all mechanisms; always with TLS."""
    host, port = job.where
    assert job.pair is not None
    command = [built("go-client"), "starttls", host, str(port), os.fspath(job.pair.certificate)]
    command += [job.sender, job.recipient]
    return command + list(job.login[1:] if job.login is not None else ())


def nodemailer_script() -> list[str]:
    """The command of the script, without its arguments."""
    return ["env", f"NODE_PATH={built('node/node_modules')}", "node", os.fspath(_SCRIPT)]


def built(name: str) -> str:
    """What scripts/build-test-clients.sh has made."""
    path = _BUILT / name
    assert path.exists(), (
        "make python-test builds the clients; so does scripts/build-test-clients.sh"
    )
    return os.fspath(path)
