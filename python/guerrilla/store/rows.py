"""An envelope becomes one row a recipient."""

from __future__ import annotations

import socket
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from guerrilla._core import parse_addresses
from guerrilla.store.schema import TEXT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guerrilla._core import Envelope, Header

Value = str | int | bytes
"""What stands in a column."""

_ADDRESS_SOURCE_LIMIT: Final = 1024
"""Characters of a field that are searched for an address: twice what two addresses can need."""

_NO_ADDRESS: Final = bytes(16)
_V4_MAPPED: Final = bytes(10) + b"\xff\xff"


COMPRESSOR: Final = "zlib-compressor"
"""The value by which the Compressor tells that messages are to be stored compressed."""
REDIS: Final = "redis"
"""The value by which a Redis stage tells that it has the messages, by their hashes."""


class Row(NamedTuple):
    """A row of `schema.FIELDS`; the message is copied only when the row is written.

    A mail of 10 MiB to a hundred recipients is a gigabyte of rows: they must not exist at once.

    A store is opened for a list of columns, and takes from each row those alone; so a processor
    whose table has other columns than `schema.COLUMNS` gives the same rows (`rows_of`).
    """

    meta: tuple[Value, ...]
    """Every field but the last, `mail`."""
    envelope: Envelope
    number: int
    """Of the recipient in `envelope.rcpt_to`."""
    body: str = ""
    """What the column of this name says of `mail`: `''` as it is, `gzip` (zlib), `redis`: empty."""

    def values(self) -> tuple[Value, ...]:
        """The fields, in order."""
        return (*self.meta, self.mail())

    def mail(self) -> bytes:
        """The delivery header of this recipient + message, or what `body` says."""
        if not self.body:
            return self.envelope.bytes_for(self.number)
        return b"" if self.body == REDIS else self.envelope.compressed_for(self.number)


def rows_of(envelope: Envelope, primary_mail_host: str, body: str | None = None) -> list[Row]:
    """One row a recipient, for a table of any of `schema.FIELDS`.

    Text is cut at 255 characters. `date` is the time of receipt in UTC, `ip_addr` 16 octets
    (IPv4 mapped into IPv6, zeros for a unix socket). `to` is the first address of the To field,
    the recipient where there is none. `message_id`, `reply_to` and `sender` hold bare addresses;
    a missing Message-ID becomes `HASH.USER@PRIMARY_MAIL_HOST`. `has_attach` is 1 for a message
    whose type is multipart/mixed; its parts are not looked into. `charset` is that of the texts.

    Args:
        envelope: of the mail.
        primary_mail_host: see above.
        body: see `Row.body`; None for what the stages before have set in `envelope.values`. Any
            other word than `redis`, as Go-Guerrilla's `gzencode`, means a compressed message.

    Raises:
        ValueError: two recipients that differ only after 255 characters, so that one of them
            would not be stored.
    """
    header = envelope.header
    queued_id = envelope.queued_id
    hashes = envelope.hashes
    reverse_path = _text(str(envelope.mail_from))
    subject = _text(envelope.subject)
    content_type = _text(header.get("Content-Type") or "")
    message_id = _message_id(header)
    date = _date(int(envelope.received_at))
    attached = int(_is_mixed(content_type))
    client = _ip_octets(envelope.remote_ip)
    tls = int(envelope.tls is not None)
    answer_to, sender = _address(header, "Reply-To"), _address(header, "Sender")
    to = _first_address(header, "To")
    form = _body(envelope.values) if body is None else body
    rows = []
    for index, address in enumerate(envelope.rcpt_to):
        recipient = _text(str(address))
        digest = hashes[index] if index < len(hashes) else ""
        own_id = message_id or _text(f"{digest or queued_id}.{address.user}@{primary_mail_host}")
        who = (queued_id, recipient, date, to or recipient, reverse_path)
        what = (subject, form, 0, digest, content_type, attached)
        whence = (client, reverse_path, tls, own_id, answer_to, sender, "UTF-8")
        rows.append(Row((*who, *what, *whence), envelope, index, form))
    _refuse_clashes(rows)
    return rows


def _body(values: dict[str, Any]) -> str:
    """As Go-Guerrilla: what Redis has is not stored a second time."""
    if not values:
        return ""
    if values.get(REDIS):
        return "redis"
    return "gzip" if values.get(COMPRESSOR) else ""


def _text(value: str) -> str:
    """Cut to what the column holds; without NUL, which ends a text for some databases."""
    if len(value) > TEXT_LIMIT:
        value = value[:TEXT_LIMIT]
    return value.replace("\0", "\ufffd") if "\0" in value else value


def _first_address(header: Header, name: str) -> str:
    """The first address of a field, without its display name; empty where there is none."""
    found = parse_addresses((header.get(name) or "")[:_ADDRESS_SOURCE_LIMIT])
    return _text(found[0][0]) if found else ""


def _address(header: Header, name: str) -> str:
    """As `_first_address`; the field as sent where that is unclear."""
    return _first_address(header, name) or _text((header.get(name) or "").strip())


def _message_id(header: Header) -> str:
    """The Message-ID without its brackets."""
    value = (header.get("Message-ID") or "").strip()
    return _text(value[1:-1] if value.startswith("<") and value.endswith(">") else value)


def _is_mixed(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "multipart/mixed"


@lru_cache(maxsize=4)
def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


@lru_cache(maxsize=1024)
def _ip_octets(address: str) -> bytes:
    if not address:
        return _NO_ADDRESS
    address = address.partition("%")[0]
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return _V4_MAPPED + socket.inet_pton(socket.AF_INET, address)


def _refuse_clashes(rows: Sequence[Row]) -> None:
    """The key holds 255 characters: the second of two recipients alike so far would be lost.

    Blanks at the end make no difference to some databases.
    """
    keys = [str(row.meta[1]) for row in rows]
    if not any(len(key) == TEXT_LIMIT for key in keys):
        return
    whole: dict[str, str] = {}
    for key, row in zip(keys, rows, strict=True):
        address = str(row.envelope.rcpt_to[row.number])
        if whole.setdefault(key.rstrip(" "), address) != address:
            msg = f"two recipients of {row.meta[0]!r} are the same in their first 255 characters"
            raise ValueError(msg)
