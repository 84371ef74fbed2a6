"""What a row holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guerrilla._core import Address, Envelope
from guerrilla.store import sqlite
from guerrilla.store.schema import FIELDS
from tests.store.mails import PLAIN, envelope, rows, stored

if TYPE_CHECKING:
    pass


def test_row_has_every_column_of_the_envelope(path: Path, store: sqlite.SQLiteStore) -> None:
    data = (
        b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n"
        b"Content-Type: Multipart/Mixed; boundary=x\r\n"
        b"Message-ID: <m@example.org>\r\n"
        b"Reply-To: Reply <reply@example.org>\r\n"
        b"Sender: sec@example.org\r\n\r\nbody\r\n"
    )
    one = envelope(data, "a@example.com", "b@example.com", received_at=0.9, remote_ip="192.0.2.1")
    one.hashes[:] = ["h1", "h2"]
    store.insert(rows(one))
    first, second = stored(path)
    assert second["recipient"] == second["to"] == "b@example.com"
    assert second["hash"] == "h2"
    assert first.pop("mail_id") == 1
    assert first == {
        "queued_id": one.queued_id,
        "recipient": "a@example.com",
        "date": "1970-01-01 00:00:00",
        "to": "a@example.com",
        "from": "sender@example.org",
        "subject": one.subject,
        "body": "",
        "spam_score": 0,
        "hash": "h1",
        "content_type": "Multipart/Mixed; boundary=x",
        "has_attach": 1,
        "ip_addr": bytes(10) + b"\xff\xff\xc0\x00\x02\x01",
        "return_path": "sender@example.org",
        "is_tls": 0,
        "message_id": "m@example.org",
        "reply_to": "reply@example.org",
        "sender": "sec@example.org",
        "mail": data,
    }


def test_message_of_each_recipient_has_its_own_delivery_header(
    path: Path, store: sqlite.SQLiteStore
) -> None:
    one = envelope(PLAIN, "a@example.com", "b@example.com")
    one.make_delivery_header("mx.example.com")
    store.insert(rows(one))
    mails = [row["mail"] for row in stored(path)]
    assert mails == [one.bytes_for(0), one.bytes_for(1)]
    assert b"Delivered-To: a@mx.example.com\r\n" in mails[0]
    assert b"b@" not in mails[0]


def test_every_byte_of_a_message_is_kept(path: Path, store: sqlite.SQLiteStore) -> None:
    data = b"Subject: bytes\r\n\r\n" + bytes(range(256)) * 50
    store.insert(rows(envelope(data)))
    assert stored(path)[0]["mail"] == data


def test_text_is_cut_between_characters(path: Path, store: sqlite.SQLiteStore) -> None:
    data = "Content-Type: {}\r\n\r\n".format("ü" * 300).encode()
    store.insert(rows(envelope(data)))
    assert stored(path)[0]["content_type"] == "ü" * 255


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("<a@example.org>", "a@example.org"),
        ("  a@example.org ", "a@example.org"),
        ("A B <a@example.org>", "a@example.org"),
        ('"<x>, y" <a@example.org>', "a@example.org"),
        ("Last, First <a@example.org>", "a@example.org"),
        ('"Last, First" <a@example.org>, b@example.org', "a@example.org"),
        ("a@example.org (one, (two, three)), b@example.org", "a@example.org"),
        ("Friends: a@example.org, b@example.org;", "a@example.org"),
        ("<id-without-at>", "<id-without-at>"),
        ("(" * 5000, "(" * 255),
        ("", ""),
        ("no address at all", "no address at all"),
        ("<" * 5000, "<" * 255),
    ],
)
def test_address_of_a_field(field: str, address: str) -> None:
    (row,) = rows(envelope(f"Sender: {field}\r\n\r\n".encode()))
    assert dict(zip(FIELDS, row.values(), strict=True))["sender"] == address


@pytest.mark.parametrize(
    ("field", "to"),
    [
        ("To: Ann <ann@example.org>, Ben <ben@example.org>", "ann@example.org"),
        ("To: undisclosed-recipients:;", "rcpt@example.com"),
        ("To: root", "rcpt@example.com"),
        ("To: " + "(" * 1000, "rcpt@example.com"),
        ("To:", "rcpt@example.com"),
        ("Cc: ann@example.org", "rcpt@example.com"),
    ],
)
def test_to_is_the_first_address_of_the_field_or_else_the_recipient(field: str, to: str) -> None:
    (row,) = rows(envelope(f"{field}\r\n\r\n".encode(), "rcpt@example.com"))
    values = dict(zip(FIELDS, row.values(), strict=True))
    assert values["to"] == to
    assert values["recipient"] == "rcpt@example.com"


@pytest.mark.parametrize(
    ("ip", "octets"),
    [
        ("", bytes(16)),
        ("127.0.0.1", bytes(10) + b"\xff\xff\x7f\x00\x00\x01"),
        ("2001:db8::1", b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
    ],
)
def test_ip_addr_is_16_octets(ip: str, octets: bytes) -> None:
    (row,) = rows(envelope(remote_ip=ip))
    assert dict(zip(FIELDS, row.values(), strict=True))["ip_addr"] == octets


def test_missing_message_id_is_made_of_the_hash() -> None:
    one = envelope(b"Subject: x\r\n\r\n", "user@example.com")
    one.hashes[:] = ["abc"]
    (row,) = rows(one)
    values = dict(zip(FIELDS, row.values(), strict=True))
    assert values["message_id"] == "abc.user@mx.example.com"


def test_null_path_is_an_empty_from() -> None:
    (row,) = rows(envelope(mail_from=""))
    assert dict(zip(FIELDS, row.values(), strict=True))["from"] == ""


def test_recipients_that_only_differ_beyond_the_column_are_refused() -> None:
    host = "h" * 250 + ".example"
    one = Envelope.create(
        PLAIN, rcpt_to=[Address("u" * 20, f"{host}.a"), Address("u" * 20, f"{host}.b")]
    )
    with pytest.raises(ValueError, match="255"):
        rows(one)
