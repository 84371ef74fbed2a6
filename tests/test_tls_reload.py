"""New certificates for a daemon that runs: by `reload_tls` and by `tls.watch`."""

from __future__ import annotations

import logging
import smtplib
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from guerrilla import tlswatch
from tests.daemons import Keeper, Make, Until, problems, where
from tests.pairs import Files, der, make_pair, unverified

if TYPE_CHECKING:
    from guerrilla.daemon import Daemon


class Client:
    """A client in TLS that verifies nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self.smtp = smtplib.SMTP(*where(daemon), timeout=30)
        self.smtp.ehlo("client.example.org")
        self.smtp.starttls(context=unverified())
        sock = self.smtp.sock
        assert isinstance(sock, ssl.SSLSocket)
        certificate = sock.getpeercert(binary_form=True)
        assert certificate is not None
        self.certificate = certificate

    def send(self) -> None:
        self.smtp.sendmail("from@example.org", ["to@example.com"], "Subject: hello\r\n\r\nbody\r\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.smtp.close()


def shown(daemon: Daemon) -> bytes:
    """The certificate that a new connection sees."""
    with Client(daemon) as client:
        return client.certificate


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are as often as a test has patience."""
    monkeypatch.setattr(tlswatch, "INTERVAL", 0.02)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of TLS files."""
    return [record.getMessage() for record in caplog.records if record.name == "guerrilla.tls"]


def test_a_new_certificate_drops_no_connection(
    make: Make, keeper: type[Keeper], files: Files, tmp_path: Path
) -> None:
    first, second = (make_pair(tmp_path, name) for name in ("one.example", "two.example"))
    files.write(*first)
    with make(files.config()) as daemon, Client(daemon) as old:
        assert old.certificate == der(first[1])
        files.write(*second)
        assert daemon.reload_tls() == []
        assert shown(daemon) == der(second[1])
        old.send()
    assert len(keeper.kept) == 1


def test_a_pair_that_does_not_fit_leaves_the_old_one(
    make: Make, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (make_pair(tmp_path, name) for name in ("one.example", "two.example"))
    files.write(*first)
    with make(files.config()) as daemon:
        files.write(second[0], first[1])
        with caplog.at_level(logging.ERROR, "guerrilla.tls"):
            (problem,) = daemon.reload_tls()
        assert problem.startswith("servers[0].tls.")
        assert said(caplog) == [f"{problem}; what was loaded before stays in use"]
        assert shown(daemon) == der(first[1])
        files.chain.unlink()
        (problem,) = daemon.reload_tls()
        assert problem.startswith("servers[0].tls.public_key_file: ")
        assert shown(daemon) == der(first[1])
        files.write(*second)
        assert daemon.reload_tls() == []
        assert shown(daemon) == der(second[1])


def test_a_watched_file_is_taken_over_by_itself(
    make: Make, files: Files, until: Until, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    del often
    tmp_path = files.key.parent
    first, second = (make_pair(tmp_path, name) for name in ("one.example", "two.example"))
    files.write(*first)
    with make(files.config(watch=True)) as daemon, caplog.at_level(logging.INFO, "guerrilla.tls"):
        files.write(*second)
        until(lambda: shown(daemon) == der(second[1]))
        assert said(caplog) == [
            "servers[0].tls: what changed in its files is taken over for new connections"
        ]


def test_files_that_cannot_be_used_stop_the_start(make: Make, files: Files, tmp_path: Path) -> None:
    """All of them, each once, however many addresses a server has."""
    first = make_pair(tmp_path, "one.example")
    second = make_pair(tmp_path, "two.example", "rsa")
    files.write(first[0], second[1])
    raw = files.config()
    raw["servers"][0]["listen_interface"] = "localhost:0"
    missing = str(tmp_path / "missing")
    pair = {"private_key_file": missing, "public_key_file": str(files.chain)}
    raw["servers"].append(
        {"listen_interface": "127.0.0.1:0", "tls": {"tls_always_on": True, **pair}}
    )
    found = problems(make(raw))
    assert [line.partition(": ")[0].rpartition(".")[0] for line in found] == [
        "servers[0].tls",
        "servers[1].tls",
    ]
    assert missing in found[1]
