"""Go-Guerrilla's processors that are not built yet, and the keys that they read.

Its configs carry the keys of every processor, also of those that no chain names; so each of these
keys is known. A chain that names such a processor is refused at start, unless somebody registers
one of that name. Who builds a processor deletes its entry here.
"""

from dataclasses import dataclass
from typing import Final

_LEAVE_OUT: Final = "take it out of the chain, or register a processor of this name"


@dataclass(frozen=True)
class LaterProcessor:
    """A processor that comes later.

    Attributes:
        names: what a chain may call it.
        keys: of `backend_config`, those it alone reads; lower case.
        advice: what to do instead.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...] = ()
    advice: str = _LEAVE_OUT


LATER_PROCESSORS: Final = (
    LaterProcessor(("250",)),
    LaterProcessor(("Compressor",)),
    LaterProcessor(("Redis",), ("redis_interface", "redis_expire_seconds")),
    LaterProcessor(("MySQL",), advice="use 'SQL' with sql_driver 'sqlite'"),
    LaterProcessor(("GuerrillaRedisDB", "GuerrillaDbRedis"), ("redis_sql_batch_timeout",)),
    LaterProcessor(("MailDir",), ("maildir_path", "maildir_user_map")),
    LaterProcessor(("Wildcard", "WildcardProcessor"), ("wildcard_hosts",)),
)
"""Every one, in the order of Go-Guerrilla's documentation."""

LATER_KEYS: Final = frozenset(key for later in LATER_PROCESSORS for key in later.keys)
"""Their keys, known whether or not a chain names the processor."""

_BY_NAME: Final = {name.casefold(): later for later in LATER_PROCESSORS for name in later.names}


def refusal(name: str) -> str | None:
    """Why a chain cannot have that name, in any case, or its alias; None for any other name.

    Returns:
        What is not built, and what to do: the rest of a problem line after the key.
    """
    plain = name.strip()
    if ":" in plain:
        return f"the alias in {plain!r} is not built yet; name the processor alone"
    later = _BY_NAME.get(plain.casefold())
    return f"the processor {plain!r} is not built yet; {later.advice}" if later else None
