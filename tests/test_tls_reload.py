"""New certificates for a daemon that runs: by `reload_tls` and by `tls.watch`."""

from __future__ import annotations

import logging
import smtplib
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from guerrilla.running import tlswatch
from tests.certificates import Pair, self_signed, unverified
from tests.daemons import Keeper, Make, Until, problems, where

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
def live(tmp_path: Path) -> Pair:
    """The files that a daemon is told of."""
    return Pair(tmp_path / "tls.key", tmp_path / "tls.crt")


@pytest.fixture
def first(tmp_path: Path, live: Pair) -> Pair:
    """What is in them at first."""
    pair = self_signed(tmp_path, "one.example", stem="one")
    live.become(pair)
    return pair


@pytest.fixture
def second(tmp_path: Path) -> Pair:
    """What may come into them later."""
    return self_signed(tmp_path, "two.example", stem="two")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are as often as a test has patience."""
    monkeypatch.setattr(tlswatch, "INTERVAL", 0.02)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of TLS files."""
    return [record.getMessage() for record in caplog.records if record.name == "guerrilla.tls"]


def test_a_new_certificate_drops_no_connection(
    make: Make, keeper: type[Keeper], live: Pair, first: Pair, second: Pair
) -> None:
    with make(live.config()) as daemon, Client(daemon) as old:
        assert old.certificate == first.der()
        live.become(second)
        assert daemon.reload_tls() == []
        assert shown(daemon) == second.der()
        old.send()
    assert len(keeper.kept) == 1


def test_a_pair_that_does_not_fit_leaves_the_old_one(
    make: Make, live: Pair, first: Pair, second: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    with make(live.config()) as daemon:
        live.become(Pair(second.key, first.certificate))
        with caplog.at_level(logging.ERROR, "guerrilla.tls"):
            (problem,) = daemon.reload_tls()
        assert problem.startswith("servers[0].tls.")
        assert said(caplog) == [f"{problem}; what was loaded before stays in use"]
        assert shown(daemon) == first.der()
        live.certificate.unlink()
        (problem,) = daemon.reload_tls()
        assert problem.startswith("servers[0].tls.public_key_file: ")
        assert shown(daemon) == first.der()
        live.become(second)
        assert daemon.reload_tls() == []
        assert shown(daemon) == second.der()


@pytest.mark.usefixtures("often")
def test_a_watched_file_is_taken_over_by_itself(
    make: Make,
    tmp_path: Path,
    first: Pair,
    second: Pair,
    *,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Both files at once, by a link: a look between two would find, and tell, what does not fit.
    for name, pair in (("old", first), ("new", second)):
        (tmp_path / name).mkdir()
        Pair(tmp_path / name / "tls.key", tmp_path / name / "tls.crt").become(pair)
    (tmp_path / "now").symlink_to("old")
    live = Pair(tmp_path / "now/tls.key", tmp_path / "now/tls.crt")
    with make(live.config(watch=True)) as daemon, caplog.at_level(logging.INFO, "guerrilla.tls"):
        (tmp_path / "next").symlink_to("new")
        (tmp_path / "next").rename(tmp_path / "now")
        until(lambda: shown(daemon) == second.der())
        until(lambda: said(caplog))
        assert said(caplog) == [
            "servers[0].tls: what changed in its files is taken over for new connections"
        ]


def test_files_that_cannot_be_used_stop_the_start(
    make: Make, live: Pair, first: Pair, tmp_path: Path
) -> None:
    """All of them, each once, however many addresses a server has."""
    second = self_signed(tmp_path, "two.example", stem="two", rsa=True)
    live.become(Pair(first.key, second.certificate))
    raw = live.config()
    raw["servers"][0]["listen_interface"] = "localhost:0"
    missing = str(tmp_path / "missing")
    pair = {"private_key_file": missing, "public_key_file": str(live.certificate)}
    raw["servers"].append(
        {"listen_interface": "127.0.0.1:0", "tls": {"tls_always_on": True, **pair}}
    )
    found = problems(make(raw))
    assert [line.partition(": ")[0].rpartition(".")[0] for line in found] == [
        "servers[0].tls",
        "servers[1].tls",
    ]
    assert missing in found[1]
