"""The line of a message at info: what it was, what its sender was told, where its time went."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from guerrilla import Envelope, Replies, Reply
from guerrilla.daemon import Daemon
from guerrilla.engine.registry import processor
from tests.daemons import Keeper, Make, Until, config, send, where
from tests.wire import Wire


class Lines:
    """Daemons with a JSON log, and the lines of messages in it."""

    def __init__(self, make: Make, path: Path) -> None:
        self.make = make
        self.path = path

    def daemon(self, raw: dict[str, Any] | None = None, **keys: Any) -> Daemon:
        daemon = self.make(
            raw, **{"log_file": str(self.path), "log_format": "json", "log_level": "info", **keys}
        )
        daemon.start()
        return daemon

    def after(self, daemon: Daemon) -> list[dict[str, Any]]:
        """All of them, once the daemon has ended and can write no other."""
        daemon.shutdown(10)
        entries = [json.loads(line) for line in self.path.read_bytes().splitlines()]
        return [entry for entry in entries if entry["logger"] == "guerrilla.mail"]


@pytest.fixture
def lines(make: Make, tmp_path: Path) -> Lines:
    return Lines(make, tmp_path / "mail.log")


def said(reply: tuple[int, bytes]) -> str:
    """A reply as the log has it."""
    return f"{reply[0]} {reply[1].decode()}"


def test_a_message_has_one_line_with_everything(lines: Lines, keeper: type[Keeper]) -> None:
    daemon = lines.daemon()
    reply = send(daemon)
    (line,) = lines.after(daemon)
    (envelope,) = keeper.envelopes
    assert line["id"] == envelope.queued_id
    assert line["message"] == f"{envelope.queued_id}: {said(reply)}"
    assert (line["reply"], line["sent"]) == (said(reply), True)
    assert (line["client"], line["helo"]) == (envelope.client_id, "client.example.org")
    assert line["peer"] == f"127.0.0.1:{envelope.remote_port}"
    assert line["server"] == "127.0.0.1:0"
    assert (line["from"], line["to"]) == ("from@example.org", ["to@example.com"])
    assert (line["recipients"], line["size"], line["tls"]) == (1, envelope.size, None)
    assert [stage["stage"] for stage in line["stages"]] == ["HeadersParser", "Keeper"]
    times = [line["queue"], *(stage["seconds"] for stage in line["stages"])]
    assert min(times) > 0
    assert sum(times) <= line["total"] < 10


def test_the_line_as_text(make: Make, keeper: type[Keeper], tmp_path: Path) -> None:
    daemon = make(log_file=str(tmp_path / "log"), log_level="info")
    daemon.start()
    send(daemon)
    daemon.shutdown(10)
    (envelope,) = keeper.envelopes
    (line,) = (line for line in (tmp_path / "log").read_text().splitlines() if " to=" in line)
    number = r"\d+\.\d{6}"
    assert line.partition(" INFO ")[2].startswith(f"guerrilla.mail {envelope.queued_id} client=#1 ")
    expected = (
        rf".* server=127.0.0.1:0 peer=127.0.0.1:{envelope.remote_port} helo=client.example.org "
        rf"from=<from@example.org> to=<to@example.com> recipients=1 size={envelope.size} tls=- "
        rf'reply="250 2.0.0 OK: queued as {envelope.queued_id}" queue={number} '
        rf"stages=HeadersParser:{number},Keeper:{number} total={number}"
    )
    assert re.fullmatch(expected, line), line


def test_what_a_stage_refuses_and_what_fails_is_said(lines: Lines) -> None:
    daemon = lines.daemon()
    replies = [send(daemon, subject) for subject in ("raise", "nonsense", "exit", "fine")]
    found = lines.after(daemon)
    assert [line["reply"] for line in found] == [said(reply) for reply in replies]
    assert [reply[0] for reply in replies] == [451, 451, 451, 250]


def test_one_reply_a_recipient_is_said_as_the_client_got_it(lines: Lines) -> None:
    @processor("Each")
    def each(envelope: Envelope) -> Replies:
        return Replies([Reply.ok(), Reply.retry("4.2.2", "later")])

    daemon = lines.daemon(config(save_process="Each"))
    with Wire(where(daemon)[1]) as client:
        client.ask(b"EHLO client.example.org\r\n")
        client.ask(b"MAIL FROM:<>\r\n")
        client.ask(b"RCPT TO:<a@example.com>\r\n")
        client.ask(b"RCPT TO:<b@example.com>\r\n")
        client.ask(b"DATA\r\n")
        reply = client.ask(b"a\r\n.\r\n")
    (line,) = lines.after(daemon)
    assert line["reply"] == reply == "451 4.2.2 later"
    assert (line["from"], line["to"]) == ("", ["a@example.com", "b@example.com"])


def test_the_451_of_a_time_limit_is_the_line_and_no_later_save_makes_another(
    lines: Lines, keeper: type[Keeper], until: Until
) -> None:
    raw = config(save_process="HeadersParser|Keeper", gw_save_timeout="3s")
    keeper.stores = False  # it is not waited for a second time
    daemon = lines.daemon(raw)
    reply = send(daemon, "hang")
    keeper.release.set()
    until(lambda: keeper.kept)
    (line,) = lines.after(daemon)
    assert reply[0] == 451
    assert line["reply"] == said(reply)
    assert line["total"] >= 3
    # The stage that it was in has not ended: its time so far.
    assert [stage["stage"] for stage in line["stages"]] == ["HeadersParser", "Keeper"]
    assert 0.1 < line["stages"][-1]["seconds"] <= line["total"]


def test_a_sender_who_is_gone_was_told_nothing(
    lines: Lines, keeper: type[Keeper], until: Until
) -> None:
    daemon = lines.daemon()
    with Wire(where(daemon)[1]) as client:
        client.begin()
        client.send(b"Subject: hang\r\n\r\n.\r\n")
        assert keeper.entered.wait(10)
        client.reset()
    until(lambda: daemon.stats()["connections_open"] == 0)
    keeper.release.set()
    (line,) = lines.after(daemon)
    assert (line["reply"], line["sent"]) == (None, False)
    assert line["message"].endswith(": -")


def test_what_is_refused_before_it_has_an_id_has_a_line_too(lines: Lines) -> None:
    raw = config()
    raw["servers"][0] |= {"max_size": 100, "bare_newline": "reject"}
    daemon = lines.daemon(raw)
    with Wire(where(daemon)[1]) as client:
        replies = [
            client.begin().ask(b"Subject: a\r\n\r\n" + b"x" * 200 + b"\r\n.\r\n"),
            client.begin().ask(b"Subject: a\r\n\r\nbare\nline\r\n.\r\n"),
        ]
    found = lines.after(daemon)
    assert [reply[:3] for reply in replies] == ["552", "554"]
    assert [(line["id"], line["reply"]) for line in found] == [(None, r) for r in replies]


def test_a_message_of_chunks_has_one_line(lines: Lines) -> None:
    raw = config()
    raw["servers"][0]["max_size"] = 10
    daemon = lines.daemon(raw)
    begin = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n"
    with Wire(where(daemon)[1]) as client:
        client.ask(b"EHLO client.example.org\r\n")
        client.send(begin + b"BDAT 8\r\n8 octetsBDAT 2 LAST\r\n\r\n")
        taken = [client.reply() for _ in range(4)][-1]
        client.send(begin + b"BDAT 8\r\n8 octetsBDAT 3\r\nabcBDAT 1 LAST\r\nd")
        *_, refused, _ = [client.reply() for _ in range(5)]
        # Of one that never ended there is nothing to tell.
        client.send(begin + b"BDAT 8\r\n8 octetsRSET\r\n")
        assert [client.reply()[:3] for _ in range(4)] == ["250"] * 4
    found = [(line["reply"], line["size"], line["sent"]) for line in lines.after(daemon)]
    assert refused.startswith("552 ")
    assert found == [(taken, 10, True), (refused, 0, True)]


def test_every_pipelined_message_has_its_line(lines: Lines) -> None:
    daemon = lines.daemon()
    one = (
        b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nSubject: %d\r\n\r\n.\r\n"
    )
    with Wire(where(daemon)[1]) as client:
        client.ask(b"EHLO client.example.org\r\n")
        client.send(b"".join(one % number for number in range(50)))
        replies = [[client.reply() for _ in range(4)][-1] for _ in range(50)]
    assert [line["reply"] for line in lines.after(daemon)] == replies
    assert len(set(replies)) == 50


def test_many_recipients_are_counted_and_few_are_named(lines: Lines) -> None:
    daemon = lines.daemon()
    with Wire(where(daemon)[1]) as client:
        client.ask(b"EHLO client.example.org\r\n")
        client.ask(b"MAIL FROM:<a@example.org>\r\n")
        for number in range(40):
            client.ask(b"RCPT TO:<to%d@example.com>\r\n" % number)
        client.ask(b"DATA\r\n")
        client.ask(b"a\r\n.\r\n")
    (line,) = lines.after(daemon)
    assert line["recipients"] == 40
    assert line["to"] == [f"to{number}@example.com" for number in range(5)]


def test_no_sender_forges_a_field(make: Make, tmp_path: Path) -> None:
    """A quoted local part may hold anything that is printed, also what looks like a field."""
    daemon = make(log_file=str(tmp_path / "log"), log_level="info")
    daemon.start()
    with Wire(where(daemon)[1]) as client:
        client.ask(b"HELO client.example.org\r\n")
        client.ask(b'MAIL FROM:<"a> reply=\\"250 OK\\" \\\\"@example.org>\r\n')
        assert client.ask(b"RCPT TO:<a@example.com>\r\n").startswith("250")
        client.ask(b"DATA\r\n")
        client.ask(b"a\r\n.\r\n")
    daemon.shutdown(10)
    (line,) = (line for line in (tmp_path / "log").read_text().splitlines() if " to=" in line)
    fields = fields_of(line)
    assert fields["from"] == '<"a> reply=\\"250 OK\\" \\\\"@example.org>'
    assert fields["reply"].startswith("250 2.0.0 OK: queued as ")


def fields_of(line: str) -> dict[str, str]:
    """The fields of a line, as a program reads them: a word, or a JSON string."""
    rest = line.split(" ", 4)[4]
    fields = {}
    while rest:
        key, _, rest = rest.partition("=")
        if rest.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].removeprefix(" ")
        else:
            value, _, rest = rest.partition(" ")
        assert key not in fields
        fields[key] = value
    return fields


def test_nothing_is_made_above_info(lines: Lines) -> None:
    daemon = lines.daemon(log_level="warning")
    send(daemon)
    assert not logging.getLogger("guerrilla.mail").isEnabledFor(logging.INFO)
    assert lines.after(daemon) == []


def test_the_level_is_changed_live_also_of_the_core(lines: Lines, until: Until) -> None:
    daemon = lines.daemon(log_level="warning")
    parts = daemon._parts
    assert parts is not None
    logs = parts.logs
    ids = []
    for level in ("warning", "info", "error", "debug"):
        logs.set_level(level)
        reply = send(daemon)[1].decode()
        ids.append(reply.rpartition(" ")[2])
        # What has not been written when the level is raised is not written any more.
        until(lambda: len(lines.path.read_bytes().splitlines()) >= (level == "info"))  # noqa: B023
    found = lines.after(daemon)
    assert [line["id"] for line in found] == [ids[1], ids[3]]


def test_a_server_has_its_own_messages_in_its_own_log(make: Make, tmp_path: Path) -> None:
    raw = config()
    (server,) = raw["servers"]
    own = {"listen_interface": "127.0.0.2:0", "log_file": str(tmp_path / "own")}
    raw["servers"].append({**server, **own})
    daemon = make(raw, log_file=str(tmp_path / "main"), log_level="info")
    daemon.start()
    for index in (0, 1, 1):
        with Wire(daemon.addresses[index]) as client:
            client.begin().ask(b"a\r\n.\r\n")
    daemon.reopen_logs()
    daemon.shutdown(10)
    main, other = ((tmp_path / name).read_text().splitlines() for name in ("main", "own"))
    assert len([line for line in main if " server=127.0.0.1:0 " in line]) == 1
    assert len([line for line in other if " server=127.0.0.2:0 " in line]) == 2
    assert not any(" server=127.0.0.2:0 " in line for line in main)
    assert any(line.endswith(" stopped") for line in main)
