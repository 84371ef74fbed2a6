"""What the far side can do, by its reply to EHLO or LHLO (RFC 5321 section 4.1.1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["Extensions"]


class Extensions:
    """The keywords of a reply to EHLO, in any case.

    Args:
        lines: of the reply; the first one is a greeting.
        ignored: keywords that are not to be seen.

    Attributes:
        logged_in: whether the session is that of a user.
    """

    def __init__(self, lines: Iterable[str] = (), ignored: Collection[str] = ()) -> None:
        self.logged_in = False
        _, *offers = [*lines] or [""]
        unseen = {keyword.upper() for keyword in ignored}
        self._offers: dict[str, list[str]] = {}
        for offer in offers:
            # `AUTH=PLAIN` is how it was written before it was standardised.
            keyword, *parameters = offer.upper().replace("AUTH=", "AUTH ", 1).split() or [""]
            if keyword not in unseen:
                self._offers.setdefault(keyword, []).extend(parameters)

    def __contains__(self, keyword: str) -> bool:
        """Whether it is offered; the keyword in upper case."""
        return keyword in self._offers

    def parameters(self, keyword: str) -> list[str]:
        """What is said behind it, in upper case."""
        return self._offers.get(keyword, [])

    @property
    def size_limit(self) -> int:
        """Octets that a message may have (RFC 1870); 0 where nothing is said of it."""
        return _number("".join(self.parameters("SIZE")[:1]))

    def limit(self, name: str) -> int:
        """One of its LIMITS (RFC 9422), such as RCPTMAX; 0 where nothing is said of it."""
        for limit in self.parameters("LIMITS"):
            said, _, value = limit.partition("=")
            if said == name:
                return _number(value)
        return 0


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
