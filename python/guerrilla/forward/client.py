"""Our own client, as the far side is told of it by XCLIENT of Postfix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from guerrilla._core import Transaction

__all__ = ["Client", "client_of"]

_UNKNOWN: Final = "[UNAVAILABLE]"
_ESCAPED: Final = re.compile(rb"[^!-~]|[+=]")
_WORD: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Client:
    """Who sent a mail.

    Attributes:
        values: of the attributes, by name; an empty one is not known.
        helo: what it said at HELO or EHLO.
    """

    values: dict[str, str]
    helo: str

    def attributes(self, offered: Collection[str]) -> str:
        """What stands behind XCLIENT: each attribute that is offered and that we know of.

        One that is not known is said as well, since the connection may have had another client.
        """
        known = {name: value for name, value in self.values.items() if name in offered}
        return " ".join(f"{name}={_xtext(value) or _UNKNOWN}" for name, value in known.items())

    def greets_as(self, ours: str) -> str:
        """What EHLO says behind it: the same as the client, or ours where that is no word."""
        return self.helo if _WORD.fullmatch(self.helo) else ours


def client_of(transaction: Transaction) -> Client:
    """The client of a transaction."""
    values = {
        "NAME": transaction.remote_name or "",
        "ADDR": _address(transaction.remote_ip),
        "PORT": str(transaction.remote_port or ""),
        "PROTO": "ESMTP" if transaction.esmtp else "SMTP",
        "HELO": transaction.helo,
        "LOGIN": transaction.auth or "",
        "DESTADDR": _address(transaction.local_ip),
        "DESTPORT": str(transaction.local_port or ""),
    }
    return Client(values, transaction.helo)


def _address(ip: str) -> str:
    return f"IPV6:{ip}" if ":" in ip else ip


def _xtext(value: str) -> str:
    """As RFC 3461 section 4 has it."""
    return _ESCAPED.sub(lambda found: b"+%02X" % found[0][0], value.encode()).decode()
