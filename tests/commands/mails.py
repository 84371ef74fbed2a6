"""Mails for the commands to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guerrilla._core import Envelope
from guerrilla.store import rows_of, sqlite

if TYPE_CHECKING:
    pass


PLAIN = b"Subject: hello\r\n\r\nbody\r\n"


def store(*envelopes: Envelope, database: str = "mail.db", table: str = "new_mail") -> None:
    opened = sqlite.connect(database, table)
    for one in envelopes:
        opened.insert(rows_of(one, "mx.example.com"))
    opened.close()


def envelope(data: bytes = PLAIN, *recipients: str, **more: Any) -> Envelope:
    return Envelope.create(
        data, mail_from="from@example.org", rcpt_to=recipients or ("to@example.com",), **more
    )
