"""What the tests of the store share: mails to store, and what was stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from guerrilla._core import Envelope
from guerrilla.store import Row, rows_of

if TYPE_CHECKING:
    pass


TABLE = "new_mail"
PLAIN = b"Subject: hello\r\nMessage-ID: <1@example.org>\r\n\r\nbody\r\n"


def envelope(data: bytes = PLAIN, *recipients: str, **more: Any) -> Envelope:
    return Envelope.create(
        data,
        mail_from=more.pop("mail_from", "sender@example.org"),
        rcpt_to=recipients or ("to@example.com",),
        **more,
    )


def rows(*envelopes: Envelope) -> list[Row]:
    return [row for one in envelopes for row in rows_of(one, "mx.example.com")]


def stored(path: Path, table: str = TABLE) -> list[dict[str, Any]]:
    """Every row, read by a connection of its own."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        cursor = connection.execute(f'SELECT * FROM "{table}" ORDER BY mail_id')
        found = cursor.fetchall()
        names = [
            column
            for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
        ]
    finally:
        connection.close()
    return [dict(zip([str(name) for name in names], row, strict=True)) for row in found]


def subjects(path: Path) -> list[str]:
    return [row["subject"] for row in stored(path)]
