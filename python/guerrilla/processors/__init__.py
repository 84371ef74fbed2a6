"""The built-in processors: their names, and where each lives.

A module is imported when a chain names its processor, so that nobody needs a driver that he does
not use.
"""

from __future__ import annotations

from typing import Final

__all__ = ["TABLE", "Table"]


class Table:
    """Names as they are written in documentation, each with its `module:Class`."""

    def __init__(self, targets: dict[str, str]) -> None:
        """`targets` maps a name to its target; names differ in more than case."""
        self._targets = {name.casefold(): (name, target) for name, target in targets.items()}

    @property
    def names(self) -> list[str]:
        """Every name, as written."""
        return [name for name, _ in self._targets.values()]

    def target(self, name: str) -> str | None:
        """`module:Class` of a name in any case; None when it is not in the table."""
        found = self._targets.get(name.strip().casefold())
        return found[1] if found else None


TABLE: Final = Table(
    {
        "250": "guerrilla.processors.spool:Spool",
        "HeadersParser": "guerrilla.processors.headersparser:HeadersParser",
        "Header": "guerrilla.processors.header:Header",
        "Hasher": "guerrilla.processors.hasher:Hasher",
        "Debugger": "guerrilla.processors.debugger:Debugger",
        "Compressor": "guerrilla.processors.compressor:Compressor",
        "Redis": "guerrilla.processors.redis:Redis",
        "SQL": "guerrilla.processors.sql:SQL",
        "MySQL": "guerrilla.processors.sql:MySQL",
        "GuerrillaRedisDB": "guerrilla.processors.guerrillaredisdb:GuerrillaRedisDB",
        "GuerrillaDbRedis": "guerrilla.processors.guerrillaredisdb:GuerrillaRedisDB",
        "MailDir": "guerrilla.processors.maildir:MailDir",
        "Pipe": "guerrilla.processors.pipe:Pipe",
        "Wildcard": "guerrilla.processors.wildcard:Wildcard",
        "WildcardProcessor": "guerrilla.processors.wildcard:Wildcard",
        "FastCGI": "guerrilla.processors.fastcgi:FastCGI",
        "AuthFile": "guerrilla.processors.authfile:AuthFile",
        "HTTP": "guerrilla.processors.http:HTTP",
        "Forward": "guerrilla.processors.forward:Forward",
    }
)
"""What can be named in a chain without installing or importing anything."""
