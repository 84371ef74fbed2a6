"""Postfix, as it sends mail into the world, delivers to a running daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.certificates import self_signed
from tests.interwork.checks import (
    SERVERS,
    STARTTLS,
    Sending,
    check_fates,
    check_notifications,
    check_utf8,
)
from tests.interwork.mails import deliver_all, mails
from tests.running import RunningDaemon, listeners
from tests.services.postfix import Postfix


def test_its_smtp_client_over_tls(tmp_path: Path, folder: Path) -> None:
    pair = self_signed(tmp_path)
    secure = {
        "smtp_tls_security_level": "secure",
        "smtp_tls_CAfile": os.fspath(pair.certificate),
        "smtp_tls_secure_cert_match": "mx.example.com",
        "smtp_tls_loglevel": "1",
    }
    with (
        RunningDaemon(tmp_path, server=STARTTLS % (pair.key, pair.certificate)) as daemon,
        Postfix(folder, nexthop("smtp", daemon), secure) as postfix,
    ):
        deliver_all(postfix, daemon, mails())
        assert "Verified TLS connection established" in postfix.log
        assert all(row["is_tls"] for row in daemon.rows())


def test_its_lmtp_client(tmp_path: Path, folder: Path) -> None:
    with (
        RunningDaemon(tmp_path, server=SERVERS["lmtp"]) as daemon,
        Postfix(folder, nexthop("lmtp", daemon)) as postfix,
    ):
        deliver_all(postfix, daemon, mails())
        assert all(b" with LMTP id " in row["mail"] for row in daemon.rows())


def test_its_lmtp_client_over_a_unix_socket(tmp_path: Path, folder: Path) -> None:
    socket = folder / "lmtp.sock"
    config = listeners(tmp_path, f"unix:{socket}")
    # Postfix's own user has to write to it.
    keys = f"{SERVERS['lmtp']}unix_mode = '0666'\nhost_name"
    config = config.replace("host_name", keys, 1)
    with (
        RunningDaemon(tmp_path, config=config) as daemon,
        Postfix(folder, f"lmtp:unix:{socket}") as postfix,
    ):
        deliver_all(postfix, daemon, mails())


def test_its_lmtp_client_hears_of_each_recipient(tmp_path: Path, folder: Path) -> None:
    check_fates(tmp_path, by("lmtp", folder))


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_addresses_and_headers_in_utf_8(tmp_path: Path, folder: Path, protocol: str) -> None:
    check_utf8(tmp_path, protocol, by(protocol, folder))


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_what_is_asked_of_notifications(tmp_path: Path, folder: Path, protocol: str) -> None:
    check_notifications(tmp_path, protocol, by(protocol, folder))


def by(protocol: str, folder: Path) -> Sending:
    """Postfix's client for one of its protocols."""
    return lambda daemon: Postfix(folder, nexthop(protocol, daemon))


def nexthop(protocol: str, daemon: RunningDaemon) -> str:
    """The first server, as Postfix's `default_transport` has it."""
    kind = "inet:" if protocol == "lmtp" else ""
    return f"{protocol}:{kind}[127.0.0.1]:{daemon.port}"
