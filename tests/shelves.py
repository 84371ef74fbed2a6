"""Daemons with a spool, and a processor that stores behind it, or does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from guerrilla._core import Envelope
from guerrilla.config import from_mapping
from guerrilla.daemon import Daemon
from guerrilla.engine.base import Processor
from guerrilla.errors import Unavailable
from guerrilla.reply import Outcome, Reply
from tests.daemons import where
from tests.wire import HELLO, TRANSACTION, Wire

Spooling = Callable[..., Daemon]


class Shelf(Processor):
    """Keeps subjects in order; what it does with a mail is the test's to say."""

    stores = True
    kept: ClassVar[list[str]]
    tried: ClassVar[list[str]]
    seen: ClassVar[list[Envelope]]
    away: ClassVar[threading.Event]
    """Set: it is unavailable."""
    open_for: ClassVar[threading.Event]
    """Not set: whoever asks it hangs."""
    replies: ClassVar[dict[str, Reply]]
    """What it answers to a mail of that subject."""

    def save(self, envelope: Envelope) -> Outcome:
        self.tried.append(envelope.subject)
        assert self.open_for.wait(60)
        if self.away.is_set():
            raise Unavailable("the shelf is away")
        reply = self.replies.get(envelope.subject)
        if reply is None:
            self.seen.append(envelope)
            self.kept.append(envelope.subject)
        return reply


@pytest.fixture
def shelf() -> Iterator[type[Shelf]]:
    """A shelf of the test's own."""

    class Own(Shelf):
        kept: ClassVar[list[str]] = []
        tried: ClassVar[list[str]] = []
        seen: ClassVar[list[Envelope]] = []
        away = threading.Event()
        open_for = threading.Event()
        replies: ClassVar[dict[str, Reply]] = {}

    Own.open_for.set()
    yield Own
    Own.open_for.set()


class Scorer(Processor):
    """Puts into `values` what the subject says."""

    def save(self, envelope: Envelope) -> None:
        envelope.compute_hashes()
        envelope.values["odd" if envelope.subject == "odd" else "score"] = (
            object() if envelope.subject == "odd" else {"spam": [1, 2.5, None, "ü"]}
        )
        envelope.add_header("X-Score", "ü")


@pytest.fixture
def spooling(shelf: type[Shelf], tmp_path: Path) -> Iterator[Spooling]:
    """Starts daemons with a spool in the folder of the test; stops them at the end."""
    made: list[Daemon] = []

    def starting(raw: dict[str, Any] | None = None, **keys: Any) -> Daemon:
        daemon = Daemon(from_mapping({**(raw or config(tmp_path)), **keys}))
        daemon.add_processor("Shelf", shelf)
        daemon.add_processor("Scorer", Scorer)
        made.append(daemon)
        daemon.start()
        return daemon

    yield starting
    shelf.open_for.set()
    for daemon in made:
        daemon.shutdown(10)


def config(folder: Path, chain: str = "HeadersParser|250|Shelf", **backend: Any) -> dict[str, Any]:
    """A config with one server, on a free port, and a spool."""
    return {
        "servers": [{"listen_interface": "127.0.0.1:0", "host_name": "mx.example.com"}],
        "allowed_hosts": ["example.com"],
        "log_file": "off",
        "backend_config": {"save_process": chain, **backend},
        "spool": {"path": str(folder / "spool"), "min_free": 0},
    }


def send(daemon: Daemon, *subjects: str, server: int = 0, hello: bytes = HELLO) -> list[str]:
    """Sends a mail of each subject on one connection; what was answered to their data."""
    host, port = where(daemon, server)
    with Wire(f"{host}:{port}") as wire:
        wire.ask(hello)
        return [deliver(wire, subject) for subject in subjects]


def deliver(wire: Wire, subject: str, rest: bytes = b"") -> str:
    """Sends one more mail; the answer to its data, or the first that is no success before."""
    wire.send(TRANSACTION)
    replies = [wire.reply() for _ in range(3)]
    if not replies[-1].startswith("354"):
        return replies[-1]
    return wire.ask(b"Subject: %s\r\n\r\n%s\r\n.\r\n" % (subject.encode(), rest))


def hurry(daemon: Daemon) -> None:
    """Makes what waits for its next try due now."""
    spool = daemon.spool()
    assert spool is not None
    assert spool.retry(None)


def depth(daemon: Daemon) -> int:
    """Mails in its spool."""
    return int(daemon.stats()["spool_depth"])
