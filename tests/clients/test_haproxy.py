"""HAProxy before the daemon, with the configs of `examples/haproxy`."""

from __future__ import annotations

import csv
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Pair, self_signed, trusting
from tests.clients.messages import HELO, MESSAGE, RECIPIENT, SENDER, assert_stored
from tests.clients.proxies import (
    CLIENT,
    HOST,
    Proxy,
    asked,
    example_daemon,
    filled,
    free_ports,
    program,
)
from tests.clients.witnesses import witnessed
from tests.daemons import where
from tests.running import RunningDaemon
from tests.wire import until

SEND_PROXY: Final = {1: "send-proxy ", 2: "send-proxy-v2 "}
"""HAProxy's word for each version of the PROXY protocol."""
WAYS: Final = ("plain", "starttls", "tls")


@dataclass(frozen=True)
class HAProxy:
    """A running HAProxy."""

    smtp: int
    smtps: int
    stats: int

    def states(self) -> dict[str, tuple[str, str]]:
        """Status, and that of the last check, of each backend's server."""
        table = asked(self.stats, b"show stat\n").lstrip("# ")
        return {
            row["pxname"]: (row["status"], row["check_status"])
            for row in csv.DictReader(table.splitlines())
            if row["svname"] == "mx1"
        }


@contextmanager
def haproxy_before(daemon: RunningDaemon, folder: Path, version: int) -> Iterator[HAProxy]:
    """Runs HAProxy with the example's config, as the user who runs the tests."""
    folder.mkdir()
    smtp, smtps, stats = free_ports(3)
    [(plain, plain_port), (tls, tls_port)] = where(daemon), where(daemon, 1)
    changes = {
        "    user haproxy\n": "",
        "    group haproxy\n": "",
        "stats socket /run/haproxy/admin.sock mode 660 ": f"stats socket ipv4@{HOST}:{stats} ",
        "bind 127.0.0.1:25\n": f"bind {HOST}:{smtp}\n",
        "bind 127.0.0.1:465\n": f"bind {HOST}:{smtps}\n",
        "127.0.0.1:2525 ": f"{plain}:{plain_port} ",
        "127.0.0.1:4465 ": f"{tls}:{tls_port} ",
        "send-proxy-v2 ": SEND_PROXY[version],
        "inter 5s": "inter 200ms",
    }
    config = folder / "haproxy.cfg"
    config.write_text(filled("haproxy/haproxy.cfg", changes), encoding="utf-8")
    running = HAProxy(smtp, smtps, stats)
    with Proxy(folder, [program("haproxy"), "-db", "-f", f"{config}"], running.states):
        yield running


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """The daemon's: HAProxy leaves TLS alone."""
    return self_signed(tmp_path, HOST, "127.0.0.1")


@pytest.fixture
def daemon(tmp_path: Path, pair: Pair) -> Iterator[RunningDaemon]:
    """With the example's config."""
    changes = {
        '"127.0.0.1:4465"': '"127.0.0.3:0"',  # two servers cannot both be 127.0.0.1:0
        "/etc/ssl/private/mx1.example.com.key": f"{pair.key}",
        "/etc/ssl/certs/mx1.example.com.crt": f"{pair.certificate}",
    }
    with example_daemon(tmp_path / "daemon", "haproxy/guerrilla.toml", changes) as running:
        yield running


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_the_stored_mail_is_from_the_true_client(
    daemon: RunningDaemon, pair: Pair, tmp_path: Path, way: str, version: int
) -> None:
    """On the port of implicit TLS the PROXY header comes before the handshake."""
    with haproxy_before(daemon, tmp_path / "haproxy", version) as haproxy:
        with connected(haproxy, pair, way) as client:
            assert client.sock is not None
            own_port = client.sock.getsockname()[1]
            assert client.sendmail(SENDER, [RECIPIENT], MESSAGE) == {}
        row = assert_stored(daemon, helo=HELO)
    assert ip_address(row["ip_addr"]) == ip_address(f"::ffff:{CLIENT}")
    assert row["is_tls"] == int(way != "plain")
    delivery_header = row["mail"].removesuffix(MESSAGE)
    assert f"from {HELO} ([{CLIENT}])".encode() in delivery_header
    assert (b" with ESMTPS id " in delivery_header) == (way != "plain")
    [seen] = witnessed(daemon.folder)
    assert (seen["remote_ip"], seen["remote_port"]) == (CLIENT, own_port)
    front = haproxy.smtps if way == "tls" else haproxy.smtp
    assert (seen["local_ip"], seen["local_port"]) == (HOST, front)
    assert (seen["helo"], seen["remote_name"]) == (HELO, None)


@pytest.mark.parametrize("version", [1, 2])
def test_health_checks_find_the_daemon_well(
    daemon: RunningDaemon, tmp_path: Path, version: int
) -> None:
    """Their header says LOCAL, or UNKNOWN in version 1: the connection is the proxy's own."""
    with haproxy_before(daemon, tmp_path / "haproxy", version) as haproxy:
        well = {"guerrilla": ("UP", "L7OK"), "guerrilla-tls": ("UP", "L7OK")}
        until(lambda: haproxy.states() == well)
    assert not [line for line in daemon.log_text().splitlines() if "PROXY" in line]


def connected(haproxy: HAProxy, pair: Pair, way: str) -> smtplib.SMTP:
    """A client from `CLIENT`, in TLS where the way says so."""
    source, context = (CLIENT, 0), trusting(pair)
    if way == "tls":
        return smtplib.SMTP_SSL(
            HOST, haproxy.smtps, HELO, timeout=20, source_address=source, context=context
        )
    client = smtplib.SMTP(HOST, haproxy.smtp, HELO, timeout=20, source_address=source)
    if way == "starttls":
        client.starttls(context=context)
    return client
