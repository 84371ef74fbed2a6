"""nginx as mail proxy before the daemon, with the configs of `examples/nginx`."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

from tests.certificates import Pair, self_signed, trusting
from tests.clients.auth_http import RouteServer
from tests.clients.messages import HELO, MESSAGE, RECIPIENT, SENDER, assert_stored
from tests.clients.name_server import NameServer
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
from tests.running import RunningDaemon

NAME: Final = "host-2.example.org"
"""What the name server says that `CLIENT` is called; not what the client says itself."""
WAYS: Final = ("plain", "starttls", "tls")


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    smtp: int
    """Its port for SMTP and STARTTLS."""
    smtps: int
    """Its port for implicit TLS."""
    pair: Pair

    def client(self, way: str) -> smtplib.SMTP:
        """Connected from `CLIENT`, in TLS where the way says so."""
        source, context = (CLIENT, 0), trusting(self.pair)
        if way == "tls":
            return smtplib.SMTP_SSL(
                HOST, self.smtps, HELO, timeout=20, source_address=source, context=context
            )
        client = smtplib.SMTP(HOST, self.smtp, HELO, timeout=20, source_address=source)
        if way == "starttls":
            client.starttls(context=context)
        return client


@contextmanager
def nginx_before(daemon: RunningDaemon, folder: Path, route: str | None = None) -> Iterator[Nginx]:
    """Runs nginx with the example's config, as the user who runs the tests.

    Args:
        daemon: where mail goes.
        folder: a new one.
        route: who is asked where a mail is to go, as `ip:port`; by default itself.
    """
    folder.mkdir()
    smtp, smtps, auth = free_ports(3)
    pair = self_signed(folder, HOST)
    unused = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    with NameServer(NAME, CLIENT) as names:
        changes = {
            "auth_http 127.0.0.1:8025": f"auth_http {route or f'{HOST}:{auth}'}",
            "listen 127.0.0.1:8025": f"listen {HOST}:{auth}",
            "listen 127.0.0.1:25;": f"listen {HOST}:{smtp};",
            "listen 127.0.0.1:465 ssl;": f"listen {HOST}:{smtps} ssl;",
            "Auth-Port 2525;": f"Auth-Port {daemon.port};",
            "resolver 127.0.0.1;": f"resolver {names.address};",
            "/etc/ssl/certs/mx1.example.com.crt": f"{pair.certificate}",
            "/etc/ssl/private/mx1.example.com.key": f"{pair.key}",
            "/run/nginx.pid": f"{folder / 'nginx.pid'}",
            "/var/log/nginx/error.log": "stderr",
            # Debian's folders for what nginx never has here are root's.
            "    access_log off;": "    access_log off;"
            + "".join(f"\n    {kind}_temp_path {folder / kind};" for kind in unused),
        }
        config = folder / "nginx.conf"
        config.write_text(filled("nginx/nginx.conf", changes), encoding="utf-8")
        command = [program("nginx"), "-c", f"{config}", "-e", "stderr"]
        command += ["-g", "daemon off; master_process off;"]
        ask = b"GET /route HTTP/1.0\r\n\r\n"
        with Proxy(folder, command, lambda: " 204 " in asked(auth, ask)):
            yield Nginx(smtp, smtps, pair)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    """With the example's config."""
    with example_daemon(tmp_path / "daemon", "nginx/guerrilla.toml", {}) as running:
        yield running


@pytest.fixture
def nginx(daemon: RunningDaemon, tmp_path: Path) -> Iterator[Nginx]:
    """Before the daemon."""
    with nginx_before(daemon, tmp_path / "nginx") as running:
        yield running


@pytest.mark.parametrize("way", WAYS)
def test_the_stored_mail_is_from_the_true_client(
    daemon: RunningDaemon, nginx: Nginx, way: str
) -> None:
    with nginx.client(way) as client:
        assert client.sendmail(SENDER, [RECIPIENT], MESSAGE) == {}
    row = assert_stored(daemon, helo=HELO)
    assert ip_address(row["ip_addr"]) == ip_address(f"::ffff:{CLIENT}")
    # TLS, where there was any, ended at nginx.
    assert row["is_tls"] == 0
    delivery_header = row["mail"].removesuffix(MESSAGE)
    assert f"from {HELO} ({NAME} [{CLIENT}])".encode() in delivery_header
    assert b" with ESMTP id " in delivery_header
    [seen] = witnessed(daemon.folder)
    assert (seen["remote_ip"], seen["remote_name"], seen["helo"]) == (CLIENT, NAME, HELO)
    assert seen["esmtp"]
    assert seen["tls"] is None


def test_helo_and_several_mails_on_one_connection(daemon: RunningDaemon, nginx: Nginx) -> None:
    """Once a mail is on its way, nginx stands aside: the rest of the session is the client's."""
    with nginx.client("plain") as client:
        client.helo(HELO)
        for _ in range(3):
            assert client.sendmail(SENDER, [RECIPIENT, "carol@example.com"], MESSAGE) == {}
    seen = witnessed(daemon.folder)
    assert [(one["remote_ip"], one["helo"], one["esmtp"]) for one in seen] == [
        (CLIENT, HELO, False)
    ] * 3
    assert len(daemon.rows()) == 6


def test_what_guerrilla_refuses_is_told_to_the_client(nginx: Nginx) -> None:
    with nginx.client("starttls") as client, pytest.raises(smtplib.SMTPRecipientsRefused) as error:
        client.sendmail(SENDER, ["bob@elsewhere.example"], MESSAGE)
    code, text = error.value.recipients["bob@elsewhere.example"]
    assert code == 550
    assert b"5.7.1" in text
    assert b"elsewhere.example" in text


def test_nginx_asks_where_a_mail_is_to_go(daemon: RunningDaemon, tmp_path: Path) -> None:
    with (
        RouteServer("127.0.0.1", daemon.port) as routes,
        nginx_before(daemon, tmp_path / "nginx", routes.address) as nginx,
        nginx.client("tls") as client,
    ):
        client.sendmail(SENDER, [RECIPIENT], MESSAGE)
    assert_stored(daemon, helo=HELO)
    [asked_for] = routes.asked
    assert asked_for["Client-IP"] == CLIENT
    assert asked_for["Client-Host"] == NAME
    assert asked_for["Auth-SMTP-Helo"] == HELO
    assert RECIPIENT in asked_for["Auth-SMTP-To"]


def test_a_client_cannot_say_xclient_through_nginx(daemon: RunningDaemon, nginx: Nginx) -> None:
    """From the first recipient on nginx passes on all that the client says."""
    with nginx.client("plain") as client:
        client.ehlo()
        assert client.mail(SENDER)[0] == 250
        assert client.rcpt(RECIPIENT)[0] == 250
        assert client.rset()[0] == 250
        code, text = client.docmd("XCLIENT", "ADDR=192.0.2.1 NAME=bank.example")
        assert (code, text[:5]) == (550, b"5.7.0")
        client.sendmail(SENDER, [RECIPIENT], MESSAGE)
    assert [seen["remote_ip"] for seen in witnessed(daemon.folder)] == [CLIENT]
