"""The example: its receiver and its config, and what its receiver refuses."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reference.pages import examples
from tests.running import RunningDaemon
from tests.services.webhook import RECEIVER, Receiver
from tests.webhook.helpers import a_mail, codes, post
from tests.wire import HELLO, Wire

FOLDER = RECEIVER.parents[1]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """With a secret."""
    folder = tmp_path / "receiver"
    folder.mkdir()
    with Receiver(folder, "change me") as running:
        yield running


def send(daemon: RunningDaemon) -> str:
    """The id that a mail is taken under."""
    with Wire(daemon.port) as wire:
        wire.ask(HELLO)
        wire.ask(b"MAIL FROM:<from@example.org>\r\n")
        wire.ask(b"RCPT TO:<to@example.com>\r\n")
        wire.ask(b"DATA\r\n")
        reply = wire.ask(b"Subject: hello\r\n\r\nbody\r\n.\r\n")
    assert reply.startswith("250 2.0.0 OK: queued as ")
    return reply.rpartition(" ")[2]


def test_the_example_runs(receiver: Receiver, tmp_path: Path) -> None:
    """Its receiver, "webhook/receiver.py", is what `receiver` runs."""
    assert Path("webhook/receiver.py") == RECEIVER.relative_to(FOLDER)
    text = (FOLDER / "webhook/guerrilla.toml").read_text(encoding="utf-8")
    for own, other in {
        "127.0.0.1:2525": "127.0.0.1:0",
        "http://127.0.0.1:8080/mail": receiver.url,
    }.items():
        assert own in text
        text = text.replace(own, other)
    with RunningDaemon(tmp_path, config=text) as daemon:
        queued_id = send(daemon)
    [stored] = map(json.loads, receiver.stored())
    assert (stored["queued_id"], stored["subject"]) == (queued_id, "hello")
    assert stored["headers"][0]["name"] == "Received"


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    """With a receiver that knows only the old one of its secrets."""
    (text,) = examples("HTTP")
    folder = tmp_path / "receiver"
    folder.mkdir()
    with Receiver(folder, "the one before") as receiver:
        text = text.replace("https://example.com/inbound", receiver.url)
        place = '[[servers]]\nlisten_interface = "127.0.0.1:0"\n'
        with RunningDaemon(tmp_path, config=f"{text}\n{place}") as daemon:
            queued_id = send(daemon)
    [stored] = map(json.loads, receiver.stored())
    assert stored["queued_id"] == queued_id


@pytest.mark.parametrize("keys", [{}, {"http_format": "raw"}, {"http_batch": "batch"}])
def test_it_takes_every_format_and_checks_the_signature(
    receiver: Receiver, keys: dict[str, str]
) -> None:
    mails = [a_mail(str(number)) for number in range(20)]
    assert codes(post(receiver.url, *mails, http_secret="wrong", **keys)) == [451] * 20
    assert codes(post(receiver.url, *mails[:0], a_mail(), **keys)) == [451]
    assert receiver.stored() == []
    again = [a_mail(str(number)) for number in range(20)]
    secrets = ["new", "change me"]
    assert codes(post(receiver.url, *again, http_secret=secrets, **keys)) == [250] * 20
    stored = receiver.stored()
    assert len(stored) == 20
    if keys == {"http_format": "raw"}:
        assert sorted(stored) == sorted(map(bytes, again))


def ask(receiver: Receiver, body: bytes, age: float, signed: bytes, *stamps: str) -> int:
    """What it says to a request of that age."""
    stamp = (*stamps, str(int(time.time() - age)))[0]
    text = stamp.encode() + b"." + signed
    signature = hmac.new(b"change me", text, hashlib.sha256).hexdigest()
    client = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=20)
    headers = {"X-Guerrilla-Timestamp": stamp, "X-Guerrilla-Signature": f"v1={signature}"}
    client.request("POST", "/", body, headers)
    try:
        return client.getresponse().status
    finally:
        client.close()


def test_its_replay_window(receiver: Receiver) -> None:
    body = b'{"queued_id": "a"}'
    assert ask(receiver, body, 0, body) == 200
    assert ask(receiver, body, 250, body) == 200
    assert ask(receiver, body, 400, body) == 401
    assert ask(receiver, body, -400, body) == 401
    assert ask(receiver, body, 0, body + b" ") == 401
    for stamp in ("", "x", "1" * 400, "-1", "\u00b2"):
        assert ask(receiver, body, 0, body, stamp) == 401


def test_it_says_nothing_to_what_is_no_mail(receiver: Receiver) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=20) as client:
        client.sendall(b"POST / HTTP/1.1\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")
    assert codes(post(receiver.url, a_mail(), http_secret="change me")) == [250]
