"""HAProxy before the daemon, with the configs of `examples/haproxy`."""

from __future__ import annotations

import csv
import smtplib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Pair, self_signed
from tests.clients.messages import HELO, MESSAGE, RECIPIENT, SENDER, assert_stored
from tests.proxies import CLIENT, HOST, Proxy, asked, example_daemon, filled, free_ports, program
from tests.running import RunningDaemon
from tests.tls_servers import ports, trusting
from tests.wire import Wire, until
from tests.witnesses import witnessed

SEND_PROXY: Final = {1: "send-proxy ", 2: "send-proxy-v2 "}
"""HAProxy's word for each version of the PROXY protocol."""
WAYS: Final = ("plain", "starttls", "tls")

V1: Final = b"PROXY TCP4 192.0.2.1 192.0.2.2 4242 25\r\n"
V2: Final = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(
    [192, 0, 2, 1, 192, 0, 2, 2, 16, 146, 0, 25]
)


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
    plain, tls = ports(daemon)
    changes = {
        "    user haproxy\n": "",
        "    group haproxy\n": "",
        "stats socket /run/haproxy/admin.sock mode 660 ": f"stats socket ipv4@{HOST}:{stats} ",
        "bind 127.0.0.1:25\n": f"bind {HOST}:{smtp}\n",
        "bind 127.0.0.1:465\n": f"bind {HOST}:{smtps}\n",
        "127.0.0.1:2525 ": f"127.0.0.1:{plain} ",
        "127.0.0.1:4465 ": f"127.0.0.1:{tls} ",
        "send-proxy-v2 ": SEND_PROXY[version],
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
        '"127.0.0.1:4465"': '"127.0.0.1:0"',
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


@pytest.mark.parametrize("header", [b"", V1, V2], ids=["none", "v1", "v2"])
def test_a_peer_that_is_not_trusted_is_refused(daemon: RunningDaemon, header: bytes) -> None:
    where = ("127.0.0.1", daemon.port)
    client = socket.create_connection(where, timeout=20, source_address=(CLIENT, 0))
    with Wire(client, greeted=False) as wire:
        wire.send(header)
        [line] = wire.rest()
        assert line.startswith("421 4.7.0 ")


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.example.org\r\n",
        b"PROXY TCP4 192.0.2.1\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 4242 25\r\n",
        b"PROXY " + b"x" * 200,
        V2.replace(b"QUIT", b"QUIP"),
        V2.replace(b"\x21\x11", b"\x31\x11"),
        b"\x16\x03\x01\x02\x00\x01",
    ],
    ids=["SMTP", "short", "no address", "too long", "signature", "version 3", "TLS"],
)
@pytest.mark.parametrize("server", [0, 1], ids=["plain", "tls"])
def test_a_trusted_peer_without_a_header_is_closed(
    daemon: RunningDaemon, server: int, octets: bytes
) -> None:
    with Wire(ports(daemon)[server], greeted=False) as wire:
        wire.send(octets)
        assert wire.rest() == []
    until(lambda: [line for line in daemon.log_text().splitlines() if "PROXY" in line])


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_header_is_believed_of_the_proxy(daemon: RunningDaemon, header: bytes) -> None:
    """So that the tests above can fail; with the first command in the same segment."""
    with Wire(daemon.port, greeted=False) as wire:
        wire.send(header + b"NOOP\r\n")
        assert wire.reply().startswith("220 ")
        assert wire.reply().startswith("250 ")
        assert wire.deliver(b"Subject: hello\r\n\r\n").startswith("250 ")
    [seen] = witnessed(daemon.folder)
    assert (seen["remote_ip"], seen["remote_port"]) == ("192.0.2.1", 4242)
    assert (seen["local_ip"], seen["local_port"]) == ("192.0.2.2", 25)


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
