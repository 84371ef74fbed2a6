"""A receiver behind nginx: TLS and who is trusted, kept connections that end, and its limits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from guerrilla._core import Address, Envelope
from guerrilla.errors import StartError
from tests.certificates import Pair, self_signed
from tests.clients.proxies import HOST, Proxy, free_ports, program
from tests.services.webhook import Receiver
from tests.webhook.helpers import a_mail, codes, opened, post, told

BODY_LIMIT = 100_000
REQUESTS = 5
"""Of a connection, after which nginx closes it."""

CONFIG = """
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests {requests};
    client_max_body_size {limit};
    server {{
        listen {host}:{plain};
        listen {host}:{tls} ssl;
        ssl_certificate {pair.certificate};
        ssl_certificate_key {pair.key};
        location / {{
            auth_basic "mail";
            auth_basic_user_file {folder}/users;
            proxy_pass http://127.0.0.1:{receiver};
        }}
        location /moved {{ return 308 /; }}
    }}
    server {{
        listen {host}:{misnamed} ssl;
        ssl_certificate {other.certificate};
        ssl_certificate_key {other.key};
    }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    plain: str
    """URL."""
    tls: str
    """URL; the certificate is for its address."""
    misnamed: str
    """URL; the certificate is for another name."""
    pair: Pair
    other: Pair
    receiver: Receiver


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Before the example's receiver; it lets in who says that he is user, with pass."""
    folder = tmp_path_factory.mktemp("nginx")
    pair = self_signed(folder, HOST)
    other = self_signed(folder, "mail.example.com", stem="other")
    plain, tls, misnamed = free_ports(3)
    (folder / "users").write_text("user:{PLAIN}pass\n")
    (folder / "receiver").mkdir()
    with Receiver(folder / "receiver", "secret") as receiver:
        config = folder / "nginx.conf"
        config.write_text(
            CONFIG.format(
                folder=folder,
                requests=REQUESTS,
                limit=BODY_LIMIT,
                host=HOST,
                plain=plain,
                tls=tls,
                misnamed=misnamed,
                pair=pair,
                other=other,
                receiver=receiver.port,
            )
        )
        command = [program("nginx"), "-c", f"{config}", "-e", "stderr"]
        command += ["-g", "daemon off; master_process off;"]

        def is_ready() -> bool:
            socket.create_connection((HOST, tls), 5).close()
            return True

        with Proxy(folder, command, is_ready):
            yield Nginx(
                f"http://user:pass@{HOST}:{plain}/mail",
                f"https://user:pass@{HOST}:{tls}/mail",
                f"https://user:pass@{HOST}:{misnamed}/mail",
                pair,
                other,
                receiver,
            )


@pytest.mark.parametrize("keys", [{}, {"http_format": "raw"}, {"http_batch": "batch"}])
def test_mails_come_through_tls(nginx: Nginx, keys: dict[str, str]) -> None:
    before = len(nginx.receiver.stored())
    mails = [a_mail(str(number)) for number in range(50)]
    more = {"http_ca_file": str(nginx.pair.certificate), "http_secret": "secret"}
    assert codes(post(nginx.tls, *mails, **keys, **more)) == [250] * 50
    assert len(nginx.receiver.stored()) == before + 50


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_certificate_that_nobody_signed_stops_the_start(nginx: Nginx, scheme: str) -> None:
    url = nginx.tls.replace("https", scheme)
    with pytest.raises(StartError, match="certificate verify failed"), opened(url):
        pass


def test_a_certificate_of_another_host_stops_the_start(nginx: Nginx) -> None:
    keys = {"http_ca_file": str(nginx.other.certificate)}
    with pytest.raises(StartError, match="IP address mismatch"), opened(nginx.misnamed, **keys):
        pass


def test_a_certificate_is_not_looked_at_where_that_is_said(
    nginx: Nginx, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {"http_verify": False, "http_secret": "secret"}
    assert codes(post(nginx.tls, a_mail(), **keys)) == [250]
    assert "http_verify is off" in caplog.text


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_connections_that_nginx_ends_cost_no_mail(nginx: Nginx, way: str) -> None:
    url = {"plain": nginx.plain, "tls": nginx.tls}[way]
    keys = {"http_ca_file": str(nginx.pair.certificate), "http_secret": "secret"}
    with opened(url, **keys) as chain:
        assert [told(chain, a_mail()) for _ in range(4 * REQUESTS)] == [250] * (4 * REQUESTS)


def test_a_mail_that_is_too_long_for_nginx(nginx: Nginx) -> None:
    mails = [a_mail(body=bytes(size)) for size in (100, 2 * BODY_LIMIT, 100)]
    keys = {"http_secret": "secret", "http_client_error": "550", "http_format": "raw"}
    assert codes(post(nginx.plain, *mails, **keys)) == [250, 552, 250]


def test_a_batch_that_is_too_long_for_nginx(nginx: Nginx) -> None:
    mails = [a_mail(body=b"x" * size) for size in (50_000, 60_000, 2 * BODY_LIMIT, 100)]
    keys = {"http_secret": "secret", "http_client_error": "550", "http_batch": "batch"}
    assert codes(post(nginx.plain, *mails, **keys)) == [250, 250, 552, 250]


def test_a_password_that_is_wrong_refuses_no_mail(nginx: Nginx) -> None:
    url = nginx.plain.replace("pass", "wrong")
    keys = {"http_secret": "secret", "http_client_error": "550"}
    assert codes(post(url, a_mail(), **keys)) == [451]


def test_a_redirect_of_nginx(nginx: Nginx) -> None:
    url = nginx.plain.replace("/mail", "/moved")
    assert codes(post(url, a_mail(), http_secret="secret")) == [451]


@pytest.mark.parametrize(("count", "asks"), [(150, False), (50, True)])
def test_so_many_recipients_fit_into_a_header_line(nginx: Nginx, count: int, asks: bool) -> None:
    """As the page says; of 40 characters each."""
    host = "subdomain.of.example.com"
    users = [f"recipient-{number:03d}" for number in range(count)]
    assert {len(f"{user}@{host}") for user in users} == {38}
    mail = Envelope.create(
        b"Subject: many\r\n\r\n",
        mail_from="from@example.org",
        rcpt_to=[
            Address(user, host, {"ORCPT": f"rfc822;{user}@{host}"} if asks else None)
            for user in users
        ],
    )
    keys = {"http_secret": "secret", "http_format": "raw"}
    assert codes(post(nginx.plain, mail, **keys)) == [250]
