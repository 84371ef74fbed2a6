"""MAIL and RCPT as the far side is told, out of what our client said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from guerrilla._core import Reply
from guerrilla.forward.steps import line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from guerrilla.forward.extensions import Extensions

__all__ = [
    "NEEDS_BINARY",
    "NEEDS_UTF8",
    "TOO_LARGE",
    "Path",
    "Wishes",
    "is_binary",
    "mail_command",
    "rcpt_command",
]

NEEDS_UTF8: Final = Reply(550, "5.6.7", "The next server takes no internationalized mail")
"""RFC 6531 section 3.2: it must not be sent on without SMTPUTF8."""
NEEDS_BINARY: Final = Reply(554, "5.6.1", "The next server takes no binary mail")
"""RFC 3030 section 3: it would have to be converted."""
TOO_LARGE: Final = Reply(552, "5.3.4", "Message too big for the next server")

_VALUE: Final = re.compile(r"[!-<>-~\u0080-\U0010ffff]+")
"""A value of a parameter (RFC 5321 section 4.1.2, RFC 6531 section 3.3)."""
_LONGEST_ORCPT: Final = 500
"""Characters (RFC 3461 section 4.2)."""


@dataclass(frozen=True, slots=True)
class Path:
    """A reverse-path or forward-path.

    Attributes:
        mailbox: without its brackets; empty for the null path.
        parameters: what our client said behind it; keywords in upper case.
        ascii_mailbox: the same mailbox in ASCII, by the A-form of its host; empty where it has a
            local part that is not.
    """

    mailbox: str
    parameters: Mapping[str, str | None]
    ascii_mailbox: str = ""

    def told(self, far: Extensions) -> str:
        """The mailbox as that server can be told it, if it can."""
        return self.mailbox if "SMTPUTF8" in far else self.ascii_mailbox or self.mailbox

    def has(self, keyword: str) -> bool:
        """Whether that parameter was given."""
        return keyword in self.parameters

    def value(self, keyword: str) -> str:
        """The value of a parameter in upper case; empty where there is none."""
        return (self.parameters.get(keyword) or "").upper()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What MAIL has to announce.

    Attributes:
        size: octets of the message; 0 where that is not known.
        has_8bit: there are octets outside ASCII.
        needs_utf8: it is an internationalized mail by its addresses or its header section.
    """

    size: int = 0
    has_8bit: bool = False
    needs_utf8: bool = False


def mail_command(sender: Path, wishes: Wishes, far: Extensions) -> bytes | Reply:
    """The MAIL command, or why the far side cannot have this mail."""
    if wishes.needs_utf8 and "SMTPUTF8" not in far:
        return NEEDS_UTF8
    if is_binary(sender) and not ("BINARYMIME" in far and "CHUNKING" in far):
        return NEEDS_BINARY
    if 0 < far.size_limit < wishes.size:
        return TOO_LARGE
    return line(" ".join((f"MAIL FROM:<{sender.told(far)}>", *_of_mail(sender, wishes, far))))


def _of_mail(sender: Path, wishes: Wishes, far: Extensions) -> Iterator[str]:
    if wishes.size and "SIZE" in far:
        yield f"SIZE={wishes.size}"
    if is_binary(sender):
        yield "BODY=BINARYMIME"
    elif "8BITMIME" in far and (wishes.has_8bit or sender.value("BODY") == "8BITMIME"):
        yield "BODY=8BITMIME"
    # Where it might be of use, in the header of a part of it: it does no harm.
    may_use_utf8 = wishes.has_8bit and sender.has("SMTPUTF8") and "SMTPUTF8" in far
    if wishes.needs_utf8 or may_use_utf8:
        yield "SMTPUTF8"
    if "DSN" in far:
        yield from _copied(sender, "RET", "ENVID", is_utf8=False)
    if far.logged_in:
        yield "AUTH=<>"  # RFC 4954 section 5: we vouch for no client's word of who submitted it


def rcpt_command(recipient: Path, wishes: Wishes, far: Extensions) -> bytes | Reply:
    """The RCPT command, or why the far side cannot have this recipient."""
    mailbox = recipient.told(far)
    if not mailbox.isascii() and "SMTPUTF8" not in far:
        return NEEDS_UTF8
    parameters: Iterator[str] = iter(())
    if "DSN" in far:
        parameters = _copied(recipient, "NOTIFY", "ORCPT", is_utf8=wishes.needs_utf8)
    return line(" ".join((f"RCPT TO:<{mailbox}>", *parameters)))


def is_binary(sender: Path) -> bool:
    """Whether our client announced a message that must arrive octet for octet."""
    return sender.value("BODY") == "BINARYMIME"


def _copied(path: Path, *keywords: str, is_utf8: bool) -> Iterator[str]:
    """Parameters as they were given; one that cannot be one is left out."""
    for keyword in keywords:
        value = path.parameters.get(keyword)
        if value and keyword == "ORCPT" and not is_utf8:
            value = _embedded(value)
        if value and _VALUE.fullmatch(value) and (is_utf8 or value.isascii()):
            yield f"{keyword}={value}"


def _embedded(value: str) -> str:
    """An ORCPT without what needs SMTPUTF8 (RFC 6533 section 3); empty where it is too long."""
    if value.isascii() or value.partition(";")[0].upper() != "UTF-8":
        return value
    text = "".join(one if one.isascii() else f"\\x{{{ord(one):02X}}}" for one in value)
    return text if len(text) <= _LONGEST_ORCPT else ""
