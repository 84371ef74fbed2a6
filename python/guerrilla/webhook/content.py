"""The body of a request: a mail as it came, or as JSON."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from guerrilla.webhook.fields import envelope_fields, header_fields
from guerrilla.webhook.parts import contents_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from guerrilla._core import Envelope
    from guerrilla.webhook.parts import Limits

__all__ = ["Content", "Raw", "as_batch", "as_json", "as_raw", "as_single"]

Raw = Literal["never", "truncated", "always"]
"""When JSON has the mail itself too."""

_ENCODED: Final = 192 << 10
"""Octets that become Base64 at a time."""
_WRITTEN: Final = 256 << 10
"""Octets that are handed to the socket at a time: so many are copied for it."""


@dataclass(frozen=True, slots=True)
class Content:
    """A body, with what a request says of it.

    Attributes:
        pieces: of the body.
        content_type: of it.
        name: the value of `X-Guerrilla-Id`, where it is one mail.
        envelope: the value of `X-Guerrilla-Envelope`, where the body has not the envelope in it.
    """

    pieces: Sequence[bytes | memoryview]
    content_type: str
    name: str | None = None
    envelope: bytes | None = None

    @property
    def size(self) -> int:
        """Octets of the body."""
        return sum(map(len, self.pieces))

    def signed(self) -> Iterator[bytes | memoryview]:
        """What the signature covers, besides the timestamp."""
        if self.envelope is not None:
            yield self.envelope + b"."
        yield from self.pieces

    def blocks(self) -> Iterator[bytes | memoryview]:
        """The body, in blocks that are fit to be written."""
        for piece in self.pieces:
            for start in range(0, len(piece), _WRITTEN):
                yield piece[start : start + _WRITTEN]


def as_raw(envelope: Envelope) -> Content:
    """The mail, with the fields that stages have added; the message is not copied."""
    added = envelope.added_headers + envelope.delivery_header
    told = json.dumps(envelope_fields(envelope), separators=(",", ":"))
    pieces: list[bytes | memoryview] = [added, envelope.data]
    return Content(pieces, "message/rfc822", envelope.queued_id, told.encode("ascii"))


def as_single(name: str, mail: Sequence[bytes]) -> Content:
    """A mail that is JSON already; `name` is its id."""
    return Content(mail, "application/json", name)


def as_json(envelope: Envelope, limits: Limits, raw: Raw) -> list[bytes]:
    """The mail as one JSON object, in pieces: what is long is not copied into a longer text.

    Args:
        envelope: of the mail.
        limits: what it has of the parts.
        raw: when it has the whole mail in `raw`.
    """
    contents = contents_of(envelope, limits)
    fields = envelope_fields(envelope)
    fields["subject"] = envelope.subject
    fields["headers"] = header_fields(envelope)
    fields["text"] = contents.text
    fields["html"] = contents.html
    fields["truncated"] = contents.truncated
    pieces = [_object(fields)[:-1], b',"attachments":[']
    for number, (told, content) in enumerate(contents.attachments):
        octets = None if content is None else [content]
        pieces += [b"," if number else b"", *_with_base64(_object(told), "content", octets)]
    whole = None
    if raw == "always" or (raw == "truncated" and contents.truncated):
        whole = as_raw(envelope).pieces
    return [*pieces, *_with_base64(b"]}", "raw", whole)]


def _object(fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate is no character: no parser has to take it.
    return text.encode("utf-8", "replace")


def _with_base64(
    ended: bytes, key: str, octets: Sequence[bytes | memoryview] | None
) -> Iterator[bytes]:
    """What ends an object, with one more key before its end: the octets in Base64, or null."""
    yield ended[:-1]
    yield f',"{key}":'.encode()
    if octets is None:
        yield b"null}"
        return
    yield b'"'
    rest = b""
    for piece in octets:
        for start in range(0, len(piece), _ENCODED):
            block = rest + bytes(piece[start : start + _ENCODED])
            even = len(block) - len(block) % 3
            rest = block[even:]
            yield base64.b64encode(block[:even])
    yield base64.b64encode(rest)
    yield b'"}'


def as_batch(mails: Iterable[Sequence[bytes]]) -> Content:
    """Mails that are JSON already, as one array."""
    pieces: list[bytes | memoryview] = [b"["]
    for mail in mails:
        pieces += [b"," if len(pieces) > 1 else b"", *mail]
    return Content([*pieces, b"]"], "application/json")
