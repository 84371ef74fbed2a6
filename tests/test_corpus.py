"""Every mail of the corpus through a running daemon: what is stored, byte for byte.

The daemon takes all mails four times: by `smtplib`, and by hand with their bare newlines under each
setting of `bare_newline`.
"""

from __future__ import annotations

import re
import smtplib
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Final, NamedTuple

import pytest

from guerrilla._core import Envelope
from tests.corpora import as_sent, corpus, on_the_wire
from tests.running import RunningDaemon

CONNECTIONS: Final = 3
"""How many connections each way of sending shares its mails out to."""

SERVER: Final = """
[[servers]]
listen_interface = "127.0.0.{}:0"
host_name = "mx.example.com"
bare_newline = "{}"
"""
DELIVERY_HEADER: Final = re.compile(
    rb"Delivered-To: (?P<to>[^\r\n]+)\r\n"
    rb"Received: from client\.example\.org \(\[127\.0\.0\.1\]\)\r\n"
    rb"\tby mx\.example\.com with ESMTP id (?P<queued_id>[0-9a-z]{26});\r\n"
    rb"\t[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000\r\n"
)
BARE_NEWLINE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")

Address = tuple[str, int]
Mails = Iterable[tuple[str, bytes]]
"""Recipient and raw message of each."""
Replies = dict[str, int]
"""The code that answered the message to each recipient."""


class Sent(NamedTuple):
    """What became of the corpus."""

    replies: Replies
    rows: dict[str, dict[str, Any]]

    def way(self, way: str) -> Iterator[tuple[str, bytes, int, dict[str, Any] | None]]:
        """Name, raw message, code of the reply, and the row, of each mail sent that way."""
        for number, path in enumerate(corpus()):
            to = recipient(way, number)
            yield path.name, path.read_bytes(), self.replies[to], self.rows.get(to)


def recipient(way: str, number: int) -> str:
    return f"{way}.{number}@example.com"


def by_smtplib(server: Address, mails: Mails) -> Replies:
    with smtplib.SMTP(*server, "client.example.org", timeout=30) as client:
        client.ehlo()
        replies = {}
        for to, raw in mails:
            assert client.mail("from@example.org")[0] == 250
            assert client.rcpt(to)[0] == 250
            replies[to] = client.data(as_sent(raw))[0]
    return replies


def by_hand(server: Address, mails: Mails) -> Replies:
    with socket.create_connection(server, timeout=30) as peer, peer.makefile("rb") as answers:
        assert reply(answers) == 220
        peer.sendall(b"EHLO client.example.org\r\n")
        assert reply(answers) == 250
        replies = {}
        for to, raw in mails:
            peer.sendall(f"MAIL FROM:<from@example.org>\r\nRCPT TO:<{to}>\r\nDATA\r\n".encode())
            assert [reply(answers) for _ in range(3)] == [250, 250, 354]
            peer.sendall(on_the_wire(raw))
            replies[to] = reply(answers)
    return replies


def reply(answers: BinaryIO) -> int:
    line = answers.readline()
    while line[3:4] == b"-":
        line = answers.readline()
    return int(line[:3])


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """Sends the corpus all ways at the same time, and stops the daemon before it reads."""
    raws = [path.read_bytes() for path in corpus()]
    ways: list[tuple[str, Callable[[Address, Mails], Replies]]]
    ways = [("smtplib", by_smtplib), ("fix", by_hand), ("keep", by_hand), ("reject", by_hand)]
    more = "".join(SERVER.format(last, way) for last, (way, _) in enumerate(ways[1:], 2))
    folder, host_name = tmp_path_factory.mktemp("corpus"), 'primary_mail_host = "example.com"'
    with (
        RunningDaemon(folder, server=more, backend=host_name) as daemon,
        ThreadPoolExecutor(CONNECTIONS * len(ways)) as threads,
    ):
        shares = []
        for (way, send), address in zip(ways, daemon.addresses, strict=True):
            host, _, port = address.rpartition(":")
            mails = [(recipient(way, number), raw) for number, raw in enumerate(raws)]
            for first in range(CONNECTIONS):
                share = mails[first::CONNECTIONS]
                shares.append(threads.submit(send, (host, int(port)), share))
        replies = {to: code for done in shares for to, code in done.result().items()}
    rows = daemon.rows()
    twice = [to for to, count in Counter(row["recipient"] for row in rows).items() if count > 1]
    assert not twice
    return Sent(replies, {row["recipient"]: row for row in rows})


def message(row: dict[str, Any]) -> bytes:
    """The stored message without the delivery header, which has to be the row's own."""
    mail: bytes = row["mail"]
    header = DELIVERY_HEADER.match(mail)
    assert header is not None, mail[:400]
    assert header["to"].decode() == row["recipient"]
    assert header["queued_id"].decode() == row["queued_id"]
    return mail[header.end() :]


def wrong(sent: Sent, way: str, expected: Callable[[bytes], bytes | None]) -> list[str]:
    """Names of the mails stored otherwise than expected; None for refused and not stored."""
    names = []
    for name, raw, code, row in sent.way(way):
        stored, should_be = None if row is None else message(row), expected(raw)
        if (code, stored) != (554 if should_be is None else 250, should_be):
            names.append(name)
    return names


@pytest.mark.parametrize("way", ["smtplib", "fix"])
def test_every_byte_is_stored_and_bare_newlines_become_crlf(sent: Sent, way: str) -> None:
    assert wrong(sent, way, as_sent) == []


def test_every_byte_is_stored_with_bare_newlines_where_they_are_kept(sent: Sent) -> None:
    assert wrong(sent, "keep", lambda raw: raw if raw.endswith(b"\r\n") else raw + b"\r\n") == []


def test_mails_with_bare_newlines_are_refused_where_they_are_rejected(sent: Sent) -> None:
    def expected(raw: bytes) -> bytes | None:
        ended = raw if raw.endswith(b"\r\n") else raw + b"\r\n"
        return None if BARE_NEWLINE.search(ended) else ended

    assert wrong(sent, "reject", expected) == []


def test_the_other_columns_are_of_the_mail(sent: Sent) -> None:
    for name, raw, _, row in sent.way("smtplib"):
        assert row is not None, name
        envelope = Envelope.create(
            as_sent(raw),
            mail_from="from@example.org",
            rcpt_to=[row["recipient"]],
            queued_id=row["queued_id"],
        )
        content_type = envelope.header.get("Content-Type", "")
        found = (row["subject"], row["content_type"], row["hash"], row["from"])
        text = [cut.replace("\0", "\ufffd")[:255] for cut in (envelope.subject, content_type or "")]
        hashes = envelope.compute_hashes()
        assert found == (*text, *hashes, "from@example.org"), name
        to = (envelope.header.get("To") or "").replace(" ", "")
        assert row["to"] == row["recipient"] or row["to"].rpartition("@")[2] in to, name
