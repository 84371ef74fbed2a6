"""The parts of a mail, and which of them JSON has as text, as HTML and as attachments."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from email.message import MIMEPart

    from guerrilla._core import Envelope

__all__ = ["Contents", "Limits", "contents_of"]

SHOWN_AS: Final = {"text/plain": "text", "text/html": "html"}
"""The key of the first part of a type that is no attachment."""


class Limits(NamedTuple):
    """What JSON has of the parts of a mail, at most."""

    parts: int
    depth: int
    size: int
    """Octets of all of them, decoded."""


class Contents(NamedTuple):
    """What JSON has of them."""

    fields: dict[str, Any]
    truncated: bool
    """Something went over a limit and is not there."""


class Part(Protocol):
    """A part that has no parts of its own."""

    @property
    def content_type(self) -> str:
        """Lower case, without parameters."""

    @property
    def charset(self) -> str | None:
        """As the sender named it."""

    @property
    def filename(self) -> str | None:
        """Decoded, and as the sender wrote it: not to be trusted as a path."""

    @property
    def content_id(self) -> str | None:
        """Without brackets."""

    @property
    def disposition(self) -> str | None:
        """`inline` or `attachment`."""

    @property
    def is_attachment(self) -> bool:
        """Whether a mail client shows it as a file."""

    @property
    def content(self) -> bytes:
        """Its octets, decoded; computed on each use."""

    @property
    def text(self) -> str:
        """The same as text; computed on each use."""


def contents_of(envelope: Envelope, limits: Limits) -> Contents:
    """Text, HTML and attachments of a mail.

    What is no attachment and of a type that `text` or `html` has already, as the footer of a
    mailing list, is among the attachments: nothing is left out.
    """
    parts, truncated = _parts(envelope, limits)
    fields: dict[str, Any] = {"text": None, "html": None, "attachments": []}
    left = limits.size
    for part in parts:
        content = part.content
        fits = len(content) <= left
        left -= len(content) if fits else 0
        truncated = truncated or not fits
        key = SHOWN_AS.get(part.content_type)
        if key and fits and fields[key] is None and not part.is_attachment:
            fields[key] = part.text
        else:
            fields["attachments"].append(_attachment(part, content, fits=fits))
    return Contents(fields, truncated)


def _attachment(part: Part, content: bytes, *, fits: bool) -> dict[str, Any]:
    return {
        "filename": part.filename,
        "content_type": part.content_type,
        "charset": part.charset,
        "content_id": part.content_id,
        "disposition": part.disposition,
        "size": len(content),
        "content": base64.b64encode(content).decode("ascii") if fits else None,
        "truncated": not fits,
    }


def _parts(envelope: Envelope, limits: Limits) -> tuple[Sequence[Part], bool]:
    """At most so many parts, and whether there are more, or deeper ones."""
    found: list[Part] = []
    truncated = False
    for depth, message in _walk(envelope.message(), 0):
        if depth > limits.depth or len(found) == limits.parts:
            truncated = True
            continue
        found.append(_EmailPart(message))
    return found, truncated


def _walk(message: MIMEPart, depth: int) -> Iterator[tuple[int, MIMEPart]]:
    if message.is_multipart():
        for part in message.iter_parts():
            yield from _walk(part, depth + 1)
    else:
        yield depth, message


class _EmailPart:
    """A part as Python's `email` has it."""

    def __init__(self, message: MIMEPart) -> None:
        self._message = message
        self.content_type = message.get_content_type()
        self.charset = message.get_content_charset()
        self.filename = message.get_filename()
        self.content_id = (message.get("Content-ID") or "").strip(" <>") or None
        self.disposition = message.get_content_disposition()
        self.is_attachment = self.disposition == "attachment" or self.filename is not None

    @property
    def content(self) -> bytes:
        payload = self._message.get_payload(decode=True)
        return payload if isinstance(payload, bytes) else b""

    @property
    def text(self) -> str:
        try:
            return self.content.decode(self.charset or "utf-8", "replace")
        except LookupError:
            return self.content.decode("utf-8", "replace")
