"""LMTP over sockets (RFC 2033): a reply a recipient, and what is told of such a message."""

from __future__ import annotations

import smtplib
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from guerrilla import Envelope, Event, MailEvent, Processor, Replies, Reply
from guerrilla._core import Core, claim
from guerrilla.reply import Outcome
from tests.cores import core
from tests.daemons import Make, config
from tests.wire import Wire, until

LHLO: Final = b"LHLO client.example.org\r\n"
PLACES: Final = pytest.mark.parametrize("place", ["tcp", "unix"])
SAVED: Final = Reply(250, "2.1.5", "bob has it")
AWAY: Final = Reply(550, "5.2.1", "carol is away")
FULL: Final = Reply(452, "4.2.2", "dave is full")


def lmtp(place: str, folder: Path) -> dict[str, Any]:
    address = "127.0.0.1:0" if place == "tcp" else f"unix:{folder}/socket"
    return {"protocol": "lmtp", "address": address}


def begin(wire: Wire, *users: str) -> Wire:
    wire.send(LHLO + b"MAIL FROM:<from@example.org>\r\n")
    wire.send(b"".join(b"RCPT TO:<%s@example.com>\r\n" % user.encode() for user in users))
    wire.send(b"DATA\r\n")
    codes = [wire.reply()[:3] for _ in range(len(users) + 3)]
    assert codes == ["250"] * (len(users) + 2) + ["354"]
    return wire


def receive(made: Core) -> Envelope:
    [envelope] = made.receive(1, 20) or []
    return envelope


@PLACES
def test_each_recipient_has_its_reply(place: str, tmp_path: Path) -> None:
    with core(server=lmtp(place, tmp_path)) as (made, address), Wire(address) as wire:
        assert " LMTP Guerrilla" in wire.greeting
        begin(wire, "bob", "carol", "dave").send(b"hello\r\n.\r\n")
        envelope = receive(made)
        assert envelope.protocol == "LMTP"
        assert envelope.esmtp
        assert envelope.answer([SAVED, AWAY, FULL])
        assert [wire.reply() for _ in range(3)] == [str(SAVED), str(AWAY), str(FULL)]
        # The next one, on the same connection.
        begin(wire, "bob").send(b"hello\r\n.\r\n")
        receive(made).answer()
        assert wire.reply().startswith("250 2.0.0 OK: queued as ")
        assert wire.ask(b"QUIT\r\n") == "221 2.0.0 Bye"
        stats = made.stats()
        assert [stats[f"messages_{what}"] for what in ("accepted", "deferred", "rejected")] == [
            2,
            0,
            0,
        ]


@PLACES
def test_a_client_of_the_standard_library_is_understood(place: str, tmp_path: Path) -> None:
    with core(server=lmtp(place, tmp_path)) as (_, address):
        host, _, port = address.rpartition(":")
        where = (host, int(port)) if place == "tcp" else (address.removeprefix("unix:"), 0)
        with smtplib.LMTP(*where) as client:
            code, said = client.ehlo("client.example.org")
            assert (code, said.splitlines()[0]) == (250, b"mx.example.net Hello")
            assert {"pipelining", "8bitmime", "enhancedstatuscodes"} <= set(client.esmtp_features)
            assert client.helo("client.example.org")[0] == 500


def test_a_time_out_is_told_to_each() -> None:
    with (
        core(server={"protocol": "lmtp"}, save_timeout=0.1) as (made, address),
        Wire(address) as wire,
    ):
        begin(wire, "bob", "carol").send(b"hello\r\n.\r\n")
        late = "451 4.3.0 Error: saving takes too long, please try again later"
        assert [wire.reply() for _ in range(2)] == [late] * 2
        assert made.stats()["messages_deferred"] == 1
        assert wire.ask(b"NOOP\r\n").startswith("250 ")


def test_smtp_folds_what_lmtp_tells() -> None:
    with core() as (made, address), Wire(address) as wire:
        wire.send(LHLO.replace(b"LHLO", b"EHLO") + b"MAIL FROM:<>\r\n")
        wire.send(b"RCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\n")
        receive(made).answer([SAVED, AWAY])
        assert [wire.reply()[:3] for _ in range(6)] == ["250"] * 4 + ["354", "550"]
        assert made.stats()["messages_rejected"] == 1


def test_an_answer_that_some_would_have_been_glad_of_is_lost() -> None:
    """What was saved for one of them, and its sender gone, will come again."""
    with core(server={"protocol": "lmtp"}) as (made, address):
        for replies, lost in (([SAVED, AWAY], 1), ([FULL, AWAY], 1)):
            wire = begin(Wire(address), "bob", "carol")
            wire.send(b"hello\r\n.\r\n")
            envelope = receive(made)
            assert claim([envelope]) == [True]
            wire.reset()
            until(lambda: made.stats()["connections_open"] == 0)
            assert not envelope.answer(replies)
            assert made.stats()["answers_lost"] == lost


class Mixed(Processor):
    """Stores for some."""

    stores = True

    def save(self, envelope: Envelope) -> Outcome:
        told = {"bob": SAVED, "carol": AWAY, "dave": FULL}
        return Replies(told[recipient.user] for recipient in envelope.rcpt_to)


def test_a_message_is_told_of_once_for_each_reply(make: Make) -> None:
    """Whatever a chain says of each recipient reaches its client, and whoever hears of mails."""
    raw = config(save_process="Mixed")
    raw["servers"][0] |= {"protocol": "lmtp"}
    daemon = make(raw)
    daemon.add_processor("Mixed", Mixed)
    heard: list[tuple[str, list[str], Reply]] = []

    def hear(event: str, mail: MailEvent) -> None:
        heard.append((event, [address.user for address in mail.rcpt_to], mail.reply))

    for event in (Event.MAIL_SAVED, Event.MAIL_REFUSED):
        daemon.subscribe(event, partial(hear, event))
    with daemon:
        with Wire(daemon.addresses[0]) as wire:
            begin(wire, "bob", "carol", "dave", "bob").send(b"hello\r\n.\r\n")
            told = [wire.reply() for _ in range(4)]
        assert told == [str(SAVED), str(AWAY), str(FULL), str(SAVED)]
        until(lambda: len(heard) == 3)
    assert heard == [
        (Event.MAIL_SAVED, ["bob", "bob"], SAVED),
        (Event.MAIL_REFUSED, ["carol"], AWAY),
        (Event.MAIL_REFUSED, ["dave"], FULL),
    ]


def test_the_log_has_a_line_for_each_reply() -> None:
    with core(server={"protocol": "lmtp"}, log_level=20) as (made, address):
        with Wire(address) as wire:
            begin(wire, "bob", "carol", "dave").send(b"hello\r\n.\r\n")
            envelope = receive(made)
            envelope.answer([SAVED, AWAY, SAVED])
            assert [wire.reply()[:3] for _ in range(3)] == ["250", "550", "250"]
        lines: list[str] = []
        while len(lines) < 2:
            batches = made.receive_logs(64, 20) or []
            found = [record.message for batch in batches for record in batch.records]
            lines += [line for line in found if " reply=" in line]
    assert all(line.startswith(f"{envelope.queued_id} client=#1 ") for line in lines)
    saved, refused = lines
    assert " to=<bob@example.com> to=<dave@example.com> recipients=2 size=7 " in saved
    assert f' reply="{SAVED}" ' in saved
    assert " to=<carol@example.com> recipients=1 size=7 " in refused
    assert f' reply="{AWAY}" ' in refused
