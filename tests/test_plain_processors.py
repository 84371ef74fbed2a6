"""HeadersParser, Header, Hasher and Debugger: row by row what Go-Guerrilla's do, for any mail."""

from __future__ import annotations

import hashlib
import logging
import re
import smtplib
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from guerrilla import Envelope, TLSInfo
from guerrilla.engine.chain import build
from guerrilla.engine.registry import Registry
from tests.chains import fate
from tests.running import RunningDaemon

CHAIN = "HeadersParser|Hasher|Header|Debugger"
HOST = "mx.example.net"

ID = "01h00000000000000000000000"


def envelope(raw: bytes, *rcpt_to: str, **more: Any) -> Envelope:
    fields: dict[str, Any] = {
        "mail_from": "sender@example.org",
        "rcpt_to": rcpt_to or ("one@example.com", "two@example.com"),
        "helo": "client.example.org",
        "host_name": "mx.example.com",
        "remote_ip": "192.0.2.1",
        "queued_id": ID,
        "received_at": 1_700_000_000.25,
        **more,
    }
    return Envelope.create(raw, **fields)


def through(chain: str, *envelopes: Envelope, **values: object) -> None:
    """Takes mails through a chain, each of which it accepts."""
    keys = {"primary_mail_host": HOST, **values}
    with build(chain, "save", keys, Registry()) as running:
        running.run(envelopes)
    assert [fate(one) for one in envelopes] == ["accepted"] * len(envelopes)


# Whatever a mail holds

BODY = b"\r\nbody\r\n"

ODD = {
    "nothing": b"",
    "no header": b"\r\nbody\r\n",
    "no body": b"Subject: a\r\n",
    "no colon": b"no header at all\r\n\r\nbody\r\n",
    "NUL": b"Sub\0ject: a\r\nSubject: b\0c\r\n" + BODY,
    "invalid UTF-8": b"Subject: \xff\xfe\xc3\r\nX-\xe9: \xe9\r\n" + BODY,
    "a bad word": b"Subject: =?utf-8?b?!!!?= =?x-none?q?a?=\r\n" + BODY,
    "a lone surrogate": b"Subject: =?utf-7?q?+2AA-?=\r\n" + BODY,
    "10,000 fields": b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(10_000)) + BODY,
    "a long field": b"Subject: " + b"a" * 2_000_000 + b"\r\n" + BODY,
    "folded for ever": b"Subject: a\r\n" + b" b\r\n" * 50_000 + BODY,
    "bare line ends": b"Subject: a\nTo: b\rCc: c\n\nbody\r\n",
    "50 MiB": b"Subject: a\r\n\r\n" + b"0123456789abcde\n" * (50 * 2**16),
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD)
def test_any_mail_passes_and_stays_as_it_is(raw: bytes) -> None:
    """For it is stored byte for byte; only fields before it are new."""
    one = envelope(raw)
    through(CHAIN, one, log_received_mails=True)
    assert bytes(one.data) == raw
    assert bytes(one) == one.delivery_header + raw
    assert len(set(one.hashes)) == 2
    assert one.delivery_header.startswith(b"Received: from client.example.org ")


def test_a_hundred_recipients_pass() -> None:
    names = [f"user{number}@example.com" for number in range(100)]
    one = envelope(b"Subject: a\r\n\r\n", *names)
    through(CHAIN, one)
    assert len(set(one.hashes)) == 100
    for index, name in enumerate(names):
        header = one.delivery_header_for(index).decode()
        assert re.findall(r"user\d+", header) == [name.partition("@")[0]]


def test_mails_of_a_batch_have_nothing_of_each_other() -> None:
    """Another recipient, subject, sender and id each."""
    envelopes = [
        envelope(
            b"Subject: s%d\r\n\r\n" % number,
            f"to{number}@example.com",
            mail_from=f"from{number}@example.org",
            queued_id=f"{number:026}",
        )
        for number in range(50)
    ]
    through(CHAIN, *envelopes)
    assert [one.subject for one in envelopes] == [f"s{number}" for number in range(50)]
    assert len({digest for one in envelopes for digest in one.hashes}) == 50
    for number, one in enumerate(envelopes):
        header = one.delivery_header_for(0).decode()
        assert header.startswith(f"Delivered-To: to{number}@{HOST}\r\n")
        assert f" id {number:026};" in header


# HeadersParser


def test_headers_are_parsed_and_the_subject_is_decoded() -> None:
    raw = b"To: =?utf-8?q?J=C3=BCrgen?= <a@b>\r\nSubject: =?utf-8?b?R3LDvMOfZQ==?=\r\nTo: c\r\n"
    one = envelope(raw + BODY)
    through("HeadersParser", one)
    assert one.subject == "Grüße"
    assert one.header.get_all("to") == ["=?utf-8?q?J=C3=BCrgen?= <a@b>", "c"]


def test_a_word_that_cannot_be_decoded_stays_as_it_was_sent() -> None:
    one = envelope(b"Subject: =?x-none?q?a?= =?utf-8?q?b?=\r\n" + BODY)
    through("HeadersParser", one)
    assert one.subject == "=?x-none?q?a?= b"


# Header


def test_each_copy_names_its_own_recipient_at_the_primary_host() -> None:
    one = envelope(b"Subject: a\r\n\r\n", "one@example.com", '"o d"@other.example')
    through("Header", one)
    assert one.delivery_header_for(0).startswith(f"Delivered-To: one@{HOST}\r\nRec".encode())
    assert one.delivery_header_for(1).startswith(f'Delivered-To: "o d"@{HOST}\r\nRec'.encode())
    assert b"Delivered-To" not in one.delivery_header


def test_the_case_of_a_user_is_kept() -> None:
    one = envelope(b"", "One@EXAMPLE.com")
    through("Header", one)
    assert one.delivery_header_for(0).startswith(f"Delivered-To: One@{HOST}\r\n".encode())


@pytest.mark.parametrize(
    ("fields", "protocol"),
    [
        ({"protocol": "SMTP"}, "SMTP"),
        ({"protocol": "ESMTP"}, "ESMTP"),
        ({"tls": TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256")}, "ESMTPS"),
        ({"protocol": "SMTP", "tls": TLSInfo("TLSv1.2", "X")}, "SMTPS"),
    ],
)
def test_received_says_how_the_mail_came(fields: dict[str, Any], protocol: str) -> None:
    """Peer, host, protocol, id and date, in lines that end with CRLF (RFC 5321 §4.4)."""
    one = envelope(b"Subject: a\r\n\r\n", **fields)
    through("Header", one)
    header = one.delivery_header.decode()
    assert re.search(r"[^\r]\n|\r[^\n]", header) is None
    text = " ".join(header.split())
    assert text.startswith("Received: from client.example.org ([192.0.2.1]) ")
    assert f" by mx.example.com with {protocol} id {ID}; " in text
    date = parsedate_to_datetime(text.rpartition("; ")[2])
    assert date.timestamp() == 1_700_000_000


def test_what_a_client_calls_itself_breaks_no_line() -> None:
    one = envelope(b"", helo="a\r\nBcc: b (c")
    through("Header", one)
    header = one.delivery_header.decode()
    assert len(re.findall(r"^\S", header, re.MULTILINE)) == 1
    assert header.count("(") == header.count(")")


def test_a_hidden_recipient_is_in_no_others_copy(tmp_path: Path) -> None:
    """As they are stored: by a daemon, with one recipient that no field of the mail names."""
    message = "To: one@example.com\r\nSubject: a\r\n\r\nbody\r\n"
    everybody = ["one@example.com", "hidden@example.com", "secret@example.com"]
    with (
        RunningDaemon(tmp_path, chain="HeadersParser|Hasher|Header|Debugger|SQL") as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        assert client.sendmail("sender@example.org", everybody, message) == {}
        rows = daemon.rows()
    assert [row["recipient"] for row in rows] == everybody
    assert len({row["hash"] for row in rows}) == 3
    for row in rows:
        stored = bytes(row["mail"]).decode()
        others = {name.partition("@")[0] for name in everybody[1:]} - {
            row["recipient"].partition("@")[0]
        }
        assert [name for name in others if name in stored] == []
        assert stored.startswith(f"Delivered-To: {row['recipient'].partition('@')[0]}@")
        assert stored.endswith(message)


# Hasher


def test_a_hash_is_the_md5_of_what_it_is_said_to_be() -> None:
    """One a recipient in their order; Go-Guerrilla's shares its state between them."""
    one = envelope(b"Subject: hello\r\n\r\n")
    through("HeadersParser|Hasher", one)
    parts = ["sender@example.org", "hello", ID]
    assert one.hashes == [
        hashlib.md5("\0".join([*parts, name]).encode()).hexdigest()
        for name in ("one@example.com", "two@example.com")
    ]


def test_the_hashes_of_a_mail_that_is_tried_again_are_the_same() -> None:
    """Also once it has been written and read, and with a stage that stands there twice."""
    one, again = envelope(b"Subject: a\r\n\r\n"), envelope(b"Subject: a\r\n\r\n")
    through("Hasher|Hasher", one)
    stored = Envelope.from_bytes(again.to_bytes())
    through("Hasher", stored)
    assert one.hashes == stored.hashes
    assert len(one.hashes) == 2


def test_hashes_of_other_mails_differ() -> None:
    """By sender, subject, id and recipient, wherever one ends and the next begins."""
    raw = b"Subject: ab\r\n\r\n"
    others = [
        envelope(raw),
        envelope(raw, mail_from=None),
        envelope(raw, mail_from="sender@example.orga", queued_id=ID),
        envelope(b"Subject: a\r\n\r\n"),
        envelope(raw, queued_id=ID[::-1]),
        envelope(raw, "on@example.com", "tw@example.com"),
    ]
    through("Hasher", *others)
    assert len({digest for one in others for digest in one.hashes}) == 12


# Debugger


def test_the_log_has_everybody_and_every_field_on_lines_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "guerrilla")
    one = envelope(b"Subject: a\r\n folded\r\nX-Odd: \x1b[2J\r\n\r\n", mail_from=None)
    through("HeadersParser|Debugger", one, log_received_mails=True)
    first, second = [record.getMessage() for record in caplog.records]
    assert first == f"{ID}: mail from <> to <one@example.com>, <two@example.com>"
    assert second.startswith(f"{ID}: headers are: ")
    for part in ("'Subject'", "folded", "'X-Odd'"):
        assert part in second
    assert second.isprintable()


def test_it_passes_on_what_has_no_header(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "guerrilla")
    through("Debugger", envelope(b""), log_received_mails=True)
    assert caplog.records[-1].getMessage() == f"{ID}: headers are: []"


def test_a_mail_that_is_too_slow_is_answered_by_the_deadline(tmp_path: Path) -> None:
    """`sleep_seconds` beyond `gw_save_timeout`: 451, and the session goes on."""
    with (
        RunningDaemon(
            tmp_path,
            chain="Debugger|SQL",
            backend='sleep_seconds = 0.5\ngw_save_timeout = "100ms"',
        ) as daemon,
        smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client,
    ):
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.sendmail("a@example.org", ["b@example.com"], "Subject: a\r\n\r\n")
        assert caught.value.smtp_code == 451
        assert str(caught.value.smtp_error).startswith("b'4.3.0")
        assert client.noop()[0] == 250
