"""Exim, as it sends mail into the world, delivers to a running daemon."""

from __future__ import annotations

import contextlib
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
from tests.running import RunningDaemon
from tests.services.exim import CHUNKED, KEPT, Exim


@pytest.mark.timeout(400)
def test_it_sends_chunks(tmp_path: Path, folder: Path) -> None:
    with RunningDaemon(tmp_path) as daemon:
        exim = Exim(folder, daemon.port)
        deliver_all(exim, daemon, mails())
    assert all(CHUNKED in one.line for one in exim.outcomes())


def test_it_sends_chunks_over_tls(tmp_path: Path, folder: Path) -> None:
    pair = self_signed(folder)
    verifying = {
        "hosts_require_tls": "*",
        "tls_verify_hosts": "*",
        "tls_verify_cert_hostnames": "",
        "tls_verify_certificates": os.fspath(pair.certificate),
    }
    with RunningDaemon(tmp_path, server=STARTTLS % (pair.key, pair.certificate)) as daemon:
        exim = Exim(folder, daemon.port, verifying)
        deliver_all(exim, daemon, mails()[:50])
        assert all(row["is_tls"] for row in daemon.rows())
    assert all(" CV=yes " in one.line and CHUNKED in one.line for one in exim.outcomes())


def test_it_sends_many_on_one_connection(tmp_path: Path, folder: Path) -> None:
    with RunningDaemon(tmp_path) as daemon:
        exim = Exim(folder, daemon.port, keep=True)
        deliver_all(exim, daemon, mails()[:30])
    kept = [one for one in exim.outcomes() if KEPT in one.line]
    assert len(kept) > 20
    assert all(CHUNKED in one.line for one in kept)


@pytest.mark.timeout(400)
def test_its_lmtp_client(tmp_path: Path, folder: Path) -> None:
    with RunningDaemon(tmp_path, server=SERVERS["lmtp"]) as daemon:
        deliver_all(Exim(folder, daemon.port, {"protocol": "lmtp"}), daemon, mails())
        assert all(b" with LMTP id " in row["mail"] for row in daemon.rows())


def test_its_lmtp_client_hears_of_each_recipient(tmp_path: Path, folder: Path) -> None:
    check_fates(tmp_path, by("lmtp", folder))


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_addresses_and_headers_in_utf_8(tmp_path: Path, folder: Path, protocol: str) -> None:
    check_utf8(tmp_path, protocol, by(protocol, folder))


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_what_is_asked_of_notifications(tmp_path: Path, folder: Path, protocol: str) -> None:
    check_notifications(tmp_path, protocol, by(protocol, folder))


def by(protocol: str, folder: Path) -> Sending:
    """Exim's client, which speaks both."""
    return lambda daemon: contextlib.nullcontext(Exim(folder, daemon.port, {"protocol": protocol}))
