"""Daemons within the process of a test, and a processor that does what a mail says."""

from __future__ import annotations

import smtplib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from guerrilla._core import Address, Envelope, Transaction
from guerrilla.config import AppConfig, from_mapping
from guerrilla.daemon import Daemon
from guerrilla.engine.base import Processor
from guerrilla.errors import StartError
from guerrilla.reply import Outcome, Reply
from tests.running import RunningDaemon
from tests.wire import PATIENCE, Wire

Until = Callable[[Callable[[], object]], None]


class Keeper(Processor):
    """Keeps mails in memory and calls that storing; does what the subject says before."""

    stores = True
    kept: ClassVar[list[bytes]]
    envelopes: ClassVar[list[Envelope]]
    release: ClassVar[threading.Event]
    entered: ClassVar[threading.Event]
    did: ClassVar[list[str]]

    def open(self) -> None:
        self.did.append("open")

    def close(self) -> None:
        self.did.append("close")

    def save(self, envelope: Envelope) -> Outcome:
        match envelope.subject:
            case "raise":
                raise ValueError
            case "nonsense":
                return "250"  # type: ignore[return-value]
            case "exit":
                raise SystemExit(1)
            case "hang":
                self.entered.set()
                self.release.wait(30)
        self.kept.append(bytes(envelope.data))
        self.envelopes.append(envelope)
        return None

    def validate(self, transaction: Transaction, recipient: Address) -> Reply | None:
        return Reply(550, "5.1.1", "who?") if recipient.user == "nobody" else None


@pytest.fixture
def keeper() -> Iterator[type[Keeper]]:
    """A keeper class of the test's own."""

    class Own(Keeper):
        kept: ClassVar[list[bytes]] = []
        envelopes: ClassVar[list[Envelope]] = []
        did: ClassVar[list[str]] = []
        release = threading.Event()
        entered = threading.Event()

    yield Own
    Own.release.set()


def config(**backend: Any) -> dict[str, Any]:
    """A config with one server, on a free port, whose mails a keeper has."""
    return {
        "servers": [{"listen_interface": "127.0.0.1:0", "host_name": "mx.example.com"}],
        "allowed_hosts": ["example.com"],
        "log_file": "off",
        "backend_config": {"save_process": "HeadersParser|Keeper", **backend},
    }


@pytest.fixture
def make(keeper: type[Keeper]) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that know the keeper; stops them at the end."""
    made: list[Daemon] = []

    def daemon(raw: dict[str, Any] | None = None, **keys: Any) -> Daemon:
        found = Daemon(from_mapping({**(raw or config()), **keys}))
        found.add_processor("Keeper", keeper)
        made.append(found)
        return found

    yield daemon
    keeper.release.set()
    for one in made:
        one.shutdown(5)


Make = Callable[..., Daemon]


@contextmanager
def starting(
    name: str, processor: type[Processor], release: Callable[[], object]
) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons that know a processor by that name; stops them once what hangs is released."""
    made: list[Daemon] = []

    def start(config: AppConfig, **keys: Any) -> Daemon:
        daemon = Daemon(config, **keys)
        daemon.add_processor(name, processor)
        made.append(daemon)
        daemon.start()
        return daemon

    yield start
    release()
    for daemon in made:
        daemon.shutdown(10)


def with_header(**server: Any) -> dict[str, Any]:
    """`config`, with these keys of its server, and `Received:` made before a mail is kept."""
    raw = config(save_process="HeadersParser|Header|Keeper")
    raw["servers"][0] |= server
    return raw


def where(daemon: Daemon | RunningDaemon, index: int = 0) -> tuple[str, int]:
    """Address and port of one of its servers."""
    host, _, port = daemon.addresses[index].rpartition(":")
    return host.strip("[]"), int(port)


def connect(daemon: Daemon, source: str = "127.0.0.1", *, greeted: bool = True) -> Wire:
    """A client of its first server, from this address."""
    client = socket.create_connection(where(daemon), PATIENCE, source_address=(source, 0))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Wire(client, greeted=greeted)


def received(envelope: Envelope) -> str:
    """The value of the `Received:` field that was made, without its folding."""
    field = envelope.delivery_header.partition(b"Received: ")[2]
    return " ".join(field.decode().split())


def send(daemon: Daemon, subject: str = "hello", to: str = "to@example.com") -> tuple[int, bytes]:
    """Sends one mail; the reply to its data."""
    client = smtplib.SMTP(*where(daemon), timeout=30)
    try:
        client.ehlo("client.example.org")
        client.mail("from@example.org")
        code, text = client.rcpt(to)
        if code != 250:
            return code, text
        return client.data(f"Subject: {subject}\r\n\r\nbody\r\n".encode())
    finally:
        # Without QUIT: a daemon that stops says 421 instead of waiting for it.
        client.close()


def problems(daemon: Daemon) -> tuple[str, ...]:
    with pytest.raises(StartError) as caught:
        daemon.start()
    assert daemon.addresses == []
    assert daemon.wait(0)
    return caught.value.problems
