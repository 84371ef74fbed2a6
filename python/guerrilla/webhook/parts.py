"""Which parts of a mail JSON has as text, as HTML and as attachments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from guerrilla._core import Envelope, Part

__all__ = ["Contents", "Limits", "contents_of"]


class Limits(NamedTuple):
    """What JSON has of the parts of a mail, at most."""

    parts: int
    depth: int
    size: int
    """Octets of all of them, decoded."""


class Contents(NamedTuple):
    """What JSON has of them."""

    text: str | None
    html: str | None
    attachments: list[tuple[dict[str, Any], bytes | None]]
    """What is said of each, and its octets; None for one that is left out."""
    truncated: bool
    """Something went over a limit and is not there."""


def contents_of(envelope: Envelope, limits: Limits) -> Contents:
    """Text, HTML and attachments of a mail.

    Text or HTML that does not fit is among the attachments, which tell what they leave out.
    """
    parts = envelope.parts(
        max_depth=limits.depth, max_parts=limits.parts, max_size=max(1, limits.size)
    )
    shown: dict[str, str | None] = {"text": None, "html": None}
    keys = {parts.text_part: "text", parts.html_part: "html"}
    attachments: list[tuple[dict[str, Any], bytes | None]] = []
    truncated = parts.truncated is not None
    left = limits.size
    for part in parts:
        content = _content(part, left)
        if content is None:
            truncated = True
        else:
            left -= len(content)
        if part in keys and content is not None:
            shown[keys[part]] = part.text
        else:
            attachments.append((_attachment(part, content), content))
    return Contents(shown["text"], shown["html"], attachments, truncated)


def _content(part: Part, most: int) -> bytes | None:
    """Its octets; None where they do not fit, or nobody has looked what it is."""
    if part.beyond is not None or part.is_truncated or len(part.content) > most:
        return None
    return part.content


def _attachment(part: Part, content: bytes | None) -> dict[str, Any]:
    return {
        "filename": part.filename,
        "content_type": part.content_type,
        "charset": part.charset,
        "content_id": part.content_id,
        "disposition": part.disposition,
        # Of one that is left out, as it was sent: decoded, nobody has counted it.
        "size": part.size if content is None else len(content),
        "truncated": content is None,
    }
